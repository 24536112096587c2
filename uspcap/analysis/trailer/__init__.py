"""Timestamps that taps and switches put into frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import Declaration, on_use
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.declaration import Asked
    from uspcap.declared_options import Given


def _prepare(given: Given, asked: Asked) -> dict[str, Any]:
    if asked.trailer is None:
        raise UsageError("the analysis trailer needs timestamps in the frames: add --timestamps trailer")
    return {}


def _brought_by(given: Given, named: Sequence[str]) -> bool:
    return given.get("trailer") is not None


ANALYSIS = Declaration(
    name="trailer",
    summary="with `--timestamps trailer`: timestamps that a tap or switch inserted, and the delay that the capturing "
    "host added (`docs/trailers.md`)",
    place=150,
    prepare=_prepare,
    brought_by=_brought_by,
    make=on_use("uspcap.analysis.trailer.analysis:Trailer", "trailer"),
    result="uspcap.analysis.trailer.result:TrailerResult",
    view="uspcap.analysis.trailer.view",
)
