"""Two lines of one feed under one key: which of them brings each number first, by how much, and what neither brings.

A. The ring has a place for each of the last numbers. What lies there is the last number that came to it, who has
   brought it, and the timestamp of whoever did first. A number that the other line has brought is compared; one that
   lies there no more is the first copy, and goes on into the stream of first copies (numbered_runs.pxd). What lies in a
   place depends on what came to it last, and on nothing that came before that.
B. A line restarts where a reset says so, or where its numbers fall to 1 or 0 from far above those of its last packet.
   Where the other line stands nearer to where it stood than to where it goes, it is the first of the two, and takes the
   pair with it: what lies in the ring is of the past, and so is what the other brings, until it restarts, comes near,
   or BEHIND_FOR packets have come. All of that depends on the last 2 * BEHIND_FOR packets at most.
C. A part of a capture does not know what came before. It keeps its first packets (the log) until that cannot matter to
   B: until packets of both lines have come near each other, or LOG have come. Of what comes then, the first number that
   came to each place of the ring is undecided, as the ring may have held it: such numbers stand among the first copies
   as UNDECIDED, one line's copy each at most. Merging gives the log and what is undecided to the earlier part as if it
   came there, which so counts all that the later one could not; and of each place takes over what came to it behind
   that. A result is the same, with nothing before.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

from uspcap._core.saturating cimport difference
from uspcap._core.states cimport Packed, Unpacked, pack, unpack, unpacked_new
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.analysis.sequence.numbered_runs cimport *
from uspcap.stats.buckets cimport COUNTS_LENGTH, index_of

cdef enum:
    FAR = 1000                  # as analysis/sequence/gaps.py has it
    NEAR = 64                   # numbers
    BEHIND_FOR = 2000           # packets of both lines
    LOG = 4096                  # more than double
    RINGS_BEHIND = 64           # so far behind what lies in its place a number is too late; farther, that is none of the feed

# Of a place in the ring.
cdef enum:
    UNTOUCHED = 0               # nothing came to it; what lay there before, a part of a capture does not know
    UNSETTLED = 1               # the first number that came to it lies there
    SETTLED = 2

# Of a number in the ring, beside the lines that have brought it.
cdef enum:
    BOTH = 3
    LATE = 4                    # it came too late

# What the last of the first copies were.
cdef enum:
    NO_TAIL = 0
    PASSED = 1
    NOT_DECIDED = 2

LONGEST_LOG = LOG
"""Packets of a pair that a part of a capture keeps, at most."""


cdef bint set_up_pair(Pair *pair, const Ring *ring) noexcept nogil:
    """Give a pair its ring; return False where there is no memory."""
    pair.front.seen[0] = pair.front.seen[1] = pair.front.behind = -1
    pair.slots = <Slot *> calloc(ring.length, sizeof(Slot))
    return pair.slots != NULL


cdef void free_pair(Pair *pair) noexcept nogil:
    cdef int source, line
    free(pair.slots)
    free(pair.log)
    for source in range(SOURCES):
        for line in range(2):
            free(pair.skews[source][line].counts)
    pair.slots = NULL
    pair.log = NULL
    memset(pair.skews, 0, sizeof(pair.skews))


# --- where the lines stand ------------------------------------------------------------------------------------------

cdef inline uint64_t distance(const Ring *ring, uint64_t one, uint64_t other) noexcept nogil:
    cdef uint64_t ahead = (one - other) & ring.mask
    cdef uint64_t behind = (other - one) & ring.mask
    return ahead if ahead < behind else behind


cdef inline bint is_there(const Front *front, int line) noexcept nogil:
    """Tell whether a line has come lately."""
    return front.seen[line] >= 0 and front.arrivals - front.seen[line] <= BEHIND_FOR


cdef struct Step:
    bint begins                 # a session, with both lines
    bint is_near                # the lines are near each other


cdef inline Step step(Front *front, const Ring *ring, const Arrival *arrival) noexcept nogil:
    """Say what a packet does to where the lines stand."""
    cdef Step taken
    cdef int line = arrival.line
    cdef int other = 1 - line
    cdef bint line_is_there = is_there(front, line)
    cdef bint other_is_there = is_there(front, other)
    cdef uint64_t number = arrival.first if arrival.kind == DATA else (arrival.first + arrival.length) & ring.mask
    cdef uint64_t to_other = distance(ring, front.next[other], number)
    cdef bint restarted = arrival.kind == RESET
    if arrival.kind == DATA and not ring.wraps and arrival.first <= 1 and line_is_there:
        restarted = front.next[line] > arrival.first + FAR
    front.arrivals += 1
    if front.behind >= 0 and front.arrivals - front.behind_since > BEHIND_FOR:
        front.behind = -1
    taken.begins = restarted
    if restarted:
        if other_is_there and line_is_there:
            taken.begins = distance(ring, front.next[other], front.next[line]) < to_other
        elif other_is_there:
            taken.begins = to_other > FAR
        front.behind = other if taken.begins and other_is_there else -1
        front.behind_since = front.arrivals
    taken.is_near = other_is_there and to_other <= NEAR
    if taken.is_near:
        front.behind = -1
    front.next[line] = (arrival.first + arrival.length) & ring.mask
    front.seen[line] = front.arrivals
    return taken


# --- packets --------------------------------------------------------------------------------------------------------

cdef bint take_arrival(Pair *pair, const Ring *ring, RunTables *tables, const Arrival *arrival) noexcept nogil:
    """Take a packet of a line; return False where there is no memory."""
    cdef Step taken
    cdef Arrival *log
    cdef Py_ssize_t room
    if pair.is_known or pair.log_closed:
        taken = step(&pair.front, ring, arrival)
        return compare_arrival(pair, ring, tables, arrival, taken.begins)
    if pair.log_count == pair.log_room:
        room = 2 * pair.log_room or 16
        log = <Arrival *> realloc(pair.log, room * sizeof(Arrival))
        if log == NULL:
            return False
        pair.log, pair.log_room = log, room
    pair.log[pair.log_count] = arrival[0]
    pair.log_count += 1
    taken = step(&pair.front, ring, arrival)
    pair.log_closed = taken.is_near or pair.log_count == LOG
    return True


cdef bint compare_arrival(Pair *pair, const Ring *ring, RunTables *tables, const Arrival *arrival,
                          bint begins) noexcept nogil:
    """Take a packet into the stream of its line, and what is new of it into that of the first copies."""
    cdef Packet packet
    packet.kind = arrival.kind
    packet.first = arrival.first
    packet.length = packet.messages = arrival.length
    packet.key[0] = packet.key[1] = 0
    take(tables, pair.stream + arrival.line, &packet, arrival.at_ns, arrival.frame)
    if arrival.source < NO_TIMESTAMP:
        pair.met[arrival.source] = True
    if begins:
        pair.sessions += 1
        packet.kind = RESET
        packet.length = packet.messages = 0
        take(tables, pair.stream + ARBITRATED, &packet, arrival.at_ns, arrival.frame)
        pair.tail = NO_TAIL
    if arrival.kind == RESET:
        return True
    if arrival.kind == DATA and (arrival.length > ring.length or arrival.length > <uint64_t> arrival.bytes):
        pair.too_many += 1
        return True
    if pair.front.behind == arrival.line:
        pair.too_late += arrival.length if arrival.kind == DATA else 0
        return True
    if arrival.kind == DATA:
        return compare(pair, ring, tables, arrival, False)
    packet.kind = arrival.kind
    packet.length = arrival.length
    packet.messages = 0
    take(tables, pair.stream + ARBITRATED, &packet, arrival.at_ns, arrival.frame)
    pair.tail = NO_TAIL
    return True


# What becomes of a number.
cdef enum:
    NOTHING_NEW = 0
    FIRST_COPY = 1
    UNKNOWN = 2


cdef bint compare(Pair *pair, const Ring *ring, RunTables *tables, const Arrival *arrival, bint is_rest) noexcept nogil:
    """Take the numbers of a packet: what is new goes on, those that the other line has brought give the skew.

    Parameters
    ----------
    is_rest : bool
        The packet is the rest of one whose numbers so far were the last of the first copies.
    """
    cdef uint64_t at, began = 0
    cdef int becomes, before = NOTHING_NEW
    cdef uint64_t same = 0              # compared with one timestamp in a row
    cdef int64_t same_ns = 0, other_ns = 0
    cdef uint64_t place_mask = ring.length - 1
    cdef uint64_t number = arrival.first
    cdef Slot *slot
    cdef uint8_t mine = <uint8_t> (1 << arrival.line)
    cdef bint is_here
    if not is_rest:
        pair.tail = NO_TAIL
    for at in range(arrival.length):
        slot = &pair.slots[number & place_mask]
        is_here = slot.state != UNTOUCHED and slot.session == pair.sessions
        if is_here and slot.number == number:
            becomes = NOTHING_NEW
            if not slot.mark & mine:
                if slot.state == UNSETTLED and not pair.is_known:
                    becomes = UNKNOWN
                elif slot.mark & LATE:
                    pair.too_late += 1
                elif slot.source == arrival.source and arrival.source < NO_TIMESTAMP:
                    if same and slot.at_ns != same_ns:
                        if not tell(pair, arrival, same, same_ns):
                            return False
                        same = 0
                    same_ns = slot.at_ns
                    same += 1
                else:
                    pair.other_clock += 1
                slot.mark |= mine
        elif not is_here and slot.state != SETTLED and not pair.is_known and not pair.sessions:
            # UNTOUCHED, and what came before may be of this session.
            slot.number, slot.at_ns, slot.source = number, arrival.at_ns, arrival.source
            slot.session, slot.mark, slot.state = 0, mine, UNSETTLED
            becomes = UNKNOWN
        else:
            becomes = FIRST_COPY
            if slot.state == SETTLED or slot.state == UNSETTLED and pair.is_known:
                count_alone(slot, pair.alone)
            slot.mark = mine
            if is_here and is_late(ring, slot.number, number):
                becomes = NOTHING_NEW
                slot.mark |= LATE
                pair.too_late += 1
            slot.number, slot.at_ns, slot.source = number, arrival.at_ns, arrival.source
            slot.session, slot.state = pair.sessions, SETTLED
        if becomes != before:
            if before != NOTHING_NEW:
                put(pair, ring, tables, arrival, before, began, at - began)
            elif at:
                pair.tail = NO_TAIL
            began = at
            before = becomes
        number = (number + 1) & ring.mask
    if before != NOTHING_NEW:
        put(pair, ring, tables, arrival, before, began, arrival.length - began)
    elif arrival.length:
        pair.tail = NO_TAIL
    return tell(pair, arrival, same, same_ns) if same else True


cdef inline bint is_late(const Ring *ring, uint64_t lies_there, uint64_t number) noexcept nogil:
    """Tell whether a number comes too late, as the ring has gone on by as little as a line may be behind."""
    cdef uint64_t ahead = (lies_there - number) & ring.mask
    return ahead <= RINGS_BEHIND * ring.length and ahead <= ring.mask >> 1


cdef inline void count_alone(const Slot *slot, uint64_t *alone) noexcept nogil:
    """Count a number that leaves the ring, if only one line has brought it."""
    if slot.mark == 1:
        alone[0] += 1
    elif slot.mark == 2:
        alone[1] += 1


cdef void put(Pair *pair, const Ring *ring, RunTables *tables, const Arrival *arrival, int becomes, uint64_t began,
              uint64_t length) noexcept nogil:
    """Pass on numbers of a packet that are first copies, or may be."""
    cdef int64_t number = pair.stream + ARBITRATED
    cdef Stream *stream = &tables.streams[number]
    cdef Packet packet
    cdef Run run
    packet.kind = DATA
    packet.first = (arrival.first + began) & ring.mask
    packet.length = packet.messages = length
    packet.key[0] = packet.key[1] = 0
    if becomes == FIRST_COPY and pair.tail == NO_TAIL:
        take(tables, number, &packet, arrival.at_ns, arrival.frame)
    elif becomes == FIRST_COPY and pair.tail == PASSED:
        # The rest of a packet whose numbers so far have gone on.
        count_messages(stream, length)
        if stream.open == DATA:
            tables.runs[stream.run].length += length
            go_on(tables, stream, packet.first, length)
    else:
        run.first, run.length, run.packets = packet.first, length, becomes == FIRST_COPY
        run.first_ns = run.last_ns = run.seen_ns = arrival.at_ns
        run.first_frame = run.seen_frame = arrival.frame
        run.kind = DATA if becomes == FIRST_COPY else UNDECIDED
        run.line, run.source, run.is_rest = arrival.line, arrival.source, pair.tail != NO_TAIL
        if becomes == FIRST_COPY:
            count_messages(stream, length)
        begin_run(tables, number, &run)
    pair.tail = PASSED if becomes == FIRST_COPY else NOT_DECIDED


cdef bint tell(Pair *pair, const Arrival *arrival, uint64_t many, int64_t other_ns) noexcept nogil:
    """Count numbers that the other line brought first, of the file's frames; which was first in time, timestamps say."""
    cdef int64_t skew_ns = difference(arrival.at_ns, other_ns)
    cdef int winner = arrival.line ^ 1
    cdef Skews *skews
    cdef uint64_t low
    if not skew_ns:
        pair.ties[arrival.source] += many
        return True
    if skew_ns < 0:
        skew_ns = -skew_ns
        winner = arrival.line
    pair.first[winner] += many
    skews = &pair.skews[arrival.source][winner]
    if skews.counts == NULL:
        skews.counts = <uint64_t *> calloc(COUNTS_LENGTH, sizeof(uint64_t))
        if skews.counts == NULL:
            return False
        skews.least_ns = skew_ns
    skews.counts[index_of(skew_ns)] += many
    skews.least_ns = min(skews.least_ns, skew_ns)
    skews.most_ns = max(skews.most_ns, skew_ns)
    # A number at a time would be slow, and the product may not fit 64 bits: by halves of the skew.
    low = many * (<uint64_t> skew_ns & <uint64_t> 0xFFFFFFFF)
    add(skews.sum, low, 0)
    low = many * (<uint64_t> skew_ns >> 32)
    add(skews.sum, low << 32, low >> 32)
    return True


