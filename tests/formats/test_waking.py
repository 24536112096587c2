"""Reads that wait can be ended."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest
from support.command_line import pcap_of
from support.streams import Frame
from support.veth_pairs import wait_until

from uspcap.formats import open_capture
from uspcap.formats.byte_source import open_byte_source
from uspcap.formats.waking import ReadingEnded, Wake

CAPTURE = pcap_of([Frame(1000 * number, 100, 1) for number in range(1000)])


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_wake_ends_waits_and_what_comes_after() -> None:
    reading, writing = os.pipe()
    above = Wake()
    wake = Wake(above)
    ended: list[int] = []

    def wait() -> None:
        try:
            wake.wait_readable(reading)
        except ReadingEnded:
            ended.append(1)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    above.set()
    for thread in threads:
        thread.join(10)
    assert ended == [1, 1, 1]
    assert wake.is_set
    with pytest.raises(ReadingEnded):
        wake.check()
    for one in (wake, above):
        one.close()
        one.set()
        one.close()
    os.close(reading)
    os.close(writing)


def test_one_source_closed_ends_no_other(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(CAPTURE)
    wake = Wake()
    first, second = (open_byte_source(str(tmp_path / name), wake) for name in "ab")
    buffer = memoryview(bytearray(10))
    first.close()
    assert second.readinto(buffer) > 0
    wake.set()
    with pytest.raises(ReadingEnded):
        second.readinto(buffer)
    second.close()


@pytest.mark.parametrize("content", [CAPTURE, gzip.compress(CAPTURE)], ids=["plain", "gzip"])
@pytest.mark.parametrize("given", [0, 3, 1000])
def test_reading_a_quiet_fifo_ends(tmp_path: Path, content: bytes, given: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    writing = os.open(tmp_path / "fifo", os.O_RDWR)
    os.write(writing, content[:given])
    before = open_descriptors()
    wake = Wake()
    outcome: list[object] = []

    def read() -> None:
        try:
            with open_capture(str(tmp_path / "fifo"), wake) as reader:
                outcome.append(sum(batch.count for batch in reader.batches()))
        except ReadingEnded as ended:
            outcome.append(ended)

    thread = threading.Thread(target=read)
    thread.start()
    assert wait_until(lambda: open_descriptors() > before)
    wake.set()
    thread.join(10)
    wake.close()
    (ended,) = outcome
    assert isinstance(ended, ReadingEnded)
    assert open_descriptors() == before
    os.close(writing)


def test_fifo_without_a_writer_is_opened_and_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    counts: list[int] = []

    def read() -> None:
        with open_capture(str(tmp_path / "fifo")) as reader:
            counts.append(sum(batch.count for batch in reader.batches()))

    thread = threading.Thread(target=read)
    thread.start()
    with (tmp_path / "fifo").open("wb") as file:
        file.write(CAPTURE)
    thread.join(10)
    assert counts == [1000]
