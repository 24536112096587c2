"""AF_XDP on veth pairs in namespaces of the test's own; veth has neither zero copy nor hardware timestamps."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from support.bpf_samples import TCP_FRAME
from support.cramped_driver import cramped
from support.namespaces import Namespace
from support.nic_kernel import ALL, NONE, NicKernel
from support.traffic import LENGTHS, in_order, numbered_frame, receive, tagged
from support.veth_pairs import HERE, MakePair, Pair
from support.xsk import XskSocket

from uspcap.backends.af_xdp.source import AfXdpSource
from uspcap.backends.declaration import Request
from uspcap.backends.opening import open_source
from uspcap.backends.packet_mmap.source import PacketMmapSource
from uspcap.bpf.attach import AttachMode, find_attached
from uspcap.bpf.kernel_types import BPF_F_XDP_HAS_FRAGS
from uspcap.bpf.syscalls import LoadedProgram
from uspcap.bpf.xdp_program import build_capture_program
from uspcap.errors import BpfError, CaptureError, FilterError, HookOccupied, UsageError
from uspcap.frames import TimestampSource

pytestmark = pytest.mark.usefixtures("kernel_bpf")
MODES = [AttachMode.NATIVE, AttachMode.SKB]


def attached(namespace: Namespace) -> bool:
    with namespace.entered():
        return find_attached(socket.if_nametoindex(HERE)) is not None


@contextmanager
def seen_by_the_kernel(pair: Pair) -> Iterator[list[bytes]]:
    """Collect, until the end, what comes to an ordinary packet socket."""
    seen: list[bytes] = []
    with pair.listening() as listener:
        yield seen
        listener.settimeout(0.2)
        while True:
            try:
                seen.append(listener.recv(10000))
            except TimeoutError:
                return


@pytest.mark.parametrize("mode", MODES)
def test_every_frame_arrives_whole_in_order_and_timestamped_within_the_sending(
    make_pair: MakePair, mode: AttachMode
) -> None:
    pair = make_pair(mtu=9100)
    frames = [numbered_frame(number, length) for number, length in enumerate(LENGTHS * 4)]
    with pair.here.entered(), AfXdpSource(HERE, modes=[mode]) as source:
        said = str(source.describe())
        before = time.time_ns()
        pair.send(*frames)
        after = time.time_ns()
        received, statistics = receive(source, len(frames))
    assert f"here0: af_xdp, {mode.value} XDP, copy" in said
    assert "1 of 1 receive queues; timestamps: XDP hook" in said
    assert received.frames == frames
    assert received.lengths == [len(frame) for frame in frames]
    assert received.timestamps == sorted(received.timestamps)
    assert before <= received.timestamps[0]
    assert received.timestamps[-1] <= after
    assert set(received.sources) == {TimestampSource.XDP}
    assert (statistics.received, statistics.delivered, statistics.dropped) == (len(frames), len(frames), {})
    assert statistics.unaccounted == 0
    assert not attached(pair.here)


@pytest.mark.parametrize("mode", MODES)
def test_matching_frames_are_taken_and_the_others_reach_the_kernel(pair: Pair, mode: AttachMode) -> None:
    matching = [numbered_frame(number) for number in range(5)]
    with pair.here.entered(), seen_by_the_kernel(pair) as seen:
        with AfXdpSource(HERE, "udp port 5000", modes=[mode]) as source:
            pair.send(*[frame for one in matching for frame in (one, TCP_FRAME)])
            received, statistics = receive(source, 5)
        pair.send(matching[0])
    assert received.frames == matching
    assert statistics.received == 5
    # After the capture, the kernel gets everything again.
    assert seen == [TCP_FRAME] * 5 + matching[:1]


@pytest.mark.parametrize("mode", MODES)
def test_vlan_tags_are_in_the_frames(pair: Pair, mode: AttachMode) -> None:
    frames = [tagged(numbered_frame(number), 100 + number) for number in range(4)]
    with pair.here.entered(), AfXdpSource(HERE, "vlan", modes=[mode]) as source:
        pair.send(*frames, numbered_frame(9))
        received, _ = receive(source, 4)
    assert received.frames == frames


def test_every_receive_queue_has_its_socket(make_pair: MakePair) -> None:
    pair = make_pair(queues=4)
    # veth chooses the queue by the sender's; many flows reach several of them.
    frames = [numbered_frame(number) for number in range(400)]
    frames = [frame[:34] + (number % 50).to_bytes(2, "big") + frame[36:] for number, frame in enumerate(frames)]
    with pair.here.entered(), AfXdpSource(HERE) as source:
        assert "4 of 4 receive queues" in str(source.describe())
        pair.send(*frames)
        received, statistics = receive(source, len(frames))
    assert sorted(received.frames) == sorted(frames)
    assert set(received.queues) <= {0, 1, 2, 3}
    for queue in set(received.queues):
        rows = [row for row, one in enumerate(received.queues) if one == queue]
        numbers = list(in_order(received.frames[row] for row in rows))
        timestamps = [received.timestamps[row] for row in rows]
        assert numbers == sorted(numbers)
        assert timestamps == sorted(timestamps)
    assert statistics.unaccounted == 0


def test_memory_is_enough_for_the_nics_rings_unless_its_size_is_given(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = make_pair(queues=4)
    with pair.here.entered():
        with AfXdpSource(HERE) as source:
            assert "65536 KiB" in str(source.describe())
        monkeypatch.setattr("uspcap.backends.network_interface._ring_frames", lambda name: 8191)
        with AfXdpSource(HERE) as source:
            said = str(source.describe())
            assert "131072 KiB" in said
            assert "NIC's rings" not in said
        with AfXdpSource(HERE, buffer_bytes=64 << 20) as source:
            said = str(source.describe())
            assert "65536 KiB" in said
            assert "the NIC's rings hold 8191 frames each, and 8192 chunks a queue may be too few" in said


def test_snaplen_cuts_and_the_wire_length_stays(make_pair: MakePair) -> None:
    pair = make_pair(mtu=9100)
    with pair.here.entered(), AfXdpSource(HERE, snaplen=2000) as source:
        pair.send(numbered_frame(1, 60), numbered_frame(2, 9000))
        received, _ = receive(source, 2)
    assert received.frames == [numbered_frame(1, 60), numbered_frame(2, 9000)[:2000]]
    assert received.lengths == [60, 9000]


def test_slow_reader_loses_frames_and_every_one_is_accounted_for(pair: Pair) -> None:
    frames = [numbered_frame(number) for number in range(1000)]
    with pair.here.entered(), AfXdpSource(HERE, buffer_bytes=1) as source:
        assert "512 KiB" in source.describe().mode
        pair.send(*frames)
        assert source.statistics().waiting > 0
        received, statistics = receive(source, 1000, patience=4)
        after_closing = source
    assert 0 < len(received.frames) < 1000
    assert received.frames == frames[: len(received.frames)]
    assert statistics.received == 1000
    assert statistics.dropped_total == 1000 - len(received.frames)
    assert (statistics.unaccounted, statistics.waiting) == (0, 0)
    assert after_closing.statistics() == statistics


def test_ring_goes_round_many_times_without_loss(pair: Pair) -> None:
    received = 0
    with pair.here.entered(), AfXdpSource(HERE, buffer_bytes=1) as source:
        batches = source.batches(0.05)
        for lap in range(30):
            frames = [numbered_frame(100 * lap + number) for number in range(100)]
            pair.send(*frames)
            got = []
            for _ in range(100):
                batch = next(batches)
                if batch is not None:
                    got += [batch.frame_bytes(row) for row in range(batch.count)]
                if len(got) >= 100:
                    break
            assert got == frames
            received += len(got)
        source.stop()
        assert list(batches) == []
        assert source.statistics().received == received == 3000


def test_interface_in_use_is_not_taken_without_a_filter(pair: Pair) -> None:
    pair.here.ip("address", "add", "10.9.0.1/24", "dev", HERE)
    pair.here.ip("route", "add", "default", "via", "10.9.0.2")
    with pair.here.entered():
        with pytest.raises(UsageError, match=r"has the address 10\.9\.0\.1/24 and carries the default route: give a"):
            AfXdpSource(HERE)
        assert not attached(pair.here)
        AfXdpSource(HERE, "udp port 5000").close()
        with AfXdpSource(HERE, take_all=True) as source:
            assert "every frame of here0 is taken from the kernel" in str(source.describe())


def test_loopback_works_in_skb_mode(pair: Pair) -> None:
    with pair.here.entered(), AfXdpSource("lo", "udp port 5000") as source:
        said = source.describe()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(3):
                sender.sendto(bytes([number] * 4), ("127.0.0.1", 5000))
        received, _ = receive(source, 3)
    assert said.mode.startswith("skb XDP, copy")
    assert any("native XDP was refused: the driver has no native XDP" in one for one in said.remarks)
    assert [frame[-1] for frame in received.frames] == [0, 1, 2]


def test_anothers_program_is_not_replaced(pair: Pair) -> None:
    with (
        pair.here.entered(),
        AfXdpSource(HERE, "udp"),
        pytest.raises((HookOccupied, CaptureError), match=r"uspcap_capture|belongs to another"),
    ):
        AfXdpSource(HERE, "tcp")


def test_queue_of_another_socket_is_named(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uspcap.backends.af_xdp.xsk_socket.BUSY_RETRIES", 2)
    with pair.here.entered():
        owner = XskSocket(socket.if_nametoindex(HERE), 0, 0)
        try:
            with pytest.raises(CaptureError, match="queue 0 of here0 belongs to another AF_XDP socket"):
                AfXdpSource(HERE)
        finally:
            owner.close()
        assert not attached(pair.here)


def test_capture_can_start_again_at_once(pair: Pair) -> None:
    with pair.here.entered():
        for number in range(4):
            with AfXdpSource(HERE) as source:
                pair.send(numbered_frame(number))
                received, _ = receive(source, 1)
            assert received.frames == [numbered_frame(number)]


def test_promiscuous_mode_lasts_as_long_as_the_capture(pair: Pair) -> None:
    with pair.here.entered():
        with AfXdpSource(HERE):
            assert "promiscuity 1" in pair.here.ip("-d", "link", "show", HERE)
        with AfXdpSource(HERE, promiscuous=False):
            assert "promiscuity 0" in pair.here.ip("-d", "link", "show", HERE)
        assert "promiscuity 0" in pair.here.ip("-d", "link", "show", HERE)


def test_interface_that_is_down_or_goes_down_is_captured_on_when_it_is_up(pair: Pair) -> None:
    pair.here.ip("link", "set", HERE, "down")
    with pair.here.entered(), AfXdpSource(HERE) as source:
        assert "here0 is down: no frames until it is up" in str(source.describe())
        batches = source.batches(0.02)
        for lap in range(2):
            pair.here.ip("link", "set", HERE, "up")
            frame = numbered_frame(lap)
            for _ in range(200):
                pair.send(frame)
                batch = next(batches)
                if batch is not None:
                    assert batch.frame_bytes(0) == frame
                    break
            else:
                pytest.fail("no frame came after the interface was up")
            while next(batches) is not None:
                pass
            pair.here.ip("link", "set", HERE, "down")
            assert next(batches) is None


def test_interface_that_goes_away_ends_the_capture_with_what_it_gave(pair: Pair) -> None:
    with pair.here.entered(), AfXdpSource(HERE) as source:
        pair.send(numbered_frame(1))
        pair.here.ip("link", "delete", HERE)
        received = []
        with pytest.raises(CaptureError, match="interface here0 is gone"):
            for batch in source.batches(0.02):
                if batch is not None:
                    received += [batch.frame_bytes(row) for row in range(batch.count)]
        assert received == [numbered_frame(1)]
        assert source.statistics().unaccounted == 0


def test_driver_without_room_before_frames_still_gives_the_hooks_timestamps(
    pair: Pair, cramped_driver: Callable[..., None]
) -> None:
    cramped_driver(head=True)
    frames = [numbered_frame(number) + bytes(length) for number, length in enumerate((0, 200, 1400))]
    with pair.here.entered(), AfXdpSource(HERE, timestamps="xdp") as source:
        before = time.time_ns()
        for frame in frames:
            pair.send(frame)
        received, _ = receive(source, len(frames))
        after = time.time_ns()
        source.stop()
        assert source.statistics().unaccounted == 0
    assert received.frames == frames
    assert received.sources == [TimestampSource.XDP] * len(frames)
    assert before <= received.timestamps[0] <= received.timestamps[-1] <= after


def test_frames_on_which_the_hook_cannot_write_are_captured_and_say_who_timestamped_them(
    pair: Pair, cramped_driver: Callable[..., None]
) -> None:
    cramped_driver(head=False)
    with pair.here.entered(), AfXdpSource(HERE) as source:
        before = time.time_ns()
        pair.send(numbered_frame(1))
        received, _ = receive(source, 1)
        after = time.time_ns()
        source.stop()
        statistics = source.statistics()
    assert received.frames == [numbered_frame(1)]
    assert received.sources == [TimestampSource.USER]
    assert before <= received.timestamps[0] <= after
    assert statistics.remarks == {"frames without the hook's timestamp, timestamped when they were read": 1}


def test_timestamp_of_an_earlier_frame_in_the_same_chunk_is_not_taken_for_a_frames_own(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frames of a program without metadata go round the chunks that others have used before."""
    monkeypatch.setattr("uspcap.network.watch.LOOK_EVERY_S", 600.0)  # it would find that the program is another
    with pair.here.entered(), AfXdpSource(HERE, buffer_bytes=1) as source:
        code = cramped(build_capture_program(None, queue_count=1), head=False).link(source._maps.fds)
        batches = source.batches(0.02)
        for expected in (TimestampSource.XDP, TimestampSource.USER):
            for number in range(8):
                pair.send(*[numbered_frame(number)] * 64)
                sources: list[int] = []
                while len(sources) < 64:
                    batch = next(batches)
                    sources += [] if batch is None else batch.timestamp_source.tolist()
                assert sources == [expected] * 64
            assert source._attachment is not None
            with LoadedProgram.load(code, name="bare", flags=BPF_F_XDP_HAS_FRAGS) as bare:
                source._attachment._link.replace(bare)


