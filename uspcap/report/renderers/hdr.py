"""Histograms in the interchange formats of HdrHistogram: `.hgrm` text and `.hlog` logs.

`.hgrm` is what HdrHistogram's `outputPercentileDistribution` prints and its plotters read. `.hlog` is the
histogram log, one interval a line, whose histograms are V2 encoded:

    base64( cookie 0x1c849314 | length | zlib(                              big-endian throughout
        cookie 0x1c849313 | length of the counts | 0 | significant figures  (4 × uint32)
        lowest trackable value | highest trackable value | 1.0              (2 × int64, float64)
        counts as ZigZag LEB128; a negative number -n stands for n empty buckets ) )

References
----------
HdrHistogram (Java): AbstractHistogram.java (encoding, percentile output), PercentileIterator.java,
ZigZagEncoding.java, HistogramLogWriter.java.
"""

from __future__ import annotations

import base64
import math
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TextIO

import numpy as np

from uspcap.report.format import safe_text
from uspcap.report.renderers.base import TableRenderer
from uspcap.stats.histogram import Histogram, bounds

if TYPE_CHECKING:
    from uspcap.analysis.base import Table

PAYLOAD_COOKIE = 0x1C849303 | 0x10
COMPRESSED_COOKIE = 0x1C849304 | 0x10
SIGNIFICANT_FIGURES = 3
SUB_BUCKETS = 2048
TICKS_PER_HALF_DISTANCE = 5
LOG_FORMAT_VERSION = "1.3"

MAXIMUM_UNIT_NS = 1_000_000
"""Unit of a log's `Interval_Max`: ms, as HdrHistogram's log writer has it by default."""

_SECOND = 1_000_000_000


class HgrmRenderer(TableRenderer):
    """Writes each histogram as `<histogram>.hgrm`."""

    def files(
        self, tables: Mapping[str, Table], histograms: Mapping[str, Histogram]
    ) -> Iterator[tuple[str, Callable[[TextIO], object]]]:
        for name, histogram in histograms.items():
            yield f"{name}.hgrm", partial(_write_hgrm, histogram)


def _write_hgrm(histogram: Histogram, stream: TextIO) -> None:
    stream.write(percentile_distribution(histogram))


def percentile_distribution(
    histogram: Histogram, *, ticks_per_half_distance: int = TICKS_PER_HALF_DISTANCE, unit_ns: int = 1
) -> str:
    """Return the `.hgrm` text of a histogram.

    Parameters
    ----------
    histogram : Histogram
    ticks_per_half_distance : int
        Rows for each halving of the distance to 100 %, at least 1.
    unit_ns : int
        Unit of the values; 1 is ns.
    """
    if ticks_per_half_distance < 1 or unit_ns < 1:
        raise ValueError("ticks_per_half_distance and unit_ns are at least 1")
    lines = [f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}", ""]
    for value, level, count in _levels(histogram, ticks_per_half_distance):
        row = f"{value / unit_ns:12.3f} {level / 100:14.12f} {count:10d}"
        lines.append(row if level == 100 else f"{row} {1 / (1 - level / 100):14.2f}")
    used = np.flatnonzero(histogram.counts)
    maximum = int(bounds()[1][used[-1]]) if len(used) else 0
    mean, deviation = _moments(histogram)
    lines += [
        f"#[Mean    = {mean / unit_ns:12.3f}, StdDeviation   = {deviation / unit_ns:12.3f}]",
        f"#[Max     = {maximum / unit_ns:12.3f}, Total count    = {histogram.total_count:12d}]",
        f"#[Buckets = {_octaves(maximum):12d}, SubBuckets     = {SUB_BUCKETS:12d}]",
    ]
    return "\n".join(lines) + "\n"


def _levels(histogram: Histogram, ticks: int) -> Iterator[tuple[int, float, int]]:
    """Yield value, percentile level and count so far, at the levels of Java's PercentileIterator."""
    used = np.flatnonzero(histogram.counts)
    total = histogram.total_count
    level, so_far, highest = 0.0, 0, 0
    for bucket in used:
        highest = int(bounds()[1][bucket])
        so_far += int(histogram.counts[bucket])
        while 100 * so_far / total >= level:
            yield highest, level, so_far
            if so_far == total:
                break
            half_distance = 2 << int(math.log(100 / (100 - level)) / math.log(2))
            level += 100 / (ticks * half_distance)
    if total:
        yield highest, 100.0, total


