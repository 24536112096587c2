"""Pairs of lines that carry one feed: which packets are theirs, by what session and channel, and their accounts.

A. Packets of the lines are found by their destination; what each says is read by the feed's rule (feed_runs.pyx). What
   is made of them is described in line_pair.pyx; the runs of all pairs are in one set of tables (numbered_runs.pxd), three
   streams for each pair and key: line 0, line 1, and the first copies.
B. Pairs and keys are bounded by sampling on their hash, as streams are in numbered_streams.pyx.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

import numpy as np

from uspcap._core.columns cimport ADDRESS_BYTES, FrameColumns, HeaderColumns, time_of
from uspcap._core.records cimport dtype_of
from uspcap._core.sampling cimport tracked
from uspcap._core.states cimport Packed, Unpacked, all_read, finished, nothing_packed, unpacking
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.analysis.arbitration.line_pair cimport *
from uspcap.analysis.sequence.numbered_runs cimport *
from uspcap.protocols.feed_rule cimport FeedRule, payload_of
from uspcap.stats.buckets cimport COUNTS_LENGTH

cdef struct Line:
    uint8_t address[ADDRESS_BYTES]
    uint16_t port
    uint16_t line
    int32_t pair

cdef Line line_record
LINE_DTYPE = dtype_of(<Line[:1]> &line_record)
"""Where a line's packets go: address as in the header columns, UDP port; which line (0 or 1) of which pair."""


cdef enum:
    MORE_FRAGMENTS = 1 << 12    # of `layers`, as headers.pyx has it


cdef inline uint64_t mixed(uint64_t state, uint64_t word) noexcept nogil:
    state = (state ^ word) * <uint64_t> 0xD6E8FEB86659FD93
    return state ^ state >> 32


cdef inline uint64_t line_hash(const uint8_t *address, uint16_t port) noexcept nogil:
    cdef uint64_t halves[2]
    memcpy(halves, address, ADDRESS_BYTES)
    return mixed(mixed(halves[0] * <uint64_t> 0x9E3779B97F4A7C15 ^ port, halves[1]), 0)


