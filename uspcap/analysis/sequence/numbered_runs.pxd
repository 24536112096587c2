"""C view of numbered streams as runs; what happens once a packet is inline, for the loops' sake.

A. A run is packets of a stream each of which begins with the number that the one before it announced. Whether a packet
   goes on with a run depends on the packet before it and on nothing else. So the runs of a capture are the runs of its
   parts, one after the other, but that the last run of a part and the first one of the next may be one run: cutting and
   merging changes nothing, whatever the numbers are.
B. Numbers stay as their field has them. Where they begin again after the highest, they are compared modulo that. Which
   of them are new, late or double is worked out of the runs when a result is asked for (analysis/sequence/gaps.py).
C. A run below the highest number is looked at packet by packet: of the first packets of a run it is kept where they end
   and when they came, fewer in the later runs of a stream (`ends_kept`). The packets behind those are taken together.
D. State is bounded, whatever the order. Of each stream the first `most_runs` runs are followed. What a stream costs, in
   words, depends on the number of its runs only; who holds the tables keeps the cost of all streams within
   `most_words`, by following a sample of them. A part of a capture has no more runs than the whole, so that it costs no
   more, and none of its runs stands later in its stream, so that it keeps no less.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from uspcap._core.states cimport Packed, Unpacked
from uspcap.protocols.numbered_packets cimport *

cdef enum:
    ENDS = 64               # at most
    RUNS_WITH_ENDS = 1 << 14  # of a stream; of later ones it is not kept where packets end
    LONGEST = 1 << 30       # a packet that claims so many numbers or more is a run of its own
    RUN_WORDS = 10
    END_WORDS = 3
    SPARE_RUNS = 2          # the first two runs of a part may join the last one of the part before

cdef struct Run:
    uint64_t first
    uint64_t length         # numbers; a heartbeat announces `first` plus `length`
    int64_t packets
    int64_t first_ns
    int64_t last_ns         # of the last packet
    int64_t seen_ns         # of what last said that this is where the stream stands: a packet or a heartbeat
    int64_t first_frame
    int64_t seen_frame
    int32_t stream
    uint8_t kind
    uint8_t line            # where two lines are compared
    uint8_t source          # of the timestamp, where two lines are compared
    uint8_t is_rest         # its first packet is the rest of one that came before (line_pair.pyx)
    int32_t first_end       # -1 for none
    int32_t last_end

cdef struct PacketEnd:
    uint64_t after          # numbers of the run up to there
    int64_t at_ns
    int32_t next            # -1 for none
    int32_t unused

cdef struct Stream:
    int64_t run             # the open one, -1 for none
    uint64_t next           # what goes on with it
    int64_t packets
    uint64_t messages[2]    # low and high half
    int64_t heartbeats
    int64_t excluded
    int64_t acknowledged    # the last acknowledgement that its sender sent, below 0 for none; TCP only
    int64_t runs            # but for a heartbeat before all others, which a part before may have had
    int64_t doubtful        # of these, those that may be one with the run before them, as what lies between is undecided
    int64_t charged         # runs that there are at least
    uint32_t open           # kind of the open run
    uint32_t full           # it has had more runs than are followed

cdef struct RunTables:
    Run *runs
    PacketEnd *ends
    Stream *streams
    Py_ssize_t run_count, run_room, end_count, end_room, stream_count, stream_room
    uint64_t mask           # of numbers
    bint wraps
    int64_t most_runs, most_words
    int64_t words
    bint failed             # there is no memory


cdef int set_up_runs(RunTables *tables, object modulus, int64_t most_runs, int64_t most_runs_a_stream) except -1
cdef void free_runs(RunTables *tables) noexcept nogil
cdef Py_ssize_t add_stream(RunTables *tables) noexcept nogil
cdef void begin_run(RunTables *tables, int64_t number, const Run *run) noexcept nogil
cdef void keep_end(RunTables *tables, Stream *stream) noexcept nogil
cdef void append_run(RunTables *tables, int64_t number, const RunTables *later, const Run *run,
                     int64_t frame_shift) noexcept nogil
cdef void append_rest(RunTables *tables, int64_t number, const RunTables *later, const Run *run,
                      int64_t frame_shift) noexcept nogil
cdef void append_runs(RunTables *tables, const int64_t *numbers, const RunTables *later,
                      int64_t frame_shift) noexcept nogil
cdef void close_stream(Stream *stream) noexcept nogil
cdef void append_counts(RunTables *tables, int64_t number, const Stream *later) noexcept nogil
cdef void keep_streams(RunTables *tables, const int32_t *moved) noexcept nogil
cdef tuple pack_runs(Packed *packed, const RunTables *tables)
cdef int unpack_runs(Unpacked *unpacked, RunTables *tables, tuple counts) except -1
cdef object runs_of(const RunTables *tables)
cdef object ends_of(const RunTables *tables)
cdef object streams_of(const RunTables *tables)


cdef inline int64_t ends_kept(int64_t run) noexcept nogil:
    """Return of how many packets of a stream's `run`th run, from 0, it is kept where they end."""
    if run < 1 << 8:
        return ENDS
    if run < 1 << 10:
        return ENDS >> 2
    if run < 1 << 12:
        return ENDS >> 4
    return run < RUNS_WITH_ENDS


