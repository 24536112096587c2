"""A path against itself is not called different, and a known difference is found: on made-up times.

benchmarks/null_test.py does the same with real readers on veth.
"""

from support.live_outcomes import outcome_of

from uspcap.comparison.statistics import Difference

EXPERIMENTS = 20


def median_of(kinds: tuple[str, str], seed: int, extra_ns: dict[str, float], run_noise: float = 0.1) -> Difference:
    outcome = outcome_of(kinds, seed=seed, extra_ns=extra_ns, run_noise=run_noise)
    assert outcome.comparison is not None
    (row,) = (one for one in outcome.comparison.differences if one.percentile == "50")
    return row


def test_a_path_does_not_differ_from_itself() -> None:
    for kind in ("kernel", "af_xdp"):
        rows = [median_of((kind, kind), seed, {}) for seed in range(EXPERIMENTS)]
        contain = [
            row.low_ns is not None and row.high_ns is not None and row.low_ns <= 0 <= row.high_ns for row in rows
        ]
        assert sum(contain) >= 18
        assert sum(row.verdict != "not distinguishable" for row in rows) <= 1


def test_five_microseconds_more_are_found_within_a_fifth() -> None:
    for seed in range(5):
        row = median_of(("kernel", "kernel"), seed, {"kernel_2": 5_000}, run_noise=0.02)
        assert row.verdict == "a faster"
        assert row.difference_ns is not None
        assert abs(row.difference_ns - 5_000) <= 1_000
