"""C view of the tables of orders: connections, requests, and the log of segments; and what they hold."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from uspcap._native.reassembly cimport Place, Stream

# What a connection was found to carry.
cdef enum:
    UNKNOWN = 0
    SOUPBINTCP = 1
    TAG_VALUE = 2
    OTHER = 3

# How a connection's segments are taken.
cdef enum:
    LOGGED = 0      # its beginning was not seen: kept for later
    READ = 1

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

cdef enum:
    SEGMENTS, PAYLOAD_BYTES, CUT_SEGMENTS, REPEATED_BYTES, LOST_BYTES, HOLES, RESTARTS
    RESYNCHRONISATIONS, UNREAD_BYTES, MESSAGES, REQUESTS
    COUNTED_ANSWERS = 14
    OTHER_MESSAGES = 22
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

cdef struct Key:
    uint64_t low[2]
    uint64_t high[2]
    uint16_t low_port
    uint16_t high_port
    uint32_t version

cdef struct Connection:
    Key key
    uint64_t hash
    uint8_t mode
    uint8_t protocol
    uint8_t protocol_met
    uint8_t settled
    uint32_t generation
    uint32_t messages_in_generation
    uint32_t unread_in_generation
    int64_t first_frame
    int64_t first_ns
    uint64_t logged_bytes
    Stream streams[2]
    uint8_t synchronised[2]
    uint8_t begin_string[14]
    uint64_t counts[COUNT_OF_COUNTS]

cdef struct Segment:
    Key key
    uint64_t hash
    uint32_t sequence
    uint32_t acknowledgment
    uint32_t length         # as on the wire
    uint32_t captured
    uint16_t flags
    uint8_t direction
    const uint8_t *data
    Place place

# Before each segment's bytes in the log, which take a multiple of eight.
cdef struct Entry:
    int32_t connection
    uint32_t sequence
    uint32_t acknowledgment
    uint32_t length
    uint32_t captured
    uint16_t flags
    uint16_t direction
    Place place


cdef inline uint64_t mix(uint64_t h) noexcept nogil:
    """Finalizer of MurmurHash3 (Austin Appleby, public domain)."""
    h ^= h >> 33
    h *= <uint64_t> 0xFF51AFD7ED558CCD
    h ^= h >> 33
    h *= <uint64_t> 0xC4CEB9FE1A85EC53
    return h ^ (h >> 33)


cdef inline uint64_t hash_bytes(uint64_t h, const uint8_t *data, Py_ssize_t length) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(length):
        h = (h ^ data[i]) * <uint64_t> 0x100000001B3
    return mix(h ^ <uint64_t> length)


cdef inline bint tracked(uint64_t hash, int level) noexcept nogil:
    return level == 0 or (hash >> (64 - level)) == 0


cdef inline Py_ssize_t entry_size(uint32_t captured) noexcept nogil:
    return sizeof(Entry) + ((<Py_ssize_t> captured + 7) & ~<Py_ssize_t> 7)


cdef inline void shift_point(Point *point, int64_t frames) noexcept nogil:
    point.first_frame += frames
    point.complete_frame += frames


cdef class OrderTables:
    cdef bint at_once
    cdef Py_ssize_t maximum_connections, maximum_requests, maximum_log
    cdef readonly int level
    cdef readonly Py_ssize_t cut_connections, settled_connections
    cdef readonly int64_t dropped_log_bytes
    cdef bint failed
    cdef Connection *connections
    cdef readonly Py_ssize_t connection_count
    cdef Py_ssize_t connection_capacity
    cdef int32_t *connection_slots
    cdef uint64_t connection_mask
    cdef Request *requests
    cdef readonly Py_ssize_t request_count
    cdef Py_ssize_t request_capacity
    cdef int32_t *request_slots         # twice a request's number, and one where it is for its sequence number
    cdef uint64_t request_mask
    cdef uint8_t *log
    cdef readonly Py_ssize_t log_bytes
    cdef Py_ssize_t log_capacity
    cdef bint grow_connections(self) noexcept nogil
    cdef void index_connections(self) noexcept nogil
    cdef Py_ssize_t connection_of(self, const Key *key, uint64_t hash) noexcept nogil
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
    cdef void keep_bounds(self) noexcept nogil
    cdef void set_level(self, int level) noexcept nogil
    cdef void write_log(self, Py_ssize_t number, const Segment *segment) noexcept nogil
    cdef void segment_of(self, const Entry *entry, const Connection *connection, int64_t frame_shift,
                         Segment *segment) noexcept nogil
