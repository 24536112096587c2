import os
import threading

import pytest

from uspcap.errors import CaptureFileError
from uspcap.formats.byte_sink import FileSink


def test_an_existing_file_is_emptied(tmp_path):
    path = tmp_path / "out"
    path.write_bytes(b"something old and long")
    sink = FileSink(str(path))
    assert path.read_bytes() == b""
    sink.write(memoryview(b"new"))
    sink.close()
    sink.close()
    assert path.read_bytes() == b"new"


def test_it_is_cut_back_and_gone_on_with(tmp_path):
    path = tmp_path / "out"
    sink = FileSink(str(path))
    sink.write(memoryview(b"whole, torn"))
    assert sink.position == 11
    assert sink.truncate(5)
    assert sink.position == 5
    sink.write(memoryview(b"!"))
    sink.close()
    assert path.read_bytes() == b"whole!"


@pytest.mark.parametrize("name", ["", "none/out", "a\0b"])
def test_a_path_that_cannot_be_written_is_one_clear_sentence(name, tmp_path):
    with pytest.raises(CaptureFileError, match=r"^cannot write .*; name a file in a directory"):
        FileSink(f"{tmp_path}/{name}")


def test_a_pipe_cannot_be_cut_back():
    reading, writing = os.pipe()
    sink = FileSink(f"/dev/fd/{writing}")
    sink.write(memoryview(b"abc"))
    assert sink.position == 3
    assert sink.truncate(3)
    assert not sink.truncate(2)
    sink.close()
    os.close(reading)
    os.close(writing)


def test_wait_for_a_non_blocking_pipe(monkeypatch):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Standard output keeps the flag; opening /dev/fd/N would not.
    original = os.dup
    with monkeypatch.context() as patched:
        patched.setattr(os, "dup", lambda descriptor: original(writing if descriptor == 1 else descriptor))
        sink = FileSink("-")
    content = os.urandom(1 << 20)
    received = bytearray()

    def read():
        while len(received) < len(content):
            received.extend(os.read(reading, 10_000))

    reader = threading.Thread(target=read)
    reader.start()
    sink.write(memoryview(content))
    reader.join()
    assert bytes(received) == content
    assert sink.position == len(content)
    sink.close()
    os.close(reading)
    os.close(writing)


def test_a_file_that_the_system_could_not_keep_is_said(tmp_path, monkeypatch):
    sink = FileSink(str(tmp_path / "out"))
    original = os.close

    def close(descriptor):
        original(descriptor)
        raise OSError(122, "Disk quota exceeded")

    with monkeypatch.context() as patched:
        patched.setattr(os, "close", close)
        with pytest.raises(CaptureFileError, match=r"cannot finish .*/out: Disk quota exceeded"):
            sink.close()
    sink.close()
