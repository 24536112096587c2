"""Classic BPF in two more implementations: an obvious interpreter in Python, and libpcap's own through ctypes."""

import ctypes
import operator

from uspcap.bpf.libpcap import BpfInstruction, BpfProgram, load_system_library

WORD = 0xFFFFFFFF
SIZES = {0x00: 4, 0x08: 2, 0x10: 1}
ARITHMETIC = {
    0x00: operator.add,
    0x10: operator.sub,
    0x20: operator.mul,
    0x30: operator.floordiv,
    0x40: operator.or_,
    0x50: operator.and_,
    0x60: lambda a, b: a << b if b < 32 else 0,
    0x70: lambda a, b: a >> b if b < 32 else 0,
    0x90: operator.mod,
    0xA0: operator.xor,
}
COMPARISONS = {0x10: operator.eq, 0x20: operator.gt, 0x30: operator.ge, 0x40: operator.and_}


def interpret(program: list[tuple[int, int, int, int]], frame: bytes, wire_length: int) -> int:
    """Return what a valid program returns for a frame; 0 rejects it."""
    a = x = at = 0
    scratch = [0] * 16
    while True:
        code, jump_true, jump_false, k = program[at]
        at += 1
        kind = code & 0x07
        operand = x if code & 0x08 else k
        if kind in (0, 1):
            size, mode = SIZES[code & 0x18], code & 0xE0
            if mode == 0x00:
                value = k
            elif mode == 0x60:
                value = scratch[k]
            elif mode == 0x80:
                value = wire_length
            else:
                where = k + x if mode == 0x40 else k
                if where + size > len(frame):
                    return 0
                value = int.from_bytes(frame[where : where + size], "big")
                if mode == 0xA0:
                    value = 4 * (value & 0x0F)
            if kind == 0:
                a = value
            else:
                x = value
        elif kind == 2:
            scratch[k] = a
        elif kind == 3:
            scratch[k] = x
        elif kind == 4 and code & 0xF0 == 0x80:
            a = -a & WORD
        elif kind == 4:
            if code & 0xF0 in (0x30, 0x90) and operand == 0:
                return 0
            a = ARITHMETIC[code & 0xF0](a, operand) & WORD
        elif kind == 5 and code & 0xF0 == 0:
            at += k
        elif kind == 5:
            at += jump_true if COMPARISONS[code & 0xF0](a, operand) else jump_false
        elif kind == 6:
            return a if code & 0x18 == 0x10 else k
        elif code & 0xF8 == 0x80:
            a = x
        else:
            x = a


class PacketHeader(ctypes.Structure):
    """struct pcap_pkthdr of pcap/pcap.h."""

    _fields_ = (
        ("tv_sec", ctypes.c_long),
        ("tv_usec", ctypes.c_long),
        ("caplen", ctypes.c_uint32),
        ("len", ctypes.c_uint32),
    )


def libpcap_library() -> ctypes.CDLL | None:
    """Return the system's libpcap with pcap_offline_filter declared, or None."""
    library = load_system_library()
    if library is not None:
        library.pcap_offline_filter.argtypes = (
            ctypes.POINTER(BpfProgram),
            ctypes.POINTER(PacketHeader),
            ctypes.c_char_p,
        )
        library.pcap_offline_filter.restype = ctypes.c_int
    return library


def pcap_offline_filter(
    library: ctypes.CDLL, program: list[tuple[int, int, int, int]], frame: bytes, wire_length: int
) -> int:
    """Return what libpcap's interpreter returns for a frame, as 32 unsigned bits."""
    rows = (BpfInstruction * len(program))(*program)
    header = PacketHeader(0, 0, len(frame), wire_length)
    value = library.pcap_offline_filter(ctypes.byref(BpfProgram(len(program), rows)), ctypes.byref(header), frame)
    return int(value) & WORD
