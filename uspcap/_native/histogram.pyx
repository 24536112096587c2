"""Counting values in HDR buckets, densely for one histogram and sparsely for many.

A. Buckets are those of HdrHistogram with lowest discernible value 1, highest trackable value 2^63-1 and
   three significant figures: in octave k (k = 0 holds 0..2047) a bucket is 2^k wide, so that its width is
   at most 1/1024 of any value in it.

       value   0 ........ 2047 | 2048 .... 4095 | 4096 .... 8191 | ...
       width          1        |       2        |       4        |
       index   0 ........ 2047 | 2048 .... 3071 | 3072 .... 4095 |

B. `Cells` counts (flow, bucket) pairs in one open-addressing table: memory follows the number of distinct
   pairs, and merging, cutting and percentiles of all flows are a few array operations on the result.
   Four neighbouring buckets of a flow share a cache line.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free

import numpy as np

BUCKETS = COUNTS_LENGTH
FLOW_SHIFT = 16


cdef class Cells:
    """Counts by 64-bit key; key = (flow + 1) << 16 | bucket."""

    def __cinit__(self):
        self.count = 0
        self.allocated = 0
        self.reserve(1024)

    def __dealloc__(self):
        free(self.keys)
        free(self.counts)

    cdef inline uint64_t home(self, uint64_t key) noexcept nogil:
        return ((((key >> 2) * <uint64_t> 0x9E3779B97F4A7C15) >> self.shift) << 2) | (key & 3)

    cdef int reserve(self, Py_ssize_t more) except -1:
        """Make room for `more` new keys, keeping the table at most 5/8 full."""
        cdef Py_ssize_t wanted = self.count + more, allocated = self.allocated or 4096
        cdef Py_ssize_t old_allocated = self.allocated, i
        cdef uint64_t *old_keys = self.keys
        cdef uint64_t *old_counts = self.counts
        cdef uint64_t *keys
        cdef uint64_t *counts
        while 5 * allocated < 8 * wanted:
            allocated *= 2
        if allocated == self.allocated:
            return 0
        keys = <uint64_t *> calloc(allocated, sizeof(uint64_t))
        counts = <uint64_t *> calloc(allocated, sizeof(uint64_t))
        if keys == NULL or counts == NULL:
            free(keys)
            free(counts)
            raise MemoryError
        self.keys = keys
        self.counts = counts
        self.allocated = allocated
        self.count = 0
        self.shift = 64
        while allocated > 4:
            allocated >>= 1
            self.shift -= 1
        with nogil:
            for i in range(old_allocated):
                if old_keys[i]:
                    self.add(old_keys[i], old_counts[i])
        free(old_keys)
        free(old_counts)
        return 0

    cdef inline void add(self, uint64_t key, uint64_t count) noexcept nogil:
        """Add to a cell; `reserve` has made room."""
        cdef uint64_t mask = self.allocated - 1
        cdef uint64_t slot = self.home(key)
        while self.keys[slot] != key:
            if self.keys[slot] == 0:
                self.keys[slot] = key
                self.count += 1
                break
            slot = (slot + 1) & mask
        self.counts[slot] += count

    def add_many(self, const uint64_t[::1] keys, const uint64_t[::1] counts):
        """Add `counts` to the cells at `keys`, both of shape (n,)."""
        cdef Py_ssize_t i
        self.reserve(keys.shape[0])
        for i in range(keys.shape[0]):
            self.add(keys[i], counts[i])

    def items(self):
        """Return keys and counts, sorted by key.

        Returns
        -------
        tuple of ndarray of uint64, shape (count,) each
        """
        keys = np.empty(self.count, np.uint64)
        counts = np.empty(self.count, np.uint64)
        cdef uint64_t[::1] key_view = keys
        cdef uint64_t[::1] count_view = counts
        cdef Py_ssize_t i, row = 0
        for i in range(self.allocated):
            if self.keys[i]:
                key_view[row] = self.keys[i]
                count_view[row] = self.counts[i]
                row += 1
        order = np.argsort(keys, kind="stable")
        return keys[order], counts[order]


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
