"""Every capture of the manifest, read whole: what Wireshark's tools and tcpdump counted in it, and when."""

from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest
from support.shared_captures import CAPTURES, manifest, needs_captures, table

from uspcap.formats import open_capture
from uspcap.frames import SourceFacts, TimestampSource

pytestmark = needs_captures


class Totals(NamedTuple):
    """What is counted; the timestamps are those of the first and last frame that has one."""

    packets: int
    bytes_on_wire: int
    bytes_captured: int
    first_ns: int | None
    last_ns: int | None


PSEUDO_HEADER = "tshark takes the 4-byte header of the link type for its own and off both lengths"
SIGNED_FRACTION = "the fraction of the second is beyond a second, where tshark's 32 bits wrap"

# What the manifest cannot know: our totals, and why.
DIFFERENCES = {
    "corrupt/nDPI__fuzz-2021-06-07-c6c72a0a56.pcap": (
        Totals(1, 4093509168, 48, 1953635450562680000, 1953635450562680000),
        f"{SIGNED_FRACTION}; and it takes no length beyond 2147483647",
    ),
    "corrupt/tcpdump__atm-oam-heapoverflow.pcap": (
        Totals(1, 262144, 4, 808464432999999000, 808464432999999000),
        PSEUDO_HEADER,
    ),
    "linktypes/tcpdump__atm-oam-loopback-print-overrun.pcap": (
        Totals(1, 65622, 64, 1544489736821166000, 1544489736821166000),
        f"{PSEUDO_HEADER}; and {SIGNED_FRACTION}",
    ),
    "pcap-variants/nDPI__fuzz-2021-10-13.pcap": (
        Totals(1, 524501, 197, 980658803882137472, 980658803882137472),
        SIGNED_FRACTION,
    ),
}

# Damage, and version 2 of pcapng: what has to be said about it.
PROBLEMS = {
    "corrupt/libpcap__linktype-reserved-field-not-zero.pcap": "reserved bits of the link type field are not zero",
    "corrupt/libpcap__pcapng-invalid-vers-1.pcapng": "pcapng version 0.1 is not one that is known",
    "corrupt/libpcap__shb-option-too-long.pcapng": "the block's two lengths differ",
    "corrupt/suricata-verify__bug-6875-01__fuzz.pcap": "claims 1409179648 captured bytes",
    "pcap-variants/nDPI__fuzz-2021-10-13.pcap": "the file ends 2 bytes into a record",
    "pcapng-blocks/gopacket__le_test901.pcapng": "pcapng version 2.0 is not one that is known",
    "tcp/pcaps__http-fault-post.pcap": "the file ends 2 bytes into a record",
    "time-edge/suricata-verify__bug-1450-04__tls_DER-incomplete-header.pcap": "claims 4325376 captured bytes",
    "time-edge/suricata-verify__bug-1450-05__tls_DER-incomplete-content.pcap": "claims 4325376 captured bytes",
}


def read(file: str) -> tuple[Totals, SourceFacts]:
    packets = on_wire = captured = 0
    timestamps: list[int] = []
    with open_capture(str(CAPTURES / file)) as reader:
        for batch in reader.batches():
            packets += len(batch)
            on_wire += int(batch.wire_length.sum())
            captured += int(batch.captured_length.sum())
            timestamped = batch.timestamp_ns[batch.timestamp_source != TimestampSource.NONE]
            timestamps = [*timestamps[:1], *timestamped[[0, -1]].tolist()] if len(timestamped) else timestamps
    ends = (timestamps[0], timestamps[-1]) if timestamps else (None, None)
    return Totals(packets, on_wire, captured, *ends), reader.facts


def expected_totals(entry: dict) -> dict[str, int | None]:
    """Return the totals that are known of a capture, from the tool that could read all of its packets."""
    if entry["file"] in DIFFERENCES:
        return DIFFERENCES[entry["file"]][0]._asdict()
    if {"0xbad", "0x40000bad"} & set(entry["pcapng_block_counts"] or ()):
        # tshark takes custom blocks for packets, capinfos does not.
        return {"packets": int(entry["capinfos"]["packets"]), "bytes_on_wire": int(entry["capinfos"]["data_bytes"])}
    if entry["status"] in ("unsupported-by-tshark", "corrupt"):
        return {"packets": entry["tcpdump_packets"] or 0}
    first, last = (entry[key] and int(Decimal(entry[key]) * 10**9) for key in ("first_ts", "last_ts"))
    return Totals(entry["packets"], entry["bytes_on_wire"], entry["bytes_captured"], first, last)._asdict()


def test_the_manifest_is_the_one_that_the_exceptions_are_written_for():
    assert {entry["file"] for entry in manifest()} >= {*DIFFERENCES, *PROBLEMS}


@pytest.mark.oracle
@pytest.mark.parametrize("entry", manifest(), ids=lambda entry: entry["file"])
def test_capture_holds_what_other_tools_found(entry):
    totals, facts = read(entry["file"])
    expected = expected_totals(entry)
    assert {name: getattr(totals, name) for name in expected} == expected
    if entry["status"] in ("corrupt", "truncated"):
        assert facts.problems
    assert facts.truncated == (entry["status"] == "truncated")
    problem = PROBLEMS.get(entry["file"])
    if problem is None:
        assert not facts.problems
    else:
        assert problem in facts.problems[0].what


def test_the_page_on_captures_of_others_says_where_each_comes_from() -> None:
    page = Path(__file__).parents[2] / "docs" / "shared-captures.md"
    assert page.read_text(encoding="utf-8").endswith("|---|---|---|---|\n" + table())
