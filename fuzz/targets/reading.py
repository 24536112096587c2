"""What readers say of sound files, against dpkt's readers: as many frames, the same timestamps, lengths and bytes."""

import io
from random import Random
from typing import Any

import dpkt
import files
from support.capture_files import interface, option, packet, pcap_header, pcap_record, rows_of, section
from values import number

from uspcap.formats import open_capture

MUTATES = False


def generate(random: Random) -> Any:
    order = random.choice("<>")
    frames = [
        (random.randrange(1 << 32), random.randrange(10**9), random.randbytes(random.randrange(64)), number(random, 8))
        for _ in range(random.randrange(12))
    ]
    if random.random() < 0.5:
        nanoseconds = random.random() < 0.5
        unit = 1 if nanoseconds else 1000
        content = pcap_header(order, 0xA1B23C4D if nanoseconds else 0xA1B2C3D4)
        for second, fraction, data, more in frames:
            content += pcap_record(second, fraction // unit, data, len(data) + more, order)
        return {"format": "pcap", "content": content, "unit": unit, "frames": frames}
    content = section(order) + interface(order, options=option(9, b"\x09", order) + option(0, b"", order))
    for second, fraction, data, more in frames:
        content += packet(second * 10**9 + fraction, data, 0, len(data) + more, order)
    return {"format": "pcapng", "content": content, "unit": 1, "frames": frames}


def run(value: Any) -> None:
    content, unit = value["content"], value["unit"]
    with open_capture(files.written(content)) as reader:
        rows = rows_of(reader)
        assert not reader.facts.problems
    made = [(second * 10**9 + fraction // unit * unit, data) for second, fraction, data, _ in value["frames"]]
    assert [(row.timestamp_ns, row.captured) for row in rows] == made
    assert [row.wire_length for row in rows] == [len(data) + more for _, _, data, more in value["frames"]]
    other = (dpkt.pcap.Reader if value["format"] == "pcap" else dpkt.pcapng.Reader)(io.BytesIO(content))
    theirs = [(float(at), bytes(data)) for at, data in other]
    assert [data for _, data in theirs] == [row.captured for row in rows]
    for (at, _), row in zip(theirs, rows, strict=True):
        assert abs(at - row.timestamp_ns / 1e9) < 1e-3
