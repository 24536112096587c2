"""Capture files cut into parts: what is proved is right, and what was guessed wrong is read by the part before."""

import gzip
from itertools import pairwise

import pytest
from support.capture_files import rows_of
from support.hard_to_cut import cases

from uspcap.formats import open_capture, parts
from uspcap.formats.parts import SMALLEST_PART, continues, open_parts
from uspcap.frames import SourceFacts

CASES = cases()


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(parts, "SMALLEST_PART", 16_384)


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "capture"
        path.write_bytes(content)
        return str(path)

    return write


def numbered(reader):
    """Return all frames of a reader and check that it numbers them from where it is."""
    rows, expected = [], 0
    for batch in reader.batches():
        assert batch.frames_before == expected
        expected += batch.frames_read
        assert batch.frame_number.tolist() == list(range(batch.frames_before + 1, expected + 1))
        for row in range(len(batch)):
            rows.append((int(batch.timestamp_ns[row]), batch.frame_bytes(row), int(batch.interface[row])))
    return rows


def joined(readers):
    """Read parts as a run does: each proved by the one before, else left to it."""
    before, rows, facts, wrong = None, [], SourceFacts(), 0
    try:
        for reader in readers:
            mine = numbered(reader)
            if before is None:
                before, rows = reader, mine
            elif before.ended:
                break
            elif continues(before, reader):
                facts.append(before.facts)
                before = reader
                rows += mine
            else:
                wrong += 1
                before.stop_at = reader.stop_at
                rows += [(row.timestamp_ns, row.captured, row.interface) for row in rows_of(before)]
        facts.append(before.facts)
        return rows, facts, before.facts.interfaces, wrong
    finally:
        for reader in readers:
            reader.close()


@pytest.mark.parametrize("name", CASES)
def test_parts_joined_are_the_whole(write, small_parts, name):
    path = write(CASES[name].content)
    with open_capture(path) as reader:
        rows = numbered(reader)
        whole = reader.facts
    assert len(rows) == CASES[name].frames
    for most in (1, 2, 3, 4, 9):
        got, facts, interfaces, _ = joined(open_parts(path, most))
        assert got == rows
        assert interfaces == whole.interfaces
        assert facts.all_problems(path) == whole.all_problems(path)
        for field in ("truncated", "interface_drops", "finer_than_ns", "clamped", "frames"):
            assert getattr(facts, field) == getattr(whole, field)


@pytest.mark.parametrize("name", ["pcap", "pcapng", "pcap, big endian, us", "pcapng, big endian"])
def test_plain_files_are_cut_into_as_many_parts_of_like_size(write, small_parts, name):
    path = write(CASES[name].content)
    readers = open_parts(path, 5)
    assert len(readers) == 5
    starts = [reader.began_at for reader in readers] + [len(CASES[name].content)]
    assert starts[0] == 0
    for start, end in pairwise(starts):
        assert abs(end - start - len(CASES[name].content) / 5) < 20_000
    *_, wrong = joined(readers)
    assert wrong == 0


@pytest.mark.parametrize("name", ["pcap in pcap", "pcapng in pcapng", "pcap, false records that lead to true ones"])
def test_payloads_that_look_like_records_are_found_out(write, small_parts, name):
    rows, _, _, wrong = joined(open_parts(write(CASES[name].content), 4))
    assert wrong == 3
    assert len(rows) == CASES[name].frames


def test_a_part_that_knows_less_is_not_proved(write, small_parts):
    *_, wrong = joined(open_parts(write(CASES["pcapng, an interface described late"].content), 4))
    assert wrong > 0


def test_small_compressed_and_single_files_are_one_part(write, small_parts, monkeypatch):
    content = CASES["pcap"].content
    assert len(open_parts(write(content), 1)) == 1
    assert len(open_parts(write(gzip.compress(content)), 4)) == 1
    assert len(open_parts(write(content[:20_000]), 4)) == 1
    monkeypatch.setattr(parts, "SMALLEST_PART", SMALLEST_PART)
    assert len(open_parts(write(content), 4)) == 1
