"""Counting values in HDR buckets, densely for one histogram and sparsely for many.

A. Buckets are those of HdrHistogram with lowest discernible value 1, highest trackable value 2^63-1 and
   three significant figures: in octave k (k = 0 holds 0..2047) a bucket is 2^k wide, so that its width is
   at most 1/1024 of any value in it.

       value   0 ........ 2047 | 2048 .... 4095 | 4096 .... 8191 | ...
       width          1        |       2        |       4        |
       index   0 ........ 2047 | 2048 .... 3071 | 3072 .... 4095 |

B. `Cells` counts (flow, bucket) pairs. Gaps of one flow fall into a few neighbourhoods of buckets, so that a table
   of single pairs would be mostly keys; here an open-addressing table holds lines of 32 neighbouring buckets,
   16 bits each, a cache line beside its key. Memory follows the number of neighbourhoods. A count that
   outgrows its 16 bits is carried to a dict.
"""

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from uspcap._core.huge_pages cimport release, zeroed
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking

BUCKETS = COUNTS_LENGTH
FLOW_SHIFT = 16

cdef enum:
    FLOW_BITS = 16


cdef void release_lines(uint64_t *keys, uint16_t *counts, Py_ssize_t allocated) noexcept:
    release(keys, allocated * sizeof(uint64_t))
    release(counts, allocated * LANES * sizeof(uint16_t))


cdef class Cells:
    """Counts by key; key = (flow + 1) << 16 | bucket, in 48 bits.

    Attributes
    ----------
    lines : int
        Neighbourhoods in use, 72 bytes each.
    """

    def __cinit__(self):
        self.lines = 0
        self.allocated = 0
        self.overflow = {}
        self.reserve(64)

    def __dealloc__(self):
        release_lines(self.keys, self.counts, self.allocated)

    cdef inline uint64_t home(self, uint64_t line) noexcept nogil:
        return (line * <uint64_t> 0x9E3779B97F4A7C15) >> self.shift

    cdef int reserve(self, Py_ssize_t more) except -1:
        """Make room for `more` new lines, keeping the table at most 5/8 full."""
        cdef Py_ssize_t wanted = self.lines + more, allocated = self.allocated or 128
        cdef Py_ssize_t old_allocated = self.allocated, i
        cdef uint64_t *old_keys = self.keys
        cdef uint16_t *old_counts = self.counts
        cdef uint64_t *keys
        cdef uint16_t *counts
        while 5 * allocated < 8 * wanted:
            allocated *= 2
        if allocated == self.allocated:
            return 0
        keys = <uint64_t *> zeroed(allocated * sizeof(uint64_t))
        counts = <uint16_t *> zeroed(allocated * LANES * sizeof(uint16_t))
        if keys == NULL or counts == NULL:
            release_lines(keys, counts, allocated)
            raise MemoryError
        self.keys = keys
        self.counts = counts
        self.allocated = allocated
        self.lines = 0
        self.shift = 64
        while allocated > 1:
            allocated >>= 1
            self.shift -= 1
        with nogil:
            for i in range(old_allocated):
                if old_keys[i]:
                    memcpy(self.counts + self.find(old_keys[i]) * LANES, old_counts + i * LANES,
                           LANES * sizeof(uint16_t))
        release_lines(old_keys, old_counts, old_allocated)
        return 0

    cdef void carry(self, uint64_t key) noexcept with gil:
        self.overflow[key] = self.overflow.get(key, 0) + FULL_LANE

    cdef inline uint64_t find(self, uint64_t line) noexcept nogil:
        """Return the slot of a line, taking a free one where it is new; `reserve` has made room."""
        cdef uint64_t mask = self.allocated - 1
        cdef uint64_t slot = self.home(line)
        while self.keys[slot] != line:
            if self.keys[slot] == 0:
                self.keys[slot] = line
                self.lines += 1
                break
            slot = (slot + 1) & mask
        return slot

    cdef inline void add(self, uint64_t key) noexcept nogil:
        """Count one; `reserve` has made room."""
        cdef uint16_t *count = &self.counts[(self.find(key >> LANE_BITS) << LANE_BITS) | (key & (LANES - 1))]
        if count[0] == FULL_LANE:
            self.carry(key)
            count[0] = 0
        count[0] += 1

    def add_one_each(self, const uint64_t[::1] keys):
        """Add one to the cell at each of `keys`, shape (n,)."""
        cdef Py_ssize_t i
        self.reserve(keys.shape[0])
        for i in range(keys.shape[0]):
            self.add(keys[i])

    cdef bint holds(self, uint64_t line) noexcept nogil:
        cdef uint64_t slot = self.home(line)
        while self.keys[slot] != line:
            if self.keys[slot] == 0:
                return False
            slot = (slot + 1) & <uint64_t> (self.allocated - 1)
        return True

    def absorb(self, Cells other, const int32_t[::1] flows):
        """Add the cells of `other`, whose flow f is `flows[f]` here, -1 for nowhere."""
        cdef Py_ssize_t i, new = 0
        cdef uint64_t line
        cdef int lane
        cdef uint32_t total
        cdef uint16_t *mine
        cdef uint16_t *theirs
        with nogil:
            for i in range(other.allocated):
                line = moved_line(other.keys[i], flows)
                new += line != 0 and not self.holds(line)
        # All the room at once: lines come in the order of their hash, and would pile up in a smaller table.
        self.reserve(new)
        with nogil:
            for i in range(other.allocated):
                line = moved_line(other.keys[i], flows)
                if line == 0:
                    continue
                mine = self.counts + self.find(line) * LANES
                theirs = other.counts + i * LANES
                for lane in range(LANES):
                    total = <uint32_t> mine[lane] + theirs[lane]
                    if total > FULL_LANE:
                        self.carry((line << LANE_BITS) | lane)
                        total -= FULL_LANE
                    mine[lane] = <uint16_t> total
        for key, count in other.overflow.items():
            line = moved_line(key >> LANE_BITS, flows)
            if line:
                key = (line << LANE_BITS) | (key & (LANES - 1))
                self.overflow[key] = self.overflow.get(key, 0) + count

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        cdef Py_ssize_t i
        with nogil:
            for i in range(self.allocated):
                if self.keys[i]:
                    pack(&packed, &self.keys[i], sizeof(uint64_t))
                    pack(&packed, self.counts + i * LANES, LANES * sizeof(uint16_t))
        return _cells, (self.lines, self.overflow, finished(&packed))

    def by_flow(self):
        """Return the cells sorted by flow, then by bucket: a CellsByFlow, which later changes leave stale."""
        return CellsByFlow(self)


