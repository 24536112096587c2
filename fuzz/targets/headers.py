"""Decoding of headers: every link type, headers in headers, tunnels on and off; each frame ends where memory does."""

from random import Random
from typing import Any

import packets

from uspcap._core.columns import HeaderColumns
from uspcap._core.headers import decode
from uspcap.frames import FrameBatch, Interface

_HEADERS = HeaderColumns(64)


def generate(random: Random) -> Any:
    frames = [packets.layered(random) for _ in range(random.choice((1, 1, 4)))]
    return {"frames": frames, "longer": random.choice((0, 0, 0, 1, 1000)), "tunnels": random.random() < 0.6}


def run(value: Any) -> None:
    for link_type, frame in value["frames"][:64]:
        batch = FrameBatch.from_frames(
            [frame],
            [0],
            wire_lengths=[len(frame) + abs(value["longer"]) % (1 << 20)],
            interfaces=(Interface(link_type=link_type % (1 << 16)),),
        )
        batch.big_endian_options = len(frame) % 2 == 1
        decode(batch, _HEADERS, value["tunnels"])
        for name in ("network_offset", "transport_offset", "payload_offset"):
            at = int(_HEADERS.column(name)[0])
            assert -1 <= at <= len(frame) + (1 << 17), f"{name} is {at} in a frame of {len(frame)} bytes"
        start, length = int(_HEADERS.column("payload_offset")[0]), int(_HEADERS.column("payload_length")[0])
        assert 0 <= length <= len(frame) + abs(value["longer"]) % (1 << 20), f"a payload of {length} bytes at {start}"
