"""Cutting one capture file into parts that several cores read at once.

Neither format says where a record starts in the middle of a file, so the start of a part is a guess, and
the reader of the part before proves it: it must arrive exactly there, knowing the same interfaces. A
part whose start is not proved is thrown away and read by the part before it.
"""

from __future__ import annotations

from uspcap.errors import CaptureFileError
from uspcap.formats import open_capture
from uspcap.formats.reader import NO_LIMIT, CaptureReader, TimestampUnit
from uspcap.formats.waking import Wake

SMALLEST_PART = 8 * 1024 * 1024
"""Bytes below which a part is not worth a thread."""


def open_parts(
    path: str,
    most: int,
    wake: Wake | None = None,
    *,
    unit: TimestampUnit = "auto",
    begin: int = 0,
    end: int = NO_LIMIT,
    among: int = 1,
) -> list[CaptureReader]:
    """Open a capture file once for each of up to `most` parts of similar size, in order.

    Parameters
    ----------
    path : str
    most : int
    wake : Wake, optional
        Of all of them, as in `uspcap.formats.open_capture`.
    unit : {'auto', 'us', 'ns'}
        As there.
    begin, end : int
        Bytes to read: from the record that starts at `begin`, or from the beginning of the file, up to the records that
        start at `end`.
    among : int
        As there.

    Raises
    ------
    CaptureFileError
        As `uspcap.formats.open_capture`.
    """
    first = open_capture(path, wake, unit=unit, among=among)
    readers = [first]
    try:
        if begin:
            _go_to(first, begin)
        if not first.source.seekable_plain:
            return readers
        end_of_all = min(end, first.size or 0)
        parts = min(most, (end_of_all - begin) // SMALLEST_PART)
        for part in range(1, parts):
            reader = open_capture(path, wake, unit=unit, among=among)
            offset = begin + (end_of_all - begin) * part // parts
            if not reader.jump_near(offset) or not readers[-1].began_at < reader.began_at < end:
                reader.close()
                continue
            readers[-1].stop_at = reader.began_at
            readers.append(reader)
        readers[-1].stop_at = end
    except BaseException:
        for reader in readers:
            reader.close()
        raise
    return readers


def _go_to(reader: CaptureReader, begin: int) -> None:
    """Go on at a place at which a record is known to start."""
    if not reader.jump_near(begin) or reader.began_at != begin:
        raise CaptureFileError(f"{reader.name}: no record starts at byte {begin} any more; it has changed: start again")


def continues(earlier: CaptureReader, later: CaptureReader) -> bool:
    """Tell whether `earlier`, which has been read to its `stop_at`, proves the start of `later`."""
    return not earlier.ended and earlier.stopped_at == later.began_at and earlier.knowledge == later.initial_knowledge
