"""What runs of requests and responses come to: counts, histograms and lists, each by class of the run's key.

A. Everything is kept by class (`request_runs`, E), so that classes that a bound left out later can be left out of all
   of it. Lists keep the first rows of each class by rank, whatever order they come in; so the first of the classes that
   count are among them.
B. Times of different timestamp sources are not subtracted; what is negative is in no histogram. Both are counted.
C. Sums take 128 bits, in two words.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memset

import numpy as np

from uspcap._core.records cimport copied, dtype_of
from uspcap._core.saturating cimport add_wide, difference
from uspcap._core.states cimport (
    Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacked_new, unpacking,
)
from uspcap.analysis.requests.request_runs cimport (
    CLASSES, MAXIMUM_REPLIES, SOURCES, Reply, Run, Runs, class_of, replies_of, shift_frames,
)
from uspcap.stats.buckets cimport Cells, index_of

cdef enum:
    ANSWERED = 0            # runs with requests and, after the first, a response
    UNANSWERED
    UNSOLICITED             # responses of runs without a request
    REPEATED                # requests after the first of a run
    FURTHER                 # responses after the first that answers
    SEVERAL                 # runs with such
    ACROSS_CLOCKS
    NEGATIVE
    EARLY                   # responses of a round from before its first request
    BEYOND                  # rounds with more responders than replies are kept
    PRECEDING               # runs without a request that directly precede a request with their key
    COUNTS

COUNT_NAMES = ("answered", "unanswered", "unsolicited", "repeated", "further", "several", "across_clocks", "negative",
               "early", "beyond", "preceding")

cdef enum:
    FROM_FIRST = 0
    FROM_LAST = 1
    NTH_REPLY = 2           # the first reply; the next measures are of the second and so on
    LAST_REPLY = 34
    PRECEDED_BY = 35        # from a response without a request to the request with its key after it
    MEASURES = 36

MEASURE_NAMES = ("from_first", "from_last", *(f"reply_{number + 1}" for number in range(MAXIMUM_REPLIES)), "last_reply",
                 "preceded_by")

cdef enum:
    PAIRS = 0
    NOT_ANSWERED = 1
    NOT_ASKED = 2
    SLOWEST = 3
    LISTS = 4

LIST_NAMES = ("pairs", "unanswered", "unsolicited", "slowest")

cdef struct Row:
    int64_t rank
    int64_t frame
    Run run

cdef int64_t[::1] unused        # see D. of _core/records.pyx

cdef Row row_record
ROW_DTYPE = dtype_of(<Row[:1]> &row_record)
"""A row of a list: a run behind what rows are sorted by."""

cdef struct Track:
    uint64_t count
    uint64_t sum_low
    uint64_t sum_high
    int64_t lowest_ns
    int64_t highest_ns
    int64_t highest_frame

cdef Track track_record
TRACK_DTYPE = dtype_of(<Track[:1]> &track_record)

cdef struct Rows:
    Row *rows
    Py_ssize_t count
    Py_ssize_t allocated
    bint full               # something was left out: what goes beyond `worst` need not be kept
    int64_t worst_rank
    int64_t worst_frame


cdef int compare(const void *a, const void *b) noexcept nogil:
    cdef const Row *x = <const Row *> a
    cdef const Row *y = <const Row *> b
    if x.rank != y.rank:
        return -1 if x.rank < y.rank else 1
    return (x.frame > y.frame) - (x.frame < y.frame)


cdef class RequestLedger:
    """Counts, histograms and lists of the runs given to it.

    Parameters
    ----------
    rows_kept : int
        Bound on the rows of each list, by class.
    """

    cdef readonly Py_ssize_t rows_kept
    cdef int64_t counts[16][11]
    cdef int64_t by_replies[16][33]
    cdef Track tracks[36][6][16]
    cdef Cells cells
    cdef Rows lists[4][16]
    cdef bint failed

    def __cinit__(self, Py_ssize_t rows_kept):
        if rows_kept < 1:
            raise ValueError("a list keeps at least one row")
        self.rows_kept = rows_kept
        self.cells = Cells()

    def __dealloc__(self):
        cdef int i, j
        for i in range(LISTS):
            for j in range(CLASSES):
                free(self.lists[i][j].rows)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        cdef int i, j
        pack(&packed, self.counts, sizeof(self.counts))
        pack(&packed, self.by_replies, sizeof(self.by_replies))
        pack(&packed, self.tracks, sizeof(self.tracks))
        pack(&packed, self.lists, sizeof(self.lists))
        for i in range(LISTS):
            for j in range(CLASSES):
                pack(&packed, self.lists[i][j].rows, self.lists[i][j].count * sizeof(Row))
        return _ledger, (self.rows_kept, self.failed, self.cells, finished(&packed))

    cdef void restore(self, Unpacked *unpacked) noexcept nogil:
        cdef int i, j
        cdef Rows *rows
        unpack(unpacked, self.counts, sizeof(self.counts))
        unpack(unpacked, self.by_replies, sizeof(self.by_replies))
        unpack(unpacked, self.tracks, sizeof(self.tracks))
        unpack(unpacked, self.lists, sizeof(self.lists))
        for i in range(LISTS):
            for j in range(CLASSES):
                self.lists[i][j].rows = NULL
        for i in range(LISTS):
            for j in range(CLASSES):
                rows = &self.lists[i][j]
                rows.rows = <Row *> unpacked_new(unpacked, rows.count * sizeof(Row), rows.allocated * sizeof(Row))
                if rows.rows == NULL:
                    rows.count = rows.allocated = 0

    cdef void cut(self, Rows *rows) noexcept nogil:
        """Leave the first rows, sorted."""
        qsort(rows.rows, rows.count, sizeof(Row), compare)
        if rows.count > self.rows_kept:
            rows.count = self.rows_kept
            rows.full = True
            rows.worst_rank = rows.rows[rows.count - 1].rank
            rows.worst_frame = rows.rows[rows.count - 1].frame

    cdef void keep(self, int to, int in_class, int64_t rank, int64_t frame, Run *run) noexcept nogil:
        cdef Rows *rows = &self.lists[to][in_class]
        cdef Py_ssize_t allocated
        cdef void *grown
        if rows.full and (rank > rows.worst_rank or rank == rows.worst_rank and frame > rows.worst_frame):
            return
        if rows.count == rows.allocated:
            if rows.count >= 2 * self.rows_kept:
                self.cut(rows)
            else:
                allocated = 2 * rows.allocated or 64
                grown = realloc(rows.rows, allocated * sizeof(Row))
                if grown == NULL:
                    self.failed = True
                    return
                rows.rows = <Row *> grown
                rows.allocated = allocated
        rows.rows[rows.count].rank = rank
        rows.rows[rows.count].frame = frame
        rows.rows[rows.count].run = run[0]
        rows.count += 1

    cdef bint measure(self, int which, int64_t source, int in_class, int64_t later_ns, int64_t earlier_ns,
                      int64_t frame) noexcept nogil:
        """Count a time between two timestamps of one source; False where it is negative."""
        cdef Track *track = &self.tracks[which][source][in_class]
        cdef int64_t time_ns = difference(later_ns, earlier_ns)
        if time_ns < 0:
            return False
        if track.count == 0 or time_ns < track.lowest_ns:
            track.lowest_ns = time_ns
        if track.count == 0 or time_ns > track.highest_ns or (
                time_ns == track.highest_ns and frame < track.highest_frame):
            track.highest_ns = time_ns
            track.highest_frame = frame
        track.count += 1
        add_wide(&track.sum_low, &track.sum_high, <uint64_t> time_ns)
        self.cells.add((<uint64_t> ((which * SOURCES + source) * CLASSES + in_class + 1) << 16) | index_of(time_ns))
        return True

    cdef void settle(self, Run *run, bint rounds) noexcept nogil:
        cdef int in_class = class_of(run)
        cdef int64_t *counts = self.counts[in_class]
        cdef Reply *replies = replies_of(run)
        cdef Py_ssize_t i, early = 0, number
        cdef bint negative = False, across = False
        if run.requests == 0:
            counts[UNSOLICITED] += run.responses
            if run.precedes and run.answer_source == run.last_source and self.measure(
                    PRECEDED_BY, run.last_source, in_class, run.preceded_ns, run.answer_ns, run.answer_frame):
                counts[PRECEDING] += 1
            self.keep(NOT_ASKED, in_class, run.answer_frame, 0, run)
            return
        counts[REPEATED] += run.requests - 1
        if rounds:
            while early < run.replies and replies[early].frame < run.first_request_frame:
                early += 1
            counts[EARLY] += early
            counts[BEYOND] += run.beyond
            if not run.beyond:
                self.by_replies[in_class][run.replies - early] += 1
            if early < run.replies:
                run.answer_ns, run.answer_frame, run.answer_source = (
                    replies[early].timestamp_ns, replies[early].frame, replies[early].source)
        if run.responses == 0 or rounds and early == run.replies:
            counts[UNANSWERED] += 1
            self.keep(NOT_ANSWERED, in_class, run.first_request_frame, 0, run)
            return
        counts[ANSWERED] += 1
        # In rounds what other responders say is no repetition.
        number = run.responses - (run.replies if rounds else 1)
        if not run.beyond:
            counts[FURTHER] += number
            counts[SEVERAL] += number > 0
        if run.request_source == run.answer_source:
            if self.measure(FROM_FIRST, run.answer_source, in_class, run.answer_ns, run.first_request_ns,
                            run.first_request_frame):
                self.keep(SLOWEST, in_class, -difference(run.answer_ns, run.first_request_ns),
                          run.first_request_frame, run)
            else:
                negative = True
        else:
            across = True
        if run.asked_source == run.answer_source:
            if not self.measure(FROM_LAST, run.answer_source, in_class, run.answer_ns, run.asked_ns, run.asked_frame):
                negative = True
        else:
            across = True
        counts[ACROSS_CLOCKS] += across
        counts[NEGATIVE] += negative
        self.keep(PAIRS, in_class, run.first_request_frame, 0, run)
        if not rounds:
            return
        for i in range(early, run.replies):
            if replies[i].source == run.request_source:
                self.measure(<int> (NTH_REPLY + i - early), run.request_source, in_class, replies[i].timestamp_ns,
                             run.first_request_ns, run.first_request_frame)
                if i == run.replies - 1 and not run.beyond:
                    self.measure(LAST_REPLY, run.request_source, in_class, replies[i].timestamp_ns,
                                 run.first_request_ns, run.first_request_frame)

    def take(self, Runs runs not None, bint rounds):
        """Count runs that are over.

        Parameters
        ----------
        runs : Runs
        rounds : bool
            They hold the replies of several responders.
        """
        cdef Py_ssize_t row = 0, end
        cdef int64_t values = 3 + MAXIMUM_REPLIES if rounds else 2
        while row < runs.count:
            end = min(row + 1024, runs.count)
            # A line for each value, at worst; there are far fewer after the first few thousand.
            self.cells.reserve((end - row) * values)
            with nogil:
                while row < end:
                    self.settle(runs.at(row), rounds)
                    row += 1
        if self.failed:
            raise MemoryError

    def absorb(self, RequestLedger later not None, int64_t frame_shift):
        """Add what another ledger holds, whose frame numbers go up by `frame_shift`; `later` stays as it is."""
        cdef int i, j
        cdef Py_ssize_t row
        cdef Row *kept
        cdef Run run
        cdef bint by_frame
        for j in range(CLASSES):
            for i in range(COUNTS):
                self.counts[j][i] += later.counts[j][i]
            for i in range(MAXIMUM_REPLIES + 1):
                self.by_replies[j][i] += later.by_replies[j][i]
            for i in range(MEASURES * SOURCES):
                add_track(&self.tracks[i // SOURCES][i % SOURCES][j], &later.tracks[i // SOURCES][i % SOURCES][j],
                          frame_shift)
            for i in range(LISTS):
                by_frame = i != SLOWEST
                for row in range(later.lists[i][j].count):
                    kept = &later.lists[i][j].rows[row]
                    run = kept.run
                    shift_frames(&run, frame_shift)
                    self.keep(i, j, kept.rank + (frame_shift if by_frame else 0),
                              kept.frame + (0 if by_frame else frame_shift), &run)
        self.cells.absorb(later.cells, np.arange(MEASURES * SOURCES * CLASSES, dtype=np.int32))
        if self.failed:
            raise MemoryError

    def counted(self, int level):
        """Return the counts of the classes from `level` on, by name, and rounds by how many replied, from none on."""
        cdef int i, j
        totals = [0] * COUNTS
        by_replies = [0] * (MAXIMUM_REPLIES + 1)
        for j in range(level, CLASSES):
            for i in range(COUNTS):
                totals[i] += self.counts[j][i]
            for i in range(MAXIMUM_REPLIES + 1):
                by_replies[i] += self.by_replies[j][i]
        return dict(zip(COUNT_NAMES, totals, strict=True)), by_replies

    def tracks_by_group(self):
        """Return count, extremes and sum of each group, TRACK_DTYPE of shape (measures, timestamp sources, CLASS_COUNT)."""
        tracks = copied(&self.tracks[0][0][0], MEASURES * SOURCES * CLASSES, TRACK_DTYPE)
        return tracks.reshape(MEASURES, SOURCES, CLASSES)

    def by_group(self):
        """Return the histograms by group, numbered as `tracks_by_group` has them: a CellsByFlow, which changes leave stale."""
        return self.cells.by_flow()

    def rows(self, int which, int level, Py_ssize_t most):
        """Return the first rows of a list, of the classes from `level` on: ROW_DTYPE, shape (at most `most`,)."""
        cdef int j
        cdef Rows *rows
        parts = []
        if not 0 <= which < LISTS:
            raise ValueError("there is no such list")
        for j in range(level, CLASSES):
            rows = &self.lists[which][j]
            if rows.count == 0:
                continue
            self.cut(rows)
            parts.append(copied(rows.rows, min(rows.count, most), ROW_DTYPE))
        joined = np.concatenate(parts) if parts else np.empty(0, ROW_DTYPE)
        return joined[np.lexsort((joined["frame"], joined["rank"]))][:most]


cdef void add_track(Track *mine, Track *others, int64_t frame_shift) noexcept nogil:
    """Add what another part of the capture measured; the first of equal maxima stays."""
    if others.count == 0:
        return
    if mine.count == 0 or others.lowest_ns < mine.lowest_ns:
        mine.lowest_ns = others.lowest_ns
    if mine.count == 0 or others.highest_ns > mine.highest_ns or (
            others.highest_ns == mine.highest_ns and others.highest_frame + frame_shift < mine.highest_frame):
        mine.highest_ns = others.highest_ns
        mine.highest_frame = others.highest_frame + frame_shift
    mine.count += others.count
    add_wide(&mine.sum_low, &mine.sum_high, others.sum_low)
    mine.sum_high += others.sum_high


def _ledger(Py_ssize_t rows_kept, bint failed, Cells cells, bytes state):
    """Return a pickled ledger."""
    cdef RequestLedger ledger = RequestLedger(rows_kept)
    cdef Unpacked unpacked = unpacking(state)
    ledger.failed, ledger.cells = failed, cells
    ledger.restore(&unpacked)
    all_read(&unpacked)
    return ledger
