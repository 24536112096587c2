"""Flows: one direction of one conversation, as dense ids that analyses index their state by.

The table is bounded. Beyond `maximum` flows it tracks a sample, chosen by the hash of the key: at level L
those whose hash has its top L bits zero, so that each level halves the sample. What is tracked depends
only on the set of flows (and on nothing else, such as order), and a tracked flow is known from its first
frame on. The law of analyses therefore holds exactly, bound or no bound.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uspcap.frames import FrameBatch, TimestampSource
from uspcap.protocols.flow_index import FlowIndex
from uspcap.protocols.headers import ETHERTYPE_NAMES, PROTOCOL_NAMES

MAXIMUM_FLOWS = 1 << 17
"""Default bound of a table: 131,072 flows."""


@dataclass(frozen=True, slots=True)
class Flow:
    """One flow's key in plain values.

    Attributes
    ----------
    source, destination : str
        IP addresses, or MAC addresses where there is no IP.
    source_port, destination_port : int
        0 where the protocol has none, and for fragments after the first.
    protocol : str
        Name of the IP protocol, or of the EtherType where there is no IP.
    ip_version : int
        4, 6 or 0.
    timestamp_source : TimestampSource
        Who timestamped these frames; timestamps of two sources make two flows.
    tap : int
        Where it was seen, as `uspcap.stages.taps` numbers it; 0 where there is one tap only.
    """

    source: str
    destination: str
    source_port: int
    destination_port: int
    protocol: str
    ip_version: int
    timestamp_source: TimestampSource
    tap: int = 0

    def __str__(self) -> str:
        if not self.source_port and not self.destination_port:
            return f"{self.protocol} {self.source} > {self.destination}{at_tap(self.tap)}"
        bracket = "[{}]:{}" if self.ip_version == 6 else "{}:{}"
        source = bracket.format(self.source, self.source_port)
        destination = bracket.format(self.destination, self.destination_port)
        return f"{self.protocol} {source} > {destination}{at_tap(self.tap)}"


def at_tap(tap: int) -> str:
    """Return what a flow, a stream or a connection has behind its name: the first interface of its tap."""
    return f" @{tap - 1}" if tap else ""


class FlowTable:
    """A bounded set of flows, shared by the analyses of one run.

    Parameters
    ----------
    maximum : int
        Flows tracked at most after each batch.

    Notes
    -----
    Ids change when the table raises its level. `generation` then goes up by one and `remap_since` shows
    an analysis where its rows went.
    """

    def __init__(self, maximum: int = MAXIMUM_FLOWS) -> None:
        if maximum < 1:
            raise ValueError("a flow table holds at least one flow")
        self.maximum = maximum
        self._index = FlowIndex()
        self._remaps: list[NDArray[np.int32]] = []
        self._absorbed: FlowTable | None = None
        self._absorbed_ids: NDArray[np.int32] = np.empty(0, np.int32)
        self._assigned: tuple[FrameBatch, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: not the batch at hand, nor another table."""
        return {**self.__dict__, "_absorbed": None, "_absorbed_ids": np.empty(0, np.int32), "_assigned": None}

    def __len__(self) -> int:
        return self._index.count

    @property
    def level(self) -> int:
        """How often the sample was halved; 0 while every flow is tracked."""
        return self._index.level

    @property
    def generation(self) -> int:
        """How often ids have changed."""
        return len(self._remaps)

    @property
    def estimated_flows(self) -> int:
        """Flows seen: exact at level 0, else the tracked ones times two to the level."""
        return len(self) << self.level

    def assign(self, batch: FrameBatch) -> None:
        """Fill the batch's `flow` column, once a fill however many analyses ask."""
        if self._assigned == (batch, batch.fill) and batch.flow_table is self:
            return
        headers = batch.headers
        self._index.assign(batch, headers)
        batch.flow_table = self
        self._assigned = (batch, batch.fill)
        self._keep_bound()

    def raise_level(self) -> None:
        """Halve the sample."""
        remap = self._index.raise_level(self.level + 1)
        self._remaps.append(remap)
        if self._assigned is not None and self._assigned[0].flow_table is self:
            self._index.remap_column(self._assigned[0].headers, remap)
        if self._absorbed is not None:
            self._absorbed_ids = through(self._absorbed_ids, remap)

    def _keep_bound(self) -> None:
        while len(self) > self.maximum:
            self.raise_level()

    def remap_since(self, generation: int, count: int) -> NDArray[np.int32]:
        """Return where the first `count` ids of an older generation are now, -1 for untracked.

        Returns
        -------
        ndarray of int32, shape (count,)
        """
        ids = np.arange(count, dtype=np.int32)
        for remap in self._remaps[generation:]:
            ids = through(ids, remap)
        return ids

    def absorb(self, later: FlowTable) -> NDArray[np.int32]:
        """Take in the flows of a later part; return the id here of each of its ids, -1 for untracked.

        Analyses that share two tables each call it: the first call does it, the others get the same answer.

        Returns
        -------
        ndarray of int32, shape (len(later),)
        """
        if self._absorbed is not later:
            while self.level < later.level:
                self.raise_level()
            self._absorbed = later
            self._absorbed_ids = self._index.absorb(later._index)
            self._keep_bound()
        return self._absorbed_ids

    def forget_absorbed(self) -> None:
        """Let go of the part last absorbed, once every analysis has merged."""
        self._absorbed = None

    def keys(self) -> NDArray[Any]:
        """Return the keys by id: ndarray of `KEY_DTYPE`, shape (len(self),)."""
        return self._index.key_array()

    def hashes(self) -> NDArray[np.uint64]:
        """Return the hashes by id: ndarray of uint64, shape (len(self),)."""
        return self._index.hash_array()

    def flows(self, ids: NDArray[Any]) -> list[Flow]:
        """Return plain values for some ids."""
        return [flow_of(key) for key in self.keys()[ids]]


