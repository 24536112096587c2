"""Decoding header columns.

A. Every byte is read only after its offset was compared with the captured length and with the end that the
   headers before it set (`lacks`), and the frame's bytes lie inside `data` or the frame is left undecoded.
B. Columns that a plain frame leaves alone are set to their defaults a column at a time (`clear_rows`); those that
   it always fills only in the rows of other frames (`clear_row`).
C. Plain Ethernet, IPv4 without options, UDP or TCP takes a path of its own, which decodes and hashes in one go;
   whatever it does not expect goes through the general one.
D. A tunnel is entered by starting over at the inner header; once that is known to be there, what the outer
   headers left behind is cleared.

Sources: IEEE 802.3, 802.1Q, 802.1AD, 802.2; RFC 791, 8200, 768, 9293, 3828, 9260, 4340, 792, 4443, 2784, 2890,
7348, 8926, 2516, 1661, 3032; drafts nvo3-vxlan-gpe, foschiano-erspan; 3GPP TS 29.281; link types from the
tcpdump.org registry.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from uspcap._core.bytes cimport be16, be32
from uspcap._core.columns cimport FrameColumns, HeaderColumns
from uspcap._core.folding cimport fold
from uspcap._core.timestamp_sources cimport UNTRUSTED

cdef extern from *:
    """
    /* The last eight bytes of ::ffff:a.b.c.d, as one word for one store. */
    static inline uint64_t uspcap_mapped_half(const uint8_t *address) {
        uint32_t ipv4;
        memcpy(&ipv4, address, 4);
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return (uint64_t) ipv4 << 32 | 0xFFFF0000u;
    #else
        return (uint64_t) 0xFFFFu << 32 | ipv4;
    #endif
    }
    """
    uint64_t mapped_half "uspcap_mapped_half"(const uint8_t *) nogil

cdef enum:
    VLAN = 1 << 0
    QINQ = 1 << 1
    MPLS = 1 << 2
    LLC = 1 << 3
    SNAP = 1 << 4
    PPPOE = 1 << 5
    PPP = 1 << 6
    GRE = 1 << 7
    VXLAN = 1 << 8
    GENEVE = 1 << 9
    IP_IN_IP = 1 << 10
    FRAGMENT = 1 << 11
    MORE_FRAGMENTS = 1 << 12
    CUT = 1 << 13
    MALFORMED = 1 << 14
    GTP = 1 << 15
    ERSPAN = 1 << 16

cdef enum:
    UNTAGGED = 0xFFFF
    NO_PROTOCOL = 255
    LONGEST = 0x7FFFFFFF # offsets are int32
    DEEPEST_COUNTED = 255 # vlan_depth is uint8

# What comes next in a frame.
cdef enum:
    NOTHING = 0
    ETHERNET = 1
    BY_ETHERTYPE = 2
    BY_NIBBLE = 3
    IPV4 = 4
    IPV6 = 5
    TRANSPORT = 6
    PPP_PROTOCOL = 7
    LLC_HEADER = 8
    PPPOE_HEADER = 9

cdef enum:
    TCP = 6
    UDP = 17
    UDP_LITE = 136
    VXLAN_PORT = 4789
    VXLAN_GPE_PORT = 4790
    GENEVE_PORT = 6081
    GTP_PORT = 2152
    ERSPAN_TYPE = 0x88BE # EtherTypes in GRE, of types I and II, and of type III
    ERSPAN_3_TYPE = 0x22EB


cdef inline uint64_t map_ipv4(uint8_t *column, Py_ssize_t row, const uint8_t *address) noexcept nogil:
    """Write ::ffff:a.b.c.d and return its second half; the first is 0.

    Whole words, because the hash reads them back: a load that spans several stores waits for all of them.
    """
    cdef uint64_t halves[2]
    halves[0] = 0
    halves[1] = mapped_half(address)
    memcpy(column + 16 * row, halves, 16)
    return halves[1]


cdef inline void map_mac(uint8_t *column, Py_ssize_t row, const uint8_t *address) noexcept nogil:
    cdef uint8_t *out = column + 16 * row
    memset(out, 0, 10)
    memcpy(out + 10, address, 6)


cdef inline uint64_t mix(const uint64_t *source, const uint64_t *destination, uint64_t rest) noexcept nogil:
    """Fold a flow's key to 64 bits, all of which depend on all of it (the multiplications of wyhash)."""
    return fold(
        fold(source[0] ^ <uint64_t> 0xA0761D6478BD642F, source[1] ^ <uint64_t> 0xE7037ED1A0B428DB)
        ^ fold(rest ^ <uint64_t> 0x8EBC6AF09C88C6E3, <uint64_t> 0x589965CC75374CC3),
        fold(destination[0] ^ <uint64_t> 0x1D8E4E27C47D124F, destination[1] ^ <uint64_t> 0xEB44ACCAB455D165)
        ^ <uint64_t> 0x9E3779B97F4A7C15)


