"""What is written, read back by tshark, capinfos, tcpdump and dpkt."""

import errno
import io
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import dpkt
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from uspcap.errors import CaptureFileError, UsageError
from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.formats.writer import open_writer
from uspcap.frames import FrameBatch, Interface, TimestampSource

ETHERNET = Interface(link_type=1, name="eth0")
RAW_IP = Interface(link_type=101, name="tun0", snaplen=65535)
START_NS = 1_700_000_000_123_456_789
UDP_FRAME = bytes.fromhex(
    "01005e000001 020000000001 0800 4500002000010000011199da0a000001e0000001 1388138800 0c0000 74657374"
)


def tool(name):
    return pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def tshark_fields(path, *fields):
    """Return one list of fields a frame, as tshark reads them."""
    arguments = [argument for field in fields for argument in ("-e", field)]
    output = run("tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", *arguments)
    return [line.split("|") for line in output.splitlines()]


def seconds(timestamp_ns):
    return f"{timestamp_ns // 10**9}.{timestamp_ns % 10**9:09d}"


def open_descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def make_batch(count=50, start_ns=START_NS, interfaces=(ETHERNET,), length=46):
    frames = [(UDP_FRAME + row.to_bytes(4, "big") * 30)[:length] for row in range(count)]
    stamps = start_ns + np.arange(count, dtype=np.int64) * 1_000_000_007
    return FrameBatch.from_frames(
        frames, stamps, wire_lengths=[length + row for row in range(count)], interfaces=interfaces
    )


def write(path, *batches, statistics=None, **options):
    with open_writer(str(path), **options) as writer:
        for batch in batches:
            writer.write(batch)
        writer.close(statistics)
    return writer


