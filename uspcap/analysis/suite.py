"""All analyses of one run, sharing one flow table, and how files are fed to them on all cores."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, SupportsIndex

from uspcap.analysis.base import Analysis, Result, Table
from uspcap.analysis.declaration import Asked, Shared
from uspcap.analysis.registry import declarations, default_names, options
from uspcap.analysis.summary.analysis import Summary
from uspcap.bpf.filters import FrameFilter, MatchCounts, filter_of_files
from uspcap.bpf.readings import FilterReading, reading_of
from uspcap.declared_options import Given, Option
from uspcap.errors import UsageError
from uspcap.formats.parts import continues
from uspcap.formats.reader import CaptureReader
from uspcap.formats.waking import Wake
from uspcap.frames import LATEST_NS, Decision, FrameBatch, Problem, SourceFacts
from uspcap.protocols.flows import MAXIMUM_FLOWS, FlowTable
from uspcap.protocols.rules import RulePair
from uspcap.stages.frame_numbers import FrameNumbers, Numbers, SlicedNumbers
from uspcap.stages.moments import TimeRange
from uspcap.stages.order import Order, OrderCheck, bounds
from uspcap.stages.reading import (
    EVERYTHING,
    Input,
    Plan,
    PlannedInput,
    Reading,
    captures_among,
    in_order_of_time,
    is_read_once,
    plan,
)
from uspcap.stages.selection import FrameSelection
from uspcap.stages.trailer import resolved_trailer, trailer_stage
from uspcap.stages.tunnels import choose_tunnels

if TYPE_CHECKING:
    from uspcap.stages.chains import Straight
    from uspcap.stages.slicing import Survey
    from uspcap.stats.histogram import Histogram
    from uspcap.timestamps.trailers import TrailerChoice


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of a run.

    Attributes
    ----------
    names : tuple of str
        Analyses, as `registry.names` has them; in any order.
    expression : str
        Filter expression as of pcap-filter(7); empty keeps everything.
    maximum_flows : int
        Bound on the flows tracked one by one.
    tunnels : bool or None
        Let the innermost headers count; None leaves it to the frames, as `choose_tunnels` decides.
    trailer : TrailerChoice or None
        Take the timestamps that taps or switches put into the frames; None leaves the frames alone.
    arguments : mapping of str to mapping
        By analysis what its `Declaration.make` takes; those left out keep to their defaults.
    reading : Reading
        Which frames of the files are read.
    outer : bool
        Apply the filter to the outer frame, as tcpdump does; rules have this setting of their own.
    filter_reading : FilterReading or None
        Of captures, which reading applies, where that is not tcpdump's.
    """

    names: tuple[str, ...] = field(default_factory=partial(default_names, live=False))
    expression: str = ""
    maximum_flows: int = MAXIMUM_FLOWS
    tunnels: bool | None = None
    trailer: TrailerChoice | None = None
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reading: Reading = EVERYTHING
    outer: bool = False
    filter_reading: FilterReading | None = None

    @property
    def looks_inside(self) -> bool:
        """Whether the filter or a rule applies to innermost packets."""
        reading = self.filter_reading or reading_of(self.expression, outer=self.outer)
        if self.expression.strip() and reading.name == "inner":
            return True
        values = (value for arguments in self.arguments.values() for value in arguments.values())
        pairs = (one for value in values for one in (value if isinstance(value, tuple) else (value,)))
        return any(one.looks_inside for one in pairs if isinstance(one, RulePair))


def settings_for(
    given: Given,
    *,
    default: Sequence[str],
    named: Sequence[str] | None = None,
    naming: str,
    files: Sequence[str] = (),
    expression: str = "",
    maximum_flows: int = MAXIMUM_FLOWS,
    tunnels: bool | None = None,
    trailer: TrailerChoice | None = None,
    reading: Reading = EVERYTHING,
    outer: bool = False,
) -> Settings:
    """Return settings with everything decided that is decided before a run, from options as they were given.

    Parameters
    ----------
    given : mapping of str to object
        Options of analyses by `Option.parameter`.
    default : sequence of str
        Analyses that run where none is named.
    named : sequence of str, optional
        Those that were named; options may bring others along.
    naming : str
        The option that names analyses, for messages.

    Raises
    ------
    UsageError, CaptureFileError, NotACaptureFile, FilterError
        Options make no sense, together or with what runs, or nothing can be decided.
    """
    declared = declarations()
    wanted = {*(default if named is None else named)}
    brought = {"trailer": trailer, **given}
    wanted |= {
        name for name, one in declared.items() if one.brought_by is not None and one.brought_by(brought, named or ())
    }
    names = tuple(name for name in declared if name in wanted)
    asked = Asked(names, None if named is None else tuple(named), naming, files, expression, trailer)
    for option in options():
        users = [name for name, one in declared.items() if option in one.options]
        if not option.general and given.get(option.parameter, option.default) != option.default:
            _check_used(option, users, names, naming)
    arguments = {name: declared[name].arguments(given, asked) for name in names}
    if outer:
        arguments = {name: {key: _outer(value) for key, value in one.items()} for name, one in arguments.items()}
    return Settings(names, expression, maximum_flows, tunnels, trailer, arguments, reading, outer)


