"""Streams of frames for the tests of analyses: made by hypothesis, cut anywhere, fed in any batches."""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from support import hostile_captures
from support.hostile_captures import MOMENTS_NS, NOW_NS, frames_of_extremes

from uspcap.analysis.base import Analysis
from uspcap.frames import EARLIEST_NS, LATEST_NS, FrameBatch, TimestampSource

START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class Frame:
    """One frame: when, how long, of which flow, timestamped by whom; when it was read from which ring, 0 for from none.

    Its timestamp may lie beyond what uspcap counts in: that of a batch is clamped. `captured` is what there is of it,
    where that is not made of flow and length; `length` is that on the wire then.
    """

    timestamp_ns: int
    length: int
    flow: int
    source: int = TimestampSource.FILE
    read_ns: int = 0
    ring: int = 0
    captured: bytes | None = None

    def wire(self) -> bytes:
        """Ethernet, IPv4, UDP; flow 0 is ARP."""
        if self.captured is not None:
            return self.captured
        ethernet = bytes.fromhex("020000000002020000000001")
        if self.flow == 0:
            return (ethernet + b"\x08\x06").ljust(self.length, b"\0")
        payload = max(self.length - 42, 0)
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 28 + payload, 0, 0, 64, 17, 0, b"\x0a\0\0\x01", b"\x0a\0\0\x02")
        udp = struct.pack("!HHHH", 1000 + self.flow, 9, 8 + payload, 0)
        return (ethernet + b"\x08\0" + ip + udp).ljust(self.length, b"\0")


def batch_of(frames: Sequence[Frame], first_frame_number: int = 1) -> FrameBatch:
    """One batch of these frames."""
    batch = FrameBatch.from_frames(
        [frame.wire() for frame in frames],
        [frame.timestamp_ns for frame in frames],
        wire_lengths=[frame.length if frame.captured is not None else len(frame.wire()) for frame in frames],
        first_frame_number=first_frame_number,
    )
    batch.storage("timestamp_source")[: len(frames)] = np.array([frame.source for frame in frames], np.uint8)
    batch.storage("read_ns")[: len(frames)] = np.array([frame.read_ns for frame in frames], np.int64)
    batch.storage("queue")[: len(frames)] = np.array([frame.ring for frame in frames], np.uint32)
    return batch


def feed(analysis: Analysis, frames: Sequence[Frame], batch_frames: int) -> Analysis:
    """Give frames to an analysis in batches, numbered from 1."""
    for start in range(0, len(frames), batch_frames):
        analysis.update(batch_of(frames[start : start + batch_frames], start + 1))
    return analysis


STEPS_NS = st.one_of(
    st.just(0),
    st.integers(0, 40),
    st.integers(0, 5_000),
    st.integers(0, 10**7),
    st.integers(0, 3 * 10**9),
    st.integers(35 * 10**9, 38 * 10**9),
    st.integers(-2_000, -1),
    st.integers(-37 * 10**9, -1),
)


PATHS_NS = st.one_of(
    st.integers(0, 10**5), st.integers(0, 10**10), st.integers(-(10**9), -1), st.just(2**62), st.none()
)
"""From timestamp to reading; None for frames that were read from no ring."""


@st.composite
def streams(draw: st.DrawFn, *, most: int = 60, flows: int = 5) -> list[Frame]:
    """A stream with bursts, gaps, equal timestamps, steps backward, jumps, several timestamp sources and rings."""
    several = (TimestampSource.KERNEL, TimestampSource.HARDWARE)
    sources = draw(st.sampled_from([(TimestampSource.FILE,), several, (*several, TimestampSource.USER)]))
    grid_ns = draw(st.sampled_from([1, 1, 8, 1000]))
    paths_ns = draw(st.lists(PATHS_NS, min_size=1, max_size=7))
    now = START_NS
    frames = []
    for at in range(draw(st.integers(0, most))):
        now += draw(STEPS_NS) // grid_ns * grid_ns
        source = draw(st.sampled_from([*sources, *sources, TimestampSource.NONE]))
        length = draw(st.sampled_from([60, 60, 64, 127, 128, 600, 1514, 9000]))
        path_ns = paths_ns[at % len(paths_ns)]
        read_ns = 0 if path_ns is None else now + path_ns
        frames.append(Frame(now, length, draw(st.integers(0, flows)), source, read_ns, (0, 1, 300)[at % 3]))
    return frames