cdef inline void add(uint64_t *sum, uint64_t low, uint64_t high) noexcept nogil:
    sum[0] += low
    sum[1] += high + (sum[0] < low)


# --- merging --------------------------------------------------------------------------------------------------------

cdef bint append_pair(Pair *pair, const Ring *ring, RunTables *tables, const Pair *later,
                      int64_t frame_shift) noexcept nogil:
    """Take the packets that a later part has kept, and what it counted; return False where there is no memory."""
    cdef Py_ssize_t at
    cdef Arrival arrival
    cdef int source, line
    for at in range(later.log_count):
        arrival = later.log[at]
        arrival.frame += frame_shift
        if not take_arrival(pair, ring, tables, &arrival):
            return False
    for line in range(2):
        pair.first[line] += later.first[line]
        pair.alone[line] += later.alone[line]
    pair.other_clock += later.other_clock
    pair.too_late += later.too_late
    pair.too_many += later.too_many
    for source in range(SOURCES):
        pair.ties[source] += later.ties[source]
        pair.met[source] |= later.met[source]
        for line in range(2):
            if not append_skews(&pair.skews[source][line], &later.skews[source][line]):
                return False
    return True


cdef bint append_skews(Skews *skews, const Skews *later) noexcept nogil:
    cdef Py_ssize_t at
    if later.counts == NULL:
        return True
    if skews.counts == NULL:
        skews.counts = <uint64_t *> calloc(COUNTS_LENGTH, sizeof(uint64_t))
        if skews.counts == NULL:
            return False
        skews.least_ns = later.least_ns
    for at in range(COUNTS_LENGTH):
        skews.counts[at] += later.counts[at]
    add(skews.sum, later.sum[0], later.sum[1])
    skews.least_ns = min(skews.least_ns, later.least_ns)
    skews.most_ns = max(skews.most_ns, later.most_ns)
    return True


