"""Merging chains: of all their frames, the one with the earliest time goes first.

Of equal times, as frame_order.pxd has it.
"""

from cpython.object cimport PyObject
from libc.stdint cimport INT64_MIN
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from uspcap._core.columns cimport FrameColumns
from uspcap._core.timestamp_sources cimport UNTRUSTED
from uspcap.stages.frame_order cimport Equal, order_of_equals
from uspcap.stages.merge_outcomes cimport AT_END, NO_ROOM, NO_ROW
from uspcap.stages.ordering cimport Chain, Held

ENDED = AT_END
NEEDS_ROOM = NO_ROOM
FULL = NO_ROW


cdef class Merger:
    """Gives the frames of several chains in order.

    Parameters
    ----------
    chains : list of Chain
        Each is fed before the first `fill`, or when it is asked for.

    Attributes
    ----------
    needed : int
        Bytes that the next frame needs, where a batch is too small for it.
    """

    cdef list chains
    cdef PyObject **pointers
    cdef Held **heads           # of each chain in `heap`
    cdef Py_ssize_t *heap       # chains whose head is known, the one that goes first at the top
    cdef Py_ssize_t heap_count
    cdef Py_ssize_t *waiting    # those whose head is to be found
    cdef Py_ssize_t waiting_count
    cdef readonly Py_ssize_t needed
    cdef Py_ssize_t used
    cdef bint endian_of_batch

    def __cinit__(self, list chains not None):
        cdef Py_ssize_t at, count = len(chains)
        if not chains or not all(isinstance(chain, Chain) for chain in chains):
            raise ValueError("there is no chain to merge")
        self.chains = list(chains)
        self.pointers = <PyObject **> malloc(count * sizeof(PyObject *))
        self.heads = <Held **> malloc(count * sizeof(Held *))
        self.heap = <Py_ssize_t *> malloc(count * sizeof(Py_ssize_t))
        self.waiting = <Py_ssize_t *> malloc(count * sizeof(Py_ssize_t))
        if self.pointers == NULL or self.heads == NULL or self.heap == NULL or self.waiting == NULL:
            raise MemoryError
        self.waiting_count = count
        for at in range(count):
            self.pointers[at] = <PyObject *> self.chains[at]
            self.waiting[at] = count - 1 - at

    def __dealloc__(self):
        free(self.pointers)
        free(self.heads)
        free(self.heap)
        free(self.waiting)

    def begin(self, FrameColumns out):
        """Begin a batch."""
        out.count = 0
        self.used = 0

    def fill(self, FrameColumns out):
        """Append frames to a batch.

        Returns
        -------
        int
            Number of a chain that must be fed, or finished, before it goes on; FULL; NEEDS_ROOM where the batch's
            bytes do not hold even one frame; ENDED once all chains are finished and empty.
        """
        cdef Py_ssize_t result
        with nogil:
            result = self.run(out)
        return result

    cdef bint before(self, Py_ssize_t a, Py_ssize_t b) noexcept nogil:
        """Whether the head of one chain goes before that of another."""
        cdef const Held *first = self.heads[a]
        cdef const Held *second = self.heads[b]
        cdef Equal one, other
        cdef int order
        if first.key_ns != second.key_ns:
            return first.key_ns < second.key_ns
        one = self.as_equal(a)
        other = self.as_equal(b)
        order = order_of_equals(&one, &other)
        return order < 0 or (order == 0 and a < b)

    cdef Equal as_equal(self, Py_ssize_t chain) noexcept nogil:
        cdef const Held *one = self.heads[chain]
        return Equal(one.interface, one.flags, (<Chain> self.pointers[chain]).bytes_of(one), one.captured_length,
                     one.wire_length)

    cdef void sink(self) noexcept nogil:
        """Let the chain at the top go where it belongs."""
        cdef Py_ssize_t at = 0, below, chain = self.heap[0]
        while True:
            below = 2 * at + 1
            if below >= self.heap_count:
                break
            if below + 1 < self.heap_count and self.before(self.heap[below + 1], self.heap[below]):
                below += 1
            if not self.before(self.heap[below], chain):
                break
            self.heap[at] = self.heap[below]
            at = below
        self.heap[at] = chain

    cdef void rise(self, Py_ssize_t chain) noexcept nogil:
        """Take in a chain whose head is known."""
        cdef Py_ssize_t at = self.heap_count, above
        self.heap_count += 1
        while at > 0:
            above = (at - 1) // 2
            if not self.before(chain, self.heap[above]):
                break
            self.heap[at] = self.heap[above]
            at = above
        self.heap[at] = chain

    cdef Py_ssize_t run(self, FrameColumns out) noexcept nogil:
        cdef Py_ssize_t chain
        while True:
            while self.waiting_count:
                chain = self.waiting[self.waiting_count - 1]
                self.heads[chain] = (<Chain> self.pointers[chain]).head()
                if self.heads[chain] != NULL:
                    self.rise(chain)
                elif not (<Chain> self.pointers[chain]).finished:
                    return chain
                self.waiting_count -= 1
            if self.heap_count == 0:
                return AT_END
            chain = self.heap[0]
            if not self.give(out, <Chain> self.pointers[chain], self.heads[chain]):
                return NO_ROW if out.count else NO_ROOM
            (<Chain> self.pointers[chain]).give_head(self.heads[chain])
            self.heads[chain] = (<Chain> self.pointers[chain]).head()
            if self.heads[chain] == NULL:
                self.waiting[0] = chain
                self.waiting_count = 1
                self.heap_count -= 1
                self.heap[0] = self.heap[self.heap_count]
            if self.heap_count:
                self.sink()

    cdef bint give(self, FrameColumns out, Chain chain, const Held *one) noexcept nogil:
        """Append a frame to a batch; False where it has no place in it."""
        cdef Py_ssize_t row = out.count
        if row == out.capacity or (row and one.big_endian != self.endian_of_batch):
            return False
        if one.occupied > out.data_length - self.used:
            self.needed = one.occupied
            return False
        self.endian_of_batch = one.big_endian
        memcpy(out.data + self.used, chain.bytes_of(one), one.occupied - 1)
        out.timestamp_ns[row] = one.timestamp_ns
        out.timestamp_source[row] = one.source
        out.wire_length[row] = one.wire_length
        out.captured_length[row] = one.captured_length
        out.interface[row] = one.interface
        out.offset[row] = self.used
        out.frame_number[row] = one.frame_number
        out.flags[row] = one.flags
        out.queue[row] = one.queue
        out.drop_count[row] = one.drop_count
        out.options_offset[row] = self.used + one.captured_length
        out.options_length[row] = one.options_length
        out.read_ns[row] = one.key_ns if one.source & UNTRUSTED and one.key_ns != INT64_MIN else 0
        out.count = row + 1
        self.used += one.occupied - 1
        return True

    @property
    def big_endian(self):
        """Whether the options of the batch's frames are big-endian."""
        return self.endian_of_batch
