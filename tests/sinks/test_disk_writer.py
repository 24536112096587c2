"""A queue between the reader and a disk: order, bounds, loss that is counted, failures."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.veth_pairs import wait_until
from support.writer_cases import ETHERNET, RAW_IP, blocks

from uspcap.errors import CaptureFileError
from uspcap.formats import open_capture
from uspcap.formats.byte_sink import FileSink
from uspcap.formats.record_output import FileOutput
from uspcap.formats.writer import open_writer
from uspcap.frames import FrameBatch
from uspcap.sinks.disk_writer import QueuedOutput

MIB = 1 << 20


class Gate(FileSink):
    """A file on a disk that takes nothing until it is let."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.opened = threading.Event()
        self.opened.set()
        self.largest = 0

    def write(self, data: memoryview) -> None:
        assert self.opened.wait(30)
        self.largest = max(self.largest, len(data))
        super().write(data)


@pytest.fixture
def gates() -> Iterator[list[Gate]]:
    """The sinks that `gated` opened; they are let through at the end, whatever happens."""
    made: list[Gate] = []
    yield made
    for one in made:
        one.opened.set()


def gated(gates: list[Gate]) -> FileOutput:
    def open_sink(path: str) -> Gate:
        gates.append(Gate(path))
        return gates[-1]

    return FileOutput(open_sink)


def numbered(first: int, count: int, length: int = 1000) -> FrameBatch:
    frames = [bytes(length - 4) + number.to_bytes(4, "big") for number in range(first, first + count)]
    return FrameBatch.from_frames(frames, range(10**18 + first, 10**18 + first + count), interfaces=[ETHERNET])


def numbers_of(path: Path) -> list[int]:
    with open_capture(str(path)) as reader:
        numbers = [
            int.from_bytes(batch.frame_bytes(row)[-4:], "big")
            for batch in reader.batches()
            for row in range(batch.count)
        ]
        assert reader.facts.problems == []
    return numbers


def test_disk_that_stands_still_costs_frames_that_are_counted_and_never_time_or_the_file(
    tmp_path: Path, gates: list[Gate]
) -> None:
    path = tmp_path / "out.pcapng"
    writer = open_writer(str(path), interfaces=[ETHERNET], output=QueuedOutput(gated(gates), 4 * MIB))
    writer.write(numbered(0, 10))
    assert wait_until(lambda: writer.frames_written == 10)
    gates[0].opened.clear()
    # 10 MB against 4 MiB of room: every call returns, as this one thread opens the gate only later.
    for first in range(10, 10_010, 100):
        writer.write(numbered(first, 100))
    dropped = writer.frames_dropped
    assert 5_000 < dropped < 7_000
    gates[0].opened.set()
    assert wait_until(lambda: writer.frames_written == 10_010 - dropped)
    # It goes on where there is room again.
    writer.write(numbered(10_010, 50))
    writer.close()
    assert writer.frames_dropped == dropped
    assert writer.frames_written == 10_060 - dropped
    numbers = numbers_of(path)
    assert numbers[: 10_010 - dropped] == list(range(10_010 - dropped))
    assert numbers[10_010 - dropped :] == list(range(10_010, 10_060))


