"""Live capture, side by side with what a user would pick instead: loss and CPU at the same offered load.

Makes a veth pair in a namespace of its own and removes it at the end; needs root, ip and ethtool, two CPUs, and room
for one capture file in --directory, which should be a tmpfs. The sender runs on the first CPU, and with it the softirqs
that receive; what captures runs on the second. Peers that are not installed are left out, and that is said.

    python benchmarks/live.py                    everything; about half an hour
    python benchmarks/live.py --rates 500000     loss and CPU at these offered rates (0: as fast as it goes), no search
    python benchmarks/live.py --only tcpdump     subjects whose name has that in it; may be repeated
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from traffic import NICE, SINK, Sent, send, veth_pair

from uspcap.formats import open_capture

READER = Path(__file__).with_name("ring_reader.py")
SENDER_CPU, CAPTURE_CPU = 0, 1
BUFFER_MIB = 64
SMALL_BUFFER_MIB = 16
READY_S = 20.0
SETTLE_S = 0.3
"""After a subject says that it is ready."""

DRAIN_S = 1.3
"""After the last frame: tcpdump looks at a block that is not full after one second."""

SEARCH_STEP = 1.02
"""The search for the highest rate without loss ends when the bounds are that close."""


@dataclass(frozen=True)
class Subject:
    """Something that captures.

    Attributes
    ----------
    name : str
    command : list of str
        With FILE where the output file goes.
    ready : str
        What it says once it captures.
    says_count : bool
        It writes no file of frames; the last `received N` or `N packets captured` is the count.
    """

    name: str
    command: list[str]
    ready: str
    says_count: bool = False


@dataclass(frozen=True)
class Run:
    """One capture of one load.

    Attributes
    ----------
    sent : Sent
    captured : int
        Frames in the file, read back; or what the subject says where it writes none.
    process_s : float
        CPU time that the scheduler charged the subject's threads with while the load ran.
    path_s : float
        That, the sender without its waiting, and the softirqs: those of the sender's CPU run on the sender's back or
        in ksoftirqd, and the scheduler charges these.
    machine_s : float
        Everything that kept the CPUs busy by /proc/stat, without the sender's waiting: other work is among it.
    """

    sent: Sent
    captured: int
    process_s: float
    path_s: float
    machine_s: float

    @property
    def lost(self) -> int:
        """Frames offered and not captured, wherever they were lost."""
        return self.sent.frames - self.captured

    @property
    def process_ns(self) -> float:
        """A frame captured; the same number is CPU ms a million frames."""
        return self.process_s / self.captured * 1e9 if self.captured else math.nan

    @property
    def path_ns(self) -> float:
        """A frame offered, from its making to the file."""
        return self.path_s / self.sent.frames * 1e9

    @property
    def machine_ns(self) -> float:
        """A frame offered."""
        return self.machine_s / self.sent.frames * 1e9


def subjects() -> list[Subject]:
    """Return what is there to compare; say what is not."""
    uspcap = shutil.which("uspcap", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if uspcap is None:
        raise SystemExit("uspcap is not installed beside this Python")

    def capture(backend: str, mib: int, *words: str) -> list[str]:
        return [uspcap, "capture", "-i", SINK, "-B", str(mib << 10), "--backend", backend, *taking[backend], *words]

    def reader(what: str, mib: int) -> list[str]:
        return [sys.executable, "-P", str(READER), what, SINK, str(mib)]

    taking = {"af_xdp": ["--take-all"], "packet_mmap": []}
    small = f"{SMALL_BUFFER_MIB} MiB"
    found = [
        Subject(f"af_xdp {small}", capture("af_xdp", SMALL_BUFFER_MIB, "-w", "FILE"), "stamps:"),
        Subject("af_xdp", capture("af_xdp", BUFFER_MIB, "-w", "FILE"), "stamps:"),
        Subject("packet_mmap", capture("packet_mmap", BUFFER_MIB, "-w", "FILE"), "stamps:"),
        Subject(f"bare ring reader {small}", reader("bare", SMALL_BUFFER_MIB), "ready", True),
        Subject("bare ring reader", reader("bare", BUFFER_MIB), "ready", True),
        Subject(f"af_xdp {small} reading only", reader("af_xdp", SMALL_BUFFER_MIB), "ready", True),
        Subject("packet_mmap reading only", reader("packet_mmap", BUFFER_MIB), "ready", True),
    ]
    for backend in taking:
        analyzed = capture(backend, BUFFER_MIB, "--analyze", "inter_arrival,gaps")
        found.append(Subject(f"{backend} analyzing", analyzed, "stamps:", True))
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


class Bench:
    """Runs subjects on the pair of one namespace.

    Parameters
    ----------
    namespace : str
    directory : Path
        For the file that a subject writes; it is removed after each run.
    length : int
        Bytes of each frame.
    """

    def __init__(self, namespace: str, directory: Path, length: int) -> None:
        self._namespace = namespace
        self._file = directory / f"uspcap-live-{os.getpid()}.pcap"
        self._says = directory / f"uspcap-live-{os.getpid()}.txt"
        self._length = length

    def run(self, subject: Subject, rate: float, seconds: float) -> Run:
        """Offer a load for about so long, and see what becomes of it; rate 0 is as fast as the sender can."""
        name = self._file if subject.command[0] in ("tcpdump", "netsniff-ng") else self._file.with_suffix(".pcapng")
        command = [str(name) if word == "FILE" else word for word in subject.command]
        pinned = [
            "ip",
            "netns",
            "exec",
            self._namespace,
            "nice",
            "-n",
            str(NICE),
            "taskset",
            "-c",
            str(CAPTURE_CPU),
            *command,
        ]
        with self._says.open("w+") as said:
            process = subprocess.Popen(pinned, stdout=said, stderr=said)
            try:
                self._wait_until_ready(process, subject)
                time.sleep(SETTLE_S)
                process_before, softirqs_before, machine_before = _process_s(process.pid), _softirqs_s(), _busy_s()
                sent = send(self._namespace, rate, round(seconds * (rate or 2e6)), self._length, SENDER_CPU)
                time.sleep(DRAIN_S)
                process_s = _process_s(process.pid) - process_before
                path_s = process_s + sent.working_s + _softirqs_s() - softirqs_before
                machine_s = _busy_s() - machine_before - sent.waited_s
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(60)
        try:
            captured = self._count_said() if subject.says_count else _count_frames(name)
        finally:
            name.unlink(missing_ok=True)
            self._says.unlink()
        return Run(sent, captured, process_s, path_s, machine_s)

    def _wait_until_ready(self, process: subprocess.Popen[bytes], subject: Subject) -> None:
        end = time.monotonic() + READY_S
        while subject.ready not in self._says.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{subject.name} did not start: {self._says.read_text().strip()}")
            time.sleep(0.02)

    def _count_said(self) -> int:
        counts = re.findall(r"received (\d+)|(\d+) packets captured", self._says.read_text())
        return int("".join(counts[-1]))


def _count_frames(path: Path) -> int:
    with open_capture(str(path)) as reader:
        return sum(batch.count for batch in reader.batches())


def _process_s(pid: int) -> float:
    """CPU time of all threads so far, to the nanosecond (/proc/PID/task/TID/schedstat)."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def _softirqs_s() -> float:
    """CPU time of the kernel's threads that take over softirqs where these are many."""
    names = ((path, path.read_text()) for path in Path("/proc").glob("[0-9]*/comm"))
    return sum(_process_s(int(path.parent.name)) for path, name in names if name.startswith("ksoftirqd/"))


def _busy_s() -> float:
    """Time that the CPUs were not idle so far: what /proc/stat has beside idle and iowait."""
    user, nice, system, idle, iowait, hardirq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    del idle, iowait
    return (user + nice + system + hardirq + softirq + steal) / os.sysconf("SC_CLK_TCK")


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
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in each run")
    parser.add_argument("--length", type=int, default=64, help="bytes of a frame, 60 to 1514")
    parser.add_argument("--rates", type=lambda text: [float(one) for one in text.split(",")])
    parser.add_argument("--only", action="append")
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
        for rate in arguments.rates or (100e3, 1e6, 0):
            compare(bench, found, rate, arguments.rounds, arguments.seconds)
        if arguments.rates is None:
            print("\nhighest rate without loss\n\n| subject | M/s | bounded by |\n|---|---|---|")
            for subject in found:
                reached, unbounded = highest_rate(bench, subject, arguments.seconds)
                bound = "sender's CPU: sending and softirqs" if unbounded else "the subject"
                print(f"| {subject.name} | {reached / 1e6:.2f} | {bound} |", flush=True)


if __name__ == "__main__":
    main()
