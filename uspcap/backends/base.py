"""What all live sources have in common: one protocol, one way to count losses, one line of description."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from uspcap.formats.pcapng import SOURCE_MARK
from uspcap.frames import CLAMPED_LISTED, LATEST_NS, ClampedTimestamps, FrameBatch, Interface, Problem, TimestampSource
from uspcap.timestamps.nic_clock import ClockAccount

BATCH_FRAMES: Final = 4096
"""Rows of a batch."""

BATCH_BYTES: Final = 1 << 20
"""Room for the bytes of a batch's frames; longer than the longest frame that Linux hands over."""

HAND_OVER_NS: Final = 100_000_000
"""How long frames that were read may wait in a batch for others, where somebody waits for them."""

LONG_HAND_OVER_NS: Final = 250_000_000
"""The same where nobody does: to hand a few frames over costs about as much as to read a thousand."""

DEFAULT_SNAPLEN: Final = 262_144
"""Bytes kept of a frame where nothing is asked for: everything."""

FRAMES_THAT_TELL: Final = 16
"""So many frames of an interface cannot all have come between the attaching of a program and the first counting."""

UNKNOWN_SOURCE: Final = 0xFFFF
"""In the table of `TimestampedInterfaces`: no frame was timestamped there yet."""


Place = Literal["xdp", "socket", "reader"]
"""Where a source can lose a frame: at the hook, before the reader had it, in reading it."""


@dataclass(slots=True)
class SourceStatistics:
    """Where the frames went so far; each is in one place only.

    Attributes
    ----------
    received : int
        Frames that came to the source and match its filter, as its own first counter says.
    delivered : int
        Frames in the batches that were yielded.
    filtered : int
        Frames that were received and then did not match: only where the filter runs after the ring.
    dropped : dict of str to int
        Frames received and lost, by cause; the counts add up.
    waiting : int
        Frames in the ring that were not read yet, where the source can tell; 0 after `stop` and the last batch.
    nic_dropped : dict of str to int
        Frames that the interface lost before the source could have received them, by the kernel's own counter.
    remarks : dict of str to int
        What is counted but is no loss of its own: cut frames, times that the ring was found full.
    dropped_at : dict of Place to dict of str to int
        What `dropped` has, by where it was lost.
    seen : int or None
        Frames that came to the XDP hook, matching or not; None where the source has none.
    cut : int
        Frames that a driver cut in pieces, each of which was taken for a frame: the counts are then of pieces.
    interface_counts : dict of str to int or None
        By how much counters of the network interface went up: the kernel's and, once the source was stopped, the
        driver's; `rx_packets` is there even if it did not, and is left out where no counter has the frames that an XDP
        program took. They are of everything that the interface received, and may
        count again what is counted here. Empty where the interface is gone, None for a source that is none.
    longest_unread_ns : int or None
        The longest time for which a ring went unread; None without one.
    latest : str
        What happened to the source last, in a sentence; empty where nothing did.
    by_interface : dict of str to SourceStatistics
        Of several interfaces, by name; these are their sums. Empty otherwise.
    """

    received: int = 0
    delivered: int = 0
    filtered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    nic_dropped: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    dropped_at: dict[Place, dict[str, int]] = field(default_factory=dict)
    seen: int | None = None
    cut: int = 0
    interface_counts: dict[str, int] | None = None
    longest_unread_ns: int | None = None
    latest: str = ""
    by_interface: dict[str, SourceStatistics] = field(default_factory=dict)

    @property
    def hook_is_idle(self) -> bool:
        """Frames come to the interface, and none to the XDP program: the driver does not run it."""
        came = (self.interface_counts or {}).get("rx_packets", 0)
        return self.seen == 0 and came >= FRAMES_THAT_TELL

    @property
    def dropped_total(self) -> int:
        return sum(self.dropped.values())

    @property
    def unaccounted(self) -> int:
        """Frames received that are in none of the other places; negative where there are more than came."""
        return self.received - self.delivered - self.filtered - self.dropped_total - self.waiting


@dataclass(frozen=True, slots=True)
class Description:
    """What was obtained, for the lines that a capture starts with.

    Attributes
    ----------
    what : str
        Interface or files.
    backend : str
    mode : str
        What the kernel granted, read back where it can be.
    queues_covered, queues_total : int
        Receive queues whose frames are seen; 0 and 0 where there are none.
    timestamps : str
        Who timestamps, and on which clock.
    remarks : tuple of str
        What a user must know: offloads that alter what is seen, better modes that were refused and why.
    each : tuple of Description
        Of several interfaces, one each; empty otherwise.
    """

    what: str
    backend: str
    mode: str
    queues_covered: int
    queues_total: int
    timestamps: str
    remarks: tuple[str, ...] = ()
    each: tuple[Description, ...] = ()

    @property
    def headlines(self) -> tuple[str, ...]:
        """All but the remarks, a line an interface."""
        if self.each:
            return tuple(line for part in self.each for line in part.headlines)
        parts = [f"{self.what}: {self.backend}, {self.mode}"]
        if self.queues_total:
            parts.append(f"{self.queues_covered} of {self.queues_total} receive queues")
        return ("; ".join([*parts, f"timestamps: {self.timestamps}"]),)

    def __str__(self) -> str:
        return "; ".join([*self.headlines, *self.remarks])


def idle_hook(interface: str, frames: int) -> str:
    """Return what to say of an interface whose driver does not run XDP programs."""
    return (
        f"{frames} frames came to {interface} and none to its XDP hook: the driver took the program and does not run "
        "it in its present configuration; capture with --xdp skb"
    )


