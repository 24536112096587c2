"""One direction of a TCP connection put together again, each byte with the frame that first carried it.

A. Positions are 64 bits; their lower 32 are TCP's sequence number. A sequence number is taken as the position nearest
   to the first byte not consumed, so that it may wrap (RFC 9293, 3.4).
B. The window holds what was received from there on. `runs` says which pieces of it are there, rising and without
   overlap, and which frame brought each. A byte that comes again changes nothing: its first sighting counts.
C. What is not there when the window is full is a hole; `stream_skip_hole` abandons it, and with it the bytes before
   it, which their reader could not use. What a hole cost is counted.
D. A message is consumed from the front; `stream_places` names the frame of its first byte and the frame with which the
   last missing byte of it came.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

from uspcap._core.states cimport Packed, Unpacked, pack, unpacked_new


cdef void stream_clear(Stream *stream) noexcept nogil:
    """Forget all bytes and where the stream is; memory and counts stay."""
    stream.run_count = 0
    stream.started = False
    stream.next = 0
    stream.window_start = 0


cdef void stream_free(Stream *stream) noexcept nogil:
    """Give back the memory."""
    free(stream.window)
    free(stream.runs)
    memset(stream, 0, sizeof(Stream))


cdef int stream_copy(Stream *target, const Stream *source, int64_t frame_shift) noexcept nogil:
    """Make `target`, which holds nothing, a copy with frame numbers moved up; return STREAM_NO_MEMORY or 0."""
    cdef int i
    target[0] = source[0]
    target.window = NULL
    target.runs = NULL
    target.capacity = 0
    target.run_capacity = 0
    if source.run_count == 0:
        return STREAM_STORED
    target.window = <uint8_t *> malloc(source.capacity)
    target.runs = <Run *> malloc(source.run_capacity * sizeof(Run))
    if target.window == NULL or target.runs == NULL:
        target.run_count = 0
        return STREAM_NO_MEMORY
    target.capacity = source.capacity
    target.run_capacity = source.run_capacity
    memcpy(target.window, source.window, source.capacity)
    memcpy(target.runs, source.runs, source.run_count * sizeof(Run))
    for i in range(target.run_count):
        target.runs[i].place.frame += frame_shift
    return STREAM_STORED


cdef void stream_pack(Packed *packed, const Stream *stream) noexcept nogil:
    """Pack what a stream points to; whoever has it packs the struct itself."""
    if stream.run_count:
        pack(packed, stream.window, stream.capacity)
        pack(packed, stream.runs, stream.run_count * sizeof(Run))


cdef void stream_unpack(Unpacked *unpacked, Stream *stream) noexcept nogil:
    """Give a stream that was unpacked as it lay in memory what it points to; that is nothing where it fails."""
    cdef Py_ssize_t capacity = stream.capacity, runs = stream.run_count, room = stream.run_capacity
    stream.window = NULL
    stream.runs = NULL
    stream.capacity = stream.run_count = stream.run_capacity = 0
    if runs == 0:
        return
    stream.window = <uint8_t *> unpacked_new(unpacked, capacity, capacity)
    stream.runs = <Run *> unpacked_new(unpacked, runs * sizeof(Run), room * sizeof(Run))
    if stream.window != NULL and stream.runs != NULL:
        stream.capacity, stream.run_count, stream.run_capacity = capacity, <int> runs, <int> room


cdef void stream_start(Stream *stream, uint32_t sequence) noexcept nogil:
    """Let the stream begin with the byte of this sequence number."""
    stream_clear(stream)
    stream.next = (<int64_t> 1 << 32) + sequence
    stream.window_start = stream.next
    stream.started = True


cdef int64_t stream_position(const Stream *stream, uint32_t sequence) noexcept nogil:
    """Return the position of a sequence number, nearest to where the stream is."""
    return stream.next + <int32_t> (sequence - <uint32_t> stream.next)


cdef int make_room(Stream *stream, int64_t end) noexcept nogil:
    """Let the window reach to `end`, which is at most STREAM_WINDOW from the first byte not consumed."""
    cdef Py_ssize_t wanted, held
    cdef uint8_t *grown
    if stream.run_count == 0:
        stream.window_start = stream.next
    if end - stream.window_start <= stream.capacity:
        return STREAM_STORED
    if stream.window_start < stream.next:
        held = stream.runs[stream.run_count - 1].end - stream.next if stream.run_count else 0
        if held > 0:
            memmove(stream.window, stream.window + (stream.next - stream.window_start), held)
        stream.window_start = stream.next
    wanted = stream.capacity or 2048
    while wanted < end - stream.window_start:
        wanted *= 2
    if wanted != stream.capacity:
        grown = <uint8_t *> realloc(stream.window, wanted)
        if grown == NULL:
            return STREAM_NO_MEMORY
        stream.window = grown
        stream.capacity = wanted
    return STREAM_STORED


cdef int add_run(Stream *stream, int at, int64_t start, int64_t end, const Place *place) noexcept nogil:
    """Put a run before the one of number `at`."""
    cdef Run *grown
    if stream.run_count == stream.run_capacity:
        grown = <Run *> realloc(stream.runs, (2 * stream.run_capacity + 8) * sizeof(Run))
        if grown == NULL:
            return STREAM_NO_MEMORY
        stream.runs = grown
        stream.run_capacity = 2 * stream.run_capacity + 8
    memmove(stream.runs + at + 1, stream.runs + at, (stream.run_count - at) * sizeof(Run))
    stream.runs[at].start = start
    stream.runs[at].end = end
    stream.runs[at].place = place[0]
    stream.run_count += 1
    return STREAM_STORED


cdef int stream_add(Stream *stream, uint32_t sequence, const uint8_t *data, Py_ssize_t length,
                    const Place *place) noexcept nogil:
    """Add a segment's bytes; those that are there already stay as they are."""
    cdef int64_t start = stream_position(stream, sequence), end = start + length, at = start, until
    cdef int run = 0
    if start < stream.next - STREAM_FAR or start > stream.next + STREAM_FAR:
        return STREAM_ELSEWHERE
    if at < stream.next:
        at = stream.next
    if at >= end:
        stream.repeated_bytes += length
        return STREAM_STORED
    if end - stream.next > STREAM_WINDOW or stream.run_count >= STREAM_RUNS:
        return STREAM_FULL
    if make_room(stream, end) != STREAM_STORED:
        return STREAM_NO_MEMORY
    stream.repeated_bytes += at - start
    while run < stream.run_count and stream.runs[run].end <= at:
        run += 1
    while at < end:
        if run < stream.run_count and stream.runs[run].start <= at:
            until = stream.runs[run].end if stream.runs[run].end < end else end
            stream.repeated_bytes += until - at
        else:
            until = stream.runs[run].start if run < stream.run_count and stream.runs[run].start < end else end
            if add_run(stream, run, at, until, place) != STREAM_STORED:
                return STREAM_NO_MEMORY
            memcpy(stream.window + (at - stream.window_start), data + (at - start), until - at)
        at = until
        run += 1
    return STREAM_STORED