cdef inline uint64_t key_rest(uint64_t source_port, uint64_t destination_port, uint64_t ethertype, uint64_t protocol,
                              uint64_t ip_version, uint64_t timestamp_source) noexcept nogil:
    """Return what a flow's key has beside its addresses in one word; `ethertype` is 0 where there is IP."""
    return (source_port << 48 | destination_port << 32 | ethertype << 16 | protocol << 8 | ip_version << 4
            | timestamp_source)


cdef uint64_t hash_row(HeaderColumns h, Py_ssize_t row, uint8_t timestamp_source) noexcept nogil:
    cdef uint64_t source[2]
    cdef uint64_t destination[2]
    memcpy(source, h.source_address + 16 * row, 16)
    memcpy(destination, h.destination_address + 16 * row, 16)
    return mix(source, destination, key_rest(
        h.source_port[row], h.destination_port[row], 0 if h.ip_version[row] else h.ethertype[row],
        h.protocol[row], h.ip_version[row], timestamp_source))


cdef inline bint is_tunnel_port(uint32_t port) noexcept nogil:
    return port == VXLAN_PORT or port == GENEVE_PORT or port == GTP_PORT or port == VXLAN_GPE_PORT


cdef inline bint plain_frame(HeaderColumns h, Py_ssize_t row, const uint8_t *p, uint32_t captured, uint32_t wire,
                             uint8_t timestamp_source, bint tunnels) noexcept nogil:
    """Decode and hash Ethernet, IPv4 without options or fragments, UDP or TCP; False where it is anything else.

    Sets all columns of `clear_row`, and of those of `clear_rows` what a TCP header has.
    """
    cdef uint32_t total, length, header, source_port, destination_port
    cdef uint64_t source[2]
    cdef uint64_t destination[2]
    if captured < 42 or p[12] != 0x08 or p[13] != 0x00 or p[14] != 0x45 or (p[20] & 0x3F) or p[21]:
        return False
    total = be16(p + 16)
    if total < 28 or 14 + total > wire:
        return False
    source_port = be16(p + 34)
    destination_port = be16(p + 36)
    if p[23] == UDP:
        length = be16(p + 38)
        if length < 8 or length > total - 20:
            return False
        if tunnels and (is_tunnel_port(destination_port) or source_port == GTP_PORT):
            return False
        h.payload_offset[row] = 42
        h.payload_length[row] = length - 8
    elif p[23] == TCP:
        header = (p[46] >> 4) * 4 if captured >= 54 else 0
        if header < 20 or 20 + header > total or 34 + header > captured:
            return False
        h.payload_offset[row] = 34 + header
        h.payload_length[row] = total - 20 - header
        h.tcp_sequence[row] = be32(p + 38)
        h.tcp_acknowledgment[row] = be32(p + 42)
        h.tcp_flags[row] = be16(p + 46) & 0x0FFF
        h.tcp_window[row] = be16(p + 48)
    else:
        return False
    source[0] = destination[0] = 0
    source[1] = map_ipv4(h.source_address, row, p + 26)
    destination[1] = map_ipv4(h.destination_address, row, p + 30)
    h.ethertype[row] = 0x0800
    h.ip_version[row] = 4
    h.protocol[row] = p[23]
    h.source_port[row] = source_port
    h.destination_port[row] = destination_port
    h.ttl[row] = p[22]
    h.ip_id[row] = be16(p + 18)
    h.network_offset[row] = 14
    h.transport_offset[row] = 34
    h.flow_hash[row] = mix(source, destination, key_rest(
        source_port, destination_port, 0, p[23], 4, timestamp_source))
    return True


cdef void clear_rows(HeaderColumns h, Py_ssize_t count) noexcept nogil:
    """Set the columns that a plain frame leaves alone to their defaults."""
    memset(h.vlan_id, 0xFF, count * sizeof(uint16_t))
    memset(h.vlan_depth, 0, count)
    memset(h.layers, 0, count * sizeof(uint32_t))
    memset(h.icmp_type, 0, count)
    memset(h.icmp_code, 0, count)
    memset(h.fragment_offset, 0, count * sizeof(uint32_t))
    memset(h.tcp_sequence, 0, count * sizeof(uint32_t))
    memset(h.tcp_acknowledgment, 0, count * sizeof(uint32_t))
    memset(h.tcp_flags, 0, count * sizeof(uint16_t))
    memset(h.tcp_window, 0, count * sizeof(uint16_t))


