"""C view of what the loop over gaps shares with others."""

from libc.stdint cimport int64_t

cdef struct Gap:
    int64_t flow
    int64_t gap_ns
    int64_t start_ns
    int64_t before_frame
    int64_t after_frame
