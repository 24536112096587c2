"""A market data feed on two lines, with what each loses, delays and repeats."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from random import Random

from scenarios.wire import (
    MICROSECOND,
    MIDNIGHT_NS,
    MILLISECOND,
    OPEN_NS,
    Capture,
    Frame,
    Host,
    Truth,
    ethernet,
    gap_between,
    pcapng,
    skewed,
    udp,
)


@dataclass(frozen=True)
class Line:
    """One of the lines that carry the same feed."""

    name: str
    source: Host
    group: Host
    port: int
    latency_ns: int
    jitter_ns: int


FEED_LINES = (
    Line("A", Host("02:00:00:00:0a:01", "198.51.100.10"), Host.multicast("233.252.0.1"), 26401, 8_200, 1_500),
    Line("B", Host("02:00:00:00:0b:01", "203.0.113.10"), Host.multicast("233.252.0.2"), 26402, 21_500, 4_000),
)
FEED_SESSION = b"SAMPLE0305"
FEED_HEARTBEAT_NS = 20 * MILLISECOND
FEED_SCHEDULE = (
    # what the sender does, how many packets or for how long
    ("send", 220),
    ("idle", 110 * MILLISECOND),  # no messages, but heartbeats
    ("send", 180),
    ("gap", 90 * MILLISECOND),  # not even those
    ("send", 150),
    ("idle", 45 * MILLISECOND),
)
FEED_LOST = {
    # packets, counted from 1, first and last of each range
    "A": ((41, 43), (120, 120), (250, 257)),
    "B": ((77, 77), (254, 262), (550, 550)),  # 254 to 257 on both lines; 550 is the last of all
}
FEED_LATE = (("A", 160, 3),)
"""Line, packet, and how many later ones overtake it."""
FEED_DUPLICATED = (("B", 30, 2_100), ("B", 301, 1_850), ("A", 290, 40 * MILLISECOND))
"""Line, packet, and how much later it comes again, in ns."""
FEED_HELD = (("A", 101), ("A", 223), ("A", 391))
"""Line and packet: written into the file one frame late, as where two queues are read in turn."""
FEED_GAP_THRESHOLD_NS = 40 * MILLISECOND


@dataclass(frozen=True)
class FeedPacket:
    """What the feed's sender sends on both lines at once."""

    sent_ns: int
    first_sequence: int
    messages: tuple[bytes, ...]

    @property
    def payload(self) -> bytes:
        """A MoldUDP64 packet; a heartbeat where there are no messages."""
        head = FEED_SESSION + struct.pack("!QH", self.first_sequence, len(self.messages))
        return head + b"".join(struct.pack("!H", len(message)) + message for message in self.messages)


def itch_message(random: Random, sequence: int, at_ns: int) -> bytes:
    """Return an ITCH 5.0 message: Add Order, and now and then the execution or deletion of an earlier order."""
    timestamp = (at_ns - MIDNIGHT_NS).to_bytes(6, "big")
    locate = 1 + int(3 * random.random())
    kind = random.random()
    if kind < 0.6 or sequence < 5:
        stock, side = f"SAMPLE{locate}".ljust(8).encode(), b"BS"[sequence % 2 :][:1]
        body = struct.pack("!QcI8sI", sequence, side, 100 * (1 + sequence % 9), stock, 1_000_000 + 100 * locate)
        return struct.pack("!cHH", b"A", locate, 0) + timestamp + body
    if kind < 0.8:
        return struct.pack("!cHH", b"E", locate, 0) + timestamp + struct.pack("!QIQ", sequence - 3, 100, sequence)
    return struct.pack("!cHH", b"D", locate, 0) + timestamp + struct.pack("!Q", sequence - 4)


def feed_packets(random: Random) -> tuple[list[FeedPacket], list[FeedPacket], int]:
    """Play the schedule; return data packets, heartbeats, and when the gap began."""
    now, sequence, silent_from = OPEN_NS + 100 * MICROSECOND, 1, 0
    packets: list[FeedPacket] = []
    heartbeats: list[FeedPacket] = []
    for what, amount in FEED_SCHEDULE:
        if what == "send":
            for _ in range(amount):
                messages = tuple(
                    itch_message(random, sequence + place, now) for place in range(1 + int(3 * random.random()))
                )
                packets.append(FeedPacket(now, sequence, messages))
                sequence += len(messages)
                now += 2 * MICROSECOND + skewed(random, 6 * MILLISECOND)
            continue
        now = packets[-1].sent_ns
        if what == "idle":
            times = range(now + FEED_HEARTBEAT_NS, now + amount, FEED_HEARTBEAT_NS)
            heartbeats += [FeedPacket(at, sequence, ()) for at in times]
        else:
            silent_from = now
        now += amount
    return packets, heartbeats, silent_from


