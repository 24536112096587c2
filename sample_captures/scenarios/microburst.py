"""Microbursts: little on average, but all of it at once."""

from __future__ import annotations

import struct
from random import Random

from scenarios.wire import MICROSECOND, MILLISECOND, OPEN_NS, Capture, Frame, Host, Truth, ethernet, pcap, udp

PUBLISHER = Host("02:00:00:00:0f:01", "198.51.100.30")
BURST_GROUP = Host.multicast("233.252.0.30")
BURST_VLAN = 100
BURST_PORT, BACKGROUND_PORT = 30001, 30002
BURST_FRAMES = (8, 12, 20, 9, 16, 31, 10, 14, 8, 24, 11, 18, 9, 40, 12, 15, 8, 22, 10, 13, 17, 9, 96, 12, 19, 8, 27, 11)
"""Frames of the burst at the top of millisecond 1, 2, 3 ... of the capture."""
BURST_PAYLOAD_BYTES = 55
BURST_SPACING_NS = 100
"""A frame of 101 bytes with FCS, preamble and gap (24 bytes) at 10 Gb/s: one follows the other without a pause."""
BACKGROUND_A_MILLISECOND = 3


def microburst() -> tuple[bytes, Truth]:
    """Send little on average, but all of it at once, each millisecond."""
    random, capture = Random(3), Capture()
    bursts: list[list[Frame]] = []
    identification = 0

    def send(at_ns: int, port: int, number: int) -> Frame:
        payload = struct.pack("!Q", number).ljust(BURST_PAYLOAD_BYTES, b"\xa5")
        wire = ethernet(PUBLISHER, BURST_GROUP, udp(30_000, port, payload), number, BURST_VLAN)
        return capture.add(at_ns, wire)

    for millisecond, frames in enumerate(BURST_FRAMES, 1):
        start_ns = OPEN_NS + millisecond * MILLISECOND
        bursts.append([])
        for place in range(frames):
            identification += 1
            bursts[-1].append(send(start_ns + place * BURST_SPACING_NS, BURST_PORT, identification))
        for place in range(BACKGROUND_A_MILLISECOND):
            identification += 1
            at_ns = start_ns + (200 + 250 * place) * MICROSECOND + int(100_000 * random.random())
            send(at_ns, BACKGROUND_PORT, identification)
    capture.order()
    return pcap(capture), {
        "frames": len(capture.frames),
        "vlan": BURST_VLAN,
        "frame_bytes": len(capture.frames[0].data),
        "spacing_ns": BURST_SPACING_NS,
        "background_frames": BACKGROUND_A_MILLISECOND * len(BURST_FRAMES),
        "bursts": [
            {
                "start_ns": burst[0].timestamp_ns,
                "frames": len(burst),
                "first_frame": burst[0].number,
                "last_frame": burst[-1].number,
            }
            for burst in bursts
        ],
    }
