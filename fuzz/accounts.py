#!/usr/bin/env python3
"""Put what was measured into fuzz/README.md, between `<!-- NAME -->` and `<!-- /NAME -->`.

    fuzz/accounts.py        whatever there is an account of in .instrumented: no figure there is typed by hand

| section | from | made by |
|---|---|---|
| tried | `.instrumented/fuzz`, and `tried.json` beside this file, which keeps what earlier runs tried | `fuzz/run.sh` |
| found again | `.instrumented/found_again` | `fuzz/find_again.py` |
| lines | `.instrumented/coverage.json` | `fuzz/coverage.py` |
| captures | `.instrumented/captures.json` | `fuzz/captures.py` |
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "fuzz" / "README.md"
ACCOUNTS = ROOT / ".instrumented"
FUZZ, FOUND_AGAIN = ACCOUNTS / "fuzz", ACCOUNTS / "found_again"
LINES, CAPTURES = ACCOUNTS / "coverage.json", ACCOUNTS / "captures.json"
RUNS = "runs.json"
"""Beside the accounts of targets: what is said of whole runs, each with the targets that it was the last to run."""
REGRESSIONS = ROOT / "fuzz" / "regressions"
TRIED = ROOT / "fuzz" / "tried.json"
"""What the last run of each target with each seed came to: to fuzz all of them takes hours, and each run is of some.
Other seeds make other inputs, which add up."""
SUMS = ("inputs", "mutated", "kept", "cpu_seconds")


def circumstances(command: str) -> dict[str, Any]:
    """Return what is to be known of anything measured: command, date, machine, compiler, sources."""

    def first_line(*command: str) -> str:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.partition("\n")[0]

    return {
        "command": command,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": f"{os.cpu_count()} CPUs, Linux {platform.release().partition('-')[0]}",
        "compiler": first_line("gcc", "--version"),
        "python": platform.python_version(),
        "commit": first_line("git", "rev-parse", "--short=10", "HEAD"),
    }


def write(path: Path, account: Any) -> None:
    """Write an account down."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(account, indent=1), encoding="utf-8")


def _with_run(runs: list[dict[str, Any]], run: dict[str, Any]) -> list[dict[str, Any]]:
    """Return runs with one more; earlier ones with its seed lose the targets that it has run again."""
    again = set(run["targets"])
    kept = [
        {**one, "targets": [name for name in one["targets"] if one["seed"] != run["seed"] or name not in again]}
        for one in runs
    ]
    return [*(one for one in kept if one["targets"]), run]


def add_run(directory: Path, run: dict[str, Any]) -> None:
    """Write a run down beside earlier ones."""
    path = directory / RUNS
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    write(path, _with_run(earlier, run))


def _about(account: dict[str, Any]) -> str:
    return "`{command}`, {date}, {machine}, {compiler}, Python {python}.".format(**account)


def _keep_tried() -> dict[str, Any]:
    """Write what was tried beside what is kept of earlier runs, and return all of it."""
    kept = json.loads(TRIED.read_text(encoding="utf-8"))
    for run in json.loads((FUZZ / RUNS).read_text(encoding="utf-8")):
        paths = [FUZZ / f"{name}.json" for name in run["targets"]]
        accounts = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        for account in accounts:
            if account["seed"] == run["seed"]:
                kept["targets"].setdefault(account["target"], {})[str(run["seed"])] = {
                    **{key: round(account[key]) for key in SUMS},
                    "findings": len(account["findings"]),
                }
        kept["runs"] = _with_run(kept["runs"], run)
    kept["targets"] = dict(sorted(kept["targets"].items()))
    TRIED.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return kept


