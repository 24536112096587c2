"""Time in order, as a stage: how it is asked for, what is checked while all seems well, and what was found.

Whether frames are in order is checked while they are analyzed, which costs next to nothing; only where they are not are
they read again and put in order (`uspcap.stages.straightening`). That is decided of all that is read, never of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from uspcap.frames import EARLIEST_NS, LATEST_NS, Decision, FrameBatch, TimestampSource
from uspcap.quantities import duration_ns
from uspcap.saturating import difference_ns
from uspcap.stages.ordering import LONGEST_RUN, MOST_LISTED, Chain, first_fall

WINDOW_NS: Final = 100_000_000
"""How far frames may lie out of order and be sorted, where nothing else is asked for."""

WINDOW_FRAMES: Final = 1 << 16
WINDOW_BYTES: Final = 128 << 20
"""How many frames a frame may be out of place, and how many bytes, where nothing else is asked for."""

GIVEN_FRAMES: Final = 1 << 20
GIVEN_BYTES: Final = 1 << 30
"""The same where a window is given."""

CLOCK_SET_NS: Final = 3652 * 86_400 * 1_000_000_000
"""1980: what is older was timestamped by a clock that nobody had set."""

NO_TIMESTAMP: Final = int(TimestampSource.NONE)

_LONG_NS: Final = 1_000_000_000
_FEWEST: Final = 8

Sorting = Literal["auto", "off"] | int
"""A window in ns, one chosen automatically, or the order of the files."""


def parse_sorting(text: str) -> Sorting:
    """Return what `--sort` asks for: `auto`, `off`, or a window such as `250ms`.

    Raises
    ------
    ValueError
    """
    if text in ("auto", "off"):
        return "auto" if text == "auto" else "off"
    try:
        window_ns = duration_ns(text)
    except ValueError:
        window_ns = 0
    if not window_ns:
        raise ValueError(f"{text!r} is not auto, off or a duration of 1ns or more, as 250ms")
    return window_ns


class Bounds(NamedTuple):
    """What may be out of order, and is put right."""

    window_ns: int
    frames: int
    size: int

    def chain(self, *, keeps_frames: bool = True, clock_is_set: bool = False, awaits_clock: bool = False) -> Chain:
        """Return an empty chain with these bounds."""
        return Chain(
            window_ns=self.window_ns,
            most_frames=self.frames,
            most_bytes=self.size,
            keeps_frames=keeps_frames,
            clock_is_set=clock_is_set,
            awaits_clock=awaits_clock,
        )


def bounds(sorting: Sorting) -> Bounds:
    """Return what is put right: what was asked for, or what is chosen automatically."""
    if isinstance(sorting, int):
        return Bounds(sorting, GIVEN_FRAMES, GIVEN_BYTES)
    return Bounds(WINDOW_NS, WINDOW_FRAMES, WINDOW_BYTES)


@dataclass(frozen=True, slots=True)
class Outlier:
    """A frame whose timestamp leaves the others' course.

    Attributes
    ----------
    file : str
    frame : int
        Its number in the file.
    timestamp_ns : int
    expected_ns : int or None
        Where time was; None where no frame says so.
    kind : {'outlier', 'undetermined'}
        Undetermined: no frames before, or after, say whether time goes on there.
    trusted : bool
        The timestamp still counts.
    frames : int
        In the run of outliers that begins with it: with one timestamp, or of years before a clock is set.
    """

    file: str
    frame: int
    timestamp_ns: int
    expected_ns: int | None
    kind: str
    trusted: bool = False
    frames: int = 1

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "file": self.file,
            "frame": self.frame,
            "frames": self.frames,
            "timestamp_ns": self.timestamp_ns,
            "expected_ns": self.expected_ns,
            "off_by_ns": None if self.expected_ns is None else self.timestamp_ns - self.expected_ns,
            "kind": self.kind,
            "trusted": self.trusted,
        }


@dataclass(frozen=True, slots=True)
class Step:
    """A clock that went back, and stayed there: between two frames, each with its file, number in it and time."""

    before_file: str
    before_frame: int
    before_ns: int
    file: str
    frame: int
    timestamp_ns: int

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {
            "file": self.file,
            "frame": self.frame,
            "timestamp_ns": self.timestamp_ns,
            "before_file": self.before_file,
            "before_frame": self.before_frame,
            "before_ns": self.before_ns,
            "step_ns": self.timestamp_ns - self.before_ns,
        }


@dataclass(frozen=True, slots=True)
class PossibleStep(Step):
    """A clock that seems to have gone forward, and stayed there.

    Attributes
    ----------
    interface : str
        Whose clock.
    evidence : str
        What says so beside the jump, which alone is a gap.
    """

    interface: str
    evidence: str

    def as_dict(self) -> dict[str, Any]:
        """Return it ready for JSON."""
        return {**super(PossibleStep, self).as_dict(), "interface": self.interface, "evidence": self.evidence}


@dataclass(slots=True)
class Order:
    """What was found of the order of frames.

    Attributes
    ----------
    sorting : Sorting
        As it was asked for.
    window_ns : int or None
        The window, None where nothing was put in order.
    timestamped : int
        Frames with a timestamp that were looked at one by one; 0 where all was in order.
    merged_inputs : int
        Files, or sections or interfaces of files, that overlap others in time and were merged with them.
    sorted : int
        Frames that lay behind later ones, within the window.
    furthest_ns : int
        By how much at most.
    beyond_window : int
        Frames that lay further back, and are out of order still.
    outliers : list of Outlier
        The first `MOST_LISTED`.
    outlier_count : int
    unset_count : int
        Of these, those of the years before a clock is set.
    steps : list of Step
        The first `MOST_LISTED`.
    step_count : int
    copies_removed : int
        Frames that were left out as copies of others.
    forward_steps : list of PossibleStep
        The first `MOST_LISTED` of each input.
    """

    sorting: Sorting = "auto"
    window_ns: int | None = WINDOW_NS
    merged_inputs: int = 0
    sorted: int = 0
    furthest_ns: int = 0
    beyond_window: int = 0
    outliers: list[Outlier] = field(default_factory=list)
    outlier_count: int = 0
    unset_count: int = 0
    steps: list[Step] = field(default_factory=list)
    step_count: int = 0
    timestamped: int = 0
    copies_removed: int = 0
    forward_steps: list[PossibleStep] = field(default_factory=list)

    @property
    def is_tidy(self) -> bool:
        """Whether there is nothing to say."""
        return not any(number for number, _ in self._found())

    def _found(self) -> list[tuple[int, str]]:
        return [
            (self.merged_inputs, "inputs that overlap in time merged"),
            (self.sorted, "frames sorted"),
            (self.beyond_window, "frames out of order still"),
            (self.outlier_count, "frames with timestamps that are not to be trusted"),
            (self.step_count, "steps of the clock"),
            (self.copies_removed, "copies of packets removed"),
            (len(self.forward_steps), "possible steps of the clock forward"),
        ]

    def __str__(self) -> str:
        """Return in a sentence how many of what was found."""
        found = ", ".join(f"{number:,} {what}" for number, what in self._found() if number)
        return f"order of time: {found or 'nothing found'}"

    def decision(self, files: Sequence[str]) -> Decision | None:
        """Return what was decided automatically, None where nothing was found or a window was asked for."""
        if self.sorting != "auto" or self.is_tidy or self.window_ns is None:
            return None
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        return Decision(f"{files[0]}{more}", f"--sort {self.window_ns // 1_000_000}ms", str(self))

    def as_dict(self) -> dict[str, Any]:
        """Return it as a report's `source.order`."""
        return {
            "window_ns": self.window_ns,
            "timestamped": self.timestamped,
            "merged_inputs": self.merged_inputs,
            "sorted": self.sorted,
            "furthest_ns": self.furthest_ns,
            "beyond_window": self.beyond_window,
            "outlier_count": self.outlier_count,
            "unset_count": self.unset_count,
            "outliers": [outlier.as_dict() for outlier in self.outliers[:MOST_LISTED]],
            "step_count": self.step_count,
            "steps": [step.as_dict() for step in self.steps[:MOST_LISTED]],
            "copies_removed": self.copies_removed,
            "forward_steps": [step.as_dict() for step in self.forward_steps[:MOST_LISTED]],
        }