cdef void clear_row(HeaderColumns h, Py_ssize_t row) noexcept nogil:
    """Set the columns that a plain frame always fills to their defaults."""
    h.ethertype[row] = 0
    h.ip_version[row] = 0
    h.protocol[row] = NO_PROTOCOL
    memset(h.source_address + 16 * row, 0, 16)
    memset(h.destination_address + 16 * row, 0, 16)
    h.source_port[row] = h.destination_port[row] = 0
    h.ttl[row] = 0
    h.ip_id[row] = 0
    h.network_offset[row] = h.transport_offset[row] = h.payload_offset[row] = -1
    h.payload_length[row] = 0


cdef void clear_transport(HeaderColumns h, Py_ssize_t row) noexcept nogil:
    h.protocol[row] = NO_PROTOCOL
    h.source_port[row] = h.destination_port[row] = 0
    h.icmp_type[row] = h.icmp_code[row] = 0
    h.tcp_sequence[row] = h.tcp_acknowledgment[row] = 0
    h.tcp_flags[row] = h.tcp_window[row] = 0
    h.ip_id[row] = h.fragment_offset[row] = 0
    h.transport_offset[row] = -1


cdef inline bint lacks(HeaderColumns h, Py_ssize_t row, int64_t position, int64_t length, int64_t captured,
                       int64_t end) noexcept nogil:
    """Tell whether `length` bytes at `position` are missing, and note why."""
    if position + length > end:
        h.layers[row] |= MALFORMED
        return True
    if position + length > captured:
        h.layers[row] |= CUT
        return True
    return False


cdef inline void bound(HeaderColumns h, Py_ssize_t row, int64_t claimed, int64_t *end) noexcept nogil:
    """Let a length field that says that the headers' part of the frame ends at `claimed` count."""
    if claimed > end[0]:
        h.layers[row] |= MALFORMED
    else:
        end[0] = claimed


cdef inline void end_with(HeaderColumns h, Py_ssize_t row, int64_t payload, int64_t end) noexcept nogil:
    """What lies from `payload` to `end` is payload."""
    h.payload_offset[row] = <int32_t> payload
    h.payload_length[row] = <uint32_t> (end - payload) if end > payload else 0


cdef int start_of(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t end, int link,
                  int64_t *position, uint32_t *ethertype) noexcept nogil:
    """Read what a link type puts before the first EtherType or IP header; return what comes next."""
    cdef uint32_t family
    if link == 1:
        return ETHERNET
    if link == 101 or link == 12 or link == 14:
        return BY_NIBBLE
    if link == 228:
        h.ethertype[row] = 0x0800
        return IPV4
    if link == 229:
        h.ethertype[row] = 0x86DD
        return IPV6
    if link == 113 or link == 276:
        position[0] = 16 if link == 113 else 20
        if lacks(h, row, 0, position[0], captured, end):
            return NOTHING
        if link == 113:
            ethertype[0] = be16(p + 14)
            if be16(p + 4) == 6:
                map_mac(h.source_address, row, p + 6)
        else:
            ethertype[0] = be16(p)
            if p[11] == 6:
                map_mac(h.source_address, row, p + 12)
        # Below the EtherTypes stand Linux's own numbers (ETH_P_802_2 is 4) and, for netlink, families.
        if ethertype[0] == 4:
            return LLC_HEADER
        return BY_ETHERTYPE if ethertype[0] >= 0x0600 else NOTHING
    if link == 0 or link == 108:
        position[0] = 4
        if lacks(h, row, 0, 4, captured, end):
            return NOTHING
        family = be32(p)
        # Only null has the byte order of the host; families are small numbers.
        if link == 0 and family > 0xFFFF:
            family = (<uint32_t> p[3] << 24) | (<uint32_t> p[2] << 16) | (<uint32_t> p[1] << 8) | p[0]
        if family == 2:
            h.ethertype[row] = 0x0800
            return IPV4
        if family == 10 or family == 24 or family == 28 or family == 30:
            h.ethertype[row] = 0x86DD
            return IPV6
        return NOTHING
    if link == 9 or link == 50 or link == 104:
        h.layers[row] |= PPP
        if lacks(h, row, 0, 1, captured, end):
            return NOTHING
        # An address field, or a compressed protocol number right away (RFC 1661, 1662).
        if p[0] == 0xFF or p[0] == 0x0F or p[0] == 0x8F:
            if lacks(h, row, 0, 2, captured, end):
                return NOTHING
            if p[0] != 0xFF and p[1] == 0:
                # Cisco HDLC
                position[0] = 4
                ethertype[0] = be16(p + 2) if not lacks(h, row, 0, 4, captured, end) else 0
                return BY_ETHERTYPE if ethertype[0] >= 0x0600 else NOTHING
            if p[0] == 0xFF and p[1] == 0x03:
                position[0] = 2
        return PPP_PROTOCOL
    if link == 51:
        return PPPOE_HEADER
    position[0] = -1
    return NOTHING


