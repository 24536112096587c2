"""`uspcap capture` as a user runs it: a process of its own, in namespaces of the test's own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.bpf_samples import TCP_FRAME
from support.capturing import USPCAP, Run, Running, frames_of
from support.traffic import in_order, numbered_frame, tagged
from support.veth_pairs import HERE, MakePair, Pair, wait_until

from uspcap.report.schema import load_schema

SAMPLE = Path(__file__).parents[2] / "sample_captures" / "microburst.pcap"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_a_capture_in_good_order(pair: Pair, run: Run, tmp_path: Path, number: int) -> None:
    path = tmp_path / "out.pcapng"
    frames = [numbered_frame(0), tagged(numbered_frame(1)), numbered_frame(2, 1514)]
    running = run("-i", HERE, "-w", str(path), "--analyze", "summary,gaps").ready()
    pair.send(*frames)
    assert running.end(number) == 0
    assert frames_of(path) == frames
    assert running.accounts == "received 3 = 3 written"
    assert "here0: packet_mmap, TPACKET_V3" in running.stderr
    assert "packets     3" in running.stdout


def test_independent_reader_finds_frames_interface_and_counts_in_the_file(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "-w", str(path), "udp", "port", "5000").ready()
    pair.send(numbered_frame(1), TCP_FRAME, numbered_frame(2))
    assert running.end() == 0
    assert list(in_order(frames_of(path))) == [1, 2]
    said = subprocess.run(["capinfos", "-M", "-c", "-I", str(path)], capture_output=True, text=True, check=True).stdout
    assert re.search(r"Number of packets:\s+2\b", said)
    assert "Name = here0" in said
    assert "Filter string = udp port 5000" in said
    assert "Description = timestamps: kernel on receipt (CLOCK_REALTIME)" in said
    assert re.search(r"Number of stat entries = 1", said)


def test_count_ends_after_exactly_so_many(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    running = run("-i", HERE, "-c", "5", "-w", str(path)).ready()
    pair.send(*[numbered_frame(number) for number in range(20)])
    assert running.process.wait(30) == 0
    assert list(in_order(frames_of(path))) == [0, 1, 2, 3, 4]
    assert path.read_bytes()[:4] == b"\x4d\x3c\xb2\xa1"
    left_out = re.fullmatch(r"received (\d+) = 5 written(?: \+ (\d+) after the limit)?", running.accounts)
    assert left_out is not None, running.accounts
    assert int(left_out[1]) == 5 + int(left_out[2] or 0)


def test_duration_ends_a_capture_in_which_nothing_comes(run: Run, tmp_path: Path) -> None:
    running = run("-i", HERE, "--duration", "100ms", "-w", str(tmp_path / "out.pcapng"))
    assert running.process.wait(30) == 0
    assert running.accounts == "received 0 = 0 written"
    assert frames_of(tmp_path / "out.pcapng") == []


def test_stdout_can_take_the_frames_while_they_come(pair: Pair, run: Run) -> None:
    running = run("-i", HERE, "-w", "-", "--analyze", "summary").ready()
    pair.send(numbered_frame(1))
    assert wait_until(lambda: numbered_frame(1) in running.stdout_path.read_bytes())
    assert running.end() == 0
    assert frames_of(running.stdout_path) == [numbered_frame(1)]
    assert "packets     1" in running.stderr


def test_report_as_json_obeys_the_schema_and_carries_the_accounts(pair: Pair, run: Run) -> None:
    running = run("-i", HERE, "--format", "json", "udp").ready()
    pair.send(*[numbered_frame(number) for number in range(7)])
    assert running.end() == 0
    report = json.loads(running.stdout)
    jsonschema.validate(report, load_schema())
    assert report["source"]["packets"] == 7
    assert report["source"]["filter"] == "udp"
    assert report["source"]["files"] == [HERE]
    assert any(note.startswith("received 7 = 7 analyzed") for note in report["source"]["notes"])
    assert set(report["source"]["timestamp_sources"]) <= {"KERNEL", "USER"}


def test_reader_that_is_stopped_accounts_for_every_frame(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "-B", "512", "-w", str(path)).ready()
    os.kill(running.process.pid, signal.SIGSTOP)
    sent = 2000
    pair.send(*[numbered_frame(number, 1000) for number in range(sent)])
    os.kill(running.process.pid, signal.SIGCONT)
    pair.send(numbered_frame(sent))
    # Its header and much more; to read a file that is being written is another matter.
    assert wait_until(lambda: path.exists() and path.stat().st_size > 50_000)
    time.sleep(0.1)
    assert running.end() == 0
    written = list(in_order(frames_of(path)))
    counts = re.match(r"received (\d+) = (\d+) written \+ (\d+) dropped \(ring full (\d+)\)", running.accounts)
    assert counts is not None, running.accounts
    assert [int(one) for one in counts.groups()] == [sent + 1, len(written), *[sent + 1 - len(written)] * 2]
    assert "not accounted" not in running.accounts
    assert written == sorted(set(written))


def test_full_disk_ends_with_a_valid_file_and_one_sentence(pair: Pair, run: Run, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    # `ip netns exec` gives the process mounts of its own, so this one is made where the process is.
    mount = f"mount -t tmpfs -o size=64k none {disk} && trap 'cp {disk}/out.pcapng {tmp_path}' EXIT && \"$@\""
    running = run("-i", HERE, "-w", str(disk / "out.pcapng"), wrapper=("bash", "-c", mount, "-")).ready()
    pair.send(*[numbered_frame(number, 1400) for number in range(200)])
    assert running.process.wait(30) == 1
    written = list(in_order(frames_of(tmp_path / "out.pcapng")))
    assert 0 < len(written) < 200
    assert written == list(range(len(written)))
    assert running.written_until_the_disk_was_full() == len(written)
    last = running.stderr.splitlines()[-1]
    assert last.startswith(f"uspcap: cannot write {disk}/out.pcapng: No space left on device; it holds {len(written)}")


def test_kill_leaves_a_file_that_is_good_up_to_what_was_written(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "-w", str(path)).ready()
    pair.send(*[numbered_frame(number) for number in range(50)])
    assert wait_until(lambda: path.exists() and len(frames_of(path)) == 50)
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    assert list(in_order(frames_of(path))) == list(range(50))


def test_interface_that_goes_away_is_reported_and_the_file_kept(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "-w", str(path)).ready()
    pair.send(numbered_frame(1))
    pair.here.ip("link", "delete", HERE)
    assert running.process.wait(30) == 1
    assert frames_of(path) == [numbered_frame(1)]
    # That it was set down is heard before it is gone, or together with that.
    assert running.accounts.split(";")[0] == "received 1 = 1 written"
    assert running.stderr.splitlines()[-1].startswith("uspcap: interface here0 is gone")


def test_missing_capability_is_named_with_what_grants_it(run: Run) -> None:
    running = run("-i", HERE, wrapper=("setpriv", "--bounding-set=-net_raw", "--inh-caps=-net_raw"))
    assert running.process.wait(30) == 1
    assert len(running.stderr.splitlines()) == 1
    assert "cannot open a packet socket for here0: CAP_NET_RAW is missing" in running.stderr
    assert "this container or service may never have CAP_NET_RAW: start it with --cap-add=NET_RAW" in running.stderr


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("-i", "eth7"), 1, "there is no interface 'eth7': name one of here0, lo"),
        (("-i", HERE, "udp", "port"), 2, "filter 'udp port' does not compile"),
        (("-i", HERE, "-w", "/nowhere/x"), 1, "cannot write /nowhere/x: No such file or directory"),
        ((), 2, "name the interface to capture on with -i, or a file to replay with -r"),
        (("-i", HERE, "-r", "x"), 2, "not from both"),
        (("-i", HERE, "--backend", "replay"), 2, "name it with -r"),
        (("-r", "x", "--backend", "packet_mmap"), 2, "files (-r) are replayed"),
        (("-i", HERE, "-w", "-", "--format", "json"), 2, "write to a file"),
        (("-i", HERE, "--timestamps", "xdp"), 2, "use --backend af_xdp, or --timestamps kernel"),
        (("-i", HERE, "--backend", "af_xdp", "--timestamps", "kernel", "udp"), 2, "--backend packet_mmap"),
        (
            ("-i", HERE, "--timestamps", "hardware"),
            1,
            "timestamps no received frames in hardware; use --timestamps auto",
        ),
        (("-r", "x", "--timestamps", "user"), 2, "frames of files keep the timestamps that they have"),
        (("-r", "x", "--analyze", "path_latency"), 2, "path_latency needs the moment at which a frame was read"),
        (("-r", "/nowhere/x.pcap"), 1, "cannot open /nowhere/x.pcap"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(run: Run, words: tuple[str, ...], code: int, sentence: str) -> None:
    running = run(*words)
    assert running.process.wait(30) == code
    last = running.stderr.splitlines()[-1]
    assert last.startswith("uspcap: ")
    assert sentence in last
    assert "Traceback" not in running.stderr


def test_killed_af_xdp_capture_gives_the_interface_back_and_leaves_a_good_file(
    pair: Pair, run: Run, tmp_path: Path, kernel_bpf: None
) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "--backend", "af_xdp", "-w", str(path), "udp").ready()
    assert "xdp" in pair.here.ip("link", "show", HERE)
    pair.send(*[numbered_frame(number) for number in range(50)])
    assert wait_until(lambda: path.exists() and len(frames_of(path)) == 50)
    assert running.end(signal.SIGKILL) == -signal.SIGKILL
    assert wait_until(lambda: "xdp" not in pair.here.ip("link", "show", HERE))
    with pair.listening() as listener:
        pair.send(numbered_frame(51))
        assert listener.recv(2048) == numbered_frame(51)
    assert list(in_order(frames_of(path))) == list(range(50))


def test_af_xdp_capture_ends_in_good_order(pair: Pair, run: Run, tmp_path: Path, kernel_bpf: None) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "--take-all", "-w", str(path), "--analyze", "summary").ready()
    assert "here0: af_xdp, native XDP, copy" in running.stderr
    pair.send(*[numbered_frame(number) for number in range(50)])
    assert running.end() == 0
    assert running.accounts == "received 50 = 50 written"
    assert list(in_order(frames_of(path))) == list(range(50))
    assert "xdp" not in pair.here.ip("link", "show", HERE)
    assert "timestamps  XDP 50" in running.stdout


def test_stopped_af_xdp_reader_accounts_for_every_frame(pair: Pair, run: Run, tmp_path: Path, kernel_bpf: None) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "--take-all", "-B", "512", "-w", str(path)).ready()
    os.kill(running.process.pid, signal.SIGSTOP)
    sent = 2000
    pair.send(*[numbered_frame(number) for number in range(sent)])
    os.kill(running.process.pid, signal.SIGCONT)
    # Its header and more, as the ring holds 256 frames of 60 bytes; to read a file that is being written is another
    # matter.
    assert wait_until(lambda: path.exists() and path.stat().st_size > 20_000)
    assert running.end() == 0
    written = list(in_order(frames_of(path)))
    counts = re.match(r"received (\d+) = (\d+) written \+ (\d+) dropped ", running.accounts)
    assert counts is not None, running.accounts
    assert [int(one) for one in counts.groups()] == [sent, len(written), sent - len(written)]
    assert "not accounted" not in running.accounts
    assert written == list(range(len(written)))


def path_latency(running: Running, sent: int, began_ns: int) -> dict[str, Any]:
    """The only timestamp source's row of a JSON report on so many frames, whose times are checked."""
    report = json.loads(running.stdout)
    jsonschema.validate(report, load_schema())
    result = report["analyses"]["path_latency"]
    counted = sum(one["count"] for one in result["sources"].values())
    assert sum(one["negative"] for one in result["sources"].values()) == 0
    assert counted + result["frames_timestamped_on_reading"] == sent
    assert result["frames_without_timestamp"] == result["frames_without_reading"] == 0
    (one,) = result["sources"].values()
    assert 0 <= one["min_ns"] <= one["max_ns"] <= time.time_ns() - began_ns
    return dict(result["sources"])


