"""TCP connections: against a byte-by-byte reference, cut anywhere, and case by case."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from support.tcp_reference import assert_as_reference, reference
from support.tcp_segments import Segment, captures, cut_captures, feed

from uspcap.analysis.tcp import Tcp

BY_REFERENCE = {
    "segments", "payload_bytes", "syns", "retransmissions", "retransmitted_bytes", "fast_retransmissions",
    "out_of_order", "before_join", "keep_alives", "duplicate_acks", "zero_windows", "resets", "gaps", "restarts",
    "ambiguous", "unmatched", "different_sources", "negative", "uncaptured_bytes",
}  # fmt: skip


def outcome(analysis: Tcp) -> tuple[Any, Any, Any]:
    histograms = {name: one.table() for name, one in analysis.histograms().items()}
    return analysis.result(), analysis.tables(), histograms


def samples_of(result: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The histograms that hold anything."""
    return {
        (source, kind, side): one
        for source, kinds in result["sources"].items()
        for kind, sides in kinds.items()
        for side, one in sides.items()
        if one["count"]
    }


# --- against the reference --------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=400)
@given(segments=captures(most=40))
def test_counts_and_times_are_those_of_the_reference(segments: list[Segment]) -> None:
    assert_as_reference(feed(Tcp(), segments), reference(segments))


# --- the law ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=300)
@given(cut=cut_captures())
def test_cutting_and_merging_changes_nothing(cut: tuple[list[Segment], list[list[Segment]], int]) -> None:
    segments, parts, batch_frames = cut
    whole = feed(Tcp(), segments)
    merged = feed(Tcp(), parts[0], batch_frames)
    for part in parts[1:]:
        merged.merge(feed(Tcp(), part, batch_frames))
    assert outcome(merged) == outcome(whole)
    assert merged.frames_read == whole.frames_read
