"""Something that captures, run once on a load from the sender of `traffic.py`: what it kept, and what CPU it took."""

from __future__ import annotations

import contextlib
import math
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from traffic import NICE, Sent, send

from uspcap.formats import open_capture

SENDER_CPU, CAPTURE_CPU = 0, 1
READY_S = 20.0
SETTLE_S = 0.3
"""After a subject says that it is ready."""

ENDED_WITHIN_S = 300.0
DRAIN_S = 1.3
"""After the last frame: tcpdump looks at a block that is not full after one second."""


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


class Capturing:
    """What captures in a namespace, while it does.

    Attributes
    ----------
    process : subprocess.Popen
    """

    def __init__(self, process: subprocess.Popen[bytes], says: Path) -> None:
        self.process = process
        self._says = says

    @property
    def said(self) -> str:
        """What it has said on standard error so far, and on standard output where that goes nowhere else."""
        return self._says.read_text()

    def end(self) -> int:
        """End it as Ctrl-C does, and return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(ENDED_WITHIN_S)


@contextlib.contextmanager
def capturing(
    namespace: str, command: Sequence[str], ready: str, *, stdout: int | IO[bytes] | None = None, pinned: bool = True
) -> Iterator[Capturing]:
    """Run what captures; give it once it says that it is ready, and see to it that it is gone in the end.

    Parameters
    ----------
    namespace : str
    command : sequence of str
    ready : str
        What it says then.
    stdout : int or file, optional
        As of `subprocess.Popen`.
    pinned : bool
        It runs on `CAPTURE_CPU` only, or wherever the system likes.
    """
    place = ("taskset", "-c", str(CAPTURE_CPU)) if pinned else ()
    inside = ["ip", "netns", "exec", namespace, "nice", "-n", str(NICE), *place, *command]
    with tempfile.NamedTemporaryFile() as says:
        process = subprocess.Popen(inside, stdout=says if stdout is None else stdout, stderr=says, bufsize=0)
        capture = Capturing(process, Path(says.name))
        try:
            end = time.monotonic() + READY_S
            while ready not in capture.said:
                if process.poll() is not None or time.monotonic() > end:
                    raise SystemExit(f"{' '.join(command)} did not start: {capture.said.strip()}")
                time.sleep(0.02)
            time.sleep(SETTLE_S)
            yield capture
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


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
        self.namespace = namespace
        self._file = directory / f"uspcap-live-{os.getpid()}.pcap"
        self.length = length

    def send(self, rate: float, seconds: float) -> Sent:
        """Offer a load for about so long; rate 0 is as fast as the sender can."""
        return send(self.namespace, rate, round(seconds * (rate or 2e6)), self.length, SENDER_CPU)

    def run(self, subject: Subject, rate: float, seconds: float) -> Run:
        """Offer a load for about so long, and see what becomes of it; rate 0 is as fast as the sender can."""
        name = self._file if subject.command[0] in ("tcpdump", "netsniff-ng") else self._file.with_suffix(".pcapng")
        command = [str(name) if word == "FILE" else word for word in subject.command]
        try:
            with capturing(self.namespace, command, subject.ready) as capture:
                pid = capture.process.pid
                process_before, softirqs_before, machine_before = _process_s(pid), _softirqs_s(), _busy_s()
                sent = self.send(rate, seconds)
                time.sleep(DRAIN_S)
                process_s = _process_s(pid) - process_before
                path_s = process_s + sent.working_s + _softirqs_s() - softirqs_before
                machine_s = _busy_s() - machine_before - sent.waited_s
                capture.end()
                captured = _count_said(capture.said) if subject.says_count else _count_frames(name)
        finally:
            name.unlink(missing_ok=True)
        return Run(sent, captured, process_s, path_s, machine_s)


def _count_said(said: str) -> int:
    counts = re.findall(r"received (\d+)|(\d+) packets captured", said)
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
