"""From what a user asks for to the source that gives it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Final

from uspcap.backends.base import LiveSource
from uspcap.backends.declaration import AUTO, Backend, Request, backends
from uspcap.backends.rings import RingSource
from uspcap.errors import UsageError
from uspcap.frames import NANOSECONDS
from uspcap.network.links import named_link

LONGEST_LATENCY_NS: Final = 10 * NANOSECONDS
"""Of what a user may ask for."""


def open_source(request: Request) -> LiveSource:
    """Return the source that a request asks for.

    Raises
    ------
    UsageError
        The request contradicts itself.
    UspcapError
        The source cannot be had.
    """
    if request.interfaces and request.files:
        raise UsageError("frames come from an interface (-i) or from files (-r), not from both")
    if not request.interfaces and not request.files:
        raise UsageError("name the interface to capture on with -i, or a file to replay with -r")
    _check_waiting(request)
    backend = chosen_backend(request)
    _check_options(request, backend)
    if request.files:
        return backend.open(request)
    if len(request.interfaces) > 1:
        return _open_several(request, backend)
    source = backend.open(request)
    if not isinstance(source, RingSource):
        return source
    window_ns = source.lag_ns if request.merge_window_ns is None else request.merge_window_ns
    if source.most_rings == 1 or not window_ns:
        return source
    from uspcap.backends.merging import MergedSource

    return MergedSource(source, window_ns)


def chosen_backend(request: Request) -> Backend:
    """Return the backend that a request names, or the automatic one for what it reads.

    Raises
    ------
    UsageError
        There is none, or it does not read such a thing.
    """
    known = backends()
    reads = "files" if request.files else "interfaces"
    fitting = [backend for backend in known.values() if backend.reads == reads]
    if request.backend == AUTO:
        chosen = next((backend for backend in fitting if backend.automatic(request.options)), None)
        if chosen is None:
            raise UsageError(f"no backend is the default for {reads}: name one of {', '.join(known)} with --backend")
        return chosen
    named = known.get(request.backend)
    if named is None:
        raise UsageError(f"there is no backend {request.backend!r}; there are {', '.join(known)}")
    if named.reads == "files" and not request.files:
        raise UsageError("a replay needs a capture file: name it with -r")
    if named.reads != reads:
        raise UsageError(f"files (-r) are replayed, which the backend {named.name} cannot do")
    return named


def _check_waiting(request: Request) -> None:
    if request.files and request.timestamps != "auto":
        raise UsageError(
            f"frames of files keep the timestamps that they have: leave --timestamps {request.timestamps} out"
        )
    if request.latency_ns is None:
        return
    if request.files:
        raise UsageError("frames of files wait on no ring: leave --latency-target out")
    if request.latency_ns > LONGEST_LATENCY_NS:
        raise UsageError(f"--latency-target is {LONGEST_LATENCY_NS // NANOSECONDS} s at most")


def _check_options(request: Request, backend: Backend) -> None:
    """Refuse options of other backends than the one that is taken."""
    for other in backends().values():
        for option in other.options:
            if option not in backend.options and option.was_given(request.options):
                if other.reads == backend.reads:
                    instead = f"or use --backend {other.name}"
                else:
                    instead = "as frames of files come by replay" if request.files else "or replay a file with -r"
                raise UsageError(
                    f"{option.flag} is an option of {other.name}, and not of {backend.name}: leave it out, {instead}"
                )


def _open_several(request: Request, backend: Backend) -> LiveSource:
    """Return the source for a request that names several interfaces, which share the memory that is asked for."""
    from uspcap.backends.several import SeveralSources

    names = [named_link(name).name for name in request.interfaces]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise UsageError(f"{repeated} is given more than once with -i: give each interface once")
    if request.buffer_bytes is not None:
        request = replace(request, buffer_bytes=request.buffer_bytes // len(names))
    with ExitStack() as opened:
        sources: list[RingSource] = []
        for name in names:
            source = opened.enter_context(backend.open(replace(request, interfaces=(name,))))
            if not isinstance(source, RingSource):
                raise UsageError(f"the backend {backend.name} captures on one interface only: name one with -i")
            sources.append(source)
        window_ns = sources[0].lag_ns if request.merge_window_ns is None else request.merge_window_ns
        several = SeveralSources(sources, window_ns)
        opened.pop_all()
    return several
