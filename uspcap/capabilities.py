"""Which Linux capabilities the process has, and how to say that one is missing."""

from __future__ import annotations

import ctypes
import resource
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from uspcap.granting import Situation, setcap_command

CAPABILITY_NUMBERS: Final = {
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""Bit numbers from linux/capability.h of those that captures touch."""

PACKET_SOCKET_NEEDS: Final = ("CAP_NET_RAW",)
"""What a capture through PACKET_MMAP needs."""

AF_XDP_NEEDS: Final = ("CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW")
"""What a capture through AF_XDP, and every comparison of live paths, needs; memory that is locked comes to that."""

XDP_PROGRAM_NEEDS: Final = ("CAP_BPF", "CAP_NET_ADMIN")
"""What loading and attaching an XDP program, and making its maps, needs."""

UMEM_BYTES: Final = 64 << 20
"""What an AF_XDP capture locks by default."""

CAPABILITY_VERSION_3: Final = 0x20080522
CAPABILITY_HEADER: Final = struct.Struct("=Ii")
CAPABILITY_SETS: Final = struct.Struct("=6I")
"""Two struct __user_cap_data_struct: effective, permitted, inheritable, the low 32 bits first, then the high ones."""

_libc = ctypes.CDLL(None, use_errno=True)


def effective_capabilities() -> frozenset[str]:
    """Return the names in `CAPABILITY_NUMBERS` that are effective in the calling thread."""
    header = ctypes.create_string_buffer(CAPABILITY_HEADER.pack(CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(CAPABILITY_SETS.size)
    if _libc.capget(header, sets):
        return frozenset()
    low, _, _, high, _, _ = CAPABILITY_SETS.unpack(sets.raw[: CAPABILITY_SETS.size])
    mask = high << 32 | low
    return frozenset(name for name, bit in CAPABILITY_NUMBERS.items() if mask >> bit & 1)


def missing_of(needed: Sequence[str], present: Collection[str]) -> list[str]:
    """Return which of these capabilities are not there.

    CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON, as in Linux 5.8 and later.
    """
    stands_for = {"CAP_BPF", "CAP_PERFMON"} if "CAP_SYS_ADMIN" in present else set()
    return [name for name in needed if name not in present and name not in stands_for]


def af_xdp_needs() -> tuple[str, ...]:
    """Return what a capture through AF_XDP needs here: CAP_IPC_LOCK, too, where the limit on locked memory is low."""
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    low = limit != resource.RLIM_INFINITY and limit < UMEM_BYTES
    return (*AF_XDP_NEEDS, "CAP_IPC_LOCK") if low else AF_XDP_NEEDS


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the kernel refuses something to a process without privileges, or with too few.

    Attributes
    ----------
    reason : str
    remedy : str
        What to do, for a sentence.
    commands : tuple of str
        The same for a shell of root's: one that grants one run what is missing, and those that grant it for good.
    """

    reason: str
    remedy: str
    commands: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.reason}: {self.remedy}"


def explain_missing(needed: Sequence[str], further: Sequence[str] = ()) -> str:
    """Return the end of a message about a permission: what is missing, and the command that grants just that.

    Parameters
    ----------
    needed, further : sequence of str
        As `explain_refusal` takes them.
    """
    return str(explain_refusal(needed, further))


def explain_refusal(needed: Sequence[str], further: Sequence[str] = ()) -> Explanation:
    """Explain why an operation is not permitted.

    Parameters
    ----------
    needed : sequence of str
        Capability names, all of which the refused operation needs.
    further : sequence of str
        What the command that failed would need next; CAP_IPC_LOCK among it is granted, too, but not called missing.
    """
    situation = Situation.here()
    present = effective_capabilities()
    if not missing_of(needed, present):
        return _refused_anyway(needed, situation)
    every = list(dict.fromkeys((*needed, *further)))
    # It does without, where less memory is asked for: it is granted with the others, and not said to be missing.
    optional = [name for name in missing_of(every, present) if name == "CAP_IPC_LOCK" and name not in needed]
    missing = [name for name in missing_of(every, present) if name not in optional]
    said = f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    unreachable = situation.beyond_reach(missing, CAPABILITY_NUMBERS)
    if unreachable:
        added = " ".join(f"--cap-add={name.removeprefix('CAP_')}" for name in (*missing, *optional))
        return Explanation(
            f"{said}, and this container or service may never have {listed(unreachable)}",
            f"start it with {added} (or CapabilityBoundingSet= of its unit), or run uspcap on the host",
        )
    granted = [*missing, *optional, *sorted(present.difference(missing))]
    for_one_run = situation.for_one_run(granted)
    just_that = "just that" + (" and CAP_IPC_LOCK, as the limit on locked memory is low" if optional else "")
    if situation.can_be_granted_by_file:
        command = setcap_command(granted, situation.interpreter)
        remedy = f"run as root, or let root grant uspcap's own interpreter {just_that}: '{command}'"
    else:
        remedy = f"run as root, or let root start one run with {just_that}: '{for_one_run}'"
    return Explanation(said, remedy, (for_one_run, *situation.for_good(granted)))


def _refused_anyway(needed: Sequence[str], situation: Situation) -> Explanation:
    """Explain why an operation is not permitted to a process that has what it needs."""
    if situation.in_user_namespace:
        return Explanation(
            f"{listed(needed)} of a user namespace (a rootless container, 'unshare -U') "
            f"{'does' if len(needed) == 1 else 'do'} not count for this",
            "run uspcap as root of the host, or in a container that root started",
        )
    if situation.under_seccomp:
        return Explanation(
            f"the process has {listed(needed)}, and the seccomp filter of its container or service, a security module "
            "or kernel lockdown forbids it anyway",
            "allow the system call there (docker: --security-opt seccomp=...), or run uspcap on the host",
        )
    return Explanation(
        f"the process has {listed(needed)}, so a container's limits, a security module or kernel lockdown forbids it",
        "run uspcap outside of the container, or relax that limit",
    )


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them: `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
