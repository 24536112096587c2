"""`uspcap`, and `python -m uspcap`: signals first, so that one that comes while the rest is imported ends it well."""

from __future__ import annotations

from typing import NoReturn

from uspcap.signals import end_at_once


def run() -> NoReturn:
    """Run the command line as a process of its own."""
    end_at_once()
    from uspcap import cli

    cli.run()


if __name__ == "__main__":
    run()
