"""The pages of `docs/` show what uspcap prints about the sample captures."""

from __future__ import annotations

import pytest
from support.walk_throughs import Run, pages, runs

from uspcap.bpf import libpcap

RUNS = [run for page in pages() for run in runs(page)]
SAMPLES = ("damaged", "feed-two-lines", "microburst", "order-session", "request-response")


def test_every_sample_is_shown_somewhere() -> None:
    assert all(any(f"sample_captures/{name}" in run.command for run in RUNS) for name in SAMPLES)


@pytest.mark.skipif(
    libpcap.cypcap_compiler() is None and libpcap.system_compiler() is None, reason="no libpcap to compile filters with"
)
@pytest.mark.parametrize("run", RUNS, ids=[run.name for run in RUNS])
def test_a_page_shows_what_is_printed_today(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "")  # what the run sets ends with the test
    printed, code = run.printed()
    assert printed == run.shown, "if the change is meant, in tests/: python -m support.walk_throughs"
    assert code == (1 if "damaged" in run.command else 0)
