"""A driver that has no room for metadata before frames: what the kernel says to the program is put in its place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import uspcap.bpf.attach
from uspcap.bpf.builder import Program
from uspcap.bpf.instructions import R0, call, mov64_imm
from uspcap.bpf.xdp_program import build_capture_program

_ADJUST_HEAD = 44
_ADJUST_META = 54
_REFUSED = -95  # ENOTSUPP is another number, and any but 0 will do


def cramped(program: Program, *, head: bool) -> Program:
    """Return the program as it runs where metadata are refused and, without `head`, a longer frame as well."""
    refused = {call(_ADJUST_META)} | (set() if head else {call(_ADJUST_HEAD)})
    return replace(
        program,
        instructions=tuple(
            mov64_imm(R0, _REFUSED) if instruction in refused else instruction for instruction in program.instructions
        ),
    )


@pytest.fixture
def cramped_driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Give a function after which captures find such a driver."""

    def make(*, head: bool) -> None:
        def build(*arguments: Any, **options: Any) -> Program:
            return cramped(build_capture_program(*arguments, **options), head=head)

        monkeypatch.setattr(uspcap.bpf.attach, "build_capture_program", build)

    return make
