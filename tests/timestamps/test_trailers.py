"""Telling a format of trailers from the first frames: when nearly all agree, and never otherwise."""

from __future__ import annotations

import random

import pytest
from support.shared_captures import CAPTURES, manifest, needs_captures
from support.trailer_frames import FILE_NS, metamako, plain, timestamped, vss

from uspcap.errors import CaptureFileError
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch
from uspcap.timestamps.trailer_decoding import TrailerFormat
from uspcap.timestamps.trailers import DETECTABLE, FRAMES_LOOKED_AT, TrailerChoice, detect, resolve

STEP_NS = 10_000


def batch_of(kind: str | None, count: int, *, every: int = 1, backward: bool = False) -> FrameBatch:
    """Frames each `every`-th of which has a timestamp, the others only bytes of no meaning behind their payload."""
    noise = random.Random(7)
    frames, wires = [], []
    for at in range(count):
        ns = FILE_NS + (-at if backward else at) * STEP_NS
        if kind is not None and at % every == 0:
            case = timestamped(kind, plain(at % 90), ns)
            frames.append(case.captured)
            wires.append(case.wire_length)
        else:
            frames.append(plain(at % 90) + noise.randbytes(20))
            wires.append(len(frames[-1]))
    timestamps = [FILE_NS + at * STEP_NS for at in range(count)]
    return FrameBatch.from_frames(frames, timestamps, wire_lengths=wires)


@pytest.mark.parametrize("kind", DETECTABLE)
def test_a_format_that_all_frames_hold_is_detected(kind: TrailerFormat) -> None:
    detection = detect([batch_of(kind.name.lower(), 100)])
    assert detection.format == kind
    assert detection.frames == 100
    assert detection.evidence[0].share == 1
    assert detection.evidence[1].share <= 0.05


@pytest.mark.parametrize("kind", [None, "vss"])
def test_noise_and_vss_are_never_detected(kind: str | None) -> None:
    assert detect([batch_of(kind, 500)]).format is None


def test_a_format_that_every_other_frame_holds_is_not_detected() -> None:
    assert detect([batch_of("metamako", 200, every=2)]).format is None


def test_too_few_frames_tell_nothing() -> None:
    assert detect([batch_of("metamako", 9)]).format is None
    assert detect([batch_of("metamako", 10)]).format == TrailerFormat.METAMAKO
    assert detect([]).format is None


def test_timestamps_of_a_port_that_run_backward_tell_nothing() -> None:
    detection = detect([batch_of("metamako", 100, backward=True)])
    assert detection.evidence[0].backward == 99
    assert detection.format is None


def test_only_the_first_frames_are_looked_at() -> None:
    detection = detect([batch_of("metamako", 900), batch_of(None, 900)])
    assert detection.frames == FRAMES_LOOKED_AT
    assert detection.evidence[0].found == 900


def test_frames_that_cannot_hold_a_timestamp_do_not_count_against_it() -> None:
    frames = [plain(40) + metamako(FILE_NS + at) for at in range(40)]
    batch = FrameBatch.from_frames(
        [frame if at % 2 else frame[:50] for at, frame in enumerate(frames)],
        [FILE_NS + at for at in range(40)],
        wire_lengths=[len(frame) for frame in frames],
    )
    detection = detect([batch])
    assert (detection.format, detection.evidence[0].possible) == (TrailerFormat.METAMAKO, 20)


def test_looking_changes_nothing() -> None:
    batch = batch_of("arista", 50)
    before = [batch.frame_bytes(row) for row in range(50)]
    detect([batch])
    assert [batch.frame_bytes(row) for row in range(50)] == before
    assert batch.timestamp_ns.tolist() == [FILE_NS + at * STEP_NS for at in range(50)]


def test_a_format_that_is_named_needs_no_frames_and_one_that_cannot_be_detected_is_an_error() -> None:
    named = TrailerChoice(TrailerFormat.VSS)
    assert resolve(named, "a.pcap", iter(())) is named
    with pytest.raises(CaptureFileError, match=r"a\.pcap: the first 50 frames do not agree .*metamako 0 of 50"):
        resolve(TrailerChoice(None), "a.pcap", [batch_of(None, 50)])
    resolved = resolve(TrailerChoice(None), "a.pcap", [batch_of("metamako", 50)])
    assert resolved.format == TrailerFormat.METAMAKO
    assert resolved.detection is not None


def test_vss_in_short_frames_is_not_taken_for_another() -> None:
    frames = [plain(0) + vss(FILE_NS + at, port=b"") for at in range(40)]
    assert detect([FrameBatch.from_frames(frames, [FILE_NS + at for at in range(40)])]).format is None


@pytest.mark.oracle
@needs_captures
def test_captures_by_others_hold_a_trailer_only_where_they_do() -> None:
    detected, looked_at = {}, 0
    for entry in manifest():
        if entry["status"] != "ok":
            continue
        with open_capture(str(CAPTURES / entry["file"])) as reader:
            kind = detect(reader.batches()).format
        looked_at += 1
        if kind is not None:
            detected[entry["file"]] = kind
    assert looked_at > 500
    assert detected == {
        "timestamp-trailers/rust_metamako_exercise__metamako_trailer_rec1-60.pcap": TrailerFormat.METAMAKO
    }
