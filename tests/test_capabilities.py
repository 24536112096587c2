"""Which capabilities are effective, and what is said where some are missing."""

import os
import resource
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.unprivileged import nobody_with

from uspcap import capabilities
from uspcap.capabilities import (
    CAPABILITY_NUMBERS,
    Explanation,
    af_xdp_needs,
    effective_capabilities,
    explain_missing,
    explain_refusal,
    listed,
)
from uspcap.granting import Situation

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")


def test_effective_capabilities_are_those_of_proc() -> None:
    status = Path("/proc/thread-self/status").read_text()
    (effective,) = (int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    assert effective_capabilities() == {name for name, bit in CAPABILITY_NUMBERS.items() if effective >> bit & 1}


@needs_root
@pytest.mark.parametrize("held", [(), ("CAP_BPF", "CAP_NET_RAW"), ("CAP_NET_ADMIN",)])
def test_effective_capabilities_are_reported_without_proc(held: tuple[str, ...]) -> None:
    script = "from uspcap.capabilities import effective_capabilities; print(*sorted(effective_capabilities()))"
    command = nobody_with(held, script)
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /proc && exec "$@"', "sh", *command]
    done = subprocess.run(hidden, capture_output=True, text=True, check=False)
    if "permission denied" in done.stderr.lower():
        pytest.skip(f"this machine lacks mounts of a test: {done.stderr.strip()}")
    assert done.stdout.split() == sorted(held), done.stderr


def test_bit_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers to compare with")
    text = header.read_text()
    for name, number in CAPABILITY_NUMBERS.items():
        assert any(line.split() == ["#define", name, str(number)] for line in text.splitlines()), name


def explained(
    monkeypatch: pytest.MonkeyPatch, held: str, needed: str, further: str = "", **situation: Any
) -> Explanation:
    there = Situation("alice", 1000, "/home/alice/venv/bin/uspcap", "/usr/bin/python3.11", **situation)
    monkeypatch.setattr(capabilities, "effective_capabilities", lambda: frozenset(held.split()))
    monkeypatch.setattr(capabilities.Situation, "here", lambda: there)
    return explain_refusal(needed.split(), further.split())


def test_each_missing_capability_is_named_with_the_command_that_grants_just_these(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    explanation = explained(monkeypatch, "CAP_NET_ADMIN", "CAP_BPF CAP_NET_ADMIN", "CAP_BPF CAP_NET_ADMIN CAP_NET_RAW")
    command = (
        "setpriv --reuid=alice --regid=1000 --init-groups --inh-caps=-all,+bpf,+net_admin,+net_raw "
        "--ambient-caps=-all,+bpf,+net_admin,+net_raw /home/alice/venv/bin/uspcap ..."
    )
    assert str(explanation) == (
        f"CAP_BPF and CAP_NET_RAW are missing: run as root, or let root start one run with just that: '{command}'"
    )
    assert explanation.commands[0] == command


def test_locking_of_memory_is_granted_with_the_others_where_the_limit_is_low(monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = explained(monkeypatch, "", "CAP_NET_RAW", "CAP_NET_RAW CAP_IPC_LOCK")
    assert explanation.reason == "CAP_NET_RAW is missing"
    assert "just that and CAP_IPC_LOCK, as the limit on locked memory is low: 'setpriv " in explanation.remedy
    assert all("ipc_lock" in command for command in (explanation.commands[0], explanation.commands[-1]))
    assert explained(monkeypatch, "", "CAP_IPC_LOCK").reason == "CAP_IPC_LOCK is missing"


@pytest.mark.parametrize("limit", [8 << 20, resource.RLIM_INFINITY])
def test_low_limit_on_locked_memory_makes_the_capability_needed(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))
    assert ("CAP_IPC_LOCK" in af_xdp_needs()) == (limit == 8 << 20)


@pytest.mark.parametrize("situation", [{}, {"own_interpreter": True, "file_capabilities_count": False}])
def test_shared_interpreter_is_never_given_capabilities(
    monkeypatch: pytest.MonkeyPatch, situation: dict[str, bool]
) -> None:
    explanation = explained(monkeypatch, "", "CAP_NET_RAW", **situation)
    assert "setcap" not in str(explanation)
    assert explanation.commands[1:] == (
        "python3 -m venv --copies /opt/uspcap",
        "/opt/uspcap/bin/python3 -m pip install uspcap",
        "chgrp 1000 /opt/uspcap/bin/python3",
        "chmod 0750 /opt/uspcap/bin/python3",
        "setcap cap_net_raw+ep /opt/uspcap/bin/python3",
    )
    assert not any("/usr/bin/python3" in command for command in explanation.commands)


def test_own_interpreter_is_given_them_together_with_those_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = explained(monkeypatch, "CAP_NET_RAW", "CAP_BPF", own_interpreter=True, everybody_runs_it=False)
    assert explanation.remedy.endswith("just that: 'setcap cap_bpf,cap_net_raw+ep /usr/bin/python3.11'")
    assert explanation.commands[1:] == ("setcap cap_bpf,cap_net_raw+ep /usr/bin/python3.11",)


def test_own_interpreter_that_everybody_runs_is_closed_first(monkeypatch: pytest.MonkeyPatch) -> None:
    explanation = explained(monkeypatch, "", "CAP_NET_RAW", own_interpreter=True)
    assert "setcap" not in str(explanation)
    assert explanation.commands[1:] == (
        "chgrp 1000 /usr/bin/python3.11",
        "chmod 0750 /usr/bin/python3.11",
        "setcap cap_net_raw+ep /usr/bin/python3.11",
    )


def test_capability_that_a_container_can_never_have_is_asked_for_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    said = str(explained(monkeypatch, "", "CAP_BPF CAP_NET_ADMIN", out_of_reach=frozenset({39})))
    assert said.startswith(
        "CAP_BPF and CAP_NET_ADMIN are missing, and this container or service may never have CAP_BPF: "
        "start it with --cap-add=BPF --cap-add=NET_ADMIN"
    )


def test_sys_admin_stands_for_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    assert explained(monkeypatch, "CAP_SYS_ADMIN", "CAP_BPF CAP_NET_ADMIN").reason == "CAP_NET_ADMIN is missing"


@pytest.mark.parametrize(
    ("situation", "said"),
    [({}, "lockdown"), ({"in_user_namespace": True}, "root of the host"), ({"under_seccomp": True}, "seccomp filter")],
)
def test_refusal_in_spite_of_all_capabilities_is_put_down_to_something_else(
    monkeypatch: pytest.MonkeyPatch, situation: dict[str, bool], said: str
) -> None:
    explanation = explained(monkeypatch, "CAP_BPF CAP_NET_ADMIN", "CAP_BPF CAP_NET_ADMIN", **situation)
    assert said in str(explanation)
    assert explanation.commands == ()


def test_explanation_for_this_process_is_one_sentence() -> None:
    said = explain_missing(["CAP_NET_RAW"])
    assert "CAP_NET_RAW" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("words", "sentence"), [((), ""), (("a",), "a"), (("a", "b"), "a and b"), (("a", "b", "c"), "a, b and c")]
)
def test_words_are_listed_as_in_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    assert listed(words) == sentence