cdef bint append_first_copies(Pair *pair, const Ring *ring, RunTables *tables, const RunTables *later, Py_ssize_t run,
                              int64_t frame_shift) noexcept nogil:
    """Append a run of a later part's first copies, or decide what was not decided there."""
    cdef const Run *theirs = &later.runs[run]
    cdef int64_t number = pair.stream + ARBITRATED
    cdef Arrival arrival
    cdef Run moved
    if theirs.kind == UNDECIDED:
        arrival.first, arrival.length = theirs.first, theirs.length
        arrival.at_ns, arrival.frame = theirs.first_ns, theirs.first_frame + frame_shift
        arrival.line, arrival.kind, arrival.source = theirs.line, DATA, theirs.source
        arrival.bytes = 0
        return compare(pair, ring, tables, &arrival, theirs.is_rest)
    if theirs.is_rest and pair.tail == PASSED:
        append_rest(tables, number, later, theirs, frame_shift)
    elif theirs.is_rest and pair.tail == NO_TAIL:
        moved = theirs[0]
        moved.is_rest = False
        append_run(tables, number, later, &moved, frame_shift)
    else:
        append_run(tables, number, later, theirs, frame_shift)
    pair.tail = PASSED if theirs.kind == DATA else NO_TAIL
    return not tables.failed


