"""Which frames of a batch are requests and which are responses, and under what key the two belong together.

A. A rule fills one row a frame of `kinds`, `keys` and `responders`, which `request_runs` then reads: who asked, who was
   asked and what identifies the exchange are hashed to 128 bits, so that two exchanges share a key by chance once in
   2**128 pairs. Requests hash their source as the asking end, responses their destination.
B. Only captured bytes of the transport payload are read, each after its offset was compared with what was captured.
C. A DNS message is identified by its ID and its question (name in lower case, pointers followed; type, class):
   resolvers ask for A and AAAA at a time from one port, some of them under one ID (RFC 5452, 9.1). By the ID alone where
   the question is not captured whole, which is counted, or where the message is no query (NOTIFY, UPDATE), whose
   responses may leave it out. So is a response without a question, as old servers send with an error; these are counted,
   as they answer no query with one.
D. Sources: RFC 1035, 4.1.1, 4.1.2 and 4.1.4 (DNS header, question and pointers); RFC 792 and 4443, 4 (echo); RFC 5905,
   7.3 (NTP header: mode, origin and transmit timestamps); FIX tag=value encoding (fields end with SOH, 0x01).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from uspcap._core.bytes cimport load64
from uspcap._core.columns cimport ADDRESS_BYTES, FrameColumns, HeaderColumns
from uspcap._core.folding cimport fold

cdef enum:
    NOTHING = 0
    REQUEST = 1
    RESPONSE = 2

cdef enum:
    MORE_FRAGMENTS = 1 << 12    # of `layers`, as headers.pyx has it
    ICMP = 1
    UDP = 17
    ICMP6 = 58
    DNS_PORT = 53
    DNS_HEADER = 12
    DNS_NAME = 255              # bytes of a name at most
    DNS_JUMPS = 16              # pointers of a name: more lead in a circle
    DNS_KEY = 2 + DNS_NAME + 4
    NTP_PORT = 123
    NTP_CLIENT = 3
    NTP_SERVER = 4
    NTP_ORIGIN = 24
    NTP_TRANSMIT = 40
    NTP_HEADER = 48
    ECHO_HEADER = 8
    SOH = 1

cdef enum:
    DNS = 0
    ICMP_ECHO = 1
    ICMP6_ECHO = 2
    NTP = 3

PROTOCOLS = {"dns": DNS, "icmp_echo": ICMP_ECHO, "icmpv6_echo": ICMP6_ECHO, "ntp": NTP}
"""Protocols whose requests and responses are known without a rule, by name."""

cdef enum:
    BY_FLOW = 0
    BY_CLIENT = 1
    BY_KEY = 2

MATCHES = {"flow": BY_FLOW, "client": BY_CLIENT, "key": BY_KEY}
"""What of the addresses must agree, beside the key: both ends and the protocol, the asking end, or nothing."""

cdef enum:
    NO_KEY = 0
    SLICE_KEY = 1
    TAG_KEY = 2

KEY_KINDS = {"none": NO_KEY, "payload": SLICE_KEY, "tag": TAG_KEY}

cdef uint64_t MIX_A = 0xA0761D6478BD642F      # those of wyhash
cdef uint64_t MIX_B = 0xE7037ED1A0B428DB
cdef uint64_t MIX_C = 0x8EBC6AF09C88C6E3
cdef uint64_t MIX_D = 0x589965CC75374CC3


cdef struct Key:
    uint64_t high
    uint64_t low


cdef inline void take(Key *key, uint64_t value) noexcept nogil:
    key.high = fold(key.high ^ value ^ MIX_A, MIX_B ^ key.low)
    key.low = fold(key.low ^ value ^ MIX_C, MIX_D) + MIX_A


cdef void take_bytes(Key *key, const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Hash bytes and their number."""
    cdef Py_ssize_t at = 0
    cdef uint64_t tail = 0
    take(key, <uint64_t> length)
    while length - at >= 8:
        take(key, load64(data + at))
        at += 8
    if at < length:
        memcpy(&tail, data + at, length - at)
        take(key, tail)


