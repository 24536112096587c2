"""Table of TCP connections under a bound, and a log of segments.

A. Connections are bounded by sampling on hashes, as flows are (flow_index.pyx): at level L only those whose hash has
   its top L bits zero are followed. What is followed in the end depends on which there were only.
B. The log holds segments as they were captured, each behind an `Entry`.
C. What is kept of the messages of connections is its subclasses' concern: `connections_moved` gives them where
   connections went.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset

import numpy as np

from uspcap._core.records cimport dtype_of
from uspcap._core.sampling cimport tracked
from uspcap._core.states cimport Packed, Unpacked, pack, unpack, unpacked_new
from uspcap.messages.connections cimport Key, enter_connection, fill_index, have_room
from uspcap.messages.reassembly cimport stream_free, stream_pack, stream_unpack

cdef Key key_record
END_DTYPE = dtype_of(<Key[:1]> &key_record)
"""The two ends of a connection."""


cdef class ConnectionTables:
    """What `MessageStreams` (message_streams.pyx) keeps."""

    cdef int set_up(self, Py_ssize_t maximum_connections, Py_ssize_t maximum_log_bytes, bint at_once) except -1:
        """Make it ready; once, from the constructor of a subclass."""
        if maximum_connections < 1:
            raise ValueError("at least one connection is followed")
        self.at_once = at_once
        self.maximum_connections = maximum_connections
        self.maximum_log = maximum_log_bytes
        if not have_room(&self.index, <void **> &self.connections, &self.connection_capacity, 0, sizeof(Connection)):
            raise MemoryError
        return 0

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.connection_count):
            stream_free(&self.connections[i].streams[0])
            stream_free(&self.connections[i].streams[1])
        free(self.connections)
        free(self.index.slots)
        free(self.log)

    cdef tuple pack_tables(self, Packed *packed):
        """Pack connections and log; return the further arguments of `unpack_tables`."""
        cdef Py_ssize_t i
        with nogil:
            for i in range(self.connection_count):
                pack(packed, &self.connections[i], sizeof(Connection))
                stream_pack(packed, &self.connections[i].streams[0])
                stream_pack(packed, &self.connections[i].streams[1])
            pack(packed, self.log, self.log_bytes)
        return (self.failed, self.level, self.cut_connections, self.settled_connections, self.dropped_log_bytes,
                self.connection_count, self.log_bytes)

    cdef int unpack_tables(self, Unpacked *unpacked, tuple counts) except -1:
        """Read what was packed into a new object."""
        cdef Py_ssize_t i, connections, log_bytes
        (self.failed, self.level, self.cut_connections, self.settled_connections, self.dropped_log_bytes, connections,
         log_bytes) = counts
        for i in range(connections):
            if not have_room(&self.index, <void **> &self.connections, &self.connection_capacity, i,
                             sizeof(Connection)):
                raise MemoryError
            unpack(unpacked, &self.connections[i], sizeof(Connection))
            if unpacked.failed:
                break
            stream_unpack(unpacked, &self.connections[i].streams[0])
            stream_unpack(unpacked, &self.connections[i].streams[1])
            self.connection_count = i + 1
        fill_index(&self.index, self.connections, self.connection_count, sizeof(Connection))
        self.log = <uint8_t *> unpacked_new(unpacked, log_bytes, 0)
        self.log_bytes = self.log_capacity = log_bytes if self.log != NULL else 0
        return 0

    cdef Py_ssize_t connection_of(self, const Name *name) noexcept nogil:
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
            self.connections[number].mode = READ if self.at_once else LOGGED
        return number

    cdef void keep_bounds(self) noexcept nogil:
        """Halve the sample until all bounds are kept, those of what a subclass keeps, too."""

    cdef void connections_moved(self, const int32_t *numbers) noexcept nogil:
        """Follow connections to their new numbers, -1 for those that are followed no more."""

    cdef void set_level(self, int level) noexcept nogil:
        """Stop following what a level leaves out."""
        cdef Py_ssize_t i, kept = 0, at = 0, moved = 0
        cdef Entry *entry
        cdef Py_ssize_t size
        cdef int32_t *numbers = <int32_t *> calloc(self.connection_count + 1, sizeof(int32_t))
        if numbers == NULL:
            self.failed = True
            return
        self.level = level
        for i in range(self.connection_count):
            if tracked(self.connections[i].name.hash, level):
                numbers[i] = <int32_t> kept
                if kept != i:
                    self.connections[kept] = self.connections[i]
                kept += 1
            else:
                numbers[i] = -1
                stream_free(&self.connections[i].streams[0])
                stream_free(&self.connections[i].streams[1])
        self.connection_count = kept
        while at < self.log_bytes:
            entry = <Entry *> (self.log + at)
            size = entry_size(entry.captured)
            at += size
            if numbers[entry.connection] >= 0:
                entry.connection = numbers[entry.connection]
                memmove(self.log + moved, self.log + at - size, size)
                moved += size
        self.log_bytes = moved
        fill_index(&self.index, self.connections, self.connection_count, sizeof(Connection))
        self.connections_moved(numbers)
        free(numbers)

    # --- the log ----------------------------------------------------------------------------------------------

    cdef void write_log(self, Py_ssize_t number, const Segment *segment) noexcept nogil:
        """Keep a segment for when it is known what came before it."""
        cdef Py_ssize_t size = entry_size(segment.captured), capacity = self.log_capacity or 1 << 16
        cdef void *grown
        cdef Entry *entry
        while capacity < self.log_bytes + size:
            capacity *= 2
        if capacity != self.log_capacity:
            grown = realloc(self.log, capacity)
            if grown == NULL:
                self.failed = True
                return
            self.log = <uint8_t *> grown
            self.log_capacity = capacity
        entry = <Entry *> (self.log + self.log_bytes)
        memset(entry, 0, sizeof(Entry))
        entry.connection = <int32_t> number
        entry.sequence = segment.sequence
        entry.acknowledgment = segment.acknowledgment
        entry.length = segment.length
        entry.captured = segment.captured
        entry.flags = segment.flags
        entry.direction = segment.direction
        entry.place = segment.place
        memcpy(self.log + self.log_bytes + sizeof(Entry), segment.data, segment.captured)
        self.log_bytes += size
        self.connections[number].logged_bytes += size

    cdef void segment_of(self, const Entry *entry, const Connection *connection, int64_t frame_shift,
                         Segment *segment) noexcept nogil:
        """Make a segment of an entry of a log again."""
        segment.name = connection.name
        segment.sequence = entry.sequence
        segment.acknowledgment = entry.acknowledgment
        segment.length = entry.length
        segment.captured = entry.captured
        segment.flags = entry.flags
        segment.direction = <uint8_t> entry.direction
        segment.data = <const uint8_t *> entry + sizeof(Entry)
        segment.place = entry.place
        segment.place.frame += frame_shift

    # --- results ----------------------------------------------------------------------------------------------

    def end_array(self):
        """Return the ends of the connections: ndarray of END_DTYPE, shape (connection_count,)."""
        array = np.zeros(self.connection_count, END_DTYPE)
        cdef Key[::1] ends = array
        cdef Py_ssize_t i
        for i in range(self.connection_count):
            ends[i] = self.connections[i].name.key
        return array
