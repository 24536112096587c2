"""`uspcap`, and `python -m uspcap`: signals first, so that one that comes while the rest is imported ends it well."""

from __future__ import annotations

import signal
from typing import NoReturn


def run() -> NoReturn:
    """Run the command line as a process of its own."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # Until anything of ours is there, the kernel ends the process, without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from uspcap.signals import end_at_once

    end_at_once()
    from uspcap import cli

    cli.run()


if __name__ == "__main__":
    run()
