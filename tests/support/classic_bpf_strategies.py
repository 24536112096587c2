"""Random valid classic BPF programs, for hypothesis."""

from hypothesis import strategies as st

from uspcap.bpf.classic import OPCODES

CONDITIONAL_JUMPS = {code for code in OPCODES if code & 0x07 == 5} - {0x05}
SCRATCH = {0x60, 0x61, 0x02, 0x03}
FRAME_LOADS = {code for code in OPCODES if code & 0x07 in (0, 1) and code & 0xE0 in (0x20, 0x40, 0xA0)}
CONSTANT_DIVISIONS = {0x34, 0x94}
CONSTANT_SHIFTS = {0x64, 0x74}
RETURNS = {0x06, 0x16}
WORDS = st.one_of(
    st.integers(0, 40),
    st.sampled_from([255, 256, 0x0800, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFF000, 0xFFFFF02C, 0xFFFFFFFF]),
    st.integers(0, 0xFFFFFFFF),
)
OFFSETS = st.one_of(st.integers(0, 24), st.integers(0, 24), WORDS)


@st.composite
def programs(draw, wide_constant_shifts=True):
    """Any valid program; long ones mostly fall through to their end."""
    length = draw(st.integers(1, 24))
    rows = []
    for index in range(length):
        room = length - index - 2
        if index == length - 1:
            choice = RETURNS
        elif room < 0:
            choice = OPCODES - CONDITIONAL_JUMPS - {0x05}
        else:
            # Most early returns would leave nothing to test.
            choice = OPCODES - RETURNS if draw(st.integers(0, 9)) else OPCODES
        code = draw(st.sampled_from(sorted(choice)))
        jump_true = jump_false = 0
        if code in CONDITIONAL_JUMPS:
            jump_true = draw(st.integers(0, min(room, 255)))
            jump_false = draw(st.integers(0, min(room, 255)))
            k = draw(WORDS)
        elif code == 0x05:
            k = draw(st.integers(0, room))
        elif code in SCRATCH:
            k = draw(st.integers(0, 15))
        elif code in FRAME_LOADS:
            k = draw(OFFSETS)
        elif code in CONSTANT_DIVISIONS:
            k = draw(WORDS.filter(bool))
        elif code in CONSTANT_SHIFTS:
            k = draw(st.integers(0, 40 if wide_constant_shifts else 31))
        else:
            k = draw(WORDS)
        rows.append((code, jump_true, jump_false, k))
    return rows
