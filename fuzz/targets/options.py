"""Command lines over small captures: every option with values; exit code 0, 1 or 2, and one sentence where not 0."""

from random import Random
from typing import Any

import files
from support.command_line import invoke
from values import EDGES, number

_NUMBERS = ("0", "1", "-1", "10", "1e3", "", "٣", " 7", "0x10", "inf")
_TIMES = ("1ms", "0ns", "1", "1.5us", "9223372036854775807ns", "292y", "-1s", "5 s", "1e9s")
_VALUES: dict[str, tuple[str, ...]] = {
    "--only": ("summary", "gaps,bursts", "sequence", "tcp", "patterns", "orders", "requests", "all", "", "gaps,,gaps"),
    "--format": ("text", "json", "xml"),
    "--gap-threshold": _TIMES,
    "--line-rate": ("10G", "0", "1.5Mbit/s", "10GB", "9" * 40),
    "--top": _NUMBERS,
    "--max-flows": _NUMBERS,
    "-j": ("1", "2", "4", "0"),
    "--protocol": ("moldudp64", "rtp", "tcp", "fix", "ouch-4.2", "auto", "nothing", "none.toml"),
    "--sequence": ("offset=0,size=4", "offset=0,size=9", "offset=99999999999,size=8", "size=4"),
    "--pair": ("A=239.1.1.1:1,B=239.1.1.2:1", "A=1,B=2", "none.toml"),
    "--timestamps": ("trailer", "trailer:metamako", "trailer:vss", "trailer:none", "file"),
    "--request": ("udp dst port 1002; key=payload[0:4]", "udp", ";", "udp; key=tag:11"),
    "--response": ("udp src port 1002; key=payload[0:4]", "udp; name=é"),
    "--trigger": ("udp dst port 1002", "tcp; key=tag:35"),
    "--match": ("flow", "client", "key", "none"),
    "--quorum": ("1", "majority", "33", "0"),
    "--timeout": _TIMES,
    "-f": ("udp", "tcp port 80", "(", "ether[4294967295] = 1", "vlan and vlan"),
    "--frame": ("1", "1-3", "3-1", "1,,2", "18446744073709551616"),
    "-c": _NUMBERS,
    "--key": ("network", "payload", "whole", "fields"),
    "--clock": ("auto", "same", "offset"),
    "--window": _TIMES,
    "--offset": ("-37s", "+1h", *_TIMES),
}
_FLAGS = ("--framing", "--tunnels", "--unverified", "--show-outliers", "-x", "-n")


def generate(random: Random) -> Any:
    command = random.choice(("analyze", "analyze", "dump", "compare"))
    words = [command, "FILE"] + (["OTHER"] if command == "compare" else [])
    for _ in range(random.choice((0, 1, 2, 3, 5))):
        if random.random() < 0.2:
            words.append(random.choice(_FLAGS))
            continue
        name = random.choice(list(_VALUES))
        value = random.choice(_VALUES[name]) if random.random() < 0.8 else str(random.choice(EDGES))
        words += [name, value]
    pieces = random.choice((files.pcap_pieces, files.pcapng_pieces))
    return {"words": words, "file": pieces(random), "other": pieces(random), "width": number(random, 8)}


_ONLY_HARMLESS = frozenset({"analyze", "dump", "compare"})
"""Commands that write nowhere and reach no network, whatever mutation makes of their options."""

_NEVER = ("-i", "-w", "-o", "--tables", "--table", "--only-a", "--only-b", "--output", "--interface")


def run(value: Any) -> None:
    words = value["words"]
    given = {"FILE": files.written(b"".join(value["file"])), "OTHER": files.written(b"".join(value["other"]), "other")}
    words = [given.get(word, word.replace("\0", "")) for word in words]
    if not words or words[0] not in _ONLY_HARMLESS or any(word.startswith(_NEVER) or word == "-" for word in words):
        return
    ended = invoke(*words)
    assert ended.code in (0, 1, 2), ended
    assert "Traceback" not in ended.stderr, ended.stderr
    if ended.code:
        assert ended.stderr.strip(), "an exit code without a word"
