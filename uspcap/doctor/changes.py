"""Settings that can be changed, and changed back later, by another run too.

What was changed stands in a file: each setting with the value that it had and the one that it got, in the order in
which they were made. Taking back goes through it from the end, and leaves alone what another has changed meanwhile.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from uspcap.doctor.driver import Driver
from uspcap.doctor.host_files import HostFiles
from uspcap.errors import CaptureError
from uspcap.files.whole import whole_file
from uspcap.system_errors import reason, remedy

RECORD: Final = Path("/run/uspcap/doctor.json")
"""Where it is remembered what was changed; gone after a boot, as are the settings."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting.

    Attributes
    ----------
    kind : {'file', 'feature', 'ring', 'coalescing'}
        A file of /proc or /sys; a feature, the receive ring's size or interrupt coalescing of an interface.
    where : str
        Path, or interface.
    what : str
        Of an interface: which feature (`gro`), which ring (`rx`), which value (`rx-usecs`, `adaptive-rx`).
    before, after : str
        Values; features and `adaptive-rx` are `on` or `off`.
    """

    kind: str
    where: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        subject = self.where if self.kind == "file" else f"{self.what} of {self.where}"
        return f"{subject}: {self.before} → {self.after}"


class Settings:
    """Reads and writes what changes are about.

    Parameters
    ----------
    files : HostFiles
    driver : Driver
    """

    def __init__(self, files: HostFiles, driver: Driver) -> None:
        self._files = files
        self._driver = driver

    def value(self, change: Change) -> str | None:
        """Return what a setting is now; None where it cannot be told."""
        where, what = change.where, change.what
        if change.kind == "file":
            return self._files.text(where)
        if change.kind == "feature":
            on = self._driver.features(where).get(what)
            return None if on is None else _switch(on)
        if change.kind == "ring":
            rings = self._driver.rings(where)
            return None if rings is None else str(rings.current)
        coalescing = self._driver.coalescing(where)
        if coalescing is None:
            return None
        return _switch(coalescing.adaptive) if what == "adaptive-rx" else str(coalescing.microseconds)

    def set(self, change: Change) -> None:
        """Give a setting its value `after`.

        Raises
        ------
        CaptureError
            The kernel or the driver refuses, or takes another value.
        """
        where, value = change.where, change.after
        try:
            if change.kind == "file":
                self._files.write(where, value)
            elif change.kind == "feature":
                self._driver.set_feature(where, change.what, value == "on")
            elif change.kind == "ring":
                self._driver.set_ring(where, int(value))
            else:
                self._driver.set_coalescing(where, **_coalescing_argument(change))
        except OSError as error:
            raise CaptureError(
                f"cannot change {change}: {reason(error)}; {remedy(error, 'run as root, or leave it as it is')}"
            ) from error
        obtained = self.value(change)
        if obtained != value:
            raise CaptureError(f"{change} was taken and is {obtained} all the same: the driver knows better")


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _coalescing_argument(change: Change) -> dict[str, Any]:
    if change.what == "adaptive-rx":
        return {"adaptive": change.after == "on"}
    return {"microseconds": int(change.after)}


class Record:
    """The changes that were made and not taken back.

    Parameters
    ----------
    path : Path
    """

    def __init__(self, path: Path = RECORD) -> None:
        self._path = path

    def read(self) -> list[Change]:
        """Return the changes, oldest first.

        Raises
        ------
        CaptureError
            The file cannot be read, or is not one of these.
        """
        try:
            text = self._path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CaptureError(
                f"cannot read {self._path}: {reason(error)}; {remedy(error, 'run as the user who changed it')}"
            ) from error
        try:
            return [Change(**one) for one in json.loads(text)]
        except (ValueError, TypeError) as error:
            raise CaptureError(
                f"{self._path} is no record of changes ({error}): take the settings back by hand, then remove it"
            ) from error

    def write(self, changes: Iterable[Change]) -> None:
        """Keep these and no others; without any, the file goes.

        Raises
        ------
        CaptureError
            It cannot be written.
        """
        kept = [asdict(change) for change in changes]
        try:
            if not kept:
                self._path.unlink(missing_ok=True)
                return
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(self._path) as record:
                record.write(json.dumps(kept, indent=1) + "\n")
        except (OSError, ValueError) as error:
            raise CaptureError(
                f"cannot remember changes in {self._path}: {reason(error)}; {remedy(error, 'run as root')}. Nothing "
                "more is changed"
            ) from error


def apply(changes: Iterable[Change], settings: Settings, record: Record) -> list[str]:
    """Make changes, each remembered before it is made; return a line for each.

    Raises
    ------
    CaptureError
        It cannot be remembered; what was changed until then stays, and is remembered.
    """
    made = record.read()
    lines = []
    for change in changes:
        record.write([*made, change])
        try:
            settings.set(change)
        except CaptureError as error:
            lines.append(f"not changed: {error}")
            if settings.value(change) in (None, change.before):
                record.write(made)
                continue
        else:
            lines.append(f"changed {change}")
        made.append(change)
    return lines


def undo(settings: Settings, record: Record) -> tuple[list[str], bool]:
    """Take back what was changed, newest first.

    Returns
    -------
    lines : list of str
        One for each change.
    complete : bool
        False where a setting could not be put back; it stays in the record.
    """
    kept: list[Change] = []
    lines = []
    for change in reversed(record.read()):
        back = replace(change, before=change.after, after=change.before)
        now = settings.value(change)
        if now is None:
            lines.append(f"left: {change.what or change.where} of {change.where} is gone")
        elif now == change.before:
            lines.append(f"left: {back} is so already")
        elif now != change.after:
            lines.append(f"left: {back}, as another has set it to {now}")
        else:
            try:
                settings.set(back)
                lines.append(f"put back {back}")
            except CaptureError as error:
                lines.append(f"not put back: {error}")
                kept.insert(0, change)
    record.write(kept)
    return lines, not kept
