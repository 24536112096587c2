"""Two lines of a plain numbered feed, given directly to the arbiter."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from support.feeds import Packet, batch_of

from uspcap.analysis.arbitration.arbiter import LINE_DTYPE, Arbiter
from uspcap.protocols.feeds import find_protocol

RING = 64
MOLD = find_protocol("moldudp64")


def lines_of(pairs: int = 1) -> Any:
    """Return lines of pairs: those of `support.feeds.frame_of`, two after two."""
    rows = np.zeros(2 * pairs, LINE_DTYPE)
    for at in range(2 * pairs):
        rows[at]["address"][-6:] = [255, 255, 233, 252, 0, 1 + at]
        rows[at]["port"], rows[at]["line"], rows[at]["pair"] = 30_001 + at, at % 2, at // 2
    return rows


def new_arbiter(
    *, pairs: int = 1, modulus: int = 0, ring: int = RING, runs: int = 1 << 14, a_stream: int = 1 << 12,
    most: int = 64, is_known: bool = False,
) -> Arbiter:  # fmt: skip
    return Arbiter(lines_of(pairs), modulus, ring, runs, a_stream, most, is_known)


def update(arbiter: Arbiter, packets: Sequence[Packet], first: int = 1) -> Arbiter:
    assert MOLD.rule is not None
    batch = batch_of(list(packets), first)
    arbiter.track(batch, batch.headers, 0, MOLD.rule)
    return arbiter


def whole(arbiter: Arbiter) -> Arbiter:
    """Return how the lines stand if nothing came before."""
    known = arbiter.empty(is_known=True)
    known.absorb(arbiter, 0)
    return known


def in_parts(packets: Sequence[Packet], cuts: Sequence[int], *, pickled: bool = False, **bounds: Any) -> Arbiter:
    """Take packets in parts, merged in order."""
    merged = new_arbiter(**bounds)
    for first, last in pairwise([0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]):
        part = update(new_arbiter(**bounds), packets[first:last])
        if pickled:
            merged, part = pickle.loads(pickle.dumps((merged, part)))
        merged.absorb(part, first)
    return merged


def said(arbiter: Arbiter) -> Any:
    """Return all that an arbiter says of its pairs and keys, in the order of these."""
    found = []
    streams, runs, _ = arbiter.arrays()
    for number in range(arbiter.count):
        skews = {
            (source, line): None if of_line is None else (of_line[0].tolist(), *of_line[1:])
            for source in arbiter.sources(number)
            for line in (0, 1)
            for of_line in [arbiter.skews(number, source, line)]
        }
        ties = {source: arbiter.ties(number, source) for source in arbiter.sources(number)}
        rows = [
            streams[3 * number + at][["packets", "messages", "heartbeats", "excluded"]].tobytes() for at in range(3)
        ]
        of_pair = [
            [tuple(int(run[name]) for name in ("kind", "first", "length", "packets", "first_frame", "seen_frame"))
             for run in runs[runs["stream"] == 3 * number + at]]
            for at in range(3)
        ]  # fmt: skip
        found.append((arbiter.pair(number), arbiter.counts(number), skews, ties, rows, of_pair))
    return sorted(found, key=lambda one: one[0]), arbiter.packets, arbiter.foreign, arbiter.excluded, arbiter.level
