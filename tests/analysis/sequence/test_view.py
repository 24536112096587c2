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


def shown(packets: list[Packet], maximum_streams: int) -> str:
    analysis = sequence_of(find_protocol("moldudp64"), maximum_streams=maximum_streams)
    analysis.update(batch_of(packets))
    stream = io.StringIO()
    show_section(Console(file=stream, width=200), section(analysis.result(), Context(one_day=True)))
    return stream.getvalue()


def test_a_sample_of_streams_is_called_one() -> None:
    packets = [Packet(1, 1, START_NS + at, b"%010d" % at) for at in range(20)]
    assert "sample" not in shown(packets, 20)
    assert "what is above is of a sample, one stream of " in shown(packets, 5)