def feed_two_lines() -> tuple[bytes, Truth]:
    """Play the feed on both lines, with what each loses, delays and repeats."""
    random = Random(1)
    packets, heartbeats, silent_from = feed_packets(random)
    capture = Capture(tuple(f"line-{line.name.lower()}" for line in FEED_LINES))
    lost = {name: {n for first, last in ranges for n in range(first, last + 1)} for name, ranges in FEED_LOST.items()}
    data: dict[tuple[str, int], Frame] = {}
    copies: dict[tuple[str, int], Frame] = {}
    beats: list[tuple[str, FeedPacket, Frame]] = []
    for interface, line in enumerate(FEED_LINES):
        arrived = 0
        sent = [*enumerate(packets, 1), *((0, beat) for beat in heartbeats)]
        sent.sort(key=lambda pair: pair[1].sent_ns)
        for identification, (number, packet) in enumerate(sent, 1):
            arrived = max(arrived + 200, packet.sent_ns + line.latency_ns + skewed(random, line.jitter_ns))
            if number in lost[line.name]:
                continue
            wire = ethernet(line.source, line.group, udp(line.port, line.port, packet.payload), identification)
            frame = capture.add(arrived, wire, interface)
            if number:
                data[line.name, number] = frame
            else:
                beats.append((line.name, packet, frame))
        for name, number, overtaking in FEED_LATE:
            if name == line.name:
                data[name, number].timestamp_ns = data[name, number + overtaking].timestamp_ns + 900
        for name, number, delay_ns in FEED_DUPLICATED:
            if name == line.name:
                first = data[name, number]
                copies[name, number] = capture.add(first.timestamp_ns + delay_ns, first.data, interface)
    held = tuple(data[key] for key in FEED_HELD)
    capture.order(held)

    def sequences(first: int, last: int) -> Truth:
        ends = packets[last - 1].first_sequence + len(packets[last - 1].messages) - 1
        begins = packets[first - 1].first_sequence
        return {"first_sequence": begins, "last_sequence": ends, "messages": ends - begins + 1}

    def loss(name: str, first: int, last: int) -> Truth:
        tail = [frame for line, beat, frame in beats if line == name and beat.sent_ns > packets[-1].sent_ns]
        after = data.get((name, last + 1), tail[0])
        return sequences(first, last) | {
            "packets": last - first + 1,
            "before_frame": data[name, first - 1].number,
            "after_frame": after.number,
        }

    def gap(line: Line) -> Truth:
        frames = [data[line.name, n] for n, _ in enumerate(packets, 1) if (line.name, n) in data]
        last = next(frame for frame in reversed(frames) if frame.timestamp_ns <= silent_from + MILLISECOND)
        return gap_between(last, frames[frames.index(last) + 1]) | {
            "flow": f"UDP {line.source.ip}:{line.port} > {line.group.ip}:{line.port}"
        }

    on_both = sorted(lost["A"] & lost["B"])
    return b"".join(pcapng(capture)), {
        "frames": len(capture.frames),
        "messages": packets[-1].first_sequence + len(packets[-1].messages) - 1,
        "data_packets": len(packets),
        "lines": {
            line.name: {
                "interface": interface,
                "group": line.group.ip,
                "port": line.port,
                "frames": sum(frame.interface == interface for frame in capture.frames),
                "heartbeats": sum(name == line.name for name, _, _ in beats),
                "lost": [loss(line.name, *ends) for ends in FEED_LOST[line.name]],
            }
            for interface, line in enumerate(FEED_LINES)
        },
        "lost_on_both": [sequences(on_both[0], on_both[-1])],
        "late": [
            sequences(number, number)
            | {
                "line": name,
                "frame": data[name, number].number,
                "overtaken_by_frames": [data[name, number + place].number for place in range(1, overtaking + 1)],
            }
            for name, number, overtaking in FEED_LATE
        ],
        "duplicates": [
            sequences(number, number) | {"line": name, "frame": copy.number, "of_frame": data[name, number].number}
            for (name, number), copy in copies.items()
        ],
        "heartbeats": [
            {"line": name, "frame": frame.number, "next_sequence": beat.first_sequence} for name, beat, frame in beats
        ],
        "gap_threshold_ns": FEED_GAP_THRESHOLD_NS,
        "gaps": [gap(line) for line in FEED_LINES],
        "backward_steps": [
            {"frame": frame.number, "step_ns": frame.timestamp_ns - capture.frames[frame.number - 2].timestamp_ns}
            for frame in held
        ],
    }
