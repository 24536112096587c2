"""Files of `uspcap capture` as a user gets them: many, compressed, past the page cache, killed in the middle."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.capturing import USPCAP, Run, frames_of
from support.traffic import in_order, numbered_frame
from support.unprivileged import let_others_in, nobody_with
from support.veth_pairs import HERE, Pair, wait_until
from support.writer_cases import tool

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "microburst.pcap"


def replay(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*USPCAP, "capture", "-r", str(SAMPLE), "--speed", "0", *words], capture_output=True, text=True
    )


@tool("capinfos")
def test_live_capture_in_many_files_loses_nothing(pair: Pair, run: Run, tmp_path: Path) -> None:
    out, done = tmp_path / "out", tmp_path / "done"
    out.mkdir()
    done.mkdir()
    words = ("-w", str(out / "x.pcapng"), "--rotate-frames", "7", "-z", f"mv -t {done}", "--write-buffer", "1")
    running = run("-i", HERE, *words).ready()
    for first in range(0, 100, 10):
        pair.send(*[numbered_frame(number) for number in range(first, first + 10)])
    # Which of them were moved by then is up to the machine: what moves them has the lowest priority.
    assert wait_until(lambda: len({path.name for place in (out, done) for path in place.iterdir()}) == 15)
    assert running.end(within_s=300) == 0
    assert running.accounts == "received 100 = 100 written"
    assert list(out.iterdir()) == []
    files = sorted(done.iterdir())
    assert all(re.fullmatch(r"x_000\d\d_\d{14}\.pcapng", path.name) for path in files)
    counts = []
    for path in files:
        said = subprocess.run(["capinfos", "-M", "-c", "-I", str(path)], capture_output=True, text=True, check=True)
        counts.append(int(re.findall(r"Number of packets:\s+(\d+)", said.stdout)[0]))
        assert "Number of stat entries = 1" in said.stdout
    assert counts == [7] * 14 + [2]
    assert [number for path in files for number in in_order(frames_of(path))] == list(range(100))


def test_ring_of_files_keeps_the_last(pair: Pair, run: Run, tmp_path: Path) -> None:
    running = run("-i", HERE, "-w", str(tmp_path / "x.pcapng"), "--rotate-frames", "10", "-W", "2").ready()
    pair.send(*[numbered_frame(number) for number in range(35)])
    assert wait_until(lambda: any("x_00004" in path.name for path in tmp_path.iterdir()))
    assert running.end() == 0
    files = sorted(tmp_path.glob("x_*"))
    assert [list(in_order(frames_of(path))) for path in files] == [list(range(20, 30)), list(range(30, 35))]
    assert running.accounts == "received 35 = 35 written"


def test_killed_compressed_capture_can_be_read_up_to_the_last_second(pair: Pair, run: Run, tmp_path: Path) -> None:
    pytest.importorskip("zstandard")
    path = tmp_path / "x.pcapng.zst"
    running = run("-i", HERE, "-w", str(path)).ready()
    pair.send(*[numbered_frame(number) for number in range(50)])
    assert wait_until(lambda: path.exists() and path.stat().st_size > 0)
    assert wait_until(lambda: len(readable(path)) == 50)
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    assert list(in_order(frames_of(path))) == list(range(50))


def readable(path: Path) -> list[bytes]:
    """Frames of a file that is being written, which may end anywhere."""
    from uspcap.errors import UspcapError
    from uspcap.formats import open_capture

    try:
        with open_capture(str(path)) as reader:
            return [batch.frame_bytes(row) for batch in reader.batches() for row in range(batch.count)]
    except UspcapError:
        return []


def test_stdout_takes_compressed_frames_too(pair: Pair, run: Run) -> None:
    pytest.importorskip("zstandard")
    running = run("-i", HERE, "-w", "-", "--compress", "zstd:1").ready()
    pair.send(numbered_frame(1))
    assert wait_until(lambda: readable(running.stdout_path) == [numbered_frame(1)])
    assert running.end() == 0
    assert frames_of(running.stdout_path) == [numbered_frame(1)]


@pytest.mark.parametrize("words", [("--write-buffer", "1"), ("--rotate-frames", "1000"), ("--compress", "zstd")])
def test_full_disk_ends_with_valid_files_and_one_sentence(
    pair: Pair, run: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=64k none {disk} && trap 'cp -r {disk} {kept}' EXIT && \"$@\""
    running = run("-i", HERE, "-w", str(disk / "x.pcapng"), *words, wrapper=("bash", "-c", mount, "-")).ready()
    for number in range(0, 4000, 50):
        if running.process.poll() is not None:
            break
        pair.send(*[random_frame(one) for one in range(number, number + 50)])
        time.sleep(0.02)
    assert running.process.wait(30) == 1
    written = [number for path in sorted(kept.iterdir()) for number in in_order(frames_of(path))]
    assert written == list(range(len(written)))
    assert running.written_until_the_disk_was_full() == len(written)
    last = running.stderr.splitlines()[-1]
    assert last.startswith(f"uspcap: cannot write {disk}/x")
    assert "No space left on device; it holds" in last


def random_frame(number: int) -> bytes:
    """A numbered frame that no compression makes shorter."""
    import hashlib

    frame = numbered_frame(number, 1400)
    noise = b"".join(hashlib.sha256(number.to_bytes(4, "big") + bytes([at])).digest() for at in range(42))
    return frame[:46] + noise[: 1400 - 50] + frame[-4:]


def test_replay_past_the_page_cache_is_the_same_file(tmp_path: Path) -> None:
    done = replay("-w", str(tmp_path / "x.pcap"), "--direct")
    if "refuses O_DIRECT" in done.stderr:
        pytest.skip("this machine lacks O_DIRECT where tests write")
    assert done.returncode == 0
    assert replay("-w", str(tmp_path / "y.pcap")).returncode == 0
    assert (tmp_path / "x.pcap").read_bytes() == (tmp_path / "y.pcap").read_bytes()


def test_command_that_fails_is_one_warning_and_no_failure(tmp_path: Path) -> None:
    done = replay("-w", str(tmp_path / "x.pcap"), "--rotate-frames", "100", "-z", "false")
    assert done.returncode == 0
    (warning,) = (line for line in done.stderr.splitlines() if "'false'" in line)
    # Four run at a time, so that any of them may be the first to end.
    assert re.match(rf"uspcap: 'false' failed for 6 of 6 files, first for {tmp_path}/x_0000[1-4]_", warning)
    assert warning.endswith("(exit code 1); the files are as they were written, or as it left them")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-w", "-", "-C", "1"), "standard output is one file: name a file with -w to rotate"),
        (("-w", "-", "--direct"), "standard output cannot be written past the page cache"),
        (("-w", "x", "-W", "3"), "-W is for rotated files: add -C, -G or --rotate-frames"),
        (("-w", "x", "-z", "true"), "-z is for rotated files"),
        (("-w", "x", "-C", "1", "--align"), "--align aligns files to the clock, and needs -G"),
        (("-w", "x", "-C", "1", "-z", "no-such-program"), "there is no such program"),
        (("-w", "x", "--write-buffer", "1"), "a replay waits for the disk"),
        (("-C", "1"), "options about files need one to write: name it with -w"),
        (("--direct",), "options about files need one to write: name it with -w"),
    ],
)
def test_what_does_not_go_together_is_refused_in_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    done = replay(*words)
    assert done.returncode == 2
    assert sentence in done.stderr.splitlines()[-1]
    assert not Path("x").exists()


def test_a_place_that_may_not_be_searched_or_has_too_long_a_name_is_refused_as_any_other(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    ended = replay("-w", str(long))
    assert ended.stderr.startswith(f"uspcap: cannot write {long}: File name too long"), ended.stderr
    assert ended.returncode == 1
    if os.getuid():
        pytest.skip("only root goes on as another user")
    let_others_in(tmp_path)
    (tmp_path / "closed").mkdir(mode=0o700)
    copy = tmp_path / "in.pcap"
    copy.write_bytes(SAMPLE.read_bytes())
    copy.chmod(0o644)
    words = ("capture", "-r", str(copy), "--speed", "0", "-w", str(tmp_path / "closed" / "x.pcapng"))
    script = "from uspcap.__main__ import run; sys.argv[0] = 'uspcap'; run()"
    done = subprocess.run(nobody_with((), script, *words), capture_output=True, text=True)
    assert done.returncode == 1
    refusal = f"uspcap: cannot write {tmp_path}/closed/x.pcapng: Permission denied; name a file in a directory that you"
    assert done.stderr.startswith(refusal), done.stderr
