"""What is reported of attempts: which step failed, why, and what fixes it."""

import dataclasses
import errno
from pathlib import Path

import pytest
from support.made_up_hosts import MadeUpAttempts, made_up_host

from uspcap.capabilities import Explanation
from uspcap.doctor import access_checks
from uspcap.doctor.attempts import Refused
from uspcap.doctor.findings import Status

CHECKS = {
    "packet_ring": access_checks.check_packet_ring,
    "bpf_maps": access_checks.check_bpf_map,
    "xdp_program": access_checks.check_xdp_program,
    "xdp_socket": access_checks.check_xdp_socket,
}
MIB = 1 << 20


@pytest.mark.parametrize("attempt", CHECKS)
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EPERM, "missing:"),
        (errno.EAFNOSUPPORT, "built without it"),
        (errno.ENOSYS, "no bpf system call"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOMEM, "no memory for it"),
        (errno.EXDEV, "dmesg"),
    ],
)
def test_step_that_fails_is_named_with_its_errno_and_what_mends_it(
    tmp_path: Path, attempt: str, number: int, said: str
) -> None:
    attempts = MadeUpAttempts({attempt: Refused("call(X)", number)})
    finding = CHECKS[attempt](made_up_host(tmp_path, {}, attempts=attempts))
    assert finding.status is Status.PROBLEM
    assert finding.evidence.startswith(f"call(X): {errno.errorcode[number]} (")
    assert said in finding.consequence
    assert bool(finding.commands) == (number == errno.EPERM)
    assert CHECKS[attempt](made_up_host(tmp_path, {})).status is Status.OK


def test_program_that_the_verifier_refuses_is_no_matter_of_capabilities(tmp_path: Path) -> None:
    refused = Refused("bpf(BPF_PROG_LOAD)", errno.EACCES, "the verifier says: R0 !read_ok")
    finding = access_checks.check_xdp_program(
        made_up_host(tmp_path, {}, attempts=MadeUpAttempts({"xdp_program": refused}))
    )
    assert "R0 !read_ok" in finding.evidence
    assert not finding.commands


def test_refusal_that_is_not_the_kernels_says_itself_what_to_do(tmp_path: Path) -> None:
    attempts = MadeUpAttempts({"bpf_maps": Refused("bpf(BPF_MAP_CREATE)", 0, "mount sysfs at /sys")})
    finding = access_checks.check_bpf_map(made_up_host(tmp_path, {}, attempts=attempts))
    assert finding.evidence == "bpf(BPF_MAP_CREATE): mount sysfs at /sys"
    assert finding.consequence == "af_xdp and 'compare -i' have no program at the hook."


def test_capabilities_of_a_user_namespace_are_not_taken_for_the_hosts(tmp_path: Path) -> None:
    finding = access_checks.check_capabilities(made_up_host(tmp_path, {}, in_user_namespace=True))
    assert finding.status is Status.ADVICE
    assert finding.evidence.endswith("of a user namespace, not of the host")


@pytest.mark.parametrize(
    ("held", "missing"),
    [
        ((), "CAP_BPF, CAP_NET_ADMIN and CAP_NET_RAW are missing"),
        (("CAP_NET_RAW", "CAP_NET_ADMIN"), "CAP_BPF is missing"),
        (("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"), ""),
    ],
)
def test_missing_capabilities_are_named_each(tmp_path: Path, held: tuple[str, ...], missing: str) -> None:
    finding = access_checks.check_capabilities(made_up_host(tmp_path, {}, capabilities=frozenset(held)))
    assert (finding.status is Status.OK) == (not missing)
    assert missing in finding.consequence
    assert bool(finding.commands) == bool(missing)


def test_capabilities_that_nothing_here_can_grant_come_with_what_to_do_instead(tmp_path: Path) -> None:
    host = made_up_host(tmp_path, {}, capabilities=frozenset())
    explained = Explanation("CAP_BPF is missing, and this container may never have it", "start it with --cap-add=BPF")
    host = dataclasses.replace(host, explain=lambda needed, further: explained)
    finding = access_checks.check_capabilities(host)
    assert finding.commands == ()
    assert finding.consequence.endswith("may never have it: start it with --cap-add=BPF.")


@pytest.mark.parametrize(
    ("limit", "granted", "status", "evidence"),
    [
        (-1, None, Status.OK, "65,536 KiB were locked; no limit"),
        (8 * MIB, None, Status.OK, "65,536 KiB were locked; a limit of 8,192 KiB"),  # CAP_IPC_LOCK
        (8 * MIB, 8 * MIB, Status.WARNING, "8,192 KiB were locked; a limit of 8,192 KiB; setsockopt(XDP_UMEM_REG)"),
        (64 << 10, 0, Status.PROBLEM, "nothing was locked; a limit of 64 KiB"),
    ],
)
def test_memory_is_locked_as_far_as_the_kernel_lets_it_be(
    tmp_path: Path, limit: int, granted: int | None, status: Status, evidence: str
) -> None:
    attempts = MadeUpAttempts(umem_limit_bytes=granted)
    finding = access_checks.check_locked_memory(
        made_up_host(tmp_path, {}, attempts=attempts, locked_memory_bytes=limit, capabilities=frozenset())
    )
    assert finding.status is status
    assert finding.evidence.startswith(evidence)
    if granted:
        assert "as -B 8192 does" in finding.consequence
        assert finding.commands == ("prlimit --pid $$ --memlock=unlimited", "grant it")


def test_only_what_the_limit_allows_is_awaited(tmp_path: Path) -> None:
    attempts = MadeUpAttempts(umem_limit_bytes=4 * MIB)
    access_checks.check_locked_memory(made_up_host(tmp_path, {}, attempts=attempts, locked_memory_bytes=8 * MIB))
    assert attempts.umem_asked_for == [
        (64 * MIB, False),
        (32 * MIB, False),
        (16 * MIB, False),
        (8 * MIB, True),
        (4 * MIB, True),
    ]


@pytest.mark.parametrize(("room", "largest"), [(0, MIB // 2), (30 * MIB, 8 * MIB), (1 << 40, 64 * MIB)])
def test_memory_that_others_would_lack_is_not_locked(tmp_path: Path, room: int, largest: int) -> None:
    attempts = MadeUpAttempts()
    finding = access_checks.check_locked_memory(made_up_host(tmp_path, {}, attempts=attempts, memory_room_bytes=room))
    assert [size for size, _ in attempts.umem_asked_for] == [largest]
    assert (finding.status is Status.OK) == (largest == 64 * MIB)
    assert (f"{room >> 20:,} MiB are free here" in finding.evidence) == (largest < 64 * MIB)


def test_memory_is_not_tried_without_a_socket(tmp_path: Path) -> None:
    attempts = MadeUpAttempts({"umem": Refused("socket(AF_XDP, SOCK_RAW)", errno.EPERM)})
    finding = access_checks.check_locked_memory(made_up_host(tmp_path, {}, attempts=attempts))
    assert (finding.status, finding.evidence) == (
        Status.UNKNOWN,
        "not tried: socket(AF_XDP, SOCK_RAW): EPERM (Operation not permitted)",
    )
    assert len(attempts.umem_asked_for) == 1
