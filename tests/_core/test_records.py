"""Dtypes are those of the C structs that compiled loops have, and arrays of another layout are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from uspcap._core import records
from uspcap.analysis.gaps.loop import GAP_DTYPE, GAP_TRACK_DTYPE, keep_longest
from uspcap.analysis.orders.order_tables import REQUEST_DTYPE
from uspcap.analysis.patterns.loop import BEAT_TRACK_DTYPE, GAP_BUCKETS
from uspcap.analysis.sequence.numbered_streams import STREAM_NAME_DTYPE
from uspcap.protocols.flow_index import KEY_DTYPE


def as_compiled(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return a dtype of the same fields, laid out as a C compiler does."""
    if dtype.subdtype is not None:
        return np.dtype((as_compiled(dtype.subdtype[0]), dtype.shape))
    if dtype.names is None:
        return dtype
    return np.dtype([(name, as_compiled(dtype[name])) for name in dtype.names], align=True)


@pytest.mark.parametrize("dtype", [GAP_TRACK_DTYPE, BEAT_TRACK_DTYPE, KEY_DTYPE, STREAM_NAME_DTYPE, REQUEST_DTYPE])
def test_fields_lie_where_a_c_compiler_puts_them(dtype: np.dtype[Any]) -> None:
    assert dtype == as_compiled(dtype)


def test_its_functions_are_for_compiled_modules() -> None:
    assert set(vars(records)["__pyx_capi__"]) == {"dtype_of", "copied"}


def test_arrays_and_structs_within_structs_keep_their_shape() -> None:
    assert GAP_TRACK_DTYPE["octaves"].shape == (40, 2)
    assert BEAT_TRACK_DTYPE["short_ones"]["sums"].shape == (GAP_BUCKETS,)
    assert STREAM_NAME_DTYPE["flow"] == KEY_DTYPE
    assert REQUEST_DTYPE["answers"].shape == (8,)
    assert REQUEST_DTYPE["answers"].base == REQUEST_DTYPE["asked"]


def test_an_array_of_another_layout_is_refused() -> None:
    gaps, tracks = np.zeros(1, GAP_DTYPE), np.zeros(1, GAP_TRACK_DTYPE)
    other = np.dtype([(name, np.uint64) for name in GAP_DTYPE.names or ()])
    for wrong in (gaps.view(np.int64), gaps.view(other), gaps[["flow", "gap_ns"]], np.zeros(1, GAP_TRACK_DTYPE)):
        with pytest.raises(ValueError, match="Buffer dtype mismatch"):
            keep_longest(wrong, tracks, 1)
    assert len(keep_longest(gaps, tracks, 1)) == 1
