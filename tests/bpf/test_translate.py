"""Translated filters in the kernel (BPF_PROG_TEST_RUN) against libpcap's own interpreter."""

import os
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import dpkt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.classic_bpf_reference import interpret, libpcap_library, pcap_offline_filter
from support.classic_bpf_strategies import programs
from support.filter_expressions import EXPRESSIONS

from uspcap.bpf.builder import Builder, JumpTooFar, Program
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.instructions import R0, R1, R6, call, exit_insn, mov64_imm, mov64_reg
from uspcap.bpf.kernel_types import BPF_F_XDP_HAS_FRAGS, XdpAction, XdpContext
from uspcap.bpf.syscalls import LoadedProgram
from uspcap.bpf.translate import BPF_FUNC_XDP_LOAD_BYTES, SKF_LL_OFF, translate
from uspcap.errors import BpfError, FilterError

SHARED = Path(os.environ.get("USPCAP_SHARED", Path(__file__).parents[2].parent / "shared"))
LIBPCAP = libpcap_library()
needs_libpcap = pytest.mark.skipif(LIBPCAP is None, reason="no system libpcap to compare with")

LINEAR_BYTES = 3520
"""What a test run keeps in the linear part: a page of 4096 less headroom and struct skb_shared_info."""

Rows = Sequence[tuple[int, int, int, int]]


def build(rows: Iterable[tuple[int, int, int, int]], direct: bool = True) -> Program:
    """Return an XDP program that passes what matches and drops what does not."""
    builder = Builder()
    accept, reject = builder.label(), builder.label()
    builder.add(mov64_reg(R6, R1))
    translate(builder, rows, accept=accept, reject=reject, direct_indirect_loads=direct)
    builder.place(accept)
    builder.add(mov64_imm(R0, XdpAction.XDP_PASS), exit_insn())
    builder.place(reject)
    builder.add(mov64_imm(R0, XdpAction.XDP_DROP), exit_insn())
    return builder.build()


def matches(
    rows: Iterable[tuple[int, int, int, int]],
    frames: Sequence[bytes],
    direct: bool = True,
    linear_lengths: Sequence[int] | None = None,
) -> list[bool]:
    """Return for each frame whether the translated filter matches it.

    `linear_lengths` are the bytes of each frame that stay in its linear part, the rest become fragments;
    by default all of it is linear, as far as a page goes.
    """
    ends = [len(frame) for frame in frames] if linear_lengths is None else linear_lengths
    with LoadedProgram.load(build(rows, direct).link(), name="filter", flags=BPF_F_XDP_HAS_FRAGS) as program:
        verdicts = [
            program.test_run(frame, context=XdpContext(data_end=min(end, len(frame)))).verdict
            for frame, end in zip(frames, ends, strict=True)
        ]
    assert set(verdicts) <= {XdpAction.XDP_PASS, XdpAction.XDP_DROP}
    return [verdict == XdpAction.XDP_PASS for verdict in verdicts]


@pytest.fixture(scope="session")
def small_linear_part(kernel_bpf: None) -> None:
    """Skip where test runs cannot split a frame that fits into a page."""
    try:
        matches([(0x06, 0, 0, 1)], [bytes(60)], linear_lengths=[14])
    except BpfError as reason:
        pytest.skip(f"this kernel's test runs keep a frame of one page linear: {reason}")


def libpcap_matches(rows: Rows, frames: Sequence[bytes]) -> list[bool]:
    return [pcap_offline_filter(LIBPCAP, rows, frame, len(frame)) != 0 for frame in frames]


def read_frames(path: Path) -> Iterator[bytes]:
    """Yield the Ethernet frames of a capture, as far as dpkt can read it."""
    with path.open("rb") as file:
        try:
            reader = dpkt.pcap.UniversalReader(file)
            if reader.datalink() == dpkt.pcap.DLT_EN10MB:
                for _, frame in reader:
                    yield frame
        except (ValueError, dpkt.Error, OSError):
            return


