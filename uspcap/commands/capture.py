"""`uspcap capture`: an interface in, a file or a report out."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

import click

from uspcap.analysis.declaration import TOP
from uspcap.analysis.registry import default_names, view_of
from uspcap.analysis.suite import settings_for
from uspcap.backends.base import HAND_OVER_NS, LONG_HAND_OVER_NS
from uspcap.backends.opening import open_source
from uspcap.bpf.classic import join_words
from uspcap.bpf.filters import filter_as_read
from uspcap.bpf.readings import reading_for_writing, reading_of
from uspcap.commands.analysis_options import analysis_options, check_names_for_files, given_options
from uspcap.commands.inside_options import outer_option
from uspcap.commands.options import CountType, CpuListType, DurationType, check_trailer, refuse_same_files
from uspcap.commands.output import format_option, put_out
from uspcap.commands.output_options import output_options
from uspcap.commands.reading_options import reading_options, refuse_reading
from uspcap.commands.request_options import request_options
from uspcap.errors import UsageError, UspcapError
from uspcap.formats.byte_sink import Patience
from uspcap.network.links import named_link
from uspcap.notices import say
from uspcap.pipeline.accounts import stage_lines
from uspcap.pipeline.filtered import FilteredSource
from uspcap.pipeline.pinning import pin
from uspcap.pipeline.privileges import find_user, relinquish
from uspcap.pipeline.session import CaptureOutcome, CaptureSession
from uspcap.report.renderers.registry import DEFAULT_FORMAT, renderer
from uspcap.signals import Ending
from uspcap.sinks.host_facts import SectionTexts, section_texts
from uspcap.sinks.output import check_link_types, open_output
from uspcap.sinks.rotation import RotatingWriter
from uspcap.sinks.rotation_places import check_directory
from uspcap.stages.reading import expand_all, plan
from uspcap.stages.trailer import resolved_trailer, trailer_stage
from uspcap.stages.tunnels import choose_tunnels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pwd import struct_passwd

    from uspcap.analysis.suite import Settings, Suite
    from uspcap.backends.base import LiveSource
    from uspcap.backends.declaration import Request
    from uspcap.bpf.readings import FilterReading
    from uspcap.formats.writer import CaptureWriter
    from uspcap.report.watching import Watch
    from uspcap.sinks.output import OutputRequest
    from uspcap.stages.reading import PlannedInput, Reading
    from uspcap.timestamps import Timestamps
    from uspcap.timestamps.trailers import TrailerChoice


@click.command("capture")
@click.argument("words", nargs=-1, metavar="[FILTER]...")
@click.option(
    "-i",
    "--interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Capture on this interface: its name, or its number as -D lists it. Repeat for several.",
)
@click.option(
    "-D",
    "--list-interfaces",
    is_flag=True,
    help="List interfaces: what each backend can do there, and what uses them.",
)
@output_options
@click.option("-r", "--read", "files", multiple=True, metavar="FILE", help="Replay this file instead. Repeatable.")
@click.option("-c", "--count", type=CountType(1), metavar="N", help="Stop after N frames.")
@click.option("--duration", type=DurationType(), help="Stop after this time, e.g. 10s.")
@request_options
@click.option("--cpu", "cpus", type=CpuListType(), help="Run only on these CPUs, e.g. 2 or 2,4-5.")
@analysis_options("--analyze", "names")
@outer_option()
@click.option("--inner", is_flag=True, help="With -r and -w: apply FILTER to the innermost packet.")
@click.option(
    "-Z",
    "--relinquish-privileges",
    "user_name",
    metavar="USER",
    help="Drop all privileges and run as USER once rings and files are open.",
)
@reading_options(interface=False)
@click.option("--no-comment", is_flag=True, help="Do not record the host's and NIC's settings in the file.")
@format_option
@click.option(
    "--interval", type=DurationType(), help="Also report on each interval of this length as it ends, e.g. 10s."
)
@click.option(
    "--live/--no-live",
    default=None,
    help="Show the last interval and the totals while capturing. Default: on a terminal that gets no other output.",
)
@click.option("-n", "no_names", is_flag=True, hidden=True, help="Accepted as in tcpdump; names are never looked up.")
def command(
    words: tuple[str, ...],
    interfaces: tuple[str, ...],
    list_interfaces: bool,
    output: OutputRequest | None,
    files: tuple[str, ...],
    count: int | None,
    duration: int | None,
    capture_request: Request,
    timestamps: Timestamps | TrailerChoice,
    cpus: frozenset[int] | None,
    names: tuple[str, ...] | None,
    tunnels: bool | None,
    max_flows: int,
    outer: bool,
    inner: bool,
    user_name: str | None,
    no_comment: bool,
    form: str,
    interval: int | None,
    live: bool | None,
    no_names: bool,
    reading: Reading,
    **options: Any,
) -> None:
    """Capture the frames that match FILTER (pcap-filter syntax, as in tcpdump).

    Frames go to a file (-w), to analyses (--analyze), or to both; with neither option, all analyses run. Ctrl-C,
    SIGTERM or SIGHUP stops the capture cleanly; a second one ends it at once. SIGUSR1 prints the accounts so
    far. SIGUSR2 flushes the file, or starts the next one when files rotate.

    Backends: packet_mmap copies frames, and the host still receives them. af_xdp takes matching frames away from the
    host, before the network stack; auto uses it only with --take-all.

    Stderr shows the capture's settings when it starts and, when it ends, where every frame went.
    """
    if list_interfaces:
        _list_interfaces(form)
        return
    _refuse_contradictions(output, form, files, reading, inner=inner, outer=outer)
    inputs = plan(expand_all(files), reading).inputs
    paths = tuple(planned.path for planned in inputs)
    user = None if user_name is None else find_user(user_name)
    output = _owned(output, user, paths)
    expression = join_words(words)
    screen = _screen(live, default=bool(interfaces) and output is None and interval is None and form == DEFAULT_FORMAT)
    watched = interval is not None or screen is not None
    # Interfaces wait for one another.
    awaited = watched or len(interfaces) > 1 or (output is not None and output.awaited)
    asked = settings_for(
        given_options(options),
        default=default_names(live=not files) if output is None else (),
        named=names,
        naming="--analyze",
        files=paths,
        expression=expression,
        maximum_flows=max_flows,
        tunnels=tunnels,
        outer=outer,
        trailer=_resolved(None if isinstance(timestamps, str) else timestamps, paths),
    )
    if files:
        check_names_for_files(asked.names)
        filter_reading = _reading(expression, writing=output is not None, inner=inner, outer=outer)
        asked = _with_tunnels(replace(asked, filter_reading=filter_reading), inputs)
    if cpus is not None:
        say(pin(cpus, [named_link(name).name for name in interfaces]))
    job = _Job(
        request=replace(
            capture_request,
            interfaces=interfaces,
            files=inputs,
            expression="" if files else expression,
            hand_over_ns=HAND_OVER_NS if awaited else LONG_HAND_OVER_NS,
        ),
        expression=expression,
        settings=asked if asked.names or watched else None,
        filtered=asked if files else None,
        output=output,
        comment=not no_comment,
        user=user,
        frames=count,
        duration_ns=duration,
        interval_ns=interval,
        watched=watched,
        screen=screen,
        shown_on=sys.stderr if _takes_stdout(output) else sys.stdout,
        form=form,
        top=options[TOP.parameter],
    )
    outcome = job.run()
    if outcome.failure is not None:
        raise outcome.failure
    if outcome.problems or outcome.losses:
        sys.exit(1)


def _takes_stdout(output: OutputRequest | None) -> bool:
    return output is not None and output.path == "-"


def _refuse_contradictions(
    output: OutputRequest | None, form: str, files: tuple[str, ...], reading: Reading, *, inner: bool, outer: bool
) -> None:
    """Refuse options that are each right, and not together."""
    if _takes_stdout(output) and form == "json":
        raise UsageError("with -w - frames go to stdout, where the JSON report would go too: write to a file")
    if not files:
        refuse_reading(reading, "name some to replay with -r")
    if inner and (outer or not files):
        raise UsageError(
            "--inner and --outer contradict each other: keep one"
            if outer
            else "--inner is about files that are replayed with -r: filters of interfaces apply to outer frames"
        )


def _owned(output: OutputRequest | None, user: struct_passwd | None, paths: Sequence[str]) -> OutputRequest | None:
    """Return where frames go, which is none of the files that are read, with whom it is to belong to."""
    if output is None:
        return None
    refuse_same_files(paths, [output.path])
    # Who goes on as another user captures for that one, who is to read the file.
    return output if user is None else replace(output, owner=(user.pw_uid, user.pw_gid))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A capture that is all set: from what, to where, how long, and how it is shown."""

    request: Request
    expression: str
    settings: Settings | None
    filtered: Settings | None
    output: OutputRequest | None
    comment: bool
    user: struct_passwd | None
    frames: int | None
    duration_ns: int | None
    interval_ns: int | None
    watched: bool
    screen: TextIO | None
    shown_on: TextIO
    form: str
    top: int | None

    def run(self) -> CaptureOutcome:
        """Capture, say what came of it and report."""
        settings = self.settings
        # Made even where intervals have suites of their own: no analysis is imported while rings fill.
        suite = _suite(settings)
        if settings is not None:
            _import_late_modules(self.form, self.watched, settings.names)
        with Ending() as ending, _filtered(open_source(self.request), self.filtered) as source:
            outcome, writer = self._capture(ending, source, suite)
        self._say_accounts(outcome, source)
        try:
            if outcome.suite is not None and settings is not None and settings.names:
                self._report(outcome, outcome.suite)
        finally:
            if isinstance(writer, RotatingWriter):
                _wait_for_commands(writer)
        for problem in outcome.problems:
            say(f"{problem.file}: {problem.place}: {problem.what}")
        return outcome

    def _capture(
        self, ending: Ending, source: LiveSource, suite: Suite | None
    ) -> tuple[CaptureOutcome, CaptureWriter | RotatingWriter | None]:
        description = source.describe()
        output, patience = self.output, Patience()
        writer, remark = None, ""
        if output is not None:
            remark = check_link_types(output, source)
            commented = output.format == "pcapng" and self.comment
            section = section_texts(source, self.expression) if commented else SectionTexts()
            writer = open_output(output, source, section, patience)
        watch = self._watch(source)
        given_up = relinquish(self.user, source)
        if given_up and output is not None and output.rotates:
            check_directory(output.path)
        session = CaptureSession(
            source,
            writer=writer,
            suite=suite if watch is None else None,
            trailers=None if self.settings is None else trailer_stage(self.settings.trailer),
            intervals=None if watch is None else watch.intervals,
            frames=self.frames,
            duration_ns=self.duration_ns,
            patience=patience,
            tell=say if watch is None else watch.note,
        )

        def stop() -> None:
            if watch is not None:
                watch.close()
            session.stop()

        ending.stop_with(stop)
        with session.attention.listening():
            # Only now can it be stopped in good order, and may others rely on what the first line says.
            for line in filter(None, (*description.headlines, *description.remarks, remark, given_up)):
                say(line)
            with watch or nullcontext():
                return session.run(), writer

    def _watch(self, source: LiveSource) -> Watch | None:
        """Return what shows intervals while they pass, None where nobody looks."""
        if self.settings is None or not self.watched:
            return None
        from uspcap.report.watching import Watch

        return Watch(
            source,
            self.settings,
            interval_ns=self.interval_ns,
            screen=self.screen,
            stream=self.shown_on,
            form=self.form,
        )

    def _say_accounts(self, outcome: CaptureOutcome, source: LiveSource) -> None:
        say(str(outcome.accounts))
        if self.request.interfaces:
            for line in (*stage_lines(outcome.accounts), *source.parting_remarks()):
                say(line)
        for clock in outcome.clocks:
            say(str(clock))
        if isinstance(source, FilteredSource) and source.hint:
            say(source.hint)

    def _report(self, outcome: CaptureOutcome, suite: Suite) -> None:
        from uspcap.report.document import build_report, source_of_capture
        from uspcap.report.model import Output
        from uspcap.report.page import report_page

        assert self.settings is not None
        source = source_of_capture(outcome, suite, self.expression)
        unread_ns = outcome.accounts.statistics.longest_unread_ns
        report = build_report(source, suite.analyses, unread_ns, self.settings.filter_reading)
        one_of_several = self.interval_ns is not None
        shown = Output(report, lambda: report_page(report, self.top))
        put_out(shown, self.form, self.shown_on, one_of_several=one_of_several)


