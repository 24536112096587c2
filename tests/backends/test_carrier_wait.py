"""Waiting for a link that a driver has taken down."""

from __future__ import annotations

import time
from typing import Any

import pytest
from support.veth_pairs import HERE, Pair

from uspcap.backends import carrier_wait
from uspcap.backends.carrier_wait import CarrierWait
from uspcap.backends.driver_facts import driver_of
from uspcap.backends.network_interface import NetworkInterface


class Interface:
    """One whose carrier goes through these states, a look each, and stays in the last."""

    def __init__(self, *carrier: bool, exists: bool = True) -> None:
        self._carrier = list(carrier)
        self.exists = exists
        self.looks = 0

    def has_carrier(self) -> bool:
        self.looks += 1
        return self._carrier.pop(0) if len(self._carrier) > 1 else self._carrier[0]


def watch(*carrier: bool, exists: bool = True) -> CarrierWait:
    interface: Any = Interface(*carrier, exists=exists)
    return CarrierWait(interface)


def test_link_that_stays_was_not_away() -> None:
    assert watch(True).wait() == 0


def test_link_that_was_not_there_before_is_not_waited_for() -> None:
    assert watch(False).wait() == 0


def test_wait_for_a_link_that_comes_back_and_was_away() -> None:
    watched = watch(True, False, False, False, True)
    before = time.monotonic()
    away_s = watched.wait()
    assert 0 < away_s <= time.monotonic() - before + 1


def test_link_that_never_comes_back_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier_wait, "PATIENCE_S", 0.05)
    assert watch(True, False).wait() >= 0.05


def test_interface_that_is_gone_is_not_waited_for() -> None:
    assert watch(True, False, exists=False).wait() == 0


def test_carrier_and_driver_are_those_that_the_kernel_reports(pair: Pair) -> None:
    with pair.here.entered():
        interface = NetworkInterface.look_up(HERE)
        assert interface.has_carrier()
        assert driver_of(HERE) == "veth"
        pair.there.ip("link", "set", "there0", "down")
        assert not interface.has_carrier()
        pair.here.ip("link", "delete", HERE)
        assert not interface.has_carrier()
        assert driver_of(HERE) == ""
