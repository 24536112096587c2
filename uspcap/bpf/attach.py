"""Load the capture program and attach it to an interface, in the best way that this interface allows.

Tried in this order:

1. DEVICE_BOUND: at the driver's hook, bound to the device, which alone may ask it for hardware timestamps;
2. NATIVE: at the driver's hook;
3. SKB: generic XDP, after the driver made a socket buffer; it works everywhere.

Attached is by an unpinned bpf_link: when the process ends, however it ends, the kernel detaches. Where
another program is attached, nothing is changed and the error names it.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import struct
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from uspcap.bpf.attach_refusals import attach_reason
from uspcap.bpf.btf import kernel_function_ids
from uspcap.bpf.kernel_types import (
    BPF_F_XDP_DEV_BOUND_ONLY,
    BPF_F_XDP_HAS_FRAGS,
    XDP_FLAGS_DRV_MODE,
    XDP_FLAGS_SKB_MODE,
    MapType,
)
from uspcap.bpf.ring_buffer import RingBuffer
from uspcap.bpf.syscalls import Link, LoadedProgram, Map
from uspcap.bpf.xdp_program import (
    COUNTER_BYTES,
    COUNTER_MAP,
    FILLING_MAP,
    RX_TIMESTAMP_FUNCTION,
    SOCKET_MAP,
    Counter,
    build_capture_program,
)
from uspcap.capabilities import effective_capabilities
from uspcap.errors import BpfError, HookOccupied, MissingFeature, PermissionDenied
from uspcap.network.links import find_link, link_at
from uspcap.network.netlink import Rtnetlink

PROGRAM_NAME: Final = "uspcap_capture"

ClassicInstructions = Sequence[tuple[int, int, int, int]]
"""code, jt, jf, k of each instruction of a filter."""


class AttachMode(Enum):
    """How a program is attached, best first."""

    DEVICE_BOUND = "native, bound to the device"
    NATIVE = "native"
    SKB = "skb"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A mode that could not be had, and why."""

    mode: AttachMode
    reason: str


@dataclass(frozen=True, slots=True)
class ForeignProgram:
    """An XDP program that is attached to an interface.

    Attributes
    ----------
    program_id : int
        As `bpftool prog show id` takes it.
    name : str
        Empty where this process may not ask.
    """

    program_id: int
    name: str


