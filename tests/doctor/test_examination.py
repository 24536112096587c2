"""A look at a whole host: whatever it holds, every check leaves a row, and what is offered can be made."""

import dataclasses
import json
import os
import random
import shutil
import unicodedata
from pathlib import Path

import jsonschema
import pytest
from support.hostile_hosts import HostileDriver, hostile_calls, hostile_host
from support.made_up_hosts import PCI, UNTUNED, MadeUpDriver, host_files, made_up_host
from support.nic_kernel import NicKernel

from uspcap.doctor import examination as examined
from uspcap.doctor.applying import Changer
from uspcap.doctor.driver import FEATURES, Feature, Rings
from uspcap.doctor.examination import Examination, examine
from uspcap.doctor.findings import MOST_EVIDENCE, Check, Finding, Status
from uspcap.doctor.host import Host
from uspcap.doctor.host_checks import HOST_CHECKS
from uspcap.doctor.nic_checks import NIC_CHECKS
from uspcap.doctor.record import Record
from uspcap.errors import CaptureError, UsageError
from uspcap.foreign_text import safe_text
from uspcap.report.doctor_report import examination_page, load_schema
from uspcap.report.renderers.text import as_text

HOSTILE_HOSTS = int(os.environ.get("USPCAP_HOSTILE_HOSTS", "150"))
"""How many are tried: more on request."""

VALIDATOR = jsonschema.Draft202012Validator(load_schema())


def rendered(examination: Examination) -> str:
    return as_text(examination_page(examination), 100)


def check_everything(examination: Examination) -> None:
    """Check what holds of every examination."""
    VALIDATOR.validate(json.loads(json.dumps(examination.as_document(), allow_nan=False)))
    for finding in examination.findings:
        assert finding.evidence.strip(), finding
        assert finding.source
        assert not any(change.flaw() for change in finding.changes), finding
        assert len(finding.evidence) <= MOST_EVIDENCE + 3
        assert finding.consequence or finding.status in (Status.OK, Status.UNKNOWN), finding
    shown = rendered(examination)
    assert not any(unicodedata.category(char) == "Cc" and char != "\n" for char in shown)


@pytest.mark.thorough
@pytest.mark.parametrize("block", range(10))
def test_host_that_makes_no_sense_gets_a_row_for_each_check(tmp_path: Path, block: int) -> None:
    for number in range(HOSTILE_HOSTS // 10):
        choose = random.Random(f"{block} {number}")
        root = tmp_path / str(number)
        host = hostile_host(root, choose)
        driver, calls = HostileDriver(choose), hostile_calls(choose)
        try:
            examination = examine("eth0", host, driver, calls)
        except CaptureError as error:
            assert "there is no interface 'eth0'" in str(error) or "reports nothing" in str(error)
            examination = examine(None, host, driver, calls)
        check_everything(examination)
        names = {finding.name for finding in examination.findings if finding.subject == "host"}
        assert names - {"interfaces"} == {check.name for check in HOST_CHECKS}
        if examination.interface:
            names = {finding.name for finding in examination.findings if finding.subject == "eth0"}
            assert {check.name for check in NIC_CHECKS} - names <= {"offloads"}
        assert calls.open_clocks == 0
        shutil.rmtree(root)


@pytest.mark.thorough
@pytest.mark.parametrize("block", range(5))
def test_what_is_offered_on_a_host_that_makes_no_sense_is_made_or_reported(tmp_path: Path, block: int) -> None:
    for number in range(HOSTILE_HOSTS // 10):
        choose = random.Random(f"changes {block} {number}")
        root = tmp_path / str(number)
        host = hostile_host(root, choose)
        driver, calls = HostileDriver(choose), hostile_calls(choose)
        try:
            examination = examine("eth0", host, driver, calls)
        except CaptureError:
            examination = examine(None, host, driver, calls)
        said: list[str] = []
        changer = Changer(host.files, driver, Record(tmp_path / f"{number}.json"), said.append)
        changes, _ = examination.changes(["all"], said.append)
        complete = changer.apply(changes)
        assert len(said) == len(changes)
        assert complete or any("not changed" in line or "though" in line for line in said)
        entries = changer.record.read()
        said.clear()
        restored = changer.undo()
        outcomes = [line for line in said if line.startswith(("restored", "left", "not restored"))]
        assert len(outcomes) == len(entries)
        assert restored == (not any(line.startswith("not restored") for line in said))
        assert restored == (changer.record.read() == [])
        for line in said:
            assert "\n" not in safe_text(line)
        shutil.rmtree(root)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ZeroDivisionError("division by zero"), "of ZeroDivisionError: division by zero"),
        (PermissionError(13, "Permission denied", "/sys/x"), "/sys/x: Permission denied"),
        (OSError(19, "No such device"), "because No such device"),
        (CaptureError("the clock is gone"), "the clock is gone"),
        (AssertionError(), "of AssertionError"),
    ],
)
def test_check_that_fails_leaves_one_row_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    def fail(host: Host) -> Finding:
        raise error

    checks = [HOST_CHECKS[0], Check("broken", "/sys/x", fail), *HOST_CHECKS[1:]]
    monkeypatch.setattr(examined, "HOST_CHECKS", checks)
    examination = examine(None, made_up_host(tmp_path, UNTUNED), MadeUpDriver(), NicKernel())
    assert len(examination.findings) == len(checks)
    row = examination.findings[1]
    assert (row.name, row.status, row.source, row.subject) == ("broken", Status.UNKNOWN, "/sys/x", "host")
    assert row.evidence.startswith("could not be checked, because ")
    assert said in row.evidence


def test_what_is_left_of_a_container_without_sys_is_reported(tmp_path: Path) -> None:
    host = dataclasses.replace(made_up_host(tmp_path, {}), files=host_files(tmp_path / "empty", {}))
    examination = examine(None, host, MadeUpDriver(), NicKernel())
    check_everything(examination)
    unknown = {finding.name for finding in examination.findings if finding.status is Status.UNKNOWN}
    assert unknown >= {"bpf-jit", "clock-source", "cpu-isolation", "hyper-threads", "huge-pages", "hypervisor"}
    # What cannot be seen is not said to be absent.
    assert "irqbalance" in unknown


def test_changes_are_those_of_the_names_each_once(tmp_path: Path) -> None:
    driver = MadeUpDriver(
        the_link=PCI,
        the_features={**{name: Feature(True) for name in FEATURES}, "lro": Feature(True, fixed=True)},
        the_rings=Rings(8192, 8192),
    )
    examination = examine("eth0", made_up_host(tmp_path, UNTUNED), driver, NicKernel())
    said: list[str] = []
    changes, complete = examination.changes(["gro", "rxvlan", "gro"], said.append)
    assert ([change.what for change in changes], complete, said) == (["gro", "rxvlan"], True, [])
    changes, complete = examination.changes(["all"], said.append)
    assert {"gro", "gro-hw", "rxvlan"} <= {change.what for change in changes}
    assert "lro" not in {change.what for change in changes}
    assert (complete, said) == (True, [])
    changes, complete = examination.changes(["lro", "receive-ring"], said.append)
    assert (changes, complete) == ([], False)
    assert said == [
        "not changed: lro (on [fixed]) is not something that uspcap can change",
        "nothing to change: receive-ring is as it should be (8192 of at most 8192)",
    ]
    with pytest.raises(UsageError, match="no finding 'speed' to apply"):
        examination.changes(["all", "speed"], said.append)
