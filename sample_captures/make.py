"""Make the sample captures and `truth.json`: seeded, the same bytes every time.

    python sample_captures/make.py [--directory DIRECTORY]     captures and truth.json
    python sample_captures/make.py --reports                   <name>.report.json, which needs uspcap

Each scenario is a table of what happens, a function that plays it, and the truth about it: what was put in,
where (frames count from 1), and when. `README.md` describes them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

from scenarios.damage import damaged
from scenarios.feed import feed_two_lines
from scenarios.microburst import microburst
from scenarios.order_entry import order_session
from scenarios.requests import request_response
from scenarios.wire import Truth

HERE = Path(__file__).resolve().parent

SAMPLES: dict[str, Callable[[], tuple[bytes, Truth]]] = {
    "feed-two-lines.pcapng": feed_two_lines,
    "order-session.pcap": order_session,
    "request-response.pcapng": request_response,
    "microburst.pcap": microburst,
    "damaged.pcapng": damaged,
}


def write_samples(directory: Path) -> None:
    """Write every capture, and the truth about all of them."""
    truth: Truth = {}
    for name, make in SAMPLES.items():
        content, truth[name] = make()
        (directory / name).write_bytes(content)
    (directory / "truth.json").write_text(json.dumps(truth, indent=1) + "\n", encoding="ascii")


def write_reports() -> None:
    """Write beside each capture what `uspcap analyze sample_captures/<name> --format json` says of it."""
    from uspcap.analysis.suite import Settings, analyze_files
    from uspcap.report.document import build_report, source_of
    from uspcap.report.renderers.json import write_json

    with chdir(HERE.parent):
        for name in SAMPLES:
            outcome = analyze_files([f"{HERE.name}/{name}"], Settings(), jobs=1)
            report = build_report(source_of(outcome, ""), outcome.suite.analyses)
            with Path(HERE, f"{name}.report.json").open("w", encoding="ascii") as stream:
                write_json(report, stream)


def main() -> None:
    """Make what the command line asks for."""
    parser = argparse.ArgumentParser(description="Make the sample captures and truth.json.")
    parser.add_argument("--directory", type=Path, default=HERE, help="where to write; beside this file by default")
    parser.add_argument("--reports", action="store_true", help="write the expected reports instead, with uspcap")
    arguments = parser.parse_args()
    if arguments.reports:
        write_reports()
    else:
        write_samples(arguments.directory)


if __name__ == "__main__":
    main()
