"""uspcap analyze: what its options do to the report, where it goes, and how it ends."""

from __future__ import annotations

import gzip
import json
import math
import os
import pty
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pandas
import pytest
from support.capture_files import interface, option, packet, pcap_header, pcap_record, section
from support.command_line import PROGRAM, assert_one_clear_line, invoke, pcap_of, start
from support.header_frames import ethernet, ipv4, ipv6, mpls, tcp, udp, vlan, vxlan
from support.shared_captures import CAPTURES, CASES, needs_captures, needs_cases
from support.streams import START_NS, Frame, flow_text, seeded_stream
from support.tcpdump_oracle import Refused, read_with_tcpdump

from uspcap.analysis import registry
from uspcap.formats import open_capture
from uspcap.report.schema import load_schema

FRAMES = seeded_stream(7, 3_000, flows=12)
ESCAPE = "\x1b"

TITLES = {
    "summary": "Summary",
    "timestamps": "Timestamps",
    "inter_arrival": "Inter-arrival times",
    "gaps": "Gaps within flows",
    "bursts": "Bursts",
    "overhead": "Overhead",
}
DEFAULT = registry.default_names(live=False)

NEEDING_OPTIONS = ("sequence", "arbitration", "trailer", "tick_to_trade")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captures") / "made.pcap"
    path.write_bytes(pcap_of(FRAMES))
    return path


