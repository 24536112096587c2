"""Captures in gzip, zstd, xz and lz4: several members, damage, what follows them; plain content reads the same."""

from random import Random
from typing import Any

import files

from uspcap.errors import UspcapError


def generate(random: Random) -> Any:
    pieces = random.choice((files.pcap_pieces, files.pcapng_pieces))(random)
    return {"compressed": files.compressed(random, b"".join(pieces))}


def run(value: Any) -> None:
    try:
        files.read(files.written(value["compressed"]))
    except UspcapError as error:
        assert str(error).count("\n") == 0