def _moments(histogram: Histogram) -> tuple[float, float]:
    """Return mean and standard deviation as HdrHistogram computes them, from the middles of the buckets."""
    used = np.flatnonzero(histogram.counts)
    if not len(used):
        return 0.0, 0.0
    lowest, highest = (ends[used] for ends in bounds())
    # HdrHistogram's "median equivalent value" lies half a bucket above its lowest value, rounded up.
    middles = (lowest + (highest - lowest + 1) // 2).astype(np.float64)
    weights = histogram.counts[used].astype(np.float64)
    mean = float(np.average(middles, weights=weights))
    return mean, float(np.sqrt(np.average((middles - mean) ** 2, weights=weights)))


def _octaves(maximum: int) -> int:
    """Return HdrHistogram's bucket count for values of up to `maximum`: one bucket a doubling beyond 2,047."""
    return max(1, maximum.bit_length() - 10)


def encode(histogram: Histogram) -> str:
    """Return the V2 compressed encoding of a histogram in base64, as in `.hlog` files."""
    used = np.flatnonzero(histogram.counts)
    counts = bytearray()
    next_bucket = 0
    for bucket in map(int, used):
        empty = bucket - next_bucket
        if empty:
            _append_zigzag(counts, 0 if empty == 1 else -empty)
        _append_zigzag(counts, int(histogram.counts[bucket]))
        next_bucket = bucket + 1
    # The layout of the buckets does not depend on the highest trackable value, so that the smallest one that
    # serves keeps readers from allocating for the whole int64 range.
    highest = max(2, int(bounds()[1][used[-1]])) if len(used) else 2
    header = struct.pack(">IIIIqqd", PAYLOAD_COOKIE, len(counts), 0, SIGNIFICANT_FIGURES, 1, highest, 1.0)
    packed = zlib.compress(header + bytes(counts))
    return base64.b64encode(struct.pack(">II", COMPRESSED_COOKIE, len(packed)) + packed).decode("ascii")


def _append_zigzag(out: bytearray, value: int) -> None:
    """Append a signed 64-bit number; the ninth byte, where there is one, holds eight bits."""
    rest = (value << 1 ^ value >> 63) & 0xFFFF_FFFF_FFFF_FFFF
    for _ in range(8):
        if rest < 0x80:
            out.append(rest)
            return
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of a histogram log.

    Attributes
    ----------
    histogram : Histogram
        Values in ns.
    start_ns, end_ns : int
        Nanoseconds since the epoch.
    tag : str
        Distinguishes histograms of one interval; empty for none. Commas and spaces become underscores.
    """

    histogram: Histogram
    start_ns: int
    end_ns: int
    tag: str = ""


def write_log(intervals: Iterable[Interval], stream: TextIO) -> None:
    """Write an `.hlog` with absolute times, to the ms that the format has.

    `Interval_Max` is the largest value of the interval in ms.
    """
    stream.write(f"#[Histogram log format version {LOG_FORMAT_VERSION}]\n")
    for number, interval in enumerate(intervals):
        if number == 0:
            stream.write(f"#[StartTime: {interval.start_ns / _SECOND:.3f} (seconds since epoch)]\n")
            stream.write("#[BaseTime: 0.000 (seconds since epoch)]\n")
            stream.write('"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n')
        used = np.flatnonzero(interval.histogram.counts)
        maximum = int(bounds()[1][used[-1]]) if len(used) else 0
        tag = "_".join(safe_text(interval.tag).replace(",", " ").split())
        stream.write(f"Tag={tag}," if tag else "")
        stream.write(
            f"{interval.start_ns / _SECOND:.3f},{(interval.end_ns - interval.start_ns) / _SECOND:.3f},"
            f"{maximum / MAXIMUM_UNIT_NS:.3f},{encode(interval.histogram)}\n"
        )


RENDERER = HgrmRenderer()
