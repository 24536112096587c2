"""Schedules from rates and from capture files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import pcap_of
from support.streams import Frame

from uspcap.errors import CaptureFileError, UsageError
from uspcap.probe.schedules import at_rate, like


@given(st.fractions(Fraction(1, 1000), 10**9, max_denominator=10**6))
def test_a_constant_rate_sends_that_many_frames_a_second(rate: Fraction) -> None:
    times = at_rate(rate, "constant", 0).times.take(300).tolist()
    assert times == [int(at * 10**9 / rate) for at in range(300)]


def test_schedules_say_what_they_are() -> None:
    assert at_rate(Fraction(5, 2), "constant", 7).about == {"kind": "constant", "rate_per_s": 2.5}
    assert at_rate(Fraction(10), "poisson", 7).about == {"kind": "poisson", "rate_per_s": 10.0, "seed": 7}


@pytest.mark.parametrize(
    ("rate", "seed"),
    [(Fraction(0), 0), (Fraction(10**9 + 1), 0), (Fraction(1, 10**7), 0), (Fraction(10), -1), (Fraction(10), 1 << 64)],
)
def test_rates_and_seeds_out_of_range_are_refused(rate: Fraction, seed: int) -> None:
    with pytest.raises(UsageError):
        at_rate(rate, "poisson", seed)


def capture(path: Path, *timestamps: int) -> str:
    path.write_bytes(pcap_of([Frame(timestamp, 60, 0) for timestamp in timestamps]))
    return str(path)


def test_the_timing_of_captures_is_taken_over_exactly(tmp_path: Path) -> None:
    first = capture(tmp_path / "first.pcap", 10**18, 10**18 + 5, 10**18 + 3, 10**18 + 1_000_007)
    second = capture(tmp_path / "second.pcap", 10**18 + 2_000_000)
    schedule = like([first, second])
    assert schedule.times.take(10).tolist() == [0, 5, 5, 1_000_007, 2_000_000]
    assert schedule.about == {
        "kind": "like",
        "files": [first, second],
        "frames": 5,
        "without_timestamp": 0,
        "backwards": 1,
    }


def test_captures_without_frames_or_with_damage_give_no_schedule(tmp_path: Path) -> None:
    with pytest.raises(CaptureFileError, match="no frame with a timestamp"):
        like([capture(tmp_path / "empty.pcap")])
    cut = Path(capture(tmp_path / "cut.pcap", 1, 2))
    cut.write_bytes(cut.read_bytes()[:-3])
    with pytest.raises(CaptureFileError, match=r"cut.pcap: byte \d+: "):
        like([str(cut)])
    with pytest.raises(CaptureFileError):
        like([str(tmp_path / "nosuch.pcap")])
