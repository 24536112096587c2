"""C view of what is known of a TCP connection; the words are explained in tcp_state.pyx."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t

from uspcap._core.states cimport Packed, Unpacked

cdef enum:
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    ACK = 0x10

cdef enum:
    RECENT = 128            # of the last so many segments in flight each is kept,
    SPARSE = 64             # and so many of those before them,
    THINNED = 16            # one in so many
    HOLES = 16
    ASSUMED = 8             # of acknowledgments of bytes that were not captured, one in THINNED: those may follow yet
    FAR = 1 << 26           # a sequence number so far away is of another stream
    DEAF_AFTER = 1024       # segments with data without an acknowledgment: those are not captured
    JOINED_FOR = 256        # segments with data for which it counts where a stream was joined
    GIVE_UP_AFTER = 64      # segments of the responder after which its SYN-ACK waits no more
    FAST_AFTER = 3          # duplicate acknowledgments before a fast retransmission (RFC 5681, 3.2)

# What is counted of each way; the names are COUNTS.
cdef enum:
    SEGMENTS
    PAYLOAD_BYTES
    SYNS
    RETRANSMISSIONS
    RETRANSMITTED_BYTES
    FAST_RETRANSMISSIONS
    OUT_OF_ORDER
    BEFORE_JOIN
    KEEP_ALIVES
    DUPLICATE_ACKS
    ZERO_WINDOWS
    RESETS
    GAPS
    UNCAPTURED_BYTES
    RESTARTS
    AMBIGUOUS
    UNMATCHED
    DIFFERENT_SOURCES
    NEGATIVE
    CROWDED_HOLES
    AFTER_ACKNOWLEDGMENT
    COUNT_OF_COUNTS

# What is measured; to each of these that the end is added whose frame ended the time.
cdef enum:
    BY_ACKNOWLEDGMENT = 0
    BY_TIMESTAMPS = 2
    HANDSHAKE = 4
    WHOLE_HANDSHAKE = 6     # both ends together
    MEASURES = 7
    MOST_SAMPLES = 4        # of one segment

cdef struct Segment:
    int64_t timestamp_ns
    int64_t frame
    uint32_t sequence
    uint32_t acknowledgment
    uint32_t length
    uint32_t timestamp_value
    uint32_t timestamp_echo
    int32_t connection
    uint16_t window
    uint16_t flags
    uint8_t source
    uint8_t direction
    uint8_t timestamped
    uint8_t padding

cdef struct Sample:
    int64_t time_ns
    uint32_t measure
    uint32_t source

cdef struct Pending:
    int64_t timestamp_ns
    uint32_t start
    uint32_t end
    uint32_t source
    uint32_t padding

cdef struct Ring:
    Pending *entries
    uint32_t capacity
    uint32_t first
    uint32_t count
    uint32_t padding

cdef struct Waiting:
    Ring recent
    Ring sparse

cdef struct Hole:
    uint32_t start
    uint32_t end
    uint32_t age

# No padding but what is named: compared as bytes.
cdef struct Facts:
    uint32_t next
    uint32_t acknowledged
    uint32_t joined_at
    uint32_t doubt_end
    uint32_t last_timestamp
    uint32_t assumed[ASSUMED]   # where bytes begin that acknowledgments claimed before they were captured, rising
    uint32_t assumed_end
    uint16_t window
    uint16_t joined_for
    uint16_t unanswered
    uint16_t assumed_age
    uint8_t started
    uint8_t acknowledged_known
    uint8_t window_known
    uint8_t doubt
    uint8_t timestamps
    uint8_t duplicates
    uint8_t hole_count
    uint8_t padding[1]
    Hole holes[HOLES]

cdef struct Way:
    Waiting segments
    Waiting timestamps
    Facts facts

cdef struct Handshake:
    int64_t syn_ns
    int64_t answer_ns
    uint32_t syn_sequence
    uint32_t answer_sequence
    uint32_t answer_end
    uint8_t stage
    uint8_t initiator
    uint8_t syn_known
    uint8_t syn_repeated
    uint8_t answer_repeated
    uint8_t syn_source
    uint8_t answer_source
    uint8_t age
    uint8_t padding[4]

cdef struct Conversation:
    Way ways[2]
    Handshake handshake

cdef int advance(Conversation *conversation, const Segment *segment, int64_t *counts, Sample *samples) noexcept nogil
cdef void conversation_free(Conversation *conversation) noexcept nogil
cdef void conversation_pack(Packed *packed, Conversation *conversation) noexcept nogil
cdef void conversation_unpack(Unpacked *unpacked, Conversation *conversation) noexcept nogil
cdef bint conversation_copy(Conversation *target, const Conversation *source) noexcept nogil
cdef bint conversation_equal(const Conversation *a, const Conversation *b) noexcept nogil
