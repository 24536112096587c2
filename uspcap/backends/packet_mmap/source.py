"""PACKET_MMAP: the kernel's own copy of each frame, through TPACKET_V3 receive rings.

Nothing is taken from the kernel: it goes on as if nobody looked. The steps of setting up are in an order that
lets no frame be counted before everything is ready: each socket is bound with a filter that rejects all, joins
its fanout group, and only then gets the filter that was asked for.

References
----------
packet(7); Documentation/networking/packet_mmap.rst; net/packet/af_packet.c.
"""

from __future__ import annotations

import ctypes
import mmap
import re
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from uspcap.backends.base import (
    DEFAULT_SNAPLEN,
    HAND_OVER_NS,
    Description,
)
from uspcap.backends.declaration import Direction
from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.packet_mmap.tpacket import PacketRing
from uspcap.backends.promiscuous import add_membership
from uspcap.backends.refusals import cannot_have_packet_ring, cannot_open_socket, cannot_set_up_packet_socket
from uspcap.backends.rings import RingCounts, RingSource
from uspcap.bpf.classic import BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, as_array, compile_filter
from uspcap.bpf.filters import FrameFilter
from uspcap.errors import CaptureError, UsageError
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.timestamps import Timestamps
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.timestamping import Timestamping

Fanout = Literal["cpu", "hash", "qm"]

BLOCK_BYTES: Final = 1 << 18
"""Size of a block: one frame must fit in it, and a merged one may have 64 KiB and more."""

BLOCK_TIMEOUT_MS: Final = 20
"""A block that is not full is handed over after so long, where nothing else is asked for: it delays frames, not their
timestamps."""

DEFAULT_BUFFER_BYTES: Final = 32 << 20
"""Size of all rings together."""

# linux/if_packet.h.
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_TIMESTAMP: Final = 17
_PACKET_FANOUT: Final = 18
_PACKET_IGNORE_OUTGOING: Final = 23
_PACKET_OUTGOING: Final = 4
_TPACKET_V3: Final = 2
_PACKET_FANOUT_MODES: Final[dict[Fanout, int]] = {"hash": 0, "cpu": 2, "qm": 5}
_PACKET_FANOUT_FLAG_UNIQUEID: Final = 0x2000

_ETH_P_ALL: Final = 3
_SO_ATTACH_FILTER: Final = 26
_SO_TIMESTAMPNS: Final = 35
_SOF_TIMESTAMPING_SOFTWARE: Final = 1 << 4
_SOF_TIMESTAMPING_RAW_HARDWARE: Final = 1 << 6
_SKF_AD_PKTTYPE: Final = 0xFFFFF000 + 4  # linux/filter.h: SKF_AD_OFF + SKF_AD_PKTTYPE

_STATISTICS: Final = struct.Struct("=III")  # struct tpacket_stats_v3
_REJECT_ALL: Final = as_array([(BPF_RET | BPF_K, 0, 0, 0)])
_ONLY_OUTGOING: Final = (
    (BPF_LD | BPF_W | BPF_ABS, 0, 0, _SKF_AD_PKTTYPE),
    (BPF_JMP | BPF_JEQ | BPF_K, 1, 0, _PACKET_OUTGOING),
    (BPF_RET | BPF_K, 0, 0, 0),
)


@dataclass(slots=True)
class _Socket:
    """One socket with its ring, whose frames have `number` as their queue."""

    number: int
    socket: socket.socket
    memory: mmap.mmap
    ring: PacketRing
    packets: int = 0
    drops: int = 0
    freezes: int = 0
    drops_reported: int = 0
    counting: threading.Lock = field(default_factory=threading.Lock)

    def count(self) -> None:
        """Add what the kernel counted since the last call: it starts from 0 at each reading."""
        # Who asks how it stands need not be the thread that reads.
        with self.counting:
            if self.socket.fileno() < 0:
                return
            packets, drops, freezes = _STATISTICS.unpack(
                self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
            )
            self.packets += packets
            self.drops += drops
            self.freezes += freezes

    def tell_drops(self, batch: FrameBatch) -> bool:
        """Have a frame say how many were lost before it: the first of a block that came after the loss.

        Parameters
        ----------
        batch : FrameBatch
            Filled just now.

        Returns
        -------
        bool
            Whether one says so.
        """
        losing_row = self.ring.losing_row
        if losing_row >= 0:
            self.count()
        if self.drops == self.drops_reported:
            return False
        mine = np.flatnonzero(batch.column("queue") == self.number)
        if not len(mine):
            return False
        # Where the block has given no frame yet, or others have asked the kernel meanwhile, the first there is.
        row = losing_row if losing_row in mine else int(mine[0])
        batch.storage("drop_count")[row] += self.drops - self.drops_reported
        self.drops_reported = self.drops
        return True

    def close(self) -> None:
        self.count()
        self.ring.close()
        self.memory.close()
        self.socket.close()


