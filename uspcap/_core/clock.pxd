"""The host's clock, for loops that run without the GIL."""

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec


cdef inline int64_t realtime_ns() noexcept nogil:
    """Return CLOCK_REALTIME in nanoseconds since the epoch, through the vDSO."""
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t> now.tv_sec * 1_000_000_000 + now.tv_nsec
