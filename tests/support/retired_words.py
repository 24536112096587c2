"""Where words stand that the glossary has retired.

`python -m support.retired_words [PATH...]`, in `tests/`, prints each place, and the word to write instead.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]
GLOSSARY: Final = ROOT / "docs" / "glossary.md"
_SUFFIXES: Final = {".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".md", ".toml", ".json", ".build", ".sh"}
# What these say was written by others, or on the day that it names.
_LEFT: Final = ("docs/glossary.md", "tests/test_language.py", "docs/shared-captures.md", "sample_captures/scenarios/")
_KEPT: Final = frozenset({"without_stamp", "unstamped", "frames_unstamped"})
"""JSON keys that stay by contract (docs/glossary.md)."""


class Place(NamedTuple):
    """A retired word: where it stands, and what the glossary wants written."""

    path: str
    line: int
    word: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.word!r}: write {self.instead}"


def retired() -> dict[str, str]:
    """Return the retired words and phrases of the glossary, in lower case, with what to write instead."""
    rows = GLOSSARY.read_text(encoding="utf-8").partition("## Retired words")[2].splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    return {word.strip(): instead for words, instead in cells[2:] for word in words.lower().split(",")}


def places_in(text: str, path: str, words: dict[str, str]) -> Iterator[Place]:
    """Yield the retired words of a text; a name of several words counts as these."""
    phrase = "|".join(re.escape(word).replace(r"\ ", r"[\s_]+") for word in sorted(words, key=len, reverse=True))
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", "\0", text)
    for found in re.finditer(rf"(?<![^\W_])(?:{phrase})(?![^\W_])", text, re.IGNORECASE):
        name = re.search(r"\w*$", text[: found.start()]), re.match(r"\w*", text[found.end() :])
        if "".join(part[0] for part in (name[0], found, name[1]) if part) in _KEPT:
            continue
        word = " ".join(re.split(r"[\s_]+", found[0].lower()))
        yield Place(path, text.count("\n", 0, found.start()) + 1, word, words[word])


def tracked(paths: Iterable[str] = ()) -> list[str]:
    """Return the files of the repository in which words are looked for."""
    listed = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in listed.splitlines() if Path(path).suffix in _SUFFIXES and not path.startswith(_LEFT)]


def places(paths: Iterable[str] = ()) -> Iterator[Place]:
    """Yield every retired word of the files that git tracks, of all or below these paths."""
    words = retired()
    for path in tracked(paths):
        if (ROOT / path).is_file():
            yield from places_in((ROOT / path).read_text(encoding="utf-8"), path, words)


if __name__ == "__main__":
    for each in places(sys.argv[1:]):
        print(each)
