"""From orders to their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from uspcap.analysis.declaration import TOP, Declaration, on_use
from uspcap.analysis.protocol_options import PROTOCOL, protocols_given

if TYPE_CHECKING:
    from uspcap.analysis.declaration import Asked
    from uspcap.declared_options import Given


def _prepare(given: Given, asked: Asked) -> dict[str, Any]:
    _, order_entry = protocols_given(given, asked.named)
    shown = given.get(TOP.parameter)
    return {"protocol": order_entry} if shown is None else {"protocol": order_entry, "shown": shown}


def _brought_by(given: Given, named: Sequence[str]) -> bool:
    return protocols_given(given, named)[1] is not None


ANALYSIS = Declaration(
    name="orders",
    summary="where named: response times of orders over OUCH and FIX, unanswered orders (`docs/orders.md`)",
    place=100,
    options=(PROTOCOL, TOP),
    prepare=_prepare,
    brought_by=_brought_by,
    make=on_use("uspcap.analysis.orders.analysis:Orders"),
    result="uspcap.analysis.orders.result:OrdersResult",
    view="uspcap.analysis.orders.view",
)
