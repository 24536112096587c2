"""Whole runs on loopback: what is sent is answered, and what is not is counted."""

from __future__ import annotations

import socket
import threading
import time
from fractions import Fraction

import pytest
from support.probes import ANSWER, decode, reflecting
from support.veth_pairs import wait_until

from uspcap.errors import CaptureError
from uspcap.probe.endpoints import Endpoint, parse_endpoint
from uspcap.probe.probe_sockets import WAKEUPS
from uspcap.probe.reflecting import Reflection, ReflectOutcome, ReflectSettings
from uspcap.probe.schedules import at_rate
from uspcap.probe.sending import ProbeRun, SendOutcome, SendSettings, utc_ahead_ns

LOOPBACK = Endpoint("127.0.0.1", 0)


@pytest.mark.parametrize("wakeup", WAKEUPS)
def test_every_frame_is_answered_once_and_its_times_are_in_order(wakeup: str) -> None:
    with reflecting(ReflectSettings(LOOPBACK, wakeup=wakeup)) as (address, reflected):
        schedule = at_rate(Fraction(2_000), "poisson", 5)
        settings = SendSettings(parse_endpoint(address), schedule, frames=300, size=100, wakeup=wakeup)
        outcome = ProbeRun(settings).run()
    (there,) = reflected
    assert isinstance(there, ReflectOutcome)
    assert (there.answered, there.unanswered, there.foreign) == (300, 0, 0)
    assert outcome.failure is None
    assert (outcome.scheduled, outcome.sent, outcome.unsent, outcome.lost) == (300, 300, 0, 0)
    answers = outcome.answers
    assert answers is not None
    assert (answers.answered, answers.late, answers.duplicate, answers.foreign, answers.malformed) == (300, 0, 0, 0, 0)
    assert outcome.lateness.total_count == answers.response.total_count == answers.service.total_count == 300
    # Each answer's time since it was due is its time since it was sent, and how late that was.
    sums = [one.sum_ns for one in (answers.response, answers.service, outcome.lateness)]
    assert sums[0] == (sums[1] or 0) + (sums[2] or 0)
    # The kernel has an answer before the application, and the reflector's part is within the round trip.
    assert answers.kernel.total_count + answers.without_timestamp == 300
    if answers.without_timestamp == 0:
        assert (answers.kernel.sum_ns or 0) <= (answers.service.sum_ns or 0)
        assert (answers.residence.sum_ns or 0) <= (answers.service.sum_ns or 0)


def test_lost_duplicate_and_reordered_answers_are_distinguished() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(10)

        def answer_in_a_way() -> None:
            held: list[tuple[bytes, object]] = []
            for _ in range(10):
                data, source = there.recvfrom(1000)
                held.append((data, source))
            # 3 is lost, 5 is duplicated, 8 overtakes 7.
            for number in (0, 1, 2, 4, 5, 5, 6, 8, 7, 9):
                data, source = held[number]
                there.sendto(decode(data)._replace(kind=ANSWER).wire(len(data)), source)  # type: ignore[arg-type]

        thread = threading.Thread(target=answer_in_a_way)
        thread.start()
        target = Endpoint(*there.getsockname())
        settings = SendSettings(target, at_rate(Fraction(1_000), "constant", 0), frames=10, patience_ns=500_000_000)
        outcome = ProbeRun(settings).run()
        thread.join()
    answers = outcome.answers
    assert answers is not None
    assert (outcome.sent, answers.answered, outcome.lost, answers.late) == (10, 9, 1, 0)
    assert (answers.duplicate, answers.reordered) == (1, 1)


def test_an_answer_that_takes_too_long_is_late_not_lost() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(10)

        def answer_the_first_after_the_last() -> None:
            first, source = there.recvfrom(1000)
            second, _ = there.recvfrom(1000)
            for data in (second, first):
                there.sendto(decode(data)._replace(kind=ANSWER).wire(), source)

        thread = threading.Thread(target=answer_the_first_after_the_last)
        thread.start()
        # The second frame goes 2 s after the first, which by then has waited longer than 1.5 s.
        schedule = at_rate(Fraction(1, 2), "constant", 0)
        settings = SendSettings(Endpoint(*there.getsockname()), schedule, frames=2, patience_ns=1_500_000_000)
        outcome = ProbeRun(settings).run()
        thread.join()
    assert outcome.answers is not None
    assert (outcome.answers.answered, outcome.answers.late, outcome.lost) == (1, 1, 0)
    assert outcome.answers.response.total_count == 1