def test_slow_disk_is_given_large_pieces(tmp_path: Path, gates: list[Gate]) -> None:
    writer = open_writer(str(tmp_path / "out"), interfaces=[ETHERNET], output=QueuedOutput(gated(gates), 8 * MIB))
    gates[0].opened.clear()
    for first in range(2_000):
        writer.write(numbered(first, 1))
    gates[0].opened.set()
    writer.close()
    assert writer.frames_dropped == 0
    assert gates[0].largest > 500_000


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_file_is_the_one_that_writing_at_once_makes(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("files")
    format = data.draw(st.sampled_from(["pcapng", "pcap"]))
    batches, first = [], 0
    for _ in range(data.draw(st.integers(0, 12))):
        count = data.draw(st.sampled_from([1, 3, 60, 400]))
        lengths = [14, 60, 1500, *([2 * MIB] if count == 1 else [])]  # a record longer than a block is among them
        batches.append(numbered(first, count, data.draw(st.sampled_from(lengths))))
        first += count
    if format == "pcapng" and batches:
        batches[-1].set_interfaces([RAW_IP])
    at_once, queued = directory / "at once", directory / "queued"
    outputs = ((at_once, FileOutput()), (queued, QueuedOutput(FileOutput(), 64 * MIB)))
    for path, output in outputs:
        writer = open_writer(str(path), format, interfaces=[ETHERNET], output=output)
        for batch in batches:
            writer.write(batch)
        writer.close()
        assert writer.frames_dropped == 0
        assert writer.frames_written == first
    assert queued.read_bytes() == at_once.read_bytes()


def test_record_longer_than_a_block_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writer = open_writer(str(path), interfaces=[ETHERNET], output=QueuedOutput(FileOutput(), MIB))
    batches = [numbered(0, 1, 60), numbered(1, 1, 400_000), numbered(2, 3, 60)]
    for batch in batches:
        writer.write(batch)
    writer.close()
    assert [len(body) for kind, body in blocks(path.read_bytes()) if kind == 6] == [80, 400_020, 80, 80, 80]


def test_frames_reach_the_file_without_more_coming(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writer = open_writer(str(path), interfaces=[ETHERNET], output=QueuedOutput(FileOutput(), MIB))
    writer.write(numbered(0, 3))
    assert wait_until(lambda: numbers_of(path) == [0, 1, 2])
    writer.close()


@pytest.mark.parametrize("room", [0, 100, 5_000, 123_456])
def test_full_disk_is_reported_to_the_writer_and_the_file_has_what_is_said(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    writer = open_writer(str(path), interfaces=[ETHERNET], output=QueuedOutput(FileOutput(), 4 * MIB))
    original, left = os.write, [room]

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) and not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= (taken := original(descriptor, data[: left[0]]))
        return taken

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write)
        with pytest.raises(CaptureFileError, match="No space left on device") as raised:
            for first in range(0, 1_000_000, 40):
                writer.write(numbered(first, 40))
        assert f"it holds {writer.frames_written} frames and ends with a whole frame" in str(raised.value)
        with pytest.raises(CaptureFileError, match="an earlier write failed"):
            writer.write(numbered(0, 1))
        writer.close()
    assert writer.frames_written == room // 1032
    assert numbers_of(path) == list(range(room // 1032))


def test_failure_that_shows_only_at_the_end_is_reported_by_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_writer(str(tmp_path / "out"), interfaces=[ETHERNET], output=QueuedOutput(FileOutput(), MIB))
    original = os.close

    def close(descriptor: int) -> None:
        original(descriptor)
        if threading.current_thread().name == "disk writer":
            raise OSError(122, "Disk quota exceeded")

    writer.write(numbered(0, 1))
    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        with pytest.raises(CaptureFileError, match="Disk quota exceeded"):
            writer.close()
    writer.close()
    assert not any(one.name == "disk writer" for one in threading.enumerate())


def test_next_file_that_cannot_be_opened_is_reported_and_the_one_before_kept(tmp_path: Path) -> None:
    path = tmp_path / "out"
    writer = open_writer(str(path), interfaces=[ETHERNET], output=QueuedOutput(FileOutput(), MIB))
    writer.write(numbered(0, 5))
    writer.finish_file()
    writer.open_file(str(tmp_path / "none" / "out"))
    with pytest.raises(CaptureFileError, match="none/out: No such file or directory"):
        while True:
            writer.write(numbered(5, 5))
    writer.close()
    assert writer.frames_written == 5
    assert numbers_of(path) == [0, 1, 2, 3, 4]


def test_bound_on_memory_is_kept(tmp_path: Path, gates: list[Gate]) -> None:
    writer = open_writer(str(tmp_path / "out"), interfaces=[ETHERNET], output=QueuedOutput(gated(gates), 2 * MIB))
    gates[0].opened.clear()
    for first in range(0, 20_000, 100):
        writer.write(numbered(first, 100))
    gates[0].opened.set()
    writer.close()
    held = np.array([writer.frames_written]) * 1032
    assert 1.9 * MIB < held[0] <= 2 * MIB
    assert writer.frames_written + writer.frames_dropped == 20_000


def test_blocks_that_the_disk_kept_up_with_are_given_out_once(tmp_path: Path, gates: list[Gate]) -> None:
    path = tmp_path / "out"
    writer = open_writer(str(path), interfaces=[ETHERNET], output=QueuedOutput(gated(gates), MIB))
    # Four times 63 frames leave less than a record's room in a block, and the disk has all of it by then.
    for first in range(0, 2_520, 63):
        writer.write(numbered(first, 63))
        assert wait_until(lambda expected=first + 63: writer.frames_written == expected)
    gates[0].opened.clear()
    for first in range(2_520, 3_213, 63):
        writer.write(numbered(first, 63))
    gates[0].opened.set()
    writer.close()
    assert writer.frames_dropped == 0
    assert numbers_of(path) == list(range(3_213))