def through(ids: NDArray[np.int32], remap: NDArray[np.int32]) -> NDArray[np.int32]:
    """Follow ids through one remap; -1 stays -1."""
    if not len(remap):
        return ids
    return np.where(ids >= 0, remap[np.maximum(ids, 0)], np.int32(-1)).astype(np.int32, copy=False)


def flow_of(key: Any) -> Flow:
    """Return the plain values of a key, a row of `KEY_DTYPE`."""
    version = int(key["ip_version"])
    source, destination = bytes(key["source"]), bytes(key["destination"])
    protocol = int(key["protocol"])
    ethertype = int(key["ethertype"])
    if version:
        address = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
        first = 12 if version == 4 else 0
        ends = str(address(source[first:])), str(address(destination[first:]))
        name = PROTOCOL_NAMES.get(protocol, f"ip-{protocol}")
    else:
        ends = source[10:].hex(":"), destination[10:].hex(":")
        name = ETHERTYPE_NAMES.get(ethertype, f"0x{ethertype:04x}") if ethertype else "no-ip"
    return Flow(
        *ends,
        int(key["source_port"]),
        int(key["destination_port"]),
        name,
        version,
        TimestampSource(int(key["timestamp_source"])),
        int(key["tap"]),
    )


class FlowRows:
    """One row of state a flow, kept in step with a table.

    Parameters
    ----------
    table : FlowTable
    dtype : numpy dtype
        All of whose rows start as zeros.
    """

    def __init__(self, table: FlowTable, dtype: np.dtype[Any]) -> None:
        self._table = table
        self._generation = table.generation
        self._rows = np.zeros(64, dtype)
        self._used = 0

    def sync(self) -> NDArray[np.int32] | None:
        """Follow the table: drop and move rows whose ids changed, make room for new ids.

        Returns
        -------
        ndarray of int32 or None
            Where each of the old rows went, -1 for nowhere; None where nothing moved.
        """
        remap = None
        if self._generation != self._table.generation:
            remap = self._table.remap_since(self._generation, self._used)
            moved = np.zeros_like(self._rows)
            kept = remap >= 0
            moved[remap[kept]] = self._rows[: self._used][kept]
            self._rows = moved
            self._generation = self._table.generation
        count = len(self._table)
        if count > len(self._rows):
            grown = np.zeros(max(count, 2 * len(self._rows)), self._rows.dtype)
            grown[: len(self._rows)] = self._rows
            self._rows = grown
        self._used = count
        return remap

    @property
    def rows(self) -> NDArray[Any]:
        """The rows of all flows: ndarray of the dtype, shape (len(table),), a view."""
        return self._rows[: self._used]

    @property
    def with_spare_rows(self) -> NDArray[Any]:
        """The same rows and spare ones, for the compiled loops."""
        return self._rows
