"""Putting frames in order of time: which timestamps are to be trusted, and a sort within a window.

A. A chain is one input, or several that follow each other in time. Of each frame with a timestamp it is decided whether
   time goes on with it, by how far it lies from `now`, the latest time so far. Within the window of `now`, on either
   side, it does. Else the AHEAD frames after it say what it is:
     far behind: an outlier where one of the next RUN frames jumps back to where time had been, as do most of those that
     are looked at; undetermined where the chain ends within RUN frames; else the clock stepped back, and time goes on
     from there;
     far ahead: an outlier where one of the next RUN frames, and most of those that are looked at, lie between `now`
     and it; else a gap.
   Of the first frame of a chain, those after it say alone: where most of them lie far behind it, it is undetermined;
   where it lies in the years before a clock is set and most do not, it is an outlier. Once the clock was set, and in a
   chain of which that is known from the start, every timestamp of those years is an outlier, however many there are.
B. A timestamp that is not trusted keeps its value, and its source gets the bit UNTRUSTED: such a frame has no time
   anywhere. It stays where it lies, behind the frame before it, and so does a frame without a timestamp.
C. Frames lie in a few runs, each in order, and what fits behind none of them in a heap, until nothing that comes can go
   before them: what is to come within the window is not older than `now` less the window. Over `most_frames` or
   `most_bytes` the oldest goes anyway; what comes too late then goes at once, and counts as beyond the window. Nothing
   is sorted across a step.
D. Where the clock stepped back, and soon, within less than the step, a jump forward leads where time would have been
   without it, it was no step: the frames between came late, and count as beyond the window.
E. Frames lie in a circle, in the order in which they came, their bytes in another. A frame's bytes lie in one piece.
"""

from libc.stdint cimport INT64_MAX, INT64_MIN, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy

from uspcap._core.columns cimport FrameColumns
from uspcap._core.saturating cimport clamped, difference, saturating_add
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP, UNTRUSTED

cdef enum:
    RUN = 16
    AHEAD = 2 * RUN
    LOOKED_AT = 4096        # frames, without timestamps or not
    LISTED = 100
    FEWEST_OF_REST = 8
    NOWHERE = -1

# 1980: what is older was timestamped by a clock that nobody had set.
cdef int64_t CLOCK_SET_NS = <int64_t> 3652 * 86400 * 1_000_000_000
cdef int64_t LONG_NS = 1_000_000_000

LONGEST_RUN = RUN
"""Frames in a row whose timestamps may be wrong and that are outliers still."""

MOST_LISTED = LISTED
"""Outliers, and steps, of a chain that are kept one by one."""


def first_fall(FrameColumns frames, int64_t last_ns):
    """Return the latest time after a batch whose times never fall, and how many there are; None where they do.

    Parameters
    ----------
    frames : FrameColumns
    last_ns : int
        The time before the batch.
    """
    cdef Py_ssize_t row, count = frames.count
    cdef const int64_t *times = frames.timestamp_ns
    cdef const uint8_t *sources = frames.timestamp_source
    cdef bint falls = False
    cdef int odd = 0
    cdef Py_ssize_t timestamped = count
    if count == 0:
        return last_ns, 0
    with nogil:
        # Without a branch a frame, while there is nothing to see.
        odd = (times[0] < last_ns) | (sources[0] >= NO_TIMESTAMP)
        for row in range(1, count):
            odd |= (times[row] < times[row - 1]) | (sources[row] >= NO_TIMESTAMP)
        if not odd:
            last_ns = times[count - 1]
            count = 0
        else:
            timestamped = 0
        for row in range(count):
            if frames.timestamp_source[row] < NO_TIMESTAMP:
                if frames.timestamp_ns[row] < last_ns:
                    falls = True
                    break
                last_ns = frames.timestamp_ns[row]
                timestamped += 1
    return None if falls else (last_ns, timestamped)


cdef inline bint goes_before(const Entry *a, const Entry *b) noexcept nogil:
    if a.epoch != b.epoch:
        return a.epoch < b.epoch
    if a.key_ns != b.key_ns:
        return a.key_ns < b.key_ns
    return a.place < b.place


