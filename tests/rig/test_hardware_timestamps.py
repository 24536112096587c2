"""Hardware timestamps by a real driver's ioctls, clock and kernel function, against what the driver itself noted.

The test module writes CLOCK_REALTIME of the moment of the timestamp into each frame of its Ethernet type, so that the
error of every timestamp that uspcap gives is known.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from rig.frames import frame, mac_bytes
from rig.guests import RECEIVER_MAC, SENDER_MAC
from rig.nics import Nics, command
from rig.running import Capture
from uspcap.formats import open_capture
from uspcap.frames import TimestampSource
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.nic import TimestampingSetting

ETHERNET_TYPE = 0x88B5
TRUTH = struct.Struct("!IIQQ")
MAGIC = 0x50484354
PTP_TYPE = 0x88F7
SECOND = 1_000_000_000
BACKENDS = {"packet_mmap": ("--backend", "packet_mmap", "-Q", "in"), "af_xdp": ("--backend", "af_xdp", "--take-all")}
PARAMETERS = Path("/sys/module/uspcap_phc/parameters")

_ADJ_SETOFFSET, _ADJ_FREQUENCY, _ADJ_NANO = 0x0100, 0x0002, 0x2000


class Phc:
    """The clock of the test module, set as by ptp4l or phc_ctl."""

    def __init__(self) -> None:
        clocks = Path("/sys/class/ptp").glob("ptp*")
        (path,) = (path for path in clocks if (path / "clock_name").read_text().strip() == "uspcap_phc")
        self._descriptor = os.open(f"/dev/{path.name}", os.O_RDWR)
        self._clock = (~self._descriptor << 3) | 3
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _adjust(self, modes: int, offset_ns: int = 0, frequency: int = 0) -> None:
        # struct timex of linux/timex.h on 64 bits: modes, offset, freq, ..., time at byte 72.
        timex = bytearray(208)
        struct.pack_into("=I", timex, 0, modes)
        struct.pack_into("=q", timex, 16, frequency)
        struct.pack_into("=qq", timex, 72, *divmod(offset_ns, SECOND))
        pointed_to = (ctypes.c_char * len(timex)).from_buffer(timex)
        if self._libc.clock_adjtime(self._clock, pointed_to) < 0:
            raise OSError(ctypes.get_errno(), "clock_adjtime")

    def step(self, offset_ns: int) -> None:
        self._adjust(_ADJ_SETOFFSET | _ADJ_NANO, offset_ns=offset_ns)

    def set_rate(self, ppm: float) -> None:
        self._adjust(_ADJ_FREQUENCY, frequency=round(ppm * 65536))

    def set_time(self, utc_ahead_ns: int) -> None:
        now_ns = time.time_ns() + utc_ahead_ns
        time.clock_settime_ns(self._clock, now_ns)

    def close(self) -> None:
        os.close(self._descriptor)


@pytest.fixture
def phc(nics: Nics) -> Iterator[Phc]:
    clock = Phc()
    clock.set_rate(0)
    clock.set_time(0)
    yield clock
    for name in ("leave_out", "timestamp_nothing"):
        (PARAMETERS / name).write_text("0")
    clock.set_rate(0)
    clock.set_time(0)
    clock.close()


def rx_filter_of(interface: str) -> int:
    with closing(KernelCalls()) as calls:
        return TimestampingSetting.read(interface, calls).rx_filter


def set_rx_filter(interface: str, rx_filter: int) -> None:
    """Set it as another program does."""
    with closing(KernelCalls()) as calls:
        TimestampingSetting(0, 0, rx_filter).write(interface, calls)


def truth_frame(number: int, length: int = 80) -> bytes:
    head = mac_bytes(RECEIVER_MAC) + mac_bytes(SENDER_MAC) + struct.pack("!H", ETHERNET_TYPE)
    return head + bytes(TRUTH.size) + struct.pack("!I", number) + bytes(length - len(head) - TRUTH.size - 4)


class Errors:
    """By how much the timestamps of a file miss CLOCK_REALTIME of the moment of the timestamp.

    Attributes
    ----------
    by_nic, others : ndarray of int64
        Nanoseconds, of frames that the NIC timestamped and of those that it did not.
    mislabelled : int
        Frames whose source says HARDWARE and that the driver did not timestamp, or the other way round.
    """

    def __init__(self, path: Path) -> None:
        by_nic, others = [], []
        self.mislabelled = 0
        with open_capture(path) as reader:
            for batch in reader.batches():
                for row in range(batch.count):
                    data = batch.frame_bytes(row)
                    if data[12:14] != struct.pack("!H", ETHERNET_TYPE):
                        continue
                    magic, timestamped, realtime_ns, _ = TRUTH.unpack_from(data, 14)
                    assert magic == MAGIC
                    is_hardware = batch.timestamp_source[row] == TimestampSource.HARDWARE
                    self.mislabelled += is_hardware != bool(timestamped)
                    (by_nic if is_hardware else others).append(int(batch.timestamp_ns[row]) - realtime_ns)
        self.by_nic, self.others = np.array(by_nic, np.int64), np.array(others, np.int64)

    @property
    def worst_ns(self) -> int:
        return int(np.abs(self.by_nic).max())


def bound_of(capture: Capture) -> int:
    said = re.search(r"are within (\d+) ns of CLOCK_REALTIME", capture.stderr)
    assert said is not None, capture.stderr
    return int(said[1])


@contextmanager
def sending(nics: Nics, duration_s: float, count: int) -> Iterator[None]:
    """Send frames meanwhile, evenly; all are sent at the end."""

    def run() -> None:
        nics.send([truth_frame(number) for number in range(count)], burst=1, pause_s=duration_s / count)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def capture_while(
    nics: Nics, tmp_path: Path, backend: str, events: Callable[[], None], *, seconds: float = 4, count: int = 800
) -> tuple[Capture, Errors]:
    capture = Capture(tmp_path, nics.here, *BACKENDS[backend], "--timestamps", "hardware", name="timestamped.pcapng")
    with sending(nics, seconds, count):
        events()
    code = capture.finish()
    assert code == 0, capture.stderr
    errors = Errors(capture.path)
    assert len(errors.by_nic) + len(errors.others) == count, capture.stderr
    return capture, errors


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("ppm", [-100, 0, 100])
@pytest.mark.rig("phc", ci=("phc",))
def test_drift_keeps_every_timestamp_within_the_bound_that_is_stated(
    nics: Nics, phc: Phc, backend: str, ppm: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    phc.set_time(37 * SECOND)
    phc.set_rate(ppm)
    capture, errors = capture_while(nics, tmp_path, backend, lambda: None)
    record_property("worst_error_ns", errors.worst_ns)
    record_property("bound_ns", bound_of(capture))
    assert not len(errors.others)
    assert errors.mislabelled == 0
    assert errors.worst_ns <= bound_of(capture), capture.stderr
    assert rx_filter_of(nics.here) == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("step_s", [-37, 37])
@pytest.mark.rig("phc", ci=("phc",))
def test_steps_keep_every_timestamp_within_the_bound_that_is_stated(
    nics: Nics, phc: Phc, backend: str, step_s: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    phc.set_rate(50)

    def events() -> None:
        time.sleep(2)
        phc.step(step_s * SECOND)

    capture, errors = capture_while(nics, tmp_path, backend, events)
    record_property("worst_error_ns", errors.worst_ns)
    record_property("bound_ns", bound_of(capture))
    assert errors.worst_ns <= bound_of(capture) < SECOND, capture.stderr
    assert "stepped" in capture.stderr


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.rig("phc", ci=("phc",))
def test_frames_without_a_timestamp_say_so_and_are_counted(nics: Nics, phc: Phc, backend: str, tmp_path: Path) -> None:
    (PARAMETERS / "leave_out").write_text("4")
    capture, errors = capture_while(nics, tmp_path, backend, lambda: None, seconds=2, count=400)
    assert len(errors.others) == 100
    assert errors.mislabelled == 0
    assert errors.worst_ns <= bound_of(capture), capture.stderr
    assert "100 frames came without one" in capture.stderr


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.rig("phc")
def test_nic_that_timestamps_nothing_is_reported_in_one_sentence(
    nics: Nics, phc: Phc, backend: str, tmp_path: Path
) -> None:
    (PARAMETERS / "timestamp_nothing").write_text("1")
    capture, errors = capture_while(nics, tmp_path, backend, lambda: None, seconds=1, count=500)
    assert len(errors.others) == 500
    assert "the NIC timestamped none of 500 frames" in capture.stderr


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.rig("phc")
def test_setting_that_another_program_changes_meanwhile_is_left_to_it(
    nics: Nics, phc: Phc, backend: str, tmp_path: Path
) -> None:
    def events() -> None:
        time.sleep(1)
        set_rx_filter(nics.here, 12)

    capture, errors = capture_while(nics, tmp_path, backend, events, seconds=2, count=400)
    try:
        assert rx_filter_of(nics.here) == 12
        assert errors.mislabelled == 0
        assert len(errors.others)
        assert errors.worst_ns <= bound_of(capture), capture.stderr
    finally:
        set_rx_filter(nics.here, 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.rig("phc")
def test_ptp_alone_is_timestamped_where_that_is_asked_for(nics: Nics, phc: Phc, backend: str, tmp_path: Path) -> None:
    capture = Capture(tmp_path, nics.here, *BACKENDS[backend], "--timestamps", "hardware:ptp", name="ptp.pcapng")
    assert rx_filter_of(nics.here) == 12
    ptp = [
        mac_bytes("01:1b:19:00:00:00") + mac_bytes(SENDER_MAC) + struct.pack("!H", PTP_TYPE) + bytes([0, 2]) + bytes(58)
    ]
    others = [frame(number, 100) for number in range(50)]
    nics.send([*others, *ptp * 50], burst=8, pause_s=0.01)
    assert capture.finish() == 0, capture.stderr
    found: dict[bool, set[TimestampSource]] = {True: set(), False: set()}
    with open_capture(capture.path) as reader:
        for batch in reader.batches():
            for row in range(batch.count):
                is_ptp = batch.frame_bytes(row)[12:14] == struct.pack("!H", PTP_TYPE)
                found[is_ptp].add(TimestampSource(int(batch.timestamp_source[row])))
    software = TimestampSource.XDP if backend == "af_xdp" else TimestampSource.KERNEL
    assert found == {True: {TimestampSource.HARDWARE}, False: {software}}, capture.stderr
    assert rx_filter_of(nics.here) == 0


@pytest.mark.rig("e1000e")
def test_nic_that_accepts_everything_and_timestamps_nothing_is_found_out(nics: Nics, tmp_path: Path) -> None:
    capture = Capture(
        *(tmp_path, nics.here, "--backend", "packet_mmap", "-Q", "in", "--timestamps", "hardware"),
        *("--format", "json", "--analyze", "summary"),
        name="timestamped.pcapng",
    )
    nics.send([frame(number, 100) for number in range(500)], burst=8, pause_s=0.03)
    assert capture.finish() == 0, capture.stderr
    (clock,) = json.loads(capture.stdout)["source"]["clocks"]
    assert "the NIC timestamped none of 500 frames" in capture.stderr, capture.stderr
    assert clock["frames"] == 0
    assert clock["frames_without_timestamp"] == 500
    if clock["steps_total"] > 5:
        assert "its rate is off" in capture.stderr, capture.stderr
        assert "stepped" not in capture.stderr


@pytest.mark.rig("igb")
def test_nic_that_need_timestamp_ptp_only_says_so_and_gets_its_setting_back(nics: Nics, tmp_path: Path) -> None:
    said = command("ethtool", "-T", nics.here)
    capture = Capture(
        tmp_path, nics.here, "--backend", "packet_mmap", "-Q", "in", "--timestamps", "hardware:ptp", name="ptp.pcapng"
    )
    nics.send([frame(number, 100) for number in range(50)], pause_s=0.01)
    assert capture.finish() == 0, capture.stderr
    assert "PTP's events only" in capture.start_line, said
    assert rx_filter_of(nics.here) == 0
