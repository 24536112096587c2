"""How capture files are read, alike in every command: which, of which interfaces, from when to when.

What must be known before the first frame is analyzed is found out here, once for all files, and is the same for every
part of a file and every thread.
"""

from __future__ import annotations

import glob
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from uspcap.errors import CaptureFileError, NotACaptureFile, UsageError, UspcapError
from uspcap.formats import open_capture
from uspcap.formats.parts import open_parts
from uspcap.formats.reader import NO_LIMIT, CaptureReader, TimestampUnit
from uspcap.formats.waking import Wake
from uspcap.frames import Problem
from uspcap.stages.moments import Kind, Moment, TimeRange, resolved
from uspcap.stages.order import Sorting
from uspcap.stages.selection import FrameSelection
from uspcap.stages.taps import ONE_TAP, InterfaceTaps, Taps, each_apart, find_taps

if TYPE_CHECKING:
    from uspcap.formats.stretch import Stretch

_COMPRESSED_SUFFIXES: Final = frozenset({".gz", ".bz2", ".zst", ".xz", ".lz4"})
CAPTURE_SUFFIXES: Final = _COMPRESSED_SUFFIXES | {".pcap", ".pcapng", ".cap", ".ntar", ".dmp"}


@dataclass(frozen=True, slots=True)
class Input:
    """A capture file as it was named.

    Attributes
    ----------
    path : str
        `-` is standard input.
    interfaces : tuple of str
        Those of its interfaces that were named with it; none stands for all.
    repeats : int
        How often it was named again.
    """

    path: str
    interfaces: tuple[str, ...] = ()
    repeats: int = 0

    def __str__(self) -> str:
        return "@".join((self.path, *self.interfaces))


@dataclass(frozen=True, slots=True)
class Reading:
    """What is asked of all files of a command.

    Attributes
    ----------
    interfaces : tuple of str
        Names or numbers of interfaces, beside what a file was named with; none stands for all.
    begin, end : Moment or None
    unit : {'auto', 'us', 'ns'}
        Of fractions of a second in pcap files.
    taps : {'auto', 'join', 'apart'}
        Whether the interfaces of a file are one tap.
    sorting : int, 'auto' or 'off'
        How frames are put in order of time (`uspcap.stages.order`).
    dedup_ns : int or None
        Packets whose like came so long before at most are left out.
    """

    interfaces: tuple[str, ...] = ()
    begin: Moment | None = None
    end: Moment | None = None
    unit: TimestampUnit = "auto"
    taps: InterfaceTaps = "auto"
    sorting: Sorting = "auto"
    dedup_ns: int | None = None

    @property
    def has_range(self) -> bool:
        """Whether a range of time was asked for."""
        return self.begin is not None or self.end is not None


