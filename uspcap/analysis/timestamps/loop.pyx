"""What the order of timestamps says of their quality: resolution, duplicates, steps backward, jumps.

A. State lives in numpy structured arrays that Python allocates and merges; the layouts below mirror the dtypes beside
   them field by field, all of eight bytes, so that no padding can differ.
B. Timestamps of different sources are never subtracted: each source has a track of its own. Frames without a timestamp
   are passed over.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t

import numpy as np

from uspcap._core.columns cimport FrameColumns
from uspcap._core.saturating cimport difference, distance
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP, SOURCE_COUNT
from uspcap.stats.buckets cimport leading_zeros

SOURCES = SOURCE_COUNT

cdef enum:
    RUN_CLASSES = 64
    JUMP_LOW_S = 35
    JUMP_HIGH_S = 38

RUN_LENGTH_CLASSES = RUN_CLASSES


cdef struct TimestampTrack:
    uint64_t frames
    int64_t first_ns
    int64_t last_ns
    int64_t lowest_ns
    int64_t highest_ns
    uint64_t divisor
    uint64_t duplicates
    uint64_t backward
    int64_t backward_largest_ns
    uint64_t jumps
    int64_t first_frame
    uint64_t first_run
    uint64_t last_run
    uint64_t runs
    uint64_t longest_run
    int64_t longest_run_frame
    int64_t last_run_frame
    uint64_t trailing_zeros[10]
    uint64_t run_lengths[64]

TIMESTAMP_TRACK_DTYPE = np.dtype([
    ("frames", np.uint64),
    ("first_ns", np.int64),
    ("last_ns", np.int64),
    ("lowest_ns", np.int64),
    ("highest_ns", np.int64),
    ("divisor", np.uint64),
    ("duplicates", np.uint64),
    ("backward", np.uint64),
    ("backward_largest_ns", np.int64),
    ("jumps", np.uint64),
    ("first_frame", np.int64),
    ("first_run", np.uint64),
    ("last_run", np.uint64),
    ("runs", np.uint64),
    ("longest_run", np.uint64),
    ("longest_run_frame", np.int64),
    ("last_run_frame", np.int64),
    ("trailing_zeros", np.uint64, 10),
    ("run_lengths", np.uint64, RUN_CLASSES),
])

STEP_DTYPE = np.dtype([
    ("frame", np.int64), ("before_ns", np.int64), ("after_ns", np.int64), ("source", np.int64),
])

cdef struct Step:
    int64_t frame
    int64_t before_ns
    int64_t after_ns
    int64_t source


cdef uint64_t common_divisor(uint64_t a, uint64_t b) noexcept nogil:
    cdef uint64_t rest
    while b:
        rest = a % b
        a = b
        b = rest
    return a


cdef inline void close_run(TimestampTrack *track) noexcept nogil:
    """The run of equal timestamps at the end is over: count it, unless it is the first, which is kept apart."""
    if track.runs == 0:
        track.first_run = track.last_run
    else:
        track.run_lengths[63 - leading_zeros(track.last_run)] += 1
    if track.last_run > track.longest_run:
        track.longest_run = track.last_run
        track.longest_run_frame = track.last_run_frame
    track.runs += 1


def track_timestamps(FrameColumns frames, int64_t frame_shift, uint8_t[::1] tracks, uint8_t[::1] steps,
                 Py_ssize_t steps_used):
    """Update the timestamp tracks with a batch; return how many rows of `steps` are used now.

    Parameters
    ----------
    frame_shift : int
        Added to the batch's frame numbers.
    tracks : IN OUT, TIMESTAMP_TRACK_DTYPE of shape (SOURCES,) as bytes
    steps : IN OUT, STEP_DTYPE of shape (any,) as bytes
        Steps backward and jumps of 35 to 38 s, the first that have room.
    """
    cdef TimestampTrack *track
    cdef TimestampTrack *all_tracks = <TimestampTrack *> &tracks[0]
    cdef Step *listed = <Step *> &steps[0]
    cdef Py_ssize_t i, zeros, room = steps.shape[0] // <Py_ssize_t> sizeof(Step), used = steps_used
    cdef int64_t timestamp, step, rest
    cdef uint64_t apart
    cdef int source
    cdef bint odd
    if tracks.shape[0] != SOURCE_COUNT * sizeof(TimestampTrack):
        raise ValueError("tracks have another layout")
    with nogil:
        for i in range(frames.count):
            source = frames.timestamp_source[i]
            if source >= NO_TIMESTAMP:
                continue
            track = &all_tracks[source]
            timestamp = frames.timestamp_ns[i]
            zeros = 0
            rest = timestamp
            while zeros < 9 and rest % 10 == 0:
                rest = rest // 10
                zeros += 1
            track.trailing_zeros[zeros] += 1
            if track.frames == 0:
                track.first_ns = timestamp
                track.lowest_ns = timestamp
                track.highest_ns = timestamp
                track.first_frame = frames.frame_number[i] + frame_shift
                track.last_run = 1
                track.last_run_frame = track.first_frame
            else:
                step = difference(timestamp, track.last_ns)
                if step == 0:
                    track.duplicates += 1
                    track.last_run += 1
                else:
                    close_run(track)
                    track.last_run = 1
                    track.last_run_frame = frames.frame_number[i] + frame_shift
                    if track.divisor != 1:
                        apart = distance(timestamp, track.first_ns)
                        if track.divisor == 0 or apart % track.divisor:
                            track.divisor = common_divisor(apart, track.divisor)
                    odd = False
                    if step < 0:
                        odd = True
                        track.backward += 1
                        if -step > track.backward_largest_ns:
                            track.backward_largest_ns = -step
                        if timestamp < track.lowest_ns:
                            track.lowest_ns = timestamp
                        step = -step
                    elif timestamp > track.highest_ns:
                        track.highest_ns = timestamp
                    if JUMP_LOW_S * <int64_t> 1000000000 <= step <= JUMP_HIGH_S * <int64_t> 1000000000:
                        odd = True
                        track.jumps += 1
                    if odd and used < room:
                        listed[used] = Step(frames.frame_number[i] + frame_shift, track.last_ns, timestamp, source)
                        used += 1
            track.last_ns = timestamp
            track.frames += 1
    return used


assert TIMESTAMP_TRACK_DTYPE.itemsize == sizeof(TimestampTrack)