def _outer(value: Any) -> Any:
    """Apply the rules among an analysis' arguments to outer frames."""
    if isinstance(value, RulePair):
        return replace(value, outer=True)
    return tuple(map(_outer, value)) if isinstance(value, tuple) else value


def _check_used(option: Option, users: Sequence[str], names: Sequence[str], naming: str) -> None:
    """Raise UsageError where an option was given and none of the analyses that it is about runs."""
    if not {*users} & {*names}:
        raise UsageError(
            f"{option.flag} is an option of {' and '.join(users)}: add {naming} {users[0]}, or leave it out"
        )


class Suite:
    """The analyses of one run; itself a monoid like each of them."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._flows = FlowTable(settings.maximum_flows)
        shared = Shared(self._flows, settings.trailer)
        self.analyses: dict[str, Analysis] = {
            name: declared.make(shared, **settings.arguments.get(name, {}))
            for name, declared in declarations().items()
            if name in settings.names
        }
        made = self.analyses.get("summary")
        # What a report says of its source is the summary's, asked for or not.
        self.summary = made if isinstance(made, Summary) else Summary()
        self._all = [self.summary, *(one for one in self.analyses.values() if one is not self.summary)]

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """Pickle what was found; where no frame was read that is nothing."""
        return super().__reduce_ex__(protocol) if self.summary.frames_read else (Suite, (self._settings,))

    def update(self, batch: FrameBatch) -> None:
        """Give a batch to every analysis."""
        batch.decode_tunnels = bool(self._settings.tunnels)
        for analysis in self._all:
            analysis.update(batch)

    def merge(self, later: Suite) -> None:
        """Append what came directly after; `later` is used up."""
        for analysis, other in zip(self._all, later._all, strict=True):
            analysis.merge(other)
        self._flows.forget_absorbed()


@dataclass(slots=True)
class Outcome:
    """The outcome of a run over files, besides the state of the analyses.

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
    notes : list of str
        What is to be said of the files, one sentence each without a full stop.
    decisions : list of Decision
        What was decided about them before they were read.
    inputs : tuple of PlannedInput
        The files as they were read.
    time_range : TimeRange or None
        Where one was asked for.
    tunnels : bool
        Whether the innermost headers counted.
    filtered : MatchCounts
        What the filter spoke of, and what it matched.
    order : Order
        What was found of the order of frames.
    """

    suite: Suite
    frames_read: int = 0
    problems: list[Problem] = field(default_factory=list)
    truncated: bool = False
    finer_than_ns: int = 0
    interface_drops: dict[str, int] = field(default_factory=dict)
    files: list[dict[str, Any]] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    inputs: tuple[PlannedInput, ...] = ()
    time_range: TimeRange | None = None
    tunnels: bool = False
    filtered: MatchCounts = field(default_factory=MatchCounts)
    order: Order = field(default_factory=Order)

    def take_facts(self, one: PlannedInput, name: str, facts: SourceFacts, selection: FrameSelection) -> None:
        """Keep the facts about a file that was read."""
        self.problems += facts.all_problems(name)
        self.notes += one.notes + facts.notes(name)
        self.decisions += [*one.taps.decisions, *facts.decisions]
        self.problems += selection.problems(name, facts.interfaces)
        self.notes += selection.notes(name)
        self.truncated |= facts.truncated
        self.finer_than_ns += facts.finer_than_ns
        for interface, drops in facts.interface_drops.items():
            self.interface_drops[f"{name}:{interface}"] = drops


Progress = Callable[[int, int], None]
"""Called with the bytes read and the frames seen since its last call, from any thread."""


def analyze_files(
    paths: Sequence[str | Input],
    settings: Settings,
    *,
    jobs: int,
    progress: Progress = lambda bytes_read, frames: None,
) -> Outcome:
    """Run all analyses over files, one after the other in one stream, on up to `jobs` threads.

    Parameters
    ----------
    paths : sequence of str or Input
        Capture files, in any order unless they can be read only once; `-` is standard input.

    Raises
    ------
    UspcapError
        A file cannot be opened, the filter does not compile, or no format of trailers can be detected.
    """
    inputs, left_out = captures_among([Input(one) if isinstance(one, str) else one for one in paths])
    if settings.trailer is not None:
        settings = replace(settings, trailer=resolved_trailer(settings.trailer, [one.path for one in inputs]))
    with closing(Wake()) as wake, ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="analyze") as pool:
        off = settings.reading.sorting == "off"
        once = any(is_read_once(each_input.path) for each_input in inputs)
        if not off and not once:
            inputs = in_order_of_time(inputs, settings.reading)
        planned = plan(inputs, settings.reading, wake)
        choice = choose_tunnels(planned.inputs, asked=settings.tunnels, looks_inside=settings.looks_inside, wake=wake)
        settings = replace(settings, tunnels=choice.tunnels)
        outcome = None
        if settings.reading.dedup_ns is None and (off or not once):
            shown = _Shown(progress)
            surveyed = None if off else _survey(planned, settings, wake, pool)
            if surveyed is not None and surveyed.overlaps:
                outcome = _in_slices(surveyed, planned, settings, jobs, wake, pool, shown)
            else:
                # Where their ends did not show that none overlap, an overlap has to be detected soon.
                known = off or surveyed is not None
                begins = [LATEST_NS] * len(inputs) if known else _begins_after(planned, wake, pool)
                outcome = _as_they_lie(planned, settings, jobs, wake, pool, shown, begins)
            if outcome is None:
                shown.take_back()
    if outcome is None:
        with closing(Wake()) as wake, ThreadPoolExecutor(max_workers=jobs, thread_name_prefix="order") as pool:
            try:
                outcome = _put_in_order(planned, settings, wake, pool, progress)
            except BaseException:
                wake.set()
                raise
    outcome.time_range = planned.time_range
    outcome.tunnels = choice.tunnels
    outcome.decisions[:0] = choice.decisions
    outcome.notes[:0] = choice.sentences
    outcome.problems[:0] = left_out
    return outcome


def _as_they_lie(
    planned: Plan,
    settings: Settings,
    jobs: int,
    wake: Wake,
    pool: ThreadPoolExecutor,
    progress: Progress,
    begins_after: Sequence[int],
) -> Outcome | None:
    """Analyze files one after the other; None where their frames must be sorted first.

    `begins_after` has for each file the time before which it is to end.
    """
    run = _Run(settings, progress)
    run.outcome.inputs = planned.inputs
    waiting: deque[tuple[PlannedInput | None, CaptureReader, Future[_Part]]] = deque()
    try:
        for one, until_ns in zip(planned.inputs, begins_after, strict=True):
            for part, reader in enumerate(one.open_parts(jobs if len(planned.inputs) < jobs else 1, wake)):
                future = pool.submit(_read_part, reader, one.selection(), settings, progress, until_ns)
                waiting.append((None if part else one, reader, future))
                if len(waiting) > jobs:
                    run.join(*waiting[0])
                    waiting.popleft()
        while waiting:
            run.join(*waiting[0])
            waiting.popleft()
        run.leave_file()
    except _OutOfOrder:
        wake.set()
        run.close()
        return None
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
    if run.check is not None and not run.check.is_tidy:
        return None
    sorting = settings.reading.sorting
    run.outcome.order = Order(sorting, None if run.check is None else bounds(sorting).window_ns)
    return run.outcome


def _begins_after(planned: Plan, wake: Wake, pool: ThreadPoolExecutor) -> list[int]:
    """Return for each input when the next begins, so that one that goes on beyond that is detected at once."""
    from uspcap.stages.slicing import first_time

    times = pool.map(partial(first_time, wake=wake), planned.inputs[1:])
    return [*(LATEST_NS if time_ns is None else time_ns for time_ns in times), LATEST_NS]


class Renumbered(Analysis):
    """An analysis that has counted frames by their place in the order, and says their numbers in the files.

    Parameters
    ----------
    analysis : Analysis
        What it says is final.
    numbers : Numbers
    """

    def __init__(self, analysis: Analysis, numbers: Numbers) -> None:
        super().__init__()
        self._analysis = analysis
        self._numbers = numbers

    def _update(self, batch: FrameBatch) -> None:
        raise AssertionError("all frames were read")

    def _merge(self, later: Renumbered) -> None:
        raise AssertionError("all frames were read")

    def result(self) -> Result:
        return self._analysis.result().with_frames(self._numbers.of)

    def caveats(self) -> list[str]:
        return self._analysis.caveats()

    def histograms(self) -> dict[str, Histogram]:
        return self._analysis.histograms()

    def tables(self) -> dict[str, Table]:
        return self._numbers.in_tables(self._analysis.tables())


class _Shown:
    """Progress that can be taken back where files are read again; updated from any thread."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._lock = Lock()
        self._bytes_read = self._frames = 0

    def __call__(self, bytes_read: int, frames: int) -> None:
        with self._lock:
            self._bytes_read += bytes_read
            self._frames += frames
        self._progress(bytes_read, frames)

    def take_back(self) -> None:
        """Begin at nothing again."""
        self._progress(-self._bytes_read, -self._frames)


