"""Frames and small programs that several tests use."""

import struct

from uspcap.bpf.attach import CaptureMaps
from uspcap.bpf.builder import Builder
from uspcap.bpf.instructions import R0, exit_insn, mov64_imm
from uspcap.bpf.xdp_program import Counter

UDP_FRAME = b"".join(
    (
        bytes.fromhex("ffffffffffff0200000000010800"),
        bytes.fromhex("4500002e00000000401100000a0000010a000002"),
        struct.pack("!HHHH", 1234, 5000, 26, 0),
        bytes(18),
    )
)
"""60 bytes: IPv4, UDP to port 5000."""

TCP_FRAME = UDP_FRAME[:23] + b"\x06" + UDP_FRAME[24:]
"""The same, as TCP."""


def returning(verdict: int) -> bytes:
    """Return a program that gives one verdict for every frame."""
    builder = Builder()
    builder.add(mov64_imm(R0, verdict), exit_insn())
    return builder.build().link()


def counted(maps: CaptureMaps) -> dict[str, int]:
    """Return the counters that are not 0, summed over queues."""
    queues = maps.read_counters()
    sums = {counter.name: sum(queue[counter] for queue in queues) for counter in Counter}
    return {name: count for name, count in sums.items() if count}
