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
    """Streams with their losses, and the largest gaps."""
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
        names("stream", [f"{stream.flow}{' ' + stream.key if stream.key else ''}" for stream in shown]),
        Column("packets", [stream.packets for stream in shown], rank=1, unit=Unit.COUNT),
        Column("first", [_number(stream.first) for stream in shown], rank=3),
        Column("last", [_number(stream.last) for stream in shown], rank=2),
        Column("lost", [stream.lost for stream in shown], tone="strong", unit=Unit.COUNT),
        Column("late", [stream.late for stream in shown], unit=Unit.COUNT),
        Column("duplicate", [stream.duplicate for stream in shown], unit=Unit.COUNT),
        Column("overlaps", [stream.overlap for stream in shown], rank=4, unit=Unit.COUNT),
        Column("resets", [stream.resets for stream in shown], rank=4, unit=Unit.COUNT),
        Column("undetermined", [stream.undetermined for stream in shown], rank=5, unit=Unit.COUNT),
    ]
    view.table(columns)
    view.more(len(streams) - len(shown), "stream")
    _gaps(view, result, context)
    _refused(view, result, context)
    _jumps(view, result)
    lateness = result.lateness
    if lateness.count:
        text = f"late packets arrived up to {duration(lateness.max_ns, 3)} after the gap was detected"
        view.line(text, "note")
    if result.capture_drops:
        drops = plural(result.capture_drops, "frame")
        text = f"the capture itself lost {drops}: gaps where that happened are undetermined, not lost"
        view.paragraph(text, tone="warning")
    if result.holes:
        missing, places = plural(result.missing_bytes or 0, "byte"), plural(result.holes, "place")
        text = f"{missing} of the TCP streams not captured, in {places}: messages there are undetermined"
        view.paragraph(text, tone="warning")
    if result.cut_connections or result.dropped_log_bytes:
        cut, dropped = plural(result.cut_connections or 0, "connection"), plural(result.dropped_log_bytes or 0, "byte")
        text = f"{cut} and {dropped} exceed what is kept between parts of the capture: read separately, or not at all"
        view.paragraph(text, tone="warning")
    if result.sampled_one_in > 1:
        one_in = count(result.sampled_one_in)
        text = f"more streams than can be followed: the figures above are of a sample, one stream in {one_in}"
        if result.of_untracked_flows:
            text += f", without {plural(result.of_untracked_flows, 'packet')} of the others"
        view.paragraph(text, tone="warning")
    if result.not_followed:
        text = f"{plural(result.not_followed, 'packet')} after more gaps than are kept for a stream: not followed"
        view.paragraph(text, tone="warning")
    if result.coalesced:
        text = f"{plural(result.coalesced, 'late or repeated packet')} after too many in a row: lateness is of the last"
        view.paragraph(text, tone="note")
    return view


def _sentence(result: SequenceResult) -> str:
    unit = result.numbers.removesuffix("s")
    lost, late = result.lost, result.late
    streams = plural(len(result.streams), "stream")
    packets = plural(result.packets, "packet")
    unknown = f", {count(result.undetermined)} undetermined" if result.undetermined else ""
    return f"{plural(lost, unit)} lost, {count(late)} late{unknown}, of {packets} in {streams}"


def _missing(stream: FollowedStream) -> tuple[int, int]:
    """Return the sort key that puts the streams with the largest losses first."""
    return -stream.lost, -stream.undetermined


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _refused(view: Section, result: SequenceResult, context: Context) -> None:
    """Name the streams whose numbers show that they are not of the protocol, with the evidence."""
    refused = sorted(result.refused, key=lambda stream: -stream.packets)
    shown = refused[: context.rows(ROWS_SHOWN)]
    for stream in shown:
        name = f"{stream.flow}{' ' + stream.key if stream.key else ''}"
        found = f"not {result.protocol}, excluded from all figures above: {safe_text(name)}: {stream.evidence}"
        view.paragraph(found, tone="warning")
    if len(refused) > len(shown):
        view.more(len(refused) - len(shown), "such stream")


def _jumps(view: Section, result: SequenceResult) -> None:
    """Report implausible jumps, and those that nothing confirmed."""
    if result.implausible:
        packets = plural(result.implausible, "packet")
        found = (
            f"{packets} with an implausible jump ahead, refuted by the packets after it: no gap, not counted as lost"
        )
        view.paragraph(found, tone="warning")
    for stream in result.streams:
        for jump in stream.unconfirmed_jumps:
            found = (
                f"unconfirmed: frame {jump.frame:,} jumps to {_number(jump.number)} from "
                f"{_number(jump.expected)}, and the stream ends before a packet confirms it: not counted as lost"
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
    """Print the gaps with the most numbers still missing.

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
        Column("detected", [clock(gap.end_ns) for gap, _ in shown], left=True, rank=1),
        Column("frames", [f"{gap.before_frame:,} - {gap.after_frame:,}" for gap, _ in shown]),
        Column(filled, came, left=True),
        Column(of, [safe_text(name) for _, name in shown], left=True, rank=2),
    ]
    view.table(columns)
    view.more(found - len(shown), "gap")


def headlines(result: SequenceResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    values = [
        ("", f"{plural(result.lost, result.numbers.removesuffix('s'))} lost"),
        ("late", count(result.late)),
    ]
    if result.undetermined:
        values.append(("undetermined", count(result.undetermined)))
    yield Headline("numbers", tuple(values))
