"""What signals do: end at once, in good order, or after what must be done first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from uspcap.signals import ENDING, Ending, Interrupted, _unheard, before_the_end, calling


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in ENDING]


AT_ONCE = [signal.SIG_DFL, signal.SIG_DFL, _unheard]
"""What SIGINT, SIGTERM and SIGHUP do once one of the first two came."""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_to_stop_and_the_second_has_its_default(number: int) -> None:
    before = handlers()
    asked = []
    with Ending() as ending:
        ending.stop_with(lambda: asked.append(1))
        os.kill(os.getpid(), number)
        assert asked == [1]
        assert handlers() == AT_ONCE
        os.kill(os.getpid(), signal.SIGHUP)
        assert asked == [1]
    assert handlers() == before


def test_a_hangup_asks_to_stop_and_never_to_hurry() -> None:
    before = handlers()
    asked: list[int] = []
    with Ending(lambda: asked.append(1)):
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert asked == [1, 1]
        assert handlers() == AT_ONCE
    assert handlers() == before


def test_a_hangup_and_what_follows_it_unwind_once() -> None:
    unwound = []

    def set_up() -> None:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            unwound.append(1)

    with pytest.raises(Interrupted) as raised, Ending():
        set_up()
    assert raised.value.number == signal.SIGHUP
    assert unwound == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_unwinds_what_does_not_know_yet_how_to_stop(number: int) -> None:
    before = handlers()
    unwound = []

    def set_up() -> None:
        try:
            os.kill(os.getpid(), number)
            pytest.fail("the signal did nothing")
        finally:
            unwound.append(handlers())

    with pytest.raises(Interrupted) as raised, Ending():
        set_up()
    assert raised.value.number == number
    assert unwound == [AT_ONCE]
    assert handlers() == before


def test_second_signal_does_what_it_did_before() -> None:
    seen: list[int] = []

    def earlier(number: int, frame: object) -> None:
        seen.append(number)

    before = signal.signal(signal.SIGTERM, earlier)
    try:
        stopped: list[bool] = []
        with Ending(lambda: stopped.append(True)):
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stopped, seen) == ([True], [])
            os.kill(os.getpid(), signal.SIGTERM)
            assert (stopped, seen) == ([True], [signal.SIGTERM])
        assert signal.getsignal(signal.SIGTERM) is earlier
    finally:
        signal.signal(signal.SIGTERM, before)


def test_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Ending(lambda: pytest.fail("it was not ignored")):
            os.kill(os.getpid(), signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_leaves_signals_alone() -> None:
    before = handlers()
    seen = []

    def work() -> None:
        with Ending(lambda: None):
            seen.append(handlers())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [before]


def test_signal_that_asks_for_something_is_heard_each_time_and_only_meanwhile() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    heard = []
    with calling({signal.SIGUSR1: lambda: heard.append(1)}):
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert heard == [1, 1]
    assert signal.getsignal(signal.SIGUSR1) is before


def test_what_is_forgotten_leaves_no_handler_behind() -> None:
    before = handlers()
    forget = before_the_end(lambda: None, handle=True)
    assert handlers() != before
    another = before_the_end(lambda: None, handle=True)
    forget()
    assert handlers() != before
    another()
    another()
    assert handlers() == before


def python(program: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own, as a shell starts it in the foreground."""
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False, **options
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("taken_over", [False, True])
def test_second_signal_does_first_what_must_be_done(number: int, taken_over: bool) -> None:
    done = python(
        "import os, signal\n"
        "from uspcap.signals import Ending, before_the_end, end_at_once\n"
        + ("end_at_once()\n" if taken_over else "")
        + "before_the_end(lambda: print('older', flush=True))\n"
        "before_the_end(lambda: print('newer', flush=True))\n"
        "before_the_end(lambda: 1 / 0)\n"
        "with Ending(lambda: print('asked', flush=True)):\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    print('still there')\n"
    )
    assert done.returncode == -number
    assert done.stdout.splitlines() == ["asked", "newer", "older"]


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize(
    "busy",
    [
        "os.read(reading, 1)",
        "threading.Event().wait()",
        "threading.Thread(target=os.read, args=(reading, 1)).start()",
        "while True:\n    try: time.sleep(1)\n    except BaseException: pass",
    ],
)
def test_a_signal_ends_a_command_wherever_it_is(number: int, busy: str) -> None:
    done = python(
        "import os, signal, threading, time\n"
        "from uspcap.signals import before_the_end, end_at_once\n"
        "end_at_once()\n"
        "reading, writing = os.pipe()\n"
        "before_the_end(lambda: os.write(1, b'done first'))\n"
        f"threading.Timer(0.1, os.kill, (os.getpid(), {int(number)})).start()\n" + busy
    )
    assert done.returncode == -number
    assert done.stdout == "done first"
    name = signal.Signals(number).name
    assert done.stderr == f"uspcap: ended by {name} before it was done: what was not written yet is lost\n"


