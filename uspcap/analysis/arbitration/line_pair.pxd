"""C view of two lines of one feed under one key."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from uspcap._core.states cimport Packed, Unpacked
from uspcap.analysis.sequence.numbered_runs cimport RunTables

cdef enum:
    ARBITRATED = 2              # the stream of first copies, beside those of lines 0 and 1
    STREAMS = 3
    SOURCES = 8                 # of timestamps, at most

# A packet of a line.
cdef struct Arrival:
    uint64_t first
    uint64_t length
    int64_t at_ns
    int64_t frame
    int64_t bytes               # of its payload
    uint8_t line
    uint8_t kind
    uint8_t source
    uint8_t unused[5]

# The last number that came to a place of the ring.
cdef struct Slot:
    uint64_t number
    int64_t at_ns               # of the line that brought it first
    uint32_t session
    uint8_t mark                # lines that have brought it, and how
    uint8_t source
    uint8_t state
    uint8_t unused

# Where the lines stand, as the last packets of both say.
cdef struct Front:
    int64_t arrivals
    uint64_t next[2]
    int64_t seen[2]             # when each has come last, counted in arrivals; -1 for never
    int64_t behind              # the line that has not restarted yet, while the other has; -1 for none
    int64_t behind_since

# One histogram of skews.
cdef struct Skews:
    uint64_t *counts
    uint64_t sum[2]             # low and high half
    int64_t least_ns
    int64_t most_ns

cdef struct Pair:
    int64_t pair
    uint64_t key[2]
    uint64_t hash
    int64_t stream              # its first one of three
    bint is_known               # nothing comes before
    Front front
    uint32_t sessions           # how often it has restarted
    int tail                    # what the last of the first copies were
    Slot *slots
    Arrival *log
    Py_ssize_t log_count, log_room
    bint log_closed
    uint64_t first[2]
    uint64_t alone[2]
    uint64_t other_clock, too_late, too_many
    uint64_t ties[SOURCES]
    uint8_t met[SOURCES]        # whether timestamps of a source came
    Skews skews[SOURCES][2]

cdef struct Ring:
    uint64_t length             # a power of two
    uint64_t mask               # of numbers
    bint wraps


cdef bint set_up_pair(Pair *pair, const Ring *ring) noexcept nogil
cdef void free_pair(Pair *pair) noexcept nogil
cdef bint take_arrival(Pair *pair, const Ring *ring, RunTables *tables, const Arrival *arrival) noexcept nogil
cdef bint append_pair(Pair *pair, const Ring *ring, RunTables *tables, const Pair *later, int64_t frame_shift) noexcept nogil
cdef bint append_first_copies(Pair *pair, const Ring *ring, RunTables *tables, const RunTables *later, Py_ssize_t run,
                              int64_t frame_shift) noexcept nogil
cdef bint end_append(Pair *pair, const Ring *ring, const Pair *later) noexcept nogil
cdef void pack_pair(Packed *packed, const Pair *pair, const Ring *ring) noexcept nogil
cdef bint unpack_pair(Unpacked *unpacked, Pair *pair, const Ring *ring) noexcept nogil
cdef void count_left(const Pair *pair, const Ring *ring, uint64_t *alone) noexcept nogil
