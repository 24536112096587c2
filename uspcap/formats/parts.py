"""Cutting one capture file into parts that several cores read at once.

Neither format says where a record starts in the middle of a file, so the start of a part is a guess, and
the reader of the part before proves it: it must arrive exactly there, knowing the same interfaces. A
part whose start is not proved is thrown away and read by the part before it.
"""

from __future__ import annotations

from uspcap.formats import open_capture
from uspcap.formats.reader import CaptureReader
from uspcap.formats.waking import Wake

SMALLEST_PART = 8 * 1024 * 1024
"""Bytes below which a part is not worth a thread."""


def open_parts(path: str, most: int, wake: Wake | None = None) -> list[CaptureReader]:
    """Open a capture file once for each of up to `most` parts of similar size, in order.

    Parameters
    ----------
    path : str
    most : int
    wake : Wake, optional
        Of all of them, as in `uspcap.formats.open_capture`.

    Raises
    ------
    CaptureFileError
        As `uspcap.formats.open_capture`.
    """
    first = open_capture(path, wake)
    size = first.size or 0
    parts = min(most, size // SMALLEST_PART)
    readers = [first]
    if not first.source.seekable_plain:
        return readers
    for part in range(1, parts):
        reader = open_capture(path, wake)
        if not reader.jump_near(size * part // parts) or reader.began_at <= readers[-1].began_at:
            reader.close()
            continue
        readers[-1].stop_at = reader.began_at
        readers.append(reader)
    return readers


def continues(earlier: CaptureReader, later: CaptureReader) -> bool:
    """Tell whether `earlier`, which has been read to its `stop_at`, proves the start of `later`."""
    return not earlier.ended and earlier.stopped_at == later.began_at and earlier.knowledge == later.initial_knowledge
