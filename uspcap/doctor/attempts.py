"""What the kernel grants this process when it is asked: each thing that a capture needs is made, and given back.

Capability bits do not tell: those of a user namespace, of a container under seccomp or lockdown, or of a kernel that
was built without a part look like those of root. No interface is touched, and no frame is received.

References
----------
linux/if_packet.h; linux/if_xdp.h; net/xdp/xdp_umem.c (xdp_umem_account_pages); bpf(2); packet(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import socket
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from uspcap.bpf.attach import AttachMode, CaptureMaps, load_capture_program
from uspcap.bpf.instructions import R0, exit_insn, mov64_imm
from uspcap.bpf.kernel_types import XdpAction
from uspcap.bpf.syscalls import LoadedProgram
from uspcap.errors import BpfError, UspcapError
from uspcap.system_errors import error_text

# linux/if_packet.h.
_SOL_PACKET: Final = 263
_PACKET_RX_RING: Final = 5
_PACKET_VERSION: Final = 10
_TPACKET_V3: Final = 2
_TPACKET_REQ3: Final = struct.Struct("=7I")

# linux/socket.h and linux/if_xdp.h.
_AF_XDP: Final = 44
_SOL_XDP: Final = 283
_XDP_UMEM_REG: Final = 4
_XDP_UMEM_REGISTRATION: Final = struct.Struct("=QQIIII")

RING_BYTES: Final = 1 << 18
"""Of the packet ring that is tried: one block, as captures have."""

CHUNK_BYTES: Final = 2048

UMEM_RETRIES: Final = 10
UMEM_RETRY_S: Final = 0.05
"""What a socket had locked is given back by the kernel some time after it was closed."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The step at which the kernel refused.

    Attributes
    ----------
    step : str
        The call, as in its manual page.
    number : int
        Error number; 0 where no call failed.
    said : str
        What else is known, as what the verifier said; may be empty.
    """

    step: str
    number: int
    said: str = ""

    def __str__(self) -> str:
        return f"{self.step}: {'; '.join(filter(None, (error_text(self.number), self.said)))}"


class Attempts(Protocol):
    """What can be tried; None means that it was granted."""

    def packet_ring(self) -> Refused | None: ...
    def bpf_maps(self) -> Refused | None: ...
    def xdp_program(self) -> Refused | None: ...
    def xdp_socket(self) -> Refused | None: ...
    def umem(self, size_bytes: int, *, patient: bool) -> Refused | None: ...


class KernelAttempts:
    """Tries it on the kernel of this host, in the network namespace of the calling thread."""

    def packet_ring(self) -> Refused | None:
        """Open a packet socket that receives nothing, and map a ring."""
        return _refusal(_map_packet_ring)

    def bpf_maps(self) -> Refused | None:
        """Create the maps that the capture program has, and read its counters."""
        return _refusal(_create_maps)

    def xdp_program(self) -> Refused | None:
        """Load the capture program; where there are no maps for it, one of two instructions."""
        return _refusal(_load_program)

    def xdp_socket(self) -> Refused | None:
        """Open an AF_XDP socket."""
        return _refusal(lambda: _open_xdp_socket().close())

    def umem(self, size_bytes: int, *, patient: bool) -> Refused | None:
        """Register memory with an AF_XDP socket, which locks it.

        Parameters
        ----------
        size_bytes : int
        patient : bool
            Try again for half a second where the limit does not allow it: another's memory may be on its way back.
        """
        return _refusal(lambda: _register_memory(size_bytes, UMEM_RETRIES if patient else 0))


class _Stopped(Exception):
    """A step was refused."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(str(refused))
        self.refused = refused


def _refusal(attempt: Callable[[], None]) -> Refused | None:
    try:
        attempt()
    except _Stopped as stopped:
        return stopped.refused
    return None


@contextlib.contextmanager
def _step(call: str) -> Iterator[None]:
    """Name the call that is refused within."""
    try:
        yield
    except BpfError as error:
        raise _Stopped(Refused(call, error.errno, str(error) if error.verifier_log else "")) from error
    except UspcapError as error:
        raise _Stopped(Refused(call, 0, str(error))) from error
    except OSError as error:
        raise _Stopped(Refused(call, error.errno or 0)) from error


def _map_packet_ring() -> None:
    with contextlib.ExitStack() as held:
        with _step("socket(AF_PACKET, SOCK_RAW)"):
            # Without a protocol, no frame comes.
            opened = held.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0))
        with _step("setsockopt(PACKET_VERSION, TPACKET_V3)"):
            opened.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        with _step(f"setsockopt(PACKET_RX_RING) of {RING_BYTES >> 10} KiB"):
            opened.setsockopt(_SOL_PACKET, _PACKET_RX_RING, _TPACKET_REQ3.pack(RING_BYTES, 1, RING_BYTES, 1, 20, 0, 0))
        with _step("mmap of the ring"):
            mmap.mmap(opened.fileno(), RING_BYTES).close()


def _create_maps() -> None:
    with contextlib.ExitStack() as held:
        with _step("bpf(BPF_MAP_CREATE)"):
            maps = held.enter_context(CaptureMaps(1))
        with _step("bpf(BPF_MAP_LOOKUP_ELEM)"):
            maps.read_counters()


def _load_program() -> None:
    with contextlib.ExitStack() as held:
        maps: CaptureMaps | None = None
        with contextlib.suppress(UspcapError):
            maps = held.enter_context(CaptureMaps(1))
        with _step("bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_XDP)"):
            if maps is not None:
                load_capture_program("", 0, AttachMode.NATIVE, None, maps, metadata=True).close()
            else:
                passing = (mov64_imm(R0, XdpAction.XDP_PASS), exit_insn())
                LoadedProgram.load(b"".join(one.encode() for one in passing), name="uspcap_attempt").close()


def _open_xdp_socket() -> socket.socket:
    with _step("socket(AF_XDP, SOCK_RAW)"):
        return socket.socket(_AF_XDP, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)


def _register_memory(size_bytes: int, retries: int) -> None:
    with contextlib.ExitStack() as held:
        opened = held.enter_context(_open_xdp_socket())
        with _step(f"mmap of {size_bytes >> 10} KiB"):
            memory = held.enter_context(mmap.mmap(-1, size_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        registration = _XDP_UMEM_REGISTRATION.pack(address, size_bytes, CHUNK_BYTES, 0, 0, 0)
        with _step(f"setsockopt(XDP_UMEM_REG) of {size_bytes >> 10} KiB"):
            while True:
                try:
                    opened.setsockopt(_SOL_XDP, _XDP_UMEM_REG, registration)
                    return
                except OSError as error:
                    if error.errno != errno.ENOBUFS or not retries:
                        raise
                retries -= 1
                time.sleep(UMEM_RETRY_S)
