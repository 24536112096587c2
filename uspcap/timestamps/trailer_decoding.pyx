"""Timestamps that a tap or a switch put into the frame: behind the payload, or in a header before it.

A. `look` only reads. It finds where a frame's payload ends by what its headers claim (IPv4's total length, IPv6's
   payload length, ARP's address lengths, an 802.3 length) and looks for a trailer between there and the end of the
   frame, from the end on: padding comes before the trailer. A frame whose headers claim nothing has none that could be
   distinguished from its payload.
B. Every byte is read only after its offset was compared with the captured length, and a trailer only where all of the
   frame was captured: what a snaplen cut off is absent.
C. `strip` takes what was found out of the frames: lengths shrink, the timestamp becomes the frame's. A header is taken
   out by moving the MAC addresses (and tags before it) over it in `data`, which the reader has done with.
D. `tally` finds the rows of a batch that a filter has thinned by their frame numbers, which rise.
E. Counts by device and port are bounded by sampling on the hash of the key, as flows are: which keys are followed
   depends only on which keys there were.

       Metamako   original FCS 4 | TLVs 0.. | seconds 4 | ns 4 | flags 1 | device 2 | port 1 | FCS 0 or 4
       Exablaze   original FCS 4 | device 1 | port 1 | seconds 4 | 2^-40 s 5 | reserved 1 | FCS 0 or 4
       VSS        seconds 4 | clock source 2 bits, ns 30 bits | port 0 to 2 | FCS 0 or 4
       expcap     seconds 4 | ps 5 | flags 1 | device 1 | port 1 | dropped 2, reserved 2, or FCS 4  (little endian)
       Arista     0xD28B 2 | subtype 2 | timescale 1 | format and hardware 1 | seconds 2 or 4 | ns 4  (after the MACs)
       ERSPAN     version, VLAN 2 | session 2 | ticks 4 | SGT 2 | type, hardware, granularity 2 | subheader 0 or 8
                  of type III, behind GRE; the subheaders of platforms 5 and 6 end with seconds, the ticks being ns then

F. ERSPAN's header stays: decoding goes through it. Ticks of 100 us or 100 ns say nothing of when they were 0, and come
   round. Anchors, one a session, say where 0 lies; of the times that ticks may mean, the nearest to the file's counts.

Sources: Wireshark's packet-metamako.c, packet-exablaze.c, packet-vssmonitoring.c and packet-avsp.c; tcpdump's
print-arista.c; exact-capture's expcap.h and expcap.md; draft-foschiano-erspan-03 and Wireshark's packet-cisco-erspan.c.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memmove, memset

import numpy as np

from uspcap._core.bytes cimport be16, be32
from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.folding cimport fold
from uspcap._core.records cimport dtype_of
from uspcap._core.saturating cimport LATEST_NS, add_wide, difference
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP
from uspcap.stats.buckets cimport COUNTS_LENGTH, index_of

cpdef enum TrailerFormat:
    METAMAKO = 0
    EXABLAZE = 1
    VSS = 2
    EXPCAP = 3
    ARISTA = 4
    ERSPAN = 5

cpdef enum TrailerStatus:
    """What came of looking for a timestamp in a frame."""
    FOUND = 0
    ABSENT = 1              # no room for a trailer, or no header of this kind
    CUT = 2                 # not captured to where it would be
    IMPLAUSIBLE = 3         # the bytes there are no timestamp of this format near the file's
    UNKNOWN_LENGTH = 4      # no header says where the payload ends
    NO_FILE_TIMESTAMP = 5       # nothing to compare a timestamp with
    OTHER_LINK = 6          # not Ethernet
    PADDING = 7             # a record that exact-capture fills its blocks up with

cpdef enum TrailerMark:
    """What a trailer says beside the time."""
    DEGRADED = 1            # the clock was not synchronised, or its time is bad
    DUPLICATE = 2
    BAD_FCS = 4             # as the frame arrived
    FINER = 8               # there was something below 1 ns
    TAI = 16                # 35 to 37 s were taken off
    EXTENDED = 32           # the high bits of the seconds are the file's
    TRUNCATED = 64          # by the capturing host

cdef enum:
    STATUSES = 8
    MARKS = 7
    ETHERNET_LINK = 1
    SHORTEST_FRAME = 60     # without FCS
    TIMESTAMPED_BY_TRAILER = 1
    LLC_OR_SNAP = (1 << 3) | (1 << 4)
    MOST_TAGS = 8
    DAY = 86400
    UPTIME = 3600
    TABLE_SLOTS = 4096
    MOST_KEYS = 2048

STATUS_COUNT = STATUSES
MARK_COUNT = MARKS
MAXIMUM_PORTS = MOST_KEYS

cdef int64_t SECOND = 1_000_000_000
cdef uint64_t FRACTION = (<uint64_t> 1 << 40) - 1

cdef struct Timestamp:
    int64_t ns
    uint32_t key
    uint32_t length         # bytes taken out of the frame
    uint32_t place          # of a header: where it begins
    uint32_t dropped
    uint8_t marks
    uint64_t session        # of ERSPAN: whose ticks they are
    int64_t tick_ns         # 0 where the timestamp says its time itself


cdef inline int64_t seconds_of(int64_t ns) noexcept nogil:
    """Return the whole seconds, rounded down."""
    cdef int64_t seconds = ns // SECOND
    return seconds - 1 if seconds * SECOND > ns else seconds


cdef inline bint near(int64_t seconds, int64_t file_ns, int64_t days) noexcept nogil:
    """Whether a time is one at all, that uspcap can count, and within so many days of the file's."""
    cdef int64_t apart = seconds - seconds_of(file_ns)
    return UPTIME < seconds < LATEST_NS // SECOND and -days * DAY <= apart <= days * DAY


