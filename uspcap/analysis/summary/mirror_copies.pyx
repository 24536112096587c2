"""Packets with a second copy in the capture, as mirror ports that copy both directions give them: how many, how far apart.

A. Two IPv4 packets of one interface and timestamp source that agree on addresses, protocol, identification, transport
   header but for its checksum, and payload are one packet: senders do not use an identification again so soon. Those
   whose identification is 0 say nothing and are left out. TTL, VLAN tags and addresses of layer 2 may differ, as
   routers and switches change them.
B. A copy is a packet whose like came at most NEAR_FRAMES frames and NEAR_NS before: that depends on what lies between
   the two only. A part of a capture keeps the first of each kind that came in its first NEAR_FRAMES frames, which the
   part before may hold the like of.
C. One identification of sixteen is looked at, chosen by a hash of it, which copies share: of the others nothing is
   read.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
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

cdef int64_t NEAR_NS = 100_000_000

WITHIN_FRAMES, WITHIN_NS, ONE_IN = NEAR_FRAMES, NEAR_NS, 16

cdef struct Seen:
    uint64_t digest
    int64_t frame
    int64_t at_ns
    uint16_t vlan
    uint8_t ttl
    uint8_t unused[5]

cdef struct Counts:
    int64_t compared
    int64_t copies
    int64_t ttl_changed
    int64_t vlan_changed
    int64_t apart[DISTANCES]    # by the number of binary digits of the distance in ns


cdef class Copies:
    """Packets that are copies of one before."""

    cdef Seen *seen
    cdef Py_ssize_t count, room
    cdef int32_t *slots
    cdef uint64_t mask
    cdef Seen *heads
    cdef Py_ssize_t head_count, head_room
    cdef Counts counts
    cdef bint failed

    def __cinit__(self):
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
        return _copies, (self.count, self.head_count, finished(&packed))

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

    cdef void compare(self, const Seen *one) noexcept nogil:
        """Count a packet if it is a copy; keep it if a part before may hold what it is a copy of."""
        cdef Seen *before = self.find(one.digest)
        cdef int64_t apart
        cdef int digits = 0
        if before == NULL:
            if one.frame <= NEAR_FRAMES:
                self.add_head(one)
            return
        apart = difference(one.at_ns, before.at_ns)
        if one.frame - before.frame > NEAR_FRAMES or not -NEAR_NS <= apart <= NEAR_NS:
            return
        if apart < 0:
            apart = -apart
        self.counts.copies += 1
        self.counts.ttl_changed += one.ttl != before.ttl
        self.counts.vlan_changed += one.vlan != before.vlan
        while apart:
            apart >>= 1
            digits += 1
        self.counts.apart[digits] += 1

    def update(self, FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift):
        """Take the next batch, to whose frame numbers `frame_shift` is added."""
        cdef Py_ssize_t row
        cdef Seen one
        if headers.count != frames.count:
            raise ValueError("the headers are not those of this batch")
        memset(&one, 0, sizeof(Seen))
        with nogil:
            for row in range(frames.count):
                if headers.ip_version[row] != 4 or not headers.ip_id[row] or (headers.ip_id[row] * 40503 & 0xF000):
                    continue
                if headers.payload_offset[row] < 0:
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
        for at in range(later.head_count):
            one = later.heads[at]
            one.frame += frame_shift
            self.compare(&one)
        for at in range(later.count):
            one = later.seen[at]
            one.frame += frame_shift
            self.put(&one)
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


def _copies(Py_ssize_t count, Py_ssize_t heads, bytes state):
    """Return what was pickled."""
    cdef Copies copies = Copies()
    cdef Unpacked unpacked = unpacking(state)
    copies.restore(&unpacked, count, heads)
    all_read(&unpacked)
    return copies
