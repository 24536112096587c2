"""The terminal report's section on timestamps of taps and switches."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.trailer.result import TrailerResult
from uspcap.report.cells import percentile_cell, spread
from uspcap.report.format import (
    count,
    duration,
    plural,
    safe_text,
    share,
)
from uspcap.report.model import Column, Context, Headline, Section
from uspcap.report.units import Unit

PORTS_SHOWN = 10

_NOT_FOUND = (
    ("absent", "with no bytes for one"),
    ("cut", "cut before it"),
    ("implausible", "whose bytes there are no timestamp close to the file's"),
    ("unknown_length", "whose headers do not say where the payload ends"),
    ("no_file_timestamp", "without a timestamp in the file to compare with"),
    ("other_link", "that are not Ethernet"),
)


def section(result: TrailerResult, context: Context) -> Section:
    """Frames with a trailer, the difference to the file's timestamps, and ports."""
    view = Section("Trailer timestamps", timed=True)
    if result.format is None:
        view.line("not searched for: --timestamps trailer does that", "note")
        return view
    frames = result.frames
    looked_at = sum(number for _, number in frames.items()) - frames.padding
    view.paragraph(f"{result.format}, {_how_known(result)}")
    view.paragraph(f"found in {count(frames.found)} of {count(looked_at)} frames ({share(frames.found, looked_at)})")
    for status, what in _NOT_FOUND:
        if frames[status]:
            view.paragraph(f"not found: {plural(frames[status], 'frame')} {what}", tone="warning")
    for line in _facts(result):
        view.paragraph(line)
    if not frames.found:
        return view
    difference = result.difference
    view.heading("File timestamp minus trailer timestamp")
    cells = {
        "frames": count(difference.count),
        "min": duration(difference.min_ns),
        **{f"p{percentile}": percentile_cell(difference, percentile) for percentile in difference.percentiles_ns},
        "max": duration(difference.max_ns),
        "mean": duration(difference.mean_ns),
        "stddev": duration(difference.stddev_ns),
        "negative": count(difference.negative),
        "most negative": duration(difference.most_negative_ns or None),
    }
    if not difference.count:
        cells = {name: cell for name, cell in cells.items() if name in ("frames", "negative", "most negative")}
    view.table([Column("", list(cells), left=True), Column("difference", list(cells.values()))])
    view.footnote([difference])
    view.paragraph(difference.definition, tone="note")
    _ports(view, result, context)
    return view


def _how_known(result: TrailerResult) -> str:
    """Say whether the format was given or detected, and on what evidence."""
    detection = result.detection
    if detection is None:
        return "as given"
    best, second = detection.formats[:2]
    return (
        f"detected from the first {plural(detection.frames_looked_at, 'frame')}: {count(best.found)} of "
        f"{count(best.possible)} that could hold a timestamp do, {plural(best.backward_steps, 'step')} backward "
        f"within a port; next best: {second.format} {count(second.found)} of {count(second.possible)}"
    )


def _facts(result: TrailerResult) -> list[str]:
    """Return what trailers say besides the time."""
    notes = (
        ("degraded", "with a degraded clock"),
        ("duplicates", "marked as a duplicate"),
        ("bad_fcs", "whose original FCS was not valid"),
        ("finer_than_ns", "finer than 1 ns, rounded down to 1 ns"),
        ("from_tai", "in TAI, converted to UTC by 35 to 37 s (37 s since 2017)"),
        ("seconds_extended", "of 48 bits, with the high bits of the file's timestamp"),
        ("truncated", "of frames that the capturing host truncated"),
    )
    lines = [f"{plural(result[key], 'timestamp')} {what}" for key, what in notes if result[key]]
    if result.dropped_by_capture:
        lines.append(
            f"{plural(result.dropped_by_capture, 'frame')} dropped by the capturing host, according to the footers"
        )
    if result.frames.padding:
        lines.append(f"{plural(result.frames.padding, 'padding record')} left out")
    return lines


def _ports(view: Section, result: TrailerResult, context: Context) -> None:
    ports = result.ports
    shown = ports[: context.rows(PORTS_SHOWN)]
    view.line()
    columns = [
        Column("device", [safe_text(str(port.device)) for port in shown], left=True),
        Column("port", [str(port.port) for port in shown]),
        Column("frames", [port.frames for port in shown], unit=Unit.COUNT),
        Column("degraded", [port.degraded for port in shown], rank=2, unit=Unit.COUNT),
        Column("duplicates", [port.duplicates for port in shown], rank=2, unit=Unit.COUNT),
        Column("bad FCS", [port.bad_fcs for port in shown], rank=2, unit=Unit.COUNT),
        Column("negative", [port.negative for port in shown], rank=1, unit=Unit.COUNT),
        Column("min", [port.lowest_difference_ns for port in shown], unit=Unit.DURATION),
        Column("max", [port.highest_difference_ns for port in shown], unit=Unit.DURATION),
    ]
    unnamed = [at for at, key in enumerate(("device", "port")) if all(port[key] is None for port in shown)]
    view.table([column for at, column in enumerate(columns) if at not in unnamed])
    view.more(len(ports) - len(shown), "port")
    if result.ports_sampled_one_in > 1:
        view.paragraph(
            f"more ports than can be counted: a sample of about one in {result.ports_sampled_one_in}", tone="warning"
        )


def headlines(result: TrailerResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    if result.format is None:
        return
    frames = result.frames
    looked_at = sum(number for _, number in frames.items()) - frames.padding
    yield Headline("trailer timestamps", (("", f"in {share(frames.found, looked_at)} of frames"),))
    if result.difference.count:
        yield spread("file minus trailer timestamp", result.difference)
