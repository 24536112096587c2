"""`python -m rig GUEST [COMMAND]`, in `tests/`: a shell in a guest, or one command."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rig.assembly import assemble
from rig.guests import GUESTS
from rig.job import environment_lines
from rig.machine import Machine


def main(words: list[str]) -> int:
    if not words or words[0] not in GUESTS:
        print(f"usage: python -m rig {'|'.join(GUESTS)} [COMMAND ...]", file=sys.stderr)
        return 2
    command = shlex.join(words[1:]) or "exec bash -i"
    guest = GUESTS[words[0]]
    assembly = assemble()

    def job(shared: Path) -> str:
        return "\n".join([*environment_lines([guest], assembly.host_tools, shared), command])

    machine = Machine(assembly, [guest], job, shell=True)
    try:
        return machine.wait()
    finally:
        machine.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
