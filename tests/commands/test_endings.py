"""Signals end every command that reads, whatever it reads, and leave nothing unfinished behind."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.command_line import PROGRAM, pcap_of
from support.streams import Frame
from support.veth_pairs import wait_until

from uspcap.signals import ENDING

DEADLINE_S = 5
"""Ten times what is promised."""

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "microburst.pcap"


def capture_and_more() -> tuple[bytes, bytes]:
    """Return a capture, and records that may follow it any number of times."""
    whole = pcap_of([Frame(10**18 + 1000 * number, 100, number % 50) for number in range(20_000)])
    return whole, whole[24:]


def compressed(how: str, data: bytes) -> bytes:
    if how == "zstd":
        zstandard = pytest.importorskip("zstandard")
        return bytes(zstandard.compress(data))
    return {"plain": bytes, "gzip": gzip.compress, "xz": lambda data: lzma.compress(data, preset=0)}[how](data)


@contextmanager
def endless(fifo: Path, how: str) -> Iterator[None]:
    """Feed a FIFO with a capture that does not end."""
    first, more = (compressed(how, data) for data in capture_and_more())
    over = threading.Event()

    def feed() -> None:
        try:
            with fifo.open("wb") as file:
                file.write(first)
                while not over.is_set():
                    file.write(more)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        over.set()
        # It may wait for somebody to read.
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        thread.join()


@contextmanager
def quiet(fifo: Path, how: str) -> Iterator[None]:
    """Feed a FIFO with the beginning of a capture, and then with nothing."""
    first = compressed(how, capture_and_more()[0])
    writing = os.open(fifo, os.O_RDWR)
    thread = threading.Thread(target=os.write, args=(writing, first[:60_000]))
    thread.start()
    try:
        yield
    finally:
        os.close(os.open(fifo, os.O_RDONLY | os.O_NONBLOCK))
        thread.join()
        os.close(writing)


def ends(*words: str, number: int, seen: Callable[[], bool]) -> str:
    """Send a signal once `seen`, check how the command ends, and return what it said."""
    process = subprocess.Popen(
        [*PROGRAM, *words], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        assert wait_until(seen)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(DEADLINE_S) == -number
        assert process.stderr is not None
        return process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def read_by_somebody(path: Path) -> bool:
    """Tell whether another process has a file open."""
    others = [process for process in Path("/proc").glob("[0-9]*") if process.name != str(os.getpid())]
    return any(path in _open_files(process) for process in others)


def _open_files(process: Path) -> Iterator[Path]:
    """Yield what a process has open; nothing more once it is gone."""
    with contextlib.suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with contextlib.suppress(OSError):
                yield descriptor.readlink()


COMMANDS = [
    ("analyze", "IN"),
    ("analyze", "IN", "--only", "summary,gaps,tcp,patterns", "-j", "2", "-o", "OUT"),
    ("dump", "IN"),
    ("compare", "IN", str(SAMPLE), "--table", "OUT", "--only-a", "OUT2"),
    ("compare", str(SAMPLE), "IN"),
    ("probe", "send", "127.0.0.1:9", "--like", "IN"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=[" ".join(words[:2]) for words in COMMANDS])
@pytest.mark.parametrize("feeding", [endless, quiet])
@pytest.mark.parametrize("how", ["plain", "gzip"])
def test_a_signal_ends_a_command_that_reads(
    tmp_path: Path, words: tuple[str, ...], feeding: Callable[..., Iterator[None]], how: str
) -> None:
    number = ENDING[COMMANDS.index(words) % len(ENDING)]
    fifo = tmp_path / "in"
    os.mkfifo(fifo)
    names = {"IN": str(fifo), "OUT": str(tmp_path / "out"), "OUT2": str(tmp_path / "out2")}
    with feeding(fifo, how):  # type: ignore[attr-defined]
        said = ends(*(names.get(word, word) for word in words), number=number, seen=lambda: read_by_somebody(fifo))
    assert said == (
        f"uspcap: ended by {signal.Signals(number).name} before it was done: what was not written yet is lost\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("how", ["xz", "zstd"])
@pytest.mark.parametrize("feeding", [endless, quiet])
def test_a_signal_ends_reading_of_every_compression(
    tmp_path: Path, feeding: Callable[..., Iterator[None]], how: str
) -> None:
    fifo = tmp_path / "in"
    os.mkfifo(fifo)
    with feeding(fifo, how):  # type: ignore[attr-defined]
        ends("analyze", str(fifo), number=signal.SIGINT, seen=lambda: read_by_somebody(fifo))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:2]))
def test_a_signal_ends_the_wait_for_a_writer(tmp_path: Path, words: tuple[str, ...]) -> None:
    fifo = tmp_path / "in"
    os.mkfifo(fifo)
    names = {"IN": str(fifo), "OUT": str(tmp_path / "out"), "OUT2": str(tmp_path / "out2")}
    ends(*(names.get(word, word) for word in words), number=signal.SIGINT, seen=lambda: read_by_somebody(fifo))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("words", [("analyze", "-"), ("dump", "-"), ("compare", "-", str(SAMPLE))])
def test_a_signal_ends_reading_of_standard_input(words: tuple[str, ...]) -> None:
    ends(*words, number=signal.SIGTERM, seen=lambda: not time.sleep(0.7))  # type: ignore[func-returns-value]


def test_a_report_that_nobody_reads_can_be_left(tmp_path: Path) -> None:
    fifo = tmp_path / "out"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [*PROGRAM, "analyze", str(SAMPLE), "-o", str(fifo)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == f"uspcap: {fifo} is a FIFO: waiting for a program that reads it\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE_S) == -signal.SIGINT
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", ENDING)
def test_a_replay_of_a_quiet_pipe_ends_in_good_order(tmp_path: Path, number: int) -> None:
    fifo, out = tmp_path / "in", tmp_path / "out.pcap"
    os.mkfifo(fifo)
    with quiet(fifo, "plain"):
        process = subprocess.Popen(
            [*PROGRAM, "capture", "-r", str(fifo), "--speed", "0", "-w", str(out)], stderr=subprocess.PIPE, text=True
        )
        try:
            assert wait_until(lambda: out.exists() and out.stat().st_size > 1000)
            process.send_signal(number)
            assert process.wait(DEADLINE_S) == 0
            assert process.stderr is not None
            accounts = process.stderr.read().splitlines()[-1]
        finally:
            process.kill()
            process.communicate()
    written = int(accounts.split()[-2])
    assert accounts == f"uspcap: received {written} = {written} written"
    done = subprocess.run([*PROGRAM, "dump", str(out)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr, len(done.stdout.splitlines())) == (0, "", written)


def test_probes_end_without_waiting_for_answers_that_do_not_come(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "probe", "send", "127.0.0.1:9", "--rate", "100", "--wait", "60s"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "sending from" in process.stderr.readline()
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert " 0 lost " in printed
    assert "pending when the run was stopped" in printed
