"""What benchmarks of whole processes share: runs by turns, and medians of the ratios of pairs."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path


def uspcap_command() -> str:
    """Return the uspcap that is installed beside this Python, and say which and where that is."""
    command = shutil.which("uspcap", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if command is None:
        raise SystemExit("uspcap is not installed beside this Python")
    print(
        f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, "
        f"uspcap {version('uspcap')}, dpkt {version('dpkt')}"
    )
    return command


def timed(command: Sequence[str]) -> float:
    """Run a command to its end and return how many seconds it took."""
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def print_pairs(ours: Sequence[str], peers: Mapping[str, tuple[Sequence[str], int]]) -> None:
    """Run a command and its peers by turns, each so many rounds, and print a row of medians for each peer."""
    timed(ours)
    print("\n| peer | pairs | peer, s | uspcap, s | peer / uspcap |\n|---|---|---|---|---|")
    for name, (command, rounds) in peers.items():
        pairs = []
        for turn in range(rounds):
            if turn % 2:
                mine, theirs = timed(ours), timed(command)
            else:
                theirs, mine = timed(command), timed(ours)
            pairs.append((theirs, mine))
        ratio = statistics.median(theirs / mine for theirs, mine in pairs)
        theirs, mine = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(f"| {name} | {rounds} | {theirs:.3f} | {mine:.3f} | {ratio:.2f} |", flush=True)
