"""Which analyses there are; apart from them, as a command that runs none need not import them."""

from typing import Final

NAMES: Final = ("summary", "timestamps", "inter_arrival", "gaps", "bursts", "overhead")
"""Analyses of any frames, in the order of a report."""

LIVE_NAMES: Final = (*NAMES, "path_latency")
"""Those of frames that come from a ring, of which it is known when they were read: all there are."""
