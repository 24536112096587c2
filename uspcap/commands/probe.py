"""`uspcap probe`: test traffic out on time, answers in, round trips reported."""

from __future__ import annotations

import re
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import click

from uspcap.commands.options import CountType, CpuListType, DurationType
from uspcap.commands.output import format_option, put_out
from uspcap.errors import UsageError
from uspcap.network.links import real_name
from uspcap.notices import say
from uspcap.pipeline.pinning import pin
from uspcap.probe.endpoints import Endpoint, parse_endpoint
from uspcap.signals import Ending

if TYPE_CHECKING:
    _EndpointType = click.ParamType[Endpoint]
    _FrameRateType = click.ParamType[Fraction]
else:
    # Before click 8.4 it takes no type.
    _EndpointType = _FrameRateType = click.ParamType

WAKEUPS = ("block", "poll", "epoll", "spin")

_TIMES = {"": 1, "k": 10**3, "m": 10**6}

MOST_FRAMES = (1 << 63) - 1


class EndpointType(_EndpointType):
    """An address and a port; the port may be left out where there is a default."""

    name = "address"

    def __init__(self, default_port: int | None = None) -> None:
        self.default_port = default_port

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Endpoint:
        """Return them; names are not looked up."""
        if isinstance(value, Endpoint):
            return value
        try:
            return parse_endpoint(value, self.default_port)
        except ValueError:
            self.fail(f"{value!r} is not an address with a port; write 192.0.2.1:7000 or [2001:db8::1]:7000", param)


class FrameRateType(_FrameRateType):
    """Frames a second, such as `250`, `0.5` or `10k`."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Return it exactly."""
        if isinstance(value, Fraction):
            return value
        match = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,12})?)\s*([kmKM]?)\s*", str(value))
        rate = Fraction(match[1]) * _TIMES[match[2].lower()] if match else Fraction(0)
        if not rate:
            self.fail(f"{value!r} is not a number of frames per second; write one as 250, 0.5 or 10k", param)
        return rate


