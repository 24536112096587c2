"""C view of what is read in turn into one batch."""

from libc.stdint cimport int64_t

from uspcap._core.columns cimport FrameColumns


cdef class FrameRing:
    cdef readonly bint lossy
    cdef bint attention
    cdef void begin(self) noexcept nogil
    cdef Py_ssize_t take(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns, int64_t read_at_ns,
                         int64_t now_ns) noexcept nogil
