"""What is known of a TCP connection at one moment of a capture, and what a segment says beside that.

A. A connection has two ways, each the bytes that one end sends. Of each way the state holds the next sequence number,
   the highest acknowledgment of it, the holes before the next sequence number, and what waits for an acknowledgment.
   Sequence numbers stay 32 bits and are compared by their signed difference (RFC 9293, 3.4).
B. Everything here fades. What is missing is forgotten when it is acknowledged, and what waits depends on the last
   segments only; where acknowledgments are not captured, all is forgotten after DEAF_AFTER segments. So the state that
   a part of a capture comes to does not depend on what was before the part once a window of segments has passed;
   `conversation_equal` says whether that is so. Frame numbers are no part of the state.
C. What waits is in two rings: the last RECENT segments, and of those that these push out one in THINNED, chosen by its
   sequence number. An acknowledgment of one that is in neither gives no time, and is counted.
D. Karn's rule (RFC 6298, section 3): from the moment that bytes are retransmitted, come out of order, or are seen to be
   missing, until they are acknowledged, acknowledgments give no time (`doubt`). They may be waiting for the byte that
   was lost.
E. The timestamps option distinguishes a retransmission from the original (RFC 7323, section 4): a TSval is noted with
   the first frame that brings data under it, and its time ends with the first acknowledgment of new data that echoes it.
F. Bytes that are captured after their acknowledgment were not captured before, and are no retransmission: where two
   directions have two clocks, all of one are such. What acknowledgments claimed uncaptured is kept, from the eighth last
   of those that `is_chosen` chooses on: until it is captured, until bytes captured behind it are acknowledged, or for
   DEAF_AFTER acknowledgments.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset

from uspcap._core.saturating cimport difference
from uspcap._core.states cimport Packed, Unpacked, pack, unpacked_new
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP

COUNTS = (
    "segments", "payload_bytes", "syns", "retransmissions", "retransmitted_bytes", "fast_retransmissions",
    "out_of_order", "before_join", "keep_alives", "duplicate_acks", "zero_windows", "resets", "gaps",
    "uncaptured_bytes", "restarts", "ambiguous", "unmatched", "different_sources", "negative", "crowded_holes",
    "after_acknowledgment",
)
assert len(COUNTS) == COUNT_OF_COUNTS

cdef enum:
    NO_MEMORY = -1

# Which TSvals are those of data that were not sent before.
cdef enum:
    UNKNOWN = 0             # none has been seen
    OF_LAST = 1             # those after the last one
    NONE_WAITS = 2          # any: all data are acknowledged

# How far a handshake has come.
cdef enum:
    NONE = 0
    ASKED = 1               # SYN
    ANSWERED = 2            # SYN and ACK


cdef inline int32_t beyond(uint32_t a, uint32_t b) noexcept nogil:
    """Return how far `a` lies after `b`, negative where before it."""
    return <int32_t> (a - b)


# --- what waits -----------------------------------------------------------------------------------------------------

cdef inline Pending *at(const Ring *ring, uint32_t number) noexcept nogil:
    return &ring.entries[(ring.first + number) & (ring.capacity - 1)]


cdef inline void drop_first(Ring *ring) noexcept nogil:
    ring.first = (ring.first + 1) & (ring.capacity - 1)
    ring.count -= 1


cdef bint append(Ring *ring, const Pending *entry) noexcept nogil:
    """Add an entry; return False where there is no memory."""
    cdef uint32_t capacity = 2 * ring.capacity or 4, i
    cdef Pending *grown
    if ring.count == ring.capacity:
        grown = <Pending *> malloc(capacity * sizeof(Pending))
        if grown == NULL:
            return False
        for i in range(ring.count):
            grown[i] = at(ring, i)[0]
        free(ring.entries)
        ring.entries = grown
        ring.capacity = capacity
        ring.first = 0
    at(ring, ring.count)[0] = entry[0]
    ring.count += 1
    return True


cdef inline bint is_chosen(uint32_t sequence) noexcept nogil:
    """Choose one sequence number in THINNED."""
    # The upper bits of a product depend on all bits of the number (Knuth's multiplicative hashing).
    return <uint32_t> (sequence * <uint32_t> 0x9E3779B1) < <uint32_t> 0xFFFFFFFF // THINNED


cdef bint wait_for(Waiting *waiting, uint32_t start, uint32_t end, const Segment *segment) noexcept nogil:
    """Note what came with a segment; return False where there is no memory."""
    cdef Pending entry
    cdef Pending *oldest
    if waiting.recent.count == RECENT:
        oldest = at(&waiting.recent, 0)
        if is_chosen(oldest.end):
            if waiting.sparse.count == SPARSE:
                drop_first(&waiting.sparse)
            if not append(&waiting.sparse, oldest):
                return False
        drop_first(&waiting.recent)
    entry.timestamp_ns = segment.timestamp_ns
    entry.start = start
    entry.end = end
    entry.source = segment.source
    entry.padding = 0
    return append(&waiting.recent, &entry)


cdef const Pending *found_in(const Ring *ring, uint32_t number, bint exact) noexcept nogil:
    cdef uint32_t i
    cdef const Pending *entry
    for i in range(ring.count):
        entry = at(ring, i)
        if beyond(entry.end, number) >= 0:
            if entry.end == number or (not exact and beyond(number, entry.start) > 0):
                return entry
            return NULL
    return NULL


cdef const Pending *found(const Waiting *waiting, uint32_t number, bint exact) noexcept nogil:
    """Return the entry that ends with `number`, or holds what is before it; NULL where that is not kept."""
    cdef const Pending *entry = found_in(&waiting.sparse, number, exact)
    return entry if entry != NULL else found_in(&waiting.recent, number, exact)


cdef void drop_until(Waiting *waiting, uint32_t number) noexcept nogil:
    """Drop what ends with `number` or before it."""
    while waiting.sparse.count and beyond(at(&waiting.sparse, 0).end, number) <= 0:
        drop_first(&waiting.sparse)
    if waiting.sparse.count == 0:
        while waiting.recent.count and beyond(at(&waiting.recent, 0).end, number) <= 0:
            drop_first(&waiting.recent)


cdef void clear(Waiting *waiting) noexcept nogil:
    waiting.recent.first = waiting.recent.count = waiting.sparse.first = waiting.sparse.count = 0


cdef inline bint deaf(const Facts *facts) noexcept nogil:
    """Tell whether acknowledgments of this way are not captured, as it seems."""
    return facts.unanswered >= DEAF_AFTER


# --- holes ----------------------------------------------------------------------------------------------------------

cdef void remove_hole(Facts *facts, int number) noexcept nogil:
    facts.hole_count -= 1
    memmove(&facts.holes[number], &facts.holes[number + 1], (facts.hole_count - number) * sizeof(Hole))
    memset(&facts.holes[facts.hole_count], 0, sizeof(Hole))


cdef void insert_hole(Facts *facts, int number, uint32_t start, uint32_t end, uint32_t age,
                      int64_t *counts) noexcept nogil:
    """Put a hole before that of this number; where there is no room the first hole is given up."""
    if facts.hole_count == HOLES:
        counts[UNCAPTURED_BYTES] += <uint32_t> (facts.holes[0].end - facts.holes[0].start)
        counts[CROWDED_HOLES] += 1
        remove_hole(facts, 0)
        number -= 1
        if number < 0:
            counts[UNCAPTURED_BYTES] += <uint32_t> (end - start)
            return
    memmove(&facts.holes[number + 1], &facts.holes[number], (facts.hole_count - number) * sizeof(Hole))
    facts.holes[number].start = start
    facts.holes[number].end = end
    facts.holes[number].age = age
    facts.hole_count += 1


cdef uint32_t fill_holes(Facts *facts, uint32_t start, uint32_t end, int64_t *counts) noexcept nogil:
    """Take from the holes what lies from `start` to `end`; return how many bytes that was."""
    cdef int number = 0
    cdef uint32_t filled = 0, low, high
    cdef Hole hole
    while number < facts.hole_count:
        hole = facts.holes[number]
        low = start if beyond(start, hole.start) > 0 else hole.start
        high = end if beyond(end, hole.end) < 0 else hole.end
        if beyond(high, low) <= 0:
            number += 1
            continue
        filled += high - low
        if low == hole.start and high == hole.end:
            remove_hole(facts, number)
        elif low == hole.start:
            facts.holes[number].start = high
            number += 1
        elif high == hole.end:
            facts.holes[number].end = low
            number += 1
        else:
            facts.holes[number].start = high
            insert_hole(facts, number, hole.start, low, hole.age, counts)
            return filled
    return filled


# --- acknowledged before it was captured -----------------------------------------------------------------------------

cdef void assume_nothing(Facts *facts) noexcept nogil:
    memset(facts.assumed, 0, sizeof(facts.assumed))
    facts.assumed_end = 0
    facts.assumed_age = 0


cdef void assume(Facts *facts, uint32_t end) noexcept nogil:
    """Note that all up to `end` was acknowledged, of which nothing behind the next sequence number was captured."""
    cdef bint goes_on = facts.assumed[0] != facts.assumed_end and facts.assumed_end == facts.next
    cdef int number
    if not goes_on or is_chosen(facts.next):
        for number in range(ASSUMED - 1):
            facts.assumed[number] = facts.assumed[number + 1] if goes_on else facts.next
        facts.assumed[ASSUMED - 1] = facts.next
    facts.assumed_end = end
    facts.assumed_age = 0


cdef uint32_t take_assumed(Facts *facts, uint32_t start, uint32_t end) noexcept nogil:
    """Take what lies from `start` to `end` from what was acknowledged before, and what precedes it; return its bytes."""
    cdef uint32_t low = start if beyond(start, facts.assumed[0]) > 0 else facts.assumed[0]
    cdef uint32_t high = end if beyond(end, facts.assumed_end) < 0 else facts.assumed_end
    cdef int number
    if facts.assumed[0] == facts.assumed_end or beyond(high, low) <= 0:
        return 0
    if high == facts.assumed_end:
        assume_nothing(facts)
        return high - low
    for number in range(ASSUMED):
        if beyond(high, facts.assumed[number]) > 0:
            facts.assumed[number] = high
    return high - low


# --- ways -----------------------------------------------------------------------------------------------------------

cdef void empty(Way *way) noexcept nogil:
    """Forget all; the memory stays."""
    clear(&way.segments)
    clear(&way.timestamps)
    memset(&way.facts, 0, sizeof(Facts))


cdef void start_with(Way *way, uint32_t sequence) noexcept nogil:
    """Begin with the byte of this sequence number."""
    empty(way)
    way.facts.next = sequence
    way.facts.started = True


cdef void join(Way *way, uint32_t sequence) noexcept nogil:
    """Begin in the middle of what is sent: of bytes before this one nothing is known."""
    start_with(way, sequence)
    way.facts.joined_at = sequence
    way.facts.joined_for = JOINED_FOR


cdef void start_with_acknowledgment(Way *way, uint32_t acknowledgment) noexcept nogil:
    """Begin with what the other end says that it has: all before this byte."""
    start_with(way, acknowledgment)
    way.facts.acknowledged = acknowledgment
    way.facts.acknowledged_known = True
    way.facts.timestamps = NONE_WAITS


cdef void begin_with_syn(Way *way, const Segment *segment) noexcept nogil:
    start_with(way, segment.sequence + 1 + segment.length)
    # The SYN itself is measured as part of the handshake: it waits for nothing here.
    way.facts.acknowledged = segment.sequence + 1
    way.facts.acknowledged_known = True
    way.facts.timestamps = NONE_WAITS
    if segment.flags & ACK:
        way.facts.window = segment.window
        way.facts.window_known = True


cdef void end_doubt(Facts *facts) noexcept nogil:
    facts.doubt = False
    facts.doubt_end = 0


cdef void cast_doubt(Facts *facts, uint32_t end) noexcept nogil:
    """Let acknowledgments give no time until this byte is acknowledged."""
    if deaf(facts) or (facts.acknowledged_known and beyond(end, facts.acknowledged) <= 0):
        return
    if not facts.doubt or beyond(end, facts.doubt_end) > 0:
        facts.doubt_end = end
    facts.doubt = True


cdef void grow_older(Way *way, int64_t *counts) noexcept nogil:
    """One more segment with data: forget what is too old to count, and all that waits where no answer is captured."""
    cdef Facts *facts = &way.facts
    cdef int number
    if facts.joined_for:
        facts.joined_for -= 1
        if facts.joined_for == 0:
            facts.joined_at = 0
    if not deaf(facts):
        facts.unanswered += 1
        if deaf(facts):
            clear(&way.segments)
            clear(&way.timestamps)
            end_doubt(facts)
            assume_nothing(facts)
            facts.acknowledged = 0
            facts.acknowledged_known = False
            facts.duplicates = 0
            facts.timestamps = UNKNOWN
            facts.last_timestamp = 0
    for number in range(facts.hole_count):
        facts.holes[number].age += 1
    number = 0
    while number < facts.hole_count:
        if deaf(facts) and facts.holes[number].age >= DEAF_AFTER:
            counts[UNCAPTURED_BYTES] += <uint32_t> (facts.holes[number].end - facts.holes[number].start)
            remove_hole(facts, number)
        else:
            number += 1


cdef bint measured(Sample *sample, uint32_t measure, const Segment *segment, int64_t begin_ns, uint32_t source,
                   int64_t *counts) noexcept nogil:
    """Take the time from `begin_ns` to a segment; False where it is none."""
    if source != segment.source or source >= NO_TIMESTAMP:
        counts[DIFFERENT_SOURCES] += 1
        return False
    sample.time_ns = difference(segment.timestamp_ns, begin_ns)
    sample.measure = measure
    sample.source = source
    if sample.time_ns < 0:
        counts[NEGATIVE] += 1
        return False
    return True


# --- segments -------------------------------------------------------------------------------------------------------

cdef int take_syn(Conversation *conversation, const Segment *segment, int64_t *counts, Sample *samples) noexcept nogil:
    """Begin a connection, or note that its beginning came again."""
    cdef int direction = segment.direction
    cdef Way *mine = &conversation.ways[direction]
    cdef Way *other = &conversation.ways[1 - direction]
    cdef Handshake *handshake = &conversation.handshake
    cdef int taken = 0
    if not segment.flags & ACK:
        if (handshake.stage != NONE and handshake.syn_known and handshake.initiator == direction
                and handshake.syn_sequence == segment.sequence):
            handshake.syn_repeated = True
            counts[RETRANSMISSIONS] += 1
            return 0
        if (handshake.stage == ANSWERED and not handshake.syn_known and handshake.initiator == direction
                and segment.sequence + 1 == mine.facts.next):
            # Its answer overtook it.
            counts[OUT_OF_ORDER] += 1
            counts[AFTER_ACKNOWLEDGMENT] += 1
            return 0
        counts[SYNS] += 1
        empty(other)
        begin_with_syn(mine, segment)
        memset(handshake, 0, sizeof(Handshake))
        handshake.stage = ASKED
        handshake.initiator = direction
        handshake.syn_known = True
        handshake.syn_sequence = segment.sequence
        handshake.syn_ns = segment.timestamp_ns
        handshake.syn_source = segment.source
        return 0
    if (handshake.stage == ANSWERED and handshake.initiator != direction
            and handshake.answer_sequence == segment.sequence):
        handshake.answer_repeated = True
        counts[RETRANSMISSIONS] += 1
        return 0
    if handshake.stage == NONE and mine.facts.started and -FAR <= beyond(segment.sequence + 1, mine.facts.next) <= 0:
        counts[RETRANSMISSIONS] += 1
        return 0
    # What the SYN carried may be acknowledged with it (RFC 7413).
    if (handshake.stage == ASKED and handshake.initiator != direction
            and segment.acknowledgment - handshake.syn_sequence - 1 <= other.facts.next - handshake.syn_sequence - 1):
        other.facts.acknowledged = segment.acknowledgment
        if not handshake.syn_repeated:
            taken += measured(samples, HANDSHAKE + direction, segment, handshake.syn_ns, handshake.syn_source, counts)
    else:
        memset(handshake, 0, sizeof(Handshake))
        handshake.initiator = 1 - direction
        start_with_acknowledgment(other, segment.acknowledgment)
    begin_with_syn(mine, segment)
    handshake.stage = ANSWERED
    handshake.answer_sequence = segment.sequence
    handshake.answer_end = mine.facts.next
    handshake.answer_ns = segment.timestamp_ns
    handshake.answer_source = segment.source
    return taken


cdef int end_handshake(Conversation *conversation, const Segment *segment, int64_t *counts,
                       Sample *samples) noexcept nogil:
    """Take the initiator's first segment after its SYN: the handshake's end where it is the next and says no more."""
    cdef Handshake *handshake = &conversation.handshake
    cdef const Facts *facts = &conversation.ways[segment.direction].facts
    cdef int taken = 0
    if (handshake.stage == ANSWERED and segment.flags & ACK and not handshake.answer_repeated
            and (segment.sequence == facts.next or segment.sequence == facts.acknowledged)
            and segment.acknowledgment == handshake.answer_end):
        taken += measured(samples, HANDSHAKE + segment.direction, segment, handshake.answer_ns,
                          handshake.answer_source, counts)
        if taken and handshake.syn_known and not handshake.syn_repeated:
            taken += measured(samples + taken, WHOLE_HANDSHAKE, segment, handshake.syn_ns, handshake.syn_source, counts)
    memset(handshake, 0, sizeof(Handshake))
    return taken


cdef void take_behind(Way *way, const Segment *segment, uint32_t end, int64_t *counts) noexcept nogil:
    """Take data that begin before what was seen last: retransmitted, or out of order."""
    cdef Facts *facts = &way.facts
    cdef uint32_t until = end if beyond(end, facts.next) < 0 else facts.next
    cdef uint32_t length = until - segment.sequence, missing, assumed
    cdef bint acknowledged = facts.acknowledged_known and beyond(end, facts.acknowledged) <= 0
    if facts.joined_for and beyond(segment.sequence, facts.joined_at) < 0 and not acknowledged:
        counts[BEFORE_JOIN] += 1
    else:
        missing = fill_holes(facts, segment.sequence, until, counts)
        assumed = take_assumed(facts, segment.sequence, until)
        if assumed:
            counts[AFTER_ACKNOWLEDGMENT] += 1
            counts[UNCAPTURED_BYTES] -= assumed
            missing += assumed
        if missing == length:
            counts[OUT_OF_ORDER] += not assumed
        else:
            counts[RETRANSMISSIONS] += 1
            length -= missing
            counts[RETRANSMITTED_BYTES] += length if length < segment.length else segment.length
        if (facts.acknowledged_known and segment.sequence == facts.acknowledged and facts.duplicates >= FAST_AFTER):
            counts[FAST_RETRANSMISSIONS] += 1
    cast_doubt(facts, end)
    if beyond(end, facts.next) > 0:
        facts.next = end


cdef bint take_sequence(Way *way, const Segment *segment, int64_t *counts, bint *kept_alive) noexcept nogil:
    """Put a segment into the sequence space of its sender; return False where there is no memory."""
    cdef Facts *facts = &way.facts
    cdef uint32_t occupied = segment.length + (1 if segment.flags & FIN else 0)
    cdef uint32_t end = segment.sequence + occupied
    cdef int32_t ahead
    if not facts.started:
        join(way, segment.sequence)
    ahead = beyond(segment.sequence, facts.next)
    if ahead > FAR or ahead < -FAR:
        if occupied == 0:
            return True
        counts[RESTARTS] += 1
        join(way, segment.sequence)
        ahead = 0
    if (ahead == -1 and segment.length <= 1 and occupied == segment.length and facts.acknowledged_known
            and facts.acknowledged == facts.next):
        counts[KEEP_ALIVES] += 1
        kept_alive[0] = True
        return True
    if occupied:
        grow_older(way, counts)
    if ahead > 0:
        counts[GAPS] += 1
        insert_hole(facts, facts.hole_count, facts.next, segment.sequence, 0, counts)
        cast_doubt(facts, segment.sequence)
        facts.next = segment.sequence
    if occupied == 0:
        return True
    if ahead >= 0:
        facts.next = end
        if not deaf(facts) and not wait_for(&way.segments, segment.sequence, end, segment):
            return False
    else:
        take_behind(way, segment, end, counts)
    if not segment.timestamped or deaf(facts):
        return True
    if facts.timestamps == OF_LAST and beyond(segment.timestamp_value, facts.last_timestamp) <= 0:
        return True
    # Where a stream was joined, the first TSval may have been sent before.
    if facts.timestamps != UNKNOWN and not wait_for(&way.timestamps, segment.timestamp_value, segment.timestamp_value, segment):
        return False
    facts.last_timestamp = segment.timestamp_value
    facts.timestamps = OF_LAST
    return True


cdef int take_new_acknowledgment(Way *way, const Segment *segment, bint seen, int64_t *counts,
                                 Sample *samples) noexcept nogil:
    """Take an acknowledgment of bytes that were not acknowledged before; `seen` where all of them were captured."""
    cdef Facts *facts = &way.facts
    cdef uint32_t acknowledgment = segment.acknowledgment
    cdef const Pending *entry
    cdef int taken = 0
    entry = found(&way.segments, acknowledgment, False)
    if seen:
        assume_nothing(facts)
    if facts.doubt or not seen:
        counts[AMBIGUOUS] += 1
    elif entry != NULL:
        taken += measured(samples, BY_ACKNOWLEDGMENT + segment.direction, segment, entry.timestamp_ns, entry.source,
                          counts)
    elif facts.acknowledged_known:
        counts[UNMATCHED] += 1
    if segment.timestamped:
        entry = found(&way.timestamps, segment.timestamp_echo, True)
        if entry != NULL:
            taken += measured(samples + taken, BY_TIMESTAMPS + segment.direction, segment, entry.timestamp_ns,
                              entry.source, counts)
        drop_until(&way.timestamps, segment.timestamp_echo)
    drop_until(&way.segments, acknowledgment)
    while facts.hole_count and beyond(acknowledgment, facts.holes[0].start) > 0:
        if beyond(acknowledgment, facts.holes[0].end) < 0:
            counts[UNCAPTURED_BYTES] += <uint32_t> (acknowledgment - facts.holes[0].start)
            facts.holes[0].start = acknowledgment
            break
        counts[UNCAPTURED_BYTES] += <uint32_t> (facts.holes[0].end - facts.holes[0].start)
        remove_hole(facts, 0)
    if facts.doubt and beyond(acknowledgment, facts.doubt_end) >= 0:
        end_doubt(facts)
    if facts.joined_for and beyond(acknowledgment, facts.joined_at) >= 0:
        facts.joined_for = 0
        facts.joined_at = 0
    facts.acknowledged = acknowledgment
    facts.acknowledged_known = True
    facts.duplicates = 0
    if acknowledgment == facts.next:
        facts.timestamps = NONE_WAITS
        facts.last_timestamp = 0
        clear(&way.timestamps)
    return taken


cdef int take_acknowledgment(Conversation *conversation, const Segment *segment, bint kept_alive, int64_t *counts,
                             int64_t *other_counts, Sample *samples) noexcept nogil:
    cdef Way *way = &conversation.ways[1 - segment.direction]
    cdef Facts *facts = &way.facts
    cdef Facts *mine = &conversation.ways[segment.direction].facts
    cdef int32_t ahead
    if not facts.started:
        start_with_acknowledgment(way, segment.acknowledgment)
        return 0
    ahead = beyond(segment.acknowledgment, facts.next)
    if ahead < -FAR:
        return 0
    if ahead > FAR:
        other_counts[RESTARTS] += 1
        start_with_acknowledgment(way, segment.acknowledgment)
        return 0
    facts.unanswered = 0
    if facts.assumed[0] != facts.assumed_end:
        facts.assumed_age += 1
        if facts.assumed_age >= DEAF_AFTER:
            assume_nothing(facts)
    if ahead > 0:
        other_counts[UNCAPTURED_BYTES] += ahead
        assume(facts, segment.acknowledgment)
        facts.next = segment.acknowledgment
    if not facts.acknowledged_known or beyond(segment.acknowledgment, facts.acknowledged) > 0:
        return take_new_acknowledgment(way, segment, ahead <= 0, other_counts, samples)
    # RFC 5681, section 2; an answer to a probe of a closed window is none.
    if (segment.acknowledgment == facts.acknowledged and facts.next != facts.acknowledged and segment.length == 0
            and not segment.flags & FIN and not kept_alive and segment.window and mine.window_known
            and mine.window == segment.window):
        counts[DUPLICATE_ACKS] += 1
        if facts.duplicates < FAST_AFTER:
            facts.duplicates += 1
    return 0


cdef int advance(Conversation *conversation, const Segment *segment, int64_t *counts, Sample *samples) noexcept nogil:
    """Take a segment.

    Parameters
    ----------
    conversation : IN OUT
    segment : IN
    counts : IN OUT, shape (2, COUNT_OF_COUNTS)
        By direction: that of whose segments or data something is counted.
    samples : OUT, room for MOST_SAMPLES

    Returns
    -------
    int
        How many samples there are; NO_MEMORY where there is none.
    """
    cdef int64_t *own = counts + segment.direction * COUNT_OF_COUNTS
    cdef int64_t *others = counts + (1 - segment.direction) * COUNT_OF_COUNTS
    cdef Facts *facts = &conversation.ways[segment.direction].facts
    cdef bint kept_alive = False
    cdef int taken = 0
    own[SEGMENTS] += 1
    own[PAYLOAD_BYTES] += segment.length
    if segment.flags & RST:
        own[RESETS] += 1
        memset(&conversation.handshake, 0, sizeof(Handshake))
        return 0
    if segment.flags & SYN:
        return take_syn(conversation, segment, own, samples)
    if conversation.handshake.stage != NONE and conversation.handshake.initiator == segment.direction:
        taken = end_handshake(conversation, segment, own, samples)
    elif conversation.handshake.stage == ANSWERED:
        conversation.handshake.age += 1
        if conversation.handshake.age >= GIVE_UP_AFTER:
            memset(&conversation.handshake, 0, sizeof(Handshake))
    if not take_sequence(&conversation.ways[segment.direction], segment, own, &kept_alive):
        return NO_MEMORY
    if segment.flags & ACK:
        taken += take_acknowledgment(conversation, segment, kept_alive, own, others, samples + taken)
        facts.window = segment.window
        facts.window_known = True
    if segment.window == 0 and not segment.flags & FIN:
        own[ZERO_WINDOWS] += 1
    return taken


# --- whole states ---------------------------------------------------------------------------------------------------

cdef void conversation_free(Conversation *conversation) noexcept nogil:
    """Give back the memory."""
    cdef int direction
    for direction in range(2):
        free(conversation.ways[direction].segments.recent.entries)
        free(conversation.ways[direction].segments.sparse.entries)
        free(conversation.ways[direction].timestamps.recent.entries)
        free(conversation.ways[direction].timestamps.sparse.entries)
    memset(conversation, 0, sizeof(Conversation))


cdef bint copy_ring(Ring *target, const Ring *source) noexcept nogil:
    target.entries = NULL
    target.capacity = target.first = target.count = 0
    if source.count == 0:
        return True
    target.entries = <Pending *> malloc(source.capacity * sizeof(Pending))
    if target.entries == NULL:
        return False
    memcpy(target.entries, source.entries, source.capacity * sizeof(Pending))
    target.capacity, target.first, target.count = source.capacity, source.first, source.count
    return True


cdef bint conversation_copy(Conversation *target, const Conversation *source) noexcept nogil:
    """Make `target`, which holds nothing, a copy; return False where there is no memory, and free what there is."""
    cdef int direction
    cdef bint copied = True
    target[0] = source[0]
    for direction in range(2):
        copied &= copy_ring(&target.ways[direction].segments.recent, &source.ways[direction].segments.recent)
        copied &= copy_ring(&target.ways[direction].segments.sparse, &source.ways[direction].segments.sparse)
        copied &= copy_ring(&target.ways[direction].timestamps.recent, &source.ways[direction].timestamps.recent)
        copied &= copy_ring(&target.ways[direction].timestamps.sparse, &source.ways[direction].timestamps.sparse)
    if not copied:
        conversation_free(target)
    return copied


cdef inline Ring *ring_of(Conversation *conversation, int number) noexcept nogil:
    """Return one of its eight rings."""
    cdef Way *way = &conversation.ways[number & 1]
    cdef Waiting *waiting = &way.timestamps if number & 2 else &way.segments
    return &waiting.sparse if number & 4 else &waiting.recent


cdef void conversation_pack(Packed *packed, Conversation *conversation) noexcept nogil:
    """Pack what a conversation points to; whoever has it packs the struct itself."""
    cdef int number
    cdef Ring *ring
    for number in range(8):
        ring = ring_of(conversation, number)
        if ring.count:
            pack(packed, ring.entries, ring.capacity * sizeof(Pending))


cdef void conversation_unpack(Unpacked *unpacked, Conversation *conversation) noexcept nogil:
    """Give one that was unpacked as it lay in memory what it points to; that is nothing where it fails."""
    cdef int number
    cdef Ring *ring
    cdef uint32_t capacity
    for number in range(8):
        ring = ring_of(conversation, number)
        capacity = ring.capacity if ring.count else 0
        ring.entries = NULL
        if capacity:
            ring.entries = <Pending *> unpacked_new(unpacked, capacity * sizeof(Pending), 0)
        if ring.entries == NULL:
            ring.capacity = ring.first = ring.count = 0


cdef bint rings_equal(const Ring *a, const Ring *b) noexcept nogil:
    cdef uint32_t i
    if a.count != b.count:
        return False
    for i in range(a.count):
        if memcmp(at(a, i), at(b, i), sizeof(Pending)):
            return False
    return True


cdef bint conversation_equal(const Conversation *a, const Conversation *b) noexcept nogil:
    """Tell whether whatever comes next says the same of both."""
    cdef int direction
    if memcmp(&a.handshake, &b.handshake, sizeof(Handshake)):
        return False
    for direction in range(2):
        if (memcmp(&a.ways[direction].facts, &b.ways[direction].facts, sizeof(Facts))
                or not rings_equal(&a.ways[direction].segments.recent, &b.ways[direction].segments.recent)
                or not rings_equal(&a.ways[direction].segments.sparse, &b.ways[direction].segments.sparse)
                or not rings_equal(&a.ways[direction].timestamps.recent, &b.ways[direction].timestamps.recent)
                or not rings_equal(&a.ways[direction].timestamps.sparse, &b.ways[direction].timestamps.sparse)):
            return False
    return True
