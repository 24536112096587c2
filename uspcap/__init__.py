"""uspcap: capture packets past the kernel, timestamp every frame, report latency, gaps and bursts.

`open`, `analyze` and `compare` work on capture files, `capture` on interfaces; `uspcap.api` explains what they return,
and is loaded when one of them is used.
"""

from typing import TYPE_CHECKING, Any

from uspcap.version import __version__

__all__ = ["Capture", "LiveCapture", "Report", "__version__", "analyze", "capture", "compare", "open"]

if TYPE_CHECKING:
    from uspcap.api import Capture, LiveCapture, Report, analyze, capture, compare, open


def __getattr__(name: str) -> Any:
    if name in __all__:
        from uspcap import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
