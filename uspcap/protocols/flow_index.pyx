"""The flow table: dense ids for flow keys.

A. A key is what `FlowKey` holds: addresses, ports, protocol, the tap, and the source of the timestamp, because times
   from two clocks are no one sequence. Ids count from 0 in order of first appearance.
B. Open addressing with linear probing over int32 ids; keys and hashes stand apart, indexed by id. A hash
   hit is confirmed by the whole key.
C. The table is bounded by sampling on the hash. At level L only keys whose hash has its top L bits zero
   are tracked; the level rises when the table is over its bound and never falls. Which flows are tracked at
   the end depends only on the set of flows seen, not on their order, and a flow that is tracked at the
   end was tracked since its first frame. That is what keeps the law of analyses exact under a bound.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from uspcap._core.bytes cimport load64
from uspcap._core.columns cimport ADDRESS_BYTES, FrameColumns, HeaderColumns
from uspcap._core.records cimport copied, dtype_of
from uspcap._core.sampling cimport tracked
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, pack, unpack, unpacking
from uspcap._core.timestamp_sources cimport UNTRUSTED

cdef FlowKey key_record
KEY_DTYPE = dtype_of(<FlowKey[:1]> &key_record)


cdef inline bint equal(const FlowKey *a, const FlowKey *b) noexcept nogil:
    """Compare the keys whole, as words."""
    cdef const uint8_t *x = <const uint8_t *> a
    cdef const uint8_t *y = <const uint8_t *> b
    return ((load64(x) ^ load64(y)) | (load64(x + 8) ^ load64(y + 8)) | (load64(x + 16) ^ load64(y + 16))
            | (load64(x + 24) ^ load64(y + 24)) | (load64(x + 32) ^ load64(y + 32))
            | (load64(x + 40) ^ load64(y + 40))) == 0


cdef class FlowIndex:
    """Keys to dense ids, at a sampling level."""

    def __cinit__(self):
        self.count = 0
        self.level = 0
        self.allocated = 0
        self.slot_mask = 0
        self.reserve(64)

    def __dealloc__(self):
        free(self.keys)
        free(self.hashes)
        free(self.slots)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        pack(&packed, self.keys, self.count * sizeof(FlowKey))
        pack(&packed, self.hashes, self.count * sizeof(uint64_t))
        return _index, (self.count, self.level, finished(&packed))

    cdef int reserve(self, Py_ssize_t more) except -1:
        """Make room for `more` keys beyond those there."""
        cdef Py_ssize_t wanted = self.count + more, allocated = self.allocated or 64
        cdef uint64_t slots
        cdef void *grown
        if wanted <= self.allocated:
            return 0
        while allocated < wanted:
            allocated *= 2
        grown = realloc(self.keys, allocated * sizeof(FlowKey))
        if grown == NULL:
            raise MemoryError
        self.keys = <FlowKey *> grown
        grown = realloc(self.hashes, allocated * sizeof(uint64_t))
        if grown == NULL:
            raise MemoryError
        self.hashes = <uint64_t *> grown
        slots = 2 * allocated
        grown = realloc(self.slots, slots * sizeof(int32_t))
        if grown == NULL:
            raise MemoryError
        self.slots = <int32_t *> grown
        self.allocated = allocated
        self.slot_mask = slots - 1
        self.fill_slots()
        return 0

    cdef void fill_slots(self) noexcept:
        cdef Py_ssize_t flow
        cdef uint64_t slot
        memset(self.slots, 0xFF, (self.slot_mask + 1) * sizeof(int32_t))
        for flow in range(self.count):
            slot = self.hashes[flow] & self.slot_mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.slot_mask
            self.slots[slot] = <int32_t> flow

    cdef int32_t find(self, FlowKey *key, uint64_t hash) noexcept nogil:
        cdef uint64_t slot = hash & self.slot_mask
        cdef int32_t flow = self.slots[slot]
        while flow >= 0:
            if self.hashes[flow] == hash and equal(&self.keys[flow], key):
                return flow
            slot = (slot + 1) & self.slot_mask
            flow = self.slots[slot]
        return -1

    cdef int32_t insert(self, FlowKey *key, uint64_t hash) noexcept nogil:
        """Add a key that is not there; `reserve` has made room."""
        cdef uint64_t slot = hash & self.slot_mask
        cdef int32_t flow = <int32_t> self.count
        while self.slots[slot] >= 0:
            slot = (slot + 1) & self.slot_mask
        self.slots[slot] = flow
        self.keys[flow] = key[0]
        self.hashes[flow] = hash
        self.count += 1
        return flow

    def assign(self, FrameColumns frames, HeaderColumns headers):
        """Fill the `flow` column: the id of each row's flow, -1 for one that is not tracked."""
        cdef Py_ssize_t i, n = frames.count
        cdef uint64_t hash
        cdef int32_t flow
        cdef FlowKey key
        cdef int level = self.level
        if headers.count != n:
            raise ValueError("the headers are not those of this batch")
        self.reserve(n)
        memset(&key, 0, sizeof(FlowKey))
        with nogil:
            for i in range(n):
                hash = headers.flow_hash[i]
                if not tracked(hash, level):
                    headers.flow[i] = -1
                    continue
                memcpy(key.source, headers.source_address + ADDRESS_BYTES * i, ADDRESS_BYTES)
                memcpy(key.destination, headers.destination_address + ADDRESS_BYTES * i, ADDRESS_BYTES)
                key.source_port = headers.source_port[i]
                key.destination_port = headers.destination_port[i]
                key.protocol = headers.protocol[i]
                key.ip_version = headers.ip_version[i]
                key.ethertype = 0 if key.ip_version else headers.ethertype[i]
                key.timestamp_source = frames.timestamp_source[i] & ~UNTRUSTED
                key.tap = headers.tap[i]
                flow = self.find(&key, hash)
                if flow < 0:
                    flow = self.insert(&key, hash)
                headers.flow[i] = flow

    def raise_level(self, int level):
        """Stop tracking what `level` leaves out; return where each old id went, -1 for nowhere.

        Returns
        -------
        ndarray of int32, shape (old count,)
        """
        cdef Py_ssize_t flow, kept = 0
        remap = np.full(self.count, -1, np.int32)
        cdef int32_t[::1] moved = remap
        for flow in range(self.count):
            if tracked(self.hashes[flow], level):
                self.keys[kept] = self.keys[flow]
                self.hashes[kept] = self.hashes[flow]
                moved[flow] = <int32_t> kept
                kept += 1
        self.count = kept
        self.level = level
        self.fill_slots()
        return remap

    def absorb(self, FlowIndex later):
        """Add the flows of `later`, in its order; return the id here of each, -1 where not tracked.

        Returns
        -------
        ndarray of int32, shape (later.count,)
        """
        cdef Py_ssize_t flow
        cdef int32_t mine
        ids = np.full(later.count, -1, np.int32)
        cdef int32_t[::1] mapped = ids
        self.reserve(later.count)
        for flow in range(later.count):
            if not tracked(later.hashes[flow], self.level):
                continue
            mine = self.find(&later.keys[flow], later.hashes[flow])
            if mine < 0:
                mine = self.insert(&later.keys[flow], later.hashes[flow])
            mapped[flow] = mine
        return ids

    def remap_column(self, HeaderColumns headers, const int32_t[::1] remap):
        """Rewrite the `flow` column after `raise_level`."""
        cdef Py_ssize_t i
        for i in range(headers.count):
            if headers.flow[i] >= 0:
                headers.flow[i] = remap[headers.flow[i]]

    def key_array(self):
        """Return a copy of the keys: ndarray of KEY_DTYPE, shape (count,)."""
        return copied(self.keys, self.count, KEY_DTYPE)

    def hash_array(self):
        """Return a copy of the hashes: ndarray of uint64, shape (count,)."""
        hashes = np.empty(self.count, np.uint64)
        cdef uint64_t[::1] flat = hashes
        if self.count:
            memcpy(&flat[0], self.hashes, self.count * sizeof(uint64_t))
        return hashes


def _index(Py_ssize_t count, int level, bytes state):
    """Return a pickled index."""
    cdef FlowIndex index = FlowIndex()
    cdef Unpacked unpacked = unpacking(state)
    index.reserve(count)
    unpack(&unpacked, index.keys, count * sizeof(FlowKey))
    unpack(&unpacked, index.hashes, count * sizeof(uint64_t))
    all_read(&unpacked)
    index.count = count
    index.level = level
    index.fill_slots()
    return index
