"""What commands share: values that options take, telling files from filter words, and problems of the input."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from uspcap.bpf.classic import join_words
from uspcap.errors import UsageError
from uspcap.formats.compression import DEFAULT_LEVEL, LEVELS
from uspcap.frames import Problem
from uspcap.notices import say
from uspcap.pipeline.pinning import parse_ranges
from uspcap.quantities import NUMBER, duration_ns, whole_number
from uspcap.stages.reading import Input, expand_all, names_files
from uspcap.timestamps import TIMESTAMPS, Timestamps

if TYPE_CHECKING:
    from uspcap.timestamps.trailers import TrailerChoice

    _WholeNumberType = click.ParamType[int]
    _RangesType = click.ParamType[tuple[range, ...]]
    _CpuListType = click.ParamType[frozenset[int]]
    _TimestampsType = click.ParamType[Timestamps | TrailerChoice]
else:
    # Before click 8.4 it takes no type.
    _WholeNumberType = _RangesType = _CpuListType = _TimestampsType = click.ParamType


class CountType(click.IntRange):
    """A whole number within bounds, such as `10`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number; an error names the bounds."""
        try:
            return whole_number(str(value), int(self.min or 0), None if self.max is None else int(self.max))
        except ValueError as error:
            self.fail(str(error), param)


class DurationType(_WholeNumberType):
    """A length of time such as `250us` or `1.5ms`, as whole ns."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ns; a bare number is refused, because nobody agrees on its unit."""
        if isinstance(value, int):
            return value
        try:
            return duration_ns(str(value))
        except ValueError as error:
            self.fail(str(error), param)


class SignedDurationType(DurationType):
    """The same with a sign, such as `-37s`."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ns; less than 0 where a minus stands before the number."""
        if isinstance(value, int):
            return value
        text = str(value).strip()
        length = super().convert(text.lstrip("+-") if text[:2] not in ("--", "++", "+-", "-+") else text, param, ctx)
        return -length if text.startswith("-") else length


class SizeType(_WholeNumberType):
    """A size such as `100`, `100MiB` or `1G`, as bytes; a bare number is millions of bytes, as in tcpdump."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return bytes; k, M and G alone mean KiB, MiB and GiB, as in tcpdump, with B after them 1000s."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(rf"\s*({NUMBER})\s*(?:([kKmMgGtT])(iB|B)?)?\s*", str(value))
        size = 0
        if match:
            power = "kmgt".index(match[2].lower()) + 1 if match[2] else 2
            size = int(Fraction(match[1]) * (1000 if match[2] is None or match[3] == "B" else 1024) ** power)
        if size <= 0:
            self.fail(f"{value!r} is not a size; write millions of bytes or a unit, as in 100, 100MiB or 1G", param)
        return size


class PeriodType(DurationType):
    """A length of time such as `1h`; a bare number is seconds, as in tcpdump."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return ns, at least 1."""
        bare = re.fullmatch(r"\s*[0-9]+\s*", value) if isinstance(value, str) else None
        period = super().convert(f"{value.strip()}s" if bare else value, param, ctx)
        if period <= 0:
            self.fail(f"{value!r} is not a duration above 0; write seconds or a unit, as in 60 or 1h", param)
        return period


class CompressType(_WholeNumberType):
    """A compression such as `zstd`, `zstd:9` or `none`, as its level; 0 is none."""

    name = "how"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the level."""
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"zstd(?::([0-9]{1,2}))?", str(value))
        level = int(match[1]) if match and match[1] else DEFAULT_LEVEL
        if value == "none":
            return 0
        if match is None or level not in LEVELS:
            self.fail(f"{value!r} is not a compression; write zstd, zstd:1 to zstd:{LEVELS[-1]}, or none", param)
        return level


class FileModeType(_WholeNumberType):
    """Permissions of a file in octal, such as `640`."""

    name = "octal"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return them as a number."""
        if isinstance(value, int):
            return value
        if not re.fullmatch(r"(?:0o?)?[0-7]{3}", str(value)):
            self.fail(f"{value!r} is not a file mode; write three octal digits, as 640", param)
        return int(str(value)[-3:], 8)


class FrameSetType(_RangesType):
    """Frame numbers such as `3,7-9`."""

    name = "frames"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[range, ...]:
        """Return one range a part, in the order given."""
        if isinstance(value, tuple):
            return value
        ranges = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*([0-9]+)(?:-([0-9]+))?\s*", part)
            first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
            if not 1 <= first <= last:
                self.fail(f"{part!r} is not a frame number; write numbers from 1 on and ranges, as in 3,7-9", param)
            ranges.append(range(first, last + 1))
        return tuple(ranges)


