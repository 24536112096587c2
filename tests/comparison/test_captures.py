"""Two captures matched frame by frame: answers that are known, and a dictionary that says the same."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import dpkt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.two_captures import START_NS, Clock, Sent, tcp, udp, write_capture, write_pair

from uspcap.comparison.captures import Comparison, DelaySeries, Settings, compare_captures
from uspcap.comparison.matching import KIND_MATCHED
from uspcap.errors import CaptureFileError, NotACaptureFile

MS = 1_000_000


def payload(number: int) -> bytes:
    return number.to_bytes(8, "big") * 3


def compared(a: Path, b: Path, **settings: Any) -> tuple[Comparison, dict[int, tuple[int, int]]]:
    """Compare, and return B's frame to A's frame and the delay as well."""
    pairs: dict[int, tuple[int, int]] = {}

    def matched(events: np.ndarray, delays_ns: np.ndarray) -> None:
        assert (events["kind"] == KIND_MATCHED).all()
        columns = (events["frame"].tolist(), events["partner_frame"].tolist(), delays_ns.tolist())
        pairs.update({b_frame: (a_frame, delay) for b_frame, a_frame, delay in zip(*columns, strict=True)})

    return compare_captures(str(a), str(b), Settings(**settings), matched=matched), pairs


frames_sent = st.lists(
    st.tuples(
        st.integers(0, 3 * MS),  # since the frame before
        st.lists(st.integers(0, 5 * MS), max_size=3).map(tuple),
        st.booleans(),
    ),
    min_size=1,
    max_size=60,
)


@given(drawn=frames_sent, shift_ns=st.sampled_from([0, 0, -2 * MS, 40 * MS]))
def test_everything_that_was_done_on_the_way_is_found(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[int, tuple[int, ...], bool]], shift_ns: int
) -> None:
    time_ns = 0
    sent = []
    for number, (step_ns, delays_ns, in_a) in enumerate(drawn):
        time_ns += step_ns
        sent.append(Sent(time_ns, payload(number), delays_ns, in_a))
    # What neither side has is no frame; copies of what A lacks would be taken for two frames of B only.
    sent = [one for one in sent if one.in_a or len(one.delays_ns) == 1]
    if not any(one.in_a for one in sent) or not any(one.delays_ns for one in sent):
        return
    a, b, truth = write_pair(tmp_path_factory.mktemp("pair"), sent, Clock(shift_ns))
    found, pairs = compared(a, b, clock="same")
    assert (found.only_a, found.only_b, found.duplicate_b) == (truth.only_a, truth.only_b, truth.duplicate_b)
    assert (found.ambiguous_a, found.ambiguous_b, found.duplicate_a) == (0, 0, 0)
    assert found.matched == len(truth.order)
    assert {frame: delay for frame, (_, delay) in pairs.items()} == {
        frame: delay + shift_ns for frame, delay in truth.delays_ns.items()
    }
    delays = [delay for _, delay in pairs.values()]
    assert int(found.delays.negative.sum()) == sum(delay < 0 for delay in delays)
    if delays:
        assert (found.delays.lowest_ns, found.delays.highest_ns) == (min(delays), max(delays))
        assert found.delays.sum_ns == sum(delays)
    arrived = [pairs[frame][0] for frame in sorted(pairs)]
    assert arrived == truth.order
    assert found.reordering.reordered == sum(number < max(arrived[:at], default=0) for at, number in enumerate(arrived))


def test_offset_and_drift_come_back_within_the_stated_bound(tmp_path: Path) -> None:
    random_delays = random.Random(3)
    least_ns = 20_000
    for offset_ns, drift_ppb in ((0, 0.0), (37_000_000_000, 0.0), (-5_000_000_000, 45_000.0), (250 * MS, -18_000.0)):
        sent = [
            Sent(number * 500_000, payload(number), (least_ns + int(random_delays.expovariate(1 / 3000)),))
            for number in range(4000)
        ]
        clock = Clock(offset_ns, drift_ppb)
        a, b, truth = write_pair(tmp_path, sent, clock)
        found, pairs = compared(a, b, clock="offset")
        assert found.matched == 4000
        fit = found.fit
        assert fit is not None
        times = np.array([START_NS + one.time_ns for one in sent], np.int64)
        true_line = np.array([clock.of(one.time_ns + least_ns) - one.time_ns for one in sent], np.int64)
        assert np.abs(fit.at(times) - true_line).max() <= fit.bound_ns
        assert fit.bound_ns < 2000
        assert abs(fit.drift_ppb - drift_ppb) * 2 <= 2 * fit.bound_ns
        # What is left is the delay above the minimum, within the same bound.
        left = {frame: delay for frame, (_, delay) in pairs.items()}
        worst = max(abs(left[frame] - (delay - least_ns)) for frame, delay in truth.delays_ns.items())
        assert worst <= fit.bound_ns + 1
        assert min(left.values()) >= 0


def test_clocks_that_are_close_are_taken_for_one_and_others_are_not(tmp_path: Path) -> None:
    sent = [Sent(number * MS, payload(number), (5000 + number,)) for number in range(300)]
    for offset_ns, mode in ((0, "same"), (99 * MS, "same"), (101 * MS, "offset"), (-37_000_000_000, "offset")):
        a, b, _ = write_pair(tmp_path, sent, Clock(offset_ns))
        found, _ = compared(a, b)
        assert (found.clock, found.matched) == (mode, 300)
        assert found.first_difference_ns is not None
        assert abs(found.first_difference_ns - offset_ns - 5150) <= 1


@pytest.mark.parametrize("drift_ppb", [50_000.0, -3_000.0, 0.0])
def test_drift_of_clocks_that_are_taken_for_one_is_detected(tmp_path: Path, drift_ppb: float) -> None:
    delays = random.Random(4)
    sent = [Sent(number * MS, payload(number), (1 * MS + int(delays.expovariate(1 / 3000)),)) for number in range(4000)]
    a, b, _ = write_pair(tmp_path, sent, Clock(0, drift_ppb))
    found, _ = compared(a, b)
    assert found.clock == "same"
    drift = found.series.drift()
    if not drift_ppb:
        assert drift is None
    else:
        assert drift is not None
        assert drift.ppb == pytest.approx(drift_ppb, rel=0.05)
        assert drift.rise_ns == pytest.approx(4 * drift_ppb, rel=0.05)


@pytest.mark.parametrize("seed", range(20))
def test_queue_that_wanders_is_no_drift(seed: int) -> None:
    steps = np.random.default_rng(seed).normal(0, 1000, 1000)
    series = DelaySeries()
    series.update(START_NS + MS * np.arange(1000), (10 * MS + np.cumsum(steps)).astype(np.int64))
    assert series.drift() is None


def test_few_stretches_say_nothing_of_a_drift() -> None:
    series = DelaySeries()
    series.update(START_NS + MS * np.arange(15), 1000 * np.arange(15))
    assert series.drift() is None


def test_offset_that_is_known_serves_where_the_captures_begin_far_apart(tmp_path: Path) -> None:
    # B begins a minute and many frames later, on a clock an hour ahead.
    sent = [Sent(number * MS, payload(number), (5000,) if number >= 300_000 else ()) for number in range(301_000)]
    a, b, _ = write_pair(tmp_path, sent, Clock(3600 * 10**9))
    found, _ = compared(a, b, offset_ns=3600 * 10**9, clock="same")
    assert (found.matched, found.only_a, found.only_b) == (1000, 300_000, 0)


def test_drift_of_an_hour_stays_within_a_short_window(tmp_path: Path) -> None:
    sent = [Sent(number * 36 * MS, payload(number), (5000,)) for number in range(100_000)]
    a, b, _ = write_pair(tmp_path, sent, Clock(0, 50_000.0))
    found, _ = compared(a, b, clock="offset", window_ns=150 * MS)
    assert found.matched == 100_000
    assert found.fit is not None
    assert abs(found.fit.drift_ppb - 50_000) < 1


def test_repeats_are_matched_in_order_only_where_both_sides_have_as_many(tmp_path: Path) -> None:
    same = b"heartbeat"
    duplicated = [Sent(0, same), Sent(MS, same), Sent(500 * MS, b"other")]
    a, b, _ = write_pair(tmp_path, duplicated)
    found, pairs = compared(a, b)
    assert (found.matched, found.ambiguous_a) == (3, 0)
    assert {frame: number for frame, (number, _) in pairs.items()} == {1: 1, 2: 2, 3: 3}
    # One of three is lost, and nobody can tell which.
    lost = [Sent(0, same), Sent(MS, same, ()), Sent(2 * MS, same), Sent(500 * MS, b"other")]
    a, b, _ = write_pair(tmp_path, lost)
    found, pairs = compared(a, b)
    assert (found.matched, found.ambiguous_a, found.ambiguous_b, found.only_a) == (1, 3, 2, 0)
    # Apart by more than the window, each stands alone.
    apart = [Sent(0, same), Sent(200 * MS, same, ()), Sent(400 * MS, same)]
    a, b, _ = write_pair(tmp_path, apart)
    found, pairs = compared(a, b)
    assert (found.matched, found.only_a, found.ambiguous_a) == (2, 1, 0)


def test_endless_repeats_are_given_up_and_the_rest_is_matched(tmp_path: Path) -> None:
    sent = []
    for number in range(3000):
        sent += [Sent(number * MS, b"again"), Sent(number * MS + 1000, payload(number))]
    a, b, _ = write_pair(tmp_path, sent)
    found, pairs = compared(a, b)
    assert (found.matched, found.ambiguous_a, found.ambiguous_b) == (3000, 3000, 3000)
    assert {delay for _, delay in pairs.values()} == {1000}
    # Memory is that of a window, not of the capture.
    assert found.frames_kept < 900


def test_duplicates_of_either_side_are_counted_and_the_first_copy_is_the_frame(tmp_path: Path) -> None:
    frames = [(START_NS + number * MS, udp(payload(number))) for number in range(20)]
    duplicated = sorted([*frames, *((timestamp + 700, data) for timestamp, data in frames[5:8])])
    write_capture(tmp_path / "once.pcap", [(timestamp + 100, data) for timestamp, data in frames])
    write_capture(tmp_path / "duplicated.pcap", duplicated)
    found, pairs = compared(tmp_path / "duplicated.pcap", tmp_path / "once.pcap")
    assert (found.matched, found.duplicate_a, found.duplicate_b, found.only_a) == (20, 3, 0, 0)
    assert {delay for _, delay in pairs.values()} == {100}


def dictionary(a: Path, b: Path) -> list[tuple[int, int]]:
    """Match by a plain dictionary on payload bytes, and return delays by B's frame number."""
    times = {}
    with a.open("rb") as file:
        for timestamp, data in dpkt.pcap.Reader(file):
            times[bytes(dpkt.ethernet.Ethernet(data).data.data.data)] = timestamp
    found = []
    with b.open("rb") as file:
        for number, (timestamp, data) in enumerate(dpkt.pcap.Reader(file), 1):
            key = bytes(dpkt.ethernet.Ethernet(data).data.data.data)
            if key in times:
                found.append((number, round((timestamp - times[key]) * 10**9)))
    return found


