"""Matching two streams of digests frame by frame, in one pass with bounded memory.

A. Both streams are taken in the order of their stamps, those of B moved by the offset of its clock. Each frame is kept
   in its side's queue, and counted in the table's entry of its digest, as one of a cluster: frames of one digest that
   come within the window of each other.
B. A cluster is closed when the window has passed since its last frame. Then, with a frames of A and b of B:
   - none on one side: the frames are only on the other;
   - a == b: the first of A is the first of B, and so on, where they are within the window of each other;
   - a == 1 or b == 1: the first is the first, the others are duplicates;
   - else it cannot be told which one is missing, and all are ambiguous. So is every frame of a cluster that has more
     than CLUSTER_MOST on a side.
C. Frames leave the queues in the order in which they came, when their cluster is closed. What they came to is an event.
D. An entry takes half a cache line, and lines that will be wanted soon are asked for ahead: the table is larger than the
   caches, and waiting for each line in turn would take most of the time.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

import numpy as np

cdef extern from *:
    """
    #define uspcap_prefetch(p) __builtin_prefetch((p), 1)
    """
    void prefetch "uspcap_prefetch"(const void *) nogil

cdef enum:
    CLUSTER_MOST = 16
    AHEAD = 12              # frames
    FIRST_SIZE = 1 << 12

cdef enum:
    PENDING = 0
    MATCHED = 1
    ONLY = 2
    DUPLICATE = 3
    AMBIGUOUS = 4

KIND_MATCHED, KIND_ONLY, KIND_DUPLICATE, KIND_AMBIGUOUS = MATCHED, ONLY, DUPLICATE, AMBIGUOUS

cdef uint32_t NOBODY = 0xFFFFFFFF

EVENT_DTYPE = np.dtype([
    ("frame", np.int64),
    ("timestamp_ns", np.int64),
    ("partner_frame", np.int64),
    ("partner_timestamp_ns", np.int64),
    ("length", np.uint32),
    ("kind", np.uint32),
])
"""What became of a frame; the partner's columns mean something where it is matched."""


cdef struct Record:
    uint64_t digest
    int64_t moved_ns            # on the clock of A
    int64_t timestamp_ns
    int64_t frame
    int64_t partner_frame
    int64_t partner_timestamp_ns
    uint32_t length
    uint32_t next_of_cluster    # the lower bits of a record's number
    uint32_t kind

cdef struct Entry:
    uint64_t digest             # 0: free
    int64_t last_ns
    uint32_t first[2]           # the lower bits of a record's number
    uint8_t count[2]

cdef struct Event:
    int64_t frame
    int64_t timestamp_ns
    int64_t partner_frame
    int64_t partner_timestamp_ns
    uint32_t length
    uint32_t kind

cdef struct Queue:
    Record *records
    uint64_t size               # a power of two
    uint64_t head               # number of the next record to come
    uint64_t tail               # number of the oldest
    Event *events
    uint64_t events_size
    uint64_t event_count


cdef inline uint32_t low_bits(uint64_t number) noexcept nogil:
    """Return enough of a record's number to find it in its queue; never NOBODY."""
    return number & 0x7FFFFFFF


cdef class Stream:
    """Some frames of one capture, in its order.

    Parameters
    ----------
    digests : ndarray of uint64
    timestamps_ns, frames : ndarray of int64
    lengths : ndarray of uint32
        On the wire.

    Attributes
    ----------
    position : int
        The next row to be taken.
    columns : tuple of ndarray
        Digests and timestamps.
    """

    cdef const uint64_t[::1] digests
    cdef const int64_t[::1] timestamps_ns
    cdef const int64_t[::1] frames
    cdef const uint32_t[::1] lengths
    cdef readonly Py_ssize_t position
    cdef readonly Py_ssize_t count
    cdef readonly tuple columns

    def __init__(self, const uint64_t[::1] digests, const int64_t[::1] timestamps_ns, const int64_t[::1] frames,
                 const uint32_t[::1] lengths):
        self.count = digests.shape[0]
        if timestamps_ns.shape[0] != self.count or frames.shape[0] != self.count or lengths.shape[0] != self.count:
            raise ValueError("the columns of a stream have the same length")
        self.digests = digests
        self.timestamps_ns = timestamps_ns
        self.frames = frames
        self.lengths = lengths
        self.position = 0
        self.columns = (np.asarray(digests), np.asarray(timestamps_ns))

    @property
    def used_up(self):
        """Whether every row was taken."""
        return self.position == self.count


