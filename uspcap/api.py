"""uspcap from Python: captures, on files and live, as batches of columns; analyses and comparisons as reports.

    import uspcap

    report = uspcap.analyze("day.pcap", only=("gaps", "bursts"), line_rate="10G")
    report["gaps"].count
    report.to_pandas("gaps", "gaps")

Everything raises `uspcap.errors.UspcapError`, whose text is one sentence that says what, where and what to do next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from uspcap.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from uspcap.analysis.base import Result, Table
    from uspcap.analysis.suite import Settings, Suite
    from uspcap.backends.declaration import Direction, Request
    from uspcap.comparison.captures import ClockMode
    from uspcap.declared_options import Option
    from uspcap.formats.reader import TimestampUnit
    from uspcap.frames import FrameBatch, Problem
    from uspcap.pipeline.session import CaptureOutcome
    from uspcap.records import Record
    from uspcap.stages.reading import PlannedInput, Reading
    from uspcap.stages.taps import InterfaceTaps
    from uspcap.timestamps import Timestamps

Path = str | os.PathLike[str]

__all__ = ["Capture", "LiveCapture", "Report", "analyze", "capture", "compare", "open"]


@dataclass(frozen=True)
class Report:
    """What an analysis or a comparison found.

    Attributes
    ----------
    found : Record or mapping
        What `document` is made of; of an analysis a `RunReport` of `uspcap.report.document`.
    tables : mapping of str to mapping
        By analysis, then by name: columns of one length, for what is listed in full.
    """

    found: Record | Mapping[str, Any]
    tables: Mapping[str, Mapping[str, Table]] = field(default_factory=dict, repr=False)

    @cached_property
    def document(self) -> dict[str, Any]:
        """All of it, as `--format json` prints it: durations in ns, sizes in bytes."""
        from uspcap.records import as_json

        document: dict[str, Any] = as_json(self.found)
        return document

    def __getitem__(self, analysis: str) -> Result:
        """Return the result of an analysis, a frozen dataclass; `as_dict` makes of it what JSON has.

        Raises
        ------
        KeyError
            It did not run.
        """
        found: Result = self.found["analyses"][analysis]
        return found

    @property
    def problems(self) -> list[dict[str, Any]]:
        """What could not be read of the input, or had to be altered: file, offset, what; empty where nothing was."""
        source: dict[str, Any] = self.document.get("source", self.document)
        return list(source["problems"])

    def to_json(self) -> str:
        """Return the document as JSON, indented by 2, in ASCII."""
        return json.dumps(self.document, indent=2, allow_nan=False)

    def to_pandas(self, analysis: str, table: str) -> pd.DataFrame:
        """Return a table of an analysis.

        Raises
        ------
        KeyError
            There is none of that name.
        """
        import pandas as pd

        return pd.DataFrame(self.tables[analysis][table])

    def __str__(self) -> str:
        """Return the report as text, 100 columns wide."""
        from uspcap.report.comparison import comparison_page
        from uspcap.report.document import RunReport
        from uspcap.report.page import report_page
        from uspcap.report.renderers.text import as_text

        found = self.found
        return as_text(report_page(found) if isinstance(found, RunReport) else comparison_page(self.document), 100)


def _everything() -> Reading:
    from uspcap.stages.reading import Reading

    return Reading()


@dataclass(frozen=True, slots=True)
class Capture:
    """Capture files as one stream; `open` makes one.

    Attributes
    ----------
    paths : tuple of str
    expression : str
        Filter as of pcap-filter(7); empty keeps everything.
    tunnels : bool or None
        Let the innermost headers count; None does where tunnels carry most frames, or the filter applies to them.
    reading : Reading
        Interfaces, range of time and unit of timestamps.
    outer : bool
        Apply the filter to outer frames, as tcpdump does.
    """

    paths: tuple[str, ...]
    expression: str = ""
    tunnels: bool | None = None
    reading: Reading = field(default_factory=_everything)
    outer: bool = False

    def batches(self) -> Iterator[FrameBatch]:
        """Yield the frames, a few thousand at a time.

        Each batch owns its memory: all of them may be kept. Frames are numbered from 1 through all files, which come in
        order of their first timestamps, or from 1 in each file where `sort` is `off`.

        Raises
        ------
        CaptureFileError, NotACaptureFile, FilterError, MissingFeature
            A file cannot be opened or is none, or the filter does not compile.
        """
        from uspcap.bpf.filters import filter_of_files
        from uspcap.stages.tunnels import choose_tunnels

        keep = filter_of_files(self.expression, outer=self.outer)
        inputs = self._plan()
        looks_inside = bool(keep.expression) and keep.reading.name == "inner"
        tunnels = choose_tunnels(inputs, asked=self.tunnels, looks_inside=looks_inside).tunnels
        for batch in self._read(inputs):
            batch.decode_tunnels = tunnels
            keep.apply(batch)
            if batch.count:
                yield batch.copy()

    def _read(self, inputs: Sequence[PlannedInput]) -> Iterator[FrameBatch]:
        """Yield all frames that are wanted, before the filter."""
        from uspcap.stages.selection import FrameSelection
        from uspcap.stages.straightening import Straightener

        in_order = self.reading.sorting != "off"
        if in_order:
            straightener = Straightener(inputs, self.reading.sorting)
            if straightener.is_needed:
                in_range = FrameSelection((), inputs[0].time_range)
                for batch in straightener.batches():
                    in_range.apply_range(batch)
                    yield batch
                return
            inputs = [straight.planned for straight in straightener.inputs]
        frames_before = 0
        for entry in inputs:
            selection = entry.selection()
            read = 0
            with entry.open() as reader:
                for batch in reader.batches():
                    read += batch.frames_read
                    selection.apply(batch)
                    if in_order and frames_before:
                        batch.storage("frame_number")[: batch.count] += frames_before
                        batch.frames_before += frames_before
                    yield batch
            frames_before += read

    def problems(self) -> list[Problem]:
        """Read the files to their ends, and return what was wrong with them."""
        found: list[Problem] = []
        for planned in self._plan():
            selection = planned.selection()
            with planned.open() as reader:
                for batch in reader.batches():
                    selection.apply(batch)
                found += reader.facts.all_problems(reader.name)
                found += selection.problems(reader.name, reader.facts.interfaces)
        return found

    def _plan(self) -> Sequence[PlannedInput]:
        from uspcap.stages.reading import expand_all, plan

        return plan(expand_all(self.paths), self.reading).inputs

    def analyze(self, only: str | Sequence[str] | None = None, *, jobs: int | None = None, **options: Any) -> Report:
        """Analyze these frames: see `analyze`."""
        return _analyze(
            self.paths, only, self.expression, self.tunnels, self.reading, outer=self.outer, jobs=jobs, options=options
        )


def open(
    *paths: Path,
    filter: str = "",
    tunnels: bool | None = None,
    outer: bool = False,
    interfaces: Sequence[str] = (),
    start: str | None = None,
    end: str | None = None,
    timezone: str = "UTC",
    timestamp_unit: TimestampUnit = "auto",
    taps: InterfaceTaps = "auto",
    sort: str | int = "auto",
    dedup: str | int | None = None,
) -> Capture:
    """Return capture files as one stream; they are opened when they are read.

    Parameters
    ----------
    paths : path
        pcap or pcapng, plain or compressed, directories or globs, in any order; `-` is standard input.
    filter : str
        As of pcap-filter(7).
    tunnels : bool, optional
        Let the innermost headers count, or not; by default they do where tunnels carry most frames, or the filter
        applies to what they carry.
    outer : bool
        Apply the filter to outer frames, as tcpdump does.
    interfaces : sequence of str
        Only frames of these interfaces, by name or number; `FILE@eth0` is for one file.
    start, end : str, optional
        Only frames from one moment to before another, as `--from` and `--to` have them: `14:30`,
        `2024-03-05T09:30:00-05:00`, `+5m` after the first frame, `-1m` before the last.
    timezone : str
        Of moments that name none.
    timestamp_unit : {'auto', 'us', 'ns'}
        What fractions of a second in pcap files are counted in.
    taps : {'auto', 'join', 'apart'}
        Whether the interfaces of a file are one stream, as `--interfaces` has it.
    sort : str or int
        How frames that lie out of order are put in order of time: within `auto` (100 ms), or a window, as `250ms` or
        in ns; `off` leaves files and frames as they are.
    dedup : str or int, optional
        Leave out packets that were captured before within a window, as `100ms` or in ns.

    Raises
    ------
    UsageError
        None is named.
    """
    if not paths:
        raise UsageError("name a capture file to open")
    reading = _reading(interfaces, start, end, timezone, timestamp_unit, taps, sort, dedup)
    return Capture(tuple(os.fspath(path) for path in paths), filter, tunnels, reading, outer)


def _reading(
    interfaces: Sequence[str],
    start: str | None,
    end: str | None,
    timezone: str,
    timestamp_unit: TimestampUnit,
    taps: InterfaceTaps,
    sort: str | int,
    dedup: str | int | None,
) -> Reading:
    """Return what of files is read.

    Raises
    ------
    UsageError
        A text names no moment, time zone or window.
    """
    from uspcap.quantities import duration_ns
    from uspcap.stages.moments import parse_moment, parse_zone
    from uspcap.stages.order import parse_sorting
    from uspcap.stages.reading import Reading

    if timestamp_unit not in ("auto", "us", "ns"):
        raise UsageError(f"timestamp_unit is one of auto, us, ns, and not {timestamp_unit!r}")
    _check_choice("taps", taps, ("auto", "join", "apart"))
    try:
        zone = parse_zone(timezone)
        first, after = (None if text is None else parse_moment(text, zone) for text in (start, end))
        sorting = parse_sorting(f"{sort}ns" if isinstance(sort, int) else sort)
        window_ns = duration_ns(dedup) if isinstance(dedup, str) else dedup
    except ValueError as error:
        raise UsageError(str(error)) from None
    if window_ns is not None and (window_ns < 1 or sorting == "off"):
        raise UsageError("dedup is a window of 1 ns or more, and needs frames in order of time: leave sort='off' out")
    named = (interfaces,) if isinstance(interfaces, str) else tuple(interfaces)
    return Reading(named, first, after, timestamp_unit, taps, sorting, window_ns)


def analyze(
    paths: Path | Sequence[Path],
    only: str | Sequence[str] | None = None,
    *,
    filter: str = "",
    tunnels: bool | None = None,
    outer: bool = False,
    max_flows: int | None = None,
    timestamps: str | None = None,
    jobs: int | None = None,
    interfaces: Sequence[str] = (),
    start: str | None = None,
    end: str | None = None,
    timezone: str = "UTC",
    timestamp_unit: TimestampUnit = "auto",
    taps: InterfaceTaps = "auto",
    sort: str | int = "auto",
    dedup: str | int | None = None,
    **options: Any,
) -> Report:
    """Analyze capture files as `uspcap analyze` does.

    Parameters
    ----------
    paths : path, or sequence of path
        Several are one stream.
    only : str, or sequence of str, optional
        Analyses to run, in place of those that run by default.
    filter : str
        As of pcap-filter(7).
    tunnels : bool, optional
        Let the innermost headers count, or not; by default they do where tunnels carry most frames, or the filter
        applies to what they carry.
    outer : bool
        Apply the filter to outer frames, as tcpdump does.
    max_flows : int, optional
        Flows followed one by one.
    timestamps : str, optional
        `trailer` or `trailer:FORMAT` takes timestamps that a tap or switch put into the frames.
    jobs : int, optional
        Threads; as many as there are cores by default.
    interfaces : sequence of str
        Only frames of these interfaces, by name or number; `FILE@eth0` is for one file.
    start, end : str, optional
        Only frames from one moment to before another, as `--from` and `--to` have them: `14:30`,
        `2024-03-05T09:30:00-05:00`, `+5m` after the first frame, `-1m` before the last.
    timezone : str
        Of moments that name none.
    timestamp_unit : {'auto', 'us', 'ns'}
        What fractions of a second in pcap files are counted in.
    taps : {'auto', 'join', 'apart'}
        Whether the interfaces of a file are one stream, as `--interfaces` has it.
    sort : str or int
        How frames that lie out of order are put in order of time: within `auto` (100 ms), or a window, as `250ms` or
        in ns; `off` leaves files and frames as they are.
    dedup : str or int, optional
        Leave out packets that were captured before within a window, as `100ms` or in ns.
    options
        Those of the analyses, named as on the command line with `_` for `-`: `gap_threshold="1ms"`, `line_rate="10G"`,
        `protocol="moldudp64"`. Text is read as there; durations may be ints in ns, rates ints in bits a second.

    Raises
    ------
    UspcapError
        Options make no sense, a file cannot be opened, the filter does not compile.
    """
    files = [os.fspath(paths)] if isinstance(paths, str | os.PathLike) else [os.fspath(path) for path in paths]
    if not files:
        raise UsageError("name a capture file to analyze")
    reading = _reading(interfaces, start, end, timezone, timestamp_unit, taps, sort, dedup)
    return _analyze(
        files,
        only,
        filter,
        tunnels,
        reading,
        outer=outer,
        max_flows=max_flows,
        timestamps=timestamps,
        jobs=jobs,
        options=options,
    )


def _analyze(
    files: Sequence[str],
    only: str | Sequence[str] | None,
    expression: str,
    tunnels: bool | None,
    reading: Reading,
    *,
    outer: bool = False,
    options: Mapping[str, Any],
    max_flows: int | None = None,
    timestamps: str | None = None,
    jobs: int | None = None,
) -> Report:
    from uspcap.analysis import registry
    from uspcap.analysis.suite import analyze_files, settings_for
    from uspcap.protocols.flows import MAXIMUM_FLOWS
    from uspcap.report.document import build_report, source_of
    from uspcap.stages.reading import expand_all
    from uspcap.timestamps.trailers import parse_choice

    inputs = expand_all(files)
    named = _known_names(only, live=False)
    settings: Settings = settings_for(
        read_options(options, registry.options(), "analysis"),
        default=registry.default_names(live=False),
        named=named,
        naming="only",
        files=[entry.path for entry in inputs],
        expression=expression,
        maximum_flows=MAXIMUM_FLOWS if max_flows is None else max_flows,
        tunnels=tunnels,
        trailer=None if timestamps in (None, "file") else parse_choice(str(timestamps)),
        reading=reading,
        outer=outer,
    )
    outcome = analyze_files(inputs, settings, jobs=jobs or os.cpu_count() or 1)
    analyses = outcome.suite.analyses
    tables = {name: analysis.tables() for name, analysis in analyses.items()}
    report = build_report(source_of(outcome, settings.expression), analyses, reading=outcome.filtered.reading)
    return Report(report, tables)


def _known_names(only: str | Sequence[str] | None, *, live: bool) -> Sequence[str] | None:
    """Return names of analyses, all of which there are."""
    from uspcap.analysis import registry

    named = (only,) if isinstance(only, str) else only
    known = registry.names(live=live)
    for name in named or ():
        if name not in known:
            of = "live captures" if live else "files"
            raise UsageError(f"there is no analysis {name!r} of {of}; there are {', '.join(known)}")
    return named


def read_options(options: Mapping[str, Any], declared: Iterable[Option], what: str) -> dict[str, Any]:
    """Return options by their parameters, with text read as on a command line.

    Parameters
    ----------
    options : mapping of str to object
    declared : iterable of Option
        Those that there are.
    what : str
        What declares them: `analysis` or `backend`.

    Raises
    ------
    UsageError
        There is no such option, or the text is none of its values.
    """
    from uspcap.declared_options import Kind

    known = {option.parameter: option for option in declared}
    given: dict[str, Any] = {}
    for name, value in options.items():
        option = known.get(name)
        if option is None:
            raise UsageError(f"no {what} has an option {name!r}; there are {', '.join(known)}")
        if option.repeated and (isinstance(value, str) or not isinstance(value, Sequence)):
            value = (value,)
        read = option.reader
        is_number = isinstance(value, int) and option.kind in (Kind.COUNT, Kind.OTHER)
        if read is not None and (isinstance(value, str) or is_number):
            try:
                value = read(str(value))
            except ValueError as error:
                raise UsageError(f"{name}: {error}") from None
        elif option.kind is Kind.CHOICE and value is not None and value not in option.choices:
            raise UsageError(f"{name} is one of {', '.join(option.choices)}, and not {value!r}")
        given[name] = value
    return given


def compare(
    a: Path | Sequence[Path],
    b: Path | Sequence[Path],
    *,
    key: Literal["network", "payload", "whole", "fields"] = "network",
    clock: ClockMode = "auto",
    window_ns: int | None = None,
    offset_ns: int | None = None,
    filter: str = "",
    tunnels: bool | None = None,
    outer: bool = False,
    timestamps: str | None = None,
    interfaces: Sequence[str] = (),
    start: str | None = None,
    end: str | None = None,
    timezone: str = "UTC",
    timestamp_unit: TimestampUnit = "auto",
    taps: InterfaceTaps = "auto",
    sort: str | int = "auto",
    dedup: str | int | None = None,
) -> Report:
    """Compare two captures of the same traffic frame by frame, as `uspcap compare A B` does.

    Parameters
    ----------
    a, b : path, or sequence of path
        A file, a directory, a glob or one interface of a file (`tap.pcapng@eth0`); several are one capture.
    key : str
        What makes a frame the same.
    clock : {'auto', 'same', 'offset'}
        Whether one clock timestamped both.
    window_ns : int, optional
        Most that a frame's timestamps may differ.
    offset_ns : int, optional
        B's clock minus A's, where it is known roughly.
    filter : str
        As of pcap-filter(7), for both.
    tunnels : bool, optional
        As for `analyze`, of both.
    outer : bool
        As for `analyze`.
    timestamps : str, optional
        As for `analyze`, of both.
    interfaces : sequence of str
        Only frames of these interfaces, by name or number; `FILE@eth0` is for one file.
    start, end : str, optional
        Only frames from one moment to before another, as `--from` and `--to` have them: `14:30`,
        `2024-03-05T09:30:00-05:00`, `+5m` after the first frame, `-1m` before the last.
    timezone : str
        Of moments that name none.
    timestamp_unit : {'auto', 'us', 'ns'}
        What fractions of a second in pcap files are counted in.
    taps : {'auto', 'join', 'apart'}
        Whether the interfaces of a file are one stream, as `--interfaces` has it.
    sort : str or int
        How frames that lie out of order are put in order of time: within `auto` (100 ms), or a window, as `250ms` or
        in ns; `off` leaves files and frames as they are.
    dedup : str or int, optional
        Leave out packets that were captured before within a window, as `100ms` or in ns.

    Raises
    ------
    UspcapError
        Options make no sense, a file cannot be opened, the filter does not compile.
    """
    from uspcap.comparison.captures import DEFAULT_WINDOW_NS, Settings, compare_captures
    from uspcap.report.comparison import comparison_report
    from uspcap.stages.reading import expand_all
    from uspcap.timestamps.trailers import parse_choice

    if window_ns is not None and window_ns < 1:
        raise UsageError("a window of 0 matches nothing: take 1 ns or more")
    trailer = None if timestamps in (None, "file") else parse_choice(str(timestamps))
    reading = _reading(interfaces, start, end, timezone, timestamp_unit, taps, sort, dedup)
    settings = Settings(key, clock, window_ns or DEFAULT_WINDOW_NS, offset_ns, filter, trailer, reading, tunnels, outer)
    sides = [
        expand_all([os.fspath(side)] if isinstance(side, str | os.PathLike) else [os.fspath(path) for path in side])
        for side in (a, b)
    ]
    return Report(comparison_report(compare_captures(sides[0], sides[1], settings)))


class LiveCapture:
    """Frames as they come to interfaces; `capture` makes one, and nothing is opened before it is used.

    It can be used once, by `batches` or by `analyze`.

    Parameters
    ----------
    request : Request
    frames : int, optional
        End after so many.
    duration_ns : int, optional
        End after so long.
    """

    def __init__(self, request: Request, frames: int | None, duration_ns: int | None) -> None:
        self._request = request
        self._frames = frames
        self._duration_ns = duration_ns
        self._outcome: CaptureOutcome | None = None

    @property
    def accounts(self) -> dict[str, Any]:
        """Where every frame went, as `source.accounts` of a report has it.

        Raises
        ------
        UsageError
            The capture is not over.
        """
        from uspcap.pipeline.accounts import as_dict

        if self._outcome is None:
            raise UsageError("the accounts are complete at the end of a capture, which is still running")
        return as_dict(self._outcome.accounts)

    def batches(self) -> Iterator[FrameBatch]:
        """Yield frames as they come, up to a few thousand at a time, until the limit or until nobody asks for more.

        Each batch owns its memory: all of them may be kept. The interface is given back at the end; where the loop is
        left early, once the iterator is closed or forgotten.

        Raises
        ------
        UspcapError
            The interface cannot be captured on, or it went away; frames until then were yielded.
        """
        for batch in self._run(None):
            yield batch.copy()
        assert self._outcome is not None
        if self._outcome.failure is not None:
            raise self._outcome.failure

    def analyze(
        self, only: str | Sequence[str] | None = None, *, max_flows: int | None = None, **options: Any
    ) -> Report:
        """Capture until the limit and return the report.

        Parameters
        ----------
        only : str, or sequence of str, optional
            Analyses to run, in place of those that run by default.
        max_flows : int, optional
            Flows followed one by one.
        options
            Those of the analyses, as for `uspcap.analyze`.

        Raises
        ------
        UsageError
            The capture has no limit, or options make no sense.
        UspcapError
            Nothing can be captured, or an analysis failed. What ends a capture early, such as an interface that goes
            away, is in the report's `source.notes`.
        """
        from uspcap.analysis import registry
        from uspcap.analysis.suite import Suite, settings_for
        from uspcap.protocols.flows import MAXIMUM_FLOWS
        from uspcap.report.document import build_report, source_of_capture

        if self._frames is None and self._duration_ns is None:
            raise UsageError("a capture to be analyzed needs an end: give capture() a count or a duration")
        named = _known_names(only, live=True)
        settings = settings_for(
            read_options(options, registry.options(), "analysis"),
            default=registry.default_names(live=True),
            named=named,
            naming="only",
            expression=self._request.expression,
            maximum_flows=MAXIMUM_FLOWS if max_flows is None else max_flows,
        )
        for _ in self._run(Suite(settings)):
            pass
        outcome = self._outcome
        assert outcome is not None
        if outcome.suite is None:
            assert outcome.failure is not None
            raise outcome.failure
        analyses = outcome.suite.analyses
        source = source_of_capture(outcome, outcome.suite, settings.expression)
        tables = {name: analysis.tables() for name, analysis in analyses.items()}
        return Report(build_report(source, analyses, outcome.accounts.statistics.longest_unread_ns), tables)

    def _run(self, suite: Suite | None) -> Iterator[FrameBatch]:
        from uspcap.backends.opening import open_source
        from uspcap.pipeline.session import CaptureSession

        if self._outcome is not None:
            raise UsageError("this capture is over: call uspcap.capture() for another one")
        with open_source(self._request) as source:
            session = CaptureSession(
                source, suite=suite, frames=self._frames, duration_ns=self._duration_ns, tell=lambda sentence: None
            )
            try:
                yield from session.batches()
            finally:
                self._outcome = session.outcome


def capture(
    interface: str | Sequence[str],
    *,
    filter: str = "",
    backend: str = "auto",
    count: int | None = None,
    duration: str | None = None,
    snaplen: int = 0,
    promiscuous: bool = True,
    direction: Direction | None = None,
    timestamps: Timestamps = "auto",
    **options: Any,
) -> LiveCapture:
    """Return a capture on interfaces, as `uspcap capture -i` makes it; it begins when it is used.

    Parameters
    ----------
    interface : str, or sequence of str
    filter : str
        As of pcap-filter(7).
    backend : str
        `auto`, or the name of one: `packet_mmap`, `af_xdp`.
    count : int, optional
        End after so many frames.
    duration : str, optional
        End after so long, as `10s`.
    snaplen : int
        Bytes kept of a frame; 0 keeps all.
    promiscuous : bool
        Take what is for other stations, too.
    direction : {'in', 'out', 'inout'}, optional
        Frames received, sent, or both.
    timestamps : str
        Who timestamps, as `--timestamps` has it.
    options
        Those of the backend, named as on the command line with `_` for `-`: `take_all=True`.

    Raises
    ------
    UsageError
        Options make no sense.
    """
    from uspcap.backends.base import DEFAULT_SNAPLEN
    from uspcap.backends.declaration import AUTO, Request, backend_options, backends
    from uspcap.quantities import duration_ns
    from uspcap.timestamps import TIMESTAMPS

    interfaces = (interface,) if isinstance(interface, str) else tuple(interface)
    _check_choice("backend", backend, (AUTO, *backends()))
    _check_choice("direction", direction, (None, "in", "out", "inout"))
    _check_choice("timestamps", timestamps, TIMESTAMPS)
    if count is not None and count < 1:
        raise UsageError(f"count is 1 or more, and not {count}")
    try:
        length_ns = None if duration is None else duration_ns(duration)
    except ValueError as error:
        raise UsageError(f"duration: {error}") from None
    request = Request(
        interfaces=interfaces,
        expression=filter,
        backend=backend,
        snaplen=snaplen or DEFAULT_SNAPLEN,
        promiscuous=promiscuous,
        direction=direction,
        timestamps=timestamps,
        options=read_options(options, backend_options(), "backend"),
    )
    return LiveCapture(request, count, length_ns)


def _check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        raise UsageError(f"{name} is one of {', '.join(map(str, choices))}, and not {value!r}")
