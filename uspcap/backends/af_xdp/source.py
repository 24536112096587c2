"""AF_XDP: frames that match are taken at the driver's hook and never reach the kernel's stack.

Every receive queue has a socket with memory of its own. The program goes on last, when all sockets have chunks to
fill, and comes off first. What does not match the filter goes to the kernel untouched.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Collection, Sequence
from functools import reduce
from operator import add
from queue import Empty, SimpleQueue
from typing import Final, Literal

from uspcap.backends.af_xdp.busy_poll import DeferredInterrupts
from uspcap.backends.af_xdp.xsk_socket import XdpStatistics, XskSocket
from uspcap.backends.base import (
    DEFAULT_SNAPLEN,
    FRAMES_THAT_TELL,
    HAND_OVER_NS,
    Description,
    SourceStatistics,
    idle_hook,
)
from uspcap.backends.carrier_wait import CarrierWait
from uspcap.backends.chunks import CHUNK_SIZES, chunk_bytes_for, longest_frame_bytes, usable_bytes
from uspcap.backends.driver_facts import (
    FRAMES_OF_OTHERS,
    LINK_LEFT_ALONE,
    LINK_TAKEN_DOWN,
    driver_of,
    why_native_is_vain,
)
from uspcap.backends.gathering import FillNotices
from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.promiscuous import promiscuous_socket
from uspcap.backends.rings import RingCounts, RingSource
from uspcap.bpf.attach import Attachment, AttachMode, CaptureMaps, attach_capture
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.xdp_program import Counter
from uspcap.capabilities import UMEM_BYTES
from uspcap.errors import CaptureError, UspcapError
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.network.interface_use import LiveState, refuse_if_in_use, say_uses, uses
from uspcap.network.netlink import Rtnetlink
from uspcap.network.watch import Hook
from uspcap.timestamps import Timestamps
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.timestamping import Timestamping

BestXdp = Literal["zero-copy", "copy", "skb"]
"""How frames come from the driver: into uspcap's memory by the NIC; copied at the driver's hook; copied after it."""

DEFAULT_BUFFER_BYTES: Final = UMEM_BYTES
"""Size of all UMEMs together: on one queue, 13 ms of 64-byte frames at 2.5 million a second, and half of that where
frames need chunks of 4 KiB, as most do with zero copy.

More where the NIC's rings hold more: with zero copy, a driver keeps as many chunks as its ring has entries, and those
on the socket's ring come on top.
"""

SMALLEST_CHUNK_COUNT: Final = 256

_SAFE_NAP_NS_PER_CHUNK: Final = 50
"""How long frames may gather before they are read: ten million a second then fill half of the ring."""

_SHORTEST_NAP_NS: Final = 100_000
"""Of less, the system's timers make as much."""

_LONGEST_NAP_NS: Final = 2_000_000
"""Where no other latency is asked for."""

_NOTICES_A_RING: Final = 4
"""How often the hook notifies per ringful of frames, on each CPU: the reader takes note of one that came while
it was about to sleep, so that two may pass before it wakes."""


