"""Digests of frames: equal exactly where all that the key asks for is equal."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.frames import FrameBatch
from uspcap.protocols.digests import KEYS, digest

LIMIT = 1 << 20
TCP, UDP = 6, 17
NETWORK, PAYLOAD, WHOLE, FIELDS = KEYS


def packet(**changes: Any) -> bytes:
    """Return an IPv4 packet behind Ethernet, whose parts may be named."""
    made_of: dict[str, Any] = {
        "mac": 1, "source": 1, "ttl": 64, "identification": 7, "port": 1000, "checksum": 0, "sequence": 1,
        "payload": b"payload", "protocol": UDP, "fragment": 0, "padding": b"", "flags": 0x10,
    }  # fmt: skip
    made = {**made_of, **changes}
    if made["protocol"] == UDP:
        transport = struct.pack("!HHHH", made["port"], 9, 8 + len(made["payload"]), made["checksum"])
    else:
        transport = struct.pack(
            "!HHIIBBHHH", made["port"], 9, made["sequence"], 0, 0x50, made["flags"], 500, made["checksum"], 0
        )
    transport += made["payload"]
    ip = struct.pack(
        "!BBHHHBBH4B4B", 0x45, 0, 20 + len(transport), made["identification"], made["fragment"], made["ttl"],
        made["protocol"], 0, 10, 0, 0, made["source"], 10, 0, 0, 2,
    )  # fmt: skip
    return bytes([2, 0, 0, 0, 0, made["mac"]]) + bytes(6) + b"\x08\0" + ip + transport + made["padding"]


def digests(key: str, frames: list[bytes], limit: int = LIMIT, kept: int | None = None) -> list[int]:
    batch = FrameBatch.from_frames(
        [frame[:kept] for frame in frames], [0] * len(frames), wire_lengths=[len(frame) for frame in frames]
    )
    out = np.zeros(len(frames), np.uint64)
    digest(batch, batch.headers, KEYS.index(key), limit, out)
    return out.tolist()


CHANGES = {
    "mac": {"mac": 5}, "source": {"source": 3}, "ttl": {"ttl": 63}, "identification": {"identification": 8},
    "port": {"port": 1001}, "checksum": {"checksum": 9}, "payload": {"payload": b"payloaD"},
    "length": {"payload": b"payload\0"}, "padding": {"padding": b"\0\0"}, "sequence": {"sequence": 2},
    "flags": {"flags": 0x18}, "fragment": {"fragment": 0x2000},
}  # fmt: skip
SEEN = {
    NETWORK: {"source", "identification", "port", "payload", "length", "sequence", "flags", "fragment"},
    PAYLOAD: {"payload", "length"},
    WHOLE: set(CHANGES),
    FIELDS: {"source", "identification", "port", "length", "sequence", "flags", "fragment"},
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("change", sorted(CHANGES))
def test_a_digest_changes_with_what_its_key_asks_for_and_with_nothing_else(key: str, change: str) -> None:
    protocol = TCP if change in ("sequence", "flags") else UDP
    one, again, other = digests(
        key, [packet(protocol=protocol), packet(protocol=protocol), packet(protocol=protocol, **CHANGES[change])]
    )
    assert one == again != 0
    assert (other != one) == (change in SEEN[key])


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=40), min_size=2, max_size=12),
    key=st.sampled_from([NETWORK, PAYLOAD, WHOLE]),
)
def test_frames_share_a_digest_exactly_where_their_payloads_are_equal(payloads: list[bytes], key: str) -> None:
    found = digests(key, [packet(payload=payload) for payload in payloads])
    for one, mine in zip(payloads, found, strict=True):
        assert [other == mine for other in found] == [other == one for other in payloads]


@given(length=st.integers(1, 40), limit=st.integers(0, 40), kept=st.integers(0, 40))
def test_bytes_beyond_the_limit_count_no_more_than_bytes_that_were_not_captured(
    length: int, limit: int, kept: int
) -> None:
    frame = packet(payload=bytes(range(1, length + 1)))
    start = len(frame) - length
    cut = digests(PAYLOAD, [frame], LIMIT, start + kept)
    assert digests(PAYLOAD, [frame], kept) == cut
    both = min(limit, kept, length)
    assert digests(PAYLOAD, [frame], limit, start + kept) == digests(PAYLOAD, [frame], both)
    shorter = digests(PAYLOAD, [frame], both - 1) if both else None
    assert shorter != digests(PAYLOAD, [frame], both)


@pytest.mark.parametrize("key", KEYS)
def test_zero_says_that_a_frame_has_nothing_of_the_key(key: str) -> None:
    batch = FrameBatch.from_frames([packet(), packet(payload=b""), packet()], [0] * 3)
    # Nothing was decoded of the first.
    batch.headers.column("payload_offset")[0] = -1
    out = np.zeros(3, np.uint64)
    digest(batch, batch.headers, KEYS.index(key), LIMIT, out)
    assert (out == 0).tolist() == [key != WHOLE, key == PAYLOAD, False]


def test_rows_keys_and_limits_that_are_not_there_are_refused() -> None:
    batch = FrameBatch.from_frames([packet()] * 2, [0, 0])
    one = FrameBatch.from_frames([packet()], [0])
    room = np.zeros(2, np.uint64)
    for headers, key, out in (
        (batch.headers, 0, room[:1]),
        (one.headers, KEYS.index(NETWORK), room),
        (one.headers, KEYS.index(FIELDS), room),
    ):
        with pytest.raises(ValueError, match="a row for each frame"):
            digest(batch, headers, key, LIMIT, out)
    for key, limit in ((-1, LIMIT), (len(KEYS), LIMIT), (0, -1)):
        with pytest.raises(ValueError, match="there is no key"):
            digest(batch, batch.headers, key, limit, room)
    assert room.tolist() == [0, 0]
    digest(batch, None, KEYS.index(WHOLE), LIMIT, room)
    assert room[0] == room[1] != 0
