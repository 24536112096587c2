#!/usr/bin/env python3
"""Put each mended bug back, one at a time, and measure how long fuzzing takes to find it from an empty corpus.

    fuzz/find_again.py [PATCH...]            all of fuzz/regressions/*.patch unless named

A patch reverts a fix. Its first lines say which targets look for it and what the finding is to hold:

    target: analysis:bursts
    finding: analysis/bursts/loop.pyx

Each is applied in a clone of its own, built with sanitizers as `fuzz/build.sh` does, and its target runs until it finds
something that holds the word, for ten minutes at most.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from accounts import FOUND_AGAIN, ROOT, circumstances, write

LONGEST_S = 600


def described(patch: Path) -> dict[str, str]:
    """Return what the lines before the patch say."""
    head = patch.read_text(encoding="utf-8").partition("\ndiff ")[0]
    return dict(re.findall(r"^(target|finding|bug): (.*)$", head, re.MULTILINE))


def find_again(patch: Path, clone: Path, venv: Path, seed: int) -> tuple[float | None, str]:
    """Return after how many seconds of fuzzing a bug was found again, and what was found; None where it was not."""
    about = described(patch)
    subprocess.run(["git", "checkout", "-q", "--", "."], cwd=clone, check=True)
    subprocess.run(["git", "apply", str(patch)], cwd=clone, check=True)
    subprocess.run(["fuzz/build.sh", "sanitizers", str(venv)], cwd=clone, check=True)
    environment = os.environ | {"PYTHONPATH": "fuzz:tests", "PYTHONSAFEPATH": "1"}
    found = clone / ".instrumented" / "found"
    shutil.rmtree(found, ignore_errors=True)
    fuzzer = [str(venv / "bin" / "python"), "fuzz/engine.py", "--directory", str(found), "--first"]
    began = time.monotonic()
    for turn in range(1000):
        left = LONGEST_S - (time.monotonic() - began)
        if left <= 0:
            break
        limits = ["--seconds", str(left), "--seed", str(seed + turn), about["target"]]
        ended = subprocess.run(["fuzz/sanitized.sh", *fuzzer, *limits], cwd=clone, env=environment, capture_output=True)
        account = found / f"{about['target']}.json"
        findings = json.loads(account.read_text())["findings"] if account.exists() else []
        for finding in findings:
            if about["finding"] in finding["kind"] + finding["what"]:
                return time.monotonic() - began, finding["kind"]
        if not findings and ended.returncode:
            raise SystemExit(f"{patch.name}: the fuzzer did not run: {ended.stderr.decode()[-2000:]}")
    return None, ""


def main() -> int:
    """Print a table; 1 where a bug was not found again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patches", nargs="*", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where the clone and its build stay, for the next time")
    given = parser.parse_args()
    patches = given.patches or sorted((ROOT / "fuzz" / "regressions").glob("*.patch"))
    status = 0
    about_all = circumstances("fuzz/find_again.py")
    print("| bug put back | target | found after | as |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() if given.keep is None else nullcontext(given.keep.resolve()) as scratch:
        clone = Path(scratch) / "uspcap"
        if clone.exists():
            subprocess.run(["git", "fetch", "-q", str(ROOT), "HEAD"], cwd=clone, check=True)
            subprocess.run(["git", "reset", "-q", "--hard", "FETCH_HEAD"], cwd=clone, check=True)
        else:
            subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        for patch in patches:
            about = described(patch)
            after, what = find_again(patch.resolve(), clone, Path(scratch) / "venv", given.seed)
            said = "not within 10 minutes" if after is None else f"{after:.0f} s"
            print(f"| {about['bug']} | `{about['target']}` | {said} | {what[:100]} |", flush=True)
            status |= after is None
            account = {**about_all, **about, "patch": patch.stem, "after_s": after, "as": what, "seed": given.seed}
            write(FOUND_AGAIN / f"{patch.stem}.json", account)
    return status


if __name__ == "__main__":
    sys.exit(main())
