"""What the tests of analyses share: half of all parts that are merged come from another process, as it were."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from uspcap.analysis.base import Analysis


def travelled(state: Any) -> Any:
    """Return what has been pickled and read again."""
    return pickle.loads(pickle.dumps(state, protocol=5))


@pytest.fixture(autouse=True, scope="session")
def _parts_travel() -> Any:
    """Let every merge take a pickled copy of the later part where that has read an odd number of frames."""
    merge = Analysis.merge

    def merge_travelled(mine: Analysis, later: Analysis) -> None:
        merge(mine, travelled(later) if later.frames_read % 2 else later)

    patch = pytest.MonkeyPatch()
    patch.setattr(Analysis, "merge", merge_travelled)
    yield
    patch.undo()
