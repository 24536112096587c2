"""`uspcap dump`: frames decoded, one line each."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click

from uspcap.bpf.filters import FrameFilter, filter_of_files
from uspcap.commands.inside_options import inside_options
from uspcap.commands.options import CountType, FrameSetType, end_with_problems, files_and_filter
from uspcap.commands.reading_options import reading_options
from uspcap.frames import FrameBatch, Problem
from uspcap.notices import say
from uspcap.report.decode import decode_line, hex_lines
from uspcap.report.format import encodable
from uspcap.stages.reading import PlannedInput, Reading, plan
from uspcap.stages.selection import FrameSelection
from uspcap.stages.straightening import Straightener
from uspcap.stages.tunnels import choose_tunnels


@click.command("dump")
@click.argument("words", nargs=-1, required=True, metavar="FILE... [FILTER]...")
@click.option("-c", "--count", type=CountType(1), metavar="N", help="Stop after N frames.")
@click.option("--frame", "frames", type=FrameSetType(), help="Only the frames with these numbers, e.g. 3,7-9.")
@click.option("-f", "--filter", "expression", default="", help="Filter expression, instead of words after the files.")
@click.option("-x", "show_bytes", is_flag=True, help="Print each frame's bytes below its line.")
@inside_options()
@reading_options(taps=False, sort="off")
@click.option("-n", "no_names", is_flag=True, hidden=True, help="Accepted as in tcpdump; names are never looked up.")
def command(
    words: tuple[str, ...],
    count: int | None,
    frames: tuple[range, ...] | None,
    expression: str,
    show_bytes: bool,
    tunnels: bool | None,
    outer: bool,
    no_names: bool,
    reading: Reading,
) -> None:
    """Print the frames of capture FILEs, decoded, one per line; `-` is standard input.

    A FILE may be a directory, a quoted glob, or one interface of a file: day.pcapng@eth0. Each line has the frame's
    number, time (UTC unless --tz is given), wire length (captured/wire if the frame was cut), and contents. A FILTER
    (pcap-filter syntax, as in tcpdump) follows the files.

    The exit code is 1 if a file that was read to its end is damaged; the readable frames are printed, and each
    damaged place is reported on a line of standard error.
    """
    files, expression = files_and_filter(words, expression)
    frame_filter = filter_of_files(expression, outer=outer)
    problems: list[Problem] = []
    planned = plan(files, reading)
    for planned_input in planned.inputs:
        for note in planned_input.notes:
            say(note)
    looks_inside = bool(frame_filter.expression) and frame_filter.reading.name == "inner"
    choice = choose_tunnels(planned.inputs, asked=tunnels, looks_inside=looks_inside)
    for sentence in choice.sentences:
        say(sentence)
    found = _wanted(planned.inputs, frame_filter, frames, choice.tunnels, problems)
    for shown, (batch, row, number) in enumerate(found, 1):
        click.echo(encodable(decode_line(batch, row, number=number), sys.stdout.encoding))
        if show_bytes:
            for line in hex_lines(batch.frame_bytes(row)):
                click.echo(line)
        if shown == count:
            break
    if frame_filter.counts.hint:
        say(frame_filter.counts.hint)
    end_with_problems(problems, reported=False)


def _wanted(
    inputs: Sequence[PlannedInput],
    frame_filter: FrameFilter,
    frames: tuple[range, ...] | None,
    tunnels: bool,
    problems: list[Problem],
) -> Iterator[tuple[FrameBatch, int, int]]:
    """Yield batch, row and number of each frame to be shown; add to `problems` what was wrong with a file."""
    if inputs[0].sorting != "off":
        yield from _in_order(inputs, frame_filter, frames, tunnels, problems)
        return
    last = max(numbers[-1] for numbers in frames) if frames is not None else None
    before = 0
    for planned_input in inputs:
        selection = planned_input.selection()
        with planned_input.open() as reader:
            read = 0
            for batch in reader.batches():
                selection.apply(batch)
                batch.decode_tunnels = tunnels
                frame_filter.apply(batch)
                for row, own_number in enumerate(batch.frame_number.tolist()):
                    number = before + own_number
                    if frames is None or any(number in numbers for numbers in frames):
                        yield batch, row, number
                read += batch.frames_read
                if last is not None and before + read >= last:
                    return
            problems += reader.facts.all_problems(reader.name)
            problems += selection.problems(reader.name, reader.facts.interfaces)
            for note in reader.facts.notes(reader.name):
                say(note)
            before += read


def _in_order(
    inputs: Sequence[PlannedInput],
    frame_filter: FrameFilter,
    frames: tuple[range, ...] | None,
    tunnels: bool,
    problems: list[Problem],
) -> Iterator[tuple[FrameBatch, int, int]]:
    """Yield the same of files whose frames are put in order of time."""
    straightener = Straightener(inputs, inputs[0].sorting)
    in_range = FrameSelection((), inputs[0].time_range)
    for batch in straightener.batches():
        batch.decode_tunnels = tunnels
        in_range.apply_range(batch)
        frame_filter.apply(batch)
        for row, number in enumerate(batch.frame_number.tolist()):
            if frames is None or any(number in numbers for numbers in frames):
                yield batch, row, number
    for straight in straightener.inputs:
        problems += straight.facts.all_problems(straight.name)
        problems += straight.selection.problems(straight.name, straight.facts.interfaces)
        for note in straight.facts.notes(straight.name):
            say(note)
    if not straightener.order.is_tidy:
        say(str(straightener.order))
