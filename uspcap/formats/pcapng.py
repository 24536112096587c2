"""Reading pcapng files.

Source: draft-ietf-opsawg-pcapng. Packets are walked natively; the blocks that describe them (section
headers, interfaces, statistics) come by rarely and are read here.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.formats.pcapng_blocks import (
    BYTE_ORDER_MAGIC,
    INTERFACE_DESCRIPTION_BLOCK,
    SECTION_HEADER_BLOCK,
)
from uspcap.formats.reader import (
    BIG_FRAME_LINK_TYPES,
    BOUNDARY_CHAIN,
    LONGEST_BIG_FRAME,
    CaptureReader,
    FormatReader,
)
from uspcap.formats.walkers import PcapngWalker, Stop
from uspcap.frames import NANOSECONDS, FrameBatch, Interface, TimestampSource

LONGEST_BLOCK = 16 * 1024 * 1024
"""Longest packet block without a link type that allows more; tshark's limit for any block."""

_KNOWN_BLOCKS = frozenset({1, 2, 3, 4, 5, 6, 9, 10, SECTION_HEADER_BLOCK, 0x00000BAD, 0x40000BAD})

_INTERFACE_TEXT = {2: "name", 3: "description", 12: "operating_system", 15: "hardware"}

BYTES_BEFORE_PACKET = 28
"""In an enhanced packet block, and in the packet block that came before it; simple ones have no timestamp."""

SOURCE_MARK = "timestamps: "
"""How the description of an interface that uspcap wrote starts its last part; a source's name follows."""


def is_pcapng(start: bytes) -> bool:
    """Tell whether a file that starts with these (at least four) bytes is pcapng."""
    return int.from_bytes(start[:4], "little") == SECTION_HEADER_BLOCK


