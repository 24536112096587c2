"""What a capture is written to, as asked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from support.traffic import numbered_frame

from uspcap.backends.base import Description, LiveSource, SourceStatistics
from uspcap.errors import CaptureFileError, UsageError
from uspcap.formats import open_capture
from uspcap.frames import FrameBatch, Interface
from uspcap.pipeline.session import CaptureOutcome, CaptureSession
from uspcap.sinks.output import OutputRequest, file_system, has_thread, open_output
from uspcap.sinks.rotation import RotationRules


class Source(LiveSource):
    """Gives numbered frames in batches of the sizes listed, and claims to be an interface."""

    backend = "list"

    def __init__(self, sizes: Sequence[int], length: int = 60) -> None:
        super().__init__()
        self._sizes, self._length = sizes, length
        self._given = 0
        self._stopped = False

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return (Interface(1, "list0"),)

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        for size in self._sizes:
            if self._stopped:
                return
            numbers = range(self._given, self._given + size)
            self._given += size
            yield FrameBatch.from_frames(
                [numbered_frame(number, self._length) for number in numbers],
                [10**18 + number for number in numbers],
                interfaces=self.interfaces,
            )

    def stop(self) -> None:
        self._stopped = True

    def statistics(self) -> SourceStatistics:
        return SourceStatistics(received=self._given, delivered=self._given)

    def describe(self) -> Description:
        return Description("list0", "list", "as given", 0, 0, "made up")

    def close(self) -> None:
        self._stopped = True


class Replay(Source):
    counts_an_interface = False


def capture(request: OutputRequest, source: Source) -> CaptureOutcome:
    request.check()
    return CaptureSession(source, writer=open_output(request, source, {})).run()


def numbers_in(directory: Path) -> list[int]:
    numbers = []
    for path in sorted(directory.iterdir()):
        with open_capture(str(path)) as reader:
            for batch in reader.batches():
                numbers += [int.from_bytes(batch.frame_bytes(row)[-4:], "big") for row in range(batch.count)]
            assert reader.facts.problems == []
    return numbers


EVERY_WAY = [
    {"buffer_mib": 0},
    {"buffer_mib": 1},
    {"buffer_mib": 0, "level": 1},
    {"buffer_mib": 8, "level": 1},
    {"direct": True},
    {"direct": True, "level": 1, "buffer_mib": 0},
]


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("name", ["out.pcap", "out.pcapng"])
@pytest.mark.parametrize("rules", [RotationRules(), RotationRules(frames=37), RotationRules(file_bytes=5_000)])
def test_no_frame_is_lost_doubled_or_moved(
    way: dict[str, Any], name: str, rules: RotationRules, tmp_path: Path
) -> None:
    source = Source([1, 100, 0, 4000, 3])
    try:
        outcome = capture(OutputRequest(str(tmp_path / name), rules, **way), source)
    except CaptureFileError as error:
        if "refuses O_DIRECT" in str(error):
            pytest.skip("this machine lacks O_DIRECT where tests write")
        raise
    assert outcome.failure is None
    assert str(outcome.accounts) == "received 4104 = 4104 written"
    assert numbers_in(tmp_path) == list(range(4104))


def test_reader_of_a_pipe_that_is_slow_costs_counted_frames_and_the_pipe_stays_valid(tmp_path: Path) -> None:
    pipe, copy = tmp_path / "pipe", tmp_path / "copy"
    os.mkfifo(pipe)
    # It reads nothing until there is a second file, which is made after the capture took all its frames.
    go = tmp_path / "go"
    script = f"exec <{pipe}; until test -e {go}; do sleep 0.01; done; cat >{copy}"
    reader = subprocess.Popen(["sh", "-c", script])
    try:
        request = OutputRequest(str(pipe), buffer_mib=1)
        source = Source([100] * 100, 1000)
        original = source.statistics

        def statistics() -> SourceStatistics:
            go.touch()
            return original()

        source.statistics = statistics  # type: ignore[method-assign]
        outcome = capture(request, source)
        assert reader.wait(30) == 0
    finally:
        reader.kill()
        reader.wait()
    accounts = outcome.accounts
    assert outcome.failure is None
    assert accounts.unaccounted == 0
    assert accounts.written is not None
    assert accounts.written + accounts.too_slow == 10_000
    assert accounts.too_slow > 8_000
    assert str(accounts) == (
        f"received 10000 = {accounts.written} written + {accounts.too_slow} dropped "
        f"(the disk was too slow {accounts.too_slow})"
    )
    with open_capture(str(copy)) as capture_reader:
        assert sum(batch.count for batch in capture_reader.batches()) == accounts.written
        assert capture_reader.facts.interface_drops == {0: accounts.too_slow}
        assert capture_reader.facts.problems == []


def test_replay_waits_for_the_disk_instead_of_dropping(tmp_path: Path) -> None:
    request = OutputRequest(str(tmp_path / "out.pcapng"), buffer_mib=1)
    with pytest.raises(UsageError, match="a replay waits for the disk"):
        open_output(request, Replay([1]), {})
    outcome = capture(OutputRequest(str(tmp_path / "out.pcapng")), Replay([100] * 100, 1000))
    assert str(outcome.accounts) == "received 10000 = 10000 written"


def test_full_disk_in_the_middle_of_many_files_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, left = os.write, [50_000]

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) and not left[0]:
            raise OSError(28, "No space left on device")
        left[0] -= (taken := original(descriptor, data[: left[0]]))
        return taken

    for buffer_mib in (0, 4):
        directory = tmp_path / str(buffer_mib)
        directory.mkdir()
        left[0] = 50_000
        request = OutputRequest(str(directory / "out.pcapng"), RotationRules(frames=100), buffer_mib=buffer_mib)
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", write)
            outcome = capture(request, Source([1000] * 5))
        assert "No space left on device" in str(outcome.failure)
        assert outcome.accounts.unaccounted == 0
        assert outcome.accounts.written is not None
        assert 400 < outcome.accounts.written < 600
        assert numbers_in(directory) == list(range(outcome.accounts.written))


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (OutputRequest("-", RotationRules(frames=1)), "standard output is one file"),
        (OutputRequest("-", direct=True), "standard output cannot be written past the page cache"),
        (OutputRequest("x", RotationRules(keep=2)), "-W is for rotated files"),
        (OutputRequest("x", command="true"), "-z is for rotated files"),
        (OutputRequest("x", RotationRules(frames=1, aligned=True)), "--align aligns files to the clock, and needs -G"),
        (OutputRequest("x", RotationRules(frames=1), command="no-such-program"), "there is no such program"),
    ],
)
def test_what_does_not_go_together_is_refused(request_: OutputRequest, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        request_.check()


@pytest.mark.parametrize(
    ("name", "reason"), [("none/x", "No such file or directory"), ("file/x", "it is not a directory")]
)
def test_directory_that_cannot_take_files_is_refused_before_a_frame_comes(
    name: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    request = OutputRequest(str(tmp_path / name), RotationRules(frames=1))
    with pytest.raises(CaptureFileError, match=f"{reason}; name a file in a directory that you may write to"):
        open_output(request, Source([]), {})


def test_name_decides_on_format_and_compression() -> None:
    said = [
        (one.format, one.compression_level > 0) for one in map(OutputRequest, ("x", "x.pcap", "x.pcap.zst", "x.zst"))
    ]
    assert said == [("pcapng", False), ("pcap", False), ("pcap", True), ("pcapng", True)]
    assert OutputRequest("x.zst", level=0).compression_level == 0
    assert OutputRequest("x", level=9).compression_level == 9


def test_thread_is_there_where_writing_may_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    memory = OutputRequest("/dev/shm/x")
    if file_system("/dev/shm/x") != "tmpfs":
        pytest.skip("this machine lacks a tmpfs at /dev/shm")
    assert not has_thread(memory)
    assert not has_thread(OutputRequest("-"))
    assert has_thread(OutputRequest("/dev/shm/x", buffer_mib=1))
    assert has_thread(OutputRequest("/dev/shm/x", level=1))
    assert has_thread(OutputRequest(str(tmp_path / "pipe")))
    assert not has_thread(OutputRequest(str(tmp_path / "pipe"), buffer_mib=0))


def test_file_system_is_the_one_that_stat_names(tmp_path: Path) -> None:
    named = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True).stdout.strip()
    assert file_system(str(tmp_path / "not there")) in (named, *(["ext4"] if named == "ext2/ext3" else []))
    assert file_system("/no/such/place") == ""
    assert file_system("/dev/null") == ""