cdef class Matcher:
    """Matches the frames of A and B.

    Parameters
    ----------
    window_ns : int
        How far apart a frame may be on the two sides.
    offset_ns : int
        B's clock minus A's.

    Attributes
    ----------
    offset_ns : int
        May be changed between calls.
    widest : int
        Most frames that were kept at a time.
    """

    cdef int64_t window_ns
    cdef public int64_t offset_ns
    cdef readonly int64_t widest
    cdef int64_t now_ns
    cdef bint begun
    cdef Entry *entries
    cdef uint64_t size          # a power of two
    cdef uint64_t used
    cdef Queue queues[2]

    def __cinit__(self, int64_t window_ns, int64_t offset_ns=0):
        cdef int side
        if window_ns < 1:
            raise ValueError("the window is at least 1 ns")
        self.window_ns = window_ns
        self.offset_ns = offset_ns
        self.begun = False
        self.used = 0
        self.widest = 0
        self.size = FIRST_SIZE
        self.entries = <Entry *> calloc(self.size, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        for side in range(2):
            self.queues[side].size = FIRST_SIZE
            self.queues[side].head = self.queues[side].tail = 0
            self.queues[side].events_size = FIRST_SIZE
            self.queues[side].event_count = 0
            self.queues[side].records = <Record *> malloc(FIRST_SIZE * sizeof(Record))
            self.queues[side].events = <Event *> malloc(FIRST_SIZE * sizeof(Event))
            if self.queues[side].records == NULL or self.queues[side].events == NULL:
                raise MemoryError

    def __dealloc__(self):
        cdef int side
        free(self.entries)
        for side in range(2):
            free(self.queues[side].records)
            free(self.queues[side].events)

    def feed(self, Stream a, Stream b, bint a_ended, bint b_ended):
        """Take frames until a side that has not ended is used up.

        Parameters
        ----------
        a, b : Stream
            What there is of each side; their positions are moved.
        a_ended, b_ended : bool
            Nothing comes after this.

        Raises
        ------
        MemoryError
            Frames within the window do not fit into memory: take a smaller one.
        """
        cdef bint enough
        with nogil:
            enough = self.take(a, b, a_ended, b_ended)
        if not enough:
            raise MemoryError("no memory for the frames of a window")

    def finish(self):
        """Close every cluster: nothing more comes."""
        cdef bint enough
        with nogil:
            enough = self.expire(0, True) and self.expire(1, True)
        if not enough:
            raise MemoryError("no memory for the frames of a window")

    def take_events(self, int side):
        """Return what became of frames of side 0 (A) or 1 (B) since the last call: an array of `EVENT_DTYPE`.

        Of A, frames that are matched are left out: they are in the events of B.
        """
        if side not in (0, 1):
            raise ValueError(f"there is no side {side}")
        cdef Queue *queue = &self.queues[side]
        events = np.empty(queue.event_count, EVENT_DTYPE)
        cdef uintptr_t address = events.ctypes.data
        if queue.event_count:
            memcpy(<void *> address, queue.events, queue.event_count * sizeof(Event))
        queue.event_count = 0
        return events

    cdef bint take(self, Stream a, Stream b, bint a_ended, bint b_ended) noexcept nogil:
        cdef bint from_b
        while True:
            if a.position == a.count:
                if not a_ended or b.position == b.count:
                    return True
                from_b = True
            elif b.position == b.count:
                if not b_ended:
                    return True
                from_b = False
            else:
                from_b = b.timestamps_ns[b.position] - self.offset_ns < a.timestamps_ns[a.position]
            if from_b:
                if not self.add(1, b, b.timestamps_ns[b.position] - self.offset_ns):
                    return False
            elif not self.add(0, a, a.timestamps_ns[a.position]):
                return False

    cdef bint add(self, int side, Stream stream, int64_t moved_ns) noexcept nogil:
        """Take the next frame of a side; False where memory does not suffice."""
        cdef Py_ssize_t at = stream.position
        cdef Queue *queue = &self.queues[side]
        cdef Record *record
        cdef Entry *entry
        cdef int64_t kept
        if at + AHEAD < stream.count:
            prefetch(&self.entries[stream.digests[at + AHEAD] & (self.size - 1)])
        stream.position = at + 1
        if not self.begun or moved_ns > self.now_ns:
            self.now_ns = moved_ns
            self.begun = True
        if not self.expire(0, False) or not self.expire(1, False):
            return False
        if queue.head - queue.tail == queue.size and not grow_queue(queue):
            return False
        if 2 * self.used >= self.size and not self.grow_table():
            return False
        record = &queue.records[queue.head & (queue.size - 1)]
        record.digest = stream.digests[at]
        record.moved_ns = moved_ns
        record.timestamp_ns = stream.timestamps_ns[at]
        record.frame = stream.frames[at]
        record.length = stream.lengths[at]
        record.next_of_cluster = NOBODY
        record.kind = PENDING
        entry = self.entry_of(record.digest)
        if entry.digest and entry.last_ns < self.now_ns - self.window_ns:
            self.resolve(entry)
            entry.count[0] = entry.count[1] = 0
        elif not entry.digest:
            entry.digest = record.digest
            entry.count[0] = entry.count[1] = 0
            self.used += 1
        if entry.count[side] == CLUSTER_MOST:
            # So many that nobody could tell them apart; from here on none is even chained.
            record.kind = AMBIGUOUS
        else:
            if entry.count[side]:
                self.last_of(entry, side).next_of_cluster = low_bits(queue.head)
            else:
                entry.first[side] = low_bits(queue.head)
            entry.count[side] += 1
            if entry.count[side] == CLUSTER_MOST:
                self.give_up(entry)
        entry.last_ns = self.now_ns
        queue.head += 1
        kept = <int64_t> (self.queues[0].head - self.queues[0].tail + self.queues[1].head - self.queues[1].tail)
        if kept > self.widest:
            self.widest = kept
        return True

    cdef Record *last_of(self, Entry *entry, int side) noexcept nogil:
        """Return the record of the last frame of a side of a cluster."""
        cdef Record *record = self.record(side, entry.first[side])
        while record.next_of_cluster != NOBODY:
            record = self.record(side, record.next_of_cluster)
        return record

    cdef inline Record *record(self, int side, uint64_t number) noexcept nogil:
        return &self.queues[side].records[number & (self.queues[side].size - 1)]

    cdef inline Entry *entry_of(self, uint64_t digest) noexcept nogil:
        """Return the entry of a digest, or the free one where it belongs."""
        cdef uint64_t at = digest & (self.size - 1)
        while self.entries[at].digest and self.entries[at].digest != digest:
            at = (at + 1) & (self.size - 1)
        return &self.entries[at]

    cdef void give_up(self, Entry *entry) noexcept nogil:
        """Call every frame of a cluster ambiguous; the entry stays, and says so of those that come."""
        cdef int side
        cdef uint32_t number
        for side in range(2):
            number = entry.first[side] if entry.count[side] else NOBODY
            while number != NOBODY:
                self.record(side, number).kind = AMBIGUOUS
                number = self.record(side, number).next_of_cluster
            entry.count[side] = CLUSTER_MOST

    cdef void resolve(self, Entry *entry) noexcept nogil:
        """Say of every frame of a cluster what it came to."""
        cdef uint32_t of_a = entry.count[0], of_b = entry.count[1]
        cdef uint32_t number_a, number_b
        cdef Record *a
        cdef Record *b
        cdef uint32_t left = AMBIGUOUS
        cdef bint pairs = of_a > 0 and of_b > 0 and (of_a == of_b or of_a == 1 or of_b == 1)
        if entry.count[0] == CLUSTER_MOST or entry.count[1] == CLUSTER_MOST:
            return
        if of_a == 0 or of_b == 0:
            left = ONLY
        elif pairs:
            left = DUPLICATE
        number_a = entry.first[0] if of_a else NOBODY
        number_b = entry.first[1] if of_b else NOBODY
        while number_a != NOBODY or number_b != NOBODY:
            a = self.record(0, number_a) if number_a != NOBODY else NULL
            b = self.record(1, number_b) if number_b != NOBODY else NULL
            if pairs and a != NULL and b != NULL:
                if -self.window_ns <= b.moved_ns - a.moved_ns <= self.window_ns:
                    a.kind = b.kind = MATCHED
                    b.partner_frame = a.frame
                    b.partner_timestamp_ns = a.timestamp_ns
                else:
                    a.kind = b.kind = AMBIGUOUS
            else:
                if a != NULL:
                    a.kind = left
                if b != NULL:
                    b.kind = left
            if a != NULL:
                number_a = a.next_of_cluster
            if b != NULL:
                number_b = b.next_of_cluster

    cdef bint expire(self, int side, bint everything) noexcept nogil:
        """Let frames go whose cluster is closed; False where memory does not suffice."""
        cdef Queue *queue = &self.queues[side]
        cdef Record *record
        cdef Entry *entry
        cdef int64_t limit_ns = self.now_ns - self.window_ns
        while queue.tail != queue.head:
            record = self.record(side, queue.tail)
            if not everything and record.moved_ns >= limit_ns:
                return True
            if queue.tail + AHEAD < queue.head:
                prefetch(&self.entries[self.record(side, queue.tail + AHEAD).digest & (self.size - 1)])
            if record.kind == PENDING or record.kind == AMBIGUOUS:
                entry = self.entry_of(record.digest)
                if entry.digest and (everything or entry.last_ns < limit_ns):
                    self.resolve(entry)
                    self.remove(entry)
                elif record.kind == PENDING:
                    return True
            if not emit(queue, record, side):
                return False
            queue.tail += 1
        return True

    cdef void remove(self, Entry *entry) noexcept nogil:
        """Free an entry, and move those up that stand further from their place because of it."""
        cdef uint64_t hole = entry - self.entries
        cdef uint64_t at = hole
        cdef uint64_t home
        while True:
            at = (at + 1) & (self.size - 1)
            if not self.entries[at].digest:
                break
            home = self.entries[at].digest & (self.size - 1)
            if ((at - home) & (self.size - 1)) >= ((at - hole) & (self.size - 1)):
                self.entries[hole] = self.entries[at]
                hole = at
        self.entries[hole].digest = 0
        self.used -= 1

    cdef bint grow_table(self) noexcept nogil:
        cdef Entry *before = self.entries
        cdef uint64_t size = self.size
        cdef uint64_t at
        cdef Entry *after = <Entry *> calloc(2 * size, sizeof(Entry))
        if after == NULL:
            return False
        self.entries = after
        self.size = 2 * size
        self.used = 0
        for at in range(size):
            # Of a cluster that was given up, no frame may be left that would free its entry.
            if before[at].digest and not (before[at].count[0] == CLUSTER_MOST
                                          and before[at].last_ns < self.now_ns - self.window_ns):
                self.entry_of(before[at].digest)[0] = before[at]
                self.used += 1
        free(before)
        return True


cdef bint grow_queue(Queue *queue) noexcept nogil:
    cdef Record *after = <Record *> malloc(2 * queue.size * sizeof(Record))
    cdef uint64_t number = queue.tail
    if after == NULL:
        return False
    while number != queue.head:
        after[number & (2 * queue.size - 1)] = queue.records[number & (queue.size - 1)]
        number += 1
    free(queue.records)
    queue.records = after
    queue.size *= 2
    return True


cdef bint emit(Queue *queue, Record *record, int side) noexcept nogil:
    """Append what a frame came to; False where memory does not suffice."""
    cdef Event *event
    cdef Event *after
    if side == 0 and record.kind == MATCHED:
        return True
    if queue.event_count == queue.events_size:
        after = <Event *> malloc(2 * queue.events_size * sizeof(Event))
        if after == NULL:
            return False
        memcpy(after, queue.events, queue.event_count * sizeof(Event))
        free(queue.events)
        queue.events = after
        queue.events_size *= 2
    event = &queue.events[queue.event_count]
    event.frame = record.frame
    event.timestamp_ns = record.timestamp_ns
    event.partner_frame = record.partner_frame if record.kind == MATCHED else 0
    event.partner_timestamp_ns = record.partner_timestamp_ns if record.kind == MATCHED else 0
    event.length = record.length
    event.kind = record.kind
    queue.event_count += 1
    return True
