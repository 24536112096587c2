"""The long form of analyses: files of a directory, made by every renderer of tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, TextIO

from uspcap.analysis.base import Analysis
from uspcap.foreign_text import safe_text
from uspcap.report.renderers.registry import table_renderers
from uspcap.report.report_file import ReportFileError, report_file
from uspcap.system_errors import reason, remedy

_LONGEST_NAME: Final = 255
"""Bytes of a file's name (limits.h, NAME_MAX)."""


def write_tables(analyses: Mapping[str, Analysis], directory: str | os.PathLike[str]) -> list[Path]:
    """Write tables and histograms in each format that there is; each file appears whole, or not at all.

    Ours are `<analysis>.<table>.csv` and `<analysis>.<name>.hgrm`, the text form of the HdrHistogram tools.

    Parameters
    ----------
    analyses : mapping of str to Analysis
    directory : path
        Made where it does not exist. Files of these names are replaced.

    Returns
    -------
    list of Path
        The files, in the order of the analyses. A table without columns makes none.

    Raises
    ------
    MissingFeature
        The package of a format cannot be loaded; nothing is written.
    ReportFileError
        The directory cannot be made, or a file in it cannot be written.
    """
    target, formats = Path(directory), table_renderers()
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        advice = remedy(error, "name one that can be written to")
        raise ReportFileError(f"{target}: cannot make this directory for tables ({reason(error)}); {advice}") from error
    written = []
    for name, analysis in analyses.items():
        tables, histograms = analysis.tables(), analysis.histograms()
        for one in formats:
            for file_name, write in one.files(tables, histograms):
                written.append(target / _file_name(f"{name}.{file_name}"))
                with _file(written[-1]) as stream:
                    write(stream)
    return written


def _file(path: Path) -> AbstractContextManager[TextIO]:
    return report_file(path, "this table", advice="name another directory", newline="")


def _file_name(name: str) -> str:
    """Return a name for a file in the directory: what users and captures name may hold anything."""
    safe = safe_text(name).replace("/", "_")
    if len(os.fsencode(safe)) <= _LONGEST_NAME:
        return safe
    digest = hashlib.sha256(os.fsencode(safe)).hexdigest()[:16]
    ending = f"-{digest}{Path(safe).suffix}"
    return os.fsencode(safe)[: _LONGEST_NAME - len(ending)].decode(errors="ignore") + ending
