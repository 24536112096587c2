"""The fuzzing loop: generate or mutate, run, keep what reached new code, write down what went wrong.

A target is one module of `targets/` with `generate(random) -> value` and `run(value)`; one with `VARIANTS` is as many
targets, `module:variant`, and both functions get the variant. Where inputs are not to be mutated, it says
`MUTATES = False`; where they may lose keys of dicts, `DROPS_KEYS = True`. `run` returns where the input was taken, or
refused as it should be; anything that it raises is a finding, and so is a process that ends by a signal (a sanitizer's
report is one) or does not end.

Each target runs in a process of its own. The same seed makes the same inputs, from an empty corpus.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import importlib
import json
import mmap
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from accounts import add_run, circumstances
from values import mutated

HERE = Path(__file__).parent
LONGEST_S = 60
"""CPU time far beyond what any input takes, under sanitizers too."""
LONGEST_QUIET_S = 300
"""A target that wrote no account for so long waits for what does not come."""
KEPT_INPUTS = 3000
MOST_FINDINGS = 5
"""A target that found as many is not gone on with."""
CURRENT_BYTES = 8 << 20


def target_names() -> list[str]:
    """Return all targets."""
    names = []
    for path in sorted((HERE / "targets").glob("[a-z]*.py")):
        variants = getattr(importlib.import_module(f"targets.{path.stem}"), "VARIANTS", None)
        names += [path.stem] if variants is None else [f"{path.stem}:{variant}" for variant in variants]
    return names


class Feedback:
    """How often code was reached that had not been before; always 0 where the build does not tell."""

    def __init__(self) -> None:
        import uspcap

        self._counts = []
        root = Path(next(iter(uspcap.__path__)))
        for path in sorted(root.rglob("*.so")):
            package = ".".join(path.relative_to(root.parent).parent.parts)
            with contextlib.suppress(ValueError, ImportError):
                importlib.import_module(f"{package}.{path.name.partition('.')[0]}")
                self._counts.append(ctypes.c_uint64.in_dll(ctypes.CDLL(str(path)), "uspcap_discoveries"))

    def total(self) -> int:
        """Return the count of all modules."""
        return sum(count.value for count in self._counts)


@dataclass
class Account:
    """What a run tried, and what came of it."""

    target: str
    seed: int
    inputs: int = 0
    generated: int = 0
    mutated: int = 0
    kept: int = 0
    discoveries: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)


class Fuzzer:
    """One target in this process."""

    def __init__(self, target: str, seed: int, current: Path | None) -> None:
        name, _, variant = target.partition(":")
        module = importlib.import_module(f"targets.{name}")
        arguments = (variant,) if variant else ()
        self._generate: Callable[[Random], Any] = lambda random: module.generate(random, *arguments)
        self._run: Callable[[Any], None] = lambda value: module.run(value, *arguments)
        self._mutates: bool = getattr(module, "MUTATES", True)
        self._drops_keys: bool = getattr(module, "DROPS_KEYS", False)
        self._random = Random(f"{seed} {target}")
        self._feedback = Feedback()
        self._corpus: list[Any] = []
        self._known: set[str] = set()
        self.account = Account(target, seed)
        self._current = None
        if current is not None:
            with current.open("w+b") as file:
                file.truncate(CURRENT_BYTES)
                self._current = mmap.mmap(file.fileno(), CURRENT_BYTES)

    def step(self) -> None:
        """Try one input."""
        random = self._random
        if self._mutates and self._corpus and random.random() < 0.5:
            value = mutated(random.choice(self._corpus), random, drops_keys=self._drops_keys)
            self.account.mutated += 1
        else:
            value = self._generate(random)
            self.account.generated += 1
        if self._current is not None:
            written = pickle.dumps(value)[: CURRENT_BYTES - 8]
            self._current[: 8 + len(written)] = len(written).to_bytes(8, "little") + written
        before = self._feedback.total()
        self._try(value)
        self.account.inputs += 1
        found = self._feedback.total() - before
        if found:
            self.account.discoveries += found
            self.account.kept += 1
            if len(self._corpus) < KEPT_INPUTS:
                self._corpus.append(value)
            else:
                self._corpus[random.randrange(KEPT_INPUTS)] = value

    def _try(self, value: Any) -> None:
        signal.setitimer(signal.ITIMER_PROF, LONGEST_S)
        try:
            self._run(value)
        except Exception as error:
            place = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[-2:]]
            kind = f"{type(error).__name__} at {' < '.join(reversed(place))}"
            if kind not in self._known:
                self._known.add(kind)
                what = "".join(traceback.format_exception(error))
                self.account.findings.append({"kind": kind, "what": what, "input": repr(value)})
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def work(
    target: str,
    seed: int,
    *,
    seconds: float | None,
    count: int | None,
    least: int,
    first: bool,
    current: Path,
    account: Path,
) -> None:
    """Run a target until the time is up or the inputs are tried; write the account again and again."""
    fuzzer = Fuzzer(target, seed, current)
    began = written = time.monotonic()
    cpu_began = time.process_time()
    while True:
        now = time.monotonic()
        tried = fuzzer.account.inputs
        done = (seconds is not None and now - began >= seconds and tried >= least) or (
            (count is not None and tried >= count) or (first and bool(fuzzer.account.findings))
        )
        if done or now - written > 1:
            fuzzer.account.seconds = now - began
            fuzzer.account.cpu_seconds = time.process_time() - cpu_began
            account.write_text(json.dumps(asdict(fuzzer.account)))
            written = now
        if done:
            return
        fuzzer.step()


def supervise(
    target: str, seed: int, *, seconds: float | None, count: int | None, least: int, first: bool, directory: Path
) -> Account:
    """Run a target in a process of its own, and again with the next seed where that ended by a signal."""
    total = Account(target, seed)
    began = time.monotonic()
    current, account = directory / f"{target}.current", directory / f"{target}.json"
    log = directory / f"{target}.log"
    while True:
        left_s = None if seconds is None else seconds - (time.monotonic() - began)
        left = None if count is None else count - total.inputs
        if (
            (left_s is not None and left_s <= 0 and total.inputs >= least)
            or (left is not None and left <= 0)
            or len(total.findings) >= (1 if first else MOST_FINDINGS)
        ):
            break
        account.unlink(missing_ok=True)
        command = [sys.executable, __file__, "--work", target, "--seed", str(seed), "--directory", str(directory)]
        command += [] if left_s is None else ["--seconds", str(left_s)]
        command += [] if left is None else ["--count", str(left)]
        command += ["--least", str(max(0, least - total.inputs))]
        command += ["--first"] if first else []
        # Of two settings the later one holds: a sanitizer's report belongs to the finding.
        environment = os.environ | {
            name: f"{os.environ.get(name, '')}:log_path=stderr" for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS")
        }
        with log.open("wb") as output:
            ended = _watched(subprocess.Popen(command, stdout=output, stderr=output, env=environment), account)
        part = json.loads(account.read_text()) if account.exists() else asdict(Account(target, seed))
        for name in ("inputs", "generated", "mutated", "kept", "discoveries", "cpu_seconds"):
            setattr(total, name, getattr(total, name) + part[name])
        total.findings += part["findings"]
        if ended:
            what = log.read_text(errors="replace")[:12_000]
            why = f"signal {signal.Signals(-ended).name}" if ended < 0 else f"exit code {ended}"
            reported = re.search(r"^(.*runtime error: .*|.*ERROR: AddressSanitizer: .*)$", what, re.MULTILINE)
            if reported:
                why += f": {reported[1]}"
            if ended == -signal.SIGPROF:
                why = f"an input that did not end within {LONGEST_S} s of CPU time"
            if ended == -signal.SIGALRM:
                why = f"an input that waited for {LONGEST_QUIET_S} s"
            total.findings.append({"kind": why, "what": what, "input": _current_input(current)})
        seed += 1_000_003
    total.seconds = time.monotonic() - began
    return total


def _watched(process: subprocess.Popen[bytes], account: Path) -> int:
    """Wait for a target's end, and end it where it gets no further; return its exit code.

    Seconds are counted here, as a machine may be suspended in between.
    """
    written, quiet_s = 0, 0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(1)
        before, written = written, account.stat().st_mtime_ns if account.exists() else 0
        quiet_s = quiet_s + 1 if written == before else 0
        if quiet_s >= LONGEST_QUIET_S:
            process.send_signal(signal.SIGALRM)


def _current_input(current: Path) -> str:
    try:
        held = current.read_bytes()
        return repr(pickle.loads(held[8 : 8 + int.from_bytes(held[:8], "little")]))
    except Exception as error:
        return f"not known: {error}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="all unless named")
    parser.add_argument("--seconds", type=float, help="for all targets together, shared out evenly")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--count", type=int, help="inputs of each target")
    parser.add_argument("--least", type=int, default=0, help="inputs of each target, however long they take")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--directory", type=Path, required=True, help="for accounts and findings")
    parser.add_argument("--command", default="fuzz/engine.py", help="what the account of the run says it was")
    parser.add_argument("--first", action="store_true", help="end with the first finding of each target")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    """Run what the command line asks for; 1 where anything was found."""
    given = arguments()
    directory: Path = given.directory
    directory.mkdir(parents=True, exist_ok=True)
    limits = {"seconds": given.seconds, "count": given.count, "least": given.least, "first": given.first}
    if given.work:
        current, account = directory / f"{given.work}.current", directory / f"{given.work}.json"
        work(given.work, given.seed, current=current, account=account, **limits)
        return 0
    targets = given.targets or target_names()
    # At once: what is tried until somebody ends the run counts as well.
    add_run(directory, {**circumstances(given.command), "targets": targets, "seed": given.seed})
    if given.seconds is not None:
        limits["seconds"] = given.seconds * given.jobs / len(targets)
    with ThreadPoolExecutor(given.jobs) as pool:
        running = {
            target: pool.submit(supervise, target, given.seed, directory=directory, **limits) for target in targets
        }
        accounts = [_recorded(directory, running[target].result()) for target in targets]
    print(f"all: {sum(account.inputs for account in accounts)} inputs of {len(accounts)} targets")
    return int(any(account.findings for account in accounts))


def _recorded(directory: Path, account: Account) -> Account:
    """Write an account down, and print it."""
    (directory / f"{account.target}.current").unlink(missing_ok=True)
    (directory / f"{account.target}.json").write_text(json.dumps(asdict(account), indent=2))
    how = f"{account.generated} generated, {account.mutated} mutated, {account.kept} kept"
    took = f"{account.seconds:.0f} s, {account.cpu_seconds:.0f} s of CPU"
    print(f"{account.target}: {account.inputs} inputs ({how}) in {took}, {len(account.findings)} findings", flush=True)
    for finding in account.findings:
        print(f"  {finding['kind']}\n    {finding['input'][:300]}", flush=True)
    return account


if __name__ == "__main__":
    sys.exit(main())
