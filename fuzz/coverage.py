"""Which lines of the compiled modules fuzz targets and tests reach, and why the others are not.

    fuzz/build.sh lines
    .instrumented/lines/bin/python fuzz/coverage.py [--count INPUTS] [--only-table]

Run are the fast and the thorough tests, with few examples of each law, and so many inputs of each target. What reads
the rings of a NIC cannot be fed by a file: its tests make rings in memory, and root's make network interfaces and rings
on them. Counts of earlier runs are cleared. The build has gcov's counters; a comment in Cython's C says of which line
of a .pyx or .pxd the statements after it are. A line is reached where any of its statements is, in any module. What
Cython adds of its own (modules set up, access to attributes, arguments parsed) is no line of a module.

Lines that are not reached are listed by function, with the reason: of the kinds in `KINDS`, or from `REASONS`. Where
neither says one, an input leads there, and none that was tried is it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from itertools import groupby

from accounts import LINES, ROOT, circumstances, write

BUILD = ROOT / "build" / "lines"
PACKAGE = ROOT / "uspcap"
WANTED = 0.9
LIVE_TESTS = ("tests/backends", "tests/probe")
"""Of what reads rings."""

KINDS = (
    (r"raise (ValueError|IndexError|TypeError)|another layout", "no caller asks for it"),
    (r"^.* // cdef \w+ .*nogil:|^.* // cdef Py_ssize_t .*$", "subclasses have their own"),
    (r"raise MemoryError|no memory|NO_MEMORY|failed = True|if failed|[!=]= NULL|\bfree\(|_free\(", "memory runs out"),
    (r"(if|elif|and) not [\w.]+\(.*\): // return( False| -1|$)|(not copied|(block|found) < 0): //", "memory runs out"),
    (r"!= STREAM_STORED: //|bits > MOST_BITS: //|> <uint32_t> 1 << 30: //", "memory runs out"),
    (r"^if \w+ - self\.\w+ > self\.\w+\.size: //", "no kernel does it"),
    (r"(begin|offset|start|offset\[\w+\]) < 0( or .*)?: //|header_length < HEADER", "no decoder says so"),
    (r"later\.frames == 0: //", "empty parts are not joined"),
    (r"errno [!=]= EINTR|result != GO_ON: //|relax\(\)", "a signal at that moment"),
)
"""What a stretch, after the line before it, says of why none of it is reached."""

NO_STATEMENT = ("cdef readonly", "cdef public", "cdef class", "class ", "@")
"""Begins of lines whose C is Cython's own."""

REASONS: dict[tuple[str, str], str] = {
    ("bpf/classic_bpf.pyx", "verdict"): "programs are checked before they run",
    ("backends/gathering.pyx", "run"): "an offset of CLOCK_TAI that changes, a signal at that moment",
    ("comparison/matching.pyx", "earlier"): "both sides of what came to be a cluster are there",
    ("messages/message_streams.pyx", "settle"): "takes more frames than a test has",
    ("comparison/live/path_readers.pyx", "run"): "counters of cycles, which a virtual machine need not have",
    ("comparison/live/path_readers.pyx", "record_other"): "a delay that only a test of the null hypothesis asks for",
    ("probe/probe_sockets.pyx", "is_new"): "takes more frames than a test has",
    ("probe/probe_sockets.pyx", "unanswered"): "takes more frames than a test has",
    ("probe/probe_sockets.pyx", "loop"): "a socket whose buffer is full at that moment",
    ("probe/probe_sockets.pyx", "send"): "a socket whose buffer is full at that moment",
    ("analysis/tcp/tcp_state.pyx", "wait_for"): "takes more frames than a test has",
    ("backends/packet_mmap/tpacket.pyx", "unfinished"): "a socket just closed, in processes of their own",
    (
        "backends/packet_mmap/tpacket.pyx",
        "drain_unfinished",
    ): "a socket that has just been closed, in processes of their own",
}
"""By module and function, of what no kind says."""


def run_everything(count: int, jobs: str) -> None:
    """Run the tests, then so many inputs of each target, with counters that begin at 0."""
    for path in BUILD.rglob("*.gcda"):
        path.unlink()
    python = sys.executable
    environment = os.environ | {"PYTHONPATH": "fuzz:tests", "PYTHONSAFEPATH": "1"}
    # A build that counts every line is slower than some tests wait for: here they reach lines, they do not decide.
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    for words in (
        ["-m", "fast or thorough", "-n", jobs],
        ["-m", "live", *LIVE_TESTS],
    ):
        subprocess.run([*tests, *words], cwd=ROOT, env=environment | {"USPCAP_MOST_EXAMPLES": "8"})
    engine = [python, "fuzz/engine.py", "--count", str(count), "--jobs", jobs]
    subprocess.run([*engine, "--directory", ".instrumented/coverage"], cwd=ROOT, env=environment, check=True)


