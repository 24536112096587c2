"""Table of requests under a bound.

A. Requests are sampled on hashes as connections are (connection_tables.pyx), at the same level.
B. A request keeps its own times and the first answer of each kind. Histograms are made of these when they are asked
   for.
C. The index of requests is open addressing with linear probing over 2 * a request's number, odd where the key is
   its FIX sequence number. Of requests with one key the index has the last; of an earlier generation of a connection,
   which ended with a SYN, it has none.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memset

import numpy as np

from uspcap._core.records cimport dtype_of
from uspcap._core.sampling cimport tracked
from uspcap.messages.connection_tables cimport Connection, hash_bytes, mix

COUNTS = (
    "segments", "payload_bytes", "cut_segments", "repeated_bytes", "lost_bytes", "holes", "restarts",
    "resynchronisations", "unread_bytes", "messages", "after_acknowledgment", "enter", "replace", "cancel",
    "modify", "accepted", "executed", "canceled", "rejected", "replaced", "pending", "expired", "modified", "other_messages",
    "possible_duplicates", "answers_without_request", "malformed", "checksum_mismatches", "fits_ouch_4_2",
    "fits_ouch_5_0", "application_messages",
)

cdef int64_t[::1] unused        # see D. of _core/records.pyx

cdef Request request_record
REQUEST_DTYPE = dtype_of(<Request[:1]> &request_record, (("answers", ANSWERS),))

CONNECTION_DTYPE = np.dtype([
    ("low", np.uint8, 16), ("high", np.uint8, 16), ("low_port", np.uint16), ("high_port", np.uint16),
    ("ip_version", np.uint8), ("tap", np.uint16), ("protocol", np.uint8), ("begin_string", "S14"), ("first_frame", np.int64),
    ("counts", np.uint64, len(COUNTS)),
])


cdef class OrderTables(MessageStreams):
    """What `OrderMachine` (analysis/orders/order_machine.pyx) keeps."""

    def __cinit__(self, int version, rules, Py_ssize_t maximum_connections, Py_ssize_t maximum_requests,
                  Py_ssize_t maximum_log_bytes, bint at_once=False):
        if maximum_requests < 1:
            raise ValueError("at least one request is followed")
        self.maximum_requests = maximum_requests
        self.set_up(maximum_connections, maximum_log_bytes, at_once)
        if not self.grow_requests():
            raise MemoryError

    def __dealloc__(self):
        free(self.requests)
        free(self.request_slots)

    cdef bint grow_requests(self) noexcept nogil:
        cdef Py_ssize_t capacity = self.request_capacity * 2 or 64
        cdef void *grown
        if self.request_count < self.request_capacity:
            return True
        grown = realloc(self.requests, capacity * sizeof(Request))
        if grown == NULL:
            return False
        self.requests = <Request *> grown
        self.request_capacity = capacity
        # Two keys a request, and half of the slots free.
        grown = realloc(self.request_slots, 4 * capacity * sizeof(int32_t))
        if grown == NULL:
            return False
        self.request_slots = <int32_t *> grown
        self.request_mask = 4 * capacity - 1
        self.index_requests()
        return True

    cdef uint64_t request_hash(self, const Connection *connection, const uint8_t *id, Py_ssize_t length) noexcept nogil:
        return hash_bytes(connection.name.hash, id, length)

    cdef uint64_t slot_hash(self, uint64_t hash, uint32_t space) noexcept nogil:
        return mix(hash + space)

    cdef uint64_t sequence_hash(self, const Connection *connection, int64_t sequence, int direction) noexcept nogil:
        return mix(connection.name.hash + mix(<uint64_t> sequence * 2 + direction))

    cdef void index_requests(self) noexcept nogil:
        """Fill the slots; of requests with one key the last stays, and those of an earlier generation have none."""
        cdef Py_ssize_t i
        cdef Request *request
        memset(self.request_slots, 0xFF, (self.request_mask + 1) * sizeof(int32_t))
        for i in range(self.request_count):
            request = &self.requests[i]
            if request.generation == self.connections[request.connection].generation:
                self.enlist(<int32_t> i)

    cdef void enlist(self, int32_t number) noexcept nogil:
        """Put a request into the index."""
        cdef Request *request = &self.requests[number]
        cdef uint64_t slot = self.find(request.connection, request.generation, request.hash, request.space,
                                       request.id, request.id_length)
        self.request_slots[slot] = 2 * number
        if request.sequence >= 0:
            slot = self.find_sequence(request.connection, request.generation, request.sequence, request.direction)
            self.request_slots[slot] = 2 * number + 1

    cdef uint64_t find(self, int32_t connection, uint32_t generation, uint64_t hash, uint32_t space,
                       const uint8_t *id, Py_ssize_t length) noexcept nogil:
        """Return the slot of a request, or the free one where it would be."""
        cdef uint64_t slot = self.slot_hash(hash, space) & self.request_mask
        cdef Request *request
        cdef Py_ssize_t kept = length if length < ID_BYTES else ID_BYTES
        while self.request_slots[slot] >= 0:
            request = &self.requests[self.request_slots[slot] >> 1]
            if (not self.request_slots[slot] & 1 and request.hash == hash and request.connection == connection
                    and request.generation == generation and request.space == space
                    and request.id_length == <uint32_t> length and memcmp(request.id, id, kept) == 0):
                break
            slot = (slot + 1) & self.request_mask
        return slot

    cdef uint64_t find_sequence(self, int32_t connection, uint32_t generation, int64_t sequence,
                                int direction) noexcept nogil:
        """Return the slot of a request by its MsgSeqNum, or the free one where it would be."""
        cdef uint64_t slot = self.sequence_hash(&self.connections[connection], sequence, direction) & self.request_mask
        cdef Request *request
        while self.request_slots[slot] >= 0:
            request = &self.requests[self.request_slots[slot] >> 1]
            if (self.request_slots[slot] & 1 and request.sequence == sequence and request.connection == connection
                    and request.generation == generation and request.direction == direction):
                break
            slot = (slot + 1) & self.request_mask
        return slot

    cdef void keep_bounds(self) noexcept nogil:
        """Halve the sample until both bounds are kept."""
        while (self.connection_count > self.maximum_connections
               or self.request_count > self.maximum_requests) and not self.failed:
            self.set_level(self.level + 1)

    cdef void connections_moved(self, const int32_t *numbers) noexcept nogil:
        """Follow connections to their new numbers, and let go of requests that the level leaves out."""
        cdef Py_ssize_t i, kept = 0
        cdef Request *request
        for i in range(self.request_count):
            request = &self.requests[i]
            if numbers[request.connection] >= 0 and tracked(request.hash, self.level):
                request.connection = numbers[request.connection]
                if kept != i:
                    self.requests[kept] = request[0]
                kept += 1
        self.request_count = kept
        self.index_requests()


assert len(COUNTS) == COUNT_OF_COUNTS
