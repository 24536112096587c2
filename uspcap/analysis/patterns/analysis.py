"""Recurring patterns: periods in the arrivals, busier phases of the second, and flows with heartbeats."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.bursts.loop import sources_in
from uspcap.analysis.patterns.loop import (
    BEAT_TRACK_DTYPE,
    PHASE_BINS,
    PHASE_PERIODS_NS,
    SCALE_COUNT,
    Arrivals,
    gap_bounds,
    join_beats,
    track_beats,
)
from uspcap.analysis.patterns.result import BusyPhase, Heartbeat, PatternsResult, Period, Phases
from uspcap.analysis.patterns.significance import (
    FEWEST_CYCLES,
    GRID,
    SIGNIFICANCE,
    find_lines,
    log_binomial_tail,
    t_tail,
    trials,
)
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.flows import FlowRows, FlowTable
from uspcap.records import table

MAXIMUM_BEATS: Final = 1024
"""Flows whose gaps are followed one by one, 25 kB each; beyond it a sample."""

FEWEST_ARRIVALS: Final = 64
"""Frames that a series of counts must hold before a period is looked for in it."""

FEWEST_PERIODS: Final = 8
"""Seconds, or milliseconds, that a phase must have come by in."""

FEWEST_GAPS: Final = 5
"""Gaps of a flow that may be a heartbeat."""

MOST_REGULAR: Final = 0.5
"""Variance over mean of the frames a period up to which frames come with that period, even where it is a clock's tick:
at random as many as that, or none, come in each."""

REGULAR_SHARE: Final = 0.8
"""Share of a flow's gaps that must lie close together."""

BEAT_SIGNIFICANCE: Final = 1e-3
"""Chance that any flow is called a heartbeat where frames come at random, at most."""

_SPREAD: Final = 0.02
"""Periods that are so close, as a share, to one found or to its first harmonics are the same."""

_SPREAD_HARMONICS: Final = 16

_WINDOWS: Final = (2, 4, 8, 16)
"""Widths that close together may mean, in buckets of 1/32 octave: 6 % to 50 % of the gap."""

PERIOD_TEST = (
    "counts in slots of 2^10, 2^14, 2^18, 2^22, 2^26 and 2^30 ns or more, 65,536 of each from the first timestamp "
    f"on; a period recurs {FEWEST_CYCLES} times or more and is 32 slots or longer; its harmonics in the tapered "
    "periodogram, over the median around each, are added up (up to 16); p is the chance that noise of any colour gives "
    f"as much at one of all the periods tried, {SIGNIFICANCE:g} or less; at least 10 % of the frames keep to it, and "
    "half as many as to the strongest period"
)

PHASE_TEST = (
    "a bin of the second (100 us) or the millisecond (1 us) counts where its frames a period exceed the mean of all "
    "bins by one-sided t-test over its periods, with at least the spread of Poisson arrivals; p, times the number of "
    f"bins, is {SIGNIFICANCE:g} or less; phases are those of UTC"
)

BEAT_TEST = (
    f"{FEWEST_GAPS} gaps or more, {REGULAR_SHARE:.0%} of them within 6 % to 50 % of one another; p is the chance of "
    f"that for frames at random, times everything tried, {BEAT_SIGNIFICANCE:g} or less; of a flow's shortest frames "
    "where all frames are not regular"
)


@dataclass(frozen=True, slots=True)
class _Period:
    """A period found, and by how much it may be off."""

    period_ns: float
    uncertainty_ns: float

    def explains(self, other: _Period) -> bool:
        """Tell whether the other is this one, or one of its harmonics."""
        number = max(round(self.period_ns / other.period_ns), 1)
        slack = 3 * (self.uncertainty_ns + number * other.uncertainty_ns)
        # A train that jitters or drifts spreads over its neighbourhood.
        if number <= _SPREAD_HARMONICS:
            slack = max(slack, self.period_ns * _SPREAD)
        return slack < self.period_ns / 2 and abs(self.period_ns - number * other.period_ns) <= slack