cdef inline void take_end(Key *key, const uint8_t *addresses, uint16_t port, Py_ssize_t row) noexcept nogil:
    cdef const uint8_t *address = addresses + row * ADDRESS_BYTES
    take(key, load64(address))
    take(key, load64(address + 8))
    take(key, port)


cdef void take_ends(Key *key, HeaderColumns h, Py_ssize_t row, int kind, int match) noexcept nogil:
    """Hash where a frame was seen, who asks and who is asked, as far as they must agree."""
    cdef bint asks = kind == REQUEST
    if h.tap[row]:
        take(key, h.tap[row])
    if match == BY_KEY:
        return
    take(key, (<uint64_t> h.protocol[row] << 8) | h.ip_version[row])
    if asks:
        take_end(key, h.source_address, h.source_port[row], row)
    else:
        take_end(key, h.destination_address, h.destination_port[row], row)
    if match == BY_CLIENT:
        return
    if asks:
        take_end(key, h.destination_address, h.destination_port[row], row)
    else:
        take_end(key, h.source_address, h.source_port[row], row)


cdef inline Py_ssize_t available(FrameColumns frames, HeaderColumns h, Py_ssize_t row, int32_t start) noexcept nogil:
    """Return how many bytes were captured from `start` of a frame to the end of its payload; -1 where there are none."""
    cdef int64_t end
    if start < 0 or h.payload_offset[row] < 0 or h.fragment_offset[row] != 0:
        return -1
    end = <int64_t> h.payload_offset[row] + h.payload_length[row]
    if end > frames.captured_length[row]:
        end = frames.captured_length[row]
    if frames.offset[row] < 0 or frames.offset[row] + end > frames.data_length:
        return -1
    return end - start if end >= start else -1


cdef inline bint is_datagram_fragment(HeaderColumns h, Py_ssize_t row) noexcept nogil:
    """Tell whether a row is a part of a UDP datagram, which is asked for once it is put together."""
    return h.protocol[row] == UDP and (h.fragment_offset[row] > 0 or h.layers[row] & MORE_FRAGMENTS)


cdef int question_key(const uint8_t *data, Py_ssize_t size, uint8_t *key) noexcept nogil:
    """Write the first question of a DNS message, its name spelt out in lower case, and return how many bytes that takes.

    0 where it goes on behind `size`, -1 where it is malformed.
    """
    cdef Py_ssize_t at = DNS_HEADER, behind = 0     # a pointer, where the question goes on
    cdef int written = 0, jumps = 0, length, step
    while True:
        if at >= size:
            return 0
        length = data[at]
        if length >= 0xC0:
            if at + 1 >= size:
                return 0
            if behind == 0:
                behind = at + 2
            jumps += 1
            at = (length & 0x3F) << 8 | data[at + 1]
            if jumps > DNS_JUMPS or at < DNS_HEADER:
                return -1
            continue
        if length >= 0x40 or written + 1 + length > DNS_NAME:
            return -1
        if at + 1 + length > size:
            return 0
        # Lengths are below 0x40, and so are no letters.
        for step in range(length + 1):
            key[written + step] = data[at + step] | 0x20 if c'A' <= data[at + step] <= c'Z' else data[at + step]
        written += length + 1
        at += length + 1
        if length == 0:
            break
    if behind:
        at = behind
    if at + 4 > size:
        return 0
    memcpy(key + written, data + at, 4)
    return written + 4


cdef int dns_key(const uint8_t *data, Py_ssize_t size, bint is_cut, bint is_response, uint8_t *key,
                 bint *by_id) noexcept nogil:
    """Write what identifies a DNS message, and return how many bytes that takes: C."""
    cdef int length
    by_id[0] = False
    key[0], key[1] = data[0], data[1]
    if size < DNS_HEADER:
        by_id[0] = is_cut
        return 2
    if data[2] & 0x78:
        return 2
    if data[4] == 0 and data[5] == 0:
        by_id[0] = is_response
        return 2
    length = question_key(data, size, key + 2)
    if length <= 0:
        by_id[0] = length == 0 and is_cut
        return 2
    return 2 + length


