"""Reports on intervals: the stream that they are written to."""

from __future__ import annotations

import io
import os
from pathlib import Path

from uspcap.formats.byte_sink import Patience
from uspcap.report.interval_reports import PatientStream


class Asked(io.FileIO):
    """A file that counts how often it is asked whether it is a terminal."""

    times = 0
    encoding = "utf-8"
    errors = "strict"

    def isatty(self) -> bool:
        self.times += 1
        return super().isatty()


def test_stream_asks_the_system_once_whether_it_is_a_terminal(tmp_path: Path) -> None:
    with Asked(tmp_path / "out", "w") as asked:
        stream = PatientStream(asked, Patience())  # type: ignore[arg-type]
        asked.times = 0
        assert not stream.isatty()
        stream.write("Straße\n")
        assert asked.times == 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == "Straße\n"


def test_stream_to_a_terminal_is_one() -> None:
    master, terminal = os.openpty()
    try:
        with os.fdopen(terminal, "w") as stream:
            assert PatientStream(stream, Patience()).isatty()
    finally:
        os.close(master)