class _OutOfOrder(Exception):
    """Frames are not in order of time."""


def _put_in_order(
    planned: Plan, settings: Settings, wake: Wake, pool: ThreadPoolExecutor, progress: Progress
) -> Outcome:
    """Analyze files whose frames are sorted first."""
    from uspcap.stages.straightening import Straightener

    straightener = Straightener(planned.inputs, settings.reading.sorting, wake, pool, progress)
    numbers = FrameNumbers()
    ordered = _Ordered(settings, planned.time_range)
    ordered.take(straightener.batches(numbers))
    return ordered.outcome(straightener.inputs, straightener.order, numbers)


def _survey(planned: Plan, settings: Settings, wake: Wake, pool: ThreadPoolExecutor) -> Survey | None:
    """Read where inputs begin and end; None where that does not show whether they overlap."""
    from uspcap.stages.slicing import survey

    return survey(planned.inputs, settings.reading.sorting, wake, pool) if len(planned.inputs) > 1 else None


def _in_slices(
    surveyed: Survey,
    planned: Plan,
    settings: Settings,
    jobs: int,
    wake: Wake,
    pool: ThreadPoolExecutor,
    progress: Progress,
) -> Outcome | None:
    """Analyze inputs that overlap in time in slices, each on a core; None where they are to be straightened."""
    from uspcap.stages.slicing import NotInOrder, Slice, conclude, cut

    if not surveyed.is_tidy:
        return None
    futures: list[Future[_Ordered]] = []
    try:
        slices = cut(surveyed, jobs, wake, pool)

        def read(one: Slice) -> _Ordered:
            part = _Ordered(settings, planned.time_range)
            part.take(one.batches(wake, progress))
            return part

        futures += [pool.submit(read, one) for one in slices]
        whole = futures[0].result()
        for future in futures[1:]:
            whole.append(future.result())
        conclude(surveyed, slices)
    except NotInOrder:
        wake.set()
        return None
    except BaseException:
        wake.set()
        raise
    finally:
        for future in futures:
            future.cancel()
        wait(futures)
    return whole.outcome([one.input for one in surveyed.inputs], surveyed.order, SlicedNumbers(slices))


