"""Capture files: readers and writers of pcap and pcapng, and what compresses them."""

from __future__ import annotations

from uspcap.errors import NotACaptureFile
from uspcap.formats.byte_source import open_byte_source
from uspcap.formats.pcap import PcapReader, is_pcap
from uspcap.formats.pcapng import PcapngReader, is_pcapng
from uspcap.formats.reader import CaptureReader, FormatReader, TimestampUnit
from uspcap.formats.waking import Wake
from uspcap.formats.window import Window

__all__ = ["CaptureReader", "open_capture"]


def open_capture(path: str, wake: Wake | None = None, *, unit: TimestampUnit = "auto") -> CaptureReader:
    """Open a capture file of any known format, compressed or not; `-` is standard input.

    Parameters
    ----------
    path : str
    wake : Wake, optional
        Ends reading once it is set, here and in the reader's `batches`, which raise ReadingEnded then.
    unit : {'auto', 'us', 'ns'}
        What pcap fractions of a second are counted in. 'auto' goes by the file header unless fractions in the file,
        looked at in its beginning, its middle and its end, cannot be microseconds.

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
        window = Window(source)
        window.require(4)
        start = window.peek(4)
        if _format_of(start) is not None:
            return CaptureReader(source, window, _format_of, unit)
        if source.problem is not None:
            raise NotACaptureFile(f"{path}: {source.problem}; nothing could be read from it")
        if not start:
            raise NotACaptureFile(f"{path}: the file is empty; a capture has at least a file header")
        raise NotACaptureFile(
            f"{path}: the first bytes ({start.hex(' ')}) are of no capture format that uspcap reads "
            "(pcap and pcapng, plain or in gzip, bzip2, zstd, xz or lz4)"
        )
    except BaseException:
        source.close()
        raise


def _format_of(start: bytes) -> type[FormatReader] | None:
    if len(start) < 4:
        return None
    return PcapReader if is_pcap(start) else PcapngReader if is_pcapng(start) else None
