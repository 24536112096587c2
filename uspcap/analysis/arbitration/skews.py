"""Which of two lines leads, and by how much, for the numbers on both."""

from __future__ import annotations

from dataclasses import dataclass

from uspcap.stats.histogram import ENOUGH_BEYOND, Histogram


@dataclass(frozen=True, slots=True)
class Skews:
    """By how much either line leads, for the numbers on both.

    Attributes
    ----------
    first, second : Histogram
        By how much line 0 was first, and line 1.
    ties : int
        How many both brought at once.
    """

    first: Histogram
    ties: int
    second: Histogram

    @property
    def both(self) -> tuple[Histogram, Histogram]:
        return self.first, self.second

    def value_at(self, percentile: int) -> int | None:
        """Return a percentile, in ns, of the first line's timestamps less the second's.

        None where fewer than `ENOUGH_BEYOND` values lie beyond it.
        """
        ahead, behind = self.first.total_count, self.second.total_count
        count = ahead + self.ties + behind
        if min(percentile, 100 - percentile) * count < 100 * ENOUGH_BEYOND:
            return None
        rank = max(1, -(-percentile * count // 100))
        if rank <= ahead:
            return -self.first.value_at_rank(ahead - rank + 1)
        return 0 if rank <= ahead + self.ties else self.second.value_at_rank(rank - ahead - self.ties)
