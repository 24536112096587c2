"""Classic BPF programs as numbers: refused, or run as a slow interpreter in Python runs them."""

from random import Random
from typing import Any

import numpy as np
from support.classic_bpf_reference import interpret
from values import number

from uspcap.bpf.classic import OPCODES, as_array, validate
from uspcap.bpf.classic_bpf import ClassicProgram
from uspcap.bpf.classic_bpf import run as run_program
from uspcap.errors import UspcapError
from uspcap.frames import FrameBatch

_CODES = sorted(OPCODES)


def generate(random: Random) -> Any:
    length = random.randrange(1, 24)
    rows = []
    for at in range(length - 1):
        room = length - at - 2
        code = random.choice(_CODES)
        constant = random.choice((random.randrange(40), random.randrange(16), number(random, 32)))
        if code == 0x05:
            constant = random.randrange(room + 1)
        rows.append((code, random.randrange(room + 1), random.randrange(room + 1), constant))
    rows.append((random.choice((0x06, 0x16)), 0, 0, number(random, 32)))
    return {"program": rows, "frame": random.randbytes(random.randrange(60)), "longer": random.choice((0, 7))}


def run(value: Any) -> None:
    rows = [tuple(part & 0xFFFFFFFF for part in row) for row in value["program"] if len(row) == 4]
    rows = [(code & 0xFFFF, true & 0xFF, false & 0xFF, constant) for code, true, false, constant in rows]
    try:
        validate(rows)
        program = ClassicProgram(as_array(rows))
    except (UspcapError, ValueError):
        return
    frame = value["frame"]
    batch = FrameBatch.from_frames([frame], [0], wire_lengths=[len(frame) + abs(value["longer"]) % 65536])
    mask = np.zeros(1, np.uint8)
    run_program(program, batch, mask, 1)
    assert bool(mask[0]) == bool(interpret(rows, frame, int(batch.wire_length[0])))
