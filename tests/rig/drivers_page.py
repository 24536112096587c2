"""`python -m rig.drivers_page RESULTS.json...`, in `tests/`: writes docs/drivers.md from what ran and what sources say.

Of several results of a test the last ones count.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rig.guests import GUESTS
from rig.job import REPOSITORY

HERE: Final = Path(__file__).parent
PAGE: Final = REPOSITORY / "docs" / "drivers.md"

_HEAD: Final = """\
# Drivers

What uspcap makes of a network interface depends on its driver. `uspcap doctor -i eth0` asks yours; the start line of a
capture says what was obtained.

## What ran

Emulated NICs in virtual machines (`tests/rig`, QEMU without hardware virtualisation), on {date}, with Linux {kernel}.
It proves how drivers and uspcap work together, not speed, latencies or what a real NIC's hardware does. Frames are
compared byte by byte with what was sent: every length from 60 bytes to the MTU (every seventh, but on igb), untagged,
tagged and double-tagged.

"""

_DECLARED: Final = """
## What the kernel's sources declare

Read in Linux's sources (`drivers/net/ethernet/` but for the virtual ones), of versions 6.12 to 7.3, and not tried but
where the tables above say so. "?" is: not looked up.

- *fragments*: a frame longer than a chunk comes in several.
- *metadata*: there is room before frames for the XDP hook's timestamp. Where there is none, uspcap begins the frame 32
  bytes earlier and takes them off again, so that timestamps are still the hook's.
- *timestamp for XDP*: the driver hands the NIC's receive timestamp to XDP programs.
- *buffer unit*: how a driver rounds the size of a chunk's room with zero copy. uspcap counts whole KiB only, whatever
  the driver, and refuses zero copy where an MTU's longest frame does not fit.
- *to attach XDP*: `--no-link-reset` lets native XDP only to drivers that are known to leave the link alone: {alone}.

"""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(lines) + "\n"


def content_rows(tests: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each guest and mode in which frames were compared."""
    return [
        [one["guest"], GUESTS[one["guest"]].driver, variant(one), one["mode"], one["frames"], f"{one['seconds']:.0f} s"]
        for one in tests
        if "frames" in one
    ]


def variant(test: dict[str, Any]) -> str:
    """Return what a test's id has in brackets beside the guest."""
    found = re.search(r"\[(.*)\]", test["test"])
    return "" if found is None else found[1].removeprefix(test["guest"]).removeprefix("-")


def times(tests: Sequence[dict[str, Any]]) -> str:
    """Return how long each machine ran."""
    longest: dict[str, float] = {}
    for one in tests:
        longest[one["machine"]] = max(one["machine_s"], longest.get(one["machine"], 0))
    return ", ".join(f"`{machine}` {seconds:,.0f} s" for machine, seconds in longest.items())


def test_rows(tests: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each guest and what was shown there beside the content of frames."""
    rows = []
    for one in tests:
        if "frames" in one:
            continue
        named = re.match(r"\S+::test_(\w+)", one["test"])
        assert named is not None, one["test"]
        how = variant(one)
        said = named[1].replace("_", " ")
        measured = ""
        if "worst_error_ns" in one:
            measured = f"worst error {one['worst_error_ns']:,} ns, bound stated {one['bound_ns']:,} ns"
        rows.append([one["guest"], said + (f" ({how})" if how else ""), measured, f"{one['seconds']:.0f} s"])
    return rows


def page(of_runs: Sequence[dict[str, Any]]) -> str:
    """Return the page's text from the results of one or more runs."""
    from uspcap.backends.driver_facts import LINK_LEFT_ALONE

    declared = tomllib.loads((HERE / "declared.toml").read_text(encoding="utf-8"))
    all_tests = {one["test"]: one for results in of_runs for one in results["tests"]}
    tests = [one for one in all_tests.values() if one["outcome"] == "passed"]
    failed = [one["test"] for one in all_tests.values() if one["outcome"] == "failed"]
    names = list(dict.fromkeys(one["guest"] for one in tests))
    devices = [
        [name, GUESTS[name].driver, f"{GUESTS[name].device} {GUESTS[name].options}".strip() or "the test module"]
        for name in names
    ]
    said = f"\n{len(tests)} tests passed; the tables have these only. The machines ran, with booting: {times(tests)}."
    if failed:
        said += f" {len(failed)} did not: {', '.join(failed)}."
    return "".join(
        (
            _HEAD.format(date=of_runs[-1]["date"], kernel=of_runs[-1]["kernel"]),
            table(["guest", "driver", "QEMU's device"], devices),
            f"{said}\n",
            "\n### Frames\n\n",
            table(["guest", "driver", "variant", "mode obtained", "frames", "time"], content_rows(tests)),
            "\n### Everything else\n\n",
            table(["guest", "what", "measured", "time"], test_rows(tests)),
            _DECLARED.format(alone=", ".join(f"`{name}`" for name in sorted(LINK_LEFT_ALONE))),
            table(["driver", *declared["columns"]], [[name, *row] for name, row in declared["drivers"].items()]),
        )
    )


if __name__ == "__main__":
    runs = [json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]
    PAGE.write_text(page(runs), encoding="utf-8")
