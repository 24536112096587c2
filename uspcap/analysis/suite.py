"""All analyses of one run, sharing one flow table, and how files are fed to them on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, SupportsIndex

from uspcap.analysis.base import Analysis
from uspcap.analysis.bursts import Bursts
from uspcap.analysis.gaps import Gaps
from uspcap.analysis.inter_arrival import InterArrival
from uspcap.analysis.match_settings import MatchSettings
from uspcap.analysis.names import ALL_NAMES, NAMES
from uspcap.analysis.overhead import Overhead
from uspcap.analysis.path_latency import PathLatency
from uspcap.analysis.sequence_settings import SequenceSettings
from uspcap.analysis.summary import Summary
from uspcap.analysis.timestamps import Timestamps
from uspcap.bpf.filters import FrameFilter
from uspcap.errors import UsageError
from uspcap.formats import open_capture
from uspcap.formats.parts import continues, open_parts
from uspcap.formats.reader import CaptureReader
from uspcap.formats.waking import Wake
from uspcap.frames import FrameBatch, Problem, SourceFacts
from uspcap.protocols.flows import MAXIMUM_FLOWS, FlowTable

if TYPE_CHECKING:
    from uspcap.timestamps.trailers import TrailerChoice, TrailerStage


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is asked for.

    Attributes
    ----------
    names : tuple of str
        Analyses, of `ALL_NAMES`.
    expression : str
        Filter expression as of pcap-filter(7); empty keeps everything.
    maximum_flows : int
        Bound on the flows tracked one by one.
    gap_threshold_ns : int or None
        None lets each flow have its own.
    line_rate_bps : int or None
        To compare bursts with.
    framing : bool
        Count preamble, FCS and inter-frame gap as overhead.
    tunnels : bool
        Let the innermost headers count.
    top : int
        Rows in the report's lists.
    sequence : SequenceSettings or None
        Whose sequence numbers to follow, and which lines carry the same.
    order_protocol : str or None
        What order entry connections carry, one of `names.ORDER_PROTOCOLS`.
    matching : MatchSettings
        What is a request, a trigger and a response.
    trailer : TrailerChoice or None
        Take the stamps that taps or switches put into the frames; None leaves the frames alone.
    """

    names: tuple[str, ...] = NAMES
    expression: str = ""
    maximum_flows: int = MAXIMUM_FLOWS
    gap_threshold_ns: int | None = None
    line_rate_bps: int | None = None
    framing: bool = False
    tunnels: bool = False
    top: int = 10
    sequence: SequenceSettings | None = None
    order_protocol: str | None = None
    matching: MatchSettings = field(default_factory=MatchSettings)
    trailer: TrailerChoice | None = None


# Analyses of particular traffic are loaded where they are asked for.


def _numbers(settings: SequenceSettings | None, name: str) -> SequenceSettings:
    if settings is None:
        raise UsageError(
            f"{name} needs to know where numbers lie: give --protocol NAME (see 'uspcap protocols'), "
            "--protocol auto, or --sequence offset=…,size=…"
        )
    return settings


def _orders(protocol: str | None, shown: int) -> Analysis:
    from uspcap.analysis.orders import Orders

    return Orders(protocol, shown=shown)


def _tcp(shown: int) -> Analysis:
    from uspcap.analysis.tcp import Tcp

    return Tcp(shown=shown)


def _patterns() -> Analysis:
    from uspcap.analysis.patterns import Patterns

    return Patterns()


def _trailer(choice: TrailerChoice | None) -> Analysis:
    from uspcap.analysis.trailer import Trailer

    return Trailer(choice)


class Suite:
    """The analyses of one run; itself a monoid like each of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flows = FlowTable(settings.maximum_flows)
        makers: dict[str, Callable[[], Analysis]] = {
            "summary": Summary,
            "timestamps": Timestamps,
            "inter_arrival": lambda: InterArrival(self._flows, shown=settings.top),
            "gaps": lambda: Gaps(self._flows, threshold_ns=settings.gap_threshold_ns, shown=settings.top),
            "bursts": lambda: Bursts(line_rate_bps=settings.line_rate_bps),
            "overhead": lambda: Overhead(framing=settings.framing),
            "path_latency": PathLatency,
            "sequence": lambda: _numbers(settings.sequence, "sequence").sequence(settings.maximum_flows),
            "arbitration": lambda: _numbers(settings.sequence, "arbitration").arbitration(),
            "orders": lambda: _orders(settings.order_protocol, settings.top),
            "requests": lambda: settings.matching.requests(settings.top),
            "tick_to_trade": lambda: settings.matching.tick_to_trade(settings.top),
            "tcp": lambda: _tcp(settings.top),
            "patterns": _patterns,
            "trailer": lambda: _trailer(settings.trailer),
        }
        self.summary = Summary()
        self.analyses: dict[str, Analysis] = {
            name: self.summary if name == "summary" else makers[name]() for name in ALL_NAMES if name in settings.names
        }
        self._all = [self.summary, *(one for one in self.analyses.values() if one is not self.summary)]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle what was found; where no frame was read that is nothing."""
        return super().__reduce_ex__(protocol) if self.summary.frames_read else (Suite, (self._settings,))

    def update(self, batch: FrameBatch) -> None:
        """Give a batch to every analysis."""
        batch.decode_tunnels = self._settings.tunnels
        for analysis in self._all:
            analysis.update(batch)

    def merge(self, later: Suite) -> None:
        """Append what came directly after; `later` is used up."""
        for analysis, other in zip(self._all, later._all, strict=True):
            analysis.merge(other)
        self._flows.forget_absorbed()


