"""Reports of live comparisons of paths: the JSON document, and its page."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from uspcap.comparison.live.measurement import Cost, Measured, PathRun
from uspcap.doctor.host_files import HostFiles
from uspcap.report.comparison_schema import SCHEMA
from uspcap.report.format import count, duration, exact_duration, plural, share, timestamp
from uspcap.report.model import Column, Page, Section
from uspcap.report.units import Unit
from uspcap.stats.histogram import Histogram
from uspcap.version import __version__

if TYPE_CHECKING:
    from uspcap.comparison.live.experiment import LiveOutcome

COSTS: Final = {
    "cpu_ns_per_frame": ("CPU time of the reader", "measured: CLOCK_THREAD_CPUTIME_ID"),
    "user_ns_per_frame": ("  in user space", "measured: getrusage, divided by the kernel, on most hosts by its ticks"),
    "system_ns_per_frame": (
        "  in the kernel",
        "measured: getrusage, divided by the kernel, on most hosts by its ticks",
    ),
    "run_queue_wait_ns_per_frame": ("ready, but without a CPU", "measured: schedstat of the reader's thread"),
    "softirq_ns_per_frame": (
        "soft interrupts, whole host",
        "measured: /proc/stat by ticks, whatever caused them; only where one path is on at a time",
    ),
    "context_switches_per_frame": ("context switches", "measured: getrusage"),
    "voluntary_context_switches_per_frame": ("  voluntary", "measured: getrusage"),
    "involuntary_context_switches_per_frame": ("  involuntary", "measured: getrusage"),
    "wake_ups_per_frame": ("wake-ups", "counted: blocking calls that returned data"),
    "syscalls_per_frame": ("system calls", "counted by the reader"),
    "bytes_copied_per_frame": ("bytes copied by the kernel", "derived from what the path is, not counted"),
    "cycles_per_frame": ("CPU cycles", "measured: perf_event_open, user and kernel, of the reader's thread"),
}
"""Costs of a path: how the table names each, and how it is known. All are of whole runs, warm-up included."""

_NAME_CELLS: Final = 12

_SHOWN_PERCENTILES: Final = ("50", "90", "99", "99.9")

LATE_SENDER_NS: Final = 100_000
"""Above this 99th percentile the report warns that the sender was late."""


def live_report(outcome: LiveOutcome) -> dict[str, Any]:
    """Return the report of a live comparison."""
    settings = outcome.settings
    traffic = settings.traffic
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "version": __version__,
        "kind": "live",
        "measured": "round trip" if settings.round_trip else "hook to user",
        "verdict": "",
        "interface": settings.interface,
        "filter": settings.expression,
        "port": settings.port,
        "design": {
            "kind": outcome.placement.design,
            "reason": outcome.placement.reason,
            "wakeup": settings.wakeup,
            "runs": min(len(outcome.runs_of(path)) for path in outcome.paths),
            "runs_asked_for": settings.runs,
            "run_duration_ns": settings.run_duration_ns,
            "trim": asdict(settings.trim),
            "seed": settings.seed,
            "order": [run.path.name for run in outcome.runs],
            "interrupted": outcome.interrupted,
            "delays_ns": dict(settings.delays_ns),
        },
        "start_ns": outcome.start_ns,
        "end_ns": outcome.end_ns,
        "hook": {
            "mode": outcome.mode.value,
            "refusals": [f"{refusal.mode.value}: {refusal.reason}" for refusal in outcome.refusals],
            "seen": outcome.counts.seen,
            "matched": outcome.counts.matched,
            "other_traffic": outcome.counts.other,
            "dropped_between_runs": outcome.counts.off,
            "without_socket": outcome.counts.no_socket,
            "unstamped": outcome.counts.without_timestamp,
        },
        "paths": {path.name: _path(outcome, outcome.runs_of(path)) for path in outcome.paths},
        "differences": [],
        "faster_frames": [],
        "statistics": {},
        "other_traffic": settings.other_traffic,
        "traffic": None,
        "clock": {
            "hook": "CLOCK_TAI (bpf_ktime_get_tai_ns)",
            "user": "CLOCK_TAI (clock_gettime)",
            "skb": "CLOCK_REALTIME, converted to CLOCK_TAI by the kernel's offset",
            "look_ns": round(outcome.clock_look_ns, 1),
        },
        "host": _host(outcome),
        "warnings": [],
    }
    if outcome.comparison is not None:
        report |= outcome.comparison.as_dict()
    if outcome.sent is not None and traffic is not None:
        report["traffic"] = {
            "target": str(traffic.target),
            "namespace": traffic.namespace,
            "payload_bytes": traffic.size,
            "schedule": dict(outcome.sent.about),
            "cpu": traffic.cpu,
            "sent": outcome.sent.sent,
            "unsent": outcome.sent.unsent,
            "refused": outcome.sent.refused,
            "lateness": dict(outcome.sent.lateness),
        }
    silent = set(_silent(report))
    for one in report["differences"]:
        if {one["a"], one["b"]} & silent:
            one |= {"verdict": "insufficient n", "reason": "one of the paths lost all of its frames"}
    report["verdict"] = verdict(report)
    report["warnings"] = _warnings(outcome, report)
    return report


def _path(outcome: LiveOutcome, runs: list[PathRun]) -> dict[str, Any]:
    """Return the results of all runs of a path."""
    if not runs:
        return {}
    path = runs[0].path
    causes: dict[str, int] = {}
    for run in runs:
        for cause, number in run.drops.items():
            causes[cause] = causes.get(cause, 0) + number
    return {
        "kind": path.kind,
        "end": outcome.ends[path.name],
        "cpu": outcome.placement.cpus[path.name],
        "frames": sum(run.sent for run in runs),
        "received": sum(run.received for run in runs),
        "dropped": sum(run.lost for run in runs),
        "drops": causes,
        "warm_up": sum(run.kept.start for run in runs),
        "cool_down": sum(run.kept.frames - run.kept.stop for run in runs),
        "foreign": sum(run.foreign for run in runs),
        "ambiguous": sum(run.ambiguous for run in runs),
        "malformed": sum(run.malformed for run in runs),
        "unrecorded": sum(run.unrecorded for run in runs),
        "latency": _measured(reduce(add, (run.latency for run in runs))),
        "segments": {name: _measured(reduce(add, (run.segments[name] for run in runs))) for name in runs[0].segments},
        "cost": _cost(reduce(add, (run.cost for run in runs))),
        "runs": [
            {
                "start_ns": run.start_ns,
                "frames": run.sent,
                "received": run.received,
                "dropped": run.lost,
                "counted": run.kept.stop - run.kept.start,
                "latency": _measured(run.latency),
            }
            for run in runs
        ],
    }


def _measured(measured: Measured) -> dict[str, Any]:
    return {
        **measured.histogram.result(),
        "negative": measured.negative,
        "lowest_negative_ns": measured.lowest_negative_ns,
        "without_stamp": measured.missing,
        "buckets": measured.histogram.table(),
    }


def _cost(cost: Cost) -> dict[str, Any]:
    def each(total: int | None) -> float | None:
        return None if total is None or not cost.frames else round(total / cost.frames, 4)

    switches = cost.voluntary_switches + cost.involuntary_switches
    totals = {
        "cpu_ns_per_frame": cost.cpu_ns,
        "user_ns_per_frame": cost.user_ns,
        "system_ns_per_frame": cost.system_ns,
        "run_queue_wait_ns_per_frame": cost.run_queue_wait_ns,
        "softirq_ns_per_frame": cost.softirq_ns,
        "context_switches_per_frame": switches,
        "voluntary_context_switches_per_frame": cost.voluntary_switches,
        "involuntary_context_switches_per_frame": cost.involuntary_switches,
        "wake_ups_per_frame": cost.wake_ups,
        "syscalls_per_frame": cost.system_calls,
        "bytes_copied_per_frame": cost.bytes_copied,
        "cycles_per_frame": cost.cycles,
    }
    known = {name: how for name, (_, how) in COSTS.items() if totals[name] is not None}
    return {"frames": cost.frames, **{name: each(total) for name, total in totals.items()}, "known_by": known}


def _host(outcome: LiveOutcome) -> dict[str, Any]:
    """Return the settings that matter, none of which names the host."""
    files = HostFiles()
    cpus = set(outcome.placement.cpus.values())
    governors = {files.text(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor") for cpu in cpus} - {None}
    vulnerabilities = files.matching("/sys/devices/system/cpu/vulnerabilities/*")
    return {
        **asdict(outcome.host),
        "cpus_allowed": sorted(os.sched_getaffinity(0)),
        "governor": ", ".join(sorted(filter(None, governors))) or None,
        "idle_driver": files.text("/sys/devices/system/cpu/cpuidle/current_driver"),
        "idle_states": [
            files.text(path) for path in files.matching("/sys/devices/system/cpu/cpu0/cpuidle/state*/name")
        ],
        "mitigations": {path.rsplit("/", 1)[-1]: files.text(path) for path in vulnerabilities},
        "virtual_machine": " hypervisor" in (files.text("/proc/cpuinfo") or ""),
        "kernel_command_line_isolation": [
            word
            for word in (files.text("/proc/cmdline") or "").split()
            if word.startswith(
                ("isolcpus=", "nohz_full=", "rcu_nocbs=", "mitigations=", "idle=", "processor.max_cstate")
            )
        ],
    }


def _silent(report: dict[str, Any]) -> list[str]:
    """Return the paths of which no frame arrived, though some were sent."""
    return [name for name, path in report["paths"].items() if path.get("dropped") and path["dropped"] == path["frames"]]


def verdict(report: dict[str, Any]) -> str:
    """Return the comparison of medians in one sentence."""
    silent = _silent(report)
    if silent:
        lost = ", ".join(f"{name} lost all of its {count(report['paths'][name]['frames'])} frames" for name in silent)
        return f"{lost}: its latency cannot be assessed until the cause is known."
    primary = report["statistics"].get("primary_percentile", "50")
    tested = [row for row in report["differences"] if row["percentile"] == primary]
    if not tested:
        return "Nothing was compared: not every path has a run."
    if all(row["verdict"] == "insufficient n" for row in tested):
        return f"Insufficient n for a verdict: {tested[0]['reason']}."
    what = "Round trip" if report["measured"] == "round trip" else "From hook to user"
    sentence = f"{what} at the median: {'; '.join(map(_said, tested))}"
    lossy = [
        f"{name} lost {share(path['dropped'], path['frames'])} of its frames"
        for name, path in report["paths"].items()
        if path.get("dropped")
    ]
    return f"{sentence}; {', '.join(lossy)}." if lossy else f"{sentence}."


def _said(one: dict[str, Any]) -> str:
    a, b = one["a"], one["b"]
    if one["verdict"] == "insufficient n":
        return f"{a} and {b} cannot be distinguished yet ({one['reason']})"
    interval = f"{duration(one['low_ns'], 3)} to {duration(one['high_ns'], 3)}, {100 * one['confidence']:.4g} %"
    if one["verdict"] == "not distinguishable":
        return f"{a} and {b} are not distinguishable ({b} minus {a}: {interval})"
    faster, slower, sign = (a, b, 1) if one["verdict"] == "a faster" else (b, a, -1)
    low, high = sorted((sign * one["low_ns"], sign * one["high_ns"]))
    interval = f"{duration(low, 3)} to {duration(high, 3)}, {100 * one['confidence']:.4g} %"
    return f"{faster} is faster than {slower} by {duration(sign * one['difference_ns'], 3)} ({interval})"


def _warnings(outcome: LiveOutcome, report: dict[str, Any]) -> list[str]:
    said = []
    settings, placement, host = outcome.settings, outcome.placement, report["host"]
    if settings.delays_ns:
        delays = ", ".join(f"{name} {exact_duration(length)}" for name, length in settings.delays_ns.items())
        said.append(f"readers were delayed on purpose ({delays}): this is a test of the comparison")
    if outcome.interrupted:
        said.append("stopped before all runs were done; only complete rounds are compared")
    if placement.shared:
        said.append(
            "readers shared a CPU with each other, the sender or the receiving kernel: their latencies include waiting "
            "for it; use --cpus or --design block"
        )
    if placement.design == "frame" and "zero copy" in outcome.ends.get("af_xdp", ""):
        said.append(
            "the AF_XDP sockets were bound all the time, and with zero copy the driver copies the frames of other "
            "paths out of the UMEM: their latencies include that; --design block avoids it"
        )
    nic = host["nic"] or {}
    if nic.get("driver") == "veth":
        said.append(
            "veth: a frame is delivered by a function call of the sender; these figures do not apply to a NIC, its "
            "interrupts or zero copy"
        )
    if host["virtual_machine"]:
        said.append("a virtual machine: the hypervisor's scheduling affects the tails of all paths")
    if outcome.mode.value == "skb":
        said.append(
            "generic XDP: the hook runs after the socket buffer was created and timestamped, so that hook to skb may "
            "be negative, and af_xdp bypasses little"
        )
    if outcome.counts.without_timestamp:
        missing = plural(outcome.counts.without_timestamp, "frame")
        said.append(f"{missing} without a timestamp of the hook: use a shorter --run-duration or a narrower filter")
    for name, path in report["paths"].items():
        if not path:
            continue
        if path["ambiguous"]:
            said.append(
                f"{name}: {plural(path['ambiguous'], 'frame')} whose digest was not seen as often at the hook are left "
                "out of its latency"
            )
        if path["frames"] and not path["received"]:
            why = "; is its address this host's?" if path["kind"] == "kernel" else ""
            said.append(f"{name} received none of its frames{why}")
        if path["latency"]["negative"]:
            said.append(
                f"{name}: {plural(path['latency']['negative'], 'latency', 'latencies')} below 0, to "
                f"{duration(path['latency']['lowest_negative_ns'])}: a clock was set; counted, but in no percentile"
            )
        if path["drops"].get("unexplained"):
            said.append(f"{name}: {count(path['drops']['unexplained'])} lost frames that no counter explains")
        if path["unrecorded"]:
            said.append(f"{name}: {count(path['unrecorded'])} frames exceeded the memory for records: use shorter runs")
        if any(run["dropped"] for run in path["runs"]):
            said.append(f"{name}: frames lost in warm-up and cool-down count as lost, as their due times are unknown")
    if outcome.sent is not None:
        late_ns = report["traffic"]["lateness"]["percentiles_ns"]["99"]
        if late_ns is not None and late_ns > LATE_SENDER_NS:
            said.append(
                f"one in a hundred probes was sent {duration(late_ns, 3)} or more late; such probes arrive in bunches, "
                "on all paths"
            )
        if outcome.sent.refused:
            said.append(f"{count(outcome.sent.refused)} times the target refused the probe (ICMP port unreachable)")
    errors = {run.cycles_error for run in outcome.runs if run.cycles_error}
    if errors:
        reasons = ", ".join(sorted(os.strerror(number) for number in errors))
        said.append(f"CPU cycles were not counted: {reasons}")
    return said


def live_page(report: dict[str, Any]) -> Page:
    """Return the page of a report."""
    page = Page("uspcap compare", report["interface"])
    page.section().paragraph(report["verdict"], "strong")
    paths = {name: path for name, path in report["paths"].items() if path}
    page.section().facts(_made(report, paths), _NAME_CELLS)
    titles = {"hook to user": "Latency, hook to user", "round trip": "Round trip, from a probe's due time"}
    latencies = page.section(titles[report["measured"]])
    _latencies(latencies, paths)
    compared = any(row["difference_ns"] is not None for row in _asked(report))
    _differences(page.section("Differences, b minus a, from pairs of runs") if compared else latencies, report)
    _distribution(page.section("Distribution, share of frames"), paths)
    histograms = {name: Histogram.from_table(path["latency"]["buckets"]) for name, path in paths.items()}
    page.section("Latency by percentile, logarithmic").curves(histograms)
    _segments(page.section("Segments"), paths)
    _costs(page.section("Costs per frame, of whole runs"), paths)
    page.section("Drops").facts(_drops(report, paths), _NAME_CELLS)
    end = page.section()
    for warning in report["warnings"]:
        end.paragraph(warning, "warning", lead="! ")
    return page


def _made(report: dict[str, Any], paths: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield how the experiment was made."""
    design, traffic = report["design"], report["traffic"]
    runs = f"{plural(design['runs'], 'run')} of {exact_duration(design['run_duration_ns'])} of each path"
    trimmed = (
        f"without the first {exact_duration(design['trim']['warm_up_ns'])} and the last "
        f"{exact_duration(design['trim']['cool_down_ns'])}"
    )
    how = "one path at a time" if design["kind"] == "block" else "each frame to a random path"
    reason = f" ({design['reason']})" if design["reason"] else ""
    yield "runs", f"{runs}, {trimmed}, seed {design['seed']}"
    yield "design", f"{design['kind']}: {how}{reason}"
    yield "wake-up", str(design["wakeup"])
    port = "UDP to every port" if report["port"] is None else f"UDP port {report['port']}"
    filtered = f", {report['filter']}" if report["filter"] else ""
    yield "hook", f"{report['hook']['mode']} XDP, {port}{filtered}"
    if report["other_traffic"]:
        yield "traffic", "existing traffic, identified by length and 64 bytes of payload"
    yield "from", f"{timestamp(report['start_ns'])}  ({duration(report['end_ns'] - report['start_ns'])} in total)"
    if traffic is not None:
        rate = f"{traffic['schedule']['rate_per_s']:,.10g} frames/s, {traffic['schedule']['kind']}"
        yield "sent", f"{count(traffic['sent'])} probes of {traffic['payload_bytes']} B payload, {rate}"
    for name, path in paths.items():
        yield name, f"{path['end']}, CPU {path['cpu']}"


