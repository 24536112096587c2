"""The two NICs of a guest: one to capture on, one in a namespace of its own to send from."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from support.namespaces import Namespace

from rig.frames import send
from rig.guests import RECEIVER_MAC, SENDER_MAC, Guest
from rig.job import SHARED

HERE_ADDRESS: Final = "10.9.0.2"
THERE_ADDRESS: Final = "10.9.0.1"

_CARRIER_S: Final = 60


def command(*words: str) -> str:
    """Run a tool and return what it prints; its own words where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Nics:
    """Two NICs on one wire.

    Attributes
    ----------
    here : str
        In the guest's own namespace.
    there : str
        In `far`.
    far : Namespace
    """

    here: str
    there: str
    far: Namespace

    def give_address(self) -> None:
        """Give `here` its address; the sender's is known without asking, so that every frame on the wire is a test's.

        An interface that is set down forgets it.
        """
        command("ip", "addr", "replace", f"{HERE_ADDRESS}/24", "dev", self.here)
        command("ip", "neigh", "replace", THERE_ADDRESS, "lladdr", SENDER_MAC, "dev", self.here, "nud", "permanent")

    def set_mtu(self, mtu: int) -> None:
        """Set the MTU of both, and wait until they are up again."""
        self.far.ip("link", "set", self.there, "mtu", str(mtu))
        command("ip", "link", "set", self.here, "mtu", str(mtu))
        self.wait_for_carrier()

    def wait_for_carrier(self) -> None:
        until_s = time.monotonic() + _CARRIER_S
        while time.monotonic() < until_s:
            shown = [command("ip", "link", "show", self.here), self.far.ip("link", "show", self.there)]
            if all("LOWER_UP" in said for said in shown):
                return
            time.sleep(0.05)
        raise AssertionError(f"no carrier within {_CARRIER_S} s: {shown}")

    def send(self, frames: Sequence[bytes], *, burst: int = 32, pause_s: float = 0.0) -> int:
        """Send frames to `here`, and return how many the kernel took."""
        with self.far.entered():
            return send(self.there, frames, burst=burst, pause_s=pause_s)

    def features(self, **wanted: str) -> None:
        """Set offloads of the NIC under test, as `rxvlan="off"`."""
        for name, value in wanted.items():
            command("ethtool", "-K", self.here, name.replace("_", "-"), value)


@pytest.fixture(scope="session")
def nics(guest: Guest) -> Iterator[Nics]:
    """The guest's NICs, up, with an address each and nothing that speaks unasked."""
    for scope in ("all", "default"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")
    if guest.device:
        there, here = map(_by_address, guest.addresses)
    else:
        command("insmod", str(SHARED / "uspcap_phc.ko"))
        there, here = "phc0", "phc1"
    far = Namespace()
    command("ip", "link", "set", there, "netns", far.name)
    command("ip", "link", "set", here, "address", RECEIVER_MAC)
    far.ip("link", "set", there, "address", SENDER_MAC)
    far.ip("addr", "add", f"{THERE_ADDRESS}/24", "dev", there)
    pair = Nics(here, there, far)
    pair.give_address()
    far.ip("neigh", "add", HERE_ADDRESS, "lladdr", RECEIVER_MAC, "dev", there, "nud", "permanent")
    # A ring that holds what is sent while a busy machine lets the guest wait.
    with contextlib.suppress(OSError):
        command("ethtool", "-G", here, "rx", "4096")
    far.ip("link", "set", there, "up")
    command("ip", "link", "set", here, "up")
    pair.wait_for_carrier()
    yield pair
    command("ip", "addr", "flush", "dev", here)
    command("ip", "link", "set", here, "down")
    far.ip("link", "set", there, "down")
    far.close()


def _by_address(address: str) -> str:
    until_s = time.monotonic() + _CARRIER_S
    while time.monotonic() < until_s:
        for path in Path("/sys/class/net").iterdir():
            if (path / "address").read_text().strip() == address:
                return path.name
        time.sleep(0.1)
    raise AssertionError(f"no interface has the address {address}")
