"""Leaving out copies of packets, as mirror ports that copy both directions give them.

A. What makes two packets one is what it is for `mirror_copies`: IPv4 packets that agree on addresses, protocol, an
   identification that is not 0, transport header but for its checksum, and payload, seen at one tap. TTL, VLAN tags and
   addresses of layer 2 may differ.
B. A packet is a copy where its like came at most a window before, the like being itself a copy or not.
C. Packets are remembered in two generations: the younger takes new ones and those that came again; once it holds
   GENERATION, it becomes the elder, and what only the elder had before is forgotten.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from uspcap._core.columns cimport FrameColumns, HeaderColumns, time_of
from uspcap._core.folding cimport fold
from uspcap._core.saturating cimport difference
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP, UNTRUSTED
from uspcap.protocols.digests cimport NETWORK, digest_of

cdef enum:
    GENERATION = 1 << 16
    SLOTS = 1 << 17
    LIMIT = 1 << 20             # more bytes than a packet has

REMEMBERED = GENERATION
"""So many different packets at least are remembered."""

cdef struct Seen:
    uint64_t digest             # 0 where there is none
    int64_t at_ns


cdef class Deduplicator:
    """Finds copies in a stream of batches that are in order of time.

    Parameters
    ----------
    window_ns : int
        How long after a packet its copy may come.

    Attributes
    ----------
    copies : int
        Found so far.
    """

    cdef int64_t window_ns
    cdef readonly int64_t copies
    cdef Seen *younger
    cdef Seen *elder
    cdef Py_ssize_t count       # of the younger

    def __cinit__(self, int64_t window_ns):
        if window_ns < 1:
            raise ValueError("a window of 0 finds no copies")
        self.window_ns = window_ns
        self.younger = <Seen *> calloc(SLOTS, sizeof(Seen))
        self.elder = <Seen *> calloc(SLOTS, sizeof(Seen))
        if self.younger == NULL or self.elder == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.younger)
        free(self.elder)

    def mark(self, FrameColumns frames not None, HeaderColumns headers not None, uint8_t[::1] keep not None):
        """Note which rows are no copies; return how many are.

        Parameters
        ----------
        keep : OUT, ndarray of uint8, one a row
        """
        cdef Py_ssize_t row
        cdef int64_t before = self.copies
        cdef uint64_t digest
        if headers.count != frames.count or keep.shape[0] < frames.count:
            raise ValueError("the headers are not those of this batch, or there is no room for each row")
        with nogil:
            for row in range(frames.count):
                keep[row] = 1
                if headers.ip_version[row] != 4 or not headers.ip_id[row] or headers.payload_offset[row] < 0:
                    continue
                if (frames.timestamp_source[row] & ~UNTRUSTED) >= NO_TIMESTAMP:
                    continue
                digest = fold(digest_of(frames, headers, NETWORK, LIMIT, row) ^ <uint64_t> 0xA0761D6478BD642F,
                              <uint64_t> 0xE7037ED1A0B428DB ^ headers.tap[row])
                if self.is_copy(digest if digest else 1, time_of(frames, row)):
                    keep[row] = 0
                    self.copies += 1
        return self.copies - before

    cdef bint is_copy(self, uint64_t digest, int64_t at_ns) noexcept nogil:
        """Tell whether a packet's like came within the window; remember it."""
        cdef Seen *here = place_of(self.younger, digest)
        cdef Seen *before = here if here.digest else place_of(self.elder, digest)
        cdef bint found = before.digest != 0
        cdef int64_t apart = difference(at_ns, before.at_ns) if found else 0
        if not here.digest:
            if self.count == GENERATION:
                self.younger, self.elder = self.elder, self.younger
                memset(self.younger, 0, SLOTS * sizeof(Seen))
                self.count = 0
                here = place_of(self.younger, digest)
            here.digest = digest
            self.count += 1
        here.at_ns = at_ns
        return found and -self.window_ns <= apart <= self.window_ns


cdef inline Seen *place_of(Seen *generation, uint64_t digest) noexcept nogil:
    """Return where a digest stands in a generation, or is to stand."""
    cdef uint64_t slot = digest & (SLOTS - 1)
    while generation[slot].digest and generation[slot].digest != digest:
        slot = (slot + 1) & (SLOTS - 1)
    return &generation[slot]
