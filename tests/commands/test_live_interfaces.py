"""Which interfaces live commands take, under which names, and what they do when one is in use."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence

import pytest
from support.capturing import Run, frames_of
from support.command_line import Ended, assert_one_clear_line, invoke
from support.namespaces import Namespace
from support.traffic import numbered_frame
from support.veth_pairs import HERE, THERE, Pair

LONG_NAME = "trading-floor-" + "x" * 113
BRIDGE_ADDRESS = "10.77.0.1"


def run_in(namespace: Namespace, *words: str) -> Ended:
    """Run a command in a namespace to its end."""
    with namespace.entered():
        return invoke(*words)


@pytest.fixture
def bridged(pair: Pair) -> Pair:
    """The near end is a port of a bridge that has an address, as on a host of virtual machines."""
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("link", "set", HERE, "master", "br0")
    pair.here.ip("address", "add", f"{BRIDGE_ADDRESS}/24", "dev", "br0")
    pair.here.ip("link", "set", "br0", "up")
    pair.there.ip("address", "add", "10.77.0.2/24", "dev", THERE)
    return pair


def test_application_behind_a_bridge_port_keeps_its_datagrams(bridged: Pair, run: Run, tmp_path) -> None:
    refused = run_in(bridged.here, "capture", "-i", HERE, "--backend", "af_xdp", "-w", str(tmp_path / "a.pcapng"))
    assert refused.code == 2
    assert refused.stderr == (
        "uspcap: AF_XDP would take every frame of here0 from the kernel, and here0 is a port of bridge br0, which has "
        "the address 10.77.0.1/24: give a filter, or --take-all if you mean it, or use the packet_mmap backend\n"
    )
    running = run("-i", HERE, "--backend", "af_xdp", "-w", str(tmp_path / "b.pcapng"), "tcp").ready()
    with bridged.here.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as application:
        application.bind((BRIDGE_ADDRESS, 6000))
        application.settimeout(10)
        with bridged.there.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(100):
                sender.sendto(number.to_bytes(2, "big"), (BRIDGE_ADDRESS, 6000))
        received = [int.from_bytes(application.recv(2), "big") for _ in range(100)]
    assert received == list(range(100))
    assert running.end() == 0


def test_bridge_port_is_taken_where_that_is_asked_for(bridged: Pair, run: Run, tmp_path) -> None:
    running = run("-i", HERE, "--backend", "af_xdp", "--take-all", "-w", str(tmp_path / "a.pcapng")).ready()
    bridged.send(numbered_frame(1))
    assert running.end() == 0
    assert numbered_frame(1) in frames_of(tmp_path / "a.pcapng")


def test_paths_of_a_bridge_port_are_not_compared_as_the_kernels_ends_elsewhere(bridged: Pair) -> None:
    refused = run_in(bridged.here, "compare", "-i", HERE, "--runs", "1")
    assert refused.code == 2
    assert refused.stderr == (
        "uspcap: here0 is a port of bridge br0, which the kernel hands every frame to, so that no socket on here0 gets "
        "any: compare on br0\n"
    )


def test_probes_of_others_behind_a_bridge_port_are_not_answered(bridged: Pair) -> None:
    words = ("probe", "reflect", "--through", "af_xdp", "-i", HERE, "--duration", "100ms")
    refused = run_in(bridged.here, *words, "0.0.0.0:7000")
    assert refused.code == 2
    assert refused.stderr == (
        "uspcap: AF_XDP would take every datagram to UDP port 7000 of here0 from the kernel, and here0 is a port of "
        "bridge br0, which has the address 10.77.0.1/24: name the address to answer at, or answer through the kernel\n"
    )
    assert run_in(bridged.here, *words, f"{BRIDGE_ADDRESS}:7000").code == 0


@pytest.mark.parametrize("name", ["blue", LONG_NAME, "index"])
@pytest.mark.parametrize("backend", ["packet_mmap", "af_xdp"])
def test_interface_has_other_names(pair: Pair, run: Run, tmp_path, backend: str, name: str) -> None:
    if name == "index":
        with pair.here.entered():
            name = str(socket.if_nametoindex(HERE))
    else:
        pair.here.ip("link", "property", "add", "dev", HERE, "altname", name)
    path = str(tmp_path / "a.pcapng")
    running = run("-i", name, "--backend", backend, "--cpu", "0", "-w", path).ready()
    assert f"{HERE}: {backend}" in running.stderr
    pair.send(numbered_frame(1))
    assert running.end() == 0
    assert frames_of(path) == [numbered_frame(1)]


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "-i", LONG_NAME, "--probe", "10.9.0.1", "--runs", "1", "--run-duration", "200ms"],
        ["probe", "reflect", "10.9.0.1:7000", "-i", LONG_NAME, "--duration", "100ms"],
        ["probe", "reflect", "10.9.0.1:7001", "-i", LONG_NAME, "--duration", "100ms", "--through", "af_xdp"],
        ["probe", "send", "10.9.0.2:7000", "-i", LONG_NAME, "--one-way", "-c", "3"],
        ["doctor", "-i", LONG_NAME],
    ],
    ids=lambda words: " ".join(word for word in words[:2] if not word.startswith("-")) + str(len(words)),
)
def test_every_live_command_knows_a_long_name(pair: Pair, words: Sequence[str]) -> None:
    pair.here.ip("link", "property", "add", "dev", HERE, "altname", LONG_NAME)
    pair.here.ip("address", "add", "10.9.0.1/24", "dev", HERE)
    pair.there.ip("address", "add", "10.9.0.2/24", "dev", THERE)
    if words[0] == "compare":
        words = [*words, "--probe-namespace", pair.there.name]
    done = run_in(pair.here, *words, "--format", "json")
    assert done.code == 0, done.stderr
    said = json.loads(done.stdout)
    assert HERE in json.dumps(said)
    assert LONG_NAME not in done.stdout


@pytest.mark.parametrize("name", ["blue", "999999", "y" * 127, "y" * 128, "a/b", "", "ä"])
@pytest.mark.parametrize(
    "words",
    [
        ["capture", "-w", "-"],
        ["compare"],
        ["probe", "reflect", "127.0.0.1:7000"],
        ["probe", "send", "127.0.0.1:7000"],
        ["doctor"],
    ],
    ids=lambda words: "-".join(words[:2]),
)
def test_name_that_is_none_is_one_sentence(pair: Pair, words: Sequence[str], name: str) -> None:
    done = run_in(pair.here, *words, "-i", name)
    assert_one_clear_line(done, 1, f"there is no interface '{name}': name one of here0, lo")
