"""A path with known delay and loss: what uspcap reports is what the queue discipline did, and what two tcpdumps saw."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.namespaces import Namespace

from rig.frames import frame, send
from rig.guests import RECEIVER_MAC
from rig.nics import HERE_ADDRESS, Nics, command
from rig.running import Capture, Command, run

SHORTEST_NS = 900_000
"""What the queue makes of 1 ms ± 100 µs."""

COUNT = 4000
SOURCE, SOURCE_ADDRESS = "src0", "10.9.0.3"
FILTER = ("udp", "port", "7000")


@dataclass(frozen=True, slots=True)
class SlowPath:
    """A source whose frames go through a bridge, and from there with delay and loss to the interface `nics.here`.

    Attributes
    ----------
    nics : Nics
    source : Namespace
    enters : str
        In the far namespace, where frames come in before they are delayed.
    """

    nics: Nics
    source: Namespace
    enters: str


@pytest.fixture
def slow(nics: Nics) -> Iterator[SlowPath]:
    """The far namespace holds frames back for 1 ms ± 100 µs and loses 0.5 %."""
    far, source = nics.far, Namespace()
    source.add_veth(SOURCE, far, "mid0")
    source.ip("addr", "add", f"{SOURCE_ADDRESS}/24", "dev", SOURCE)
    source.ip("neigh", "add", HERE_ADDRESS, "lladdr", RECEIVER_MAC, "dev", SOURCE, "nud", "permanent")
    shown = source.ip("-br", "link", "show", SOURCE)
    mac = re.search(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", shown)
    assert mac is not None
    command("ip", "neigh", "add", SOURCE_ADDRESS, "lladdr", mac[0], "dev", nics.here, "nud", "permanent")
    far.ip("link", "add", "middle", "type", "bridge", "mcast_snooping", "0")
    for member in ("mid0", nics.there):
        far.ip("link", "set", member, "master", "middle")
    far.ip("link", "set", "middle", "up")
    words = ("qdisc", "replace", "dev", nics.there, "root", "netem", "delay", "1ms", "100us", "loss", "0.5%")
    subprocess.run(far.command("tc", *words, "limit", "10000"), check=True)
    try:
        yield SlowPath(nics, source, "mid0")
    finally:
        subprocess.run(far.command("tc", "qdisc", "delete", "dev", nics.there, "root"), check=True)
        far.ip("link", "delete", "middle")
        command("ip", "neigh", "delete", SOURCE_ADDRESS, "dev", nics.here)
        source.close()


def lost_by(nics: Nics) -> int:
    shown = subprocess.run(
        nics.far.command("tc", "-s", "qdisc", "show", "dev", nics.there), check=True, capture_output=True, text=True
    )
    dropped = re.search(r"dropped (\d+)", shown.stdout)
    assert dropped is not None, shown.stdout
    return int(dropped[1])


def records(path: Path) -> dict[bytes, int]:
    """Return timestamps in nanoseconds, by frame."""
    data = path.read_bytes()
    assert struct.unpack_from("=I", data)[0] == 0xA1B23C4D
    found, at = {}, 24
    while at < len(data):
        seconds, nanoseconds, length, _ = struct.unpack_from("=4I", data, at)
        found[data[at + 16 : at + 16 + length]] = seconds * 1_000_000_000 + nanoseconds
        at += 16 + length
    return found


@pytest.mark.rig("phc")
def test_loss_and_delays_are_those_of_the_queue_and_of_tcpdump(slow: SlowPath, tmp_path: Path) -> None:
    nics = slow.nics
    before, after = tmp_path / "before.pcap", tmp_path / "after.pcap"
    dump = ("tcpdump", "-n", "--nano", "-B", "65536", "-Q", "in")
    processes = [
        subprocess.Popen(
            nics.far.command(*dump, "-i", slow.enters, "-w", str(before), *FILTER), stderr=subprocess.PIPE
        ),
        subprocess.Popen([*dump, "-i", nics.here, "-w", str(after), *FILTER], stderr=subprocess.PIPE),
    ]
    for process in processes:
        assert process.stderr is not None
        assert b"listening" in process.stderr.readline()
    capture = Capture(tmp_path, nics.here, "--backend", "packet_mmap", "-Q", "in", *FILTER, name="ours.pcap")
    lost_before = lost_by(nics)
    with slow.source.entered():
        assert send(SOURCE, [frame(number, 100) for number in range(COUNT)], burst=4, pause_s=0.002) == COUNT
    assert capture.finish() == 0, capture.stderr
    for process in processes:
        process.terminate()
        process.communicate(timeout=30)
    lost = lost_by(nics) - lost_before
    assert lost, "nothing was lost: this test shows little"
    assert capture.received == COUNT - lost, capture.stderr

    compared = run(tmp_path, "compare", before, after, "--format", "json", "--table", tmp_path / "pairs.csv")
    report = json.loads(compared.stdout)
    assert report["loss"]["a_to_b"] == {"lost": lost, "sent": COUNT, "ratio": pytest.approx(lost / COUNT)}
    first, second = records(before), records(after)
    assert len(first) == COUNT
    expected = sorted(second[data] - first[data] for data in second)
    header, *rows = (tmp_path / "pairs.csv").read_text().splitlines()
    column = header.split(",").index("delay_ns")
    assert sorted(int(row.split(",")[column]) for row in rows) == expected
    assert min(expected) >= SHORTEST_NS


@pytest.mark.rig("phc")
def test_no_round_trip_of_probes_is_shorter_than_the_delay(slow: SlowPath, tmp_path: Path) -> None:
    reflecting = Command(tmp_path, "probe", "reflect", f"{HERE_ADDRESS}:7070").until("7070")
    with slow.source.entered():
        sent = run(tmp_path, "probe", "send", f"{HERE_ADDRESS}:7070", "-c", "500", "--rate", "500", "--format", "json")
    reflecting.end()
    report = json.loads(sent.stdout)
    assert report["frames"]["sent"] == 500, sent.stderr
    assert report["answers"]["in_time"] > 400, report["answers"]
    assert report["service_time"]["min_ns"] >= SHORTEST_NS
