"""Extreme numbers and changed inputs: what generators draw from, and the one mutator of all targets.

An input is a plain Python value (tuples, lists, dicts, bytes, str, int, bool, None), so that one mutator serves every
target, and an input can be written down and read again.
"""

from __future__ import annotations

from random import Random
from typing import Any

EDGES = sorted(
    {
        (1 << power) + step
        for power in (0, 7, 8, 15, 16, 24, 31, 32, 33, 40, 47, 48, 61, 62, 63, 64)
        for step in (-2, -1, 0, 1, 2)
    }
    | {0, 10, 20, 60, 64, 999, 1000, 1001, 10**6, 10**9 - 1, 10**9, 10**9 + 1, 3600 * 10**9, 37 * 10**9}
)
"""Numbers around which fields, types and units end."""

START_NS = 1_700_000_000_000_000_000
INT64 = -(1 << 63), (1 << 63) - 1


def number(random: Random, bits: int, *, signed: bool = False) -> int:
    """Return a number that fits: small, near the edge of a type, near half the modulus, or any."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    kind = random.random()
    if kind < 0.3:
        value = random.randrange(0, 20)
    elif kind < 0.6:
        value = random.choice(EDGES)
    elif kind < 0.75:
        value = random.choice((low, high, (low + high) // 2, high // 3)) + random.randrange(-3, 4)
    else:
        value = random.getrandbits(random.randrange(1, bits + 1))
    if signed and random.random() < 0.3:
        value = -value
    return max(low, min(high, value))


def timestamps(random: Random, count: int) -> list[int]:
    """Return timestamps as hosts, NICs and files have them, and as nobody should: at both ends of int64."""
    kind = random.randrange(7)
    step = random.choice((1, 8, 1000, 10**6, 10**9, 1 << 40, 1 << 61))
    now = random.choice((START_NS, START_NS, 0, INT64[0], INT64[1], 1 << 62, -(1 << 62), random.randrange(*INT64)))
    made = []
    for _ in range(count):
        if kind == 0:
            now += random.randrange(step + 1)
        elif kind == 1:
            now += random.choice((0, step, -step, 3 * step))
        elif kind == 2:
            now = number(random, 64, signed=True)
        elif kind == 3:
            now = random.choice((*INT64, 0, START_NS, -1)) + random.choice((0, 0, 1, -1, step, -step))
        elif kind == 4:
            now = random.choice(INT64)
        elif kind == 5 and random.random() < 0.1:
            now = random.choice((*INT64, 0, now + (1 << 62), now - (1 << 62)))
        else:
            now += step
        now = max(INT64[0], min(INT64[1], now))
        made.append(now)
    return made


def mutated(value: Any, random: Random, *, drops_keys: bool = False) -> Any:
    """Return a value with one to four changes somewhere in it; keys of dicts go only where that was said."""
    for _ in range(random.choice((1, 1, 2, 4))):
        value = _changed(value, random, drops_keys)
    return value


def _changed(value: Any, random: Random, drops_keys: bool) -> Any:
    if isinstance(value, bool) or value is None:
        return random.choice((True, False)) if isinstance(value, bool) else None
    if isinstance(value, int):
        kind = random.randrange(4)
        if kind == 0:
            return value + random.choice((-1, 1, 7, -1000, 1 << 20))
        if kind == 1:
            return -value
        return random.choice(EDGES) if kind == 2 else value ^ 1 << random.randrange(64)
    if isinstance(value, bytes):
        return _changed_bytes(value, random)
    if isinstance(value, str):
        return _changed_text(value, random)
    if isinstance(value, dict):
        if not value:
            return value
        key = random.choice(list(value))
        if drops_keys and random.random() < 0.15:
            return {name: of for name, of in value.items() if name != key}
        return {**value, key: _changed(value[key], random, drops_keys)}
    if isinstance(value, tuple):
        if not value:
            return value
        at = random.randrange(len(value))
        return (*value[:at], _changed(value[at], random, drops_keys), *value[at + 1 :])
    if isinstance(value, list):
        return _changed_list(value, random, drops_keys)
    return value


def _changed_list(value: list[Any], random: Random, drops_keys: bool) -> list[Any]:
    if not value:
        return value
    at, kind = random.randrange(len(value)), random.randrange(8)
    if kind == 0 and len(value) > 1:
        return value[:at] + value[at + 1 :]
    if kind == 1 and len(value) < 400:
        return value[:at] + [value[at]] * random.choice((1, 2, 3)) + value[at:]
    if kind == 2:
        other = random.randrange(len(value))
        value = list(value)
        value[at], value[other] = value[other], value[at]
        return value
    if kind == 3:
        return value[: at + 1]
    return [*value[:at], _changed(value[at], random, drops_keys), *value[at + 1 :]]


def _changed_bytes(value: bytes, random: Random) -> bytes:
    if not value:
        return random.randbytes(random.randrange(9))
    at, kind = random.randrange(len(value)), random.randrange(7)
    if kind == 0:
        return value[:at] + bytes([value[at] ^ 1 << random.randrange(8)]) + value[at + 1 :]
    if kind == 1:
        return value[:at] + bytes([random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))]) + value[at + 1 :]
    if kind == 2:
        size = random.choice((2, 4, 8))
        field = (number(random, 8 * size)).to_bytes(size, random.choice(("little", "big")))
        return value[:at] + field + value[at + size :]
    if kind == 3:
        return value[:at]
    if kind == 4:
        return value[:at] + value[at + random.randrange(1, 9) :]
    if kind == 5:
        return value[:at] + random.randbytes(random.randrange(1, 9)) + value[at:]
    end = at + random.randrange(1, 33)
    return value[:end] + value[at:end] + value[end:]


_PIECES = (*"[](){}<>=:;,.#-+*/&|!~'\"\\ \n\t\r\0", "0", "-1", "1e9", "0x", "١", "é", "\x1b[1m", "\ud7ff", "inf", "nan")


def _changed_text(value: str, random: Random) -> str:
    at, kind = random.randrange(len(value) + 1), random.randrange(4)
    if kind == 0:
        return value[:at] + value[at + random.randrange(1, 5) :]
    if kind == 1:
        return value[:at] + str(random.choice(EDGES)) + value[at:]
    if kind == 2:
        end = at + random.randrange(1, 12)
        return value[:end] + value[at:end] + value[end:]
    return value[:at] + random.choice(_PIECES) + value[at:]
