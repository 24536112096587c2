"""Counts of arrivals in which recurrence shows: by slots of time, by phase of the second, by gaps of a flow.

A. Slots. At each scale time is cut into slots of 2^k ns, aligned to the epoch, and the first SLOTS of them from the
   earliest timestamp on are counted. That set depends on the earliest timestamp only: an earlier one moves the window
   back, and all that lies in the new window lay in the old one, or is new. The last scale covers everything: its slots
   double in width when the timestamps span more than SLOTS of them, which depends only on the span.
B. Phases. A bin of the second, or of the millisecond, holds how many frames fell there, in how many visits (frames in a
   row of one second are one visit), and the sum of the squares of what each visit brought, from which its spread
   follows. The first and the last visit stay open for `join`.
C. Gaps. Each flow has a log-linear histogram of its gaps, 32 buckets an octave from 65 us to 18 minutes, with sums, so
   that the mean of a few neighbouring buckets is exact; and another of the gaps between its shortest frames, which a
   shorter frame restarts.
D. Timestamps are clamped as they come in, so that the beginning of the second of each fits 64 bits. Sums saturate.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memmove, memset

import numpy as np

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.records cimport dtype_of
from uspcap._core.saturating cimport clamped, difference, saturating_add_unsigned, saturating_square
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.stats.buckets cimport leading_zeros

cdef enum:
    SLOTS = 65536
    SCALES = 6
    FIRST_SHIFT = 10
    SHIFT_STEP = 4
    CLOCKS = 2
    SECOND_BINS = 10000
    MILLISECOND_BINS = 1000
    FIRST_GAP_BIT = 16
    GAP_OCTAVES = 24
    SUB_BITS = 5
    GAPS = 2 + (24 << 5)

SLOTS_IN_SCALE = SLOTS
SCALE_COUNT = SCALES
PHASE_PERIODS_NS = (1_000_000_000, 1_000_000)
PHASE_BINS = (SECOND_BINS, MILLISECOND_BINS)
GAP_BUCKETS = GAPS

cdef int64_t PERIODS[2]
PERIODS[0] = 1_000_000_000
PERIODS[1] = 1_000_000
cdef int64_t WIDTHS[2]
WIDTHS[0] = 100_000
WIDTHS[1] = 1_000
cdef int[2] BINS
BINS[0] = SECOND_BINS
BINS[1] = MILLISECOND_BINS

cdef struct PhaseBin:
    uint64_t frames
    uint64_t visits
    uint64_t squares            # of the visits between the first and the last
    int64_t first_period
    uint64_t first_run
    int64_t last_period         # of the second visit on
    uint64_t last_run



cdef inline void add_square(PhaseBin *bin, uint64_t run) noexcept nogil:
    bin.squares = saturating_add_unsigned(bin.squares, saturating_square(run))


cdef inline void visit(PhaseBin *bin, int64_t period) noexcept nogil:
    bin.frames += 1
    if bin.visits == 0:
        bin.visits = bin.first_run = 1
        bin.first_period = period
    elif bin.visits == 1:
        if period == bin.first_period:
            bin.first_run += 1
        else:
            bin.visits = 2
            bin.last_period = period
            bin.last_run = 1
    elif period == bin.last_period:
        bin.last_run += 1
    else:
        add_square(bin, bin.last_run)
        bin.visits += 1
        bin.last_period = period
        bin.last_run = 1


cdef void append(PhaseBin *bin, PhaseBin *later) noexcept nogil:
    """Put what a later part saw of a bin behind what was seen of it."""
    cdef uint64_t *run
    if later.visits == 0:
        return
    if bin.visits == 0:
        bin[0] = later[0]
        return
    bin.frames += later.frames
    if later.first_period == (bin.first_period if bin.visits == 1 else bin.last_period):
        run = &bin.first_run if bin.visits == 1 else &bin.last_run
        run[0] += later.first_run
        if later.visits == 1:
            return
        if bin.visits > 1:
            add_square(bin, bin.last_run)
        bin.visits += later.visits - 1
    else:
        if bin.visits > 1:
            add_square(bin, bin.last_run)
        bin.visits += later.visits
        if later.visits == 1:
            bin.last_period = later.first_period
            bin.last_run = later.first_run
            return
        add_square(bin, later.first_run)
    bin.squares = saturating_add_unsigned(bin.squares, later.squares)
    bin.last_period = later.last_period
    bin.last_run = later.last_run


cdef inline int64_t floor_divide(int64_t value, int64_t by) noexcept nogil:
    cdef int64_t quotient = value // by
    return quotient - 1 if quotient * by > value else quotient


cdef class Arrivals:
    """Arrivals of one timestamp source by slot and by phase.

    Attributes
    ----------
    frames : int
    lowest_ns, highest_ns : int
        Meaningless before the first frame.
    divisor_ns : int
        Greatest common divisor of the distances between timestamps where that is 1000 or more; else some number below.
    """

    cdef readonly uint64_t frames
    cdef readonly int64_t lowest_ns
    cdef readonly int64_t highest_ns
    cdef readonly int64_t divisor_ns
    cdef int shifts[SCALES]
    cdef int64_t bases[SCALES]
    cdef uint64_t *slots[SCALES]
    cdef PhaseBin *phases[CLOCKS]

    def __cinit__(self):
        cdef int k
        for k in range(SCALES):
            self.shifts[k] = FIRST_SHIFT + SHIFT_STEP * k
            self.slots[k] = <uint64_t *> calloc(SLOTS, sizeof(uint64_t))
            if self.slots[k] == NULL:
                raise MemoryError
        for k in range(CLOCKS):
            self.phases[k] = <PhaseBin *> calloc(BINS[k], sizeof(PhaseBin))
            if self.phases[k] == NULL:
                raise MemoryError

    def __dealloc__(self):
        cdef int k
        for k in range(SCALES):
            free(self.slots[k])
        for k in range(CLOCKS):
            free(self.phases[k])

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        cdef int k
        pack(&packed, self.shifts, sizeof(self.shifts))
        pack(&packed, self.bases, sizeof(self.bases))
        for k in range(SCALES):
            pack(&packed, self.slots[k], SLOTS * sizeof(uint64_t))
        for k in range(CLOCKS):
            pack(&packed, self.phases[k], BINS[k] * sizeof(PhaseBin))
        return _arrivals, (self.frames, self.lowest_ns, self.highest_ns, self.divisor_ns, finished(&packed))

    cdef void coarsen(self) noexcept nogil:
        """Double the width of the last scale's slots."""
        cdef uint64_t *slots = self.slots[SCALES - 1]
        cdef int64_t base = self.bases[SCALES - 1], to
        cdef Py_ssize_t i
        cdef uint64_t count
        self.shifts[SCALES - 1] += 1
        self.bases[SCALES - 1] = base >> 1
        for i in range(SLOTS):
            count = slots[i]
            slots[i] = 0
            to = ((base + i) >> 1) - (base >> 1)
            slots[to] += count

    cdef void cover(self, int64_t lowest, int64_t highest) noexcept nogil:
        """Make the windows those of timestamps from `lowest` to `highest`."""
        cdef int k
        cdef int64_t base, back
        if self.frames:
            if lowest < self.lowest_ns:
                self.divide(difference(self.lowest_ns, lowest))
            lowest = lowest if lowest < self.lowest_ns else self.lowest_ns
            highest = highest if highest > self.highest_ns else self.highest_ns
        else:
            for k in range(SCALES):
                self.bases[k] = lowest >> self.shifts[k]
        k = SCALES - 1
        while (highest >> self.shifts[k]) - (lowest >> self.shifts[k]) >= SLOTS:
            self.coarsen()
        for k in range(SCALES):
            base = lowest >> self.shifts[k]
            back = self.bases[k] - base
            if back >= SLOTS:
                memset(self.slots[k], 0, SLOTS * sizeof(uint64_t))
            elif back > 0:
                memmove(self.slots[k] + back, self.slots[k], (SLOTS - back) * sizeof(uint64_t))
                memset(self.slots[k], 0, back * sizeof(uint64_t))
            self.bases[k] = base
        self.lowest_ns = lowest
        self.highest_ns = highest

    cdef inline void divide(self, int64_t apart) noexcept nogil:
        """Take a distance between timestamps into the common divisor."""
        cdef int64_t a = self.divisor_ns, b = apart if apart >= 0 else -apart, rest
        while b:
            rest = a % b
            a = b
            b = rest
        self.divisor_ns = a

    def update(self, FrameColumns frames, int source):
        """Count the rows of a batch whose timestamp source is `source`."""
        cdef Py_ssize_t i
        cdef int k
        cdef int64_t timestamp, slot, period
        cdef int64_t begun[CLOCKS]
        cdef int64_t number[CLOCKS]
        cdef bint known = False
        memset(begun, 0, sizeof(begun))
        memset(number, 0, sizeof(number))
        with nogil:
            for i in range(frames.count):
                if frames.timestamp_source[i] != source:
                    continue
                timestamp = clamped(frames.timestamp_ns[i])
                if self.frames == 0 or timestamp < self.lowest_ns or timestamp > self.highest_ns:
                    self.cover(timestamp, timestamp)
                if self.divisor_ns >= 1000 or self.divisor_ns == 0:
                    self.divide(difference(timestamp, self.lowest_ns))
                for k in range(SCALES):
                    slot = (timestamp >> self.shifts[k]) - self.bases[k]
                    if slot >= SLOTS:
                        continue
                    self.slots[k][slot] += 1
                for k in range(CLOCKS):
                    if not known or timestamp < begun[k] or difference(timestamp, begun[k]) >= PERIODS[k]:
                        number[k] = floor_divide(timestamp, PERIODS[k])
                        begun[k] = number[k] * PERIODS[k]
                    visit(&self.phases[k][(timestamp - begun[k]) // WIDTHS[k]], number[k])
                known = True
                self.frames += 1

    def join(self, Arrivals later):
        """Append what came directly after."""
        cdef int k
        cdef int64_t ahead
        cdef Py_ssize_t i
        cdef int64_t apart
        if later.frames == 0:
            return
        apart = difference(later.lowest_ns, self.lowest_ns) if self.frames else 0
        with nogil:
            self.cover(later.lowest_ns, later.highest_ns)
            while later.shifts[SCALES - 1] < self.shifts[SCALES - 1]:
                later.coarsen()
            for k in range(SCALES):
                ahead = later.bases[k] - self.bases[k]
                for i in range(SLOTS - ahead):
                    self.slots[k][i + ahead] += later.slots[k][i]
            for k in range(CLOCKS):
                for i in range(BINS[k]):
                    append(&self.phases[k][i], &later.phases[k][i])
            self.divide(apart)
            self.divide(later.divisor_ns)
        self.frames += later.frames

    def scale(self, int k):
        """Return the width of a scale's slots in ns, and the counts of those from the first timestamp to the last.

        Returns
        -------
        tuple of int and ndarray of uint64
        """
        cdef int64_t used
        cdef Py_ssize_t i
        if not 0 <= k < SCALES:
            raise ValueError(f"there is no scale {k}")
        used = (self.highest_ns >> self.shifts[k]) - self.bases[k] + 1 if self.frames else 0
        if used > SLOTS:
            used = SLOTS
        counts = np.empty(used, np.uint64)
        cdef uint64_t[::1] out = counts
        for i in range(used):
            out[i] = self.slots[k][i]
        return <int64_t> 1 << self.shifts[k], counts

    def phase_bins(self, int clock):
        """Return the bins of a clock: frames, visits and the sum of squares over visits.

        Returns
        -------
        tuple of three ndarray of uint64, shape (PHASE_BINS[clock],)
        """
        cdef Py_ssize_t i
        cdef PhaseBin *bin
        if not 0 <= clock < CLOCKS:
            raise ValueError(f"there is no clock {clock}")
        frames, visits, squares = (np.zeros(BINS[clock], np.uint64) for _ in range(3))
        cdef uint64_t[::1] out_frames = frames, out_visits = visits, out_squares = squares
        for i in range(BINS[clock]):
            bin = &self.phases[clock][i]
            out_frames[i] = bin.frames
            out_visits[i] = bin.visits
            out_squares[i] = saturating_add_unsigned(bin.squares, saturating_square(bin.first_run))
            if bin.visits > 1:
                out_squares[i] = saturating_add_unsigned(out_squares[i], saturating_square(bin.last_run))
        return frames, visits, squares


cdef struct Gaps:
    uint64_t frames
    int64_t first_ns
    int64_t last_ns
    uint64_t counts[GAPS]
    uint64_t sums[GAPS]

cdef struct BeatTrack:
    uint64_t shortest           # wire length + 1 of the flow's shortest frame; 0 where there is none
    Gaps every
    Gaps short_ones

cdef BeatTrack record
BEAT_TRACK_DTYPE = dtype_of(<BeatTrack[:1]> &record)


cdef inline int bucket_of(int64_t gap) noexcept nogil:
    cdef int octave
    if gap < 1 << FIRST_GAP_BIT:
        return 0
    octave = 63 - leading_zeros(<unsigned long long> gap) - FIRST_GAP_BIT
    if octave >= GAP_OCTAVES:
        return GAPS - 1
    return 1 + (octave << SUB_BITS) + <int> (gap >> (octave + FIRST_GAP_BIT - SUB_BITS) & ((1 << SUB_BITS) - 1))


def gap_bounds():
    """Return the lowest and the highest gap of each bucket in ns: two ndarrays of int64, shape (GAP_BUCKETS,)."""
    edges = [0]
    for octave in range(GAP_OCTAVES):
        edges += [
            (<int64_t> (1 << SUB_BITS) + sub) << (octave + FIRST_GAP_BIT - SUB_BITS) for sub in range(1 << SUB_BITS)
        ]
    edges += [<int64_t> 1 << (FIRST_GAP_BIT + GAP_OCTAVES), (1 << 63) - 1]
    array = np.array(edges, np.int64)
    return array[:-1], array[1:] - 1


cdef inline void count_gap(Gaps *gaps, int64_t gap) noexcept nogil:
    cdef int bucket
    if gap >= 0:
        bucket = bucket_of(gap)
        gaps.counts[bucket] += 1
        gaps.sums[bucket] = saturating_add_unsigned(gaps.sums[bucket], <uint64_t> gap)


cdef inline void arrive(Gaps *gaps, int64_t timestamp) noexcept nogil:
    if gaps.frames == 0:
        gaps.first_ns = timestamp
    else:
        count_gap(gaps, difference(timestamp, gaps.last_ns))
    gaps.last_ns = timestamp
    gaps.frames += 1


def track_beats(FrameColumns frames, HeaderColumns headers, BeatTrack[::1] flow_tracks):
    """Count the gaps of each flow.

    Parameters
    ----------
    flow_tracks : IN OUT, ndarray of BEAT_TRACK_DTYPE
        One a flow, more than the highest id in the batch.
    """
    cdef BeatTrack *track
    cdef Py_ssize_t flows = flow_tracks.shape[0], i
    cdef int32_t flow
    cdef uint64_t length
    if headers.count != frames.count:
        raise ValueError("the headers are not those of this batch")
    with nogil:
        for i in range(frames.count):
            flow = headers.flow[i]
            if frames.timestamp_source[i] >= NO_TIMESTAMP or flow < 0 or flow >= flows:
                continue
            track = &flow_tracks[flow]
            arrive(&track.every, frames.timestamp_ns[i])
            length = <uint64_t> frames.wire_length[i] + 1
            if track.shortest == 0 or length < track.shortest:
                memset(&track.short_ones, 0, sizeof(Gaps))
                track.shortest = length
            if length == track.shortest:
                arrive(&track.short_ones, frames.timestamp_ns[i])


cdef void join_gaps(Gaps *gaps, Gaps *later) noexcept nogil:
    cdef Py_ssize_t i
    if later.frames == 0:
        return
    if gaps.frames == 0:
        gaps[0] = later[0]
        return
    count_gap(gaps, difference(later.first_ns, gaps.last_ns))
    for i in range(GAPS):
        gaps.counts[i] += later.counts[i]
        gaps.sums[i] = saturating_add_unsigned(gaps.sums[i], later.sums[i])
    gaps.frames += later.frames
    gaps.last_ns = later.last_ns


def join_beats(BeatTrack[::1] flow_tracks, const int32_t[::1] ids, BeatTrack[::1] later_tracks):
    """Append the tracks of a later part; its flow f is `ids[f]` here, -1 for nowhere."""
    cdef BeatTrack *mine
    cdef BeatTrack *theirs
    cdef Py_ssize_t flow
    if later_tracks.shape[0] < ids.shape[0]:
        raise ValueError("tracks have another layout")
    for flow in range(ids.shape[0]):
        if ids[flow] < 0:
            continue
        if ids[flow] >= flow_tracks.shape[0]:
            raise ValueError("a flow has no track")
        mine, theirs = &flow_tracks[ids[flow]], &later_tracks[flow]
        if theirs.shortest == 0:
            continue
        join_gaps(&mine.every, &theirs.every)
        if mine.shortest == 0 or theirs.shortest < mine.shortest:
            mine.shortest = theirs.shortest
            mine.short_ones = theirs.short_ones
        elif theirs.shortest == mine.shortest:
            join_gaps(&mine.short_ones, &theirs.short_ones)


def _arrivals(uint64_t frames, int64_t lowest_ns, int64_t highest_ns, int64_t divisor_ns, bytes state):
    """Return pickled arrivals."""
    cdef Arrivals arrivals = Arrivals()
    cdef Unpacked unpacked = unpacking(state)
    cdef int k
    arrivals.frames, arrivals.lowest_ns, arrivals.highest_ns = frames, lowest_ns, highest_ns
    arrivals.divisor_ns = divisor_ns
    unpack(&unpacked, arrivals.shifts, sizeof(arrivals.shifts))
    unpack(&unpacked, arrivals.bases, sizeof(arrivals.bases))
    for k in range(SCALES):
        unpack(&unpacked, arrivals.slots[k], SLOTS * sizeof(uint64_t))
    for k in range(CLOCKS):
        unpack(&unpacked, arrivals.phases[k], BINS[k] * sizeof(PhaseBin))
    all_read(&unpacked)
    return arrivals
