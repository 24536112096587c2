"""Replay: capture files as if they came live."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from uspcap.backends.declaration import Backend, Request
from uspcap.declared_options import Kind, Option
from uspcap.quantities import number

if TYPE_CHECKING:
    from uspcap.backends.base import LiveSource


def _open(request: Request) -> LiveSource:
    from uspcap.backends.replay.source import ReplaySource

    return ReplaySource(request.files, request.expression, **BACKEND.values(request))


BACKEND = Backend(
    name="replay",
    summary="replays capture files (`-r`), at their own pace or another",
    reads="files",
    place=30,
    automatic=lambda given: True,
    options=(
        Option(
            flag="--speed",
            argument="speed",
            kind=Kind.OTHER,
            read=partial(number, least=0),
            default=1.0,
            metavar="FACTOR",
            help="Speed of a replay; 0: as fast as possible. Default: 1.",
        ),
        Option(
            flag="--loops",
            argument="loops",
            kind=Kind.COUNT,
            default=1,
            help="Replay N times; 0: until Ctrl-C. Default: 1.",
        ),
    ),
    open=_open,
)
