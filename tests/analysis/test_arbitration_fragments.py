"""Lines of a feed whose datagrams come in IP fragments: as if each had come whole, with its last fragment."""

from __future__ import annotations

import pickle
import random
from itertools import pairwise

import pytest
from support.feeds import frame_of
from support.fragments import Fragment, fragments_of
from support.lines import two_lines

from uspcap.analysis import ip_fragments
from uspcap.analysis.arbitration.analysis import Arbitration
from uspcap.frames import FrameBatch
from uspcap.protocols.feeds import find_protocol
from uspcap.protocols.line_pairs import parse_pairs

MOLD = find_protocol("moldudp64")
PAIRS = parse_pairs(["A=233.252.0.1:30001,B=233.252.0.2:30002"])
ELSEWHERE = bytes(12) + b"\x08\x06" + bytes(46)


def arbitrated(frames: list[bytes], times_ns: list[int], cuts: list[int], batch_frames: int = 64) -> Arbitration:
    """Analyse frames in parts, which go to another process and back, merged in order."""
    parts = []
    for first, last in pairwise([0, *sorted(cuts), len(frames)]):
        part = Arbitration(MOLD, PAIRS, ring_length=64)
        for at in range(first, last, batch_frames):
            end = min(at + batch_frames, last)
            batch = FrameBatch.from_frames(frames[at:end], times_ns[at:end], first_frame_number=at - first + 1)
            # Times that no source would leave, too.
            batch.storage("timestamp_ns")[: end - at] = times_ns[at:end]
            part.update(batch)
        parts.append(pickle.loads(pickle.dumps(part)))
    while len(parts) > 1:
        at = len(parts) // 2 - 1
        parts[at].merge(parts.pop(at + 1))
    return parts[0]


def lines_in_fragments(seed: int, sends: int, pauses: float) -> tuple[list[bytes], list[bytes], list[int]]:
    """Return the frames of two lines in fragments, the same with each datagram whole at its last one, and when."""
    drawn = random.Random(seed)
    apart: list[bytes] = []
    whole: list[bytes] = []
    times_ns: list[int] = []
    for at, packet in enumerate(two_lines(seed, sends, loss=0.05)):
        payload = packet.mold()
        one = frame_of(payload, packet.line)
        pieces: list[Fragment] = []
        if drawn.random() < 0.5:
            pieces = fragments_of(payload, at, 16, 4, packet.line)
            drawn.shuffle(pieces)
            if drawn.random() < 0.05:
                pieces.pop()
                one = ELSEWHERE
        if pieces:
            apart += [piece.frame() for piece in pieces]
            whole += [ELSEWHERE] * (len(pieces) - 1) + [one]
        else:
            apart.append(one)
            whole.append(one)
        if drawn.random() < pauses:
            apart += [ELSEWHERE] * 1_100
            whole += [ELSEWHERE] * 1_100
        times_ns += [packet.at_ns] * (len(apart) - len(times_ns))
    return apart, whole, times_ns


@pytest.mark.parametrize("seed", range(12))
def test_lines_in_fragments_are_as_if_datagrams_came_whole_wherever_they_are_cut(seed: int) -> None:
    drawn = random.Random(seed)
    apart, whole, times_ns = lines_in_fragments(seed, 120, drawn.choice([0.0, 0.01]))
    expected = arbitrated(whole, times_ns, []).result().as_dict()
    in_fragments = arbitrated(apart, times_ns, [])
    result = in_fragments.result().as_dict()
    assert result["fragments"]["put_together"] > 20
    assert result | {"fragments": None} == expected | {"fragments": None}
    for _ in range(6):
        cuts = [drawn.randrange(len(apart) + 1) for _ in range(drawn.randrange(1, 5))]
        assert arbitrated(apart, times_ns, cuts, drawn.choice([7, 64, 500])).result().as_dict() == result, cuts


@pytest.mark.parametrize("cut", [0, 1, 40, 100])
def test_times_that_no_source_would_leave_are_the_same_in_parts(cut: int) -> None:
    apart, _, times_ns = lines_in_fragments(5, 60, 0.0)
    times_ns = [(1 << 62) + at for at in range(len(times_ns))]
    assert arbitrated(apart, times_ns, [cut]).result() == arbitrated(apart, times_ns, []).result()


def test_datagram_that_lacks_a_fragment_on_both_lines_is_lost() -> None:
    payload = two_lines(1, 1, loss=0.0)[0].mold()
    frames = [frame_of(payload, 0), frame_of(payload, 1)]
    number = int.from_bytes(payload[10:18], "big") + int.from_bytes(payload[18:20], "big")
    cut = payload[:10] + number.to_bytes(8, "big") + b"\0\5" + bytes(40)
    after = payload[:10] + (number + 5).to_bytes(8, "big") + payload[18:]
    for line in (0, 1):
        frames += [piece.frame() for piece in fragments_of(cut, line, 16, 4, line)[:-1]]
    frames += [frame_of(after, 0), frame_of(after, 1)]
    analysis = arbitrated(frames, list(range(1_700_000_000_000_000_000, 1_700_000_000_000_000_000 + len(frames))), [4])
    result = analysis.result().as_dict()
    assert (result["lost"], result["fragments"]["incomplete"]) == (5, 2)
    assert any("UDP datagrams in IP fragments" in caveat for caveat in analysis.caveats())


def test_what_is_kept_at_a_cut_is_bounded_and_what_that_costs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ip_fragments, "MOST_KEPT", 5)
    apart, _, times_ns = lines_in_fragments(3, 60, 0.0)
    assert arbitrated(apart, times_ns, []).result().as_dict()["fragments"]["cut"] > 0
