"""Column blocks: one array a field, one row a frame, allocated once and reused.

A. Ownership. Each block allocates its numpy arrays at `capacity` and keeps raw pointers to them for
   the compiled loops; the arrays never move or grow. Python sees views cut to `count` rows, so a view
   is valid until the block is filled again.
B. The bytes of the frames are not owned here: `offset` points into `data`, a uint8 array that the
   source reuses for the next batch.
C. Every compiled loop takes these classes instead of memoryviews: acquiring twenty memoryviews a
   call costs more than the loop over a few thousand frames.
"""

import numpy as np

from uspcap._core.saturating cimport LATEST_NS as LATEST, MOST_CLAMPED
from uspcap._core.timestamp_sources cimport NO_TIMESTAMP

LATEST_NS = LATEST
EARLIEST_NS = -LATEST
CLAMPED_LISTED = MOST_CLAMPED

FRAME_FIELDS = (
    ("timestamp_ns", np.int64),
    ("timestamp_source", np.uint8),
    ("wire_length", np.uint32),
    ("captured_length", np.uint32),
    ("interface", np.uint16),
    ("offset", np.int64),
    ("frame_number", np.int64),
    ("flags", np.uint32),
    ("queue", np.uint32),
    ("drop_count", np.uint64),
    ("options_offset", np.int64),
    ("options_length", np.uint32),
    ("read_ns", np.int64),
)

HEADER_FIELDS = (
    ("ethertype", np.uint16),
    ("vlan_id", np.uint16),
    ("vlan_depth", np.uint8),
    ("layers", np.uint32),
    ("ip_version", np.uint8),
    ("protocol", np.uint8),
    ("source_address", (np.uint8, 16)),
    ("destination_address", (np.uint8, 16)),
    ("source_port", np.uint16),
    ("destination_port", np.uint16),
    ("icmp_type", np.uint8),
    ("icmp_code", np.uint8),
    ("ttl", np.uint8),
    ("ip_id", np.uint32),
    ("fragment_offset", np.uint32),
    ("network_offset", np.int32),
    ("transport_offset", np.int32),
    ("payload_offset", np.int32),
    ("payload_length", np.uint32),
    ("tcp_sequence", np.uint32),
    ("tcp_acknowledgment", np.uint32),
    ("tcp_flags", np.uint16),
    ("tcp_window", np.uint16),
    ("tap", np.uint16),
    ("flow_hash", np.uint64),
    ("flow", np.int32),
)


cdef uint64_t nothing = 0  # where an array without a byte lies: C copies none from nowhere, not even 0 bytes


cdef void *address_of(object array) except NULL:
    """Return where the first byte of a contiguous array lies, or would lie."""
    if array.size == 0:
        return &nothing
    cdef const uint8_t[::1] flat = array.reshape(-1).view(np.uint8)
    return <void *> &flat[0]


cdef dict allocate(fields, Py_ssize_t capacity):
    """Return one zeroed array a field, `capacity` rows each."""
    arrays = {}
    for name, kind in fields:
        if isinstance(kind, tuple):
            arrays[name] = np.zeros((capacity, kind[1]), kind[0])
        else:
            arrays[name] = np.zeros(capacity, kind)
    return arrays


