"""Test traffic: sending on time, reading answers, answering. What runs once a frame.

A. Open loop. A frame is due when the schedule says, whatever became of those before it; one that is late goes at
   once, and the next one is due when it always was. Lateness is counted, never hidden.
B. The sender's time line is CLOCK_MONOTONIC plus what CLOCK_REALTIME was ahead of it at the start: UTC that does not
   step during a run. A kernel timestamp is put on it by its age: now on the line, less (CLOCK_REALTIME now -
   timestamp).
C. Each loop runs without the GIL in a thread of its own until it is done or `stop` was called, which another thread
   does; flag and counters are single words that one side writes.
D. Everything in a frame came from outside: its length, magic, version, kind and session are looked at first, and
   times in it that make no sense (an answer before its question) are counted, not used.

    payload, network byte order
     0  magic "USPC"         4  version = 1     5  kind: 1 probe, 2 answer    6  header bytes = 64
     8  session             16  sequence, from 0
    24  intended send time  32  actual send time, just before the call
    40  answerer: kernel's receive timestamp, 0 without one
    48  answerer: when it had the frame         56  answerer: just before its call to send
    64  zeros up to the size asked for
    Times are ns since the epoch, UTC, of the clock of the host that wrote them.

Sources: linux/net_tstamp.h, Documentation/networking/timestamping.rst (SCM_TIMESTAMPING, ts[0] is the software
timestamp); clock_nanosleep(2); udp(7).
"""

from libc.errno cimport EAGAIN, ECONNREFUSED, EINTR, ENOBUFS, ENOMEM, EPERM, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

import numpy as np

from uspcap.probe.send_times cimport NEVER, SendTimes
from uspcap.stats.buckets cimport COUNTS_LENGTH, index_of

cdef extern from *:
    """
    #include <endian.h>
    #include <poll.h>
    #include <string.h>
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <time.h>
    #include <linux/errqueue.h>

    typedef int64_t (*uspcap_now)(void);
    typedef void (*uspcap_sleep)(int64_t);

    static int64_t uspcap_clock_ns(clockid_t which) {
        struct timespec now;
        clock_gettime(which, &now);
        return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
    }

    static int64_t uspcap_monotonic_ns(void) { return uspcap_clock_ns(CLOCK_MONOTONIC); }

    static int64_t uspcap_utc_ns(void) { return uspcap_clock_ns(CLOCK_REALTIME); }

    static void uspcap_sleep_until(int64_t monotonic_ns) {
        struct timespec until = {monotonic_ns / 1000000000, monotonic_ns % 1000000000};
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    }

    static void uspcap_relax(void) {
    #if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
    #elif defined(__aarch64__)
        __asm__ volatile("yield");
    #endif
    }

    /* One datagram with the kernel's software receive timestamp, 0 where it has none. */
    static ssize_t uspcap_receive(int fd, void *data, size_t room, int flags, struct sockaddr_storage *from,
                                  socklen_t *from_bytes, int64_t *timestamp_ns) {
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

    static ssize_t uspcap_send_to(int fd, const void *data, size_t length, const struct sockaddr_storage *to,
                                  socklen_t to_bytes) {
        return sendto(fd, data, length, MSG_DONTWAIT, (const struct sockaddr *) to, to_bytes);
    }

    static int uspcap_poll(int fd, int timeout_ms) {
        struct pollfd one = {fd, POLLIN, 0};
        return poll(&one, 1, timeout_ms);
    }

    static int uspcap_epoll(int epoll_fd, int timeout_ms) {
        struct epoll_event one;
        return epoll_wait(epoll_fd, &one, 1, timeout_ms);
    }
    """
    ctypedef int64_t (*Now "uspcap_now")() noexcept nogil
    ctypedef void (*Sleep "uspcap_sleep")(int64_t) noexcept nogil
    ctypedef struct sockaddr_storage "struct sockaddr_storage":
        pass
    ctypedef uint32_t socklen_t
    int64_t monotonic_ns "uspcap_monotonic_ns"() noexcept nogil
    int64_t utc_ns "uspcap_utc_ns"() noexcept nogil
    void sleep_until "uspcap_sleep_until"(int64_t) noexcept nogil
    void relax "uspcap_relax"() nogil
    Py_ssize_t receive "uspcap_receive"(int, void *, size_t, int, sockaddr_storage *, socklen_t *, int64_t *) nogil
    int poll_readable "uspcap_poll"(int, int) nogil
    int epoll_readable "uspcap_epoll"(int, int) nogil
    Py_ssize_t send_to "uspcap_send_to"(int, const void *, size_t, const sockaddr_storage *, socklen_t) nogil
    Py_ssize_t send_connected "send"(int, const void *, size_t, int) nogil
    int MSG_DONTWAIT
    uint16_t htobe16(uint16_t) nogil
    uint32_t htobe32(uint32_t) nogil
    uint64_t htobe64(uint64_t) nogil

