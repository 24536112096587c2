"""The sample captures: made anew byte for byte, as tshark sees them, and as uspcap's analyses do."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.command_line import invoke

from uspcap.analysis.bursts.analysis import Bursts
from uspcap.analysis.gaps.analysis import Gaps
from uspcap.analysis.timestamps.analysis import Timestamps
from uspcap.cli import main
from uspcap.formats import open_capture

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "sample_captures"
TRUTH = json.loads((SAMPLES / "truth.json").read_text())
NAMES = sorted(TRUTH)
WHOLE = [name for name in NAMES if name != "damaged.pcapng"]
FEED, ORDERS, REQUESTS, MICROBURST, DAMAGED = (
    "feed-two-lines.pcapng",
    "order-session.pcap",
    "request-response.pcapng",
    "microburst.pcap",
    "damaged.pcapng",
)
LARGEST_BYTES = 200 * 1024

needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def tshark(name, *arguments):
    """Return how tshark ended, checksums verified and the samples' ports decoded as what they carry."""
    ports = ("udp.port==26401,moldudp64", "udp.port==26402,moldudp64", "tcp.port==24001,soupbintcp")
    options = [word for port in ports for word in ("-d", port)]
    options += [word for layer in ("ip", "udp", "tcp") for word in ("-o", f"{layer}.check_checksum:TRUE")]
    return subprocess.run(
        ["tshark", "-n", "-r", str(SAMPLES / name), *options, *arguments], capture_output=True, text=True, timeout=120
    )


def rows(name, *fields, only="frame"):
    """Return the fields of each frame that the display filter `only` shows."""
    selection = [word for field in fields for word in ("-e", field)]
    run = tshark(name, "-Y", only, "-T", "fields", "-E", "separator=|", *selection)
    assert run.returncode == 0 or "damaged or corrupt" in run.stderr, run.stderr
    return [line.split("|") for line in run.stdout.splitlines()]


def nanoseconds(seconds):
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 10**9 + int(fraction.ljust(9, "0"))


def analyze(analysis, name):
    with open_capture(str(SAMPLES / name)) as reader:
        for batch in reader.batches():
            analysis.update(batch)
    return analysis.result()


def test_making_them_again_gives_the_committed_files(tmp_path):
    command = [sys.executable, str(SAMPLES / "make.py"), "--directory", str(tmp_path)]
    subprocess.run(command, check=True, timeout=120, env=os.environ | {"PYTHONPATH": str(SAMPLES)})
    made = sorted(path.name for path in tmp_path.iterdir())
    assert made == sorted([*NAMES, "truth.json"])
    for name in made:
        assert (tmp_path / name).read_bytes() == (SAMPLES / name).read_bytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_no_capture_is_large(name):
    assert (SAMPLES / name).stat().st_size <= LARGEST_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_uspcap_reads_as_many_frames_as_were_put_in(name):
    with open_capture(str(SAMPLES / name)) as reader:
        assert sum(batch.count for batch in reader.batches()) == TRUTH[name]["frames"]


@needs_tshark
@pytest.mark.parametrize("name", WHOLE)
def test_tshark_reads_as_many_frames_as_were_put_in(name):
    run = tshark(name, "-T", "fields", "-e", "frame.number")
    assert run.returncode == 0
    assert len(run.stdout.splitlines()) == TRUTH[name]["frames"]


@needs_tshark
@pytest.mark.parametrize("name", NAMES)
def test_every_frame_decodes_with_right_checksums(name):
    seen = rows(name, "ip.checksum.status", "udp.checksum.status", "tcp.checksum.status", "icmp.checksum.status")
    assert seen
    good = "1"
    for network, *transport in seen:
        assert network == good
        assert [status for status in transport if status] == [good]
    warning = 0x600000
    assert rows(name, "frame.number", only=f"_ws.malformed || _ws.expert.severity >= {warning}") == []


@needs_tshark
def test_each_line_of_the_feed_lacks_exactly_what_it_lost():
    truth = TRUTH[FEED]
    seen = rows(FEED, "udp.dstport", "moldudp64.sequence", "moldudp64.count")
    everything = set(range(1, truth["messages"] + 1))
    missing = {}
    for name, line in truth["lines"].items():
        got = set()
        for port, sequences, count in seen:
            if int(port) == line["port"]:
                first = int(sequences.split(",")[0])
                got |= set(range(first, first + int(count)))
        missing[name] = everything - got
        assert missing[name] == _messages(line["lost"])
        assert sum(int(port) == line["port"] for port, _, _ in seen) == line["frames"]
    assert missing["A"] & missing["B"] == _messages(truth["lost_on_both"])


