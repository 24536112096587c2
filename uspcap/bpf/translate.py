"""Translate classic BPF, as libpcap compiles filters, to eBPF that reads a frame at the XDP hook.

Registers of the classic machine: A is R7 and X is R8, 32 bits each, their upper halves always 0; M[0] to
M[15] lie on the stack. R6 holds the context (struct xdp_md) and R9 is left to the caller.

Stack, from the frame pointer down::

    -64 … -1     M[0] … M[15], four bytes each
    -72 … -65    where bpf_xdp_load_bytes puts what it reads

A load compares with data_end first and reads the frame's memory directly. What lies beyond goes to
bpf_xdp_load_bytes, which reaches the other fragments of a multi-buffer frame, out of line after the
program; outside of the frame, the frame does not match. No pointer into the frame is kept between two
loads, so the verifier's states of different ways to the same instruction are alike and it prunes them.

The meaning is that of libpcap's bpf_filter with the whole frame captured: division by zero does not
match, shifts of more than 31 bits give 0, an indirect offset is added without wrapping, scratch memory
starts zeroed.

References
----------
libpcap bpf_filter.c; linux/filter.h; kernel/bpf/verifier.c, find_good_pkt_pointers, for MAX_PACKET_OFF.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from uspcap.bpf import classic
from uspcap.bpf import instructions as ebpf
from uspcap.bpf.builder import Builder, Label
from uspcap.bpf.instructions import R0, R1, R2, R3, R4, R6, R7, R8, R10
from uspcap.errors import FilterError

CONTEXT: Final = R6
"""Register that must hold the struct xdp_md when the filter starts, and still does afterwards."""

STACK_BYTES: Final = 72
"""Stack that a translated filter uses, down from the frame pointer."""

# Byte offsets in struct xdp_md of linux/bpf.h.
XDP_MD_DATA: Final = 0
XDP_MD_DATA_END: Final = 4

# enum bpf_func_id of linux/bpf.h; both are of Linux 5.18.
BPF_FUNC_XDP_GET_BUFF_LEN: Final = 188
BPF_FUNC_XDP_LOAD_BYTES: Final = 189

MAX_PACKET_OFFSET: Final = 0xFFFF
"""Farthest that the verifier lets a pointer into a frame go, and that bpf_xdp_load_bytes reads from."""

SKF_LL_OFF: Final = 0xFFE00000
"""Lowest offset, as an unsigned number, that asks for the kernel's socket buffer (linux/filter.h)."""

_A: Final = R7
_X: Final = R8
_SCRATCH_START: Final = -64
_LOAD_BUFFER: Final = -72

_INVERSE: Final = {
    ebpf.BPF_JEQ: ebpf.BPF_JNE,
    ebpf.BPF_JGT: ebpf.BPF_JLE,
    ebpf.BPF_JGE: ebpf.BPF_JLT,
}


@dataclass(frozen=True, slots=True)
class _FarLoad:
    """A load through bpf_xdp_load_bytes, written after the program.

    Attributes
    ----------
    entry, back : Label
        Where the direct load jumps when the linear part is too short, and where it goes on.
    offset : int or None
        Byte offset in the frame; None where R3 holds it.
    """

    entry: Label
    back: Label
    offset: int | None
    size: int
    destination: int


def translate(
    builder: Builder,
    program: Iterable[tuple[int, int, int, int]],
    *,
    accept: Label,
    reject: Label,
    direct_indirect_loads: bool = True,
) -> None:
    """Append a filter to a program under construction.

    Parameters
    ----------
    builder : Builder
        Control must come in at its end, with the context in R6.
    program : iterable of (code, jt, jf, k)
        Classic instructions, such as `classic.Program`.
    accept, reject : Label
        Where the filter goes with a frame that matches, or does not. R6 and R9 are as before; R0 to R5,
        R7, R8 and `STACK_BYTES` of stack are not.
    direct_indirect_loads : bool
        Add offsets that the frame itself holds to a pointer into the frame. Who loads the program needs
        CAP_PERFMON for that, as the verifier cannot guard it against speculation; without, such loads
        take bpf_xdp_load_bytes, which is slower and means the same.

    Raises
    ------
    FilterError
        The program is not valid, jumps backwards (`protochain`), or asks for the kernel's socket buffer.

    Notes
    -----
    Jumps of eBPF reach 32,767 slots; `Builder.build` raises `JumpTooFar` for a filter of several
    thousand classic instructions.
    """
    instructions = [classic.Instruction._make(instruction) for instruction in program]
    classic.validate(instructions)
    _Translation(builder, instructions, accept, reject, direct_indirect_loads).run()


