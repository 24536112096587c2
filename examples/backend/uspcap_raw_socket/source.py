"""Frames from a packet socket, timestamped by the kernel when it took them in."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

from uspcap.backends.base import BATCH_FRAMES, Description, LiveSource, SourceStatistics
from uspcap.bpf.filters import FrameFilter
from uspcap.errors import CaptureError
from uspcap.frames import FrameBatch, Interface, TimestampSource

_EVERY_PROTOCOL = 0x0003
_SO_TIMESTAMPNS = 35
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_TIMESPEC = struct.Struct("=qq")
_TPACKET_STATS = struct.Struct("=II")


class RawSocketSource(LiveSource):
    """Captures on one Ethernet interface; frames that do not match the filter are taken out after they were read."""

    backend = "raw_socket"
    counts_an_interface = False

    def __init__(self, interface: str, expression: str, snaplen: int, buffer_bytes: int | None = None) -> None:
        super().__init__()
        self._filter = FrameFilter(expression)
        self._name = interface
        self._snaplen = snaplen
        self._interfaces = (
            Interface(1, name=interface, filter=expression, snaplen=snaplen, timestamp_source=TimestampSource.KERNEL),
        )
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            if buffer_bytes is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._socket.bind((interface, _EVERY_PROTOCOL))
        except OSError as error:
            self._socket.close()
            raise CaptureError(f"cannot capture on {interface} with a packet socket: {error.strerror}") from error
        self._read = self._delivered = self._dropped = 0
        self._stopped_ns: int | None = None

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return self._interfaces

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        while True:
            batch = self._next_batch(timeout_s if self._stopped_ns is None else 0)
            if batch is None and self._stopped_ns is not None:
                return
            yield batch

    def stop(self) -> None:
        if self._stopped_ns is None:
            self._stopped_ns = time.time_ns()

    def statistics(self) -> SourceStatistics:
        self._count_drops()
        return SourceStatistics(
            received=self._read + self._dropped,
            delivered=self._delivered,
            filtered=self._read - self._delivered,
            dropped={"the socket's buffer was full": self._dropped} if self._dropped else {},
        )

    def describe(self) -> Description:
        return Description(self._name, self.backend, "one call a frame", 0, 0, "kernel (CLOCK_REALTIME)")

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._count_drops()
            self._socket.close()

    def _next_batch(self, timeout_s: float) -> FrameBatch | None:
        frames: list[bytes] = []
        lengths: list[int] = []
        timestamps: list[int] = []
        deadline = time.monotonic() + timeout_s
        while len(frames) < BATCH_FRAMES:
            self._socket.settimeout(0 if frames else max(deadline - time.monotonic(), 0))
            try:
                data, ancillary, _, _ = self._socket.recvmsg(1 << 18, 64)
            except (BlockingIOError, TimeoutError):
                break
            except OSError as error:
                raise CaptureError(f"{self._name}: {error.strerror}") from error
            timestamp_ns = _timestamp(ancillary)
            if self._stopped_ns is not None and timestamp_ns > self._stopped_ns:
                break
            frames.append(data[: self._snaplen])
            lengths.append(len(data))
            timestamps.append(timestamp_ns)
        if not frames:
            return None
        batch = FrameBatch.from_frames(
            frames,
            timestamps,
            wire_lengths=lengths,
            interfaces=self._interfaces,
            timestamp_source=TimestampSource.KERNEL,
            first_frame_number=self._read + 1,
        )
        self._read += len(frames)
        batch.refilled()
        self._filter.apply(batch)
        self._delivered += batch.count
        return batch

    def _count_drops(self) -> None:
        if self._socket.fileno() >= 0:
            counts = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _TPACKET_STATS.size)
            self._dropped += _TPACKET_STATS.unpack(counts)[1]


def _timestamp(ancillary: list[tuple[int, int, bytes]]) -> int:
    """Return the kernel's timestamp of a frame in ns."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
