"""Options as analyses and backends declare them, once; every command that runs those has them from here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any

from uspcap.quantities import bit_rate, duration_ns, whole_number

Given = Mapping[str, Any]
"""Options as a command was given them: `Option.parameter` to value, those left out at their defaults."""


class Kind(Enum):
    """What an option takes.

    Others than `TEXT`, `SWITCH` and `CHOICE` have a reader, which raises ValueError with a sentence.
    """

    TEXT = auto()
    SWITCH = auto()
    CHOICE = auto()
    DURATION = auto()
    """Value in ns."""
    BIT_RATE = auto()
    """Value in bits a second."""
    COUNT = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of an analysis or a backend, or of several, on every command that runs them.

    Attributes
    ----------
    flag : str
        As on a command line, `--gap-threshold`.
    argument : str
        Keyword argument that takes its value where what declares it is made, unless that prepares arguments itself.
    kind : Kind
    help : str
        One sentence.
    default : object
    metavar : str, optional
    choices : tuple of str
        For `Kind.CHOICE`.
    bounds : (int, int or None)
        For `Kind.COUNT`.
    repeated : bool
        May be given several times; its value is a tuple.
    read : callable, optional
        For `Kind.OTHER`: text to value.
    general : bool
        Says nothing of what is asked for, so that it is no mistake to give it where no analysis takes it.
    bare_value : object, optional
        Value where the flag is given alone; None where it is never.
    """

    flag: str
    argument: str
    kind: Kind
    help: str
    default: Any = None
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int | None] = (0, None)
    repeated: bool = False
    read: Callable[[str], Any] | None = None
    general: bool = False
    bare_value: Any = None

    @property
    def parameter(self) -> str:
        """Its name among the options given: that of the flag, as Python writes it."""
        return self.flag.removeprefix("--").replace("-", "_")

    @property
    def reader(self) -> Callable[[str], Any] | None:
        """What turns text into a value and raises ValueError; None where a command line needs none."""
        if self.kind is Kind.DURATION:
            return duration_ns
        if self.kind is Kind.BIT_RATE:
            return bit_rate
        if self.kind is Kind.COUNT:
            return partial(whole_number, least=self.bounds[0], most=self.bounds[1])
        return self.read

    def was_given(self, given: Given) -> bool:
        """Whether it is among the options given, with another value than its default."""
        return given.get(self.parameter) not in (None, False, (), self.default)
