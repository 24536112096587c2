"""C view of SoupBinTCP framing."""

from libc.stdint cimport uint8_t

cdef enum:
    SOUP_HEADER = 3     # u16 length, which excludes itself and includes the type; type

cdef Py_ssize_t soup_packet(const uint8_t *data, Py_ssize_t length) noexcept nogil
cdef Py_ssize_t soup_boundary(const uint8_t *data, Py_ssize_t length) noexcept nogil
