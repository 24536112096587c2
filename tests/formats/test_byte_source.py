import gzip
import lzma
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from uspcap.errors import CaptureFileError
from uspcap.formats import byte_source
from uspcap.formats.byte_source import open_byte_source

CONTENT = os.urandom(1 << 16) * 40 + b"the end"

COMPRESS = {
    "": bytes,
    "gzip": lambda data: gzip.compress(data, 1),
    "xz": lambda data: lzma.compress(data, preset=0),
}
try:
    import zstandard

    COMPRESS["zstd"] = zstandard.ZstdCompressor().compress
except ImportError:
    pass
try:
    import lz4.frame

    COMPRESS["lz4"] = lz4.frame.compress
except ImportError:
    pass
ALL = pytest.mark.parametrize("compression", sorted(COMPRESS))


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def read_all(source, room=100_000):
    out = bytearray()
    buffer = memoryview(bytearray(room))
    while taken := source.readinto(buffer):
        out += buffer[:taken]
    assert source.readinto(buffer) == 0
    return bytes(out)


@ALL
def test_a_file_is_read_whole_whatever_its_name(compression, tmp_path):
    path = tmp_path / "capture.pcap"
    path.write_bytes(COMPRESS[compression](CONTENT))
    with open_byte_source(str(path)) as source:
        assert source.compression == compression
        assert source.name == str(path)
        assert source.size == path.stat().st_size
        assert source.seekable_plain == (compression == "")
        assert source.position == 0
        assert read_all(source) == CONTENT
        assert source.problem is None
        assert source.position == source.size