def options_of(body: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield code and value of each option in `body`, up to its end, opt_endofopt or the first that is cut."""
    position = 0
    while position + 4 <= len(body):
        code, length = struct.unpack_from(order + "HH", body, position)
        value = body[position + 4 : position + 4 + length]
        if code == 0 or len(value) < length:
            return
        yield code, value
        position += 4 + (length + 3 & ~3)


class PcapngReader(FormatReader):
    """Reads one pcapng file: any number of sections in either byte order."""

    format = "pcapng"
    alignment = 4

    def __init__(self, file: CaptureReader) -> None:
        super().__init__(file)
        self._walker = PcapngWalker(LONGEST_BLOCK)
        self._batch = FrameBatch(file.batch_frames)
        self._link_types = array("i")
        self._order = "<"
        self._section_base = 0
        self._blocks_read = 0
        self._prepared: bool | None = None
        self._finer_before = file.facts.finer_than_ns
        self._clamped_before = file.facts.clamped.count
        self._walker.frames_seen = file.facts.frames
        for interface in file.facts.interfaces:
            # Of files before this one in the same file: their numbers are taken.
            self._walker.add_interface(1, 1, 0, 0, 0, int(interface.timestamp_source))
            self._link_types.append(interface.link_type)

    @property
    def knowledge(self) -> int:
        return self._blocks_read

    @property
    def bytes_before_frame(self) -> int:
        return BYTES_BEFORE_PACKET

    def prepare(self) -> bool:
        # The first packets are read, and forgotten, for the descriptions that stand before them.
        if self._prepared is None:
            next(self.batches(), None)
            self._prepared = not self._file.ended
        return self._prepared

    def release(self) -> None:
        self._batch = FrameBatch(1)

    def find_start(self, data: NDArray[np.uint8]) -> int:
        return self._walker.plausible_start(data, 0, BOUNDARY_CHAIN, self._window.at_end)

    def restart_numbers(self) -> None:
        self._walker.restart()
        self._finer_before = self._clamped_before = 0

    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames; damage is stepped over where the lengths of blocks can be trusted."""
        window, walker, batch, file = self._window, self._walker, self._batch, self._file
        batch.set_data(window.data)
        while True:
            stop = walker.walk(batch, window.data, window.start, window.end, file.stop_at - window.offset)
            self._note_timestamps()
            if batch.count:
                if len(batch.interfaces) != len(self._link_types):
                    # Only now, and not for each one: a file may describe 65536.
                    batch.interfaces = tuple(file.facts.interfaces)
                    batch.set_link_types(np.array(self._link_types, np.int32))
                batch.refilled()
                yield batch
            window.start = walker.position
            if stop == Stop.FULL:
                continue
            if stop == Stop.LIMIT:
                break
            if stop == Stop.HEADER:
                self.at_header = True
                break
            data = window.data
            goes_on = self._handle(stop)
            if window.data is not data:
                batch.set_data(window.data)
            if not goes_on:
                file.ended = True
                break

    def _handle(self, stop: int) -> bool:
        """Do what the walker could not; return whether there is more to walk."""
        window, walker = self._window, self._walker
        if stop == Stop.NEED_MORE:
            if not window.at_end and (window.refill() or not window.at_end):
                return True
            self._file.source_ended(window.available, "a block")
            return False
        if stop == Stop.BLOCK:
            return self._describing_block()
        if stop == Stop.SKIP:
            return self._skip_block(walker.block_length)
        return self._step_over(walker.damage, walker.block_length)

    def _skip_block(self, length: int) -> bool:
        """Go past a block of no use that is longer than what is left of the window."""
        window = self._window
        at = window.position
        claimed = window.peek(8)[4:]
        skipped = window.skip(length - 4)
        if not window.require(4):
            self._cut_short(at, skipped + window.available, length)
            return False
        if window.take(4) != claimed:
            return self._resume(at, f"the block's two lengths differ (it begins with one of {length})")
        return True

    def _cut_short(self, at: int, there: int, length: int) -> None:
        self._file.facts.truncated = True
        what = self._file.source.problem or f"the file ends {there} bytes into a block of {length}"
        self._file.problem(at, what)

    def _step_over(self, damage: str, length: int) -> bool:
        """Say what is wrong with the block at hand and go to the next, if one can be seen there."""
        window = self._window
        at = window.position
        if length == 0 or window.skip(length) < length:
            self._file.problem(at, f"{damage}; nothing after it was read")
            return False
        return self._resume(at, damage)

    def _resume(self, at: int, damage: str) -> bool:
        """Say what is wrong with the block at offset `at`, which is used up, and whether another one follows."""
        window = self._window
        if window.require(8):
            kind, length = struct.unpack(self._order + "II", window.peek(8))
            plausible = kind in _KNOWN_BLOCKS and (kind == SECTION_HEADER_BLOCK or 12 <= length <= LONGEST_BLOCK)
        else:
            plausible = window.available == 0
        if plausible:
            self._file.problem(at, f"{damage}; reading went on at the next block, byte {window.position}")
        else:
            self._file.problem(at, f"{damage}; nothing after it was read")
        return plausible

    def _describing_block(self) -> bool:
        """Read the section header, interface description or statistics block at hand."""
        window = self._window
        if not window.require(12):
            self._file.source_ended(window.available, "a block")
            return False
        start = window.peek(12)
        if start[:4] == SECTION_HEADER_BLOCK.to_bytes(4, "little"):
            marks = {struct.pack(order + "I", BYTE_ORDER_MAGIC): order for order in ("<", ">")}
            if start[8:12] not in marks:
                return self._step_over("the section header has no byte-order magic", 0)
            self._order = marks[start[8:12]]
        kind, length = struct.unpack(self._order + "II", start[:8])
        if length < 12 or length > LONGEST_BLOCK:
            return self._step_over(f"the describing block claims a length of {length} bytes", 0)
        padded = length + 3 & ~3
        if not window.require(padded):
            self._file.source_ended(window.available, f"a block of {length}")
            return False
        block = window.peek(padded)
        (closing,) = struct.unpack(self._order + "I", block[-4:])
        if closing != length:
            return self._step_over(f"the block's two lengths differ ({length} and {closing})", padded)
        body = block[8:-4]
        if kind == SECTION_HEADER_BLOCK:
            damage = self._section_header(body)
            if damage:
                # Without it, nothing says which byte order and interfaces the rest has.
                return self._step_over(damage, 0)
        elif kind == INTERFACE_DESCRIPTION_BLOCK:
            damage = self._interface_description(body)
        else:
            damage = self._interface_statistics(body)
        if damage:
            return self._step_over(damage, padded)
        window.start += padded
        return True

    # Each of these returns what is wrong with the block, '' for nothing.

    def _section_header(self, body: bytes) -> str:
        if len(body) < 16:
            return "the section header is too short"
        major, minor = struct.unpack_from(self._order + "HH", body, 4)
        if major != 1:
            return f"pcapng version {major}.{minor} is not one that is known (1.x)"
        self._walker.begin_section(self._order == ">")
        self._section_base = len(self._file.facts.interfaces)
        self._batch.big_endian_options = self._order == ">"
        self._blocks_read += 1
        return ""

    def _interface_description(self, body: bytes) -> str:
        if len(body) < 8:
            return "the interface description is too short"
        link_type, _, snaplen = struct.unpack_from(self._order + "HHI", body)
        interface = Interface(link_type=link_type, snaplen=snaplen, ticks_per_second=1_000_000)
        multiplier, divisor, shift, offset_s = 1000, 1, 0, 0
        texts: dict[str, Any] = {}
        for code, value in options_of(body[8:], self._order):
            if code in _INTERFACE_TEXT:
                texts[_INTERFACE_TEXT[code]] = _text(value)
            elif code == 8 and len(value) == 8:
                interface = replace(interface, speed_bps=struct.unpack(self._order + "Q", value)[0])
            elif code == 9 and len(value) == 1:
                ticks, multiplier, divisor, shift = resolution(value[0])
                interface = replace(interface, ticks_per_second=ticks)
            elif code == 11 and len(value) > 1 and value[0] == 0:
                interface = replace(interface, filter=_text(value[1:]))
            elif code == 13 and len(value) == 1:
                interface = replace(interface, fcs_length=value[0])
            elif code == 14 and len(value) == 8:
                offset_s = struct.unpack(self._order + "q", value)[0]
        source = written_source(texts.get("description", ""))
        interface = replace(interface, timestamp_offset_s=offset_s, timestamp_source=source, **texts)
        if link_type in BIG_FRAME_LINK_TYPES:
            self._walker.allow(LONGEST_BIG_FRAME)
        try:
            self._walker.add_interface(multiplier, divisor, shift, offset_s, snaplen, int(source))
        except OverflowError as too_many:
            return f"{too_many} are described"
        self._file.facts.interfaces.append(interface)
        self._link_types.append(link_type)
        self._blocks_read += 1
        return ""

    def _interface_statistics(self, body: bytes) -> str:
        if len(body) < 12:
            return "the interface statistics are too short"
        interface = self._section_base + struct.unpack_from(self._order + "I", body)[0]
        drops = {
            code: struct.unpack(self._order + "Q", value)[0]
            for code, value in options_of(body[12:], self._order)
            if code in (5, 7) and len(value) == 8
        }
        if drops and interface < len(self._file.facts.interfaces):
            self._file.facts.interface_drops[interface] = sum(drops.values())
        return ""

    def _note_timestamps(self) -> None:
        """Keep what the walker has counted, and the frames whose timestamps it has just clamped."""
        facts, walker = self._file.facts, self._walker
        facts.frames = walker.frames_seen
        facts.finer_than_ns = self._finer_before + walker.finer_than_ns
        if self._clamped_before + walker.clamped != facts.clamped.count:
            for frame, position, later in walker.take_clamped():
                facts.clamped.note(self._file.name, self._window.offset + position, frame, later=later)
            facts.clamped.count = self._clamped_before + walker.clamped


def resolution(value: int) -> tuple[int, int, int, int]:
    """Return ticks per second and how to make ns of ticks, for an if_tsresol octet.

    Returns
    -------
    tuple of int
        Ticks per second, then multiplier, divisor and shift: ns = ticks * multiplier / divisor >> shift.
    """
    exponent = value & 0x7F
    if value & 0x80:
        return 1 << exponent, NANOSECONDS, 1, exponent
    if exponent <= 9:
        return 10**exponent, 10 ** (9 - exponent), 1, 0
    if exponent <= 28:
        return 10**exponent, 1, 10 ** (exponent - 9), 0
    # No timestamp of 64 bits reaches 1 ns.
    return 10**exponent, 1, 1, 127


def _text(value: bytes) -> str:
    # Some writers count a terminating NUL, or padding, as part of the text.
    return value.rstrip(b"\0").decode("utf-8", "replace")


def written_source(description: str) -> TimestampSource:
    """Return the timestamp source that an interface description written by uspcap names, else FILE."""
    _, mark, name = description.rpartition(SOURCE_MARK)
    return TimestampSource[name] if mark and name in TimestampSource.__members__ else TimestampSource.FILE
