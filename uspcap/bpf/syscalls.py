"""The bpf(2) system call: maps, programs, links, test runs.

Every object holds one file descriptor. The kernel makes them close-on-exec; a caller that forks without
exec closes them in the child, since who holds a program's descriptor can attach it without a capability.
"""

from __future__ import annotations

import ctypes
import errno as errno_module
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from uspcap.bpf.kernel_types import (
    BPF_F_TEST_XDP_LIVE_FRAMES,
    BPF_LOG_LEVEL1,
    BPF_LOG_STATS,
    BPF_PROG_TYPE_XDP,
    BPF_XDP,
    NAME_LENGTH,
    XDP_PACKET_HEADROOM,
    Attributes,
    Command,
    GetId,
    GetInfo,
    LinkCreate,
    LinkDetach,
    LinkInfo,
    LinkUpdate,
    MapBatch,
    MapCreate,
    MapElement,
    MapType,
    ProgLoad,
    ProgramInfo,
    TestRun,
    XdpContext,
)
from uspcap.capabilities import XDP_PROGRAM_NEEDS, af_xdp_needs, explain_missing
from uspcap.errors import BpfError, FilterError, MissingFeature, PermissionDenied
from uspcap.system_errors import limit_remedy, reason, remedy

_SYSCALL_NUMBERS: Final = {
    "x86_64": 321,
    "aarch64": 280,
    "riscv64": 280,
    "loongarch64": 280,
    "ppc64le": 361,
    "ppc64": 361,
    "s390x": 351,
}
"""__NR_bpf of each machine's asm/unistd.h."""

LICENSE: Final = "Dual MIT/GPL"
"""Among the licences of include/linux/license.h that the kernel takes as GPL compatible."""

LOG_BYTES: Final = 1 << 20
LOG_LINES_IN_ERROR: Final = 6


@dataclass(frozen=True, slots=True)
class RunResult:
    """What BPF_PROG_TEST_RUN gave back.

    Attributes
    ----------
    verdict : int
        Return value of the program, for XDP an `XdpAction`.
    duration_ns : int
        Mean time of one run, as the kernel measured it.
    data : bytes
        The frame afterwards, with metadata before it.
    metadata_length : int
        Bytes of `data` that lie before the frame.
    """

    verdict: int
    duration_ns: int
    data: bytes
    metadata_length: int


_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _bpf(command: Command, attributes: Attributes) -> int:
    """Call bpf(2).

    Returns
    -------
    int
        0 or a file descriptor, or the negative error number.
    """
    machine = platform.machine()
    if machine not in _SYSCALL_NUMBERS:
        raise MissingFeature(f"the number of the bpf system call is not known for {machine}: use packet_mmap")
    while True:
        result: int = _libc.syscall(
            ctypes.c_long(_SYSCALL_NUMBERS[machine]),
            ctypes.c_int(command),
            ctypes.byref(attributes),
            ctypes.c_uint(ctypes.sizeof(attributes)),
        )
        if result >= 0:
            return result
        number = ctypes.get_errno()
        # BPF_PROG_LOAD gives EAGAIN when a signal came in between, and is to be called again.
        if number != errno_module.EAGAIN or command is not Command.BPF_PROG_LOAD:
            return -number


def _checked(command: Command, attributes: Attributes, what: str, needed: Sequence[str] = ()) -> int:
    """Call bpf(2) and turn a failure into an error of ours, which begins with `what`."""
    result = _bpf(command, attributes)
    if result < 0:
        raise call_error(command, -result, what, needed)
    return result


def call_error(command: Command, number: int, what: str, needed: Sequence[str] = ()) -> BpfError | MissingFeature:
    """Return the error for a refused call: one sentence, with the capability that is missing."""
    if number == errno_module.EPERM:
        return PermissionDenied(f"{what}: {_explain(needed)}", number)
    if number == errno_module.ENOSYS:
        return MissingFeature(f"{what}: this kernel has no bpf system call, use the packet_mmap backend")
    limit = limit_remedy(number, "")
    return BpfError(f"{what}: {command.name} says {os.strerror(number)}{limit and f'; {limit}'}", number)


def _explain(needed: Sequence[str]) -> str:
    """Return what is missing for a call, and, where it is one of a capture's, for what comes after it."""
    return explain_missing(needed) if needed else explain_missing(XDP_PROGRAM_NEEDS, af_xdp_needs())


def _name(name: str) -> bytes:
    """Return a name as the kernel takes it: at most 15 letters, digits, `_` and `.`."""
    return name.encode("ascii")[: NAME_LENGTH - 1]


