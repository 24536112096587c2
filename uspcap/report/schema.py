"""The JSON Schema of reports, made of the records that they consist of.

Each analysis names its `Result` in its declaration; that is the definition named like the analysis, and whatever other
records there are in its package are named after it: `gaps_gap`. The whole, of our own analyses, is published in
`uspcap.report.1.schema.json`, which `python -m uspcap.report.schema` writes; a test holds the two equal.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from uspcap.analysis.registry import declarations
from uspcap.entry_points import EntryPoint
from uspcap.report.published import published_schema
from uspcap.report.record_schema import Definitions

BASE_FILE = "report_base.schema.json"
PUBLISHED_FILE = "uspcap.report.1.schema.json"


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of reports with all analyses that there are.

    Raises
    ------
    ValueError
        Two records have the same name, or a field is of a type that JSON does not have.
    """
    schema = published_schema(BASE_FILE)
    declared = declarations()
    definitions = Definitions(schema["$defs"], {one.package: name for name, one in declared.items()})
    for name, one in declared.items():
        schema["properties"]["analyses"]["properties"][name] = definitions.add(EntryPoint("", one.result).load(), name)
    return schema


if __name__ == "__main__":
    json.dump(load_schema(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
