"""Significance of recurring patterns: periodograms, Student's t, and binomial tails.

References
----------
R. A. Fisher, Tests of significance in harmonic analysis, 1929; O. C. de Jager et al., A powerful test for weak periodic
signals with unknown light curve shape in sparse data (the H-test), 1989; W. J. Lentz's continued fractions for the
incomplete beta function, as in DLMF 8.17.22.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

HARMONICS: Final = (1, 2, 4, 8, 16)
"""How many harmonics of a period are added up, each number of them being a trial."""

GRID: Final = 16
"""Trial frequencies in a step of the periodogram."""

FEWEST_CYCLES: Final = 8
"""A period must recur so often in the counts."""

SLOTS_A_PERIOD: Final = 32
"""A period must be at least so many slots long: what is faster folds back by no more than 3 % of its amplitude."""

FEWEST_COHERENT: Final = 0.1
"""Share of the frames that must keep to a period; more than anything that folds back."""

SIGNIFICANCE: Final = 1e-6
"""Chance of a period where there is none, at most, all trials together."""

LOWEST_NOISE: Final = 0.1
"""What noise is taken for at least, in parts of that of random arrivals: what is exactly regular has none, and what
slots and taper make of it would stand out of nothing."""

_MOST_AT_ONE_SCALE: Final = 12
_HALF_WIDTHS: Final = (16, 256)
_LOWEST_TRIAL: Final = 2


@dataclass(frozen=True, slots=True)
class Line:
    """A period found in a series of counts.

    Attributes
    ----------
    cycles : float
        How often it recurs in the series.
    log_chance : float
        Natural logarithm of the chance of as strong a one by noise, before the number of trials is taken into account.
    harmonics : int
        Harmonics added up.
    coherence : float
        |sum of c exp(-2 pi i f t)| / sum of c at the strongest harmonic below the fold: 1 where every frame comes at
        the same phase.
    dispersion : float
        Variance over mean of the counts in each period: 1 where frames come at random, 0 where as many come in each.
    """

    cycles: float
    log_chance: float
    harmonics: int
    coherence: float
    dispersion: float


def trials(slots: int) -> int:
    """Return how many periods are tried in a series of that many slots."""
    return max(slots // SLOTS_A_PERIOD - _LOWEST_TRIAL, 0) * GRID * len(HARMONICS)


def find_lines(counts: NDArray[np.uint64], log_threshold: float) -> list[Line]:
    """Return the periods in counts by slot that are stronger than noise, in the order of their strength.

    The counts are tapered (Hann); each ordinate of their periodogram is divided by what its neighbourhood suggests (the
    median of those around it, over ln 2, at least `LOWEST_NOISE`), so that noise of any colour is flat. The ratio to
    the mean of n exponentials has the tail (1 + x/n)^-n; -ln of that tail is exponential again, and the sum over H
    harmonics is a gamma variable.

    Parameters
    ----------
    counts : ndarray of uint64, shape (n,)
    log_threshold : float
        `log_chance` that counts as a period, negative.
    """
    whole = counts.astype(np.float64)
    slots = len(whole)
    last = slots // SLOTS_A_PERIOD
    if last <= FEWEST_CYCLES or not whole.any():
        return []
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(slots) / slots)
    tapered = np.fft.rfft((whole - whole.mean()) * taper)
    power = tapered.real**2 + tapered.imag**2
    scores = _whitened(power, LOWEST_NOISE * float(whole @ taper**2))
    shares = np.abs(np.fft.rfft(whole)) / whole.sum()
    grid = np.arange(_LOWEST_TRIAL * GRID, last * GRID + 1)
    lines: list[Line] = []
    for _ in range(_MOST_AT_ONE_SCALE):
        chances, harmonics = _log_chances(scores, grid)
        if chances.min() > log_threshold:
            break
        best = int(np.argmin(chances))
        at = _fundamental(scores, shares[: last + 1], grid, best, int(harmonics[best]), log_threshold)
        cycles = grid[at] / GRID
        coherence = 0.0
        below = np.arange(1, max(min(int(harmonics[at]), int(last / cycles)), 1) + 1) * cycles
        # Between two ordinates at most 36 % of the amplitude is lost: what is weaker there is not looked at closely.
        if max(shares[below.astype(int)].max(), shares[below.astype(int) + 1].max()) >= 0.6 * FEWEST_COHERENT:
            coherence, step = _coherence(whole, cycles, int(harmonics[at]), last)
            cycles += step
        chance = max(float(chances[at]), _least_chance(whole, float(cycles), int(harmonics[at])))
        if cycles >= FEWEST_CYCLES and coherence >= FEWEST_COHERENT and chance <= log_threshold:
            dispersion = _dispersion(whole, float(cycles))
            lines.append(Line(float(cycles), chance, int(harmonics[at]), coherence, dispersion))
        _mask(scores, cycles)
    return lines


def _fundamental(
    scores: NDArray[np.float64],
    shares: NDArray[np.float64],
    grid: NDArray[np.int64],
    best: int,
    harmonics: int,
    log_threshold: float,
) -> int:
    """Return the trial frequency that the best one is a multiple of: the lowest whose own harmonics are there.

    The multiples of a pulse train's frequency may be as strong as itself. Harmonics that slots hardly resolve fold back
    to multiples of lower frequencies, too: some harmonic below the fold that is no multiple of the best one must
    have a share of the frames (`shares`).
    """
    for part in range(min(HARMONICS[-1], int(grid[best]) // int(grid[0])), 1, -1):
        nearest = round(int(grid[best]) / part)
        for trial in (nearest, nearest - 1, nearest + 1):
            at = trial - int(grid[0])
            if at < 0:
                continue
            own = [number for number in range(1, part * harmonics) if number % part][: HARMONICS[-1]]
            places = (trial * np.array(own) + GRID // 2) // GRID
            places = places[places < len(scores)]
            if shares[places[places < len(shares)]].max(initial=0) < 0.6 * FEWEST_COHERENT:
                continue
            total = np.array([scores[places].sum()])
            # Most of them must be there: a few that another period has are not enough.
            if (scores[places] > 5).mean() > 0.5 and log_gamma_tail(max(len(places), 1), total)[0] <= log_threshold:
                return at
    return best


def _whitened(power: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return -ln of the chance of each ordinate, given those around it: exponential with mean 1 for noise.

    The level of noise is `least` at least, which is above 0.
    """
    size = len(power)
    narrow, wide = _HALF_WIDTHS
    halves = np.clip(np.arange(size) // 2, narrow, wide)
    level = np.empty(size)
    degrees = np.empty(size)
    for half in np.unique(halves).tolist():
        rows = np.flatnonzero(halves == half)
        first, last = int(rows[0]), int(rows[-1])
        padded = np.pad(power[max(first - half, 1) : last + half + 1], (max(half + 1 - first, 0), 0), mode="reflect")
        padded = np.pad(padded, (0, max(last + half + 1 - size, 0)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)[: len(rows)]
        every = max(half // 16, 1)
        level[rows] = np.repeat(np.median(windows[::every], axis=1), every)[: len(rows)] / math.log(2)
        # A median of n is worth a mean of n ln(2)^2, and neighbours of a tapered series are not independent.
        degrees[rows] = (2 * half + 1) / 4
    ratio = power / np.maximum(level, least)
    scores: NDArray[np.float64] = degrees * np.log1p(ratio / degrees)
    scores[0] = 0
    return scores


def _log_chances(scores: NDArray[np.float64], grid: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return for each trial frequency the minimum chance over the numbers of harmonics, and that number."""
    total = np.zeros(len(grid))
    best = np.zeros(len(grid))
    number = np.ones(len(grid), np.int64)
    for harmonic in range(1, HARMONICS[-1] + 1):
        places = (grid * harmonic + GRID // 2) // GRID
        total += np.where(places < len(scores), scores[np.minimum(places, len(scores) - 1)], 0)
        if harmonic in HARMONICS:
            chance = log_gamma_tail(harmonic, total)
            better = chance < best
            best[better] = chance[better]
            number[better] = harmonic
    return best, number


def log_gamma_tail(shape: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ln P(X > x) of a gamma variable of whole shape and scale 1, for each x.

    P(X > x) is exp(-x) times the first `shape` terms of the series of exp(x), here by Horner's rule: no term is
    negative, and the largest, x^15 / 15!, is finite for any x below 10^20.
    """
    series = np.ones(len(values))
    for power in range(shape - 1, 0, -1):
        series *= values
        series /= power
        series += 1
    result: NDArray[np.float64] = np.log(series) - values
    return np.minimum(result, 0)


def _coherence(counts: NDArray[np.float64], cycles: float, harmonics: int, last: int) -> tuple[float, float]:
    """Return the share of the counts that keep to a period, at its strongest harmonic below the fold.

    Returns
    -------
    tuple of float
        The share, and by how many cycles the frequency at which it is largest is off the one given.
    """
    used = np.flatnonzero(counts)
    weights = counts[used]
    steps = np.arange(-GRID, GRID + 1) / (2 * GRID * harmonics)
    strongest, best = 0.0, 0.0
    for harmonic in range(1, harmonics + 1):
        if harmonic * cycles > last and harmonic > 1:
            break
        turns = np.outer((cycles + steps) * harmonic / len(counts), used)
        angles = 2 * np.pi * (turns % 1)
        sums = np.hypot(np.cos(angles) @ weights, np.sin(angles) @ weights)
        share = float(sums.max() / weights.sum())
        if share > strongest:
            strongest, best = share, float(steps[int(np.argmax(sums))])
    return strongest, best


def _least_chance(counts: NDArray[np.float64], cycles: float, harmonics: int) -> float:
    """Return ln of the minimum chance that so few bursts can show: that all come at the phase of the first by chance.

    Counts within one period's part that the harmonics resolve are one burst; bursts of unequal size count as fewer
    equal ones.
    """
    used = np.flatnonzero(counts)
    bursts = np.bincount((used * (cycles * harmonics / len(counts))).astype(np.int64), weights=counts[used])
    number = float(bursts.sum() ** 2 / (bursts**2).sum())
    return -(number - 1) * math.log(max(harmonics, math.e))


def _dispersion(counts: NDArray[np.float64], cycles: float) -> float:
    """Return the variance over the mean of the counts in each period, of windows in whose middle they peak."""
    used = np.flatnonzero(counts)
    turns = used * (cycles / len(counts))
    angles = 2 * np.pi * (turns % 1)
    peak = math.atan2(float(np.sin(angles) @ counts[used]), float(np.cos(angles) @ counts[used])) / (2 * math.pi)
    windows = np.floor(turns - peak + 0.5).astype(np.int64)
    frames = np.bincount(windows - windows[0], weights=counts[used])
    return float(frames.var() / frames.mean())


def _mask(scores: NDArray[np.float64], cycles: float) -> None:
    """Mask a period and its harmonics, as wide as the taper spreads them."""
    for harmonic in range(1, int(len(scores) / cycles) + 1):
        place = harmonic * cycles
        spread = 2 + min(harmonic / GRID, cycles / 4)
        scores[max(int(place - spread), 0) : int(place + spread) + 2] = 0


def t_tail(t: float, degrees: int) -> float:
    """Return P(T > t) of Student's t with so many degrees of freedom, for t of 0 or more."""
    if t <= 0:
        return 0.5
    if math.isinf(t):
        return 0.0
    return 0.5 * _incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t))


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b)."""
    if x >= (a + 1) / (a + b + 2):
        return 1.0 - _incomplete_beta(b, a, 1 - x) if x < 1 else 1.0
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 300):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + numerator * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + numerator / c
            c = c if abs(c) > tiny else tiny
            value *= d * c
        if abs(d * c - 1) < 1e-12:
            break
    return math.exp(log_front) * value / a


def log_binomial_tail(hits: int, number: int, chance: float) -> float:
    """Return ln P(X >= hits) of a binomial variable."""
    if hits <= 0:
        return 0.0
    many = np.arange(hits, number + 1)
    logs = np.array(
        [math.lgamma(number + 1) - math.lgamma(one + 1) - math.lgamma(number - one + 1) for one in many.tolist()]
    )
    logs = logs + many * math.log(chance) + (number - many) * math.log1p(-chance)
    highest = float(logs.max())
    return min(highest + math.log(float(np.exp(logs - highest).sum())), 0.0)
