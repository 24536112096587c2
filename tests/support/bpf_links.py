"""What another program can do to an attached XDP program: take it off, or put its own in its place.

As `bpftool link detach` does it, by bpf(2); numbers and structs are of linux/bpf.h.
"""

import ctypes
import errno
import os
import platform
import struct

BPF_OBJ_GET_INFO_BY_FD, BPF_LINK_UPDATE, BPF_LINK_GET_FD_BY_ID, BPF_LINK_GET_NEXT_ID, BPF_LINK_DETACH = (
    15,
    29,
    30,
    31,
    34,
)
SYSCALL = {"x86_64": 321, "aarch64": 280}[platform.machine()]

_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = _libc.syscall(SYSCALL, command, buffer, len(attributes))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result, buffer.raw


def _link_of(program_id: int) -> int:
    """Return a descriptor of the link that a program is attached by."""
    link_id = 0
    while True:
        try:
            _, answer = _bpf(BPF_LINK_GET_NEXT_ID, struct.pack("=III", link_id, 0, 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise LookupError(f"no link holds the program {program_id}") from None
            raise
        link_id = struct.unpack_from("=I", answer, 4)[0]
        try:
            descriptor, _ = _bpf(BPF_LINK_GET_FD_BY_ID, struct.pack("=III", link_id, 0, 0))
        except OSError:
            continue  # gone meanwhile
        info = ctypes.create_string_buffer(32)
        _bpf(BPF_OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", descriptor, len(info), ctypes.addressof(info)))
        if struct.unpack_from("=I", info.raw, 8)[0] == program_id:
            return descriptor
        os.close(descriptor)


def detach_from_outside(program_id: int) -> None:
    """Take a program off its interface."""
    descriptor = _link_of(program_id)
    try:
        _bpf(BPF_LINK_DETACH, struct.pack("=I", descriptor))
    finally:
        os.close(descriptor)


def replace_from_outside(program_id: int, program_fd: int) -> None:
    """Put another program in the place of one that is attached."""
    descriptor = _link_of(program_id)
    try:
        _bpf(BPF_LINK_UPDATE, struct.pack("=IIII", descriptor, program_fd, 0, 0))
    finally:
        os.close(descriptor)
