"""The rig's tests: collected here, run in guests, reported here.

On the host, a test marked `rig` is not run; its guest is booted with all tests that are for it, and what pytest reports
in there is taken over. In a guest, the same files are run as ever.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from rig.archive import ArchiveChanged, ArchiveUnreachable
from rig.assembly import Assembly, assemble
from rig.guests import GUESTS, Guest, machine_of
from rig.job import GUESTS_VARIABLE, SHARED, test_job
from rig.machine import GuestFailed, Machine
from rig.nics import Nics, nics

__all__ = ["nics"]

_INSIDE: Final = os.environ.get(GUESTS_VARIABLE, "").split(",")
"""Names of the guests that this machine is; one empty name on the host."""
_REPORTS: Final = "reports"
_POLL_S: Final = 0.2


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test once for each guest that its marker names."""
    mark = metafunc.definition.get_closest_marker("rig")
    if mark is not None:
        metafunc.parametrize("guest", mark.args, indirect=True, ids=mark.args, scope="session")


@pytest.fixture(scope="session")
def guest(request: pytest.FixtureRequest) -> Guest:
    """The guest that the test runs in."""
    return GUESTS[request.param]


@pytest.fixture(autouse=True)
def _in_its_guest(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("rig") is not None:
        name = request.getfixturevalue("guest").name
        assert name in _INSIDE, f"this test runs in the guest {name} only"


def pytest_configure(config: pytest.Config) -> None:
    if _INSIDE == [""]:
        config.pluginmanager.register(_Host(config), "uspcap-rig-host")
    else:
        config.pluginmanager.register(_Inside(config), "uspcap-rig-inside")


def _guest_of(item: pytest.Item) -> str | None:
    callspec = getattr(item, "callspec", None)
    if item.get_closest_marker("rig") is None or callspec is None:
        return None
    return str(callspec.params["guest"])


def _is_for_ci(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("rig")
    return mark is not None and _guest_of(item) in mark.kwargs.get("ci", ())


def _machine_of(item: pytest.Item) -> str | None:
    name = _guest_of(item)
    return None if name is None else machine_of(name)


class _Inside:
    """In a guest: runs what is for this guest, and hands over each report as it is made."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._file = (SHARED / _REPORTS).open("a", encoding="utf-8")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if _guest_of(item) in _INSIDE]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._file.write(json.dumps(data) + "\n")
        self._file.flush()


class _Run:
    """One machine with all tests that are for its guests, as far as it has got."""

    def __init__(self, config: pytest.Config, assembly: Assembly, guests: list[Guest], node_ids: list[str]) -> None:
        self._config = config
        self._began_s = time.monotonic()
        self.machine = Machine(assembly, guests, lambda shared: test_job(guests, node_ids, assembly.host_tools, shared))
        self._file = self.machine.results / _REPORTS
        self._file.touch()
        self._read = 0
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self.failure = ""

    def reports_of(self, node_id: str) -> list[pytest.TestReport]:
        """Wait until a test is over, and return its reports."""
        while not self._over(node_id):
            try:
                running = self.machine.look()
            except GuestFailed as error:
                self.failure = str(error)
                break
            if not running:
                self._take()
                if not self._over(node_id):
                    self.failure = f"the guest ended before this test did\n{self.machine.console_end()}"
                break
            if not self._take():
                time.sleep(_POLL_S)
        return self._reports.pop(node_id, [])

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began_s

    def _over(self, node_id: str) -> bool:
        return any(report.when == "teardown" for report in self._reports.get(node_id, ()))

    def _take(self) -> bool:
        """Take over what was reported since; False where nothing was."""
        with self._file.open(encoding="utf-8") as file:
            file.seek(self._read)
            lines = [line for line in file.readlines() if line.endswith("\n")]
        self._read += sum(len(line.encode()) for line in lines)
        for line in lines:
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=json.loads(line))
            self._reports.setdefault(report.nodeid, []).append(report)
        if lines:
            self.machine.gets_on()
        return bool(lines)

    def close(self) -> None:
        self.machine.close()


class _Host:
    """Here: boots guests one after the other, and reports what they report."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._assembly: Assembly | None = None
        self._why_not: tuple[str, str] | None = None
        self._run: _Run | None = None
        self._of = ""
        self._facts: list[dict[str, Any]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put the tests of each guest together, behind all others."""
        if self._config.getoption("rig_ci"):
            left_out = [item for item in items if _guest_of(item) is not None and not _is_for_ci(item)]
            items[:] = [item for item in items if item not in left_out]
            self._config.hook.pytest_deselected(items=left_out)
        order = {None: -1, **{name: number for number, name in enumerate(GUESTS)}}
        items.sort(key=lambda item: order[_guest_of(item)])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        name = _guest_of(item)
        if name is None:
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in self._reports_of(item, name):
            self._note(name, report)
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self) -> None:
        self._end_machine()
        path = self._config.getoption("rig_results")
        if path is not None and self._facts:
            release = "" if self._assembly is None else self._assembly.release
            said = {"date": datetime.now(UTC).date().isoformat(), "kernel": release, "tests": self._facts}
            path.write_text(json.dumps(said, indent=1) + "\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        times = {}
        for fact in self._facts:
            times[fact["machine"]] = fact["machine_s"]
        if times:
            said = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items())
            terminalreporter.write_line(f"rig: kernel {self._assembly.release if self._assembly else '?'}; {said}")

    def _reports_of(self, item: pytest.Item, name: str) -> Iterator[pytest.TestReport]:
        if self._assembly is None and self._why_not is None:
            try:
                self._assembly = assemble()
            except ArchiveUnreachable as error:
                self._why_not = ("skipped", f"this machine lacks a way to Debian's archive: {error}")
            except (ArchiveChanged, RuntimeError) as error:
                self._why_not = ("failed", str(error))
        if self._why_not is not None:
            yield _made_up(item, *self._why_not)
            return
        assert self._assembly is not None
        if self._of != machine_of(name):
            self._end_machine()
            self._of = machine_of(name)
            own = [other for other in item.session.items if self._of == _machine_of(other)]
            guests = [GUESTS[one] for one in dict.fromkeys(map(_guest_of, own)) if one is not None]
            self._run = _Run(self._config, self._assembly, guests, [other.nodeid for other in own])
        assert self._run is not None
        if not self._run.failure:
            yield from self._run.reports_of(item.nodeid)
        if self._run.failure:
            yield _made_up(item, "failed", self._run.failure)

    def _note(self, guest: str, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            fact = {
                "machine": machine_of(guest),
                "machine_s": 0.0 if self._run is None else round(self._run.seconds, 1),
                "guest": guest,
                "test": report.nodeid.rpartition("/")[2],
                "outcome": report.outcome,
                "seconds": round(report.duration, 1),
            }
            self._facts.append(fact | dict(report.user_properties))

    def _end_machine(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None


def _made_up(item: pytest.Item, outcome: Any, said: str) -> pytest.TestReport:
    path, line, _ = item.location
    longrepr = (path, line or 0, f"Skipped: {said}") if outcome == "skipped" else said
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome=outcome,
        longrepr=longrepr,  # type: ignore[arg-type]
        when="call",
    )


__all__ += ["Nics"]
