"""What tables of TCP connections share: how a connection is named, and how it is found by its name.

A table is an array of structs that begin with a `Name`, and an index of slots beside it.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcmp, memcpy, memset

from uspcap._core.bytes cimport load64
from uspcap._core.columns cimport HeaderColumns
from uspcap._core.folding cimport fold

cdef enum:
    FEWEST = 16


cdef struct Key:
    uint8_t low[16]             # addresses as header columns have them
    uint8_t high[16]
    uint16_t low_port
    uint16_t high_port
    uint16_t ip_version
    uint16_t tap


cdef struct Name:
    Key key
    uint64_t hash


cdef struct Index:
    int32_t *slots              # double as many as the array has room for, -1 for none
    uint64_t mask


cdef inline uint8_t name_connection(Name *name, HeaderColumns headers, Py_ssize_t i) noexcept nogil:
    """Name the connection of a segment, whichever way it goes; return that: 0 from the lower end, 1 from the higher."""
    cdef const uint8_t *source = headers.source_address + 16 * i
    cdef const uint8_t *destination = headers.destination_address + 16 * i
    cdef uint16_t source_port = headers.source_port[i], destination_port = headers.destination_port[i]
    cdef int order = memcmp(source, destination, 16)
    cdef bint down = order > 0 or (order == 0 and source_port > destination_port)
    cdef Key *key = &name.key
    memcpy(key.low, destination if down else source, 16)
    memcpy(key.high, source if down else destination, 16)
    key.low_port = destination_port if down else source_port
    key.high_port = source_port if down else destination_port
    key.ip_version = headers.ip_version[i]
    key.tap = headers.tap[i]
    name.hash = fold(
        fold(load64(key.low) ^ <uint64_t> 0xA0761D6478BD642F, load64(key.low + 8) ^ <uint64_t> 0xE7037ED1A0B428DB),
        fold(load64(key.high) ^ <uint64_t> 0x8EBC6AF09C88C6E3, load64(key.high + 8) ^ <uint64_t> 0x589965CC75374CC3)
        ^ fold(<uint64_t> key.low_port << 32 | key.high_port, <uint64_t> 0x1D8E4E27C47D124F ^ key.ip_version ^ (<uint64_t> key.tap << 16)))
    return 1 if down else 0


cdef inline bint have_room(Index *index, void **connections, Py_ssize_t *capacity, Py_ssize_t count,
                           size_t size) noexcept nogil:
    """Make room for one more connection, each of so many bytes; return False where there is no memory."""
    cdef Py_ssize_t wanted = capacity[0] * 2 or FEWEST
    cdef void *grown
    if count < capacity[0]:
        return True
    grown = realloc(index.slots, 2 * wanted * sizeof(int32_t))
    if grown == NULL:
        return False
    index.slots = <int32_t *> grown
    index.mask = 2 * wanted - 1
    fill_index(index, connections[0], count, size)
    grown = realloc(connections[0], wanted * size)
    if grown == NULL:
        return False
    connections[0] = grown
    capacity[0] = wanted
    return True


cdef inline void fill_index(Index *index, const void *connections, Py_ssize_t count, size_t size) noexcept nogil:
    """Index all connections again."""
    cdef Py_ssize_t i
    cdef uint64_t slot
    memset(index.slots, 0xFF, (index.mask + 1) * sizeof(int32_t))
    for i in range(count):
        slot = (<const Name *> (<const uint8_t *> connections + i * size)).hash & index.mask
        while index.slots[slot] >= 0:
            slot = (slot + 1) & index.mask
        index.slots[slot] = <int32_t> i


cdef inline Py_ssize_t find_connection(const Index *index, const void *connections, size_t size,
                                       const Name *name) noexcept nogil:
    """Return a connection's number, -1 where there is none of this name."""
    cdef uint64_t slot = name.hash & index.mask
    cdef const Name *found
    while index.slots[slot] >= 0:
        found = <const Name *> (<const uint8_t *> connections + index.slots[slot] * size)
        if found.hash == name.hash and memcmp(&found.key, &name.key, sizeof(Key)) == 0:
            return index.slots[slot]
        slot = (slot + 1) & index.mask
    return -1


cdef inline Py_ssize_t enter_connection(Index *index, void **connections, Py_ssize_t *capacity, Py_ssize_t *count,
                                        size_t size, const Name *name, bint *is_new) noexcept nogil:
    """Return a connection's number, of a new one where there is none of this name; -1 where there is no memory.

    All of a new connection but its name is zero.
    """
    cdef Py_ssize_t number = find_connection(index, connections[0], size, name)
    cdef uint64_t slot
    cdef uint8_t *connection
    is_new[0] = number < 0
    if number >= 0:
        return number
    if not have_room(index, connections, capacity, count[0], size):
        return -1
    slot = name.hash & index.mask
    while index.slots[slot] >= 0:
        slot = (slot + 1) & index.mask
    number = count[0]
    count[0] += 1
    index.slots[slot] = <int32_t> number
    connection = <uint8_t *> connections[0] + number * size
    memset(connection, 0, size)
    (<Name *> connection)[0] = name[0]
    return number
