"""Streams of frames for analyses, as plain values; running them whole and in parts, and what must hold then."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import jsonschema
import numpy as np
import packets
from values import number, timestamps

from uspcap.analysis.protocol_options import ORDER_PROTOCOLS
from uspcap.analysis.sequence.settings import SequenceSettings
from uspcap.analysis.suite import Outcome, Settings, Suite
from uspcap.errors import UspcapError
from uspcap.frames import UNTRUSTED, FrameBatch, Interface, TimestampSource
from uspcap.protocols.feeds import find_protocol, parse_sequence
from uspcap.protocols.line_pairs import parse_pairs
from uspcap.protocols.rules import Key, Rule, RulePair
from uspcap.report.document import RunReport, build_report, source_of
from uspcap.report.schema import load_schema
from uspcap.timestamps.trailers import FORMATS, TrailerChoice, TrailerStage

Stream = dict[str, Any]

RULES = (
    RulePair(
        "ports",
        Rule("", "udp src port 1001 or udp src port 1003", Key("payload", 0, 2)),
        Rule("", "udp src port 1002", Key("payload", 2, 4)),
        "key",
    ),
    RulePair("near", Rule("", "udp src port 1001"), Rule("", "udp src port 1002"), "key"),
    RulePair(
        "fix",
        Rule("", "tcp dst port 24001", Key("tag", tag=b"11=")),
        Rule("", "tcp src port 24001", Key("tag", tag=b"11=")),
        "flow",
    ),
)
NUMBERED = (
    "offset=0,size=1,wraps=yes",
    "offset=0,size=2,wraps=yes,key=2:2",
    "offset=0,size=4,wraps=yes,endian=little",
    "offset=0,size=8",
    "offset=0,size=8,wraps=yes",
    "offset=0,size=4,kind=message,count=4:2",
    "offset=0,size=8,kind=message,count=8:8",
)
OVER_TCP = ("tcp", "fix", "ouch-4.2", "ouch-5.0")
PAIR = "A=233.252.0.1:30001,B=233.252.0.2:30001"


def stream(random: Random, name: str) -> Stream:
    """Return one to some dozens of frames that an analysis looks into, where to cut them, and how it is set."""
    count = random.choice((1, 2, 3, *(random.randrange(4, 12) for _ in range(4)), random.randrange(12, 60)))
    settings: dict[str, Any] = {
        "max_flows": random.choice((1, 2, 3, 5, 8192)),
        "gap_threshold": random.choice((None, None, 0, 1, 1000, number(random, 63))),
        "line_rate": random.choice((None, 1, 10**10, number(random, 62) or 1)),
        "framing": random.random() < 0.5,
        "tunnels": random.random() < 0.3,
        "top": random.choice((1, 2, 10)),
        "timeout": random.choice((1, 10_000, 5 * 10**9, 1 << 60, number(random, 60) or 1)),
        "quorum": random.choice((None, None, 1, 2, "majority")),
        "rule": random.randrange(len(RULES)),
        "trailer": random.choice(sorted(FORMATS)),
        "protocol": "rtp",
    }
    make = packets.plain
    if name in ("sequence", "arbitration"):
        kind = random.random()
        if kind < 0.3 and name == "sequence":
            settings["protocol"] = random.choice(OVER_TCP)
            make = packets.orders("fix" if settings["protocol"] in ("tcp", "fix") else settings["protocol"])
        elif kind < 0.5:
            settings["protocol"] = random.choice(NUMBERED)
            size = int(settings["protocol"].split("size=")[1][0])

            def make(random: Random, state: dict[str, Any]) -> bytes:
                order = "little" if "little" in settings["protocol"] else "big"
                payload = packets.walk(random, state, "number", 8 * size).to_bytes(size, order)
                payload += number(random, 16).to_bytes(8, "big") if size == 8 else b"\0\1\0\2"
                destination = random.choice((30001, 30001, 30002))
                return packets.datagram(random, payload + b"xy", source=7, destination=destination)
        else:
            settings["protocol"] = random.choice(("moldudp64", "rtp", *packets.feed_tables()))
            make = packets.feed(settings["protocol"])
    elif name == "orders":
        settings["order_protocol"] = random.choice((None, "ouch-4.2", "ouch-5.0", "fix"))
        make = packets.orders(settings["order_protocol"] or random.choice(("ouch-4.2", "ouch-5.0", "fix")))
    elif name in ("requests", "tick_to_trade"):
        make = packets.request
    elif name == "tcp":
        make = random.choice((packets.segment, packets.segment, packets.plain))
    elif name == "trailer":
        make = packets.timestamped(settings["trailer"])
    state: dict[str, Any] = {}
    frames = [make(random, state) for _ in range(count)]
    if name == "sequence" and random.random() < 0.3:
        frames = [piece for frame in frames for piece in packets.in_fragments(random, frame)]
        count = len(frames)
    if random.random() < 0.1 and frames:
        frames += [random.choice(frames) for _ in range(count)]
    times = timestamps(random, len(frames))
    untrusted = random.choice((0, 0, 0, 0.1, 0.9))
    sources = random.choice(((5,), (3, 0), (3, 0, 4, 6), (1,), (2,)))
    rows = [
        (
            at,
            frame,
            number(random, 16) if random.random() < 0.05 else 0,
            random.choice(sources) | (UNTRUSTED if random.random() < untrusted else 0),
            random.choice((0, at, number(random, 64, signed=True))) if name == "path_latency" else 0,
            number(random, 32) if random.random() < 0.2 else 0,
            number(random, 64) if random.random() < 0.05 else 0,
        )
        for at, frame in zip(times, frames, strict=True)
    ]
    cuts = sorted(random.randrange(len(rows) + 1) for _ in range(random.choice((0, 1, 1, 2, 3))))
    return {
        "frames": rows,
        "cuts": cuts,
        "batch": random.choice((1, 2, 4096) if len(rows) <= 12 else (7, 4096)),
        "unclamped": random.random() < 0.4,
        "pickled": random.random() < 0.1,
        "settings": settings,
        "validate": random.random() < 0.05,
    }


def _within(value: Any, low: int, high: int) -> int:
    return max(low, min(high, value)) if isinstance(value, int) else low


def settings_of(name: str, given: Mapping[str, Any]) -> Settings:
    """Return the settings of a stream; a mutated value is brought back to what options let through."""
    protocol = given.get("protocol", "rtp")
    arguments: dict[str, Any] = {}
    if name in ("sequence", "arbitration"):
        found = parse_sequence(protocol) if protocol in NUMBERED else find_protocol(protocol, unverified=True)
        arguments = {"settings": SequenceSettings(found, pairs=parse_pairs([PAIR]) if name == "arbitration" else ())}
    rule = RULES[given.get("rule", 0) % len(RULES)]
    shown, timeout_ns = _within(given.get("top"), 1, 10_000), _within(given.get("timeout"), 1, 1 << 60)
    if name in ("inter_arrival", "gaps", "orders", "requests", "tick_to_trade", "tcp"):
        arguments["shown"] = shown
    if name == "gaps" and given.get("gap_threshold") is not None:
        arguments["threshold_ns"] = _within(given["gap_threshold"], 0, (1 << 63) - 1)
    elif name == "bursts" and given.get("line_rate") is not None:
        arguments["line_rate_bps"] = max(1, given["line_rate"])
    elif name == "overhead":
        arguments["framing"] = bool(given.get("framing"))
    elif name == "orders":
        orders = given.get("order_protocol")
        arguments["protocol"] = orders if orders in ORDER_PROTOCOLS else None
    elif name == "requests":
        quorum = given.get("quorum") if rule.match == "key" and rule.request.key.kind != "none" else None
        if isinstance(quorum, int):
            quorum = max(1, quorum)  # the option takes no less
        elif quorum != "majority":
            quorum = None  # nor another text
        arguments |= {"pairs": (rule,), "quorum": quorum, "timeout_ns": timeout_ns}
    elif name == "tick_to_trade":
        arguments |= {"pair": rule, "timeout_ns": timeout_ns}
    return Settings(
        names=(name,),
        maximum_flows=_within(given.get("max_flows"), 1, 1 << 16),
        tunnels=bool(given.get("tunnels")),
        arguments={name: arguments},
        trailer=TrailerChoice(FORMATS[given["trailer"]]) if name == "trailer" else None,
    )


def batch_of(rows: list[tuple[Any, ...]], first_number: int, *, unclamped: bool = False) -> FrameBatch:
    """Return rows of a stream as a batch; its timestamps are clamped as a source's, or any that int64 holds."""
    frames = [row[1] for row in rows]
    batch = FrameBatch.from_frames(
        frames,
        [_within(row[0], -(1 << 63), (1 << 63) - 1) for row in rows],
        wire_lengths=[len(row[1]) + _within(row[2], 0, 0xFFFF) for row in rows],
        interfaces=(Interface(link_type=1),),
        first_frame_number=first_number,
    )
    count = len(rows)
    if unclamped:
        batch.storage("timestamp_ns")[:count] = [_within(row[0], -(1 << 63), (1 << 63) - 1) for row in rows]
    batch.storage("timestamp_source")[:count] = [
        _within(row[3] & ~UNTRUSTED if isinstance(row[3], int) else 0, 0, len(TimestampSource) - 1)
        | (row[3] & UNTRUSTED if isinstance(row[3], int) else 0)
        for row in rows
    ]
    batch.storage("read_ns")[:count] = [_within(row[4], -(1 << 63), (1 << 63) - 1) for row in rows]
    batch.storage("queue")[:count] = [_within(row[5], 0, 0xFFFFFFFF) for row in rows]
    batch.storage("drop_count")[:count] = [row[6] % (1 << 64) for row in rows]
    return batch


