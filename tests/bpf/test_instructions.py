import struct
import sys

import pytest

from uspcap.bpf import instructions as ebpf
from uspcap.bpf.instructions import R0, R1, R2, R3, R6, R10, Instruction

pytestmark = pytest.mark.skipif(sys.byteorder != "little", reason="the table holds little-endian encodings")

# Written from RFC 9669; the disassembly by bpf-objdump of GNU binutils 2.40 names the same instructions.
TABLE = [
    ("r1 += r2", ebpf.alu64_reg(ebpf.BPF_ADD, R1, R2), "0f21000000000000"),
    ("r1 -= 1", ebpf.alu64_imm(ebpf.BPF_SUB, R1, 1), "1701000001000000"),
    ("r3 += -72", ebpf.alu64_imm(ebpf.BPF_ADD, R3, -72), "07030000b8ffffff"),
    ("w1 *= w2", ebpf.alu32_reg(ebpf.BPF_MUL, R1, R2), "2c21000000000000"),
    ("w1 /= 3", ebpf.alu32_imm(ebpf.BPF_DIV, R1, 3), "3401000003000000"),
    ("w1 |= 0xffffffff", ebpf.alu32_imm(ebpf.BPF_OR, R1, 0xFFFFFFFF), "44010000ffffffff"),
    ("w1 &= 0xf", ebpf.alu32_imm(ebpf.BPF_AND, R1, 0xF), "540100000f000000"),
    ("w1 <<= 2", ebpf.alu32_imm(ebpf.BPF_LSH, R1, 2), "6401000002000000"),
    ("w1 >>= w2", ebpf.alu32_reg(ebpf.BPF_RSH, R1, R2), "7c21000000000000"),
    ("w1 = -w1", ebpf.alu32_imm(ebpf.BPF_NEG, R1, 0), "8401000000000000"),
    ("w1 %= w2", ebpf.alu32_reg(ebpf.BPF_MOD, R1, R2), "9c21000000000000"),
    ("w1 ^= w2", ebpf.alu32_reg(ebpf.BPF_XOR, R1, R2), "ac21000000000000"),
    ("r1 s>>= 4", ebpf.alu64_imm(ebpf.BPF_ARSH, R1, 4), "c701000004000000"),
    ("r6 = r1", ebpf.mov64_reg(R6, R1), "bf16000000000000"),
    ("r0 = 2", ebpf.mov64_imm(R0, 2), "b700000002000000"),
    ("w6 = w1", ebpf.mov32_reg(R6, R1), "bc16000000000000"),
    ("w0 = 2", ebpf.mov32_imm(R0, 2), "b400000002000000"),
    ("r1 = be16 r1", ebpf.endian(ebpf.BPF_TO_BE, R1, 16), "dc01000010000000"),
    ("r1 = le64 r1", ebpf.endian(ebpf.BPF_TO_LE, R1, 64), "d401000040000000"),
    ("r2 = *(u8 *)(r1 + 9)", ebpf.ldx_mem(ebpf.BPF_B, R2, R1, 9), "7112090000000000"),
    ("r2 = *(u16 *)(r1 + 12)", ebpf.ldx_mem(ebpf.BPF_H, R2, R1, 12), "69120c0000000000"),
    ("r2 = *(u32 *)(r1 - 4)", ebpf.ldx_mem(ebpf.BPF_W, R2, R1, -4), "6112fcff00000000"),
    ("r2 = *(u64 *)(r10 - 16)", ebpf.ldx_mem(ebpf.BPF_DW, R2, R10, -16), "79a2f0ff00000000"),
    ("*(u32 *)(r10 - 4) = r1", ebpf.stx_mem(ebpf.BPF_W, R10, R1, -4), "631afcff00000000"),
    ("*(u64 *)(r10 - 8) = -1", ebpf.st_mem(ebpf.BPF_DW, R10, -8, -1), "7a0af8ffffffffff"),
    ("r1 = 0x1122334455667788 ll", ebpf.ld_imm64(R1, 0x1122334455667788), "18010000887766550000000044332211"),
    ("r1 = map fd 7", ebpf.ld_map_fd(R1, 7), "18110000070000000000000000000000"),
    ("if r1 > r2 goto +5", ebpf.jmp_reg(ebpf.BPF_JGT, R1, R2, 5), "2d21050000000000"),
    ("if r0 == 0 goto +1", ebpf.jmp_imm(ebpf.BPF_JEQ, R0, 0, 1), "1500010000000000"),
    ("if w1 >= w2 goto +5", ebpf.jmp32_reg(ebpf.BPF_JGE, R1, R2, 5), "3e21050000000000"),
    ("if w1 & 0x80000000 goto -2", ebpf.jmp32_imm(ebpf.BPF_JSET, R1, 0x80000000, -2), "4601feff00000080"),
    ("if w1 != 6 goto +1", ebpf.jmp32_imm(ebpf.BPF_JNE, R1, 6, 1), "5601010006000000"),
    ("if w1 < 6 goto +1", ebpf.jmp32_imm(ebpf.BPF_JLT, R1, 6, 1), "a601010006000000"),
    ("if w1 <= 6 goto +1", ebpf.jmp32_imm(ebpf.BPF_JLE, R1, 6, 1), "b601010006000000"),
    ("if r1 s> -1 goto +1", ebpf.jmp_imm(ebpf.BPF_JSGT, R1, -1, 1), "65010100ffffffff"),
    ("if r1 s>= r2 goto +1", ebpf.jmp_reg(ebpf.BPF_JSGE, R1, R2, 1), "7d21010000000000"),
    ("goto +300", ebpf.jmp_a(300), "05002c0100000000"),
    ("call 51", ebpf.call(51), "8500000033000000"),
    ("call kernel function 66152", ebpf.call_kfunc(66152), "8520000068020100"),
    ("exit", ebpf.exit_insn(), "9500000000000000"),
]


@pytest.mark.parametrize(("name", "built", "expected"), TABLE, ids=[row[0] for row in TABLE])
def test_instruction_encodes_as_the_kernel_reads_it(name: str, built: Instruction, expected: str) -> None:
    assert built.encode().hex() == expected


@pytest.mark.parametrize(
    "wrong",
    [
        Instruction(0x07, destination=11),
        Instruction(0x0F, source=-1),
        Instruction(0x05, offset=0x8000),
        Instruction(0x05, offset=-0x8001),
        Instruction(0x07, immediate=1 << 32),
        Instruction(0x07, immediate=-(1 << 31) - 1),
        Instruction(0x18, immediate=1 << 64),
    ],
)
def test_value_out_of_range_is_refused_and_not_cut(wrong: Instruction) -> None:
    with pytest.raises(ValueError, match=r"registers 0 to 10|does not fit"):
        wrong.encode()


def test_slots_are_the_encoded_length_in_units_of_eight_bytes() -> None:
    for _, built, _ in TABLE:
        assert built.slots * 8 == len(built.encode())


def test_encoding_agrees_with_struct_bpf_insn() -> None:
    opcode, registers, offset, immediate = struct.unpack("<BBhi", ebpf.stx_mem(ebpf.BPF_B, R3, R6, -9).encode())
    assert (opcode, registers & 0xF, registers >> 4, offset, immediate) == (0x73, 3, 6, -9, 0)
