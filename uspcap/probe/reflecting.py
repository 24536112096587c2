"""Answering probes: what is asked for, what comes of it, and answering through a UDP socket of the kernel."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from uspcap.errors import CaptureError
from uspcap.network.watch import InterfaceWatch
from uspcap.probe.endpoints import Endpoint, open_socket
from uspcap.probe.probe_sockets import ProbeReflector
from uspcap.probe.watching import watch_for

_FOREVER = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class ReflectSettings:
    """Where and how to answer.

    Attributes
    ----------
    local : Endpoint
        What to bind to; port 0 lets the kernel choose.
    interface : str or None
        Answer what came there only.
    wakeup : str
        How probes are waited for, of `uspcap.probe.probe_sockets.WAKEUPS`.
    frames, duration_ns : int or None
        Where to end.
    through : str
        `kernel`, or `af_xdp` (`uspcap.comparison.live.reflecting`).
    """

    local: Endpoint
    interface: str | None = None
    wakeup: str = "block"
    frames: int | None = None
    duration_ns: int | None = None
    through: str = "kernel"


@dataclass(frozen=True, slots=True)
class ReflectOutcome:
    """What was answered.

    Attributes
    ----------
    settings : ReflectSettings
    local : str
        Address and port.
    answered, unanswered, foreign, without_timestamp : int
        As `ProbeReflector` has them.
    failure : CaptureError or None
        Why it ended before it was to.
    """

    settings: ReflectSettings
    local: str
    answered: int
    unanswered: int
    foreign: int
    without_timestamp: int
    failure: CaptureError | None


class Answerer(Protocol):
    """What answers probes, by whichever path."""

    def run(self, started: Callable[[str], None] = ..., tell: Callable[[str], None] = ...) -> ReflectOutcome:
        """Answer until a limit is reached, `stop` is called or the interface is of no use any more.

        `started` is called with the address, `tell` with what happens to the interface.
        """

    def stop(self) -> None:
        """End in good order."""


@dataclass(slots=True)
class Reflection:
    """An answerer of probes.

    Parameters
    ----------
    settings : ReflectSettings
    """

    settings: ReflectSettings
    _over: threading.Event = field(default_factory=threading.Event, init=False)
    _reflector: ProbeReflector | None = field(default=None, init=False)

    def stop(self) -> None:
        """End in good order; may be called from a signal handler or another thread."""
        self._over.set()
        if self._reflector is not None:
            self._reflector.stop()

    def run(
        self,
        started: Callable[[str], None] = lambda local: None,
        tell: Callable[[str], None] = lambda said: None,
    ) -> ReflectOutcome:
        """Answer until a limit is reached, `stop` is called, or the interface is of no use any more.

        Parameters
        ----------
        started : callable
            Called with the address once probes are received there.
        tell : callable
            Called with what happens to the interface; by another thread, maybe.

        Raises
        ------
        CaptureError
            The socket cannot be made.
        """
        settings = self.settings
        with (
            open_socket(settings.local, None, interface=settings.interface) as opened,
            watch_for(settings.interface, settings.local.host, tell, self.stop) as watch,
        ):
            local = str(Endpoint(*opened.getsockname()[:2]))
            reflector = ProbeReflector(
                opened.fileno(), settings.wakeup, frames=_FOREVER if settings.frames is None else settings.frames
            )
            self._reflector = reflector
            if self._over.is_set():
                reflector.stop()
            answering = threading.Thread(target=reflector.run, name="uspcap-probe-reflect")
            answering.start()
            timer = None
            try:
                started(local)
                if settings.duration_ns is not None:
                    timer = threading.Timer(settings.duration_ns / 1e9, self.stop)
                    timer.daemon = True
                    timer.start()
                answering.join()
            finally:
                reflector.stop()
                answering.join()
                if timer is not None:
                    timer.cancel()
            failure = failure_of_reflection(local, reflector.error_number, watch)
        return ReflectOutcome(
            settings,
            local,
            reflector.answered,
            reflector.unanswered,
            reflector.foreign,
            reflector.without_timestamp,
            failure,
        )


def failure_of_reflection(local: str, error_number: int, watch: InterfaceWatch | None) -> CaptureError | None:
    """Return why answering ended before it was to, None where nothing ended it.

    Parameters
    ----------
    local : str
        Where probes were answered.
    error_number : int
        What reading or answering failed with; 0 where it did not.
    watch : InterfaceWatch or None
        Over the interface that probes came to.
    """
    said = f"answering at {local} ended: {os.strerror(error_number)}" if error_number else ""
    if watch is not None:
        said = watch.why_it_failed(said) if error_number else watch.ended
    return CaptureError(f"{said}; see 'ip link' and 'ip address'") if said else None
