"""A run of probes: sent on time by one thread, their answers read by another."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.errors import CaptureError
from uspcap.frames import NANOSECONDS
from uspcap.network.watch import InterfaceWatch
from uspcap.probe.endpoints import Endpoint, open_socket
from uspcap.probe.probe_sockets import HEADER_BYTES, ProbeReceiver, ProbeSender
from uspcap.probe.schedules import Schedule
from uspcap.probe.watching import watch_for
from uspcap.stats.histogram import Histogram

HEAD_START_NS: Final = 20_000_000
"""Between the start of the threads and the schedule's 0."""

STOPPED_PATIENCE_NS: Final = 200_000_000
"""For so long answers are waited for after the user has ended the run; those of longer ways are not known then."""

_FOREVER: Final = (1 << 63) - 1
_LOOK_S: Final = 0.01

_MARKS: Final = 16
"""While frames are sent it is noted so often within the patience how many were."""


@dataclass(frozen=True, slots=True)
class SendSettings:
    """What to send, and how answers are read.

    Attributes
    ----------
    target : Endpoint
    schedule : Schedule
        Used up by the run.
    source : Endpoint or None
        What to send from; the kernel chooses without it.
    interface : str or None
        Send and receive there only.
    size : int
        Bytes of UDP payload.
    frames, duration_ns : int or None
        Where to end; without both, and with an endless schedule, `ProbeRun.stop` ends it.
    answers : bool
        Read answers; without them only lateness is measured.
    wakeup : str
        How answers are waited for, of `uspcap.probe.probe_sockets.WAKEUPS`.
    patience_ns : int
        An answer so long after its frame was due is late; so long the run waits after the last frame.
    spin_ns : int
        How long before a frame is due sleeping ends and spinning begins.
    session : int or None
        Below 2^64; chosen at random without it.
    """

    target: Endpoint
    schedule: Schedule
    source: Endpoint | None = None
    interface: str | None = None
    size: int = HEADER_BYTES
    frames: int | None = None
    duration_ns: int | None = None
    answers: bool = True
    wakeup: str = "block"
    patience_ns: int = NANOSECONDS
    spin_ns: int = 200_000
    session: int | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back.

    Attributes
    ----------
    answered, late, duplicate, reordered, older, foreign, malformed, without_timestamp : int
        As `ProbeReceiver` has them.
    response, service, kernel, residence : Histogram
        Application less due, application less sent, kernel's receive timestamp less sent, and how long the answerer had
        it.
    """

    answered: int
    late: int
    duplicate: int
    reordered: int
    older: int
    foreign: int
    malformed: int
    without_timestamp: int
    response: Histogram
    service: Histogram
    kernel: Histogram
    residence: Histogram


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What a run came to.

    Attributes
    ----------
    settings : SendSettings
    session : int
    source : str
        Address and port that the frames came from.
    start_ns, end_ns : int
        UTC of the schedule's 0, and when the last frame was due.
    scheduled, sent, unsent, refused : int
        Frames due, taken by the kernel, not taken; and how often the target said that nobody listens.
    lateness : Histogram
        Actual less intended send time.
    answers : Answers or None
    clock_change_ns : int
        How much CLOCK_REALTIME moved against CLOCK_MONOTONIC from start to end.
    failure : CaptureError or None
        Why the run ended before it was to.
    pending : int
        Frames without an answer that might still have come in time when the user ended the run.
    """

    settings: SendSettings
    session: int
    source: str
    start_ns: int
    end_ns: int
    scheduled: int
    sent: int
    unsent: int
    refused: int
    lateness: Histogram
    answers: Answers | None
    clock_change_ns: int
    failure: CaptureError | None
    pending: int = 0

    @property
    def lost(self) -> int:
        """Frames sent without an answer in time or late, and not pending; 0 where answers were not read."""
        return 0 if self.answers is None else self.sent - self.answers.answered - self.answers.late - self.pending


