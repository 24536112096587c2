"""C view of the table of TCP connections and the log of segments."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from uspcap._core.states cimport Packed, Unpacked
from uspcap.messages.connections cimport Index, Name
from uspcap.messages.reassembly cimport Place, Stream

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
    MOST_COUNTS = 32

# The counts of streams; those after them are of who reads the messages.
cdef enum:
    SEGMENTS, PAYLOAD_BYTES, CUT_SEGMENTS, REPEATED_BYTES, LOST_BYTES, HOLES, RESTARTS
    RESYNCHRONISATIONS, UNREAD_BYTES, MESSAGES, AFTER_ACKNOWLEDGMENT, COUNTS_OF_STREAMS


cdef struct Connection:
    Name name
    uint8_t mode
    uint8_t protocol
    uint8_t protocol_met
    uint8_t settled
    uint32_t generation
    uint32_t messages_in_generation
    uint32_t unread_in_generation
    int64_t first_frame
    uint64_t logged_bytes
    Stream streams[2]
    uint8_t synchronised[2]
    uint8_t begin_string[14]
    uint32_t acknowledged[2]        # by the direction of the bytes, as far as the other end's data say
    uint8_t acknowledged_known[2]
    uint8_t padding[6]
    uint32_t breaks[2]              # how often bytes of a direction were missing, or of no message
    uint64_t holes[2]               # by direction: of streams that are finished
    uint64_t missing_bytes[2]
    uint64_t own[2][4]              # of who reads the messages, by direction; zero when a connection begins
    uint64_t counts[MOST_COUNTS]

cdef struct Segment:
    Name name
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


cdef inline Py_ssize_t entry_size(uint32_t captured) noexcept nogil:
    return sizeof(Entry) + ((<Py_ssize_t> captured + 7) & ~<Py_ssize_t> 7)


cdef class ConnectionTables:
    cdef bint at_once
    cdef Py_ssize_t maximum_connections, maximum_log
    cdef readonly int level
    cdef readonly Py_ssize_t cut_connections, settled_connections
    cdef readonly int64_t dropped_log_bytes
    cdef bint failed
    cdef Connection *connections
    cdef readonly Py_ssize_t connection_count
    cdef Py_ssize_t connection_capacity
    cdef Index index
    cdef uint8_t *log
    cdef readonly Py_ssize_t log_bytes
    cdef Py_ssize_t log_capacity
    cdef int set_up(self, Py_ssize_t maximum_connections, Py_ssize_t maximum_log_bytes, bint at_once) except -1
    cdef tuple pack_tables(self, Packed *packed)
    cdef int unpack_tables(self, Unpacked *unpacked, tuple counts) except -1
    cdef Py_ssize_t connection_of(self, const Name *name) noexcept nogil
    cdef void keep_bounds(self) noexcept nogil
    cdef void set_level(self, int level) noexcept nogil
    cdef void connections_moved(self, const int32_t *numbers) noexcept nogil
    cdef void write_log(self, Py_ssize_t number, const Segment *segment) noexcept nogil
    cdef void segment_of(self, const Entry *entry, const Connection *connection, int64_t frame_shift,
                         Segment *segment) noexcept nogil
