"""Peaks in sliding windows.

A. A window of width W slides in steps of W/1000 (1 ns for the narrowest, W = 1 us): time is cut into slots of
   that step, and every run of 1000 consecutive slots is looked at, when its last slot is complete. The
   state is at most 1000 occupied slots a width, whatever the rate.
B. Windows need time that goes forward. A frame whose slot lies before that of the frame before it starts
   the windows anew (`restarts`); no window spans that place.
C. For `join`, the slots of the first W of the first stretch are kept (`head`): windows that span the cut
   start in the earlier part's last W and end in the later part's first W.
D. The first of equal peaks is kept, and windows are looked at in the order of their ends, so that cutting
   anywhere changes nothing.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from uspcap._native.columns cimport FrameColumns

cdef enum:
    SLOTS = 1000

SLOTS_IN_WINDOW = SLOTS

cdef struct Slot:
    int64_t index
    int64_t first_ns
    int64_t first_frame
    uint64_t bytes
    uint64_t frames

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
    cdef readonly uint64_t restarts
    cdef Slot ring[SLOTS]
    cdef Py_ssize_t ring_start
    cdef Py_ssize_t ring_count
    cdef uint64_t ring_bytes
    cdef uint64_t ring_frames
    cdef Slot open
    cdef bint started
    cdef Slot head[SLOTS]
    cdef Py_ssize_t head_count
    cdef int64_t head_first
    cdef bint head_complete
    cdef Peak by_bytes
    cdef Peak by_frames

    def __init__(self, int64_t width_ns):
        if width_ns < SLOTS or width_ns % SLOTS:
            raise ValueError(f"the width must be a multiple of {SLOTS} ns")
        self.width_ns = width_ns
        self.slot_ns = width_ns // SLOTS

    cdef inline void evict(self, int64_t newest) noexcept nogil:
        """Drop from the ring what no window that ends with slot `newest` holds."""
        cdef Slot *oldest
        while self.ring_count:
            oldest = &self.ring[self.ring_start]
            if oldest.index > newest - SLOTS:
                break
            self.ring_bytes -= oldest.bytes
            self.ring_frames -= oldest.frames
            self.ring_start += 1
            if self.ring_start == SLOTS:
                self.ring_start = 0
            self.ring_count -= 1

    cdef void close_slot(self) noexcept nogil:
        """The open slot is complete: look at the window that ends with it, and keep it."""
        cdef Slot *first
        cdef Py_ssize_t at
        cdef uint64_t bytes, frames
        self.evict(self.open.index)
        bytes = self.ring_bytes + self.open.bytes
        frames = self.ring_frames + self.open.frames
        first = &self.ring[self.ring_start] if self.ring_count else &self.open
        if bytes > self.by_bytes.bytes:
            self.by_bytes = Peak(bytes, frames, first.first_ns, first.first_frame)
        if frames > self.by_frames.frames:
            self.by_frames = Peak(bytes, frames, first.first_ns, first.first_frame)
        at = self.ring_start + self.ring_count
        if at >= SLOTS:
            at -= SLOTS
        self.ring[at] = self.open
        self.ring_count += 1
        self.ring_bytes = bytes
        self.ring_frames = frames
        if not self.head_complete:
            if self.head_count == 0:
                self.head_first = self.open.index
            if self.open.index < self.head_first + SLOTS:
                self.head[self.head_count] = self.open
                self.head_count += 1
            else:
                self.head_complete = True

    cdef inline void add(self, Slot *slot) noexcept nogil:
        """Add a slot that came after the open one, or more of the open one, or start anew."""
        if not self.started:
            self.started = True
            self.open = slot[0]
        elif slot.index == self.open.index:
            self.open.bytes += slot.bytes
            self.open.frames += slot.frames
        elif slot.index > self.open.index:
            self.close_slot()
            self.evict(slot.index)
            self.open = slot[0]
        else:
            self.close_slot()
            self.restart()
            self.open = slot[0]

    cdef inline void restart(self) noexcept nogil:
        self.restarts += 1
        self.head_complete = True
        self.ring_count = 0
        self.ring_bytes = 0
        self.ring_frames = 0

    def update(self, FrameColumns frames, int64_t frame_shift, int source):
        """Add the rows of a batch whose timestamp source is `source`."""
        cdef Py_ssize_t i
        cdef int64_t stamp, slot_ns = self.slot_ns
        cdef int64_t begin = 0, end = 0
        cdef Slot slot
        with nogil:
            for i in range(frames.count):
                if frames.timestamp_source[i] != source:
                    continue
                stamp = frames.timestamp_ns[i]
                if begin <= stamp < end:
                    self.open.bytes += frames.wire_length[i]
                    self.open.frames += 1
                    continue
                slot.index = stamp // slot_ns
                if slot.index * slot_ns > stamp:
                    slot.index -= 1
                slot.first_ns = stamp
                slot.first_frame = frames.frame_number[i] + frame_shift
                slot.bytes = frames.wire_length[i]
                slot.frames = 1
                self.add(&slot)
                begin = slot.index * slot_ns
                end = begin + slot_ns

    def join(self, SlidingWindow later, int64_t frame_shift):
        """Append what came directly after; its frame numbers move up by `frame_shift`."""
        cdef Py_ssize_t i
        cdef Slot slot
        cdef bint forward
        if later.width_ns != self.width_ns:
            raise ValueError("windows of different widths cannot be joined")
        if not later.started:
            return
        later.shift_frames(frame_shift)
        forward = not self.started or (later.head[0].index if later.head_count else later.open.index) >= self.open.index
        if forward:
            for i in range(later.head_count):
                self.add(&later.head[i])
            if not later.head_complete and not later.head_closed():
                self.add(&later.open)
                return
        self.close_slot()
        if not forward:
            self.restart()
        self.head_complete = True
        self.restarts += later.restarts
        if later.by_bytes.bytes > self.by_bytes.bytes:
            self.by_bytes = later.by_bytes
        if later.by_frames.frames > self.by_frames.frames:
            self.by_frames = later.by_frames
        memcpy(self.ring, later.ring, sizeof(self.ring))
        self.ring_start = later.ring_start
        self.ring_count = later.ring_count
        self.ring_bytes = later.ring_bytes
        self.ring_frames = later.ring_frames
        self.open = later.open

    cdef bint head_closed(self) noexcept:
        """Tell whether the open slot lies beyond the head."""
        return self.head_count and self.open.index >= self.head_first + SLOTS

    cdef void shift_frames(self, int64_t frame_shift) noexcept:
        cdef Py_ssize_t i
        for i in range(SLOTS):
            self.ring[i].first_frame += frame_shift
            self.head[i].first_frame += frame_shift
        self.open.first_frame += frame_shift
        self.by_bytes.first_frame += frame_shift
        self.by_frames.first_frame += frame_shift

    def peaks(self):
        """Return the busiest window by bytes and by frames.

        Returns
        -------
        tuple of two tuples of int
            Bytes, frames, stamp and number of the first frame in the window; zeros where no frame was seen.
        """
        cdef SlidingWindow final = SlidingWindow(self.width_ns)
        final.copy_from(self)
        if final.started:
            final.close_slot()
        return (
            (final.by_bytes.bytes, final.by_bytes.frames, final.by_bytes.start_ns, final.by_bytes.first_frame),
            (final.by_frames.bytes, final.by_frames.frames, final.by_frames.start_ns,
             final.by_frames.first_frame),
        )

    cdef void copy_from(self, SlidingWindow other) noexcept:
        """Become a copy of `other`, but for its head, which `peaks` does not need."""
        memcpy(self.ring, other.ring, sizeof(self.ring))
        self.ring_start = other.ring_start
        self.ring_count = other.ring_count
        self.ring_bytes = other.ring_bytes
        self.ring_frames = other.ring_frames
        self.open = other.open
        self.started = other.started
        self.head_complete = True
        self.by_bytes = other.by_bytes
        self.by_frames = other.by_frames


def sources_in(FrameColumns frames):
    """Return a bit set of the timestamp sources in a batch: bit s is set where a row's source is s."""
    cdef Py_ssize_t i
    cdef uint64_t bits = 0
    with nogil:
        for i in range(frames.count):
            bits |= (<uint64_t> 1) << (frames.timestamp_source[i] & 63)
    return bits
