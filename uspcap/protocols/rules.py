"""Rules for requests and responses, and the keys by which they are matched.

The language of rules, as options take it::

    RULE = FILTER [; ITEM]...
    ITEM = key=KEY | name=NAME
    KEY  = payload[FIRST:END] | tag:NUMBER

FILTER is a filter as of pcap-filter(7), about the innermost packet where it names no encapsulation (docs/filters.md).
`payload[4:8]` are four bytes of the TCP or UDP payload, from the fifth on; `tag:11` is the value of the first field 11
in a FIX message (tag=value encoding). NAME is what the report calls the rule: letters, digits, `_` and `-`.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.bpf.classic import compile_filter
from uspcap.bpf.filters import FrameFilter, MatchCounts, filter_of_files
from uspcap.bpf.readings import reading_of
from uspcap.errors import FilterError, UsageError
from uspcap.frames import FrameBatch
from uspcap.protocols.rule_search import KEY_KINDS, MATCHES, PROTOCOLS, find_by_rule, find_known

REQUEST, RESPONSE = 1, 2

LONGEST_PAYLOAD = 1 << 16

RAW_IPV4 = 228
"""Link type of IPv4 packets as they are."""

KNOWN = {
    "dns": "DNS over UDP: port 53, the ID of the header and the question; multicast DNS (port 5353) is another thing",
    "icmp_echo": "ICMP echo: identifier and sequence number",
    "icmpv6_echo": "ICMPv6 echo: identifier and sequence number",
    "ntp": "NTP: modes 3 and 4, the server's origin timestamp being the client's transmit timestamp",
}
"""Protocols that need no rule, by name, and what matches there; both ends must agree as well."""


@dataclass(frozen=True, slots=True)
class Key:
    """Where the bytes are that a request shares with its response.

    Attributes
    ----------
    kind : str
        Of `KEY_KINDS`: `none`, `payload` or `tag`.
    first, end : int
        Of a slice of the payload, in bytes.
    tag : bytes
        FIX tag and `=`.
    """

    kind: str = "none"
    first: int = 0
    end: int = 0
    tag: bytes = b""


@dataclass(frozen=True, slots=True)
class Rule:
    """A filter, and the key that identifies its frames.

    Attributes
    ----------
    text : str
        As the user wrote it.
    expression : str
        Filter as of pcap-filter(7).
    key : Key
    name : str
        Empty where none was given.
    """

    text: str
    expression: str
    key: Key = Key()
    name: str = ""


@dataclass(frozen=True, slots=True)
class RulePair:
    """A rule for requests, and the rule for their responses.

    Attributes
    ----------
    name : str
    request, response : Rule
    match : str
        Of `MATCHES`: what must agree beside the keys.
    options : tuple of str
        The options that the two came from, for messages.
    outer : bool
        Apply both to outer frames, as tcpdump does.
    """

    name: str
    request: Rule
    response: Rule
    match: str
    options: tuple[str, str] = ("--request", "--response")
    outer: bool = False

    @property
    def looks_inside(self) -> bool:
        """Whether one of the two applies to innermost packets."""
        return any(
            reading_of(rule.expression, outer=self.outer).name == "inner" for rule in (self.request, self.response)
        )


def parse_rule(text: str, option: str) -> Rule:
    """Read a rule.

    Parameters
    ----------
    text : str
    option : str
        Where it comes from, for messages.

    Raises
    ------
    UsageError
        It is no rule; the message says from which character on.
    """
    parts = text.split(";")
    expression = parts[0].strip()
    if not expression:
        raise _no_rule(option, 1, "no filter; write which frames it matches, as in 'udp dst port 7000'")
    found: dict[str, str] = {}
    key = Key()
    at = len(parts[0]) + 1
    for part in parts[1:]:
        start = at + len(part) - len(part.lstrip()) + 1
        at += len(part) + 1
        word, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or word not in ("key", "name"):
            raise _no_rule(
                option,
                start,
                f"{part.strip()!r} is not a part of a rule; write key=payload[0:8], key=tag:11 or name=WORD",
            )
        if word in found:
            raise _no_rule(option, start, f"{word}= is given more than once; keep one of them")
        found[word] = value
        if word == "key":
            key = _key(value, option, start)
        elif not re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value):
            raise _no_rule(option, start, f"{value!r} is not a name; write up to 40 letters, digits, _ and -")
    return Rule(text.strip(), expression, key, found.get("name", ""))


def _no_rule(option: str, character: int, what: str) -> UsageError:
    return UsageError(f"{option}: character {character}: {what}")


def _key(value: str, option: str, start: int) -> Key:
    if match := re.fullmatch(r"payload\s*\[\s*([0-9]{1,9})\s*:\s*([0-9]{1,9})\s*\]", value):
        first, end = int(match[1]), int(match[2])
        if not first < end <= LONGEST_PAYLOAD:
            raise _no_rule(
                option, start, f"payload[{first}:{end}] has no bytes; write the first byte, from 0, and the one after "
                f"the last, up to {LONGEST_PAYLOAD}"
            )  # fmt: skip
        return Key("payload", first, end)
    if match := re.fullmatch(r"tag:([1-9][0-9]{0,8})", value):
        return Key("tag", tag=match[1].encode() + b"=")
    raise _no_rule(option, start, f"{value!r} is not a key; write payload[FIRST:END] or tag:NUMBER")


def pair_rules(request: Rule, response: Rule, *, name: str, match: str, options: tuple[str, str]) -> RulePair:
    """Return two rules as a pair.

    Parameters
    ----------
    name : str
        Where the rules give none.
    match : str
        Of `MATCHES`; by `key` without keys, every request and response belong together.

    Raises
    ------
    UsageError
        Their keys could never be equal, or there is nothing to match by.
    """
    keys = request.key, response.key
    if (keys[0].kind == "none") != (keys[1].kind == "none"):
        raise UsageError(f"{options[0]} and {options[1]}: only one has a key; give both a key or neither")
    lengths = [key.end - key.first for key in keys]
    if all(key.kind == "payload" for key in keys) and lengths[0] != lengths[1]:
        raise UsageError(
            f"{options[0]} and {options[1]}: a key of {lengths[0]} bytes never equals one of {lengths[1]}; "
            "let both be as long"
        )
    if request.name and response.name and request.name != response.name:
        raise UsageError(
            f"{options[0]} and {options[1]}: a pair has one name, not {request.name!r} and {response.name!r}; keep one"
        )
    return RulePair(request.name or response.name or name, request, response, match, options)


def named_pairs(requests: Sequence[str], responses: Sequence[str], match: str) -> tuple[RulePair, ...]:
    """Read rules for requests, each with the one for its responses.

    Parameters
    ----------
    requests, responses : sequence of str
        As many.
    match : str
        Of `MATCHES`.

    Raises
    ------
    UsageError
        A rule is none, two do not go together, or two pairs have one name.
    """
    pairs = tuple(
        pair_rules(
            parse_rule(request, "--request"),
            parse_rule(response, "--response"),
            name=f"rule{number}",
            match=match,
            options=("--request", "--response"),
        )
        for number, (request, response) in enumerate(zip(requests, responses, strict=True), 1)
    )
    taken = set(KNOWN)
    for pair in pairs:
        if pair.name in taken:
            raise UsageError(f"--request: the name {pair.name!r} is taken; write another, as name=orders")
        taken.add(pair.name)
        if pair.match == "key" and pair.request.key.kind == "none":
            raise UsageError(
                f"--match key: {pair.name} has no key to match by; add one to both of its rules, as key=payload[0:8]"
            )
    return pairs


class Finder(ABC):
    """Finds which frames of a batch are requests and responses, and under what key.

    Of UDP datagrams in IP fragments no frame is one or the other: they are asked for once they are put together.

    Attributes
    ----------
    name : str
    without_key, matched_both : int
        Frames that a filter let through but that lack the key, and frames that both filters let through, which count
        as requests.
    by_id_alone : int
        DNS messages that are cut within their question, and responses without one.
    counts : dict of str to MatchCounts
        By option, what its filter matched.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.without_key = 0
        self.matched_both = 0
        self.by_id_alone = 0
        self.counts: dict[str, MatchCounts] = {}
        self._kinds = np.zeros(0, np.uint8)
        self._keys = np.zeros((0, 3), np.uint64)

    def find(self, batch: FrameBatch) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """Return kinds and keys as `uspcap.protocols.rule_search` fills them; of use until the next call."""
        self._make_room(batch)
        self._find(batch)
        return self._kinds, self._keys

    def find_datagrams(self, batch: FrameBatch) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """Return the same for reassembled datagrams, which have no link layer."""
        return self.find(batch)

    def _make_room(self, batch: FrameBatch) -> None:
        if self._kinds.shape[0] < batch.count:
            self._kinds = np.zeros(batch.capacity, np.uint8)
            self._keys = np.zeros((batch.capacity, 3), np.uint64)

    def absorb(self, later: Finder) -> None:
        """Add what another finder counted."""
        self._absorb_counts(later.without_key, later.matched_both, later.by_id_alone, later.counts)

    def _absorb_counts(
        self, without_key: int, matched_both: int, by_id_alone: int, counts: Mapping[str, MatchCounts]
    ) -> None:
        self.without_key += without_key
        self.matched_both += matched_both
        self.by_id_alone += by_id_alone
        for option, counted in counts.items():
            self.counts.setdefault(option, MatchCounts()).append(counted)

    @property
    def has_key(self) -> bool:
        """Whether anything but the two ends identifies an exchange."""
        return True

    @property
    def hints(self) -> list[str]:
        """Hints about filters that match nothing and would with their other reading, and about keys that are cut."""
        remedy = "--outer applies rules to those"
        hints = [counts.hint_for(f"the rule of {option}", remedy) for option, counts in self.counts.items()]
        if self.by_id_alone:
            hints.append(
                f"{self.name}: {self.by_id_alone:,} messages are cut within their question, or are responses without "
                "one, and were matched by ID alone: queries for A and AAAA under one ID count as one, and a response "
                "without a question answers no query that has one"
            )
        return [hint for hint in hints if hint]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle what was counted, and what the finder looks for."""
        return _restored, (self.again, self.without_key, self.matched_both, self.by_id_alone, self.counts)

    @property
    @abstractmethod
    def again(self) -> Callable[[], Finder]:
        """Makes another one, which has found nothing yet."""

    @abstractmethod
    def _find(self, batch: FrameBatch) -> None: ...


def _restored(
    make: Callable[[], Finder],
    without_key: int,
    matched_both: int,
    by_id_alone: int,
    counts: Mapping[str, MatchCounts],
) -> Finder:
    """Return what was pickled."""
    finder = make()
    finder._absorb_counts(without_key, matched_both, by_id_alone, counts)
    return finder


class KnownFinder(Finder):
    """Requests and responses of a protocol of `KNOWN`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._protocol = PROTOCOLS[name]

    @property
    def again(self) -> Callable[[], KnownFinder]:
        return partial(KnownFinder, self.name)

    def _find(self, batch: FrameBatch) -> None:
        _, without_key, by_id_alone = find_known(self._protocol, batch, batch.headers, self._kinds, self._keys)
        self.without_key += without_key
        self.by_id_alone += by_id_alone


