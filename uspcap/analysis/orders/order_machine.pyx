"""Orders and their answers: connections, their streams, the requests in them, and what came back.

A. Messages come from message_streams.pyx, which also sees to the law of analyses; the table of requests is that of
   order_tables.pyx. Requests and answers are matched by client order id. A SYN without ACK restarts a connection:
   nothing that came before matters to what comes after.
B. Nothing of a login packet or message is kept.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

import numpy as np

from uspcap._core.bytes cimport be16, be32, be64
from uspcap._core.records cimport copied, dtype_of
from uspcap._core.saturating cimport LATEST_NS
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking
from uspcap.analysis.orders.order_tables cimport *
from uspcap.messages.connection_tables cimport Connection
from uspcap.messages.fix_fields cimport FixFields, fix_fields, only_char
from uspcap.messages.message_streams cimport MessageStreams
from uspcap.messages.reassembly cimport Place, stream_places
from uspcap.messages.soupbin cimport SOUP_HEADER

from uspcap._core.sampling cimport tracked

from uspcap.analysis.orders.order_tables import CONNECTION_DTYPE, REQUEST_DTYPE

cdef enum:
    AUTO = 0
    OUCH_4_2 = 1
    OUCH_5_0 = 2
    FIX = 3

cdef enum:
    RULE_COUNT = 256

# One kind of OUCH message.
cdef struct Rule:
    uint8_t kind            # a request's or an answer's; NO_KIND for other messages
    uint8_t space           # what its id names
    uint8_t id_offset
    uint8_t id_length
    uint16_t length         # without appendages; 0 for no such message
    uint16_t exact          # 1: no other length; 2: or this and appendages; 0: this or more

cdef Rule rule_record
RULE_DTYPE = dtype_of(<Rule[:1]> &rule_record)
"""Of what `protocols.order_entry.ouch_rules` makes."""


cdef class OrderMachine(OrderTables):
    """Connections, their requests, and the log of what cannot be read yet.

    Parameters
    ----------
    version : int
        0 for no OUCH version given, 1 for OUCH 4.2, 2 for OUCH 5.0, 3 for FIX only.
    rules : ndarray of RULE_DTYPE, shape (2, 2, 256)
        By OUCH version, direction (0 to the venue) and message type.
    maximum_connections, maximum_requests : int
        Bounds on what is followed one by one.
    maximum_log_bytes : int
    at_once : bool
        Nothing comes before: read connections that were joined in the middle as well.
    """

    cdef int version
    cdef object rules_owner
    cdef const Rule[:, :, ::1] rules    # by OUCH version, direction and message type

    def __cinit__(self, int version, rules, Py_ssize_t maximum_connections, Py_ssize_t maximum_requests,
                  Py_ssize_t maximum_log_bytes, bint at_once=False):
        if rules.dtype != RULE_DTYPE or rules.shape != (2, 2, RULE_COUNT):
            raise ValueError("rules have another layout")
        self.rules_owner = np.ascontiguousarray(rules)
        self.rules = self.rules_owner
        self.version = version
        self.finds_fix = version == AUTO or version == FIX
        self.finds_soup = version != FIX

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        tables = self.pack_tables(&packed)
        pack(&packed, self.requests, self.request_count * sizeof(Request))
        bounds = (self.version, self.rules_owner, self.maximum_connections, self.maximum_requests, self.maximum_log,
                  self.at_once)
        return _machine, (bounds, tables, self.request_count, finished(&packed))

    cdef int restore(self, Unpacked *unpacked, tuple tables, Py_ssize_t requests) except -1:
        self.unpack_tables(unpacked, tables)
        while self.request_count < requests:
            if not self.grow_requests():
                raise MemoryError
            unpack(unpacked, &self.requests[self.request_count], sizeof(Request))
            if unpacked.failed:
                return 0
            self.request_count += 1
        self.index_requests()
        return 0

    # --- messages -----------------------------------------------------------------------------------------------

    cdef void read_soup(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil:
        """Take one SoupBinTCP packet: U carries what goes to the venue, S what comes from it."""
        cdef Connection *connection = &self.connections[number]
        cdef int from_venue
        cdef const uint8_t *message = data + SOUP_HEADER
        cdef Py_ssize_t length = size - SOUP_HEADER
        cdef const Rule *rule
        cdef Point point
        cdef uint8_t digits[ID_BYTES]
        cdef const uint8_t *id
        cdef Py_ssize_t id_length
        cdef uint64_t venue_ns
        if data[2] == b"U":
            from_venue = 0
        elif data[2] == b"S":
            from_venue = 1
        else:
            return
        connection.counts[APPLICATION_MESSAGES] += 1
        connection.counts[FITS_4_2] += fits(&self.rules[0, from_venue, message[0]], message, length)
        connection.counts[FITS_5_0] += fits(&self.rules[1, from_venue, message[0]], message, length)
        if self.version != OUCH_4_2 and self.version != OUCH_5_0:
            return
        rule = &self.rules[self.version - OUCH_4_2, from_venue, message[0]]
        if rule.length == 0 or length < rule.length:
            connection.counts[MALFORMED] += 1
            return
        if rule.kind == NO_KIND:
            connection.counts[OTHER_MESSAGES] += 1
            return
        self.point_of(connection, direction, size, &point)
        id = message + rule.id_offset
        id_length = rule.id_length
        if id_length == 4:
            id_length = decimal(be32(id), digits)
            id = digits
        else:
            while id_length and id[id_length - 1] == b" ":
                id_length -= 1
        if from_venue:
            venue_ns = be64(message + 1)
            # What is no time that can be counted with is none.
            self.answer(number, direction, rule.kind, rule.space, id, id_length, &point,
                        <int64_t> venue_ns if venue_ns <= <uint64_t> LATEST_NS else -1)
        else:
            self.ask(number, direction, rule.kind, rule.space, id, id_length, &point, -1)

    cdef void read_fix(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil:
        """Take one FIX message."""
        cdef Connection *connection = &self.connections[number]
        cdef FixFields fields
        cdef Point point
        cdef uint8_t kind = NO_KIND, status, type
        cdef int64_t found = -1
        fix_fields(data, size, &fields)
        connection.counts[APPLICATION_MESSAGES] += 1
        if not fields.checksum_fits:
            connection.counts[CHECKSUM_MISMATCHES] += 1
        if connection.begin_string[0] == 0 and 0 < fields.begin_string.length < 14:
            memcpy(connection.begin_string, fields.begin_string.data, fields.begin_string.length)
        type = only_char(&fields.message_type)
        if only_char(&fields.possible_duplicate) == b"Y":
            connection.counts[POSSIBLE_DUPLICATES] += 1
            return
        self.point_of(connection, direction, size, &point)
        if type == b"D" or type == b"F" or type == b"G":
            kind = ENTER if type == b"D" else CANCEL if type == b"F" else REPLACE
            if fields.client_order_id.length <= 0:
                connection.counts[MALFORMED] += 1
                return
            self.ask(number, direction, kind, BY_ORDER, fields.client_order_id.data, fields.client_order_id.length,
                     &point, fields.sequence)
            return
        if type == b"8":
            status = only_char(&fields.execution_type) or only_char(&fields.order_status)
            kind = execution_kind(status)
            if fields.transaction_type.length > 0 and fields.transaction_type.data[0] != b"0":
                kind = NO_KIND
        elif type == b"9":
            kind = REJECTED
        elif (type == b"3" or type == b"j") and fields.rejected_sequence >= 0:
            self.reject_sequence(number, direction, fields.rejected_sequence, &point)
        if kind == NO_KIND:
            connection.counts[OTHER_MESSAGES] += 1
        elif fields.client_order_id.length <= 0:
            connection.counts[COUNTED_ANSWERS + kind] += 1
            connection.counts[ANSWERS_WITHOUT_REQUEST] += 1
        else:
            self.answer(number, direction, kind, BY_ORDER, fields.client_order_id.data, fields.client_order_id.length,
                        &point, -1)

    cdef void point_of(self, const Connection *connection, int direction, Py_ssize_t size, Point *point) noexcept nogil:
        cdef Place first, complete
        stream_places(&connection.streams[direction], size, &first, &complete)
        point.first_ns = first.timestamp_ns
        point.first_frame = first.frame
        point.first_source = <int32_t> first.source
        point.complete_ns = complete.timestamp_ns
        point.complete_frame = complete.frame
        point.complete_source = <int32_t> complete.source

    cdef void ask(self, Py_ssize_t number, int direction, uint8_t kind, uint8_t space, const uint8_t *id,
                  Py_ssize_t id_length, const Point *point, int64_t sequence) noexcept nogil:
        """Note a request; one with the id of another is that one again, unless it cancels what was answered."""
        cdef Connection *connection = &self.connections[number]
        cdef uint64_t hash = self.request_hash(connection, id, id_length)
        cdef uint64_t slot
        cdef Request *request
        connection.counts[REQUESTS + kind] += 1
        slot = self.find(<int32_t> number, connection.generation, hash, space, id, id_length)
        if self.request_slots[slot] >= 0:
            request = &self.requests[self.request_slots[slot] >> 1]
            if space == BY_ORDER or request.answered == 0:
                request.repeats += 1
                return
        if not tracked(hash, self.level):
            return
        if not self.grow_requests():
            self.failed = True
            return
        request = &self.requests[self.request_count]
        memset(request, 0, sizeof(Request))
        request.asked = point[0]
        request.position = connection.streams[direction].next
        request.sequence = sequence
        request.hash = hash
        request.connection = <int32_t> number
        request.generation = connection.generation
        request.kind = kind
        request.direction = direction
        request.space = space
        request.id_length = <uint32_t> id_length
        memcpy(request.id, id, id_length if id_length < ID_BYTES else ID_BYTES)
        self.request_count += 1
        self.enlist(<int32_t> (self.request_count - 1))

    cdef void answer(self, Py_ssize_t number, int direction, uint8_t kind, uint8_t space, const uint8_t *id,
                     Py_ssize_t id_length, const Point *point, int64_t venue_ns) noexcept nogil:
        """Note an answer at the request that it answers."""
        cdef Connection *connection = &self.connections[number]
        cdef uint64_t hash = self.request_hash(connection, id, id_length)
        cdef uint64_t slot
        cdef Request *request
        connection.counts[COUNTED_ANSWERS + kind] += 1
        if not tracked(hash, self.level):
            return
        slot = self.find(<int32_t> number, connection.generation, hash, space, id, id_length)
        # A cancel that was answered, or never sent, is not what was answered: the venue canceled the order.
        if space == BY_CANCEL and kind == CANCELED and (
                self.request_slots[slot] < 0
                or self.requests[self.request_slots[slot] >> 1].answered & (1 << CANCELED | 1 << REJECTED)):
            slot = self.find(<int32_t> number, connection.generation, hash, BY_ORDER, id, id_length)
        if self.request_slots[slot] < 0:
            connection.counts[ANSWERS_WITHOUT_REQUEST] += 1
            return
        self.note(&self.requests[self.request_slots[slot] >> 1], direction, kind, point, venue_ns)

    cdef void reject_sequence(self, Py_ssize_t number, int direction, int64_t sequence,
                              const Point *point) noexcept nogil:
        """Note a reject that names its request by MsgSeqNum."""
        cdef Connection *connection = &self.connections[number]
        cdef uint64_t slot = self.find_sequence(<int32_t> number, connection.generation, sequence, 1 - direction)
        if self.request_slots[slot] >= 0:
            self.note(&self.requests[self.request_slots[slot] >> 1], direction, REJECTED, point, -1)

    cdef void note(self, Request *request, int direction, uint8_t kind, const Point *point,
                   int64_t venue_ns) noexcept nogil:
        """Keep the first answer of a kind; one from the request's own side is none."""
        if request.direction == direction:
            self.connections[request.connection].counts[ANSWERS_WITHOUT_REQUEST] += 1
            return
        if kind == EXECUTED:
            request.executions += 1
        if request.answered & (1 << kind):
            return
        request.answered |= 1 << kind
        request.answers[kind] = point[0]
        request.venue_ns[kind] = venue_ns

    # --- merging ------------------------------------------------------------------------------------------------

    cdef void adopt_messages(self, MessageStreams later, const int32_t *numbers, const uint32_t *generations,
                             int64_t frame_shift) noexcept nogil:
        """Take over the requests of a later part."""
        cdef Py_ssize_t i
        cdef const Request *requests = (<OrderTables> later).requests
        for i in range((<OrderTables> later).request_count):
            self.adopt_request(&requests[i], numbers, generations, frame_shift)
        self.index_requests()

    cdef void adopt_request(self, const Request *later, const int32_t *numbers, const uint32_t *generations,
                            int64_t frame_shift) noexcept nogil:
        cdef Request *request
        cdef int i
        if numbers[later.connection] < 0 or not tracked(later.hash, self.level):
            return
        if not self.grow_requests():
            self.failed = True
            return
        request = &self.requests[self.request_count]
        request[0] = later[0]
        request.connection = numbers[later.connection]
        request.generation += generations[later.connection]
        shift_point(&request.asked, frame_shift)
        for i in range(ANSWERS):
            if request.answered & (1 << i):
                shift_point(&request.answers[i], frame_shift)
        self.request_count += 1

    # --- results ------------------------------------------------------------------------------------------------

    def request_array(self):
        """Return a copy of the requests: ndarray of REQUEST_DTYPE, shape (request_count,)."""
        return copied(self.requests, self.request_count, REQUEST_DTYPE)

    def connection_array(self):
        """Return the connections: ndarray of CONNECTION_DTYPE, shape (connection_count,)."""
        array = np.zeros(self.connection_count, CONNECTION_DTYPE)
        cdef Py_ssize_t i, j
        cdef Connection *connection
        counts = np.zeros((self.connection_count, COUNT_OF_COUNTS), np.uint64)
        cdef uint64_t[:, ::1] of_counts = counts
        for i in range(self.connection_count):
            connection = &self.connections[i]
            row = array[i]
            row["protocol"] = connection.protocol_met
            row["begin_string"] = bytes((<const uint8_t *> connection.begin_string)[:14]).rstrip(b"\0")
            row["first_frame"] = connection.first_frame
            for j in range(COUNT_OF_COUNTS):
                of_counts[i, j] = connection.counts[j]
        array["counts"] = counts
        ends = self.end_array()
        for name in ends.dtype.names:
            array[name] = ends[name]
        return array


