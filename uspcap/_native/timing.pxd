"""What the loops over timestamps share."""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    static inline int64_t uspcap_difference(int64_t later, int64_t earlier) {
        int64_t difference;
        /* Never INT64_MIN, which has no positive counterpart. */
        if (__builtin_sub_overflow(later, earlier, &difference) || difference == INT64_MIN)
            return later > earlier ? INT64_MAX : -INT64_MAX;
        return difference;
    }
    """
    int64_t difference "uspcap_difference"(int64_t, int64_t) nogil

# Stamp sources from here on stamp nothing.
cdef enum:
    NO_STAMP = 6

# Mirrors SILENCE_DTYPE of silences.pyx.
cdef struct Silence:
    int64_t flow
    int64_t gap_ns
    int64_t start_ns
    int64_t before_frame
    int64_t after_frame
