"""The record of changes: what is taken as one, who may write it, and that it is whole at every moment."""

import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.doctor.changes import Change
from uspcap.doctor.namespace import NetworkNamespace
from uspcap.doctor.record import SCHEMA, Entry, Record
from uspcap.errors import CaptureError

FILE = Entry(
    Change("file", "/proc/sys/vm/nr_hugepages", "", "0", "32"), NetworkNamespace(4026531833, 3), boot="b", made=True
)
RING = Entry(Change("ring", "eth0", "rx", "512", "4096"), NetworkNamespace(4026531833, 3), 2, "pci 0000:3b:00.0", "b")


def document(*entries: dict[str, Any], schema: str = SCHEMA) -> str:
    return json.dumps({"schema": schema, "changes": list(entries)})


def altered(**members: Any) -> str:
    return document({**RING.as_document(), **members})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    record = Record(tmp_path / "new" / "doctor.json")
    assert record.read() == []
    record.write([FILE, RING])
    assert record.read() == [FILE, RING]
    assert stat.S_IMODE(record.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(record.path.parent.stat().st_mode) == 0o700
    assert list(record.path.parent.iterdir()) == [record.path]
    record.write([])
    assert not record.path.exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[1]",
        "null",
        '{"a": 1}',
        "[" * 100_000,
        '[{"kind": "file"}]',
        document(schema="uspcap.doctor-record/2"),
        document({}),
        document(RING.as_document(), {"kind": "file"}),
        altered(more=1),
        altered(made=1),
        altered(ifindex=True),
        altered(ifindex=-2),
        altered(ifindex=0),
        altered(ifindex="2"),
        altered(namespace=None),
        altered(namespace={"inode": 1}),
        altered(kind="command"),
        altered(what="tx"),
        altered(before="512; reboot"),
        altered(kind="file", where="/etc/passwd", what="", ifindex=0),
        altered(kind="file", where="/sys/devices/system/cpu/cpu0/../../x", what="", ifindex=0),
        altered(boot=None),
    ],
)
def test_file_that_is_no_record_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "doctor.json"
    path.write_text(text)
    with pytest.raises(CaptureError, match="is not a record of changes") as caught:
        Record(path).read()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@given(content=st.binary(max_size=200))
def test_any_bytes_are_a_record_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("record") / "doctor.json"
    path.write_bytes(content)
    with pytest.raises(CaptureError):
        Record(path).read()


@given(
    entry=st.fixed_dictionaries(
        {
            name: st.one_of(st.just(value), st.none(), st.booleans(), st.integers(), st.text(max_size=9))
            for name, value in RING.as_document().items()
        }
    )
)
def test_any_members_are_an_entry_or_one_clear_error(entry: dict[str, Any]) -> None:
    try:
        assert Entry.from_document(entry).as_document() == entry
    except ValueError:
        assert entry != RING.as_document()


def test_file_of_another_user_or_that_others_may_write_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    record = Record(path)
    record.write([RING])
    path.chmod(0o660)
    with pytest.raises(CaptureError, match="others than the owner may write"):
        record.read()
    path.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65534)
        with pytest.raises(CaptureError, match="belongs to user 65534"):
            record.read()
        os.chown(path, 0, 0)
    link = tmp_path / "link.json"
    link.symlink_to(path)
    with pytest.raises(CaptureError, match="cannot read"):
        Record(link).read()


@pytest.mark.parametrize("kind", ["directory", "fifo", "zero"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "doctor.json"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path = Path("/dev/zero")
    with pytest.raises(CaptureError, match="not a regular file"):
        Record(path).read()


def test_new_record_takes_the_place_of_the_old_in_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "doctor.json")
    record.write([FILE])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CaptureError, match=r"No space left on device.*nothing more is changed"):
        record.write([FILE, RING])
    monkeypatch.undo()
    assert record.read() == [FILE]
    assert list(tmp_path.iterdir()) == [record.path]


@pytest.mark.thorough
def test_writer_that_is_killed_at_any_moment_leaves_a_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "doctor.json"
    script = (
        "import sys; from pathlib import Path; from uspcap.doctor.record import Record\n"
        "record = Record(Path(sys.argv[1])); entries = record.read()\n"
        "print('ready', flush=True)\n"
        "while True:\n"
        "    record.write(entries * 200); record.write(entries[:1])\n"
    )
    record = Record(path)
    record.write([FILE, RING])
    for number in range(5):
        with subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(0.02 + 0.003 * number)
            writer.send_signal(signal.SIGKILL)
        assert {entry.change.kind for entry in record.read()} <= {"file", "ring"}
        record.write([FILE, RING])


def test_lock_of_a_process_that_was_killed_is_free(tmp_path: Path) -> None:
    record = Record(tmp_path / "doctor.json")
    script = (
        "import sys, time; from pathlib import Path; from uspcap.doctor.record import Record\n"
        "with Record(Path(sys.argv[1])).locked():\n"
        "    print('locked', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(record.path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(CaptureError, match=rf"\(process {holder.pid}\)"), record.locked():
            pass
        holder.kill()
    with record.locked():
        pass
    assert list(tmp_path.iterdir()) == []


def test_lock_on_a_file_that_another_has_removed_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Record(tmp_path / "doctor.json")
    lock = tmp_path / "doctor.json.lock"
    flock = fcntl.flock
    removed = []

    def flock_after_the_owner_has_gone(descriptor: int, operation: int) -> None:
        if not removed:
            removed.append(lock.stat().st_ino)
            lock.unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock_after_the_owner_has_gone)
    with record.locked():
        assert removed
        with pytest.raises(CaptureError, match="another uspcap doctor"), record.locked():
            pass


def test_lock_that_is_somebodys_link_is_not_followed(tmp_path: Path) -> None:
    record = Record(tmp_path / "doctor.json")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "doctor.json.lock").symlink_to(victim)
    with pytest.raises(CaptureError, match="cannot lock"), record.locked():
        pass
    assert victim.read_text() == "precious"
