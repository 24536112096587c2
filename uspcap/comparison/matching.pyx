"""Matching two streams of digests frame by frame, in one pass with bounded memory.

A. Both streams are taken in the order of their timestamps, those of B moved by the offset of its clock. Each frame is a
   record in one ring, and belongs to a cluster: frames of one digest that come within the window of each other. The
   first record of a cluster is its head. A head alone and a pair, one frame of each side, need no more than their
   records; what is larger has an entry in `clusters`.
B. A cluster is closed when the window has passed since its last frame. Then, with a frames of A and b of B:
   - none on one side: the frames are only on the other;
   - a == b: the first of A is the first of B, and so on, where they are within the window of each other;
   - a == 1 or b == 1: the first is the first, the others are duplicates;
   - else it cannot be known which one is missing, and all are ambiguous.
   A digest that comes CLUSTER_MOST times on a side is given up: all its frames are ambiguous, until it is silent for a
   window. Given up digests are kept in a table of their own, so that no later frame is taken for a new beginning.
C. Frames leave the ring in the order in which they came, when their cluster is closed. What they came to is an event.
D. Heads are found again by tables of four bytes a slot, one for each of the EPOCHS parts of the ring. Nothing is ever
   removed from a table: the record of a head that has left stands until its part is used again, says that it is closed,
   and a part that is used again begins with an empty table. A head is mostly met again within its own part, so that the
   table that is looked into at random stays in a core's cache; which others to look into, a filter knows: bits for the
   parts, in two places that the digest chooses in one cache line.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset

import numpy as np

from uspcap._core.huge_pages cimport release, zeroed
from uspcap._core.records cimport dtype_of
from uspcap._core.saturating cimport difference

cdef extern from *:
    """
    #define uspcap_prefetch(p) __builtin_prefetch((p), 1)
    #define USPCAP_NONE 0xFFFFFFFFu
    """
    void prefetch "uspcap_prefetch"(const void *) nogil
    const uint32_t NOBODY "USPCAP_NONE"
    const uint32_t FREE "USPCAP_NONE"

cdef enum:
    CLUSTER_MOST = 16
    AHEAD = 8               # frames
    BATCH = 256             # frames that come before those are let go whose time has passed: so branches are foreseen
    EPOCHS = 8              # as many as a byte has bits
    FIRST_BITS = 13         # of the number of records in a part of the ring
    MOST_BITS = 27
    SLOTS_BITS = 1          # slots a record, as a power of two
    FILTER_BITS = 4         # bytes a record of a part
    LINE_BITS = 6
    FIRST_ROOM = 1 << 12

cdef enum:
    ALONE = 0
    MATCHED = 1
    ONLY = 2
    DUPLICATE = 3
    AMBIGUOUS = 4
    PAIRED = 5
    CLUSTERED = 6

cdef enum:
    NOT_FOUND = -1


MOST_ALIKE = CLUSTER_MOST
"""Frames alike within the window of which none is matched any more."""

KIND_MATCHED, KIND_ONLY, KIND_DUPLICATE, KIND_AMBIGUOUS = MATCHED, ONLY, DUPLICATE, AMBIGUOUS

cdef struct Record:
    uint64_t digest
    int64_t moved_ns            # on the clock of A; once it is matched: the partner's frame
    int64_t seen_ns             # the latest of such timestamps when it came; once it is matched: the partner's timestamp
    int64_t timestamp_ns
    int64_t frame
    uint32_t length
    uint32_t link               # PAIRED: the lower bits of the partner's number; CLUSTERED: the cluster
    uint32_t next_of_side       # CLUSTERED: the lower bits of the next one's number
    uint8_t kind
    uint8_t side

cdef struct Cluster:
    int64_t last_ns
    uint32_t first[2]           # the lower bits of numbers
    uint32_t last[2]
    uint32_t count[2]

cdef struct GivenUp:
    uint64_t digest             # 0: free
    int64_t last_ns

cdef struct Event:
    int64_t frame
    int64_t timestamp_ns
    int64_t partner_frame
    int64_t partner_timestamp_ns
    uint32_t length
    uint32_t kind

cdef Event event_record
EVENT_DTYPE = dtype_of(<Event[:1]> &event_record)
"""What became of a frame; the partner's columns mean something where it is matched."""