cdef int64_t payload_end(HeaderColumns headers, Py_ssize_t i, const uint8_t *p, int64_t captured) noexcept nogil:
    """Return how many bytes of a frame its headers claim, -1 where they do not say."""
    cdef int64_t start = headers.network_offset[i], claimed
    if headers.ip_version[i] == 4:
        if start < 0 or start + 4 > captured:
            return -1
        claimed = be16(p + start + 2)
        return start + claimed if claimed >= 20 else -1
    if headers.ip_version[i] == 6:
        if start < 0 or start + 6 > captured:
            return -1
        claimed = be16(p + start + 4)
        return start + 40 + claimed if claimed else -1
    start = headers.payload_offset[i]
    if start < 0:
        return -1
    if headers.ethertype[i] == 0x0806:
        if start + 8 > captured:
            return -1
        return start + 8 + 2 * (<int64_t> p[start + 4] + p[start + 5])
    if headers.layers[i] & LLC_OR_SNAP:
        return start + <int64_t> headers.payload_length[i]
    return -1


cdef bint metamako_at(const uint8_t *p, int64_t begin, int64_t end, int64_t file_ns, Timestamp *out) noexcept nogil:
    """Read the trailer whose port byte is the one before `end`; it must not reach before `begin`."""
    cdef int64_t place, seconds
    cdef uint32_t word, ns
    cdef int64_t words
    cdef bint last = False
    if end - 16 < begin:
        return False
    seconds = be32(p + end - 12)
    ns = be32(p + end - 8)
    if ns >= SECOND or not near(seconds, file_ns, 30):
        return False
    out.marks = 0
    place = end - 12
    if p[end - 4] & 0x02:
        while not last:
            if place - 8 < begin:
                return False
            place -= 4
            word = be32(p + place)
            words = ((word >> 6) & 0x3FF) + 1 if word & 0x1F == 0x1F else (word >> 6) & 3
            last = word >> 5 & 1
            place -= 4 * words
            if place - 4 < begin:
                return False
            # Units of 2^-24 ns, in the first three bytes of the TLV.
            if word & 0x1F == 1 and p[place] | p[place + 1] | p[place + 2]:
                out.marks |= FINER
    if not p[end - 4] & 0x01:
        out.marks |= BAD_FCS
    if p[end - 4] & 0x04:
        out.marks |= DUPLICATE
    if p[end - 4] & 0x10:
        out.marks |= DEGRADED
    out.ns = seconds * SECOND + ns
    out.key = (be16(p + end - 3) << 8) | p[end - 1]
    out.length = <uint32_t> (end - (place - 4))
    return True


