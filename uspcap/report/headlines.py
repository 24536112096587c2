"""What a report says in a few words: for the sections' first lines, for intervals, and for the view while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from uspcap.analysis.histogram import ENOUGH_BEYOND
from uspcap.frames import NANOSECONDS
from uspcap.report.format import (
    MISSING,
    bit_rate,
    compact_count,
    count,
    duration,
    exact_duration,
    packet_rate,
    plural,
    share,
)

PERCENTILE_DIGITS = 3
"""Significant figures that the histograms hold; more would be made up."""

HEADLINE_PERCENTILES = ("50", "99", "99.9")

HEADLINE_WINDOWS_NS = (10_000, 1_000_000, 100_000_000)
"""Windows whose peaks make headlines: 10 us, 1 ms, 100 ms."""

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Headline:
    """A name and what there is to say, in one or more parts.

    Attributes
    ----------
    name : str
    values : tuple of (str, str)
        What each part is, perhaps nothing, and its text.
    """

    name: str
    values: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return ", ".join(f"{label} {text}".lstrip() for label, text in self.values)


def headlines(report: Result) -> list[Headline]:
    """Return the headlines of a report, in its own order: first those of its source, then those of its analyses."""
    source = report["source"]
    found = [
        Headline("packets", (("", count(source["packets"])),)),
        rate(source, _span_ns(report)),
        stamps(source),
    ]
    for name, result in report["analyses"].items():
        if name in _TELLERS:
            found += _TELLERS[name](result)
    return found


def _span_ns(report: Result) -> int | None:
    """Return how long it took: an interval's length, or the time between the first and the last stamp."""
    if "interval" in report:
        return int(report["interval"]["end_ns"] - report["interval"]["start_ns"])
    return stamps_span_ns(report)


def stamps_span_ns(report: Result) -> int | None:
    """Return the time between the earliest and the latest stamp, None where there is none."""
    source, summary = report["source"], report["analyses"].get("summary", {})
    earliest = summary.get("earliest_timestamp_ns", source["first_timestamp_ns"])
    latest = summary.get("latest_timestamp_ns", source["last_timestamp_ns"])
    return None if earliest is None or latest is None else int(abs(latest - earliest))


def rate(source: Result, span_ns: int | None, *, stamped_only: bool = False) -> Headline:
    """Return packets and bits a second over so long."""
    if not span_ns:
        return Headline("rate", (("", MISSING),))
    packets = source["packets"] - (source["timestamp_sources"].get("NONE", 0) if stamped_only else 0)
    bits = source["bytes_on_wire"] * 8
    rates = packet_rate(packets * NANOSECONDS / span_ns), bit_rate(bits * NANOSECONDS / span_ns)
    return Headline("rate", tuple(("", one) for one in rates))


def stamps(source: Result) -> Headline:
    """Return how many frames each stamp source has."""
    return Headline("stamps", tuple((name, count(frames)) for name, frames in source["timestamp_sources"].items()))


