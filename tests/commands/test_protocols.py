"""`uspcap protocols`, and the options that choose one."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from support.command_line import assert_one_clear_line, invoke
from support.feeds import START_NS, frame_of
from support.hard_to_cut import pcap_header_of, pcap_record_of

from uspcap.protocols.feeds import protocols

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "feed-two-lines.pcapng"
LINES = "A=233.252.0.1:26401,B=233.252.0.2:26402"


def test_every_protocol_is_listed_with_its_source() -> None:
    text = invoke("protocols").stdout
    listed = json.loads(invoke("protocols", "--format", "json").stdout)["protocols"]
    assert [one["name"] for one in listed] == protocols()
    for one in listed:
        assert f"{one['name']}: " in text
        assert one["source"]
        assert (one["over"], one["numbers"]) in {
            ("udp", "messages"), ("udp", "packets"), ("tcp", "messages"), ("tcp", "bytes")
        }  # fmt: skip


def test_protocol_is_detected_in_the_capture_and_how_sure_that_is() -> None:
    ended = invoke("analyze", SAMPLE, "--protocol", "auto", "--only", "sequence", "--format", "json")
    result = json.loads(ended.stdout)["analyses"]["sequence"]
    assert result["protocol"] == "moldudp64"
    assert result["chosen_by"] == "auto: explains 100 % of the first 1,094 UDP packets"
    assert (result["lost"], result["late"]) == (46, 2)


def test_session_over_tcp_is_detected_by_its_numbered_messages() -> None:
    path = SAMPLE.parent / "order-session.pcap"
    ended = invoke("analyze", path, "--protocol", "auto", "--only", "sequence", "--format", "json")
    result = json.loads(ended.stdout)["analyses"]["sequence"]
    assert result["protocol"] == "soupbintcp"
    assert result["chosen_by"] == "auto: 45 numbered messages and heartbeats in the first 81 TCP segments with payload"


def test_typical_ports_decide_between_tables_that_fit_alike(tmp_path: Path) -> None:
    path = tmp_path / "rtp.pcap"
    payloads = [struct.pack("!BBHII", 0x80, 96, 65_500 + at & 0xFFFF, 160 * at, 7) for at in range(100)]
    for port, said in ((5004, "100 UDP packets, 100 of them on its ports"), (5006, "100 UDP packets")):
        frames = [frame_of(payload)[:36] + struct.pack("!H", port) + frame_of(payload)[38:] for payload in payloads]
        records = [pcap_record_of(START_NS + at, frame) for at, frame in enumerate(frames)]
        path.write_bytes(pcap_header_of() + b"".join(records))
        ended = invoke("analyze", path, "--protocol", "auto", "--only", "sequence", "--format", "json")
        result = json.loads(ended.stdout)["analyses"]["sequence"]
        assert (result["protocol"], result["lost"]) == ("rtp", 0)
        assert result["chosen_by"].endswith(said)


def test_table_of_ones_own_does_what_the_shipped_one_does(tmp_path: Path) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(
        '[mine]\nnumbers = "messages"\nendian = "big"\nheader = 20\nsequence = [10, 8]\ncount = [18, 2]\n'
        'key = [[0, 10]]\nheartbeat = "next"\nheartbeat_count = 0\n',
        encoding="utf-8",
    )
    ended = invoke("analyze", SAMPLE, "--protocol", table, "--format", "json")
    assert ended.code == 0, ended
    result = json.loads(ended.stdout)["analyses"]["sequence"]
    assert (result["protocol"], result["lost"], result["late"], result["duplicate"]) == ("mine", 46, 2, 6)


def test_pair_of_lines_is_arbitrated_in_text_json_and_tables(tmp_path: Path) -> None:
    words = ["--protocol", "auto", "--pair", LINES]
    result = json.loads(invoke("analyze", SAMPLE, *words, "--format", "json").stdout)["analyses"]
    assert (result["arbitration"]["lost"], result["sequence"]["lost"]) == (8, 46)
    ended = invoke("analyze", SAMPLE, "--only", "arbitration", *words, "--tables", tmp_path)
    assert "8 messages lost on both lines" in ended.stdout
    assert "Sequence numbers" not in ended.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        "arbitration.lines.csv",
        "arbitration.gaps.csv",
        "arbitration.skews.csv",
        *(
            f"arbitration.{LINES.replace('A=', '').replace('B=', '')}.SAMPLE0305.{name}.hgrm"
            for name in ("FILE.A_first_by", "FILE.B_first_by", "recovery")
        ),
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "sequence"], "--protocol NAME"),
        (["--only", "arbitration"], "--protocol NAME"),
        (["--only", "arbitration", "--protocol", "fix", "--pair", LINES], "fix is carried by TCP"),
        (["--only", "arbitration", "--protocol", "moldudp64"], "--pair A="),
        (["--pair", LINES], "--protocol NAME"),
        (["--protocol", "moldudp64", "--pair", "A=1"], "two lines, not 1"),
        (["--protocol", "nosuch"], "unknown protocol 'nosuch'"),
        (["--protocol", "cta"], "use --unverified"),
        (["--protocol", "rtp", "--sequence", "offset=0,size=2"], "use only one"),
        (["--protocol", "rtp", "--protocol", "b3"], "give only one of them"),
        (["--sequence", "offset=4"], "'size' is not understood"),
        (["--sequence", "offset=4,size=9"], "a whole number from 1 to 8"),
        (["--sequence", "offset=4,size=4,kind=message"], "numbers of messages need count"),
        (["--protocol", "/nosuch/x.toml"], "cannot read"),
    ],
)
def test_wrong_choices_are_one_clear_line(words: list[str], said: str) -> None:
    assert_one_clear_line(invoke("analyze", SAMPLE, *words), 2, said)


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        ("microburst.pcap", "explains half of the first 593 UDP packets, and there is no FIX"),
        ("request-response.pcapng", "name a protocol with --protocol"),
    ],
)
def test_protocol_that_cannot_be_detected_is_one_clear_line(sample: str, said: str) -> None:
    ended = invoke("analyze", SAMPLE.parent / sample, "--only", "sequence", "--protocol", "auto")
    assert_one_clear_line(ended, 2, said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = [", "not TOML"),
        ("x = 1", "x is the number 1; it must be a table"),
        ('[a]\nnumbers = "messages"\n', "a.endian is missing; it must be 'big' or 'little'"),
        ('[a]\nnumbers = "packets"\nendian = "big"\nheader = 4\nsequence = [2, 4]\n', "beyond the header"),
        ("[a]\nnumber = 1\n", "a: unknown key 'number': is it 'numbers'?"),
    ],
)
def test_wrong_tables_are_one_clear_line(tmp_path: Path, text: str, said: str) -> None:
    table = tmp_path / "mine.toml"
    table.write_text(text, encoding="utf-8")
    assert_one_clear_line(invoke("analyze", SAMPLE, "--protocol", table), 2, said)


@pytest.mark.parametrize(
    ("words", "followed", "orders"),
    [
        (["--only", "sequence", "--protocol", "ouch-4.2"], "ouch-4.2", False),
        (["--only", "sequence,orders", "--protocol", "ouch-4.2"], "ouch-4.2", True),
        (["--only", "orders", "--protocol", "ouch-4.2"], None, True),
        (["--protocol", "ouch-4.2"], None, True),
        (["--only", "sequence", "--protocol", "tcp", "--protocol", "ouch-4.2"], "tcp", True),
        (["--only", "sequence", "--sequence", "offset=4,size=4", "--protocol", "ouch-4.2"], "given", True),
    ],
)
def test_protocol_of_order_entry_is_whose_numbers_only_where_sequence_is_asked_for(
    words: list[str], followed: str | None, orders: bool
) -> None:
    ended = invoke("analyze", SAMPLE.parent / "order-session.pcap", *words, "--format", "json")
    analyses = json.loads(ended.stdout)["analyses"]
    assert ("orders" in analyses) is orders
    assert analyses.get("sequence", {"protocol": None})["protocol"] == followed
    if orders:
        assert analyses["orders"]["protocol"] == "ouch-4.2"
