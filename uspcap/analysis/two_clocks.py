"""What analyses of TCP report where bytes were captured after their acknowledgment."""

from __future__ import annotations

SHARE = 0.01
"""Part of the segments from which on times are doubted; a few come out of order from several queues."""


def two_clocks_caveats(after_acknowledgment: int, segments: int, consequence: str) -> list[str]:
    """Return the warning that two directions are not on one clock, if there are signs of that.

    Parameters
    ----------
    after_acknowledgment : int
        Segments with bytes not captured before but acknowledged before.
    segments : int
        Of which these are some.
    consequence : str
        What is wrong then: the end of the sentence.
    """
    if not after_acknowledgment or after_acknowledgment < SHARE * segments:
        return []
    return [
        f"{after_acknowledgment:,} of {segments:,} TCP segments were captured after the acknowledgment of their bytes: "
        f"the two directions are not on one clock, or were not captured in order; then {consequence}"
    ]
