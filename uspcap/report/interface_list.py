"""The page of the list of interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from uspcap.backends.listing import XDP_MODES, ListedInterface, Listing
from uspcap.report.model import Page, Severity
from uspcap.report.published import published_schema

_LINK_TYPES: Final = {"ETHERNET": "Ethernet", "RAW": "raw IP"}
_SEVERITIES: Final[Mapping[str, Severity]] = {"up": "ok", "no carrier": "warning", "down": "unknown"}
_TIMESTAMPS: Final = {"no clock": "every frame, by an unreadable clock"}
_SCHEMA_FILE: Final = "uspcap.interfaces.1.schema.json"


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema of `uspcap capture -D --format json`."""
    return published_schema(_SCHEMA_FILE)


def listing_page(listing: Listing) -> Page:
    """Return the page: interfaces by index, the abilities of each backend there, and their users."""
    page = Page()
    for one in listing.interfaces:
        page.head.entry(f"{one.index}. ", one.name, one.state, _SEVERITIES[one.state], _lines(one))
    if listing.unseen:
        page.head.paragraph(
            f"Users in other network namespaces may be missing, which could not be examined: {listing.unseen}."
        )
    return page


def _lines(one: ListedInterface) -> list[str]:
    """Return the facts about an interface, a paragraph each."""
    about = [one.kind] if one.kind else []
    if one.link_type is None:
        about.append("frames of its kind cannot be captured")
    else:
        about.append(_LINK_TYPES.get(one.link_type, one.link_type))
    possible = f" of {one.most_queues}" if one.most_queues > one.queues else ""
    about.append(f"{one.queues}{possible} receive queue" + ("" if one.queues == 1 and not possible else "s"))
    lines = [", ".join(about)]
    if one.other_names:
        lines.append(f"also called {', '.join(one.other_names)}")
    if one.xdp is not None:
        lines.append(f"packet_mmap: yes; af_xdp: {XDP_MODES[one.xdp]}")
        timestamps = f"hardware timestamps: {_TIMESTAMPS.get(one.hardware_timestamps, one.hardware_timestamps)}"
        if one.hardware_timestamps != "none":
            timestamps += ", for XDP too" if one.xdp_timestamps else ", not for XDP"
        lines.append(timestamps)
    if one.program:
        lines.append(f"XDP program: {one.program}")
    lines += [f"in use: {use.removeprefix(f'{one.name} ')}" for use in one.uses]
    return lines
