"""Walking capture files: raw bytes in, rows of a batch out.

A. A walker gets a window of the file, `data[start:end]`, fills rows from 0 and returns why it stopped and
   where. It never reads outside the window and never keeps a pointer to it.
B. A record is taken only if the window holds all of it. What a length field claims is compared with
   what is there before it is used, in 64 bits, so that no sum of two fields can wrap.
C. Finding the next record needs the length in this one, a load that the CPU would have to wait for.
   Captures are mostly runs of equal lengths, so the walker compares with the last length and, when
   equal, advances by a value it already knows: the branch predictor then runs ahead of the loads.
D. Timestamps are converted in integers only, of 128 bits where 64 might not do. A pcap fraction of a second beyond one
   second is added as it is, and counted. What lies beyond what uspcap counts in (saturating.pxd) is clamped, and noted
   with its frame; no two words of 32 bits, which is what pcap has, come so far.
E. Files are concatenated: where a record or block is due, the header of another file may stand. It is looked for where
   a record's length differs from the last one, which it practically always does there, and costs nothing elsewhere.

Sources: draft-ietf-opsawg-pcap (file and record headers), draft-ietf-opsawg-pcapng (blocks), and
libpcap's sf-pcap.c for Kuznetzov's modified format (24-byte record headers).
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

import numpy as np

from uspcap._core.bytes cimport load16, load32, load64
from uspcap._core.columns cimport FrameColumns
from uspcap._core.saturating cimport LATEST_NS, MOST_CLAMPED
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP

cdef extern from *:
    """
    typedef __int128 uspcap_int128;
    #define uspcap_swap16 __builtin_bswap16
    #define uspcap_swap32 __builtin_bswap32
    #define uspcap_swap64 __builtin_bswap64
    """
    ctypedef long long int128 "uspcap_int128"
    uint16_t swap16 "uspcap_swap16"(uint16_t) nogil
    uint32_t swap32 "uspcap_swap32"(uint32_t) nogil
    uint64_t swap64 "uspcap_swap64"(uint64_t) nogil


cpdef enum Stop:
    """Why a walker handed back control."""
    NEED_MORE = 0   # the record at `position` is not wholly in the window
    FULL = 1        # the batch has no row left
    LIMIT = 2       # the record at `position` starts at or beyond the limit
    DAMAGED = 3     # the record at `position` contradicts itself; see `damage`
    BLOCK = 4       # pcapng: the block at `position` is for Python
    SKIP = 5        # pcapng: the block at `position` is to be skipped and may be longer than the window
    HEADER = 6      # the header of another file stands at `position`, wholly in the window


cdef inline uint16_t read16(const uint8_t *p, bint swap) noexcept nogil:
    return swap16(load16(p)) if swap else load16(p)


cdef inline uint32_t read32(const uint8_t *p, bint swap) noexcept nogil:
    return swap32(load32(p)) if swap else load32(p)


cdef inline uint64_t read64(const uint8_t *p, bint swap) noexcept nogil:
    return swap64(load64(p)) if swap else load64(p)


cdef enum:
    PCAP_HEADER = 24         # bytes
    PCAPNG_START = 12        # bytes of a section header block up to its byte-order magic, inclusive
    SECTION_HEADER = 0x0A0D0D0A
    BYTE_ORDER_MAGIC = 0x1A2B3C4D
    NO_LENGTH = -1           # that no record has


cdef inline bint is_pcap_magic(uint32_t word) noexcept nogil:
    return word == 0xA1B2C3D4u or word == 0xA1B23C4Du or word == 0xA1B2CD34u


cdef int file_header(const uint8_t *p, Py_ssize_t available) noexcept nogil:
    """Return how many bytes of a file header start at `p`, 0 for none; more than `available` where too few are there.

    A magic number could be a time in 2055, or the kind of a block: version and accuracy of timestamps, which no file
    has ever used, must fit, too.
    """
    cdef uint32_t word
    cdef bint swap
    if available < 4:
        return 0
    word = load32(p)
    if word == SECTION_HEADER:
        if available < PCAPNG_START:
            return PCAPNG_START
        word = load32(p + 8)
        return PCAPNG_START if word == BYTE_ORDER_MAGIC or swap32(word) == BYTE_ORDER_MAGIC else 0
    swap = is_pcap_magic(swap32(word))
    if not swap and not is_pcap_magic(word):
        return 0
    if available >= 8 and (read16(p + 4, swap) != 2 or read16(p + 6, swap) > 4):
        return 0
    if available >= 16 and read32(p + 12, swap) > 64:
        return 0
    return PCAP_HEADER


cdef int begin_rows(FrameColumns frames, Py_ssize_t used, uint8_t source) except -1:
    """Set the columns that are the same for each row that a walker filled."""
    frames.count = used
    if used:
        memset(frames.timestamp_source, source, used)
    return 0


cdef class PcapWalker:
    """Walks the records of one pcap file.

    Parameters
    ----------
    swap : bool
        The file's byte order is not this machine's.
    fraction_ns : int
        Nanoseconds in a unit of the second word of a timestamp: 1000 or 1.
    record_header_length : int
        16, or 24 in Kuznetzov's modified format.
    longest : int
        Captured lengths beyond it are damage.
    swapped_lengths : int
        1 where captured and wire length stand in the old order of format 2.0 to 2.2, 2 where they do only
        if the first is the larger (2.3), else 0.
    interface : int
        Number of the interface that the frames are of.

    Attributes
    ----------
    overflowing : int
        Records with a fraction of a second beyond a second.
    first_overflowing, first_overflowing_position : int
        Number of the first such frame, 0 for none, and where in the data of its `walk` its record lies.
    below_million : int
        Records with a fraction below 1,000,000.
    """

    cdef bint swap
    cdef int64_t fraction_ns
    cdef Py_ssize_t record_header_length
    cdef uint32_t longest
    cdef int swapped_lengths
    cdef uint16_t interface
    cdef public int64_t frames_seen
    cdef readonly int64_t overflowing
    cdef readonly int64_t first_overflowing
    cdef readonly Py_ssize_t first_overflowing_position
    cdef readonly int64_t below_million
    cdef readonly str damage
    cdef readonly Py_ssize_t position

    def __init__(self, bint swap, int64_t fraction_ns, Py_ssize_t record_header_length, uint32_t longest,
                 int swapped_lengths=0, uint16_t interface=0):
        self.swap = swap
        self.fraction_ns = fraction_ns
        self.record_header_length = record_header_length
        self.longest = longest
        self.swapped_lengths = swapped_lengths
        self.interface = interface
        self.damage = ""
        self.restart()

    def restart(self):
        """Number frames from 1 again, and forget what was counted."""
        self.frames_seen = self.overflowing = self.first_overflowing = self.below_million = 0

    def fractions(self, const uint8_t[::1] data, Py_ssize_t start, Py_ssize_t end, Py_ssize_t most):
        """Return the fractions of a second of up to `most` records from `start` on, as they stand in the file.

        Returns
        -------
        ndarray of uint32, shape (records,)
            Up to the first that is cut or damaged, or the header of another file.
        """
        found = np.empty(most, np.uint32)
        cdef uint32_t[::1] into = found
        cdef Py_ssize_t position = start, count = 0
        cdef uint32_t captured, wire
        cdef const uint8_t *record
        while count < most and position + self.record_header_length <= end:
            record = &data[position]
            captured = read32(record + 8, self.swap)
            wire = read32(record + 12, self.swap)
            if self.swapped_lengths and (self.swapped_lengths == 1 or captured > wire):
                captured = wire
            if captured > self.longest or position + self.record_header_length + <Py_ssize_t> captured > end:
                break
            if file_header(record, end - position):
                break
            into[count] = read32(record + 4, self.swap)
            count += 1
            position += self.record_header_length + captured
        return found[:count]

    def walk(self, FrameColumns frames, uint8_t[::1] data, Py_ssize_t start, Py_ssize_t end,
             Py_ssize_t limit, uint8_t source):
        """Fill `frames` from `data[start:end]` and return a `Stop`; `position` is where it stopped.

        Records that start at or beyond `limit` are left alone. `data` must be the array that the batch
        was given, because `offset` points into it.
        """
        cdef Py_ssize_t position = start, row = 0, capacity = frames.capacity
        cdef Py_ssize_t header = self.record_header_length
        cdef bint swap = self.swap
        cdef int64_t fraction_ns = self.fraction_ns, number = self.frames_seen, below_million = 0
        cdef uint32_t longest = self.longest, captured = 0, wire, exchanged, fraction
        cdef uint32_t units = <uint32_t> (1000000000 // fraction_ns)
        cdef int64_t last_captured = NO_LENGTH
        cdef Py_ssize_t last_stride = header
        cdef int swapped_lengths = self.swapped_lengths, due
        cdef const uint8_t *record
        cdef int reason
        cdef Py_ssize_t at
        if end > data.shape[0] or start < 0:
            raise ValueError("the window lies outside the data")
        with nogil:
            while True:
                if position + header > end:
                    reason = NEED_MORE if position < limit else LIMIT
                    break
                if position >= limit:
                    reason = LIMIT
                    break
                if row == capacity:
                    reason = FULL
                    break
                record = &data[position]
                captured = read32(record + 8, swap)
                wire = read32(record + 12, swap)
                if swapped_lengths and (swapped_lengths == 1 or captured > wire):
                    exchanged = captured
                    captured = wire
                    wire = exchanged
                if <int64_t> captured == last_captured:
                    if position + last_stride > end:
                        reason = NEED_MORE
                        break
                else:
                    due = file_header(record, end - position)
                    if due:
                        reason = HEADER if due <= end - position else NEED_MORE
                        break
                    if captured > longest:
                        reason = DAMAGED
                        break
                    if position + header + <Py_ssize_t> captured > end:
                        reason = NEED_MORE
                        break
                    last_captured = <int64_t> captured if captured else <int64_t> NO_LENGTH
                    last_stride = header + captured
                fraction = read32(record + 4, swap)
                below_million += fraction < 1000000
                if fraction >= units:
                    if self.overflowing == 0:
                        self.first_overflowing = number + 1
                        self.first_overflowing_position = position
                    self.overflowing += 1
                frames.timestamp_ns[row] = <int64_t> read32(record, swap) * 1000000000 + fraction * fraction_ns
                frames.captured_length[row] = captured
                frames.wire_length[row] = wire
                frames.offset[row] = position + header
                number += 1
                frames.frame_number[row] = number
                row += 1
                position += last_stride
        begin_rows(frames, row, source)
        self.below_million += below_million
        if row:
            for at in range(row):
                frames.interface[at] = self.interface
            if frames.options_length[0] or frames.flags[0]:
                raise ValueError("the batch was used by a source with options; use one of its own")
        frames.frames_read = row
        frames.frames_before = self.frames_seen
        self.frames_seen = number
        self.position = position
        if reason == DAMAGED:
            self.damage = f"the record claims {captured} captured bytes, more than the {longest} allowed"
        return reason

    def plausible_start(self, const uint8_t[::1] data, Py_ssize_t start, int chain, int64_t around_s,
                        bint whole):
        """Return where, from `start`, a run of `chain` plausible records starts, or -1.

        For cutting a file into parts: the guess is verified later by the part before, which must arrive
        exactly there. A record is plausible when its lengths agree, its fraction is below one second and
        its second lies within ten years of `around_s` and a day of the record before. With `whole` the
        data reach to the end of the file, and a run that ends there may be shorter.
        """
        cdef Py_ssize_t candidate, position, end = data.shape[0], header = self.record_header_length
        cdef int found
        cdef int64_t second, previous, units = 1000000000 // self.fraction_ns
        cdef uint32_t captured = 0, wire
        cdef const uint8_t *record
        with nogil:
            for candidate in range(start, end - header + 1):
                position = candidate
                found = 0
                previous = around_s
                while found < chain and position + header <= end:
                    record = &data[position]
                    second = read32(record, self.swap)
                    captured = read32(record + 8, self.swap)
                    wire = read32(record + 12, self.swap)
                    if (captured > self.longest or captured > wire or wire > self.longest
                            or read32(record + 4, self.swap) >= units
                            or (second - previous if second > previous else previous - second)
                            > (315360000 if found == 0 else 86400)):
                        found = -1
                        break
                    previous = second
                    found += 1
                    position += header + captured
                if found == chain or (whole and found > 0 and position == end):
                    break
            else:
                candidate = -1
        return candidate


cdef struct InterfaceClock:
    uint64_t multiplier      # ns = ticks * multiplier / divisor, or >> shift when shift is set
    uint64_t plain_below     # ticks below it convert in 64 bits by the multiplier alone
    uint64_t divisor
    int shift
    int64_t offset_s
    int64_t offset_ns        # where there are ticks that convert by the multiplier alone
    uint32_t snaplen
    uint8_t source


# A frame whose timestamp was clamped.
cdef struct Clamped:
    int64_t frame
    Py_ssize_t position      # of its block in the data that `walk` was given
    bint later               # than the latest, not earlier than the earliest

cdef enum:
    SECOND = 1_000_000_000
    INTERFACE_DESCRIPTION = 1
    OBSOLETE_PACKET = 2
    SIMPLE_PACKET = 3
    INTERFACE_STATISTICS = 5
    ENHANCED_PACKET = 6
    MOST_INTERFACES = 65536


cdef class PcapngWalker:
    """Walks the blocks of a pcapng file; packets natively, what describes them through Python.

    `begin_section` and `add_interface` are called for the section header and interface description blocks
    that `walk` hands back with `BLOCK`.

    Attributes
    ----------
    finer_than_ns : int
        Timestamps that lost what was below 1 ns.
    clamped : int
        Timestamps that were clamped.
    """

    cdef bint swap
    cdef uint32_t longest
    cdef InterfaceClock *clocks
    cdef Py_ssize_t clocks_allocated
    cdef Py_ssize_t section_base
    cdef Py_ssize_t interface_count
    cdef public int64_t frames_seen
    cdef readonly int64_t finer_than_ns
    cdef readonly int64_t clamped
    cdef Clamped first_clamped[MOST_CLAMPED]
    cdef int clamped_listed, clamped_taken
    cdef readonly str damage
    cdef readonly Py_ssize_t position
    cdef readonly int64_t block_length

    def __init__(self, uint32_t longest):
        self.longest = longest
        self.swap = False
        self.section_base = 0
        self.interface_count = 0
        self.frames_seen = 0
        self.damage = ""

    def __dealloc__(self):
        free(self.clocks)

    def allow(self, uint32_t longest):
        """Let packet blocks be as long as `longest` bytes from here on."""
        self.longest = max(self.longest, longest)

    def begin_section(self, bint swap):
        """Interface numbers restart here, and this is the byte order."""
        self.swap = swap
        self.section_base = self.interface_count

    def add_interface(self, uint64_t multiplier, uint64_t divisor, int shift, int64_t offset_s,
                      uint32_t snaplen, uint8_t source):
        """Add an interface of this section: ns = ticks * multiplier / divisor, then >> shift, + offset_s in ns.

        `multiplier` is 10^9 at most, `divisor` at least 1, `shift` 127 at most.
        """
        if self.interface_count >= MOST_INTERFACES:
            raise OverflowError(f"more than {MOST_INTERFACES} interfaces")
        cdef InterfaceClock *larger
        if self.interface_count == self.clocks_allocated:
            larger = <InterfaceClock *> realloc(self.clocks, (2 * self.clocks_allocated + 8) * sizeof(InterfaceClock))
            if larger == NULL:
                raise MemoryError
            self.clocks = larger
            self.clocks_allocated = 2 * self.clocks_allocated + 8
        cdef uint64_t plain_below = 0
        if multiplier > <uint64_t> SECOND or divisor == 0 or not 0 <= shift <= 127:
            raise ValueError("there is no such resolution")
        cdef int64_t offset_ns = 0
        if divisor == 1 and shift == 0 and multiplier > 0 and -LATEST_NS // SECOND < offset_s < LATEST_NS // SECOND:
            offset_ns = offset_s * SECOND
            plain_below = <uint64_t> (LATEST_NS - (offset_ns if offset_ns > 0 else 0)) // multiplier
        self.clocks[self.interface_count] = InterfaceClock(multiplier, plain_below, divisor, shift, offset_s,
                                                           offset_ns, snaplen, source)
        self.interface_count += 1

    cdef int64_t to_ns(self, InterfaceClock *clock, uint64_t ticks, int64_t frame, Py_ssize_t position) noexcept nogil:
        """Return the time of so many ticks; note the frame where that was clamped."""
        cdef int128 product = <int128> ticks * clock.multiplier
        cdef int128 value
        if clock.shift:
            value = product >> clock.shift
            if (value << clock.shift) != product:
                self.finer_than_ns += 1
        elif clock.divisor != 1:
            value = product // clock.divisor
            if value * clock.divisor != product:
                self.finer_than_ns += 1
        else:
            value = product
        value += <int128> clock.offset_s * SECOND
        if -<int128> LATEST_NS <= value <= LATEST_NS:
            return <int64_t> value
        self.clamped += 1
        if self.clamped_listed < MOST_CLAMPED:
            self.first_clamped[self.clamped_listed] = Clamped(frame, position, value > 0)
            self.clamped_listed += 1
        return LATEST_NS if value > 0 else -LATEST_NS

    def restart(self):
        """Number frames from 1 again, and forget what was counted."""
        self.frames_seen = self.finer_than_ns = self.clamped = 0
        self.clamped_listed = self.clamped_taken = 0

    def take_clamped(self):
        """Return the frames that the last `walk` has met with a clamped timestamp, of the first MOST_CLAMPED.

        Returns
        -------
        list of (int, int, bool)
            Frame number, position in the data of its block, and whether it was too late, not too early.
        """
        cdef int at
        taken = [
            (self.first_clamped[at].frame, self.first_clamped[at].position, bool(self.first_clamped[at].later))
            for at in range(self.clamped_taken, self.clamped_listed)
        ]
        self.clamped_taken = self.clamped_listed
        return taken

    cdef void take_options(self, FrameColumns frames, Py_ssize_t row, const uint8_t *data, Py_ssize_t start,
                           Py_ssize_t end) noexcept nogil:
        """Keep where the options of one packet lie, and the three that have columns."""
        cdef Py_ssize_t position = start
        cdef uint16_t code, length
        frames.options_offset[row] = start
        while position + 4 <= end:
            code = read16(data + position, self.swap)
            length = read16(data + position + 2, self.swap)
            if code == 0 or position + 4 + length > end:
                break
            if code == 2 and length == 4:
                frames.flags[row] = read32(data + position + 4, self.swap)
            elif code == 4 and length == 8:
                frames.drop_count[row] = read64(data + position + 4, self.swap)
            elif code == 6 and length == 4:
                frames.queue[row] = read32(data + position + 4, self.swap)
            position += 4 + ((length + 3) & ~3)
        frames.options_length[row] = <uint32_t> ((position if position < end else end) - start)

    def walk(self, FrameColumns frames, uint8_t[::1] data, Py_ssize_t start, Py_ssize_t end,
             Py_ssize_t limit):
        """Fill `frames` from `data[start:end]` and return a `Stop`; `position` is where it stopped.

        `block_length` is the length of the block there for `SKIP` and, where it may be trusted, `DAMAGED`;
        else 0. Some writers leave the padding out of the length, which must be a multiple of 4, but not
        out of the file: it is added, as Wireshark does.
        """
        cdef Py_ssize_t position = start, row = 0, capacity = frames.capacity, body, options
        cdef bint swap = self.swap
        cdef int64_t number = self.frames_seen, available = 0, stride = 0
        cdef uint32_t kind, length, captured = 0, wire, interface = 0, most
        cdef uint64_t ticks
        cdef InterfaceClock *clock
        cdef const uint8_t *block
        cdef const uint8_t *base
        cdef int reason, wrong = 0, due
        if end > data.shape[0] or start < 0:
            raise ValueError("the window lies outside the data")
        base = &data[0]
        self.block_length = 0
        with nogil:
            while True:
                if position >= limit:
                    reason = LIMIT
                    break
                if position + 12 > end:
                    reason = NEED_MORE
                    break
                block = base + position
                kind = read32(block, swap)
                length = read32(block + 4, swap)
                if kind == SECTION_HEADER:
                    reason = BLOCK
                    break
                if is_pcap_magic(kind) or is_pcap_magic(swap32(kind)):
                    due = file_header(block, end - position)
                    if due:
                        reason = HEADER if due <= end - position else NEED_MORE
                        break
                if length < 12:
                    reason = DAMAGED
                    wrong = 1
                    break
                stride = (<int64_t> length + 3) & ~3
                if kind != ENHANCED_PACKET and kind != SIMPLE_PACKET and kind != OBSOLETE_PACKET:
                    if kind == INTERFACE_DESCRIPTION or kind == INTERFACE_STATISTICS:
                        reason = BLOCK
                        break
                    if position + stride > end:
                        self.block_length = stride
                        reason = SKIP
                        break
                    if read32(block + stride - 4, swap) != length:
                        self.block_length = stride
                        reason = DAMAGED
                        wrong = 2
                        break
                    position += stride
                    continue
                if length > self.longest:
                    self.block_length = stride
                    reason = DAMAGED
                    wrong = 3
                    break
                if position + stride > end:
                    reason = NEED_MORE
                    break
                if read32(block + stride - 4, swap) != length:
                    self.block_length = stride
                    reason = DAMAGED
                    wrong = 2
                    break
                if row == capacity:
                    reason = FULL
                    break
                frames.flags[row] = 0
                frames.queue[row] = 0
                frames.drop_count[row] = 0
                frames.options_length[row] = 0
                if kind == SIMPLE_PACKET:
                    interface = 0
                    body = 12
                    available = stride - 16
                else:
                    body = 28
                    available = stride - 32
                    if available >= 0:
                        interface = (read32(block + 8, swap) if kind == ENHANCED_PACKET
                                     else read16(block + 8, swap))
                if available < 0:
                    wrong = 4
                elif self.section_base + interface >= self.interface_count:
                    wrong = 5
                if wrong:
                    self.block_length = stride
                    reason = DAMAGED
                    break
                clock = &self.clocks[self.section_base + interface]
                if kind == SIMPLE_PACKET:
                    wire = read32(block + 8, swap)
                    captured = wire
                    if clock.snaplen and captured > clock.snaplen:
                        captured = clock.snaplen
                    if captured > available:
                        captured = <uint32_t> available
                    frames.timestamp_ns[row] = 0
                    frames.timestamp_source[row] = NO_TIMESTAMP
                else:
                    captured = read32(block + 20, swap)
                    wire = read32(block + 24, swap)
                    if captured > available:
                        self.block_length = stride
                        reason = DAMAGED
                        wrong = 6
                        break
                    ticks = (<uint64_t> read32(block + 12, swap) << 32) | read32(block + 16, swap)
                    if ticks < clock.plain_below:
                        frames.timestamp_ns[row] = <int64_t> (ticks * clock.multiplier) + clock.offset_ns
                    else:
                        frames.timestamp_ns[row] = self.to_ns(clock, ticks, number + 1, position)
                    frames.timestamp_source[row] = clock.source
                    if kind == OBSOLETE_PACKET:
                        if read16(block + 10, swap) != 0xFFFF:
                            frames.drop_count[row] = read16(block + 10, swap)
                    options = body + ((<Py_ssize_t> captured + 3) & ~3)
                    if options + 4 <= stride - 4:
                        self.take_options(frames, row, base, position + options, position + stride - 4)
                frames.captured_length[row] = captured
                frames.wire_length[row] = wire
                frames.offset[row] = position + body
                frames.interface[row] = <uint16_t> (self.section_base + interface)
                number += 1
                frames.frame_number[row] = number
                row += 1
                position += stride
        frames.count = row
        frames.frames_read = row
        frames.frames_before = self.frames_seen
        self.frames_seen = number
        self.position = position
        if reason == DAMAGED:
            if wrong == 1:
                self.damage = f"the block claims a length of {length} bytes, which no block can have"
            elif wrong == 2:
                self.damage = f"the block's two lengths differ ({length} and {read32(block + stride - 4, swap)})"
            elif wrong == 3:
                self.damage = f"the packet block claims {length} bytes, more than the {self.longest} allowed"
            elif wrong == 4:
                self.damage = f"the packet block of {length} bytes is too short for its own header"
            elif wrong == 5:
                self.damage = f"the packet names interface {interface}, which this section does not describe"
            else:
                self.damage = f"the packet claims {captured} captured bytes in a block with room for {available}"
        return reason

    def plausible_start(self, const uint8_t[::1] data, Py_ssize_t start, int chain, bint whole):
        """Return where, from `start`, a run of `chain` plausible blocks starts, or -1.

        For cutting a file into parts: the guess is verified later by the part before, which must arrive
        exactly there. Blocks start at multiples of 4 from the start of the file; so must `data`. With
        `whole` the data reach to the end of the file, and a run that ends there may be shorter.
        """
        cdef Py_ssize_t candidate, position, end = data.shape[0]
        cdef int found
        cdef uint32_t kind, length
        with nogil:
            for candidate in range((start + 3) & ~3, end - 12 + 1, 4):
                position = candidate
                found = 0
                while found < chain and position + 12 <= end:
                    kind = read32(&data[position], self.swap)
                    length = read32(&data[position + 4], self.swap)
                    if (kind == 0 or kind > 12 or length < 12 or length & 3 or length > self.longest):
                        found = -1
                        break
                    if position + <int64_t> length > end:
                        break
                    if read32(&data[position + length - 4], self.swap) != length:
                        found = -1
                        break
                    found += 1
                    position += length
                if found == chain or (whole and found > 0 and position == end):
                    break
            else:
                candidate = -1
        return candidate
