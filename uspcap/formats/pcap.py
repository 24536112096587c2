"""Reading pcap files.

Source: draft-ietf-opsawg-pcap; libpcap's sf-pcap.c for the variants that the draft leaves out (Kuznetzov's
modified format and the order of the lengths before format 2.4).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from uspcap._native.reader import PcapWalker, Stop
from uspcap.errors import CaptureFileError
from uspcap.formats.byte_source import ByteSource
from uspcap.formats.reader import (
    BATCH_FRAMES,
    BIG_FRAME_LINK_TYPES,
    BOUNDARY_CHAIN,
    LONGEST_BIG_FRAME,
    LONGEST_FRAME,
    CaptureReader,
)
from uspcap.formats.window import Window
from uspcap.frames import NANOSECONDS, FrameBatch, Interface

MICROSECOND_MAGIC = 0xA1B2C3D4
NANOSECOND_MAGIC = 0xA1B23C4D
MODIFIED_MAGIC = 0xA1B2CD34

FILE_HEADER_LENGTH = 24

# magic -> (ticks per second, length of a record header)
_VARIANTS = {
    MICROSECOND_MAGIC: (1_000_000, 16),
    NANOSECOND_MAGIC: (NANOSECONDS, 16),
    MODIFIED_MAGIC: (1_000_000, 24),
}


def is_pcap(start: bytes) -> bool:
    """Tell whether a file that starts with these (at least four) bytes is pcap."""
    return any(int.from_bytes(start[:4], order) in _VARIANTS for order in ("little", "big"))


class PcapReader(CaptureReader):
    """Reads one pcap file, from its header on.

    Raises
    ------
    CaptureFileError
        The file header is cut short or of a version that is not known.
    """

    format = "pcap"

    def __init__(self, source: ByteSource, window: Window) -> None:
        super().__init__(source, window)
        if not window.require(FILE_HEADER_LENGTH):
            raise CaptureFileError(
                f"{self.name}: the file ends {window.available} bytes into the pcap file header of "
                f"{FILE_HEADER_LENGTH}; nothing can be read from it"
            )
        header = window.take(FILE_HEADER_LENGTH)
        order = "<" if int.from_bytes(header[:4], "little") in _VARIANTS else ">"
        magic, major, minor, _, _, snaplen, link_field = struct.unpack(order + "IHHiIII", header)
        if major != 2:
            raise CaptureFileError(
                f"{self.name}: pcap version {major}.{minor} at byte 4 is not one that is known (2.x)"
            )
        ticks_per_second, record_header = _VARIANTS[magic]
        link_type = link_field & 0xFFFF
        if link_field & 0x03FF0000:
            self._problem(20, f"the reserved bits of the link type field are not zero ({link_field:#010x}), ignored")
        self.interface = Interface(
            link_type=link_type,
            snaplen=snaplen,
            ticks_per_second=ticks_per_second,
            fcs_length=(link_field >> 28) * 2 if link_field & 0x04000000 else -1,
        )
        self.facts.interfaces.append(self.interface)
        self._swapped = order == ">"
        self._walker = PcapWalker(
            self._swapped,
            NANOSECONDS // ticks_per_second,
            record_header,
            LONGEST_BIG_FRAME if link_type in BIG_FRAME_LINK_TYPES else LONGEST_FRAME,
            1 if minor < 3 else 2 if minor == 3 else 0,
        )

    @property
    def knowledge(self) -> int:
        return 0

    def _find_start(self, offset: int) -> int:
        first_s = int.from_bytes(self._window.peek(4), "big" if self._swapped else "little")
        data = self._look_at(offset)
        return self._walker.plausible_start(data, 0, BOUNDARY_CHAIN, first_s, self._window.at_end)

    def _restart_numbers(self) -> None:
        self._walker.frames_seen = 0

    def batches(self) -> Iterator[FrameBatch]:
        """Yield all frames up to the end, the first damaged record or `stop_at`."""
        window, walker = self._window, self._walker
        batch = FrameBatch(BATCH_FRAMES)
        batch.set_interfaces(self.facts.interfaces)
        batch.set_data(window.data)
        batch.big_endian_options = self._swapped
        source = int(self.interface.timestamp_source)
        while True:
            stop = walker.walk(batch, window.data, window.start, window.end, self.stop_at - window.offset, source)
            self.facts.frames = walker.frames_seen
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
                self._source_ended(window.available, "a record")
                self.ended = True
                return
            if stop == Stop.DAMAGED:
                self._problem(window.position, f"{walker.damage}; nothing after it was read")
                self.ended = True
                return
            if stop == Stop.LIMIT:
                return
