"""The experiment: paths on and off in runs, each read by a pinned thread of its own.

A run of the block design has one path on; a run of the frame design all of them, each probe on one at random. Between
runs no path is on and the hook drops probes, so that no run finds what another left behind.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Final

import numpy as np
from numpy.typing import NDArray

from uspcap.backends.carrier_wait import CarrierWait
from uspcap.backends.driver_facts import FRAMES_OF_OTHERS, driver_of, why_native_is_vain
from uspcap.backends.network_interface import NetworkInterface
from uspcap.bpf.attach import AttachMode, Refusal
from uspcap.comparison.live.endpoints import KernelEnd, PacketMmapEnd, PathEnd, XskEnd
from uspcap.comparison.live.hook import HookCounts, PathHook
from uspcap.comparison.live.measurement import Cost, PathRun, find_again, malformed_of, measure, measure_round_trips
from uspcap.comparison.live.path_readers import COLUMNS, PathReader, clock_cost_ns
from uspcap.comparison.live.settings import Kind, LiveSettings, Path, Placement, paths_of, place
from uspcap.comparison.live.traffic import Sending
from uspcap.comparison.schedule import schedule
from uspcap.comparison.statistics import Comparison, Run, compare_paths
from uspcap.errors import CaptureError, MissingFeature
from uspcap.network.interface_use import refuse_if_kernel_path_is_elsewhere
from uspcap.network.watch import InterfaceWatch
from uspcap.sinks.host_facts import HostFacts
from uspcap.timestamps.kernel_calls import KernelCalls
from uspcap.timestamps.tai import tai_offset_ns

SETTLING_S: Final = 0.02
"""After a path was switched off, what was on its way has arrived by then."""

MOST_FRAMES: Final = 1 << 20
"""Recorded of one run of one path; 48 bytes each."""

_PATIENCE_RUNS: Final = 3
"""After so many runs without any probe, there will be none."""

_SOFTIRQ_FIELD: Final = 7
"""Of the line `cpu` in /proc/stat, the word itself counted (proc(5))."""


@dataclass(frozen=True, slots=True)
class SentProbes:
    """The probes that this process sent.

    Attributes
    ----------
    about : dict
        Of the schedule, in the report's form.
    sent, unsent, refused : int
    lateness : dict
        In the report's form.
    """

    about: Mapping[str, object]
    sent: int
    unsent: int
    refused: int
    lateness: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LiveOutcome:
    """The outcome of a comparison.

    Attributes
    ----------
    settings : LiveSettings
    placement : Placement
    paths : tuple of Path
    mode : AttachMode
        Of the program at the hook.
    refusals : tuple of Refusal
    ends : mapping of str to str
        How each path ends, by name.
    runs : tuple of PathRun
        In the order in which they were made; those of the frame design come together.
    counts : HookCounts
        Of the whole time.
    sent : SentProbes or None
    host : HostFacts
    clock_look_ns : float
        What one look at the clock takes here.
    start_ns, end_ns : int
        UTC.
    interrupted : bool
        Ended before all runs were made; unpaired runs are left out of the comparison.
    comparison : Comparison or None
        None where there is no run of each path.
    failure : CaptureError or None
        What became of the interface, where that ended the comparison.
    """

    settings: LiveSettings
    placement: Placement
    paths: tuple[Path, ...]
    mode: AttachMode
    refusals: tuple[Refusal, ...]
    ends: Mapping[str, str]
    runs: tuple[PathRun, ...]
    counts: HookCounts
    sent: SentProbes | None
    host: HostFacts
    clock_look_ns: float
    start_ns: int
    end_ns: int
    interrupted: bool
    comparison: Comparison | None
    failure: CaptureError | None = None

    def runs_of(self, path: Path) -> list[PathRun]:
        """Return the runs of one path, as many as every path has."""
        complete = min(sum(run.path == one for run in self.runs) for one in self.paths)
        return [run for run in self.runs if run.path == path][:complete]


@dataclass(slots=True)
class _Reading:
    """One reader at work in a thread of its own."""

    path: Path
    end: PathEnd
    reader: PathReader
    cpu: int
    thread: threading.Thread = field(init=False)
    ready: threading.Event = field(default_factory=threading.Event)
    waited_ns: int | None = None
    drops_before: dict[str, int] = field(default_factory=dict)

    def start(self) -> None:
        self.thread = threading.Thread(target=self._run, name=f"uspcap-{self.path.name}")
        self.thread.start()
        self.ready.wait()

    def _run(self) -> None:
        try:
            os.sched_setaffinity(0, {self.cpu})
            before = _run_queue_wait_ns()
        finally:
            self.ready.set()
        self.reader.run()
        after = _run_queue_wait_ns()
        self.waited_ns = None if before is None or after is None else after - before


class LiveComparison:
    """Compares paths from one interface to an application.

    Parameters
    ----------
    settings : LiveSettings

    Raises
    ------
    UsageError
        The settings make no sense.
    """

    def __init__(self, settings: LiveSettings) -> None:
        settings.check()
        self.settings = settings
        self.paths = paths_of(settings.kinds)
        self.placement = place(settings)
        self._over = threading.Event()

    def stop(self) -> None:
        """End now, without the run that is being made; may be called from a signal handler or another thread."""
        self._over.set()

    def plan(self) -> list[tuple[Path, ...]]:
        """Return which paths are on in each run."""
        if self.placement.design == "frame":
            return [self.paths] * self.settings.runs
        by_name = {path.name: path for path in self.paths}
        return [(by_name[name],) for name in schedule(self.settings.runs, list(by_name), self.settings.seed)]

    def run(self, progress: Callable[[str], None] = lambda said: None) -> LiveOutcome:
        """Make all runs.

        Parameters
        ----------
        progress : callable
            Called with what happens, a line each.

        Raises
        ------
        CaptureError
            The interface is unfit, a path cannot be opened, reading failed, or no probe came.
        HookOccupied
            Another's XDP program is attached.
        BpfError, PermissionDenied, MissingFeature, FilterError
            The program cannot be had.
        """
        settings = self.settings
        interface = NetworkInterface.look_up(settings.interface)
        if not interface.ethernet:
            raise CaptureError(f"{interface.name} has no Ethernet frames: compare on the interface below it")
        if any(path.kind == "kernel" for path in self.paths):
            refuse_if_kernel_path_is_elsewhere(interface.index, interface.name)
        start_ns = time.time_ns()
        with ExitStack() as opened:
            calls = opened.enter_context(closing(KernelCalls()))
            hook, ends, mode = self._open(interface, opened, progress)
            host = HostFacts.gather(interface.name, calls)
            sending = None
            if settings.traffic is not None:
                sending = opened.enter_context(Sending(settings.traffic, settings.seed))
            progress(
                f"{interface.name}: {mode.value} XDP, {self.placement.design} design, {settings.runs} runs of "
                f"{settings.run_duration_ns / 1e9:g} s of each path, port {settings.port}"
            )
            watch = InterfaceWatch(
                interface.index,
                interface.name,
                tell=progress,
                hook=hook,
                on_end=self._over.set,
                down_is_the_end=True,
            )
            opened.enter_context(watch.start())
            runs = self._make_runs(hook, ends, calls, progress, sending, watch)
            if sending is not None:
                # So that what was sent and what came to the hook can be compared.
                sending.stop()
                time.sleep(SETTLING_S)
            counts = hook.counts()
            about = {path.name: ends[path.kind].about for path in self.paths}
            sent = None if sending is None else _sent(sending)
        complete = min(sum(run.path == path for run in runs) for path in self.paths)
        return LiveOutcome(
            settings=settings,
            placement=self.placement,
            paths=self.paths,
            mode=mode,
            refusals=tuple(hook.refusals),
            ends=about,
            runs=tuple(runs),
            counts=counts,
            sent=sent,
            host=host,
            clock_look_ns=clock_cost_ns(),
            start_ns=start_ns,
            end_ns=time.time_ns(),
            interrupted=complete < settings.runs,
            comparison=self._compare(runs, complete),
            failure=_cut_short(watch, complete, settings.runs),
        )

    def _open(
        self, interface: NetworkInterface, opened: ExitStack, progress: Callable[[str], None]
    ) -> tuple[PathHook, dict[str, PathEnd], AttachMode]:
        """Open all ends, and attach the program last, switched off."""
        settings = self.settings
        modes = list(settings.modes)
        driver = driver_of(interface.name)
        why = FRAMES_OF_OTHERS.get(driver, "")
        if why and AttachMode.SKB in modes:
            progress(f"{interface.name}: native XDP is not used: {why}")
            modes = [AttachMode.SKB]
        kinds = {path.kind for path in self.paths}
        ends: dict[str, PathEnd] = {"kernel": opened.enter_context(closing(KernelEnd(settings)))}
        if "packet_mmap" in kinds:
            ends["packet_mmap"] = opened.enter_context(closing(PacketMmapEnd(settings, interface)))
        hook = opened.enter_context(PathHook(settings, self.paths, interface.queues))
        for zero_copy in (True, False):
            # The hook comes off before its sockets are closed.
            attempt = opened.enter_context(ExitStack())
            if "af_xdp" in kinds:
                xsk = XskEnd(
                    settings,
                    interface,
                    zero_copy=zero_copy and modes != [AttachMode.SKB],
                    sockets_of=hook,
                    one_at_a_time=self.placement.design == "block",
                )
                ends["af_xdp"] = attempt.enter_context(closing(xsk))
                vain = why_native_is_vain(driver, {number for one in xsk.sockets for number in one.refusal_numbers})
                if vain and AttachMode.SKB in modes:
                    progress(f"{interface.name}: native XDP is not used: {vain}")
                    modes = [AttachMode.SKB]
            attempt.callback(hook.detach)
            link = CarrierWait(interface)
            mode = hook.attach(interface.link_type, modes)
            away_s = link.wait()
            if away_s:
                progress(f"the link of {interface.name} was down for {away_s:.1f} s, and will be down again at the end")
            if mode is not AttachMode.SKB or "af_xdp" not in kinds or not xsk.zero_copy:
                return hook, ends, mode
            # Generic XDP copies; sockets that wait for the driver would get nothing.
            attempt.close()
        raise MissingFeature(f"{interface.name} does not support AF_XDP sockets: leave af_xdp out of --paths")

    def _make_runs(
        self,
        hook: PathHook,
        ends: Mapping[str, PathEnd],
        calls: KernelCalls,
        progress: Callable[[str], None],
        sending: Sending | None,
        watch: InterfaceWatch,
    ) -> list[PathRun]:
        room = {path.kind: _room_for(self.settings) for path in self.paths}
        answering = None
        if self.settings.round_trip and sending is not None:
            answering = _Answering(sending, _room_for(self.settings))
        runs: list[PathRun] = []
        plan = self.plan()
        for number, active in enumerate(plan):
            failure: CaptureError | None = None
            made: list[PathRun] = []
            if not self._over.is_set():
                try:
                    made = self._run_once(hook, ends, active, room, calls, answering)
                except OSError as error:
                    failure = self._reading_failed(active[0], error.errno or 0)
            failed = next((run for run in made if run.error_number), None)
            if failed is not None:
                failure = self._reading_failed(failed.path, failed.error_number)
            elif sending is not None and sending.failure is not None:
                failure = sending.failure
            if failure is not None and not watch.why_it_failed(""):
                raise failure
            if self._over.is_set():
                break  # A run that was cut short is no replicate.
            runs += made
            if number + 1 == min(_PATIENCE_RUNS, len(plan)) and not any(run.sent for run in runs):
                raise self._no_probes(hook.counts())
            received = ", ".join(f"{run.path.name} {run.received:,} frames" for run in runs[-len(active) :])
            progress(f"run {number + 1} of {len(plan)}: {received}")
        if not runs:
            raise CaptureError(
                f"{watch.ended or 'stopped'} before the first run was complete: there is nothing to compare"
            )
        if self._over.is_set():
            progress("stopped: comparing the completed runs")
        return runs

    def _reading_failed(self, path: Path, number: int) -> CaptureError:
        return CaptureError(
            f"reading {path.name} on {self.settings.interface} failed: {os.strerror(number)}; see 'ip link'"
        )

    def _no_probes(self, counts: HookCounts) -> CaptureError:
        settings = self.settings
        if settings.other_traffic:
            which = "" if settings.port is None else f" to port {settings.port}"
            beside = f", only {counts.other:,} others that match the filter" if counts.other else ""
            return CaptureError(
                f"no untagged UDP over IPv4{which} arrived on {settings.interface}{beside}: see what does with "
                f"'uspcap capture -i {settings.interface}'"
            )
        what = f"no probe to UDP port {settings.port} arrived on {settings.interface}"
        if counts.other:
            what += f", only {counts.other:,} frames of other traffic, which carry no timestamp of the hook"
        return CaptureError(
            f"{what}: start 'uspcap probe send ADDRESS:{settings.port} --one-way' on another host, or compare existing "
            "traffic with --other-traffic"
        )

    def _run_once(
        self,
        hook: PathHook,
        ends: Mapping[str, PathEnd],
        active: Sequence[Path],
        room: Mapping[Kind, NDArray[np.int64]],
        calls: KernelCalls,
        answering: _Answering | None,
    ) -> list[PathRun]:
        settings = self.settings
        for end in ends.values():
            end.begin(active)
        readings = []
        for path in active:
            end = ends[path.kind]
            reader = end.reader(path, room[path.kind])
            readings.append(_Reading(path, end, reader, self.placement.cpus[path.name], drops_before=end.drops()))
        hook.take_timestamps()
        before = hook.counts()
        softirq_ns = _softirq_ns()
        start_ns = time.time_ns()
        with nullcontext() if answering is None else answering.at_work():
            with _working(readings):
                hook.send_to(active)
                try:
                    self._over.wait(settings.run_duration_ns / 1e9)
                finally:
                    hook.send_to(())
                time.sleep(SETTLING_S)
            if answering is not None:
                time.sleep(SETTLING_S)
        answers = None if answering is None else answering.records()
        timestamps = hook.take_timestamps() if settings.other_traffic else None
        softirq_ns = _softirq_ns() - softirq_ns
        counts = hook.counts().since(before)
        offset_ns = tai_offset_ns(calls)
        return [
            self._finish(
                one,
                counts,
                start_ns,
                offset_ns,
                softirq_ns if len(readings) == 1 else None,
                active,
                answers,
                timestamps,
            )
            for one in readings
        ]

    def _finish(
        self,
        one: _Reading,
        counts: HookCounts,
        start_ns: int,
        offset_ns: int,
        softirq_ns: int | None,
        active: Sequence[Path],
        answers: NDArray[np.int64] | None,
        timestamps: NDArray[np.void] | None,
    ) -> PathRun:
        reader, path = one.reader, one.path
        one.end.finish(reader)
        drops = {cause: number - one.drops_before[cause] for cause, number in one.end.drops().items()}
        sent = counts.sent[path.number]
        if path.kind == "kernel":
            # Refused by the socket's filter, these are drops to the kernel.
            refused = sum(counts.sent[other.number] for other in active if other.kind == "packet_mmap")
            drops = {cause: max(0, number - refused) for cause, number in drops.items()}
        received, foreign, ambiguous, without_timestamp = reader.received, reader.foreign, 0, 0
        if timestamps is not None:
            again = find_again(reader.records(), timestamps, offset_ns)
            kept, latency, segments = measure(again.records, path.kind, offset_ns, self.settings.trim)
            without_timestamp = counts.without_timestamp
            received, sent = again.received, again.received + again.lost
            foreign, ambiguous = foreign + again.foreign, again.ambiguous
            if path.kind == "af_xdp":
                drops["queue without a socket"] = counts.no_socket
        elif answers is None:
            kept, latency, segments = measure(reader.records(), path.kind, offset_ns, self.settings.trim)
        else:
            received, kept, latency, segments = measure_round_trips(answers, path, self.settings.trim)
            drops["not answered"] = reader.received - reader.answered
            drops["answer lost"] = reader.answered - received
        if reader.short:
            drops["arrived short"] = reader.short
        drops["unexplained"] = sent - received - sum(drops.values())
        return PathRun(
            path=path,
            start_ns=start_ns,
            sent=sent,
            received=received,
            kept=kept,
            latency=latency,
            segments=segments,
            drops=drops,
            foreign=foreign,
            malformed=malformed_of(reader),
            unrecorded=reader.unrecorded,
            ambiguous=ambiguous,
            without_timestamp=without_timestamp,
            error_number=reader.error_number,
            cycles_error=reader.cycles_error,
            cost=Cost(
                frames=reader.received,
                cpu_ns=reader.cpu_ns,
                user_ns=reader.user_ns,
                system_ns=reader.system_ns,
                run_queue_wait_ns=one.waited_ns,
                voluntary_switches=reader.voluntary_switches,
                involuntary_switches=reader.involuntary_switches,
                system_calls=reader.system_calls,
                wake_ups=reader.wake_ups,
                bytes_copied=one.end.bytes_copied(reader.payload_bytes, reader.received),
                cycles=None if reader.cycles < 0 else reader.cycles,
                softirq_ns=softirq_ns,
            ),
        )

    def _compare(self, runs: Sequence[PathRun], complete: int) -> Comparison | None:
        if not complete:
            return None
        of_paths = {
            path.name: [Run(run.latency.histogram, run.lost) for run in runs if run.path == path][:complete]
            for path in self.paths
        }
        return compare_paths(of_paths, seed=self.settings.seed)


class _Answering:
    """Reads answers where probes are sent from, in a thread beside the sender's."""

    def __init__(self, sending: Sending, room: NDArray[np.int64]) -> None:
        self._sending = sending
        self._room = room
        self._reader = sending.answer_reader(room)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Read answers meanwhile, with a new reader."""
        reader = self._reader = self._sending.answer_reader(self._room)

        def run() -> None:
            if self._sending.cpu is not None:
                os.sched_setaffinity(0, {self._sending.cpu})
            reader.run()

        thread = threading.Thread(target=run, name="uspcap-answers")
        thread.start()
        try:
            yield
        finally:
            reader.stop()
            thread.join()

    def records(self) -> NDArray[np.int64]:
        """Return the answers of the last time."""
        return self._reader.records()


def _cut_short(watch: InterfaceWatch, complete: int, wanted: int) -> CaptureError | None:
    if not watch.ended:
        return None
    return CaptureError(f"{watch.ended}: {complete} of {wanted} runs of each path were complete, and are compared")


@contextmanager
def _working(readings: Sequence[_Reading]) -> Iterator[None]:
    """Have all readers at work, and all of them ended at the end."""
    started: list[_Reading] = []
    try:
        for one in readings:
            one.start()
            started.append(one)
        yield
    finally:
        for one in started:
            one.reader.stop()
        for one in started:
            one.thread.join()


def _room_for(settings: LiveSettings) -> NDArray[np.int64]:
    """Return columns for the records of one run, touched, so that a reader meets no page fault."""
    frames = MOST_FRAMES
    if settings.traffic is not None:
        expected = settings.traffic.rate * settings.run_duration_ns / 1_000_000_000
        frames = min(MOST_FRAMES, 2 * int(expected) + 4096)
    room = np.empty((len(COLUMNS), frames), np.int64)
    room.fill(0)
    return room


def _sent(sending: Sending) -> SentProbes:
    return SentProbes(sending.schedule.about, sending.sent, sending.unsent, sending.refused, sending.lateness.result())


def _run_queue_wait_ns() -> int | None:
    """Return how long the calling thread was ready and had no CPU; None where the kernel does not count it."""
    try:
        return int(FilePath("/proc/thread-self/schedstat").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _softirq_ns() -> int:
    """Return the time that all CPUs have spent in soft interrupts, by the kernel's ticks."""
    line = FilePath("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    return int(line.split()[_SOFTIRQ_FIELD]) * 1_000_000_000 // os.sysconf("SC_CLK_TCK")
