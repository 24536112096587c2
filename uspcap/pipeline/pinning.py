"""Which CPUs a capture runs on: the thread that reads the rings also writes and analyzes."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from uspcap.errors import UsageError

_NETWORK: Final = Path("/sys/class/net")
_NODES: Final = Path("/sys/devices/system/node")


def pin(cpus: Collection[int], interfaces: Sequence[str], *, network: Path = _NETWORK, nodes: Path = _NODES) -> str:
    """Bind the calling thread, and those that it starts from now on, to CPUs.

    To be called before rings are made, so that their memory is near to these CPUs.

    Parameters
    ----------
    cpus : collection of int
    interfaces : sequence of str
        Whose NUMA nodes are compared.
    network, nodes : Path
        Where sysfs lists interfaces and NUMA nodes.

    Returns
    -------
    str
        What was done, and that it is far from the NIC where it is.

    Raises
    ------
    UsageError
        This process may not use one of these CPUs.
    """
    allowed = os.sched_getaffinity(0)
    refused = set(cpus) - allowed
    if refused or not cpus:
        raise UsageError(
            f"cannot run on CPU {as_ranges(refused)}: this process may use {as_ranges(allowed)}; see taskset and "
            "the cpuset of its container or service"
        )
    os.sched_setaffinity(0, cpus)
    said = f"reading and writing on CPU {as_ranges(cpus)}"
    for interface in interfaces:
        node = _numa_node(network, interface)
        if node is None:
            continue
        try:
            near = parse_ranges((nodes / f"node{node}" / "cpulist").read_text())
        except (OSError, ValueError):
            said += f"; {interface} is at NUMA node {node}, and sysfs does not show which CPUs are near"
            continue
        far = set(cpus) - near
        if far:
            said += (
                f"; {interface} is at NUMA node {node}, whose CPUs are {as_ranges(near)}: CPU {as_ranges(far)} is far"
            )
    return said


def _numa_node(network: Path, interface: str) -> int | None:
    """Return the NUMA node of an interface's device, None where it has none or sysfs does not say."""
    try:
        node = int((network / interface / "device" / "numa_node").read_text())
    except (OSError, ValueError):
        return None
    return node if node >= 0 else None


def parse_ranges(text: str) -> frozenset[int]:
    """Return the numbers in a list such as `0,2-3`, as the kernel writes CPUs.

    Raises
    ------
    ValueError
        It is no such list.
    """
    numbers: set[int] = set()
    for part in text.strip().split(","):
        first, dash, last = part.partition("-")
        span = range(int(first), int(last if dash else first) + 1)
        if not span or span.start < 0 or span.stop > 1 << 16:
            raise ValueError(f"{part!r} is no range of numbers")
        numbers.update(span)
    return frozenset(numbers)


def as_ranges(numbers: Collection[int]) -> str:
    """Return numbers as `parse_ranges` takes them."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)