def blocks(data):
    """Return (type, body) of every pcapng block, checking both lengths."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4)[0] == length
        found.append((kind, data[at + 8 : at + length - 4]))
        at += length
    assert at == len(data)
    return found


BOTH = pytest.mark.parametrize("format", ["pcapng", "pcap"])


@tool("tshark")
@BOTH
def test_tshark_reads_the_same_frames_and_nanoseconds(format, tmp_path):
    path = tmp_path / "out"
    batch = make_batch()
    writer = write(path, batch, make_batch(3, start_ns=0), format=format)
    assert writer.frames_written == 53
    assert writer.problems == []
    stamps = [*batch.timestamp_ns.tolist(), 0, 1_000_000_007, 2_000_000_014]
    fields = tshark_fields(path, "frame.time_epoch", "frame.cap_len", "frame.len", "udp.payload")
    assert [line[0] for line in fields] == [seconds(stamp) for stamp in stamps]
    assert [line[1:] for line in fields] == [["46", str(46 + row), "74657374"] for row in [*range(50), *range(3)]]


@tool("tcpdump")
@BOTH
def test_tcpdump_reads_the_same_bytes_and_nanoseconds(format, tmp_path):
    path = tmp_path / "out"
    batch = make_batch(5)
    write(path, batch, format=format)
    output = run("tcpdump", "-n", "-tt", "--nano", "-xx", "-r", str(path))
    stamps = [line.split()[0] for line in output.splitlines() if not line.startswith("\t")]
    assert stamps == [seconds(stamp) for stamp in batch.timestamp_ns.tolist()]
    hexadecimal = "".join("".join(line.split()[1:]) for line in output.splitlines() if line.startswith("\t"))
    assert bytes.fromhex(hexadecimal) == b"".join(batch.frame_bytes(row) for row in range(5))


def test_dpkt_reads_the_same_pcap(tmp_path):
    path = tmp_path / "out"
    batch = make_batch(20)
    write(path, batch, format="pcap")
    with path.open("rb") as file:
        reader = dpkt.pcap.Reader(file)
        assert reader.datalink() == 1
        found = [(int(stamp * 10**9), data) for stamp, data in reader]
    assert found == [(stamp, batch.frame_bytes(row)) for row, stamp in enumerate(batch.timestamp_ns.tolist())]


def test_dpkt_reads_the_same_pcapng(tmp_path):
    path = tmp_path / "out"
    batch = make_batch(20)
    write(path, batch)
    with path.open("rb") as file:
        found = list(dpkt.pcapng.Reader(file))
    assert [data for _, data in found] == [batch.frame_bytes(row) for row in range(20)]
    # dpkt holds stamps as float, good for a microsecond.
    assert [stamp for stamp, _ in found] == pytest.approx(batch.timestamp_ns / 1e9, abs=1e-6, rel=0)


@tool("tshark")
def test_flags_queues_drop_counts_and_comments_reach_tshark(tmp_path):
    comment = struct.pack("<HH", 1, 5) + b"hello" + bytes(3)
    packet_id = struct.pack("<HHQ", 5, 8, 77)
    raw_flags = struct.pack("<HHI", 2, 4, 999)  # the column says otherwise, and wins
    options = comment + raw_flags + packet_id
    batch = make_batch(3)
    frames = batch.data.tobytes()
    batch.set_data(np.frombuffer(frames + options, np.uint8).copy())
    batch.storage("flags")[:3] = [1, 2, 0]
    batch.storage("queue")[:3] = [0, 7, 0]
    batch.storage("drop_count")[:3] = [0, 0, 2**33]
    batch.storage("options_offset")[0] = len(frames)
    batch.storage("options_length")[0] = len(options)
    path = tmp_path / "out"
    write(path, batch)
    fields = tshark_fields(
        path,
        "frame.packet_flags",
        "frame.interface_queue",
        "frame.drop_count",
        "frame.comment",
        "frame.packet_id",
    )
    assert fields == [
        ["0x00000001", "", "", "hello", "77"],
        ["0x00000002", "7", "", "", ""],
        ["", "", str(2**33), "", ""],
    ]


@tool("tshark")
def test_only_comments_of_big_endian_options_are_passed_on(tmp_path):
    options = struct.pack(">HH", 1, 2) + b"hi" + bytes(2) + struct.pack(">HHQ", 5, 8, 77)
    batch = make_batch(1)
    frames = batch.data.tobytes()
    batch.set_data(np.frombuffer(frames + options, np.uint8).copy())
    batch.storage("options_offset")[0] = len(frames)
    batch.storage("options_length")[0] = len(options)
    batch.big_endian_options = True
    path = tmp_path / "out"
    writer = write(path, batch)
    assert tshark_fields(path, "frame.comment", "frame.packet_id") == [["hi", ""]]
    assert writer.problems == ["1 options of frames were not written: they are damaged or of unknown byte order"]


@tool("capinfos")
def test_section_and_interfaces_reach_capinfos(tmp_path):
    described = Interface(
        link_type=1,
        name="enp1s0",
        description="to the venue",
        filter="udp port 5000",
        hardware="a NIC",
        operating_system="Linux 6",
        snaplen=2048,
        fcs_length=4,
        speed_bps=25_000_000_000,
    )
    path = tmp_path / "out"
    write(
        path,
        make_batch(4, interfaces=(described,)),
        statistics={0: InterfaceStatistics(START_NS, START_NS + 10**9, received=10, dropped=3, os_dropped=2)},
        interfaces=[described],
        comment="a comment",
        hardware="a machine",
        operating_system="Linux",
        application="uspcap test",
    )
    output = run("capinfos", str(path))
    said = {
        key.strip(): value.strip()
        for key, _, value in (
            line.partition("=") if " = " in line else line.partition(":") for line in output.splitlines()
        )
    }
    for key, value in {
        "File timestamp precision": "nanoseconds (9)",
        "Number of packets": "4",
        "Capture hardware": "a machine",
        "Capture oper-sys": "Linux",
        "Capture application": "uspcap test",
        "Capture comment": "a comment",
        "Number of interfaces in file": "1",
        "Name": "enp1s0",
        "Description": "to the venue",
        "Filter string": "udp port 5000",
        "Hardware": "a NIC",
        "Operating system": "Linux 6",
        "Capture length": "2048",
        "Time precision": "nanoseconds (9)",
        "Speed": "25000000000",
        "FCS length": "4",
        "Number of stat entries": "1",
    }.items():
        assert said.get(key) == value, (key, output)


def test_statistics_are_written_as_given(tmp_path):
    path = tmp_path / "out"
    statistics = InterfaceStatistics(START_NS, START_NS + 5, received=2**40, dropped=0, os_dropped=7)
    write(path, interfaces=[RAW_IP, ETHERNET], statistics={1: statistics})
    kind, body = blocks(path.read_bytes())[-1]
    end = struct.pack("<II", (START_NS + 5) >> 32, (START_NS + 5) & 0xFFFFFFFF)
    assert kind == 5
    assert body == (
        struct.pack("<I", 1)
        + end
        + struct.pack("<HHII", 2, 8, START_NS >> 32, START_NS & 0xFFFFFFFF)
        + struct.pack("<HH", 3, 8)
        + end
        + struct.pack("<HHQ", 4, 8, 2**40)
        + struct.pack("<HHQ", 5, 8, 0)
        + struct.pack("<HHQ", 7, 8, 7)
        + bytes(4)
    )


@tool("tshark")
def test_batches_of_several_sources_share_equal_interfaces(tmp_path):
    path = tmp_path / "out"
    first = make_batch(2, interfaces=(ETHERNET,))
    second = make_batch(3, interfaces=(RAW_IP, ETHERNET, ETHERNET))
    second.storage("interface")[:3] = [0, 1, 2]
    with open_writer(str(path)) as writer:
        writer.write(first)
        writer.write(second)
        writer.write(second, interface_map=[2, 2, 0])
        assert writer.interfaces == [ETHERNET, RAW_IP, ETHERNET]
    numbers = [line[0] for line in tshark_fields(path, "frame.interface_id")]
    assert numbers == ["0", "0", "1", "0", "2", "2", "2", "0"]


def test_an_interface_map_that_does_not_fit_is_refused(tmp_path):
    with open_writer(str(tmp_path / "out"), interfaces=[ETHERNET]) as writer:
        with pytest.raises(ValueError, match="2 items for 1"):
            writer.write(make_batch(1), interface_map=[0, 0])
        with pytest.raises(ValueError, match="interface 1 of 1"):
            writer.write(make_batch(1), interface_map=[1])


def test_pcap_refuses_a_second_link_type_and_stays_whole(tmp_path):
    path = tmp_path / "out"
    with open_writer(str(path), "pcap") as writer:
        writer.write(make_batch(2))
        with pytest.raises(CaptureFileError, match="one link type, and the interfaces have 1 and 101; write pcapng"):
            writer.write(make_batch(2, interfaces=(RAW_IP,)))
        writer.write(make_batch(2))
    with path.open("rb") as file:
        assert len(list(dpkt.pcap.Reader(file))) == 4
    with pytest.raises(CaptureFileError, match="one link type"):
        open_writer(str(path), "pcap", interfaces=[ETHERNET, RAW_IP])


@BOTH
def test_stamps_that_do_not_fit_are_counted_and_said(format, tmp_path):
    path = tmp_path / "out"
    batch = make_batch(4)
    batch.storage("timestamp_ns")[:4] = [-1, 0, 2**32 * 10**9, 5]
    writer = write(path, batch, format=format)
    refused = 2 if format == "pcap" else 1
    assert writer.frames_refused == refused
    assert writer.frames_written == 4 - refused
    assert len(writer.problems) == 1
    assert writer.problems[0].startswith(f"{refused} frames were not written: their timestamps lie outside")


@BOTH
def test_frames_without_a_stamp_are_said_to_have_none(format, tmp_path):
    batch = make_batch(3)
    batch.storage("timestamp_source")[1] = TimestampSource.NONE
    batch.storage("timestamp_ns")[1] = 0
    writer = write(tmp_path / "out", batch, format=format)
    assert writer.frames_written == 3
    assert writer.problems == ["1 frames have no timestamp and were written with 0, which others read as 1970"]


@BOTH
def test_frames_are_cut_to_the_snaplen_and_counted(format, tmp_path):
    path = tmp_path / "out"
    short = Interface(1, snaplen=20)
    writer = write(path, make_batch(3, interfaces=(short,)), format=format)
    assert writer.frames_cut == 3
    assert writer.problems == ["3 frames were cut to the snaplen that the file states"]
    with path.open("rb") as file:
        frames = [data for _, data in dpkt.pcap.UniversalReader(file)]
    assert frames == [UDP_FRAME[:20]] * 3


def test_pcap_says_that_it_has_no_place_for_options(tmp_path):
    batch = make_batch(2)
    frames = batch.data.tobytes()
    batch.set_data(np.frombuffer(frames + struct.pack("<HHI", 1, 4, 0), np.uint8).copy())
    batch.storage("options_offset")[1] = len(frames)
    batch.storage("options_length")[1] = 8
    writer = write(tmp_path / "out", batch, format="pcap")
    assert writer.problems == ["1 frames lost their comments and other options, for which pcap has no place"]


@BOTH
def test_a_capture_without_frames_is_a_valid_file(format, tmp_path):
    path = tmp_path / "out"
    write(path, format=format)
    if format == "pcap":
        assert path.read_bytes() == struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    else:
        assert [kind for kind, _ in blocks(path.read_bytes())] == [0x0A0D0D0A]


def test_wrong_usage_is_refused(tmp_path):
    path = str(tmp_path / "out")
    with pytest.raises(UsageError, match="no format 'erf'; choose pcapng or pcap"):
        open_writer(path, "erf")
    for interface, what in (
        (Interface(1 << 16), "link type 65536"),
        (Interface(1, snaplen=-1), "snaplen -1"),
    ):
        with pytest.raises(CaptureFileError, match=f"{what} does not fit"):
            open_writer(path, interfaces=[interface])
    writer = open_writer(path)
    with pytest.raises(ValueError, match="statistics name interface 0 of 0"):
        writer.close({0: InterfaceStatistics()})
    writer.close()
    with pytest.raises(CaptureFileError, match="it is closed; it holds 0 frames"):
        writer.write(make_batch(1))


def test_each_write_is_in_the_file_when_it_returns(tmp_path):
    path = tmp_path / "out"
    with open_writer(str(path)) as writer:
        for expected in (5, 10):
            writer.write(make_batch(5))
            assert sum(kind == 6 for kind, _ in blocks(path.read_bytes())) == expected


interface_strategy = st.builds(
    Interface,
    link_type=st.integers(0, 0xFFFF),
    name=st.text(max_size=10),
    description=st.text(max_size=10),
    snaplen=st.just(0),
    fcs_length=st.integers(-1, 16),
    speed_bps=st.integers(0, 2**64 - 1),
)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    interfaces=st.lists(interface_strategy, min_size=1, max_size=4),
    frames=st.lists(st.tuples(st.integers(0, 2**63 - 1), st.binary(max_size=200), st.integers(0, 3)), max_size=30),
    buffer_bytes=st.integers(64, 4096),
    pieces=st.integers(1, 4),
)
def test_what_is_written_is_what_stands_in_the_blocks(interfaces, frames, buffer_bytes, pieces, tmp_path):
    path = tmp_path / "out"
    step = -(-len(frames) // pieces) or 1
    with open_writer(str(path), buffer_bytes=buffer_bytes) as writer:
        for start in range(0, len(frames), step):
            part = frames[start : start + step]
            batch = FrameBatch.from_frames(
                [data for _, data, _ in part], [stamp for stamp, _, _ in part], interfaces=interfaces
            )
            batch.storage("interface")[: len(part)] = [number % len(interfaces) for _, _, number in part]
            writer.write(batch)
    found = blocks(path.read_bytes())
    described = [struct.unpack_from("<H", body)[0] for kind, body in found if kind == 1]
    assert described == ([one.link_type for one in interfaces] if frames else [])
    packets = []
    for kind, body in found:
        if kind == 6:
            number, high, low, captured, wire = struct.unpack_from("<IIIII", body)
            assert wire == captured
            packets.append((high << 32 | low, body[20 : 20 + captured], number))
    assert packets == [(stamp, data, number % len(interfaces)) for stamp, data, number in frames]
    assert writer.frames_written == len(frames)


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
