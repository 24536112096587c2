"""Where the paths of a comparison end: a UDP socket, a TPACKET_V2 ring, AF_XDP sockets.

Each is opened once, before anything is measured, and read run by run. Where several paths are on at once, filters in
the kernel keep a path's frames from the others' readers.

References
----------
packet(7); linux/if_packet.h; Documentation/networking/packet_mmap.rst; socket(7) for SO_ATTACH_FILTER.
"""

from __future__ import annotations

import ctypes
import mmap
import select
import socket
import struct
from collections.abc import Collection
from functools import reduce
from operator import add
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from uspcap.backends.af_xdp.xsk_socket import XdpStatistics, XskSocket
from uspcap.backends.base import DEFAULT_SNAPLEN
from uspcap.backends.carrier_wait import CarrierWait
from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.refusals import cannot_have_packet_ring, cannot_open_socket
from uspcap.bpf.classic import BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, as_array, compile_filter
from uspcap.bpf.path_program import PATH_AT, PAYLOAD_AT
from uspcap.capabilities import af_xdp_needs
from uspcap.comparison.live.path_readers import PathReader, RingReader, SocketReader, XskReader
from uspcap.comparison.live.settings import LiveSettings, Path
from uspcap.errors import CaptureError
from uspcap.probe.endpoints import Endpoint, open_socket

# linux/if_packet.h.
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_TIMESTAMP: Final = 17
_PACKET_IGNORE_OUTGOING: Final = 23
_TPACKET_V2: Final = 1
_SOF_TIMESTAMPING_SOFTWARE: Final = 1 << 4

_ETH_P_ALL: Final = 3
_ETH_P_LOCAL_EXPERIMENTAL: Final = 0x88B5
"""IEEE 802, local experimental: a packet socket that waits for it is not asked about other frames."""

# asm-generic/socket.h.
_SO_ATTACH_FILTER: Final = 26
_SO_DETACH_FILTER: Final = 27
_SO_TIMESTAMPNS: Final = 35
_SO_MEMINFO: Final = 55
_SK_MEMINFO_DROPS: Final = 8

_UDP_HEADER_BYTES: Final = 8
_KEEP_ALL: Final = 0xFFFFFFFF

RING_BYTES: Final = 4 << 20
"""Of the TPACKET_V2 ring."""
_RING_BLOCK_BYTES: Final = 1 << 18
XSK_CHUNKS: Final = 2048
"""Of each AF_XDP socket: as much memory as the ring has, at 2 KiB a frame."""


class PathEnd(Protocol):
    """The receiving end of a path."""

    @property
    def about(self) -> str:
        """How it is set up, in a few words."""

    def begin(self, active: Collection[Path]) -> None:
        """Make ready for a run of these paths, which may be others than this."""

    def reader(self, path: Path, columns: NDArray[np.int64]) -> PathReader:
        """Return a reader for one run."""

    def finish(self, reader: PathReader) -> None:
        """Take note of where a reader has got to."""

    def drops(self) -> dict[str, int]:
        """Return what the kernel has dropped so far, by cause."""

    def bytes_copied(self, payload_bytes: int, frames: int) -> int:
        """Return how many bytes of frames the kernel has copied on this path for its reader: derived, not counted."""

    def close(self) -> None: ...


def _attach_filter(one: socket.socket, rows: list[tuple[int, int, int, int]]) -> None:
    instructions = as_array(rows).tobytes()
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    # struct sock_fprog: the pointer is aligned as pointers are.
    one.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(rows), ctypes.addressof(buffer)))


def _only_path(number: int, payload_at: int) -> list[tuple[int, int, int, int]]:
    """Return classic BPF that keeps one path's probes."""
    return [
        (BPF_LD | BPF_W | BPF_ABS, 0, 0, payload_at + PATH_AT),
        (BPF_JMP | BPF_JEQ | BPF_K, 0, 1, number),
        (BPF_RET | BPF_K, 0, 0, _KEEP_ALL),
        (BPF_RET | BPF_K, 0, 0, 0),
    ]


