"""`uspcap probe` as users run it: two processes, in namespaces of the test's own."""

from __future__ import annotations

import json
import math
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.command_line import PROGRAM, assert_one_clear_line, invoke, pcap_of
from support.namespaces import MakeNamespace, Namespace
from support.probes import ANSWER, PROBE, Frame, decode
from support.streams import Frame as CapturedFrame
from support.veth_pairs import wait_until

from uspcap.bpf.attach import find_attached
from uspcap.report.probe import load_schema

PORT = 7000


class Process:
    """A command in a namespace, with its output in files."""

    def __init__(self, namespace: Namespace, directory: Path, *words: str) -> None:
        directory.mkdir()
        self._stdout, self._stderr = directory / "stdout", directory / "stderr"
        with self._stdout.open("wb") as stdout, self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(namespace.command(*words), stdout=stdout, stderr=stderr)

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def until(self, text: str) -> None:
        assert wait_until(lambda: text in self.stderr or self.process.poll() is not None, 30)
        assert text in self.stderr

    def ended(self, number: int | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(60)

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.stdout)
        jsonschema.validate(report, load_schema(), jsonschema.Draft202012Validator)
        return report


@pytest.fixture
def here(make_namespace: MakeNamespace) -> Namespace:
    return make_namespace()


class Start:
    """Starts commands in a namespace; whatever still runs at the end is killed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.processes: list[Process] = []

    def __call__(self, namespace: Namespace, *words: str) -> Process:
        self.processes.append(Process(namespace, self._directory / f"process{len(self.processes)}", *words))
        return self.processes[-1]

    def probe(self, namespace: Namespace, *words: str) -> Process:
        return self(namespace, *PROGRAM, "probe", *words)

    def reflector(self, namespace: Namespace, address: str, *words: str) -> Process:
        process = self.probe(namespace, "reflect", f"{address}:{PORT}", "--format", "json", *words)
        process.until("answering probes at")
        return process


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started = Start(tmp_path)
    yield started
    for one in started.processes:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()


def test_round_trips_over_a_veth_pair_are_reported(make_namespace: MakeNamespace, start: Start) -> None:
    here, there = make_namespace(), make_namespace()
    here.add_veth("here0", there, "there0")
    here.ip("address", "add", "192.0.2.1/24", "dev", "here0")
    there.ip("address", "add", "192.0.2.2/24", "dev", "there0")
    reflector = start.reflector(there, "192.0.2.2", "-i", "there0", "--wakeup", "epoll")
    sender = start.probe(
        here, "send", f"192.0.2.2:{PORT}", "-i", "here0", "--bind", "192.0.2.1:7001", "--rate", "1k", "-c", "200",
        "--size", "1400", "--wakeup", "poll", "--format", "json",
    )  # fmt: skip
    assert sender.ended() == 0
    report = sender.report()
    assert (report["source"], report["target"]) == ("192.0.2.1:7001", "192.0.2.2:7000")
    assert report["end_ns"] - report["start_ns"] == 199_000_000
    assert report["frames"] == {"scheduled": 200, "sent": 200, "unsent": 0, "refused": 0}
    assert (report["answers"]["in_time"], report["answers"]["lost"]) == (200, 0)
    assert report["response_time"]["count"] == report["lateness"]["count"] == 200
    assert reflector.ended(signal.SIGINT) == 0
    assert reflector.report()["frames"]["answered"] == 200


def test_af_xdp_answers_as_the_kernel_does(make_namespace: MakeNamespace, start: Start) -> None:
    here, there = make_namespace(), make_namespace()
    here.add_veth("here0", there, "there0")
    here.ip("address", "add", "192.0.2.1/24", "dev", "here0")
    there.ip("address", "add", "192.0.2.2/24", "dev", "there0")
    reflector = start.reflector(there, "192.0.2.2", "-i", "there0", "--through", "af_xdp", "-c", "150")
    sender = start.probe(
        here, "send", f"192.0.2.2:{PORT}", "--rate", "1k", "-c", "200", "--size", "300", "--wait", "300ms",
        "--format", "json",
    )  # fmt: skip
    assert sender.ended() == 0
    assert reflector.ended() == 0
    answered = reflector.report()
    assert answered["through"] == "af_xdp"
    assert answered["frames"]["answered"] == 150
    report = sender.report()
    assert (report["answers"]["in_time"], report["answers"]["lost"]) == (150, 50)
    # Receipt to sending at the reflector, and that within what the sender saw.
    assert report["reflector_time"]["count"] == 150
    assert 0 < report["reflector_time"]["min_ns"] < report["service_time"]["min_ns"]
    with there.entered():
        assert find_attached(socket.if_nametoindex("there0")) is None


def test_round_trips_are_those_on_the_wire_and_what_the_sender_adds(
    make_namespace: MakeNamespace, start: Start, tmp_path: Path
) -> None:
    """RTTs by tshark from a capture of tcpdump on the sender's side."""
    if not shutil.which("tshark") or not shutil.which("tcpdump"):
        pytest.skip("tshark and tcpdump are not installed")
    here, there = make_namespace(), make_namespace()
    here.add_veth("here0", there, "there0")
    here.ip("address", "add", "192.0.2.1/24", "dev", "here0")
    there.ip("address", "add", "192.0.2.2/24", "dev", "there0")
    start.reflector(there, "192.0.2.2", "-i", "there0")
    written = tmp_path / "wire.pcap"
    listener = start(here, "tcpdump", "-i", "here0", "-U", "-w", str(written), "--nano", "udp")
    listener.until("listening on")
    sender = start.probe(here, "send", f"192.0.2.2:{PORT}", "--rate", "1k", "-c", "400", "--format", "json")
    assert sender.ended() == 0
    assert wait_until(lambda: written.stat().st_size >= 24 + 800 * (16 + 42 + 64))
    listener.ended(signal.SIGTERM)
    shown = subprocess.run(
        ["tshark", "-n", "-r", written, "-d", f"udp.port=={PORT},data", "-T", "fields",
         "-e", "frame.time_epoch", "-e", "udp.dstport", "-e", "data.data"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    seen: dict[bool, dict[int, int]] = {True: {}, False: {}}
    for epoch, port, data in (line.split("\t") for line in shown.splitlines()):
        seconds, _, rest = epoch.partition(".")
        sequence = decode(bytes.fromhex(data.replace(":", ""))).sequence
        seen[int(port) == PORT][sequence] = int(seconds) * 10**9 + int(rest.ljust(9, "0"))
    assert len(seen[True]) == len(seen[False]) == 400
    on_the_wire = sorted(seen[False][sequence] - seen[True][sequence] for sequence in range(400))
    measured = sender.report()["service_time"]
    # Each round trip that was measured contains the one on the wire; so its percentiles do, bucket by bucket.
    assert measured["count"] == 400
    assert measured["min_ns"] >= on_the_wire[0]
    assert measured["max_ns"] >= on_the_wire[-1]
    for percentile, value_ns in measured["percentiles_ns"].items():
        if value_ns is not None:
            assert value_ns >= on_the_wire[math.ceil(float(percentile) * 4) - 1]


def test_what_stays_unanswered_stays_in_the_percentiles(here: Namespace, start: Start) -> None:
    reflector = start.reflector(here, "127.0.0.1", "-c", "80")
    sender = start.probe(
        here, "send", f"127.0.0.1:{PORT}", "--rate", "1k", "-c", "120", "--wait", "300ms", "--format", "json"
    )
    assert sender.ended() == 0
    assert reflector.ended() == 0
    report = sender.report()
    assert (report["answers"]["in_time"], report["answers"]["lost"]) == (80, 40)
    of_all = {one["percentile"]: one for one in report["response_time_of_all_sent"]}
    assert of_all["50"]["count"] == 120
    # The median of 120 frames is the 60th of the 80 that came back; of 120, the 108th was lost.
    assert of_all["50"]["value_ns"] is not None
    assert of_all["90"]["value_ns"] is None
    assert report["response_time"]["percentiles_ns"]["50"] <= of_all["50"]["value_ns"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_both_sides_with_a_report(here: Namespace, start: Start, number: int) -> None:
    reflector = start.reflector(here, "127.0.0.1")
    sender = start.probe(
        here, "send", f"127.0.0.1:{PORT}", "--rate", "200", "--schedule", "poisson", "--format", "json"
    )
    sender.until("sending from")
    assert wait_until(lambda: sender.process.poll() is not None, 0.3) is False
    assert sender.ended(number) == 0
    report = sender.report()
    assert report["frames"]["sent"] == report["answers"]["in_time"] > 0
    assert reflector.ended(number) == 0
    assert reflector.report()["frames"]["answered"] == report["frames"]["sent"]
    assert sender.stderr.count("\n") == reflector.stderr.count("\n") == 1


def test_a_reflector_that_is_killed_leaves_a_report_of_losses(here: Namespace, start: Start) -> None:
    reflector = start.reflector(here, "127.0.0.1")
    sender = start.probe(
        here, "send", f"127.0.0.1:{PORT}", "--rate", "500", "--duration", "1s", "--wait", "300ms", "--format", "json"
    )
    sender.until("sending from")
    wait_until(lambda: False, 0.3)
    reflector.ended(signal.SIGKILL)
    assert sender.ended() == 0
    report = sender.report()
    assert report["frames"]["sent"] == 500
    assert 0 < report["answers"]["in_time"] < 500
    assert report["answers"]["lost"] == 500 - report["answers"]["in_time"]
    assert report["frames"]["refused"] > 0


def test_nobody_there_is_one_clear_line_after_the_report(here: Namespace, start: Start) -> None:
    sender = start.probe(here, "send", f"127.0.0.1:{PORT}", "-c", "5", "--wait", "100ms")
    assert sender.ended() == 1
    assert "5 lost (100 %)" in sender.stdout.replace("100.0 %", "100 %")
    announced, failed = sender.stderr.splitlines()
    assert announced.endswith(f"to 127.0.0.1:{PORT}")
    assert failed.startswith(f"uspcap: nothing listens at 127.0.0.1:{PORT} ")


def test_a_target_without_a_route_is_one_clear_line(here: Namespace, start: Start) -> None:
    sender = start.probe(here, "send", "192.0.2.9:7000", "-c", "5")
    assert sender.ended() == 1
    assert sender.stdout == ""
    (line,) = sender.stderr.splitlines()
    assert line.startswith("uspcap: cannot reach 192.0.2.9:7000: ")


def test_frames_on_the_wire_are_as_described(here: Namespace, start: Start, tmp_path: Path) -> None:
    """A capture of tcpdump, read by tshark and taken apart by struct."""
    if not shutil.which("tshark") or not shutil.which("tcpdump"):
        pytest.skip("tshark and tcpdump are not installed")
    timestamps = [10**18 + late for late in (0, 1_000_000, 1_500_003, 9_000_001, 40_000_007)]
    timing = tmp_path / "timing.pcap"
    timing.write_bytes(pcap_of([CapturedFrame(timestamp, 60, 0) for timestamp in timestamps]))
    written = tmp_path / "wire.pcap"
    start.reflector(here, "127.0.0.1")
    listener = start(here, "tcpdump", "-i", "lo", "-U", "-w", str(written), "--nano", "udp")
    listener.until("listening on")
    sender = start.probe(here, "send", f"127.0.0.1:{PORT}", "--like", str(timing), "--size", "90", "--format", "json")
    assert sender.ended() == 0
    frames_written = 24 + 2 * len(timestamps) * (16 + 14 + 28 + 90)
    assert wait_until(lambda: written.stat().st_size >= frames_written)
    listener.ended(signal.SIGTERM)
    report = sender.report()
    fields = ("frame.time_epoch", "udp.srcport", "udp.dstport", "udp.length", "data.data")
    command = ["tshark", "-n", "-r", str(written), "-d", f"udp.port=={PORT},data", "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in shown.splitlines()]
    assert len(rows) == 2 * len(timestamps)
    assert all(row[3] == "98" for row in rows)
    probes: dict[int, tuple[int, Frame]] = {}
    answered: dict[int, tuple[int, Frame]] = {}
    for epoch, source, destination, _, data in rows:
        frame = decode(bytes.fromhex(data.replace(":", "")))
        seconds, _, rest = epoch.partition(".")
        at_ns = int(seconds) * 10**9 + int(rest.ljust(9, "0"))
        asked = int(destination) == PORT
        assert frame.kind == (PROBE if asked else ANSWER)
        assert report["source"] == f"127.0.0.1:{source if asked else destination}"
        (probes if asked else answered)[frame.sequence] = (at_ns, frame)
    assert list(probes) == sorted(answered) == list(range(len(timestamps)))
    for sequence, (at_ns, probe) in probes.items():
        assert f"{probe.session:016x}" == report["session"]
        assert probe.intended_ns == report["start_ns"] + timestamps[sequence] - timestamps[0]
        # Due, sent, seen by the kernel on its way, received, read, answered, seen on the way back: in this order.
        back_ns, answer = answered[sequence]
        assert answer.kernel_ns
        path = [
            probe.intended_ns,
            probe.actual_ns,
            at_ns,
            answer.kernel_ns,
            answer.read_ns,
            answer.answered_ns,
            back_ns,
        ]
        # Both clocks are this host's; the sender's line and CLOCK_REALTIME may be some µs apart.
        assert all(later - earlier > -50_000 for earlier, later in pairwise(path)), path
        assert answer._replace(kind=PROBE, kernel_ns=0, read_ns=0, answered_ns=0) == probe


def test_wrong_usage_is_one_clear_line(tmp_path: Path) -> None:
    for words in (
        ("send", "localhost:7"),
        ("send", "127.0.0.1"),
        ("send", "127.0.0.1:7", "--rate", "0"),
        ("send", "127.0.0.1:7", "--rate", "fast"),
        ("send", "127.0.0.1:7", "--size", "63"),
        ("send", "127.0.0.1:0", "-c", "1"),
        ("send", "127.0.0.1:7", "--like", "x.pcap", "--rate", "5"),
        ("reflect", "7000"),
        ("reflect", "127.0.0.1:7000", "--through", "af_xdp"),
        ("reflect", "[::1]:7000", "-i", "lo", "--through", "af_xdp"),
        ("reflect", "127.0.0.1:0", "-i", "lo", "--through", "af_xdp"),
    ):
        ended = invoke("probe", *words)
        assert ended.code == 2, (words, ended)
        assert ended.stdout == ""
    assert_one_clear_line(
        invoke("probe", "send", "127.0.0.1:7", "--like", str(tmp_path / "nosuch.pcap")), 1, "nosuch.pcap"
    )


@pytest.mark.parametrize("name", ["send", "reflect"])
def test_subcommands_have_help_within_100_columns(name: str) -> None:
    ended = invoke("probe", name, "--help")
    assert ended.code == 0
    assert ended.stdout.startswith(f"Usage: uspcap probe {name} ")
    assert all(len(line) <= 100 for line in ended.lines)


@pytest.mark.parametrize("command", [("send", "127.0.0.1:7000"), ("reflect", "127.0.0.1:7000")])
def test_a_count_that_no_counter_holds_is_refused(command: tuple[str, str]) -> None:
    assert_one_clear_line(invoke("probe", *command, "-c", str(2**63)), 2, "'-c'")