def samples_needed(percentile: str) -> int:
    """Return how many samples it takes before a percentile is given."""
    return -int(-100 * ENOUGH_BEYOND // (100 - Fraction(percentile)))


def percentile_cell(histogram: Result, percentile: str) -> str:
    """Return a percentile, or `n<10k`: that more samples are needed."""
    value = histogram["percentiles_ns"].get(percentile)
    if value is not None:
        return duration(value, PERCENTILE_DIGITS)
    return f"n<{compact_count(samples_needed(percentile))}" if histogram["count"] else "-"


def gaps_told(result: Result) -> str:
    """Return how many gaps there are, in how many flows."""
    tracked = result["flows_tracked"]
    if not result["count"]:
        return f"no gap in {plural(tracked, 'flow')}"
    return f"{plural(result['count'], 'gap')} in {count(result['flows_with_gaps'])} of {plural(tracked, 'flow')}"


def _spread(name: str, histogram: Result) -> Headline:
    """Return percentiles and the maximum of a histogram."""
    cells = [(f"p{one}", percentile_cell(histogram, one)) for one in HEADLINE_PERCENTILES]
    return Headline(name, (*cells, ("max", duration(histogram["max_ns"]))))


def _timestamps(result: Result) -> Iterator[Headline]:
    if result["warnings"]:
        yield Headline("stamp quality", (("", plural(len(result["warnings"]), "warning")),))


def _inter_arrival(result: Result) -> Iterator[Headline]:
    for source, histogram in result["sources"].items():
        yield _spread(f"inter-arrival {source}", histogram)


def _gaps(result: Result) -> Iterator[Headline]:
    longest = tuple(("longest", duration(gap["gap_ns"])) for gap in result["longest"][:1])
    yield Headline("gaps", (("", gaps_told(result)), *longest))


def _bursts(result: Result) -> Iterator[Headline]:
    for source in dict.fromkeys(row["source"] for row in result["windows"]):
        peaks = [
            (exact_duration(row["window_ns"]), bit_rate(row["peak_bits_per_second"]))
            for row in result["windows"]
            if row["source"] == source and row["window_ns"] in HEADLINE_WINDOWS_NS
        ]
        yield Headline(f"peak {source}", tuple(peaks))


def _overhead(result: Result) -> Iterator[Headline]:
    if result["total"]["payload_share"] is not None:
        yield Headline("payload", (("", f"{share(result['total']['payload_share'])} of bytes"),))


def _path_latency(result: Result) -> Iterator[Headline]:
    for source, one in result["sources"].items():
        headline = _spread(f"path latency {source}", one)
        if one["negative"]:
            headline = Headline(headline.name, (*headline.values, ("negative", count(one["negative"]))))
        if one["error_bound_ns"] is not None:
            headline = Headline(headline.name, (*headline.values, ("±", duration(one["error_bound_ns"]))))
        yield headline


def _sequence(result: Result) -> Iterator[Headline]:
    told = [("", f"{count(result['lost'])} {result['numbers']} lost"), ("late", count(result["late"]))]
    if result["undetermined"]:
        told.append(("undetermined", count(result["undetermined"])))
    yield Headline("numbers", tuple(told))


def _arbitration(result: Result) -> Iterator[Headline]:
    yield Headline("lines", (("", f"{count(result['lost'])} {result['numbers']} lost on both"),))
    for pair in result["pairs"]:
        shares = [
            (f"{label} first", share(line["brought_first"], pair["compared"])) for label, line in pair["lines"].items()
        ]
        lost = [(f"{label} lost", count(line["lost"])) for label, line in pair["lines"].items()]
        yield Headline(f"{pair['pair']} {pair['key']}".rstrip(), (*shares, *lost))


def _orders(result: Result) -> Iterator[Headline]:
    for source, measures in result["sources"].items():
        for name, histogram in measures.items():
            if histogram["count"]:
                yield _spread(f"{name.replace('_', ' ')} {source}", histogram)
    yield Headline("orders", (("without answer", count(sum(result["unanswered"].values()))),))


def _requests(result: Result) -> Iterator[Headline]:
    for rule in result["rules"]:
        if rule["requests"] or rule["responses"]:
            yield from _answered(rule, rule["name"])


def _tick_to_trade(result: Result) -> Iterator[Headline]:
    yield from _answered(result, "tick to trade")


def _answered(result: Result, name: str) -> Iterator[Headline]:
    """Return how long answers took by stamp source, and how many never came."""
    for source, measures in result["sources"].items():
        yield _spread(f"{name} {source}", measures["from_first"])
    yield Headline(name, (("without response", count(result["unanswered"])),))


def _tcp(result: Result) -> Iterator[Headline]:
    total = result["counts"]["total"]
    told = (
        ("", plural(result["connections"]["estimated"], "connection")),
        ("sent again", count(total["retransmissions"])),
    )
    yield Headline("TCP", (*told, ("out of order", count(total["out_of_order"])), ("resets", count(total["resets"]))))
    for source, kinds in result["sources"].items():
        for side, histogram in kinds["data_ack"].items():
            if histogram["count"]:
                yield _spread(f"data to ack, {side.replace('_', ' ')} {source}", histogram)


_TELLERS = {
    "timestamps": _timestamps,
    "inter_arrival": _inter_arrival,
    "gaps": _gaps,
    "bursts": _bursts,
    "overhead": _overhead,
    "path_latency": _path_latency,
    "sequence": _sequence,
    "arbitration": _arbitration,
    "orders": _orders,
    "requests": _requests,
    "tick_to_trade": _tick_to_trade,
    "tcp": _tcp,
}