@st.composite
def hostile_streams(draw: st.DrawFn) -> list[Frame]:
    """A stream, mostly of one to three frames, whose times are where arithmetic turns over, and frames of any kind."""
    count = draw(st.one_of(st.integers(0, 3), st.integers(0, 3), st.integers(0, 60)))
    if draw(st.booleans()):
        made = frames_of_extremes(random.Random(draw(st.integers(0, 1 << 32))), count)
        return [Frame(moment, wire, 0, captured=data) for moment, data, wire in made]
    moments = st.one_of(st.sampled_from(MOMENTS_NS), st.integers(-(1 << 63), (1 << 63) - 1))
    reading = st.one_of(st.just(0), moments.map(lambda moment: max(EARLIEST_NS, min(LATEST_NS, moment))))
    several = (TimestampSource.FILE, TimestampSource.FILE, TimestampSource.HARDWARE, TimestampSource.NONE)
    sources = draw(st.sampled_from([several[:1], several]))
    frames: list[Frame] = []
    for _ in range(count):
        before = frames[-1].timestamp_ns if frames else NOW_NS
        step = draw(st.sampled_from(hostile_captures.STEPS_NS)) * draw(st.sampled_from([1, -1]))
        moment = draw(st.one_of(moments, st.just(before), st.just(before + step)))
        length = draw(st.sampled_from([0, 1, 60, 64, 1514]))
        frames.append(
            Frame(
                moment, length, draw(st.integers(0, 5)), draw(st.sampled_from(sources)), draw(reading), len(frames) % 3
            )
        )
    return frames


@st.composite
def cut_streams(
    draw: st.DrawFn, made_by: st.SearchStrategy[list[Frame]] | None = None, **kwargs: int
) -> tuple[list[Frame], list[list[Frame]], int]:
    """A stream, the same in parts (some perhaps empty), and a batch size."""
    frames = draw(streams(**kwargs) if made_by is None else made_by)
    cuts = sorted(draw(st.lists(st.integers(0, len(frames)), max_size=4)))
    edges = [0, *cuts, len(frames)]
    parts = [frames[start:end] for start, end in pairwise(edges)]
    return frames, parts, draw(st.sampled_from([1, 2, 7, 4096]))


def seeded_stream(
    seed: int,
    count: int,
    *,
    flows: int = 40,
    mean_gap_ns: int = 2_000,
    sources: Sequence[int] = (TimestampSource.FILE,),
    grid_ns: int = 1,
    backward_share: float = 0.001,
) -> list[Frame]:
    """A long stream of a seed: lognormal gaps, few busy and many quiet flows, gaps, equal timestamps, steps back."""
    generator = np.random.default_rng(seed)
    gaps = generator.lognormal(np.log(mean_gap_ns), 1.5, count).astype(np.int64)
    gaps[generator.random(count) < 0.05] = 0
    silent = generator.random(count) < 0.002
    gaps[silent] *= generator.integers(100, 100_000, int(silent.sum()))
    back = generator.random(count) < backward_share
    gaps[back] = -generator.integers(1, 10_000, int(back.sum()))
    timestamps = START_NS + np.cumsum(gaps // grid_ns * grid_ns)
    of_flow = np.minimum(generator.geometric(4 / (flows + 4), count) - 1, flows)
    lengths = generator.choice([60, 64, 65, 127, 128, 255, 256, 600, 1023, 1024, 1514, 1518, 1519, 9000], count)
    by = generator.choice(np.array(sources), count)
    return [
        Frame(*row) for row in zip(timestamps.tolist(), lengths.tolist(), of_flow.tolist(), by.tolist(), strict=True)
    ]


def flow_text(flow: int) -> str:
    """The report's name of one of the flows that frames are made of."""
    if flow == 0:
        return "ARP 02:00:00:00:00:01 > 02:00:00:00:00:02"
    return f"UDP 10.0.0.1:{1000 + flow} > 10.0.0.2:9"
