"""Every refusal of the kernel is one sentence that names the interface, the cause and what to do next."""

import errno
import re
import resource
import subprocess
import sys
from collections.abc import Callable

import pytest
from support.unprivileged import nobody_with
from support.veth_pairs import HERE, THERE, Pair

from uspcap.backends.af_xdp.source import AfXdpSource
from uspcap.backends.packet_mmap.source import PacketMmapSource
from uspcap.backends.refusals import (
    cannot_bind_to_queue,
    cannot_have_packet_ring,
    cannot_open_socket,
    cannot_register_memory,
    cannot_set_up_packet_socket,
    is_final,
    locked_memory_limit,
)
from uspcap.bpf.attach import AttachMode
from uspcap.errors import BpfError, CaptureError, MissingFeature, PermissionDenied, UspcapError

NUMBERS = sorted(errno.errorcode)
Refusal = Callable[[int], UspcapError]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: errno.errorcode[number])
@pytest.mark.parametrize(
    "refusal",
    [
        lambda number: cannot_open_socket(number, "an AF_XDP socket", "eth7"),
        lambda number: cannot_register_memory(number, 1 << 20, 3, "eth7"),
        lambda number: cannot_bind_to_queue(number, 3, "eth7"),
        lambda number: cannot_have_packet_ring(number, 1 << 20, "eth7"),
        lambda number: cannot_set_up_packet_socket(number, "eth7"),
    ],
    ids=["socket", "memory", "bind", "packet ring", "packet socket"],
)
def test_whatever_the_error_number_it_is_one_sentence_with_a_next_step(refusal: Refusal, number: int) -> None:
    error = refusal(number)
    said = str(error)
    assert isinstance(error, (CaptureError, MissingFeature, PermissionDenied))
    assert "eth7" in said
    assert "\n" not in said
    cause, _, advice = said.replace(": ", "; ").rpartition("; ")
    assert cause
    assert re.search(r"use|ask|raise|allow|free|see|end|run|grant|ip link|gone", advice), said


def test_errors_that_mean_one_thing_are_said_in_words() -> None:
    said = str(cannot_bind_to_queue(errno.ENETDOWN, 1, "eth7"))
    assert said == "eth7 is down, and AF_XDP binds only where it is up: 'ip link set eth7 up'"
    assert "ulimit -n" in str(cannot_open_socket(errno.EMFILE, "a packet socket", "eth7"))
    assert "fs.file-max" in str(cannot_open_socket(errno.ENFILE, "a packet socket", "eth7"))
    assert "CAP_NET_RAW" in str(cannot_open_socket(errno.EPERM, "a packet socket", "eth7"))
    assert "has none" in str(cannot_open_socket(errno.EAFNOSUPPORT, "an AF_XDP socket", "eth7"))
    assert "has no memory for it" in str(cannot_have_packet_ring(errno.ENOMEM, 1 << 20, "eth7"))


def test_drivers_refuse_zero_copy_for_reasons_of_their_own_and_copying_is_tried() -> None:
    for number in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP, errno.EIO, errno.ENOSPC, errno.E2BIG, 524):
        assert not is_final(number, zero_copy=True)
    for number in (errno.EBUSY, errno.ENETDOWN, errno.ENODEV, errno.ENOMEM, errno.EPERM):
        assert is_final(number, zero_copy=True)
        assert is_final(number, zero_copy=False)
    assert not is_final(errno.EINVAL, zero_copy=False)


def test_limit_on_locked_memory_binds_only_those_without_the_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "uspcap.backends.refusals.effective_capabilities"
    monkeypatch.setattr(name, lambda: frozenset({"CAP_IPC_LOCK"}))
    assert locked_memory_limit() is None
    # That of a user namespace does not count.
    monkeypatch.setattr("uspcap.backends.refusals.in_user_namespace", lambda: True)
    assert locked_memory_limit() is not None
    monkeypatch.setattr(name, frozenset)
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert locked_memory_limit() == (None if soft == resource.RLIM_INFINITY else soft)


