"""The state of compiled objects as bytes, so that it can be pickled: it goes to another process of the same program.

What is packed is read back in the same order. Structs go as they lie in memory; whoever has pointers in one packs what
they point to as well, and allocates it again.
"""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset


cdef struct Packed:
    uint8_t *data
    Py_ssize_t used
    Py_ssize_t allocated
    bint failed


cdef struct Unpacked:
    const uint8_t *data
    Py_ssize_t left
    bint failed


cdef inline Packed nothing_packed() noexcept nogil:
    cdef Packed packed
    memset(&packed, 0, sizeof(Packed))
    return packed


cdef inline void pack(Packed *packed, const void *data, Py_ssize_t size) noexcept nogil:
    """Append some memory; where there is no room for it, `failed` says so."""
    cdef Py_ssize_t allocated = packed.allocated
    cdef void *grown
    if packed.failed or size <= 0:
        return
    while allocated < packed.used + size:
        allocated = 2 * allocated or 1 << 12
    if allocated != packed.allocated:
        grown = realloc(packed.data, allocated)
        if grown == NULL:
            packed.failed = True
            return
        packed.data = <uint8_t *> grown
        packed.allocated = allocated
    memcpy(packed.data + packed.used, data, size)
    packed.used += size


cdef inline bytes finished(Packed *packed):
    """Return everything that was packed, and give its memory back."""
    cdef bint failed = packed.failed
    cdef bytes data = b""
    if packed.used and not failed:
        data = (<const char *> packed.data)[: packed.used]
    free(packed.data)
    packed[0] = nothing_packed()
    if failed:
        raise MemoryError
    return data


cdef inline Unpacked unpacking(bytes data):
    """Begin to read what was packed; `data` must outlive it."""
    cdef Unpacked unpacked
    unpacked.data = <const uint8_t *> <const char *> data
    unpacked.left = len(data)
    unpacked.failed = False
    return unpacked


cdef inline void unpack(Unpacked *unpacked, void *target, Py_ssize_t size) noexcept nogil:
    """Read so many bytes; where there are fewer, `failed` says so."""
    if size <= 0:
        return
    if unpacked.failed or size > unpacked.left:
        unpacked.failed = True
        return
    memcpy(target, unpacked.data, size)
    unpacked.data += size
    unpacked.left -= size


cdef inline void *unpacked_new(Unpacked *unpacked, Py_ssize_t size, Py_ssize_t room) noexcept nogil:
    """Read so many bytes into new memory of `room` bytes, which is never less; NULL where that fails."""
    cdef void *memory
    if unpacked.failed or size < 0 or size > unpacked.left:
        unpacked.failed = True
        return NULL
    memory = malloc(room if room > size else size or 1)
    if memory == NULL:
        unpacked.failed = True
        return NULL
    unpack(unpacked, memory, size)
    return memory


cdef inline int all_read(Unpacked *unpacked) except -1:
    """Raise ValueError where what was packed is not what was read."""
    if unpacked.failed or unpacked.left:
        raise ValueError("this is not the state of such an object")
    return 0
