"""Sending on time, counting answers and answering, against slow references and a clock that the test moves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.probes import ANSWER, PROBE, FakeClock, Frame, decode, loopback_pair
from support.veth_pairs import wait_until

from uspcap.probe.probe_sockets import (
    HEADER_BYTES,
    LARGEST_BYTES,
    WAKEUPS,
    WINDOW,
    ProbeReceiver,
    ProbeReflector,
    ProbeSender,
)
from uspcap.probe.send_times import SendTimes
from uspcap.stats.histogram import Histogram

SESSION = 0x0123456789ABCDEF
AHEAD = 1_700_000_000_000_000_000


def sender_of(one: socket.socket, times: SendTimes, clock: FakeClock, size: int = 64, **limits: int) -> ProbeSender:
    return ProbeSender(
        one.fileno(), times, SESSION, size, start_ns=1_000, utc_ahead_ns=AHEAD, spin_ns=300, **limits, **clock.addresses
    )


def sent_frames(other: socket.socket, frames: int) -> list[Frame]:
    return [decode(other.recv(65536)) for _ in range(frames)]


def nothing_more(other: socket.socket) -> bool:
    other.setblocking(False)
    try:
        other.recv(65536)
    except BlockingIOError:
        return True
    return False


def test_frames_go_when_they_are_due_and_say_so() -> None:
    clock = FakeClock(step_ns=10)
    with loopback_pair() as (one, other):
        sender = sender_of(one, SendTimes("list", times_ns=[0, 5_000, 5_000, 20_000]), clock, 100)
        sender.run()
        frames = sent_frames(other, 4)
        assert nothing_more(other)
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3]
    assert [frame.intended_ns - AHEAD for frame in frames] == [1_000, 6_000, 6_000, 21_000]
    lateness = [frame.actual_ns - frame.intended_ns for frame in frames]
    assert all(0 <= late <= 10 for late in lateness)
    constant = {frame._replace(sequence=0, intended_ns=0, actual_ns=0) for frame in frames}
    assert constant == {Frame(kind=PROBE, session=SESSION)}
    # It slept until 300 ns before each frame, and looked at the clock from there on.
    assert clock.slept_until == [700, 5_700, 20_700]
    assert (sender.scheduled, sender.sent, sender.unsent, sender.last_due_ns) == (4, 4, 0, 21_000)
    assert Histogram(sender.lateness).table()["count"] == np.unique(lateness, return_counts=True)[1].tolist()
    assert (sender.latest_ns, sender.lateness_sum_ns) == (max(lateness), sum(lateness))


def test_a_stall_moves_no_frame_but_those_that_were_due_in_it() -> None:
    # Ten frames 1,000 ns apart; when the fourth is due the sender is held up for 4,500 ns.
    clock = FakeClock(step_ns=1, stalls={4_000: 4_500})
    with loopback_pair() as (one, other):
        sender = sender_of(one, SendTimes("constant", period_numerator=1_000), clock, frames=10)
        sender.run()
        frames = sent_frames(other, 10)
    assert [frame.intended_ns - AHEAD for frame in frames] == [1_000 * at for at in range(1, 11)]
    late = [frame.actual_ns - frame.intended_ns for frame in frames]
    # A closed loop would have shown one late frame, and moved the rest.
    assert [round(one, -2) for one in late] == [0, 0, 0, 4_500, 3_500, 2_500, 1_500, 500, 0, 0]


def test_a_sum_of_lateness_that_does_not_fit_stays_at_the_largest_number() -> None:
    clock = FakeClock(start_ns=4 * 10**18)
    with loopback_pair() as (one, _):
        sender = sender_of(one, SendTimes("list", times_ns=[0, 0, 0]), clock)
        sender.run()
    assert sender.latest_ns > 3 * 10**18
    assert sender.lateness_sum_ns == 2**63 - 1
    assert int(sender.lateness.sum()) == 3


@pytest.mark.parametrize(("limits", "frames"), [({"frames": 3}, 3), ({"duration_ns": 5_000}, 5), ({"frames": 0}, 0)])
def test_limits_end_an_endless_schedule(limits: dict[str, int], frames: int) -> None:
    with loopback_pair() as (one, other):
        sender = sender_of(one, SendTimes("constant", period_numerator=1_000), FakeClock(), **limits)
        sender.run()
        assert len(sent_frames(other, frames)) == frames
        assert nothing_more(other)
    assert sender.sent == frames


@pytest.mark.parametrize("size", [HEADER_BYTES, 65, 1472, 9000, LARGEST_BYTES])
def test_payloads_have_the_size_asked_for(size: int) -> None:
    with loopback_pair() as (one, other):
        sender_of(one, SendTimes("list", times_ns=[0]), FakeClock(), size).run()
        assert len(other.recv(70_000)) == size


@pytest.mark.parametrize("size", [0, HEADER_BYTES - 1, LARGEST_BYTES + 1])
def test_sizes_without_room_for_the_header_are_refused(size: int) -> None:
    with loopback_pair() as (one, _), pytest.raises(ValueError, match="payload"):
        sender_of(one, SendTimes("list", times_ns=[0]), FakeClock(), size)


def test_stop_ends_a_long_wait() -> None:
    with loopback_pair() as (one, _):
        hour = SendTimes("list", times_ns=[0, 3_600 * 10**9])
        sender = ProbeSender(
            one.fileno(), hour, SESSION, 64, start_ns=time.monotonic_ns(), utc_ahead_ns=AHEAD, spin_ns=0
        )
        thread = threading.Thread(target=sender.run)
        thread.start()
        assert wait_until(lambda: sender.sent == 1)
        sender.stop()
        thread.join(30)
        assert not thread.is_alive()
    assert (sender.scheduled, sender.sent) == (1, 1)


def test_a_port_where_nobody_listens_is_counted_and_every_frame_still_sent() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as away:
        away.bind(("127.0.0.1", 0))
        address = away.getsockname()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect(address)
        sender = sender_of(one, SendTimes("constant", period_numerator=1_000), FakeClock(), frames=20)
        sender.run()
    assert (sender.sent, sender.unsent, sender.error_number) == (20, 0, 0)
    assert sender.refused > 0


def test_what_no_frame_can_get_through_ends_sending() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unconnected:
        sender = sender_of(unconnected, SendTimes("constant", period_numerator=1_000), FakeClock(), frames=20)
        sender.run()
    assert (sender.scheduled, sender.sent) == (1, 0)
    assert sender.error_number != 0


class Reference:
    """What a receiver counts, with sets and lists."""

    def __init__(self, sent: int) -> None:
        self.sent, self.seen, self.highest = sent, set[int](), -1
        self.answered = self.duplicate = self.reordered = self.malformed = self.foreign = self.older = 0

    def take(self, frame: Frame) -> None:
        if frame.kind != ANSWER or frame.session != SESSION or frame.magic != b"USPC" or frame.version != 1:
            self.foreign += 1
        elif not 0 <= frame.sequence < self.sent or frame.actual_ns < frame.intended_ns:
            self.malformed += 1
        elif frame.sequence in self.seen:
            self.duplicate += 1
        else:
            self.seen.add(frame.sequence)
            self.answered += 1
            self.reordered += frame.sequence < self.highest
            self.highest = max(self.highest, frame.sequence)

    def counts(self) -> tuple[int, ...]:
        return self.answered, self.duplicate, self.reordered, self.malformed, self.foreign, self.older


def received(frames: Sequence[bytes], sent: int, wakeup: str = "poll", patience_ns: int = 1 << 62) -> ProbeReceiver:
    """What a receiver makes of datagrams, after `sent` frames were sent."""
    with loopback_pair() as (one, other):
        sender = sender_of(one, SendTimes("constant", period_numerator=1), FakeClock(), frames=sent)
        sender.run()
        other.setblocking(False)
        one.settimeout(0.05 if wakeup == "block" else 0)
        if wakeup == "block":
            # A time-out of Python's own makes the socket non-blocking; the kernel's does not.
            one.setblocking(True)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\0" * 8 + (50_000).to_bytes(8, "little"))
        receiver = ProbeReceiver(one.fileno(), sender, SESSION, wakeup, utc_ahead_ns=0, patience_ns=patience_ns)
        thread = threading.Thread(target=receiver.run)
        thread.start()
        for frame in frames:
            other.send(frame)

        def counted() -> int:
            known = receiver.answered + receiver.late + receiver.duplicate + receiver.older
            return known + receiver.foreign + receiver.malformed

        assert wait_until(lambda: counted() == len(frames))
        receiver.stop()
        thread.join()
        return receiver


answers = st.builds(
    Frame,
    magic=st.sampled_from([b"USPC"] * 8 + [b"uspc"]),
    header_bytes=st.just(64),
    kind=st.sampled_from([ANSWER] * 8 + [PROBE]),
    session=st.sampled_from([SESSION] * 8 + [SESSION + 1]),
    version=st.sampled_from([1] * 8 + [2]),
    sequence=st.integers(0, 22) | st.sampled_from([-1 % 2**64, 1 << 40]),
    intended_ns=st.just(1_000),
    actual_ns=st.sampled_from([1_000, 1_500, 2_000, 999]),
    kernel_ns=st.just(0),
    read_ns=st.integers(0, 1 << 62),
    answered_ns=st.integers(-5, 1 << 62),
)


@settings(max_examples=40)
@given(st.lists(answers, max_size=40))
def test_answers_are_counted_as_by_sets_and_lists(frames: list[Frame]) -> None:
    reference = Reference(sent=20)
    for frame in frames:
        reference.take(frame._replace(sequence=frame.sequence if frame.sequence < 1 << 63 else -1))
    receiver = received([frame.wire() for frame in frames], sent=20)
    assert (
        receiver.answered,
        receiver.duplicate,
        receiver.reordered,
        receiver.malformed,
        receiver.foreign,
        receiver.older,
    ) == reference.counts()
    assert int(receiver.response.sum()) == int(receiver.service.sum()) == receiver.answered


@settings(max_examples=40)
@given(st.lists(st.binary(max_size=200) | st.builds(lambda cut: Frame().wire()[:cut], st.integers(0, 63)), max_size=20))
def test_datagrams_of_others_are_counted_and_change_nothing(datagrams: list[bytes]) -> None:
    receiver = received(datagrams, sent=1)
    assert receiver.foreign == len(datagrams)
    assert receiver.answered == receiver.malformed == 0


@pytest.mark.parametrize("wakeup", WAKEUPS)
def test_every_way_of_waiting_reads_every_answer(wakeup: str) -> None:
    frames = [Frame(kind=ANSWER, session=SESSION, sequence=at, intended_ns=5, actual_ns=7).wire() for at in range(50)]
    receiver = received(frames, 50, wakeup)
    assert (receiver.answered, receiver.duplicate, receiver.reordered) == (50, 0, 0)


def test_times_of_answers_count_from_when_frames_were_due() -> None:
    now = time.monotonic_ns()
    due = {"intended_ns": now - 9_000_000, "actual_ns": now - 4_000_000}
    frame = Frame(kind=ANSWER, session=SESSION, kernel_ns=100, read_ns=130, answered_ns=350, **due)
    receiver = received([frame.wire()], sent=1)
    response, service, _, residence = receiver.sums_ns.tolist()
    assert response - service == 5_000_000
    assert service >= 4_000_000
    assert residence == 250
    assert receiver.lowest_ns.tolist() == [*receiver.sums_ns.tolist()[:2], -1, 250]
    without_timestamp = received([frame._replace(kernel_ns=0).wire()], sent=1)
    assert without_timestamp.sums_ns[3] == 220


def test_an_answer_after_the_time_to_wait_is_late_and_in_no_histogram() -> None:
    now = time.monotonic_ns()
    frame = Frame(kind=ANSWER, session=SESSION, intended_ns=now - 2 * 10**9, actual_ns=now)
    receiver = received([frame.wire(), frame.wire()], sent=1, patience_ns=10**9)
    assert (receiver.late, receiver.duplicate, receiver.answered) == (1, 1, 0)
    assert not receiver.response.any()


def test_an_answer_from_the_future_is_malformed() -> None:
    later = time.monotonic_ns() + 10**12
    frame = Frame(kind=ANSWER, session=SESSION, intended_ns=later, actual_ns=later)
    assert received([frame.wire()], sent=1).malformed == 1


def test_what_lies_a_whole_window_back_is_not_called_new() -> None:
    frames = [Frame(kind=ANSWER, session=SESSION, sequence=at) for at in (3, WINDOW + 2, WINDOW + 3, 2, 3, 4, 4)]
    with loopback_pair() as (one, _):
        # All due at once, and read by nobody: loopback drops what is too much.
        at_once = SendTimes("list", times_ns=np.zeros(WINDOW + 10, np.int64))
        sender = ProbeSender(
            one.fileno(), at_once, SESSION, 64, start_ns=time.monotonic_ns(), utc_ahead_ns=0, spin_ns=0
        )
        sender.run()
        with loopback_pair() as (inside, outside):
            inside.setblocking(False)
            receiver = ProbeReceiver(inside.fileno(), sender, SESSION, "poll", utc_ahead_ns=0, patience_ns=1 << 62)
            thread = threading.Thread(target=receiver.run)
            thread.start()
            for frame in frames:
                outside.send(frame.wire())
            assert wait_until(lambda: receiver.answered + receiver.duplicate + receiver.older == len(frames))
            receiver.stop()
            thread.join()
    # 2 and 3 lie outside the window of the latest; 4 is its oldest, new and then a duplicate.
    assert (receiver.answered, receiver.older, receiver.reordered, receiver.duplicate) == (4, 2, 1, 1)


@pytest.mark.parametrize("wakeup", WAKEUPS)
def test_a_reflector_answers_probes_and_nothing_else(wakeup: str) -> None:
    with loopback_pair() as (one, other):
        one.setblocking(wakeup == "block")
        if wakeup == "block":
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, b"\0" * 8 + (50_000).to_bytes(8, "little"))
        reflector = ProbeReflector(one.fileno(), wakeup)
        thread = threading.Thread(target=reflector.run)
        before = time.time_ns()
        thread.start()
        try:
            probe = Frame(session=9, sequence=5, intended_ns=11, actual_ns=12)
            for datagram in (b"", b"USPC", probe._replace(kind=ANSWER).wire(), probe._replace(magic=b"USPD").wire()):
                other.send(datagram)
            other.send(probe.wire(200))
            payload = other.recv(1000)
        finally:
            reflector.stop()
            thread.join()
        assert nothing_more(other)
    assert len(payload) == 200
    answer = decode(payload)
    assert answer._replace(kernel_ns=0, read_ns=0, answered_ns=0) == probe._replace(kind=ANSWER)
    assert before <= answer.read_ns <= answer.answered_ns <= time.time_ns()
    assert (reflector.answered, reflector.unanswered, reflector.foreign) == (1, 0, 4)


def test_a_reflector_ends_after_so_many_answers() -> None:
    with loopback_pair() as (one, other):
        one.setblocking(False)
        for at in range(5):
            other.send(Frame(sequence=at).wire())
        reflector = ProbeReflector(one.fileno(), "poll", frames=3)
        reflector.run()
        assert [frame.sequence for frame in sent_frames(other, 3)] == [0, 1, 2]
        assert nothing_more(other)


def test_an_unknown_way_of_waiting_is_refused() -> None:
    with loopback_pair() as (one, _), pytest.raises(ValueError, match="none of block"):
        ProbeReflector(one.fileno(), "sleep")
