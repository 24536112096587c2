"""TOML documents made up: what a table may hold, what it may not, and what is no TOML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

KEYS = st.one_of(st.sampled_from(["header", "sequnce", "numbers ", "", "a.b", "x" * 200]), st.text(max_size=8))

VALUES = st.recursive(
    st.one_of(
        st.integers(-(2**70), 2**70),
        st.sampled_from([0, 1, -1, 8, 9, 65_535, 65_536, 2**31, 2**63, 2**64 - 1, 2**64, 10**4_000]),
        st.floats(),
        st.booleans(),
        st.text(max_size=20),
        st.sampled_from(["big", "messages", "packets", "fix", "1979-05-27", "x" * 1_000, "\x1b[31m", "\0"]),
        st.sampled_from([[0, 2], [2, 4], [-1, 4], [0, 0], [65_536, 1], [[0, 2]], [[0]], [[0, 17]], []]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=6,
)


def toml_of(document: Mapping[str, Any]) -> str:
    """Write a document; all of its tables inline, but for those at the top."""
    lines = [f"{_text(key)} = {_value(one)}" for key, one in document.items() if not isinstance(one, dict)]
    for key, one in document.items():
        if isinstance(one, dict):
            lines += [f"[{_text(key)}]", *(f"{_text(name)} = {_value(inner)}" for name, inner in one.items())]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    return json.dumps(text).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return _text(value)
        case int():
            # Python does not write out, and TOML does not read, what has more digits than this.
            return str(value) if abs(value) < 10**4_000 else "9" * 5_000
        case float():
            return repr(value)
        case list():
            return "[" + ", ".join(map(_value, value)) + "]"
        case _:
            return "{" + ", ".join(f"{_text(key)} = {_value(one)}" for key, one in value.items()) + "}"


@st.composite
def spoiled(draw: st.DrawFn, tables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Draw one of some tables in which up to three values were put elsewhere, taken out or made up."""
    name = draw(st.sampled_from(sorted(tables)))
    table: dict[str, Any] = json.loads(json.dumps(tables[name]))
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.one_of(st.sampled_from(sorted(table) or ["x"]), KEYS))
        what = draw(st.sampled_from(["made up", "made up", "taken out", "another's", "inside"]))
        if what == "taken out":
            table.pop(key, None)
        elif what == "another's":
            other = tables[draw(st.sampled_from(sorted(tables)))]
            table[key] = deepcopy(other[draw(st.sampled_from(sorted(other)))])
        elif what == "inside" and isinstance(table.get(key), list) and table[key]:
            table[key][draw(st.integers(0, len(table[key]) - 1))] = deepcopy(draw(VALUES))
        else:
            table[key] = deepcopy(draw(VALUES))
    return {draw(st.one_of(st.just(name), KEYS)): table}
