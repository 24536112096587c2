"""Comparisons on veth in namespaces: accounts that close, paths that are what they are called, nothing left behind."""

import contextlib
import itertools
import socket
import struct
import threading
from dataclasses import replace
from typing import Any

import pytest
from support.live_pairs import ADDRESS, PORT, QUICK, LivePair
from support.path_probes import probe_payload
from support.veth_pairs import HERE, THERE, wait_until

from uspcap.bpf.attach import AttachMode, find_attached
from uspcap.comparison.live.experiment import LiveComparison
from uspcap.errors import CaptureError, HookOccupied, UsageError


def attached(live_pair: LivePair) -> bool:
    with live_pair.here.entered():
        return find_attached(socket.if_nametoindex(HERE)) is not None


@pytest.mark.parametrize("wakeup", ["block", "poll", "epoll", "spin"])
def test_every_frame_of_every_path_is_accounted_for(live_pair: LivePair, wakeup: Any) -> None:
    outcome = live_pair.compare(wakeup=wakeup)
    assert [run.path.name for run in outcome.runs].count("af_xdp") == 2
    assert outcome.placement.design == "block" or len(outcome.placement.cpus) >= 3
    for run in outcome.runs:
        assert run.sent == run.received + run.lost
        assert run.received > 0
        assert sum(run.drops.values()) == run.lost
        assert (run.foreign, run.malformed, run.unrecorded, run.error_number) == (0, 0, 0, 0)
        assert run.kept.frames == run.received
        assert 0 < run.kept.start < run.kept.stop < run.kept.frames
        counted = run.latency.histogram.total_count
        assert counted + run.latency.negative == run.kept.stop - run.kept.start
        for segment in run.segments.values():
            assert segment.missing == 0
            assert segment.histogram.total_count + segment.negative == counted + run.latency.negative
        cost = run.cost
        assert cost.frames == run.received
        assert cost.cpu_ns > 0
        assert (cost.wake_ups == 0) == (wakeup == "spin")
        copied = 64 if run.path.kind == "kernel" else 64 + 42
        assert cost.bytes_copied == copied * run.received
        if run.path.kind == "kernel":
            assert cost.system_calls >= run.received
    counts = outcome.counts
    assert counts.matched == counts.other + counts.off + counts.no_socket + sum(counts.sent)
    assert sum(counts.sent) == sum(run.sent for run in outcome.runs)
    assert outcome.sent is not None
    assert outcome.sent.sent == counts.off + sum(counts.sent)
    assert outcome.comparison is not None
    assert not attached(live_pair)


@pytest.mark.parametrize("design", ["block", "frame"])
def test_round_trips_of_every_frame_are_accounted_for(live_pair: LivePair, design: Any) -> None:
    outcome = live_pair.compare(kinds=("kernel", "af_xdp"), round_trip=True, design=design)
    assert [run.path.name for run in outcome.runs].count("kernel") == 2
    for run in outcome.runs:
        assert run.received > 0
        assert run.sent == run.received + run.lost
        assert sum(run.drops.values()) == run.lost
        assert run.drops["answer lost"] >= 0
        assert run.kept.frames == run.received
        assert run.latency.negative == 0
        total, late, service = (
            one.histogram for one in (run.latency, run.segments["due_to_sent"], run.segments["sent_to_answer"])
        )
        assert total.total_count == late.total_count == service.total_count == run.kept.stop - run.kept.start
        assert total.sum_ns == (late.sum_ns or 0) + (service.sum_ns or 0)
        # There and back again takes more than one way.
        assert (service.lowest_ns or 0) > 1_000
        assert run.cost.bytes_copied == 2 * (64 if run.path.kind == "kernel" else 106) * run.cost.frames
    assert not attached(live_pair)


