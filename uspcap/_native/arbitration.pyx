"""Two lines of one feed: which of them brings each number first, by how much, and what neither brings.

A. `collect_arrivals` finds the packets of the lines by their destination, and takes out of each what the feed's rule
   says.
B. `arbitrate` takes the arrivals of one pair of lines under one key. A ring holds, for each of the last numbers, who
   has brought it and the stamp of whoever did first; a number is compared where both bring it within the ring's length.
   The packets of each line become runs (numbered_runs.pxd), and so do the first copies, of whichever line: what is
   missing of those is lost on both.
C. A line begins anew where a reset says so or numbers fall to 1 or 0 from far above, each line for itself. Numbers of a
   line that has not begun anew yet, while the other has, are of the past: they are too late.
D. State lives in numpy arrays that Python allocates and grows; a loop ends where one of them is full.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.string cimport memcmp, memcpy

import numpy as np

from uspcap._native.columns cimport ADDRESS_BYTES, FrameColumns, HeaderColumns
from uspcap._native.feed_runs cimport FeedRule, payload_of
from uspcap._native.histogram cimport COUNTS_LENGTH, index_of
from uspcap._native.numbered_runs cimport (
    DATA, END, EXCLUDED, FAR, FOREIGN, RESET, Numbering, Packet, Run, Stream, begin_stream, find_place, take, unwrap,
)
from uspcap._native.timing cimport NO_STAMP, difference

cdef enum:
    BOTH = 3                # as a mark: either line has brought it; as a stream: the first copies
    SOURCE_SHIFT = 2
    ARBITRATED = 2
    TOO_LATE_IN_A_ROW = 1024

LINE_DTYPE = np.dtype([
    ("address", np.uint8, ADDRESS_BYTES), ("port", np.uint16), ("line", np.uint16), ("pair", np.int32),
])
"""Where a line's packets go: address as in the header columns, UDP port; which line (0 or 1) of which pair."""

ARRIVAL_DTYPE = np.dtype([
    ("stream", np.int64), ("first", np.uint64), ("next", np.uint64), ("stamp_ns", np.int64), ("frame", np.int64),
    ("line", np.uint8), ("kind", np.uint8), ("source", np.uint8), ("", np.uint8, 5),
])
"""A packet of a line: its numbers, `first` up to, not including, `next`; what the frame's stamp is."""

PAIR_DTYPE = np.dtype([
    ("begun", np.int64), ("epoch", np.int64), ("high", np.uint64), ("too_late_in_a_row", np.int64),
    ("line_begun", np.int64, 2), ("line_epoch", np.int64, 2), ("line_next", np.uint64, 2),
    ("first", np.int64, 2), ("alone", np.int64, 2), ("other_clock", np.int64),
    ("too_late", np.int64), ("too_many", np.int64),
])
"""How things stand, and counts of numbers: brought first by a line, by one alone (of those that have left the ring), by
both but not stamped by one clock, out of the ring's reach; and packets with more numbers than the ring holds."""

SUM_DTYPE = np.dtype([
    ("low", np.uint64), ("high", np.uint64), ("least_ns", np.int64), ("most_ns", np.int64), ("ties", np.int64),
])
"""Of one histogram of skews: the 128 bits of their sum, and the extremes; and, by line 0 only, how many were none."""

cdef struct Line:
    uint8_t address[ADDRESS_BYTES]
    uint16_t port
    uint16_t line
    int32_t pair

cdef struct Arrival:
    int64_t stream
    uint64_t first
    uint64_t next
    int64_t stamp_ns
    int64_t frame
    uint8_t line
    uint8_t kind
    uint8_t source
    uint8_t padding[5]

cdef struct Pair:
    int64_t begun
    int64_t epoch
    uint64_t high               # what is expected next, of either line
    int64_t too_late_in_a_row
    int64_t line_begun[2]
    int64_t line_epoch[2]
    uint64_t line_next[2]
    int64_t first[2]
    int64_t alone[2]
    int64_t other_clock
    int64_t too_late
    int64_t too_many

cdef struct Sum:
    uint64_t low
    uint64_t high
    int64_t least_ns
    int64_t most_ns
    int64_t ties


