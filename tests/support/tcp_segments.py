"""TCP segments for tests: made by hand or by hypothesis, with all that befalls them, and fed to the analysis."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from uspcap.analysis.tcp.analysis import Tcp
from uspcap.frames import FrameBatch, TimestampSource

START_NS = 1_700_000_000_000_000_000
FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
WRAP = 1 << 32


@dataclass(frozen=True)
class Segment:
    """One segment: when, of which connection (its number is the initiator's port), from which end, what.

    `timestamps` are TSval and TSecr. `form` is how it travels: `ipv4`, `ipv6`, or `vlan`, which is IPv4 behind two
    tags.
    """

    timestamp_ns: int
    from_responder: bool
    sequence: int
    acknowledgment: int = 0
    length: int = 0
    flags: int = ACK
    window: int = 500
    timestamps: tuple[int, int] | None = None
    connection: int = 0
    source: int = TimestampSource.FILE
    form: str = "ipv4"

    def wire(self) -> bytes:
        """Ethernet, perhaps tags, IP, TCP."""
        addresses = ("2001:db8::9", "2001:db8::1") if self.form == "ipv6" else ("192.0.2.9", "192.0.2.1")
        ends = [
            (ip_address(addresses[0]).packed, 40_000 + self.connection),
            (ip_address(addresses[1]).packed, 443),
        ]
        (source, source_port), (destination, port) = ends[::-1] if self.from_responder else ends
        options = b""
        if self.timestamps is not None:
            options = b"\x01\x01\x08\x0a" + struct.pack("!II", *(timestamp % WRAP for timestamp in self.timestamps))
        numbers = self.sequence % WRAP, self.acknowledgment % WRAP
        offset = (20 + len(options)) // 4 << 4
        tcp = struct.pack("!HHIIBBHHH", source_port, port, *numbers, offset, self.flags, self.window, 0, 0) + options
        tcp += bytes(self.length)
        if self.form == "ipv6":
            ip = struct.pack("!IHBB", 0x60000000, len(tcp), 6, 64) + source + destination
            return bytes(12) + b"\x86\xdd" + ip + tcp
        ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, source, destination)
        tags = b"\x88\xa8\x00\x05\x81\x00\x00\x07" if self.form == "vlan" else b""
        return bytes(12) + tags + b"\x08\x00" + ip + tcp


def feed(analysis: Tcp, segments: Sequence[Segment], batch_frames: int = 4096) -> Tcp:
    """Give segments to an analysis in batches, numbered from 1."""
    for start in range(0, len(segments), batch_frames):
        part = segments[start : start + batch_frames]
        batch = FrameBatch.from_frames(
            [segment.wire() for segment in part],
            [segment.timestamp_ns for segment in part],
            first_frame_number=start + 1,
        )
        batch.storage("timestamp_source")[: len(part)] = np.array([segment.source for segment in part], np.uint8)
        analysis.update(batch)
    return analysis


@dataclass
class _End:
    """One end of a connection while its segments are made up."""

    next: int
    received: int = 0
    window: int = 500
    heard: int = 0


@st.composite
def connections(draw: st.DrawFn, connection: int, most: int) -> list[Segment]:
    """The segments of one connection in the order of capture: whole ones, and with what goes wrong on the way."""
    isn = st.sampled_from([1_000, WRAP - 1, WRAP - 2_000, WRAP // 2 - 500, 77])
    ends = [_End(draw(isn)), _End(draw(isn))]
    ends[0].received, ends[1].received = ends[1].next, ends[0].next
    form = draw(st.sampled_from(["ipv4", "ipv4", "ipv6", "vlan"]))
    timestamped = draw(st.booleans())
    tick_ns = draw(st.sampled_from([1_000_000, 10_000, 1_000]))
    timestamp_base = draw(st.sampled_from([5, WRAP - 3, WRAP // 2 - 2]))
    now = START_NS + draw(st.integers(0, 1000))
    segments: list[Segment] = []
    sent: list[list[tuple[int, int]]] = [[], []]

    def send(side: int, sequence: int, length: int = 0, flags: int = ACK, acknowledgment: int | None = None) -> None:
        nonlocal now
        now += draw(st.integers(0, 30_000))
        end = ends[side]
        value = timestamp_base + (now - START_NS) // tick_ns
        late = draw(st.sampled_from([0, 0, 0, 1])) if timestamped else 0
        segments.append(
            Segment(
                now,
                bool(side),
                sequence,
                (end.received if acknowledgment is None else acknowledgment) if flags & ACK else 0,
                length,
                flags,
                end.window,
                (value, end.heard - late) if timestamped else None,
                connection,
                form=form,
            )
        )
        ends[1 - side].heard = value

    def handshake() -> None:
        for again in range(draw(st.sampled_from([1, 1, 1, 2]))):
            send(0, ends[0].next, flags=SYN, length=draw(st.sampled_from([0, 0, 0, 30])) if not again else 0)
        taken = draw(st.sampled_from([0, segments[-1].length]))
        ends[1].received = ends[0].next + 1 + taken
        for _ in range(draw(st.sampled_from([0, 1, 1, 1, 1, 2]))):
            send(1, ends[1].next, flags=SYN | ACK)
        ends[0].next += 1 + taken
        ends[1].next += 1
        ends[0].received = ends[1].next
        for _ in range(draw(st.sampled_from([0, 1, 1, 1]))):
            send(0, ends[0].next)

    if draw(st.booleans()):
        handshake()
    for _ in range(draw(st.integers(0, most))):
        action = draw(st.sampled_from("ddddddddaaaaaaarrpookzwqqfxsj"))
        side = draw(st.integers(0, 1))
        end, other = ends[side], ends[1 - side]
        if action == "d":
            length = draw(st.sampled_from([1, 10, 100, 1448]))
            sent[side].append((end.next, length))
            send(side, end.next, length, ACK | PSH)
            end.next += length
        elif action == "a":
            # Up to all that was sent; again, or less than before, now and then.
            back = draw(st.sampled_from([0, 0, 0, 0, 1, 100, 1448, 2896]))
            end.received = max(end.received, other.next - back)
            old = draw(st.sampled_from([0, 0, 0, 0, 0, 50]))
            send(side, end.next, acknowledgment=end.received - old)
        elif action in "rp" and sent[side]:
            sequence, length = draw(st.sampled_from(sent[side][-5:]))
            skipped = draw(st.integers(0, length - 1)) if action == "p" else 0
            more = draw(st.sampled_from([0, 0, 5, 2000])) if action == "p" else 0
            send(side, sequence + skipped, length - skipped + more, ACK | PSH)
            end.next = max(end.next, sequence + length + more)
        elif action == "o":
            # A segment that comes later than the one after it, or never.
            length = draw(st.sampled_from([1, 100, 1448]))
            first, end.next = end.next, end.next + length
            send(side, end.next, length, ACK | PSH)
            end.next += length
            if draw(st.booleans()):
                skipped = draw(st.sampled_from([0, 0, length // 3]))
                send(side, first + skipped, length - skipped - draw(st.sampled_from([0, 0, length // 3])), ACK | PSH)
            sent[side].append((first, length))
        elif action == "k":
            send(side, end.next - 1, draw(st.integers(0, 1)))
        elif action == "z":
            end.window = draw(st.sampled_from([0, 500, 501]))
            send(side, end.next)
        elif action == "w":
            for _ in range(draw(st.integers(1, 5))):
                send(side, end.next)
        elif action == "q":
            # Data are asked for again and again, and sent.
            first = end.next
            sent[side].append((first, 100))
            end.next += 100
            send(side, end.next, 50, ACK | PSH)
            end.next += 50
            for _ in range(draw(st.integers(2, 5))):
                send(1 - side, other.next, acknowledgment=first)
            send(side, first, 100, ACK | PSH)
        elif action == "f" and draw(st.integers(0, 3)) == 0:
            send(side, end.next, draw(st.sampled_from([0, 20])), FIN | ACK)
            sent[side].append((end.next, segments[-1].length + 1))
            end.next += segments[-1].length + 1
        elif action == "x" and draw(st.integers(0, 3)) == 0:
            send(side, end.next, flags=RST | ACK)
        elif action == "s" and draw(st.integers(0, 3)) == 0:
            ends = [_End(draw(isn)), _End(draw(isn))]
            ends[0].received = ends[1].next
            sent = [[], []]
            handshake()
        elif action == "j" and draw(st.integers(0, 5)) == 0:
            end.next += draw(st.sampled_from([1 << 20, 1 << 27, -(1 << 27), 1 << 31]))
            sent[side].clear()
    if segments and draw(st.booleans()):
        del segments[: draw(st.integers(0, min(len(segments), 6)))]
    for at in draw(st.lists(st.integers(0, max(len(segments) - 2, 0)), max_size=5)):
        segments[at : at + 2] = segments[at : at + 2][::-1]
    for at in sorted(draw(st.sets(st.integers(0, max(len(segments) - 1, 0)), max_size=5)), reverse=True):
        del segments[at : at + 1]
    return segments


@st.composite
def captures(draw: st.DrawFn, *, most: int = 25, connection_count: int = 2) -> list[Segment]:
    """The segments of some connections as captured, perhaps with timestamps of several sources, or backward."""
    streams = [draw(connections(number, most)) for number in range(draw(st.integers(1, connection_count)))]
    turns = draw(st.permutations([number for number, stream in enumerate(streams) for _ in stream]))
    left = [iter(stream) for stream in streams]
    segments = [next(left[number]) for number in turns]
    kinds = draw(
        st.sampled_from(
            [
                (TimestampSource.FILE,),
                (TimestampSource.FILE,),
                (TimestampSource.KERNEL, TimestampSource.HARDWARE),
                (TimestampSource.KERNEL, TimestampSource.NONE),
            ]
        )
    )
    if len(kinds) > 1:
        segments = [replace(one, source=kinds[at % 5 == 0]) for at, one in enumerate(segments)]
    for at in draw(st.lists(st.integers(0, max(len(segments) - 1, 0)), max_size=2)):
        if segments:
            back_ns = draw(st.sampled_from([1_000, 100_000, 10_000_000]))
            segments[at] = replace(segments[at], timestamp_ns=segments[at].timestamp_ns - back_ns)
    return segments


@st.composite
def cut_captures(draw: st.DrawFn, **kwargs: int) -> tuple[list[Segment], list[list[Segment]], int]:
    """A capture, the same in parts (some perhaps empty), and a batch size."""
    segments = draw(captures(**kwargs))
    cuts = sorted(draw(st.lists(st.integers(0, len(segments)), max_size=4)))
    parts = [segments[start:end] for start, end in pairwise([0, *cuts, len(segments)])]
    return segments, parts, draw(st.sampled_from([1, 7, 4096]))