def _other_traffic(settings: LiveSettings) -> str:
    """Return the filter for what the program at the hook takes."""
    parts = ["ip and udp"]
    if settings.port is not None:
        parts.append(f"dst port {settings.port}")
    if settings.expression.strip():
        parts.append(f"({settings.expression})")
    return " and ".join(parts)


def _prepared(reader: PathReader, settings: LiveSettings) -> PathReader:
    if settings.round_trip:
        reader.answer("marked")
    if settings.other_traffic:
        reader.take_others()
    return reader


class SocketPlaces(Protocol):
    """Where a program at the hook finds the AF_XDP socket of each receive queue."""

    def set_socket(self, queue: int, fd: int) -> None: ...

    def remove_socket(self, queue: int) -> None: ...


class _Waiting:
    """A descriptor for epoll_wait where readers use it."""

    def __init__(self, wakeup: str, descriptors: Collection[int]) -> None:
        self._epoll = select.epoll() if wakeup == "epoll" else None
        if self._epoll is not None:
            for descriptor in descriptors:
                self._epoll.register(descriptor, select.EPOLLIN)

    @property
    def fd(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def close(self) -> None:
        if self._epoll is not None:
            self._epoll.close()


class KernelEnd:
    """A UDP socket. It is there in all runs, so that no probe is answered by ICMP port unreachable."""

    def __init__(self, settings: LiveSettings) -> None:
        self._settings = settings
        # Without a port the path is not compared: nothing comes here.
        local = Endpoint("0.0.0.0", settings.port or 0)
        self._socket = open_socket(local, None, interface=settings.interface, shared=bool(settings.groups))
        try:
            self._join_groups()
        except BaseException:
            self._socket.close()
            raise
        self._waiting = _Waiting(settings.wakeup, [self._socket.fileno()])
        self._filtered = False

    def _join_groups(self) -> None:
        number = socket.if_nametoindex(self._settings.interface) if self._settings.groups else 0
        for group in self._settings.groups:
            try:
                # struct ip_mreqn of ip(7): group, address, interface.
                request = struct.pack("=4s4si", socket.inet_aton(group), bytes(4), number)
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
            except OSError as error:
                raise CaptureError(
                    f"cannot join {group} on {self._settings.interface}: {error.strerror or error}; name an IPv4 "
                    "multicast group"
                ) from None

    @property
    def about(self) -> str:
        room = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return f"UDP socket with room for {room >> 10} KiB, recvmsg, software timestamp of the socket buffer"

    def begin(self, active: Collection[Path]) -> None:
        if self._filtered:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
            self._filtered = False
        if any(path.kind == "packet_mmap" for path in active):
            # The frames of that path come here too, once the ring has its copy.
            ours = [path.number for path in active if path.kind == "kernel"]
            rows = _only_path(ours[0], _UDP_HEADER_BYTES) if ours else [(BPF_RET | BPF_K, 0, 0, 0)]
            _attach_filter(self._socket, rows)
            self._filtered = True
        while True:
            try:
                self._socket.recv(1, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return

    def reader(self, path: Path, columns: NDArray[np.int64]) -> PathReader:
        reader = SocketReader(
            self._socket.fileno(),
            path.number,
            self._settings.wakeup,
            columns,
            epoll_fd=self._waiting.fd,
            delay_ns=self._settings.delays_ns.get(path.name, 0),
        )
        return _prepared(reader, self._settings)

    def finish(self, reader: PathReader) -> None:
        """Do nothing: the socket knows."""

    def drops(self) -> dict[str, int]:
        """Return the socket's drops; those of frames that its filter refused are among them."""
        information = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 4 * (_SK_MEMINFO_DROPS + 1))
        return {"socket buffer full": struct.unpack(f"={len(information) // 4}I", information)[_SK_MEMINFO_DROPS]}

    def bytes_copied(self, payload_bytes: int, frames: int) -> int:
        return (2 if self._settings.round_trip else 1) * payload_bytes

    def close(self) -> None:
        self._waiting.close()
        self._socket.close()


class PacketMmapEnd:
    """A packet socket with a TPACKET_V2 ring: slots of one frame each, handed over individually."""

    def __init__(self, settings: LiveSettings, interface: NetworkInterface) -> None:
        self._settings = settings
        self._name = interface.name
        self._wanted: list[tuple[int, int, int, int]] = []
        if settings.other_traffic:
            self._wanted = list(compile_filter(_other_traffic(settings), interface.link_type))
        self._slot_bytes = 1 << (interface.mtu + 14 + 127).bit_length()
        if self._slot_bytes > _RING_BLOCK_BYTES:
            raise CaptureError(
                f"an MTU of {interface.mtu} of {interface.name} is too large for a ring of single frames"
            )
        self._next_slot = 0
        self._dropped = 0
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        except OSError as error:
            raise cannot_open_socket(error.errno or 0, "a packet socket", interface.name, af_xdp_needs()) from None
        try:
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V2)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_TIMESTAMP, _SOF_TIMESTAMPING_SOFTWARE)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            blocks = RING_BYTES // _RING_BLOCK_BYTES
            slots = RING_BYTES // self._slot_bytes
            request = struct.pack("=4I", _RING_BLOCK_BYTES, blocks, self._slot_bytes, slots)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            self._memory = mmap.mmap(self._socket.fileno(), RING_BYTES)
            self._socket.bind((interface.name, _ETH_P_LOCAL_EXPERIMENTAL))
        except OSError as error:
            self._socket.close()
            raise cannot_have_packet_ring(
                error.errno or 0, RING_BYTES, interface.name, "leave packet_mmap out of --paths"
            ) from error
        self._waiting = _Waiting(settings.wakeup, [self._socket.fileno()])

    @property
    def about(self) -> str:
        return f"TPACKET_V2 ring of {RING_BYTES // self._slot_bytes} single frames, handed over individually"

    def begin(self, active: Collection[Path]) -> None:
        ours = [path.number for path in active if path.kind == "packet_mmap"]
        if not ours:
            self._socket.bind((self._name, _ETH_P_LOCAL_EXPERIMENTAL))
            return
        if self._settings.other_traffic:
            _attach_filter(self._socket, self._wanted)
        else:
            _attach_filter(self._socket, _only_path(ours[0], PAYLOAD_AT))
        self._socket.bind((self._name, _ETH_P_ALL))

    def reader(self, path: Path, columns: NDArray[np.int64]) -> PathReader:
        reader = RingReader(
            self._memory,
            self._slot_bytes,
            self._socket.fileno(),
            path.number,
            self._settings.wakeup,
            columns,
            epoll_fd=self._waiting.fd,
            delay_ns=self._settings.delays_ns.get(path.name, 0),
            first_slot=self._next_slot,
        )
        return _prepared(reader, self._settings)

    def finish(self, reader: PathReader) -> None:
        """Take over which slot comes next."""
        assert isinstance(reader, RingReader)
        self._next_slot = reader.next_slot

    def drops(self) -> dict[str, int]:
        # The kernel counts from 0 after each reading.
        _, dropped = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._dropped += dropped
        return {"ring full": self._dropped}

    def bytes_copied(self, payload_bytes: int, frames: int) -> int:
        return payload_bytes + PAYLOAD_AT * frames

    def close(self) -> None:
        self._waiting.close()
        self._socket.close()


