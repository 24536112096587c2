"""Peaks in sliding windows.

A. A window of width W slides in steps of W/1000 (1 ns for the narrowest, W = 1 us): time is cut into slots of
   that step, aligned to the epoch, and every run of 1000 slots that ends with an occupied one is looked
   at. The state is at most 1000 occupied slots a width, whatever the rate.
B. An entry is an occupied slot with what had been counted before it, so that the content of a window is one
   subtraction: what is counted now less what had been counted before its first slot. Entries lie in
   a line, not a ring; the live ones move to the front when the line is full. A window is looked at when its last
   slot is over, so that a frame costs nothing in the widths whose slot it does not leave; where each width divides
   the next, slots nest, and the first width that a frame stays in ends the search.
C. Windows need time that goes forward. A frame whose slot lies before that of the frame before it starts
   the windows again (`restarts`); no window spans that place.
D. For `join`, the entries of the first W of the first stretch are kept (`head`): windows that span the cut
   start in the earlier part's last W and end in the later part's first W.
E. The first of equal peaks is kept, and windows are looked at in the order of their ends, so that cutting
   anywhere changes nothing.
F. Timestamps are clamped as they come in, and a window is 2^60 ns at most: then no bound of a slot or of a window
   leaves 64 bits, and a line never has more entries than it has room for. A slot may begin before the earliest
   timestamp there is, so that how far ahead of it a timestamp lies may not fit.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove

from uspcap._core.columns cimport FrameColumns
from uspcap._core.saturating cimport clamped, difference
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking

cdef enum:
    SLOTS = 1000
    ROOM = 2 * SLOTS + 2

SLOTS_IN_WINDOW = SLOTS

cdef int64_t EXACT_IN_DOUBLE = <int64_t> 1 << 52

WIDEST_NS = 1 << 60

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

cdef struct Window:
    int64_t begin_ns               # of the open slot
    int64_t end_ns
    int64_t slot_ns
    double slots_per_ns
    Py_ssize_t first               # of the entries that may be in the window that ends with the open slot
    Py_ssize_t used                # entries in the line, the open slot's the last
    Py_ssize_t line_end            # where the live entries move to the front
    bint head_complete
    Py_ssize_t head_count
    int64_t head_end_ns
    uint64_t head_bytes            # counted when the head was complete
    uint64_t head_frames
    uint64_t restarts
    Peak by_bytes
    Peak by_frames
    Entry entries[ROOM]
    Entry head[SLOTS]


cdef inline void look(Window *window, uint64_t bytes, uint64_t frames) noexcept nogil:
    """Look at the window that ends with the open slot, `bytes` and `frames` being counted so far."""
    cdef Entry *start = &window.entries[window.first]
    # Slots that left the window are still among the entries; with them it holds more than it does. Mostly that
    # is no peak either, and there is no need to know which ones left.
    if (bytes - start.bytes_before < window.by_bytes.bytes
            and frames - start.frames_before <= window.by_frames.frames):
        return
    leave(window)
    start = &window.entries[window.first]
    bytes -= start.bytes_before
    frames -= start.frames_before
    if bytes >= window.by_bytes.bytes and (bytes > window.by_bytes.bytes
                                           or start.first_frame == window.by_bytes.first_frame):
        window.by_bytes = Peak(bytes, frames, start.first_ns, start.first_frame)
    if frames > window.by_frames.frames:
        window.by_frames = Peak(bytes, frames, start.first_ns, start.first_frame)


cdef inline void leave(Window *window) noexcept nogil:
    """Let go of the slots before the window that ends with the open slot."""
    cdef int64_t limit = window.begin_ns - (SLOTS - 1) * window.slot_ns
    while window.entries[window.first].first_ns < limit:
        window.first += 1


cdef void complete_head(Window *window, uint64_t bytes, uint64_t frames) noexcept nogil:
    if not window.head_complete:
        window.head_complete = True
        window.head_bytes = bytes
        window.head_frames = frames


cdef inline int64_t slot_begin(Window *window, int64_t timestamp) noexcept nogil:
    """Return where the slot of a timestamp begins."""
    cdef int64_t begin, ahead = difference(timestamp, window.begin_ns)
    if window.slot_ns == 1:
        return timestamp
    if window.used and 0 <= ahead < EXACT_IN_DOUBLE:
        # A 64-bit division would cost more than all the rest: multiply, and fix the last place.
        begin = window.begin_ns + <int64_t> (<double> ahead * window.slots_per_ns) * window.slot_ns
        if begin + window.slot_ns <= timestamp:
            begin += window.slot_ns
    else:
        begin = timestamp // window.slot_ns * window.slot_ns
    return begin - window.slot_ns if begin > timestamp else begin


cdef inline void step(Window *window, int64_t timestamp, int64_t frame, uint64_t bytes,
                      uint64_t frames) noexcept nogil:
    """Close the open slot and open that of a frame which does not lie in it."""
    cdef int64_t begin
    cdef Py_ssize_t live
    if window.used:
        look(window, bytes, frames)
        if timestamp < window.begin_ns:
            complete_head(window, bytes, frames)
            window.restarts += 1
            window.first = window.used = 0
    begin = slot_begin(window, timestamp)
    if window.used >= window.line_end:
        if window.used:
            leave(window)
        live = window.used - window.first
        memmove(&window.entries[0], &window.entries[window.first], live * sizeof(Entry))
        window.first = 0
        window.used = live
        window.line_end = 2 * live + 2 if live > 31 else 64
    window.begin_ns = begin
    window.end_ns = begin + window.slot_ns
    window.entries[window.used] = Entry(timestamp, frame, bytes, frames)
    if not window.head_complete:
        if window.head_count == 0:
            window.head_end_ns = begin + SLOTS * window.slot_ns
        if begin >= window.head_end_ns:
            complete_head(window, bytes, frames)
        else:
            window.head[window.head_count] = window.entries[window.used]
            window.head_count += 1
    window.used += 1


cdef class SlidingWindows:
    """The busiest windows of some widths, by bytes and by frames, of one timestamp source.

    Parameters
    ----------
    widths_ns : tuple of int
        Rising multiples of 1000, up to WIDEST_NS.

    Attributes
    ----------
    bytes, frames : int
        Counted so far.
    lowest_ns, highest_ns : int
        Earliest and latest timestamp so far; meaningless before the first.
    """

    cdef readonly tuple widths_ns
    cdef Py_ssize_t count
    cdef bint nested
    cdef Window *windows
    cdef readonly uint64_t bytes
    cdef readonly uint64_t frames
    cdef readonly int64_t lowest_ns
    cdef readonly int64_t highest_ns

    def __init__(self, tuple widths_ns):
        cdef Py_ssize_t k
        if not widths_ns or any(not SLOTS <= width <= WIDEST_NS or width % SLOTS for width in widths_ns):
            raise ValueError(f"each width must be a multiple of {SLOTS} ns, and {WIDEST_NS} ns at most")
        self.widths_ns = widths_ns
        self.count = len(widths_ns)
        self.nested = all(wide % narrow == 0 for narrow, wide in zip(widths_ns, widths_ns[1:]))
        self.windows = <Window *> calloc(self.count, sizeof(Window))
        if self.windows == NULL:
            raise MemoryError
        for k in range(self.count):
            self.windows[k].slot_ns = widths_ns[k] // SLOTS
            self.windows[k].slots_per_ns = 1.0 / self.windows[k].slot_ns

    def __dealloc__(self):
        free(self.windows)

    def update(self, FrameColumns frames, int64_t frame_shift, int source):
        """Add the rows of a batch whose timestamp source is `source`."""
        cdef Py_ssize_t i, k, count = self.count
        cdef int64_t timestamp
        cdef uint64_t bytes = self.bytes, counted = self.frames
        cdef int64_t lowest = self.lowest_ns, highest = self.highest_ns
        cdef bint nested = self.nested
        cdef Window *window
        with nogil:
            for i in range(frames.count):
                if frames.timestamp_source[i] != source:
                    continue
                timestamp = clamped(frames.timestamp_ns[i])
                if counted == 0:
                    lowest = highest = timestamp
                if timestamp < lowest:
                    lowest = timestamp
                if timestamp > highest:
                    highest = timestamp
                for k in range(count):
                    window = &self.windows[k]
                    if window.begin_ns <= timestamp < window.end_ns:
                        if nested:
                            break
                        continue
                    step(window, timestamp, frames.frame_number[i] + frame_shift, bytes, counted)
                bytes += frames.wire_length[i]
                counted += 1
        self.bytes = bytes
        self.frames = counted
        self.lowest_ns = lowest
        self.highest_ns = highest

    def join(self, SlidingWindows later, int64_t frame_shift):
        """Append what came directly after; its frame numbers move up by `frame_shift`."""
        cdef Py_ssize_t k
        if later.widths_ns != self.widths_ns:
            raise ValueError("windows of different widths cannot be joined")
        if later.frames == 0:
            return
        for k in range(self.count):
            self.join_one(&self.windows[k], later, &later.windows[k], frame_shift)
        if self.frames == 0 or later.lowest_ns < self.lowest_ns:
            self.lowest_ns = later.lowest_ns
        if self.frames == 0 or later.highest_ns > self.highest_ns:
            self.highest_ns = later.highest_ns
        self.bytes += later.bytes
        self.frames += later.frames

    cdef void join_one(self, Window *window, SlidingWindows later, Window *other, int64_t frame_shift) noexcept:
        cdef Py_ssize_t i
        cdef Entry *entry
        for i in range(other.head_count):
            entry = &other.head[i]
            if not window.used or not window.begin_ns <= entry.first_ns < window.end_ns:
                step(window, entry.first_ns, entry.first_frame + frame_shift,
                     self.bytes + entry.bytes_before, self.frames + entry.frames_before)
        if not other.head_complete:
            return
        look(window, self.bytes + other.head_bytes, self.frames + other.head_frames)
        complete_head(window, self.bytes + other.head_bytes, self.frames + other.head_frames)
        window.restarts += other.restarts
        look(other, later.bytes, later.frames)
        other.by_bytes.first_frame += frame_shift
        other.by_frames.first_frame += frame_shift
        if other.by_bytes.bytes > window.by_bytes.bytes:
            window.by_bytes = other.by_bytes
        if other.by_frames.frames > window.by_frames.frames:
            window.by_frames = other.by_frames
        window.begin_ns = other.begin_ns
        window.end_ns = other.end_ns
        window.first = other.first
        window.used = other.used
        window.line_end = other.line_end
        memcpy(window.entries, other.entries, sizeof(other.entries))
        for i in range(window.used):
            window.entries[i].first_frame += frame_shift
            window.entries[i].bytes_before += self.bytes
            window.entries[i].frames_before += self.frames

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        pack(&packed, self.windows, self.count * sizeof(Window))
        counted = (self.bytes, self.frames, self.lowest_ns, self.highest_ns)
        return _windows, (self.widths_ns, counted, finished(&packed))

    def peaks(self):
        """Return the busiest window of each width, by bytes and by frames, and how often it restarted.

        Returns
        -------
        list of (tuple of int, tuple of int, int)
            Each tuple: bytes, frames, timestamp and number of the first frame in the window; zeros where no frame was
            seen.
        """
        cdef Py_ssize_t k
        cdef Window *window
        found = []
        for k in range(self.count):
            window = &self.windows[k]
            if window.used:
                look(window, self.bytes, self.frames)
            found.append((
                (window.by_bytes.bytes, window.by_bytes.frames, window.by_bytes.start_ns,
                 window.by_bytes.first_frame),
                (window.by_frames.bytes, window.by_frames.frames, window.by_frames.start_ns,
                 window.by_frames.first_frame),
                window.restarts,
            ))
        return found


def _windows(tuple widths_ns, tuple counted, bytes state):
    """Return pickled windows."""
    cdef SlidingWindows windows = SlidingWindows(widths_ns)
    cdef Unpacked unpacked = unpacking(state)
    windows.bytes, windows.frames, windows.lowest_ns, windows.highest_ns = counted
    unpack(&unpacked, windows.windows, windows.count * sizeof(Window))
    all_read(&unpacked)
    return windows


def sources_in(FrameColumns frames):
    """Return a bit set of the timestamp sources in a batch: bit s is set where a row's source is s."""
    cdef Py_ssize_t i
    cdef uint64_t bits = 0
    with nogil:
        for i in range(frames.count):
            if frames.timestamp_source[i] < 64:
                bits |= (<uint64_t> 1) << frames.timestamp_source[i]
    return bits
