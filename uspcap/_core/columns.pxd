"""C view of the column blocks, for the other compiled modules."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from uspcap._core.timestamp_sources cimport UNTRUSTED

# Address columns hold 16 bytes a row, in network byte order.
cdef enum:
    ADDRESS_BYTES = 16


cdef class HeaderColumns:
    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t count
    cdef readonly bint tunnels
    cdef dict arrays
    cdef uint16_t *ethertype
    cdef uint16_t *vlan_id
    cdef uint8_t *vlan_depth
    cdef uint32_t *layers
    cdef uint8_t *ip_version
    cdef uint8_t *protocol
    cdef uint8_t *source_address
    cdef uint8_t *destination_address
    cdef uint16_t *source_port
    cdef uint16_t *destination_port
    cdef uint8_t *icmp_type
    cdef uint8_t *icmp_code
    cdef uint8_t *ttl
    cdef uint32_t *ip_id
    cdef uint32_t *fragment_offset
    cdef int32_t *network_offset
    cdef int32_t *transport_offset
    cdef int32_t *payload_offset
    cdef uint32_t *payload_length
    cdef uint32_t *tcp_sequence
    cdef uint32_t *tcp_acknowledgment
    cdef uint16_t *tcp_flags
    cdef uint16_t *tcp_window
    cdef uint16_t *tap
    cdef uint64_t *flow_hash
    cdef int32_t *flow


cdef class FrameColumns:
    cdef readonly Py_ssize_t capacity
    cdef public Py_ssize_t count
    cdef public int64_t frames_read
    cdef public int64_t frames_before
    cdef dict arrays
    cdef object data_owner
    cdef object link_type_owner
    cdef uint8_t *data
    cdef Py_ssize_t data_length
    cdef int32_t *link_types
    cdef Py_ssize_t interface_count
    cdef object tap_owner
    cdef uint16_t *taps
    cdef Py_ssize_t tap_count
    cdef int64_t *timestamp_ns
    cdef uint8_t *timestamp_source
    cdef uint32_t *wire_length
    cdef uint32_t *captured_length
    cdef uint16_t *interface
    cdef int64_t *offset
    cdef int64_t *frame_number
    cdef uint32_t *flags
    cdef uint32_t *queue
    cdef uint64_t *drop_count
    cdef int64_t *options_offset
    cdef uint32_t *options_length
    cdef int64_t *read_ns
    cdef int attach_data(self, object array) except -1


cdef inline int64_t time_of(FrameColumns frames, Py_ssize_t row) noexcept nogil:
    """Return a frame's time, or where its timestamp is not to be trusted, that of the frame it lies behind."""
    return frames.read_ns[row] if frames.timestamp_source[row] & UNTRUSTED else frames.timestamp_ns[row]
