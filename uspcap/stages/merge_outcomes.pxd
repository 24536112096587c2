"""What `fill` of a merger returns beside the number of the chain or input that must be fed."""

cdef enum:
    AT_END = -1
    NO_ROOM = -2    # the batch's bytes do not hold even one frame
    NO_ROW = -3     # the batch is full