@dataclass(slots=True)
class Outcome:
    """What a run over files found, beside what the analyses hold.

    Attributes
    ----------
    suite : Suite
    frames_read : int
        Frames in the files, before any filter.
    problems : list of Problem
    truncated : bool
    finer_than_ns : int
    interface_drops : dict of str to int
        Frames that the capturing host says it dropped, by file and interface.
    files : list of dict
        Name, format and number of the first frame of each file.
    refused : dict of int to str
        Link types that the filter does not compile for, and why.
    """

    suite: Suite
    frames_read: int = 0
    problems: list[Problem] = field(default_factory=list)
    truncated: bool = False
    finer_than_ns: int = 0
    interface_drops: dict[str, int] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)


Progress = Callable[[int, int], None]
"""Told of bytes read and frames seen since it was last called, from any thread."""


def analyze_files(
    paths: Sequence[str],
    settings: Settings,
    *,
    jobs: int,
    progress: Progress = lambda bytes_read, frames: None,
) -> Outcome:
    """Run all analyses over files, one after the other in one stream, on up to `jobs` threads.

    Parameters
    ----------
    paths : sequence of str
        Capture files in the order of their time; `-` is standard input.

    Raises
    ------
    UspcapError
        A file cannot be opened, the filter does not compile, or no format of trailers can be told.
    """
    if settings.trailer is not None:
        settings = replace(settings, trailer=_resolved(settings.trailer, paths[0]))
    run = _Run(settings, progress)
    with closing(Wake()) as wake, ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="analyze") as pool:
        waiting: deque[tuple[str, CaptureReader, Future[_Part]]] = deque()
        try:
            for path in paths:
                for reader in open_parts(path, jobs if len(paths) < jobs else 1, wake):
                    waiting.append((path, reader, pool.submit(_read_part, reader, settings, progress)))
                    if len(waiting) > jobs:
                        run.join(*waiting[0])
                        waiting.popleft()
            while waiting:
                run.join(*waiting[0])
                waiting.popleft()
            run.leave_file()
        except BaseException:
            # Whatever ended this, Ctrl-C too, is not kept waiting for what the other threads would read.
            wake.set()
            run.close()
            raise
        finally:
            for _, reader, future in waiting:
                future.cancel()
                wait([future])
                reader.close()
    return run.outcome


def _trailer_stage(choice: TrailerChoice) -> TrailerStage | None:
    """Return what takes stamps out of the frames; None where no format was told."""
    from uspcap.timestamps.trailers import TrailerStage

    return None if choice.format is None else TrailerStage(choice.format)


def _resolved(choice: TrailerChoice, path: str) -> TrailerChoice:
    """Return the choice with its format known, from the beginning of the first file where it is not named."""
    if choice.format is not None:
        return choice
    from uspcap.timestamps.trailers import resolve

    with closing(open_capture(path)) as reader:
        return resolve(choice, path, reader.batches())


@dataclass(slots=True)
class _Part:
    """What a thread made of one part of a file."""

    suite: Suite
    filter: FrameFilter
    frames_read: int


def _read_part(reader: CaptureReader, settings: Settings, progress: Progress) -> _Part:
    """Read to the reader's `stop_at` or its end."""
    part = _Part(Suite(settings), FrameFilter(settings.expression), 0)
    position = reader.position
    stage = None if settings.trailer is None else _trailer_stage(settings.trailer)
    for batch in reader.batches():
        part.frames_read += batch.frames_read
        if stage is not None:
            stage.apply(batch)
        part.filter.apply(batch)
        part.suite.update(batch)
        progress(reader.position - position, batch.frames_read)
        position = reader.position
    return part


class _Run:
    """Joins parts in order; what a part's guessed start got wrong, the part before it reads instead."""

    def __init__(self, settings: Settings, progress: Progress) -> None:
        self.outcome = Outcome(Suite(settings))
        self._settings = settings
        self._progress = progress
        self._reader: CaptureReader | None = None
        self._facts = SourceFacts()

    def join(self, path: str, reader: CaptureReader, future: Future[_Part]) -> None:
        """Append the part that `reader` and `future` have read."""
        outcome, before = self.outcome, self._reader
        part = future.result()
        if before is None or reader.began_at == 0:
            self.leave_file()
            outcome.files.append({"file": path, "format": reader.format, "first_frame": outcome.frames_read + 1})
        elif before.ended or not continues(before, reader):
            if not before.ended:
                before.stop_at = reader.stop_at
                self._append(_read_part(before, self._settings, self._progress))
            reader.close()
            return
        else:
            self._leave_reader()
        self._reader = reader
        self._append(part)

    def _append(self, part: _Part) -> None:
        if self.outcome.frames_read:
            self.outcome.suite.merge(part.suite)
        else:
            self.outcome.suite = part.suite
        self.outcome.frames_read += part.frames_read
        self.outcome.refused |= part.filter.refused

    def close(self) -> None:
        """Close the file at hand."""
        if self._reader is not None:
            self._reader.close()

    def _leave_reader(self) -> None:
        """Keep what the reader at hand knows, and close it."""
        if self._reader is not None:
            self._facts.append(self._reader.facts)
            self._reader.close()

    def leave_file(self) -> None:
        """Keep what is known of the file at hand, and close it."""
        reader, outcome = self._reader, self.outcome
        if reader is None:
            return
        self._leave_reader()
        facts, self._facts, self._reader = self._facts, SourceFacts(), None
        outcome.problems += facts.all_problems(reader.name)
        outcome.truncated |= facts.truncated
        outcome.finer_than_ns += facts.finer_than_ns
        for interface, drops in facts.interface_drops.items():
            outcome.interface_drops[f"{reader.name}:{interface}"] = drops
