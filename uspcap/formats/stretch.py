"""Finding the stretch of a capture file that holds a range of time, without reading the rest.

Records are looked for at many places, evenly over the file. Where the times there rise, the range lies between the
last place that is earlier and the first one that is later; both are moved outward, by how far frames may be out of
order and by one place more. Two guessed places that a walk joins exactly prove each other. Where anything speaks
against it, the file is to be read whole, and the answer says why.

What this cannot see: frames between two places whose times leave the trend and come back to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.formats import open_capture
from uspcap.formats.pcapng_blocks import SECTION_HEADER_BLOCK
from uspcap.formats.reader import NO_LIMIT, CaptureReader, TimestampUnit
from uspcap.formats.waking import Wake
from uspcap.frames import EARLIEST_NS, LATEST_NS, NANOSECONDS, TimestampSource
from uspcap.saturating import difference_ns

PLACES: Final = 512

PLACE_BYTES: Final = 32 * 1024
"""Looked at at each place."""

SEARCHED_BYTES: Final = 1 << 30
"""Bytes before a stretch that are searched for a further section of a pcapng file; of more, places alone must do."""

DAY_NS: Final = 86_400 * 1_000_000_000
"""Between two places it may be a section with another unit of time that makes such a jump."""

SMALLEST_FILE: Final = 32 * 1024 * 1024
"""Bytes below which a file is read whole, which takes no time."""

SLACK_NS: Final = 1_000_000_000
"""How far frames, and places, may be out of order; two times that is read on either side of a range."""

LONE_FRAMES: Final = 8
"""Frames of a place that may be out of order by more: wrong timestamps of single frames."""

_SCAN_BYTES: Final = 1 << 20

_MILLISECOND_NS: Final = 1_000_000

_END_FRAMES: Final = 256
_FAR_NS: Final = 3600 * 1_000_000_000
_FEW: Final = 3
"""Frames at either end whose timestamps may be wrong, and how far off they must be to be taken for that."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which bytes of a file to read.

    Attributes
    ----------
    begin : int
        Where a record starts; 0 is the file's beginning.
    end : int
        Records that start from here on are left out.
    why_whole : str
        Why it is the whole file, '' where it is not.
    is_searched : bool
        What lies before it was searched for further sections, or can have none.
    """

    begin: int = 0
    end: int = NO_LIMIT
    why_whole: str = ""
    is_searched: bool = True


@dataclass(frozen=True, slots=True)
class _Place:
    """Records from `offset` to `end`, in whose middle it is `time_ns`."""

    offset: int
    end: int
    time_ns: int
    below_a_millisecond: bool


class _CannotTell(Exception):
    """Why a stretch cannot be found."""


def find_stretch(
    path: str, from_ns: int, to_ns: int, *, unit: TimestampUnit = "auto", wake: Wake | None = None
) -> Stretch:
    """Return the stretch of a file that holds the frames from one time to before another.

    Parameters
    ----------
    path : str
    from_ns, to_ns : int
        Nanoseconds since the epoch.
    unit : {'auto', 'us', 'ns'}
        As of `uspcap.formats.open_capture`.
    wake : Wake, optional

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        The file cannot be opened.
    """
    with open_capture(path, wake, unit=unit) as reader:
        source = reader.source
        if not source.seekable_plain or source.size is None:
            return Stretch(why_whole="it is compressed" if source.compression else "it can be read only once")
        if source.size < SMALLEST_FILE:
            return Stretch(why_whole="it is short")
        try:
            return _found(reader, source.size, from_ns, to_ns)
        except _CannotTell as why:
            return Stretch(why_whole=str(why))


def _found(reader: CaptureReader, size: int, from_ns: int, to_ns: int) -> Stretch:
    places = _places(reader, size)
    margin_ns = 2 * SLACK_NS
    reached = [at for at, place in enumerate(places) if place.time_ns + margin_ns >= from_ns]
    before = [at for at, place in enumerate(places) if place.time_ns - margin_ns < to_ns]
    first = max((reached[0] if reached else len(places)) - 2, 0)
    last = min((before[-1] if before else 0) + 2, len(places))
    end = max(places[last].offset, places[last - 1].end) if last < len(places) else NO_LIMIT
    if not first:
        return Stretch(0, end)
    is_searched = reader.format == "pcap" or min(end, size) <= SEARCHED_BYTES
    if not is_searched:
        _check_jumps(places)
    elif reader.format == "pcapng":
        _check_sections(reader, min(end, size))
    _prove(reader, places[first].offset, places[first + 1].offset)
    return Stretch(places[first].offset, end, is_searched=is_searched)


def _places(reader: CaptureReader, size: int) -> list[_Place]:
    """Return what time it is at places all over the file.

    Raises
    ------
    _CannotTell
        Nothing is found there, or time does not rise.
    """
    places: list[_Place] = []
    latest_ns = EARLIEST_NS
    for number in range(PLACES):
        offset = size * number // PLACES
        if places and offset <= places[-1].offset:
            continue
        place = _look(reader, offset)
        latest_ns = max(latest_ns, place.time_ns)
        if place.time_ns < latest_ns - SLACK_NS:
            raise _CannotTell(f"time steps back between byte {places[-1].offset} and byte {place.offset}")
        if reader.format == "pcap" and places and places[-1].below_a_millisecond and place.below_a_millisecond:
            raise _CannotTell(f"fractions of a second near byte {place.offset} seem to be of another unit")
        if not places or place.offset > places[-1].offset:
            places.append(place)
    return places


def _look(reader: CaptureReader, offset: int) -> _Place:
    """Return what time it is at a place."""
    if not reader.jump_near(offset):
        raise _CannotTell(f"no record is found near byte {offset}")
    began_at = reader.began_at
    timestamps = _timestamps(reader, began_at + PLACE_BYTES)
    if reader.facts.problems or reader.facts.fractions.first or reader.facts.headers.count:
        raise _CannotTell(f"the data near byte {offset} is damaged, or the header of another file")
    if not len(timestamps):
        raise _CannotTell(f"no frame near byte {offset} has a timestamp")
    displaced = np.abs(difference_ns(timestamps, np.sort(timestamps))) > SLACK_NS
    clamped = (timestamps == EARLIEST_NS) | (timestamps == LATEST_NS)
    if np.count_nonzero(displaced | clamped) > LONE_FRAMES:
        raise _CannotTell(f"frames near byte {offset} are out of order by more than a second")
    # As microseconds are where nanoseconds should be: those of a file with another header.
    fractions = timestamps % NANOSECONDS
    small = 0 < int(fractions.max()) < _MILLISECOND_NS
    return _Place(began_at, reader.stopped_at, int(np.sort(timestamps)[len(timestamps) // 2]), small)


def _timestamps(reader: CaptureReader, stop_at: int) -> NDArray[np.int64]:
    """Return the timestamps of the frames from where a reader is to an offset."""
    reader.stop_at = stop_at
    found = [timestamps.copy() for timestamps in _each_timestamps(reader)]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _prove(reader: CaptureReader, first: int, second: int) -> None:
    """Check that a walk from one place arrives exactly at the next, so that records do start there."""
    reader.stop_at = NO_LIMIT
    if not reader.jump_near(first) or reader.began_at != first:
        raise _CannotTell(f"no record is found near byte {first}")
    _timestamps(reader, second)
    if reader.stopped_at != second or reader.facts.problems or reader.facts.headers.count:
        raise _CannotTell(f"the data between byte {first} and byte {second} is damaged")


def _check_jumps(places: list[_Place]) -> None:
    """Look for places of another section of a pcapng file, whose times would be read in the unit of the first.

    Places that name interfaces which the first section does not have are damaged for whoever knows that only.
    """
    for before, after in pairwise(places):
        if after.time_ns - before.time_ns > DAY_NS:
            raise _CannotTell(
                f"time jumps by more than a day between byte {before.offset} and byte {after.offset}, as in another "
                "section"
            )


def _check_sections(reader: CaptureReader, end: int) -> None:
    """Look for a further section of a pcapng file, whose interfaces nobody would know who had not read its header.

    That reads everything before the stretch, though far quicker than its frames could be.
    """
    buffer = np.empty(_SCAN_BYTES, np.uint8)
    words = buffer.view("<u4")
    source = reader.source
    source.seek(0)
    done = 0
    while done < end:
        got = 0
        while got < _SCAN_BYTES and (more := source.readinto(buffer.data[got:])):
            got += more
        if not got:
            return
        same = words[: got // 4] == SECTION_HEADER_BLOCK
        hits = np.flatnonzero(same) if same.any() else np.empty(0, np.intp)
        if len(hits) and done + 4 * int(hits[-1]) > 0:
            raise _CannotTell(f"another section seems to begin at byte {done + 4 * int(hits[-1])}")
        done += got


def ends_of(
    path: str, *, unit: TimestampUnit = "auto", wake: Wake | None = None, only_first: bool = False
) -> tuple[int, int] | None:
    """Return the first and last time of a file; None where no frame has one.

    The earliest of the first frames and the latest of the last ones count, but for single ones that are far off.

    Parameters
    ----------
    path : str
    unit : {'auto', 'us', 'ns'}
    wake : Wake, optional
    only_first : bool
        The last time need not be right.

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        The file cannot be opened.
    """
    head = np.empty(0, np.int64)
    with open_capture(path, wake, unit=unit) as reader:
        for timestamps in _each_timestamps(reader):
            head = np.concatenate([head, timestamps[: _END_FRAMES - len(head)]])
            if len(head) == _END_FRAMES:
                break
    if not len(head):
        return None
    tail = head if only_first else _last_timestamps(path, unit, wake)
    return _trusted(np.sort(head)), -_trusted(np.sort(-tail))


def _last_timestamps(path: str, unit: TimestampUnit, wake: Wake | None) -> NDArray[np.int64]:
    """Return the last timestamps of a file that has some."""
    with open_capture(path, wake, unit=unit) as reader:
        size = reader.size if reader.source.seekable_plain else None
        if size is not None and size >= SMALLEST_FILE and reader.jump_near(size - SMALLEST_FILE // 4):
            tail = _tail(reader)
            if len(tail) and not reader.facts.problems:
                return tail
    with open_capture(path, wake, unit=unit) as reader:
        return _tail(reader)


def _tail(reader: CaptureReader) -> NDArray[np.int64]:
    tail: NDArray[np.int64] = np.empty(0, np.int64)
    for timestamps in _each_timestamps(reader):
        tail = np.concatenate([tail, timestamps[-_END_FRAMES:]])[-_END_FRAMES:]
    return tail


def _each_timestamps(reader: CaptureReader) -> Iterator[NDArray[np.int64]]:
    """Yield the timestamps of each batch's frames; of use until the next."""
    for batch in reader.batches():
        yield batch.timestamp_ns[batch.timestamp_source != TimestampSource.NONE]


def _trusted(rising: NDArray[np.int64]) -> int:
    """Return the lowest of sorted times, without up to three that lie far below the others."""
    for few in range(min(_FEW, len(rising) // 8), 0, -1):
        extent = int(rising[-1 - min(_FEW, len(rising) // 8)]) - int(rising[few])
        if int(rising[few]) - int(rising[few - 1]) > max(_FAR_NS, 10 * extent):
            return int(rising[few])
    return int(rising[0])
