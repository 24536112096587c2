"""Run capture files through every analysis: fuzz/captures.py DIRECTORY...

Whatever a file is, it is to be analysed or refused in a sentence; `fuzz/sanitized.sh` makes anything else a report.
Prints how many files and analyses that were, and leaves an account for `fuzz/accounts.py`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from accounts import CAPTURES, circumstances, write
from support.command_line import invoke

from uspcap.analysis import registry

ORDINARY = (
    "--only",
    ",".join(name for name in registry.names(live=False) if name not in ("arbitration", "tick_to_trade", "trailer")),
)
RULES = ("--request", "udp; key=payload[0:2]", "--response", "udp; key=payload[0:2]")
TRIGGER = ("--only", "tick_to_trade", "--trigger", "udp", "--response", "tcp")
PAIR = ("--only", "arbitration", "--protocol", "moldudp64", "--pair", "A=233.252.0.1:26400,B=233.252.0.2:26401")
CALLS = (
    (*ORDINARY, "--protocol", "moldudp64", "--protocol", "ouch-5.0", *RULES, "--tunnels", "--framing"),
    (*ORDINARY, "--protocol", "rtp", "--protocol", "fix", "--max-flows", "1", "--format", "json"),
    ("--only", "sequence", "--protocol", "tcp"),
    TRIGGER,
    PAIR,
)
TRAILERS = ("metamako", "exablaze", "arista", "vss", "expcap")
"""One of them a file, in turn."""

NOT_CAPTURES = frozenset({".json", ".md", ".toml", ".txt"})


def main() -> int:
    """Return 1 where a run ended as none may."""
    paths = [path for given in sys.argv[1:] for path in sorted(Path(given).rglob("*")) if path.is_file()]
    paths = [path for path in paths if path.suffix not in NOT_CAPTURES]
    about = circumstances("fuzz/captures.py shared/captures shared/cases")
    began, cpu_began = time.monotonic(), time.process_time()
    wrong = 0
    for at, path in enumerate(paths):
        for call in (*CALLS, ("--timestamps", f"trailer:{TRAILERS[at % len(TRAILERS)]}")):
            ended = invoke("analyze", path, *call)
            refused = ended.code == 2 and "does not compile for link type" in ended.stderr
            if (ended.code not in (0, 1) and not refused) or "Traceback" in ended.stderr:
                print(f"{path} {' '.join(call)}: exit code {ended.code}\n{ended.stderr}")
                wrong += 1
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    took = f"{seconds:.0f} s, {cpu_seconds:.0f} s of CPU"
    runs = len(CALLS) + 1
    print(f"{len(paths)} capture files, {runs} runs each, in {took}: {wrong or 'none'} ended as none may")
    figures = {"files": len(paths), "runs": runs, "wrong": wrong, "seconds": seconds, "cpu_seconds": cpu_seconds}
    # A report would have ended this process.
    write(CAPTURES, {**about, **figures, "sanitized": "ASAN_OPTIONS" in os.environ})
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
