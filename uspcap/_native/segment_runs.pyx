"""TCP's own sequence numbers as those of a stream: each byte has one, and so have SYN and FIN (RFC 9293, 3.4).

A. A segment with payload is a packet that holds so many numbers; SYN begins the stream anew, FIN takes a number and
   ends it. A segment without any announces the next number: what its sender has sent up to there was sent before.
B. RST is excluded, as the number that it has may be any that the other end expects (RFC 9293, 3.10.7.1).
C. What the sender acknowledges is of the other direction's numbers; the last such number is kept.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from uspcap._native.columns cimport FrameColumns, HeaderColumns
from uspcap._native.numbered_runs cimport *
from uspcap._native.timing cimport NO_STAMP

cdef enum:
    TCP = 6
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    ACK = 0x10
    FLAGS_END = 14          # bytes of a header up to its flags
    MOST_RUNS = 3           # of one segment
    NOT_SEEN = -1           # no acknowledgement, and no SYN
    BEGUN = -2              # no acknowledgement since the SYN

MODULUS = 1 << 32
FAR_BYTES = 1 << 30
"""The largest window (RFC 7323, 2.3): a segment farther away than this is of another connection."""

RUNS_OF_A_SEGMENT = MOST_RUNS

cdef Numbering NUMBERING
NUMBERING.modulus = <uint64_t> 1 << 32
NUMBERING.far = <int64_t> 1 << 30


cdef inline bint is_segment(FrameColumns frames, HeaderColumns headers, Py_ssize_t row) noexcept nogil:
    """Tell whether a row is a TCP segment whose header was captured up to its flags."""
    return (headers.protocol[row] == TCP and headers.transport_offset[row] >= 0 and headers.payload_offset[row] >= 0
            and headers.fragment_offset[row] == 0
            and <int64_t> frames.captured_length[row] >= headers.transport_offset[row] + FLAGS_END)


def track_segments(FrameColumns frames, HeaderColumns headers, int64_t frame_shift, Py_ssize_t first_row,
                   uint8_t[::1] streams, Py_ssize_t streams_used, int32_t[::1] table, int32_t[::1] of_flow,
                   uint8_t[::1] runs, Py_ssize_t runs_used, int64_t[::1] counts):
    """Take the rows of a batch from `first_row` on, as `feed_runs.track_runs` does.

    Returns
    -------
    tuple of int
        The first row not taken, as an array has not room for RUNS_OF_A_SEGMENT more (else the count of rows), and how
        many streams and runs are used.
    """
    cdef Stream *of_stream = <Stream *> &streams[0]
    cdef Run *of_run = <Run *> &runs[0]
    cdef Py_ssize_t stream_room = streams.shape[0] // <Py_ssize_t> sizeof(Stream)
    cdef Py_ssize_t run_room = runs.shape[0] // <Py_ssize_t> sizeof(Run)
    cdef Py_ssize_t row = first_row
    cdef uint64_t mask = <uint64_t> table.shape[0] - 1
    cdef uint64_t no_key[2]
    cdef int64_t at
    no_key[0] = no_key[1] = 0
    with nogil:
        while row < frames.count:
            if not is_segment(frames, headers, row):
                row += 1
                continue
            if headers.flow[row] < 0:
                counts[1] += 1
                row += 1
                continue
            if runs_used + MOST_RUNS > run_room:
                break
            at = stream_of(of_stream, &streams_used, stream_room, &table[0], mask, &of_flow[0], headers.flow[row],
                           no_key)
            if at < 0:
                break
            if frames.timestamp_source[row] >= NO_STAMP:
                counts[2] += 1
            runs_used = take_segment(&of_stream[at], at, of_run, runs_used, headers.tcp_sequence[row],
                                     headers.tcp_acknowledgment[row], headers.payload_length[row],
                                     headers.tcp_flags[row], frames.timestamp_ns[row],
                                     frames.frame_number[row] + frame_shift)
            row += 1
    return row, streams_used, runs_used


cdef inline Py_ssize_t take_segment(Stream *stream, int64_t number, Run *runs, Py_ssize_t used, uint32_t sequence,
                                    uint32_t acknowledgment, uint32_t length, uint32_t flags, int64_t stamp_ns,
                                    int64_t frame) noexcept nogil:
    """Take one segment into its stream; return how many runs are used then, MOST_RUNS more at most."""
    cdef Packet packet
    cdef uint64_t first = sequence
    if flags & RST:
        stream.excluded += 1
        return used
    packet.messages = 0
    packet.key[0] = packet.key[1] = 0
    if flags & SYN:
        # The number after the SYN's own.
        first = <uint32_t> (sequence + 1)
        packet.kind = RESET
        packet.first = packet.next = first
        used = take(stream, number, runs, used, &packet, &NUMBERING, stamp_ns, frame)
        stream.acknowledged = BEGUN
    if flags & ACK:
        stream.acknowledged = acknowledgment
    if length or flags & FIN:
        packet.kind = DATA
        packet.first = first
        packet.next = first + length + (1 if flags & FIN else 0)
        packet.messages = length
        used = take(stream, number, runs, used, &packet, &NUMBERING, stamp_ns, frame)
        if flags & FIN:
            packet.kind = END
            packet.first = packet.next
            packet.messages = 0
            used = take(stream, number, runs, used, &packet, &NUMBERING, stamp_ns, frame)
    elif not flags & SYN:
        packet.kind = HEARTBEAT
        packet.first = packet.next = first
        used = take(stream, number, runs, used, &packet, &NUMBERING, stamp_ns, frame)
    return used
