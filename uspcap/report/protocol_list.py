"""The list of feeds whose sequence numbers can be followed: the JSON document, and its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from uspcap.protocols.feeds import FeedProtocol
from uspcap.report.model import Column, Page

SCHEMA: Final = "uspcap.protocols/1"


def protocols_document(listed: Sequence[FeedProtocol]) -> dict[str, Any]:
    """Return the list, ready for JSON."""
    return {
        "schema": SCHEMA,
        "protocols": [
            {
                "name": one.name,
                "title": one.title,
                "over": one.over,
                "numbers": one.numbers,
                "ports": list(one.ports),
                "verified": one.verified,
                "unverified_rules": list(one.unverified),
                "source": one.source,
            }
            for one in listed
        ],
    }


def protocols_page(listed: Sequence[FeedProtocol]) -> Page:
    """Return the page: a row for each protocol, then the source of each."""
    page = Page()
    page.head.table(
        [
            Column("name", [protocol.name for protocol in listed], left=True),
            Column("over", [protocol.over for protocol in listed], left=True),
            Column("numbers", [protocol.numbers for protocol in listed], left=True),
            Column("ports", [", ".join(map(str, protocol.ports)) or "-" for protocol in listed], left=True),
            Column("verified", ["yes" if protocol.verified else "no" for protocol in listed], left=True),
            Column(
                "with --unverified, too", [", ".join(protocol.unverified) for protocol in listed], left=True, rank=1
            ),
            Column("protocol", [protocol.title for protocol in listed], left=True),
        ]
    )
    sources = page.section()
    for one in listed:
        sources.paragraph(f"{one.name}: {one.source}", "note")
    return page
