"""Making changes and putting them back: refusals, other namespaces, other interfaces, and ends in the middle."""

import errno
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.made_up_hosts import PCI, Killed, MadeUpDriver, host_files

from uspcap.doctor.applying import BOOT_ID, Changer
from uspcap.doctor.changes import Change, Settings
from uspcap.doctor.driver import Coalescing, Feature, Rings
from uspcap.doctor.namespace import NetworkNamespace
from uspcap.doctor.record import Record
from uspcap.errors import CaptureError

FILE = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
CHANGES = [
    Change("file", FILE, "", "powersave", "performance"),
    Change("feature", "eth0", "gro", "on", "off"),
    Change("ring", "eth0", "rx", "512", "4096"),
    Change("coalescing", "eth0", "adaptive-rx", "on", "off"),
    Change("coalescing", "eth0", "rx-usecs", "50", "0"),
]
GRO = CHANGES[1:2]


@dataclass
class Bench:
    """A host that is not tuned, and every line that a doctor said on it."""

    root: Path
    driver: MadeUpDriver = field(
        default_factory=lambda: MadeUpDriver(
            the_link=PCI,
            the_features={"gro": Feature(True)},
            the_rings=Rings(512, 8192),
            the_coalescing=Coalescing(50, True),
        )
    )
    said: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.files = host_files(self.root / "host", {FILE: "powersave\n", BOOT_ID: "one\n"})
        self.record = Record(self.root / "run" / "doctor.json")

    def values(self) -> list[str | None]:
        settings = Settings(self.files, self.driver)
        return [settings.value(change) for change in CHANGES]

    def apply(self, changes: list[Change]) -> bool:
        self.said.clear()
        return Changer(self.files, self.driver, self.record, self.said.append).apply(changes)

    def undo(self, *, forget: bool = False) -> bool:
        self.said.clear()
        return Changer(self.files, self.driver, self.record, self.said.append).undo(forget=forget)

    @property
    def recorded(self) -> list[Change]:
        return [entry.change for entry in self.record.read()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_changes_are_made_and_restore(bench: Bench) -> None:
    before = bench.values()
    assert bench.apply(CHANGES)
    assert bench.said[0] == f"changed {FILE}: powersave → performance"
    assert bench.values() == [change.after for change in CHANGES]
    assert bench.recorded == CHANGES
    assert bench.undo()
    assert bench.said[0] == "restored rx-usecs of eth0: 0 → 50"
    assert bench.values() == before
    assert list((bench.root / "run").iterdir()) == []
    assert bench.undo()
    assert bench.said == ["nothing was changed"]


@given(batches=st.lists(st.lists(st.sampled_from(CHANGES), unique=True), max_size=4))
def test_however_often_changes_are_made_the_first_state_comes_back(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[Change]]
) -> None:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    before = bench.values()
    for batch in batches:
        assert bench.apply(batch)
    assert bench.undo()
    assert bench.values() == before


@given(
    batch=st.permutations(CHANGES),
    refuses=st.sets(st.sampled_from(["gro", "rx", "adaptive-rx", "rx-usecs"])),
    killed_at=st.sampled_from(["", "gro", "rx", "adaptive-rx", "rx-usecs"]),
    rounds_to=st.sampled_from([1, 1000]),
    again=st.booleans(),
)
def test_whatever_is_refused_rounded_or_killed_in_the_middle_the_first_state_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
    batch: list[Change],
    refuses: set[str],
    killed_at: str,
    rounds_to: int,
    again: bool,
) -> None:
    bench = Bench(tmp_path_factory.mktemp("bench"))
    before = bench.values()
    bench.driver.refuses, bench.driver.killed_at, bench.driver.rounds_to = refuses, killed_at, rounds_to
    for _ in range(1 + again):
        try:
            bench.apply(batch)
        except Killed:
            assert killed_at not in refuses
        bench.driver.killed_at = ""
    bench.driver.rounds_to = 1
    assert bench.undo(), bench.said
    assert bench.values() == before
    assert bench.record.read() == []


