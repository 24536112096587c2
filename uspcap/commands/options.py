"""What commands share: values with units, and telling files from filter words."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from uspcap.analysis.suite import NAMES

_DURATION_NS = {"ns": 1, "us": 10**3, "µs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_RATE_BPS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}

_CAPTURE_SUFFIXES = frozenset({".pcap", ".pcapng", ".cap", ".ntar", ".dmp", ".gz", ".zst", ".xz", ".lz4"})


class DurationType(click.ParamType[int]):
    """A length of time such as `250us` or `1.5ms`, as whole ns."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ns; a bare number is refused, because nobody agrees on its unit."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ns|us|µs|ms|s|m|h)\s*", str(value))
        if match is None:
            self.fail(f"{value!r} is no length of time; write a number and ns, us, ms, s, m or h, as in 250us", param)
        return int(Fraction(match[1]) * _DURATION_NS[match[2]])


class RateType(click.ParamType[int]):
    """A bit rate such as `10G` or `2.5Gbit`, as bits a second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bits a second; prefixes are decimal."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:bit|bits|bps|bit/s|b/s)?\s*", str(value).lower())
        rate = int(Fraction(match[1]) * _RATE_BPS[match[2]]) if match else 0
        if rate <= 0:
            self.fail(f"{value!r} is no bit rate; write a number and k, M, G or T, as in 10G", param)
        return rate


class FanoutType(click.ParamType[tuple[str, int]]):
    """How to spread frames over rings, such as `cpu` or `hash:4`, as mode and number of rings."""

    name = "fanout"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Return the mode and as many rings as said, or as there are CPUs to run on."""
        if isinstance(value, tuple):
            return value
        match = re.fullmatch(r"(cpu|hash|qm)(?::([1-9]\d?))?", str(value))
        if match is None:
            self.fail(f"{value!r} is no way to spread frames; write cpu, hash or qm, and rings as in hash:4", param)
        return match[1], int(match[2]) if match[2] else len(os.sched_getaffinity(0))


def analysis_names(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Return the names of analyses that an option lists, None where it is not given."""
    if value is None:
        return None
    names = tuple(name.strip().replace("-", "_") for name in value.split(","))
    for name in names:
        if name not in NAMES:
            raise click.BadParameter(f"there is no analysis {name!r}; there are {', '.join(NAMES)}")
    return names


def split_files(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the leading capture files from the filter expression that may follow.

    The first word is a file. A later one still is, until the first that neither exists nor ends as capture files
    do.
    """
    files = list(words[:1])
    for word in words[1:]:
        if word != "-" and Path(word).suffix.lower() not in _CAPTURE_SUFFIXES and not Path(word).exists():
            break
        files.append(word)
    return files, list(words[len(files) :])