@pytest.mark.parametrize("key", ["network", "payload"])
def test_a_dictionary_on_payloads_finds_the_same(tmp_path: Path, key: str) -> None:
    chance = random.Random(8)
    sent = []
    for number in range(5000):
        lost, missing = chance.random() < 0.01, chance.random() < 0.01
        sent.append(Sent(number * 20_000, payload(number), () if lost else (chance.randrange(90_000),), not missing))
    a, b, _ = write_pair(tmp_path, [one for one in sent if one.in_a or one.delays_ns])
    found, pairs = compared(a, b, key=key)
    expected = dictionary(a, b)
    assert sorted((frame, delay) for frame, (_, delay) in pairs.items()) == expected
    assert found.matched == len(expected)


def test_keys_see_what_they_are_said_to_see(tmp_path: Path) -> None:
    def both(left: bytes, right: bytes, key: str) -> int:
        write_capture(tmp_path / "a.pcap", [(START_NS, left)])
        write_capture(tmp_path / "b.pcap", [(START_NS + 5, right)])
        return compared(tmp_path / "a.pcap", tmp_path / "b.pcap", key=key)[0].matched

    text = payload(1)
    routed = udp(text, ttl=3, tos=1, vlan=9, mac=4)
    assert [both(udp(text), routed, key) for key in ("network", "payload", "whole", "fields")] == [1, 1, 0, 1]
    other_id = udp(text, ip_id=5)
    assert [both(udp(text), other_id, key) for key in ("network", "payload", "whole", "fields")] == [0, 1, 0, 0]
    changed = udp(text[:-1] + b"!")
    assert [both(udp(text), changed, key) for key in ("network", "payload", "whole", "fields")] == [0, 0, 0, 1]
    segment = tcp(text, 1)
    assert [both(segment, tcp(text, 1, ttl=9), key) for key in ("network", "payload", "fields")] == [1, 1, 1]
    assert [both(segment, tcp(text, 2), key) for key in ("network", "payload", "fields")] == [0, 1, 0]
    # Padding of a short frame is none of the frame's.
    padded = udp(b"x")[:-1] + b"\xff"
    assert [both(udp(b"x"), padded, key) for key in ("network", "payload", "whole")] == [1, 1, 0]


