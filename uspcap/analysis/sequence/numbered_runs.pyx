"""Numbered streams as runs: what happens once a run, and when parts of a capture are put together (numbered_runs.pxd)."""

from libc.stdint cimport int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

from uspcap._core.records cimport copied, dtype_of
from uspcap._core.states cimport Packed, Unpacked, pack, unpack

KIND_DATA, KIND_HEARTBEAT, KIND_END, KIND_RESET, KIND_FILL, KIND_HOLE = DATA, HEARTBEAT, END, RESET, FILL, HOLE

KEPT_ENDS = ENDS
"""Packets of a run that are looked at one by one, where that is needed; of the first runs of a stream."""

cdef int64_t[::1] unused        # see D. of _core/records.pyx

cdef Run run_record
RUN_DTYPE = dtype_of(<Run[:1]> &run_record)
"""Packets of a stream that follow each other; of an announcement, `first` and `length` add up to the next number."""

cdef PacketEnd end_record
PACKET_END_DTYPE = dtype_of(<PacketEnd[:1]> &end_record)
"""Where a packet of a run ends, how many numbers from the run's first on, and its timestamp; the next one, or -1."""

cdef Stream stream_record
STREAM_DTYPE = dtype_of(<Stream[:1]> &stream_record)
"""One stream: its open run, counts (`messages` in two halves, low and high), and how its bounds stand."""


cdef int set_up_runs(RunTables *tables, object modulus, int64_t most_runs, int64_t most_runs_a_stream) except -1:
    """Make tables ready.

    Parameters
    ----------
    modulus : int
        A power of two, up to 2^64, after which numbers begin again; 0 where they do not.
    most_runs, most_runs_a_stream : int
        Bounds on what is kept: of all streams, and of one.
    """
    if most_runs < 1 or most_runs_a_stream < 1 or most_runs > <int64_t> 1 << 40:
        raise ValueError("at least one run of each stream is followed")
    memset(tables, 0, sizeof(RunTables))
    tables.wraps = bool(modulus)
    tables.mask = <uint64_t> (modulus - 1) if modulus else ~<uint64_t> 0
    tables.most_runs = min(most_runs, most_runs_a_stream)
    # One stream is always within the bound.
    tables.most_words = max(most_runs * (RUN_WORDS + END_WORDS), words_of(tables, tables.most_runs))
    return 0


cdef void free_runs(RunTables *tables) noexcept nogil:
    free(tables.runs)
    free(tables.ends)
    free(tables.streams)


cdef bint have_room(RunTables *tables, void **rows, Py_ssize_t *room, Py_ssize_t wanted, size_t size) noexcept nogil:
    """Make room for so many rows; return False where there is no memory."""
    cdef Py_ssize_t grown = room[0] or 8
    cdef void *moved
    if wanted <= room[0]:
        return True
    while grown < wanted:
        grown *= 2
    # Ends name each other by 32 bits, and so do runs their streams.
    moved = NULL if grown > <Py_ssize_t> 1 << 31 else realloc(rows[0], grown * size)
    if moved == NULL:
        tables.failed = True
        return False
    rows[0] = moved
    room[0] = grown
    return True


cdef Py_ssize_t add_stream(RunTables *tables) noexcept nogil:
    """Begin a stream; return its number, -1 where there is no memory."""
    cdef Stream *stream
    if not have_room(tables, <void **> &tables.streams, &tables.stream_room, tables.stream_count + 1, sizeof(Stream)):
        return -1
    stream = &tables.streams[tables.stream_count]
    memset(stream, 0, sizeof(Stream))
    stream.run = -1
    stream.open = NOTHING
    stream.acknowledged = -1
    tables.stream_count += 1
    return tables.stream_count - 1


cdef inline bint is_alone(const Run *run) noexcept nogil:
    """Tell whether a packet is a run of its own, for what it claims."""
    return run.packets <= 1 and run.length >= LONGEST


cdef void begin_run(RunTables *tables, int64_t number, const Run *run) noexcept nogil:
    """Begin another run of a stream, as given but for its stream and ends; or let it go, as the stream is full."""
    cdef Stream *stream = &tables.streams[number]
    cdef Run *begun
    if run.kind != UNDECIDED:
        if stream.full:
            return
        if stream.runs - stream.doubtful >= tables.most_runs + SPARE_RUNS:
            close_stream(stream)
            return
    if not have_room(tables, <void **> &tables.runs, &tables.run_room, tables.run_count + 1, sizeof(Run)):
        return
    if run.kind != UNDECIDED and (stream.run >= 0 or run.kind != HEARTBEAT):
        stream.doubtful += stream.runs > 0 and tables.runs[stream.run].kind == UNDECIDED
        stream.runs += 1
        if stream.charged < min(stream.runs - stream.doubtful, tables.most_runs):
            tables.words += RUN_WORDS + END_WORDS * ends_kept(stream.charged)
            stream.charged += 1
    begun = &tables.runs[tables.run_count]
    begun[0] = run[0]
    begun.stream = <int32_t> number
    begun.first_end = begun.last_end = -1
    stream.run = tables.run_count
    stream.open = NOTHING if is_alone(run) or run.kind == UNDECIDED or stream.full else run.kind
    go_on(tables, stream, run.first, run.length)
    tables.run_count += 1