cdef enum:
    MAGIC = 0x55535043
    VERSION = 1
    KIND_PROBE = 1
    KIND_ANSWER = 2
    AT_SESSION = 8
    AT_SEQUENCE = 16
    AT_INTENDED = 24
    AT_ACTUAL = 32
    AT_KERNEL = 40
    AT_READ = 48
    AT_ANSWERED = 56
    HEADER = 64
    LARGEST = 65536
    WINDOW_FRAMES = 1 << 20
    PATIENCE_MS = 50

cdef int64_t LONGEST_SLEEP_NS = 50_000_000

HEADER_BYTES = HEADER
LARGEST_BYTES = 65507  # of a UDP payload over IPv4
WINDOW = WINDOW_FRAMES
WAKEUPS = ("block", "poll", "epoll", "spin")

cdef enum:
    BLOCK = 0
    POLL = 1
    EPOLL = 2
    SPIN = 3


cdef inline int64_t added(int64_t total, int64_t more) noexcept nogil:
    """Return the sum of two numbers that are not negative, NEVER where that is too large."""
    return total + more if more <= <int64_t> NEVER - total else NEVER


cdef inline void put64(uint8_t *at, uint64_t value) noexcept nogil:
    value = htobe64(value)
    memcpy(at, &value, 8)


cdef inline uint64_t get64(const uint8_t *at) noexcept nogil:
    cdef uint64_t value
    memcpy(&value, at, 8)
    return htobe64(value)


cdef inline bint is_ours(const uint8_t *data, Py_ssize_t length, uint8_t kind) noexcept nogil:
    """Tell whether a payload is a probe or an answer of this version."""
    cdef uint32_t magic
    cdef uint16_t header
    if length < HEADER:
        return False
    memcpy(&magic, data, 4)
    memcpy(&header, data + 6, 2)
    return magic == htobe32(MAGIC) and data[4] == VERSION and data[5] == kind and header == htobe16(HEADER)