def test_timestamps_of_a_driver_without_any_are_the_hooks(pair: Pair) -> None:
    nic = NicKernel()
    with pair.here.entered(), AfXdpSource(HERE, timestamps="hardware", calls=nic) as source:
        assert nic.setting == (0, 1, ALL)
        assert "native, bound to the device XDP" in source.describe().mode
        pair.send(numbered_frame(1))
        received, _ = receive(source, 1)
        assert [one.timestamp_source for one in source.interfaces] == [TimestampSource.HARDWARE, TimestampSource.XDP]
    assert received.sources == [TimestampSource.XDP]
    assert received.interfaces == [1]
    assert nic.setting == (0, 1, NONE)
    assert nic.open_clocks == 0


def test_hardware_timestamps_that_xdp_cannot_ask_for_are_done_without_only_under_auto(pair: Pair) -> None:
    with pair.here.entered():
        on_already = NicKernel(setting=(0, 1, ALL))
        with AfXdpSource(HERE, calls=on_already, modes=[AttachMode.SKB]) as source:
            assert source.describe().timestamps == "XDP hook (CLOCK_TAI, converted to UTC)"
            pair.send(numbered_frame(1))
            received, _ = receive(source, 1)
            assert [one.timestamp_source for one in source.interfaces] == [TimestampSource.XDP]
        assert received.interfaces == [0]
        nic = NicKernel()
        with pytest.raises(CaptureError, match="cannot hand over hardware timestamps: it granted skb XDP only"):
            AfXdpSource(HERE, timestamps="hardware", calls=nic, modes=[AttachMode.SKB])
        assert nic.setting == (0, 1, NONE)
        assert nic.open_clocks == 0
    assert not attached(pair.here)