cdef class Chain:
    """One input, or several that follow each other: its frames go in as they come, and out in order.

    Parameters
    ----------
    window_ns : int
        How far a frame may lie behind others, or ahead of them.
    most_frames, most_bytes : int
        Held at a time.
    keeps_frames : bool
        False only looks at times, and gives nothing.
    clock_is_set : bool
        Some timestamps are known to be of a clock that was set: those of 1970 to 1979 are outliers from the start on.
    awaits_clock : bool
        Whether there are such is not known before, as of a pipe: where the first are of 1970 to 1979, wait for them.

    Attributes
    ----------
    saw_set_clock : bool
        More timestamps so far are of 1980 or later than outliers in a row may be.
    frames, timestamped, sorted, beyond_window, outlier_count, unset_count, step_count : int
        `unset_count` are the outliers of the years before a clock is set.
    outliers : list of tuple
        Frame number, timestamp, where time was, whether that is sure, and frames: outliers with one timestamp that
        follow each other directly are listed as one, and so are those of years before a clock is set.
    steps : list of tuple
        Frame numbers before and after, times before and after.
    """

    def __cinit__(self, *, int64_t window_ns, int64_t most_frames, int64_t most_bytes, bint keeps_frames=True,
                  bint clock_is_set=False, bint awaits_clock=False):
        cdef int run
        if window_ns < 0 or most_frames < 1 or most_bytes < 1:
            raise ValueError("a window is not negative, and holds a frame at least")
        self.window_ns = clamped(window_ns)
        self.most_frames = most_frames
        self.most_bytes = most_bytes
        self.keeps_frames = keeps_frames
        self.clock_is_set = clock_is_set
        self.awaits_clock = awaits_clock
        self.outliers = []
        self.steps = []
        self.room = 256
        self.held = <Held *> malloc(self.room * sizeof(Held))
        self.heap_room = 64
        self.heap = <Entry *> malloc(self.heap_room * sizeof(Entry))
        self.arena_room = 1 << 15 if keeps_frames else 64
        self.arena = <uint8_t *> malloc(self.arena_room)
        if self.held == NULL or self.heap == NULL or self.arena == NULL:
            raise MemoryError
        self.last_key_ns = INT64_MIN
        self.floor_ns = INT64_MIN
        self.earliest_ns = INT64_MAX
        self.latest_ns = INT64_MIN
        self.head_gap_ns = INT64_MIN
        for run in range(RUNS):
            self.run_first[run] = self.run_last[run] = NOWHERE

    def __dealloc__(self):
        free(self.held)
        free(self.heap)
        free(self.arena)

    def push(self, FrameColumns batch, const uint16_t[::1] interfaces, int64_t number_shift, bint big_endian=False,
             int only_interface=-1):
        """Take in a batch.

        Parameters
        ----------
        batch : FrameColumns
        interfaces : ndarray of uint16
            Number that each interface of the batch gets.
        number_shift : int
            Added to frame numbers.
        big_endian : bool
            Byte order of the frames' options.
        only_interface : int
            Number in the batch of the interface whose frames are taken; -1 for all.
        """
        cdef Py_ssize_t row
        cdef int bad = 0
        if self.finished:
            raise ValueError("the chain has ended")
        with nogil:
            for row in range(batch.count):
                if only_interface >= 0 and batch.interface[row] != only_interface:
                    continue
                if batch.interface[row] >= interfaces.shape[0] or batch.offset[row] < 0 or (
                        batch.offset[row] > batch.data_length - <int64_t> batch.captured_length[row]):
                    bad = 1
                    break
                self.take(batch, row, interfaces[batch.interface[row]], number_shift, big_endian)
                if self.failed:
                    break
                # However many come at a time, so many are looked at, and no more.
                if self.awaits_clock and not self.has_now and self.end - self.next_verdict == LOOKED_AT:
                    self.decide()
            if not self.failed:
                self.decide()
        if bad:
            raise ValueError("a row of the batch points outside it")
        if self.failed:
            raise MemoryError

    def finish(self):
        """Know that nothing more comes."""
        if not self.finished:
            self.finished = True
            with nogil:
                self.decide()

    @property
    def saw_set_clock(self):
        """Whether more frames had a timestamp of 1980 or later than a run of outliers has."""
        return self.set_frames > RUN

    @property
    def held_frames(self):
        """Frames in here."""
        return self.ready + self.end - self.next_verdict

    @property
    def extent(self):
        """Earliest and latest trusted time, and both without what lies beyond a gap from a few frames at either end.

        None where there is no trusted time.
        """
        cdef bint few_first = self.head_gap_ns != INT64_MIN and 2 * self.head_frames < self.trusted
        cdef bint few_last = self.gap_frame and self.since_gap <= RUN and 2 * self.since_gap < self.trusted
        if not self.trusted:
            return None
        return (
            self.earliest_ns,
            self.latest_ns,
            self.head_gap_ns if few_first else self.earliest_ns,
            self.gap_from_ns if few_last else self.latest_ns,
        )

    @property
    def doubtful_start(self):
        """The first frames, where a jump longer than all that follows comes after a few: as `doubtful_end`."""
        cdef int64_t jump = difference(self.head_gap_ns, self.head_gap_from_ns), after = self.trusted - self.head_frames
        if (self.head_gap_ns == INT64_MIN or after < FEWEST_OF_REST or after < 4 * self.head_frames or jump <= LONG_NS
                or self.step_count or jump <= difference(self.latest_ns, self.head_gap_ns)):
            return None
        return self.first_frame, self.head_gap_from_ns, self.head_gap_ns, self.head_frames

    @property
    def doubtful_end(self):
        """The last frames' jump forward where it is longer than all before: frame, timestamp, time before, frames."""
        cdef int64_t jump = difference(self.gap_to_ns, self.gap_from_ns), before = self.trusted - self.since_gap
        if (not self.gap_frame or self.since_gap > RUN or before < FEWEST_OF_REST or before < 4 * self.since_gap
                or jump <= LONG_NS or self.step_count or jump <= difference(self.gap_from_ns, self.earliest_ns)):
            return None
        return self.gap_frame, self.gap_to_ns, self.gap_from_ns, self.since_gap

    cdef void take(self, FrameColumns batch, Py_ssize_t row, uint16_t interface, int64_t number_shift,
                   bint big_endian) noexcept nogil:
        cdef Held *one
        cdef uint32_t captured = batch.captured_length[row] if self.keeps_frames else 0
        cdef uint32_t options = batch.options_length[row] if self.keeps_frames else 0
        cdef Py_ssize_t start
        if options and (batch.options_offset[row] < 0
                        or batch.options_offset[row] > batch.data_length - <int64_t> options):
            options = 0
        self.forget_given()
        if self.end - self.first == self.room and not self.grow():
            self.failed = True
            return
        start = self.place_bytes(<Py_ssize_t> captured + options + 1)
        if start < 0:
            self.failed = True
            return
        one = &self.held[self.end & (self.room - 1)]
        one.timestamp_ns = clamped(batch.timestamp_ns[row])
        one.frame_number = batch.frame_number[row] + number_shift
        one.drop_count = batch.drop_count[row]
        one.start = start
        one.occupied = <Py_ssize_t> captured + options + 1
        one.wire_length = batch.wire_length[row]
        one.captured_length = captured
        one.options_length = options
        one.flags = batch.flags[row]
        one.queue = batch.queue[row]
        one.interface = interface
        one.source = batch.timestamp_source[row]
        one.big_endian = big_endian
        one.given = False
        memcpy(self.arena + start, batch.data + batch.offset[row], captured)
        if options:
            memcpy(self.arena + start + captured, batch.data + batch.options_offset[row], options)
        self.arena_end = start + one.occupied
        one.bytes_before = self.bytes_taken
        self.bytes_taken += one.occupied
        self.end += 1
        self.frames += 1
        if one.source < NO_TIMESTAMP:
            self.timestamped += 1
            self.count_waiting(one, 1)
            self.set_frames += one.timestamp_ns >= CLOCK_SET_NS

    cdef void count_waiting(self, const Held *one, int many) noexcept nogil:
        if one.timestamp_ns < CLOCK_SET_NS:
            self.unset_waiting += many
        else:
            self.set_waiting += many

    cdef bint is_set(self) noexcept nogil:
        """Whether timestamps of the years before a clock is set are none."""
        return self.clock_is_set or self.has_now and self.now_ns >= CLOCK_SET_NS

    cdef bint may_count(self, const Held *one) noexcept nogil:
        """Whether a frame that waits has a timestamp that may say where time goes on."""
        return one.source < NO_TIMESTAMP and not (one.timestamp_ns < CLOCK_SET_NS and self.is_set())

    cdef void forget_given(self) noexcept nogil:
        while self.first < self.next_verdict and self.held[self.first & (self.room - 1)].given:
            self.first += 1

    cdef bint grow(self) noexcept nogil:
        cdef Held *larger = <Held *> malloc(2 * self.room * sizeof(Held))
        cdef int64_t place
        if larger == NULL:
            return False
        for place in range(self.first, self.end):
            larger[place & (2 * self.room - 1)] = self.held[place & (self.room - 1)]
        free(self.held)
        self.held = larger
        self.room *= 2
        return True

    cdef Py_ssize_t place_bytes(self, Py_ssize_t length) noexcept nogil:
        """Return where so many bytes, at least one, can go; -1 where there is no memory."""
        cdef Py_ssize_t begin
        cdef Py_ssize_t moved, wanted
        cdef int64_t place
        cdef uint8_t *larger
        cdef Held *one
        if self.first == self.end:
            begin = self.arena_end = 0
            if length <= self.arena_room:
                return 0
        else:
            begin = self.held[self.first & (self.room - 1)].start
            if self.arena_end > begin:
                if length <= self.arena_room - self.arena_end:
                    return self.arena_end
                if length <= begin:
                    return 0
            elif length <= begin - self.arena_end:
                return self.arena_end
        wanted = 2 * self.arena_room
        while wanted < self.arena_room + length:
            wanted *= 2
        larger = <uint8_t *> malloc(wanted)
        if larger == NULL:
            return -1
        moved = 0
        for place in range(self.first, self.end):
            one = &self.held[place & (self.room - 1)]
            memcpy(larger + moved, self.arena + one.start, one.occupied)
            one.start = moved
            moved += one.occupied
        free(self.arena)
        self.arena = larger
        self.arena_room = wanted
        self.arena_end = moved
        return moved

    cdef void decide(self) noexcept nogil:
        """Give all frames a verdict of which it can be given now."""
        cdef Held *one
        cdef int64_t place, distance_ns
        cdef Verdict verdict
        while self.next_verdict < self.end and not self.failed:
            place = self.next_verdict
            one = &self.held[place & (self.room - 1)]
            if one.source >= NO_TIMESTAMP:
                self.enter(one, place, self.last_key_ns)
                continue
            distance_ns = difference(one.timestamp_ns, self.now_ns)
            if self.awaits_clock and not self.has_now and one.timestamp_ns < CLOCK_SET_NS:
                if self.set_waiting > RUN:
                    self.clock_is_set = True
                elif not self.finished and self.end - place < LOOKED_AT:
                    return
            if not self.may_count(one):
                verdict = OUTLIER
            elif self.has_now and -self.window_ns <= distance_ns <= self.window_ns:
                verdict = TRUSTED
            elif (not self.finished and self.set_waiting + (0 if self.is_set() else self.unset_waiting) <= AHEAD
                    and self.end - place < LOOKED_AT):
                return
            elif not self.has_now:
                verdict = self.first_verdict(place, one.timestamp_ns)
            elif distance_ns > 0:
                verdict = self.ahead_verdict(place, one.timestamp_ns)
            else:
                verdict = self.behind_verdict(place, one.timestamp_ns)
            if verdict == OUTLIER or verdict == UNDETERMINED:
                self.note_outlier(one, verdict == OUTLIER)
                one.source |= UNTRUSTED
                self.count_waiting(one, -1)
                self.enter(one, place, self.last_key_ns)
                continue
            self.count_waiting(one, -1)
            self.go_on(one, verdict, distance_ns)
            self.raise_floor(place)
            if one.timestamp_ns < self.floor_ns:
                self.beyond_window += 1
                self.enter(one, place, self.floor_ns)
            else:
                self.enter(one, place, one.timestamp_ns)

    cdef void raise_floor(self, int64_t place) noexcept nogil:
        """Give up on what would go before frames that too many, or too many bytes, came after."""
        cdef Held *one
        cdef int64_t bytes_before = self.held[place & (self.room - 1)].bytes_before
        self.floor_place = max(self.floor_place, self.first)
        while self.floor_place < place:
            one = &self.held[self.floor_place & (self.room - 1)]
            if place - self.floor_place < self.most_frames and bytes_before - one.bytes_before < self.most_bytes:
                break
            # What was given lies before all that is to come anyhow.
            if not one.given and one.epoch == self.epoch and one.key_ns > self.floor_ns:
                self.floor_ns = one.key_ns
            self.floor_place += 1

    cdef void go_on(self, Held *one, Verdict verdict, int64_t distance_ns) noexcept nogil:
        """Let time go on with a trusted frame."""
        cdef int64_t back_ns, passed_ns
        self.trusted += 1
        if self.trusted == 1:
            self.first_frame = one.frame_number
        self.since_gap += 1
        self.since_step += 1
        if verdict == STEP:
            self.step_from_ns = self.now_ns
            self.step_to_ns = one.timestamp_ns
            self.has_step = True
            self.since_step = 1
            self.step_count += 1
            if self.step_count <= LISTED:
                self.note_step(one)
            self.epoch += 1
            self.floor_ns = INT64_MIN
            self.now_ns = one.timestamp_ns
            self.now_frame = one.frame_number
        elif not self.has_now or distance_ns >= 0:
            if verdict == GAP and self.has_now:
                if self.has_step:
                    back_ns = difference(one.timestamp_ns, self.step_from_ns)
                    passed_ns = difference(self.now_ns, self.step_to_ns)
                    if (-self.window_ns <= back_ns <= saturating_add(self.window_ns, saturating_add(passed_ns, passed_ns))
                            and passed_ns <= difference(self.step_from_ns, self.step_to_ns)):
                        self.beyond_window += self.since_step - 1
                        self.step_count -= 1
                        self.has_step = False
                        self.forget_step()
                if self.trusted - 1 <= RUN and self.head_gap_ns == INT64_MIN:
                    self.head_gap_ns = one.timestamp_ns
                    self.head_gap_from_ns = self.now_ns
                    self.head_frames = self.trusted - 1
                self.gap_from_ns = self.now_ns
                self.gap_to_ns = one.timestamp_ns
                self.gap_frame = one.frame_number
                self.since_gap = 1
            self.has_now = True
            self.now_ns = one.timestamp_ns
            self.now_frame = one.frame_number
        else:
            self.sorted += 1
            if -distance_ns > self.furthest_ns:
                self.furthest_ns = -distance_ns
        if one.timestamp_ns < self.earliest_ns:
            self.earliest_ns = one.timestamp_ns
        if one.timestamp_ns > self.latest_ns:
            self.latest_ns = one.timestamp_ns

    cdef void note_outlier(self, Held *one, bint sure) noexcept nogil:
        cdef bint alike = one.timestamp_ns == self.outlier_ns or max(one.timestamp_ns, self.outlier_ns) < CLOCK_SET_NS
        cdef bint goes_on = (self.outlier_runs > 0 and alike and sure == self.outlier_sure
                             and one.frame_number - 1 == self.outlier_frame)
        self.outlier_count += 1
        self.unset_count += one.timestamp_ns < CLOCK_SET_NS
        self.outlier_runs += not goes_on
        self.outlier_frame, self.outlier_ns, self.outlier_sure = one.frame_number, one.timestamp_ns, sure
        if self.outlier_runs <= LISTED:
            with gil:
                if goes_on:
                    *listed, frames = self.outliers.pop()
                    self.outliers.append((*listed, frames + 1))
                else:
                    self.outliers.append(
                        (one.frame_number, one.timestamp_ns, self.now_ns if self.has_now else None, sure, 1)
                    )

    cdef void note_step(self, Held *one) noexcept nogil:
        with gil:
            self.steps.append((self.now_frame, one.frame_number, self.now_ns, one.timestamp_ns))

    cdef void forget_step(self) noexcept nogil:
        if self.step_count < LISTED:
            with gil:
                self.steps.pop()

    cdef Verdict first_verdict(self, int64_t place, int64_t ns) noexcept nogil:
        cdef int64_t behind = 0, others = 0, set_since = 0, seen = 0, other_ns
        cdef int64_t at = place + 1
        while at < self.end and at < place + LOOKED_AT and seen < AHEAD:
            if self.may_count(&self.held[at & (self.room - 1)]):
                seen += 1
                other_ns = self.held[at & (self.room - 1)].timestamp_ns
                set_since += other_ns >= CLOCK_SET_NS
                if difference(other_ns, ns) < -self.window_ns:
                    behind += 1
                else:
                    others += 1
            at += 1
        if ns < CLOCK_SET_NS and 2 * set_since > seen:
            return OUTLIER
        return UNDETERMINED if behind > others else GAP

    cdef Verdict ahead_verdict(self, int64_t place, int64_t ns) noexcept nogil:
        cdef int64_t back = 0, off = 0, seen = 0, returned = 0, other_ns
        cdef int64_t at = place + 1
        while at < self.end and at < place + LOOKED_AT and seen < AHEAD:
            if self.may_count(&self.held[at & (self.room - 1)]):
                seen += 1
                other_ns = self.held[at & (self.room - 1)].timestamp_ns
                if difference(other_ns, ns) >= -self.window_ns:
                    off += 1
                elif difference(other_ns, self.now_ns) >= -self.window_ns:
                    back += 1
                    if not returned:
                        returned = seen
            at += 1
        return OUTLIER if 0 < returned <= RUN and back > off else GAP

    cdef Verdict behind_verdict(self, int64_t place, int64_t ns) noexcept nogil:
        cdef int64_t back = 0, off = 0, seen = 0, returned = 0, other_ns, before_ns = ns
        cdef bint jumped = False
        cdef int64_t at = place + 1
        while at < self.end and at < place + LOOKED_AT and seen < AHEAD:
            if self.may_count(&self.held[at & (self.room - 1)]):
                seen += 1
                other_ns = self.held[at & (self.room - 1)].timestamp_ns
                if difference(other_ns, self.now_ns) >= -self.window_ns:
                    back += 1
                    if not returned:
                        returned = seen
                        jumped = difference(other_ns, before_ns) > self.window_ns
                else:
                    off += 1
                before_ns = other_ns
            at += 1
        if 0 < returned <= RUN and jumped and (seen < AHEAD or back > off):
            return OUTLIER
        return UNDETERMINED if not returned and seen < RUN else STEP

    cdef void enter(self, Held *one, int64_t place, int64_t key_ns) noexcept nogil:
        """Put a frame that has its verdict where it waits for its turn."""
        cdef Entry entry
        cdef Entry *larger
        cdef Held *last
        cdef Py_ssize_t at = <Py_ssize_t> self.in_heap, above
        cdef int run
        self.next_verdict += 1
        self.last_key_ns = key_ns
        if not self.keeps_frames:
            one.given = True
            return
        one.key_ns = key_ns
        one.epoch = self.epoch
        one.next = NOWHERE
        self.ready += 1
        for run in range(RUNS):
            if self.run_last[run] == NOWHERE:
                self.run_first[run] = self.run_last[run] = place
                return
            last = &self.held[self.run_last[run] & (self.room - 1)]
            if last.epoch < one.epoch or last.key_ns <= key_ns:
                last.next = place
                self.run_last[run] = place
                return
        if at == self.heap_room:
            larger = <Entry *> realloc(self.heap, 2 * self.heap_room * sizeof(Entry))
            if larger == NULL:
                self.failed = True
                return
            self.heap = larger
            self.heap_room *= 2
        entry = Entry(key_ns, self.epoch, place)
        while at > 0:
            above = (at - 1) // 2
            if not goes_before(&entry, &self.heap[above]):
                break
            self.heap[at] = self.heap[above]
            at = above
        self.heap[at] = entry
        self.in_heap += 1

    cdef void remove_head(self) noexcept nogil:
        """Take the top out of the heap."""
        cdef Entry entry
        cdef Py_ssize_t at = 0, below
        self.in_heap -= 1
        entry = self.heap[self.in_heap]
        while True:
            below = 2 * at + 1
            if below >= self.in_heap:
                break
            if below + 1 < self.in_heap and goes_before(&self.heap[below + 1], &self.heap[below]):
                below += 1
            if not goes_before(&self.heap[below], &entry):
                break
            self.heap[at] = self.heap[below]
            at = below
        self.heap[at] = entry

    cdef Held *head(self) noexcept nogil:
        """Return the frame that goes next, NULL where that is not known yet."""
        cdef Entry top, entry
        cdef Held *one
        cdef int run
        cdef bint found = False
        if self.ready == 0:
            return NULL
        self.head_run = NOWHERE
        top = Entry(0, 0, 0)
        if self.in_heap:
            top = self.heap[0]
            found = True
        for run in range(RUNS):
            if self.run_first[run] != NOWHERE:
                one = &self.held[self.run_first[run] & (self.room - 1)]
                entry = Entry(one.key_ns, one.epoch, self.run_first[run])
                if not found or goes_before(&entry, &top):
                    top = entry
                    found = True
                    self.head_run = run
        if not found:
            return NULL
        if (self.finished and self.next_verdict == self.end) or top.epoch < self.epoch or (
                self.has_now and top.key_ns < self.now_ns - self.window_ns) or top.key_ns <= self.floor_ns:
            return &self.held[top.place & (self.room - 1)]
        return NULL

    cdef void give_head(self, Held *one) noexcept nogil:
        """Remove what `head` has returned."""
        one.given = True
        self.ready -= 1
        if self.head_run == NOWHERE:
            self.remove_head()
        else:
            self.run_first[self.head_run] = one.next
            if one.next == NOWHERE:
                self.run_last[self.head_run] = NOWHERE
        self.forget_given()

    cdef const uint8_t *bytes_of(self, const Held *one) noexcept nogil:
        return self.arena + one.start