class _Ordered:
    """Analyzes sorted frames."""

    def __init__(self, settings: Settings, time_range: TimeRange | None) -> None:
        self._suite = Suite(settings)
        self._frames_read = 0
        self._settings = settings
        self._keep = filter_of_files(settings.expression, outer=settings.outer)
        self._refused: dict[int, str] = {}
        self._filtered = MatchCounts()
        self._in_range = FrameSelection((), time_range)

    def take(self, batches: Iterator[FrameBatch]) -> None:
        """Analyze all frames."""
        trailers = trailer_stage(self._settings.trailer)
        for batch in batches:
            self._frames_read += batch.frames_read
            self._in_range.apply_range(batch)
            if trailers is not None:
                trailers.apply(batch)
            batch.decode_tunnels = bool(self._settings.tunnels)
            self._keep.apply(batch)
            self._suite.update(batch)
        self._refused = self._keep.refused
        self._filtered.append(self._keep.counts)

    def append(self, later: _Ordered) -> None:
        """Append the findings of the directly following frames."""
        if self._frames_read:
            self._suite.merge(later._suite)
        else:
            self._suite = later._suite
        self._frames_read += later._frames_read
        self._refused |= later._refused
        self._filtered.append(later._filtered)
        self._in_range.append(later._in_range)

    def outcome(self, inputs: Sequence[Straight], order: Order, numbers: Numbers) -> Outcome:
        """Return all that was found.

        Parameters
        ----------
        inputs : sequence of Straight
            As they were read.
        order : Order
        numbers : Numbers
            Of the frames.
        """
        outcome = Outcome(self._suite, self._frames_read, refused=self._refused, filtered=self._filtered, order=order)
        for one in inputs:
            outcome.files.append({"file": one.name, "format": one.format, "first_frame": one.frames_before + 1})
            outcome.take_facts(one.planned, one.name, one.facts, one.selection)
        analyses = self._suite.analyses
        self._suite.analyses = {name: Renumbered(analysis, numbers) for name, analysis in analyses.items()}
        outcome.inputs = tuple(each_input.planned for each_input in inputs)
        outcome.notes += self._in_range.notes("all files")
        decision = order.decision([each_input.name for each_input in inputs])
        if decision is not None:
            outcome.decisions.append(decision)
        return outcome


