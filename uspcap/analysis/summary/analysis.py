"""Content of the capture: the figures of capinfos, rates, protocols and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np

from uspcap.analysis.base import Analysis, Table
from uspcap.analysis.summary.mirror_copies import Copies
from uspcap.analysis.summary.result import InterfaceTraffic, ProtocolTraffic, SizeTraffic, SummaryResult
from uspcap.analysis.tally import PROTOCOL_CLASSES, SIZE_CLASSES, tally_frames
from uspcap.frames import NANOSECONDS, FrameBatch, Interface, TimestampSource
from uspcap.protocols.headers import ETHERTYPE_NAMES, PROTOCOL_NAMES, Layer
from uspcap.protocols.link_types import DECODED_LINK_TYPES, link_type_name
from uspcap.records import table
from uspcap.report.format import exact_duration, plural
from uspcap.stages.order import CLOCK_SET_NS

SIZE_NAMES = ("<64", "64", "65-127", "128-255", "256-511", "512-1023", "1024-1518", ">1518")
"""Classes of the wire length as captured, after RFC 2819's etherStatsPkts64Octets and its siblings."""

COPIES_NAMED: Final = 20
COPIES_SHARE: Final = 0.05
"""Copies of packets, and the part of those compared that they are, from which on they are named."""

FEW_COPIES: Final = 3
ALL_COPIED: Final = 0.4
"""The same where nearly every packet has a copy, as few packets show, too."""

FEWEST_TIMESTAMPS: Final = 100
"""Of fewer timestamps it is not said what they are multiples of."""

_NEVER = (np.iinfo(np.int64).max, np.iinfo(np.int64).min)


