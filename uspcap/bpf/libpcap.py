"""libpcap as the compiler of filter expressions, from wherever it can be had.

PyPI's `cypcap` brings its own libpcap; where it is not installed, the system's shared library serves
through ctypes. Both give the same instructions for the same version of libpcap.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import threading
from collections.abc import Callable

from uspcap.errors import MissingFeature

NETMASK_UNKNOWN = 0xFFFFFFFF
"""PCAP_NETMASK_UNKNOWN of pcap/pcap.h: `ip broadcast` does not compile."""

DLT_OF_LINKTYPE = {100: 11, 101: 12, 102: 15, 103: 16, 106: 19}
"""Where the LINKTYPE_ of files and libpcap's DLT_ differ on Linux (libpcap: pcap-common.c): RFC 1483 ATM,
raw IP, BSD/OS SLIP and PPP, and Linux' classical IP over ATM. All others are the same number."""

SHARED_LIBRARIES = ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so")
"""Fedora and its kin, Debian and its kin, and whoever has the development files."""

Rows = list[tuple[int, int, int, int]]
"""code, jt, jf, k of each instruction."""

Compiler = Callable[[str, int, int, bool, int], Rows]
"""Takes expression, DLT_, snaplen, optimize and netmask; raises `CompileError`."""

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


def compile_rows(expression: str, link_type: int, snaplen: int, optimize: bool, netmask: int | None) -> Rows:
    """Compile an expression with whichever libpcap there is; one thread at a time.

    Raises
    ------
    CompileError
        libpcap refuses the expression.
    MissingFeature
        There is no libpcap.
    """
    compiler = find_compiler()
    with _lock:
        return compiler(
            expression,
            DLT_OF_LINKTYPE.get(link_type, link_type),
            snaplen,
            optimize,
            NETMASK_UNKNOWN if netmask is None else netmask,
        )


@functools.cache
def find_compiler() -> Compiler:
    """Return the compiler to use: cypcap's if it is installed, else the system library's."""
    for find in (cypcap_compiler, system_compiler):
        compiler = find()
        if compiler is not None:
            return compiler
    raise MissingFeature(
        "filters need libpcap, which compiles them, and there is none here: run `pip install uspcap[filters]`, "
        "or install libpcap with the system's package manager (libpcap0.8 on Debian and Ubuntu, libpcap elsewhere)"
    )


def cypcap_compiler() -> Compiler | None:
    """Return the compiler in PyPI's cypcap, or None where it is not installed."""
    try:
        import cypcap
    except ImportError:
        return None

    def compile_rows(expression: str, dlt: int, snaplen: int, optimize: bool, netmask: int) -> Rows:
        try:
            return list(cypcap.compile(dlt, snaplen, expression, optimize, netmask))
        except cypcap.Error as error:
            raise CompileError(error.msg) from None

    return compile_rows


def system_compiler() -> Compiler | None:
    """Return the compiler in the system's libpcap, or None where there is none."""
    library = load_system_library()
    if library is None:
        return None

    def compile_rows(expression: str, dlt: int, snaplen: int, optimize: bool, netmask: int) -> Rows:
        handle = library.pcap_open_dead(dlt, snaplen)
        if not handle:
            raise CompileError("out of memory")
        try:
            program = BpfProgram()
            status = library.pcap_compile(
                handle, ctypes.byref(program), expression.encode(), int(optimize), netmask
            )
            if status < 0:
                raise CompileError(library.pcap_geterr(handle).decode(errors="replace"))
            try:
                return [(row.code, row.jt, row.jf, row.k) for row in program.bf_insns[: program.bf_len]]
            finally:
                library.pcap_freecode(ctypes.byref(program))
        finally:
            library.pcap_close(handle)

    return compile_rows


@functools.cache
def load_system_library() -> ctypes.CDLL | None:
    """Return the system's libpcap with its functions declared, or None where there is none."""
    for name in (*SHARED_LIBRARIES, ctypes.util.find_library("pcap")):
        if name is None:
            continue
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_open_dead.restype = ctypes.c_void_p
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
