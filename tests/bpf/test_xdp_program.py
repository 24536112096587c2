"""The capture program on single frames; tests/bpf/test_attach.py sees it at work on interfaces."""

import struct
import time
from collections.abc import Iterator

import pytest
from support.bpf_samples import TCP_FRAME, UDP_FRAME, counted

from uspcap.bpf.attach import CaptureMaps
from uspcap.bpf.builder import Program
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.instructions import (
    BPF_CALL,
    BPF_DW,
    BPF_JMP,
    R0,
    R1,
    R2,
    Instruction,
    exit_insn,
    ld_imm64,
    mov32_imm,
    mov64_imm,
    st_mem,
    stx_mem,
)
from uspcap.bpf.kernel_types import BPF_F_XDP_HAS_FRAGS, XdpAction, XdpContext
from uspcap.bpf.syscalls import LoadedProgram, RunResult
from uspcap.bpf.xdp_program import (
    METADATA_LENGTH,
    METADATA_MAGIC,
    RX_TIMESTAMP_FUNCTION,
    Counter,
    Metadata,
    build_capture_program,
)
from uspcap.errors import FilterError

BPF_PSEUDO_CALL = 1  # linux/bpf.h


@pytest.fixture
def maps(kernel_bpf: None) -> Iterator[CaptureMaps]:
    with CaptureMaps(queue_count=2) as made:
        yield made


def run(
    maps: CaptureMaps,
    frame: bytes,
    expression: str | None = "udp port 5000",
    *,
    metadata: bool = True,
    cookie: int = 0,
    context: XdpContext | None = None,
) -> RunResult:
    rows = None if expression is None else compile_filter(expression, 1)
    program = build_capture_program(rows, queue_count=maps.queue_count, metadata=metadata, cookie=cookie)
    with LoadedProgram.load(program.link(maps.fds), name="capture", flags=BPF_F_XDP_HAS_FRAGS) as loaded:
        return loaded.test_run(frame, context=context)


def test_frame_that_does_not_match_passes_untouched(maps: CaptureMaps) -> None:
    result = run(maps, TCP_FRAME)
    assert (result.verdict, result.data, result.metadata_length) == (XdpAction.XDP_PASS, TCP_FRAME, 0)
    assert counted(maps) == {"SEEN": 1}


def test_matching_frame_gets_metadata_in_front_and_stays_as_it_is(maps: CaptureMaps) -> None:
    before = time.clock_gettime_ns(time.CLOCK_TAI)
    result = run(maps, UDP_FRAME)
    after = time.clock_gettime_ns(time.CLOCK_TAI)
    assert result.metadata_length == METADATA_LENGTH
    assert result.data[METADATA_LENGTH:] == UDP_FRAME
    metadata = Metadata.unpack(result.data[:METADATA_LENGTH])
    assert metadata is not None
    assert before <= metadata.hook_tai_ns <= after
    assert metadata[1:] == (0, len(UDP_FRAME), 0)
    assert result.data[16:24] == bytes(8)


def test_matching_frame_of_a_queue_without_socket_passes(maps: CaptureMaps) -> None:
    assert run(maps, UDP_FRAME).verdict == XdpAction.XDP_PASS
    assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1}


def test_without_a_filter_every_frame_matches(maps: CaptureMaps) -> None:
    run(maps, TCP_FRAME, None)
    assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1}


def test_without_metadata_the_frame_is_left_alone(maps: CaptureMaps) -> None:
    result = run(maps, UDP_FRAME, metadata=False)
    assert (result.data, result.metadata_length) == (UDP_FRAME, 0)
    assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1}


def test_length_counts_all_fragments(maps: CaptureMaps) -> None:
    frame = UDP_FRAME + bytes(9000)
    result = run(maps, frame)
    metadata = Metadata.unpack(result.data[:METADATA_LENGTH])
    assert metadata is not None
    assert metadata.frame_length == len(frame)


@pytest.mark.parametrize("already", [32, 212], ids=["other metadata is there", "no room for more"])
@pytest.mark.parametrize("cookie", [0, 0xFEDCBA9876543210])
def test_frame_without_room_before_it_goes_on_as_it_came_where_there_is_no_socket(
    maps: CaptureMaps, already: int, cookie: int
) -> None:
    context = XdpContext(data_meta=0, data=already, data_end=already + len(UDP_FRAME))
    result = run(maps, bytes(already) + UDP_FRAME, context=context, cookie=cookie)
    assert result.verdict == XdpAction.XDP_PASS
    assert result.data[-len(UDP_FRAME) :] == UDP_FRAME
    assert len(result.data) == result.metadata_length + len(UDP_FRAME)
    how = "METADATA_AT_HEAD" if cookie and already == 32 else "METADATA_FAILED"
    assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1, how: 1}


def test_cookie_changes_nothing_where_there_is_room_before_the_frame(maps: CaptureMaps) -> None:
    result = run(maps, UDP_FRAME, cookie=1)
    assert result.metadata_length == METADATA_LENGTH
    assert result.data[METADATA_LENGTH:] == UDP_FRAME
    assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1}