def _reading(expression: str, *, writing: bool, inner: bool, outer: bool) -> FilterReading:
    """Return what the filter of files that are replayed applies to."""
    return reading_for_writing(expression) if writing and not (inner or outer) else reading_of(expression, outer=outer)


def _filtered(source: LiveSource, settings: Settings | None) -> LiveSource:
    """Return the source with the filter of the settings behind it; itself where it has its own."""
    if settings is None or settings.filter_reading is None or not settings.expression:
        return source
    chosen = filter_as_read(settings.expression, settings.filter_reading)
    return FilteredSource(source, chosen, tunnels=bool(settings.tunnels))


def _with_tunnels(settings: Settings, inputs: Sequence[PlannedInput]) -> Settings:
    """Return settings that say whether tunnels in files are decoded; what is wrong with a file, its replay says."""
    try:
        choice = choose_tunnels(inputs, asked=settings.tunnels, looks_inside=settings.looks_inside)
    except UspcapError:
        return replace(settings, tunnels=bool(settings.tunnels))
    if settings.names or settings.looks_inside:
        for sentence in choice.sentences:
            say(sentence)
    return replace(settings, tunnels=choice.tunnels)


def _wait_for_commands(writer: RotatingWriter) -> None:
    """Wait for what is run on each file; everything else is reported and done, and a signal leaves it running."""
    with Ending():
        writer.wait()
    for warning in writer.warnings:
        say(warning)


