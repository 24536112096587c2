"""Frames and bytes by protocol, size and layer, against counters."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.streams import Frame, batch_of, hostile_streams, streams

from uspcap.analysis.tally import LAYER_FIELDS, PROTOCOL_CLASSES, SIZE_CLASSES, tally_frames, tally_layers
from uspcap.frames import FrameBatch, TimestampSource

NEVER = ((1 << 63) - 1, -(1 << 63))
MOST = (1 << 63) - 1


def arrays(interfaces: int = 1) -> list[Any]:
    shapes = [(PROTOCOL_CLASSES, 2), (SIZE_CLASSES, 2), (32,), (interfaces, 3), (7,)]
    extremes = np.array([*NEVER, *NEVER, 0, 0, 0, 10**9, 0, 0], np.int64)
    return [*(np.zeros(shape, np.uint64) for shape in shapes), extremes]


def size_class(wire: int) -> int:
    """Of RFC 2819, by the last length of each."""
    return next((at for at, last in enumerate([63, 64, 127, 255, 511, 1023, 1518]) if wire <= last), 7)


def class_of(batch: FrameBatch, row: int) -> int:
    version, protocol, ethertype = (
        int(batch.headers.column(name)[row]) for name in ("ip_version", "protocol", "ethertype")
    )
    return {4: protocol, 6: 256 + protocol}.get(version, 512 + ethertype)


def nonzero(table: Any) -> dict[int, list[int]]:
    return {int(row): table[row].tolist() for row in np.flatnonzero(table.reshape(len(table), -1).any(axis=1))}


@settings(max_examples=40)
@given(frames=st.one_of(streams(), hostile_streams()), rows=st.sampled_from([1, 7, 100]))
def test_frames_and_bytes_are_those_of_counters(frames: list[Frame], rows: int) -> None:
    tables = arrays()
    by_protocol, by_size, by_layer, by_interface, by_source, extremes = tables
    protocols: dict[int, list[int]] = {}
    sizes: dict[int, list[int]] = {}
    layers: Counter[int] = Counter()
    captured = cut = 0
    for start in range(0, len(frames), rows):
        batch = batch_of(frames[start : start + rows], 1 + start)
        captured += tally_frames(batch, batch.headers, *tables)
        for row in range(batch.count):
            wire = int(batch.wire_length[row])
            for table, kind in ((protocols, class_of(batch, row)), (sizes, size_class(wire))):
                of_kind = table.setdefault(kind, [0, 0])
                of_kind[0] += 1
                of_kind[1] += wire
            layers.update(bit for bit in range(32) if int(batch.headers.column("layers")[row]) >> bit & 1)
            cut += wire > batch.captured_length[row]
            captured -= int(batch.captured_length[row])
    assert captured == 0
    assert (nonzero(by_protocol), nonzero(by_size)) == (protocols, sizes)
    assert {bit: int(count) for bit, count in enumerate(by_layer) if count} == dict(layers)
    wires = [one.length if one.captured is not None else len(one.wire()) for one in frames]
    assert by_interface.tolist() == [[len(frames), sum(wires), cut]]
    assert by_source.tolist() == [sum(one.source == source for one in frames) for source in range(7)]
    assert extremes[2:4].tolist() == ([min(wires), max(wires)] if wires else list(NEVER))


@settings(max_examples=40)
@given(frames=st.one_of(streams(), hostile_streams()), rows=st.sampled_from([1, 100]))
def test_extremes_of_time_leave_out_what_has_no_timestamp(frames: list[Frame], rows: int) -> None:
    tables, times, wires = arrays(), [], 0
    for start in range(0, len(frames), rows):
        batch = batch_of(frames[start : start + rows], 1 + start)
        tally_frames(batch, batch.headers, *tables)
        trusted = batch.timestamp_source < TimestampSource.NONE
        times += batch.timestamp_ns[trusted].tolist()
        wires += int(batch.wire_length[trusted].sum())
    extremes = tables[-1].tolist()
    if not times:
        assert extremes[:2] + extremes[4:] == [*NEVER, 0, 0, 0, 10**9, 0, 0]
        return
    forward = sum(max(0, after - before) for before, after in pairwise(times))
    unit = next(unit for unit in (10**9, 10**6, 10**3, 1) if all(at_ns % unit == 0 for at_ns in times))
    assert extremes[:2] == [min(times), max(times)]
    assert extremes[4:] == [len(times), times[0], times[-1], unit, wires, min(forward, MOST)]


@settings(max_examples=40)
@given(frames=st.one_of(streams(), hostile_streams()))
def test_the_layers_of_a_frame_add_up_to_what_was_on_the_wire(frames: list[Frame]) -> None:
    by_protocol = np.zeros((PROTOCOL_CLASSES, LAYER_FIELDS), np.uint64)
    by_size = np.zeros((SIZE_CLASSES, LAYER_FIELDS), np.uint64)
    batch = batch_of(frames)
    tally_layers(batch, batch.headers, by_protocol, by_size)
    for table in (by_protocol, by_size):
        rows = table[table[:, 0] > 0]
        assert rows[:, 2:].sum(axis=1).tolist() == rows[:, 1].tolist()
        assert int(table[:, 0].sum()) == batch.count
        assert int(table[:, 1].sum()) == int(batch.wire_length.sum())


def test_a_frame_is_parted_into_headers_payload_and_what_follows() -> None:
    # Ethernet, IPv4 and UDP with 10 bytes of payload, and 8 more of padding.
    wire = Frame(0, 52, 1).wire() + bytes(8)
    batch = FrameBatch.from_frames([wire, wire[:14]], [0, 0], wire_lengths=[60, 60])
    by_protocol = np.zeros((PROTOCOL_CLASSES, LAYER_FIELDS), np.uint64)
    by_size = np.zeros((SIZE_CLASSES, LAYER_FIELDS), np.uint64)
    tally_layers(batch, batch.headers, by_protocol, by_size)
    assert by_protocol[17].tolist() == [1, 60, 14, 20, 8, 10, 8, 0]
    batch.headers.column("payload_offset")[0] = -1
    by_protocol[:] = 0
    tally_layers(batch, batch.headers, by_protocol, by_size)
    assert by_protocol[17].tolist() == [1, 60, 0, 0, 0, 0, 0, 60]


@pytest.mark.parametrize("wire", [0, 63, 64, 65, 127, 128, 255, 256, 511, 512, 1023, 1024, 1518, 1519, (1 << 32) - 1])
def test_sizes_are_classed_by_their_edges(wire: int) -> None:
    tables = arrays()
    batch = FrameBatch.from_frames([b""], [0], wire_lengths=[wire])
    tally_frames(batch, batch.headers, *tables)
    assert nonzero(tables[1]) == {size_class(wire): [1, wire]}


def test_arrays_of_another_shape_are_refused() -> None:
    batch, other = batch_of([Frame(0, 60, 1)]), batch_of([])
    right = arrays()
    for at, shape in enumerate([(PROTOCOL_CLASSES - 1, 2), (SIZE_CLASSES + 1, 2), (31,), (0, 3), (6,), (9,)]):
        wrong = [*right[:at], np.zeros(shape, right[at].dtype), *right[at + 1 :]]
        with pytest.raises(ValueError, match="another shape"):
            tally_frames(batch, batch.headers, *wrong)
    with pytest.raises(ValueError, match="another shape"):
        tally_frames(batch, other.headers, *right)
    fields = [np.zeros((rows, LAYER_FIELDS), np.uint64) for rows in (PROTOCOL_CLASSES, SIZE_CLASSES)]
    for wrong in ([fields[0][:, :7].copy(), fields[1]], [fields[0], fields[1][:7]], [fields[1], fields[0]]):
        with pytest.raises(ValueError, match="another shape"):
            tally_layers(batch, batch.headers, *wrong)
