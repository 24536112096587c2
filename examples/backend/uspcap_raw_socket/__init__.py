"""A plain packet socket as a backend: one system call a frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uspcap.backends.declaration import Backend, Request
from uspcap.declared_options import Kind, Option

if TYPE_CHECKING:
    from uspcap.backends.base import LiveSource


def _open(request: Request) -> LiveSource:
    from uspcap_raw_socket.source import RawSocketSource

    return RawSocketSource(request.interface, request.expression, request.snaplen, **BACKEND.values(request))


BACKEND = Backend(
    name="raw_socket",
    summary="one system call a frame, on a plain packet socket",
    reads="interfaces",
    options=(
        Option(
            flag="--receive-buffer",
            argument="buffer_bytes",
            kind=Kind.COUNT,
            bounds=(4096, 1 << 30),
            help="Bytes that may wait in the socket.",
        ),
    ),
    open=_open,
)