cdef bint exablaze_at(const uint8_t *p, int64_t begin, int64_t end, int64_t file_ns, Timestamp *out) noexcept nogil:
    cdef int64_t place = end - 16, seconds
    cdef uint64_t fraction, high
    if place < begin:
        return False
    seconds = be32(p + place + 6)
    if not near(seconds, file_ns, 7):
        return False
    fraction = (<uint64_t> be32(p + place + 10) << 8) | p[place + 14]
    # 40 bits times 30 bits would not fit: the high 20 bits leave 20 bits to carry over.
    high = (fraction >> 20) * <uint64_t> SECOND
    fraction = (high & 0xFFFFF) * (1 << 20) + (fraction & 0xFFFFF) * <uint64_t> SECOND
    out.ns = seconds * SECOND + <int64_t> ((high >> 20) + (fraction >> 40))
    out.marks = FINER if fraction & FRACTION else 0
    out.key = (<uint32_t> p[place + 4] << 8) | p[place + 5]
    out.length = 16
    return True


cdef int behind(int kind, const uint8_t *p, int64_t begin, int64_t wire, int64_t file_ns, Timestamp *out) noexcept nogil:
    """Look for a trailer of a kind that may be followed by a new FCS, without one first."""
    cdef bint found
    if kind == METAMAKO:
        found = metamako_at(p, begin, wire, file_ns, out)
        if not found and metamako_at(p, begin, wire - 4, file_ns, out):
            out.length += 4
            found = True
    else:
        found = exablaze_at(p, begin, wire, file_ns, out)
        if not found and exablaze_at(p, begin, wire - 4, file_ns, out):
            out.length += 4
            found = True
    return FOUND if found else IMPLAUSIBLE


cdef int vss(const uint8_t *p, int64_t begin, int64_t wire, int64_t file_ns, Timestamp *out) noexcept nogil:
    cdef int64_t place = begin if begin > SHORTEST_FRAME else SHORTEST_FRAME, seconds
    cdef int64_t length = wire - place
    cdef uint32_t word
    if length < 8 or length > 14 or length == 11:
        return ABSENT
    seconds = be32(p + place)
    word = be32(p + place + 4)
    if (word & 0x3FFFFFFF) >= SECOND or not near(seconds, file_ns, 30):
        return IMPLAUSIBLE
    out.ns = seconds * SECOND + (word & 0x3FFFFFFF)
    out.marks = 0 if word >> 30 else DEGRADED
    out.key = 0
    if length & 3:
        out.key = p[place + 8] if length & 3 == 1 else be16(p + place + 8)
    out.length = <uint32_t> length
    return FOUND


