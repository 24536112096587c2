"""Tables that users write down in TOML files, and the forms that their values must have.

A form says what a value may be; `check` raises one sentence that names the file, the key, what is wrong with it and
what is allowed. Nothing else looks at a value before that.
"""

from __future__ import annotations

import difflib
import stat
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from uspcap.errors import UsageError
from uspcap.system_errors import reason, remedy

LARGEST_FILE: Final = 1 << 20
"""Bytes."""

LONGEST_NAME: Final = 64
"""Characters of what a report names something by."""


def tables_of(path: str) -> dict[str, Any]:
    """Return the tables of a TOML file.

    Raises
    ------
    UsageError
        It cannot be read, is larger than `LARGEST_FILE`, or is no TOML.
    """
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise UsageError(f"{path}: is not a file but a {_kind_of(path)}; name a file of tables")
        with Path(path).open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {reason(error)}; {remedy(error, 'check the path')}") from None
    if len(content) > LARGEST_FILE:
        raise UsageError(
            f"{path}: is larger than {LARGEST_FILE >> 20} MiB, and so not a file of tables; check the path"
        )
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from None
    except RecursionError:
        raise UsageError(f"{path}: no usable TOML: endlessly nested arrays") from None
    except ValueError as error:
        # TOMLDecodeError is one, and an integer of too many digits another.
        raise UsageError(f"{path}: not TOML: {error}") from None


def _kind_of(path: str) -> str:
    return "directory" if Path(path).is_dir() else "pipe or device"


class Form(Protocol):
    """The form of a value."""

    @property
    def allowed(self) -> str:
        """In words, after "it must be"."""
        ...

    def check(self, value: Any, where: str) -> None:
        """Check a value, that of a key whose path is `where`.

        Raises
        ------
        UsageError
            It is none such.
        """
        ...


def refuse(value: Any, where: str, allowed: str) -> UsageError:
    """Return the error that says what a value is, and what it must be."""
    return UsageError(f"{where} is {_found(value)}; it must be {allowed}")


def _found(value: Any) -> str:
    """Return what a value is, in a few words: it may be huge."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"the number {value}" if abs(value) < 1 << 70 else "a number of far too many digits"
        case float():
            return f"the number {value}"
        case str():
            return f"the text {value!r}" if len(value) <= 40 else f"a text of {len(value)} characters"
        case list():
            return f"an array of {len(value)}"
        case dict():
            return "a table"
        case _:
            return f"a {type(value).__name__}"


@dataclass(frozen=True, slots=True)
class Text:
    """A text of characters that can be printed."""

    longest: int

    @property
    def allowed(self) -> str:
        return f"a text of 1 to {self.longest} characters that can be printed"

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, str) or not 0 < len(value) <= self.longest or not value.isprintable():
            raise refuse(value, where, self.allowed)


@dataclass(frozen=True, slots=True)
class Flag:
    """True or false."""

    allowed: str = "true or false"

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, bool):
            raise refuse(value, where, self.allowed)


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within bounds."""

    low: int
    high: int

    @property
    def allowed(self) -> str:
        return f"a whole number from {self.low} to {self.high}"

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not self.low <= value <= self.high:
            raise refuse(value, where, self.allowed)


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    @property
    def allowed(self) -> str:
        return " or ".join(map(repr, self.words))

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, str) or value not in self.words:
            raise refuse(value, where, self.allowed)


@dataclass(frozen=True, slots=True)
class ArrayOf:
    """An array of values of one form."""

    form: Form
    fewest: int
    most: int

    @property
    def allowed(self) -> str:
        return f"an array of {self.fewest} to {self.most}, each {self.form.allowed}"

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, list) or not self.fewest <= len(value) <= self.most:
            raise refuse(value, where, self.allowed)
        for at, one in enumerate(value):
            self.form.check(one, f"{where}[{at}]")


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a field: its offset and its size."""

    farthest: int
    largest: int

    @property
    def allowed(self) -> str:
        return f"[offset, size], an offset from 0 to {self.farthest} and a size of 1 to {self.largest} bytes"

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) != 2:
            raise refuse(value, where, self.allowed)
        for one, form, of in zip(
            value, (Whole(0, self.farthest), Whole(1, self.largest)), ("offset", "size"), strict=True
        ):
            form.check(one, f"{where}, its {of},")


@dataclass(frozen=True, slots=True)
class TableOf:
    """A table with optional and required keys."""

    forms: Mapping[str, Form]
    required: Iterable[str] = ()
    allowed: str = "a table"

    def check(self, value: Any, where: str) -> None:
        if not isinstance(value, dict):
            raise refuse(value, where, self.allowed)
        for key, one in value.items():
            if key not in self.forms:
                shown = repr(key) if len(key) <= 40 else f"of {len(key)} characters"
                raise UsageError(f"{where}: unknown key {shown}{_nearest(key, self.forms)}")
            self.forms[key].check(one, f"{where}.{key}")
        for key in self.required:
            if key not in value:
                raise UsageError(f"{where}.{key} is missing; it must be {self.forms[key].allowed}")


def _nearest(key: str, known: Iterable[str]) -> str:
    known = sorted(known)
    near = difflib.get_close_matches(key[:40], known, 1)
    return f": is it {near[0]!r}?" if near else f"; it may have {', '.join(known)}"
