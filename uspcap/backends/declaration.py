"""What a backend declares, in one place; everything else that knows backends takes it from there.

A backend is a package whose `__init__` holds a `Backend`, registered as an entry point of the group `uspcap.backends`.
It imports nothing that takes time: its source is loaded when it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

from uspcap.backends.base import DEFAULT_SNAPLEN, HAND_OVER_NS
from uspcap.declared_options import Given, Option
from uspcap.entry_points import LAST, registered
from uspcap.timestamps import Timestamps

if TYPE_CHECKING:
    from uspcap.backends.base import LiveSource
    from uspcap.stages.reading import PlannedInput

GROUP: Final = "uspcap.backends"

AUTO: Final = "auto"
"""Leaves the choice of a backend to what backends declare."""

Direction = Literal["in", "out", "inout"]


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be captured, and how; defaults are None where they depend on the backend.

    Attributes
    ----------
    interfaces : sequence of str
    files : sequence of str or PlannedInput
        To be replayed.
    expression : str
    backend : str
        By name, or `AUTO`: files are replayed, frames of interfaces come by the first backend that is `automatic`.
    snaplen : int
    promiscuous : bool
    direction : {'in', 'out', 'inout'} or None
    buffer_bytes : int or None
    timestamps : Timestamps
    announce : callable
        Takes a sentence that must be said before the interface is touched.
    merge_window_ns : int or None
        Give frames of several rings in the order of their timestamps; 0 gives them as they come.
    latency_ns : int or None
        How long frames may wait for others before they are read, so that the reader is woken for many at a time;
        None takes the backend's default.
    hand_over_ns : int
        How long frames that were read may wait for others before they are given.
    options : mapping of str to object
        Those that backends declare, by `Option.parameter`; what is left out is at its default.
    """

    interfaces: Sequence[str] = ()
    files: Sequence[str | PlannedInput] = ()
    expression: str = ""
    backend: str = AUTO
    snaplen: int = DEFAULT_SNAPLEN
    promiscuous: bool = True
    direction: Direction | None = None
    buffer_bytes: int | None = None
    timestamps: Timestamps = "auto"
    announce: Callable[[str], None] = field(default=lambda line: None, repr=False)
    merge_window_ns: int | None = None
    latency_ns: int | None = None
    hand_over_ns: int = HAND_OVER_NS
    options: Given = field(default_factory=dict)

    @property
    def interface(self) -> str:
        """The only one, as `Backend.open` gets it."""
        (interface,) = self.interfaces
        return interface


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """A way to get frames.

    Attributes
    ----------
    name : str
        In `--backend`.
    summary : str
        One line without a full stop.
    reads : {'interfaces', 'files'}
    open : callable
        Given a `Request` for one interface, or for all files, returns the source; it may raise UsageError, and
        CaptureError where frames cannot be had.
    place : int
        Where it stands in lists, and how early it is asked whether it is automatic.
    options : tuple of Option
        Beside those of a `Request`; the command refuses them with other backends.
    automatic : callable
        Given the options, returns whether this backend is the default for what it reads.
    """

    name: str
    summary: str
    reads: Literal["interfaces", "files"]
    open: Callable[[Request], LiveSource]
    place: int = LAST
    options: tuple[Option, ...] = ()
    automatic: Callable[[Given], bool] = field(default=lambda given: False, repr=False)

    def values(self, request: Request) -> Mapping[str, Any]:
        """Return its options in a request by `Option.argument`, those left out at their defaults."""
        return {option.argument: request.options.get(option.parameter, option.default) for option in self.options}


@cache
def backends() -> dict[str, Backend]:
    """Return all backends by name: ours and other people's."""
    return registered(GROUP, Backend, "backend")


def backend_options() -> tuple[Option, ...]:
    """Return the options of all backends, each once."""
    return tuple({option.flag: option for backend in backends().values() for option in backend.options}.values())
