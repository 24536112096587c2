"""Which analyses there are, and what follows from what they declare."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from uspcap.analysis import registry
from uspcap.analysis.declaration import Declaration
from uspcap.analysis.gaps import ANALYSIS as GAPS
from uspcap.analysis.suite import settings_for
from uspcap.declared_options import Kind, Option
from uspcap.entry_points import EntryPoint
from uspcap.errors import UsageError
from uspcap.report.schema import PUBLISHED_FILE, load_schema

ROOT = Path(__file__).parents[2]


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes these values the registered analyses."""

    def register(*values: object) -> None:
        named = {f"made{number}": value for number, value in enumerate(values)}

        def load(point: EntryPoint) -> object:
            value = named[point.name]
            if isinstance(value, Exception):
                raise value
            return value

        monkeypatch.setattr(EntryPoint, "load", load)
        monkeypatch.setattr(
            "uspcap.entry_points.entry_points", lambda group: [EntryPoint(one, f"{one}:ANALYSIS") for one in named]
        )

    registry.declarations.cache_clear()
    yield register
    registry.declarations.cache_clear()


def test_every_analysis_has_a_view_a_schema_and_a_line_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    schema = load_schema()
    for name, declared in registry.declarations().items():
        view = registry.view_of(name)
        assert view is not None and callable(view.section) and callable(view.headlines)
        assert schema["properties"]["analyses"]["properties"][name] == {"$ref": f"#/$defs/{name}"}
        assert f"| `{name}` | {declared.summary} |" in readme


def test_the_published_schema_is_that_of_our_own_analyses() -> None:
    published = ROOT / "uspcap" / "report" / PUBLISHED_FILE
    assert json.loads(published.read_text()) == load_schema(), "run: python -m uspcap.report.schema"


def test_an_analysis_that_cannot_be_loaded_is_said_and_left_out(registered, capsys: pytest.CaptureFixture[str]) -> None:
    registered(ImportError("no module named x"), GAPS, "nothing", GAPS)
    assert list(registry.declarations()) == ["gaps"]
    assert [re.sub(r"made\d", "made", line) for line in capsys.readouterr().err.splitlines()] == [
        "uspcap: the analysis made cannot be loaded (made:ANALYSIS: no module named x): fix or remove its package",
        "uspcap: made:ANALYSIS declares no analysis: fix or remove its package",
        "uspcap: made:ANALYSIS declares the analysis gaps, which there is already: rename one of them",
    ]


def test_analyses_without_a_place_come_last_by_name(registered) -> None:
    def declared(name: str) -> Declaration:
        return Declaration(name=name, summary="", make=lambda shared: None, result="", view="")  # type: ignore[arg-type, return-value]

    registered(declared("b"), declared("a"), GAPS)
    assert registry.names() == ("gaps", "a", "b")
    assert registry.default_names(live=True) == ("gaps",)


def test_two_options_of_one_name_must_be_the_same(registered) -> None:
    other = Option(flag="--gap-threshold", argument="threshold", kind=Kind.TEXT, help="")
    registered(GAPS, replace(GAPS, name="other", options=(other,)))
    with pytest.raises(ValueError, match="the analysis other declares --gap-threshold again"):
        registry.options()


def test_options_go_to_the_analyses_that_declare_them() -> None:
    given = {"gap_threshold": 1_000, "top": 3}
    settings = settings_for(given, default=("gaps", "bursts"), naming="--only")
    assert settings.names == ("gaps", "bursts")
    assert settings.arguments == {"gaps": {"threshold_ns": 1_000, "shown": 3}, "bursts": {}}


def test_an_option_that_means_nothing_for_what_runs_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--line-rate is an option of bursts: add --only bursts, or leave it out$"):
        settings_for({"line_rate": 10**9}, default=("gaps",), naming="--only")
    settings_for({"top": 3}, default=("bursts",), naming="--only")


def test_options_bring_their_analyses_along() -> None:
    rule = {"sequence": "offset=0,size=4"}
    assert settings_for(rule, default=("gaps",), naming="--only").names == ("gaps", "sequence")
    pair = {**rule, "pair": ("A=239.1.1.1:1,B=239.1.1.2:1",)}
    assert settings_for(pair, default=(), naming="--only").names == ("sequence", "arbitration")
    assert settings_for({"protocol": ("fix",)}, default=(), naming="--only").names == ("orders",)
