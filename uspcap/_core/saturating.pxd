"""Arithmetic of times and sums that is defined for every number: what does not fit is taken as the nearest that does.

A. Timestamps are clamped once, where they come in, to EARLIEST_NS … LATEST_NS (the years 1823 to 2116). After that no
   difference of two of them, and no sum of one of them and a window or timeout of up to LONGEST_NS, leaves 64 bits.
B. Loops must not trust that: whoever fills a batch by hand may leave anything in it. They take differences by
   `difference`, or clamp what they take.
C. Sums of what is not negative saturate, which is associative, so that merging changes nothing; or they have 128 bits
   in two words.
"""

from libc.stdint cimport int64_t, uint64_t

# Frames with a clamped timestamp that are listed one by one, the first of an input.
cdef enum:
    MOST_CLAMPED = 16

cdef extern from *:
    """
    /* 2^62 - 1 ns either way from the epoch. */
    #define USPCAP_LATEST_NS ((INT64_C(1) << 62) - 1)

    static inline int64_t uspcap_clamped(int64_t timestamp_ns) {
        if (timestamp_ns > USPCAP_LATEST_NS)
            return USPCAP_LATEST_NS;
        return timestamp_ns < -USPCAP_LATEST_NS ? -USPCAP_LATEST_NS : timestamp_ns;
    }

    static inline int64_t uspcap_difference(int64_t later, int64_t earlier) {
        int64_t difference;
        /* Never INT64_MIN, which has no positive counterpart. */
        if (__builtin_sub_overflow(later, earlier, &difference) || difference == INT64_MIN)
            return later > earlier ? INT64_MAX : -INT64_MAX;
        return difference;
    }

    static inline int64_t uspcap_saturating_add(int64_t a, int64_t b) {
        int64_t sum;
        if (__builtin_add_overflow(a, b, &sum))
            return a < 0 ? INT64_MIN : INT64_MAX;
        return sum;
    }

    static inline uint64_t uspcap_saturating_add_unsigned(uint64_t a, uint64_t b) {
        uint64_t sum;
        return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
    }

    static inline uint64_t uspcap_saturating_square(uint64_t a) {
        uint64_t square;
        return __builtin_mul_overflow(a, a, &square) ? UINT64_MAX : square;
    }

    static inline void uspcap_add_wide(uint64_t *low, uint64_t *high, uint64_t value) {
        *low += value;
        *high += *low < value;
    }
    """
    const int64_t LATEST_NS "USPCAP_LATEST_NS"
    const int64_t LONGEST_NS "USPCAP_LATEST_NS"
    int64_t clamped "uspcap_clamped"(int64_t) nogil
    # later - earlier; where that fits with neither sign, the nearest that does.
    int64_t difference "uspcap_difference"(int64_t, int64_t) nogil
    int64_t saturating_add "uspcap_saturating_add"(int64_t, int64_t) nogil
    uint64_t saturating_add_unsigned "uspcap_saturating_add_unsigned"(uint64_t, uint64_t) nogil
    uint64_t saturating_square "uspcap_saturating_square"(uint64_t) nogil
    # Add to a number of 128 bits in two words.
    void add_wide "uspcap_add_wide"(uint64_t *, uint64_t *, uint64_t) nogil


cdef inline uint64_t distance(int64_t a, int64_t b) noexcept nogil:
    return <uint64_t> a - <uint64_t> b if a >= b else <uint64_t> b - <uint64_t> a
