"""AF_XDP: matching frames past the kernel's stack, from the driver or from a hook behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from uspcap.backends.declaration import Backend, Request
from uspcap.declared_options import Kind, Option
from uspcap.errors import UsageError

if TYPE_CHECKING:
    from uspcap.backends.base import LiveSource

DEFAULT_BUSY_POLL_US: Final = 20
"""How long the kernel polls the driver in one call that may wait."""

MOST_BUSY_POLL_US: Final = 10_000


def _open(request: Request) -> LiveSource:
    if request.direction not in (None, "in"):
        raise UsageError("AF_XDP sees received frames only: leave -Q out, or use the packet_mmap backend")
    if request.latency_ns is not None and request.options.get("busy_poll") is not None:
        raise UsageError("with --busy-poll the reader never waits: leave --latency-target out")
    from uspcap.backends.af_xdp.source import AfXdpSource

    options = dict(BACKEND.values(request))
    return AfXdpSource(
        request.interface,
        request.expression,
        snaplen=request.snaplen,
        promiscuous=request.promiscuous,
        buffer_bytes=request.buffer_bytes,
        timestamps=request.timestamps,
        announce=request.announce,
        latency_ns=request.latency_ns,
        hand_over_ns=request.hand_over_ns,
        link_reset=not options.pop("no_link_reset"),
        **options,
    )


BACKEND = Backend(
    name="af_xdp",
    summary="takes matching frames away from the host, before the network stack",
    reads="interfaces",
    place=10,
    automatic=lambda given: bool(given.get("take_all")),
    options=(
        Option(
            flag="--take-all",
            argument="take_all",
            kind=Kind.SWITCH,
            default=False,
            help="Let AF_XDP take every frame away from the host, even on an interface in use.",
        ),
        Option(
            flag="--busy-poll",
            argument="busy_poll_us",
            kind=Kind.COUNT,
            bounds=(1, MOST_BUSY_POLL_US),
            bare_value=DEFAULT_BUSY_POLL_US,
            metavar="[USEC]",
            help="AF_XDP: busy-poll the driver's queues, never sleep; the kernel polls for up to USEC. Default: 20.",
        ),
        Option(
            flag="--xdp",
            argument="best",
            kind=Kind.CHOICE,
            choices=("zero-copy", "copy", "skb"),
            default="zero-copy",
            help="AF_XDP: best mode to try. copy: leave the NIC's buffers alone. skb: leave the driver alone. "
            "Default: zero-copy.",
        ),
        Option(
            flag="--no-link-reset",
            argument="no_link_reset",
            kind=Kind.SWITCH,
            default=False,
            help="AF_XDP: do not use native XDP if the driver may take the link down for it.",
        ),
    ),
    open=_open,
)
