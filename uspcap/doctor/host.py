"""What host checks look at."""

from __future__ import annotations

import ctypes
import platform
import re
import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from uspcap.capabilities import Explanation, effective_capabilities, explain_refusal
from uspcap.doctor.attempts import Attempts, KernelAttempts
from uspcap.doctor.host_files import HostFiles
from uspcap.granting import in_user_namespace

_CGROUP: Final = "/sys/fs/cgroup"
_STA_UNSYNC: Final = 0x40


@dataclass(frozen=True, slots=True)
class ClockState:
    """What the kernel says of CLOCK_REALTIME (adjtimex).

    Attributes
    ----------
    synchronised : bool
    maximum_error_us : int
    tai_offset_s : int
        CLOCK_TAI minus UTC.
    """

    synchronised: bool
    maximum_error_us: int
    tai_offset_s: int


class _Timex(ctypes.Structure):
    """struct timex of linux/timex.h."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        *((name, ctypes.c_long) for name in ("offset", "freq", "maxerror", "esterror")),
        ("status", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("constant", "precision", "tolerance", "sec", "usec", "tick")),
        *((name, ctypes.c_long) for name in ("ppsfreq", "jitter")),
        ("shift", ctypes.c_int),
        *((name, ctypes.c_long) for name in ("stabil", "jitcnt", "calcnt", "errcnt", "stbcnt")),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


def read_clock_state() -> ClockState | None:
    """Ask the kernel; None where it does not answer."""
    timex = _Timex()
    if ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex)) < 0:
        return None
    return ClockState(not timex.status & _STA_UNSYNC, timex.maxerror, timex.tai)


@dataclass(frozen=True)
class Host:
    """What host checks look at.

    Attributes
    ----------
    release : str
        Of the kernel.
    files : HostFiles
    attempts : Attempts
    capabilities : frozenset of str
        Effective ones.
    in_user_namespace : bool
        They are those of a user namespace that is not the host's.
    locked_memory_bytes : int
        Limit on locked memory; -1 for none.
    memory_room_bytes : int or None
        How much memory this process can have without anybody being short of it; None where that is not reported.
    clock : ClockState or None
    processes : frozenset of str
        Names of those that run, as far as this process sees them.
    explain : callable
        Explains why capabilities, of which some are given as needed and some as needed next, do not permit something.
    """

    release: str
    files: HostFiles
    attempts: Attempts
    capabilities: frozenset[str]
    in_user_namespace: bool
    locked_memory_bytes: int
    memory_room_bytes: int | None
    clock: ClockState | None
    processes: frozenset[str]
    explain: Callable[[Sequence[str], Sequence[str]], Explanation] = field(default=explain_refusal)

    @classmethod
    def here(cls, files: HostFiles) -> Host:
        """Return the host that this process runs on, with its files from `files`."""
        return cls(
            release=platform.release(),
            files=files,
            attempts=KernelAttempts(),
            capabilities=effective_capabilities(),
            in_user_namespace=in_user_namespace(),
            locked_memory_bytes=resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
            memory_room_bytes=memory_room(files),
            clock=read_clock_state(),
            processes=files.processes(),
        )


def memory_room(files: HostFiles) -> int | None:
    """Return how many bytes can be had before the host, or a control group of this process, is short of memory."""
    rooms = []
    available = re.search(r"^MemAvailable:\s+([0-9]{1,15}) kB", files.text("/proc/meminfo") or "", re.MULTILINE)
    if available:
        rooms.append(int(available[1]) << 10)
    for line in (files.text("/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            rooms += _room_of_groups(files, f"{_CGROUP}", path, "memory.max", "memory.current")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            rooms += _room_of_groups(files, f"{_CGROUP}/memory", path, *names)
    return min(rooms, default=None)


def _room_of_groups(files: HostFiles, root: str, path: str, limit_name: str, usage_name: str) -> list[int]:
    """Return the room in a control group, and in each of those that it is in."""
    rooms = []
    parts = [part for part in path.split("/") if part not in ("", "..")][:64]
    for depth in range(len(parts) + 1):
        directory = "/".join((root, *parts[:depth]))
        limit, usage = files.number(f"{directory}/{limit_name}"), files.number(f"{directory}/{usage_name}")
        if limit is not None and usage is not None:
            rooms.append(max(0, limit - usage))
    return rooms
