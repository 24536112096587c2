"""C view of schedules."""

from libc.stdint cimport int64_t, uint64_t

cdef enum:
    # Later than anything: no frame is due any more.
    NEVER = 0x7FFFFFFFFFFFFFFF


cdef class SendTimes:
    cdef int kind
    cdef int64_t whole, rest, denominator, carried, next_constant
    cdef uint64_t state
    cdef double mean, reached
    cdef int64_t[::1] times
    cdef Py_ssize_t at
    cdef int64_t take_one(self) noexcept nogil
