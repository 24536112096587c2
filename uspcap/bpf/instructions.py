"""eBPF instructions: the kernel's own names, and the bytes behind them.

Constants are named as in linux/bpf.h and linux/bpf_common.h, encoders as the macros of the kernel's
include/linux/filter.h, in lower case. An instruction is eight bytes (struct bpf_insn)::

     byte 0      byte 1             bytes 2-3    bytes 4-7
    +-----------+---------+--------+------------+---------------------+
    |  opcode   | src_reg | dst_reg|  offset    |  immediate          |
    |  u8       | 4 bits  | 4 bits |  s16       |  s32                |
    +-----------+---------+--------+------------+---------------------+
                 (the two nibbles change places on big-endian hosts)

    opcode of arithmetic and jumps         opcode of loads and stores
     7      4  3   2      0                 7    5  4  3  2      0
    +--------+---+--------+                +------+------+--------+
    |  code  | s | class  |                | mode | size | class  |
    +--------+---+--------+                +------+------+--------+
    s: 0 BPF_K, the immediate; 1 BPF_X, the source register

BPF_LD | BPF_DW | BPF_IMM takes two of these slots; the second one carries the upper half of its value.

References
----------
include/uapi/linux/bpf.h, include/uapi/linux/bpf_common.h, RFC 9669.
"""

from __future__ import annotations

import struct
import sys
from typing import Final, NamedTuple

# Instruction classes, bits 0-2 (linux/bpf_common.h, linux/bpf.h).
BPF_LD: Final = 0x00
BPF_LDX: Final = 0x01
BPF_ST: Final = 0x02
BPF_STX: Final = 0x03
BPF_ALU: Final = 0x04
BPF_JMP: Final = 0x05
BPF_JMP32: Final = 0x06
BPF_ALU64: Final = 0x07

# Sizes of loads and stores, bits 3-4.
BPF_W: Final = 0x00
BPF_H: Final = 0x08
BPF_B: Final = 0x10
BPF_DW: Final = 0x18

# Modes of loads and stores, bits 5-7.
BPF_IMM: Final = 0x00
BPF_MEM: Final = 0x60

# Where the second operand comes from, bit 3.
BPF_K: Final = 0x00
BPF_X: Final = 0x08

# Arithmetic, bits 4-7.
BPF_ADD: Final = 0x00
BPF_SUB: Final = 0x10
BPF_MUL: Final = 0x20
BPF_DIV: Final = 0x30
BPF_OR: Final = 0x40
BPF_AND: Final = 0x50
BPF_LSH: Final = 0x60
BPF_RSH: Final = 0x70
BPF_NEG: Final = 0x80
BPF_MOD: Final = 0x90
BPF_XOR: Final = 0xA0
BPF_MOV: Final = 0xB0
BPF_ARSH: Final = 0xC0
BPF_END: Final = 0xD0
BPF_TO_LE: Final = 0x00
BPF_TO_BE: Final = 0x08

# Jumps, bits 4-7.
BPF_JA: Final = 0x00
BPF_JEQ: Final = 0x10
BPF_JGT: Final = 0x20
BPF_JGE: Final = 0x30
BPF_JSET: Final = 0x40
BPF_JNE: Final = 0x50
BPF_JSGT: Final = 0x60
BPF_JSGE: Final = 0x70
BPF_CALL: Final = 0x80
BPF_EXIT: Final = 0x90
BPF_JLT: Final = 0xA0
BPF_JLE: Final = 0xB0

# What the source register of a BPF_CALL or of a 64-bit immediate says about its value (linux/bpf.h).
BPF_PSEUDO_MAP_FD: Final = 1
BPF_PSEUDO_KFUNC_CALL: Final = 2

# Registers: R0 result, R1-R5 arguments (lost in calls), R6-R9 kept, R10 frame pointer.
R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = range(11)

SIZE_IN_BYTES: Final = {BPF_B: 1, BPF_H: 2, BPF_W: 4, BPF_DW: 8}

_SLOT: Final = struct.Struct("=BBhI")


class Instruction(NamedTuple):
    """One eBPF instruction.

    Attributes
    ----------
    opcode : int
        As drawn at the top of this module.
    destination, source : int
        Registers, 0-10.
    offset : int
        -32768 to 32767: bytes for memory accesses, instruction slots for jumps.
    immediate : int
        -2**31 to 2**32 - 1; for a 64-bit immediate -2**63 to 2**64 - 1.
    """

    opcode: int
    destination: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0

    @property
    def slots(self) -> int:
        """Number of eight-byte slots: 2 for a 64-bit immediate, else 1."""
        return 2 if self.opcode == BPF_LD | BPF_DW | BPF_IMM else 1

    def encode(self) -> bytes:
        """Return the instruction as the kernel takes it, in the byte order of this host.

        Raises
        ------
        ValueError
            A register, offset or immediate is out of range.
        """
        if not (0 <= self.destination <= 10 and 0 <= self.source <= 10):
            raise ValueError(f"{self}: eBPF has registers 0 to 10")
        if not -0x8000 <= self.offset <= 0x7FFF:
            raise ValueError(f"{self}: the offset does not fit into 16 bits")
        width = 32 * self.slots
        if not -(1 << (width - 1)) <= self.immediate < 1 << width:
            raise ValueError(f"{self}: the immediate does not fit into {width} bits")
        if sys.byteorder == "little":
            registers = self.destination | self.source << 4
        else:
            registers = self.destination << 4 | self.source
        first = _SLOT.pack(self.opcode, registers, self.offset, self.immediate & 0xFFFFFFFF)
        if self.slots == 1:
            return first
        return first + _SLOT.pack(0, 0, 0, self.immediate >> 32 & 0xFFFFFFFF)