class AfXdpSource(RingSource):
    """Captures on an interface through an AF_XDP socket for each receive queue.

    Parameters
    ----------
    interface : str
        Name, as `ip link` shows it.
    expression : str
        Filter as of pcap-filter(7); runs at the hook.
    snaplen : int
        Bytes kept of each frame.
    promiscuous : bool
        See what is for other stations too; ends with the process.
    buffer_bytes : int, optional
        Of all UMEMs together, `DEFAULT_BUFFER_BYTES` or what the NIC's rings ask for by default; each gets a power
        of two of chunks.
    take_all : bool
        Take every frame even of an interface that the host uses itself.
    timestamps : Timestamps
        Who is to timestamp: the NIC, where the driver hands its timestamps to XDP programs, the hook, or the reader.
    calls : KernelCalls, optional
        For timestamping.
    busy_poll_us : int, optional
        Drive the driver's queues from the reader, which then never sleeps; the interface's interrupts are held back
        for that, until `close` or the end of the process.
    best : {'zero-copy', 'copy', 'skb'}
        The best way to try; the others follow where it is refused.
    link_reset : bool
        A driver may take the link down to attach XDP. Where it may not, native XDP is left to drivers that are known
        to leave the link alone.
    announce : callable
        Called with a line for each thing that is about to be done to an interface that others use.
    latency_ns : int, optional
        How long frames may wait on their ring for others, so that the reader is woken for many at a time.
    hand_over_ns : int
        How long frames that were read may wait in a batch for others.
    modes : sequence of AttachMode
        Which to try, in this order; DEVICE_BOUND is of use for hardware timestamps only.

    Raises
    ------
    UsageError
        Every frame of an interface in use would be taken, or the kernel is to timestamp.
    CaptureError
        There is no such interface, or a queue cannot be had.
    HookOccupied
        Another's XDP program is attached.
    PermissionDenied
        A capability is missing.
    FilterError, MissingFeature
        The filter does not compile, or cannot run at the hook.
    """

    backend = "af_xdp"
    settling_ms = 20
    """After the program came off, what it had redirected is on the ring by then."""
    lag_ns = 5_000_000
    """A driver hands over what it received in one go, some tens of frames, at the end of that."""

    def __init__(
        self,
        interface: str,
        expression: str = "",
        *,
        snaplen: int = DEFAULT_SNAPLEN,
        promiscuous: bool = True,
        buffer_bytes: int | None = None,
        take_all: bool = False,
        timestamps: Timestamps = "auto",
        calls: KernelCalls | None = None,
        busy_poll_us: int | None = None,
        best: BestXdp = "zero-copy",
        link_reset: bool = True,
        announce: Callable[[str], None] = lambda line: None,
        latency_ns: int | None = None,
        hand_over_ns: int = HAND_OVER_NS,
        modes: Sequence[AttachMode] = tuple(AttachMode),
    ) -> None:
        network_interface = NetworkInterface.look_up(interface)
        self._unseen_uses = ""
        if not expression.strip() and not take_all:
            self._unseen_uses = refuse_if_in_use(
                network_interface.index,
                "every frame",
                "give a filter, or --take-all if you mean it, or use the packet_mmap backend",
            )
        self._program = list(compile_filter(expression, network_interface.link_type)) if expression.strip() else None
        # Before any socket: switching timestamping on can make a driver set up its rings again.
        timestamping = Timestamping(network_interface.name, timestamps, TimestampSource.XDP, calls)
        queues = network_interface.queues
        self._buffer_bytes = buffer_bytes
        self._ring_frames = network_interface.ring_frames
        self._queues = queues
        # As where frames are copied: who grants what is known only when the rings are there.
        chunk_bytes = chunk_bytes_for(network_interface.mtu, zero_copy=False) or CHUNK_SIZES[-1]
        room = usable_bytes(chunk_bytes, zero_copy=False)
        chunks_a_frame = -(-longest_frame_bytes(network_interface.mtu) // room)
        self._nap_ns, notice_every = _gathering(self._chunks_of(chunk_bytes), chunks_a_frame, latency_ns)
        if busy_poll_us is not None:
            self._nap_ns = notice_every = 0
        try:
            super().__init__(network_interface, expression, snaplen, timestamping)
            self._maps = CaptureMaps(network_interface.most_queues, notice_every)
        except BaseException:
            timestamping.close()
            raise
        filling = self._maps.filling
        self._notices = None if filling is None else FillNotices(filling.ours, filling.kernels, filling.fd)
        self._snaplen = snaplen
        self._driver = driver_of(network_interface.name)
        self._refusals: list[str] = []
        self._link_remarks: list[str] = []
        self._modes = self._modes_to_try(modes, best, link_reset)
        self._busy_poll_us = busy_poll_us
        self._deferred_interrupts: DeferredInterrupts | None = None
        self._leaving: CarrierWait | None = None
        self._parting_remarks: list[str] = []
        self._cookie = secrets.randbits(64) | 1  # 0 would be none
        self._final: SourceStatistics | None = None
        self._sockets: list[XskSocket] = []
        self._added: SimpleQueue[XskSocket] = SimpleQueue()
        self._queues_covered = 0
        self._unseen = 0
        self._membership: socket.socket | None = None
        self._attachment: Attachment | None = None
        try:
            if busy_poll_us is not None:
                self._deferred_interrupts = DeferredInterrupts(self._interface)
            self._open_sockets(zero_copy=best == "zero-copy" and self._modes != [AttachMode.SKB])
            if promiscuous:
                self._membership = promiscuous_socket(self._interface)
            self._mode = self._take_hook(announce)
            self._count_from_now()
            self._read_in_turn(
                [xsk.queue for xsk in self._sockets],
                [xsk.fileno() for xsk in self._sockets],
                nap_ns=self._nap_ns,
                notices=self._notices,
                hand_over_ns=0 if busy_poll_us is not None else hand_over_ns,
                spinning=busy_poll_us is not None,
                follows_tai=True,
            )
            if timestamping.hardware and self._mode is not AttachMode.DEVICE_BOUND:
                timestamping.give_up_hardware(f"it granted {self._mode.value} XDP only, without them")
                self._timestamped.expect(timestamping.expected)
        except BaseException:
            self.close()
            raise

    def _take_hook(self, announce: Callable[[str], None]) -> AttachMode:
        """Attach the program, in the best way that the driver grants, wait for the link, and return which way it is."""
        numbers = {number for xsk in self._sockets for number in xsk.refusal_numbers}
        if vain := why_native_is_vain(self._driver, numbers):
            self._refusals.append(f"native XDP is not used: {vain}")
            self._modes = [AttachMode.SKB]
        self._warn_of_link_reset(announce)
        link = CarrierWait(self._interface)
        self._attachment = self._attach(self._modes)
        if self._attachment.mode is AttachMode.SKB and any(xsk.zero_copy for xsk in self._sockets):
            # Generic XDP copies; sockets that wait for the driver would get nothing.
            self._attachment.close()
            self._close_sockets()
            self._open_sockets(zero_copy=False)
            self._attachment = self._attach([AttachMode.SKB])
        self._refusals += [
            f"{refusal.mode.value} XDP was refused: {refusal.reason}" for refusal in self._attachment.refusals
        ]
        away_s = link.wait()
        if away_s:
            self._link_remarks.append(
                f"the link of {self._interface.name} was down for {away_s:.1f} s, as {self._driver or 'its driver'} "
                "took it down to attach XDP, and will be so again at the end (--no-link-reset refuses that)"
            )
        return self._attachment.mode

    @property
    def ring_count(self) -> int:
        return len(self._sockets)

    @property
    def most_rings(self) -> int:
        return self._interface.most_queues

    def _hook(self) -> Hook:
        return self

    def fault(self, programs: Collection[int]) -> str:
        """Return what has happened to the program, for the watch over the interface."""
        assert self._attachment is not None, "a program that is watched is attached"
        return self._attachment.fault(programs)

    def frames_seen(self) -> int:
        """Return how many frames came to the hook."""
        return self._maps.frames_seen()

    def follow_queues(self, queues: int) -> str:
        """Have sockets on receive queues that were added; the reader takes them over when it comes to it."""
        name = self._interface.name
        said = f"{name} has {queues} receive queue" + ("s now" if queues != 1 else " now")
        new = range(self._queues_covered, queues)
        if not new:
            return said
        assert self._attachment is not None, "a program that is watched is attached"
        try:
            for number in new:
                self._added.put(self._open_socket(number, zero_copy=self._sockets[0].zero_copy))
                self._queues_covered = number + 1
            self._attachment.renew()
        except UspcapError as error:
            with contextlib.suppress(UspcapError):
                self._attachment.renew()  # so that what has no socket is counted
            lacking = ", ".join(map(str, new))
            return f"{said}, and frames of queue {lacking} may go to the kernel, and not be captured: {error}"
        return f"{said}, and uspcap reads them all"

    def _refuse_more(self) -> None:
        if self._attachment is not None:
            self._detach()

    def _detach(self) -> None:
        assert self._attachment is not None
        if self._leaving is None:
            self._leaving = CarrierWait(self._interface)
        self._attachment.close()

    def parting_remarks(self) -> tuple[str, ...]:
        return tuple(self._parting_remarks)

    def statistics(self) -> SourceStatistics:
        return super().statistics() if self._final is None else self._final

    def _counts(self) -> RingCounts:
        queues = self._maps.read_counters()
        hook = {counter: sum(counts[counter] for counts in queues) for counter in Counter}
        in_vain = (
            self._busy_poll_us is not None
            and self._delivered
            and not any(xsk.driver_is_polled for xsk in self._sockets)
        )
        kernel = reduce(add, (xsk.statistics() for xsk in self._sockets), XdpStatistics())
        return RingCounts(
            received=hook[Counter.MATCHED],
            dropped={
                "socket": {"ring full": kernel.ring_full, "too long, or no chunk free": kernel.dropped},
                "xdp": {
                    "no socket on the queue, passed to the kernel": hook[Counter.NO_SOCKET],
                },
                "reader": {"malformed descriptor": sum(xsk.queue.malformed for xsk in self._sockets)},
            },
            seen=hook[Counter.SEEN],
            remarks={
                "times that the kernel found the fill ring empty": kernel.fill_ring_empty,
                "addresses on the fill ring that the kernel refused": kernel.invalid,
                "receive queues that the kernel did not let uspcap poll": len(self._sockets) if in_vain else 0,
                "frames without the hook's timestamp, timestamped when they were read": (
                    0 if self._timestamping.user else sum(xsk.queue.without_timestamp for xsk in self._sockets)
                ),
                "frames shorter than their IP header says": sum(xsk.queue.truncated for xsk in self._sockets),
            },
            cut=sum(xsk.queue.cut for xsk in self._sockets),
        )

    def describe(self) -> Description:
        copying = "zero copy" if all(xsk.zero_copy for xsk in self._sockets) else "copy"
        fragments = all(xsk.fragments for xsk in self._sockets)
        memory = f"{sum(xsk.chunks * xsk.chunk_bytes for xsk in self._sockets) >> 10} KiB"
        if all(xsk.huge_pages for xsk in self._sockets):
            memory += " in huge pages"
        polling = f", frames gather for up to {self._nap_ns / 1e6:.2g} ms while they come" if self._nap_ns else ""
        if self._busy_poll_us is not None:
            polling = f", busy polling {self._busy_poll_us} us"
        remarks = [
            *self._timestamping.remarks,
            *self._link_remarks,
            *self._refusals,
            *self._interface.alterations("skb" if self._mode is AttachMode.SKB else "driver"),
        ]
        if copying == "copy" and self._sockets[0].refusals:
            remarks.append(f"no zero copy: {'; '.join(self._sockets[0].refusals)}")
        if self._deferred_interrupts is not None:
            remarks += self._deferred_interrupts.remarks
        chunks = min(xsk.chunks for xsk in self._sockets)
        if chunks < _chunks_for_ring(self._interface.ring_frames):
            remarks.append(
                f"the NIC's rings hold {self._interface.ring_frames} frames each, and {chunks} chunks a queue "
                "may be too few for them with zero copy: leave -B out, or raise it"
            )
        if not fragments and copying == "copy":
            longest = usable_bytes(self._sockets[0].chunk_bytes, zero_copy=False)
            remarks.append(
                f"frames longer than {longest} bytes are dropped, and counted with those that found no chunk free"
            )
        if not self._interface.up:
            remarks.append(f"{self._interface.name} is down: no frames until it is up")
        if self._program is None:
            remarks.append(f"every frame of {self._interface.name} is taken from the kernel")
        if self._unseen_uses:
            remarks.append(self._unseen_uses)
        return Description(
            self._interface.name,
            self.backend,
            f"{self._mode.value} XDP, {copying}, {memory}{polling}",
            len(self._sockets),
            self._interface.queues,
            str(self._timestamping),
            tuple(remarks),
        )

    def capabilities_needed(self) -> frozenset[str]:
        if self._attachment is not None:
            self._attachment.prepare_for_changes()
        return super().capabilities_needed()

    def close(self) -> None:
        if self._final is not None:
            return
        self._end_watch()
        try:
            if self._attachment is not None:
                self._detach()
            self._final = self.statistics()
            # First of all: to close sockets with zero copy may take longer than the link is away.
            away_s = 0.0 if self._leaving is None else self._leaving.wait()
            if away_s:
                self._parting_remarks.append(
                    f"the link of {self._interface.name} was down for {away_s:.1f} s after XDP was detached"
                )
            self._close_sockets()
            if self._deferred_interrupts is not None:
                self._deferred_interrupts.close()
            if self._membership is not None:
                self._membership.close()
            if self._notices is not None:
                self._notices.close()
            self._maps.close()
        finally:
            self._timestamping.close()

    def _modes_to_try(self, modes: Sequence[AttachMode], best: BestXdp, link_reset: bool) -> list[AttachMode]:
        """Return the modes that this driver can be used in, best first; why others are left out is in `_refusals`."""
        wanted = [mode for mode in modes if self._timestamping.hardware or mode is not AttachMode.DEVICE_BOUND]
        if best == "skb":
            return [AttachMode.SKB]
        if AttachMode.SKB not in wanted:
            return wanted
        why = FRAMES_OF_OTHERS.get(self._driver, "")
        if not link_reset and self._driver not in LINK_LEFT_ALONE:
            known = "takes" if self._driver in LINK_TAKEN_DOWN else "may take"
            why = f"{self._driver or 'the driver'} {known} the link down for it, which --no-link-reset refuses"
        if why:
            self._refusals.append(f"native XDP is not used: {why}")
            return [AttachMode.SKB]
        return wanted

    def _warn_of_link_reset(self, announce: Callable[[str], None]) -> None:
        """Say beforehand that the link will be away, where that cuts others off."""
        if self._driver in LINK_TAKEN_DOWN and self._modes != [AttachMode.SKB]:
            users = _users_of(self._interface.index)
            if users:
                announce(
                    f"{users}: {self._driver} takes the link of {self._interface.name} down now, and again at the end "
                    "(--no-link-reset refuses that)"
                )

    def _chunks_of(self, chunk_bytes: int) -> int:
        """Return how many chunks of a size each queue gets."""
        fitting = _chunk_count((self._buffer_bytes or DEFAULT_BUFFER_BYTES) // self._queues, chunk_bytes)
        return max(fitting, _chunks_for_ring(self._ring_frames)) if self._buffer_bytes is None else fitting

    def _open_sockets(self, *, zero_copy: bool) -> None:
        for number in range(self._interface.queues):
            self._sockets.append(self._open_socket(number, zero_copy=zero_copy))
        self._queues_covered = self._interface.queues

    def _open_socket(self, number: int, *, zero_copy: bool) -> XskSocket:
        """Return a socket that gets the frames of a receive queue from now on."""
        opened = XskSocket(
            self._interface,
            number,
            chunks_of=self._chunks_of,
            snaplen=self._snaplen,
            hardware_timestamps=self._timestamping.hardware,
            interfaces=self._timestamped.table,
            cookie=self._cookie,
            zero_copy=zero_copy,
            busy_poll_us=self._busy_poll_us,
        )
        try:
            self._maps.set_socket(number, opened.fileno())
        except BaseException:
            opened.close()
            raise
        return opened

    def _adopt_added(self) -> None:
        """Read the rings of sockets that were added."""
        while True:
            try:
                added = self._added.get_nowait()
            except Empty:
                return
            self._sockets.append(added)
            if self._gatherer is not None:
                self._gatherer.add(added.queue, added.fileno())

    def _close_sockets(self) -> None:
        self._adopt_added()
        sockets, self._sockets = self._sockets, []
        for xsk in sockets:
            xsk.close()

    def _attach(self, modes: Sequence[AttachMode]) -> Attachment:
        metadata = not self._timestamping.user
        return attach_capture(
            self._interface.name, self._program, self._maps, modes=modes, metadata=metadata, cookie=self._cookie
        )

    def _gather(self, batch: FrameBatch, timeout_ns: int) -> int:
        self._adopt_added()
        read_at_ns = time.time_ns()
        end = self._gathered(batch, self._timestamping.tai.refresh(), timeout_ns)
        self._timestamping.tai.correct(batch, read_at_ns)
        self._lossy = self._lossy or any(xsk.queue.lossy for xsk in self._sockets)
        return end

    def _socket_error(self) -> int:
        assert self._gatherer is not None
        (one,) = (xsk for xsk in self._sockets if xsk.fileno() == self._gatherer.troubled)
        return one.take_error()

    def _look_after(self) -> None:
        before, self._unseen = self._unseen, 0 if self._watch is None else self._watch.ahead_of_hook
        # Counted at the last look: the hook has had a second to see them.
        if min(before, self._unseen) >= FRAMES_THAT_TELL and not self.frames_seen():
            raise CaptureError(idle_hook(self._interface.name, self._unseen))
        for xsk in self._sockets:
            xsk.queue.ask_for_losses()


def _users_of(index: int) -> str:
    """Return how the host uses an interface, as the beginning of a sentence; empty where it does not."""
    with Rtnetlink() as netlink:
        return say_uses(uses(LiveState.ask(netlink), index))


def _gathering(chunks: int, chunks_a_frame: int, latency_ns: int | None) -> tuple[int, int]:
    """Return for how long frames may gather on a ring, and of how many the hook must tell that they came meanwhile.

    0 ns: the kernel wakes the reader for each; 0 frames: the ring holds what can come in that time.
    """
    safe_ns = chunks * _SAFE_NAP_NS_PER_CHUNK // chunks_a_frame
    nap_ns = min(_LONGEST_NAP_NS, safe_ns) if latency_ns is None else latency_ns
    if nap_ns < _SHORTEST_NAP_NS:
        return 0, 0
    notice_every = 1 << (chunks // chunks_a_frame // _NOTICES_A_RING).bit_length() - 1
    return nap_ns, notice_every if nap_ns > safe_ns else 0


def _chunk_count(memory_bytes: int, chunk_bytes: int) -> int:
    """Return the highest power of two of chunks that fits, SMALLEST_CHUNK_COUNT at least."""
    fitting = max(SMALLEST_CHUNK_COUNT, memory_bytes // chunk_bytes)
    return 1 << fitting.bit_length() - 1


def _chunks_for_ring(frames: int) -> int:
    """Return the lowest power of two of chunks that fill a NIC's ring and the socket's as well; 0 for no ring."""
    return 1 << (2 * frames - 1).bit_length() if frames else 0