cdef int enter_ethernet(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                        int64_t end, uint32_t *ethertype) noexcept nogil:
    cdef const uint8_t *header = p + position[0]
    if lacks(h, row, position[0], 14, captured, end):
        return NOTHING
    if position[0]:
        clear_transport(h, row)
        h.ip_version[row] = h.ttl[row] = 0
        h.network_offset[row] = -1
        h.vlan_id[row] = UNTAGGED
        h.vlan_depth[row] = 0
    map_mac(h.destination_address, row, header)
    map_mac(h.source_address, row, header + 6)
    ethertype[0] = be16(header + 12)
    position[0] += 14
    return BY_ETHERTYPE


cdef int follow_ethertype(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, bint tunnels,
                          int64_t *position, uint32_t *ethertype, int64_t *end) noexcept nogil:
    """Go through tags and labels; return what comes next."""
    cdef uint32_t tag
    cdef bint bottom = False
    while (ethertype[0] == 0x8100 or ethertype[0] == 0x88A8 or ethertype[0] == 0x9100
           or ethertype[0] == 0x9200):
        if lacks(h, row, position[0], 4, captured, end[0]):
            return NOTHING
        tag = be16(p + position[0])
        if h.vlan_depth[row] == 0:
            h.vlan_id[row] = tag & 0x0FFF
            h.layers[row] |= VLAN
        else:
            h.layers[row] |= QINQ
        if h.vlan_depth[row] < DEEPEST_COUNTED:
            h.vlan_depth[row] += 1
        ethertype[0] = be16(p + position[0] + 2)
        position[0] += 4
    if ethertype[0] < 0x0600:
        h.ethertype[row] = 0
        bound(h, row, position[0] + ethertype[0], end)
        return LLC_HEADER
    h.ethertype[row] = <uint16_t> ethertype[0]
    if ethertype[0] == 0x0800:
        return IPV4
    if ethertype[0] == 0x86DD:
        return IPV6
    if ethertype[0] == 0x8864:
        return PPPOE_HEADER
    if ethertype[0] == 0x8847 or ethertype[0] == 0x8848:
        h.layers[row] |= MPLS
        while not bottom:
            if lacks(h, row, position[0], 4, captured, end[0]):
                return NOTHING
            bottom = p[position[0] + 2] & 1
            position[0] += 4
        if position[0] == end[0] or lacks(h, row, position[0], 1, captured, end[0]):
            return NOTHING
        tag = p[position[0]] >> 4
        if tag == 4:
            return IPV4
        if tag == 6:
            return IPV6
        if tag == 0 and tunnels and not lacks(h, row, position[0], 4 + 14, captured, end[0]):
            position[0] += 4
            return ETHERNET
    return NOTHING


cdef int follow_llc(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                    int64_t end, uint32_t *ethertype) noexcept nogil:
    cdef const uint8_t *header = p + position[0]
    h.layers[row] |= LLC
    if lacks(h, row, position[0], 3, captured, end):
        return NOTHING
    if header[0] == 0xAA and header[1] == 0xAA and header[2] == 0x03:
        if lacks(h, row, position[0], 8, captured, end):
            return NOTHING
        h.layers[row] |= SNAP
        ethertype[0] = be16(header + 6)
        position[0] += 8
        # RFC 1042 and IEEE 802.1H: only these organisations' protocol identifiers are EtherTypes.
        if header[3] == 0 and header[4] == 0 and (header[5] == 0 or header[5] == 0xF8) and ethertype[0] >= 0x0600:
            return BY_ETHERTYPE
        return NOTHING
    # The control field has one byte in unnumbered frames, else two.
    position[0] += 3 if header[2] & 3 == 3 else 4
    if header[0] == 0x06 and header[1] == 0x06 and header[2] == 0x03:
        return IPV4
    return NOTHING


