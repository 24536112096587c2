"""Two captures of the same traffic, matched frame by frame."""

from __future__ import annotations

import queue
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from uspcap.bpf.readings import reading_of
from uspcap.comparison.keys import DigestReader, Side, common_limit
from uspcap.comparison.matching import (
    EVENT_DTYPE,
    KIND_AMBIGUOUS,
    KIND_DUPLICATE,
    KIND_MATCHED,
    KIND_ONLY,
    Matcher,
    Stream,
)
from uspcap.comparison.reordering import Reordering
from uspcap.errors import CaptureFileError, UsageError
from uspcap.formats.waking import Wake
from uspcap.saturating import added_ns, difference_ns, exact_sum, median_ns
from uspcap.stages.order import bounds
from uspcap.stages.reading import EVERYTHING, Input, PlannedInput, Reading, captures_among, in_order_of_time, plan
from uspcap.stages.straightening import Straightener
from uspcap.stages.trailer import resolved_trailer, trailer_stage
from uspcap.stages.tunnels import TunnelChoice, choose_tunnels
from uspcap.stats.buckets import BUCKETS, record_many
from uspcap.stats.clock_fit import SLICES, ClockFit, LowerEnvelope
from uspcap.stats.histogram import Histogram
from uspcap.system_errors import reason

if TYPE_CHECKING:
    from uspcap.stages.moments import TimeRange
    from uspcap.timestamps.trailers import TrailerChoice, TrailerStage

ClockMode = Literal["auto", "same", "offset"]

DEFAULT_WINDOW_NS: Final = 100_000_000
"""Longer than any path that is measured one way, shorter than the second after which heartbeats repeat."""

ALIGNMENT_CHUNKS: Final = 8
"""Of each side, looked at for frames that both have before the clocks are taken to be the same."""

WORST: Final = 10
"""Frames with the largest delays that are kept."""

SERIES_BUCKETS: Final = 128
STEADY: Final = 8

DEGREES: Final = (1, 2, 3, 5, 10, 50, 100)
"""n of n-reordering that are reported; 3 is what makes TCP send again (RFC 5681)."""

_SPILL_DTYPE: Final = np.dtype([("a_ns", np.int64), ("difference_ns", np.int64), ("a", np.int64), ("b", np.int64)])
_SPILL_ROWS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Settings:
    """What a comparison is asked for.

    Attributes
    ----------
    key : str
        One of `uspcap.protocols.digests.KEYS`.
    clock : {'auto', 'same', 'offset'}
        Whether both captures were timestamped by one clock. 'auto' takes that for so where frames that both begin with
        differ by no more than the window.
    window_ns : int
        How far apart a frame may be on the two sides.
    offset_ns : int, optional
        B's clock minus A's, where it is known roughly; auto-detected otherwise.
    expression : str
        Filter as of pcap-filter(7), for both.
    trailer : TrailerChoice, optional
        Take timestamps that taps or switches put into the frames, on both sides.
    reading : Reading
        Which frames of the files are compared; a range of time is of A's clock, and B's is `offset_ns` ahead.
    tunnels : bool or None
        Let the innermost headers count, on both sides; None leaves it to the frames.
    outer : bool
        Apply the filter to outer frames, as tcpdump does.
    """

    key: str = "network"
    clock: ClockMode = "auto"
    window_ns: int = DEFAULT_WINDOW_NS
    offset_ns: int | None = None
    expression: str = ""
    trailer: TrailerChoice | None = None
    reading: Reading = EVERYTHING
    tunnels: bool | None = None
    outer: bool = False


