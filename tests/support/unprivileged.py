"""Processes that are another user's, and have some capabilities only, as a file's capabilities give them."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from uspcap.capabilities import CAPABILITY_NUMBERS

NOBODY = 65534

_START = """
import ctypes, encodings.ascii, encodings.idna, encodings.latin_1, importlib, os, pkgutil, struct, sys
import numpy.ma
import uspcap
# The interpreter's own files may be out of the user's reach, which has nothing to do with what is tested.
for one in pkgutil.walk_packages(uspcap.__path__, "uspcap."):
    importlib.import_module(one.name)
try:
    import cypcap
except ImportError:
    pass
libc = ctypes.CDLL(None, use_errno=True)
kept = int(sys.argv[1])
low, high = kept & 0xFFFFFFFF, kept >> 32
assert libc.prctl(8, 1, 0, 0, 0) == 0  # PR_SET_KEEPCAPS
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
header = struct.pack("=Ii", 0x20080522, 0)
assert libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)) == 0
del sys.argv[1]
"""


def nobody_with(capabilities: Sequence[str], script: str, *words: str) -> list[str]:
    """Return the command line that runs a script of Python as nobody, with these capabilities only."""
    mask = sum(1 << CAPABILITY_NUMBERS[name] for name in capabilities)
    return [sys.executable, "-c", _START + script, str(mask), *words]


def let_others_in(directory: Path, mode: int = 0o755) -> None:
    """Give a test's directory a mode, and let everybody search those above it that pytest made."""
    for above in directory.parents:
        if above == Path(tempfile.gettempdir()):
            break
        above.chmod(0o755)
    directory.chmod(mode)


def status_of(process: int) -> list[dict[str, str]]:
    """Return /proc/<pid>/task/*/status of each thread, by field."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return [
        {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}
        for text in ((thread / "status").read_text() for thread in threads)
    ]


def capabilities_of(status: dict[str, str]) -> int:
    """Return, as a mask, what is in any of the sets, but for the bounding one."""
    mask = 0
    for name in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
        mask |= int(status[name], 16)
    return mask
