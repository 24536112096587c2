"""Gaps within a flow, counted by octave or over a threshold, the longest kept one by one.

State lives in numpy structured arrays that Python allocates, grows and merges. What analysis/inter_arrival/loop.pyx says
of sources and of differences holds here too. Sums of gaps saturate.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t

import numpy as np

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.records cimport dtype_of
from uspcap._core.saturating cimport difference, saturating_add
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.stats.buckets cimport leading_zeros

cdef enum:
    OCTAVES = 40

GAP_OCTAVES = OCTAVES

cdef struct GapTrack:
    uint64_t frames
    int64_t first_ns
    int64_t first_frame
    int64_t last_ns
    int64_t last_frame
    int64_t floor_ns
    uint64_t over
    int64_t over_ns
    int64_t octaves[OCTAVES][2]      # how many, and their sum in ns

cdef Gap gap_record
GAP_DTYPE = dtype_of(<Gap[:1]> &gap_record)

cdef GapTrack track_record
GAP_TRACK_DTYPE = dtype_of(<GapTrack[:1]> &track_record)


cdef inline int octave_of(int64_t gap) noexcept nogil:
    """Return 0 for gaps below 32 ns, k for those in 2^(k+4) .. 2^(k+5)-1, the last for all beyond."""
    cdef int octave = 63 - leading_zeros(<unsigned long long> gap | 16) - 4
    return octave if octave < OCTAVES else OCTAVES - 1


def track_gaps(FrameColumns frames, HeaderColumns headers, int64_t frame_shift, Py_ssize_t first_row,
               GapTrack[::1] flow_tracks, int64_t threshold_ns, Gap[::1] gaps, Py_ssize_t gaps_used):
    """Update the gaps of each flow with the rows of a batch from `first_row` on.

    Parameters
    ----------
    flow_tracks : IN OUT, ndarray of GAP_TRACK_DTYPE
        One a flow, more than the highest id in the batch; gaps at or below `floor_ns` are not kept.
    threshold_ns : int
        Gaps longer than it are counted in `over` and kept; -1 where the threshold is known only at the end.
    gaps : IN OUT, ndarray of GAP_DTYPE

    Returns
    -------
    tuple of int
        The first row not taken (because `gaps` is full; else the count of rows), and how many rows of
        `gaps` are used now.
    """
    cdef GapTrack *track
    cdef Py_ssize_t flows = flow_tracks.shape[0], room = gaps.shape[0], used = gaps_used
    cdef Py_ssize_t i = first_row
    cdef int64_t timestamp, gap, frame
    cdef int32_t flow
    cdef int octave
    if headers.count != frames.count:
        raise ValueError("the headers are not those of this batch")
    with nogil:
        while i < frames.count and used < room:
            flow = headers.flow[i]
            if frames.timestamp_source[i] >= NO_TIMESTAMP or flow < 0 or flow >= flows:
                i += 1
                continue
            track = &flow_tracks[flow]
            timestamp = frames.timestamp_ns[i]
            frame = frames.frame_number[i] + frame_shift
            if track.frames == 0:
                track.first_ns = timestamp
                track.first_frame = frame
            else:
                gap = difference(timestamp, track.last_ns)
                if gap >= 0:
                    if threshold_ns < 0:
                        octave = octave_of(gap)
                        track.octaves[octave][0] += 1
                        track.octaves[octave][1] = saturating_add(track.octaves[octave][1], gap)
                    elif gap > threshold_ns:
                        track.over += 1
                        track.over_ns = saturating_add(track.over_ns, gap)
                    if gap > track.floor_ns:
                        gaps[used] = Gap(flow, gap, track.last_ns, track.last_frame, frame)
                        used += 1
            track.last_ns = timestamp
            track.last_frame = frame
            track.frames += 1
            i += 1
    return i, used


cdef inline bint longer(Gap *a, Gap *b) noexcept nogil:
    """Whether one gap goes before another: by length, the earlier first among equals."""
    return a.gap_ns > b.gap_ns or (a.gap_ns == b.gap_ns and a.after_frame < b.after_frame)


cdef void select_longest(Gap *all_gaps, int32_t *rows, Py_ssize_t count, Py_ssize_t most) noexcept nogil:
    """Bring the `most` longest of `count` rows to the front, the shortest of these last (Hoare's quickselect)."""
    cdef Py_ssize_t low = 0, high = count - 1, i, k
    cdef int32_t pivot, row
    while low < high:
        k = low + (high - low) // 2
        pivot = rows[k]
        i = low
        k = high
        while i <= k:
            while longer(&all_gaps[rows[i]], &all_gaps[pivot]):
                i += 1
            while longer(&all_gaps[pivot], &all_gaps[rows[k]]):
                k -= 1
            if i <= k:
                row = rows[i]
                rows[i] = rows[k]
                rows[k] = row
                i += 1
                k -= 1
        if most - 1 <= k:
            high = k
        elif most - 1 >= i:
            low = i
        else:
            return


def keep_longest(Gap[::1] gaps, GapTrack[::1] flow_tracks, Py_ssize_t most):
    """Return the `most` longest gaps of each flow; raise the floor of flows that have so many.

    Parameters
    ----------
    gaps : ndarray of GAP_DTYPE
        Each flow in them has a track.
    flow_tracks : IN OUT, ndarray of GAP_TRACK_DTYPE
    most : int
        1 or more; among equals the earlier is kept.

    Returns
    -------
    ndarray of GAP_DTYPE
        Grouped by flow; within one in no order.
    """
    cdef Py_ssize_t flows = flow_tracks.shape[0], count = gaps.shape[0]
    cdef Py_ssize_t flow, i, first, size, written = 0
    cdef int64_t shortest
    cdef int32_t[::1] ends = np.zeros(flows + 1, np.int32)
    cdef int32_t[::1] rows = np.empty(count + 1, np.int32)
    if most < 1:
        raise ValueError("at least one gap a flow is kept")
    for i in range(count):
        if not 0 <= gaps[i].flow < flows:
            raise ValueError("a gap is of a flow without a track")
        ends[gaps[i].flow + 1] += 1
    for flow in range(flows):
        written += ends[flow + 1] if ends[flow + 1] < most else most
        ends[flow + 1] += ends[flow]
    kept = np.empty(written, GAP_DTYPE)
    cdef Gap[::1] out = kept
    with nogil:
        for i in range(count):
            flow = gaps[i].flow
            rows[ends[flow]] = i
            ends[flow] += 1
        first = written = 0
        for flow in range(flows):
            size = ends[flow] - first
            if size > most:
                select_longest(&gaps[0], &rows[first], size, most)
                size = most
            shortest = -1
            for i in range(first, first + size):
                out[written] = gaps[rows[i]]
                if shortest < 0 or out[written].gap_ns < shortest:
                    shortest = out[written].gap_ns
                written += 1
            if size == most and shortest > flow_tracks[flow].floor_ns:
                flow_tracks[flow].floor_ns = shortest
            first = ends[flow]
    return kept
