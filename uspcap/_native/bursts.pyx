"""Peaks in sliding windows.

A. A window of width W slides in steps of W/1000 (1 ns for the narrowest, W = 1 us): time is cut into slots of
   that step, aligned to the epoch, and every run of 1000 slots that ends with an occupied one is looked
   at. The state is at most 1000 occupied slots a width, whatever the rate.
B. An entry is an occupied slot with what had been counted before it, so that the content of a window is one
   subtraction: what is counted now less what had been counted before its first slot. Entries lie in
   a line, not a ring; the live ones move to the front when the line is full.
C. Windows need time that goes forward. A frame whose slot lies before that of the frame before it starts
   the windows anew (`restarts`); no window spans that place.
D. For `join`, the entries of the first W of the first stretch are kept (`head`): windows that span the cut
   start in the earlier part's last W and end in the later part's first W.
E. The first of equal peaks is kept, and windows are looked at in the order of their ends, so that cutting
   anywhere changes nothing.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove

from uspcap._native.columns cimport FrameColumns

cdef enum:
    SLOTS = 1000
    ROOM = 2 * SLOTS + 2

SLOTS_IN_WINDOW = SLOTS

cdef int64_t EXACT_IN_DOUBLE = 1 << 52

cdef struct Entry:
    int64_t first_ns
    int64_t first_frame
    uint64_t bytes_before
    uint64_t frames_before

cdef struct Peak:
    uint64_t bytes
    uint64_t frames
    int64_t start_ns
    int64_t first_frame


cdef class SlidingWindow:
    """The busiest `width_ns` nanoseconds, by bytes and by frames, of one timestamp source.

    Parameters
    ----------
    width_ns : int
        A multiple of 1000.
    """

    cdef readonly int64_t width_ns
    cdef int64_t slot_ns
    cdef double slots_per_ns
    cdef readonly uint64_t restarts
    cdef Entry entries[ROOM]
    cdef Py_ssize_t first          # of the entries in the window that ends with the open slot
    cdef Py_ssize_t used           # entries in the line, the open slot's the last
    cdef Py_ssize_t line_end       # where the live entries move to the front
    cdef uint64_t bytes
    cdef uint64_t frames
    cdef int64_t open_begin_ns
    cdef Entry head[SLOTS]
    cdef Py_ssize_t head_count
    cdef uint64_t head_bytes       # counted when the head was complete
    cdef uint64_t head_frames
    cdef bint head_complete
    cdef Peak by_bytes
    cdef Peak by_frames

    def __init__(self, int64_t width_ns):
        if width_ns < SLOTS or width_ns % SLOTS:
            raise ValueError(f"the width must be a multiple of {SLOTS} ns")
        self.width_ns = width_ns
        self.slot_ns = width_ns // SLOTS
        self.slots_per_ns = 1.0 / self.slot_ns

    cdef inline void look(self) noexcept nogil:
        """Look at the window that ends with the open slot."""
        cdef Entry *start = &self.entries[self.first]
        cdef uint64_t bytes = self.bytes - start.bytes_before, frames = self.frames - start.frames_before
        if bytes >= self.by_bytes.bytes and (bytes > self.by_bytes.bytes
                                             or start.first_frame == self.by_bytes.first_frame):
            self.by_bytes = Peak(bytes, frames, start.first_ns, start.first_frame)
        if frames > self.by_frames.frames:
            self.by_frames = Peak(bytes, frames, start.first_ns, start.first_frame)

    cdef void complete_head(self) noexcept nogil:
        if not self.head_complete:
            self.head_complete = True
            self.head_bytes = self.bytes
            self.head_frames = self.frames

    cdef inline int64_t slot_begin(self, int64_t stamp) noexcept nogil:
        """Return where the slot of a stamp that is not before the open slot begins."""
        cdef int64_t begin, ahead = stamp - self.open_begin_ns
        if self.used and 0 <= ahead < EXACT_IN_DOUBLE:
            # A 64-bit division would cost more than all the rest: multiply, and mend the last place.
            begin = self.open_begin_ns + <int64_t> (<double> ahead * self.slots_per_ns) * self.slot_ns
            if begin + self.slot_ns <= stamp:
                begin += self.slot_ns
        else:
            begin = stamp // self.slot_ns * self.slot_ns
        return begin - self.slot_ns if begin > stamp else begin

    cdef void open_slot(self, int64_t stamp, int64_t frame) noexcept nogil:
        """Open the slot of a frame that does not lie in the open one."""
        cdef int64_t begin, limit
        cdef Py_ssize_t live
        if self.used and stamp < self.open_begin_ns:
            self.complete_head()
            self.restarts += 1
            self.first = self.used = 0
        begin = self.slot_begin(stamp)
        limit = begin - (SLOTS - 1) * self.slot_ns
        while self.first < self.used and self.entries[self.first].first_ns < limit:
            self.first += 1
        if self.used >= self.line_end:
            live = self.used - self.first
            memmove(&self.entries[0], &self.entries[self.first], live * sizeof(Entry))
            self.first = 0
            self.used = live
            self.line_end = 2 * live + 2 if live > 31 else 64
        self.open_begin_ns = begin
        self.entries[self.used] = Entry(stamp, frame, self.bytes, self.frames)
        if not self.head_complete:
            if self.head_count and begin >= self.head_end_ns():
                self.complete_head()
            else:
                self.head[self.head_count] = self.entries[self.used]
                self.head_count += 1
        self.used += 1

    cdef inline int64_t head_end_ns(self) noexcept nogil:
        """Return the end of the window that begins with the slot of the first frame."""
        cdef int64_t begin = self.head[0].first_ns // self.slot_ns * self.slot_ns
        if begin > self.head[0].first_ns:
            begin -= self.slot_ns
        return begin + self.width_ns

    def update(self, FrameColumns frames, int64_t frame_shift, int source):
        """Add the rows of a batch whose timestamp source is `source`."""
        cdef Py_ssize_t i
        cdef int64_t stamp, begin = 0, end = 0
        cdef uint32_t length
        if self.used:
            begin = self.open_begin_ns
            end = begin + self.slot_ns
        with nogil:
            for i in range(frames.count):
                if frames.timestamp_source[i] != source:
                    continue
                stamp = frames.timestamp_ns[i]
                if not begin <= stamp < end:
                    self.open_slot(stamp, frames.frame_number[i] + frame_shift)
                    begin = self.open_begin_ns
                    end = begin + self.slot_ns
                length = frames.wire_length[i]
                self.bytes += length
                self.frames += 1
                self.look()

    def join(self, SlidingWindow later, int64_t frame_shift):
        """Append what came directly after; its frame numbers move up by `frame_shift`."""
        cdef Py_ssize_t i
        cdef uint64_t bytes, frames
        cdef Entry *entry
        if later.width_ns != self.width_ns:
            raise ValueError("windows of different widths cannot be joined")
        if not later.used:
            return
        later.shift_frames(frame_shift)
        for i in range(later.head_count):
            entry = &later.head[i]
            if not self.used or not self.open_begin_ns <= entry.first_ns < self.open_begin_ns + self.slot_ns:
                self.open_slot(entry.first_ns, entry.first_frame)
            if i + 1 < later.head_count:
                bytes = later.head[i + 1].bytes_before
                frames = later.head[i + 1].frames_before
            elif later.head_complete:
                bytes = later.head_bytes
                frames = later.head_frames
            else:
                bytes = later.bytes
                frames = later.frames
            self.bytes += bytes - entry.bytes_before
            self.frames += frames - entry.frames_before
            self.look()
        if not later.head_complete:
            return
        self.complete_head()
        self.restarts += later.restarts
        if later.by_bytes.bytes > self.by_bytes.bytes:
            self.by_bytes = later.by_bytes
        if later.by_frames.frames > self.by_frames.frames:
            self.by_frames = later.by_frames
        memcpy(self.entries, later.entries, sizeof(self.entries))
        self.first = later.first
        self.used = later.used
        self.line_end = later.line_end
        self.bytes = later.bytes
        self.frames = later.frames
        self.open_begin_ns = later.open_begin_ns

    cdef void shift_frames(self, int64_t frame_shift) noexcept:
        cdef Py_ssize_t i
        for i in range(self.used):
            self.entries[i].first_frame += frame_shift
        for i in range(self.head_count):
            self.head[i].first_frame += frame_shift
        self.by_bytes.first_frame += frame_shift
        self.by_frames.first_frame += frame_shift

    def peaks(self):
        """Return the busiest window by bytes and by frames.

        Returns
        -------
        tuple of two tuples of int
            Bytes, frames, stamp and number of the first frame in the window; zeros where no frame was seen.
        """
        return (
            (self.by_bytes.bytes, self.by_bytes.frames, self.by_bytes.start_ns, self.by_bytes.first_frame),
            (self.by_frames.bytes, self.by_frames.frames, self.by_frames.start_ns, self.by_frames.first_frame),
        )


def sources_in(FrameColumns frames):
    """Return a bit set of the timestamp sources in a batch: bit s is set where a row's source is s."""
    cdef Py_ssize_t i
    cdef uint64_t bits = 0
    with nogil:
        for i in range(frames.count):
            bits |= (<uint64_t> 1) << (frames.timestamp_source[i] & 63)
    return bits