@pytest.fixture(scope="module")
def real_frames() -> list[bytes]:
    """Give frames of other people's captures: a few of each file, without duplicates, all linear in a test run."""
    captures = SHARED / "captures"
    if not captures.is_dir():
        pytest.skip("no captures to read: set USPCAP_SHARED")
    frames: dict[bytes, None] = {}
    for path in sorted(captures.glob("*/*.pcap*")):
        taken = 0
        for index, frame in enumerate(read_frames(path)):
            if taken == 2 or index == 200:
                break
            if 14 <= len(frame) <= LINEAR_BYTES and frame not in frames:
                frames[frame] = None
                taken += 1
    assert len(frames) > 300
    return list(frames)


def mangled(frames: Sequence[bytes], count: int) -> list[bytes]:
    """Return frames that are random, cut, or real with a few bytes changed; the same ones each time."""
    chance = random.Random(20)
    made = []
    for index in range(count):
        if index % 4 == 0:
            made.append(chance.randbytes(chance.randint(14, 200)))
            continue
        frame = bytearray(chance.choice(frames))
        if index % 4 == 1:
            del frame[chance.randint(14, max(14, min(len(frame), 80))) :]
        for _ in range(chance.randint(1, 4)):
            frame[chance.randrange(min(len(frame), 64))] = chance.choice((0, 1, 6, 17, 0x45, 0x81, 0xFF))
        made.append(bytes(frame))
    return made


@pytest.fixture(scope="module")
def all_frames(real_frames: list[bytes]) -> list[bytes]:
    return real_frames + mangled(real_frames, 300)


@needs_libpcap
@pytest.mark.usefixtures("kernel_bpf")
def test_every_filter_matches_what_libpcap_matches(all_frames: list[bytes]) -> None:
    decided_both_ways = 0
    for expression in EXPRESSIONS:
        rows = [tuple(row) for row in compile_filter(expression, 1)]
        expected = libpcap_matches(rows, all_frames)
        assert matches(rows, all_frames) == expected, expression[:200]
        decided_both_ways += len(set(expected)) == 2
    assert len(EXPRESSIONS) >= 200
    # Most filters must have seen frames of both kinds, or the comparison says little.
    assert decided_both_ways >= 180


@needs_libpcap
@pytest.mark.usefixtures("small_linear_part")
def test_where_the_linear_part_ends_makes_no_difference(all_frames: list[bytes]) -> None:
    frames = all_frames[::2]
    linear_lengths = [14 + 7 * index % 53 for index in range(len(frames))]
    for expression in EXPRESSIONS:
        rows = [tuple(row) for row in compile_filter(expression, 1)]
        found = matches(rows, frames, linear_lengths=linear_lengths)
        assert found == libpcap_matches(rows, frames), expression[:200]


@needs_libpcap
@pytest.mark.usefixtures("kernel_bpf")
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "through the helper"])
def test_unoptimised_filters_match_the_same(all_frames: list[bytes], direct: bool) -> None:
    frames = all_frames[::5]
    for expression in EXPRESSIONS:
        rows = [tuple(row) for row in compile_filter(expression, 1, optimize=False)]
        if len(rows) > 1500:
            continue  # more than eBPF's jumps reach, which tests below cover
        assert matches(rows, frames, direct) == libpcap_matches(rows, frames), expression[:200]


@pytest.mark.usefixtures("kernel_bpf")
@settings(max_examples=600, deadline=None)
@given(programs(), st.lists(st.binary(min_size=14, max_size=60), min_size=1, max_size=4), st.booleans())
def test_any_valid_program_matches_what_the_python_interpreter_matches(
    rows: Rows, frames: list[bytes], direct: bool
) -> None:
    if any(code in (0x20, 0x28, 0x30) and k >= SKF_LL_OFF for code, _, _, k in rows):
        with pytest.raises(FilterError, match="socket buffer"):
            build(rows, direct)
        return
    assert matches(rows, frames, direct) == [interpret(list(rows), frame, len(frame)) != 0 for frame in frames]


