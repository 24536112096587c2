"""Packets with a second copy in the capture, as mirror ports that copy both directions give them: how many, how far apart.

A. Two IPv4 packets of one interface and timestamp source that agree on addresses, protocol, identification, transport
   header but for its checksum, and payload are one packet: senders do not use an identification again so soon. TTL,
   VLAN tags and addresses of layer 2 may differ, as routers and switches change them. Those whose identification is 0,
   and IPv6 packets, are counted apart: D.
B. A copy is a packet whose like came at most NEAR_FRAMES frames and NEAR_NS before: that depends on what lies between
   the two only. A part of a capture keeps the first of each kind that came in its first NEAR_FRAMES frames, which the
   part before may hold the like of.
C. One identification of sixteen is looked at, chosen by a hash of it, which copies share: of the others nothing is
   read.
D. Without an identification two packets that agree may be two that a sender repeated: an acknowledgment, a
   retransmission, a heartbeat. Only those with a payload are compared, and the second of several that follow each other
   is counted, but not the third: what is always repeated is no copy. So whether a packet counts depends on the two
   before it, and a part that counts the second of its kind notes that at the first, which may turn out to be the second.
   What such packets begin with chooses one in sixteen.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from uspcap._core.columns cimport FrameColumns, HeaderColumns, time_of
from uspcap._core.folding cimport fold
from uspcap._core.saturating cimport difference
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking
from uspcap.protocols.digests cimport NETWORK, digest_of

cdef enum:
    NEAR_FRAMES = 1024
    LIMIT = 512                 # bytes of the transport part that are compared
    DISTANCES = 64
    LANES = 8                   # of eight bytes each, with which a payload begins and in which senders have their numbers

cdef int64_t NEAR_NS = 100_000_000

WITHIN_FRAMES, WITHIN_NS, ONE_IN = NEAR_FRAMES, NEAR_NS, 16

cdef struct Seen:
    uint64_t digest
    int64_t frame
    int64_t at_ns
    uint16_t vlan
    uint8_t ttl
    uint8_t near                # its like came near before it
    # Of heads: whether the next of the kind counts as a copy of it, and as which.
    uint8_t has_copy
    uint8_t digits
    uint8_t ttl_changed
    uint8_t vlan_changed

cdef struct Counts:
    int64_t compared
    int64_t copies
    int64_t ttl_changed
    int64_t vlan_changed
    int64_t apart[DISTANCES]    # by the number of binary digits of the distance in ns


cdef class Copies:
    """Packets that are copies of one before.

    Parameters
    ----------
    identified : bool
        Look at IPv4 packets with an identification; else at those without one, and at IPv6: D.
    """

    cdef Seen *seen
    cdef Py_ssize_t count, room
    cdef int32_t *slots
    cdef uint64_t mask
    cdef Seen *heads
    cdef Py_ssize_t head_count, head_room
    cdef Counts counts
    cdef readonly bint identified
    cdef bint failed

    def __cinit__(self, bint identified=True):
        self.identified = identified
        memset(&self.counts, 0, sizeof(Counts))
        if not self.grow():
            raise MemoryError

    def __dealloc__(self):
        free(self.seen)
        free(self.slots)
        free(self.heads)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        pack(&packed, &self.counts, sizeof(Counts))
        pack(&packed, self.seen, self.count * sizeof(Seen))
        pack(&packed, self.heads, self.head_count * sizeof(Seen))
        return _copies, (self.identified, self.count, self.head_count, finished(&packed))

    cdef int restore(self, Unpacked *unpacked, Py_ssize_t count, Py_ssize_t heads) except -1:
        cdef Py_ssize_t at
        cdef Seen one
        unpack(unpacked, &self.counts, sizeof(Counts))
        for at in range(count):
            memset(&one, 0, sizeof(Seen))
            unpack(unpacked, &one, sizeof(Seen))
            self.put(&one)
        for at in range(heads):
            memset(&one, 0, sizeof(Seen))
            unpack(unpacked, &one, sizeof(Seen))
            self.add_head(&one)
        return 0

    cdef bint grow(self) noexcept nogil:
        cdef Py_ssize_t room = 2 * self.room or 64
        cdef void *grown = realloc(self.seen, room * sizeof(Seen))
        if grown != NULL:
            self.seen = <Seen *> grown
            grown = realloc(self.slots, 2 * room * sizeof(int32_t))
        if grown == NULL:
            self.failed = True
            return False
        self.slots = <int32_t *> grown
        self.room = room
        self.mask = 2 * room - 1
        self.fill_slots()
        return True

    cdef void fill_slots(self) noexcept nogil:
        cdef Py_ssize_t at
        cdef uint64_t slot
        memset(self.slots, 0xFF, (self.mask + 1) * sizeof(int32_t))
        for at in range(self.count):
            slot = self.seen[at].digest & self.mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.mask
            self.slots[slot] = <int32_t> at

    cdef Seen *find(self, uint64_t digest) noexcept nogil:
        cdef uint64_t slot = digest & self.mask
        while self.slots[slot] >= 0:
            if self.seen[self.slots[slot]].digest == digest:
                return &self.seen[self.slots[slot]]
            slot = (slot + 1) & self.mask
        return NULL

    cdef void put(self, const Seen *one) noexcept nogil:
        """Note a packet as the last of its kind."""
        cdef Seen *found = self.find(one.digest)
        cdef Py_ssize_t at, kept = 0
        cdef uint64_t slot
        if found != NULL:
            found[0] = one[0]
            return
        if self.count == self.room:
            # Those too far back have no copies any more.
            for at in range(self.count):
                if one.frame - self.seen[at].frame <= NEAR_FRAMES:
                    self.seen[kept] = self.seen[at]
                    kept += 1
            self.count = kept
            self.fill_slots()
            if 2 * self.count > self.room and not self.grow():
                return
        slot = one.digest & self.mask
        while self.slots[slot] >= 0:
            slot = (slot + 1) & self.mask
        self.seen[self.count] = one[0]
        self.slots[slot] = <int32_t> self.count
        self.count += 1

    cdef void add_head(self, const Seen *one) noexcept nogil:
        cdef Py_ssize_t room
        cdef void *grown
        if self.head_count == self.head_room:
            room = 2 * self.head_room or 64
            grown = realloc(self.heads, room * sizeof(Seen))
            if grown == NULL:
                self.failed = True
                return
            self.heads = <Seen *> grown
            self.head_room = room
        self.heads[self.head_count] = one[0]
        self.head_count += 1

    cdef bint is_near(self, const Seen *one, const Seen *before) noexcept nogil:
        cdef int64_t apart
        if before == NULL or one.frame - before.frame > NEAR_FRAMES:
            return False
        apart = difference(one.at_ns, before.at_ns)
        return -NEAR_NS <= apart <= NEAR_NS

    cdef bint is_head(self, const Seen *one) noexcept nogil:
        cdef Py_ssize_t at
        for at in range(self.head_count):
            if self.heads[at].digest == one.digest:
                return self.heads[at].frame == one.frame
        return False

    cdef void add(self, const Seen *copy, int number) noexcept nogil:
        """Count a copy, or with -1 take back that it was."""
        self.counts.copies += number
        self.counts.ttl_changed += number * copy.ttl_changed
        self.counts.vlan_changed += number * copy.vlan_changed
        self.counts.apart[copy.digits] += number

    cdef void compare(self, Seen *one) noexcept nogil:
        """Count a packet if it is a copy; keep it if a part before may hold what it is a copy of."""
        cdef Seen *before = self.find(one.digest)
        cdef Seen copy
        cdef int64_t apart
        cdef Py_ssize_t at
        one.near = self.is_near(one, before)
        if before == NULL and one.frame <= NEAR_FRAMES:
            self.add_head(one)
        if not one.near or (before.near and not self.identified):
            return
        copy = one[0]
        apart = difference(one.at_ns, before.at_ns)
        if apart < 0:
            apart = -apart
        copy.digits = 0
        while apart:
            apart >>= 1
            copy.digits += 1
        copy.ttl_changed = one.ttl != before.ttl
        copy.vlan_changed = one.vlan != before.vlan
        self.add(&copy, 1)
        if self.identified or before.frame > NEAR_FRAMES:
            return
        for at in range(self.head_count):
            if self.heads[at].digest == one.digest and self.heads[at].frame == before.frame:
                self.heads[at].has_copy = True
                self.heads[at].digits = copy.digits
                self.heads[at].ttl_changed = copy.ttl_changed
                self.heads[at].vlan_changed = copy.vlan_changed

    cdef inline bint is_looked_at(self, FrameColumns frames, HeaderColumns headers, Py_ssize_t row) noexcept nogil:
        cdef const uint8_t *payload = frames.data + frames.offset[row] + headers.payload_offset[row]
        cdef Py_ssize_t length, at
        cdef uint64_t lanes[LANES]
        cdef uint64_t state
        if headers.payload_offset[row] < 0:
            return False
        if headers.ip_version[row] == 4 and headers.ip_id[row]:
            return self.identified and headers.ip_id[row] * 40503 & 0xF000 == 0
        if self.identified or not headers.ip_version[row] or headers.payload_length[row] == 0:
            return False
        length = <Py_ssize_t> frames.captured_length[row] - headers.payload_offset[row]
        if length > headers.payload_length[row]:
            length = headers.payload_length[row]
        if length <= 0:
            return False
        memset(lanes, 0, sizeof(lanes))
        memcpy(lanes, payload, length if length < 8 * LANES else 8 * LANES)
        state = headers.tcp_sequence[row]
        for at in range(LANES):
            state = fold(state ^ <uint64_t> 0xA0761D6478BD642F, lanes[at] ^ <uint64_t> 0xE7037ED1A0B428DB)
        return state & 0xF == 0

    def update(self, FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift):
        """Take the next batch, to whose frame numbers `frame_shift` is added."""
        cdef Py_ssize_t row
        cdef Seen one
        if headers.count != frames.count:
            raise ValueError("the headers are not those of this batch")
        memset(&one, 0, sizeof(Seen))
        with nogil:
            for row in range(frames.count):
                if not self.is_looked_at(frames, headers, row):
                    continue
                one.digest = fold(
                    digest_of(frames, headers, NETWORK, LIMIT, row) ^ <uint64_t> 0xA0761D6478BD642F,
                    <uint64_t> 0xE7037ED1A0B428DB ^ (<uint64_t> frames.interface[row] << 8 | frames.timestamp_source[row]))
                one.frame = frames.frame_number[row] + frame_shift
                one.at_ns = time_of(frames, row)
                one.vlan = headers.vlan_id[row]
                one.ttl = headers.ttl[row]
                self.counts.compared += 1
                self.compare(&one)
                self.put(&one)
        if self.failed:
            raise MemoryError

    def absorb(self, Copies later not None, int64_t frame_shift):
        """Append what came directly after, whose frame numbers are moved by so many."""
        cdef Py_ssize_t at
        cdef int digits
        cdef Seen one
        # Which of the last of their kind are near their like of this part, if that is the one before them.
        cdef uint8_t *near = <uint8_t *> calloc(later.count or 1, 1)
        if near == NULL:
            raise MemoryError
        for at in range(later.count):
            one = later.seen[at]
            if one.frame <= NEAR_FRAMES and not one.near:
                near[at] = later.is_head(&one)
                one.frame += frame_shift
                near[at] &= self.is_near(&one, self.find(one.digest))
        for at in range(later.head_count):
            one = later.heads[at]
            one.frame += frame_shift
            self.compare(&one)
            if one.near and one.has_copy:
                self.add(&one, -1)
        for at in range(later.count):
            one = later.seen[at]
            one.frame += frame_shift
            one.near |= near[at]
            self.put(&one)
        free(near)
        self.counts.compared += later.counts.compared
        self.counts.copies += later.counts.copies
        self.counts.ttl_changed += later.counts.ttl_changed
        self.counts.vlan_changed += later.counts.vlan_changed
        for digits in range(DISTANCES):
            self.counts.apart[digits] += later.counts.apart[digits]
        if self.failed:
            raise MemoryError

    @property
    def compared(self):
        """Packets that were looked at."""
        return self.counts.compared

    @property
    def copies(self):
        """Of these, copies of one before."""
        return self.counts.copies

    @property
    def ttl_changed(self):
        """Of the copies, those with another TTL than the packet before."""
        return self.counts.ttl_changed

    @property
    def vlan_changed(self):
        """Of the copies, those in another VLAN."""
        return self.counts.vlan_changed

    def within_ns(self, double part):
        """Return a power of two in ns, less than which at least that part of the copies came after the packet before."""
        cdef int digits
        cdef int64_t seen = 0
        for digits in range(DISTANCES):
            seen += self.counts.apart[digits]
            if self.counts.copies and seen >= part * self.counts.copies:
                return <int64_t> 1 << digits
        return None


def _copies(bint identified, Py_ssize_t count, Py_ssize_t heads, bytes state):
    """Return what was pickled."""
    cdef Copies copies = Copies(identified)
    cdef Unpacked unpacked = unpacking(state)
    copies.restore(&unpacked, count, heads)
    all_read(&unpacked)
    return copies
