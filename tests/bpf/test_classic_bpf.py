"""The compiled interpreter against an obvious one in Python and against libpcap's."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.classic_bpf_reference import interpret, libpcap_library, pcap_offline_filter
from support.classic_bpf_strategies import CONDITIONAL_JUMPS, WORDS, programs

from uspcap.bpf.classic import INSTRUCTION_DTYPE, OPCODES, as_array, validate
from uspcap.bpf.classic_bpf import ClassicProgram, run
from uspcap.frames import FrameBatch, Interface

LIBRARY = libpcap_library()


@st.composite
def cut_frames(draw):
    """Frames as captured, and their lengths on the wire, which are the same or longer."""
    frames = draw(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
    return frames, [len(frame) + draw(st.sampled_from([0, 0, 1, 1000])) for frame in frames]


def matches(rows, frames, wire_lengths):
    instructions = as_array(rows)
    validate(instructions)
    batch = FrameBatch.from_frames(frames, range(len(frames)), wire_lengths=wire_lengths)
    mask = np.zeros(len(frames), np.uint8)
    accepted = run(ClassicProgram(instructions), batch, mask, 1)
    assert accepted == mask.sum()
    return mask.tolist()


@pytest.mark.thorough
@settings(max_examples=400, deadline=None)
@given(programs(), cut_frames())
@example([(0x30, 0, 0, 0), (0x06, 0, 0, 1)], ([b""], [60]))
@example([(0x00, 0, 0, 1), (0x64, 0, 0, 32), (0x16, 0, 0, 0)], ([b""], [0]))
@example([(0x01, 0, 0, 0xFFFFFFFF), (0x50, 0, 0, 2), (0x06, 0, 0, 1)], ([bytes(4)], [4]))
def test_matches_what_the_python_interpreter_matches(rows, cut):
    frames, wire_lengths = cut
    expected = [int(interpret(rows, frame, wire) != 0) for frame, wire in zip(frames, wire_lengths, strict=True)]
    assert matches(rows, frames, wire_lengths) == expected


@pytest.mark.thorough
@pytest.mark.skipif(LIBRARY is None, reason="no system libpcap to compare with")
@settings(max_examples=400, deadline=None)
@given(programs(wide_constant_shifts=False), cut_frames(), st.lists(WORDS, min_size=16, max_size=16))
def test_matches_what_libpcap_matches(rows, cut, scratch):
    # libpcap before 1.10.6 neither zeroes scratch memory nor defines constant shifts of 32 and more.
    filled = [row for index, word in enumerate(scratch) for row in ((0x00, 0, 0, word), (0x02, 0, 0, index))]
    rows = [*filled, (0x00, 0, 0, 0), *rows]
    frames, wire_lengths = cut
    expected = [
        pcap_offline_filter(LIBRARY, rows, frame, wire) for frame, wire in zip(frames, wire_lengths, strict=True)
    ]
    assert expected == [interpret(rows, frame, wire) for frame, wire in zip(frames, wire_lengths, strict=True)]
    assert matches(rows, frames, wire_lengths) == [int(value != 0) for value in expected]


@pytest.mark.parametrize("code", sorted(OPCODES))
def test_every_opcode_computes_what_the_python_interpreter_computes(code):
    frame = bytes(range(1, 33))
    for a, x, k in ((7, 3, 2), (0xFFFFFFFF, 31, 1), (0, 32, 9), (5, 0, 4), (2, 2, 2)):
        setup = [(0x00, 0, 0, 99), (0x02, 0, 0, k), (0x01, 0, 0, x), (0x00, 0, 0, a)]
        jumps = (1, 2) if code in CONDITIONAL_JUMPS else (0, 0)
        rows = [*setup, (code, *jumps, k)]
        # One bit of a, x and M[k] after another decides, so that every bit is seen.
        rows += [(0x04, 0, 0, 1), (0x04, 0, 0, 2), (0x04, 0, 0, 4)] + [(0x04, 0, 0, 0)] * 8
        rows += [(0x0C, 0, 0, 0), (0x61, 0, 0, k), (0x2C, 0, 0, 0)]
        for bit in range(32):
            tested = [*rows, (0x54, 0, 0, 1 << bit), (0x16, 0, 0, 0)]
            expected = int(interpret(tested, frame, 77) != 0)
            assert matches(tested, [frame], [77]) == [expected], (code, a, x, k, bit)


@pytest.mark.parametrize("load", [0x20, 0x28, 0x30, 0x40, 0x48, 0x50])
@pytest.mark.parametrize("jump", [0x15, 0x25, 0x35, 0x45])
@pytest.mark.parametrize("offset", [0, 1])
def test_every_load_with_every_comparison_behind_it_matches_the_python_interpreter(load, jump, offset):
    frames = [bytes((first, second, 0, second, first)) for first in range(4) for second in range(4)]
    frames += [frame[:cut] for frame in frames[:4] for cut in range(5)]
    wire_lengths = [len(frame) for frame in frames]
    for x in (0, 1):
        for k in (0, 1, 2, 3, 0x100, 0x102, 0x1020001, 0x2000202):
            # What was loaded decides once more after the comparison, so that A is seen too.
            rows = [(0x01, 0, 0, x), (load, 0, 0, offset), (jump, 1, 0, k), (0x04, 0, 0, 1)]
            rows += [(0x54, 0, 0, 0x103), (0x16, 0, 0, 0)]
            expected = [int(interpret(rows, frame, len(frame)) != 0) for frame in frames]
            assert matches(rows, frames, wire_lengths) == expected, (x, k)


def test_a_jump_to_a_comparison_that_was_merged_with_its_load_works():
    rows = [
        (0x30, 0, 0, 0),
        (0x15, 1, 0, 1),  # a first byte of 1 jumps over the next load, to its comparison
        (0x30, 0, 0, 1),
        (0x15, 0, 1, 1),
        (0x06, 0, 0, 1),
        (0x06, 0, 0, 0),
    ]
    assert matches(rows, [b"\1\0", b"\0\1", b"\0\0", b"\1\1"], [2, 2, 2, 2]) == [1, 1, 0, 1]


def test_a_load_that_ends_where_the_captured_bytes_end_is_inside():
    for code, size in ((0x20, 4), (0x28, 2), (0x30, 1)):
        rows = [(code, 0, 0, 3), (0x06, 0, 0, 1)]
        assert matches(rows, [bytes(3 + size), bytes(2 + size)], [100, 100]) == [1, 0]


def test_bytes_of_the_next_frame_are_out_of_reach():
    assert matches([(0x30, 0, 0, 2), (0x06, 0, 0, 1)], [b"ab", b"cde"], [9, 9]) == [0, 1]


def test_the_length_is_that_on_the_wire():
    rows = [(0x80, 0, 0, 0), (0x15, 0, 1, 1500), (0x06, 0, 0, 1), (0x06, 0, 0, 0)]
    assert matches(rows, [b"cut", b"whole"], [1500, 5]) == [1, 0]


def test_rows_of_other_link_types_stay_untouched():
    interfaces = [Interface(link_type=1), Interface(link_type=101), Interface(link_type=1)]
    batch = FrameBatch.from_frames([b"a", b"b", b"c", b"d"], range(4), interfaces=interfaces)
    batch.storage("interface")[:4] = [0, 1, 2, 1]
    mask = np.array([5, 6, 7, 8, 9], np.uint8)
    program = ClassicProgram(as_array([(0x06, 0, 0, 1)]))
    assert run(program, batch, mask, 101) == 2
    assert mask.tolist() == [5, 1, 7, 1, 9]


def test_rejected_rows_stay_untouched():
    batch = FrameBatch.from_frames([b"a"], [0])
    mask = np.array([7], np.uint8)
    assert run(ClassicProgram(as_array([(0x06, 0, 0, 0)])), batch, mask, 1) == 0
    assert mask.tolist() == [7]


def test_a_mask_that_is_too_short_is_refused():
    batch = FrameBatch.from_frames([b"a", b"b"], [0, 1])
    with pytest.raises(ValueError, match="mask has 1 rows, the batch 2"):
        run(ClassicProgram(as_array([(0x06, 0, 0, 1)])), batch, np.zeros(1, np.uint8), 1)


@pytest.mark.parametrize(
    ("column", "value"), [("offset", -1), ("offset", 2), ("captured_length", 0xFFFFFFFF), ("interface", 1)]
)
def test_a_row_outside_the_batch_is_refused_before_it_is_read(column, value):
    batch = FrameBatch.from_frames([b"abc", b"d"], [0, 1])
    batch.storage(column)[0] = value
    with pytest.raises(ValueError, match="row 0"):
        run(ClassicProgram(as_array([(0x30, 0, 0, 0), (0x06, 0, 0, 1)])), batch, np.zeros(2, np.uint8), 1)


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [(0x99, 0, 0, 0), (0x06, 0, 0, 1)],
        [(0x15, 0, 1, 0), (0x06, 0, 0, 1)],
        [(0x05, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 1)],
        [(0x60, 0, 0, 16), (0x06, 0, 0, 1)],
        [(0x06, 0, 0, 1), (0x00, 0, 0, 1)],
    ],
)
def test_the_decoder_itself_refuses_programs_that_could_leave_their_arrays(rows):
    with pytest.raises(ValueError, match=r"instruction|empty"):
        ClassicProgram(np.array(rows, INSTRUCTION_DTYPE))
