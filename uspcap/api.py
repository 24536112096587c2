"""uspcap from Python: captures as batches of columns, analyses and comparisons as reports.

    import uspcap

    report = uspcap.analyze("day.pcap", only=("gaps", "bursts"), line_rate="10G")
    report["gaps"]["count"]
    report.to_pandas("gaps", "gaps")

Everything raises `uspcap.errors.UspcapError`, whose text is one sentence that says what, where and what to do next.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from uspcap.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

    from uspcap.analysis.base import Table
    from uspcap.analysis.suite import Settings
    from uspcap.comparison.captures import ClockMode
    from uspcap.formats.reader import TimestampUnit
    from uspcap.frames import FrameBatch, Problem
    from uspcap.stages.reading import PlannedInput, Reading

Path = str | os.PathLike[str]

__all__ = ["Capture", "Report", "analyze", "compare", "open"]


@dataclass(frozen=True, slots=True)
class Report:
    """What an analysis or a comparison found.

    Attributes
    ----------
    document : dict
        All of it, as `--format json` prints it: durations in ns, sizes in bytes.
    tables : mapping of str to mapping
        By analysis, then by name: columns of one length, for what is listed in full.
    """

    document: dict[str, Any]
    tables: Mapping[str, Mapping[str, Table]] = field(default_factory=dict, repr=False)

    def __getitem__(self, analysis: str) -> dict[str, Any]:
        """Return the result of an analysis.

        Raises
        ------
        KeyError
            It did not run.
        """
        found: dict[str, Any] = self.document["analyses"][analysis]
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
        from uspcap.report.page import report_page
        from uspcap.report.renderers.text import as_text

        page = report_page if "analyses" in self.document else comparison_page
        return as_text(page(self.document), 100)


def _everything() -> Reading:
    from uspcap.stages.reading import Reading

    return Reading()


@dataclass(frozen=True, slots=True)
class Capture:
    """Capture files as one stream, in the order given; `open` makes one.

    Attributes
    ----------
    paths : tuple of str
    expression : str
        Filter as of pcap-filter(7); empty keeps everything.
    tunnels : bool
        Let the innermost headers count.
    reading : Reading
        Interfaces, range of time and unit of timestamps.
    """

    paths: tuple[str, ...]
    expression: str = ""
    tunnels: bool = False
    reading: Reading = field(default_factory=_everything)

    def batches(self) -> Iterator[FrameBatch]:
        """Yield the frames, a few thousand at a time.

        Each batch owns its memory: all of them may be kept. Frames are numbered from 1 in each file.

        Raises
        ------
        CaptureFileError, NotACaptureFile, FilterError, MissingFeature
            A file cannot be opened or is none, or the filter does not compile.
        """
        from uspcap.bpf.filters import FrameFilter

        keep = FrameFilter(self.expression)
        for one in self._plan():
            selection = one.selection()
            with one.open() as reader:
                for batch in reader.batches():
                    batch.decode_tunnels = self.tunnels
                    selection.apply(batch)
                    keep.apply(batch)
                    if batch.count:
                        yield batch.copy()

    def problems(self) -> list[Problem]:
        """Read the files to their ends, and return what was wrong with them."""
        found: list[Problem] = []
        for one in self._plan():
            selection = one.selection()
            with one.open() as reader:
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
        return _analyze(self.paths, only, self.expression, self.tunnels, self.reading, jobs=jobs, options=options)


def open(
    *paths: Path,
    filter: str = "",
    tunnels: bool = False,
    interfaces: Sequence[str] = (),
    start: str | None = None,
    end: str | None = None,
    timezone: str = "UTC",
    timestamp_unit: TimestampUnit = "auto",
) -> Capture:
    """Return capture files as one stream; they are opened when they are read.

    Parameters
    ----------
    paths : path
        pcap or pcapng, plain or compressed, directories or globs, in the order of their time; `-` is standard input.
    filter : str
        As of pcap-filter(7).
    tunnels : bool
        Let the innermost headers count.
    interfaces : sequence of str
        Only frames of these interfaces, by name or number; `FILE@eth0` is for one file.
    start, end : str, optional
        Only frames from one moment to before another, as `--from` and `--to` have them: `14:30`,
        `2024-03-05T09:30:00-05:00`, `+5m` after the first frame, `-1m` before the last.
    timezone : str
        Of moments that name none.
    timestamp_unit : {'auto', 'us', 'ns'}
        What fractions of a second in pcap files are counted in.

    Raises
    ------
    UsageError
        None is named.
    """
    if not paths:
        raise UsageError("name a capture file to open")
    reading = _reading(interfaces, start, end, timezone, timestamp_unit)
    return Capture(tuple(os.fspath(path) for path in paths), filter, tunnels, reading)


def _reading(
    interfaces: Sequence[str], start: str | None, end: str | None, timezone: str, timestamp_unit: TimestampUnit
) -> Reading:
    """Return what of files is read.

    Raises
    ------
    UsageError
        A text names no moment or time zone.
    """
    from uspcap.stages.moments import parse_moment, parse_zone
    from uspcap.stages.reading import Reading

    if timestamp_unit not in ("auto", "us", "ns"):
        raise UsageError(f"timestamp_unit is one of auto, us, ns, and not {timestamp_unit!r}")
    try:
        zone = parse_zone(timezone)
        first, after = (None if text is None else parse_moment(text, zone) for text in (start, end))
    except ValueError as error:
        raise UsageError(str(error)) from None
    named = (interfaces,) if isinstance(interfaces, str) else tuple(interfaces)
    return Reading(named, first, after, timestamp_unit)


def analyze(
    paths: Path | Sequence[Path],
    only: str | Sequence[str] | None = None,
    *,
    filter: str = "",
    tunnels: bool = False,
    max_flows: int | None = None,
    timestamps: str | None = None,
    jobs: int | None = None,
    interfaces: Sequence[str] = (),
    start: str | None = None,
    end: str | None = None,
    timezone: str = "UTC",
    timestamp_unit: TimestampUnit = "auto",
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
    tunnels : bool
        Let the innermost headers count.
    max_flows : int, optional
        Flows followed one by one.
    timestamps : str, optional
        `trailer` or `trailer:FORMAT` takes stamps that a tap or switch put into the frames.
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
    reading = _reading(interfaces, start, end, timezone, timestamp_unit)
    return _analyze(
        files, only, filter, tunnels, reading, max_flows=max_flows, timestamps=timestamps, jobs=jobs, options=options
    )


def _analyze(
    files: Sequence[str],
    only: str | Sequence[str] | None,
    expression: str,
    tunnels: bool,
    reading: Reading,
    *,
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
    named = (only,) if isinstance(only, str) else only
    for name in named or ():
        if name not in registry.names(live=False):
            raise UsageError(
                f"there is no analysis {name!r} of files; there are {', '.join(registry.names(live=False))}"
            )
    settings: Settings = settings_for(
        read_options(options),
        default=registry.default_names(live=False),
        named=named,
        naming="only",
        files=[one.path for one in inputs],
        expression=expression,
        maximum_flows=MAXIMUM_FLOWS if max_flows is None else max_flows,
        tunnels=tunnels,
        trailer=None if timestamps in (None, "file") else parse_choice(str(timestamps)),
        reading=reading,
    )
    outcome = analyze_files(inputs, settings, jobs=jobs or os.cpu_count() or 1)
    analyses = outcome.suite.analyses
    tables = {name: analysis.tables() for name, analysis in analyses.items()}
    return Report(build_report(source_of(outcome, settings.expression), analyses), tables)


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of analyses by their parameters, with text read as on a command line.

    Raises
    ------
    UsageError
        There is no such option, or the text is none of its values.
    """
    from uspcap.analysis import registry
    from uspcap.declared_options import Kind

    known = {option.parameter: option for option in registry.options()}
    given: dict[str, Any] = {}
    for name, value in options.items():
        option = known.get(name)
        if option is None:
            raise UsageError(f"no analysis has an option {name!r}; there are {', '.join(known)}")
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
    timestamps: str | None = None,
    interfaces: Sequence[str] = (),
    start: str | None = None,
    end: str | None = None,
    timezone: str = "UTC",
    timestamp_unit: TimestampUnit = "auto",
) -> Report:
    """Compare two captures of the same traffic frame by frame, as `uspcap compare A B` does.

    Parameters
    ----------
    a, b : path, or sequence of path
        A file, a directory, a glob or one interface of a file (`tap.pcapng@eth0`); several are one capture.
    key : str
        What makes a frame the same.
    clock : {'auto', 'same', 'offset'}
        Whether one clock stamped both.
    window_ns : int, optional
        Most that a frame's stamps may differ.
    offset_ns : int, optional
        B's clock minus A's, where it is known roughly.
    filter : str
        As of pcap-filter(7), for both.
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
    reading = _reading(interfaces, start, end, timezone, timestamp_unit)
    settings = Settings(key, clock, window_ns or DEFAULT_WINDOW_NS, offset_ns, filter, trailer, reading)
    sides = [
        expand_all([os.fspath(side)] if isinstance(side, str | os.PathLike) else [os.fspath(one) for one in side])
        for side in (a, b)
    ]
    return Report(comparison_report(compare_captures(sides[0], sides[1], settings)))
