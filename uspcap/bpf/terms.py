"""Programs of several terms, each about the bytes that it asks for: libpcap compiles terms, here they are joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from uspcap.bpf.classic import BPF_JA, BPF_JMP, BPF_RET, Program, compile_filter
from uspcap.bpf.classic_bpf import VIEW, VIEWS, ClassicProgram
from uspcap.bpf.expressions import INDEXED_TRANSPORTS, Junction, Negation, Node, Term, put_together
from uspcap.bpf.readings import is_outer
from uspcap.errors import FilterError

ETHERNET: Final = 1
RAW: Final = 101

_REJECTS_ALL: Final = "expression rejects all packets"

_CLASS: Final = 0x07
_TRUE, _FALSE = -1, -2

Order = Literal["little", "big"]


def is_taken_apart_right(node: Node, whole: Program, file_byte_order: Order) -> bool:
    """Tell whether libpcap makes the same of an expression's terms put together again as of the expression."""
    try:
        again = compile_filter(put_together(node), whole.link_type, netmask=0, file_byte_order=file_byte_order)
    except FilterError:
        return False
    return bool(len(again) == len(whole) and (again.instructions == whole.instructions).all())


def joined_program(node: Node, link_type: int, inner_link_type: int, file_byte_order: Order) -> ClassicProgram:
    """Return a program whose terms look at the innermost packet, or at the frame where they are about frames.

    Parameters
    ----------
    node : Node
    link_type : int
        Of the frames.
    inner_link_type : int
        What the innermost packet is taken for: raw IP or Ethernet.
    file_byte_order : {"little", "big"}
        As of `compile_filter`.

    Returns
    -------
    ClassicProgram

    Raises
    ------
    FilterError
        libpcap has no program for a term.
    """
    joiner = _Joiner(link_type, inner_link_type, file_byte_order)
    joiner.join(node, _TRUE, _FALSE)
    return ClassicProgram(joiner.linked())


@dataclass(slots=True)
class _Row:
    """An instruction; `to` is the label of a jump."""

    code: int
    jt: int
    jf: int
    k: int
    to: int = 0


class _Joiner:
    """Puts the programs of terms one behind the other; where one ends, it jumps on."""

    def __init__(self, link_type: int, inner_link_type: int, file_byte_order: Order) -> None:
        self._link_type = link_type
        self._inner = inner_link_type
        self._order: Order = file_byte_order
        self._rows: list[_Row] = []
        self._places: dict[int, int] = {}
        self._labels = 0

    def join(self, node: Node, true: int, false: int) -> None:
        if isinstance(node, Negation):
            self.join(node.of, false, true)
        elif isinstance(node, Junction):
            between = self._label()
            self.join(node.left, *((between, false) if node.by == "and" else (true, between)))
            self._places[between] = len(self._rows)
            self.join(node.right, true, false)
        else:
            self._join_term(node, true, false)

    def linked(self) -> list[tuple[int, int, int, int]]:
        """Return the rows with every jump at its place."""
        end = len(self._rows)
        places = {**self._places, _TRUE: end, _FALSE: end + 1}
        rows = [
            (row.code, row.jt, row.jf, places[row.to] - at - 1 if row.to else row.k)
            for at, row in enumerate(self._rows)
        ]
        return [*rows, (BPF_RET, 0, 0, 1), (BPF_RET, 0, 0, 0)]

    def _label(self) -> int:
        self._labels += 1
        return self._labels

    def _join_term(self, term: Term, true: int, false: int) -> None:
        tries = [("outer", self._link_type)] if is_outer(term) else [(view, self._inner) for view in _views(term)]
        for place, (view, link_type) in enumerate(tries):
            otherwise = false if place == len(tries) - 1 else self._label()
            self._append(term, view, link_type, true, otherwise)
            if otherwise != false:
                self._places[otherwise] = len(self._rows)

    def _append(self, term: Term, view: str, link_type: int, true: int, false: int) -> None:
        try:
            program = compile_filter(term.text, link_type, netmask=0, file_byte_order=self._order)
        except FilterError as error:
            if _REJECTS_ALL not in str(error):
                raise
            self._rows.append(_Row(BPF_JMP | BPF_JA, 0, 0, 0, false))
            return
        self._rows.append(_Row(VIEW, 1, 0, VIEWS[view]))
        self._rows.append(_Row(BPF_JMP | BPF_JA, 0, 0, 0, false))
        for code, jt, jf, k in program:
            if code == BPF_RET:
                self._rows.append(_Row(BPF_JMP | BPF_JA, 0, 0, 0, true if k else false))
            elif code & _CLASS == BPF_RET:
                raise FilterError(f"{term.text!r} returns what it computes")
            else:
                self._rows.append(_Row(code, jt, jf, k))


def _views(term: Term) -> tuple[str, ...]:
    """Return the views to try a term about the innermost packet on, one after the other."""
    if not term.comparison:
        return ("inner", "stripped")
    indexed = term.indexed()
    if indexed <= INDEXED_TRANSPORTS:
        return ("inner", "as_ipv4")
    return ("inner", "stripped") if indexed == {"icmp6"} else ("inner",)
