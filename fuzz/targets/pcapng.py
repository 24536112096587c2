"""pcapng files: sections of both orders, interfaces of every resolution and offset, all blocks, options that lie."""

from random import Random
from typing import Any

import files

from uspcap.errors import UspcapError


def generate(random: Random) -> Any:
    return files.pcapng_pieces(random)


def run(value: Any) -> None:
    try:
        files.read(files.written(b"".join(value)))
    except UspcapError as error:
        assert str(error).count("\n") == 0
