"""What untidy input costs: files that overlap in time, the check of tidy ones, a short range of a long file.

Makes its inputs, then runs both sides of each line by turns, whole processes, from a warm page cache, and prints
medians of the ratios of pairs: of wall time, and of CPU time, which other jobs on the machine disturb less.

    python benchmarks/order.py                  64-byte and 1,000-byte frames
    python benchmarks/order.py --jobs 1         on one core
    python benchmarks/order.py --large          also the last hundredth of 5 GB, and peak memory with a thousand files
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from multiprocessing import Process
from pathlib import Path

import numpy as np
from files import MEAN_GAP_NS, SEED, make_apart, run

HEADER_BYTES = 24
MANY = 1000
LARGE_FRAMES = 62_500_000
BEGIN_NS = 1_700_000_000_000_000_000


def _split(path: Path, parts: Sequence[Path]) -> None:
    data = np.fromfile(path, np.uint8)
    length = 16 + int(data[HEADER_BYTES + 8 : HEADER_BYTES + 12].view("<u4")[0])
    rows = data[HEADER_BYTES:].reshape(-1, length)
    part = np.random.default_rng(SEED).integers(0, len(parts), len(rows))
    order = np.argsort(part, kind="stable")
    ends = np.cumsum(np.bincount(part, minlength=len(parts)))
    for number, into in enumerate(parts):
        with into.open("wb") as file:
            data[:HEADER_BYTES].tofile(file)
            rows[order[ends[number - 1] if number else 0 : ends[number]]].tofile(file)


def split(path: Path, parts: Sequence[Path]) -> None:
    """Deal the frames of a capture out to files at random, in another process, whose memory is no child's peak."""
    if all(one.exists() for one in parts):
        return
    maker = Process(target=_split, args=(path, parts))
    maker.start()
    maker.join()
    if maker.exitcode != 0:
        raise SystemExit(f"{path} could not be split")


def by_turns(name: str, ours: Sequence[str], peer_name: str, peer: Sequence[Sequence[str]], rounds: int) -> None:
    """Run ours, and the peer's commands one after the other, by turns; print medians of ours over the peer's."""
    walls, cpus, seconds = [], [], []
    for turn in range(rounds):
        if turn % 2:
            theirs, mine = [run(command) for command in peer], run(ours)
        else:
            mine, theirs = run(ours), [run(command) for command in peer]
        walls.append(mine.wall_s / sum(one.wall_s for one in theirs))
        cpus.append(mine.cpu_s / sum(one.cpu_s for one in theirs))
        seconds.append((mine.wall_s, mine.cpu_s))
    wall_s, cpu_s = (statistics.median(column) for column in zip(*seconds, strict=True))
    print(
        f"{name:>24} {wall_s:7.3f} s (cpu {cpu_s:.3f} s)   over {peer_name:<26} wall {statistics.median(walls):5.2f}"
        f"   cpu {statistics.median(cpus):5.2f}   rounds {rounds}",
        flush=True,
    )


def main() -> None:
    """Make the inputs and run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/uspcap-benchmarks"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    uspcap = shutil.which("uspcap", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uspcap is None:
        raise SystemExit("uspcap is not installed beside this Python")
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    analyze = [uspcap, "analyze", "-j", str(arguments.jobs)]
    for frames, length in ((8_000_000, 64), (900_000, 1000)):
        whole = directory / f"{length}B.pcap"
        if not whole.exists():
            make_apart(whole, frames, length)
        halves = [directory / f"{length}B.{side}.pcap" for side in "ab"]
        split(whole, halves)
        files = [str(one) for one in halves]
        print(f"{length} B frames, {whole.stat().st_size / 1e6:.0f} MB, {arguments.jobs} jobs")
        off = [*analyze, "--sort", "off", str(whole)]
        by_turns("sorted, checked", [*analyze, str(whole)], "--sort off", [off], arguments.rounds)
        by_turns("two that overlap", [*analyze, *files], "their merged file", [off], arguments.rounds)
        with tempfile.TemporaryDirectory(dir=directory) as made:
            merged = f"{made}/merged.pcap"
            peer = [["mergecap", "-F", "nsecpcap", "-w", merged, *files], [*analyze, merged]]
            by_turns("two that overlap", [*analyze, *files], "mergecap, then analyze", peer, arguments.rounds)
    if arguments.large:
        many = [directory / "many" / f"{number}.pcap" for number in range(MANY)]
        many[0].parent.mkdir(exist_ok=True)
        split(directory / "64B.pcap", many)
        found = run([*analyze, str(many[0].parent)])
        print(f"{MANY} files of 8,000 frames that overlap: peak {found.peak_mib:.0f} MiB, {found.wall_s:.2f} s")
        large = directory / "5GB.pcap"
        if not large.exists():
            make_apart(large, LARGE_FRAMES, 64)
        begin_ns = BEGIN_NS + MEAN_GAP_NS * LARGE_FRAMES * 99 // 100
        moment = datetime.fromtimestamp(begin_ns // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        last = [*analyze, "--from", f"{moment}.{begin_ns % 10**9:09}Z", str(large)]
        by_turns("last hundredth of 5 GB", last, "uspcap --version", [[uspcap, "--version"]], arguments.rounds)


if __name__ == "__main__":
    main()
