"""Probes of one's own for the time of a comparison, from another network namespace where there is one."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import socket
import threading
import time
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from uspcap.capabilities import af_xdp_needs, explain_missing
from uspcap.comparison.live.path_readers import AnswerReader
from uspcap.comparison.live.settings import ProbeTraffic
from uspcap.errors import CaptureError
from uspcap.probe.endpoints import open_socket
from uspcap.probe.probe_sockets import ProbeSender
from uspcap.probe.schedules import at_rate
from uspcap.probe.sending import HEAD_START_NS, utc_ahead_ns
from uspcap.stats.histogram import Histogram
from uspcap.system_errors import limit_remedy

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_SPIN_NS: Final = 200_000
_NAMESPACES: Final = Path("/run/netns")
_libc = ctypes.CDLL(None, use_errno=True)


def _open_in_namespace(traffic: ProbeTraffic) -> socket.socket:
    """Return a connected socket; one keeps to the namespace it was made in, so a thread goes there and ends."""
    if traffic.namespace is None:
        return open_socket(None, traffic.target)
    results: list[socket.socket | BaseException] = []

    def enter_and_open() -> None:
        try:
            there = os.open(_NAMESPACES / str(traffic.namespace), os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(there, _CLONE_NEWNET):
                    number = ctypes.get_errno()
                    raise OSError(number, os.strerror(number))
            finally:
                os.close(there)
        except OSError as error:
            missing = error.errno == errno.EPERM
            advice = explain_missing(["CAP_SYS_ADMIN"], af_xdp_needs()) if missing else "see 'ip netns'"
            advice = limit_remedy(error.errno, advice)
            said = f"cannot send from network namespace {traffic.namespace}: {error.strerror}; {advice}"
            results.append(CaptureError(said))
            return
        try:
            results.append(open_socket(None, traffic.target))
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=enter_and_open, name="uspcap-namespace")
    thread.start()
    thread.join()
    (result,) = results
    if isinstance(result, BaseException):
        raise result
    return result


class Sending:
    """Sends probes on schedule from the start of the block to its end.

    Parameters
    ----------
    traffic : ProbeTraffic
    seed : int
        Of a Poisson schedule.

    Attributes
    ----------
    utc_ahead_ns : int
        The sender's time line is CLOCK_MONOTONIC plus this.

    Raises
    ------
    CaptureError
        The socket cannot be made.
    UsageError
        The rate is out of range.
    """

    def __init__(self, traffic: ProbeTraffic, seed: int) -> None:
        self._traffic = traffic
        self.schedule = at_rate(traffic.rate, traffic.kind, seed)
        self._socket = _open_in_namespace(traffic)
        self.utc_ahead_ns = utc_ahead_ns()
        self._sender = ProbeSender(
            self._socket.fileno(),
            self.schedule.times,
            secrets.randbits(64),
            traffic.size,
            start_ns=time.monotonic_ns() + HEAD_START_NS,
            utc_ahead_ns=self.utc_ahead_ns,
            spin_ns=_SPIN_NS,
        )
        self._thread = threading.Thread(target=self._run, name="uspcap-probe-send")

    @property
    def sent(self) -> int:
        return self._sender.sent

    @property
    def cpu(self) -> int | None:
        return self._traffic.cpu

    def answer_reader(self, columns: NDArray[np.int64]) -> AnswerReader:
        """Return a reader of the paths' answers; one at a time."""
        return AnswerReader(self._socket.fileno(), columns, utc_ahead_ns=self.utc_ahead_ns)

    @property
    def refused(self) -> int:
        """How often the target refused (ICMP port unreachable)."""
        return self._sender.refused

    @property
    def unsent(self) -> int:
        return self._sender.unsent

    @property
    def lateness(self) -> Histogram:
        """Actual less intended send time."""
        if not self._sender.sent:
            return Histogram()
        return Histogram(
            self._sender.lateness.copy(), sum_ns=self._sender.lateness_sum_ns, highest_ns=self._sender.latest_ns
        )

    @property
    def failure(self) -> CaptureError | None:
        number = self._sender.error_number
        if not number:
            return None
        return CaptureError(f"sending to {self._traffic.target} ended: {os.strerror(number)}; see 'ip route'")

    def _run(self) -> None:
        if self._traffic.cpu is not None:
            os.sched_setaffinity(0, {self._traffic.cpu})
        self._sender.run()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        """Send no more; may be called again."""
        self._sender.stop()
        self._thread.join()

    def __exit__(self, *exception: object) -> None:
        self.stop()
        self._socket.close()
