"""Changing settings and taking that back."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.made_up_hosts import MadeUpDriver, host_files

from uspcap.doctor.changes import Change, Record, Settings, apply, undo
from uspcap.doctor.driver import Coalescing, Rings
from uspcap.errors import CaptureError

FILE = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
CHANGES = [
    Change("file", FILE, "", "powersave", "performance"),
    Change("feature", "eth0", "gro", "on", "off"),
    Change("ring", "eth0", "rx", "512", "4096"),
    Change("coalescing", "eth0", "adaptive-rx", "on", "off"),
    Change("coalescing", "eth0", "rx-usecs", "50", "0"),
]


def untuned(root: Path) -> tuple[Settings, MadeUpDriver]:
    driver = MadeUpDriver(the_features={"gro": True}, the_rings=Rings(512, 4096), the_coalescing=Coalescing(50, True))
    return Settings(host_files(root, {FILE: "powersave\n"}), driver), driver


def values(settings: Settings) -> list[str | None]:
    return [settings.value(change) for change in CHANGES]


def test_changes_are_made_and_taken_back(tmp_path: Path) -> None:
    settings, _ = untuned(tmp_path)
    record = Record(tmp_path / "run" / "doctor.json")
    before = values(settings)
    said = apply(CHANGES, settings, record)
    assert said[0] == f"changed {FILE}: powersave → performance"
    assert values(settings) == [change.after for change in CHANGES]
    assert record.read() == CHANGES
    lines, complete = undo(settings, record)
    assert complete
    assert lines[0] == "put back rx-usecs of eth0: 0 → 50"
    assert values(settings) == before
    assert not (tmp_path / "run" / "doctor.json").exists()
    assert undo(settings, record) == ([], True)


@given(batches=st.lists(st.lists(st.sampled_from(CHANGES), unique=True), max_size=4))
def test_however_often_changes_are_made_the_first_state_comes_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Change]]
) -> None:
    root = tmp_path_factory.mktemp("host")
    settings, _ = untuned(root)
    record = Record(root / "doctor.json")
    before = values(settings)
    for batch in batches:
        # As the checks propose them: only what is not so already.
        apply([change for change in batch if settings.value(change) == change.before], settings, record)
    assert undo(settings, record)[1]
    assert values(settings) == before


def test_what_another_has_changed_meanwhile_stays(tmp_path: Path) -> None:
    settings, driver = untuned(tmp_path)
    record = Record(tmp_path / "doctor.json")
    apply(CHANGES, settings, record)
    driver.the_rings = Rings(1024, 4096)
    driver.the_features = {"gro": True}
    lines, complete = undo(settings, record)
    assert complete
    assert "left: rx of eth0: 4096 → 512, as another has set it to 1024" in lines
    assert "left: gro of eth0: off → on is so already" in lines
    assert driver.the_rings.current == 1024


def test_setting_that_is_gone_is_left(tmp_path: Path) -> None:
    settings, _ = untuned(tmp_path)
    record = Record(tmp_path / "doctor.json")
    apply(CHANGES[:1], settings, record)
    (tmp_path / FILE.lstrip("/")).unlink()
    lines, complete = undo(settings, record)
    assert complete
    assert "is gone" in lines[0]


def test_change_that_the_driver_refuses_is_told_and_not_remembered(tmp_path: Path) -> None:
    settings, _ = untuned(tmp_path)
    record = Record(tmp_path / "doctor.json")
    too_long = Change("ring", "eth0", "rx", "512", "8192")
    (line,) = apply([too_long], settings, record)
    assert line.startswith("not changed: cannot change rx of eth0: 512 → 8192: Invalid argument")
    assert record.read() == []


def test_change_that_the_driver_ignores_is_told(tmp_path: Path) -> None:
    settings, driver = untuned(tmp_path)
    driver.stubborn = True
    record = Record(tmp_path / "doctor.json")
    (line,) = apply(CHANGES[1:2], settings, record)
    assert line.startswith("not changed: gro of eth0: on → off was taken and is on all the same")
    assert record.read() == []


def test_setting_that_cannot_be_put_back_stays_in_the_record(tmp_path: Path) -> None:
    settings, driver = untuned(tmp_path)
    record = Record(tmp_path / "doctor.json")
    apply(CHANGES[1:3], settings, record)
    driver.stubborn = True
    lines, complete = undo(settings, record)
    assert not complete
    assert all(line.startswith("not put back: ") for line in lines)
    assert record.read() == CHANGES[1:3]


def test_nothing_is_changed_that_cannot_be_remembered(tmp_path: Path) -> None:
    settings, _ = untuned(tmp_path)
    before = values(settings)
    with pytest.raises(CaptureError, match="Nothing more is changed"):
        apply(CHANGES, settings, Record(Path("/proc/doctor.json")))
    assert values(settings) == before


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', '[{"kind": "file"}]', "[1]"])
def test_record_that_is_none_is_one_clear_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "doctor.json"
    path.write_text(text)
    with pytest.raises(CaptureError, match="is no record of changes"):
        Record(path).read()
