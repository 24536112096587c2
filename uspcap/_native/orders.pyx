"""Orders and their answers: connections, their streams, the requests in them, and what came back.

A. A connection is two endpoints, whichever way; its streams are reassembled (reassembly.pyx), cut into messages
   (soupbin.pyx, fix_fields.pyx) and their requests and answers matched by client order id. A SYN without ACK begins it
   anew: nothing that came before matters to what comes after. The tables are those of order_tables.pyx.
B. The law of analyses. Of a connection whose SYN was not seen, this part of the capture may hold the middle: its
   segments are kept in a log, and read where what came before is known, in `absorb`. A result is `absorb` into an
   empty machine that reads at once (`at_once`), so that the state here stays as it is.
C. The log is bounded. Over the bound the connections with most in it are settled: taken as joined in the middle, here
   and now. Nothing is lost by that unless a part with their beginning is merged before; that is counted.
D. Nothing of a login packet or message is kept.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memmove, memset

import numpy as np

from uspcap._native.columns cimport FrameColumns, HeaderColumns
from uspcap._native.fix_fields cimport FixFields, Text, fix_boundary, fix_fields, fix_message
from uspcap._native.order_tables cimport *
from uspcap._native.reassembly cimport (
    STREAM_ELSEWHERE, STREAM_FULL, STREAM_NO_MEMORY, Place, Stream, stream_add, stream_consume, stream_contiguous,
    stream_copy, stream_free, stream_places, stream_position, stream_skip_hole, stream_start,
)
from uspcap._native.soupbin cimport SOUP_HEADER, soup_boundary, soup_packet

from uspcap._native.order_tables import CONNECTION_DTYPE, REQUEST_DTYPE

cdef enum:
    TCP = 6
    SYN = 0x02
    ACK = 0x10

cdef enum:
    AUTO = 0
    OUCH_4_2 = 1
    OUCH_5_0 = 2
    FIX = 3

cdef enum:
    RULE_COUNT = 256
    SEARCHED = 1 << 14      # bytes kept while no boundary is found
    GIVE_UP = 1 << 18       # bytes without a message, after which a connection is none of ours


# One kind of OUCH message; mirrors RULE_DTYPE.
cdef struct Rule:
    uint8_t kind            # a request's or an answer's; NO_KIND for other messages
    uint8_t space           # what its id names
    uint8_t id_offset
    uint8_t id_length
    uint16_t length         # without appendages; 0 for no such message
    uint16_t exact          # 1: no other length; 2: or this and appendages; 0: this or more

RULE_DTYPE = np.dtype([
    ("kind", np.uint8), ("space", np.uint8), ("id_offset", np.uint8), ("id_length", np.uint8),
    ("length", np.uint16), ("exact", np.uint16),
])


cdef inline uint64_t big_endian(const uint8_t *data, int length) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(length):
        value = value << 8 | data[i]
    return value


cdef inline uint8_t only_char(const Text *text) noexcept nogil:
    """Return the character of a field that has one, 0 for any other."""
    return text.data[0] if text.length == 1 else 0


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
    cdef const Rule *rules

    def __cinit__(self, int version, rules, Py_ssize_t maximum_connections, Py_ssize_t maximum_requests,
                  Py_ssize_t maximum_log_bytes, bint at_once=False):
        cdef const uint8_t[::1] raw
        if rules.dtype != RULE_DTYPE or rules.shape != (2, 2, RULE_COUNT) or sizeof(Rule) != RULE_DTYPE.itemsize:
            raise ValueError("rules have another layout")
        self.rules_owner = np.ascontiguousarray(rules).reshape(-1).view(np.uint8)
        raw = self.rules_owner
        self.rules = <const Rule *> &raw[0]
        self.version = version

    # --- frames -------------------------------------------------------------------------------------------------

    def update(self, FrameColumns frames, HeaderColumns headers, int64_t frame_shift):
        """Take the TCP segments of a batch.

        Parameters
        ----------
        frame_shift : int
            Added to the batch's frame numbers.
        """
        cdef Py_ssize_t i, captured
        cdef Segment segment
        if headers.count != frames.count:
            raise ValueError("the headers are not those of this batch")
        memset(&segment, 0, sizeof(Segment))
        with nogil:
            for i in range(frames.count):
                if headers.protocol[i] != TCP or headers.payload_offset[i] < 0 or headers.fragment_offset[i]:
                    continue
                segment.length = headers.payload_length[i]
                segment.flags = headers.tcp_flags[i]
                if segment.length == 0 and not segment.flags & SYN:
                    continue
                captured = <Py_ssize_t> frames.captured_length[i] - headers.payload_offset[i]
                if captured < 0:
                    captured = 0
                segment.captured = segment.length if captured > segment.length else <uint32_t> captured
                segment.data = frames.data + frames.offset[i] + headers.payload_offset[i]
                segment.sequence = headers.tcp_sequence[i]
                segment.acknowledgment = headers.tcp_acknowledgment[i]
                segment.place.timestamp_ns = frames.timestamp_ns[i]
                segment.place.frame = frames.frame_number[i] + frame_shift
                segment.place.source = frames.timestamp_source[i]
                fill_key(&segment, headers, i)
                self.take(&segment)
                if self.connection_count > self.maximum_connections or self.request_count > self.maximum_requests:
                    self.keep_bounds()
                if self.log_bytes > self.maximum_log:
                    self.settle()
        if self.failed:
            raise MemoryError

    cdef void take(self, const Segment *segment) noexcept nogil:
        """Take one segment: read it, or log it where its connection's beginning is not known."""
        cdef Py_ssize_t number = self.connection_of(&segment.key, segment.hash)
        cdef Connection *connection
        if number < 0:
            return
        connection = &self.connections[number]
        if connection.first_frame == 0:
            connection.first_frame = segment.place.frame
        if segment.flags & SYN and not segment.flags & ACK:
            self.begin(number)
            connection.mode = READ
            stream_start(&connection.streams[segment.direction], segment.sequence + 1)
            connection.synchronised[segment.direction] = True
        if connection.mode == LOGGED:
            self.write_log(number, segment)
        else:
            self.read(number, segment)

    cdef void begin(self, Py_ssize_t number) noexcept nogil:
        """End what a connection has been so far, and let it begin anew."""
        cdef Connection *connection = &self.connections[number]
        if connection.mode == READ:
            self.finish_connection(number)
        connection.generation += 1
        connection.settled = False
        connection.protocol = UNKNOWN
        connection.messages_in_generation = 0
        connection.unread_in_generation = 0

    cdef void finish_connection(self, Py_ssize_t number) noexcept nogil:
        """Read what stands behind holes that nothing will fill now, and empty the streams."""
        cdef Connection *connection = &self.connections[number]
        cdef Stream *stream
        cdef const uint8_t *data
        cdef int direction
        for direction in range(2):
            stream = &connection.streams[direction]
            while stream_skip_hole_counting(stream, &connection.counts[UNREAD_BYTES]):
                connection.synchronised[direction] = False
                self.parse(number, direction)
            connection.counts[REPEATED_BYTES] += stream.repeated_bytes
            connection.counts[LOST_BYTES] += stream.lost_bytes
            connection.counts[HOLES] += stream.holes
            stream_free(stream)
            connection.synchronised[direction] = False

    cdef void read(self, Py_ssize_t number, const Segment *segment) noexcept nogil:
        """Put a segment into its stream and read what that completes."""
        cdef Connection *connection = &self.connections[number]
        cdef Stream *stream = &connection.streams[segment.direction]
        cdef int outcome
        cdef uint32_t sequence = segment.sequence + (1 if segment.flags & SYN else 0)
        if segment.flags & SYN and segment.flags & ACK and not stream.started:
            stream_start(stream, sequence)
            connection.synchronised[segment.direction] = True
        if segment.flags & ACK:
            self.acknowledge(number, 1 - segment.direction, segment.acknowledgment)
        if segment.length == 0:
            return
        connection.counts[SEGMENTS] += 1
        connection.counts[PAYLOAD_BYTES] += segment.length
        if connection.protocol == OTHER:
            return
        if segment.captured < segment.length:
            connection.counts[CUT_SEGMENTS] += 1
        if segment.captured == 0:
            return
        if not stream.started:
            stream_start(stream, sequence)
            connection.synchronised[segment.direction] = False
        outcome = stream_add(stream, sequence, segment.data, segment.captured, &segment.place)
        while outcome == STREAM_FULL:
            connection.synchronised[segment.direction] = False
            if stream_skip_hole_counting(stream, &connection.counts[UNREAD_BYTES]):
                self.parse(number, segment.direction)
                if connection.protocol == OTHER:
                    return
            else:
                # Nothing is held: the hole reaches to this segment.
                stream_jump(stream, sequence)
            outcome = stream_add(stream, sequence, segment.data, segment.captured, &segment.place)
        if outcome == STREAM_ELSEWHERE:
            connection.counts[RESTARTS] += 1
            stream_start(stream, sequence)
            connection.synchronised[segment.direction] = False
            outcome = stream_add(stream, sequence, segment.data, segment.captured, &segment.place)
        if outcome == STREAM_NO_MEMORY:
            self.failed = True
            return
        self.parse(number, segment.direction)

    cdef void acknowledge(self, Py_ssize_t number, int direction, uint32_t acknowledgment) noexcept nogil:
        """Abandon holes that the other end has received: the capture lacks them, and nobody will send them again."""
        cdef Connection *connection = &self.connections[number]
        cdef Stream *stream = &connection.streams[direction]
        while stream.run_count and stream_hole_end(stream) <= stream_position(stream, acknowledgment):
            stream_skip_hole_counting(stream, &connection.counts[UNREAD_BYTES])
            connection.synchronised[direction] = False
            self.parse(number, direction)

    cdef void skip(self, Connection *connection, int direction, Py_ssize_t length) noexcept nogil:
        """Pass over bytes that are of no message."""
        connection.counts[UNREAD_BYTES] += length
        connection.unread_in_generation += <uint32_t> length
        stream_consume(&connection.streams[direction], length)

    cdef void parse(self, Py_ssize_t number, int direction) noexcept nogil:
        """Read the whole messages at the front of a stream."""
        cdef Connection *connection = &self.connections[number]
        cdef Stream *stream = &connection.streams[direction]
        cdef const uint8_t *data = NULL
        cdef Py_ssize_t length, size
        while True:
            length = stream_contiguous(stream, &data)
            if length == 0:
                return
            if connection.protocol == UNKNOWN:
                connection.protocol = self.detect(data, length)
                if connection.protocol != UNKNOWN:
                    connection.protocol_met = connection.protocol
            if not connection.synchronised[direction] or connection.protocol == UNKNOWN:
                size = self.boundary(connection, data, length)
                if size < 0:
                    if length > SEARCHED:
                        self.skip(connection, direction, length - SEARCHED // 2)
                    if connection.messages_in_generation == 0 and connection.unread_in_generation > GIVE_UP:
                        connection.protocol = OTHER
                        stream_drop(&connection.streams[0])
                        stream_drop(&connection.streams[1])
                    return
                if size:
                    self.skip(connection, direction, size)
                    connection.counts[RESYNCHRONISATIONS] += 1
                connection.synchronised[direction] = True
                continue
            size = fix_message(data, length) if connection.protocol == TAG_VALUE else soup_packet(data, length)
            if size < 0:
                connection.synchronised[direction] = False
                self.skip(connection, direction, 1)
                continue
            if size == 0 or size > length:
                return
            connection.counts[MESSAGES] += 1
            connection.messages_in_generation += 1
            if connection.protocol == TAG_VALUE:
                self.read_fix(number, direction, data, size)
            else:
                self.read_soup(number, direction, data, size)
            stream_consume(stream, size)

    cdef uint8_t detect(self, const uint8_t *data, Py_ssize_t length) noexcept nogil:
        """Say what these bytes are: by the option, or by a whole message in them."""
        if (self.version == AUTO or self.version == FIX) and fix_boundary(data, length) >= 0:
            return TAG_VALUE
        if self.version != FIX and soup_boundary(data, length) >= 0:
            return SOUPBINTCP
        return UNKNOWN

    cdef Py_ssize_t boundary(self, const Connection *connection, const uint8_t *data, Py_ssize_t length) noexcept nogil:
        """Return where the first message begins, -1 where none plausibly does."""
        if connection.protocol == TAG_VALUE:
            return fix_boundary(data, length)
        if connection.protocol == SOUPBINTCP:
            return soup_boundary(data, length)
        return -1

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
        if data[2] == b"U":
            from_venue = 0
        elif data[2] == b"S":
            from_venue = 1
        else:
            return
        connection.counts[APPLICATION_MESSAGES] += 1
        connection.counts[FITS_4_2] += fits(&self.rules[from_venue * RULE_COUNT + message[0]], message, length)
        connection.counts[FITS_5_0] += fits(&self.rules[(2 + from_venue) * RULE_COUNT + message[0]], message, length)
        if self.version != OUCH_4_2 and self.version != OUCH_5_0:
            return
        rule = &self.rules[(2 * (self.version - OUCH_4_2) + from_venue) * RULE_COUNT + message[0]]
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
            id_length = decimal(big_endian(id, 4), digits)
            id = digits
        else:
            while id_length and id[id_length - 1] == b" ":
                id_length -= 1
        if from_venue:
            self.answer(number, direction, rule.kind, rule.space, id, id_length, &point,
                        <int64_t> big_endian(message + 1, 8))
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

    # --- the log, and merging -----------------------------------------------------------------------------------

    cdef void settle(self) noexcept nogil:
        """Read those connections of the log now that have most in it, until half of its bound is free."""
        cdef Py_ssize_t number, largest, left = self.log_bytes, at = 0, size, kept = 0
        cdef Connection *connection
        cdef Entry *entry
        cdef Segment segment
        cdef uint8_t *chosen = <uint8_t *> calloc(self.connection_count + 1, 1)
        if chosen == NULL:
            self.failed = True
            return
        while left > self.maximum_log // 2:
            largest = -1
            for number in range(self.connection_count):
                if not chosen[number] and self.connections[number].logged_bytes and (
                        largest < 0
                        or self.connections[number].logged_bytes > self.connections[largest].logged_bytes):
                    largest = number
            if largest < 0:
                break
            connection = &self.connections[largest]
            left -= connection.logged_bytes
            if connection.mode == LOGGED:
                chosen[largest] = 1
                connection.mode = READ
                connection.settled = True
                self.settled_connections += 1
            else:
                # It began anew in this part: what came before that cannot be read any more.
                chosen[largest] = 2
                self.dropped_log_bytes += connection.logged_bytes
            connection.logged_bytes = 0
        while at < self.log_bytes:
            entry = <Entry *> (self.log + at)
            size = entry_size(entry.captured)
            at += size
            if chosen[entry.connection] == 1:
                self.segment_of(entry, &self.connections[entry.connection], 0, &segment)
                self.read(entry.connection, &segment)
            elif chosen[entry.connection] == 0:
                memmove(self.log + kept, self.log + at - size, size)
                kept += size
        self.log_bytes = kept
        free(chosen)
        self.keep_bounds()

    def absorb(self, OrderMachine later not None, int64_t frame_shift):
        """Append what came directly after; `later` stays as it is.

        Parameters
        ----------
        frame_shift : int
            Added to the frame numbers of `later`.
        """
        cdef Py_ssize_t at = 0, i, number
        cdef Entry *entry
        cdef Segment segment
        cdef int32_t *numbers = <int32_t *> calloc(later.connection_count + 1, sizeof(int32_t))
        cdef uint32_t *generations = <uint32_t *> calloc(later.connection_count + 1, sizeof(uint32_t))
        if numbers == NULL or generations == NULL:
            free(numbers)
            free(generations)
            raise MemoryError
        with nogil:
            if later.level > self.level:
                self.set_level(later.level)
            for i in range(later.connection_count):
                number = self.connection_of(&later.connections[i].key, later.connections[i].hash)
                if number >= 0 and self.connections[number].first_frame == 0:
                    self.connections[number].first_frame = later.connections[i].first_frame + frame_shift
            while at < later.log_bytes:
                entry = <Entry *> (later.log + at)
                at += entry_size(entry.captured)
                self.segment_of(entry, &later.connections[entry.connection], frame_shift, &segment)
                self.take(&segment)
            for i in range(later.connection_count):
                numbers[i] = self.adopt(&later.connections[i], frame_shift, &generations[i])
            for i in range(later.request_count):
                self.adopt_request(&later.requests[i], numbers, generations, frame_shift)
            self.cut_connections += later.cut_connections
            self.settled_connections += later.settled_connections
            self.dropped_log_bytes += later.dropped_log_bytes
            self.index_requests()
            self.keep_bounds()
            if self.log_bytes > self.maximum_log and not self.at_once:
                self.settle()
        free(numbers)
        free(generations)
        if self.failed:
            raise MemoryError

    cdef int32_t adopt(self, const Connection *later, int64_t frame_shift, uint32_t *generation) noexcept nogil:
        """Take over a connection where the later part has read it; return its number here, -1 if not followed."""
        cdef Py_ssize_t number = self.connection_of(&later.key, later.hash)
        cdef Connection *mine
        cdef int i
        if number < 0:
            return -1
        mine = &self.connections[number]
        if later.mode == LOGGED:
            return <int32_t> number
        if later.settled and (mine.messages_in_generation or mine.logged_bytes) and not self.at_once:
            self.cut_connections += 1
        self.begin(number)
        mine.settled = later.settled
        generation[0] = mine.generation
        mine.generation += later.generation
        mine.mode = READ
        mine.protocol = later.protocol
        if later.protocol_met != UNKNOWN:
            mine.protocol_met = later.protocol_met
        mine.messages_in_generation = later.messages_in_generation
        mine.unread_in_generation = later.unread_in_generation
        if mine.begin_string[0] == 0:
            memcpy(mine.begin_string, later.begin_string, sizeof(later.begin_string))
        for i in range(COUNT_OF_COUNTS):
            mine.counts[i] += later.counts[i]
        for i in range(2):
            mine.synchronised[i] = later.synchronised[i]
            stream_free(&mine.streams[i])
            if stream_copy(&mine.streams[i], &later.streams[i], frame_shift) == STREAM_NO_MEMORY:
                self.failed = True
        return <int32_t> number

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

    def finish(self):
        """Read what stands behind holes: nothing comes after."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(self.connection_count):
                if self.connections[i].mode == READ:
                    self.finish_connection(i)
            self.keep_bounds()
        if self.failed:
            raise MemoryError

    def request_array(self):
        """Return a copy of the requests: ndarray of REQUEST_DTYPE, shape (request_count,)."""
        array = np.empty(self.request_count, REQUEST_DTYPE)
        cdef uint8_t[::1] raw
        if self.request_count:
            raw = array.view(np.uint8)
            memcpy(&raw[0], self.requests, self.request_count * sizeof(Request))
        return array

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
            row["low"] = np.frombuffer((<const uint8_t *> connection.key.low)[:16], np.uint8)
            row["high"] = np.frombuffer((<const uint8_t *> connection.key.high)[:16], np.uint8)
            row["low_port"], row["high_port"] = connection.key.low_port, connection.key.high_port
            row["ip_version"] = connection.key.version
            row["protocol"] = connection.protocol_met
            row["begin_string"] = bytes((<const uint8_t *> connection.begin_string)[:14]).rstrip(b"\0")
            row["first_frame"] = connection.first_frame
            for j in range(COUNT_OF_COUNTS):
                of_counts[i, j] = connection.counts[j]
        array["counts"] = counts
        return array


cdef inline bint stream_skip_hole_counting(Stream *stream, uint64_t *unread) noexcept nogil:
    """Abandon a hole and count the bytes before it that were of no whole message."""
    cdef const uint8_t *data = NULL
    unread[0] += stream_contiguous(stream, &data)
    return stream_skip_hole(stream)


cdef inline int64_t stream_hole_end(const Stream *stream) noexcept nogil:
    """Return where the first hole with bytes behind it ends; beyond all positions where there is none."""
    cdef const uint8_t *data = NULL
    cdef int64_t end = stream.next + stream_contiguous(stream, &data)
    cdef int run
    for run in range(stream.run_count):
        if stream.runs[run].start > end:
            return stream.runs[run].start
    return <int64_t> 1 << 62


cdef inline void stream_jump(Stream *stream, uint32_t sequence) noexcept nogil:
    """Abandon what lies between an empty stream's place and a segment."""
    cdef int64_t position = stream.next + <int32_t> (sequence - <uint32_t> stream.next)
    if position > stream.next:
        stream.lost_bytes += position - stream.next
        stream.holes += 1
    stream.next = position
    stream.window_start = position


cdef inline void stream_drop(Stream *stream) noexcept nogil:
    """Let go of all bytes."""
    stream.run_count = 0


cdef inline bint fits(const Rule *rule, const uint8_t *message, Py_ssize_t length) noexcept nogil:
    """Tell whether a message has a length that its type has."""
    if rule.length == 0:
        return False
    if length == rule.length:
        return True
    if rule.exact == 1 or length < rule.length + 2:
        return False
    return rule.exact == 0 or big_endian(message + rule.length, 2) == <uint64_t> (length - rule.length - 2)


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


cdef inline void fill_key(Segment *segment, HeaderColumns headers, Py_ssize_t i) noexcept nogil:
    """Name the connection whichever way the segment goes; direction 0 goes from the lower end."""
    cdef const uint8_t *source = headers.source_address + 16 * i
    cdef const uint8_t *destination = headers.destination_address + 16 * i
    cdef uint16_t source_port = headers.source_port[i], destination_port = headers.destination_port[i]
    cdef int order = memcmp(source, destination, 16)
    cdef bint down = order > 0 or (order == 0 and source_port > destination_port)
    cdef const uint64_t *words
    cdef uint64_t hash = 0
    cdef int word
    memcpy(segment.key.low, destination if down else source, 16)
    memcpy(segment.key.high, source if down else destination, 16)
    segment.key.low_port = destination_port if down else source_port
    segment.key.high_port = source_port if down else destination_port
    segment.key.version = headers.ip_version[i]
    segment.direction = 1 if down else 0
    words = <const uint64_t *> &segment.key
    for word in range(sizeof(Key) // 8):
        hash = mix(hash ^ words[word])
    segment.hash = hash
