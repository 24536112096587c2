"""What being woken costs: CPU, delay and idle system calls of captures at rates that leave the reader idle.

A reader that is woken for every frame takes more CPU than one that lets them gather, and has them sooner; so each
figure stands beside the other. What sleeping alone costs, of a process that does nothing else, is the minimum that a
given delay can be had for. Everything is run by turns, medians of the ratios of pairs to tcpdump in the same round.

    python benchmarks/live.py --wakeups                        both backends and tcpdump at 10,000 and 100,000 frames/s
    python benchmarks/live.py --wakeups --before PATH          and the uspcap at PATH, an earlier version
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from capturing import CAPTURE_CPU, Bench, Subject, capturing
from numpy.typing import NDArray
from traffic import NICE, SINK

RATES = (10e3, 100e3)
SECONDS = 10.0
"""Of load: what a capture does once a second, or once, is to be as small a part as it is in one that lasts."""

BEFORE_IDLE_S, IDLE_S = 2.0, 10.0
HANDED_OVER_S = 1.5
"""tcpdump has handed over what came by then."""

SLEEPS_MS = (1.6, 20.0)
"""As long as AF_XDP's and PACKET_MMAP's frames gather by default."""

PCAP_HEADER, RECORD_HEADER = 24, struct.Struct("=IIII")
NANOSECONDS_MAGIC = 0xA1B23C4D


@dataclass(frozen=True)
class Delay:
    """How long frames took from the kernel to user space.

    Attributes
    ----------
    p50_ms, p99_ms : float
    """

    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        return f"{self.p50_ms:.3g} / {self.p99_ms:.3g}"

    @classmethod
    def of(cls, delays_ns: NDArray[np.int64]) -> Delay:
        """Return percentiles of what was measured."""
        return cls(*(float(value) / 1e6 for value in np.percentile(delays_ns, (50, 99))))


def path_latency(command: Sequence[str], namespace: str, sending: Callable[[], object]) -> Delay:
    """Run uspcap with `--analyze path_latency --format json`, and return what it says of its own reader."""
    with (
        tempfile.TemporaryFile("w+b") as output,
        capturing(namespace, command, "timestamps:", stdout=output) as capture,
    ):
        sending()
        capture.end()
        output.seek(0)
        (path,) = json.load(output)["analyses"]["path_latency"]["sources"].values()
    return Delay(path["percentiles_ns"]["50"] / 1e6, path["percentiles_ns"]["99"] / 1e6)


def delay_to_pipe(command: Sequence[str], namespace: str, sending: Callable[[], object]) -> Delay:
    """Run what writes a pcap file to a pipe packet by packet, and return how old frames are when they come out of it.

    That is the delay from the kernel's timestamp to tcpdump's reader, and a few microseconds for the pipe.
    """
    pieces: list[tuple[int, bytes]] = []
    with (
        capturing(namespace, command, "listening on", stdout=subprocess.PIPE) as capture,
        ThreadPoolExecutor(1) as pool,
    ):
        assert capture.process.stdout is not None, "it is a pipe"
        pipe = capture.process.stdout.fileno()
        sent = pool.submit(sending)
        quiet_since = time.monotonic()
        while not sent.done() or time.monotonic() < quiet_since + HANDED_OVER_S:
            if select.select([pipe], [], [], 0.1)[0]:
                piece = os.read(pipe, 1 << 16)
                pieces.append((time.time_ns(), piece))
                quiet_since = time.monotonic()
        sent.result()
        capture.end()
    return Delay.of(_ages(pieces))


def _ages(pieces: Sequence[tuple[int, bytes]]) -> NDArray[np.int64]:
    """Return how old each record of a pcap stream was when its last byte was read, ndarray of int64 in ns."""
    data = b"".join(piece for _, piece in pieces)
    ends = np.cumsum([len(piece) for _, piece in pieces])
    times = np.array([read_at_ns for read_at_ns, _ in pieces])
    unit = 1 if struct.unpack_from("=I", data)[0] == NANOSECONDS_MAGIC else 1000
    timestamps, last_bytes = [], []
    at = PCAP_HEADER
    while at + RECORD_HEADER.size <= len(data):
        seconds, fraction, captured, _ = RECORD_HEADER.unpack_from(data, at)
        at += RECORD_HEADER.size + captured
        if at > len(data):
            break
        timestamps.append(seconds * 1_000_000_000 + fraction * unit)
        last_bytes.append(at)
    ages: NDArray[np.int64] = times[np.searchsorted(ends, last_bytes)] - np.array(timestamps)
    return ages


SLEEPER = """
import ctypes, sys, time
sleep, period_us, times = ctypes.CDLL(None).usleep, int(sys.argv[1]), int(sys.argv[2])
sleep(period_us)
began_ns = time.thread_time_ns()
for _ in range(times):
    sleep(period_us)
