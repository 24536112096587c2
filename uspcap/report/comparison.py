"""Reports of comparisons of two captures: the JSON document, and its page."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from uspcap.comparison.captures import DEGREES, Comparison, Delays
from uspcap.comparison.keys import NO_LIMIT, Side
from uspcap.comparison.matching import MOST_ALIKE
from uspcap.comparison.reordering import REMEMBERED
from uspcap.comparison.statistics import Run, percentile_interval
from uspcap.frames import Problem
from uspcap.report.comparison_schema import SCHEMA
from uspcap.report.decode import decoded_lines
from uspcap.report.format import clock, count, duration, exact_duration, plural, share, timestamp
from uspcap.report.model import Column, Page, Section
from uspcap.report.order import order_sentences
from uspcap.stages.reading import is_read_once
from uspcap.stats.histogram import PERCENTILES, Histogram, enough_for, rank_of
from uspcap.timestamps.tai import LOOKS_LIKE_TAI_NS
from uspcap.version import __version__

_SHOWN_PERCENTILES: Final = ("50", "90", "99", "99.9")

FEW: Final = 0.05
"""A smaller share of the delays has no say in which side is earlier."""

MERGED_BEYOND_BYTES: Final = 1500
"""A TCP payload longer than this, and two times as long as any of the other side, was merged from several segments."""


def comparison_report(comparison: Comparison) -> dict[str, Any]:
    """Return the report of a comparison of two captures; the files are read again for the worst frames."""
    settings = comparison.settings
    frames = {
        "a": comparison.a.frames,
        "b": comparison.b.frames,
        "matched": comparison.matched,
        "only_a": comparison.only_a,
        "only_b": comparison.only_b,
        "ambiguous": comparison.ambiguous_a + comparison.ambiguous_b,
        "ambiguous_a": comparison.ambiguous_a,
        "ambiguous_b": comparison.ambiguous_b,
        "duplicate_a": comparison.duplicate_a,
        "duplicate_b": comparison.duplicate_b,
        "reordered": comparison.reordering.reordered,
    }
    positive, negative = comparison.delays.histograms()
    return {
        "schema": SCHEMA,
        "version": __version__,
        "kind": "captures",
        "key": settings.key,
        "bytes_compared": None if comparison.limit == NO_LIMIT else comparison.limit,
        "window_ns": settings.window_ns,
        "filter": settings.expression,
        **_filter_reading(comparison),
        "time_range": None
        if comparison.range_a is None
        else {"from_ns": comparison.range_a.from_ns, "to_ns": comparison.range_a.to_ns},
        "a": _side(comparison.a),
        "b": _side(comparison.b),
        "frames": frames,
        "loss": {
            "a_to_b": _loss(comparison.only_a, comparison.matched),
            "b_to_a": _loss(comparison.only_b, comparison.matched),
        },
        "clock": _clock(comparison),
        "delay": {**positive.result(), "negative": int(comparison.delays.negative.sum())},
        "negative_delay": negative.result(),
        "delay_intervals": _intervals(comparison),
        "delay_variation": _variation(comparison.delays),
        "delay_over_time": comparison.series.result(),
        "reordering": _reordering(comparison),
        "worst": _worst(comparison),
        "frames_kept": comparison.frames_kept,
        "warnings": _warnings(comparison),
        "problems": [asdict(problem) for side in (comparison.a, comparison.b) for problem in side.problems],
    }


def _filter_reading(comparison: Comparison) -> dict[str, Any]:
    """Return which reading of the filter applied, under its name; nothing where there was none."""
    counts = comparison.a.filtered
    if not comparison.settings.expression:
        return {}
    return {"filter_reading": {"reading": counts.reading.name, "why": counts.reading.why}}


def _side(side: Side) -> dict[str, Any]:
    return {
        "file": side.path,
        "files": [file.path for file in side.files],
        "interfaces": sorted({name for file in side.files for name in file.interfaces}),
        "notes": side.notes,
        "decisions": [asdict(decision) for decision in side.decisions],
        "order": side.order.as_dict(),
        "frames": side.frames,
        "without_digest": side.without_digest,
        "without_stamp": side.without_timestamp,
        "untrusted_timestamps": side.untrusted,
        "first_timestamp_ns": side.first_ns,
        "last_timestamp_ns": side.last_ns,
        "timestamp_sources": sorted(source.name for source in side.sources),
        "inter_arrival": {**Histogram(side.inter_arrival).result(), "backward": side.backward},
    }


def _loss(only: int, matched: int) -> dict[str, Any]:
    """RFC 7680: lost frames over all that were sent; duplicates and ambiguous ones are of neither kind."""
    sent = only + matched
    return {"lost": only, "sent": sent, "ratio": only / sent if sent else None}


def _clock(comparison: Comparison) -> dict[str, Any]:
    fit = comparison.fit
    # What two timestamps may be off by as they were rounded.
    rounded_ns = comparison.a.resolution_ns + comparison.b.resolution_ns
    return {
        "mode": comparison.clock,
        "offset_ns": 0 if fit is None else fit.offset_ns,
        "drift_ppb": 0.0 if fit is None else fit.drift_ppb,
        "bound_ns": rounded_ns if fit is None else fit.bound_ns + rounded_ns,
        "origin_ns": None if fit is None else fit.origin_ns,
        "first_difference_ns": comparison.first_difference_ns,
    }


def _intervals(comparison: Comparison) -> list[dict[str, Any]]:
    """Return percentiles of the delay with intervals of 95 %; lost frames count as slower than all others."""
    positive, _ = comparison.delays.histograms()
    if comparison.delays.negative.any() or not comparison.matched:
        return []
    run = Run(positive, lost=comparison.only_a)
    found = [percentile_interval(run, percentile) for percentile in PERCENTILES]
    return [
        {"percentile": one.percentile, "value_ns": one.value_ns, "low_ns": one.low_ns, "high_ns": one.high_ns}
        for one in found
    ]


def _variation(delays: Delays) -> dict[str, Any]:
    """RFC 5481, 4.2: packet delay variation, each delay minus the minimum."""
    positive, negative = (histogram for histogram in delays.histograms())
    backward, total = negative.total_count, negative.total_count + positive.total_count
    result: dict[str, Any] = dict.fromkeys(PERCENTILES)
    for percentile in PERCENTILES:
        if not total or not enough_for(percentile, total) or delays.lowest_ns is None:
            continue
        rank = rank_of(percentile, total)
        if rank <= backward:
            # Among the negative ones, the largest comes first.
            value = -negative.value_at_rank(backward - rank + 1)
        else:
            value = positive.value_at_rank(rank - backward)
        result[percentile] = value - delays.lowest_ns
    return {"count": total, "percentiles_ns": result}


def _reordering(comparison: Comparison) -> dict[str, Any]:
    """RFC 4737: by the order of A, in the order of B."""
    reordering = comparison.reordering
    extents = Histogram(comparison.extents, highest_ns=comparison.longest_extent or None)
    return {
        "arrivals": reordering.arrivals,
        "reordered": reordering.reordered,
        "ratio": reordering.reordered / reordering.arrivals if reordering.arrivals else None,
        "extent_frames": {
            "max": comparison.longest_extent,
            "percentiles": {
                percentile: extents.value_at(percentile) if enough_for(percentile, reordering.reordered) else None
                for percentile in _SHOWN_PERCENTILES
            }
            if reordering.reordered
            else dict.fromkeys(_SHOWN_PERCENTILES),
        },
        "n_reordered": {str(degree): comparison.degrees[degree] for degree in DEGREES},
        "clipped": reordering.clipped,
        "remembered_frames": REMEMBERED,
    }


def _worst(comparison: Comparison) -> list[dict[str, Any]]:
    files = comparison.b.files
    once = any(is_read_once(file.path) for file in files)
    wanted = {pair.b_frame for pair in comparison.worst}
    lines = {} if once else decoded_lines(files, wanted, tunnels=comparison.b.tunnels)
    return [
        {
            "a_frame": pair.a_frame,
            "b_frame": pair.b_frame,
            "delay_ns": pair.delay_ns,
            "decoded": lines.get(pair.b_frame),
        }
        for pair in comparison.worst
    ]


def _warnings(comparison: Comparison) -> list[str]:
    """Return the warnings that apply to the figures."""
    said = []
    a, b = comparison.a, comparison.b
    difference = comparison.first_difference_ns
    total = comparison.ambiguous_a + comparison.ambiguous_b
    if not comparison.matched and not total:
        said.append("no frame of A is in B: check that the captures are of the same traffic, or try another --key")
    negative = int(comparison.delays.negative.sum())
    if negative and comparison.clock == "same":
        said.append(
            f"{share(negative, comparison.matched)} of the delays are negative: B comes before A, traffic goes both "
            "ways between them (compare one way at a time, with a filter), or the clocks differ (--clock offset)"
        )
    drift = comparison.series.drift() if comparison.clock == "same" else None
    if drift is not None:
        said.append(
            f"the smallest delays {'rise' if drift.rise_ns > 0 else 'fall'} steadily, by "
            f"{duration(abs(drift.rise_ns))} in all ({abs(drift.ppb) / 1000:.3g} ppm): the clocks drift apart and the "
            "delays are wrong (--clock offset), or a queue grows or drains all the time"
        )
    if difference is not None and LOOKS_LIKE_TAI_NS[0] <= abs(difference) < LOOKS_LIKE_TAI_NS[1]:
        said.append(f"the clocks differ by {duration(difference)}: most likely one is on TAI and the other on UTC")
    if comparison.clock == "offset":
        said.append(
            "the clocks are not the same: delays are those above the minimum, which is not separable from the offset"
        )
    if total:
        said.append(
            f"{plural(total, 'frame')} repeat within the window, not equally often on both sides or at least "
            f"{MOST_ALIKE} times; they are left out. A shorter --window distinguishes more of them"
        )
    for side, name in ((a, "A"), (b, "B")):
        if side.without_digest:
            said.append(f"{plural(side.without_digest, 'frame')} of {name} lack the bytes that the key needs")
        if side.clamped:
            said.append(
                f"{plural(side.clamped, 'frame')} of {name} have timestamps outside of the supported range (1823 to "
                "2116) and were clamped to its nearer end: their matches and their delays are wrong"
            )
        if side.resolution_ns > side.file_resolution_ns:
            said.append(
                f"all timestamps of {name} are multiples of {exact_duration(side.resolution_ns)}, though its files "
                f"can hold {exact_duration(side.file_resolution_ns)}: delays may be off by up to that multiple"
            )
        if side.order.step_count:
            said.append(
                f"the clock of {name} stepped ({plural(side.order.step_count, 'step')}): behind a step, frames match "
                "only where the times of both sides agree again; the others count as lost"
            )
        if side.untrusted:
            other = "B" if name == "A" else "A"
            said.append(
                f"{plural(side.untrusted, 'frame')} of {name} left unmatched, as their timestamps cannot be trusted: "
                f"as many of those only in {other} may be in {name}, too"
            )
        if side.without_timestamp:
            said.append(f"{plural(side.without_timestamp, 'frame')} of {name} have no timestamp")
        if len(side.sources) > 1:
            names = ", ".join(sorted(source.name for source in side.sources))
            said.append(f"the timestamps of {name} are of several clocks: {names}")
    if comparison.limit != NO_LIMIT:
        said.append(
            f"frames are truncated: {plural(comparison.limit, 'byte')} of each are compared, and wrong frames may match"
        )
    longer, shorter = (a, b) if a.longest_payload > b.longest_payload else (b, a)
    if longer.longest_payload > MERGED_BEYOND_BYTES and longer.longest_payload >= 2 * shorter.longest_payload > 0:
        name = "A" if longer is a else "B"
        said.append(
            f"{name} has TCP payloads of up to {longer.longest_payload:,} bytes and the other side none over "
            f"{shorter.longest_payload:,}: segments were merged there (GRO, GSO), and cannot match"
        )
    if a.first_ns is not None and b.first_ns is not None and a.last_ns is not None and b.last_ns is not None:
        shift = comparison.first_difference_ns or 0
        early, late = b.first_ns - shift - a.first_ns, b.last_ns - shift - a.last_ns
        length = max(a.last_ns - a.first_ns, 1)
        for difference_ns, what in ((early, "begins"), (late, "ends")):
            if abs(difference_ns) > max(comparison.settings.window_ns, length // 100):
                when = "later" if difference_ns > 0 else "earlier"
                said.append(
                    f"B {what} {duration(abs(difference_ns))} {when} than A: frames that one side missed count as lost"
                )
    return said


def verdict(report: dict[str, Any]) -> str:
    """Return the comparison in one sentence."""
    frames = report["frames"]
    if not frames["matched"]:
        return f"None of the {count(frames['a'])} frames of A is in B."
    lost = report["loss"]["a_to_b"]
    fate = (
        "every frame of A is in B"
        if not lost["lost"]
        else f"{share(lost['lost'], lost['sent'])} of A's frames are not in B"
    )
    return f"{count(frames['matched'])} frames matched, {fate}; {_later(report)}."


def _later(report: dict[str, Any]) -> str:
    """Return by how much B is later; percentiles are of delays from 0 on, and of those below 0 by their size."""
    delay, earlier = report["delay"], report["negative_delay"]
    matches = earlier["count"] + delay["count"]
    share_earlier = earlier["count"] / matches
    if share_earlier > 1 - FEW:
        return f"B is mostly earlier than A, by {_typical(earlier)}"
    if share_earlier >= FEW:
        return (
            f"B is later in {share(delay['count'], matches)} of the matches, by {_typical(delay)}, "
            f"and earlier in the others, by {_typical(earlier)}"
        )
    what = "" if report["clock"]["mode"] == "same" else " and above the minimum delay"
    median = delay["percentiles_ns"]["50"]
    if median is None:
        return f"too few frames for a median; B is {duration(delay['max_ns'])} later at most"
    return f"at the median{what}, B is {duration(median)} later"


def _typical(delay: dict[str, Any]) -> str:
    median = delay["percentiles_ns"]["50"]
    return f"{duration(delay['max_ns'])} at most" if median is None else f"{duration(median)} at the median"


def comparison_page(report: dict[str, Any]) -> Page:
    """Return the page of a report."""
    page = Page()
    page.head.statement(verdict(report), "strong")
    page.head.warnings(report["warnings"])
    for name in ("a", "b"):
        for sentence in order_sentences(report[name].get("order")):
            page.head.paragraph(sentence, lead=f"{name.upper()}  ")
    _show_frames(page.section(), report)
    if report["frames"]["matched"]:
        _show_delay(page.section("Delay, B's timestamp minus A's"), report)
    if report["reordering"]["reordered"]:
        _show_reordering(page.section("Order (RFC 4737)"), report["reordering"])
    latest = [row for row in report["worst"] if row["delay_ns"]]
    if latest:
        section = page.section("Largest delays")
        for row in latest:
            section.line(f"{duration(row['delay_ns']):>9}  A {row['a_frame']}, B {row['decoded'] or row['b_frame']}")
    notes = page.section()
    for side in (report["a"], report["b"]):
        for note in side["notes"]:
            notes.paragraph(note, "note")
    problems = page.section()
    for problem in report["problems"]:
        problems.paragraph(f"{problem['file']}: {Problem(**problem).place}: {problem['what']}", "problem")
    return page


def _show_frames(section: Section, report: dict[str, Any]) -> None:
    frames, a, b = report["frames"], report["a"], report["b"]
    rows = [
        ("frames", count(frames["a"]), count(frames["b"])),
        ("matched", count(frames["matched"]), count(frames["matched"])),
        ("only on this side", count(frames["only_a"]), count(frames["only_b"])),
        ("lost to the other", *(share(report["loss"][way]["ratio"]) for way in ("a_to_b", "b_to_a"))),
        ("duplicates", count(frames["duplicate_a"]), count(frames["duplicate_b"])),
        ("ambiguous", count(frames["ambiguous_a"]), count(frames["ambiguous_b"])),
        ("first", timestamp(a["first_timestamp_ns"]), timestamp(b["first_timestamp_ns"])),
        ("last", timestamp(a["last_timestamp_ns"]), timestamp(b["last_timestamp_ns"])),
        ("timestamps", ", ".join(a["timestamp_sources"]), ", ".join(b["timestamp_sources"])),
    ]
    for percentile in _SHOWN_PERCENTILES:
        gaps = [duration(side["inter_arrival"]["percentiles_ns"][percentile]) for side in (a, b)]
        rows.append((f"gap, p{percentile}", *gaps))
    for name, side in (("A", a), ("B", b)):
        section.paragraph(side["file"], lead=f"{name}  ")
    names, left, right = zip(*rows, strict=True)
    columns = [Column("", names, left=True)]
    for title, cells in (("A", left), ("B", right)):
        # Where there is no room for dates, times of day must do.
        short = [
            clock(report[title.lower()][f"{name}_timestamp_ns"]) if name in ("first", "last") else cell
            for name, cell in zip(names, cells, strict=True)
        ]
        columns.append(Column(title, cells, short=short))
    section.table(columns)


def _show_delay(section: Section, report: dict[str, Any]) -> None:
    delay, clocks = report["delay"], report["clock"]
    if clocks["mode"] == "offset":
        text = (
            f"clocks: B minus A is {duration(clocks['offset_ns'])} with the minimum delay included, and drifts by "
            f"{clocks['drift_ppb']:,.1f} ns a second; within {duration(clocks['bound_ns'])}"
        )
    else:
        text = f"one clock is assumed for both sides; timestamps are rounded to within {duration(clocks['bound_ns'])}"
    section.paragraph(text, "note")
    intervals = {row["percentile"]: row for row in report["delay_intervals"]}
    rows = [("min", duration(delay["min_ns"]), "", "")]
    for percentile, value in delay["percentiles_ns"].items():
        interval = intervals.get(percentile, {})
        low, high = interval.get("low_ns"), interval.get("high_ns")
        between = f"{duration(low)} to {duration(high) if high is not None else 'lost'}" if low is not None else ""
        variation = report["delay_variation"]["percentiles_ns"][percentile]
        rows.append((f"p{percentile}", duration(value), between, duration(variation)))
    rows.append(("max", duration(delay["max_ns"]), "", ""))
    names, values, intervals_shown, variations = zip(*rows, strict=True)
    columns = [
        Column("", names, left=True),
        Column("delay", values),
        Column("95 % interval, loss as infinite", intervals_shown),
    ]
    section.table([*columns, Column("above minimum", variations)])
    if delay["negative"]:
        negative = report["negative_delay"]
        text = (
            f"{plural(delay['negative'], 'delay')} below 0, down to {duration(-negative['max_ns'])}; not in this table"
        )
        section.paragraph(text, "warning")


def _show_reordering(section: Section, reordering: dict[str, Any]) -> None:
    section.paragraph(
        f"{count(reordering['reordered'])} of {count(reordering['arrivals'])} frames ({share(reordering['ratio'])}) "
        "reordered: received after a frame that A sent later, by up to "
        f"{plural(reordering['extent_frames']['max'], 'frame')}; {count(reordering['n_reordered']['3'])} after three "
        "or more in a row, which TCP takes for loss"
    )