@pytest.mark.parametrize("patience_ns", [60_000_000_000, 200_000_000])
def test_frames_that_were_not_waited_for_are_pending_and_not_lost(patience_ns: int) -> None:
    """The first 20 of a run are answered, the others are not; the user ends it in the middle."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(10)

        def answer() -> None:
            for _ in range(20):
                data, source = there.recvfrom(1000)
                there.sendto(decode(data)._replace(kind=ANSWER).wire(len(data)), source)

        answering = threading.Thread(target=answer)
        answering.start()
        schedule = at_rate(Fraction(200), "constant", 0)
        run = ProbeRun(SendSettings(Endpoint(*there.getsockname()), schedule, patience_ns=patience_ns))
        outcomes: list[SendOutcome] = []
        running = threading.Thread(target=lambda: outcomes.append(run.run()))
        running.start()
        answering.join()
        time.sleep(1)
        run.stop()
        running.join(5)  # ten times what is promised
    (outcome,) = outcomes
    assert outcome.answers is not None
    assert outcome.failure is None
    assert outcome.answers.answered == 20
    assert outcome.sent == 20 + outcome.lost + outcome.pending
    if patience_ns > 10**10:
        assert outcome.lost == 0
    else:
        # Of what was sent in the last 0.2 s nobody knows, and of as much before as lies between two notes.
        assert outcome.lost > 0
        assert outcome.pending <= 200


def closed_port() -> Endpoint:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as away:
        away.bind(("127.0.0.1", 0))
        return Endpoint(*away.getsockname())


def test_a_reflector_that_is_not_there_is_said_in_one_sentence() -> None:
    target = closed_port()
    settings = SendSettings(target, at_rate(Fraction(1_000), "constant", 0), frames=20, patience_ns=100_000_000)
    outcome = ProbeRun(settings).run()
    assert (outcome.sent, outcome.lost) == (20, 20)
    assert isinstance(outcome.failure, CaptureError)
    assert f"nothing listens at {target}" in str(outcome.failure)
    assert "no answer to 20 frames" in str(outcome.failure)


def test_no_answer_at_all_is_reported_as_such() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        target = Endpoint(*mute.getsockname())
        settings = SendSettings(target, at_rate(Fraction(1_000), "constant", 0), frames=5, patience_ns=100_000_000)
        outcome = ProbeRun(settings).run()
        assert len([mute.recv(100) for _ in range(5)]) == 5
    assert f"no answer from {target} to 5 frames" in str(outcome.failure)
    one_way = SendSettings(closed_port(), at_rate(Fraction(1_000), "constant", 0), frames=5, answers=False)
    assert ProbeRun(one_way).run().failure is None


def test_stop_ends_an_endless_run_and_waits_for_what_is_on_its_way() -> None:
    with reflecting(ReflectSettings(LOOPBACK)) as (address, _):
        run = ProbeRun(SendSettings(parse_endpoint(address), at_rate(Fraction(500), "constant", 0)))
        outcomes = []
        thread = threading.Thread(target=lambda: outcomes.append(run.run()))
        thread.start()
        assert wait_until(lambda: run._sender is not None and run._sender.sent > 10)
        run.stop()
        thread.join(30)
    (outcome,) = outcomes
    assert outcome.failure is None
    assert outcome.sent > 10
    assert outcome.lost == 0


def test_stop_before_the_start_sends_nothing() -> None:
    run = ProbeRun(SendSettings(closed_port(), at_rate(Fraction(500), "constant", 0)))
    run.stop()
    outcome = run.run()
    assert (outcome.scheduled, outcome.sent, outcome.failure) == (0, 0, None)
    reflection = Reflection(ReflectSettings(LOOPBACK))
    reflection.stop()
    assert reflection.run().answered == 0


def test_a_reflection_ends_by_count_and_by_time() -> None:
    with reflecting(ReflectSettings(LOOPBACK, frames=5)) as (address, _):
        settings = SendSettings(
            parse_endpoint(address), at_rate(Fraction(1_000), "constant", 0), frames=20, patience_ns=200_000_000
        )
        outcome = ProbeRun(settings).run()
    assert outcome.answers is not None
    assert outcome.answers.answered == 5
    assert (outcome.lost, outcome.failure) == (15, None)
    assert Reflection(ReflectSettings(LOOPBACK, duration_ns=50_000_000)).run().answered == 0


def test_the_time_line_starts_at_utc() -> None:
    assert abs(time.monotonic_ns() + utc_ahead_ns() - time.time_ns()) < 10**9
