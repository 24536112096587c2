"""`uspcap doctor` as users start it."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
from support.command_line import PROGRAM, assert_one_clear_line, invoke
from support.unprivileged import nobody_with
from support.veth_pairs import HERE, Pair

from uspcap.bpf.attach import CaptureMaps, attach_capture
from uspcap.doctor.driver import KernelDriver
from uspcap.doctor.record import Record
from uspcap.report.doctor_report import load_schema


def test_document_keeps_to_its_schema(pair: Pair) -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())
    with pair.here.entered():
        ended = invoke("doctor", "-i", HERE, "--format", "json")
    assert (ended.code, ended.stderr) == (0, "")
    document = json.loads(ended.stdout)
    jsonschema.validate(document, load_schema())
    assert document["interface"] == HERE
    assert {finding["subject"] for finding in document["findings"]} == {"host", HERE}
    names = [finding["name"] for finding in document["findings"]]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("columns", ["80", "120"])
def test_text_fits_the_terminal_but_for_commands(pair: Pair, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    with pair.here.entered():
        ended = invoke("doctor", "-i", HERE)
    assert ended.code == 0
    assert f"interface {HERE}" in ended.stdout
    assert "virtual, veth; MTU 1500; up" in ended.stdout
    assert all(len(line) <= int(columns) for line in ended.lines if " $ " not in line)


def test_without_an_interface_those_that_there_are_are_named(pair: Pair) -> None:
    with pair.here.entered():
        ended = invoke("doctor")
    assert ended.code == 0
    assert re.search(rf"\n  (\w+) +{HERE} +virtual, veth; MTU 1500; up\n +advice: .*\brxvlan\b", ended.stdout)
    assert re.search(r"\n  (\w+) +lo +virtual, lo; MTU 65536; up\n", ended.stdout)


def test_program_on_the_hook_is_named(pair: Pair, kernel_bpf: None) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps, attach_capture(HERE, None, maps):
        ended = invoke("doctor", "-i", HERE)
        strict = invoke("doctor", "-i", HERE, "--strict")
    assert re.search(r"problem +xdp-hook +program \d+ \(uspcap_capture\) is attached", ended.stdout)
    assert (ended.code, strict.code) == (0, 1)


def test_what_is_applied_is_announced_and_taken_back(pair: Pair, tmp_path: Path) -> None:
    record = tmp_path / "doctor.json"
    with pair.here.entered():
        before = _offloads()
        assert before["rxvlan"] == "on"
        applied = invoke("doctor", "-i", HERE, "--apply", "rxvlan", "--record", record)
        assert applied.stderr == f"uspcap: changed rxvlan of {HERE}: on → off\n"
        assert _offloads() == {**before, "rxvlan": "off"}
        undone = invoke("doctor", "--undo", "--record", record)
        assert (undone.code, undone.stdout) == (0, f"uspcap: restored rxvlan of {HERE}: off → on\n")
        assert _offloads() == before
        assert invoke("doctor", "--undo", "--record", record).stdout == "uspcap: nothing was changed\n"


@pytest.fixture
def merging(pair: Pair) -> Pair:
    """Give a pair with GRO on, so that it can be switched off."""
    with pair.here.entered():
        KernelDriver().set_feature(HERE, "gro", True)
    return pair


def test_other_namespace_and_other_interface_of_the_same_name_are_left_alone(merging: Pair, tmp_path: Path) -> None:
    pair = merging
    record = tmp_path / "doctor.json"
    with pair.here.entered():
        assert invoke("doctor", "-i", HERE, "--apply", "gro,rxvlan", "--record", record).code == 0
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    written = record.read_bytes()
    pair.there.ip("link", "add", "name", HERE, "type", "veth", "peer", "name", "other0")
    with pair.there.entered():
        before = _offloads()
        elsewhere = invoke("doctor", "--undo", "--record", record)
        assert elsewhere.code == 1
        assert len(re.findall(r"not restored: \w+ of here0: .*in another network namespace", elsewhere.stdout)) == 2
        assert _offloads() == before
    assert record.read_bytes() == written
    pair.here.ip("link", "delete", HERE)
    pair.here.ip("link", "add", "name", HERE, "type", "veth", "peer", "name", "other0")
    with pair.here.entered():
        before = _offloads()
        made_again = invoke("doctor", "--undo", "--record", record)
        assert made_again.code == 1
        assert len(re.findall("not restored: .* here0 is not the interface that was changed", made_again.stdout)) == 2
        assert _offloads() == before
        assert record.read_bytes() == written
        forgotten = invoke("doctor", "--undo", "--forget", "--record", record)
        assert (forgotten.code, len(re.findall("forgotten: ", forgotten.stdout))) == (0, 2)
    assert not record.exists()


def test_interface_that_was_renamed_is_restore(pair: Pair, tmp_path: Path) -> None:
    record = tmp_path / "doctor.json"
    with pair.here.entered():
        before = _offloads()
        invoke("doctor", "-i", HERE, "--apply", "rxvlan", "--record", record)
        pair.here.ip("link", "set", HERE, "name", "lan0")
        undone = invoke("doctor", "--undo", "--record", record)
        assert (undone.code, undone.stdout) == (0, "uspcap: restored rxvlan of lan0: off → on\n")
        pair.here.ip("link", "set", "lan0", "name", HERE)
        assert _offloads() == before


def test_doctor_that_is_killed_in_the_middle_leaves_what_undo_needs(merging: Pair, tmp_path: Path) -> None:
    record = tmp_path / "doctor.json"
    script = (
        "import os, signal, sys\n"
        "from uspcap.cli import main\n"
        "from uspcap.doctor.driver import KernelDriver\n"
        "switch = KernelDriver.set_feature\n"
        "def set_feature(self, name, feature, on):\n"
        "    switch(self, name, feature, on)\n"
        "    if feature == 'rxvlan': os.kill(os.getpid(), signal.SIGKILL)\n"
        "KernelDriver.set_feature = set_feature\n"
        "main(sys.argv[1:])\n"
    )
    words = ("doctor", "-i", HERE, "--apply", "gro,rxvlan", "--record", str(record))
    with merging.here.entered():
        before = _offloads()
        killed = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, timeout=120, check=False)
        assert killed.returncode == -signal.SIGKILL
        assert _offloads() != before
        undone = invoke("doctor", "--undo", "--record", record)
        assert undone.code == 0, undone
        assert _offloads() == before
    assert not record.exists()


def test_change_that_is_refused_is_one_sentence_and_an_exit_code(merging: Pair, tmp_path: Path) -> None:
    script = (
        "from uspcap.doctor import driver\n"
        "from pyroute2.ethtool.ioctl import NotSupportedError\n"
        "def refuse(name, change): raise NotSupportedError(name)\n"
        "driver._change = refuse\n"
        "from uspcap.cli import main\n"
        "import sys; main(sys.argv[1:])\n"
    )
    words = ("doctor", "-i", HERE, "--apply", "gro,rxvlan", "--record", str(tmp_path / "doctor.json"))
    done = subprocess.run(
        merging.here.command(sys.executable, "-c", script, *words), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert [line.split(" cannot be off")[0] for line in done.stderr.splitlines()] == [
        f"uspcap: not changed: gro of {HERE}",
        f"uspcap: not changed: rxvlan of {HERE}",
    ]
    assert "checks" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_missing_capability_to_change_settings_is_reported(merging: Pair) -> None:
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    record = Path("/var/tmp") / f"uspcap-test-{os.getpid()}" / "doctor.json"
    words = ("doctor", "-i", HERE, "--apply", "gro", "--record", str(record))
    record.parent.mkdir()
    try:
        record.parent.chmod(0o777)
        command = nobody_with((), "from uspcap.cli import main; main(sys.argv[1:])", *words)
        done = subprocess.run(merging.here.command(*command), capture_output=True, text=True, check=False)
    finally:
        left = [path.name for path in record.parent.iterdir()]
        shutil.rmtree(record.parent)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"uspcap: not changed: gro of {HERE} cannot be off: EPERM (Operation not permitted); ")
    assert "CAP_NET_ADMIN is missing" in line
    assert left == []


def test_record_that_is_none_is_one_clear_line(merging: Pair, tmp_path: Path) -> None:
    record = tmp_path / "doctor.json"
    record.write_text('{"schema": "uspcap.doctor-record/1", "changes": [{"kind": "file", "where": "/etc/passwd"}]}')
    with merging.here.entered():
        assert_one_clear_line(invoke("doctor", "--undo", "--record", record), 1, str(record), "not a record of changes")
        applied = invoke("doctor", "-i", HERE, "--apply", "gro", "--record", record)
        assert_one_clear_line(applied, 1, str(record), "not a record of changes")
        assert_one_clear_line(invoke("doctor", "--undo", "--record", tmp_path), 1, "not a regular file")
        assert_one_clear_line(invoke("doctor", "--undo", "--record", "/dev/null"), 1, "not a regular file")


def test_second_doctor_waits_for_nobody(pair: Pair, tmp_path: Path) -> None:
    record = tmp_path / "doctor.json"
    with pair.here.entered(), Record(record).locked():
        before = _offloads()
        applied = invoke("doctor", "-i", HERE, "--apply", "rxvlan", "--record", record)
        assert_one_clear_line(applied, 1, f"another uspcap doctor (process {os.getpid()}) is changing settings")
        record.write_text("{")
        assert_one_clear_line(invoke("doctor", "--undo", "--record", record), 1, "another uspcap doctor")
        assert _offloads() == before


def test_what_is_well_or_fixed_has_nothing_to_change(pair: Pair, tmp_path: Path) -> None:
    with pair.here.entered():
        ended = invoke("doctor", "-i", HERE, "--apply", "lro", "--record", tmp_path / "doctor.json")
    assert (ended.code, ended.stderr) == (0, "uspcap: nothing to change: lro is as it should be (off [fixed])\n")


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        ("-Ur", {"packet-ring", "bpf-map", "xdp-program", "xdp-socket"}),
        ("-Urn", {"bpf-map", "xdp-program"}),
    ],
)
def test_user_namespace_is_seen_through(words: str, problems: set[str]) -> None:
    command = ["unshare", words, *PROGRAM, "doctor", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if "unshare" in done.stderr:
        pytest.skip(f"this machine lacks user namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    jsonschema.validate(document, load_schema())
    found = {finding["name"]: finding for finding in document["findings"]}
    assert {name for name, finding in found.items() if finding["status"] == "problem"} >= problems
    for name in problems:
        assert ": EPERM (Operation not permitted)" in found[name]["evidence"]
        assert "of a user namespace" in found[name]["consequence"]
    assert "of a user namespace, not of the host" in found["capabilities"]["evidence"]


def test_document_without_an_interface_has_all_of_them(pair: Pair) -> None:
    with pair.here.entered():
        document = json.loads(invoke("doctor", "--format", "json").stdout)
    jsonschema.validate(document, load_schema())
    assert document["interface"] is None
    assert {finding["subject"] for finding in document["findings"]} == {"host"}
    assert [row["name"] for row in document["overview"]] == ["lo", HERE]
    for row in document["overview"]:
        assert {finding["subject"] for finding in row["findings"]} == {row["name"]}
        assert row["status"] in {finding["status"] for finding in row["findings"]}


def _offloads() -> dict[str, str]:
    document = json.loads(invoke("doctor", "-i", HERE, "--format", "json").stdout)
    names = ("gro", "lro", "gro-hw", "rxvlan")
    return {one["name"]: one["evidence"] for one in document["findings"] if one["name"] in names}


@pytest.mark.parametrize("other", ["blue", "x" * 100])
def test_alternative_name_is_taken_and_the_name_is_reported(merging: Pair, tmp_path: Path, other: str) -> None:
    merging.here.ip("link", "property", "add", "dev", HERE, "altname", other)
    record = tmp_path / "doctor.json"
    with merging.here.entered():
        document = json.loads(invoke("doctor", "-i", other, "--format", "json").stdout)
        listed = json.loads(invoke("doctor", "--format", "json").stdout)
        applied = invoke("doctor", "-i", other, "--apply", "gro", "--record", record)
        undone = invoke("doctor", "--undo", "--record", record)
    assert document["interface"] == HERE
    assert {finding["subject"] for finding in document["findings"]} == {"host", HERE}
    assert next(row for row in listed["overview"] if row["name"] == HERE)["other_names"] == [other]
    assert applied.stderr == f"uspcap: changed gro of {HERE}: on → off\n"
    assert undone.stdout == f"uspcap: restored gro of {HERE}: off → on\n"


def test_wrong_use_is_one_clear_line(pair: Pair) -> None:
    with pair.here.entered():
        assert_one_clear_line(invoke("doctor", "-i", "none0"), 1, "no interface 'none0'", HERE)
        assert_one_clear_line(invoke("doctor", "-i", HERE, "--undo"), 2, "--undo", "alone")
        assert_one_clear_line(invoke("doctor", "--apply", "speed"), 2, "no finding 'speed'", "can be applied")


def test_nothing_is_sent_and_nothing_stays_open(pair: Pair) -> None:
    with pair.here.entered():
        before = len(list(Path("/proc/self/fd").iterdir()))
        invoke("doctor", "-i", HERE)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert socket.if_nametoindex(HERE)
