"""Text of strangers in reports and tables: no cell that a spreadsheet would run, nothing that steers a terminal."""

import csv
import io
import re
import struct
import unicodedata
from random import Random
from typing import Any

import packets
import streams
from support import header_frames as layers
from support.order_sessions import fix
from values import timestamps

from uspcap.analysis.suite import Outcome
from uspcap.report.document import build_report, source_of
from uspcap.report.page import report_page
from uspcap.report.renderers.csv import write_table
from uspcap.report.renderers.text import as_text

_ANALYSES = (("orders", "fix"), ("sequence", "moldudp64"), ("sequence", "fix"))
_STARTS = ("=", "+", "-", "@", "\t=", "\r=", " =", "'=", "x;=", "\x1b[31m", "\x00", "\x9b", "＝", "\u202e", "")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?")
_RUNS = re.compile(r"[=+\-@＝＋－＠\t\r]")


def _evil(random: Random) -> str:
    return random.choice(_STARTS) + random.choice(("cmd|'/c calc'!A1", "SUM(1)", "1", "", "2+3", "x" * 30))


def generate(random: Random) -> Any:
    state: dict[str, Any] = {}
    frames = []
    for _ in range(random.randrange(1, 8)):
        text = _evil(random)
        if random.random() < 0.5:
            fields = [(11, text), (37, _evil(random)), (58, _evil(random))]
            frames.append(packets.segment(random, state, fix(random.choice("D8GA"), random.randrange(1, 9), *fields)))
        else:
            session = text.encode("utf-8")[:10].ljust(10)
            mold = session + struct.pack("!QH", packets.walk(random, state, "mold", 64), 1) + b"\0\1x"
            frames.append(layers.ethernet(0x0800, layers.ipv4(17, layers.udp(mold, 30000, 26400))))
    rows = [(at, frame, 0, 5, 0, 0, 0) for at, frame in zip(timestamps(random, len(frames)), frames, strict=True)]
    return {"frames": rows, "analysis": random.randrange(len(_ANALYSES))}


def run(value: Any) -> None:
    name, protocol = _ANALYSES[value["analysis"] % len(_ANALYSES)]
    given = {"max_flows": 64, "top": 10, "timeout": 10**9, "order_protocol": "fix", "protocol": protocol}
    suite = streams.analysed(value, streams.settings_of(name, given), 0, len(value["frames"]), 4096)
    for analysis in suite.analyses.values():
        for table in analysis.tables().values():
            if table:
                _check_table(table)
    report = build_report(source_of(Outcome(suite, 1, files=[{"file": "f", "first_frame": 1}])), suite.analyses)
    shown = as_text(report_page(report), 120)
    steering = [letter for letter in shown if unicodedata.category(letter) == "Cc" and letter != "\n"]
    assert not steering, f"a report steers the terminal: {steering}"


def _check_table(table: Any) -> None:
    stream = io.StringIO(newline="")
    write_table(table, stream)
    for row in csv.reader(io.StringIO(stream.getvalue(), newline="")):
        for cell in row:
            assert not any(unicodedata.category(letter) == "Cc" for letter in cell), f"a cell steers: {cell!r}"
            for part in (cell, *cell.split(";")):
                runs = _RUNS.match(part) and not _NUMBER.fullmatch(part)
                assert not runs, f"a cell runs: {cell!r}"
