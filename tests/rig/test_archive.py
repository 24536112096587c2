"""What is reported of an archive that is out of reach, and of one that has changed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rig.archive import Archive, ArchiveChanged, ArchiveUnreachable
from rig.assembly import _cpio_entry
from rig.frames import compare, frame, of_every_length

pytestmark = [
    pytest.mark.thorough,
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="this machine lacks apt"),
]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """One that nobody serves: on this host, at a port where nothing listens."""
    monkeypatch.setenv("USPCAP_RIG_ARCHIVE", "http://127.0.0.1:9/debian")
    return Archive(tmp_path / "archive", ["trixie"])


def test_archive_that_nobody_serves_is_out_of_reach(archive: Archive) -> None:
    with pytest.raises(ArchiveUnreachable, match="apt-get update"):
        archive.update()


def test_name_that_no_package_has_is_a_change_of_the_archive(archive: Archive) -> None:
    with pytest.raises(ArchiveChanged, match="no package is called"):
        archive.names(r"linux-binary-.*")


def test_frames_of_every_length_are_all_different_and_have_their_lengths() -> None:
    for tags in ((), (5,), (7, 9)):
        frames = of_every_length(400, tags)
        assert sorted(map(len, frames)) == list(range(min(map(len, frames)), 401))
        assert len(set(frames)) == len(frames)


def test_comparison_shows_what_is_missing_and_what_was_never_sent() -> None:
    sent = [frame(number, 100) for number in range(3)]
    outcome = compare(sent, [sent[0], sent[1][:-1]])
    assert (outcome.exact, outcome.missing, outcome.other) == (1, 2, 1)
    assert not outcome.all_exact
    assert compare(sent, reversed(sent)).all_exact


def test_entries_of_an_initramfs_are_what_cpio_reads() -> None:
    entry = _cpio_entry("a/name", b"content", 0o100644)
    assert entry[:6] == b"070701"
    assert len(entry) % 4 == 0
    assert int(entry[54:62], 16) == len(b"content")
    assert int(entry[94:102], 16) == len("a/name") + 1
