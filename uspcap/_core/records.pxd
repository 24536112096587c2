"""Records that compiled loops and NumPy share: C structs, and the dtypes taken from them (records.pyx)."""

cdef object dtype_of(object record, tuple arrays=*)
cdef object copied(const void *records, Py_ssize_t count, object dtype)
