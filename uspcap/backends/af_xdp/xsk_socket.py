"""One AF_XDP socket for one receive queue: its UMEM, its rings, and the best way of binding that can be had.

References
----------
linux/if_xdp.h; Documentation/networking/af_xdp.rst; net/xdp/xsk.c.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.backends.af_xdp.busy_poll import napi_id, poll_busily
from uspcap.backends.af_xdp.xsk import ReceiveQueue, Ring, TransmitQueue
from uspcap.backends.chunks import CHUNK_SIZES, chunk_bytes_for, longest_mtu
from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.refusals import (
    INSTEAD,
    cannot_bind_to_queue,
    cannot_open_socket,
    cannot_register_memory,
    is_final,
    locked_memory_limit,
)
from uspcap.capabilities import af_xdp_needs
from uspcap.errors import CaptureError

_AF_XDP: Final = 44
_SOL_XDP: Final = 283
_XDP_MMAP_OFFSETS: Final = 1
_XDP_RX_RING: Final = 2
_XDP_TX_RING: Final = 3
_XDP_UMEM_REG: Final = 4
_XDP_UMEM_FILL_RING: Final = 5
_XDP_UMEM_COMPLETION_RING: Final = 6
_XDP_STATISTICS: Final = 7
_XDP_OPTIONS: Final = 8
_XDP_OPTIONS_ZEROCOPY: Final = 1 << 0
_XDP_PGOFF_RX_RING: Final = 0
_XDP_PGOFF_TX_RING: Final = 0x80000000
_XDP_UMEM_PGOFF_FILL_RING: Final = 0x100000000
_XDP_UMEM_PGOFF_COMPLETION_RING: Final = 0x180000000
_XDP_COPY: Final = 1 << 1
_XDP_ZEROCOPY: Final = 1 << 2
_XDP_USE_NEED_WAKEUP: Final = 1 << 3
_XDP_USE_SG: Final = 1 << 4

_MAP_HUGETLB: Final = 0x40000
_HUGE_PAGE_BYTES: Final = 2 << 20
_DESCRIPTOR_BYTES: Final = 16
_ADDRESS_BYTES: Final = 8
_COMPLETION_ENTRIES: Final = 64
"""Where nothing is sent nothing completes, but the kernel binds no socket without the ring."""

BUSY_RETRIES: Final = 20
BUSY_RETRY_S: Final = 0.05
"""The kernel tears down a socket's UMEM after its last close, not in it: the queue is busy for a moment."""

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class XdpStatistics:
    """struct xdp_statistics, as far as it is about receiving; counts since the socket was made.

    Attributes
    ----------
    dropped : int
        Too long for a chunk, or no chunk free while copying.
    invalid : int
        Addresses on the fill ring that are none.
    ring_full : int
        No room on the receive ring.
    fill_ring_empty : int
        The kernel found no chunk; in copy mode these are among `dropped`, with zero copy the NIC counts the loss.
    """

    dropped: int = 0
    invalid: int = 0
    ring_full: int = 0
    fill_ring_empty: int = 0

    def __add__(self, other: XdpStatistics) -> XdpStatistics:
        return XdpStatistics(
            self.dropped + other.dropped,
            self.invalid + other.invalid,
            self.ring_full + other.ring_full,
            self.fill_ring_empty + other.fill_ring_empty,
        )


