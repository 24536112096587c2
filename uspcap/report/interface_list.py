"""The list of interfaces in a terminal."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from uspcap.backends.listing import XDP_MODES, ListedInterface, Listing
from uspcap.foreign_text import safe_text
from uspcap.report.terminal_table import print_line, print_paragraph

_LINK_TYPES: Final = {"ETHERNET": "Ethernet", "RAW": "raw IP"}
_STYLES: Final = {"up": "green", "no carrier": "yellow", "down": "dim"}
_STAMPS: Final = {"no clock": "every frame, by a clock that cannot be read"}
_SCHEMA_FILE: Final = "uspcap.interfaces.1.schema.json"
_HANG: Final = "    "


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema of `uspcap capture -D --format json`."""
    text = resources.files("uspcap.report").joinpath(_SCHEMA_FILE).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def render(listing: Listing, console: Console) -> None:
    """Print interfaces by index: name and state in a line, then what each backend can do, and who uses it."""
    for one in listing.interfaces:
        heading = Text(f"{one.index}. ", style="dim") + Text(safe_text(one.name), style="bold")
        print_line(console, heading + Text("  ") + Text(one.state, style=_STYLES[one.state]), indent="")
        for line in _lines(one):
            print_paragraph(console, line, lead=_HANG)
    if listing.unseen:
        print_paragraph(
            console,
            f"Users in other network namespaces may be missing, which could not be looked into: {listing.unseen}.",
        )


def _lines(one: ListedInterface) -> list[str]:
    """Return what there is to say of an interface, a paragraph each."""
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
        stamps = f"hardware timestamps: {_STAMPS.get(one.hardware_timestamps, one.hardware_timestamps)}"
        if one.hardware_timestamps != "none":
            stamps += ", for XDP too" if one.xdp_timestamps else ", not for XDP"
        lines.append(stamps)
    if one.program:
        lines.append(f"XDP program: {one.program}")
    lines += [f"in use: {use.removeprefix(f'{one.name} ')}" for use in one.uses]
    return lines
