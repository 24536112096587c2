"""Validation of classic BPF programs, and compilation of expressions."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from uspcap.bpf import libpcap
from uspcap.bpf.classic import (
    BPF_MAXINSNS,
    INSTRUCTION_DTYPE,
    Instruction,
    as_array,
    compile_filter,
    join_words,
    validate,
)
from uspcap.errors import FilterError

ACCEPT = Instruction(0x06, k=1)

needs_libpcap = pytest.mark.skipif(
    libpcap.cypcap_compiler() is None and libpcap.system_compiler() is None,
    reason="no libpcap to compile filters with",
)


@pytest.mark.parametrize(
    "program",
    [
        [ACCEPT],
        [Instruction(0x16)],
        [Instruction(0x15, 1, 0, 7), ACCEPT, ACCEPT],
        [Instruction(0x05, k=1), ACCEPT, ACCEPT],
        [Instruction(0x02, k=15), ACCEPT],
        [Instruction(0x34, k=1), Instruction(0x3C), Instruction(0x9C), ACCEPT],
        [Instruction(0x15, 255, 255)] + [ACCEPT] * 256,
        [Instruction(0x64, k=32), ACCEPT],
    ],
)
def test_valid_programs_pass(program):
    validate(program)
    validate(as_array(program))


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ([], "at least one instruction"),
        ([Instruction(0x07)], "instruction 0: the last instruction must be a return"),
        ([ACCEPT, Instruction(0x05, k=0)], "instruction 1: jumps past the end by 0"),
        ([Instruction(0x05, k=1), ACCEPT], "instruction 0: jumps past the end by 1"),
        ([Instruction(0x15, 0, 1), ACCEPT], "instruction 0: jumps past the end by 1"),
        ([Instruction(0x3D, 2, 0), ACCEPT, ACCEPT], "instruction 0: jumps past the end by 2"),
        ([Instruction(0x05, k=0xFFFFFFFF), ACCEPT], "instruction 0: jumps backward by 1"),
        ([ACCEPT, Instruction(0x05, k=0xFFFFFFFE), ACCEPT], "instruction 1: jumps backward by 2"),
        ([Instruction(0x60, k=16), ACCEPT], r"instruction 0: scratch memory ends at M\[15\], not M\[16\]"),
        ([Instruction(0x61, k=16), ACCEPT], r"not M\[16\]"),
        ([Instruction(0x02, k=99), ACCEPT], r"not M\[99\]"),
        ([Instruction(0x03, k=0xFFFFFFFF), ACCEPT], r"not M\[4294967295\]"),
        ([Instruction(0x34), ACCEPT], "instruction 0: divides by the constant 0"),
        ([ACCEPT, Instruction(0x94), ACCEPT], "instruction 1: divides by the constant 0"),
        ([Instruction(0x18), ACCEPT], "instruction 0: there is no opcode 0x0018"),
        ([Instruction(0x0E)], "no opcode 0x000e"),
        ([Instruction(0x8C), ACCEPT], "no opcode 0x008c"),
        ([Instruction(0x55, 0, 0), ACCEPT], "no opcode 0x0055"),
        ([Instruction(0xB0), ACCEPT], "no opcode 0x00b0"),
        ([Instruction(0x0100), ACCEPT], "no opcode 0x0100"),
        ([Instruction(0x15, 256), ACCEPT], "instruction 0: .* does not fit"),
        ([Instruction(0x00, k=-1), ACCEPT], "instruction 0: .* does not fit"),
        ([Instruction(0x10000), ACCEPT], "instruction 0: .* does not fit"),
    ],
)
def test_invalid_programs_are_refused_by_instruction(program, message):
    with pytest.raises(FilterError, match=message):
        validate(program)


def test_length_is_bounded_where_asked_for():
    validate([ACCEPT] * BPF_MAXINSNS, maximum_length=BPF_MAXINSNS)
    validate([ACCEPT] * (BPF_MAXINSNS + 1))
    with pytest.raises(FilterError, match="has 4097 instructions, more than the 4096 allowed"):
        validate([ACCEPT] * (BPF_MAXINSNS + 1), maximum_length=BPF_MAXINSNS)


@pytest.mark.parametrize("array", [np.zeros(2), np.zeros((2, 2), INSTRUCTION_DTYPE)])
def test_arrays_of_another_shape_or_type_are_no_programs(array):
    with pytest.raises(FilterError, match="one-dimensional array"):
        validate(array)


def test_words_are_joined_with_blanks():
    assert join_words(["udp", "port 5000", "or", "(arp)"]) == "udp port 5000 or (arp)"
    assert join_words([]) == ""


@pytest.fixture(params=["cypcap", "system"])
def compiler(request, monkeypatch):
    found = {"cypcap": libpcap.cypcap_compiler, "system": libpcap.system_compiler}[request.param]()
    if found is None:
        pytest.skip(f"no libpcap from {request.param}")
    monkeypatch.setattr(libpcap, "find_compiler", lambda: found)
    return found


@pytest.mark.usefixtures("compiler")
class TestCompile:
    def test_gives_the_program_that_libpcap_prints_for_ip(self):
        program = compile_filter("ip", 1)
        expected = [(0x28, 0, 0, 12), (0x15, 0, 1, 0x0800), (0x06, 0, 0, 262144), (0x06, 0, 0, 0)]
        assert list(program) == expected
        assert program.instructions.dtype == INSTRUCTION_DTYPE
        assert (program.expression, program.link_type, len(program)) == ("ip", 1, 4)

    def test_programs_are_read_only(self):
        with pytest.raises(ValueError, match="read-only"):
            compile_filter("ip", 1).instructions["k"] = 0

    def test_an_empty_expression_accepts_everything(self):
        assert list(compile_filter("", 1)) == [(0x06, 0, 0, 262144)]

    def test_snaplen_is_what_a_match_returns(self):
        assert compile_filter("", 1, 96).instructions["k"].tolist() == [96]

    def test_without_the_optimizer_programs_are_longer(self):
        assert len(compile_filter("tcp port 80", 1, optimize=False)) > len(compile_filter("tcp port 80", 1))

    def test_raw_ip_of_files_is_libpcaps_raw_ip(self):
        assert list(compile_filter("udp", 101)) == list(compile_filter("udp", 12))

    def test_ip_broadcast_needs_a_netmask(self):
        with pytest.raises(FilterError, match="netmask not known"):
            compile_filter("ip broadcast", 1)
        assert 0xFF in compile_filter("ip broadcast", 1, netmask=0xFFFFFF00).instructions["k"]

    @pytest.mark.parametrize(
        ("expression", "link_type", "reason"),
        [
            ("udp prt 5000", 1, "syntax error"),
            ("ether host 1:2:3:4:5:6", 101, "ethernet addresses supported only on"),
            ("ip", 147, "filtering not implemented"),
            ("ip", 60000, "unknown data link type 60000"),
            ("tcp and udp", 1, "expression rejects all packets"),
            ("port 70000", 1, "70000"),
            ("ip\0 or arp", 1, "NUL character"),
            ("host \udcff", 1, "no UTF-8 text"),
            ("ip6 protochain 6", 1, "'protochain' needs backward jumps"),
        ],
    )
    def test_refusals_name_the_expression_the_link_type_and_the_reason(self, expression, link_type, reason):
        with pytest.raises(FilterError, match=reason) as caught:
            compile_filter(expression, link_type)
        assert str(caught.value).startswith(f"filter {expression!r} does not compile for link type {link_type}: ")
        assert caught.value.exit_code == 2

    def test_long_expressions_are_cut_in_messages(self):
        with pytest.raises(FilterError) as caught:
            compile_filter("ip or " * 1000, 1)
        assert len(str(caught.value)) < 400

    def test_threads_may_compile_at_once(self):
        expressions = [f"tcp port {port} and host 10.0.0.{port % 256}" for port in range(1, 200)]
        alone = [list(compile_filter(one, 1)) for one in expressions]
        with ThreadPoolExecutor(8) as pool:
            together = [list(program) for program in pool.map(lambda one: compile_filter(one, 1), expressions)]
        assert together == alone

    def test_direction_is_refused_for_files_and_asks_the_socket_buffer_for_live_frames(self):
        assert next(iter(compile_filter("inbound", 1))) == (0x28, 0, 0, 0xFFFFF004)
        with pytest.raises(FilterError, match="when reading savefiles"):
            compile_filter("inbound", 1, file_byte_order="little")

    @pytest.mark.parametrize("link_type", [1, 12, 101, 113, 228, 276])
    @pytest.mark.parametrize("expression", ["udp port 5000", "ip6 or tcp[tcpflags] & tcp-syn != 0", "less 100", ""])
    def test_other_programs_are_the_same_for_files_and_live_frames(self, link_type, expression):
        live = compile_filter(expression, link_type)
        for order in ("little", "big"):
            assert list(compile_filter(expression, link_type, file_byte_order=order)) == list(live)


@needs_libpcap
@pytest.mark.parametrize("snaplen", [0, 1 << 31])
def test_a_snaplen_out_of_range_is_a_programmers_error(snaplen):
    with pytest.raises(ValueError, match="must be from"):
        compile_filter("ip", 1, snaplen)


@pytest.mark.parametrize("link_type", [-1, 65536])
def test_a_link_type_out_of_range_is_refused(link_type):
    with pytest.raises(FilterError, match="go from 0 to 65535"):
        compile_filter("ip", link_type)