def test_commands_that_end_in_good_order_give_signals_back() -> None:
    done = python(
        "import os, signal\n"
        "from uspcap.signals import Ending, end_at_once\n"
        "end_at_once()\n"
        "for _ in range(20):\n"
        "    with Ending(lambda: print('asked', flush=True)):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.pause()\n"
    )
    assert done.returncode == -signal.SIGINT
    assert done.stdout == "asked\n" * 20
    assert done.stderr.startswith("uspcap: ended by SIGINT")


@pytest.mark.parametrize("number", ENDING)
def test_sighup_ends_no_process_that_ends_in_good_order(number: int) -> None:
    done = python(
        "import os, signal, time\n"
        "from uspcap.signals import Ending, end_at_once\n"
        "end_at_once()\n"
        f"with Ending(lambda: None): os.kill(os.getpid(), {int(number)})\n"
        "os.kill(os.getpid(), signal.SIGHUP)\n"
        "time.sleep(0.2)\n"
        "print('ended')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_a_program_started_after_a_signal_ignores_none() -> None:
    done = python(
        "import os, signal, subprocess\n"
        "from uspcap.signals import Ending, end_at_once\n"
        "end_at_once()\n"
        "with Ending(lambda: None):\n"
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        "    subprocess.run(['grep', '-E', 'Sig(Ign|Blk)', '/proc/self/status'], process_group=0)\n"
        "subprocess.run(['grep', 'SigIgn', '/proc/self/status'], process_group=0)\n"
    )
    assert [int(line.split()[1], 16) & 1 for line in done.stdout.splitlines()] == [0, 0, 0]


@pytest.mark.parametrize("number", ENDING)
def test_a_command_that_was_unwound_ends_by_the_signal(number: int) -> None:
    done = python(
        "import os, signal\n"
        "from uspcap.signals import Ending, Interrupted, end_at_once, end_by\n"
        "end_at_once()\n"
        "try:\n"
        f"    with Ending(): os.kill(os.getpid(), {int(number)})\n"
        "except Interrupted as interruption:\n"
        "    end_by(interruption.number, 'why')\n"
    )
    assert (done.returncode, done.stderr) == (-number, "uspcap: why\n")


@pytest.mark.parametrize("number", ENDING)
def test_signal_ignored_at_the_start_ends_nothing(number: int) -> None:
    done = python(
        "import os, signal\n"
        f"signal.signal({int(number)}, signal.SIG_IGN)\n"
        "from uspcap.signals import end_at_once\n"
        "end_at_once()\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "print('still there')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "still there\n", "")


def test_without_a_thread_to_wait_the_kernel_ends_the_process() -> None:
    done = python(
        "import os, signal, threading\n"
        "def refuse(self):\n"
        '    raise RuntimeError("can\'t start new thread")\n'
        "threading.Thread.start = refuse\n"
        "from uspcap.signals import end_at_once\n"
        "end_at_once()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "print('still there')\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_ending_without_anyone_to_read_the_sentence_is_the_same() -> None:
    done = python(
        "import os, signal\n"
        "from uspcap.signals import end_at_once\n"
        "os.close(2)\n"
        "end_at_once()\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "signal.pause()\n"
    )
    assert done.returncode == -signal.SIGINT
