"""Intervals that assume no shape of the distribution: order statistics within a run, ranks over runs.

References
----------
W. Q. Meeker, G. J. Hahn, L. A. Escobar: Statistical Intervals, 2nd edition, Wiley 2017, section 5.2 (quantiles).
M. Hollander, D. A. Wolfe, E. Chicken: Nonparametric Statistical Methods, 3rd edition, Wiley 2014, sections 3.1 to 3.3
(signed ranks: test, estimator of Hodges and Lehmann, interval of Tukey), 4.1 to 4.3 (rank sums: the same of two).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RankInterval:
    """Two order statistics with a quantile between them.

    Attributes
    ----------
    low, high : int
        Ranks among the sorted values, from 1.
    confidence : float
        What the interval holds exactly for independent values; at least what was asked for.
    """

    low: int
    high: int
    confidence: float


def quantile_ranks(count: int, share: Fraction, confidence: float) -> RankInterval | None:
    """Return the order statistics between which a quantile lies, whatever the distribution.

    Of `count` independent values, the number at or below the quantile is binomial, so that the quantile lies in
    [X(low), X(high)] with at least P(low <= B < high). Each side misses with at most half of what `confidence`
    leaves; for distributions with steps the interval holds more, never less.

    Parameters
    ----------
    count : int
        How many values there are, up to about 10^12.
    share : Fraction
        Of the values at or below the quantile: 99/100 for the 99th percentile; 0 < share < 1.
    confidence : float
        0 < confidence < 1.

    Returns
    -------
    RankInterval or None
        None where even the extreme values do not bound the quantile with this confidence.
    """
    if not 0 < share < 1 or not 0 < confidence < 1:
        raise ValueError("share and confidence lie between 0 and 1")
    if count < 1:
        return None
    first, cumulative = _binomial(count, float(share))
    tail = (1 - confidence) / 2
    # The largest low with P(B < low) <= tail, and the smallest high with P(B >= high) <= tail.
    low = first + int(np.searchsorted(cumulative, tail, "right"))
    high = first + int(np.searchsorted(cumulative, 1 - tail, "left")) + 1
    if low < 1 or high > count:
        return None
    below = float(cumulative[low - 1 - first]) if low > first else 0.0
    return RankInterval(low, high, float(cumulative[high - 1 - first]) - below)


def _binomial(count: int, share: float) -> tuple[int, NDArray[np.float64]]:
    """Return the first number of a window, and P(B <= number) for each in it; beyond it lies less than 1e-20.

    The terms are built up from the mode by their ratios and made to sum to 1, so that no large factorial is needed.
    """
    deviation = math.sqrt(count * share * (1 - share))
    reach = 12 * deviation + 60
    mode = min(count, int((count + 1) * share))
    first, last = max(0, math.floor(mode - reach)), min(count, math.ceil(mode + reach))
    number = np.arange(first, last, dtype=np.float64)
    log_ratio = np.log((count - number) / (number + 1)) + (math.log(share) - math.log1p(-share))
    log_term = np.concatenate([[0.0], np.cumsum(log_ratio)])
    term = np.exp(log_term - log_term.max())
    cumulative = np.cumsum(term)
    return first, cumulative / cumulative[-1]


@dataclass(frozen=True, slots=True)
class ShiftInterval:
    """An interval of the centre of differences.

    Attributes
    ----------
    centre : float
        The pseudomedian: the median of all averages of two differences (Hodges and Lehmann).
    low, high : float
        Its interval, both ends included.
    confidence : float
        What the interval holds exactly for continuous symmetric differences; at least what was asked for.
    """

    centre: float
    low: float
    high: float
    confidence: float


def fewest_pairs(confidence: float) -> int:
    """Return how many pairs it takes before any symmetric differences can be bounded with a confidence."""
    # The most extreme outcome has the probability 2^-n on either side; exactly 2^-n may equal half of what is left.
    pairs = 1
    while 2.0**-pairs > (1 - confidence) / 2:
        pairs += 1
    return pairs


def signed_rank_interval(differences: NDArray[np.float64], confidence: float) -> ShiftInterval | None:
    """Return the interval of a centre of symmetry by inverting Wilcoxon's signed-rank test, exactly.

    Where a pair's two members could be exchanged, as the same path two times in random order, differences are symmetric
    about 0 whatever their distribution, and the interval leaves out 0 with at most 1 - confidence. Ties only widen it.

    Parameters
    ----------
    differences : ndarray of float64, shape (pairs,)
        Independent; finite. A few hundred at most: the averages of all two are formed.
    confidence : float

    Returns
    -------
    ShiftInterval or None
        None where there are fewer than `fewest_pairs`.
    """
    pairs = len(differences)
    if pairs < fewest_pairs(confidence):
        return None
    upper = np.triu_indices(pairs)
    averages = np.sort((differences[upper[0]] + differences[upper[1]]) / 2)
    cumulative = signed_rank_distribution(pairs)
    # The largest c with P(T <= c - 1) <= tail; then c averages lie at or below the low end.
    at = int(np.searchsorted(cumulative, (1 - confidence) / 2, "right"))
    return ShiftInterval(
        centre=float(np.median(averages)),
        low=float(averages[at - 1]),
        high=float(averages[-at]),
        confidence=1 - 2 * float(cumulative[at - 1]),
    )


@lru_cache(maxsize=16)
def signed_rank_distribution(pairs: int) -> NDArray[np.float64]:
    """Return P(T <= t) of the signed-rank statistic for t = 0 … pairs (pairs + 1) / 2, where no ranks are tied.

    T is the sum of those of the ranks 1 … pairs whose difference is positive, each with probability 1/2.
    """
    term = np.ones(1)
    for rank in range(1, pairs + 1):
        longer = np.zeros(len(term) + rank)
        longer[: len(term)] = term / 2
        longer[rank:] += term / 2
        term = longer
    cumulative = np.cumsum(term)
    cumulative.flags.writeable = False
    return cumulative


def runs_suffice(one: int, other: int, confidence: float) -> bool:
    """Return whether a shift between so many runs and so many others can be bounded with a confidence at all."""
    return 1 / math.comb(one + other, one) <= (1 - confidence) / 2


def rank_sum_interval(one: NDArray[np.float64], other: NDArray[np.float64], confidence: float) -> ShiftInterval | None:
    """Return the interval of a shift from `one` to `other` by inverting the rank-sum test, exactly.

    Where the two come from the same distribution, whatever it is, the interval leaves out 0 with at most
    1 - confidence. Ties only widen it.

    Parameters
    ----------
    one, other : ndarray of float64, shape (runs,)
        Independent; finite. A hundred or so of each at most: all differences of two are formed.
    confidence : float

    Returns
    -------
    ShiftInterval or None
        None where there are too few, as `runs_suffice` says.
    """
    if not runs_suffice(len(one), len(other), confidence):
        return None
    differences = np.sort(np.subtract.outer(other, one).ravel())
    cumulative = rank_sum_distribution(len(one), len(other))
    # The largest c with P(U <= c - 1) <= tail; then c differences lie at or below the low end.
    at = int(np.searchsorted(cumulative, (1 - confidence) / 2, "right"))
    return ShiftInterval(
        centre=float(np.median(differences)),
        low=float(differences[at - 1]),
        high=float(differences[-at]),
        confidence=1 - 2 * float(cumulative[at - 1]),
    )


@lru_cache(maxsize=16)
def rank_sum_distribution(one: int, other: int) -> NDArray[np.float64]:
    """Return P(U <= u) of Mann and Whitney's statistic for u = 0 … one * other, where no values are tied.

    U is the rank sum of `one` of the ranks 1 … one + other, each choice as likely, less its minimum. The
    choices are counted rank by rank; float64 holds their numbers up to about 500 and 500.
    """
    most = one * other
    ways = np.zeros((one + 1, most + 1))
    ways[0, 0] = 1
    for rank in range(1, one + other + 1):
        for chosen in range(min(rank, one), 0, -1):
            # As the chosen-th smallest, this rank stands so far above its minimum.
            above = rank - chosen
            if above <= other:
                ways[chosen, above:] += ways[chosen - 1, : most + 1 - above]
    cumulative = np.cumsum(ways[one]) / math.comb(one + other, one)
    cumulative.flags.writeable = False
    return cumulative


def normal_below(value: float) -> float:
    """Return P(Z <= value) of a standard normal variable."""
    return math.erfc(-value / math.sqrt(2)) / 2


def student_below(value: float, freedom: int) -> float:
    """Return P(T <= value) of Student's t with a whole number of degrees of freedom.

    By the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4.
    """
    angle = math.atan2(abs(value), math.sqrt(freedom))
    square = math.cos(angle) ** 2
    odd = freedom % 2
    term = math.cos(angle) * math.sin(angle) if odd else math.sin(angle)
    total = 0.0
    for at in range(1 + odd, freedom, 2):
        total += term
        term *= at / (at + 1) * square
    inside = 2 / math.pi * (angle + total) if odd else total
    return (1 + math.copysign(inside, value)) / 2


def student_quantile(share: float, freedom: int) -> float:
    """Return the value below which a share of Student's t lies; 0 < share < 1, freedom 1 or more."""
    reach = 1.0
    while student_below(reach, freedom) < max(share, 1 - share):
        reach *= 2
    low, high = -reach, reach
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if student_below(middle, freedom) < share:
            low = middle
        else:
            high = middle
