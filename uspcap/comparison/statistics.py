"""Which of two paths is faster, by how much, and how sure that is: from one HDR histogram a run, never from raw values.

A run is the replicate, not a frame: frames of one run share a machine state, and follow each other. What is tested is
one number a pair of runs. `docs/statistics.md` has the methods, their sources and their measured coverage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np

from uspcap.errors import UsageError
from uspcap.stats.histogram import ENOUGH_BEYOND, PERCENTILES, enough_for, rank_of
from uspcap.stats.intervals import fewest_pairs, quantile_ranks, signed_rank_interval
from uspcap.stats.resampling import Pooled, PooledDifference
from uspcap.stats.runs import Ranked, Run, grouped, locate

__all__ = [
    "Comparison",
    "Difference",
    "FasterFrame",
    "PercentileInterval",
    "Run",
    "compare_paths",
    "percentile_interval",
]

Verdict = Literal["a faster", "b faster", "not distinguishable", "insufficient n"]

PRIMARY: Final = "50"
"""The percentile that is tested at the full error rate."""

RESAMPLES: Final = 2000
"""Bootstrap samples of runs."""


@dataclass(frozen=True, slots=True)
class PercentileInterval:
    """A percentile of one run, or of one capture, with its interval.

    Attributes
    ----------
    percentile : str
    count : int
        Frames, lost ones included.
    value_ns : int or None
        None where fewer than ten frames lie beyond the percentile, or where it lies among the lost ones.
    low_ns, high_ns : int or None
        Both None where the value is; `high_ns` alone where it lies among lost frames.
    confidence : float or None
        What the interval holds for independent frames; at least what was asked for.
    """

    percentile: str
    count: int
    value_ns: int | None
    low_ns: int | None
    high_ns: int | None
    confidence: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the report's form."""
        return {
            "percentile": self.percentile,
            "count": self.count,
            "value_ns": self.value_ns,
            "low_ns": self.low_ns,
            "high_ns": self.high_ns,
            "confidence": None if self.confidence is None else round(self.confidence, 6),
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """One percentile of path b minus that of path a.

    Attributes
    ----------
    a, b : str
        Paths.
    percentile : str
    verdict : Verdict
    confidence : float
        Of this interval, so that the error rate of its family holds.
    replicates : int
        Pairs that the interval is made of, 0 without one.
    runs_per_replicate : int
        Neighbouring runs that were merged, so that each has ten frames beyond the percentile; 1 mostly.
    difference_ns, low_ns, high_ns : int or None
        The pseudomedian of the pairs' differences and its interval, None where n does not suffice.
    pooled : PooledDifference
        The percentile of all runs' frames together: described, not tested.
    reason : str
        Why n does not suffice, empty otherwise.
    """

    a: str
    b: str
    percentile: str
    verdict: Verdict
    confidence: float
    replicates: int
    runs_per_replicate: int
    difference_ns: int | None = None
    low_ns: int | None = None
    high_ns: int | None = None
    pooled: PooledDifference = field(default_factory=PooledDifference)
    reason: str = ""

    def percent(self, nanoseconds: int | None) -> float | None:
        """Return a difference in per cent of path a's percentile."""
        if nanoseconds is None or not self.pooled.a_ns:
            return None
        return round(100 * nanoseconds / self.pooled.a_ns, 3)

    def as_dict(self) -> dict[str, Any]:
        """Return the report's form."""
        return {
            "a": self.a,
            "b": self.b,
            "percentile": self.percentile,
            "difference_ns": self.difference_ns,
            "low_ns": self.low_ns,
            "high_ns": self.high_ns,
            "verdict": self.verdict,
            "difference_percent": self.percent(self.difference_ns),
            "low_percent": self.percent(self.low_ns),
            "high_percent": self.percent(self.high_ns),
            "confidence": round(self.confidence, 6),
            "replicates": self.replicates,
            "runs_per_replicate": self.runs_per_replicate,
            "pooled": asdict(self.pooled),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class FasterFrame:
    """How likely a frame of one path is faster than a frame of the other, of the same pair of runs.

    Vargha and Delaney's A, turned so that more is faster: P(a < b) + P(a = b) / 2. Equal is what falls into the same
    bucket, and two frames that are both lost.

    Attributes
    ----------
    a, b : str
    probability : float or None
        Of the frame of a; 0.5 where neither is, None where there are no frames to compare.
    low, high : float or None
        Its interval over pairs of runs, None where these are too few.
    tied : float or None
        P(a = b).
    """

    a: str
    b: str
    probability: float | None
    low: float | None
    high: float | None
    tied: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the report's form."""
        rounded = {name: getattr(self, name) for name in ("probability", "low", "high", "tied")}
        return {"a": self.a, "b": self.b} | {
            name: None if value is None else round(value, 6) for name, value in rounded.items()
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """The result of an experiment.

    Attributes
    ----------
    confidence : float
        1 minus the error rate of each family of tests.
    primary : str
        The percentile that makes the first family; the others make the second.
    seed, resamples : int
        Of the pooled intervals.
    differences : tuple of Difference
        For every two paths, and every percentile.
    faster_frames : tuple of FasterFrame
    """

    confidence: float
    primary: str
    seed: int
    resamples: int
    differences: tuple[Difference, ...]
    faster_frames: tuple[FasterFrame, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the report's form."""
        return {
            "differences": [difference.as_dict() for difference in self.differences],
            "faster_frames": [faster.as_dict() for faster in self.faster_frames],
            "statistics": {
                "replicate": "pair of runs",
                "interval": "exact signed-rank interval of the pseudomedian of paired differences",
                "confidence": self.confidence,
                "primary_percentile": self.primary,
                "families": "primary percentile; all others (Bonferroni within each)",
                "pooled_interval": "expanded percentile bootstrap over pairs of runs",
                "seed": self.seed,
                "resamples": self.resamples,
            },
        }


def percentile_interval(run: Run, percentile: str, confidence: float = 0.95) -> PercentileInterval:
    """Return a percentile of one run with its order-statistic interval.

    The interval is exact for independent frames. Frames that follow each other are alike, so that the true interval is
    wider: take it as a lower bound of the uncertainty, and repeat the run to learn more.

    Parameters
    ----------
    run : Run
    percentile : str
        As text, so that 99.999 is exact; more than 0 and less than 100.
    confidence : float
    """
    ranked = Ranked([run])
    nothing = PercentileInterval(percentile, ranked.total, None, None, None, None)
    if not enough_for(percentile, ranked.total):
        return nothing
    ranks = quantile_ranks(ranked.total, Fraction(percentile) / 100, confidence)
    if ranks is None:
        return nothing
    low, value, high = (ranked.ends(rank) for rank in (ranks.low, rank_of(percentile, ranked.total), ranks.high))
    if low is None or value is None:
        return nothing
    lowest, highest = run.latency.lowest_ns, run.latency.highest_ns
    return PercentileInterval(
        percentile,
        ranked.total,
        value[1] if highest is None else min(value[1], highest),
        low[0] if lowest is None else max(low[0], lowest),
        None if high is None else high[1] if highest is None else min(high[1], highest),
        ranks.confidence,
    )


def compare_paths(
    paths: Mapping[str, Sequence[Run]],
    *,
    seed: int,
    percentiles: Sequence[str] = PERCENTILES,
    primary: str = PRIMARY,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare every two paths of an experiment, percentile by percentile.

    Parameters
    ----------
    paths : mapping of str to sequence of Run
        The n-th runs of all paths make a pair: they were made one after the other, as `schedule` orders them.
    seed : int
        Of the bootstrap; the same input and seed give the same result.
    percentiles : sequence of str
    primary : str
        One of them: tested at the full error rate, 1 - confidence for all pairs of paths together. All others, of all
        pairs of paths together, have the same rate again.
    confidence : float
        0.5 to less than 1.
    resamples : int
        At least 200.

    Raises
    ------
    UsageError
        The arguments make no sense, or paths have different numbers of runs.
    """
    if not 0.5 <= confidence < 1 or resamples < 200:
        raise UsageError("an interval needs a confidence of at least 0.5 and below 1, and at least 200 resamples")
    if primary not in percentiles or len(set(percentiles)) != len(percentiles):
        raise UsageError(f"give each percentile once, {primary} among them: not {', '.join(percentiles)}")
    if len(paths) < 2 or len({len(runs) for runs in paths.values()}) != 1 or not all(paths.values()):
        numbers = ", ".join(f"{path} {len(runs)}" for path, runs in paths.items())
        raise UsageError(f"two or more paths need equally many runs each, not {numbers or 'none'}")
    pairs = list(combinations(paths, 2))
    secondary = max(1, len(percentiles) - 1)
    generator = np.random.default_rng(seed)
    differences: list[Difference] = []
    faster: list[FasterFrame] = []
    for a, b in pairs:
        pooled = Pooled(paths[a], paths[b], percentiles, generator, resamples)
        for percentile in percentiles:
            tests = len(pairs) * (1 if percentile == primary else secondary)
            difference = _paired(a, b, paths[a], paths[b], percentile, 1 - (1 - confidence) / tests)
            differences.append(replace(difference, pooled=pooled.difference(percentile, difference.confidence)))
        faster.append(_faster_frame(a, b, paths[a], paths[b], confidence))
    return Comparison(confidence, primary, seed, resamples, tuple(differences), tuple(faster))


def _paired(a: str, b: str, of_a: Sequence[Run], of_b: Sequence[Run], percentile: str, confidence: float) -> Difference:
    """Test one percentile of two paths, by pairs of runs or of groups of runs."""

    def insufficient(reason: str) -> Difference:
        return Difference(a, b, percentile, "insufficient n", confidence, 0, 0, reason=reason)

    fewest = fewest_pairs(confidence)
    if len(of_a) < fewest:
        return insufficient(f"{len(of_a)} pairs of runs, where {confidence:.6g} takes {fewest}")
    for size in range(1, len(of_a) // fewest + 1):
        groups = list(zip(grouped(of_a, size), grouped(of_b, size), strict=True))
        if all(enough_for(percentile, one.total) for group in groups for one in group):
            break
    else:
        needed = math.ceil(ENOUGH_BEYOND / (1 - Fraction(percentile) / 100))
        frames = min(([run.latency.total_count + run.lost for run in runs] for runs in (of_a, of_b)), key=sum)
        return insufficient(
            f"{sum(frames)} frames of a path in {len(frames)} runs, {min(frames)} in the shortest, where it takes "
            f"{fewest} runs, or groups of them, of at least {needed} frames each"
        )
    located = [locate([one for one, _ in groups], percentile), locate([other for _, other in groups], percentile)]
    if located[0] is None or located[1] is None:
        return insufficient(f"the percentile lies among the lost frames of {a if located[0] is None else b}")
    middles = located[1].middles - located[0].middles
    half_width = located[0].half_width + located[1].half_width
    interval = signed_rank_interval(middles, confidence)
    assert interval is not None
    # A value is known to its bucket only.
    low, high = interval.low - half_width, interval.high + half_width
    verdict: Verdict = "a faster" if low > 0 else "b faster" if high < 0 else "not distinguishable"
    return Difference(
        a,
        b,
        percentile,
        verdict,
        confidence,
        len(groups),
        size,
        round(interval.centre),
        math.floor(low),
        math.ceil(high),
    )


def _faster_frame(a: str, b: str, of_a: Sequence[Run], of_b: Sequence[Run], confidence: float) -> FasterFrame:
    """Return how likely a frame of a is faster than one of b, pair by pair of runs."""
    ranked = zip(grouped(of_a, 1), grouped(of_b, 1), strict=True)
    pairs = [_faster_and_tied(one, other) for one, other in ranked if one.total and other.total]
    if not pairs:
        return FasterFrame(a, b, None, None, None, None)
    faster, tied = np.array(pairs).T
    interval = signed_rank_interval(faster, confidence)
    if interval is None:
        return FasterFrame(a, b, float(faster.mean()), None, None, float(tied.mean()))
    return FasterFrame(a, b, interval.centre, interval.low, interval.high, float(tied.mean()))


def _faster_and_tied(one: Ranked, other: Ranked) -> tuple[float, float]:
    """Return P(one < other) + P(equal) / 2, and P(equal), of two runs with frames."""
    below = np.append(0, other.cumulative)
    counts = one.counts.astype(np.float64)
    smaller = below[np.searchsorted(other.buckets, one.buckets, "left")]
    at_most = below[np.searchsorted(other.buckets, one.buckets, "right")]
    every = float(one.total) * other.total
    tied = (float(counts @ (at_most - smaller)) + float(one.lost) * other.lost) / every
    return float(counts @ (other.total - at_most)) / every + tied / 2, tied
