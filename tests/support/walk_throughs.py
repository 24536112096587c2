"""What the pages of `docs/` show of runs on the sample captures: `    $ uspcap …`, and below it what is printed.

`python -m support.walk_throughs`, in `tests/`, runs the commands and writes into the pages what is printed today.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.command_line import invoke

ROOT: Final = Path(__file__).parents[2]
_COLUMNS: Final = {"sequence.md": "80"}
_PROMPT: Final = "    $ "
# The command, perhaps on several lines that end in a backslash; then lines that are indented, or empty between such.
_RUN: Final = re.compile(r"^    \$ (uspcap (?:.*\\\n)*.*)\n((?:    .*\n|\n(?=    (?!\$)))*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Run:
    """A command of a page with the lines that the page shows of its output, from the first of them to the end."""

    page: Path
    command: str
    shown: tuple[str, ...]

    def printed(self) -> tuple[tuple[str, ...], int]:
        """Run the command; return what it prints from where the page begins to show it, and the exit code."""
        os.environ["COLUMNS"] = _COLUMNS.get(self.page.name, "110")
        with chdir(ROOT):
            ended = invoke(*shlex.split(self.command.replace("\\\n", ""))[1:])
        lines = tuple(line.rstrip() for line in (ended.stdout + ended.stderr).rstrip().splitlines())
        begin = lines.index(self.shown[0]) if self.shown and self.shown[0] in lines else 0
        return lines[begin:], ended.code

    @property
    def name(self) -> str:
        return f"{self.page.name}: {self.command}"


def runs(page: Path) -> Iterator[Run]:
    """Yield what a page shows of runs on the sample captures."""
    for command, shown in _RUN.findall(page.read_text(encoding="utf-8")):
        if "sample_captures/" in command:
            yield Run(page, command, tuple(line[4:] for line in shown.rstrip().splitlines()))


def pages() -> list[Path]:
    return sorted((ROOT / "docs").glob("*.md"))


def _rewrite(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for run in runs(page):
        old = "".join(f"    {line}".rstrip() + "\n" for line in run.shown)
        new = "".join(f"    {line}".rstrip() + "\n" for line in run.printed()[0])
        begin = text.index(f"{_PROMPT}{run.command}\n{old}") + len(f"{_PROMPT}{run.command}\n")
        text = text[:begin] + new + text[begin + len(old) :]
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for each in pages():
        _rewrite(each)
