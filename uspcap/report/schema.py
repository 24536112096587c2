"""The JSON Schema of reports, put together from what each analysis says of its result.

An analysis has a file `schema.json` in its package: definitions by name, of which the one named like the analysis is
that of its result. They may refer to each other and to those of `report_base.schema.json`. The whole, of our own
analyses, is published in `uspcap.report.1.schema.json`, which `python -m uspcap.report.schema` writes; a test holds
the two equal.
"""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from typing import Any

from uspcap.analysis.registry import declarations
from uspcap.report.published import published_schema

BASE_FILE = "report_base.schema.json"
PUBLISHED_FILE = "uspcap.report.1.schema.json"
FRAGMENT_FILE = "schema.json"


def load_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of reports with all analyses that there are.

    Raises
    ------
    ValueError
        An analysis defines what is defined already, or its file is no JSON.
    """
    schema = published_schema(BASE_FILE)
    for name, declared in declarations().items():
        file = files(declared.package).joinpath(FRAGMENT_FILE)
        if not file.is_file():
            continue
        definitions = json.loads(file.read_text(encoding="utf-8"))
        taken = definitions.keys() & schema["$defs"].keys()
        if taken:
            raise ValueError(f"the schema of the analysis {name} defines {sorted(taken)[0]}, which is defined already")
        schema["$defs"] |= definitions
        schema["properties"]["analyses"]["properties"][name] = {"$ref": f"#/$defs/{name}"}
    return schema


if __name__ == "__main__":
    json.dump(load_schema(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
