"""Sequence numbers of feeds: out of each packet by a table.

A. `FeedRule` says where things lie in the payload of a UDP packet. It is built by `uspcap.protocols.feeds` from tables;
   no code here knows a protocol by name. Every byte is read after its place was compared with what was captured.
B. A packet that claims numbers that its field cannot hold, or more than half of those that begin again, is not of the
   protocol. What is left is unsigned, and cannot overflow.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.string cimport memcpy

from uspcap._core.bytes cimport load64
from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap.protocols.numbered_packets cimport *

cdef extern from "<endian.h>" nogil:
    uint64_t be64toh(uint64_t)
    uint64_t htole64(uint64_t)
    uint64_t le64toh(uint64_t)

cdef enum:
    FARTHEST = 1 << 16          # of an offset: the longest payload of UDP


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
    heartbeat_count, end_count, excluded_count : int or None
        Message counts that mean so.
    heartbeat_is_last : bool
        A heartbeat says the last number, not the next one.
    header_only_is_request : bool
        Messages are announced and none is there: a request for retransmission.
    wraps : bool
        Numbers go on with 0 after the highest that fits.
    length_adds : int
    unnumbered : int or None
        A number that says that there is none.

    Raises
    ------
    ValueError
        It makes no sense, or is beyond what a packet can hold.
    """

    def __init__(self, *, int header_bytes, sequence, count, length, int length_adds, part, keys, checks, kinds,
                 heartbeat_count, end_count, excluded_count, unnumbered,
                 bint heartbeat_is_last, bint header_only_is_request, bint wraps):
        if not 1 <= header_bytes <= FARTHEST or not -FARTHEST <= length_adds <= FARTHEST:
            raise ValueError(f"a header has 1 to {FARTHEST} bytes")
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
            if not 0 <= offset <= FARTHEST or not 1 <= size <= 16:
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
        self.heartbeat_count = value_of(heartbeat_count)
        self.end_count = value_of(end_count)
        self.excluded_count = value_of(excluded_count)
        self.unnumbered = value_of(unnumbered)
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
        self.number_bits = 8 * self.sequence.size
        self.highest = ~<uint64_t> 0 >> 64 - self.number_bits

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
        if self.length.size and load(data, self.length) + <uint64_t> self.length_adds != <uint64_t> length:
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
        if is_value(value, &self.unnumbered):
            packet.kind = EXCLUDED
        if self.count.size and packet.kind == DATA:
            count = load(data, self.count)
            if is_value(count, &self.heartbeat_count):
                packet.kind = HEARTBEAT
            elif is_value(count, &self.end_count):
                packet.kind = END
            elif is_value(count, &self.excluded_count) or (
                    self.header_only_is_request and length == self.header_bytes and count):
                packet.kind = EXCLUDED
        packet.first = value
        packet.length = packet.messages = 0
        if packet.kind == DATA:
            # The last of them is a number of the field; or, of those that begin again, they are less than half.
            if self.wraps and count > (self.highest >> 1) + 1 or not self.wraps and count and (
                    count - 1 > self.highest - value):
                packet.kind = FOREIGN
                return length
            packet.length = packet.messages = count
        elif packet.kind == HEARTBEAT or packet.kind == END:
            packet.length = self.heartbeat_is_last
        return taken


cdef Field field_of(given):
    cdef Field field
    field.offset, field.size, field.big = given
    if not 0 <= field.size <= 8 or not 0 <= field.offset <= FARTHEST:
        raise ValueError("a field has 1 to 8 bytes and a place")
    return field


cdef Value value_of(given) except *:
    cdef Value value
    value.given = given is not None
    value.value = given if given is not None else 0
    return value


cdef inline bint is_value(uint64_t value, const Value *wanted) noexcept nogil:
    return wanted.given and value == wanted.value


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
