"""The terminal report's section on sequence numbers."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.sequence.result import FollowedStream, MissingNumbers, SequenceResult
from uspcap.report.format import (
    clock,
    count,
    duration,
    plural,
    safe_text,
)
from uspcap.report.model import Column, Context, Headline, Section, names
from uspcap.report.units import Unit

ROWS_SHOWN = 10


def section(result: SequenceResult, context: Context) -> Section:
    """Streams with what is missing of them, and the largest gaps."""
    view = Section("Sequence numbers", timed=True)
    how = f"{result.protocol}, {result.chosen_by}; numbers count {result.numbers}"
    if result.unverified_rules or not result.verified:
        rules = ", ".join(result.unverified_rules) or "the numbering"
        how += f"; not verified: {rules}"
    view.paragraph(how, tone="note")
    streams = result.streams
    if not streams:
        view.line("no packet of this protocol", "note")
        _refused(view, result, context)
        return view
    view.line(_sentence(result), "strong")
    order = sorted(range(len(streams)), key=lambda at: (_missing(streams[at]), -streams[at].packets, at))
    shown = [streams[at] for at in order[: context.rows(ROWS_SHOWN)]]
    columns = [
        names("stream", [f"{one.flow}{' ' + one.key if one.key else ''}" for one in shown]),
        Column("packets", [one.packets for one in shown], rank=1, unit=Unit.COUNT),
        Column("first", [_number(one.first) for one in shown], rank=3),
        Column("last", [_number(one.last) for one in shown], rank=2),
        Column("lost", [one.lost for one in shown], tone="strong", unit=Unit.COUNT),
        Column("late", [one.late for one in shown], unit=Unit.COUNT),
        Column("twice", [one.duplicate for one in shown], unit=Unit.COUNT),
        Column("overlaps", [one.overlap for one in shown], rank=4, unit=Unit.COUNT),
        Column("anew", [one.resets for one in shown], rank=4, unit=Unit.COUNT),
        Column("undetermined", [one.undetermined for one in shown], rank=5, unit=Unit.COUNT),
    ]
    view.table(columns)
    view.more(len(streams) - len(shown), "stream")
    _gaps(view, result, context)
    _refused(view, result, context)
    _jumps(view, result)
    lateness = result.lateness
    if lateness.count:
        told = f"late packets came up to {duration(lateness.max_ns, 3)} after the gap was seen"
        view.line(told, "note")
    if result.capture_drops:
        drops = plural(result.capture_drops, "frame")
        told = f"the capture itself lost {drops}: gaps that this falls into are undetermined, not lost"
        view.paragraph(told, tone="warning")
    if result.holes:
        missing, places = plural(result.missing_bytes or 0, "byte"), plural(result.holes, "place")
        told = f"the capture lacks {missing} of the TCP streams, in {places}: messages there are undetermined"
        view.paragraph(told, tone="warning")
    if result.cut_connections or result.dropped_log_bytes:
        cut, dropped = plural(result.cut_connections or 0, "connection"), plural(result.dropped_log_bytes or 0, "byte")
        told = f"{cut} and {dropped} were more than is kept between parts of the capture: read apart, or not at all"
        view.paragraph(told, tone="warning")
    if result.sampled_one_in > 1:
        one_in = count(result.sampled_one_in)
        told = f"more streams than are followed: what is above is of a sample, one stream of {one_in}"
        if result.of_untracked_flows:
            told += f", without {plural(result.of_untracked_flows, 'packet')} of the others"
        view.paragraph(told, tone="warning")
    if result.not_followed:
        told = f"{plural(result.not_followed, 'packet')} behind more gaps than are kept of a stream: not followed"
        view.paragraph(told, tone="warning")
    if result.coalesced:
        told = f"{plural(result.coalesced, 'late or repeated packet')} after too many in a row: lateness is of the last"
        view.paragraph(told, tone="note")
    return view


def _sentence(result: SequenceResult) -> str:
    unit = result.numbers.removesuffix("s")
    lost, late = result.lost, result.late
    streams = plural(len(result.streams), "stream")
    packets = plural(result.packets, "packet")
    unknown = f", {count(result.undetermined)} undetermined" if result.undetermined else ""
    return f"{plural(lost, unit)} lost, {count(late)} late{unknown}, of {packets} in {streams}"


def _missing(stream: FollowedStream) -> tuple[int, int]:
    """Return what puts the streams that most is missing of first."""
    return -stream.lost, -stream.undetermined


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _refused(view: Section, result: SequenceResult, context: Context) -> None:
    """Name the streams whose numbers show that they are not of the protocol, and how they do."""
    refused = sorted(result.refused, key=lambda stream: -stream.packets)
    shown = refused[: context.rows(ROWS_SHOWN)]
    for stream in shown:
        name = f"{stream.flow}{' ' + stream.key if stream.key else ''}"
        found = f"not {result.protocol}, and in no figure above: {safe_text(name)}: {stream.evidence}"
        view.paragraph(found, tone="warning")
    if len(refused) > len(shown):
        view.more(len(refused) - len(shown), "such stream")


def _jumps(view: Section, result: SequenceResult) -> None:
    """Say what became of numbers that jump implausibly far and that nothing confirmed."""
    if result.implausible:
        packets = plural(result.implausible, "packet")
        found = f"{packets} with a number that jumps far ahead, which those after it refute: no gap, and not lost"
        view.paragraph(found, tone="warning")
    for stream in result.streams:
        for jump in stream.unconfirmed_jumps:
            found = (
                f"unconfirmed: frame {jump.frame:,} jumps to {_number(jump.number)} from "
                f"{_number(jump.expected)}, and the stream ends before anything confirms it: not counted as lost"
            )
            view.paragraph(found, tone="warning")
            break


def _gaps(view: Section, result: SequenceResult, context: Context) -> None:
    gaps = [(gap, stream.flow) for stream in result.streams for gap in stream.gaps]
    found = sum(stream.gap_count for stream in result.streams)
    show_gaps(view, "Largest gaps", gaps, found, context, filled="filled", of="stream")


def show_gaps(
    view: Section,
    title: str,
    gaps: list[tuple[MissingNumbers, str]],
    found: int,
    context: Context,
    *,
    filled: str,
    of: str,
) -> None:
    """Print the gaps of which most is missing still.

    Parameters
    ----------
    gaps : list of gap and what it is of
    found : int
        How many there are, of which the result may hold fewer.
    filled, of : str
        Titles of two columns.
    """
    if not gaps:
        return
    gaps.sort(key=lambda one: (one[0].filled - one[0].count, -one[0].count, one[0].after_frame))
    shown = gaps[: context.rows(ROWS_SHOWN)]
    view.heading(title)
    came = [f"{gap.filled:,} after {duration(gap.filled_after_ns, 3)}" if gap.filled else "no" for gap, _ in shown]
    columns = [
        Column("missing", [gap.count for gap, _ in shown], tone="strong", unit=Unit.COUNT),
        Column("numbers", [f"{gap.first}-{gap.last}" for gap, _ in shown]),
        Column("noticed", [clock(gap.end_ns) for gap, _ in shown], left=True, rank=1),
        Column("frames", [f"{gap.before_frame:,} - {gap.after_frame:,}" for gap, _ in shown]),
        Column(filled, came, left=True),
        Column(of, [safe_text(name) for _, name in shown], left=True, rank=2),
    ]
    view.table(columns)
    view.more(found - len(shown), "gap")


def headlines(result: SequenceResult) -> Iterator[Headline]:
    """What the intervals of a capture and its live view say."""
    told = [
        ("", f"{plural(result.lost, result.numbers.removesuffix('s'))} lost"),
        ("late", count(result.late)),
    ]
    if result.undetermined:
        told.append(("undetermined", count(result.undetermined)))
    yield Headline("numbers", tuple(told))
