"""Answering probes through AF_XDP: past the kernel's stack, with the frame in place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from uspcap.backends.carrier_wait import CarrierWait
from uspcap.backends.driver_facts import FRAMES_OF_OTHERS, driver_of
from uspcap.backends.network_interface import NetworkInterface
from uspcap.bpf.attach import AttachMode
from uspcap.comparison.live.endpoints import XskEnd
from uspcap.comparison.live.hook import PathHook
from uspcap.comparison.live.path_readers import COLUMNS
from uspcap.comparison.live.settings import LiveSettings, Path
from uspcap.errors import MissingFeature, UsageError
from uspcap.network.interface_use import refuse_if_in_use
from uspcap.network.watch import InterfaceWatch
from uspcap.probe.reflecting import ReflectOutcome, ReflectSettings, failure_of_reflection
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.tai import tai_offset_ns

_PATH: Final = Path("af_xdp", "af_xdp", 0)
_FOREVER: Final = (1 << 63) - 1
_LOOK_S: Final = 0.01


@dataclass(slots=True)
class XskReflection:
    """An answerer of probes to one IPv4 address and port of one interface.

    Other frames go to the kernel untouched. The program at the hook leaves with the process.

    Parameters
    ----------
    settings : ReflectSettings
        With an interface.

    Raises
    ------
    UsageError
        There is no interface or no port, or the address is IPv6.
    """

    settings: ReflectSettings
    _over: threading.Event = field(default_factory=threading.Event, init=False)

    def __post_init__(self) -> None:
        local = self.settings.local
        if self.settings.interface is None:
            raise UsageError("AF_XDP answers on one interface: name it with -i")
        if ":" in local.host:
            raise UsageError(f"cannot answer at {local} through AF_XDP: probes are IPv4 there; use an IPv4 address")
        if local.port == 0:
            raise UsageError("AF_XDP cannot choose a free port: name one")

    def stop(self) -> None:
        """End in good order; may be called from a signal handler or another thread."""
        self._over.set()

    def run(
        self,
        started: Callable[[str], None] = lambda local: None,
        tell: Callable[[str], None] = lambda said: None,
    ) -> ReflectOutcome:
        """Answer until a limit is reached, `stop` is called, or the interface is of no use any more.

        Parameters
        ----------
        started : callable
            Called with the address and how it is read, once probes are received there.
        tell : callable
            Called with what happens to the interface; may be called by another thread.

        Raises
        ------
        CaptureError, HookOccupied, BpfError, PermissionDenied, MissingFeature
            Socket or program cannot be had.
        """
        settings = self.settings
        host = settings.local.host
        interface = NetworkInterface.look_up(str(settings.interface))
        if host == "0.0.0.0":
            refuse_if_in_use(
                interface.index,
                f"every datagram to UDP port {settings.local.port}",
                "name the address to answer at, or answer through the kernel",
                above_only=True,
            )
        wakeup: Any = settings.wakeup
        live = LiveSettings(
            interface.name,
            kinds=("af_xdp",),
            expression="" if host == "0.0.0.0" else f"dst host {host}",
            port=settings.local.port,
            wakeup=wakeup,
            round_trip=True,
        )
        with ExitStack() as opened:
            end, mode, hook = _open(live, interface, opened)
            reader = end.reader(_PATH, np.zeros((len(COLUMNS), 1), np.int64))
            most = _FOREVER if settings.frames is None else settings.frames
            with closing(KernelCalls()) as calls:
                reader.answer("timestamped", tai_offset_ns=tai_offset_ns(calls), most=most)
            watch = InterfaceWatch(
                interface.index,
                interface.name,
                tell=tell,
                hook=hook,
                on_end=self._over.set,
                down_is_the_end=True,
            )
            opened.enter_context(watch.start())
            answering = threading.Thread(target=reader.run, name="uspcap-probe-reflect")
            answering.start()
            try:
                started(f"{settings.local} on {interface.name}, {end.about}, {mode.value} XDP")
                until = None if settings.duration_ns is None else time.monotonic() + settings.duration_ns / 1e9
                while answering.is_alive() and not self._over.wait(_LOOK_S):
                    if until is not None and time.monotonic() >= until:
                        break
            finally:
                reader.stop()
                answering.join()
            failure = failure_of_reflection(str(settings.local), reader.error_number, watch)
        return ReflectOutcome(
            settings, str(settings.local), reader.answered, reader.unanswered, reader.foreign, 0, failure
        )


def _open(live: LiveSettings, interface: NetworkInterface, opened: ExitStack) -> tuple[XskEnd, AttachMode, PathHook]:
    """Have sockets, and a program that sends probes to them."""
    of_others = driver_of(interface.name) in FRAMES_OF_OTHERS
    modes = [mode for mode in live.modes if mode is AttachMode.SKB or not of_others]
    for zero_copy in (True, False):
        attempt = opened.enter_context(ExitStack())
        hook = attempt.enter_context(PathHook(live, [_PATH], interface.queues))
        end = attempt.enter_context(closing(XskEnd(live, interface, zero_copy=zero_copy, sockets_of=hook)))
        attempt.callback(hook.detach)
        link = CarrierWait(interface)
        mode = hook.attach(interface.link_type, modes)
        link.wait()
        if mode is not AttachMode.SKB or not end.zero_copy:
            hook.send_to([_PATH])
            return end, mode, hook
        # Generic XDP copies; sockets that wait for the driver would get nothing.
        attempt.close()
    raise MissingFeature(f"{interface.name} does not support AF_XDP sockets: answer through the kernel")
