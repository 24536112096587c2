"""Order entry rules as data: which messages ask and answer, in OUCH 4.2 and 5.0, and where their ids stand.

OUCH integers are big-endian. What goes to the venue is in SoupBinTCP packets of type U, what comes from it in those of
type S; the latter begin with a type and the venue's timestamp, a u64 of nanoseconds since midnight by the venue's
clock.

Source: layouts as published by Open Markets Initiative (OUCH 4.2 and 5.0 dissectors and structs). A version does not
say itself which one it is: both have the same message types.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

REQUEST_KINDS = ("enter", "replace", "cancel", "modify")
ANSWER_KINDS = ("accepted", "executed", "canceled", "rejected", "replaced", "pending", "expired", "modified")

_OTHER = 255
_BY_ORDER, _BY_CANCEL, _BY_MODIFY = 0, 1, 2
_EXACT, _APPENDAGES, _AT_LEAST = 1, 2, 0

# Type: what it is, what its id names, offset of the id, length; the length is without appendages.
_TO_VENUE_4_2 = {
    "O": ("enter", _BY_ORDER, 1, 49, _EXACT),
    "U": ("replace", _BY_ORDER, 15, 47, _EXACT),
    "X": ("cancel", _BY_CANCEL, 1, 19, _EXACT),
    "M": ("modify", _BY_MODIFY, 1, 20, _EXACT),
    "N": (None, _BY_ORDER, 1, 15, _EXACT),
}
_FROM_VENUE_4_2 = {
    "S": (None, _BY_ORDER, 1, 10, _EXACT),
    "A": ("accepted", _BY_ORDER, 9, 66, _EXACT),
    "U": ("replaced", _BY_ORDER, 9, 80, _EXACT),
    "C": ("canceled", _BY_CANCEL, 9, 28, _EXACT),
    "D": ("canceled", _BY_ORDER, 9, 37, _EXACT),
    "E": ("executed", _BY_ORDER, 9, 40, _EXACT),
    "G": ("executed", _BY_ORDER, 9, 45, _EXACT),
    "J": ("rejected", _BY_ORDER, 9, 24, _EXACT),
    "P": ("pending", _BY_CANCEL, 9, 23, _EXACT),
    "I": ("rejected", _BY_CANCEL, 9, 23, _EXACT),
    "M": ("modified", _BY_MODIFY, 9, 28, _EXACT),
    "B": (None, _BY_ORDER, 9, 32, _EXACT),
    "F": (None, _BY_ORDER, 9, 41, _EXACT),
    "T": (None, _BY_ORDER, 9, 36, _EXACT),
}
_TO_VENUE_5_0 = {
    "O": ("enter", _BY_ORDER, 1, 45, _APPENDAGES),
    "U": ("replace", _BY_ORDER, 5, 38, _APPENDAGES),
    "X": ("cancel", _BY_CANCEL, 1, 9, _APPENDAGES),
    "M": ("modify", _BY_MODIFY, 1, 10, _APPENDAGES),
    "Q": (None, _BY_ORDER, 1, 1, _AT_LEAST),
}
_FROM_VENUE_5_0 = {
    "S": (None, _BY_ORDER, 1, 10, _APPENDAGES),
    "A": ("accepted", _BY_ORDER, 9, 62, _APPENDAGES),
    "U": ("replaced", _BY_ORDER, 13, 66, _APPENDAGES),
    "C": ("canceled", _BY_CANCEL, 9, 18, _APPENDAGES),
    "D": ("canceled", _BY_ORDER, 9, 31, _AT_LEAST),
    "E": ("executed", _BY_ORDER, 9, 34, _APPENDAGES),
    "J": ("rejected", _BY_ORDER, 9, 29, _APPENDAGES),
    "P": ("pending", _BY_CANCEL, 9, 13, _APPENDAGES),
    "I": ("rejected", _BY_CANCEL, 9, 13, _APPENDAGES),
    "M": ("modified", _BY_MODIFY, 9, 18, _APPENDAGES),
    "B": (None, _BY_ORDER, 9, 36, _APPENDAGES),
    "F": (None, _BY_ORDER, 9, 36, _AT_LEAST),
    "T": (None, _BY_ORDER, 9, 30, _APPENDAGES),
    "R": (None, _BY_ORDER, 9, 14, _AT_LEAST),
    "Q": (None, _BY_ORDER, 9, 13, _AT_LEAST),
}


def ouch_rules(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the rules for the compiled loops: ndarray of their dtype, shape (2, 2, 256).

    By version (4.2, 5.0), direction (to the venue, from it) and message type.
    """
    rules = np.zeros((2, 2, 256), dtype)
    tables = ((_TO_VENUE_4_2, _FROM_VENUE_4_2), (_TO_VENUE_5_0, _FROM_VENUE_5_0))
    for version, both in enumerate(tables):
        for direction, (table, kinds) in enumerate(zip(both, (REQUEST_KINDS, ANSWER_KINDS), strict=True)):
            for message_type, (kind, space, offset, length, exact) in table.items():
                number = _OTHER if kind is None else kinds.index(kind)
                rule = (number, space, offset, (14, 4)[version], length, exact)
                rules[version, direction, ord(message_type)] = rule
    return rules
