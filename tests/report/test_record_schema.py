"""The JSON Schema of records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import jsonschema
import pytest

from uspcap.records import (
    FRAME_NUMBER,
    WHERE_GIVEN,
    Count,
    FrameNumber,
    Length,
    Quantity,
    Record,
    SourceName,
    Span,
    frame_fields,
)
from uspcap.report.record_schema import Definitions
from uspcap.report.schema import load_schema


class Inner(Record):
    """What is within.

    And more of it.
    """

    frame: FrameNumber
    from_: Annotated[Span | None, "Null where it does not come from anywhere."]


class Outer(Record):
    """What is around."""

    kind: Literal["a", "b"]
    rows: tuple[Inner, ...]
    pair: tuple[Count, str]
    four: Annotated[tuple[Count, ...], Length(4)]
    by_source: Mapping[SourceName, Inner]
    said: Annotated[str | None, WHERE_GIVEN]
    either: int | str
    ratio: float
    is_so: bool
    best: Inner | None


def schema_of(kind: type[Record]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    return {**Definitions(definitions, {}).add(kind), "$defs": definitions}


SCHEMA = schema_of(Outer)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
INNER = Inner(frame=1, from_=None)
OUTER = Outer(
    kind="a",
    rows=(INNER,),
    pair=(1, "x"),
    four=(1, 2, 3, 4),
    by_source={"KERNEL": INNER},
    said=None,
    either="x",
    ratio=0.5,
    is_so=True,
    best=None,
)


def test_a_record_keeps_to_its_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(OUTER.as_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "c"},
        {"rows": [{"frame": -1, "from": None}]},
        {"rows": [{"frame": 1}]},
        {"pair": ["x", 1]},
        {"pair": [1, "x", 2]},
        {"four": [1, 2, 3]},
        {"by_source": {"SUNDIAL": {"frame": 1, "from": 0}}},
        {"said": None},
        {"either": 0.5},
        {"is_so": 1},
        {"best": {}},
        {"surprise": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_is_no_such_record_is_refused(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid({**OUTER.as_dict(), **change})


@pytest.mark.parametrize("change", [{"said": "x"}, {"either": 3}, {"best": {"frame": 0, "from": 7}}])
def test_what_may_be_otherwise_is_let_through(change: dict[str, Any]) -> None:
    assert VALIDATOR.is_valid({**OUTER.as_dict(), **change})


def test_descriptions_are_those_of_docstrings_fields_and_quantities() -> None:
    inner = SCHEMA["$defs"]["inner"]
    assert inner["description"] == "What is within."
    assert inner["properties"]["from"]["description"] == "Null where it does not come from anywhere."
    assert SCHEMA["$defs"]["frame_number"]["description"] == FRAME_NUMBER.says


def test_records_of_a_package_are_named_after_it() -> None:
    definitions: dict[str, Any] = {}
    made = Definitions(definitions, {__name__.rpartition(".")[0] or "tests": "mine"})
    made.add(Outer, "outer")
    assert set(definitions) >= {"outer", "count"}


def test_two_records_or_quantities_of_one_name_are_an_error() -> None:
    class Other(Record):
        """Says otherwise what a count is."""

        number: Annotated[int, Quantity("count", minimum=7)]

    definitions: dict[str, Any] = {}
    made = Definitions(definitions, {})
    made.add(Outer, "one")
    with pytest.raises(ValueError, match="would be one in the schema, which is taken"):
        made.add(Inner, "one")
    assert made._of_record(Inner)
    with pytest.raises(ValueError, match="two quantities named count"):
        made.add(Other)


def test_what_json_does_not_have_is_an_error() -> None:
    class Odd(Record):
        """Has bytes."""

        raw: bytes

    with pytest.raises(ValueError, match="which JSON does not have"):
        schema_of(Odd)


def subclasses(kind: type[Record]) -> Iterator[type[Record]]:
    for each in kind.__subclasses__():
        yield each
        yield from subclasses(each)


def test_what_is_named_a_frame_is_a_frame_number_and_what_is_named_ns_says_its_kind() -> None:
    load_schema()
    ours = [kind for kind in subclasses(Record) if kind.__module__.startswith("uspcap.")]
    assert len(ours) > 60
    for kind in ours:
        frames = {name for name in kind.__dataclass_fields__ if name.endswith("frame")}
        assert frames == frame_fields(kind), kind


def test_every_time_of_a_report_has_a_quantity() -> None:
    for name, definition in load_schema()["$defs"].items():
        for field, schema in definition.get("properties", {}).items():
            if field.endswith("_ns") and name not in HAND_WRITTEN:
                assert schema.get("type") not in ("integer", "number"), (name, field)


HAND_WRITTEN = {"order", "source", "clock"}
"""Definitions that are in `report_base.schema.json`."""
