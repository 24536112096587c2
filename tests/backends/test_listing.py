"""The list of interfaces against what was made in a namespace, and what its drivers declare."""

import json
from dataclasses import replace

import jsonschema
import pytest
from support.command_line import invoke
from support.namespaces import Namespace
from support.veth_pairs import HERE, MakePair, Pair

from uspcap.backends.af_xdp.source import AfXdpSource
from uspcap.backends.listing import ListedInterface, Listing, list_interfaces
from uspcap.network.xdp_features import XdpFeatures
from uspcap.report.interface_list import listing_page, load_schema
from uspcap.report.renderers.text import as_text
from uspcap.timestamps.nic import TimestampingAbilities

NIC = ListedInterface(
    index=7,
    name="eth0",
    other_names=("x" * 127,),
    state="up",
    kind="",
    link_type="ETHERNET",
    queues=8,
    most_queues=64,
    xdp="zero_copy",
    hardware_timestamps="every frame",
    xdp_timestamps=True,
    program="id 12 balancer",
    uses=("eth0 is a port of bridge br0, which has the address 10.0.0.1/24 and carries the default route",),
)


def listed(namespace: Namespace) -> dict[str, ListedInterface]:
    with namespace.entered():
        return {one.name: one for one in list_interfaces().interfaces}


def rendered(*interfaces: ListedInterface, unseen: str = "", width: int = 80) -> str:
    return as_text(listing_page(Listing(interfaces, unseen)), width)


def test_interfaces_are_those_of_the_namespace_by_index(make_pair: MakePair) -> None:
    pair = make_pair(queues=4)
    pair.here.ip("link", "add", "br0", "type", "bridge")
    pair.here.ip("link", "property", "add", "dev", HERE, "altname", "blue")
    pair.here.ip("link", "set", HERE, "master", "br0")
    pair.here.ip("address", "add", "10.0.0.1/24", "dev", "br0")
    pair.here.ip("tuntap", "add", "mode", "tun", "name", "tun0")
    found = listed(pair.here)
    assert list(found) == ["lo", HERE, "br0", "tun0"]
    veth = found[HERE]
    assert (veth.state, veth.kind, veth.link_type, veth.xdp) == ("up", "veth", "ETHERNET", "native")
    assert (veth.queues, veth.most_queues, veth.other_names) == (4, 4, ("blue",))
    assert veth.uses == ("here0 is a port of bridge br0, which has the address 10.0.0.1/24",)
    assert (found["br0"].state, found["br0"].xdp) == ("down", "skb")
    assert found["br0"].uses == ("br0 has the address 10.0.0.1/24",)
    assert found["tun0"].link_type == "RAW"
    assert found["lo"].uses == ("lo has the address 127.0.0.1/8",)
    pair.there.ip("link", "set", "there0", "down")
    assert listed(pair.here)[HERE].state == "no carrier"


@pytest.mark.usefixtures("kernel_bpf")
def test_program_that_is_there_is_named(pair: Pair) -> None:
    assert listed(pair.here)[HERE].program == ""
    with pair.here.entered(), AfXdpSource(HERE):
        assert listed(pair.here)[HERE].program.endswith("uspcap_capture")


@pytest.mark.parametrize(
    ("features", "mode"),
    [
        (XdpFeatures(0b1011), "zero_copy"),
        (XdpFeatures(0b0011), "native"),
        (XdpFeatures(0b1000), "skb"),
        (XdpFeatures(0b0001), "skb"),
        (XdpFeatures(0), "skb"),
        (None, "unknown"),
    ],
)
def test_best_mode_is_what_the_driver_declares(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, features: XdpFeatures | None, mode: str
) -> None:
    monkeypatch.setattr("uspcap.backends.listing.xdp_features", lambda index: features)
    assert listed(pair.here)[HERE].xdp == mode


@pytest.mark.parametrize(
    ("abilities", "said"),
    [
        (TimestampingAbilities(True, 3, 0b11), "every frame"),
        (TimestampingAbilities(True, -1, 0b11), "no clock"),
        (TimestampingAbilities(True, 3, 1 << 12), "some frames"),
        (TimestampingAbilities(False, -1, 0), "none"),
    ],
)
def test_hardware_timestamps_are_what_the_driver_says(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, abilities: TimestampingAbilities, said: str
) -> None:
    monkeypatch.setattr(TimestampingAbilities, "ask", lambda name, calls: abilities)
    assert listed(pair.here)[HERE].hardware_timestamps == said


def test_list_fits_into_80_columns() -> None:
    odd = replace(NIC, name="a\x1bb", link_type=None, xdp=None, program="", other_names=(), uses=(), state="no carrier")
    text = rendered(NIC, odd, unseen="that of process 1, blue, …")
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert "7. eth0  up\n" in text
    for words in (
        "Ethernet, 8 of 64 receive queues",
        "packet_mmap: yes; af_xdp: native, zero copy",
        "hardware timestamps: every frame, for XDP too",
        "XDP program: id 12 balancer",
        "in use: is a port of bridge br0, which has the address 10.0.0.1/24",
        "frames of its kind cannot be captured",
    ):
        assert words in text
    assert "x" * 60 in rendered(NIC, width=200)


def test_documents_keep_to_their_schema(pair: Pair) -> None:
    schema = load_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(Listing((NIC, replace(NIC, link_type=None, xdp=None, program="")), "").as_document(), schema)
    with pair.here.entered():
        done = invoke("capture", "-D", "--format", "json")
        text = invoke("capture", "-D")
    assert done.code == text.code == 0
    document = json.loads(done.stdout)
    jsonschema.validate(document, schema)
    assert [one["name"] for one in document["interfaces"]] == ["lo", HERE]
    assert HERE in text.stdout
    assert text.stderr == done.stderr == ""
