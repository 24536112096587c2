"""Text that comes from elsewhere (file names, interfaces, comments, fields of messages) made safe to show.

In a terminal it must neither move the cursor, nor set a colour, nor reorder what is read, nor fail to encode.
"""

from __future__ import annotations

import unicodedata

_ASCII = str.maketrans({"µ": "u", "×": "x", "…": "~", "–": "-", "─": "-", "█": "#", "·": ",", "≤": "<="})


def safe_text(text: str) -> str:
    r"""Return foreign text with everything that is not a visible character escaped as `\x1b` or `\u202e`.

    File names, interface names and comments come from outside; in a terminal they must neither move the
    cursor, nor reorder what is read, nor fail to encode.
    """
    return "".join(
        _escape(char) if unicodedata.category(char)[0] == "C" or char in "\u2028\u2029" else char for char in text
    )


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def encodable(text: str, encoding: str) -> str:
    """Return text that `encoding` can write: symbols get their ASCII stand-ins, the rest is escaped."""
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "backslashreplace").decode(encoding)