EVERYTHING: Final = Reading()


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """A file, and what of it is to be read.

    Attributes
    ----------
    path : str
    interfaces : tuple of str
    unit : {'auto', 'us', 'ns'}
    time_range : TimeRange or None
    stretch : Stretch or None
        Where a range of time is asked for.
    taps : Taps
    sorting : int, 'auto' or 'off'
        How its frames, with those of other files, are put in order of time.
    dedup_ns : int or None
        Which copies of packets are left out, of all files alike.
    repeats : int
        How often it was named again.
    """

    path: str
    interfaces: tuple[str, ...] = ()
    unit: TimestampUnit = "auto"
    time_range: TimeRange | None = None
    stretch: Stretch | None = None
    taps: Taps = ONE_TAP
    sorting: Sorting = "off"
    dedup_ns: int | None = None
    repeats: int = 0

    @property
    def begin(self) -> int:
        """Byte at which reading begins."""
        return 0 if self.stretch is None else self.stretch.begin

    @property
    def end(self) -> int:
        """Byte from which on records are left out."""
        return NO_LIMIT if self.stretch is None else self.stretch.end

    def open(self, wake: Wake | None = None, among: int = 1) -> CaptureReader:
        """Open the file where reading is to begin, one of so many at once; as `uspcap.formats.open_capture` raises."""
        return self.open_range(self.begin, self.end, wake, among)

    def open_range(self, begin: int, end: int, wake: Wake | None = None, among: int = 1) -> CaptureReader:
        """Open the file at a record, to be read up to the records that start at `end`."""
        return open_parts(self.path, 1, wake, unit=self.unit, begin=begin, end=end, among=among)[0]

    def open_parts(self, most: int, wake: Wake | None = None) -> list[CaptureReader]:
        """Open the file once for each of up to `most` parts: see `uspcap.formats.parts.open_parts`."""
        return open_parts(self.path, most, wake, unit=self.unit, begin=self.begin, end=self.end)

    def selection(self) -> FrameSelection:
        """Return the stage that keeps the frames that are wanted; it is to come before all others."""
        taps = None if self.taps == ONE_TAP else self.taps.table
        return FrameSelection(self.interfaces, self.time_range, taps)

    @property
    def notes(self) -> list[str]:
        """What is to be said of how the file is read, sentences without a full stop."""
        again = [f"{self.path} was named {self.repeats + 1} times, but is read once"] if self.repeats else []
        return [*again, *self._range_notes(), *self.taps.notes()]

    def _range_notes(self) -> list[str]:
        stretch = self.stretch
        if stretch is None or stretch.why_whole == "it is short":
            return []
        if stretch.why_whole:
            return [f"{self.path} was read in full for --from and --to: {stretch.why_whole}"]
        to_end = stretch.end >= Path(self.path).stat().st_size
        if to_end and not stretch.begin:
            return []
        until = "its end" if to_end else f"byte {stretch.end}"
        return [
            f"{self.path} was read from byte {stretch.begin} to {until} only, as time rises wherever it was looked at: "
            "frame numbers count from there, and what lies outside was not checked for damage"
            + ("" if stretch.is_searched else ", nor for further sections")
        ]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command reads.

    Attributes
    ----------
    inputs : tuple of PlannedInput
    time_range : TimeRange or None
    """

    inputs: tuple[PlannedInput, ...]
    time_range: TimeRange | None = None


def plan(paths: Sequence[str | Input], reading: Reading, wake: Wake | None = None, *, margin_ns: int = 0) -> Plan:
    """Decide what is read of which file.

    Parameters
    ----------
    paths : sequence of str or Input
    reading : Reading
    wake : Wake, optional
        Ends it, as in `uspcap.formats.open_capture`.
    margin_ns : int
        How far beyond the range of time frames are read on both sides.

    Raises
    ------
    UsageError
        The range of time is empty, or cannot be known before a pipe is read.
    CaptureFileError, NotACaptureFile, MissingFeature
        A file cannot be opened.
    """
    inputs = [Input(path) if isinstance(path, str) else path for path in paths]
    time_range = _time_range(inputs, reading, wake) if reading.has_range else None
    read = None if time_range is None else time_range.moved(-margin_ns, margin_ns)
    taps = _taps(inputs, reading, wake)
    planned = [_planned(one, reading, read, of_it, wake) for one, of_it in zip(inputs, taps, strict=True)]
    return Plan(tuple(planned), time_range)


def _planned(
    given: Input, reading: Reading, time_range: TimeRange | None, taps: Taps, wake: Wake | None
) -> PlannedInput:
    stretch = None
    if time_range is not None:
        from uspcap.formats.stretch import Stretch, find_stretch

        if is_read_once(given.path):
            stretch = Stretch(why_whole="it can be read only once")
        else:
            stretch = find_stretch(given.path, time_range.from_ns, time_range.to_ns, unit=reading.unit, wake=wake)
    interfaces = given.interfaces + reading.interfaces
    return PlannedInput(
        given.path,
        interfaces,
        reading.unit,
        time_range,
        stretch,
        taps,
        reading.sorting,
        reading.dedup_ns,
        given.repeats,
    )


def _taps(inputs: Sequence[Input], reading: Reading, wake: Wake | None) -> list[Taps]:
    """Return the taps of each input."""
    if reading.taps == "apart":
        return each_apart([entry.path for entry in inputs], _has_one_interface)
    if reading.taps == "join" or not inputs or any(is_read_once(entry.path) for entry in inputs):
        return [ONE_TAP for _ in inputs]
    files = [(entry.path, entry.interfaces + reading.interfaces) for entry in inputs]
    try:
        return find_taps(files, unit=reading.unit, wake=wake)
    except UspcapError:
        # What is wrong with a file, whoever reads it says, once options are known to make sense.
        return [ONE_TAP for _ in inputs]


def _has_one_interface(path: str) -> bool:
    """Whether a file can have one interface only, of what can be known of it before it is read."""
    if is_read_once(path):
        return False
    try:
        with open_capture(path) as reader:
            return reader.format != "pcapng"
    except UspcapError:
        # What is wrong with a file, whoever reads it says.
        return True


def _time_range(inputs: Sequence[Input], reading: Reading, wake: Wake | None) -> TimeRange:
    """Return the range of time in ns, for all files the same."""
    from uspcap.formats.stretch import ends_of

    moments = [moment for moment in (reading.begin, reading.end) if moment is not None]
    relative = next((moment for moment in moments if moment.kind is not Kind.INSTANT), None)
    only_first = all(moment.kind is Kind.AFTER_BEGIN for moment in moments if moment.kind is not Kind.INSTANT)
    once = next((entry.path for entry in inputs if is_read_once(entry.path)), None)
    if relative is not None and once is not None:
        raise UsageError(
            f"{relative.text} is relative to the first or last frame, and "
            f"{'standard input' if once == '-' else once} can be read only once: give a date and time, as in "
            "2024-03-05T14:30, or save it to a file first"
        )

    @cache
    def ends() -> tuple[int, int]:
        found = [
            ends_of(path, unit=reading.unit, wake=wake, only_first=only_first) for path in {i.path for i in inputs}
        ]
        known = [time_ns for time_ns in found if time_ns is not None]
        if not known:
            raise UsageError("no frame has a timestamp: leave out --from and --to")
        return min(first for first, _ in known), max(last for _, last in known)

    try:
        return resolved(reading.begin, reading.end, lambda: ends()[0], lambda: ends()[1])
    except ValueError as error:
        raise UsageError(str(error)) from None


def in_order_of_time(paths: Sequence[str | Input], reading: Reading) -> list[Input]:
    """Return files that are one capture in the order of their first times; those without a time, or read once, last."""
    from uspcap.formats.stretch import ends_of

    inputs = [Input(path) if isinstance(path, str) else path for path in paths]
    if len(inputs) == 1:
        return inputs

    def first_ns(given: Input) -> float:
        ends = None if is_read_once(given.path) else ends_of(given.path, unit=reading.unit, only_first=True)
        return float("inf") if ends is None else ends[0]

    return sorted(inputs, key=first_ns)


def captures_among(inputs: Sequence[Input]) -> tuple[list[Input], list[Problem]]:
    """Part inputs that are captures from files that are none, each of which is a problem.

    Raises
    ------
    NotACaptureFile
        None of them is a capture.
    CaptureFileError, MissingFeature
        One cannot be opened.
    """
    if len(inputs) == 1:
        return list(inputs), []
    captures: list[Input] = []
    problems: list[Problem] = []
    refused: NotACaptureFile | None = None
    for one in inputs:
        try:
            if not is_read_once(one.path):
                open_capture(one.path).close()
        except NotACaptureFile as error:
            refused = refused or error
            problems.append(Problem(one.path, 0, f"{str(error).removeprefix(f'{one.path}: ')}: left out"))
        else:
            captures.append(one)
    if refused is not None and not captures:
        raise refused
    return captures, problems


def is_read_once(path: str) -> bool:
    """Tell whether a path is standard input or a pipe."""
    try:
        return path == "-" or (Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir())
    except (OSError, ValueError):
        return False


def expand(word: str) -> list[Input]:
    """Return the capture files that a word names: a file, a directory or a glob, perhaps with @INTERFACE behind.

    Of a directory those files are taken whose names end as capture files' do, or that begin as capture files do; files
    in directories below and hidden ones are not, nor empty ones. Files come in the order of their names, with numbers
    in names as numbers.

    Raises
    ------
    CaptureFileError
        A glob or directory has none, or cannot be listed.
    """
    path, interfaces = split_interface(word)
    return [Input(file, interfaces) for file in _files(path)]


def expand_all(words: Iterable[str]) -> list[Input]:
    """Return the capture files that words name, in their order, each once, and each interface of a file once.

    A file that is named again, by whatever path, or of which all is read anyhow, would have every packet duplicated.
    """
    named = [(given, _identity(given.path)) for word in words for given in expand(word)]
    whole = {file for given, file in named if file is not None and not given.interfaces}
    inputs: list[Input] = []
    # Where each file and interface is read; "" is all of a file.
    places: dict[tuple[object, str], int] = {}
    for given, file in named:
        interfaces = dict.fromkeys(("",) if file in whole else given.interfaces or ("",))
        left = [name for name in interfaces if file is None or (file, name) not in places]
        for at in {places[file, name] for name in interfaces if name not in left}:
            inputs[at] = replace(inputs[at], repeats=inputs[at].repeats + 1)
        if left:
            places |= {(file, name): len(inputs) for name in left}
            inputs.append(replace(given, interfaces=tuple(name for name in left if name)))
    return inputs


def _identity(path: str) -> tuple[int, int] | None:
    """Return what two paths to one regular file share, None of anything else."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


