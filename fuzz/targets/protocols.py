"""Tables of feeds in TOML: every field with values of any type and size; what is taken is followed over frames."""

import json
from random import Random
from typing import Any

import files
import packets
import streams
from values import START_NS, number

from uspcap.errors import UspcapError
from uspcap.protocols.feeds import find_protocol
from uspcap.protocols.line_pairs import parse_pairs

DROPS_KEYS = True

_NAMES = (
    *("title", "source", "verified", "framing", "numbers", "endian", "header", "sequence", "count", "length", "part"),
    *("length_adds", "key", "key_format", "checks", "kind", "data", "heartbeats", "ends", "resets", "heartbeat"),
    *("heartbeat_count", "end_count", "header_only_is_request", "unnumbered", "wraps", "ports", "unverified"),
)


def _any(random: Random) -> Any:
    whole = number(random, 65, signed=True)
    return random.choice(
        (
            whole,
            str(whole),
            1.5,
            True,
            [],
            [whole],
            [number(random, 5), number(random, 4)],
            [[number(random, 16), number(random, 4)]],
            [{"place": [number(random, 6), 1], "values": [whole]}],
            [{"place": [0, 1], "not": []}],
            {"place": whole},
            "big",
            "next",
            "messages",
        )
    )


def generate(random: Random) -> Any:
    name, table = random.choice(sorted(packets.feed_tables().items()))
    table = json.loads(json.dumps(table))
    for _ in range(random.choice((0, 1, 1, 2, 3))):
        table[random.choice((*table, *_NAMES))] = _any(random)
    if "sequence" in table and random.random() < 0.2:
        table["sequence"] = [number(random, 16), number(random, 5)]
    state: dict[str, Any] = {}
    frames = [packets.feed(name)(random, state) for _ in range(3)]
    return {"table": table, "frames": frames, "pairs": random.random() < 0.1}


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)} = {_toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value.encode("utf-8", "replace").decode())
    return str(value)


def run(value: Any) -> None:
    table = value.get("table", {})
    text = "[made]\n" + "".join(f"{json.dumps(name)} = {_toml(inner)}\n" for name, inner in table.items())
    path = files.written(text.encode("utf-8", "replace"), "protocol.toml")
    try:
        if value.get("pairs"):
            parse_pairs([path])
            return
        protocol = find_protocol(path, unverified=True)
    except UspcapError as error:
        assert "\n" not in str(error)
        return
    from uspcap.analysis.sequence.streams import sequence_of

    analysis = sequence_of(protocol, maximum_streams=4)
    analysis.update(streams.batch_of([(START_NS, frame, 0, 5, 0, 0, 0) for frame in value.get("frames", ())], 1))
    streams.check_numbers(analysis.result().as_dict(), "sequence")
