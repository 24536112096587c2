"""Draining a TPACKET_V3 receive ring into a batch.

A. The ring is shared with the kernel: blocks of one size, each filled by the kernel until it is full or its
   timeout is over, then ours until its status word is set back. The word is read with acquire and written
   with release order, so that nothing of a block is read before it is ours nor after it was given back.
B. Frames are copied out in the same pass, so that a block goes back as soon as its last frame is in the
   batch, whatever the consumer does. Where the batch is full in the middle of a block, the place is kept.
C. Offsets and lengths in a block are the kernel's, but are checked anyway: a frame that would lie
   outside of its block is counted as malformed, and the rest of that block is left out.
D. The kernel strips a VLAN tag from the frame and hands it over beside it. It is put back after the two
   addresses; captured and wire length grow by its 4 bytes.
E. The clock is read for each block, after its status word, and again where a later call goes on in a block: so no
   frame was read before it was there.
F. A hardware timestamp of 0 is none, never 1970: such a frame gets the time that the ring was read.
G. A block says TP_STATUS_LOSING where, when it was closed, frames had been lost that nobody had asked for yet. The
   row of the first frame of the first such block is kept, for the caller who asks how many.
H. The kernel counts a frame in its block before it hands the block over, and numbers the blocks that it begins. Once
   nothing more can come, frames of a block whose time is not up are read where they lie; its number distinguishes it from one
   of the lap before, which the kernel has not begun again.

Source: linux/if_packet.h; net/packet/af_packet.c; Documentation/networking/packet_mmap.rst.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from uspcap._core.bytes cimport load16, load32, load64
from uspcap._core.clock cimport realtime_ns
from uspcap._core.columns cimport FrameColumns
from uspcap._core.timestamped_interfaces cimport (
    TIMESTAMP_HARDWARE, TIMESTAMP_KERNEL, TIMESTAMP_USER, TIMESTAMPED_ENTRIES, timestamped_interface,
)
from uspcap.backends.gathering cimport FrameRing

cdef extern from *:
    """
    #define uspcap_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define uspcap_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint32_t load_acquire "uspcap_load_acquire"(uint32_t *) nogil
    void store_release "uspcap_store_release"(uint32_t *, uint32_t) nogil

# struct tpacket_block_desc with struct tpacket_hdr_v1.
cdef enum:
    BLOCK_STATUS = 8
    BLOCK_FRAMES = 12
    BLOCK_FIRST_FRAME = 16
    BLOCK_SEQUENCE = 24
    BLOCK_HEADER_BYTES = 48

# struct tpacket3_hdr with struct tpacket_hdr_variant1; struct sockaddr_ll follows it.
cdef enum:
    FRAME_NEXT = 0
    FRAME_SECONDS = 4
    FRAME_NANOSECONDS = 8
    FRAME_CAPTURED = 12
    FRAME_LENGTH = 16
    FRAME_STATUS = 20
    FRAME_MAC = 24
    FRAME_VLAN_TCI = 32
    FRAME_VLAN_TPID = 36
    FRAME_PACKET_TYPE = 48 + 10
    FRAME_HEADER_BYTES = 48 + 20

cdef enum:
    TP_STATUS_KERNEL = 0
    TP_STATUS_USER = 1 << 0
    TP_STATUS_LOSING = 1 << 2
    TP_STATUS_VLAN_VALID = 1 << 4
    TP_STATUS_VLAN_TPID_VALID = 1 << 6
    TP_STATUS_TS_SOFTWARE = 1 << 29
    ADDRESSES_BYTES = 12
    TAG_BYTES = 4
    ETH_P_8021Q = 0x8100
    EPB_INBOUND = 1
    EPB_OUTBOUND = 2
    PACKET_TYPES = 5

cdef uint32_t TP_STATUS_TS_RAW_HARDWARE = <uint32_t> 1 << 31

# epb_flags by the packet type of struct sockaddr_ll: direction in bits 0-1, reception type in bits 2-4.
cdef uint32_t[PACKET_TYPES] EPB_FLAGS = [
    EPB_INBOUND | 1 << 2,   # PACKET_HOST: unicast
    EPB_INBOUND | 3 << 2,   # PACKET_BROADCAST: broadcast
    EPB_INBOUND | 2 << 2,   # PACKET_MULTICAST: multicast
    EPB_INBOUND | 4 << 2,   # PACKET_OTHERHOST: promiscuous
    EPB_OUTBOUND,           # PACKET_OUTGOING
]


