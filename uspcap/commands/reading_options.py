"""Options about which frames of capture files are read, declared once for all commands that read some."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from functools import wraps
from typing import Any, Final

import click

from uspcap.commands.options import DurationType
from uspcap.errors import UsageError
from uspcap.report.format import show_times_in
from uspcap.stages.moments import parse_moment, parse_zone
from uspcap.stages.order import parse_sorting
from uspcap.stages.reading import Reading
from uspcap.stages.taps import InterfaceTaps

DEDUP_WINDOW: Final = "100ms"

_Command = Callable[..., Any]

READING_OPTIONS: Final = frozenset(
    {"time_from", "time_to", "zone", "timestamp_unit", "of_interfaces", "taps", "sort", "dedup"}
)
"""Parameters of these options."""


def reading_options(*, interface: bool = True, taps: bool = True, sort: str = "auto") -> Callable[[_Command], _Command]:
    """Give a command the options, and what was asked for as its parameter `reading`.

    Parameters
    ----------
    interface : bool
        Interfaces of files are named by `--interface`, too; not where that names one to capture on.
    taps : bool
        Flows matter, so that it makes a difference whether interfaces are one stream.
    sort : str
        How frames are put in order of time where nothing else is asked for.
    """
    options = [
        click.option(
            "--from",
            "time_from",
            metavar="WHEN",
            help="Only frames from this time on: 14:30, 2024-03-05T09:30:00-05:00, +5m (after the first frame) or -1m "
            "(before the last).",
        ),
        click.option("--to", "time_to", metavar="WHEN", help="Only frames before this time, in the same notation."),
        click.option(
            "--tz",
            "zone",
            metavar="ZONE",
            help="Time zone of times without one and of times in text: local, -05:00, America/New_York. Default: UTC.",
        ),
        click.option(
            "--timestamp-unit",
            type=click.Choice(["auto", "us", "ns"]),
            default="auto",
            show_default=True,
            help="Unit of fractional seconds in pcap files. auto: as the file header says, unless that is impossible.",
        ),
        click.option(
            "--sort",
            default=sort,
            show_default=True,
            metavar="WINDOW",
            help="Sort frames that are out of order by up to WINDOW, e.g. 250ms. auto: 100ms. off: leave files and "
            "frames as they are.",
        ),
        click.option(
            "--dedup",
            type=DurationType(),
            is_flag=False,
            flag_value=DEDUP_WINDOW,
            metavar="[WINDOW]",
            help=f"Leave out mirror copies: packets captured again within WINDOW ({DEDUP_WINDOW}), as by a mirror port "
            "of both directions.",
        ),
    ]
    if interface and taps:
        options.append(
            click.option(
                "--interfaces",
                "taps",
                type=click.Choice(["auto", "join", "apart"]),
                default="auto",
                show_default=True,
                help="Treat interfaces of a file as one stream (join), each as its own (apart), or apart where they "
                "show the same packets (auto).",
            )
        )
    if interface:
        options.append(
            click.option(
                "--interface",
                "of_interfaces",
                multiple=True,
                metavar="NAME",
                help="Only frames of this interface of the files, by name or number. Repeatable. FILE@NAME is for one "
                "file.",
            )
        )

    def give(command: _Command) -> _Command:
        @wraps(command)
        def with_reading(*arguments: Any, **given: Any) -> Any:
            own = {name: given.pop(name) for name in READING_OPTIONS & given.keys()}
            if not taps:
                own["taps"] = "join"
            if own["dedup"] is not None and own["sort"] == sort == "off":
                own["sort"] = "auto"
            return command(*arguments, reading=_reading(**own), **given)

        for option in reversed(options):
            with_reading = option(with_reading)
        return with_reading

    return give


def _reading(
    time_from: str | None,
    time_to: str | None,
    zone: str | None,
    timestamp_unit: Any,
    sort: str,
    dedup: int | None,
    of_interfaces: tuple[str, ...] = (),
    taps: InterfaceTaps = "auto",
) -> Reading:
    """Return what was asked for, and have text show times in the zone."""
    shown_in = UTC if zone is None else _parsed("--tz", parse_zone, zone)
    show_times_in(shown_in)
    begin, end = (
        None if text is None else _parsed(flag, lambda text: parse_moment(text, shown_in), text)
        for flag, text in (("--from", time_from), ("--to", time_to))
    )
    sorting = _parsed("--sort", parse_sorting, sort)
    if dedup is not None and dedup < 1:
        raise UsageError("--dedup: a window of 0 finds no copies")
    if dedup is not None and sorting == "off":
        raise UsageError("--dedup needs frames in order of time: leave --sort off out")
    return Reading(of_interfaces, begin, end, timestamp_unit, taps, sorting, dedup)


def _parsed(flag: str, parse: Callable[[str], Any], text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from None


def refuse_reading(reading: Reading, why: str) -> None:
    """Refuse options about files where none is read.

    Raises
    ------
    UsageError
    """
    if reading != Reading():
        flags = "--from, --to, --interface, --interfaces, --sort, --dedup and --timestamp-unit"
        raise UsageError(f"{flags} are about capture files: {why}")
