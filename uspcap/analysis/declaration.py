"""The declaration of an analysis, from which all other code takes what it needs.

An analysis is a package whose `__init__` holds a `Declaration`, registered as an entry point of the group
`uspcap.analyses` (see `registry`). It imports nothing that takes time: what it makes is loaded when it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Any, Final, Protocol

from uspcap.declared_options import Given, Kind, Option
from uspcap.entry_points import LAST, EntryPoint

if TYPE_CHECKING:
    from collections.abc import Iterable

    from uspcap.analysis.base import Analysis
    from uspcap.protocols.flows import FlowTable
    from uspcap.report.model import Context, Headline, Section
    from uspcap.timestamps.trailers import TrailerChoice


class Runs(Enum):
    """When an analysis runs that was not named."""

    ALWAYS = auto()
    LIVE = auto()
    """Where frames come from a ring, of which it is known when they were read; it refuses files."""
    NAMED = auto()
    """Only where it is named, or an option brings it along."""


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
    help="Rows of lists such as flows and gaps; 10, or fewer where rows are long.",
)
"""Shared by all analyses that list something."""


@dataclass(slots=True)
class Asked:
    """The request for a run, for decisions that are made once before it.

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
        Timestamps in frames that are taken.
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
    """Objects that the analyses of one run share.

    Attributes
    ----------
    flows : FlowTable
    trailer : TrailerChoice or None
        Timestamps in frames that are taken, their format known.
    """

    flows: FlowTable
    trailer: TrailerChoice | None = None


class View(Protocol):
    """A module that turns a result into what reports show; `result` is of the type that the analysis returns."""

    def section(self, result: Any, context: Context) -> Section:
        """Return all that a report shows."""

    def headlines(self, result: Any) -> Iterable[Headline]:
        """Yield the headlines for intervals of a capture and the live view; perhaps none."""


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
    result : str
        `module:class` of its `Result`, in its package; it is imported on use.
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
        Given the options and the names that were named, returns whether they bring it along.
    """

    name: str
    summary: str
    make: Callable[..., Analysis]
    result: str
    view: str
    place: int = LAST
    runs: Runs = Runs.NAMED
    options: tuple[Option, ...] = ()
    prepare: Callable[[Given, Asked], dict[str, Any]] | None = None
    brought_by: Callable[[Given, Sequence[str]], bool] | None = None

    @property
    def package(self) -> str:
        """The package that it is declared in."""
        return self.view.rpartition(".")[0]

    def arguments(self, given: Given, asked: Asked) -> dict[str, Any]:
        """Return the arguments of `make` besides `Shared`; those not given keep their defaults.

        Raises
        ------
        UsageError
            Options make no sense, or something is missing.
        """
        if self.prepare is not None:
            return self.prepare(given, asked)
        values = {option.argument: given.get(option.parameter) for option in self.options}
        return {argument: value for argument, value in values.items() if value is not None}
