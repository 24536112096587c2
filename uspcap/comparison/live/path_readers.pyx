"""Reading probes from one path each, for latency: a UDP socket, a TPACKET_V2 ring, AF_XDP rings; and answering them.

A. The user's time is taken by one function for all paths (`record`), after the frame's bytes have been loaded where
   the path has put them: in the buffer of recvmsg, in the ring's slot, in the UMEM. Nothing is copied on top.
B. Two looks at the clock a frame at most, on every path: when the reader knows that there is something (the call
   that receives has returned; a slot's status, or the index of AF_XDP's ring has moved, the latter once for all frames
   that this look has shown), and when the frame's bytes were read. Both are CLOCK_TAI, the clock of the hook's
   bpf_ktime_get_tai_ns.
C. `block` waits in recvmsg; a ring has no such call, so there it is `poll`. After poll or epoll_wait a socket is read
   until it says EAGAIN, a ring until it is empty. `spin` never waits; every look at a socket is a call.
D. Costs are of the thread that runs the loop, from its start to its end: CLOCK_THREAD_CPUTIME_ID, getrusage
   (RUSAGE_THREAD), hardware cycles by perf_event_open where the kernel has such a counter; calls are counted here.
E. What is in a frame came from outside: lengths first, then magic, version, kind, mark and the path's number.
   Offsets in rings are the kernel's, and are checked anyway.
F. TPACKET_V2 and not V3: its slots are handed over one by one. A block of V3 is handed over when it is full or its
   time is up, at least 1 ms.
G. An answer is its probe with another kind, back to where it came from, through the same socket; in AF_XDP the frame is
   turned round where it lies. Sums need no work: the UDP checksum is 0, and that of IP does not mind an exchange.

Sources: linux/if_packet.h; linux/if_xdp.h; linux/net_tstamp.h; getrusage(2); perf_event_open(2); clock_gettime(2).
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy

import numpy as np

from uspcap._core.bytes cimport be16, be32, be64, load16, load32, load64
from uspcap._core.frame_lengths cimport claimed_length
from uspcap._core.saturating cimport difference
from uspcap.backends.af_xdp.xsk cimport ReceiveQueue, TransmitQueue

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <endian.h>
    #include <poll.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/ioctl.h>
    #include <sys/resource.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <time.h>
    #include <unistd.h>
    #include <linux/errqueue.h>
    #include <linux/perf_event.h>

    #ifndef RUSAGE_THREAD
    #define RUSAGE_THREAD 1
    #endif

    static int64_t uspcap_read_clock(clockid_t which) {
        struct timespec now;
        clock_gettime(which, &now);
        return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
    }

    static int64_t uspcap_tai_ns(void) { return uspcap_read_clock(CLOCK_TAI); }

    static int64_t uspcap_monotonic_ns(void) { return uspcap_read_clock(CLOCK_MONOTONIC); }

    static int64_t uspcap_thread_ns(void) { return uspcap_read_clock(CLOCK_THREAD_CPUTIME_ID); }

    static void uspcap_spin_for(int64_t duration_ns) {
        int64_t until = uspcap_read_clock(CLOCK_MONOTONIC) + duration_ns;
        while (uspcap_read_clock(CLOCK_MONOTONIC) < until)
            ;
    }

    /* user ns, system ns, voluntary and involuntary context switches of the calling thread. */
    static void uspcap_usage(int64_t *out) {
        struct rusage now;
        getrusage(RUSAGE_THREAD, &now);
        out[0] = (int64_t) now.ru_utime.tv_sec * 1000000000 + (int64_t) now.ru_utime.tv_usec * 1000;
        out[1] = (int64_t) now.ru_stime.tv_sec * 1000000000 + (int64_t) now.ru_stime.tv_usec * 1000;
        out[2] = now.ru_nvcsw;
        out[3] = now.ru_nivcsw;
    }

    static int uspcap_open_cycles(void) {
        struct perf_event_attr wanted;
        memset(&wanted, 0, sizeof wanted);
        wanted.size = sizeof wanted;
        wanted.type = PERF_TYPE_HARDWARE;
        wanted.config = PERF_COUNT_HW_CPU_CYCLES;
        return (int) syscall(SYS_perf_event_open, &wanted, 0, -1, -1, PERF_FLAG_FD_CLOEXEC);
    }

    static int64_t uspcap_read_cycles(int fd) {
        uint64_t value;
        return read(fd, &value, sizeof value) == sizeof value ? (int64_t) value : -1;
    }

    /* One datagram with the kernel's software receive timestamp, 0 where it has none. */
    static ssize_t uspcap_take_datagram(int fd, void *data, size_t room, int flags, int64_t *timestamp_ns,
                                        struct sockaddr_storage *from, socklen_t *from_bytes) {
        union { struct cmsghdr align; char bytes[256]; } control;
        struct iovec vector = {data, room};
        struct msghdr message;
        struct cmsghdr *one;
        ssize_t received;
        memset(&message, 0, sizeof message);
        message.msg_name = from;
        message.msg_namelen = sizeof *from;
        message.msg_iov = &vector;
        message.msg_iovlen = 1;
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
        received = recvmsg(fd, &message, flags);
        *from_bytes = message.msg_namelen;
        *timestamp_ns = 0;
        if (received < 0)
            return received;
        for (one = CMSG_FIRSTHDR(&message); one; one = CMSG_NXTHDR(&message, one))
            if (one->cmsg_level == SOL_SOCKET && one->cmsg_type == SO_TIMESTAMPING
                    && one->cmsg_len >= CMSG_LEN(sizeof(struct scm_timestamping))) {
                struct scm_timestamping timestamps;
                memcpy(&timestamps, CMSG_DATA(one), sizeof timestamps);
                *timestamp_ns = (int64_t) timestamps.ts[0].tv_sec * 1000000000 + timestamps.ts[0].tv_nsec;
            }
        return received;
    }

    static ssize_t uspcap_answer(int fd, const void *data, size_t length, const struct sockaddr_storage *to,
                                 socklen_t to_bytes) {
        return sendto(fd, data, length, MSG_DONTWAIT, (const struct sockaddr *) to, to_bytes);
    }

    /* Exchange addresses and ports of untagged IPv4 without options, as the program at the hook lets through. */
    static void uspcap_turn_round(uint8_t *frame) {
        uint8_t kept[6];
        memcpy(kept, frame, 6);
        memcpy(frame, frame + 6, 6);
        memcpy(frame + 6, kept, 6);
        memcpy(kept, frame + 26, 4);
        memcpy(frame + 26, frame + 30, 4);
        memcpy(frame + 30, kept, 4);
        memcpy(kept, frame + 34, 2);
        memcpy(frame + 34, frame + 36, 2);
        memcpy(frame + 36, kept, 2);
    }

    static int uspcap_wait_poll(const int *fds, int count, int timeout_ms) {
        struct pollfd all[64];
        for (int i = 0; i < count; i++)
            all[i] = (struct pollfd) {fds[i], POLLIN, 0};
        return poll(all, count, timeout_ms);
    }

    static int uspcap_wait_epoll(int epoll_fd, int timeout_ms) {
        struct epoll_event some[64];
        return epoll_wait(epoll_fd, some, 64, timeout_ms);
    }

    static void uspcap_pause(void) {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ volatile("yield");
    #endif
    }

    /* Load one byte of every cache line and the last one, so that the frame is there and not only its address. */
    static uint8_t uspcap_load_all(const volatile uint8_t *data, size_t length) {
        uint8_t sum = 0;
        for (size_t at = 0; at < length; at += 64)
            sum ^= data[at];
        return length ? sum ^ data[length - 1] : sum;
    }

    #define uspcap_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define uspcap_relaxed(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define uspcap_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    int64_t tai_ns "uspcap_tai_ns"() noexcept nogil
    int64_t thread_ns "uspcap_thread_ns"() noexcept nogil
    void spin_for "uspcap_spin_for"(int64_t) noexcept nogil
    void usage "uspcap_usage"(int64_t *) noexcept nogil
    int open_cycles "uspcap_open_cycles"() nogil
    int64_t read_cycles "uspcap_read_cycles"(int) nogil
    int close_descriptor "close"(int) nogil
    ctypedef struct sockaddr_storage "struct sockaddr_storage":
        pass
    ctypedef uint32_t socklen_t
    Py_ssize_t take_datagram "uspcap_take_datagram"(int, void *, size_t, int, int64_t *, sockaddr_storage *,
                                                    socklen_t *) nogil
    Py_ssize_t send_answer "uspcap_answer"(int, const void *, size_t, const sockaddr_storage *, socklen_t) nogil
    void turn_round "uspcap_turn_round"(uint8_t *) noexcept nogil
    int64_t monotonic_ns "uspcap_monotonic_ns"() noexcept nogil
    int wait_poll "uspcap_wait_poll"(const int *, int, int) nogil
    int wait_epoll "uspcap_wait_epoll"(int, int) nogil
    Py_ssize_t receive_nothing "recv"(int, void *, size_t, int) nogil
    int MSG_DONTWAIT
    void pause "uspcap_pause"() noexcept nogil
    uint8_t load_all "uspcap_load_all"(const uint8_t *, size_t) noexcept nogil
    uint32_t acquire "uspcap_acquire"(uint32_t *) nogil
    uint32_t relaxed "uspcap_relaxed"(uint32_t *) nogil
    void release "uspcap_release"(uint32_t *, uint32_t) nogil
    uint64_t htobe64(uint64_t) nogil

# Digest of other traffic: uspcap.bpf.path_program.
cdef uint64_t DIGEST_START = 0x9E3779B97F4A7C15
cdef uint64_t DIGEST_FACTOR = 0xD6E8FEB86659FD93

cdef enum:
    DIGEST_WORDS = 8

# Columns of a record, in the order of `COLUMNS`.
cdef enum:
    SEQUENCE = 0
    INTENDED = 1
    HOOK = 2
    KERNEL = 3
    FOUND = 4
    USER = 5
    COLUMN_COUNT = 6

COLUMNS = ("sequence", "intended_ns", "hook_ns", "kernel_ns", "found_ns", "user_ns")
WAKEUPS = ("block", "poll", "epoll", "spin")
ANSWERS = ("none", "marked", "timestamped")
"""None; with the hook's mark left in, for `AnswerReader`; with the times of docs/probe.md in its place."""

