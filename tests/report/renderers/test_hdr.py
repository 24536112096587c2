"""HdrHistogram's formats, read back by an implementation that is not ours."""

from __future__ import annotations

import base64
import io
import re
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from support.reports import suite_of
from support.streams import START_NS, Frame

from uspcap.analysis.inter_arrival.analysis import InterArrival
from uspcap.frames import TimestampSource
from uspcap.report.renderers.hdr import Interval, encode, percentile_distribution, write_log
from uspcap.stats.histogram import Histogram, bounds

hdrh = pytest.importorskip("hdrh.histogram", reason="hdrhistogram, the independent reader, is not installed")
hdrh_log = pytest.importorskip("hdrh.log", reason="hdrhistogram, the independent reader, is not installed")

VALUES = st.lists(
    st.one_of(st.integers(0, 2_100), st.integers(0, 10**7), st.integers(0, 3_600 * 10**9)), min_size=1, max_size=200
)
ROW = re.compile(r" *(?P<value>\d+\.\d{3}) +(?P<level>[01]\.\d{12}) +(?P<count>\d+)(?: +(?P<inverse>\d+\.\d\d))?")


def recorded(theirs: object) -> list[tuple[int, int]]:
    """Highest equivalent value and count of every bucket in use, as the other implementation iterates."""
    return [
        (item.value_iterated_to, item.count_at_value_iterated_to)
        for item in theirs.get_recorded_iterator()  # type: ignore[attr-defined]
    ]


def buckets(histogram: Histogram) -> list[tuple[int, int]]:
    used = np.flatnonzero(histogram.counts)
    return list(zip(bounds()[1][used].tolist(), histogram.counts[used].tolist(), strict=True))


@given(VALUES)
def test_encoding_decodes_to_the_same_buckets(values: list[int]) -> None:
    histogram = Histogram.from_values(values)
    theirs = hdrh.HdrHistogram.decode(encode(histogram))
    assert recorded(theirs) == buckets(histogram)
    assert theirs.get_total_count() == len(values)
    assert (theirs.significant_figures, theirs.lowest_trackable_value) == (3, 1)


@given(VALUES, st.integers(1, 40))
def test_encoding_carries_large_counts(values: list[int], power: int) -> None:
    histogram = Histogram.from_values(values)
    histogram.counts[histogram.counts > 0] <<= np.uint64(power)
    assert recorded(hdrh.HdrHistogram.decode(encode(histogram))) == buckets(histogram)


@given(VALUES)
def test_percentiles_agree_where_the_rank_is_whole(values: list[int]) -> None:
    # HdrHistogram for Python rounds ranks to the nearest, ours are the smallest that cover the percentile; with a
    # hundred copies of each value, whole percentiles have whole ranks and there is nothing to round.
    histogram = Histogram.from_values(values * 100)
    theirs = hdrh.HdrHistogram.decode(encode(histogram))
    for percentile in (1, 50, 90, 99, 100):
        # The decoded histogram does not know the exact maximum, which caps ours.
        assert theirs.get_value_at_percentile(percentile) == Histogram(histogram.counts).value_at(str(percentile))


def payload(encoded: str | bytes) -> bytes:
    return zlib.decompress(base64.b64decode(encoded)[8:])


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=60))
def test_payload_is_byte_for_byte_that_of_the_other_implementation(values: list[int]) -> None:
    histogram = Histogram.from_values(values)
    # One empty bucket alone is a 0 for Java, as for us, and a run of 1 there; readers take both.
    assume(1 not in np.diff(np.flatnonzero(histogram.counts), prepend=-1) - 1)
    theirs = hdrh.HdrHistogram(1, max(2, buckets(histogram)[-1][0]), 3)
    for value in values:
        theirs.record_value(value)
    assert payload(encode(histogram)) == payload(theirs.encode())


def test_an_empty_histogram_encodes() -> None:
    assert hdrh.HdrHistogram.decode(encode(Histogram())).get_total_count() == 0


def rows_of(text: str) -> list[tuple[float, float, int]]:
    lines = text.splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"] and not lines[1]
    matches = [ROW.fullmatch(line) for line in lines[2:-3]]
    assert all(matches)
    return [(float(m["value"]), float(m["level"]), int(m["count"])) for m in matches if m]


