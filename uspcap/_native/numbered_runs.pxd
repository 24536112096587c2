"""Packets of numbered streams into runs: what feed_runs.pyx and stream_runs.pyx share, inline for the loops' sake.

A. A stream's packets are kept as runs: as long as each begins with the number that the one before has announced, all
   that changes is the end of a run. What a run does not keep is what no gap, late packet or duplicate could need.
B. Where order is disturbed, packets are kept one by one: below the highest number of the stream, since which part of
   them is new, late or double is a question of each packet; and the first HEAD of each stream, as a part of a capture
   does not know what came before it, unless it began anew here. After PATIENCE packets in a row that follow each other
   below the highest number, they are taken for a stream that begins anew, and kept as a run again.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    HEAD = 256
    PATIENCE = 4096
    FAR = 1000

# What a packet is, and so what a run is of.
cdef enum:
    DATA = 0
    HEARTBEAT = 1           # announces the next number
    END = 2                 # of the session; announces the next number
    RESET = 3               # the next number is as it says, whatever came before
    EXCLUDED = 4            # snapshot, retransmission, request: never touches live state
    FOREIGN = 5             # not of this protocol
    FILL = 6                # sent again: fills what is missing, and is nothing else
    HOLE = 7                # bytes of the TCP stream are missing here

# Mirrors RUN_DTYPE of feed_runs.pyx.
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

# Mirrors STREAM_DTYPE of feed_runs.pyx.
cdef struct Stream:
    int64_t flow
    uint64_t key[2]
    int64_t run
    uint64_t high
    int64_t head            # packets that are kept one by one
    int64_t low             # packets in a row below `high` that follow each other
    int64_t clean           # whether the open run began at `high`, or above
    int64_t packets
    int64_t messages
    int64_t heartbeats
    int64_t excluded
    int64_t acknowledged    # the last acknowledgement that its sender sent, -1 for none; TCP only

cdef struct Packet:
    int kind
    uint64_t first
    uint64_t next
    int64_t messages
    uint64_t key[2]

cdef struct Numbering:
    uint64_t modulus        # numbers begin again after so many; 0 where they do not
    int64_t far             # farther away a packet begins the stream anew; 0: only where its number is 1 or 0


cdef inline uint64_t hash_of(int64_t flow, const uint64_t *key) noexcept nogil:
    cdef uint64_t state = (<uint64_t> flow ^ <uint64_t> 0x9E3779B97F4A7C15) * <uint64_t> 0xD6E8FEB86659FD93
    state = (state ^ state >> 32 ^ key[0]) * <uint64_t> 0xD6E8FEB86659FD93
    state = (state ^ state >> 32 ^ key[1]) * <uint64_t> 0xD6E8FEB86659FD93
    return state ^ state >> 32


cdef inline int64_t find_place(const Stream *streams, const int32_t *table, uint64_t mask, int64_t flow,
                               const uint64_t *key) noexcept nogil:
    """Return the stream, or -1 less the free place where it belongs."""
    cdef uint64_t at = hash_of(flow, key) & mask
    cdef int32_t found
    while True:
        found = table[at]
        if found < 0:
            return -1 - <int64_t> at
        if streams[found].flow == flow and streams[found].key[0] == key[0] and streams[found].key[1] == key[1]:
            return found
        at = (at + 1) & mask


cdef inline void begin_stream(Stream *stream, int64_t flow, const uint64_t *key) noexcept nogil:
    stream.flow = flow
    stream.key[0] = key[0]
    stream.key[1] = key[1]
    stream.run = -1
    stream.high = 0
    stream.head = HEAD
    stream.low = stream.clean = 0
    stream.packets = stream.messages = stream.heartbeats = stream.excluded = 0
    stream.acknowledged = -1


cdef inline int64_t stream_of(Stream *streams, Py_ssize_t *used, Py_ssize_t room, int32_t *table, uint64_t mask,
                              int32_t *of_flow, int64_t flow, const uint64_t *key) noexcept nogil:
    """Return a flow's stream, a new one where it is new; -1 where there is no room for one."""
    cdef int64_t at = of_flow[flow], place
    if at >= 0 and streams[at].key[0] == key[0] and streams[at].key[1] == key[1]:
        return at
    at = find_place(streams, table, mask, flow, key)
    if at < 0:
        if used[0] == room or 2 * used[0] > <Py_ssize_t> mask:
            return -1
        place = -1 - at
        at = used[0]
        used[0] += 1
        begin_stream(&streams[at], flow, key)
        table[place] = <int32_t> at
    of_flow[flow] = <int32_t> at
    return at


cdef inline Py_ssize_t take(Stream *stream, int64_t number, Run *runs, Py_ssize_t used, Packet *packet,
                            const Numbering *numbering, int64_t stamp_ns, int64_t frame) noexcept nogil:
    """Take a packet into its stream; return how many runs are used then, one more at most."""
    cdef Run *run = &runs[stream.run] if stream.run >= 0 else NULL
    cdef uint64_t back
    if numbering.modulus and run != NULL:
        unwrap(packet, run.next, numbering.modulus)
    if packet.kind == DATA:
        stream.packets += 1
        stream.messages += packet.messages
        # In order, and not among those that are kept one by one.
        if run != NULL and run.next == packet.first and stream.packets > stream.head and run.kind == DATA:
            if stream.clean and <int64_t> (packet.first - stream.high) >= 0 or stream.low > PATIENCE:
                run.next = packet.next
                run.packets += 1
                run.messages += packet.messages
                run.last_ns = stamp_ns
                run.last_frame = frame
                if <int64_t> (packet.next - stream.high) > 0:
                    stream.high = packet.next
                return used
            if <int64_t> (packet.first - stream.high) < 0:
                stream.low += 1
        elif run == NULL or run.next != packet.first:
            stream.low = 0
    elif packet.kind == HEARTBEAT:
        stream.heartbeats += 1
        # What is announced is what was expected: all that is new is when.
        if run != NULL and run.next == packet.first and (
                run.kind == HEARTBEAT
                or run.kind == DATA and stream.clean and stream.packets > stream.head and stream.high == packet.first):
            run.last_ns = stamp_ns
            run.last_frame = frame
            return used
    elif packet.kind == END:
        stream.heartbeats += 1
    elif packet.kind == RESET:
        stream.head = 0
    run = &runs[used]
    run.stream = number
    run.kind = packet.kind
    run.first = packet.first
    run.next = packet.next
    run.packets = packet.kind == DATA
    run.messages = packet.messages
    run.first_ns = run.last_ns = stamp_ns
    run.first_frame = run.last_frame = frame
    if packet.kind < FILL:
        back = stream.high - packet.first
        stream.clean = packet.kind == RESET or <int64_t> back <= 0
        if packet.kind == RESET or <int64_t> (packet.next - stream.high) > 0:
            stream.high = packet.next
        elif <int64_t> back > numbering.far if numbering.far else packet.first <= 1 and <int64_t> back > FAR:
            # Begun anew: as the analysis sees it, too.
            stream.high = packet.next
            stream.clean = True
    stream.run = used
    return used + 1


cdef inline void unwrap(Packet *packet, uint64_t expected, uint64_t modulus) noexcept nogil:
    """Move numbers by the multiple of the modulus that brings them nearest to what is expected."""
    cdef uint64_t length = packet.next - packet.first
    cdef uint64_t ahead = (packet.first - expected) & (modulus - 1)
    packet.first = expected + ahead if ahead < modulus >> 1 else expected - (modulus - ahead)
    packet.next = packet.first + length