def report(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    """The JSON report of a run, which is all that it prints, and valid."""
    ended = invoke("analyze", "--format", "json", *arguments)
    assert ended.code == code, ended
    assert code or ended.stderr == ""
    document: dict[str, Any] = json.loads(ended.stdout)
    jsonschema.validate(document, load_schema())
    return document


def test_the_report_counts_every_frame(capture: Path) -> None:
    source = report(capture)["source"]
    assert source["files"] == [str(capture)]
    assert source["packets"] == source["packets_read"] == len(FRAMES)
    assert source["bytes_on_wire"] == sum(len(frame.wire()) for frame in FRAMES)
    assert source["first_timestamp_ns"] == FRAMES[0].timestamp_ns
    assert source["last_timestamp_ns"] == FRAMES[-1].timestamp_ns
    assert source["problems"] == []
    assert source["filter"] is None


@pytest.mark.parametrize(
    "names",
    [
        "gaps",
        "bursts,gaps",
        "inter-arrival, summary",
        "overhead,timestamps",
        ",".join(DEFAULT),
    ],
)
def test_only_runs_the_analyses_named(capture: Path, names: str) -> None:
    wanted = {name.strip().replace("-", "_") for name in names.split(",")}
    assert list(report("--only", names, capture)["analyses"]) == [name for name in DEFAULT if name in wanted]
    text = invoke("analyze", "--only", names, capture).stdout
    assert {name for name, title in TITLES.items() if f"\n{title}" in text} == wanted


def test_what_files_do_not_tell_is_refused_in_one_sentence(capture: Path) -> None:
    code, output, errors = invoke("analyze", "--only", "summary,path-latency", capture)
    assert (code, output) == (2, "")
    assert errors.count("\n") == 1 and "path_latency needs the moment at which a frame was read" in errors


def test_the_report_goes_to_a_file_and_nothing_to_standard_output(capture: Path, tmp_path: Path) -> None:
    for form in ("json", "text"):
        path = tmp_path / f"report.{form}"
        path.write_text("what was there before" * 10_000)
        assert invoke("analyze", capture, "--format", form, "-o", path) == (0, "", "")
        assert path.read_text() == invoke("analyze", capture, "--format", form).stdout


def test_any_number_of_threads_gives_the_same_report(capture: Path) -> None:
    assert report(capture, "-j", "1") == report(capture, "-j", "4") == report(capture, "-n")


def test_tables_are_read_by_pandas_and_hold_the_rows_of_the_report(capture: Path, tmp_path: Path) -> None:
    analyses = report(capture, "--tables", tmp_path / "new" / "tables", "--gap-threshold", "1ms")["analyses"]
    tables = {path.name: pandas.read_csv(path) for path in (tmp_path / "new" / "tables").glob("*.csv")}
    assert {name.split(".")[0] for name in tables} >= {"summary", "inter_arrival", "gaps", "bursts", "overhead"}
    same_rows(tables["summary.protocols.csv"], analyses["summary"]["protocols"])
    same_rows(tables["summary.sizes.csv"], analyses["summary"]["sizes"])
    same_rows(tables["bursts.windows.csv"], analyses["bursts"]["windows"])
    same_rows(tables["gaps.gaps.csv"], analyses["gaps"]["longest"])
    assert len(tables["gaps.gaps.csv"]) == analyses["gaps"]["listed"] > 10
    assert tables["gaps.flows.csv"]["gaps"].sum() == analyses["gaps"]["count"]
    same_rows(tables["inter_arrival.largest_gaps.csv"], analyses["inter_arrival"]["largest_gaps"])
    assert tables["inter_arrival.histogram.csv"]["count"].sum() == sum(
        histogram["count"] for histogram in analyses["inter_arrival"]["sources"].values()
    )
    same_rows(tables["overhead.protocols.csv"], analyses["overhead"]["protocols"])


def same_rows(table: pandas.DataFrame, rows: Sequence[dict[str, Any]]) -> None:
    """Check that the table starts with these rows, as far as both have a column."""
    assert 0 < len(rows) <= len(table)
    columns = [column for column in table.columns if column in rows[0]]
    assert len(columns) >= 3
    for column in columns:
        values = [row[column] for row in rows]
        got = table[column][: len(rows)]
        if any(value is None or isinstance(value, float) for value in values):
            assert got.tolist() == pytest.approx(
                [math.nan if value is None else value for value in values], nan_ok=True
            )
        else:
            assert got.tolist() == values


@needs_captures
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump to compare with: install it")
@pytest.mark.parametrize(
    "name", ["udp-rr/pcaps__dns.cap", "tcp/packets__http_espn.pcapng", "rtp-mcast/nDPI__telegram.pcap"]
)
@pytest.mark.parametrize(
    "expression", ["udp port 53", "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0", "not ip", "greater 1000"]
)
def test_filters_keep_as_many_frames_as_tcpdump(name: str, expression: str) -> None:
    path = CAPTURES / name
    everything = len(read_with_tcpdump(path).frames)
    expected = read_with_tcpdump(path, expression).frames
    for arguments in ([path, *expression.split()], [path, expression], ["-f", expression, path]):
        source = report(*arguments)["source"]
        assert source["filter"] == expression
        assert source["packets"] == len(expected)
        assert source["packets_read"] == everything
        assert source["bytes_on_wire"] == sum(frame.wire_length for frame in expected)


@needs_captures
@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="no tcpdump to compare with: install it")
def test_what_tcpdump_refuses_is_refused() -> None:
    path = CAPTURES / "udp-rr/pcaps__dns.cap"
    with pytest.raises(Refused):
        read_with_tcpdump(path, "wlan type data")
    assert_one_clear_line(invoke("analyze", path, "wlan type data"), 2, "does not compile for link type 1")


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_standard_input_gives_the_report_of_the_file(capture: Path, pack: Any) -> None:
    ended = start("analyze", "-", "--format", "json", stdin=pack(capture.read_bytes()))
    assert ended.code == 0
    assert ended.stderr == ""
    ours, of_file = json.loads(ended.stdout), report(capture)
    assert ours["source"].pop("files") == ["-"]
    of_file["source"].pop("files")
    for decision in (*ours["source"]["decisions"], *of_file["source"]["decisions"]):
        decision.pop("file")
    assert ours == of_file


def test_several_files_are_one_stream(capture: Path, tmp_path: Path) -> None:
    parts = []
    for start_at in range(0, len(FRAMES), 1_000):
        parts.append(tmp_path / f"{start_at}.pcap")
        parts[-1].write_bytes(pcap_of(FRAMES[start_at : start_at + 1_000]))
    for arguments in ([], ["udp", "port", "1001"]):
        joined, whole = report(*parts, *arguments), report(capture, *arguments)
        assert joined["source"]["files"] == [str(part) for part in parts]
        assert joined["source"]["first_frames"] == [1, 1_001, 2_001]
        assert joined["analyses"]["gaps"] == whole["analyses"]["gaps"]
        assert joined["analyses"]["inter_arrival"] == whole["analyses"]["inter_arrival"]
        assert joined["analyses"]["bursts"] == whole["analyses"]["bursts"]


