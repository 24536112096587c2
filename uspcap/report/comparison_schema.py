"""The name and the JSON Schema of reports of comparisons, of all three kinds: `captures`, `live` and `reports`."""

from __future__ import annotations

from typing import Any, Final

from uspcap.report.published import published_schema

SCHEMA: Final = "uspcap.comparison/1"


def load_schema() -> dict[str, Any]:
    """Return the schema, which a report says that it keeps to."""
    return published_schema("uspcap.comparison.1.schema.json")
