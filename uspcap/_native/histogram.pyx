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
from libc.stdlib cimport free
from libc.string cimport memcpy

import numpy as np

cdef extern from *:
    """
    #include <stdlib.h>
    #include <string.h>
    #include <sys/mman.h>

    /* Zeroed memory, on huge pages where it is large: counting goes all over it, and misses no page then. */
    static void *uspcap_zeroed(size_t bytes) {
        const size_t huge = (size_t) 2 << 20;
        void *memory = NULL;
        if (bytes < 2 * huge)
            return calloc(1, bytes);
        if (posix_memalign(&memory, huge, bytes))
            return NULL;
        madvise(memory, bytes, MADV_HUGEPAGE);
        return memset(memory, 0, bytes);
    }
    """
    void *zeroed "uspcap_zeroed"(size_t) nogil

BUCKETS = COUNTS_LENGTH
FLOW_SHIFT = 16

cdef enum:
    FLOW_BITS = 16


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
        free(self.keys)
        free(self.counts)

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
            free(keys)
            free(counts)
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
        free(old_keys)
        free(old_counts)
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

    def absorb(self, Cells other, const int32_t[::1] flows):
        """Add the cells of `other`, whose flow f is `flows[f]` here, -1 for nowhere."""
        cdef Py_ssize_t i
        cdef uint64_t line, key
        cdef int64_t flow
        cdef int lane
        cdef uint32_t total
        cdef uint16_t *mine
        cdef uint16_t *theirs
        # All the room at once: lines come in the order of their hash, and would pile up in a smaller table.
        self.reserve(other.lines)
        with nogil:
            for i in range(other.allocated):
                if other.keys[i] == 0:
                    continue
                line = other.keys[i]
                flow = <int64_t> (line >> (FLOW_BITS - LANE_BITS)) - 1
                if flow >= flows.shape[0] or flows[flow] < 0:
                    continue
                line = (<uint64_t> (flows[flow] + 1) << (FLOW_BITS - LANE_BITS)) | (
                    line & ((1 << (FLOW_BITS - LANE_BITS)) - 1))
                mine = self.counts + self.find(line) * LANES
                theirs = other.counts + i * LANES
                for lane in range(LANES):
                    total = <uint32_t> mine[lane] + theirs[lane]
                    if total > FULL_LANE:
                        self.carry((line << LANE_BITS) | lane)
                        total -= FULL_LANE
                    mine[lane] = <uint16_t> total
        for key, count in other.overflow.items():
            flow = <int64_t> (key >> FLOW_BITS) - 1
            if flow < flows.shape[0] and flows[flow] >= 0:
                key = (<uint64_t> (flows[flow] + 1) << FLOW_BITS) | (key & 0xFFFF)
                self.overflow[key] = self.overflow.get(key, 0) + count

    def items(self):
        """Return the cells that are not 0, sorted by flow, then by bucket.

        Returns
        -------
        flows, buckets : ndarray of int32, shape (cells,)
        counts : ndarray of int64, shape (cells,)
        """
        lines = np.empty((self.lines, 2), np.uint64)
        cdef uint64_t[:, ::1] line_view = lines
        cdef Py_ssize_t i, row = 0, cells = 0
        cdef int lane
        cdef uint16_t *line
        for i in range(self.allocated):
            if self.keys[i]:
                line_view[row, 0] = self.keys[i]
                line_view[row, 1] = i
                row += 1
                for lane in range(LANES):
                    cells += self.counts[i * LANES + lane] != 0
        lines = np.ascontiguousarray(lines[np.argsort(lines[:, 0])])
        line_view = lines
        flows = np.empty(cells, np.int32)
        buckets = np.empty(cells, np.int32)
        counts = np.empty(cells, np.int64)
        cdef int32_t[::1] flow_view = flows
        cdef int32_t[::1] bucket_view = buckets
        cdef int64_t[::1] count_view = counts
        cdef int32_t flow, bucket
        cells = 0
        for row in range(self.lines):
            line = self.counts + line_view[row, 1] * LANES
            flow = <int32_t> (line_view[row, 0] >> (FLOW_BITS - LANE_BITS)) - 1
            bucket = <int32_t> ((line_view[row, 0] << LANE_BITS) & 0xFFFF)
            for lane in range(LANES):
                if line[lane]:
                    flow_view[cells] = flow
                    bucket_view[cells] = bucket | lane
                    count_view[cells] = line[lane]
                    cells += 1
        for key, count in self.overflow.items():
            first, last = np.searchsorted(flows, [(key >> FLOW_BITS) - 1, key >> FLOW_BITS])
            counts[first + np.searchsorted(buckets[first:last], key & 0xFFFF)] += count
        return flows, buckets, counts


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