@dataclass(slots=True)
class Delays:
    """B's timestamp minus A's, ns.

    Attributes
    ----------
    positive, negative : ndarray of uint64, shape (BUCKETS,)
        Counts of those from 0 on, and of the others by their size.
    sum_ns : int
    lowest_ns, highest_ns : int or None
    """

    positive: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(BUCKETS, np.uint64))
    negative: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(BUCKETS, np.uint64))
    sum_ns: int = 0
    positive_sum_ns: int = 0
    lowest_ns: int | None = None
    highest_ns: int | None = None

    def update(self, delays_ns: NDArray[np.int64]) -> None:
        """Count delays."""
        if not len(delays_ns):
            return
        low, high = int(delays_ns.min()), int(delays_ns.max())
        self.lowest_ns = low if self.lowest_ns is None else min(self.lowest_ns, low)
        self.highest_ns = high if self.highest_ns is None else max(self.highest_ns, high)
        total = exact_sum(delays_ns)
        self.sum_ns += total
        if low >= 0:
            record_many(self.positive, delays_ns)
            self.positive_sum_ns += total
            return
        forward = delays_ns[delays_ns >= 0]
        record_many(self.positive, forward)
        record_many(self.negative, -delays_ns[delays_ns < 0])
        self.positive_sum_ns += exact_sum(forward)

    def histograms(self) -> tuple[Histogram, Histogram]:
        """Return those from 0 on, and the sizes of the others."""
        negative = self.lowest_ns is not None and self.lowest_ns < 0
        return (
            Histogram(
                self.positive,
                sum_ns=self.positive_sum_ns,
                lowest_ns=None if negative else self.lowest_ns,
                highest_ns=self.highest_ns if self.highest_ns is not None and self.highest_ns >= 0 else None,
            ),
            Histogram(self.negative, highest_ns=-self.lowest_ns if negative and self.lowest_ns is not None else None),
        )


@dataclass(frozen=True, slots=True)
class Drift:
    """A line along which the smallest delays lie: its slope, ns a second, and what it comes to from first to last."""

    ppb: float
    rise_ns: int


class DelaySeries:
    """Delay over time: at most `SERIES_BUCKETS` stretches, whose length doubles as the capture goes on."""

    def __init__(self) -> None:
        self._origin_ns = 0
        self._width_ns = 1_000_000
        self._rows: dict[int, list[int]] = {}  # place to count, sum, lowest, highest

    def update(self, times_ns: NDArray[np.int64], delays_ns: NDArray[np.int64]) -> None:
        """Take frames, by A's timestamp."""
        if not len(times_ns):
            return
        if not self._rows:
            self._origin_ns = int(times_ns[0])
        last_ns = int(times_ns.max())
        while last_ns - self._origin_ns >= SERIES_BUCKETS * self._width_ns:
            self._width_ns *= 2
            before, self._rows = self._rows, {}
            for place, row in before.items():
                self._add(place // 2, *row)
        first = max(0, int(times_ns.min()) - self._origin_ns) // self._width_ns
        last = max(0, last_ns - self._origin_ns) // self._width_ns
        for place in range(first, last + 1):
            here = delays_ns if first == last else delays_ns[self._within(times_ns, place)]
            if len(here):
                self._add(place, len(here), exact_sum(here), int(here.min()), int(here.max()))

    def _within(self, times_ns: NDArray[np.int64], place: int) -> NDArray[np.bool_]:
        """Return which times lie within a stretch; what comes before the origin counts to the first."""
        start_ns = self._origin_ns + place * self._width_ns
        before_its_end = times_ns < start_ns + self._width_ns
        return before_its_end & (times_ns >= start_ns) if place else before_its_end

    def _add(self, place: int, count: int, total: int, low: int, high: int) -> None:
        row = self._rows.setdefault(place, [0, 0, low, high])
        row[0] += count
        row[1] += total
        row[2] = min(row[2], low)
        row[3] = max(row[3], high)

    def drift(self) -> Drift | None:
        """Return how the smallest delays rise or fall where they do so along a line; None where they do not.

        They do where what the line comes to is `STEADY` times as much as they stand apart above it: delays at random,
        and a queue whose length wanders at random, stay below 7 (simulated, 4,800 captures of 16 to 1,000 frames).
        """
        places = np.array(sorted(self._rows), np.int64)
        if len(places) < SLICES:
            return None
        times_ns = self._origin_ns + places * self._width_ns
        envelope = LowerEnvelope()
        envelope.update(times_ns, np.array([self._rows[place][2] for place in places.tolist()], np.int64))
        fit = envelope.fit()
        if fit is None:
            return None
        rise_ns = round(fit.drift_ppb * 1e-9 * int(times_ns[-1] - times_ns[0]))
        return Drift(fit.drift_ppb, rise_ns) if abs(rise_ns) > STEADY * fit.bound_ns else None

    def result(self) -> list[dict[str, int]]:
        """Return a row for each stretch in which there was a frame."""
        return [
            {
                "from_ns": self._origin_ns + place * self._width_ns,
                "duration_ns": self._width_ns,
                "count": count,
                "min_ns": low,
                "mean_ns": round(total / count),
                "max_ns": high,
            }
            for place, (count, total, low, high) in sorted(self._rows.items())
        ]


@dataclass(slots=True)
class Pair:
    """One matched frame."""

    a_frame: int
    b_frame: int
    delay_ns: int


@dataclass(slots=True)
class Comparison:
    """What two captures came to.

    Attributes
    ----------
    settings : Settings
    limit : int
        Bytes of each frame that counted.
    a, b : Side
    matched, only_a, only_b, duplicate_a, duplicate_b, ambiguous_a, ambiguous_b : int
        Frames.
    clock : {'same', 'offset'}
        As it was taken.
    fit : ClockFit or None
        Where the clocks are not the same.
    first_difference_ns : int or None
        Median of B's timestamp minus A's of the frames that both captures begin with.
    delays : Delays
    series : DelaySeries
    worst : list of Pair
        Largest delay first.
    reordering : Reordering
    extents : ndarray of uint64, shape (BUCKETS,)
        RFC 4737 extents of reordered frames, in frames.
    longest_extent : int
    degrees : dict of int to int
        Frames that are n-reordered, by n.
    frames_kept : int
        Most frames that were held at a time.
    range_a, range_b : TimeRange or None
        By the clock of each side.
    """

    settings: Settings
    limit: int
    a: Side
    b: Side
    matched: int = 0
    only_a: int = 0
    only_b: int = 0
    duplicate_a: int = 0
    duplicate_b: int = 0
    ambiguous_a: int = 0
    ambiguous_b: int = 0
    clock: str = "same"
    fit: ClockFit | None = None
    first_difference_ns: int | None = None
    delays: Delays = field(default_factory=Delays)
    series: DelaySeries = field(default_factory=DelaySeries)
    worst: list[Pair] = field(default_factory=list)
    reordering: Reordering = field(default_factory=Reordering)
    extents: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(BUCKETS, np.uint64))
    longest_extent: int = 0
    degrees: dict[int, int] = field(default_factory=lambda: dict.fromkeys(DEGREES, 0))
    frames_kept: int = 0
    range_a: TimeRange | None = None
    range_b: TimeRange | None = None