cdef int64_t words_of(const RunTables *tables, int64_t runs) noexcept nogil:
    """Return what a stream of so many runs costs."""
    cdef int64_t run, words = runs * RUN_WORDS
    for run in range(min(runs, RUNS_WITH_ENDS)):
        words += END_WORDS * ends_kept(run)
    return words


cdef inline int64_t ends_of_open(const RunTables *tables, const Stream *stream) noexcept nogil:
    """Return of how many packets of a stream's open run it is kept where they end."""
    cdef int64_t at_least = stream.runs - stream.doubtful
    return ends_kept(at_least - 1) if at_least <= tables.most_runs else 0


cdef void put_end(RunTables *tables, Stream *stream, uint64_t after, int64_t at_ns) noexcept nogil:
    """Keep where a packet of the open run ends."""
    cdef Run *run
    cdef PacketEnd *end
    if not have_room(tables, <void **> &tables.ends, &tables.end_room, tables.end_count + 1, sizeof(PacketEnd)):
        return
    run = &tables.runs[stream.run]
    end = &tables.ends[tables.end_count]
    end.after, end.at_ns, end.next, end.unused = after, at_ns, -1, 0
    if run.first_end < 0:
        run.first_end = <int32_t> tables.end_count
    else:
        tables.ends[run.last_end].next = <int32_t> tables.end_count
    run.last_end = <int32_t> tables.end_count
    tables.end_count += 1


cdef void keep_end(RunTables *tables, Stream *stream) noexcept nogil:
    """Keep where the last packet of the open run ends, before another one goes on with it."""
    cdef Run *run = &tables.runs[stream.run]
    if run.packets <= ends_of_open(tables, stream):
        put_end(tables, stream, run.length, run.last_ns)


cdef void drop_ends(RunTables *tables) noexcept nogil:
    """Let go of the ends of no run."""
    cdef PacketEnd *kept
    cdef Py_ssize_t at, count = 0
    cdef Run *run
    cdef int32_t end
    if not tables.end_count:
        return
    kept = <PacketEnd *> malloc(tables.end_room * sizeof(PacketEnd))
    if kept == NULL:
        tables.failed = True
        return
    for at in range(tables.run_count):
        run = &tables.runs[at]
        end = run.first_end
        run.first_end = run.last_end = -1
        while end >= 0:
            kept[count] = tables.ends[end]
            kept[count].next = -1
            if run.first_end < 0:
                run.first_end = <int32_t> count
            else:
                kept[run.last_end].next = <int32_t> count
            run.last_end = <int32_t> count
            count += 1
            end = tables.ends[end].next
    free(tables.ends)
    tables.ends = kept
    tables.end_count = count


cdef void append_run(RunTables *tables, int64_t number, const RunTables *later, const Run *run,
                     int64_t frame_shift) noexcept nogil:
    """Append a run of a later part, whose frames are moved: it goes on with the open one, or is one of its own."""
    cdef Stream *stream = &tables.streams[number]
    cdef Run moved
    cdef Run *mine
    if stream.full:
        return
    if stream.run >= 0:
        mine = &tables.runs[stream.run]
        if says_nothing_new(tables, stream, run.kind, run.first, run.length):
            mine.seen_ns = run.seen_ns
            mine.seen_frame = run.seen_frame + frame_shift
            return
        if stream.open == run.kind and stream.next == run.first and (run.kind == DATA or run.kind == FILL) and (
                not is_alone(run)):
            if mine.packets <= ENDS:
                keep_end(tables, stream)
            join(tables, stream, later, run, 0, frame_shift)
            return
    moved = run[0]
    moved.first_frame += frame_shift
    moved.seen_frame += frame_shift
    begin_run(tables, number, &moved)
    if not stream.full and not tables.failed:
        append_ends(tables, stream, later, run.first_end, 0, 0)


cdef void append_rest(RunTables *tables, int64_t number, const RunTables *later, const Run *run,
                      int64_t frame_shift) noexcept nogil:
    """Append a run whose first packet is the rest of the last packet of the open run."""
    if tables.streams[number].open == DATA:
        join(tables, &tables.streams[number], later, run, 1, frame_shift)


cdef void join(RunTables *tables, Stream *stream, const RunTables *later, const Run *run, int64_t shared,
               int64_t frame_shift) noexcept nogil:
    """Let the open run go on with another, that shares so many packets with it."""
    cdef Run *mine = &tables.runs[stream.run]
    cdef int64_t position = mine.packets - shared
    cdef uint64_t numbers_before = mine.length
    mine.packets += run.packets - shared
    mine.length += run.length
    mine.last_ns, mine.seen_ns = run.last_ns, run.seen_ns
    mine.seen_frame = run.seen_frame + frame_shift
    go_on(tables, stream, run.first, run.length)
    append_ends(tables, stream, later, run.first_end, position, numbers_before)


