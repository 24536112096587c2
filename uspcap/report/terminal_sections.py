"""One section of the terminal report for each analysis of any frames; SECTIONS has those of the others as well."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.text import Text

from uspcap.report.arbitration_section import arbitration
from uspcap.report.format import (
    bit_rate,
    byte_count,
    count,
    duration,
    exact_duration,
    plural,
    ratio,
    safe_text,
    share,
)
from uspcap.report.headlines import Result, gaps_told, percentile_cell
from uspcap.report.orders_section import orders
from uspcap.report.patterns_section import patterns
from uspcap.report.requests_section import requests, tick_to_trade
from uspcap.report.section import Context, bar, footnote, more, open_section
from uspcap.report.sequence_section import sequence
from uspcap.report.tcp_section import tcp
from uspcap.report.terminal_table import Column, names, print_line, print_paragraph, print_table
from uspcap.report.trailer_section import trailer

ROWS_SHOWN = 10
"""Rows of a list; the JSON report and the CSV tables hold more."""

FLOW_TAILS = 2
"""Percentiles beyond the median in lists of flows: the farthest that any flow listed has."""

ENOUGH_STAMPS = 100
"""Stamps that it takes to tell what they resolve."""


def summary(console: Console, result: Result, context: Context) -> None:
    """Protocols, sizes, layers and interfaces."""
    open_section(console, "Summary")
    shortest, longest = result["shortest_packet_bytes"], result["longest_packet_bytes"]
    lengths = f"{count(shortest)} bytes a packet"
    if shortest != longest:
        lengths = f"{count(shortest)} to {count(longest)} bytes a packet, {result['mean_packet_bytes']:,.1f} on average"
    if result["cut_packets"]:
        lengths += f"; {count(result['cut_packets'])} kept only in part"
    print_paragraph(console, lengths)
    print_line(console, Text())
    _traffic(console, result["protocols"], "protocol", result)
    print_line(console, Text())
    _traffic(console, [row for row in result["sizes"] if row["packets"]], "bytes", result)
    if result["layers"]:
        layers = ", ".join(
            f"{name.replace('_', ' ')} {count(frames)} ({share(frames, result['packets'])})"
            for name, frames in result["layers"].items()
        )
        print_line(console, Text())
        print_paragraph(console, f"met in packets: {layers}")
    _interfaces(console, result["interfaces"])


def _traffic(console: Console, rows: Sequence[Result], key: str, result: Result) -> None:
    shown = rows[:ROWS_SHOWN]
    packets, size = result["packets"], result["bytes_on_wire"]
    print_table(
        console,
        [
            Column(key, [safe_text(row[key]) for row in shown], left=True),
            Column("packets", [count(row["packets"]) for row in shown]),
            Column("share", [share(row["packets"], packets) for row in shown]),
            Column("on the wire", [byte_count(row["bytes_on_wire"]) for row in shown]),
            Column("share", [share(row["bytes_on_wire"], size) for row in shown]),
            Column("", [bar(row["packets"], packets) for row in shown], left=True, rank=1, style="cyan"),
        ],
    )
    more(console, len(rows) - len(shown), key)


def _interfaces(console: Console, interfaces: Sequence[Result]) -> None:
    if len(interfaces) < 2 and not any(one["name"] or one["description"] for one in interfaces):
        return
    shown = interfaces[:ROWS_SHOWN]
    print_line(console, Text())
    print_table(
        console,
        [
            Column("interface", [safe_text(one["name"] or f"#{at}") for at, one in enumerate(shown)], left=True),
            Column("link", [safe_text(one["link_type"]) for one in shown], left=True),
            Column("packets", [count(one["packets"]) for one in shown]),
            Column("on the wire", [byte_count(one["bytes_on_wire"]) for one in shown]),
            Column("cut", [count(one["cut"]) for one in shown], rank=2),
            Column("snaplen", [count(one["snaplen"]) if one["snaplen"] else "none" for one in shown], rank=3),
            Column("ticks/s", [f"{one['ticks_per_second']:,}" for one in shown], rank=1),
            Column("description", [safe_text(one["description"]) for one in shown], left=True, rank=4),
        ],
    )
    more(console, len(interfaces) - len(shown), "interface")


def timestamps(console: Console, result: Result, context: Context) -> None:
    """Quality by stamp source, and the steps that no clock should make."""
    open_section(console, "Timestamps")
    sources = result["sources"]
    if not sources:
        print_line(console, Text("no packet has a timestamp", style="dim"))
        return
    rows = list(sources.values())
    print_table(
        console,
        [
            Column("stamped by", list(sources), left=True),
            Column("frames", [count(row["frames"]) for row in rows]),
            Column("resolves", [_resolution(row) for row in rows]),
            Column("equal to last", [share(row["duplicates"], row["frames"]) for row in rows], rank=2),
            Column("longest run", [count(row["longest_run"]) for row in rows], rank=3),
            Column("backward", [count(row["backward_steps"]) for row in rows]),
            Column("at most", [duration(row["backward_largest_ns"] or None) for row in rows], rank=1),
            Column("TAI-like", [count(row["tai_like_jumps"]) for row in rows]),
            Column("common divisor", [exact_duration(row["common_divisor_ns"] or None) for row in rows], rank=4),
        ],
    )
    shown = result["steps"][:ROWS_SHOWN]
    if shown:
        print_line(console, Text())
        print_line(console, Text("Steps backward and jumps of 35 to 38 s, the first ones", style="bold"))
        print_table(
            console,
            [
                Column("frame", [count(step["frame"]) for step in shown]),
                Column("step", [duration(step["step_ns"]) for step in shown]),
                context.instants("from", [step["before_ns"] for step in shown], 2),
                context.instants("to", [step["after_ns"] for step in shown], 3),
                Column("stamped by", [step["source"] for step in shown], left=True, rank=1),
            ],
        )
        more(console, len(result["steps"]) - len(shown), "step")


def _resolution(quality: Result) -> str:
    """Return what stamps resolve; of few stamps that is no more than a bound."""
    bound = "" if quality["frames"] >= ENOUGH_STAMPS else "≤"
    return bound + exact_duration(quality["observed_resolution_ns"])


def inter_arrival(console: Console, result: Result, context: Context) -> None:
    """Percentiles by stamp source, flows and the largest gaps."""
    open_section(console, "Inter-arrival times", context)
    sources = {name: one for name, one in result["sources"].items() if one["count"]}
    if not sources:
        print_line(console, Text("too few stamped packets for a time between two", style="dim"))
        return
    rows = list(sources.values())
    _statistics(console, sources)
    flows = result["flows"]
    sampled = flows["sampled_one_in"] > 1
    _flows(console, "Flows with most packets", flows["by_count"], tail_first=False)
    if flows["estimated"] > 1:
        _flows(console, f"Flows with the longest {flows['worst_by']}", flows["worst"], tail_first=True)
    told = f"{plural(flows['estimated'], 'flow')} in all"
    if sampled:
        told = (
            f"about {told}; one in {flows['sampled_one_in']:,} was tracked ({count(flows['tracked'])}), which leaves "
            f"{plural(flows['frames_untracked'], 'frame')} out of the flow lists"
        )
    print_paragraph(console, told, style="yellow" if sampled else "dim")
    gaps = result["largest_gaps"]
    if gaps:
        print_line(console, Text())
        print_line(console, Text("Longest times without any packet", style="bold"))
        columns = [
            Column("gap", [duration(gap["gap_ns"]) for gap in gaps], style="bold"),
            context.instants("from", [gap["start_ns"] for gap in gaps], 1),
            context.instants("to", [gap["end_ns"] for gap in gaps], 3),
            _frames(gaps),
        ]
        if len(sources) > 1:
            columns.append(Column("stamped by", [gap["source"] for gap in gaps], left=True))
        print_table(console, columns)
    footnote(console, [*rows, *flows["by_count"], *flows["worst"]])
    print_paragraph(console, f"jitter: {result['jitter']}", style="dim")


def _frames(gaps: Sequence[Result], rank: int = 0) -> Column:
    """Return a column of the two frames around each gap."""
    return Column("frames", [f"{count(gap['before_frame'])} - {count(gap['after_frame'])}" for gap in gaps], rank=rank)


def _statistics(console: Console, sources: dict[str, Result]) -> None:
    """Print statistics as rows and stamp sources as columns."""
    rows = list(sources.values())
    percentiles = list(rows[0]["percentiles_ns"])
    labels = [
        "samples",
        "min",
        *(f"p{one}" for one in percentiles),
        "max",
        "ended by frame",
        "mean",
        "stddev",
        "jitter",
    ]
    columns = [Column("", labels, left=True)]
    for name, row in sources.items():
        cells = [
            count(row["count"]),
            duration(row["min_ns"]),
            *(percentile_cell(row, one) for one in percentiles),
            duration(row["max_ns"]),
            count(row["max_frame"]),
            duration(row["mean_ns"]),
            duration(row["stddev_ns"]),
            duration(row["jitter_ns"]),
        ]
        if any(one["backward_steps"] for one in rows):
            cells.append(count(row["backward_steps"]))
        columns.append(Column(name, cells))
    if len(columns[1].cells) > len(labels):
        labels.append("backward steps")
    print_table(console, columns)


def _flows(console: Console, title: str, flows: Sequence[Result], *, tail_first: bool) -> None:
    if not flows:
        return
    percentiles = list(flows[0]["percentiles_ns"])
    given = [p for p in percentiles[1:] if any(flow["percentiles_ns"][p] is not None for flow in flows)]
    shown = [*percentiles[:1], *given[-FLOW_TAILS:]]
    print_line(console, Text())
    print_line(console, Text(title, style="bold"))
    print_table(
        console,
        [
            names("flow", [flow["flow"] for flow in flows]),
            Column("packets", [count(flow["frames"]) for flow in flows], rank=4 if tail_first else 0),
            Column("bytes", [byte_count(flow["bytes_on_wire"]) for flow in flows], rank=9),
            *(
                Column(f"p{p}", [percentile_cell(flow, p) for flow in flows], rank=2 if p == shown[-1] else 5)
                for p in shown
            ),
            Column("max", [duration(flow["max_ns"]) for flow in flows], rank=1),
            Column("by frame", [count(flow["max_frame"]) if flow["count"] else "-" for flow in flows], rank=7),
            Column("jitter", [duration(flow["jitter_ns"]) if flow["count"] else "-" for flow in flows], rank=6),
            Column("backward", [count(flow["backward_steps"]) for flow in flows], rank=8),
        ],
    )


def gaps(console: Console, result: Result, context: Context) -> None:
    """Silences within flows: rule, counts and the longest."""
    open_section(console, "Gaps within flows", context)
    threshold = result["threshold_ns"]
    rule = f"gaps longer than {duration(threshold)}" if threshold is not None else result["rule"]
    print_paragraph(console, f"threshold: {rule}", style="dim")
    without = result["flows_without_threshold"]
    together = f", {duration(result['total_ns'])} together" if result["count"] else ""
    print_paragraph(
        console,
        gaps_told(result) + together + (f"; {count(without)} had too few packets for a threshold" if without else ""),
    )
    if result["sampled_one_in"] > 1:
        print_paragraph(console, f"only one flow in {result['sampled_one_in']:,} was tracked", style="yellow")
    shown = result["longest"]
    print_table(
        console,
        [
            Column("gap", [duration(gap["gap_ns"]) for gap in shown], style="bold"),
            names("flow", [gap["flow"] for gap in shown]),
            context.instants("from", [gap["start_ns"] for gap in shown], 1),
            _frames(shown, rank=2),
            Column("threshold", [duration(gap["threshold_ns"]) for gap in shown], rank=4),
            context.instants("to", [gap["end_ns"] for gap in shown], 5),
        ],
    )
    more(console, result["count"] - len(shown), "gap")


def bursts(console: Console, result: Result, context: Context) -> None:
    """The busiest windows of each width."""
    open_section(console, "Bursts", context)
    rows = result["windows"]
    if not rows:
        print_line(console, Text("no stamped packets", style="dim"))
        return
    sources = [row["source"] for row in rows]
    columns = [
        Column("window", [exact_duration(row["window_ns"]) for row in rows]),
        Column("peak rate", [bit_rate(row["peak_bits_per_second"]) for row in rows], style="bold"),
        Column("of mean", [ratio(row["peak_to_mean"]) for row in rows]),
        Column("bytes", [count(row["peak_bytes"]) for row in rows], rank=2),
        Column("packets", [count(row["peak_bytes_frames"]) for row in rows], rank=3),
        context.instants("from", [row["peak_bytes_start_ns"] for row in rows], 1),
        Column("first frame", [count(row["peak_bytes_first_frame"]) for row in rows]),
        Column("most packets", [count(row["peak_frames"]) for row in rows], rank=4),
        Column("from frame", [count(row["peak_frames_first_frame"]) for row in rows], rank=5),
    ]
    if len(set(sources)) > 1:
        columns.insert(0, Column("stamped by", sources, left=True))
    if result["line_rate_bps"]:
        columns.insert(2, Column("of line", [share(row["line_rate_share"]) for row in rows]))
    print_table(console, columns)
    unresolved = [row["window_ns"] for row in rows if row["window_ns"] <= context.resolutions_ns.get(row["source"], 0)]
    if unresolved:
        print_paragraph(
            console,
            f"windows of up to {exact_duration(max(unresolved))} are no wider than the stamps resolve: "
            "their peaks say how frames share stamps, not how close they came",
            style="yellow",
        )
    print_paragraph(console, result["definition"], style="dim")
    if any((row["line_rate_share"] or 0) > 1 for row in rows):
        print_paragraph(
            console,
            "more than 100 % of line: a packet counts whole at its stamp, even where the line takes longer for it than "
            "the window; or the stamps bunch what the line spread",
            style="yellow",
        )
    if result["line_rate_bps"]:
        print_paragraph(
            console,
            f"line rate: {bit_rate(result['line_rate_bps'])}; shares count preamble, FCS and gap, 24 bytes a frame",
            style="dim",
        )


def overhead(console: Console, result: Result, context: Context) -> None:
    """Where the bytes go."""
    open_section(console, "Overhead")
    total = result["total"]
    layers = [layer for layer in LAYERS if total[f"{layer}_bytes"]]
    whole = total["bytes_on_wire"] + total["framing_bytes"]
    sizes = [total[f"{layer}_bytes"] for layer in layers]
    print_table(
        console,
        [
            Column("layer", layers, left=True),
            Column("bytes", [count(size) for size in sizes]),
            Column("share", [share(size, whole) for size in sizes]),
            Column("", [bar(size, whole) for size in sizes], left=True, rank=1, style="cyan"),
        ],
    )
    for key in ("protocol", "bytes"):
        rows = result["protocols" if key == "protocol" else "sizes"]
        shown = rows[:ROWS_SHOWN]
        print_line(console, Text())
        print_table(
            console,
            [
                Column(key, [safe_text(row[key]) for row in shown], left=True),
                Column("packets", [count(row["packets"]) for row in shown], rank=2),
                *(
                    Column(
                        layer,
                        [share(row[f"{layer}_bytes"], row["bytes_on_wire"] + row["framing_bytes"]) for row in shown],
                        rank=0 if layer == "payload" else 1,
                    )
                    for layer in layers
                ),
            ],
        )
        more(console, len(rows) - len(shown), key)
    framing = "with" if result["framing_included"] else "without"
    print_paragraph(console, f"{framing} preamble, FCS and minimum gap (24 bytes a frame)", style="dim")


def path_latency(console: Console, result: Result, context: Context) -> None:
    """From stamp to reading, by stamp source and ring."""
    open_section(console, "Path latency", context)
    sources = result["sources"]
    columns = {name: _path_cells(one) for name, one in sources.items()}
    for name, one in sources.items():
        if len(one["rings"]) > 1:
            columns |= {f"{name} ring {ring['ring']}": _path_cells(ring) for ring in one["rings"]}
    if columns:
        first = next(iter(columns.values()))
        print_table(
            console,
            [
                Column("", list(first), left=True),
                *(
                    Column(name, list(cells.values()), rank=at // len(sources))
                    for at, (name, cells) in enumerate(columns.items())
                ),
            ],
        )
    else:
        print_line(console, Text("no packet has a stamp from before its reading", style="dim"))
    for name, one in sources.items():
        if one["error_bound_ns"] is not None:
            bound = f"{name}: each time may be off by {duration(one['error_bound_ns'])}, the error bound of the stamps"
            print_paragraph(console, bound, style="yellow")
    if result["longest_unread_ns"] is not None:
        unread = duration(result["longest_unread_ns"])
        print_paragraph(
            console, f"a ring went unread for {unread} at most: frames that came then waited as long", style="dim"
        )
    for field, what in (
        ("frames_stamped_on_reading", "stamped on reading, which leaves no path to measure"),
        ("frames_without_stamp", "without a stamp"),
        ("frames_without_reading", "from no ring"),
    ):
        if result[field]:
            print_paragraph(console, f"left out: {plural(result[field], 'frame')} {what}", style="dim")
    footnote(console, list(sources.values()))
    print_paragraph(console, result["definition"], style="dim")


def _path_cells(row: Result) -> dict[str, str]:
    """Return what is shown of one histogram of path latencies, by its label."""
    return {
        "frames": count(row["count"]),
        "min": duration(row["min_ns"]),
        **{f"p{one}": percentile_cell(row, one) for one in row["percentiles_ns"]},
        "max": duration(row["max_ns"]),
        "of frame": count(row["max_frame"]),
        "mean": duration(row["mean_ns"]),
        "stddev": duration(row["stddev_ns"]),
        "negative": count(row["negative"]),
        "at most": duration(row["most_negative_ns"] or None),
    }


LAYERS = ("payload", "transport", "network", "link", "trailer", "undecoded", "framing")

SECTIONS: dict[str, Callable[[Console, Result, Context], None]] = {
    "summary": summary,
    "timestamps": timestamps,
    "inter_arrival": inter_arrival,
    "gaps": gaps,
    "bursts": bursts,
    "overhead": overhead,
    "path_latency": path_latency,
    "sequence": sequence,
    "arbitration": arbitration,
    "orders": orders,
    "requests": requests,
    "tick_to_trade": tick_to_trade,
    "tcp": tcp,
    "patterns": patterns,
    "trailer": trailer,
}