Files = str | Sequence[str | Input]
"""One capture: a file, or several that are read one after the other in the order of their first times."""

Matched = Callable[[NDArray[np.void], NDArray[np.int64]], None]
"""Called with matched pairs, rows of `EVENT_DTYPE` of B's frames, and their delays in ns, in B's order."""

Missed = Callable[[str, NDArray[np.void]], None]
"""Called with frames of side `a` or `b` that are not matched, rows of `EVENT_DTYPE`."""


def compare_captures(
    a: Files,
    b: Files,
    settings: Settings,
    *,
    matched: Matched = lambda pairs, delays_ns: None,
    missed: Missed = lambda side, events: None,
) -> Comparison:
    """Match the frames of two captures, each of which is read once, in step and in bounded memory.

    Where the clocks are not the same, the pairs (32 bytes each) wait in a temporary file for the clocks' line.

    With a range of time, a frame of A counts where it lies in the range, whenever B has it.

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature, FilterError
        A file cannot be read, or the filter does not compile.
    UsageError
        The range of time is empty, or the clocks differ and nobody said how much.
    """
    named = [[one] if isinstance(one, str) else one for one in (a, b)]
    parted = [captures_among([Input(one) if isinstance(one, str) else one for one in side]) for side in named]
    sides = [captures for captures, _ in parted]
    if settings.reading.sorting != "off":
        sides = [in_order_of_time(one, settings.reading) for one in sides]
    with closing(Wake()) as wake, ExitStack() as opened:
        offset_ns = settings.offset_ns or 0
        # Both sides show the same packets, which is why they are compared.
        reading = replace(settings.reading, taps="join")
        planned = plan([*sides[0], *sides[1]], reading, wake, margin_ns=settings.window_ns + abs(offset_ns))
        files = planned.inputs[: len(sides[0])], planned.inputs[len(sides[0]) :]
        choice = _tunnels(settings, files, wake)
        straighteners = _straighteners(files, settings, wake)
        read = [
            given if one is None else tuple(each.planned for each in one.inputs)
            for given, one in zip(files, straighteners, strict=True)
        ]
        straighteners = [one if one is not None and one.is_needed else None for one in straighteners]
        limit = common_limit(planned.inputs, settings.key, tunnels=choice.tunnels)
        ranges = [None if planned.time_range is None else planned.time_range.moved(by, by) for by in (0, offset_ns)]
        reader_a, reader_b = (
            opened.enter_context(
                closing(
                    DigestReader(
                        inputs,
                        settings.key,
                        limit,
                        settings.expression,
                        wake,
                        _trailers(settings, [each_input.path for each_input in inputs]),
                        time_range,
                        straightener,
                        tunnels=choice.tunnels,
                        outer=settings.outer,
                    )
                )
            )
            for inputs, time_range, straightener in zip(read, ranges, straighteners, strict=True)
        )
        window_ns = None if settings.reading.sorting == "off" else bounds(settings.reading.sorting).window_ns
        for side, (_, left_out) in zip((reader_a.side, reader_b.side), parted, strict=True):
            side.problems += left_out
            side.take_choice(choice)
            side.order.window_ns = window_ns
        comparison = Comparison(settings, limit, reader_a.side, reader_b.side, range_a=ranges[0], range_b=ranges[1])
        with _Ahead(reader_a, wake) as ahead_a, _Ahead(reader_b, wake) as ahead_b:
            _Run(comparison, ahead_a, ahead_b, matched, missed).run()
    return comparison


