"""The terminal report's section on two lines of one feed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from uspcap.analysis.arbitration.result import ArbitratedPair, ArbitrationResult, LineNumbers
from uspcap.analysis.sequence.view import show_gaps
from uspcap.report.cells import percentile_value
from uspcap.report.format import (
    count,
    plural,
    safe_text,
    share,
)
from uspcap.report.model import Column, Context, Headline, Section, names
from uspcap.report.units import Unit

ROWS_SHOWN = 10
SKEW_TAILS = ("50", "99")


def section(result: ArbitrationResult, context: Context) -> Section:
    """Each pair's lines, what taking the first copies leaves missing, and by how much which line is first."""
    view = Section("Arbitration of lines", timed=True)
    told = f"{result.protocol}; numbers count {result.numbers}, compared within {count(result.compared_within)}"
    view.paragraph(told, tone="note")
    for name in result.without_packets:
        view.paragraph(f"no packet of this protocol on {safe_text(name)}", tone="warning")
    pairs = result.pairs
    if not pairs:
        return view
    lost = f"{_lost(result)} on both lines, of {plural(len(pairs), 'pair')}"
    view.line(lost, "strong")
    order = sorted(range(len(pairs)), key=lambda at: (-pairs[at].arbitrated.lost, at))
    shown = [pairs[at] for at in order[: context.rows(ROWS_SHOWN)]]
    _lines(view, shown)
    view.more(len(pairs) - len(shown), "pair")
    _skews(view, shown)
    gaps = [(gap, pair.pair) for pair in pairs for gap in pair.gaps]
    found = sum(pair.arbitrated.gap_count for pair in pairs)
    show_gaps(view, "Gaps after arbitration", gaps, found, context, filled="recovered", of="pair")
    _doubts(view, result, pairs)
    return view


def _lines(view: Section, pairs: Sequence[ArbitratedPair]) -> None:
    rows: list[tuple[ArbitratedPair, str, LineNumbers | None]] = [
        (pair, label, line) for pair in pairs for label, line in [*pair.lines.items(), ("both", None)]
    ]
    arbitrated = [pair.arbitrated if line is None else line for pair, _, line in rows]
    columns = [
        names("line", [_line_name(pair, label, line) for pair, label, line in rows]),
        Column("messages", [one.messages for one in arbitrated], rank=3, unit=Unit.COUNT),
        Column("lost", [one.lost for one in arbitrated], tone="strong", unit=Unit.COUNT),
        Column("late", [one.late for one in arbitrated], rank=1, unit=Unit.COUNT),
        Column("twice", ["" if line is None else line.duplicate for _, _, line in rows], rank=2, unit=Unit.COUNT),
        Column("first", ["" if line is None else line.brought_first for _, _, line in rows], unit=Unit.COUNT),
        Column(
            "of both",
            ["" if line is None else (line.brought_first, pair.compared) for pair, _, line in rows],
            unit=Unit.SHARE,
        ),
        Column("alone", ["" if line is None else line.brought_alone for _, _, line in rows], unit=Unit.COUNT),
        Column("undetermined", [one.undetermined for one in arbitrated], rank=4, unit=Unit.COUNT),
    ]
    view.table(columns)


def _lost(result: ArbitrationResult) -> str:
    return f"{plural(result.lost, result.numbers.removesuffix('s'))} lost"


def _line_name(pair: ArbitratedPair, label: str, line: LineNumbers | None) -> str:
    if line is None:
        return "both"
    return f"{label} {line.destination}{' ' + pair.key if pair.key else ''}"


def _skews(view: Section, pairs: Sequence[ArbitratedPair]) -> None:
    """By how much the first line was first, a row for each pair, line and timestamp source."""
    rows = [
        (pair, label, source, histogram)
        for pair in pairs
        for source, skew in pair.skew.items()
        for label, histogram in skew.first_by.items()
        if histogram.count
    ]
    if not rows:
        return
    view.heading("By how much the first was first")
    columns = [
        names("first", [_line_name(pair, label, pair.lines[label]) for pair, label, _, _ in rows]),
        Column("timestamps", [source for _, _, source, _ in rows], left=True, rank=3),
        Column("times", [histogram.count for *_, histogram in rows], unit=Unit.COUNT),
        Column("min", [histogram.min_ns for *_, histogram in rows], rank=2, unit=Unit.DURATION),
        *(
            Column(f"p{one}", [percentile_value(histogram, one) for *_, histogram in rows], unit=Unit.PERCENTILE)
            for one in SKEW_TAILS
        ),
        Column("max", [histogram.max_ns for *_, histogram in rows], unit=Unit.DURATION),
        Column("mean", [histogram.mean_ns for *_, histogram in rows], rank=1, unit=Unit.DURATION),
    ]
    view.table(columns)
    view.footnote([histogram for *_, histogram in rows])


def _doubts(view: Section, result: ArbitrationResult, pairs: Sequence[ArbitratedPair]) -> None:
    other_clock = sum(pair.other_clock for pair in pairs)
    out_of_reach = sum(pair.too_late for pair in pairs)
    too_many = sum(pair.too_many for pair in pairs)
    if other_clock:
        told = f"{count(other_clock)} {result.numbers} came with timestamps of two kinds, or none: not compared in time"
        view.paragraph(told, tone="warning")
    if out_of_reach:
        told = f"{count(out_of_reach)} {result.numbers} came too far behind others to be compared"
        view.paragraph(told, tone="warning")
    if too_many:
        told = f"{plural(too_many, 'packet')} with more {result.numbers} than are compared at once: left out"
        view.paragraph(told, tone="warning")
    if result.capture_drops:
        drops = plural(result.capture_drops, "frame")
        told = f"the capture itself lost {drops}: gaps that this falls into are undetermined, not lost"
        view.paragraph(told, tone="warning")
    if not result.complete:
        told = "there was more than there is room for"
        if result.sampled_one_in > 1:
            told += f": what is above is of a sample of pairs and keys, one of {count(result.sampled_one_in)}"
        if result.not_followed:
            told += f"; {plural(result.not_followed, 'packet')} left out"
        view.paragraph(told, tone="warning")


def headlines(result: ArbitrationResult) -> Iterator[Headline]:
    """What the intervals of a capture and its live view say."""
    yield Headline("lines", (("", f"{_lost(result)} on both"),))
    for pair in result.pairs:
        shares = [(f"{label} first", share(line.brought_first, pair.compared)) for label, line in pair.lines.items()]
        lost = [(f"{label} lost", count(line.lost)) for label, line in pair.lines.items()]
        yield Headline(f"{pair.pair} {pair.key}".rstrip(), (*shares, *lost))