cdef int enter_pppoe(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                     int64_t *end) noexcept nogil:
    h.layers[row] |= PPPOE
    if lacks(h, row, position[0], 6, captured, end[0]):
        return NOTHING
    bound(h, row, position[0] + 6 + be16(p + position[0] + 4), end)
    position[0] += 6
    # Any code but session data belongs to the discovery stage.
    return PPP_PROTOCOL if p[position[0] - 5] == 0 else NOTHING


cdef int follow_ppp(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                    int64_t end, uint32_t *ethertype) noexcept nogil:
    cdef uint32_t protocol
    h.layers[row] |= PPP
    if lacks(h, row, position[0], 1, captured, end):
        return NOTHING
    protocol = p[position[0]]
    if protocol & 1:
        position[0] += 1
    else:
        if lacks(h, row, position[0], 2, captured, end):
            return NOTHING
        protocol = be16(p + position[0])
        position[0] += 2
    if protocol == 0x0021:
        return IPV4
    if protocol == 0x0057:
        return IPV6
    if protocol == 0x0281:
        ethertype[0] = 0x8847
        return BY_ETHERTYPE
    return NOTHING


cdef int enter_ipv4(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                    int64_t *end) noexcept nogil:
    cdef const uint8_t *header = p + position[0]
    cdef int64_t length, total
    if lacks(h, row, position[0], 20, captured, end[0]):
        return NOTHING
    length = (header[0] & 0x0F) * 4
    if header[0] >> 4 != 4 or length < 20:
        h.layers[row] |= MALFORMED
        return NOTHING
    clear_transport(h, row)
    h.network_offset[row] = <int32_t> position[0]
    h.ip_version[row] = 4
    total = be16(header + 2)
    map_ipv4(h.source_address, row, header + 12)
    map_ipv4(h.destination_address, row, header + 16)
    h.ip_id[row] = be16(header + 4)
    h.ttl[row] = header[8]
    h.protocol[row] = header[9]
    h.fragment_offset[row] = (be16(header + 6) & 0x1FFF) * 8
    if header[6] & 0x20:
        h.layers[row] |= FRAGMENT | MORE_FRAGMENTS
    # A total length of 0 is what segmentation offload leaves: the frame's own length counts.
    if total >= length:
        bound(h, row, position[0] + total, end)
    if h.fragment_offset[row]:
        h.layers[row] |= FRAGMENT
    if 0 < total < length or position[0] + length > end[0]:
        h.layers[row] |= MALFORMED
        position[0] += 20
        return NOTHING
    position[0] += length
    return NOTHING if h.fragment_offset[row] else TRANSPORT


cdef int enter_ipv6(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                    int64_t *end) noexcept nogil:
    cdef const uint8_t *header = p + position[0]
    cdef int64_t length
    cdef uint8_t this
    if lacks(h, row, position[0], 40, captured, end[0]):
        return NOTHING
    if header[0] >> 4 != 6:
        h.layers[row] |= MALFORMED
        return NOTHING
    clear_transport(h, row)
    h.network_offset[row] = <int32_t> position[0]
    h.ip_version[row] = 6
    memcpy(h.source_address + 16 * row, header + 8, 16)
    memcpy(h.destination_address + 16 * row, header + 24, 16)
    h.ttl[row] = header[7]
    h.protocol[row] = this = header[6]
    length = be16(header + 4)
    position[0] += 40
    # A length of 0 is that of a jumbogram, or what segmentation offload leaves.
    if length:
        bound(h, row, position[0] + length, end)
    # Hop-by-hop, routing, fragment, destination options (RFC 8200), authentication (RFC 4302).
    while this == 0 or this == 43 or this == 44 or this == 60 or this == 51:
        if lacks(h, row, position[0], 8, captured, end[0]):
            return NOTHING
        header = p + position[0]
        length = 8
        if this == 44:
            h.layers[row] |= FRAGMENT
            h.ip_id[row] = be32(header + 4)
            h.fragment_offset[row] = be16(header + 2) & 0xFFF8
            if header[3] & 1:
                h.layers[row] |= MORE_FRAGMENTS
        else:
            length += (4 if this == 51 else 8) * <int64_t> header[1]
        h.protocol[row] = this = header[0]
        if position[0] + length > end[0]:
            h.layers[row] |= MALFORMED
            position[0] = end[0]
            return NOTHING
        position[0] += length
        if h.fragment_offset[row]:
            return NOTHING
    return TRANSPORT