@dataclass(frozen=True, slots=True)
class _Beat:
    """The regularity of a flow's gaps."""

    period_ns: int
    between_ns: tuple[int, int]
    gaps: int
    regular_gaps: int
    p_value: float


class Patterns(Analysis):
    """Recurring structure, each part with the chance that there is none.

    Parameters
    ----------
    maximum_flows : int
        Bound on the flows whose gaps are followed one by one.
    """

    name = "patterns"

    def __init__(self, *, maximum_flows: int = MAXIMUM_BEATS) -> None:
        super().__init__()
        self._arrivals: dict[int, Arrivals] = {}
        self._flows = FlowTable(maximum_flows)
        self._beats = FlowRows(self._flows, BEAT_TRACK_DTYPE)

    def _of(self, source: int) -> Arrivals:
        if source not in self._arrivals:
            self._arrivals[source] = Arrivals()
        return self._arrivals[source]

    def _update(self, batch: FrameBatch) -> None:
        if not batch.count:
            return
        present = sources_in(batch)
        for source in range(TimestampSource.NONE):
            if present >> source & 1:
                self._of(source).update(batch, source)
        self._flows.assign(batch)
        self._beats.sync()
        track_beats(batch, batch.headers, self._beats.with_spare_rows)

    def _merge(self, later: Patterns) -> None:
        for source, arrivals in later._arrivals.items():
            self._of(source).join(arrivals)
        later._beats.sync()
        ids = self._flows.absorb(later._flows)
        self._beats.sync()
        join_beats(self._beats.rows, ids, later._beats.rows)
        self._flows.forget_absorbed()

    def _periods(self, source: int) -> list[Period]:
        """Return the periods of one timestamp source, longest windows first, each period once."""
        arrivals = self._arrivals[source]
        scales = [arrivals.scale(k) for k in range(SCALE_COUNT)]
        scales = [(width, counts) for width, counts in scales if counts.sum() >= FEWEST_ARRIVALS]
        tried = sum(trials(len(counts)) for _, counts in scales)
        if not tried:
            return []
        threshold = math.log(SIGNIFICANCE / tried)
        found: list[_Period] = []
        rows: list[Period] = []
        for width, counts in reversed(scales):
            for line in find_lines(counts, threshold):
                period_ns = width * len(counts) / line.cycles
                one = _Period(period_ns, period_ns / line.cycles * max(1 / GRID, 0.5 / line.harmonics))
                if any(known.explains(one) for known in found):
                    continue
                if line.dispersion > MOST_REGULAR and _of_the_clock(one, arrivals.divisor_ns):
                    continue
                found.append(one)
                rows.append(
                    Period(
                        source=TimestampSource(source).name,
                        period_ns=round(period_ns),
                        uncertainty_ns=math.ceil(one.uncertainty_ns),
                        frequency_hz=round(1e9 / period_ns, 6),
                        p_value=min(math.exp(line.log_chance) * tried, 1.0),
                        coherence=round(line.coherence, 4),
                        harmonics=line.harmonics,
                        cycles=round(line.cycles, 3),
                        slot_ns=width,
                        window_ns=width * len(counts),
                    )
                )
        strongest = max((row.coherence for row in rows), default=0.0)
        # Bursts of unequal size make noise around each harmonic of their period, the same around all: no period.
        rows = [row for row in rows if row.coherence >= strongest / 2]
        return sorted(rows, key=lambda row: -row.coherence)

    def _phases(self, source: int, clock: int) -> Phases:
        """Return the phases of a second or a millisecond with more frames than chance explains."""
        arrivals = self._arrivals[source]
        period, number = PHASE_PERIODS_NS[clock], PHASE_BINS[clock]
        width = period // number
        frames, visits, squares = arrivals.phase_bins(clock)
        covered = _coverage(arrivals.lowest_ns, arrivals.highest_ns, period, number)
        periods = np.maximum(covered, visits.astype(np.int64))
        why_not: str | None = None
        found: list[BusyPhase] = []
        if arrivals.divisor_ns > width:
            why_not = f"timestamps differ by multiples of {arrivals.divisor_ns} ns"
        elif covered.max() < FEWEST_PERIODS:
            why_not = f"{FEWEST_PERIODS} periods are needed"
        else:
            found = _busier_phases(frames.astype(np.float64), squares, periods, visits, width)
        return Phases(
            source=TimestampSource(source).name,
            period_ns=period,
            bin_ns=width,
            periods=int(covered.max()),
            tested=why_not is None,
            why_not=why_not,
            found=tuple(found),
        )

    def _heartbeats(self) -> tuple[Heartbeat, ...]:
        """Return the flows that beat, the surest first."""
        rows = self._beats.rows
        lowest, highest = gap_bounds()
        chosen: list[tuple[float, int, _Beat, int, bool]] = []
        tracks = int((rows["every"]["frames"] > 0).sum() + (rows["short_ones"]["frames"] > 0).sum())
        for flow in range(len(rows)):
            for kind in ("every", "short_ones"):
                track = rows[flow][kind]
                beat = _regular(track, lowest, highest, tracks)
                if beat is not None:
                    chosen.append((beat.p_value, flow, beat, int(track["frames"]), kind == "short_ones"))
                    break
        chosen.sort(key=lambda one: (one[0], one[1]))
        flows = self._flows.flows(np.array([one[1] for one in chosen], np.int32))
        return tuple(
            Heartbeat(
                flow=str(flow),
                source=flow.timestamp_source.name,
                frames=frames,
                period_ns=beat.period_ns,
                between_ns=beat.between_ns,
                gaps=beat.gaps,
                regular_gaps=beat.regular_gaps,
                regular_share=round(beat.regular_gaps / beat.gaps, 6),
                p_value=beat.p_value,
                frame_bytes=int(rows[row]["shortest"]) - 1 if of_short_ones else None,
                of_all_frames=round(frames / int(rows[row]["every"]["frames"]), 6),
            )
            for flow, (_, row, beat, frames, of_short_ones) in zip(flows, chosen, strict=True)
        )

    def result(self) -> PatternsResult:
        self._beats.sync()
        sources = sorted(self._arrivals)
        return PatternsResult(
            periods=tuple(row for source in sources for row in self._periods(source)),
            period_test=PERIOD_TEST,
            phases=tuple(self._phases(source, clock) for source in sources for clock in range(len(PHASE_BINS))),
            phase_test=PHASE_TEST,
            heartbeats=self._heartbeats(),
            heartbeat_test=BEAT_TEST,
            flows_tracked=len(self._flows),
            sampled_one_in=1 << self._flows.level,
        )

    def tables(self) -> dict[str, Table]:
        result = self.result()
        phases = [(one, phase) for one in result.phases for phase in one.found]
        histograms: dict[str, list[Any]] = {
            "source": [],
            "period_ns": [],
            "start_ns": [],
            "frames": [],
            "periods_hit": [],
        }
        for source in sorted(self._arrivals):
            for clock, period in enumerate(PHASE_PERIODS_NS):
                frames, visits, _ = self._arrivals[source].phase_bins(clock)
                used = np.flatnonzero(frames)
                histograms["source"] += [TimestampSource(source).name] * len(used)
                histograms["period_ns"] += [period] * len(used)
                histograms["start_ns"] += (used * (period // PHASE_BINS[clock])).tolist()
                histograms["frames"] += frames[used].tolist()
                histograms["periods_hit"] += visits[used].tolist()
        of_phases: Table = {
            "source": [one.source for one, _ in phases],
            "period_ns": [one.period_ns for one, _ in phases],
            **table(BusyPhase, (phase for _, phase in phases)),
        }
        return {
            "periods": table(Period, result.periods) if result.periods else {},
            "phases": of_phases if phases else {},
            "heartbeats": table(Heartbeat, result.heartbeats) if result.heartbeats else {},
            "phase_histogram": histograms,
        }


def _of_the_clock(one: _Period, divisor_ns: int) -> bool:
    """Tell whether a period is that of a coarse clock's ticks, or a part of it."""
    if divisor_ns < 1000:
        return False
    return _Period(divisor_ns, 0).explains(one) or abs(one.period_ns - divisor_ns) <= 3 * one.uncertainty_ns


def _coverage(lowest_ns: int, highest_ns: int, period: int, number: int) -> NDArray[np.int64]:
    """Return how often the middle of each bin occurs between two times: ndarray of int64, shape (number,)."""
    width = period // number
    middles = np.arange(number, dtype=np.int64) * width + width // 2
    # Whole periods before each time, taken apart so that nothing leaves 64 bits.
    low, low_phase = divmod(lowest_ns, period)
    high, high_phase = divmod(highest_ns, period)
    covered: NDArray[np.int64] = high - low + (middles <= high_phase).astype(np.int64) - (middles < low_phase)
    return np.maximum(covered, 0)


def _busier_phases(
    frames: NDArray[np.float64],
    squares: NDArray[np.uint64],
    periods: NDArray[np.int64],
    visits: NDArray[np.uint64],
    width: int,
) -> list[BusyPhase]:
    """Return the runs of neighbouring bins that hold more frames than chance has it, most frames first."""
    mean = frames.sum() / max(int(periods.sum()), 1)
    enough = periods >= FEWEST_PERIODS
    each = np.divide(frames, periods, out=np.zeros_like(frames), where=enough)
    spread = squares.astype(np.float64) - frames * each
    variance = np.maximum(np.divide(spread, periods - 1, out=np.zeros_like(frames), where=enough), mean)
    error = np.sqrt(np.divide(variance, periods, out=np.ones_like(frames), where=enough))
    scores = np.where(enough & (each > mean), (each - mean) / np.maximum(error, 1e-300), 0)
    chances = np.ones(len(frames))
    for at in np.flatnonzero(scores > 4).tolist():
        chances[at] = min(t_tail(float(scores[at]), int(periods[at]) - 1) * len(frames), 1.0)
    busy = np.flatnonzero(chances <= SIGNIFICANCE)
    runs = np.split(busy, np.flatnonzero(np.diff(busy) > 1) + 1) if len(busy) else []
    total = frames.sum()
    rows = [
        BusyPhase(
            start_ns=int(run[0]) * width,
            end_ns=(int(run[-1]) + 1) * width,
            frames=int(frames[run].sum()),
            share=round(float(frames[run].sum() / total), 6),
            share_by_chance=round(float(mean * periods[run].sum() / total), 6),
            periods_hit=int(visits[run].max()),
            p_value=float(chances[run].min()),
        )
        for run in runs
    ]
    return sorted(rows, key=lambda row: -row.frames)


def _window_chance(window: int) -> float:
    """Return the most that a window of neighbouring buckets can hold of exponential gaps."""
    ratio = (32 + window) / 32
    at = math.log(ratio) / (ratio - 1)
    return math.exp(-at) - math.exp(-ratio * at)


def _regular(track: Any, lowest: NDArray[np.int64], highest: NDArray[np.int64], tracks: int) -> _Beat | None:
    """Return the regularity of a flow's gaps, None where they are irregular."""
    counts = track["counts"].astype(np.int64)
    gaps = int(counts.sum())
    if gaps < FEWEST_GAPS:
        return None
    # The first and the last bucket have no bounds of their own.
    inner, sums = counts[1:-1], track["sums"][1:-1]
    best: tuple[float, int, int] | None = None
    for window in _WINDOWS:
        totals = np.convolve(inner, np.ones(window, np.int64), "valid")
        at = int(np.argmax(totals))
        if totals[at] >= REGULAR_SHARE * gaps:
            chance = log_binomial_tail(int(totals[at]), gaps, _window_chance(window))
            if best is None or chance < best[0]:
                best = (chance, at, window)
    if best is None:
        return None
    chance, at, window = best
    p_value = min(math.exp(chance) * len(inner) * len(_WINDOWS) * tracks, 1.0)
    if p_value > BEAT_SIGNIFICANCE:
        return None
    used = np.flatnonzero(inner[at : at + window]) + at
    regular = int(inner[used].sum())
    return _Beat(
        period_ns=round(int(sums[used].sum()) / regular),
        between_ns=(int(lowest[1 + used[0]]), int(highest[1 + used[-1]])),
        gaps=gaps,
        regular_gaps=regular,
        p_value=p_value,
    )
