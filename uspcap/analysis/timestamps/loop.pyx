"""What the order of timestamps says of their quality: resolution, duplicates, steps backward, jumps.

A. State lives in numpy structured arrays that Python allocates and merges.
B. Timestamps of different sources are never subtracted: each source has a track of its own. Frames without a timestamp
   are passed over.
"""

from libc.stdint cimport int64_t, uint64_t

from uspcap._core.columns cimport FrameColumns
from uspcap._core.records cimport dtype_of
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
    uint64_t run_lengths[RUN_CLASSES]

cdef TimestampTrack track_record
TIMESTAMP_TRACK_DTYPE = dtype_of(<TimestampTrack[:1]> &track_record)

cdef struct Step:
    int64_t frame
    int64_t before_ns
    int64_t after_ns
    int64_t source

cdef Step step_record
STEP_DTYPE = dtype_of(<Step[:1]> &step_record)


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


def track_timestamps(FrameColumns frames, int64_t frame_shift, TimestampTrack[::1] tracks, Step[::1] steps,
                     Py_ssize_t steps_used):
    """Update the timestamp tracks with a batch; return how many rows of `steps` are used now.

    Parameters
    ----------
    frame_shift : int
        Added to the batch's frame numbers.
    tracks : IN OUT, ndarray of TIMESTAMP_TRACK_DTYPE, shape (SOURCES,)
    steps : IN OUT, ndarray of STEP_DTYPE
        Steps backward and jumps of 35 to 38 s, the first that have room.
    """
    cdef TimestampTrack *track
    cdef Py_ssize_t i, zeros, room = steps.shape[0], used = steps_used
    cdef int64_t timestamp, step, rest
    cdef uint64_t apart
    cdef int source
    cdef bint odd
    if tracks.shape[0] != SOURCE_COUNT:
        raise ValueError("tracks have another layout")
    with nogil:
        for i in range(frames.count):
            source = frames.timestamp_source[i]
            if source >= NO_TIMESTAMP:
                continue
            track = &tracks[source]
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
                        steps[used] = Step(frames.frame_number[i] + frame_shift, track.last_ns, timestamp, source)
                        used += 1
            track.last_ns = timestamp
            track.frames += 1
    return used
