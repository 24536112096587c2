"""Busy polling: the reader drives the driver's receive queue itself, rather than wait for interrupts.

Two things belong to it. The socket says that it polls (SO_PREFER_BUSY_POLL and its like); and the interface holds its
interrupts back while somebody polls (napi_defer_hard_irqs, gro_flush_timeout), which concerns everything that is
received there and outlives the process. So a small process of its own watches over these two settings: should this
one be killed, it puts them back.

References
----------
Documentation/networking/napi.rst; Documentation/ABI/testing/sysfs-class-net.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uspcap.backends.network_interface import NetworkInterface
from uspcap.capabilities import af_xdp_needs, explain_missing
from uspcap.errors import MissingFeature, PermissionDenied
from uspcap.system_errors import reason

BUDGET_FRAMES: Final = 64
"""Frames that one poll may take; the kernel's own default for sockets is 8."""

# asm-generic/socket.h.
_SO_BUSY_POLL: Final = 46
_SO_INCOMING_NAPI_ID: Final = 56
_SO_PREFER_BUSY_POLL: Final = 69
_SO_BUSY_POLL_BUDGET: Final = 70

_SETTINGS: Final = {"napi_defer_hard_irqs": 2, "gro_flush_timeout": 200_000}
"""As napi.rst suggests: after two polls that find nothing, or 200 us without one, interrupts are back."""

_SYSFS: Final = Path("/sys/class/net")

_WATCH: Final = """
read -r line && exit
while [ $# -gt 0 ]; do
    [ "$(cat "$1")" = "$2" ] && echo "$3" >"$1"
    shift 3
done
"""
"""For /bin/sh: wait for a line; where the pipe ends without one, put back what is still as it was set."""


def poll_busily(sock: socket.socket, duration_us: int, interface: NetworkInterface) -> None:
    """Let a bound socket drive its receive queue's driver when it is read.

    Raises
    ------
    PermissionDenied
        CAP_NET_ADMIN is missing.
    MissingFeature
        The kernel is older than Linux 5.11.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_PREFER_BUSY_POLL, 1)
        sock.setsockopt(socket.SOL_SOCKET, _SO_BUSY_POLL, duration_us)
        sock.setsockopt(socket.SOL_SOCKET, _SO_BUSY_POLL_BUDGET, BUDGET_FRAMES)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise PermissionDenied(
                f"cannot busy-poll {interface.name}: {explain_missing(['CAP_NET_ADMIN'], af_xdp_needs())}",
                errno.EPERM,
            ) from None
        raise MissingFeature(
            f"this kernel cannot busy-poll {interface.name} ({error.strerror}), which needs Linux 5.11: leave "
            "--busy-poll out"
        ) from None


def napi_id(sock: socket.socket) -> int:
    """Return which of the driver's queues a socket's last frame came through; 0 while none did that can be polled."""
    return sock.getsockopt(socket.SOL_SOCKET, _SO_INCOMING_NAPI_ID)


@dataclass(frozen=True, slots=True)
class _Setting:
    """One file in sysfs that was changed."""

    path: Path
    before: int
    now: int

    def restore(self) -> bool:
        """Put it back, unless somebody else has changed it since or the interface is gone; False where it may not."""
        try:
            if int(self.path.read_text()) == self.now:
                self.path.write_text(f"{self.before}\n")
        except PermissionError:
            return False
        except (OSError, ValueError):
            pass
        return True


class DeferredInterrupts:
    """Interrupts of an interface held back while it is polled, until `close` or the end of this process.

    Parameters
    ----------
    interface : NetworkInterface

    Attributes
    ----------
    remarks : tuple of str
        What was changed, or why it was not: without it, polling works beside interrupts.
    """

    def __init__(self, interface: NetworkInterface) -> None:
        self._changed: list[_Setting] = []
        self._watcher: subprocess.Popen[bytes] | None = None
        self.remarks: tuple[str, ...] = ()
        directory = _SYSFS / interface.name
        try:
            # Under the same name, another network namespace's sysfs has another interface.
            if int((directory / "ifindex").read_text()) != interface.index:
                raise FileNotFoundError(errno.ENOENT, "/sys is that of another network namespace")
            wanted = []
            for name, value in _SETTINGS.items():
                before = int((directory / name).read_text())
                if before < value:
                    wanted.append(_Setting(directory / name, before, value))
            if wanted:
                self._watch(wanted)
            for setting in wanted:
                setting.path.write_text(f"{setting.now}\n")
                self._changed.append(setting)
        except (OSError, ValueError) as error:
            self.close()
            self.remarks = (
                f"interrupts of {interface.name} are not held back while it is polled ({reason(error)}): as root, "
                f"'{'; '.join(f'echo {value} > {directory / name}' for name, value in _SETTINGS.items())}'",
            )
            return
        except BaseException:
            self.close()
            raise
        if self._changed:
            changes = " and ".join(
                f"{setting.path.name} from {setting.before} to {setting.now}" for setting in self._changed
            )
            self.remarks = (f"{interface.name}: {changes}, until the end of the capture",)

    def close(self) -> None:
        """Put back what was changed; may be called again.

        Where privileges were given up meanwhile, the process that watches still has them and does it.
        """
        restored = [setting.restore() for setting in self._changed]
        self._changed.clear()
        if self._watcher is not None:
            assert self._watcher.stdin is not None
            with contextlib.suppress(BrokenPipeError):  # where somebody has ended it
                if all(restored):
                    self._watcher.stdin.write(b"done\n")
                self._watcher.stdin.close()
            self._watcher.wait()
            self._watcher = None

    def _watch(self, settings: list[_Setting]) -> None:
        """Start the process that restores the settings should this one be killed."""
        words = [str(word) for setting in settings for word in (setting.path, setting.now, setting.before)]
        # In a session of its own, so that Ctrl-C and the like do not reach it.
        self._watcher = subprocess.Popen(
            ["/bin/sh", "-c", _WATCH, "sh", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
