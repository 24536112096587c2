"""C view of TCP stream reassembly."""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from uspcap._core.states cimport Packed, Unpacked

cdef enum:
    STREAM_WINDOW = 1 << 18     # bytes held at most: from the first not consumed to the last received
    STREAM_RUNS = 4096          # pieces of different frames held at most
    STREAM_FAR = 1 << 24        # a segment farther away than this is of another stream

cdef enum:
    STREAM_STORED = 0
    STREAM_FULL = 1             # skip a hole and try again
    STREAM_ELSEWHERE = 2        # far outside the window: start again, or leave the segment out
    STREAM_NO_MEMORY = 3


cdef struct Place:
    int64_t timestamp_ns
    int64_t frame
    int64_t source

cdef struct Run:
    int64_t start
    int64_t end
    Place place

cdef struct Stream:
    uint8_t *window
    Py_ssize_t capacity
    int64_t window_start        # position of window[0]
    int64_t next                # position of the first byte that was not consumed
    Run *runs
    int run_count
    int run_capacity
    bint started
    uint64_t repeated_bytes
    uint64_t lost_bytes
    uint64_t holes


cdef void stream_clear(Stream *stream) noexcept nogil
cdef void stream_free(Stream *stream) noexcept nogil
cdef void stream_pack(Packed *packed, const Stream *stream) noexcept nogil
cdef void stream_unpack(Unpacked *unpacked, Stream *stream) noexcept nogil
cdef int stream_copy(Stream *target, const Stream *source, int64_t frame_shift) noexcept nogil
cdef void stream_start(Stream *stream, uint32_t sequence) noexcept nogil
cdef int stream_add(Stream *stream, uint32_t sequence, const uint8_t *data, Py_ssize_t length,
                    const Place *place) noexcept nogil
cdef int64_t stream_position(const Stream *stream, uint32_t sequence) noexcept nogil
cdef Py_ssize_t stream_contiguous(const Stream *stream, const uint8_t **data) noexcept nogil
cdef void stream_consume(Stream *stream, Py_ssize_t length) noexcept nogil
cdef bint stream_skip_hole(Stream *stream) noexcept nogil
cdef void stream_places(const Stream *stream, Py_ssize_t length, Place *first, Place *complete) noexcept nogil
