"""Two namespaces with a veth pair between them, and what comes and goes there."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from support.namespaces import Namespace

HERE, THERE = "here0", "there0"
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20  # linux/socket.h, linux/if_packet.h


@dataclass
class Pair:
    """Two namespaces and the veth pair between them."""

    here: Namespace
    there: Namespace

    def send(self, *frames: bytes, bypass_queueing: bool = False) -> None:
        """Send frames from `there` to `here`."""
        with self.there.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
            sender.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, int(bypass_queueing))
            sender.bind((THERE, 0))
            for frame in frames:
                sender.send(frame)

    @contextmanager
    def listening(self) -> Iterator[socket.socket]:
        """Give a packet socket that sees what the kernel of `here` gets."""
        with (
            self.here.entered(),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as listener,
        ):
            listener.bind((HERE, 3))
            listener.settimeout(5)
            yield listener


MakePair = Callable[..., Pair]
"""Takes `queues` and `mtu`."""


@pytest.fixture
def make_pair(make_namespace: Callable[[], Namespace]) -> MakePair:
    def make(queues: int = 1, mtu: int = 1500) -> Pair:
        here, there = make_namespace(), make_namespace()
        here.add_veth(HERE, there, THERE, queues=queues, mtu=mtu)
        return Pair(here, there)

    return make


@pytest.fixture
def pair(make_pair: MakePair) -> Pair:
    return make_pair()


def wait_until(condition: Callable[[], bool], timeout_s: float = 10.0) -> bool:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True
