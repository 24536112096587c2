"""From what a user asks for to the source that gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from uspcap.backends.base import DEFAULT_SNAPLEN, HAND_OVER_NS, LiveSource
from uspcap.errors import UsageError
from uspcap.frames import NANOSECONDS
from uspcap.network.links import named_link
from uspcap.timestamps import Timestamps

if TYPE_CHECKING:
    from uspcap.backends.af_xdp import BestXdp
    from uspcap.backends.packet_mmap import Direction, Fanout
    from uspcap.backends.rings import RingSource

BACKENDS: Final = ("auto", "packet_mmap", "af_xdp", "replay")

LONGEST_LATENCY_NS: Final = 10 * NANOSECONDS
"""Of what a user may ask for."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be captured, and how; defaults are None where they depend on the backend.

    Attributes
    ----------
    interfaces : sequence of str
    files : sequence of str
        To be replayed.
    expression : str
    backend : str
        Of `BACKENDS`; `auto` replays files where there are some, takes AF_XDP where frames may be taken away from
        the kernel (`take_all`), and else PACKET_MMAP, which takes nothing away.
    snaplen : int
    promiscuous : bool
    direction : {'in', 'out', 'inout'} or None
    buffer_bytes : int or None
    fanout : {'cpu', 'hash', 'qm'} or None
    rings : int
    timestamps : Timestamps
    busy_poll_us : int or None
        Drive the driver's queues from the reader; AF_XDP only.
    best_xdp : {'zero-copy', 'copy', 'skb'} or None
        AF_XDP only, as the next.
    link_reset : bool
    announce : callable
        As in `AfXdpSource`.
    take_all : bool
        AF_XDP may take every frame of an interface that is in use.
    merge_window_ns : int or None
        Give frames of several rings in the order of their stamps; 0 gives them as they come.
    latency_ns : int or None
        How long frames may wait for others before they are read, so that the reader is woken for many at a time;
        None takes the backend's default.
    hand_over_ns : int
        How long frames that were read may wait for others before they are given.
    speed : float
    loops : int
    """

    interfaces: Sequence[str] = ()
    files: Sequence[str] = ()
    expression: str = ""
    backend: str = "auto"
    snaplen: int = DEFAULT_SNAPLEN
    promiscuous: bool = True
    direction: Direction | None = None
    buffer_bytes: int | None = None
    fanout: Fanout | None = None
    rings: int = 1
    timestamps: Timestamps = "auto"
    busy_poll_us: int | None = None
    best_xdp: BestXdp | None = None
    link_reset: bool = True
    announce: Callable[[str], None] = field(default=lambda line: None, repr=False)
    take_all: bool = False
    merge_window_ns: int | None = None
    latency_ns: int | None = None
    hand_over_ns: int = HAND_OVER_NS
    speed: float = 1.0
    loops: int = 1


def open_source(request: Request) -> LiveSource:
    """Return the source that a request asks for.

    Raises
    ------
    UsageError
        The request contradicts itself.
    UspcapError
        The source cannot be had.
    """
    if request.interfaces and request.files:
        raise UsageError("frames come from an interface (-i) or from files (-r), not from both")
    if not request.interfaces and not request.files:
        raise UsageError("name the interface to capture on with -i, or a file to replay with -r")
    if request.files and request.backend not in ("auto", "replay"):
        raise UsageError(f"files (-r) are replayed, which the backend {request.backend} cannot do")
    if request.files and request.timestamps != "auto":
        raise UsageError(f"frames of files keep the stamps that they have: leave --timestamps {request.timestamps} out")
    if request.files and request.best_xdp is not None:
        raise UsageError("a file goes through no driver: leave --xdp out")
    if request.files and request.busy_poll_us is not None:
        raise UsageError("a file has no driver's queue to poll: leave --busy-poll out")
    if request.files and request.latency_ns is not None:
        raise UsageError("frames of files wait on no ring: leave --latency-target out")
    if request.latency_ns is not None and request.latency_ns > LONGEST_LATENCY_NS:
        raise UsageError(f"--latency-target is {LONGEST_LATENCY_NS // NANOSECONDS} s at most")
    if request.latency_ns is not None and request.busy_poll_us is not None:
        raise UsageError("with --busy-poll the reader never waits: leave --latency-target out")
    if request.files:
        from uspcap.backends.replay import ReplaySource

        return ReplaySource(request.files, request.expression, speed=request.speed, loops=request.loops)
    if len(request.interfaces) > 1:
        return _open_several(request)
    source = _open_rings(request, request.interfaces[0])
    window_ns = source.lag_ns if request.merge_window_ns is None else request.merge_window_ns
    if source.most_rings == 1 or not window_ns:
        return source
    from uspcap.backends.merging import MergedSource

    return MergedSource(source, window_ns)


def _open_several(request: Request) -> LiveSource:
    """Return the source for a request that names several interfaces, which share the memory that is asked for."""
    from uspcap.backends.several import SeveralSources

    names = [named_link(name).name for name in request.interfaces]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} was named twice with -i: name each interface once")
    if request.buffer_bytes is not None:
        request = replace(request, buffer_bytes=request.buffer_bytes // len(names))
    with ExitStack() as opened:
        sources = [opened.enter_context(_open_rings(request, name)) for name in names]
        window_ns = sources[0].lag_ns if request.merge_window_ns is None else request.merge_window_ns
        several = SeveralSources(sources, window_ns)
        opened.pop_all()
    return several


def _open_rings(request: Request, interface: str) -> RingSource:
    """Return the source for one interface of a request."""
    if request.backend == "replay":
        raise UsageError("a replay needs a capture file: name it with -r")
    if request.backend == "af_xdp" or (request.backend == "auto" and request.take_all):
        if request.direction not in (None, "in"):
            raise UsageError("AF_XDP sees received frames only: leave -Q out, or use the packet_mmap backend")
        if request.fanout is not None:
            raise UsageError("AF_XDP has a ring for each receive queue: leave --fanout out, or use packet_mmap")
        from uspcap.backends.af_xdp import AfXdpSource

        return AfXdpSource(
            interface,
            request.expression,
            snaplen=request.snaplen,
            promiscuous=request.promiscuous,
            buffer_bytes=request.buffer_bytes,
            take_all=request.take_all,
            timestamps=request.timestamps,
            busy_poll_us=request.busy_poll_us,
            best=request.best_xdp or "zero-copy",
            link_reset=request.link_reset,
            announce=request.announce,
            latency_ns=request.latency_ns,
            hand_over_ns=request.hand_over_ns,
        )
    if request.best_xdp is not None:
        raise UsageError("only AF_XDP has modes to choose from: leave --xdp out, or use --backend af_xdp")
    if request.busy_poll_us is not None:
        raise UsageError(
            "PACKET_MMAP hands over whole blocks and has no driver's queue to poll: leave --busy-poll out, or use "
            "--backend af_xdp"
        )
    from uspcap.backends.packet_mmap import DEFAULT_BUFFER_BYTES, PacketMmapSource

    return PacketMmapSource(
        interface,
        request.expression,
        snaplen=request.snaplen,
        promiscuous=request.promiscuous,
        direction=request.direction or "inout",
        buffer_bytes=request.buffer_bytes or DEFAULT_BUFFER_BYTES,
        fanout=request.fanout,
        rings=request.rings,
        timestamps=request.timestamps,
        latency_ns=request.latency_ns,
        hand_over_ns=request.hand_over_ns,
    )