def returns_whether_equal(load: tuple[int, int, int, int], value: int) -> Rows:
    """Match frames where a load into A gives `value`, 1 being where a indirect load starts."""
    return [(0x01, 0, 0, 1), load, (0x15, 0, 1, value), (0x06, 0, 0, 1), (0x06, 0, 0, 0)]


@pytest.mark.usefixtures("kernel_bpf")
@pytest.mark.parametrize("mode", [0x20, 0x40], ids=["absolute", "indirect"])
@pytest.mark.parametrize(("size_bits", "size"), [(0x00, 4), (0x08, 2), (0x10, 1)])
@pytest.mark.parametrize("length", [LINEAR_BYTES, 9000, 66000])
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "through the helper"])
def test_loads_reach_into_every_fragment_and_not_beyond(
    mode: int, size_bits: int, size: int, length: int, direct: bool
) -> None:
    frame = random.Random(length).randbytes(length)
    offsets = {*range(LINEAR_BYTES - 5, LINEAR_BYTES + 3), *range(length - 5, length + 2), 4090, 8000}
    offsets |= {*range(65530, 65537)} if length > 65535 else set()
    indirect = mode == 0x40
    for offset in sorted(offsets):
        value = int.from_bytes(frame[offset : offset + size], "big")
        rows = returns_whether_equal((mode | size_bits, 0, 0, offset - indirect), value)
        # bpf_xdp_load_bytes reads from offsets up to 65535, so what lies beyond is out of reach.
        inside = offset + size <= length and offset <= 0xFFFF
        assert matches(rows, [frame], direct) == [inside], offset


@pytest.mark.usefixtures("small_linear_part")
@pytest.mark.parametrize("direct", [True, False], ids=["direct", "through the helper"])
@pytest.mark.parametrize("mode", [0x20, 0x40], ids=["absolute", "indirect"])
def test_loads_across_the_end_of_the_linear_part_are_whole(mode: int, direct: bool) -> None:
    frame = bytes(range(1, 61))
    for size_bits, size in ((0x00, 4), (0x08, 2), (0x10, 1)):
        value = int.from_bytes(frame[40 : 40 + size], "big")
        rows = returns_whether_equal((mode | size_bits, 0, 0, 40 - (mode == 0x40)), value)
        ends = list(range(38, 47))
        assert matches(rows, [frame] * len(ends), direct, ends) == [True] * len(ends)


@pytest.mark.usefixtures("kernel_bpf")
@pytest.mark.parametrize(
    "rows",
    [[(0x30, 0, 0, 23), (0x16, 0, 0, 0)], [(0x01, 0, 0, 20), (0x50, 0, 0, 3), (0x16, 0, 0, 0)]],
    ids=["absolute", "indirect"],
)
def test_load_from_the_linear_part_needs_no_helper(rows: Rows) -> None:
    program = build(rows)
    helper = call(BPF_FUNC_XDP_LOAD_BYTES)
    assert helper in program.instructions
    failing = tuple(mov64_imm(R0, -1) if one == helper else one for one in program.instructions)
    code = replace(program, instructions=failing).link()
    with LoadedProgram.load(code, name="filter", flags=BPF_F_XDP_HAS_FRAGS) as loaded:
        assert loaded.test_run(bytes(23) + b"\1").verdict == XdpAction.XDP_PASS
        assert loaded.test_run(bytes(23)).verdict == XdpAction.XDP_DROP


