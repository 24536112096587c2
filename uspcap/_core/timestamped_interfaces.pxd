"""Which capture interface a frame belongs to, by who stamped it (`uspcap.backends.base.StampedInterfaces`)."""

from libc.stdint cimport uint8_t, uint16_t

cdef enum:
    STAMPED_NUMBERS = 8     # table[0:8]: interface number by TimestampSource
    STAMPED_ENTRIES = 9     # table[8]: how many numbers are given out
    STAMPED_UNKNOWN = 0xFFFF

# Values of uspcap.frames.TimestampSource.
cdef enum:
    STAMP_HARDWARE = 0
    STAMP_XDP = 2
    STAMP_KERNEL = 3
    STAMP_USER = 4


cdef inline uint16_t stamped_interface(uint16_t *table, uint8_t source) noexcept nogil:
    """Return the interface's number, the next free one where frames of `source` come for the first time."""
    if table[source] == STAMPED_UNKNOWN:
        table[source] = table[STAMPED_NUMBERS]
        table[STAMPED_NUMBERS] += 1
    return table[source]