print((time.thread_time_ns() - began_ns) / times)
"""


def sleeping_ns(period_ms: float, seconds: float) -> float:
    """Return what CPU time it takes to sleep and be woken once, where nothing else is done."""
    place = ("nice", "-n", str(NICE), "taskset", "-c", str(CAPTURE_CPU))
    words = (str(round(period_ms * 1000)), str(round(seconds * 1000 / period_ms)))
    done = subprocess.run([*place, sys.executable, "-c", SLEEPER, *words], capture_output=True, text=True, check=True)
    return float(done.stdout)


def idle_calls(command: Sequence[str], namespace: str, ready: str) -> float | None:
    """Return how many system calls a second all threads and processes of a command make while nothing comes.

    None where strace is not installed.
    """
    if shutil.which("strace") is None:
        return None
    with (
        tempfile.NamedTemporaryFile("r") as counted,
        capturing(namespace, command, ready, stdout=subprocess.DEVNULL) as capture,
    ):
        time.sleep(BEFORE_IDLE_S)
        pid = capture.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        followed = [word for traced in (str(pid), *children) for word in ("-p", traced)]
        tracer = subprocess.Popen(
            ["strace", "-f", "-qq", "-c", "-U", "calls,name", "-o", counted.name, *followed],
            stderr=subprocess.DEVNULL,
        )
        time.sleep(IDLE_S)
        tracer.send_signal(signal.SIGINT)
        tracer.wait(30)
        capture.end()
        calls = [int(match[1]) for match in re.finditer(r"^\s*(\d+)\s+(?!total)\w+$", counted.read(), re.MULTILINE)]
    return sum(calls) / IDLE_S


@dataclass(frozen=True)
class Waker:
    """A subject, and how its delay is measured.

    Attributes
    ----------
    subject : Subject
        Writes to a file.
    delayed : list of str
        The same with the option that prints its delay; `delay` runs it.
    delay : callable
        `path_latency` or `delay_to_pipe`.
    """

    subject: Subject
    delayed: list[str]
    delay: Callable[[Sequence[str], str, Callable[[], object]], Delay]


def _capture(name: str, uspcap: str | Path, backend: str, *words: str) -> Waker:
    """Return uspcap with a backend."""
    taking = ["--take-all"] if backend == "af_xdp" else []
    common = [str(uspcap), "capture", "-i", SINK, "-B", str(64 << 10), "--backend", backend, *taking, *words]
    return Waker(
        Subject(name, [*common, "-w", "FILE"], "timestamps:"),
        [*common, "--analyze", "path_latency", "--format", "json"],
        path_latency,
    )


def _tcpdump() -> Waker:
    common = ["tcpdump", "-i", SINK, "-Z", "root", "-B", str(64 << 10)]
    return Waker(Subject("tcpdump", [*common, "-w", "FILE"], "listening on"), [*common, "-U", "-w", "-"], delay_to_pipe)


def compare_wakeups(
    bench: Bench, rates: Sequence[float], rounds: int, seconds: float, uspcap: str, before: Path | None
) -> None:
    """Print what both backends and tcpdump take and delay at each rate, and how often they call the kernel idly."""
    for rate in rates:
        _compare_at(bench, rate, rounds, seconds, uspcap, before)
    print(
        "\nsleeping and being woken, and nothing else\n\n| every | CPU, ns | a frame, ns, at each rate |\n|---|---|---|"
    )
    for period_ms in SLEEPS_MS:
        woken_ns = sleeping_ns(period_ms, seconds)
        a_frame = ", ".join(f"{woken_ns / (rate * period_ms / 1000):.0f}" for rate in rates)
        print(f"| {period_ms:g} ms | {woken_ns:.0f} | {a_frame} |", flush=True)
    print("\nidle, system calls a second of all threads and processes\n\n| subject | calls |\n|---|---|")
    for backend in ("packet_mmap", "af_xdp"):
        for words in ((), ("--interval", "2s", "--format", "json")):
            waker = _capture(f"{backend} {' '.join(words)}".rstrip(), uspcap, backend, *words)
            command = [word for word in waker.delayed if words or word not in ("--format", "json")]
            calls = idle_calls(command, bench.namespace, waker.subject.ready)
            print(f"| {waker.subject.name} | {'strace is not installed' if calls is None else f'{calls:.1f}'} |")


def _compare_at(bench: Bench, rate: float, rounds: int, seconds: float, uspcap: str, before: Path | None) -> None:
    def sending() -> None:
        bench.send(rate, seconds)
        time.sleep(0.1)

    tcpdump = _tcpdump()
    theirs = [tcpdump.delay(tcpdump.delayed, bench.namespace, sending) for _ in range(rounds)]
    target = f"{statistics.median(delay.p99_ms for delay in theirs):.0f}ms"
    wakers = [tcpdump]
    for backend in ("packet_mmap", "af_xdp"):
        wakers.append(_capture(backend, uspcap, backend))
        wakers.append(_capture(f"{backend} --latency-target {target}", uspcap, backend, "--latency-target", target))
        if before is not None:
            wakers.append(_capture(f"{backend} before", before, backend))
    costs: dict[str, list[float]] = {waker.subject.name: [] for waker in wakers}
    delays: dict[str, list[Delay]] = {waker.subject.name: [] for waker in wakers}
    delays[tcpdump.subject.name] = theirs
    lost = dict.fromkeys(costs, 0)
    offered: list[float] = []
    for turn in range(rounds):
        for number in range(len(wakers)):
            waker = wakers[(number + turn) % len(wakers)]
            run = bench.run(waker.subject, rate, seconds)
            costs[waker.subject.name].append(run.process_ns)
            lost[waker.subject.name] += run.lost
            offered.append(run.sent.rate)
            if waker is not tcpdump:
                delays[waker.subject.name].append(waker.delay(waker.delayed, bench.namespace, sending))
    print(
        f"\noffered: {statistics.median(offered):,.0f} frames/s (asked for {rate:,.0f}); medians of {rounds} rounds\n"
    )
    print("| subject | process, ns a frame | to tcpdump | delay p50 / p99, ms | lost in all rounds |")
    print("|---|---|---|---|---|")
    for name, mine in costs.items():
        ratio = statistics.median(ours / peer for ours, peer in zip(mine, costs[tcpdump.subject.name], strict=True))
        middle = Delay(
            statistics.median(delay.p50_ms for delay in delays[name]),
            statistics.median(delay.p99_ms for delay in delays[name]),
        )
        print(f"| {name} | {statistics.median(mine):.0f} | {ratio:.2f} | {middle} | {lost[name]} |", flush=True)
