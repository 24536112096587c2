"""FIX tag=value messages: where they end, and the fields that matter to orders and to the numbers of a session.

    8=FIX.4.4<SOH>9=BODYLENGTH<SOH>35=...body...10=CHECKSUM<SOH>      SOH is 0x01

A. BodyLength counts from after its SOH to before `10=`; the checksum is the sum of all bytes before `10=`, modulo 256,
   in three digits (FIX TagValue encoding 1.1). A message is taken where `10=ddd<SOH>` stands where the length says.
B. A data field may hold SOH: its length is in the field before it (95 for 96, and so on), and so many bytes are passed.
C. Of a field that occurs more than once, the first occurrence counts.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp, memset

cdef enum:
    SOH = 1
    LONGEST_BODY = 1 << 17
    TRAILER = 7             # 10=ddd and SOH
    LENGTH_DIGITS = 6
    PREFIX = 5              # 8=FIX
    ZERO = 48               # the digit
    LONGEST_BEGIN = 16      # 8=FIXT.1.1 and SOH are 11


cdef inline int64_t number_of(const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Return a decimal number of at most 18 digits, -1 for anything else."""
    cdef int64_t value = 0
    cdef Py_ssize_t i
    if length < 1 or length > 18:
        return -1
    for i in range(length):
        if data[i] < b"0" or data[i] > b"9":
            return -1
        value = value * 10 + (data[i] - ZERO)
    return value


