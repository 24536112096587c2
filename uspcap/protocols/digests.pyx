"""Digests of frames: the same for the same frame wherever it was captured, as far as a key asks.

A. Lanes of eight bytes are folded in by 64 x 64 -> 128-bit multiplication, both halves of the product exclusive-ored,
   two lanes at a time; length and header fields are folded in as numbers. Two different frames share a digest by chance
   once in 2**64: among a million frames at a time, 3e-8 such pairs are to be expected.
B. Only captured bytes are read. What of the transport part lies beyond `limit` bytes is left out, so that a capture
   that was cut can be compared with one that was not.
C. A digest of 0 says that a frame has nothing that the key asks for.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

import numpy as np

from uspcap._core.bytes cimport load64
from uspcap._core.columns cimport ADDRESS_BYTES, FrameColumns, HeaderColumns
from uspcap._core.folding cimport fold

KEYS = ("network", "payload", "whole", "fields")
"""What a digest is made of; see `uspcap.comparison.keys`."""

cdef enum:
    ICMP = 1
    TCP = 6
    UDP = 17
    ICMP6 = 58
    UDP_LITE = 136
    FRAGMENT = 1 << 11          # uspcap.protocols.headers.Layer
    MORE_FRAGMENTS = 1 << 12

cdef uint64_t MIX_A = 0x9E3779B97F4A7C15      # odd, half of the bits set: 2**64 by the golden ratio
cdef uint64_t MIX_B = 0xC2B2AE3D27D4EB4F      # the same of another irrational number
cdef uint64_t MIX_C = 0x165667B19E3779F9


cdef inline uint64_t number(uint64_t state, uint64_t value) noexcept nogil:
    return fold(state ^ MIX_A, value ^ MIX_B)


cdef uint64_t stretch(uint64_t state, const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Fold `length` bytes in; their number too."""
    cdef uint64_t other = MIX_C
    cdef uint64_t tail = 0
    cdef Py_ssize_t at = 0
    state = number(state, <uint64_t> length)
    while length - at >= 16:
        state = fold(state ^ load64(data + at), MIX_A)
        other = fold(other ^ load64(data + at + 8), MIX_B)
        at += 16
    if length - at >= 8:
        state = fold(state ^ load64(data + at), MIX_A)
        at += 8
    while at < length:
        tail = tail << 8 | data[at]
        at += 1
    return fold(state ^ tail, other ^ MIX_B)


def digest(FrameColumns frames, HeaderColumns headers, int key, int64_t limit, uint64_t[::1] out):
    """Fill `out` with a digest for each frame.

    Parameters
    ----------
    frames : FrameColumns
    headers : HeaderColumns
        Decoded from these frames; not looked at for `whole`.
    key : int
        Index into `KEYS`.
    limit : int
        Bytes of the transport part, of the payload or of the whole frame that count.
    out : ndarray of uint64
        At least as long as the batch.

    Raises
    ------
    ValueError
        `out` is too short, the headers are of another batch, or there is no such key.
    """
    cdef Py_ssize_t row
    if out.shape[0] < frames.count or (key != WHOLE and headers.count < frames.count):
        raise ValueError("digests and headers must have a row for each frame")
    if not 0 <= key <= FIELDS or limit < 0:
        raise ValueError(f"there is no key {key} of {limit} bytes")
    with nogil:
        for row in range(frames.count):
            out[row] = digest_of(frames, headers, key, limit, row)


cdef uint64_t digest_of(FrameColumns frames, HeaderColumns headers, int key, int64_t limit,
                        Py_ssize_t row) noexcept nogil:
    cdef const uint8_t *data = frames.data + frames.offset[row]
    cdef int64_t captured = frames.captured_length[row]
    cdef int64_t start, end
    cdef uint64_t state
    if key == WHOLE:
        state = number(MIX_C, frames.wire_length[row])
        return finish(stretch(state, data, captured if captured < limit else limit))
    if headers.payload_offset[row] < 0:
        return 0
    end = <int64_t> headers.payload_offset[row] + headers.payload_length[row]
    start = headers.payload_offset[row]
    if key == PAYLOAD:
        if start >= end:
            return 0
        state = number(MIX_C, <uint64_t> (end - start))
        return finish(stretch(state, data + start, within(start, end, captured, limit)))
    state = of_network(headers, row, MIX_C)
    if key == FIELDS:
        return finish(of_fields(headers, row, state))
    if headers.transport_offset[row] < 0:
        state = number(state, <uint64_t> (end - start))
        return finish(stretch(state, data + start, within(start, end, captured, limit)))
    start = headers.transport_offset[row]
    state = number(state, <uint64_t> (end - start))
    return finish(of_transport(headers.protocol[row], data + start, within(start, end, captured, limit), state))


cdef inline uint64_t finish(uint64_t state) noexcept nogil:
    return state if state else 1


cdef inline Py_ssize_t within(int64_t start, int64_t end, int64_t captured, int64_t limit) noexcept nogil:
    """How many bytes from `start` on are captured and count."""
    cdef int64_t stop = end if end < captured else captured
    if stop <= start:
        return 0
    return limit if stop - start > limit else stop - start


cdef inline uint64_t of_network(HeaderColumns headers, Py_ssize_t row, uint64_t state) noexcept nogil:
    """Fold in who sent what kind of thing to whom, and the identification where there is one."""
    cdef const uint8_t *source = headers.source_address + ADDRESS_BYTES * row
    cdef const uint8_t *destination = headers.destination_address + ADDRESS_BYTES * row
    if not headers.ip_version[row]:
        return number(state, headers.ethertype[row])
    state = number(state, <uint64_t> headers.protocol[row] << 32 | headers.ip_id[row])
    if headers.layers[row] & FRAGMENT:
        state = number(state, <uint64_t> headers.fragment_offset[row] << 1
                       | ((headers.layers[row] & MORE_FRAGMENTS) != 0))
    state = fold(state ^ load64(source), load64(source + 8) ^ MIX_A)
    return fold(state ^ load64(destination), load64(destination + 8) ^ MIX_B)


cdef inline uint64_t of_fields(HeaderColumns headers, Py_ssize_t row, uint64_t state) noexcept nogil:
    """Fold in what the transport header says, and how much follows."""
    state = number(state, <uint64_t> headers.source_port[row] << 48 | <uint64_t> headers.destination_port[row] << 32
                   | headers.payload_length[row])
    state = number(state, <uint64_t> headers.tcp_sequence[row] << 32 | headers.tcp_acknowledgment[row])
    return number(state, <uint64_t> headers.tcp_flags[row] << 16 | <uint64_t> headers.icmp_type[row] << 8
                  | headers.icmp_code[row])


cdef inline uint64_t of_transport(uint8_t protocol, const uint8_t *data, Py_ssize_t length,
                                  uint64_t state) noexcept nogil:
    """Fold in a transport header and what follows, without the checksum, which changes on the way."""
    cdef Py_ssize_t checksum = -1
    if protocol == TCP:
        checksum = 16
    elif protocol == UDP or protocol == UDP_LITE:
        checksum = 6
    elif protocol == ICMP or protocol == ICMP6:
        checksum = 2
    if checksum < 0 or length < checksum:
        return stretch(state, data, length)
    state = stretch(state, data, checksum)
    if length <= checksum + 2:
        return state
    return stretch(state, data + checksum + 2, length - checksum - 2)
