"""Live capture, side by side with what a user would pick instead: loss and CPU at the same offered load.

Makes a veth pair in a namespace of its own and removes it at the end; needs root, ip and ethtool, two CPUs, and room
for one capture file in --directory, which should be a tmpfs. The sender runs on the first CPU, and with it the softirqs
that receive; what captures runs on the second. Peers that are not installed are left out, and that is said.

    python benchmarks/live.py                    everything; about half an hour
    python benchmarks/live.py --rates 500000     loss and CPU at these offered rates (0: as fast as it goes), no search
    python benchmarks/live.py --only tcpdump     subjects whose name has that in it; may be repeated
    python benchmarks/live.py --wakeups          CPU, delay and idle system calls at 10,000 and 100,000 frames/s
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from capturing import CAPTURE_CPU, Bench, Run, Subject
from traffic import SINK, veth_pair
from wakeups import RATES, SECONDS, compare_wakeups

READER = Path(__file__).with_name("ring_reader.py")
BUFFER_MIB = 64
SMALL_BUFFER_MIB = 16

SEARCH_STEP = 1.02
"""The search for the highest rate without loss ends when the bounds are that close."""


def subjects() -> list[Subject]:
    """Return what is there to compare; say what is not."""
    uspcap = _own_uspcap()

    def capture(backend: str, mib: int, *words: str) -> list[str]:
        return [uspcap, "capture", "-i", SINK, "-B", str(mib << 10), "--backend", backend, *taking[backend], *words]

    def reader(what: str, mib: int) -> list[str]:
        return [sys.executable, "-P", str(READER), what, SINK, str(mib)]

    taking = {"af_xdp": ["--take-all"], "packet_mmap": []}
    small = f"{SMALL_BUFFER_MIB} MiB"
    found = [
        Subject(f"af_xdp {small}", capture("af_xdp", SMALL_BUFFER_MIB, "-w", "FILE"), "timestamps:"),
        Subject("af_xdp", capture("af_xdp", BUFFER_MIB, "-w", "FILE"), "timestamps:"),
        Subject("packet_mmap", capture("packet_mmap", BUFFER_MIB, "-w", "FILE"), "timestamps:"),
        Subject(f"bare ring reader {small}", reader("bare", SMALL_BUFFER_MIB), "ready", True),
        Subject("bare ring reader", reader("bare", BUFFER_MIB), "ready", True),
        Subject(f"af_xdp {small} reading only", reader("af_xdp", SMALL_BUFFER_MIB), "ready", True),
        Subject("packet_mmap reading only", reader("packet_mmap", BUFFER_MIB), "ready", True),
    ]
    for backend in taking:
        analyzed = capture(backend, BUFFER_MIB, "--analyze", "inter_arrival,gaps")
        found.append(Subject(f"{backend} analyzing", analyzed, "timestamps:", True))
    peers = (
        Subject(
            "tcpdump", ["tcpdump", "-i", SINK, "-Z", "root", "-B", str(BUFFER_MIB << 10), "-w", "FILE"], "listening on"
        ),
        Subject(
            "tcpdump to /dev/null",
            ["tcpdump", "-i", SINK, "-Z", "root", "-B", str(BUFFER_MIB << 10), "-w", "/dev/null"],
            "listening on",
            True,
        ),
        Subject("dumpcap", ["dumpcap", "-i", SINK, "-q", "-B", str(BUFFER_MIB), "-w", "FILE"], "File:"),
        Subject(
            "netsniff-ng",
            ["netsniff-ng", "--in", SINK, "--out", "FILE", "--silent", "--ring-size", f"{BUFFER_MIB}MiB"],
            "Running!",
        ),
    )
    for peer in peers:
        if shutil.which(peer.command[0]) is None:
            print(f"{peer.name} is left out: {peer.command[0]} is not installed")
        else:
            found.append(peer)
    return found


def _own_uspcap() -> str:
    """Return the command that is installed beside this Python."""
    uspcap = shutil.which("uspcap", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uspcap is None:
        raise SystemExit("uspcap is not installed beside this Python")
    return uspcap


def compare(bench: Bench, found: Sequence[Subject], rate: float, rounds: int, seconds: float) -> None:
    """Run all by turns at one rate, each round beginning with another, and print medians."""
    runs: dict[str, list[Run]] = {subject.name: [] for subject in found}
    for turn in range(rounds):
        for number in range(len(found)):
            subject = found[(number + turn) % len(found)]
            runs[subject.name].append(bench.run(subject, rate, seconds))
    offered = f"{rate / 1e6:.2f} M/s" if rate else "as fast as the sender and the softirqs on its CPU go"
    print(f"\noffered: {offered}; medians of {rounds} rounds by turns\n")
    print("| subject | offered, M/s | lost in all rounds | process, ns | to tcpdump | whole path, ns | machine, ns |")
    print("|---|---|---|---|---|---|---|")
    for name, mine in runs.items():
        sent = statistics.median(one.sent.rate for one in mine)
        lost, all_sent = sum(one.lost for one in mine), sum(one.sent.frames for one in mine)
        share = f"{lost:,} ({lost / all_sent:.3%})" if lost else "0"
        process = statistics.median(one.process_ns for one in mine)
        path = statistics.median(one.path_ns for one in mine)
        machine = statistics.median(one.machine_ns for one in mine)
        pairs = [one.process_ns / peer.process_ns for one, peer in zip(mine, runs.get("tcpdump", []), strict=False)]
        against = f"{statistics.median(pairs):.2f}" if pairs else "–"
        print(
            f"| {name} | {sent / 1e6:.2f} | {share} | {process:.0f} | {against} | {path:.0f} | {machine:.0f} |",
            flush=True,
        )


def highest_rate(bench: Bench, subject: Subject, seconds: float) -> tuple[float, bool]:
    """Search for the highest rate without loss.

    Returns
    -------
    rate : float
        As it was really offered.
    unbounded : bool
        Nothing was lost even of what the sender gives unpaced: it is the sender that ends there, not the subject.
    """

    def without_loss(rate: float) -> float:
        """The rate offered in the better of two tries; 0 where both lost frames."""
        for _ in range(2):
            run = bench.run(subject, rate, seconds)
            if not run.lost:
                return run.sent.rate
        return 0.0

    reached = without_loss(0)
    if reached:
        return reached, True
    low, high, reached = 50e3, bench.run(subject, 0, seconds).sent.rate, 0.0
    while high / low > SEARCH_STEP:
        middle = math.sqrt(low * high)
        offered = without_loss(middle)
        if offered:
            low, reached = middle, max(reached, offered)
        else:
            high = middle
    return reached, False


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help=f"of load in each run; 2, or {SECONDS:g} with --wakeups")
    parser.add_argument("--length", type=int, default=64, help="bytes of a frame, 60 to 1514")
    parser.add_argument("--rates", type=lambda text: [float(one) for one in text.split(",")])
    parser.add_argument("--only", action="append")
    parser.add_argument("--wakeups", action="store_true", help="what being woken costs; see wakeups.py")
    parser.add_argument("--before", type=Path, help="with --wakeups: the uspcap of an earlier version, too")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or (os.cpu_count() or 1) <= CAPTURE_CPU:
        raise SystemExit("network namespaces need root, and sender and capture a CPU each")
    found = [one for one in subjects() if not arguments.only or any(part in one.name for part in arguments.only)]
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, uspcap {version('uspcap')}"
    )
    print(f"{arguments.length}-byte frames of 256 flows, rings of {BUFFER_MIB} MiB where nothing else is said")
    with veth_pair() as namespace:
        bench = Bench(namespace, arguments.directory, arguments.length)
        if arguments.wakeups:
            seconds = arguments.seconds or SECONDS
            compare_wakeups(bench, arguments.rates or RATES, arguments.rounds, seconds, _own_uspcap(), arguments.before)
            return
        seconds = arguments.seconds or 2.0
        for rate in arguments.rates or (100e3, 1e6, 0):
            compare(bench, found, rate, arguments.rounds, seconds)
        if arguments.rates is None:
            print("\nhighest rate without loss\n\n| subject | M/s | bounded by |\n|---|---|---|")
            for subject in found:
                reached, unbounded = highest_rate(bench, subject, seconds)
                bound = "sender's CPU: sending and softirqs" if unbounded else "the subject"
                print(f"| {subject.name} | {reached / 1e6:.2f} | {bound} |", flush=True)


if __name__ == "__main__":
    main()
