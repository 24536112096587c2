"""Sequence numbers of feeds: out of each packet by a table, into runs of packets that follow each other.

A. `FeedRule` says where things lie in the payload of a UDP packet. It is built by `uspcap.protocols.feeds` from tables;
   no code here knows a protocol by name. Every byte is read after its place was compared with what was captured.
B. A stream is a flow and what the rule takes as its session and channel. Its packets are kept as runs, as
   numbered_runs.pxd says.
C. State lives in numpy arrays that Python allocates and grows; a loop ends where one of them is full.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from uspcap._native.columns cimport FrameColumns, HeaderColumns
from uspcap._native.numbered_runs cimport *
from uspcap._native.timing cimport NO_STAMP
from uspcap._native.unaligned cimport load64

cdef extern from "<endian.h>" nogil:
    uint64_t be64toh(uint64_t)
    uint64_t htole64(uint64_t)
    uint64_t le64toh(uint64_t)

HEAD_PACKETS = HEAD
RESET_DISTANCE = FAR

KIND_DATA, KIND_HEARTBEAT, KIND_END, KIND_RESET, KIND_FILL, KIND_HOLE = DATA, HEARTBEAT, END, RESET, FILL, HOLE

RUN_DTYPE = np.dtype([
    ("stream", np.int64), ("kind", np.int64), ("first", np.uint64), ("next", np.uint64),
    ("packets", np.int64), ("messages", np.int64),
    ("first_ns", np.int64), ("last_ns", np.int64), ("first_frame", np.int64), ("last_frame", np.int64),
])
"""Packets of a stream that follow each other; of a heartbeat, `first` and `next` are the number that it announces."""

STREAM_DTYPE = np.dtype([
    ("flow", np.int64), ("key", np.uint64, 2), ("run", np.int64), ("high", np.uint64), ("head", np.int64),
    ("low", np.int64), ("clean", np.int64),
    ("packets", np.int64), ("messages", np.int64), ("heartbeats", np.int64), ("excluded", np.int64),
    ("acknowledged", np.int64),
])
"""One stream: its flow and key, its open run or -1, the highest number announced, how things stand; counts."""

cdef class FeedRule:
    """Where a protocol's session, number and count lie, and which packets are what.

    Parameters
    ----------
    header_bytes : int
        Shorter payloads are not of this protocol.
    sequence, count, length : tuple of (offset, size, big)
        Size 0 for a field that there is not; `length` is of the whole payload less `length_adds`.
    part : tuple of (offset, size, big)
        The length, header included, of each of the packets that a datagram is made of; size 0 where it is one packet.
    keys : sequence of (offset, size)
        Bytes that name session and channel, 16 together at most.
    checks : sequence of ((offset, size, big), values, are_not)
        Fields that have one of some values in every packet of the protocol, or none of them.
    kinds : tuple of ((offset, size, big), values) for data, heartbeat, end, reset
        Packets by a field's value; those that are none of these are excluded. None: a field is not asked.
    heartbeat_count, end_count, excluded_count : int
        Message counts that mean so; -1 for none.
    heartbeat_is_last : bool
        A heartbeat says the last number, not the next one.
    header_only_is_request : bool
        Messages are announced and none is there: a request for retransmission.
    wraps : bool
        Numbers go on with 0 after the highest that fits.
    length_adds : int
    unnumbered : int
        A number that says that there is none; -1 where each is one.
    """

    def __init__(self, *, int header_bytes, sequence, count, length, int64_t length_adds, part, keys, checks, kinds,
                 int64_t heartbeat_count, int64_t end_count, int64_t excluded_count, int64_t unnumbered,
                 bint heartbeat_is_last, bint header_only_is_request, bint wraps):
        self.made_of = {
            "header_bytes": header_bytes, "sequence": sequence, "count": count, "length": length,
            "length_adds": length_adds, "part": part, "keys": keys, "checks": checks, "kinds": kinds,
            "heartbeat_count": heartbeat_count, "end_count": end_count, "excluded_count": excluded_count,
            "unnumbered": unnumbered, "heartbeat_is_last": heartbeat_is_last,
            "header_only_is_request": header_only_is_request, "wraps": wraps,
        }
        self.header_bytes = header_bytes
        self.sequence = field_of(sequence)
        if not self.sequence.size:
            raise ValueError("a rule has a sequence number")
        self.count = field_of(count)
        self.length = field_of(length)
        self.length_adds = length_adds
        self.part = field_of(part)
        if len(keys) > 4 or sum(size for _, size in keys) > 16 or len(checks) > MOST_CHECKS:
            raise ValueError("a rule has 4 keys of 16 bytes together, and 4 checks, at most")
        self.key_count = len(keys)
        for at, (offset, size) in enumerate(keys):
            if offset < 0 or size < 1:
                raise ValueError("a key has a place")
            self.key_offset[at], self.key_size[at] = offset, size
        self.check_count = len(checks)
        for at, one in enumerate(checks):
            place, values, are_not = one
            self.checks[at] = values_of((place, values))
            self.checks[at].are_not = are_not
        self.has_kinds = kinds is not None
        if self.has_kinds:
            for at, one in enumerate(kinds):
                self.kinds[at] = values_of(one)
        self.heartbeat_count = heartbeat_count
        self.end_count = end_count
        self.excluded_count = excluded_count
        self.unnumbered = unnumbered
        self.heartbeat_is_last = heartbeat_is_last
        self.header_only_is_request = header_only_is_request
        self.wraps = wraps
        self.check_place(self.sequence)
        self.check_place(self.count)
        self.check_place(self.length)
        self.check_place(self.part)
        for at in range(self.check_count):
            self.check_place(self.checks[at].field)
        for at in range(4 if self.has_kinds else 0):
            self.check_place(self.kinds[at].field)
        for at in range(self.key_count):
            if self.key_offset[at] + self.key_size[at] > header_bytes:
                raise ValueError(f"a key lies beyond the header of {header_bytes} bytes")
        self.modulus = <uint64_t> 1 << 8 * self.sequence.size if self.sequence.size < 8 else 0

    def __reduce__(self):
        return _rule, (self.made_of,)

    cdef int check_place(self, Field field) except -1:
        if field.size and field.offset + field.size > self.header_bytes:
            raise ValueError(f"a field lies beyond the header of {self.header_bytes} bytes")
        return 0

    cdef Py_ssize_t parse(self, const uint8_t *data, Py_ssize_t captured, Py_ssize_t length,
                          Packet *packet) noexcept nogil:
        """Say what a payload is, of which so much was captured; return how many bytes of it that is."""
        cdef int at
        cdef uint64_t value
        cdef uint64_t count = 1
        cdef int used = 0
        cdef Py_ssize_t taken = length
        packet.kind = FOREIGN
        if length < self.header_bytes or captured < self.header_bytes:
            return length
        if self.length.size and <int64_t> load(data, self.length) + self.length_adds != length:
            return length
        if self.part.size:
            value = load(data, self.part)
            if value < <uint64_t> self.header_bytes or value > <uint64_t> length:
                return length
            taken = <Py_ssize_t> value
        for at in range(self.check_count):
            if is_one_of(load(data, self.checks[at].field), &self.checks[at]) == self.checks[at].are_not:
                return length
        packet.kind = DATA
        if self.has_kinds:
            packet.kind = EXCLUDED
            for at in range(4):
                if self.kinds[at].count and is_one_of(load(data, self.kinds[at].field), &self.kinds[at]):
                    packet.kind = at
                    break
        if self.key_count == 1:
            load_key(data + self.key_offset[0], self.key_size[0], packet.key)
        else:
            packet.key[0] = packet.key[1] = 0
            for at in range(self.key_count):
                memcpy(<uint8_t *> packet.key + used, data + self.key_offset[at], self.key_size[at])
                used += self.key_size[at]
        value = load(data, self.sequence)
        if self.unnumbered >= 0 and value == <uint64_t> self.unnumbered:
            packet.kind = EXCLUDED
        if self.count.size and packet.kind == DATA:
            count = load(data, self.count)
            if <int64_t> count == self.heartbeat_count:
                packet.kind = HEARTBEAT
            elif <int64_t> count == self.end_count:
                packet.kind = END
            elif <int64_t> count == self.excluded_count or (
                    self.header_only_is_request and length == self.header_bytes and count):
                packet.kind = EXCLUDED
        packet.first = value
        packet.next = value + count
        if packet.kind == HEARTBEAT or packet.kind == END:
            if self.heartbeat_is_last:
                packet.first += 1
            packet.next = packet.first
        elif packet.kind == RESET:
            packet.next = packet.first
        packet.messages = <int64_t> (packet.next - packet.first)
        return taken


cdef Field field_of(given):
    cdef Field field
    field.offset, field.size, field.big = given
    if not 0 <= field.size <= 8 or field.offset < 0:
        raise ValueError("a field has 1 to 8 bytes and a place")
    return field


cdef Values values_of(given):
    cdef Values values
    place, wanted = given
    values.field = field_of(place)
    values.are_not = False
    if len(wanted) > MOST_VALUES:
        raise ValueError(f"a field is compared with {MOST_VALUES} values at most")
    values.count = len(wanted)
    for at, value in enumerate(wanted):
        values.values[at] = value
    return values


def _rule(dict made_of):
    """Return a pickled rule."""
    return FeedRule(**made_of)


cdef inline uint64_t load(const uint8_t *data, Field field) noexcept nogil:
    """Return a field of 1 to 8 bytes: out of the eight that end where it does, as there is a UDP header before it."""
    cdef uint64_t word = load64(data + field.offset + field.size - 8)
    cdef int unused = 64 - 8 * field.size
    return be64toh(word) << unused >> unused if field.big else le64toh(word) >> unused


cdef inline void load_key(const uint8_t *data, int size, uint64_t *key) noexcept nogil:
    """Take one field of 1 to 16 bytes for the whole key."""
    cdef int tail = size if size <= 8 else size - 8
    key[0] = key[1] = 0
    if size > 8:
        key[0] = load64(data)
        key += 1
    # The bytes from the first on, whatever this machine's order, and zeros behind.
    key[0] = htole64(le64toh(load64(data + size - 8)) >> (64 - 8 * tail))


cdef inline bint is_one_of(uint64_t value, const Values *values) noexcept nogil:
    cdef int at
    for at in range(values.count):
        if value == values.values[at]:
            return True
    return False


cdef bint payload_of(FrameColumns frames, HeaderColumns headers, Py_ssize_t row, const uint8_t **data,
                     Py_ssize_t *captured, Py_ssize_t *length) noexcept nogil:
    """Find the payload of a UDP packet; False for other frames, and fragments after the first."""
    cdef int32_t offset = headers.payload_offset[row]
    if headers.protocol[row] != UDP or offset < 0 or headers.transport_offset[row] < 0:
        return False
    data[0] = frames.data + frames.offset[row] + offset
    captured[0] = <Py_ssize_t> frames.captured_length[row] - offset
    length[0] = headers.payload_length[row]
    if captured[0] > length[0]:
        captured[0] = length[0]
    return captured[0] > 0


def track_runs(FrameColumns frames, HeaderColumns headers, int64_t frame_shift, Py_ssize_t first_row,
               Py_ssize_t first_byte, FeedRule rule not None, uint8_t[::1] streams, Py_ssize_t streams_used,
               int32_t[::1] table, int32_t[::1] of_flow, uint8_t[::1] runs, Py_ssize_t runs_used, int64_t[::1] counts):
    """Take the rows of a batch from `first_row` on, and of that the payload from `first_byte` on.

    Parameters
    ----------
    streams : IN OUT, STREAM_DTYPE as bytes
    table : IN OUT, ndarray of int32, a power of two of entries
        Streams by the hash of flow and key, -1 for none; at most half full.
    of_flow : IN OUT, ndarray of int32
        The stream that each flow was met with last, -1 for none.
    runs : IN OUT, RUN_DTYPE as bytes
    counts : IN OUT, ndarray of int64, shape (3,)
        Packets that are foreign, of flows that are not followed, and without a stamp.

    Returns
    -------
    tuple of int
        The first row not taken, as an array is full (else the count of rows), how much of its payload is taken, and how
        many streams and runs are used.
    """
    cdef Stream *of_stream = <Stream *> &streams[0]
    cdef Run *of_run = <Run *> &runs[0]
    cdef Py_ssize_t stream_room = streams.shape[0] // <Py_ssize_t> sizeof(Stream)
    cdef Py_ssize_t run_room = runs.shape[0] // <Py_ssize_t> sizeof(Run)
    cdef Py_ssize_t row = first_row
    cdef Py_ssize_t byte = first_byte
    cdef Py_ssize_t captured, length, taken
    cdef const uint8_t *data
    cdef Packet packet
    cdef int64_t flow, at
    cdef uint64_t mask = <uint64_t> table.shape[0] - 1
    cdef Stream *stream
    cdef Numbering numbering
    numbering.modulus = rule.modulus if rule.wraps else 0
    numbering.far = 0
    with nogil:
        while row < frames.count:
            if not payload_of(frames, headers, row, &data, &captured, &length):
                row += 1
                continue
            taken = rule.parse(data + byte, captured - byte, length - byte, &packet)
            if packet.kind == FOREIGN:
                counts[0] += 1
                row += 1
                byte = 0
                continue
            flow = headers.flow[row]
            if flow < 0:
                counts[1] += 1
                row += 1
                byte = 0
                continue
            if frames.timestamp_source[row] >= NO_STAMP:
                counts[2] += 1
            if runs_used == run_room:
                break
            at = stream_of(of_stream, &streams_used, stream_room, &table[0], mask, &of_flow[0], flow, packet.key)
            if at < 0:
                break
            stream = &of_stream[at]
            if packet.kind == EXCLUDED:
                stream.excluded += 1
            else:
                runs_used = take(stream, at, of_run, runs_used, &packet, &numbering, frames.timestamp_ns[row],
                                 frames.frame_number[row] + frame_shift)
            byte += taken
            if byte == length:
                row += 1
                byte = 0
    return row, byte, streams_used, runs_used


def fill_table(uint8_t[::1] streams, Py_ssize_t streams_used, int32_t[::1] table):
    """Put all streams into an empty table."""
    cdef Stream *of_stream = <Stream *> &streams[0]
    cdef Py_ssize_t at
    cdef int64_t place
    for at in range(streams_used):
        place = find_place(of_stream, &table[0], <uint64_t> table.shape[0] - 1, of_stream[at].flow, of_stream[at].key)
        if place < 0:
            table[-1 - place] = <int32_t> at
