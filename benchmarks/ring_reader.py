"""Readers of rings that write nothing, to tell what reading costs from what writing costs.

    python ring_reader.py bare INTERFACE MIB             AF_XDP: give every chunk back without looking at the frame
    python ring_reader.py af_xdp INTERFACE MIB           uspcap's reader: frames copied into batches, nothing written
    python ring_reader.py packet_mmap INTERFACE MIB      the same

Says `ready` on stderr, and on SIGINT `received N` with the frames that it got.
"""

from __future__ import annotations

import mmap
import select
import signal
import struct
import sys
import time

import numpy as np

from uspcap.backends.af_xdp.xsk_socket import XskSocket
from uspcap.backends.base import TimestampedInterfaces
from uspcap.backends.declaration import Request
from uspcap.backends.network_interface import NetworkInterface
from uspcap.backends.opening import open_source
from uspcap.bpf.attach import CaptureMaps, attach_capture
from uspcap.frames import Interface, TimestampSource
from uspcap.pipeline.session import CaptureSession
from uspcap.signals import Ending

SOL_XDP, XDP_MMAP_OFFSETS, FILL_PAGE_OFFSET = 283, 1, 0x100000000  # linux/if_xdp.h
CHUNK_BYTES = 2048
NAP_S = 0.0004


class BareRing:
    """The receive and the fill ring of a socket, seen as arrays: frames are counted, and not looked at.

    The indices are plain loads and stores, which x86 keeps in order.
    """

    def __init__(self, one: XskSocket, chunks: int) -> None:
        offsets = struct.unpack("=16Q", one.socket.getsockopt(SOL_XDP, XDP_MMAP_OFFSETS, 128))
        self.mask = chunks - 1
        self.receive, self.produced, self.consumed = self._map(one, offsets[0:4], chunks * 16, 0)
        self.fill, self.filled, _ = self._map(one, offsets[8:12], chunks * 8, FILL_PAGE_OFFSET)
        self.addresses = self.receive[offsets[2] : offsets[2] + chunks * 16].view(np.uint64)[::2]
        self.free = self.fill[offsets[10] : offsets[10] + chunks * 8].view(np.uint64)

    @staticmethod
    def _map(one: XskSocket, offsets: tuple[int, ...], size: int, page: int) -> tuple[np.ndarray, ...]:
        memory = np.frombuffer(mmap.mmap(one.fileno(), offsets[2] + size, offset=page), np.uint8)
        producer, consumer = (memory[at : at + 4].view(np.uint32) for at in offsets[:2])
        return memory, producer, consumer

    def take(self) -> int:
        """Give back every chunk that is on the receive ring, and return how many there were."""
        first = int(self.consumed[0])
        count = (int(self.produced[0]) - first) & 0xFFFFFFFF
        rows = np.arange(first, first + count)
        at = np.arange(int(self.filled[0]), int(self.filled[0]) + count)
        self.free[at & self.mask] = self.addresses[rows & self.mask] & np.uint64(~(CHUNK_BYTES - 1) & (1 << 64) - 1)
        self.consumed[0] = (first + count) & 0xFFFFFFFF
        self.filled[0] = (int(self.filled[0]) + count) & 0xFFFFFFFF
        return count


def read_bare(name: str, mib: int) -> int:
    """Read a ring until SIGINT, and return how many frames came."""
    interface = NetworkInterface.look_up(name)
    chunks = (mib << 20) // CHUNK_BYTES
    described = Interface(1, name, timestamp_source=TimestampSource.XDP)
    table = TimestampedInterfaces(described, {source: source.name for source in TimestampSource}).table
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True

    one = XskSocket(
        interface,
        0,
        chunks_of=lambda _: chunks,
        snaplen=65535,
        hardware_timestamps=False,
        interfaces=table,
    )
    received = 0
    with CaptureMaps(1) as maps, Ending(stop):
        ring = BareRing(one, chunks)
        maps.set_socket(0, one.fileno())
        poll = select.poll()
        poll.register(one, select.POLLIN)
        with attach_capture(name, None, maps):
            print("ready", file=sys.stderr, flush=True)
            while not stopped:
                taken = ring.take()
                received += taken
                if taken:
                    time.sleep(NAP_S)
                else:
                    poll.poll(50)
    return received


def read_batches(backend: str, name: str, mib: int) -> int:
    """Read batches until SIGINT and do nothing with them; return how many frames they had."""
    options = {"take_all": True} if backend == "af_xdp" else {}
    request = Request(interfaces=(name,), backend=backend, buffer_bytes=mib << 20, options=options)
    with open_source(request) as source:
        session = CaptureSession(source)
        with Ending(session.stop):
            print("ready", file=sys.stderr, flush=True)
            return session.run().accounts.kept


if __name__ == "__main__":
    what, interface_name, size = sys.argv[1:]
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    count = read_bare(interface_name, int(size)) if what == "bare" else read_batches(what, interface_name, int(size))
    print(f"received {count}", file=sys.stderr)
