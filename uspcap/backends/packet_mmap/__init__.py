"""PACKET_MMAP: the kernel's own copy of each frame, which takes nothing away from anybody."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from uspcap.backends.declaration import Backend, Request
from uspcap.declared_options import Kind, Option

if TYPE_CHECKING:
    from uspcap.backends.base import LiveSource


def spreading(text: str) -> tuple[str, int]:
    """Return how to spread frames over rings, such as `cpu` or `hash:4`: the mode, and rings or as many as CPUs.

    Raises
    ------
    ValueError
    """
    match = re.fullmatch(r"(cpu|hash|qm)(?::([1-9]\d?))?", text)
    if match is None:
        raise ValueError(f"{text!r} is not a fanout mode; write cpu, hash or qm, and rings as in hash:4")
    return match[1], int(match[2]) if match[2] else len(os.sched_getaffinity(0))


def _open(request: Request) -> LiveSource:
    from uspcap.backends.packet_mmap.source import DEFAULT_BUFFER_BYTES, PacketMmapSource

    fanout, rings = BACKEND.values(request)["fanout"] or (None, 1)
    return PacketMmapSource(
        request.interface,
        request.expression,
        snaplen=request.snaplen,
        promiscuous=request.promiscuous,
        direction=request.direction or "inout",
        buffer_bytes=request.buffer_bytes or DEFAULT_BUFFER_BYTES,
        fanout=fanout,
        rings=rings,
        timestamps=request.timestamps,
        latency_ns=request.latency_ns,
        hand_over_ns=request.hand_over_ns,
    )


BACKEND = Backend(
    name="packet_mmap",
    summary="copies frames; the host still receives them",
    reads="interfaces",
    place=20,
    automatic=lambda given: True,
    options=(
        Option(
            flag="--fanout",
            argument="fanout",
            kind=Kind.OTHER,
            read=spreading,
            metavar="MODE[:RINGS]",
            help="PACKET_MMAP: spread frames over several rings, by cpu, hash or qm (the NIC's queue).",
        ),
    ),
    open=_open,
)
