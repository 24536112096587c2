"""Merging inputs whose frames are in order of time, straight out of the batches that their readers filled.

A. Each input has the batch at hand and a row in it. First it is picked which inputs the next frames come from, then
   they are copied: what a processor cannot foresee is so parted from what it can do at full speed. Of two inputs one is
   picked without a branch; of more, the one with the earliest frame goes on as long as its frames are earlier than
   those of all others.
B. Of equal times one frame goes at a time, by the rule of frame_order.pxd.
C. A frame without a timestamp goes with the frame before it.
D. Bytes are copied into the batch that is filled: the windows of the readers move on at different times.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from uspcap._core.columns cimport FrameColumns
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.stages.frame_order cimport Equal, order_of_equals
from uspcap.stages.merge_outcomes cimport AT_END, NO_ROOM, NO_ROW

cdef enum:
    PICKS = 4096
    INPUTS = (1 << 16) - 1

MOST_INPUTS = INPUTS

# An input with a frame at hand, and when that was.
cdef struct Head:
    int64_t key_ns
    Py_ssize_t number

cdef struct Cursor:
    const int64_t *key_ns       # where each row goes among others
    int64_t *own_key_ns         # room for them where some rows have no timestamp
    Py_ssize_t own_room
    int64_t last_key_ns
    const int64_t *timestamp_ns
    const uint8_t *timestamp_source
    const uint32_t *wire_length
    const uint32_t *captured_length
    const uint16_t *interface
    const int64_t *offset
    const uint32_t *flags
    const uint32_t *queue
    const uint64_t *drop_count
    const int64_t *options_offset
    const uint32_t *options_length
    const uint8_t *data
    Py_ssize_t data_length
    const uint16_t *interfaces  # number that each interface of the batch gets
    Py_ssize_t row              # the next to be picked
    Py_ssize_t copied           # the next to be copied
    Py_ssize_t end
    bint big_endian
    bint finished


cdef class RunMerger:
    """Gives the frames of several inputs in order of time.

    Parameters
    ----------
    inputs : int
        How many there are.
    has_options : bool
        Frames may have what pcapng keeps beside their bytes: flags, queue, drop count, options.

    Attributes
    ----------
    needed : int
        Bytes that the next frame needs, where a batch is too small for it.
    big_endian : bool
        Byte order of the options of the batch that was filled.
    """

    cdef Cursor *cursors
    cdef Py_ssize_t inputs
    cdef list held              # what the cursors point into
    cdef Head *heap             # inputs with a frame at hand, the one that goes first at the top
    cdef Py_ssize_t heap_count
    cdef Py_ssize_t *waiting    # those that are to be loaded
    cdef Py_ssize_t waiting_count
    cdef uint16_t *picks        # inputs that frames come from, in their order
    cdef Py_ssize_t picked
    cdef Py_ssize_t taken       # picks of which the frames are copied
    cdef bint has_options
    cdef bint has_order         # some frame of the batch has options, whose byte order is `big_endian`
    cdef Py_ssize_t used
    cdef readonly Py_ssize_t needed
    cdef readonly bint big_endian

    def __cinit__(self, Py_ssize_t inputs, *, bint has_options):
        cdef Py_ssize_t at
        if not 1 <= inputs <= INPUTS:
            raise ValueError(f"{inputs} inputs: from 1 to {MOST_INPUTS} can be merged")
        self.inputs = inputs
        self.has_options = has_options
        self.held = [None] * inputs
        self.cursors = <Cursor *> calloc(inputs, sizeof(Cursor))
        self.heap = <Head *> calloc(inputs, sizeof(Head))
        self.waiting = <Py_ssize_t *> calloc(inputs, sizeof(Py_ssize_t))
        self.picks = <uint16_t *> calloc(PICKS, sizeof(uint16_t))
        if self.cursors == NULL or self.heap == NULL or self.waiting == NULL or self.picks == NULL:
            raise MemoryError
        self.waiting_count = inputs
        for at in range(inputs):
            self.cursors[at].last_key_ns = INT64_MIN
            self.waiting[at] = inputs - 1 - at

    def __dealloc__(self):
        cdef Py_ssize_t at
        if self.cursors != NULL:
            for at in range(self.inputs):
                free(self.cursors[at].own_key_ns)
        free(self.cursors)
        free(self.heap)
        free(self.waiting)
        free(self.picks)

    def load(self, Py_ssize_t number, FrameColumns batch, const uint16_t[::1] interfaces, bint big_endian=False):
        """Give an input its next batch, which is left alone until `fill` asks for the one after.

        Parameters
        ----------
        number : int
            Of the input, as `fill` has returned it.
        batch : FrameColumns
            Its times never fall, and do not begin before those that the input had.
        interfaces : ndarray of uint16
            Number that each interface of the batch gets.
        big_endian : bool
            Byte order of the frames' options.
        """
        cdef Py_ssize_t row, without = 0
        cdef int64_t *grown
        cdef Cursor *one
        if not 0 <= number < self.inputs:
            raise ValueError(f"there is no input {number}")
        one = &self.cursors[number]
        if one.copied != one.end or one.finished:
            raise ValueError("the input has frames left, or has ended")
        for row in range(batch.count):
            if batch.interface[row] >= interfaces.shape[0] or batch.offset[row] < 0 or (
                    batch.offset[row] > batch.data_length - <int64_t> batch.captured_length[row]):
                raise ValueError(f"row {row} of the batch points outside it")
            without += batch.timestamp_source[row] >= NO_TIMESTAMP
        one.key_ns = batch.timestamp_ns
        if without:
            if one.own_room < batch.count:
                grown = <int64_t *> realloc(one.own_key_ns, batch.count * sizeof(int64_t))
                if grown == NULL:
                    raise MemoryError
                one.own_key_ns = grown
                one.own_room = batch.count
            for row in range(batch.count):
                if batch.timestamp_source[row] < NO_TIMESTAMP:
                    one.last_key_ns = batch.timestamp_ns[row]
                one.own_key_ns[row] = one.last_key_ns
            one.key_ns = one.own_key_ns
        elif batch.count:
            one.last_key_ns = batch.timestamp_ns[batch.count - 1]
        self.held[number] = (batch, interfaces)
        one.timestamp_ns = batch.timestamp_ns
        one.timestamp_source = batch.timestamp_source
        one.wire_length = batch.wire_length
        one.captured_length = batch.captured_length
        one.interface = batch.interface
        one.offset = batch.offset
        one.flags = batch.flags
        one.queue = batch.queue
        one.drop_count = batch.drop_count
        one.options_offset = batch.options_offset
        one.options_length = batch.options_length
        one.data = batch.data
        one.data_length = batch.data_length
        one.interfaces = &interfaces[0] if interfaces.shape[0] else NULL
        one.big_endian = big_endian
        one.row = one.copied = 0
        one.end = batch.count

    def finish(self, Py_ssize_t number):
        """Know that nothing more comes from an input."""
        if not 0 <= number < self.inputs:
            raise ValueError(f"there is no input {number}")
        self.cursors[number].finished = True
        self.held[number] = None

    def begin(self, FrameColumns out):
        """Begin a batch."""
        out.count = 0
        self.used = 0
        self.has_order = self.big_endian = False

    def fill(self, FrameColumns out, uint16_t[::1] origins):
        """Append frames to a batch.

        Parameters
        ----------
        out : FrameColumns
            Frame numbers are left alone.
        origins : ndarray of uint16, shape (out.capacity,)
            Filled with the number of the input of each frame.

        Returns
        -------
        int
            Number of an input that must be loaded, or finished, before it goes on; FULL; NEEDS_ROOM where the batch's
            bytes do not hold even one frame; ENDED once all inputs are finished.
        """
        cdef Py_ssize_t result
        if origins.shape[0] < out.capacity:
            raise ValueError(f"{origins.shape[0]} origins for {out.capacity} rows")
        with nogil:
            result = self.run(out, &origins[0])
        return result

    cdef Py_ssize_t run(self, FrameColumns out, uint16_t *origins) noexcept nogil:
        cdef Py_ssize_t number
        while True:
            if not self.copy(out, origins):
                return NO_ROW if out.count else NO_ROOM
            while self.waiting_count:
                number = self.waiting[self.waiting_count - 1]
                if self.cursors[number].row < self.cursors[number].end:
                    self.rise(number)
                elif not self.cursors[number].finished:
                    return number
                self.waiting_count -= 1
            if self.heap_count == 0:
                return AT_END
            self.picked = self.taken = 0
            self.pick(min(<Py_ssize_t> PICKS, max(out.capacity - out.count, 1)))

    cdef void pick(self, Py_ssize_t most) noexcept nogil:
        """Pick the inputs of so many frames at most, until one has no more at hand."""
        cdef Py_ssize_t number
        cdef int64_t bound_ns
        cdef Cursor *one
        while self.picked < most and not self.waiting_count:
            if self.heap_count == 2:
                self.pick_of_two(most)
                if self.picked == most:
                    return
            number = self.heap[0].number
            one = &self.cursors[number]
            bound_ns = INT64_MAX
            if self.heap_count > 1:
                bound_ns = self.heap[1].key_ns
            if self.heap_count > 2:
                bound_ns = min(bound_ns, self.heap[2].key_ns)
            while True:
                self.picks[self.picked] = <uint16_t> number
                self.picked += 1
                one.row += 1
                if one.row == one.end or self.picked == most or one.key_ns[one.row] >= bound_ns:
                    break
            if one.row == one.end:
                self.waiting[0] = number
                self.waiting_count = 1
                self.heap_count -= 1
                self.heap[0] = self.heap[self.heap_count]
            else:
                self.heap[0].key_ns = one.key_ns[one.row]
            if self.heap_count:
                self.sink()

    cdef void pick_of_two(self, Py_ssize_t most) noexcept nogil:
        """Pick from two inputs while both have more than a frame at hand and times differ."""
        cdef Py_ssize_t a = self.heap[0].number, b = self.heap[1].number
        cdef Cursor *one = &self.cursors[a]
        cdef Cursor *other = &self.cursors[b]
        cdef uint16_t pair[2]
        cdef const int64_t *one_ns = one.key_ns + one.row
        cdef const int64_t *other_ns = other.key_ns + other.row
        cdef Py_ssize_t at = self.picked, stop, i = 0, j = 0
        cdef Py_ssize_t one_left = one.end - one.row - 1, other_left = other.end - other.row - 1
        cdef bint later, equal = False
        pair[0] = <uint16_t> a
        pair[1] = <uint16_t> b
        while not equal:
            stop = at + min(most - at, min(one_left - i, other_left - j))
            if stop <= at:
                break
            while at < stop:
                if one_ns[i] == other_ns[j]:
                    equal = True
                    break
                later = other_ns[j] < one_ns[i]
                self.picks[at] = pair[later]
                at += 1
                i += not later
                j += later
        self.picked = at
        one.row += i
        other.row += j
        self.heap[0].key_ns = one.key_ns[one.row]
        self.heap[1].key_ns = other.key_ns[other.row]
        if self.before(&self.heap[1], &self.heap[0]):
            self.heap[0], self.heap[1] = self.heap[1], self.heap[0]

    cdef bint copy(self, FrameColumns out, uint16_t *origins) noexcept nogil:
        """Append the frames that were picked to a batch; False where one has no place in it."""
        cdef Py_ssize_t row, into = out.count, used = self.used, room = out.data_length, at = self.taken, occupied
        cdef Py_ssize_t stop = min(self.picked, at + out.capacity - into)
        cdef bint has_options = self.has_options
        cdef uint32_t captured, options
        cdef Cursor *one
        while at < stop:
            one = &self.cursors[self.picks[at]]
            row = one.copied
            captured = one.captured_length[row]
            occupied = captured
            options = 0
            if has_options:
                options = one.options_length[row]
                if options and (one.options_offset[row] < 0
                                or one.options_offset[row] > one.data_length - <int64_t> options):
                    options = 0
                if options and self.has_order and one.big_endian != self.big_endian:
                    break
                occupied += options
            if occupied > room - used:
                self.needed = occupied
                break
            memcpy(out.data + used, one.data + one.offset[row], captured)
            out.timestamp_ns[into] = one.timestamp_ns[row]
            out.timestamp_source[into] = one.timestamp_source[row]
            out.wire_length[into] = one.wire_length[row]
            out.captured_length[into] = captured
            out.interface[into] = one.interfaces[one.interface[row]]
            out.offset[into] = used
            if has_options:
                out.flags[into] = one.flags[row]
                out.queue[into] = one.queue[row]
                out.drop_count[into] = one.drop_count[row]
                out.options_offset[into] = used + captured
                out.options_length[into] = options
                if options:
                    memcpy(out.data + used + captured, one.data + one.options_offset[row], options)
                    self.big_endian = one.big_endian
                    self.has_order = True
            origins[into] = self.picks[at]
            one.copied = row + 1
            used += occupied
            into += 1
            at += 1
        self.used = used
        out.count = into
        self.taken = at
        return at == self.picked

    cdef inline bint before(self, const Head *a, const Head *b) noexcept nogil:
        """Whether the frame at hand of one input goes before that of another."""
        if a.key_ns != b.key_ns:
            return a.key_ns < b.key_ns
        return self.equal_goes_before(a.number, b.number)

    cdef bint equal_goes_before(self, Py_ssize_t a, Py_ssize_t b) noexcept nogil:
        """Whether the first of two frames of one time goes first; of frames that are alike, that of the first input."""
        cdef Equal one = self.at_hand(a), other = self.at_hand(b)
        cdef int order = order_of_equals(&one, &other)
        return order < 0 or (order == 0 and a < b)

    cdef Equal at_hand(self, Py_ssize_t number) noexcept nogil:
        cdef const Cursor *one = &self.cursors[number]
        cdef Py_ssize_t row = one.row
        return Equal(one.interfaces[one.interface[row]], one.flags[row], one.data + one.offset[row],
                     one.captured_length[row], one.wire_length[row])

    cdef void sink(self) noexcept nogil:
        """Let the input at the top go where it belongs."""
        cdef Py_ssize_t at = 0, below
        cdef Head head = self.heap[0]
        while True:
            below = 2 * at + 1
            if below >= self.heap_count:
                break
            if below + 1 < self.heap_count and self.before(&self.heap[below + 1], &self.heap[below]):
                below += 1
            if not self.before(&self.heap[below], &head):
                break
            self.heap[at] = self.heap[below]
            at = below
        self.heap[at] = head

    cdef void rise(self, Py_ssize_t number) noexcept nogil:
        """Take in an input whose frame at hand is known."""
        cdef Py_ssize_t at = self.heap_count, above
        cdef Head head = Head(self.cursors[number].key_ns[self.cursors[number].row], number)
        self.heap_count += 1
        while at > 0:
            above = (at - 1) // 2
            if not self.before(&head, &self.heap[above]):
                break
            self.heap[at] = self.heap[above]
            at = above
        self.heap[at] = head