cdef Py_ssize_t stream_contiguous(const Stream *stream, const uint8_t **data) noexcept nogil:
    """Return how many bytes follow the last one consumed without a hole, and where they are."""
    cdef int64_t end = stream.next
    cdef int run
    for run in range(stream.run_count):
        if stream.runs[run].start > end:
            break
        end = stream.runs[run].end
    data[0] = stream.window + (stream.next - stream.window_start)
    return end - stream.next


cdef void stream_consume(Stream *stream, Py_ssize_t length) noexcept nogil:
    """Let go of the first bytes, at most as many as there are without a hole."""
    cdef int gone = 0
    stream.next += length
    while gone < stream.run_count and stream.runs[gone].end <= stream.next:
        gone += 1
    if gone:
        stream.run_count -= gone
        memmove(stream.runs, stream.runs + gone, stream.run_count * sizeof(Run))


cdef bint stream_skip_hole(Stream *stream) noexcept nogil:
    """Abandon the first hole and what stands before it; return whether there was one with bytes behind it."""
    cdef const uint8_t *data
    cdef Py_ssize_t length = stream_contiguous(stream, &data)
    cdef int64_t hole
    stream_consume(stream, length)
    if stream.run_count == 0:
        return False
    hole = stream.runs[0].start - stream.next
    stream.lost_bytes += hole
    stream.holes += 1
    stream.next = stream.runs[0].start
    return True


