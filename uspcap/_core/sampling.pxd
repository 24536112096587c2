"""Samples by hash, for tables under a bound."""

from libc.stdint cimport uint64_t


cdef inline bint tracked(uint64_t hash, int level) noexcept nogil:
    """Tell whether a hash is in the sample of a level: that whose top `level` bits are zero; none is from 64 on."""
    return level == 0 or level < 64 and (hash >> (64 - level)) == 0