def test_other_traffic_is_compared_and_reaches_its_application_anyway(live_pair: LivePair) -> None:
    """By somebody else's frames, whose receiver is there as well, on a port that the ring's path leaves to it."""
    port, over = 30001, threading.Event()

    def send() -> None:
        with live_pair.pair.there.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            number = 0
            while not over.wait(0.001):
                sender.sendto(struct.pack(">Q", number) + b"feed" * 20, (ADDRESS, port))
                number += 1
        sent.append(number)

    sent: list[int] = []
    with live_pair.here.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        application.bind(("0.0.0.0", port))
        thread = threading.Thread(target=send)
        thread.start()
        try:
            kinds = ("packet_mmap", "packet_mmap")
            outcome = live_pair.compare(sending=False, other_traffic=True, port=None, kinds=kinds, expression="len<200")
        finally:
            over.set()
            thread.join()
        application.setblocking(False)
        arrived = 0
        with contextlib.suppress(BlockingIOError):
            while application.recv(2048):
                arrived += 1
    assert arrived == sent[0]
    for run in outcome.runs:
        assert run.received > 0
        assert run.sent == run.received + run.lost
        assert (run.lost, run.without_timestamp, run.ambiguous) == (0, 0, 0)
        assert run.latency.negative == 0
        assert run.latency.histogram.total_count == run.kept.stop - run.kept.start > 0


@pytest.mark.parametrize("wakeup", ["block", "spin"])
def test_other_traffic_takes_every_path_where_that_is_allowed(live_pair: LivePair, wakeup: Any) -> None:
    over = threading.Event()

    def send() -> None:
        with live_pair.pair.there.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in itertools.count():
                sender.sendto(struct.pack(">Q", number), (ADDRESS, PORT))
                if over.wait(0.001):
                    return

    thread = threading.Thread(target=send)
    thread.start()
    try:
        outcome = live_pair.compare(sending=False, other_traffic=True, take=True, wakeup=wakeup)
    finally:
        over.set()
        thread.join()
    assert {run.path.name for run in outcome.runs} == {"kernel", "packet_mmap", "af_xdp"}
    for run in outcome.runs:
        assert run.received > 0
        assert run.lost == 0
        assert run.latency.histogram.total_count > 0
    assert outcome.counts.matched == outcome.counts.other + outcome.counts.off + sum(outcome.counts.sent)


def test_paths_at_random_share_the_same_run(live_pair: LivePair) -> None:
    outcome = live_pair.compare(design="frame", rate=3000)
    assert [run.path.name for run in outcome.runs] == ["kernel", "packet_mmap", "af_xdp"] * 2
    first = outcome.runs[:3]
    assert len({run.start_ns for run in first}) == 1
    shares = [run.sent / sum(one.sent for one in first) for run in first]
    assert all(0.1 < share < 0.6 for share in shares)
    for run in outcome.runs:
        assert run.lost == 0
        assert run.foreign == 0
        assert run.drops == dict.fromkeys(run.drops, 0)
        assert run.cost.softirq_ns is None


def test_a_path_is_compared_with_itself(live_pair: LivePair) -> None:
    outcome = live_pair.compare(kinds=("af_xdp", "af_xdp"))
    assert [path.name for path in outcome.paths] == ["af_xdp", "af_xdp_2"]
    assert all(run.lost == 0 and run.received for run in outcome.runs)


def test_known_delay_is_found_in_the_path_that_has_it(live_pair: LivePair) -> None:
    # A millisecond: far beyond whatever else this machine is busy with.
    outcome = live_pair.compare(
        kinds=("kernel", "kernel"), rate=400, runs=7, run_duration_ns=200_000_000, delays_ns={"kernel_2": 1_000_000}
    )
    assert outcome.comparison is not None
    (median,) = (one for one in outcome.comparison.differences if one.percentile == "50")
    assert median.verdict == "a faster"
    assert median.low_ns is not None
    assert median.high_ns is not None
    assert median.low_ns > 0


def test_generic_xdp_serves_where_it_was_asked_for(live_pair: LivePair) -> None:
    outcome = live_pair.compare(modes=(AttachMode.SKB,))
    assert outcome.mode is AttachMode.SKB
    assert all(run.received and run.lost == 0 for run in outcome.runs)


