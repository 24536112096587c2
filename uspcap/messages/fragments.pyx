"""UDP datagrams put together out of IP fragments, under bounds that do not depend on where a capture is cut.

A. Fragments of one key (addresses and identification, RFC 791 and 8200) are a group as long as each comes within
   NEAR_FRAMES frames and NEAR_NS of the one before: whether two neighbours of a key are of one group depends on what
   lies between them only. Within a group a datagram is complete once there is no byte missing; then its payload is
   given out, with the frame and timestamp of the fragment that completed it. A group that ends before leaves it
   incomplete.
B. An exact copy of a fragment is passed over (RFC 8200, 4.5). Fragments that overlap otherwise, that contradict each
   other on the length, whose length is no multiple of 8 though more follow, or that lead beyond 65,535 bytes make the
   whole datagram void (RFC 5722, 3); so is then what comes of it until the group ends.
C. A group that ended changes no more, so that no more datagrams are open than there are frames in NEAR_FRAMES; each has
   less than 64 KiB.
D. The first group of a key in a part of a capture may go on with one of the part before (a head). It is not put
   together here: `take` stops at its fragments, so that whoever calls keeps them (`event`), and gives them to
   `take_event` of the part before, or of a state before which there is nothing.
E. What is put together is a batch of its own: each datagram as one IP packet without fragments, as decoded headers,
   streams and rules know it. Bytes that were not captured end what is captured of it.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from uspcap._core.bytes cimport be16
from uspcap._core.columns cimport FrameColumns, HeaderColumns, time_of
from uspcap._core.saturating cimport difference
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP, UNTRUSTED

from uspcap._core.headers import decode

cdef enum:
    MORE_FRAGMENTS = 1 << 12    # of `layers`, as headers.pyx has it
    UDP = 17
    FRAGMENT_HEADER = 44
    LARGEST = 65535             # bytes of the IP packet that is put together
    NEAR_FRAMES = 1024
    ROOM = 64                   # datagrams of a batch of those that are put together, at first

cdef int64_t NEAR_NS = 30_000_000_000   # as long as Linux waits (net.ipv4.ipfrag_time)

WITHIN_FRAMES, WITHIN_NS = NEAR_FRAMES, NEAR_NS
"""Farther apart fragments are not of one datagram."""

# What becomes of a group.
cdef enum:
    OPEN = 0
    COMPLETE = 1
    VOID = 2
    HEAD = 3                    # it may have begun in the part before

cdef int64_t NO_TIME = -0x7FFFFFFFFFFFFFFF  # timestamps are clamped far from it

cdef struct Key:
    uint8_t source[16]
    uint8_t destination[16]
    uint32_t id
    uint8_t ip_version
    uint8_t timestamp_source
    uint16_t tap

cdef struct Fragment:
    Key key
    int64_t frame
    int64_t at_ns
    uint32_t offset
    uint32_t length
    uint32_t captured
    uint32_t more
    uint32_t source             # with UNTRUSTED, where its timestamp is
    uint32_t padding
    # Followed by the captured bytes where it is kept.

cdef struct Piece:
    uint8_t *data
    uint32_t offset
    uint32_t length
    uint32_t captured
    uint32_t more

cdef struct Group:
    Key key
    int64_t frame               # of the last fragment
    int64_t at_ns
    uint32_t state
    uint32_t total              # 0: not known
    uint32_t came               # bytes
    int32_t count
    int32_t room
    int32_t unused
    Piece *pieces


cdef inline bint is_fragment(HeaderColumns headers, Py_ssize_t row) noexcept nogil:
    return headers.fragment_offset[row] > 0 or (headers.layers[row] & MORE_FRAGMENTS) != 0


cdef bint fragment_of(FrameColumns frames, HeaderColumns headers, Py_ssize_t row, int64_t frame_shift,
                      Fragment *fragment, const uint8_t **data) noexcept nogil:
    """Read a row that is a fragment of a UDP datagram; False where it is none, or not captured so far."""
    cdef int64_t start = headers.network_offset[row]
    cdef int64_t captured = frames.captured_length[row]
    cdef int64_t end, length, wire = frames.wire_length[row]
    cdef const uint8_t *p = frames.data + frames.offset[row]
    cdef uint8_t following
    if not is_fragment(headers, row) or start < 0 or frames.offset[row] < 0:
        return False
    if wire < captured:
        wire = captured
    if headers.ip_version[row] == 4:
        if start + 20 > captured or p[start + 9] != UDP:
            return False
        length = 4 * (p[start] & 0x0F)
        end = start + <int64_t> be16(p + start + 2)
        start += length
    elif headers.ip_version[row] == 6:
        if start + 40 > captured:
            return False
        end = start + 40 + <int64_t> be16(p + start + 4)
        following = p[start + 6]
        start += 40
        # What may lie before a fragment header: hop-by-hop options, routing, options of the destination (RFC 8200,
        # 4.1).
        while following == 0 or following == 43 or following == 60:
            if start + 8 > captured:
                return False
            following = p[start]
            start += 8 + 8 * <int64_t> p[start + 1]
        if following != FRAGMENT_HEADER or start + 8 > captured or p[start] != UDP:
            return False
        start += 8
    else:
        return False
    if end > wire:
        end = wire
    if end <= start:
        return False
    memset(fragment, 0, sizeof(Fragment))
    memcpy(fragment.key.source, headers.source_address + 16 * row, 16)
    memcpy(fragment.key.destination, headers.destination_address + 16 * row, 16)
    fragment.key.id = headers.ip_id[row]
    fragment.key.ip_version = headers.ip_version[row]
    fragment.source = frames.timestamp_source[row]
    fragment.key.timestamp_source = frames.timestamp_source[row] & ~UNTRUSTED
    fragment.key.tap = headers.tap[row]
    fragment.frame = frames.frame_number[row] + frame_shift
    fragment.at_ns = time_of(frames, row)
    fragment.offset = headers.fragment_offset[row]
    fragment.length = <uint32_t> (end - start)
    fragment.captured = 0 if captured <= start else <uint32_t> (min(captured, end) - start)
    fragment.more = (headers.layers[row] & MORE_FRAGMENTS) != 0
    data[0] = p + start
    return True


cdef inline uint64_t hash_of(const Key *key) noexcept nogil:
    cdef uint64_t words[5]
    cdef uint64_t state = 0
    cdef int at
    memcpy(words, key, sizeof(Key))
    for at in range(5):
        state = (state ^ words[at]) * <uint64_t> 0xD6E8FEB86659FD93
        state ^= state >> 32
    return state


cdef inline bint is_impossible(const Fragment *fragment) noexcept nogil:
    """Tell whether a fragment leads beyond the largest packet, or ends where none does but the last."""
    cdef uint32_t most = LARGEST - 20 if fragment.key.ip_version == 4 else LARGEST
    return fragment.offset + fragment.length > most or (fragment.more != 0 and fragment.length % 8 != 0)


cdef void empty_group(Group *group) noexcept nogil:
    """Give the bytes of a group back."""
    cdef int32_t at
    for at in range(group.count):
        free(group.pieces[at].data)
    free(group.pieces)
    group.pieces = NULL
    group.count = group.room = 0
    group.total = group.came = 0


cdef class Datagrams:
    """Fragments of UDP datagrams, put together.

    Parameters
    ----------
    is_known : bool
        Nothing comes before: there are no heads.

    Attributes
    ----------
    frames, headers : FrameColumns, HeaderColumns
        What was put together by the last call of `take` or `take_event`.
    complete, discarded, copies, closed : int
        Datagrams that were put together, and that were void; copies of fragments; datagrams that were left incomplete,
        but for those that are open still.
    unused : int
        Fragments of datagrams that were void, and of those that were left incomplete and are not open, copies aside.
    """

    cdef Group *groups
    cdef Py_ssize_t count, room
    cdef int32_t *slots
    cdef uint64_t mask
    cdef bint is_known
    cdef readonly int64_t complete, discarded, copies, closed, unused
    cdef readonly object frames, headers, rows
    cdef object bytes
    cdef Py_ssize_t used
    cdef int highest_tap

    def __cinit__(self, bint is_known=False):
        if sizeof(Key) != 40:
            raise ValueError("keys have another layout")
        self.is_known = is_known
        self.grow()
        self.clear()

    def __dealloc__(self):
        cdef Py_ssize_t at
        for at in range(self.count):
            empty_group(&self.groups[at])
        free(self.groups)
        free(self.slots)

    # --- groups by key --------------------------------------------------------------------------------------------

    cdef int grow(self) except -1:
        cdef Py_ssize_t room = 2 * self.room or 16
        cdef void *grown = realloc(self.groups, room * sizeof(Group))
        if grown == NULL:
            raise MemoryError
        self.groups = <Group *> grown
        grown = realloc(self.slots, 2 * room * sizeof(int32_t))
        if grown == NULL:
            raise MemoryError
        self.slots = <int32_t *> grown
        self.room = room
        self.mask = 2 * room - 1
        self.fill_slots()
        return 0

    cdef void fill_slots(self) noexcept nogil:
        cdef Py_ssize_t at
        cdef uint64_t slot
        memset(self.slots, 0xFF, (self.mask + 1) * sizeof(int32_t))
        for at in range(self.count):
            slot = hash_of(&self.groups[at].key) & self.mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.mask
            self.slots[slot] = <int32_t> at

    cdef Group *find(self, const Key *key) noexcept nogil:
        cdef uint64_t slot = hash_of(key) & self.mask
        while self.slots[slot] >= 0:
            if memcmp(&self.groups[self.slots[slot]].key, key, sizeof(Key)) == 0:
                return &self.groups[self.slots[slot]]
            slot = (slot + 1) & self.mask
        return NULL

    cdef Group *enter(self, const Key *key, int64_t frame) except NULL:
        """Return a new group of a key that has none; those that can change no more make room for it."""
        cdef uint64_t slot
        cdef Group *group
        if self.count == self.room:
            self.drop_ended(frame)
            if 2 * self.count > self.room:
                self.grow()
        slot = hash_of(key) & self.mask
        while self.slots[slot] >= 0:
            slot = (slot + 1) & self.mask
        group = &self.groups[self.count]
        memset(group, 0, sizeof(Group))
        group.key = key[0]
        group.at_ns = NO_TIME
        self.slots[slot] = <int32_t> self.count
        self.count += 1
        return group

    cdef void end(self, Group *group) noexcept nogil:
        """Count a group that has ended, and empty it."""
        self.closed += group.state == OPEN and group.count > 0
        self.unused += group.count if group.state == OPEN else 0
        empty_group(group)
        group.state = OPEN

    cdef void drop_ended(self, int64_t frame) noexcept nogil:
        """Let go of groups that have ended by a frame."""
        cdef Py_ssize_t at, kept = 0
        for at in range(self.count):
            if frame - self.groups[at].frame > NEAR_FRAMES:
                self.end(&self.groups[at])
                continue
            if kept != at:
                self.groups[kept] = self.groups[at]
            kept += 1
        self.count = kept
        self.fill_slots()

    # --- fragments ------------------------------------------------------------------------------------------------

    cdef int clear(self) except -1:
        """Begin another batch of what is put together."""
        if self.frames is None:
            self.frames = FrameColumns(ROOM)
            self.set_places(self.frames)
            self.headers = HeaderColumns(ROOM)
            self.bytes = np.empty(1 << 12, np.uint8)
            self.rows = np.zeros(ROOM, np.int64)
        self.frames.count = 0
        self.used = 0
        return 0

    cdef bint goes_on(self, const Group *group, const Fragment *fragment) noexcept nogil:
        cdef int64_t apart = 0
        if fragment.source < NO_TIMESTAMP and group.at_ns != NO_TIME:
            apart = difference(fragment.at_ns, group.at_ns)
        return fragment.frame - group.frame <= NEAR_FRAMES and -NEAR_NS <= apart <= NEAR_NS

    cdef void saw(self, Group *group, const Fragment *fragment) noexcept nogil:
        """Note when a group was seen last; what has no time that can be trusted moves none."""
        group.frame = fragment.frame
        if fragment.source < NO_TIMESTAMP:
            group.at_ns = fragment.at_ns

    cdef bint is_head(self, const Fragment *fragment, const Group *group) noexcept nogil:
        """Tell whether a fragment may be of a group that began in the part before."""
        if self.is_known:
            return False
        if group == NULL:
            return fragment.frame <= NEAR_FRAMES
        return group.state == HEAD and self.goes_on(group, fragment)

    cdef int take_fragment(self, const Fragment *fragment, const uint8_t *data, Py_ssize_t row) except -1:
        """Take a fragment that is of no head; `row` is what is noted beside a datagram that it completes."""
        cdef Group *group = self.find(&fragment.key)
        cdef Piece *pieces
        cdef Piece *piece
        cdef int32_t at
        cdef uint32_t end = fragment.offset + fragment.length
        cdef bint is_void, is_copy
        if group == NULL:
            group = self.enter(&fragment.key, fragment.frame)
        elif not self.goes_on(group, fragment):
            self.end(group)
        self.saw(group, fragment)
        if group.state == VOID:
            self.unused += 1
            return 0
        is_void = is_impossible(fragment)
        is_void |= group.total > 0 and (end > group.total or (not fragment.more and end != group.total))
        is_copy = False
        for at in range(group.count):
            piece = &group.pieces[at]
            if piece.offset == fragment.offset and piece.length == fragment.length and piece.more == fragment.more and (
                    piece.captured == fragment.captured and memcmp(piece.data, data, fragment.captured) == 0):
                is_copy = True
                break
            is_void |= piece.offset < end and fragment.offset < piece.offset + piece.length
            is_void |= not fragment.more and piece.offset >= end
        if is_copy:
            self.copies += 1
            return 0
        if group.state == COMPLETE:
            # The number was used again.
            empty_group(group)
            group.state = OPEN
            is_void = is_impossible(fragment)
        if is_void:
            self.discarded += 1
            self.unused += group.count + 1
            empty_group(group)
            group.state = VOID
            return 0
        if group.count == group.room:
            pieces = <Piece *> realloc(group.pieces, (2 * group.room or 4) * sizeof(Piece))
            if pieces == NULL:
                raise MemoryError
            group.pieces = pieces
            group.room = 2 * group.room or 4
        piece = &group.pieces[group.count]
        piece.data = <uint8_t *> malloc(fragment.captured or 1)
        if piece.data == NULL:
            raise MemoryError
        memcpy(piece.data, data, fragment.captured)
        piece.offset, piece.length, piece.captured = fragment.offset, fragment.length, fragment.captured
        piece.more = fragment.more
        group.count += 1
        group.came += fragment.length
        if not fragment.more:
            group.total = end
        if group.total and group.came == group.total:
            group.state = COMPLETE
            self.complete += 1
            self.put_out(group, fragment, row)
        return 0

    cdef int set_places(self, FrameColumns frames) except -1:
        """Let a batch have two interfaces a tap, with raw IPv4 and raw IPv6."""
        frames.set_link_types(np.tile(np.array([228, 229], np.int32), self.highest_tap + 1))
        frames.set_taps(np.repeat(np.arange(self.highest_tap + 1, dtype=np.uint16), 2))
        return 0

    cdef int put_out(self, Group *group, const Fragment *fragment, Py_ssize_t row) except -1:
        """Append the datagram of a group to the batch of those that are put together."""
        cdef FrameColumns frames = self.frames
        cdef int header = 20 if fragment.key.ip_version == 4 else 40
        cdef Py_ssize_t needed = self.used + header + group.total
        cdef Py_ssize_t at = frames.count
        cdef uint32_t captured = 0
        cdef int32_t piece, found = 0
        cdef uint8_t[::1] raw
        cdef uint8_t *p
        if at == frames.capacity:
            frames = FrameColumns(2 * at)
            self.set_places(frames)
            for name in ("timestamp_ns", "timestamp_source", "wire_length", "captured_length", "interface", "offset",
                         "frame_number"):
                frames.storage(name)[:at] = self.frames.column(name)
            self.frames = frames
            self.headers = HeaderColumns(2 * at)
            self.rows = np.concatenate([self.rows, np.zeros(at, np.int64)])
            frames.count = at
        if fragment.key.tap > self.highest_tap:
            self.highest_tap = fragment.key.tap
            self.set_places(frames)
        if needed > self.bytes.shape[0]:
            self.bytes = np.concatenate([self.bytes, np.empty(needed, np.uint8)])
        raw = self.bytes
        p = &raw[self.used]
        memset(p, 0, header)
        if header == 20:
            p[0] = 0x45
            p[2], p[3] = <uint8_t> ((header + group.total) >> 8), <uint8_t> (header + group.total)
            p[8], p[9] = 1, UDP
            memcpy(p + 12, fragment.key.source + 12, 4)
            memcpy(p + 16, fragment.key.destination + 12, 4)
        else:
            p[0] = 0x60
            p[4], p[5] = <uint8_t> (group.total >> 8), <uint8_t> group.total
            p[6], p[7] = UDP, 1
            memcpy(p + 8, fragment.key.source, 16)
            memcpy(p + 24, fragment.key.destination, 16)
        # One after the other, as far as there is no byte that was not captured.
        while found >= 0 and captured < group.total:
            found = -1
            for piece in range(group.count):
                if group.pieces[piece].offset == captured:
                    found = piece
                    break
            if found >= 0:
                memcpy(p + header + captured, group.pieces[found].data, group.pieces[found].captured)
                captured += group.pieces[found].captured
                if group.pieces[found].captured < group.pieces[found].length:
                    break
        frames.timestamp_ns[at] = frames.read_ns[at] = fragment.at_ns
        frames.timestamp_source[at] = <uint8_t> fragment.source
        frames.wire_length[at] = header + group.total
        frames.captured_length[at] = header + captured
        frames.interface[at] = <uint16_t> (2 * fragment.key.tap + (header == 40))
        frames.offset[at] = self.used
        frames.frame_number[at] = fragment.frame
        self.rows[at] = row
        self.used += header + captured
        frames.count = at + 1
        return 0

    cdef int decode_all(self) except -1:
        if self.frames.count == 0:
            return 0
        self.frames.set_data(self.bytes)
        decode(self.frames, self.headers, False)
        return 0

    def take(self, FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift, Py_ssize_t first):
        """Take the fragments of a batch from a row on, up to the end or to a fragment of a head.

        Parameters
        ----------
        frame_shift : int
            Added to the batch's frame numbers.

        Returns
        -------
        int
            The row of that fragment, or the number of rows. `rows` says which row completed each datagram of `frames`.
        """
        cdef Py_ssize_t row = first
        cdef Fragment fragment
        cdef const uint8_t *data
        cdef Group *group
        self.clear()
        while row < frames.count:
            if is_fragment(headers, row) and fragment_of(frames, headers, row, frame_shift, &fragment, &data):
                if not self.is_known:
                    group = self.find(&fragment.key)
                    if self.is_head(&fragment, group):
                        break
                self.take_fragment(&fragment, data, row)
            row += 1
        self.decode_all()
        return row

    def has_heads(self, int64_t frame):
        """Tell whether a fragment in a frame, or after it, may be of a head."""
        cdef Py_ssize_t at
        if self.is_known:
            return False
        if frame <= NEAR_FRAMES:
            return True
        for at in range(self.count):
            if self.groups[at].state == HEAD and frame - self.groups[at].frame <= NEAR_FRAMES:
                return True
        return False

    def event(self, FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift, Py_ssize_t row):
        """Return a fragment of a head as bytes, and note it."""
        cdef Fragment fragment
        cdef const uint8_t *data = NULL
        if not fragment_of(frames, headers, row, frame_shift, &fragment, &data):
            raise ValueError("this row is no fragment of a UDP datagram")
        self.note_head(&fragment)
        return (<const char *> &fragment)[: sizeof(Fragment)] + (<const char *> data)[: fragment.captured]

    cdef int note_head(self, const Fragment *fragment) except -1:
        cdef Group *group = self.find(&fragment.key)
        if group == NULL:
            group = self.enter(&fragment.key, fragment.frame)
        group.state = HEAD
        self.saw(group, fragment)
        return 0

    def take_event(self, const uint8_t[::1] event not None, int64_t frame_shift):
        """Take a fragment that a later part has kept; return it as it is to be kept here, None where it is not."""
        cdef Fragment fragment
        cdef Py_ssize_t size = event.shape[0]
        if size < <Py_ssize_t> sizeof(Fragment):
            raise ValueError("this is no fragment")
        memcpy(&fragment, &event[0], sizeof(Fragment))
        if size != <Py_ssize_t> sizeof(Fragment) + fragment.captured:
            raise ValueError("this is no fragment")
        fragment.frame += frame_shift
        self.clear()
        if self.is_head(&fragment, self.find(&fragment.key)):
            self.note_head(&fragment)
            return (<const char *> &fragment)[: sizeof(Fragment)] + bytes(event[sizeof(Fragment):])
        self.take_fragment(&fragment, (&event[0]) + sizeof(Fragment), 0)
        self.decode_all()
        return None

    def absorb(self, Datagrams later not None, int64_t frame_shift):
        """Take over what a later part has put together and what is open there, after its kept fragments were taken."""
        cdef Py_ssize_t at
        cdef int32_t piece
        cdef Group *theirs
        cdef Group *group
        for at in range(later.count):
            theirs = &later.groups[at]
            if theirs.state == HEAD:
                continue
            group = self.find(&theirs.key)
            if group == NULL:
                group = self.enter(&theirs.key, theirs.frame + frame_shift)
            else:
                self.end(group)
            group[0] = theirs[0]
            group.frame += frame_shift
            group.pieces = NULL
            group.count = group.room = 0
            if theirs.count:
                group.pieces = <Piece *> calloc(theirs.count, sizeof(Piece))
                if group.pieces == NULL:
                    raise MemoryError
                group.room = theirs.count
            for piece in range(theirs.count):
                group.pieces[piece] = theirs.pieces[piece]
                group.pieces[piece].data = <uint8_t *> malloc(theirs.pieces[piece].captured or 1)
                if group.pieces[piece].data == NULL:
                    raise MemoryError
                memcpy(group.pieces[piece].data, theirs.pieces[piece].data, theirs.pieces[piece].captured)
                group.count += 1
        self.complete += later.complete
        self.discarded += later.discarded
        self.copies += later.copies
        self.closed += later.closed
        self.unused += later.unused

    @property
    def left_out(self):
        """Fragments of datagrams that were void, or that are incomplete at the end."""
        cdef Py_ssize_t at
        cdef int64_t found = self.unused
        for at in range(self.count):
            found += self.groups[at].count if self.groups[at].state == OPEN else 0
        return found

    @property
    def incomplete(self):
        """Datagrams that were left incomplete, or are so at the end."""
        cdef Py_ssize_t at
        cdef int64_t found = self.closed
        for at in range(self.count):
            found += self.groups[at].state == OPEN and self.groups[at].count > 0
        return found

    # --- pickling -------------------------------------------------------------------------------------------------

    def __reduce__(self):
        cdef Py_ssize_t at
        cdef int32_t piece
        cdef Group *group
        groups = []
        for at in range(self.count):
            group = &self.groups[at]
            pieces = [
                (group.pieces[piece].offset, group.pieces[piece].length, group.pieces[piece].more,
                 (<const char *> group.pieces[piece].data)[: group.pieces[piece].captured])
                for piece in range(group.count)
            ]
            key = (<const char *> &group.key)[: sizeof(Key)]
            groups.append((key, group.frame, group.at_ns, group.state, group.total, group.came, pieces))
        counts = self.complete, self.discarded, self.copies, self.closed, self.unused
        return _datagrams, (self.is_known, counts, groups)

    def restore(self, tuple counts, list groups):
        """Take over what was pickled, into an object that is new."""
        cdef Key key
        cdef Group *group
        cdef Piece *piece
        cdef const uint8_t[::1] raw
        self.complete, self.discarded, self.copies, self.closed, self.unused = counts
        for named, frame, at_ns, state, total, came, pieces in groups:
            if len(named) != sizeof(Key):
                raise ValueError("this is not the state of such an object")
            raw = named
            memcpy(&key, &raw[0], sizeof(Key))
            if self.count == self.room:
                self.grow()
            group = self.enter(&key, frame)
            group.frame, group.at_ns, group.state, group.total, group.came = frame, at_ns, state, total, came
            group.pieces = <Piece *> calloc(len(pieces) or 1, sizeof(Piece))
            if group.pieces == NULL:
                raise MemoryError
            group.room = len(pieces)
            for offset, length, more, data in pieces:
                piece = &group.pieces[group.count]
                piece.data = <uint8_t *> malloc(len(data) or 1)
                if piece.data == NULL:
                    raise MemoryError
                piece.offset, piece.length, piece.more, piece.captured = offset, length, more, len(data)
                group.count += 1
                if len(data):
                    raw = data
                    memcpy(piece.data, &raw[0], len(data))


def _datagrams(bint is_known, tuple counts, list groups):
    """Return what was pickled."""
    datagrams = Datagrams(is_known)
    datagrams.restore(counts, groups)
    return datagrams


def has_fragments(FrameColumns frames not None, HeaderColumns headers not None):
    """Tell whether a batch has an IP fragment."""
    cdef Py_ssize_t row
    cdef bint found = False
    with nogil:
        for row in range(frames.count):
            if is_fragment(headers, row):
                found = True
                break
    return found
