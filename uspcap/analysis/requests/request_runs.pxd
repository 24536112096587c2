"""C view of runs: the requests and responses of one key, one after the other."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from uspcap.stats.buckets cimport leading_zeros

cdef enum:
    SOURCES = 6             # timestamp sources that timestamp: values of uspcap.frames.TimestampSource below NONE
    CLASSES = 16
    MAXIMUM_REPLIES = 32
    REQUEST = 1
    RESPONSE = 2

# The first reply of one responder.
cdef struct Reply:
    uint64_t responder
    int64_t timestamp_ns
    int64_t source
    int64_t frame

# Followed by the replies, where they are kept.
cdef struct Run:
    uint64_t key_high
    uint64_t key_low
    int64_t requests
    int64_t responses
    int64_t first_frame             # of all
    int64_t first_request_ns
    int64_t first_request_frame
    int64_t request_source
    int64_t asked_ns                # the last request before the answer
    int64_t asked_frame
    int64_t asked_source
    int64_t answer_ns               # the first response
    int64_t answer_frame
    int64_t answer_source
    int64_t last_response_frame
    int64_t first_kind
    int64_t last_kind
    int64_t last_ns
    int64_t last_source
    int64_t replies
    int64_t beyond                  # 1 where there are more responders than replies are kept
    int64_t preceded_ns             # the request that began the next run of this key
    int64_t precedes                # 1 where there is one, by the same timestamp source
    int64_t head                    # row of its context, -1 where nothing before can belong to it
    int64_t places[2]               # in the heaps


cdef inline Reply *replies_of(Run *run) noexcept nogil:
    return <Reply *> (run + 1)


cdef inline int class_of(Run *run) noexcept nogil:
    """Return how many zero bits the key begins with, as far as classes go."""
    cdef int zeros = leading_zeros(run.key_high | 1)
    return zeros if zeros < CLASSES else CLASSES - 1


cdef inline void shift_frames(Run *run, int64_t shift) noexcept nogil:
    """Renumber the frames of a run, apart from those of its replies."""
    run.first_frame += shift
    if run.requests:
        run.first_request_frame += shift
        run.asked_frame += shift
    if run.responses:
        run.answer_frame += shift
        run.last_response_frame += shift


cdef inline void shift_run(Run *run, int64_t shift) noexcept nogil:
    """Renumber the frames of a run and of the replies behind it."""
    cdef Py_ssize_t i
    shift_frames(run, shift)
    for i in range(run.replies):
        replies_of(run)[i].frame += shift


cdef class Runs:
    cdef readonly Py_ssize_t count
    cdef readonly Py_ssize_t stride
    cdef Py_ssize_t allocated
    cdef uint8_t *rows
    cdef Run *at(self, Py_ssize_t row) noexcept nogil
    cdef Run *add(self, Run *run) noexcept nogil
