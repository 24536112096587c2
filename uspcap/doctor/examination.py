"""One look at a host and an interface."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from typing import Any, Final

from uspcap.doctor.changes import Change
from uspcap.doctor.driver import Driver
from uspcap.doctor.findings import Finding, Status
from uspcap.doctor.host_checks import HOST_CHECKS, Host
from uspcap.doctor.host_files import HostFiles
from uspcap.doctor.nic_checks import NIC_CHECKS, Nic
from uspcap.errors import CaptureError, UsageError
from uspcap.timestamps.kernel_calls import KernelCalls

SCHEMA: Final = "uspcap.doctor/1"


@dataclass(frozen=True, slots=True)
class Examination:
    """What was found.

    Attributes
    ----------
    kernel : str
        Its release.
    interface : str or None
    interfaces : tuple of str
        Those that there are.
    findings : tuple of Finding
        Of the host first, in the order of their checks.
    """

    kernel: str
    interface: str | None
    interfaces: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def worst(self) -> Status:
        """The gravest status."""
        return max((finding.status for finding in self.findings), key=list(Status).index, default=Status.OK)

    def changes(self, names: tuple[str, ...]) -> list[Change]:
        """Return what findings of these names propose to change; `all` stands for every one.

        Raises
        ------
        UsageError
            There is no such finding, or nothing that a program should change.
        """
        changeable = {finding.name: finding for finding in self.findings if finding.changes}
        if "all" in names:
            return [change for finding in changeable.values() for change in finding.changes]
        for name in names:
            if name not in {finding.name for finding in self.findings}:
                known = ", ".join(sorted(changeable)) or "nothing here"
                raise UsageError(f"there is no finding {name!r} to apply: what can be applied is {known}")
        return [change for name in names if name in changeable for change in changeable[name].changes]

    def as_document(self) -> dict[str, Any]:
        """Return the form that `uspcap.doctor.1.schema.json` describes."""
        return {
            "schema": SCHEMA,
            "kernel": self.kernel,
            "interface": self.interface,
            "interfaces": list(self.interfaces),
            "findings": [
                {
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
                for finding in self.findings
            ],
        }


def examine(interface: str | None, files: HostFiles, driver: Driver, calls: KernelCalls) -> Examination:
    """Run every check on the host, and on an interface where one is named.

    Raises
    ------
    CaptureError
        There is no such interface.
    """
    processes = files.processes()
    release = platform.release()
    host = Host(release, files, processes=processes)
    findings = [check(host) for check in HOST_CHECKS]
    names = driver.names()
    if interface is not None:
        link = driver.link(interface)
        if link is None:
            raise CaptureError(f"there is no interface {interface!r}: name one of {', '.join(sorted(names))}")
        nic = Nic(interface, link, driver, files, calls, processes, frozenset(os.sched_getaffinity(0)))
        for check in NIC_CHECKS:
            found = check(nic)
            findings += found if isinstance(found, list) else [found]
    return Examination(release, interface, tuple(names), tuple(findings))