class PacketMmapSource(RingSource):
    """Captures on an interface through one TPACKET_V3 ring, or several in a fanout group.

    Parameters
    ----------
    interface : str
        Name, as `ip link` shows it.
    expression : str
        Filter as of pcap-filter(7). It runs in the kernel; where it tests VLAN tags, it runs after the ring,
        because the kernel's frames have their tags taken out and this class puts them back.
    snaplen : int
        Bytes kept of each frame.
    promiscuous : bool
        See what is for other stations too; ends with the process.
    direction : {'in', 'out', 'inout'}
        Frames received, sent by this host, or both. On the loopback, which both sends and receives each frame,
        'inout' gives each once.
    buffer_bytes : int
        Of all rings together; at least two blocks each.
    fanout : {'cpu', 'hash', 'qm'}, optional
        How frames are spread over rings: by the CPU that received them, by flow, by receive queue. Order holds
        within a ring.
    rings : int
        How many; more than one needs `fanout`.
    timestamps : Timestamps
        Who is to timestamp: the NIC, where it does, the kernel, or the reader of the ring.
    calls : KernelCalls, optional
        For timestamping.
    latency_ns : int, optional
        How long the kernel may gather frames in a block before it hands them over; whole milliseconds.
    hand_over_ns : int
        How long frames that were read may wait in a batch for others.

    Raises
    ------
    CaptureError
        There is no such interface, or the ring cannot be had.
    PermissionDenied
        CAP_NET_RAW is missing.
    FilterError, MissingFeature
        The filter does not compile.
    """

    backend = "packet_mmap"
    lag_ns = 50_000_000
    """A ring's block may be full at once, another's waits for its time to be up."""

    def __init__(
        self,
        interface: str,
        expression: str = "",
        *,
        snaplen: int = DEFAULT_SNAPLEN,
        promiscuous: bool = True,
        direction: Direction = "inout",
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        fanout: Fanout | None = None,
        rings: int = 1,
        timestamps: Timestamps = "auto",
        calls: KernelCalls | None = None,
        latency_ns: int | None = None,
        hand_over_ns: int = HAND_OVER_NS,
    ) -> None:
        if rings > 1 and fanout is None:
            raise UsageError(f"{rings} rings need a fanout mode: cpu, hash or qm")
        network_interface = NetworkInterface.look_up(interface)
        self._filter = FrameFilter(expression) if re.search(r"\bvlan\b", expression) else None
        self._program = kernel_program(
            "" if self._filter else expression, network_interface.link_type, snaplen, direction
        )
        timestamping = Timestamping(network_interface.name, timestamps, TimestampSource.KERNEL, calls)
        try:
            super().__init__(network_interface, expression, snaplen, timestamping)
        except BaseException:
            timestamping.close()
            raise
        self._block_timeout_ms = BLOCK_TIMEOUT_MS if latency_ns is None else max(1, latency_ns // 1_000_000)
        # What the kernel has put in a block is handed over when that block's time is up.
        self.settling_ms = 3 * self._block_timeout_ms
        self._fanout = fanout
        self._promiscuous = promiscuous
        self._so_timestamping = _SOF_TIMESTAMPING_SOFTWARE
        if timestamping.hardware:
            self._so_timestamping |= _SOF_TIMESTAMPING_RAW_HARDWARE
        # The loopback's frames come back in: with both directions each would be duplicated.
        loopback = self._interface.name == "lo"
        self._ignore_outgoing = direction == "in" or (direction == "inout" and loopback)
        self._snaplen = snaplen
        self._block_count = max(2, buffer_bytes // rings // BLOCK_BYTES)
        self._sockets: list[_Socket] = []
        try:
            for number in range(rings):
                self._sockets.append(self._open(number))
            self._join_fanout()
            for ring_socket in self._sockets:
                ring_socket.count()
                ring_socket.packets = ring_socket.drops = ring_socket.freezes = 0
                self._attach(ring_socket.socket, self._program)
            self._read_in_turn(
                [ring_socket.ring for ring_socket in self._sockets],
                [ring_socket.socket.fileno() for ring_socket in self._sockets],
                hand_over_ns=hand_over_ns,
                held_back_ns=2 * self._block_timeout_ms * 1_000_000,
            )
        except BaseException:
            self.close()
            raise

    @property
    def ring_count(self) -> int:
        return len(self._sockets)

    def capabilities_needed(self) -> frozenset[str]:
        if self._filter is not None:
            # On no frames: libpcap is loaded and the filter compiled while its files can still be read.
            self._batch.set_interfaces(self._timestamped.known)
            self._filter.apply(self._batch)
        return super().capabilities_needed()

    def _refuse_more(self) -> None:
        for ring_socket in self._sockets:
            self._attach(ring_socket.socket, _REJECT_ALL)

    def _counts(self) -> RingCounts:
        for ring_socket in self._sockets:
            ring_socket.count()
        return RingCounts(
            received=sum(ring_socket.packets for ring_socket in self._sockets),
            dropped={
                "socket": {"ring full": sum(ring_socket.drops for ring_socket in self._sockets)},
                "reader": {"malformed block": sum(ring_socket.ring.malformed for ring_socket in self._sockets)},
            },
            remarks={
                "frames cut because they did not fit in a block": sum(
                    ring_socket.ring.frames_cut for ring_socket in self._sockets
                ),
                "times that a ring was found full": sum(ring_socket.freezes for ring_socket in self._sockets),
            },
        )

    def describe(self) -> Description:
        memory = self._block_count * BLOCK_BYTES * len(self._sockets) >> 20
        rings = f"{len(self._sockets)} ring" + ("s" if len(self._sockets) > 1 else "")
        mode = f"TPACKET_V3, {rings}, {memory} MiB, blocks handed over after {self._block_timeout_ms} ms"
        if self._fanout is not None:
            mode += f", fanout {self._fanout}"
        remarks = (*self._timestamping.remarks, *self._interface.alterations("stack"))
        if self._filter is not None:
            remarks += ("the filter tests VLAN tags, so it runs after the ring",)
        if not self._interface.up:
            remarks += (f"{self._interface.name} is down: no frames until it is up",)
        queues = self._interface.queues
        return Description(self._interface.name, self.backend, mode, queues, queues, str(self._timestamping), remarks)

    def close(self) -> None:
        self._end_watch()
        try:
            for ring_socket in self._sockets:
                ring_socket.close()
        finally:
            self._timestamping.close()

    def _gather(self, batch: FrameBatch, timeout_ns: int) -> int:
        end = super()._gather(batch, timeout_ns)
        for ring_socket in self._sockets:
            self._lossy |= ring_socket.tell_drops(batch)
        return end

    def _take_unfinished(self, count: int) -> bool:
        if sum(ring_socket.ring.unfinished for ring_socket in self._sockets) != count:
            return False
        self._batch.count = used = 0
        for ring_socket in self._sockets:
            used = ring_socket.ring.drain_unfinished(self._batch, used, time.time_ns())
        self._finish_batch()
        return True

    def _after_drain(self, batch: FrameBatch) -> None:
        if self._filter is None:
            return
        if not self._lossy:
            self._filter.apply(batch)
            return
        rows = np.flatnonzero(batch.column("drop_count"))
        losses = zip(batch.frame_number[rows].tolist(), batch.column("drop_count")[rows].tolist(), strict=True)
        batch.storage("drop_count").fill(0)
        self._filter.apply(batch)
        for number, lost in losses:
            # Where the frame that was to say it is out, the next one does.
            row = int(np.searchsorted(batch.frame_number, number))
            if row < batch.count:
                batch.storage("drop_count")[row] += lost
            else:
                self._sockets[0].drops_reported -= lost

    def _socket_error(self) -> int:
        assert self._gatherer is not None
        (one,) = (
            ring_socket for ring_socket in self._sockets if ring_socket.socket.fileno() == self._gatherer.troubled
        )
        return one.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def _open(self, number: int) -> _Socket:
        """Return a bound socket with its ring, that rejects all frames."""
        name = self._interface.name
        try:
            # Without a protocol, nothing comes before bind.
            raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        except OSError as error:
            raise cannot_open_socket(error.errno or 0, "a packet socket", name) from None
        try:
            self._attach(raw, _REJECT_ALL)
            raw.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            raw.setsockopt(_SOL_PACKET, _PACKET_TIMESTAMP, self._so_timestamping)
            raw.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if self._ignore_outgoing:
                raw.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            ring = self._set_up_ring(raw)
            memory = self._map_ring(raw)
            if self._promiscuous:
                add_membership(raw, self._interface)
            raw.bind((name, _ETH_P_ALL))
        except OSError as error:
            raw.close()
            raise cannot_set_up_packet_socket(error.errno or 0, name) from error
        except BaseException:
            raw.close()
            raise
        packet_ring = PacketRing(
            memory,
            BLOCK_BYTES,
            ring,
            self._snaplen,
            self._interface.ethernet,
            number,
            self._timestamping.user,
            self._timestamped.table,
        )
        return _Socket(number, raw, memory, packet_ring)

    def _set_up_ring(self, raw: socket.socket) -> int:
        """Ask for the ring and return how many blocks it has."""
        # struct tpacket_req3; the size of a frame bounds nothing in this version, it only must divide a block.
        request = struct.pack(
            "=7I", BLOCK_BYTES, self._block_count, BLOCK_BYTES, self._block_count, self._block_timeout_ms, 0, 0
        )
        try:
            raw.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        except OSError as error:
            size = self._block_count * BLOCK_BYTES
            raise cannot_have_packet_ring(error.errno or 0, size, self._interface.name) from error
        return self._block_count

    def _map_ring(self, raw: socket.socket) -> mmap.mmap:
        size = self._block_count * BLOCK_BYTES
        try:
            return mmap.mmap(raw.fileno(), size)
        except OSError as error:
            raise cannot_have_packet_ring(error.errno or 0, size, self._interface.name) from error

    def _join_fanout(self) -> None:
        """Put all sockets into one group, whose id the kernel chooses so that no other's is met."""
        if self._fanout is None:
            return
        mode = _PACKET_FANOUT_MODES[self._fanout]
        wanted = (mode | _PACKET_FANOUT_FLAG_UNIQUEID) << 16
        try:
            for ring_socket in self._sockets:
                ring_socket.socket.setsockopt(_SOL_PACKET, _PACKET_FANOUT, wanted)
                if ring_socket is self._sockets[0]:
                    obtained = ring_socket.socket.getsockopt(_SOL_PACKET, _PACKET_FANOUT)
                    wanted = mode << 16 | obtained & 0xFFFF
        except OSError as error:
            raise CaptureError(
                f"cannot spread {self._interface.name} over {len(self._sockets)} rings by {self._fanout}: "
                f"{error.strerror}; capture without --fanout, or bring the interface up first"
            ) from error

    @staticmethod
    def _attach(raw: socket.socket, program: NDArray[np.void]) -> None:
        """Put a filter in the place of the one that a socket has."""
        instructions = program.tobytes()
        buffer = ctypes.create_string_buffer(instructions, len(instructions))
        # struct sock_fprog: the pointer is aligned as pointers are.
        raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(buffer)))


def kernel_program(expression: str, link_type: int, snaplen: int, direction: Direction) -> NDArray[np.void]:
    """Return the classic BPF program that a packet socket gets.

    Its return value is what the kernel keeps of a frame. Without an expression, no libpcap is needed.
    """
    if expression.strip():
        rows: list[tuple[int, int, int, int]] = list(compile_filter(expression, link_type, snaplen))
    else:
        rows = [(BPF_RET | BPF_K, 0, 0, snaplen)]
    if direction == "out":
        rows = [*_ONLY_OUTGOING, *rows]
    return as_array(rows)