def split_interface(word: str) -> tuple[str, tuple[str, ...]]:
    """Part a path from the interface that may be named behind it, as in `day.pcapng@eth0`.

    A file of the whole name comes first. `@eth0,eth1` names two.
    """
    if _exists(word):
        return word, ()
    for match in re.finditer("@", word):
        path, names = word[: match.start()], word[match.end() :]
        if path and names and (path == "-" or _exists(path) or _is_glob(path) or looks_like_capture(path)):
            return path, tuple(name for name in names.split(",") if name)
    return word, ()


def looks_like_capture(path: str) -> bool:
    """Tell whether a path ends as those of capture files do."""
    return Path(path).suffix.lower() in CAPTURE_SUFFIXES


def names_files(word: str) -> bool:
    """Tell whether a word of a command line names capture files, and is not the beginning of a filter."""
    path, _ = split_interface(word)
    return path == "-" or looks_like_capture(path) or _exists(path) or (_is_glob(path) and bool(_matches(path)))


def _files(path: str) -> list[str]:
    if path == "-":
        return [path]
    if _exists(path):
        return _in_directory(path) if Path(path).is_dir() else [path]
    if not _is_glob(path):
        return [path]
    found = [file for match in _matches(path) for file in (_in_directory(match) if Path(match).is_dir() else [match])]
    if not found:
        raise CaptureFileError(f"no file matches {path}; check the directory and the pattern")
    return found