cdef int known_kind(int protocol, FrameColumns frames, HeaderColumns h, Py_ssize_t row, const uint8_t **found,
                    int *length, uint8_t *scratch, bint *by_id) noexcept nogil:
    """Tell whether a frame is a request or a response of a known protocol, and where the bytes are that identify it."""
    cdef const uint8_t *data
    cdef Py_ssize_t size
    cdef int mode
    if protocol == DNS or protocol == NTP:
        if h.protocol[row] != UDP:
            return NOTHING
        size = available(frames, h, row, h.payload_offset[row])
        data = frames.data + frames.offset[row] + h.payload_offset[row]
        if protocol == DNS:
            if h.source_port[row] != DNS_PORT and h.destination_port[row] != DNS_PORT:
                return NOTHING
            if size < 3:
                # Cut before the bit that says whether it asks; messages of fewer bytes are none.
                length[0] = 0
                return REQUEST if h.payload_length[row] >= DNS_HEADER else NOTHING
            mode = RESPONSE if data[2] & 0x80 else REQUEST
            if (h.source_port[row] if mode == RESPONSE else h.destination_port[row]) != DNS_PORT:
                return NOTHING
            found[0] = scratch
            length[0] = dns_key(data, size, size < h.payload_length[row], mode == RESPONSE, scratch, by_id)
            return mode
        if h.source_port[row] != NTP_PORT and h.destination_port[row] != NTP_PORT:
            return NOTHING
        if size < 1 or h.payload_length[row] < NTP_HEADER:
            return NOTHING
        mode = data[0] & 7
        length[0] = 8 if size >= NTP_HEADER else 0
        if mode == NTP_CLIENT and h.destination_port[row] == NTP_PORT:
            found[0] = data + NTP_TRANSMIT
            return REQUEST
        if mode == NTP_SERVER and h.source_port[row] == NTP_PORT:
            found[0] = data + NTP_ORIGIN
            return RESPONSE
        return NOTHING
    if h.protocol[row] != (ICMP if protocol == ICMP_ECHO else ICMP6):
        return NOTHING
    size = available(frames, h, row, h.transport_offset[row])
    if size < ECHO_HEADER:
        return NOTHING
    data = frames.data + frames.offset[row] + h.transport_offset[row]
    found[0] = data + 4
    length[0] = 4
    if data[0] == (8 if protocol == ICMP_ECHO else 128):
        return REQUEST
    if data[0] == (0 if protocol == ICMP_ECHO else 129):
        return RESPONSE
    return NOTHING


def find_known(int protocol, FrameColumns frames not None, HeaderColumns headers not None, uint8_t[::1] kinds,
               uint64_t[:, ::1] keys):
    """Find the requests and responses of a known protocol, but for those in fragments of UDP datagrams.

    Parameters
    ----------
    protocol : int
        Of `PROTOCOLS`.
    kinds : OUT, ndarray of uint8, shape (at least frames.count,)
        0 for neither, 1 for a request, 2 for a response.
    keys : OUT, ndarray of uint64, shape (at least frames.count, 3)
        High and low half of the key, and a hash of who responds; where `kinds` is not 0.

    Returns
    -------
    tuple of int
        How many rows are one or the other; rows that lack what identifies them, which count as neither; and DNS messages that
        are cut within their question, or responses without one, whose key is the ID alone.
    """
    cdef Py_ssize_t row, count = 0, without_key = 0, cut = 0
    cdef const uint8_t *found = NULL
    cdef uint8_t scratch[DNS_KEY]
    cdef int length = 0, kind
    cdef bint by_id = False
    cdef Key key
    check_room(frames, headers, kinds, keys)
    with nogil:
        for row in range(frames.count):
            if is_datagram_fragment(headers, row):
                kinds[row] = NOTHING
                continue
            kind = known_kind(protocol, frames, headers, row, &found, &length, scratch, &by_id)
            if kind != NOTHING and length == 0:
                without_key += 1
                kind = NOTHING
            kinds[row] = kind
            if kind == NOTHING:
                continue
            cut += by_id
            key = Key(MIX_A, MIX_B)
            take_bytes(&key, found, length)
            take_ends(&key, headers, row, kind, BY_FLOW)
            keys[row, 0] = key.high
            keys[row, 1] = key.low
            keys[row, 2] = 0
            count += 1
    return count, without_key, cut


