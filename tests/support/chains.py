"""Chains of frames whose times are given, and what comes out of them."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from uspcap.frames import FrameBatch, TimestampSource
from uspcap.stages.chain_merging import ENDED, FULL, NEEDS_ROOM, Merger
from uspcap.stages.ordering import Chain

START_NS = 1_700_000_000 * 10**9
WINDOW_NS = 100

ONE_INTERFACE = np.zeros(1, np.uint16)


def batch_of(times, first=1):
    frames = [bytes([number % 251]) * (1 + number % 7) for number in range(first, first + len(times))]
    batch = FrameBatch.from_frames(frames, [0 if t is None else t for t in times], first_frame_number=first)
    batch.storage("timestamp_source")[: len(times)] = [
        TimestampSource.NONE if t is None else TimestampSource.FILE for t in times
    ]
    return batch


def merged(inputs, sizes=(7,), *, window_ns=WINDOW_NS, most_frames=1 << 16, room=(64, 1 << 12), clock_is_set=False):
    """Return the chains and (frame number, untrusted, bytes) of each frame as it came out."""
    chains = [
        Chain(window_ns=window_ns, most_frames=most_frames, most_bytes=1 << 30, clock_is_set=clock_is_set)
        for _ in inputs
    ]
    firsts = np.concatenate([[1], 1 + np.cumsum([len(times) for times in inputs])]).tolist()
    fed = [0] * len(inputs)
    merger = Merger(chains)
    out = FrameBatch(room[0])
    out.set_data(np.empty(room[1], np.uint8))
    given_out = []
    turn = 0
    while True:
        merger.begin(out)
        while (what := merger.fill(out)) >= 0:
            size = sizes[turn % len(sizes)]
            turn += 1
            times = inputs[what][fed[what] : fed[what] + size]
            if not times:
                chains[what].finish()
                continue
            chains[what].push(batch_of(times, firsts[what] + fed[what]), ONE_INTERFACE, 0)
            fed[what] += len(times)
        for row in range(out.count):
            data = out.data[out.offset[row] : out.offset[row] + out.captured_length[row]].tobytes()
            untrusted = bool(out.timestamp_source[row] & 0x80)
            given_out.append((int(out.frame_number[row]), untrusted, data))
        if what == NEEDS_ROOM:
            out.set_data(np.empty(merger.needed, np.uint8))
        elif what == ENDED:
            return chains, given_out
        else:
            assert what == FULL


@st.composite
def courses(draw, most=120):
    """Times that go on, with disorder, outliers, steps, gaps and frames without a time among them."""
    now = draw(st.sampled_from([START_NS, 0, 5 * 10**9]))
    times = []
    for _ in range(draw(st.integers(0, most))):
        now += draw(st.integers(0, 60))
        now += draw(st.sampled_from([0] * 40 + [101, 5_000, -101, -5_000, 10**12]))
        off = draw(st.sampled_from([0] * 30 + [-99, -40, 99, -150, 150, 3_600 * 10**9, -(10**9), -now, None]))
        times.append(None if off is None else now + off)
        if draw(st.integers(0, 60)) == 60:
            times += [draw(st.integers(0, 2))] * draw(st.integers(1, 40))
    return times
