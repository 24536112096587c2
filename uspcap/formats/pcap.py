"""Reading pcap files.

Source: draft-ietf-opsawg-pcap; libpcap's sf-pcap.c for the variants that the draft leaves out (Kuznetzov's
modified format and the order of the lengths before format 2.4).
"""

from __future__ import annotations

import struct
from collections.abc import Generator, Iterator
from contextlib import closing
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.errors import CaptureFileError, NotACaptureFile
from uspcap.formats.reader import (
    BIG_FRAME_LINK_TYPES,
    BOUNDARY_CHAIN,
    LONGEST_BIG_FRAME,
    LONGEST_FRAME,
    CaptureReader,
    FormatReader,
)
from uspcap.formats.walkers import PcapWalker, Stop
from uspcap.formats.window import Window
from uspcap.frames import NANOSECONDS, Decision, FrameBatch, Interface, Problem, TimestampSource

MICROSECOND_MAGIC = 0xA1B2C3D4
NANOSECOND_MAGIC = 0xA1B23C4D
MODIFIED_MAGIC = 0xA1B2CD34

FILE_HEADER_LENGTH = 24

MICROSECONDS: Final = 1_000_000

SAMPLE_RECORDS: Final = 4096
SAMPLE_BYTES: Final = 1 << 19
"""Looked at in the beginning, the middle and the end of a file, to see whether it counts in what it says."""

NEARLY_ALL: Final = 0.9

NO_CARRY: Final = 10 * MICROSECONDS
"""Seconds that were not carried over make small fractions too large; ten seconds are not a carry."""

MOST_INTERFACES: Final = 1 << 16

# magic -> (ticks per second, length of a record header)
_VARIANTS = {
    MICROSECOND_MAGIC: (1_000_000, 16),
    NANOSECOND_MAGIC: (NANOSECONDS, 16),
    MODIFIED_MAGIC: (1_000_000, 24),
}


def is_pcap(start: bytes) -> bool:
    """Tell whether a file that starts with these (at least four) bytes is pcap."""
    return any(int.from_bytes(start[:4], order) in _VARIANTS for order in ("little", "big"))


