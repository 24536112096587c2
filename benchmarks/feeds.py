"""Sequence numbers of a feed on two lines, side by side with the gap finder that a user would write.

Makes a capture of MoldUDP64 on lines A and B: 2.5 million packets each, one to seven messages of 20 to 36 bytes in a
packet, B 13 us after A; a packet in ten thousand is missing on either line, one in fifty thousand is duplicated and as
many come late. Whole processes, by turns:

    uspcap    uspcap analyze --only sequence --protocol moldudp64 FILE, with its report
    dpkt      one loop that keeps the next number of each line
    cat       cat FILE >/dev/null: what the page cache gives

and CPU time on one thread: reading and headers, and what sequence and arbitration add to them (`--stages`).

    python benchmarks/feeds.py [--packets 5000000] [--rounds 7] [--slow-rounds 3] [--stages] [--directory DIR]
"""

from __future__ import annotations

import argparse
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pairs import print_pairs, uspcap_command

LINES = (
    (bytes([198, 51, 100, 10]), bytes([233, 252, 0, 1]), 26401),
    (bytes([203, 0, 113, 10]), bytes([233, 252, 0, 2]), 26402),
)
DESTINATIONS = ("233.252.0.1:26401", "233.252.0.2:26402")
MOST_MESSAGES = 7
LOST, DUPLICATE, LATE = 1e-4, 2e-5, 2e-5
B_LATER_NS = 13_000
MEAN_GAP_NS = 2_000
SEED = 5

LOOP = """
import sys, struct, dpkt
expected, gaps, packets = {}, 0, 0
with open(sys.argv[1], "rb") as file:
    for timestamp, data in dpkt.pcap.Reader(file):
        ip = dpkt.ethernet.Ethernet(data).data
        udp = ip.data
        session, number, count = struct.unpack_from("!10sQH", udp.data)
        key = ip.dst, udp.dport, session
        packets += 1
        wanted = expected.get(key, number)
        if number > wanted:
            gaps += number - wanted
        expected[key] = max(wanted, number + count)
print(packets, gaps)
"""


def make_capture(path: Path, packets: int) -> int:
    """Write the capture, a pcap of nanoseconds, where it is not there yet, and return how many messages it holds."""
    random = np.random.default_rng(SEED)
    per_line = packets // 2
    counts = random.integers(1, MOST_MESSAGES + 1, per_line)
    sizes = 20 + 4 * random.integers(0, 5, (per_line, MOST_MESSAGES))
    numbers = 1 + np.concatenate([[0], np.cumsum(counts)[:-1]])
    sent = 1_700_000_000_000_000_000 + np.cumsum(random.exponential(MEAN_GAP_NS, per_line).astype(np.int64))
    rows, lines, timestamps = [], [], []
    for line in (0, 1):
        kept = np.flatnonzero(random.random(per_line) >= LOST)
        # What jitters stays in order: only those that are late are overtaken.
        times = np.maximum.accumulate(sent[kept] + line * B_LATER_NS + random.integers(0, 1_000, len(kept)))
        times[random.random(len(kept)) < LATE] += 20_000
        again = np.flatnonzero(random.random(len(kept)) < DUPLICATE)
        rows += [kept, kept[again]]
        lines += [np.full(len(kept) + len(again), line)]
        timestamps += [times, times[again] + 500]
    row, of_line, at = (np.concatenate(column) for column in (rows, lines, timestamps))
    order = np.argsort(at, kind="stable")
    if not path.exists():
        _write(path, row[order], of_line[order], at[order], numbers, counts, sizes)
    return int(counts[row].sum())


