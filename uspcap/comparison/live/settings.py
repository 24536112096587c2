"""Settings of a live comparison."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal

from uspcap.bpf.attach import AttachMode
from uspcap.bpf.path_program import MOST_PATHS
from uspcap.comparison.schedule import Trim
from uspcap.errors import UsageError
from uspcap.probe.endpoints import Endpoint

Kind = Literal["kernel", "packet_mmap", "af_xdp"]
Design = Literal["auto", "frame", "block"]
Wakeup = Literal["block", "poll", "epoll", "spin"]

KINDS: Final[tuple[Kind, ...]] = ("kernel", "packet_mmap", "af_xdp")

DEFAULT_PORT: Final = 7000
DEFAULT_RUNS: Final = 12
DEFAULT_RUN_NS: Final = 1_000_000_000
DEFAULT_TRIM: Final = Trim(warm_up_ns=100_000_000, cool_down_ns=50_000_000)


@dataclass(frozen=True, slots=True)
class Path:
    """One of the paths of a comparison.

    Attributes
    ----------
    name : str
        The kind; with `_2` and so on where the same kind is compared with itself.
    kind : str
        Of `KINDS`.
    number : int
        As the program at the hook has it, from 0.
    """

    name: str
    kind: Kind
    number: int


def paths_of(kinds: Sequence[Kind]) -> tuple[Path, ...]:
    """Number and name paths.

    Raises
    ------
    UsageError
        They are fewer than two, or more than the program at the hook takes, or of no kind.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise UsageError(f"unknown path {unknown[0]!r}: there are {', '.join(KINDS)}")
    if not 2 <= len(kinds) <= MOST_PATHS:
        raise UsageError(f"{len(kinds)} paths cannot be compared: name 2 to {MOST_PATHS} of {', '.join(KINDS)}")
    paths: list[Path] = []
    for number, kind in enumerate(kinds):
        same = sum(path.kind == kind for path in paths)
        paths.append(Path(kind if not same else f"{kind}_{same + 1}", kind, number))
    return tuple(paths)


@dataclass(frozen=True, slots=True)
class ProbeTraffic:
    """Probes that this process sends itself.

    Attributes
    ----------
    target : Endpoint
        IPv4; an address that the compared interface receives for.
    namespace : str or None
        Network namespace to send from, as `ip netns` names it. Without one, a probe to an address of this host would
        go over the loopback and never reach the interface.
    rate : Fraction
        Frames a second.
    kind : str
        `constant` or `poisson`.
    size : int
        Bytes of UDP payload.
    cpu : int or None
        Where the sender runs.
    """

    target: Endpoint
    namespace: str | None = None
    rate: Fraction = Fraction(2_000)
    kind: Literal["constant", "poisson"] = "poisson"
    size: int = 64
    cpu: int | None = None


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """A live comparison.

    Attributes
    ----------
    interface : str
    kinds : tuple of str
        Paths; one may be named two times, to see what differences this host makes up (block design only).
    expression : str
        Filter as of pcap-filter(7), on top of the port; empty for none.
    port : int or None
        UDP destination port; None, for other traffic without the kernel's path, takes every port.
    design : str
        `frame`: all paths at once, each frame on one of them at random. `block`: one path at a time, in runs of random
        order. `auto`: `frame` where each reader has a CPU and one is left.
    wakeup : str
        How readers wait.
    runs : int
        Of each path.
    run_duration_ns : int
    trim : Trim
        Warm-up and cool-down of each run.
    seed : int
        Of the order of runs, of the choice of paths and of the bootstrap; below 2^64.
    cpus : tuple of int
        Where readers run, each on one; empty for the last CPUs of those allowed.
    traffic : ProbeTraffic or None
        Nothing is sent without.
    modes : tuple of AttachMode
        Of the program, in the order of trying.
    other_traffic : bool
        Compare by frames that come anyway, which are found again by a digest, and not by probes.
    take : bool
        `af_xdp` may take other traffic away from whom it is for.
    groups : tuple of str
        Multicast groups that the kernel's path joins for other traffic.
    round_trip : bool
        Paths answer, and what is measured is the round trip of `traffic`.
    delays_ns : mapping of str to int
        By name of path: a busy loop before its reader looks at the clock. A known difference, for tests.
    """

    interface: str
    kinds: tuple[Kind, ...] = KINDS
    expression: str = ""
    port: int | None = DEFAULT_PORT
    design: Design = "auto"
    wakeup: Wakeup = "block"
    runs: int = DEFAULT_RUNS
    run_duration_ns: int = DEFAULT_RUN_NS
    trim: Trim = DEFAULT_TRIM
    seed: int = 1
    cpus: tuple[int, ...] = ()
    traffic: ProbeTraffic | None = None
    modes: tuple[AttachMode, ...] = (AttachMode.NATIVE, AttachMode.SKB)
    other_traffic: bool = False
    take: bool = False
    groups: tuple[str, ...] = ()
    round_trip: bool = False
    delays_ns: Mapping[str, int] = field(default_factory=dict)

    def check(self) -> None:
        """Refuse inconsistent settings.

        Raises
        ------
        UsageError
        """
        paths = paths_of(self.kinds)
        if self.design == "frame" and len(set(self.kinds)) < len(self.kinds):
            raise UsageError("comparing a path with itself needs --design block, as both share one socket")
        if self.runs < 1 or self.run_duration_ns < 1:
            raise UsageError("a comparison needs at least one run of each path, longer than 0")
        if self.trim.warm_up_ns + self.trim.cool_down_ns >= self.run_duration_ns:
            raise UsageError("warm-up and cool-down leave nothing of a run: make --run-duration longer")
        if not (self.port is None or 0 < self.port < 1 << 16) or not 0 <= self.seed < 1 << 64:
            raise UsageError("a port is 1 to 65535, a seed a whole number below 2^64")
        self._check_traffic()
        if set(self.delays_ns) - {path.name for path in paths}:
            raise UsageError(f"delays are for the paths compared: {', '.join(path.name for path in paths)}")

    def _check_traffic(self) -> None:
        if self.other_traffic:
            self._check_other_traffic()
        elif self.port is None or self.take or self.groups:
            raise UsageError("probes are sent to one port; --take and --group are for --other-traffic")
        if self.round_trip and self.traffic is None:
            raise UsageError("a round trip begins and ends at the sender of probes: give their target with --probe")
        if self.round_trip and "packet_mmap" in self.kinds:
            raise UsageError("packet_mmap only receives and cannot answer: compare the round trips of kernel,af_xdp")
        if self.traffic is not None:
            if ":" in self.traffic.target.host:
                raise UsageError(
                    f"cannot send probes to {self.traffic.target}: the hook removes their UDP checksum, which "
                    "IPv6 does not allow; use an IPv4 address"
                )
            if self.traffic.target.port != self.port:
                raise UsageError(
                    f"probes are sent to port {self.traffic.target.port}, but port {self.port} is read: give one port"
                )

    def _check_other_traffic(self) -> None:
        if self.traffic is not None or self.round_trip:
            raise UsageError("probes and round trips are not other traffic: leave --probe and --round-trip out")
        if self.design == "frame":
            raise UsageError(
                "other traffic carries no path number, so that only one path can be on at a time: use --design block"
            )
        if "af_xdp" in self.kinds and not self.take:
            raise UsageError(
                "af_xdp takes frames away from their receivers while it is on: use --take to allow that, or leave "
                "it out with --paths kernel,packet_mmap"
            )
        if "kernel" in self.kinds and self.port is None:
            raise UsageError("the kernel's path ends in a UDP socket: give its --port, or leave it out of --paths")