def test_path_latency_counts_every_frame_of_packet_mmap_once(pair: Pair, run: Run) -> None:
    began_ns = time.time_ns()
    running = run("-i", HERE, "--format", "json").ready()
    pair.send(*[numbered_frame(number) for number in range(500)])
    assert running.end() == 0
    assert set(path_latency(running, 500, began_ns)) == {"KERNEL"}


@pytest.mark.parametrize("words", [(), ("--busy-poll",)])
def test_path_latency_counts_every_frame_of_af_xdp_once(
    pair: Pair, run: Run, kernel_bpf: None, words: tuple[str, ...]
) -> None:
    began_ns = time.time_ns()
    running = run("-i", HERE, "--take-all", "--analyze", "path_latency", "--format", "json", *words).ready()
    assert ("frames gather for up to 1.6 ms" in running.stderr) == (not words)
    pair.send(*[numbered_frame(number) for number in range(500)])
    assert running.end() == 0
    assert path_latency(running, 500, began_ns)["XDP"]["count"] == 500


def test_path_latency_of_merged_rings_counts_every_frame_in_its_ring(
    make_pair: MakePair, tmp_path: Path, kernel_bpf: None
) -> None:
    began_ns = time.time_ns()
    running = Running(
        make_pair(queues=2), tmp_path, "-i", HERE, "--take-all", "--analyze", "path_latency", "--format", "json"
    )
    try:
        running.ready()
        frames = [numbered_frame(number) for number in range(500)]
        running.pair.send(*(frame[:34] + bytes([number % 50, 1]) + frame[36:] for number, frame in enumerate(frames)))
        assert running.end() == 0
    finally:
        running.process.kill()
        running.process.wait()
    one = path_latency(running, 500, began_ns)["XDP"]
    assert [ring["ring"] for ring in one["rings"]] == [0, 1]
    assert sum(ring["count"] for ring in one["rings"]) == one["count"] == 500


