"""uspcap installed with an interpreter of its own, where users of any kind can reach it: what the hints propose."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import shutil
import stat
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

import uspcap

_SCRIPT = """#!{interpreter}
import sys
from uspcap.cli import run
sys.argv[0] = {program!r}
run()
"""


@dataclass(frozen=True)
class Installation:
    """A virtual environment.

    Attributes
    ----------
    directory : Path
    copied : bool
        Its interpreter is a file of its own, and no link to another's.
    """

    directory: Path
    copied: bool

    @property
    def interpreter(self) -> Path:
        return self.directory / "bin" / "python3"

    @property
    def program(self) -> Path:
        return self.directory / "bin" / "uspcap"


def install(directory: Path, *, copied: bool) -> Installation:
    """Install this uspcap below a directory that everybody can reach; skips the test where that cannot be had."""
    interpreter = _reachable_interpreter()
    for path in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        if not _everybody_reaches(Path(path)):
            pytest.skip(f"other users cannot reach the packages in {path}")
    if not _everybody_reaches(directory.parent):
        pytest.skip(f"other users cannot reach {directory.parent}")
    kind = "--copies" if copied else "--symlinks"
    subprocess.run([interpreter, "-m", "venv", "--without-pip", kind, directory], check=True)
    installation = Installation(directory, copied)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = directory / "lib" / version / "site-packages"
    _copy_package(packages / "uspcap")
    others = dict.fromkeys([sysconfig.get_path("purelib"), sysconfig.get_path("platlib")])
    (packages / "others.pth").write_text("\n".join(others) + "\n")
    installation.program.write_text(
        _SCRIPT.format(interpreter=installation.interpreter, program=str(installation.program))
    )
    installation.program.chmod(0o755)
    return installation


def _copy_package(target: Path) -> None:
    """Copy the package from where its files are: an editable installation has its compiled modules elsewhere."""
    source = Path(str(uspcap.__file__)).parent
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyx", "*.pxd", "*.so"))
    for module in pkgutil.walk_packages(uspcap.__path__, "uspcap."):
        found = importlib.util.find_spec(module.name)
        assert found is not None
        if found.origin is not None and found.origin.endswith(".so"):
            shutil.copy(found.origin, target.joinpath(*module.name.split(".")[1:-1]))


def _reachable_interpreter() -> str:
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (getattr(sys, "_base_executable", sys.executable), f"/usr/bin/python{version}"):
        if _everybody_reaches(Path(candidate).resolve()):
            return str(candidate)
    pytest.skip(f"other users can reach no interpreter of Python {version}")


def _everybody_reaches(path: Path) -> bool:
    return path.exists() and all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))


def as_user(uid: int, gid: int) -> dict[str, object]:
    """Return arguments for `subprocess.run` that have a command run by a user, without any capability."""
    return {"user": uid, "group": gid, "extra_groups": [], "env": {"PATH": os.environ["PATH"]}}
