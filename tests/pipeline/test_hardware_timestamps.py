"""A capture with a simulated NIC's timestamps, from the ring to the report and the file."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import jsonschema
import pytest
from support.memory_ring import BLOCK, MemoryRing, timestamped_frame
from support.nic_kernel import ALL, EXTENDED, SECOND, NicKernel
from support.tpacket_ring import RAW_HARDWARE, SOFTWARE, FakeRing

from uspcap.analysis.suite import Settings, Suite
from uspcap.formats import open_capture
from uspcap.formats.writer import open_writer
from uspcap.frames import TimestampSource
from uspcap.pipeline.session import CaptureOutcome, CaptureSession
from uspcap.report.document import build_report, source_of_capture
from uspcap.report.page import report_page
from uspcap.report.renderers.text import as_text
from uspcap.report.schema import load_schema
from uspcap.timestamps.timestamping import Timestamping


def capture(path: Path, suite: Suite) -> tuple[CaptureOutcome, list[int]]:
    """Capture 20 frames, all but two timestamped by a NIC on TAI; return when they truly came, too."""
    kernel = NicKernel(setting=(0, 1, ALL), rate_ppm=-12, clock_offset_ns=37 * SECOND, methods={EXTENDED}, tai_s=0)
    fake = FakeRing(BLOCK, 2)
    source = MemoryRing(fake, Timestamping("lo", "auto", TimestampSource.KERNEL, kernel))
    truth, frames = [], []
    for number in range(20):
        kernel.pass_time(10_000_000)
        by_nic = number not in (5, 6)
        truth.append(kernel.utc_ns())
        timestamp_ns = kernel.clock_ns() if by_nic else kernel.utc_ns()
        frames.append(timestamped_frame(number, timestamp_ns, RAW_HARDWARE if by_nic else SOFTWARE))
    fake.fill(0, frames)
    writer = open_writer(str(path), interfaces=source.interfaces)
    with source:
        outcome = CaptureSession(source, writer=writer, suite=suite, frames=20).run()
    return outcome, truth


def test_report_and_file_say_which_clock_timestamped_and_how_well_it_is_known(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    suite = Suite(Settings())
    outcome, truth = capture(path, suite)
    record = build_report(source_of_capture(outcome, suite), suite.analyses)
    report = record.as_dict()
    jsonschema.validate(json.loads(json.dumps(report)), load_schema())
    (clock,) = report["source"]["clocks"]
    assert clock["clock"] == "/dev/ptp3 (fake clock)"
    assert clock["time_scale"] == "TAI"
    assert clock["method"] == "PTP_SYS_OFFSET_EXTENDED"
    assert clock["frames"] == 18
    assert abs(clock["ahead_of_utc_ns"] - 37 * SECOND) < 10_000
    bound = clock["error_bound_ns"]
    assert 0 < bound < 50_000
    assert report["source"]["timestamp_sources"] == {"HARDWARE": 18, "KERNEL": 2}

    text = " ".join(as_text(report_page(record), 200).split())
    assert f"18 timestamps of the NIC's clock /dev/ptp3 (fake clock) are within {bound} ns of CLOCK_REALTIME" in text
    assert "the kernel's TAI offset is 0" in text

    with open_capture(str(path)) as reader:
        read = [
            (int(timestamp), TimestampSource(int(source)))
            for batch in reader.batches()
            for timestamp, source in zip(batch.timestamp_ns, batch.timestamp_source, strict=True)
        ]
        descriptions = [one.description for one in reader.facts.interfaces]
    assert all(abs(timestamp - was) <= bound for (timestamp, _), was in zip(read, truth, strict=True))
    assert [source for _, source in read].count(TimestampSource.HARDWARE) == 18
    assert read[5][1] is TimestampSource.KERNEL
    assert descriptions[0].startswith(
        "timestamps: NIC clock /dev/ptp3 (fake clock) on TAI, put on UTC by PTP_SYS_OFFSET_"
    )
    assert descriptions[1] == "timestamps: kernel on receipt (CLOCK_REALTIME); timestamps: KERNEL"
    # The last bound is known at the end only, so the interface's statistics carry it as a comment.
    assert f"are within {bound} ns of CLOCK_REALTIME".encode() in path.read_bytes()


def test_independent_reader_takes_the_file_as_sound(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    capture(path, Suite(Settings()))
    try:
        done = subprocess.run(["capinfos", "-I", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("capinfos is not installed")
    assert done.returncode == 0, done.stderr
    assert "Number of stat entries = 1" in done.stdout
    assert "NIC clock /dev/ptp3" in done.stdout