def _percentile_columns(histograms: list[dict[str, Any]]) -> list[Column]:
    columns = [Column("min", [duration(histogram["min_ns"], 3) for histogram in histograms], rank=2)]
    for percentile in _SHOWN_PERCENTILES:
        cells = [
            f"n<{_needed(percentile)}"
            if one["percentiles_ns"][percentile] is None
            else duration(one["percentiles_ns"][percentile], 3)
            for one in histograms
        ]
        columns.append(Column(f"p{percentile}", cells, rank={"90": 1, "99.9": 3}.get(percentile, 0)))
    return [*columns, Column("max", [duration(histogram["max_ns"], 3) for histogram in histograms])]


def _needed(percentile: str) -> str:
    return {"50": "20", "90": "100", "99": "1k", "99.9": "10k"}[percentile]


def _latencies(section: Section, paths: dict[str, Any]) -> None:
    columns = [
        Column("path", list(paths), left=True),
        Column("frames", [path["frames"] for path in paths.values()], unit=Unit.COUNT),
        Column("lost", [path["dropped"] for path in paths.values()], unit=Unit.COUNT),
        Column("counted", [path["latency"]["count"] for path in paths.values()], rank=4, unit=Unit.COUNT),
    ]
    section.table(columns + _percentile_columns([path["latency"] for path in paths.values()]))


