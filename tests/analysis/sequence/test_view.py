"""What the terminal says of sequence numbers."""

from __future__ import annotations

import io

from rich.console import Console
from support.feeds import START_NS, Packet, batch_of

from uspcap.analysis.sequence.streams import sequence_of
from uspcap.analysis.sequence.view import section
from uspcap.protocols.feeds import find_protocol
from uspcap.report.model import Context
from uspcap.report.renderers.text import show_section


def shown(packets: list[Packet], maximum_streams: int = 100) -> str:
    analysis = sequence_of(find_protocol("moldudp64"), maximum_streams=maximum_streams)
    analysis.update(batch_of(packets))
    stream = io.StringIO()
    show_section(Console(file=stream, width=200), section(analysis.result(), Context(one_day=True)))
    return stream.getvalue()


def test_a_sample_of_streams_is_called_one() -> None:
    packets = [Packet(1, 1, START_NS + at, b"%010d" % at) for at in range(20)]
    assert "sample" not in shown(packets, 20)
    assert "the figures above are of a sample, one stream in " in shown(packets, 5)


def test_stream_that_is_refused_is_named_with_the_evidence() -> None:
    text = shown([Packet(7, 1, START_NS + at) for at in range(20)])
    assert "no packet of this protocol" in text
    assert (
        "not moldudp64, excluded from all figures above: UDP 192.0.2.1:30000 > 233.252.0.1:30001 SESSION001: 19 of 20"
        in text
    )


def test_jumps_that_nothing_confirms_are_named() -> None:
    numbers = [*range(1, 21), 90_000, *range(21, 41), 70_000]
    text = shown([Packet(number, 1, START_NS + at) for at, number in enumerate(numbers)])
    assert (
        "1 packet with an implausible jump ahead, refuted by the packets after it: no gap, not counted as lost" in text
    )
    assert "unconfirmed: frame 42 jumps to 70000 from 41" in text
