"""What an analysis declares of itself, once; everything else that knows analyses takes it from there.

An analysis is a package whose `__init__` holds a `Declaration`, registered as an entry point of the group
`uspcap.analyses` (see `registry`). It imports nothing that takes time: what it makes is loaded when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from uspcap.entry_points import EntryPoint
from uspcap.quantities import bit_rate, duration_ns, whole_number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uspcap.analysis.base import Analysis
    from uspcap.protocols.flows import FlowTable
    from uspcap.report.model import Context, Headline, Result, Section
    from uspcap.timestamps.trailers import TrailerChoice

Given = Mapping[str, Any]
"""Options as a command was given them: `Option.parameter` to value, those left out at their defaults."""

LAST: Final = 1000
"""Place of analyses that do not say where they stand in a report: after those that do, by name."""


class Runs(Enum):
    """When an analysis runs that nobody has named."""

    ALWAYS = auto()
    LIVE = auto()
    """Where frames come from a ring, of which it is known when they were read; it refuses files."""
    NAMED = auto()
    """Only where it is named, or an option brings it along."""


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
    """One option of one or more analyses, on every command that runs them.

    Attributes
    ----------
    flag : str
        As on a command line, `--gap-threshold`.
    argument : str
        Keyword argument of `Declaration.make` that takes its value, unless the analysis has a `prepare` of its own.
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


def on_use(place: str, *takes: str) -> Callable[..., Analysis]:
    """Return a `Declaration.make` that imports the analysis when it is made.

    Parameters
    ----------
    place : str
        `module:class`.
    takes : str
        Attributes of `Shared` that the class takes first.
    """

    def make(shared: Shared, **options: Any) -> Analysis:
        made: Analysis = EntryPoint("", place).load()(*(getattr(shared, name) for name in takes), **options)
        return made

    return make


TOP: Final = Option(
    flag="--top",
    argument="shown",
    kind=Kind.COUNT,
    bounds=(1, 10_000),
    general=True,
    help="Rows in lists of flows, gaps and the like; 10, or fewer where rows are long.",
)
"""Shared by all analyses that list something."""


@dataclass(slots=True)
class Asked:
    """What a run was asked for, for what is decided once and before it.

    Attributes
    ----------
    names : tuple of str
        Analyses that run.
    named : tuple of str or None
        Those that were named; None where none was.
    naming : str
        The option that names analyses, for messages.
    files : sequence of str
        Inputs; empty for interfaces.
    expression : str
        Filter.
    trailer : TrailerChoice or None
        Stamps in frames that are taken.
    """

    names: tuple[str, ...]
    named: tuple[str, ...] | None = None
    naming: str = "--only"
    files: Sequence[str] = ()
    expression: str = ""
    trailer: TrailerChoice | None = None
    _decided: dict[Any, Any] = field(default_factory=dict)

    def once(self, key: Any, decide: Callable[[], Any]) -> Any:
        """Return what `decide` returns; several analyses that ask with the same key share one decision."""
        if key not in self._decided:
            self._decided[key] = decide()
        return self._decided[key]


@dataclass(frozen=True, slots=True)
class Shared:
    """What the analyses of one run share.

    Attributes
    ----------
    flows : FlowTable
    trailer : TrailerChoice or None
        Stamps in frames that are taken, their format known.
    """

    flows: FlowTable
    trailer: TrailerChoice | None = None


class View(Protocol):
    """A module that turns a result, as the JSON report holds it, into what reports show."""

    def section(self, result: Result, context: Context) -> Section:
        """Return all that a report shows."""

    def headlines(self, result: Result) -> Iterable[Headline]:
        """Return what the intervals of a capture and its live view say in a few words; perhaps nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """An analysis.

    Attributes
    ----------
    name : str
        In `--only`, `--analyze` and the report's `analyses`.
    summary : str
        One line without a full stop.
    make : callable
        Given `Shared` and its options by keyword, returns the analysis; see `on_use`.
    view : str
        The module of its view, in its package; it is imported on use.
    place : int
        Where it stands in a report; those of one place by name.
    runs : Runs
    options : tuple of Option
    prepare : callable, optional
        Given the options and `Asked`, checks them, decides what is decided once, and returns what `make` takes; it may
        raise UsageError. Without it each option goes to `make` as it is.
    brought_by : callable, optional
        Given the options and the names that were named, tells whether they bring it along.
    """

    name: str
    summary: str
    make: Callable[..., Analysis]
    view: str
    place: int = LAST
    runs: Runs = Runs.NAMED
    options: tuple[Option, ...] = ()
    prepare: Callable[[Given, Asked], dict[str, Any]] | None = None
    brought_by: Callable[[Given, Sequence[str]], bool] | None = None

    @property
    def package(self) -> str:
        """The package that it is declared in, where its schema lies."""
        return self.view.rpartition(".")[0]

    def arguments(self, given: Given, asked: Asked) -> dict[str, Any]:
        """Return what `make` takes beside `Shared`; what was not given is left to its defaults.

        Raises
        ------
        UsageError
            Options make no sense, or something is missing.
        """
        if self.prepare is not None:
            return self.prepare(given, asked)
        values = {option.argument: given.get(option.parameter) for option in self.options}
        return {argument: value for argument, value in values.items() if value is not None}