def test_frames_without_what_the_key_asks_for_are_counted(tmp_path: Path) -> None:
    frames = [(START_NS, tcp(b"", 1)), (START_NS + 1, tcp(b"data", 1))]
    write_capture(tmp_path / "a.pcap", frames)
    write_capture(tmp_path / "b.pcap", frames)
    found, _ = compared(tmp_path / "a.pcap", tmp_path / "b.pcap", key="payload")
    assert (found.matched, found.a.without_digest, found.b.without_digest, found.a.frames) == (1, 1, 1, 1)


def test_filter_holds_for_both_sides(tmp_path: Path) -> None:
    frames = [(START_NS, tcp(b"a", 1)), (START_NS + 1, udp(b"b"))]
    write_capture(tmp_path / "a.pcap", frames)
    write_capture(tmp_path / "b.pcap", frames)
    found, pairs = compared(tmp_path / "a.pcap", tmp_path / "b.pcap", expression="udp")
    assert (found.matched, found.a.frames, found.b.frames) == (1, 1, 1)
    assert pairs == {2: (2, 0)}


def test_missing_file_leaves_no_thread_behind(tmp_path: Path) -> None:
    write_capture(tmp_path / "a.pcap", [(START_NS, udp(b"a"))])
    (tmp_path / "b.pcap").write_bytes(b"no capture")
    with pytest.raises(NotACaptureFile):
        compare_captures(str(tmp_path / "a.pcap"), str(tmp_path / "b.pcap"), Settings())
    with pytest.raises(CaptureFileError):
        compare_captures(str(tmp_path / "a.pcap"), str(tmp_path / "none.pcap"), Settings())
