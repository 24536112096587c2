"""`uspcap capture -i A -i B`: one file with an interface each, its accounts, its analyses, its ends."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from support.capturing import Run, frames_of
from support.command_line import assert_one_clear_line, invoke
from support.traffic import numbered_frame
from support.veth_pairs import HERE, THERE, Pair, wait_until

from uspcap.formats import open_capture
from uspcap.report.schema import load_schema

BLUE, BLUE_END = "blue0", "blue1"

pytestmark = pytest.mark.usefixtures("kernel_bpf")


@pytest.fixture
def two(pair: Pair) -> Pair:
    pair.here.add_veth(BLUE, pair.there, BLUE_END)
    return pair


def send_in_turn(pair: Pair, count: int) -> list[bytes]:
    """Send frames to both near ends in turn, and return them."""
    frames = [numbered_frame(number) for number in range(count)]
    with (
        pair.there.entered(),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as one,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as other,
    ):
        one.bind((THERE, 0))
        other.bind((BLUE_END, 0))
        for number, frame in enumerate(frames):
            (one, other)[number % 2].send(frame)
    return frames


@pytest.mark.parametrize("backend", ["packet_mmap", "af_xdp"])
def test_one_file_has_an_interface_each_with_its_counts(two: Pair, run: Run, tmp_path: Path, backend: str) -> None:
    path = tmp_path / "a.pcapng"
    running = run("-i", HERE, "-i", BLUE, "--backend", backend, "-w", str(path), "udp").ready()
    frames = send_in_turn(two, 100)
    assert running.end() == 0
    assert frames_of(path) == frames
    with open_capture(str(path)) as reader:
        names = [batch.interfaces[number].name for batch in reader.batches() for number in batch.interface.tolist()]
        assert names == [HERE, BLUE] * 50
        assert [one.name for one in reader.facts.interfaces][:2] == [HERE, BLUE]
    if shutil.which("capinfos"):
        shown = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, check=True).stdout
        assert shown.count("Number of packets = 50") == 2
        assert f"Name = {HERE}" in shown
        assert f"Name = {BLUE}" in shown
    assert running.accounts.startswith("received 100 = 100 written")
    for name in (HERE, BLUE):
        assert f"uspcap: {name}: {backend}, " in running.stderr
        (line,) = (line for line in running.stderr.splitlines() if line.startswith(f"uspcap: {name}: NIC"))
        assert "socket 50" in line
        assert line.endswith("reader 50")
    assert "uspcap: all interfaces: writer 100 → 100 written" in running.stderr


@pytest.mark.parametrize("backend", ["packet_mmap", "af_xdp"])
def test_report_covers_each_interface(two: Pair, run: Run, backend: str) -> None:
    import jsonschema

    words = ("--analyze", "summary,path_latency", "--format", "json", "-c", "40")
    running = run("-i", HERE, "-i", BLUE, "--backend", backend, *words).ready()
    send_in_turn(two, 40)
    assert running.process.wait(60) == 0
    report = json.loads(running.stdout)
    jsonschema.validate(report, load_schema())
    assert report["source"]["files"] == [HERE, BLUE]
    accounts = report["source"]["accounts"]
    assert accounts["received"] == accounts["kept"] == 40
    assert {name: one["received"] for name, one in accounts["interfaces"].items()} == {HERE: 20, BLUE: 20}
    assert accounts["unaccounted"] == 0
    assert report["analyses"]["summary"]["packets"] == 40


def test_limits_hold_for_all_together(two: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    running = run("-i", HERE, "-i", BLUE, "-w", str(path), "-c", "30").ready()
    frames = send_in_turn(two, 100)
    assert running.process.wait(60) == 0
    assert frames_of(path) == frames[:30]
    running = run("-i", HERE, "-i", BLUE, "-w", str(path), "--duration", "500ms").ready()
    assert running.process.wait(60) == 0
    assert frames_of(path) == []


def test_interface_that_goes_away_is_reported_at_once_and_at_the_end(two: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    running = run("-i", HERE, "-i", BLUE, "-w", str(path)).ready()
    two.here.ip("link", "delete", BLUE)
    expected = "uspcap: interface blue0 is gone: frames before that were kept; the capture goes on with here0"
    assert wait_until(lambda: expected in running.stderr)
    two.send(numbered_frame(1))
    assert running.end() == 1
    assert running.stderr.splitlines()[-1] == "uspcap: interface blue0 is gone: frames before that were kept"
    assert frames_of(path) == [numbered_frame(1)]


def test_pcap_has_one_link_type(two: Pair, run: Run, tmp_path: Path) -> None:
    two.here.ip("tuntap", "add", "mode", "tun", "name", "tun0")
    two.here.ip("link", "set", "tun0", "up")
    with two.here.entered():
        refused = invoke("capture", "-i", HERE, "-i", "tun0", "-w", tmp_path / "a.pcap")
    assert_one_clear_line(
        refused,
        2,
        "a pcap file has one link type, and these interfaces have several (here0 ETHERNET and tun0 RAW): write pcapng, "
        f"as with -w {tmp_path / 'a.pcapng'}",
    )
    running = run("-i", HERE, "-i", "tun0", "-w", str(tmp_path / "b.pcapng")).ready()
    two.send(numbered_frame(1))
    assert running.end() == 0
    assert frames_of(tmp_path / "b.pcapng") == [numbered_frame(1)]
    running = run("-i", HERE, "-i", BLUE, "-w", str(tmp_path / "c.pcap")).ready()
    frames = send_in_turn(two, 10)
    assert running.end() == 0
    assert "a pcap file does not record which interface a frame came from; pcapng does" in running.stderr
    assert frames_of(tmp_path / "c.pcap") == frames


def test_rotated_files_have_all_interfaces(two: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    running = run("-i", HERE, "-i", BLUE, "-w", str(path), "--rotate-frames", "7").ready()
    frames = send_in_turn(two, 20)
    assert running.end() == 0
    files = sorted(tmp_path.glob("a_*.pcapng"))
    assert [frame for file in files for frame in frames_of(file)] == frames
    for file in files:
        with open_capture(str(file)) as reader:
            for _ in reader.batches():
                pass
            assert {one.name for one in reader.facts.interfaces} == {HERE, BLUE}


def test_interval_reports_and_privileges_go_with_several(two: Pair, run: Run) -> None:
    words = ("--analyze", "summary", "--interval", "200ms", "--format", "json", "-Z", "nobody", "--duration", "1s")
    running = run("-i", HERE, "-i", BLUE, *words).ready()
    send_in_turn(two, 20)
    assert running.process.wait(60) == 0
    *intervals, whole = map(json.loads, running.stdout.splitlines())
    assert sum(one["source"]["packets_read"] for one in intervals) == 20
    assert whole["source"]["accounts"]["received"] == 20
    assert "threads that ran before keep theirs" not in running.stderr


def test_duplicate_name_is_wrong_usage(two: Pair) -> None:
    with two.here.entered():
        assert_one_clear_line(
            invoke("capture", "-i", HERE, "-i", HERE, "-w", "/dev/null"), 2, "given more than once with -i"
        )
