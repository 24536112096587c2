"""A BPF ring buffer and its two mappings: our position, the kernel's and the data.

References
----------
Documentation/bpf/ringbuf.rst; kernel/bpf/ringbuf.c (layout of the mapping).
"""

from __future__ import annotations

import mmap

from uspcap.bpf.kernel_types import MapType
from uspcap.bpf.syscalls import Map
from uspcap.errors import CaptureError


class RingBuffer:
    """The ring buffer, mapped; its descriptor is readable while there is something in it.

    Parameters
    ----------
    name : str
        Of the map.
    size : int
        Bytes, a power of two and a multiple of a page.

    Attributes
    ----------
    ours : mmap
        Begins with the position up to which we have read, 64 bits.
    kernels : mmap
        Begins with the position up to which the kernel has written; the data follow on the second page, two times.

    Raises
    ------
    BpfError, PermissionDenied, MissingFeature
        The kernel refused the map.
    CaptureError
        It cannot be mapped.
    """

    def __init__(self, name: str, size: int) -> None:
        self._map = Map(MapType.BPF_MAP_TYPE_RINGBUF, name=name, max_entries=size, key_size=0, value_size=0)
        try:
            self.ours = mmap.mmap(self._map.fd, mmap.PAGESIZE)
            self.kernels = mmap.mmap(self._map.fd, mmap.PAGESIZE + 2 * size, offset=mmap.PAGESIZE, prot=mmap.PROT_READ)
        except OSError as error:
            self._map.close()
            raise CaptureError(f"cannot map the ring buffer {name} of a BPF program: {error.strerror}") from error

    @property
    def fd(self) -> int:
        return self._map.fd

    def close(self) -> None:
        """Unmap and give it back; may be called again."""
        self.ours.close()
        self.kernels.close()
        self._map.close()
