"""What a guest is given to do: a shell script that runs where the host's root, environment and sources are seen."""

from __future__ import annotations

import compileall
import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rig.guests import Guest

REPOSITORY: Final = Path(__file__).parents[2]

SHARED: Final = Path("/run/rig")
"""Where the guest sees the directory that it shares with the host."""

GUESTS_VARIABLE: Final = "USPCAP_RIG_GUESTS"
"""Environment variable with the names of the guests that a machine is, set inside of it only."""


def environment_lines(guests: Sequence[Guest], host_tools: Path, shared: Path) -> list[str]:
    """Return the shell's lines that make the environment the host's, and load the drivers.

    Parameters
    ----------
    guests : sequence of Guest
    host_tools : Path
        Where packages for host and guest are unpacked.
    shared : Path
        On the host, the directory that is `SHARED` in the guest.
    """
    # Not resolved: a virtual environment is known by the path of its interpreter.
    binaries = Path(sys.executable).parent
    lines = [
        f"export PATH={shlex.quote(str(binaries))}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "export HOME=/root LC_ALL=C.UTF-8 OPENBLAS_NUM_THREADS=1 PYTHONSAFEPATH=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
        f"export {GUESTS_VARIABLE}={','.join(guest.name for guest in guests)}",
        f"export USPCAP_RIG_TOOLS={shlex.quote(str(host_tools))}",
        *(
            f"export {name}={shlex.quote(os.environ[name])}"
            for name in ("USPCAP_FEW_SKIPS", "CI")
            if name in os.environ
        ),
    ]
    builds = sorted((REPOSITORY / "build").glob("cp*"))
    if builds:
        _install(builds[-1], shared / "site")
        lines.append(f"export PYTHONPATH={shlex.quote(str(shared / 'site'))}")
        lines.append(f"export MESONPY_EDITABLE_SKIP={shlex.quote(str(builds[-1]))}")
    lines.append(f"cd {shlex.quote(str(REPOSITORY))}")
    lines += sorted({f"modprobe {guest.driver}" for guest in guests if guest.device})
    return lines


def _install(build: Path, into: Path) -> None:
    """Put an editable installation's package together, as the guest has neither compiler nor time to look after it."""
    shutil.copytree(REPOSITORY / "uspcap", into / "uspcap", ignore=shutil.ignore_patterns("*.pyx", "*.pxd"))
    for module in (build / "uspcap").rglob("*.so"):
        shutil.copy(module, into / module.relative_to(build))
    compileall.compile_dir(into, quiet=1)


def test_job(guests: Sequence[Guest], node_ids: Sequence[str], host_tools: Path, shared: Path) -> str:
    """Return the script that runs tests by their ids, which are left in the shared directory."""
    (shared / "tests").write_text("\n".join(node_ids))
    # Without what all other tests share: to import it takes longer than most tests, where a CPU is emulated.
    run = f"python -m pytest -q -p no:cacheprovider --confcutdir=tests/rig -m rig @{SHARED}/tests"
    return "\n".join([*environment_lines(guests, host_tools, shared), run, ""])