class XskEnd:
    """An AF_XDP socket for each receive queue.

    With zero copy the sockets are bound only while their path is on, where one path is on at a time: what the driver
    then passes to the kernel it copies out of their memory, which other paths would be charged with.

    Parameters
    ----------
    settings : LiveSettings
    interface : NetworkInterface
    zero_copy : bool
    sockets_of : SocketPlaces
        Where the program at the hook finds the sockets.
    one_at_a_time : bool
        Runs have one path on.
    """

    def __init__(
        self,
        settings: LiveSettings,
        interface: NetworkInterface,
        *,
        zero_copy: bool,
        sockets_of: SocketPlaces,
        one_at_a_time: bool = False,
    ) -> None:
        self._settings = settings
        self._interface = interface
        self._places = sockets_of
        self._past = XdpStatistics()
        self.sockets: list[XskSocket] = []
        self._open(zero_copy)
        self.zero_copy = all(xsk.zero_copy for xsk in self.sockets)
        self.bound_while_on = self.zero_copy and one_at_a_time

    @property
    def about(self) -> str:
        queues = self._interface.queues
        sockets = f"{queues} AF_XDP socket" + ("s" if queues > 1 else "")
        bound = ", bound only while this path is on" if self.bound_while_on else ""
        return f"{sockets}, {'zero copy' if self.zero_copy else 'copy'}, {XSK_CHUNKS} chunks each{bound}"

    def begin(self, active: Collection[Path]) -> None:
        if not self.bound_while_on:
            return
        wanted = any(path.kind == "af_xdp" for path in active)
        if wanted and not self.sockets:
            link = CarrierWait(self._interface)
            self._open(zero_copy=True)
            link.wait()
            if not all(xsk.zero_copy for xsk in self.sockets):
                raise CaptureError(
                    f"{self._interface.name} no longer grants its AF_XDP sockets zero copy: nothing may change on the "
                    "interface while paths are compared"
                )
        elif self.sockets and not wanted:
            link = CarrierWait(self._interface)
            self._unbind()
            link.wait()

    def reader(self, path: Path, columns: NDArray[np.int64]) -> PathReader:
        reader = XskReader(
            [xsk.queue for xsk in self.sockets],
            [xsk.fileno() for xsk in self.sockets],
            path.number,
            self._settings.wakeup,
            columns,
            epoll_fd=self._waiting.fd,
            delay_ns=self._settings.delays_ns.get(path.name, 0),
            transmits=[xsk.transmit for xsk in self.sockets if xsk.transmit is not None],
        )
        return _prepared(reader, self._settings)

    def finish(self, reader: PathReader) -> None:
        """Do nothing: the rings know."""

    def drops(self) -> dict[str, int]:
        counts = reduce(add, (xsk.statistics() for xsk in self.sockets), self._past)
        return {"ring full": counts.ring_full, "too long, or no chunk free": counts.dropped}

    def bytes_copied(self, payload_bytes: int, frames: int) -> int:
        copies = 2 if self._settings.round_trip else 1
        return 0 if self.zero_copy else copies * (payload_bytes + PAYLOAD_AT * frames)

    def close(self) -> None:
        if self.sockets:
            self._unbind(from_hook=False)

    def _open(self, zero_copy: bool) -> None:
        # Where timestamps of a capture go into interfaces; nothing is captured here.
        no_interfaces = np.zeros(9, np.uint16)
        try:
            for number in range(self._interface.queues):
                self.sockets.append(
                    XskSocket(
                        self._interface,
                        number,
                        chunks_of=lambda _: XSK_CHUNKS,
                        snaplen=DEFAULT_SNAPLEN,
                        hardware_timestamps=False,
                        interfaces=no_interfaces,
                        zero_copy=zero_copy,
                        answering=self._settings.round_trip,
                    )
                )
                self._places.set_socket(number, self.sockets[-1].fileno())
        except BaseException:
            for one in self.sockets:
                one.close()
            raise
        self._waiting = _Waiting(self._settings.wakeup, [xsk.fileno() for xsk in self.sockets])

    def _unbind(self, *, from_hook: bool = True) -> None:
        self._waiting.close()
        for number, one in enumerate(self.sockets):
            if from_hook:
                self._places.remove_socket(number)
            one.close()
            self._past += one.statistics()
        self.sockets = []
