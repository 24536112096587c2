"""Counting values in HDR buckets, densely for one histogram and sparsely for many.

A. Buckets are those of HdrHistogram with lowest discernible value 1, highest trackable value 2^63-1 and
   three significant figures: in octave k (k = 0 holds 0..2047) a bucket is 2^k wide, so that its width is
   at most 1/1024 of any value in it.

       value   0 ........ 2047 | 2048 .... 4095 | 4096 .... 8191 | ...
       width          1        |       2        |       4        |
       index   0 ........ 2047 | 2048 .... 3071 | 3072 .... 4095 |

B. `Cells` counts (flow, bucket) pairs in one open-addressing table: memory follows the number of distinct
   pairs, and percentiles of all flows are a few array operations on the result. Key and count share a
   word, so that a count costs one cache line; eight neighbouring buckets of a flow share that line. What does
   not fit 24 bits is carried to a dict, once in 16 million.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free

import numpy as np

BUCKETS = COUNTS_LENGTH
FLOW_SHIFT = 16

cdef enum:
    FLOW_BITS = 16


cdef class Cells:
    """Counts by key; key = (flow + 1) << 16 | bucket, in 40 bits."""

    def __cinit__(self):
        self.count = 0
        self.allocated = 0
        self.overflow = {}
        self.reserve(1024)

    def __dealloc__(self):
        free(self.cells)

    cdef inline uint64_t home(self, uint64_t key) noexcept nogil:
        return ((((key >> 3) * <uint64_t> 0x9E3779B97F4A7C15) >> self.shift) << 3) | (key & 7)

    cdef int reserve(self, Py_ssize_t more) except -1:
        """Make room for `more` new keys, keeping the table at most 5/8 full."""
        cdef Py_ssize_t wanted = self.count + more, allocated = self.allocated or 4096
        cdef Py_ssize_t old_allocated = self.allocated, i
        cdef uint64_t *old_cells = self.cells
        cdef uint64_t *cells
        while 5 * allocated < 8 * wanted:
            allocated *= 2
        if allocated == self.allocated:
            return 0
        cells = <uint64_t *> calloc(allocated, sizeof(uint64_t))
        if cells == NULL:
            raise MemoryError
        self.cells = cells
        self.allocated = allocated
        self.count = 0
        self.shift = 64
        while allocated > 8:
            allocated >>= 1
            self.shift -= 1
        with nogil:
            for i in range(old_allocated):
                if old_cells[i]:
                    self.add(old_cells[i] >> COUNT_BITS, old_cells[i] & FULL_COUNT)
        free(old_cells)
        return 0

    cdef void spill(self, uint64_t key, uint64_t count) noexcept with gil:
        self.overflow[key] = self.overflow.get(key, 0) + count

    cdef inline void add(self, uint64_t key, uint64_t count) noexcept nogil:
        """Add at most FULL_COUNT to a cell; `reserve` has made room."""
        cdef uint64_t mask = self.allocated - 1
        cdef uint64_t slot = self.home(key)
        while self.cells[slot] >> COUNT_BITS != key:
            if self.cells[slot] == 0:
                self.cells[slot] = key << COUNT_BITS
                self.count += 1
                break
            slot = (slot + 1) & mask
        if (self.cells[slot] & FULL_COUNT) + count > FULL_COUNT:
            self.spill(key, self.cells[slot] & FULL_COUNT)
            self.cells[slot] = key << COUNT_BITS
        self.cells[slot] += count

    def add_one_each(self, const uint64_t[::1] keys):
        """Add one to the cell at each of `keys`, shape (n,)."""
        cdef Py_ssize_t i
        self.reserve(keys.shape[0])
        for i in range(keys.shape[0]):
            self.add(keys[i], 1)

    def absorb(self, Cells other, const int32_t[::1] flows):
        """Add the cells of `other`, whose flow f is `flows[f]` here, -1 for nowhere."""
        cdef Py_ssize_t i
        cdef uint64_t key
        cdef int64_t flow
        # All the room at once: cells come in the order of their hash, and would pile up in a smaller table.
        self.reserve(other.count)
        with nogil:
            for i in range(other.allocated):
                if other.cells[i] == 0:
                    continue
                key = other.cells[i] >> COUNT_BITS
                flow = <int64_t> (key >> FLOW_BITS) - 1
                if flow < flows.shape[0] and flows[flow] >= 0:
                    key = (<uint64_t> (flows[flow] + 1) << FLOW_BITS) | (key & 0xFFFF)
                    self.add(key, other.cells[i] & FULL_COUNT)
        for key, count in other.overflow.items():
            flow = <int64_t> (key >> FLOW_BITS) - 1
            if flow < flows.shape[0] and flows[flow] >= 0:
                self.spill((<uint64_t> (flows[flow] + 1) << FLOW_BITS) | (key & 0xFFFF), count)

    def items(self):
        """Return keys and counts, sorted by key.

        Returns
        -------
        tuple of ndarray of uint64, shape (count,) each
        """
        cells = np.empty(self.count, np.uint64)
        cdef uint64_t[::1] view = cells
        cdef Py_ssize_t i, row = 0
        for i in range(self.allocated):
            if self.cells[i]:
                view[row] = self.cells[i]
                row += 1
        cells.sort()
        keys = cells >> np.uint64(COUNT_BITS)
        cells &= np.uint64(FULL_COUNT)
        for key, count in self.overflow.items():
            cells[np.searchsorted(keys, np.uint64(key))] += np.uint64(count)
        return keys, cells


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