def utc_ahead_ns() -> int:
    """Return CLOCK_REALTIME less CLOCK_MONOTONIC, from the narrowest of seven readings."""
    readings = []
    for _ in range(7):
        before, now, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
        readings.append((after - before, now - (before + after) // 2))
    return min(readings)[1]


@dataclass(slots=True)
class ProbeRun:
    """One run of probes.

    Parameters
    ----------
    settings : SendSettings
    """

    settings: SendSettings
    _sender: ProbeSender | None = field(default=None, init=False)
    _stopped_ns: int | None = field(default=None, init=False)

    def stop(self) -> None:
        """End the run in good order; may be called from a signal handler or another thread.

        Answers are waited for a moment only (`STOPPED_PATIENCE_NS`).
        """
        if self._stopped_ns is None:
            self._stopped_ns = time.monotonic_ns()
        if self._sender is not None:
            self._sender.stop()

    def run(
        self,
        started: Callable[[str], None] = lambda source: None,
        tell: Callable[[str], None] = lambda said: None,
    ) -> SendOutcome:
        """Send, and wait for the answers, until the end or until the interface is of no use any more.

        Parameters
        ----------
        started : callable
            Called with the address that frames come from, before the first one is sent.
        tell : callable
            Called with what happens to the interface; by another thread, maybe.

        Raises
        ------
        CaptureError
            The socket cannot be made.
        """
        settings = self.settings
        session = secrets.randbits(64) if settings.session is None else settings.session
        with (
            open_socket(settings.source, settings.target, interface=settings.interface) as opened,
            watch_for(settings.interface, opened.getsockname()[0], tell, self.stop) as watch,
        ):
            host, port = opened.getsockname()[:2]
            source = str(Endpoint(host, port))
            started(source)
            ahead_ns = utc_ahead_ns()
            start_ns = time.monotonic_ns() + HEAD_START_NS
            sender = ProbeSender(
                opened.fileno(),
                settings.schedule.times,
                session,
                settings.size,
                start_ns=start_ns,
                utc_ahead_ns=ahead_ns,
                spin_ns=settings.spin_ns,
                frames=_FOREVER if settings.frames is None else settings.frames,
                duration_ns=_FOREVER if settings.duration_ns is None else settings.duration_ns,
            )
            receiver = None
            if settings.answers:
                receiver = ProbeReceiver(
                    opened.fileno(),
                    sender,
                    session,
                    settings.wakeup,
                    utc_ahead_ns=ahead_ns,
                    patience_ns=settings.patience_ns,
                )
            self._sender = sender
            if self._stopped_ns is not None:
                sender.stop()
            pending = self._go(sender, receiver)
            if watch is not None and sender.error_number:
                watch.why_it_failed("")
        return SendOutcome(
            settings=settings,
            session=session,
            source=source,
            start_ns=start_ns + ahead_ns,
            end_ns=sender.last_due_ns + ahead_ns,
            scheduled=sender.scheduled,
            sent=sender.sent,
            unsent=sender.unsent,
            refused=sender.refused + (0 if receiver is None else receiver.refused),
            lateness=_histogram(sender.lateness, sender.lateness_sum_ns, None, sender.latest_ns),
            answers=None if receiver is None else _answers(receiver),
            clock_change_ns=utc_ahead_ns() - ahead_ns,
            failure=_failure(sender, receiver, pending, settings.target, watch),
            pending=pending,
        )

    def _go(self, sender: ProbeSender, receiver: ProbeReceiver | None) -> int:
        """Run both loops, each in a thread; after the last frame wait until all is answered, or for `patience_ns`.

        Returns
        -------
        int
            Frames that were not waited for long enough, as the user ended the run.
        """
        reading = None
        marks = _Marks(sender, self.settings.patience_ns)
        if receiver is not None:
            reading = threading.Thread(target=receiver.run, name="uspcap-probe-answers")
            reading.start()
        try:
            sending = threading.Thread(target=sender.run, name="uspcap-probe-send")
            sending.start()
            try:
                while sending.is_alive():
                    sending.join(None if receiver is None else marks.step_s)
                    marks.take()
            finally:
                sender.stop()
                sending.join()
            if receiver is None:
                return 0
            self._wait_for_answers(sender, receiver)
            ended_ns = time.monotonic_ns()
        finally:
            if receiver is not None and reading is not None:
                receiver.stop()
                reading.join()
        if self._stopped_ns is None:
            return 0
        pending = marks.unanswered_since(ended_ns - self.settings.patience_ns, receiver)
        return max(0, min(pending, sender.sent - receiver.answered - receiver.late))

    def _wait_for_answers(self, sender: ProbeSender, receiver: ProbeReceiver) -> None:
        until_ns = time.monotonic_ns() + self.settings.patience_ns
        while receiver.answered + receiver.late < sender.sent and not receiver.error_number:
            if self._stopped_ns is not None:
                until_ns = min(until_ns, self._stopped_ns + STOPPED_PATIENCE_NS)
            if time.monotonic_ns() >= until_ns:
                break
            time.sleep(_LOOK_S)


class _Marks:
    """How many frames were sent by when, as far back as the timeout for answers."""

    def __init__(self, sender: ProbeSender, patience_ns: int) -> None:
        self._sender = sender
        self.step_s = min(max(patience_ns / _MARKS / NANOSECONDS, _LOOK_S), 1.0)
        self._marks: deque[tuple[int, int, int]] = deque([(0, 0, 0)])
        self._patience_ns = patience_ns

    def take(self) -> None:
        """Note how many were sent by now."""
        now_ns = time.monotonic_ns()
        self._marks.append((now_ns, self._sender.scheduled, self._sender.unsent))
        while len(self._marks) > 1 and self._marks[1][0] <= now_ns - self._patience_ns:
            self._marks.popleft()

    def unanswered_since(self, time_ns: int, receiver: ProbeReceiver) -> int:
        """Return how many frames have no answer of those sent since a time, or up to a step before it."""
        _, scheduled, unsent = max(mark for mark in self._marks if mark[0] <= time_ns or not mark[0])
        return receiver.unanswered(scheduled) - (self._sender.unsent - unsent)


def _histogram(counts: NDArray[np.uint64], sum_ns: int, lowest_ns: int | None, highest_ns: int) -> Histogram:
    if not counts.any():
        return Histogram()
    # A sum that does not fit in 63 bits is taken from the buckets.
    return Histogram(counts, sum_ns=None if sum_ns == _FOREVER else sum_ns, lowest_ns=lowest_ns, highest_ns=highest_ns)


def _answers(receiver: ProbeReceiver) -> Answers:
    sums, lowest, highest = (column.tolist() for column in (receiver.sums_ns, receiver.lowest_ns, receiver.highest_ns))
    columns = (receiver.response, receiver.service, receiver.kernel, receiver.residence)
    histograms = [_histogram(counts, sums[at], lowest[at], highest[at]) for at, counts in enumerate(columns)]
    return Answers(
        answered=receiver.answered,
        late=receiver.late,
        duplicate=receiver.duplicate,
        reordered=receiver.reordered,
        older=receiver.older,
        foreign=receiver.foreign,
        malformed=receiver.malformed,
        without_timestamp=receiver.without_timestamp,
        response=histograms[0],
        service=histograms[1],
        kernel=histograms[2],
        residence=histograms[3],
    )


def _failure(
    sender: ProbeSender, receiver: ProbeReceiver | None, pending: int, target: Endpoint, watch: InterfaceWatch | None
) -> CaptureError | None:
    if watch is not None and watch.ended:
        return CaptureError(f"{watch.ended}, after {sender.sent} frames to {target}; see 'ip link'")
    if sender.error_number:
        why = os.strerror(sender.error_number)
        return CaptureError(
            f"sending to {target} ended after {sender.sent} frames: {why}; see 'ip route', and lower --size if that "
            "was the reason"
        )
    if receiver is not None and receiver.error_number:
        why = os.strerror(receiver.error_number)
        return CaptureError(f"reading answers from {target} ended: {why}; see 'ip link'")
    if receiver is not None and sender.sent > pending and not receiver.answered + receiver.late:
        refused = sender.refused + receiver.refused
        if refused:
            return CaptureError(
                f"nothing listens at {target} ({refused} times ICMP port unreachable, no answer to {sender.sent} "
                "frames): start 'uspcap probe reflect' there"
            )
        return CaptureError(
            f"no answer from {target} to {sender.sent} frames: is 'uspcap probe reflect' running there, and does a "
            "firewall let UDP through both ways?"
        )
    return None
