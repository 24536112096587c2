"""What a filter applies to: the innermost packet of a frame, or the frame itself, as tcpdump has it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from uspcap.bpf.expressions import ENCAPSULATIONS, LINK, Node, NotTakenApart, Term, take_apart, terms_of

ENCAPSULATION_PORTS: Final = {
    2152: "GTP-U",
    4789: "VXLAN",
    4790: "VXLAN-GPE",
    6081: "GENEVE",
}
"""UDP ports behind which uspcap decodes a packet."""

ENCAPSULATION_PROTOCOLS: Final = {4: "IP in IP", 41: "IPv6 in IP", 47: "GRE"}

_PORT_WORDS: Final = {"gtp-user": 2152, "vxlan-gpe": 4790}
"""As /etc/services has them; `vxlan` and `geneve` are words of the language itself."""

_PROTOCOL_WORDS: Final = {"gre": 47, "ipencap": 4, "ipip": 4, "ipv6": 41}

_ENCAPSULATION_TYPES: Final = {0x8100, 0x88A8, 0x9100, 0x9200, 0x8847, 0x8848, 0x8863, 0x8864}


@dataclass(frozen=True, slots=True)
class FilterReading:
    """Which reading applies to an expression.

    Attributes
    ----------
    name : {'inner', 'outer'}
    why : str
        A clause for the report.
    node : Node or None
        The terms of the expression; None where it is left whole.
    tags_aside : bool
        Of the outer reading: look past VLAN tags.
    """

    name: str
    why: str
    node: Node | None = None
    tags_aside: bool = False


OUTER_ASKED: Final = "--outer asks for it"

AS_TCPDUMP: Final = FilterReading("outer", "as tcpdump reads it")


def reading_of(expression: str, *, outer: bool = False) -> FilterReading:
    """Return which reading an expression asks for by its words.

    Parameters
    ----------
    expression : str
        As in pcap-filter(7).
    outer : bool
        The outer frame was asked for.
    """
    if outer:
        return FilterReading("outer", OUTER_ASKED)
    try:
        node = take_apart(expression)
    except NotTakenApart:
        return FilterReading("outer", "it has a term that is read only as tcpdump does")
    named = next((said for term in terms_of(node) if (said := _encapsulation(term))), "")
    if named:
        return FilterReading("outer", f"{named} names an encapsulation")
    if all(is_outer(term) for term in terms_of(node)):
        return FilterReading("outer", "it is about frames and lengths only")
    return FilterReading("inner", "nothing in it names an encapsulation", node)


def reading_for_writing(expression: str) -> FilterReading:
    """Return the reading for frames that are written to a file: that of outer frames, VLAN tags aside."""
    reading = reading_of(expression)
    if reading.name == "outer":
        return reading
    why = "with -w a filter applies to outer frames, VLAN tags aside, unless --inner is given"
    return FilterReading("outer", why, reading.node, tags_aside=True)


def other_reading(expression: str, reading: FilterReading) -> FilterReading | None:
    """Return the reading that does not apply, None where there is no other one."""
    if reading.name == "inner":
        return AS_TCPDUMP
    try:
        node = take_apart(expression)
    except NotTakenApart:
        return None
    if all(is_outer(term) for term in terms_of(node)):
        return None
    return FilterReading("inner", "as the other reading", node)


def hint_of(what: str, reading: FilterReading, frames: int, remedy: str) -> str:
    """Return what to say of a filter that matches nothing, where so many frames match under the other reading."""
    many = "1 frame" if frames == 1 else f"{frames:,} frames"
    if reading.name == "inner":
        return f"{what} matches no innermost packet, but the outer headers of {many}: {remedy}"
    if reading.tags_aside:
        return f"{what} matches no outer frame, but the innermost packet of {many}: --inner applies it to those"
    if reading.why == OUTER_ASKED:
        return (
            f"{what} matches no outer frame, but the innermost packet of {many}: leave out --outer to apply it to those"
        )
    return (
        f"{what} matches no outer frame, but the innermost packet of {many}: it applies to outer "
        f"frames because {reading.why}; leave that out to apply it to innermost packets"
    )


def is_outer(term: Term) -> bool:
    """Tell whether a term is about the outer frame, whatever the rest of the expression is about."""
    if term.comparison:
        indexed = term.indexed()
        return bool(indexed & LINK) or not indexed
    first = term.words[0]
    return first in LINK | {"broadcast", "multicast", "less", "greater", "gateway", "inbound", "outbound"}


def _encapsulation(term: Term) -> str:
    """Return the part of a term that names an encapsulation, '' where none does."""
    if term.words[0] in ENCAPSULATIONS:
        return term.words[0]
    if term.comparison:
        return _compared(term)
    for kind, numbers in (("port", ENCAPSULATION_PORTS), ("portrange", ENCAPSULATION_PORTS)):
        for value in term.values_of(kind):
            ends = [_PORT_WORDS[value]] if value in _PORT_WORDS else map(_number, value.split("-"))
            if any(end in numbers for end in ends):
                return f"{kind} {value}"
    for value in term.values_of("proto"):
        if term.words[0] in LINK:
            if _number(value) in _ENCAPSULATION_TYPES:
                return f"ether proto {value}"
        elif _PROTOCOL_WORDS.get(value.lstrip("\\").lower(), _number(value)) in ENCAPSULATION_PROTOCOLS:
            return f"proto {value}"
    return ""


def _compared(term: Term) -> str:
    """Return a comparison of a port, protocol or EtherType with an encapsulation's, '' where it is none."""
    numbers = {_number(word) for word in term.words if _number(word) >= 0}
    squeezed = "".join(term.words)
    if any(field in squeezed for field in ("udp[0:2]", "udp[2:2]")) and numbers & ENCAPSULATION_PORTS.keys():
        return term.text
    after = {_number(word) for word in term.words[term.words.index("]") + 1 :]} if "]" in term.words else set()
    if any(field in squeezed for field in ("ip[9]", "ip6[6]")) and after & ENCAPSULATION_PROTOCOLS.keys():
        return term.text
    if "ether[12:2]" in squeezed and numbers & _ENCAPSULATION_TYPES:
        return term.text
    return ""


def _number(word: str) -> int:
    try:
        return int(word, 0)
    except ValueError:
        return int(word) if word.isdecimal() else -1