def _messages(ranges):
    return {n for one in ranges for n in range(one["first_sequence"], one["last_sequence"] + 1)}


@needs_tshark
def test_late_and_repeated_packets_and_heartbeats_are_the_frames_the_truth_names():
    truth = TRUTH[FEED]
    seen = rows(FEED, "udp.dstport", "moldudp64.sequence", "moldudp64.count", "frame.time_epoch")
    late, repeated, beats = [], [], []
    for name, line in truth["lines"].items():
        highest, first_frames = 0, {}
        frames = [(at, *row) for at, row in enumerate(seen, 1) if int(row[0]) == line["port"]]
        for at, _, sequences, count, _ in frames:
            sequence = int(sequences.split(",")[0])
            if count == "0":
                beats.append((name, at, sequence))
            elif sequence in first_frames:
                repeated.append((name, at, first_frames[sequence]))
            else:
                first_frames[sequence] = at
                if sequence < highest:
                    late.append((name, at))
            highest = max(highest, sequence)
        for lost in line["lost"]:
            numbers = [frame[0] for frame in frames]
            assert numbers.index(lost["after_frame"]) == numbers.index(lost["before_frame"]) + 1
    assert late == [(one["line"], one["frame"]) for one in truth["late"]]
    assert sorted(repeated) == sorted((one["line"], one["frame"], one["of_frame"]) for one in truth["duplicates"])
    expected = [(one["line"], one["frame"], one["next_sequence"]) for one in truth["heartbeats"]]
    assert sorted(beats) == sorted(expected)


@needs_tshark
def test_order_messages_and_their_times_are_those_of_the_table():
    truth = TRUTH[ORDERS]
    kinds = rows(ORDERS, "ouch.packet_type", only="ouch")
    messages = Counter(kind.strip("'") for (one,) in kinds for kind in one.split(","))
    names = {"entered": "O", "accepted": "A", "rejected": "J", "executed": "E", "canceled": "C"}
    for name, kind in names.items():
        # A retransmitted segment is not decoded twice.
        assert messages[kind] == truth["counts"][name], name
    timestamps = {int(number): nanoseconds(at) for number, at in rows(ORDERS, "frame.number", "frame.time_epoch")}
    tokens = {
        int(number): set(tokens.split(","))
        for number, tokens in rows(ORDERS, "frame.number", "ouch.order_token", only="ouch")
    }
    for order in truth["orders"]:
        assert timestamps[order["answer_frame"]] - timestamps[order["frames"][-1]] == order["answer_ns"]
        assert tokens[order["answer_frame"]] == {order["token"]}
        if "cancel_ns" in order:
            assert timestamps[order["canceled_frame"]] - timestamps[order["cancel_frame"]] == order["cancel_ns"]
            assert tokens[order["cancel_frame"]] == tokens[order["canceled_frame"]] == {order["token"]}
        if "execution_ns" in order:
            assert timestamps[order["execution_frame"]] - timestamps[order["answer_frame"]] == order["execution_ns"]
            assert tokens[order["execution_frame"]] == {order["token"]}


@needs_tshark
def test_tshark_sees_one_retransmission_and_one_split_order():
    truth = TRUTH[ORDERS]
    again = rows(ORDERS, "frame.number", only="tcp.analysis.retransmission")
    assert [int(number) for (number,) in again] == [one["frame"] for one in truth["retransmissions"]]
    split = rows(ORDERS, "tcp.segment", only="tcp.segments")
    expected = [order["frames"] for order in truth["orders"] if "split" in order["fate"]]
    assert [[int(number) for number in numbers.split(",")] for (numbers,) in split] == expected


@needs_tshark
@pytest.mark.parametrize(
    "kind, response_in, layer", [("dns", "dns.response_to", "dns"), ("icmp_echo", "icmp.resp_to", "icmp")]
)
def test_requests_are_answered_when_the_truth_says(kind, response_in, layer):
    truth = TRUTH[REQUESTS][kind]
    timestamps = {int(number): nanoseconds(at) for number, at in rows(REQUESTS, "frame.number", "frame.time_epoch")}
    answers = [
        (int(to), int(number), timestamps[int(number)] - timestamps[int(to)])
        for number, to in rows(REQUESTS, "frame.number", response_in, only=response_in)
    ]
    expected = [(one["frame"], one["response_frame"], one["latency_ns"]) for one in truth["answered"]]
    assert sorted(answers) == sorted(expected)
    asked = {int(number) for (number,) in rows(REQUESTS, "frame.number", only=f"{layer} && !{response_in}")}
    assert asked - {frame for frame, _, _ in answers} == {one["frame"] for one in truth["unanswered"]}
    slowest = max(answers, key=lambda answer: answer[2])
    assert [{"frame": slowest[0], "latency_ns": slowest[2]}] == truth["slow"]


