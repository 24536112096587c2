"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support.capturing import run
from support.cramped_driver import cramped_driver
from support.kernel_bpf import kernel_bpf
from support.live_pairs import live_pair
from support.namespaces import _namespaces_possible, make_namespace
from support.shared_captures import CAPTURES, HAVE_CAPTURES, needs_captures
from support.veth_pairs import make_pair, pair

__all__ = [
    "_namespaces_possible",
    "cramped_driver",
    "kernel_bpf",
    "live_pair",
    "make_namespace",
    "make_pair",
    "pair",
    "run",
]

# What tests start must find the installed package, not the sources in the current directory, and the helpers.
os.environ["PYTHONSAFEPATH"] = "1"
os.environ["PYTHONPATH"] = str(Path(__file__).parent)

# A shell's background job is started with SIGINT ignored, and hands that on to what tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A deadline would judge a duration; a fixed seed makes a red run repeatable.
settings.register_profile("uspcap", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("uspcap")

TIERS = ("live", "oracle", "statistical", "thorough", "fuzz", "rig")
"""Marks of tests that are not `fast`."""

PRIVILEGED_FIXTURES = frozenset({"kernel_bpf", "live_pair", "make_namespace", "make_pair", "pair"})
"""What makes namespaces and interfaces, or loads programs into the kernel."""


IN_PROCESSES_OF_THEIR_OWN = frozenset(
    {"backends", "af_xdp", "packet_mmap", "replay", "pipeline", "sinks", "commands", "live", "probe", "tests"}
)
"""Directories whose tests mostly start uspcap, or wait for what a clock or a thread does."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as `fast` what needs no privilege, no other tool and little time: all that is of no other tier.

    With USPCAP_MOST_EXAMPLES=N, hypothesis tries N examples of each law at most: where each takes long. Tests on
    captures that are not there are left out, which the end of the run says once.
    """
    most = int(os.environ.get("USPCAP_MOST_EXAMPLES", "0"))
    for item in items:
        if most and hasattr(getattr(item, "obj", None), "hypothesis"):
            law = item.obj._hypothesis_internal_use_settings or settings()
            item.obj._hypothesis_internal_use_settings = settings(law, max_examples=min(most, law.max_examples))
        if item.path.parent.name in IN_PROCESSES_OF_THEIR_OWN:
            item.add_marker(pytest.mark.thorough)
        if PRIVILEGED_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.live)
        if not any(item.get_closest_marker(tier) for tier in TIERS):
            item.add_marker(pytest.mark.fast)
    if not HAVE_CAPTURES and not os.environ.get("USPCAP_FEW_SKIPS"):
        left_out = [item for item in items if needs_captures.mark in item.iter_markers()]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


LACKING_HERE = "this machine lacks"
"""How the reason of a skip starts where no package could help: a kernel feature or a device."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rig-results", type=Path, help="Write what the rig's guests reported to this file, for the page on drivers."
    )
    parser.addoption("--rig-ci", action="store_true", help="Of the rig's tests, run those that CI has the time for.")


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Summary(config), "uspcap-summary")


class _Summary:
    """What is said at the end of a run; USPCAP_RAN names a file that keeps the names of the tests that were run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ran: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._ran.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        path = os.environ.get("USPCAP_RAN")
        if path:
            with Path(path).open("a", encoding="utf-8") as file:
                file.writelines(f"{name}\n" for name in sorted(self._ran))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not HAVE_CAPTURES:
            terminalreporter.write_line(
                f"Tests on captures of others were left out: there is no {CAPTURES}/manifest.json. "
                "docs/shared-captures.md says what they are, and where each comes from."
            )
        if self._config.getoption("markexpr") == "fast":
            terminalreporter.write_line(
                f"These are the fast tests. The others, by name: pytest -m {', -m '.join(TIERS)}; all: pytest -m ''."
            )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With USPCAP_FEW_SKIPS set, fail what is skipped for want of a tool or a privilege that could be there."""
    report = yield
    if report.skipped and os.environ.get("USPCAP_FEW_SKIPS") and not hasattr(report, "wasxfail"):
        reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
        if LACKING_HERE not in reason:
            report.outcome = "failed"
            report.longrepr = f"skipped where every tool should be there: {reason}"
    return report
