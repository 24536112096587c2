"""C view of the histograms."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    int leading_zeros "__builtin_clzll"(unsigned long long) nogil

# Three significant figures: 2048 sub-buckets, the upper 1024 of which are new in each octave.
cdef enum:
    SUB_BUCKET_BITS = 11
    HALF_BITS = 10
    COUNTS_LENGTH = 54 << 10


cdef inline uint32_t index_of(int64_t value) noexcept nogil:
    """Return the bucket of a value in 0..2^63-1."""
    cdef int octave = 64 - SUB_BUCKET_BITS - leading_zeros(<unsigned long long> value | 2047)
    return (<uint32_t> octave << HALF_BITS) + <uint32_t> (value >> octave)


# A line is 32 neighbouring buckets of one flow, 16 bits each: one cache line.
cdef enum:
    LANE_BITS = 5
    LANES = 32
    FULL_LANE = 0xFFFF


cdef class Cells:
    cdef readonly Py_ssize_t lines
    cdef Py_ssize_t allocated
    cdef uint64_t *keys
    cdef uint16_t *counts
    cdef int shift
    cdef dict overflow
    cdef int reserve(self, Py_ssize_t more) except -1
    cdef void carry(self, uint64_t key) noexcept with gil
    cdef bint holds(self, uint64_t line) noexcept nogil
    cdef uint64_t find(self, uint64_t line) noexcept nogil
    cdef void add(self, uint64_t key) noexcept nogil
    cdef uint64_t home(self, uint64_t line) noexcept nogil
