"""pcap files: every magic, version, byte order and link type, records that lie, files one after the other."""

from random import Random
from typing import Any

import files

from uspcap.errors import UspcapError


def generate(random: Random) -> Any:
    return files.pcap_pieces(random)


def run(value: Any) -> None:
    try:
        files.read(files.written(b"".join(value)))
    except UspcapError as error:
        assert str(error).count("\n") == 0
