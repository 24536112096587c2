"""Captures made by others, which lie beside the repository and are no part of it.

They are looked for in `$USPCAP_SHARED/captures`, by default in `shared/captures` next to the repository. Tests that
need them skip where they are missing. In `tests/`, `python -m support.shared_captures` prints the table of
`docs/shared-captures.md`, which says where each comes from.
"""

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

CAPTURES = Path(os.environ.get("USPCAP_SHARED", Path(__file__).parents[3] / "shared")) / "captures"

CASES = CAPTURES.parent / "cases"
"""Inputs on which uspcap was wrong once."""

HAVE_CAPTURES = (CAPTURES / "manifest.json").exists()

needs_captures = pytest.mark.skipif(
    not HAVE_CAPTURES,
    reason=f"no {CAPTURES}/manifest.json; set USPCAP_SHARED to where the shared captures are",
)

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no {CASES}; set USPCAP_SHARED to where it is")


@functools.cache
def manifest() -> list[dict[str, Any]]:
    """Return what other tools say about each capture; nothing where there are none."""
    path = CAPTURES / "manifest.json"
    return json.loads(path.read_text())["files"] if path.exists() else []


def table() -> str:
    """Return where each capture comes from, as the rows of the table in `docs/shared-captures.md`."""
    rows = []
    for entry in manifest():
        excerpt = f" ({entry['excerpt']})" if entry["excerpt"] else ""
        source = f"{entry['source_repo']}: {entry['source_path']}{excerpt}".replace("|", "\\|")
        rows.append(f"| {entry['file']} | {source} | {entry['licence']} | {entry['sha256']} |\n")
    return "".join(rows)


WELL_FORMED = (
    "corrupt/tcpdump__arp-oobr.pcap",
    "fix-orders/nDPI__fix2.pcap",
    "market-data/go-iex__DEEP10_rec1-12236.pcap",
    "market-data/go-iex__TOPS16_rec1-7162.pcap",
    "pcapng-blocks/nDPI__stun_google_meet.pcapng",
    "rtp-mcast/nDPI__FAX-Call-t38-CA-TDM-SIP-FB-1.pcap",
    "rtp-mcast/nDPI__telegram.pcap",
    "snaplen-cut/suricata-verify__enip-keywords__enip_cip_example.pcap",
    "snaplen-cut/zeek__timestamp.pcap",
    "tcp/packets__http_espn.pcapng",
    "tcp/suricata-verify__smb2-frames-gap-payload-logging__smb2-peter-minus-p191.pcap",
    "udp-rr/pcaps__dns.cap",
)
"""Some hundred Ethernet frames each, which every reader takes for the same."""


def fields_of(path: Path, *fields: str) -> list[list[str]]:
    """Return the first occurrence of some of tshark's fields in each frame, '' where there is none."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "occurrence=f", "-E", "separator=|"]
    for preference in ("ip.defragment:FALSE", "tcp.desegment_tcp_streams:FALSE"):
        command += ["-o", preference]
    for field in fields:
        command += ["-e", field]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [line.split("|") for line in output.splitlines()]


if __name__ == "__main__":
    print(table(), end="")