@dataclass(frozen=True, slots=True)
class Placement:
    """Which CPU each reader runs on, and which design that allows.

    Attributes
    ----------
    design : str
        `frame` or `block`.
    cpus : mapping of str to int
        By name of path.
    reason : str
        Why the design was chosen; empty where it was asked for.
    shared : bool
        Readers that run at the same time share a CPU, or there is no CPU beside the readers'.
    """

    design: Literal["frame", "block"]
    cpus: Mapping[str, int]
    reason: str
    shared: bool


def place(settings: LiveSettings, allowed: Sequence[int] | None = None) -> Placement:
    """Choose CPUs for the readers, and the design where it is left open.

    Parameters
    ----------
    settings : LiveSettings
    allowed : sequence of int, optional
        CPUs that this process may use.

    Raises
    ------
    UsageError
        A CPU that was asked for is not allowed.
    """
    usable = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    paths = paths_of(settings.kinds)
    refused = sorted(set(settings.cpus) - set(usable))
    if refused:
        raise UsageError(f"cannot read on CPU {refused[0]}, which this process may not use; see taskset")
    # The first CPU is left to the sender and to what the kernel does, where there are more.
    chosen = settings.cpus or tuple(reversed(usable[1:] or usable))
    own_cpus = len(set(chosen)) >= len(paths) and len(usable) > len(paths)
    repeated = len(set(settings.kinds)) < len(settings.kinds)
    reason = ""
    design: Literal["frame", "block"]
    if settings.other_traffic:
        design, reason = "block", "other traffic carries no number of a path"
    elif settings.design == "auto":
        design = "frame" if own_cpus and not repeated else "block"
        if repeated:
            reason = "a path is compared with itself"
        elif own_cpus:
            reason = "each reader has a CPU of its own"
        else:
            reason = f"{len(usable)} CPUs are too few for {len(paths)} readers at once and the rest"
    else:
        design = settings.design
    if design == "block":
        return Placement(design, {path.name: chosen[0] for path in paths}, reason, shared=len(usable) < 2)
    cpus = {path.name: chosen[at % len(chosen)] for at, path in enumerate(paths)}
    return Placement(design, cpus, reason, shared=not own_cpus)
