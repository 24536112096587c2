"""uspcap from Python: the same as from the command line, and batches that may be kept."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from support.command_line import invoke
from support.shared_cases import CASES, needs_cases
from support.traffic import numbered_frame
from support.veth_pairs import HERE, Pair

import uspcap
from uspcap.analysis import registry
from uspcap.errors import CaptureError, UsageError
from uspcap.formats import open_capture
from uspcap.report.schema import load_schema

SAMPLES = Path(__file__).parents[1] / "sample_captures"
MICROBURST = SAMPLES / "microburst.pcap"
CAPTURES = sorted(one for one in SAMPLES.glob("*.pcap*") if one.suffix != ".json")


def test_public_functions_are_functions_whatever_was_imported_before() -> None:
    for module in pkgutil.walk_packages(uspcap.__path__, "uspcap."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("open", "analyze", "compare", "capture"):
        assert callable(getattr(uspcap, name)), name
        assert name in dir(uspcap)


def test_importing_uspcap_loads_nothing_else() -> None:
    program = "import sys, uspcap; print([one for one in sys.modules if one.startswith(('uspcap.', 'numpy', 'rich'))])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "['uspcap.version']\n"


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_a_report_is_that_of_the_command_line(path: Path) -> None:
    report = uspcap.analyze(path, line_rate="10G", gap_threshold="1ms", top=3)
    words = ("--line-rate", "10G", "--gap-threshold", "1ms", "--top", "3", "--format", "json")
    ended = invoke("analyze", path, *words)
    assert report.document == json.loads(ended.stdout)
    assert report.to_json() + "\n" == ended.stdout
    assert bool(report.problems) == bool(ended.code)
    assert report["gaps"].as_dict() == report.document["analyses"]["gaps"]
    assert report["gaps"].count == report["gaps"]["count"]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.name)
def test_batches_may_all_be_kept(path: Path) -> None:
    kept = list(uspcap.open(path, sort="off").batches())
    with open_capture(str(path)) as reader:
        at = 0
        for batch in reader.batches():
            if not batch.count:
                continue
            copy = kept[at]
            at += 1
            assert [copy.frame_bytes(row) for row in range(copy.count)] == [
                batch.frame_bytes(row) for row in range(batch.count)
            ]
            for name in ("timestamp_ns", "wire_length", "frame_number", "interface", "options_length", "drop_count"):
                assert np.array_equal(copy.column(name), batch.column(name)), name
            for row in np.flatnonzero(batch.column("options_length")).tolist():
                assert options_of(copy, row) == options_of(batch, row)
            assert copy.interfaces == batch.interfaces
            assert copy.data.base is None or copy.data.flags.owndata
    assert at == len(kept)


def options_of(batch: object, row: int) -> bytes:
    start = int(batch.column("options_offset")[row])  # type: ignore[attr-defined]
    length = int(batch.column("options_length")[row])  # type: ignore[attr-defined]
    return batch.data[start : start + length].tobytes()  # type: ignore[attr-defined, no-any-return]


def test_several_files_are_one_stream(tmp_path: Path) -> None:
    other = tmp_path / "other.pcap"
    other.write_bytes(Path(MICROBURST).read_bytes())
    frames = sum(batch.count for batch in uspcap.open(MICROBURST, other).batches())
    assert frames == 2 * 593 == uspcap.analyze([MICROBURST, other], "summary")["summary"]["packets"]


def test_a_filter_holds_for_batches_and_analyses() -> None:
    pytest.importorskip("cypcap", reason="filters need libpcap")
    capture = uspcap.open(MICROBURST, filter="vlan and udp dst port 30002")
    assert sum(batch.count for batch in capture.batches()) == 84
    assert capture.analyze("summary")["summary"]["packets"] == 84


def test_tables_are_data_frames() -> None:
    report = uspcap.analyze(MICROBURST, "gaps", gap_threshold=100_000)
    table = report.to_pandas("gaps", "gaps")
    assert isinstance(table, pd.DataFrame)
    assert len(table) == report["gaps"]["count"]
    assert (table["gap_ns"] > 100_000).all()
    with pytest.raises(KeyError):
        report.to_pandas("gaps", "none")


def test_a_report_prints_as_the_terminal_shows_it() -> None:
    assert str(uspcap.analyze(MICROBURST, "summary")).startswith(f"uspcap {MICROBURST}\n  packets     593")
    assert "593" in str(uspcap.compare(MICROBURST, MICROBURST))


def test_a_comparison_is_that_of_the_command_line() -> None:
    ended = invoke("compare", MICROBURST, MICROBURST, "--window", "1ms", "--format", "json")
    assert uspcap.compare(MICROBURST, MICROBURST, window_ns=1_000_000).document == json.loads(ended.stdout)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"only": "nothing"}, "there is no analysis 'nothing' of files; there are summary, timestamps"),
        ({"only": "path_latency"}, "there is no analysis 'path_latency' of files"),
        ({"speed": 3}, "no analysis has an option 'speed'; there are top, gap_threshold"),
        ({"gap_threshold": "5"}, "gap_threshold: '5' is not a duration; write a number and ns"),
        ({"only": "gaps", "line_rate": "10G"}, "--line-rate is an option of bursts: add only bursts, or leave it out"),
        ({"only": "requests", "match": "none"}, "match is one of flow, client, key, and not 'none'"),
        ({"timestamps": "nobody"}, "'nobody' is not a timestamp source; write file, trailer or trailer:FORMAT"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as raised:
        uspcap.analyze(MICROBURST, **options)  # type: ignore[arg-type]
    assert str(raised.value).startswith(sentence)


def test_an_option_is_there_for_every_one_on_the_command_line() -> None:
    shown = invoke("analyze", "--help").stdout
    for option in registry.options():
        assert option.flag in shown


def test_numbers_that_an_option_does_not_take_are_refused_as_text_is() -> None:
    for value in (-1, 0, "0"):
        with pytest.raises(UsageError, match="is not a quorum"):
            uspcap.analyze(SAMPLES / "microburst.pcap", only="requests", quorum=value)
    with pytest.raises(UsageError, match="not a whole number"):
        uspcap.analyze(SAMPLES / "microburst.pcap", top=0)


@contextmanager
def frames_coming(pair: Pair) -> Iterator[None]:
    """Send numbered frames to the near end, one after the other, from another thread."""
    enough = threading.Event()

    def send() -> None:
        number = 0
        while not enough.is_set():
            pair.send(*(numbered_frame(number + one) for one in range(10)))
            number += 10
            enough.wait(0.01)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        enough.set()
        thread.join()


@pytest.mark.parametrize(("backend", "options"), [("packet_mmap", {}), ("af_xdp", {"take_all": True})])
@pytest.mark.usefixtures("kernel_bpf")
def test_batches_of_a_live_capture_are_the_frames_in_a_row_and_may_be_kept(
    pair: Pair, backend: str, options: dict[str, bool]
) -> None:
    capture = uspcap.capture(HERE, filter="udp", backend=backend, count=50, **options)
    with pytest.raises(UsageError, match="accounts are complete at the end"):
        _ = capture.accounts
    with frames_coming(pair), pair.here.entered():
        kept = list(capture.batches())
    frames = [batch.frame_bytes(row) for batch in kept for row in range(batch.count)]
    first = next(number for number in range(10_000) if numbered_frame(number) == frames[0])
    assert frames == [numbered_frame(first + number) for number in range(50)]
    accounts = capture.accounts
    assert accounts["kept"] == 50
    assert accounts["unaccounted"] == 0
    with pytest.raises(UsageError, match="this capture is over"):
        next(capture.batches())


def test_who_stops_asking_for_batches_ends_the_capture(pair: Pair) -> None:
    capture = uspcap.capture(HERE)
    with frames_coming(pair), pair.here.entered():
        batches = capture.batches()
        assert next(batches).count
        batches.close()  # type: ignore[attr-defined]
    assert capture.accounts["unaccounted"] == 0


def test_a_live_report_is_like_that_of_the_command_line(pair: Pair) -> None:
    with frames_coming(pair), pair.here.entered():
        report = uspcap.capture(HERE, count=100).analyze(("summary", "gaps"), gap_threshold="1s")
    assert report.document["source"]["files"] == [HERE]
    assert report.document["source"]["accounts"]["kept"] == 100
    assert set(report.document["analyses"]) == {"summary", "gaps"}
    assert report["gaps"]["threshold_ns"] == 10**9
    assert report["summary"]["packets"] == 100
    jsonschema.validate(report.document, load_schema())


def test_an_interface_that_goes_away_ends_the_loop_with_its_error_after_the_frames(pair: Pair) -> None:
    capture = uspcap.capture(HERE)
    with pair.here.entered():
        batches = capture.batches()
        with frames_coming(pair):
            assert next(batches).count
        pair.here.ip("link", "delete", HERE)
        with pytest.raises(CaptureError, match=HERE):
            for _ in batches:
                pass
    assert capture.accounts["kept"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"backend": "dpdk"}, "backend is one of auto"),
        ({"direction": "up"}, "direction is one of"),
        ({"timestamps": "trailer"}, "timestamps is one of"),
        ({"count": 0}, "count is 1 or more"),
        ({"duration": "soon"}, "duration: "),
        ({"take_some": True}, "no backend has an option 'take_some'"),
    ],
)
def test_a_capture_that_makes_no_sense_is_refused_before_it_begins(given: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        uspcap.capture("lo", **given)


def test_a_live_report_needs_an_end_and_analyses_that_there_are() -> None:
    with pytest.raises(UsageError, match="needs an end"):
        uspcap.capture("lo").analyze()
    with pytest.raises(UsageError, match="no analysis 'magic' of live captures"):
        uspcap.capture("lo", count=1).analyze("magic")


@needs_cases
def test_filters_apply_to_innermost_packets_and_tunnels_are_decoded_where_they_carry_most_frames() -> None:
    path = CASES / "files/p10_vxlan.pcap"

    def ports(**options: object) -> set[int]:
        batches = uspcap.open(path, **options).batches()  # type: ignore[arg-type]
        return {int(port) for batch in batches for port in batch.headers.column("destination_port")}

    assert ports() == ports(filter="udp port 26400") == ports(filter="udp port 4789") == {26400}
    assert ports(tunnels=False) == ports(tunnels=False, filter="udp port 4789") == {4789}
    assert ports(filter="udp port 26400", outer=True) == ports(filter="udp port 26400", tunnels=False) == set()
    report = uspcap.analyze(path, "sequence", filter="udp port 26400", protocol="moldudp64")
    assert report["sequence"]["lost"] == 1
    assert report.document["filter"]["reading"] == "inner"
    assert uspcap.open(path, filter="udp port 26400", outer=True).analyze("summary").document["source"]["packets"] == 0
    compared = uspcap.compare(path, path, filter="udp port 26400").document
    assert (compared["frames"]["matched"], compared["filter_reading"]["reading"]) == (299, "inner")
    assert uspcap.compare(path, path, filter="udp port 26400", outer=True).document["frames"]["matched"] == 0
