"""C view of the numbered streams of flows."""

from libc.stdint cimport int32_t, int64_t, uint64_t

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.states cimport Unpacked
from uspcap.analysis.sequence.numbered_runs cimport RunTables
from uspcap.protocols.flow_index cimport FlowKey


cdef struct StreamName:
    FlowKey flow
    uint64_t key[2]             # session and channel


cdef class NumberedStreams:
    cdef tuple arguments
    cdef RunTables tables
    cdef StreamName *names
    cdef uint64_t *hashes
    cdef int32_t *slots
    cdef uint64_t slot_mask
    cdef Py_ssize_t room, most_streams
    cdef readonly int level
    cdef readonly int64_t packets, foreign
    cdef int64_t stream_of(self, FrameColumns frames, HeaderColumns headers, Py_ssize_t row,
                           const uint64_t *key) noexcept nogil
    cdef int64_t enter(self, const StreamName *name, uint64_t hash) noexcept nogil
    cdef bint grow(self) noexcept nogil
    cdef void fill_slots(self) noexcept nogil
    cdef void set_level(self, int level) noexcept nogil
    cdef int keep_bounds(self) except -1
    cdef int restore(self, Unpacked *unpacked, tuple counts, tuple runs) except -1
