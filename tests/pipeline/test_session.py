"""Sessions over a source of the test's own."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from support.traffic import numbered_frame

from uspcap.analysis.suite import Settings, Suite
from uspcap.backends.base import Description, LiveSource, SourceStatistics
from uspcap.errors import CaptureError, CaptureFileError, UnexpectedError
from uspcap.formats import open_capture
from uspcap.formats.byte_sink import FileSink
from uspcap.formats.compression import ZstdSink
from uspcap.formats.record_output import FileOutput
from uspcap.formats.writer import open_writer
from uspcap.frames import FrameBatch, Interface
from uspcap.pipeline.session import Accounts, CaptureSession

START_NS = 1_700_000_000_000_000_000


class ListSource(LiveSource):
    """Gives batches of the sizes listed, None for 0; an error at the end where there is one."""

    backend = "list"

    def __init__(self, sizes: Sequence[int], failure: CaptureError | None = None, lost: int = 0) -> None:
        super().__init__()
        self._sizes = list(sizes)
        self._failure = failure
        self._lost = lost
        self._given = 0
        self.stopped = False

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        return (Interface(1, "list0"),)

    def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
        for size in self._sizes:
            if self.stopped:
                return
            if not size:
                yield None
                continue
            numbers = range(self._given, self._given + size)
            self._given += size
            yield FrameBatch.from_frames(
                [numbered_frame(number) for number in numbers],
                [START_NS + number for number in numbers],
                interfaces=self.interfaces,
                first_frame_number=numbers[0] + 1,
            )
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        self.stopped = True

    def statistics(self) -> SourceStatistics:
        dropped = {"ring full": self._lost} if self._lost else {}
        return SourceStatistics(received=self._given + self._lost, delivered=self._given, dropped=dropped)

    def describe(self) -> Description:
        return Description("list0", "list", "as given", 0, 0, "made up")

    def close(self) -> None:
        self.stopped = True


def frames_of(path: Path) -> list[bytes]:
    with open_capture(str(path)) as reader:
        return [batch.frame_bytes(row) for batch in reader.batches() for row in range(batch.count)]


def test_all_frames_reach_the_file_and_the_analyses(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    suite = Suite(Settings(names=("summary",)))
    source = ListSource([3, 0, 5], lost=2)
    outcome = CaptureSession(source, writer=open_writer(str(path)), suite=suite).run()
    assert outcome.failure is None
    assert frames_of(path) == [numbered_frame(number) for number in range(8)]
    assert suite.summary.facts["packets"] == 8
    assert outcome.description == "list0: list, as given; timestamps: made up"
    assert str(outcome.accounts) == "received 10 = 8 written + 2 dropped (ring full 2)"
    assert outcome.accounts.unaccounted == 0


def test_file_says_what_the_interface_received_and_lost(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    writer = open_writer(str(path), interfaces=[Interface(1, "list0")])
    CaptureSession(ListSource([3], lost=2), writer=writer).run()
    with open_capture(str(path)) as reader:
        for _ in reader.batches():
            pass
        assert reader.facts.interface_drops == {0: 2}


@pytest.mark.parametrize(("limit", "left_out"), [(1, 4), (5, 0), (6, 4), (7, 3)])
def test_count_ends_the_capture_exactly(tmp_path: Path, limit: int, left_out: int) -> None:
    path = tmp_path / "out.pcapng"
    source = ListSource([5, 5, 5])
    suite = Suite(Settings(names=("summary",)))
    outcome = CaptureSession(source, writer=open_writer(str(path)), suite=suite, frames=limit).run()
    assert frames_of(path) == [numbered_frame(number) for number in range(limit)]
    assert suite.summary.facts["packets"] == limit
    assert outcome.accounts.after_limit == left_out
    assert outcome.accounts.unaccounted == 0
    assert source.stopped


def test_duration_ends_the_capture(tmp_path: Path) -> None:
    now = [0]

    def clock() -> int:
        now[0] += 10
        return now[0]

    source = ListSource([1] * 100)
    outcome = CaptureSession(source, suite=Suite(Settings()), duration_ns=45, clock=clock).run()
    # The clock says 10 at the start and goes on by 10 a batch: 55 is reached with the fifth.
    assert outcome.accounts.kept == 5
    assert source.stopped


def test_asking_to_stop_ends_the_capture() -> None:
    source = ListSource([1, 0, 1])
    session = CaptureSession(source, suite=Suite(Settings()))
    session.stop()
    outcome = session.run()
    assert outcome.accounts.kept == 1
    assert outcome.failure is None


def test_failure_of_the_source_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    failure = CaptureError("interface list0 is gone")
    outcome = CaptureSession(ListSource([4], failure), writer=open_writer(str(path))).run()
    assert outcome.failure is failure
    assert len(frames_of(path)) == 4
    assert outcome.accounts.unaccounted == 0


def test_failure_of_the_file_stops_the_source_and_counts_what_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.pcapng"
    writer = open_writer(str(path))
    source = ListSource([3, 3, 3, 3])
    write = writer.write

    def fail_second(batch: FrameBatch) -> None:
        if writer.frames_written:
            raise CaptureFileError("the disk is full")
        write(batch)

    monkeypatch.setattr(writer, "write", fail_second)
    outcome = CaptureSession(source, writer=writer).run()
    assert str(outcome.failure) == "the disk is full"
    assert outcome.accounts.unwritten == 3
    assert str(outcome.accounts) == "received 6 = 3 written + 3 dropped (the file could not take them 3)"
    assert source.stopped


def test_accounts_that_do_not_close_say_by_how_much() -> None:
    statistics = SourceStatistics(
        received=100,
        delivered=90,
        filtered=1,
        dropped={"ring full": 2, "reader": 3},
        nic_dropped={"rx_missed_errors": 7},
        remarks={"frames cut": 1},
    )
    accounts = Accounts(statistics, kept=90, after_limit=0, written=90, unwritten=0)
    assert accounts.unaccounted == 4
    assert str(accounts) == (
        "received 100 = 90 written + 5 dropped (ring full 2, reader 3) + 1 not matching the filter; "
        "4 are not accounted for; the interface dropped frames before (rx_missed_errors 7); frames cut: 1"
    )


class FailingSuite(Suite):
    """Analyses that fail with the second batch."""

    def __init__(self, error: Exception) -> None:
        super().__init__(Settings(names=("summary",)))
        self._error = error
        self.updates = 0

    def update(self, batch: FrameBatch) -> None:
        self.updates += 1
        if self.updates > 1:
            raise self._error
        super().update(batch)


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("x"), RecursionError("deep"), ImportError("y")])
def test_what_nobody_foresaw_in_an_analysis_costs_the_file_nothing(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "out.pcapng"
    suite = FailingSuite(error)
    source = Draining([3, 4, 5])
    outcome = CaptureSession(source, writer=open_writer(str(path)), suite=suite).run()
    assert isinstance(outcome.failure, UnexpectedError)
    assert outcome.failure.__cause__ is error
    assert outcome.suite is None
    assert suite.updates == 2
    # What was received when it happened is written, too.
    assert frames_of(path) == [numbered_frame(number) for number in range(12)]
    assert str(outcome.accounts) == "received 12 = 12 written"


class Draining(ListSource):
    """Has received everything at once: `stop` keeps nothing from being given."""

    def stop(self) -> None:
        return


@pytest.mark.parametrize("error", [MemoryError(), ZeroDivisionError("x")])
def test_what_nobody_foresaw_in_a_source_leaves_a_whole_file(tmp_path: Path, error: Exception) -> None:
    path = tmp_path / "out.pcap.zst"
    pytest.importorskip("zstandard")
    output = FileOutput(lambda path: ZstdSink(FileSink(path), 3))
    source = ListSource([3, 4], failure=error)  # type: ignore[arg-type]
    outcome = CaptureSession(source, writer=open_writer(str(path), "pcap", output=output)).run()
    assert outcome.failure is not None
    assert outcome.failure.__cause__ is error
    assert frames_of(path) == [numbered_frame(number) for number in range(7)]
    assert outcome.accounts.unaccounted == 0


def test_what_nobody_foresaw_in_writing_ends_the_capture_with_accounts(tmp_path: Path) -> None:
    writer = open_writer(str(tmp_path / "out.pcapng"))
    writer.write = lambda batch: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    suite = Suite(Settings(names=("summary",)))
    outcome = CaptureSession(Draining([3, 4]), writer=writer, suite=suite).run()
    assert isinstance(outcome.failure, UnexpectedError)
    assert str(outcome.accounts) == "received 7 = 0 written + 7 dropped (the file could not take them 7)"
    assert outcome.suite is suite
    assert suite.summary.result()["packets"] == 7


def test_accounts_that_nobody_can_give_still_leave_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    source = ListSource([3])
    source.statistics = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(ZeroDivisionError):
        CaptureSession(source, writer=open_writer(str(path))).run()
    assert frames_of(path) == [numbered_frame(number) for number in range(3)]


def test_accounts_so_far_say_what_waits_for_the_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Asked(ListSource):
        def batches(self, timeout_s: float) -> Iterator[FrameBatch | None]:
            for batch in super().batches(timeout_s):
                yield batch
                writer.frames_held = 2
                session.attention.ask_accounts()

    writer = Holding()
    session = CaptureSession(Asked([3, 4], lost=1), writer=writer)  # type: ignore[arg-type]
    outcome = session.run()
    assert capsys.readouterr().err == (
        "uspcap: so far: received 8 = 5 written + 1 dropped (ring full 1) + 2 waiting for the disk\n"
    )
    assert outcome.accounts.queued == 0


class Holding:
    """A writer that holds frames back."""

    interfaces = ()
    frames_dropped = frames_taken = frames_held = 0
    refusal = "no reason"
    losses = ()

    @property
    def frames_written(self) -> int:
        return self.frames_taken - self.frames_held

    def write(self, batch: FrameBatch) -> None:
        self.frames_taken += batch.count

    def look_at_file(self) -> None:
        return

    def flush(self) -> None:
        return

    def close(self, statistics: object = None) -> None:
        self.frames_held = 0
