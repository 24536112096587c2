"""TCP's own sequence numbers as those of a stream: each byte has one, and so have SYN and FIN (RFC 9293, 3.4).

A. A segment with payload is a packet that holds so many numbers; SYN restarts the stream, FIN takes a number and
   ends it. A segment without any announces the next number: what its sender has sent up to there was sent before.
B. RST is excluded, as the number that it has may be any that the other end expects (RFC 9293, 3.10.7.1).
C. What the sender acknowledges is of the other direction's numbers; the last such number is kept.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap.analysis.sequence.numbered_runs cimport *
from uspcap.analysis.sequence.numbered_streams cimport NumberedStreams

cdef enum:
    TCP = 6
    FIN = 0x01
    SYN = 0x02
    RST = 0x04
    ACK = 0x10
    FLAGS_END = 14          # bytes of a header up to its flags
    BEGUN = -2              # no acknowledgement since the SYN


cdef inline bint is_segment(FrameColumns frames, HeaderColumns headers, Py_ssize_t row) noexcept nogil:
    """Tell whether a row is a TCP segment whose header was captured up to its flags."""
    return (headers.protocol[row] == TCP and headers.transport_offset[row] >= 0 and headers.payload_offset[row] >= 0
            and headers.fragment_offset[row] == 0
            and <int64_t> frames.captured_length[row] >= headers.transport_offset[row] + FLAGS_END)


def track_segments(FrameColumns frames, HeaderColumns headers, int64_t frame_shift, NumberedStreams streams not None):
    """Take the segments of a batch into their streams, as `feed_runs.track_runs` does."""
    cdef Py_ssize_t row
    cdef uint64_t no_key[2]
    cdef int64_t at
    no_key[0] = no_key[1] = 0
    if headers.count != frames.count:
        raise ValueError("the headers are not those of this batch")
    with nogil:
        for row in range(frames.count):
            if not is_segment(frames, headers, row):
                continue
            streams.packets += is_numbered(headers, row)
            at = streams.stream_of(frames, headers, row, no_key)
            if at >= 0:
                take_segment(&streams.tables, at, headers.tcp_sequence[row], headers.tcp_acknowledgment[row],
                             headers.payload_length[row], headers.tcp_flags[row], frames.timestamp_ns[row],
                             frames.frame_number[row] + frame_shift)
    streams.keep_bounds()


cdef inline bint is_numbered(HeaderColumns headers, Py_ssize_t row) noexcept nogil:
    """Tell whether a segment is a packet of its stream."""
    return not headers.tcp_flags[row] & RST and (headers.payload_length[row] or headers.tcp_flags[row] & FIN)


cdef inline void take_segment(RunTables *tables, int64_t number, uint32_t sequence, uint32_t acknowledgment,
                              uint32_t length, uint32_t flags, int64_t at_ns, int64_t frame) noexcept nogil:
    """Take one segment into its stream."""
    cdef Stream *stream = &tables.streams[number]
    cdef Packet packet
    packet.first = sequence
    packet.length = packet.messages = 0
    packet.key[0] = packet.key[1] = 0
    if flags & RST:
        stream.excluded += 1
        return
    if flags & SYN:
        # The number after the SYN's own.
        packet.kind = RESET
        packet.first = <uint32_t> (sequence + 1)
        take(tables, number, &packet, at_ns, frame)
        stream.acknowledged = BEGUN
    if flags & ACK:
        stream.acknowledged = acknowledgment
    if length or flags & FIN:
        packet.kind = DATA
        packet.length = <uint64_t> length + (1 if flags & FIN else 0)
        packet.messages = length
        take(tables, number, &packet, at_ns, frame)
        if flags & FIN:
            packet.kind = END
            packet.first = <uint32_t> (packet.first + packet.length)
            packet.length = packet.messages = 0
            take(tables, number, &packet, at_ns, frame)
    elif not flags & SYN:
        packet.kind = HEARTBEAT
        take(tables, number, &packet, at_ns, frame)
