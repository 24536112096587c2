"""The BPF ring buffer with timestamps of other traffic, read run by run.

Two positions in bytes run freely: the kernel's, where the next record will be, and ours, up to where records were
taken. All records are of one size here, each behind a header of eight bytes, and the memory is mapped two times in a
row, so that what is there is one array.

References
----------
Documentation/bpf/ringbuf.rst; kernel/bpf/ringbuf.c (layout of the mapping, BPF_RINGBUF_BUSY_BIT).
"""

from __future__ import annotations

import mmap
import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.bpf.path_program import TIMESTAMP
from uspcap.bpf.ring_buffer import RingBuffer

RING_BYTES: Final = 64 << 20
"""Room for two million frames a run."""

TIMESTAMP_DTYPE: Final = np.dtype(
    [("digest", np.uint64), ("hook_ns", np.int64), ("path", np.uint32), ("zero", np.uint32)]
)

_RECORD_DTYPE: Final = np.dtype([("length", np.uint32), ("page", np.uint32), ("timestamp", TIMESTAMP_DTYPE)])
_POSITION: Final = struct.Struct("=Q")


class TimestampRing:
    """The ring buffer, mapped.

    Parameters
    ----------
    name : str
        Of the map.
    size : int
        Bytes, a power of two and a multiple of a page.

    Raises
    ------
    BpfError, PermissionDenied, MissingFeature
        The kernel refused the map.
    CaptureError
        It cannot be mapped.
    """

    def __init__(self, name: str, size: int = RING_BYTES) -> None:
        self._size = size
        self._ring = RingBuffer(name, size)

    @property
    def fd(self) -> int:
        return self._ring.fd

    def take(self) -> NDArray[np.void]:
        """Return what has come since the last call: an array of `TIMESTAMP_DTYPE`; while nothing is being written."""
        (begin,) = _POSITION.unpack_from(self._ring.ours)
        (end,) = _POSITION.unpack_from(self._ring.kernels)
        records = np.frombuffer(
            self._ring.kernels,
            _RECORD_DTYPE,
            count=(end - begin) // _RECORD_DTYPE.itemsize,
            offset=mmap.PAGESIZE + begin % self._size,
        )
        # A record that is being written has a bit set in its length, and so has what comes after it to wait.
        written = records["length"] == TIMESTAMP.size
        whole = len(records) if written.all() else int(np.argmin(written))
        timestamps = records["timestamp"][:whole].copy()
        _POSITION.pack_into(self._ring.ours, 0, begin + whole * _RECORD_DTYPE.itemsize)
        return timestamps

    def close(self) -> None:
        """Unmap and give it back; may be called again."""
        self._ring.close()
