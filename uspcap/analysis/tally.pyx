"""Counting frames and bytes by protocol, by size and by layer.

A. A frame's protocol class is its IP protocol for IPv4 (0..255) and IPv6 (256..511), and 512 + its EtherType
   for everything else (512 where there is none). Tables are indexed by it directly; only the pages
   that are used become resident.
B. Size classes are those of RFC 2819 (etherStatsPkts64Octets ...) on the wire length as captured.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.saturating cimport difference, saturating_add
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP, UNTRUSTED

cdef enum:
    CLASSES = 512 + 65536
    SIZES = 8
    FIELDS = 8
    LAYER_BITS = 32

PROTOCOL_CLASSES = CLASSES
SIZE_CLASSES = SIZES
LAYER_FIELDS = FIELDS


cdef inline Py_ssize_t class_of(HeaderColumns headers, Py_ssize_t i) noexcept nogil:
    if headers.ip_version[i] == 4:
        return headers.protocol[i]
    if headers.ip_version[i] == 6:
        return 256 + <Py_ssize_t> headers.protocol[i]
    return 512 + <Py_ssize_t> headers.ethertype[i]


cdef inline Py_ssize_t size_of(uint32_t length) noexcept nogil:
    return ((length > 63) + (length > 64) + (length > 127) + (length > 255) + (length > 511)
            + (length > 1023) + (length > 1518))


cdef inline bint is_multiple(int64_t timestamp, int64_t unit) noexcept nogil:
    """Whether a time is a multiple of 10^9, 10^6 or 10^3 ns; each a constant, so that nothing is divided."""
    if unit == 1000:
        return timestamp % 1000 == 0
    if unit == 1_000_000:
        return timestamp % 1_000_000 == 0
    return timestamp % 1_000_000_000 == 0


def tally_frames(FrameColumns frames, HeaderColumns headers, uint64_t[:, ::1] by_protocol,
                 uint64_t[:, ::1] by_size, uint64_t[::1] by_layer, uint64_t[:, ::1] by_interface,
                 uint64_t[::1] by_source, int64_t[::1] extremes):
    """Add a batch to the summary's tables.

    Parameters
    ----------
    by_protocol : IN OUT, shape (PROTOCOL_CLASSES, 2)
        Frames and bytes on the wire.
    by_size : IN OUT, shape (SIZE_CLASSES, 2)
    by_layer : IN OUT, shape (32,)
        Frames with each bit of the `layers` column.
    by_interface : IN OUT, shape (more than any interface, 3)
        Frames, bytes on the wire, frames that were cut.
    by_source : IN OUT, shape (at least 7,)
    extremes : IN OUT, shape (10,)
        Lowest and highest timestamp, shortest and longest wire length; then how many frames had a timestamp, the first
        timestamp and the last; the largest of 10^9, 10^6, 10^3 and 1 ns of which all timestamps are multiples; bytes on
        the wire of the frames with a timestamp, and the sum of what each timestamp is later than the one before it.

    Returns
    -------
    int
        Captured bytes of the batch.
    """
    cdef Py_ssize_t i, kind, size
    cdef uint64_t captured = 0
    cdef uint32_t wire, layers
    cdef int bit, source
    cdef int64_t timestamp
    if (by_protocol.shape[0] != CLASSES or by_size.shape[0] != SIZES or by_layer.shape[0] != LAYER_BITS
            or by_interface.shape[0] < frames.interface_count or by_source.shape[0] < 7 or extremes.shape[0] != 10
            or headers.count != frames.count):
        raise ValueError("an array has another shape than its loop expects")
    with nogil:
        for i in range(frames.count):
            wire = frames.wire_length[i]
            kind = class_of(headers, i)
            by_protocol[kind, 0] += 1
            by_protocol[kind, 1] += wire
            size = size_of(wire)
            by_size[size, 0] += 1
            by_size[size, 1] += wire
            captured += frames.captured_length[i]
            layers = headers.layers[i]
            while layers:
                bit = count_trailing_zeros(layers)
                by_layer[bit] += 1
                layers &= layers - 1
            kind = frames.interface[i]
            by_interface[kind, 0] += 1
            by_interface[kind, 1] += wire
            by_interface[kind, 2] += wire > frames.captured_length[i]
            # What is no source timestamps nothing.
            source = frames.timestamp_source[i] & ~UNTRUSTED
            by_source[source if source < NO_TIMESTAMP else NO_TIMESTAMP] += 1
            if frames.timestamp_source[i] < NO_TIMESTAMP:
                timestamp = frames.timestamp_ns[i]
                if extremes[4] == 0:
                    extremes[5] = timestamp
                elif timestamp > extremes[6]:
                    extremes[9] = saturating_add(extremes[9], difference(timestamp, extremes[6]))
                extremes[4] += 1
                extremes[6] = timestamp
                extremes[8] += wire
                while extremes[7] > 1 and not is_multiple(timestamp, extremes[7]):
                    extremes[7] //= 1000
                if timestamp < extremes[0]:
                    extremes[0] = timestamp
                if timestamp > extremes[1]:
                    extremes[1] = timestamp
            if wire < extremes[2]:
                extremes[2] = wire
            if wire > extremes[3]:
                extremes[3] = wire
    return captured


cdef extern from *:
    int count_trailing_zeros "__builtin_ctz"(unsigned int) nogil


def tally_layers(FrameColumns frames, HeaderColumns headers, uint64_t[:, ::1] by_protocol,
                 uint64_t[:, ::1] by_size):
    """Add the bytes of each layer of a batch to the overhead's tables.

    Parameters
    ----------
    by_protocol : IN OUT, shape (PROTOCOL_CLASSES, LAYER_FIELDS)
        Frames, bytes on the wire, then of those: link header, network header, transport header,
        payload, trailer (padding and whatever follows the payload), not decoded.
    by_size : IN OUT, shape (SIZE_CLASSES, LAYER_FIELDS)
    """
    cdef Py_ssize_t i, kind, size, field
    cdef uint64_t parts[FIELDS]
    cdef int64_t wire, network, transport, payload, end
    if (by_protocol.shape[0] != CLASSES or by_protocol.shape[1] != FIELDS or by_size.shape[0] != SIZES
            or by_size.shape[1] != FIELDS or headers.count != frames.count):
        raise ValueError("an array has another shape than its loop expects")
    with nogil:
        for i in range(frames.count):
            wire = frames.wire_length[i]
            network = headers.network_offset[i]
            transport = headers.transport_offset[i]
            payload = headers.payload_offset[i]
            parts[0] = 1
            parts[1] = wire
            parts[2] = parts[3] = parts[4] = parts[5] = parts[6] = parts[7] = 0
            if payload >= 0 and payload <= wire:
                if network < 0:
                    network = payload
                if transport < 0:
                    transport = payload
                parts[2] = network
                parts[3] = transport - network
                parts[4] = payload - transport
                end = payload + <int64_t> headers.payload_length[i]
                if end > wire:
                    end = wire
                parts[5] = end - payload
                parts[6] = wire - end
            else:
                parts[7] = wire
            kind = class_of(headers, i)
            size = size_of(<uint32_t> wire)
            for field in range(FIELDS):
                by_protocol[kind, field] += parts[field]
                by_size[size, field] += parts[field]