cdef int expcap(const uint8_t *p, int64_t captured, int64_t wire, int64_t file_ns, Timestamp *out) noexcept nogil:
    cdef int64_t place = captured - 16, seconds
    cdef uint64_t ps
    cdef uint8_t flags
    if wire == 0:
        return PADDING
    if place < 14:
        return ABSENT
    flags = p[place + 9]
    if place > wire or (place < wire and not flags & 0x08):
        return ABSENT
    seconds = <int64_t> p[place] | <int64_t> p[place + 1] << 8 | <int64_t> p[place + 2] << 16
    seconds |= <int64_t> p[place + 3] << 24
    ps = <uint64_t> p[place + 4] | <uint64_t> p[place + 5] << 8 | <uint64_t> p[place + 6] << 16
    ps |= <uint64_t> p[place + 7] << 24 | <uint64_t> p[place + 8] << 32
    if flags & 0xC0 or ps >= 1000 * <uint64_t> SECOND or not near(seconds, file_ns, 7):
        return IMPLAUSIBLE
    out.ns = seconds * SECOND + <int64_t> (ps // 1000)
    out.marks = FINER if ps % 1000 else 0
    if flags & 0x06:
        out.marks |= BAD_FCS
    if flags & 0x08:
        out.marks |= TRUNCATED
    if not flags & 0x01:
        out.dropped = p[place + 12] | <uint32_t> p[place + 13] << 8
    out.key = (<uint32_t> p[place + 10] << 8) | p[place + 11]
    out.length = 16
    return FOUND


cdef inline int64_t tai_ahead(int64_t tai_seconds) noexcept nogil:
    """Return TAI - UTC in s at a time of TAI since 2012 (IERS Bulletin C); before that, that of 2012."""
    if tai_seconds >= 1483228837:       # 2017-01-01
        return 37
    if tai_seconds >= 1435708836:       # 2015-07-01
        return 36
    return 35


cdef int arista(const uint8_t *p, int64_t captured, int64_t file_ns, Timestamp *out) noexcept nogil:
    cdef int64_t place = 12, seconds, now
    cdef int64_t length
    cdef int tags = 0
    cdef uint32_t kind, ns, version
    while True:
        if place + 2 > captured:
            return CUT
        kind = be16(p + place)
        if tags == MOST_TAGS or (kind != 0x8100 and kind != 0x88A8 and kind != 0x9100):
            break
        place += 4
        tags += 1
    if kind != 0xD28B:
        return ABSENT
    if place + 6 > captured:
        return CUT
    version = be16(p + place + 4)
    if be16(p + place + 2) != 1 or version >> 8 > 1 or not 1 <= (version >> 4 & 15) <= 2:
        return IMPLAUSIBLE
    length = 14 if (version >> 4 & 15) == 1 else 12
    if place + length + 2 > captured:
        return CUT
    ns = be32(p + place + length - 4)
    if ns >= SECOND:
        return IMPLAUSIBLE
    out.marks = 0
    if length == 14:
        seconds = be32(p + place + 6)
    else:
        # The time of the file, on the header's time scale, says which of the 18.2 h it is.
        now = seconds_of(file_ns)
        if version >> 8 == 0:
            now += tai_ahead(now + 37)
        seconds = (now & ~<int64_t> 0xFFFF) | be16(p + place + 6)
        if seconds - now > 0x8000:
            seconds -= 0x10000
        elif now - seconds > 0x8000:
            seconds += 0x10000
        out.marks |= EXTENDED
    if version >> 8 == 0:
        seconds -= tai_ahead(seconds)
        out.marks |= TAI
    if not near(seconds, file_ns, 30):
        return IMPLAUSIBLE
    out.ns = seconds * SECOND + ns
    out.key = version & 15
    out.place = <uint32_t> place
    out.length = <uint32_t> length
    return FOUND


cdef int erspan(HeaderColumns headers, Py_ssize_t i, const uint8_t *p, int64_t captured, int64_t file_ns,
                Timestamp *out) noexcept nogil:
    """Read the header of ERSPAN type III; where it has ticks, `ns` is what they come to, `tick_ns` one of them."""
    cdef int64_t place = headers.transport_offset[i], seconds
    cdef const uint8_t *header
    cdef uint32_t ticks, granularity
    cdef uint64_t halves[2]
    cdef bint extended
    if headers.protocol[i] != 47 or place < 0:
        return ABSENT
    if place + 4 > captured:
        return CUT
    header = p + place
    if be16(header + 2) != 0x22EB or header[1] & 0x07 or header[0] & 0x40:
        return ABSENT
    place += 4 + 4 * ((header[0] >> 7) + ((header[0] >> 5) & 1) + ((header[0] >> 4) & 1))
    if place + 12 > captured:
        return CUT
    header = p + place
    if header[0] >> 4 != 2:
        return IMPLAUSIBLE
    ticks = be32(header + 4)
    granularity = (header[11] >> 1) & 3
    extended = header[11] & 1
    out.key = ((be16(header + 2) & 0x3FF) << 8) | ((header[10] & 3) << 4) | (header[11] >> 4)
    if granularity == 2:
        if not extended:
            return IMPLAUSIBLE
        if place + 20 > captured:
            return CUT
        seconds = be32(header + 16)
        if (header[12] >> 2 != 5 and header[12] >> 2 != 6) or ticks >= SECOND or not near(seconds, file_ns, 30):
            return IMPLAUSIBLE
        out.ns = seconds * SECOND + ticks
        return FOUND
    if granularity == 3:
        return IMPLAUSIBLE
    memcpy(halves, headers.source_address + 16 * i, 16)
    out.session = fold(fold(halves[0] ^ <uint64_t> 0xA0761D6478BD642F, halves[1] ^ <uint64_t> 0xE7037ED1A0B428DB)
                       ^ <uint64_t> 0x8EBC6AF09C88C6E3, <uint64_t> out.key ^ <uint64_t> 0x589965CC75374CC3) | 1
    out.tick_ns = 100_000 if granularity == 0 else 100
    out.ns = ticks * out.tick_ns
    return FOUND


cdef int anchor(Timestamp *timestamp, int64_t file_ns, const uint64_t[::1] sessions, const int64_t[::1] anchors) noexcept nogil:
    """Turn ticks into the time nearest to the file's that they may mean."""
    cdef int64_t period = timestamp.tick_ns << 32, first, apart
    cdef Py_ssize_t at
    for at in range(sessions.shape[0]):
        if sessions[at] == timestamp.session:
            break
    else:
        return IMPLAUSIBLE
    # All three lie within 2^62 but for a few days, and so does what comes of them.
    first = anchors[at] + timestamp.ns
    apart = difference(file_ns, first)
    # Rounded to the nearest, by divisions that are the same in C and in Python.
    apart += period >> 1
    first += (apart // period if apart >= 0 else -((period - 1 - apart) // period)) * period
    if not -LATEST_NS < first < LATEST_NS:
        return IMPLAUSIBLE
    timestamp.ns = first
    timestamp.marks |= EXTENDED
    return FOUND


cdef class TrailerRows:
    """What was found in the frames of one batch, a row a frame.

    Parameters
    ----------
    capacity : int
        Most rows.

    Attributes
    ----------
    count : int
    kind : int
        The `TrailerFormat` that was looked for.
    """

    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t count
    cdef readonly int kind
    cdef dict arrays
    cdef int64_t[::1] frame_number
    cdef int64_t[::1] file_ns
    cdef int64_t[::1] trailer_ns
    cdef uint32_t[::1] key
    cdef uint32_t[::1] length
    cdef uint32_t[::1] place
    cdef uint32_t[::1] dropped
    cdef uint8_t[::1] status
    cdef uint8_t[::1] marks
    cdef uint64_t[::1] session

    def __init__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.count = 0
        self.arrays = {
            **{name: np.zeros(capacity, np.int64) for name in ("frame_number", "file_ns", "trailer_ns")},
            **{name: np.zeros(capacity, np.uint32) for name in ("key", "length", "place", "dropped")},
            **{name: np.zeros(capacity, np.uint8) for name in ("status", "marks")},
            "session": np.zeros(capacity, np.uint64),
        }
        self.frame_number = self.arrays["frame_number"]
        self.file_ns = self.arrays["file_ns"]
        self.trailer_ns = self.arrays["trailer_ns"]
        self.key = self.arrays["key"]
        self.length = self.arrays["length"]
        self.place = self.arrays["place"]
        self.dropped = self.arrays["dropped"]
        self.status = self.arrays["status"]
        self.marks = self.arrays["marks"]
        self.session = self.arrays["session"]

    def column(self, str name):
        """Return the first `count` rows of the column called `name`, a view."""
        return self.arrays[name][: self.count]

    def look(self, FrameColumns frames, HeaderColumns headers, int kind, sessions=None, anchors=None):
        """Look for a timestamp of one format in each frame; change nothing.

        Parameters
        ----------
        headers : HeaderColumns
            Outer headers of the same frames.
        kind : TrailerFormat
        sessions, anchors : ndarray of uint64 and of int64, optional
            ERSPAN's sessions, and where their ticks begin to count. Without them what is found are ticks, in ns, and
            `session` says whose; it is 0 where the timestamp says its time itself.
        """
        cdef const uint64_t[::1] known = np.empty(0, np.uint64) if sessions is None else sessions
        cdef const int64_t[::1] begins = np.empty(0, np.int64) if anchors is None else anchors
        cdef bint anchored = sessions is not None
        cdef Py_ssize_t i
        cdef int64_t captured, wire, end
        cdef const uint8_t *p
        cdef Timestamp timestamp
        cdef int status
        if headers.count != frames.count or frames.count > self.capacity:
            raise ValueError("the headers are not those of this batch, or it has more rows than there is room for")
        if not <int> METAMAKO <= kind <= <int> ERSPAN:
            raise ValueError(f"there is no trailer format {kind}")
        if known.shape[0] != begins.shape[0]:
            raise ValueError("each session has one anchor")
        self.count = frames.count
        self.kind = kind
        with nogil:
            for i in range(frames.count):
                memset(&timestamp, 0, sizeof(timestamp))
                captured = frames.captured_length[i]
                wire = frames.wire_length[i]
                self.frame_number[i] = frames.frame_number[i]
                self.file_ns[i] = frames.timestamp_ns[i]
                if frames.offset[i] < 0 or frames.offset[i] + captured > frames.data_length:
                    captured = 0
                p = frames.data + frames.offset[i]
                if kind == ERSPAN:
                    if frames.timestamp_source[i] >= NO_TIMESTAMP:
                        status = NO_FILE_TIMESTAMP
                    else:
                        status = erspan(headers, i, p, captured, frames.timestamp_ns[i], &timestamp)
                    if status == FOUND and timestamp.tick_ns and anchored:
                        status = anchor(&timestamp, frames.timestamp_ns[i], known, begins)
                elif (frames.interface[i] >= frames.interface_count
                        or frames.link_types[frames.interface[i]] != ETHERNET_LINK):
                    status = OTHER_LINK
                elif kind == EXPCAP and wire == 0:
                    status = PADDING
                elif frames.timestamp_source[i] >= NO_TIMESTAMP:
                    status = NO_FILE_TIMESTAMP
                elif kind == ARISTA:
                    status = arista(p, captured, frames.timestamp_ns[i], &timestamp)
                elif kind == EXPCAP:
                    status = expcap(p, captured, wire, frames.timestamp_ns[i], &timestamp)
                else:
                    end = payload_end(headers, i, p, captured)
                    if end < 0:
                        status = UNKNOWN_LENGTH
                    elif wire - end < (8 if kind == VSS else 16):
                        status = ABSENT
                    elif captured < wire:
                        status = CUT
                    elif kind == VSS:
                        status = vss(p, end, wire, frames.timestamp_ns[i], &timestamp)
                    else:
                        status = behind(kind, p, end, wire, frames.timestamp_ns[i], &timestamp)
                if status != FOUND:
                    memset(&timestamp, 0, sizeof(timestamp))
                self.status[i] = status
                self.trailer_ns[i] = timestamp.ns
                self.key[i] = timestamp.key
                self.length[i] = timestamp.length
                self.place[i] = timestamp.place
                self.dropped[i] = timestamp.dropped
                self.marks[i] = timestamp.marks
                self.session[i] = timestamp.session

    def strip(self, FrameColumns frames):
        """Take the timestamps found out of the frames and make them the frames' own.

        The batch is the one that was looked at, unchanged since. What is behind a frame's payload leaves its wire
        length too, with the FCS before and after it; an expcap footer, which never was on the wire, only the captured.
        """
        cdef Py_ssize_t i
        cdef uint8_t *p
        cdef uint32_t length, wire
        if frames.count != self.count:
            raise ValueError("this is not the batch that was looked at")
        with nogil:
            for i in range(self.count):
                if self.status[i] != FOUND:
                    continue
                length = self.length[i]
                frames.timestamp_ns[i] = self.trailer_ns[i]
                frames.timestamp_source[i] = TIMESTAMPED_BY_TRAILER
                if self.kind == ERSPAN:
                    continue
                if self.kind == ARISTA:
                    p = frames.data + frames.offset[i]
                    memmove(p + length, p, self.place[i])
                    frames.offset[i] += length
                    frames.captured_length[i] -= length
                    wire = frames.wire_length[i]
                    frames.wire_length[i] = wire - length if wire > length else 0
                elif self.kind == EXPCAP:
                    frames.captured_length[i] -= length
                else:
                    # All of the frame was captured, and perhaps more than that.
                    frames.wire_length[i] -= length
                    frames.captured_length[i] = frames.wire_length[i]


cdef struct PortTrack:
    uint64_t key            # key + 1; 0 where the slot is free
    uint64_t frames
    uint64_t degraded
    uint64_t duplicates
    uint64_t bad_fcs
    uint64_t negative
    int64_t lowest_ns
    int64_t highest_ns

cdef PortTrack record
PORT_TRACK_DTYPE = dtype_of(<PortTrack[:1]> &record)


cdef inline uint64_t hash_of(uint64_t key) noexcept nogil:
    key = (key ^ (key >> 31)) * <uint64_t> 0xBF58476D1CE4E5B9
    key = (key ^ (key >> 27)) * <uint64_t> 0x94D049BB133111EB
    return key ^ (key >> 31)


cdef class PortCounts:
    """Counts by device and port, of a sample of them where there are more than the bound.

    Attributes
    ----------
    count : int
        Keys followed.
    level : int
        How often the sample was halved; 0 while all are followed.
    """

    cdef readonly Py_ssize_t count
    cdef readonly int level
    cdef Py_ssize_t most
    cdef object table
    cdef PortTrack[::1] tracks

    def __init__(self, Py_ssize_t most=MOST_KEYS):
        if not 1 <= most <= MOST_KEYS:
            raise ValueError(f"at least one port is followed, and at most {MOST_KEYS}")
        self.most = most
        self.count = 0
        self.level = 0
        self.clear()

    cdef int clear(self) except -1:
        self.table = np.zeros(TABLE_SLOTS, PORT_TRACK_DTYPE)
        self.tracks = self.table
        self.count = 0
        return 0

    def __reduce__(self):
        return _port_counts, (self.most, self.count, self.level, self.table)

    cdef PortTrack *find(self, uint64_t key) noexcept nogil:
        """Return the track of a key (plus one), a new one where it is new; NULL where it is not in the sample."""
        cdef uint64_t hash = hash_of(key), slot
        if self.level and hash >> (64 - self.level):
            return NULL
        slot = hash & (TABLE_SLOTS - 1)
        while self.tracks[slot].key != key:
            if self.tracks[slot].key == 0:
                self.tracks[slot].key = key
                self.count += 1
                break
            slot = (slot + 1) & (TABLE_SLOTS - 1)
        return &self.tracks[slot]

    cdef int keep_bound(self) except -1:
        """Halve the sample until it is within the bound; the table is never full between two calls."""
        while self.count > self.most:
            self.raise_level(self.level + 1)
        return 0

    cdef int raise_level(self, int level) except -1:
        cdef PortTrack *track
        cdef Py_ssize_t i
        cdef PortTrack[::1] before = self.tracks
        self.clear()
        self.level = level
        for i in range(TABLE_SLOTS):
            if before[i].key:
                track = self.find(before[i].key)
                if track != NULL:
                    track[0] = before[i]
        return 0

    cdef PortTrack *count_in(self, uint64_t key) except? NULL:
        """The same as `find`, keeping the bound first where a new key might exceed it."""
        cdef PortTrack *track = self.find(key)
        if self.count > self.most:
            self.keep_bound()
            track = self.find(key)
        return track

    def absorb(self, PortCounts later):
        """Add what was counted elsewhere."""
        cdef PortTrack *mine
        cdef PortTrack *theirs
        cdef Py_ssize_t i
        if later.level > self.level:
            self.raise_level(later.level)
        for i in range(TABLE_SLOTS):
            theirs = &later.tracks[i]
            if theirs.key == 0:
                continue
            mine = self.count_in(theirs.key)
            if mine == NULL:
                continue
            if mine.frames == 0 or theirs.lowest_ns < mine.lowest_ns:
                mine.lowest_ns = theirs.lowest_ns
            if mine.frames == 0 or theirs.highest_ns > mine.highest_ns:
                mine.highest_ns = theirs.highest_ns
            mine.frames += theirs.frames
            mine.degraded += theirs.degraded
            mine.duplicates += theirs.duplicates
            mine.bad_fcs += theirs.bad_fcs
            mine.negative += theirs.negative

    def rows(self):
        """Return the tracks, most frames first: ndarray of PORT_TRACK_DTYPE whose `key` is device << 8 | port."""
        used = self.table[self.table["key"] > 0].copy()
        used["key"] -= np.uint64(1)
        return used[np.lexsort((used["key"], -used["frames"].astype(np.int64)))]


def tally(TrailerRows rows not None, FrameColumns frames not None, uint64_t[::1] by_status, uint64_t[::1] by_mark,
          uint64_t[::1] counts, uint64_t[::1] sums, int64_t[::1] extremes, PortCounts ports not None):
    """Count what was found in the frames of a batch that are still there.

    Parameters
    ----------
    rows : TrailerRows
        Of the same batch before it was filtered.
    by_status : IN OUT, shape (STATUS_COUNT,)
    by_mark : IN OUT, shape (MARK_COUNT,)
        Timestamps found that have each bit of `TrailerMark`.
    counts : IN OUT, shape (BUCKETS,)
        The file's timestamp less the trailer's, where that is not negative.
    sums : IN OUT, shape (4,)
        Low and high word of the sum of what is counted there; how many are negative; frames that the capturing host
        says it dropped.
    extremes : IN OUT, shape (3,)
        Lowest and highest of the differences counted, and the most negative one.
    """
    cdef Py_ssize_t i, row = 0
    cdef int64_t apart
    cdef uint64_t bad, last_key = 0
    cdef int bit
    cdef PortTrack *track = NULL
    if (by_status.shape[0] != STATUSES or by_mark.shape[0] != MARKS or counts.shape[0] != COUNTS_LENGTH
            or sums.shape[0] != 4 or extremes.shape[0] != 3):
        raise ValueError("an array has another shape than its loop expects")
    with nogil:
        for i in range(frames.count):
            while row < rows.count and rows.frame_number[row] != frames.frame_number[i]:
                row += 1
            if row == rows.count:
                break
            if rows.frame_number[row] != frames.frame_number[i]:
                continue
            by_status[rows.status[row]] += 1
            if rows.status[row] != FOUND:
                continue
            for bit in range(MARKS):
                by_mark[bit] += rows.marks[row] >> bit & 1
            sums[3] += rows.dropped[row]
            apart = difference(rows.file_ns[row], rows.trailer_ns[row])
            if apart < 0:
                sums[2] += 1
                if apart < extremes[2]:
                    extremes[2] = apart
            else:
                counts[index_of(apart)] += 1
                if apart < extremes[0]:
                    extremes[0] = apart
                if apart > extremes[1]:
                    extremes[1] = apart
                add_wide(&sums[0], &sums[1], <uint64_t> apart)
            if last_key != <uint64_t> rows.key[row] + 1:
                last_key = <uint64_t> rows.key[row] + 1
                with gil:
                    track = ports.count_in(last_key)
            if track != NULL:
                if track.frames == 0 or apart < track.lowest_ns:
                    track.lowest_ns = apart
                if track.frames == 0 or apart > track.highest_ns:
                    track.highest_ns = apart
                track.frames += 1
                track.degraded += (rows.marks[row] & DEGRADED) != 0
                track.duplicates += (rows.marks[row] & DUPLICATE) != 0
                track.bad_fcs += (rows.marks[row] & BAD_FCS) != 0
                track.negative += apart < 0


def _port_counts(Py_ssize_t most, Py_ssize_t count, int level, table):
    """Return pickled counts."""
    cdef PortCounts counts = PortCounts(most)
    counts.table[:] = table
    counts.count, counts.level = count, level
    return counts
