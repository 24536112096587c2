"""What the kernel says about interfaces, of namespaces of the test's own."""

import pytest
from support.veth_pairs import HERE, MakePair, Pair

from uspcap.backends.network_interface import NetworkInterface, losses_since
from uspcap.errors import CaptureError


def test_facts_are_those_of_the_interface(make_pair: MakePair) -> None:
    pair = make_pair(queues=3, mtu=4000)
    with pair.here.entered():
        found = NetworkInterface.look_up(HERE)
        loopback = NetworkInterface.look_up("lo")
    assert (found.name, found.link_type, found.mtu, found.up, found.queues) == (HERE, 1, 4000, True, 3)
    assert found.most_queues == 3
    assert found.ethernet
    assert loopback.link_type == 1


def test_interface_without_link_layer_is_raw_ip_and_an_unknown_kind_is_refused(pair: Pair) -> None:
    pair.here.ip("tuntap", "add", "mode", "tun", "name", "tun0")
    with pair.here.entered():
        assert NetworkInterface.look_up("tun0").link_type == 101
        assert not NetworkInterface.look_up("tun0").up
        with pytest.raises(CaptureError, match="no interface 'tun1': name one of here0, lo, tun0"):
            NetworkInterface.look_up("tun1")


def test_interface_that_went_away_is_known_to_be_gone(pair: Pair) -> None:
    with pair.here.entered():
        found = NetworkInterface.look_up(HERE)
        assert found.exists
        assert "rx_missed_errors" in found.receive_counters()
        pair.here.ip("link", "delete", HERE)
        assert not found.exists
        assert found.receive_counters() == {}


def test_losses_are_those_since_the_start_and_ambiguous_ones_apart() -> None:
    before = {"rx_missed_errors": 5, "rx_fifo_errors": 1, "rx_dropped": 2, "rx_packets": 7}
    now = {"rx_missed_errors": 8, "rx_fifo_errors": 1, "rx_dropped": 6, "rx_packets": 9}
    lost, remarks = losses_since(before, now)
    assert lost == {"rx_missed_errors": 3}
    assert list(remarks.values()) == [4]
    assert losses_since(before, {}) == ({}, {})


def test_offloads_that_alter_frames_are_reported(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    with pair.here.entered():
        found = NetworkInterface.look_up(HERE)
    features = [("rx-gro", True, True, 0, 1), ("rx-lro", False, True, 0, 2), ("rx-vlan-hw-parse", True, True, 0, 4)]
    monkeypatch.setattr("uspcap.backends.network_interface.ask_driver", lambda name, question: features)
    (behind,) = found.alterations("stack")
    (before,) = found.alterations("driver")
    assert behind == "GRO is on, so frames may be merged ones ('ethtool -K here0 gro off')"
    assert "ethtool -K here0 rxvlan off" in before
    assert found.alterations("skb") == (before, behind)
    features = [("rx-gro", True, True, 0, 1), ("rx-lro", True, True, 0, 2), ("rx-gro-hw", True, True, 0, 3)]
    (before,) = found.alterations("driver")
    assert before.startswith("GRO-HW and LRO are on")
    (behind,) = found.alterations("stack")
    assert behind.endswith("('ethtool -K here0 gro off rx-gro-hw off lro off')")
    monkeypatch.setattr("uspcap.backends.network_interface.ask_driver", lambda name, question: None)
    assert found.alterations("stack") == ()