@ALL
def test_position_grows_and_stays_within_the_file(compression, tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(COMPRESS[compression](CONTENT))
    with open_byte_source(str(path)) as source:
        buffer = memoryview(bytearray(10_000))
        last = 0
        while source.readinto(buffer):
            assert last <= source.position <= source.size
            last = source.position
    assert last == path.stat().st_size


@ALL
@pytest.mark.parametrize("piped", [True, False])
def test_standard_input_is_read_as_a_pipe_and_as_a_file(compression, piped, tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(COMPRESS[compression](CONTENT))
    program = (
        "import sys; from uspcap.formats.byte_source import open_byte_source\n"
        "with open_byte_source('-') as source:\n"
        "    buffer = memoryview(bytearray(50_000))\n"
        "    print(source.compression, source.size, source.seekable_plain, file=sys.stderr)\n"
        "    while taken := source.readinto(buffer): sys.stdout.buffer.write(buffer[:taken])\n"
        "    assert source.problem is None\n"
    )
    with path.open("rb") as file:
        command = [sys.executable, "-c", program]
        if piped:
            done = subprocess.run(command, input=file.read(), capture_output=True, check=True)
        else:
            done = subprocess.run(command, stdin=file, capture_output=True, check=True)
    assert done.stdout == CONTENT
    size = None if piped else path.stat().st_size
    assert done.stderr.decode() == f"{compression} {size} False\n"


@pytest.mark.parametrize("compression", sorted(set(COMPRESS) - {""}))
def test_a_cut_file_delivers_what_it_holds_and_then_says_so(compression, tmp_path):
    compressed = COMPRESS[compression](CONTENT)
    path = tmp_path / "capture"
    path.write_bytes(compressed[: len(compressed) - 5])
    with open_byte_source(str(path)) as source:
        out = read_all(source)
        assert CONTENT.startswith(out)
        assert len(out) >= len(CONTENT) - 4 * 1024 * 1024
        assert out or compression == "lz4"
        assert source.problem.startswith(f"the {compression} data is cut")
        assert source.problem.endswith(f"near byte {len(compressed) - 5} of the compressed file")


def test_garbage_after_the_data_is_located_exactly(tmp_path):
    compressed = gzip.compress(CONTENT)
    path = tmp_path / "capture"
    path.write_bytes(compressed + b"garbage")
    with open_byte_source(str(path)) as source:
        assert read_all(source) == CONTENT
        assert f"near byte {len(compressed)} of" in source.problem


def test_an_empty_file_has_no_bytes_and_no_problem(tmp_path):
    path = tmp_path / "empty"
    path.touch()
    with open_byte_source(str(path)) as source:
        assert read_all(source) == b""
        assert source.problem is None
        assert source.compression == ""


def test_a_missing_file_is_one_clear_sentence(tmp_path):
    with pytest.raises(CaptureFileError, match=r"^cannot open .*/none\.pcap: No such file or directory; check"):
        open_byte_source(str(tmp_path / "none.pcap"))


def test_a_directory_is_said_to_be_one(tmp_path):
    with pytest.raises(CaptureFileError, match="is a directory"):
        open_byte_source(str(tmp_path))


def test_a_path_with_a_null_byte_is_one_clear_sentence():
    with pytest.raises(CaptureFileError, match="null"):
        open_byte_source("a\0b")


def test_a_file_without_permission_is_one_clear_sentence(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.geteuid() != 0:
        with pytest.raises(CaptureFileError, match="Permission denied; ask for read permission"):
            open_byte_source(str(path))
        return
    # Root reads everything: ask as somebody else.
    for directory in [tmp_path, *tmp_path.parents][:3]:
        directory.chmod(directory.stat().st_mode | stat.S_IXOTH)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setuid(65534)
            open_byte_source(str(path))
        except CaptureFileError as error:
            status = 0 if "Permission denied; ask for read permission" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_read_that_fails_names_the_file_and_the_byte(tmp_path):
    path = "/proc/self/mem"  # byte 0 of a process is never mapped
    with pytest.raises(CaptureFileError, match=r"cannot read /proc/self/mem at byte 0: Input/output error"):
        open_byte_source(path)


@pytest.mark.parametrize("compression", sorted(set(COMPRESS) - {""}))
def test_closing_early_ends_the_thread(compression, tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(COMPRESS[compression](bytes(64 << 20)))
    source = open_byte_source(str(path))
    before = threading.active_count()
    assert source.readinto(memoryview(bytearray(100))) == 100
    source.close()
    source.close()
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="closed"):
        source.readinto(memoryview(bytearray(100)))


def test_closing_while_the_pipe_is_silent_does_not_hang():
    reading, writing = os.pipe()
    os.write(writing, gzip.compress(b"first" * 100)[:-3])
    try:
        source = open_byte_source(f"/dev/fd/{reading}")
        assert source.size is None
        assert not source.seekable_plain
        # The thread now waits for bytes that never come.
        buffer = memoryview(bytearray(1000))
        assert source.readinto(buffer) == 500
        source.close()
    finally:
        os.close(reading)
        os.close(writing)


def test_no_descriptors_are_left_behind(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(gzip.compress(CONTENT))
    before = open_descriptors()
    for _ in range(20):
        with open_byte_source(str(path)) as source:
            source.readinto(memoryview(bytearray(10)))
        with pytest.raises(CaptureFileError):
            open_byte_source(str(tmp_path))
    assert open_descriptors() == before


def test_what_the_thread_raises_reaches_the_reader_after_the_data(tmp_path, monkeypatch):
    path = tmp_path / "capture"
    path.write_bytes(gzip.compress(CONTENT, 0))
    with open_byte_source(str(path)) as source:
        monkeypatch.setattr(byte_source, "READ_BYTES", 1000)
        reads = iter([True] * 10)

        def read(count, original=source._file.read):
            if next(reads, False):
                return original(count)
            raise CaptureFileError("cannot read capture: the disk is gone")

        source._file.read = read
        buffer = memoryview(bytearray(1 << 20))
        total = 0
        with pytest.raises(CaptureFileError, match="the disk is gone"):
            while taken := source.readinto(buffer):
                total += taken
        assert 0 < total < 10_000


def test_a_buffer_without_room_reads_nothing(tmp_path):
    path = tmp_path / "capture"
    path.write_bytes(gzip.compress(b"abc"))
    with open_byte_source(str(path)) as source:
        assert source.readinto(memoryview(bytearray())) == 0
        assert read_all(source) == b"abc"


def test_wait_for_a_non_blocking_pipe():
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    timer = threading.Timer(0.05, lambda: (os.write(writing, b"plain bytes"), os.close(writing)))
    timer.start()
    try:
        # Standard input keeps the flag; opening /dev/fd/N would not.
        saved = os.dup(0)
        os.dup2(reading, 0)
        try:
            with open_byte_source("-") as source:
                assert read_all(source) == b"plain bytes"
        finally:
            os.dup2(saved, 0)
            os.close(saved)
    finally:
        timer.join()
        os.close(reading)
