"""The numbered streams of flows: what names them, under a bound, and their runs (numbered_runs.pxd).

A. A stream is a flow (of timestamps by one source, as in flow_index.pyx) and what a protocol takes as its session and
   channel.
B. Streams are bounded by sampling on the hash of both: at level L only those whose hash has its top L bits zero are
   followed. The level rises where there are more streams, or these cost more words, than the bounds allow. Neither
   falls when packets come, so that what is followed in the end depends on which packets there were only.
"""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.records cimport copied, dtype_of
from uspcap._core.sampling cimport tracked
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking
from uspcap._core.timestamp_sources cimport UNTRUSTED
from uspcap.analysis.sequence.numbered_runs cimport *

cdef int64_t[::1] unused        # see D. of _core/records.pyx

cdef StreamName name_record
STREAM_NAME_DTYPE = dtype_of(<StreamName[:1]> &name_record)
"""What names a stream: its flow, and the bytes of its session and channel."""


cdef inline uint64_t hash_of(uint64_t flow_hash, const uint64_t *key) noexcept nogil:
    cdef uint64_t state = (flow_hash ^ key[0]) * <uint64_t> 0xD6E8FEB86659FD93
    state = (state ^ state >> 32 ^ key[1]) * <uint64_t> 0xD6E8FEB86659FD93
    state = (state ^ state >> 32) * <uint64_t> 0xD6E8FEB86659FD93
    return state ^ state >> 32