cdef class ProbeSender:
    """Sends probes when they are due.

    Parameters
    ----------
    fd : int
        A connected UDP socket.
    times : SendTimes
        Used up.
    session : int
        Below 2^64.
    size : int
        Of the payload: HEADER_BYTES … LARGEST_BYTES.
    start_ns : int
        CLOCK_MONOTONIC of the schedule's 0.
    utc_ahead_ns : int
        CLOCK_REALTIME less CLOCK_MONOTONIC, as on the wire.
    spin_ns : int
        How long before a frame is due sleeping ends and looking at the clock begins; 0 only sleeps.
    frames, duration_ns : int
        End after so many frames, and before the first that is due so long after the start or later.
    now, sleep : int
        Addresses of C functions in place of the kernel's clock: `int64_t now(void)`, and `void sleep(int64_t until)`.

    Attributes
    ----------
    scheduled, sent, unsent : int
        Frames that were due; those that the kernel took, and those that it did not (full queue, firewall).
    refused : int
        How often the other host said that nobody listens there.
    last_due_ns : int
        CLOCK_MONOTONIC when the last frame was due.
    error_number : int
        Of what ended sending early, 0 otherwise.
    lateness : ndarray of uint64, shape (BUCKETS,)
        Actual less intended send time of the frames sent, by bucket.
    latest_ns, lateness_sum_ns : int
        The largest, and all together; 2^63 - 1 stands for sums from there on.
    """

    cdef int fd
    cdef SendTimes times
    cdef Py_ssize_t size
    cdef int64_t start_ns, utc_ahead_ns, spin_ns, frames, duration_ns
    cdef Now now
    cdef Sleep sleep
    cdef uint8_t[::1] payload
    cdef uint64_t[::1] late
    cdef volatile int stopping
    cdef readonly int64_t scheduled, sent, unsent, refused, last_due_ns, latest_ns, lateness_sum_ns
    cdef readonly int error_number
    cdef readonly object lateness

    def __init__(self, int fd, SendTimes times not None, uint64_t session, Py_ssize_t size, *, int64_t start_ns,
                 int64_t utc_ahead_ns, int64_t spin_ns, int64_t frames=NEVER, int64_t duration_ns=NEVER,
                 uintptr_t now=0, uintptr_t sleep=0):
        if not HEADER <= size <= LARGEST_BYTES:
            raise ValueError(f"a payload of {size} bytes is not of {HEADER} to {LARGEST_BYTES}")
        if spin_ns < 0 or frames < 0 or duration_ns < 0:
            raise ValueError("times and numbers are 0 or more")
        self.fd = fd
        self.times = times
        self.size = size
        self.start_ns = start_ns
        self.utc_ahead_ns = utc_ahead_ns
        self.spin_ns = spin_ns
        self.frames = frames
        self.duration_ns = duration_ns
        self.now = <Now> now if now else monotonic_ns
        self.sleep = <Sleep> sleep if sleep else sleep_until
        self.payload = np.zeros(size, np.uint8)
        cdef uint8_t *data = &self.payload[0]
        cdef uint32_t magic = htobe32(MAGIC)
        cdef uint16_t header = htobe16(HEADER)
        memcpy(data, &magic, 4)
        data[4] = VERSION
        data[5] = KIND_PROBE
        memcpy(data + 6, &header, 2)
        put64(data + AT_SESSION, session)
        self.lateness = np.zeros(COUNTS_LENGTH, np.uint64)
        self.late = self.lateness
        self.last_due_ns = start_ns

    def stop(self):
        """Make `run` return within 50 ms; may be called by any thread."""
        self.stopping = 1

    def run(self):
        """Send until the schedule ends, a limit is reached, sending fails for good, or `stop` is called."""
        with nogil:
            self.loop()

    cdef void loop(self) noexcept nogil:
        cdef uint8_t *data = &self.payload[0]
        cdef int64_t due, actual, late
        while self.scheduled < self.frames:
            due = self.times.take_one()
            if due >= self.duration_ns or due > <int64_t> NEVER - self.start_ns:
                break
            due += self.start_ns
            actual = self.wait(due)
            if self.stopping:
                break
            put64(data + AT_SEQUENCE, self.scheduled)
            put64(data + AT_INTENDED, due + self.utc_ahead_ns)
            put64(data + AT_ACTUAL, actual + self.utc_ahead_ns)
            self.scheduled += 1
            self.last_due_ns = due
            if not self.send(data):
                if self.error_number:
                    break
                self.unsent += 1
                continue
            self.sent += 1
            late = actual - due if actual > due else 0
            self.late[index_of(late)] += 1
            self.lateness_sum_ns = added(self.lateness_sum_ns, late)
            if late > self.latest_ns:
                self.latest_ns = late

    cdef int64_t wait(self, int64_t due) noexcept nogil:
        """Sleep and spin until a frame is due or `stop` was called; return the time then."""
        cdef int64_t now = self.now()
        cdef int64_t until
        while now < due and not self.stopping:
            until = due - self.spin_ns
            if until > now:
                self.sleep(until if until - now < LONGEST_SLEEP_NS else now + LONGEST_SLEEP_NS)
            else:
                relax()
            now = self.now()
        return now

    cdef bint send(self, const uint8_t *data) noexcept nogil:
        """Send a frame; where it was not, `error_number` is set only if no other will be either."""
        cdef int tries
        cdef int why
        for tries in range(3):
            if send_connected(self.fd, data, self.size, MSG_DONTWAIT) >= 0:
                return True
            why = errno
            if why == ECONNREFUSED:
                # The answer to an earlier frame, reported once in place of sending this one.
                self.refused += 1
            elif why != EINTR:
                if why != EAGAIN and why != ENOBUFS and why != ENOMEM and why != EPERM:
                    self.error_number = why
                return False
        return False


