"""C view of the table of requests, and what it holds."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from uspcap.messages.connection_tables cimport COUNTS_OF_STREAMS, Connection
from uspcap.messages.message_streams cimport MessageStreams

cdef enum:
    ENTER = 0
    REPLACE = 1
    CANCEL = 2
    MODIFY = 3
    NO_KIND = 255

cdef enum:
    ACCEPTED = 0
    EXECUTED = 1
    CANCELED = 2
    REJECTED = 3
    REPLACED = 4
    PENDING = 5
    EXPIRED = 6
    MODIFIED = 7
    ANSWERS = 8

cdef enum:
    ID_BYTES = 40
    BY_ORDER = 0            # what a key of the index names: a request by its client order id,
    BY_CANCEL = 1           # an OUCH cancel of that id,
    BY_MODIFY = 2           # an OUCH modification of that id,

# The counts of messages, after those of streams.
cdef enum:
    REQUESTS = COUNTS_OF_STREAMS
    COUNTED_ANSWERS = REQUESTS + 4
    OTHER_MESSAGES = COUNTED_ANSWERS + ANSWERS
    POSSIBLE_DUPLICATES, ANSWERS_WITHOUT_REQUEST, MALFORMED, CHECKSUM_MISMATCHES, FITS_4_2
    FITS_5_0, APPLICATION_MESSAGES, COUNT_OF_COUNTS


cdef struct Point:
    int64_t first_ns
    int64_t first_frame
    int64_t complete_ns
    int64_t complete_frame
    int32_t first_source
    int32_t complete_source

cdef struct Request:
    Point asked
    Point answers[ANSWERS]
    int64_t venue_ns[ANSWERS]
    int64_t position
    int64_t sequence
    uint64_t hash
    int32_t connection
    uint32_t generation
    uint32_t executions
    uint32_t repeats
    uint8_t kind
    uint8_t direction
    uint8_t space
    uint8_t answered
    uint32_t id_length
    uint8_t id[ID_BYTES]


cdef inline void shift_point(Point *point, int64_t frames) noexcept nogil:
    point.first_frame += frames
    point.complete_frame += frames


cdef class OrderTables(MessageStreams):
    cdef Py_ssize_t maximum_requests
    cdef Request *requests
    cdef readonly Py_ssize_t request_count
    cdef Py_ssize_t request_capacity
    cdef int32_t *request_slots         # 2 * a request's number, and one where it is for its sequence number
    cdef uint64_t request_mask
    cdef bint grow_requests(self) noexcept nogil
    cdef uint64_t request_hash(self, const Connection *connection, const uint8_t *id, Py_ssize_t length) noexcept nogil
    cdef uint64_t slot_hash(self, uint64_t hash, uint32_t space) noexcept nogil
    cdef uint64_t sequence_hash(self, const Connection *connection, int64_t sequence, int direction) noexcept nogil
    cdef void index_requests(self) noexcept nogil
    cdef void enlist(self, int32_t number) noexcept nogil
    cdef uint64_t find(self, int32_t connection, uint32_t generation, uint64_t hash, uint32_t space,
                       const uint8_t *id, Py_ssize_t length) noexcept nogil
    cdef uint64_t find_sequence(self, int32_t connection, uint32_t generation, int64_t sequence,
                                int direction) noexcept nogil
