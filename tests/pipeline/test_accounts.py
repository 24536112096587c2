"""The stages of a capture: whole numbers that close, whatever was lost where."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bpf_samples import TCP_FRAME
from support.capturing import Run, Running, frames_of
from support.traffic import numbered_frame
from support.veth_pairs import HERE, Pair, wait_until

from uspcap.backends.base import Place, SourceStatistics
from uspcap.backends.network_interface import NetworkInterface
from uspcap.pipeline.accounts import as_dict, stage_lines, stages
from uspcap.pipeline.session import Accounts
from uspcap.report.schema import load_schema

COUNT = st.integers(0, 1 << 40)
PLACES: tuple[Place, ...] = ("xdp", "socket", "reader")


@st.composite
def accounts(draw: st.DrawFn) -> Accounts:
    """Accounts of a source with or without a hook, that miscounts or does not."""
    hook = draw(st.booleans())
    dropped_at = {
        place: {f"{place} {number}": draw(st.integers(1, 1 << 40)) for number in range(draw(st.integers(0, 2)))}
        for place in PLACES
        if hook or place != "xdp"
    }
    dropped = {cause: count for causes in dropped_at.values() for cause, count in causes.items()}
    statistics = SourceStatistics(
        received=draw(COUNT) + sum(dropped.values()),
        delivered=draw(COUNT),
        filtered=draw(COUNT),
        dropped=dropped,
        waiting=draw(COUNT),
        remarks=draw(st.dictionaries(st.text(), COUNT, max_size=2)),
        cut=draw(COUNT),
        dropped_at=dropped_at,
        interface_counts={"rx_packets": draw(COUNT)},
    )
    if hook:
        statistics.seen = statistics.received + draw(COUNT)
    kept = draw(COUNT)
    written = draw(st.none() | st.integers(0, kept))
    return Accounts(statistics, kept, draw(COUNT), written, 0 if written is None else kept - written)


@pytest.mark.parametrize(
    ("statistics", "said"),
    [
        (
            SourceStatistics(received=300, delivered=0),
            "300 frames that came to x0 were neither kept nor counted",
        ),
        (SourceStatistics(received=300, delivered=301), "1 more frames came from x0 than were counted"),
        (SourceStatistics(received=300, delivered=300, cut=7), "the driver of x0 cut 7 frames"),
        (SourceStatistics(received=300, delivered=200, dropped={"ring full": 100}), ""),
    ],
)
def test_counts_that_do_not_close_are_an_error(statistics: SourceStatistics, said: str) -> None:
    complaint = Accounts(statistics, statistics.delivered, 0, statistics.delivered, 0).complaint("x0")
    assert complaint.startswith(said)
    assert bool(complaint) == bool(said)


def test_counts_of_one_interface_among_several_that_do_not_close_are_an_error() -> None:
    right = SourceStatistics(received=9, delivered=9)
    for wrong, said in (
        (SourceStatistics(seen=0, interface_counts={"rx_packets": 50}), "50 frames came to x1 and none to its"),
        (SourceStatistics(received=5, delivered=5, cut=2), "the driver of x1 cut 2 frames"),
        (SourceStatistics(received=5, delivered=4), "1 frame that came to x1 was neither kept nor counted"),
    ):
        by_interface = {"x0": right, "x1": wrong}
        total = right.delivered + wrong.delivered
        both = SourceStatistics(received=total, delivered=total, by_interface=by_interface)
        assert Accounts(both, total, 0, total, 0).complaint("x0, x1").startswith(said)


@given(accounts())
def test_every_stage_closes_and_passes_on_what_the_next_receives(one: Accounts) -> None:
    nic, *way = stages(one)
    assert nic.name == "nic"
    assert nic.unaccounted is None
    for stage, following in itertools.pairwise(way):
        assert stage.passed == following.received
    for stage in way:
        assert stage.received is not None
        assert stage.passed is not None
        assert stage.unaccounted is not None
        out = stage.passed + sum(stage.dropped.values()) + sum(stage.left.values())
        assert stage.received == out + stage.unaccounted
    # What no stage can account for is what the accounts as a whole cannot.
    assert sum(stage.unaccounted or 0 for stage in way) == one.unaccounted
    first = way[0].received if one.statistics.seen is not None else one.statistics.received
    assert way[0].received == first
    assert way[-1].passed == (one.kept if one.written is None else one.written)
    lost = sum(count for stage in way for count in stage.dropped.values())
    assert lost == one.statistics.dropped_total + one.unwritten


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": "#/$defs/accounts", "$defs": load_schema()["$defs"]})


@given(one=accounts(), parts=st.lists(accounts(), max_size=2))
def test_accounts_as_json_obey_the_schema(
    schema: jsonschema.Draft202012Validator, one: Accounts, parts: list[Accounts]
) -> None:
    one.statistics.by_interface = {f"eth{number}": part.statistics for number, part in enumerate(parts)}
    document = as_dict(one)
    schema.validate(document)
    assert (document["cut"], document["remarks"]) == (one.statistics.cut, one.statistics.remarks)
    assert list(document["interfaces"]) == list(one.statistics.by_interface)


def test_several_interfaces_have_a_line_each_and_one_for_what_came_of_them() -> None:
    each = {
        name: SourceStatistics(received=count, delivered=count, interface_counts={"rx_packets": count})
        for name, count in (("eth0", 1200), ("eth1", 3))
    }
    statistics = SourceStatistics(received=1203, delivered=1203, interface_counts={"rx_packets": 1203})
    statistics.by_interface = each
    assert stage_lines(Accounts(statistics, 1203, 0, 1203, 0)) == [
        "eth0: NIC 1,200 (the whole interface) → socket 1,200 → reader 1,200",
        "eth1: NIC 3 (the whole interface) → socket 3 → reader 3",
        "all interfaces: writer 1,203 → 1,203 written",
    ]


def test_line_names_each_stage_and_what_it_lost_by_cause() -> None:
    statistics = SourceStatistics(
        received=1900,
        delivered=1498,
        dropped={"ring full": 400},
        dropped_at={"socket": {"ring full": 400}},
        nic_dropped={"rx_missed_errors": 7},
        seen=2001,
        interface_counts={"rx_packets": 2001, "rx_missed_errors": 7, "rx_dropped": 400},
    )
    (line,) = stage_lines(Accounts(statistics, 1490, 5, 1480, 10))
    assert line == (
        "NIC 2,001 (the whole interface; dropped: rx_missed_errors 7; also counted there: rx_dropped 400) "
        "→ XDP 2,001 (not matching, passed to the kernel 101) "
        "→ socket 1,900 (dropped: ring full 400) "
        "→ reader 1,500 (2 not accounted for) "
        "→ writer 1,498 (dropped: the file could not take them 10; after the limit 5; 3 not accounted for) "
        "→ 1,480 written"
    )


def test_interface_that_is_gone_has_no_counters() -> None:
    statistics = SourceStatistics(received=1, delivered=1, interface_counts={})
    (line,) = stage_lines(Accounts(statistics, 1, 0, None, 0))
    assert line == "NIC ? (the whole interface) → socket 1 → reader 1 → analyses 1 → 1 analyzed"


def test_replay_has_no_nic() -> None:
    statistics = SourceStatistics(received=5, delivered=3, filtered=2)
    (line,) = stage_lines(Accounts(statistics, 3, 0, 3, 0))
    assert line == "reader 5 (not matching the filter 2) → writer 3 → 3 written"


BACKENDS = [("packet_mmap",), ("af_xdp", "--take-all")]


@pytest.fixture(params=BACKENDS, ids=["packet_mmap", "af_xdp"])
def backend(request: pytest.FixtureRequest) -> tuple[str, ...]:
    if request.param[0] == "af_xdp":
        request.getfixturevalue("kernel_bpf")
    return ("--backend", *request.param)


def line_of(running: Running) -> str:
    (line,) = (line for line in running.stderr.splitlines() if line.startswith("uspcap: NIC "))
    return line


def test_live_capture_reports_each_stage_and_the_interface_is_counted_as_the_kernel_counts_it(
    pair: Pair, run: Run, tmp_path: Path, backend: Sequence[str]
) -> None:
    def kernels_count() -> int:
        command = pair.here.command("cat", f"/sys/class/net/{HERE}/statistics/rx_packets")
        return int(subprocess.run(command, capture_output=True, check=True).stdout)

    path = tmp_path / "out.pcapng"
    before = kernels_count()
    running = run("-i", HERE, *backend, "-B", "512", "-w", str(path), "udp", "port", "5000").ready()
    # Stopped, so that the ring overflows.
    os.kill(running.process.pid, signal.SIGSTOP)
    matching, others = 2000, 300
    pair.send(*[TCP_FRAME] * others, *[numbered_frame(number, 1000) for number in range(matching)])
    os.kill(running.process.pid, signal.SIGCONT)
    # Its header and much more; to read a file that is being written is another matter.
    assert wait_until(lambda: path.exists() and path.stat().st_size > 50_000)
    assert running.end() == 0
    written = len(frames_of(path))
    assert 0 < written < matching
    line = line_of(running)
    assert kernels_count() - before == matching + others
    assert line.startswith(f"uspcap: NIC {matching + others:,} (the whole interface")
    xdp = f" → XDP {matching + others:,} (not matching, passed to the kernel {others})" if "af_xdp" in backend else ""
    assert f"{xdp} → socket {matching:,} (dropped: " in line
    assert line.endswith(f") → reader {written:,} → writer {written:,} → {written:,} written")
    assert "not accounted" not in line


def test_report_as_json_carries_the_stages(pair: Pair, run: Run, backend: Sequence[str]) -> None:
    running = run("-i", HERE, *backend, "--format", "json", "-c", "5", "udp").ready()
    pair.send(TCP_FRAME, *[numbered_frame(number) for number in range(7)])
    assert running.process.wait(30) == 0
    report = json.loads(running.stdout)
    jsonschema.validate(report, load_schema())
    accounts = report["source"]["accounts"]
    assert (accounts["kept"], accounts["written"], accounts["dropped"], accounts["unaccounted"]) == (5, None, 0, 0)
    by_name = {stage["name"]: stage for stage in accounts["stages"]}
    assert list(by_name) == ["nic", *(["xdp"] if "af_xdp" in backend else []), "socket", "reader", "analyses"]
    assert by_name["analyses"]["passed"] == 5
    assert by_name["analyses"]["left"] == (
        {"after the limit": accounts["received"] - 5} if accounts["received"] > 5 else {}
    )
    assert all(stage["unaccounted"] in (0, None) for stage in accounts["stages"])


def test_drivers_counters_have_their_names_and_those_of_one_name_add_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pair.here.entered():
        interface = NetworkInterface.look_up(HERE)
        assert set(interface.driver_counters()) == set(_ethtool_names(pair))
        counters = [("Rx Queue#", 0), ("  ucast pkts rx", 3), ("Rx Queue#", 1), ("  ucast pkts rx", 4)]
        monkeypatch.setattr("uspcap.backends.network_interface.ask_driver", lambda name, question: counters)
        assert interface.driver_counters() == {"Rx Queue#": 1, "ucast pkts rx": 7}
        monkeypatch.setattr("uspcap.backends.network_interface.ask_driver", lambda name, question: None)
        assert interface.driver_counters() == {}


def _ethtool_names(pair: Pair) -> list[str]:
    done = subprocess.run(pair.here.command("ethtool", "-S", HERE), capture_output=True, text=True, check=True)
    return [line.split(":")[0].strip() for line in done.stdout.splitlines()[1:]]