cdef class _Socket:
    """A socket that is read as an application would: how it waits is `wakeup`.

    `block` sleeps in recvmsg and takes a socket with a receive time-out, so that it can be stopped; `poll` and `epoll`
    wait there and read until the socket is empty; `spin` never sleeps.
    """

    cdef int fd, wakeup
    cdef object epoll
    cdef int epoll_fd
    cdef bint readable
    cdef volatile int stopping
    cdef readonly int error_number
    cdef readonly int64_t refused, foreign
    cdef uint8_t[::1] buffer
    cdef sockaddr_storage source
    cdef socklen_t source_bytes

    cdef int open(self, int fd, str wakeup) except -1:
        if wakeup not in WAKEUPS:
            raise ValueError(f"{wakeup!r} is none of {', '.join(WAKEUPS)}")
        self.fd = fd
        self.wakeup = WAKEUPS.index(wakeup)
        self.buffer = np.zeros(LARGEST, np.uint8)
        self.epoll_fd = -1
        if self.wakeup == EPOLL:
            import select

            self.epoll = select.epoll()
            self.epoll.register(fd, select.EPOLLIN)
            self.epoll_fd = self.epoll.fileno()
        return 0

    def stop(self):
        """Make `run` return within 50 ms, or the socket's receive time-out; may be called by any thread."""
        self.stopping = 1

    cdef Py_ssize_t next(self, int64_t *timestamp_ns) noexcept nogil:
        """Return the length of the next datagram; -1 where there is none now, or `stopping` is set."""
        cdef Py_ssize_t length
        if self.wakeup == POLL and not self.readable:
            self.readable = poll_readable(self.fd, PATIENCE_MS) > 0
            if not self.readable:
                return -1
        elif self.wakeup == EPOLL and not self.readable:
            self.readable = epoll_readable(self.epoll_fd, PATIENCE_MS) > 0
            if not self.readable:
                return -1
        length = receive(self.fd, &self.buffer[0], LARGEST, 0 if self.wakeup == BLOCK else MSG_DONTWAIT, &self.source,
                         &self.source_bytes, timestamp_ns)
        if length >= 0:
            return length
        self.readable = False
        if errno == ECONNREFUSED:
            self.refused += 1
        elif errno == EAGAIN:
            if self.wakeup == SPIN:
                relax()
        elif errno != EINTR:
            self.error_number = errno
            self.stopping = 1
        return -1


