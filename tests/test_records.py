"""Records: frozen dataclasses that say what they are, and the JSON that is made of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.records import (
    WHERE_GIVEN,
    Count,
    FrameNumber,
    Instant,
    Record,
    Span,
    as_json,
    frame_fields,
    table,
)


class Point(Record):
    """Where something was."""

    frame: FrameNumber
    at_ns: Instant


class Ended(Record):
    """Ends with a frame, perhaps."""

    last_frame: Annotated[FrameNumber | None, "Null where there is none."]


class Named(Point, inherited_after="name"):
    """With a name before, and a remark behind."""

    name: str
    remark: str | None = None


class Marked(Named):
    """One more level."""

    from_: Annotated[Count, "Named as Python has it for itself."]
    left_ns: Annotated[Span | None, WHERE_GIVEN] = None


class Listed(Record):
    """Records within records."""

    points: tuple[Point, ...]
    by_name: Mapping[str, Named]
    best: Marked | None
    both: tuple[Span, Span]


NAMED = Named(name="a", frame=7, at_ns=-3)
MARKED = Marked(name="b", frame=0, at_ns=5, remark="here", from_=2)
LISTED = Listed(
    points=(Point(frame=1, at_ns=2), Point(frame=3, at_ns=4)), by_name={"x": NAMED}, best=MARKED, both=(1, 2)
)


def test_a_record_is_a_frozen_dataclass_whose_values_are_given_by_name() -> None:
    assert dataclasses.is_dataclass(NAMED) and dataclasses.replace(NAMED, name="c").name == "c"
    with pytest.raises(dataclasses.FrozenInstanceError):
        NAMED.name = "c"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del NAMED.name
    with pytest.raises(TypeError, match="Named has no nmae"):
        Named(nmae="a", frame=1, at_ns=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Named needs at_ns"):
        Named(name="a", frame=1)  # type: ignore[call-arg]
    assert repr(Point(frame=1, at_ns=2)) == "Point(frame=1, at_ns=2)"


def test_equal_are_records_of_one_type_with_equal_values() -> None:
    assert dataclasses.replace(NAMED) == NAMED and hash(dataclasses.replace(NAMED)) == hash(NAMED)
    assert dataclasses.replace(NAMED, at_ns=0) != NAMED
    assert Point(frame=1, at_ns=2) != {"frame": 1, "at_ns": 2}
    assert pickle.loads(pickle.dumps(LISTED)) == LISTED == copy.deepcopy(LISTED)


def test_json_has_inherited_fields_where_the_class_says() -> None:
    assert list(NAMED.as_dict()) == ["name", "frame", "at_ns", "remark"]
    assert list(MARKED.as_dict()) == ["name", "frame", "at_ns", "remark", "from"]


def test_values_can_be_read_by_the_names_of_json() -> None:
    assert (MARKED["from"], MARKED["frame"], MARKED["left_ns"]) == (2, 0, None)
    with pytest.raises(KeyError):
        MARKED["to"]


def test_json_lacks_what_it_has_only_where_it_is_given() -> None:
    assert "left_ns" not in MARKED.as_dict()
    assert dataclasses.replace(MARKED, left_ns=4).as_dict()["left_ns"] == 4
    assert NAMED.as_dict()["remark"] is None


def test_json_is_made_of_plain_values_and_read_back() -> None:
    document = LISTED.as_dict()
    assert document["points"] == [{"frame": 1, "at_ns": 2}, {"frame": 3, "at_ns": 4}]
    assert Listed.from_dict(json.loads(json.dumps(document))) == LISTED
    assert Listed.from_dict({**document, "of another version": 1}) == LISTED
    with pytest.raises(TypeError, match="Listed needs both"):
        Listed.from_dict({name: value for name, value in document.items() if name != "both"})
    assert as_json({"a": (1, NAMED)}) == {"a": [1, NAMED.as_dict()]}


@given(st.builds(Point, frame=st.integers(0), at_ns=st.integers()), st.text(), st.none() | st.text())
def test_whatever_is_in_a_record_comes_back(point: Point, name: str, remark: str | None) -> None:
    whole = Listed(
        points=(point,), by_name={name: point.extended(Named, name=name, remark=remark)}, best=None, both=(0, 1)
    )
    assert Listed.from_dict(json.loads(json.dumps(whole.as_dict()))) == whole
    assert point.is_part_of(whole.by_name[name])


def test_frame_numbers_are_reported_by_their_type_wherever_they_are() -> None:
    assert frame_fields(Marked) == {"frame"} and frame_fields(Ended) == {"last_frame"}
    assert Ended(last_frame=None).with_frames(lambda number: number + 1).last_frame is None
    moved = LISTED.with_frames(lambda number: number + 100)
    assert [point.frame for point in moved.points] == [101, 103]
    assert moved.by_name["x"].frame == 107 and moved.best is not None and moved.best.frame == 100
    assert moved.both == (1, 2) and moved.points[0].at_ns == 2


def test_records_make_a_table() -> None:
    rows: list[Any] = [MARKED, dataclasses.replace(MARKED, from_=3)]
    assert table(Marked, rows, ["name", "from"]) == {"name": ["b", "b"], "from": [2, 3]}
    assert table(Point, []) == {"frame": [], "at_ns": []}