def _tunnels(settings: Settings, sides: Sequence[Sequence[PlannedInput]], wake: Wake) -> TunnelChoice:
    """Return whether tunnels are decoded, on both sides alike."""
    inside = bool(settings.expression.strip()) and reading_of(settings.expression, outer=settings.outer).name == "inner"
    return choose_tunnels(*sides, asked=settings.tunnels, looks_inside=inside, wake=wake)


def _straighteners(
    sides: Sequence[Sequence[PlannedInput]], settings: Settings, wake: Wake
) -> list[Straightener | None]:
    """Return what puts each side in order of time, None where its order is to be left alone."""
    if settings.reading.sorting == "off":
        return [None for _ in sides]
    with ThreadPoolExecutor(thread_name_prefix="order") as pool:
        try:
            looking = [pool.submit(Straightener, inputs, settings.reading.sorting, wake) for inputs in sides]
            return [one.result() for one in looking]
        except BaseException:
            wake.set()
            raise


def _trailers(settings: Settings, paths: Sequence[str]) -> TrailerStage | None:
    """Return what takes timestamps out of a capture's frames; the format is detected where it is not named."""
    return None if settings.trailer is None else trailer_stage(resolved_trailer(settings.trailer, paths))


class _Ahead:
    """Reads a capture in a thread of its own, some chunks ahead."""

    def __init__(self, reader: DigestReader, wake: Wake) -> None:
        self._reader = reader
        self._wake = wake
        self._chunks: queue.Queue[Stream | BaseException | None] = queue.Queue(4)
        self._looked_at: list[Stream] = []
        self.ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _Ahead:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._wake.set()
        while self._thread.is_alive():
            try:
                self._chunks.get(timeout=0.05)
            except queue.Empty:
                continue

    def _read(self) -> None:
        try:
            for stream in self._reader.streams():
                if self._wake.is_set:
                    return
                self._chunks.put(stream)
            self._chunks.put(None)
        except BaseException as error:
            self._chunks.put(error)

    def look_ahead(self) -> Stream | None:
        """Return a further chunk, which `next` will give again; None where there is none."""
        stream = self._receive()
        if stream is not None:
            self._looked_at.append(stream)
        return stream

    def next(self) -> Stream | None:
        """Return the next chunk; None where there is none."""
        return self._looked_at.pop(0) if self._looked_at else self._receive()

    def _receive(self) -> Stream | None:
        if self.ended:
            return None
        received = self._chunks.get()
        if isinstance(received, BaseException):
            raise received
        self.ended = received is None
        return received


_NOTHING: Final = (np.empty(0, np.uint64), np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint32))


