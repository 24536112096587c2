"""Packets of feeds, into runs of packets that follow each other.

What a payload says is read by the feed's rule (feed_rule.pyx). A stream is a flow and what the rule takes as its
session and channel (numbered_streams.pyx).
"""

from libc.stdint cimport int64_t, uint8_t

from uspcap._core.columns cimport FrameColumns, HeaderColumns, time_of
from uspcap.analysis.sequence.numbered_runs cimport *
from uspcap.analysis.sequence.numbered_streams cimport NumberedStreams
from uspcap.protocols.feed_rule cimport FeedRule, payload_of

cdef enum:
    MORE_FRAGMENTS = 1 << 12    # of `layers`, as _core/headers.pyx has it


cdef inline void take_row(FrameColumns frames, HeaderColumns headers, Py_ssize_t row, int64_t frame_shift,
                          FeedRule rule, NumberedStreams streams) noexcept nogil:
    """Take the packets of one datagram into their streams."""
    cdef Py_ssize_t captured, length
    cdef Py_ssize_t byte = 0
    cdef const uint8_t *data
    cdef Packet packet
    cdef int64_t at
    if not payload_of(frames, headers, row, &data, &captured, &length):
        return
    while byte < length:
        byte += rule.parse(data + byte, captured - byte, length - byte, &packet)
        if packet.kind == FOREIGN:
            streams.foreign += 1
            break
        streams.packets += packet.kind == DATA
        at = streams.stream_of(frames, headers, row, packet.key)
        if at < 0:
            continue
        if packet.kind == EXCLUDED:
            streams.tables.streams[at].excluded += 1
        else:
            take(&streams.tables, at, &packet, time_of(frames, row), frames.frame_number[row] + frame_shift)


def track_runs(FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift, FeedRule rule not None,
               NumberedStreams streams not None):
    """Take the packets of a batch into their streams.

    Parameters
    ----------
    frame_shift : int
        Added to the batch's frame numbers.
    """
    cdef Py_ssize_t row
    if headers.count != frames.count:
        raise ValueError("the headers are not those of this batch")
    with nogil:
        for row in range(frames.count):
            take_row(frames, headers, row, frame_shift, rule, streams)
    streams.keep_bounds()


def track_with_datagrams(FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift,
                         FeedRule rule not None, NumberedStreams streams not None, Py_ssize_t first, Py_ssize_t last,
                         FrameColumns datagrams not None, HeaderColumns datagram_headers not None,
                         const int64_t[::1] completed_by):
    """Take some rows of a batch that has IP fragments: in place of these, the datagrams that they complete.

    Parameters
    ----------
    frame_shift : int
        Added to the batch's frame numbers, not to those of `datagrams`.
    first, last : int
        The rows from `first` to before `last`.
    datagrams, datagram_headers, completed_by
        What was put together, and by which row, rising (`uspcap.messages.fragments.Datagrams`).
    """
    cdef Py_ssize_t row
    cdef Py_ssize_t following = 0
    if headers.count != frames.count or not 0 <= first <= last <= frames.count:
        raise ValueError("the headers are not those of this batch")
    if datagrams.count and (datagram_headers.count != datagrams.count or completed_by.shape[0] < datagrams.count):
        raise ValueError("the headers are not those of the datagrams")
    with nogil:
        for row in range(first, last):
            if following < datagrams.count and completed_by[following] == row:
                take_row(datagrams, datagram_headers, following, 0, rule, streams)
                following += 1
            elif not (headers.fragment_offset[row] or headers.layers[row] & MORE_FRAGMENTS):
                take_row(frames, headers, row, frame_shift, rule, streams)
    streams.keep_bounds()
