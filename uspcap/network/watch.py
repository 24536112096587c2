"""What happens to an interface while something runs on it: one thread that polls, and listens to rtnetlink.

The thread listens to rtnetlink, so that it learns of changes at once, and polls for those that rtnetlink does not
announce: once a second where there is a program at the hook, less often where there is none, or notices found no room.
It is a thread of its own because the kernel answers under a lock that a driver may hold for seconds, while rings
have to be read. A look takes five system calls, six where frames come to a hook.

What ends the use of an interface is in `ended`; what else happens is reported in sentences.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Final, Protocol, Self

from uspcap.errors import BpfError
from uspcap.network.channels import ChannelReader, receive_queues
from uspcap.network.links import IFF_LOWER_UP, Link, find_link, link_at, parse_link
from uspcap.network.netlink import (
    RTM_DELLINK,
    RTM_NEWLINK,
    RTNLGRP_LINK,
    GenericNetlink,
    NetlinkRefusal,
    Rtnetlink,
)

LOOK_EVERY_S: Final = 1.0
"""Where there is a hook, which sends no notice."""

_LOOK_WITHOUT_HOOK_EVERY_S: Final = 5.0
"""Of everything else notices tell."""

_LOOK_AT_MOST_EVERY_S: Final = 0.05
_DETECTED_WITHIN_S: Final = 0.3
_SHORT_LOOKS: Final = 2
"""Frames that bypass the hook are reported after this many looks that found more: one look alone may be timing."""

_FEW_FRAMES: Final = 64
_PART_TOLERATED: Final = 50
"""So many, or one in so many of those that came since the last look, may come between two readings."""


class Hook(Protocol):
    """A program at an interface's XDP hook, and what reads behind it."""

    def fault(self, programs: Collection[int]) -> str:
        """Return what has happened to the program, as a sentence; empty while it is in its place.

        Parameters
        ----------
        programs : collection of int
            Ids of the programs that the interface has.
        """

    def frames_seen(self) -> int:
        """Return how many frames came to it."""

    def follow_queues(self, queues: int) -> str:
        """Take note that there are so many receive queues now; return what came of it, in a sentence."""


