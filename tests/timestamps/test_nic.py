"""Switching a simulated driver's timestamping on and back, and a real driver's refusal."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.namespaces import Namespace
from support.nic_kernel import ALL, NONE, PTP_V2_EVENT, RAW_HARDWARE, RECEIVE_HARDWARE, SOME, NicKernel

from uspcap.errors import CaptureError, PermissionDenied
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.nic import SwitchedOnTimestamping, TimestampingAbilities, TimestampingSetting, filter_name


def switched_on(kernel: NicKernel) -> SwitchedOnTimestamping:
    switched = SwitchedOnTimestamping("x0", kernel)
    switched.switch_on()
    return switched


def test_abilities_are_those_that_the_driver_reports() -> None:
    assert TimestampingAbilities.ask("x0", NicKernel()) == TimestampingAbilities(True, 3, 0b11)
    assert TimestampingAbilities.ask("x0", NicKernel(flags=RAW_HARDWARE)) == TimestampingAbilities(False, 3, 0b11)
    assert TimestampingAbilities.ask("x0", NicKernel(flags=RECEIVE_HARDWARE, clock_index=-1)) == TimestampingAbilities(
        True, -1, 3
    )


@pytest.mark.parametrize(
    ("abilities", "reason"),
    [
        (TimestampingAbilities(True, 0, 0b11), ""),
        (TimestampingAbilities(False, 0, 0b11), "timestamps no received frames in hardware"),
        (TimestampingAbilities(True, 0, 1 << NONE | 1 << PTP_V2_EVENT), "only those of ptpv2-event"),
        (TimestampingAbilities(True, 0, 0), "only those of no filter"),
        (TimestampingAbilities(True, -1, 0b11), "no clock that can be read"),
    ],
)
def test_what_a_nic_lacks_is_said(abilities: TimestampingAbilities, reason: str) -> None:
    assert (reason in abilities.refusal("x0")) if reason else not abilities.refusal("x0")


def test_timestamping_is_switched_on_announced_and_put_back() -> None:
    kernel = NicKernel(setting=(0, 1, PTP_V2_EVENT))
    switched = switched_on(kernel)
    assert kernel.setting == (0, 1, ALL)
    assert "x0 receives was switched from ptpv2-event to all" in switched.announcement
    switched.restore()
    assert kernel.setting == (0, 1, PTP_V2_EVENT)
    switched.restore()
    assert kernel.settings_asked_for == [(0, 1, ALL), (0, 1, PTP_V2_EVENT)]


def test_what_is_on_already_is_left_alone() -> None:
    kernel = NicKernel(setting=(0, 1, ALL))
    switched = switched_on(kernel)
    assert not switched.announcement
    switched.restore()
    assert kernel.settings_asked_for == []


@pytest.mark.parametrize("obtained", [SOME, PTP_V2_EVENT, NONE, 99])
def test_driver_that_sets_another_filter_is_reported_and_its_setting_put_back(obtained: int) -> None:
    kernel = NicKernel(widens={ALL: obtained}, setting=(0, 0, 13))
    with pytest.raises(
        CaptureError, match=f"x0 was asked to timestamp every frame and timestamps {filter_name(obtained)}"
    ):
        switched_on(kernel)
    assert kernel.setting == (0, 0, 13)


def test_setting_that_another_process_changed_is_not_touched() -> None:
    kernel = NicKernel()
    switched = switched_on(kernel)
    kernel.setting = (0, 0, PTP_V2_EVENT)
    switched.restore()
    assert kernel.setting == (0, 0, PTP_V2_EVENT)


@pytest.mark.parametrize(
    ("refusal", "kind", "sentence"),
    [
        (errno.ERANGE, CaptureError, "refuses to timestamp every frame"),
        (errno.EPERM, PermissionDenied, "cannot switch on hardware timestamping of x0: "),
    ],
)
def test_driver_that_refuses_leaves_nothing_changed(refusal: int, kind: type[Exception], sentence: str) -> None:
    kernel = NicKernel(refuses_setting=refusal)
    with pytest.raises(kind, match=sentence):
        switched_on(kernel)
    assert kernel.setting == (0, 1, NONE)


def test_driver_that_does_not_tell_its_setting_is_not_asked_to_change_it() -> None:
    kernel = NicKernel(refuses_reading=errno.EOPNOTSUPP)
    with pytest.raises(CaptureError, match="could not be restored"):
        switched_on(kernel)
    assert kernel.settings_asked_for == []


def test_setting_that_cannot_be_put_back_is_reported_with_the_command() -> None:
    kernel = NicKernel(setting=(0, 1, PTP_V2_EVENT))
    switched = switched_on(kernel)
    kernel.refuses_setting = errno.EIO
    with pytest.raises(CaptureError, match="'hwstamp_ctl -i x0 -r 12 -t 1'"):
        switched.restore()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("interrupted_at", [1, 2])
def test_interruption_in_the_middle_still_puts_the_setting_back(interrupted_at: int) -> None:
    class Interrupted(NicKernel):
        calls_left = interrupted_at

        def about_interface(self, name: str, request: int, payload: bytearray) -> None:
            super().about_interface(name, request, payload)
            self.calls_left -= request != 0x8946
            if self.calls_left == -1:
                raise KeyboardInterrupt

    kernel = Interrupted()
    switched = SwitchedOnTimestamping("x0", kernel)
    with pytest.raises(KeyboardInterrupt):
        switched.switch_on()
    assert kernel.setting == (0, 1, ALL)
    switched.restore()
    assert kernel.setting == (0, 1, NONE)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_setting_of_an_interface_that_is_gone_is_gone_too() -> None:
    kernel = NicKernel()
    switched = switched_on(kernel)
    kernel.refuses_reading = errno.ENODEV
    switched.restore()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_that_ends_the_process_puts_the_setting_back_first(number: int) -> None:
    program = (
        "import os, signal\n"
        "from support.nic_kernel import NicKernel\n"
        "from uspcap.timestamps.nic import SwitchedOnTimestamping\n"
        "class Telling(NicKernel):\n"
        "    def about_interface(self, name, request, payload):\n"
        "        super().about_interface(name, request, payload)\n"
        "        os.write(1, f'{self.setting}\\n'.encode())\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "SwitchedOnTimestamping('x0', Telling()).switch_on()\n"
        "SwitchedOnTimestamping('y0', Telling(setting=(0, 0, 12))).switch_on()\n"
        f"os.kill(os.getpid(), {int(number)})\n"
        "os.write(1, b'still there')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -number, done.stderr
    said = done.stdout.splitlines()
    assert {"(0, 1, 1)", "(0, 0, 1)"} < set(said)
    assert said[-1] == "(0, 1, 0)"
    assert "(0, 0, 12)" in said[-3:]
    assert "still there" not in said


def test_handler_of_the_process_is_left_alone() -> None:
    def handler(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, handler)
    try:
        switched = switched_on(NicKernel())
        assert signal.getsignal(signal.SIGTERM) is handler
        switched.restore()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_kernel_answers_about_an_interface_without_a_clock(make_namespace: Callable[[], Namespace]) -> None:
    """The real ioctls, on a real driver: veth has neither hardware timestamps nor a clock."""
    here, there = make_namespace(), make_namespace()
    here.add_veth("v0", there, "v1")
    with here.entered():
        calls = KernelCalls()
    # Asked from another namespace: the object keeps to the one that it was made in.
    abilities = TimestampingAbilities.ask("v0", calls)
    assert not abilities.receives_in_hardware
    assert abilities.clock_index == -1
    payload = bytearray(44)
    payload[0] = 0x41
    calls.about_interface("v0", 0x8946, payload)
    assert any(payload[4:8])  # veth timestamps in software, and says so.
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        TimestampingSetting.read("v0", calls)
    with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
        TimestampingSetting(0, 0, ALL).write("v0", calls)
    with pytest.raises(CaptureError, match="does not report how it timestamps"):
        SwitchedOnTimestamping("v0", calls).switch_on()
    assert TimestampingAbilities.ask("nowhere0", calls) == TimestampingAbilities(False, -1, 0)
    calls.close()
