"""One step of hashing: a 64 x 64 -> 128-bit product, both halves exclusive-ored (as in wyhash)."""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    static inline unsigned long long uspcap_folded(unsigned long long a, unsigned long long b) {
        __uint128_t product = (__uint128_t) a * b;
        return (unsigned long long) product ^ (unsigned long long) (product >> 64);
    }
    """
    uint64_t fold "uspcap_folded"(uint64_t, uint64_t) nogil
