"""Rules: what they say, how errors say where, and which frames they find."""

from __future__ import annotations

import pytest
from support.request_frames import udp

from uspcap.errors import FilterError, UsageError
from uspcap.frames import FrameBatch
from uspcap.protocols.rules import REQUEST, RESPONSE, Key, Rule, RuleFinder, named_pairs, pair_rules, parse_rule


def found(
    request: str, response: str, frames: list[bytes], match: str = "key"
) -> tuple[list[int], list[tuple[int, int]]]:
    """Return kinds, and the keys of those rows that have one."""
    (pair,) = named_pairs([request], [response], match)
    kinds, keys = RuleFinder(pair).find(FrameBatch.from_frames(frames, range(len(frames))))
    return kinds[: len(frames)].tolist(), [(int(keys[at, 0]), int(keys[at, 1])) for at in range(len(frames))]


def test_a_rule_is_a_filter_with_a_key_and_a_name() -> None:
    text = " udp dst port 7000 ; key = payload[ 4 : 8 ];name=orders"
    assert parse_rule(text, "--request") == Rule(text.strip(), "udp dst port 7000", Key("payload", 4, 8), "orders")
    assert parse_rule("tcp; key=tag:11", "--request").key == Key("tag", tag=b"11=")
    assert parse_rule("tcp", "--request").key == Key()


@pytest.mark.parametrize(
    ("text", "character", "quoted"),
    [
        ("; key=payload[0:8]", 1, "no filter"),
        ("udp; kee=payload[0:8]", 6, "'kee=payload[0:8]'"),
        ("udp;", 5, "''"),
        ("udp;  key=paylod[0:8]", 7, "'paylod[0:8]'"),
        ("udp; key=payload[8:8]", 6, "payload[8:8]"),
        ("udp; key=payload[0:65537]", 6, "65536"),
        ("udp; key=tag:0", 6, "'tag:0'"),
        ("udp; key=tag:11; name=a b", 18, "'a b'"),
        ("udp; key=tag:11; key=tag:12", 18, "more than once"),
    ],
)
def test_what_is_no_rule_is_refused_in_one_line_that_says_where(text: str, character: int, quoted: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_rule(text, "--trigger")
    assert str(error.value).startswith(f"--trigger: character {character}: ")
    assert quoted in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("request_text", "response_text", "match", "why"),
    [
        ("udp; key=payload[0:8]", "udp", "flow", "only one has a key"),
        ("udp; key=payload[0:8]", "udp; key=payload[0:4]", "flow", "8 bytes never equals one of 4"),
        ("udp; name=a", "udp; name=b", "flow", "'a' and 'b'"),
        ("udp; name=dns", "udp", "flow", "'dns' is taken"),
        ("udp", "udp", "key", "no key to match by"),
    ],
)
def test_rules_that_do_not_go_together_are_refused(request_text: str, response_text: str, match: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        named_pairs([request_text], [response_text], match)


def test_a_filter_that_does_not_compile_is_reported_with_its_option() -> None:
    pair = pair_rules(Rule("", "udp dst prt 1"), Rule("", "udp"), name="x", match="flow", options=("--request", "-"))
    with pytest.raises(FilterError, match=r"^--request: "):
        RuleFinder(pair).find(FrameBatch.from_frames([udp(1, 2, b"")], [0]))


def test_keys_are_equal_where_their_bytes_are_wherever_these_lie() -> None:
    frames = [udp(9, 7000, b"abcdefgh"), udp(7000, 9, b"..abcd"), udp(7000, 9, b"..abce"), udp(1, 2, b"abcdefgh")]
    kinds, keys = found("udp dst port 7000; key=payload[0:4]", "udp src port 7000; key=payload[2:6]", frames)
    assert kinds == [REQUEST, RESPONSE, RESPONSE, 0]
    assert keys[0] == keys[1] != keys[2]


def test_a_tag_is_a_whole_field_and_its_value_ends_before_the_next() -> None:
    fix = b"8=FIX.4.2\x0135=D\x01%s10=000\x01"
    frames = [
        udp(9, 7000, fix % b"111=x\x0111=abc\x01"),
        udp(7000, 9, fix % b"11=abc\x01"),
        udp(7000, 9, fix % b"11=abcd\x01"),
        udp(7000, 9, b"8=FIX.4.2\x0111=abc"),
        udp(7000, 9, b"11=abc\x01"),
    ]
    (pair,) = named_pairs(["udp dst port 7000; key=tag:11"], ["udp src port 7000; key=tag:11"], "key")
    finder = RuleFinder(pair)
    kinds, keys = finder.find(FrameBatch.from_frames(frames, range(5)))
    assert kinds[:5].tolist() == [REQUEST, RESPONSE, RESPONSE, 0, RESPONSE]
    assert keys[0, :2].tolist() == keys[1, :2].tolist() == keys[4, :2].tolist() != keys[2, :2].tolist()
    assert finder.without_key == 1


def test_a_key_beyond_what_was_captured_or_what_udp_says_is_none() -> None:
    whole = udp(9, 7000, b"abcdefgh")
    (pair,) = named_pairs(["udp dst port 7000; key=payload[4:8]"], ["udp src port 7000; key=payload[4:8]"], "flow")
    finder = RuleFinder(pair)
    padded = udp(9, 7000, b"abcdef") + b"\0" * 20
    frames = [whole, whole[:-1], padded]
    batch = FrameBatch.from_frames(frames, range(3), wire_lengths=[len(whole), len(whole), len(padded)])
    assert finder.find(batch)[0][:3].tolist() == [REQUEST, 0, 0]
    assert finder.without_key == 2


@pytest.mark.parametrize(("match", "same"), [("flow", [1]), ("client", [1, 2]), ("key", [1, 2, 3])])
def test_what_must_agree_beside_the_key_is_said(match: str, same: list[int]) -> None:
    frames = [
        udp(9, 7000, b"k", "10.0.0.1", "10.0.0.2"),
        udp(7000, 9, b"k", "10.0.0.2", "10.0.0.1"),
        udp(7000, 9, b"k", "10.0.0.3", "10.0.0.1"),
        udp(7000, 8, b"k", "10.0.0.2", "10.0.0.1"),
    ]
    rules = ("udp dst port 7000; key=payload[0:1]", "udp src port 7000; key=payload[0:1]")
    _, keys = found(*rules, frames, match)
    assert [at for at in range(1, 4) if keys[at] == keys[0]] == same


def test_a_frame_that_both_rules_match_asks() -> None:
    (pair,) = named_pairs(["udp"], ["udp port 9"], "flow")
    finder = RuleFinder(pair)
    kinds, _ = finder.find(FrameBatch.from_frames([udp(1, 9, b""), udp(1, 2, b"")], [0, 1]))
    assert kinds[:2].tolist() == [REQUEST, REQUEST]
    assert finder.matched_both == 1
