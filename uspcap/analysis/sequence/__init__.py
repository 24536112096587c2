"""Sequence numbers of feeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import Declaration
from uspcap.analysis.protocol_options import NUMBERS, PROTOCOL, UNVERIFIED, protocols_given, sequence_settings

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.analysis.declaration import Asked, Shared
    from uspcap.analysis.sequence.settings import SequenceSettings
    from uspcap.declared_options import Given


def _prepare(given: Given, asked: Asked) -> dict[str, Any]:
    return {"settings": sequence_settings("sequence", given, asked)}


def _brought_by(given: Given, named: Sequence[str]) -> bool:
    feed, _ = protocols_given(given, named)
    says_where = feed is not None or given.get(NUMBERS.parameter) is not None
    return says_where and not {"sequence", "arbitration"} & set(named)


def _make(shared: Shared, settings: SequenceSettings) -> Analysis:
    from uspcap.analysis.sequence.streams import sequence_of

    return sequence_of(settings.protocol, maximum_streams=shared.flows.maximum, chosen_by=settings.chosen_by)


ANALYSIS = Declaration(
    name="sequence",
    summary="with `--protocol`: lost, late and duplicate messages of a feed, by sequence numbers; `uspcap protocols` "
    "lists the feeds (`docs/sequence.md`)",
    place=80,
    options=(PROTOCOL, NUMBERS, UNVERIFIED),
    prepare=_prepare,
    brought_by=_brought_by,
    make=_make,
    result="uspcap.analysis.sequence.result:SequenceResult",
    view="uspcap.analysis.sequence.view",
)