class LiveSource(ABC):
    """Frames as they come, in batches; a context manager that closes what it opened.

    Attributes
    ----------
    backend : str
        Name on the command line.
    counts_an_interface : bool
        Its statistics are those of one network interface.
    problems : list of Problem
        What is wrong with the input, where it comes from files.
    clamped : ClampedTimestamps
        Timestamps that this source clamped itself, beside those that its input's reader did.
    frames_wanted : int or None
        A batch with so many frames or more is yielded at once, and none that has less waits longer than that of
        others; None or 0 where there is no hurry.
    wait_s : float or None
        `batches` yields None after so long without a frame, where that is sooner than it was asked to.
    """

    backend: ClassVar[str]
    counts_an_interface: ClassVar[bool] = True

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.frames_wanted: int | None = None
        self.wait_s: float | None = None
        self.clamped = ClampedTimestamps()

    def _clamp(self, batch: FrameBatch, name: str) -> None:
        """Clamp what the timestamps of a batch from `name` have become here, and note the frames of which one was."""
        clamped = batch.clamp_timestamps()
        if not clamped:
            return
        timestamps = batch.timestamp_ns
        for row in np.flatnonzero(np.abs(timestamps) == LATEST_NS)[:CLAMPED_LISTED].tolist():
            self.clamped.note(name, 0, int(batch.frame_number[row]), later=bool(timestamps[row] > 0))
        self.clamped.count += clamped

    @property
    @abstractmethod
    def interfaces(self) -> tuple[Interface, ...]:
        """What the `interface` column points into; grows at its end only."""

    @abstractmethod
    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        """Yield frames as they come, in one batch that is refilled each time.

        Yields None when no frame came for `timeout_s` seconds, so that the caller can steer. Ends once `stop` was
        called and what was received before is yielded, or when there is nothing more to come.

        Raises
        ------
        CaptureError
            The interface is gone; what it had given was yielded before.
        """

    @abstractmethod
    def stop(self) -> None:
        """Take no more frames; `batches` yields those already taken and ends. May be called again."""

    def interrupt(self) -> None:
        """End a wait of `batches` for input that may never come; may be called by a signal handler, before `stop`."""
        return

    def parts(self) -> tuple[LiveSource, ...]:
        """Return the source of each interface, in the order of their first descriptions; itself, if it is of one."""
        return (self,)

    def messages(self) -> list[str]:
        """Return what happened to the input since the last call and its user should know, a sentence each."""
        return []

    def take_recent_unread_ns(self) -> int | None:
        """Return the longest time for which a ring went unread since this was last asked; None without a ring."""
        return None

    @abstractmethod
    def statistics(self) -> SourceStatistics:
        """Return the counts since the beginning; complete once `batches` has ended."""

    @abstractmethod
    def describe(self) -> Description:
        """Return what was obtained."""

    def clocks(self) -> tuple[ClockAccount, ...]:
        """Return how timestamps of clocks other than the host's were put on UTC so far."""
        return ()

    def parting_remarks(self) -> tuple[str, ...]:
        """Return what a user must know of how the source was closed; complete after `close`."""
        return ()

    def capabilities_needed(self) -> frozenset[str]:
        """Prepare for going on without privileges; return the capabilities that are still needed.

        Files and rings that are open stay usable, and everything is given back at the end; what would need a
        privilege while frames come is done now.
        """
        return frozenset()

    @abstractmethod
    def close(self) -> None:
        """Give everything back: ring, program, membership. May be called again."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TimestampedInterfaces:
    """One capture interface for each place where frames of a network interface were timestamped.

    So that a file says of every frame who timestamped it, each place gets an interface description of its own. They
    are numbered as frames with them come; the compiled loops number, this class describes.

    Parameters
    ----------
    first : Interface
        Description for the place that is expected; it is number 0.
    timestamps : dict of TimestampSource to str
        How each place's timestamps are described.

    Attributes
    ----------
    table : ndarray of uint16, shape (9,)
        By the value of `TimestampSource`, the interface's number or UNKNOWN_SOURCE; last, how many there are.
        Compiled loops write it.
    """

    def __init__(self, first: Interface, timestamps: dict[TimestampSource, str]) -> None:
        self._template = first
        self._timestamps = timestamps
        self.table: NDArray[np.uint16] = np.zeros(9, np.uint16)
        self.expect(first.timestamp_source)

    def expect(self, source: TimestampSource) -> None:
        """Restart the numbering from `source`; only before the first frame."""
        self.table[:8] = UNKNOWN_SOURCE
        self.table[source] = 0
        self.table[8] = 1
        self._known: tuple[Interface, ...] = (self._describe(source),)

    @property
    def known(self) -> tuple[Interface, ...]:
        """All interfaces so far, by number."""
        if int(self.table[8]) > len(self._known):
            by_number = sorted((int(self.table[source]), source) for source in TimestampSource)
            self._known = tuple(self._describe(source) for number, source in by_number if number != UNKNOWN_SOURCE)
        return self._known

    def _describe(self, source: TimestampSource) -> Interface:
        like = self._template
        return Interface(
            link_type=like.link_type,
            name=like.name,
            description=f"timestamps: {self._timestamps[source]}; {SOURCE_MARK}{source.name}",
            filter=like.filter,
            operating_system=like.operating_system,
            snaplen=like.snaplen,
            timestamp_source=source,
        )
