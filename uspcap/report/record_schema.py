"""JSON Schema (draft 2020-12) of records: each is a definition, and so is each quantity."""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import getdoc
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from uspcap.records import Length, Quantity, Record, fields_where_given, name_in_json, said_of, types_of

Schema = dict[str, Any]

_PLAIN: Final = {bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null"}
_OF_MAPPINGS: Final = (dict, Mapping)


class Definitions:
    """The definitions of a schema.

    Parameters
    ----------
    known : dict
        The schema's `$defs`, which grow.
    packages : mapping of str to str
        Names of packages to what the definitions of their records begin with.
    """

    def __init__(self, known: dict[str, Schema], packages: Mapping[str, str]) -> None:
        self._known = known
        self._packages = packages
        self._records: dict[str, type[Record]] = {}

    def add(self, kind: type[Record], name: str = "") -> Schema:
        """Return a reference to the definition of a record, which is made where there is none.

        Raises
        ------
        ValueError
            The name is taken, or a field is of a type that JSON does not have.
        """
        name = name or self._name_of(kind)
        if self._records.get(name) is not kind:
            if name in self._known:
                raise ValueError(f"the record {kind.__qualname__} would be {name} in the schema, which is taken")
            self._records[name], self._known[name] = kind, {}
            self._known[name] |= self._of_record(kind)
        return {"$ref": f"#/$defs/{name}"}

    def _name_of(self, kind: type[Record]) -> str:
        own = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind.__name__).lower()
        for package, prefix in self._packages.items():
            if kind.__module__.startswith(f"{package}."):
                return f"{prefix}_{own}"
        return own

    def _of_record(self, kind: type[Record]) -> Schema:
        types, sometimes = types_of(kind), fields_where_given(kind)
        return {
            "description": _paragraph(getdoc(kind)),
            "type": "object",
            "additionalProperties": False,
            "required": [name_in_json(name) for name in types if name not in sometimes],
            "properties": {
                name_in_json(name): self._of(hint, is_nullable=name not in sometimes) for name, hint in types.items()
            },
        }

    def _of(self, hint: Any, *, is_nullable: bool = True) -> Schema:
        """Return the schema of a type."""
        said = said_of(hint)
        texts = [one for one in said if isinstance(one, str)]
        described: Schema = {"description": texts[0]} if texts else {}
        for one in said:
            if isinstance(one, Quantity):
                return {**self._of_quantity(one, hint.__origin__), **described}
        bare = hint.__origin__ if said else hint
        kind, parts = get_origin(bare), get_args(bare)
        if isinstance(bare, type) and issubclass(bare, Record):
            return {**described, **self.add(bare)}
        if kind is Literal:
            return {**described, "enum": list(parts)}
        if kind in (Union, UnionType):
            return {**described, **self._of_union([part for part in parts if is_nullable or part is not NoneType])}
        if kind is tuple:
            return {**described, **self._of_tuple(parts), **_lengths(said)}
        if kind in _OF_MAPPINGS:
            names = self._of(parts[0])
            named = {} if names == {"type": "string"} else {"propertyNames": names}
            return {**described, "type": "object", **named, "additionalProperties": self._of(parts[1])}
        if bare is Any:
            return described
        if bare not in _PLAIN:
            raise ValueError(f"a field is a {bare}, which JSON does not have")
        return {**described, "type": _PLAIN[bare]}

    def _of_quantity(self, quantity: Quantity, plain: type) -> Schema:
        definition: Schema = {"description": quantity.says} if quantity.says else {}
        definition |= {"enum": list(quantity.one_of)} if quantity.one_of else {"type": _PLAIN[plain]}
        bounds = {"minimum": quantity.minimum, "maximum": quantity.maximum, "pattern": quantity.pattern or None}
        definition |= {name: bound for name, bound in bounds.items() if bound is not None}
        if self._known.setdefault(quantity.name, definition) != definition:
            raise ValueError(f"there are two quantities named {quantity.name}")
        return {"$ref": f"#/$defs/{quantity.name}"}

    def _of_union(self, parts: list[Any]) -> Schema:
        schemas = [self._of(part) for part in parts]
        if len(schemas) == 1:
            return schemas[0]
        if all(list(schema) == ["type"] for schema in schemas):
            return {"type": [schema["type"] for schema in schemas]}
        return {"anyOf": schemas}

    def _of_tuple(self, parts: tuple[Any, ...]) -> Schema:
        if parts[1:] == (...,):
            return {"type": "array", "items": self._of(parts[0])}
        return {"type": "array", "prefixItems": [self._of(part) for part in parts], **_length(len(parts))}


def _length(number: int) -> Schema:
    return {"minItems": number, "maxItems": number}


def _lengths(said: tuple[Any, ...]) -> Schema:
    return next((_length(one.of) for one in said if isinstance(one, Length)), {})


def _paragraph(text: str | None) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((text or "").split("\n\n")[0].split())
