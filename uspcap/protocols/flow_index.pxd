"""C view of the flow table."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from uspcap._core.columns cimport ADDRESS_BYTES, FrameColumns, HeaderColumns


cdef struct FlowKey:
    uint8_t source[ADDRESS_BYTES]
    uint8_t destination[ADDRESS_BYTES]
    uint16_t source_port
    uint16_t destination_port
    uint16_t ethertype          # 0 for IP: the version says it
    uint16_t tap
    uint8_t protocol
    uint8_t ip_version
    uint8_t timestamp_source
    uint8_t padding[5]


cdef class FlowIndex:
    cdef readonly Py_ssize_t count
    cdef readonly int level
    cdef Py_ssize_t allocated
    cdef FlowKey *keys
    cdef uint64_t *hashes
    cdef int32_t *slots
    cdef uint64_t slot_mask
    cdef int32_t find(self, FlowKey *key, uint64_t hash) noexcept nogil
    cdef int32_t insert(self, FlowKey *key, uint64_t hash) noexcept nogil
    cdef int reserve(self, Py_ssize_t more) except -1
    cdef void fill_slots(self) noexcept
