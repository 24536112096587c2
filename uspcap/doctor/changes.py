"""Settings that can be changed: what a change is, and reading and writing the setting that it is about."""

from __future__ import annotations

import contextlib
import errno
import re
from dataclasses import dataclass
from typing import Any, Final

from uspcap.capabilities import explain_missing
from uspcap.doctor.driver import FEATURES, Driver
from uspcap.doctor.host_files import HostFiles
from uspcap.errors import CaptureError
from uspcap.system_errors import error_text

_FILES: Final = re.compile(
    r"/proc/sys/net/core/bpf_jit_enable|/proc/sys/vm/nr_hugepages"
    r"|/sys/devices/system/clocksource/clocksource0/current_clocksource"
    r"|/sys/devices/system/cpu/cpu\d{1,6}/(cpuidle/state\d{1,6}/disable|cpufreq/scaling_governor)",
    re.ASCII,
)
"""The only files that a change may be about: a record is read as root, and names what is written."""

_WORD: Final = re.compile(r"[\x21-\x7e]{1,64}")
_NUMBER: Final = re.compile(r"[0-9]{1,10}")
_SWITCH: Final = re.compile(r"on|off")


@dataclass(frozen=True, slots=True)
class Change:
    """One setting.

    Attributes
    ----------
    kind : {'file', 'feature', 'ring', 'coalescing'}
        A file of /proc or /sys; a feature, the receive ring's size or interrupt coalescing of an interface.
    where : str
        Path, or interface.
    what : str
        Of an interface: which feature (`gro`), which ring (`rx`), which value (`rx-usecs`, `adaptive-rx`).
    before, after : str
        Values; features and `adaptive-rx` are `on` or `off`.
    """

    kind: str
    where: str
    what: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.before} → {self.after}"

    @property
    def setting(self) -> str:
        """What it is about, in words."""
        return self.where if self.kind == "file" else f"{self.what} of {self.where}"

    @property
    def in_namespace(self) -> bool:
        """Whether the setting belongs to a network namespace; others are the host's."""
        return self.kind != "file" or self.where.startswith("/proc/sys/net/")

    def flaw(self) -> str:
        """Return why this is no change that the doctor makes; empty where it is one."""
        if self.kind == "file":
            known, values = not self.what and _FILES.fullmatch(self.where) is not None, _WORD
        elif self.kind == "feature":
            known, values = self.what in FEATURES, _SWITCH
        elif self.kind == "ring":
            known, values = self.what == "rx", _NUMBER
        elif self.kind == "coalescing":
            known = self.what in ("rx-usecs", "adaptive-rx")
            values = _NUMBER if self.what == "rx-usecs" else _SWITCH
        else:
            return f"there is no kind {self.kind!r} of setting"
        if not known:
            return f"{self.setting!r} is not a setting that the doctor changes"
        for value in (self.before, self.after):
            if not values.fullmatch(value):
                return f"{self.setting!r} cannot have the value {value!r}"
        return ""


class Settings:
    """Reads and writes what changes are about.

    Parameters
    ----------
    files : HostFiles
    driver : Driver
    """

    def __init__(self, files: HostFiles, driver: Driver) -> None:
        self._files = files
        self._driver = driver

    def value(self, change: Change) -> str | None:
        """Return what a setting is now; None where it cannot be read, whatever the reason."""
        # Answers of drivers are taken apart by others' code, which may raise anything over one that it does not know.
        with contextlib.suppress(Exception):
            return self._value(change)
        return None

    def _value(self, change: Change) -> str | None:
        where, what = change.where, change.what
        if change.kind == "file":
            return self._files.text(where)
        if change.kind == "feature":
            feature = self._driver.features(where).get(what)
            return None if feature is None else _switch(feature.on)
        if change.kind == "ring":
            rings = self._driver.rings(where)
            return None if rings is None else str(rings.current)
        coalescing = self._driver.coalescing(where)
        if coalescing is None:
            return None
        return _switch(coalescing.adaptive) if what == "adaptive-rx" else str(coalescing.microseconds)

    def set(self, change: Change) -> str:
        """Give a setting its value `after`.

        Returns
        -------
        str
            The value that it has now, which need not be the one that was asked for.

        Raises
        ------
        CaptureError
            The kernel or the driver refuses.
        """
        where, value = change.where, change.after
        try:
            if change.kind == "file":
                self._files.write(where, value)
            elif change.kind == "feature":
                self._driver.set_feature(where, change.what, value == "on")
            elif change.kind == "ring":
                self._driver.set_ring(where, int(value))
            else:
                self._driver.set_coalescing(where, **_coalescing_argument(change))
        except Exception as error:
            raise CaptureError(_why_refused(change, error)) from error
        obtained = self.value(change)
        if obtained is None:
            raise CaptureError(f"{change.setting} cannot be read any more, so whether it is {value} now is not known")
        return obtained


def _switch(on: bool) -> str:
    return "on" if on else "off"


def _coalescing_argument(change: Change) -> dict[str, Any]:
    if change.what == "adaptive-rx":
        return {"adaptive": change.after == "on"}
    return {"microseconds": int(change.after)}


def _why_refused(change: Change, error: Exception) -> str:
    """Return why the kernel or a driver refused a change, and what to do."""
    number = error.errno or 0 if isinstance(error, OSError) else 0
    said = error_text(number) or f"{type(error).__name__}{f' ({error})' if str(error) else ''}"
    if number in (errno.EPERM, errno.EACCES) and change.kind != "file":
        then = explain_missing(["CAP_NET_ADMIN"])
    elif number in (errno.EPERM, errno.EACCES):
        then = "run as root of the host"
    elif number == errno.EROFS:
        then = "it is mounted read-only here, as in containers: change it on the host"
    elif number == errno.EOPNOTSUPP:
        then = "the driver does not change this; leave it as it is"
    elif number in (errno.EINVAL, errno.ERANGE):
        then = "it does not take this value; leave it as it is"
    elif number in (errno.ENODEV, errno.ENOENT):
        then = "it no longer exists"
    else:
        then = "leave it as it is, or look into the kernel's log (dmesg)"
    return f"{change.setting} cannot be {change.after}: {said}; {then}"
