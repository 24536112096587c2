"""Files written past the page cache."""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.writer_cases import ETHERNET

from uspcap.errors import CaptureFileError
from uspcap.formats import open_capture
from uspcap.formats.byte_sink import FileSink
from uspcap.formats.compression import ZstdSink
from uspcap.formats.direct_sink import ALIGNMENT, BUFFER_BYTES, DirectSink
from uspcap.formats.record_output import FileOutput
from uspcap.formats.writer import open_writer
from uspcap.frames import FrameBatch


@pytest.fixture
def direct(tmp_path: Path) -> Path:
    """A place on a file system that has O_DIRECT."""
    try:
        descriptor = os.open(tmp_path / "try", os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:
        pytest.skip("this machine lacks O_DIRECT where tests write")
    os.close(descriptor)
    return tmp_path / "out"


def calls_of(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, int]]]:
    """Record each os.write: was it past the page cache, and how long."""
    calls: list[tuple[bool, int]] = []
    original = os.write

    def write(descriptor: int, data: memoryview) -> int:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        calls.append((bool(flags & os.O_DIRECT), len(data)))
        return original(descriptor, data)

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        yield calls


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, int]]]:
    yield from calls_of(monkeypatch)


@pytest.mark.parametrize("length", [0, 1, ALIGNMENT - 1, ALIGNMENT, BUFFER_BYTES, BUFFER_BYTES + 1, 3_000_001])
def test_all_but_the_end_goes_past_the_page_cache(direct: Path, calls: list[tuple[bool, int]], length: int) -> None:
    content = os.urandom(length)
    sink = DirectSink(str(direct))
    for at in range(0, length, 99_991):
        sink.write(memoryview(content)[at : at + 99_991])
    assert sink.position == length
    sink.finish()
    sink.close()
    assert direct.read_bytes() == content
    past, through = ([size for was, size in calls if was is kind] for kind in (True, False))
    assert all(size % ALIGNMENT == 0 for size in past)
    assert sum(past) == length - length % ALIGNMENT
    assert sum(through) == length % ALIGNMENT


def test_what_is_held_back_reaches_the_file_when_nothing_comes(direct: Path) -> None:
    sink = DirectSink(str(direct))
    content = os.urandom(10_000)
    sink.write(memoryview(content))
    assert (direct.stat().st_size, sink.safe) == (0, 0)
    sink.idle()
    assert direct.stat().st_size == sink.safe == 8192
    sink.write(memoryview(content))
    sink.finish()
    sink.close()
    assert direct.read_bytes() == content * 2


def test_it_is_cut_back_at_any_byte_and_gone_on_with(direct: Path) -> None:
    sink = DirectSink(str(direct))
    content = os.urandom(10_000)
    sink.write(memoryview(content))
    sink.idle()
    assert not sink.truncate(9_000)  # the file ends before
    assert sink.truncate(5_001)
    sink.write(memoryview(b"!"))
    sink.finish()
    sink.close()
    assert direct.read_bytes() == content[:5_001] + b"!"


def test_file_system_that_refuses_is_one_clear_sentence(tmp_path: Path) -> None:
    place = tmp_path / "ramfs"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "ramfs", "none", str(place)], capture_output=True).returncode:
        pytest.skip("this machine lacks the right to mount a ramfs, which has no O_DIRECT")
    try:
        with pytest.raises(CaptureFileError, match=r"its file system refuses O_DIRECT \(.*\); leave --direct out$"):
            DirectSink(str(place / "out"))
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_what_is_no_regular_file_is_refused() -> None:
    with pytest.raises(CaptureFileError, match="it is not a regular file; leave --direct out"):
        DirectSink("/dev/null")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("room_blocks", [0, 1, 3, 300, 1500])
def test_full_disk_leaves_whole_frames_as_many_as_said(
    direct: Path, monkeypatch: pytest.MonkeyPatch, room_blocks: int, compressed: bool
) -> None:
    original = os.write
    left = [room_blocks * ALIGNMENT]

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) and not left[0]:
            raise OSError(28, "No space left on device")
        taken = original(descriptor, data[: left[0]])
        left[0] -= taken
        return taken

    def open_sink(path: str) -> DirectSink | ZstdSink:
        return ZstdSink(DirectSink(path), 1) if compressed else DirectSink(path)

    writer = open_writer(str(direct), interfaces=[ETHERNET], output=FileOutput(open_sink))
    timestamps = range(10**18, 10**18 + 100)
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(CaptureFileError, match="No space left on device") as raised:
            for _ in range(60):
                noise = [os.urandom(1400) for _ in timestamps]
                writer.write(FrameBatch.from_frames(noise, timestamps, interfaces=[ETHERNET]))
        writer.close()
    assert f"it holds {writer.frames_written} frames and ends with a whole frame" in str(raised.value)
    # Kept are pieces that are whole in the file: a batch of 140 kB here, a zstd frame 4 MiB of the capture.
    assert (writer.frames_written > 0) == (room_blocks > (1200 if compressed else 100))
    if not direct.stat().st_size:
        assert writer.frames_written == 0
        return
    with open_capture(str(direct)) as reader:
        assert sum(one.count for one in reader.batches()) == writer.frames_written
        assert reader.facts.problems == []


def test_sink_that_refuses_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(CaptureFileError):
            DirectSink("/dev/null")
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    FileSink(str(tmp_path / "x")).close()
