"""Matching of two captures, side by side with what a user would write, and with reading the bytes.

Makes two captures of the same UDP stream: 96-byte frames 1 us apart, each with a number of its own; a thousandth is
missing on either side, and B is later by 10 us and an exponential delay of 2 us. Whole processes, by turns:

    uspcap    uspcap compare A B, with its report
    dpkt      a dictionary of payload bytes: one loop over each file
    cat       cat A B >/dev/null: what the page cache gives

    python benchmarks/compare.py [--frames 2000000] [--rounds 9] [--slow-rounds 3] [--directory DIR]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from pathlib import Path

import numpy as np
from pairs import print_pairs, uspcap_command

FRAME_BYTES = 96
LOST = 0.001
SEED = 4

DICTIONARY = """
import sys, dpkt
from dpkt import pcap
def frames(path):
    with open(path, "rb") as file:
        for timestamp, data in pcap.Reader(file):
            yield timestamp, dpkt.ethernet.Ethernet(data).data.data.data
a = {payload: timestamp for timestamp, payload in frames(sys.argv[1])}
delays = [timestamp - a[payload] for timestamp, payload in frames(sys.argv[2]) if payload in a]
print(len(delays), min(delays), sorted(delays)[len(delays) // 2])
"""

RECORD = np.dtype([("s", "<u4"), ("ns", "<u4"), ("captured", "<u4"), ("wire", "<u4"), ("frame", np.uint8, FRAME_BYTES)])


def make_captures(directory: Path, frames: int) -> tuple[Path, Path]:
    """Write A and B and return their paths; what is there already is left."""
    paths = directory / f"compare-{frames}-a.pcap", directory / f"compare-{frames}-b.pcap"
    if all(path.exists() for path in paths):
        return paths
    random = np.random.default_rng(SEED)
    records = np.zeros(frames, RECORD)
    header = bytes.fromhex("02000000000202000000000108004500005200004000401100000a0000010a0000020bb87531003e0000")
    records["frame"][:, : len(header)] = np.frombuffer(header, np.uint8)
    numbers = np.arange(frames, dtype=">u8").view(np.uint8).reshape(frames, 8)
    records["frame"][:, len(header) : len(header) + 8] = numbers
    records["captured"] = records["wire"] = FRAME_BYTES
    timestamps = 1_700_000_000_000_000_000 + np.arange(frames, dtype=np.int64) * 1000
    later = timestamps + 10_000 + random.exponential(2000, frames).astype(np.int64)
    for path, times in ((paths[0], timestamps), (paths[1], later)):
        kept = random.random(frames) >= LOST
        kept &= np.ones(frames, bool)
        order = np.argsort(times[kept], kind="stable")
        rows = records[kept][order]
        rows["s"], rows["ns"] = np.divmod(times[kept][order], 1_000_000_000)
        with path.open("wb") as file:
            file.write(np.array([0xA1B23C4D, 0x00040002, 0, 0, 262144, 1], "<u4").tobytes())
            rows.tofile(file)
    return paths


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slow-rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()) / "uspcap-benchmarks")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    a, b = map(str, make_captures(arguments.directory, arguments.frames))
    print_pairs(
        [uspcap_command(), "compare", a, b],
        {
            "dpkt dictionary": ([sys.executable, "-c", DICTIONARY, a, b], arguments.slow_rounds),
            "cat A B": (["cat", a, b], arguments.rounds),
        },
    )
    peak_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"\npeak memory of the largest child, the dictionary's among them: {peak_kib >> 10} MiB")


if __name__ == "__main__":
    main()
