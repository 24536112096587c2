"""The measurement of one run of one path, from the times of its frames."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from uspcap.comparison.live.path_readers import COLUMNS, PathReader
from uspcap.comparison.live.settings import Path
from uspcap.comparison.schedule import Kept, Trim, trim
from uspcap.saturating import difference_ns
from uspcap.stats.histogram import Histogram

SEGMENTS = {
    "kernel": ("hook_to_skb", "skb_to_user"),
    "packet_mmap": ("hook_to_skb", "skb_to_user", "hook_to_ring", "ring_to_user"),
    "af_xdp": ("hook_to_ring", "ring_to_user"),
}
"""What a path's latency is made of; `ring` is when the reader saw the frame on the ring."""


ROUND_TRIP_SEGMENTS = ("due_to_sent", "sent_to_answer")
"""What a round trip is made of: the sender's lateness, and what is called service time."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A length of time, frame by frame.

    Attributes
    ----------
    histogram : Histogram
        Of those that are not negative.
    negative : int
        Others: the clocks or the order of timestamps do not allow them, or only in generic XDP.
    lowest_negative_ns : int
        The furthest below 0; 0 where there is none.
    missing : int
        Frames without one of the two timestamps.
    """

    histogram: Histogram
    negative: int = 0
    lowest_negative_ns: int = 0
    missing: int = 0

    @classmethod
    def between(cls, start_ns: NDArray[np.int64], end_ns: NDArray[np.int64]) -> Measured:
        """Measure from one timestamp to another; a timestamp of 0 is none."""
        there = (start_ns != 0) & (end_ns != 0)
        lengths = difference_ns(end_ns, start_ns)[there]
        below = lengths[lengths < 0]
        return cls(
            Histogram.from_values(lengths[lengths >= 0]),
            len(below),
            int(below.min()) if len(below) else 0,
            len(start_ns) - int(np.count_nonzero(there)),
        )

    def __add__(self, other: Measured) -> Measured:
        return Measured(
            merged(self.histogram, other.histogram),
            self.negative + other.negative,
            min(self.lowest_negative_ns, other.lowest_negative_ns),
            self.missing + other.missing,
        )