def test_counts_go_to_the_queue_that_the_frame_came_from(maps: CaptureMaps) -> None:
    run(maps, UDP_FRAME)
    queues = maps.read_counters()
    assert [queue[Counter.SEEN] for queue in queues] == [1, 0, 0]


def test_counts_add_up_over_programs_that_share_the_maps(maps: CaptureMaps) -> None:
    run(maps, UDP_FRAME)
    run(maps, TCP_FRAME)
    run(maps, TCP_FRAME, None, metadata=False)
    assert counted(maps) == {"SEEN": 3, "MATCHED": 2, "NO_SOCKET": 2}


def run_with_driver(maps: CaptureMaps, *driver: Instruction) -> RunResult:
    """Run on a UDP frame with instructions in the place of the driver's function for timestamps.

    They get the context in R1 and where to put the timestamp in R2, and are called as a function of BPF's.
    """
    program = build_capture_program(None, queue_count=maps.queue_count, hardware_timestamps=True)
    [(index, _)] = program.kernel_functions
    position = sum(instruction.slots for instruction in program.instructions[:index])
    local_call = Instruction(BPF_JMP | BPF_CALL, source=BPF_PSEUDO_CALL, immediate=program.slots - position - 1)
    instructions = (*program.instructions[:index], local_call, *program.instructions[index + 1 :], *driver)
    code = Program(instructions, program.maps).link(maps.fds)
    with LoadedProgram.load(code, name="capture", flags=BPF_F_XDP_HAS_FRAGS) as loaded:
        return loaded.test_run(UDP_FRAME)


def test_timestamp_of_the_driver_goes_into_the_metadata(maps: CaptureMaps) -> None:
    result = run_with_driver(
        maps, ld_imm64(R1, 0x1122334455667788), stx_mem(BPF_DW, R2, R1, 0), mov64_imm(R0, 0), exit_insn()
    )
    metadata = Metadata.unpack(result.data[:METADATA_LENGTH])
    assert metadata is not None
    assert metadata.hardware_ns == 0x1122334455667788
    assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1, "HARDWARE_TIMESTAMPED": 1}


@pytest.mark.parametrize(
    ("timestamp", "answer"), [(0, 0), (7, -95), (7, -61)], ids=["a timestamp of 0", "EOPNOTSUPP", "ENODATA"]
)
def test_zero_and_refusals_of_the_driver_are_no_timestamp(maps: CaptureMaps, timestamp: int, answer: int) -> None:
    driver = (st_mem(BPF_DW, R2, 0, timestamp), mov32_imm(R0, answer), exit_insn())
    result = run_with_driver(maps, *driver)
    assert result.metadata_length == METADATA_LENGTH
    flags, hardware_ns = struct.unpack_from("=6xH8xQ", result.data)
    assert (flags, hardware_ns) == (0, 0)
    assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1}


def test_building_is_repeatable_and_needs_no_kernel() -> None:
    rows = list(compile_filter("tcp port 80", 1))
    first = build_capture_program(rows, queue_count=4, hardware_timestamps=True)
    assert first == build_capture_program(rows, queue_count=4, hardware_timestamps=True)
    assert [name for _, name in first.kernel_functions] == [RX_TIMESTAMP_FUNCTION]
    assert build_capture_program(rows, queue_count=4).kernel_functions == ()


def test_hardware_timestamps_without_metadata_have_nowhere_to_go() -> None:
    with pytest.raises(ValueError, match="need metadata"):
        build_capture_program(None, queue_count=1, metadata=False, hardware_timestamps=True)


def test_filter_that_is_too_large_is_refused_with_a_way_out() -> None:
    rows = [(0x30, 0, 0, index % 60) for index in range(4000)]
    rows = [(0x15, 0, 1, 0), (0x05, 0, 0, len(rows)), *rows, (0x06, 0, 0, 1)]
    with pytest.raises(FilterError, match=r"too large for the XDP hook .* packet_mmap"):
        build_capture_program(rows, queue_count=1)


def test_protochain_is_refused() -> None:
    with pytest.raises(FilterError, match="backward"):
        build_capture_program([(0x05, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)], queue_count=1)


def test_metadata_is_read_as_documented() -> None:
    area = struct.pack("=IHHQQII", METADATA_MAGIC, 1, 1, 10, 20, 30, 40)
    assert len(area) == METADATA_LENGTH
    assert Metadata.unpack(area) == Metadata(10, 20, 30, 40)


@pytest.mark.parametrize(
    ("magic", "version", "flags", "expected"),
    [(0, 1, 1, None), (METADATA_MAGIC, 2, 1, None), (METADATA_MAGIC, 1, 0, Metadata(10, 0, 30, 40))],
    ids=["stale memory", "another version", "timestamp not flagged as one"],
)
def test_metadata_that_is_none_is_not_read(magic: int, version: int, flags: int, expected: Metadata | None) -> None:
    assert Metadata.unpack(struct.pack("=IHHQQII", magic, version, flags, 10, 20, 30, 40)) == expected
