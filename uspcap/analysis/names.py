"""Which analyses there are; apart from them, as a command that runs none need not import them."""

from typing import Final

NAMES: Final = ("summary", "timestamps", "inter_arrival", "gaps", "bursts", "overhead")
"""Analyses of any frames, in the order of a report: those that run unless others are asked for."""

LIVE_NAMES: Final = (*NAMES, "path_latency")
"""Those of frames that come from a ring, of which it is known when they were read."""

ASKED_FOR: Final[tuple[str, ...]] = (
    "sequence",
    "arbitration",
    "orders",
    "requests",
    "tick_to_trade",
    "tcp",
    "patterns",
    "trailer",
)
"""Analyses of particular traffic, which run where they are named only, in the order of a report."""

FILE_NAMES: Final = (*NAMES, *ASKED_FOR)
"""What may be asked of files."""

ALL_NAMES: Final = (*LIVE_NAMES, *ASKED_FOR)
"""All there are."""

ORDER_PROTOCOLS: Final = ("ouch-4.2", "ouch-5.0", "fix")
"""What `orders` may be told of order entry connections."""
