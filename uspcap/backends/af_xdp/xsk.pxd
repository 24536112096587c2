"""C view of AF_XDP's rings, for what reads frames where they lie."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from uspcap._core.columns cimport FrameColumns
from uspcap.backends.gathering cimport FrameRing


cdef class Ring:
    cdef uint8_t[::1] memory
    cdef uint32_t *producer
    cdef uint32_t *consumer
    cdef uint32_t *flags
    cdef uint8_t *entries
    cdef readonly uint32_t size


cdef class ReceiveQueue(FrameRing):
    cdef uint8_t[::1] umem
    cdef uint16_t[::1] interfaces
    cdef Ring receive
    cdef Ring fill
    cdef uint64_t chunk_bytes
    cdef uint32_t snaplen
    cdef uint32_t queue
    cdef bint hardware
    cdef uint32_t consumed
    cdef uint32_t filled
    cdef uint64_t cookie
    cdef bint ethernet
    cdef readonly int64_t malformed
    cdef readonly int64_t without_timestamp
    cdef readonly int64_t truncated
    cdef readonly int64_t cut
    cdef uint64_t rest
    cdef uint64_t piece
    cdef readonly uint64_t lost
    cdef uint32_t lost_before
    cdef int socket
    cdef bint polls_busily
    cdef uint64_t losses_noted
    cdef int64_t losses_asked_ns
    cdef void look_for_losses(self) noexcept nogil
    cdef Py_ssize_t copy(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns,
                         int64_t read_at_ns) noexcept nogil
    cdef const uint8_t *descriptor(self, uint32_t at) noexcept nogil
    cdef bint within(self, uint64_t address, uint64_t length) noexcept nogil
    cdef uint32_t head_of(self, uint64_t address, uint32_t length) noexcept nogil
    cdef void timestamp(self, FrameColumns frames, Py_ssize_t row, uint64_t address, uint32_t head, int64_t tai_offset_ns,
                    int64_t read_at_ns) noexcept nogil
    cdef void check_length(self, uint64_t length, uint64_t claimed) noexcept nogil
    cdef void copy_bytes(self, uint8_t *out, uint32_t kept, uint32_t at, uint32_t head) noexcept nogil
    cdef void release(self, uint32_t end) noexcept nogil
    cdef void give_back(self, uint64_t address) noexcept nogil
    cdef void publish(self) noexcept nogil
    cdef int check_open(self) except -1


cdef class TransmitQueue:
    cdef ReceiveQueue queue
    cdef Ring transmit
    cdef Ring completion
    cdef int fd
    cdef uint32_t produced
    cdef uint32_t completed
    cdef void push(self, uint64_t address, uint32_t length) noexcept nogil
    cdef int flush(self) noexcept nogil
    cdef void reclaim(self) noexcept nogil
