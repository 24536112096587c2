"""Matching two streams of digests frame by frame, in one pass with bounded memory.

A. Both streams are taken in the order of their stamps, those of B moved by the offset of its clock. Each frame is a
   record in its side's queue, and belongs to a cluster: frames of one digest that come within the window of each other.
   The first record of a cluster is its head, and knows the others.
B. A cluster is closed when the window has passed since its last frame. Then, with a frames of A and b of B:
   - none on one side: the frames are only on the other;
   - a == b: the first of A is the first of B, and so on, where they are within the window of each other;
   - a == 1 or b == 1: the first is the first, the others are duplicates;
   - else it cannot be told which one is missing, and all are ambiguous.
   A digest that comes CLUSTER_MOST times on a side is given up: all its frames are ambiguous, until it is silent for a
   window. Given up digests are kept in a table of their own, so that no later frame is taken for a new beginning.
C. Frames leave the queues in the order in which they came, when their cluster is closed. What they came to is an event.
D. The table that finds heads has eight bytes a slot: half of the digest and the record's number. It is looked into at
   random and so must be small; what it points to is mostly young and still in the cache. Lines that will be wanted soon
   are asked for ahead.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

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
cdef uint64_t FREE = 0xFFFFFFFFFFFFFFFF

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
    int64_t moved_ns                # on the clock of A
    int64_t timestamp_ns
    int64_t frame
    int64_t partner_frame           # of a head: when its cluster's last frame came
    int64_t partner_timestamp_ns
    uint32_t length
    uint32_t next_of_side           # handle of the cluster's next record on this side
    uint32_t first_of_other         # of a head: handle of the first record on the other side
    uint8_t count[2]                # of a head: records of the cluster
    uint8_t kind

cdef struct GivenUp:
    uint64_t digest                 # 0: free
    int64_t last_ns

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


# A handle is a record's number, as far as it is needed to find it in its queue, and its side in the lowest bit.
cdef inline uint32_t handle_of(int side, uint64_t number) noexcept nogil:
    return <uint32_t> (number << 1 & 0x7FFFFFFE) | side


cdef inline uint64_t slot_of(uint64_t digest, uint32_t handle) noexcept nogil:
    """Return what stands in the table: the digest's upper half and the head's handle, never FREE."""
    return digest >> 32 << 32 | handle


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
    cdef uint64_t *slots
    cdef uint64_t size              # a power of two
    cdef uint64_t used
    cdef GivenUp *given_up
    cdef uint64_t given_up_size     # a power of two
    cdef uint64_t given_up_used
    cdef Queue queues[2]

    def __cinit__(self, int64_t window_ns, int64_t offset_ns=0):
        cdef int side
        if window_ns < 1:
            raise ValueError("the window is at least 1 ns")
        self.window_ns = window_ns
        self.offset_ns = offset_ns
        self.begun = False
        self.widest = 0
        self.used = self.given_up_used = 0
        self.size = self.given_up_size = FIRST_SIZE
        self.slots = free_slots(FIRST_SIZE)
        self.given_up = <GivenUp *> calloc(FIRST_SIZE, sizeof(GivenUp))
        if self.slots == NULL or self.given_up == NULL:
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
        free(self.slots)
        free(self.given_up)
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
        cdef int64_t kept
        if at + AHEAD < stream.count:
            prefetch(&self.slots[stream.digests[at + AHEAD] >> 32 & (self.size - 1)])
        prefetch(&queue.records[(queue.head + AHEAD) & (queue.size - 1)])
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
        if 2 * self.given_up_used >= self.given_up_size and not self.grow_given_up():
            return False
        record = &queue.records[queue.head & (queue.size - 1)]
        record.digest = stream.digests[at]
        record.moved_ns = moved_ns
        record.timestamp_ns = stream.timestamps_ns[at]
        record.frame = stream.frames[at]
        record.length = stream.lengths[at]
        record.next_of_side = NOBODY
        record.kind = PENDING
        self.join_cluster(side, record, queue.head)
        queue.head += 1
        kept = <int64_t> (self.queues[0].head - self.queues[0].tail + self.queues[1].head - self.queues[1].tail)
        if kept > self.widest:
            self.widest = kept
        return True

    cdef inline Record *record(self, uint32_t handle) noexcept nogil:
        cdef Queue *queue = &self.queues[handle & 1]
        return &queue.records[handle >> 1 & (queue.size - 1)]

    cdef inline uint64_t find(self, uint64_t digest) noexcept nogil:
        """Return the slot that points to the head of a digest, or the free one where it belongs."""
        cdef uint64_t at = digest >> 32 & (self.size - 1)
        while self.slots[at] != FREE:
            if not (self.slots[at] ^ digest) >> 32 and self.record(<uint32_t> self.slots[at]).digest == digest:
                break
            at = (at + 1) & (self.size - 1)
        return at

    cdef void join_cluster(self, int side, Record *record, uint64_t number) noexcept nogil:
        """Put a record into its digest's cluster, or let it be the head of a new one."""
        cdef uint64_t at
        cdef uint32_t handle = handle_of(side, number)
        cdef Record *head
        if self.given_up_used and self.is_given_up(record.digest):
            record.kind = AMBIGUOUS
            return
        at = self.find(record.digest)
        if self.slots[at] != FREE:
            head = self.record(<uint32_t> self.slots[at])
            if head.partner_frame >= self.now_ns - self.window_ns:
                self.append(head, <int> (self.slots[at] & 1), side, record, handle)
                head.partner_frame = self.now_ns
                head.count[side] += 1
                if head.count[side] == CLUSTER_MOST:
                    self.give_up(at, head)
                return
            self.resolve(<uint32_t> self.slots[at], head)
        else:
            self.used += 1
        self.slots[at] = slot_of(record.digest, handle)
        record.partner_frame = self.now_ns
        record.first_of_other = NOBODY
        record.count[side] = 1
        record.count[1 - side] = 0

    cdef void append(self, Record *head, int side_of_head, int side, Record *record, uint32_t handle) noexcept nogil:
        """Put a record behind the last one of its side of a cluster."""
        cdef Record *last = head
        if side != side_of_head:
            if head.first_of_other == NOBODY:
                head.first_of_other = handle
                return
            last = self.record(head.first_of_other)
        while last.next_of_side != NOBODY:
            last = self.record(last.next_of_side)
        last.next_of_side = handle

    cdef void give_up(self, uint64_t at, Record *head) noexcept nogil:
        """Call every frame of a cluster ambiguous, and remember its digest."""
        cdef uint32_t first[2]
        cdef int side
        cdef uint32_t handle
        cdef uint64_t place = head.digest & (self.given_up_size - 1)
        first[0] = <uint32_t> self.slots[at]
        first[1] = head.first_of_other
        while self.given_up[place].digest and self.given_up[place].digest != head.digest:
            place = (place + 1) & (self.given_up_size - 1)
        if not self.given_up[place].digest:
            self.given_up_used += 1
        self.given_up[place].digest = head.digest
        self.given_up[place].last_ns = head.partner_frame
        for side in range(2):
            handle = first[side]
            while handle != NOBODY:
                self.record(handle).kind = AMBIGUOUS
                handle = self.record(handle).next_of_side
        self.remove(at)

    cdef bint is_given_up(self, uint64_t digest) noexcept nogil:
        """Whether a digest was given up and not silent for a window since; it has just come again."""
        cdef uint64_t place = digest & (self.given_up_size - 1)
        while self.given_up[place].digest:
            if self.given_up[place].digest == digest:
                if self.given_up[place].last_ns < self.now_ns - self.window_ns:
                    return False
                self.given_up[place].last_ns = self.now_ns
                return True
            place = (place + 1) & (self.given_up_size - 1)
        return False

    cdef void resolve(self, uint32_t handle, Record *head) noexcept nogil:
        """Say of every frame of a cluster what it came to."""
        cdef uint32_t of_a = head.count[0], of_b = head.count[1]
        cdef uint32_t next_a = handle, next_b = head.first_of_other
        cdef Record *a
        cdef Record *b
        cdef uint8_t left = AMBIGUOUS
        cdef bint pairs = of_a > 0 and of_b > 0 and (of_a == of_b or of_a == 1 or of_b == 1)
        if handle & 1:
            next_a, next_b = next_b, handle
        if of_a == 0 or of_b == 0:
            left = ONLY
        elif pairs:
            left = DUPLICATE
        while next_a != NOBODY or next_b != NOBODY:
            a = self.record(next_a) if next_a != NOBODY else NULL
            b = self.record(next_b) if next_b != NOBODY else NULL
            next_a = a.next_of_side if a != NULL else NOBODY
            next_b = b.next_of_side if b != NULL else NOBODY
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

    cdef bint expire(self, int side, bint everything) noexcept nogil:
        """Let frames go whose cluster is closed; False where memory does not suffice."""
        cdef Queue *queue = &self.queues[side]
        cdef Record *record
        cdef Record *head
        cdef uint64_t at
        cdef int64_t limit_ns = self.now_ns - self.window_ns
        while queue.tail != queue.head:
            record = &queue.records[queue.tail & (queue.size - 1)]
            if not everything and record.moved_ns >= limit_ns:
                return True
            if queue.tail + AHEAD < queue.head:
                prefetch(&self.slots[queue.records[(queue.tail + AHEAD) & (queue.size - 1)].digest >> 32
                                     & (self.size - 1)])
            if record.kind == PENDING:
                at = self.find(record.digest)
                head = self.record(<uint32_t> self.slots[at])
                if not everything and head.partner_frame >= limit_ns:
                    return True
                self.resolve(<uint32_t> self.slots[at], head)
                self.remove(at)
            if not emit(queue, record, side):
                return False
            queue.tail += 1
        return True

    cdef void remove(self, uint64_t hole) noexcept nogil:
        """Free a slot, and move those up that stand further from their place because of it."""
        cdef uint64_t at = hole
        cdef uint64_t home
        while True:
            at = (at + 1) & (self.size - 1)
            if self.slots[at] == FREE:
                break
            home = self.slots[at] >> 32 & (self.size - 1)
            if ((at - home) & (self.size - 1)) >= ((at - hole) & (self.size - 1)):
                self.slots[hole] = self.slots[at]
                hole = at
        self.slots[hole] = FREE
        self.used -= 1

    cdef bint grow_table(self) noexcept nogil:
        cdef uint64_t *before = self.slots
        cdef uint64_t size = self.size
        cdef uint64_t at, place
        cdef uint64_t *after = free_slots(2 * size)
        if after == NULL:
            return False
        self.slots = after
        self.size = 2 * size
        for at in range(size):
            if before[at] != FREE:
                place = before[at] >> 32 & (self.size - 1)
                while self.slots[place] != FREE:
                    place = (place + 1) & (self.size - 1)
                self.slots[place] = before[at]
        free(before)
        return True

    cdef bint grow_given_up(self) noexcept nogil:
        """Forget what was silent for a window, and make room."""
        cdef GivenUp *before = self.given_up
        cdef uint64_t size = self.given_up_size
        cdef uint64_t at, place
        cdef GivenUp *after = <GivenUp *> calloc(2 * size, sizeof(GivenUp))
        if after == NULL:
            return False
        self.given_up = after
        self.given_up_size = 2 * size
        self.given_up_used = 0
        for at in range(size):
            if before[at].digest and before[at].last_ns >= self.now_ns - self.window_ns:
                place = before[at].digest & (self.given_up_size - 1)
                while after[place].digest:
                    place = (place + 1) & (self.given_up_size - 1)
                after[place] = before[at]
                self.given_up_used += 1
        free(before)
        return True


cdef uint64_t *free_slots(uint64_t size) noexcept nogil:
    cdef uint64_t *slots = <uint64_t *> malloc(size * sizeof(uint64_t))
    if slots != NULL:
        memset(slots, 0xFF, size * sizeof(uint64_t))
    return slots


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