cdef void append_ends(RunTables *tables, Stream *stream, const RunTables *later, int32_t end, int64_t position,
                      uint64_t numbers_before) noexcept nogil:
    """Append ends of packets of a later part to the open run, the first of them as its `position`th."""
    cdef int64_t kept = ends_of_open(tables, stream)
    while end >= 0 and position < kept:
        put_end(tables, stream, numbers_before + later.ends[end].after, later.ends[end].at_ns)
        end = later.ends[end].next
        position += 1


cdef void append_runs(RunTables *tables, const int64_t *numbers, const RunTables *later,
                      int64_t frame_shift) noexcept nogil:
    """Append all runs of a later part, of whose streams these are the numbers here, -1 for those not followed."""
    cdef Py_ssize_t at
    for at in range(later.run_count):
        if numbers[later.runs[at].stream] >= 0:
            append_run(tables, numbers[later.runs[at].stream], later, &later.runs[at], frame_shift)
    for at in range(later.stream_count):
        if numbers[at] >= 0 and later.streams[at].full:
            close_stream(&tables.streams[numbers[at]])


cdef void close_stream(Stream *stream) noexcept nogil:
    """Let no more runs follow."""
    stream.full = True
    stream.open = NOTHING


cdef void append_counts(RunTables *tables, int64_t number, const Stream *later) noexcept nogil:
    """Add what was counted of a stream in a later part."""
    cdef Stream *mine = &tables.streams[number]
    mine.packets += later.packets
    count_messages(mine, later.messages[0])
    mine.messages[1] += later.messages[1]
    mine.heartbeats += later.heartbeats
    mine.excluded += later.excluded
    if later.acknowledged != -1:
        mine.acknowledged = later.acknowledged


cdef void keep_streams(RunTables *tables, const int32_t *moved) noexcept nogil:
    """Give streams new numbers, rising, and let go of those whose number is -1."""
    cdef Py_ssize_t at, kept = 0
    cdef Stream *stream
    cdef Run *run
    tables.words = 0
    for at in range(tables.run_count):
        run = &tables.runs[at]
        if moved[run.stream] < 0:
            continue
        if tables.streams[run.stream].run == at:
            tables.streams[run.stream].run = kept
        run.stream = moved[run.stream]
        tables.runs[kept] = run[0]
        kept += 1
    tables.run_count = kept
    kept = 0
    for at in range(tables.stream_count):
        if moved[at] < 0:
            continue
        stream = &tables.streams[at]
        tables.words += words_of(tables, stream.charged)
        tables.streams[kept] = stream[0]
        kept += 1
    tables.stream_count = kept
    drop_ends(tables)




cdef tuple pack_runs(Packed *packed, const RunTables *tables):
    """Pack everything but the bounds; return the arguments of `unpack_runs`, the number of streams first."""
    pack(packed, tables.streams, tables.stream_count * sizeof(Stream))
    pack(packed, tables.runs, tables.run_count * sizeof(Run))
    pack(packed, tables.ends, tables.end_count * sizeof(PacketEnd))
    return tables.stream_count, tables.run_count, tables.end_count, tables.words


cdef int unpack_runs(Unpacked *unpacked, RunTables *tables, tuple counts) except -1:
    """Read what was packed into tables that are made ready."""
    cdef Py_ssize_t streams, runs, ends
    streams, runs, ends, tables.words = counts
    if not (have_room(tables, <void **> &tables.streams, &tables.stream_room, streams, sizeof(Stream))
            and have_room(tables, <void **> &tables.runs, &tables.run_room, runs, sizeof(Run))
            and have_room(tables, <void **> &tables.ends, &tables.end_room, ends, sizeof(PacketEnd))):
        raise MemoryError
    unpack(unpacked, tables.streams, streams * sizeof(Stream))
    unpack(unpacked, tables.runs, runs * sizeof(Run))
    unpack(unpacked, tables.ends, ends * sizeof(PacketEnd))
    tables.stream_count, tables.run_count, tables.end_count = streams, runs, ends
    return 0


cdef object runs_of(const RunTables *tables):
    """Return a copy of the runs: ndarray of RUN_DTYPE."""
    return copied(tables.runs, tables.run_count, RUN_DTYPE)


cdef object ends_of(const RunTables *tables):
    """Return a copy of the ends of packets: ndarray of PACKET_END_DTYPE."""
    return copied(tables.ends, tables.end_count, PACKET_END_DTYPE)


cdef object streams_of(const RunTables *tables):
    """Return a copy of the streams: ndarray of STREAM_DTYPE."""
    return copied(tables.streams, tables.stream_count, STREAM_DTYPE)
