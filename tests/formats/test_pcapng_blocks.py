import struct

import pytest

from uspcap.formats import pcapng_blocks
from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.frames import Interface


def options(block, fixed_bytes):
    """Return the (code, value) options of a block, which must end in opt_endofopt if there are any."""
    (length,) = struct.unpack_from("<I", block, 4)
    assert length == len(block) == struct.unpack("<I", block[-4:])[0]
    rest = block[8 + fixed_bytes : -4]
    found = []
    while rest:
        code, size = struct.unpack_from("<HH", rest)
        if code == 0:
            assert rest == bytes(4)
            break
        found.append((code, rest[4 : 4 + size]))
        rest = rest[4 + size + -size % 4 :]
    return found


def test_a_section_header_without_texts_has_no_options():
    block = pcapng_blocks.section_header(comment="", hardware="", operating_system="", application="")
    assert block == struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)


def test_a_section_header_carries_its_texts():
    block = pcapng_blocks.section_header(comment="ä", hardware="b", operating_system="cc", application="d")
    assert options(block, 16) == [(1, "ä".encode()), (2, b"b"), (3, b"cc"), (4, b"d")]


def test_an_unknown_interface_says_only_its_resolution():
    block = pcapng_blocks.interface_description(Interface(113, snaplen=96, ticks_per_second=1000))
    assert struct.unpack_from("<HHI", block, 8) == (113, 0, 96)
    assert options(block, 8) == [(9, b"\x09")]


def test_a_known_interface_says_all_of_it():
    interface = Interface(
        1,
        name="n",
        description="d",
        filter="ip",
        hardware="h",
        operating_system="o",
        fcs_length=0,
        speed_bps=10**11,
    )
    assert options(pcapng_blocks.interface_description(interface), 8) == [
        (2, b"n"),
        (3, b"d"),
        (8, struct.pack("<Q", 10**11)),
        (9, b"\x09"),
        (11, b"\0ip"),
        (12, b"o"),
        (13, b"\0"),
        (15, b"h"),
    ]


@pytest.mark.parametrize("letter", ["x", "ä", "€", "𝄞"])
def test_text_that_does_not_fit_ends_in_an_ellipsis(letter):
    block = pcapng_blocks.interface_description(Interface(1, name=letter * 70_000, filter=letter * 70_000))
    for code, before in ((2, b""), (11, b"\0")):
        value = dict(options(block, 8))[code].removeprefix(before)
        text = value.decode()
        assert text == letter * (len(text) - 1) + "…"
        assert 65535 - 4 - len(before) < len(value) <= 65535 - len(before)


def test_text_that_is_no_unicode_does_not_stop_the_writer():
    assert options(pcapng_blocks.interface_description(Interface(1, name="a\udcff")), 8)[0] == (2, b"a?")


def test_statistics_that_are_not_known_are_left_out():
    block = pcapng_blocks.interface_statistics(3, InterfaceStatistics(dropped=0), 1 << 40)
    assert struct.unpack_from("<III", block, 8) == (3, 1 << 8, 0)
    assert options(block, 12) == [(5, bytes(8))]
