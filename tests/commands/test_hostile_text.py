"""Text that a stranger chose, in names of files and interfaces, comments, messages: shown, and never obeyed."""

from __future__ import annotations

import csv
import os
import pty
import re
import struct
import subprocess
import threading
import unicodedata
from pathlib import Path

import pytest
from support.capture_files import interface, option, packet, section
from support.command_line import PROGRAM
from support.order_sessions import fix

STEERING = [
    "\x1b]0;owned\x07",
    "\x1b[31m",
    "\x9b31m",
    "\u202eRLO",
    "a\rb",
    "a\nb",
    "\x08\x08",
    "\x7f",
    "\u2028",
    "\x0e",
]
OTHERS = ["[red]x[/red]", "[/]", ":smile:", "=cmd|'/c calc'!A1", "@SUM(1)", "+1", "-1+1", "＝1", "%s", "{0}", "\\x1b"]
EVIL = "".join(STEERING) + "[red]x[/red]:smile:"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""What rich makes of styles."""

_PROGRESS = re.compile(r"\r[^\r\n]*\x1b\[K")
"""A line that comes and goes where a run takes long."""

BASE_NS = 1_700_000_000_000_000_000


def tcp_frame(payload: bytes, sequence: int) -> bytes:
    tcp = struct.pack("!HHIIBBHHH", 40_000, 9_000, sequence, 0, 0x50, 0x18, 500, 0, 0)
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 0, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return bytes.fromhex("0200000000020200000000010800") + ip + tcp + payload


def dns_frame(label: bytes) -> bytes:
    question = (
        struct.pack("!HHHHHH", 7, 0x100, 1, 0, 0, 0) + bytes([len(label)]) + label + b"\0" + struct.pack("!HH", 1, 1)
    )
    udp = struct.pack("!HHHH", 50_000, 53, 8 + len(question), 0) + question
    ip = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2")
    return bytes.fromhex("0200000000020200000000010800") + ip + udp


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A capture every text of which is hostile, damaged at its end, under a hostile name."""
    evil = EVIL.encode()
    options = b"".join(option(code, evil) for code in (2, 3, 11, 12, 15)) + option(9, b"\x09") + option(0, b"")
    blocks = section(options=option(1, evil) + option(2, evil) + option(3, evil) + option(4, evil) + option(0, b""))
    blocks += interface(options=options)
    number = 1
    for at, text in enumerate((*STEERING, *OTHERS)):
        message = fix("D", at + 1, (49, text), (56, text), (11, text), (55, text))
        for frame in (tcp_frame(message, number), dns_frame(text.encode()[:60])):
            blocks += packet(BASE_NS + at * 1000, frame, options=option(1, evil) + option(0, b""))
        number += len(message)
    path = tmp_path / f"{EVIL.replace('/', '')}.pcapng"
    path.write_bytes(blocks + b"\x06\0\0\0\xff")
    return path


COMMANDS = [
    ["analyze", "FILE"],
    ["analyze", "FILE", "--only", "orders,sequence,summary,inter_arrival,gaps,requests,tcp", "--protocol", "fix"],
    ["analyze", "FILE", "--format", "json", "--only", "orders,sequence", "--protocol", "fix"],
    ["analyze", "FILE", "--show-outliers", "--gap-threshold", "1us"],
    ["analyze", "FILE", "nonsense", EVIL],
    ["dump", "FILE", "-x"],
    ["compare", "FILE", "FILE"],
    ["compare", "FILE", "FILE", "--format", "json"],
    ["compare", "FILE", "FILE", "--table", f"/nowhere/{EVIL}"],
    ["capture", "-r", "FILE", "--speed", "0", "-w", "/dev/null"],
    ["capture", "-r", "FILE", "--speed", "0", "--analyze", "summary,orders", "--interval", "1s"],
    ["capture", "-r", f"/nowhere/{EVIL}"],
    ["capture", "-i", EVIL[:15]],
    ["capture", "-i", EVIL],
    ["probe", "send", "127.0.0.1:9", "--like", "FILE"],
    ["probe", "send", EVIL],
    ["doctor", "-i", EVIL],
    ["compare", "-i", EVIL],
    ["analyze", "FILE", "--only", EVIL],
    ["analyze", "FILE", "--sequence", EVIL],
    ["analyze", "FILE", "--request", EVIL, "--response", EVIL],
    [EVIL],
    ["analyze", f"--{EVIL}", "FILE"],
]
NAMES = [" ".join(words).replace(EVIL, "EVIL").replace(EVIL[:15], "EVIL") for words in COMMANDS]


def assert_steers_nothing(said: str) -> None:
    said = said.replace("\r\n", "\n")  # the terminal's own
    for char in said:
        assert char == "\n" or unicodedata.category(char)[0] != "C", ascii(said)
        assert char not in "\u2028\u2029", ascii(said)
    assert "owned\x07" not in said


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_no_output_steers_the_terminal(hostile: Path, words: list[str]) -> None:
    done = subprocess.run(
        [*PROGRAM, *(str(hostile) if word == "FILE" else word for word in words)], capture_output=True, timeout=60
    )
    for said in (done.stdout, done.stderr):
        assert_steers_nothing(said.decode())
    assert "Traceback" not in done.stderr.decode()
    assert done.returncode in (0, 1, 2)


@pytest.mark.parametrize("words", COMMANDS, ids=NAMES)
def test_a_terminal_gets_colours_only(hostile: Path, words: list[str]) -> None:
    controller, terminal = pty.openpty()
    said = bytearray()

    def read() -> None:
        while True:
            try:
                said.extend(os.read(controller, 65536))
            except OSError:
                return

    reader = threading.Thread(target=read)
    process = subprocess.Popen(
        [*PROGRAM, *(str(hostile) if word == "FILE" else word for word in words)],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "200"},
    )
    os.close(terminal)
    reader.start()
    try:
        process.wait(60)
        reader.join(60)
    finally:
        process.kill()
        process.wait()
        os.close(controller)
    assert_steers_nothing(_PROGRESS.sub("", _COLOURS.sub("", said.decode())))


def test_markup_is_shown_as_it_is(hostile: Path) -> None:
    done = subprocess.run([*PROGRAM, "analyze", hostile], capture_output=True, text=True, timeout=60)
    assert "[red]x[/red]:smile:" in done.stdout


def test_cells_of_tables_neither_run_nor_steer(hostile: Path, tmp_path: Path) -> None:
    tables = tmp_path / "tables"
    words = [
        "analyze",
        str(hostile),
        "--only",
        "orders,sequence,summary,requests",
        "--protocol",
        "fix",
        "--tables",
        tables,
    ]
    subprocess.run([*PROGRAM, *words], capture_output=True, timeout=60)
    cells = 0
    for path in tables.iterdir():
        text = path.read_text()
        if path.suffix == ".csv":
            for row in csv.DictReader(text.splitlines()):
                cells += len(row)
                for name, value in row.items():
                    assert not re.match(r"[\s\"'“]*[=+@＝＋－＠-]", value) or value.startswith("'") or _number(value), (
                        name
                    )
        assert_steers_nothing(text)
    assert cells > 100
    requests = (tables / "orders.requests.csv").read_text()
    assert "'=cmd|" in requests
    assert "'@SUM(1)" in requests


def _number(text: str) -> bool:
    return bool(re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", text))