def _write(
    path: Path,
    row: NDArray[np.int64],
    of_line: NDArray[np.int64],
    at: NDArray[np.int64],
    numbers: NDArray[np.int64],
    counts: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> None:
    heads = []
    for source, destination, port in LINES:
        ethernet = bytes([1, 0, 0x5E, *destination[1:]]) + bytes.fromhex("020000000001") + b"\x08\0"
        heads.append((ethernet, source + destination, struct.pack("!HH", port, port)))
    blocks = [struct.pack("!H", size) + b"A" * size for size in range(20, 40, 4)]
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for first in range(0, len(row), 100_000):
            pieces = []
            part = slice(first, first + 100_000)
            for packet, line, timestamp in zip(
                row[part].tolist(), of_line[part].tolist(), at[part].tolist(), strict=True
            ):
                messages = b"".join([blocks[(size - 20) >> 2] for size in sizes[packet, : counts[packet]].tolist()])
                payload = struct.pack("!10sQH", b"BENCHMARK1", numbers[packet], counts[packet]) + messages
                ethernet, addresses, ports = heads[line]
                network = struct.pack("!BBHHHBBH", 0x45, 0, 28 + len(payload), 0, 0, 8, 17, 0) + addresses
                udp = ports + struct.pack("!HH", 8 + len(payload), 0)
                length = len(ethernet) + len(network) + len(udp) + len(payload)
                pieces += [
                    struct.pack("<IIII", *divmod(timestamp, 10**9), length, length),
                    ethernet,
                    network,
                    udp,
                    payload,
                ]
            file.write(b"".join(pieces))
    partial.rename(path)


def stages(path: Path, messages: int) -> None:
    """Print what the analyses of sequence numbers cost on one thread, beside what they stand on."""
    from uspcap.analysis.arbitration.analysis import Arbitration
    from uspcap.analysis.sequence.analysis import Sequence
    from uspcap.formats import open_capture
    from uspcap.frames import FrameBatch
    from uspcap.protocols.feeds import find_protocol
    from uspcap.protocols.flows import FlowTable
    from uspcap.protocols.line_pairs import parse_pairs

    def cost(make: Callable[[], Callable[[FrameBatch], object]]) -> tuple[float, int]:
        use, frames = make(), 0
        began = time.process_time()
        with open_capture(str(path)) as reader:
            for batch in reader.batches():
                use(batch)
                frames += batch.count
        return time.process_time() - began, frames

    protocol = find_protocol("moldudp64")
    pairs = parse_pairs([",".join(f"{label}={line}" for label, line in zip("AB", DESTINATIONS, strict=True))])
    rounds = []
    for _ in range(5):
        headers, frames = cost(lambda: lambda batch: batch.headers)
        flows, _ = cost(lambda: FlowTable().assign)
        sequence, _ = cost(lambda: Sequence(protocol).update)
        arbitration, _ = cost(lambda: Arbitration(protocol, pairs).update)
        rounds.append((flows, sequence - flows, sequence, arbitration - headers, arbitration))
    medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
    names = ("reading, headers, flows", "sequence, on top", "sequence, in all", "arbitration, on top", "in all")
    for name, seconds in zip(names, medians, strict=True):
        print(
            f"{name:<26} {seconds:7.3f} s   {seconds / frames * 1e9:6.1f} ns a packet   "
            f"{frames / seconds / 1e6:6.1f} M packets/s   {messages / seconds / 1e6:6.1f} M messages/s"
        )


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packets", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slow-rounds", type=int, default=3)
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()) / "uspcap-benchmarks")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    path = arguments.directory / f"feed-{arguments.packets}.pcap"
    messages = make_capture(path, arguments.packets)
    uspcap = uspcap_command()
    print(f"{messages:,} messages, {path.stat().st_size / 1e6:,.0f} MB")
    stages(path, messages)
    if arguments.stages:
        return
    print_pairs(
        [uspcap, "analyze", "--only", "sequence", "--protocol", "moldudp64", str(path)],
        {
            "cat": (["cat", str(path)], arguments.rounds),
            "dpkt loop": ([sys.executable, "-c", LOOP, str(path)], arguments.slow_rounds),
        },
    )


if __name__ == "__main__":
    main()
