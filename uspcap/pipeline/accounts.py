"""The way of a capture's frames, stage after stage, each with what it lost and why.

    NIC ──► XDP ──► socket ──► reader ──► writer

From the hook on (or, without one, the socket) these are counts of the same frames, so at each stage

    received = passed + dropped (by cause) + left (went elsewhere, by cause) + unaccounted

holds by whole numbers, `passed` is what the next stage received, and `unaccounted` is 0 unless somebody miscounts. The
NIC's counters are of the interface: of every frame, whatever the filter, from the opening of the source to its stop.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from uspcap.backends.base import SourceStatistics
    from uspcap.pipeline.session import Accounts

StageName = Literal["nic", "xdp", "socket", "reader", "writer", "analyses"]

_TITLES: dict[StageName, str] = {"nic": "NIC", "xdp": "XDP"}


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage on the way.

    Attributes
    ----------
    name : StageName
    received : int or None
        Frames that came here; None where nobody counts them.
    passed : int or None
        Frames that went on to the next stage; None for the NIC, which does not know a filter.
    dropped : dict of str to int
        Frames lost here, by cause.
    left : dict of str to int
        Frames that went elsewhere or nowhere, as they were to, by cause.
    counters : dict of str to int
        Of the NIC: what else its interface counted, which may be among the frames of later stages.
    """

    name: StageName
    received: int | None
    passed: int | None
    dropped: dict[str, int] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int | None:
        """Frames that came and are nowhere; None where that cannot be known."""
        if self.received is None or self.passed is None:
            return None
        return self.received - self.passed - sum(self.dropped.values()) - sum(self.left.values())

    def __str__(self) -> str:
        said = []
        if self.name == "nic":
            said.append("the whole interface")
        if self.dropped:
            said.append(f"dropped: {_listed(self.dropped)}")
        if self.left:
            said.append(_listed(self.left))
        if self.counters:
            said.append(f"also counted there: {_listed(self.counters)}")
        if self.unaccounted:
            said.append(f"{self.unaccounted:,} not accounted for")
        received = "?" if self.received is None else f"{self.received:,}"
        return f"{_TITLES.get(self.name, self.name)} {received}" + (f" ({'; '.join(said)})" if said else "")


def stages(accounts: Accounts) -> tuple[Stage, ...]:
    """Return the stages of a capture in the order in which frames pass them; of several interfaces, their sums."""
    statistics = accounts.statistics
    return (
        *_stages_of_source(statistics),
        Stage(
            "analyses" if accounts.written is None else "writer",
            statistics.delivered,
            accounts.kept if accounts.written is None else accounts.written,
            accounts.lost_in_writer,
            _without_zeros({"after the limit": accounts.after_limit}),
        ),
    )


def _stages_of_source(statistics: SourceStatistics) -> tuple[Stage, ...]:
    """Return the stages from the NIC to the reader."""
    found = []
    of_interface = statistics.interface_counts is not None
    if statistics.interface_counts is not None:
        found.append(_nic(statistics.interface_counts, statistics.nic_dropped))
    here = statistics.received
    if statistics.seen is not None:
        lost = statistics.dropped_at.get("xdp", {})
        other = {"not matching, passed to the kernel": statistics.seen - here}
        here -= sum(lost.values())
        found.append(Stage("xdp", statistics.seen, here, lost, _without_zeros(other)))
    if of_interface:
        lost = statistics.dropped_at.get("socket", {})
        found.append(Stage("socket", here, here - sum(lost.values()), lost))
        here -= sum(lost.values())
        lost = statistics.dropped_at.get("reader", {})
    else:
        lost = statistics.dropped
    other = {"not matching the filter": statistics.filtered, "still in the ring": statistics.waiting}
    found.append(Stage("reader", here, statistics.delivered, lost, _without_zeros(other)))
    return tuple(found)


def stage_lines(accounts: Accounts) -> list[str]:
    """Return the stages in one line, and what came of them; of several interfaces, a line each to where they meet."""
    *_, last = found = stages(accounts)
    outcome = f"{last.passed:,} {'analyzed' if last.name == 'analyses' else 'written'}"
    each = accounts.statistics.by_interface
    if not each:
        return [" → ".join([_on_the_way(found, accounts.statistics), outcome])]
    lines = [f"{name}: {_on_the_way(_stages_of_source(counts), counts)}" for name, counts in each.items()]
    return [*lines, f"all interfaces: {last} → {outcome}"]


def _on_the_way(found: tuple[Stage, ...], statistics: SourceStatistics) -> str:
    said = [*map(str, found)]
    if found[0].received is None and statistics.seen:
        said[0] += " (none of its counters includes the frames that XDP takes)"
    return " → ".join(said)


def as_dict(accounts: Accounts) -> dict[str, Any]:
    """Return the report's `source.accounts`."""
    return {
        "received": accounts.statistics.received,
        "kept": accounts.kept,
        "written": accounts.written,
        "dropped": accounts.statistics.dropped_total + sum(accounts.lost_in_writer.values()),
        "unaccounted": accounts.unaccounted,
        "cut": accounts.statistics.cut,
        "remarks": accounts.statistics.remarks,
        "longest_unread_ns": accounts.statistics.longest_unread_ns,
        "stages": _as_dicts(stages(accounts)),
        "interfaces": {
            name: {
                "received": statistics.received,
                "delivered": statistics.delivered,
                "dropped": statistics.dropped_total,
                "unaccounted": statistics.unaccounted,
                "cut": statistics.cut,
                "remarks": statistics.remarks,
                "longest_unread_ns": statistics.longest_unread_ns,
                "stages": _as_dicts(_stages_of_source(statistics)),
            }
            for name, statistics in accounts.statistics.by_interface.items()
        },
    }


def _as_dicts(found: tuple[Stage, ...]) -> list[dict[str, Any]]:
    return [{**asdict(stage), "unaccounted": stage.unaccounted} for stage in found]


def _nic(counts: dict[str, int], dropped: dict[str, int]) -> Stage:
    others = {name: count for name, count in counts.items() if name not in dropped}
    return Stage("nic", others.pop("rx_packets", None), None, dropped, counters=others)


def _without_zeros(counts: dict[str, int]) -> dict[str, int]:
    return {what: count for what, count in counts.items() if count}


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count:,}" for what, count in counts.items())
