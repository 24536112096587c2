"""Records: frozen dataclasses whose fields say what they are, from which JSON and JSON Schema are made.

    class Gap(Record):
        \"\"\"A time without frames of a flow.\"\"\"

        flow: str
        gap_ns: Annotated[Span, "From one frame to the next."]
        before_frame: FrameNumber

Fields are named as in JSON, where `_` at the end of a name that Python reserves is left out. A type is a record, a
tuple, a mapping from text, one of the quantities below, or a plain value; text beside it in `Annotated` describes the
field. `uspcap.report.schema` makes the JSON Schema of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import FrozenInstanceError, dataclass, replace
from enum import Enum, auto
from inspect import get_annotations
from types import UnionType
from typing import (
    Annotated,
    Any,
    Final,
    Self,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from uspcap.frames import TimestampSource

Json = dict[str, Any]
"""An object as JSON holds it: dict, list, str, int, float, bool and None only."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """What a number or a text is; the JSON Schema has a definition of each.

    Attributes
    ----------
    name : str
        Of the definition.
    says : str
        What it is, and its unit.
    minimum, maximum : float, optional
        Bounds, both included.
    one_of : tuple of str
        All texts that there are.
    pattern : str
        What texts look like, as a regular expression.
    """

    name: str
    says: str = ""
    minimum: float | None = None
    maximum: float | None = None
    one_of: tuple[str, ...] = ()
    pattern: str = ""


FRAME_NUMBER: Final = Quantity(
    "frame_number",
    "Counts from 1 over all frames read, filtered-out ones included; 0 where there is none.",
    minimum=0,
)

Count = Annotated[int, Quantity("count", minimum=0)]
OneIn = Annotated[int, Quantity("one_in", "How many there are for each that was looked at.", minimum=1)]
Bytes = Annotated[int, Quantity("bytes", "Bytes.", minimum=0)]
Span = Annotated[int, Quantity("span", "Nanoseconds.", minimum=0)]
Step = Annotated[int, Quantity("duration", "Nanoseconds; negative for a step backward.")]
StepBack = Annotated[int, Quantity("step_back", "Nanoseconds; 0 or negative.", maximum=0)]
Instant = Annotated[int, Quantity("instant", "Nanoseconds since the epoch, UTC.")]
FrameNumber = Annotated[int, FRAME_NUMBER]
Ratio = Annotated[float, Quantity("ratio", "How many times one thing is another.", minimum=0)]
Share = Annotated[float, Quantity("share", "A part of the whole, which is 1.", minimum=0, maximum=1)]
PacketRate = Annotated[float, Quantity("packet_rate", "Packets a second.", minimum=0)]
BitRate = Annotated[float, Quantity("bit_rate", "Bits a second.", minimum=0)]
SourceName = Annotated[
    str,
    Quantity(
        "timestamp_source", "Who timestamped the frames.", one_of=tuple(source.name for source in TimestampSource)
    ),
]


class Presence(Enum):
    """Whether JSON has a field."""

    WHERE_GIVEN = auto()
    """Not where it is None."""


WHERE_GIVEN: Final = Presence.WHERE_GIVEN


@dataclass(frozen=True, slots=True)
class Length:
    """How many values a tuple of any length has."""

    of: int


@dataclass_transform(frozen_default=True, kw_only_default=True, eq_default=True)
class Record:
    """A frozen dataclass with what is said above; its values are given by name, and can be read by the names of JSON.

    Parameters
    ----------
    inherited_after : str, optional
        Of a subclass: the field of its own behind which JSON has those that it inherits, in place of before all.
    """

    __dataclass_fields__: dict[str, Any]

    def __init_subclass__(cls, *, inherited_after: str = "", **further: Any) -> None:
        super().__init_subclass__(**further)
        # The methods below serve all, those that freeze it included: code made for each type takes eight times as long.
        dataclass(init=False, repr=False, eq=False, match_args=False)(cls)
        bases = [base for base in reversed(cls.__bases__) if base is not Record and issubclass(base, Record)]
        if bases:
            inherited = dict.fromkeys(name for base in bases for name in base.__dataclass_fields__)
            own = [name for name in get_annotations(cls) if name not in inherited]
            first = own[: own.index(inherited_after) + 1] if inherited_after else []
            names = (*first, *inherited, *own[len(first) :])
            cls.__dataclass_fields__ = {name: cls.__dataclass_fields__[name] for name in names}

    def __init__(self, **values: Any) -> None:
        fields = self.__dataclass_fields__
        if values.keys() != fields.keys():
            unknown = [name for name in values if name not in fields]
            missing = [name for name in fields if name not in values and not hasattr(type(self), name)]
            if unknown or missing:
                wrong = f"has no {unknown[0]}" if unknown else f"needs {missing[0]}"
                raise TypeError(f"{type(self).__name__} {wrong}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __getitem__(self, name: str) -> Any:
        """Return the value of a field by its name in JSON.

        Raises
        ------
        KeyError
            There is none of that name.
        """
        for known in (name, f"{name}_"):
            if known in self.__dataclass_fields__:
                return getattr(self, known)
        raise KeyError(name)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return what `as_dict` made a document of; what it has beside the fields is left out.

        Raises
        ------
        TypeError
            A field is missing.
        """
        values = dict.fromkeys(fields_where_given(cls))
        for name, hint in types_of(cls).items():
            if name_in_json(name) in document:
                values[name] = _from_json(hint, document[name_in_json(name)])
        return cls(**values)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Yield the values of all fields that JSON has, by their names there."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is not None or name not in fields_where_given(type(self)):
                yield name_in_json(name), value

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__dataclass_fields__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__dataclass_fields__))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={self[name]!r}' for name in self.__dataclass_fields__)})"

    def extended(self, kind: type[_More], **further: Any) -> _More:
        """Return a record of a type that inherits from this one's, with further values.

        Parameters
        ----------
        kind : type
        further : object
            Its values by name.
        """
        return kind(**self.__dict__, **further)

    def is_part_of(self, other: Record) -> bool:
        """Tell whether another record, of a type that inherits from this one's, has the same values."""
        return all(getattr(other, name) == value for name, value in self.__dict__.items())

    def as_dict(self) -> Json:
        """Return it as JSON has it."""
        return {name: as_json(value) for name, value in self.items()}

    def with_frames(self, number_of: Callable[[int], int]) -> Self:
        """Return it with other numbers for its frames."""
        frames = frame_fields(type(self))
        changed = {
            name: number_of(value) if name in frames and value is not None else _with_frames(value, number_of)
            for name in self.__dataclass_fields__
            if isinstance(value := getattr(self, name), Record | Mapping | tuple) or name in frames
        }
        return replace(self, **changed) if changed else self  # type: ignore[type-var]


