"""The order of frames in time, shown: what was corrected, and what could not be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from uspcap.report.format import count, duration, plural, safe_text, timestamp
from uspcap.stages.order import CLOCK_SET_NS

SHOWN: Final = 10
"""Outliers, and steps, that text names one by one; JSON has more."""


def order_sentences(order: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what a `source.order` reports, sentences without a full stop; none where there is nothing to report."""
    if order is None:
        return
    if order["merged_inputs"]:
        yield f"{count(order['merged_inputs'])} inputs overlap in time and were merged by timestamp"
    if order["sorted"]:
        were = "was" if order["sorted"] == 1 else "were"
        yield (
            f"{plural(order['sorted'], 'frame')} {were} out of order by up to {duration(order['furthest_ns'])} and "
            f"{were} sorted by timestamp"
        )
    if order["beyond_window"]:
        yield (
            f"{plural(order['beyond_window'], 'frame')} exceeded the sort window and "
            f"{'is' if order['beyond_window'] == 1 else 'are'} still out of order: figures from times between "
            "neighbouring frames are wrong there; try a longer --sort"
        )
    if order["copies_removed"]:
        yield f"{plural(order['copies_removed'], 'frame')} left out as copies of packets captured before"
    yield from _outliers(order)
    misfits = order["outlier_count"] - order["unset_count"]
    if misfits * 4 > order["timestamped"]:
        yield (
            f"{count(misfits)} of {count(order['timestamped'])} timestamps do not fit the others: the "
            "true times cannot be determined, and spans, rates and intervals are of the few that agree; --sort off "
            "uses all as they are"
        )
    yield from _steps(order)
    yield from _forward_steps(order)


def _outliers(order: Mapping[str, Any]) -> Iterator[str]:
    listed = order["outliers"]
    unset = [outlier for outlier in listed if outlier["timestamp_ns"] < CLOCK_SET_NS and not outlier["trusted"]]
    left = order["outlier_count"]
    if order["unset_count"] > 1 and unset:
        first = unset[0]
        yield (
            f"{safe_text(first['file'])}, frame {count(first['frame'])}: its timestamp is "
            f"{timestamp(first['timestamp_ns'])}, as those of {plural(order['unset_count'] - 1, 'more frame')} whose "
            "clock was not set: they count as frames and in no time"
        )
        listed = [outlier for outlier in listed if outlier not in unset]
        left -= order["unset_count"]
    for outlier in listed[:SHOWN]:
        where = f"{safe_text(outlier['file'])}, frame {count(outlier['frame'])}"
        what = "its timestamp is"
        if outlier["frames"] > 1:
            where += f" and {plural(outlier['frames'] - 1, 'frame')} after it"
            what = "timestamps from"
        off = ""
        if outlier["off_by_ns"] is not None:
            late = outlier["off_by_ns"] > 0
            off = f", {duration(abs(outlier['off_by_ns']))} {'later' if late else 'earlier'} than"
            off += " the frame after it" if _is_first(outlier) else " the frames before"
        kind = (
            "an outlier, which counts as a frame but in no time"
            if outlier["kind"] == "outlier"
            else "undetermined, as no frame after it shows whether time continues there; it counts in spans and gaps"
            if outlier["trusted"]
            else "undetermined, a wrong timestamp or a clock step; it counts as a frame but in no time"
        )
        yield f"{where}: {what} {timestamp(outlier['timestamp_ns'])}{off}: {kind}"
    left -= sum(1 if outlier["trusted"] else outlier["frames"] for outlier in listed[:SHOWN])
    if left > 0:
        yield f"and {plural(left, 'more timestamp', 'more timestamps')} like these"


def _is_first(outlier: Mapping[str, Any]) -> bool:
    return bool(outlier["trusted"]) and outlier["off_by_ns"] < 0


def _forward_steps(order: Mapping[str, Any]) -> Iterator[str]:
    steps = order["forward_steps"]
    for step in steps[:SHOWN]:
        yield (
            f"{safe_text(step['file'])}, frame {count(step['frame'])}: the clock of {safe_text(step['interface'])} may "
            f"have stepped forward by {duration(step['step_ns'])}, from {timestamp(step['before_ns'])} in frame "
            f"{count(step['before_frame'])} to {timestamp(step['timestamp_ns'])}: {safe_text(step['evidence'])}; times "
            "between its frames and those of others are meaningless after it"
        )
    if len(steps) > SHOWN:
        yield f"and {plural(len(steps) - SHOWN, 'more such step')}"


def _steps(order: Mapping[str, Any]) -> Iterator[str]:
    for step in order["steps"][:SHOWN]:
        yield (
            f"{safe_text(step['file'])}, frame {count(step['frame'])}: the clock stepped back by "
            f"{duration(-step['step_ns'])} and stayed there, from {timestamp(step['before_ns'])} in frame "
            f"{count(step['before_frame'])} to {timestamp(step['timestamp_ns'])}: times across it are meaningless"
        )
    left = order["step_count"] - len(order["steps"][:SHOWN])
    if left > 0:
        yield f"and {plural(left, 'more step')} back"
