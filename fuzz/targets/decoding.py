"""Frames as `dump` shows them: any bytes of any link type, in one line without control characters."""

import unicodedata
from random import Random
from typing import Any

import packets
from values import number

from uspcap.frames import FrameBatch, Interface
from uspcap.report.decode import decode_line, hex_lines


def generate(random: Random) -> Any:
    link_type, frame = packets.layered(random)
    if random.random() < 0.4:
        link_type, frame = 1, packets.request(random, {})
    return {
        "link_type": link_type,
        "frame": frame,
        "at": number(random, 64, signed=True),
        "tunnels": random.random() < 0.5,
    }


def run(value: Any) -> None:
    at = max(-(1 << 63), min((1 << 63) - 1, value["at"]))
    batch = FrameBatch.from_frames(
        [value["frame"]], [at], interfaces=(Interface(link_type=value["link_type"] % 65536),)
    )
    batch.decode_tunnels = value["tunnels"]
    line = decode_line(batch, 0)
    assert not any(unicodedata.category(letter) == "Cc" for letter in line), line
    for shown in hex_lines(value["frame"]):
        assert shown.isprintable()