class Summary(Analysis):
    """Counts, bytes, times and rates; tables by protocol, frame size, interface and layer."""

    name = "summary"

    def __init__(self) -> None:
        super().__init__()
        self._by_protocol = np.zeros((PROTOCOL_CLASSES, 2), np.uint64)
        self._by_size = np.zeros((SIZE_CLASSES, 2), np.uint64)
        self._by_layer = np.zeros(32, np.uint64)
        self._by_interface = np.zeros((16, 3), np.uint64)
        self._by_source = np.zeros(8, np.uint64)
        self._extremes = np.array([*_NEVER, *_NEVER, 0, 0, 0, NANOSECONDS, 0, 0], np.int64)
        self._interfaces: tuple[Interface, ...] = ()
        self._bytes_captured = 0
        self._copies = Copies()
        self._unidentified_copies = Copies(identified=False)

    def _update(self, batch: FrameBatch) -> None:
        self._know(batch.interfaces)
        if not batch.count:
            return
        for copies in (self._copies, self._unidentified_copies):
            copies.update(batch, batch.headers, self._shift(batch))
        self._bytes_captured += tally_frames(
            batch,
            batch.headers,
            self._by_protocol,
            self._by_size,
            self._by_layer,
            self._by_interface,
            self._by_source,
            self._extremes,
        )

    def _know(self, interfaces: Sequence[Interface]) -> None:
        """Make room for the interfaces of a batch, which are those known so far and perhaps more."""
        if len(interfaces) > len(self._interfaces):
            self._interfaces = tuple(interfaces)
        if len(interfaces) > len(self._by_interface):
            grown = np.zeros((2 * len(interfaces), 3), np.uint64)
            grown[: len(self._by_interface)] = self._by_interface
            self._by_interface = grown

    def _merge(self, later: Summary) -> None:
        self._copies.absorb(later._copies, self.frames_read)
        self._unidentified_copies.absorb(later._unidentified_copies, self.frames_read)
        self._merge_interfaces(later)
        self._by_protocol += later._by_protocol
        self._by_size += later._by_size
        self._by_layer += later._by_layer
        self._by_source += later._by_source
        mine, others = self._extremes, later._extremes
        lower, higher = np.minimum(mine, others), np.maximum(mine, others)
        first, last = (mine if mine[4] else others)[5], (others if others[4] else mine)[6]
        forward_ns = int(mine[9]) + int(others[9])
        if mine[4] and others[4]:
            forward_ns += max(int(others[5]) - int(mine[6]), 0)
        self._extremes = np.array(
            [
                *(lower[0], higher[1], lower[2], higher[3], mine[4] + others[4], first, last, lower[7]),
                *(mine[8] + others[8], min(forward_ns, _NEVER[0])),
            ],
            np.int64,
        )
        self._bytes_captured += later._bytes_captured

    @property
    def _ends(self) -> tuple[int, int] | tuple[None, None]:
        """The first and the last timestamp in the order of the frames."""
        timestamped, first, last = (int(value) for value in self._extremes[4:7])
        return (first, last) if timestamped else (None, None)

    def _merge_interfaces(self, later: Summary) -> None:
        """Add the counts of equal interfaces; where a part has several equal ones, the n-th to the n-th."""
        places = {key: place for place, key in enumerate(_keys(self._interfaces))}
        mine = list(self._interfaces)
        targets = []
        for key in _keys(later._interfaces):
            if key not in places:
                places[key] = len(mine)
                mine.append(key[0])
            targets.append(places[key])
        self._know(mine)
        self._by_interface[targets] += later._by_interface[: len(targets)]

    @property
    def frames(self) -> int:
        """Frames counted."""
        return int(self._by_size[:, 0].sum())

    @property
    def facts(self) -> dict[str, Any]:
        """The report's facts about its source: counts, bytes, times, interfaces."""
        return {
            "packets": self.frames,
            "bytes_on_wire": int(self._by_size[:, 1].sum()),
            "bytes_captured": self._bytes_captured,
            "first_timestamp_ns": self._ends[0],
            "last_timestamp_ns": self._ends[1],
            "earliest_timestamp_ns": int(self._extremes[0]) if self._extremes[4] else None,
            "latest_timestamp_ns": int(self._extremes[1]) if self._extremes[4] else None,
            "timestamped_packets": int(self._extremes[4]),
            "timestamped_bytes_on_wire": int(self._extremes[8]),
            "forward_ns": int(self._extremes[9]) if self._extremes[4] else None,
            "link_types": sorted({link_type_name(interface.link_type) for interface in self._interfaces}),
            "interfaces": [one.as_dict() for one in self._interface_results()],
            "timestamp_sources": {
                TimestampSource(source).name: int(count) for source, count in enumerate(self._by_source) if count
            },
            "mirror_copies": self._mirror_copies(),
        }

    @property
    def notes(self) -> list[str]:
        """Notes on the source, whichever analyses run: sentences without a full stop."""
        return [*self._undecoded(), *self._coarse_clock(), *self._clock_set_meanwhile(), *self._mixed_resolutions()]

    def _undecoded(self) -> Iterator[str]:
        frames: Counter[int] = Counter()
        for interface, counts in zip(self._interfaces, self._by_interface, strict=False):
            frames[interface.link_type] += int(counts[0])
        for link_type, number in sorted(frames.items()):
            if number and link_type not in DECODED_LINK_TYPES:
                yield (
                    f"link type {link_type_name(link_type)} is not decoded: its {plural(number, 'frame')} count in "
                    "totals, sizes and times, but in no stream or connection"
                )

    def _coarse_clock(self) -> Iterator[str]:
        """Report the common divisor of all timestamps, where the files have a finer resolution."""
        timestamped, multiple_ns = int(self._extremes[4]), int(self._extremes[7])
        ticks = [interface.ticks_per_second for interface in self._interfaces if interface.ticks_per_second]
        finest_ns = -(-NANOSECONDS // max(ticks)) if ticks else 1
        if timestamped >= FEWEST_TIMESTAMPS and multiple_ns > finest_ns:
            yield (
                f"all timestamps are multiples of {exact_duration(multiple_ns)}, though the files can hold "
                f"{exact_duration(finest_ns)}: shorter times, and the bursts and gaps that depend on them, were not "
                "measured"
            )

    def _clock_set_meanwhile(self) -> Iterator[str]:
        """Report a span from before any clock is set, as none of the timestamps was found to be an outlier."""
        earliest, latest = (int(timestamp) for timestamp in self._extremes[:2])
        if int(self._extremes[4]) and earliest < CLOCK_SET_NS <= latest:
            yield (
                "timestamps begin before 1980, and end after: those of a clock that was not set count in times, spans "
                "and rates, which are wrong"
            )

    def _mixed_resolutions(self) -> Iterator[str]:
        """Report interfaces whose timestamps have different resolutions: a time between two has the coarser."""
        ticks = {
            interface.ticks_per_second
            for interface, counts in zip(self._interfaces, self._by_interface, strict=False)
            if interface.ticks_per_second and counts[0]
        }
        if len(ticks) > 1:
            coarsest, finest = (exact_duration(max(1, -(-NANOSECONDS // one))) for one in (min(ticks), max(ticks)))
            if coarsest != finest:
                yield (
                    f"timestamps of some interfaces or files have a resolution of {coarsest}, those of others of "
                    f"{finest}: times between the two are no finer than {coarsest}, nor is their order known within it"
                )

    def _mirror_copies(self) -> dict[str, Any] | None:
        """Return the figures of mirror copies, None where they are few; of packets without an identification last."""
        return _figures(self._copies) or _figures(self._unidentified_copies)

    def _interface_results(self) -> tuple[InterfaceTraffic, ...]:
        return tuple(
            InterfaceTraffic(
                name=interface.name,
                description=interface.description,
                link_type=link_type_name(interface.link_type),
                snaplen=interface.snaplen,
                ticks_per_second=interface.ticks_per_second,
                packets=int(counts[0]),
                bytes_on_wire=int(counts[1]),
                cut=int(counts[2]),
            )
            for interface, counts in zip(self._interfaces, self._by_interface, strict=False)
        )

    def result(self) -> SummaryResult:
        frames, bytes_on_wire = self.frames, int(self._by_size[:, 1].sum())
        timestamped = int(self._extremes[4])
        earliest, latest = (int(timestamp) for timestamp in self._extremes[:2])
        duration_ns = latest - earliest if timestamped else None
        timestamped_bytes = int(self._extremes[8])
        return SummaryResult(
            packets=frames,
            bytes_on_wire=bytes_on_wire,
            bytes_captured=self._bytes_captured,
            cut_packets=int(self._by_interface[:, 2].sum()),
            first_timestamp_ns=self._ends[0],
            last_timestamp_ns=self._ends[1],
            earliest_timestamp_ns=earliest if timestamped else None,
            latest_timestamp_ns=latest if timestamped else None,
            duration_ns=duration_ns,
            packets_per_second=round(timestamped * NANOSECONDS / duration_ns, 3) if duration_ns else None,
            bits_per_second=round(timestamped_bytes * 8 * NANOSECONDS / duration_ns, 3) if duration_ns else None,
            shortest_packet_bytes=int(self._extremes[2]) if frames else None,
            longest_packet_bytes=int(self._extremes[3]) if frames else None,
            mean_packet_bytes=round(bytes_on_wire / frames, 3) if frames else None,
            protocols=tuple(
                ProtocolTraffic(protocol=protocol_class_name(kind), packets=int(count), bytes_on_wire=int(size))
                for kind, (count, size) in self._protocols()
            ),
            sizes=tuple(
                SizeTraffic(bytes=name, packets=int(count), bytes_on_wire=int(size))
                for name, (count, size) in zip(SIZE_NAMES, self._by_size, strict=True)
            ),
            layers={
                str(layer.name).lower(): int(self._by_layer[layer.bit_length() - 1])
                for layer in Layer
                if self._by_layer[layer.bit_length() - 1]
            },
            interfaces=self._interface_results(),
        )

    def _protocols(self) -> list[tuple[int, Any]]:
        """Return the protocol classes met and their counts, most bytes first."""
        kinds = np.flatnonzero(self._by_protocol[:, 0])
        rows = self._by_protocol[kinds]
        order = np.lexsort((kinds, -rows[:, 1].astype(np.int64)))
        return [(int(kinds[at]), rows[at]) for at in order]

    def tables(self) -> dict[str, Table]:
        result = self.result()
        return {"protocols": table(ProtocolTraffic, result.protocols), "sizes": table(SizeTraffic, result.sizes)}


def _figures(copies: Copies) -> dict[str, Any] | None:
    """Return the figures of mirror copies of one kind, None where they are few."""
    enough = copies.copies >= COPIES_NAMED and copies.copies >= COPIES_SHARE * copies.compared
    if not enough and not FEW_COPIES <= copies.copies >= ALL_COPIED * copies.compared:
        return None
    return {
        "compared": copies.compared,
        "copies": copies.copies,
        "identified": copies.identified,
        "most_within_ns": copies.within_ns(0.9),
        "ttl_changed": copies.ttl_changed,
        "vlan_changed": copies.vlan_changed,
    }


def _keys(interfaces: Sequence[Interface]) -> list[tuple[Interface, int]]:
    """Return each interface with how many equal ones stand before it."""
    met: Counter[Interface] = Counter()
    keys = []
    for interface in interfaces:
        keys.append((interface, met[interface]))
        met[interface] += 1
    return keys


def protocol_class_name(kind: int) -> str:
    """Return the name of a protocol class as the compiled tallies number them."""
    if kind < 512:
        version, protocol = (4, kind) if kind < 256 else (6, kind - 256)
        return f"IPv{version}/{PROTOCOL_NAMES.get(protocol, protocol)}"
    ethertype = kind - 512
    return ETHERTYPE_NAMES.get(ethertype, f"0x{ethertype:04x}") if ethertype else "other"
