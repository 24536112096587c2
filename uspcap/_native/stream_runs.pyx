"""Numbers of messages that TCP carries, as runs: MsgSeqNum of FIX, and the numbers that SoupBinTCP counts silently.

A. Messages come from message_streams.pyx, which also sees to the law of analyses; runs are those of numbered_runs.pxd.
   A stream is a direction of a connection and a name: SenderCompID and TargetCompID, or the SoupBinTCP session.
B. FIX: each message has its number (34). A sequence reset (35=4) sets the next one (36), and with GapFillFlag (123=Y)
   fills the numbers up to there; a logon with ResetSeqNumFlag (141=Y), or with number 1, begins anew; what is possibly
   a duplicate (43=Y) fills what is missing, and changes nothing else.
C. SoupBinTCP: a login accepted (A) says which number comes next, and each sequenced packet (S) takes one. Before it,
   packets have no number. Where bytes are missing packets are counted on from the last one seen.
D. What of TCP's bytes is missing stands among the runs, before the first message after it whose number tells something.
E. Nothing of a login but session and number is kept.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from uspcap._native.connection_tables cimport Connection, hash_bytes
from uspcap._native.fix_fields cimport FixFields, fix_fields, only_char
from uspcap._native.message_streams cimport MessageStreams
from uspcap._native.numbered_runs cimport *
from uspcap._native.reassembly cimport Place, stream_places
from uspcap._native.soupbin cimport SOUP_HEADER
from uspcap._native.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking
from uspcap._native.timing cimport NO_STAMP

from uspcap._native.feed_runs import RUN_DTYPE

cdef enum:
    NAME_BYTES = 80             # of a name that are kept; its hash and length are of all
    SESSION_BYTES = 10
    NUMBER_BYTES = 20
    ZERO = 48

# What a connection's `own` words are, by direction.
cdef enum:
    NEXT = 0                    # SoupBinTCP's next number, and one; 0 where it is not known
    SESSION = 1                 # its session, in two words

# One stream; mirrors NUMBER_STREAM_DTYPE.
cdef struct NumberStream:
    Stream stream               # whose flow is twice the connection and the direction
    uint32_t breaks             # of the direction, when what came last told something
    uint32_t first_breaks       # and when it told something first
    uint32_t told               # whether anything has
    uint32_t name_length
    uint8_t name[NAME_BYTES]

NUMBER_STREAM_DTYPE = np.dtype([
    ("connection", np.int64), ("direction", np.int64),
    ("packets", np.int64), ("messages", np.int64), ("heartbeats", np.int64), ("excluded", np.int64),
    ("holes", np.int64), ("missing_bytes", np.int64), ("name", f"S{NAME_BYTES}"),
])
"""A stream for a result; `holes` and `missing_bytes` are of its direction of the connection."""

BREAK_DTYPE = np.dtype([("holes", np.int64), ("missing_bytes", np.int64)])


cdef class NumberMachine(MessageStreams):
    """Connections, and the runs of the numbered messages in them.

    Parameters
    ----------
    fix : bool
        Follow FIX, else SoupBinTCP.
    maximum_connections : int
        Followed one by one; beyond it a sample.
    maximum_streams, maximum_runs : int
        Beyond them messages are counted in `not_followed`.
    maximum_log_bytes : int
    at_once : bool
        Nothing comes before: read connections that were joined in the middle as well.
    """

    cdef Py_ssize_t maximum_streams, maximum_runs
    cdef Run *runs
    cdef readonly Py_ssize_t run_count
    cdef Py_ssize_t run_capacity
    cdef NumberStream *streams
    cdef readonly Py_ssize_t stream_count
    cdef Py_ssize_t stream_capacity
    cdef int32_t *slots
    cdef uint64_t slot_mask
    cdef readonly int64_t not_followed, without_stamp, malformed
    cdef Numbering numbering

    def __cinit__(self, bint fix, Py_ssize_t maximum_connections, Py_ssize_t maximum_streams, Py_ssize_t maximum_runs,
                  Py_ssize_t maximum_log_bytes, bint at_once=False):
        if sizeof(Run) != RUN_DTYPE.itemsize:
            raise ValueError("runs have another layout")
        if maximum_streams < 1:
            raise ValueError("at least one stream is followed")
        self.finds_fix = fix
        self.finds_soup = not fix
        self.maximum_streams = maximum_streams
        self.maximum_runs = maximum_runs
        self.set_up(maximum_connections, maximum_log_bytes, at_once)
        if not self.grow_streams() or not self.grow_runs(1):
            raise MemoryError

    def __dealloc__(self):
        free(self.runs)
        free(self.streams)
        free(self.slots)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        tables = self.pack_tables(&packed)
        pack(&packed, self.runs, self.run_count * sizeof(Run))
        pack(&packed, self.streams, self.stream_count * sizeof(NumberStream))
        bounds = (self.finds_fix, self.maximum_connections, self.maximum_streams, self.maximum_runs, self.maximum_log,
                  self.at_once)
        counted = (self.run_count, self.stream_count, self.not_followed, self.without_stamp, self.malformed)
        return _machine, (bounds, tables, counted, finished(&packed))

    cdef int restore(self, Unpacked *unpacked, tuple tables, tuple counted) except -1:
        cdef Py_ssize_t runs, streams
        runs, streams, self.not_followed, self.without_stamp, self.malformed = counted
        self.unpack_tables(unpacked, tables)
        if not self.grow_runs(runs):
            raise MemoryError
        unpack(unpacked, self.runs, runs * sizeof(Run))
        self.run_count = runs
        while self.stream_count < streams:
            if not self.grow_streams():
                raise MemoryError
            unpack(unpacked, &self.streams[self.stream_count], sizeof(NumberStream))
            self.stream_count += 1
        self.index_streams()
        return 0

    # --- tables -------------------------------------------------------------------------------------------------

    cdef bint grow_runs(self, Py_ssize_t more) noexcept nogil:
        """Make room for so many more runs; return False where there is no memory."""
        cdef Py_ssize_t capacity = self.run_capacity or 64
        cdef void *grown
        while capacity < self.run_count + more:
            capacity *= 2
        if capacity != self.run_capacity:
            grown = realloc(self.runs, capacity * sizeof(Run))
            if grown == NULL:
                self.failed = True
                return False
            self.runs = <Run *> grown
            self.run_capacity = capacity
        return True

    cdef bint grow_streams(self) noexcept nogil:
        """Make room for one more stream; return False where there is no memory."""
        cdef Py_ssize_t capacity = self.stream_capacity * 2 or 16
        cdef void *grown
        if self.stream_count < self.stream_capacity:
            return True
        grown = realloc(self.streams, capacity * sizeof(NumberStream))
        if grown == NULL:
            self.failed = True
            return False
        self.streams = <NumberStream *> grown
        self.stream_capacity = capacity
        grown = realloc(self.slots, 2 * capacity * sizeof(int32_t))
        if grown == NULL:
            self.failed = True
            return False
        self.slots = <int32_t *> grown
        self.slot_mask = 2 * capacity - 1
        self.index_streams()
        return True

    cdef void index_streams(self) noexcept nogil:
        cdef Py_ssize_t i
        cdef uint64_t slot
        memset(self.slots, 0xFF, (self.slot_mask + 1) * sizeof(int32_t))
        for i in range(self.stream_count):
            slot = hash_of(self.streams[i].stream.flow, self.streams[i].stream.key) & self.slot_mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.slot_mask
            self.slots[slot] = <int32_t> i

    cdef Py_ssize_t stream_named(self, int64_t flow, const uint64_t *key, const uint8_t *name,
                                 uint32_t kept) noexcept nogil:
        """Return a stream, a new one where it is new; -1 where there is no room for one."""
        cdef uint64_t slot = hash_of(flow, key) & self.slot_mask
        cdef NumberStream *found
        while self.slots[slot] >= 0:
            found = &self.streams[self.slots[slot]]
            if (found.stream.flow == flow and found.stream.key[0] == key[0] and found.stream.key[1] == key[1]
                    and memcmp(found.name, name, kept) == 0):
                return self.slots[slot]
            slot = (slot + 1) & self.slot_mask
        if self.stream_count >= self.maximum_streams or not self.grow_streams():
            return -1
        slot = hash_of(flow, key) & self.slot_mask
        while self.slots[slot] >= 0:
            slot = (slot + 1) & self.slot_mask
        self.slots[slot] = <int32_t> self.stream_count
        found = &self.streams[self.stream_count]
        memset(found, 0, sizeof(NumberStream))
        begin_stream(&found.stream, flow, key)
        found.name_length = kept
        memcpy(found.name, name, kept)
        self.stream_count += 1
        return self.stream_count - 1

    cdef Py_ssize_t stream_of_direction(self, Py_ssize_t number, int direction, const uint8_t *name,
                                        Py_ssize_t length) noexcept nogil:
        """Return the stream of that name, -1 where there is no room for it."""
        cdef uint64_t key[2]
        key[0] = hash_bytes(0, name, length)
        key[1] = <uint64_t> length
        return self.stream_named(2 * number + direction, key, name, length if length < NAME_BYTES else NAME_BYTES)

    # --- messages -----------------------------------------------------------------------------------------------

    cdef void note(self, Py_ssize_t at, int kind, uint64_t first, uint64_t after, int64_t messages,
                   const Place *place) noexcept nogil:
        """Take one thing that is numbered into its stream."""
        cdef Packet packet
        if self.run_count >= self.maximum_runs:
            self.not_followed += kind == DATA
            return
        if not self.grow_runs(1):
            return
        packet.kind = kind
        packet.first = first
        packet.next = after
        packet.messages = messages
        if place.source >= NO_STAMP and kind == DATA:
            self.without_stamp += 1
        self.run_count = take(&self.streams[at].stream, at, self.runs, self.run_count, &packet, &self.numbering,
                              place.timestamp_ns, place.frame)

    cdef void tell(self, Py_ssize_t at, uint32_t breaks, const Place *place) noexcept nogil:
        """Say what is missing of the bytes before a message whose number tells something."""
        cdef NumberStream *stream = &self.streams[at]
        if not stream.told:
            stream.told = 1
            stream.first_breaks = breaks
        elif stream.breaks != breaks:
            self.note(at, HOLE, 0, 0, 0, place)
        stream.breaks = breaks

    cdef void place_of(self, Py_ssize_t number, int direction, Py_ssize_t size, Place *place) noexcept nogil:
        """Say which frame completed the message at the front of a stream."""
        cdef Place first
        stream_places(&self.connections[number].streams[direction], size, &first, place)

    cdef void read_fix(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil:
        """Take one FIX message."""
        cdef Connection *connection = &self.connections[number]
        cdef FixFields fields
        cdef Place place
        cdef uint8_t name[2 * NAME_BYTES]
        cdef Py_ssize_t at, length
        cdef uint8_t type
        cdef bint duplicate
        cdef uint64_t first, after
        fix_fields(data, size, &fields)
        if fields.sequence < 0:
            self.malformed += 1
            return
        length = joined(name, fields.sender.data, fields.sender.length, fields.target.data, fields.target.length)
        at = self.stream_of_direction(number, direction, name, length)
        if at < 0:
            self.not_followed += 1
            return
        self.place_of(number, direction, size, &place)
        type = only_char(&fields.message_type)
        duplicate = only_char(&fields.possible_duplicate) == b"Y"
        first = <uint64_t> fields.sequence
        after = first + 1
        if type == b"4":
            if only_char(&fields.gap_fill) != b"Y":
                if duplicate or fields.new_sequence < 0:
                    self.streams[at].stream.excluded += 1
                else:
                    self.tell(at, connection.breaks[direction], &place)
                    self.note(at, RESET, <uint64_t> fields.new_sequence, <uint64_t> fields.new_sequence, 0, &place)
                return
            if fields.new_sequence > fields.sequence:
                after = <uint64_t> fields.new_sequence
        if duplicate:
            self.streams[at].stream.excluded += 1
            self.note(at, FILL, first, after, 0, &place)
            return
        self.tell(at, connection.breaks[direction], &place)
        # Sessions that begin anew every day do not all say so.
        if type == b"A" and (first == 1 or only_char(&fields.reset_numbers) == b"Y"):
            self.note(at, RESET, first, first, 0, &place)
        self.note(at, DATA, first, after, 1, &place)
        if type == b"5":
            self.note(at, END, after, after, 0, &place)

    cdef void read_soup(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil:
        """Take one SoupBinTCP packet: A announces a number, S takes one, Z ends the session."""
        cdef Connection *connection = &self.connections[number]
        cdef uint64_t *own = connection.own[direction]
        cdef Place place
        cdef uint64_t next
        cdef Py_ssize_t at, length = 0
        cdef const uint8_t *session = <const uint8_t *> &own[SESSION]
        if data[2] == b"A":
            own[NEXT] = 0
            if not number_after_spaces(data + SOUP_HEADER + SESSION_BYTES, &next):
                self.malformed += 1
                return
            memcpy(&own[SESSION], data + SOUP_HEADER, SESSION_BYTES)
            own[NEXT] = next + 1
        elif data[2] != b"S" and data[2] != b"Z" and data[2] != b"H":
            return
        if own[NEXT]:
            length = SESSION_BYTES
            while length and session[length - 1] == b" ":
                length -= 1
            if length and session[0] == b" ":
                # Left-padded, as the specification has it.
                while session[0] == b" ":
                    session += 1
                    length -= 1
        at = self.stream_of_direction(number, direction, session, length)
        if at < 0:
            self.not_followed += data[2] == b"S"
            return
        if data[2] == b"H":
            self.streams[at].stream.heartbeats += 1
            return
        if not own[NEXT]:
            self.streams[at].stream.excluded += data[2] == b"S"
            return
        next = own[NEXT] - 1
        self.place_of(number, direction, size, &place)
        if data[2] == b"A":
            self.tell(at, connection.breaks[direction], &place)
            self.note(at, HEARTBEAT, next, next, 0, &place)
        elif data[2] == b"S":
            self.note(at, DATA, next, next + 1, 1, &place)
            own[NEXT] += 1
        else:
            self.note(at, END, next, next, 0, &place)

    # --- bounds and merging -------------------------------------------------------------------------------------

    cdef void connections_moved(self, const int32_t *numbers) noexcept nogil:
        """Follow connections to their new numbers, and let go of the streams and runs of those that are gone."""
        cdef Py_ssize_t i, kept = 0
        cdef NumberStream *stream
        cdef int64_t flow
        cdef int32_t *moved = <int32_t *> calloc(self.stream_count + 1, sizeof(int32_t))
        if moved == NULL:
            self.failed = True
            return
        for i in range(self.stream_count):
            stream = &self.streams[i]
            flow = stream.stream.flow
            if numbers[flow >> 1] < 0:
                moved[i] = -1
                continue
            stream.stream.flow = 2 * <int64_t> numbers[flow >> 1] + (flow & 1)
            moved[i] = <int32_t> kept
            if kept != i:
                self.streams[kept] = stream[0]
            kept += 1
        self.stream_count = kept
        kept = 0
        for i in range(self.run_count):
            if moved[self.runs[i].stream] >= 0:
                stream = &self.streams[moved[self.runs[i].stream]]
                if stream.stream.run == i:
                    stream.stream.run = kept
                self.runs[kept] = self.runs[i]
                self.runs[kept].stream = moved[self.runs[i].stream]
                kept += 1
        self.run_count = kept
        free(moved)
        self.index_streams()

    cdef void adopt_messages(self, MessageStreams later, const int32_t *numbers, const uint32_t *generations,
                             int64_t frame_shift) noexcept nogil:
        """Take over the streams and runs of a later part."""
        cdef NumberStream *theirs = (<NumberMachine> later).streams
        cdef const Run *runs = (<NumberMachine> later).runs
        cdef Py_ssize_t i, count = (<NumberMachine> later).stream_count
        cdef int32_t *moved = <int32_t *> calloc(count + 1, sizeof(int32_t))
        cdef uint8_t *met = <uint8_t *> calloc(count + 1, 1)
        cdef Place place
        cdef int64_t stream
        if moved == NULL or met == NULL:
            free(moved)
            free(met)
            self.failed = True
            return
        self.not_followed += (<NumberMachine> later).not_followed
        self.without_stamp += (<NumberMachine> later).without_stamp
        self.malformed += (<NumberMachine> later).malformed
        for i in range(count):
            moved[i] = self.adopt_stream(&theirs[i], numbers)
        for i in range((<NumberMachine> later).run_count):
            stream = runs[i].stream
            if moved[stream] < 0:
                self.not_followed += runs[i].packets if moved[stream] == -1 else 0
                continue
            if not met[stream]:
                # Runs follow those of this part.
                met[stream] = 1
                if self.is_torn(&theirs[stream], moved[stream], numbers, later.connections):
                    place.timestamp_ns, place.source = runs[i].first_ns, 0
                    place.frame = runs[i].first_frame + frame_shift
                    self.note(moved[stream], HOLE, 0, 0, 0, &place)
            if self.run_count >= self.maximum_runs:
                self.not_followed += runs[i].packets
                continue
            if not self.grow_runs(1):
                break
            self.runs[self.run_count] = runs[i]
            self.runs[self.run_count].stream = moved[stream]
            self.runs[self.run_count].first_frame += frame_shift
            self.runs[self.run_count].last_frame += frame_shift
            self.run_count += 1
        for i in range(count):
            if moved[i] >= 0:
                self.end_adoption(&theirs[i], moved[i], numbers, later.connections)
        free(moved)
        free(met)

    cdef int32_t adopt_stream(self, const NumberStream *later, const int32_t *numbers) noexcept nogil:
        """Return the number here of a later part's stream; -1 where there is no room, -2 where it is not followed."""
        cdef int64_t number = numbers[later.stream.flow >> 1]
        cdef Py_ssize_t at
        cdef Stream *mine
        if number < 0:
            return -2
        at = self.stream_named(2 * number + (later.stream.flow & 1), later.stream.key, later.name, later.name_length)
        if at < 0:
            return -1
        mine = &self.streams[at].stream
        mine.packets += later.stream.packets
        mine.messages += later.stream.messages
        mine.heartbeats += later.stream.heartbeats
        mine.excluded += later.stream.excluded
        return <int32_t> at

    cdef uint32_t breaks_before(self, const NumberStream *later, const int32_t *numbers,
                                const Connection *connections) noexcept nogil:
        """Return how often the direction was broken here, before what was adopted."""
        cdef int64_t theirs = later.stream.flow >> 1
        cdef int direction = later.stream.flow & 1
        return self.connections[numbers[theirs]].breaks[direction] - connections[theirs].breaks[direction]

    cdef bint is_torn(self, const NumberStream *later, Py_ssize_t at, const int32_t *numbers,
                      const Connection *connections) noexcept nogil:
        """Tell whether bytes are missing between what came last here and what came first in the later part."""
        cdef NumberStream *mine = &self.streams[at]
        return (mine.told and later.told
                and mine.breaks != self.breaks_before(later, numbers, connections) + later.first_breaks)

    cdef void end_adoption(self, const NumberStream *later, Py_ssize_t at, const int32_t *numbers,
                           const Connection *connections) noexcept nogil:
        """Let a stream stand as the later part has left it."""
        cdef NumberStream *mine = &self.streams[at]
        cdef uint32_t before = self.breaks_before(later, numbers, connections)
        if later.told:
            if not mine.told:
                mine.told = 1
                mine.first_breaks = before + later.first_breaks
            mine.breaks = before + later.breaks
        if later.stream.run >= 0:
            # What comes next begins a run of its own, and is compared with the highest number of both.
            mine.stream.run = -1
            if mine.stream.high < later.stream.high:
                mine.stream.high = later.stream.high

    # --- results ------------------------------------------------------------------------------------------------

    def run_array(self):
        """Return a copy of the runs: ndarray of RUN_DTYPE, shape (run_count,)."""
        array = np.empty(self.run_count, RUN_DTYPE)
        cdef uint8_t[::1] raw
        if self.run_count:
            raw = array.view(np.uint8)
            memcpy(&raw[0], self.runs, self.run_count * sizeof(Run))
        return array

    def connection_breaks(self):
        """Return what is missing of each direction of the connections: ndarray of BREAK_DTYPE, shape (n, 2)."""
        array = np.zeros((self.connection_count, 2), BREAK_DTYPE)
        cdef Py_ssize_t i
        cdef int direction
        for i in range(self.connection_count):
            for direction in range(2):
                array[i, direction] = (
                    self.connections[i].holes[direction], self.connections[i].missing_bytes[direction])
        return array

    def stream_array(self):
        """Return the streams: ndarray of NUMBER_STREAM_DTYPE, shape (stream_count,)."""
        array = np.zeros(self.stream_count, NUMBER_STREAM_DTYPE)
        cdef Py_ssize_t i
        cdef NumberStream *stream
        cdef Connection *connection
        cdef int direction
        for i in range(self.stream_count):
            stream = &self.streams[i]
            connection = &self.connections[stream.stream.flow >> 1]
            direction = stream.stream.flow & 1
            array[i] = (
                stream.stream.flow >> 1, direction, stream.stream.packets, stream.stream.messages,
                stream.stream.heartbeats, stream.stream.excluded, connection.holes[direction],
                connection.missing_bytes[direction], (<const uint8_t *> stream.name)[:stream.name_length],
            )
        return array


