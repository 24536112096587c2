"""Giving privileges up once a capture is set up: what runs on frames of strangers needs none.

Root goes on as another user where that was asked for. A process that is not root and was given capabilities, by a
file's or as ambient ones, always gives up those that are not needed any more. What is still needed is CAP_NET_ADMIN
where the NIC's timestamping was switched on and must be switched back, and CAP_BPF where the kernel wants it for
reading maps that are open already (older ones do; it is tried).

A capability belongs to a thread. Here the calling thread gives up; threads that it starts later have no more than it.

References
----------
capabilities(7); credentials(7); linux/capability.h; linux/prctl.h.
"""

from __future__ import annotations

import ctypes
import os
import pwd
from collections.abc import Set
from pathlib import Path
from typing import Final

from uspcap.backends.base import LiveSource
from uspcap.capabilities import CAPABILITY_HEADER, CAPABILITY_NUMBERS, CAPABILITY_SETS, CAPABILITY_VERSION_3
from uspcap.errors import CaptureError, PermissionDenied, UsageError

# linux/prctl.h.
_PR_SET_KEEPCAPS: Final = 8
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_libc = ctypes.CDLL(None, use_errno=True)


def find_user(name: str) -> pwd.struct_passwd:
    """Return the user to go on as.

    Raises
    ------
    UsageError
        There is none of that name, or this process cannot become one.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise UsageError(f"there is no user {name!r} for -Z: name one of /etc/passwd") from None
    if os.geteuid() != 0 and user.pw_uid != os.geteuid():
        raise UsageError(f"only root can switch to another user (-Z {name}): leave -Z out, or run uspcap as root")
    return user


def can_relinquish(user: pwd.struct_passwd | None) -> bool:
    """Whether this process has something that `relinquish` gives up."""
    if os.geteuid() == 0:
        return user is not None and user.pw_uid != 0
    return bool(_permitted())


def relinquish(user: pwd.struct_passwd | None, source: LiveSource) -> str:
    """Give up, for good, what a source that is set up does not need.

    Parameters
    ----------
    user : pwd.struct_passwd, optional
        Of `find_user`. Without one, root stays what it is.
    source : LiveSource

    Returns
    -------
    str
        What was done, for a line to the user; empty where there was nothing to do.

    Raises
    ------
    CaptureError
        The system refuses.
    """
    if not can_relinquish(user):
        return ""
    root = os.geteuid() == 0
    permitted = _permitted()
    try:
        kept = _needed(source, permitted)
        # Nothing that is executed later brings privileges back: no file's capabilities, no set-user-ID.
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        if root and user is not None:
            _prctl(_PR_SET_KEEPCAPS, int(bool(kept)))
            os.initgroups(user.pw_name, user.pw_gid)
            os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
            os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
            _prctl(_PR_SET_KEEPCAPS, 0)
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _set_capabilities(kept, kept)
    except OSError as error:
        raise CaptureError(
            f"cannot drop privileges: {error.strerror}; leave -Z out, or run uspcap with all that root has"
        ) from error
    if _permitted() != kept:
        raise CaptureError("privileges were dropped but are still held: run uspcap without them, on files only")
    names = sorted(name for name, bit in CAPABILITY_NUMBERS.items() if kept >> bit & 1)
    who = f"continues as {user.pw_name}" if root and user is not None else "goes on"
    said = f"{who} {'with ' + ' and '.join(names) + ' only' if names else 'without any capability'}"
    others = _threads_with_more(kept)
    return said + (f"; {others} threads that ran before keep theirs" if others else "")


def _needed(source: LiveSource, permitted: int) -> int:
    """Return, as a mask, which of the permitted capabilities the source needs until its end."""
    kept = _mask(source.capabilities_needed()) & permitted
    # The others are taken from the effective set only, so that they can be had back.
    _set_capabilities(kept, permitted)
    try:
        source.statistics()
    except PermissionDenied:
        kept |= _mask({"CAP_BPF"}) & permitted
    finally:
        _set_capabilities(permitted, permitted)
    return kept


def _mask(names: Set[str]) -> int:
    return sum(1 << CAPABILITY_NUMBERS[name] for name in names)


def _permitted(thread: str = "thread-self") -> int:
    """Return a thread's permitted set as a mask."""
    for line in Path(f"/proc/{thread}/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0


def _threads_with_more(kept: int) -> int:
    """Return how many threads of this process have capabilities beyond `kept`."""
    threads = [path.name for path in Path("/proc/self/task").iterdir()]
    return sum(bool(_permitted(f"self/task/{thread}") & ~kept) for thread in threads)


def _set_capabilities(effective: int, permitted: int) -> None:
    """Set the calling thread's sets; nothing is inheritable."""
    low = 0xFFFFFFFF
    sets = CAPABILITY_SETS.pack(effective & low, permitted & low, 0, effective >> 32, permitted >> 32, 0)
    _checked(_libc.capset(CAPABILITY_HEADER.pack(CAPABILITY_VERSION_3, 0), sets))


def _prctl(option: int, argument: int) -> None:
    _checked(_libc.prctl(option, ctypes.c_ulong(argument), *(ctypes.c_ulong(0) for _ in range(3))))


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
