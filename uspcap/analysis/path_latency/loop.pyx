"""From a frame's timestamp to the moment that it was read from its ring: histograms by timestamp source and ring.

A. A group is a timestamp source and a ring; groups are rows of a fixed table, so that which group a frame counts in
   does not depend on what came before. Rings from LAST_RING on share one row.
B. What is negative is counted apart, and in no histogram. What does not fit 64 bits counts as the nearest that does.
C. Sums take 128 bits, in two words: merging adds them up exactly.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from uspcap._core.columns cimport FrameColumns
from uspcap._core.records cimport dtype_of
from uspcap._core.saturating cimport add_wide, difference
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP, SOURCE_COUNT
from uspcap._core.timestamped_interfaces cimport TIMESTAMP_USER
from uspcap.stats.buckets cimport Cells, index_of

cdef enum:
    RINGS = 256
    WITHOUT_TIMESTAMP = 0
    WITHOUT_READING = 1
    TIMESTAMPED_ON_READING = 2
    LEFT_OUT_COUNTS = 3

RING_GROUPS = RINGS
GROUPS = SOURCE_COUNT * RINGS
LEFT_OUT = ("frames_without_timestamp", "frames_without_reading", "frames_timestamped_on_reading")


cdef struct PathTrack:
    uint64_t frames
    uint64_t sum_low
    uint64_t sum_high
    int64_t lowest_ns
    int64_t highest_ns
    int64_t highest_frame
    uint64_t negative
    int64_t most_negative_ns

cdef PathTrack record
PATH_TRACK_DTYPE = dtype_of(<PathTrack[:1]> &record)


def track_paths(FrameColumns frames, int64_t frame_shift, PathTrack[::1] tracks, Cells cells not None,
                uint64_t[::1] left_out):
    """Count how long each frame of a batch took from its timestamp to its reading.

    Parameters
    ----------
    frame_shift : int
        Added to the batch's frame numbers.
    tracks : IN OUT, ndarray of PATH_TRACK_DTYPE, shape (GROUPS,)
        Row `source * RING_GROUPS + ring`.
    cells : IN OUT
        Histograms by the same number.
    left_out : IN OUT, ndarray of uint64, shape (3,)
        Frames that count in no group, as `LEFT_OUT` names them.
    """
    cdef PathTrack *track
    cdef Py_ssize_t i
    cdef int64_t latency_ns
    cdef uint32_t ring
    cdef uint64_t group
    cdef int source
    if tracks.shape[0] != SOURCE_COUNT * RINGS or left_out.shape[0] != LEFT_OUT_COUNTS:
        raise ValueError("tracks have another layout")
    cells.reserve(frames.count)
    with nogil:
        for i in range(frames.count):
            source = frames.timestamp_source[i]
            if source >= NO_TIMESTAMP:
                left_out[WITHOUT_TIMESTAMP] += 1
                continue
            if frames.read_ns[i] == 0:
                left_out[WITHOUT_READING] += 1
                continue
            if source == TIMESTAMP_USER:
                left_out[TIMESTAMPED_ON_READING] += 1
                continue
            ring = frames.queue[i] if frames.queue[i] < RINGS - 1 else RINGS - 1
            group = <uint64_t> source * RINGS + ring
            track = &tracks[group]
            latency_ns = difference(frames.read_ns[i], frames.timestamp_ns[i])
            if latency_ns < 0:
                track.negative += 1
                if latency_ns < track.most_negative_ns:
                    track.most_negative_ns = latency_ns
                continue
            if track.frames == 0 or latency_ns < track.lowest_ns:
                track.lowest_ns = latency_ns
            if track.frames == 0 or latency_ns > track.highest_ns:
                track.highest_ns = latency_ns
                track.highest_frame = frames.frame_number[i] + frame_shift
            track.frames += 1
            add_wide(&track.sum_low, &track.sum_high, <uint64_t> latency_ns)
            cells.add(((group + 1) << 16) | index_of(latency_ns))