cdef int enter_transport(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, bint tunnels,
                         int64_t *position, int64_t *end, uint32_t *ethertype) noexcept nogil:
    """Read the transport header at `position`, and move to what it carries; return what comes next."""
    cdef const uint8_t *header
    cdef int64_t there, length, wanted
    cdef uint8_t protocol = h.protocol[row]
    # An authentication header may be in the way (RFC 4302).
    while protocol == 51:
        if lacks(h, row, position[0], 8, captured, end[0]):
            return NOTHING
        h.protocol[row] = protocol = p[position[0]]
        length = 8 + 4 * <int64_t> p[position[0] + 1]
        if position[0] + length > end[0]:
            h.layers[row] |= MALFORMED
            position[0] = end[0]
            return NOTHING
        position[0] += length
    header = p + position[0]
    there = (captured if captured < end[0] else end[0]) - position[0]
    h.transport_offset[row] = <int32_t> position[0]
    if tunnels and (protocol == 4 or protocol == 41):
        h.layers[row] |= IP_IN_IP
        return IPV4 if protocol == 4 else IPV6
    if tunnels and protocol == 47:
        return enter_gre(h, row, p, captured, position, end[0], ethertype)
    if protocol == TCP:
        wanted = 20
    elif protocol == UDP or protocol == UDP_LITE or protocol == 1 or protocol == 58:
        wanted = 8
    elif protocol == 132 or protocol == 33:
        wanted = 12
    else:
        return NOTHING
    lacks(h, row, position[0], wanted, captured, end[0])
    if protocol == 1 or protocol == 58:
        if there >= 2:
            h.icmp_type[row] = header[0]
            h.icmp_code[row] = header[1]
    elif there >= 4:
        h.source_port[row] = be16(header)
        h.destination_port[row] = be16(header + 2)
    length = wanted
    if protocol == TCP:
        if there >= 8:
            h.tcp_sequence[row] = be32(header + 4)
        if there >= 12:
            h.tcp_acknowledgment[row] = be32(header + 8)
        if there >= 14:
            h.tcp_flags[row] = be16(header + 12) & 0x0FFF
            length = (header[12] >> 4) * 4
            if length < 20:
                h.layers[row] |= MALFORMED
                length = 20
        if there >= 16:
            h.tcp_window[row] = be16(header + 14)
    elif protocol == UDP and there >= 6:
        wanted = be16(header + 4)
        # A length of 0 is that of a jumbogram (RFC 2675); a first fragment holds less than it says.
        if wanted >= 8:
            if not h.layers[row] & MORE_FRAGMENTS or position[0] + wanted < end[0]:
                bound(h, row, position[0] + wanted, end)
        elif wanted:
            h.layers[row] |= MALFORMED
    elif protocol == 33 and there >= 5:
        length = 4 * <int64_t> header[4]
        if length < 12:
            h.layers[row] |= MALFORMED
            length = 12
    if position[0] + length > end[0]:
        h.layers[row] |= MALFORMED
        position[0] = end[0]
        return NOTHING
    position[0] += length
    if tunnels and protocol == UDP and there >= 8:
        if h.destination_port[row] == VXLAN_PORT:
            return enter_vxlan(h, row, p, captured, position, end[0])
        if h.destination_port[row] == VXLAN_GPE_PORT:
            return enter_vxlan_gpe(h, row, p, captured, position, end[0], ethertype)
        if h.destination_port[row] == GENEVE_PORT:
            return enter_geneve(h, row, p, captured, position, end[0], ethertype)
        # Those who answer from it send to any port.
        if h.destination_port[row] == GTP_PORT or h.source_port[row] == GTP_PORT:
            return enter_gtp(h, row, p, captured, position, end)
    return NOTHING


cdef int enter_by(uint32_t ethertype) noexcept nogil:
    """Return what comes next in a tunnel that names it by EtherType; what is not decoded is its payload."""
    if ethertype == 0x6558:
        return ETHERNET
    if ethertype == 0x0800 or ethertype == 0x86DD or ethertype == 0x8847 or ethertype == 0x8848:
        return BY_ETHERTYPE
    return NOTHING


cdef int enter_vxlan(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                     int64_t end) noexcept nogil:
    if lacks(h, row, position[0], 8, captured, end) or not p[position[0]] & 0x08:
        return NOTHING
    h.layers[row] |= VXLAN
    position[0] += 8
    return ETHERNET