def test_intervals_come_as_json_lines_that_add_up_to_the_last(pair: Pair, run: Run) -> None:
    running = run("-i", HERE, "--interval", "100ms", "--format", "json").ready()
    for first in range(0, 300, 100):
        pair.send(*[numbered_frame(number) for number in range(first, first + 100)])
        assert wait_until(lambda: f'"packets": {100}' in running.stdout)
        time.sleep(0.15)
    assert running.end() == 0
    *intervals, whole = [json.loads(line) for line in running.stdout.splitlines()]
    for report in (*intervals, whole):
        jsonschema.validate(report, load_schema())
    assert "interval" not in whole
    assert len(intervals) > 2
    assert sum(one["source"]["packets"] for one in intervals) == whole["source"]["packets"] == 300
    assert sum(one["source"]["packets_read"] for one in intervals) == whole["source"]["packets_read"] == 300
    bounds = [one["interval"] for one in intervals]
    assert [one["end_ns"] for one in bounds[:-1]] == [one["start_ns"] for one in bounds[1:]]
    counts = [one["analyses"]["path_latency"]["sources"].get("KERNEL", {"count": 0})["count"] for one in intervals]
    assert sum(counts) == whole["analyses"]["path_latency"]["sources"]["KERNEL"]["count"]


def test_intervals_come_as_blocks_of_text_before_the_report(pair: Pair, run: Run) -> None:
    running = run("-i", HERE, "--interval", "10s").ready()
    pair.send(*[numbered_frame(number) for number in range(50)])
    assert running.end() == 0
    block, _, report = running.stdout.partition(f"uspcap {HERE}\n")
    assert re.match(r"\d{4}-\d\d-\d\dT[0-9:.]+Z \+ [0-9.]+ m?s\n", block)
    assert re.search(r"^  packets +50$", block, re.MULTILINE)
    assert re.search(r"^  path latency KERNEL +p50 ", block, re.MULTILINE)
    assert "packets     50" in report


