"""The rings of an AF_XDP socket: draining what it received into a batch, sending frames back from where they lie.

A. Two rings are shared with the kernel. It produces descriptors on the receive ring; this side consumes
   them, copies the frame out of the UMEM, and produces the chunk's address on the fill ring again. The
   other side's index is read with acquire order and our own written with release order; indices run
   freely in 32 bits, and a ring's size is a power of two.
B. A chunk goes back as soon as its bytes are copied, whatever the consumer of the batch does. As the fill
   ring has room for every chunk of the UMEM, giving back never waits.
C. A frame longer than a chunk comes as several descriptors, all but the last with XDP_PKT_CONTD. It is
   taken only when its last descriptor is there, so no half frame is kept between calls.
D. The metadata of `uspcap.bpf.xdp_program` lies before the first fragment or, where a driver has no room for it
   there, at its head, marked by a number that nobody else knows, and is left out of the frame. A frame is timestamped
   from it only if magic and version are right; otherwise by the time that the ring was read. Metadata that was read is
   wiped out, so that the next frame in its chunk is not timestamped from it.
E. The clock is read once a call, after the producer index, so that no frame was read before it was there.
F. Addresses and lengths are the kernel's but are checked anyway, in 64 bits.
G. The kernel counts what it loses and does not say where. It is asked before a visit, once in `LOSSES_EVERY_NS` where
   the ring was found half full, as frames are lost where it is full, and more seldom else. What was lost was lost
   before the producer's index of that moment, so the count goes to the frame at that index: the first that certainly
   came after the loss.
H. A chunk that is sent is the kernel's until it stands on the completion ring; then it goes on the fill ring. A chunk
   is on one ring at most, so none of them is ever full.
I. A driver may cut a frame that is longer than its buffer and hand the pieces over as frames (igb does). Then the IP
   header of the first says that it is longer, and what is missing is as long as what comes next on this ring, unless
   there are more than two pieces; then those between are as long as the first.

Source: linux/if_xdp.h; Documentation/networking/af_xdp.rst.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from uspcap._core.bytes cimport load16, load32, load64
from uspcap._core.clock cimport realtime_ns
from uspcap._core.columns cimport FrameColumns
from uspcap._core.frame_lengths cimport claimed_length
from uspcap._core.saturating cimport LATEST_NS, clamped
from uspcap._core.timestamped_interfaces cimport (
    TIMESTAMP_HARDWARE, TIMESTAMP_USER, TIMESTAMP_XDP, TIMESTAMPED_ENTRIES, timestamped_interface
)
from uspcap.backends.gathering cimport FrameRing

cdef extern from *:
    """
    #define uspcap_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define uspcap_load_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define uspcap_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    #define uspcap_prefetch(p) __builtin_prefetch(p)
    """
    uint32_t load_acquire "uspcap_load_acquire"(uint32_t *) nogil
    uint32_t load_relaxed "uspcap_load_relaxed"(uint32_t *) nogil
    void store_release "uspcap_store_release"(uint32_t *, uint32_t) nogil
    void prefetch "uspcap_prefetch"(const void *) nogil

cdef extern from "<sys/socket.h>" nogil:
    Py_ssize_t send_nothing "sendto"(int, const void *, size_t, int, const void *, unsigned int)
    Py_ssize_t receive_nothing "recvfrom"(int, void *, size_t, int, void *, unsigned int *)
    int getsockopt(int, int, int, void *, unsigned int *)
    int MSG_DONTWAIT

# struct xdp_desc and its options.
cdef enum:
    DESCRIPTOR_BYTES = 16
    DESCRIPTOR_LENGTH = 8
    DESCRIPTOR_OPTIONS = 12
    XDP_PKT_CONTD = 1 << 0
    XDP_RING_NEED_WAKEUP = 1 << 0

# struct xdp_statistics, in values of 64 bits.
cdef enum:
    SOL_XDP = 283
    XDP_STATISTICS = 7
    STATISTICS_DROPPED = 0
    STATISTICS_RING_FULL = 3
    STATISTICS_VALUES = 6

# The metadata area: uspcap.bpf.xdp_program.
cdef enum:
    METADATA_MAGIC = 0x75737063
    METADATA_VERSION = 1
    METADATA_LENGTH = 32
    METADATA_FLAGS = 6
    METADATA_HOOK = 8
    METADATA_HARDWARE = 16
    METADATA_COOKIE = 24
    HARDWARE_TIMESTAMPED = 1 << 0
    HEAD_MAGIC = 0x75737068

cdef enum:
    EPB_INBOUND = 1
    PUBLISH_EVERY = 256     # frames; the kernel gets chunks back in such lots at the latest
    PREFETCH_AHEAD = 4      # descriptors
    MOST_KICKS = 64         # in copy mode a call sends 32 frames
    LOSSES_EVERY_NS = 1_000_000
    LOSSES_SELDOM_NS = 10_000_000


cdef class Ring:
    """One of the rings of a socket, as it is mapped.

    Parameters
    ----------
    memory : writable buffer of bytes
    producer, consumer, entries, flags : int
        Where in it these lie, in bytes (struct xdp_ring_offset).
    size : int
        Entries, a power of two.
    entry_bytes : int
        16 on the receive ring, 8 on the fill ring.
    """

    def __init__(self, uint8_t[::1] memory, Py_ssize_t producer, Py_ssize_t consumer, Py_ssize_t entries,
                 Py_ssize_t flags, uint32_t size, Py_ssize_t entry_bytes):
        cdef Py_ssize_t length = memory.shape[0]
        if size == 0 or size & (size - 1):
            raise ValueError(f"a ring of {size} entries: it must be a power of two")
        for offset in (producer, consumer, flags):
            if offset < 0 or offset % 4 or offset + 4 > length:
                raise ValueError(f"offset {offset} is not within the ring's {length} bytes")
        if entries < 0 or entries % 8 or entries + <Py_ssize_t> size * entry_bytes > length:
            raise ValueError(f"{size} entries from {entries} on are not within the ring's {length} bytes")
        if <uintptr_t> &memory[0] % 8:
            raise ValueError("a ring starts at a multiple of 8")
        self.memory = memory
        self.producer = <uint32_t *> &memory[producer]
        self.consumer = <uint32_t *> &memory[consumer]
        self.flags = <uint32_t *> &memory[flags]
        self.entries = &memory[entries]
        self.size = size


cdef class ReceiveQueue(FrameRing):
    """The receiving side of one AF_XDP socket.

    Parameters
    ----------
    umem : writable buffer of bytes
    chunk_bytes : int
        A power of two.
    receive, fill : Ring
        The fill ring has at least as many entries as the UMEM has chunks.
    snaplen : int
        Bytes kept of a frame.
    queue : int
        What the batch's `queue` column says.
    hardware : bool
        Take the NIC's timestamp where there is one; the hook's timestamp otherwise.
    interfaces : ndarray of uint16, shape (9,)
        Table of `TimestampedInterfaces`.
    cookie : int
        Stands in metadata at the head of a frame; 0 where there is none.
    ethernet : bool
        Frames are, so that their IP headers can be found, and lengths compared.

    Attributes
    ----------
    malformed : int
        Frames left out because a descriptor points outside of the UMEM, or a frame has no end.
    without_timestamp : int
        Frames that came without metadata.
    truncated : int
        Frames shorter than their IP header says.
    cut : int
        Of these, those whose rest came as the next frame or frames: cut by the driver.
    lost : int
        Frames that are known to be lost and that no frame carries yet in its `drop_count`.
    """

    def __init__(self, uint8_t[::1] umem, uint64_t chunk_bytes, Ring receive, Ring fill, uint32_t snaplen,
                 uint32_t queue, bint hardware, uint16_t[::1] interfaces, *, uint64_t cookie=0,
                 bint ethernet=False):
        if chunk_bytes == 0 or chunk_bytes & (chunk_bytes - 1) or umem.shape[0] % chunk_bytes:
            raise ValueError(f"{umem.shape[0]} bytes of UMEM cannot be cut into chunks of {chunk_bytes}")
        if <uint64_t> umem.shape[0] // chunk_bytes > fill.size:
            raise ValueError(f"a fill ring of {fill.size} entries has no room for all chunks")
        if interfaces.shape[0] != TIMESTAMPED_ENTRIES:
            raise ValueError(f"the table of interfaces has {interfaces.shape[0]} entries, not {TIMESTAMPED_ENTRIES}")
        self.umem = umem
        self.interfaces = interfaces
        self.receive = receive
        self.fill = fill
        self.chunk_bytes = chunk_bytes
        self.snaplen = snaplen
        self.queue = queue
        self.hardware = hardware
        self.consumed = load_relaxed(receive.consumer)
        self.filled = load_relaxed(fill.producer)
        self.cookie = cookie
        self.ethernet = ethernet
        self.malformed = 0
        self.without_timestamp = self.truncated = self.cut = 0
        self.rest = self.piece = 0
        self.lost = 0
        self.lost_before = 0
        self.socket = -1

    def serve(self, int socket, bint polls_busily):
        """Let visits of a `Gatherer` look after the socket too: wake the driver, and ask the kernel for losses.

        Parameters
        ----------
        socket : int
            Descriptor.
        polls_busily : bool
            Have the driver receive on each visit, whether it asked to be woken or not.
        """
        self.check_open()
        self.socket = socket
        self.polls_busily = polls_busily

    def prime(self):
        """Give every chunk to the kernel; once, before the first frame."""
        cdef uint64_t chunk
        for chunk in range(<uint64_t> self.umem.shape[0] // self.chunk_bytes):
            self.give_back(chunk * self.chunk_bytes)
        store_release(self.fill.producer, self.filled)

    @property
    def needs_wakeup(self):
        """Whether the kernel needs a wakeup to see that there are chunks on the fill ring."""
        self.check_open()
        return bool(load_relaxed(self.fill.flags) & XDP_RING_NEED_WAKEUP)

    @property
    def ready(self):
        """Whether there is something on the receive ring."""
        self.check_open()
        return load_acquire(self.receive.producer) != self.consumed

    def note_lost(self, uint64_t count):
        """Say that the kernel lost frames, `count` at least 1, and has lost them by now.

        The first frame that comes on the ring from now on gets them in its `drop_count`. Not to be called again
        while `lost` is not 0, as the place would move on and on.
        """
        self.check_open()
        if self.lost or not count:
            raise ValueError(f"{count} frames cannot be noted while {self.lost} wait for theirs")
        self.lost_before = load_acquire(self.receive.producer)
        self.lost = count
        self.lossy = True

    def ask_for_losses(self):
        """Ask the kernel whether frames were lost, as visits do."""
        self.check_open()
        self.look_for_losses()

    cdef void look_for_losses(self) noexcept nogil:
        cdef uint64_t[STATISTICS_VALUES] statistics
        cdef unsigned int length = sizeof(statistics)
        cdef uint64_t lost
        # While a count waits for its frame the place would move on and on.
        if self.socket < 0 or self.lost or getsockopt(self.socket, SOL_XDP, XDP_STATISTICS, statistics, &length):
            return
        lost = statistics[STATISTICS_DROPPED]
        if length >= sizeof(statistics):
            lost += statistics[STATISTICS_RING_FULL]
        if lost > self.losses_noted:
            self.lost = lost - self.losses_noted
            self.lost_before = load_acquire(self.receive.producer)
            self.losses_noted = lost
            self.lossy = True

    cdef Py_ssize_t take(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns, int64_t read_at_ns,
                         int64_t now_ns) noexcept nogil:
        cdef uint32_t waiting = load_acquire(self.receive.producer) - self.consumed
        cdef int64_t pause_ns = LOSSES_EVERY_NS if waiting >= self.receive.size // 2 else LOSSES_SELDOM_NS
        if waiting and now_ns - self.losses_asked_ns >= pause_ns:
            self.losses_asked_ns = now_ns
            self.look_for_losses()
        used = self.copy(frames, used, tai_offset_ns, read_at_ns)
        if self.socket >= 0 and (self.polls_busily or load_relaxed(self.fill.flags) & XDP_RING_NEED_WAKEUP):
            receive_nothing(self.socket, NULL, 0, MSG_DONTWAIT, NULL, NULL)
        return used

    def drain(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns, int64_t read_at_ns):
        """Append frames to a batch until the ring has no whole one or the batch is full.

        Parameters
        ----------
        frames : FrameColumns
            Rows from `count` on are filled, and `count` moved; numbered on from `frames_before`.
        used : int
            Bytes of `frames.data` that earlier rows hold.
        tai_offset_ns : int
            CLOCK_TAI minus UTC, taken from the hook's timestamps.
        read_at_ns : int
            Now, UTC: the timestamp of frames that have none.

        Returns
        -------
        int
            Bytes of `frames.data` that all rows hold.
        """
        self.check_open()
        if used < 0 or used > frames.data_length:
            raise ValueError(f"{used} bytes are not within the batch's {frames.data_length}")
        with nogil:
            used = self.copy(frames, used, tai_offset_ns, read_at_ns)
        return used

    cdef Py_ssize_t copy(self, FrameColumns frames, Py_ssize_t used, int64_t tai_offset_ns,
                         int64_t read_at_ns) noexcept nogil:
        cdef Py_ssize_t row = frames.count
        cdef uint32_t produced = load_acquire(self.receive.producer)
        cdef int64_t found_ns = realtime_ns() if produced != self.consumed else 0
        cdef uint32_t published = self.consumed
        cdef uint32_t at, available
        cdef uint64_t length, address
        cdef uint32_t kept, head
        cdef const uint8_t *descriptor
        cdef bint whole, sound
        # More than the ring holds cannot be there.
        if produced - self.consumed > self.receive.size:
            produced = self.consumed + self.receive.size
        while row < frames.capacity and self.consumed != produced:
            at = self.consumed
            length = 0
            whole = False
            sound = True
            while at != produced and not whole:
                descriptor = self.descriptor(at)
                if not self.within(load64(descriptor), load32(descriptor + DESCRIPTOR_LENGTH)):
                    sound = False
                length += load32(descriptor + DESCRIPTOR_LENGTH)
                whole = not load32(descriptor + DESCRIPTOR_OPTIONS) & XDP_PKT_CONTD
                at += 1
            if not whole:
                if at - self.consumed < self.receive.size:
                    break
                # The ring is full and the frame has no end: nothing would ever come again.
                sound = False
            if not sound:
                self.malformed += 1
                self.release(at)
                continue
            address = load64(self.descriptor(self.consumed))
            head = self.head_of(address, load32(self.descriptor(self.consumed) + DESCRIPTOR_LENGTH))
            length -= head
            kept = self.snaplen if length > self.snaplen else <uint32_t> length
            if kept > frames.data_length - used:
                if row:
                    break
                kept = <uint32_t> (frames.data_length - used)
            self.timestamp(frames, row, address, head, tai_offset_ns, read_at_ns)
            self.copy_bytes(frames.data + used, kept, self.consumed, head)
            if self.ethernet:
                self.check_length(length, claimed_length(
                    &self.umem[0] + address + head, load32(self.descriptor(self.consumed) + DESCRIPTOR_LENGTH) - head))
            frames.wire_length[row] = <uint32_t> length
            frames.captured_length[row] = kept
            frames.offset[row] = used
            frames.frame_number[row] = frames.frames_before + row + 1
            frames.flags[row] = EPB_INBOUND
            frames.queue[row] = self.queue
            if self.lost and <int32_t> (self.consumed - self.lost_before) >= 0:
                frames.drop_count[row] = self.lost
                self.lost = 0
            frames.read_ns[row] = found_ns
            used += kept
            row += 1
            self.release(at)
            if self.consumed - published >= PUBLISH_EVERY:
                self.publish()
                published = self.consumed
        if self.consumed != published:
            self.publish()
        frames.count = row
        return used

    cdef inline const uint8_t *descriptor(self, uint32_t at) noexcept nogil:
        return self.receive.entries + DESCRIPTOR_BYTES * <Py_ssize_t> (at & (self.receive.size - 1))

    cdef inline bint within(self, uint64_t address, uint64_t length) noexcept nogil:
        """Whether a piece lies in the UMEM."""
        cdef uint64_t end = <uint64_t> self.umem.shape[0]
        return address < end and length <= end - address

    cdef inline uint32_t head_of(self, uint64_t address, uint32_t length) noexcept nogil:
        """Return how many bytes at the head of a frame are metadata."""
        cdef const uint8_t *area = &self.umem[0] + address
        if self.cookie and length >= METADATA_LENGTH and load32(area) == HEAD_MAGIC and \
                load64(area + METADATA_COOKIE) == self.cookie:
            return METADATA_LENGTH
        return 0

    cdef inline void timestamp(self, FrameColumns frames, Py_ssize_t row, uint64_t address, uint32_t head,
                           int64_t tai_offset_ns, int64_t read_at_ns) noexcept nogil:
        cdef uint8_t *area = NULL
        cdef uint8_t source = TIMESTAMP_USER
        cdef int64_t timestamp_ns = read_at_ns
        cdef uint64_t hardware_ns
        cdef uint32_t none = 0
        if head:
            area = &self.umem[0] + address
        elif address & (self.chunk_bytes - 1) >= METADATA_LENGTH:
            area = &self.umem[0] + address - METADATA_LENGTH
            if load32(area) != METADATA_MAGIC or load16(area + 4) != METADATA_VERSION:
                area = NULL
        if area != NULL:
            hardware_ns = load64(area + METADATA_HARDWARE)
            if self.hardware and hardware_ns and load16(area + METADATA_FLAGS) & HARDWARE_TIMESTAMPED:
                source = TIMESTAMP_HARDWARE
                timestamp_ns = <int64_t> hardware_ns if hardware_ns < <uint64_t> LATEST_NS else LATEST_NS
            else:
                source = TIMESTAMP_XDP
                timestamp_ns = <int64_t> (load64(area + METADATA_HOOK) - <uint64_t> tai_offset_ns)
            memcpy(area, &none, 4)
        else:
            self.without_timestamp += 1
        frames.timestamp_ns[row] = clamped(timestamp_ns)
        frames.timestamp_source[row] = source
        frames.interface[row] = timestamped_interface(&self.interfaces[0], source)

    cdef inline void check_length(self, uint64_t length, uint64_t claimed) noexcept nogil:
        """Count a frame that is only the beginning of one, and what may be its rest."""
        if self.rest:
            if length == self.rest:
                self.cut += 1
                self.rest = 0
                return
            if length == self.piece and length < self.rest:
                self.rest -= length
                return
            self.rest = 0
        if claimed > length:
            self.truncated += 1
            self.piece = length
            self.rest = claimed - length

    cdef inline void copy_bytes(self, uint8_t *out, uint32_t kept, uint32_t at, uint32_t head) noexcept nogil:
        """Copy the first `kept` bytes of the frame whose first descriptor is `at`, but for `head` bytes of it."""
        cdef const uint8_t *descriptor
        cdef uint32_t piece
        cdef uint64_t ahead = load64(self.descriptor(at + PREFETCH_AHEAD))
        if ahead >= METADATA_LENGTH and self.within(ahead, 1):
            prefetch(&self.umem[0] + ahead - METADATA_LENGTH)
            prefetch(&self.umem[0] + ahead)
        while kept:
            descriptor = self.descriptor(at)
            piece = load32(descriptor + DESCRIPTOR_LENGTH) - head
            if piece > kept:
                piece = kept
            memcpy(out, &self.umem[0] + load64(descriptor) + head, piece)
            out += piece
            kept -= piece
            head = 0
            at += 1

    cdef inline void release(self, uint32_t end) noexcept nogil:
        """Consume descriptors up to `end`; their chunks go on the fill ring."""
        cdef uint64_t address
        while self.consumed != end:
            address = load64(self.descriptor(self.consumed))
            if self.within(address, 0):
                self.give_back(address & ~(self.chunk_bytes - 1))
            self.consumed += 1

    cdef inline void give_back(self, uint64_t address) noexcept nogil:
        memcpy(self.fill.entries + 8 * <Py_ssize_t> (self.filled & (self.fill.size - 1)), &address, 8)
        self.filled += 1

    cdef inline void publish(self) noexcept nogil:
        """Tell the kernel how far both rings have got."""
        store_release(self.receive.consumer, self.consumed)
        store_release(self.fill.producer, self.filled)

    cdef int check_open(self) except -1:
        if self.umem is None:
            raise ValueError("the queue is closed")
        return 0

    def close(self):
        """Let go of the mapped memory; the queue is of no use then."""
        self.umem = None
        self.receive = None
        self.fill = None


cdef class TransmitQueue:
    """The sending side of a socket that answers: what was received is sent from where it lies.

    Parameters
    ----------
    queue : ReceiveQueue
        Of the same socket; its chunks come back to its fill ring.
    transmit, completion : Ring
        Each has at least as many entries as the UMEM has chunks.
    fd : int
        The socket.
    """

    def __init__(self, ReceiveQueue queue not None, Ring transmit not None, Ring completion not None, int fd):
        queue.check_open()
        if <uint64_t> queue.umem.shape[0] // queue.chunk_bytes > min(transmit.size, completion.size):
            raise ValueError("rings for sending have room for all chunks")
        self.queue = queue
        self.transmit = transmit
        self.completion = completion
        self.fd = fd
        self.produced = load_relaxed(transmit.producer)
        self.completed = load_relaxed(completion.consumer)

    cdef void push(self, uint64_t address, uint32_t length) noexcept nogil:
        """Hand a frame to the kernel, which sends it after the next wakeup."""
        cdef uint8_t *entry = self.transmit.entries + DESCRIPTOR_BYTES * <Py_ssize_t> (
            self.produced & (self.transmit.size - 1))
        cdef uint32_t options = 0
        memcpy(entry, &address, 8)
        memcpy(entry + DESCRIPTOR_LENGTH, &length, 4)
        memcpy(entry + DESCRIPTOR_OPTIONS, &options, 4)
        self.produced += 1
        store_release(self.transmit.producer, self.produced)

    cdef int flush(self) noexcept nogil:
        """Have everything sent that was pushed; return how many calls that took."""
        cdef int calls = 0
        while calls < MOST_KICKS and load_acquire(self.transmit.consumer) != self.produced:
            if not load_relaxed(self.transmit.flags) & XDP_RING_NEED_WAKEUP and calls:
                break
            send_nothing(self.fd, NULL, 0, MSG_DONTWAIT, NULL, 0)
            calls += 1
        return calls

    cdef void reclaim(self) noexcept nogil:
        """Give chunks that were sent to the fill ring."""
        cdef uint32_t done = load_acquire(self.completion.producer)
        cdef uint64_t address
        if done - self.completed > self.completion.size:
            done = self.completed + self.completion.size
        if done == self.completed:
            return
        while self.completed != done:
            address = load64(self.completion.entries + 8 * <Py_ssize_t> (self.completed & (self.completion.size - 1)))
            if self.queue.within(address, 0):
                self.queue.give_back(address & ~(self.queue.chunk_bytes - 1))
            self.completed += 1
        store_release(self.completion.consumer, self.completed)
        self.queue.publish()

    def close(self):
        """Let go of the mapped memory; the queue is of no use then."""
        self.queue = None
        self.transmit = None
        self.completion = None