cdef inline bint is_over(const RunTables *tables) noexcept nogil:
    """Tell whether streams cost more than they may, all together."""
    return tables.words > tables.most_words


cdef inline void count_messages(Stream *stream, uint64_t messages) noexcept nogil:
    stream.messages[0] += messages
    stream.messages[1] += stream.messages[0] < messages


cdef inline void go_on(const RunTables *tables, Stream *stream, uint64_t first, uint64_t length) noexcept nogil:
    """Let a stream go on behind these numbers, or end there where they are the last of all."""
    stream.next = (first + length) & tables.mask
    if length and not stream.next and not tables.wraps:
        stream.open = NOTHING


cdef inline void take(RunTables *tables, int64_t number, const Packet *packet, int64_t at_ns,
                      int64_t frame) noexcept nogil:
    """Take a packet into its stream, whose number this is."""
    cdef Stream *stream = &tables.streams[number]
    cdef Run *run
    cdef Run begun
    if packet.kind == DATA:
        stream.packets += 1
        count_messages(stream, packet.messages)
    elif packet.kind == HEARTBEAT or packet.kind == END:
        stream.heartbeats += 1
    if stream.run >= 0:
        run = &tables.runs[stream.run]
        if stream.open == <uint32_t> packet.kind and stream.next == packet.first and packet.length < LONGEST and (
                packet.kind == DATA or packet.kind == FILL):
            if run.packets <= ENDS:
                keep_end(tables, stream)
            run.length += packet.length
            run.packets += 1
            run.last_ns = run.seen_ns = at_ns
            run.seen_frame = frame
            go_on(tables, stream, packet.first, packet.length)
            return
        if says_nothing_new(tables, stream, packet.kind, packet.first, packet.length):
            run.seen_ns = at_ns
            run.seen_frame = frame
            return
    begun.first = packet.first
    begun.length = packet.length
    begun.packets = packet.kind == DATA or packet.kind == FILL
    begun.first_ns = begun.last_ns = begun.seen_ns = at_ns
    begun.first_frame = begun.seen_frame = frame
    begun.kind = <uint8_t> packet.kind
    begun.line = begun.source = begun.is_rest = 0
    begin_run(tables, number, &begun)


cdef inline bint says_nothing_new(const RunTables *tables, const Stream *stream, int kind, uint64_t first,
                                  uint64_t length) noexcept nogil:
    """Tell whether an announcement is of the number that is expected after the open run: all that is new is when."""
    if kind == HEARTBEAT:
        return (stream.open == DATA or stream.open == HEARTBEAT) and stream.next == (first + length) & tables.mask
    if kind == END:
        return stream.open == END and stream.next == (first + length) & tables.mask
    return kind == HOLE and stream.open == HOLE