class CaptureMaps:
    """The maps that the capture program and user space share.

    They outlive programs, so that one program can be replaced by another and counts go on.

    Attributes
    ----------
    queue_count : int
        Receive queues, each with a place for a socket and with counters of its own.
    notice_every : int
        See `build_capture_program`.
    filling : RingBuffer or None
        Where notices come, None without.
    """

    def __init__(self, queue_count: int, notice_every: int = 0) -> None:
        """Create the maps.

        Raises
        ------
        BpfError, PermissionDenied, MissingFeature
            The kernel refused.
        """
        if queue_count < 1:
            raise ValueError(f"an interface has at least one receive queue, not {queue_count}")
        self.queue_count = queue_count
        # Before anything is made: without it no counter can be read, and frames would be taken anyway.
        self._sockets = Map(MapType.BPF_MAP_TYPE_XSKMAP, name=SOCKET_MAP, max_entries=queue_count)
        try:
            self._counters = Map(
                MapType.BPF_MAP_TYPE_PERCPU_ARRAY,
                name=COUNTER_MAP,
                max_entries=queue_count + 1,
                value_size=COUNTER_BYTES,
            )
        except BaseException:
            self._sockets.close()
            raise
        self.notice_every = notice_every
        self.filling: RingBuffer | None = None
        if notice_every:
            try:
                self.filling = RingBuffer(FILLING_MAP, mmap.PAGESIZE)
            except BaseException:
                self.close()
                raise

    @property
    def fds(self) -> dict[str, int]:
        """File descriptors by the names under which the program refers to them."""
        fds = {SOCKET_MAP: self._sockets.fd, COUNTER_MAP: self._counters.fd}
        return fds if self.filling is None else {**fds, FILLING_MAP: self.filling.fd}

    def set_socket(self, queue: int, socket_fd: int) -> None:
        """Let the frames of a receive queue go to a bound AF_XDP socket."""
        self._sockets.update(struct.pack("=I", queue), struct.pack("=I", socket_fd))

    def remove_socket(self, queue: int) -> None:
        """Let the frames of a receive queue go to the kernel again."""
        self._sockets.delete(struct.pack("=I", queue))

    def read_counters(self) -> list[dict[Counter, int]]:
        """Return the counts so far, summed over CPUs.

        Returns
        -------
        list of dict of Counter to int
            `queue_count + 1` items: one a receive queue, the last one for all queues beyond.
        """
        return [{counter: int(counts[counter]) for counter in Counter} for counts in self._summed()]

    def frames_seen(self) -> int:
        """Return how many frames came to the hook."""
        return int(self._summed()[:, Counter.SEEN].sum())

    def _summed(self) -> NDArray[np.uint64]:
        """Return the counts of each queue, summed over CPUs: an array of shape (queues + 1, counters)."""
        words = np.frombuffer(self._counters.lookup_all(), np.uint64)
        summed: NDArray[np.uint64] = words.reshape(self.queue_count + 1, -1, COUNTER_BYTES // 8).sum(axis=1)
        return summed

    def close(self) -> None:
        """Close the maps; a program that is still attached keeps its own hold on them."""
        self._sockets.close()
        self._counters.close()
        if self.filling is not None:
            self.filling.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(slots=True)
class Attachment:
    """The capture program at work on an interface, until `close`.

    Attributes
    ----------
    interface : str
    ifindex : int
    mode : AttachMode
        What was obtained.
    refusals : list of Refusal
        The better modes that were not to be had, and why.
    maps : CaptureMaps
        Not closed with the attachment.
    metadata : bool
        Frames carry the metadata area, where there is room for it.
    """

    interface: str
    ifindex: int
    mode: AttachMode
    refusals: list[Refusal]
    maps: CaptureMaps
    metadata: bool
    _link: Link
    _program: LoadedProgram = field(repr=False)
    _load_again: Callable[[], LoadedProgram] = field(repr=False)
    _spare: LoadedProgram | None = field(default=None, init=False, repr=False)
    _own_ids: set[int] = field(default_factory=set, init=False, repr=False)

    def __post_init__(self) -> None:
        self._own_ids.add(self.program_id)

    @property
    def program_id(self) -> int:
        """Id of the attached program, as bpftool shows it."""
        return int(self._program.info().id)

    @property
    def attached(self) -> bool:
        """False once closed, or once the interface went away and the kernel detached."""
        return not self._link.closed and self._link.info().ifindex == self.ifindex

    def fault(self, programs: Collection[int]) -> str:
        """Return what has happened to the program, as a sentence; empty while it is in its place.

        Parameters
        ----------
        programs : collection of int
            Ids of the programs that the interface has.
        """
        return link_fault(self._link, self.interface, self._own_ids, programs)

    def prepare_for_changes(self) -> None:
        """Load what `renew` needs now, as privileges may be given up before."""
        if self._spare is None:
            self._spare = self._load_again()

    def renew(self) -> None:
        """Put the program in its own place: veth, for one, gives receive queues that were added none before that.

        The kernel does nothing where it is the same one, so that there are two, alike, which take turns.
        """
        spare, self._spare = self._spare or self._load_again(), None
        self._own_ids.add(int(spare.info().id))
        try:
            self._link.replace(spare)
        except BaseException:
            spare.close()
            raise
        self._program, self._spare = spare, self._program

    def close(self) -> None:
        """Detach; frames go to the kernel again. May be called again, and after the interface is gone."""
        if not self._link.closed:
            with contextlib.suppress(BpfError):
                self._link.detach()
        self._link.close()
        self._program.close()
        if self._spare is not None:
            self._spare.close()
            self._spare = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def link_fault(link: Link, interface: str, own: Collection[int], programs: Collection[int]) -> str:
    """Return what has happened to an attached program, as a sentence; empty while it is in its place.

    Parameters
    ----------
    link : Link
    interface : str
    own : collection of int
        Ids of the programs that may be attached.
    programs : collection of int
        Ids of those that the interface has.
    """
    try:
        info = link.info()
    except PermissionDenied:
        return ""  # older kernels tell only who has CAP_BPF, which may have been given up
    if not info.ifindex:
        return (
            f"the XDP program was detached from {interface} from outside, as 'bpftool link detach' does, and its "
            "frames have gone to the kernel since"
        )
    others = [program for program in (int(info.prog_id), *programs) if program not in own]
    if int(info.prog_id) not in own or (programs and not any(program in own for program in programs)):
        return (
            f"the XDP program on {interface} was replaced from outside by the one with id {others[0]}, which has its "
            "frames since"
        )
    return ""


def attach_capture(
    interface: str,
    filter_program: Iterable[tuple[int, int, int, int]] | None,
    maps: CaptureMaps,
    *,
    modes: Sequence[AttachMode] = tuple(AttachMode),
    metadata: bool = True,
    cookie: int = 0,
) -> Attachment:
    """Attach the capture program to an interface of the current network namespace.

    Parameters
    ----------
    interface : str
        Name, as `ip link` shows it.
    filter_program : iterable of (code, jt, jf, k), optional
        Classic BPF for the interface's link type; None takes every frame from the kernel.
    maps : CaptureMaps
        Sockets set in there get frames from the first moment on.
    modes : sequence of AttachMode
        Which to try, in this order.
    metadata : bool
        Put timestamps before each frame; without, DEVICE_BOUND has no use and is left out.
    cookie : int
        As in `build_capture_program`.

    Raises
    ------
    HookOccupied
        Another's program is attached.
    FilterError
        The filter cannot run at the XDP hook.
    PermissionDenied
        A capability is missing.
    BpfError
        There is no such interface, or no mode is to be had; the message gives each reason.
    """
    instructions = None if filter_program is None else tuple(filter_program)

    def load(ifindex: int, mode: AttachMode) -> LoadedProgram:
        return load_capture_program(interface, ifindex, mode, instructions, maps, metadata, cookie)

    best = attach_best(interface, [mode for mode in modes if metadata or mode is not AttachMode.DEVICE_BOUND], load)
    return Attachment(
        interface,
        best.ifindex,
        best.mode,
        best.refusals,
        maps,
        metadata,
        best.link,
        best.program,
        lambda: load(best.ifindex, best.mode),
    )


@dataclass(frozen=True, slots=True)
class BestAttachment:
    """A program attached in the best mode that was to be had.

    Attributes
    ----------
    ifindex : int
    mode : AttachMode
    refusals : list of Refusal
        The better modes, and why they were not to be had.
    link : Link
    program : LoadedProgram
    """

    ifindex: int
    mode: AttachMode
    refusals: list[Refusal]
    link: Link
    program: LoadedProgram


def attach_best(
    interface: str, modes: Sequence[AttachMode], load: Callable[[int, AttachMode], LoadedProgram]
) -> BestAttachment:
    """Load and attach a program in the first mode that works.

    Parameters
    ----------
    interface : str
        Of the current network namespace.
    modes : sequence of AttachMode
        Which to try, in this order.
    load : callable
        Given the interface's index and a mode, returns the program for it.

    Raises
    ------
    HookOccupied, FilterError, PermissionDenied, BpfError
        As `attach_capture` does.
    """
    with Rtnetlink() as netlink:
        found = find_link(netlink, interface)
    if found is None:
        raise BpfError(f"there is no interface {interface}: 'ip link' lists those there are", errno.ENODEV)
    ifindex = found.index
    _refuse_if_occupied(interface, ifindex)
    refusals: list[Refusal] = []
    for mode in modes:
        try:
            program = load(ifindex, mode)
        except PermissionDenied:
            raise
        except (BpfError, MissingFeature) as error:
            refusals.append(Refusal(mode, str(error)))
            continue
        try:
            flags = XDP_FLAGS_SKB_MODE if mode is AttachMode.SKB else XDP_FLAGS_DRV_MODE
            link = Link.attach_xdp(program, ifindex, flags)
        except BpfError as error:
            if isinstance(error, PermissionDenied):
                program.close()
                raise
            reason = attach_reason(error, interface, ifindex, program, flags)
            program.close()
            if error.errno in (errno.EBUSY, errno.EEXIST):
                _refuse_if_occupied(interface, ifindex)
            refusals.append(Refusal(mode, reason))
            continue
        except BaseException:
            program.close()
            raise
        return BestAttachment(ifindex, mode, refusals, link, program)
    reasons = "; ".join(f"{refusal.mode.value}: {refusal.reason}" for refusal in refusals)
    raise BpfError(f"cannot attach to interface {interface} in any mode ({reasons}): use the packet_mmap backend")


def find_attached(ifindex: int) -> ForeignProgram | None:
    """Return the XDP program that an interface has, in whatever mode; None where it has none.

    Raises
    ------
    OSError
        There is no such interface, or the kernel cannot be asked.
    """
    with Rtnetlink() as netlink:
        link = link_at(netlink, ifindex)
    if link is None:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    if not link.programs:
        return None
    return ForeignProgram(link.programs[0], _program_name(link.programs[0]))


def _program_name(program_id: int) -> str:
    """Return a program's name; empty where it has none, is gone, or only root may ask."""
    try:
        with LoadedProgram.by_id(program_id) as program:
            return bytes(program.info().name).decode("ascii", "replace")
    except BpfError:
        return ""


def _refuse_if_occupied(interface: str, ifindex: int) -> None:
    try:
        attached = find_attached(ifindex)
    except OSError:
        return  # attaching reports why
    if attached is not None:
        name = f" named '{attached.name}'" if attached.name else ""
        raise HookOccupied(
            f"interface {interface} has the XDP program with id {attached.program_id}{name} attached, which "
            "uspcap does not replace: stop its owner, or use the packet_mmap backend",
            errno.EBUSY,
        )


def load_capture_program(
    interface: str,
    ifindex: int,
    mode: AttachMode,
    filter_program: ClassicInstructions | None,
    maps: CaptureMaps,
    metadata: bool,
    cookie: int = 0,
) -> LoadedProgram:
    """Load the capture program for one mode of attaching it, without attaching it.

    Parameters
    ----------
    interface : str
        For messages.
    ifindex : int
        Used where the program is bound to the device.
    mode : AttachMode
    filter_program : sequence of (code, jt, jf, k), optional
        As `attach_capture` takes it.
    maps : CaptureMaps
    metadata : bool
    cookie : int
        As in `build_capture_program`.

    Raises
    ------
    FilterError, BpfError, PermissionDenied, MissingFeature
        The kernel refused, or has nothing that timestamps.
    """
    bound = mode is AttachMode.DEVICE_BOUND
    hardware_timestamps = bound and metadata
    program = build_capture_program(
        filter_program,
        queue_count=maps.queue_count,
        metadata=metadata,
        hardware_timestamps=hardware_timestamps,
        cookie=cookie,
        notice_every=maps.notice_every,
        direct_indirect_loads=not effective_capabilities().isdisjoint(("CAP_PERFMON", "CAP_SYS_ADMIN")),
    )
    functions: dict[str, int] = {}
    if hardware_timestamps:
        functions = kernel_function_ids([RX_TIMESTAMP_FUNCTION])
        if not functions:
            raise MissingFeature(f"this kernel has no {RX_TIMESTAMP_FUNCTION}, which needs Linux 6.3")
    try:
        return LoadedProgram.load(
            program.link(maps.fds, functions),
            name=PROGRAM_NAME,
            flags=BPF_F_XDP_HAS_FRAGS | (BPF_F_XDP_DEV_BOUND_ONLY if bound else 0),
            ifindex=ifindex if bound else 0,
        )
    except BpfError as error:
        if bound and error.errno == errno.EOPNOTSUPP:
            raise BpfError(f"the driver of {interface} offers no frame metadata to XDP programs", error.errno) from None
        raise
