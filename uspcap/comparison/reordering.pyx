"""Reordering of a stream of sequence numbers, by RFC 4737.

A. A packet is reordered where its number is less than the highest that came before (RFC 4737, 3.3: less than NextExp).
B. Its extent is how many arrivals lie between it and the earliest packet with a higher number (4.2.1). That packet is
   one that raised the highest number, so that only these are searched: back from the last one in steps that double, as
   it is mostly near, then by halving.
C. It is n-reordered where the n packets directly before it all have higher numbers (5.2).
D. HISTORY arrivals are remembered. An extent or n beyond is taken as that, and counted as clipped.
"""

from libc.stdint cimport INT64_MIN, int64_t
from libc.stdlib cimport free, malloc

import numpy as np

from uspcap._core.records cimport dtype_of

cdef enum:
    HISTORY = 1 << 16

REMEMBERED = HISTORY
"""Arrivals."""

cdef struct Extent:
    int64_t frame
    int64_t extent
    int64_t degree

cdef Extent extent_record
EXTENT_DTYPE = dtype_of(<Extent[:1]> &extent_record)
"""A reordered packet: its number, its extent, and the largest n for which it is n-reordered."""


cdef class Reordering:
    """Follows arrivals.

    Attributes
    ----------
    arrivals, reordered, clipped : int
    """

    cdef readonly int64_t arrivals
    cdef readonly int64_t reordered
    cdef readonly int64_t clipped
    cdef int64_t highest
    cdef int64_t rises
    cdef int64_t *numbers       # of the last arrivals
    cdef int64_t *rise_number   # the last arrivals that raised the highest number
    cdef int64_t *rise_arrival

    def __cinit__(self):
        self.numbers = <int64_t *> malloc(HISTORY * sizeof(int64_t))
        self.rise_number = <int64_t *> malloc(HISTORY * sizeof(int64_t))
        self.rise_arrival = <int64_t *> malloc(HISTORY * sizeof(int64_t))
        self.highest = INT64_MIN
        if self.numbers == NULL or self.rise_number == NULL or self.rise_arrival == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.numbers)
        free(self.rise_number)
        free(self.rise_arrival)

    def update(self, const int64_t[::1] numbers):
        """Take arrivals in their order, and return those that are reordered: an array of `EXTENT_DTYPE`.

        Parameters
        ----------
        numbers : ndarray of int64
            Of the packets, as they were sent; of those with equal ones none is reordered against another.
        """
        cdef Py_ssize_t count = numbers.shape[0]
        cdef Py_ssize_t row
        cdef int64_t found = 0
        cdef Extent[::1] extents
        cdef int64_t highest = self.highest
        for row in range(count):
            if numbers[row] < highest:
                found += 1
            else:
                highest = numbers[row]
        out = np.empty(found, EXTENT_DTYPE)
        extents = out
        with nogil:
            found = 0
            for row in range(count):
                if numbers[row] < self.highest:
                    extents[found] = Extent(numbers[row], self.extent_of(numbers[row]), self.degree_of(numbers[row]))
                    found += 1
                else:
                    self.highest = numbers[row]
                    self.rise_number[self.rises & (HISTORY - 1)] = numbers[row]
                    self.rise_arrival[self.rises & (HISTORY - 1)] = self.arrivals
                    self.rises += 1
                self.numbers[self.arrivals & (HISTORY - 1)] = numbers[row]
                self.arrivals += 1
            self.reordered += found
        return out

    cdef int64_t extent_of(self, int64_t number) noexcept nogil:
        cdef int64_t low = self.rises - HISTORY if self.rises > HISTORY else 0
        cdef int64_t high = self.rises - 1
        cdef int64_t middle, extent
        cdef int64_t step = 1
        # The earliest rise above `number`: rises go up.
        while high - step >= low and self.rise_number[(high - step) & (HISTORY - 1)] > number:
            high -= step
            step *= 2
        if high - step >= low:
            low = high - step + 1
        while low < high:
            middle = low + (high - low) // 2
            if self.rise_number[middle & (HISTORY - 1)] > number:
                high = middle
            else:
                low = middle + 1
        extent = self.arrivals - self.rise_arrival[low & (HISTORY - 1)]
        if low and low == self.rises - HISTORY:
            self.clipped += 1
        return extent

    cdef int64_t degree_of(self, int64_t number) noexcept nogil:
        cdef int64_t most = self.arrivals if self.arrivals < HISTORY else HISTORY
        cdef int64_t degree = 0
        while degree < most and self.numbers[(self.arrivals - 1 - degree) & (HISTORY - 1)] > number:
            degree += 1
        return degree