cdef enum:
    BLOCK = 0
    POLL = 1
    EPOLL = 2
    SPIN = 3
    PATIENCE_MS = 50
    MOST_QUEUES = 64

cdef enum:
    NO_ANSWER = 0
    MARKED = 1
    TIMESTAMPED = 2

# A probe at the hook: docs/probe.md and uspcap.bpf.path_program.
cdef enum:
    PROBE_HEADER = 64
    AT_SEQUENCE = 16
    AT_KIND = 5
    AT_INTENDED = 24
    AT_ACTUAL = 32
    AT_HOOK = 40
    AT_MARK = 48
    AT_PATH = 52
    AT_ANSWERED = 56
    KIND_ANSWER = 2
    UDP = 17
    PAYLOAD_AT = 14 + 20 + 8
    LARGEST = 65536
    MARK = 0x55535048

cdef const char *PROBE_START = b"USPC\x01\x01\x00\x40"
cdef const char *ANSWER_START = b"USPC\x01\x02\x00\x40"

# struct tpacket2_hdr.
cdef enum:
    SLOT_STATUS = 0
    SLOT_CAPTURED = 8
    SLOT_MAC = 12
    SLOT_SECONDS = 16
    SLOT_NANOSECONDS = 20
    SLOT_HEADER = 32
    TP_STATUS_KERNEL = 0
    TP_STATUS_USER = 1 << 0
    TP_STATUS_TS_SOFTWARE = 1 << 29

