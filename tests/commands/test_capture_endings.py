"""How captures end: signals, terminals and readers that go, files that are taken away, faults in the middle."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.capturing import USPCAP, Run, Running, frames_of
from support.traffic import in_order, numbered_frame
from support.unprivileged import NOBODY, let_others_in
from support.veth_pairs import HERE, Pair, wait_until

DEADLINE_S = 5
"""Ten times what is promised."""

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "microburst.pcap"


def send(pair: Pair, first: int, end: int, length: int = 60) -> None:
    pair.send(*[numbered_frame(number, length) for number in range(first, end)])


def received(running: Running, frames: int) -> bool:
    """Ask the capture until it says that it has received so many."""

    def asked() -> bool:
        running.process.send_signal(signal.SIGUSR1)
        time.sleep(0.15)
        return f"so far: received {frames} =" in running.stderr

    return wait_until(asked)


def counts(running: Running) -> str:
    """Return the accounts without what is said beside them."""
    return running.accounts.partition(";")[0]


def assert_whole(running: Running, path: Path, frames: int) -> None:
    assert counts(running) == f"received {frames} = {frames} written"
    assert list(in_order(frames_of(path))) == list(range(frames))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("name", ["x.pcapng", "x.pcap.zst"])
def test_every_frame_is_in_the_file_whatever_ends_the_capture(
    pair: Pair, run: Run, tmp_path: Path, number: int, name: str
) -> None:
    path = tmp_path / name
    running = run("-i", HERE, "-w", str(path), "--write-buffer", "1").ready()
    send(pair, 0, 300)
    assert received(running, 300)
    running.process.send_signal(number)
    assert running.process.wait(DEADLINE_S) == 0
    assert_whole(running, path, 300)


@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGHUP, signal.SIGHUP),
        (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP),
        (signal.SIGTERM, signal.SIGHUP),
    ],
)
def test_what_a_closed_session_sends_all_together_hurries_nothing(
    pair: Pair, run: Run, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    path = tmp_path / "x.pcapng.zst"
    running = run("-i", HERE, "-w", str(path), "--analyze", "summary").ready()
    send(pair, 0, 300)
    assert received(running, 300)
    for number in numbers:
        running.process.send_signal(number)
        time.sleep(0.02)
    assert running.process.wait(DEADLINE_S) == 0
    assert_whole(running, path, 300)


@pytest.mark.parametrize(
    ("number", "wrapper"),
    [
        (signal.SIGHUP, ("nohup",)),
        (signal.SIGINT, ("sh", "-c", 'trap "" INT; exec "$@"', "-")),
        (signal.SIGTERM, ("sh", "-c", 'trap "" TERM; exec "$@"', "-")),
    ],
)
def test_ignored_signal_stays_ignored(
    pair: Pair, run: Run, tmp_path: Path, number: int, wrapper: tuple[str, ...]
) -> None:
    path = tmp_path / "x.pcapng"
    running = run("-i", HERE, "-w", str(path), wrapper=wrapper).ready()
    send(pair, 0, 10)
    running.process.send_signal(number)
    send(pair, 10, 20)
    assert received(running, 20)
    assert running.end(signal.SIGTERM if number != signal.SIGTERM else signal.SIGINT) == 0
    assert_whole(running, path, 20)


@pytest.mark.parametrize("words", [(), ("--interval", "10s"), ("--live", "--analyze", "summary")])
def test_file_is_whole_where_the_terminal_has_gone(pair: Pair, tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "x.pcapng.zst"
    controller, terminal = pty.openpty()
    program = f"import os, fcntl, termios; os.setsid(); fcntl.ioctl({terminal}, termios.TIOCSCTTY, 0); "
    command = [sys.executable, "-c", program + USPCAP[-1], "capture", "-i", HERE, "-w", str(path), *words]
    process = subprocess.Popen(
        pair.here.command(*command), stdin=terminal, stdout=terminal, stderr=terminal, pass_fds=[terminal]
    )
    os.close(terminal)
    try:
        assert wait_until(lambda: path.exists() and path.stat().st_size > 0)
        os.set_blocking(controller, False)
        said = b""

        def started() -> bool:
            nonlocal said
            with contextlib.suppress(BlockingIOError):
                said += os.read(controller, 65536)
            return b"timestamps:" in said

        assert wait_until(started)
        send(pair, 0, 200)
        time.sleep(0.3)
        # Closing it sends SIGHUP, and lets every write fail.
        os.close(controller)
        assert process.wait(2 * DEADLINE_S) in (0, 1)
    finally:
        process.kill()
        process.wait()
    assert list(in_order(frames_of(path))) == list(range(200))


def test_file_is_whole_where_nobody_reads_what_is_said(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    reading, writing = os.pipe()
    process = subprocess.Popen(
        pair.here.command(*USPCAP, "capture", "-i", HERE, "-w", str(path), "--analyze", "summary"),
        stdout=writing,
        stderr=writing,
    )
    os.close(writing)
    try:
        assert b"timestamps:" in os.read(reading, 4096)
        os.close(reading)
        send(pair, 0, 50)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 1
    finally:
        process.kill()
        process.wait()
    assert list(in_order(frames_of(path))) == list(range(50))


def test_accounts_so_far_are_reported_when_asked_for(pair: Pair, run: Run, tmp_path: Path) -> None:
    running = run("-i", HERE, "-w", str(tmp_path / "x.pcapng")).ready()
    running.process.send_signal(signal.SIGUSR1)
    assert wait_until(lambda: "uspcap: so far: received 0 = 0 written" in running.stderr)
    send(pair, 0, 7)
    assert received(running, 7)
    assert running.end() == 0
    assert_whole(running, tmp_path / "x.pcapng", 7)


@pytest.mark.parametrize("words", [("--write-buffer", "1"), ("--write-buffer", "0")])
def test_flush_brings_compressed_frames_to_the_file(
    pair: Pair, run: Run, tmp_path: Path, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zstandard")
    path = tmp_path / "x.pcap.zst"
    # Without it, a zstd frame ends automatically after a second: the clock of the compressor stands still.
    patch = "import uspcap.formats.compression as c; c.FRAME_AGE_S = 1e9; c.HEAD_BYTES = 100; "
    monkeypatch.setitem(globals(), "USPCAP", [*USPCAP[:-1], patch + USPCAP[-1]])
    monkeypatch.setattr("support.capturing.USPCAP", USPCAP)
    running = run("-i", HERE, "-w", str(path), *words).ready()
    send(pair, 0, 40)
    assert received(running, 40)
    assert len(whole_frames(path)) < 40
    running.process.send_signal(signal.SIGUSR2)
    assert wait_until(lambda: len(whole_frames(path)) == 40)
    assert running.end() == 0
    assert_whole(running, path, 40)


def whole_frames(path: Path) -> list[bytes]:
    """Frames of a file that is being written."""
    from uspcap.errors import UspcapError
    from uspcap.formats import open_capture

    try:
        with open_capture(str(path)) as reader:
            return [batch.frame_bytes(row) for batch in reader.batches() for row in range(batch.count)]
    except UspcapError:
        return []


@pytest.mark.parametrize("words", [(), ("--compress", "zstd"), ("--write-buffer", "1"), ("--write-buffer", "0")])
def test_flush_begins_the_next_of_many_files(pair: Pair, run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    running = run("-i", HERE, "-w", str(tmp_path / "x.pcapng"), "--rotate-frames", "1000", *words).ready()
    running.process.send_signal(signal.SIGUSR2)  # there is no file to finish yet
    assert received(running, 0)
    for files in (1, 2, 3):
        send(pair, 10 * files - 10, 10 * files)
        assert received(running, 10 * files)
        assert len(list(tmp_path.glob("x_*"))) == files
        running.process.send_signal(signal.SIGUSR2)
        assert wait_until(lambda expected=files + 1: len(list(tmp_path.glob("x_*"))) == expected)  # type: ignore[misc]
    assert running.end() == 0
    assert [list(in_order(frames_of(path))) for path in sorted(tmp_path.glob("x_*"))] == [
        list(range(10)),
        list(range(10, 20)),
        list(range(20, 30)),
        [],
    ]
    assert counts(running) == "received 30 = 30 written"


@pytest.mark.parametrize("words", [(), ("--duration", "1s")])
@pytest.mark.parametrize("output", ["fifo", "-", "/dev/stdout"])
def test_reader_that_takes_nothing_holds_the_end_up_for_a_moment_only(
    pair: Pair, tmp_path: Path, output: str, words: tuple[str, ...]
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reading, writing = os.pipe()
    stalled = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    command = [*USPCAP, "capture", "-i", HERE, "-w", str(fifo) if output == "fifo" else output, *words]
    process = subprocess.Popen(
        pair.here.command(*command), stdout=writing, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    )
    os.close(writing)
    assert process.stderr is not None
    try:
        assert "timestamps:" in process.stderr.readline()
        send(pair, 0, 500, 1400)
        if not words:
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=4 * DEADLINE_S)
    finally:
        process.kill()
        process.wait()
        os.close(reading)
        os.close(stalled)
    assert process.returncode == 1
    place = {"fifo": str(fifo), "-": "standard output"}.get(output, output)
    *_, accounts, _, last = (line.removeprefix("uspcap: ") for line in said.splitlines())
    found = re.fullmatch(
        r"received 500 = (\d+) written \+ (\d+) dropped \(its reader did not take them (\d+)\)(;.*)?", accounts
    )
    assert found is not None, said
    written, dropped, refused = map(int, found.groups()[:3])
    assert written + dropped == 500
    assert dropped == refused > 0
    assert last == (
        f"cannot write {place}: its reader has taken nothing for 2 s; it was given {written} whole frames, and no more"
    )


def test_reader_that_comes_back_in_time_gets_everything(pair: Pair, tmp_path: Path) -> None:
    command = [*USPCAP, "capture", "-i", HERE, "-w", "-"]
    process = subprocess.Popen(pair.here.command(*command), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        assert b"timestamps:" in process.stderr.readline()
        send(pair, 0, 500, 1400)
        time.sleep(0.3)
        process.send_signal(signal.SIGTERM)
        time.sleep(1)
        written, _ = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    copy = tmp_path / "copy"
    copy.write_bytes(written)
    assert list(in_order(frames_of(copy))) == list(range(500))


def test_fifo_without_a_reader_says_that_it_waits_and_can_be_left(pair: Pair, run: Run, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    running = run("-i", HERE, "-w", str(fifo))
    assert wait_until(lambda: "is a FIFO" in running.stderr)
    assert running.stderr == f"uspcap: {fifo} is a FIFO: waiting for a reader\n"
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(DEADLINE_S) == -signal.SIGTERM
    assert running.stderr.splitlines()[-1].startswith("uspcap: ended by SIGTERM before it was done")


def test_fifo_is_written_once_it_has_a_reader(pair: Pair, run: Run, tmp_path: Path) -> None:
    fifo, copy = tmp_path / "fifo", tmp_path / "copy"
    os.mkfifo(fifo)
    running = run("-i", HERE, "-w", str(fifo))
    assert wait_until(lambda: "is a FIFO" in running.stderr)
    with copy.open("wb") as file:
        reader = subprocess.Popen(["cat", str(fifo)], stdout=file)
        running.ready()
        send(pair, 0, 20)
        assert received(running, 20)
        assert running.end() == 0
        assert reader.wait(DEADLINE_S) == 0
    assert_whole(running, copy, 20)


@pytest.mark.parametrize("words", [("--write-buffer", "1"), ("--write-buffer", "0")])
@pytest.mark.parametrize(
    ("taken_away", "loss"),
    [
        (lambda path: path.unlink(), "was deleted"),
        (lambda path: path.rename(path.with_name("elsewhere")), "was moved away or renamed"),
        (lambda path: (path.with_name("new").touch(), path.with_name("new").rename(path)), "was deleted"),
        (lambda path: (path.rename(path.with_name("old")), path.touch()), "was replaced by another file"),
    ],
    ids=["deleted", "moved", "overwritten", "replaced"],
)
def test_file_that_is_taken_away_is_reported_and_fails(
    pair: Pair, run: Run, tmp_path: Path, taken_away: object, loss: str, words: tuple[str, ...]
) -> None:
    path = tmp_path / "x.pcapng"
    running = run("-i", HERE, "-w", str(path), *words).ready()
    send(pair, 0, 5)
    assert received(running, 5)
    taken_away(path)  # type: ignore[operator]
    sentence = f"uspcap: {path} {loss} while it was written: start the capture again, with a name that stays\n"
    assert wait_until(lambda: sentence in running.stderr)
    send(pair, 5, 10)
    assert running.end() == 1
    assert running.stderr.count(loss) == 1
    assert counts(running) == "received 10 = 10 written"


def test_file_that_is_taken_away_at_the_last_moment_is_reported_too(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    running = run("-i", HERE, "-w", str(path)).ready()
    path.unlink()
    assert running.end() == 1
    assert running.stderr.count(f"{path} was deleted while it was written") == 1


def test_finished_files_may_be_taken_away(pair: Pair, run: Run, tmp_path: Path) -> None:
    running = run("-i", HERE, "-w", str(tmp_path / "x.pcapng"), "--rotate-frames", "5", "--write-buffer", "1").ready()
    send(pair, 0, 12)
    assert wait_until(lambda: len(list(tmp_path.glob("x_*"))) == 3)
    for path in sorted(tmp_path.glob("x_*"))[:2]:
        path.unlink()
    assert running.end() == 0


def test_place_that_cannot_be_written_later_fails_at_the_start(pair: Pair, run: Run, tmp_path: Path) -> None:
    if os.getuid():
        pytest.skip("only root goes on as another user")
    tmp_path.chmod(0o755)
    running = run("-i", HERE, "-Z", "nobody", "-w", str(tmp_path / "x.pcapng"), "-G", "3600")
    assert running.process.wait(30) == 1
    (line,) = running.stderr.splitlines()
    assert line.startswith(f"uspcap: cannot write {tmp_path}/x.pcapng: {tmp_path}: Permission denied; name a file in")
    assert list(tmp_path.glob("x*")) == []


def test_directories_whose_names_hold_a_time_are_made(pair: Pair, run: Run, tmp_path: Path) -> None:
    running = run("-i", HERE, "-w", str(tmp_path / "%Y" / "%m-%d" / "x.pcapng"), "--rotate-frames", "5").ready()
    assert list(tmp_path.glob("2*")) == []
    send(pair, 0, 12)
    assert wait_until(lambda: len(list(tmp_path.glob("*/*/x*"))) == 3)
    assert running.end() == 0
    day = time.strftime("%Y/%m-%d", time.gmtime())
    files = sorted((tmp_path / day).iterdir())
    assert sorted(number for path in files for number in in_order(frames_of(path))) == list(range(12))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("words", [(), ("--rotate-frames", "100"), ("--compress", "zstd"), ("--direct",)])
@pytest.mark.parametrize(("option", "mode"), [((), 0o600), (("--mode", "640"), 0o640), (("--mode", "0666"), 0o666)])
def test_new_files_are_the_owners_alone_unless_another_mode_is_given(
    tmp_path: Path, words: tuple[str, ...], option: tuple[str, ...], mode: int
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    before = os.umask(0o022)
    try:
        done = subprocess.run(
            [*USPCAP, "capture", "-r", str(SAMPLE), "--speed", "0", "-w", str(out / "x.pcapng"), *words, *option],
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.umask(before)
    if "refuses O_DIRECT" in done.stderr:
        pytest.skip("this machine lacks O_DIRECT where tests write")
    assert done.returncode == 0, done.stderr
    assert {mode_of(path) for path in out.iterdir()} == {mode}


@pytest.mark.parametrize("option", [(), ("--mode", "600")])
def test_file_that_is_there_keeps_its_mode_and_owner(tmp_path: Path, option: tuple[str, ...]) -> None:
    path = tmp_path / "x.pcapng"
    path.write_bytes(b"something else")
    path.chmod(0o644)
    if not os.getuid():
        os.chown(path, NOBODY, NOBODY)
    subprocess.run([*USPCAP, "capture", "-r", str(SAMPLE), "--speed", "0", "-w", str(path), *option], check=True)
    assert mode_of(path) == 0o644
    assert path.stat().st_uid == (os.getuid() or NOBODY)
    assert len(frames_of(path)) == 593


@pytest.mark.parametrize("mode", ["", "abc", "88", "1777", "0o9"])
def test_mode_that_is_none_is_wrong_usage(mode: str) -> None:
    done = subprocess.run(
        [*USPCAP, "capture", "-r", str(SAMPLE), "-w", "x", "--mode", mode], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "is not a file mode; write three octal digits, as 640" in done.stderr


@pytest.mark.parametrize("words", [(), ("--rotate-frames", "100")])
def test_link_of_somebody_else_is_not_followed(tmp_path: Path, words: tuple[str, ...]) -> None:
    if os.getuid():
        pytest.skip("only root makes links that are another's")
    (tmp_path / "secret").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "secret")
    os.chown(link, NOBODY, NOBODY, follow_symlinks=False)
    done = subprocess.run(
        [*USPCAP, "capture", "-r", str(SAMPLE), "--speed", "0", "-w", str(link / "x.pcap"), *words],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "'link' in its path is a symbolic link of user nobody, not of root or you; name its target" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "secret").iterdir()) == []


def test_command_on_files_that_takes_long_is_reported_and_can_be_left(
    pair: Pair, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "from uspcap.__main__ import run; run()"
    monkeypatch.setattr("support.capturing.USPCAP", [sys.executable, "-c", program])
    marks = tmp_path / "marks"
    marks.mkdir()
    script = tmp_path / "slow"
    script.write_text(f"#!/bin/sh\necho $$ >{marks}/$(basename $1)\nexec sleep 100\n")
    script.chmod(0o755)
    words = ("-w", str(tmp_path / "x.pcapng"), "--rotate-frames", "5", "-z", str(script))
    running = run("-i", HERE, *words).ready()
    send(pair, 0, 32)
    assert received(running, 32)
    running.process.send_signal(signal.SIGINT)
    expected = f"uspcap: waiting for '{script}' on 7 files; Ctrl-C ends the wait\n"
    assert wait_until(lambda: expected in running.stderr)
    assert counts(running) == "received 32 = 32 written"
    assert wait_until(lambda: sum(bool(path.read_text()) for path in marks.iterdir()) == 4)
    processes = [int(path.read_text()) for path in marks.iterdir()]
    try:
        assert wait_until(lambda: all(Path(f"/proc/{one}/comm").read_text() == "sleep\n" for one in processes))
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(DEADLINE_S) == -signal.SIGINT
        assert len(processes) == 4
        for process in processes:
            status = Path(f"/proc/{process}/status").read_text()
            assert re.search(r"SigBlk:\t0+\n", status)
            assert re.search(r"SigIgn:\t0+\n", status)
    finally:
        for process in processes:
            os.kill(process, signal.SIGTERM)


def test_fault_in_an_analysis_loses_nothing_of_the_file(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.pcapng"
    fault = (
        "import uspcap.analysis.summary.analysis as s; update = s.Summary.update\n"
        "def failing(self, batch, counted=[]):\n"
        "    counted.append(batch.count)\n"
        "    if sum(counted) > 50: raise MemoryError\n"
        "    update(self, batch)\n"
        "s.Summary.update = failing\n"
    )
    words = ["capture", "-i", HERE, "-w", str(path), "--analyze", "summary"]
    process = subprocess.Popen(
        pair.here.command(sys.executable, "-c", fault + USPCAP[-1], *words), stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        assert "timestamps:" in process.stderr.readline()
        for first in range(0, 1000, 20):
            if process.poll() is not None:
                break
            send(pair, first, first + 20)
            time.sleep(0.02)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 1
    lines = said.splitlines()
    assert lines[-1].startswith("uspcap: out of memory: ")
    written = list(in_order(frames_of(path)))
    assert len(written) > 50
    assert written == list(range(len(written)))
    assert lines[0].partition(";")[0] == f"uspcap: received {len(written)} = {len(written)} written"


def with_descriptors(count: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command that may have so many files open, once everything is imported."""
    program = (
        "import importlib, pkgutil, resource, sys, uspcap\n"
        "for module in pkgutil.walk_packages(uspcap.__path__, 'uspcap.'): importlib.import_module(module.name)\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({count}, {count}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", program + USPCAP[-1], *words], capture_output=True, text=True, timeout=60, close_fds=True
    )


