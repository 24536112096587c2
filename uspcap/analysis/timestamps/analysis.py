"""Quality of the timestamps, before anything is made of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.timestamps.loop import (
    RUN_LENGTH_CLASSES,
    SOURCES,
    STEP_DTYPE,
    TIMESTAMP_TRACK_DTYPE,
    track_timestamps,
)
from uspcap.analysis.timestamps.result import ClockStep, RunLengths, SourceQuality, TimestampsResult
from uspcap.frames import NANOSECONDS, UNTRUSTED, FrameBatch, TimestampSource
from uspcap.records import table
from uspcap.saturating import clipped_ns

STEPS_LISTED = 100
"""Backward steps and jumps kept one by one, the first of the capture."""

JUMP_NS = (35 * NANOSECONDS, 38 * NANOSECONDS)
"""Steps of this size, either way, look like TAI taken for UTC: the two have been 35 to 37 s apart since 2012."""

BATCHED_SHARE = 0.05
"""From this share of timestamps equal to the one before, the report warns of batching."""


class Timestamps(Analysis):
    """Resolution, duplicates, backward steps, runs of equal timestamps and TAI-like jumps, by timestamp source."""

    name = "timestamps"

    def __init__(self) -> None:
        super().__init__()
        self._tracks = np.zeros(SOURCES, TIMESTAMP_TRACK_DTYPE)
        self._steps = np.zeros(STEPS_LISTED, STEP_DTYPE)
        self._steps_used = 0
        self._frames = self._untrusted = 0

    def _update(self, batch: FrameBatch) -> None:
        self._frames += batch.count
        self._untrusted += int(np.count_nonzero(batch.timestamp_source >= UNTRUSTED))
        self._steps_used = track_timestamps(batch, self._shift(batch), self._tracks, self._steps, self._steps_used)

    @property
    def _without_timestamp(self) -> int:
        return self._frames - self._untrusted - int(self._tracks["frames"].sum())

    def _merge(self, later: Timestamps) -> None:
        steps = list(self._steps[: self._steps_used].copy())
        for field in ("first_frame", "last_run_frame", "longest_run_frame"):
            later._tracks[field] += self.frames_read
        later._steps["frame"] += self.frames_read
        for source in range(SOURCES):
            if not later._tracks[source]["frames"]:
                continue
            if self._tracks[source]["frames"]:
                steps += _stitch(source, self._tracks[source], later._tracks[source])
            else:
                self._tracks[source] = later._tracks[source]
        steps += list(later._steps[: later._steps_used])
        steps.sort(key=lambda step: int(step["frame"]))
        self._steps_used = min(len(steps), STEPS_LISTED)
        for row, step in enumerate(steps[:STEPS_LISTED]):
            self._steps[row] = step
        self._frames += later._frames
        self._untrusted += later._untrusted

    def result(self) -> TimestampsResult:
        sources = {}
        warnings = []
        for source in range(SOURCES):
            track = self._tracks[source]
            if track["frames"]:
                name = TimestampSource(source).name
                sources[name] = _quality(track)
                warnings += _warnings(name, sources[name])
        if len(sources) > 1:
            warnings.append(
                f"timestamps come from {len(sources)} sources ({', '.join(sources)}); times are never compared "
                f"across them"
            )
        if self._without_timestamp:
            warnings.append(f"{self._without_timestamp} frames have no timestamp and count in no time")
        if self._untrusted:
            warnings.append(f"{self._untrusted} timestamps cannot be trusted and count in no time")
        return TimestampsResult(
            sources=sources,
            frames_without_timestamp=self._without_timestamp,
            untrusted=self._untrusted,
            steps=tuple(
                ClockStep(
                    frame=int(step["frame"]),
                    before_ns=int(step["before_ns"]),
                    after_ns=int(step["after_ns"]),
                    step_ns=int(step["after_ns"]) - int(step["before_ns"]),
                    source=TimestampSource(int(step["source"])).name,
                )
                for step in self._steps[: self._steps_used]
            ),
            warnings=tuple(warnings),
        )

    def tables(self) -> dict[str, Table]:
        result = self.result()
        runs: dict[str, list[Any]] = {"source": [], "run_length_from": [], "run_length_to": [], "runs": []}
        for name, quality in result.sources.items():
            for row in quality.run_lengths:
                runs["source"].append(name)
                runs["run_length_from"].append(row.from_)
                runs["run_length_to"].append(row.to)
                runs["runs"].append(row.runs)
        return {"steps": table(ClockStep, result.steps), "runs": runs}


def _stitch(source: int, track: Any, other: Any) -> list[Any]:
    """Append a later part's track to an earlier one; return the step between them if it is to be listed."""
    before, after = int(track["last_ns"]), int(other["first_ns"])
    step = clipped_ns(after - before)
    jumped = JUMP_NS[0] <= abs(step) <= JUMP_NS[1]
    track["jumps"] += other["jumps"] + np.uint64(jumped)
    track["backward"] += other["backward"] + np.uint64(step < 0)
    largest = max(int(track["backward_largest_ns"]), int(other["backward_largest_ns"]), -step)
    track["backward_largest_ns"] = largest
    track["duplicates"] += other["duplicates"] + np.uint64(step == 0)
    apart = abs(after - int(track["first_ns"]))
    track["divisor"] = math.gcd(int(track["divisor"]), int(other["divisor"]), apart)
    track["lowest_ns"] = min(track["lowest_ns"], other["lowest_ns"])
    track["highest_ns"] = max(track["highest_ns"], other["highest_ns"])
    track["trailing_zeros"] += other["trailing_zeros"]
    track["frames"] += other["frames"]
    track["last_ns"] = other["last_ns"]
    one_run = not other["runs"]
    first_run = other["last_run"] if one_run else other["first_run"]
    if step == 0:
        track["last_run"] += first_run
    else:
        _close_run(track)
        track["last_run"] = first_run
        track["last_run_frame"] = other["first_frame"]
    if not one_run:
        _close_run(track)
        track["runs"] += other["runs"] - np.uint64(1)
        track["run_lengths"] += other["run_lengths"]
        if other["longest_run"] > track["longest_run"]:
            track["longest_run"] = other["longest_run"]
            track["longest_run_frame"] = other["longest_run_frame"]
        track["last_run"] = other["last_run"]
        track["last_run_frame"] = other["last_run_frame"]
    if step < 0 or jumped:
        return [np.array((int(other["first_frame"]), before, after, source), STEP_DTYPE)]
    return []


