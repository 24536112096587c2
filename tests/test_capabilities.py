import sys
from pathlib import Path

import pytest

from uspcap import capabilities
from uspcap.capabilities import effective_capabilities, explain_missing


def status(*names: str) -> str:
    mask = sum(1 << capabilities.CAPABILITY_NUMBERS[name] for name in names)
    return f"Name:\tpython\nCapPrm:\tffffffffffffffff\nCapEff:\t{mask:016x}\nCapBnd:\tffffffffffffffff\n"


def test_effective_set_is_read_and_not_the_permitted_one() -> None:
    assert effective_capabilities(status("CAP_BPF", "CAP_NET_RAW")) == {"CAP_BPF", "CAP_NET_RAW"}
    assert effective_capabilities(status()) == frozenset()


def test_bit_numbers_are_the_kernels() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers to compare with")
    text = header.read_text()
    for name, number in capabilities.CAPABILITY_NUMBERS.items():
        assert any(line.split() == ["#define", name, str(number)] for line in text.splitlines()), name


def have(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(capabilities, "effective_capabilities", lambda: frozenset(names))


def test_missing_capabilities_are_named_with_the_command_that_grants_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, "CAP_NET_ADMIN")
    message = explain_missing(("CAP_BPF", "CAP_NET_ADMIN"))
    assert message.startswith("CAP_BPF is missing")
    assert f"setcap cap_net_admin,cap_net_raw,cap_bpf+ep {Path(sys.executable).resolve()}" in message


def test_sys_admin_stands_for_bpf(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, "CAP_SYS_ADMIN")
    assert explain_missing(("CAP_BPF", "CAP_NET_ADMIN")).startswith("CAP_NET_ADMIN is missing")


def test_refusal_in_spite_of_all_capabilities_is_put_down_to_something_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, "CAP_BPF", "CAP_NET_ADMIN")
    assert "lockdown" in explain_missing(("CAP_BPF", "CAP_NET_ADMIN"))
