"""Requests, responses and their keys, against a dictionary of what identifies an exchange."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fragments import fragments_of

from uspcap.frames import FrameBatch
from uspcap.protocols.rule_search import KEY_KINDS, MATCHES, PROTOCOLS, find_by_rule, find_known

NOTHING, REQUEST, RESPONSE = range(3)
UDP, ICMP, ICMP6 = 17, 1, 58
CLIENT, SERVER = b"\x0a\0\0\x01", b"\x0a\0\0\x02"


def udp(payload: bytes, ports: tuple[int, int], *, back: bool = False, client: bytes = CLIENT) -> bytes:
    source, destination = (SERVER, client) if back else (client, SERVER)
    here, there = ports[::-1] if back else ports
    transport = struct.pack("!HHHH", here, there, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(transport), 1, 0, 64, UDP, 0) + source + destination
    return bytes(12) + b"\x08\0" + header + transport


def echo(kind: int, identity: bytes, *, back: bool, version: int = 4) -> bytes:
    transport = struct.pack("!BBH", kind, 0, 0) + identity
    ends = (SERVER, CLIENT) if back else (CLIENT, SERVER)
    if version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(transport), ICMP6, 64) + b"".join(end.rjust(16) for end in ends)
        return bytes(12) + b"\x86\xdd" + header + transport
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(transport), 1, 0, 64, ICMP, 0) + b"".join(ends)
    return bytes(12) + b"\x08\0" + header + transport


def ntp(mode: int, timestamp: bytes, *, back: bool, ports: tuple[int, int] = (5000, 123)) -> bytes:
    payload = bytearray(48)
    payload[0] = 0x20 | mode
    at = 24 if back else 40
    payload[at : at + 8] = timestamp
    return udp(bytes(payload), ports, back=back)


def known(protocol: str, frames: list[bytes]) -> tuple[list[int], list[tuple[int, int]]]:
    batch = FrameBatch.from_frames(frames, [0] * len(frames))
    kinds, keys = np.full(len(frames), 9, np.uint8), np.zeros((len(frames), 3), np.uint64)
    count = find_known(PROTOCOLS[protocol], batch, batch.headers, kinds, keys)
    assert count[0] == np.count_nonzero(kinds)
    return kinds.tolist(), [(int(row[0]), int(row[1])) for row in keys]


def by_rule(frames: list[bytes], kind: int = REQUEST, kinds: Any = None, mask: Any = None, **rule: Any) -> Any:
    batch = FrameBatch.from_frames(frames, [0] * len(frames))
    kinds = np.zeros(len(frames), np.uint8) if kinds is None else kinds
    mask = np.ones(len(frames), np.uint8) if mask is None else mask
    keys = np.zeros((len(frames), 3), np.uint64)
    tag = np.frombuffer(rule.get("tag", b"11="), np.uint8)
    counted = find_by_rule(
        batch, batch.headers, kind, mask, KEY_KINDS[rule.get("key", "none")], rule.get("first", 0), rule.get("end", 0),
        tag, MATCHES[rule.get("match", "flow")], rule.get("passes_fragments", False), kinds, keys,
    )  # fmt: skip
    return kinds.tolist(), [(int(row[0]), int(row[1])) for row in keys], counted, keys[:, 2].tolist()


def dns(number: int, answers: bool, *, back: bool, client: bytes = CLIENT) -> bytes:
    return udp(struct.pack("!HB", number, 0x80 * answers), (5000, 53), back=back, client=client)


@given(talk=st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.sampled_from([CLIENT, b"\x0a\0\0\x09"]))))
def test_frames_share_a_key_exactly_where_they_are_of_one_exchange(talk: list[tuple[int, bool, bytes]]) -> None:
    frames = [dns(number, back, back=back, client=client) for number, back, client in talk]
    kinds, keys = known("dns", frames)
    assert kinds == [RESPONSE if back else REQUEST for _, back, _ in talk]
    exchanges = [(number, client) for number, _, client in talk]
    for one, mine in zip(exchanges, keys, strict=True):
        assert [other == mine for other in keys] == [other == one for other in exchanges]


@pytest.mark.parametrize(
    ("protocol", "frame", "kind"),
    [
        ("dns", dns(1, False, back=False), REQUEST),
        ("dns", dns(1, True, back=True), RESPONSE),
        ("dns", dns(1, True, back=False), NOTHING),
        ("dns", dns(1, False, back=True), NOTHING),
        ("dns", udp(b"\0\1", (5000, 53)), NOTHING),
        ("dns", udp(b"\0\1\0", (5000, 5353)), NOTHING),
        ("icmp_echo", echo(8, b"abcd", back=False), REQUEST),
        ("icmp_echo", echo(0, b"abcd", back=True), RESPONSE),
        ("icmp_echo", echo(3, b"abcd", back=True), NOTHING),
        ("icmp_echo", echo(8, b"abc", back=False), NOTHING),
        ("icmp_echo", echo(128, b"abcd", back=False, version=6), NOTHING),
        ("icmpv6_echo", echo(128, b"abcd", back=False, version=6), REQUEST),
        ("icmpv6_echo", echo(129, b"abcd", back=True, version=6), RESPONSE),
        ("icmpv6_echo", echo(8, b"abcd", back=False), NOTHING),
        ("ntp", ntp(3, b"12345678", back=False), REQUEST),
        ("ntp", ntp(4, b"12345678", back=True), RESPONSE),
        ("ntp", ntp(4, b"12345678", back=False), NOTHING),
        ("ntp", ntp(3, b"12345678", back=False, ports=(5000, 124)), NOTHING),
        ("ntp", udp(bytes([0x23] * 47), (5000, 123)), NOTHING),
        ("ntp", fragments_of(bytes(90), 1, 64)[0].frame(), NOTHING),
    ],
)
def test_a_frame_of_a_known_protocol_is_a_request_a_response_or_neither(protocol: str, frame: bytes, kind: int) -> None:
    assert known(protocol, [frame])[0] == [kind]


def test_a_response_has_the_key_of_what_it_answers() -> None:
    for protocol, request, response in (
        ("icmp_echo", echo(8, b"abcd", back=False), echo(0, b"abcd", back=True)),
        ("icmpv6_echo", echo(128, b"abcd", back=False, version=6), echo(129, b"abcd", back=True, version=6)),
        ("ntp", ntp(3, b"12345678", back=False), ntp(4, b"12345678", back=True)),
    ):
        _, (one, other) = known(protocol, [request, response])
        assert one == other != (0, 0)


@given(payload=st.binary(max_size=24), first=st.integers(0, 26), length=st.integers(0, 26))
def test_a_slice_of_the_payload_is_the_key_or_lacks(payload: bytes, first: int, length: int) -> None:
    end = first + length
    frames = [udp(payload, (1, 2)), udp(payload[first:end], (1, 2))]
    kinds, keys, (lacks, taken), _ = by_rule(frames[:1], key="payload", first=first, end=end)
    assert (kinds, lacks, taken) == (([REQUEST], 0, 0) if end <= len(payload) else ([NOTHING], 1, 0))
    if end <= len(payload):
        # What lies around it counts nothing.
        assert by_rule(frames[1:], key="payload", first=0, end=length)[1] == keys


@given(
    fields=st.lists(
        st.tuples(st.sampled_from([b"1", b"11", b"111"]), st.sampled_from([b"", b"A", b"11=A"])), max_size=5
    ),
    cut=st.integers(0, 3),
)
def test_the_first_field_of_a_tag_that_is_whole_is_the_key(fields: list[tuple[bytes, bytes]], cut: int) -> None:
    text = b"".join(tag + b"=" + value + b"\x01" for tag, value in fields)
    text = text[: max(0, len(text) - cut)]
    whole = [field.split(b"=", 1) for field in text.split(b"\x01")[:-1]]
    values = [value for tag, value in whole if tag == b"11"]
    _, (key,), (lacks, _), _ = by_rule([udp(text, (1, 2))], key="tag", tag=b"11=")
    assert lacks == (not values)
    if values:
        _, (alone,), _, _ = by_rule([udp(values[0], (1, 2))], key="payload", first=0, end=len(values[0]))
        assert key == alone


@pytest.mark.parametrize(
    ("match", "same"), [("flow", [True, False, False]), ("client", [True, True, False]), ("key", [True] * 3)]
)
def test_ends_agree_as_far_as_they_must(match: str, same: list[bool]) -> None:
    frames = [udp(b"k", (1, 2)), udp(b"k", (1, 2)), udp(b"k", (1, 3)), udp(b"k", (7, 2))]
    _, keys, _, _ = by_rule(frames, key="payload", end=1, match=match)
    assert [other == keys[0] for other in keys[1:]] == same
    _, (back,), _, (responder,) = by_rule([udp(b"k", (1, 2), back=True)], RESPONSE, key="payload", end=1, match=match)
    assert back == keys[0]
    assert responder != 0


def test_rows_are_left_alone_that_the_filter_passes_over_or_that_have_a_kind() -> None:
    frames = [udp(b"k", (1, 2))] * 3
    kinds, _, counted, _ = by_rule(
        frames, kinds=np.array([0, RESPONSE, 0], np.uint8), mask=np.array([0, 255, 1], np.uint8)
    )
    assert (kinds, counted) == ([NOTHING, RESPONSE, REQUEST], (0, 1))
    piece = fragments_of(bytes(90), 1, 64)[0].frame()
    for passes, kind in ((True, NOTHING), (False, REQUEST)):
        assert by_rule([piece], passes_fragments=passes)[0] == [kind]


def test_rows_and_slices_that_are_not_there_are_refused() -> None:
    batch = FrameBatch.from_frames([udp(b"k", (1, 2))] * 2, [0, 0])
    other = FrameBatch.from_frames([], [])
    with pytest.raises(ValueError, match="not those of this batch"):
        find_known(0, batch, other.headers, np.zeros(2, np.uint8), np.zeros((2, 3), np.uint64))
    for kinds, shape in ((1, (2, 3)), (2, (1, 3)), (2, (2, 2)), (2, (2, 4))):
        with pytest.raises(ValueError, match="no row for each frame"):
            find_known(0, batch, batch.headers, np.zeros(kinds, np.uint8), np.zeros(shape, np.uint64))
    with pytest.raises(ValueError, match="the mask is shorter"):
        by_rule([udp(b"k", (1, 2))] * 2, mask=np.ones(1, np.uint8))
    for first, end in ((-1, 0), (2, 1)):
        with pytest.raises(ValueError, match="a slice begins before it ends"):
            by_rule([udp(b"k", (1, 2))], first=first, end=end)


def asked(number: int, name: bytes, kind: int, *, back: bool = False, flags: int = 0, count: int = 1) -> bytes:
    """A DNS message with a question."""
    header = struct.pack("!HHHHHH", number, 0x8000 * back | flags, count, 0, 0, 0)
    labels = b"".join(bytes([len(label)]) + label for label in name.split(b".")) + b"\0"
    question = labels + struct.pack("!HH", kind, 1) if count else b""
    return udp(header + question, (5000, 53), back=back)


A, AAAA = 1, 28
QUESTIONS = st.tuples(
    st.integers(0, 1), st.sampled_from([b"a.example", b"b.example", b"a"]), st.sampled_from([A, AAAA])
)


@given(talk=st.lists(st.tuples(QUESTIONS, st.booleans(), st.booleans()), max_size=12))
def test_dns_is_matched_by_id_and_question_whatever_the_case(
    talk: list[tuple[tuple[int, bytes, int], bool, bool]],
) -> None:
    frames = [
        asked(number, name.upper() if upper else name, kind, back=back) for (number, name, kind), back, upper in talk
    ]
    kinds, keys = known("dns", frames)
    assert kinds == [RESPONSE if back else REQUEST for _, back, _ in talk]
    questions = [question for question, _, _ in talk]
    for question, mine in zip(questions, keys, strict=True):
        assert [other == mine for other in keys] == [other == question for other in questions]


def found_of(protocol: str, frames: list[bytes], captured: int) -> tuple[tuple[int, int, int], list[int], list[int]]:
    batch = FrameBatch.from_frames(frames, [0] * len(frames))
    batch.storage("captured_length")[: len(frames)] = np.minimum(batch.captured_length, captured)
    kinds, keys = np.zeros(len(frames), np.uint8), np.zeros((len(frames), 3), np.uint64)
    counted = find_known(PROTOCOLS[protocol], batch, batch.headers, kinds, keys)
    return counted, kinds.tolist(), keys[:, 0].tolist()


def test_dns_cut_within_the_question_is_matched_by_id_alone_and_counted() -> None:
    frames = [asked(1, b"a.example", A), asked(1, b"a.example", A, back=True)]
    for captured in range(42 + 12, len(frames[0])):
        counted, kinds, keys = found_of("dns", frames, captured)
        assert (counted, kinds) == ((2, 0, 2), [REQUEST, RESPONSE])
        assert keys[0] == keys[1]
    assert found_of("dns", frames, len(frames[0]))[0] == (2, 0, 0)


def test_dns_responses_without_a_question_are_matched_by_id_alone_and_counted() -> None:
    response = asked(1, b"a", A, back=True, count=0)
    for question, matches in ((1, False), (0, True)):
        counted, kinds, keys = found_of("dns", [asked(1, b"a", A, count=question), response], 200)
        assert (counted, kinds) == ((2, 0, 1), [REQUEST, RESPONSE])
        assert (keys[0] == keys[1]) == matches


def test_messages_that_lack_what_identifies_them_are_counted() -> None:
    assert found_of("dns", [asked(1, b"a", A)], 42 + 2)[0] == (0, 1, 0)
    for captured in (42 + 8, 42 + 47):
        assert found_of("ntp", [ntp(3, b"12345678", back=False)], captured)[0] == (0, 1, 0)


def test_dns_updates_are_matched_by_id_as_their_responses_may_lack_the_question() -> None:
    update = 5 << 11
    _, _, keys = found_of(
        "dns", [asked(1, b"a", A, flags=update), asked(1, b"a", A, flags=update, back=True, count=0)], 200
    )
    assert keys[0] == keys[1]


def test_a_name_that_is_pointed_to_is_the_name() -> None:
    header = struct.pack("!HHHHHH", 1, 0, 2, 0, 0, 0)
    pointing = udp(header + b"\xc0\x12\0\1\0\1" + b"\1a\7example\0\0\1\0\1", (5000, 53))
    _, kinds, keys = found_of("dns", [pointing, asked(1, b"a.example", A, back=True), asked(1, b"b.example", A)], 2000)
    assert kinds == [REQUEST, RESPONSE, REQUEST]
    assert keys[0] == keys[1] != keys[2]


def test_a_malformed_question_leaves_the_id() -> None:
    header = struct.pack("!HHHHHH", 1, 0, 1, 0, 0, 0)
    questions = (b"\xc0\x0c\0\1\0\1", b"\x3f" + bytes(3), bytes([63]) + (b"a" * 63 + bytes([63])) * 6)
    frames = [udp(header + question, (5000, 53)) for question in questions]
    counted, kinds, keys = found_of("dns", frames, 2000)
    assert (counted, kinds) == ((3, 0, 0), [REQUEST] * 3)
    assert len(set(keys)) == 1