cdef enum:
    DESCRIPTOR_LENGTH = 8
    DESCRIPTOR_OPTIONS = 12
    XDP_PKT_CONTD = 1 << 0
    XDP_RING_NEED_WAKEUP = 1 << 0


def clock_cost_ns(int looks=1000):
    """Return how long one look at CLOCK_TAI takes: the mean of `looks` of them, in ns."""
    cdef int64_t start = tai_ns()
    cdef int at
    for at in range(looks):
        tai_ns()
    return <double> (tai_ns() - start) / (looks + 1)


cdef class PathReader:
    """What all readers share: records, costs, the loop. Of no use alone.

    Parameters
    ----------
    path : int
        Number that the program at the hook gave the path; probes with another one are `foreign`.
    wakeup : str
        Of `WAKEUPS`.
    columns : ndarray of int64, shape (6, frames)
        Filled, a row for each of `COLUMNS`; best touched before, so that no page fault falls into the loop. Frames
        beyond it are counted in `unrecorded`.
    fds : sequence of int
        What poll waits for; at most 64.
    epoll_fd : int
        What epoll_wait waits with; -1 unless `wakeup` is epoll.
    delay_ns : int
        Busy loop before each look at the user's clock: a known difference, for tests.

    Attributes
    ----------
    received, foreign, unrecorded, short : int
        Probes of this path; frames that are none; probes that `columns` had no room for; frames of which less came
        than their IP header says.
    answered, unanswered : int
        Probes that were sent back, and that could not be; see `answer`.
    payload_bytes : int
        Of the probes received.
    system_calls, wake_ups : int
        Calls that the loop made; waiting calls that came back with something.
    cpu_ns, user_ns, system_ns : int
        CPU time of the thread in the loop; the latter two are shared out by the kernel, by its ticks on most kernels.
    voluntary_switches, involuntary_switches : int
    cycles : int
        CPU cycles, user and kernel; -1 where there is no counter.
    cycles_error : int
        Why there is none: an error number.
    error_number : int
        Of what ended the loop early, 0 otherwise.
    """

    cdef int64_t[:, ::1] rows
    cdef int fds[MOST_QUEUES]
    cdef int fd_count
    cdef int epoll_fd
    cdef int wakeup
    cdef uint32_t path
    cdef int64_t delay_ns
    cdef int answers
    cdef bint by_digest
    cdef int64_t tai_offset_ns, most_answers
    cdef Py_ssize_t recorded
    cdef volatile int stopping
    cdef readonly int64_t answered, unanswered
    cdef readonly int64_t received, foreign, unrecorded, short, payload_bytes, system_calls, wake_ups
    cdef readonly int64_t cpu_ns, user_ns, system_ns, voluntary_switches, involuntary_switches, cycles
    cdef readonly int error_number, cycles_error

    def __init__(self, uint32_t path, str wakeup, int64_t[:, ::1] columns, fds, int epoll_fd, int64_t delay_ns):
        if wakeup not in WAKEUPS:
            raise ValueError(f"{wakeup!r} is no way to wait")
        if columns.shape[0] != COLUMN_COUNT or columns.shape[1] < 1:
            raise ValueError(f"records have {COLUMN_COUNT} columns and room for a frame")
        if not 1 <= len(fds) <= MOST_QUEUES or delay_ns < 0:
            raise ValueError("a reader takes 1 to 64 descriptors and no negative delay")
        if wakeup == "epoll" and epoll_fd < 0:
            raise ValueError("epoll needs a descriptor to wait with")
        self.path = path
        self.wakeup = WAKEUPS.index(wakeup)
        self.fd_count = len(fds)
        for at, fd in enumerate(fds):
            self.fds[at] = fd
        self.epoll_fd = epoll_fd
        self.delay_ns = delay_ns
        self.rows = columns
        self.cycles = -1

    def answer(self, str how, *, int64_t tai_offset_ns=0, int64_t most=(1 << 63) - 1):
        """Send each probe of this path back once it is recorded; before `run`.

        Parameters
        ----------
        how : str
            Of `ANSWERS`.
        tai_offset_ns : int
            CLOCK_TAI minus UTC, taken from the times in answers that are `timestamped`.
        most : int
            Answers after which `run` ends.

        Raises
        ------
        ValueError
            There is no such way, or this path only receives.
        """
        if how not in ANSWERS or (how != "none" and not self.can_answer()):
            raise ValueError(f"cannot answer {how!r} on this path")
        self.answers = ANSWERS.index(how)
        self.tai_offset_ns = tai_offset_ns
        self.most_answers = most

    def take_others(self):
        """Take any UDP, not probes: `sequence` is the digest by which the hook's timestamp is found, `hook_ns` is 0."""
        self.by_digest = True

    cdef bint can_answer(self):
        return False

    cdef void record_other(self, const uint8_t *payload, Py_ssize_t length, Py_ssize_t captured, int64_t kernel_ns,
                           int64_t found_ns) noexcept nogil:
        """As `record` for UDP of whatever kind, of which so much was captured."""
        cdef int64_t user_ns
        load_all(payload, <size_t> (captured if captured < length else length))
        if self.delay_ns:
            spin_for(self.delay_ns)
        user_ns = tai_ns()
        self.note(length, <int64_t> digest_of(payload, length, captured), 0, 0, kernel_ns, found_ns, user_ns)

    cdef bint record_frame(self, const uint8_t *frame, Py_ssize_t captured, Py_ssize_t more, int64_t kernel_ns,
                           int64_t found_ns) noexcept nogil:
        """Record what an Ethernet frame holds, `more` bytes of it lying elsewhere; True for a probe of this path."""
        cdef Py_ssize_t length
        if claimed_length(frame, <uint64_t> captured) > <uint64_t> (captured + more):
            self.short += 1
            return False
        if not self.by_digest:
            return self.record(frame + PAYLOAD_AT, captured - PAYLOAD_AT, kernel_ns, found_ns)
        if captured < PAYLOAD_AT or be16(frame + 12) != 0x0800 or frame[14] != 0x45 or frame[23] != UDP:
            self.foreign += 1
            return False
        length = <Py_ssize_t> be16(frame + 38) - 8
        if length < 0 or be16(frame + 20) & 0x3FFF:
            self.foreign += 1
            return False
        self.record_other(frame + PAYLOAD_AT, length, captured - PAYLOAD_AT, kernel_ns, found_ns)
        return False

    cdef void fill_in(self, uint8_t *payload, int64_t found_ns) noexcept nogil:
        """Make an answer of a probe."""
        payload[AT_KIND] = KIND_ANSWER
        if self.answers == TIMESTAMPED:
            put_time(payload + AT_HOOK, difference(get_time(payload + AT_HOOK), self.tai_offset_ns))
            put_time(payload + AT_MARK, difference(found_ns, self.tai_offset_ns))
        put_time(payload + AT_ANSWERED, difference(tai_ns(), self.tai_offset_ns))

    def stop(self):
        """Make `run` return once nothing is left to read, within 50 ms; may be called by any thread."""
        self.stopping = 1

    def records(self):
        """Return the part of `columns` that was filled."""
        return np.asarray(self.rows)[:, :self.recorded]

    def run(self):
        """Read until `stop` is called or reading fails for good."""
        cdef int64_t before[4]
        cdef int64_t after[4]
        cdef int64_t cpu_ns
        cdef int counter
        with nogil:
            counter = open_cycles()
            if counter < 0:
                self.cycles_error = errno
            usage(before)
            cpu_ns = thread_ns()
            self.loop()
            self.cpu_ns = thread_ns() - cpu_ns
            usage(after)
            if counter >= 0:
                self.cycles = read_cycles(counter)
                close_descriptor(counter)
        self.user_ns = after[0] - before[0]
        self.system_ns = after[1] - before[1]
        self.voluntary_switches = after[2] - before[2]
        self.involuntary_switches = after[3] - before[3]

    cdef void loop(self) noexcept nogil:
        cdef bint last
        while not self.error_number and not (self.answers and self.answered >= self.most_answers):
            # Before reading: what came before `stop` is read.
            last = self.stopping
            if self.take_ready():
                continue
            if last:
                break
            if self.wakeup == SPIN:
                pause()
            else:
                self.wait()

    cdef Py_ssize_t take_ready(self) noexcept nogil:
        """Record what is there; return how many frames were taken, of whatever kind."""
        return 0

    cdef void wait(self) noexcept nogil:
        """Wait until there is something, for 50 ms at most."""
        cdef int ready
        self.system_calls += 1
        if self.wakeup == EPOLL:
            ready = wait_epoll(self.epoll_fd, PATIENCE_MS)
        else:
            ready = wait_poll(self.fds, self.fd_count, PATIENCE_MS)
        if ready > 0:
            self.wake_ups += 1
        elif ready < 0 and errno != EINTR:
            self.error_number = errno

    cdef bint record(self, const uint8_t *payload, Py_ssize_t length, int64_t kernel_ns,
                     int64_t found_ns) noexcept nogil:
        """Take the user's time, once all bytes of a payload were loaded, and note the times; False for no probe of ours."""
        cdef int64_t user_ns
        if length < PROBE_HEADER or memcmp(payload, PROBE_START, 8) or \
                be32(payload + AT_MARK) != MARK or be32(payload + AT_PATH) != self.path:
            self.foreign += 1
            return False
        load_all(payload, <size_t> length)
        if self.delay_ns:
            spin_for(self.delay_ns)
        user_ns = tai_ns()
        self.note(length, get_time(payload + AT_SEQUENCE), get_time(payload + AT_INTENDED), get_time(payload + AT_HOOK),
                  kernel_ns, found_ns, user_ns)
        return True

    cdef inline void note(self, Py_ssize_t length, int64_t sequence, int64_t intended_ns, int64_t hook_ns,
                          int64_t kernel_ns, int64_t found_ns, int64_t user_ns) noexcept nogil:
        """Count a frame, and keep its times where there is room."""
        cdef int64_t *cell
        cdef Py_ssize_t stride = self.rows.shape[1]
        self.received += 1
        self.payload_bytes += length
        if self.recorded == stride:
            self.unrecorded += 1
            return
        cell = &self.rows[0, self.recorded]
        cell[SEQUENCE * stride] = sequence
        cell[INTENDED * stride] = intended_ns
        cell[HOOK * stride] = hook_ns
        cell[KERNEL * stride] = kernel_ns
        cell[FOUND * stride] = found_ns
        cell[USER * stride] = user_ns
        self.recorded += 1


