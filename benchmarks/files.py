"""Analysis of capture files, side by side with what a user would pick instead.

Makes its inputs, then runs uspcap and its peers by turns, whole processes, from a warm page cache, and prints the
median of the ratios of each pair. Slow peers (minutes a run) get fewer rounds.

    python benchmarks/files.py                  all peers, 64-byte and 1,000-byte frames
    python benchmarks/files.py --quick          without tshark and dpkt
    python benchmarks/files.py --large          also peak memory on a 6 GB file
    python benchmarks/files.py --stages         where the time goes, stage by stage, on one core
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import Process
from pathlib import Path

import numpy as np

FLOWS = 200
MEAN_GAP_NS = 567
SEED = 1

DPKT_LOOP = """
import dpkt, sys
with open(sys.argv[1], "rb") as file:
    for timestamp, frame in dpkt.pcap.Reader(file):
        dpkt.ethernet.Ethernet(frame)
"""

COUNT_LOOP = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from uspcap.formats.parts import continues, open_parts
readers = open_parts(sys.argv[1], os.cpu_count())
with ThreadPoolExecutor() as pool:
    counts = list(pool.map(lambda reader: sum(batch.count for batch in reader.batches()), readers))
assert all(map(continues, readers, readers[1:]))
print(sum(counts))
"""


@dataclass(frozen=True)
class Run:
    """One process from start to end."""

    wall_s: float
    cpu_s: float
    peak_mib: float


def make_capture(path: Path, frames: int, length: int) -> None:
    """Write a pcap (ns) of UDP frames: 200 flows by turns of chance, exponential gaps of 567 ns on average."""
    random = np.random.default_rng(SEED)
    header = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    udp_length = length - 34
    frame = (
        bytes.fromhex("0200000000020200000000010800")
        + struct.pack("!BBHHHBBH", 0x45, 0, length - 14, 0, 0x4000, 64, 17, 0)
        + bytes([10, 0, 0, 1, 239, 1, 1, 1])
        + struct.pack("!HHHH", 3000, 30001, udp_length, 0)
    ).ljust(length, b"\0")
    record = np.dtype([("s", "<u4"), ("ns", "<u4"), ("captured", "<u4"), ("wire", "<u4"), ("frame", "u1", (length,))])
    now = 1_700_000_000_000_000_000
    with path.open("wb") as file:
        file.write(header)
        while frames:
            count = min(frames, 200_000)
            timestamps = now + np.cumsum(random.exponential(MEAN_GAP_NS, count).astype(np.int64))
            now = int(timestamps[-1])
            rows = np.zeros(count, record)
            rows["s"], rows["ns"] = timestamps // 10**9, timestamps % 10**9
            rows["captured"] = rows["wire"] = length
            rows["frame"] = np.frombuffer(frame, np.uint8)
            rows["frame"][:, 35] = random.integers(0, FLOWS, count)
            rows.tofile(file)
            frames -= count


def make_apart(path: Path, frames: int, length: int) -> None:
    """Make a capture in another process: what this one's memory once was would count in its children's peaks."""
    maker = Process(target=make_capture, args=(path, frames, length))
    maker.start()
    maker.join()
    if maker.exitcode != 0:
        raise SystemExit(f"{path} could not be made")