def lines_reached() -> dict[str, dict[int, int]]:
    """Return how often each line was reached, by source."""
    reached: dict[str, dict[int, int]] = defaultdict(dict)
    texts = {
        path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8").splitlines()
        for path in PACKAGE.rglob("*.p[yx][xd]")
    }
    for path in sorted(BUILD.rglob("*.gcno")):
        printed = subprocess.run(
            ["gcov", "--json-format", "--stdout", str(path)], cwd=BUILD, check=True, capture_output=True, text=True
        ).stdout
        for file in json.loads(printed)["files"]:
            written = BUILD / file["file"]
            if not written.name.endswith(".pyx.c"):
                continue
            origins = origins_of(written.read_text(encoding="utf-8"))
            for line in file["lines"]:
                name, number = origins[line["line_number"] - 1]
                if name in texts and not texts[name][number - 1].lstrip().startswith(NO_STATEMENT):
                    reached[name][number] = max(line["count"], reached[name].get(number, 0))
    return reached


def origins_of(text: str) -> list[tuple[str, int]]:
    """Return for each line of Cython's C the source and line that it is made of, or ("", 0)."""
    origin = nowhere = ("", 0)
    origins = []
    for line in text.splitlines():
        marker = re.match(r'\s*/\* "([^"]+)":([0-9]+)$', line)
        if marker:
            origin = marker[1].removeprefix("uspcap/"), int(marker[2])
        elif "/* function exit code */" in line or line.startswith(("/* #### Code section", "/* Python wrapper")):
            origin = nowhere
        origins.append(origin)
    return origins


def missed(name: str, numbers: list[int], known: list[int]) -> list[str]:
    """Return the lines that are not reached, by function, with the reason.

    Parameters
    ----------
    name : str
        Of the source.
    numbers : list of int
        Lines that are not reached, rising.
    known : list of int
        All that hold code, rising.
    """
    text = (PACKAGE / name).read_text(encoding="utf-8").splitlines()
    place = {number: at for at, number in enumerate(known)}
    stretches = [
        [number for _, number in group]
        for _, group in groupby(enumerate(numbers), lambda pair: place[pair[1]] - pair[0])
    ]
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stretch in stretches:
        function = enclosing(text, stretch[0])
        before = known[place[stretch[0]] - 1] if place[stretch[0]] else stretch[0]
        said = " // ".join(text[number - 1].strip() for number in (before, *stretch))
        reason = next((why for pattern, why in KINDS if re.search(pattern, said)), REASONS.get((name, function), ""))
        first, last = stretch[0], stretch[-1]
        found[function, reason].append(f"{first}" if first == last else f"{first}-{last}")
    return [
        f"`{function}` {', '.join(ranges)}: {reason or 'can be reached, was not'}"
        for (function, reason), ranges in found.items()
    ]


def enclosing(text: list[str], number: int) -> str:
    """Return the name of the function that a line lies in."""
    indent = len(text[number - 1]) - len(text[number - 1].lstrip())
    for line in reversed(text[:number]):
        opened = re.match(r"(\s*)(?:def|cdef|cpdef|class)\b.*?(\w+)\s*(?:\(|:$)", line)
        if opened and (len(opened[1]) < indent or line is text[number - 1]):
            return opened[2]
    return "module"


def main() -> int:
    """Print the table; 1 where a module has fewer lines reached than is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=3000, help="inputs of each target")
    parser.add_argument("--jobs", default=str(os.cpu_count()), help="processes at a time")
    parser.add_argument("--only-table", action="store_true", help="of what was run before")
    given = parser.parse_args()
    about = circumstances(f"fuzz/coverage.py --count {given.count}")
    if not given.only_table:
        run_everything(given.count, given.jobs)
    status = 0
    modules = []
    for name, counts in sorted(lines_reached().items()):
        numbers = sorted(number for number, times in counts.items() if not times)
        share = 1 - len(numbers) / len(counts)
        reasons = missed(name, numbers, sorted(counts))
        modules.append({"module": name, "lines": len(counts), "percent": 100 * share, "missed": reasons})
        print(f"{name}: {100 * share:.1f} % of {len(counts)} lines; {'; '.join(reasons) or 'all'}")
        status |= name.endswith(".pyx") and share < WANTED
    write(LINES, {**about, "modules": modules})
    return status


if __name__ == "__main__":
    sys.exit(main())
