"""Filter expressions taken apart into terms, as pcap-filter(7) has them.

What is taken apart here is never compiled from here on trust: `uspcap.bpf.terms` has libpcap compile both the
expression and its terms put together again, and where the two differ the expression is left whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

LINK: Final = frozenset({"ether", "link", "fddi", "tr", "wlan", "ppp", "slip", "radio"})
"""Qualifiers of terms about a frame, not about what it carries."""

PROTOCOLS: Final = LINK | frozenset(
    {
        "ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "igrp", "pim", "vrrp", "carp", "ah",
        "esp", "atalk", "aarp", "decnet", "lat", "sca", "moprc", "mopdl", "iso", "clnp", "esis", "isis", "stp", "ipx",
        "netbeui", "es-is", "is-is", "l1", "l2", "iih", "lsp", "snp", "csnp", "psnp",
    }
)  # fmt: skip

ENCAPSULATIONS: Final = frozenset({"vlan", "mpls", "pppoed", "pppoes", "geneve", "vxlan"})

INDEXED_TRANSPORTS: Final = frozenset({"tcp", "udp", "sctp", "icmp", "igmp", "igrp", "pim", "vrrp", "carp"})
"""Protocols whose bytes libpcap finds behind IPv4 only."""

_KINDS: Final = frozenset({"host", "net", "port", "portrange", "gateway", "proto", "protochain"})
_DIRECTIONS: Final = frozenset({"src", "dst"})
_CAST: Final = frozenset({"broadcast", "multicast"})
_WITH_NUMBER: Final = frozenset({"less", "greater"})
_CONJUNCTIONS: Final = {"and": "and", "&&": "and", "or": "or", "||": "or"}
_NEGATIONS: Final = frozenset({"not", "!"})
_COMPARISONS: Final = frozenset({"=", "==", "!=", "<", ">", "<=", ">="})
_OPERATORS: Final = frozenset({"+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>"})
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_FIELD: Final = re.compile(r"(?:tcp|udp|sctp|icmp|icmp6)[a-z0-9]*|(?:tcp|icmp|icmp6)-[a-z0-9-]+")
_WORD: Final = re.compile(r"\\?[A-Za-z0-9_.:$-]+(?:/[0-9]+)?")
_TOKEN: Final = re.compile(
    r"\s*(?:(?P<word>\\?[A-Za-z0-9][A-Za-z0-9_.$]*(?:(?:::|[:-])[A-Za-z0-9_.$]+)*"
    r"(?:::)?(?:/[0-9]+)?|::[A-Za-z0-9_.:]*(?:/[0-9]+)?)"
    r"|(?P<mark>&&|\|\||==|!=|<=|>=|<<|>>|[()\[\]=<>!+*/%&|^:-]))"
)

DEEPEST: Final = 100
"""Parentheses and negations in each other that are still taken apart."""


class NotTakenApart(Exception):
    """The expression holds what is not known here."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term: qualifiers with what they are about, or a comparison.

    Attributes
    ----------
    words : tuple of str
        Whole, qualifiers taken over from the term before included.
    comparison : bool
    """

    words: tuple[str, ...]
    comparison: bool = False

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def indexed(self) -> set[str]:
        """Return what a comparison takes bytes of: the words before brackets."""
        return {word for word, bracket in zip(self.words, self.words[1:], strict=False) if bracket == "["}

    def values_of(self, *kinds: str) -> list[str]:
        """Return the identifiers behind these qualifiers."""
        at = [place for place, word in enumerate(self.words) if word in kinds]
        return [word for word in self.words[at[-1] + 1 :] if word not in _CONJUNCTIONS] if at else []


@dataclass(frozen=True, slots=True)
class Negation:
    """What is true where the other is not."""

    of: Node


@dataclass(frozen=True, slots=True)
class Junction:
    """Two nodes joined: by `and` or by `or`."""

    by: str
    left: Node
    right: Node


Node = Term | Negation | Junction


def take_apart(expression: str) -> Node:
    """Return the terms of an expression and how they are joined.

    Raises
    ------
    NotTakenApart
        It is empty, no expression, or has a term that is not known here.
    """
    parser = _Parser(_tokens(expression))
    node = parser.expression(0)
    if parser.at < len(parser.tokens):
        raise NotTakenApart
    return node


def put_together(node: Node) -> str:
    """Return an expression that says the same with all parentheses."""
    if isinstance(node, Term):
        return node.text
    if isinstance(node, Negation):
        return f"not ({put_together(node.of)})"
    return f"({put_together(node.left)}) {node.by} ({put_together(node.right)})"


def terms_of(node: Node) -> Iterator[Term]:
    """Yield the terms, in their order."""
    if isinstance(node, Term):
        yield node
    elif isinstance(node, Negation):
        yield from terms_of(node.of)
    else:
        yield from terms_of(node.left)
        yield from terms_of(node.right)


def _tokens(expression: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    text = expression.strip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise NotTakenApart
        word = match["word"]
        # In brackets `:` parts an offset from a size, and `-` subtracts.
        if word is not None and _in_brackets(tokens):
            simple = re.match(r"\s*[A-Za-z0-9_.]+", text[at:])
            if simple is None:
                raise NotTakenApart
            tokens.append(simple[0].strip())
            at += simple.end()
            continue
        tokens.append(match[0].strip())
        at = match.end()
    return tokens


def _in_brackets(tokens: list[str]) -> bool:
    return tokens.count("[") > tokens.count("]")


class _Parser:
    """The grammar of libpcap (grammar.y), as far as terms go."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self._carried: tuple[str, ...] | None = None

    def _peek(self, ahead: int = 0) -> str:
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._peek()
        if not token:
            raise NotTakenApart
        self.at += 1
        return token

    def expression(self, depth: int) -> Node:
        """`and` and `or` bind alike, from the left."""
        node = self._term(depth)
        while (by := _CONJUNCTIONS.get(self._peek())) is not None:
            self.at += 1
            node = Junction(by, node, self._term(depth))
        return node

    def _term(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise NotTakenApart
        if self._peek() in _NEGATIONS:
            self.at += 1
            return Negation(self._term(depth + 1))
        begun = self.at
        comparison = self._comparison()
        if comparison is not None:
            self._carried = None
            return comparison
        self.at = begun
        if self._peek() == "(":
            self.at += 1
            node = self.expression(depth + 1)
            if self._take() != ")":
                raise NotTakenApart
            return node
        return self._simple(depth)

    def _simple(self, depth: int) -> Node:
        word = self._peek()
        if word in ENCAPSULATIONS:
            self._carried = None
            words = [self._take()]
            if _NUMBER.fullmatch(self._peek()):
                words.append(self._take())
            return Term(tuple(words))
        if word in _WITH_NUMBER:
            self._carried = None
            return Term((self._take(), self._take()))
        if word in ("inbound", "outbound"):
            self._carried = None
            return Term((self._take(),))
        head = self._head()
        if not head:
            # An identifier alone goes by the qualifiers before it.
            if self._carried is None or not self._is_identifier():
                raise NotTakenApart
            return self._identified(self._carried)
        if head[-1] in _CAST:
            self._carried = None
            return Term(head)
        if self._is_identifier():
            self._carried = head
            return self._identified(head)
        if self._peek() == "(" and head[-1] in _KINDS | _DIRECTIONS:
            self._carried = head
            self.at += 1
            node = self._identifiers(head, depth + 1)
            if self._take() != ")":
                raise NotTakenApart
            return node
        if len(head) == 1 and head[0] in PROTOCOLS:
            self._carried = head
            return Term(head)
        raise NotTakenApart

    def _identifiers(self, head: tuple[str, ...], depth: int) -> Node:
        """What stands in parentheses behind qualifiers: identifiers, joined."""
        if depth > DEEPEST:
            raise NotTakenApart
        node = self._one_of_identifiers(head, depth)
        while (by := _CONJUNCTIONS.get(self._peek())) is not None:
            self.at += 1
            node = Junction(by, node, self._one_of_identifiers(head, depth))
        return node

    def _one_of_identifiers(self, head: tuple[str, ...], depth: int) -> Node:
        if self._peek() in _NEGATIONS:
            self.at += 1
            return Negation(self._one_of_identifiers(head, depth + 1))
        if not self._is_identifier():
            raise NotTakenApart
        return self._identified(head)

    def _head(self) -> tuple[str, ...]:
        head: list[str] = []
        if self._peek() in PROTOCOLS:
            head.append(self._take())
        if self._peek() in _DIRECTIONS:
            first = self._take()
            head.append(first)
            if self._peek() in _CONJUNCTIONS and self._peek(1) in _DIRECTIONS - {first}:
                head += [self._take(), self._take()]
        if self._peek() in _KINDS or (self._peek() in _CAST and len(head) <= 1):
            head.append(self._take())
        return tuple(head)

    def _is_identifier(self) -> bool:
        word = self._peek()
        if word.startswith("\\"):
            return True
        known = PROTOCOLS | _KINDS | _DIRECTIONS | _CAST | _WITH_NUMBER | ENCAPSULATIONS | {"len", "mask"}
        return bool(_WORD.fullmatch(word)) and word not in known | _CONJUNCTIONS.keys() | _NEGATIONS

    def _identified(self, head: tuple[str, ...]) -> Term:
        words = [*head, self._take()]
        if self._peek() == "mask" or (self._peek() == "/" and _NUMBER.fullmatch(self._peek(1))):
            words += [self._take(), self._take()]
        return Term(tuple(words))

    def _comparison(self) -> Term | None:
        """Return the comparison that begins here, None where none does."""
        begun = self.at
        if not self._sum() or self._peek() not in _COMPARISONS:
            return None
        self.at += 1
        if not self._sum():
            return None
        return Term(tuple(self.tokens[begun : self.at]), comparison=True)

    def _sum(self, depth: int = 0) -> bool:
        """Go over an arithmetic expression; False where none begins here."""
        if depth > DEEPEST or not self._operand(depth):
            return False
        while self._peek() in _OPERATORS:
            self.at += 1
            if not self._operand(depth):
                return False
        return True

    def _operand(self, depth: int) -> bool:
        if depth > DEEPEST:
            return False
        token = self._peek()
        if token == "-":
            self.at += 1
            return self._operand(depth + 1)
        if token == "(":
            self.at += 1
            if not self._sum(depth + 1) or self._peek() != ")":
                return False
            self.at += 1
            return True
        if token in PROTOCOLS and self._peek(1) == "[":
            self.at += 2
            if not self._sum(depth + 1):
                return False
            if self._peek() == ":":
                self.at += 1
                if not _NUMBER.fullmatch(self._peek()):
                    return False
                self.at += 1
            if self._peek() != "]":
                return False
            self.at += 1
            return True
        if token == "len" or _NUMBER.fullmatch(token) or (token not in PROTOCOLS and _FIELD.fullmatch(token)):
            self.at += 1
            return True
        return False
