"""What the spacing of timestamps says: inter-arrival times and jitter.

A. State lives in numpy structured arrays that Python allocates, grows and merges.
B. Timestamps of different sources are never subtracted: each source has a track of its own, and flows are
   keyed by source already (see flow_index.pyx). Frames without a timestamp are passed over.
C. A difference that does not fit 64 bits, or not with either sign, is taken as the nearest value that does. Sums of
   gaps have 128 bits, in two words.
D. Jitter is the filter of RFC 3550, section 6.4.1: J += (|D| - J) / 16, D being the change from one gap to the next.
   It is an integer of 2^-64 ns, and exact until 16 changes have been taken; then each step rounds down. Behind n more
   changes J (15/16)^n is left of it, which `append` rounds down as well. So a cut changes J by less than 2^-59 ns. What
   is shown is rounded to ns, with the edges at JITTER_EDGE, a little below the halves: where J is a half, as it is in
   streams with few different gaps, what was rounded down is still above the edge.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

import numpy as np

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.records cimport dtype_of
from uspcap._core.saturating cimport add_wide, difference, distance
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP, SOURCE_COUNT
from uspcap.analysis.gaps.loop cimport Gap
from uspcap.stats.buckets cimport COUNTS_LENGTH, LANE_BITS, Cells, index_of

cdef extern from *:
    """
    #define uspcap_prefetch(p) __builtin_prefetch((p), 1)

    static inline unsigned __int128 uspcap_whole(const uint64_t *low, const uint64_t *high) {
        return (unsigned __int128) *high << 64 | *low;
    }

    static inline void uspcap_set_jitter(uint64_t *low, uint64_t *high, unsigned __int128 value) {
        *low = (uint64_t) value;
        *high = (uint64_t) (value >> 64);
    }

    /* J is at most the largest change, which has 63 bits: nothing here needs more than 127. */
    static inline void uspcap_filter_change(uint64_t *low, uint64_t *high, uint64_t change) {
        unsigned __int128 value = uspcap_whole(low, high);
        uspcap_set_jitter(low, high, value - (value >> 4) + ((unsigned __int128) change << 60));
    }

    /* Let so many changes of 0 follow. */
    static void uspcap_decay(uint64_t *low, uint64_t *high, uint64_t changes) {
        unsigned __int128 value = uspcap_whole(low, high);
        uint64_t share, part;
        while (changes && value) {
            share = 1;
            part = changes < 16 ? changes : 16;
            for (uint64_t i = 0; i < part; i++)
                share *= 15;
            /* (15/16)^part as a multiple of 2^-64. */
            share <<= 64 - 4 * part;
            value = (value >> 64) * share + ((value & UINT64_MAX) * share >> 64);
            changes -= part;
        }
        uspcap_set_jitter(low, high, value);
    }

    static inline void uspcap_add_jitter(uint64_t *low, uint64_t *high, const uint64_t *more_low,
                                         const uint64_t *more_high) {
        uspcap_set_jitter(low, high, uspcap_whole(low, high) + uspcap_whole(more_low, more_high));
    }
    """
    void prefetch "uspcap_prefetch"(void *) nogil
    # Jitter is two words, the low one first.
    void filter_change "uspcap_filter_change"(uint64_t *, uint64_t *, uint64_t) noexcept nogil
    void decay "uspcap_decay"(uint64_t *, uint64_t *, uint64_t) noexcept nogil
    void add_jitter "uspcap_add_jitter"(uint64_t *, uint64_t *, const uint64_t *, const uint64_t *) noexcept nogil

SOURCES = SOURCE_COUNT

JITTER_EDGE = (1 << 63) - (1 << 32)
"""In `jitter_low`, from where on jitter is rounded up to ns."""


cdef struct ArrivalTrack:
    uint64_t frames
    int64_t first_ns
    int64_t last_ns
    int64_t first_frame
    int64_t last_frame
    uint64_t gaps
    uint64_t backward
    uint64_t sum_low
    uint64_t sum_high
    int64_t lowest_ns
    int64_t highest_ns
    int64_t highest_frame
    int64_t first_gap_ns
    int64_t last_gap_ns
    uint64_t jitter_low
    uint64_t jitter_high
    uint64_t bytes

cdef ArrivalTrack record
ARRIVAL_TRACK_DTYPE = dtype_of(<ArrivalTrack[:1]> &record)


cdef inline int64_t count_gap(ArrivalTrack *track, int64_t timestamp, int64_t frame) noexcept nogil:
    """Add the gap that a timestamp ends to a track; return it, -1 for a step backward."""
    cdef int64_t gap = difference(timestamp, track.last_ns)
    if gap < 0:
        track.backward += 1
        return -1
    if track.gaps == 0:
        track.first_gap_ns = gap
        track.lowest_ns = gap
        track.highest_ns = gap
        track.highest_frame = frame
    else:
        if gap < track.lowest_ns:
            track.lowest_ns = gap
        if gap > track.highest_ns:
            track.highest_ns = gap
            track.highest_frame = frame
        filter_change(&track.jitter_low, &track.jitter_high, distance(gap, track.last_gap_ns))
    track.gaps += 1
    add_wide(&track.sum_low, &track.sum_high, <uint64_t> gap)
    track.last_gap_ns = gap
    return gap


cdef inline int64_t arrive(ArrivalTrack *track, int64_t timestamp, int64_t frame, uint32_t wire) noexcept nogil:
    """Add one frame to a track; return its gap to the one before, -1 where it has none."""
    cdef int64_t gap = -1
    if track.frames == 0:
        track.first_ns = timestamp
        track.first_frame = frame
    else:
        gap = count_gap(track, timestamp, frame)
    track.last_ns = timestamp
    track.last_frame = frame
    track.frames += 1
    track.bytes += wire
    return gap


def track_arrivals(FrameColumns frames, HeaderColumns headers, int64_t frame_shift, ArrivalTrack[::1] tracks,
                   uint64_t[:, ::1] counts, ArrivalTrack[::1] flow_tracks, Cells cells, Gap[::1] largest,
                   Py_ssize_t largest_used, uint64_t[::1] scratch):
    """Update the inter-arrival state with a batch; return how many rows of `largest` are used now.

    Parameters
    ----------
    frame_shift : int
        Added to the batch's frame numbers.
    tracks : IN OUT, ndarray of ARRIVAL_TRACK_DTYPE, shape (SOURCES,)
    counts : IN OUT, shape (SOURCES, BUCKETS)
        Histogram of the gaps between all frames of a source.
    flow_tracks : IN OUT, ndarray of ARRIVAL_TRACK_DTYPE
        One a flow, more than the highest id in the batch.
    cells : IN OUT
        Histogram of the gaps within each flow.
    largest : IN OUT, ndarray of GAP_DTYPE, sorted by falling gap
        `flow` holds the source; the largest gaps between all frames.
    scratch : shape (at least frames.count,)
    """
    cdef Py_ssize_t flows = flow_tracks.shape[0], room = largest.shape[0], used = largest_used
    cdef Py_ssize_t i, keys = 0, at, n = frames.count
    cdef int64_t timestamp, gap, frame, before_ns, before_frame
    cdef int32_t flow
    cdef int source
    cdef uint64_t key, slot
    cdef ArrivalTrack track
    cdef int track_source = -1
    if (tracks.shape[0] != SOURCE_COUNT or counts.shape[0] != SOURCE_COUNT
            or counts.shape[1] != COUNTS_LENGTH or scratch.shape[0] < n or headers.count != n
            or not 0 <= used <= room or room == 0):
        raise ValueError("an array has another shape than its loop expects")
    cells.reserve(n)
    with nogil:
        for i in range(n):
            source = frames.timestamp_source[i]
            if source >= NO_TIMESTAMP:
                continue
            timestamp = frames.timestamp_ns[i]
            frame = frames.frame_number[i] + frame_shift
            # The source's track stays in registers as long as the source does not change.
            if source != track_source:
                if track_source >= 0:
                    tracks[track_source] = track
                track = tracks[source]
                track_source = source
            before_ns = track.last_ns
            before_frame = track.last_frame
            gap = arrive(&track, timestamp, frame, frames.wire_length[i])
            if gap >= 0:
                counts[source, index_of(gap)] += 1
                if used < room or gap > largest[used - 1].gap_ns:
                    at = used if used < room else used - 1
                    while at > 0 and largest[at - 1].gap_ns < gap:
                        largest[at] = largest[at - 1]
                        at -= 1
                    largest[at] = Gap(source, gap, before_ns, before_frame, frame)
                    if used < room:
                        used += 1
            flow = headers.flow[i]
            if 0 <= flow < flows:
                gap = arrive(&flow_tracks[flow], timestamp, frame, frames.wire_length[i])
                if gap >= 0:
                    key = ((<uint64_t> flow + 1) << 16) | index_of(gap)
                    scratch[keys] = key
                    keys += 1
                    slot = cells.home(key >> LANE_BITS)
                    prefetch(&cells.keys[slot])
                    prefetch(&cells.counts[slot << LANE_BITS])
                    if keys > 16:
                        cells.add(scratch[keys - 17])
        if track_source >= 0:
            tracks[track_source] = track
        for i in range(keys - 16 if keys > 16 else 0, keys):
            cells.add(scratch[i])
    return used


cdef int64_t append(ArrivalTrack *mine, const ArrivalTrack *later) noexcept nogil:
    """Put a later part's track behind one; return the gap between the two, -1 where there is none."""
    cdef int64_t gap
    if later.frames == 0:
        return -1
    if mine.frames == 0:
        mine[0] = later[0]
        return -1
    gap = count_gap(mine, later.first_ns, later.first_frame)
    if later.gaps and mine.gaps == 0:
        mine.first_gap_ns = later.first_gap_ns
        mine.lowest_ns = later.lowest_ns
        mine.highest_ns = later.highest_ns
        mine.highest_frame = later.highest_frame
        mine.jitter_low = later.jitter_low
        mine.jitter_high = later.jitter_high
    elif later.gaps:
        if later.lowest_ns < mine.lowest_ns:
            mine.lowest_ns = later.lowest_ns
        if later.highest_ns > mine.highest_ns:
            mine.highest_ns = later.highest_ns
            mine.highest_frame = later.highest_frame
        filter_change(&mine.jitter_low, &mine.jitter_high, distance(later.first_gap_ns, mine.last_gap_ns))
        decay(&mine.jitter_low, &mine.jitter_high, later.gaps - 1)
        add_jitter(&mine.jitter_low, &mine.jitter_high, &later.jitter_low, &later.jitter_high)
    if later.gaps:
        mine.last_gap_ns = later.last_gap_ns
    mine.gaps += later.gaps
    mine.backward += later.backward
    add_wide(&mine.sum_low, &mine.sum_high, later.sum_low)
    mine.sum_high += later.sum_high
    mine.last_ns = later.last_ns
    mine.last_frame = later.last_frame
    mine.frames += later.frames
    mine.bytes += later.bytes
    return gap


def join_arrivals(ArrivalTrack[::1] tracks, const int32_t[::1] ids, ArrivalTrack[::1] later_tracks):
    """Append the tracks of a later part; its track n goes behind `ids[n]` here, nowhere where that is -1.

    Parameters
    ----------
    tracks : IN OUT, ndarray of ARRIVAL_TRACK_DTYPE
    ids : ndarray of int32, shape (later tracks,)
    later_tracks : ndarray of ARRIVAL_TRACK_DTYPE

    Returns
    -------
    ndarray of int64, shape (later tracks,)
        The gap between the two parts of each, in ns; -1 where there is none.
    """
    cdef Py_ssize_t i
    gaps = np.full(ids.shape[0], -1, np.int64)
    cdef int64_t[::1] between = gaps
    if later_tracks.shape[0] < ids.shape[0]:
        raise ValueError("tracks have another layout")
    for i in range(ids.shape[0]):
        if ids[i] >= tracks.shape[0]:
            raise ValueError("a flow has no track")
    with nogil:
        for i in range(ids.shape[0]):
            if ids[i] >= 0:
                between[i] = append(&tracks[ids[i]], &later_tracks[i])
    return gaps
