"""Two captures compared: delays, losses and clocks from the ends of int64, by every key and clock."""

import io
from random import Random
from typing import Any, Literal

import files
import packets
from support.capture_files import interface, option, packet, section
from values import number, timestamps

from uspcap.comparison.captures import Settings, compare_captures
from uspcap.errors import UspcapError
from uspcap.report.comparison import comparison_page, comparison_report
from uspcap.report.renderers.json import write_json
from uspcap.report.renderers.text import as_text

KEYS = ("network", "payload", "whole", "fields")
CLOCKS: tuple[Literal["auto", "same", "offset"], ...] = ("auto", "same", "offset")


def generate(random: Random) -> Any:
    state: dict[str, Any] = {}
    count = random.choice((1, 2, 5, random.randrange(40)))
    frames = [random.choice((packets.plain, packets.segment, packets.request))(random, state) for _ in range(count)]
    times = timestamps(random, count)
    delay = random.choice((0, 1000, 10**6, number(random, 63), -number(random, 40)))
    a = list(zip(times, frames, strict=True))
    b = [(at + delay + random.randrange(100), frame) for at, frame in a if random.random() < 0.9]
    if random.random() < 0.3:
        random.shuffle(b)
    return {
        "a": a,
        "b": b,
        "key": random.randrange(4),
        "clock": random.randrange(3),
        "window": random.choice((1, 1000, 10**8, number(random, 63) or 1)),
        "offset": random.choice((None, None, delay, number(random, 63, signed=True))),
        "show": random.random() < 0.2,
    }


def _capture(rows: list[Any], name: str) -> str:
    # An offset lets timestamps before 1970 be written.
    head = option(9, b"\x09") + option(14, (-(1 << 33)).to_bytes(8, "little", signed=True)) + option(0, b"")
    content = section() + interface(options=head)
    for at, frame in rows:
        content += packet(max(0, min((1 << 64) - 1, at + (1 << 33) * 10**9)), frame)
    return files.written(content, name)


def run(value: Any) -> None:
    settings = Settings(
        KEYS[value["key"] % 4],
        CLOCKS[value["clock"] % 3],
        max(1, min((1 << 63) - 1, value["window"])),
        None if value["offset"] is None else max(-(1 << 63) + 1, min((1 << 63) - 1, value["offset"])),
    )
    try:
        comparison = compare_captures(_capture(value["a"], "a"), _capture(value["b"], "b"), settings)
        report = comparison_report(comparison)
    except UspcapError as error:
        assert "\n" not in str(error)
        return
    write_json(report, io.StringIO())
    if value["show"]:
        as_text(comparison_page(report), 100)
    assert comparison.matched + comparison.only_a <= len(value["a"])
    assert comparison.matched + comparison.only_b <= len(value["b"])
