"""What a chain is, for those that take frames out of it; ordering.pyx says how it works."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from uspcap._core.columns cimport FrameColumns

cdef enum:
    RUNS = 4

cdef enum Verdict:
    TRUSTED, OUTLIER, UNDETERMINED, STEP, GAP

cdef struct Held:
    int64_t key_ns          # where it goes among others
    int64_t timestamp_ns
    int64_t frame_number
    int64_t epoch           # steps before it
    uint64_t drop_count
    Py_ssize_t start
    Py_ssize_t occupied
    int64_t bytes_before
    int64_t next            # place of the frame behind it in its run
    uint32_t wire_length
    uint32_t captured_length
    uint32_t options_length
    uint32_t flags
    uint32_t queue
    uint16_t interface
    uint8_t source
    uint8_t big_endian
    uint8_t given

cdef struct Entry:
    int64_t key_ns
    int64_t epoch
    int64_t place


cdef class Chain:
    cdef readonly int64_t frames
    cdef readonly int64_t timestamped
    cdef readonly int64_t sorted
    cdef readonly int64_t furthest_ns
    cdef readonly int64_t beyond_window
    cdef readonly int64_t outlier_count
    cdef readonly int64_t unset_count
    cdef readonly int64_t step_count
    cdef readonly list outliers
    cdef readonly list steps
    cdef readonly bint finished
    cdef int64_t set_frames         # with a timestamp of 1980 or later
    cdef bint clock_is_set, awaits_clock
    cdef int64_t window_ns
    cdef int64_t most_frames
    cdef int64_t most_bytes
    cdef bint keeps_frames
    cdef bint failed

    cdef Held *held
    cdef Py_ssize_t room            # of `held`, a power of two
    cdef int64_t first              # place of the oldest frame held
    cdef int64_t next_verdict       # place of the first frame without a verdict
    cdef int64_t end                # place of the next frame to come
    cdef int64_t set_waiting        # frames from `next_verdict` on with a timestamp of a clock that was set
    cdef int64_t unset_waiting      # and with one of the years before
    cdef int64_t ready              # frames with a verdict
    cdef int64_t run_first[RUNS]    # places, NOWHERE where a run is empty
    cdef int64_t run_last[RUNS]
    cdef int head_run               # of the last `head`, NOWHERE for the heap
    cdef int64_t in_heap
    cdef Entry *heap
    cdef Py_ssize_t heap_room
    cdef uint8_t *arena
    cdef Py_ssize_t arena_room
    cdef Py_ssize_t arena_end

    # The last outlier, and how many runs of them there were.
    cdef int64_t outlier_runs, outlier_frame, outlier_ns
    cdef bint outlier_sure

    cdef bint has_now
    cdef int64_t now_ns, now_frame
    cdef int64_t last_key_ns
    cdef int64_t epoch
    # Nothing goes before `floor_ns` any more: the latest time of frames that as many came after as are held.
    cdef int64_t floor_ns, floor_place, bytes_taken
    # Extremes of trusted times; the last gap, and what came before and after it.
    cdef int64_t earliest_ns, latest_ns
    cdef int64_t trusted
    cdef int64_t gap_from_ns, gap_to_ns, gap_frame, since_gap
    cdef int64_t head_gap_ns, head_gap_from_ns, head_frames, first_frame
    # The last step, and what came since.
    cdef bint has_step
    cdef int64_t step_from_ns, step_to_ns, since_step

    cdef void take(self, FrameColumns batch, Py_ssize_t row, uint16_t interface, int64_t number_shift,
                   bint big_endian) noexcept nogil
    cdef void count_waiting(self, const Held *one, int many) noexcept nogil
    cdef bint is_set(self) noexcept nogil
    cdef bint may_count(self, const Held *one) noexcept nogil
    cdef void forget_given(self) noexcept nogil
    cdef bint grow(self) noexcept nogil
    cdef Py_ssize_t place_bytes(self, Py_ssize_t length) noexcept nogil
    cdef void decide(self) noexcept nogil
    cdef void raise_floor(self, int64_t place) noexcept nogil
    cdef void go_on(self, Held *one, Verdict verdict, int64_t distance_ns) noexcept nogil
    cdef void note_outlier(self, Held *one, bint sure) noexcept nogil
    cdef void note_step(self, Held *one) noexcept nogil
    cdef void forget_step(self) noexcept nogil
    cdef Verdict first_verdict(self, int64_t place, int64_t ns) noexcept nogil
    cdef Verdict ahead_verdict(self, int64_t place, int64_t ns) noexcept nogil
    cdef Verdict behind_verdict(self, int64_t place, int64_t ns) noexcept nogil
    cdef void enter(self, Held *one, int64_t place, int64_t key_ns) noexcept nogil
    cdef void remove_head(self) noexcept nogil
    cdef Held *head(self) noexcept nogil
    cdef void give_head(self, Held *one) noexcept nogil
    cdef const uint8_t *bytes_of(self, const Held *one) noexcept nogil