def _close_run(track: Any) -> None:
    """End the open run of equal timestamps, as the compiled loop does."""
    if track["runs"] == 0:
        track["first_run"] = track["last_run"]
    else:
        track["run_lengths"][int(track["last_run"]).bit_length() - 1] += np.uint64(1)
    if track["last_run"] > track["longest_run"]:
        track["longest_run"] = track["last_run"]
        track["longest_run_frame"] = track["last_run_frame"]
    track["runs"] += np.uint64(1)


def _quality(track: Any) -> SourceQuality:
    """Return the report's form of one source's track."""
    closed = track.copy()
    _close_run(closed)
    run_lengths = closed["run_lengths"].copy()
    if closed["runs"]:
        run_lengths[int(closed["first_run"]).bit_length() - 1] += np.uint64(1)
    frames = int(track["frames"])
    zeros = [int(count) for count in track["trailing_zeros"]]
    finest = next((digit for digit in range(10) if sum(zeros[: digit + 1]) * 1000 > frames), 9)
    return SourceQuality(
        frames=frames,
        first_ns=int(track["first_ns"]),
        last_ns=int(track["last_ns"]),
        earliest_ns=int(track["lowest_ns"]),
        latest_ns=int(track["highest_ns"]),
        observed_resolution_ns=10**finest,
        common_divisor_ns=int(track["divisor"]),
        trailing_zeros=tuple(zeros),
        duplicates=int(track["duplicates"]),
        backward_steps=int(track["backward"]),
        backward_largest_ns=int(track["backward_largest_ns"]),
        tai_like_jumps=int(track["jumps"]),
        runs=int(closed["runs"]),
        longest_run=int(closed["longest_run"]),
        longest_run_frame=int(closed["longest_run_frame"]),
        run_lengths=tuple(
            RunLengths(from_=1 << power, to=(2 << power) - 1, runs=int(run_lengths[power]))
            for power in range(RUN_LENGTH_CLASSES)
            if run_lengths[power]
        ),
    )


def _warnings(name: str, quality: SourceQuality) -> list[str]:
    """Return the warnings about these timestamps that apply to every other analysis."""
    warnings = []
    frames, resolution = quality.frames, quality.observed_resolution_ns
    if frames >= 100 and resolution > 1:
        warnings.append(
            f"{name} timestamps have a resolution of only {resolution} ns; shorter times in this report are not "
            "measured"
        )
    elif frames >= 100 and quality.common_divisor_ns > 1:
        warnings.append(
            f"{name} timestamps all differ by multiples of {quality.common_divisor_ns} ns (quantised clock)"
        )
    if quality.backward_steps:
        warnings.append(
            f"{name} timestamps step backward {quality.backward_steps} times, "
            f"by up to {quality.backward_largest_ns} ns; such steps count in no histogram"
        )
    if frames >= 100 and quality.duplicates > BATCHED_SHARE * frames:
        warnings.append(
            f"{quality.duplicates} of {frames} {name} timestamps equal the previous one "
            f"(runs of up to {quality.longest_run}): frames were timestamped in batches, or by a coarse clock"
        )
    if quality.tai_like_jumps:
        warnings.append(
            f"{name} timestamps jump by 35 to 38 s {quality.tai_like_jumps} times: TAI and UTC may be mixed"
        )
    return warnings
