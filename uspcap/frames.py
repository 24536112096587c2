"""FrameBatch: the one type that flows from every source to every analysis.

A batch is a struct of numpy columns over one buffer of bytes, a few thousand frames at most, so that
it stays in the CPU's cache. Sources fill the same batch again and again: what a consumer wants to keep
beyond its `update` call, it copies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import CLAMPED_LISTED, EARLIEST_NS, FRAME_FIELDS, LATEST_NS, FrameColumns, HeaderColumns

__all__ = [
    "CLAMPED_LISTED",
    "EARLIEST_NS",
    "LATEST_NS",
    "NANOSECONDS",
    "PROBLEMS_LISTED",
    "UNTRUSTED",
    "ClampedTimestamps",
    "Decision",
    "FractionCounts",
    "FrameBatch",
    "Interface",
    "LaterHeaders",
    "Problem",
    "SourceFacts",
    "TimestampSource",
]

NANOSECONDS = 1_000_000_000

PROBLEMS_LISTED = 100
"""Problems of a source kept one by one; those that come after are counted."""


UNTRUSTED = 0x80
"""Set in a frame's `timestamp_source` where its timestamp is not to be trusted: such a frame has no time anywhere."""


class TimestampSource(IntEnum):
    """Where a frame's timestamp was taken; the lower the number, the closer to the wire."""

    HARDWARE = 0
    """NIC clock, converted to UTC."""
    TRAILER = 1
    """Appended to the frame by a switch or tap."""
    XDP = 2
    """Driver hook, before the kernel's stack."""
    KERNEL = 3
    """Receive timestamp of the kernel's socket buffer."""
    USER = 4
    """Read from the ring in user space."""
    FILE = 5
    """Whatever a capture file says; who timestamped it is not known."""
    NONE = 6
    """No timestamp at all; `timestamp_ns` is 0 and means nothing."""


@dataclass(frozen=True, slots=True)
class Interface:
    """What a source says about one of its interfaces.

    Attributes
    ----------
    link_type : int
        LINKTYPE_ value of the tcpdump.org registry (1 is Ethernet).
    name, description, filter, hardware, operating_system : str
        Empty where the source does not say.
    snaplen : int
        Longest captured length in bytes; 0 where there is no limit.
    ticks_per_second : int
        Resolution of the timestamps in the file; 1_000_000_000 is nanoseconds.
    timestamp_offset_s : int
        Seconds added to every timestamp (pcapng if_tsoffset).
    fcs_length : int
        Bytes of frame check sequence at the end of each frame, -1 where not known.
    timestamp_source : TimestampSource
        Who timestamped the frames of this interface.
    speed_bps : int
        Bits a second, 0 where not known.
    """

    link_type: int
    name: str = ""
    description: str = ""
    filter: str = ""
    hardware: str = ""
    operating_system: str = ""
    snaplen: int = 0
    ticks_per_second: int = NANOSECONDS
    timestamp_offset_s: int = 0
    fcs_length: int = -1
    timestamp_source: TimestampSource = TimestampSource.FILE
    speed_bps: int = 0


@dataclass(slots=True)
class Problem:
    """One thing that is wrong with the input, for the report's `problems`.

    Attributes
    ----------
    file : str
        As the user named it; `-` is standard input.
    offset : int
        Byte offset in the (decompressed) file.
    what : str
        One clear sentence without a full stop.
    frame : int or None
        Number of the frame that it is about, from 1 in the file, as Wireshark counts; None where it is about none.
    """

    file: str
    offset: int
    what: str
    frame: int | None = None

    @property
    def place(self) -> str:
        """Where it is in the file."""
        return f"byte {self.offset}" + ("" if self.frame is None else f", frame {self.frame}")


@dataclass(slots=True)
class ClampedTimestamps:
    """Timestamps more than 2^62 - 1 ns from the epoch, of which the nearest end was taken.

    Between the ends, the years 1823 and 2116, no difference of two times leaves 64 bits, nor does a time and a timeout.

    Attributes
    ----------
    listed : list of Problem
        The first `CLAMPED_LISTED`, each with its frame.
    count : int
        All of them.
    """

    listed: list[Problem] = field(default_factory=list)
    count: int = 0

    def note(self, file: str, offset: int, frame: int, *, later: bool) -> None:
        """List one that was later than the latest, else earlier than the earliest; it is counted elsewhere."""
        if len(self.listed) < CLAMPED_LISTED:
            end = "after 2116-02-20T23:53:38Z" if later else "before 1823-11-12T00:06:21Z"
            self.listed.append(
                Problem(file, offset, f"the timestamp lies {end}, outside uspcap's range, and was clamped to it", frame)
            )

    def append(self, later: ClampedTimestamps, frames_before: int) -> None:
        """Take in those of the part that comes after so many frames."""
        for problem in later.listed[: CLAMPED_LISTED - len(self.listed)]:
            self.listed.append(replace(problem, frame=(problem.frame or 0) + frames_before))
        self.count += later.count

    def problems(self) -> list[Problem]:
        """Return those listed, and one for those that are only counted."""
        more = self.count - len(self.listed)
        if not more:
            return self.listed
        what = f"and {more} more timestamps after this one are outside uspcap's range"
        return [*self.listed, replace(self.listed[-1], what=what)]