class OrderCheck:
    """Whether the frames of a stream are in order of time; itself a monoid, as an analysis is.

    Parameters
    ----------
    until_ns : int
        When what comes after it begins: a later time falls behind that.

    Attributes
    ----------
    falls : bool
        Some frame's timestamp lies before that of a frame before it.
    timestamped : int
        Frames with a timestamp.
    latest_ns : int
        The latest.
    head, tail : ndarray of int64
        The first and the last timestamps, `LONGEST_RUN` + 1 where there are as many.
    """

    def __init__(self, until_ns: int = LATEST_NS) -> None:
        self.falls = False
        self._until_ns = until_ns
        self.latest_ns = EARLIEST_NS - 1
        self.timestamped = 0
        self.head: NDArray[np.int64] = np.empty(0, np.int64)
        self.tail: NDArray[np.int64] = np.empty(0, np.int64)

    def update(self, batch: FrameBatch) -> None:
        """Take the next batch, of which no filter has taken anything out."""
        if self.falls or not batch.count:
            return
        seen = first_fall(batch, self.latest_ns)
        if seen is None or seen[0] > self._until_ns:
            self.falls = True
            return
        self.latest_ns, timestamped = seen
        if len(self.head) <= LONGEST_RUN:
            self.head = np.concatenate([self.head, self._times(batch)])[: LONGEST_RUN + 1]
        tail = self._times(batch, 4 * LONGEST_RUN)
        if len(tail) <= LONGEST_RUN:
            tail = np.concatenate([self.tail, self._times(batch)])
        self.tail = tail[-LONGEST_RUN - 1 :]
        self.timestamped += timestamped

    @staticmethod
    def _times(batch: FrameBatch, last: int = 1 << 62) -> NDArray[np.int64]:
        """Return the timestamps that there are of a batch's last rows, copied."""
        rows = slice(max(batch.count - last, 0), batch.count)
        times: NDArray[np.int64] = batch.storage("timestamp_ns")[rows]
        return times[batch.storage("timestamp_source")[rows] < NO_TIMESTAMP]

    def merge(self, later: OrderCheck) -> None:
        """Append what came directly after."""
        self.falls |= later.falls or bool(len(self.tail) and len(later.head) and later.head[0] < self.tail[-1])
        self.head = np.concatenate([self.head, later.head])[: LONGEST_RUN + 1]
        self.tail = np.concatenate([self.tail, later.tail])[-LONGEST_RUN - 1 :]
        self.latest_ns = max(self.latest_ns, later.latest_ns)
        self.timestamped += later.timestamped

    @property
    def is_tidy(self) -> bool:
        """Whether all frames are in order, and no jump stands close to either end that is to be looked at closely."""
        return not (
            self.falls or self._has_doubtful_jump(self.head) or self._has_doubtful_jump(self.tail) or self.begins_unset
        )

    @property
    def begins_unset(self) -> bool:
        """Whether time begins before any clock is set, and ends after."""
        return len(self.head) > 0 and int(self.head[0]) < CLOCK_SET_NS <= int(self.tail[-1])

    def extent(self, window_ns: int) -> tuple[int, int, int, int] | None:
        """Return what `Chain.extent` would be of these frames, which are in order."""
        if not self.timestamped:
            return None
        head, tail = self.head, self.tail
        first_ns, last_ns = int(head[0]), int(tail[-1])
        early = np.flatnonzero(difference_ns(head[1:], head[:-1]) > window_ns)
        late = np.flatnonzero(difference_ns(tail[1:], tail[:-1]) > window_ns)
        begin_ns, end_ns = first_ns, last_ns
        if len(early) and 2 * (int(early[0]) + 1) < self.timestamped:
            begin_ns = int(head[early[0] + 1])
        if len(late) and 2 * (len(tail) - 1 - int(late[-1])) < self.timestamped:
            end_ns = int(tail[late[-1]])
        return first_ns, last_ns, begin_ns, end_ns

    def _has_doubtful_jump(self, outermost: NDArray[np.int64]) -> bool:
        if len(outermost) < 2:
            return False
        longest = int(difference_ns(outermost[1:], outermost[:-1]).max())
        others = int(self.tail[-1]) - int(self.head[0]) - longest
        return longest > max(_LONG_NS, others // 2) and self.timestamped >= _FEWEST