cdef inline uint64_t digest_of(const uint8_t *payload, Py_ssize_t length, Py_ssize_t captured) noexcept nogil:
    cdef uint64_t state = DIGEST_START ^ <uint64_t> length
    cdef Py_ssize_t at = 0
    while at < 8 * DIGEST_WORDS and at + 8 <= length and at + 8 <= captured:
        state = (state ^ load64(payload + at)) * DIGEST_FACTOR
        state ^= state >> 32
        at += 8
    return state


cdef inline int64_t get_time(const uint8_t *at) noexcept nogil:
    return <int64_t> be64(at)


cdef inline void put_time(uint8_t *at, int64_t time_ns) noexcept nogil:
    cdef uint64_t value = htobe64(<uint64_t> time_ns)
    memcpy(at, &value, 8)


cdef class SocketReader(PathReader):
    """Reads probes from a UDP socket with SO_TIMESTAMPING's software receive timestamps and a receive timeout of 50 ms.

    Parameters
    ----------
    fd : int
    path, wakeup, columns, epoll_fd, delay_ns
        As in `PathReader`.
    """

    cdef uint8_t[::1] buffer
    cdef sockaddr_storage source
    cdef socklen_t source_bytes

    def __init__(self, int fd, uint32_t path, str wakeup, int64_t[:, ::1] columns, *, int epoll_fd=-1,
                 int64_t delay_ns=0):
        super().__init__(path, wakeup, columns, [fd], epoll_fd, delay_ns)
        self.buffer = np.zeros(LARGEST, np.uint8)

    cdef Py_ssize_t take_ready(self) noexcept nogil:
        cdef int64_t kernel_ns, found_ns
        cdef Py_ssize_t length
        cdef Py_ssize_t taken = 0
        # In `block` mode the call itself waits, but not after `stop`.
        cdef int flags = MSG_DONTWAIT if self.wakeup != BLOCK or self.stopping else 0
        while True:
            self.system_calls += 1
            length = take_datagram(self.fds[0], &self.buffer[0], LARGEST, flags, &kernel_ns, &self.source,
                                   &self.source_bytes)
            if length < 0:
                if errno != EAGAIN and errno != EINTR:
                    self.error_number = errno
                return taken
            found_ns = tai_ns()
            taken += 1
            if self.by_digest:
                self.record_other(&self.buffer[0], length, length, kernel_ns, found_ns)
            elif self.record(&self.buffer[0], length, kernel_ns, found_ns) and self.answers:
                self.fill_in(&self.buffer[0], found_ns)
                self.system_calls += 1
                if send_answer(self.fds[0], &self.buffer[0], <size_t> length, &self.source,
                               self.source_bytes) == length:
                    self.answered += 1
                else:
                    self.unanswered += 1
            if flags == 0:
                self.wake_ups += 1
                return taken

    cdef void wait(self) noexcept nogil:
        if self.wakeup != BLOCK:
            PathReader.wait(self)

    cdef bint can_answer(self):
        return True