cdef bint end_append(Pair *pair, const Ring *ring, const Pair *later) noexcept nogil:
    """Take over how things stand at the end of a later part, all of whose first copies are appended."""
    cdef uint64_t at
    cdef int64_t before
    cdef Slot *slot
    cdef const Slot *theirs
    if not later.log_closed:
        return True
    for at in range(ring.length):
        slot, theirs = &pair.slots[at], &later.slots[at]
        if theirs.state == SETTLED:
            if slot.state == SETTLED or slot.state == UNSETTLED and pair.is_known:
                count_alone(slot, pair.alone)
            slot[0] = theirs[0]
            slot.session += pair.sessions
    pair.sessions += later.sessions
    before = pair.front.arrivals - later.log_count
    pair.front = later.front
    pair.front.arrivals += before
    pair.front.behind_since += before
    for at in range(2):
        if pair.front.seen[at] >= 0:
            pair.front.seen[at] += before
    return True


cdef void pack_pair(Packed *packed, const Pair *pair, const Ring *ring) noexcept nogil:
    """Pack a pair, its ring, its log and its skews."""
    cdef int source, line
    pack(packed, pair, sizeof(Pair))
    pack(packed, pair.slots, ring.length * sizeof(Slot))
    pack(packed, pair.log, pair.log_count * sizeof(Arrival))
    for source in range(SOURCES):
        for line in range(2):
            if pair.skews[source][line].counts != NULL:
                pack(packed, pair.skews[source][line].counts, COUNTS_LENGTH * sizeof(uint64_t))


