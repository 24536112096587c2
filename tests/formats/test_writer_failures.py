"""Full disks, readers that go away, interrupts, short writes."""

import errno
import io
import os
import resource
import signal
import subprocess
import sys
from contextlib import contextmanager

import dpkt
import pytest
from support.writer_cases import (
    ETHERNET,
    RAW_IP,
    blocks,
    make_batch,
    open_descriptors,
    tool,
    tshark_fields,
    write,
)

from uspcap.errors import CaptureFileError
from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.formats.writer import open_writer

BOTH = pytest.mark.parametrize("format", ["pcapng", "pcap"])


@contextmanager
def small_file_system(tmp_path, size):
    """Mount a tmpfs of `size` bytes, and always unmount it."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"this host does not mount a tmpfs: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@BOTH
@pytest.mark.parametrize("length", [46, 160])
def test_a_full_disk_leaves_whole_frames_only(format, length, tmp_path):
    with small_file_system(tmp_path, 64 << 10) as place:
        path = place / "out"
        writer = open_writer(str(path), format, interfaces=[ETHERNET])
        with pytest.raises(CaptureFileError, match="No space left on device") as raised:
            for _ in range(100):
                writer.write(make_batch(50, length=length))
        assert f"it holds {writer.frames_written} frames and ends with a whole frame" in str(raised.value)
        with pytest.raises(CaptureFileError, match="an earlier write failed"):
            writer.write(make_batch(1))
        writer.close({0: InterfaceStatistics(received=1)})
        data = path.read_bytes()
    assert writer.frames_written > 100
    # It is full: one more frame would not have fitted.
    assert 65536 - 200 < len(data) <= 65536
    frames = [data for _, data in dpkt.pcap.UniversalReader(io.BytesIO(data))]
    assert len(frames) == writer.frames_written
    assert {len(frame) for frame in frames} == {length}


@contextmanager
def file_size_limit(size):
    """Let files of this process grow to `size` bytes only."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@BOTH
def test_a_file_may_end_at_any_byte_and_stays_whole(format, tmp_path):
    path = tmp_path / "out"
    for limit in range(200, 420):
        with file_size_limit(limit):
            writer = open_writer(str(path), format, interfaces=[ETHERNET], buffer_bytes=512)
            with pytest.raises(CaptureFileError, match="File too large"):
                writer.write(make_batch(50))
            writer.close()
        data = path.read_bytes()
        assert limit - 80 <= len(data) <= limit
        assert sum(1 for _ in dpkt.pcap.UniversalReader(io.BytesIO(data))) == writer.frames_written


def test_a_full_disk_at_the_start_leaves_an_empty_file(tmp_path):
    path = tmp_path / "out"
    before = open_descriptors()
    with file_size_limit(20), pytest.raises(CaptureFileError, match="it holds 0 frames"):
        open_writer(str(path), interfaces=[ETHERNET])
    assert path.read_bytes() == b""
    assert open_descriptors() == before


def test_a_full_device_is_one_clear_sentence():
    with pytest.raises(CaptureFileError, match="cannot write /dev/full: No space left on device"):
        open_writer("/dev/full")


def test_a_reader_that_goes_away_is_said():
    program = (
        "import os, sys\n"
        "from uspcap.errors import CaptureFileError\n"
        "from uspcap.formats.writer import open_writer\n"
        "from uspcap.frames import FrameBatch\n"
        "writer = open_writer('-')\n"
        "batch = FrameBatch.from_frames([bytes(1000)] * 500, range(500))\n"
        "try:\n"
        "    while True: writer.write(batch)\n"
        "except CaptureFileError as error: print(error, file=sys.stderr)\n"
        "writer.close()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout.read(4) == b"\x0a\x0d\x0d\x0a"
        child.stdout.close()
        said = child.stderr.read().decode()
    assert said.startswith("cannot write standard output: its reader has gone after ")
    assert child.returncode == 0


@pytest.mark.oracle
@tool("tshark")
@pytest.mark.parametrize("to_file", [False, True])
def test_standard_output_carries_a_whole_capture(to_file, tmp_path):
    program = (
        "from uspcap.formats.writer import open_writer\n"
        "from uspcap.frames import FrameBatch\n"
        "with open_writer('-') as writer:\n"
        "    writer.write(FrameBatch.from_frames([bytes(60)] * 3, range(3)))\n"
        "print('still open', flush=True)\n"
    )
    path = tmp_path / "out"
    if to_file:
        path.write_bytes(b"before:")
        with path.open("ab") as file:
            subprocess.run([sys.executable, "-c", program], stdout=file, check=True)
        data = path.read_bytes()
        assert data.startswith(b"before:")
        data = data.removeprefix(b"before:")
    else:
        data = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert data.endswith(b"still open\n")
    path.write_bytes(data.removesuffix(b"still open\n"))
    assert len(tshark_fields(path, "frame.number")) == 3


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("through", [0, 1, 100, 101, 4000])
def test_an_interrupt_in_the_middle_of_a_write_leaves_a_usable_file(through, tmp_path, monkeypatch):
    path = tmp_path / "out"
    writer = open_writer(str(path), interfaces=[ETHERNET])
    original = os.write

    def write_some(descriptor, data):
        original(descriptor, data[:through])
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_some)
        with pytest.raises(Interrupted):
            writer.write(make_batch(50))
    assert writer.frames_written == through // 80  # 32 bytes of block around 48
    writer.write(make_batch(5))
    writer.close({0: InterfaceStatistics(received=9)})
    kinds = [kind for kind, _ in blocks(path.read_bytes())]
    assert kinds == [0x0A0D0D0A, 1, *[6] * (through // 80 + 5), 5]


def test_an_interrupt_while_an_interface_is_added_leaves_numbers_right(tmp_path, monkeypatch):
    path = tmp_path / "out"
    writer = open_writer(str(path))
    original = os.write

    def write_all_and_raise(descriptor, data):
        original(descriptor, data)
        raise Interrupted

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_all_and_raise)
        with pytest.raises(Interrupted):
            writer.add_interface(RAW_IP)
    assert writer.interfaces == []
    assert writer.add_interface(ETHERNET) == 0
    writer.close()
    assert [kind for kind, _ in blocks(path.read_bytes())] == [0x0A0D0D0A, 1]


def test_short_writes_are_gone_on_with(tmp_path, monkeypatch):
    original = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: original(descriptor, data[:7]))
    path = tmp_path / "out"
    write(path, make_batch(30))
    assert [kind for kind, _ in blocks(path.read_bytes())] == [0x0A0D0D0A, 1, *[6] * 30]


def test_a_pipe_that_breaks_in_the_middle_of_a_frame_is_said_to(monkeypatch):
    reading, writing = os.pipe()
    writer = open_writer(f"/dev/fd/{writing}", interfaces=[ETHERNET])
    original = os.write
    calls = iter([True])

    def write_then_fail(descriptor, data):
        if next(calls, False):
            return original(descriptor, data[:100])
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", write_then_fail)
        with pytest.raises(CaptureFileError, match="it holds 1 frames and ends in the middle of a frame"):
            writer.write(make_batch(20))
    writer.close()
    os.close(reading)
    os.close(writing)
