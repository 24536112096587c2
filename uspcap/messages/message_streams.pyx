"""Messages of TCP connections: streams put together again, cut into SoupBinTCP packets and FIX messages.

A. A connection is two endpoints, whichever way; its streams are reassembled (reassembly.pyx) and cut into messages
   (soupbin.pyx, fix_fields.pyx). A SYN without ACK restarts it. The tables are those of connection_tables.pyx; what
   is made of the messages is its subclasses' concern: analysis/orders/order_machine.pyx, stream_runs.pyx.
B. The law of analyses. Of a connection whose SYN was not seen, this part of the capture may hold the middle: its
   segments are kept in a log, and read where what came before is known, in `absorb`. A result is `absorb` into an
   empty machine that reads at once (`at_once`), so that the state here stays as it is.
C. The log is bounded. Over the bound the connections with most in it are settled: taken as joined in the middle, here
   and now. Nothing is lost by that unless a part with their beginning is merged before; that is counted.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memmove, memset

from uspcap._core.columns cimport FrameColumns, HeaderColumns, time_of
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.messages.connection_tables cimport *
from uspcap.messages.connections cimport name_connection
from uspcap.messages.fix_fields cimport fix_boundary, fix_message
from uspcap.messages.reassembly cimport (
    STREAM_ELSEWHERE, STREAM_FULL, STREAM_NO_MEMORY, STREAM_STORED, Stream, stream_add, stream_consume,
    stream_contiguous, stream_copy, stream_free, stream_position, stream_skip_hole, stream_start,
)
from uspcap.messages.soupbin cimport soup_boundary, soup_packet

cdef enum:
    TCP = 6
    SYN = 0x02
    ACK = 0x10

cdef enum:
    SEARCHED = 1 << 14      # bytes kept while no boundary is found
    GIVE_UP = 1 << 18       # bytes without a message, after which a connection is none of ours


cdef class MessageStreams(ConnectionTables):
    """Connections, their messages, and the log of what cannot be read yet.

    A subclass says in its constructor what is looked for (`finds_fix`, `finds_soup`), and takes the messages.
    """

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
                segment.place.timestamp_ns = time_of(frames, i)
                segment.place.frame = frames.frame_number[i] + frame_shift
                segment.place.source = min(frames.timestamp_source[i], <uint8_t> NO_TIMESTAMP)
                segment.direction = name_connection(&segment.name, headers, i)
                self.take(&segment)
                self.keep_bounds()
                if self.log_bytes > self.maximum_log:
                    self.settle()
        if self.failed:
            raise MemoryError

    cdef void take(self, const Segment *segment) noexcept nogil:
        """Take one segment: read it, or log it where its connection's beginning is not known."""
        cdef Py_ssize_t number = self.connection_of(&segment.name)
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
        """End what a connection has been so far, and restart it."""
        cdef Connection *connection = &self.connections[number]
        if connection.mode == READ:
            self.finish_connection(number)
        connection.generation += 1
        connection.settled = False
        memset(connection.own, 0, sizeof(connection.own))
        connection.protocol = UNKNOWN
        connection.messages_in_generation = 0
        connection.unread_in_generation = 0
        memset(connection.acknowledged_known, 0, sizeof(connection.acknowledged_known))

    cdef void finish_connection(self, Py_ssize_t number) noexcept nogil:
        """Read what stands behind holes that nothing will fill now, and empty the streams."""
        cdef Connection *connection = &self.connections[number]
        cdef Stream *stream
        cdef const uint8_t *data
        cdef int direction
        for direction in range(2):
            stream = &connection.streams[direction]
            while stream_skip_hole_counting(stream, &connection.counts[UNREAD_BYTES]):
                self.lose(connection, direction)
                self.parse(number, direction)
            connection.counts[REPEATED_BYTES] += stream.repeated_bytes
            connection.counts[LOST_BYTES] += stream.lost_bytes
            connection.counts[HOLES] += stream.holes
            connection.holes[direction] += stream.holes
            connection.missing_bytes[direction] += stream.lost_bytes
            stream_free(stream)
            connection.synchronised[direction] = False

    cdef void read(self, Py_ssize_t number, const Segment *segment) noexcept nogil:
        """Put a segment into its stream and read what that completes."""
        cdef Connection *connection = &self.connections[number]
        cdef Stream *stream = &connection.streams[segment.direction]
        cdef int outcome
        cdef uint32_t sequence = segment.sequence + (1 if segment.flags & SYN else 0)
        cdef uint64_t repeated
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
        repeated = stream.repeated_bytes
        outcome = stream_add(stream, sequence, segment.data, segment.captured, &segment.place)
        # Not captured before, and acknowledged before: by another clock, or out of order.
        if outcome == STREAM_STORED and connection.acknowledged_known[segment.direction] and <int32_t> (
                connection.acknowledged[segment.direction] - sequence
                - <uint32_t> (stream.repeated_bytes - repeated)) > 0 and (
                stream.repeated_bytes - repeated < segment.captured):
            connection.counts[AFTER_ACKNOWLEDGMENT] += 1
        while outcome == STREAM_FULL:
            self.lose(connection, segment.direction)
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
            connection.acknowledged_known[segment.direction] = False
            stream_start(stream, sequence)
            self.lose(connection, segment.direction)
            outcome = stream_add(stream, sequence, segment.data, segment.captured, &segment.place)
        if outcome == STREAM_NO_MEMORY:
            self.failed = True
            return
        self.parse(number, segment.direction)

    cdef void acknowledge(self, Py_ssize_t number, int direction, uint32_t acknowledgment) noexcept nogil:
        """Abandon holes that the other end has received: the capture lacks them, and nobody will send them again."""
        cdef Connection *connection = &self.connections[number]
        cdef Stream *stream = &connection.streams[direction]
        if not connection.acknowledged_known[direction] or (
                <int32_t> (acknowledgment - connection.acknowledged[direction]) > 0):
            connection.acknowledged[direction] = acknowledgment
            connection.acknowledged_known[direction] = True
        while stream.run_count and stream_hole_end(stream) <= stream_position(stream, acknowledgment):
            stream_skip_hole_counting(stream, &connection.counts[UNREAD_BYTES])
            self.lose(connection, direction)
            self.parse(number, direction)

    cdef void lose(self, Connection *connection, int direction) noexcept nogil:
        """Know no more where the messages of a direction begin."""
        connection.synchronised[direction] = False
        connection.breaks[direction] += 1

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
                self.lose(connection, direction)
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
        """Say what these bytes are, by a whole message in them."""
        if self.finds_fix and fix_boundary(data, length) >= 0:
            return TAG_VALUE
        if self.finds_soup and soup_boundary(data, length) >= 0:
            return SOUPBINTCP
        return UNKNOWN

    cdef Py_ssize_t boundary(self, const Connection *connection, const uint8_t *data, Py_ssize_t length) noexcept nogil:
        """Return where the first message begins, -1 where none plausibly does."""
        if connection.protocol == TAG_VALUE:
            return fix_boundary(data, length)
        if connection.protocol == SOUPBINTCP:
            return soup_boundary(data, length)
        return -1

    cdef void read_soup(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil:
        """Take one SoupBinTCP packet, at the front of its stream still."""

    cdef void read_fix(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil:
        """Take one FIX message, at the front of its stream still."""

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
                # It restarted in this part: what came before that cannot be read any more.
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

    def absorb(self, MessageStreams later not None, int64_t frame_shift):
        """Append what came directly after; `later` stays as it is.

        Parameters
        ----------
        frame_shift : int
            Added to the frame numbers of `later`.
        """
        cdef Py_ssize_t at = 0, i, number
        cdef Entry *entry
        cdef Segment segment
        if type(later) is not type(self):
            raise TypeError("machines of one kind follow each other")
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
                number = self.connection_of(&later.connections[i].name)
                if number >= 0 and self.connections[number].first_frame == 0:
                    self.connections[number].first_frame = later.connections[i].first_frame + frame_shift
            while at < later.log_bytes:
                entry = <Entry *> (later.log + at)
                at += entry_size(entry.captured)
                self.segment_of(entry, &later.connections[entry.connection], frame_shift, &segment)
                self.take(&segment)
            for i in range(later.connection_count):
                numbers[i] = self.adopt(&later.connections[i], frame_shift, &generations[i])
            self.adopt_messages(later, numbers, generations, frame_shift)
            self.cut_connections += later.cut_connections
            self.settled_connections += later.settled_connections
            self.dropped_log_bytes += later.dropped_log_bytes
            self.keep_bounds()
            if self.log_bytes > self.maximum_log and not self.at_once:
                self.settle()
        free(numbers)
        free(generations)
        if self.failed:
            raise MemoryError

    cdef int32_t adopt(self, const Connection *later, int64_t frame_shift, uint32_t *generation) noexcept nogil:
        """Take over a connection where the later part has read it; return its number here, -1 if not followed."""
        cdef Py_ssize_t number = self.connection_of(&later.name)
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
        for i in range(MOST_COUNTS):
            mine.counts[i] += later.counts[i]
        memcpy(mine.own, later.own, sizeof(mine.own))
        for i in range(2):
            mine.synchronised[i] = later.synchronised[i]
            mine.acknowledged[i] = later.acknowledged[i]
            mine.acknowledged_known[i] = later.acknowledged_known[i]
            mine.breaks[i] += later.breaks[i]
            mine.holes[i] += later.holes[i]
            mine.missing_bytes[i] += later.missing_bytes[i]
            stream_free(&mine.streams[i])
            if stream_copy(&mine.streams[i], &later.streams[i], frame_shift) == STREAM_NO_MEMORY:
                self.failed = True
        return <int32_t> number

    cdef void adopt_messages(self, MessageStreams later, const int32_t *numbers, const uint32_t *generations,
                             int64_t frame_shift) noexcept nogil:
        """Take over what the later part made of messages.

        Parameters
        ----------
        numbers : of int32
            Of each connection of `later` its number here, -1 for one that is not followed.
        generations : of uint32
            Added to the generation of each.
        """

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
