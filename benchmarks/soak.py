"""A capture under everything that may happen to it: the highest rate, all analyses, SIGSTOPs, link flaps.

Makes a veth pair in a namespace of its own, and removes it at the end; needs root, ip, ethtool and two CPUs. The sender
gives what it can; the capture runs all analyses and reports on intervals. Meanwhile it is stopped at random times for
random times, and its interface goes down and up. At the end its accounts must close, descriptors and memory must be
what they were, and no ring may have gone unread for long but while the capture was stopped.

    python benchmarks/soak.py                             ten minutes of AF_XDP
    python benchmarks/soak.py --backend packet_mmap --seconds 60 --json
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from capturing import SENDER_CPU, capturing
from traffic import SINK, send, veth_pair

LIMIT_NS = 200_000_000
"""No ring may go unread for so long outside of the stops."""

ANALYSES = (
    "summary,timestamps,inter_arrival,gaps,bursts,overhead,path_latency,sequence,arbitration,orders,requests,"
    "tick_to_trade,tcp,patterns"
)
RULES = (
    # The number in the payload counts over 256 flows; without its lowest byte it counts in each.
    *("--sequence", "offset=3,size=4,endian=little"),
    *("--pair", "A=198.51.100.1:30001,B=198.51.100.2:30001"),
    *("--trigger", "udp src port 2817; key=payload[3:7]", "--response", "udp src port 2818; key=payload[3:7]"),
)
BURST_S = 5.0
"""What is sent in one go."""

STOPPED_S = (0.05, 1.5)
RUNNING_S = (4.0, 14.0)
DOWN_S = (0.05, 0.6)
UP_S = (8.0, 20.0)
AROUND_STOP_NS = 50_000_000
"""What was stopped has to catch up."""

FLAT_SHARE = 1.10
"""The last tenth of the run may need so much of the memory that the middle of its first half needed."""


@dataclass
class Figures:
    """What came of it.

    Attributes
    ----------
    seconds, frames, captured : float and int
        What was sent, and what was analyzed.
    intervals, judged : int
        Reports on intervals, and those in which the capture was not stopped.
    longest_unread_ms, longest_unread_outside_stops_ms : float
    longest_interval_s : float
    largest_report_bytes : int
    stops, flaps : int
    descriptors, threads : tuple of int
        Fewest and most of the capturing process.
    reader_mib, reports_mib : tuple of float
        Memory of the two processes: in the middle of the first half, and in the last tenth; at most.
    unaccounted : int
        Frames that the accounts lack, over all stages.
    faults : list of str
        What must not be.
    """

    seconds: float = 0.0
    frames: int = 0
    captured: int = 0
    intervals: int = 0
    judged: int = 0
    longest_unread_ms: float = 0.0
    longest_unread_outside_stops_ms: float = 0.0
    longest_interval_s: float = 0.0
    largest_report_bytes: int = 0
    stops: int = 0
    flaps: int = 0
    descriptors: tuple[int, int] = (0, 0)
    threads: tuple[int, int] = (0, 0)
    reader_mib: tuple[float, float, float] = (0.0, 0.0, 0.0)
    reports_mib: tuple[float, float, float] = (0.0, 0.0, 0.0)
    unaccounted: int = 0
    faults: list[str] = field(default_factory=list)


class Samples:
    """Descriptors, threads and memory of a capture and of its process for reports, once in half a second."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.descriptors: list[int] = []
        self.threads: list[int] = []
        self.memory: dict[str, list[float]] = {"reader": [], "reports": []}

    def take(self) -> None:
        """Look once; a process that is gone is left out."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            self.descriptors.append(len(list(Path(f"/proc/{self._pid}/fd").iterdir())))
            self.threads.append(len(list(Path(f"/proc/{self._pid}/task").iterdir())))
            self.memory["reader"].append(_resident_mib(self._pid))
            children = Path(f"/proc/{self._pid}/task/{self._pid}/children").read_text().split()
            self.memory["reports"].append(_resident_mib(int(children[0])))

    def of_memory(self, name: str) -> tuple[float, float, float]:
        """Return the medians of the second quarter and of the last tenth, and the most, in MiB."""
        values = self.memory[name]
        count = len(values)
        early = values[count // 4 : count // 2] or [0.0]
        late = values[-max(1, count // 10) :] or [0.0]
        return statistics.median(early), statistics.median(late), max(values, default=0.0)


def _resident_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} has no memory")


class Disturbances:
    """Stops the capture and takes its interface down at random until `end`.

    Attributes
    ----------
    stops : list of (int, int)
        From when to when the capture was stopped, UTC in ns.
    flaps : int
    """

    def __init__(self, pid: int, namespace: str, seed: int) -> None:
        self._pid = pid
        self._namespace = namespace
        self._ended = threading.Event()
        self.stops: list[tuple[int, int]] = []
        self.flaps = 0
        chances = random.Random(seed), random.Random(seed + 1)
        self._threads = [
            threading.Thread(target=self._stop_it, args=(chances[0],)),
            threading.Thread(target=self._flap, args=(chances[1],)),
        ]
        for thread in self._threads:
            thread.start()

    def _stop_it(self, chance: random.Random) -> None:
        while not self._ended.wait(chance.uniform(*RUNNING_S)):
            began_ns = time.time_ns()
            os.kill(self._pid, signal.SIGSTOP)
            time.sleep(chance.uniform(*STOPPED_S))
            os.kill(self._pid, signal.SIGCONT)
            self.stops.append((began_ns, time.time_ns()))

    def _flap(self, chance: random.Random) -> None:
        while not self._ended.wait(chance.uniform(*UP_S)):
            for state in ("down", "up"):
                subprocess.run(["ip", "-n", self._namespace, "link", "set", SINK, state], check=True)
                time.sleep(chance.uniform(*DOWN_S))
            self.flaps += 1

    def end(self) -> None:
        """Leave everything running and up."""
        self._ended.set()
        for thread in self._threads:
            thread.join()


def soak(backend: str, seconds: float, rate: float, seed: int) -> Figures:
    """Run it, and return what came of it."""
    figures = Figures()
    taking = ["--take-all"] if backend == "af_xdp" else []
    command = [
        *(sys.executable, "-P", "-m", "uspcap", "capture", "-i", SINK, "--backend", backend, *taking),
        *("--analyze", ANALYSES, *RULES, "--interval", "2s", "--format", "json"),
    ]
    with (
        veth_pair() as namespace,
        tempfile.TemporaryFile("w+b") as output,
        capturing(namespace, command, "timestamps:", stdout=output, pinned=False) as capture,
    ):
        process = capture.process
        samples = Samples(process.pid)
        disturbances = Disturbances(process.pid, namespace, seed)
        began = time.monotonic()
        looking = threading.Event()
        watcher = threading.Thread(target=lambda: _sample(samples, looking))
        watcher.start()
        try:
            while (left := seconds - (time.monotonic() - began)) > 0:
                length = min(BURST_S, left)
                figures.frames += send(namespace, rate, max(1, round(length * (rate or 2.5e6))), 64, SENDER_CPU).frames
                if process.poll() is not None:
                    raise SystemExit(f"the capture ended: {capture.said}")
        finally:
            disturbances.end()
            looking.set()
            watcher.join()
        figures.seconds = time.monotonic() - began
        time.sleep(1.0)
        status = capture.end()
        output.seek(0)
        reports = output.read().decode().splitlines()
        if status:
            figures.faults.append(f"exit code {status}: {capture.said.strip().splitlines()[-1]}")
    _judge(figures, reports, samples, disturbances)
    return figures


def _sample(samples: Samples, ended: threading.Event) -> None:
    while not ended.wait(0.5):
        samples.take()


def _judge(figures: Figures, lines: Sequence[str], samples: Samples, disturbances: Disturbances) -> None:
    *intervals, whole = [json.loads(line) for line in lines]
    accounts = whole["source"]["accounts"]
    bounds = [report["interval"] for report in intervals]
    judged = [one for one in bounds[1:] if not _disturbed(one, disturbances.stops)]
    figures.captured = accounts["kept"]
    figures.intervals, figures.judged = len(bounds), len(judged)
    figures.longest_unread_ms = accounts["longest_unread_ns"] / 1e6
    figures.longest_unread_outside_stops_ms = max((one["longest_unread_ns"] for one in judged), default=0) / 1e6
    figures.longest_interval_s = max((one["end_ns"] - one["start_ns"]) / 1e9 for one in bounds)
    figures.largest_report_bytes = max(map(len, lines[:-1]), default=0)
    figures.stops, figures.flaps = len(disturbances.stops), disturbances.flaps
    figures.descriptors = min(samples.descriptors), max(samples.descriptors)
    figures.threads = min(samples.threads), max(samples.threads)
    figures.reader_mib, figures.reports_mib = samples.of_memory("reader"), samples.of_memory("reports")
    stages: list[dict[str, Any]] = accounts["stages"]
    figures.unaccounted = sum(abs(stage["unaccounted"] or 0) for stage in stages) + abs(accounts["unaccounted"])
    faults = figures.faults
    if figures.unaccounted:
        faults.append(f"{figures.unaccounted} frames are not accounted for")
    if sum(report["source"]["packets"] for report in intervals) != whole["source"]["packets"]:
        faults.append("the intervals do not add up to the whole")
    if any(one["end_ns"] != later["start_ns"] for one, later in itertools.pairwise(bounds)):
        faults.append("there is time between two intervals")
    if figures.longest_unread_outside_stops_ms * 1e6 >= LIMIT_NS:
        faults.append(f"a ring went unread for {figures.longest_unread_outside_stops_ms:.1f} ms outside of the stops")
    if figures.descriptors[1] - figures.descriptors[0] > 2:
        faults.append(f"descriptors: {figures.descriptors}")
    for name, (early, late, _) in (("reader", figures.reader_mib), ("reports", figures.reports_mib)):
        if late > FLAT_SHARE * early + 8:
            faults.append(f"memory of the process for {name} grew from {early:.0f} to {late:.0f} MiB")


def _disturbed(interval: dict[str, int], stops: Sequence[tuple[int, int]]) -> bool:
    return any(
        began < interval["end_ns"] + AROUND_STOP_NS and ended + AROUND_STOP_NS > interval["start_ns"]
        for began, ended in stops
    )


def main() -> None:
    """Run it as asked for; the exit code says whether anything was as it must not be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("af_xdp", "packet_mmap"), default="af_xdp")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--rate", type=float, default=0.0, help="frames a second; 0 is as fast as the sender goes")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1000)
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root")
    figures = soak(arguments.backend, arguments.seconds, arguments.rate, arguments.seed)
    if arguments.json:
        print(json.dumps(asdict(figures)))
    else:
        print(f"{arguments.backend}, seed {arguments.seed}")
        for name, value in asdict(figures).items():
            print(f"{name.replace('_', ' ')}: {value}")
    sys.exit(bool(figures.faults))


if __name__ == "__main__":
    main()
