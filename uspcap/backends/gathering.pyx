"""Reading rings in turn into one batch, and waiting for frames, without the GIL.

A. A visit looks at every ring once. To be woken costs more than to read a few dozen frames, and to hand a batch to
   Python costs more than to be woken; so frames gather in two places: on the rings, for as long as the latency from hook to
   reader may be, and in the batch, for as long as file and analyses may lag behind the reader.
B. Where the last visit emptied the rings and found frames, more are likely to come: the reader naps before the next,
   which comes `nap_ns` after it, however long its frames were dealt with meanwhile. Where it found none, the kernel
   wakes the reader for the first that comes. What comes after a long time without frames is handed over at once. A
   nap ends early where the kernel says through a descriptor that a ring fills up, or is shorter than the ring can
   hold frames for; whoever sets it sees to that.
C. A ring is unread from the end of one visit to the beginning of the next, without the time for which the kernel was
   to wake the reader. A process that is stopped while it waits so is not woken in time: what the oldest frame of the
   visit after waited is counted then, without the time for which the kernel itself may hold frames back.
D. The offset between CLOCK_TAI and UTC is looked at before each visit. Where it is not the one that the batch was
   begun with, the batch is handed over, so that all its frames were converted with one offset.
"""

from cpython.object cimport PyObject
from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, clock_nanosleep, timespec

from uspcap._core.clock cimport realtime_ns
from uspcap._core.columns cimport FrameColumns
from uspcap._core.timestamped_interfaces cimport TIMESTAMP_KERNEL, TIMESTAMP_XDP

