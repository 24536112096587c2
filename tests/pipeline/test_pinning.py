import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.capturing import Run
from support.veth_pairs import HERE

from uspcap.errors import UsageError
from uspcap.pipeline.pinning import as_ranges, parse_ranges, pin


@pytest.fixture(autouse=True)
def affinity() -> Iterator[frozenset[int]]:
    allowed = os.sched_getaffinity(0)
    yield frozenset(allowed)
    os.sched_setaffinity(0, allowed)


@given(st.frozensets(st.integers(0, 200), min_size=1))
def test_numbers_are_written_as_they_are_read(numbers: frozenset[int]) -> None:
    assert parse_ranges(as_ranges(numbers)) == numbers


@pytest.mark.parametrize(("text", "numbers"), [("2", {2}), ("0,2-4", {0, 2, 3, 4}), (" 1-1\n", {1})])
def test_kernel_lists_are_read(text: str, numbers: set[int]) -> None:
    assert parse_ranges(text) == numbers


@pytest.mark.parametrize("text", ["", "x", "1-", "3-1", "-1", "1,,2", "1-99999999"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_ranges(text)


def test_neighbours_become_a_range() -> None:
    assert as_ranges({7, 1, 3, 2}) == "1-3,7"


def test_thread_runs_where_it_was_pinned(affinity: frozenset[int]) -> None:
    cpu = max(affinity)
    assert pin({cpu}, []) == f"reading and writing on CPU {cpu}"
    assert os.sched_getaffinity(0) == {cpu}


@pytest.mark.parametrize(("node", "near"), [("1", None), ("1", ""), ("1", "x"), ("", "0"), ("\0", "0")])
def test_nonsense_in_sysfs_does_not_keep_a_thread_from_its_cpu(
    affinity: frozenset[int], tmp_path: Path, node: str, near: str | None
) -> None:
    (tmp_path / "net/eth0/device").mkdir(parents=True)
    (tmp_path / "net/eth0/device/numa_node").write_text(node)
    (tmp_path / "node/node1").mkdir(parents=True)
    if near is not None:
        (tmp_path / "node/node1/cpulist").write_text(near)
    cpu = max(affinity)
    said = pin({cpu}, ["eth0"], network=tmp_path / "net", nodes=tmp_path / "node")
    assert said.startswith(f"reading and writing on CPU {cpu}")
    assert ("does not show which CPUs are near" in said) == (node == "1")
    assert os.sched_getaffinity(0) == {cpu}


def test_cpu_that_may_not_be_used_is_refused_and_nothing_changed(affinity: frozenset[int]) -> None:
    with pytest.raises(UsageError, match=r"cannot run on CPU 9998-9999: this process may use [\d,-]+; see taskset"):
        pin({min(affinity), 9998, 9999}, [])
    assert os.sched_getaffinity(0) == affinity


@pytest.mark.parametrize(
    ("node", "near", "sentence"),
    [
        ("1", "64-127", "; eth0 is at NUMA node 1, whose CPUs are 64-127: CPU {cpu} is far"),
        ("1", "0-127", ""),
        ("-1", "64-127", ""),
    ],
)
def test_numa_node_of_the_device_is_compared(
    tmp_path: Path, affinity: frozenset[int], node: str, near: str, sentence: str
) -> None:
    (tmp_path / "net" / "eth0" / "device").mkdir(parents=True)
    (tmp_path / "net" / "eth0" / "device" / "numa_node").write_text(f"{node}\n")
    (tmp_path / "node" / "node1").mkdir(parents=True)
    (tmp_path / "node" / "node1" / "cpulist").write_text(f"{near}\n")
    cpu = min(affinity)
    said = pin({cpu}, ["eth0"], network=tmp_path / "net", nodes=tmp_path / "node")
    assert said == f"reading and writing on CPU {cpu}" + sentence.format(cpu=cpu)


def test_capture_runs_on_the_cpus_that_are_asked_for(run: Run, affinity: frozenset[int]) -> None:
    cpu = max(affinity)
    running = run("-i", HERE, "--cpu", str(cpu)).ready()
    assert f"uspcap: reading and writing on CPU {cpu}\n" in running.stderr
    threads = Path(f"/proc/{running.process.pid}/task").iterdir()
    lists = {line for one in threads for line in (one / "status").read_text().splitlines() if "_allowed_list" in line}
    assert f"Cpus_allowed_list:\t{cpu}" in lists
    assert running.end() == 0


def test_cpu_that_is_not_there_is_wrong_usage(run: Run) -> None:
    running = run("-i", HERE, "--cpu", "9999")
    assert running.process.wait(30) == 2
    assert running.stderr.startswith("uspcap: cannot run on CPU 9999: this process may use ")
