"""Options that analyses and backends declare, on the commands that run them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import click

from uspcap.declared_options import Kind, Option

if TYPE_CHECKING:
    _AnyType = click.ParamType[Any]
else:
    # Before click 8.4 it takes no type.
    _AnyType = click.ParamType

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_METAVARS = {Kind.DURATION: "DURATION", Kind.BIT_RATE: "RATE", Kind.COUNT: "N"}


class ReadType(_AnyType):
    """What an option's own reader takes."""

    def __init__(self, read: Callable[[str], Any], name: str) -> None:
        self._read = read
        self.name = name

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return what the text says."""
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param)


def click_option(option: Option) -> Decorator:
    """Return the decorator that gives a command an option, as its parameter `Option.parameter`."""
    if option.kind is Kind.SWITCH:
        return click.option(option.flag, option.parameter, is_flag=True, help=option.help)
    read = option.reader
    kind: click.ParamType[Any] | None = None
    if option.kind is Kind.CHOICE:
        kind = click.Choice(option.choices)
    elif read is not None:
        kind = ReadType(read, option.kind.name.lower())
    return click.option(
        option.flag,
        option.parameter,
        type=kind,
        multiple=option.repeated,
        default=option.default,
        metavar=option.metavar or _METAVARS.get(option.kind),
        **({} if option.bare_value is None else {"is_flag": False, "flag_value": option.bare_value}),
        help=option.help,
    )


def give(options: Iterable[Decorator]) -> Decorator:
    """Return a decorator that gives a command several options, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(tuple(options)):
            command = option(command)
        return command

    return decorate
