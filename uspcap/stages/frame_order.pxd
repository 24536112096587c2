"""Which of two frames of one time goes first: by interface, direction, digest of the bytes, length on the wire.

So it does not matter which file was named first.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from uspcap._core.bytes cimport load64
from uspcap._core.folding cimport fold

# Bits 0 and 1 of epb_flags: inbound, outbound.
cdef enum:
    DIRECTION = 3

cdef struct Equal:
    uint32_t interface
    uint32_t flags
    const uint8_t *data
    uint32_t captured_length
    uint32_t wire_length


cdef inline uint64_t digest_of_bytes(const uint8_t *data, uint32_t length) noexcept nogil:
    """Return a digest of a frame's bytes: eight of them a step, the last ones one by one."""
    cdef uint64_t hash = <uint64_t> 0xCBF29CE484222325 ^ length
    cdef uint32_t at = 0
    while at + 8 <= length:
        hash = fold(hash ^ load64(data + at), <uint64_t> 0x9E3779B97F4A7C15)
        at += 8
    while at < length:
        hash = fold(hash ^ data[at], <uint64_t> 0x9E3779B97F4A7C15)
        at += 1
    return hash


cdef inline int order_of_equals(const Equal *a, const Equal *b) noexcept nogil:
    """Return below 0 where the first of two frames of one time goes first, above 0 the second, 0 where they are alike."""
    cdef uint64_t a_digest, b_digest
    if a.interface != b.interface:
        return -1 if a.interface < b.interface else 1
    if a.flags & DIRECTION != b.flags & DIRECTION:
        return -1 if a.flags & DIRECTION < b.flags & DIRECTION else 1
    a_digest = digest_of_bytes(a.data, a.captured_length)
    b_digest = digest_of_bytes(b.data, b.captured_length)
    if a_digest != b_digest:
        return -1 if a_digest < b_digest else 1
    if a.wire_length != b.wire_length:
        return -1 if a.wire_length < b.wire_length else 1
    return 0
