"""`uspcap capture`: an interface in, a file or a report out."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any, TextIO

import click

from uspcap.analysis.declaration import TOP
from uspcap.analysis.registry import default_names, view_of
from uspcap.analysis.suite import settings_for
from uspcap.backends.base import DEFAULT_SNAPLEN, HAND_OVER_NS, LONG_HAND_OVER_NS
from uspcap.backends.declaration import AUTO, Request, backend_options, backends
from uspcap.backends.opening import open_source
from uspcap.bpf.classic import join_words
from uspcap.commands.analysis_options import analysis_options, check_names_for_files, given_options
from uspcap.commands.declared_options import click_option, give
from uspcap.commands.options import (
    STAMPS_METAVAR,
    CompressType,
    CountType,
    CpuListType,
    DurationType,
    FileModeType,
    PeriodType,
    SizeType,
    TimestampsType,
    check_trailer,
    refuse_same_files,
)
from uspcap.commands.output import format_option, put_out
from uspcap.commands.reading_options import reading_options, refuse_reading
from uspcap.errors import UsageError
from uspcap.formats.byte_sink import Patience
from uspcap.network.links import named_link
from uspcap.notices import say
from uspcap.pipeline.accounts import stage_lines
from uspcap.pipeline.pinning import pin
from uspcap.pipeline.privileges import find_user, relinquish
from uspcap.pipeline.session import CaptureOutcome, CaptureSession
from uspcap.report.renderers.registry import DEFAULT_FORMAT, renderer
from uspcap.signals import Ending
from uspcap.sinks.host_facts import SectionTexts, section_texts
from uspcap.sinks.output import DEFAULT_BUFFER_MIB, OutputRequest, check_link_types, open_output
from uspcap.sinks.rotation import RotatingWriter, RotationRules
from uspcap.sinks.rotation_places import check_directory
from uspcap.stages.reading import expand_all, plan
from uspcap.stages.trailer import resolved_trailer, trailer_stage
from uspcap.timestamps import TIMESTAMPS, Timestamps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uspcap.analysis.suite import Settings, Suite
    from uspcap.stages.reading import Reading
    from uspcap.timestamps.trailers import TrailerChoice


@click.command("capture")
@click.argument("words", nargs=-1, metavar="[FILTER]...")
@click.option(
    "-i",
    "--interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Interface to capture on, by a name or the number that -D shows; repeat it for several at once.",
)
@click.option(
    "-D",
    "--list-interfaces",
    is_flag=True,
    help="List interfaces with what each backend can do there, and who uses them.",
)
@click.option("-w", "--write", "path", metavar="FILE", help="Write frames there; '-' is stdout, '.pcap' means pcap.")
@click.option("-C", "--rotate-size", type=SizeType(), help="Begin a new file before SIZE: millions of bytes, or 1G.")
@click.option("-G", "--rotate-time", type=PeriodType(), help="Begin a new file so often, by stamps: seconds, or 1h.")
@click.option("--align", is_flag=True, help="With -G: count from the epoch in UTC, so that 1h begins on the hour.")
@click.option("--rotate-frames", type=CountType(1), metavar="N", help="Begin a new file after so many frames.")
@click.option("-W", "--keep-files", type=CountType(1), metavar="N", help="Keep N files; delete the oldest.")
@click.option("-z", "--post-rotate", metavar="COMMAND", help="Run this on each finished file, whose name is added.")
@click.option("--compress", type=CompressType(), help="zstd[:LEVEL] or none; by default, as -w ends in .zst or not.")
@click.option("--mode", type=FileModeType(), help="Permissions of new files, as 640; 600 by default, less the umask.")
@click.option("--direct", is_flag=True, help="Write past the page cache (O_DIRECT).")
@click.option(
    "--write-buffer",
    type=CountType(0, 1 << 20),
    metavar="MIB",
    help=f"What may wait for the disk ({DEFAULT_BUFFER_MIB}); 0: the reader itself writes, and waits.",
)
@click.option("-r", "--read", "files", multiple=True, metavar="FILE", help="Replay this file instead; may be repeated.")
@click.option("--backend", type=click.Choice((AUTO, *backends())), default=AUTO, show_default=True)
@click.option("-c", "--count", type=CountType(1), help="End after so many frames.")
@click.option("--duration", type=DurationType(), help="End after so long, as 10s.")
@click.option(
    "-s",
    "--snaplen",
    type=CountType(0, DEFAULT_SNAPLEN),
    default=DEFAULT_SNAPLEN,
    show_default=True,
    help="Bytes kept of a frame; 0 is the default, too.",
)
@click.option("-p", "--no-promiscuous", is_flag=True, help="Leave out what is for other stations.")
@click.option(
    "-Q", "--direction", type=click.Choice(["in", "out", "inout"]), help="Frames received, sent, or both (default)."
)
@click.option("-B", "--buffer-size", type=CountType(1, 1 << 22), metavar="KIB", help="Size of all rings together.")
@click.option(
    "--timestamps",
    type=TimestampsType(),
    metavar=f"[{'|'.join(TIMESTAMPS)}|{STAMPS_METAVAR}]",
    default="auto",
    show_default=True,
    help="Who stamps: auto takes the best there is; hardware switches the NIC's stamping on until the end; "
    "trailer[:FORMAT] has analyses take what a tap or switch put into the frames.",
)
@click.option(
    "--merge",
    type=DurationType(),
    metavar="WINDOW",
    help="Put frames of several rings in order within this time (5ms, PACKET_MMAP 50ms); 0s: leave them as they come.",
)
@click.option(
    "--latency-target",
    "latency",
    type=DurationType(),
    metavar="DURATION",
    help="Let frames wait so long for others before they are read: longer takes less CPU (AF_XDP 1.6ms or what the "
    "ring holds, PACKET_MMAP 20ms).",
)
@click.option("--cpu", "cpus", type=CpuListType(), help="Read, write and analyze on these CPUs only, as 2 or 2,4-5.")
@give(map(click_option, backend_options()))
@analysis_options("--analyze", "names")
@click.option(
    "-Z",
    "--relinquish-privileges",
    "user_name",
    metavar="USER",
    help="Once rings and files are open, go on as this user, without privileges.",
)
@reading_options(interface=False)
@click.option("--no-comment", is_flag=True, help="Leave out of the file how host and NIC are set up.")
@format_option
@click.option("--interval", type=DurationType(), help="Report on each interval of this length too, as 10s, as it ends.")
@click.option(
    "--live/--no-live",
    default=None,
    help="Show the last interval and the whole while it runs; by default on a terminal that gets nothing else.",
)
@click.option("-n", "no_names", is_flag=True, hidden=True, help="Accepted as in tcpdump; names are never looked up.")
def command(
    words: tuple[str, ...],
    interfaces: tuple[str, ...],
    list_interfaces: bool,
    path: str | None,
    rotate_size: int | None,
    rotate_time: int | None,
    align: bool,
    rotate_frames: int | None,
    keep_files: int | None,
    post_rotate: str | None,
    compress: int | None,
    mode: int | None,
    direct: bool,
    write_buffer: int | None,
    files: tuple[str, ...],
    backend: str,
    count: int | None,
    duration: int | None,
    snaplen: int,
    no_promiscuous: bool,
    direction: Any,
    buffer_size: int | None,
    timestamps: Timestamps | TrailerChoice,
    merge: int | None,
    latency: int | None,
    cpus: frozenset[int] | None,
    names: tuple[str, ...] | None,
    tunnels: bool,
    max_flows: int,
    user_name: str | None,
    no_comment: bool,
    form: str,
    interval: int | None,
    live: bool | None,
    no_names: bool,
    reading: Reading,
    **options: Any,
) -> None:
    """Capture frames that match FILTER, which is as tcpdump takes it.

    Frames go to a file (-w), to analyses (--analyze), or both; with neither, all analyses run. Ctrl-C, SIGTERM and
    SIGHUP end the capture in good order, a second one at once. SIGUSR1 prints the accounts so far; SIGUSR2 flushes the
    file, or begins the next one.

    packet_mmap copies frames; the kernel and its programs get them as ever. af_xdp takes those that match away from
    the kernel, before its stack; auto uses it only with --take-all.

    What was obtained, and at the end where every frame went, is told on stderr.
    """
    if list_interfaces:
        _list_interfaces(form)
        return
    if path == "-" and form == "json":
        raise UsageError("with -w - frames go to stdout, where the JSON report would go too: write to a file")
    if not files:
        refuse_reading(reading, "name some to replay with -r")
    inputs = plan(expand_all(files), reading).inputs
    paths = tuple(one.path for one in inputs)
    user = None if user_name is None else find_user(user_name)
    rules = RotationRules(rotate_size, rotate_time, align, rotate_frames, keep_files)
    output = None
    if path is not None:
        # Who goes on as another user captures for that one, who is to read the file.
        owner = None if user is None else (user.pw_uid, user.pw_gid)
        output = OutputRequest(path, rules, post_rotate, compress, direct, write_buffer, mode, owner)
        output.check()
        refuse_same_files(paths, [path])
    elif (
        rules != RotationRules()
        or direct
        or any(one is not None for one in (post_rotate, compress, write_buffer, mode))
    ):
        raise UsageError("options about files need one to write: name it with -w")
    expression = join_words(words)
    shown_on = sys.stderr if path == "-" else sys.stdout
    screen = _screen(live, default=bool(interfaces) and path is None and interval is None and form == DEFAULT_FORMAT)
    watched = interval is not None or screen is not None
    # Interfaces wait for one another.
    awaited = watched or len(interfaces) > 1 or (output is not None and output.awaited)
    request = Request(
        interfaces=interfaces,
        files=inputs,
        expression=expression,
        backend=backend,
        snaplen=snaplen or DEFAULT_SNAPLEN,
        promiscuous=not no_promiscuous,
        direction=direction,
        buffer_bytes=None if buffer_size is None else buffer_size << 10,
        timestamps=timestamps if isinstance(timestamps, str) else "auto",
        announce=say,
        merge_window_ns=merge,
        latency_ns=latency,
        hand_over_ns=HAND_OVER_NS if awaited else LONG_HAND_OVER_NS,
        options={one.parameter: options[one.parameter] for one in backend_options()},
    )
    trailer = None if isinstance(timestamps, str) else timestamps
    asked = settings_for(
        given_options(options),
        default=default_names(live=not files) if path is None else (),
        named=names,
        naming="--analyze",
        files=paths,
        expression=expression,
        maximum_flows=max_flows,
        tunnels=tunnels,
        trailer=_resolved(trailer, paths),
    )
    if files:
        check_names_for_files(asked.names)
    settings = asked if asked.names or watched else None
    if cpus is not None:
        say(pin(cpus, [named_link(name).name for name in interfaces]))
    # Made even where intervals have suites of their own: no analysis is imported while rings fill.
    suite = _suite(settings)
    if settings is not None:
        _import_late_modules(form, watched, settings.names)
    with Ending() as ending, open_source(request) as source:
        description = source.describe()
        writer = None
        patience = Patience()
        not_told = ""
        if output is not None:
            not_told = check_link_types(output, source)
            commented = output.format == "pcapng" and not no_comment
            section = section_texts(source, expression) if commented else SectionTexts()
            writer = open_output(output, source, section, patience)
        watch = None
        if settings is not None and watched:
            from uspcap.report.watching import Watch

            watch = Watch(source, settings, interval_ns=interval, screen=screen, stream=shown_on, form=form)
        given_up = relinquish(user, source)
        if given_up and output is not None and output.rotates:
            check_directory(output.path)
        session = CaptureSession(
            source,
            writer=writer,
            suite=suite if watch is None else None,
            trailers=None if settings is None else trailer_stage(settings.trailer),
            intervals=None if watch is None else watch.intervals,
            frames=count,
            duration_ns=duration,
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
            for line in filter(None, (*description.headlines, *description.remarks, not_told, given_up)):
                say(line)
            with watch or nullcontext():
                outcome = session.run()
    say(str(outcome.accounts))
    if interfaces:
        for line in (*stage_lines(outcome.accounts), *source.parting_remarks()):
            say(line)
    for clock in outcome.clocks:
        say(str(clock))
    try:
        if outcome.suite is not None and settings is not None and settings.names:
            _report(
                shown_on,
                form,
                outcome,
                outcome.suite,
                expression,
                options[TOP.parameter],
                one_of_several=interval is not None,
            )
    finally:
        if isinstance(writer, RotatingWriter):
            _wait_for_commands(writer)
    for problem in outcome.problems:
        say(f"{problem.file}: {problem.place}: {problem.what}")
    if outcome.failure is not None:
        raise outcome.failure
    if outcome.problems or outcome.losses:
        sys.exit(1)


def _wait_for_commands(writer: RotatingWriter) -> None:
    """Wait for what is run on each file; everything else is told and done, and a signal leaves it running."""
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
    for name in ("numpy.ma", "uspcap._native.headers", "uspcap.report.document", "uspcap.report.page", *watching):
        import_module(name)
    renderer(form)
    for name in names:
        view_of(name)


def _resolved(choice: TrailerChoice | None, files: tuple[str, ...]) -> TrailerChoice | None:
    """Return the stamps in frames to take, their format known.

    Raises
    ------
    UsageError, CaptureFileError
        It is not named, and no beginning of a file says it.
    """
    if choice is None or choice.format is not None:
        return choice
    if not files:
        raise UsageError(
            "what a format of trailers is told from is a file: name it, as in --timestamps trailer:metamako"
        )
    check_trailer(choice, files)
    return resolved_trailer(choice, files[0])


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


def _report(
    stream: TextIO,
    form: str,
    outcome: CaptureOutcome,
    suite: Suite,
    expression: str,
    top: int | None,
    *,
    one_of_several: bool,
) -> None:
    from uspcap.report.document import build_report, source_of_capture
    from uspcap.report.model import Output
    from uspcap.report.page import report_page

    unread_ns = outcome.accounts.statistics.longest_unread_ns
    report = build_report(source_of_capture(outcome, suite, expression), suite.analyses, unread_ns)
    put_out(Output(report, lambda: report_page(report, top)), form, stream, one_of_several=one_of_several)