def test_one_change_that_the_driver_refuses_leaves_the_others(bench: Bench) -> None:
    bench.driver.refuses = {"rx"}
    assert not bench.apply(CHANGES)
    assert [line for line in bench.said if line.startswith("not changed")] == [
        "not changed: rx of eth0 cannot be 4096: EOPNOTSUPP (Operation not supported); the driver does not change "
        "this; leave it as it is"
    ]
    assert bench.values() == ["performance", "off", "512", "off", "0"]
    assert bench.recorded == [change for change in CHANGES if change.what != "rx"]


def test_change_that_the_driver_ignores_is_reported_and_not_remembered(bench: Bench) -> None:
    bench.driver.stubborn = True
    assert not bench.apply(GRO)
    assert bench.said == ["not changed: gro of eth0 was set to off but is still on"]
    assert bench.recorded == []


def test_value_that_the_driver_rounds_is_remembered_as_it_is_and_restore(bench: Bench) -> None:
    bench.driver.rounds_to = 1000
    assert not bench.apply(CHANGES[2:3])
    assert bench.said == ["changed rx of eth0: 512 → 5000, though 4096 was asked for"]
    bench.driver.rounds_to = 1
    assert bench.undo()
    assert bench.said == ["restored rx of eth0: 5000 → 512"]


def test_setting_that_cannot_be_read_after_a_refusal_stays_in_the_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(name: str, entries: int) -> None:
        bench.driver.the_rings = None
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(bench.driver, "set_ring", lose)
    assert not bench.apply(CHANGES[2:3])
    assert bench.recorded == CHANGES[2:3]
    assert not bench.undo()
    assert "it cannot be read" in bench.said[0]
    monkeypatch.undo()
    bench.driver.the_rings = Rings(2048, 8192)
    assert bench.undo()
    assert bench.driver.the_rings.current == 512


def test_setting_that_comes_back_in_part_is_restored_in_full_by_the_next_undo(bench: Bench) -> None:
    bench.apply(CHANGES[2:3])
    bench.driver.rounds_to = 1000
    assert not bench.undo()
    assert bench.said[0] == "not restored: rx of eth0: 4096 → 512: it is still 1000"
    bench.driver.rounds_to = 1
    assert bench.undo()
    assert bench.said == ["restored rx of eth0: 1000 → 512"]


def test_what_is_so_already_is_reported_and_not_remembered(bench: Bench) -> None:
    bench.driver.the_features["gro"] = Feature(False)
    assert bench.apply(GRO)
    assert bench.said == ["nothing to change: gro of eth0 is off already"]
    assert bench.recorded == []


def test_value_of_the_moment_is_remembered_and_not_that_of_the_look_before(bench: Bench) -> None:
    bench.driver.the_rings = Rings(1024, 8192)
    assert bench.apply(CHANGES[2:3])
    assert bench.undo()
    assert bench.driver.the_rings.current == 1024


def test_change_is_on_the_disk_before_it_is_made(bench: Bench) -> None:
    bench.driver.killed_at = "rx"
    with pytest.raises(Killed):
        bench.apply(CHANGES[1:])
    entries = bench.record.read()
    assert [(entry.change.what, entry.made) for entry in entries] == [
        ("gro", True),
        ("rx", False),
        ("adaptive-rx", False),
        ("rx-usecs", False),
    ]
    bench.driver.killed_at = ""
    assert bench.undo()
    assert bench.values() == [change.before for change in CHANGES]


def test_what_another_has_changed_meanwhile_stays(bench: Bench) -> None:
    bench.apply(CHANGES)
    bench.driver.the_rings = Rings(1024, 8192)
    bench.driver.the_features["gro"] = Feature(True)
    assert bench.undo()
    assert "left: rx of eth0: 4096 → 512, as another has set it to 1024" in bench.said
    assert "left: gro of eth0: off → on is so already" in bench.said
    assert bench.driver.the_rings.current == 1024


def test_what_could_not_be_restored_stays_in_the_record_with_a_sentence_each(bench: Bench) -> None:
    bench.apply(CHANGES)
    bench.driver.refuses = {"gro"}
    (bench.root / "host" / FILE.lstrip("/")).unlink()
    assert not bench.undo()
    assert [line for line in bench.said if line.startswith("not restored")] == [
        "not restored: gro of eth0: off → on: gro of eth0 cannot be on: EOPNOTSUPP (Operation not supported); the "
        "driver does not change this; leave it as it is",
        f"not restored: {FILE}: performance → powersave: it cannot be read",
    ]
    assert "stays in" in bench.said[-1]
    assert bench.recorded == CHANGES[:2]
    bench.driver.refuses = set()
    assert not bench.undo()
    assert bench.recorded == CHANGES[:1]
    assert not bench.undo(forget=True)
    assert bench.recorded == []