def _asked(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in report["differences"] if row["percentile"] in _SHOWN_PERCENTILES]


def _differences(section: Section, report: dict[str, Any]) -> None:
    asked = _asked(report)
    shown = [row for row in asked if row["difference_ns"] is not None]
    if shown:
        pairs = [f"a {row['a']}, b {row['b']}" for row in shown]
        verdicts = [_winner(row) for row in shown]
        columns = [
            Column("", pairs, left=True, short=[pair.replace(", ", "\n", 1) for pair in pairs]),
            Column("at", [f"p{row['percentile']}" for row in shown]),
            Column("difference", [duration(row["difference_ns"], 3) for row in shown]),
            Column("from", [duration(row["low_ns"], 3) for row in shown]),
            Column("to", [duration(row["high_ns"], 3) for row in shown]),
            Column("conf.", [f"{100 * row['confidence']:.4g} %" for row in shown], rank=3),
            Column("of a", [_percent(row["difference_percent"]) for row in shown], rank=2),
            Column("verdict", verdicts, left=True, rank=1),
        ]
        section.table(columns)
    thin = sorted({str(row["percentile"]) for row in asked if row["difference_ns"] is None}, key=float)
    if shown and thin:
        section.line(
            f"insufficient n at {', '.join(f'p{percentile}' for percentile in thin)}, for some or all pairs of paths",
            "note",
        )
    for one in report["faster_frames"]:
        chance = share(one["probability"])
        section.line(f"P(a frame of {one['a']} is faster than one of {one['b']}) = {chance}", "note")


