"""Advice fits the error that the system gave."""

from __future__ import annotations

import errno
import os

import pytest

from uspcap.files.places import Untrusted
from uspcap.system_errors import limit_remedy, reason, remedy

NAMED = sorted(errno.errorcode)


@pytest.mark.parametrize("number", NAMED)
def test_only_what_takes_room_is_called_so(number: int) -> None:
    advice = remedy(OSError(number, os.strerror(number)), "otherwise")
    assert ("room" in advice) == (number in (errno.ENOSPC, errno.EDQUOT))
    assert ("ulimit -n" in advice) == (number == errno.EMFILE)
    assert ("read-only" in advice) == (number == errno.EROFS)
    assert advice == "otherwise" or advice == advice.strip(" .;")


@pytest.mark.parametrize("number", NAMED)
def test_limits_are_reported_for_every_call_and_nothing_else(number: int) -> None:
    remedy = limit_remedy(number, "otherwise")
    assert (remedy != "otherwise") == (number in (errno.EMFILE, errno.ENFILE))
    assert limit_remedy(None, "otherwise") == "otherwise"


def test_an_error_may_bring_advice_of_its_own() -> None:
    assert remedy(Untrusted("why", "what to do"), "otherwise") == "what to do"
    assert remedy(ValueError("embedded null byte"), "otherwise") == "otherwise"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(28, ""), "No space left on device"),
        (OSError("just text"), "just text"),
        (OSError(), "OSError"),
        (ValueError("embedded null byte"), "embedded null byte"),
        (Untrusted("why", "what"), "why"),
    ],
)
def test_a_reason_is_never_empty(error: OSError | ValueError, said: str) -> None:
    assert reason(error) == said
