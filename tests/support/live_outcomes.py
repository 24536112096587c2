"""Outcomes of live comparisons from made-up times of frames: no interface, the same every time."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from uspcap.bpf.attach import AttachMode, Refusal
from uspcap.comparison.live.experiment import LiveOutcome
from uspcap.comparison.live.hook import HookCounts
from uspcap.comparison.live.measurement import Cost, PathRun, measure
from uspcap.comparison.live.path_readers import COLUMNS
from uspcap.comparison.live.settings import LiveSettings, Path, Placement, paths_of
from uspcap.comparison.schedule import Trim
from uspcap.comparison.statistics import Run, compare_paths
from uspcap.sinks.host_facts import HostFacts, NicFacts

START_NS = 1_700_000_000_000_000_000
TRIM = Trim(warm_up_ns=5_000_000, cool_down_ns=2_000_000)


def frames_of(
    generator: np.random.Generator, frames: int, *, extra_ns: float = 0.0, run_noise: float = 0.1
) -> np.ndarray:
    """Return records of one run: log-normal latencies that follow each other, scaled by what the run was like."""
    gap_ns = 100_000
    intended = START_NS + gap_ns * np.arange(frames)
    noise = generator.standard_normal(frames)
    for at in range(1, frames):
        noise[at] = 0.6 * noise[at - 1] + 0.8 * noise[at]
    scale = np.exp(run_noise * generator.standard_normal())
    latency = np.round(20_000 * scale * np.exp(0.3 * noise) + extra_ns).astype(np.int64)
    hook = intended + 40_000
    columns = {
        "sequence": np.arange(frames),
        "intended_ns": intended,
        "hook_ns": hook,
        "kernel_ns": hook + 250,
        "found_ns": hook + latency - 60,
        "user_ns": hook + latency,
    }
    return np.array([columns[name] for name in COLUMNS], np.int64)


def run_of(path: Path, records: np.ndarray, *, lost: int = 0) -> PathRun:
    kept, latency, segments = measure(records, path.kind, 0, TRIM)
    frames = records.shape[1]
    cost = Cost(frames, 10_000 * frames, 0, 9_000 * frames, 1_000, frames, 3, 2 * frames, frames, 106 * frames, None, 0)
    drops = {"ring full": lost, "unexplained": 0}
    return PathRun(path, START_NS, frames + lost, frames, kept, latency, segments, drops, 0, 0, 0, cost, cycles_error=2)


def outcome_of(
    kinds: Sequence[Any] = ("kernel", "af_xdp"),
    *,
    runs: int = 8,
    frames: int = 300,
    extra_ns: Mapping[str, float] | None = None,
    lost: Mapping[str, int] | None = None,
    silent: Collection[str] = (),
    seed: int = 1,
    mode: AttachMode = AttachMode.NATIVE,
    run_noise: float = 0.1,
    **changes: Any,
) -> LiveOutcome:
    """Return the outcome of so many runs of each path, of which `silent` ones lose every frame."""
    generator = np.random.default_rng(seed)
    paths = paths_of(kinds)
    settings = replace(LiveSettings("veth\x1b[31m", kinds=tuple(kinds), runs=runs, seed=seed, trim=TRIM), **changes)
    made = [
        run_of(
            path,
            frames_of(
                generator,
                0 if path.name in silent else frames,
                extra_ns=(extra_ns or {}).get(path.name, 0),
                run_noise=run_noise,
            ),
            lost=frames if path.name in silent else (lost or {}).get(path.name, 0),
        )
        for _ in range(runs)
        for path in paths
    ]
    of_paths = {path.name: [Run(run.latency.histogram, run.lost) for run in made if run.path == path] for path in paths}
    sent = sum(run.sent for run in made)
    return LiveOutcome(
        settings=settings,
        placement=Placement("block", {path.name: 1 for path in paths}, "2 CPUs are too few", False),
        paths=paths,
        mode=mode,
        refusals=(Refusal(AttachMode.NATIVE, "no such thing"),) if mode is AttachMode.SKB else (),
        ends={path.name: f"a {path.kind} of plain memory" for path in paths},
        runs=tuple(made),
        counts=HookCounts(sent + 9, sent + 8, 3, 5, 0, 0, (sent, 0, 0, 0, 0, 0)),
        sent=None,
        host=HostFacts("Linux 6.1 x86_64", None, 2, "tsc", 37, NicFacts("veth0", driver="veth")),
        clock_look_ns=23.4,
        start_ns=START_NS,
        end_ns=START_NS + 10**10,
        interrupted=False,
        comparison=compare_paths(of_paths, seed=seed),
    )
