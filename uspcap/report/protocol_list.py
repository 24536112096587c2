"""The list of feeds whose sequence numbers can be followed: the JSON document, and what is shown of it."""

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
    """Return what is shown: a row each, then where each is known from."""
    page = Page()
    page.head.table(
        [
            Column("name", [one.name for one in listed], left=True),
            Column("over", [one.over for one in listed], left=True),
            Column("numbers", [one.numbers for one in listed], left=True),
            Column("ports", [", ".join(map(str, one.ports)) or "-" for one in listed], left=True),
            Column("verified", ["yes" if one.verified else "no" for one in listed], left=True),
            Column("with --unverified, too", [", ".join(one.unverified) for one in listed], left=True, rank=1),
            Column("protocol", [one.title for one in listed], left=True),
        ]
    )
    sources = page.section()
    for one in listed:
        sources.paragraph(f"{one.name}: {one.source}", "note")
    return page