cdef extern from *:
    """
    #define uspcap_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define uspcap_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t load_acquire "uspcap_load_acquire"(const uint64_t *) nogil
    void store_release "uspcap_store_release"(uint64_t *, uint64_t) nogil

cdef extern from "<poll.h>" nogil:
    cdef struct pollfd:
        int fd
        short events
        short revents
    int ppoll(pollfd *, unsigned long, const timespec *, const void *)
    short POLLIN
    short POLLERR

cdef enum:
    CLOCK_TAI = 11              # linux/time.h
    SECOND = 1_000_000_000

cdef int64_t MOST_NS = <int64_t> 1 << 62

# What ends a batch; GO_ON where nothing does.
cdef enum:
    GO_ON = -1
    END_FULL = 0
    END_QUIET, END_INTERRUPTED, END_TROUBLED, END_CLOCK_CHANGED

HANDED_OVER = END_FULL
QUIET = END_QUIET
INTERRUPTED = END_INTERRUPTED
TROUBLED = END_TROUBLED
CLOCK_CHANGED = END_CLOCK_CHANGED


cdef inline int64_t clock_ns(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t> now.tv_sec * SECOND + now.tv_nsec


cdef inline int64_t tai_ahead_s() noexcept nogil:
    """Return CLOCK_TAI minus UTC in whole seconds; 0 where no time daemon has set the offset."""
    return (clock_ns(CLOCK_TAI) - clock_ns(CLOCK_REALTIME) + SECOND // 2) // SECOND


cdef inline timespec spec(int64_t ns) noexcept nogil:
    cdef timespec result
    if ns < 0:
        ns = 0
    result.tv_sec = ns // SECOND
    result.tv_nsec = ns % SECOND
    return result


cdef class FrameRing:
    """What is read in turn: a ring that the kernel fills.

    Attributes
    ----------
    lossy : bool
        Some row of some batch may have got a `drop_count` from it.
    """

    cdef void begin(self) noexcept nogil:
        """Know that another batch begins."""

    cdef Py_ssize_t take(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns, int64_t read_at_ns,
                         int64_t now_ns) noexcept nogil:
        """Append what is there to a batch, as far as it has room; return how many of its bytes are used then.

        `attention` is set where the caller must see to something before the next visit. `now_ns` is monotonic.
        """
        return used


cdef class FillNotices:
    """Notices that a ring fills up, from a BPF ring buffer.

    Parameters
    ----------
    ours, kernels : buffer of bytes
        As of `uspcap.bpf.ring_buffer.RingBuffer`; each begins with a position.
    descriptor : int
        Readable while there are some.
    """

    cdef uint8_t[::1] ours
    cdef const uint8_t[::1] kernels
    cdef int descriptor

    def __init__(self, uint8_t[::1] ours, const uint8_t[::1] kernels, int descriptor):
        if ours.shape[0] < 8 or kernels.shape[0] < 8 or <uintptr_t> &ours[0] % 8 or <uintptr_t> &kernels[0] % 8:
            raise ValueError("a position has 64 bits, at a multiple of 8")
        self.ours = ours
        self.kernels = kernels
        self.descriptor = descriptor

    cdef void clear(self) noexcept nogil:
        """Take note of all that have come; to be called after a visit has emptied the rings."""
        store_release(<uint64_t *> &self.ours[0], load_acquire(<const uint64_t *> &self.kernels[0]))

    def close(self):
        """Let go of the mapped memory."""
        self.ours = None
        self.kernels = None
        self.descriptor = -1


cdef class Gatherer:
    """The rings of one source, read in turn.

    Parameters
    ----------
    rings : tuple of FrameRing
    descriptors : tuple of int
        To wait on, one a ring; none where nothing is to be waited for.
    room_bytes : int
        What the longest frame takes: with less room left a batch is full.
    nap_ns : int
        How long frames may gather on the rings once they come; 0: the kernel says when there is something.
    hand_over_ns : int
        How long frames may wait in the batch for others.
    held_back_ns : int
        For so long the kernel may hold frames back without their ring being unread.
    notices : FillNotices, optional
        That a ring fills up, to end naps early.
    spinning : bool
        Never wait: look again and again.
    follows_tai : bool
        Hand over when the offset of CLOCK_TAI changes.

    Attributes
    ----------
    emptied : bool
        Every ring was found empty after the last frame that was handed over.
    troubled : int
        Descriptor with a pending error, -1 for none; see `TROUBLED`.
    visited_at_ns : int
        When the last visit began, UTC.
    longest_unread_ns, longest_unread_at_ns : int
        The longest time for which a ring went unread, and when it ended, UTC.
    wakeups : int
        How often the reader has slept.
    """

    cdef readonly bint emptied
    cdef readonly int troubled
    cdef readonly int64_t visited_at_ns
    cdef readonly int64_t longest_unread_ns
    cdef readonly int64_t longest_unread_at_ns
    cdef readonly int64_t wakeups
    cdef int64_t recent_unread_ns
    cdef tuple owners
    cdef PyObject **rings
    cdef pollfd *descriptors
    cdef FillNotices notices
    cdef Py_ssize_t count
    cdef Py_ssize_t waited_on
    cdef Py_ssize_t first
    cdef Py_ssize_t room_bytes
    cdef int64_t nap_ns, hand_over_ns, held_back_ns
    cdef int64_t left_ns, found_ns
    cdef bint spinning, follows_tai
    cdef bint coming

    def __cinit__(self, tuple rings, tuple descriptors, *, Py_ssize_t room_bytes, int64_t nap_ns=0,
                  int64_t hand_over_ns=0, int64_t held_back_ns=0, FillNotices notices=None, bint spinning=False,
                  bint follows_tai=False):
        cdef Py_ssize_t at
        if not rings or not all(isinstance(ring, FrameRing) for ring in rings):
            raise ValueError("there is no ring to read")
        if min(room_bytes, nap_ns, hand_over_ns, held_back_ns) < 0 or max(nap_ns, hand_over_ns) > MOST_NS:
            raise ValueError("times and sizes are not negative")
        self.owners = rings
        self.count = len(rings)
        self.waited_on = len(descriptors)
        self.rings = <PyObject **> calloc(self.count, sizeof(PyObject *))
        self.descriptors = <pollfd *> calloc(self.waited_on + 1, sizeof(pollfd))
        if self.rings == NULL or self.descriptors == NULL:
            raise MemoryError
        for at in range(self.count):
            self.rings[at] = <PyObject *> rings[at]
        for at in range(self.waited_on):
            self.descriptors[at].fd = descriptors[at]
            self.descriptors[at].events = POLLIN
        self.notices = notices
        self.room_bytes = room_bytes
        self.nap_ns = nap_ns
        self.hand_over_ns = hand_over_ns
        self.held_back_ns = held_back_ns
        self.spinning = spinning
        self.follows_tai = follows_tai
        self.troubled = -1
        self.left_ns = clock_ns(CLOCK_MONOTONIC)

    def __dealloc__(self):
        free(self.rings)
        free(self.descriptors)

    def add(self, FrameRing ring not None, int descriptor):
        """Read one more ring in turn, and wait on its descriptor, too."""
        cdef PyObject **rings = <PyObject **> calloc(self.count + 1, sizeof(PyObject *))
        cdef pollfd *descriptors = <pollfd *> calloc(self.waited_on + 2, sizeof(pollfd))
        if rings == NULL or descriptors == NULL:
            free(rings)
            free(descriptors)
            raise MemoryError
        memcpy(rings, self.rings, self.count * sizeof(PyObject *))
        memcpy(descriptors, self.descriptors, self.waited_on * sizeof(pollfd))
        self.owners = (*self.owners, ring)
        rings[self.count] = <PyObject *> ring
        descriptors[self.waited_on].fd = descriptor
        descriptors[self.waited_on].events = POLLIN
        free(self.rings)
        free(self.descriptors)
        self.rings = rings
        self.descriptors = descriptors
        self.count += 1
        self.waited_on += 1

    def gather(self, FrameColumns frames, Py_ssize_t wanted, int64_t tai_offset_ns, int64_t timeout_ns):
        """Fill an empty batch.

        Parameters
        ----------
        frames : FrameColumns
            Rows are filled from the first on, and `count` set; numbered on from `frames_before`.
        wanted : int
            Hand over as soon as there are so many frames, or a few more.
        tai_offset_ns : int
            CLOCK_TAI minus UTC, taken from the timestamps of the hook.
        timeout_ns : int
            How long to wait for the first frame, after a last look at the rings. With frames it takes no longer than
            that or `hand_over_ns`, whichever is longer.

        Returns
        -------
        int
            HANDED_OVER with frames; QUIET where none came in time; INTERRUPTED by a signal, TROUBLED by an error of the
            descriptor `troubled` and CLOCK_CHANGED, with frames or without.
        """
        cdef int end
        frames.count = 0
        wanted = min(max(wanted, 1), frames.capacity)
        with nogil:
            end = self.run(frames, wanted, tai_offset_ns, timeout_ns)
        return end

    def take_recent_unread_ns(self):
        """Return the longest time for which a ring went unread since this was last asked."""
        recent, self.recent_unread_ns = self.recent_unread_ns, 0
        return recent

    cdef void note_unread(self, int64_t ns) noexcept nogil:
        if ns > self.recent_unread_ns:
            self.recent_unread_ns = ns
        if ns > self.longest_unread_ns:
            self.longest_unread_ns = ns
            self.longest_unread_at_ns = realtime_ns()

    cdef int run(self, FrameColumns frames, Py_ssize_t wanted, int64_t tai_offset_ns,
                 int64_t timeout_ns) noexcept nogil:
        cdef int64_t began_ns = clock_ns(CLOCK_MONOTONIC), now_ns = began_ns, due_ns = 0, slept_ns = 0, left_ns
        cdef int64_t tai_s = tai_ahead_s() if self.follows_tai else 0
        cdef Py_ssize_t at, before, used = 0
        cdef int result
        self.troubled = -1
        self.emptied = False
        for at in range(self.count):
            (<FrameRing> self.rings[at]).begin()
        while True:
            if self.coming:
                left_ns = self.left_ns + self.nap_ns - now_ns
                if not frames.count:
                    left_ns = min(left_ns, began_ns + timeout_ns - now_ns)
                if left_ns > 0:
                    self.wakeups += 1
                    result = self.nap(left_ns)
                    now_ns = clock_ns(CLOCK_MONOTONIC)
                    if result != GO_ON:
                        return result
            if self.follows_tai and tai_ahead_s() != tai_s:
                return END_CLOCK_CHANGED
            before = frames.count
            used = self.visit(frames, used, tai_offset_ns, now_ns, slept_ns)
            now_ns = self.left_ns
            slept_ns = 0
            self.coming = False
            if frames.count >= wanted or used > frames.data_length - self.room_bytes:
                return END_FULL
            self.emptied = True
            if self.needs_attention():
                return END_FULL if frames.count else END_INTERRUPTED
            if frames.count > before and self.nap_ns:
                self.coming = True
                if self.notices is not None:
                    self.notices.clear()
            if frames.count:
                if not before:
                    # What comes so seldom has nothing to wait for.
                    due_ns = 0 if now_ns - self.found_ns >= self.hand_over_ns else now_ns + self.hand_over_ns
                    due_ns = min(due_ns, began_ns + max(timeout_ns, self.hand_over_ns))
                if frames.count > before:
                    self.found_ns = now_ns
                left_ns = due_ns - now_ns
                if left_ns <= (self.nap_ns if self.coming else 0):
                    return END_FULL
            else:
                left_ns = began_ns + timeout_ns - now_ns
                if left_ns <= 0:
                    return END_QUIET
            if self.spinning:
                now_ns = clock_ns(CLOCK_MONOTONIC)
            elif not self.coming:
                self.wakeups += 1
                result = self.wait(left_ns)
                now_ns = clock_ns(CLOCK_MONOTONIC)
                slept_ns = now_ns - self.left_ns
                self.left_ns = now_ns
                if result != GO_ON:
                    return result

    cdef Py_ssize_t visit(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns, int64_t now_ns,
                          int64_t slept_ns) noexcept nogil:
        """Look at every ring once; `slept_ns` is for how long the kernel was to wake the reader before."""
        cdef int64_t read_at_ns = realtime_ns(), oldest_ns = MOST_NS, waited_ns
        cdef Py_ssize_t step, row
        cdef uint8_t source
        self.visited_at_ns = read_at_ns
        self.note_unread(now_ns - self.left_ns)
        for step in range(self.count):
            row = frames.count
            used = (<FrameRing> self.rings[(self.first + step) % self.count]).take(
                frames, used, tai_offset_ns, read_at_ns, now_ns)
            if slept_ns and frames.count > row:
                source = frames.timestamp_source[row]
                if (source == TIMESTAMP_KERNEL or source == TIMESTAMP_XDP) and frames.timestamp_ns[row] < oldest_ns:
                    oldest_ns = frames.timestamp_ns[row]
        self.first = (self.first + 1) % self.count
        if oldest_ns < read_at_ns and read_at_ns - oldest_ns > self.held_back_ns:
            waited_ns = read_at_ns - oldest_ns - self.held_back_ns
            self.note_unread(waited_ns if waited_ns < slept_ns else slept_ns)
        self.left_ns = clock_ns(CLOCK_MONOTONIC)
        return used

    cdef bint needs_attention(self) noexcept nogil:
        cdef Py_ssize_t at
        for at in range(self.count):
            if (<FrameRing> self.rings[at]).attention:
                return True
        return False

    cdef int nap(self, int64_t ns) noexcept nogil:
        """Let frames gather; return what ends the batch."""
        cdef timespec pause = spec(ns)
        cdef pollfd waiting
        if self.notices is None:
            return END_INTERRUPTED if clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL) == EINTR else GO_ON
        waiting.fd = self.notices.descriptor
        waiting.events = POLLIN
        return END_INTERRUPTED if ppoll(&waiting, 1, &pause, NULL) < 0 and errno == EINTR else GO_ON

    cdef int wait(self, int64_t ns) noexcept nogil:
        """Wait for a frame; return what ends the batch."""
        cdef timespec pause = spec(ns)
        cdef Py_ssize_t at
        cdef int ready = ppoll(self.descriptors, <unsigned long> self.waited_on, &pause, NULL)
        if ready < 0 and errno == EINTR:
            return END_INTERRUPTED
        if ready > 0:
            for at in range(self.waited_on):
                if self.descriptors[at].revents & POLLERR:
                    self.troubled = self.descriptors[at].fd
                    return END_TROUBLED
        return GO_ON
