"""Runs: requests and the responses to them, put together by key in one pass.

A. A run is what comes under one key without a boundary. Between two neighbours of a key there is a boundary where
   (1) a frame after the first of them, up to and including the second, is timestamped more than the timeout before or
   after
       the first, by the same timestamp source (timestamps of different sources are never compared);
   (2) since the first of them, QUIET_FRAMES frames came in a row none of which its timestamp source timestamped;
   (3) the second is a request, and the first a response (not in rounds), or a request of another timestamp source, or
   any
       request at all where each stands for itself.
   Each of these looks at what lies between the two only, not at what came before. That is what makes the law hold: a
   run is cut in two by a cut of the capture, and `join` puts the two together again. It is associative.
B. A run that (1) or (2) has ended is taken out at once, so that there are only as many as the timeout makes there be. A
   heap a timestamp source, with the earliest last timestamp on top, says which these are. Of the latest there is only a
   bound, as time mostly runs forward; a step back makes a heap of them, which is kept up for as many events as it had
   runs, so that stepping to and fro costs no more than that each.
C. The first run of a key may continue one of the part of the capture before: a head. What it takes to tell later, the
   extremes of timestamps up to its first frame, is kept with it. Once timestamps of a source have spread over more than
   two timeouts, or it was silent for long, no frame of that source before the part can matter; once that holds for all
   sources, there are no further heads.
D. Where (3) alone ends a run, it knows the request that follows: a response without a request that precedes one is a
   sign that the two directions are not on one clock, or were not captured in order. Whether the run has a request is
   known once it is settled, and then the request behind it is as well.
E. The number is bounded by sampling on the hash of the key, as in flow_index.pyx. A class is the number of zero bits
   that a key's hash begins with; at level L only runs of classes from L on are followed. The level rises until no more
   than `maximum` frames of a source fall in a slot of one timeout (aligned to the epoch, as long as no other slot comes
   between). That depends on the stream alone. What is settled is kept by class (request_ledger), and the classes below
   the final level are left out of the result.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset

import numpy as np

from uspcap._core.columns cimport FrameColumns
from uspcap._core.saturating cimport difference
from uspcap._core.states cimport (
    Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacked_new, unpacking,
)
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP

SILENT_FRAMES = 1 << 16
REPLIES_KEPT = MAXIMUM_REPLIES
CLASS_COUNT = CLASSES

cdef enum:
    QUIET_FRAMES = 1 << 16
    RESPONDERS = 64

RESPONDERS_KEPT = RESPONDERS

cdef enum:
    RETRANSMITTED = 0       # requests before the answer are the same request again
    EACH = 1                # every request stands for itself
    ROUNDS = 2              # requests may go on after the first answer

POLICIES = {"retransmitted": RETRANSMITTED, "each": EACH, "rounds": ROUNDS}


# What a part of a capture had shown by the first frame of one of its heads.
cdef struct Context:
    int64_t lowest_ns[6]
    int64_t highest_ns[6]
    int64_t seen            # bit set of timestamp sources
    int64_t silent          # those that were silent for long, in between or at the beginning

cdef struct Visit:
    int64_t slot
    int64_t frames[16]      # by class

cdef struct Heap:
    int32_t *items
    Py_ssize_t count
    Py_ssize_t allocated


cdef class Runs:
    """Rows of one run each, with their replies."""

    def __cinit__(self, Py_ssize_t stride):
        self.count = self.allocated = 0
        self.stride = stride

    def __dealloc__(self):
        free(self.rows)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        pack(&packed, self.rows, self.count * self.stride)
        return _runs, (self.stride, self.count, finished(&packed))

    cdef inline Run *at(self, Py_ssize_t row) noexcept nogil:
        return <Run *> (self.rows + row * self.stride)

    cdef Run *add(self, Run *run) noexcept nogil:
        """Copy a run behind the last; NULL where there is no memory."""
        cdef Py_ssize_t allocated
        cdef void *grown
        if self.count == self.allocated:
            allocated = 2 * self.allocated or 64
            grown = realloc(self.rows, allocated * self.stride)
            if grown == NULL:
                return NULL
            self.rows = <uint8_t *> grown
            self.allocated = allocated
        memcpy(self.at(self.count), run, self.stride)
        self.count += 1
        return self.at(self.count - 1)


def _runs(Py_ssize_t stride, Py_ssize_t count, bytes state):
    """Return pickled rows."""
    cdef Runs runs = Runs(stride)
    cdef Unpacked unpacked = unpacking(state)
    runs.rows = <uint8_t *> unpacked_new(&unpacked, count * stride, 0)
    all_read(&unpacked)
    runs.count = runs.allocated = count
    return runs


cdef void join(Run *a, Run *b, Py_ssize_t capacity) noexcept nogil:
    """Let `a` be followed by `b`, of the same key, in one run; places and head are those of `a`."""
    cdef bint answered = a.requests > 0 and a.last_response_frame > a.first_request_frame
    cdef Reply *mine = replies_of(a)
    cdef Reply *others = replies_of(b)
    cdef Py_ssize_t i, j
    if a.requests == 0:
        a.first_request_ns, a.first_request_frame, a.request_source = (
            b.first_request_ns, b.first_request_frame, b.request_source)
        a.asked_ns, a.asked_frame, a.asked_source = b.asked_ns, b.asked_frame, b.asked_source
    elif not answered and b.first_kind == REQUEST:
        a.asked_ns, a.asked_frame, a.asked_source = b.asked_ns, b.asked_frame, b.asked_source
    if a.responses == 0:
        a.answer_ns, a.answer_frame, a.answer_source = b.answer_ns, b.answer_frame, b.answer_source
    if b.responses:
        a.last_response_frame = b.last_response_frame
    a.requests += b.requests
    a.responses += b.responses
    a.last_kind, a.last_ns, a.last_source = b.last_kind, b.last_ns, b.last_source
    a.beyond |= b.beyond
    a.precedes, a.preceded_ns = b.precedes, b.preceded_ns
    for i in range(b.replies):
        j = 0
        while j < a.replies and mine[j].responder != others[i].responder:
            j += 1
        if j < a.replies:
            continue
        if j == capacity:
            a.beyond = 1
            continue
        mine[j] = others[i]
        a.replies += 1


cdef inline void precede(Run *a, Run *b) noexcept nogil:
    """Note that `b`, which begins with a request, directly follows `a` within the timeout."""
    if a.last_source == b.request_source:
        a.precedes = 1
        a.preceded_ns = b.first_request_ns


cdef void unpack_heap(Unpacked *unpacked, Heap *heap) noexcept nogil:
    heap.items = <int32_t *> unpacked_new(unpacked, heap.count * sizeof(int32_t), heap.allocated * sizeof(int32_t))
    if heap.items == NULL:
        heap.count = heap.allocated = 0


cdef class RequestRuns:
    """Runs of one rule, those that are open and those that are over.

    Parameters
    ----------
    timeout_ns : int
        The timeout in ns, 1 to 2**60.
    policy : int
        Of `POLICIES`; replies are kept one by one in rounds only.
    maximum : int
        Bound on the frames followed in a slot as long as the timeout.
    """

    cdef readonly int level
    cdef readonly int64_t without_timestamp
    cdef readonly Py_ssize_t stride
    cdef readonly Py_ssize_t live
    cdef readonly Runs over
    cdef Runs heads
    cdef int policy
    cdef int64_t timeout_ns
    cdef int64_t maximum
    cdef Py_ssize_t capacity
    cdef int64_t frames_read
    cdef int64_t requests_seen[16]
    cdef int64_t responses_seen[16]
    # Open runs: rows with holes, found by an open-addressing table of row numbers + 1.
    cdef uint8_t *rows
    cdef Py_ssize_t allocated
    cdef Py_ssize_t used
    cdef int32_t *spare
    cdef Py_ssize_t spares
    cdef int32_t *table
    cdef uint64_t mask
    cdef Heap earliest[6]
    cdef Heap latest[6]
    cdef int64_t kept[6]        # events that `latest` is still kept up for; empty and out of use at 0
    cdef int64_t highest[6]     # no open run has a later last timestamp
    # What this part of the capture has shown.
    cdef Context context
    cdef int64_t first_frame[6]
    cdef int64_t last_frame[6]
    cdef bint settled
    cdef Context *contexts
    cdef Py_ssize_t context_count
    cdef Py_ssize_t contexts_allocated
    cdef Visit first_visit[6]
    cdef Visit visit[6]
    cdef int visits[6]          # 0, 1, or 2 for more
    cdef uint64_t responders[64]
    cdef int responder_count
    cdef bint more_responders
    cdef bint failed
    cdef uint8_t *scratch

    def __cinit__(self, int64_t timeout_ns, int policy, int64_t maximum):
        if not 1 <= timeout_ns <= 1 << 60:
            raise ValueError("a timeout is 1 ns to 2**60 ns")
        if policy not in POLICIES.values() or maximum < 1:
            raise ValueError("there is no such policy, or no room for a run")
        self.timeout_ns = timeout_ns
        self.policy = policy
        self.maximum = maximum
        self.capacity = MAXIMUM_REPLIES if policy == ROUNDS else 0
        self.stride = sizeof(Run) + self.capacity * sizeof(Reply)
        self.over = Runs(self.stride)
        self.heads = Runs(self.stride)
        self.scratch = <uint8_t *> realloc(NULL, self.stride)
        self.grow(1024)
        if self.failed or self.scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        cdef int source
        free(self.rows)
        free(self.spare)
        free(self.table)
        free(self.contexts)
        free(self.scratch)
        for source in range(SOURCES):
            free(self.earliest[source].items)
            free(self.latest[source].items)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        cdef int source
        self.pack_fixed(&packed)
        pack(&packed, self.rows, self.used * self.stride)
        pack(&packed, self.spare, self.spares * sizeof(int32_t))
        pack(&packed, self.contexts, self.context_count * sizeof(Context))
        for source in range(SOURCES):
            pack(&packed, self.earliest[source].items, self.earliest[source].count * sizeof(int32_t))
            pack(&packed, self.latest[source].items, self.latest[source].count * sizeof(int32_t))
        counted = (self.level, self.without_timestamp, self.live, self.frames_read, self.used, self.spares, self.settled,
                   self.context_count, self.responder_count, self.more_responders, self.failed)
        return _request_runs, ((self.timeout_ns, self.policy, self.maximum), counted, self.over, self.heads,
                               finished(&packed))

    cdef void pack_fixed(self, Packed *packed) noexcept nogil:
        pack(packed, self.requests_seen, sizeof(self.requests_seen))
        pack(packed, self.responses_seen, sizeof(self.responses_seen))
        pack(packed, self.earliest, sizeof(self.earliest))
        pack(packed, self.latest, sizeof(self.latest))
        pack(packed, self.kept, sizeof(self.kept))
        pack(packed, self.highest, sizeof(self.highest))
        pack(packed, &self.context, sizeof(self.context))
        pack(packed, self.first_frame, sizeof(self.first_frame))
        pack(packed, self.last_frame, sizeof(self.last_frame))
        pack(packed, self.first_visit, sizeof(self.first_visit))
        pack(packed, self.visit, sizeof(self.visit))
        pack(packed, self.visits, sizeof(self.visits))
        pack(packed, self.responders, sizeof(self.responders))

    cdef void unpack_fixed(self, Unpacked *unpacked) noexcept nogil:
        """Read what `pack_fixed` packed; the heaps still lack their items."""
        cdef int source
        unpack(unpacked, self.requests_seen, sizeof(self.requests_seen))
        unpack(unpacked, self.responses_seen, sizeof(self.responses_seen))
        unpack(unpacked, self.earliest, sizeof(self.earliest))
        unpack(unpacked, self.latest, sizeof(self.latest))
        for source in range(SOURCES):
            self.earliest[source].items = self.latest[source].items = NULL
        unpack(unpacked, self.kept, sizeof(self.kept))
        unpack(unpacked, self.highest, sizeof(self.highest))
        unpack(unpacked, &self.context, sizeof(self.context))
        unpack(unpacked, self.first_frame, sizeof(self.first_frame))
        unpack(unpacked, self.last_frame, sizeof(self.last_frame))
        unpack(unpacked, self.first_visit, sizeof(self.first_visit))
        unpack(unpacked, self.visit, sizeof(self.visit))
        unpack(unpacked, self.visits, sizeof(self.visits))
        unpack(unpacked, self.responders, sizeof(self.responders))

    cdef int restore(self, Unpacked *unpacked, tuple counted) except -1:
        """Read what was packed into a new object."""
        cdef Py_ssize_t used, spares, contexts, rows = self.allocated
        cdef int source
        (self.level, self.without_timestamp, self.live, self.frames_read, used, spares, self.settled, contexts,
         self.responder_count, self.more_responders, self.failed) = counted
        while rows < used:
            rows *= 2
        # There is nothing in the heaps yet that it would enter into the table.
        self.grow(rows)
        if self.failed:
            raise MemoryError
        self.unpack_fixed(unpacked)
        unpack(unpacked, self.rows, used * self.stride)
        unpack(unpacked, self.spare, spares * sizeof(int32_t))
        self.used, self.spares = used, spares
        self.contexts = <Context *> unpacked_new(unpacked, contexts * sizeof(Context), 0)
        self.context_count = self.contexts_allocated = contexts if self.contexts != NULL else 0
        for source in range(SOURCES):
            unpack_heap(unpacked, &self.earliest[source])
            unpack_heap(unpacked, &self.latest[source])
        self.grow(rows)
        return 0

    cdef inline Run *row(self, Py_ssize_t number) noexcept nogil:
        return <Run *> (self.rows + number * self.stride)

    # The table of open runs.

    cdef void grow(self, Py_ssize_t rows) noexcept nogil:
        """Make room for `rows` runs; where there is no memory, `failed` says so."""
        cdef void *grown = realloc(self.rows, rows * self.stride)
        cdef void *spare = realloc(self.spare, rows * sizeof(int32_t)) if grown != NULL else NULL
        cdef void *table
        cdef Py_ssize_t i
        cdef int source
        if grown != NULL:
            self.rows = <uint8_t *> grown
        if spare != NULL:
            self.spare = <int32_t *> spare
        table = realloc(self.table, 2 * rows * sizeof(int32_t)) if spare != NULL else NULL
        if table == NULL:
            self.failed = True
            return
        self.table = <int32_t *> table
        self.allocated = rows
        self.mask = 2 * rows - 1
        memset(self.table, 0, 2 * rows * sizeof(int32_t))
        for source in range(SOURCES):
            for i in range(self.earliest[source].count):
                self.enter(self.earliest[source].items[i])

    cdef inline uint64_t home(self, Run *run) noexcept nogil:
        return run.key_low & self.mask

    cdef void enter(self, int32_t number) noexcept nogil:
        cdef uint64_t place = self.home(self.row(number))
        while self.table[place]:
            place = (place + 1) & self.mask
        self.table[place] = number + 1

    cdef int32_t find(self, Run *like) noexcept nogil:
        """Return the open run of a key, -1 where there is none."""
        cdef uint64_t place = self.home(like)
        cdef Run *run
        while self.table[place]:
            run = self.row(self.table[place] - 1)
            if run.key_high == like.key_high and run.key_low == like.key_low:
                return self.table[place] - 1
            place = (place + 1) & self.mask
        return -1

    cdef void forget(self, int32_t number) noexcept nogil:
        """Take a run out of the table and the heaps; its row is free for another."""
        cdef Run *run = self.row(number)
        cdef uint64_t place = self.home(run), hole, ideal
        while self.table[place] != number + 1:
            place = (place + 1) & self.mask
        hole = place
        while True:
            place = (place + 1) & self.mask
            if self.table[place] == 0:
                break
            ideal = self.home(self.row(self.table[place] - 1))
            # What lies between its home and here may move into the hole, unless its home comes after that.
            if ((place - ideal) & self.mask) >= ((place - hole) & self.mask):
                self.table[hole] = self.table[place]
                hole = place
        self.table[hole] = 0
        self.displace(run)
        self.spare[self.spares] = number
        self.spares += 1
        self.live -= 1

    cdef int32_t open_run(self, Run *run) noexcept nogil:
        """Copy a run into the table and the heaps; -1 where there is no memory."""
        cdef int32_t number
        if self.spares == 0 and self.used == self.allocated:
            self.grow(2 * self.allocated)
            if self.failed:
                return -1
        if self.spares:
            self.spares -= 1
            number = self.spare[self.spares]
        else:
            number = <int32_t> self.used
            self.used += 1
        memcpy(self.row(number), run, self.stride)
        self.enter(number)
        self.live += 1
        self.place(number)
        return number

    # Heaps: order 0 has the earliest timestamp on top, 1 the latest.

    cdef inline bint above(self, int32_t a, int32_t b, int order) noexcept nogil:
        cdef int64_t x = self.row(a).last_ns, y = self.row(b).last_ns
        return x > y if order else x < y

    cdef inline void put(self, Heap *heap, Py_ssize_t place, int32_t number, int order) noexcept nogil:
        heap.items[place] = number
        self.row(number).places[order] = place

    cdef void rise(self, Heap *heap, Py_ssize_t place, int order) noexcept nogil:
        cdef int32_t number = heap.items[place]
        cdef Py_ssize_t parent
        while place:
            parent = (place - 1) >> 1
            if not self.above(number, heap.items[parent], order):
                break
            self.put(heap, place, heap.items[parent], order)
            place = parent
        self.put(heap, place, number, order)

    cdef void sink(self, Heap *heap, Py_ssize_t place, int order) noexcept nogil:
        cdef int32_t number = heap.items[place]
        cdef Py_ssize_t child
        while True:
            child = 2 * place + 1
            if child >= heap.count:
                break
            if child + 1 < heap.count and self.above(heap.items[child + 1], heap.items[child], order):
                child += 1
            if not self.above(heap.items[child], number, order):
                break
            self.put(heap, place, heap.items[child], order)
            place = child
        self.put(heap, place, number, order)

    cdef void leave(self, Heap *heap, Py_ssize_t place, int order) noexcept nogil:
        cdef int32_t last
        heap.count -= 1
        if place == heap.count:
            return
        last = heap.items[heap.count]
        self.put(heap, place, last, order)
        self.rise(heap, place, order)
        self.sink(heap, self.row(last).places[order], order)

    cdef void arrive(self, Heap *heap, int32_t number, int order) noexcept nogil:
        cdef Py_ssize_t allocated
        cdef void *grown
        if heap.count == heap.allocated:
            allocated = 2 * heap.allocated or 64
            grown = realloc(heap.items, allocated * sizeof(int32_t))
            if grown == NULL:
                self.failed = True
                return
            heap.items = <int32_t *> grown
            heap.allocated = allocated
        heap.count += 1
        self.put(heap, heap.count - 1, number, order)
        self.rise(heap, heap.count - 1, order)

    cdef void place(self, int32_t number) noexcept nogil:
        """Put a run into the heaps of the timestamp source of its last frame."""
        cdef int64_t source = self.row(number).last_source
        self.arrive(&self.earliest[source], number, 0)
        if self.earliest[source].count == 1 or self.row(number).last_ns > self.highest[source]:
            self.highest[source] = self.row(number).last_ns
        if self.kept[source]:
            self.arrive(&self.latest[source], number, 1)
            self.keep_up(source)

    cdef void displace(self, Run *run) noexcept nogil:
        """Take a run out of its heaps."""
        self.leave(&self.earliest[run.last_source], run.places[0], 0)
        if self.kept[run.last_source]:
            self.leave(&self.latest[run.last_source], run.places[1], 1)

    cdef void keep_up(self, int64_t source) noexcept nogil:
        """Count an event that the heap of the latest was kept up for, and give that up after the last."""
        self.kept[source] -= 1
        if self.kept[source] == 0:
            self.highest[source] = self.row(self.latest[source].items[0]).last_ns
            self.latest[source].count = 0

    # Ends of runs.

    cdef void close(self, int32_t number) noexcept nogil:
        """End an open run."""
        if self.keep_over(self.row(number)) == NULL:
            self.failed = True
        self.forget(number)

    cdef inline Run *keep_over(self, Run *run) noexcept nogil:
        """Keep a run that is over; a head apart from those of which everything is known."""
        if run.head < 0:
            return self.over.add(run)
        return self.heads.add(run)

    cdef void close_all(self, int source) noexcept nogil:
        while self.earliest[source].count:
            self.close(self.earliest[source].items[self.earliest[source].count - 1])

    cdef void reach(self, int source, int64_t timestamp_ns) noexcept nogil:
        """End the runs that a timestamp is too far from."""
        cdef Heap *early = &self.earliest[source]
        cdef Heap *late = &self.latest[source]
        cdef Py_ssize_t i
        while early.count and difference(timestamp_ns, self.row(early.items[0]).last_ns) > self.timeout_ns:
            self.close(early.items[0])
        if early.count == 0 or difference(self.highest[source], timestamp_ns) <= self.timeout_ns:
            return
        if self.kept[source] == 0:
            for i in range(early.count):
                self.arrive(late, early.items[i], 1)
            self.kept[source] = early.count + 64
        while late.count and difference(self.row(late.items[0]).last_ns, timestamp_ns) > self.timeout_ns:
            self.close(late.items[0])
        if late.count:
            self.highest[source] = self.row(late.items[0]).last_ns

    cdef inline void observe(self, int source, int64_t timestamp_ns, int64_t frame) noexcept nogil:
        """Take note of a frame, whether a rule has to do with it or not."""
        if frame - self.last_frame[source] > QUIET_FRAMES:
            self.close_all(source)
            self.context.silent |= 1 << source
        self.reach(source, timestamp_ns)
        if not (self.context.seen >> source & 1):
            self.context.seen |= 1 << source
            self.first_frame[source] = frame
            self.context.lowest_ns[source] = self.context.highest_ns[source] = timestamp_ns
        elif timestamp_ns > self.context.highest_ns[source]:
            self.context.highest_ns[source] = timestamp_ns
        elif timestamp_ns < self.context.lowest_ns[source]:
            self.context.lowest_ns[source] = timestamp_ns
        self.last_frame[source] = frame

    cdef bint history_matters(self, int64_t frame) noexcept nogil:
        """Whether a frame before this part of the capture may belong to one run with the frame at hand."""
        cdef int source
        if self.settled:
            return False
        for source in range(SOURCES):
            if self.context.silent >> source & 1 or frame - self.last_frame[source] > QUIET_FRAMES:
                continue
            if not (self.context.seen >> source & 1) or difference(
                    self.context.highest_ns[source], self.context.lowest_ns[source]) <= 2 * self.timeout_ns:
                return True
        self.settled = True
        return False

    cdef int64_t keep_current_context(self, int64_t frame) noexcept nogil:
        """Keep what this part has shown by a frame; return where, -1 where there is no memory."""
        cdef Context context = self.context
        cdef int source
        for source in range(SOURCES):
            if context.seen >> source & 1 and frame - self.last_frame[source] > QUIET_FRAMES:
                context.silent |= 1 << source
        return self.keep_context(&context)

    cdef int64_t keep_context(self, Context *context) noexcept nogil:
        cdef Py_ssize_t allocated
        cdef void *grown
        if self.context_count == self.contexts_allocated:
            allocated = 2 * self.contexts_allocated or 64
            grown = realloc(self.contexts, allocated * sizeof(Context))
            if grown == NULL:
                self.failed = True
                return -1
            self.contexts = <Context *> grown
            self.contexts_allocated = allocated
        self.contexts[self.context_count] = context[0]
        self.context_count += 1
        return self.context_count - 1

    # The bound.

    cdef void raise_level(self, Visit *visit) noexcept nogil:
        """Follow fewer classes where a slot has too many frames, and forget the others' runs."""
        cdef int64_t followed = 0
        cdef int level = CLASSES, source
        cdef Py_ssize_t i, kept = 0
        while level > self.level and (followed + visit.frames[level - 1] <= self.maximum or level == CLASSES):
            level -= 1
            followed += visit.frames[level]
        if level <= self.level:
            return
        self.level = level
        for source in range(SOURCES):
            # From the last item on, so that what takes the place of one forgotten was looked at.
            i = self.earliest[source].count - 1
            while i >= 0:
                if i < self.earliest[source].count and class_of(self.row(self.earliest[source].items[i])) < level:
                    self.forget(self.earliest[source].items[i])
                    i = min(i, self.earliest[source].count)
                    continue
                i -= 1
        for i in range(self.heads.count):
            if class_of(self.heads.at(i)) >= level:
                if kept != i:
                    memmove(self.heads.at(kept), self.heads.at(i), self.stride)
                kept += 1
        self.heads.count = kept

    cdef void count_in_slot(self, int source, int64_t timestamp_ns, int in_class) noexcept nogil:
        cdef int64_t slot = timestamp_ns // self.timeout_ns
        cdef Visit *visit = &self.visit[source]
        if self.visits[source] == 0 or visit.slot != slot:
            if self.visits[source] == 1:
                self.first_visit[source] = visit[0]
            self.visits[source] = min(self.visits[source] + 1, 2)
            memset(visit, 0, sizeof(Visit))
            visit.slot = slot
        visit.frames[in_class] += 1
        if in_class >= self.level:
            self.raise_level(visit)

    # Frames.

    cdef void take(self, int kind, int source, int64_t timestamp_ns, int64_t frame, uint64_t key_high,
                   uint64_t key_low, uint64_t responder) noexcept nogil:
        cdef Run *event = <Run *> self.scratch
        cdef Run *run
        cdef Reply *reply
        cdef int32_t number
        cdef int in_class
        memset(event, 0, sizeof(Run))
        event.key_high = key_high
        event.key_low = key_low
        in_class = class_of(event)
        self.count_in_slot(source, timestamp_ns, in_class)
        if kind == REQUEST:
            self.requests_seen[in_class] += 1
        else:
            self.responses_seen[in_class] += 1
            if self.capacity:
                self.add_responder(responder)
        if in_class < self.level:
            return
        event.first_frame = frame
        event.first_kind = event.last_kind = kind
        event.last_ns = timestamp_ns
        event.last_source = source
        event.head = -1
        if kind == REQUEST:
            event.requests = 1
            event.first_request_ns = event.asked_ns = timestamp_ns
            event.first_request_frame = event.asked_frame = frame
            event.request_source = event.asked_source = source
        else:
            event.responses = 1
            event.answer_ns = timestamp_ns
            event.answer_frame = event.last_response_frame = frame
            event.answer_source = source
            if self.capacity:
                event.replies = 1
                reply = replies_of(event)
                reply.responder, reply.timestamp_ns, reply.source, reply.frame = responder, timestamp_ns, source, frame
        number = self.find(event)
        if number >= 0:
            run = self.row(number)
            if frame - self.last_frame[run.last_source] > QUIET_FRAMES:
                self.close_all(<int> run.last_source)
            elif not self.boundary(run, event):
                self.extend(number, event)
                return
            else:
                precede(run, event)
                self.close(number)
        elif self.history_matters(frame):
            event.head = self.keep_current_context(frame)
        self.open_run(event)

    cdef inline bint boundary(self, Run *a, Run *b) noexcept nogil:
        """Whether `b`, the neighbour of `a` in time, begins another run on its own: A (3)."""
        if b.first_kind == RESPONSE:
            return False
        if self.policy == EACH:
            return True
        if a.last_kind == RESPONSE:
            return self.policy != ROUNDS
        return a.last_source != b.request_source

    cdef void extend(self, int32_t number, Run *later) noexcept nogil:
        """Let an open run go on."""
        cdef Run *run = self.row(number)
        cdef int64_t source = run.last_source, before = run.last_ns
        if later.last_source != source or self.kept[source]:
            self.displace(run)
            join(run, later, self.capacity)
            self.place(number)
            return
        join(run, later, self.capacity)
        if run.last_ns > self.highest[source]:
            self.highest[source] = run.last_ns
        if run.last_ns > before:
            self.sink(&self.earliest[source], run.places[0], 0)
        else:
            self.rise(&self.earliest[source], run.places[0], 0)

    cdef void add_responder(self, uint64_t responder) noexcept nogil:
        """Keep the lowest hashes of responders, in rising order, and whether there are more."""
        cdef int i = 0
        while i < self.responder_count and self.responders[i] < responder:
            i += 1
        if i < self.responder_count and self.responders[i] == responder:
            return
        if self.responder_count == RESPONDERS:
            self.more_responders = True
            if i == RESPONDERS:
                return
            self.responder_count -= 1
        memmove(&self.responders[i + 1], &self.responders[i], (self.responder_count - i) * sizeof(uint64_t))
        self.responders[i] = responder
        self.responder_count += 1

    def update(self, FrameColumns frames not None, int64_t frame_shift, const uint8_t[::1] kinds,
               const uint64_t[:, ::1] keys):
        """Take the frames of a batch.

        Parameters
        ----------
        frame_shift : int
            Added to the batch's frame numbers.
        kinds : ndarray of uint8, shape (at least frames.count,)
        keys : ndarray of uint64, shape (at least frames.count, 3)
            As `uspcap.protocols.rule_search` fills them.
        """
        cdef Py_ssize_t row
        cdef int source
        cdef int64_t frame
        if kinds.shape[0] < frames.count or keys.shape[0] < frames.count or keys.shape[1] != 3:
            raise ValueError("there is no row for each frame")
        with nogil:
            for row in range(frames.count):
                source = frames.timestamp_source[row]
                if source >= NO_TIMESTAMP:
                    self.without_timestamp += kinds[row] != 0
                    continue
                frame = frames.frame_number[row] + frame_shift
                self.observe(source, frames.timestamp_ns[row], frame)
                if kinds[row]:
                    self.take(kinds[row], source, frames.timestamp_ns[row], frame, keys[row, 0], keys[row, 1],
                              keys[row, 2])
        self.frames_read = frames.frames_before + frame_shift + frames.frames_read
        if self.failed:
            raise MemoryError

    def merge(self, RequestRuns later not None):
        """Append what came directly after; `later` is used up.

        What that settles is in `over` then, with the frame numbers of the whole; what `later` had in its own `over` is
        for the caller to append.
        """
        cdef int64_t shift = self.frames_read
        cdef int source, i
        cdef Py_ssize_t row, over
        cdef Runs heads = Runs(self.stride), pending = Runs(self.stride)
        cdef Run *run
        if later.stride != self.stride or later.timeout_ns != self.timeout_ns:
            raise ValueError("the two follow different rules")
        self.join_visits(later)
        # All heads of the later part, those that are over first, and whatever is open there.
        for row in range(later.heads.count):
            if heads.add(later.heads.at(row)) == NULL:
                raise MemoryError
        over = heads.count
        for source in range(SOURCES):
            for row in range(later.earliest[source].count):
                if heads.add(later.row(later.earliest[source].items[row])) == NULL:
                    raise MemoryError
        firsts = np.array([heads.at(row).first_frame for row in range(heads.count)], np.int64)
        order = np.argsort(firsts, kind="stable")
        cdef const int64_t[::1] sequence = order
        with nogil:
            for row in range(heads.count):
                run = heads.at(sequence[row])
                if class_of(run) >= self.level and run.head >= 0:
                    self.pass_context(later, &later.contexts[run.head], run.first_frame)
                    self.append(later, run, sequence[row] >= over, pending)
            # Whatever is open here and was not met by a head, the whole of the later part is after.
            self.pass_context(later, &later.context, later.frames_read + 1)
            for row in range(over, heads.count):
                run = heads.at(row)
                if class_of(run) >= self.level and run.head < 0:
                    shift_run(run, shift)
                    self.open_run(run)
            for row in range(pending.count):
                self.open_run(pending.at(row))
            self.join_contexts(later, shift)
        for i in range(later.responder_count):
            self.add_responder(later.responders[i])
        self.more_responders |= later.more_responders
        for i in range(CLASSES):
            self.requests_seen[i] += later.requests_seen[i]
            self.responses_seen[i] += later.responses_seen[i]
        self.without_timestamp += later.without_timestamp
        self.frames_read += later.frames_read
        if self.failed:
            raise MemoryError

    cdef void pass_context(self, RequestRuns later, Context *context, int64_t frame) noexcept nogil:
        """End the runs that do not reach a frame of the later part, by what came before it."""
        cdef int source
        cdef int64_t before
        for source in range(SOURCES):
            if self.earliest[source].count == 0:
                continue
            before = self.frames_read - self.last_frame[source]
            if context.seen >> source & 1:
                if context.silent >> source & 1 or before + later.first_frame[source] > QUIET_FRAMES:
                    self.close_all(source)
                else:
                    self.reach(source, context.lowest_ns[source])
                    self.reach(source, context.highest_ns[source])
            elif before + frame > QUIET_FRAMES:
                self.close_all(source)

    cdef void append(self, RequestRuns later, Run *head, bint is_open, Runs pending) noexcept nogil:
        """Put a head of the later part behind the open run of its key, or where there is none beside the others.

        What is still open goes to `pending`: it reaches to the end of the later part, of which more is to come.
        """
        cdef Run *joined = <Run *> self.scratch
        cdef int32_t number = self.find(head)
        cdef Context context = later.contexts[head.head]
        cdef Run *run
        self.widen(&context, later, head.first_frame)
        shift_run(head, self.frames_read)
        memcpy(joined, head, self.stride)
        if number < 0:
            joined.head = self.keep_context(&context)
        else:
            run = self.row(number)
            joined.head = -1
            if self.boundary(run, head):
                precede(run, head)
                self.close(number)
            else:
                memcpy(joined, run, self.stride)
                join(joined, head, self.capacity)
                self.forget(number)
        if is_open:
            run = pending.add(joined)
        else:
            run = self.keep_over(joined)
        if run == NULL:
            self.failed = True

    cdef void widen(self, Context *context, RequestRuns later, int64_t frame) noexcept nogil:
        """Let the context of a frame of the later part begin where this part does."""
        cdef int source
        cdef int64_t before
        for source in range(SOURCES):
            before = self.frames_read - self.last_frame[source]
            if context.seen >> source & 1:
                if before + later.first_frame[source] > QUIET_FRAMES:
                    context.silent |= 1 << source
                if self.context.seen >> source & 1:
                    context.lowest_ns[source] = min(context.lowest_ns[source], self.context.lowest_ns[source])
                    context.highest_ns[source] = max(context.highest_ns[source], self.context.highest_ns[source])
            elif self.context.seen >> source & 1:
                context.lowest_ns[source] = self.context.lowest_ns[source]
                context.highest_ns[source] = self.context.highest_ns[source]
                if before + frame > QUIET_FRAMES:
                    context.silent |= 1 << source
        context.seen |= self.context.seen
        context.silent |= self.context.silent

    cdef void join_contexts(self, RequestRuns later, int64_t shift) noexcept nogil:
        cdef Context whole = later.context
        cdef int source
        # No frame follows the later part yet: a source that it did not see is as silent as the next frame will find it.
        self.widen(&whole, later, -(1 << 62))
        for source in range(SOURCES):
            if later.context.seen >> source & 1:
                if not (self.context.seen >> source & 1):
                    self.first_frame[source] = later.first_frame[source] + shift
                self.last_frame[source] = later.last_frame[source] + shift
        self.context = whole

    def join_visits(self, RequestRuns later):
        cdef int source, i
        cdef Visit *first
        cdef bint same
        for source in range(SOURCES):
            if later.visits[source] == 0:
                continue
            first = &later.first_visit[source] if later.visits[source] == 2 else &later.visit[source]
            if self.visits[source] == 0:
                self.first_visit[source] = later.first_visit[source]
                self.visit[source] = later.visit[source]
                self.visits[source] = later.visits[source]
                continue
            same = self.visit[source].slot == first.slot
            if same:
                for i in range(CLASSES):
                    self.visit[source].frames[i] += first.frames[i]
                self.raise_level(&self.visit[source])
                if later.visits[source] == 1:
                    continue
            if self.visits[source] == 1:
                self.first_visit[source] = self.visit[source]
            self.visits[source] = 2
            self.visit[source] = later.visit[source]
        if later.level > self.level:
            self.set_level(later.level)

    cdef void set_level(self, int level) noexcept nogil:
        """Raise the level to what another part needs."""
        cdef Visit full
        memset(&full, 0, sizeof(Visit))
        full.frames[level - 1] = self.maximum + 1
        self.raise_level(&full)

    def open_runs(self):
        """Return copies of the runs that are not over, or may turn out to go on before: what there would be at an end."""
        cdef Runs runs = Runs(self.stride)
        cdef int source
        cdef Py_ssize_t row
        for row in range(self.heads.count):
            runs.add(self.heads.at(row))
        for source in range(SOURCES):
            for row in range(self.earliest[source].count):
                runs.add(self.row(self.earliest[source].items[row]))
        return runs

    def take_over(self):
        """Return the runs that are over, which are forgotten here."""
        runs, self.over = self.over, Runs(self.stride)
        return runs

    def seen(self):
        """Return requests and responses with a timestamp, ndarray of int64, shape (2, CLASS_COUNT)."""
        counts = np.empty((2, CLASSES), np.int64)
        cdef int i
        for i in range(CLASSES):
            counts[0, i] = self.requests_seen[i]
            counts[1, i] = self.responses_seen[i]
        return counts

    def responders_seen(self):
        """Return how many responders there are, and whether that is only as many as are counted."""
        return self.responder_count, bool(self.more_responders)


def _request_runs(tuple bounds, tuple counted, Runs over, Runs heads, bytes state):
    """Return pickled runs."""
    cdef RequestRuns runs = RequestRuns(*bounds)
    cdef Unpacked unpacked = unpacking(state)
    runs.restore(&unpacked, counted)
    all_read(&unpacked)
    runs.over, runs.heads = over, heads
    return runs
