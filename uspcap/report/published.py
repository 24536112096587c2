"""JSON Schemas that ship with the package."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def published_schema(file_name: str) -> dict[str, Any]:
    """Return a schema of this folder."""
    schema: dict[str, Any] = json.loads(files("uspcap.report").joinpath(file_name).read_text(encoding="utf-8"))
    return schema
