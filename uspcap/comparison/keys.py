"""Which frames of two captures are the same, and streams of their digests.

Keys
----
network : IP addresses, protocol, IP identification and fragment offset; transport header without its checksum, and
    payload. What changes on the way is left out: MAC addresses, VLAN tags, TTL, DSCP and ECN, checksums, padding of
    short Ethernet frames. Frames without IP: EtherType and what follows.
payload : what follows the transport header, for traffic whose addresses are translated.
whole : every byte from the link header on, and the wire length.
fields : addresses, protocol, identification, ports, payload length, TCP sequence, acknowledgment and flags, ICMP type
    and code: for captures that keep headers only.

A frame that has nothing that the key asks for (payload of a bare acknowledgment) has no digest; it is counted and left
out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from uspcap.bpf.filters import MatchCounts, filter_of_files
from uspcap.comparison.matching import Stream
from uspcap.formats.reader import CaptureReader
from uspcap.formats.waking import Wake
from uspcap.frames import NANOSECONDS, UNTRUSTED, Decision, FrameBatch, Interface, Problem, TimestampSource
from uspcap.protocols.digests import KEYS, digest
from uspcap.stages.order import Order
from uspcap.stages.reading import PlannedInput, is_read_once
from uspcap.stages.selection import FrameSelection
from uspcap.stats.buckets import BUCKETS, record_many

if TYPE_CHECKING:
    from uspcap.stages.moments import TimeRange
    from uspcap.stages.straightening import Straightener
    from uspcap.stages.tunnels import TunnelChoice
    from uspcap.timestamps.trailers import TrailerStage

CHUNK_FRAMES: Final = 16_384
"""Frames that are handed over at a time."""

LOOKED_AT_FRAMES: Final = 4_096
"""At the start of a capture, to see how much of each frame it keeps."""

FEWEST_TIMESTAMPS: Final = 100
"""Of fewer timestamps it is not taken for their resolution what they are multiples of."""

NO_LIMIT: Final = 1 << 18


@dataclass(slots=True)
class Side:
    """Facts about one capture of a comparison once it is read.

    Attributes
    ----------
    path : str
        As it was named, all files together.
    files : tuple of PlannedInput
    frames : int
        Frames that match the filter, have a timestamp and a digest.
    without_digest, without_timestamp, untrusted : int
        Those that were left out because they have none, or a timestamp that is not to be trusted.
    first_ns, last_ns : int or None
        Timestamps of the first and the last frame.
    multiple_ns : int
        The largest of 10^9, 10^6, 10^3 and 1 of which all timestamps are multiples.
    longest_payload : int
        Bytes after a TCP header.
    inter_arrival : ndarray of uint64, shape (BUCKETS,)
        Times between neighbouring frames, ns.
    backward : int
        Steps back in time, which are not among them.
    clamped : int
        Timestamps that were clamped, of frames that match the filter.
    sources : set of TimestampSource
    interfaces : list of Interface
    problems : list of Problem
    notes : list of str
        What is to be said of the files beside.
    decisions : list of Decision
    filtered : MatchCounts
        What the filter spoke of, and what it matched.
    tunnels : bool
        Whether the innermost headers count.
    order : Order
        What was found of the order of frames.
    put_in_order : bool
        Frames come in order of time, and numbers are those in the files.
    """

    path: str
    files: tuple[PlannedInput, ...] = ()
    frames: int = 0
    without_digest: int = 0
    without_timestamp: int = 0
    untrusted: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    multiple_ns: int = NANOSECONDS
    longest_payload: int = 0
    inter_arrival: np.ndarray[tuple[int], np.dtype[np.uint64]] = field(
        default_factory=lambda: np.zeros(BUCKETS, np.uint64)
    )
    backward: int = 0
    clamped: int = 0
    sources: set[TimestampSource] = field(default_factory=set)
    interfaces: list[Interface] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    filtered: MatchCounts = field(default_factory=MatchCounts)
    tunnels: bool = False

    @property
    def file_resolution_ns(self) -> int:
        """The resolution of the files' timestamps."""
        ticks = [interface.ticks_per_second for interface in self.interfaces if interface.ticks_per_second]
        return -(-NANOSECONDS // min(ticks)) if ticks else 1

    @property
    def resolution_ns(self) -> int:
        """The resolution of the timestamps: coarser than the files' where enough of them are multiples of more."""
        seen = self.multiple_ns if self.frames >= FEWEST_TIMESTAMPS else 1
        return max(self.file_resolution_ns, seen)

    def take_choice(self, choice: TunnelChoice) -> None:
        """Note the decision on tunnels for these files."""
        self.tunnels = choice.tunnels
        paths = {file.path for file in self.files}
        found = [decision for decision in choice.decisions if decision.file in paths]
        self.decisions += found
        self.notes += [f"{one.file}: {one.why} (as {one.option})" for one in found]
        self.notes += [note for path, note in choice.notes if path in paths]

    order: Order = field(default_factory=Order)
    put_in_order: bool = False


class DigestReader:
    """Reads one capture once and yields streams of digests.

    Parameters
    ----------
    files : sequence of PlannedInput
        One or more, one after the other.
    key : str
        One of `KEYS`.
    limit : int
        Bytes that count, as of `uspcap.protocols.digests`.
    expression : str
        Filter as of pcap-filter(7).
    wake : Wake, optional
        Ends reading once it is set: `streams` raises ReadingEnded then.
    trailers : TrailerStage, optional
        Takes timestamps that are in the frames.
    time_range : TimeRange, optional
        Of the frames that count for what is known of the side; others are read to be matched with those.
    tunnels : bool
        Let the innermost headers count.
    outer : bool
        Apply the filter to outer frames.
    straightener : Straightener, optional
        Reads the files where their frames are to be put in order of time.

    Attributes
    ----------
    side : Side
        Filled while reading.

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        The file cannot be opened or is none.
    """

    def __init__(
        self,
        files: Sequence[PlannedInput],
        key: str,
        limit: int,
        expression: str = "",
        wake: Wake | None = None,
        trailers: TrailerStage | None = None,
        time_range: TimeRange | None = None,
        straightener: Straightener | None = None,
        *,
        tunnels: bool = False,
        outer: bool = False,
    ) -> None:
        self._wake = wake
        self._straightener = straightener
        self._reader: CaptureReader | None = None if straightener is not None else files[0].open(wake)
        self._range = time_range
        self._key = KEYS.index(key)
        self._limit = limit
        self._tunnels = tunnels
        self._filter = filter_of_files(expression, outer=outer)
        self._trailers = trailers
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        self.side = Side(
            "@".join((files[0].path, *files[0].interfaces)) + more, tuple(files), put_in_order=straightener is not None
        )

    def streams(self) -> Iterator[Stream]:
        """Yield all frames in their order, some ten thousand at a time, and close the file.

        Raises
        ------
        FilterError
            The filter does not compile.
        """
        chunk: list[tuple[np.ndarray, ...]] = []
        kept = 0
        for batch, frames_before in self._batches():
            if self._trailers is not None:
                self._trailers.apply(batch)
            batch.decode_tunnels = self._tunnels
            self._filter.apply(batch)
            columns = self._digested(batch, frames_before)
            if len(columns[0]):
                chunk.append(columns)
                kept += len(columns[0])
            if kept >= CHUNK_FRAMES:
                yield self._stream(chunk)
                chunk, kept = [], 0
        if chunk:
            yield self._stream(chunk)
        self.side.filtered = self._filter.counts
        self.side.notes += [self._filter.counts.hint] if self._filter.counts.hint else []

    def _batches(self) -> Iterator[tuple[FrameBatch, int]]:
        """Yield the batches of all files, and how many frames the files before have."""
        side = self.side
        if self._straightener is not None:
            yield from self._straightened(self._straightener)
            return
        frames_before = 0
        for number, one in enumerate(side.files):
            reader = self._reader = self._reader if number == 0 and self._reader else one.open(self._wake)
            selection = one.selection()
            read = 0
            with reader:
                for batch in reader.batches():
                    read = batch.frames_before + batch.frames_read
                    selection.apply(batch)
                    yield batch, frames_before
            frames_before += read
            facts = reader.facts
            side.problems += facts.all_problems(reader.name) + selection.problems(reader.name, facts.interfaces)
            side.notes += one.notes + facts.notes(reader.name) + selection.notes(reader.name)
            side.decisions += [*one.taps.decisions, *facts.decisions]
            side.interfaces += facts.interfaces

    def _straightened(self, straightener: Straightener) -> Iterator[tuple[FrameBatch, int]]:
        """Yield the batches of all files in order of time, numbered through all of them."""
        side = self.side
        in_range = FrameSelection((), side.files[0].time_range)
        for batch in straightener.batches():
            in_range.apply_range(batch)
            yield batch, 0
        for one in straightener.inputs:
            side.problems += one.facts.all_problems(one.name) + one.selection.problems(one.name, one.facts.interfaces)
            side.notes += one.planned.notes + one.facts.notes(one.name) + one.selection.notes(one.name)
            side.decisions += [*one.planned.taps.decisions, *one.facts.decisions]
            side.interfaces += one.facts.interfaces
        side.notes += in_range.notes(side.path)
        side.order = straightener.order
        decision = side.order.decision([one.name for one in straightener.inputs])
        if decision is not None:
            side.decisions.append(decision)

    def close(self) -> None:
        """Close the file; may be called again."""
        if self._reader is not None:
            self._reader.close()

    def _digested(self, batch: FrameBatch, frames_before: int) -> tuple[np.ndarray, ...]:
        """Return digests, timestamps, numbers and lengths of a batch's frames, copied."""
        side = self.side
        digests = np.empty(batch.count, np.uint64)
        headers = batch.headers
        digest(batch, headers, self._key, self._limit, digests)
        sources = batch.timestamp_source & ~np.uint8(UNTRUSTED)
        trusted = batch.timestamp_source == sources
        timestamped = (sources != TimestampSource.NONE) & trusted
        usable = timestamped & (digests != 0)
        side.clamped += batch.clamped
        side.untrusted += batch.count - int(np.count_nonzero(trusted))
        side.without_timestamp += int(np.count_nonzero(trusted)) - int(np.count_nonzero(timestamped))
        side.without_digest += int(np.count_nonzero(timestamped)) - int(np.count_nonzero(usable))
        if batch.count:
            met = {int(sources.min()), int(sources.max())}
            side.sources |= {TimestampSource(one) for one in (met if len(met) == 1 else np.unique(sources).tolist())}
            tcp = headers.column("protocol") == 6
            if tcp.any():
                side.longest_payload = max(side.longest_payload, int(headers.column("payload_length")[tcp].max()))
        columns = (digests, batch.timestamp_ns, batch.column("frame_number") + frames_before, batch.wire_length)
        if usable.all():
            return tuple(column.copy() if column is not digests else column for column in columns)
        return tuple(column[usable] for column in columns)

    def _stream(self, chunk: list[tuple[np.ndarray, ...]]) -> Stream:
        digests, timestamps, numbers, lengths = (np.concatenate(column) for column in zip(*chunk, strict=True))
        self._describe(timestamps if self._range is None else timestamps[self._range.holds(timestamps)])
        return Stream(digests, timestamps, numbers, lengths)

    def _describe(self, timestamps: NDArray[np.int64]) -> None:
        """Add frames that count to what is known of the side."""
        if not len(timestamps):
            return
        side = self.side
        before = timestamps[:1] if side.last_ns is None else np.array([side.last_ns], np.int64)
        steps = np.diff(timestamps, prepend=before)
        if side.first_ns is None:
            side.first_ns = int(timestamps[0])
            steps = steps[1:]
        side.last_ns = int(timestamps[-1])
        side.frames += len(timestamps)
        while side.multiple_ns > 1 and (timestamps % side.multiple_ns).any():
            side.multiple_ns //= 1000
        forward = steps[steps >= 0]
        side.backward += len(steps) - len(forward)
        record_many(side.inter_arrival, forward)


def common_limit(files: Sequence[PlannedInput], key: str, *, tunnels: bool = False) -> int:
    """Return how many of the key's bytes the frames of all these files have.

    Looks at the first `LOOKED_AT_FRAMES` frames of each; `NO_LIMIT` where none of them is cut. What can be read once
    only (standard input, a pipe) is taken as not cut.
    """
    limit = NO_LIMIT
    for one in files:
        if is_read_once(one.path):
            continue
        selection = one.selection()
        with one.open() as reader:
            for batch in reader.batches():
                selection.apply(batch)
                batch.decode_tunnels = tunnels
                cut = batch.captured_length < batch.wire_length
                if cut.any():
                    captured = batch.captured_length[cut].astype(np.int64)
                    if key != "whole":
                        column = "payload_offset" if key == "payload" else "transport_offset"
                        starts = batch.headers.column(column)[cut].astype(np.int64)
                        captured = (captured - starts)[starts >= 0]
                    if len(captured):
                        limit = min(limit, max(0, int(captured.min())))
                if batch.frames_before + batch.frames_read >= LOOKED_AT_FRAMES:
                    break
    return limit