cdef class PacketRing(FrameRing):
    """One TPACKET_V3 receive ring.

    Parameters
    ----------
    memory : writable buffer of bytes
        The mapped ring: `block_count` blocks of `block_bytes`; its address is a multiple of 8.
    block_bytes : int
        A multiple of 8.
    snaplen : int
        Longest captured length; a frame that the kernel cut shorter is counted in `frames_cut`.
    tags : bool
        Put VLAN tags back: the frames are Ethernet.
    queue : int
        What the batch's `queue` column says.
    timestamp_on_reading : bool
        Timestamp every frame with the time that the ring was read, whatever the kernel says.
    interfaces : ndarray of uint16, shape (9,)
        Table of `TimestampedInterfaces`.

    Attributes
    ----------
    frames_cut : int
        Frames that the kernel cut because they did not fit in a block.
    malformed : int
        Frames left out because their place in a block cannot be right.
    losing_row : int
        Row of the first frame of the first block in this batch that says that frames were lost before it was closed;
        -1 where none does.
    """

    cdef uint8_t[::1] memory
    cdef uint16_t[::1] interfaces
    cdef Py_ssize_t block_bytes
    cdef Py_ssize_t block_count
    cdef uint32_t snaplen
    cdef bint tags
    cdef uint32_t queue
    cdef bint timestamp_on_reading
    cdef Py_ssize_t block
    cdef Py_ssize_t position
    cdef uint32_t frames_left
    cdef bint open
    cdef uint64_t sequence      # of the last block that was read; the first has 1
    cdef readonly int64_t frames_cut
    cdef readonly int64_t malformed
    cdef readonly Py_ssize_t losing_row

    def __init__(self, uint8_t[::1] memory, Py_ssize_t block_bytes, Py_ssize_t block_count, uint32_t snaplen,
                 bint tags, uint32_t queue, bint timestamp_on_reading, uint16_t[::1] interfaces):
        if block_bytes < BLOCK_HEADER_BYTES + FRAME_HEADER_BYTES or block_bytes % 8 or block_count < 1:
            raise ValueError(f"{block_count} blocks of {block_bytes} bytes are no ring")
        if block_bytes > memory.shape[0] // block_count:
            raise ValueError(f"{memory.shape[0]} bytes do not hold {block_count} blocks of {block_bytes}")
        if interfaces.shape[0] != TIMESTAMPED_ENTRIES:
            raise ValueError(f"the table of interfaces has {interfaces.shape[0]} entries, not {TIMESTAMPED_ENTRIES}")
        if <uintptr_t> &memory[0] % 8:
            raise ValueError("a ring starts at a multiple of 8")
        self.memory = memory
        self.interfaces = interfaces
        self.block_bytes = block_bytes
        self.block_count = block_count
        self.snaplen = snaplen
        self.tags = tags
        self.queue = queue
        self.timestamp_on_reading = timestamp_on_reading
        self.block = 0
        self.open = False
        self.sequence = 0
        self.frames_cut = 0
        self.malformed = 0
        self.losing_row = -1

    def drain(self, FrameColumns frames, Py_ssize_t used, int64_t read_at_ns):
        """Append frames to a batch until the ring has none or the batch is full.

        Parameters
        ----------
        frames : FrameColumns
            Rows from `count` on are filled, and `count` moved; numbered on from `frames_before`.
        used : int
            Bytes of `frames.data` that earlier rows hold.
        read_at_ns : int
            Now, UTC: the timestamp of frames that have none.

        Returns
        -------
        int
            Bytes of `frames.data` that all rows hold.
        """
        if self.memory is None:
            raise ValueError("the ring is closed")
        if used < 0 or used > frames.data_length:
            raise ValueError(f"{used} bytes are not within the batch's {frames.data_length}")
        with nogil:
            self.begin()
            used = self.take(frames, used, 0, read_at_ns, 0)
        return used

    @property
    def unfinished(self):
        """How many frames lie in the block that the kernel has not handed over."""
        cdef uint8_t *block
        if self.memory is None or self.open:
            return 0
        block = &self.memory[self.block * self.block_bytes]
        if load_acquire(<uint32_t *> (block + BLOCK_STATUS)) & TP_STATUS_USER:
            return 0
        return load32(block + BLOCK_FRAMES) if load64(block + BLOCK_SEQUENCE) == self.sequence + 1 else 0

    def drain_unfinished(self, FrameColumns frames, Py_ssize_t used, int64_t read_at_ns):
        """Append the frames of the block that the kernel has not handed over, as `drain` does.

        Only where it puts none there any more: nothing that comes later is read.
        """
        cdef uint8_t *block
        cdef uint32_t count = self.unfinished
        if count:
            block = &self.memory[self.block * self.block_bytes]
            self.frames_left = count
            self.position = load32(block + BLOCK_FIRST_FRAME)
            self.sequence += 1
            self.open = True
        return self.drain(frames, used, read_at_ns)

    cdef void begin(self) noexcept nogil:
        self.losing_row = -1
        self.attention = False

    cdef Py_ssize_t take(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns, int64_t read_at_ns,
                         int64_t now_ns) noexcept nogil:
        cdef uint8_t *block
        cdef uint8_t *frame
        cdef uint8_t *out
        cdef uint16_t *interfaces = &self.interfaces[0]
        cdef Py_ssize_t row = frames.count
        cdef Py_ssize_t mac
        cdef uint32_t captured, length, status, kept, step
        cdef uint16_t tag_type
        cdef uint32_t block_status
        cdef uint8_t source, packet_type
        cdef int64_t timestamp_ns
        cdef int64_t found_ns = realtime_ns() if self.open else 0
        cdef bint tagged
        while row < frames.capacity:
            block = &self.memory[self.block * self.block_bytes]
            if not self.open:
                block_status = load_acquire(<uint32_t *> (block + BLOCK_STATUS))
                if not block_status & TP_STATUS_USER:
                    break
                if block_status & TP_STATUS_LOSING and self.losing_row < 0:
                    self.losing_row = row
                    self.attention = True
                found_ns = realtime_ns()
                self.frames_left = load32(block + BLOCK_FRAMES)
                self.position = load32(block + BLOCK_FIRST_FRAME)
                self.sequence = load64(block + BLOCK_SEQUENCE)
                self.open = True
            if self.frames_left == 0:
                self.give_back(block)
                continue
            # C: position and mac were read from the ring; both are below 2**33 here, so no sum wraps.
            if self.position > self.block_bytes - FRAME_HEADER_BYTES:
                self.malformed += self.frames_left
                self.give_back(block)
                continue
            frame = block + self.position
            captured = load32(frame + FRAME_CAPTURED)
            length = load32(frame + FRAME_LENGTH)
            status = load32(frame + FRAME_STATUS)
            mac = self.position + load16(frame + FRAME_MAC)
            if mac > self.block_bytes or captured > self.block_bytes - mac:
                self.malformed += self.frames_left
                self.give_back(block)
                continue
            tagged = (
                self.tags and captured >= ADDRESSES_BYTES
                and (status & TP_STATUS_VLAN_VALID or load32(frame + FRAME_VLAN_TCI) != 0)
            )
            kept = captured + (TAG_BYTES if tagged else 0)
            if kept > self.snaplen:
                kept = self.snaplen
            if kept > frames.data_length - used:
                if row:
                    break
                kept = <uint32_t> (frames.data_length - used)
            if captured < length and captured < self.snaplen:
                self.frames_cut += 1
            out = frames.data + used
            if tagged:
                tag_type = ETH_P_8021Q
                if status & TP_STATUS_VLAN_TPID_VALID:
                    tag_type = load16(frame + FRAME_VLAN_TPID)
                self.copy_tagged(out, kept, block + mac, tag_type, load32(frame + FRAME_VLAN_TCI))
                length += TAG_BYTES
            else:
                memcpy(out, block + mac, kept)
            if status & TP_STATUS_TS_RAW_HARDWARE:
                source = TIMESTAMP_HARDWARE
            elif status & TP_STATUS_TS_SOFTWARE:
                source = TIMESTAMP_KERNEL
            else:
                source = TIMESTAMP_USER
            timestamp_ns = <int64_t> load32(frame + FRAME_SECONDS) * 1_000_000_000 + load32(frame + FRAME_NANOSECONDS)
            if self.timestamp_on_reading or (source == TIMESTAMP_HARDWARE and timestamp_ns == 0):
                source = TIMESTAMP_USER
                timestamp_ns = read_at_ns
            frames.timestamp_ns[row] = timestamp_ns
            frames.timestamp_source[row] = source
            frames.interface[row] = timestamped_interface(interfaces, source)
            frames.wire_length[row] = length
            frames.captured_length[row] = kept
            frames.offset[row] = used
            frames.frame_number[row] = frames.frames_before + row + 1
            packet_type = frame[FRAME_PACKET_TYPE]
            frames.flags[row] = EPB_FLAGS[packet_type] if packet_type < PACKET_TYPES else EPB_INBOUND
            frames.queue[row] = self.queue
            frames.read_ns[row] = found_ns
            used += kept
            row += 1
            self.frames_left -= 1
            step = load32(frame + FRAME_NEXT)
            if self.frames_left and (step == 0 or step > <uint32_t> self.block_bytes):
                self.malformed += self.frames_left
                self.frames_left = 0
            self.position += step
            if self.frames_left == 0:
                self.give_back(block)
        frames.count = row
        return used

    cdef void copy_tagged(self, uint8_t *out, uint32_t kept, const uint8_t *frame, uint16_t tag_type,
                          uint32_t tag) noexcept nogil:
        """Write the first `kept` bytes of a frame of which the tag is handed over beside it."""
        cdef uint8_t head[ADDRESSES_BYTES + TAG_BYTES]
        memcpy(head, frame, ADDRESSES_BYTES)
        head[12] = <uint8_t> (tag_type >> 8)
        head[13] = <uint8_t> tag_type
        head[14] = <uint8_t> (tag >> 8)
        head[15] = <uint8_t> tag
        if kept <= ADDRESSES_BYTES + TAG_BYTES:
            memcpy(out, head, kept)
            return
        memcpy(out, head, ADDRESSES_BYTES + TAG_BYTES)
        memcpy(out + ADDRESSES_BYTES + TAG_BYTES, frame + ADDRESSES_BYTES, kept - ADDRESSES_BYTES - TAG_BYTES)

    cdef void give_back(self, uint8_t *block) noexcept nogil:
        """Let the kernel have the block again and move to the next one."""
        store_release(<uint32_t *> (block + BLOCK_STATUS), TP_STATUS_KERNEL)
        self.open = False
        self.block += 1
        if self.block == self.block_count:
            self.block = 0

    def close(self):
        """Let go of the mapped memory; the ring is of no use then."""
        self.memory = None
