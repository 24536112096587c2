"""uspcap dump: which frames are printed, under which numbers, and how it ends."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.capture_files import interface, option, packet, pcap_record, section
from support.command_line import PROGRAM, assert_one_clear_line, invoke, pcap_of, start
from support.shared_captures import CAPTURES, needs_captures
from support.streams import START_NS, Frame
from support.tcpdump_oracle import Refused, read_with_tcpdump

from uspcap.formats import open_capture
from uspcap.report.decode import decode_line, hex_lines

FRAMES = [Frame(START_NS + 1_000 * number, 60 + number, 1 + number % 3) for number in range(20)]
"""Every third goes from port 1001, 1002 and 1003."""

MISSING_TCPDUMP = pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump to compare with: install it")


@pytest.fixture
def capture(tmp_path: Path) -> Path:
    path = tmp_path / "made.pcap"
    path.write_bytes(pcap_of(FRAMES))
    return path


def lines_of(path: Path) -> list[str]:
    """Every line, as decoded frame by frame."""
    with open_capture(str(path)) as reader:
        return [decode_line(batch, row) for batch in reader.batches() for row in range(len(batch))]


def numbers(lines: list[str]) -> list[int]:
    return [int(line.split(" ", 1)[0]) for line in lines]


def test_every_frame_is_one_line_in_order(capture: Path) -> None:
    ended = invoke("dump", capture)
    assert ended == (0, "".join(line + "\n" for line in lines_of(capture)), "")
    assert numbers(ended.lines) == list(range(1, 21))
    assert ended.lines[0] == "1 2023-11-14T22:13:20.000000000Z 60 B UDP 10.0.0.1:1001 > 10.0.0.2:9 len 18"


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (7, 7), (20, 20), (21, 20)])
def test_count_stops_after_so_many_frames(capture: Path, count: int, expected: int) -> None:
    ended = invoke("dump", "-c", str(count), capture)
    assert ended.code == 0
    assert ended.lines == lines_of(capture)[:expected]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ("3,7-9", [3, 7, 8, 9]),
        ("20", [20]),
        ("9-10,1,9", [1, 9, 10]),
        ("19-99999999999999999999", [19, 20]),
        ("21", []),
    ],
)
def test_frames_are_chosen_by_their_number(capture: Path, frames: str, expected: list[int]) -> None:
    ended = invoke("dump", capture, "--frame", frames)
    assert ended.code == 0
    assert ended.lines == [lines_of(capture)[number - 1] for number in expected]


def test_numbers_under_a_filter_stay_those_of_the_file(capture: Path) -> None:
    everything = lines_of(capture)
    assert invoke("dump", capture, "udp", "src", "port", "1002").lines == everything[1::3]
    assert invoke("dump", capture, "-f", "udp src port 1002").lines == everything[1::3]
    assert numbers(invoke("dump", capture, "--frame", "3-8", "src port 1002").lines) == [5, 8]
    assert numbers(invoke("dump", capture, "-c", "2", "src port 1002").lines) == [2, 5]
    assert numbers(invoke("dump", capture, "-c", "1", "--frame", "3-8", "src port 1002").lines) == [5]


def test_several_files_number_on(capture: Path, tmp_path: Path) -> None:
    second = tmp_path / "second.pcap"
    second.write_bytes(pcap_of(FRAMES[:4]))
    third = tmp_path / "third.pcap"
    third.write_bytes(capture.read_bytes())
    lines = invoke("dump", capture, second, third).lines
    assert numbers(lines) == list(range(1, 45))
    contents = [line.split(" ", 1)[1] for line in lines]
    assert contents == contents[:20] + contents[:4] + contents[:20]
    assert numbers(invoke("dump", capture, second, "--frame", "20-22").lines) == [20, 21, 22]
    assert numbers(invoke("dump", capture, second, "src port 1001").lines) == [*range(1, 21, 3), 21, 24]
    assert numbers(invoke("dump", capture, second, "-c", "22").lines) == list(range(1, 23))


def test_x_shows_the_bytes_below_each_line(capture: Path) -> None:
    lines = invoke("dump", "-x", "-c", "2", capture).lines
    expected = []
    for line, frame in zip(lines_of(capture)[:2], FRAMES[:2], strict=True):
        expected += [line, *hex_lines(frame.wire())]
    assert lines == expected


def test_standard_input_is_read_plain_and_compressed(capture: Path) -> None:
    expected = "".join(line + "\n" for line in lines_of(capture))
    assert start("dump", "-", stdin=capture.read_bytes()) == (0, expected, "")
    compressed = subprocess.run(["gzip", "-c", capture], check=True, capture_output=True).stdout
    assert start("dump", "-", "-n", stdin=compressed) == (0, expected, "")


@pytest.mark.parametrize("cut", [1, 15, 17, 60])
def test_frames_before_damage_are_printed_and_it_is_reported_in_one_line(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "cut.pcap"
    whole = pcap_of(FRAMES)
    path.write_bytes(whole[:-cut])
    ended = invoke("dump", path)
    assert ended.lines == lines_of(path)
    assert len(ended.lines) == 19
    offset = len(whole) - len(pcap_record(0, 0, FRAMES[-1].wire()))
    assert_one_clear_line(ended, 1, f"{path}: byte {offset}: the file ends")


def test_every_damage_of_several_files_is_reported_in_a_line_of_its_own(capture: Path, tmp_path: Path) -> None:
    path, other = tmp_path / "cut.pcap", tmp_path / "other.pcap"
    path.write_bytes(pcap_of(FRAMES)[:-1])
    other.write_bytes(pcap_of(FRAMES[:3])[:-1])
    ended = invoke("dump", path, capture, other)
    assert numbers(ended.lines) == list(range(1, 42))
    assert ended.code == 1
    first, second = ended.stderr.splitlines()
    assert first.startswith(f"uspcap: {path}: byte ")
    assert second.startswith(f"uspcap: {other}: byte ")
    assert "more" not in ended.stderr


def test_damage_in_compressed_data_is_reported(tmp_path: Path, capture: Path) -> None:
    compressed = subprocess.run(["gzip", "-c", capture], check=True, capture_output=True).stdout
    path = tmp_path / "cut.pcap.gz"
    path.write_bytes(compressed[:-20])
    ended = start("dump", path)
    assert_one_clear_line(ended, 1, str(path), "gzip")
    assert ended.lines == lines_of(capture)[: len(ended.lines)]


def test_a_clamped_timestamp_is_reported_with_its_frame(tmp_path: Path) -> None:
    path = tmp_path / "far.pcapng"
    path.write_bytes(section() + interface(options=option(9, b"\0")) + packet(2**63, b"x"))
    ended = invoke("dump", path)
    assert len(ended.lines) == 1
    assert_one_clear_line(ended, 1, "frame 1", "after 2116-02-20T23:53:38Z")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "FILE"),
        (("{}", "-c", "0"), "whole number of 1 or more"),
        (("{}", "-c", "many"), "many"),
        (("{}", "--frame", "0"), "3,7-9"),
        (("{}", "--frame", "9-7"), "3,7-9"),
        (("{}", "--frame", ""), "3,7-9"),
        (("{}", "--no-such-option"), "--no-such-option"),
        (("{}", "-f", "tcp", "udp"), "given more than once"),
        (("{}", "no", "such", "words"), "does not compile"),
        (("{}", "-f", "tcp port"), "does not compile"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_clear_line(capture: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = invoke("dump", *(argument.format(capture) for argument in arguments))
    assert_one_clear_line(ended, 2, words)
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.pcap", None, "No such file"),
        ("missing\n\x1b[31m.pcap", None, "missing\\x0a\\x1b[31m.pcap"),
        ("empty.pcap", b"", "the file is empty"),
        ("text.pcap", b"To whom it may concern", "no capture format"),
        (".", None, "directory"),
    ],
)
def test_what_is_no_capture_ends_with_1_and_one_clear_line(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    ended = invoke("dump", path)
    assert_one_clear_line(ended, 1, words)
    assert ended.stdout == ""


@pytest.mark.parametrize("wanted", [("-c", "3"), ("--frame", "2,5-6"), ("-c", "3", "--frame", "1-999999999")])
def test_it_ends_with_what_was_asked_for_and_not_with_the_input(wanted: tuple[str, ...]) -> None:
    content = pcap_of(FRAMES)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen([*PROGRAM, "dump", "-", *wanted], **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(content)
        with pytest.raises(BrokenPipeError):
            for _ in range(20_000):
                # More than any pipe holds: it goes on until nobody takes it any more.
                process.stdin.write(content[24:])
        assert len(process.stdout.readlines()) == 3
    assert process.returncode == 0


def test_a_closed_pipe_ends_it_quietly(tmp_path: Path) -> None:
    path = tmp_path / "big.pcap"
    path.write_bytes(pcap_of(FRAMES * 2_000))
    with subprocess.Popen(
        [*PROGRAM, "dump", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == lines_of(path)[0] + "\n"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine lacks /dev/full")
def test_a_full_disk_is_reported_in_one_line(capture: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*PROGRAM, "dump", capture], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "uspcap: cannot write the output: No space left on device; free space or send it elsewhere\n"


def test_a_terminal_that_knows_ascii_only_gets_ascii(tmp_path: Path) -> None:
    path = tmp_path / "long.pcapng"
    comment = option(1, "é".encode())
    path.write_bytes(section() + interface(link_type=147) + packet(1, bytes(40), options=comment))
    ended = start("dump", path, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert ended.code == 0
    assert ended.stdout.isascii()
    assert ended.stdout.endswith(' 00 00 ~ "\\xe9"\n')


@needs_captures
@MISSING_TCPDUMP
@pytest.mark.parametrize(
    "name", ["udp-rr/pcaps__dns.cap", "tcp/packets__http_espn.pcapng", "encap/tcpdump__various_gre.pcap"]
)
@pytest.mark.parametrize("expression", ["udp port 53", "tcp[13] & 2 != 0", "not ip", "greater 1000 and tcp"])
def test_filter_words_of_outer_frames_choose_those_that_tcpdump_chooses(name: str, expression: str) -> None:
    path = CAPTURES / name
    try:
        expected = read_with_tcpdump(path, expression).frames
    except Refused:
        assert invoke("dump", path, *expression.split()).code == 2
        return
    ended = invoke("dump", "--outer", path, *expression.split())
    assert ended.code == 0
    assert len(ended.lines) == len(expected)
    lengths = [line.split(" B ", 1)[0].rsplit(" ", 1)[1].rsplit("/", 1)[-1] for line in ended.lines]
    assert lengths == [str(frame.wire_length) for frame in expected]


@needs_captures
def test_tunnels_shows_the_innermost_headers() -> None:
    path = CAPTURES / "encap/suricata-verify__vxlan-decoder-02__vxlan.pcap"
    outer = invoke("dump", "-c", "1", "--no-tunnels", path)
    assert "UDP 192.168.203.1:45149 > 192.168.202.1:4789" in outer.stdout
    assert not outer.stderr
    for options in ([], ["--tunnels"]):
        inner = invoke("dump", "-c", "1", *options, path)
        assert "vxlan ICMP 192.168.203.3 > 192.168.203.5 echo request" in inner.stdout
        said = "" if options else f"uspcap: {path}: 10 of 10 frames checked are in VXLAN (as --tunnels)"
        assert inner.stderr.strip() == said


@needs_captures
def test_a_filter_looks_at_the_innermost_packet_unless_the_outer_one_is_asked_for() -> None:
    path = CAPTURES / "encap/suricata-verify__vxlan-decoder-02__vxlan.pcap"
    assert len(invoke("dump", path, "icmp").lines) == 8
    assert len(invoke("dump", "--outer", path, "udp").lines) == 10
    assert not invoke("dump", "--outer", path, "icmp").lines
    assert len(invoke("dump", path, "udp", "port", "4789").lines) == 10
    assert not invoke("dump", "--no-tunnels", path, "icmp").lines
