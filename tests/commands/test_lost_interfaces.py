"""What live commands do when their interface is set down, goes away, or is moved to another network namespace."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.capturing import USPCAP
from support.namespaces import MakeNamespace, Namespace
from support.veth_pairs import HERE, THERE, Pair, wait_until

PORT = 7000


class Command:
    """A live command in a namespace, with what it says."""

    def __init__(self, namespace: Namespace, directory: Path, *words: str) -> None:
        self._paths = [directory / "stdout", directory / "stderr"]
        with self._paths[0].open("wb") as output, self._paths[1].open("wb") as errors:
            self.process = subprocess.Popen(namespace.command(*USPCAP, *words), stdout=output, stderr=errors)

    def until(self, text: str) -> None:
        assert wait_until(lambda: text in self.stderr or self.process.poll() is not None, 60)
        assert text in self.stderr, self.stderr

    def ended(self) -> int:
        """Return the exit code; it must have an end within a minute, where ten seconds would do."""
        return self.process.wait(60)

    @property
    def stdout(self) -> str:
        return self._paths[0].read_text()

    @property
    def stderr(self) -> str:
        return self._paths[1].read_text()

    @property
    def last_line(self) -> str:
        return self.stderr.splitlines()[-1]


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Command] = []

    def run(namespace: Namespace, *words: str) -> Command:
        directory = tmp_path / f"command{len(started)}"
        directory.mkdir()
        started.append(Command(namespace, directory, *words))
        return started[-1]

    yield run
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGKILL)
            one.process.wait()


@pytest.fixture
def addressed(pair: Pair) -> Pair:
    pair.here.ip("address", "add", "10.9.0.1/24", "dev", HERE)
    pair.there.ip("address", "add", "10.9.0.2/24", "dev", THERE)
    return pair


@pytest.fixture
def lose(addressed: Pair, make_namespace: MakeNamespace) -> Callable[[str], str]:
    """Give a function that takes the near end away and returns how that is reported."""

    def away(how: str) -> str:
        if how == "delete":
            addressed.here.ip("link", "delete", HERE)
            return "interface here0 is gone"
        if how == "move":
            addressed.here.ip("link", "set", HERE, "netns", make_namespace().name)
            return "interface here0 was moved to another network namespace"
        addressed.here.ip("link", "set", HERE, "down")
        return "interface here0 was set down"

    return away


WAYS = ["delete", "move", "down"]


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("words", [(), ("-i", HERE), ("-i", HERE, "--through", "af_xdp")], ids=["", "-i", "af_xdp"])
def test_reflector_ends_with_its_interface(
    addressed: Pair, start: Start, lose: Callable[[str], str], how: str, words: tuple[str, ...]
) -> None:
    reflector = start(addressed.here, "probe", "reflect", f"10.9.0.1:{PORT}", "--format", "json", *words)
    reflector.until("answering probes at")
    sender = start(addressed.there, "probe", "send", f"10.9.0.1:{PORT}", "-c", "20", "--rate", "100")
    assert sender.ended() == 0
    why = lose(how)
    assert reflector.ended() == 1
    assert reflector.last_line == f"uspcap: {why}; see 'ip link' and 'ip address'"
    assert json.loads(reflector.stdout)["frames"]["answered"] == 20


def test_reflector_at_any_address_outlives_an_interface(addressed: Pair, start: Start) -> None:
    reflector = start(addressed.here, "probe", "reflect", f"0.0.0.0:{PORT}", "--duration", "2s")
    reflector.until("answering probes at")
    addressed.here.ip("link", "delete", HERE)
    assert reflector.ended() == 0


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("words", [("--one-way",), ()], ids=["one-way", "answered"])
def test_sender_ends_with_its_interface(
    addressed: Pair, start: Start, lose: Callable[[str], str], how: str, words: tuple[str, ...]
) -> None:
    start(addressed.there, "probe", "reflect", f"10.9.0.2:{PORT}").until("answering probes at")
    sender = start(addressed.here, "probe", "send", f"10.9.0.2:{PORT}", "--rate", "1k", "--format", "json", *words)
    sender.until("sending from")
    why = lose(how)
    assert sender.ended() == 1
    sent = json.loads(sender.stdout)["frames"]["sent"]
    assert sender.last_line == f"uspcap: {why}, after {sent} frames to 10.9.0.2:{PORT}; see 'ip link'"


@pytest.mark.usefixtures("kernel_bpf")
@pytest.mark.parametrize("how", WAYS)
def test_comparison_keeps_the_runs_that_were_over(
    addressed: Pair, start: Start, lose: Callable[[str], str], how: str
) -> None:
    comparison = start(
        addressed.here, "compare", "-i", HERE, "--probe", f"10.9.0.1:{PORT}", "--probe-namespace", addressed.there.name,
        "--design", "block", "--runs", "500", "--run-duration", "200ms", "--format", "json",
    )  # fmt: skip
    comparison.until("run 6 of")
    why = lose(how)
    assert comparison.ended() == 1
    report = json.loads(comparison.stdout)
    assert report["design"]["interrupted"]
    assert comparison.last_line.startswith(f"uspcap: {why}: ")
    assert comparison.last_line.endswith(" of 500 runs of each path were complete, and are compared")


@pytest.mark.usefixtures("kernel_bpf")
def test_comparison_without_a_run_says_what_ended_it(addressed: Pair, start: Start) -> None:
    comparison = start(addressed.here, "compare", "-i", HERE, "--run-duration", "30s")
    comparison.until("native XDP")
    addressed.here.ip("link", "delete", HERE)
    assert comparison.ended() == 1
    assert comparison.last_line == (
        "uspcap: interface here0 is gone before the first run was complete: there is nothing to compare"
    )


@pytest.mark.usefixtures("kernel_bpf")
def test_comparison_ends_where_more_queues_come_than_af_xdp_reads(make_pair: Callable[..., Pair], start: Start) -> None:
    pair = make_pair(queues=4)
    pair.here.ip("address", "add", "10.9.0.1/24", "dev", HERE)
    pair.there.ip("address", "add", "10.9.0.2/24", "dev", THERE)
    pair.there.set_queues(THERE, tx=2)
    pair.here.set_queues(HERE, rx=2)
    comparison = start(
        pair.here, "compare", "-i", HERE, "--probe", f"10.9.0.1:{PORT}", "--probe-namespace", pair.there.name,
        "--runs", "500", "--run-duration", "200ms",
    )  # fmt: skip
    comparison.until("run 6 of")
    pair.here.set_queues(HERE, rx=4)
    assert comparison.ended() == 1
    assert (
        "here0 has 4 receive queues now, and 2 when it began, so that AF_XDP does not receive all"
        in comparison.last_line
    )