def analysed(value: Stream, settings: Settings, first: int, last: int, batch_frames: int) -> Suite:
    """Return the analyses of the frames from `first` to before `last`, numbered from 1."""
    suite = Suite(settings)
    choice = settings.trailer
    stage = None if choice is None or choice.format is None else TrailerStage(choice.format)
    for start in range(first, last, batch_frames):
        rows = value["frames"][start : min(start + batch_frames, last)]
        batch = batch_of(rows, start - first + 1, unclamped=bool(value.get("unclamped")))
        if stage is not None:
            stage.apply(batch)
        if value.get("unclamped"):
            # The first that asks how many were clamped clamps them.
            times = batch.timestamp_ns.copy()
            assert 0 <= batch.clamped <= batch.count
            batch.timestamp_ns[:] = times
        suite.update(batch)
    return suite


def outcome(suite: Suite) -> dict[str, Any]:
    """Return what is to be the same however the frames were cut."""
    return {
        name: (analysis.result().as_dict(), analysis.tables(), analysis.frames_read)
        for name, analysis in suite.analyses.items()
    }


def check_stream(value: Stream, name: str) -> None:
    """Analyse a stream whole and in parts: both must say the same, and no number may be what it cannot be."""
    count = len(value["frames"])
    try:
        settings = settings_of(name, value["settings"])
    except (UspcapError, KeyError, AttributeError, TypeError):
        # What mutation made of the settings no option lets through; options are another target's.
        return
    whole = analysed(value, settings, 0, count, 4096)
    expected = outcome(whole)
    cuts = sorted(_within(cut, 0, count) for cut in value["cuts"])
    parts = [
        analysed(value, settings, first, last, _within(value["batch"], 1, 4096))
        for first, last in pairwise([0, *cuts, count])
    ]
    if value.get("pickled"):
        # As parts come from another process.
        parts = [pickle.loads(pickle.dumps(part)) for part in parts]
    for later in parts[1:]:
        parts[0].merge(later)
    merged = outcome(parts[0])
    assert merged == expected, f"cut at {cuts}: {differences(expected, merged)}"
    for result, tables, _ in expected.values():
        check_numbers(result, name)
        check_numbers(tables, f"{name} tables")
    if value.get("validate"):
        report = build_report(source_of(Outcome(whole, count, files=[{"file": "f", "first_frame": 1}])), whole.analyses)
        validator().validate(report.as_dict())
        show(report)