class _Run:
    """One comparison while it goes on."""

    def __init__(self, comparison: Comparison, a: _Ahead, b: _Ahead, matched: Matched, missed: Missed) -> None:
        self._into = comparison
        self._a, self._b = a, b
        self._tell_matched, self._tell_missed = matched, missed
        self._envelope = LowerEnvelope()

    def run(self) -> None:
        into = self._into
        into.first_difference_ns = self._align()
        offset_ns = into.settings.offset_ns
        if offset_ns is None:
            offset_ns = into.first_difference_ns or 0
        within = abs(offset_ns) <= into.settings.window_ns
        if into.range_a is not None and into.settings.offset_ns is None and not within:
            raise UsageError(
                f"the clocks differ by about {offset_ns} ns, and --from and --to are of A's clock: confirm it with "
                f"--offset {offset_ns}ns"
            )
        into.clock = ("same" if within else "offset") if into.settings.clock == "auto" else into.settings.clock
        same = into.clock == "same"
        if same and into.settings.offset_ns is None:
            offset_ns = 0
        self._matcher = Matcher(into.settings.window_ns, offset_ns)
        with tempfile.TemporaryFile() as spill:
            self._spill = None if same else spill
            self._match()
            if not same:
                self._second_pass(spill)
        into.frames_kept = self._matcher.widest
        if into.range_b is not None:
            # A matched frame counts where A's counts, near the ends of the range, too.
            into.b.frames = into.matched + into.only_b + into.duplicate_b + into.ambiguous_b

    def _align(self) -> int | None:
        """Return the median difference of timestamps of frames that both captures begin with."""
        seen: tuple[list[NDArray[Any]], ...] = ([], [], [], [])
        for _ in range(ALIGNMENT_CHUNKS):
            more = False
            for side, ahead in enumerate((self._a, self._b)):
                stream = ahead.look_ahead()
                if stream is not None:
                    more = True
                    digests, timestamps = stream.columns
                    seen[2 * side].append(digests)
                    seen[2 * side + 1].append(timestamps)
            if not seen[0] or not seen[2]:
                return None
            timestamps_a, timestamps_b = _common(*(np.concatenate(columns) for columns in seen))
            if len(timestamps_a):
                return median_ns(difference_ns(timestamps_b, timestamps_a))
            if not more:
                break
        return None

    def _match(self) -> None:
        matcher = self._matcher
        streams: list[Stream | None] = [self._a.next(), self._b.next()]
        nothing = Stream(*_NOTHING)
        while streams != [None, None]:
            a, b = (nothing if one is None else one for one in streams)
            matcher.feed(a, b, streams[0] is None, streams[1] is None)
            self._take_events()
            for side, ahead in enumerate((self._a, self._b)):
                stream = streams[side]
                if stream is not None and stream.used_up:
                    streams[side] = ahead.next()
        matcher.finish()
        self._take_events()

    def _take_events(self) -> None:
        into = self._into
        missed_a = _counting(self._matcher.take_missed(0), "timestamp_ns", into.range_a)
        missed_b = _counting(self._matcher.take_missed(1), "timestamp_ns", into.range_b)
        into.only_a += _count(missed_a, KIND_ONLY)
        into.duplicate_a += _count(missed_a, KIND_DUPLICATE)
        into.ambiguous_a += _count(missed_a, KIND_AMBIGUOUS)
        into.only_b += _count(missed_b, KIND_ONLY)
        into.duplicate_b += _count(missed_b, KIND_DUPLICATE)
        into.ambiguous_b += _count(missed_b, KIND_AMBIGUOUS)
        for side, missed in (("a", missed_a), ("b", missed_b)):
            if len(missed):
                self._tell_missed(side, missed)
        pairs = _counting(self._matcher.take_pairs(), "partner_timestamp_ns", into.range_a)
        if not len(pairs):
            return
        into.matched += len(pairs)
        self._reorder(pairs)
        times_ns = np.ascontiguousarray(pairs["partner_timestamp_ns"])
        differences_ns = difference_ns(pairs["timestamp_ns"], times_ns)
        if self._spill is None:
            self._take_delays(pairs["partner_frame"], pairs["frame"], times_ns, differences_ns)
            self._tell_matched(pairs, differences_ns)
            return
        self._envelope.update(times_ns, differences_ns)
        # The clocks drift apart; the window goes with them.
        self._matcher.offset_ns = median_ns(differences_ns[-1000:])
        rows = np.empty(len(pairs), _SPILL_DTYPE)
        rows["a_ns"], rows["difference_ns"] = times_ns, differences_ns
        rows["a"], rows["b"] = pairs["partner_frame"], pairs["frame"]
        try:
            self._spill.write(rows.tobytes())
        except OSError as error:
            raise CaptureFileError(
                f"cannot keep {into.matched} pairs in a temporary file in {tempfile.gettempdir()}: {reason(error)}; "
                "set TMPDIR to a directory with more space"
            ) from error

    def _reorder(self, pairs: NDArray[np.void]) -> None:
        into = self._into
        # Numbers are in the order in which A was sent, unless its frames were put in order of time.
        by = "partner_frame" if not into.a.put_in_order else "partner_timestamp_ns"
        late = into.reordering.update(np.ascontiguousarray(pairs[by]))
        if len(late):
            record_many(into.extents, np.ascontiguousarray(late["extent"]))
            into.longest_extent = max(into.longest_extent, int(late["extent"].max()))
            for degree in DEGREES:
                into.degrees[degree] += int(np.count_nonzero(late["degree"] >= degree))

    def _take_delays(
        self,
        frames_a: NDArray[np.int64],
        frames_b: NDArray[np.int64],
        times_ns: NDArray[np.int64],
        delays_ns: NDArray[np.int64],
    ) -> None:
        into = self._into
        into.delays.update(delays_ns)
        into.series.update(times_ns, delays_ns)
        least = into.worst[-1].delay_ns if len(into.worst) == WORST else None
        rows = np.arange(len(delays_ns)) if least is None else np.flatnonzero(delays_ns > least)
        if len(rows) > WORST:
            rows = rows[np.argpartition(delays_ns[rows], -WORST)[-WORST:]]
        for row in rows.tolist():
            into.worst.append(Pair(int(frames_a[row]), int(frames_b[row]), int(delays_ns[row])))
        into.worst.sort(key=lambda pair: (-pair.delay_ns, pair.b_frame))
        del into.worst[WORST:]

    def _second_pass(self, spill: Any) -> None:
        """Subtract the clocks' line from the differences; the rest is delay above the minimum."""
        into = self._into
        fit = self._envelope.fit()
        if fit is None:
            return
        # The line is that of the smallest difference of each stretch of time; with the drift, others may be lower.
        lowest = min(int(difference_ns(rows["difference_ns"], fit.at(rows["a_ns"])).min()) for rows in _spilled(spill))
        into.fit = fit = fit.lowered(min(lowest, 0))
        for rows in _spilled(spill):
            times_ns = np.ascontiguousarray(rows["a_ns"])
            delays_ns = difference_ns(rows["difference_ns"], fit.at(times_ns))
            self._take_delays(rows["a"], rows["b"], times_ns, delays_ns)
            pairs = np.zeros(len(rows), EVENT_DTYPE)
            pairs["frame"], pairs["partner_frame"] = rows["b"], rows["a"]
            pairs["partner_timestamp_ns"] = times_ns
            pairs["timestamp_ns"] = added_ns(times_ns, rows["difference_ns"])
            pairs["kind"] = KIND_MATCHED
            self._tell_matched(pairs, delays_ns)


