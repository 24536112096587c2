"""What a check comes to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final, Generic, TypeVar

from uspcap.doctor.changes import Change
from uspcap.errors import UspcapError
from uspcap.system_errors import reason

MOST_EVIDENCE: Final = 2000
"""Characters; what reads longer is not what the kernel wrote."""

HOST = "host"
"""Subject of findings that are about no interface."""


class Status(StrEnum):
    """How much a finding matters, least first."""

    OK = "ok"
    UNKNOWN = "unknown"
    """It cannot be determined here; the evidence says why."""
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


Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True)
class Check(Generic[Subject]):
    """One thing that is looked at.

    Attributes
    ----------
    name : str
        Of its finding; where it has several, of the one that says that they could not be had.
    source : str
        What it looks at.
    look : callable
        Takes the host or the interface, and returns what it found.
    """

    name: str
    source: str
    look: Callable[[Subject], Finding | list[Finding]]

    def findings(self, subject: Subject, about: str) -> list[Finding]:
        """Return what is found; one that says that it could not be looked at, whatever goes wrong.

        Parameters
        ----------
        subject : Subject
        about : str
            `HOST`, or the interface.
        """
        try:
            found = self.look(subject)
        except Exception as error:
            evidence = _shortened(f"could not be checked, because {_reason(error)}")
            return [Finding(self.name, Status.UNKNOWN, evidence, self.source, subject=about)]
        found = found if isinstance(found, list) else [found]
        return [
            replace(finding, evidence=_shortened(finding.evidence), changes=_sound(finding.changes))
            for finding in found
        ]


def _shortened(evidence: str) -> str:
    """Return what was read, as far as somebody may want to read it."""
    return evidence if len(evidence) <= MOST_EVIDENCE else f"{evidence[:MOST_EVIDENCE]}..."


def _sound(changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """Return the changes whose values are such that they can be made and restored."""
    return tuple(change for change in changes if not change.flaw())


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {reason(error)}" if error.filename else reason(error)
    if isinstance(error, UspcapError):
        return str(error)
    return f"of {type(error).__name__}: {error or 'no more is known'}"
