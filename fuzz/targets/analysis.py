"""Every analysis over streams of its own kind with hostile timestamps and numbers, whole and in parts."""

from random import Random
from typing import Any

import streams

from uspcap.analysis import registry

VARIANTS = registry.names()
"""One target each: `analysis:bursts`."""


def generate(random: Random, name: str) -> Any:
    return streams.stream(random, name)


def run(value: Any, name: str) -> None:
    streams.check_stream(value, name)
