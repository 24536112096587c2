#!/usr/bin/env python3
"""Put what was measured into fuzz/README.md, between `<!-- NAME -->` and `<!-- /NAME -->`.

    fuzz/accounts.py        whatever there is an account of in .instrumented: no figure there is typed by hand

| section | from | made by |
|---|---|---|
| tried | `.instrumented/fuzz` | `fuzz/run.sh` |
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


def add_run(directory: Path, run: dict[str, Any]) -> None:
    """Write a run down beside earlier ones, which lose the targets that it has run again."""
    path = directory / RUNS
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    kept = [{**one, "targets": [name for name in one["targets"] if name not in run["targets"]]} for one in earlier]
    write(path, [*(one for one in kept if one["targets"]), run])


def _about(account: dict[str, Any]) -> str:
    return "`{command}`, {date}, {machine}, {compiler}, Python {python}.".format(**account)


def tried() -> str:
    """Return the table of what fuzzing tried and found."""
    runs = json.loads((FUZZ / RUNS).read_text(encoding="utf-8"))
    targets = sorted(target for run in runs for target in run["targets"])
    accounts = [json.loads((FUZZ / f"{target}.json").read_text(encoding="utf-8")) for target in targets]
    rows = [
        f"| `{account['target']}` | {account['inputs']:,} | {account['mutated']:,} | {account['kept']:,} "
        f"| {account['cpu_seconds']:,.0f} | {len(account['findings'])} |"
        for account in accounts
    ]
    whole = {name: sum(account[name] for account in accounts) for name in ("inputs", "mutated", "kept", "cpu_seconds")}
    findings = sum(len(account["findings"]) for account in accounts)
    return "\n".join(
        (
            *(f"{_about(run)} {run['seconds'] / 60:.0f} minutes." for run in runs),
            f"Open findings: {findings}.",
            "",
            "| target | inputs | of them mutated | reached something new | CPU s | open findings |",
            "|---|---|---|---|---|---|",
            *rows,
            "| all {} | {inputs:,} | {mutated:,} | {kept:,} | {cpu_seconds:,.0f} | {} |".format(
                len(rows), findings, **whole
            ),
        )
    )


def found_again() -> str:
    """Return the table of mended bugs that were put back."""
    accounts = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOUND_AGAIN.glob("*.json"))]
    dates = sorted({account["date"] for account in accounts})
    rows = [
        f"| `{account['patch']}` | {account['bug']} | `{account['target']}` "
        f"| {'not within 10 minutes' if account['after_s'] is None else '{:.0f} s'.format(account['after_s'])} |"
        for account in accounts
    ]
    about = accounts[-1] | {"command": "fuzz/find_again.py", "date": " to ".join(dict.fromkeys((dates[0], dates[-1])))}
    return "\n".join(
        (
            f"{_about(about)} From an empty corpus, one process on one CPU; the build is not counted.",
            "",
            "| patch | bug put back | target | found after |",
            "|---|---|---|---|",
            *rows,
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
