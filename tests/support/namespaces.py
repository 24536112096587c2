"""Network namespaces with veth pairs, made by tests and removed whatever happens.

All traffic of the tests stays in them. Names carry the process id; what a killed run left behind is
removed by the next one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PREFIX = "uspcap-test-"
CLONE_NEWNET = 0x40000000  # linux/sched.h

_counter = itertools.count(1)
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """One network namespace, with loopback up and IPv6 off so that nothing speaks unasked."""

    def __init__(self) -> None:
        self.name = f"{PREFIX}{os.getpid()}-{next(_counter)}"
        _ip("netns", "add", self.name)
        self._closed = False
        atexit.register(self.close)
        with self.entered():
            for scope in ("all", "default"):
                setting = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
                if setting.exists():
                    setting.write_text("1")
        self.ip("link", "set", "lo", "up")

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def ip(self, *words: str) -> str:
        """Run ip(8) in the namespace and return what it prints."""
        return _ip("-n", self.name, *words)

    def command(self, *words: str) -> list[str]:
        """Return the command line that runs a command in the namespace."""
        return ["ip", "netns", "exec", self.name, *words]

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Move the calling thread into the namespace, and back at the end."""
        home = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            there = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _setns(there)
            finally:
                os.close(there)
            try:
                yield
            finally:
                _setns(home)
        finally:
            os.close(home)

    def add_veth(self, name: str, peer: Namespace, peer_name: str, *, queues: int = 1, mtu: int = 1500) -> None:
        """Make a veth pair from here to `peer`, both ends up, without offloads that alter frames."""
        self.ip(
            *("link", "add", "name", name, "mtu", str(mtu), "numrxqueues", str(queues)),
            *("numtxqueues", str(queues), "type", "veth", "peer", "name", peer_name, "mtu", str(mtu)),
            *("numrxqueues", str(queues), "numtxqueues", str(queues), "netns", peer.name),
        )
        self.ip("link", "set", name, "up")
        peer.ip("link", "set", peer_name, "up")

    def set_queues(self, name: str, *, rx: int | None = None, tx: int | None = None) -> None:
        """Have an interface use so many queues, by ethtool(8)."""
        if shutil.which("ethtool") is None:
            pytest.skip("no ethtool to change queues with: install it")
        words = [*(("rx", str(rx)) if rx else ()), *(("tx", str(tx)) if tx else ())]
        done = subprocess.run(self.command("ethtool", "-L", name, *words), capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"ethtool -L {name} {' '.join(words)}: {done.stderr.strip()}")

    def close(self) -> None:
        """Remove the namespace and all interfaces in it."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self.close)
            subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)


def _ip(*words: str) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _setns(fd: int) -> None:
    if _libc.setns(fd, CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def remove_left_over() -> None:
    """Remove the namespaces of test runs whose process is gone."""
    directory = Path("/run/netns")
    if not directory.is_dir():
        return
    for path in directory.glob(f"{PREFIX}*-*"):
        owner = path.name.removeprefix(PREFIX).split("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            subprocess.run(["ip", "netns", "delete", path.name], capture_output=True, check=False)


def why_not() -> str:
    """Return why no namespaces can be made here; empty where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        Namespace().close()
    except OSError as error:
        return f"network namespaces cannot be made here: {error}"
    return ""


MakeNamespace = Callable[[], Namespace]


@pytest.fixture(scope="session")
def _namespaces_possible() -> None:
    reason = why_not()
    if reason:
        pytest.skip(reason)
    remove_left_over()


@pytest.fixture
def make_namespace(_namespaces_possible: None) -> Iterator[MakeNamespace]:
    """Give a function that makes namespaces; they are removed after the test."""
    made: list[Namespace] = []

    def make() -> Namespace:
        made.append(Namespace())
        return made[-1]

    yield make
    for namespace in made:
        namespace.close()
