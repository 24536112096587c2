"""When test frames are due.

A. Times are made one by one as they are needed, so that an endless schedule takes no memory.
B. Constant rates add the whole part of the period and carry the rest of the division: exact, and no product that could
   overflow. Poisson gaps come from splitmix64, whose n-th number depends on seed and n alone.

Source: S. Vigna's splitmix64.c (public domain).
"""

from libc.math cimport log
from libc.stdint cimport int64_t, uint64_t

import numpy as np


cdef class SendTimes:
    """When frames are due, in ns from the start; endless unless it is a list.

    Parameters
    ----------
    kind : str
        `constant`: every `period` exactly, from 0. `poisson`: independent exponential gaps with this mean, the
        first frame after the first gap. `list`: `times_ns`.
    period_numerator, period_denominator : int
        The period or the mean gap in ns as a fraction, 1 or more each, below 2^62.
    seed : int
        Of Poisson gaps, below 2^64. Gap n is -mean ln(u), with u = (splitmix64 number n of the seed >> 11) + 1 in
        2^-53.
    times_ns : ndarray of int64, shape (frames,)
        Never falling, none negative.
    """

    def __init__(self, str kind, *, int64_t period_numerator=1, int64_t period_denominator=1, uint64_t seed=0,
                 times_ns=None):
        if kind not in ("constant", "poisson", "list"):
            raise ValueError(f"{kind!r} is no schedule")
        if period_numerator < 1 or period_denominator < 1 or max(period_numerator, period_denominator) >> 62:
            raise ValueError("a period is a fraction of two numbers from 1 to 2^62")
        self.kind = ("constant", "poisson", "list").index(kind)
        self.whole = period_numerator // period_denominator
        self.rest = period_numerator % period_denominator
        self.denominator = period_denominator
        self.carried = self.next_constant = 0
        self.state = seed
        self.mean = <double> period_numerator / period_denominator
        self.reached = 0
        times = np.ascontiguousarray([] if times_ns is None else times_ns, np.int64).copy()
        if len(times) and (times[0] < 0 or np.any(np.diff(times) < 0)):
            raise ValueError("send times must not fall, nor start before 0")
        self.times = times
        self.at = 0

    cdef int64_t take_one(self) noexcept nogil:
        """Return when the next frame is due, NEVER after the last."""
        cdef int64_t due
        cdef uint64_t mixed
        if self.kind == 2:
            if self.at == self.times.shape[0]:
                return NEVER
            self.at += 1
            return self.times[self.at - 1]
        if self.kind == 1:
            self.state += <uint64_t> 0x9E3779B97F4A7C15
            mixed = self.state
            mixed = (mixed ^ (mixed >> 30)) * <uint64_t> 0xBF58476D1CE4E5B9
            mixed = (mixed ^ (mixed >> 27)) * <uint64_t> 0x94D049BB133111EB
            mixed ^= mixed >> 31
            self.reached -= self.mean * log(<double> ((mixed >> 11) + 1) * (1.0 / 9007199254740992.0))
            return <int64_t> self.reached if self.reached < 9e18 else NEVER
        due = self.next_constant
        if due >= <int64_t> NEVER - self.whole - 1:
            self.next_constant = NEVER
            return due
        self.next_constant += self.whole
        self.carried += self.rest
        if self.carried >= self.denominator:
            self.carried -= self.denominator
            self.next_constant += 1
        return due

    def take(self, Py_ssize_t frames):
        """Return the next send times: ndarray of int64, shape (frames,) or as many as there still are."""
        out = np.empty(max(0, frames), np.int64)
        cdef int64_t[::1] view = out
        cdef Py_ssize_t at = 0
        cdef int64_t due
        while at < view.shape[0]:
            due = self.take_one()
            if due == NEVER:
                break
            view[at] = due
            at += 1
        return out[:at]
