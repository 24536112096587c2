"""Putting the frames of several rings into one order, by their timestamps.

A. Each ring gives its frames in order, so each has a queue here, first in, first out: an array of `Held` and an arena
   for bytes, both used as circles. Merging takes the queue whose first frame is oldest, again and again. With the few
   rings that an interface has, looking at all of them costs less than a heap.
B. A frame's bytes lie in one piece: what does not fit before the end of the arena starts at its beginning. Every
   frame takes one byte at least, so an arena whose start and end meet is full.
C. Where a queue has no room, `push` stops in front of the frame, and the caller takes frames out first.
D. `late` counts frames that come out after a younger one that was timestamped at the same place; two places may have
   two clocks, so these are not compared.
"""

from libc.stdint cimport INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

from uspcap._core.columns cimport FrameColumns

cdef enum:
    SOURCES = 256   # values of the timestamp_source column


cdef struct Held:
    int64_t timestamp_ns
    int64_t read_ns
    Py_ssize_t start
    uint64_t drop_count
    uint32_t wire_length
    uint32_t captured_length
    uint32_t flags
    uint32_t queue
    uint16_t interface
    uint8_t timestamp_source


cdef struct Fifo:
    Held *held
    uint8_t *arena
    Py_ssize_t first
    Py_ssize_t count
    Py_ssize_t end      # of the bytes that are in use; they start at the first frame's


