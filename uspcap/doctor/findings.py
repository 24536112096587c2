"""What a check comes to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from uspcap.doctor.changes import Change

HOST = "host"
"""Subject of findings that are about no interface."""


class Status(StrEnum):
    """How much a finding matters, least first."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It cannot be told here; the evidence says why."""
    ADVICE = "advice"
    """There is something to gain, or to know."""
    WARNING = "warning"
    """It costs latency, or alters what is captured."""
    PROBLEM = "problem"
    """Something that uspcap offers does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    name : str
        Of the check; stays the same in all versions.
    status : Status
    evidence : str
        What was read.
    source : str
        Where.
    consequence : str
        What it means to somebody who measures latency; empty where all is well.
    commands : tuple of str
        What changes it, for a shell.
    changes : tuple of Change
        The same as `--apply` does it; empty where it is not for a program to do.
    subject : str
        `HOST`, or the interface.
    """

    name: str
    status: Status
    evidence: str
    source: str
    consequence: str = ""
    commands: tuple[str, ...] = ()
    changes: tuple[Change, ...] = ()
    subject: str = HOST