@dataclass(slots=True)
class _Part:
    """A thread's result for one part of a file."""

    suite: Suite
    filter: FrameFilter
    selection: FrameSelection
    check: OrderCheck | None
    frames_read: int = 0


def _read_part(
    reader: CaptureReader, selection: FrameSelection, settings: Settings, progress: Progress, until_ns: int = LATEST_NS
) -> _Part:
    """Read to the reader's `stop_at` or its end, or until time is beyond that of the next input's first frame."""
    check = None if settings.reading.sorting == "off" else OrderCheck(until_ns)
    keep = filter_of_files(settings.expression, outer=settings.outer)
    part = _Part(Suite(settings), keep, selection, check)
    position = reader.position
    stage = trailer_stage(settings.trailer)
    for batch in reader.batches():
        part.frames_read += batch.frames_read
        selection.apply_interfaces(batch)
        if check is not None:
            check.update(batch)
            if check.falls:
                # Whether that counts is known once the part's start is proved.
                return part
        selection.apply_range(batch)
        if stage is not None:
            stage.apply(batch)
        batch.decode_tunnels = bool(settings.tunnels)
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
        self._input = PlannedInput("")
        self._selection = self._input.selection()
        self.check: OrderCheck | None = None

    def join(self, begun: PlannedInput | None, reader: CaptureReader, future: Future[_Part]) -> None:
        """Append the part that `reader` and `future` have read, which begins a file where one is given."""
        outcome, before = self.outcome, self._reader
        part = future.result()
        if before is None or begun is not None:
            self.leave_file()
            self._input = begun or self._input
            self._selection = self._input.selection()
            outcome.files.append(
                {"file": self._input.path, "format": reader.format, "first_frame": outcome.frames_read + 1}
            )
        elif before.ended or not continues(before, reader):
            if not before.ended:
                before.stop_at = reader.stop_at
                self._append(_read_part(before, self._input.selection(), self._settings, self._progress))
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
        self.outcome.filtered.append(part.filter.counts)
        if part.check is not None:
            if self.check is None:
                self.check = part.check
            else:
                self.check.merge(part.check)
            if self.check.falls:
                raise _OutOfOrder
        self._selection.append(part.selection)

    def close(self) -> None:
        """Close the file at hand."""
        if self._reader is not None:
            self._reader.close()

    def _leave_reader(self) -> None:
        """Keep the facts of the current reader, and close it."""
        if self._reader is not None:
            self._facts.append(self._reader.facts)
            self._reader.close()

    def leave_file(self) -> None:
        """Keep the facts about the current file, and close it."""
        reader, outcome = self._reader, self.outcome
        if reader is None:
            return
        self._leave_reader()
        facts, self._facts, self._reader = self._facts, SourceFacts(), None
        facts.interfaces = reader.facts.interfaces
        outcome.take_facts(self._input, reader.name, facts, self._selection)
