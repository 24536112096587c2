"""Filters as text: libpcap compiles, our interpreter runs, and a slow one in Python says the same of each frame.

As filters of files they look at the innermost packet, whatever it is in.
"""

from random import Random
from typing import Any

import packets
from support.classic_bpf_reference import interpret
from support.filter_expressions import ARITHMETIC, SINGLE
from values import number

from uspcap.bpf.builder import Builder
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.classic_bpf import ClassicProgram
from uspcap.bpf.classic_bpf import run as run_program
from uspcap.bpf.filters import FrameFilter, filter_of_files
from uspcap.bpf.translate import translate
from uspcap.errors import UspcapError
from uspcap.frames import FrameBatch, Interface

import numpy as np  # isort: skip


def generate(random: Random) -> Any:
    terms = [random.choice(random.choice((SINGLE, ARITHMETIC))) for _ in range(random.choice((1, 1, 2, 3)))]
    if random.random() < 0.2:
        terms.append(f"ether[{number(random, 32)}:{random.choice((1, 2, 4, 3))}] = {number(random, 32)}")
    expression = ""
    for term in terms:
        expression += f"{random.choice((' and ', ' or ', ' and not ', ' '))}({term})" if expression else term
    link_type, frame = packets.layered(random)
    return {"expression": expression, "link_type": link_type, "frame": frame, "longer": random.choice((0, 0, 100))}


def run(value: Any) -> None:
    frame, link_type = value["frame"], value["link_type"] % (1 << 16)
    batch = FrameBatch.from_frames(
        [frame],
        [0],
        wire_lengths=[len(frame) + abs(value["longer"]) % 65536],
        interfaces=(Interface(link_type=link_type),),
    )
    expression = value["expression"][:2000]
    try:
        chosen = filter_of_files(expression)
        for tunnels in (True, False):
            batch.decode_tunnels = tunnels
            mask, matched = chosen.matches(batch)
            assert matched == int(np.count_nonzero(mask))
        FrameFilter(expression).apply(batch)
        program = compile_filter(expression, link_type, netmask=0)
    except UspcapError as error:
        assert str(error).count("\n") == 0
        return
    instructions = [tuple(int(field) for field in one) for one in program.instructions]
    batch = FrameBatch.from_frames([frame], [0], wire_lengths=[len(frame) + abs(value["longer"]) % 65536])
    mask = np.zeros(1, np.uint8)
    run_program(ClassicProgram(program.instructions), batch, mask, 1)
    assert bool(mask[0]) == bool(interpret(instructions, frame, int(batch.wire_length[0])))
    builder = Builder()
    try:
        translate(builder, instructions, accept=builder.label(), reject=builder.label())
    except UspcapError as error:
        assert str(error).count("\n") == 0