cdef bint unpack_pair(Unpacked *unpacked, Pair *pair, const Ring *ring) noexcept nogil:
    """Read what was packed; return False where that fails, with nothing to be freed but what `free_pair` frees."""
    cdef int source, line
    cdef bint has_skews[SOURCES][2]
    unpack(unpacked, pair, sizeof(Pair))
    for source in range(SOURCES):
        for line in range(2):
            has_skews[source][line] = pair.skews[source][line].counts != NULL
            pair.skews[source][line].counts = NULL
    pair.log_room = pair.log_count
    pair.log = NULL
    pair.slots = <Slot *> unpacked_new(unpacked, ring.length * sizeof(Slot), 0)
    pair.log = <Arrival *> unpacked_new(unpacked, pair.log_count * sizeof(Arrival), 0)
    for source in range(SOURCES):
        for line in range(2):
            if has_skews[source][line]:
                pair.skews[source][line].counts = <uint64_t *> unpacked_new(
                    unpacked, COUNTS_LENGTH * sizeof(uint64_t), 0)
    return not unpacked.failed


cdef void count_left(const Pair *pair, const Ring *ring, uint64_t *alone) noexcept nogil:
    """Add the numbers in the ring of a pair before which nothing came that only one line has brought."""
    cdef uint64_t at
    for at in range(ring.length):
        if pair.slots[at].state != UNTOUCHED:
            count_alone(&pair.slots[at], alone)
