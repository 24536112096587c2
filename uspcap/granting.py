"""How a user is given capabilities without becoming root, and without giving them to anybody else.

File capabilities belong to the file that the kernel executes, which for a script is its interpreter: on
/usr/bin/python3 they would serve every script of every user. So they are proposed only for an interpreter that is
uspcap's own, and that not everybody may execute; otherwise root starts one run with ambient capabilities.

References
----------
capabilities(7); execve(2), on interpreters; setpriv(1); setcap(8); user_namespaces(7); linux/prctl.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import shlex
import stat
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_GET_SECCOMP: Final = 21
_PR_CAPBSET_READ: Final = 23
_PR_GET_NO_NEW_PRIVS: Final = 39
_SECCOMP_MODE_FILTER: Final = 2

INITIAL_USER_NAMESPACE: Final = 0xEFFFFFFD
"""Inode of the host's user namespace (PROC_USER_INIT_INO of linux/proc_ns.h)."""

OWN_DIRECTORY: Final = "/opt/uspcap"
"""Where the proposed installation with an interpreter of its own goes."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Situation:
    """What decides how a capability can be granted.

    Attributes
    ----------
    user : str
        Who runs uspcap: a name, or a number where there is none.
    group : int
        That user's first group.
    program : str
        How uspcap is started.
    interpreter : str
        The file that the kernel executes, with symbolic links followed.
    own_interpreter : bool
        It is a copy within uspcap's virtual environment, and no other program's.
    everybody_runs_it : bool
        It can be executed by users who are neither its owner nor in its group.
    file_capabilities_count : bool
        Its file system and this process take file capabilities into account.
    in_user_namespace : bool
        Capabilities are those of a user namespace that is not the host's.
    under_seccomp : bool
        A seccomp filter decides about system calls.
    out_of_reach : frozenset of int
        Capabilities, by number, that neither this process nor what it starts can ever have: they are not in its
        bounding set.
    """

    user: str
    group: int
    program: str
    interpreter: str
    own_interpreter: bool = False
    everybody_runs_it: bool = True
    file_capabilities_count: bool = True
    in_user_namespace: bool = False
    under_seccomp: bool = False
    out_of_reach: frozenset[int] = frozenset()

    @classmethod
    def here(cls) -> Situation:
        """Return that of this process."""
        interpreter = Path(sys.executable or "/usr/bin/python3")
        resolved = interpreter.resolve()
        uid = os.geteuid()
        try:
            entry = pwd.getpwuid(uid)
            user, group = entry.pw_name, entry.pw_gid
        except KeyError:
            user, group = str(uid), os.getegid()
        return cls(
            user=user,
            group=group,
            program=_program(interpreter),
            interpreter=str(resolved),
            own_interpreter=sys.prefix != sys.base_prefix and resolved.is_relative_to(Path(sys.prefix).resolve()),
            everybody_runs_it=_everybody_runs(resolved),
            file_capabilities_count=_file_capabilities_count(resolved),
            in_user_namespace=in_user_namespace(),
            under_seccomp=_prctl(_PR_GET_SECCOMP) == _SECCOMP_MODE_FILTER,
            out_of_reach=frozenset(number for number in range(64) if _prctl(_PR_CAPBSET_READ, number) == 0),
        )

    def for_one_run(self, names: Collection[str]) -> str:
        """Return the command by which root starts uspcap as the user, with these capabilities and no others."""
        wanted = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in sorted(names))])
        groups = "--clear-groups" if self.user.isdecimal() else "--init-groups"
        user = shlex.quote(self.user)
        return (
            f"setpriv --reuid={user} --regid={self.group} {groups} --inh-caps={wanted} --ambient-caps={wanted} "
            f"{shlex.quote(self.program)} ..."
        )

    def for_good(self, names: Collection[str]) -> tuple[str, ...]:
        """Return the commands by which root lets the user's group run uspcap with these capabilities from now on.

        They leave the interpreters of others alone: where uspcap has none of its own, they install it with one.
        """
        commands: list[str] = []
        interpreter = self.interpreter
        if not (self.own_interpreter and self.file_capabilities_count):
            interpreter = f"{OWN_DIRECTORY}/bin/python3"
            commands += [
                f"python3 -m venv --copies {OWN_DIRECTORY}",
                f"{interpreter} -m pip install uspcap",
            ]
        if len(commands) or self.everybody_runs_it:
            commands += [f"chgrp {self.group} {shlex.quote(interpreter)}", f"chmod 0750 {shlex.quote(interpreter)}"]
        return *commands, setcap_command(names, interpreter)

    @property
    def can_be_granted_by_file(self) -> bool:
        """Whether file capabilities of the interpreter serve uspcap, and nobody whom they should not."""
        return self.own_interpreter and self.file_capabilities_count and not self.everybody_runs_it

    def beyond_reach(self, names: Collection[str], numbers: Mapping[str, int]) -> list[str]:
        """Return those of these capabilities that this process cannot get."""
        return [name for name in names if numbers[name] in self.out_of_reach]


def setcap_command(names: Collection[str], interpreter: str) -> str:
    """Return the command that gives a file these capabilities, and takes others from it."""
    return f"setcap {','.join(sorted(name.lower() for name in names))}+ep {shlex.quote(interpreter)}"


def _program(interpreter: Path) -> str:
    """Return how uspcap is started by this interpreter."""
    beside = interpreter.parent / "uspcap"
    started = Path(sys.argv[0]) if sys.argv and sys.argv[0] else beside
    for candidate in (started, beside):
        with contextlib.suppress(OSError):  # it may be where this user may not look
            if candidate.name == "uspcap" and candidate.is_file():
                return str(candidate.absolute())
    return "uspcap"


def _everybody_runs(path: Path) -> bool:
    """Whether users of no particular kind can execute a file: it, and all directories above it, let them."""
    try:
        return all(step.stat().st_mode & stat.S_IXOTH for step in (path, *path.parents))
    except OSError:
        return True


def _file_capabilities_count(path: Path) -> bool:
    """Whether the capabilities of a file have an effect where this process executes it."""
    if _prctl(_PR_GET_NO_NEW_PRIVS) == 1:
        return False
    try:
        return not os.statvfs(path).f_flag & os.ST_NOSUID
    except OSError:
        return True


def in_user_namespace() -> bool:
    """Whether this process is in a user namespace that is not the host's; False where /proc does not tell."""
    try:
        return Path("/proc/self/ns/user").stat().st_ino != INITIAL_USER_NAMESPACE
    except OSError:
        return False


def _prctl(option: int, argument: int = 0) -> int:
    result: int = _libc.prctl(option, ctypes.c_ulong(argument), *(ctypes.c_ulong(0) for _ in range(3)))
    return result