class PcapReader(FormatReader):
    """Reads one pcap file, from its header on.

    Raises
    ------
    CaptureFileError
        The file header is cut short or of a version that is not known.
    """

    format = "pcap"

    def __init__(self, file: CaptureReader) -> None:
        super().__init__(file)
        window = file.window
        self._header_at = window.position
        if not window.require(FILE_HEADER_LENGTH):
            raise NotACaptureFile(
                f"{file.name}: the file ends {window.available} bytes into the pcap file header of "
                f"{FILE_HEADER_LENGTH}; nothing can be read from it"
            )
        header = window.take(FILE_HEADER_LENGTH)
        order = "<" if int.from_bytes(header[:4], "little") in _VARIANTS else ">"
        magic, major, minor, _, _, snaplen, link_field = struct.unpack(order + "IHHiIII", header)
        if major != 2:
            raise NotACaptureFile(
                f"{file.name}: pcap version {major}.{minor} at byte {self._header_at + 4} is not one that is known "
                "(2.x)"
            )
        self._ticks_per_second, self._record_header = _VARIANTS[magic]
        link_type = link_field & 0xFFFF
        if link_field & 0x03FF0000:
            file.problem(
                self._header_at + 20,
                f"the reserved bits of the link type field are not zero ({link_field:#010x}), ignored",
            )
        self._swapped = order == ">"
        self._longest = LONGEST_BIG_FRAME if link_type in BIG_FRAME_LINK_TYPES else LONGEST_FRAME
        self._swapped_lengths = 1 if minor < 3 else 2 if minor == 3 else 0
        self._snaplen, self._link_type = snaplen, link_type
        self._fcs_length = (link_field >> 28) * 2 if link_field & 0x04000000 else -1
        self._frames_before = file.facts.frames
        self._counted = (0, 0)
        self._first_s: int | None = None
        self._walker: PcapWalker | None = None
        if file.unit != "auto" or file.source.seekable_plain or self._header_at:
            self._decide()

    @property
    def knowledge(self) -> int:
        return 1

    @property
    def bytes_before_frame(self) -> int:
        return self._record_header

    def prepare(self) -> bool:
        if self._first_s is None:
            self._first_s = self._second_here(self._window)
        return True

    def find_start(self, data: NDArray[np.uint8]) -> int:
        return self._decide().plausible_start(data, 0, BOUNDARY_CHAIN, self._first_s or 0, self._window.at_end)

    def _second_here(self, window: Window) -> int:
        """Return the second of the record at hand, which others in the file are not far from."""
        window.require(4)
        return int.from_bytes(window.peek(4), "big" if self._swapped else "little")

    def restart_numbers(self) -> None:
        self._decide().restart()
        self._frames_before = 0
        self._counted = (0, 0)

    def _new_walker(self, ticks_per_second: int, interface: int = 0) -> PcapWalker:
        return PcapWalker(
            self._swapped,
            NANOSECONDS // ticks_per_second,
            self._record_header,
            self._longest,
            self._swapped_lengths,
            interface,
        )

    def _decide(self) -> PcapWalker:
        """Settle what fractions of a second are counted in, once, and return the walker."""
        if self._walker is not None:
            return self._walker
        file = self._file
        said = self._ticks_per_second
        if file.unit != "auto":
            self._ticks_per_second = NANOSECONDS if file.unit == "ns" else MICROSECONDS
        elif said == MICROSECONDS and (why := self._nanoseconds_after_all()):
            self._ticks_per_second = NANOSECONDS
            file.facts.decisions.append(Decision(file.name, "--timestamp-unit ns", why))
        self._assumed = said == MICROSECONDS != self._ticks_per_second and file.unit == "auto"
        self._walker = self._new_walker(self._ticks_per_second, self._interface_number())
        self._walker.frames_seen = self._frames_before
        return self._walker

    def _interface_number(self) -> int:
        """Return the number of the interface that the header describes, a further one unless it is known."""
        interface = Interface(
            link_type=self._link_type,
            snaplen=self._snaplen,
            ticks_per_second=self._ticks_per_second,
            fcs_length=self._fcs_length,
        )
        known = self._file.facts.interfaces
        if interface in known:
            return known.index(interface)
        if len(known) == MOST_INTERFACES:
            raise CaptureFileError(f"more than {MOST_INTERFACES} interfaces are described")
        known.append(interface)
        return len(known) - 1

    def _nanoseconds_after_all(self) -> str:
        """Return why the file counts in nanoseconds although it says microseconds; '' where it does not."""
        looked_at = beyond = 0
        with closing(self._sampled_fractions()) as samples:
            for fractions in samples:
                large = int(np.count_nonzero(fractions >= MICROSECONDS))
                if (
                    large < NEARLY_ALL * len(fractions)
                    or 2 * int(np.count_nonzero(fractions >= NO_CARRY)) < len(fractions)
                    or (fractions >= NANOSECONDS).any()
                ):
                    return ""
                looked_at += len(fractions)
                beyond += large
        if not looked_at:
            return ""
        return (
            f"the file header at byte {self._header_at} says microseconds, but {beyond} of {looked_at} fractions of a "
            "second that were looked at are beyond 999,999: nanoseconds"
        )

    def _sampled_fractions(self) -> Generator[NDArray[np.uint32], None, None]:
        """Yield fractions of a second at the beginning, and of a file that can be sought in from middle and end."""
        source = self._file.source
        window = self._window
        if window.size < SAMPLE_BYTES and source.seekable_plain:
            # One that may grow, and goes.
            begin = window.position
            window = Window(source)
            window.jump(begin)
            try:
                yield from self._sampled_through(window)
            finally:
                self._window.jump(begin)
        else:
            yield from self._sampled_through(window)

    def _sampled_through(self, window: Window) -> Iterator[NDArray[np.uint32]]:
        source = self._file.source
        walker = self._new_walker(NANOSECONDS)
        if source.size is not None:
            window.require(SAMPLE_BYTES)
        while True:
            end = min(window.end, window.start + SAMPLE_BYTES)
            fractions = walker.fractions(window.data, window.start, end, SAMPLE_RECORDS)
            if len(fractions) or window.at_end or window.available >= SAMPLE_BYTES:
                break
            window.refill()  # a pipe: wait until it has given a frame
        yield fractions
        if not source.seekable_plain or self._header_at or source.size is None:
            return
        begin = window.position
        first_s = self._second_here(window)
        for offset in (source.size // 2, source.size - SAMPLE_BYTES):
            if offset > begin + SAMPLE_BYTES:
                window.jump(offset)
                window.require(SAMPLE_BYTES)
                data = window.data[: window.end]
                start = walker.plausible_start(data, 0, BOUNDARY_CHAIN, first_s, window.at_end)
                fractions = walker.fractions(data, max(start, 0), window.end if start >= 0 else 0, SAMPLE_RECORDS)
                window.jump(begin)
                yield fractions

    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames up to the end, the first damaged record, the next file header or `stop_at`."""
        window, file = self._window, self._file
        walker = self._decide()
        batch = FrameBatch(file.batch_frames)
        batch.set_interfaces(file.facts.interfaces)
        batch.set_data(window.data)
        batch.big_endian_options = self._swapped
        source = int(TimestampSource.FILE)
        while True:
            stop = walker.walk(batch, window.data, window.start, window.end, file.stop_at - window.offset, source)
            self._note_fractions(walker)
            if batch.count:
                batch.refilled()
                yield batch
            window.start = walker.position
            if stop == Stop.NEED_MORE:
                data = window.data
                if not window.at_end and (window.refill() or not window.at_end):
                    if window.data is not data:
                        batch.set_data(window.data)
                    continue
                file.source_ended(window.available, "a record")
                file.ended = True
                return
            if stop == Stop.DAMAGED:
                file.problem(window.position, f"{walker.damage}; nothing after it was read")
                file.ended = True
                return
            if stop == Stop.HEADER:
                self.at_header = True
                return
            if stop == Stop.LIMIT:
                return

    def _note_fractions(self, walker: PcapWalker) -> None:
        """Keep what the walker has counted, beside what earlier headers' frames came to."""
        facts = self._file.facts
        counts = facts.fractions
        if self._assumed:
            counts.assumed_ns += walker.frames_seen - facts.frames
            counts.assumed_below_million += walker.below_million - self._counted[1]
        facts.frames = walker.frames_seen
        if walker.overflowing > self._counted[0]:
            counts.beyond += walker.overflowing - self._counted[0]
            if counts.first is None:
                at = self._window.offset + walker.first_overflowing_position
                counts.first = Problem(self._file.name, at, "", walker.first_overflowing)
                counts.units = self._ticks_per_second
        self._counted = (walker.overflowing, walker.below_million)
