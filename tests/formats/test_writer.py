"""What is written, read back by tshark, capinfos, tcpdump and dpkt."""

import struct

import dpkt
import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.writer_cases import (
    ETHERNET,
    RAW_IP,
    START_NS,
    UDP_FRAME,
    blocks,
    make_batch,
    run,
    seconds,
    tool,
    tshark_fields,
    write,
)

from uspcap.errors import CaptureFileError, UsageError
from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.formats.writer import open_writer
from uspcap.frames import LATEST_NS, FrameBatch, Interface, TimestampSource

BOTH = pytest.mark.parametrize("format", ["pcapng", "pcap"])


@pytest.mark.oracle
@tool("tshark")
@BOTH
def test_tshark_reads_the_same_frames_and_nanoseconds(format, tmp_path):
    path = tmp_path / "out"
    batch = make_batch()
    writer = write(path, batch, make_batch(3, start_ns=0), format=format)
    assert writer.frames_written == 53
    assert writer.problems == []
    timestamps = [*batch.timestamp_ns.tolist(), 0, 1_000_000_007, 2_000_000_014]
    fields = tshark_fields(path, "frame.time_epoch", "frame.cap_len", "frame.len", "udp.payload")
    assert [line[0] for line in fields] == [seconds(timestamp) for timestamp in timestamps]
    assert [line[1:] for line in fields] == [["46", str(46 + row), "74657374"] for row in [*range(50), *range(3)]]


@pytest.mark.oracle
@tool("tcpdump")
@BOTH
def test_tcpdump_reads_the_same_bytes_and_nanoseconds(format, tmp_path):
    path = tmp_path / "out"
    batch = make_batch(5)
    write(path, batch, format=format)
    output = run("tcpdump", "-n", "-tt", "--nano", "-xx", "-r", str(path))
    timestamps = [line.split()[0] for line in output.splitlines() if not line.startswith("\t")]
    assert timestamps == [seconds(timestamp) for timestamp in batch.timestamp_ns.tolist()]
    hexadecimal = "".join("".join(line.split()[1:]) for line in output.splitlines() if line.startswith("\t"))
    assert bytes.fromhex(hexadecimal) == b"".join(batch.frame_bytes(row) for row in range(5))


def test_dpkt_reads_the_same_pcap(tmp_path):
    path = tmp_path / "out"
    batch = make_batch(20)
    write(path, batch, format="pcap")
    with path.open("rb") as file:
        reader = dpkt.pcap.Reader(file)
        assert reader.datalink() == 1
        found = [(int(timestamp * 10**9), data) for timestamp, data in reader]
    assert found == [(timestamp, batch.frame_bytes(row)) for row, timestamp in enumerate(batch.timestamp_ns.tolist())]


def test_dpkt_reads_the_same_pcapng(tmp_path):
    path = tmp_path / "out"
    batch = make_batch(20)
    write(path, batch)
    with path.open("rb") as file:
        found = list(dpkt.pcapng.Reader(file))
    assert [data for _, data in found] == [batch.frame_bytes(row) for row in range(20)]
    # dpkt holds timestamps as float, good for a microsecond.
    assert [timestamp for timestamp, _ in found] == pytest.approx(batch.timestamp_ns / 1e9, abs=1e-6, rel=0)


@pytest.mark.oracle
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


@pytest.mark.oracle
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


@pytest.mark.oracle
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


@pytest.mark.oracle
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
def test_timestamps_that_do_not_fit_are_counted_and_said(format, tmp_path):
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
def test_frames_without_a_timestamp_are_said_to_have_none(format, tmp_path):
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
    frames=st.lists(st.tuples(st.integers(0, LATEST_NS), st.binary(max_size=200), st.integers(0, 3)), max_size=30),
    buffer_bytes=st.integers(64, 4096),
    pieces=st.integers(1, 4),
)
@example(interfaces=[Interface(link_type=1)], frames=[(0, b"", 0)], buffer_bytes=64, pieces=1)
def test_what_is_written_is_what_stands_in_the_blocks(interfaces, frames, buffer_bytes, pieces, tmp_path):
    path = tmp_path / "out"
    step = -(-len(frames) // pieces) or 1
    with open_writer(str(path), buffer_bytes=buffer_bytes) as writer:
        for start in range(0, len(frames), step):
            part = frames[start : start + step]
            batch = FrameBatch.from_frames(
                [data for _, data, _ in part], [timestamp for timestamp, _, _ in part], interfaces=interfaces
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
    assert packets == [(timestamp, data, number % len(interfaces)) for timestamp, data, number in frames]
    assert writer.frames_written == len(frames)
