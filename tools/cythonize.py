"""Make the C of all Cython modules in one go: to start Cython takes longer than it needs for most modules.

    tools/cythonize.py --output-dir DIR --depfile FILE --shared MODULE SOURCE... -- [ARGUMENT OF CYTHON]...

Called by meson with the sources below the package's directory. `DIR` receives `a.b.pyx.c` for `uspcap/a/b.pyx`, and
`_memoryviews.c`, the module that the others share. A module whose source, declarations (`.pxd`) and arguments are those
of the last run is left as it is, so that its C is not compiled again. Processes are as many as CPUs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from pathlib import Path

from Cython import __version__
from Cython.Compiler.Main import main as cython

PACKAGE = Path(__file__).resolve().parents[1] / "uspcap"


@cache
def declarations_of(source: Path) -> frozenset[Path]:
    """Return the `.pxd` that a source takes names from, itself or by way of others."""
    found = set()
    own = source.with_suffix(".pxd")
    modules = re.findall(r"^\s*from uspcap\.([\w.]+) cimport ", source.read_text(encoding="utf-8"), re.MULTILINE)
    for path in (own, *(PACKAGE.joinpath(*module.split(".")).with_suffix(".pxd") for module in modules)):
        if path != source and path.is_file():
            found |= {path, *declarations_of(path)}
    return frozenset(found)


def made_of(source: Path, arguments: Sequence[str]) -> str:
    """Return a digest of all that decides what the C of a module is."""
    digest = sha256(repr((__version__, arguments)).encode())
    for path in (source, *sorted(declarations_of(source))):
        digest.update(f"\n{path.relative_to(PACKAGE)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def run_cython(arguments: Sequence[str]) -> bool:
    """Run Cython in this process, as its command does; return whether it went well."""
    sys.argv = ["cython", *arguments]
    try:
        cython(command_line=1)
    except SystemExit as end:
        return not end.code
    return True


def make(job: tuple[str, Path, Sequence[str]]) -> bool:
    """Make one C file, unless it is there and made of the same."""
    digest, output, arguments = job
    record = output.with_name(output.name + ".made_of")
    if output.exists() and record.exists() and record.read_text(encoding="utf-8") == digest:
        return True
    record.unlink(missing_ok=True)
    if not run_cython(arguments):
        output.unlink(missing_ok=True)
        return False
    record.write_text(digest, encoding="utf-8")
    return True


def main() -> int:
    """Return 0 if all C files are made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--depfile", type=Path, required=True)
    parser.add_argument("--shared", required=True, help="dotted name of the module that the others share")
    parser.add_argument("sources", type=Path, nargs="+")
    end = sys.argv.index("--")
    given, options = parser.parse_args(sys.argv[1:end]), sys.argv[end + 1 :]
    sources = [source.resolve() for source in given.sources]
    shared = given.output_dir / "_memoryviews.c"
    jobs = [(f"{__version__} {options}", shared, ["-3", f"--generate-shared={shared}"])]
    for source in sorted(sources, key=lambda source: -source.stat().st_size):
        output = given.output_dir / (".".join(source.relative_to(PACKAGE).parts) + ".c")
        arguments = [*options, f"--shared={given.shared}"]
        jobs.append((made_of(source, arguments), output, [*arguments, str(source), "-o", str(output)]))
    depended_on = sorted({path for source in sources for path in declarations_of(source)})
    first = given.output_dir / (".".join(sources[0].relative_to(PACKAGE).parts) + ".c")
    given.depfile.write_text(
        f"{first}: " + " ".join(str(path).replace(" ", "\\ ") for path in depended_on) + "\n", encoding="utf-8"
    )
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as processes:
        return 0 if all(processes.map(make, jobs, chunksize=1)) else 1


if __name__ == "__main__":
    sys.exit(main())