@dataclass(frozen=True, slots=True)
class Decision:
    """What uspcap decided automatically about an input before it was analyzed.

    Attributes
    ----------
    file : str
        As the user named it.
    option : str
        The option that forces it, as on a command line.
    why : str
        The evidence, one sentence without a full stop.
    """

    file: str
    option: str
    why: str


@dataclass(slots=True)
class FractionCounts:
    """Fractions of a second of pcap records that do not fit the file's unit.

    Attributes
    ----------
    first : Problem or None
        The first frame whose fraction is a second or more.
    beyond : int
        All such frames.
    units : int
        Units in a second, where the first was met.
    assumed_ns : int
        Frames whose fraction was read as nanoseconds although the file says microseconds.
    assumed_below_million : int
        Those of them that could be microseconds.
    """

    first: Problem | None = None
    beyond: int = 0
    units: int = NANOSECONDS
    assumed_ns: int = 0
    assumed_below_million: int = 0

    def append(self, later: FractionCounts, frames_before: int) -> None:
        """Take in those of the part that comes after so many frames."""
        if self.first is None and later.first is not None:
            self.first = replace(later.first, frame=(later.first.frame or 0) + frames_before)
            self.units = later.units
        self.beyond += later.beyond
        self.assumed_ns += later.assumed_ns
        self.assumed_below_million += later.assumed_below_million

    def problems(self, name: str) -> list[Problem]:
        """Return what is wrong with them, a problem of a kind."""
        found = []
        if self.first is not None:
            advice = "; --timestamp-unit ns reads them as nanoseconds" if self.units < NANOSECONDS else ""
            what = (
                f"{self.beyond} timestamps, of which this is the first, have a fraction of a second beyond "
                f"{self.units - 1:,} {'microseconds' if self.units < NANOSECONDS else 'nanoseconds'}: it was added as "
                f"it is{advice}"
            )
            found.append(replace(self.first, what=what))
        if self.assumed_below_million * 10 > self.assumed_ns:
            what = (
                f"fractions of a second were taken for nanoseconds, as the file's first ones must be, but "
                f"{self.assumed_below_million} of {self.assumed_ns} could be microseconds: compare with "
                "--timestamp-unit us"
            )
            found.append(Problem(name, 0, what))
        return found


@dataclass(slots=True)
class LaterHeaders:
    """File headers within a file: captures that were concatenated.

    Attributes
    ----------
    first : tuple of (int, str) or None
        Offset and format of the first, beside the one at the start.
    count : int
    """

    first: tuple[int, str] | None = None
    count: int = 0

    def append(self, later: LaterHeaders) -> None:
        """Take in those of the part that comes after."""
        self.first = self.first or later.first
        self.count += later.count

    def notes(self, name: str) -> list[str]:
        """Return a sentence about them, none where there are none."""
        if self.first is None:
            return []
        offset, kind = self.first
        more = f", and {self.count - 1} more after it" if self.count > 1 else ""
        return [f"{name}: a second file header ({kind}) begins at byte {offset}{more}; what follows was read, too"]