def test_reader_timestamps_where_that_is_asked_for(pair: Pair) -> None:
    with pair.here.entered(), AfXdpSource(HERE, timestamps="user") as source:
        assert source.describe().timestamps == "when uspcap read the ring (CLOCK_REALTIME)"
        pair.send(numbered_frame(1))
        sent_at = time.time_ns()
        time.sleep(0.01)
        received, _ = receive(source, 1)
    assert received.sources == [TimestampSource.USER]
    assert received.timestamps[0] > sent_at


def test_kernels_timestamp_is_refused(pair: Pair) -> None:
    with pair.here.entered(), pytest.raises(UsageError, match="before the kernel timestamps them"):
        AfXdpSource(HERE, timestamps="kernel")


def test_filter_that_cannot_run_at_the_hook_is_refused(pair: Pair) -> None:
    with pair.here.entered():
        with pytest.raises(FilterError):
            AfXdpSource(HERE, "inbound")
        with pytest.raises(FilterError):
            AfXdpSource(HERE, "udp port")


def test_auto_takes_frames_from_the_kernel_only_where_that_is_asked_for(pair: Pair) -> None:
    with pair.here.entered():
        with open_source(Request((HERE,))) as source:
            assert isinstance(source, PacketMmapSource)
        with open_source(Request((HERE,), options={"take_all": True})) as source:
            assert isinstance(source, AfXdpSource)
        with pytest.raises(UsageError, match="received frames only"):
            open_source(Request((HERE,), backend="af_xdp", direction="out"))


