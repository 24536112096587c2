"""The files in which a kernel tells about its host, below a root that tests can choose."""

from __future__ import annotations

import os
from pathlib import Path


class HostFiles:
    """Reads /proc and /sys, or a copy of them.

    Parameters
    ----------
    root : Path
        What stands for `/`.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, path: str) -> str | None:
        """Return what a file holds, without white space at its ends; None where it cannot be read."""
        try:
            return self._at(path).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return None

    def number(self, path: str) -> int | None:
        """Return the whole number that a file holds; None where there is none."""
        try:
            return int(self.text(path) or "")
        except ValueError:
            return None

    def matching(self, pattern: str) -> list[str]:
        """Return the paths that a glob pattern matches, in natural order of their numbers."""
        found = (f"/{path.relative_to(self._root)}" for path in self._root.glob(pattern.lstrip("/")))
        return sorted(found, key=lambda path: (len(path), path))

    def target(self, path: str) -> str | None:
        """Return the last part of what a symbolic link points to; None where there is none."""
        try:
            return self._at(path).readlink().name
        except OSError:
            return None

    def write(self, path: str, value: str) -> None:
        """Write a value into a file that is there; raises OSError as the kernel refuses it."""
        # As a shell's `>` does it, but for making a file that is not there.
        descriptor = os.open(self._at(path), os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode("ascii"))
        finally:
            os.close(descriptor)

    def processes(self) -> frozenset[str]:
        """Return the names of the processes that run."""
        return frozenset(filter(None, (self.text(path) for path in self.matching("/proc/[0-9]*/comm"))))

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")
