"""The capture program on veth pairs in namespaces of the test's own."""

import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyroute2 import IPRoute
from support.bpf_samples import TCP_FRAME, UDP_FRAME, counted, returning
from support.veth_pairs import HERE, THERE, Pair, wait_until
from support.xsk import XskSocket

from uspcap.bpf import attach
from uspcap.bpf.attach import AttachMode, CaptureMaps, attach_capture, find_attached
from uspcap.bpf.builder import Builder
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.instructions import R1, R2, call, exit_insn, mov64_imm
from uspcap.bpf.kernel_types import XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE, XdpAction
from uspcap.bpf.syscalls import Link, LoadedProgram
from uspcap.bpf.xdp_program import METADATA_LENGTH, Counter, Metadata
from uspcap.errors import BpfError, FilterError, HookOccupied, PermissionDenied

pytestmark = pytest.mark.usefixtures("kernel_bpf")
BPF_FUNC_REDIRECT = 23  # linux/bpf.h
UDP_5000 = tuple(compile_filter("udp port 5000", 1))


@pytest.mark.parametrize("mode", list(AttachMode))
def test_matching_frames_reach_the_socket_and_others_the_kernel(pair: Pair, mode: AttachMode) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps:
        receiver = XskSocket(socket.if_nametoindex(HERE), 0, METADATA_LENGTH)
        maps.set_socket(0, receiver.fileno())
        with attach_capture(HERE, UDP_5000, maps, modes=[mode]) as attachment:
            assert attachment.mode is mode
            assert attachment.refusals == []
            assert attachment.attached
            matching = [UDP_FRAME[:-4] + bytes([0, 0, 0, number]) for number in range(8)]
            with pair.listening() as listener:
                before = time.clock_gettime_ns(time.CLOCK_TAI)
                pair.send(*[frame for one in matching for frame in (one, TCP_FRAME)])
                received = receiver.receive(8)
                after = time.clock_gettime_ns(time.CLOCK_TAI)
                passed = [listener.recv(2048) for _ in range(8)]
        receiver.close()
        assert [frame for _, frame in received] == matching
        assert passed == [TCP_FRAME] * 8
        timestamps = []
        for area, frame in received:
            metadata = Metadata.unpack(area)
            assert metadata is not None
            timestamps.append(metadata.hook_tai_ns)
            assert metadata[1:] == (0, len(frame), 0)
        assert timestamps == sorted(timestamps)
        assert before <= timestamps[0]
        assert timestamps[-1] <= after
        assert counted(maps) == {"SEEN": 16, "MATCHED": 8, "REDIRECTED": 8}


def test_device_bound_is_tried_first_and_skb_where_the_driver_has_no_hook(pair: Pair) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps:
        with attach_capture(HERE, UDP_5000, maps) as attachment:
            assert attachment.mode is AttachMode.DEVICE_BOUND
        with attach_capture("lo", UDP_5000, maps) as attachment:
            assert attachment.mode is AttachMode.SKB
            assert [refusal.mode for refusal in attachment.refusals] == [
                AttachMode.DEVICE_BOUND,
                AttachMode.NATIVE,
            ]
            assert "offers no frame metadata" in attachment.refusals[0].reason
            assert "no native XDP" in attachment.refusals[1].reason


def test_kernel_without_the_function_for_timestamps_falls_back_to_plain_native(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attach, "kernel_function_ids", lambda names: {})
    with pair.here.entered(), CaptureMaps(1) as maps, attach_capture(HERE, None, maps) as attachment:
        assert attachment.mode is AttachMode.NATIVE
        assert "Linux 6.3" in attachment.refusals[0].reason


def test_no_mode_to_be_had_gives_every_reason(pair: Pair) -> None:
    modes = [AttachMode.DEVICE_BOUND, AttachMode.NATIVE]
    message = r"interface lo in any mode .*bound to the device: .*; native: "
    with pair.here.entered(), CaptureMaps(1) as maps, pytest.raises(BpfError, match=message):
        attach_capture("lo", None, maps, modes=modes)


def test_unknown_interface_is_named(pair: Pair) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps, pytest.raises(BpfError, match="no interface nowhere0"):
        attach_capture("nowhere0", None, maps)


def test_closing_gives_the_interface_back(pair: Pair) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps:
        index = socket.if_nametoindex(HERE)
        attachment = attach_capture(HERE, None, maps)
        attached = find_attached(index)
        assert attached is not None
        assert attached.program_id == attachment.program_id
        assert attached.name in (attach.PROGRAM_NAME, "")
        attachment.close()
        attachment.close()
        assert not attachment.attached
        assert find_attached(index) is None