@click.group("probe", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Send timestamped, numbered UDP frames on a schedule, or answer them.

    Frames go only to the address that you give. docs/probe.md describes them.
    """


@command.command("send")
@click.argument("target", type=EndpointType())
@click.option(
    "--rate", type=FrameRateType(), default="100", show_default=True, help="Frames per second, e.g. 250 or 10k."
)
@click.option("--schedule", "kind", type=click.Choice(["constant", "poisson"]), default="constant", show_default=True)
@click.option(
    "--seed",
    type=CountType(0, (1 << 64) - 1),
    metavar="N",
    default=1,
    show_default=True,
    help="Random seed of --schedule poisson.",
)
@click.option(
    "--like", "files", multiple=True, metavar="FILE", help="Send with the timing of this capture's frames. Repeatable."
)
@click.option("-c", "--count", type=CountType(1, MOST_FRAMES), metavar="N", help="Stop after N frames.")
@click.option("--duration", type=DurationType(), help="Stop after this time, e.g. 10s.")
@click.option(
    "--size",
    type=CountType(64, 65507),
    metavar="BYTES",
    default=64,
    show_default=True,
    help="Bytes of UDP payload; headers add 28 (IPv4) or 48 (IPv6), and the sum should fit the MTU.",
)
@click.option("-i", "--interface", metavar="NAME", help="Send and receive on this interface only.")
@click.option("--bind", "source", type=EndpointType(0), metavar="ADDRESS[:PORT]", help="Send from this address.")
@click.option("--one-way", is_flag=True, help="Expect no answers; report only how late frames were sent.")
@click.option(
    "--wait", type=DurationType(), default="1s", show_default=True, help="Timeout: a later answer counts as late."
)
@click.option(
    "--wakeup", type=click.Choice(WAKEUPS), default="block", show_default=True, help="How to wait for answers."
)
@click.option(
    "--spin",
    type=DurationType(),
    default="200us",
    show_default=True,
    help="Spin on the clock for this long before each frame.",
)
@click.option("--cpu", "cpus", type=CpuListType(), help="Run only on these CPUs, e.g. 2 or 2,4-5; two are best.")
@format_option
def send(
    target: Endpoint,
    rate: Fraction,
    kind: Any,
    seed: int,
    files: tuple[str, ...],
    count: int | None,
    duration: int | None,
    size: int,
    interface: str | None,
    source: Endpoint | None,
    one_way: bool,
    wait: int,
    wakeup: str,
    spin: int,
    cpus: frozenset[int] | None,
    form: str,
) -> None:
    """Send probes to TARGET, e.g. 192.0.2.1:7000, and report round-trip times.

    Each frame is sent when it is due, whether or not earlier ones were answered; latency counts from the due time, so
    that a stall shows in full. Without --count, --duration or --like, sending goes on until Ctrl-C.
    """
    from uspcap.probe.schedules import at_rate, like
    from uspcap.probe.sending import ProbeRun, SendSettings
    from uspcap.report.probe import send_report

    parameters = click.get_current_context()
    given = [
        f"--{name}"
        for name, parameter in (("rate", "rate"), ("schedule", "kind"), ("seed", "seed"))
        if parameters.get_parameter_source(parameter) is not click.core.ParameterSource.DEFAULT
    ]
    if files and given:
        raise UsageError(f"--like takes its timing from the files: leave {' and '.join(given)} out")
    if target.port == 0:
        raise UsageError("nothing listens on port 0: name the port of 'uspcap probe reflect'")
    interface = real_name(interface)
    if cpus is not None:
        say(pin(cpus, [] if interface is None else [interface]))
    run = ProbeRun(
        SendSettings(
            target=target,
            schedule=like(files) if files else at_rate(rate, kind, seed),
            source=source,
            interface=interface,
            size=size,
            frames=count,
            duration_ns=duration,
            answers=not one_way,
            wakeup=wakeup,
            patience_ns=wait,
            spin_ns=spin,
        )
    )
    with Ending(run.stop):
        outcome = run.run(lambda local: say(f"sending from {local} to {target}"), say)
    _report(send_report(outcome), form)
    if outcome.failure is not None:
        raise outcome.failure


@command.command("reflect")
@click.argument("local", type=EndpointType(), metavar="ADDRESS:PORT")
@click.option("-i", "--interface", metavar="NAME", help="Answer only what comes in on this interface.")
@click.option(
    "--through",
    type=click.Choice(["kernel", "af_xdp"]),
    default="kernel",
    show_default=True,
    help="Path of the answers; af_xdp needs -i, and answers from the buffer that the probe is in.",
)
@click.option("-c", "--count", type=CountType(1, MOST_FRAMES), metavar="N", help="Stop after N answers.")
@click.option("--duration", type=DurationType(), help="Stop after this time, e.g. 10s.")
@click.option(
    "--wakeup", type=click.Choice(WAKEUPS), default="block", show_default=True, help="How to wait for probes."
)
@click.option("--cpu", "cpus", type=CpuListType(), help="Run only on these CPUs, e.g. 2 or 2,4-5.")
@format_option
def reflect(
    local: Endpoint,
    interface: str | None,
    through: str,
    count: int | None,
    duration: int | None,
    wakeup: str,
    cpus: frozenset[int] | None,
    form: str,
) -> None:
    """Answer probes to ADDRESS:PORT of this host, e.g. 192.0.2.1:7000 or [::]:7000.

    Port 0 picks a free port. Each answer is as long as its probe and goes back to its sender; nothing else is
    answered. Ctrl-C stops it and prints a report.
    """
    from uspcap.probe.reflecting import Answerer, Reflection, ReflectSettings
    from uspcap.report.probe import reflect_report

    interface = real_name(interface)
    if cpus is not None:
        say(pin(cpus, [] if interface is None else [interface]))
    settings = ReflectSettings(local, interface, wakeup, count, duration, through)
    reflection: Answerer
    if through == "kernel":
        reflection = Reflection(settings)
    else:
        from uspcap.comparison.live.reflecting import XskReflection

        reflection = XskReflection(settings)
    with Ending(reflection.stop):
        outcome = reflection.run(lambda bound: say(f"answering probes at {bound}"), say)
    _report(reflect_report(outcome), form)
    if outcome.failure is not None:
        raise outcome.failure


def _report(report: dict[str, Any], form: str) -> None:
    from uspcap.report.model import Output
    from uspcap.report.probe import probe_page

    put_out(Output(report, lambda: probe_page(report)), form, sys.stdout)