def _winner(one: dict[str, Any]) -> str:
    verdicts = {"a faster": f"{one['a']} faster", "b faster": f"{one['b']} faster"}
    return verdicts.get(str(one["verdict"]), str(one["verdict"]))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f} %"


def _distribution(section: Section, paths: dict[str, Any]) -> None:
    """Append the histograms over each other: shares of frames in 1-2-5 steps."""
    edges = [step * 10**power for power in range(2, 10) for step in (1, 2, 5)]
    rows = []
    for path in paths.values():
        buckets = path["latency"]["buckets"]
        places = np.searchsorted(edges, buckets["lowest_ns"], side="right")
        rows.append(np.bincount(places, weights=buckets["count"], minlength=len(edges) + 1))
    used = np.flatnonzero(np.sum(rows, axis=0))
    if not len(used):
        return
    span = range(int(used[0]), int(used[-1]) + 1)
    names = [
        f"{exact_duration(edges[at - 1]) if at else '0 ns'} to {exact_duration(edges[at]) if at < len(edges) else '…'}"
        for at in span
    ]
    columns = [Column("latency", names, left=True)]
    for name, row in zip(paths, rows, strict=True):
        total = float(row.sum())
        columns.append(Column(name, [(float(row[at]), total) for at in span], unit=Unit.SHARE))
        columns.append(Column("", [_bar(float(row[at]) / total) if total else "" for at in span], left=True, rank=1))
    section.table(columns)


