"""Records that compiled loops and NumPy share.

A. A layout is declared once, as a C struct. Its dtype is taken from it, through an array over one record:

       cdef Track track
       TRACK_DTYPE = dtype_of(<Track[:1]> &track)

   So the names, types and offsets of both are the same, padding included.
B. Python allocates arrays of the dtype, and loops take them as `Track[::1]`: Cython compares the layout of an array with
   the struct at each call, in about a microsecond. No loop casts bytes to records.
C. Two things Cython cannot say of an array of structs in a struct. The dtype needs its length, as `arrays`. And
   such a struct makes no memoryview: its records leave by `copied`.
D. Cython leaves what an array needs out of the C of a module that has no memoryview, where the code of memoryviews is in
   a module that all share. Such a module declares one.
"""

from cython.view cimport array
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

import numpy as np


cdef object dtype_of(object record, tuple arrays=()):
    """Return the dtype of a struct.

    Parameters
    ----------
    record : cython.array
        Over one such struct, whose bytes are not looked at.
    arrays : tuple of tuple
        Name and length of each field that is an array of structs.
    """
    view = memoryview(record)
    described = view.format
    for name, length in arrays:
        described = _with_length(described, name, length)
    whole = array(shape=(1,), itemsize=view.itemsize, format=described.encode(), mode="c")
    return np.asarray(whole).dtype


cdef str _with_length(str described, str name, Py_ssize_t length):
    """Put the length of an array of structs before it, into a format as PEP 3118 has it: `T{...}:name:`."""
    cdef Py_ssize_t start = described.index(f"}}:{name}:"), depth = 1
    while depth:
        start -= 1
        depth += (described[start] == "}") - (described[start] == "{")
    return f"{described[:start - 1]}({length}){described[start - 1:]}"


cdef object copied(const void *records, Py_ssize_t count, object dtype):
    """Return a copy of records as an ndarray of their dtype, shape (count,)."""
    copy = np.empty(count, dtype)
    cdef uint8_t[::1] raw
    if count:
        raw = copy.view(np.uint8)
        memcpy(&raw[0], records, raw.shape[0])
    return copy