def test_sender_elsewhere_serves_as_well(live_pair: LivePair) -> None:
    stopping = threading.Event()

    def send() -> None:
        with live_pair.pair.there.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            number = 0
            while not stopping.wait(0.001):
                sender.sendto(probe_payload(number, 1_000_000 * number), (ADDRESS, PORT))
                number += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        outcome = live_pair.compare(sending=False)
    finally:
        stopping.set()
        thread.join()
    assert outcome.sent is None
    assert all(run.received for run in outcome.runs)


def test_nothing_is_sent_unless_asked_and_a_silent_interface_is_an_error(live_pair: LivePair) -> None:
    with live_pair.pair.there.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as listener:
        listener.bind((THERE, 3))
        with pytest.raises(CaptureError, match="no probe to UDP port 7000"):
            live_pair.compare(sending=False)
        with pytest.raises(BlockingIOError):
            listener.recv(1, socket.MSG_DONTWAIT)
    assert not attached(live_pair)


def test_other_traffic_alone_is_refused_with_its_reason_and_reaches_the_kernel(live_pair: LivePair) -> None:
    stopping = threading.Event()

    def send() -> None:
        with live_pair.pair.there.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            while not stopping.wait(0.005):
                sender.sendto(b"no probe", (ADDRESS, PORT + 1))

    thread = threading.Thread(target=send)
    with live_pair.here.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((ADDRESS, PORT + 1))
        other.settimeout(5)
        thread.start()
        try:
            with pytest.raises(CaptureError, match="other traffic, which carry no timestamp"):
                live_pair.compare(sending=False)
            assert other.recv(100) == b"no probe"
        finally:
            stopping.set()
            thread.join()


def test_stopping_keeps_the_runs_that_are_over_and_compares_complete_rounds(live_pair: LivePair) -> None:
    with live_pair.here.entered():
        comparison = LiveComparison(live_pair.settings(runs=50))
        seen: list[str] = []

        def progress(said: str) -> None:
            seen.append(said)
            if len(seen) == 5:
                comparison.stop()

        outcome = comparison.run(progress)
    assert outcome.interrupted
    assert 3 <= len(outcome.runs) < 10
    assert {len(outcome.runs_of(path)) for path in outcome.paths} == {1}
    assert not attached(live_pair)


def test_stopping_in_the_first_run_leaves_nothing_to_compare(live_pair: LivePair) -> None:
    with live_pair.here.entered():
        comparison = LiveComparison(live_pair.settings(run_duration_ns=60_000_000_000))
        with pytest.raises(CaptureError, match="nothing to compare"):
            comparison.run(lambda said: threading.Timer(0.2, comparison.stop).start())
    assert not attached(live_pair)


def test_two_comparisons_do_not_meet(live_pair: LivePair) -> None:
    started = threading.Event()
    with live_pair.here.entered():
        first = LiveComparison(live_pair.settings(runs=50))

        def progress(said: str) -> None:
            if said.startswith("run 1 "):
                started.set()

        thread = threading.Thread(target=lambda: first.run(progress))
        thread.start()
        try:
            assert started.wait(20)
            with pytest.raises((HookOccupied, CaptureError)):
                LiveComparison(live_pair.settings(port=PORT + 1, sending=False)).run()
        finally:
            first.stop()
            thread.join()
    assert wait_until(lambda: not attached(live_pair))


def test_order_of_runs_follows_the_seed() -> None:
    def order(seed: int) -> list[str]:
        settings = replace(QUICK, seed=seed, design="block", runs=6)
        return [active[0].name for active in LiveComparison(settings).plan()]

    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(8)}) > 1


def test_namespace_that_is_not_there_is_named(live_pair: LivePair) -> None:
    settings = live_pair.settings()
    assert settings.traffic is not None
    wrong = replace(settings, traffic=replace(settings.traffic, namespace="nowhere"))
    with live_pair.here.entered(), pytest.raises(CaptureError, match="network namespace nowhere"):
        LiveComparison(wrong).run()
    assert not attached(live_pair)


def test_settings_are_checked_first() -> None:
    with pytest.raises(UsageError):
        LiveComparison(replace(QUICK, seed=-1))