_More = TypeVar("_More", bound=Record)


def as_json(value: Any) -> Any:
    """Return a value as JSON has it: records and mappings as dicts, sequences as lists."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Record):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {name: as_json(each) for name, each in value.items()}
    return [as_json(each) for each in value]


def _from_json(hint: Any, value: Any) -> Any:
    """Return a value of a type, from what `as_json` made of it."""
    bare = hint.__origin__ if said_of(hint) else hint
    kind, parts = get_origin(bare), get_args(bare)
    if value is None or bare is Any:
        return value
    if isinstance(bare, type) and issubclass(bare, Record):
        return bare.from_dict(value)
    if kind is tuple:
        return tuple(_from_json(parts[0], each) for each in value)
    if kind is Mapping:
        return {name: _from_json(parts[1], each) for name, each in value.items()}
    if kind in (Union, UnionType):
        return _from_json(parts[0], value)
    return value


def _with_frames(value: Any, number_of: Callable[[int], int]) -> Any:
    if isinstance(value, Record):
        return value.with_frames(number_of)
    if isinstance(value, Mapping):
        return {name: _with_frames(each, number_of) for name, each in value.items()}
    return tuple(_with_frames(each, number_of) for each in value) if isinstance(value, tuple) else value


def name_in_json(name: str) -> str:
    """Return what JSON calls a field."""
    return name.removesuffix("_")


def table(kind: type[Record], rows: Iterable[Record], names: Sequence[str] = ()) -> dict[str, list[Any]]:
    """Return records as a table.

    Parameters
    ----------
    kind : type
        Of the records.
    rows : iterable of Record
    names : sequence of str
        Columns; all fields where none is named.
    """
    columns: dict[str, list[Any]] = {name: [] for name in names or map(name_in_json, kind.__dataclass_fields__)}
    for row in rows:
        for name, column in columns.items():
            column.append(as_json(row[name]))
    return columns


def types_of(kind: type[Record]) -> dict[str, Any]:
    """Return the types of a record's fields, in order, with what `Annotated` says of them."""
    return _known_of(kind).types


def fields_where_given(kind: type[Record]) -> frozenset[str]:
    """Return the fields that JSON does not have where they are None."""
    return _known_of(kind).where_given


def frame_fields(kind: type[Record]) -> frozenset[str]:
    """Return the fields that are frame numbers."""
    return _known_of(kind).frames


def said_of(hint: Any) -> tuple[Any, ...]:
    """Return what `Annotated` says of a type."""
    return tuple(hint.__metadata__) if hasattr(hint, "__metadata__") else ()


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of a type of records."""

    types: dict[str, Any]
    where_given: frozenset[str]
    frames: frozenset[str]


_KNOWN: Final[dict[type[Record], _Known]] = {}


def _known_of(kind: type[Record]) -> _Known:
    """Return what the types of a record's fields say; they are looked at when they are first asked for."""
    if kind not in _KNOWN:
        hints = get_type_hints(kind, include_extras=True)
        types = {name: hints[name] for name in kind.__dataclass_fields__}
        _KNOWN[kind] = _Known(
            types,
            frozenset(name for name, hint in types.items() if WHERE_GIVEN in said_of(hint)),
            frozenset(name for name, hint in types.items() if _is_frame(hint)),
        )
    return _KNOWN[kind]


def _is_frame(hint: Any) -> bool:
    said = said_of(hint)
    bare = hint.__origin__ if said else hint
    may_be_null = get_origin(bare) in (Union, UnionType)
    return FRAME_NUMBER in said or (may_be_null and any(map(_is_frame, get_args(bare))))
