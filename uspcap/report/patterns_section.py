"""The terminal report's section on what recurs."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from uspcap.report.format import count, duration, exact_duration, plural, safe_text, share
from uspcap.report.headlines import Result
from uspcap.report.section import Context, more, open_section
from uspcap.report.terminal_table import Column, names, print_line, print_paragraph, print_table

ROWS_SHOWN = 10


def patterns(console: Console, result: Result, context: Context) -> None:
    """Periods, phases and heartbeats; where there is none, that there is none."""
    open_section(console, "Patterns", context)
    _periods(console, result)
    _phases(console, result)
    _heartbeats(console, result)


def _head(console: Console, title: str, found: bool) -> None:
    print_line(console, Text(title, style="bold"))
    if not found:
        print_line(console, Text("none found", style="dim"))


def _chance(p_value: float) -> str:
    return f"{p_value:.0e}" if p_value > 1e-99 else "<1e-99"


def _periods(console: Console, result: Result) -> None:
    rows = result["periods"]
    shown = rows[:ROWS_SHOWN]
    _head(console, "Periods in the arrivals", bool(rows))
    if rows:
        columns = [
            Column("period", [duration(row["period_ns"]) for row in shown], style="bold"),
            Column("±", [duration(row["uncertainty_ns"]) for row in shown]),
            Column("frames in step", [share(row["coherence"]) for row in shown]),
            Column("by chance", [_chance(row["p_value"]) for row in shown]),
            Column("cycles", [f"{row['cycles']:,.1f}" for row in shown], rank=1),
            Column("harmonics", [count(row["harmonics"]) for row in shown], rank=2),
            Column("window", [duration(row["window_ns"]) for row in shown], rank=3),
        ]
        if len({row["source"] for row in rows}) > 1:
            columns.insert(0, Column("stamped by", [row["source"] for row in shown], left=True))
        print_table(console, columns)
        more(console, len(rows) - len(shown), "period")
    print_paragraph(console, result["period_test"], style="dim")


def _phases(console: Console, result: Result) -> None:
    several = len({one["source"] for one in result["phases"]}) > 1
    for one in result["phases"]:
        print_line(console, Text())
        of = f", stamped by {one['source']}" if several else ""
        title = f"Phases of the {'second' if one['period_ns'] == 10**9 else 'millisecond'}{of}"
        if not one["tested"]:
            print_line(console, Text(title, style="bold"))
            print_line(console, Text(f"not tested: {plural(one['periods'], 'period')}, {one['why_not']}", style="dim"))
            continue
        rows = one["found"]
        shown = rows[:ROWS_SHOWN]
        _head(console, title, bool(rows))
        if rows:
            print_table(
                console,
                [
                    Column("from", [exact_duration(row["start_ns"]) for row in shown], style="bold"),
                    Column("to", [exact_duration(row["end_ns"]) for row in shown]),
                    Column("frames", [count(row["frames"]) for row in shown]),
                    Column("share", [share(row["share"]) for row in shown]),
                    Column("evenly", [share(row["share_by_chance"]) for row in shown]),
                    Column("hit", [f"{count(row['periods_hit'])} of {count(one['periods'])}" for row in shown], rank=1),
                    Column("by chance", [_chance(row["p_value"]) for row in shown]),
                ],
            )
            more(console, len(rows) - len(shown), "phase")
    if result["phases"]:
        print_paragraph(console, result["phase_test"], style="dim")


def _heartbeats(console: Console, result: Result) -> None:
    rows = result["heartbeats"]
    shown = rows[:ROWS_SHOWN]
    print_line(console, Text())
    _head(console, "Heartbeats", bool(rows))
    if rows:
        print_table(
            console,
            [
                names("flow", [safe_text(row["flow"]) for row in shown]),
                Column("period", [duration(row["period_ns"]) for row in shown], style="bold"),
                Column("at least", [duration(row["between_ns"][0]) for row in shown], rank=1),
                Column("at most", [duration(row["between_ns"][1]) for row in shown], rank=1),
                Column("regular", [f"{count(row['regular_gaps'])} of {count(row['gaps'])}" for row in shown]),
                Column(
                    "frames", ["all" if row["frame_bytes"] is None else f"of {row['frame_bytes']} B" for row in shown]
                ),
                Column("by chance", [_chance(row["p_value"]) for row in shown]),
            ],
        )
        more(console, len(rows) - len(shown), "flow")
    if result["sampled_one_in"] > 1:
        print_paragraph(
            console,
            f"one flow in {result['sampled_one_in']:,} was looked at ({count(result['flows_tracked'])})",
            style="yellow",
        )
    print_paragraph(console, result["heartbeat_test"], style="dim")
