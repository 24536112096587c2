"""Two lines of one feed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import Declaration
from uspcap.analysis.protocol_options import NUMBERS, PAIR, PROTOCOL, UNVERIFIED, sequence_settings
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Asked, Shared
    from uspcap.analysis.sequence.settings import SequenceSettings
    from uspcap.declared_options import Given


def _prepare(given: Given, asked: Asked) -> dict[str, Any]:
    settings = sequence_settings("arbitration", given, asked)
    if not settings.pairs:
        raise UsageError(
            "arbitration needs to know which lines carry the same feed: give "
            "--pair A=239.1.1.1:30001,B=239.1.1.2:30001, or a file.toml of such pairs"
        )
    return {"settings": settings}


def _brought_by(given: Given, named: Sequence[str]) -> bool:
    return bool(given.get(PAIR.parameter))


def _make(shared: Shared, settings: SequenceSettings) -> Analysis:
    from uspcap.analysis.arbitration.analysis import Arbitration

    return Arbitration(settings.protocol, settings.pairs)


ANALYSIS = Declaration(
    name="arbitration",
    summary="with `--pair A=…,B=…`: which of two lines leads and by how much, what is lost on both "
    "(`docs/arbitration.md`)",
    place=90,
    options=(PROTOCOL, NUMBERS, PAIR, UNVERIFIED),
    prepare=_prepare,
    brought_by=_brought_by,
    make=_make,
    result="uspcap.analysis.arbitration.result:ArbitrationResult",
    view="uspcap.analysis.arbitration.view",
)
