"""Format the frames of a batch as capture file records, into one reusable buffer.

A. Ownership. `RecordFormatter` owns the buffer. A call of `pcapng` or `pcap` fills it with whole records,
   as many as fit, and says at which row to go on. It begins at the buffer's start, or behind the bytes that
   `place` says are to stay. The buffer grows only where one record alone does not fit.
B. Nothing is silent. A frame that the format cannot hold is left out and counted by cause, bytes past
   the snaplen are cut off and counted, options that cannot be passed on are counted.
C. All output is little-endian, on any host. Raw options come in from a file: every length in them is
   checked against the bytes that are there.

    pcapng enhanced packet block (draft-ietf-opsawg-pcapng, section 4.3)
     0  block type = 6              16  timestamp, low 32 bits
     4  block total length          20  captured length
     8  interface                   24  original length
    12  timestamp, high 32 bits     28  bytes, padded to 32 bits; options; block total length

    pcap record (draft-ietf-opsawg-pcap, section 5)
     0  seconds    4  nanoseconds    8  captured length    12  original length    16  bytes
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from uspcap._core.columns cimport FrameColumns

import numpy as np

cdef extern from "<endian.h>" nogil:
    uint16_t htole16(uint16_t value)
    uint32_t htole32(uint32_t value)
    uint64_t htole64(uint64_t value)
    uint16_t le16toh(uint16_t value)
    uint16_t be16toh(uint16_t value)

cdef enum:
    ENHANCED_PACKET_BLOCK = 6
    BLOCK_OVERHEAD = 32
    RECORD_HEADER = 16
    OPTION_END = 0
    OPTION_COMMENT = 1
    OPTION_FLAGS = 2
    OPTION_DROP_COUNT = 4
    OPTION_QUEUE = 6
    NO_TIMESTAMP = 6  # uspcap.frames.TimestampSource.NONE
    # What the columns can add: flags (8), queue (8), drop count (12), end of options (4), and up to 3
    # bytes of padding that the last raw option lacked.
    OPTIONS_OVERHEAD = 36

cdef uint64_t NO_LIMIT = 0xFFFFFFFFFFFFFFFFULL
cdef uint64_t LONGEST_BLOCK = 0xFFFFFFFCULL  # block total length is 32 bits, and a multiple of 4


cdef inline void store16(uint8_t *at, uint16_t value) noexcept nogil:
    value = htole16(value)
    memcpy(at, &value, 2)


cdef inline void store32(uint8_t *at, uint32_t value) noexcept nogil:
    value = htole32(value)
    memcpy(at, &value, 4)


cdef inline void store64(uint8_t *at, uint64_t value) noexcept nogil:
    value = htole64(value)
    memcpy(at, &value, 8)


cdef class RecordFormatter:
    """Turns batches into records of one file.

    Parameters
    ----------
    buffer_bytes : int
        Size of the buffer, at least 64.

    Attributes
    ----------
    buffer : ndarray of uint8
        The records of the last call, from its start.
    used : int
        Bytes of `buffer` that are filled after the last call, those that `place` kept among them.
    frames : int
        Frames that the last call put there.
    limit_reached : bool
        The last call ended because one more record might have gone beyond its `byte_limit`.
    timestamps_missing : int
        Frames since the start that have no timestamp, and were written with 0: neither format has a way
        to say so.
    timestamps_refused : int
        Frames left out since the start because the format cannot hold their timestamp.
    lengths_refused : int
        Frames left out since the start because they are too long for one block.
    frames_cut : int
        Frames since the start of which bytes past the snaplen were not written.
    options_refused : int
        Raw options left out since the start: damaged, or of unknown layout in big-endian input; for
        pcap, which has no place for any, the frames that had some.
    """

    cdef readonly object buffer
    cdef readonly Py_ssize_t used
    cdef readonly Py_ssize_t frames
    cdef readonly bint limit_reached
    cdef readonly int64_t timestamps_missing
    cdef readonly int64_t timestamps_refused
    cdef readonly int64_t lengths_refused
    cdef readonly int64_t frames_cut
    cdef readonly int64_t options_refused
    cdef uint8_t *start
    cdef Py_ssize_t capacity
    cdef Py_ssize_t kept
    cdef Py_ssize_t end_row
    cdef uint64_t byte_limit
    cdef uint64_t needed

    def __cinit__(self, Py_ssize_t buffer_bytes):
        if buffer_bytes < 64:
            raise ValueError("the buffer must hold at least 64 bytes")
        self.allocate(buffer_bytes)

    cdef int allocate(self, Py_ssize_t size) except -1:
        self.place(np.empty(size, np.uint8), 0)

    cpdef int place(self, object buffer, Py_ssize_t kept) except -1:
        """Go on in another buffer, or further on in the same.

        Parameters
        ----------
        buffer : ndarray of uint8
            The formatter holds on to it until it is given another.
        kept : int
            So many bytes at its start stay as they are: each call begins behind them.
        """
        cdef uint8_t[::1] view = buffer
        if not 0 <= kept <= view.shape[0] or not view.shape[0]:
            raise ValueError(f"cannot keep {kept} bytes of a buffer of {view.shape[0]}")
        self.buffer = buffer
        self.start = &view[0]
        self.capacity = view.shape[0]
        self.kept = kept
        return 0

    def pcapng(self, FrameColumns batch, Py_ssize_t first_row, const uint32_t[::1] interface_map,
               const uint32_t[::1] snaplens, bint big_endian_options, end_row=None, byte_limit=None):
        """Format rows from `first_row` on as enhanced packet blocks, timestamps in nanoseconds.

        Parameters
        ----------
        batch : FrameColumns
        first_row : int
            0 <= first_row <= batch.count.
        interface_map, snaplens : ndarray of uint32, same shape
            For each value of the `interface` column, the interface's number in the file and its snaplen
            (0: no limit).
        big_endian_options : bool
            The raw options are in big-endian order; only their comments are passed on.
        end_row : int, optional
            The row to end before, the end of the batch where not given.
        byte_limit : int, optional
            Add no more than so many bytes. A record counts with the most that it can take, up to 39 bytes more
            than it does.

        Returns
        -------
        int
            The row to go on with; `end_row` when all are done. The first one where nothing fits behind the bytes
            that were kept, or into `byte_limit`.

        Raises
        ------
        ValueError
            Where a row points outside the batch's data or has no interface; nothing is formatted of
            the rows from `first_row` on.
        """
        self.bound(batch, end_row, byte_limit)
        return self.format(batch, first_row, interface_map, snaplens, big_endian_options, True)

    def pcap(self, FrameColumns batch, Py_ssize_t first_row, uint32_t snaplen, end_row=None, byte_limit=None):
        """Format rows from `first_row` on as pcap records with nanoseconds.

        Parameters and results are as in `pcapng`; `snaplen` is the file's. Options and interfaces have
        no place in a pcap file.
        """
        self.bound(batch, end_row, byte_limit)
        return self.format(batch, first_row, np.zeros(1, np.uint32), np.array([snaplen], np.uint32), False,
                           False)

    cdef int bound(self, FrameColumns batch, object end_row, object byte_limit) except -1:
        self.end_row = batch.count if end_row is None else end_row
        self.byte_limit = NO_LIMIT if byte_limit is None else byte_limit
        if self.end_row > batch.count:
            raise ValueError(f"no row {self.end_row} in a batch of {batch.count}")
        return 0

    cdef Py_ssize_t format(self, FrameColumns batch, Py_ssize_t first_row,
                           const uint32_t[::1] interface_map, const uint32_t[::1] snaplens,
                           bint big_endian_options, bint is_pcapng) except -1:
        cdef Py_ssize_t row, interface_count = interface_map.shape[0]
        cdef const uint32_t *numbers = &interface_map[0] if interface_count else NULL
        cdef const uint32_t *limits = NULL
        if first_row < 0 or first_row > self.end_row:
            raise ValueError(f"no row {first_row} in a batch of {self.end_row}")
        if snaplens.shape[0] != interface_count:
            raise ValueError("interface_map and snaplens differ in length")
        if interface_count:
            limits = &snaplens[0]
        self.frames = 0
        self.limit_reached = False
        while True:
            with nogil:
                if is_pcapng:
                    row = self.fill_pcapng(batch, first_row, numbers, limits, interface_count,
                                           big_endian_options)
                else:
                    row = self.fill_pcap(batch, first_row, limits[0])
            if row < 0:
                row = -1 - row
                self.used = self.kept
                self.frames = 0
                raise ValueError(f"row {row} of the batch points outside its data or interfaces")
            if self.used or row == self.end_row or self.limit_reached:
                return row
            # One record alone does not fit.
            self.allocate(<Py_ssize_t> self.needed)
            first_row = row

    cdef Py_ssize_t fill_pcapng(self, FrameColumns batch, Py_ssize_t row, const uint32_t *numbers,
                                const uint32_t *limits, Py_ssize_t interface_count,
                                bint big_endian_options) noexcept nogil:
        """Return the row to go on with, or -1 - row for one that points outside."""
        cdef uint8_t *begin = self.start + self.kept
        cdef uint8_t *at = begin
        cdef uint8_t *end = self.start + self.capacity
        cdef uint8_t *options
        cdef uint8_t *block
        cdef Py_ssize_t count = self.end_row
        cdef uint32_t captured, options_length, interface, padded
        cdef bint cut
        cdef uint64_t bound, timestamp
        cdef int64_t offset
        while row < count:
            interface = batch.interface[row]
            offset = batch.offset[row]
            captured = batch.captured_length[row]
            options_length = batch.options_length[row]
            if (interface >= interface_count or offset < 0
                    or captured > batch.data_length or offset > batch.data_length - captured):
                return -1 - row
            if options_length and (batch.options_offset[row] < 0 or options_length > batch.data_length
                                   or batch.options_offset[row] > batch.data_length - options_length):
                return -1 - row
            if batch.timestamp_ns[row] < 0:
                self.timestamps_refused += 1
                row += 1
                continue
            cut = 0 < limits[interface] < captured
            if cut:
                captured = limits[interface]
            bound = <uint64_t> captured + 3 + BLOCK_OVERHEAD + options_length + OPTIONS_OVERHEAD
            if bound > LONGEST_BLOCK:
                self.lengths_refused += 1
                row += 1
                continue
            if bound > <uint64_t> (end - at):
                self.needed = bound
                break
            if bound > self.byte_limit - <uint64_t> (at - begin):
                self.limit_reached = True
                break
            block = at
            padded = (captured + 3) & ~<uint32_t> 3
            timestamp = <uint64_t> batch.timestamp_ns[row]
            store32(at, ENHANCED_PACKET_BLOCK)
            store32(at + 8, numbers[interface])
            store32(at + 12, <uint32_t> (timestamp >> 32))
            store32(at + 16, <uint32_t> timestamp)
            store32(at + 20, captured)
            store32(at + 24, batch.wire_length[row])
            at += 28
            if padded:
                store32(at + padded - 4, 0)
            memcpy(at, batch.data + offset, captured)
            at += padded
            if options_length or batch.flags[row] or batch.queue[row] or batch.drop_count[row]:
                options = at
                at = self.column_options(at, batch, row)
                if options_length:
                    at = self.raw_options(at, batch, row, big_endian_options)
                if at != options:
                    store32(at, OPTION_END)
                    at += 4
            store32(at, <uint32_t> (at + 4 - block))
            store32(block + 4, <uint32_t> (at + 4 - block))
            at += 4
            self.frames += 1
            self.frames_cut += cut
            self.timestamps_missing += batch.timestamp_source[row] == NO_TIMESTAMP
            row += 1
        self.used = at - self.start
        return row

    cdef uint8_t *column_options(self, uint8_t *at, FrameColumns batch, Py_ssize_t row) noexcept nogil:
        """Write what the columns say, where they say anything."""
        if batch.flags[row]:
            store16(at, OPTION_FLAGS)
            store16(at + 2, 4)
            store32(at + 4, batch.flags[row])
            at += 8
        if batch.drop_count[row]:
            store16(at, OPTION_DROP_COUNT)
            store16(at + 2, 8)
            store64(at + 4, batch.drop_count[row])
            at += 12
        if batch.queue[row]:
            store16(at, OPTION_QUEUE)
            store16(at + 2, 4)
            store32(at + 4, batch.queue[row])
            at += 8
        return at

    cdef uint8_t *raw_options(self, uint8_t *at, FrameColumns batch, Py_ssize_t row,
                              bint big_endian) noexcept nogil:
        """Copy the input's raw options, but for those that `column_options` wrote."""
        cdef const uint8_t *source = batch.data + batch.options_offset[row]
        cdef uint32_t left = batch.options_length[row]
        cdef uint32_t padded
        cdef uint16_t code, length
        while left >= 4:
            memcpy(&code, source, 2)
            memcpy(&length, source + 2, 2)
            code = be16toh(code) if big_endian else le16toh(code)
            length = be16toh(length) if big_endian else le16toh(length)
            if code == OPTION_END:
                return at
            source += 4
            left -= 4
            if length > left:
                self.options_refused += 1
                return at
            padded = (<uint32_t> length + 3) & ~<uint32_t> 3
            if ((code == OPTION_FLAGS and batch.flags[row]) or (code == OPTION_QUEUE and batch.queue[row])
                    or (code == OPTION_DROP_COUNT and batch.drop_count[row])):
                pass
            elif big_endian and code != OPTION_COMMENT:
                # A column of 0 says as much as these three would.
                if code != OPTION_FLAGS and code != OPTION_DROP_COUNT and code != OPTION_QUEUE:
                    self.options_refused += 1
            else:
                store16(at, code)
                store16(at + 2, length)
                at += 4
                if padded:
                    store32(at + padded - 4, 0)
                memcpy(at, source, length)
                at += padded
            if padded >= left:
                return at
            source += padded
            left -= padded
        if left:
            self.options_refused += 1
        return at

    cdef Py_ssize_t fill_pcap(self, FrameColumns batch, Py_ssize_t row, uint32_t snaplen) noexcept nogil:
        """Return the row to go on with, or -1 - row for one that points outside."""
        cdef uint8_t *begin = self.start + self.kept
        cdef uint8_t *at = begin
        cdef uint8_t *end = self.start + self.capacity
        cdef Py_ssize_t count = self.end_row
        cdef uint32_t captured
        cdef bint cut
        cdef uint64_t timestamp, seconds, size
        cdef int64_t offset
        while row < count:
            offset = batch.offset[row]
            captured = batch.captured_length[row]
            if offset < 0 or captured > batch.data_length or offset > batch.data_length - captured:
                return -1 - row
            timestamp = <uint64_t> batch.timestamp_ns[row]
            seconds = timestamp // 1000000000ULL
            if seconds > 0xFFFFFFFFULL:  # negative ones are among them
                self.timestamps_refused += 1
                row += 1
                continue
            cut = 0 < snaplen < captured
            if cut:
                captured = snaplen
            size = <uint64_t> captured + RECORD_HEADER
            if size > <uint64_t> (end - at):
                self.needed = size
                break
            if size > self.byte_limit - <uint64_t> (at - begin):
                self.limit_reached = True
                break
            store32(at, <uint32_t> seconds)
            store32(at + 4, <uint32_t> (timestamp - seconds * 1000000000ULL))
            store32(at + 8, captured)
            store32(at + 12, batch.wire_length[row])
            memcpy(at + RECORD_HEADER, batch.data + offset, captured)
            at += size
            if batch.options_length[row]:
                self.options_refused += 1
            self.frames += 1
            self.frames_cut += cut
            self.timestamps_missing += batch.timestamp_source[row] == NO_TIMESTAMP
            row += 1
        self.used = at - self.start
        return row