def run(command: Sequence[str]) -> Run:
    """Run a command with its output thrown away."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{' '.join(command)} failed with {os.waitstatus_to_exitcode(status)}")
    return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def compare(name: str, ours: Sequence[str], peer_name: str, peer: Sequence[str], rounds: int) -> None:
    """Run both by turns, the order turned round each time, and print medians."""
    pairs = []
    for turn in range(rounds):
        if turn % 2:
            theirs, mine = run(peer), run(ours)
        else:
            mine, theirs = run(ours), run(peer)
        pairs.append((mine, theirs))
    ratio = statistics.median(theirs.wall_s / mine.wall_s for mine, theirs in pairs)
    mine_s = statistics.median(mine.wall_s for mine, _ in pairs)
    theirs_s = statistics.median(theirs.wall_s for _, theirs in pairs)
    peak = max(mine.peak_mib for mine, _ in pairs)
    cpu_s = statistics.median(mine.cpu_s for mine, _ in pairs)
    print(
        f"{name:>26} {mine_s:8.3f} s (cpu {cpu_s:.3f} s, peak {peak:.0f} MiB)   {peer_name:<24} {theirs_s:8.3f} s"
        f"   ratio {ratio:8.2f}   rounds {rounds}",
        flush=True,
    )


def stages(path: Path) -> None:
    """Print CPU time a frame by stage, each measured alone on top of reading, on one thread."""
    from uspcap.analysis import registry
    from uspcap.analysis.suite import Settings, Suite
    from uspcap.formats import open_capture
    from uspcap.frames import FrameBatch
    from uspcap.protocols.flows import FlowTable

    def cost(make: Callable[[], Callable[[FrameBatch], object]]) -> float:
        costs = []
        for _ in range(3):
            use, frames = make(), 0
            began = time.process_time()
            with open_capture(str(path)) as reader:
                for batch in reader.batches():
                    use(batch)
                    frames += batch.count
            costs.append((time.process_time() - began) / frames * 1e9)
        return statistics.median(costs)

    def only(name: str) -> Callable[[], Callable[[FrameBatch], object]]:
        return lambda: Suite(Settings(names=(name,))).analyses[name].update

    read = cost(lambda: lambda batch: None)
    headers = cost(lambda: lambda batch: batch.headers)
    flows = cost(lambda: FlowTable().assign)
    before = {"summary": headers, "overhead": headers, "inter_arrival": flows, "gaps": flows}
    print(f"ns a frame, one thread: reading {read:.1f}, headers {headers - read:.1f}, flows {flows - headers:.1f}")
    for name in registry.default_names(live=False):
        print(f"  {name:<14} {cost(only(name)) - before.get(name, read):6.1f}")
    print(f"  {'everything':<14} {cost(lambda: Suite(Settings()).update):6.1f}")


def main() -> None:
    """Make the inputs and run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/uspcap-benchmarks"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--slow-rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--stages", action="store_true")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)

    inputs = {"64 B": (8_000_000, 64), "1000 B": (900_000, 1000)}
    files = {name: arguments.directory / f"{name.replace(' ', '')}.pcap" for name in inputs}
    for name, (frames, length) in inputs.items():
        if not files[name].exists():
            make_apart(files[name], frames, length)
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, numpy {np.__version__}")
    print(f"uspcap {version('uspcap')}; ratio: the peer's wall time over uspcap's, median of pairs\n")
    if arguments.stages:
        stages(files["64 B"])
        return
    uspcap = shutil.which("uspcap", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uspcap is None:
        raise SystemExit("uspcap is not installed beside this Python")
    for name, path in files.items():
        file = str(path)
        ours = [uspcap, "analyze", file]
        print(f"{name} frames, {path.stat().st_size / 1e6:.0f} MB")
        run(["cat", file])
        compare("analyze", ours, "tcpdump -w /dev/null", ["tcpdump", "-r", file, "-w", "/dev/null"], arguments.rounds)
        compare("analyze", ours, "capinfos -M", ["capinfos", "-M", file], arguments.rounds)
        count = [sys.executable, "-P", "-c", COUNT_LOOP, file]
        compare("read and count", count, "cat", ["cat", file], arguments.rounds)
        if not arguments.quick:
            slow = arguments.slow_rounds
            compare("analyze", ours, "tshark -q -z io,stat,0", ["tshark", "-r", file, "-q", "-z", "io,stat,0"], slow)
            compare("analyze", ours, "dpkt Ethernet() loop", [sys.executable, "-P", "-c", DPKT_LOOP, file], slow)
    if arguments.large:
        large = arguments.directory / "large.pcap"
        if not large.exists():
            make_apart(large, 75_000_000, 64)
        print(f"64 B frames, {large.stat().st_size / 1e6:.0f} MB")
        run(["cat", str(large)])
        whole = run([uspcap, "analyze", str(large)])
        small = run([uspcap, "analyze", str(files["64 B"])])
        print(
            f"   peak memory {whole.peak_mib:.0f} MiB, on the small file {small.peak_mib:.0f} MiB; {whole.wall_s:.2f} s"
        )
        compare("read and count", [sys.executable, "-P", "-c", COUNT_LOOP, str(large)], "cat", ["cat", str(large)], 3)


if __name__ == "__main__":
    main()
