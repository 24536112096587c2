"""What the order stage does to the timestamps of one input, written down slowly."""

from __future__ import annotations

from dataclasses import dataclass, field

RUN = 16
AHEAD = 2 * RUN
CLOCK_SET_NS = 3652 * 86_400 * 10**9


@dataclass
class Straightened:
    """Places of the frames in their new order, and what was found on the way."""

    order: list[int] = field(default_factory=list)
    untrusted: list[int] = field(default_factory=list)
    outliers: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    late: int = 0
    beyond: int = 0


def straightened(
    times: list[int | None], window_ns: int, most_frames: int, *, clock_is_set: bool = False
) -> Straightened:
    """Return what becomes of frames with these times, None for a frame without a timestamp."""
    found = Straightened()
    now: int | None = None
    last_key = None
    epoch = 0
    keys: list[tuple[int, float, int]] = []
    step_from = step_to = None
    since_step = 0
    for place, time in enumerate(times):
        is_set = clock_is_set or (now is not None and now >= CLOCK_SET_NS)
        later = [t for t in times[place + 1 :] if t is not None and not (is_set and t < CLOCK_SET_NS)][:AHEAD]
        if time is None:
            keys.append((epoch, float("-inf") if last_key is None else last_key, place))
            continue
        verdict = _verdict(time, now, later, window_ns)
        if is_set and time < CLOCK_SET_NS:
            verdict = "outlier"
        if verdict in ("outlier", "undetermined"):
            found.untrusted.append(place)
            if verdict == "outlier":
                found.outliers.append(place)
            keys.append((epoch, float("-inf") if last_key is None else last_key, place))
            continue
        since_step += 1
        if verdict == "step":
            found.steps.append(place)
            step_from, step_to, since_step = now, time, 1
            epoch += 1
            now = time
        elif now is None or time >= now:
            if verdict == "gap" and now is not None and step_from is not None and step_to is not None:
                passed = now - step_to
                if -window_ns <= time - step_from <= window_ns + 2 * passed and passed <= step_from - step_to:
                    found.beyond += since_step - 1
                    found.steps.pop()
                    step_from = None
            now = time
        else:
            found.late += 1
        floor = max(
            (key[1] for key in keys[: max(place - most_frames + 1, 0)] if key[0] == epoch), default=float("-inf")
        )
        if time < floor:
            found.beyond += 1
        last_key = max(time, floor)
        keys.append((epoch, last_key, place))
    found.order = [place for _, _, place in sorted(keys)]
    return found


def _verdict(time: int, now: int | None, later: list[int], window_ns: int) -> str:
    if now is None:
        if time < CLOCK_SET_NS and 2 * sum(t >= CLOCK_SET_NS for t in later) > len(later):
            return "outlier"
        behind = sum(t < time - window_ns for t in later)
        return "undetermined" if behind > len(later) - behind else "trusted"
    if now - window_ns <= time <= now + window_ns:
        return "trusted"
    if time > now:
        back = [at for at, t in enumerate(later, 1) if now - window_ns <= t < time - window_ns]
        off = sum(t >= time - window_ns for t in later)
        return "outlier" if back and back[0] <= RUN and len(back) > off else "gap"
    back = [at for at, t in enumerate(later, 1) if t >= now - window_ns]
    if back and back[0] <= RUN:
        jump = later[back[0] - 1] - (later[back[0] - 2] if back[0] > 1 else time)
        if jump > window_ns and (len(later) < AHEAD or 2 * len(back) > len(later)):
            return "outlier"
    return "undetermined" if not back and len(later) < RUN else "step"
