"""What is written is read again as it was, in both formats; what a format cannot hold is left out and counted."""

from random import Random
from typing import Any

import files
import packets
import streams
from support.capture_files import rows_of
from values import timestamps

from uspcap.errors import UspcapError
from uspcap.formats import open_capture
from uspcap.formats.writer import open_writer


def generate(random: Random) -> Any:
    state: dict[str, Any] = {}
    times = timestamps(random, random.choice((0, 1, 3, random.randrange(30))))
    frame = (lambda: b"") if random.random() < 0.05 else (lambda: packets.plain(random, state))
    rows = [(at, frame(), 0, 5, 0, random.choice((0, 3)), random.choice((0, 9))) for at in times]
    return {"frames": rows, "format": random.choice(("pcapng", "pcap"))}


def run(value: Any) -> None:
    rows, form = value["frames"], "pcap" if value["format"] == "pcap" else "pcapng"
    path = files.written(b"", f"written.{form}")
    batch = streams.batch_of(rows, 1)
    try:
        with open_writer(path, form) as writer:
            writer.write(batch)
    except UspcapError as error:
        assert "\n" not in str(error)
        return
    holds = (1 << 32) * 10**9 if form == "pcap" else 1 << 63
    kept = [(int(at), batch.frame_bytes(row)) for row, at in enumerate(batch.timestamp_ns) if 0 <= at < holds]
    with open_capture(path) as reader:
        assert [(row.timestamp_ns, row.captured) for row in rows_of(reader)] == kept
        assert not reader.facts.problems