@needs_tshark
def test_tshark_stops_at_the_damage():
    run = tshark(DAMAGED, "-T", "fields", "-e", "frame.number")
    assert run.returncode != 0
    assert len(run.stdout.splitlines()) == TRUTH[DAMAGED]["frames_before_damage"]


def test_both_problems_of_the_damaged_file_are_found_where_they_are():
    with open_capture(str(SAMPLES / DAMAGED)) as reader:
        for _ in reader.batches():
            pass
        problems, truncated = reader.facts.problems, reader.facts.truncated
    spoiled, cut = TRUTH[DAMAGED]["problems"]
    assert [problem.offset for problem in problems] == [spoiled["offset"], cut["offset"]]
    assert all(str(length) in problems[0].what for length in spoiled["lengths"])
    assert f"ends {cut['bytes_left']} bytes into" in problems[1].what
    assert truncated


def test_dump_tells_both_problems_of_the_damaged_file():
    ended = invoke("dump", SAMPLES / DAMAGED)
    assert ended.code == 1
    assert len(ended.lines) == TRUTH[DAMAGED]["frames"]
    told = [line.split(": byte ")[1].split(":")[0] for line in ended.stderr.splitlines()]
    assert told == [str(problem["offset"]) for problem in TRUTH[DAMAGED]["problems"]]


@pytest.mark.parametrize("name", [FEED, DAMAGED])
def test_gaps_are_the_silences_that_were_put_in(name):
    truth = TRUTH[name]
    found = analyze(Gaps(threshold_ns=truth["silence_threshold_ns"]), name)
    assert found["count"] == len(truth["silences"])
    shown = [{key: gap[key] for key in silence} for gap, silence in zip(found["longest"], _longest(truth), strict=True)]
    assert shown == _longest(truth)


def _longest(truth):
    return sorted(truth["silences"], key=lambda silence: -silence["gap_ns"])


def test_steps_backward_are_those_of_the_frames_written_late():
    result = analyze(Timestamps(), FEED)
    steps = [{"frame": step["frame"], "step_ns": step["step_ns"]} for step in result["steps"]]
    assert steps == TRUTH[FEED]["backward_steps"]
    assert result["sources"]["FILE"]["backward_steps"] == len(steps)


@pytest.mark.parametrize("name", [name for name in NAMES if name != FEED])
def test_no_other_capture_steps_backward(name):
    assert not analyze(Timestamps(), name)["steps"]


def test_bursts_peak_where_the_largest_burst_was_put():
    truth = TRUTH[MICROBURST]
    largest = max(truth["bursts"], key=lambda burst: burst["frames"])
    result = analyze(Bursts(line_rate_bps=10**10, widths_ns=(1_000, 5_000, 10_000)), MICROBURST)
    narrow, middle, wide = result["windows"]
    for window in (narrow, middle):
        assert window["peak_frames"] == window["window_ns"] // truth["spacing_ns"]
        assert window["line_rate_share"] == 1.0
    assert wide["peak_frames"] == largest["frames"]
    assert wide["peak_bytes"] == largest["frames"] * truth["frame_bytes"]
    assert wide["peak_frames_first_frame"] == largest["first_frame"]
    assert largest["start_ns"] - 10_000 < wide["peak_frames_start_ns"] <= largest["start_ns"]


def test_every_burst_starts_at_the_top_of_a_millisecond_back_to_back():
    truth = TRUTH[MICROBURST]
    with open_capture(str(SAMPLES / MICROBURST)) as reader:
        timestamps = [timestamp for batch in reader.batches() for timestamp in batch.timestamp_ns.tolist()]
    for burst in truth["bursts"]:
        assert burst["start_ns"] % 10**6 == 0
        inside = timestamps[burst["first_frame"] - 1 : burst["last_frame"]]
        assert inside == [burst["start_ns"] + place * truth["spacing_ns"] for place in range(burst["frames"])]
    assert sum(burst["frames"] for burst in truth["bursts"]) + truth["background_frames"] == len(timestamps)


@pytest.mark.parametrize("name", NAMES)
def test_reports_are_the_committed_ones(name, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    code = 0
    try:
        main(["analyze", f"sample_captures/{name}", "--format", "json"])
    except SystemExit as end:
        code = end.code or 0
    report = json.loads(capsys.readouterr().out)
    expected = json.loads((SAMPLES / f"{name}.report.json").read_text())
    del report["version"], expected["version"]
    assert report == expected, "if the change is meant: python sample_captures/make.py --reports"
    assert code == (1 if name == DAMAGED else 0)