def test_mtu_that_native_xdp_refuses_is_said_and_skb_mode_taken(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without the flag, veth refuses an MTU that its receive buffers do not hold, as drivers without fragments do.
    monkeypatch.setattr("uspcap.bpf.attach.BPF_F_XDP_HAS_FRAGS", 0)
    pair = make_pair(mtu=9100)
    frames = [numbered_frame(number, length) for number, length in enumerate(LENGTHS)]
    with pair.here.entered(), AfXdpSource(HERE) as source:
        said = str(source.describe())
        pair.send(*frames)
        received, statistics = receive(source, len(frames))
    assert "here0: af_xdp, skb XDP, copy" in said
    assert (
        "native XDP was refused: the MTU of 9100 is too large for the driver's XDP, lower it as in "
        "'ip link set here0 mtu 3000' (Numerical result out of range)"
    ) in said
    assert received.frames == frames
    assert statistics.unaccounted == 0


def test_mtu_that_native_xdp_refuses_is_one_sentence_where_only_native_will_do(
    make_pair: MakePair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uspcap.bpf.attach.BPF_F_XDP_HAS_FRAGS", 0)
    pair = make_pair(mtu=9100)
    with pair.here.entered(), pytest.raises(BpfError) as caught:
        AfXdpSource(HERE, modes=[AttachMode.NATIVE])
    assert str(caught.value) == (
        "cannot attach to interface here0 in any mode (native: the MTU of 9100 is too large for the driver's XDP, "
        "lower it as in 'ip link set here0 mtu 3000' (Numerical result out of range); the kernel says: veth: Peer MTU "
        "is too large to set XDP): use the packet_mmap backend"
    )
    assert not attached(pair.here)
