"""`uspcap compare -i IF`: paths from one interface to an application, live."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any, Final, TypeVar

import click

from uspcap.commands.options import CountType, CpuListType, DurationType
from uspcap.commands.output import put_out
from uspcap.commands.probe import EndpointType, FrameRateType
from uspcap.errors import UsageError
from uspcap.notices import say
from uspcap.probe.endpoints import Endpoint
from uspcap.signals import Ending

_Function = TypeVar("_Function", bound=Callable[..., Any])

_OPTIONS = (
    click.option("-i", "--interface", metavar="NAME", help="Compare the paths from this interface, live."),
    click.option(
        "--paths",
        help="With -i: comma-separated paths to compare [default: kernel,packet_mmap,af_xdp]; naming one two times "
        "shows the differences that this host adds.",
    ),
    click.option(
        "--round-trip",
        is_flag=True,
        help="With --probe: answer probes through kernel and af_xdp, and compare round-trip times.",
    ),
    click.option(
        "--port",
        type=CountType(1, 65535),
        metavar="PORT",
        help="With -i: UDP port that frames are sent to. Default for probes: 7000.",
    ),
    click.option(
        "--other-traffic",
        is_flag=True,
        help="With -i: measure with the UDP traffic of the interface, identified by a digest, instead of probes.",
    ),
    click.option(
        "--take", is_flag=True, help="With --other-traffic: let af_xdp take frames away from their receivers."
    ),
    click.option(
        "--group",
        "groups",
        multiple=True,
        metavar="ADDRESS",
        help="With --other-traffic: multicast group for the kernel path to join. Repeatable.",
    ),
    click.option(
        "--design",
        type=click.Choice(["auto", "frame", "block"]),
        default="auto",
        show_default=True,
        help="With -i: a random path for each frame, or one path at a time, in random order (block).",
    ),
    click.option(
        "--wakeup",
        type=click.Choice(["block", "poll", "epoll", "spin"]),
        default="block",
        show_default=True,
        help="With -i: how readers wait.",
    ),
    click.option(
        "--runs",
        type=CountType(1),
        metavar="N",
        default=12,
        show_default=True,
        help="With -i: number of runs of each path.",
    ),
    click.option(
        "--run-duration", type=DurationType(), default="1s", show_default=True, help="With -i: length of each run."
    ),
    click.option(
        "--warm-up",
        type=DurationType(),
        default="100ms",
        show_default=True,
        help="With -i: time left out at the start of each run.",
    ),
    click.option(
        "--cool-down", type=DurationType(), default="50ms", show_default=True, help="With -i: time left out at its end."
    ),
    click.option(
        "--seed",
        type=CountType(0, (1 << 64) - 1),
        metavar="N",
        default=1,
        show_default=True,
        help="With -i: random seed of order, choice and bootstrap.",
    ),
    click.option("--cpus", type=CpuListType(), help="With -i: CPUs for the readers, e.g. 2 or 2,4-5."),
    click.option(
        "--probe",
        type=EndpointType(7000),
        metavar="ADDRESS[:PORT]",
        help="With -i: send probes to this address; without it nothing is sent.",
    ),
    click.option("--probe-namespace", metavar="NAME", help="With --probe: network namespace (ip netns) to send from."),
    click.option(
        "--rate", type=FrameRateType(), default="2k", show_default=True, help="With --probe: frames per second."
    ),
    click.option(
        "--schedule",
        type=click.Choice(["constant", "poisson"]),
        default="poisson",
        show_default=True,
        help="With --probe: spacing of the frames.",
    ),
    click.option(
        "--size",
        type=CountType(64, 65507),
        metavar="BYTES",
        default=64,
        show_default=True,
        help="With --probe: bytes of UDP payload.",
    ),
    click.option("--probe-cpu", type=CountType(0), metavar="N", help="With --probe: CPU for the sender."),
)

LIVE_OPTIONS: Final = frozenset(
    {
        "paths",
        "round_trip",
        "port",
        "other_traffic",
        "take",
        "groups",
        "design",
        "wakeup",
        "runs",
        "run_duration",
        "warm_up",
        "cool_down",
        "seed",
        "cpus",
        "probe",
        "probe_namespace",
        "rate",
        "schedule",
        "size",
        "probe_cpu",
    }
)
"""Parameters that mean something with an interface only."""


def live_options(function: _Function) -> _Function:
    """Give a command the options of a live comparison; it gets them under the names that `compare_live` takes."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def compare_live(
    expression: str,
    form: str,
    *,
    interface: str,
    paths: str | None,
    round_trip: bool,
    port: int | None,
    other_traffic: bool,
    take: bool,
    groups: tuple[str, ...],
    design: Any,
    wakeup: Any,
    runs: int,
    run_duration: int,
    warm_up: int,
    cool_down: int,
    seed: int,
    cpus: frozenset[int] | None,
    probe: Endpoint | None,
    probe_namespace: str | None,
    rate: Fraction,
    schedule: Any,
    size: int,
    probe_cpu: int | None,
) -> None:
    """Compare paths live and print the report; progress goes to stderr.

    Parameters
    ----------
    expression : str
        Filter on top of the port; empty for none.
    form : str
        Format of the report.
    interface … probe_cpu
        As `live_options` gives them.

    Raises
    ------
    UspcapError
        As `LiveComparison` does.
    """
    from uspcap.comparison.live.experiment import LiveComparison
    from uspcap.comparison.live.settings import DEFAULT_PORT, LiveSettings, ProbeTraffic
    from uspcap.comparison.schedule import Trim
    from uspcap.network.links import named_link
    from uspcap.report.live_comparison import live_page, live_report
    from uspcap.report.model import Output

    if probe is None and (probe_namespace is not None or probe_cpu is not None):
        raise UsageError("--probe-namespace and --probe-cpu are of probes: say where to send them with --probe")
    traffic = None
    if probe is not None:
        traffic = ProbeTraffic(probe, probe_namespace, rate, schedule, size, probe_cpu)
    named = paths or ("kernel,af_xdp" if round_trip else "kernel,packet_mmap,af_xdp")
    if other_traffic and paths is None and not take:
        named = "kernel,packet_mmap"
    kinds: Any = tuple(kind.strip().replace("-", "_") for kind in named.split(","))
    settings = LiveSettings(
        interface=interface,
        kinds=kinds,
        expression=expression,
        port=port if port is not None or other_traffic else DEFAULT_PORT,
        other_traffic=other_traffic,
        take=take,
        groups=groups,
        design=design,
        wakeup=wakeup,
        runs=runs,
        run_duration_ns=run_duration,
        trim=Trim(warm_up_ns=warm_up, cool_down_ns=cool_down),
        seed=seed,
        cpus=tuple(sorted(cpus or ())),
        traffic=traffic,
        round_trip=round_trip,
    )
    settings.check()
    comparison = LiveComparison(replace(settings, interface=named_link(interface).name))
    with Ending(comparison.stop):
        outcome = comparison.run(say)
    report = live_report(outcome)
    put_out(Output(report, lambda: live_page(report)), form, sys.stdout)
    if outcome.failure is not None:
        raise outcome.failure