cdef int enter_vxlan_gpe(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                         int64_t end, uint32_t *ethertype) noexcept nogil:
    """Enter VXLAN whose header may name what it carries (draft-ietf-nvo3-vxlan-gpe)."""
    cdef const uint8_t *header = p + position[0]
    if lacks(h, row, position[0], 8, captured, end) or not header[0] & 0x08:
        return NOTHING
    h.layers[row] |= VXLAN
    position[0] += 8
    if not header[0] & 0x04 or header[3] == 3:
        return ETHERNET
    ethertype[0] = 0x0800 if header[3] == 1 else 0x86DD if header[3] == 2 else 0x8847 if header[3] == 5 else 0
    return enter_by(ethertype[0])


cdef int enter_gtp(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                   int64_t *end) noexcept nogil:
    """Enter a GTP-U message that carries a user's packet (3GPP TS 29.281); any other is payload."""
    cdef const uint8_t *header = p + position[0]
    cdef int64_t there = (captured if captured < end[0] else end[0]) - position[0]
    cdef int64_t at = 8, length
    cdef uint8_t following = 0
    if there < 8 or header[0] >> 4 != 3 or header[1] != 0xFF or 8 + be16(header + 2) > end[0] - position[0]:
        return NOTHING
    if header[0] & 0x07:
        at = 12
        if there < at:
            return NOTHING
        # Sequence number, N-PDU number and the first extension's type are there together; flags say which count.
        following = header[11] if header[0] & 0x04 else 0
    while following:
        if there < at + 4:
            return NOTHING
        length = 4 * <int64_t> header[at]
        if length == 0 or there < at + length:
            return NOTHING
        at += length
        following = header[at - 1]
    if there < at + 1 or (header[at] >> 4 != 4 and header[at] >> 4 != 6):
        return NOTHING
    bound(h, row, position[0] + 8 + be16(header + 2), end)
    h.layers[row] |= GTP
    position[0] += at
    return BY_NIBBLE


cdef int enter_erspan(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                      int64_t end, uint32_t ethertype, bint numbered) noexcept nogil:
    """Enter the mirrored frame behind GRE: of type I at once, of types II and III behind a header.

    What has no room for a frame is payload.
    """
    cdef const uint8_t *header = p + position[0]
    cdef int64_t there = (captured if captured < end else end) - position[0]
    cdef int64_t length = 12 if ethertype == ERSPAN_3_TYPE else 8 if numbered else 0
    cdef int following = ETHERNET
    if there < length + 14:
        return NOTHING
    if length:
        if header[0] >> 4 != (2 if length == 12 else 1):
            return NOTHING
        if length == 12:
            # Frame types: 0 is Ethernet, 2 is IP; bit O: there is a platform specific subheader.
            if (header[10] >> 2) & 0x1F == 2:
                following = BY_NIBBLE
            elif (header[10] >> 2) & 0x1F:
                return NOTHING
            if header[11] & 0x01:
                length = 20
                if there < length + 14:
                    return NOTHING
    h.layers[row] |= ERSPAN
    position[0] += length
    return following


cdef int enter_geneve(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                      int64_t end, uint32_t *ethertype) noexcept nogil:
    cdef const uint8_t *header = p + position[0]
    cdef int64_t length
    if lacks(h, row, position[0], 8, captured, end) or header[0] >> 6 != 0:
        return NOTHING
    length = 8 + 4 * <int64_t> (header[0] & 0x3F)
    if lacks(h, row, position[0], length, captured, end):
        return NOTHING
    h.layers[row] |= GENEVE
    ethertype[0] = be16(header + 2)
    position[0] += length
    return enter_by(ethertype[0])


cdef int enter_gre(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t *position,
                   int64_t end, uint32_t *ethertype) noexcept nogil:
    """Go through a GRE header of version 0 with any of its optional fields (RFC 2784, 2890)."""
    cdef const uint8_t *header = p + position[0]
    cdef int64_t length = 4
    if lacks(h, row, position[0], 4, captured, end) or header[1] & 0x07 or header[0] & 0x40:
        return NOTHING
    length += 4 * ((header[0] >> 7) + ((header[0] >> 5) & 1) + ((header[0] >> 4) & 1))
    if lacks(h, row, position[0], length, captured, end):
        return NOTHING
    h.layers[row] |= GRE
    ethertype[0] = be16(header + 2)
    position[0] += length
    if ethertype[0] == ERSPAN_TYPE or ethertype[0] == ERSPAN_3_TYPE:
        return enter_erspan(h, row, p, captured, position, end, ethertype[0], header[0] & 0x10)
    return enter_by(ethertype[0])