def test_many_rotations_need_no_more_descriptors_than_few(tmp_path: Path) -> None:
    words = ("-r", str(SAMPLE), "--speed", "0", "-w", str(tmp_path / "x.pcap"), "--rotate-frames", "5")
    done = with_descriptors(20, "capture", *words)
    assert (done.returncode, len(list(tmp_path.iterdir()))) == (0, 119), done.stderr


@pytest.mark.parametrize("count", range(3, 8))
@pytest.mark.parametrize(
    "words",
    [
        ("capture", "-r", SAMPLE, "--speed", "0", "-w", "OUT"),
        ("capture", "-r", SAMPLE, "--speed", "0", "-w", "OUT", "--rotate-frames", "100"),
        ("analyze", SAMPLE, "-o", "OUT"),
        ("analyze", SAMPLE, "--tables", "OUT"),
        ("dump", SAMPLE),
        ("compare", SAMPLE, SAMPLE, "--table", "OUT"),
        ("protocols",),
        ("doctor",),
    ],
    ids=lambda words: " ".join(map(str, words)).replace(str(SAMPLE), "FILE"),
)
def test_too_few_descriptors_are_called_so(tmp_path: Path, words: tuple[str, ...], count: int) -> None:
    done = with_descriptors(count, *(str(tmp_path / "x") if word == "OUT" else str(word) for word in words))
    assert "Traceback" not in done.stderr
    if done.returncode == 0:
        return
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "Too many open files" in last
    assert "ulimit -n" in last


@pytest.mark.parametrize("words", [(), ("--rotate-frames", "5"), ("--compress", "zstd")])
def test_files_belong_to_whom_the_capture_goes_on_as(
    pair: Pair, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    if os.getuid():
        pytest.skip("only root goes on as another user")
    let_others_in(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    os.chown(out, NOBODY, NOBODY)
    running = run("-i", HERE, "-Z", "nobody", "-w", str(out / "x.pcapng"), *words).ready()
    send(pair, 0, 12)
    assert received(running, 12)
    assert running.end() == 0
    assert {(path.stat().st_uid, mode_of(path)) for path in out.iterdir()} == {(NOBODY, 0o600)}