@pytest.mark.parametrize(
    ("text", "threshold_ns"), [("0s", 0), ("250us", 250_000), ("1.5ms", 1_500_000), ("292h", 292 * 3600 * 10**9)]
)
def test_gap_threshold_decides_what_a_gap_is(capture: Path, text: str, threshold_ns: int) -> None:
    last: dict[int, int] = {}
    gaps = []
    for frame in FRAMES:
        if frame.flow in last:
            gaps.append(frame.timestamp_ns - last[frame.flow])
        last[frame.flow] = frame.timestamp_ns
    result = report(capture, "--gap-threshold", text, "--only", "gaps", "--sort", "off")["analyses"]["gaps"]
    assert (result["threshold"], result["threshold_ns"]) == ("given", threshold_ns)
    over = [gap for gap in gaps if gap > threshold_ns]
    assert (result["count"], result["total_ns"]) == (len(over), sum(over))
    assert [gap["gap_ns"] for gap in result["longest"]] == sorted(over, reverse=True)[:10]


def test_line_rate_is_what_bursts_are_compared_with(capture: Path) -> None:
    def bursts(*arguments: str) -> dict[str, Any]:
        result: dict[str, Any] = report(capture, "--only", "bursts", *arguments)["analyses"]["bursts"]
        return result

    assert bursts()["line_rate_bps"] is None
    result = bursts("--line-rate", "2.5Gbit")
    assert result["line_rate_bps"] == 2_500_000_000
    for row in result["windows"]:
        # On the line, each frame takes 24 bytes more (IEEE 802.3: preamble, FCS, inter-frame gap).
        on_the_line = 8 * (row["peak_bytes"] + 24 * row["peak_bytes_frames"])
        assert row["line_rate_share"] == pytest.approx(on_the_line / (2.5 * row["window_ns"]), rel=1e-3)


def test_framing_counts_preamble_check_sequence_and_gap(capture: Path) -> None:
    plain = report(capture)["analyses"]["overhead"]
    framed = report(capture, "--framing")["analyses"]["overhead"]
    assert sum(row["framing_bytes"] for row in plain["protocols"]) == 0
    # IEEE 802.3: 8 of preamble, 4 of FCS, 12 of gap; frames of less than 60 bytes are padded, and there are none.
    assert sum(row["framing_bytes"] for row in framed["protocols"]) == 24 * len(FRAMES)


@needs_captures
def test_tunnels_makes_the_innermost_headers_count() -> None:
    path = CAPTURES / "encap/suricata-verify__vxlan-decoder-02__vxlan.pcap"

    def protocols(*arguments: str) -> dict[str, int]:
        rows = report(path, *arguments)["analyses"]["summary"]["protocols"]
        return {row["protocol"]: row["packets"] for row in rows}

    assert protocols("--no-tunnels") == {"IPv4/UDP": 10}
    assert protocols("--tunnels") == protocols() == {"IPv4/ICMP": 8, "ARP": 2}
    assert protocols("icmp") == {"IPv4/ICMP": 8}
    assert protocols("--outer", "udp") == {"IPv4/ICMP": 8, "ARP": 2}


@pytest.mark.parametrize("top", [1, 3, 25])
def test_top_bounds_the_lists(capture: Path, top: int) -> None:
    analyses = report(capture, "--top", str(top), "--gap-threshold", "1us")["analyses"]
    assert len(analyses["gaps"]["longest"]) == top
    assert len(analyses["inter_arrival"]["largest_gaps"]) == top
    assert len(analyses["inter_arrival"]["flows"]["by_count"]) == min(top, len({frame.flow for frame in FRAMES}))


