"""Put instructions, jumps to labels and references to maps together into a program.

Building is pure: maps and kernel functions are named here and get their file descriptors and BTF ids
only in `Program.link`, when the program is loaded. What cannot be reached from the first instruction is
left out, since the verifier refuses unreachable code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NewType

from uspcap.bpf.instructions import (
    BPF_CALL,
    BPF_EXIT,
    BPF_JA,
    BPF_JMP,
    BPF_JMP32,
    BPF_K,
    BPF_X,
    Instruction,
    call_kfunc,
    jmp_a,
    ld_map_fd,
)

Label = NewType("Label", int)
"""A place in a program, made by `Builder.label`, set by `Builder.place`."""

JUMP_REACH_SLOTS: Final = 0x7FFF
"""How far a jump goes at most: its offset is a signed 16-bit number of slots (struct bpf_insn)."""


class JumpTooFar(ValueError):
    """A jump does not fit into 16 bits: the program is too large."""


@dataclass(frozen=True, slots=True)
class Program:
    """A finished program: instructions in order, references by name.

    Attributes
    ----------
    instructions : tuple of Instruction
        Jump offsets are resolved; references carry 0.
    maps, kernel_functions : tuple of (int, str)
        Index into `instructions`, and the name of what it refers to.
    """

    instructions: tuple[Instruction, ...]
    maps: tuple[tuple[int, str], ...] = ()
    kernel_functions: tuple[tuple[int, str], ...] = ()

    @property
    def slots(self) -> int:
        """Length in eight-byte slots, as bpf(2) counts instructions."""
        return sum(instruction.slots for instruction in self.instructions)

    def link(
        self, map_fds: Mapping[str, int] | None = None, kernel_function_ids: Mapping[str, int] | None = None
    ) -> bytes:
        """Return the bytes for BPF_PROG_LOAD.

        Parameters
        ----------
        map_fds : mapping of str to int
            File descriptor of each map by name.
        kernel_function_ids : mapping of str to int
            BTF id of each kernel function by name.

        Raises
        ------
        KeyError
            A name that the program uses is not in the mappings.
        """
        linked = list(self.instructions)
        for index, name in self.maps:
            linked[index] = ld_map_fd(linked[index].destination, (map_fds or {})[name])
        for index, name in self.kernel_functions:
            linked[index] = call_kfunc((kernel_function_ids or {})[name])
        return b"".join(instruction.encode() for instruction in linked)


@dataclass(slots=True)
class _Item:
    """An instruction before it is placed."""

    instruction: Instruction
    target: Label | None = None
    map_name: str = ""
    kernel_function: str = ""

    @property
    def falls_through(self) -> bool:
        return self.instruction.opcode not in (BPF_JMP | BPF_EXIT, BPF_JMP | BPF_JA)


class Builder:
    """Collects a program from first instruction to last."""

    def __init__(self) -> None:
        self._items: list[_Item] = []
        self._places: list[int | None] = []

    def __len__(self) -> int:
        """Return the number of instructions so far, unreachable ones included."""
        return len(self._items)

    def label(self) -> Label:
        """Make a label, to be placed before or after its uses."""
        self._places.append(None)
        return Label(len(self._places) - 1)

    def place(self, label: Label) -> None:
        """Let `label` mean the next instruction.

        Raises
        ------
        ValueError
            The label is placed already.
        """
        if self._places[label] is not None:
            raise ValueError(f"label {label} is already placed")
        self._places[label] = len(self._items)

    def add(self, *instructions: Instruction) -> None:
        """Append instructions that are no jumps."""
        for instruction in instructions:
            if _is_jump(instruction):
                raise ValueError(f"{instruction}: jumps take a label, use jump or jump_if")
            self._items.append(_Item(instruction))

    def jump(self, target: Label) -> None:
        """Append `goto target`."""
        self._items.append(_Item(jmp_a(0), target))

    def jump_if(
        self,
        condition: int,
        register: int,
        target: Label,
        *,
        immediate: int | None = None,
        source: int | None = None,
        wide: bool = False,
    ) -> None:
        """Append `if register condition operand: goto target`.

        Parameters
        ----------
        condition : int
            BPF_JEQ, BPF_JGT, … of linux/bpf.h.
        immediate, source : int
            Exactly one of them: a number, or a register.
        wide : bool
            Compare 64 bits (the immediate sign-extended) and not 32.
        """
        if (immediate is None) == (source is None):
            raise ValueError("a conditional jump compares with an immediate or with a register")
        opcode = (BPF_JMP if wide else BPF_JMP32) | condition | (BPF_K if source is None else BPF_X)
        self._items.append(_Item(Instruction(opcode, register, source or 0, 0, immediate or 0), target))

    def load_map(self, destination: int, name: str) -> None:
        """Append a load of the address of the map that `Program.link` gets by this name."""
        self._items.append(_Item(ld_map_fd(destination, 0), map_name=name))

    def call_kernel_function(self, name: str) -> None:
        """Append a call of the kernel function that `Program.link` gets by this name."""
        self._items.append(_Item(call_kfunc(0), kernel_function=name))

    def build(self) -> Program:
        """Resolve labels and return the program without what cannot be reached.

        Raises
        ------
        JumpTooFar
            A jump spans more than 32,767 slots.
        ValueError
            A label is used and not placed, or the program can run past its end.
        """
        reachable = self._reachable()
        position_of: list[int] = []
        position = 0
        for index, item in enumerate(self._items):
            position_of.append(position)
            if index in reachable:
                position += item.instruction.slots
        instructions: list[Instruction] = []
        maps: list[tuple[int, str]] = []
        kernel_functions: list[tuple[int, str]] = []
        for index, item in enumerate(self._items):
            if index not in reachable:
                continue
            instruction = item.instruction
            if item.target is not None:
                offset = position_of[self._place_of(item.target)] - position_of[index] - 1
                if not -JUMP_REACH_SLOTS - 1 <= offset <= JUMP_REACH_SLOTS:
                    raise JumpTooFar(
                        f"instruction {len(instructions)} jumps over {abs(offset)} instructions and eBPF "
                        f"jumps reach {JUMP_REACH_SLOTS}: the program is too large"
                    )
                instruction = instruction._replace(offset=offset)
            if item.map_name:
                maps.append((len(instructions), item.map_name))
            if item.kernel_function:
                kernel_functions.append((len(instructions), item.kernel_function))
            instructions.append(instruction)
        return Program(tuple(instructions), tuple(maps), tuple(kernel_functions))

    def _place_of(self, label: Label) -> int:
        place = self._places[label]
        if place is None:
            raise ValueError(f"label {label} is used and never placed")
        return place

    def _reachable(self) -> set[int]:
        """Return the indices of the items that control can get to."""
        reached: set[int] = set()
        waiting = [0]
        while waiting:
            index = waiting.pop()
            while index not in reached:
                if index >= len(self._items):
                    raise ValueError("the program can run past its last instruction: end it with exit or a jump")
                reached.add(index)
                item = self._items[index]
                if item.target is not None:
                    waiting.append(self._place_of(item.target))
                if not item.falls_through:
                    break
                index += 1
        return reached


def _is_jump(instruction: Instruction) -> bool:
    """Tell whether an instruction has a jump target, which calls and exit have not."""
    if instruction.opcode & 0x07 not in (BPF_JMP, BPF_JMP32):
        return False
    return instruction.opcode & 0xF0 not in (BPF_CALL, BPF_EXIT)