def test_reader_of_intervals_that_goes_away_ends_the_capture_with_a_good_file(
    pair: Pair, tmp_path: Path, run: Run
) -> None:
    path = tmp_path / "out.pcapng"
    gone = ("bash", "-c", '"$@" | head -c 1 >/dev/null; exit ${PIPESTATUS[0]}', "-")
    running = run("-i", HERE, "--interval", "50ms", "--analyze", "summary", "-w", str(path), wrapper=gone).ready()
    pair.send(numbered_frame(1))
    assert running.process.wait(30) == 1
    assert running.accounts == "received 1 = 1 written"
    assert "Traceback" not in running.stderr
    assert frames_of(path) == [numbered_frame(1)]


def test_limit_on_locked_memory_is_named(run: Run, kernel_bpf: None) -> None:
    words = ("setpriv", "--bounding-set=-ipc_lock", "--inh-caps=-ipc_lock", "prlimit", "--memlock=65536:65536")
    running = run("-i", HERE, "--take-all", wrapper=words)
    assert running.process.wait(30) == 1
    assert "limit of 64 KiB on locked memory is too low" in running.stderr
    assert len(running.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [("--fanout", "cpu:x"), ("--analyze", "nothing"), ("-c", "0"), ("-Q", "up")])
def test_wrong_values_are_wrong_usage(run: Run, words: tuple[str, ...]) -> None:
    running = run("-i", HERE, *words)
    assert running.process.wait(30) == 2
    assert "Traceback" not in running.stderr


