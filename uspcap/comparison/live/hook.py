"""The program at the hook, its maps, and the switch between paths."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from uspcap.bpf.attach import AttachMode, Refusal, attach_best, link_fault
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.kernel_types import BPF_F_XDP_HAS_FRAGS, MapType
from uspcap.bpf.path_program import (
    COUNTER_BYTES,
    COUNTER_MAP,
    MOST_PATHS,
    RANDOM_MAP,
    SOCKET_MAP,
    SWITCH,
    SWITCH_MAP,
    TIMESTAMP_RING,
    PathCounter,
    Switch,
    build_path_program,
)
from uspcap.bpf.syscalls import LoadedProgram, Map, possible_cpus
from uspcap.capabilities import effective_capabilities
from uspcap.comparison.live.settings import LiveSettings, Path
from uspcap.comparison.live.timestamp_ring import TIMESTAMP_DTYPE, TimestampRing
from uspcap.errors import BpfError

PROGRAM_NAME = "uspcap_paths"

_ONLY_ENTRY = struct.pack("=I", 0)
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class HookCounts:
    """Counts of the frames at the hook, summed over CPUs.

    Attributes
    ----------
    seen, matched, other, off, no_socket, without_timestamp : int
        As `PathCounter` has them.
    sent : tuple of int
        Frames sent to each path, by number.
    """

    seen: int
    matched: int
    other: int
    off: int
    no_socket: int
    without_timestamp: int
    sent: tuple[int, ...]

    def since(self, before: HookCounts) -> HookCounts:
        """Return the counts since `before`."""
        return HookCounts(
            self.seen - before.seen,
            self.matched - before.matched,
            self.other - before.other,
            self.off - before.off,
            self.no_socket - before.no_socket,
            self.without_timestamp - before.without_timestamp,
            tuple(now - then for now, then in zip(self.sent, before.sent, strict=True)),
        )


def seeds_of_cpus(seed: int, cpus: int) -> list[int]:
    """Return a state of splitmix64 for each CPU: the first outputs of the generator that `seed` starts.

    States that follow each other would give the same numbers one step apart; outputs do not.
    """
    states = []
    state = seed
    for _ in range(cpus):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = state
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        states.append(mixed ^ mixed >> 31)
    return states


class PathHook:
    """Sends probes to paths, from `attach` until `close`; off until it is switched on.

    Parameters
    ----------
    settings : LiveSettings
    paths : sequence of Path
    queues : int
        Receive queues of the interface.

    Raises
    ------
    BpfError, PermissionDenied, MissingFeature
        The kernel refused the maps.
    """

    def __init__(self, settings: LiveSettings, paths: Sequence[Path], queues: int) -> None:
        self._settings = settings
        self._paths = paths
        self._queues = queues
        self._queues_changed = ""
        with contextlib.ExitStack() as opened:
            self._sockets = opened.enter_context(Map(MapType.BPF_MAP_TYPE_XSKMAP, name=SOCKET_MAP, max_entries=queues))
            self._switch = opened.enter_context(
                Map(MapType.BPF_MAP_TYPE_ARRAY, name=SWITCH_MAP, max_entries=1, value_size=SWITCH.size)
            )
            self._random = opened.enter_context(
                Map(MapType.BPF_MAP_TYPE_PERCPU_ARRAY, name=RANDOM_MAP, max_entries=1, value_size=8)
            )
            self._counters = opened.enter_context(
                Map(MapType.BPF_MAP_TYPE_PERCPU_ARRAY, name=COUNTER_MAP, max_entries=1, value_size=COUNTER_BYTES)
            )
            self._ring = None
            if settings.other_traffic:
                self._ring = opened.enter_context(closing(TimestampRing(TIMESTAMP_RING)))
            seeds = seeds_of_cpus(settings.seed, possible_cpus())
            self._random.update(_ONLY_ENTRY, struct.pack(f"={len(seeds)}Q", *seeds))
            self._opened = opened.pop_all()
        self.mode: AttachMode | None = None
        self.refusals: list[Refusal] = []

    @property
    def fds(self) -> dict[str, int]:
        """File descriptors by the names under which the program refers to the maps."""
        ring = {} if self._ring is None else {TIMESTAMP_RING: self._ring.fd}
        return ring | {
            SOCKET_MAP: self._sockets.fd,
            SWITCH_MAP: self._switch.fd,
            RANDOM_MAP: self._random.fd,
            COUNTER_MAP: self._counters.fd,
        }

    def set_socket(self, queue: int, fd: int) -> None:
        """Let probes for AF_XDP on a receive queue go to a bound socket."""
        self._sockets.update(struct.pack("=I", queue), struct.pack("=I", fd))

    def remove_socket(self, queue: int) -> None:
        """Let probes for AF_XDP on a receive queue be dropped, and counted as without a socket."""
        with contextlib.suppress(BpfError):  # the kernel removes a closed socket automatically
            self._sockets.delete(struct.pack("=I", queue))

    def attach(self, link_type: int, modes: Sequence[AttachMode]) -> AttachMode:
        """Load and attach the program.

        Raises
        ------
        HookOccupied, FilterError, PermissionDenied, BpfError
            As `attach_best` does.
        """
        settings = self._settings
        expression = settings.expression.strip()
        program = build_path_program(
            compile_filter(expression, link_type) if expression else None,
            port=settings.port,
            paths=len(self._paths),
            redirected=[path.number for path in self._paths if path.kind == "af_xdp"],
            probes=not settings.other_traffic,
            direct_indirect_loads=not effective_capabilities().isdisjoint(("CAP_PERFMON", "CAP_SYS_ADMIN")),
        )
        best = attach_best(
            settings.interface,
            modes,
            lambda ifindex, mode: LoadedProgram.load(
                program.link(self.fds), name=PROGRAM_NAME, flags=BPF_F_XDP_HAS_FRAGS
            ),
        )
        self._opened.callback(best.program.close)
        self._opened.callback(best.link.close)
        self._link = best.link
        self._program_id = int(best.program.info().id)
        self.mode = best.mode
        self.refusals = best.refusals
        return best.mode

    def fault(self, programs: Collection[int]) -> str:
        """Return the reason why further measurements would be wrong, as a sentence; empty while there is none.

        Parameters
        ----------
        programs : collection of int
            Ids of the programs that the interface has.
        """
        return self._queues_changed or link_fault(self._link, self._settings.interface, (self._program_id,), programs)

    def frames_seen(self) -> int:
        """Return how many frames reached the program."""
        return self.counts().seen

    def follow_queues(self, queues: int) -> str:
        """Take note that the interface has so many receive queues now; return that in a sentence."""
        name = self._settings.interface
        said = f"{name} has {queues} receive queues now, and {self._queues} when it began"
        if any(path.kind == "af_xdp" for path in self._paths):
            self._queues_changed = f"{said}, so that AF_XDP does not receive all of its frames"
        return said

    def detach(self) -> None:
        """Take the program off the interface, if it is there."""
        if self.mode is not None:
            with contextlib.suppress(BpfError):
                self._link.detach()
            self._link.close()
            self.mode = None

    def send_to(self, paths: Sequence[Path]) -> None:
        """Send probes to one path from now on, or to all of them at random; to none where there are none."""
        if not paths:
            value = SWITCH.pack(Switch.OFF, 0)
        elif len(paths) == 1:
            value = SWITCH.pack(Switch.ONE, paths[0].number)
        else:
            assert [path.number for path in paths] == list(range(len(paths)))
            value = SWITCH.pack(Switch.RANDOM, len(paths))
        self._switch.update(_ONLY_ENTRY, value)

    def take_timestamps(self) -> NDArray[np.void]:
        """Return the timestamps of other traffic since the last call: an array of `TIMESTAMP_DTYPE`."""
        return np.empty(0, TIMESTAMP_DTYPE) if self._ring is None else self._ring.take()

    def counts(self) -> HookCounts:
        """Return the program's counts so far."""
        values = self._counters.lookup(_ONLY_ENTRY)
        layout = struct.Struct(f"={COUNTER_BYTES // 8}Q")
        rows = [layout.unpack_from(values, cpu * COUNTER_BYTES) for cpu in range(possible_cpus())]
        sums = [sum(column) for column in zip(*rows, strict=True)]
        first = len(PathCounter)
        return HookCounts(
            sums[PathCounter.SEEN],
            sums[PathCounter.MATCHED],
            sums[PathCounter.OTHER],
            sums[PathCounter.OFF],
            sums[PathCounter.NO_SOCKET],
            sums[PathCounter.WITHOUT_TIMESTAMP],
            tuple(sums[first : first + MOST_PATHS]),
        )

    def close(self) -> None:
        """Detach and give everything back; may be called again."""
        self.detach()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
