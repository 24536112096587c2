"""Numbered protocols as data: where session, sequence number and count lie, and what packets without messages say.

`feeds.toml` has what is shipped, and says what each name means; users give files of the same form, or one rule on the
command line. `uspcap._native.feed_runs.FeedRule` is what the compiled loop takes. Numbers that TCP carries lie at no
fixed place: such a protocol has no rule, and `framing` names the code that reads it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from uspcap._native.feed_runs import FeedRule
from uspcap._native.segment_runs import FAR_BYTES, MODULUS
from uspcap.errors import UsageError
from uspcap.protocols.toml_tables import tables_of

_NAMES: Final = frozenset(
    {
        "title",
        "source",
        "verified",
        "framing",
        "numbers",
        "endian",
        "header",
        "sequence",
        "count",
        "length",
        "length_adds",
        "part",
        "key",
        "key_format",
        "checks",
        "kind",
        "data",
        "heartbeats",
        "ends",
        "resets",
        "heartbeat",
        "heartbeat_count",
        "end_count",
        "header_only_is_request",
        "unnumbered",
        "wraps",
        "ports",
        "unverified",
    }
)


Framing = Literal["udp", "tcp", "fix", "soupbintcp"]

_NUMBERED_OVER_TCP: Final = {"tcp": "bytes", "fix": "messages", "soupbintcp": "messages"}


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

    @property
    def over(self) -> Literal["udp", "tcp"]:
        """What carries it."""
        return "udp" if self.framing == "udp" else "tcp"

    @property
    def modulus(self) -> int:
        """After so many numbers they begin again; 0 where they do not."""
        if self.rule is None:
            return MODULUS if self.framing == "tcp" else 0
        return 1 << self.rule.number_bits if self.rule.wraps else 0

    @property
    def far(self) -> int:
        """What is farther than this from what is expected begins a stream anew; 0 where numbers that fall to 1 do."""
        return FAR_BYTES if self.framing == "tcp" else 0

    def key_text(self, key: bytes) -> str:
        """Return the session and channel of a stream as text; empty where the protocol has none."""
        key = key[: self.key_bytes]
        if self.text_key and all(32 <= byte < 127 for byte in key):
            return key.decode("ascii").strip()
        return key.hex()


def protocols() -> list[str]:
    """Return the names of what is shipped."""
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
        if len(tables) != 1 or not isinstance(next(iter(tables.values())), dict):
            raise UsageError(f"{name}: a file has one table, [name-of-the-protocol]")
        ((protocol, table),) = tables.items()
        # Who writes a table answers for it.
        return protocol_of(protocol, {"verified": True} | table, unverified=unverified)
    table = _shipped().get(name)
    if table is None:
        raise UsageError(f"there is no protocol {name!r}: 'uspcap protocols' lists them, or give a file.toml")
    if not table["verified"] and not unverified:
        raise UsageError(f"{name} is not verified ({table['source']}): say --unverified to take it all the same")
    return protocol_of(name, table, unverified=unverified)


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
            "verified": True,
            "title": "",
            "source": "given on the command line",
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
    table["header"] = max(offset + size for offset, size in places)
    return protocol_of("given", table, unverified=False)


def _place(text: str) -> list[int]:
    offset, _, size = text.partition(":")
    return [int(offset), int(size)]


def protocol_of(name: str, table: Mapping[str, Any], *, unverified: bool) -> FeedProtocol:
    """Return the protocol of a table.

    Raises
    ------
    UsageError
        The table makes no sense.
    """
    doubtful: Mapping[str, Any] = table.get("unverified", {})
    merged = {**table, **(doubtful if unverified else {})}
    unknown = sorted({*table, *doubtful} - _NAMES)
    if unknown:
        raise UsageError(f"protocol {name}: there is no {unknown[0]!r} in a table")
    framing = merged.get("framing", "udp")
    try:
        rule = None
        if framing == "udp":
            rule = _rule(merged)
        elif framing not in _NUMBERED_OVER_TCP:
            raise ValueError(f"framing is udp, {', '.join(_NUMBERED_OVER_TCP)}")
        elif merged["numbers"] != _NUMBERED_OVER_TCP[framing]:
            raise ValueError(f"numbers of {framing} are {_NUMBERED_OVER_TCP[framing]}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"protocol {name}: {what}; see uspcap/protocols/feeds.toml for the form") from None
    return FeedProtocol(
        name,
        str(merged.get("title", "")),
        str(merged.get("source", "")),
        framing,
        merged["numbers"],
        bool(merged["verified"]),
        tuple(merged.get("ports", ())),
        merged.get("key_format") == "text",
        tuple(doubtful),
        tuple(doubtful) if unverified else (),
        sum(size for _, size in merged.get("key", ())),
        rule,
    )


def _rule(table: Mapping[str, Any]) -> FeedRule:
    big = {"big": True, "little": False}[table["endian"]]

    def place(name: str) -> tuple[int, int, bool]:
        offset, size = table.get(name, (0, 0))
        return offset, size, big

    numbers = table["numbers"]
    if numbers not in ("messages", "packets"):
        raise ValueError("numbers is messages or packets")
    if (numbers == "messages") != ("count" in table):
        raise ValueError("messages have a count in each packet, and packets have none")
    heartbeat = table.get("heartbeat", "none")
    if heartbeat not in ("next", "last", "none"):
        raise ValueError("heartbeat is next, last or none")
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
