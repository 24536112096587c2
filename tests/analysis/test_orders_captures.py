"""Orders in captures: the sample's truth, real sessions against tshark, and what the documents print."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.command_line import invoke

from uspcap.report.schema import load_schema

pytestmark = pytest.mark.oracle

ROOT = Path(__file__).parents[2]
SAMPLE = "sample_captures/order-session.pcap"
SHARED = Path(os.environ.get("USPCAP_SHARED", ROOT.parent / "shared")) / "captures"


@pytest.fixture(autouse=True)
def in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def orders_of(*arguments: str | Path) -> dict[str, Any]:
    ended = invoke("analyze", "--only", "orders", "--format", "json", *arguments)
    assert ended.code == 0, ended.stderr
    report = json.loads(ended.stdout)
    jsonschema.validate(report, load_schema())
    found: dict[str, Any] = report["analyses"]["orders"]
    return found


def capture(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"{SHARED / name} is not there; USPCAP_SHARED says where the captures are")
    return SHARED / name


def test_every_order_of_the_sample_has_the_times_that_were_put_in(tmp_path: Path) -> None:
    truth = json.loads(Path("sample_captures/truth.json").read_text())["order-session.pcap"]
    assert invoke("analyze", SAMPLE, "--only", "orders", "--protocol", "ouch-4.2", "--tables", tmp_path).code == 0
    with (tmp_path / "orders.requests.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    entered = {row["id"]: row for row in rows if row["request"] == "enter"}
    canceled = {row["id"]: row for row in rows if row["request"] == "cancel"}
    assert list(entered) == [order["token"] for order in truth["orders"]]
    again = {pair["of_frame"] for pair in truth["retransmissions"]}
    for order in truth["orders"]:
        row = entered[order["token"]]
        answer = "rejected" if order["fate"] == "rejected" else "accepted"
        assert (int(row["first_frame"]), int(row[f"{answer}_complete_frame"])) == (
            order["frames"][0],
            order["answer_frame"],
        )
        waited = int(row[f"{answer}_complete_ns"]) - int(row["complete_ns"])
        # The truth counts from the copy that arrived, which came 200 ms after its first sighting.
        assert waited == order["answer_ns"] + (200_000_000 if order["frames"][0] in again else 0)
        if "execution_ns" in order:
            assert int(row["executed_complete_ns"]) - int(row["accepted_complete_ns"]) == order["execution_ns"]
        if "cancel_ns" in order:
            cancel = canceled[order["token"]]
            assert int(cancel["canceled_complete_ns"]) - int(cancel["first_ns"]) == order["cancel_ns"]
    assert len(canceled) == truth["counts"]["canceled"]


@pytest.mark.parametrize("protocol", [None, "ouch-4.2"])
def test_the_document_shows_what_is_printed(protocol: str | None) -> None:
    document = Path("docs/orders.md").read_text(encoding="utf-8")
    options = [] if protocol is None else ["--protocol", protocol]
    printed = invoke("analyze", SAMPLE, "--only", "orders", *options).stdout
    shown = [block.split("```")[0] for block in document.split("```text\n")[1:]]
    assert shown[0 if protocol is None else 1].rstrip() in printed


def test_fix_messages_of_a_real_session_are_those_that_tshark_finds() -> None:
    file = capture("fix-orders/nDPI__fix2.pcap")
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    fields = ["tcp.stream", "tcp.srcport", "tcp.seq_raw", "fix.MsgType"]
    command = ["tshark", "-n", "-r", str(file), "-Y", "fix", "-T", "fields"]
    for name in fields:
        command += ["-e", name]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # A message that was retransmitted is in tshark's list as often as it was sent.
    found = {tuple(line.split("\t")[:3]): line.split("\t")[3].split(",") for line in text.splitlines()}
    result = orders_of(file)
    assert result["streams"]["messages"] == sum(map(len, found.values()))
    assert result["streams"]["repeated_bytes"] > 0
    assert [row["protocol"] for row in result["connections"]] == ["FIXT.1.1", "FIXT.1.1"]
    assert result["requests"] == {"enter": 0, "replace": 0, "cancel": 0, "modify": 0}


@pytest.mark.parametrize(
    ("message", "kind", "identity"),
    [("EnterOrderMessage", "enter", "113"), ("CancelOrderMessage", "cancel", "7679601")],
)
def test_real_messages_of_ouch_5_are_read(message: str, kind: str, identity: str) -> None:
    file = capture(f"market-data/omi-data-packets__Nasdaq__Nasdaq.Nsm.Ouch.v5.0__{message}.pcap")
    result = orders_of("--protocol", "ouch-5.0", file)
    assert [(row["request"], row["id"]) for row in result["unanswered_listed"]] == [(kind, identity)]
    assert result["ouch_versions"] == {"application_messages": 1, "fit_4_2": 0, "fit_5_0": 1}


@pytest.mark.parametrize("message", ["LoginAcceptedPacket", "LoginRequestPacket", "OrderAcceptedMessage"])
def test_another_venue_s_messages_are_framed_and_its_login_is_not_reported(message: str) -> None:
    file = capture(f"market-data/omi-data-packets__Jnx__JnxEquities.Pts.Ouch.v1.11__{message}.pcap")
    result = orders_of(file)
    assert result["streams"]["messages"] == 1
    assert "password" not in json.dumps(result)
    assert result["ouch_versions"]["fit_4_2"] == result["ouch_versions"]["fit_5_0"] == 0


def test_traffic_without_orders_is_none() -> None:
    result = orders_of(capture("fix-orders/tcpreplay__test.pcap"))
    assert result["followed"] == result["connections_with_orders"] == 0


def test_the_sample_s_report_keeps_to_the_schema() -> None:
    result = orders_of("--protocol", "ouch-4.2", SAMPLE)
    assert result["venue"]["accepted_to_executed"]["count"] == 8


def test_a_protocol_brings_its_analysis_along() -> None:
    ended = invoke("analyze", SAMPLE, "--only", "summary", "--protocol", "fix")
    assert ended.code == 0
    assert "\nOrders" in ended.stdout