@given(VALUES)
def test_distribution_rows_agree_with_the_histogram(values: list[int]) -> None:
    histogram = Histogram.from_values(values)
    in_order = sorted(values)
    rows = rows_of(percentile_distribution(histogram))
    levels = [level for _, level, _ in rows]
    assert levels == sorted(levels) and levels[0] == 0 and levels[-1] == 1
    for value, level, count in rows:
        # Counting by hand: so many are not above the value, and they are enough for the level.
        assert sum(one <= value for one in in_order) == count
        assert count >= level * len(values) - 1e-6
    assert rows[-1][2] == len(values)


@given(VALUES)
def test_distribution_ends_with_the_figures_of_the_other_implementation(values: list[int]) -> None:
    histogram = Histogram.from_values(values)
    theirs = hdrh.HdrHistogram.decode(encode(histogram))
    footer = percentile_distribution(histogram).splitlines()[-3:]
    mean, deviation = (float(number) for number in re.findall(r"= +([\d.]+)", footer[0]))
    assert mean == pytest.approx(theirs.get_mean_value(), abs=0.001)
    assert deviation == pytest.approx(theirs.get_stddev(), rel=1e-6, abs=0.01)
    maximum, total = (float(number) for number in re.findall(r"= +([\d.]+)", footer[1]))
    assert (maximum, total) == (theirs.get_max_value(), len(values))
    assert [int(number) for number in re.findall(r"= +(\d+)", footer[2])] == [
        theirs.bucket_count,
        theirs.sub_bucket_count,
    ]


def test_distribution_halves_the_distance_with_the_ticks_asked_for() -> None:
    text = percentile_distribution(Histogram.from_values(range(1, 1025)), ticks_per_half_distance=1, unit_ns=10)
    assert rows_of(text)[:4] == [(0.1, 0.0, 1), (51.2, 0.5, 512), (76.8, 0.75, 768), (89.6, 0.875, 896)]
    assert rows_of(text)[-1] == (102.4, 1.0, 1024)


def test_distribution_of_nothing_has_only_its_frame() -> None:
    assert rows_of(percentile_distribution(Histogram())) == []


@pytest.mark.parametrize("arguments", [{"ticks_per_half_distance": 0}, {"unit_ns": 0}])
def test_distribution_refuses_steps_of_nothing(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        percentile_distribution(Histogram.from_values([1]), **arguments)


def test_logs_are_read_by_the_other_implementation(tmp_path: Path) -> None:
    histograms = [Histogram.from_values(values) for values in ([5, 70, 900_000], [1, 1, 2], [])]
    start = 1_700_000_000_250_000_000
    intervals = [
        Interval(one, start + at * 10**9, start + (at + 1) * 10**9, tag)
        for at, (one, tag) in enumerate(zip(histograms, ("FILE", "", "a, b"), strict=True))
    ]
    path = tmp_path / "x.hlog"
    with path.open("w") as stream:
        write_log(intervals, stream)
    text = path.read_text()
    assert text.startswith("#[Histogram log format version 1.3]\n#[StartTime: 1700000000.250 ")
    assert "\nTag=FILE,1700000000.250,1.000,0.900,HISTFAAAA" in text
    assert "\nTag=a_b,1700000002.250,1.000,0.000,HISTFAAAA" in text
    reader = hdrh_log.HistogramLogReader(str(path), hdrh.HdrHistogram(1, 10**9, 3))
    try:
        for histogram in histograms:
            assert recorded(reader.get_next_interval_histogram()) == buckets(histogram)
        assert reader.get_next_interval_histogram() is None
    finally:
        reader.close()


def test_a_log_of_nothing_says_its_version() -> None:
    stream = io.StringIO()
    write_log([], stream)
    assert stream.getvalue() == "#[Histogram log format version 1.3]\n"


def test_histograms_of_an_analysis_are_those_of_its_result() -> None:
    kinds = (TimestampSource.KERNEL, TimestampSource.HARDWARE)
    frames = [Frame(START_NS + 331 * at * at, 60, 1, kinds[at % 3 == 0]) for at in range(500)]
    analysis = suite_of(frames).analyses["inter_arrival"]
    assert isinstance(analysis, InterArrival)
    sources = analysis.result()["sources"]
    histograms = analysis.histograms()
    assert list(histograms) == list(sources) == ["HARDWARE", "KERNEL"]
    for name, histogram in histograms.items():
        assert histogram.summary().is_part_of(sources[name])
        decoded = hdrh.HdrHistogram.decode(encode(histogram))
        assert decoded.get_total_count() == sources[name]["count"]
