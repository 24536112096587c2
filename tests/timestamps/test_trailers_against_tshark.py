"""Timestamps in frames as tshark's dissectors see them: Metamako, Exablaze, VSS and Arista.

Where the two differ, the reason is in the test: tshark takes only zeros for padding, two bytes of port by VSS only with
a preference, and knows no header of Arista's R3 series (version 4.0), which tcpdump does.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.capture_files import pcap_header, pcap_record
from support.command_line import NANOSECOND_MAGIC
from support.shared_captures import CAPTURES, needs_captures
from support.trailer_frames import FILE_NS, exablaze, metamako, plain, tlv, vss, with_arista

from uspcap.formats import open_capture
from uspcap.timestamps.trailer_decoding import TrailerRows, TrailerStatus
from uspcap.timestamps.trailers import FORMATS

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed"),
]

HEURISTICS = {"metamako": "metamako_eth", "exablaze": "exablaze_eth", "vss": "vssmonitoring_eth"}
FIELDS = {
    "metamako": ("metamako.time", "metamako.srcdevice", "metamako.srcport", "metamako.flags"),
    "exablaze": ("exablaze.timestamp.seconds", "exablaze.device", "exablaze.port", "exablaze.timestamp"),
    "vss": ("vssmonitoring.time", "vssmonitoring.clksrc", "vssmonitoring.srcport"),
    "arista": ("avsp.64sec", "avsp.64ns", "avsp.48sec", "avsp.48ns"),
}


def write(path: Path, frames: list[bytes]) -> Path:
    """A pcap file of frames that were all captured at the same time."""
    records = [pcap_record(*divmod(FILE_NS, 10**9), frame) for frame in frames]
    path.write_bytes(pcap_header(magic=NANOSECOND_MAGIC) + b"".join(records))
    return path


def tshark(path: Path, kind: str, *, wide_ports: bool = False) -> list[list[str]]:
    """tshark's fields of each frame, with no other trailer dissector in the way."""
    command = ["tshark", "-n", "-r", str(path), "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"]
    for other, heuristic in HEURISTICS.items():
        command += ["--enable-heuristic" if other == kind else "--disable-heuristic", heuristic]
    command += ["-o", f"vssmonitoring.two_byte_portstamps:{str(wide_ports).upper()}"]
    for field in FIELDS[kind]:
        command += ["-e", field]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={"TZ": "UTC", "PATH": "/usr/bin:/bin"}
    )
    return [line.split("|") for line in done.stdout.splitlines()]


def uspcap(path: Path, kind: str) -> list[tuple[int, int, int, int]]:
    """Status, timestamp, key and marks of each frame."""
    seen = []
    with open_capture(str(path)) as reader:
        for batch in reader.batches():
            rows = TrailerRows(batch.capacity)
            rows.look(batch, batch.headers, FORMATS[kind])
            columns = (rows.column(name).tolist() for name in ("status", "trailer_ns", "key", "marks"))
            seen += list(zip(*columns, strict=True))
    return seen


def nanoseconds(text: str) -> int:
    """tshark's absolute time in UTC as ns."""
    whole, _, fraction = text.removesuffix(" UTC").rpartition(".")
    moment = datetime.strptime(whole, "%b %d, %Y %H:%M:%S").replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + int(fraction)


def metamako_row(row: list[str]) -> tuple[int, int] | None:
    return (nanoseconds(row[0]), int(row[1]) << 8 | int(row[2])) if row[0] else None


def exablaze_row(row: list[str]) -> tuple[int, int] | None:
    return (nanoseconds(row[3]), int(row[1]) << 8 | int(row[2])) if row[0] else None


def vss_row(row: list[str]) -> tuple[int, int] | None:
    return (nanoseconds(row[0]), int(row[2] or 0)) if row[0] else None


ROWS = {"metamako": metamako_row, "exablaze": exablaze_row, "vss": vss_row}


def found(path: Path, kind: str) -> list[tuple[int, int] | None]:
    return [(ns, key) if status == TrailerStatus.FOUND else None for status, ns, key, _ in uspcap(path, kind)]


@needs_captures
def test_a_real_capture_is_read_as_tshark_does() -> None:
    path = CAPTURES / "timestamp-trailers/rust_metamako_exercise__metamako_trailer_rec1-60.pcap"
    theirs = [metamako_row(row) for row in tshark(path, "metamako")]
    assert found(path, "metamako") == theirs
    assert None not in theirs
    assert len(theirs) == 60


def times() -> st.SearchStrategy[int]:
    """Near the file's time, and where the formats draw their lines."""
    days = st.sampled_from([0, 7, 30])
    return st.builds(
        lambda day, sign, off: FILE_NS // 10**9 * 10**9 + sign * day * 86_400 * 10**9 + off,
        days,
        st.sampled_from([-1, 1]),
        st.sampled_from([0, 1, 10**9, -1, -(10**9), 5 * 10**8 + 1]),
    )


TLVS = st.sampled_from([
    b"", tlv(0, b"\0\0\7", last=True), tlv(1, b"\1\2\3", last=True), tlv(2, bytes(11), last=True) + tlv(1, b"\0\0\1"),
])  # fmt: skip