cdef void general_frame(HeaderColumns h, Py_ssize_t row, const uint8_t *p, int64_t captured, int64_t wire, int link,
                        bint tunnels) noexcept nogil:
    """Decode any frame of any link type that is known."""
    cdef int64_t position = 0, end = wire
    cdef uint32_t ethertype = 0
    cdef int following
    following = start_of(h, row, p, captured, end, link, &position, &ethertype)
    if position < 0:
        return
    # However deep: each header moves `position` on or ends the way, so that bytes bound the turns.
    while following != NOTHING:
        if following == ETHERNET:
            following = enter_ethernet(h, row, p, captured, &position, end, &ethertype)
        elif following == BY_ETHERTYPE:
            following = follow_ethertype(h, row, p, captured, tunnels, &position, &ethertype, &end)
        elif following == LLC_HEADER:
            following = follow_llc(h, row, p, captured, &position, end, &ethertype)
        elif following == PPPOE_HEADER:
            following = enter_pppoe(h, row, p, captured, &position, &end)
        elif following == PPP_PROTOCOL:
            following = follow_ppp(h, row, p, captured, &position, end, &ethertype)
        elif following == BY_NIBBLE:
            if lacks(h, row, position, 1, captured, end):
                following = NOTHING
            else:
                following = IPV4 if p[position] >> 4 == 4 else IPV6 if p[position] >> 4 == 6 else NOTHING
                h.ethertype[row] = 0x0800 if following == IPV4 else 0x86DD if following == IPV6 else 0
        elif following == IPV4:
            following = enter_ipv4(h, row, p, captured, &position, &end)
        elif following == IPV6:
            following = enter_ipv6(h, row, p, captured, &position, &end)
        else:
            following = enter_transport(h, row, p, captured, tunnels, &position, &end, &ethertype)
    if position > end:
        position = end
    if position > captured:
        h.layers[row] |= CUT
    end_with(h, row, position, end)


cdef void enter_taps(FrameColumns frames, HeaderColumns h, Py_ssize_t count) noexcept nogil:
    """Fill the tap of each row; the same flow at two taps is two flows."""
    cdef Py_ssize_t row
    cdef uint16_t tap
    if not frames.tap_count:
        memset(h.tap, 0, count * sizeof(uint16_t))
        return
    for row in range(count):
        tap = frames.taps[frames.interface[row]] if frames.interface[row] < frames.tap_count else 0
        h.tap[row] = tap
        if tap:
            h.flow_hash[row] = fold(h.flow_hash[row] ^ tap, <uint64_t> 0x589965CC75374CC3)


def decode(FrameColumns frames, HeaderColumns headers, bint tunnels):
    """Fill all header columns but `flow` from the bytes of a batch.

    Parameters
    ----------
    frames : IN
    headers : OUT, of at least the batch's capacity
    tunnels : bool
        Let the innermost headers win: through GRE, ERSPAN, VXLAN, GENEVE, GTP-U, IP in IP, and MPLS with a control
        word.
    """
    cdef Py_ssize_t row, count = frames.count
    cdef HeaderColumns h = headers
    cdef const uint8_t *p = NULL
    cdef int64_t offset
    cdef uint32_t captured, wire
    cdef int link
    cdef bint inside
    if headers.capacity < count:
        raise ValueError(f"the header columns hold {headers.capacity} rows, the batch has {count}")
    headers.count = count
    headers.tunnels = tunnels
    with nogil:
        clear_rows(h, count)
        for row in range(count):
            offset = frames.offset[row]
            captured = frames.captured_length[row]
            wire = frames.wire_length[row]
            if wire < captured:
                wire = captured
            if wire > LONGEST:
                wire = LONGEST
            inside = 0 <= offset <= frames.data_length - <int64_t> captured
            link = frames.link_types[frames.interface[row]] if frames.interface[row] < frames.interface_count else -1
            if inside:
                p = frames.data + offset
                if link == 1 and plain_frame(h, row, p, captured, wire, frames.timestamp_source[row] & ~UNTRUSTED, tunnels):
                    continue
            clear_row(h, row)
            if inside:
                general_frame(h, row, p, captured, wire, link, tunnels)
            h.flow_hash[row] = hash_row(h, row, frames.timestamp_source[row] & ~UNTRUSTED)
        enter_taps(frames, h, count)