@dataclass(slots=True)
class SourceFacts:
    """What a source knows once it is read, beside its frames.

    Attributes
    ----------
    interfaces : list of Interface
        All interfaces met so far, in the order of the `interface` column.
    problems : list of Problem
        Damage, the first `PROBLEMS_LISTED`; reading went on where it could.
    problems_unlisted : int
        Further ones.
    truncated : bool
        The input ended in the middle of a record.
    interface_drops : dict of int to int
        Frames that the capturing host says it dropped, by interface, where the file says so.
    finer_than_ns : int
        Timestamps that lost what the file said below 1 ns.
    clamped : ClampedTimestamps
    fractions : FractionCounts
    headers : LaterHeaders
    decisions : list of Decision
        What was decided about the file when it was opened.
    frames : int
        Frames read, where the source counts them.
    """

    interfaces: list[Interface] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    problems_unlisted: int = 0
    truncated: bool = False
    interface_drops: dict[int, int] = field(default_factory=dict)
    finer_than_ns: int = 0
    clamped: ClampedTimestamps = field(default_factory=ClampedTimestamps)
    fractions: FractionCounts = field(default_factory=FractionCounts)
    headers: LaterHeaders = field(default_factory=LaterHeaders)
    decisions: list[Decision] = field(default_factory=list)
    frames: int = 0

    def add_problem(self, problem: Problem) -> None:
        """List a problem, or count it where too many are listed."""
        if len(self.problems) < PROBLEMS_LISTED:
            self.problems.append(problem)
        else:
            self.problems_unlisted += 1

    def append(self, later: SourceFacts) -> None:
        """Take in what was found in the part of the source that comes directly after; interfaces are left alone."""
        for problem in later.problems:
            self.add_problem(problem)
        self.problems_unlisted += later.problems_unlisted
        self.truncated |= later.truncated
        self.interface_drops |= later.interface_drops
        self.finer_than_ns += later.finer_than_ns
        self.clamped.append(later.clamped, self.frames)
        self.fractions.append(later.fractions, self.frames)
        self.headers.append(later.headers)
        self.decisions += [decision for decision in later.decisions if decision not in self.decisions]
        self.frames += later.frames

    def all_problems(self, name: str) -> list[Problem]:
        """Return the problems listed, one for those that there are only a count of, and timestamps."""
        problems = list(self.problems)
        if self.problems_unlisted:
            what = f"and {self.problems_unlisted} more problems after this one"
            problems.append(Problem(name, problems[-1].offset, what))
        return problems + self.fractions.problems(name) + self.clamped.problems()

    def notes(self, name: str) -> list[str]:
        """Return what is to be said of the file beside problems, sentences without a full stop."""
        return self.headers.notes(name) + [
            f"{decision.file}: {decision.why} (as {decision.option})" for decision in self.decisions
        ]