class CpuListType(_CpuListType):
    """CPU numbers such as `2` or `0,4-7`, as the kernel writes them."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> frozenset[int]:
        """Return the numbers."""
        if isinstance(value, frozenset):
            return value
        try:
            return parse_ranges(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a list of CPUs; write numbers and ranges, as in 2,4-5", param)


TIMESTAMPS_METAVAR = "trailer[:FORMAT]"


def timestamps_of_files(ctx: click.Context, param: click.Parameter, value: str | None) -> TrailerChoice | None:
    """Return which timestamps in the frames to take, as `trailer` or `trailer:metamako`; None for the file's own."""
    return None if value is None or value == "file" else _trailer_choice(value, ("file",))


def _trailer_choice(value: str, others: Sequence[str]) -> TrailerChoice:
    from uspcap.timestamps.trailers import parse_choice

    try:
        return parse_choice(value, others)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


class TimestampsType(_TimestampsType):
    """Who timestamps the frames of a capture: one of `TIMESTAMPS`, or `trailer[:FORMAT]`."""

    name = "who"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Timestamps | TrailerChoice:
        """Return the one who timestamps, or the choice of trailers."""
        if not isinstance(value, str) or value in TIMESTAMPS:
            return cast("Timestamps | TrailerChoice", value)
        return _trailer_choice(value, TIMESTAMPS)


def check_trailer(choice: TrailerChoice | None, files: Sequence[str]) -> None:
    """Refuse to tell the format of trailers where that takes more than one look.

    Raises
    ------
    UsageError
        A format is to be detected at the beginning of a file that can be read only once.
    """
    once = any(file == "-" or Path(file).is_fifo() for file in files[:1])
    if choice is not None and once and choice.format is not None and choice.format.name == "ERSPAN":
        raise UsageError(
            "the epoch of ERSPAN's timestamps is found at the beginning of a file, which standard input and "
            "pipes give only once: save it to a file first"
        )
    if choice is not None and once and choice.format is None:
        raise UsageError(
            "a trailer format is detected at the beginning of a file, which standard input and pipes give only once: "
            "name it, as in --timestamps trailer:metamako"
        )


def split_files(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Part the leading capture files from the filter expression that may follow.

    The first word names files. A later one still does, until the first that names nothing that there is and does not
    end as capture files do.
    """
    files = list(words[:1])
    for word in words[1:]:
        if not names_files(word):
            break
        files.append(word)
    return files, list(words[len(files) :])


def files_and_filter(words: Sequence[str], expression: str) -> tuple[list[Input], str]:
    """Return the capture files that a command line names, and its filter: given by an option, or by what follows them.

    Raises
    ------
    UsageError
        The filter is given both ways.
    CaptureFileError
        A directory or glob has no file.
    """
    files, filter_words = split_files(words)
    if expression and filter_words:
        raise UsageError(
            f"the filter is given more than once, by -f and by {' '.join(filter_words)!r}: keep one of them"
        )
    return expand_all(files), expression or join_words(filter_words)


def refuse_same_files(inputs: Sequence[str], outputs: Sequence[str | None]) -> None:
    """Refuse to write a regular file that is read, or one file more than once.

    Raises
    ------
    UsageError
    """
    written: list[str] = []
    for output in filter(None, outputs):
        for other in (*inputs, *written):
            if other != "-" and output != "-" and _same_file(other, output):
                verb = "read" if other in inputs else "to hold something else"
                raise UsageError(f"{output} is {verb} as well: name another file to write to")
        written.append(output)


def _same_file(one: str, other: str) -> bool:
    paths = Path(one), Path(other)
    try:
        if not all(path.is_file() or not path.exists() for path in paths):
            return False  # a pipe or device may be written by many
        return paths[0].resolve() == paths[1].resolve() or paths[0].samefile(paths[1])
    except (OSError, ValueError):
        return False


def end_with_problems(problems: Sequence[Problem], *, reported: bool) -> None:
    """Say on standard error what was wrong with the input, and exit with 1; return where nothing was.

    Parameters
    ----------
    problems : sequence of Problem
    reported : bool
        A report lists all of them, so that one line about the first is enough; without one each has its line.
    """
    if not problems:
        return
    shown = problems[:1] if reported else problems
    more = f" (and {len(problems) - 1} more)" if len(problems) > len(shown) else ""
    for problem in shown:
        say(f"{problem.file}: {problem.place}: {problem.what}{more}")
    sys.exit(1)