def merged(one: Histogram, other: Histogram) -> Histogram:
    """Return the histogram of the values of both, with sum and extremes exact where both have them."""
    parts = [part for part in (one, other) if part.total_count]
    if len(parts) < 2:
        return parts[0] if parts else Histogram()
    sums = [part.sum_ns for part in parts if part.sum_ns is not None]
    lowest = [part.lowest_ns for part in parts if part.lowest_ns is not None]
    highest = [part.highest_ns for part in parts if part.highest_ns is not None]
    return Histogram(
        one.counts + other.counts,
        sum_ns=sum(sums) if len(sums) == 2 else None,
        lowest_ns=min(lowest) if len(lowest) == 2 else None,
        highest_ns=max(highest) if len(highest) == 2 else None,
    )


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of reading, in one run or several together.

    Attributes
    ----------
    frames : int
        Read, warm-up and cool-down included: the costs are theirs.
    cpu_ns, user_ns, system_ns : int
        CPU time of the reader's thread; the latter two as the kernel shares it out.
    run_queue_wait_ns : int or None
        How long the thread was ready and had no CPU.
    voluntary_switches, involuntary_switches, system_calls, wake_ups, bytes_copied : int
    cycles : int or None
    softirq_ns : int or None
        Of the whole host's CPUs meanwhile, by the kernel's ticks; None where other paths were on at the same time.
    """

    frames: int = 0
    cpu_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    run_queue_wait_ns: int | None = 0
    voluntary_switches: int = 0
    involuntary_switches: int = 0
    system_calls: int = 0
    wake_ups: int = 0
    bytes_copied: int = 0
    cycles: int | None = 0
    softirq_ns: int | None = 0

    def __add__(self, other: Cost) -> Cost:
        def both(one: int | None, another: int | None) -> int | None:
            return None if one is None or another is None else one + another

        return Cost(
            self.frames + other.frames,
            self.cpu_ns + other.cpu_ns,
            self.user_ns + other.user_ns,
            self.system_ns + other.system_ns,
            both(self.run_queue_wait_ns, other.run_queue_wait_ns),
            self.voluntary_switches + other.voluntary_switches,
            self.involuntary_switches + other.involuntary_switches,
            self.system_calls + other.system_calls,
            self.wake_ups + other.wake_ups,
            self.bytes_copied + other.bytes_copied,
            both(self.cycles, other.cycles),
            both(self.softirq_ns, other.softirq_ns),
        )


@dataclass(frozen=True, slots=True)
class PathRun:
    """One run of one path.

    Attributes
    ----------
    path : Path
    start_ns : int
        UTC.
    sent : int
        Frames that the hook sent on this path.
    received : int
        Of these, read; of round trips, answered to where they came from.
    kept : Kept
        How many count, and how many were warm-up and cool-down.
    latency : Measured
        Hook to user, or the round trip, of the frames that count.
    segments : dict of str to Measured
    drops : dict of str to int
        What the kernel says that it dropped, by cause; `unexplained` closes the account with `lost`.
    foreign, malformed, unrecorded, ambiguous, without_timestamp : int
        Frames that are none of this path; that lie where none can; that there was no room to record; of other traffic,
        that could be one or another; that have no timestamp, as the hook's ring buffer was full.
    cost : Cost
    """

    path: Path
    start_ns: int
    sent: int
    received: int
    kept: Kept
    latency: Measured
    segments: dict[str, Measured]
    drops: dict[str, int]
    foreign: int
    malformed: int
    unrecorded: int
    cost: Cost
    ambiguous: int = 0
    without_timestamp: int = 0
    error_number: int = 0
    cycles_error: int = field(default=0, repr=False)

    @property
    def lost(self) -> int:
        """Frames sent on this path and never read, or answered, warm-up and cool-down included."""
        return self.sent - self.received


def measure(
    records: NDArray[np.int64], kind: str, tai_offset_ns: int, settings: Trim
) -> tuple[Kept, Measured, dict[str, Measured]]:
    """Return what counts of a run's frames, their latency, and its segments.

    Parameters
    ----------
    records : ndarray of int64, shape (6, frames)
        As `PathReader.records` gives them.
    kind : str
    tai_offset_ns : int
        CLOCK_TAI less UTC: hook and user are on the former, the kernel's timestamps and intended times on the latter.
    settings : Trim
    """
    columns = dict(zip(COLUMNS, records, strict=True))
    # By intended time, so that no frame is left out for being late; reordered ones are put back.
    order = np.argsort(columns["intended_ns"], kind="stable")
    kept = trim(columns["intended_ns"][order], settings)
    rows = order[kept.as_slice()]
    hook, kernel, found, user = (columns[name][rows] for name in ("hook_ns", "kernel_ns", "found_ns", "user_ns"))
    timestamped = np.where(kernel != 0, kernel + tai_offset_ns, 0)
    ends = {
        "hook_to_skb": (hook, timestamped),
        "skb_to_user": (timestamped, user),
        "hook_to_ring": (hook, found),
        "ring_to_user": (found, user),
    }
    segments = {name: Measured.between(*ends[name]) for name in SEGMENTS[kind]}
    return kept, Measured.between(hook, user), segments


@dataclass(frozen=True, slots=True)
class FoundAgain:
    """Frames of other traffic that a reader had, by the hook's timestamps.

    Attributes
    ----------
    records : ndarray of int64, shape (6, frames)
        As `PathReader.records` gives them, completed, of the frames that are found again for sure.
    received, lost : int
        Timestamps whose frame was read, and others.
    foreign : int
        Frames read that the hook has no timestamp of.
    ambiguous : int
        Frames read whose digest came more often on one side than on the other: they cannot be assigned.
    """

    records: NDArray[np.int64]
    received: int
    lost: int
    foreign: int
    ambiguous: int


def find_again(records: NDArray[np.int64], timestamps: NDArray[np.void], tai_offset_ns: int) -> FoundAgain:
    """Find the hook's timestamp of each frame that a path's reader had: the n-th of a digest is the n-th of it.

    Parameters
    ----------
    records : ndarray of int64, shape (6, frames)
        Of a reader of other traffic.
    timestamps : ndarray of TIMESTAMP_DTYPE, shape (frames,)
        Of this path, in the order in which they were made.
    tai_offset_ns : int
        CLOCK_TAI less UTC. What is due is not known of other traffic: `intended_ns` becomes the time at the hook.
    """
    read = records[COLUMNS.index("sequence")].view(np.uint64)
    digests, of_both = np.unique(np.concatenate([read, timestamps["digest"]]), return_inverse=True)
    of_read, of_timestamps = of_both[: len(read)], of_both[len(read) :]
    times_read = np.bincount(of_read, minlength=len(digests))
    times_timestamped = np.bincount(of_timestamps, minlength=len(digests))
    sure = times_read == times_timestamped
    # Stable sorting keeps the order of frames with one digest.
    rows = np.argsort(of_read, kind="stable")
    rows = rows[sure[of_read[rows]]]
    those = np.argsort(of_timestamps, kind="stable")
    those = those[sure[of_timestamps[those]]]
    found = records[:, rows]
    hook_ns = timestamps["hook_ns"][those]
    found[COLUMNS.index("hook_ns")] = hook_ns
    found[COLUMNS.index("intended_ns")] = hook_ns - tai_offset_ns
    both = np.minimum(times_read, times_timestamped)
    return FoundAgain(
        found,
        received=int(both.sum()),
        lost=int((times_timestamped - both).sum()),
        foreign=int((times_read - both).sum()),
        ambiguous=int(times_read[~sure & (both > 0)].sum()),
    )


def measure_round_trips(
    answers: NDArray[np.int64], path: Path, settings: Trim
) -> tuple[int, Kept, Measured, dict[str, Measured]]:
    """Return how many answers arrived on a path, which of them count, their round trips, and their segments.

    Parameters
    ----------
    answers : ndarray of int64, shape (6, frames)
        As `AnswerReader.records` gives them, of all paths.
    path : Path
    settings : Trim
    """
    columns = dict(zip(COLUMNS, answers[:, answers[COLUMNS.index("kernel_ns")] == path.number], strict=True))
    order = np.argsort(columns["intended_ns"], kind="stable")
    kept = trim(columns["intended_ns"][order], settings)
    rows = order[kept.as_slice()]
    due, sent, read = (columns[name][rows] for name in ("intended_ns", "found_ns", "user_ns"))
    segments = dict(zip(ROUND_TRIP_SEGMENTS, (Measured.between(due, sent), Measured.between(sent, read)), strict=True))
    return len(order), kept, Measured.between(due, read), segments


def malformed_of(reader: PathReader) -> int:
    """Return how many frames a reader of a ring left out; a socket has no such thing."""
    return int(getattr(reader, "malformed", 0))