cdef uint64_t line_hash(const uint8_t *address, uint16_t port) noexcept nogil:
    cdef uint64_t high
    cdef uint64_t low
    memcpy(&high, address, 8)
    memcpy(&low, address + 8, 8)
    low = (low ^ high * <uint64_t> 0x9E3779B97F4A7C15 ^ port) * <uint64_t> 0xD6E8FEB86659FD93
    return low ^ low >> 32


def lay_out_lines(uint8_t[::1] lines, int16_t[::1] table):
    """Put lines (LINE_DTYPE as bytes) into a table of a power of two of entries, -1 for none, at most half full."""
    cdef const Line *of_line = <const Line *> &lines[0]
    cdef uint64_t mask = <uint64_t> table.shape[0] - 1
    cdef uint64_t at
    cdef Py_ssize_t number
    for number in range(lines.shape[0] // <Py_ssize_t> sizeof(Line)):
        at = line_hash(of_line[number].address, of_line[number].port) & mask
        while table[at] >= 0:
            at = (at + 1) & mask
        table[at] = <int16_t> number


def collect_arrivals(FrameColumns frames, HeaderColumns headers, int64_t frame_shift, Py_ssize_t first_row,
                     Py_ssize_t first_byte, FeedRule rule not None,
                     const uint8_t[::1] lines, const int16_t[::1] line_table, uint8_t[::1] streams,
                     Py_ssize_t streams_used, int32_t[::1] table, uint8_t[::1] arrivals,
                     int64_t[::1] counts):
    """Find the packets of the lines in a batch, from `first_row` on, and of that the payload from `first_byte` on.

    Parameters
    ----------
    lines, line_table : LINE_DTYPE as bytes, and as `lay_out_lines` filled it
    streams : IN OUT, STREAM_DTYPE as bytes
        Pairs (as `flow`) and keys that were met.
    table : IN OUT, ndarray of int32, a power of two of entries
        Streams by the hash of pair and key, -1 for none; at most half full.
    arrivals : OUT, ARRIVAL_DTYPE as bytes
    counts : IN OUT, ndarray of int64, shape (3,)
        Packets of the lines that are foreign, that are excluded, and for whose stream there is no room.

    Returns
    -------
    tuple of int
        The first row not taken, as there is no more room for arrivals (else the count of rows), how much of its payload
        is taken, how many streams are used, and how many arrivals there are.
    """
    cdef const Line *of_line = <const Line *> &lines[0]
    cdef Stream *of_stream = <Stream *> &streams[0]
    cdef Arrival *arrival = <Arrival *> &arrivals[0]
    cdef Py_ssize_t stream_room = streams.shape[0] // <Py_ssize_t> sizeof(Stream)
    cdef Py_ssize_t arrival_room = arrivals.shape[0] // <Py_ssize_t> sizeof(Arrival)
    cdef Py_ssize_t row = first_row
    cdef Py_ssize_t byte = first_byte
    cdef Py_ssize_t used = 0
    cdef Py_ssize_t captured, length, taken
    cdef uint64_t mask = <uint64_t> line_table.shape[0] - 1
    cdef uint64_t stream_mask = <uint64_t> table.shape[0] - 1
    cdef const uint8_t *data
    cdef int line
    cdef int64_t at
    cdef Packet packet
    with nogil:
        while row < frames.count and used < arrival_room:
            if not payload_of(frames, headers, row, &data, &captured, &length):
                row += 1
                continue
            line = find_line(of_line, line_table, mask, headers.destination_address + ADDRESS_BYTES * row,
                             headers.destination_port[row])
            if line < 0:
                row += 1
                continue
            taken = rule.parse(data + byte, captured - byte, length - byte, &packet)
            if packet.kind >= EXCLUDED:
                counts[0 if packet.kind == FOREIGN else 1] += 1
            else:
                at = find_place(of_stream, &table[0], stream_mask, of_line[line].pair, packet.key)
                if at < 0 and (streams_used == stream_room or 2 * streams_used >= table.shape[0]):
                    counts[2] += 1
                else:
                    if at < 0:
                        table[-1 - at] = <int32_t> streams_used
                        at = streams_used
                        streams_used += 1
                        begin_stream(&of_stream[at], of_line[line].pair, packet.key)
                    arrival[used].stream = at
                    arrival[used].first = packet.first
                    arrival[used].next = packet.next
                    arrival[used].stamp_ns = frames.timestamp_ns[row]
                    arrival[used].frame = frames.frame_number[row] + frame_shift
                    arrival[used].line = <uint8_t> of_line[line].line
                    arrival[used].kind = <uint8_t> packet.kind
                    arrival[used].source = frames.timestamp_source[row]
                    used += 1
            byte += taken
            if byte == length:
                row += 1
                byte = 0
    return row, byte, streams_used, used


cdef inline int find_line(const Line *lines, const int16_t[::1] table, uint64_t mask, const uint8_t *address,
                          uint16_t port) noexcept nogil:
    cdef uint64_t at = line_hash(address, port) & mask
    cdef int number
    while True:
        number = table[at]
        if number < 0 or lines[number].port == port and not memcmp(lines[number].address, address, ADDRESS_BYTES):
            return number
        at = (at + 1) & mask


cdef uint64_t LOW_HALF = 0xFFFFFFFF


cdef struct Ring:
    int64_t *stamps
    uint8_t *marks              # lines that have brought a number, and the source of the first one's stamp
    uint64_t length             # a power of two


cdef struct Skews:
    uint64_t *counts            # by the source's place and line, COUNTS_LENGTH each
    Sum *sums
    const int8_t *places


def arbitrate(const uint8_t[::1] arrivals, Py_ssize_t first, FeedRule rule not None, uint8_t[::1] pair,
              int64_t[::1] stamps, uint8_t[::1] marks, uint8_t[::1] streams, uint8_t[::1] runs, Py_ssize_t runs_used,
              const int8_t[::1] places, uint64_t[::1] skew_counts, uint8_t[::1] skew_sums):
    """Take the arrivals of one stream, from `first` on.

    Parameters
    ----------
    arrivals : ARRIVAL_DTYPE as bytes
    pair : IN OUT, one row of PAIR_DTYPE as bytes
    stamps, marks : IN OUT, ndarray of int64 and of uint8, a power of two of entries
        The ring.
    streams : IN OUT, three rows of STREAM_DTYPE as bytes
        Line 0, line 1, and the first copies.
    runs : IN OUT, RUN_DTYPE as bytes
    places : ndarray of int8, shape (sources,)
        Which histograms are those of a stamp source, -1 where there are none yet.
    skew_counts : IN OUT, ndarray of uint64, shape (2 * histograms * BUCKETS,)
        By place, and which line was first.
    skew_sums : IN OUT, SUM_DTYPE as bytes, by place and line

    Returns
    -------
    tuple of int
        The first arrival not taken (there is no room for its runs, or no place for its source), and how many runs are
        used.
    """
    cdef const Arrival *arrival = <const Arrival *> &arrivals[0] if arrivals.shape[0] else NULL
    cdef Py_ssize_t count = arrivals.shape[0] // <Py_ssize_t> sizeof(Arrival)
    cdef Py_ssize_t run_room = runs.shape[0] // <Py_ssize_t> sizeof(Run)
    cdef Py_ssize_t at = first
    cdef Pair *state = <Pair *> &pair[0]
    cdef Stream *of_stream = <Stream *> &streams[0]
    cdef Run *of_run = <Run *> &runs[0]
    cdef Ring ring
    cdef Skews skews
    cdef Numbering numbering
    numbering.modulus = rule.modulus if rule.wraps else 0
    numbering.far = 0
    ring.stamps, ring.marks, ring.length = &stamps[0], &marks[0], marks.shape[0]
    skews.counts = &skew_counts[0] if skew_counts.shape[0] else NULL
    skews.sums = <Sum *> &skew_sums[0] if skew_sums.shape[0] else NULL
    skews.places = &places[0]
    if places.shape[0] <= NO_STAMP or stamps.shape[0] != marks.shape[0]:
        raise ValueError("every source has a place, and every mark a stamp")
    with nogil:
        while at < count:
            # One for the line, one for the beginning of a new epoch, and at most one for each new number in between.
            if run_room - runs_used < 3 + room_for(&arrival[at], ring.length):
                break
            if arrival[at].source < NO_STAMP and places[arrival[at].source] < 0:
                break
            runs_used = take_arrival(&arrival[at], &numbering, state, &ring, of_stream, of_run, runs_used, &skews)
            at += 1
    return at, runs_used


cdef inline Py_ssize_t room_for(const Arrival *arrival, uint64_t ring_length) noexcept nogil:
    """Return how many runs the first copies in a packet may take: every other number is new at worst."""
    cdef uint64_t numbers = arrival.next - arrival.first
    return <Py_ssize_t> (numbers if numbers < ring_length else ring_length) // 2 + 1


cdef inline Py_ssize_t take_arrival(const Arrival *arrival, const Numbering *numbering, Pair *state, Ring *ring,
                                    Stream *streams, Run *runs, Py_ssize_t used, Skews *skews) noexcept nogil:
    cdef Packet packet
    cdef Packet copy
    cdef int line = arrival.line
    packet.kind = arrival.kind
    packet.first = arrival.first
    packet.next = arrival.next
    packet.messages = <int64_t> (packet.next - packet.first)
    packet.key[0] = packet.key[1] = 0
    if numbering.modulus and state.begun:
        unwrap(&packet, state.high, numbering.modulus)
    copy = packet
    used = take(&streams[line], line, runs, used, &copy, numbering, arrival.stamp_ns, arrival.frame)
    if not state.line_begun[line]:
        state.line_begun[line] = 1
        state.line_epoch[line] = state.epoch
        state.line_next[line] = packet.next
    elif packet.kind == RESET or not numbering.modulus and packet.kind == DATA and packet.first <= 1 and \
            <int64_t> (state.line_next[line] - packet.first) > FAR:
        # The first line that begins anew takes the pair with it; one that missed a beginning catches up.
        state.line_epoch[line] = max(state.line_epoch[line] + 1, state.epoch)
        state.line_next[line] = packet.next
    elif <int64_t> (packet.next - state.line_next[line]) > 0:
        state.line_next[line] = packet.next
    if packet.next - packet.first > ring.length:
        state.too_many += 1
        return used
    if not state.begun:
        state.begun = 1
        state.high = packet.first
    elif state.line_epoch[line] > state.epoch:
        used = begin_epoch(state, ring, state.line_epoch[line], &packet, arrival, numbering, streams, runs, used)
    elif state.line_epoch[line] < state.epoch:
        state.too_late += packet.next - packet.first
        return used
    if packet.kind == DATA:
        return compare(&packet, arrival, numbering, state, ring, streams, runs, used, skews)
    if packet.kind == RESET or <int64_t> (packet.first - state.high) < 0:
        return used
    # An announcement of what is expected anyway is news where nothing came before, and at the end.
    if packet.first != state.high or packet.kind == END or streams[ARBITRATED].run < 0:
        advance(state, ring, packet.first)
        used = take(&streams[ARBITRATED], ARBITRATED, runs, used, &packet, numbering, arrival.stamp_ns, arrival.frame)
    return used


cdef Py_ssize_t begin_epoch(Pair *state, Ring *ring, int64_t epoch, const Packet *packet, const Arrival *arrival,
                            const Numbering *numbering, Stream *streams, Run *runs, Py_ssize_t used) noexcept nogil:
    """Forget the ring, and let the first copies begin anew."""
    cdef Packet reset = packet[0]
    advance(state, ring, state.high + ring.length)
    state.epoch = epoch
    state.high = packet.first
    state.too_late_in_a_row = 0
    reset.kind = RESET
    reset.next = reset.first
    reset.messages = 0
    return take(&streams[ARBITRATED], ARBITRATED, runs, used, &reset, numbering, arrival.stamp_ns, arrival.frame)


cdef inline void clear(Pair *state, Ring *ring, uint64_t slot) noexcept nogil:
    """Empty a slot, and count the number in it that only one line has brought."""
    cdef int lines = ring.marks[slot] & BOTH
    if lines == 1:
        state.alone[0] += 1
    elif lines == 2:
        state.alone[1] += 1
    ring.marks[slot] = 0


cdef inline void advance(Pair *state, Ring *ring, uint64_t number) noexcept nogil:
    """Let the ring end before a number."""
    cdef uint64_t many = number - state.high
    cdef uint64_t at
    if many > ring.length:
        many = ring.length
    for at in range(many):
        clear(state, ring, (state.high + at) & (ring.length - 1))
    state.high = number


cdef Py_ssize_t compare(const Packet *packet, const Arrival *arrival, const Numbering *numbering, Pair *state,
                        Ring *ring, Stream *streams, Run *runs, Py_ssize_t used, Skews *skews) noexcept nogil:
    """Take the numbers of a packet: what is new goes on, of what the other line has brought the skew is told."""
    cdef uint64_t number = packet.first
    cdef uint64_t slot
    cdef uint64_t fresh = 0             # new ones in a row, up to `number`
    cdef int line_bit = 1 << arrival.line
    cdef uint8_t mine = <uint8_t> (line_bit | arrival.source << SOURCE_SHIFT)
    cdef uint8_t theirs = <uint8_t> (line_bit ^ BOTH | arrival.source << SOURCE_SHIFT)
    cdef uint8_t mark
    cdef int64_t same = 0               # compared with one stamp in a row
    cdef int64_t stamp_ns = 0
    cdef bint reached = False
    cdef Packet after
    if <int64_t> (packet.first - state.high) > 0:
        advance(state, ring, packet.first)
    while number != packet.next:
        slot = number & (ring.length - 1)
        if <int64_t> (number - state.high) >= 0:
            clear(state, ring, slot)
            state.high = number + 1
        elif state.high - number > ring.length:
            state.too_late += 1
            number += 1
            continue
        reached = True
        mark = ring.marks[slot]
        if not mark:
            ring.marks[slot] = mine
            ring.stamps[slot] = arrival.stamp_ns
            fresh += 1
            number += 1
            continue
        if fresh:
            used = pass_on(number - fresh, number, arrival, numbering, streams, runs, used)
            fresh = 0
        if not mark & line_bit:
            ring.marks[slot] = mark | BOTH
            if mark == theirs and arrival.source < NO_STAMP:
                if same and ring.stamps[slot] != stamp_ns:
                    tell(same, stamp_ns, arrival, state, skews)
                    same = 0
                stamp_ns = ring.stamps[slot]
                same += 1
            else:
                state.other_clock += 1
        number += 1
    if fresh:
        used = pass_on(number - fresh, number, arrival, numbering, streams, runs, used)
    if same:
        tell(same, stamp_ns, arrival, state, skews)
    if reached or packet.next == packet.first:
        state.too_late_in_a_row = 0
        return used
    state.too_late_in_a_row += 1
    if state.too_late_in_a_row > TOO_LATE_IN_A_ROW:
        # What is expected is not what comes, but so far above it that nothing would ever be compared again.
        after = packet[0]
        after.first = packet.next
        state.line_epoch[0] = state.line_epoch[1] = state.epoch + 1
        state.line_next[0] = state.line_next[1] = packet.next
        used = begin_epoch(state, ring, state.epoch + 1, &after, arrival, numbering, streams, runs, used)
    return used


cdef inline Py_ssize_t pass_on(uint64_t first, uint64_t after, const Arrival *arrival, const Numbering *numbering,
                               Stream *streams, Run *runs, Py_ssize_t used) noexcept nogil:
    cdef Packet packet
    packet.kind = DATA
    packet.first = first
    packet.next = after
    packet.messages = <int64_t> (after - first)
    packet.key[0] = packet.key[1] = 0
    return take(&streams[ARBITRATED], ARBITRATED, runs, used, &packet, numbering, arrival.stamp_ns, arrival.frame)


cdef inline void tell(int64_t many, int64_t other_ns, const Arrival *arrival, Pair *state, Skews *skews) noexcept nogil:
    """Count numbers that the other line brought first, of the file's frames; which was first in time, stamps say."""
    cdef int64_t skew_ns = difference(arrival.stamp_ns, other_ns)
    cdef int winner = arrival.line ^ 1
    cdef Py_ssize_t at
    cdef uint64_t low, before
    cdef Sum *total
    if not skew_ns:
        skews.sums[2 * skews.places[arrival.source]].ties += many
        return
    if skew_ns < 0:
        skew_ns = -skew_ns
        winner = arrival.line
    state.first[winner] += many
    at = 2 * skews.places[arrival.source] + winner
    skews.counts[at * COUNTS_LENGTH + index_of(skew_ns)] += many
    total = &skews.sums[at]
    if not total.most_ns or skew_ns < total.least_ns:
        total.least_ns = skew_ns
    if skew_ns > total.most_ns:
        total.most_ns = skew_ns
    # A number at a time would be slow, and the product may not fit 64 bits: by halves of the skew.
    low = <uint64_t> many * (<uint64_t> skew_ns & LOW_HALF)
    before = total.low
    total.low += low
    total.high += total.low < before
    low = <uint64_t> many * (<uint64_t> skew_ns >> 32)
    before = total.low
    total.low += low << 32
    total.high += (low >> 32) + (total.low < before)
