"""Captures compressed while they are written."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.writer_cases import ETHERNET, make_batch, tool

from uspcap.errors import CaptureFileError
from uspcap.formats import compression, decompression, open_capture
from uspcap.formats.byte_sink import FileSink
from uspcap.formats.compression import ZstdSink
from uspcap.formats.record_output import FileOutput
from uspcap.formats.writer import open_writer

pytest.importorskip("zstandard")


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def decompressed(path: Path) -> tuple[bytes, str | None]:
    """What uspcap's own reader of zstd makes of a file, and what it finds wrong."""
    stream = io.BytesIO(path.read_bytes())
    out = b""
    try:
        for piece in decompression.decompress("zstd", lambda: stream.read(1000), "test"):
            out += piece
    except decompression.Damage as damage:
        return out, str(damage)
    return out, None


@tool("zstd")
def test_zstd_tool_reads_what_was_written_across_many_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FRAME_BYTES", 10_000)
    path = tmp_path / "out.zst"
    sink = ZstdSink(FileSink(str(path)), 3)
    content = b"".join(os.urandom(50) * 20 for _ in range(100))
    for at in range(0, len(content), 777):
        sink.write(memoryview(content[at : at + 777]))
    sink.finish()
    sink.close()
    assert path.read_bytes().count(b"\x28\xb5\x2f\xfd") >= 9
    assert subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout == content
    assert decompressed(path) == (content, None)


def test_unfinished_file_can_be_read_up_to_the_last_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "HEAD_BYTES", 0)
    path = tmp_path / "out.zst"
    clock = Clock()
    sink = ZstdSink(FileSink(str(path)), 3, clock)
    sink.write(memoryview(b"first"))
    clock.now_s += 0.9
    sink.idle()
    assert sink.safe == 0
    clock.now_s += 0.2
    sink.idle()
    assert sink.safe == 5
    assert decompressed(path) == (b"first", None)
    sink.write(memoryview(b"second"))
    # What the process leaves behind where it is killed now.
    left = tmp_path / "left.zst"
    shutil.copy(path, left)
    sink.finish()
    sink.close()
    content, problem = decompressed(left)
    assert content == b"first"
    assert problem is None or "cut" in problem
    assert decompressed(path) == (b"firstsecond", None)


def test_it_is_cut_back_to_a_frame_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "FRAME_BYTES", 10)
    monkeypatch.setattr(compression, "HEAD_BYTES", 0)
    path = tmp_path / "out.zst"
    sink = ZstdSink(FileSink(str(path)), 1)
    sink.write(memoryview(b"0123456789"))
    sink.write(memoryview(b"lost"))
    assert (sink.position, sink.safe) == (14, 10)
    assert not sink.truncate(12)
    assert sink.truncate(10)
    sink.write(memoryview(b"!"))
    sink.finish()
    sink.close()
    assert decompressed(path) == (b"0123456789!", None)


def test_full_disk_leaves_a_valid_file_with_as_many_frames_as_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "FRAME_BYTES", 3_000)
    path = tmp_path / "out.pcapng.zst"
    original = os.write
    for room in range(0, 2_500, 97):
        left = [room]

        def write(descriptor: int, data: memoryview, left: list[int] = left) -> int:
            if not left[0] and len(data):
                raise OSError(28, "No space left on device")
            left[0] -= (taken := original(descriptor, data[: left[0]]))
            return taken

        output = FileOutput(lambda name: ZstdSink(FileSink(name), 3))
        writer = open_writer(str(path), interfaces=[ETHERNET], output=output)
        head = path.stat().st_size
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write)
            with pytest.raises(CaptureFileError, match="No space left on device") as raised:
                for number in range(500):
                    writer.write(make_batch(7, start_ns=10**18 + number, length=46 + number % 50))
        writer.close()
        assert f"it holds {writer.frames_written} frames and ends with a whole frame" in str(raised.value)
        assert path.stat().st_size <= head + room
        with open_capture(str(path)) as reader:
            assert sum(batch.count for batch in reader.batches()) == writer.frames_written
            assert reader.facts.problems == []
    assert writer.frames_written > 100


def test_head_of_a_file_is_safe_at_once(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng.zst"
    writer = open_writer(str(path), interfaces=[ETHERNET], output=FileOutput(lambda name: ZstdSink(FileSink(name), 3)))
    with open_capture(str(path)) as reader:
        assert list(reader.batches()) == []
        assert [one.name for one in reader.facts.interfaces] == [ETHERNET.name]
        assert reader.facts.problems == []
    writer.close()