def _address(buffer: ctypes.Array[ctypes.c_char] | None) -> int:
    return 0 if buffer is None else ctypes.addressof(buffer)


class BpfObject:
    """Something of the kernel's behind one file descriptor, closed with the object."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @property
    def fd(self) -> int:
        """The file descriptor.

        Raises
        ------
        ValueError
            The object is closed.
        """
        if self._fd < 0:
            raise ValueError(f"this {type(self).__name__} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Give the descriptor back; the kernel frees what nothing else refers to. May be called again."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class Map(BpfObject):
    """A map.

    Attributes
    ----------
    map_type : MapType
    key_size, value_size : int
        Bytes; those of one CPU's value in a per-CPU map.
    max_entries : int
    name : str
    """

    def __init__(
        self,
        map_type: MapType,
        *,
        name: str,
        max_entries: int,
        key_size: int = 4,
        value_size: int = 4,
        flags: int = 0,
    ) -> None:
        """Create a map: BPF_MAP_CREATE.

        Raises
        ------
        BpfError, PermissionDenied, MissingFeature
            The kernel refused.
        """
        super().__init__(-1)
        self.map_type = map_type
        self.key_size = key_size
        self.value_size = value_size
        self.max_entries = max_entries
        self.name = name
        self._batched = True
        attributes = MapCreate(
            map_type=map_type,
            key_size=key_size,
            value_size=value_size,
            max_entries=max_entries,
            map_flags=flags,
            map_name=_name(name),
        )
        self._fd = _checked(Command.BPF_MAP_CREATE, attributes, f"cannot create the BPF map {name}")

    def update(self, key: bytes, value: bytes) -> None:
        """Set one entry; `value` holds all CPUs' values, each padded to 8 bytes, in a per-CPU map."""
        self._check_size("value", value, self._value_bytes())
        self._element(Command.BPF_MAP_UPDATE_ELEM, key, ctypes.create_string_buffer(value, len(value)))

    def lookup(self, key: bytes) -> bytes:
        """Return one entry's value, all CPUs' values in a per-CPU map."""
        buffer = ctypes.create_string_buffer(self._value_bytes())
        self._element(Command.BPF_MAP_LOOKUP_ELEM, key, buffer)
        return buffer.raw

    def lookup_all(self) -> bytes:
        """Return the values of all entries of an array, in one call where the kernel can (Linux 5.13)."""
        size = self._value_bytes()
        if self._batched:
            values = ctypes.create_string_buffer(size * self.max_entries)
            keys = ctypes.create_string_buffer(self.key_size * self.max_entries)
            after = ctypes.create_string_buffer(self.key_size)
            attributes = MapBatch(
                out_batch=_address(after),
                keys=_address(keys),
                values=_address(values),
                count=self.max_entries,
                map_fd=self.fd,
            )
            result = _bpf(Command.BPF_MAP_LOOKUP_BATCH, attributes)
            # ENOENT: there are no more than these.
            if result in (0, -errno_module.ENOENT) and attributes.count == self.max_entries:
                return values.raw
            self._batched = False
        return b"".join(self.lookup(number.to_bytes(4, sys.byteorder)) for number in range(self.max_entries))

    def delete(self, key: bytes) -> None:
        """Remove one entry; array maps refuse that."""
        self._element(Command.BPF_MAP_DELETE_ELEM, key, None)

    def _element(self, command: Command, key: bytes, value: ctypes.Array[ctypes.c_char] | None) -> None:
        self._check_size("key", key, self.key_size)
        key_buffer = ctypes.create_string_buffer(key, len(key))
        attributes = MapElement(map_fd=self.fd, key=_address(key_buffer), value=_address(value))
        _checked(command, attributes, f"cannot access key {key.hex()} of the BPF map {self.name}")

    def _value_bytes(self) -> int:
        if self.map_type is not MapType.BPF_MAP_TYPE_PERCPU_ARRAY:
            return self.value_size
        return (self.value_size + 7) // 8 * 8 * possible_cpus()

    def _check_size(self, what: str, given: bytes, wanted: int) -> None:
        if len(given) != wanted:
            raise ValueError(f"a {what} of the BPF map {self.name} has {wanted} bytes, not {len(given)}")