def test_rings_by_fanout_and_short_frames(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    running = run("-i", HERE, "--fanout", "hash:2", "-s", "30", "-p", "-Q", "in", "-w", str(path)).ready()
    assert "2 rings" in running.stderr
    assert "fanout hash" in running.stderr
    frames = [numbered_frame(number, 200) for number in range(10)]
    pair.send(*frames)
    assert running.end() == 0
    assert sorted(frames_of(path)) == sorted(frame[:30] for frame in frames)


def test_replay_gives_the_report_that_analyzing_the_file_gives(tmp_path: Path) -> None:
    def report(*words: str) -> dict[str, object]:
        done = subprocess.run([*USPCAP, *words, "--format", "json"], capture_output=True, text=True, check=True)
        return dict(json.loads(done.stdout))

    replayed = report("capture", "-r", str(SAMPLE), "--speed", "0")
    analyzed = report("analyze", str(SAMPLE))
    assert replayed["analyses"] == analyzed["analyses"]


def test_replay_writes_what_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "out.pcap"
    done = subprocess.run(
        [*USPCAP, "capture", "-r", str(SAMPLE), "--speed", "50", "-w", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert frames_of(path) == frames_of(SAMPLE)
    assert "replay, 50 times as fast as the files" in done.stderr
    assert "received 593 = 593 written" in done.stderr


def test_damaged_file_is_replayed_as_far_as_it_goes_and_reported(tmp_path: Path) -> None:
    path = tmp_path / "cut.pcap"
    path.write_bytes(SAMPLE.read_bytes()[:-5])
    done = subprocess.run(
        [*USPCAP, "capture", "-r", str(path), "--speed", "0", "-w", str(tmp_path / "out.pcapng")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert len(frames_of(tmp_path / "out.pcapng")) == 592
    assert f"uspcap: {path}: byte " in done.stderr.splitlines()[-1]


IMPORTED_AFTER_OPENING = """
import sys
from uspcap.commands import capture

def opening(request, opened=capture.open_source):
    source = opened(request)
    before.update(sys.modules)
    return source

before = set()
capture.open_source = opening
capture.command(sys.argv[1:], standalone_mode=False)
print(*(sys.modules.keys() - before), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [(), ("--format", "json"), ("--interval", "1s"), ("--interval", "1s", "--format", "json")]
)
def test_no_analysis_and_no_report_is_imported_while_rings_fill(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED_AFTER_OPENING, "-r", str(SAMPLE), "--speed", "0", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    late = done.stderr.splitlines()[-1].split()
    ours = ("uspcap", "numpy")
    assert not [name for name in late if name.startswith(ours)]