class RuleFinder(Finder):
    """Requests and responses of a pair of rules.

    A rule that applies to a link layer, which a reassembled datagram has not, is checked on first fragments.
    """

    def __init__(self, pair: RulePair) -> None:
        super().__init__(pair.name)
        self._pair = pair
        self._sides: Sequence[tuple[int, str, Key, FrameFilter, NDArray[np.uint8]]] = [
            (
                kind,
                option,
                rule.key,
                filter_of_files(rule.expression, outer=pair.outer),
                np.frombuffer(rule.key.tag or b"=", np.uint8),
            )
            for kind, option, rule in zip((REQUEST, RESPONSE), pair.options, (pair.request, pair.response), strict=True)
        ]
        self._match = MATCHES[pair.match]
        self.counts = {option: frame_filter.counts for _, option, _, frame_filter, _ in self._sides}

    @property
    def has_key(self) -> bool:
        return self._pair.request.key.kind != "none"

    @property
    def again(self) -> Callable[[], RuleFinder]:
        return partial(RuleFinder, self._pair)

    def _find(self, batch: FrameBatch) -> None:
        self._find_for(batch, self._sides)

    def find_datagrams(self, batch: FrameBatch) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        self._make_room(batch)
        self._find_for(batch, [side for side in self._sides if _is_of_packets(side[3].expression)])
        return self._kinds, self._keys

    def _find_for(
        self, batch: FrameBatch, sides: Sequence[tuple[int, str, Key, FrameFilter, NDArray[np.uint8]]]
    ) -> None:
        self._kinds[: batch.count] = 0
        for kind, option, key, frame_filter, tag in sides:
            try:
                mask, matched = frame_filter.matches(batch)
            except FilterError as error:
                raise FilterError(f"{option}: {error}") from error
            if matched:
                without_key, both = find_by_rule(
                    batch, batch.headers, kind, mask, KEY_KINDS[key.kind], key.first, key.end, tag, self._match,
                    _is_of_packets(frame_filter.expression), self._kinds, self._keys,
                )  # fmt: skip
                self.without_key += without_key
                self.matched_both += both


@cache
def _is_of_packets(expression: str) -> bool:
    """Whether a filter makes sense for packets without a link layer."""
    try:
        compile_filter(expression, RAW_IPV4, netmask=0, file_byte_order="little")
    except FilterError:
        return False
    return True
