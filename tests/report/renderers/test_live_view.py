"""The live view: what it draws, that it keeps to its share of the time, and that it gives the terminal back."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rich.cells import cell_len
from rich.text import Text
from support.capturing import USPCAP
from support.streams import START_NS, Frame, batch_of
from support.traffic import numbered_frame
from support.veth_pairs import HERE, Pair, wait_until

from uspcap.analysis import registry
from uspcap.analysis.suite import Settings
from uspcap.backends.base import Description, LiveSource, SourceStatistics
from uspcap.formats.byte_sink import Patience
from uspcap.frames import FrameBatch, Interface, TimestampSource
from uspcap.pipeline.intervals import DRAWN_EVERY_NS, Intervals
from uspcap.pipeline.keeping import HereKeeper
from uspcap.report.renderers.live_view import LARGEST_SHARE, LiveView
from uspcap.report.watching import WatchReporter

ENTER, LEAVE, SHOW_CURSOR = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"
SAMPLE = Path(__file__).parents[3] / "sample_captures" / "microburst.pcap"


class Source(LiveSource):
    """Says what it is asked to, and gives nothing."""

    backend = "list"

    def __init__(self, what: str = "eth0") -> None:
        super().__init__()
        self.counts = SourceStatistics()
        self.what = what

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return ()

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        yield None

    def stop(self) -> None: ...

    def statistics(self) -> SourceStatistics:
        return self.counts

    def describe(self) -> Description:
        return Description(self.what, "list", "a mode of many words that takes a lot of room on the line", 1, 1, "-")

    def close(self) -> None: ...


class Rig:
    """A view on a pseudo-terminal, with clocks that go as they are set."""

    def __init__(self, columns: int = 80, rows: int = 24, *, what: str = "eth0", cost_ns: int = 0) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(columns, rows)
        self.text = b""
        self.reader = Thread(target=self._read, daemon=True)
        self.reader.start()
        self.stream = os.fdopen(self.slave, "w", encoding="utf-8")
        self.source = Source(what)
        self.now_ns = self.cpu_ns = 0
        self.cost_ns = cost_ns
        self.view = LiveView(self.stream, self.source.describe(), clock=lambda: self.now_ns, cpu_clock=self.cpu)
        settings = Settings(registry.default_names(live=True))
        self.intervals = Intervals(
            settings,
            10**9,
            statistics=self.source.statistics,
            keeper=HereKeeper(settings, WatchReporter(what, "", self.view, None, Patience())),
            clock=lambda: self.now_ns,
        )

    def cpu(self) -> int:
        self.cpu_ns += self.cost_ns
        return self.cpu_ns

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def look(self, now_ns: int) -> None:
        """Look two times: an interval may end, and it may be drawn."""
        self.now_ns = now_ns
        self.intervals.look()
        self.intervals.look()

    def draw(self, now_ns: int) -> None:
        self.view.draw(now_ns, self.source.counts)

    def _read(self) -> None:
        # A terminal takes a few kilobytes, and then makes the writer wait.
        with contextlib.suppress(OSError):
            while text := os.read(self.master, 1 << 16):
                self.text += text

    def output(self) -> str:
        """Return what came to the terminal since the last call."""
        mark = b"\x1b[6n"
        self.stream.write(mark.decode())
        self.stream.flush()
        assert wait_until(lambda: mark in self.text)
        text, _, self.text = self.text.partition(mark)
        return text.decode()

    def close(self) -> None:
        self.view.close()
        self.stream.close()
        self.reader.join()
        os.close(self.master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def lines_of(screen: str) -> list[str]:
    """Return a drawn screen without what steers the terminal."""
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r", "").split("\n")]


def frames(source: TimestampSource = TimestampSource.XDP, number: int = 2_000) -> list[Frame]:
    return [Frame(START_NS + 1_000 * at, 100, 1 + at % 3, source, START_NS + 1_000 * at + at) for at in range(number)]


@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (60, 20), (40, 10), (120, 50), (20, 5), (0, 0)])
def test_screen_fits_the_terminal_whatever_its_size(terminal: None, columns: int, rows: int) -> None:
    rig = Rig(what="eth0\x1b[31m" * 9)
    rig.view.open()
    both = [*frames(), *frames(TimestampSource.HARDWARE)]
    rig.intervals.update(batch_of(both))
    rig.source.counts = SourceStatistics(received=4_005, delivered=4_000, dropped={"ring full": 2}, waiting=3)
    rig.resize(columns, rows)
    rig.output()
    rig.look(1_000_000_000)
    screen = rig.output()
    rig.close()
    lines = lines_of(screen)
    assert len(lines) <= (rows or 24)
    assert max(map(cell_len, lines)) <= (columns or 80)
    assert "\x1b[31m" not in screen


def test_last_interval_stands_beside_the_whole(terminal: None) -> None:
    rig = Rig()
    rig.view.open()
    for second in (1, 2):
        rig.intervals.update(batch_of(frames(number=1_000 * second)))
        rig.source.counts = SourceStatistics(
            received=1_000 * second * second, dropped={"ring full": second * second}, waiting=7
        )
        rig.look(second * 1_000_000_000)
    text = "\n".join(lines_of(rig.output()))
    rig.close()
    screen = text[text.rindex("uspcap eth0: list") :]
    assert re.search(r"2\.000 s, now 3\.000 kpackets/s, 7 waiting in the ring; Ctrl-C ends", screen)
    assert "dropped so far: ring full 4" in screen
    assert re.search(r"^ +last 1\.000 s +whole$", screen, re.MULTILINE)
    assert re.search(r"^packets +2,000 +3,000$", screen, re.MULTILINE)
    assert re.search(r"^dropped +3 +4$", screen, re.MULTILINE)
    assert re.search(r"^rate +2\.000 kpackets/s +1\.500 kpackets/s$", screen, re.MULTILINE)
    assert re.search(r"^timestamps +XDP +2,000 +3,000$", screen, re.MULTILINE)
    assert re.search(r"^path latency XDP +p50 +999 ns +", screen, re.MULTILINE)


def test_drawing_keeps_to_its_share_of_the_time(terminal: None) -> None:
    cost_ns = 50_000_000
    rig = Rig(cost_ns=cost_ns)
    rig.view.open()
    drawn = []
    for now_ns in range(0, 60_000_000_000, 100_000_000):
        before = rig.view.draws
        rig.look(now_ns)
        if rig.view.draws > before:
            drawn.append(now_ns)
    rig.close()
    assert min(later - earlier for earlier, later in pairwise(drawn)) >= LARGEST_SHARE * cost_ns


def test_cheap_drawing_comes_four_times_a_second(terminal: None) -> None:
    rig = Rig()
    rig.view.open()
    for now_ns in range(0, 2_000_000_000, 10_000_000):
        rig.look(now_ns)
    rig.close()
    assert rig.view.draws == 2_000_000_000 // DRAWN_EVERY_NS


def test_closing_gives_the_terminal_back_once(terminal: None) -> None:
    rig = Rig()
    rig.view.open()
    assert ENTER in rig.output()
    rig.look(0)
    rig.output()
    rig.view.close()
    assert (text := rig.output()).count(LEAVE) == 1 and SHOW_CURSOR in text
    rig.view.close()
    rig.look(10**10)
    assert rig.output() == ""
    rig.close()


def test_closing_in_the_middle_of_drawing_gives_the_terminal_back_after_it(
    terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    rig.view.open()
    rig.output()
    monkeypatch.setattr(rig.view, "lines", closing(rig.view.lines, rig.view))
    rig.draw(0)
    screen = rig.output()
    assert screen.index("uspcap eth0") < screen.index(LEAVE)
    assert rig.view.draws == 1
    rig.close()


def test_terminal_that_takes_nothing_is_not_waited_for(terminal: None) -> None:
    rig = Rig()
    rig.view.open()
    termios.tcflow(rig.slave, termios.TCOOFF)
    rig.draw(0)
    assert rig.view.draws == 0
    termios.tcflow(rig.slave, termios.TCOON)
    rig.draw(10**10)
    assert rig.view.draws == 1
    rig.close()


def test_terminal_that_is_gone_ends_the_view_and_not_the_capture(
    terminal: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig()
    rig.view.open()

    def hang_up(*_: object) -> list[Text]:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(rig.view, "lines", hang_up)
    rig.draw(0)
    rig.draw(10**10)
    assert rig.view.draws == 1
    assert LEAVE in rig.output()
    rig.close()


def closing(lines: Callable[..., list[Text]], view: LiveView) -> Callable[..., list[Text]]:
    """Return what closes the view before it returns the lines, as a signal handler would."""

    def close(*words: Any) -> list[Text]:
        view.close()
        return lines(*words)

    return close


class OnTerminal:
    """A process whose stdout and stderr are a terminal of 80 by 24."""

    def __init__(self, *command: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, env=environment | {"TERM": "xterm-256color"}
        )
        self.slave = slave
        self.text = ""

    def read_until(self, condition: str, timeout_s: float = 20.0) -> bool:
        """Read until a pattern was met; an empty one waits for the end."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if select.select([self.master], [], [], 0.05)[0]:
                self.text += os.read(self.master, 1 << 16).decode(errors="replace")
            elif self.process.poll() is not None:
                return bool(re.search(condition, self.text))
            if condition and re.search(condition, self.text):
                return True
        return False

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def is_sane(self) -> bool:
        """Whether the last word about screen and cursor was to give them back, and the settings are as before."""
        return (
            self.text.rfind(LEAVE) > self.text.rfind(ENTER)
            and self.text.rfind(SHOW_CURSOR) > self.text.rfind("\x1b[?25l")
            and termios.tcgetattr(self.slave) == self.before
        )


