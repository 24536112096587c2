"""C view of runs of numbered packets: what a packet is, what a stream keeps, and how it takes a packet."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from uspcap._native.columns cimport FrameColumns, HeaderColumns

cdef enum:
    MOST_VALUES = 8
    MOST_CHECKS = 4
    HEAD = 256
    PATIENCE = 4096
    UDP = 17
    FAR = 1000

# What a packet is, and so what a run is of.
cdef enum:
    DATA = 0
    HEARTBEAT = 1           # announces the next number
    END = 2                 # of the session; announces the next number
    RESET = 3               # the next number is as it says, whatever came before
    EXCLUDED = 4            # snapshot, retransmission, request: never touches live state
    FOREIGN = 5             # not of this protocol


cdef struct Run:
    int64_t stream
    int64_t kind
    uint64_t first
    uint64_t next
    int64_t packets
    int64_t messages
    int64_t first_ns
    int64_t last_ns
    int64_t first_frame
    int64_t last_frame


cdef struct Stream:
    int64_t flow
    uint64_t key[2]
    int64_t run
    uint64_t high
    int64_t low             # packets in a row below `high` that follow each other
    int64_t clean           # whether the open run began at `high`, or above
    int64_t packets
    int64_t messages
    int64_t heartbeats
    int64_t excluded


cdef struct Field:
    int offset
    int size                # 0: there is none
    bint big


cdef struct Values:
    Field field
    bint are_not            # the field must have none of them
    int count
    uint64_t values[MOST_VALUES]


cdef struct Packet:
    int kind
    uint64_t first
    uint64_t next
    uint64_t key[2]


cdef class FeedRule:
    cdef int header_bytes
    cdef Field sequence, count, length, part
    cdef int64_t length_adds
    cdef int key_count
    cdef int key_offset[4]
    cdef int key_size[4]
    cdef int check_count
    cdef Values checks[MOST_CHECKS]
    cdef Values kinds[4]
    cdef bint has_kinds
    cdef int64_t heartbeat_count, end_count, excluded_count, unnumbered
    cdef bint heartbeat_is_last, header_only_is_request
    cdef readonly bint wraps
    cdef readonly uint64_t modulus
    cdef int check_place(self, Field field) except -1
    cdef Py_ssize_t parse(self, const uint8_t *data, Py_ssize_t captured, Py_ssize_t length,
                          Packet *packet) noexcept nogil


cdef bint payload_of(FrameColumns frames, HeaderColumns headers, Py_ssize_t row, const uint8_t **data,
                     Py_ssize_t *captured, Py_ssize_t *length) noexcept nogil
cdef int64_t find_place(const Stream *streams, int32_t[::1] table, int64_t flow, const uint64_t *key) noexcept nogil
cdef void begin_stream(Stream *stream, int64_t flow, const uint64_t *key) noexcept nogil
cdef Py_ssize_t take(Stream *stream, int64_t number, Run *runs, Py_ssize_t used, Packet *packet, FeedRule rule,
                     int64_t stamp_ns, int64_t frame) noexcept nogil
cdef void unwrap(Packet *packet, uint64_t expected, uint64_t modulus) noexcept nogil
