"""Probe frames by their description in docs/probe.md, apart from the code that makes them; and a clock of one's own."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

from uspcap.probe.reflecting import Reflection, ReflectSettings

LAYOUT = struct.Struct(">4sBBHQQqqqqq")
PROBE, ANSWER = 1, 2


class Frame(NamedTuple):
    """The header of a probe or an answer."""

    magic: bytes = b"USPC"
    version: int = 1
    kind: int = PROBE
    header_bytes: int = 64
    session: int = 0
    sequence: int = 0
    intended_ns: int = 0
    actual_ns: int = 0
    kernel_ns: int = 0
    read_ns: int = 0
    answered_ns: int = 0

    def wire(self, size: int = 64) -> bytes:
        return LAYOUT.pack(*self).ljust(size, b"\0")


def decode(payload: bytes) -> Frame:
    assert not any(payload[LAYOUT.size :])
    return Frame(*LAYOUT.unpack_from(payload))


class FakeClock:
    """Time that moves by sleeping, and by `step_ns` with every look; `stalls` adds to it once a time is reached."""

    def __init__(self, start_ns: int = 0, step_ns: int = 10, stalls: dict[int, int] | None = None) -> None:
        self.time_ns = start_ns
        self.slept_until: list[int] = []
        stalls = dict(stalls or {})

        def now() -> int:
            self.time_ns += step_ns
            for at in [at for at in stalls if self.time_ns >= at]:
                self.time_ns += stalls.pop(at)
            return self.time_ns

        def sleep(until: int) -> None:
            self.slept_until.append(until)
            self.time_ns = max(self.time_ns, until)

        self._now = ctypes.CFUNCTYPE(ctypes.c_int64)(now)
        self._sleep = ctypes.CFUNCTYPE(None, ctypes.c_int64)(sleep)

    @property
    def addresses(self) -> dict[str, int]:
        """What `ProbeSender` takes."""
        functions = {"now": self._now, "sleep": self._sleep}
        return {name: ctypes.cast(one, ctypes.c_void_p).value or 0 for name, one in functions.items()}


@contextlib.contextmanager
def loopback_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give two UDP sockets on loopback, each connected to the other, with room for a few thousand small frames."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        for each in (one, other):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
            each.settimeout(5)
            each.bind(("127.0.0.1", 0))
        one.connect(other.getsockname())
        other.connect(one.getsockname())
        yield one, other


@contextlib.contextmanager
def reflecting(settings: ReflectSettings) -> Iterator[tuple[str, list[object]]]:
    """Give the address where probes are answered, and a list that has the outcome after the block."""
    reflection = Reflection(settings)
    addresses: list[str] = []
    outcomes: list[object] = []
    ready = threading.Event()

    def started(local: str) -> None:
        addresses.append(local)
        ready.set()

    thread = threading.Thread(target=lambda: outcomes.append(reflection.run(started)))
    thread.start()
    try:
        assert ready.wait(10)
        yield addresses[0], outcomes
    finally:
        reflection.stop()
        thread.join()
