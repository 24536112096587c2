"""Look up kernel functions in the kernel's own type information (BTF).

A call of a kernel function names it by its id: the position of its BTF_KIND_FUNC among the types of
/sys/kernel/btf/vmlinux, counting from 1. Layout after linux/btf.h::

    header      u16 magic, u8 version, u8 flags, u32 header length,
                u32 type offset, u32 type length, u32 string offset, u32 string length
    each type   u32 name offset, u32 info, u32 size or type, then what its kind adds
    info        bits 0-15 number of members, 24-28 kind

Offsets count from the end of the header. The file is in the byte order of the host.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final

from uspcap.errors import BpfError, MissingFeature
from uspcap.system_errors import limit_remedy

VMLINUX: Final = "/sys/kernel/btf/vmlinux"

_MAGIC: Final = 0xEB9F
_HEADER: Final = struct.Struct("=HBBIIIII")
_KIND_FUNC: Final = 12

# 32-bit words after the first three of a type, by kind: fixed ones, and those of each member.
#                  void int ptr array struct union enum fwd typedef volatile const restrict func proto
_FIXED_WORDS: Final = (0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0)
_MEMBER_WORDS: Final = (0, 0, 0, 0, 3, 3, 2, 0, 0, 0, 0, 0, 0, 2, 0, 3, 0, 0, 0, 3)
#                  … var datasec float decl_tag type_tag enum64


def kernel_function_ids(names: Collection[str], path: str | os.PathLike[str] = VMLINUX) -> dict[str, int]:
    """Return the BTF ids of functions of the running kernel.

    Parameters
    ----------
    names : collection of str
        Such as `bpf_xdp_metadata_rx_timestamp`.
    path : path, optional
        A raw BTF file.

    Returns
    -------
    dict of str to int
        Without those names that the kernel does not have.

    Raises
    ------
    MissingFeature
        The kernel offers no BTF.
    BpfError
        The file is no BTF, or damaged.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        advice = limit_remedy(
            error.errno, "hardware timestamps at the XDP hook need a kernel with CONFIG_DEBUG_INFO_BTF"
        )
        raise MissingFeature(f"{path}: {error.strerror}; {advice}") from None
    return find_functions(content, names, str(path))


def find_functions(content: bytes, names: Collection[str], where: str) -> dict[str, int]:
    """Return the ids of functions in raw BTF; `where` names its origin in errors."""
    if len(content) < _HEADER.size:
        raise BpfError(f"{where}: {len(content)} bytes are too few for a BTF header")
    magic, _version, _flags, header_length, type_offset, type_length, string_offset, string_length = (
        _HEADER.unpack_from(content)
    )
    if magic != _MAGIC:
        raise BpfError(f"{where}: begins with {magic:#06x} and not with BTF's magic number {_MAGIC:#06x}")
    types_start = header_length + type_offset
    strings_start = header_length + string_offset
    if max(types_start + type_length, strings_start + string_length) > len(content) or type_length % 4:
        raise BpfError(f"{where}: the BTF header names sections beyond the {len(content)} bytes of the file")

    strings = content[strings_start : strings_start + string_length]
    wanted = {offset: name for name in names for offset in _occurrences(strings, name.encode() + b"\0")}
    found: dict[str, int] = {}
    if not wanted:
        return found
    words = memoryview(content[types_start : types_start + type_length]).cast("I")
    end = len(words)
    position = 0
    identifier = 1
    while position + 3 <= end:
        info = words[position + 1]
        kind = info >> 24 & 0x1F
        if kind == _KIND_FUNC and words[position] in wanted:
            found[wanted[words[position]]] = identifier
            if len(found) == len(names):
                return found
        if not 0 < kind < len(_FIXED_WORDS):
            byte = types_start + 4 * position
            raise BpfError(f"{where}: BTF type {identifier} at byte {byte} is of unknown kind {kind}")
        position += 3 + _FIXED_WORDS[kind] + _MEMBER_WORDS[kind] * (info & 0xFFFF)
        identifier += 1
    if position != end:
        raise BpfError(f"{where}: BTF type {identifier - 1} runs past the end of the types")
    return found


def _occurrences(strings: bytes, terminated: bytes) -> list[int]:
    """Return all offsets of a zero-terminated string, which may be the tail of a longer one."""
    offsets = []
    offset = strings.find(terminated)
    while offset >= 0:
        offsets.append(offset)
        offset = strings.find(terminated, offset + 1)
    return offsets
