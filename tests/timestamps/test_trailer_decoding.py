"""Finding and removing timestamps: every format, cut anywhere, short frames, corrupt bytes, and tshark's opinion."""

from __future__ import annotations

import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trailer_frames import (
    FILE_NS,
    MACS,
    SECOND,
    Timestamped,
    arp,
    exablaze,
    exact_exablaze_ns,
    expcap,
    long_tlv,
    metamako,
    plain,
    timestamped,
    timestamped_frames,
    tlv,
    vss,
    with_arista,
)

from uspcap.frames import FrameBatch, Interface, TimestampSource
from uspcap.timestamps.trailer_decoding import PortCounts, TrailerFormat, TrailerMark, TrailerRows, TrailerStatus
from uspcap.timestamps.trailers import FORMATS, TrailerStage


def look(batch: FrameBatch, kind: str) -> TrailerRows:
    rows = TrailerRows(batch.capacity)
    rows.look(batch, batch.headers, FORMATS[kind])
    return rows


def one(frame: bytes, kind: str, file_ns: int = FILE_NS, wire: int | None = None) -> dict[str, int]:
    """What is found in one frame, as a row."""
    batch = FrameBatch.from_frames([frame], [file_ns], wire_lengths=[len(frame) if wire is None else wire])
    rows = look(batch, kind)
    names = ("status", "trailer_ns", "key", "length", "marks", "dropped")
    return {name: int(rows.column(name)[0]) for name in names}


@settings(deadline=None, max_examples=300)
@given(timestamped_frames())
def test_a_timestamp_is_found_and_taken_out_and_the_frame_is_as_it_was_sent(case: Timestamped) -> None:
    batch = case.batch()
    stage = TrailerStage(FORMATS[case.format])
    stage.apply(batch)
    assert isinstance(batch.trailers, TrailerRows)
    assert batch.trailers.column("status").tolist() == [TrailerStatus.FOUND]
    assert batch.timestamp_ns.tolist() == [case.timestamp_ns]
    assert batch.timestamp_source.tolist() == [TimestampSource.TRAILER]
    assert batch.frame_bytes(0) == case.left
    assert batch.wire_length.tolist() == [case.wire_left]


@settings(deadline=None, max_examples=150)
@given(timestamped_frames(), st.data())
def test_what_a_snaplen_cuts_is_never_found(case: Timestamped, data: st.DataObject) -> None:
    # Of a frame with an Arista header the header alone will do; a footer of expcap may be made of the frame's bytes.
    most = 12 + 14 + 1 if case.format == "arista" else len(case.captured) - 1
    kept = data.draw(st.integers(0, most))
    row = one(case.captured[:kept], case.format, wire=case.wire_length)
    assert row["status"] != TrailerStatus.FOUND
    if case.format != "expcap":
        assert row["status"] in (TrailerStatus.CUT, TrailerStatus.ABSENT, TrailerStatus.UNKNOWN_LENGTH)


@settings(deadline=None, max_examples=150)
@given(timestamped_frames(), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_corrupt_frames_leave_the_batch_in_bounds(case: Timestamped, changes: list[tuple[int, int]]) -> None:
    damaged = bytearray(case.captured)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    for kind in FORMATS:
        batch = FrameBatch.from_frames([bytes(damaged)], [FILE_NS], wire_lengths=[case.wire_length])
        length, wire = len(damaged), case.wire_length
        TrailerStage(FORMATS[kind]).apply(batch)
        batch.check_bounds()
        for row in range(batch.count):
            assert int(batch.storage("captured_length")[row]) <= length
            assert int(batch.storage("wire_length")[row]) <= wire


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=120), st.integers(0, 200), st.sampled_from(sorted(FORMATS)))
def test_any_bytes_are_looked_at_without_harm(frame: bytes, wire: int, kind: str) -> None:
    batch = FrameBatch.from_frames([frame], [FILE_NS], wire_lengths=[wire])
    TrailerStage(FORMATS[kind]).apply(batch)
    batch.check_bounds()


def test_no_byte_beyond_the_capture_is_read() -> None:
    code = "from support.trailer_frames import look_at_the_end_of_memory as look; print(look())"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path!r}; {code}"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10_000


def test_the_padding_of_a_short_frame_is_not_taken_for_a_trailer() -> None:
    frame = plain(0)
    assert len(frame) == 60
    assert one(frame + metamako(FILE_NS), "metamako")["length"] == 20
    assert one(frame, "metamako")["status"] == TrailerStatus.IMPLAUSIBLE
    assert one(frame[:57], "metamako")["status"] == TrailerStatus.ABSENT


def test_bytes_of_the_payload_are_never_a_trailer() -> None:
    trailer = metamako(FILE_NS)
    whole = plain(200)[:-20] + trailer
    assert one(whole, "metamako")["status"] == TrailerStatus.ABSENT
    assert one(plain(180) + trailer, "metamako")["status"] == TrailerStatus.FOUND