cdef class Events:
    """Events since they were last taken, in one array that is used again."""

    cdef object array
    cdef Event *rows
    cdef uint64_t room
    cdef uint64_t count

    def __cinit__(self):
        self.room = self.count = 0
        if not self.grow():
            raise MemoryError

    cdef bint grow(self) noexcept with gil:
        cdef Event[::1] rows
        try:
            array = np.empty(2 * self.room + FIRST_ROOM, EVENT_DTYPE)
        except MemoryError:
            return False
        if self.count:
            array[:self.count] = self.array[:self.count]
        self.array = array
        rows = array
        self.rows = &rows[0]
        self.room = rows.shape[0]
        return True

    cdef take(self):
        taken = self.array[:self.count]
        self.count = 0
        return taken

    cdef inline bint add(self, Record *record) noexcept nogil:
        """Append what a frame came to; False where memory does not suffice."""
        cdef Event *event
        cdef bint matched = record.kind == MATCHED
        if self.count == self.room and not self.grow():
            return False
        event = &self.rows[self.count]
        event.frame = record.frame
        event.timestamp_ns = record.timestamp_ns
        event.partner_frame = record.moved_ns if matched else 0
        event.partner_timestamp_ns = record.seen_ns if matched else 0
        event.length = record.length
        event.kind = record.kind
        self.count += 1
        return True


cdef inline size_t ring_bytes(int bits) noexcept nogil:
    return (<size_t> EPOCHS << bits) * sizeof(Record)


cdef inline size_t table_bytes(int bits) noexcept nogil:
    return (<size_t> EPOCHS << (bits + SLOTS_BITS)) * sizeof(uint32_t)


