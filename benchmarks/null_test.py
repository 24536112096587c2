"""Does the live comparison make up differences, and does it find one that is there?

Null test: a path against itself, again and again. The 95 % interval of the median's difference must contain 0 in at
least 18 of 20, and at most one may be called different. Known difference: a busy loop in one of two equal readers, just
before it looks at the clock; the estimate must have the right sign and be within 20 %.

Makes two network namespaces joined by veth and removes them at the end; needs root and ip, and two CPUs: the sender is
on the first, readers on the last. Machines differ, so do run it on yours.

    python benchmarks/null_test.py                        about six minutes
    python benchmarks/null_test.py --wakeup spin --experiments 20
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from contextlib import ExitStack
from fractions import Fraction
from typing import Any

PROBED = "10.77.0.1"
INTERFACE = "null0"
KINDS = ("kernel", "af_xdp")
DELAY_NS = 5_000


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def experiment(
    namespace: str, kind: Any, wakeup: Any, seed: int, arguments: argparse.Namespace, delay_ns: int = 0
) -> dict[str, Any]:
    """Compare a path with itself once, and return the row of the median's difference."""
    from uspcap.comparison.live.experiment import LiveComparison
    from uspcap.comparison.live.settings import LiveSettings, ProbeTraffic
    from uspcap.comparison.schedule import Trim
    from uspcap.probe.endpoints import Endpoint

    outcome = LiveComparison(
        LiveSettings(
            INTERFACE,
            kinds=(kind, kind),
            wakeup=wakeup,
            runs=arguments.runs,
            run_duration_ns=int(arguments.run_duration * 1e9),
            trim=Trim(warm_up_ns=50_000_000, cool_down_ns=20_000_000),
            seed=seed,
            traffic=ProbeTraffic(Endpoint(PROBED, 7000), namespace, rate=Fraction(arguments.rate), cpu=0),
            delays_ns={f"{kind}_2": delay_ns} if delay_ns else {},
        )
    ).run()
    assert outcome.comparison is not None
    (row,) = (one for one in outcome.comparison.differences if one.percentile == "50")
    frames = sum(run.latency.histogram.total_count for run in outcome.runs)
    lost = sum(run.lost for run in outcome.runs)
    return {**row.as_dict(), "frames": frames, "lost": lost}


def inside(namespace: str, arguments: argparse.Namespace) -> None:
    """Make all experiments, in the namespace that receives, and print a line each and a summary."""
    null: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    known: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for at in range(arguments.experiments):
        for kind in KINDS:
            null[kind].append(experiment(namespace, kind, arguments.wakeup, 1000 + at, arguments))
            print(f"null  {kind:<8} {at + 1:>2}: {_line(null[kind][-1])}", flush=True)
    for at in range(arguments.known):
        for kind in KINDS:
            known[kind].append(experiment(namespace, kind, arguments.wakeup, 2000 + at, arguments, DELAY_NS))
            print(f"known {kind:<8} {at + 1:>2}: {_line(known[kind][-1])}", flush=True)
    print(
        f"Linux {platform.release()}, {os.cpu_count()} CPUs, wake-up {arguments.wakeup}, {arguments.runs} pairs of runs"
    )
    for kind, rows in null.items():
        if not rows:
            continue
        contain = sum(row["low_ns"] <= 0 <= row["high_ns"] for row in rows)
        called = sum(row["verdict"] not in ("not distinguishable", "insufficient n") for row in rows)
        widths = sorted(row["high_ns"] - row["low_ns"] for row in rows)
        print(
            f"{kind} against itself: 0 in the interval {contain} of {len(rows)}, called different {called}; "
            f"median width of the interval {widths[len(widths) // 2]} ns"
        )
    for kind in KINDS:
        found = sorted(row["difference_ns"] for row in known[kind])
        right = sum(abs(one - DELAY_NS) <= DELAY_NS / 5 for one in found)
        print(f"{kind} with a busy loop of {DELAY_NS} ns: {right} of {len(found)} within 20 %: {found} ns")
    if arguments.json:
        with open(arguments.json, "w", encoding="ascii") as out:  # noqa: PTH123
            json.dump({"null": null, "known": known, "arguments": vars(arguments)}, out, indent=1)


def _line(row: dict[str, Any]) -> str:
    return (
        f"{row['difference_ns']:>7} ns ({row['low_ns']} to {row['high_ns']}), of {row['pooled']['a_ns']}; "
        f"{row['verdict']}; {row['frames']} frames, {row['lost']} lost"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", type=int, default=20)
    parser.add_argument("--known", type=int, default=5, help="experiments with a known difference")
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--run-duration", type=float, default=0.25)
    parser.add_argument("--rate", type=int, default=4000)
    parser.add_argument("--wakeup", choices=["block", "poll", "epoll", "spin"], default="block")
    parser.add_argument("--json", help="write all rows to this file")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        inside(arguments.inside, arguments)
        return
    if os.geteuid() != 0 or len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("network namespaces need root, and sender and reader a CPU each")
    receiving, sending = (f"uspcap-null-{os.getpid()}-{end}" for end in ("r", "s"))
    with ExitStack() as made:
        for name in (receiving, sending):
            ip("netns", "add", name)
            made.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)
        ip(*f"-n {receiving} link add {INTERFACE} type veth peer name null1 netns {sending}".split())
        for name, interface, address in ((receiving, INTERFACE, f"{PROBED}/24"), (sending, "null1", "10.77.0.2/24")):
            ip("-n", name, "address", "add", address, "dev", interface)
            ip("-n", name, "link", "set", interface, "up")
        command = ["ip", "netns", "exec", receiving, sys.executable, *sys.argv, "--inside", sending]
        raise SystemExit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