cdef void stream_places(const Stream *stream, Py_ssize_t length, Place *first, Place *complete) noexcept nogil:
    """Say which frame brought the first of the next `length` bytes, and which the last that was missing of them."""
    cdef int64_t end = stream.next + length
    cdef int run = 0
    first[0] = stream.runs[0].place
    complete[0] = stream.runs[0].place
    while run < stream.run_count and stream.runs[run].start < end:
        if stream.runs[run].place.frame > complete.frame:
            complete[0] = stream.runs[run].place
        run += 1


cdef class Reassembler:
    """One direction of a connection, from Python (see `uspcap.protocols.streams`)."""

    cdef Stream stream

    def __cinit__(self):
        memset(&self.stream, 0, sizeof(Stream))

    def __dealloc__(self):
        stream_free(&self.stream)

    def start(self, uint32_t sequence):
        """Begin with the byte of this sequence number: that of the SYN and one."""
        stream_start(&self.stream, sequence)

    def add(self, uint32_t sequence, const uint8_t[::1] data, int64_t timestamp_ns, int64_t frame, int64_t source):
        """Add a segment; return STORED, FULL or ELSEWHERE."""
        cdef Place place
        cdef int outcome
        place.timestamp_ns, place.frame, place.source = timestamp_ns, frame, source
        if not self.stream.started:
            stream_start(&self.stream, sequence)
        if data.shape[0] == 0:
            return STREAM_STORED
        outcome = stream_add(&self.stream, sequence, &data[0], data.shape[0], &place)
        if outcome == STREAM_NO_MEMORY:
            raise MemoryError
        return outcome

    def peek(self):
        """Return the bytes that follow the last one consumed, up to the first hole."""
        cdef const uint8_t *data
        cdef Py_ssize_t length = stream_contiguous(&self.stream, &data)
        return data[:length] if length else b""

    def places(self, Py_ssize_t length):
        """Return timestamp, frame and source of the first byte of the next `length`, and of the last that came of them."""
        cdef Place first, complete
        cdef const uint8_t *data
        if not 0 < length <= stream_contiguous(&self.stream, &data):
            raise ValueError(f"there are not {length} bytes without a hole")
        stream_places(&self.stream, length, &first, &complete)
        return ((first.timestamp_ns, first.frame, first.source),
                (complete.timestamp_ns, complete.frame, complete.source))

    def consume(self, Py_ssize_t length):
        """Let go of the first bytes."""
        cdef const uint8_t *data
        if not 0 <= length <= stream_contiguous(&self.stream, &data):
            raise ValueError(f"there are not {length} bytes without a hole")
        stream_consume(&self.stream, length)

    def skip_hole(self):
        """Abandon the first hole and what stands before it; return whether bytes were behind it."""
        return bool(stream_skip_hole(&self.stream))

    @property
    def repeated_bytes(self):
        return self.stream.repeated_bytes

    @property
    def lost_bytes(self):
        return self.stream.lost_bytes

    @property
    def holes(self):
        return self.stream.holes


STORED, FULL, ELSEWHERE = STREAM_STORED, STREAM_FULL, STREAM_ELSEWHERE
WINDOW = STREAM_WINDOW
