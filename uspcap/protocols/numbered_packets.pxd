"""What a packet of a numbered stream is: its numbers, and its kind."""

from libc.stdint cimport uint64_t

# What a packet is, and so what a run is of.
cdef enum:
    DATA = 0
    HEARTBEAT = 1           # announces the next number
    END = 2                 # of the session; announces the next number
    RESET = 3               # the next number is as it says, whatever came before
    EXCLUDED = 4            # snapshot, retransmission, request: never touches live state
    FOREIGN = 5             # not of this protocol
    FILL = 6                # retransmitted: fills what is missing, and is nothing else
    HOLE = 7                # bytes of the TCP stream are missing here
    UNDECIDED = 8           # data, but for what an earlier part of the capture had already (line_pair.pyx)
    NOTHING = 255           # as the open run's kind: nothing goes on with it

cdef struct Packet:
    int kind
    uint64_t first
    uint64_t length         # numbers that it holds; of an announcement, what is added to `first`
    uint64_t messages
    uint64_t key[2]