class FrameBatch(FrameColumns):
    """A few thousand frames: one row a frame, all columns `count` long.

    Columns
    -------
    timestamp_ns : ndarray of int64
        Nanoseconds since the epoch, UTC, `EARLIEST_NS` … `LATEST_NS`: sources clamp what lies beyond, so that one at
        either end is taken for one that was clamped.
    timestamp_source : ndarray of uint8
        A `TimestampSource`; with the bit `UNTRUSTED` where frames were put in order and the timestamp is an outlier.
    wire_length, captured_length : ndarray of uint32
        Bytes on the wire as the source says (the FCS mostly not among them), and bytes kept.
    interface : ndarray of uint16
        Index into the source's interfaces.
    offset : ndarray of int64
        Where the frame's first byte lies in `data`.
    frame_number : ndarray of int64
        Counts from 1 over everything the source read, filtered-out frames included.
    flags, queue : ndarray of uint32
        pcapng epb_flags (bits 0-1: 1 inbound, 2 outbound) and epb_queue; 0 where not given.
    drop_count : ndarray of uint64
        pcapng epb_dropcount: frames lost between this frame and the one before on its interface.
    options_offset : ndarray of int64
        Where the frame's raw pcapng options lie in `data`; meaningful where options_length is not 0.
    options_length : ndarray of uint32
        Their length in bytes.
    read_ns : ndarray of int64
        CLOCK_REALTIME of the visit to the ring in which the frame was read, taken after the frame was found to be
        there; 0 where it came from no ring. Of a frame whose timestamp is not to be trusted, the time of the frame that
        it lies behind.

    Other attributes
    ----------------
    frames_read : int
        Frames that the source consumed to make this batch, `count` and what a filter took out.
    frames_before : int
        Frames that the source had consumed before this batch: the first row's number is at least one more.
    data : ndarray of uint8
        The buffer behind `offset`.
    interfaces : Sequence of Interface
    fill : int
        Goes up by one each time the rows change.
    flow_table : object
        The flow table that the `flow` header column was filled from, None where it was not.
    trailers : object
        What was found in the frames before a filter thinned them (`uspcap.timestamps.trailers`), None where nothing
        was looked for.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.interfaces: Sequence[Interface] = ()
        self.decode_tunnels = False
        self.big_endian_options = False
        self._headers: HeaderColumns | None = None
        self._headers_current = False
        self.fill = 0
        self._clamped = 0
        self._clamped_at_fill = -1
        self.flow_table: object = None
        self.trailers: object = None

    def __len__(self) -> int:
        return self.count

    def set_interfaces(self, interfaces: Sequence[Interface]) -> None:
        """Set what the `interface` column points into."""
        self.interfaces = tuple(interfaces)
        self.set_link_types(np.array([interface.link_type for interface in interfaces], np.int32))

    def refilled(self) -> None:
        """Tell the batch that its rows are new; a source calls it before each yield."""
        self._headers_current = False
        self.flow_table = None
        self.fill += 1

    @property
    def headers(self) -> HeaderColumns:
        """The decoded header columns, made on first use after each refill."""
        if not self._headers_current or (self._headers is not None and self._headers.tunnels != self.decode_tunnels):
            from uspcap._core.headers import decode

            if self._headers is None:
                self._headers = HeaderColumns(self.capacity)
            decode(self, self._headers, self.decode_tunnels)
            self._headers_current = True
            self.flow_table = None
        assert self._headers is not None
        return self._headers

    @property
    def clamped(self) -> int:
        """How many rows have a timestamp that was clamped, or is now; counted on first use after each refill."""
        if self._clamped_at_fill != self.fill:
            self._clamped = self.clamp_timestamps()
            self._clamped_at_fill = self.fill
        return self._clamped

    def keep(self, mask: NDArray[np.uint8] | NDArray[np.bool_]) -> None:
        """Keep the rows where `mask` is not 0; header columns are decoded again on next use."""
        self.select(mask)
        self.refilled()

    def frame_bytes(self, row: int) -> bytes:
        """Return the captured bytes of one row, copied."""
        start = int(self.storage("offset")[row])
        return self.data[start : start + int(self.storage("captured_length")[row])].tobytes()

    @property
    def timestamp_ns(self) -> NDArray[np.int64]:
        return self.column("timestamp_ns")

    @property
    def timestamp_source(self) -> NDArray[np.uint8]:
        return self.column("timestamp_source")

    @property
    def wire_length(self) -> NDArray[np.uint32]:
        return self.column("wire_length")

    @property
    def captured_length(self) -> NDArray[np.uint32]:
        return self.column("captured_length")

    @property
    def interface(self) -> NDArray[np.uint16]:
        return self.column("interface")

    @property
    def offset(self) -> NDArray[np.int64]:
        return self.column("offset")

    @property
    def frame_number(self) -> NDArray[np.int64]:
        return self.column("frame_number")

    def copy(self) -> FrameBatch:
        """Return a batch of the same rows that owns its memory, whatever becomes of this one."""
        rows = FrameBatch(max(self.count, 1))
        options = self.column("options_length") > 0
        starts = np.concatenate([self.offset, self.column("options_offset")[options]])
        lengths = np.concatenate([self.captured_length, self.column("options_length")[options]])
        first, last = (int(starts.min()), int((starts + lengths).max())) if self.count else (0, 0)
        rows.set_data(self.data[first:last].copy())
        for name, _ in FRAME_FIELDS:
            rows.storage(name)[: self.count] = self.column(name)
        rows.storage("offset")[: self.count] -= first
        rows.storage("options_offset")[: self.count][options] -= first
        rows.count = self.count
        rows.frames_read, rows.frames_before = self.frames_read, self.frames_before
        rows.set_interfaces(self.interfaces)
        rows.set_taps(self.taps)
        rows.decode_tunnels, rows.big_endian_options = self.decode_tunnels, self.big_endian_options
        rows.check_bounds()
        return rows

    @classmethod
    def from_frames(
        cls,
        frames: Sequence[bytes],
        timestamps_ns: Sequence[int] | NDArray[Any],
        *,
        wire_lengths: Sequence[int] | None = None,
        interfaces: Sequence[Interface] = (Interface(link_type=1),),
        timestamp_source: TimestampSource = TimestampSource.FILE,
        first_frame_number: int = 1,
    ) -> FrameBatch:
        """Make a batch of frames held in Python: for tests, samples and small tools.

        Parameters
        ----------
        frames : sequence of bytes
            Captured bytes, one item a frame, all of the first interface.
        timestamps_ns : sequence of int
            Nanoseconds since the epoch, as many as frames; clamped to `EARLIEST_NS` … `LATEST_NS`.
        wire_lengths : sequence of int, optional
            Where longer than what was captured.
        """
        count = len(frames)
        batch = cls(max(count, 1))
        batch.set_data(np.frombuffer(b"".join(frames), np.uint8).copy())
        lengths = np.fromiter((len(frame) for frame in frames), np.uint32, count)
        batch.storage("timestamp_ns")[:count] = [
            max(EARLIEST_NS, min(LATEST_NS, int(timestamp_ns))) for timestamp_ns in timestamps_ns
        ]
        batch.storage("timestamp_source")[:count] = timestamp_source
        batch.storage("captured_length")[:count] = lengths
        batch.storage("wire_length")[:count] = lengths if wire_lengths is None else wire_lengths
        batch.storage("offset")[1:count] = np.cumsum(lengths[:-1], dtype=np.int64)
        batch.storage("frame_number")[:count] = np.arange(first_frame_number, first_frame_number + count)
        batch.count = count
        batch.frames_read = count
        batch.frames_before = first_frame_number - 1
        batch.set_interfaces(interfaces)
        batch.check_bounds()
        return batch