def tried() -> str:
    """Return the table of what fuzzing tried and found."""
    kept = _keep_tried()
    accounts = {
        name: {key: sum(account[key] for account in seeds.values()) for key in (*SUMS, "findings")}
        for name, seeds in kept["targets"].items()
    }
    row = "| {} | {inputs:,} | {mutated:,} | {kept:,} | {cpu_seconds:,} | {findings} |"
    whole = {name: sum(account[name] for account in accounts.values()) for name in (*SUMS, "findings")}
    return "\n".join(
        (
            *(_about(run) for run in kept["runs"]),
            f"Open findings: {whole['findings']}.",
            "",
            "| target | inputs | of them mutated | reached something new | CPU s | open findings |",
            "|---|---|---|---|---|---|",
            *(row.format(f"`{target}`", **account) for target, account in accounts.items()),
            row.format(f"all {len(accounts)}", **whole),
        )
    )


def found_again() -> str:
    """Return the table of mended bugs that were put back, with the rows that it has of patches not tried again."""
    accounts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOUND_AGAIN.glob("*.json"))]
    rows = {
        account["patch"]: f"| `{account['patch']}` | {account['bug']} | `{account['target']}` "
        f"| {'not within 10 minutes' if account['after_s'] is None else '{:.0f} s'.format(account['after_s'])} |"
        for account in accounts
    }
    text = README.read_text(encoding="utf-8")
    before = text.partition("<!-- found again -->")[2].partition("<!-- /found again -->")[0]
    for row, patch in re.findall(r"^(\| `([\w-]+)` \|.*)$", before, re.MULTILINE):
        if (REGRESSIONS / f"{patch}.patch").exists():
            rows.setdefault(patch, row)
    dates = sorted({*(account["date"] for account in accounts), *re.findall(r"\d{4}-\d\d-\d\d", before)})
    about = accounts[-1] | {"command": "fuzz/find_again.py", "date": " to ".join(dict.fromkeys((dates[0], dates[-1])))}
    return "\n".join(
        (
            f"{_about(about)} From an empty corpus, one process on one CPU; the build is not counted.",
            "",
            "| patch | bug put back | target | found after |",
            "|---|---|---|---|",
            *(rows[patch] for patch in sorted(rows)),
        )
    )


def lines() -> str:
    """Return the table of lines reached."""
    account = json.loads(LINES.read_text(encoding="utf-8"))
    rows = [
        f"| `{row['module']}` | {row['lines']} | {row['percent']:.1f} % | {'; '.join(row['missed']) or 'none'} |"
        for row in account["modules"]
    ]
    head = "| module | lines | reached | not reached, with the reason |\n|---|---|---|---|"
    return "\n".join((_about(account), "", head, *rows))


def captures() -> str:
    """Return what came of capture files."""
    account = json.loads(CAPTURES.read_text(encoding="utf-8"))
    return (
        f"{_about(account)} {account['files']} files, {account['runs']} runs of `analyze` each, "
        f"{account['cpu_seconds'] / 60:.0f} minutes of CPU "
        f"{'under sanitizers, which reported nothing' if account['sanitized'] else 'without sanitizers'}: "
        f"{account['wrong']} ended as none may."
    )


SECTIONS: dict[str, tuple[Path, Callable[[], str]]] = {
    "tried": (FUZZ / RUNS, tried),
    "found again": (FOUND_AGAIN, found_again),
    "lines": (LINES, lines),
    "captures": (CAPTURES, captures),
}


def filled(text: str, name: str, content: str) -> str:
    """Return a text with one section's content replaced."""
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    made, times = pattern.subn(lambda found: f"{found[1]}{content}\n{found[2]}", text)
    if times != 1:
        raise SystemExit(f"{README}: has {times} sections {name!r}, and is to have one")
    return made


def main() -> None:
    """Fill every section of which there is an account."""
    text = README.read_text(encoding="utf-8")
    for name, (path, made) in SECTIONS.items():
        if path.exists():
            text = filled(text, name, made())
            print(f"{name}: from {path.relative_to(ROOT)}")
        else:
            print(f"{name}: left as it is, there is no {path.relative_to(ROOT)}")
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
