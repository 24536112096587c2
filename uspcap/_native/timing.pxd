"""What the loops over timestamps share."""

from libc.stdint cimport int64_t

# Stamp sources from here on stamp nothing.
cdef enum:
    NO_STAMP = 6
    # Set where a timestamp is not to be trusted: such a source stamps nothing either.
    UNTRUSTED = 0x80

# Mirrors SILENCE_DTYPE of silences.pyx.
cdef struct Silence:
    int64_t flow
    int64_t gap_ns
    int64_t start_ns
    int64_t before_frame
    int64_t after_frame
