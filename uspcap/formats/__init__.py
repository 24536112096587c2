"""Capture files: readers and writers of pcap and pcapng, and what compresses them."""

from __future__ import annotations

from uspcap.errors import NotACaptureFile
from uspcap.formats.byte_source import open_byte_source
from uspcap.formats.pcap import PcapReader, is_pcap
from uspcap.formats.pcapng import PcapngReader, is_pcapng
from uspcap.formats.reader import BATCH_FRAMES, CaptureReader, FormatReader, TimestampUnit
from uspcap.formats.waking import Wake
from uspcap.formats.window import WINDOW_BYTES, Window

__all__ = ["CaptureReader", "open_capture"]

FILES_IN_FULL = 8
"""Files that can be read at once with windows and batches of full size; more share what these would take."""

SMALLEST_WINDOW = 16 * 1024
SMALLEST_BATCH = 128


def open_capture(path: str, wake: Wake | None = None, *, unit: TimestampUnit = "auto", among: int = 1) -> CaptureReader:
    """Open a capture file of any known format, compressed or not; `-` is standard input.

    Parameters
    ----------
    path : str
    wake : Wake, optional
        Ends reading once it is set, here and in the reader's `batches`, which raise ReadingEnded then.
    unit : {'auto', 'us', 'ns'}
        What pcap fractions of a second are counted in. 'auto' goes by the file header unless fractions in the file,
        looked at in its beginning, its middle and its end, cannot be microseconds.
    among : int
        Files that are read at once: of many, each gets a smaller window and smaller batches.

    Raises
    ------
    CaptureFileError
        The file cannot be opened, or its header is damaged.
    NotACaptureFile
        It starts with the bytes of no known format.
    MissingFeature
        It is compressed in a way that this installation cannot undo.
    ReadingEnded
        `wake` was set.
    """
    source = open_byte_source(path, wake)
    try:
        window = Window(source, size=shared(WINDOW_BYTES, among, SMALLEST_WINDOW))
        window.require(4)
        start = window.peek(4)
        if _format_of(start) is not None:
            return CaptureReader(source, window, _format_of, unit, shared(BATCH_FRAMES, among, SMALLEST_BATCH))
        if source.problem is not None:
            raise NotACaptureFile(f"{path}: {source.problem}; nothing could be read from it")
        if not start:
            raise NotACaptureFile(f"{path}: the file is empty; a capture has at least a file header")
        raise NotACaptureFile(
            f"{path}: the first bytes ({start.hex(' ')}) match no capture format that uspcap reads "
            "(pcap and pcapng, plain or in gzip, bzip2, zstd, xz or lz4)"
        )
    except BaseException:
        source.close()
        raise


def shared(size: int, among: int, smallest: int) -> int:
    """Return the share of something that one of so many files gets that are read at once."""
    return max(min(size, FILES_IN_FULL * size // max(among, 1)), smallest)


def _format_of(start: bytes) -> type[FormatReader] | None:
    if len(start) < 4:
        return None
    return PcapReader if is_pcap(start) else PcapngReader if is_pcapng(start) else None