cdef inline bint fits(const Rule *rule, const uint8_t *message, Py_ssize_t length) noexcept nogil:
    """Tell whether a message has a length that its type has."""
    if rule.length == 0:
        return False
    if length == rule.length:
        return True
    if rule.exact == 1 or length < rule.length + 2:
        return False
    return rule.exact == 0 or be16(message + rule.length) == <uint64_t> (length - rule.length - 2)


cdef inline Py_ssize_t decimal(uint64_t value, uint8_t *digits) noexcept nogil:
    """Write a number of up to ten digits; return how many there are."""
    cdef uint64_t scale = 1
    cdef Py_ssize_t length = 0
    while scale * 10 <= value:
        scale *= 10
    while scale:
        digits[length] = <uint8_t> (48 + value // scale % 10)
        length += 1
        scale //= 10
    return length


cdef inline uint8_t execution_kind(uint8_t status) noexcept nogil:
    """Return what an ExecType (150), or OrdStatus (39) where there is none, says of a request."""
    if status == b"0":
        return ACCEPTED
    if status == b"1" or status == b"2" or status == b"F":
        return EXECUTED
    if status == b"4":
        return CANCELED
    if status == b"5":
        return REPLACED
    if status == b"8":
        return REJECTED
    if status == b"A" or status == b"6" or status == b"E":
        return PENDING
    if status == b"C":
        return EXPIRED
    return NO_KIND


def _machine(tuple bounds, tuple tables, Py_ssize_t requests, bytes state):
    """Return a pickled machine."""
    cdef OrderMachine machine = OrderMachine(*bounds)
    cdef Unpacked unpacked = unpacking(state)
    machine.restore(&unpacked, tables, requests)
    all_read(&unpacked)
    return machine