def _bar(part: float) -> str:
    return "█" * round(12 * part)


def _segments(section: Section, paths: dict[str, Any]) -> None:
    rows = [(name, segment, values) for name, path in paths.items() for segment, values in path["segments"].items()]
    section.table(
        [
            Column("path", [name for name, _, _ in rows], left=True),
            Column("segment", [segment.replace("_", " ") for _, segment, _ in rows], left=True),
            *_percentile_columns([values for _, _, values in rows]),
            Column("below 0", [values["negative"] for _, _, values in rows], rank=2, unit=Unit.COUNT),
        ]
    )


def _costs(section: Section, paths: dict[str, Any]) -> None:
    columns = [Column("", [title for title, _ in COSTS.values()], left=True)]
    for name, path in paths.items():
        columns.append(Column(name, [cost_cell(key, path["cost"][key]) for key in COSTS]))
    columns.append(Column("", [how.split(":")[0].split(" ")[0] for _, how in COSTS.values()], left=True, rank=1))
    section.table(columns)


def cost_cell(name: str, value: float | None) -> str:
    """Return a cost of `COSTS` as text."""
    if value is None:
        return "-"
    if "_ns_" in name:
        return duration(round(value), 3)
    return f"{value:,.1f}" if value >= 100 else f"{value:.3g}"


def _drops(report: dict[str, Any], paths: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, path in paths.items():
        causes = ", ".join(f"{cause} {count(number)}" for cause, number in path["drops"].items() if number)
        yield name, f"{count(path['dropped'])} of {count(path['frames'])}" + (f": {causes}" if causes else "")
    hook = report["hook"]
    yield (
        "at the hook",
        f"{count(hook['dropped_between_runs'])} {'frames' if report['other_traffic'] else 'probes'} between runs, "
        f"{count(hook['without_socket'])} without a socket; "
        f"{count(hook['other_traffic'])} other frames passed on",
    )