cdef class ProbeReceiver(_Socket):
    """Reads the answers to one session.

    Parameters
    ----------
    fd : int
        The sender's socket.
    sender : ProbeSender
        An answer to a frame that it has not sent is malformed.
    session : int
    wakeup : str
        One of WAKEUPS.
    utc_ahead_ns : int
        As given to the sender.
    patience_ns : int
        An answer that comes this long after its frame was due, or later, is late.

    Attributes
    ----------
    answered : int
        Frames answered in time; the histograms count these, except where a time is missing or negative.
    late, duplicate, reordered, older : int
        Answers: in time no more; to a frame answered before; after the answer to a later frame (of those answered);
        so far behind the latest one (WINDOW frames) that a duplicate cannot be recognized.
    foreign, malformed, refused : int
        Datagrams that are no answers of this session; answers whose times make no sense; ICMP's words that nobody
        listens.
    without_timestamp : int
        Answers in time without the kernel's timestamp, or with one before their frame was sent.
    response, service, kernel, residence : ndarray of uint64, shape (BUCKETS,)
        By bucket: read here less due; read here less sent; the kernel's receive timestamp less sent; the answerer's
        send less its receive time.
    sums_ns, lowest_ns, highest_ns : ndarray of int64, shape (4,)
        Of these, exactly; -1 as the lowest of none, 2^63 - 1 for sums from there on.
    error_number : int
        Of what ended reading, 0 otherwise.
    """

    cdef ProbeSender sender
    cdef uint64_t session
    cdef int64_t utc_ahead_ns, patience_ns
    cdef int64_t highest
    cdef uint64_t[::1] seen
    cdef readonly int64_t answered, late, duplicate, reordered, older, malformed, without_timestamp
    cdef readonly object response, service, kernel, residence, sums_ns, lowest_ns, highest_ns
    cdef uint64_t *counts[4]
    cdef int64_t[::1] sums, lowests, highests

    def __init__(self, int fd, ProbeSender sender not None, uint64_t session, str wakeup, *, int64_t utc_ahead_ns,
                 int64_t patience_ns):
        self.open(fd, wakeup)
        self.sender = sender
        self.session = session
        self.utc_ahead_ns = utc_ahead_ns
        self.patience_ns = patience_ns
        self.highest = -1
        self.seen = np.zeros(WINDOW_FRAMES // 64, np.uint64)
        self.response, self.service, self.kernel, self.residence = (np.zeros(COUNTS_LENGTH, np.uint64) for _ in range(4))
        cdef uint64_t[::1] view
        cdef int at
        for at, counts in enumerate((self.response, self.service, self.kernel, self.residence)):
            view = counts
            self.counts[at] = &view[0]  # the attribute keeps it
        self.sums_ns = np.zeros(4, np.int64)
        self.lowest_ns = np.full(4, -1, np.int64)
        self.highest_ns = np.zeros(4, np.int64)
        self.sums, self.lowests, self.highests = self.sums_ns, self.lowest_ns, self.highest_ns

    def run(self):
        """Read until `stop` is called or the socket fails."""
        cdef Py_ssize_t length
        cdef int64_t timestamp_ns = 0
        with nogil:
            while not self.stopping:
                length = self.next(&timestamp_ns)
                if length >= 0:
                    self.take(length, timestamp_ns)

    cdef void take(self, Py_ssize_t length, int64_t timestamp_ns) noexcept nogil:
        cdef int64_t read_ns = monotonic_ns()
        cdef int64_t age_ns = utc_ns() - timestamp_ns
        cdef const uint8_t *data = &self.buffer[0]
        cdef int64_t sequence, intended, actual, arrived, left
        read_ns += self.utc_ahead_ns
        if not is_ours(data, length, KIND_ANSWER) or get64(data + AT_SESSION) != self.session:
            self.foreign += 1
            return
        sequence = <int64_t> get64(data + AT_SEQUENCE)
        intended = <int64_t> get64(data + AT_INTENDED)
        actual = <int64_t> get64(data + AT_ACTUAL)
        if sequence < 0 or sequence >= self.sender.scheduled or actual < intended or read_ns < actual or intended < 0:
            self.malformed += 1
            return
        if not self.is_new(sequence):
            return
        if read_ns - intended >= self.patience_ns:
            self.late += 1
            return
        self.answered += 1
        self.record(0, read_ns - intended)
        self.record(1, read_ns - actual)
        if timestamp_ns and 0 <= age_ns <= read_ns - actual:
            self.record(2, read_ns - actual - age_ns)
        else:
            self.without_timestamp += 1
        arrived = <int64_t> get64(data + AT_KERNEL)
        if arrived == 0:
            arrived = <int64_t> get64(data + AT_READ)
        left = <int64_t> get64(data + AT_ANSWERED)
        if 0 < arrived <= left:
            self.record(3, left - arrived)

    cdef bint is_new(self, int64_t sequence) noexcept nogil:
        """Count an answer as duplicate, reordered or too old to say; tell whether it is the first to its frame."""
        cdef int64_t step
        cdef uint64_t bit
        cdef Py_ssize_t word
        if sequence > self.highest:
            step = sequence - self.highest
            if step >= WINDOW_FRAMES:
                memset(&self.seen[0], 0, WINDOW_FRAMES // 8)
            else:
                while self.highest < sequence:
                    self.highest += 1
                    self.seen[(self.highest & (WINDOW_FRAMES - 1)) >> 6] &= ~(<uint64_t> 1 << (self.highest & 63))
            self.highest = sequence
        elif self.highest - sequence >= WINDOW_FRAMES:
            self.older += 1
            return False
        word = (sequence & (WINDOW_FRAMES - 1)) >> 6
        bit = <uint64_t> 1 << (sequence & 63)
        if self.seen[word] & bit:
            self.duplicate += 1
            return False
        self.seen[word] |= bit
        if sequence < self.highest:
            self.reordered += 1
        return True

    def unanswered(self, int64_t first):
        """Return how many frames from number `first` on had no answer; of those sent, the last WINDOW at most.

        To be called once both loops have ended.
        """
        cdef int64_t sequence, count = 0
        cdef int64_t end = self.sender.scheduled
        if first < end - WINDOW_FRAMES:
            first = end - WINDOW_FRAMES
        if first < 0:
            first = 0
        with nogil:
            for sequence in range(first, end):
                if sequence > self.highest or not (
                    self.seen[(sequence & (WINDOW_FRAMES - 1)) >> 6] >> (sequence & 63) & 1
                ):
                    count += 1
        return count

    cdef void record(self, int which, int64_t value) noexcept nogil:
        self.counts[which][index_of(value)] += 1
        self.sums[which] = added(self.sums[which], value)
        if self.lowests[which] < 0 or value < self.lowests[which]:
            self.lowests[which] = value
        if value > self.highests[which]:
            self.highests[which] = value


cdef class ProbeReflector(_Socket):
    """Answers probes: the same bytes back to where they came from, with three times put in.

    An answer is never longer than its probe, and answers are not answered.

    Parameters
    ----------
    fd : int
        A bound UDP socket.
    wakeup : str
        One of WAKEUPS.
    frames : int
        End after so many answers.

    Attributes
    ----------
    answered, unanswered : int
        Probes; the latter where sending failed.
    foreign : int
        Datagrams that are no probes; left alone.
    without_timestamp : int
        Probes without the kernel's timestamp.
    error_number : int
        Of what ended reading, 0 otherwise.
    """

    cdef int64_t frames
    cdef readonly int64_t answered, unanswered, without_timestamp

    def __init__(self, int fd, str wakeup, *, int64_t frames=NEVER):
        self.open(fd, wakeup)
        self.frames = frames

    def run(self):
        """Answer until `stop` is called, enough was answered or the socket fails."""
        cdef Py_ssize_t length
        cdef int64_t timestamp_ns = 0, read_ns
        cdef uint8_t *data = &self.buffer[0]
        with nogil:
            while not self.stopping and self.answered < self.frames:
                length = self.next(&timestamp_ns)
                if length < 0:
                    continue
                read_ns = utc_ns()
                if not is_ours(data, length, KIND_PROBE):
                    self.foreign += 1
                    continue
                if timestamp_ns == 0:
                    self.without_timestamp += 1
                data[5] = KIND_ANSWER
                put64(data + AT_KERNEL, timestamp_ns)
                put64(data + AT_READ, read_ns)
                put64(data + AT_ANSWERED, utc_ns())
                if send_to(self.fd, data, length, &self.source, self.source_bytes) == length:
                    self.answered += 1
                else:
                    self.unanswered += 1