def alu64_reg(operation: int, destination: int, source: int) -> Instruction:
    """`destination = destination operation source`, 64 bits wide."""
    return Instruction(BPF_ALU64 | operation | BPF_X, destination, source)


def alu64_imm(operation: int, destination: int, immediate: int) -> Instruction:
    """`destination = destination operation immediate`, which is sign-extended to 64 bits."""
    return Instruction(BPF_ALU64 | operation | BPF_K, destination, immediate=immediate)


def alu32_reg(operation: int, destination: int, source: int) -> Instruction:
    """`destination = destination operation source` on the lower 32 bits; the upper ones become 0."""
    return Instruction(BPF_ALU | operation | BPF_X, destination, source)


def alu32_imm(operation: int, destination: int, immediate: int) -> Instruction:
    """`destination = destination operation immediate` on the lower 32 bits; the upper ones become 0."""
    return Instruction(BPF_ALU | operation | BPF_K, destination, immediate=immediate)


def mov64_reg(destination: int, source: int) -> Instruction:
    """`destination = source`."""
    return alu64_reg(BPF_MOV, destination, source)


def mov64_imm(destination: int, immediate: int) -> Instruction:
    """`destination = immediate`, sign-extended."""
    return alu64_imm(BPF_MOV, destination, immediate)


def mov32_reg(destination: int, source: int) -> Instruction:
    """`destination = source & 0xffffffff`."""
    return alu32_reg(BPF_MOV, destination, source)


def mov32_imm(destination: int, immediate: int) -> Instruction:
    """`destination = immediate`, zero-extended."""
    return alu32_imm(BPF_MOV, destination, immediate)


def endian(direction: int, destination: int, bits: int) -> Instruction:
    """Convert the lower 16, 32 or 64 bits to BPF_TO_LE or BPF_TO_BE; those above become 0."""
    return Instruction(BPF_ALU | BPF_END | direction, destination, immediate=bits)


def ldx_mem(size: int, destination: int, source: int, offset: int) -> Instruction:
    """`destination = *(size *)(source + offset)`, zero-extended."""
    return Instruction(BPF_LDX | size | BPF_MEM, destination, source, offset)


def stx_mem(size: int, destination: int, source: int, offset: int) -> Instruction:
    """`*(size *)(destination + offset) = source`."""
    return Instruction(BPF_STX | size | BPF_MEM, destination, source, offset)


def st_mem(size: int, destination: int, offset: int, immediate: int) -> Instruction:
    """`*(size *)(destination + offset) = immediate`, sign-extended where the size is 64 bits."""
    return Instruction(BPF_ST | size | BPF_MEM, destination, 0, offset, immediate)


def ld_imm64(destination: int, value: int) -> Instruction:
    """`destination = value`, all 64 bits."""
    return Instruction(BPF_LD | BPF_DW | BPF_IMM, destination, immediate=value)


def ld_map_fd(destination: int, file_descriptor: int) -> Instruction:
    """`destination = the map behind a file descriptor`; the kernel puts its address there on load."""
    return Instruction(BPF_LD | BPF_DW | BPF_IMM, destination, BPF_PSEUDO_MAP_FD, immediate=file_descriptor)


def jmp_reg(condition: int, destination: int, source: int, offset: int) -> Instruction:
    """`if destination condition source: skip offset slots`, comparing 64 bits."""
    return Instruction(BPF_JMP | condition | BPF_X, destination, source, offset)


def jmp_imm(condition: int, destination: int, immediate: int, offset: int) -> Instruction:
    """`if destination condition immediate: skip offset slots`; the immediate is sign-extended."""
    return Instruction(BPF_JMP | condition | BPF_K, destination, 0, offset, immediate)


def jmp32_reg(condition: int, destination: int, source: int, offset: int) -> Instruction:
    """`if destination condition source: skip offset slots`, comparing the lower 32 bits."""
    return Instruction(BPF_JMP32 | condition | BPF_X, destination, source, offset)


def jmp32_imm(condition: int, destination: int, immediate: int, offset: int) -> Instruction:
    """`if destination condition immediate: skip offset slots`, comparing the lower 32 bits."""
    return Instruction(BPF_JMP32 | condition | BPF_K, destination, 0, offset, immediate)


def jmp_a(offset: int) -> Instruction:
    """Skip `offset` slots."""
    return Instruction(BPF_JMP | BPF_JA, offset=offset)


def call(helper: int) -> Instruction:
    """Call a helper by its number, BPF_FUNC_… of linux/bpf.h."""
    return Instruction(BPF_JMP | BPF_CALL, immediate=helper)


def call_kfunc(btf_id: int) -> Instruction:
    """Call a function of the kernel by its id in vmlinux' BTF."""
    return Instruction(BPF_JMP | BPF_CALL, source=BPF_PSEUDO_KFUNC_CALL, immediate=btf_id)


def exit_insn() -> Instruction:
    """Return R0."""
    return Instruction(BPF_JMP | BPF_EXIT)
