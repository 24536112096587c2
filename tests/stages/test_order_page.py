"""docs/order.md shows what uspcap prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.command_line import invoke
from support.untidy import HOUR_NS, frame_of, pcap, pcapng

PAGE = Path(__file__).parents[2] / "docs" / "order.md"

BEGIN_NS = 1_700_000_000 * 10**9 + 10_000_000
STEP_NS = 10_000_000


def course(count=300, step_ns=STEP_NS):
    return [(BEGIN_NS + step_ns * number, frame_of(0, number)) for number in range(count)]


def segment(up, number):
    frame = bytearray(frame_of(0, number, up))
    frame[23] = 6
    return bytes(frame)


def ring(tmp_path):
    frames = course()
    for at, part in enumerate((frames[200:], frames[:100], frames[100:200])):
        pcap(tmp_path / f"ring-{at}.pcap", part)


def directions(tmp_path):
    for name, at in (("up", 0), ("down", 1)):
        frames = [(BEGIN_NS + STEP_NS * number, segment(name == "up", number)) for number in range(at, 100, 2)]
        pcap(tmp_path / f"{name}.pcap", frames)


def queues(tmp_path):
    frames = course(step_ns=1_000_000)
    # Every other frame comes 4.5 ms late.
    pcap(
        tmp_path / "queues.pcap",
        sorted(frames, key=lambda frame: frame[0] + 4_500_000 * (frame[0] // 1_000_000 % 2)),
    )


def late(tmp_path):
    frames = course()
    frames[150] = frames[150][0] + HOUR_NS - STEP_NS, frames[150][1]
    pcap(tmp_path / "late.pcap", frames)


def step(tmp_path):
    frames = course()
    pcap(tmp_path / "step.pcap", [(ns - 1_009_000_000 * (at >= 150), data) for at, (ns, data) in enumerate(frames)])


def two_clocks(tmp_path):
    frames = [
        (ns + 5_000_000_000 * (at % 2 and at >= 300), data) for at, (ns, data) in enumerate(course(600, 1_000_000))
    ]
    pcapng(tmp_path / "two-clocks.pcapng", [[(ns, data, at % 2) for at, (ns, data) in enumerate(frames)]])


MADE = {
    "ring-0.pcap": ring,
    "down.pcap": directions,
    "queues.pcap": queues,
    "late.pcap": late,
    "step.pcap": step,
    "two-clocks.pcapng": two_clocks,
}


def examples():
    found = re.findall(r"^    \$ (.*)\n((?:    .*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [(command, [line.strip() for line in shown.splitlines()]) for command, shown in found]


@pytest.mark.parametrize(("command", "shown"), examples(), ids=lambda value: value if isinstance(value, str) else "")
def test_an_example_shows_what_is_printed(tmp_path, monkeypatch, command, shown):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "84")
    words = shlex.split(command)[1:]
    MADE[words[1]](tmp_path)
    ended = invoke(*words)
    assert ended.code == 0, ended
    for line in shown:
        assert line in ended.stdout, ended.stdout[:1500]


def test_each_kind_has_an_example():
    assert {shlex.split(command)[2] for command, _ in examples()} == MADE.keys()
