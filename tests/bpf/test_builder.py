import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.bpf.builder import JUMP_REACH_SLOTS, Builder, JumpTooFar
from uspcap.bpf.instructions import (
    BPF_JEQ,
    R0,
    R1,
    R2,
    call_kfunc,
    exit_insn,
    jmp32_imm,
    jmp_a,
    jmp_reg,
    ld_imm64,
    ld_map_fd,
    mov64_imm,
)


def test_jumps_go_to_their_labels_forward_and_backward() -> None:
    builder = Builder()
    start, end = builder.label(), builder.label()
    builder.place(start)
    builder.jump_if(BPF_JEQ, R1, end, immediate=5)
    builder.jump_if(BPF_JEQ, R1, start, source=R2, wide=True)
    builder.jump(start)
    builder.place(end)
    builder.add(exit_insn())
    assert builder.build().instructions == (
        jmp32_imm(BPF_JEQ, R1, 5, 2),
        jmp_reg(BPF_JEQ, R1, R2, -2),
        jmp_a(-3),
        exit_insn(),
    )


def test_jump_counts_both_slots_of_a_64_bit_immediate() -> None:
    builder = Builder()
    end = builder.label()
    builder.jump_if(BPF_JEQ, R1, end, immediate=0)
    builder.add(ld_imm64(R0, 1))
    builder.place(end)
    builder.add(exit_insn())
    program = builder.build()
    assert program.instructions[0].offset == 2
    assert program.slots == 4 == len(program.link()) // 8


def test_unreachable_code_is_left_out() -> None:
    builder = Builder()
    end, never = builder.label(), builder.label()
    builder.jump(end)
    builder.place(never)
    builder.add(mov64_imm(R0, 1))
    builder.jump(never)
    builder.place(end)
    builder.add(exit_insn())
    assert builder.build().instructions == (jmp_a(0), exit_insn())


def fill(distance: int) -> Builder:
    """Return a builder whose first instruction jumps over `distance` slots."""
    builder = Builder()
    end = builder.label()
    builder.jump_if(BPF_JEQ, R1, end, immediate=0)
    builder.add(*[mov64_imm(R0, 0)] * distance)
    builder.place(end)
    builder.add(exit_insn())
    return builder


def test_longest_jump_is_built() -> None:
    assert fill(JUMP_REACH_SLOTS).build().instructions[0].offset == 32767


def test_jump_beyond_16_bits_is_refused() -> None:
    with pytest.raises(JumpTooFar, match=r"instruction 0 jumps over 32768 .* too large"):
        fill(JUMP_REACH_SLOTS + 1).build()


def test_program_that_can_run_past_its_end_is_refused() -> None:
    builder = Builder()
    builder.add(mov64_imm(R0, 0))
    with pytest.raises(ValueError, match="past its last instruction"):
        builder.build()
    with pytest.raises(ValueError, match="past its last instruction"):
        Builder().build()


def test_label_must_be_placed_exactly_once() -> None:
    builder = Builder()
    label = builder.label()
    builder.jump(label)
    with pytest.raises(ValueError, match="never placed"):
        builder.build()
    builder.place(label)
    with pytest.raises(ValueError, match="already placed"):
        builder.place(label)


def test_bare_jump_and_ambiguous_comparison_are_refused() -> None:
    builder = Builder()
    with pytest.raises(ValueError, match="take a label"):
        builder.add(jmp_a(1))
    with pytest.raises(ValueError, match="immediate or with a register"):
        builder.jump_if(BPF_JEQ, R1, builder.label())
    with pytest.raises(ValueError, match="immediate or with a register"):
        builder.jump_if(BPF_JEQ, R1, builder.label(), immediate=1, source=R2)


def test_names_become_file_descriptors_and_btf_ids_only_when_linked() -> None:
    builder = Builder()
    builder.load_map(R1, "counts")
    builder.call_kernel_function("timestamp")
    builder.add(exit_insn())
    program = builder.build()
    assert program.maps == ((0, "counts"),)
    assert program.kernel_functions == ((1, "timestamp"),)
    linked = program.link({"counts": 9}, {"timestamp": 77})
    assert linked == ld_map_fd(R1, 9).encode() + call_kfunc(77).encode() + exit_insn().encode()
    with pytest.raises(KeyError, match="counts"):
        program.link({}, {"timestamp": 77})


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 30)), min_size=1, max_size=30))
def test_every_jump_lands_where_its_label_was_placed(plan: list[tuple[int, int]]) -> None:
    """Instruction i carries i as its immediate, so that targets can be recognised after the build."""
    builder = Builder()
    labels = [builder.label() for _ in range(len(plan) + 1)]
    targets = {}
    for index, (kind, target) in enumerate(plan):
        builder.place(labels[index])
        if kind == 0:
            builder.add(mov64_imm(R0, index))
        elif kind == 1:
            builder.add(ld_imm64(R0, index))
        else:
            targets[index] = target % len(labels)
            builder.jump_if(BPF_JEQ, R1, labels[targets[index]], immediate=index)
    builder.place(labels[-1])
    builder.add(exit_insn())
    instructions = builder.build().instructions
    slots: dict[int, int] = {}
    position = 0
    for index, instruction in enumerate(instructions):
        slots[position] = index
        position += instruction.slots
    position = 0
    for index, instruction in enumerate(instructions):
        if index in targets:
            assert slots[position + 1 + instruction.offset] == targets[index]
        position += instruction.slots
