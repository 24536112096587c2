"""Timestamp sources that give no timestamp, in the column `timestamp_source` of batches."""

cdef enum:
    # Sources from here on timestamp nothing.
    NO_TIMESTAMP = 6
    SOURCE_COUNT = 7
    # Set where a timestamp is not to be trusted: such a source timestamps nothing either.
    UNTRUSTED = 0x80