cdef class Arbiter:
    """Pairs of lines and what came on them.

    Parameters
    ----------
    lines : ndarray of LINE_DTYPE
    modulus : int
        Numbers begin again after so many, a power of two up to 2^64; 0 where they do not.
    ring_length : int
        Numbers within which both lines must bring one for it to be compared; a power of two, at most a quarter of the
        modulus.
    maximum_runs, runs_a_stream, maximum_pairs : int
        Bounds: on the runs of all pairs and of each stream, and on pairs and keys.
    is_known : bool
        Nothing comes before.

    Attributes
    ----------
    packets, foreign, excluded : int
        Of the lines: that have numbers, whether they are followed or not; that are not of the protocol; that touch no
        live state.
    level : int
        One pair and key of 2^level is followed.
    """

    cdef RunTables tables
    cdef Ring ring
    cdef tuple arguments
    cdef Line *lines
    cdef Py_ssize_t line_count
    cdef int32_t *line_slots
    cdef uint64_t line_mask
    cdef Pair *pairs
    cdef Py_ssize_t pair_count, room, most_pairs
    cdef int32_t *slots
    cdef uint64_t slot_mask
    cdef bint is_known
    cdef readonly int level
    cdef readonly int64_t packets, foreign, excluded

    def __cinit__(self, lines, modulus, uint64_t ring_length, int64_t maximum_runs, int64_t runs_a_stream,
                  Py_ssize_t maximum_pairs, bint is_known=False):
        if maximum_pairs < 1 or ring_length < 2 or ring_length & (ring_length - 1) or (
                modulus and 4 * ring_length > modulus):
            raise ValueError("at least one pair is followed, in a ring of a power of two, a quarter of all numbers")
        if lines.dtype != LINE_DTYPE:
            raise ValueError("lines have another layout")
        set_up_runs(&self.tables, modulus, maximum_runs, runs_a_stream)
        self.arguments = lines, modulus, ring_length, maximum_runs, runs_a_stream, maximum_pairs
        self.ring.length = ring_length
        self.ring.mask = self.tables.mask
        self.ring.wraps = self.tables.wraps
        self.most_pairs = maximum_pairs
        self.is_known = is_known
        self.lay_out_lines(lines)
        if not self.grow():
            raise MemoryError

    def __dealloc__(self):
        cdef Py_ssize_t at
        for at in range(self.pair_count):
            free_pair(&self.pairs[at])
        free_runs(&self.tables)
        free(self.pairs)
        free(self.slots)
        free(self.lines)
        free(self.line_slots)

    def __reduce__(self):
        cdef Packed packed = nothing_packed()
        cdef Py_ssize_t at
        for at in range(self.pair_count):
            pack_pair(&packed, &self.pairs[at], &self.ring)
        runs = pack_runs(&packed, &self.tables)
        counts = self.pair_count, self.level, self.packets, self.foreign, self.excluded
        return _arbiter, (self.arguments, self.is_known, counts, runs, finished(&packed))

    cdef int restore(self, Unpacked *unpacked, tuple counts, tuple runs) except -1:
        cdef Py_ssize_t pairs, at
        pairs, self.level, self.packets, self.foreign, self.excluded = counts
        while self.room < pairs:
            if not self.grow():
                raise MemoryError
        for at in range(pairs):
            memset(&self.pairs[at], 0, sizeof(Pair))
            self.pair_count = at + 1
            if not unpack_pair(unpacked, &self.pairs[at], &self.ring):
                break
        unpack_runs(unpacked, &self.tables, runs)
        self.fill_slots()
        return 0

    cdef int lay_out_lines(self, lines) except -1:
        cdef const Line[::1] given = np.ascontiguousarray(lines)
        cdef Py_ssize_t at, slots = 2
        cdef uint64_t slot
        self.line_count = given.shape[0]
        while slots < 2 * self.line_count:
            slots *= 2
        self.lines = <Line *> calloc(self.line_count + 1, sizeof(Line))
        self.line_slots = <int32_t *> malloc(slots * sizeof(int32_t))
        if self.lines == NULL or self.line_slots == NULL:
            raise MemoryError
        if self.line_count:
            memcpy(self.lines, &given[0], self.line_count * sizeof(Line))
        memset(self.line_slots, 0xFF, slots * sizeof(int32_t))
        self.line_mask = slots - 1
        for at in range(self.line_count):
            slot = line_hash(self.lines[at].address, self.lines[at].port) & self.line_mask
            while self.line_slots[slot] >= 0:
                slot = (slot + 1) & self.line_mask
            self.line_slots[slot] = <int32_t> at
        return 0

    cdef inline const Line *line_of(self, HeaderColumns headers, Py_ssize_t row) noexcept nogil:
        """Return the line to which a row goes, NULL where it is none."""
        cdef const uint8_t *address = headers.destination_address + ADDRESS_BYTES * row
        cdef uint16_t port = headers.destination_port[row]
        cdef uint64_t slot = line_hash(address, port) & self.line_mask
        cdef const Line *line
        while self.line_slots[slot] >= 0:
            line = &self.lines[self.line_slots[slot]]
            if line.port == port and not memcmp(line.address, address, ADDRESS_BYTES):
                return line
            slot = (slot + 1) & self.line_mask
        return NULL

    # --- pairs and keys -----------------------------------------------------------------------------------------

    cdef bint grow(self) noexcept nogil:
        """Make room for double as many pairs; return False where there is no memory."""
        cdef Py_ssize_t room = 2 * self.room or 4
        cdef void *grown = realloc(self.pairs, room * sizeof(Pair))
        if grown != NULL:
            self.pairs = <Pair *> grown
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
        for at in range(self.pair_count):
            slot = self.pairs[at].hash & self.slot_mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.slot_mask
            self.slots[slot] = <int32_t> at

    cdef Pair *pair_of(self, int64_t number, const uint64_t *key) noexcept nogil:
        """Return a pair under a key, a new one where it is new; NULL where it is not followed."""
        cdef uint64_t hash = mixed(mixed(mixed(<uint64_t> number + 1, key[0]), key[1]), 0)
        cdef uint64_t slot = hash & self.slot_mask
        cdef Pair *pair
        cdef int at
        if not tracked(hash, self.level):
            return NULL
        while self.slots[slot] >= 0:
            pair = &self.pairs[self.slots[slot]]
            if pair.pair == number and pair.key[0] == key[0] and pair.key[1] == key[1]:
                return pair
            slot = (slot + 1) & self.slot_mask
        if self.pair_count == self.room:
            if not self.grow():
                return NULL
            slot = hash & self.slot_mask
            while self.slots[slot] >= 0:
                slot = (slot + 1) & self.slot_mask
        pair = &self.pairs[self.pair_count]
        memset(pair, 0, sizeof(Pair))
        pair.pair, pair.key[0], pair.key[1], pair.hash = number, key[0], key[1], hash
        pair.is_known = self.is_known
        pair.stream = self.tables.stream_count
        for at in range(STREAMS):
            if add_stream(&self.tables) < 0:
                return NULL
        if not set_up_pair(pair, &self.ring):
            self.tables.failed = True
            return NULL
        self.slots[slot] = <int32_t> self.pair_count
        self.pair_count += 1
        return pair

    cdef void set_level(self, int level) noexcept nogil:
        """Stop following what a level leaves out."""
        cdef Py_ssize_t at, kept = 0
        cdef int stream
        cdef int32_t *moved = <int32_t *> malloc((self.tables.stream_count + 1) * sizeof(int32_t))
        if moved == NULL:
            self.tables.failed = True
            return
        memset(moved, 0xFF, (self.tables.stream_count + 1) * sizeof(int32_t))
        self.level = level
        for at in range(self.pair_count):
            if not tracked(self.pairs[at].hash, level):
                free_pair(&self.pairs[at])
                continue
            for stream in range(STREAMS):
                moved[self.pairs[at].stream + stream] = <int32_t> (STREAMS * kept + stream)
            self.pairs[at].stream = STREAMS * kept
            self.pairs[kept] = self.pairs[at]
            kept += 1
        self.pair_count = kept
        keep_streams(&self.tables, moved)
        free(moved)
        self.fill_slots()

    cdef int keep_bounds(self) except -1:
        """Halve the sample until the bounds are kept; after each batch."""
        while not self.tables.failed and (self.pair_count > self.most_pairs or is_over(&self.tables)):
            self.set_level(self.level + 1)
        if self.tables.failed:
            raise MemoryError
        return 0

    # --- packets ------------------------------------------------------------------------------------------------

    cdef inline void take_row(self, FrameColumns frames, HeaderColumns headers, Py_ssize_t row, int64_t frame_shift,
                              FeedRule rule) noexcept nogil:
        """Take the packets of one datagram, if it is of a line."""
        cdef Py_ssize_t captured, length, taken
        cdef Py_ssize_t byte = 0
        cdef const uint8_t *data
        cdef const Line *line
        cdef Pair *pair
        cdef Packet packet
        cdef Arrival arrival
        if not payload_of(frames, headers, row, &data, &captured, &length):
            return
        line = self.line_of(headers, row)
        if line == NULL:
            return
        while byte < length:
            taken = rule.parse(data + byte, captured - byte, length - byte, &packet)
            byte += taken
            if packet.kind == FOREIGN:
                self.foreign += 1
                break
            if packet.kind == EXCLUDED:
                self.excluded += 1
                continue
            self.packets += packet.kind == DATA
            pair = self.pair_of(line.pair, packet.key)
            if pair == NULL:
                continue
            arrival.first, arrival.length = packet.first, packet.length
            arrival.at_ns, arrival.frame = time_of(frames, row), frames.frame_number[row] + frame_shift
            arrival.bytes = taken
            arrival.line, arrival.kind = <uint8_t> line.line, <uint8_t> packet.kind
            arrival.source = min(frames.timestamp_source[row], <uint8_t> NO_TIMESTAMP)
            if not take_arrival(pair, &self.ring, &self.tables, &arrival):
                self.tables.failed = True

    def track(self, FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift,
              FeedRule rule not None):
        """Take the packets of the lines in a batch.

        Parameters
        ----------
        frame_shift : int
            Added to the batch's frame numbers.
        """
        cdef Py_ssize_t row
        if headers.count != frames.count:
            raise ValueError("the headers are not those of this batch")
        with nogil:
            for row in range(frames.count):
                self.take_row(frames, headers, row, frame_shift, rule)
        self.keep_bounds()

    def track_with_datagrams(self, FrameColumns frames not None, HeaderColumns headers not None, int64_t frame_shift,
                             FeedRule rule not None, Py_ssize_t first, Py_ssize_t last, FrameColumns datagrams not None,
                             HeaderColumns datagram_headers not None, const int64_t[::1] completed_by):
        """Take some rows of a batch that has IP fragments, as `feed_runs.track_with_datagrams` does."""
        cdef Py_ssize_t row
        cdef Py_ssize_t following = 0
        if headers.count != frames.count or not 0 <= first <= last <= frames.count:
            raise ValueError("the headers are not those of this batch")
        if datagrams.count and (datagram_headers.count != datagrams.count or completed_by.shape[0] < datagrams.count):
            raise ValueError("the headers are not those of the datagrams")
        with nogil:
            for row in range(first, last):
                if following < datagrams.count and completed_by[following] == row:
                    self.take_row(datagrams, datagram_headers, following, 0, rule)
                    following += 1
                elif not (headers.fragment_offset[row] or headers.layers[row] & MORE_FRAGMENTS):
                    self.take_row(frames, headers, row, frame_shift, rule)
        self.keep_bounds()

    def absorb(self, Arbiter later not None, int64_t frame_shift):
        """Append what came directly after, whose frame numbers are moved by so many; `later` stays as it is."""
        cdef Py_ssize_t at
        cdef int64_t stream
        cdef const Pair *theirs
        cdef Pair *pair
        cdef int32_t *numbers = <int32_t *> malloc((later.pair_count + 1) * sizeof(int32_t))
        if numbers == NULL:
            raise MemoryError
        with nogil:
            if later.level > self.level:
                self.set_level(later.level)
            for at in range(later.pair_count):
                theirs = &later.pairs[at]
                pair = self.pair_of(theirs.pair, theirs.key)
                numbers[at] = <int32_t> (pair - self.pairs) if pair != NULL else -1
                if pair != NULL:
                    if not append_pair(pair, &self.ring, &self.tables, theirs, frame_shift):
                        self.tables.failed = True
                    for stream in range(STREAMS):
                        append_counts(&self.tables, pair.stream + stream, &later.tables.streams[theirs.stream + stream])
            for at in range(later.tables.run_count):
                stream = later.tables.runs[at].stream
                if numbers[stream // STREAMS] < 0:
                    continue
                pair = &self.pairs[numbers[stream // STREAMS]]
                if stream % STREAMS != ARBITRATED:
                    append_run(&self.tables, pair.stream + stream % STREAMS, &later.tables, &later.tables.runs[at],
                               frame_shift)
                elif not append_first_copies(pair, &self.ring, &self.tables, &later.tables, at, frame_shift):
                    self.tables.failed = True
            for at in range(later.pair_count):
                if numbers[at] < 0:
                    continue
                pair, theirs = &self.pairs[numbers[at]], &later.pairs[at]
                for stream in range(STREAMS):
                    if later.tables.streams[theirs.stream + stream].full:
                        close_stream(&self.tables.streams[pair.stream + stream])
                end_append(pair, &self.ring, theirs)
        free(numbers)
        self.packets += later.packets
        self.foreign += later.foreign
        self.excluded += later.excluded
        self.keep_bounds()

    def empty(self, bint is_known=False):
        """Return an arbiter of the same lines and bounds that has seen nothing."""
        return Arbiter(*self.arguments, is_known=is_known)

    # --- results, of which nothing came before ------------------------------------------------------------------

    def arrays(self):
        """Return copies of the tables: streams, three for each pair and key, runs, and ends of packets."""
        return streams_of(&self.tables), runs_of(&self.tables), ends_of(&self.tables)

    @property
    def most_runs(self):
        """How many runs of a stream are followed, but for a heartbeat before all others."""
        return self.tables.most_runs

    @property
    def count(self):
        """Pairs and keys that are followed."""
        return self.pair_count

    def pair(self, Py_ssize_t number):
        """Return the pair and the key that a number stands for: an int, and 16 bytes."""
        cdef Pair *pair = &self.pairs[self.checked(number)]
        return pair.pair, (<const uint8_t *> pair.key)[:16]

    def counts(self, Py_ssize_t number):
        """Return what was counted of a pair.

        Returns
        -------
        dict of str to int, or to list of int by line
            Numbers `first` and `alone` by line; `other_clock`, `too_late`; packets `too_many`.
        """
        cdef Pair *pair = &self.pairs[self.checked(number)]
        cdef uint64_t alone[2]
        alone[0], alone[1] = pair.alone[0], pair.alone[1]
        count_left(pair, &self.ring, alone)
        return {
            "first": [pair.first[0], pair.first[1]],
            "alone": [alone[0], alone[1]],
            "other_clock": pair.other_clock,
            "too_late": pair.too_late,
            "too_many": pair.too_many,
        }

    def sources(self, Py_ssize_t number):
        """Return the timestamp sources of a pair's packets, rising."""
        cdef Pair *pair = &self.pairs[self.checked(number)]
        return [source for source in range(SOURCES) if pair.met[source]]

    def ties(self, Py_ssize_t number, int source):
        """Return how many numbers both lines brought at once."""
        return self.pairs[self.checked(number)].ties[source & (SOURCES - 1)]

    def skews(self, Py_ssize_t number, int source, int line):
        """Return by how much a line was first.

        Returns
        -------
        tuple or None
            Counts by bucket (uint64, shape (BUCKETS,)), sum, least and most in ns; None where it never was.
        """
        cdef Skews *skews = &self.pairs[self.checked(number)].skews[source & (SOURCES - 1)][line & 1]
        cdef uint64_t[::1] into
        if skews.counts == NULL:
            return None
        counts = np.empty(COUNTS_LENGTH, np.uint64)
        into = counts
        memcpy(&into[0], skews.counts, COUNTS_LENGTH * sizeof(uint64_t))
        return counts, int(skews.sum[1]) << 64 | skews.sum[0], skews.least_ns, skews.most_ns

    cdef Py_ssize_t checked(self, Py_ssize_t number) except -1:
        if not 0 <= number < self.pair_count:
            raise IndexError(f"there are {self.pair_count} pairs and keys")
        return number


def _arbiter(tuple arguments, bint is_known, tuple counts, tuple runs, bytes state):
    """Return a pickled arbiter."""
    cdef Arbiter arbiter = Arbiter(*arguments, is_known=is_known)
    cdef Unpacked unpacked = unpacking(state)
    arbiter.restore(&unpacked, counts, runs)
    all_read(&unpacked)
    return arbiter
