"""The name and the JSON Schema of reports of comparisons, of all three kinds: `captures`, `live` and `reports`."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any, Final

SCHEMA: Final = "uspcap.comparison/1"


def load_schema() -> dict[str, Any]:
    """Return the schema, which a report says that it keeps to."""
    text = (importlib.resources.files("uspcap.report") / "uspcap.comparison.1.schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
