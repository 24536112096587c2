"""Rules, pairs and values of options as text: what they are, or one sentence that they are none."""

from collections.abc import Callable
from random import Random
from typing import Any

import click
import packets
import streams
from values import EDGES, START_NS

from uspcap.analysis.registry import options as analysis_options
from uspcap.backends.declaration import backend_options
from uspcap.commands import options
from uspcap.commands.declared_options import ReadType
from uspcap.errors import UspcapError
from uspcap.protocols.feeds import parse_sequence
from uspcap.protocols.line_pairs import parse_pairs
from uspcap.protocols.rules import RuleFinder, pair_rules, parse_rule

_SAMPLES = (
    "udp dst port 1002; key=payload[0:4]; name=orders",
    "udp src port 1002; key=payload[2:4]",
    "tcp port 24001; key=tag:11",
    "offset=4,size=4,endian=big,kind=packet",
    "offset=0,size=8,kind=message,count=8:2,key=10:4,key=0:2,wraps=yes",
    "A=239.1.1.1:30001,B=239.1.1.2:30001",
    "A=[ff02::1]:1,B=239.1.1.2:65535",
    *("250us", "1.5ms", "10G", "2.5Gbit", "100MiB", "3,7-9", "hash:4", "0,4-7", "zstd:9", "majority", "-37s", "60"),
    *("1h", "qm:99", "292y", "9223372036854775807ns", "9223372036854775808ns", "0.0000000001ns", "1e9s"),
)

_TYPES: tuple[click.ParamType[Any], ...] = (
    options.DurationType(),
    options.SignedDurationType(),
    options.SizeType(),
    options.PeriodType(),
    options.CompressType(),
    options.FrameSetType(),
    options.CpuListType(),
    *(ReadType(one.reader, one.flag) for one in (*analysis_options(), *backend_options()) if one.reader is not None),
)


def generate(random: Random) -> Any:
    text = random.choice(_SAMPLES)
    if random.random() < 0.5:
        digits = [at for at, letter in enumerate(text) if letter.isdigit()]
        at = random.choice(digits or [0])
        text = text[:at] + str(random.choice(EDGES)) + text[at + 1 :]
    other = random.choice(_SAMPLES[:3]) if random.random() < 0.8 else text
    return {"text": text, "other": other, "frame": packets.request(random, {})}


def _refused(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except (UspcapError, click.ClickException) as error:
        assert str(error), "a refusal says nothing"
        return None


def run(value: Any) -> None:
    text, other = value["text"], value["other"]
    for kind in _TYPES:
        _refused(lambda kind=kind: kind.convert(text, None, None))
    _refused(lambda: parse_pairs([text]))
    protocol = _refused(lambda: parse_sequence(text))
    batch = streams.batch_of([(START_NS, value["frame"], 0, 5, 0, 0, 0)], 1)
    if protocol is not None:
        from uspcap.analysis.sequence.streams import sequence_of

        analysis = sequence_of(protocol, maximum_streams=8)
        analysis.update(batch)
        streams.check_numbers(analysis.result().as_dict(), "sequence")
    for match in ("flow", "client", "key"):
        pair = _refused(
            lambda match=match: pair_rules(
                parse_rule(text, "--request"),
                parse_rule(other, "--response"),
                name="pair",
                match=match,
                options=("--request", "--response"),
            )
        )
        if pair is not None:
            _refused(lambda pair=pair: RuleFinder(pair).find(batch))