cdef class RingMerger:
    """Holds frames of several rings until they can be given in order.

    Parameters
    ----------
    rings : int
        How many there are; more can come by `grow`.
    frames : int
        Most frames held of one ring.
    data_bytes : int
        Most bytes held of one ring, about: one frame of the longest that come must fit.

    Attributes
    ----------
    held : int
        Frames in here.
    newest_ns : int
        Highest timestamp that was ever put in.
    late : int
        Frames given after a younger one that was timestamped at the same place.
    """

    cdef Fifo *fifos
    cdef Py_ssize_t rings
    cdef Py_ssize_t frames
    cdef Py_ssize_t data_bytes
    cdef int64_t last_ns[SOURCES]
    cdef readonly Py_ssize_t held
    cdef readonly int64_t newest_ns
    cdef readonly int64_t late

    def __cinit__(self, Py_ssize_t rings, Py_ssize_t frames, Py_ssize_t data_bytes):
        cdef Py_ssize_t ring
        if rings < 1 or frames < 1 or data_bytes < 1:
            raise ValueError(f"{rings} rings, {frames} frames and {data_bytes} bytes: each must be at least 1")
        self.frames = frames
        self.data_bytes = data_bytes
        self.grow(rings)
        for ring in range(SOURCES):
            self.last_ns[ring] = INT64_MIN
        self.newest_ns = INT64_MIN

    def __dealloc__(self):
        cdef Py_ssize_t ring
        if self.fifos != NULL:
            for ring in range(self.rings):
                free(self.fifos[ring].held)
                free(self.fifos[ring].arena)
            free(self.fifos)

    def grow(self, Py_ssize_t rings):
        """Have so many rings, as many as now or more."""
        cdef Fifo *fifos
        cdef Py_ssize_t ring
        if rings < self.rings:
            raise ValueError(f"{self.rings} rings do not become {rings}")
        fifos = <Fifo *> realloc(self.fifos, rings * sizeof(Fifo))
        if fifos == NULL:
            raise MemoryError
        self.fifos = fifos
        for ring in range(self.rings, rings):
            memset(&fifos[ring], 0, sizeof(Fifo))
            fifos[ring].held = <Held *> malloc(self.frames * sizeof(Held))
            fifos[ring].arena = <uint8_t *> malloc(self.data_bytes)
            if fifos[ring].held == NULL or fifos[ring].arena == NULL:
                free(fifos[ring].held)
                free(fifos[ring].arena)
                raise MemoryError
            self.rings = ring + 1

    def held_of(self, Py_ssize_t first_ring, Py_ssize_t rings):
        """Return how many frames of some rings are in here."""
        cdef Py_ssize_t ring, held = 0
        if first_ring < 0 or rings < 0 or first_ring + rings > self.rings:
            raise ValueError(f"there are {self.rings} rings")
        for ring in range(first_ring, first_ring + rings):
            held += self.fifos[ring].count
        return held

    def push(self, FrameColumns batch, Py_ssize_t row, Py_ssize_t first_ring=0):
        """Take in frames from row `row` on, until one finds no room.

        Parameters
        ----------
        batch : FrameColumns
        row : int
        first_ring : int
            Ring of the frames whose `queue` is 0; that of others follow it.

        Returns
        -------
        int
            The row to go on with; batch.count when all are in.

        Raises
        ------
        ValueError
            A row's ring is none, its bytes are outside of the batch, or are more than fit at all.
        """
        cdef Py_ssize_t next_row
        if row < 0 or row > batch.count:
            raise ValueError(f"no row {row} in a batch of {batch.count}")
        if first_ring < 0 or first_ring >= self.rings:
            raise ValueError(f"no ring {first_ring} of {self.rings}")
        with nogil:
            next_row = self.take(batch, row, first_ring)
        if next_row < 0:
            raise ValueError(f"row {-1 - next_row} of the batch has no such ring, or its bytes do not fit")
        return next_row

    def pop(self, FrameColumns out, int64_t until_ns):
        """Fill a batch with the oldest frames, as far as they are not younger than `until_ns`.

        `out` is filled from its first row on, numbered from `frames_before` on, until it is full: its room for bytes
        must take the longest frame.
        """
        with nogil:
            self.give(out, until_ns)

    cdef Py_ssize_t take(self, FrameColumns batch, Py_ssize_t row, Py_ssize_t first_ring) noexcept nogil:
        cdef Fifo *fifo
        cdef Held *one
        cdef Py_ssize_t start, length, occupied
        while row < batch.count:
            length = batch.captured_length[row]
            if (batch.queue[row] >= <uint32_t> (self.rings - first_ring) or batch.offset[row] < 0 or length > batch.data_length
                    or batch.offset[row] > batch.data_length - length or length > self.data_bytes):
                return -1 - row
            fifo = &self.fifos[first_ring + batch.queue[row]]
            occupied = length if length else 1
            start = self.room(fifo, occupied)
            if start < 0:
                break
            one = &fifo.held[(fifo.first + fifo.count) % self.frames]
            one.timestamp_ns = batch.timestamp_ns[row]
            one.read_ns = batch.read_ns[row]
            one.start = start
            one.wire_length = batch.wire_length[row]
            one.captured_length = <uint32_t> length
            one.flags = batch.flags[row]
            one.queue = batch.queue[row]
            one.drop_count = batch.drop_count[row]
            one.interface = batch.interface[row]
            one.timestamp_source = batch.timestamp_source[row]
            memcpy(fifo.arena + start, batch.data + batch.offset[row], length)
            fifo.end = start + occupied
            fifo.count += 1
            self.held += 1
            if one.timestamp_ns > self.newest_ns:
                self.newest_ns = one.timestamp_ns
            row += 1
        return row

    cdef Py_ssize_t room(self, Fifo *fifo, Py_ssize_t length) noexcept nogil:
        """Where `length` bytes, at least one, can go; -1 where there is no room."""
        cdef Py_ssize_t begin
        if fifo.count == 0:
            return 0
        if fifo.count == self.frames:
            return -1
        begin = fifo.held[fifo.first].start
        if fifo.end > begin:
            if length <= self.data_bytes - fifo.end:
                return fifo.end
            return 0 if length <= begin else -1
        return fifo.end if length <= begin - fifo.end else -1

    cdef void give(self, FrameColumns out, int64_t until_ns) noexcept nogil:
        cdef Py_ssize_t row = 0, used = 0, ring, oldest
        cdef Fifo *fifo
        cdef Held *one
        cdef int64_t oldest_ns
        while row < out.capacity:
            oldest = -1
            oldest_ns = until_ns
            for ring in range(self.rings):
                fifo = &self.fifos[ring]
                if fifo.count and (fifo.held[fifo.first].timestamp_ns < oldest_ns
                                   or (oldest < 0 and fifo.held[fifo.first].timestamp_ns == oldest_ns)):
                    oldest = ring
                    oldest_ns = fifo.held[fifo.first].timestamp_ns
            if oldest < 0:
                break
            fifo = &self.fifos[oldest]
            one = &fifo.held[fifo.first]
            if one.captured_length > out.data_length - used:
                break
            memcpy(out.data + used, fifo.arena + one.start, one.captured_length)
            out.timestamp_ns[row] = one.timestamp_ns
            out.read_ns[row] = one.read_ns
            out.timestamp_source[row] = one.timestamp_source
            out.wire_length[row] = one.wire_length
            out.captured_length[row] = one.captured_length
            out.interface[row] = one.interface
            out.offset[row] = used
            out.frame_number[row] = out.frames_before + row + 1
            out.flags[row] = one.flags
            out.queue[row] = one.queue
            out.drop_count[row] = one.drop_count
            used += one.captured_length
            row += 1
            if one.timestamp_ns < self.last_ns[one.timestamp_source]:
                self.late += 1
            else:
                self.last_ns[one.timestamp_source] = one.timestamp_ns
            fifo.first = (fifo.first + 1) % self.frames
            fifo.count -= 1
            self.held -= 1
        out.count = row
