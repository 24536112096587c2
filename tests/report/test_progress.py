"""The progress line."""

from __future__ import annotations

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from uspcap.report.progress import APPEARS_AFTER_S, REDRAWN_EVERY_S, Progress


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


def test_a_short_run_shows_nothing() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(100, stream=stream, clock=clock) as progress:
        clock.now += APPEARS_AFTER_S * 0.9
        progress.update(90, 10)
    assert stream.getvalue() == ""


def test_a_long_run_shows_how_far_it_is_and_clears_its_line() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(4_000_000_000, stream=stream, clock=clock) as progress:
        clock.now += 2
        progress.update(1_000_000_000, 20_000_000)
        assert stream.getvalue() == "\r25.0 % of 4.000 GB · 10.00 Mframes/s · 0:06 left\x1b[K"
    assert stream.getvalue().endswith("\x1b[K\r\x1b[K")


def test_the_line_is_drawn_again_only_after_a_while() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(1_000, stream=stream, clock=clock) as progress:
        clock.now += 1
        progress.update(1, 1)
        once = stream.getvalue()
        for step in range(2, 50):
            progress.update(step, step)
        assert stream.getvalue() == once != ""
        clock.now += REDRAWN_EVERY_S
        progress.update(500, 50)
        assert "50.0 %" in stream.getvalue()


def test_what_was_read_adds_up_from_any_thread() -> None:
    stream, clock = Terminal(), Clock()
    with Progress(None, stream=stream, clock=clock) as progress:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: progress.advance(1_000, 10), range(400)))
        clock.now += 2
        progress.advance(0, 0)
    assert stream.getvalue().startswith("\r400.0 kB read · 2.000 kframes/s\x1b[K")


@pytest.mark.parametrize(("elapsed_s", "left"), [(1.0, "0:03"), (1_000.0, "50:00"), (10_000.0, "8:20:00")])
def test_the_time_left_follows_from_the_share(elapsed_s: float, left: str) -> None:
    progress = Progress(400, stream=Terminal())
    progress.advance(100, 1)
    assert progress.line(elapsed_s).endswith(f" · {left} left")


def test_a_file_that_grew_is_no_more_than_whole() -> None:
    progress = Progress(100, stream=Terminal())
    progress.advance(150, 1)
    assert progress.line(1.0).startswith("100.0 % of 100 B · ") and progress.line(1.0).endswith("0:00 left")


def test_nothing_read_yet_has_no_time_left() -> None:
    assert Progress(100, stream=Terminal()).line(1.0) == "0 % of 100 B · 0 frames/s"


@pytest.mark.parametrize("width", [5, 20])
def test_a_narrow_terminal_gets_one_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    stream, clock = Terminal(), Clock()
    with Progress(4_000_000_000, stream=stream, clock=clock) as progress:
        clock.now += 2
        progress.update(10, 10)
        assert len(stream.getvalue().removeprefix("\r").removesuffix("\x1b[K")) < width


def test_no_terminal_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, kind in ((io.StringIO(), "xterm"), (Terminal(), "dumb")):
        monkeypatch.setenv("TERM", kind)
        clock = Clock()
        with Progress(100, stream=stream, clock=clock) as progress:
            clock.now += 5
            progress.update(50, 1)
        assert stream.getvalue() == ""


def test_an_ascii_terminal_gets_ascii() -> None:
    stream, clock = Terminal(), Clock()
    stream.encoding = "ascii"  # type: ignore[misc]
    with Progress(100, stream=stream, clock=clock) as progress:
        clock.now += 5
        progress.update(50, 1)
    assert stream.getvalue().isascii()


def test_it_needs_neither_rich_nor_numpy() -> None:
    code = "import sys, uspcap.report.progress; sys.exit(bool({'rich', 'numpy', 'pandas'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
