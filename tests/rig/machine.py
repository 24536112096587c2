"""One run of a guest under QEMU without hardware virtualisation, from a job to its results.

The host's kernel need not be able to run virtual machines, and on the hub no privilege is needed. The guest sees the
host's root read-only: the Python environment in use here is the one in use there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from rig.assembly import Assembly
from rig.guests import Guest

MEMORY_MIB: Final = 3072
CPUS: Final = 2

WITHOUT_OUTPUT_S: Final = 600
"""A guest that reports nothing for so long hangs; a busy machine takes a tenth of that for the longest test."""


class GuestFailed(Exception):
    """A guest did not come to its end; what it last said is in the message."""


class Machine:
    """A running guest.

    Parameters
    ----------
    assembly : Assembly
    guests : sequence of Guest
        All on hubs, or all on taps.
    job : callable
        Given the shared directory, returns the shell script that the guest is to run.
    shell : bool
        The job talks to this terminal.

    Attributes
    ----------
    results : Path
        Directory that the guest sees as /run/rig.
    """

    def __init__(
        self, assembly: Assembly, guests: Sequence[Guest], job: Callable[[Path], str], *, shell: bool = False
    ) -> None:
        self._guests = guests
        self._name = ", ".join(guest.name for guest in guests)
        self._silent_since_s = time.monotonic()
        self.results = Path(tempfile.mkdtemp(prefix="uspcap-rig-"))
        (self.results / "job").write_text(job(self.results))
        shutil.copy(assembly.test_module, self.results / "uspcap_phc.ko")
        self._console = (self.results / "console").open("wb")
        self._namespace = f"uspcap-rig-{os.getpid()}" if any(guest.taps for guest in guests) else None
        if self._namespace is not None:
            _make_taps(self._namespace, guests)
        command = self._command(assembly, shell=shell)
        if self._namespace is not None:
            command = ["ip", "netns", "exec", self._namespace, *command]
        # Not LD_LIBRARY_PATH for ip(8), which would find libraries of another version.
        self._process = subprocess.Popen(
            command,
            stdin=None if shell else subprocess.DEVNULL,
            stdout=None if shell else self._console,
            stderr=None if shell else subprocess.STDOUT,
        )

    def _command(self, assembly: Assembly, *, shell: bool) -> list[str | Path]:
        tools = assembly.host_tools
        arguments = [
            "console=ttyS0",
            "quiet",
            "loglevel=3",
            "panic=-1",
            "net.ifnames=0",
            "mitigations=off",
            "nowatchdog",
        ]
        # On a busy machine the TSC is calibrated wrong, by a factor of several, and with it every wait.
        arguments += ["tsc=unstable", "clocksource=hpet", *(["rig.shell"] if shell else [])]
        share = "security_model=none,multidevs=remap"
        return [
            *("env", f"LD_LIBRARY_PATH={assembly.library_path}", tools / "usr/bin/qemu-system-x86_64"),
            *("-L", tools / "usr/share/qemu", "-L", tools / "usr/share/seabios", "-nodefaults", "-no-user-config"),
            *("-machine", "q35"),
            *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(CPUS), "-m", str(MEMORY_MIB)),
            *("-display", "none", "-serial", "mon:stdio" if shell else "stdio", "-no-reboot"),
            *("-kernel", assembly.kernel, "-initrd", assembly.initramfs, "-append", " ".join(arguments)),
            *_share("host", Path("/"), f"{share},readonly=on"),
            *_share("results", self.results, share),
            *_share("modules", assembly.modules, f"{share},readonly=on"),
            *(word for guest in self._guests for word in guest.machine_options()),
        ]

    def gets_on(self) -> None:
        """Note that the guest has just reported something."""
        self._silent_since_s = time.monotonic()

    def look(self) -> bool:
        """Return whether the guest runs.

        Raises
        ------
        GuestFailed
            It does, and has reported nothing for `WITHOUT_OUTPUT_S`; it is ended then.
        """
        if self._process.poll() is not None:
            return False
        if time.monotonic() - self._silent_since_s > WITHOUT_OUTPUT_S:
            self.kill()
            raise GuestFailed(f"{self._name} reported nothing for {WITHOUT_OUTPUT_S} s\n{self.console_end()}")
        return True

    def wait(self) -> int:
        """Wait for the end of a job, however long it takes, and return its exit status."""
        self._process.wait()
        status = self.results / "status"
        if not status.exists():
            raise GuestFailed(f"{self._name} ended before its job did\n{self.console_end()}")
        return int(status.read_text())

    def console_end(self, lines: int = 30) -> str:
        """Return what the guest said last."""
        said = (self.results / "console").read_text(errors="replace").splitlines()
        return "\n".join(said[-lines:])

    def kill(self) -> None:
        """End the guest at once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the guest and remove what it left."""
        self.kill()
        self._console.close()
        if self._namespace is not None:
            subprocess.run(["ip", "netns", "delete", self._namespace], capture_output=True, check=False)
        if "USPCAP_RIG_KEEP" not in os.environ:
            shutil.rmtree(self.results, ignore_errors=True)


def _share(tag: str, path: Path, options: str) -> list[str]:
    return ["-fsdev", f"local,id={tag},path={path},{options}", "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]


def _make_taps(namespace: str, guests: Sequence[Guest]) -> None:
    """Make a bridge with two taps for each guest in a namespace of their own, where QEMU then runs."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    ip("netns", "add", namespace)
    for guest in guests:
        bridge = f"bridge{guest.number}"
        ip("-n", namespace, "link", "add", bridge, "type", "bridge", "mcast_snooping", "0")
        # Without IPv6's addresses the host puts no frame of its own among the tests'.
        ip("-n", namespace, "link", "set", bridge, "addrgenmode", "none")
        ip("-n", namespace, "link", "set", bridge, "up")
        for tap in guest.tap_names:
            queues = ("multi_queue",) if guest.queues > 1 else ()
            ip("-n", namespace, "tuntap", "add", tap, "mode", "tap", *queues)
            ip("-n", namespace, "link", "set", tap, "addrgenmode", "none", "master", bridge, "up")