def test_metamako_flags_and_tlvs_are_read() -> None:
    marks = {
        0x00: TrailerMark.BAD_FCS, 0x01: 0, 0x05: TrailerMark.DUPLICATE, 0x11: TrailerMark.DEGRADED,
        0x14: TrailerMark.BAD_FCS | TrailerMark.DUPLICATE | TrailerMark.DEGRADED,
    }  # fmt: skip
    for flags, expected in marks.items():
        row = one(plain() + metamako(FILE_NS - 5, flags=flags), "metamako")
        assert (row["marks"], row["trailer_ns"], row["key"]) == (expected, FILE_NS - 5, 165 << 8 | 14)
    sub_ns, none = tlv(1, b"\0\0\1"), tlv(1, bytes(3))
    sequence, crc, text = tlv(0, b"\0\0\7"), tlv(2, bytes(11)), long_tlv(31, b"tag string!!")
    for tlvs, finer in (
        (sub_ns + tlv(0, b"\0\0\7", last=False), True),
        (sequence + sub_ns, True),
        (crc + none, False),
        (text + sub_ns + crc, True),
    ):
        # TLVs are read from the end on: the first in the frame is the last.
        first = bytearray(tlvs)
        size = {True: 4}.get(tlvs.startswith((sub_ns, sequence)), 12 if tlvs.startswith(crc) else 16)
        first[size - 1] |= 0x20
        for fcs in (False, True):
            row = one(plain() + metamako(FILE_NS, tlvs=bytes(first), fcs=fcs), "metamako")
            assert row["status"] == TrailerStatus.FOUND
            assert row["length"] == 16 + len(first) + 4 * fcs
            assert bool(row["marks"] & TrailerMark.FINER) == finer


def test_tlvs_that_never_end_are_no_trailer() -> None:
    endless = plain(30, fill=0) + bytes(4) + metamako(FILE_NS, tlvs=tlv(0, bytes(3)), fcs=False)
    assert one(endless, "metamako")["status"] == TrailerStatus.IMPLAUSIBLE
    huge = plain(30) + metamako(FILE_NS, tlvs=struct.pack("!I", 0x3FF << 6 | 0x3F), fcs=False)
    assert one(huge, "metamako")["status"] == TrailerStatus.IMPLAUSIBLE


@settings(deadline=None, max_examples=300)
@given(st.integers(0, (1 << 40) - 1))
def test_exablaze_fractions_are_exact(fraction: int) -> None:
    row = one(plain() + exablaze(SECOND, fraction), "exablaze")
    ns, finer = exact_exablaze_ns(SECOND, fraction)
    assert (row["trailer_ns"], bool(row["marks"] & TrailerMark.FINER)) == (ns, finer)
    assert row["key"] == 3 << 8 | 7


@pytest.mark.parametrize(("kind", "days"), [("metamako", 30), ("vss", 30), ("exablaze", 7), ("expcap", 7)])
def test_a_time_far_from_the_files_is_no_timestamp(kind: str, days: int) -> None:
    for sign in (-1, 1):
        near = timestamped(kind, plain(), FILE_NS + sign * days * 86_400 * 10**9, fcs=False)
        far = timestamped(kind, plain(), FILE_NS + sign * (days * 86_400 + 1) * 10**9, fcs=False)
        assert one(near.captured, kind, wire=near.wire_length)["status"] == TrailerStatus.FOUND
        assert one(far.captured, kind, wire=far.wire_length)["status"] == TrailerStatus.IMPLAUSIBLE


def test_times_that_are_none_are_no_timestamps() -> None:
    assert one(plain() + metamako(FILE_NS)[:8] + b"\xff" * 4 + bytes(4), "metamako")["status"] == 3
    uptime = vss(3600 * 10**9)
    assert one(plain() + uptime, "vss", 3600 * 10**9)["status"] == TrailerStatus.IMPLAUSIBLE
    assert one(plain() + vss(0), "vss", 10**9)["status"] == TrailerStatus.IMPLAUSIBLE


@pytest.mark.parametrize(("port", "key"), [(b"", 0), (b"\x07", 7), (b"\x01\x02", 258)])
@pytest.mark.parametrize("payload", [0, 30, 100])
def test_vss_ports_and_clocks_are_read(port: bytes, key: int, payload: int) -> None:
    for fcs in (False, True):
        for source in range(4):
            row = one(plain(payload) + vss(FILE_NS, source=source, port=port, fcs=fcs), "vss")
            assert (row["status"], row["trailer_ns"], row["key"]) == (TrailerStatus.FOUND, FILE_NS, key)
            assert row["marks"] == (0 if source else TrailerMark.DEGRADED)
    assert one(plain(payload) + vss(FILE_NS, port=b"\1\2\3"), "vss")["status"] == TrailerStatus.ABSENT


def test_expcap_footers_are_behind_what_was_captured() -> None:
    frame = plain()
    row = one(frame + expcap(SECOND, 123_456_789_012, dropped=5), "expcap", wire=len(frame))
    assert (row["trailer_ns"], row["dropped"]) == (SECOND * 10**9 + 123_456_789, 5)
    assert row["marks"] == TrailerMark.FINER
    cut = frame[:50] + expcap(SECOND, 0, flags=0x08)
    assert one(cut, "expcap", wire=len(frame))["marks"] == TrailerMark.TRUNCATED
    assert one(frame[:50] + expcap(SECOND, 0), "expcap", wire=len(frame))["status"] == TrailerStatus.ABSENT
    for bad in (expcap(SECOND, 10**12), expcap(SECOND, 0, flags=0x40)):
        assert one(frame + bad, "expcap", wire=len(frame))["status"] == TrailerStatus.IMPLAUSIBLE


