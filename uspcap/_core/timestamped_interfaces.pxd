"""Which capture interface a frame belongs to, by who timestamped it (`uspcap.backends.base.TimestampedInterfaces`)."""

from libc.stdint cimport uint8_t, uint16_t

cdef enum:
    TIMESTAMPED_NUMBERS = 8     # table[0:8]: interface number by TimestampSource
    TIMESTAMPED_ENTRIES = 9     # table[8]: how many numbers are given out
    TIMESTAMPED_UNKNOWN = 0xFFFF

# Values of uspcap.frames.TimestampSource.
cdef enum:
    TIMESTAMP_HARDWARE = 0
    TIMESTAMP_XDP = 2
    TIMESTAMP_KERNEL = 3
    TIMESTAMP_USER = 4


cdef inline uint16_t timestamped_interface(uint16_t *table, uint8_t source) noexcept nogil:
    """Return the interface's number, the next free one where frames of `source` come for the first time."""
    if table[source] == TIMESTAMPED_UNKNOWN:
        table[source] = table[TIMESTAMPED_NUMBERS]
        table[TIMESTAMPED_NUMBERS] += 1
    return table[source]
