"""Reports of live comparisons, read again and compared: any field of any type, and text that is no report."""

import io
import json
from functools import cache
from random import Random
from typing import Any

import files
from support.live_outcomes import outcome_of
from values import EDGES, mutated

from uspcap.comparison.reports import load
from uspcap.errors import UspcapError
from uspcap.report.live_comparison import live_report
from uspcap.report.renderers.json import write_json
from uspcap.report.renderers.text import as_text
from uspcap.report.report_comparison import report_comparison, report_comparison_page

DROPS_KEYS = True


@cache
def _sound() -> list[Any]:
    made = (outcome_of(runs=2, frames=30), outcome_of(runs=3, frames=20, seed=2, lost={"kernel": 2}))
    return [json.loads(json.dumps(live_report(outcome))) for outcome in made]


def _spoilt(value: Any, random: Random, depth: int = 0) -> Any:
    """Return a document with one place somewhere in it of another type or size."""
    if (depth > 1 and random.random() < 0.15) or not isinstance(value, dict | list) or not value:
        return random.choice((None, True, -1, random.choice(EDGES), 1e308, 0.5, "", "x", [], {}, [None], {"a": []}))
    if isinstance(value, dict):
        key = random.choice(list(value))
        return {**value, key: _spoilt(value[key], random, depth + 1)}
    at = random.randrange(len(value))
    return [*value[:at], _spoilt(value[at], random, depth + 1), *value[at + 1 :]]


def generate(random: Random) -> Any:
    document = random.choice(_sound())
    kind = random.random()
    if kind < 0.7:
        document = _spoilt(document, random)
    elif kind < 0.9:
        document = mutated(document, random, drops_keys=True)
    return {"document": document, "first": random.random() < 0.5, "show": random.random() < 0.3}


def run(value: Any) -> None:
    text = json.dumps(value.get("document")).encode()
    spoilt = files.written(text, "spoilt.json")
    sound = files.written(json.dumps(_sound()[0]).encode(), "sound.json")
    try:
        one, two = (load(path) for path in ((spoilt, sound) if value.get("first") else (sound, spoilt)))
        report = report_comparison(one, two)
    except UspcapError as error:
        assert "\n" not in str(error)
        return
    write_json(report, io.StringIO())
    if value.get("show"):
        as_text(report_comparison_page(report), 90)