@pytest.mark.usefixtures("kernel_bpf")
def test_veth_with_too_few_receive_queues_is_reported_with_the_command_that_fixes_it(pair: Pair) -> None:
    here, there = pair.here, pair.there
    here.ip("link", "delete", HERE)
    end = ("type", "veth", "peer", "name", THERE, "numtxqueues", "4", "numrxqueues", "1")
    here.ip("link", "add", HERE, "numrxqueues", "2", "numtxqueues", "1", *end)
    needed = (
        "here0 receives on 2 and its other end there0 sends on 4 queues, of which XDP on a veth needs as many: "
        "'ethtool -L there0 tx 2' (No space left on device); the kernel says: "
    )
    with here.entered():
        with pytest.raises(BpfError) as caught:
            AfXdpSource(HERE, modes=[AttachMode.NATIVE])
        assert f"cannot attach to interface here0 in any mode (native: {needed}" in str(caught.value)
        assert "veth: XDP expects number of rx queues not less than peer tx queues" in str(caught.value)
        with AfXdpSource(HERE) as source:
            assert f"native XDP was refused: {needed}" in str(source.describe())
            assert source.describe().mode.startswith("skb XDP")
        pair.here.set_queues(THERE, tx=2)
        AfXdpSource(HERE, modes=[AttachMode.NATIVE]).close()
        # Where more receive queues can be had, these are proposed.
        here.ip("link", "delete", HERE)
        here.ip("link", "add", HERE, "numrxqueues", "4", "numtxqueues", "1", *end)
        pair.here.set_queues(HERE, rx=1)
        with pytest.raises(BpfError, match=r"needs as many: 'ethtool -L here0 rx 4' \(No space"):
            AfXdpSource(HERE, modes=[AttachMode.NATIVE])
        here.ip("link", "set", THERE, "netns", there.name)
        with pytest.raises(BpfError, match=r"its other end sends on more queues, .*: 'ethtool -L here0 rx 4' \(No sp"):
            AfXdpSource(HERE, modes=[AttachMode.NATIVE])
        # What was offered a second time, for the kernel's words, is not left there.
        assert "xdp" not in here.ip("link", "show", HERE)


SCRIPT = """
import resource, sys
import uspcap.backends.network_interface as network_interface
from uspcap.backends.af_xdp.source import AfXdpSource
from uspcap.errors import UspcapError

if sys.argv[3] == "undeclared":
    # As with a kernel that does not report what drivers declare: zero copy is tried, and refused two times.
    network_interface.xdp_features = lambda index: None
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
try:
    for _ in range(4):
        with AfXdpSource("here0", buffer_bytes=int(sys.argv[2])) as source:
            print(source.describe().mode)
except UspcapError as error:
    print(error)
"""


@pytest.mark.usefixtures("kernel_bpf")
@pytest.mark.parametrize("declared", ["declared", "undeclared"])
def test_documented_buffer_fits_into_the_usual_limit_again_and_again(pair: Pair, declared: str) -> None:
    # Of nobody's processes: root's would lock memory for others' tests, too.
    command = nobody_with(["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"], SCRIPT, str(8 << 20), str(4 << 20), declared)
    done = subprocess.run(pair.here.command(*command), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == 4, lines
    assert all("4096 KiB" in line for line in lines)


@pytest.mark.usefixtures("kernel_bpf")
def test_more_than_the_limit_is_reported_with_the_limit(pair: Pair) -> None:
    command = nobody_with(["CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"], SCRIPT, str(8 << 20), str(16 << 20), "declared")
    done = subprocess.run(pair.here.command(*command), capture_output=True, text=True, check=False)
    assert done.stdout.startswith(
        "cannot lock 16384 KiB of memory for queue 0 of here0: the limit of 8192 KiB on locked memory is too low for "
        "what this user's processes lock together; ask for a smaller buffer with -B, raise it with 'ulimit -l', or "
        "lock without a limit, for which CAP_IPC_LOCK is missing: run as root, or let root start one run with just "
        "that: 'setpriv "
    )
    (line,) = done.stdout.splitlines()
    assert "+bpf,+ipc_lock,+net_admin,+net_raw" in line


@pytest.mark.usefixtures("kernel_bpf")
def test_zero_copy_that_a_driver_does_not_declare_is_not_tried(pair: Pair) -> None:
    with pair.here.entered(), AfXdpSource(HERE) as source:
        assert source.describe().mode.startswith("native XDP, copy")
        assert "no zero copy: the driver declares none" in source.describe().remarks


@pytest.mark.parametrize("backend", [PacketMmapSource, AfXdpSource])
def test_too_few_files_that_may_be_open_are_no_missing_feature(
    pair: Pair, backend: type[PacketMmapSource] | type[AfXdpSource]
) -> None:
    script = (
        "import errno, resource, sys\n"
        f"from {backend.__module__} import {backend.__name__} as Source\n"
        "from uspcap.errors import UspcapError\n"
        "Source('here0').close()\n"
        "said = set()\n"
        "for limit in range(64, 2, -1):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, 64))\n"
        "    try:\n"
        "        Source('here0').close()\n"
        "    except UspcapError as error:\n"
        "        said.add(str(error))\n"
        "    except OSError as error:\n"
        "        assert error.errno == errno.EMFILE, error\n"
        "print(*sorted(said), sep='\\n')\n"
    )
    done = subprocess.run(pair.here.command(sys.executable, "-c", script), capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines
    for line in lines:
        assert "ulimit -n" in line, lines
