"""libpcap as the compiler of filter expressions, from wherever it can be had.

PyPI's `cypcap` brings its own libpcap; where it is not installed, the system's shared library serves
through ctypes. Both give the same instructions for the same version of libpcap.

libpcap compiles differently for files than for live captures: on BSD loopback, `ip6` in a file means
the address families of every BSD and the byte order of the file, and direction is refused where only
a kernel knows it. So a program for frames of files is compiled with a handle on a file: one that has
a header, no frames, and lives in memory.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from uspcap.errors import MissingFeature

NETMASK_UNKNOWN = 0xFFFFFFFF
"""PCAP_NETMASK_UNKNOWN of pcap/pcap.h: `ip broadcast` does not compile."""

DLT_OF_LINKTYPE = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}
"""Where the LINKTYPE_ of files and libpcap's DLT_ differ on Linux (libpcap: pcap-common.c): RFC 1483 ATM,
raw IP, BSD/OS SLIP and PPP, and Linux' classical IP over ATM. All others are the same number."""

PCAP_MAGIC = 0xA1B2C3D4
PCAP_ERRBUF_SIZE = 256

SHARED_LIBRARIES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
"""Fedora and its kin, Debian and its kin, and whoever has the development files."""

Rows = list[tuple[int, int, int, int]]
"""code, jt, jf, k of each instruction."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile.

    Attributes
    ----------
    expression : str
    link_type : int
        LINKTYPE_ value.
    snaplen : int
        What the program returns for a match.
    optimize : bool
    netmask : int
        As a number, 0xFFFFFF00 for /24; NETMASK_UNKNOWN where there is none.
    file_byte_order : {"little", "big"} or None
        Of the capture file that the frames are in; None for live frames.
    """

    expression: str
    link_type: int
    snaplen: int
    optimize: bool
    netmask: int
    file_byte_order: Literal["little", "big"] | None


Compiler = Callable[[Request], Rows]
"""Raises `CompileError`."""

_lock = threading.Lock()  # libpcap before 1.8 keeps its parser's state in globals


class CompileError(Exception):
    """libpcap refuses an expression; the text is libpcap's own."""


class BpfInstruction(ctypes.Structure):
    """struct bpf_insn of pcap/bpf.h."""

    _fields_ = (
        ("code", ctypes.c_ushort),
        ("jt", ctypes.c_ubyte),
        ("jf", ctypes.c_ubyte),
        ("k", ctypes.c_uint32),
    )


class BpfProgram(ctypes.Structure):
    """struct bpf_program of pcap/bpf.h."""

    _fields_ = (("bf_len", ctypes.c_uint), ("bf_insns", ctypes.POINTER(BpfInstruction)))


def compile_rows(request: Request) -> Rows:
    """Compile with whichever libpcap there is; one thread at a time.

    Raises
    ------
    CompileError
        libpcap refuses the expression.
    MissingFeature
        There is no libpcap.
    """
    compiler = find_compiler()
    with _lock:
        return compiler(request)


@contextlib.contextmanager
def empty_capture(request: Request) -> Iterator[str]:
    """Yield the path of a capture file in memory that has a header for the request and no frames."""
    order = "<" if request.file_byte_order == "little" else ">"
    header = struct.pack(
        f"{order}IHHiIII", PCAP_MAGIC, 2, 4, 0, 0, request.snaplen, request.link_type
    )  # struct pcap_file_header of pcap/pcap.h
    descriptor = os.memfd_create("uspcap-filter")
    try:
        os.write(descriptor, header)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


@functools.cache
def find_compiler() -> Compiler:
    """Return the compiler to use: cypcap's if it is installed, else the system library's."""
    for find in (cypcap_compiler, system_compiler):
        compiler = find()
        if compiler is not None:
            return compiler
    raise MissingFeature(
        "filters need libpcap to compile them and there is none here: run `pip install uspcap[filters]`, "
        "or install the system's package (libpcap0.8 on Debian and Ubuntu, libpcap elsewhere)"
    )


def cypcap_compiler() -> Compiler | None:
    """Return the compiler in PyPI's cypcap, or None where it is not installed."""
    try:
        import cypcap
    except ImportError:
        return None

    def compile_rows(request: Request) -> Rows:
        try:
            with contextlib.ExitStack() as stack:
                if request.file_byte_order is None:
                    dlt = DLT_OF_LINKTYPE.get(request.link_type, request.link_type)
                    handle = cypcap.open_dead(dlt, request.snaplen)
                else:
                    handle = cypcap.open_offline(stack.enter_context(empty_capture(request)))
                stack.callback(handle.close)
                return list(handle.compile(request.expression, request.optimize, request.netmask))
        except cypcap.Error as error:
            raise CompileError(error.msg) from None

    return compile_rows


def system_compiler() -> Compiler | None:
    """Return the compiler in the system's libpcap, or None where there is none."""
    library = load_system_library()
    if library is None:
        return None

    def compile_rows(request: Request) -> Rows:
        with contextlib.ExitStack() as stack:
            reason = ctypes.create_string_buffer(PCAP_ERRBUF_SIZE)
            if request.file_byte_order is None:
                dlt = DLT_OF_LINKTYPE.get(request.link_type, request.link_type)
                handle = library.pcap_open_dead(dlt, request.snaplen)
            else:
                path = stack.enter_context(empty_capture(request))
                handle = library.pcap_open_offline(path.encode(), reason)
            if not handle:
                raise CompileError(reason.value.decode(errors="replace") or "libpcap gives no handle")
            stack.callback(library.pcap_close, handle)
            program = BpfProgram()
            status = library.pcap_compile(
                handle,
                ctypes.byref(program),
                request.expression.encode(),
                int(request.optimize),
                request.netmask,
            )
            if status < 0:
                raise CompileError(library.pcap_geterr(handle).decode(errors="replace"))
            stack.callback(library.pcap_freecode, ctypes.byref(program))
            return [(row.code, row.jt, row.jf, row.k) for row in program.bf_insns[: program.bf_len]]

    return compile_rows


@functools.cache
def load_system_library() -> ctypes.CDLL | None:
    """Return the system's libpcap with its functions declared, or None where there is none."""
    import ctypes.util  # slow to import, and only for this

    for name in (*SHARED_LIBRARIES, ctypes.util.find_library("pcap")):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError as error:
            if (limit := os.strerror(errno.EMFILE)) in str(error):
                raise OSError(errno.EMFILE, limit, name) from error
            continue
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_open_offline.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        library.pcap_open_offline.restype = ctypes.c_void_p
        library.pcap_compile.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(BpfProgram),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        )
        library.pcap_compile.restype = ctypes.c_int
        library.pcap_geterr.argtypes = (ctypes.c_void_p,)
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_freecode.argtypes = (ctypes.POINTER(BpfProgram),)
        library.pcap_freecode.restype = None
        library.pcap_close.argtypes = (ctypes.c_void_p,)
        library.pcap_close.restype = None
        return library
    return None
