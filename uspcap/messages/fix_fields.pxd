"""C view of FIX tag=value messages."""

from libc.stdint cimport int64_t, uint8_t

cdef struct Text:
    const uint8_t *data
    Py_ssize_t length           # -1 where the field is missing

cdef struct FixFields:
    Text begin_string           # 8
    Text message_type           # 35
    Text client_order_id        # 11
    Text execution_type         # 150
    Text order_status           # 39
    Text transaction_type       # 20, FIX 4.2 only
    Text possible_duplicate     # 43
    Text sender                 # 49
    Text target                 # 56
    Text gap_fill               # 123
    Text reset_numbers          # 141
    int64_t new_sequence        # 36, -1 where it is missing
    int64_t sequence            # 34, -1 where it is missing
    int64_t rejected_sequence   # 45, -1 where it is missing
    bint checksum_fits

cdef Py_ssize_t fix_message(const uint8_t *data, Py_ssize_t length) noexcept nogil
cdef Py_ssize_t fix_boundary(const uint8_t *data, Py_ssize_t length) noexcept nogil
cdef void fix_fields(const uint8_t *data, Py_ssize_t length, FixFields *fields) noexcept nogil


cdef inline uint8_t only_char(const Text *text) noexcept nogil:
    """Return the character of a field that has one, 0 for any other."""
    return text.data[0] if text.length == 1 else 0
