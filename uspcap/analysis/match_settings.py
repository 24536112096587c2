"""What analyses that match requests with responses are asked for; they are loaded on use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from uspcap.errors import UsageError
from uspcap.frames import NANOSECONDS

if TYPE_CHECKING:
    from uspcap.analysis.base import Analysis
    from uspcap.protocols.rules import RulePair

TIMEOUT_NS = 5 * NANOSECONDS
"""How long an answer is waited for where nothing else is said."""


@dataclass(frozen=True, slots=True)
class MatchSettings:
    """Rules, and how long and for how many answers is waited.

    Attributes
    ----------
    pairs : tuple of RulePair
        Requests and responses, beside the protocols that are known.
    trigger : RulePair or None
        Triggers and responses of `tick_to_trade`.
    quorum : int, `majority` or None
        Replies that make a quorum; None where requests have one responder.
    timeout_ns : int
    """

    pairs: tuple[RulePair, ...] = ()
    trigger: RulePair | None = None
    quorum: int | str | None = None
    timeout_ns: int = TIMEOUT_NS

    def requests(self, shown: int) -> Analysis:
        """Return the analysis `requests`, whose lists have `shown` rows."""
        from uspcap.analysis.requests import Requests

        return Requests(self.pairs, quorum=self.quorum, timeout_ns=self.timeout_ns, shown=shown)

    def tick_to_trade(self, shown: int) -> Analysis:
        """Return the analysis `tick_to_trade`.

        Raises
        ------
        UsageError
            There are no rules for it.
        """
        from uspcap.analysis.tick_to_trade import TickToTrade

        if self.trigger is None:
            raise UsageError(
                "tick_to_trade needs rules: give --trigger RULE for what comes in and --response RULE for what goes out"
            )
        return TickToTrade(self.trigger, timeout_ns=self.timeout_ns, shown=shown)