cdef class FrameColumns:
    """The fields that every frame has, whatever its protocol (see `uspcap.frames.FrameBatch`)."""

    def __cinit__(self, Py_ssize_t capacity, *args, **kwargs):
        if capacity < 1:
            raise ValueError("capacity must be at least 1")
        self.capacity = capacity
        self.count = 0
        self.frames_read = 0
        self.arrays = allocate(FRAME_FIELDS, capacity)
        self.timestamp_ns = <int64_t *> address_of(self.arrays["timestamp_ns"])
        self.timestamp_source = <uint8_t *> address_of(self.arrays["timestamp_source"])
        self.wire_length = <uint32_t *> address_of(self.arrays["wire_length"])
        self.captured_length = <uint32_t *> address_of(self.arrays["captured_length"])
        self.interface = <uint16_t *> address_of(self.arrays["interface"])
        self.offset = <int64_t *> address_of(self.arrays["offset"])
        self.frame_number = <int64_t *> address_of(self.arrays["frame_number"])
        self.flags = <uint32_t *> address_of(self.arrays["flags"])
        self.queue = <uint32_t *> address_of(self.arrays["queue"])
        self.drop_count = <uint64_t *> address_of(self.arrays["drop_count"])
        self.options_offset = <int64_t *> address_of(self.arrays["options_offset"])
        self.options_length = <uint32_t *> address_of(self.arrays["options_length"])
        self.read_ns = <int64_t *> address_of(self.arrays["read_ns"])
        self.attach_data(np.zeros(0, np.uint8))
        self.set_link_types(np.zeros(0, np.int32))
        self.set_taps(np.zeros(0, np.uint16))

    cdef int attach_data(self, object array) except -1:
        self.data_owner = array
        self.data = <uint8_t *> address_of(array)
        self.data_length = array.shape[0]

    def set_data(self, array):
        """Let `offset` point into `array`, a contiguous ndarray of uint8."""
        if array.dtype != np.uint8 or array.ndim != 1 or not array.flags.c_contiguous:
            raise ValueError("data must be a contiguous one-dimensional array of uint8")
        self.attach_data(array)

    def set_link_types(self, array):
        """Set the link type of each interface: a contiguous ndarray of int32."""
        if array.dtype != np.int32 or array.ndim != 1 or not array.flags.c_contiguous:
            raise ValueError("link types must be a contiguous one-dimensional array of int32")
        self.link_type_owner = array
        self.link_types = <int32_t *> address_of(array)
        self.interface_count = array.shape[0]

    def set_taps(self, array):
        """Set the tap of each interface, 0 for none: a contiguous ndarray of uint16; interfaces beyond it have none."""
        if array.dtype != np.uint16 or array.ndim != 1 or not array.flags.c_contiguous:
            raise ValueError("taps must be a contiguous one-dimensional array of uint16")
        self.tap_owner = array
        self.taps = <uint16_t *> address_of(array)
        self.tap_count = array.shape[0]

    @property
    def taps(self):
        return self.tap_owner

    def column(self, str name):
        """Return the first `count` rows of the column called `name`, a view."""
        return self.arrays[name][: self.count]

    def storage(self, str name):
        """Return all `capacity` rows of the column called `name`, for a source to write into."""
        return self.arrays[name]

    @property
    def data(self):
        return self.data_owner

    def select(self, mask):
        """Keep only the rows where `mask` (ndarray of uint8 or bool, shape (count,)) is not 0.

        The order stays; `frames_read` stays, so that what was filtered out still counts as read.
        """
        cdef const uint8_t[::1] keep = np.ascontiguousarray(mask).view(np.uint8)
        cdef Py_ssize_t i, kept = 0
        if keep.shape[0] != self.count:
            raise ValueError(f"mask has {keep.shape[0]} rows, the batch {self.count}")
        for i in range(self.count):
            if keep[i]:
                if kept != i:
                    self.timestamp_ns[kept] = self.timestamp_ns[i]
                    self.timestamp_source[kept] = self.timestamp_source[i]
                    self.wire_length[kept] = self.wire_length[i]
                    self.captured_length[kept] = self.captured_length[i]
                    self.interface[kept] = self.interface[i]
                    self.offset[kept] = self.offset[i]
                    self.frame_number[kept] = self.frame_number[i]
                    self.flags[kept] = self.flags[i]
                    self.queue[kept] = self.queue[i]
                    self.drop_count[kept] = self.drop_count[i]
                    self.options_offset[kept] = self.options_offset[i]
                    self.options_length[kept] = self.options_length[i]
                    self.read_ns[kept] = self.read_ns[i]
                kept += 1
        self.count = kept

    def clamp_timestamps(self):
        """Clamp all timestamps to EARLIEST_NS … LATEST_NS; return how many of rows that have one lie at an end then."""
        cdef Py_ssize_t i, clamped = 0
        with nogil:
            for i in range(self.count):
                if -LATEST < self.timestamp_ns[i] < LATEST:
                    continue
                self.timestamp_ns[i] = LATEST if self.timestamp_ns[i] > 0 else -LATEST
                clamped += self.timestamp_source[i] < NO_TIMESTAMP
        return clamped

    def check_bounds(self):
        """Raise ValueError where a row points outside `data`; for sources built by hand."""
        cdef Py_ssize_t i
        for i in range(self.count):
            # No sum, which might leave 64 bits.
            if self.offset[i] < 0 or self.offset[i] > self.data_length - <int64_t> self.captured_length[i]:
                begin, length = self.offset[i], self.captured_length[i]
                raise ValueError(f"row {i} points at bytes {begin}..{begin + length} of {self.data_length}")
            if self.interface[i] >= self.interface_count:
                raise ValueError(f"row {i} names interface {self.interface[i]} of {self.interface_count}")


