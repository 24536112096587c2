"""Numbered protocols as data: positions of session, sequence number and count, and what packets without messages mean.

`feeds.toml` has what is shipped, and says what each name means; users give files of the same form, or one rule on the
command line. `uspcap.protocols.feed_rule.FeedRule` is what the compiled loop takes. Numbers that TCP carries lie at no
fixed place: such a protocol has no rule, and `framing` names the code that reads it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from uspcap.errors import UsageError
from uspcap.protocols.feed_rule import FeedRule
from uspcap.protocols.toml_tables import (
    LONGEST_NAME,
    ArrayOf,
    Flag,
    Form,
    OneOf,
    Place,
    TableOf,
    Text,
    Whole,
    refuse,
    tables_of,
)

MOST_KEY_BYTES: Final = 16

FAR_BYTES: Final = 1 << 30
"""The largest window of TCP (RFC 7323, 2.3): a segment farther away than this is of another connection."""

_TCP_MODULUS: Final = 1 << 32

Framing = Literal["udp", "tcp", "fix", "soupbintcp"]

_NUMBERED_OVER_TCP: Final = {"tcp": "bytes", "fix": "messages", "soupbintcp": "messages"}

_FARTHEST: Final = (1 << 16) - 1
"""Offset within the payload of a UDP packet."""

_FIELD: Final = Place(_FARTHEST, 8)
_VALUE: Final = Whole(0, (1 << 64) - 1)
_VALUES: Final = ArrayOf(_VALUE, 1, 8)

_ABOUT: Final[Mapping[str, Form]] = {
    "title": Text(500),
    "source": Text(500),
    "verified": Flag(),
    "framing": OneOf(("udp", *_NUMBERED_OVER_TCP)),
    "numbers": OneOf(("messages", "packets", "bytes")),
}
"""Keys of any protocol."""

_RULES: Final[Mapping[str, Form]] = {
    "endian": OneOf(("big", "little")),
    "header": Whole(1, _FARTHEST),
    "sequence": _FIELD,
    "count": _FIELD,
    "length": _FIELD,
    "length_adds": Whole(-_FARTHEST, _FARTHEST),
    "part": _FIELD,
    "key": ArrayOf(Place(_FARTHEST, 16), 0, 4),
    "key_format": OneOf(("text", "hex")),
    "checks": ArrayOf(TableOf({"place": _FIELD, "values": _VALUES, "not": _VALUES}, ("place",)), 0, 4),
    "kind": _FIELD,
    "data": _VALUES,
    "heartbeats": _VALUES,
    "ends": _VALUES,
    "resets": _VALUES,
    "heartbeat": OneOf(("next", "last", "none")),
    "heartbeat_count": _VALUE,
    "end_count": _VALUE,
    "header_only_is_request": Flag(),
    "unnumbered": _VALUE,
    "wraps": Flag(),
    "ports": ArrayOf(Whole(1, _FARTHEST), 0, 64),
}
"""Keys of what UDP carries; `feeds.toml` says what they mean."""

_NEEDED: Final = ("numbers", "endian", "header", "sequence")

_UDP: Final = TableOf(
    {**_ABOUT, **_RULES, "unverified": TableOf(_RULES)},
    _NEEDED,
    "a table of keys, under [name-of-the-protocol]",
)
_OVER_TCP: Final = TableOf(_ABOUT, ("numbers",), "a table of a protocol that TCP carries")

_NEEDS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("heartbeat_count", "end_count", "header_only_is_request"), "count"),
    **dict.fromkeys(("data", "heartbeats", "ends", "resets"), "kind"),
    "kind": "data",
    "length_adds": "length",
}
"""Keys that mean nothing without another."""

_OF_FIELD: Final[Mapping[str, str]] = {
    **dict.fromkeys(("heartbeat_count", "end_count"), "count"),
    **dict.fromkeys(("data", "heartbeats", "ends", "resets"), "kind"),
    "unnumbered": "sequence",
}
"""Values, and the field that must be able to hold them."""


@dataclass(frozen=True, slots=True)
class FeedProtocol:
    """A protocol as its table has it.

    Attributes
    ----------
    name, title, source : str
    framing : {'udp', 'tcp', 'fix', 'soupbintcp'}
        How numbers are read: in UDP packets, by `rule`; TCP's own; of messages in TCP streams.
    numbers : {'messages', 'packets', 'bytes'}
        What the sequence number counts.
    verified : bool
        The numbering as a whole is known from a specification or from captures.
    ports : tuple of int
        Ports that are typical.
    text_key : bool
        The session's bytes are text.
    unverified : tuple of str
        Rules that are only applied where that was asked for.
    applied : tuple of str
        Of these, those that are.
    rule : FeedRule or None
        None where the framing is not UDP's.
    conditions : int
        How many fields of a packet must have a value or a length that the table says, or add up.
    """

    name: str
    title: str
    source: str
    framing: Framing
    numbers: Literal["messages", "packets", "bytes"]
    verified: bool
    ports: tuple[int, ...]
    text_key: bool
    unverified: tuple[str, ...]
    applied: tuple[str, ...]
    key_bytes: int
    rule: FeedRule | None
    conditions: int = 0

    @property
    def over(self) -> Literal["udp", "tcp"]:
        """The transport protocol."""
        return "udp" if self.framing == "udp" else "tcp"

    @property
    def modulus(self) -> int:
        """The number of values after which numbers wrap; 0 where they do not."""
        if self.rule is None:
            return _TCP_MODULUS if self.framing == "tcp" else 0
        return 1 << self.rule.number_bits if self.rule.wraps else 0

    @property
    def highest(self) -> int:
        """The highest number that there can be."""
        if self.rule is None:
            return (_TCP_MODULUS if self.framing == "tcp" else 1 << 64) - 1
        return (1 << self.rule.number_bits) - 1

    @property
    def far(self) -> int:
        """What is farther than this from the expected number restarts a stream; 0 where numbers that fall to 1 do."""
        return FAR_BYTES if self.framing == "tcp" else 0

    def key_text(self, key: bytes) -> str:
        """Return the session and channel of a stream as text; empty where the protocol has none."""
        key = key[: self.key_bytes]
        if self.text_key and all(32 <= byte < 127 for byte in key):
            return key.decode("ascii").strip()
        return key.hex()


def protocols() -> list[str]:
    """Return the names of the shipped protocols."""
    return list(_shipped())


@cache
def _shipped() -> Mapping[str, Mapping[str, Any]]:
    text = (resources.files("uspcap.protocols") / "feeds.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def find_protocol(name: str, *, unverified: bool = False) -> FeedProtocol:
    """Return a protocol that is shipped, or the only one of a TOML file.

    Raises
    ------
    UsageError
        There is no such name or file, the file is no table, or the protocol is not verified and that was not allowed.
    """
    if name.endswith(".toml"):
        tables = tables_of(name)
        if len(tables) != 1:
            raise UsageError(f"{name}: has {len(tables)} tables; a file has one, [name-of-the-protocol]")
        ((protocol, table),) = tables.items()
        Text(LONGEST_NAME).check(protocol, f"{name}: the name of its table")
        check_table(table, f"{name}: {protocol}")
        # Who writes a table answers for it.
        return protocol_of(protocol, {"verified": True} | table, unverified=unverified)
    table = _shipped().get(name)
    if table is None:
        raise UsageError(f"unknown protocol {name!r}: 'uspcap protocols' lists them, or give a file.toml")
    if not table["verified"] and not unverified:
        raise UsageError(f"{name} is not verified ({table['source']}): use --unverified to take it anyway")
    return protocol_of(name, table, unverified=unverified)


def check_table(table: Any, where: str) -> None:
    """Check the table of a protocol.

    Parameters
    ----------
    table : object
        What a TOML file has for it.
    where : str
        What names it in messages.

    Raises
    ------
    UsageError
        It is no table of a protocol, or does not make sense; in one sentence that names the key.
    """
    framing = table.get("framing") if isinstance(table, dict) else None
    if isinstance(framing, str) and framing in _NUMBERED_OVER_TCP:
        _OVER_TCP.check(table, where)
        if table["numbers"] != _NUMBERED_OVER_TCP[framing]:
            raise refuse(table["numbers"], f"{where}.numbers", f"{_NUMBERED_OVER_TCP[framing]!r} for this framing")
        return
    _UDP.check(table, where)
    _check_sense({key: value for key, value in table.items() if key != "unverified"}, where)
    if table.get("unverified"):
        _check_sense({**table, **table["unverified"]}, f"{where} with its unverified rules")


def _check_sense(table: Mapping[str, Any], where: str) -> None:
    """Check the consistency of several keys."""
    numbers = table["numbers"]
    if numbers == "bytes" or (numbers == "messages") != ("count" in table):
        raise UsageError(
            f"{where}: numbers of messages need count, the messages of a packet; numbers of packets must not have it"
        )
    for key, needed in _NEEDS.items():
        if key in table and needed not in table:
            raise UsageError(f"{where}.{key} has no meaning without {needed}; add that, or leave both out")
    places = {key: table[key] for key in ("sequence", "count", "length", "part", "kind") if key in table}
    places |= {f"key[{at}]": place for at, place in enumerate(table.get("key", ()))}
    places |= {f"checks[{at}].place": check["place"] for at, check in enumerate(table.get("checks", ()))}
    for key, (offset, size) in places.items():
        if offset + size > table["header"]:
            raise UsageError(
                f"{where}.{key} ends at byte {offset + size}, beyond the header of {table['header']} bytes"
            )
    if sum(size for _, size in table.get("key", ())) > MOST_KEY_BYTES:
        raise UsageError(f"{where}.key has more than {MOST_KEY_BYTES} bytes in all; name fewer")
    for at, check in enumerate(table.get("checks", ())):
        if ("values" in check) == ("not" in check):
            raise UsageError(f"{where}.checks[{at}] needs either values or not")
        (of,) = check.keys() - {"place"}
        _check_fits(check[of], check["place"][1], f"{where}.checks[{at}].{of}")
    for key, field in _OF_FIELD.items():
        if key in table and field in table:
            _check_fits(table[key], table[field][1], f"{where}.{key}")


def _check_fits(value: int | list[int], size: int, where: str) -> None:
    """Check that a field of so many bytes can hold a value, or each of some."""
    form = Whole(0, (1 << 8 * size) - 1)
    (ArrayOf(form, 1, 8) if isinstance(value, list) else form).check(value, where)


def parse_sequence(text: str) -> FeedProtocol:
    """Return the protocol that a command line describes: `offset=4,size=4,endian=big,kind=packet`.

    Also `count=OFFSET:SIZE` for kind=message, `key=OFFSET:SIZE` (repeated), `wraps=yes`.

    Raises
    ------
    UsageError
        It is none.
    """
    given: dict[str, str] = {}
    keys: list[list[int]] = []
    try:
        for part in text.split(","):
            name, equals, value = part.strip().partition("=")
            if not equals or name not in ("offset", "size", "endian", "kind", "count", "key", "wraps") or name in given:
                raise ValueError(f"{part.strip()!r}")
            if name == "key":
                keys.append(_place(value))
            else:
                given[name] = value
        table: dict[str, Any] = {
            "numbers": {"packet": "packets", "message": "messages"}[given.get("kind", "packet")],
            "endian": given.get("endian", "big"),
            "sequence": [int(given["offset"]), int(given["size"])],
            "key": keys,
            "wraps": {"yes": True, "no": False}[given.get("wraps", "no")],
        }
        if "count" in given:
            table |= {"count": _place(given["count"]), "heartbeat": "none", "heartbeat_count": 0}
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"--sequence {text}: {error} is not understood; write offset=4,size=4,endian=big,kind=packet, and for "
            "kind=message count=OFFSET:SIZE"
        ) from None
    places = [table["sequence"], *keys, *([table["count"]] if "count" in table else [])]
    # What is no place is refused for that, and not for the header that it would need.
    table["header"] = min(max(1, *(offset + size for offset, size in places)), _FARTHEST)
    check_table(table, f"--sequence {text}: it")
    return protocol_of("given", table | {"source": "given on the command line", "verified": True}, unverified=False)


def _place(text: str) -> list[int]:
    offset, _, size = text.partition(":")
    return [int(offset), int(size)]


def protocol_of(name: str, table: Mapping[str, Any], *, unverified: bool) -> FeedProtocol:
    """Return the protocol of a table that was checked, or is shipped."""
    doubtful: Mapping[str, Any] = table.get("unverified", {})
    merged = {**table, **(doubtful if unverified else {})}
    framing = merged.get("framing", "udp")
    return FeedProtocol(
        name,
        merged.get("title", ""),
        merged.get("source", ""),
        framing,
        merged["numbers"],
        merged["verified"],
        tuple(merged.get("ports", ())),
        merged.get("key_format") == "text",
        tuple(doubtful),
        tuple(doubtful) if unverified else (),
        sum(size for _, size in merged.get("key", ())),
        _rule(merged) if framing == "udp" else None,
        len(merged.get("checks", ())) + sum(name in merged for name in ("length", "part", "kind")),
    )


def _rule(table: Mapping[str, Any]) -> FeedRule:
    big = {"big": True, "little": False}[table["endian"]]

    def place(name: str) -> tuple[int, int, bool]:
        offset, size = table.get(name, (0, 0))
        return offset, size, big

    heartbeat = table.get("heartbeat", "none")
    without_messages = table.get("heartbeat_count")
    kinds = None
    if "kind" in table:
        kinds = [(place("kind"), table.get(name, [])) for name in ("data", "heartbeats", "ends", "resets")]
    return FeedRule(
        header_bytes=table["header"],
        sequence=place("sequence"),
        count=place("count"),
        length=place("length"),
        length_adds=table.get("length_adds", 0),
        part=place("part"),
        keys=[tuple(key) for key in table.get("key", ())],
        checks=[
            ((*check["place"], big), check.get("values") or check["not"], "not" in check)
            for check in table.get("checks", ())
        ],
        kinds=kinds,
        heartbeat_count=without_messages if heartbeat != "none" else None,
        end_count=table.get("end_count"),
        excluded_count=without_messages if heartbeat == "none" else None,
        unnumbered=table.get("unnumbered"),
        heartbeat_is_last=heartbeat == "last",
        header_only_is_request=table.get("header_only_is_request", False),
        wraps=table.get("wraps", False),
    )