cdef inline Py_ssize_t joined(uint8_t *name, const uint8_t *sender, Py_ssize_t sender_length, const uint8_t *target,
                              Py_ssize_t target_length) noexcept nogil:
    """Write both ids with a zero between them, cut to what there is room for; return how long that is.

    One that is missing, of length -1, is as an empty one.
    """
    cdef Py_ssize_t sender_kept = sender_length if sender_length < NAME_BYTES - 1 else NAME_BYTES - 1
    cdef Py_ssize_t target_kept = target_length if target_length < NAME_BYTES else NAME_BYTES
    if sender_kept > 0:
        memcpy(name, sender, sender_kept)
    else:
        sender_kept = 0
    name[sender_kept] = 0
    if target_kept > 0:
        memcpy(name + sender_kept + 1, target, target_kept)
    else:
        target_kept = 0
    return sender_kept + 1 + target_kept


cdef inline bint number_after_spaces(const uint8_t *digits, uint64_t *value) noexcept nogil:
    """Read the twenty characters of a number that is padded with spaces on the left; False where it is none."""
    cdef int at = 0
    cdef uint64_t number = 0, digit
    while at < NUMBER_BYTES and digits[at] == b" ":
        at += 1
    if at == NUMBER_BYTES:
        return False
    while at < NUMBER_BYTES:
        if digits[at] < b"0" or digits[at] > b"9":
            return False
        digit = digits[at] - ZERO
        # Below 2^63, so that there is room for the next.
        if number > ((<uint64_t> 1 << 63) - 1 - digit) // 10:
            return False
        number = 10 * number + digit
        at += 1
    value[0] = number
    return True


def _machine(tuple bounds, tuple tables, tuple counted, bytes state):
    """Return a pickled machine."""
    cdef NumberMachine machine = NumberMachine(*bounds)
    cdef Unpacked unpacked = unpacking(state)
    machine.restore(&unpacked, tables, counted)
    all_read(&unpacked)
    return machine