def test_padding_records_of_exact_capture_are_no_frames() -> None:
    frame = plain()
    real = frame + expcap(SECOND, 0)
    batch = FrameBatch.from_frames([bytes(90), real, bytes(7)], [0, FILE_NS, 0], wire_lengths=[0, len(frame), 0])
    TrailerStage(TrailerFormat.EXPCAP).apply(batch)
    assert batch.count == 1
    assert batch.frames_read == 3
    assert batch.frame_number.tolist() == [2]
    assert batch.frame_bytes(0) == frame


@pytest.mark.parametrize("hardware", [0, 1])
@pytest.mark.parametrize("tags", [0, 1, 2])
@pytest.mark.parametrize(("version", "scale"), [(0x0010, 37), (0x0110, 0), (0x0020, 37), (0x0120, 0)])
def test_arista_headers_are_on_utc_whatever_their_time_scale(
    hardware: int, tags: int, version: int, scale: int
) -> None:
    frame = plain(50, vlans=tags)
    whole = with_arista(frame, SECOND + scale, 999_999_999, version | hardware, tags=tags)
    row = one(whole, "arista")
    assert (row["status"], row["trailer_ns"]) == (TrailerStatus.FOUND, SECOND * 10**9 + 999_999_999)
    assert row["key"] == hardware
    assert bool(row["marks"] & TrailerMark.TAI) == bool(scale)
    assert bool(row["marks"] & TrailerMark.EXTENDED) == (version & 0xF0 == 0x20)
    batch = FrameBatch.from_frames([whole], [FILE_NS])
    TrailerStage(TrailerFormat.ARISTA).apply(batch)
    assert batch.frame_bytes(0) == frame


@settings(deadline=None, max_examples=200)
@given(st.integers(1_341_100_900, 2**32 - 40_000), st.integers(-32_700, 32_700), st.booleans())
def test_16_bits_of_seconds_are_those_nearest_to_the_file(second: int, apart: int, tai: bool) -> None:
    ahead = 0
    if tai:
        ahead = 37 if second >= 1_483_228_800 else 36 if second >= 1_435_708_800 else 35
    whole = with_arista(plain(), second + ahead, 5, 0x0020 if tai else 0x0120)
    row = one(whole, "arista", file_ns=(second + apart) * 10**9)
    assert row["trailer_ns"] == second * 10**9 + 5


def test_other_arista_headers_are_not_read() -> None:
    for version in (0x0030, 0x0000, 0x0210):
        whole = with_arista(plain(), SECOND, 5, version)
        assert one(whole, "arista")["status"] == TrailerStatus.IMPLAUSIBLE
    tgen = with_arista(plain(), SECOND, 5, 0x0110)
    assert one(tgen[:14] + b"\xca\xfe" + tgen[16:], "arista")["status"] == TrailerStatus.IMPLAUSIBLE


def test_frames_whose_length_nothing_says_are_left_alone() -> None:
    lldp = (MACS + b"\x88\xcc" + bytes(40)).ljust(60, b"\0") + metamako(FILE_NS)
    assert one(lldp, "metamako")["status"] == TrailerStatus.UNKNOWN_LENGTH
    assert one(arp() + metamako(FILE_NS), "metamako")["status"] == TrailerStatus.FOUND
    llc = (MACS + b"\x00\x26\x42\x42\x03" + bytes(35)).ljust(60, b"\0") + metamako(FILE_NS)
    assert one(llc, "metamako")["status"] == TrailerStatus.FOUND


def test_frames_without_a_files_timestamp_or_of_another_link_are_left_alone() -> None:
    whole = plain() + metamako(FILE_NS)
    without_timestamp = FrameBatch.from_frames([whole], [0], timestamp_source=TimestampSource.NONE)
    assert look(without_timestamp, "metamako").column("status").tolist() == [TrailerStatus.NO_FILE_TIMESTAMP]
    raw = FrameBatch.from_frames([whole], [FILE_NS], interfaces=[Interface(link_type=101)])
    assert look(raw, "metamako").column("status").tolist() == [TrailerStatus.OTHER_LINK]


def test_mistakes_of_the_caller_are_refused() -> None:
    batch = FrameBatch.from_frames([plain(), plain()], [FILE_NS, FILE_NS])
    with pytest.raises(ValueError, match="no trailer format"):
        TrailerRows(2).look(batch, batch.headers, 9)
    with pytest.raises(ValueError, match="more rows"):
        TrailerRows(1).look(batch, batch.headers, 0)
    with pytest.raises(ValueError, match="not the batch"):
        TrailerRows(2).strip(batch)
    with pytest.raises(ValueError, match="at most"):
        PortCounts(4096)
