"""What the kernel grants is tried for real: with all privileges, with few, and with those of a user namespace."""

import gc
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.unprivileged import nobody_with

from uspcap.doctor.attempts import KernelAttempts

TRY_ALL = """
import json
from uspcap.doctor.attempts import KernelAttempts
attempts = KernelAttempts()
results = {name: getattr(attempts, name)() for name in ("packet_ring", "bpf_maps", "xdp_program", "xdp_socket")}
results["umem"] = attempts.umem(4 << 20, patient=False)
print(json.dumps({name: None if refused is None else str(refused) for name, refused in results.items()}))
"""
EPERM = "EPERM (Operation not permitted)"
SOCKET = f"socket(AF_PACKET, SOCK_RAW): {EPERM}"
MAP = f"bpf(BPF_MAP_CREATE): {EPERM}"
PROGRAM = f"bpf(BPF_PROG_LOAD, BPF_PROG_TYPE_XDP): {EPERM}"
XSK = f"socket(AF_XDP, SOCK_RAW): {EPERM}"

pytestmark = [
    pytest.mark.usefixtures("kernel_bpf"),
    pytest.mark.skipif(os.geteuid() != 0, reason="giving privileges up needs root"),
]


def tried(command: Sequence[str]) -> dict[str, str | None]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"this machine lacks user namespaces: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    results: dict[str, str | None] = json.loads(done.stdout)
    return results


def test_root_is_granted_everything_and_nothing_stays_behind() -> None:
    attempts = KernelAttempts()
    gc.collect()  # What earlier tests left behind is not to go in between.
    before = sorted(Path("/proc/self/fd").iterdir()), Path("/proc/self/maps").read_text().count("socket:")
    for attempt in (attempts.packet_ring, attempts.bpf_maps, attempts.xdp_program, attempts.xdp_socket):
        assert attempt() is None
    assert attempts.umem(64 << 20, patient=True) is None
    assert (sorted(Path("/proc/self/fd").iterdir()), Path("/proc/self/maps").read_text().count("socket:")) == before


@pytest.mark.parametrize(
    ("held", "refused"),
    [
        ((), {"packet_ring": SOCKET, "bpf_maps": MAP, "xdp_program": PROGRAM, "xdp_socket": XSK, "umem": XSK}),
        (("CAP_NET_RAW",), {"bpf_maps": MAP, "xdp_program": PROGRAM}),
        (("CAP_NET_RAW", "CAP_NET_ADMIN"), {"bpf_maps": MAP, "xdp_program": PROGRAM}),
        (("CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"), {}),
        (("CAP_NET_ADMIN", "CAP_BPF"), {"packet_ring": SOCKET, "xdp_socket": XSK, "umem": XSK}),
    ],
)
def test_each_step_needs_the_capabilities_that_it_is_said_to_need(
    held: tuple[str, ...], refused: dict[str, str]
) -> None:
    results = tried(nobody_with(held, TRY_ALL))
    assert {name: said for name, said in results.items() if said is not None} == refused


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        # The host's interfaces belong to the host's user namespace.
        ("-Ur", {"packet_ring": SOCKET, "bpf_maps": MAP, "xdp_program": PROGRAM, "xdp_socket": XSK, "umem": XSK}),
        ("-Urn", {"bpf_maps": MAP, "xdp_program": PROGRAM}),
    ],
)
def test_capabilities_of_a_user_namespace_are_seen_through(words: str, refused: dict[str, str]) -> None:
    results = tried(["unshare", words, sys.executable, "-c", TRY_ALL])
    assert {name: said for name, said in results.items() if said is not None} == refused


def test_limit_on_locked_memory_is_met_as_the_kernel_counts() -> None:
    script = (
        "import resource; resource.setrlimit(resource.RLIMIT_MEMLOCK, (2 << 20, 2 << 20))\n"
        "from uspcap.doctor.attempts import KernelAttempts\n"
        "attempts = KernelAttempts()\n"
        "print(attempts.umem(4 << 20, patient=False))\n"
        "print(attempts.umem(2 << 20, patient=False))\n"
        # The first is given back some time after it was closed.
        "print(attempts.umem(2 << 20, patient=True))\n"
    )
    done = subprocess.run(
        nobody_with(("CAP_NET_RAW",), script), capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.splitlines() == [
        "setsockopt(XDP_UMEM_REG) of 4096 KiB: ENOBUFS (No buffer space available)",
        "None",
        "None",
    ]


def test_process_without_descriptors_left_is_recognized_by_its_errno() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    attempts = KernelAttempts()
    attempts.bpf_maps()  # everything is imported
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        refused = [attempts.packet_ring(), attempts.bpf_maps(), attempts.xdp_socket()]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all("Too many open files" in str(step) for step in refused)
    assert "mount sysfs" not in str(refused[1])
