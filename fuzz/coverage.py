"""Which lines of the compiled modules fuzz targets and fast tests reach: a table, and the lines that they do not.

    fuzz/build.sh lines
    .instrumented/lines/bin/python fuzz/coverage.py [--count INPUTS] [--only-table]

Counts of earlier runs are cleared first. The build has gcov's counters in it, and `#line` directives that say of which
line of a .pyx or .pxd each C statement is; a line of a .pxd counts as reached where any module reaches it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "lines"
WANTED = 0.9


def run_everything(count: int) -> None:
    """Run the fast tests, then so many inputs of each target, with counters that begin at 0."""
    for path in BUILD.rglob("*.gcda"):
        path.unlink()
    python = sys.executable
    environment = os.environ | {"PYTHONPATH": "fuzz:tests", "PYTHONSAFEPATH": "1"}
    tests = [python, "-m", "pytest", "-q", "-m", "fast", "-p", "no:cacheprovider", "-n", str(os.cpu_count())]
    subprocess.run(tests, cwd=ROOT, env=environment, check=True)
    engine = [python, "fuzz/engine.py", "--count", str(count), "--jobs", str(os.cpu_count())]
    subprocess.run([*engine, "--directory", ".instrumented/coverage"], cwd=ROOT, env=environment, check=True)


def lines_reached() -> dict[str, dict[int, int]]:
    """Return how often each line was reached, by source."""
    reached: dict[str, dict[int, int]] = defaultdict(dict)
    lengths: dict[str, int] = {}
    for path in sorted(BUILD.rglob("*.gcda")):
        told = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(path)], cwd=BUILD, check=True, capture_output=True, text=True
        ).stdout
        for file in json.loads(told)["files"]:
            name = Path(file["file"]).name
            source = ROOT / "uspcap" / "_native" / name
            if not source.name.endswith((".pyx", ".pxd")) or not source.exists():
                continue
            if name not in lengths:
                lengths[name] = len(source.read_text(encoding="utf-8").splitlines())
            for line in file["lines"]:
                number, times = line["line_number"], line["count"]
                if number <= lengths[name]:
                    reached[name][number] = max(times, reached[name].get(number, 0))
    return reached


def ranges(numbers: list[int]) -> str:
    """Return rising numbers as text: 3, 7-9."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in parts)


def main() -> int:
    """Print the table; 1 where a module has fewer lines reached than is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="inputs of each target")
    parser.add_argument("--only-table", action="store_true", help="of what was run before")
    given = parser.parse_args()
    if not given.only_table:
        run_everything(given.count)
    status = 0
    print("| module | lines | reached | not reached |\n|---|---|---|---|")
    for name, counts in sorted(lines_reached().items()):
        missed = sorted(number for number, times in counts.items() if not times)
        share = 1 - len(missed) / len(counts)
        print(f"| `{name}` | {len(counts)} | {100 * share:.1f} % | {ranges(missed)} |")
        status |= name.endswith(".pyx") and share < WANTED
    return status


if __name__ == "__main__":
    sys.exit(main())