class LoadedProgram(BpfObject):
    """A program that the verifier accepted."""

    @classmethod
    def load(
        cls,
        instructions: bytes,
        *,
        name: str,
        flags: int = 0,
        ifindex: int = 0,
        expected_attach_type: int = BPF_XDP,
        program_type: int = BPF_PROG_TYPE_XDP,
    ) -> Self:
        """Load a program: BPF_PROG_LOAD.

        A refused program is offered again with a verbose log, whose last lines go into the error.

        Parameters
        ----------
        instructions : bytes
            Of `Program.link`; a multiple of eight.
        flags : int
            BPF_F_XDP_HAS_FRAGS, BPF_F_XDP_DEV_BOUND_ONLY.
        ifindex : int
            Interface that a device-bound program is for, else 0.

        Raises
        ------
        FilterError
            The program is more than the verifier examines.
        BpfError, PermissionDenied, MissingFeature
            The kernel refused for another reason.
        """
        code = ctypes.create_string_buffer(instructions, len(instructions))
        licence = ctypes.create_string_buffer(LICENSE.encode("ascii"))
        attributes = ProgLoad(
            prog_type=program_type,
            insn_cnt=len(instructions) // 8,
            insns=_address(code),
            license=_address(licence),
            prog_flags=flags,
            prog_name=_name(name),
            prog_ifindex=ifindex,
            expected_attach_type=expected_attach_type,
        )
        result = _bpf(Command.BPF_PROG_LOAD, attributes)
        if result >= 0:
            return cls(result)
        number = -result
        what = f"cannot load the BPF program {name} of {len(instructions) // 8} instructions"
        if number in (errno_module.EPERM, errno_module.ENOSYS):
            raise call_error(Command.BPF_PROG_LOAD, number, what)
        # A full log of a program that is too complex is long and says no more than its statistics.
        log_buffer = ctypes.create_string_buffer(LOG_BYTES)
        attributes.log_level = BPF_LOG_STATS if number == errno_module.E2BIG else BPF_LOG_LEVEL1 | BPF_LOG_STATS
        attributes.log_size = LOG_BYTES
        attributes.log_buf = _address(log_buffer)
        retried = _bpf(Command.BPF_PROG_LOAD, attributes)
        if retried >= 0:
            return cls(retried)
        log = log_buffer.value.decode("ascii", "replace")
        if number == errno_module.E2BIG or "is too complex" in log:
            raise FilterError(
                f"{what}: the filter is more complex than the kernel's verifier examines; make it "
                "simpler, or filter when analysing and capture with a wider filter"
            )
        last_lines = " | ".join(log.strip().splitlines()[-LOG_LINES_IN_ERROR:])
        said = f"; the verifier says: {last_lines}" if last_lines else ""
        raise BpfError(f"{what}: {os.strerror(number)}{said}", number, log)

    @classmethod
    def by_id(cls, program_id: int) -> Self:
        """Open a program that is loaded already: BPF_PROG_GET_FD_BY_ID, which needs CAP_SYS_ADMIN."""
        return cls(
            _checked(
                Command.BPF_PROG_GET_FD_BY_ID,
                GetId(id=program_id),
                f"cannot open the BPF program with id {program_id}",
                ("CAP_SYS_ADMIN",),
            )
        )

    def info(self) -> ProgramInfo:
        """Return what the kernel knows about the program: BPF_OBJ_GET_INFO_BY_FD."""
        information = ProgramInfo()
        _get_info(self.fd, information)
        return information

    def test_run(
        self,
        data: bytes,
        *,
        repeat: int = 1,
        context: XdpContext | None = None,
    ) -> RunResult:
        """Run the program on a frame that no interface sees: BPF_PROG_TEST_RUN.

        Parameters
        ----------
        data : bytes
            At least 14 bytes.
        repeat : int
            Number of runs, for `RunResult.duration_ns`.
        context : XdpContext, optional
            Where metadata and data begin and end, and the receive queue. New kernels take a `data_end`
            before the end of `data` and make fragments of the rest. By default all is linear, as far as
            a page goes; without any context, Linux 6.18 makes all of it fragments.

        Raises
        ------
        BpfError, PermissionDenied
            The kernel refused; EINVAL for frames under 14 bytes and for device-bound programs.
        """
        data_in = ctypes.create_string_buffer(data, len(data))
        data_out = ctypes.create_string_buffer(len(data) + XDP_PACKET_HEADROOM)
        if context is None:
            context = XdpContext(data_end=len(data))
        context_out = XdpContext()
        attributes = TestRun(
            prog_fd=self.fd,
            data_size_in=len(data),
            data_size_out=len(data_out),
            data_in=_address(data_in),
            data_out=_address(data_out),
            repeat=repeat,
            ctx_size_in=ctypes.sizeof(context),
            ctx_size_out=ctypes.sizeof(context_out),
            ctx_in=ctypes.addressof(context),
            ctx_out=ctypes.addressof(context_out),
        )
        _checked(Command.BPF_PROG_TEST_RUN, attributes, f"cannot test-run a BPF program on {len(data)} bytes")
        return RunResult(
            attributes.retval,
            attributes.duration,
            data_out.raw[: attributes.data_size_out],
            context_out.data - context_out.data_meta,
        )

    def send_live_frames(self, data: bytes, *, repeat: int, ifindex: int = 0, batch_size: int = 64) -> None:
        """Run the program on copies of a frame and do what it returns: BPF_F_TEST_XDP_LIVE_FRAMES.

        XDP_TX and XDP_REDIRECT send the copies, XDP_PASS gives them to the stack of `ifindex`.

        Parameters
        ----------
        ifindex : int
            Interface that the frames seem to come from; 0 is the loopback.
        batch_size : int
            Frames handed on at once, at most 256.
        """
        data_in = ctypes.create_string_buffer(data, len(data))
        context = XdpContext(data=0, data_end=len(data), ingress_ifindex=ifindex)
        attributes = TestRun(
            prog_fd=self.fd,
            data_size_in=len(data),
            data_in=_address(data_in),
            repeat=repeat,
            flags=BPF_F_TEST_XDP_LIVE_FRAMES,
            batch_size=batch_size,
        )
        if ifindex:
            attributes.ctx_size_in = ctypes.sizeof(context)
            attributes.ctx_in = ctypes.addressof(context)
        _checked(Command.BPF_PROG_TEST_RUN, attributes, f"cannot send {repeat} live frames")


