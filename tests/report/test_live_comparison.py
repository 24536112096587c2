"""Reports of live comparisons: the document against its schema, the sentence, and what a terminal shows."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
from rich.cells import cell_len
from support.live_outcomes import outcome_of
from support.reports import shown_page

from uspcap.bpf.attach import AttachMode
from uspcap.comparison.live.experiment import LiveOutcome, SentProbes
from uspcap.comparison.live.settings import ProbeTraffic
from uspcap.probe.endpoints import Endpoint
from uspcap.report.comparison_schema import load_schema
from uspcap.report.live_comparison import COSTS, live_page, live_report
from uspcap.stats.histogram import Histogram

VALIDATOR = jsonschema.Draft202012Validator(load_schema())


def checked(outcome: LiveOutcome) -> dict[str, Any]:
    report = live_report(outcome)
    VALIDATOR.validate(json.loads(json.dumps(report, allow_nan=False)))
    return report


def shown(report: dict[str, Any], width: int = 80, encoding: str = "utf-8") -> str:
    return shown_page(live_page(report), width, encoding)


def test_schema_is_one_and_reports_keep_to_it() -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())
    report = checked(outcome_of(("kernel", "packet_mmap", "af_xdp"), runs=2))
    assert report["schema"] == "uspcap.comparison/1"
    assert set(report["paths"]) == {"kernel", "packet_mmap", "af_xdp"}


@pytest.mark.parametrize("missing", ["verdict", "paths", "differences", "host"])
def test_schema_refuses_a_report_that_lacks_something(missing: str) -> None:
    report = live_report(outcome_of(runs=2))
    del report[missing]
    assert not VALIDATOR.is_valid(report)


def test_faster_path_is_named_first_with_its_interval() -> None:
    report = checked(outcome_of(extra_ns={"kernel": 9_000}, run_noise=0.01))
    assert report["verdict"].startswith("From hook to user at the median: af_xdp is faster than kernel by ")
    (row,) = (one for one in report["differences"] if one["percentile"] == "50")
    assert row["verdict"] == "b faster"
    assert row["high_ns"] < 0
    swapped = checked(outcome_of(extra_ns={"af_xdp": 9_000}, run_noise=0.01))
    assert "kernel is faster than af_xdp by " in swapped["verdict"]


def test_equal_paths_are_not_distinguishable_and_few_runs_insufficient() -> None:
    assert "are not distinguishable" in checked(outcome_of())["verdict"]
    report = checked(outcome_of(runs=3))
    assert report["verdict"].startswith("Insufficient n for a verdict: 3 pairs of runs")


def test_lost_frames_stand_in_the_sentence_beside_the_latency() -> None:
    report = checked(outcome_of(lost={"af_xdp": 30}))
    assert report["verdict"].endswith("af_xdp lost 9.1 % of its frames.")
    path = report["paths"]["af_xdp"]
    assert (path["frames"], path["received"], path["dropped"]) == (8 * 330, 8 * 300, 240)
    assert path["drops"] == {"ring full": 240, "unexplained": 0}


def test_path_that_lost_everything_is_named_first_and_has_no_verdict_on_latency() -> None:
    report = checked(outcome_of(silent=("kernel",)))
    assert report["verdict"].startswith("kernel lost all of its 2,400 frames: ")
    assert "faster" not in report["verdict"]
    assert {one["verdict"] for one in report["differences"]} == {"insufficient n"}
    assert "lost all of its 2,400 frames" in shown(report, width=120)


def test_zero_copy_beside_other_paths_is_warned_of_where_all_are_on_at_once() -> None:
    outcome = outcome_of()
    ends = {**outcome.ends, "af_xdp": "1 AF_XDP socket, zero copy, 2048 chunks each"}
    frame = replace(outcome, ends=ends, placement=replace(outcome.placement, design="frame"))
    block = replace(outcome, ends=ends, placement=replace(outcome.placement, design="block"))
    warned = "the AF_XDP sockets were bound all the time"
    assert any(one.startswith(warned) for one in checked(frame)["warnings"])
    assert not any(one.startswith(warned) for one in checked(block)["warnings"])


def test_buckets_of_runs_merge_to_those_of_the_path() -> None:
    report = checked(outcome_of())
    for path in report["paths"].values():
        counts = np.sum([Histogram.from_table(run["latency"]["buckets"]).counts for run in path["runs"]], axis=0)
        assert np.array_equal(counts, Histogram.from_table(path["latency"]["buckets"]).counts)
        assert Histogram(counts).result()["percentiles_ns"]["50"] == path["latency"]["percentiles_ns"]["50"]
        assert path["latency"]["count"] + path["warm_up"] + path["cool_down"] == path["received"]


def test_costs_are_totals_over_all_frames_read() -> None:
    cost = checked(outcome_of())["paths"]["kernel"]["cost"]
    assert cost["frames"] == 8 * 300
    assert (cost["cpu_ns_per_frame"], cost["system_ns_per_frame"]) == (10_000, 9_000)
    assert cost["context_switches_per_frame"] == pytest.approx(303 / 300)
    assert cost["cycles_per_frame"] is None
    assert "cycles_per_frame" not in cost["known_by"]
    assert set(cost) == {"frames", "known_by", *COSTS}


def test_what_must_be_known_to_read_the_numbers_is_said() -> None:
    outcome = outcome_of(mode=AttachMode.SKB, delays_ns={"kernel": 5_000})
    warnings = " | ".join(checked(outcome)["warnings"])
    for words in ("on purpose (kernel 5 µs)", "veth:", "generic XDP", "CPU cycles were not counted: No such file"):
        assert words in warnings
    held_up = replace(outcome, placement=replace(outcome.placement, shared=True), interrupted=True)
    warnings = " | ".join(checked(held_up)["warnings"])
    assert "shared a CPU" in warnings
    assert "only complete rounds" in warnings


def test_late_sender_is_reported() -> None:
    late = Histogram.from_values(np.arange(2_000) * 1_000)
    outcome = outcome_of(traffic=ProbeTraffic(Endpoint("192.0.2.1", 7000), "there"))
    sent = SentProbes({"kind": "poisson", "rate_per_s": 2000.0, "seed": 1}, 2_000, 0, 4, late.result())
    report = checked(replace(outcome, sent=sent))
    warnings = " | ".join(report["warnings"])
    assert "one in a hundred probes was sent 1.98 ms or more late" in warnings
    assert "4 times the target refused" in warnings
    assert "2,000 probes of 64 B payload" in shown(report)


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("width", [60, 80, 140])
def test_terminal_shows_everything_in_its_width(width: int, encoding: str) -> None:
    report = checked(outcome_of(("kernel", "packet_mmap", "af_xdp"), lost={"kernel": 2}))
    text = shown(report, width, encoding)
    for words in ("Latency, hook to user", "Differences", "Distribution", "Segments", "Costs per frame", "Drops"):
        assert words in text
    assert "\x1b[31m" not in text
    tables = text[text.index("Latency") : text.index("Drops")]
    lines = [line for line in tables.splitlines() if not line.lstrip().startswith(("P(", "insufficient"))]
    longest = max(map(cell_len, lines))
    assert longest <= width


def test_shares_of_the_distribution_are_of_all_frames_counted() -> None:
    report = checked(outcome_of(extra_ns={"kernel": 400_000}))
    text = shown(report, 120)
    (row,) = (line for line in text.splitlines() if line.strip().startswith("200 µs to 500 µs"))
    assert row.split()[5:7] == ["100.0", "%"]


def test_an_outcome_without_a_round_says_that_nothing_was_compared() -> None:
    outcome = outcome_of()
    report = checked(replace(outcome, runs=outcome.runs[:1], comparison=None, interrupted=True))
    assert report["verdict"].startswith("Nothing was compared")
    assert "Nothing was compared" in shown(report)
