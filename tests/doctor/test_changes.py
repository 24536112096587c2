"""What a change may be, and how a refusal is said."""

import errno
import os
from pathlib import Path

import pytest
from pyroute2.ethtool.ioctl import NotSupportedError
from pyroute2.netlink.exceptions import NetlinkError
from support.made_up_hosts import MadeUpDriver, host_files

from uspcap.doctor.changes import Change, Settings
from uspcap.doctor.driver import Feature
from uspcap.errors import CaptureError

GOVERNOR = "/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor"


@pytest.mark.parametrize(
    "change",
    [
        Change("file", GOVERNOR, "", "powersave", "performance"),
        Change("file", "/sys/devices/system/cpu/cpu12/cpuidle/state3/disable", "", "0", "1"),
        Change("file", "/proc/sys/vm/nr_hugepages", "", "0", "32"),
        Change("feature", "eth0", "gro-hw", "on", "off"),
        Change("ring", "$(reboot)", "rx", "512", "4096"),
        Change("coalescing", "eth0", "adaptive-rx", "on", "off"),
    ],
)
def test_changes_of_the_checks_have_no_flaw(change: Change) -> None:
    assert change.flaw() == ""


@pytest.mark.parametrize(
    "change",
    [
        Change("file", "/etc/shadow", "", "a", "b"),
        Change("file", "/sys/devices/system/cpu/cpu0/cpufreq/../../../../../etc/x", "", "a", "b"),
        Change("file", f"{GOVERNOR}\n", "", "a", "b"),
        Change("file", GOVERNOR, "gro", "a", "b"),
        Change("file", GOVERNOR, "", "a", "power save"),
        Change("file", GOVERNOR, "", "", "b"),
        Change("file", GOVERNOR, "", "a", "b" * 65),
        Change("feature", "eth0", "tso", "on", "off"),
        Change("feature", "eth0", "gro", "on", "maybe"),
        Change("ring", "eth0", "tx", "1", "2"),
        Change("ring", "eth0", "rx", "-1", "2"),
        Change("ring", "eth0", "rx", "１", "2"),
        Change("coalescing", "eth0", "rx-usecs", "on", "off"),
        Change("command", "rm", "", "a", "b"),
    ],
)
def test_anything_else_is_refused(change: Change) -> None:
    assert change.flaw()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EPERM, ""), "EPERM"),
        (OSError(errno.EINVAL, ""), "it does not take this value"),
        (OSError(errno.ENODEV, ""), "no longer exists"),
        (OSError(errno.EBUSY, ""), r"EBUSY \(Device or resource busy\); .*dmesg"),
        (NotSupportedError("eth0"), "NotSupportedError"),
        (NetlinkError(errno.EOPNOTSUPP, "no"), "cannot be off"),
    ],
)
def test_refusal_of_any_kind_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    driver = MadeUpDriver(the_features={"gro": Feature(True)})

    def refuse(name: str, feature: str, on: bool) -> None:
        raise error

    monkeypatch.setattr(driver, "set_feature", refuse)
    with pytest.raises(CaptureError, match=said) as caught:
        Settings(host_files(tmp_path, {}), driver).set(Change("feature", "eth0", "gro", "on", "off"))
    assert "\n" not in str(caught.value)


def test_file_that_is_mounted_read_only_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = host_files(tmp_path, {GOVERNOR: "powersave"})

    def refuse(path: str, value: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(files, "write", refuse)
    with pytest.raises(CaptureError, match="mounted read-only here, as in containers"):
        Settings(files, MadeUpDriver()).set(Change("file", GOVERNOR, "", "powersave", "performance"))


def test_setting_that_cannot_be_asked_for_has_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = MadeUpDriver()

    def refuse(name: str) -> None:
        raise NetlinkError(errno.ENODEV, "gone")

    monkeypatch.setattr(driver, "rings", refuse)
    assert Settings(host_files(tmp_path, {}), driver).value(Change("ring", "eth0", "rx", "1", "2")) is None