def test_max_flows_bounds_what_is_followed_and_the_report_says_so(capture: Path) -> None:
    flows = len({frame.flow for frame in FRAMES})
    everything = report(capture)["analyses"]["inter_arrival"]["flows"]
    assert (everything["tracked"], everything["sampled_one_in"]) == (flows, 1)
    sample = report(capture, "--max-flows", "4")["analyses"]["inter_arrival"]["flows"]
    assert sample["tracked"] <= 4
    assert sample["sampled_one_in"] > 1
    assert sample["frames_untracked"] > 0


def outliers_of(text: str) -> list[tuple[str, list[str]]]:
    """Part what follows the report: title, and the lines below it."""
    blocks = text[text.index("\nGap of ") if "\nGap of " in text else text.index("\nLargest gap ") :].split("\n\n")
    return [(block.strip().splitlines()[0], block.strip("\n").splitlines()[1:]) for block in blocks]


def test_outliers_are_the_lines_of_dump_around_the_longest_gaps(capture: Path) -> None:
    dumped = invoke("dump", capture).lines
    options = [capture, "--gap-threshold", "100us"]
    gaps = report(*options)["analyses"]["gaps"]["longest"][:5]
    assert len(gaps) == 5
    shown = outliers_of(invoke("analyze", *options, "--show-outliers").stdout)
    assert len(shown) == 5
    for gap, (title, lines) in zip(gaps, shown, strict=True):
        before, after = gap["before_frame"], gap["after_frame"]
        assert f"in {gap['flow']}, frames {before} to {after}:" in title
        near = sorted({*range(before - 1, before + 2), *range(after - 1, after + 2)} & set(range(1, len(dumped) + 1)))
        assert [line[2:] for line in lines] == [dumped[number - 1] for number in near]
        marks = {int(line[2:].split()[0]): line[0] for line in lines if line[0] != " "}
        assert marks == {before: "<", after: ">"}


@needs_captures
def test_outliers_are_decoded_as_the_report_was_and_addresses_stay_addresses() -> None:
    path = CAPTURES / "encap/suricata-verify__vxlan-decoder-02__vxlan.pcap"
    for options in ([], ["--tunnels"]):
        dumped = invoke("dump", path, *options).lines
        ended = invoke("analyze", path, "--show-outliers", *options)
        assert ended.code == 0
        lines = [line[2:] for _, lines in outliers_of(ended.stdout) for line in lines]
        assert lines
        assert set(lines) <= set(dumped)


def test_an_address_with_an_emojis_name_in_it_stays_itself(tmp_path: Path) -> None:
    ip = bytes.fromhex("6000000000003b40 20010db8000a000b 0000000000000001 20010db8000b000a 0000000000000002")
    frame = bytes(12) + b"\x86\xdd" + ip
    path = tmp_path / "addresses.pcap"
    path.write_bytes(pcap_header() + b"".join(pcap_record(second, 0, frame) for second in (1, 2, 4)))
    ended = invoke("analyze", path, "--show-outliers")
    assert "2001:db8:a:b::1 > 2001:db8:b:a::2" in "\n".join(lines[0] for _, lines in outliers_of(ended.stdout))


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_damaged_file_gives_a_full_report_one_line_and_1(tmp_path: Path, form: str) -> None:
    whole = pcap_of(FRAMES)
    path = tmp_path / "cut.pcap"
    path.write_bytes(whole[:-1])
    offset = len(whole) - 16 - len(FRAMES[-1].wire())
    ended = invoke("analyze", path, "--format", form)
    assert_one_clear_line(ended, 1, f"{path}: byte {offset}: the file ends")
    if form == "text":
        assert all(f"\n{title}" in ended.stdout for title in TITLES.values())
        return
    document = json.loads(ended.stdout)
    jsonschema.validate(document, load_schema())
    assert list(document["analyses"]) == list(DEFAULT)
    assert document["source"]["packets"] == len(FRAMES) - 1
    assert document["source"]["truncated"]
    (problem,) = document["source"]["problems"]
    assert (problem["file"], problem["offset"]) == (str(path), offset)
    assert "the file ends" in problem["what"]


