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
    """Each pair's lines, what is lost after arbitration, and by how much either line leads."""
    view = Section("Arbitration of lines", timed=True)
    text = f"{result.protocol}; numbers count {result.numbers}, compared within {count(result.compared_within)}"
    view.paragraph(text, tone="note")
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
        Column("messages", [numbers.messages for numbers in arbitrated], rank=3, unit=Unit.COUNT),
        Column("lost", [numbers.lost for numbers in arbitrated], tone="strong", unit=Unit.COUNT),
        Column("late", [numbers.late for numbers in arbitrated], rank=1, unit=Unit.COUNT),
        Column("duplicate", ["" if line is None else line.duplicate for _, _, line in rows], rank=2, unit=Unit.COUNT),
        Column("first", ["" if line is None else line.brought_first for _, _, line in rows], unit=Unit.COUNT),
        Column(
            "share first",
            ["" if line is None else (line.brought_first, pair.compared) for pair, _, line in rows],
            unit=Unit.SHARE,
        ),
        Column("alone", ["" if line is None else line.brought_alone for _, _, line in rows], unit=Unit.COUNT),
        Column("undetermined", [numbers.undetermined for numbers in arbitrated], rank=4, unit=Unit.COUNT),
    ]
    view.table(columns)


def _lost(result: ArbitrationResult) -> str:
    return f"{plural(result.lost, result.numbers.removesuffix('s'))} lost"


def _line_name(pair: ArbitratedPair, label: str, line: LineNumbers | None) -> str:
    if line is None:
        return "both"
    return f"{label} {line.destination}{' ' + pair.key if pair.key else ''}"


def _skews(view: Section, pairs: Sequence[ArbitratedPair]) -> None:
    """The lead of the line that was first, a row for each pair, line and timestamp source."""
    rows = [
        (pair, label, source, histogram)
        for pair in pairs
        for source, skew in pair.skew.items()
        for label, histogram in skew.first_by.items()
        if histogram.count
    ]
    if not rows:
        return
    view.heading("Lead of the line that was first")
    columns = [
        names("leading line", [_line_name(pair, label, pair.lines[label]) for pair, label, _, _ in rows]),
        Column("timestamps", [source for _, _, source, _ in rows], left=True, rank=3),
        Column("count", [histogram.count for *_, histogram in rows], unit=Unit.COUNT),
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
        text = f"{count(other_clock)} {result.numbers} have timestamps of two sources, or none: not compared in time"
        view.paragraph(text, tone="warning")
    if out_of_reach:
        text = f"{count(out_of_reach)} {result.numbers} arrived too late to be compared"
        view.paragraph(text, tone="warning")
    if too_many:
        text = f"{plural(too_many, 'packet')} with more {result.numbers} than can be compared at once: left out"
        view.paragraph(text, tone="warning")
    if result.capture_drops:
        drops = plural(result.capture_drops, "frame")
        text = f"the capture itself lost {drops}: gaps where that happened are undetermined, not lost"
        view.paragraph(text, tone="warning")
    if not result.complete:
        text = "the memory limit was reached"
        if result.sampled_one_in > 1:
            text += f": the figures above are of a sample, one in {count(result.sampled_one_in)} of the pairs and keys"
        if result.not_followed:
            text += f"; {plural(result.not_followed, 'packet')} left out"
        view.paragraph(text, tone="warning")


def headlines(result: ArbitrationResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    yield Headline("lines", (("", f"{_lost(result)} on both"),))
    for pair in result.pairs:
        shares = [(f"{label} first", share(line.brought_first, pair.compared)) for label, line in pair.lines.items()]
        lost = [(f"{label} lost", count(line.lost)) for label, line in pair.lines.items()]
        yield Headline(f"{pair.pair} {pair.key}".rstrip(), (*shares, *lost))