@pytest.mark.parametrize("ending", ["Ctrl-C", "interface gone"])
def test_capture_on_a_terminal_shows_the_view_and_gives_the_terminal_back(pair: Pair, ending: str) -> None:
    running = OnTerminal(*pair.here.command(*USPCAP, "capture", "-i", HERE))
    try:
        assert running.read_until("the first interval is not over yet"), running.text
        pair.send(*[numbered_frame(number) for number in range(100)])
        assert running.read_until(r"last [0-9.]+ m?s"), running.text
        assert ENTER in running.text
        if ending == "Ctrl-C":
            running.process.send_signal(signal.SIGINT)
        else:
            pair.here.ip("link", "delete", HERE)
        assert running.read_until("Path latency"), running.text
        assert running.read_until("")
        assert running.process.wait(10) == (0 if ending == "Ctrl-C" else 1)
        assert running.is_sane()
        assert "received 100 = 100 analyzed" in running.text[running.text.rfind(LEAVE) :]
    finally:
        running.close()


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("--speed", "0"), False),
        (("--speed", "0", "--live"), True),
        (("--speed", "0", "--live", "--interval", "1s"), True),
        (("--speed", "0", "--interval", "1s"), False),
    ],
)
def test_replay_shows_the_view_where_it_is_asked_for(words: tuple[str, ...], shown: bool) -> None:
    running = OnTerminal(*USPCAP, "capture", "-r", str(SAMPLE), *words)
    try:
        assert running.read_until("received 593 = 593 analyzed")
        running.read_until("")
        assert (ENTER in running.text) == shown
        # Blocks of intervals would be drawn over; they come where there is no view.
        assert (re.search(r"Z \+ ", running.text) is not None) == ("--interval" in words and not shown)
    finally:
        running.close()


def test_live_view_without_a_terminal_is_refused() -> None:
    done = subprocess.run(
        [*USPCAP, "capture", "-r", str(SAMPLE), "--live"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "uspcap: --live needs a terminal on stdout or stderr: leave it out, or take --interval instead\n"
    )
