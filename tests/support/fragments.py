"""UDP datagrams in IP fragments, and a slow account of what comes of them."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

SOURCE4, GROUP4 = b"\xc0\0\2\1", b"\xe9\xfc\0\1"
SOURCE6, GROUP6 = bytes.fromhex("20010db8000000000000000000000001"), bytes.fromhex("ff0e0000000000000000000000000001")
NEAR_FRAMES, NEAR_NS = 1024, 30_000_000_000


@dataclass(frozen=True)
class Fragment:
    """Bytes of an IP packet's payload: `more` follow, or none."""

    identification: int
    offset: int
    data: bytes
    more: bool
    version: int = 4
    protocol: int = 17
    line: int = 0

    def frame(self) -> bytes:
        """Return Ethernet and IP around it."""
        if self.version == 4:
            flags = self.offset // 8 | (0x2000 if self.more else 0)
            header = struct.pack(
                "!BBHHHBBH4s4s", 0x45, 0, 20 + len(self.data), self.identification & 0xFFFF, flags, 8, self.protocol, 0,
                SOURCE4, GROUP4[:3] + bytes([GROUP4[3] + self.line]),
            )  # fmt: skip
            return bytes.fromhex("01005e7c00010200000000010800") + header + self.data
        header = struct.pack("!IHBB16s16s", 6 << 28, 8 + len(self.data), 44, 8, SOURCE6, GROUP6)
        header += struct.pack("!BBHI", self.protocol, 0, self.offset | self.more, self.identification)
        return bytes.fromhex("3333000000010200000000 0186dd".replace(" ", "")) + header + self.data


def datagram_of(payload: bytes, line: int = 0) -> bytes:
    """Return a UDP datagram around a payload, as `support.feeds.frame_of` has it."""
    return struct.pack("!HHHH", 30000, 30001 + line, 8 + len(payload), 0) + payload


def fragments_of(payload: bytes, identification: int, size: int, version: int = 4, line: int = 0) -> list[Fragment]:
    """Return the fragments of a datagram around a payload, `size` bytes each but for the last."""
    datagram = datagram_of(payload, line)
    return [
        Fragment(identification, at, datagram[at : at + size], at + size < len(datagram), version, 17, line)
        for at in range(0, len(datagram), size)
    ]


@dataclass
class _Group:
    frame: int
    at_ns: int
    state: str = "open"
    pieces: list[Fragment] = field(default_factory=list)


@dataclass
class SlowDatagrams:
    """What comes of fragments, taken one by one."""

    put_together: int = 0
    incomplete: int = 0
    discarded: int = 0
    copies: int = 0
    left_out: int = 0
    _groups: dict[tuple[int, int], _Group] = field(default_factory=dict)

    def take(self, fragment: Fragment, frame: int, at_ns: int) -> bytes | None:
        """Return the datagram that a fragment completes."""
        key = fragment.version, fragment.identification
        group = self._groups.get(key)
        if group is None or frame - group.frame > NEAR_FRAMES or abs(at_ns - group.at_ns) > NEAR_NS:
            self._close(group)
            group = self._groups[key] = _Group(frame, at_ns)
        group.frame, group.at_ns = frame, at_ns
        if group.state == "void":
            self.left_out += 1
            return None
        if fragment in group.pieces:
            self.copies += 1
            return None
        if group.state == "complete":
            group.state, group.pieces = "open", []
        if self._is_void(group.pieces, fragment):
            self.discarded += 1
            self.left_out += len(group.pieces) + 1
            group.state, group.pieces = "void", []
            return None
        group.pieces.append(fragment)
        in_order = sorted(group.pieces, key=lambda piece: piece.offset)
        data = b"".join(piece.data for piece in in_order)
        if in_order[-1].more or len(data) != in_order[-1].offset + len(in_order[-1].data):
            return None
        group.state = "complete"
        self.put_together += 1
        return data

    @staticmethod
    def _is_void(pieces: list[Fragment], fragment: Fragment) -> bool:
        end = fragment.offset + len(fragment.data)
        if (fragment.more and len(fragment.data) % 8) or end > (65_515 if fragment.version == 4 else 65_535):
            return True
        totals = {piece.offset + len(piece.data) for piece in (*pieces, fragment) if not piece.more}
        ends = [piece.offset + len(piece.data) for piece in (*pieces, fragment)]
        covered = {byte for piece in pieces for byte in range(piece.offset, piece.offset + len(piece.data))}
        if len(totals) > 1 or (totals and max(ends) > max(totals)):
            return True
        if not fragment.more and any(piece.offset >= end for piece in pieces):
            return True
        return not covered.isdisjoint(range(fragment.offset, end))

    def _close(self, group: _Group | None) -> None:
        self.incomplete += group is not None and group.state == "open"
        self.left_out += len(group.pieces) if group is not None and group.state == "open" else 0

    def counts(self) -> dict[str, int]:
        """Return what there is at the end."""
        left = sum(group.state == "open" for group in self._groups.values())
        return {
            "put_together": self.put_together,
            "incomplete": self.incomplete + left,
            "discarded": self.discarded,
            "copies": self.copies,
            "frames_left_out": self.left_out
            + sum(len(group.pieces) for group in self._groups.values() if group.state == "open"),
            "cut": 0,
        }


def disturbed(drawn: random.Random, pieces: list[Fragment]) -> Iterator[Fragment]:
    """Yield the fragments of a datagram with what may happen to them."""
    pieces = list(pieces)
    what = drawn.choice(["none"] * 6 + ["shuffle", "shuffle", "lose", "copy", "overlap", "other", "long", "odd"])
    at = drawn.randrange(len(pieces))
    one = pieces[at]
    if what == "shuffle":
        drawn.shuffle(pieces)
    elif what == "lose":
        del pieces[at]
    elif what == "copy":
        pieces.insert(drawn.randrange(len(pieces) + 1), one)
    elif what == "overlap":
        pieces.insert(
            drawn.randrange(len(pieces) + 1),
            Fragment(one.identification, one.offset + 8, one.data[:16] + bytes(8), one.more, one.version),
        )
    elif what == "other":
        pieces.insert(
            drawn.randrange(len(pieces) + 1),
            Fragment(one.identification, one.offset, bytes(len(one.data)), one.more, one.version),
        )
    elif what == "long":
        pieces.append(Fragment(one.identification, 65_528, bytes(16), False, one.version))
    elif what == "odd":
        pieces[at] = Fragment(one.identification, one.offset, one.data[:-1] or b"x", True, one.version)
    yield from pieces
