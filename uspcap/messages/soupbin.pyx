"""SoupBinTCP 3.0 framing: where packets end, and where one may begin.

    0      2      3
    length type   payload of length - 1 bytes         (length big-endian)

Source: Nasdaq, SoupBinTCP 3.0. Login packets hold a password; nothing here looks into them.
"""

from libc.stdint cimport uint8_t

from uspcap._core.bytes cimport be16

cdef enum:
    LOGIN_REQUEST = 47      # type, user 6, password 10, session 10, sequence number 20
    LOGIN_ACCEPTED = 31     # type, session 10, sequence number 20
    CERTAIN_PACKETS = 3     # so many one after the other are no accident


cdef Py_ssize_t soup_packet(const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Return the size of the packet that begins here with its header, 0 where that is not there yet, -1 for none."""
    cdef Py_ssize_t size
    cdef uint8_t kind
    if length < SOUP_HEADER:
        return 0
    size = <Py_ssize_t> be16(data)
    kind = data[2]
    if kind == b"U" or kind == b"S" or kind == b"+":
        return size + 2 if size >= 2 else -1
    if kind == b"H" or kind == b"R" or kind == b"Z" or kind == b"O":
        return size + 2 if size == 1 else -1
    if kind == b"L":
        return size + 2 if size == LOGIN_REQUEST else -1
    if kind == b"A":
        return size + 2 if size == LOGIN_ACCEPTED else -1
    if kind == b"J":
        return size + 2 if size == 2 else -1
    return -1


cdef Py_ssize_t soup_boundary(const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Return the first offset at which packets plausibly begin, -1 where there is none.

    They do where whole packets follow each other to the end of the data, or three of them at least.
    """
    cdef Py_ssize_t offset, at, size
    cdef int packets
    for offset in range(length - SOUP_HEADER + 1):
        at = offset
        packets = 0
        while packets < CERTAIN_PACKETS:
            size = soup_packet(data + at, length - at)
            if size <= 0 or at + size > length:
                break
            packets += 1
            at += size
        if packets == CERTAIN_PACKETS or (packets and at == length):
            return offset
    return -1


def packet_size(const uint8_t[::1] data not None):
    """Return what `soup_packet` says of these bytes."""
    return soup_packet(&data[0], data.shape[0]) if data.shape[0] else 0


def boundary(const uint8_t[::1] data not None):
    """Return what `soup_boundary` says of these bytes."""
    return soup_boundary(&data[0], data.shape[0]) if data.shape[0] else -1