cdef Py_ssize_t find_tag(const uint8_t *data, Py_ssize_t size, const uint8_t *tag, Py_ssize_t tag_length,
                         Py_ssize_t *length) noexcept nogil:
    """Return where the value of the first field `tag` (which ends with `=`) begins, -1 where none is there whole."""
    cdef Py_ssize_t at = 0
    cdef const uint8_t *end
    while at < size:
        end = <const uint8_t *> memchr(data + at, SOH, size - at)
        if end == NULL:
            return -1
        if end - (data + at) >= tag_length and memcmp(data + at, tag, tag_length) == 0:
            length[0] = end - (data + at) - tag_length
            return at + tag_length
        at = end - data + 1
    return -1


def find_by_rule(FrameColumns frames not None, HeaderColumns headers not None, int kind, const uint8_t[::1] mask,
                 int key_kind, Py_ssize_t first, Py_ssize_t end, const uint8_t[::1] tag, int match,
                 bint passes_fragments, uint8_t[::1] kinds, uint64_t[:, ::1] keys):
    """Mark the frames that a rule's filter let through, with their keys.

    Parameters
    ----------
    kind : int
        1 for requests, 2 for responses.
    mask : ndarray of uint8, shape (at least frames.count,)
        Not 0 where the filter matches.
    key_kind : int
        Of `KEY_KINDS`.
    first, end : int
        Of a slice of the transport payload.
    tag : ndarray of uint8
        A FIX tag and `=`.
    match : int
        Of `MATCHES`.
    passes_fragments : bool
        Leave fragments of UDP datagrams alone.
    kinds, keys : IN OUT
        As in `find_known`; rows that `kinds` has already are left alone.

    Returns
    -------
    tuple of int
        Frames without the key: too short, cut before its end, or a later fragment; and frames that `kinds` had
        already.
    """
    cdef Py_ssize_t row, size, length = 0, at
    cdef int64_t without_key = 0, taken = 0
    cdef const uint8_t *data
    cdef Key key
    check_room(frames, headers, kinds, keys)
    if mask.shape[0] < frames.count:
        raise ValueError("the mask is shorter than the batch")
    if first < 0 or end < first:
        raise ValueError("a slice begins before it ends")
    with nogil:
        for row in range(frames.count):
            if not mask[row] or (passes_fragments and is_datagram_fragment(headers, row)):
                continue
            if kinds[row]:
                taken += 1
                continue
            key = Key(MIX_A, MIX_B)
            if key_kind != NO_KEY:
                size = available(frames, headers, row, headers.payload_offset[row])
                data = frames.data + frames.offset[row] + headers.payload_offset[row]
                if key_kind == SLICE_KEY:
                    at = first
                    length = end - first
                    if end > size:
                        at = -1
                else:
                    at = find_tag(data, size, &tag[0], tag.shape[0], &length)
                if at < 0:
                    without_key += 1
                    continue
                take_bytes(&key, data + at, length)
            take_ends(&key, headers, row, kind, match)
            kinds[row] = kind
            keys[row, 0] = key.high
            keys[row, 1] = key.low
            keys[row, 2] = 0
            if kind == RESPONSE:
                key = Key(MIX_B, MIX_C)
                take_end(&key, headers.source_address, headers.source_port[row], row)
                keys[row, 2] = key.high
    return without_key, taken


cdef int check_room(FrameColumns frames, HeaderColumns headers, uint8_t[::1] kinds, uint64_t[:, ::1] keys) except -1:
    if headers.count != frames.count:
        raise ValueError("the headers are not those of this batch")
    if kinds.shape[0] < frames.count or keys.shape[0] < frames.count or keys.shape[1] != 3:
        raise ValueError("there is no row for each frame")
    return 0
