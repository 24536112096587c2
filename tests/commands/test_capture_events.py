"""What happens to the interface of a capture is on stderr when it happens, in the report, and in the exit code."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import pytest
from support.bpf_links import detach_from_outside
from support.capturing import Run, frames_of
from support.namespaces import MakeNamespace
from support.traffic import numbered_frame
from support.veth_pairs import HERE, Pair, wait_until

from uspcap.bpf.attach import find_attached
from uspcap.network.links import named_link


@pytest.mark.usefixtures("kernel_bpf")
def test_detached_program_ends_the_capture_with_one_sentence(pair: Pair, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.pcapng"
    running = run("-i", HERE, "--backend", "af_xdp", "-w", str(path)).ready()
    pair.send(*[numbered_frame(number) for number in range(20)])
    with pair.here.entered():
        attached = find_attached(named_link(HERE).index)
    assert attached is not None

    def received_all() -> bool:
        running.process.send_signal(signal.SIGUSR1)
        return "so far: received 20 " in running.stderr

    assert wait_until(received_all)
    detach_from_outside(attached.program_id)
    pair.send(*[numbered_frame(number) for number in range(20, 35)])
    assert running.process.wait(60) == 1
    assert running.stderr.splitlines()[-1] == (
        "uspcap: the XDP program was detached from here0 from outside, as 'bpftool link detach' does, and its frames "
        "have gone to the kernel since: frames before that were kept"
    )
    assert running.accounts.startswith(
        "received 20 = 20 written; frames that the interface counted and the XDP hook did not see: 15"
    )
    assert frames_of(path) == [numbered_frame(number) for number in range(20)]


@pytest.mark.parametrize("backend", ["packet_mmap", "af_xdp"])
def test_link_that_flaps_is_reported_and_the_capture_goes_on(pair: Pair, run: Run, backend: str) -> None:
    running = run("-i", HERE, "--backend", backend, "--analyze", "summary", "--format", "json").ready()
    pair.here.ip("link", "set", HERE, "down")
    assert wait_until(lambda: "here0 was set down: no frames until it is up" in running.stderr)
    pair.here.ip("link", "set", HERE, "up")
    assert wait_until(lambda: "here0 is up again after" in running.stderr)
    pair.send(numbered_frame(1))
    assert running.end() == 0
    source = json.loads(running.stdout)["source"]
    assert source["accounts"]["received"] == 1
    assert "here0 was set down: no frames until it is up" in source["notes"]
    assert "times that the interface went down: 1" in running.accounts


@pytest.mark.parametrize("backend", ["packet_mmap", "af_xdp"])
def test_interface_that_is_moved_is_not_said_to_be_gone(
    pair: Pair, run: Run, make_namespace: MakeNamespace, backend: str
) -> None:
    running = run("-i", HERE, "--backend", backend, "-w", "/dev/null").ready()
    pair.here.ip("link", "set", HERE, "netns", make_namespace().name)
    assert running.process.wait(60) == 1
    assert running.stderr.splitlines()[-1] == (
        "uspcap: interface here0 was moved to another network namespace: frames before that were kept"
    )


@pytest.mark.usefixtures("kernel_bpf")
@pytest.mark.parametrize("user", [(), ("-Z", "nobody")], ids=["root", "nobody"])
def test_added_queues_are_reported_and_every_frame_has_its_place(
    pair: Pair, run: Run, tmp_path: Path, user: tuple[str, ...]
) -> None:
    pair.here.add_veth("here4", pair.there, "there4", queues=4)
    pair.there.set_queues("there4", tx=1)
    pair.here.set_queues("here4", rx=1)
    running = run("-i", "here4", "--backend", "af_xdp", "-B", "1024", "-w", str(tmp_path / "a.pcapng"), *user).ready()
    pair.here.set_queues("here4", rx=4)
    assert wait_until(lambda: "here4 has 4 receive queues now" in running.stderr)
    pair.there.set_queues("there4", tx=4)
    frames = [numbered_frame(number) for number in range(400)]
    frames = [frame[:34] + (1024 + number % 97).to_bytes(2, "big") + frame[36:] for number, frame in enumerate(frames)]
    with pair.there.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind(("there4", 0))
        for frame in frames:
            sender.send(frame)
    assert running.end() == 0
    written = frames_of(tmp_path / "a.pcapng")
    if not user:
        assert "here4 has 4 receive queues now, and uspcap reads them all" in running.stderr
        assert sorted(written) == sorted(frames)
        assert running.accounts.startswith("received 400 = 400 written")
    else:
        assert "may go to the kernel, and not be captured: cannot open an AF_XDP socket" in running.stderr
        lost = 400 - len(written)
        cause = "no socket on the queue, passed to the kernel"
        said = f"received 400 = {len(written)} written + {lost} dropped ({cause} {lost})"
        assert running.accounts.startswith(said)
        assert 0 < lost < 400
