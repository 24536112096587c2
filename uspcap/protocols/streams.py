"""Reassembled TCP streams: one direction of a connection, each byte with the frame that first carried it.

Compiled modules use `messages/reassembly.pxd` directly. `TcpStream` is the same for what runs seldom, and for tests.

What a reader of a stream does: `add` each segment in the order of capture; read whole messages from `peek`, ask
`places` which frames brought a message, and `consume` it. Where `add` returns False the window is full: something is
missing that may never come. `skip_hole` then abandons it together with the incomplete message before it, and the
reader looks for the beginning of a message.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from uspcap.frames import TimestampSource
from uspcap.messages.reassembly import ELSEWHERE, FULL, WINDOW, Reassembler

WINDOW_BYTES: Final = WINDOW
"""Bytes held at most, from the first that was not consumed to the last that came."""


class Place(NamedTuple):
    """Where bytes were first seen.

    Attributes
    ----------
    timestamp_ns : int
    frame : int
        Number of the frame.
    source : TimestampSource
        Who timestamped it.
    """

    timestamp_ns: int
    frame: int
    source: TimestampSource


class TcpStream:
    """One direction of a TCP connection; joined in the middle where `start` is not called.

    Sequence numbers may wrap. A byte that comes again changes nothing.
    """

    def __init__(self) -> None:
        self._reassembler = Reassembler()
        self.restarts = 0
        """How often a segment was so far away that it began another stream."""

    def start(self, sequence: int) -> None:
        """Begin with the byte after the SYN, whose sequence number is the SYN's and one."""
        self._reassembler.start(sequence & 0xFFFF_FFFF)

    def add(self, sequence: int, data: bytes, place: Place) -> bool:
        """Add a segment; return False where the window is full, and nothing was added."""
        outcome = self._reassembler.add(sequence, data, *place)
        if outcome == ELSEWHERE:
            self.restarts += 1
            self.start(sequence)
            outcome = self._reassembler.add(sequence, data, *place)
        return outcome != FULL

    def peek(self) -> bytes:
        """Return the readable bytes: from the first one that was not consumed to the first hole."""
        return self._reassembler.peek()

    def places(self, length: int) -> tuple[Place, Place]:
        """Return where the first of the next `length` bytes was first seen, and where the last that was missing."""
        first, complete = self._reassembler.places(length)
        return _place(first), _place(complete)

    def consume(self, length: int) -> None:
        """Let go of the first bytes."""
        self._reassembler.consume(length)

    def skip_hole(self) -> bool:
        """Abandon the first hole and the bytes before it; return whether there are bytes behind it."""
        return self._reassembler.skip_hole()

    @property
    def repeated_bytes(self) -> int:
        """Retransmitted bytes."""
        return self._reassembler.repeated_bytes

    @property
    def lost_bytes(self) -> int:
        """Bytes of holes that were abandoned."""
        return self._reassembler.lost_bytes

    @property
    def holes(self) -> int:
        """Holes that were abandoned."""
        return self._reassembler.holes


def _place(place: tuple[int, int, int]) -> Place:
    return Place(place[0], place[1], TimestampSource(place[2]))
