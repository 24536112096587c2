"""C view of digests of frames."""

from libc.stdint cimport int64_t, uint64_t

from uspcap._core.columns cimport FrameColumns, HeaderColumns

cdef enum:
    NETWORK = 0
    PAYLOAD = 1
    WHOLE = 2
    FIELDS = 3

cdef uint64_t digest_of(FrameColumns frames, HeaderColumns headers, int key, int64_t limit,
                        Py_ssize_t row) noexcept nogil
