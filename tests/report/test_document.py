"""The report as a document, and the schema that it keeps to."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from support.reports import CAPTURES, report_of, report_on
from support.streams import START_NS, Frame, streams

from uspcap.analysis import registry
from uspcap.analysis.base import Analysis, Result
from uspcap.analysis.suite import Settings, Suite
from uspcap.frames import FrameBatch, TimestampSource
from uspcap.pipeline.keeping import Interval
from uspcap.records import Count, Record, as_json
from uspcap.report.document import ROWS_OF_INTERVAL, ROWS_OF_ROW, build_report, read_report, report_of_interval
from uspcap.report.renderers.json import write_json
from uspcap.report.schema import load_schema

SCHEMA = load_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
FRAMES = [
    Frame(START_NS + 977 * at * at, 60 + at, at % 4, TimestampSource.KERNEL if at % 5 else TimestampSource.HARDWARE)
    for at in range(300)
] + [Frame(START_NS, 64, 1, TimestampSource.KERNEL), Frame(0, 64, 1, TimestampSource.NONE)]
WHOLE = Settings(
    registry.default_names(live=True),
    arguments={"bursts": {"line_rate_bps": 10**9}, "gaps": {"threshold_ns": 1_000}, "overhead": {"framing": True}},
)


def errors(report: Record | Mapping[str, Any]) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(as_json(report))]


def test_the_schema_is_itself_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_every_analysis_has_its_definition() -> None:
    assert set(SCHEMA["properties"]["analyses"]["properties"]) == set(registry.names())
    assert set(registry.names()) <= set(SCHEMA["$defs"])


def captures() -> list[Path]:
    return sorted(path for path in CAPTURES.glob("*/*") if path.is_file())


@pytest.mark.oracle
@pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures to read: set USPCAP_SHARED")
def test_reports_on_captures_by_others_keep_to_the_schema() -> None:
    paths = captures()
    assert len(paths) > 500
    broken = {path.name: found for path in paths if (found := errors(report_on(path)))}
    assert not broken


@settings(max_examples=60)
@given(streams())
def test_reports_on_any_frames_keep_to_the_schema(frames: list[Frame]) -> None:
    for chosen in (Settings(), WHOLE):
        assert not errors(report_of(frames, chosen))


@pytest.mark.parametrize("name", registry.default_names(live=True))
def test_a_report_may_hold_one_analysis(name: str) -> None:
    report = report_of(FRAMES, Settings(names=(name,)))
    assert list(report["analyses"]) == [name]
    assert not errors(report)


def test_what_a_source_does_not_say_is_said_to_be_nothing() -> None:
    source = build_report({"files": []}, {})["source"]
    assert source == {
        "files": [],
        "truncated": False,
        "problems": [],
        "notes": [],
        "decisions": [],
        "order": None,
        "time_range": None,
        "interface_drops": {},
        "filter": None,
    }


def test_json_keeps_the_order_and_ends_with_a_newline() -> None:
    report = report_of(FRAMES, WHOLE, notes=["µs \udcff"])
    stream = io.StringIO()
    write_json(report, stream)
    text = stream.getvalue()
    assert text.endswith("}\n") and text.isascii()
    assert json.loads(text) == report.as_dict()
    assert read_report(json.loads(text)) == report
    assert list(json.loads(text)["analyses"]) == list(registry.default_names(live=True))


def test_json_refuses_what_json_cannot_say() -> None:
    stream = io.StringIO()
    with pytest.raises(ValueError, match="JSON"):
        write_json({"rate": float("nan")}, stream)
    assert not stream.getvalue()


def inter_arrival(report: dict[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = report["analyses"]["inter_arrival"]["sources"]["KERNEL"]
    return source


BREAKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "another schema": lambda r: r.update(schema="uspcap.report/2"),
    "no version": lambda r: r.pop("version"),
    "no source": lambda r: r.pop("source"),
    "a field of no analysis": lambda r: r["analyses"]["gaps"].update(surprise=1),
    "a field of no source": lambda r: r["source"].update(surprise=1),
    "a field missing": lambda r: r["analyses"]["bursts"]["windows"][0].pop("peak_bytes"),
    "a field missing in a flow": lambda r: r["analyses"]["inter_arrival"]["flows"]["by_count"][0].pop("flow"),
    "a field of no histogram": lambda r: inter_arrival(r).update(p50_ns=1),
    "a histogram without its count": lambda r: inter_arrival(r).pop("count"),
    "a fraction of a nanosecond": lambda r: inter_arrival(r).update(min_ns=1.5),
    "a percentile that is no number": lambda r: inter_arrival(r)["percentiles_ns"].update(median=1),
    "a percentile beyond 100": lambda r: inter_arrival(r)["percentiles_ns"].update({"101": 1}),
    "a negative count": lambda r: r["source"].update(packets=-1),
    "text for a number": lambda r: r["analyses"]["summary"].update(packets="12"),
    "a timestamp source that there is not": lambda r: r["analyses"]["timestamps"]["sources"].update(SUNDIAL={}),
    "a payload of more than all": lambda r: r["analyses"]["overhead"]["total"].update(payload_share=1.1),
    "a problem without its place": lambda r: r["source"]["problems"].append({"file": "x", "what": "y"}),
    "an analysis that is no object": lambda r: r["analyses"].update(sequence=[1]),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_schema_refuses(name: str) -> None:
    broken = report_of(FRAMES, WHOLE).as_dict()
    assert not errors(broken)
    BREAKS[name](broken)
    assert len(errors(broken)) >= 1


def test_the_schema_lets_an_analysis_of_another_name_be() -> None:
    report = report_of(FRAMES).as_dict()
    report["analyses"]["of another day"] = {"lost": 3}
    assert not errors(report)


class Inner(Record):
    at: Count


class Row(Record):
    at: Count
    lost: Count
    gaps: tuple[Inner, ...]


class RowsResult(Result):
    streams: tuple[Row, ...]
    counts: tuple[Count, ...]


class Rows(Analysis):
    """Has a list of so many rows, each with a list of as many, and a list of numbers."""

    name = "rows"

    def __init__(self, rows: int, *, lost: dict[int, int]) -> None:
        super().__init__()
        self._rows = rows
        self._lost = lost

    def _update(self, batch: FrameBatch) -> None: ...

    def _merge(self, later: Analysis) -> None: ...

    def result(self) -> RowsResult:
        inner = tuple(Inner(at=at) for at in range(self._rows))
        return RowsResult(
            streams=tuple(Row(at=at, lost=self._lost.get(at, 0), gaps=inner) for at in range(self._rows)),
            counts=tuple(range(self._rows)),
        )


def interval_of(analysis: Analysis) -> Interval:
    suite = Suite(Settings(("summary",)))
    suite.analyses["rows"] = analysis
    return Interval(1, 2, suite, 0, {}, 77)


def test_lists_of_an_interval_are_bounded_and_what_they_lack_is_said() -> None:
    rows = 3 * ROWS_OF_INTERVAL
    report = report_of_interval(interval_of(Rows(rows, lost={})), "eth0")
    assert [row["at"] for row in report["analyses"]["rows"]["streams"]] == list(range(ROWS_OF_INTERVAL))
    assert all(len(row["gaps"]) == ROWS_OF_ROW for row in report["analyses"]["rows"]["streams"])
    assert report["analyses"]["rows"]["counts"] == tuple(range(rows))
    assert as_json(report["interval"]) == {
        "start_ns": 1,
        "end_ns": 2,
        "longest_unread_ns": 77,
        "left_out": {
            "rows.streams": rows - ROWS_OF_INTERVAL,
            "rows.streams.gaps": ROWS_OF_INTERVAL * (rows - ROWS_OF_ROW),
        },
    }
    assert not errors(report)


def test_rows_that_lost_most_stay_in_their_order() -> None:
    lost = {at: at % 7 + 1 for at in range(2 * ROWS_OF_INTERVAL, 3 * ROWS_OF_INTERVAL)}
    report = report_of_interval(interval_of(Rows(3 * ROWS_OF_INTERVAL, lost=lost)), "eth0")
    assert [row["at"] for row in report["analyses"]["rows"]["streams"]] == sorted(lost)


def test_short_lists_of_an_interval_are_whole() -> None:
    report = report_of_interval(interval_of(Rows(ROWS_OF_ROW, lost={})), "eth0")
    assert report["analyses"]["rows"] == Rows(ROWS_OF_ROW, lost={}).result()
    assert report["interval"]["left_out"] == {}