@needs_captures
@pytest.mark.parametrize(
    "name",
    [
        "corrupt/suricata-verify__bug-6875-01__fuzz.pcap",
        "corrupt/libpcap__shb-option-too-long.pcapng",
        "tcp/pcaps__http-fault-post.pcap",
        "pcap-variants/nDPI__fuzz-2021-10-13.pcap",
    ],
)
def test_captures_damaged_by_others_are_reported_on(name: str) -> None:
    document = report(CAPTURES / name, code=1)
    assert document["source"]["problems"]
    ended = invoke("analyze", CAPTURES / name)
    assert_one_clear_line(ended, 1, name)
    assert "listed at the end" in ended.stdout


def on_a_terminal(*arguments: str | Path, **environment: str) -> str:
    """What a run writes to a terminal of its own."""
    reading, writing = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    with subprocess.Popen(
        [*PROGRAM, *arguments], stdout=writing, stderr=writing, env=kept | {"TERM": "xterm-256color"} | environment
    ) as process:
        os.close(writing)
        written = b""
        while True:
            try:
                piece = os.read(reading, 65536)
            except OSError:  # EIO: the last writer has gone
                break
            if not piece:
                break
            written += piece
    os.close(reading)
    assert process.returncode == 0
    return written.decode()


def test_escape_sequences_are_for_terminals_that_want_them(capture: Path) -> None:
    arguments = ("analyze", capture, "--show-outliers")
    assert ESCAPE in on_a_terminal(*arguments)
    plain = on_a_terminal(*arguments, NO_COLOR="1")
    assert "Inter-arrival times" in plain
    assert ESCAPE not in plain
    assert ESCAPE not in on_a_terminal(*arguments, TERM="dumb")
    assert ESCAPE not in start(*arguments).stdout