def show(report: RunReport) -> None:
    """Render a report as the terminal does; nothing is kept."""
    import io

    from uspcap.report.page import report_page
    from uspcap.report.renderers.json import write_json
    from uspcap.report.renderers.text import as_text

    write_json(report, io.StringIO())
    as_text(report_page(report), 100)


@cache
def validator() -> jsonschema.Draft202012Validator:
    """Return what checks reports."""
    return jsonschema.Draft202012Validator(load_schema())


def differences(one: Any, other: Any, where: str = "") -> str:
    """Return the first few places where two results differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping) and one.keys() == other.keys():
        return "; ".join(differences(one[key], other[key], f"{where}.{key}") for key in one if one[key] != other[key])
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        pairs = list(zip(one, other, strict=True))
        return "; ".join(differences(a, b, f"{where}[{at}]") for at, (a, b) in enumerate(pairs) if a != b)
    return f"{where}: {one!r} whole, {other!r} in parts"


SIGNED = ("_ns", "skew", "drift", "ppm", "ppb", "difference", "percent", "s_per_s")
"""Ends of the names of numbers that may be below 0."""


def check_numbers(value: Any, where: str) -> None:
    """Raise where a number that counts or numbers something is below 0, or is none."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if not (isinstance(name, str) and name.endswith(SIGNED)):
                check_numbers(inner, f"{where}.{name}")
    elif isinstance(value, list | tuple | np.ndarray):
        for inner in value:
            check_numbers(inner, where)
    elif isinstance(value, float | np.floating):
        assert np.isfinite(value), f"{where} is {value}"
        assert value >= 0, f"{where} is {value}"
    elif isinstance(value, int | np.integer):
        assert value >= 0, f"{where} is {value}"