def _list_interfaces(form: str) -> None:
    from uspcap.backends.listing import list_interfaces
    from uspcap.report.interface_list import listing_page
    from uspcap.report.model import Output

    listing = list_interfaces()
    put_out(Output(listing.as_document(), lambda: listing_page(listing)), form, sys.stdout)


def _import_late_modules(form: str, watched: bool, names: Sequence[str]) -> None:
    """Import what analyses and reports need, before rings fill; after `-Z` it may be out of reach, too."""
    # numpy.ma is imported by numpy itself, when an array is first asked for its distinct values.
    watching = ("uspcap.report.watching",) if watched else ()
    for name in ("numpy.ma", "uspcap._core.headers", "uspcap.report.document", "uspcap.report.page", *watching):
        import_module(name)
    renderer(form)
    for name in names:
        view_of(name)


def _resolved(choice: TrailerChoice | None, files: tuple[str, ...]) -> TrailerChoice | None:
    """Return the timestamps in frames to take, their format known.

    Raises
    ------
    UsageError, CaptureFileError
        It is not named, and no beginning of a file says it.
    """
    if choice is None:
        return choice
    if choice.format is not None and choice.format.name == "ERSPAN":
        if not files:
            raise UsageError(
                "the epoch of ERSPAN's timestamps is found at the beginning of a file: capture with -w, then "
                "analyze that with --timestamps trailer:erspan"
            )
        check_trailer(choice, files)
        return resolved_trailer(choice, files)
    if choice.format is not None:
        return choice
    if not files:
        raise UsageError(
            "trailer formats are auto-detected in files only: name the format, as in --timestamps trailer:metamako"
        )
    check_trailer(choice, files)
    return resolved_trailer(choice, files)


def _suite(settings: Settings | None) -> Suite | None:
    if settings is None:
        return None
    from uspcap.analysis.suite import Suite

    return Suite(settings)


def _screen(live: bool | None, *, default: bool) -> TextIO | None:
    """Return the terminal to show a live view on, None for no view."""
    if live is False or (live is None and not default):
        return None
    from uspcap.report.progress import is_terminal

    streams = (sys.stdout,) if live is None else (sys.stdout, sys.stderr)
    screen = next((stream for stream in streams if is_terminal(stream)), None)
    if live and screen is None:
        raise UsageError("--live needs a terminal on stdout or stderr: leave it out, or take --interval instead")
    return screen
