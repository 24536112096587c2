"""Classic BPF: its instructions, what makes a program valid, and programs from filter expressions.

Names and numbers are those of the kernel's linux/bpf_common.h and linux/filter.h.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uspcap.bpf.libpcap import NETMASK_UNKNOWN, CompileError, Request, compile_rows
from uspcap.errors import FilterError

# Classes.
BPF_LD = 0x00
BPF_LDX = 0x01
BPF_ST = 0x02
BPF_STX = 0x03
BPF_ALU = 0x04
BPF_JMP = 0x05
BPF_RET = 0x06
BPF_MISC = 0x07

# Sizes of loads.
BPF_W = 0x00
BPF_H = 0x08
BPF_B = 0x10

# Modes of loads.
BPF_IMM = 0x00
BPF_ABS = 0x20
BPF_IND = 0x40
BPF_MEM = 0x60
BPF_LEN = 0x80
BPF_MSH = 0xA0

# Arithmetic.
BPF_ADD = 0x00
BPF_SUB = 0x10
BPF_MUL = 0x20
BPF_DIV = 0x30
BPF_OR = 0x40
BPF_AND = 0x50
BPF_LSH = 0x60
BPF_RSH = 0x70
BPF_NEG = 0x80
BPF_MOD = 0x90
BPF_XOR = 0xA0

# Jumps.
BPF_JA = 0x00
BPF_JEQ = 0x10
BPF_JGT = 0x20
BPF_JGE = 0x30
BPF_JSET = 0x40

# Sources of the second operand, and of what is returned.
BPF_K = 0x00
BPF_X = 0x08
BPF_A = 0x10

# Register moves.
BPF_TAX = 0x00
BPF_TXA = 0x80

BPF_MAXINSNS = 4096
"""Longest program that the kernel takes."""

BPF_MEMWORDS = 16
"""Words of scratch memory, M[0] to M[15]."""

DEFAULT_SNAPLEN = 262144
"""What tcpdump keeps of a frame; compiled programs return it for a match."""

INSTRUCTION_DTYPE = np.dtype([("code", "<u2"), ("jt", "u1"), ("jf", "u1"), ("k", "<u4")])
"""struct sock_filter of linux/filter.h: 8 bytes an instruction."""

_LOADS = {BPF_LD | size | mode for size in (BPF_W, BPF_H, BPF_B) for mode in (BPF_ABS, BPF_IND)} | {
    register | BPF_W | mode for register in (BPF_LD, BPF_LDX) for mode in (BPF_IMM, BPF_MEM, BPF_LEN)
}
_ARITHMETIC = {
    BPF_ALU | operation | source
    for operation in (
        BPF_ADD,
        BPF_SUB,
        BPF_MUL,
        BPF_DIV,
        BPF_OR,
        BPF_AND,
        BPF_LSH,
        BPF_RSH,
        BPF_MOD,
        BPF_XOR,
    )
    for source in (BPF_K, BPF_X)
}
_CONDITIONAL_JUMPS = {
    BPF_JMP | operation | source for operation in (BPF_JEQ, BPF_JGT, BPF_JGE, BPF_JSET) for source in (BPF_K, BPF_X)
}
_RETURNS = {BPF_RET | BPF_K, BPF_RET | BPF_A}
_SCRATCH = {BPF_LD | BPF_MEM, BPF_LDX | BPF_MEM, BPF_ST, BPF_STX}
_CONSTANT_DIVISIONS = {BPF_ALU | BPF_DIV | BPF_K, BPF_ALU | BPF_MOD | BPF_K}

OPCODES = frozenset(
    _LOADS
    | {BPF_LDX | BPF_B | BPF_MSH, BPF_ST, BPF_STX, BPF_ALU | BPF_NEG, BPF_JMP | BPF_JA}
    | _ARITHMETIC
    | _CONDITIONAL_JUMPS
    | _RETURNS
    | {BPF_MISC | BPF_TAX, BPF_MISC | BPF_TXA}
)
"""Every opcode that there is."""


class Instruction(NamedTuple):
    """One instruction.

    Attributes
    ----------
    code : int
        Opcode, 16 bits.
    jt, jf : int
        Instructions to skip where a comparison holds and where it does not, 0 to 255.
    k : int
        Constant, offset or index, 32 bits, unsigned.
    """

    code: int
    jt: int = 0
    jf: int = 0
    k: int = 0


@dataclass(frozen=True, eq=False)
class Program:
    """A valid program and what it was compiled from.

    Attributes
    ----------
    instructions : ndarray of INSTRUCTION_DTYPE, shape (n,)
        Read-only.
    expression : str
        The filter expression.
    link_type : int
        LINKTYPE_ value of the tcpdump.org registry that it was compiled for.
    """

    instructions: NDArray[Any]
    expression: str
    link_type: int

    def __len__(self) -> int:
        return len(self.instructions)

    def __iter__(self) -> Iterator[Instruction]:
        return map(Instruction._make, self.instructions.tolist())


def as_array(instructions: Iterable[tuple[int, int, int, int]]) -> NDArray[Any]:
    """Return instructions as an ndarray of INSTRUCTION_DTYPE, shape (n,).

    Raises
    ------
    FilterError
        A field does not fit.
    """
    rows = [tuple(row) for row in instructions]
    for index, (code, jt, jf, k) in enumerate(rows):
        if not (0 <= code < 1 << 16 and 0 <= jt < 1 << 8 and 0 <= jf < 1 << 8 and 0 <= k < 1 << 32):
            raise FilterError(f"instruction {index}: ({code}, {jt}, {jf}, {k}) does not fit struct sock_filter")
    return np.array(rows, INSTRUCTION_DTYPE)


def validate(program: NDArray[Any] | Iterable[tuple[int, int, int, int]], *, maximum_length: int | None = None) -> None:
    """Check that a program ends, stays inside itself and its scratch memory, and has known opcodes only.

    Parameters
    ----------
    program : ndarray of INSTRUCTION_DTYPE, shape (n,), or iterable of Instruction
    maximum_length : int, optional
        Most instructions to allow, such as BPF_MAXINSNS where the kernel is to run it.

    Raises
    ------
    FilterError
        Naming the first instruction, counted from 0, that is wrong.

    Notes
    -----
    The rules of bpf_check_classic in the kernel's net/core/filter.c, but for two: a constant shift of 32
    or more is valid and gives 0, as in libpcap; and scratch memory may be read before it is written, as
    it starts zeroed. All jumps go forward, so every valid program ends.
    """
    array = program if isinstance(program, np.ndarray) else as_array(program)
    if array.dtype != INSTRUCTION_DTYPE or array.ndim != 1:
        raise FilterError(f"a program is a one-dimensional array of {INSTRUCTION_DTYPE}, not of {array.dtype}")
    length = len(array)
    if length == 0:
        raise FilterError("a program has at least one instruction, this one has none")
    if maximum_length is not None and length > maximum_length:
        raise FilterError(f"the program has {length} instructions, more than the {maximum_length} allowed")
    for index, (code, jt, jf, k) in enumerate(array.tolist()):
        if code not in OPCODES:
            raise FilterError(f"instruction {index}: there is no opcode {code:#06x}")
        if code in _SCRATCH and k >= BPF_MEMWORDS:
            raise FilterError(f"instruction {index}: scratch memory ends at M[{BPF_MEMWORDS - 1}], not M[{k}]")
        if code in _CONSTANT_DIVISIONS and k == 0:
            raise FilterError(f"instruction {index}: divides by the constant 0")
        if code in _CONDITIONAL_JUMPS:
            farthest = max(jt, jf)
        elif code == BPF_JMP | BPF_JA:
            farthest = k
        else:
            continue
        if index + 1 + farthest >= length:
            where = f"backward by {(1 << 32) - k}" if farthest >= 1 << 31 else f"past the end by {farthest}"
            raise FilterError(f"instruction {index}: jumps {where}, only forward jumps inside the program are valid")
    if int(array["code"][-1]) not in _RETURNS:
        raise FilterError(f"instruction {length - 1}: the last instruction must be a return")


def join_words(words: Sequence[str]) -> str:
    """Return the expression that a command line gives as several words, joined as tcpdump does."""
    return " ".join(words).strip()


def compile_filter(
    expression: str,
    link_type: int,
    snaplen: int = DEFAULT_SNAPLEN,
    *,
    optimize: bool = True,
    netmask: int | None = None,
    file_byte_order: Literal["little", "big"] | None = None,
) -> Program:
    """Compile a filter expression as tcpdump does: libpcap is the compiler.

    Parameters
    ----------
    expression : str
        As in pcap-filter(7); an empty one accepts every frame.
    link_type : int
        LINKTYPE_ value of the tcpdump.org registry; where libpcap's own number differs, it is mapped.
    snaplen : int
        What the program returns for a match, in bytes, from 1 to 2**31 - 1; the kernel cuts frames there.
    optimize : bool
        False leaves out libpcap's optimiser; the program is longer and means the same.
    netmask : int, optional
        IPv4 netmask of the network captured on, as a number: 0xFFFFFF00 for /24. Only `ip broadcast`
        asks for it. `tcpdump -r` passes 0.
    file_byte_order : {"little", "big"}, optional
        Byte order of the capture file that the frames are in; leave it out for live frames. In files,
        BSD loopback headers are in that order and hold any BSD's address families, and `inbound` and
        `outbound` are refused where only a kernel knows a frame's direction. For live frames they
        compile to loads from the kernel's socket buffer (linux/filter.h: SKF_AD_OFF).

    Returns
    -------
    Program

    Raises
    ------
    FilterError
        The expression is wrong, makes no sense for the link type, matches no frame ever, or is
        compiled to backward jumps (`protochain`).
    MissingFeature
        There is no libpcap to compile with.
    """
    if not 0 < snaplen < 1 << 31:
        raise ValueError(f"snaplen must be from 1 to 2147483647, not {snaplen}")
    shown = expression if len(expression) <= 200 else expression[:200] + "…"
    what = f"filter {shown!r} does not compile for link type {link_type}"
    if not 0 <= link_type < 1 << 16:
        raise FilterError(f"{what}: link types go from 0 to 65535")
    if "\0" in expression:
        raise FilterError(f"{what}: it holds a NUL character, take that out")
    try:
        expression.encode()
    except UnicodeEncodeError:
        raise FilterError(f"{what}: it holds bytes that are no UTF-8 text, take them out") from None
    try:
        rows = compile_rows(
            Request(
                expression,
                link_type,
                snaplen,
                optimize,
                NETMASK_UNKNOWN if netmask is None else netmask,
                file_byte_order,
            )
        )
    except CompileError as error:
        raise FilterError(f"{what}: {error} (pcap-filter(7) has the syntax)") from None
    instructions = as_array(rows)
    try:
        validate(instructions)
    except FilterError as error:
        raise FilterError(
            f"{what}: {error}; 'protochain' needs backward jumps, write the headers to skip out instead"
        ) from None
    instructions.flags.writeable = False
    return Program(instructions, expression, link_type)