cdef class AnswerReader(SocketReader):
    """Reads marked answers of all paths where their probes are sent from: the columns hold other things here.

    `hook_ns` is the hook's timestamp (CLOCK_TAI), `kernel_ns` the number of the path, `found_ns` when the probe was
    sent,
    `user_ns` when the answer was read; intended, sent and read are on the sender's time line.

    Parameters
    ----------
    fd : int
        The sender's socket, with a receive timeout of 50 ms.
    columns : ndarray of int64, shape (6, frames)
    utc_ahead_ns : int
        The sender's time line is CLOCK_MONOTONIC plus this.
    """

    cdef int64_t utc_ahead_ns

    def __init__(self, int fd, int64_t[:, ::1] columns, *, int64_t utc_ahead_ns):
        SocketReader.__init__(self, fd, 0, "block", columns)
        self.utc_ahead_ns = utc_ahead_ns

    cdef bint can_answer(self):
        return False

    cdef bint record(self, const uint8_t *payload, Py_ssize_t length, int64_t kernel_ns,
                     int64_t found_ns) noexcept nogil:
        cdef int64_t read_ns = monotonic_ns() + self.utc_ahead_ns
        if length < PROBE_HEADER or memcmp(payload, ANSWER_START, 8) or be32(payload + AT_MARK) != MARK:
            self.foreign += 1
            return False
        self.note(length, get_time(payload + AT_SEQUENCE), get_time(payload + AT_INTENDED), get_time(payload + AT_HOOK),
                  be32(payload + AT_PATH), get_time(payload + AT_ACTUAL), read_ns)
        return True


