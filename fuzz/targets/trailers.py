"""Timestamps of taps and switches: every format over frames of every format, taken out and detected in the frames."""

from random import Random
from typing import Any

import packets
import streams
from values import timestamps

from uspcap.timestamps.trailers import FORMATS, TrailerStage, detect


def generate(random: Random) -> Any:
    state: dict[str, Any] = {}
    kinds = sorted(FORMATS)
    frames = [packets.timestamped(random.choice(kinds))(random, state) for _ in range(random.choice((1, 1, 3)))]
    rows = [(at, frame, 0, 5, 0, 0, 0) for at, frame in zip(timestamps(random, len(frames)), frames, strict=True)]
    return {"frames": rows, "kind": random.randrange(len(kinds)), "unclamped": random.random() < 0.3}


def run(value: Any) -> None:
    kinds = sorted(FORMATS)
    kind = FORMATS[kinds[value["kind"] % len(kinds)]]
    batch = streams.batch_of(value["frames"], 1, unclamped=bool(value["unclamped"]))
    detect([batch])
    captured, wire = batch.captured_length.copy(), batch.wire_length.copy()
    TrailerStage(kind).apply(batch)
    assert batch.count <= len(captured)
    if batch.count == len(captured):
        assert (batch.captured_length <= captured).all()
        assert (batch.wire_length <= wire).all()
    batch.headers  # noqa: B018