cdef Py_ssize_t fix_message(const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Return the size of the message that begins here, 0 where too little is there to tell, -1 where none does."""
    cdef const char *prefix = b"8=FIX"
    cdef Py_ssize_t at, digits, size
    cdef int64_t body
    if memcmp(data, prefix, length if length < PREFIX else PREFIX) != 0:
        return -1
    at = PREFIX
    while at < length and at < LONGEST_BEGIN and data[at] != SOH:
        at += 1
    if at >= length:
        return 0
    if data[at] != SOH:
        return -1
    at += 1
    if (at < length and data[at] != b"9") or (at + 1 < length and data[at + 1] != b"="):
        return -1
    at += 2
    digits = 0
    while at + digits < length and digits <= LENGTH_DIGITS and data[at + digits] != SOH:
        digits += 1
    if at + digits >= length:
        return 0 if digits <= LENGTH_DIGITS else -1
    if data[at + digits] != SOH:
        return -1
    body = number_of(data + at, digits)
    if body < 0 or body > LONGEST_BODY:
        return -1
    size = at + digits + 1 + body + TRAILER
    if size <= length:
        if memcmp(data + size - TRAILER, <const char *> b"10=", 3) != 0 or data[size - 1] != SOH:
            return -1
        if number_of(data + size - 4, 3) < 0:
            return -1
    return size


cdef Py_ssize_t fix_boundary(const uint8_t *data, Py_ssize_t length) noexcept nogil:
    """Return the first offset at which a whole message begins, -1 where there is none."""
    cdef Py_ssize_t offset = 0, size
    cdef const uint8_t *found
    while offset + PREFIX <= length:
        found = <const uint8_t *> memchr(data + offset, b"8", length - offset)
        if found == NULL:
            return -1
        offset = found - data
        size = fix_message(found, length - offset)
        if size > 0 and offset + size <= length:
            return offset
        offset += 1
    return -1


cdef inline bint is_length(int64_t tag) noexcept nogil:
    """Tell whether a field gives the length of the data field after it (FIX 4.2 to 5.0 SP2)."""
    return (tag == 95 or tag == 90 or tag == 93 or tag == 212 or tag == 348 or tag == 350 or tag == 352 or tag == 354
            or tag == 356 or tag == 358 or tag == 360 or tag == 362 or tag == 364 or tag == 445 or tag == 618
            or tag == 621)


cdef inline void set_first(Text *text, const uint8_t *data, Py_ssize_t length) noexcept nogil:
    if text.length < 0:
        text.data = data
        text.length = length


cdef void fix_fields(const uint8_t *data, Py_ssize_t length, FixFields *fields) noexcept nogil:
    """Fill `fields` from a whole message."""
    cdef Py_ssize_t at = 0, end, equals, i
    cdef int64_t tag, passed = -1
    cdef uint32_t total = 0
    cdef const uint8_t *found
    cdef Py_ssize_t body_end = length - TRAILER
    memset(fields, 0, sizeof(FixFields))
    fields.begin_string.length = fields.message_type.length = fields.client_order_id.length = -1
    fields.execution_type.length = fields.order_status.length = fields.transaction_type.length = -1
    fields.possible_duplicate.length = fields.sender.length = fields.target.length = -1
    fields.gap_fill.length = fields.reset_numbers.length = -1
    fields.sequence = fields.rejected_sequence = fields.new_sequence = -1
    for i in range(body_end):
        total += data[i]
    fields.checksum_fits = (total & 0xFF) == number_of(data + length - 4, 3)
    while at < body_end:
        found = <const uint8_t *> memchr(data + at, b"=", body_end - at)
        if found == NULL:
            return
        equals = found - data
        tag = number_of(data + at, equals - at)
        end = equals + 1
        if passed >= 0 and end + passed < body_end and data[end + passed] == SOH:
            end += passed
        else:
            found = <const uint8_t *> memchr(data + end, SOH, body_end - end)
            if found == NULL:
                return
            end = found - data
        passed = -1
        equals += 1
        if tag == 8:
            set_first(&fields.begin_string, data + equals, end - equals)
        elif tag == 35:
            set_first(&fields.message_type, data + equals, end - equals)
        elif tag == 11:
            set_first(&fields.client_order_id, data + equals, end - equals)
        elif tag == 150:
            set_first(&fields.execution_type, data + equals, end - equals)
        elif tag == 39:
            set_first(&fields.order_status, data + equals, end - equals)
        elif tag == 20:
            set_first(&fields.transaction_type, data + equals, end - equals)
        elif tag == 43:
            set_first(&fields.possible_duplicate, data + equals, end - equals)
        elif tag == 49:
            set_first(&fields.sender, data + equals, end - equals)
        elif tag == 56:
            set_first(&fields.target, data + equals, end - equals)
        elif tag == 123:
            set_first(&fields.gap_fill, data + equals, end - equals)
        elif tag == 141:
            set_first(&fields.reset_numbers, data + equals, end - equals)
        elif tag == 36:
            if fields.new_sequence < 0:
                fields.new_sequence = number_of(data + equals, end - equals)
        elif tag == 34:
            if fields.sequence < 0:
                fields.sequence = number_of(data + equals, end - equals)
        elif tag == 45:
            if fields.rejected_sequence < 0:
                fields.rejected_sequence = number_of(data + equals, end - equals)
        elif is_length(tag):
            passed = number_of(data + equals, end - equals)
        at = end + 1


def message_size(const uint8_t[::1] data not None):
    """Return what `fix_message` says of these bytes."""
    return fix_message(&data[0], data.shape[0]) if data.shape[0] else 0


def boundary(const uint8_t[::1] data not None):
    """Return what `fix_boundary` says of these bytes."""
    return fix_boundary(&data[0], data.shape[0]) if data.shape[0] else -1


cdef object bytes_of(const Text *text):
    return text.data[:text.length] if text.length >= 0 else None


def fields_of(const uint8_t[::1] data not None):
    """Return what `fix_fields` finds in one whole message, as a dict; None where a field is missing."""
    cdef FixFields fields
    if data.shape[0] == 0 or fix_message(&data[0], data.shape[0]) != data.shape[0]:
        raise ValueError("these bytes are not one whole FIX message")
    fix_fields(&data[0], data.shape[0], &fields)
    return {
        "begin_string": bytes_of(&fields.begin_string),
        "message_type": bytes_of(&fields.message_type),
        "client_order_id": bytes_of(&fields.client_order_id),
        "execution_type": bytes_of(&fields.execution_type),
        "order_status": bytes_of(&fields.order_status),
        "transaction_type": bytes_of(&fields.transaction_type),
        "possible_duplicate": bytes_of(&fields.possible_duplicate),
        "sender": bytes_of(&fields.sender),
        "target": bytes_of(&fields.target),
        "gap_fill": bytes_of(&fields.gap_fill),
        "reset_numbers": bytes_of(&fields.reset_numbers),
        "new_sequence": fields.new_sequence if fields.new_sequence >= 0 else None,
        "sequence": fields.sequence if fields.sequence >= 0 else None,
        "rejected_sequence": fields.rejected_sequence if fields.rejected_sequence >= 0 else None,
        "checksum_fits": bool(fields.checksum_fits),
    }