@st.composite
def frames_of(draw: st.DrawFn, kind: str, wide_ports: bool) -> list[bytes]:
    made = []
    for _ in range(draw(st.integers(1, 60))):
        frame = plain(draw(st.integers(0, 80)), vlans=draw(st.integers(0, 1)), version=draw(st.sampled_from([4, 6])))
        ns = draw(times())
        fcs = draw(st.booleans())
        if kind == "metamako":
            made.append(frame + metamako(ns, flags=draw(st.sampled_from([0, 1, 5, 17])), tlvs=draw(TLVS), fcs=fcs))
        elif kind == "exablaze":
            made.append(frame + exablaze(ns // 10**9, draw(st.integers(0, (1 << 40) - 1)), fcs=fcs))
        else:
            port = draw(st.sampled_from([b"", b"\1\2" if wide_ports else b"\7"]))
            made.append(frame + vss(ns, source=draw(st.integers(0, 3)), port=port, fcs=fcs))
    return made


@pytest.mark.parametrize(
    ("kind", "wide_ports"), [("metamako", False), ("exablaze", False), ("vss", False), ("vss", True)]
)
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_made_frames_are_read_as_tshark_does(tmp_path: Path, kind: str, wide_ports: bool, data: st.DataObject) -> None:
    path = write(tmp_path / "a.pcap", data.draw(frames_of(kind, wide_ports)))
    mine = found(path, kind)
    theirs = [ROWS[kind](row) for row in tshark(path, kind, wide_ports=wide_ports)]
    for at, (one, other) in enumerate(zip(mine, theirs, strict=True)):
        assert one == other, (at, one, other)


def test_marks_are_tsharks_flags(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pcap", [plain() + metamako(FILE_NS, flags=flags) for flags in range(0, 64)])
    for flags, row, (status, _, _, marks) in zip(
        range(64), tshark(path, "metamako"), uspcap(path, "metamako"), strict=True
    ):
        if row[0]:
            assert status == TrailerStatus.FOUND
            assert int(row[3], 0) == flags
            assert marks & 1 == flags >> 4 & 1
            assert marks >> 1 & 1 == flags >> 2 & 1
            assert marks >> 2 & 1 == 1 - (flags & 1)


def test_arista_headers_are_read_as_tshark_does(tmp_path: Path) -> None:
    second = FILE_NS // 10**9
    utc64 = [with_arista(plain(at), second, at * 1_000, 0x0110) for at in range(20)]
    tai64 = [with_arista(plain(at), second + 37, at * 1_000, 0x0010) for at in range(20)]
    tai48 = [with_arista(plain(at), second + 37, at * 1_000, 0x0020) for at in range(20)]
    path = write(tmp_path / "a.pcap", tai64 + tai48 + utc64)
    for at, (row, (status, ns, _, _)) in enumerate(zip(tshark(path, "arista"), uspcap(path, "arista"), strict=True)):
        assert status == TrailerStatus.FOUND
        whole, fraction = divmod(ns, 10**9)
        if row[0]:
            assert (int(row[0]) - (37 if at < 20 else 0), int(row[1])) == (whole, fraction)
        else:
            assert (int(row[2]), int(row[3])) == ((whole + 37) & 0xFFFF, fraction)


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_headers_of_the_r3_series_are_read_as_tcpdump_does(tmp_path: Path) -> None:
    second = FILE_NS // 10**9
    path = write(tmp_path / "a.pcap", [with_arista(plain(), second, 5, version) for version in (0x0111, 0x0121)])
    assert found(path, "arista") == [(second * 10**9 + 5, 1)] * 2
    done = subprocess.run(["tcpdump", "-n", "-e", "-r", str(path)], check=True, capture_output=True, text=True)
    first, other = (line for line in done.stdout.splitlines() if "Arista" in line)
    moment = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert "Timescale UTC" in first
    assert f"{moment}.000000005" in first
    assert f"{second & 0xFFFF}.000000005" in other
    assert "HwInfo R3" in other
    assert not any(map(any, tshark(path, "arista")))


def test_padding_that_is_not_zero_is_recognized_by_the_ip_length_where_tshark_sees_a_trailer(tmp_path: Path) -> None:
    frame = plain(0)[:42] + b"\x55" * 18
    path = write(tmp_path / "a.pcap", [frame + metamako(FILE_NS), frame + vss(FILE_NS)])
    assert found(path, "metamako")[0] == (FILE_NS, 165 << 8 | 14)
    # Metamako is looked for from the end on, and so by tshark too; VSS from the front, where tshark finds padding.
    assert metamako_row(tshark(path, "metamako")[0]) == (FILE_NS, 165 << 8 | 14)
    assert found(path, "vss")[1] == (FILE_NS, 9)
    assert vss_row(tshark(path, "vss")[1]) is None


def test_a_frame_of_an_unknown_ethertype_has_no_trailer_for_either(tmp_path: Path) -> None:
    frame = plain(40)[:12] + b"\x88\xb5" + bytes(50) + metamako(FILE_NS)
    path = write(tmp_path / "a.pcap", [frame])
    assert found(path, "metamako") == [None]
    assert metamako_row(tshark(path, "metamako")[0]) is None


def test_an_8023_length_bounds_the_payload_for_both(tmp_path: Path) -> None:
    frame = (plain(0)[:12] + struct.pack("!H", 38) + b"\x42\x42\x03" + bytes(35)).ljust(60, b"\0")
    path = write(tmp_path / "a.pcap", [frame + metamako(FILE_NS)])
    assert found(path, "metamako") == [(FILE_NS, 165 << 8 | 14)]
    assert metamako_row(tshark(path, "metamako")[0]) == (FILE_NS, 165 << 8 | 14)
