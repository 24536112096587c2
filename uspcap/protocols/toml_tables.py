"""Tables that users write down in TOML files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from uspcap.errors import UsageError
from uspcap.system_errors import reason, remedy


def tables_of(path: str) -> dict[str, Any]:
    """Return what a TOML file holds.

    Raises
    ------
    UsageError
        It cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read: {reason(error)}; {remedy(error, 'check the path')}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not TOML: {error}") from None