def test_failed_attachments_leave_no_descriptor_open(pair: Pair) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps:
        before = len(list(Path("/proc/self/fd").iterdir()))
        with attach_capture("lo", UDP_5000, maps), pytest.raises(HookOccupied):
            attach_capture("lo", UDP_5000, maps)
        with pytest.raises(FilterError):
            attach_capture(HERE, [(0x05, 0, 0, 0xFFFFFFFF), (0x06, 0, 0, 0)], maps)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    "flags",
    [XDP_FLAGS_SKB_MODE, XDP_FLAGS_DRV_MODE, None],
    ids=["skb link", "native link", "netlink, as ip(8) attaches"],
)
def test_hook_of_another_is_refused_by_name_and_left_alone(pair: Pair, flags: int | None) -> None:
    with (
        pair.here.entered(),
        CaptureMaps(1) as maps,
        LoadedProgram.load(returning(XdpAction.XDP_PASS), name="someone_else") as other,
    ):
        index = socket.if_nametoindex(HERE)
        identifier = other.info().id
        link = None
        if flags is not None:
            link = Link.attach_xdp(other, index, flags)
        else:
            with IPRoute() as netlink:
                netlink.link("set", index=index, xdp_fd=other.fd)
        try:
            named = find_attached(index)
            assert named is not None
            if not named.name:
                pytest.skip("only CAP_SYS_ADMIN may ask for the name of another's program")
            with pytest.raises(HookOccupied, match=f"id {identifier} named 'someone_else'") as caught:
                attach_capture(HERE, None, maps)
            assert caught.value.errno == errno.EBUSY
            still = find_attached(index)
            assert still is not None
            assert still.program_id == identifier
        finally:
            if link is not None:
                link.close()