class InterfaceWatch:
    """Watches one interface of the network namespace that it was made in, from `start` until `close`.

    Parameters
    ----------
    index : int
    name : str
    tell : callable
        Called by the watching thread with what has happened, a sentence each.
    hook : Hook, optional
    on_end : callable, optional
        Called by the watching thread once `ended` is set.
    down_is_the_end : bool
        An interface that is set down gives no more frames; if false, wait until it is up again.

    Attributes
    ----------
    ended : str
        Why the interface can be of no use any more, as a sentence without what to do; empty while it can.
    times_down : int
        How often it was set down.
    down_ns : int
        For how long altogether; what lasts is not in it.
    ahead_of_hook : int
        Frames that the interface has counted since the beginning, less those that the hook saw, as of the last look.
    past_the_hook : int
        Frames that the interface counted and the hook did not see, where that is no matter of when one looks.
    """

    def __init__(
        self,
        index: int,
        name: str,
        *,
        tell: Callable[[str], None],
        hook: Hook | None = None,
        on_end: Callable[[], None] = lambda: None,
        down_is_the_end: bool = False,
    ) -> None:
        self._index = index
        self._name = name
        self._hook = hook
        self._on_end = on_end
        self._down_is_the_end = down_is_the_end
        self._tell = tell
        self._thread: threading.Thread | None = None
        self._over = False
        self._has_ended = threading.Event()
        self.ended = ""
        self.times_down = self.down_ns = self.past_the_hook = 0
        self._asked = Rtnetlink()
        self._heard = Rtnetlink(groups=1 << RTNLGRP_LINK - 1)
        self._settings = _settings_changes()
        self._channels = ChannelReader()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        link = link_at(self._asked, index)
        self._look_every_s = _LOOK_WITHOUT_HOOK_EVERY_S if hook is None else LOOK_EVERY_S
        self._up = link is not None and link.up
        self._carrier = link is not None and bool(link.flags & IFF_LOWER_UP)
        self._since_ns = self._without_carrier_since_ns = time.monotonic_ns()
        self._queues = self._count_queues(link)
        self._received = 0 if link is None else link.counters.get("rx_packets", 0)
        self._seen = 0 if hook is None else hook.frames_seen()
        self.ahead_of_hook = self._short_looks = 0
        self._states: list[Link] = []
        self._deleted = self._moved = False

    def start(self) -> Self:
        """Begin to watch; the thread has the privileges of the calling one. May be called again."""
        if self._thread is not None:
            return self
        self._thread = threading.Thread(target=self._run, name="uspcap-watch", daemon=True)
        self._thread.start()
        return self

    def why_it_failed(self, otherwise: str) -> str:
        """Return what has become of the interface, where that is why something failed a moment ago.

        Parameters
        ----------
        otherwise : str
            What to return where it is still of use.
        """
        self._has_ended.wait(_DETECTED_WITHIN_S)
        return self.ended or otherwise

    def close(self) -> None:
        """End the watch; may be called again."""
        self._over = True
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)
            if self._thread is not None and self._thread is not threading.current_thread():
                self._thread.join()
            os.close(self._wake)
            self._wake = -1
            if self._thread is not None and not self.ended:
                # What happened a moment ago belongs to the accounts, too.
                with contextlib.suppress(OSError, BpfError):
                    self._look(last=True)
        self._asked.close()
        self._heard.close()
        if self._settings is not None:
            self._settings.close()
        self._channels.close()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._heard, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        if self._settings is not None:
            poll.register(self._settings, select.POLLIN)
        looked_s = time.monotonic()
        try:
            while not self._over and not self.ended:
                ready = poll.poll(max(0.0, looked_s + self._look_every_s - time.monotonic()) * 1000)
                if self._over:
                    return
                if ready and not (self._hear() | self._settings_changed()):
                    continue
                # Whoever floods us with notices about this interface does not make us look all the time.
                early_s = looked_s + _LOOK_AT_MOST_EVERY_S - time.monotonic()
                if early_s > 0:
                    time.sleep(early_s)
                looked_s = time.monotonic()
                self._look()
        except (OSError, BpfError) as error:
            self._tell(f"{self._name} is no longer watched: {error}")

    def _hear(self) -> bool:
        """Take note of what concerns this interface; False where nothing does, and nothing was lost."""
        before = len(self._states)
        moved = self._moved
        for notice in self._heard.notices():
            # Of other families are notices about a bridge's ports, whose end is not the interface's.
            if notice.kind in (RTM_NEWLINK, RTM_DELLINK) and notice.body[0] == socket.AF_UNSPEC:
                link = parse_link(notice.body)
                if link.index != self._index:
                    continue
                if notice.kind == RTM_NEWLINK:
                    self._states.append(link)
                else:
                    moved |= link.new_namespace is not None
                    self._deleted = True
        self._moved = moved
        overrun, self._heard.overrun = self._heard.overrun, False
        return overrun or self._deleted or len(self._states) > before

    def _settings_changed(self) -> bool:
        """Whether a driver's setting was changed, of this interface or another."""
        return self._settings is not None and bool(self._settings.notices())

    def _look(self, *, last: bool = False) -> None:
        link = link_at(self._asked, self._index)
        # Earlier notices are read by now, and only say how the interface got where it is.
        self._hear()
        states, self._states = self._states, []
        if link is None:
            self._end(self._away())
            return
        if link.name != self._name:
            self._tell(f"{self._name} was renamed to {link.name}")
            self._name = link.name
        for state in (*states, link):
            self._follow_state(state)
        if self._down_is_the_end and self.times_down:
            self._end(f"interface {self._name} was set down")
        elif self._hook is not None:
            changed = not last and self._follow_queues(link, self._hook)
            self._look_at_program(link, self._hook)
            if changed:
                # Until then, frames of queues that were added may have gone past the program.
                self.past_the_hook = max(self.past_the_hook, self.ahead_of_hook)

    def _look_at_program(self, link: Link, hook: Hook) -> None:
        self._compare_counters(link, hook)
        fault = hook.fault(link.programs)
        if fault:
            self.past_the_hook = max(0, self.ahead_of_hook)
            self._end(fault)

    def _away(self) -> str:
        if self._moved:
            return f"interface {self._name} was moved to another network namespace"
        successor = find_link(self._asked, self._name)
        if successor is not None:
            return f"interface {self._name} is gone, and another has its name"
        return f"interface {self._name} is gone"

    def _follow_state(self, link: Link) -> None:
        """Tell that the interface was set up or down, or that its carrier came or went."""
        now_ns = time.monotonic_ns()
        if link.up != self._up:
            self._up = link.up
            if link.up:
                self.down_ns += now_ns - self._since_ns
                self._tell(f"{self._name} is up again after {_seconds(now_ns - self._since_ns)}")
            else:
                self.times_down += 1
                if not self._down_is_the_end:
                    self._tell(f"{self._name} was set down: no frames until it is up")
            self._since_ns = now_ns
        carrier = bool(link.flags & IFF_LOWER_UP)
        if carrier != self._carrier:
            self._carrier = carrier
            if carrier and self._without_carrier_since_ns:
                away = _seconds(now_ns - self._without_carrier_since_ns)
                self._tell(f"{self._name} has a carrier again after {away}")
            elif not carrier and link.up:
                self._tell(f"{self._name} has lost its carrier")
            self._without_carrier_since_ns = 0 if carrier or not link.up else now_ns

    def _compare_counters(self, link: Link, hook: Hook) -> None:
        """Tell where the interface goes on receiving more than the hook sees.

        Drivers update their counters now and then, so that they lag behind the hook's; ahead they are only by what
        comes between two readings.
        """
        received = link.counters.get("rx_packets", 0)
        risen, self._received = received - self._received, received
        if risen <= 0:
            return
        seen = hook.frames_seen()
        seen_since, self._seen = seen - self._seen, seen
        before, self.ahead_of_hook = self.ahead_of_hook, self.ahead_of_hook + risen - seen_since
        more = self.ahead_of_hook > before and self.ahead_of_hook > max(_FEW_FRAMES, risen // _PART_TOLERATED)
        if self.ahead_of_hook > 0 and (more or not seen_since):
            self._short_looks += 1
            if self._short_looks >= _SHORT_LOOKS:
                self.past_the_hook = self.ahead_of_hook
            if self._short_looks == _SHORT_LOOKS:
                self._tell(
                    f"{self._name} has received {self.ahead_of_hook} frames that its XDP hook did not see: some "
                    "queues bypass it, or the NIC counts frames that it keeps or hands to others"
                )
        elif seen_since:
            if self._short_looks >= _SHORT_LOOKS:
                self._tell(f"the XDP hook of {self._name} sees all frames again")
            self._short_looks = 0

    def _follow_queues(self, link: Link, hook: Hook) -> bool:
        """Have the hook follow the number of receive queues; False where that is as before."""
        queues = self._count_queues(link)
        if queues == self._queues:
            return False
        self._queues = queues
        self._tell(hook.follow_queues(queues))
        return True

    def _count_queues(self, link: Link | None) -> int:
        return 0 if link is None else receive_queues(self._channels.read(link.name), link.receive_queues)

    def _end(self, why: str) -> None:
        self.ended = why
        self._has_ended.set()
        self._on_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _settings_changes() -> GenericNetlink | None:
    """Return a socket that hears of settings that ethtool changes; None from kernels before 5.6."""
    try:
        netlink = GenericNetlink("ethtool")
    except NetlinkRefusal:
        return None
    try:
        netlink.hear("monitor")
    except OSError:
        netlink.close()
        return None
    return netlink


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / 1e9:.1f} s"