cdef class HeaderColumns:
    """The decoded fields of a batch (see `uspcap.protocols.headers`)."""

    def __cinit__(self, Py_ssize_t capacity):
        self.capacity = capacity
        self.count = 0
        self.tunnels = False
        self.arrays = allocate(HEADER_FIELDS, capacity)
        self.ethertype = <uint16_t *> address_of(self.arrays["ethertype"])
        self.vlan_id = <uint16_t *> address_of(self.arrays["vlan_id"])
        self.vlan_depth = <uint8_t *> address_of(self.arrays["vlan_depth"])
        self.layers = <uint32_t *> address_of(self.arrays["layers"])
        self.ip_version = <uint8_t *> address_of(self.arrays["ip_version"])
        self.protocol = <uint8_t *> address_of(self.arrays["protocol"])
        self.source_address = <uint8_t *> address_of(self.arrays["source_address"])
        self.destination_address = <uint8_t *> address_of(self.arrays["destination_address"])
        self.source_port = <uint16_t *> address_of(self.arrays["source_port"])
        self.destination_port = <uint16_t *> address_of(self.arrays["destination_port"])
        self.icmp_type = <uint8_t *> address_of(self.arrays["icmp_type"])
        self.icmp_code = <uint8_t *> address_of(self.arrays["icmp_code"])
        self.ttl = <uint8_t *> address_of(self.arrays["ttl"])
        self.ip_id = <uint32_t *> address_of(self.arrays["ip_id"])
        self.fragment_offset = <uint32_t *> address_of(self.arrays["fragment_offset"])
        self.network_offset = <int32_t *> address_of(self.arrays["network_offset"])
        self.transport_offset = <int32_t *> address_of(self.arrays["transport_offset"])
        self.payload_offset = <int32_t *> address_of(self.arrays["payload_offset"])
        self.payload_length = <uint32_t *> address_of(self.arrays["payload_length"])
        self.tcp_sequence = <uint32_t *> address_of(self.arrays["tcp_sequence"])
        self.tcp_acknowledgment = <uint32_t *> address_of(self.arrays["tcp_acknowledgment"])
        self.tcp_flags = <uint16_t *> address_of(self.arrays["tcp_flags"])
        self.tcp_window = <uint16_t *> address_of(self.arrays["tcp_window"])
        self.tap = <uint16_t *> address_of(self.arrays["tap"])
        self.flow_hash = <uint64_t *> address_of(self.arrays["flow_hash"])
        self.flow = <int32_t *> address_of(self.arrays["flow"])

    def column(self, str name):
        """Return the first `count` rows of the column called `name`, a view."""
        return self.arrays[name][: self.count]