cdef class RingReader(PathReader):
    """Reads probes in the slots of a TPACKET_V2 receive ring.

    Parameters
    ----------
    memory : writable buffer of bytes
        The mapped ring; its address is a multiple of 16.
    slot_bytes : int
        A multiple of 16; the slots fill the memory.
    fd : int
    path, wakeup, columns, epoll_fd, delay_ns
        As in `PathReader`.

    Attributes
    ----------
    malformed : int
        Slots whose frame would lie outside of them.
    """

    cdef uint8_t[::1] memory
    cdef Py_ssize_t slot_bytes
    cdef Py_ssize_t slot
    cdef Py_ssize_t slots
    cdef readonly int64_t malformed

    def __init__(self, uint8_t[::1] memory, Py_ssize_t slot_bytes, int fd, uint32_t path, str wakeup,
                 int64_t[:, ::1] columns, *, int epoll_fd=-1, int64_t delay_ns=0, Py_ssize_t first_slot=0):
        super().__init__(path, wakeup, columns, [fd], epoll_fd, delay_ns)
        if slot_bytes < SLOT_HEADER or slot_bytes % 16 or memory.shape[0] < slot_bytes or \
                memory.shape[0] % slot_bytes:
            raise ValueError(f"{memory.shape[0]} bytes cannot be cut into slots of {slot_bytes}")
        if <uintptr_t> &memory[0] % 16:
            raise ValueError("a ring starts at a multiple of 16")
        self.memory = memory
        self.slot_bytes = slot_bytes
        self.slots = memory.shape[0] // slot_bytes
        if not 0 <= first_slot < self.slots:
            raise ValueError(f"a ring of {self.slots} slots has no slot {first_slot}")
        self.slot = first_slot

    @property
    def next_slot(self):
        """The slot that the next frame comes in, for the reader that goes on with this ring."""
        return self.slot

    cdef Py_ssize_t take_ready(self) noexcept nogil:
        cdef uint8_t *at = &self.memory[self.slot * self.slot_bytes]
        cdef uint32_t status = acquire(<uint32_t *> (at + SLOT_STATUS))
        cdef int64_t found_ns, kernel_ns
        cdef Py_ssize_t taken = 0
        cdef Py_ssize_t mac, captured
        while status & TP_STATUS_USER and taken < self.slots:
            # Each slot has its own look: it may have come while the one before was read.
            found_ns = tai_ns()
            mac = load16(at + SLOT_MAC)
            captured = load32(at + SLOT_CAPTURED)
            if mac > self.slot_bytes or captured > self.slot_bytes - mac:
                self.malformed += 1
            else:
                kernel_ns = 0
                if status & TP_STATUS_TS_SOFTWARE:
                    kernel_ns = <int64_t> load32(at + SLOT_SECONDS) * 1_000_000_000 + load32(at + SLOT_NANOSECONDS)
                self.record_frame(at + mac, captured, 0, kernel_ns, found_ns)
            release(<uint32_t *> (at + SLOT_STATUS), TP_STATUS_KERNEL)
            self.slot += 1
            if self.slot == self.slots:
                self.slot = 0
            taken += 1
            at = &self.memory[self.slot * self.slot_bytes]
            status = acquire(<uint32_t *> (at + SLOT_STATUS))
        return taken


