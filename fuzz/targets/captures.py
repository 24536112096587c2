"""Whole capture files of extremes through some analyses at once, or all, from the file to the rendered report."""

from random import Random
from typing import Any
from unittest.mock import patch

import files
import streams
from support.hostile_captures import hostile_capture, hostile_settings

from uspcap.analysis import registry
from uspcap.analysis.suite import analyze_files
from uspcap.errors import UspcapError
from uspcap.report.document import RunReport, build_report, source_of


def generate(random: Random) -> Any:
    seed = random.getrandbits(32)
    names = random.sample(
        registry.names(live=False),
        random.choice((1, 1, 2, 3, 4)) if random.random() < 0.95 else len(registry.names(live=False)),
    )
    content = hostile_capture(seed)
    part_bytes = random.choice((None, None, 1, 100, len(content) // 2))
    beside = hostile_capture(random.getrandbits(32)) if random.random() < 0.3 else None
    return {
        "seed": seed,
        "content": content,
        "beside": beside,
        "names": names,
        "parts": part_bytes,
        "validate": random.random() < 0.1,
    }


def analysed(paths: list[str], value: Any, jobs: int) -> RunReport:
    names = [name for name in value["names"] if name in registry.names(live=False)]
    outcome = analyze_files(paths, hostile_settings(abs(value["seed"]), names), jobs=jobs)
    return build_report(source_of(outcome), outcome.suite.analyses)


def run(value: Any) -> None:
    paths = [files.written(value["content"])]
    if isinstance(value.get("beside"), bytes):
        paths.append(files.written(value["beside"], "beside"))
    try:
        report = analysed(paths, value, 1)
        document = report.as_dict()
        if value["parts"] is not None:
            with patch("uspcap.formats.parts.SMALLEST_PART", max(1, abs(value["parts"]))):
                in_parts = analysed(paths, value, 3).as_dict()
            differences = streams.differences(document["analyses"], in_parts["analyses"])
            assert in_parts["analyses"] == document["analyses"], differences
    except UspcapError as error:
        assert "\n" not in str(error)
        return
    for name, result in document["analyses"].items():
        streams.check_numbers(result, name)
    if value["validate"]:
        streams.validator().validate(document)
        streams.show(report)
