"""Numbers of messages that TCP carries, as runs: MsgSeqNum of FIX, and the numbers that SoupBinTCP counts silently.

A. Messages come from message_streams.pyx, which also sees to the law of analyses; runs are those of numbered_runs.pxd.
   A stream is a direction of a connection and a name: SenderCompID and TargetCompID, or the SoupBinTCP session.
B. FIX: each message has its number (34). A sequence reset (35=4) sets the next one (36), and with GapFillFlag (123=Y)
   fills the numbers up to there; a logon with ResetSeqNumFlag (141=Y), or with number 1, restarts; what is possibly
   a duplicate (43=Y) fills what is missing, and changes nothing else.
C. SoupBinTCP: a login accepted (A) says which number comes next, and each sequenced packet (S) takes one. Before it,
   packets have no number. Where bytes are missing packets are counted on from the last one seen.
D. What of TCP's bytes is missing stands among the runs, before the first message after it with a number.
E. Nothing of a login but session and number is kept.
F. Where there are too many connections, or their streams are too many or have too many runs, a sample of the
   connections is followed (connection_tables.pyx), and of the sessions of each as well.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from uspcap._core.sampling cimport tracked
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking
from uspcap.analysis.sequence.numbered_runs cimport *
from uspcap.messages.connection_tables cimport COUNTS_OF_STREAMS, Connection, hash_bytes, mix
from uspcap.messages.fix_fields cimport FixFields, fix_fields, only_char
from uspcap.messages.message_streams cimport MessageStreams
from uspcap.messages.reassembly cimport Place, stream_places
from uspcap.messages.soupbin cimport SOUP_HEADER

cdef enum:
    NAME_BYTES = 80             # of a name that are kept; its hash and length are of all
    SESSION_BYTES = 10
    NUMBER_BYTES = 20
    ZERO = 48

# What a connection's `own` words are, by direction.
cdef enum:
    NEXT = 0                    # SoupBinTCP's next number, and one; 0 where it is not known
    SESSION = 1                 # its session, in two words

# What a connection counts of its own.
cdef enum:
    MALFORMED = COUNTS_OF_STREAMS       # messages without a number
    OF_OTHERS                           # numbered messages of sessions that are not followed

# One stream, beside its counts and runs.
cdef struct Session:
    int64_t direction           # 2 * the connection, and the direction
    uint64_t key[2]             # of its name
    uint32_t breaks             # of the direction, at the last message with a number
    uint32_t first_breaks       # and at the first one
    uint32_t numbered           # whether there was one
    uint32_t name_length
    uint8_t name[NAME_BYTES]

SESSION_DTYPE = np.dtype([
    ("connection", np.int64), ("direction", np.int64),
    ("packets", np.int64), ("heartbeats", np.int64), ("excluded", np.int64),
    ("holes", np.int64), ("missing_bytes", np.int64), ("name", f"S{NAME_BYTES}"),
])
"""A stream for a result; `holes` and `missing_bytes` are of its direction of the connection."""

BREAK_DTYPE = np.dtype([("holes", np.int64), ("missing_bytes", np.int64)])


cdef inline uint64_t hash_of(int64_t direction, const uint64_t *key) noexcept nogil:
    return mix(key[0] ^ mix(<uint64_t> direction ^ key[1]))


cdef class NumberMachine(MessageStreams):
    """Connections, and the runs of the numbered messages in them.

    Parameters
    ----------
    fix : bool
        Follow FIX, else SoupBinTCP.
    maximum_connections, maximum_streams, maximum_runs : int
        Beyond any of them a sample of the connections is followed.
    runs_a_stream : int
        Beyond it messages are not followed.
    maximum_log_bytes : int
    at_once : bool
        Nothing comes before: read connections that were joined in the middle as well.
    """

    cdef tuple arguments
    cdef RunTables tables
    cdef Py_ssize_t maximum_streams
    cdef Session *sessions
    cdef Py_ssize_t session_room
    cdef int32_t *slots
    cdef uint64_t slot_mask

    def __cinit__(self, bint fix, Py_ssize_t maximum_connections, Py_ssize_t maximum_streams, int64_t maximum_runs,
                  int64_t runs_a_stream, Py_ssize_t maximum_log_bytes, bint at_once=False):
        if maximum_streams < 1:
            raise ValueError("at least one stream is followed")
        self.arguments = (fix, maximum_connections, maximum_streams, maximum_runs, runs_a_stream, maximum_log_bytes,
                          at_once)
        self.finds_fix = fix
        self.finds_soup = not fix
        self.maximum_streams = maximum_streams
        set_up_runs(&self.tables, 0, maximum_runs, runs_a_stream)
        self.set_up(maximum_connections, maximum_log_bytes, at_once)
        if not self.grow_sessions():
            raise MemoryError

    def __dealloc__(self):
        free_runs(&self.tables)
        free(self.sessions)
        free(self.slots)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        connections = self.pack_tables(&packed)
        pack(&packed, self.sessions, self.tables.stream_count * sizeof(Session))
        runs = pack_runs(&packed, &self.tables)
        return _machine, (self.arguments, connections, runs, finished(&packed))

    cdef int restore(self, Unpacked *unpacked, tuple connections, tuple runs) except -1:
        cdef Py_ssize_t streams = runs[0]
        self.unpack_tables(unpacked, connections)
        while self.session_room < streams:
            if not self.grow_sessions():
                raise MemoryError
        unpack(unpacked, self.sessions, streams * sizeof(Session))
        unpack_runs(unpacked, &self.tables, runs)
        self.index_sessions()
        return 0

    # --- tables -------------------------------------------------------------------------------------------------

    cdef bint grow_sessions(self) noexcept nogil:
        """Make room for double as many streams; return False where there is no memory."""
        cdef Py_ssize_t room = self.session_room * 2 or 16
        cdef void *grown = realloc(self.sessions, room * sizeof(Session))
        if grown != NULL:
            self.sessions = <Session *> grown
            grown = realloc(self.slots, 2 * room * sizeof(int32_t))
        if grown == NULL:
            self.failed = True
            return False
        self.slots = <int32_t *> grown
        self.session_room = room
        self.slot_mask = 2 * room - 1
        self.index_sessions()
        return True

    cdef void index_sessions(self) noexcept nogil:
        cdef Py_ssize_t i
        memset(self.slots, 0xFF, (self.slot_mask + 1) * sizeof(int32_t))
        for i in range(self.tables.stream_count):
            self.slots[self.free_slot(hash_of(self.sessions[i].direction, self.sessions[i].key))] = <int32_t> i

    cdef uint64_t free_slot(self, uint64_t hash) noexcept nogil:
        cdef uint64_t slot = hash & self.slot_mask
        while self.slots[slot] >= 0:
            slot = (slot + 1) & self.slot_mask
        return slot

    cdef Py_ssize_t session_named(self, int64_t direction, const uint64_t *key, const uint8_t *name,
                                  uint32_t kept) noexcept nogil:
        """Return a stream, a new one where it is new; -1 where it is not followed."""
        cdef uint64_t hash = hash_of(direction, key)
        cdef uint64_t slot = hash & self.slot_mask
        cdef Session *found
        cdef Py_ssize_t at
        if not tracked(mix(key[0]), self.level):
            return -1
        while self.slots[slot] >= 0:
            found = &self.sessions[self.slots[slot]]
            if (found.direction == direction and found.key[0] == key[0] and found.key[1] == key[1]
                    and memcmp(found.name, name, kept) == 0):
                return self.slots[slot]
            slot = (slot + 1) & self.slot_mask
        if self.tables.stream_count == self.session_room and not self.grow_sessions():
            return -1
        at = add_stream(&self.tables)
        if at < 0:
            self.failed = True
            return -1
        self.slots[self.free_slot(hash)] = <int32_t> at
        found = &self.sessions[at]
        memset(found, 0, sizeof(Session))
        found.direction = direction
        found.key[0], found.key[1] = key[0], key[1]
        found.name_length = kept
        memcpy(found.name, name, kept)
        return at

    cdef Py_ssize_t session_of_direction(self, Py_ssize_t number, int direction, const uint8_t *name,
                                         Py_ssize_t length) noexcept nogil:
        """Return the stream of that name, -1 where it is not followed."""
        cdef uint64_t key[2]
        key[0] = hash_bytes(0, name, length)
        key[1] = <uint64_t> length
        return self.session_named(2 * number + direction, key, name, length if length < NAME_BYTES else NAME_BYTES)

    # --- messages -----------------------------------------------------------------------------------------------

    cdef void note(self, Py_ssize_t at, int kind, uint64_t first, uint64_t length, uint64_t messages,
                   const Place *place) noexcept nogil:
        """Take one thing that is numbered into its stream."""
        cdef Packet packet
        packet.kind = kind
        packet.first = first
        packet.length = length
        packet.messages = messages
        packet.key[0] = packet.key[1] = 0
        take(&self.tables, at, &packet, place.timestamp_ns, place.frame)
        if self.tables.failed:
            self.failed = True

    cdef void tell(self, Py_ssize_t at, uint32_t breaks, const Place *place) noexcept nogil:
        """Note bytes that are missing before a message with a number."""
        cdef Session *session = &self.sessions[at]
        if not session.numbered:
            session.numbered = 1
            session.first_breaks = breaks
        elif session.breaks != breaks:
            self.note(at, HOLE, 0, 0, 0, place)
        session.breaks = breaks

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
        cdef bint duplicate, resets
        cdef uint64_t first, after
        fix_fields(data, size, &fields)
        if fields.sequence < 0:
            connection.counts[MALFORMED] += 1
            return
        length = joined(name, fields.sender.data, fields.sender.length, fields.target.data, fields.target.length)
        at = self.session_of_direction(number, direction, name, length)
        type = only_char(&fields.message_type)
        duplicate = only_char(&fields.possible_duplicate) == b"Y"
        resets = type == b"4" and only_char(&fields.gap_fill) != b"Y"
        if at < 0:
            connection.counts[OF_OTHERS] += not resets and not duplicate
            return
        self.place_of(number, direction, size, &place)
        first = <uint64_t> fields.sequence
        after = first + 1
        if resets:
            if duplicate or fields.new_sequence < 0:
                self.tables.streams[at].excluded += 1
            else:
                self.tell(at, connection.breaks[direction], &place)
                self.note(at, RESET, <uint64_t> fields.new_sequence, 0, 0, &place)
            return
        if type == b"4" and fields.new_sequence > fields.sequence:
            after = <uint64_t> fields.new_sequence
        if duplicate:
            self.tables.streams[at].excluded += 1
            self.note(at, FILL, first, after - first, 0, &place)
            return
        self.tell(at, connection.breaks[direction], &place)
        # Not all sessions that restart every day say so.
        if type == b"A" and (first == 1 or only_char(&fields.reset_numbers) == b"Y"):
            self.note(at, RESET, first, 0, 0, &place)
        self.note(at, DATA, first, after - first, 1, &place)
        if type == b"5":
            self.note(at, END, after, 0, 0, &place)

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
                connection.counts[MALFORMED] += 1
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
        at = self.session_of_direction(number, direction, session, length)
        if at < 0:
            if own[NEXT] and data[2] == b"S":
                connection.counts[OF_OTHERS] += 1
                own[NEXT] += 1
            return
        if data[2] == b"H":
            self.tables.streams[at].heartbeats += 1
            return
        if not own[NEXT]:
            self.tables.streams[at].excluded += data[2] == b"S"
            return
        next = own[NEXT] - 1
        self.place_of(number, direction, size, &place)
        if data[2] == b"A":
            self.tell(at, connection.breaks[direction], &place)
            self.note(at, HEARTBEAT, next, 0, 0, &place)
        elif data[2] == b"S":
            self.note(at, DATA, next, 1, 1, &place)
            own[NEXT] += 1
        else:
            self.note(at, END, next, 0, 0, &place)

    # --- bounds and merging -------------------------------------------------------------------------------------

    cdef void keep_bounds(self) noexcept nogil:
        """Halve the sample of connections until all bounds are kept."""
        while not self.failed and (
                self.connection_count > self.maximum_connections
                or self.tables.stream_count > self.maximum_streams or is_over(&self.tables)):
            self.set_level(self.level + 1)

    cdef void connections_moved(self, const int32_t *numbers) noexcept nogil:
        """Follow connections to their new numbers, and let go of the streams that are followed no more."""
        cdef Py_ssize_t i, kept = 0
        cdef Session *session
        cdef int32_t number
        cdef int32_t *moved = <int32_t *> calloc(self.tables.stream_count + 1, sizeof(int32_t))
        if moved == NULL:
            self.failed = True
            return
        for i in range(self.tables.stream_count):
            session = &self.sessions[i]
            number = numbers[session.direction >> 1]
            moved[i] = -1
            if number < 0:
                continue
            if not tracked(mix(session.key[0]), self.level):
                self.connections[number].counts[OF_OTHERS] += self.tables.streams[i].packets
                continue
            session.direction = 2 * <int64_t> number + (session.direction & 1)
            moved[i] = <int32_t> kept
            self.sessions[kept] = session[0]
            kept += 1
        keep_streams(&self.tables, moved)
        free(moved)
        self.index_sessions()

    cdef void adopt_messages(self, MessageStreams later, const int32_t *numbers, const uint32_t *generations,
                             int64_t frame_shift) noexcept nogil:
        """Take over the streams and runs of a later part."""
        cdef const RunTables *tables = &(<NumberMachine> later).tables
        cdef const Session *theirs = (<NumberMachine> later).sessions
        cdef const Run *run
        cdef Py_ssize_t i, count = tables.stream_count
        cdef int64_t *moved = <int64_t *> calloc(count + 1, sizeof(int64_t))
        cdef uint8_t *met = <uint8_t *> calloc(count + 1, 1)
        cdef Place place
        if moved == NULL or met == NULL:
            free(moved)
            free(met)
            self.failed = True
            return
        for i in range(count):
            moved[i] = self.adopt_session(&theirs[i], &tables.streams[i], numbers)
        for i in range(tables.run_count):
            run = &tables.runs[i]
            if moved[run.stream] < 0:
                continue
            if not met[run.stream]:
                # Runs follow those of this part.
                met[run.stream] = 1
                if self.is_torn(&theirs[run.stream], moved[run.stream], numbers, later.connections):
                    place.timestamp_ns, place.source = run.first_ns, 0
                    place.frame = run.first_frame + frame_shift
                    self.note(moved[run.stream], HOLE, 0, 0, 0, &place)
            append_run(&self.tables, moved[run.stream], tables, run, frame_shift)
        for i in range(count):
            if moved[i] >= 0:
                if tables.streams[i].full:
                    close_stream(&self.tables.streams[moved[i]])
                self.end_adoption(&theirs[i], moved[i], numbers, later.connections)
        if self.tables.failed:
            self.failed = True
        free(moved)
        free(met)

    cdef int64_t adopt_session(self, const Session *later, const Stream *counts, const int32_t *numbers) noexcept nogil:
        """Return the number here of a later part's stream; -1 where it is not followed."""
        cdef int64_t number = numbers[later.direction >> 1]
        cdef Py_ssize_t at
        if number < 0:
            return -1
        at = self.session_named(2 * number + (later.direction & 1), later.key, later.name, later.name_length)
        if at < 0:
            self.connections[number].counts[OF_OTHERS] += counts.packets
        else:
            append_counts(&self.tables, at, counts)
        return at

    cdef uint32_t breaks_before(self, const Session *later, const int32_t *numbers,
                                const Connection *connections) noexcept nogil:
        """Return how often the direction was broken here, before what was adopted."""
        cdef int64_t theirs = later.direction >> 1
        cdef int direction = later.direction & 1
        return self.connections[numbers[theirs]].breaks[direction] - connections[theirs].breaks[direction]

    cdef bint is_torn(self, const Session *later, Py_ssize_t at, const int32_t *numbers,
                      const Connection *connections) noexcept nogil:
        """Tell whether bytes are missing between what came last here and what came first in the later part."""
        cdef Session *mine = &self.sessions[at]
        return (mine.numbered and later.numbered
                and mine.breaks != self.breaks_before(later, numbers, connections) + later.first_breaks)

    cdef void end_adoption(self, const Session *later, Py_ssize_t at, const int32_t *numbers,
                           const Connection *connections) noexcept nogil:
        """Let a stream stand as the later part has left it."""
        cdef Session *mine = &self.sessions[at]
        cdef uint32_t before = self.breaks_before(later, numbers, connections)
        if later.numbered:
            if not mine.numbered:
                mine.numbered = 1
                mine.first_breaks = before + later.first_breaks
            mine.breaks = before + later.breaks

    # --- results ------------------------------------------------------------------------------------------------

    def arrays(self):
        """Return copies of what there is.

        Returns
        -------
        tuple of ndarray
            Sessions (SESSION_DTYPE), streams (STREAM_DTYPE), runs (RUN_DTYPE), ends of packets (PACKET_END_DTYPE).
        """
        return self.session_array(), streams_of(&self.tables), runs_of(&self.tables), ends_of(&self.tables)

    @property
    def most_runs(self):
        """How many runs of a stream are followed, but for a heartbeat before all others."""
        return self.tables.most_runs

    def counted(self):
        """Return messages without a number, and numbered ones of sessions that are not followed."""
        cdef Py_ssize_t i
        cdef uint64_t malformed = 0, of_others = 0
        for i in range(self.connection_count):
            malformed += self.connections[i].counts[MALFORMED]
            of_others += self.connections[i].counts[OF_OTHERS]
        return malformed, of_others

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

    cdef object session_array(self):
        array = np.zeros(self.tables.stream_count, SESSION_DTYPE)
        cdef Py_ssize_t i
        cdef Session *session
        cdef Stream *stream
        cdef Connection *connection
        cdef int direction
        for i in range(self.tables.stream_count):
            session, stream = &self.sessions[i], &self.tables.streams[i]
            connection = &self.connections[session.direction >> 1]
            direction = session.direction & 1
            array[i] = (
                session.direction >> 1, direction, stream.packets, stream.heartbeats, stream.excluded,
                connection.holes[direction], connection.missing_bytes[direction],
                (<const uint8_t *> session.name)[:session.name_length],
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
        # Such that there is room for the next, and for a word that says that there is none.
        if number > (~<uint64_t> 1 - digit) // 10:
            return False
        number = 10 * number + digit
        at += 1
    value[0] = number
    return True


def _machine(tuple arguments, tuple connections, tuple runs, bytes state):
    """Return a pickled machine."""
    cdef NumberMachine machine = NumberMachine(*arguments)
    cdef Unpacked unpacked = unpacking(state)
    machine.restore(&unpacked, connections, runs)
    all_read(&unpacked)
    return machine
