"""Copies of packets left out: against a slow account, through every command, and never more than copies."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.capture_files import pcap_header, pcap_record
from support.command_line import assert_one_clear_line, invoke

import uspcap
from uspcap.errors import UsageError
from uspcap.frames import FrameBatch
from uspcap.stages.deduplication import REMEMBERED, Deduplicator

START_NS = 1_700_000_000_000_000_000
MS = 1_000_000
Frame = tuple[int, bytes]


def udp(number: int, *, identification: int | None = None, ttl: int = 64, vlan: int | None = None) -> bytes:
    """Return a UDP packet that carries its number."""
    payload = struct.pack(">Q", number)
    identification = number % 0xFFFF + 1 if identification is None else identification
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 28 + len(payload), identification, 0, ttl, 17, 0) + b"\n\0\0\1\n\0\0\2"
    tag = b"" if vlan is None else struct.pack(">HH", 0x8100, vlan)
    return bytes(12) + tag + b"\x08\0" + ip + struct.pack(">HHHH", 1000, 2000, 8 + len(payload), 0) + payload


def written(path: Path, frames: Sequence[Frame]) -> Path:
    records = [pcap_record(ns // 10**9, ns % 10**9, data) for ns, data in frames]
    path.write_bytes(pcap_header(magic=0xA1B23C4D) + b"".join(records))
    return path


def mirrored(count: int = 200) -> list[Frame]:
    """Return packets, each of which a mirror port gave again after 40 µs, routed and into another VLAN."""
    frames = []
    for number in range(count):
        at = START_NS + number * MS
        frames += [(at, udp(number, vlan=10)), (at + 40_000, udp(number, ttl=63, vlan=20))]
    return frames


def kept(path: Path, **options: object) -> list[int]:
    """Return the numbers of the packets that are left."""
    batches = uspcap.open(path, **options).batches()  # type: ignore[arg-type]
    return [int.from_bytes(batch.frame_bytes(row)[-8:], "big") for batch in batches for row in range(batch.count)]


def test_mirror_copies_count_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pcap", mirrored())
    assert kept(path, dedup="100ms") == list(range(200))
    report = uspcap.analyze(path, "summary", dedup="100ms")
    assert report["summary"]["packets"] == 200
    assert report.document["source"]["packets_read"] == 400
    assert report.document["source"]["order"]["copies_removed"] == 200
    assert "200 frames left out as copies of packets" in str(report)
    assert uspcap.analyze(path, "summary")["summary"]["packets"] == 400


def test_every_command_that_reads_files_leaves_them_out(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pcap", mirrored(50))
    once = written(tmp_path / "b.pcap", mirrored(50)[::2])
    assert "50 frames left out" in invoke("analyze", path, "--only", "summary", "--dedup").stdout
    assert "50 frames left out" in invoke("analyze", path, "--only", "summary", "--dedup=1ms").stdout
    assert len(invoke("dump", path, "--dedup").lines) == 50
    compared = uspcap.compare(path, once, dedup="1ms").document
    assert compared["frames"]["matched"] == 50
    out = tmp_path / "c.pcap"
    assert invoke("capture", "-r", path, "--speed", "0", "-w", out, "--dedup").code == 0
    assert kept(out) == list(range(50))


@pytest.mark.parametrize("jobs", [1, 4])
def test_copies_do_not_depend_on_threads_or_files(tmp_path: Path, jobs: int) -> None:
    frames = mirrored()
    whole = uspcap.analyze(written(tmp_path / "a.pcap", frames), ("gaps", "inter_arrival"), dedup=MS, jobs=jobs)
    apart = [written(tmp_path / f"{part}.pcap", frames[part::2]) for part in (0, 1)]
    # Each file shows the packets of the other, so that they would be two taps.
    joined = uspcap.analyze(apart, ("gaps", "inter_arrival"), dedup=MS, jobs=jobs, taps="join")
    assert joined["gaps"] == whole["gaps"]


@pytest.mark.parametrize(
    ("frames", "left"),
    [
        pytest.param([udp(1), udp(1)], 1, id="alike"),
        pytest.param([udp(1, identification=0), udp(1, identification=0)], 2, id="no identification"),
        pytest.param([udp(1, identification=5), udp(1, identification=6)], 2, id="retransmitted"),
        pytest.param([udp(1, identification=5), udp(2, identification=5)], 2, id="another payload"),
        pytest.param([bytes(60), bytes(60)], 2, id="no IP"),
    ],
)
def test_only_what_is_one_packet_is_a_copy(tmp_path: Path, frames: list[bytes], left: int) -> None:
    path = written(tmp_path / "a.pcap", [(START_NS + at, frame) for at, frame in enumerate(frames)])
    assert len(kept(path, dedup="1ms")) == left


def test_what_comes_after_the_window_is_no_copy(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pcap", [(START_NS, udp(1)), (START_NS + MS + 1, udp(1)), (START_NS + 2 * MS, udp(1))])
    assert len(kept(path, dedup="1ms")) == 2


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), max_size=60), st.integers(1, 60), st.integers(1, 9))
def test_a_slow_account_finds_the_same_copies(
    packets: list[tuple[int, int]], window_ns: int, batch_frames: int
) -> None:
    at_ns, stream = START_NS, []
    for number, pause_ns in packets:
        at_ns += pause_ns
        stream.append((at_ns, number))
    found, copies = [], Deduplicator(window_ns)
    for first in range(0, len(stream), batch_frames):
        part = stream[first : first + batch_frames]
        batch = FrameBatch.from_frames([udp(number) for _, number in part], [ns for ns, _ in part])
        marks = np.empty(batch.count, np.uint8)
        assert copies.mark(batch, batch.headers, marks) == int((marks == 0).sum())
        found += (marks == 0).tolist()
    last: dict[int, int] = {}
    for (ns, number), is_copy in zip(stream, found, strict=True):
        assert is_copy == (number in last and ns - last[number] <= window_ns)
        last[number] = ns
    assert copies.copies == sum(found)


def test_so_many_packets_at_least_are_remembered() -> None:
    copies = Deduplicator(10**12)
    others = [udp(number, identification=number % 65_000 + 1) for number in range(1, REMEMBERED)]
    stream = [udp(0), *others, udp(0)]
    batch = FrameBatch.from_frames(stream, [START_NS + at for at in range(len(stream))])
    marks = np.empty(batch.count, np.uint8)
    assert copies.mark(batch, batch.headers, marks) == 1
    assert marks[-1] == 0


def test_what_makes_no_sense_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pcap", mirrored(3))
    for words in (("--dedup", "--sort", "off"), ("--dedup=0s",), ("--dedup=soon",)):
        assert_one_clear_line(invoke("analyze", path, *words), 2)
    with pytest.raises(UsageError, match="dedup is a window"):
        uspcap.analyze(path, dedup=0)
    with pytest.raises(UsageError, match="leave sort='off' out"):
        uspcap.open(path, sort="off", dedup="1ms")
