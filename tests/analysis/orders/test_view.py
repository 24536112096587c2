"""What the terminal says of orders."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from support.order_sessions import START_NS, Segment, feed, fix, ouch

from uspcap.analysis.orders.analysis import Orders
from uspcap.analysis.orders.view import section
from uspcap.report.model import Context
from uspcap.report.renderers.text import show_section


def shown(protocol: str | None, segments: Sequence[Segment], width: int = 200, **bounds: Any) -> str:
    stream = io.StringIO()
    result = feed(Orders(protocol, **bounds), segments).result()
    show_section(Console(file=stream, width=width), section(result, Context(one_day=True)))
    return stream.getvalue()


def test_what_has_no_answer_is_listed_with_its_frame() -> None:
    payload = b"".join(ouch("ouch-4.2", "O", order) for order in range(1, 15))
    text = shown("ouch-4.2", [Segment(START_NS, 0, False, 1, payload)])
    assert "unanswered: enter 14" in text
    assert "and 4 requests more" in text
    assert "192.0.2.20:40000 > 192.0.2.200:24001" in text


def test_first_bytes_are_shown_where_they_differ() -> None:
    answer = fix("8", 1, (11, "A"), (150, "0"))
    segments = [
        Segment(START_NS, 0, False, 1, fix("D", 1, (11, "A"))),
        Segment(START_NS + 5_000, 0, True, 1, answer[:30]),
        Segment(START_NS + 9_000, 0, True, 31, answer[30:]),
    ]
    text = shown(None, segments)
    assert "9.000 µs" in text.split("first byte")[0]
    assert "5.000 µs" in text.split("to the first byte")[1]


def test_an_answer_timestamped_before_its_request_is_reported_and_in_no_histogram() -> None:
    segments = [
        Segment(START_NS, 0, False, 1, fix("D", 1, (11, "A"))),
        Segment(START_NS - 5, 0, True, 1, fix("8", 1, (11, "A"), (150, "0"))),
    ]
    assert "enter to accepted: 1 answer timestamped before the request" in shown(None, segments)


def test_a_version_that_fits_worse_is_doubted() -> None:
    segments = [Segment(START_NS, 0, False, 1, ouch("ouch-5.0", "O", 1) * 3)]
    assert "is ouch-4.2 right?" in shown("ouch-4.2", segments)
    assert "right?" not in shown("ouch-5.0", segments)


def test_ids_are_safe_to_show() -> None:
    assert "\x1b" not in shown(None, [Segment(START_NS, 0, False, 1, fix("D", 1, (11, "A\x1b[31m")))])


def test_a_sample_is_called_one() -> None:
    payload = b"".join(ouch("ouch-5.0", "O", order) for order in range(1, 200))
    assert "a sample: one in" in shown("ouch-5.0", [Segment(START_NS, 0, False, 1, payload)], maximum_requests=20)
