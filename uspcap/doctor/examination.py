"""One look at a host and an interface."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from uspcap.doctor.changes import Change
from uspcap.doctor.driver import DRIVER_ERRORS, Driver
from uspcap.doctor.findings import HOST, Check, Finding, Status
from uspcap.doctor.host import Host
from uspcap.doctor.host_checks import HOST_CHECKS
from uspcap.doctor.nic_checks import NIC_CHECKS, Nic
from uspcap.errors import CaptureError, UsageError
from uspcap.network.links import Link
from uspcap.timestamps.kernel_calls import KernelCalls

SCHEMA: Final = "uspcap.doctor/1"


MOST_LISTED: Final = 32
"""Interfaces that are looked at where none is named: a host of containers has hundreds, and each takes its time."""


def worst_of(findings: Iterable[Finding]) -> Status:
    """Return the gravest status of findings."""
    return max((finding.status for finding in findings), key=list(Status).index, default=Status.OK)


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes
    ----------
    kernel : str
        Its release.
    interface : str or None
        The one that was named.
    interfaces : tuple of str
        Those that there are.
    findings : tuple of Finding
        Of the host first, in the order of their checks, then of the interface that was named.
    overview : tuple of (Link, tuple of Finding)
        Where none was named: the interfaces, at most `MOST_LISTED`, devices first, with their findings.
    """

    kernel: str
    interface: str | None
    interfaces: tuple[str, ...]
    findings: tuple[Finding, ...]
    overview: tuple[tuple[Link, tuple[Finding, ...]], ...] = ()

    @property
    def worst(self) -> Status:
        """The gravest status, that of interfaces which were not named left out."""
        return worst_of(self.findings)

    def changes(self, names: Sequence[str], say: Callable[[str], None]) -> tuple[list[Change], bool]:
        """Return what findings of these names propose to change, each once; `all` stands for every one.

        Parameters
        ----------
        names : sequence of str
        say : callable
            Takes a line about each that has nothing to change.

        Returns
        -------
        changes : list of Change
        complete : bool
            False where something that a name asks for cannot be done.

        Raises
        ------
        UsageError
            There is no such finding, or nothing that a program should change.
        """
        changeable = {finding.name: finding for finding in self.findings if finding.changes}
        known = {finding.name: finding for finding in self.findings}
        for name in names:
            if name != "all" and name not in known:
                offered = ", ".join(sorted(changeable)) or "nothing here"
                where = "" if self.interface else "; findings of an interface need -i"
                raise UsageError(f"there is no finding {name!r} to apply: what can be applied is {offered}{where}")
        wanted = dict.fromkeys(name for asked in names for name in (changeable if asked == "all" else [asked]))
        complete = True
        changes: list[Change] = []
        for name in wanted:
            finding = known[name]
            changes += finding.changes
            if finding.status is Status.OK:
                say(f"nothing to change: {name} is as it should be ({finding.evidence})")
            elif not finding.changes:
                complete = False
                say(f"not changed: {name} ({finding.evidence}) is not something that uspcap can change")
        return changes, complete

    def as_document(self) -> dict[str, Any]:
        """Return the form that `uspcap.doctor.1.schema.json` describes."""
        return {
            "schema": SCHEMA,
            "kernel": self.kernel,
            "interface": self.interface,
            "interfaces": list(self.interfaces),
            "findings": [_as_document(finding) for finding in self.findings],
            "overview": [
                {
                    "name": link.name,
                    "other_names": list(link.other_names),
                    "status": str(worst_of(findings)),
                    "findings": [_as_document(finding) for finding in findings],
                }
                for link, findings in self.overview
            ],
        }


def _as_document(finding: Finding) -> dict[str, Any]:
    return {
        "name": finding.name,
        "subject": finding.subject,
        "status": str(finding.status),
        "evidence": finding.evidence,
        "source": finding.source,
        "consequence": finding.consequence,
        "commands": list(finding.commands),
        "changes": [
            {"where": change.where, "what": change.what, "before": change.before, "after": change.after}
            for change in finding.changes
        ],
    }


def examine(interface: str | None, host: Host, driver: Driver, calls: KernelCalls) -> Examination:
    """Run every check on the host, and on an interface where one is named, else on all that there are.

    A check that fails leaves a finding that says so, and the others go on.

    Parameters
    ----------
    interface : str or None
        A name, or an alternative one.
    host : Host
    driver : Driver
    calls : KernelCalls

    Raises
    ------
    CaptureError
        There is no such interface, or the kernel does not tell about it.
    """
    findings = [finding for check in HOST_CHECKS for finding in check.findings(host, HOST)]
    links: list[Link] = []

    def look_up(host: Host) -> list[Finding]:
        links.extend(driver.links())
        return []

    findings += Check("interfaces", "rtnetlink", look_up).findings(host, HOST)
    names = tuple(link.name for link in links)
    if interface is None:
        overview = tuple(
            (link, tuple(nic_findings(link, host, driver, calls)))
            for link in sorted(links, key=lambda link: (not link.device, not link.up, link.index))[:MOST_LISTED]
        )
        return Examination(host.release, None, names, tuple(findings), overview)
    try:
        link = driver.link(interface)
    except DRIVER_ERRORS as error:
        raise CaptureError(f"the kernel reports nothing about interface {interface!r}: {error}") from error
    if link is None:
        raise CaptureError(f"there is no interface {interface!r}: name one of {', '.join(sorted(names))}")
    findings += nic_findings(link, host, driver, calls)
    return Examination(host.release, link.name, names, tuple(findings))


def nic_findings(link: Link, host: Host, driver: Driver, calls: KernelCalls) -> list[Finding]:
    """Run every check on an interface."""
    nic = Nic(link.name, link, driver, host.files, calls, host.processes, frozenset(os.sched_getaffinity(0)))
    return [finding for check in NIC_CHECKS for finding in check.findings(nic, link.name)]
