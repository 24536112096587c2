"""What drivers tell, against ethtool and ip, on veth pairs in namespaces of the test's own."""

import json
import re
import shutil
import socket
import subprocess

import pytest
from support.veth_pairs import HERE, MakePair, Pair

from uspcap.doctor.driver import FEATURES, Feature, KernelDriver
from uspcap.doctor.namespace import NetworkNamespace

needs_ethtool = pytest.mark.skipif(shutil.which("ethtool") is None, reason="needs ethtool")


def ethtool(pair: Pair, *words: str) -> str:
    done = subprocess.run(pair.here.command("ethtool", *words), capture_output=True, text=True, check=False)
    return done.stdout


def test_link_is_what_ip_shows(make_pair: MakePair) -> None:
    pair = make_pair(mtu=4000)
    (shown,) = json.loads(pair.here.ip("-j", "-d", "link", "show", "dev", HERE))
    with pair.here.entered():
        driver = KernelDriver()
        link = driver.link(HERE)
        assert sorted(link.name for link in driver.links()) == [HERE, "lo"]
        assert driver.link(HERE) in driver.links()
        assert driver.link("none0") is None
    assert link is not None
    assert (link.index, link.mtu, link.up) == (shown["ifindex"], shown["mtu"], "UP" in shown["flags"])
    assert (link.kind, link.bus, link.device) == ("veth", "", "")


@needs_ethtool
def test_features_and_queues_are_those_of_ethtool(make_pair: MakePair) -> None:
    pair = make_pair(queues=3)
    listed = ethtool(pair, "-k", HERE)
    shown = {name: state == "on" for name, state in re.findall(r"^\s*([\w-]+): (on|off)", listed, re.MULTILINE)}
    long_names = {"gro": "generic-receive-offload", "lro": "large-receive-offload", "rxvlan": "rx-vlan-offload"}
    channels = re.findall(r"^RX:\s+(\d+)", ethtool(pair, "-l", HERE), re.MULTILINE)
    with pair.here.entered():
        driver = KernelDriver()
        features = driver.features(HERE)
        queues = driver.queues(HERE)
        assert driver.rings(HERE) is None
    fixed = {name for name, state in re.findall(r"^\s*([\w-]+): (?:on|off) \[(fixed)\]", listed, re.MULTILINE)}
    assert features == {
        name: Feature(shown[long_names.get(name, "rx-gro-hw")], long_names.get(name, "rx-gro-hw") in fixed)
        for name in FEATURES
    }
    assert features["lro"].fixed
    assert not features["gro"].fixed
    assert queues == int(channels[-1])


@needs_ethtool
def test_feature_is_switched_for_ethtool_too(pair: Pair) -> None:
    with pair.here.entered():
        driver = KernelDriver()
        for on in (True, False, True):
            driver.set_feature(HERE, "gro", on)
            assert driver.features(HERE)["gro"].on is on
            word = "on" if on else "off"
            assert f"generic-receive-offload: {word}" in ethtool(pair, "-k", HERE)


def test_xdp_abilities_of_veth_are_reported_where_the_kernel_does(pair: Pair) -> None:
    with pair.here.entered():
        abilities = KernelDriver().xdp(HERE)
        loopback = KernelDriver().xdp("lo")
    if abilities is None:
        pytest.skip("this machine lacks the netdev family of generic netlink (Linux 6.3)")
    assert abilities.actions & 0b11 == 0b11
    assert not abilities.actions & 1 << 3  # zero copy
    assert loopback is not None
    assert loopback.actions == 0


def test_driver_that_knows_no_setting_refuses_it(pair: Pair) -> None:
    with pair.here.entered(), pytest.raises(OSError, match="Operation not supported"):
        KernelDriver().set_ring(HERE, 512)


@needs_ethtool
def test_feature_that_is_fixed_is_refused_and_the_wish_is_not_kept(pair: Pair) -> None:
    before = ethtool(pair, "-k", HERE)
    with pair.here.entered(), pytest.raises(OSError, match="Operation not supported"):
        KernelDriver().set_feature(HERE, "lro", True)
    after = ethtool(pair, "-k", HERE)
    assert after == before
    assert "requested" not in after


def test_interface_that_is_gone_is_said_to_be(pair: Pair) -> None:
    with pair.here.entered():
        driver = KernelDriver()
        index = socket.if_nametoindex(HERE)
        assert driver.name_of(index) == HERE
        pair.here.ip("link", "delete", HERE)
        assert driver.name_of(index) is None
        assert driver.link(HERE) is None
        assert driver.features(HERE) == {}
        assert driver.xdp(HERE) is None
        with pytest.raises(OSError, match="No such device"):
            driver.set_feature(HERE, "gro", False)


def test_namespaces_are_distinguished_by_inode_and_cookie(pair: Pair) -> None:
    outside = NetworkNamespace.current()
    with pair.here.entered():
        here = NetworkNamespace.current()
        shown = subprocess.run(["readlink", "/proc/thread-self/ns/net"], capture_output=True, text=True, check=True)
        assert str(here) == shown.stdout.strip()
        assert here.is_same_as(NetworkNamespace.current())
    with pair.there.entered():
        there = NetworkNamespace.current()
    assert len({outside, here, there}) == 3
    assert not here.is_same_as(there)
    assert not here.is_same_as(outside)