class XskSocket:
    """A bound socket whose fill ring is full, so that frames can come at once.

    Tried in this order: zero copy with fragments, zero copy without where every frame fits into what drivers use of a
    chunk, copy with fragments, copy without (Linux before 6.6). A refusal leads to the next, unless it would be the
    same for all: the queue is taken, the interface is down, a privilege or memory is missing.

    Parameters
    ----------
    interface : NetworkInterface
    queue_number : int
    chunks_of : callable
        Given the size of a chunk in bytes, returns how many there are to be: a power of two.
    snaplen : int
    hardware_timestamps : bool
    interfaces : ndarray of uint16, shape (9,)
        Table of `TimestampedInterfaces`.
    cookie : int
        As in `ReceiveQueue`.
    zero_copy : bool
        False leaves zero copy out, as generic XDP needs it.
    busy_poll_us : int, optional
        Drive the driver's queue when the ring is read; the kernel may poll for so long in one call.
    answering : bool
        Have rings for sending, too.

    Attributes
    ----------
    queue : ReceiveQueue
    transmit : TransmitQueue or None
        Where it was asked for.
    zero_copy : bool
        As read back.
    fragments : bool
        Frames longer than a chunk come in several pieces; otherwise the kernel drops them when it copies, and with
        zero copy there are none.
    chunk_bytes, chunks : int
    huge_pages : bool
    refusals : list of str
        Ways of binding that were refused, and why.
    refusal_numbers : list of int
        Error numbers of these, where the kernel refused.

    Raises
    ------
    CaptureError
        It cannot be bound; the message says why.
    PermissionDenied
        A capability is missing.
    MissingFeature
        The kernel has no AF_XDP.
    """

    def __init__(
        self,
        interface: NetworkInterface,
        queue_number: int,
        *,
        chunks_of: Callable[[int], int],
        snaplen: int,
        hardware_timestamps: bool,
        interfaces: NDArray[np.uint16],
        cookie: int = 0,
        zero_copy: bool = True,
        busy_poll_us: int | None = None,
        answering: bool = False,
    ) -> None:
        self._interface = interface
        self._polls_busily = busy_poll_us is not None
        self._queue_number = queue_number
        self._answering = answering
        self.transmit: TransmitQueue | None = None
        self._statistics = XdpStatistics()
        self._maps: list[mmap.mmap] = []
        self.refusals: list[str] = []
        self.refusal_numbers: list[int] = []
        copied = chunk_bytes_for(interface.mtu, zero_copy=False) or CHUNK_SIZES[-1]
        whole = chunk_bytes_for(interface.mtu, zero_copy=True)
        declared = interface.xdp
        if zero_copy and declared is not None and not declared.zero_copy:
            # A request that is refused anyway would count against the limit on locked memory for a while.
            zero_copy = False
            self.refusals.append("the driver declares none")
        in_pieces = declared is None or declared.zero_copy_segments != 1
        ways = [
            ("zero copy", _XDP_ZEROCOPY | _XDP_USE_SG, copied, zero_copy and in_pieces),
            ("zero copy without fragments", _XDP_ZEROCOPY, whole, zero_copy),
            ("copy", _XDP_COPY | _XDP_USE_SG, copied, True),
            ("copy without fragments", _XDP_COPY, copied, True),
        ]
        self.socket = self._new_socket()
        self._umem: mmap.mmap | None = None
        try:
            for name, flags, chunk_bytes, wanted in ways:
                if not wanted:
                    continue
                if chunk_bytes is None:
                    self.refusals.append(
                        f"{name}: drivers may cut frames where the MTU, here {interface.mtu}, is above "
                        f"{longest_mtu(zero_copy=True)}"
                    )
                    continue
                if self.socket.fileno() < 0:
                    self.socket = self._new_socket()
                self.chunk_bytes, self.chunks = chunk_bytes, chunks_of(chunk_bytes)
                umem = self._allocate_umem()
                self._register(umem, chunk_bytes, self.chunks)
                number = self._bind(flags | _XDP_USE_NEED_WAKEUP)
                if not number:
                    break
                self.refusals.append(f"{name}: {os.strerror(number)}")
                self.refusal_numbers.append(number)
                self._close_socket()
                if is_final(number, zero_copy=bool(flags & _XDP_ZEROCOPY)):
                    raise cannot_bind_to_queue(number, queue_number, interface.name)
            else:
                raise CaptureError(
                    f"no AF_XDP socket can be bound to queue {queue_number} of {interface.name} "
                    f"({'; '.join(self.refusals)}): {INSTEAD}"
                )
            self.fragments = bool(flags & _XDP_USE_SG)
            (options,) = struct.unpack("=I", self.socket.getsockopt(_SOL_XDP, _XDP_OPTIONS, 4))
            self.zero_copy = bool(options & _XDP_OPTIONS_ZEROCOPY)
            self.queue = self._map_rings(umem, snaplen, hardware_timestamps, interfaces, cookie)
            self.queue.prime()
            self.queue.serve(self.fileno(), busy_poll_us is not None)
            if busy_poll_us is not None:
                poll_busily(self.socket, busy_poll_us, interface)
        except BaseException:
            self._close_socket()
            self._free_umem()
            raise

    def fileno(self) -> int:
        return self.socket.fileno()

    def wake_kernel(self) -> None:
        """Let the driver look at the fill ring, where it asked for that; with busy polling, let it receive."""
        if self._polls_busily or self.queue.needs_wakeup:
            with contextlib.suppress(OSError):
                self.socket.recv(1, socket.MSG_DONTWAIT)

    @property
    def driver_is_polled(self) -> bool:
        """Whether the last frame came through a queue that this socket can drive."""
        return napi_id(self.socket) != 0

    def take_error(self) -> int:
        """Return the socket's pending error number and clear it."""
        return self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    def statistics(self) -> XdpStatistics:
        """Return the kernel's counts; after `close`, those of that moment."""
        if self.socket.fileno() >= 0:
            dropped, invalid, _, ring_full, fill_ring_empty, _ = struct.unpack(
                "=6Q", self.socket.getsockopt(_SOL_XDP, _XDP_STATISTICS, 48)
            )
            self._statistics = XdpStatistics(dropped, invalid, ring_full, fill_ring_empty)
        return self._statistics

    def close(self) -> None:
        """Give queue and memory back; may be called again."""
        self.statistics()
        self.queue.close()
        if self.transmit is not None:
            self.transmit.close()
        self._close_socket()
        self._free_umem()

    def _new_socket(self) -> socket.socket:
        try:
            return socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        except OSError as error:
            raise cannot_open_socket(
                error.errno or 0, "an AF_XDP socket", self._interface.name, af_xdp_needs()
            ) from None

    def _allocate_umem(self) -> mmap.mmap:
        """Return memory for all chunks: that of the last attempt where it has the size."""
        size = self.chunk_bytes * self.chunks
        if self._umem is not None and len(self._umem) != size:
            self._free_umem()
        if self._umem is None:
            self._umem, self.huge_pages = _allocate(size)
        return self._umem

    def _free_umem(self) -> None:
        if self._umem is not None:
            _release(self._umem)
            self._umem = None

    def _register(self, umem: mmap.mmap, chunk_bytes: int, chunks: int) -> None:
        """Give the socket its UMEM and its rings."""
        address = np.frombuffer(umem, np.uint8).ctypes.data
        registration = struct.pack("=QQIIII", address, chunk_bytes * chunks, chunk_bytes, 0, 0, 0)
        size = chunk_bytes * chunks
        try:
            self._register_memory(registration, size)
            self.socket.setsockopt(_SOL_XDP, _XDP_UMEM_FILL_RING, chunks)
            completions = chunks if self._answering else _COMPLETION_ENTRIES
            self.socket.setsockopt(_SOL_XDP, _XDP_UMEM_COMPLETION_RING, completions)
            if self._answering:
                self.socket.setsockopt(_SOL_XDP, _XDP_TX_RING, chunks)
            self.socket.setsockopt(_SOL_XDP, _XDP_RX_RING, chunks)
        except OSError as error:
            raise cannot_register_memory(error.errno or 0, size, self._queue_number, self._interface.name) from error

    def _register_memory(self, registration: bytes, size: int) -> None:
        """Register the UMEM; where memory that was given back still counts against the limit, try again for a second.

        The kernel takes a UMEM down after its socket's last close, not in it.
        """
        limit = locked_memory_limit()
        for attempt in range(BUSY_RETRIES + 1):
            try:
                self.socket.setsockopt(_SOL_XDP, _XDP_UMEM_REG, registration)
                return
            except OSError as error:
                hopeless = limit is not None and size > limit
                if error.errno != errno.ENOBUFS or hopeless or attempt == BUSY_RETRIES:
                    raise
            time.sleep(BUSY_RETRY_S)

    def _bind(self, flags: int) -> int:
        """Bind and return 0 or an error number; where the queue is busy, try again for a second."""
        address = struct.pack("=HHIII", _AF_XDP, flags, self._interface.index, self._queue_number, 0)
        for attempt in range(BUSY_RETRIES + 1):
            if not _libc.bind(self.socket.fileno(), address, len(address)):
                return 0
            number = ctypes.get_errno()
            if number != errno.EBUSY:
                return number
            if attempt < BUSY_RETRIES:
                time.sleep(BUSY_RETRY_S)
        return errno.EBUSY

    def _map_rings(
        self, umem: mmap.mmap, snaplen: int, hardware_timestamps: bool, interfaces: NDArray[np.uint16], cookie: int
    ) -> ReceiveQueue:
        # struct xdp_mmap_offsets: producer, consumer, desc and flags of rx, tx, fill and completion ring.
        offsets = struct.unpack("=16Q", self.socket.getsockopt(_SOL_XDP, _XDP_MMAP_OFFSETS, 128))

        def ring(first: int, page: int, entry_bytes: int) -> Ring:
            producer, consumer, entries, flags = offsets[first : first + 4]
            memory = mmap.mmap(self.socket.fileno(), entries + self.chunks * entry_bytes, offset=page)
            self._maps.append(memory)
            return Ring(memory, producer, consumer, entries, flags, self.chunks, entry_bytes)

        receive = ring(0, _XDP_PGOFF_RX_RING, _DESCRIPTOR_BYTES)
        fill = ring(8, _XDP_UMEM_PGOFF_FILL_RING, _ADDRESS_BYTES)
        queue = ReceiveQueue(
            *(umem, self.chunk_bytes, receive, fill, snaplen, self._queue_number, hardware_timestamps, interfaces),
            cookie=cookie,
            ethernet=self._interface.ethernet,
        )
        if self._answering:
            transmit = ring(4, _XDP_PGOFF_TX_RING, _DESCRIPTOR_BYTES)
            completion = ring(12, _XDP_UMEM_PGOFF_COMPLETION_RING, _ADDRESS_BYTES)
            self.transmit = TransmitQueue(queue, transmit, completion, self.socket.fileno())
        return queue

    def _close_socket(self) -> None:
        self.socket.close()
        maps, self._maps = self._maps, []
        for mapping in maps:
            _release(mapping)


def _release(memory: mmap.mmap) -> None:
    """Unmap memory; what a failure on its way up still refers to goes when that does."""
    with contextlib.suppress(BufferError):
        memory.close()


def _allocate(size: int) -> tuple[mmap.mmap, bool]:
    """Return memory, and whether it is in reserved huge pages; registering it makes all of it present."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if size % _HUGE_PAGE_BYTES == 0:
        with contextlib.suppress(OSError):
            return mmap.mmap(-1, size, flags | mmap.MAP_POPULATE | _MAP_HUGETLB), True
    try:
        memory = mmap.mmap(-1, size, flags)
    except OSError as error:
        raise CaptureError(
            f"cannot have {size >> 10} KiB of memory for frames: {error.strerror}; ask for less with -B"
        ) from error
    with contextlib.suppress(OSError):  # a kernel without transparent huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory, False