cdef inline size_t filter_bytes(int bits) noexcept nogil:
    return <size_t> 1 << (bits + FILTER_BITS)


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
    cdef Record *records            # EPOCHS parts of 1 << bits
    cdef uint32_t *tables           # a table for each part
    cdef uint8_t *filter
    cdef int bits
    cdef uint64_t head              # number of the next record to come
    cdef uint64_t tail              # number of the oldest
    cdef Cluster *clusters
    cdef uint32_t clusters_room
    cdef uint32_t clusters_used
    cdef uint32_t free_cluster      # the first of those that are chained by first[0]
    cdef GivenUp *given_up
    cdef uint64_t given_up_size     # a power of two
    cdef uint64_t given_up_used
    cdef Events pairs
    cdef Events missed_a
    cdef Events missed_b

    def __cinit__(self, int64_t window_ns, int64_t offset_ns=0):
        if window_ns < 1:
            raise ValueError("the window is at least 1 ns")
        self.window_ns = window_ns
        self.offset_ns = offset_ns
        self.begun = False
        self.widest = 0
        self.head = self.tail = 0
        self.pairs, self.missed_a, self.missed_b = Events(), Events(), Events()
        self.free_cluster = NOBODY
        self.clusters_room = FIRST_ROOM
        self.clusters = <Cluster *> malloc(FIRST_ROOM * sizeof(Cluster))
        self.given_up_size = FIRST_ROOM
        self.given_up = <GivenUp *> calloc(FIRST_ROOM, sizeof(GivenUp))
        if self.clusters == NULL or self.given_up == NULL or not self.make_room(FIRST_BITS):
            raise MemoryError

    def __dealloc__(self):
        self.release_ring(self.records, self.bits)
        free(self.clusters)
        free(self.given_up)

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
            enough = self.expire(True)
        if not enough:
            raise MemoryError("no memory for the frames of a window")

    def take_pairs(self):
        """Return the pairs since the last call in the order of B: an array of `EVENT_DTYPE`, A's frame is the partner.

        It holds until frames are fed again.
        """
        return self.pairs.take()

    def take_missed(self, int side):
        """Return the frames of side 0 (A) or 1 (B) without a partner since the last call: an array of `EVENT_DTYPE`.

        It holds until frames are fed again.
        """
        if side not in (0, 1):
            raise ValueError(f"there is no side {side}")
        return self.missed_b.take() if side else self.missed_a.take()

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
                from_b = difference(b.timestamps_ns[b.position], self.offset_ns) < a.timestamps_ns[a.position]
            if from_b:
                if not self.add(1, b, difference(b.timestamps_ns[b.position], self.offset_ns)):
                    return False
            elif not self.add(0, a, a.timestamps_ns[a.position]):
                return False

    cdef bint add(self, int side, Stream stream, int64_t moved_ns) noexcept nogil:
        """Take the next frame of a side; False where memory does not suffice."""
        cdef Py_ssize_t at = stream.position
        cdef Record *record
        if at + AHEAD < stream.count:
            self.ask_for(stream.digests[at + AHEAD])
        prefetch(self.record(self.head + AHEAD))
        stream.position = at + 1
        if not self.begun or moved_ns > self.now_ns:
            self.now_ns = moved_ns
            self.begun = True
        if not self.head & (BATCH - 1) and not self.expire(False):
            return False
        if 2 * self.given_up_used >= self.given_up_size and not self.grow_given_up():
            return False
        if not self.head & ((<uint64_t> 1 << self.bits) - 1) and not self.begin_epoch():
            return False
        record = self.record(self.head)
        record.digest = stream.digests[at]
        record.moved_ns = moved_ns
        record.seen_ns = self.now_ns
        record.timestamp_ns = stream.timestamps_ns[at]
        record.frame = stream.frames[at]
        record.length = stream.lengths[at]
        record.side = side
        record.kind = ALONE
        if not self.join_cluster(record, self.head):
            return False
        self.head += 1
        if <int64_t> (self.head - self.tail) > self.widest:
            self.widest = <int64_t> (self.head - self.tail)
        return True

    # ------------------------------------------------------------------ ring and tables

    cdef inline Record *record(self, uint64_t number) noexcept nogil:
        """Return a record; the lower 32 bits of its number suffice."""
        return &self.records[number & (((<uint64_t> EPOCHS) << self.bits) - 1)]

    cdef inline uint32_t *table(self, uint64_t epoch) noexcept nogil:
        return self.tables + ((epoch & (EPOCHS - 1)) << (self.bits + SLOTS_BITS))

    cdef inline uint64_t home(self, uint64_t digest) noexcept nogil:
        return digest >> 32 & ((<uint64_t> 1 << (self.bits + SLOTS_BITS)) - 1)

    cdef inline uint32_t tag(self, uint64_t digest) noexcept nogil:
        """Return what stands in a slot above the bits that choose a record of the part; never all of FREE."""
        return <uint32_t> (digest << self.bits) & 0x7FFFFFFF

    cdef inline uint8_t *filter_line(self, uint64_t digest) noexcept nogil:
        return self.filter + ((digest >> 38 & ((<uint64_t> 1 << (self.bits + FILTER_BITS - LINE_BITS)) - 1)) << LINE_BITS)

    cdef inline void ask_for(self, uint64_t digest) noexcept nogil:
        """Have what a digest is looked up in brought into the cache."""
        prefetch(self.table(self.head >> self.bits) + self.home(digest))
        prefetch(self.filter_line(digest))

    cdef int64_t find(self, uint64_t digest) noexcept nogil:
        """Return the number of the latest head of a digest, which may be closed or gone, or NOT_FOUND."""
        cdef uint64_t epoch = self.head >> self.bits
        cdef int64_t number = self.find_in(epoch, digest)
        cdef uint8_t *line
        cdef int back
        cdef unsigned int where
        if number != NOT_FOUND:
            return number
        line = self.filter_line(digest)
        where = line[digest & 63] & line[digest >> 6 & 63] & ~(1 << (epoch & (EPOCHS - 1)))
        if not where:
            return NOT_FOUND
        for back in range(1, EPOCHS):
            if <uint64_t> back > epoch:
                break
            if where >> ((epoch - back) & (EPOCHS - 1)) & 1:
                number = self.find_in(epoch - back, digest)
                if number != NOT_FOUND:
                    return number
        return NOT_FOUND

    cdef inline int64_t find_in(self, uint64_t epoch, uint64_t digest) noexcept nogil:
        cdef uint32_t *table = self.table(epoch)
        cdef uint64_t mask = (<uint64_t> 1 << (self.bits + SLOTS_BITS)) - 1
        cdef uint64_t at = self.home(digest)
        cdef uint32_t tag = self.tag(digest)
        cdef uint32_t low = (<uint32_t> 1 << self.bits) - 1
        cdef uint64_t number
        while table[at] != FREE:
            if not (table[at] ^ tag) & ~low:
                number = epoch << self.bits | (table[at] & low)
                if self.record(number).digest == digest:
                    return <int64_t> number
            at = (at + 1) & mask
        return NOT_FOUND

    cdef void insert(self, uint64_t number, uint64_t digest) noexcept nogil:
        """Let a record be found; an earlier one of its digest in its part no more."""
        cdef uint64_t epoch = number >> self.bits
        cdef uint32_t *table = self.table(epoch)
        cdef uint64_t mask = (<uint64_t> 1 << (self.bits + SLOTS_BITS)) - 1
        cdef uint64_t at = self.home(digest)
        cdef uint32_t tag = self.tag(digest)
        cdef uint32_t low = (<uint32_t> 1 << self.bits) - 1
        cdef uint8_t *line = self.filter_line(digest)
        cdef uint8_t bit = <uint8_t> (1 << (epoch & (EPOCHS - 1)))
        while table[at] != FREE:
            if not (table[at] ^ tag) & ~low and self.record(epoch << self.bits | (table[at] & low)).digest == digest:
                break
            at = (at + 1) & mask
        table[at] = tag & ~low | <uint32_t> number & low
        line[digest & 63] |= bit
        line[digest >> 6 & 63] |= bit

    cdef bint begin_epoch(self) noexcept nogil:
        """Make the part ready that the next record comes into; False where memory does not suffice."""
        cdef uint64_t epoch = self.head >> self.bits
        if epoch >= EPOCHS and self.tail < (epoch - EPOCHS + 1) << self.bits:
            return self.make_room(self.bits + 1)
        self.empty_part(epoch)
        return True

    cdef void empty_part(self, uint64_t epoch) noexcept nogil:
        cdef uint8_t others = <uint8_t> ~(1 << (epoch & (EPOCHS - 1)))
        cdef uint64_t at
        memset(self.table(epoch), 0xFF, sizeof(uint32_t) << (self.bits + SLOTS_BITS))
        for at in range(<uint64_t> 1 << (self.bits + FILTER_BITS)):
            self.filter[at] &= others

    cdef bint make_room(self, int bits) noexcept nogil:
        """Let a part have 1 << `bits` records; False where memory does not suffice."""
        cdef Record *before = self.records
        cdef int bits_before = self.bits
        cdef uint64_t mask_before = ((<uint64_t> EPOCHS) << bits_before) - 1
        cdef uint64_t number
        cdef Record *record
        if bits > MOST_BITS:
            return False
        self.release_ring(NULL, bits_before)
        self.bits = bits
        self.records = <Record *> zeroed(ring_bytes(bits))
        self.tables = <uint32_t *> zeroed(table_bytes(bits))
        self.filter = <uint8_t *> zeroed(filter_bytes(bits))
        if self.records == NULL or self.tables == NULL or self.filter == NULL:
            release(before, ring_bytes(bits_before))
            return False
        memset(self.tables, 0xFF, table_bytes(bits))
        for number in range(self.tail, self.head):
            self.record(number)[0] = before[number & mask_before]
        release(before, ring_bytes(bits_before))
        for number in range(self.tail, self.head):
            record = self.record(number)
            if self.is_head(record, number):
                self.insert(number, record.digest)
        return True

    cdef void release_ring(self, Record *records, int bits) noexcept nogil:
        """Give the tables back, and `records` where they are wanted no more."""
        release(records, ring_bytes(bits))
        release(self.tables, table_bytes(bits))
        release(self.filter, filter_bytes(bits))

    cdef inline bint is_head(self, Record *record, uint64_t number) noexcept nogil:
        """Whether a record is the first of a cluster that frames may still join."""
        cdef Cluster *cluster
        if record.kind == PAIRED:
            return <int32_t> (record.link - <uint32_t> number) > 0
        if record.kind == CLUSTERED:
            cluster = &self.clusters[record.link]
            return <uint32_t> number in (cluster.first[0], cluster.first[1]) and (
                self.earlier(cluster.first[0], cluster.first[1]) == <uint32_t> number)
        return record.kind == ALONE

    cdef inline uint32_t earlier(self, uint32_t one, uint32_t other) noexcept nogil:
        """Return which of two records came first, by the lower bits of their numbers."""
        if one == NOBODY or other == NOBODY:
            return other if one == NOBODY else one
        return one if <int32_t> (one - other) < 0 else other

    # ------------------------------------------------------------------ clusters

    cdef inline bint join_cluster(self, Record *record, uint64_t number) noexcept nogil:
        """Put a record into its digest's cluster, or let it be a new one; False where memory does not suffice."""
        cdef int64_t found
        cdef Record *head
        if self.given_up_used and self.is_given_up(record.digest):
            record.kind = AMBIGUOUS
            return True
        found = self.find(record.digest)
        if found != NOT_FOUND:
            head = self.record(<uint64_t> found)
            if self.is_open(head):
                if head.kind == ALONE and head.side != record.side:
                    head.kind = record.kind = PAIRED
                    head.link = <uint32_t> number
                    record.link = <uint32_t> found
                    return True
                return self.append(head, <uint32_t> found, record, <uint32_t> number)
        self.insert(number, record.digest)
        return True

    cdef inline bint is_open(self, Record *head) noexcept nogil:
        """Whether the window has not passed since a cluster's last frame."""
        cdef int64_t limit_ns = difference(self.now_ns, self.window_ns)
        if head.kind == ALONE:
            return head.seen_ns >= limit_ns
        if head.kind == PAIRED:
            return self.record(head.link).seen_ns >= limit_ns
        return head.kind == CLUSTERED and self.clusters[head.link].last_ns >= limit_ns

    cdef bint append(self, Record *head, uint32_t number_of_head, Record *record, uint32_t number) noexcept nogil:
        """Put a record into a cluster that is more than a pair."""
        cdef uint32_t partner
        cdef Cluster *cluster
        if head.kind != CLUSTERED:
            if self.free_cluster == NOBODY and not self.grow_clusters():
                return False
            partner = head.link if head.kind == PAIRED else NOBODY
            self.begin_cluster(head, number_of_head)
            if partner != NOBODY:
                self.chain(head.link, self.record(partner), partner)
        self.chain(head.link, record, number)
        cluster = &self.clusters[head.link]
        cluster.last_ns = self.now_ns
        if cluster.count[record.side] == CLUSTER_MOST:
            self.give_up(head.link, record.digest)
        return True

    cdef void begin_cluster(self, Record *head, uint32_t number) noexcept nogil:
        cdef uint32_t at = self.free_cluster
        cdef Cluster *cluster = &self.clusters[at]
        self.free_cluster = cluster.first[0]
        cluster.first[0] = cluster.first[1] = NOBODY
        cluster.count[0] = cluster.count[1] = 0
        self.chain(at, head, number)

    cdef void chain(self, uint32_t at, Record *record, uint32_t number) noexcept nogil:
        """Put a record behind the last one of its side."""
        cdef Cluster *cluster = &self.clusters[at]
        record.kind = CLUSTERED
        record.link = at
        record.next_of_side = NOBODY
        if cluster.first[record.side] == NOBODY:
            cluster.first[record.side] = number
        else:
            self.record(cluster.last[record.side]).next_of_side = number
        cluster.last[record.side] = number
        cluster.count[record.side] += 1

    cdef bint grow_clusters(self) noexcept nogil:
        cdef uint32_t at
        cdef uint32_t room = 2 * self.clusters_room
        cdef Cluster *after
        if self.clusters_used == self.clusters_room:
            if room > <uint32_t> 1 << 30:
                return False
            after = <Cluster *> realloc(self.clusters, room * sizeof(Cluster))
            if after == NULL:
                return False
            self.clusters = after
            self.clusters_room = room
        at = self.clusters_used
        self.clusters_used += 1
        self.clusters[at].first[0] = self.free_cluster
        self.free_cluster = at
        return True

    cdef void free_up(self, uint32_t at) noexcept nogil:
        self.clusters[at].first[0] = self.free_cluster
        self.free_cluster = at

    cdef void give_up(self, uint32_t at, uint64_t digest) noexcept nogil:
        """Call every frame of a cluster ambiguous, and remember its digest."""
        cdef Cluster *cluster = &self.clusters[at]
        cdef int side
        cdef uint32_t number
        cdef uint64_t place = digest & (self.given_up_size - 1)
        while self.given_up[place].digest and self.given_up[place].digest != digest:
            place = (place + 1) & (self.given_up_size - 1)
        if not self.given_up[place].digest:
            self.given_up_used += 1
        self.given_up[place].digest = digest
        self.given_up[place].last_ns = cluster.last_ns
        for side in range(2):
            number = cluster.first[side]
            while number != NOBODY:
                self.record(number).kind = AMBIGUOUS
                number = self.record(number).next_of_side
        self.free_up(at)

    cdef bint is_given_up(self, uint64_t digest) noexcept nogil:
        """Whether a digest was given up and not silent for a window since; it has just come again."""
        cdef uint64_t place = digest & (self.given_up_size - 1)
        while self.given_up[place].digest:
            if self.given_up[place].digest == digest:
                if self.given_up[place].last_ns < difference(self.now_ns, self.window_ns):
                    return False
                self.given_up[place].last_ns = self.now_ns
                return True
            place = (place + 1) & (self.given_up_size - 1)
        return False

    # ------------------------------------------------------------------ what frames come to

    cdef inline bint expire(self, bint everything) noexcept nogil:
        """Let frames go whose cluster is closed; False where memory does not suffice."""
        cdef Record *record
        cdef int64_t limit_ns = difference(self.now_ns, self.window_ns)
        while self.tail != self.head:
            record = self.record(self.tail)
            if record.kind in (ALONE, PAIRED, CLUSTERED):
                if not everything and (record.seen_ns >= limit_ns or self.is_open(record)):
                    return True
                self.close(record)
            if record.kind == MATCHED:
                if record.side and not self.pairs.add(record):
                    return False
            elif not (self.missed_b.add(record) if record.side else self.missed_a.add(record)):
                return False
            self.tail += 1
        return True

    cdef inline void close(self, Record *record) noexcept nogil:
        """Say of every frame of a cluster what it came to; `record` is its head."""
        cdef Record *partner
        if record.kind == ALONE:
            record.kind = ONLY
        elif record.kind == PAIRED:
            partner = self.record(record.link)
            if record.side:
                self.pair(partner, record)
            else:
                self.pair(record, partner)
        else:
            self.close_cluster(record.link)

    cdef void close_cluster(self, uint32_t at) noexcept nogil:
        cdef Cluster *cluster = &self.clusters[at]
        cdef uint32_t of_a = cluster.count[0], of_b = cluster.count[1]
        cdef uint32_t next_a = cluster.first[0], next_b = cluster.first[1]
        cdef Record *a
        cdef Record *b
        cdef uint8_t left = AMBIGUOUS
        cdef bint pairs = of_a > 0 and of_b > 0 and (of_a == of_b or of_a == 1 or of_b == 1)
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
                self.pair(a, b)
            else:
                if a != NULL:
                    a.kind = left
                if b != NULL:
                    b.kind = left
        self.free_up(at)

    cdef inline void pair(self, Record *a, Record *b) noexcept nogil:
        """Take two frames for one, where they are within the window of each other."""
        if not -self.window_ns <= difference(b.moved_ns, a.moved_ns) <= self.window_ns:
            a.kind = b.kind = AMBIGUOUS
            return
        a.kind = b.kind = MATCHED
        b.moved_ns = a.frame
        b.seen_ns = a.timestamp_ns

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
            if before[at].digest and before[at].last_ns >= difference(self.now_ns, self.window_ns):
                place = before[at].digest & (self.given_up_size - 1)
                while after[place].digest:
                    place = (place + 1) & (self.given_up_size - 1)
                after[place] = before[at]
                self.given_up_used += 1
        free(before)
        return True
