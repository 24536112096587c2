"""Options about how frames are captured, and the request that was made with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from uspcap.backends.base import DEFAULT_SNAPLEN
from uspcap.backends.declaration import AUTO, Request, backend_options, backends
from uspcap.commands.declared_options import click_option, give
from uspcap.commands.options import TIMESTAMPS_METAVAR, CountType, DurationType, TimestampsType
from uspcap.notices import say
from uspcap.timestamps import TIMESTAMPS

_Command = Callable[..., Any]

_OPTIONS: Final = (
    click.option("--backend", type=click.Choice((AUTO, *backends())), default=AUTO, show_default=True),
    click.option(
        "-s",
        "--snaplen",
        type=CountType(0, DEFAULT_SNAPLEN),
        metavar="BYTES",
        default=DEFAULT_SNAPLEN,
        show_default=True,
        help="Bytes to keep of each frame; 0: the default.",
    ),
    click.option(
        "-p",
        "--no-promiscuous",
        is_flag=True,
        help="Do not put the interface into promiscuous mode.",
    ),
    click.option(
        "-Q",
        "--direction",
        type=click.Choice(["in", "out", "inout"]),
        help="Frames received (in), sent (out), or both. Default: inout.",
    ),
    click.option("-B", "--buffer-size", type=CountType(1, 1 << 22), metavar="KIB", help="Total size of all rings."),
    click.option(
        "--timestamps",
        type=TimestampsType(),
        metavar=f"[{'|'.join(TIMESTAMPS)}|{TIMESTAMPS_METAVAR}]",
        default="auto",
        show_default=True,
        help="Timestamp source. auto: the best available. hardware: the NIC's, switched on for the capture. "
        "trailer[:FORMAT]: for analyses, the timestamps that a tap or switch put into the frames.",
    ),
    click.option(
        "--merge",
        type=DurationType(),
        metavar="WINDOW",
        help="Merge the frames of several rings by timestamp, within this window; 0s: do not. Default: 5ms, "
        "PACKET_MMAP 50ms.",
    ),
    click.option(
        "--latency-target",
        "latency",
        type=DurationType(),
        metavar="DURATION",
        help="How long a frame may wait in the ring before it is read; longer takes less CPU. Default: AF_XDP 1.6ms or "
        "what the ring holds, PACKET_MMAP 20ms.",
    ),
)
_PARAMETERS: Final = (
    "backend",
    "snaplen",
    "no_promiscuous",
    "direction",
    "buffer_size",
    "merge",
    "latency",
)


def request_options(command: _Command) -> _Command:
    """Give a command these options and those of backends.

    Its parameter `capture_request` is what was asked for, of no interface or file yet; `timestamps` is who timestamps,
    as a name or a TrailerChoice.
    """

    @wraps(command)
    def with_request(*arguments: Any, timestamps: Any, **given: Any) -> Any:
        own = {name: given.pop(name) for name in _PARAMETERS}
        declared = {option.parameter: given.pop(option.parameter) for option in backend_options()}
        by_source = timestamps if isinstance(timestamps, str) else "auto"
        request = _request(**own, timestamps=by_source, options=declared)
        return command(*arguments, capture_request=request, timestamps=timestamps, **given)

    return give((*_OPTIONS, *map(click_option, backend_options())))(with_request)


def _request(
    *,
    backend: str,
    snaplen: int,
    no_promiscuous: bool,
    direction: Any,
    buffer_size: int | None,
    merge: int | None,
    latency: int | None,
    timestamps: Any,
    options: dict[str, Any],
) -> Request:
    return Request(
        backend=backend,
        snaplen=snaplen or DEFAULT_SNAPLEN,
        promiscuous=not no_promiscuous,
        direction=direction,
        buffer_bytes=None if buffer_size is None else buffer_size << 10,
        timestamps=timestamps,
        announce=say,
        merge_window_ns=merge,
        latency_ns=latency,
        options=options,
    )
