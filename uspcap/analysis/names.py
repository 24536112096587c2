"""Which analyses there are; apart from them, as a command that runs none need not import them."""

from typing import Final

NAMES: Final = ("summary", "timestamps", "inter_arrival", "gaps", "bursts", "overhead")
"""Every analysis, in the order of a report."""