@pytest.mark.parametrize("elsewhere", [NetworkNamespace(4026531840, 7), NetworkNamespace(4026532999, 0)])
def test_interface_of_another_namespace_is_left_alone(bench: Bench, elsewhere: NetworkNamespace) -> None:
    bench.apply(CHANGES)
    home, bench.driver.the_namespace = bench.driver.the_namespace, elsewhere
    changed = bench.values()
    assert not bench.undo()
    assert len([line for line in bench.said if "in another network namespace (net:[4026531840]" in line]) == 4
    # The governor is the host's, in whatever namespace.
    assert bench.values() == ["powersave", *changed[1:]]
    assert bench.recorded == CHANGES[1:]
    bench.driver.the_namespace = home
    assert bench.undo()
    assert bench.values() == [change.before for change in CHANGES]


def test_namespace_is_identified_by_its_inode_where_the_kernel_has_no_cookies(bench: Bench) -> None:
    bench.driver.the_namespace = NetworkNamespace(4026531840, 0)
    bench.apply(GRO)
    assert bench.undo()
    bench.driver.the_namespace = NetworkNamespace(0, 0)
    bench.apply(GRO)
    assert not bench.undo()


@pytest.mark.parametrize("other", [replace(PCI, index=9), replace(PCI, device="0000:5e:00.1")])
def test_another_interface_of_the_same_name_is_left_alone(bench: Bench, other: object) -> None:
    bench.apply(GRO)
    bench.driver.the_link = other  # type: ignore[assignment]
    assert not bench.undo()
    assert "eth0 is not the interface that was changed" in bench.said[0]
    assert bench.driver.the_features["gro"] == Feature(False)
    assert bench.recorded == GRO


def test_interface_with_a_new_name_is_found(bench: Bench) -> None:
    bench.apply(GRO)
    bench.driver.name = "lan0"
    assert bench.undo()
    assert bench.said == ["restored gro of lan0: off → on"]


def test_interface_that_is_gone_is_reported(bench: Bench) -> None:
    bench.apply(GRO)
    bench.driver.the_link = None
    assert not bench.undo()
    assert "eth0 (ifindex 1) is not here" in bench.said[0]
    assert bench.recorded == GRO


def test_record_of_before_the_last_boot_is_dropped(bench: Bench) -> None:
    bench.apply(GRO)
    (bench.root / "host" / BOOT_ID.lstrip("/")).write_text("two\n")
    bench.driver.the_link = replace(PCI, index=12)
    assert bench.undo()
    assert "booted since" in bench.said[0]
    assert bench.recorded == []


def test_nothing_is_changed_that_cannot_be_remembered(bench: Bench) -> None:
    (bench.root / "run").write_text("a file where a directory is to be")
    before = bench.values()
    with pytest.raises(CaptureError, match="cannot lock"):
        bench.apply(CHANGES)
    assert bench.values() == before


def test_nothing_is_changed_where_the_record_is_none(bench: Bench) -> None:
    bench.record.path.parent.mkdir()
    bench.record.path.write_text("{")
    before = bench.values()
    with pytest.raises(CaptureError, match="is not a record of changes"):
        bench.apply(CHANGES)
    assert bench.values() == before
    assert bench.record.path.read_text() == "{"


def test_nothing_to_undo_takes_no_lock_and_leaves_nothing(bench: Bench) -> None:
    assert bench.undo()
    assert bench.said == ["nothing was changed"]
    assert not (bench.root / "run").exists()


def test_two_doctors_do_not_change_settings_at_once(bench: Bench) -> None:
    with bench.record.locked():
        bench.record.path.write_text("{")
        for attempt in (lambda: bench.apply(GRO), bench.undo):
            with pytest.raises(CaptureError, match=r"another uspcap doctor \(process \d+\) is changing settings"):
                attempt()
        bench.record.path.unlink()
    assert bench.apply(GRO)
