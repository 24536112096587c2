"""`uspcap compare REPORT1 REPORT2`: two reports of live comparisons."""

from __future__ import annotations

import sys
from pathlib import Path

from uspcap.commands.output import put_out
from uspcap.errors import UsageError


def is_report(path: str) -> bool:
    """Return whether a file begins as a JSON document does; False for what cannot be read, and for pipes."""
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            return file.read(256).lstrip()[:1] == b"{"
    except (OSError, ValueError):
        return False


def compare_reports(path_1: str, path_2: str, form: str) -> None:
    """Compare two reports and print what came of it.

    Raises
    ------
    UsageError
        One of them is no report.
    CaptureFileError
        One of them cannot be read, is damaged or of another kind.
    """
    from uspcap.comparison.reports import load
    from uspcap.report.model import Output
    from uspcap.report.report_comparison import report_comparison, report_comparison_page

    for path in (path_1, path_2):
        if Path(path).exists() and not is_report(path):
            raise UsageError(f"{path} is not a report, but the other file is: name two reports, or two captures")
    report = report_comparison(load(path_1), load(path_2))
    put_out(Output(report, lambda: report_comparison_page(report)), form, sys.stdout)