cdef class NumberedStreams:
    """Streams of flows and their runs.

    Parameters
    ----------
    modulus : int
        Numbers begin again after so many, a power of two up to 2^64; 0 where they do not.
    maximum_runs, runs_a_stream, maximum_streams : int
        Bounds: on the runs of all streams and of each, and on the streams.

    Attributes
    ----------
    packets : int
        That have numbers, whether their streams are followed or not.
    foreign : int
        Packets that are not of the protocol.
    level : int
        One stream of 2^level is followed.
    """

    def __cinit__(self, modulus, int64_t maximum_runs, int64_t runs_a_stream, Py_ssize_t maximum_streams):
        if maximum_streams < 1:
            raise ValueError("at least one stream is followed")
        self.arguments = modulus, maximum_runs, runs_a_stream, maximum_streams
        set_up_runs(&self.tables, modulus, maximum_runs, runs_a_stream)
        self.most_streams = maximum_streams
        if not self.grow():
            raise MemoryError

    def __dealloc__(self):
        free_runs(&self.tables)
        free(self.names)
        free(self.hashes)
        free(self.slots)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        pack(&packed, self.names, self.tables.stream_count * sizeof(StreamName))
        pack(&packed, self.hashes, self.tables.stream_count * sizeof(uint64_t))
        runs = pack_runs(&packed, &self.tables)
        return _streams, (self.arguments, (self.level, self.packets, self.foreign), runs, finished(&packed))

    cdef int restore(self, Unpacked *unpacked, tuple counts, tuple runs) except -1:
        cdef Py_ssize_t streams = runs[0]
        self.level, self.packets, self.foreign = counts
        while self.room < streams:
            if not self.grow():
                raise MemoryError
        unpack(unpacked, self.names, streams * sizeof(StreamName))
        unpack(unpacked, self.hashes, streams * sizeof(uint64_t))
        unpack_runs(unpacked, &self.tables, runs)
        self.fill_slots()
        return 0

    cdef bint grow(self) noexcept nogil:
        """Make room for double as many streams; return False where there is no memory."""
        cdef Py_ssize_t room = 2 * self.room or 8
        cdef void *grown = realloc(self.names, room * sizeof(StreamName))
        if grown != NULL:
            self.names = <StreamName *> grown
            grown = realloc(self.hashes, room * sizeof(uint64_t))
        if grown != NULL:
            self.hashes = <uint64_t *> grown
            grown = realloc(self.slots, 2 * room * sizeof(int32_t))
        if grown == NULL:
            self.tables.failed = True
            return False
        self.slots = <int32_t *> grown
        self.room = room
        self.slot_mask = 2 * room - 1
        self.fill_slots()
        return True

    cdef void fill_slots(self) noexcept nogil:
        cdef Py_ssize_t at
        cdef uint64_t slot
        memset(self.slots, 0xFF, (self.slot_mask + 1) * sizeof(int32_t))
        for at in range(self.tables.stream_count):
            slot = self.hashes[at] & self.slot_mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.slot_mask
            self.slots[slot] = <int32_t> at

    cdef int64_t stream_of(self, FrameColumns frames, HeaderColumns headers, Py_ssize_t row,
                           const uint64_t *key) noexcept nogil:
        """Return the stream of a row's flow, a new one where it is new; -1 where it is not followed."""
        cdef uint64_t hash = hash_of(headers.flow_hash[row], key)
        cdef StreamName name
        if not tracked(hash, self.level):
            return -1
        memset(&name, 0, sizeof(StreamName))
        memcpy(name.flow.source, headers.source_address + 16 * row, 16)
        memcpy(name.flow.destination, headers.destination_address + 16 * row, 16)
        name.flow.source_port = headers.source_port[row]
        name.flow.destination_port = headers.destination_port[row]
        name.flow.protocol = headers.protocol[row]
        name.flow.ip_version = headers.ip_version[row]
        name.flow.timestamp_source = frames.timestamp_source[row] & ~UNTRUSTED
        name.flow.tap = headers.tap[row]
        name.key[0], name.key[1] = key[0], key[1]
        return self.enter(&name, hash)

    cdef int64_t enter(self, const StreamName *name, uint64_t hash) noexcept nogil:
        """Return a stream by its name, a new one where it is new; -1 where there is no memory."""
        cdef uint64_t slot = hash & self.slot_mask
        cdef int32_t found = self.slots[slot]
        while found >= 0:
            if self.hashes[found] == hash and memcmp(&self.names[found], name, sizeof(StreamName)) == 0:
                return found
            slot = (slot + 1) & self.slot_mask
            found = self.slots[slot]
        if self.tables.stream_count == self.room:
            if not self.grow():
                return -1
            slot = hash & self.slot_mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.slot_mask
        found = <int32_t> add_stream(&self.tables)
        if found < 0:
            return -1
        self.names[found] = name[0]
        self.hashes[found] = hash
        self.slots[slot] = found
        return found

    cdef void set_level(self, int level) noexcept nogil:
        """Stop following what a level leaves out."""
        cdef Py_ssize_t at, kept = 0
        cdef int32_t *moved = <int32_t *> malloc((self.tables.stream_count + 1) * sizeof(int32_t))
        if moved == NULL:
            self.tables.failed = True
            return
        self.level = level
        for at in range(self.tables.stream_count):
            if tracked(self.hashes[at], level):
                moved[at] = <int32_t> kept
                self.names[kept] = self.names[at]
                self.hashes[kept] = self.hashes[at]
                kept += 1
            else:
                moved[at] = -1
        keep_streams(&self.tables, moved)
        free(moved)
        self.fill_slots()

    cdef int keep_bounds(self) except -1:
        """Halve the sample until the bounds are kept; after each batch."""
        while not self.tables.failed and (self.tables.stream_count > self.most_streams or is_over(&self.tables)):
            self.set_level(self.level + 1)
        if self.tables.failed:
            raise MemoryError
        return 0

    def absorb(self, NumberedStreams later not None, int64_t frame_shift):
        """Append what came directly after, whose frame numbers are moved by so many; `later` stays as it is."""
        cdef Py_ssize_t at
        cdef int64_t *numbers = <int64_t *> malloc((later.tables.stream_count + 1) * sizeof(int64_t))
        if numbers == NULL:
            raise MemoryError
        with nogil:
            if later.level > self.level:
                self.set_level(later.level)
            for at in range(later.tables.stream_count):
                numbers[at] = -1
                if tracked(later.hashes[at], self.level):
                    numbers[at] = self.enter(&later.names[at], later.hashes[at])
                if numbers[at] >= 0:
                    append_counts(&self.tables, numbers[at], &later.tables.streams[at])
            append_runs(&self.tables, numbers, &later.tables, frame_shift)
        free(numbers)
        self.packets += later.packets
        self.foreign += later.foreign
        self.keep_bounds()

    def empty(self):
        """Return streams with the same bounds that have seen nothing."""
        return NumberedStreams(*self.arguments)

    def arrays(self):
        """Return copies of what there is.

        Returns
        -------
        tuple of ndarray
            Names (STREAM_NAME_DTYPE), streams (STREAM_DTYPE), runs (RUN_DTYPE), ends of packets (PACKET_END_DTYPE).
        """
        names = copied(self.names, self.tables.stream_count, STREAM_NAME_DTYPE)
        return names, streams_of(&self.tables), runs_of(&self.tables), ends_of(&self.tables)

    @property
    def most_runs(self):
        """How many runs of a stream are followed, but for a heartbeat before all others."""
        return self.tables.most_runs


def _streams(tuple arguments, tuple counts, tuple runs, bytes state):
    """Return pickled streams."""
    cdef NumberedStreams streams = NumberedStreams(*arguments)
    cdef Unpacked unpacked = unpacking(state)
    streams.restore(&unpacked, counts, runs)
    all_read(&unpacked)
    return streams
