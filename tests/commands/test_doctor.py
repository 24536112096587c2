"""`uspcap doctor` as users start it."""

import json
import re
import socket
from pathlib import Path

import jsonschema
import pytest
from support.command_line import assert_one_clear_line, invoke
from support.veth_pairs import HERE, Pair

from uspcap.bpf.attach import CaptureMaps, attach_capture
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
        assert (undone.code, undone.stdout) == (0, f"uspcap: put back rxvlan of {HERE}: off → on\n")
        assert _offloads() == before
        assert invoke("doctor", "--undo", "--record", record).stdout == "uspcap: nothing was changed\n"


def _offloads() -> dict[str, str]:
    document = json.loads(invoke("doctor", "-i", HERE, "--format", "json").stdout)
    names = ("gro", "lro", "gro-hw", "rxvlan")
    return {one["name"]: one["evidence"] for one in document["findings"] if one["name"] in names}


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
