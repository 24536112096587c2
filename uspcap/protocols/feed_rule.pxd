"""C view of what feed protocols are made of: fields of a payload, and the rule that reads a packet out of it."""

from libc.stdint cimport uint8_t, uint64_t

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap.protocols.numbered_packets cimport Packet

cdef enum:
    MOST_VALUES = 8
    MOST_CHECKS = 4
    UDP = 17


cdef struct Field:
    int offset
    int size                # 0: there is none
    bint big


cdef struct Value:
    bint given
    uint64_t value


cdef struct Values:
    Field field
    bint are_not            # the field must have none of them
    int count
    uint64_t values[MOST_VALUES]


cdef class FeedRule:
    cdef dict made_of
    cdef int header_bytes
    cdef Field sequence, count, length, part
    cdef int length_adds
    cdef int key_count
    cdef int key_offset[4]
    cdef int key_size[4]
    cdef int check_count
    cdef Values checks[MOST_CHECKS]
    cdef Values kinds[4]
    cdef bint has_kinds
    cdef Value heartbeat_count, end_count, excluded_count, unnumbered
    cdef bint heartbeat_is_last, header_only_is_request
    cdef readonly bint wraps
    cdef readonly int number_bits
    cdef uint64_t highest
    cdef int check_place(self, Field field) except -1
    cdef Py_ssize_t parse(self, const uint8_t *data, Py_ssize_t captured, Py_ssize_t length,
                          Packet *packet) noexcept nogil


cdef bint payload_of(FrameColumns frames, HeaderColumns headers, Py_ssize_t row, const uint8_t **data,
                     Py_ssize_t *captured, Py_ssize_t *length) noexcept nogil