cdef class XskReader(PathReader):
    """Reads probes in the UMEM of AF_XDP sockets, one for each receive queue.

    Parameters
    ----------
    queues : sequence of ReceiveQueue
        At least one.
    fds : sequence of int
        Their sockets.
    path, wakeup, columns, epoll_fd, delay_ns
        As in `PathReader`.
    transmits : sequence of TransmitQueue, optional
        Of the same sockets, where probes are to be answered.

    Attributes
    ----------
    malformed : int
        Frames whose descriptor points outside of the UMEM.
    """

    cdef _QueueReader first
    cdef readonly int64_t malformed
    cdef bint transmits

    def __init__(self, queues, fds, uint32_t path, str wakeup, int64_t[:, ::1] columns, *, int epoll_fd=-1,
                 int64_t delay_ns=0, transmits=()):
        super().__init__(path, wakeup, columns, fds, epoll_fd, delay_ns)
        if len(queues) != len(fds) or (transmits and len(transmits) != len(fds)):
            raise ValueError("each receive queue has one socket, and that one queue to send at most")
        self.transmits = bool(transmits)
        for queue, fd, transmit in reversed(list(zip(queues, fds, transmits or [None] * len(fds)))):
            self.first = _QueueReader(queue, fd, transmit, self.first)

    cdef bint can_answer(self):
        return self.transmits

    cdef Py_ssize_t take_ready(self) noexcept nogil:
        return self.first.take(self)


