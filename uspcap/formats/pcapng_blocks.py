"""The blocks of a pcapng file that are written once: section, interface, statistics.

All little-endian, with timestamps in nanoseconds (if_tsresol 9). Packets are written by
`uspcap.formats.record_formatter`.

References
----------
draft-ietf-opsawg-pcapng, sections 4.1 (section header), 4.2 (interface description) and
4.6 (interface statistics).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from uspcap.frames import Interface

SECTION_HEADER_BLOCK = 0x0A0D0D0A
INTERFACE_DESCRIPTION_BLOCK = 1
INTERFACE_STATISTICS_BLOCK = 5
ENHANCED_PACKET_BLOCK = 6

BYTE_ORDER_MAGIC = 0x1A2B3C4D
LONGEST_OPTION_BYTES = 0xFFFF
NANOSECOND_RESOLUTION = 9


@dataclass(frozen=True, slots=True)
class InterfaceStatistics:
    """What the capture says about one interface at its end; None where it does not know.

    Attributes
    ----------
    start_timestamp_ns, end_timestamp_ns : int or None
        When the capture began and ended, nanoseconds since the epoch, UTC.
    received : int or None
        Frames that the interface received (isb_ifrecv).
    dropped : int or None
        Frames that the interface dropped for lack of room (isb_ifdrop).
    os_dropped : int or None
        Frames that the operating system dropped (isb_osdrop).
    comment : str
        What else there is to say (opt_comment); empty for nothing.
    """

    start_timestamp_ns: int | None = None
    end_timestamp_ns: int | None = None
    received: int | None = None
    dropped: int | None = None
    os_dropped: int | None = None
    comment: str = ""


def section_header(*, comment: str, hardware: str, operating_system: str, application: str) -> bytes:
    """Return a section header block of unknown section length; empty texts are left out."""
    body = struct.pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, -1)
    return _block(
        SECTION_HEADER_BLOCK,
        body,
        _text_option(1, comment)
        + _text_option(2, hardware)
        + _text_option(3, operating_system)
        + _text_option(4, application),
    )


def interface_description(interface: Interface) -> bytes:
    """Return the block that describes one interface, with timestamps in nanoseconds.

    `ticks_per_second` and `timestamp_offset_s` describe the file that the interface came from, and have
    no part in this one.
    """
    options = (
        _text_option(2, interface.name)
        + _text_option(3, interface.description)
        + (_option(8, struct.pack("<Q", interface.speed_bps)) if interface.speed_bps else b"")
        + _option(9, bytes([NANOSECOND_RESOLUTION]))
        # The first byte of a filter says what it is; 0 is a filter expression as text.
        + _text_option(11, interface.filter, before=b"\0")
        + _text_option(12, interface.operating_system)
        + (_option(13, bytes([interface.fcs_length])) if 0 <= interface.fcs_length <= 255 else b"")
        + _text_option(15, interface.hardware)
    )
    return _block(INTERFACE_DESCRIPTION_BLOCK, struct.pack("<HHI", interface.link_type, 0, interface.snaplen), options)


def interface_statistics(number: int, statistics: InterfaceStatistics, timestamp_ns: int) -> bytes:
    """Return the block that closes the account of one interface.

    Parameters
    ----------
    number : int
        The interface's number in the file.
    statistics : InterfaceStatistics
    timestamp_ns : int
        When the counters were read, nanoseconds since the epoch.
    """
    options = _text_option(1, statistics.comment)
    for code, timestamp in ((2, statistics.start_timestamp_ns), (3, statistics.end_timestamp_ns)):
        if timestamp is not None:
            options += _option(code, _timestamp(timestamp))
    for code, count in ((4, statistics.received), (5, statistics.dropped), (7, statistics.os_dropped)):
        if count is not None:
            options += _option(code, struct.pack("<Q", count))
    return _block(INTERFACE_STATISTICS_BLOCK, struct.pack("<I", number) + _timestamp(timestamp_ns), options)


def _timestamp(timestamp_ns: int) -> bytes:
    """Return a timestamp as pcapng has it: the high 32 bits first."""
    return struct.pack("<II", timestamp_ns >> 32, timestamp_ns & 0xFFFFFFFF)


def _block(kind: int, body: bytes, options: bytes) -> bytes:
    if options:
        options += bytes(4)  # opt_endofopt
    length = 12 + len(body) + len(options)
    return struct.pack("<II", kind, length) + body + options + struct.pack("<I", length)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + value + bytes(-len(value) % 4)


def _text_option(code: int, text: str, before: bytes = b"") -> bytes:
    """Return an option of text, nothing for an empty one; text that is too long ends in an ellipsis."""
    if not text:
        return b""
    encoded = text.encode("utf-8", "replace")
    room = LONGEST_OPTION_BYTES - len(before)
    if len(encoded) > room:
        ellipsis = "…".encode()
        encoded = encoded[: room - len(ellipsis)].decode("utf-8", "ignore").encode() + ellipsis
    return _option(code, before + encoded)