def _spilled(spill: Any) -> Iterator[NDArray[np.void]]:
    """Yield what was put into the temporary file, from its beginning."""
    spill.seek(0)
    while data := spill.read(_SPILL_ROWS * _SPILL_DTYPE.itemsize):
        yield np.frombuffer(data, _SPILL_DTYPE)


def _counting(events: NDArray[np.void], field_name: str, time_range: TimeRange | None) -> NDArray[np.void]:
    """Return the events whose time lies in the range that was asked for."""
    return events if time_range is None else events[time_range.holds(events[field_name])]


def _count(events: NDArray[np.void], kind: int) -> int:
    return int(np.count_nonzero(events["kind"] == kind))


def _common(
    digests_a: NDArray[np.uint64],
    timestamps_a: NDArray[np.int64],
    digests_b: NDArray[np.uint64],
    timestamps_b: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the timestamps of the frames whose digest is there once on each side."""
    found = []
    for digests in (digests_a, digests_b):
        values, first, counts = np.unique(digests, return_index=True, return_counts=True)
        found.append((values[counts == 1], first[counts == 1]))
    (once_a, rows_a), (once_b, rows_b) = found
    _, at_a, at_b = np.intersect1d(once_a, once_b, assume_unique=True, return_indices=True)
    return timestamps_a[rows_a[at_a]], timestamps_b[rows_b[at_b]]
