"""Which Linux capabilities the process has, and how to say that one is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

CAPABILITY_NUMBERS: Final = {
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_IPC_LOCK": 14,
    "CAP_SYS_ADMIN": 21,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
"""Bit numbers from linux/capability.h of those that captures touch."""


def effective_capabilities(status: str | None = None) -> frozenset[str]:
    """Return the names in `CAPABILITY_NUMBERS` that are effective in the calling thread.

    Parameters
    ----------
    status : str, optional
        Text of a /proc/<pid>/status; that of the calling thread by default.
    """
    if status is None:
        status = Path("/proc/thread-self/status").read_text(encoding="ascii", errors="replace")
    mask = 0
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            mask = int(line.split()[1], 16)
    return frozenset(name for name, bit in CAPABILITY_NUMBERS.items() if mask >> bit & 1)


def explain_missing(needed: Sequence[str]) -> str:
    """Return the end of a message about a permission: what is missing, and how to grant it.

    Parameters
    ----------
    needed : sequence of str
        Capability names, all of which the refused operation needs.
    """
    present = effective_capabilities()
    missing = [name for name in needed if name not in present]
    if "CAP_BPF" in missing and "CAP_SYS_ADMIN" in present:
        missing.remove("CAP_BPF")  # Linux 5.8 and later let CAP_SYS_ADMIN stand for it.
    if not missing:
        return (
            f"the process has {' and '.join(needed)}, so a container's limits, a security module or "
            "kernel lockdown forbids it: run uspcap outside of the container, or relax that limit"
        )
    return (
        f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: run as root, or grant "
        f"them once with '{granting_command()}'"
    )


def granting_command() -> str:
    """Return the command that lets uspcap's interpreter capture without root."""
    granted = ",".join(name.lower() for name in ("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF"))
    return f"setcap {granted}+ep {Path(sys.executable).resolve()}"