def test_hook_taken_between_look_and_attachment_is_refused_by_name(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process attaches after the look: only the first look is made to miss it."""
    with (
        pair.here.entered(),
        CaptureMaps(1) as maps,
        LoadedProgram.load(returning(XdpAction.XDP_PASS), name="someone_else") as other,
        Link.attach_xdp(other, socket.if_nametoindex(HERE), XDP_FLAGS_DRV_MODE),
    ):
        looks = iter([None])
        monkeypatch.setattr(attach, "find_attached", lambda index: next(looks, find_attached(index)))
        with pytest.raises(HookOccupied, match=str(other.info().id)):
            attach_capture(HERE, None, maps)


OWNER = """
import sys, time
from uspcap.bpf.attach import CaptureMaps, attach_capture
maps = CaptureMaps(1)
attachment = attach_capture(sys.argv[1], None, maps)
print(attachment.program_id, flush=True)
time.sleep(60)
"""


def test_killed_owner_gives_the_interface_back(pair: Pair) -> None:
    with pair.here.entered():
        index = socket.if_nametoindex(HERE)
        owner = subprocess.Popen([sys.executable, "-c", OWNER, HERE], stdout=subprocess.PIPE, text=True)
        try:
            assert owner.stdout is not None
            identifier = int(owner.stdout.readline())
            attached = find_attached(index)
            assert attached is not None
            assert attached.program_id == identifier
            owner.send_signal(signal.SIGKILL)
            owner.wait(10)
            assert wait_until(lambda: find_attached(index) is None)
        finally:
            owner.kill()
            owner.wait()
            if owner.stdout is not None:
                owner.stdout.close()
        with pair.listening() as listener:
            pair.send(UDP_FRAME)
            assert listener.recv(2048) == UDP_FRAME


def test_capabilities_for_capture_suffice_to_attach_in_the_best_mode(pair: Pair) -> None:
    bounding = ["setpriv", "--bounding-set=-all,+bpf,+net_admin,+net_raw", "--inh-caps=-all"]
    script = (
        "import sys; from uspcap.bpf.attach import *; from uspcap.bpf.classic import compile_filter\n"
        "rows = compile_filter('tcp port 80 and len > 9', 1)\n"
        "with CaptureMaps(1) as maps, attach_capture(sys.argv[1], rows, maps) as attachment:\n"
        "    print(attachment.mode.name)"
    )
    try:
        subprocess.run([*bounding, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as reason:
        pytest.skip(f"capabilities cannot be dropped here: {reason}")
    with pair.here.entered():
        command = [*bounding, sys.executable, "-c", script, HERE]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "DEVICE_BOUND\n", done.stderr


def test_interface_that_goes_away_is_detected(pair: Pair) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps, attach_capture(HERE, None, maps) as attachment:
        pair.here.ip("link", "delete", HERE)
        assert wait_until(lambda: not attachment.attached)


def test_jumbo_frames_match_and_pass_where_there_is_no_socket(make_pair: Callable[..., Pair]) -> None:
    pair = make_pair(mtu=9000)
    frame = UDP_FRAME + bytes(range(256)) * 34
    rows = compile_filter(f"udp port 5000 and len = {len(frame)} and ether[8000] = {frame[8000]}", 1)
    with pair.here.entered(), CaptureMaps(1) as maps, attach_capture(HERE, rows, maps) as attachment:
        assert attachment.mode is AttachMode.DEVICE_BOUND
        with pair.listening() as listener:
            pair.send(frame)
            assert listener.recv(10000) == frame
        assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1}


def test_queues_are_counted_apart_and_those_beyond_together(make_pair: Callable[..., Pair]) -> None:
    """Without a qdisc, the CPU that a frame is sent on chooses the queue."""
    cpus = sorted(os.sched_getaffinity(0))
    pair = make_pair(queues=4)
    sent = [0, 0, 0]
    with pair.here.entered(), CaptureMaps(2) as maps, attach_capture(HERE, UDP_5000, maps):
        receiver = XskSocket(socket.if_nametoindex(HERE), 1, METADATA_LENGTH)
        maps.set_socket(1, receiver.fileno())
        for cpu in cpus:
            os.sched_setaffinity(0, [cpu])
            try:
                pair.send(*[UDP_FRAME] * (cpu + 3), bypass_queueing=True)
            finally:
                os.sched_setaffinity(0, cpus)
            sent[min(cpu % 4, 2)] += cpu + 3
        received = receiver.receive(sent[1])
        receiver.close()
        assert wait_until(lambda: counted(maps).get("SEEN") == sum(sent))
        assert [queue[Counter.SEEN] for queue in maps.read_counters()] == sent
        assert [queue[Counter.REDIRECTED] for queue in maps.read_counters()] == [0, sent[1], 0]
    assert [Metadata.unpack(area)[3] for area, _ in received] == [1] * sent[1]


def test_live_frames_arrive_one_and_all(pair: Pair) -> None:
    builder = Builder()
    with pair.there.entered():
        builder.add(mov64_imm(R1, socket.if_nametoindex(THERE)), mov64_imm(R2, 0), call(BPF_FUNC_REDIRECT))
    builder.add(exit_insn())
    with (
        pair.here.entered(),
        CaptureMaps(1) as maps,
        attach_capture(HERE, UDP_5000, maps),
        LoadedProgram.load(builder.build().link(), name="send") as sender,
    ):
        with pair.there.entered():
            sender.send_live_frames(UDP_FRAME, repeat=1000)
            sender.send_live_frames(TCP_FRAME, repeat=500, ifindex=socket.if_nametoindex(THERE))
        assert wait_until(lambda: counted(maps).get("SEEN") == 1500)
        assert counted(maps) == {"SEEN": 1500, "MATCHED": 1000, "NO_SOCKET": 1000}


def test_socket_can_be_taken_out_of_the_map_again(pair: Pair) -> None:
    with pair.here.entered(), CaptureMaps(1) as maps:
        receiver = XskSocket(socket.if_nametoindex(HERE), 0, METADATA_LENGTH)
        maps.set_socket(0, receiver.fileno())
        maps.remove_socket(0)
        with attach_capture(HERE, UDP_5000, maps), pair.listening() as listener:
            pair.send(UDP_FRAME)
            assert listener.recv(2048) == UDP_FRAME
        receiver.close()
        assert counted(maps) == {"SEEN": 1, "MATCHED": 1, "NO_SOCKET": 1}


def test_missing_capability_ends_the_attempts(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def refuse(*arguments: object, **options: object) -> LoadedProgram:
        tried.append(arguments)
        raise PermissionDenied("no", errno.EPERM)

    with pair.here.entered(), CaptureMaps(1) as maps:
        monkeypatch.setattr(LoadedProgram, "load", refuse)
        with pytest.raises(PermissionDenied):
            attach_capture(HERE, None, maps)
    assert len(tried) == 1


def test_maps_without_queues_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one receive queue"):
        CaptureMaps(0)
