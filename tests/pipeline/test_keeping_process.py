"""The process that reports on intervals: what it reports and keeps, and that nothing it does holds the capture up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.streams import START_NS, Frame, batch_of
from support.veth_pairs import wait_until

from uspcap.analysis import registry
from uspcap.analysis.suite import Settings, Suite
from uspcap.backends.base import SourceStatistics
from uspcap.errors import CaptureError, UspcapError
from uspcap.pipeline.keeping import HereKeeper, Interval, IntervalReporter
from uspcap.pipeline.keeping_process import KeepingProcess

SETTINGS = Settings(registry.default_names(live=True))


class Talker(IntervalReporter):
    """Writes a line about each thing that it is to report, and first does what the test makes it do."""

    def __init__(self, act: Callable[[Interval], None] = lambda interval: None) -> None:
        self.read, self.written = os.pipe()
        self.draws = True
        self.act = act

    def say(self, *words: object) -> None:
        os.write(self.written, (json.dumps([os.getpid(), *words]) + "\n").encode())

    def report(self, interval: Interval) -> None:
        self.act(interval)
        self.say("interval", interval.start_ns, interval.suite.summary.result()["packets"])

    def sum_up(self, whole: Interval) -> None:
        self.say("whole", whole.suite.summary.result()["packets"])

    def draw(self, now_ns: int, statistics: SourceStatistics) -> None:
        self.say("draw", now_ns, statistics.received)

    def hurry(self) -> None:
        self.say("hurry")

    def close(self) -> None:
        self.say("closed")

    def heard(self) -> list[list[Any]]:
        """Return all lines so far, and what they begin with: the process that said them."""
        os.set_blocking(self.read, False)
        try:
            return [json.loads(line) for line in os.read(self.read, 1 << 16).splitlines()]
        except BlockingIOError:
            return []


@pytest.fixture
def make() -> Iterator[Callable[..., tuple[KeepingProcess, Talker]]]:
    opened: list[Talker] = []

    def make(act: Callable[[Interval], None] = lambda interval: None) -> tuple[KeepingProcess, Talker]:
        opened.append(Talker(act))
        return KeepingProcess(SETTINGS, opened[-1], [opened[-1].written]), opened[-1]

    yield make
    for talker in opened:
        os.close(talker.read)
        os.close(talker.written)


def interval(number: int, frames: int = 50) -> Interval:
    suite = Suite(SETTINGS)
    if frames:
        first = 50 * number
        suite.update(
            batch_of([Frame(START_NS + 1_000 * at, 60 + at % 7, at % 3) for at in range(first, first + frames)])
        )
    return Interval(number, number + 1, suite, frames, {}, number, ())


def results(suite: Suite | None) -> dict[str, Any]:
    assert suite is not None
    return {name: (analysis.result(), analysis.tables()) for name, analysis in suite.analyses.items()}


def hand_over(keeper: KeepingProcess, *intervals: Interval) -> None:
    for each in intervals:
        keeper.take(each)
        assert wait_until(lambda: not keeper.busy)


def test_whole_is_that_of_intervals_kept_where_they_were_made(make: Any) -> None:
    keeper, talker = make()
    here = HereKeeper(SETTINGS, Talker())
    with keeper:
        hand_over(keeper, interval(0), interval(1), interval(2, 0))
        for number, frames in enumerate((50, 50, 0)):
            here.take(interval(number, frames))
        whole = keeper.end(interval(3))
    assert results(whole) == results(here.end(interval(3)))
    keeper.check()
    lines = [words for _, *words in talker.heard()]
    assert [words for words in lines if words[0] == "interval"] == [
        ["interval", 0, 50],
        ["interval", 1, 50],
        ["interval", 2, 0],
        ["interval", 3, 50],
    ]
    assert [words[1] for words in lines if words[0] == "whole"] == [50, 100, 100, 150]
    assert lines[-1] == ["closed"]


def test_everything_is_reported_by_another_process(make: Any) -> None:
    keeper, talker = make()
    with keeper:
        keeper.draw(7, SourceStatistics(received=11))
        assert wait_until(lambda: not keeper.busy)
        keeper.end(interval(0))
    heard = talker.heard()
    assert heard[0][1:] == ["draw", 7, 11]
    assert os.getpid() not in {pid for pid, *_ in heard}


def test_capture_goes_on_while_a_report_takes_its_time(make: Any) -> None:
    gate, opened = os.pipe()
    keeper, talker = make(lambda interval: os.read(gate, 1))
    keeper._descriptors = [talker.written, gate]
    with keeper:
        keeper.take(interval(0))
        # Nothing of this waits for the process, which waits for us.
        assert keeper.busy
        suite = interval(1).suite
        os.write(opened, b"..")
        assert wait_until(lambda: not keeper.busy)
        keeper.take(Interval(1, 2, suite, 50, {}, None, ()))
        assert wait_until(lambda: not keeper.busy)
        os.write(opened, b".")
        keeper.end(interval(2))
    os.close(gate)
    os.close(opened)


def test_failure_to_report_is_raised_once_and_nothing_is_lost(make: Any) -> None:
    def refuse(interval: Interval) -> None:
        if interval.start_ns == 1:
            raise CaptureError("nobody listens")

    keeper, _ = make(refuse)
    with keeper:
        hand_over(keeper, interval(0), interval(1))
        with pytest.raises(CaptureError, match="nobody listens"):
            keeper.check()
        keeper.check()
        whole = keeper.end(interval(2))
    assert whole is not None
    assert whole.summary.result()["packets"] == 150


def test_fault_in_reporting_is_one_sentence(make: Any) -> None:
    def fail(interval: Interval) -> None:
        raise ZeroDivisionError("a fault")

    keeper, _ = make(fail)
    with keeper:
        whole = keeper.end(interval(0))
    assert whole is not None
    with pytest.raises(UspcapError, match="internal error, ZeroDivisionError: a fault; please report this"):
        keeper.check()


def test_process_that_is_killed_loses_the_whole_and_says_so(make: Any) -> None:
    keeper, _ = make(lambda interval: os.kill(os.getpid(), signal.SIGKILL))
    with keeper:
        assert keeper.end(interval(0)) is None
        with pytest.raises(
            CaptureError,
            match="the process that reports on intervals was ended by SIGKILL, and its analyses so far are lost",
        ):
            keeper.check()
        keeper.take(interval(1))
        assert not keeper.busy


def test_process_keeps_no_descriptor_but_what_it_writes_to(make: Any) -> None:
    keeper, talker = make(lambda interval: None)
    others = [os.open(os.devnull, os.O_RDONLY) for _ in range(5)]
    with keeper:
        hand_over(keeper, interval(0))  # by then it has closed what it does not need
        kept = {str(path.readlink()) for path in Path(f"/proc/{keeper._pid}/fd").iterdir()}
        keeper.end(interval(1))
    for descriptor in others:
        os.close(descriptor)
    written = str(Path(f"/proc/self/fd/{talker.written}").readlink())
    sockets = {name for name in kept if name.startswith("socket:")}
    assert len(sockets) == 1
    assert kept - sockets <= {written, str(Path("/proc/self/fd/2").readlink()), os.devnull}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_what_ends_a_capture_does_not_end_the_process(make: Any, number: int) -> None:
    keeper, _ = make()
    with keeper:
        os.kill(keeper._pid, number)
        whole = keeper.end(interval(0))
    assert whole is not None


def test_process_ends_with_the_capture_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from uspcap.analysis.suite import Settings\n"
        "from uspcap.pipeline.keeping import IntervalReporter\n"
        "from uspcap.pipeline.keeping_process import KeepingProcess\n"
        "class Silent(IntervalReporter):\n"
        "    def report(self, interval): ...\n"
        "    def close(self): open(sys.argv[1], 'w').close()\n"
        "keeper = KeepingProcess(Settings(('summary',)), Silent(), [])\n"
        "keeper.__enter__()\n"
        "print(keeper._pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    closed = tmp_path / "closed"
    running = subprocess.Popen(
        [sys.executable, "-c", code, str(closed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert running.stdout is not None
    pid = int(running.stdout.readline())
    running.kill()
    running.communicate()
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists() or _is_gone(pid))
    assert closed.exists()


def _is_gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
