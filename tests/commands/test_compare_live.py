"""`uspcap compare -i`: on veth, in this process."""

from __future__ import annotations

import json
import signal
import subprocess

import jsonschema
import pytest
from support.command_line import PROGRAM, Ended, assert_one_clear_line, invoke
from support.live_pairs import ADDRESS, LivePair
from support.veth_pairs import HERE

from uspcap.report.comparison_schema import load_schema

QUICK = ("--runs", "2", "--run-duration", "150ms", "--warm-up", "30ms", "--cool-down", "20ms")


def run(live_pair: LivePair, *words: str) -> Ended:
    with live_pair.here.entered():
        probing = ("--probe", ADDRESS, "--probe-namespace", live_pair.pair.there.name)
        return invoke("compare", "-i", HERE, *probing, *QUICK, *words)


def test_json_is_one_document_on_stdout_and_keeps_to_its_schema(live_pair: LivePair) -> None:
    done = run(
        live_pair, "--format", "json", "--paths", "kernel,af-xdp", "--seed", "9", "--rate", "3k", "--size", "128"
    )
    report = json.loads(done.stdout)
    jsonschema.validate(report, load_schema(), jsonschema.Draft202012Validator)
    assert list(report["paths"]) == ["kernel", "af_xdp"]
    assert report["design"]["seed"] == 9
    assert report["traffic"]["schedule"] == {"kind": "poisson", "rate_per_s": 3000.0, "seed": 9}
    for path in report["paths"].values():
        assert path["received"] == path["frames"] > 0
        assert path["cost"]["bytes_copied_per_frame"] >= 128
    assert "run 4 of 4" in done.stderr


def test_round_trip_is_called_one(live_pair: LivePair) -> None:
    ended = run(live_pair, "--round-trip", "--format", "json")
    report = json.loads(ended.stdout)
    jsonschema.validate(report, load_schema(), jsonschema.Draft202012Validator)
    assert report["measured"] == "round trip"
    assert list(report["paths"]) == ["kernel", "af_xdp"]
    assert list(report["paths"]["af_xdp"]["segments"]) == ["due_to_sent", "sent_to_answer"]


def test_text_begins_with_the_verdict(live_pair: LivePair) -> None:
    done = run(live_pair, "--wakeup", "spin", "udp and src host 10.77.0.2")
    assert done.stdout.startswith(f"uspcap compare {HERE}\n")
    assert done.stdout.splitlines()[2].strip().startswith("Insufficient n for a verdict: 2 pairs of runs")
    assert "udp and src host 10.77.0.2" in done.stdout


def test_filter_that_matches_no_probe_ends_with_an_error(live_pair: LivePair) -> None:
    assert "no probe to UDP port 7000 arrived" in run(live_pair, "src host 10.77.0.99").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--paths", "kernel,dpdk"], "unknown path 'dpdk'"),
        (["--paths", "kernel"], "2 to 6"),
        (["--probe-namespace", "there"], "where to send them"),
        (["--run-duration", "100ms"], "leave nothing of a run"),
        (["--other-traffic"], "give its --port"),
        (["--other-traffic", "--paths", "packet_mmap,af_xdp"], "use --take"),
        (["--other-traffic", "--port", "7", "--design", "frame"], "--design block"),
        (["--other-traffic", "--probe", "192.0.2.1"], "leave --probe"),
        (["--take"], "for --other-traffic"),
        (["--round-trip"], "give their target with --probe"),
        (["--round-trip", "--probe", "192.0.2.1", "--paths", "kernel,packet-mmap"], "packet_mmap only receives"),
        (["--window", "1s"], "--window is for comparing two captures, and -i names an interface"),
    ],
)
def test_options_that_make_no_sense_are_usage_errors(words: list[str], said: str) -> None:
    assert_one_clear_line(invoke("compare", "-i", "none0", *words), 2, said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a.pcap", "b.pcap", "--runs", "3"], "--runs is for comparing an interface: name it with -i"),
        (["a.pcap"], "name two captures of the same traffic (or --a and --b), two reports, or an interface with -i"),
    ],
)
def test_options_of_a_live_comparison_need_an_interface(words: list[str], said: str) -> None:
    assert_one_clear_line(invoke("compare", *words), 2, said)


def test_help_says_that_nothing_is_sent_unless_asked_for() -> None:
    assert "without it nothing is sent" in " ".join(invoke("compare", "--help").stdout.split())


@pytest.mark.parametrize(
    ("number", "runs_seen"), [(signal.SIGINT, 0), (signal.SIGINT, 6), (signal.SIGTERM, 6), (signal.SIGHUP, 6)]
)
def test_a_signal_ends_it_with_what_is_there(live_pair: LivePair, number: int, runs_seen: int) -> None:
    words = ["compare", "-i", HERE, "--probe", ADDRESS, "--probe-namespace", live_pair.pair.there.name, "--runs", "500"]
    words += ["--run-duration", "100ms", "--warm-up", "20ms", "--cool-down", "10ms", "--paths", "kernel,packet_mmap"]
    process = subprocess.Popen(
        live_pair.here.command(*PROGRAM, *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if (f"run {runs_seen} of" if runs_seen else "design") in line:
                break
        process.send_signal(number)
        # Ten times what is promised.
        printed, said = process.communicate(timeout=5)
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in said
    assert process.returncode == (0 if runs_seen else 1), said
    assert printed.startswith(f"uspcap compare {HERE}\n" if runs_seen else "")
    assert bool(printed) == bool(runs_seen)
    assert "xdp" not in live_pair.here.ip("link", "show", HERE)