class _Translation:
    """One run of `translate`."""

    def __init__(
        self,
        builder: Builder,
        instructions: list[classic.Instruction],
        accept: Label,
        reject: Label,
        direct_indirect_loads: bool,
    ) -> None:
        self.builder = builder
        self.instructions = instructions
        self.accept = accept
        self.reject = reject
        self.direct_indirect_loads = direct_indirect_loads
        self.labels = [builder.label() for _ in instructions]
        self.far_loads: list[_FarLoad] = []

    def run(self) -> None:
        self.builder.add(ebpf.mov32_imm(_A, 0), ebpf.mov32_imm(_X, 0))
        memory_loads = (classic.BPF_LD | classic.BPF_MEM, classic.BPF_LDX | classic.BPF_MEM)
        for word in sorted({instruction.k for instruction in self.instructions if instruction.code in memory_loads}):
            self.builder.add(ebpf.st_mem(ebpf.BPF_W, R10, _SCRATCH_START + 4 * word, 0))
        for index, instruction in enumerate(self.instructions):
            self.builder.place(self.labels[index])
            self._one(index, instruction)
        for far_load in self.far_loads:
            self._far_load(far_load)

    def _one(self, index: int, instruction: classic.Instruction) -> None:
        instruction_class = instruction.code & 0x07
        if instruction_class == classic.BPF_LD:
            self._load(index, instruction, _A)
        elif instruction_class == classic.BPF_LDX:
            self._load(index, instruction, _X)
        elif instruction_class in (classic.BPF_ST, classic.BPF_STX):
            register = _A if instruction_class == classic.BPF_ST else _X
            self.builder.add(ebpf.stx_mem(ebpf.BPF_W, R10, register, _SCRATCH_START + 4 * instruction.k))
        elif instruction_class == classic.BPF_ALU:
            self._arithmetic(instruction)
        elif instruction_class == classic.BPF_JMP:
            self._jump(index, instruction)
        elif instruction_class == classic.BPF_RET:
            self._return(instruction)
        elif instruction.code == classic.BPF_MISC | classic.BPF_TAX:
            self.builder.add(ebpf.mov32_reg(_X, _A))
        else:
            self.builder.add(ebpf.mov32_reg(_A, _X))

    def _load(self, index: int, instruction: classic.Instruction, destination: int) -> None:
        mode = instruction.code & 0xE0
        if mode == classic.BPF_IMM:
            self.builder.add(ebpf.mov32_imm(destination, instruction.k))
        elif mode == classic.BPF_MEM:
            offset = _SCRATCH_START + 4 * instruction.k
            self.builder.add(ebpf.ldx_mem(ebpf.BPF_W, destination, R10, offset))
        elif mode == classic.BPF_LEN:
            self.builder.add(
                ebpf.mov64_reg(R1, CONTEXT),
                ebpf.call(BPF_FUNC_XDP_GET_BUFF_LEN),
                ebpf.mov32_reg(destination, R0),
            )
        else:
            self._load_from_frame(index, instruction, destination)

    def _load_from_frame(self, index: int, instruction: classic.Instruction, destination: int) -> None:
        builder = self.builder
        mode = instruction.code & 0xE0
        # The size bits of classic and extended BPF are the same.
        size = instruction.code & 0x18
        length = ebpf.SIZE_IN_BYTES[size]
        indirect = mode == classic.BPF_IND
        if instruction.k >= SKF_LL_OFF and mode == classic.BPF_ABS:
            raise FilterError(
                f"instruction {index}: asks for the kernel's socket buffer (offset {instruction.k:#x}), as "
                "'inbound' and 'outbound' do, and the XDP hook comes before it, when all frames are inbound: "
                "leave that out, or use the packet_mmap backend"
            )
        if instruction.k > MAX_PACKET_OFFSET:
            builder.jump(self.reject)
            return
        entry, back = builder.label(), builder.label()
        self.far_loads.append(_FarLoad(entry, back, None if indirect else instruction.k, size, destination))
        if indirect:
            direct = self.direct_indirect_loads
            builder.add(ebpf.mov64_reg(R3, _X), ebpf.alu64_imm(ebpf.BPF_ADD, R3, instruction.k))
        else:
            direct = instruction.k + length <= MAX_PACKET_OFFSET
        if not direct:
            builder.jump(entry)
        else:
            if indirect:
                builder.jump_if(ebpf.BPF_JGT, R3, entry, immediate=MAX_PACKET_OFFSET - length, wide=True)
            builder.add(
                ebpf.ldx_mem(ebpf.BPF_W, R1, CONTEXT, XDP_MD_DATA),
                ebpf.ldx_mem(ebpf.BPF_W, R2, CONTEXT, XDP_MD_DATA_END),
            )
            if indirect:
                builder.add(ebpf.alu64_reg(ebpf.BPF_ADD, R1, R3))
            builder.add(ebpf.alu64_imm(ebpf.BPF_ADD, R1, length + (0 if indirect else instruction.k)))
            builder.jump_if(ebpf.BPF_JGT, R1, entry, source=R2, wide=True)
            builder.add(ebpf.ldx_mem(size, destination, R1, -length))
        builder.place(back)
        if length > 1:
            builder.add(ebpf.endian(ebpf.BPF_TO_BE, destination, 8 * length))
        if mode == classic.BPF_MSH:
            builder.add(
                ebpf.alu32_imm(ebpf.BPF_AND, destination, 0x0F),
                ebpf.alu32_imm(ebpf.BPF_LSH, destination, 2),
            )

    def _far_load(self, load: _FarLoad) -> None:
        builder = self.builder
        builder.place(load.entry)
        if load.offset is None:
            # The helper takes 32 bits of an offset that may have more.
            builder.jump_if(ebpf.BPF_JGT, R3, self.reject, immediate=MAX_PACKET_OFFSET, wide=True)
            builder.add(ebpf.mov64_reg(R2, R3))
        else:
            builder.add(ebpf.mov32_imm(R2, load.offset))
        builder.add(
            ebpf.mov64_reg(R1, CONTEXT),
            ebpf.mov64_reg(R3, R10),
            ebpf.alu64_imm(ebpf.BPF_ADD, R3, _LOAD_BUFFER),
            ebpf.mov32_imm(R4, ebpf.SIZE_IN_BYTES[load.size]),
            ebpf.call(BPF_FUNC_XDP_LOAD_BYTES),
        )
        builder.jump_if(ebpf.BPF_JNE, R0, self.reject, immediate=0, wide=True)
        builder.add(ebpf.ldx_mem(load.size, load.destination, R10, _LOAD_BUFFER))
        builder.jump(load.back)

    def _arithmetic(self, instruction: classic.Instruction) -> None:
        builder = self.builder
        # The operation bits of classic and extended BPF are the same.
        operation = instruction.code & 0xF0
        if operation == classic.BPF_NEG:
            builder.add(ebpf.alu32_imm(ebpf.BPF_NEG, _A, 0))
            return
        shifts = operation in (classic.BPF_LSH, classic.BPF_RSH)
        if not instruction.code & classic.BPF_X:
            if shifts and instruction.k > 31:
                builder.add(ebpf.mov32_imm(_A, 0))
            else:
                builder.add(ebpf.alu32_imm(operation, _A, instruction.k))
            return
        if operation in (classic.BPF_DIV, classic.BPF_MOD):
            builder.jump_if(ebpf.BPF_JEQ, _X, self.reject, immediate=0)
        if shifts:
            # eBPF takes the lowest five bits of the count.
            in_range, done = builder.label(), builder.label()
            builder.jump_if(ebpf.BPF_JLE, _X, in_range, immediate=31)
            builder.add(ebpf.mov32_imm(_A, 0))
            builder.jump(done)
            builder.place(in_range)
            builder.add(ebpf.alu32_reg(operation, _A, _X))
            builder.place(done)
        else:
            builder.add(ebpf.alu32_reg(operation, _A, _X))

    def _jump(self, index: int, instruction: classic.Instruction) -> None:
        builder = self.builder
        condition = instruction.code & 0xF0
        if condition == classic.BPF_JA:
            builder.jump(self.labels[index + 1 + instruction.k])
            return
        if instruction.jt == instruction.jf:
            builder.jump(self.labels[index + 1 + instruction.jt])
            return
        holds, fails = instruction.jt, instruction.jf
        if holds == 0 and condition in _INVERSE:
            condition = _INVERSE[condition]
            holds, fails = fails, holds
        if instruction.code & classic.BPF_X:
            builder.jump_if(condition, _A, self.labels[index + 1 + holds], source=_X)
        else:
            builder.jump_if(condition, _A, self.labels[index + 1 + holds], immediate=instruction.k)
        if fails:
            builder.jump(self.labels[index + 1 + fails])

    def _return(self, instruction: classic.Instruction) -> None:
        if instruction.code & 0x18 == classic.BPF_A:
            self.builder.jump_if(ebpf.BPF_JEQ, _A, self.reject, immediate=0)
            self.builder.jump(self.accept)
        else:
            self.builder.jump(self.accept if instruction.k else self.reject)
