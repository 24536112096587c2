"""TCP connections of a capture: which there are, what was counted and measured of each, and what merging needs.

A. A connection is two ends, whichever way; way 0 is what the lower end sends. What a segment says is worked out by
   `advance` (tcp_state.pyx).
B. The law of analyses. A part of a capture cannot know what was before it. So it counts and measures nothing in the
   first segments of each connection but keeps them, in a log, and goes through them only to know the connection's state
   behind them. `absorb` goes through the log of the later part with the state of the earlier one. Where both come to
   the same state, all that the later part found behind its log is right, and is added. Where they do not, it is added
   anyway, and the connection is counted in `unsettled`.
C. A result is `absorb` into empty tracks that count at once (`at_once`), so that the state here stays as it is.
D. The log is bounded, for each connection and in all. Connections are bounded by sampling on the hash of the key, as
   flows are (flow_index.pyx); the level rises also when the histograms take too many lines. Both depend only on what
   there was, not on its order.
E. Times are kept in one block a connection and timestamp source: count, extremes and sum of each measure, and in
   `cells` its histogram, as flow block * MEASURES + measure.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from uspcap._core.bytes cimport be32
from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.records cimport copied, dtype_of
from uspcap._core.sampling cimport tracked
from uspcap._core.saturating cimport add_wide
from uspcap._core.states cimport (
    Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacked_new, unpacking,
)
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.analysis.tcp.tcp_state cimport (
    COUNT_OF_COUNTS, MEASURES, MOST_SAMPLES, SYN, ACK, Conversation, Sample, Segment,
    advance, conversation_copy, conversation_equal, conversation_free, conversation_pack, conversation_unpack,
)
from uspcap.messages.connections cimport (
    Index, Name, enter_connection, fill_index, have_room, name_connection,
)
from uspcap.stats.buckets cimport Cells, index_of

cdef enum:
    TCP = 6
    HEADER = 20
    ALWAYS_LOGGED = 8       # segments of each connection that are kept whatever the bound on all of them
    UNKNOWN_END = 2
    AT_ONCE = 4096          # segments between two looks at the bounds

MEASURE_COUNT = MEASURES
"""Measures of a block: by acknowledgment, by timestamps, handshake, each for lower and higher end; whole handshake."""

cdef struct Connection:
    Name name
    int64_t first_frame
    int64_t last_frame
    int64_t counts[2 * COUNT_OF_COUNTS]
    int32_t blocks[NO_TIMESTAMP]    # number and one, 0 for none
    int32_t logged
    uint8_t counting            # its log is over
    uint8_t initiator           # 0 the lower end, 1 the higher, UNKNOWN_END
    Conversation now
    Conversation *behind_log    # where the log is over: what was known then

cdef struct Track:
    int64_t count
    int64_t lowest_ns
    int64_t highest_ns
    int64_t highest_frame
    uint64_t sum_low
    uint64_t sum_high

cdef struct Block:
    int64_t connection
    int64_t source
    Track tracks[MEASURES]

# A connection for a result.
cdef struct ConnectionRow:
    uint8_t low[16]             # as of address columns
    uint8_t high[16]
    uint16_t low_port
    uint16_t high_port
    uint8_t ip_version
    uint8_t initiator
    uint16_t tap
    int64_t first_frame
    int64_t last_frame
    int64_t counts[2][COUNT_OF_COUNTS]

cdef ConnectionRow connection_record
CONNECTION_DTYPE = dtype_of(<ConnectionRow[:1]> &connection_record)
"""`low` and `high` as of address columns; `initiator` is 0 for the lower end, 1 for the higher, 2 where it is unknown;
`counts` by sender, in the order of `tcp_state.COUNTS`."""

cdef Track track_record
TRACK_DTYPE = dtype_of(<Track[:1]> &track_record)

# Cython describes no struct that has structs in an array only.
BLOCK_DTYPE = np.dtype([("connection", np.int64), ("source", np.int64), ("tracks", TRACK_DTYPE, MEASURES)])
assert BLOCK_DTYPE.itemsize == sizeof(Block)


cdef void read_timestamps(const uint8_t *options, Py_ssize_t length, Segment *segment) noexcept nogil:
    """Look for the timestamps option (RFC 7323, section 3.2) in the options that were captured."""
    cdef Py_ssize_t position = 0, size
    segment.timestamped = False
    segment.timestamp_value = segment.timestamp_echo = 0
    while position < length and options[position] != 0:
        if options[position] == 1:
            position += 1
            continue
        if position + 1 >= length:
            return
        size = options[position + 1]
        if size < 2 or position + size > length:
            return
        if options[position] == 8 and size == 10:
            segment.timestamped = True
            segment.timestamp_value = be32(options + position + 2)
            segment.timestamp_echo = be32(options + position + 6)
            return
        position += size


cdef void add_track(Track *mine, const Track *others, int64_t frame_shift) noexcept nogil:
    """Add what a later part measured; the first of equal maxima stays."""
    if others.count == 0:
        return
    if mine.count == 0 or others.lowest_ns < mine.lowest_ns:
        mine.lowest_ns = others.lowest_ns
    if mine.count == 0 or others.highest_ns > mine.highest_ns:
        mine.highest_ns = others.highest_ns
        mine.highest_frame = others.highest_frame + frame_shift
    mine.count += others.count
    add_wide(&mine.sum_low, &mine.sum_high, others.sum_low)
    mine.sum_high += others.sum_high


cdef class TcpTracks:
    """The connections of a capture, or of a part of it.

    Parameters
    ----------
    maximum_connections : int
        Followed one by one at most, after each batch; beyond it a sample.
    maximum_lines : int
        Bound on the lines of 32 histogram buckets of all connections together.
    maximum_logged, logged_a_connection : int
        Segments in the log at most, in all and of one connection.
    at_once : bool
        Nothing comes before: count and measure from the first segment on.

    Attributes
    ----------
    level : int
        How often the sample was halved.
    segments, undecoded, fragments : int
        TCP segments; those that were left out, as their header was not captured whole or contradicts itself; first
        fragments, of whose data the rest is not seen.
    unsettled : int
        Connections that were not known exactly where two parts of the capture were joined.
    """

    cdef Py_ssize_t maximum_connections, maximum_lines, maximum_logged
    cdef int32_t logged_a_connection
    cdef bint at_once, failed
    cdef readonly int level
    cdef readonly int64_t segments, undecoded, fragments, unsettled
    cdef Connection *connections
    cdef readonly Py_ssize_t connection_count
    cdef Py_ssize_t connection_capacity
    cdef Index index
    cdef Block *blocks
    cdef readonly Py_ssize_t block_count
    cdef Py_ssize_t block_capacity
    cdef Segment *log
    cdef readonly Py_ssize_t log_count
    cdef Py_ssize_t log_capacity
    cdef readonly Cells cells
    cdef object found_owner
    cdef uint64_t *found
    cdef Py_ssize_t found_count
    cdef int64_t not_counted[2 * COUNT_OF_COUNTS]

    def __cinit__(self, Py_ssize_t maximum_connections, Py_ssize_t maximum_lines, Py_ssize_t maximum_logged,
                  int32_t logged_a_connection, bint at_once=False):
        if maximum_connections < 1:
            raise ValueError("at least one connection is followed")
        self.maximum_connections = maximum_connections
        self.maximum_lines = maximum_lines
        self.maximum_logged = maximum_logged
        self.logged_a_connection = logged_a_connection
        self.at_once = at_once
        self.cells = Cells()
        self.make_room(AT_ONCE)
        if not have_room(&self.index, <void **> &self.connections, &self.connection_capacity, 0, sizeof(Connection)):
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.connection_count):
            self.forget(&self.connections[i])
        free(self.connections)
        free(self.index.slots)
        free(self.blocks)
        free(self.log)

    cdef int make_room(self, Py_ssize_t segments) except -1:
        """Let `found` hold what so many segments can give."""
        cdef uint64_t[::1] view
        if self.found_owner is None or len(self.found_owner) < segments * MOST_SAMPLES:
            self.found_owner = np.empty(segments * MOST_SAMPLES, np.uint64)
            view = self.found_owner
            self.found = &view[0]
        return 0

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        cdef Py_ssize_t i
        cdef Connection *connection
        with nogil:
            for i in range(self.connection_count):
                connection = &self.connections[i]
                pack(&packed, connection, sizeof(Connection))
                conversation_pack(&packed, &connection.now)
                if connection.behind_log != NULL:
                    pack(&packed, connection.behind_log, sizeof(Conversation))
                    conversation_pack(&packed, connection.behind_log)
            pack(&packed, self.blocks, self.block_count * sizeof(Block))
            pack(&packed, self.log, self.log_count * sizeof(Segment))
            pack(&packed, self.not_counted, sizeof(self.not_counted))
        bounds = (self.maximum_connections, self.maximum_lines, self.maximum_logged, self.logged_a_connection,
                  self.at_once)
        counted = (self.failed, self.level, self.segments, self.undecoded, self.fragments, self.unsettled)
        return _tracks, (bounds, counted, (self.connection_count, self.block_count, self.log_count), self.cells,
                         finished(&packed))

    cdef void restore(self, Unpacked *unpacked, Py_ssize_t connections, Py_ssize_t blocks,
                      Py_ssize_t logged) noexcept nogil:
        """Read what was packed into a new object; `failed` says whether there was memory for it."""
        cdef Py_ssize_t i
        cdef Connection *connection
        cdef bint behind
        for i in range(connections):
            if not have_room(&self.index, <void **> &self.connections, &self.connection_capacity, i,
                             sizeof(Connection)):
                self.failed = True
                return
            connection = &self.connections[i]
            unpack(unpacked, connection, sizeof(Connection))
            if unpacked.failed:
                return
            behind = connection.behind_log != NULL
            connection.behind_log = NULL
            conversation_unpack(unpacked, &connection.now)
            self.connection_count = i + 1
            if behind:
                connection.behind_log = <Conversation *> unpacked_new(unpacked, sizeof(Conversation), 0)
                if connection.behind_log == NULL:
                    return
                conversation_unpack(unpacked, connection.behind_log)
        fill_index(&self.index, self.connections, self.connection_count, sizeof(Connection))
        self.blocks = <Block *> unpacked_new(unpacked, blocks * sizeof(Block), 0)
        self.log = <Segment *> unpacked_new(unpacked, logged * sizeof(Segment), 0)
        if self.blocks != NULL and self.log != NULL:
            self.block_count = self.block_capacity = blocks
            self.log_count = self.log_capacity = logged
        unpack(unpacked, self.not_counted, sizeof(self.not_counted))

    # --- connections ------------------------------------------------------------------------------------------------

    cdef void forget(self, Connection *connection) noexcept nogil:
        conversation_free(&connection.now)
        if connection.behind_log != NULL:
            conversation_free(connection.behind_log)
            free(connection.behind_log)
            connection.behind_log = NULL

    cdef Py_ssize_t number_of(self, const Name *name) noexcept nogil:
        """Return the number of a connection, a new one where it is new; -1 where it is not followed."""
        cdef bint is_new = False
        cdef Py_ssize_t number
        if not tracked(name.hash, self.level):
            return -1
        number = enter_connection(&self.index, <void **> &self.connections, &self.connection_capacity,
                                  &self.connection_count, sizeof(Connection), name, &is_new)
        if number < 0:
            self.failed = True
        elif is_new:
            self.connections[number].initiator = UNKNOWN_END
            self.connections[number].counting = self.at_once
        return number

    cdef int64_t block_of(self, Py_ssize_t number, uint32_t source) noexcept nogil:
        """Return the number of a connection's block of a timestamp source, a new one where it is new; -1 without memory."""
        cdef Connection *connection = &self.connections[number]
        cdef Py_ssize_t capacity = self.block_capacity * 2 or 16
        cdef void *grown
        if connection.blocks[source]:
            return connection.blocks[source] - 1
        if self.block_count == self.block_capacity:
            grown = realloc(self.blocks, capacity * sizeof(Block))
            if grown == NULL:
                self.failed = True
                return -1
            self.blocks = <Block *> grown
            self.block_capacity = capacity
        memset(&self.blocks[self.block_count], 0, sizeof(Block))
        self.blocks[self.block_count].connection = number
        self.blocks[self.block_count].source = source
        self.block_count += 1
        connection.blocks[source] = <int32_t> self.block_count
        return self.block_count - 1

    # --- segments ---------------------------------------------------------------------------------------------------

    def update(self, FrameColumns frames, HeaderColumns headers, int64_t frame_shift):
        """Take the TCP segments of a batch.

        Parameters
        ----------
        frame_shift : int
            Added to the batch's frame numbers.
        """
        cdef Py_ssize_t i, start, count = frames.count
        cdef int64_t header_length, options
        cdef const uint8_t *header
        cdef Segment segment
        cdef Name name
        if headers.count != count:
            raise ValueError("the headers are not those of this batch")
        self.make_room(count)
        memset(&segment, 0, sizeof(Segment))
        with nogil:
            for i in range(count):
                if headers.protocol[i] != TCP or headers.transport_offset[i] < 0 or headers.fragment_offset[i]:
                    continue
                self.segments += 1
                start = headers.transport_offset[i]
                if start + HEADER > frames.captured_length[i]:
                    self.undecoded += 1
                    continue
                header = frames.data + frames.offset[i] + start
                header_length = 4 * (header[12] >> 4)
                if header_length < HEADER or start + header_length != headers.payload_offset[i]:
                    self.undecoded += 1
                    continue
                self.fragments += (headers.layers[i] & MORE_FRAGMENTS) != 0
                options = header_length
                if start + options > frames.captured_length[i]:
                    options = <int64_t> frames.captured_length[i] - start
                read_timestamps(header + HEADER, options - HEADER, &segment)
                segment.timestamp_ns = frames.timestamp_ns[i]
                segment.frame = frames.frame_number[i] + frame_shift
                segment.source = frames.timestamp_source[i]
                segment.sequence = headers.tcp_sequence[i]
                segment.acknowledgment = headers.tcp_acknowledgment[i]
                segment.length = headers.payload_length[i]
                segment.window = headers.tcp_window[i]
                segment.flags = headers.tcp_flags[i]
                segment.direction = name_connection(&name, headers, i)
                self.take(&name, &segment)
        self.settle()

    cdef void take(self, const Name *name, Segment *segment) noexcept nogil:
        """Take one segment: into the log, or to be counted and measured."""
        cdef Py_ssize_t number = self.number_of(name)
        cdef Connection *connection
        cdef Sample samples[MOST_SAMPLES]
        cdef int taken, i
        if number < 0:
            return
        connection = &self.connections[number]
        if connection.first_frame == 0:
            connection.first_frame = segment.frame
        connection.last_frame = segment.frame
        if segment.flags & SYN and connection.initiator == UNKNOWN_END:
            connection.initiator = 1 - segment.direction if segment.flags & ACK else segment.direction
        if not connection.counting:
            if connection.logged < self.logged_a_connection and (
                    self.log_count < self.maximum_logged or connection.logged < ALWAYS_LOGGED):
                segment.connection = <int32_t> number
                self.write_log(connection, segment)
                if advance(&connection.now, segment, self.not_counted, samples) < 0:
                    self.failed = True
                return
            self.end_log(connection)
        taken = advance(&connection.now, segment, connection.counts, samples)
        if taken < 0:
            self.failed = True
        for i in range(taken):
            self.measure(number, &samples[i], segment.frame)

    cdef void measure(self, Py_ssize_t number, const Sample *sample, int64_t frame) noexcept nogil:
        cdef int64_t block = self.block_of(number, sample.source)
        cdef Track *track
        if block < 0:
            return
        track = &self.blocks[block].tracks[sample.measure]
        if track.count == 0 or sample.time_ns < track.lowest_ns:
            track.lowest_ns = sample.time_ns
        if track.count == 0 or sample.time_ns > track.highest_ns:
            track.highest_ns = sample.time_ns
            track.highest_frame = frame
        track.count += 1
        add_wide(&track.sum_low, &track.sum_high, <uint64_t> sample.time_ns)
        self.found[self.found_count] = (
            <uint64_t> (block * MEASURES + sample.measure + 1) << 16) | index_of(sample.time_ns)
        self.found_count += 1

    cdef int settle(self) except -1:
        """Count what was measured, and keep the bounds."""
        cdef Py_ssize_t i
        if self.failed:
            raise MemoryError
        self.cells.reserve(self.found_count)
        with nogil:
            for i in range(self.found_count):
                self.cells.add(self.found[i])
        self.found_count = 0
        self.keep_bounds()
        return 0

    cdef int keep_bounds(self) except -1:
        """Halve the sample until the bounds are kept."""
        while self.connection_count > self.maximum_connections or (
                self.cells.lines > self.maximum_lines and self.connection_count):
            self.set_level(self.level + 1)
        return 0

    cdef int set_level(self, int level) except -1:
        """Stop following what a level leaves out."""
        cdef Py_ssize_t i, j, kept = 0, source
        moved = np.full(max(self.connection_count, 1), -1, np.int32)
        flows = np.full(max(self.block_count * MEASURES, 1), -1, np.int32)
        cdef int32_t[::1] numbers = moved
        cdef int32_t[::1] mapped = flows
        cdef Connection *connection
        cdef Cells cells = Cells()
        self.level = level
        for i in range(self.connection_count):
            connection = &self.connections[i]
            if tracked(connection.name.hash, level):
                memset(connection.blocks, 0, sizeof(connection.blocks))
                numbers[i] = <int32_t> kept
                if kept != i:
                    self.connections[kept] = connection[0]
                kept += 1
            else:
                self.forget(connection)
        self.connection_count = kept
        kept = 0
        for i in range(self.block_count):
            if numbers[self.blocks[i].connection] < 0:
                continue
            self.blocks[kept] = self.blocks[i]
            self.blocks[kept].connection = numbers[self.blocks[i].connection]
            source = self.blocks[kept].source
            self.connections[self.blocks[kept].connection].blocks[source] = <int32_t> kept + 1
            for j in range(MEASURES):
                mapped[i * MEASURES + j] = <int32_t> (kept * MEASURES + j)
            kept += 1
        self.block_count = kept
        cells.absorb(self.cells, flows)
        self.cells = cells
        kept = 0
        for i in range(self.log_count):
            if numbers[self.log[i].connection] >= 0:
                self.log[kept] = self.log[i]
                self.log[kept].connection = numbers[self.log[i].connection]
                kept += 1
        self.log_count = kept
        fill_index(&self.index, self.connections, self.connection_count, sizeof(Connection))
        return 0

    # --- the log, and merging ---------------------------------------------------------------------------------------

    cdef void write_log(self, Connection *connection, const Segment *segment) noexcept nogil:
        cdef Py_ssize_t capacity = self.log_capacity * 2 or 256
        cdef void *grown
        if self.log_count == self.log_capacity:
            grown = realloc(self.log, capacity * sizeof(Segment))
            if grown == NULL:
                self.failed = True
                return
            self.log = <Segment *> grown
            self.log_capacity = capacity
        self.log[self.log_count] = segment[0]
        self.log_count += 1
        connection.logged += 1

    cdef void end_log(self, Connection *connection) noexcept nogil:
        """From now on count and measure; keep what is known at this moment, to compare it when parts are joined."""
        connection.counting = True
        connection.behind_log = <Conversation *> calloc(1, sizeof(Conversation))
        if connection.behind_log == NULL or not conversation_copy(connection.behind_log, &connection.now):
            self.failed = True

    def absorb(self, TcpTracks later not None, int64_t frame_shift):
        """Append what came directly after; `later` stays as it is.

        Parameters
        ----------
        frame_shift : int
            Added to the frame numbers of `later`.

        Raises
        ------
        ValueError
            `later` counts at once: it has kept nothing that could be put behind what is here.
        """
        cdef Py_ssize_t i = 0, j, end, source
        cdef int64_t number, block
        cdef Segment segment
        cdef Connection *theirs
        if later.at_once:
            raise ValueError("tracks that count at once cannot come behind others")
        flows = np.full(max(later.block_count * MEASURES, 1), -1, np.int32)
        cdef int32_t[::1] mapped = flows
        if later.level > self.level:
            self.set_level(later.level)
        while i < later.log_count:
            end = min(i + AT_ONCE, later.log_count)
            with nogil:
                while i < end:
                    segment = later.log[i]
                    segment.frame += frame_shift
                    theirs = &later.connections[segment.connection]
                    self.take(&theirs.name, &segment)
                    i += 1
            self.settle()
        with nogil:
            for i in range(later.connection_count):
                theirs = &later.connections[i]
                number = self.number_of(&theirs.name)
                if number < 0:
                    continue
                self.adopt(&self.connections[number], theirs, frame_shift)
                for source in range(NO_TIMESTAMP):
                    if theirs.blocks[source]:
                        block = self.block_of(number, <uint32_t> source)
                        if block < 0:
                            break
                        for j in range(MEASURES):
                            mapped[(theirs.blocks[source] - 1) * MEASURES + j] = <int32_t> (block * MEASURES + j)
                            add_track(&self.blocks[block].tracks[j],
                                      &later.blocks[theirs.blocks[source] - 1].tracks[j], frame_shift)
        if self.failed:
            raise MemoryError
        self.cells.absorb(later.cells, flows)
        self.segments += later.segments
        self.undecoded += later.undecoded
        self.fragments += later.fragments
        self.unsettled += later.unsettled
        self.keep_bounds()

    cdef void adopt(self, Connection *mine, const Connection *theirs, int64_t frame_shift) noexcept nogil:
        """Add what a later part has found of a connection behind its log."""
        cdef int i
        if mine.first_frame == 0:
            mine.first_frame = theirs.first_frame + frame_shift
        mine.last_frame = theirs.last_frame + frame_shift
        if mine.initiator == UNKNOWN_END:
            mine.initiator = theirs.initiator
        if not theirs.counting:
            return
        if not mine.counting:
            self.end_log(mine)
        if not conversation_equal(&mine.now, theirs.behind_log):
            self.unsettled += 1
        conversation_free(&mine.now)
        if not conversation_copy(&mine.now, &theirs.now):
            self.failed = True
        for i in range(2 * COUNT_OF_COUNTS):
            mine.counts[i] += theirs.counts[i]

    # --- results ----------------------------------------------------------------------------------------------------

    def connection_array(self):
        """Return the connections: CONNECTION_DTYPE, shape (connection_count,), in no order."""
        rows = np.zeros(self.connection_count, CONNECTION_DTYPE)
        cdef ConnectionRow[::1] out = rows
        cdef ConnectionRow *row
        cdef const Connection *connection
        cdef Py_ssize_t i
        for i in range(self.connection_count):
            row, connection = &out[i], &self.connections[i]
            memcpy(row.low, connection.name.key.low, sizeof(row.low))
            memcpy(row.high, connection.name.key.high, sizeof(row.high))
            row.low_port, row.high_port = connection.name.key.low_port, connection.name.key.high_port
            row.ip_version, row.tap = <uint8_t> connection.name.key.ip_version, connection.name.key.tap
            row.initiator = connection.initiator
            row.first_frame, row.last_frame = connection.first_frame, connection.last_frame
            memcpy(row.counts, connection.counts, sizeof(row.counts))
        return rows

    def block_array(self):
        """Return the blocks of times: BLOCK_DTYPE, shape (block_count,); connections by row of `connection_array`."""
        return copied(self.blocks, self.block_count, BLOCK_DTYPE)


cdef enum:
    MORE_FRAGMENTS = 1 << 12    # of uspcap.protocols.headers.Layer


def _tracks(tuple bounds, tuple counted, tuple counts, Cells cells, bytes state):
    """Return pickled tracks."""
    cdef TcpTracks tracks = TcpTracks(*bounds)
    cdef Unpacked unpacked = unpacking(state)
    cdef Py_ssize_t connections, blocks, logged
    connections, blocks, logged = counts
    (tracks.failed, tracks.level, tracks.segments, tracks.undecoded, tracks.fragments, tracks.unsettled) = counted
    tracks.cells = cells
    with nogil:
        tracks.restore(&unpacked, connections, blocks, logged)
    all_read(&unpacked)
    return tracks
