"""Captures made by others, which lie beside the repository and are no part of it.

They are looked for in `$USPCAP_SHARED/captures`, by default in `shared/captures` next to the repository. Tests that
need them skip where they are missing.
"""

import functools
import json
import os
from pathlib import Path
from typing import Any

import pytest

CAPTURES = Path(os.environ.get("USPCAP_SHARED", Path(__file__).parents[3] / "shared")) / "captures"

needs_captures = pytest.mark.skipif(
    not (CAPTURES / "manifest.json").exists(),
    reason=f"no {CAPTURES}/manifest.json; set USPCAP_SHARED to where the shared captures are",
)


@functools.cache
def manifest() -> list[dict[str, Any]]:
    """Return what other tools say about each capture; nothing where there are none."""
    path = CAPTURES / "manifest.json"
    return json.loads(path.read_text())["files"] if path.exists() else []
