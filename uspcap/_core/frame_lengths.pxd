"""How long a frame must be, by what its IP header says."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from uspcap._core.bytes cimport be16

cdef enum:
    ADDRESSES_BYTES = 12
    TAG_BYTES = 4
    MOST_TAGS = 3
    IPV6_HEADER_BYTES = 40


cdef inline uint64_t claimed_length(const uint8_t *frame, uint64_t available) noexcept nogil:
    """Return the length of an Ethernet frame by its IP header, 0 where it has none that says so.

    `available` bytes of the frame can be read. A total length of 0 is what a merged frame of over 64 KiB has, and a
    payload length of 0 a jumbogram, so neither says anything.
    """
    cdef uint64_t at = ADDRESSES_BYTES
    cdef uint32_t kind
    cdef uint64_t length
    cdef int tags = 0
    while True:
        if available < at + 2 + 6:
            return 0
        kind = be16(frame + at)
        at += 2
        if tags == MOST_TAGS or (kind != 0x8100 and kind != 0x88A8 and kind != 0x9100):
            break
        tags += 1
        at += TAG_BYTES - 2
    if kind == 0x0800 and frame[at] >> 4 == 4:
        length = be16(frame + at + 2)
        return at + length if length else 0
    if kind == 0x86DD and frame[at] >> 4 == 6:
        length = be16(frame + at + 4)
        return at + IPV6_HEADER_BYTES + length if length else 0
    return 0