@pytest.mark.oracle
@needs_libpcap
@pytest.mark.usefixtures("kernel_bpf")
def test_filters_on_frames_in_fragments_match_what_libpcap_matches(real_frames: list[bytes]) -> None:
    chance = random.Random(5)
    frames = [frame + chance.randbytes(9014 - len(frame)) for frame in real_frames[::40]]
    expressions = [
        *("len = 9014", "greater 9014", "less 9013", "ether[len - 1] > 127", "ether[len - 4:4] > 0x7fffffff"),
        *(
            "ether[len - 3:4] > 0",
            "ether[5000:2] > 30000",
            "ether[ether[0:1] + 3500] > 100",
            "udp",
            "vlan or mpls",
        ),
        *("ip[3500 - 14 + (ip[0] & 3):4] > 0x80000000", "tcp[tcpflags] & tcp-ack != 0"),
    ]
    for expression in expressions:
        rows = [tuple(row) for row in compile_filter(expression, 1)]
        assert matches(rows, frames) == libpcap_matches(rows, frames), expression


@pytest.mark.usefixtures("kernel_bpf")
@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(0x00, 0, 0, 7), (0x01, 0, 0, 0), (0x3C, 0, 0, 0), (0x06, 0, 0, 1)], False),
        ([(0x00, 0, 0, 7), (0x01, 0, 0, 0), (0x9C, 0, 0, 0), (0x06, 0, 0, 1)], False),
        ([(0x00, 0, 0, 7), (0x01, 0, 0, 32), (0x6C, 0, 0, 0), (0x16, 0, 0, 0)], False),
        ([(0x00, 0, 0, 7), (0x01, 0, 0, 33), (0x7C, 0, 0, 0), (0x16, 0, 0, 0)], False),
        ([(0x00, 0, 0, 7), (0x64, 0, 0, 32), (0x16, 0, 0, 0)], False),
        ([(0x00, 0, 0, 1), (0x01, 0, 0, 31), (0x6C, 0, 0, 0), (0x16, 0, 0, 0)], True),
        ([(0x00, 0, 0, 0xFFFFFFFF), (0x25, 0, 1, 1), (0x06, 0, 0, 1), (0x06, 0, 0, 0)], True),
        ([(0x60, 0, 0, 9), (0x15, 0, 1, 0), (0x06, 0, 0, 1), (0x06, 0, 0, 0)], True),
        ([(0x01, 0, 0, 0xFFFFFFFF), (0x50, 0, 0, 2), (0x06, 0, 0, 1)], False),
    ],
    ids=[
        *("divide by 0", "remainder by 0", "shift left by 32", "shift right by 33", "constant shift by 32"),
        *(
            "shift left by 31",
            "comparison is unsigned",
            "scratch memory starts zeroed",
            "offset does not wrap",
        ),
    ],
)
def test_corner_of_the_classic_machine(rows: Rows, expected: bool) -> None:
    assert matches(rows, [bytes(60)]) == [expected]


@pytest.mark.usefixtures("kernel_bpf")
def test_msh_takes_four_times_the_low_nibble() -> None:
    rows = [(0xB1, 0, 0, 14), (0x87, 0, 0, 0), (0x15, 0, 1, 60), (0x06, 0, 0, 1), (0x06, 0, 0, 0)]
    assert matches(rows, [bytes(14) + b"\x4f", bytes(14) + b"\x45", bytes(14)]) == [True, False, False]


def test_backward_jump_is_refused() -> None:
    with pytest.raises(FilterError, match="backward"):
        build([(0x00, 0, 0, 0), (0x05, 0, 0, 0xFFFFFFFE), (0x06, 0, 0, 0)])


def test_direction_is_refused_as_the_hook_comes_before_the_socket_buffer() -> None:
    with pytest.raises(FilterError, match=r"socket buffer .* 'inbound' and 'outbound' .* packet_mmap"):
        build(compile_filter("inbound and udp", 1))


def test_jump_out_of_the_program_is_refused() -> None:
    with pytest.raises(FilterError, match="past the end"):
        build([(0x15, 5, 0, 0), (0x06, 0, 0, 0)])


def test_program_longer_than_jumps_reach_is_refused() -> None:
    rows = [(0x30, 0, 0, index % 60) for index in range(4000)]
    with pytest.raises(JumpTooFar, match="too large"):
        build([(0x15, 0, 1, 0), (0x05, 0, 0, len(rows)), *rows, (0x06, 0, 0, 1)])
