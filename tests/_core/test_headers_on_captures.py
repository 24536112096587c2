"""Header columns against tshark, frame by frame, over every capture that it reads."""

import shutil
from collections import defaultdict

import numpy as np
import pytest
from support import tshark
from support.shared_captures import CAPTURES, manifest, needs_captures

from uspcap.formats import open_capture
from uspcap.protocols.headers import address_text
from uspcap.protocols.link_types import DECODED_LINK_TYPES

pytestmark = [
    pytest.mark.oracle,
    needs_captures,
    pytest.mark.skipif(
        any(shutil.which(tool) is None for tool in ("tshark", "mergecap", "capinfos")),
        reason="tshark, mergecap and capinfos (Wireshark's tools) are not installed",
    ),
]


def is_comparable(entry):
    """Tell whether Wireshark's tools read all of a capture, and its packets alone."""
    # They take custom blocks of pcapng for packets.
    custom_blocks = {"0xbad", "0x40000bad"} & set(entry["pcapng_block_counts"] or ())
    return entry["status"] in ("ok", "tcpdump-rejects") and entry["packets"] and not custom_blocks


COMPARED = [entry["file"] for entry in manifest() if is_comparable(entry)]


OUTERMOST, INNERMOST = False, True
BOTH = (OUTERMOST, INNERMOST)

ADDRESSES = "source_address destination_address"
PORTS = "source_port destination_port"
TCP_FIELDS = "tcp_sequence tcp_acknowledgment tcp_flags tcp_window"

REFUSED = "tshark shows nothing of an IP header of the wrong version; the link type still says which was meant"
FABRIC_PATH = "tshark takes locally administered MAC addresses for Cisco's FabricPath header, by guess"
WRAPPED = "the datagram is longer than its UDP length can say; tshark calls that malformed and leaves the tunnel shut"
SHORT_TOTAL = "tshark shows nothing of an IP header whose total length is less than the header"
BAD_OPTION = "tshark gives up at an IP option of the wrong length; the header's own length is sound"

# Where tshark says something else: file, modes, cause, number of frames, columns.
DIFFERENCES = {
    (file, tunnels): (cause, frames, set(columns.split()))
    for file, modes, cause, frames, columns in [
        ("corrupt/tcpdump__beep-oobr.pcap", BOTH, REFUSED, 1, "ethertype"),
        ("linktypes/tcpdump__LINKTYPE_IPV4_invalid.pcap", BOTH, REFUSED, 1, "ethertype"),
        ("linktypes/tcpdump__LINKTYPE_IPV6_invalid.pcap", BOTH, REFUSED, 1, "ethertype"),
        ("encap/zeek__cisco-fabric-path.pcap", BOTH, FABRIC_PATH, 65, f"{ADDRESSES} ethertype"),
        ("time-edge/nDPI__ajp.pcap", BOTH, FABRIC_PATH, 12, f"{ADDRESSES} ethertype"),
        (
            "large-packets/tcpdump__bigtcp-ipv4-geneve-ipv4.pcap",
            [INNERMOST], WRAPPED, 1, f"{ADDRESSES} {PORTS} {TCP_FIELDS} protocol ttl ip_id",
        ),
        (
            "large-packets/tcpdump__bigtcp-ipv4-vxlan-ipv4.pcap",
            [INNERMOST], WRAPPED, 1, f"{ADDRESSES} {PORTS} {TCP_FIELDS} protocol ttl ip_id",
        ),
        (
            "large-packets/tcpdump__bigtcp-ipv4-vxlan-ipv6.pcap",
            [INNERMOST], WRAPPED, 1, f"{ADDRESSES} {PORTS} {TCP_FIELDS} protocol ttl ip_id ip_version ethertype",
        ),
        (
            "large-packets/tcpdump__bigtcp-ipv6-geneve-ipv4.pcap",
            [INNERMOST], WRAPPED, 1, f"{ADDRESSES} {TCP_FIELDS} protocol ttl ip_id ip_version ethertype",
        ),
        (
            "large-packets/tcpdump__bigtcp-ipv6-vxlan-ipv4.pcap",
            [INNERMOST], WRAPPED, 1, f"{ADDRESSES} {TCP_FIELDS} protocol ip_id ip_version ethertype",
        ),
        (
            "pcapng-blocks/PcapPlusPlus__ipv4-malformed.pcap",
            BOTH, SHORT_TOTAL, 1, f"{ADDRESSES} protocol ttl ip_id ip_version",
        ),
        (
            "time-edge/suricata-verify__tcp-session-decode-malformed-ipv4__input.pcap",
            BOTH, BAD_OPTION, 1, f"{PORTS} {TCP_FIELDS}",
        ),
    ]
    for tunnels in modes
}  # fmt: skip

COLUMNS = (*tshark.NOTHING, "source_address", "destination_address", "payload_length", "payload_offset")


@pytest.fixture(scope="session")
def dissected():
    """Return tshark's fields for each frame of each capture: one run for all."""
    return tshark.dissect([CAPTURES / file for file in COMPARED])


@pytest.mark.parametrize("tunnels", [False, True], ids=["outermost", "innermost"])
@pytest.mark.parametrize("file", COMPARED)
def test_columns_are_what_tshark_says(file, tunnels, dissected):
    cause, *expected = DIFFERENCES.get((file, tunnels), ("", 0, set()))
    found = differences(CAPTURES / file, tunnels, dissected[CAPTURES / file])
    columns = {name for differing in found.values() for name in differing}
    first = next(iter(found.items()), "none")
    assert [len(found), columns] == expected, f"{cause or 'no difference is known'}; the first of those found: {first}"


def differences(path, tunnels, rows):
    """Return, by frame number, the columns where tshark says something else, with its value and ours."""
    found = defaultdict(dict)
    count = 0
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            batch.decode_tunnels = tunnels
            headers = {name: batch.headers.column(name) for name in COLUMNS}
            for index in range(len(batch)):
                count += 1
                if batch.interfaces[batch.interface[index]].link_type not in DECODED_LINK_TYPES:
                    continue
                expected = tshark.expected_columns(rows[count - 1], tunnels)
                ours = {name: decoded(column[index]) for name, column in headers.items()}
                for name in ("source_address", "destination_address"):
                    ours[name] = address_text(ours[name], ours["ip_version"])
                if expected.get("payload_length") is not None:
                    there = int(batch.wire_length[index]) - ours["payload_offset"]
                    expected["payload_length"] = min(expected["payload_length"], there)
                for name, value in expected.items():
                    if value is not None and value != ours[name]:
                        found[count][name] = (value, ours[name])
    assert count == len(rows)
    return found


def decoded(value):
    return value.tobytes() if isinstance(value, np.ndarray) else int(value)
