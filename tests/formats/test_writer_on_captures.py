"""Real captures, read, written and read again."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from uspcap.errors import CaptureFileError
from uspcap.formats import open_capture
from uspcap.formats.writer import open_writer

pytestmark = pytest.mark.oracle

SHARED = Path(os.environ.get("USPCAP_SHARED", Path(__file__).parents[2].parent / "shared"))
CAPTURES = SHARED / "captures"
COLUMNS = ("timestamp_ns", "captured_length", "wire_length", "flags", "queue", "drop_count")
FIELDS = (
    "frame.time_epoch",
    "frame.cap_len",
    "frame.len",
    "frame.md5_hash",
    "frame.comment",
    "frame.packet_flags",
)


def captures():
    """Return all files of the collection, captures or not."""
    return sorted(path for path in CAPTURES.rglob("*") if path.is_file() and path.parent != CAPTURES)


def readable(path):
    """Open one capture; None where it is none."""
    try:
        return open_capture(str(path))
    except CaptureFileError:
        return None


def described_rows(path):
    """Return the rows of a capture, each with its bytes and the name and link type of its interface."""
    rows = []
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            columns = [batch.column(name).tolist() for name in COLUMNS]
            for row, values in enumerate(zip(*columns, strict=True)):
                interface = batch.interfaces[batch.interface[row]]
                if batch.timestamp_ns[row] >= 0:
                    rows.append((*values, batch.frame_bytes(row), interface.name, interface.link_type))
    return rows


def copy(path, out, format="pcapng"):
    """Write what the reader reads; return the writer."""
    with open_capture(str(path)) as reader, open_writer(str(out), format) as writer:
        for batch in reader.batches():
            writer.write(batch)
        return writer


needs_captures = pytest.mark.skipif(not CAPTURES.is_dir(), reason="no captures to read: set USPCAP_SHARED")


@needs_captures
def test_copies_of_all_captures_read_like_the_originals(tmp_path):
    out = tmp_path / "copy.pcapng"
    copied = 0
    for path in captures():
        reader = readable(path)
        if reader is None:
            continue
        reader.close()
        writer = copy(path, out)
        original = described_rows(path)
        assert writer.frames_written == len(original), path
        if writer.frames_cut == 0:
            assert described_rows(out) == original, path
        copied += 1
    assert copied > 300


def tshark_rows(path):
    arguments = [argument for field in FIELDS for argument in ("-e", field)]
    done = subprocess.run(
        ["tshark", "-n", "-r", str(path), "-o", "frame.generate_md5_hash:TRUE", "-T", "fields", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    return done.stdout.splitlines()


def one_of_each_kind():
    """Return a small capture of each directory and suffix; of damaged ones programs read different parts."""
    chosen = {}
    for path in captures():
        if path.stat().st_size < 200_000 and path.parent.name != "corrupt":
            chosen.setdefault((path.parent.name, path.suffix), path)
    return sorted(chosen.values())


@needs_captures
def test_pcap_copies_hold_the_same_frames_or_are_refused(tmp_path):
    out = tmp_path / "copy.pcap"
    copied = 0
    for path in captures():
        reader = readable(path)
        if reader is None:
            continue
        reader.close()
        original = described_rows(path)
        try:
            writer = copy(path, out, "pcap")
        except CaptureFileError as error:
            assert "pcap holds one link type" in str(error)
            with open_capture(str(path)) as reader:
                for _ in reader.batches():
                    pass
                assert len({interface.link_type for interface in reader.facts.interfaces}) > 1
            continue
        assert writer.frames_written + writer.frames_refused >= len(original), path
        if writer.frames_cut == 0 and writer.frames_refused == 0:
            # (timestamp, lengths), bytes, link type; pcap has no place for the rest
            wanted = [(*row[:3], row[-3], row[-1]) for row in original]
            assert [(*row[:3], row[-3], row[-1]) for row in described_rows(out)] == wanted, path
            copied += 1
    assert copied > 300


@needs_captures
@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
@pytest.mark.parametrize("path", one_of_each_kind() if CAPTURES.is_dir() else [], ids=lambda path: path.name)
def test_tshark_reads_a_copy_like_the_original(path, tmp_path):
    writer = copy(path, tmp_path / "copy.pcapng")
    assert not writer.problems
    assert tshark_rows(tmp_path / "copy.pcapng") == tshark_rows(path)