def _matches(pattern: str) -> list[str]:
    # Not pathlib's, which changes what was named: ./a becomes a.
    return sorted(glob.glob(pattern, recursive=True), key=_natural)  # noqa: PTH207


def _in_directory(path: str) -> list[str]:
    try:
        files = sorted(
            (child for child in Path(path).iterdir() if child.name[0] != "."), key=lambda child: _natural(child.name)
        )
        found = [str(child) for child in files if child.is_file() and child.stat().st_size and _is_capture(str(child))]
    except OSError as error:
        raise CaptureFileError(f"cannot list {path}: {error.strerror}; ask for permission to read it") from error
    if not found:
        raise CaptureFileError(f"there is no capture file in the directory {path}; name one that has some")
    return found


def _is_capture(path: str) -> bool:
    plain = Path(path).with_suffix("") if Path(path).suffix.lower() in _COMPRESSED_SUFFIXES else Path(path)
    if plain.suffix.lower() in CAPTURE_SUFFIXES:
        return True
    try:
        open_capture(path).close()
    except UspcapError:
        return False
    return True


def _natural(name: str) -> list[tuple[int, str]]:
    """Return what sorts names as people do: `day2` before `day10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", name)]


def _is_glob(path: str) -> bool:
    return glob.has_magic(path)


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        # Longer than any name, as a whole filter in quotes may be.
        return False