class Link(BpfObject):
    """An attachment of a program to an interface; the kernel undoes it when the descriptor is gone."""

    @classmethod
    def attach_xdp(cls, program: LoadedProgram, ifindex: int, flags: int) -> Self:
        """Attach an XDP program: BPF_LINK_CREATE.

        Parameters
        ----------
        flags : int
            XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE.

        Raises
        ------
        BpfError
            With errno EBUSY or EEXIST where the hook is taken, EOPNOTSUPP where the driver has none,
            ERANGE where the MTU is too large for the driver.
        """
        attributes = LinkCreate(prog_fd=program.fd, target_ifindex=ifindex, attach_type=BPF_XDP, flags=flags)
        what = f"cannot attach an XDP program to interface {ifindex}"
        return cls(_checked(Command.BPF_LINK_CREATE, attributes, what))

    def replace(self, program: LoadedProgram) -> None:
        """Put another program in the place of the attached one, with no frame in between missed."""
        attributes = LinkUpdate(link_fd=self.fd, new_prog_fd=program.fd)
        _checked(Command.BPF_LINK_UPDATE, attributes, "cannot replace the attached XDP program")

    def detach(self) -> None:
        """Take the program off the interface now, whoever else holds the descriptor."""
        _checked(Command.BPF_LINK_DETACH, LinkDetach(link_fd=self.fd), "cannot detach the XDP program")

    def info(self) -> LinkInfo:
        """Return what the kernel knows about the link: BPF_OBJ_GET_INFO_BY_FD."""
        information = LinkInfo()
        _get_info(self.fd, information)
        return information


def _get_info(fd: int, information: ctypes.Structure) -> None:
    attributes = GetInfo(bpf_fd=fd, info_len=ctypes.sizeof(information), info=ctypes.addressof(information))
    _checked(Command.BPF_OBJ_GET_INFO_BY_FD, attributes, "cannot read what the kernel knows of a BPF object")


@cache
def possible_cpus(path: str | os.PathLike[str] = "/sys/devices/system/cpu/possible") -> int:
    """Return how many CPUs per-CPU maps have values for: one more than the highest that can appear.

    Raises
    ------
    MissingFeature
        sysfs does not tell, as in containers that have none.
    """
    try:
        ranges = Path(path).read_text(encoding="ascii").strip()
        return int(ranges.replace("-", ",").rsplit(",", 1)[-1]) + 1
    except (OSError, ValueError) as error:
        raise MissingFeature(
            f"cannot determine from {path} how many CPUs this kernel has ({reason(error)}), as the program's counters "
            f"need: {remedy(error, 'mount sysfs at /sys, or use the packet_mmap backend')}"
        ) from error
