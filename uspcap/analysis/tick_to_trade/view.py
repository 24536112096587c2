"""From trigger to response, shown."""

from __future__ import annotations

from collections.abc import Iterator

from uspcap.analysis.requests.view import alone, answered, costs, slowest, times
from uspcap.analysis.tick_to_trade.result import TickToTradeResult
from uspcap.report.format import (
    count,
    plural,
    safe_text,
)
from uspcap.report.model import Context, Headline, Section


def section(result: TickToTradeResult, context: Context) -> Section:
    """Counts, times, triggers without a response and responses without a trigger."""
    view = Section("Tick to trade", timed=True)
    view.paragraph(safe_text(f"from {result.trigger} to {result.response}, by {result.matched_by}"))
    text = (
        f"{plural(result.triggers, 'trigger')}, {count(result.answered)} with a response, "
        f"{count(result.unanswered)} without; {plural(result.responses, 'response')}, "
        f"{count(result.responses_without_trigger)} without a trigger"
    )
    if result.repeated_triggers:
        text += f"; {count(result.repeated_triggers)} repeated triggers"
    if result.with_several_responses:
        text += (
            f"; {plural(result.with_several_responses, 'trigger')} with several responses "
            f"({count(result.further_responses)} after the first)"
        )
    view.paragraph(text)
    times(
        view,
        {
            (source, measure): histogram
            for source, measures in result.sources.items()
            for measure, histogram in measures.items()
            if measure == "from_first" or result.repeated_triggers
        },
    )
    costs(view, result)
    slowest(view, "Slowest", result.slowest, context)
    alone(view, result.name, result.first_unanswered, result.first_unsolicited, context, ("trigger", "response"))
    view.paragraph(result.definition, tone="note")
    return view


def headlines(result: TickToTradeResult) -> Iterator[Headline]:
    """Yield the headlines for intervals of a capture and the live view."""
    yield from answered(result.sources, result.unanswered, "tick to trade")
