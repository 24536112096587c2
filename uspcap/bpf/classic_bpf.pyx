"""Classic BPF over whole batches: one program, a few thousand frames, no GIL.

A. Semantics are those of libpcap's `pcap_offline_filter` (bpf_filter.c): A, X and the scratch words
   start at 0; a load that passes the captured bytes rejects the frame; indirect offsets do not wrap;
   division and modulo by zero reject; shifts of 32 or more give 0; the length is that on the wire.
   The kernel's own offsets (linux/filter.h, SKF_AD_OFF and below) lie past every frame: they reject.
B. A program is decoded once into dense operations, so that the loop's switch is one jump table. A
   load by absolute or indirect offset followed by a comparison with a constant, which is most of what
   libpcap emits, becomes one operation; the comparison also stays in its own place for those that
   jump to it. Jumps hold pointers: adding offsets instead doubles the time of `udp port 5000`.
C. `uspcap.bpf.classic.validate` has seen every program before it comes here and says what is wrong
   with it in full. The decoder refuses again, briefly, whatever could make the loop leave its arrays.
D. A program of several terms (`uspcap.bpf.terms`) says before each of them which bytes it is about:
   CODE_VIEW, an opcode of ours. The views of a frame are made of its header columns, those that no
   bytes of the frame are (extension headers left out) when they are first asked for.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

from uspcap._core.bytes cimport be16, be32
from uspcap._core.columns cimport FrameColumns, HeaderColumns

cdef enum:
    SCRATCH_WORDS = 16

# Opcodes: linux/bpf_common.h and linux/filter.h.
cdef enum:
    CODE_LD = 0x00
    CODE_LDX = 0x01
    CODE_ST = 0x02
    CODE_STX = 0x03
    CODE_ALU = 0x04
    CODE_JMP = 0x05
    CODE_RET = 0x06
    CODE_MISC = 0x07
    CODE_W = 0x00
    CODE_H = 0x08
    CODE_B = 0x10
    CODE_IMM = 0x00
    CODE_ABS = 0x20
    CODE_IND = 0x40
    CODE_MEM = 0x60
    CODE_LEN = 0x80
    CODE_MSH = 0xA0
    CODE_K = 0x00
    CODE_X = 0x08
    CODE_A = 0x10
    CODE_TAX = 0x00
    CODE_TXA = 0x80
    CODE_JA = 0x00
    CODE_VIEW = 0x100

cdef enum Operation:
    RETURN_CONSTANT = 1
    RETURN_A
    LOAD_WORD
    LOAD_HALF
    LOAD_BYTE
    LOAD_WORD_INDIRECT
    LOAD_HALF_INDIRECT
    LOAD_BYTE_INDIRECT
    LOAD_HEADER_LENGTH
    LOAD_LENGTH
    LOAD_CONSTANT
    LOAD_SCRATCH
    LOAD_X_LENGTH
    LOAD_X_CONSTANT
    LOAD_X_SCRATCH
    STORE_A
    STORE_X
    JUMP
    JUMP_EQUAL
    JUMP_GREATER
    JUMP_GREATER_OR_EQUAL
    JUMP_SET
    JUMP_EQUAL_X
    JUMP_GREATER_X
    JUMP_GREATER_OR_EQUAL_X
    JUMP_SET_X
    ADD
    SUBTRACT
    MULTIPLY
    DIVIDE
    MODULO
    AND
    OR
    EXCLUSIVE_OR
    SHIFT_LEFT
    SHIFT_RIGHT
    ADD_X
    SUBTRACT_X
    MULTIPLY_X
    DIVIDE_X
    MODULO_X
    AND_X
    OR_X
    EXCLUSIVE_OR_X
    SHIFT_LEFT_X
    SHIFT_RIGHT_X
    NEGATE
    COPY_A_TO_X
    COPY_X_TO_A
    LOAD_WORD_JUMP_EQUAL
    LOAD_HALF_JUMP_EQUAL
    LOAD_BYTE_JUMP_EQUAL
    LOAD_HALF_JUMP_SET
    LOAD_BYTE_JUMP_SET
    LOAD_HALF_INDIRECT_JUMP_EQUAL
    SELECT_VIEW

# Which bytes a term is about.
cdef enum:
    OUTER_VIEW = 0 # the frame
    INNER_VIEW = 1 # the innermost packet, from its IP header on where it has one
    STRIPPED_VIEW = 2 # the same without the headers between its IP header and its transport header
    AS_IPV4_VIEW = 3 # its transport header behind an IPv4 header of 20 bytes

VIEW = CODE_VIEW
VIEWS = {"outer": OUTER_VIEW, "inner": INNER_VIEW, "stripped": STRIPPED_VIEW, "as_ipv4": AS_IPV4_VIEW}

cdef struct PreparedInstruction:
    PreparedInstruction *jump_true
    PreparedInstruction *jump_false
    uint32_t operation
    uint32_t k
    uint32_t comparand

# Opcode to operation.
OPERATIONS = {
    CODE_RET | CODE_K: RETURN_CONSTANT,
    CODE_RET | CODE_A: RETURN_A,
    CODE_LD | CODE_W | CODE_ABS: LOAD_WORD,
    CODE_LD | CODE_H | CODE_ABS: LOAD_HALF,
    CODE_LD | CODE_B | CODE_ABS: LOAD_BYTE,
    CODE_LD | CODE_W | CODE_IND: LOAD_WORD_INDIRECT,
    CODE_LD | CODE_H | CODE_IND: LOAD_HALF_INDIRECT,
    CODE_LD | CODE_B | CODE_IND: LOAD_BYTE_INDIRECT,
    CODE_LDX | CODE_B | CODE_MSH: LOAD_HEADER_LENGTH,
    CODE_LD | CODE_W | CODE_LEN: LOAD_LENGTH,
    CODE_LD | CODE_W | CODE_IMM: LOAD_CONSTANT,
    CODE_LD | CODE_W | CODE_MEM: LOAD_SCRATCH,
    CODE_LDX | CODE_W | CODE_LEN: LOAD_X_LENGTH,
    CODE_LDX | CODE_W | CODE_IMM: LOAD_X_CONSTANT,
    CODE_LDX | CODE_W | CODE_MEM: LOAD_X_SCRATCH,
    CODE_ST: STORE_A,
    CODE_STX: STORE_X,
    CODE_JMP | CODE_JA: JUMP,
    CODE_JMP | 0x10 | CODE_K: JUMP_EQUAL,
    CODE_JMP | 0x20 | CODE_K: JUMP_GREATER,
    CODE_JMP | 0x30 | CODE_K: JUMP_GREATER_OR_EQUAL,
    CODE_JMP | 0x40 | CODE_K: JUMP_SET,
    CODE_JMP | 0x10 | CODE_X: JUMP_EQUAL_X,
    CODE_JMP | 0x20 | CODE_X: JUMP_GREATER_X,
    CODE_JMP | 0x30 | CODE_X: JUMP_GREATER_OR_EQUAL_X,
    CODE_JMP | 0x40 | CODE_X: JUMP_SET_X,
    CODE_ALU | 0x00 | CODE_K: ADD,
    CODE_ALU | 0x10 | CODE_K: SUBTRACT,
    CODE_ALU | 0x20 | CODE_K: MULTIPLY,
    CODE_ALU | 0x30 | CODE_K: DIVIDE,
    CODE_ALU | 0x40 | CODE_K: OR,
    CODE_ALU | 0x50 | CODE_K: AND,
    CODE_ALU | 0x60 | CODE_K: SHIFT_LEFT,
    CODE_ALU | 0x70 | CODE_K: SHIFT_RIGHT,
    CODE_ALU | 0x80: NEGATE,
    CODE_ALU | 0x90 | CODE_K: MODULO,
    CODE_ALU | 0xA0 | CODE_K: EXCLUSIVE_OR,
    CODE_ALU | 0x00 | CODE_X: ADD_X,
    CODE_ALU | 0x10 | CODE_X: SUBTRACT_X,
    CODE_ALU | 0x20 | CODE_X: MULTIPLY_X,
    CODE_ALU | 0x30 | CODE_X: DIVIDE_X,
    CODE_ALU | 0x40 | CODE_X: OR_X,
    CODE_ALU | 0x50 | CODE_X: AND_X,
    CODE_ALU | 0x60 | CODE_X: SHIFT_LEFT_X,
    CODE_ALU | 0x70 | CODE_X: SHIFT_RIGHT_X,
    CODE_ALU | 0x90 | CODE_X: MODULO_X,
    CODE_ALU | 0xA0 | CODE_X: EXCLUSIVE_OR_X,
    CODE_MISC | CODE_TAX: COPY_A_TO_X,
    CODE_MISC | CODE_TXA: COPY_X_TO_A,
    CODE_VIEW: SELECT_VIEW,
}

# A load and the comparison behind it, to the operation that does both.
FUSED = {
    (LOAD_WORD, JUMP_EQUAL): LOAD_WORD_JUMP_EQUAL,
    (LOAD_HALF, JUMP_EQUAL): LOAD_HALF_JUMP_EQUAL,
    (LOAD_BYTE, JUMP_EQUAL): LOAD_BYTE_JUMP_EQUAL,
    (LOAD_HALF, JUMP_SET): LOAD_HALF_JUMP_SET,
    (LOAD_BYTE, JUMP_SET): LOAD_BYTE_JUMP_SET,
    (LOAD_HALF_INDIRECT, JUMP_EQUAL): LOAD_HALF_INDIRECT_JUMP_EQUAL,
}


cdef class ClassicProgram:
    """A classic BPF program, decoded for `run`.

    Parameters
    ----------
    instructions : ndarray of the dtype `uspcap.bpf.classic.INSTRUCTION_DTYPE`, shape (n,), or list of tuple
        What `uspcap.bpf.classic.validate` has accepted, or what is made of several such programs.

    Raises
    ------
    ValueError
        The program could leave its arrays; `validate` says more.
    """

    cdef PreparedInstruction *prepared
    cdef readonly Py_ssize_t length
    cdef bint uses_scratch

    def __cinit__(self, instructions):
        cdef Py_ssize_t i
        cdef uint32_t operation = 0
        self.length = len(instructions)
        if self.length == 0:
            raise ValueError("an empty program")
        self.prepared = <PreparedInstruction *> calloc(self.length, sizeof(PreparedInstruction))
        if self.prepared == NULL:
            raise MemoryError
        rows = instructions if isinstance(instructions, list) else instructions.tolist()
        for i, (code, jump_true, jump_false, k) in enumerate(rows):
            if code not in OPERATIONS:
                raise ValueError(f"instruction {i}: unknown opcode {code:#x}")
            operation = OPERATIONS[code]
            if operation in (LOAD_SCRATCH, LOAD_X_SCRATCH, STORE_A, STORE_X):
                self.uses_scratch = True
                if k >= SCRATCH_WORDS:
                    raise ValueError(f"instruction {i}: no scratch word {k}")
            if operation == JUMP:
                jump_true = k
            if JUMP <= operation <= JUMP_SET_X or operation == SELECT_VIEW:
                if i + 1 + max(jump_true, jump_false) >= self.length:
                    raise ValueError(f"instruction {i}: jumps past the end")
                self.prepared[i].jump_true = &self.prepared[i + 1 + <Py_ssize_t> jump_true]
                self.prepared[i].jump_false = &self.prepared[i + 1 + <Py_ssize_t> jump_false]
            self.prepared[i].operation = operation
            self.prepared[i].k = k
        if operation not in (RETURN_CONSTANT, RETURN_A):
            raise ValueError("the last instruction is no return")
        for i in range(self.length - 1):
            fused = FUSED.get((self.prepared[i].operation, self.prepared[i + 1].operation))
            if fused is not None:
                self.prepared[i].operation = fused
                self.prepared[i].jump_true = self.prepared[i + 1].jump_true
                self.prepared[i].jump_false = self.prepared[i + 1].jump_false
                self.prepared[i].comparand = self.prepared[i + 1].k

    def __dealloc__(self):
        free(self.prepared)

    def __len__(self):
        return self.length


# What a frame's views are made of.
cdef struct Views:
    const uint8_t *frame
    uint64_t captured
    const uint8_t *inner
    uint64_t inner_length
    uint8_t ip_version
    uint8_t protocol
    uint32_t fragment_offset
    int64_t transport # from the innermost packet's first byte, -1 where there is none
    uint8_t *room
    uint64_t room_size
    int in_room # the view that `room` holds, 0 for none
    uint64_t length_in_room
    bint out_of_memory

cdef enum:
    LONGEST_HEADER = 48


cdef bint is_hidden(const Views *views) noexcept nogil:
    """Tell whether headers lie between the innermost IP header and what `protocol` says."""
    if views.ip_version == 4:
        return views.transport >= 0 and views.inner[9] != views.protocol
    if views.ip_version != 6:
        return False
    if views.transport >= 0:
        return views.transport != 40
    # libpcap looks into a fragment header that comes first.
    return views.fragment_offset != 0 and views.inner[6] != 44


cdef bint fill_room(Views *views, int view) noexcept nogil:
    """Make a view that is not in the frame; False where this frame has none of its kind."""
    cdef uint64_t header = 20, rest = 0
    cdef uint8_t *larger
    if views.in_room == view:
        return True
    if view == STRIPPED_VIEW and not is_hidden(views):
        return False
    if view == AS_IPV4_VIEW and (views.transport < 0 or (views.ip_version != 6 and not is_hidden(views))):
        return False
    if views.transport >= 0 and <uint64_t> views.transport < views.inner_length:
        rest = views.inner_length - <uint64_t> views.transport
    if views.room_size < LONGEST_HEADER + rest:
        larger = <uint8_t *> realloc(views.room, LONGEST_HEADER + rest)
        if larger == NULL:
            views.out_of_memory = True
            return False
        views.room = larger
        views.room_size = LONGEST_HEADER + rest
    memset(views.room, 0, LONGEST_HEADER)
    if view == STRIPPED_VIEW and views.ip_version == 6:
        header = 40
        memcpy(views.room, views.inner, 40)
        views.room[6] = views.protocol
        if views.transport < 0:
            header = 48
            views.room[6] = 44
            views.room[40] = views.protocol
            views.room[42] = <uint8_t> (views.fragment_offset >> 8)
            views.room[43] = <uint8_t> (views.fragment_offset & 0xF8)
    else:
        if views.ip_version == 4:
            memcpy(views.room, views.inner, 20)
        views.room[0] = 0x45
        views.room[9] = views.protocol
    if rest:
        memcpy(views.room + header, views.inner + views.transport, rest)
    views.in_room = view
    views.length_in_room = header + rest
    return True


cdef bint select_view(Views *views, uint32_t view, const uint8_t **bytes, uint64_t *length) noexcept nogil:
    """Let `bytes` and `length` be those of a view; False where this frame has none of its kind."""
    if views == NULL:
        return False
    if view == OUTER_VIEW:
        bytes[0] = views.frame
        length[0] = views.captured
        return True
    if view == INNER_VIEW:
        bytes[0] = views.inner
        length[0] = views.inner_length
        return True
    if not fill_room(views, <int> view):
        return False
    bytes[0] = views.room
    length[0] = views.length_in_room
    return True


cdef uint32_t verdict(const PreparedInstruction *instruction, bint uses_scratch, const uint8_t *frame,
                      uint64_t captured_length, uint32_t wire_length, Views *views) noexcept nogil:
    """Return what the program returns for one frame; 0 rejects it.

    Offsets are added in 64 bits, so that none wraps before it is compared with captured_length.
    """
    cdef uint32_t a = 0
    cdef uint32_t x = 0
    cdef uint32_t[SCRATCH_WORDS] scratch
    cdef uint32_t k
    cdef uint64_t where
    cdef uint32_t operation
    if uses_scratch:
        memset(scratch, 0, sizeof(scratch))
    while True:
        operation = instruction.operation
        k = instruction.k
        if operation == LOAD_HALF_JUMP_EQUAL:
            if <uint64_t> k + 2 > captured_length:
                return 0
            a = be16(frame + k)
            if a == instruction.comparand:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == LOAD_BYTE_JUMP_EQUAL:
            if k >= captured_length:
                return 0
            a = frame[k]
            if a == instruction.comparand:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == LOAD_WORD_JUMP_EQUAL:
            if <uint64_t> k + 4 > captured_length:
                return 0
            a = be32(frame + k)
            if a == instruction.comparand:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == LOAD_HALF_JUMP_SET:
            if <uint64_t> k + 2 > captured_length:
                return 0
            a = be16(frame + k)
            if a & instruction.comparand:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == LOAD_BYTE_JUMP_SET:
            if k >= captured_length:
                return 0
            a = frame[k]
            if a & instruction.comparand:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == LOAD_HALF_INDIRECT_JUMP_EQUAL:
            where = <uint64_t> x + k
            if where + 2 > captured_length:
                return 0
            a = be16(frame + where)
            if a == instruction.comparand:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == RETURN_CONSTANT:
            return k
        elif operation == RETURN_A:
            return a
        elif operation == LOAD_WORD:
            if <uint64_t> k + 4 > captured_length:
                return 0
            a = be32(frame + k)
            instruction += 1
        elif operation == LOAD_HALF:
            if <uint64_t> k + 2 > captured_length:
                return 0
            a = be16(frame + k)
            instruction += 1
        elif operation == LOAD_BYTE:
            if k >= captured_length:
                return 0
            a = frame[k]
            instruction += 1
        elif operation == LOAD_WORD_INDIRECT:
            where = <uint64_t> x + k
            if where + 4 > captured_length:
                return 0
            a = be32(frame + where)
            instruction += 1
        elif operation == LOAD_HALF_INDIRECT:
            where = <uint64_t> x + k
            if where + 2 > captured_length:
                return 0
            a = be16(frame + where)
            instruction += 1
        elif operation == LOAD_BYTE_INDIRECT:
            where = <uint64_t> x + k
            if where >= captured_length:
                return 0
            a = frame[where]
            instruction += 1
        elif operation == LOAD_HEADER_LENGTH:
            if k >= captured_length:
                return 0
            x = (<uint32_t> frame[k] & 0xF) << 2
            instruction += 1
        elif operation == LOAD_LENGTH:
            a = wire_length
            instruction += 1
        elif operation == LOAD_CONSTANT:
            a = k
            instruction += 1
        elif operation == LOAD_SCRATCH:
            a = scratch[k]
            instruction += 1
        elif operation == LOAD_X_LENGTH:
            x = wire_length
            instruction += 1
        elif operation == LOAD_X_CONSTANT:
            x = k
            instruction += 1
        elif operation == LOAD_X_SCRATCH:
            x = scratch[k]
            instruction += 1
        elif operation == STORE_A:
            scratch[k] = a
            instruction += 1
        elif operation == STORE_X:
            scratch[k] = x
            instruction += 1
        elif operation == JUMP:
            instruction = instruction.jump_true
        elif operation == JUMP_EQUAL:
            if a == k:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == JUMP_GREATER:
            if a > k:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == JUMP_GREATER_OR_EQUAL:
            if a >= k:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == JUMP_SET:
            if a & k:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == JUMP_EQUAL_X:
            if a == x:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == JUMP_GREATER_X:
            if a > x:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == JUMP_GREATER_OR_EQUAL_X:
            if a >= x:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == JUMP_SET_X:
            if a & x:
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        elif operation == ADD:
            a += k
            instruction += 1
        elif operation == SUBTRACT:
            a -= k
            instruction += 1
        elif operation == MULTIPLY:
            a *= k
            instruction += 1
        elif operation == DIVIDE:
            if k == 0:
                return 0
            a //= k
            instruction += 1
        elif operation == MODULO:
            if k == 0:
                return 0
            a %= k
            instruction += 1
        elif operation == AND:
            a &= k
            instruction += 1
        elif operation == OR:
            a |= k
            instruction += 1
        elif operation == EXCLUSIVE_OR:
            a ^= k
            instruction += 1
        elif operation == SHIFT_LEFT:
            a = a << k if k < 32 else 0
            instruction += 1
        elif operation == SHIFT_RIGHT:
            a = a >> k if k < 32 else 0
            instruction += 1
        elif operation == ADD_X:
            a += x
            instruction += 1
        elif operation == SUBTRACT_X:
            a -= x
            instruction += 1
        elif operation == MULTIPLY_X:
            a *= x
            instruction += 1
        elif operation == DIVIDE_X:
            if x == 0:
                return 0
            a //= x
            instruction += 1
        elif operation == MODULO_X:
            if x == 0:
                return 0
            a %= x
            instruction += 1
        elif operation == AND_X:
            a &= x
            instruction += 1
        elif operation == OR_X:
            a |= x
            instruction += 1
        elif operation == EXCLUSIVE_OR_X:
            a ^= x
            instruction += 1
        elif operation == SHIFT_LEFT_X:
            a = a << x if x < 32 else 0
            instruction += 1
        elif operation == SHIFT_RIGHT_X:
            a = a >> x if x < 32 else 0
            instruction += 1
        elif operation == NEGATE:
            a = 0 - a
            instruction += 1
        elif operation == COPY_A_TO_X:
            x = a
            instruction += 1
        elif operation == COPY_X_TO_A:
            a = x
            instruction += 1
        elif operation == SELECT_VIEW:
            a = x = 0
            if select_view(views, k, &frame, &captured_length):
                instruction = instruction.jump_true
            else:
                instruction = instruction.jump_false
        else:
            return 0


def run(ClassicProgram program not None, FrameColumns frames not None, uint8_t[::1] mask not None,
        int32_t link_type):
    """Set `mask` for each frame of one link type that the program accepts.

    Parameters
    ----------
    program : ClassicProgram
    frames : FrameColumns
        Read only.
    mask : ndarray of uint8, shape (at least frames.count,)
        OUT: 1 for each row whose interface has `link_type` and whose program returns other than 0.
        All other rows stay as they are.
    link_type : int
        LINKTYPE_ value of the tcpdump.org registry.

    Returns
    -------
    int
        How many rows were set.

    Raises
    ------
    ValueError
        The mask is too short, or a row of `frames` lies outside its data or names no interface.
    """
    cdef Py_ssize_t i, accepted = 0, broken = -1
    cdef Py_ssize_t count = frames.count
    cdef int64_t offset
    cdef uint32_t captured_length
    if mask.shape[0] < count:
        raise ValueError(f"mask has {mask.shape[0]} rows, the batch {count}")
    with nogil:
        for i in range(count):
            offset = frames.offset[i]
            captured_length = frames.captured_length[i]
            if (offset < 0 or offset > frames.data_length - captured_length
                    or frames.interface[i] >= frames.interface_count):
                broken = i
                break
            if frames.link_types[frames.interface[i]] != link_type:
                continue
            if verdict(program.prepared, program.uses_scratch, frames.data + offset, captured_length,
                       frames.wire_length[i], NULL):
                mask[i] = 1
                accepted += 1
    if broken >= 0:
        frames.check_bounds()
        raise ValueError(f"row {broken} lies outside the batch")
    return accepted


cdef enum:
    # Bits of the `layers` column (`uspcap.protocols.headers.Layer`).
    IN_TAGS = 1 << 0 | 1 << 1
    IN_LABELS_OR_SESSION = 1 << 2 | 1 << 5
    IN_TUNNEL = 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 15 | 1 << 16


cdef inline bint is_plain(const uint8_t *frame, uint64_t captured, bint ipv6_too) noexcept nogil:
    """Tell whether nothing carries an Ethernet frame's packet, nor stands between its headers.

    Where that takes more than a look the answer is no.
    """
    cdef uint32_t kind, port, other
    if captured < 14:
        return True
    kind = be16(frame + 12)
    if kind == 0x0800:
        if captured < 38:
            return captured < 34
        if frame[14] >> 4 != 4 or frame[14] & 0x0F < 5 or frame[23] == 4 or frame[23] == 41 or frame[23] == 47:
            return False
        if frame[23] != 17 or frame[14] != 0x45:
            return frame[23] == 6 or frame[23] == 1 or frame[23] == 2
        port = be16(frame + 36)
        other = be16(frame + 34)
    elif kind == 0x86DD:
        if not ipv6_too or captured < 58 or frame[14] >> 4 != 6:
            return False
        if frame[20] != 17:
            return frame[20] == 6 or frame[20] == 58
        port = be16(frame + 56)
        other = be16(frame + 54)
    else:
        return kind == 0x0806 or kind == 0x88F7 or kind == 0x88CC
    return not (port == 4789 or port == 4790 or port == 6081 or port == 2152 or other == 2152)


def run_on_plain(ClassicProgram program not None, FrameColumns frames not None, uint8_t[::1] mask not None,
                 uint8_t[::1] left not None, int32_t link_type, bint ipv6_too):
    """Run a program on the frames of one link type in which nothing carries anything, and mark the others.

    Parameters
    ----------
    program : ClassicProgram
        For this link type.
    frames : FrameColumns
        Read only.
    mask : ndarray of uint8, shape (at least frames.count,)
        OUT: 1 for each row that the program accepts; all other rows stay as they are.
    left : ndarray of uint8, shape (at least frames.count,)
        OUT: 1 for each row of this link type that is to be looked at by `run_inside`.
    link_type : int
        LINKTYPE_ value of the tcpdump.org registry.
    ipv6_too : bool
        Whether the program means the same to IPv6 as to IPv4.

    Returns
    -------
    tuple of int
        How many rows were set in `mask`, and in `left`.

    Raises
    ------
    ValueError
        As `run` does.
    """
    cdef Py_ssize_t i, accepted = 0, marked = 0, broken = -1
    cdef Py_ssize_t count = frames.count
    cdef int64_t offset
    cdef uint32_t captured
    if mask.shape[0] < count or left.shape[0] < count:
        raise ValueError(f"a mask has fewer rows than the batch, {count}")
    with nogil:
        for i in range(count):
            offset = frames.offset[i]
            captured = frames.captured_length[i]
            if (offset < 0 or offset > frames.data_length - captured
                    or frames.interface[i] >= frames.interface_count):
                broken = i
                break
            if frames.link_types[frames.interface[i]] != link_type:
                continue
            if link_type != 1 or not is_plain(frames.data + offset, captured, ipv6_too):
                left[i] = 1
                marked += 1
            elif verdict(program.prepared, program.uses_scratch, frames.data + offset, captured,
                         frames.wire_length[i], NULL):
                mask[i] = 1
                accepted += 1
    if broken >= 0:
        frames.check_bounds()
        raise ValueError(f"row {broken} lies outside the batch")
    return accepted, marked


cdef bint enter_packet(Views *views, HeaderColumns h, Py_ssize_t row) noexcept nogil:
    """Let the innermost view begin at the IP header; False where there is none."""
    if h.ip_version[row] == 0 or h.network_offset[row] < 0 or <uint64_t> h.network_offset[row] > views.captured:
        return False
    views.inner = views.frame + h.network_offset[row]
    views.inner_length = views.captured - h.network_offset[row]
    views.ip_version = h.ip_version[row]
    views.protocol = h.protocol[row]
    views.fragment_offset = h.fragment_offset[row]
    views.transport = -1
    # Decoding saw the whole IP header, of 20 or of 40 bytes.
    if h.transport_offset[row] >= h.network_offset[row]:
        views.transport = h.transport_offset[row] - h.network_offset[row]
    return True


cdef bint skip_tags(Views *views) noexcept nogil:
    """Let the innermost view be an Ethernet frame less its tags; the addresses in it are then any."""
    cdef uint64_t at = 12
    cdef uint32_t kind
    views.ip_version = 0
    views.transport = -1
    while at + 6 <= views.captured:
        kind = be16(views.frame + at)
        if kind != 0x8100 and kind != 0x88A8 and kind != 0x9100 and kind != 0x9200:
            break
        at += 4
    views.inner = views.frame + at - 12
    views.inner_length = views.captured - (at - 12)
    return True


cdef bint enter_frame(Views *views, HeaderColumns h, Py_ssize_t row, int32_t link_type) noexcept nogil:
    """Let the innermost view be an Ethernet frame without tags; False where that is not to be had.

    The addresses in it are any: terms about them are about the outer frame.
    """
    cdef uint64_t payload
    cdef uint32_t carried = h.layers[row] & (IN_LABELS_OR_SESSION | IN_TUNNEL)
    cdef uint8_t *larger
    views.ip_version = 0
    views.transport = -1
    if link_type == 1 and not carried:
        return views.captured >= 12 and skip_tags(views)
    if not carried and not h.layers[row] & IN_TAGS or h.payload_offset[row] < 0:
        return False
    payload = <uint64_t> h.payload_offset[row]
    if payload > views.captured:
        payload = views.captured
    if views.room_size < 14 + views.captured - payload:
        larger = <uint8_t *> realloc(views.room, 14 + views.captured - payload)
        if larger == NULL:
            views.out_of_memory = True
            return False
        views.room = larger
        views.room_size = 14 + views.captured - payload
    memset(views.room, 0, 12)
    # A length field, which is none of the columns, becomes a type that nothing has.
    views.room[12] = <uint8_t> (h.ethertype[row] >> 8) if h.ethertype[row] else 0xFF
    views.room[13] = <uint8_t> (h.ethertype[row] & 0xFF) if h.ethertype[row] else 0xFF
    memcpy(views.room + 14, views.frame + payload, views.captured - payload)
    views.inner = views.room
    views.inner_length = 14 + views.captured - payload
    return True


def run_inside(ClassicProgram outer not None, ClassicProgram on_packets not None, ClassicProgram on_frames not None,
               FrameColumns frames not None, HeaderColumns headers not None, uint8_t[::1] mask not None,
               uint8_t[::1] wanted not None, int32_t link_type, bint only_tags=False):
    """Set `mask` for each frame whose innermost packet is accepted.

    Parameters
    ----------
    outer : ClassicProgram
        For frames of this link type, run where no innermost packet is known.
    on_packets : ClassicProgram
        With views, the innermost of which is compiled for raw IP.
    on_frames : ClassicProgram
        The same for Ethernet, for innermost frames without IP.
    frames, headers : IN
    mask : ndarray of uint8, shape (at least frames.count,)
        OUT: 1 for each row that is accepted; all other rows stay as they are.
    wanted : ndarray of uint8, shape (at least frames.count,)
        Rows to look at: not 0. Those of other link types are left alone.
    link_type : int
        LINKTYPE_ value of the tcpdump.org registry.
    only_tags : bool
        Look past the tags of Ethernet frames, and into nothing else.

    Returns
    -------
    int
        How many rows were set.
    """
    cdef Py_ssize_t i, accepted = 0
    cdef Py_ssize_t count = frames.count
    cdef Views views
    cdef PreparedInstruction *prepared
    cdef bint uses_scratch
    if mask.shape[0] < count or wanted.shape[0] < count:
        raise ValueError(f"a mask has fewer rows than the batch, {count}")
    if headers.count != count:
        raise ValueError("the headers are not those of this batch")
    frames.check_bounds()
    memset(&views, 0, sizeof(Views))
    with nogil:
        for i in range(count):
            if not wanted[i] or frames.link_types[frames.interface[i]] != link_type:
                continue
            views.frame = frames.data + frames.offset[i]
            views.captured = frames.captured_length[i]
            views.in_room = 0
            if only_tags:
                if link_type == 1 and views.captured >= 12 and skip_tags(&views):
                    prepared, uses_scratch = on_frames.prepared, on_frames.uses_scratch
                else:
                    prepared, uses_scratch = outer.prepared, outer.uses_scratch
            elif enter_packet(&views, headers, i):
                prepared, uses_scratch = on_packets.prepared, on_packets.uses_scratch
            elif enter_frame(&views, headers, i, link_type):
                prepared, uses_scratch = on_frames.prepared, on_frames.uses_scratch
            else:
                prepared, uses_scratch = outer.prepared, outer.uses_scratch
            if verdict(prepared, uses_scratch, views.frame, views.captured, frames.wire_length[i], &views):
                mask[i] = 1
                accepted += 1
            if views.out_of_memory:
                break
    free(views.room)
    if views.out_of_memory:
        raise MemoryError("there is no memory for a packet without its extension headers")
    return accepted
