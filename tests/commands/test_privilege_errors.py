"""Errors name every missing capability at once, and the command that grants them."""

import os
import re
import resource
import shlex
import subprocess

import pytest
from support.live_pairs import ADDRESS, LivePair
from support.unprivileged import nobody_with
from support.veth_pairs import HERE

MAIN = "from uspcap.cli import main; main(sys.argv[1:])"
AF_XDP = ("CAP_BPF", "CAP_NET_ADMIN", "CAP_NET_RAW")
LIVE = ("--runs", "2", "--run-duration", "100ms", "--warm-up", "20ms", "--cool-down", "20ms")
QUICK = ("--backend", "af_xdp", "-B", "1024", "--duration", "1ms", "udp")
COMMANDS = {
    "capture, packet_mmap": (("CAP_NET_RAW",), ("capture", "-i", HERE, "--duration", "1ms")),
    "capture, af_xdp": (
        AF_XDP,
        ("capture", "-i", HERE, "--backend", "af_xdp", "-B", "1024", "--duration", "1ms", "udp"),
    ),
    "capture, busy polling": (
        AF_XDP,
        ("capture", "-i", HERE, "--backend", "af_xdp", "--busy-poll", "-B", "1024", "--duration", "1ms", "udp"),
    ),
    "compare": (AF_XDP, ("compare", "-i", HERE, *LIVE, "--probe", f"{ADDRESS}:7000")),
    "probe reflect": (
        AF_XDP,
        ("probe", "reflect", f"{ADDRESS}:7000", "-i", HERE, "--through", "af_xdp", "--duration", "1ms"),
    ),
}

pytestmark = [
    pytest.mark.usefixtures("kernel_bpf"),
    pytest.mark.skipif(os.geteuid() != 0, reason="giving privileges up needs root"),
]


def run_as_nobody(pair: LivePair, held: tuple[str, ...], words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    command = pair.here.command(*nobody_with(held, MAIN, *words))
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_missing_capability_is_named_at_once_and_granted_by_the_command(live_pair: LivePair, name: str) -> None:
    needed, words = COMMANDS[name]
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    wanted = {*needed, "CAP_IPC_LOCK"} if len(needed) > 1 and 0 <= limit < 64 << 20 else {*needed}
    for held in ((), *(tuple(other for other in needed if other != missing) for missing in needed)):
        missing = [capability for capability in needed if capability not in held]
        done = run_as_nobody(live_pair, held, words)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        for capability in missing:
            assert capability in line.split(" missing")[0], line
        for capability in held:
            assert capability not in line.split(" missing")[0].split(": ", 1)[1], line
        (command,) = re.findall(r"'(setpriv [^']*)'", line)
        (granted,) = (word for word in shlex.split(command) if word.startswith("--ambient-caps="))
        assert granted == "--ambient-caps=-all," + ",".join(
            f"+{capability.removeprefix('CAP_').lower()}" for capability in sorted(wanted)
        )


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_said_to_be_needed_is_enough(live_pair: LivePair, name: str) -> None:
    needed, words = COMMANDS[name]
    done = run_as_nobody(live_pair, needed, words)
    assert "CAP_" not in done.stderr
    assert not (done.returncode and "cannot" in done.stderr.splitlines()[-1]), done.stderr


def test_namespace_to_send_from_needs_a_capability_of_its_own(live_pair: LivePair) -> None:
    _, words = COMMANDS["compare"]
    done = run_as_nobody(live_pair, AF_XDP, (*words, "--probe-namespace", live_pair.pair.there.name))
    assert done.returncode == 1
    assert "cannot send from network namespace" in done.stderr
    assert "CAP_SYS_ADMIN" in done.stderr.split(" missing")[0]


def test_low_port_is_distinguished_from_a_broadcast_address(live_pair: LivePair) -> None:
    done = run_as_nobody(live_pair, (), ("probe", "reflect", f"{ADDRESS}:99", "--duration", "1ms"))
    assert done.returncode == 1
    assert "CAP_NET_BIND_SERVICE is missing" in done.stderr
    done = run_as_nobody(live_pair, (), ("probe", "send", "10.77.0.255:7000", "--count", "1"))
    assert done.returncode == 1
    assert "it is a broadcast address" in done.stderr
    assert "CAP_" not in done.stderr