def test_a_terminal_that_knows_ascii_only_gets_ascii(capture: Path) -> None:
    ended = start("analyze", capture, "--show-outliers", env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert ended.code == 0
    assert ended.stdout.isascii()


def test_a_closed_pipe_ends_it_quietly(capture: Path) -> None:
    for form in ("text", "json"):
        reading, writing = os.pipe()
        os.close(reading)
        done = subprocess.run(
            [*PROGRAM, "analyze", capture, "--format", form], stdout=writing, stderr=subprocess.PIPE, timeout=60
        )
        os.close(writing)
        assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine lacks /dev/full")
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_full_disk_is_reported_in_one_line(capture: Path, form: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "analyze", capture, "--format", form], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == "uspcap: cannot write the output: No space left on device; free space or send it elsewhere\n"
    ended = invoke("analyze", capture, "--format", form, "-o", "/dev/full")
    assert_one_clear_line(ended, 1, "/dev/full: cannot write the report: No space left on device")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "FILE"),
        (("{}", "--only", "gap"), "there is no analysis 'gap'"),
        (("{}", "--only", ""), "there is no analysis"),
        (("{}", "--format", "xml"), "xml"),
        (("{}", "--gap-threshold", "5"), "250us"),
        (("{}", "--gap-threshold", "99999999999h"), "146 years"),
        (("{}", "--line-rate", "fast"), "10G"),
        (("{}", "--line-rate", "0"), "10G"),
        (("{}", "--line-rate", "1GB/s"), "10G"),
        (("{}", "--top", "0"), "from 1 to 10,000"),
        (("{}", "--max-flows", "0"), "whole number from 1"),
        (("{}", "-j", "0"), "from 1 to 256"),
        (("{}", "-o", "."), "directory"),
        (("{}", "no", "such", "words"), "does not compile"),
        (("{}", "-f", "tcp port"), "does not compile"),
        (("{}", "-f", "tcp", "udp"), "given more than once"),
        (("{}", "--show-outliers", "--format", "json"), "--show-outliers"),
        (("-", "--show-outliers"), "--show-outliers"),
        (("{}", "--show-outliers", "--only", "summary,bursts"), "--only"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_clear_line(capture: Path, arguments: tuple[str, ...], words: str) -> None:
    ended = invoke("analyze", *(argument.format(capture) for argument in arguments))
    assert_one_clear_line(ended, 2, words)
    assert ended.stdout == ""


def test_a_pipe_is_read_once(capture: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert_one_clear_line(invoke("analyze", pipe, "--show-outliers"), 2, "pipes")


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
    capture: Path, tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    for arguments in ([path], [path, "--format", "json"], [path, "udp"]):
        ended = invoke("analyze", *arguments)
        assert_one_clear_line(ended, 1, words)
        assert ended.stdout == ""


def test_what_cannot_be_written_ends_with_1_and_one_clear_line(capture: Path, tmp_path: Path) -> None:
    ended = invoke("analyze", capture, "-o", tmp_path / "missing" / "report")
    assert_one_clear_line(ended, 1, "cannot write the report: No such file or directory")
    ended = invoke("analyze", capture, "--tables", "/proc/tables")
    assert_one_clear_line(ended, 1, "/proc/tables: cannot make this directory")


def test_a_filter_in_one_long_word_is_a_filter(capture: Path) -> None:
    expression = " or ".join(f"udp port {port}" for port in range(1001, 1100))
    ended = report(capture, expression)["source"]
    assert ended["packets"] == sum(frame.flow > 0 for frame in FRAMES) > 0


def test_a_flow_is_named_as_the_frames_of_it(tmp_path: Path) -> None:
    path = tmp_path / "one.pcap"
    path.write_bytes(pcap_of([Frame(START_NS, 60, 3), Frame(START_NS + 10**9, 60, 3)]))
    (gap,) = report(path, "--gap-threshold", "1ms")["analyses"]["gaps"]["longest"]
    assert gap["flow"] == flow_text(3)


def pcapng_of(ticks: Sequence[int], *, resolution: int | None = 9, offset_s: int = 0) -> bytes:
    """Return a pcapng file of one interface; without a resolution it says nothing of it, and ticks are microseconds."""
    options = b"" if resolution is None else option(9, bytes([resolution]))
    options += option(14, struct.pack("<q", offset_s)) if offset_s else b""
    return section() + interface(options=options) + b"".join(packet(one, bytes(60)) for one in ticks)


EXTREMES = {
    "one frame at the lowest int64": pcapng_of([2**63 % (33 * 10**9)], offset_s=-(2**63 // 10**9) - 33),
    "ticks of ns that nobody says are ns": pcapng_of(range(START_NS, START_NS + 5000), resolution=None),
    "from one end to the other": pcapng_of([0, 2**63 - 1, 2**64 - 1], offset_s=-4_611_686_018),
    "there and back, again and again": pcapng_of([0, 2**64 - 1] * 50),
}


@pytest.mark.parametrize("name", EXTREMES)
def test_times_at_the_ends_are_reported_and_what_they_are_worth_is_said(tmp_path: Path, name: str) -> None:
    path = tmp_path / "extreme.pcapng"
    path.write_bytes(EXTREMES[name])
    every = ",".join(one for one in registry.names(live=False) if one not in NEEDING_OPTIONS)
    ended = start("analyze", path, "--only", every, "--format", "json")
    assert ended.code == 1
    assert "frame " in ended.stderr and ended.stderr.count("\n") == 1
    report = json.loads(ended.stdout)
    jsonschema.validate(report, load_schema())
    first = report["source"]["problems"][0]
    assert first["frame"] is not None
    assert first["what"].startswith("the timestamp lies ")
    for analysis, result in report["analyses"].items():
        assert bool(result["caveats"]) == (analysis != "overhead")
    text = start("analyze", path, "--only", every)
    assert text.code == 1
    assert "outside uspcap's range" in " ".join(text.stdout.split())
    assert f"frame {first['frame']}" in text.stdout


@needs_cases
@pytest.mark.parametrize("name", ["F1a-bursts-1frame-int64min.pcapng", "F1b-ns-ticks-without-tsresol.pcapng.gz"])
def test_damaging_times_of_others_are_reported(name: str) -> None:
    ended = start("analyze", CASES / "damage" / name, "--format", "json")
    assert ended.code == 1
    assert json.loads(ended.stdout)["source"]["problems"][0]["frame"] == 1


@needs_cases
def test_patterns_over_more_than_64_bits_are_reported() -> None:
    ended = start("analyze", CASES / "damage" / "F2-patterns-span.pcapng", "--only", "patterns", "--format", "json")
    patterns = json.loads(ended.stdout)["analyses"]["patterns"]
    assert bool(ended.code) == bool(patterns["caveats"])


SOMEIP = (
    *("--only", "requests", "--request", "udp dst port 30509; key=payload[8:12]; name=someip"),
    *("--response", "udp src port 30509; key=payload[8:12]"),
)


@needs_cases
@pytest.mark.parametrize("name", ["v1_mixed.pcap", "v1_vlan.pcap"])
def test_rules_meet_requests_tagged_or_not(name: str) -> None:
    rules = report(CASES / "files" / name, *SOMEIP)["analyses"]["requests"]["rules"]
    found = next(rule for rule in rules if rule["name"] == "someip")
    assert (found["requests"], found["answered"], found["unsolicited_responses"]) == (100, 100, 0)


@needs_cases
@pytest.mark.parametrize("options", [[], ["--tunnels"], ["-f", "udp port 26400"], ["-f", "not tcp"]])
@pytest.mark.parametrize("name", ["p10_vxlan.pcap", "p10_erspan2.pcap"])
def test_what_is_lost_in_a_tunnel_is_found(name: str, options: list[str]) -> None:
    found = report(CASES / "files" / name, "--only", "sequence", "--protocol", "moldudp64", *options)
    assert (found["analyses"]["sequence"]["lost"], len(found["analyses"]["sequence"]["streams"])) == (1, 1)
    assert [one["option"] for one in found["source"]["decisions"]] == ([] if "--tunnels" in options else ["--tunnels"])


@needs_cases
def test_the_report_says_how_the_filter_was_read() -> None:
    path = CASES / "files/p10_vxlan.pcap"
    inner = report(path, "-f", "udp port 26400")
    assert inner["filter"] == {
        "expression": "udp port 26400",
        "reading": "inner",
        "why": "nothing in it names an encapsulation",
    }
    assert inner["source"]["packets"] == 299
    assert report(path, "-f", "udp port 4789")["filter"]["reading"] == "outer"
    outer = report(path, "--outer", "-f", "udp port 26400")
    assert (outer["filter"]["why"], outer["source"]["packets"]) == ("--outer asks for it", 0)
    assert "filter" not in report(path)


@needs_cases
def test_a_filter_that_matches_nothing_gets_one_hint() -> None:
    path = CASES / "files/p10_vxlan.pcap"
    found = report(path, "--outer", "-f", "udp port 26400")["source"]["notes"]
    assert [note for note in found if "matches no" in note] == [
        "the filter 'udp port 26400' matches no outer frame, but the innermost packet of 299 frames: leave out --outer "
        "to apply it to those"
    ]
    shown = invoke("dump", path, "not", "port", "4789")
    assert not shown.stdout
    assert "because port 4789 names an encapsulation" in shown.stderr
    assert "matches no" not in invoke("dump", path, "udp", "port", "26400").stderr


@needs_cases
def test_a_rule_that_matches_nothing_gets_a_hint_and_flows_are_counted_once() -> None:
    path = CASES / "files/p10_vxlan.pcap"
    rules = ("--request", "not udp port 4789", "--response", "udp port 26401")
    found = report(path, "--only", "requests,inter_arrival,gaps", *rules)
    assert found["analyses"]["requests"]["caveats"] == [
        "the rule of --request 'not udp port 4789' matches no outer frame, but the innermost packet of 299 frames: it "
        "applies to outer frames because port 4789 names an encapsulation; leave that out to apply it to "
        "innermost packets"
    ]
    plain = report(path, "--tunnels", "--only", "inter_arrival,gaps")
    assert found["analyses"]["inter_arrival"] == plain["analyses"]["inter_arrival"]
    assert found["analyses"]["gaps"] == plain["analyses"]["gaps"]


@needs_cases
def test_rules_apply_to_outer_frames_where_that_is_asked_for() -> None:
    path = CASES / "files/v1_vlan.pcap"
    found = report(path, "--outer", *SOMEIP)["analyses"]["requests"]
    assert next(rule for rule in found["rules"] if rule["name"] == "someip")["requests"] == 0
    assert len(found["caveats"]) == 2
    assert all("but the innermost packet of 100 frames: leave out --outer" in caveat for caveat in found["caveats"])


@needs_cases
def test_a_replay_decodes_tunnels_that_carry_most_frames() -> None:
    path = CASES / "files/p10_vxlan.pcap"
    command = ("capture", "-r", path, "--analyze", "sequence", "--protocol", "moldudp64", "--format", "json")
    ended = invoke(*command)
    assert json.loads(ended.stdout)["analyses"]["sequence"]["lost"] == 1
    assert "299 of 299 frames checked are in VXLAN (as --tunnels)" in ended.stderr
    outer = invoke(*command, "--no-tunnels")
    assert json.loads(outer.stdout)["analyses"]["sequence"]["lost"] == 0
    assert "VXLAN" not in outer.stderr


def test_what_a_replay_writes_goes_by_outer_frames_with_tags_aside(tmp_path: Path) -> None:
    packet = ipv4(17, udp(bytes(8), 1, 53))
    inside = ethernet(0x0800, packet)
    frames = [
        inside,
        ethernet(0x8100, vlan(5, 0x0800, packet)),
        ethernet(0x88A8, vlan(5, 0x8100, vlan(6, 0x86DD, ipv6(17, udp(bytes(8), 1, 53))))),
        ethernet(0x8847, mpls([16], packet)),
        ethernet(0x0800, ipv4(17, vxlan(inside))),
        ethernet(0x8100, vlan(7, 0x0806, bytes(28))),
        ethernet(0x0800, ipv4(6, tcp())),
    ]
    source, target = tmp_path / "a.pcap", tmp_path / "b.pcap"
    source.write_bytes(pcap_header() + b"".join(pcap_record(at, 0, frame) for at, frame in enumerate(frames)))

    def written(*words: str) -> list[int]:
        ended = invoke("capture", "-r", source, "-w", target, "--speed", "0", *words)
        assert ended.code == 0, ended
        with open_capture(str(target)) as reader:
            kept = [int(timestamp) // 10**9 for batch in reader.batches() for timestamp in batch.timestamp_ns]
        target.unlink()
        assert f"received 7 = {len(kept)} written" in ended.stderr
        if len(kept) < 7:
            assert f"{7 - len(kept)} not matching the filter" in ended.stderr
        return kept

    assert written() == [0, 1, 2, 3, 4, 5, 6]
    assert written("udp", "port", "53") == [0, 1, 2]
    assert written("--inner", "udp", "port", "53") == [0, 1, 2, 3, 4]
    assert written("--outer", "udp", "port", "53") == [0]
    assert written("not", "udp", "port", "53") == [3, 4, 5, 6]
    assert written("--inner", "not", "udp", "port", "53") == [5, 6]
    assert written("udp", "port", "4789") == [4]
    assert written("arp") == [5]
    assert written("vlan", "and", "udp") == [1]
    assert written("ether[12:2] = 0x8100") == [1, 5]
    assert written("udp[8] = 0") == [0, 1]
    hinted = invoke("capture", "-r", source, "-w", target, "--speed", "0", "udp port 53 and greater 90")
    assert not hinted.stdout
    analyzed = invoke("capture", "-r", source, "--speed", "0", "--format", "json", "udp", "port", "53")
    found = json.loads(analyzed.stdout)
    assert (found["filter"]["reading"], found["source"]["packets"]) == ("inner", 5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("-i", "lo", "--inner"), "--inner is about files that are replayed with -r"),
        (("-r", "a.pcap", "--inner", "--outer"), "--inner and --outer contradict each other"),
    ],
)
def test_readings_that_make_no_sense_are_refused(options: tuple[str, ...], sentence: str) -> None:
    assert_one_clear_line(invoke("capture", *options), 2, sentence)
