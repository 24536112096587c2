"""Whole capture files of extremes through all analyses at once, from the file to the rendered report."""

from random import Random
from typing import Any

import files
import streams
from support.hostile_captures import hostile_capture, hostile_settings

from uspcap.analysis.suite import analyze_files
from uspcap.errors import UspcapError
from uspcap.report.document import build_report, source_of


def generate(random: Random) -> Any:
    seed = random.getrandbits(32)
    return {"seed": seed, "content": hostile_capture(seed), "validate": random.random() < 0.1}


def run(value: Any) -> None:
    path = files.written(value["content"])
    try:
        outcome = analyze_files([path], hostile_settings(abs(value["seed"])), jobs=1)
    except UspcapError as error:
        assert "\n" not in str(error)
        return
    report = build_report(source_of(outcome), outcome.suite.analyses)
    for name, result in report["analyses"].items():
        streams.check_numbers(result, name)
    if value["validate"]:
        streams.validator().validate(report)
        streams.show(report)
