"""C view of the messages of TCP connections."""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from uspcap.messages.connection_tables cimport Connection, ConnectionTables, Segment


cdef class MessageStreams(ConnectionTables):
    cdef bint finds_fix, finds_soup
    cdef void take(self, const Segment *segment) noexcept nogil
    cdef void begin(self, Py_ssize_t number) noexcept nogil
    cdef void finish_connection(self, Py_ssize_t number) noexcept nogil
    cdef void read(self, Py_ssize_t number, const Segment *segment) noexcept nogil
    cdef void acknowledge(self, Py_ssize_t number, int direction, uint32_t acknowledgment) noexcept nogil
    cdef void lose(self, Connection *connection, int direction) noexcept nogil
    cdef void skip(self, Connection *connection, int direction, Py_ssize_t length) noexcept nogil
    cdef void parse(self, Py_ssize_t number, int direction) noexcept nogil
    cdef uint8_t detect(self, const uint8_t *data, Py_ssize_t length) noexcept nogil
    cdef Py_ssize_t boundary(self, const Connection *connection, const uint8_t *data, Py_ssize_t length) noexcept nogil
    cdef void read_soup(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil
    cdef void read_fix(self, Py_ssize_t number, int direction, const uint8_t *data, Py_ssize_t size) noexcept nogil
    cdef void settle(self) noexcept nogil
    cdef int32_t adopt(self, const Connection *later, int64_t frame_shift, uint32_t *generation) noexcept nogil
    cdef void adopt_messages(self, MessageStreams later, const int32_t *numbers, const uint32_t *generations,
                             int64_t frame_shift) noexcept nogil
