"""A file with a spoiled block in the middle and a cut end."""

from __future__ import annotations

import struct
from random import Random

from scenarios.wire import (
    MICROSECOND,
    MILLISECOND,
    OPEN_NS,
    Capture,
    Host,
    Truth,
    ethernet,
    gap_between,
    pcapng,
    skewed,
    udp,
)

SENSOR = Host("02:00:00:00:10:01", "198.51.100.40")
COLLECTOR = Host("02:00:00:00:11:01", "203.0.113.40")
DAMAGED_FRAMES = 300
DAMAGED_SPACING_NS = MILLISECOND
DAMAGED_FRAME = 151
"""The closing length of its block is wrong."""
DAMAGED_PAUSE = (220, 25 * MILLISECOND)
"""After which frame nothing comes, and how much longer than usual."""
DAMAGED_CUT_BYTES = 50
"""Bytes that are left of the last block."""
DAMAGED_GAP_THRESHOLD_NS = 5 * MILLISECOND


def damaged() -> tuple[bytes, Truth]:
    """Write a plain capture, then spoil one block in the middle and cut the last."""
    random, capture = Random(4), Capture()
    for number in range(1, DAMAGED_FRAMES + 1):
        pause_ns = DAMAGED_PAUSE[1] if number > DAMAGED_PAUSE[0] else 0
        at_ns = OPEN_NS + number * DAMAGED_SPACING_NS + pause_ns + skewed(random, 100 * MICROSECOND)
        payload = struct.pack("!Q", number).ljust(120, b"\x5a")
        capture.add(at_ns, ethernet(SENSOR, COLLECTOR, udp(40_000, 40_001, payload), number))
    capture.order()
    blocks = pcapng(capture)
    describing = len(blocks) - DAMAGED_FRAMES
    spoiled = describing + DAMAGED_FRAME - 1
    block = blocks[spoiled]
    blocks[spoiled] = block[:-4] + struct.pack("<I", len(block) + 4)
    whole = len(blocks[-1])
    blocks[-1] = blocks[-1][:DAMAGED_CUT_BYTES]
    readable = [frame for frame in capture.frames[:-1] if frame.number != DAMAGED_FRAME]
    for number, frame in enumerate(readable, 1):
        frame.number = number
    pause = readable.index(capture.frames[DAMAGED_PAUSE[0] - 1])
    return b"".join(blocks), {
        "frames": len(readable),
        "frames_before_damage": DAMAGED_FRAME - 1,
        "problems": [
            {"offset": sum(map(len, blocks[:spoiled])), "lengths": [len(block), len(block) + 4]},
            {"offset": sum(map(len, blocks[:-1])), "bytes_left": DAMAGED_CUT_BYTES, "block_bytes": whole},
        ],
        "gap_threshold_ns": DAMAGED_GAP_THRESHOLD_NS,
        "gaps": [gap_between(readable[pause], readable[pause + 1])],
    }