cdef class _QueueReader:
    """One of the queues of an `XskReader`, and those after it."""

    cdef ReceiveQueue queue
    cdef int fd
    cdef TransmitQueue transmit
    cdef _QueueReader next

    def __init__(self, ReceiveQueue queue not None, int fd, TransmitQueue transmit, _QueueReader following):
        queue.check_open()
        self.queue = queue
        self.fd = fd
        self.transmit = transmit
        self.next = following

    cdef Py_ssize_t take(self, XskReader into) noexcept nogil:
        cdef uint32_t produced = acquire(self.queue.receive.producer)
        cdef Py_ssize_t taken = 0
        cdef int64_t found_ns
        if into.answers:
            self.transmit.reclaim()
        if produced != self.queue.consumed:
            found_ns = tai_ns()
            taken = self.take_until(produced, into, found_ns)
            if into.answers:
                into.system_calls += self.transmit.flush()
        elif into.wakeup == SPIN and relaxed(self.queue.fill.flags) & XDP_RING_NEED_WAKEUP:
            into.system_calls += 1
            receive_nothing(self.fd, NULL, 0, MSG_DONTWAIT)
        if self.next is not None:
            taken += self.next.take(into)
        return taken

    cdef Py_ssize_t more(self, uint32_t produced) noexcept nogil:
        """Return how many bytes of the frame that begins now lie in further chunks."""
        cdef uint32_t at = self.queue.consumed
        cdef Py_ssize_t length = 0
        while load32(self.queue.descriptor(at) + DESCRIPTOR_OPTIONS) & XDP_PKT_CONTD and at + 1 != produced:
            at += 1
            length += load32(self.queue.descriptor(at) + DESCRIPTOR_LENGTH)
        return length

    cdef Py_ssize_t take_until(self, uint32_t produced, XskReader into, int64_t found_ns) noexcept nogil:
        cdef const uint8_t *descriptor
        cdef uint64_t address
        cdef uint32_t length
        cdef Py_ssize_t taken = 0
        # More than the ring holds cannot be there.
        if produced - self.queue.consumed > self.queue.receive.size:
            produced = self.queue.consumed + self.queue.receive.size
        while self.queue.consumed != produced:
            descriptor = self.queue.descriptor(self.queue.consumed)
            address = load64(descriptor)
            length = load32(descriptor + DESCRIPTOR_LENGTH)
            if not self.queue.within(address, length):
                into.malformed += 1
            # The header of a probe, and whatever of its payload lies in the frame's first chunk.
            elif into.record_frame(&self.queue.umem[0] + address, length, self.more(produced), 0, found_ns) and into.answers:
                if load32(descriptor + DESCRIPTOR_OPTIONS) & XDP_PKT_CONTD or into.answered >= into.most_answers:
                    into.unanswered += 1
                else:
                    into.fill_in(&self.queue.umem[0] + address + PAYLOAD_AT, found_ns)
                    turn_round(&self.queue.umem[0] + address)
                    self.queue.consumed += 1
                    self.queue.publish()
                    self.transmit.push(address, length)
                    into.answered += 1
                    taken += 1
                    continue
            self.queue.release(self.queue.consumed + 1)
            self.queue.publish()
            taken += 1
        return taken