cdef inline uint64_t moved_line(uint64_t line, const int32_t[::1] flows) noexcept nogil:
    """Return the key of a line whose flow f is now `flows[f]`; 0 where there is no line, or no place for it."""
    cdef int64_t flow = <int64_t> (line >> (FLOW_BITS - LANE_BITS)) - 1
    if flow < 0 or flow >= flows.shape[0] or flows[flow] < 0:
        return 0
    return (<uint64_t> (flows[flow] + 1) << (FLOW_BITS - LANE_BITS)) | (line & ((1 << (FLOW_BITS - LANE_BITS)) - 1))


def _cells(Py_ssize_t lines, dict overflow, bytes state):
    """Return pickled cells."""
    cdef Cells cells = Cells()
    cdef Unpacked unpacked = unpacking(state)
    cdef Py_ssize_t i
    cdef uint64_t line
    cells.reserve(lines)
    cells.overflow = overflow
    with nogil:
        for i in range(lines):
            unpack(&unpacked, &line, sizeof(uint64_t))
            if unpacked.failed or line == 0:
                break
            unpack(&unpacked, cells.counts + cells.find(line) * LANES, LANES * sizeof(uint16_t))
    all_read(&unpacked)
    return cells


cdef class CellsByFlow:
    """The histograms in a `Cells`, one a flow.

    Parameters
    ----------
    cells : Cells
        Read in place; must not change while this is used.

    Attributes
    ----------
    flows : ndarray of int32, shape (flows,)
        Those that have cells, rising.
    totals : ndarray of int64, shape (flows,)
        How many values each has.
    """

    cdef Cells cells
    cdef readonly object flows
    cdef readonly object totals
    cdef object lines               # keys of the lines, rising
    cdef object slots               # where their counts are
    cdef object starts              # the first line of each flow; last, how many lines there are
    cdef object carried             # keys of the cells that were carried, rising
    cdef object carried_counts

    def __init__(self, Cells cells not None):
        self.cells = cells
        self.carried = np.array(sorted(cells.overflow), np.uint64)
        self.carried_counts = np.array([cells.overflow[key] for key in sorted(cells.overflow)], np.int64)
        lines = np.empty(cells.lines, np.uint64)
        slots = np.empty(cells.lines, np.int64)
        cdef uint64_t[::1] line_view = lines
        cdef int64_t[::1] slot_view = slots
        cdef Py_ssize_t i, row = 0
        for i in range(cells.allocated):
            if cells.keys[i]:
                line_view[row] = cells.keys[i]
                slot_view[row] = i
                row += 1
        order = np.argsort(lines)
        self.lines = lines[order]
        self.slots = slots[order]
        of_flow = (self.lines >> np.uint64(FLOW_BITS - LANE_BITS)).astype(np.int32) - 1
        firsts = np.flatnonzero(np.diff(of_flow, prepend=-1))
        self.flows = of_flow[firsts]
        self.starts = np.append(firsts, len(lines))
        totals = np.empty(len(firsts), np.int64)
        cdef int64_t[::1] total_view = totals
        cdef int64_t[::1] starts = self.starts
        cdef const int64_t[::1] sorted_slots = self.slots
        cdef int64_t total
        cdef int lane
        cdef uint16_t *line
        cdef Py_ssize_t number
        with nogil:
            for number in range(total_view.shape[0]):
                total = 0
                for row in range(starts[number], starts[number + 1]):
                    line = cells.counts + sorted_slots[row] * LANES
                    for lane in range(LANES):
                        total += line[lane]
                total_view[number] = total
        np.add.at(totals, np.searchsorted(self.flows, (self.carried >> np.uint64(FLOW_BITS)).astype(np.int64) - 1),
                  self.carried_counts)
        self.totals = totals

    def buckets_of(self, const int64_t[::1] ranks):
        """Return the bucket of one value of each flow.

        Parameters
        ----------
        ranks : ndarray of int64, shape (flows,)
            Which of the flow's sorted values; 1 to its total.

        Returns
        -------
        ndarray of int32, shape (flows,)
        """
        cdef int64_t[::1] starts = self.starts
        cdef const int64_t[::1] slots = self.slots
        cdef const uint64_t[::1] lines = self.lines
        cdef const uint64_t[::1] carried = self.carried
        cdef const int64_t[::1] carried_counts = self.carried_counts
        buckets = np.zeros(len(self.flows), np.int32)
        cdef int32_t[::1] bucket_view = buckets
        cdef Py_ssize_t number, row, at = 0
        cdef int lane
        cdef int64_t before
        cdef uint64_t key
        cdef uint16_t *line
        if ranks.shape[0] != bucket_view.shape[0]:
            raise ValueError("each flow takes one rank")
        with nogil:
            for number in range(bucket_view.shape[0]):
                before = 0
                for row in range(starts[number], starts[number + 1]):
                    line = self.cells.counts + slots[row] * LANES
                    for lane in range(LANES):
                        key = (lines[row] << LANE_BITS) | lane
                        before += line[lane]
                        while at < carried.shape[0] and carried[at] < key:
                            at += 1
                        if at < carried.shape[0] and carried[at] == key:
                            before += carried_counts[at]
                        if before >= ranks[number]:
                            bucket_view[number] = <int32_t> (key & 0xFFFF)
                            break
                    if before >= ranks[number]:
                        break
        return buckets

    def histogram_of(self, int32_t flow):
        """Return the cells of one flow.

        Returns
        -------
        tuple of ndarray of int64, shape (cells,) each
            The buckets that are not empty, rising, and their counts.
        """
        number = np.searchsorted(self.flows, flow)
        if number == len(self.flows) or self.flows[number] != flow:
            return np.empty(0, np.int64), np.empty(0, np.int64)
        rows = slice(self.starts[number], self.starts[number + 1])
        cdef const int64_t[::1] slots = self.slots[rows]
        dense = np.empty((slots.shape[0], LANES), np.int64)
        cdef int64_t[:, ::1] dense_view = dense
        cdef Py_ssize_t row
        cdef int lane
        for row in range(slots.shape[0]):
            for lane in range(LANES):
                dense_view[row, lane] = self.cells.counts[slots[row] * LANES + lane]
        firsts = (self.lines[rows].astype(np.int64) << LANE_BITS) & 0xFFFF
        keys = (firsts[:, None] + np.arange(LANES)).ravel()
        counts = dense.ravel()
        carried = slice(*np.searchsorted(self.carried, np.array([flow + 1, flow + 2], np.uint64) << np.uint64(FLOW_BITS)))
        carried_buckets = self.carried[carried].astype(np.int64) & 0xFFFF
        counts[np.searchsorted(keys, carried_buckets)] += self.carried_counts[carried]
        used = np.flatnonzero(counts)
        return keys[used], counts[used]


def record_many(uint64_t[::1] counts, const int64_t[::1] values):
    """Count `values` (ndarray of int64, none negative) into `counts`, of shape (BUCKETS,)."""
    cdef Py_ssize_t i
    if counts.shape[0] != COUNTS_LENGTH:
        raise ValueError(f"counts must have {COUNTS_LENGTH} buckets")
    for i in range(values.shape[0]):
        if values[i] < 0:
            raise ValueError("a histogram takes no negative value")
        counts[index_of(values[i])] += 1


def bucket_bounds():
    """Return the lowest and the highest value of every bucket.

    Returns
    -------
    tuple of ndarray of int64, shape (BUCKETS,) each
    """
    index = np.arange(COUNTS_LENGTH, dtype=np.int64)
    octave = np.maximum((index >> HALF_BITS) - 1, 0)
    lowest = (index - (octave << HALF_BITS)) << octave
    highest = lowest + ((np.int64(1) << octave) - 1)
    return lowest, highest
