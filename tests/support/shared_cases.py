"""Inputs on which uspcap was wrong once, which lie beside the repository and are no part of it.

They are looked for in `$USPCAP_SHARED/cases`, by default in `shared/cases` next to the repository. Tests that need them
skip where they are missing.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CASES = Path(os.environ.get("USPCAP_SHARED", Path(__file__).parents[3] / "shared")) / "cases"

needs_cases = pytest.mark.skipif(
    not (CASES / "README.md").exists(), reason=f"no {CASES}/README.md; set USPCAP_SHARED to where the shared cases are"
)
