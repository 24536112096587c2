"""The program that sends probes to paths, on single frames; tests/comparison/live sees it at work on interfaces."""

import os
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from support.path_probes import MARK, PORT, digest_of, probe_payload, udp_frame

from uspcap.bpf.builder import Program
from uspcap.bpf.classic import compile_filter
from uspcap.bpf.kernel_types import BPF_F_XDP_HAS_FRAGS, XdpAction
from uspcap.bpf.path_program import MOST_PATHS, PAYLOAD_AT, TIMESTAMP_RING, build_path_program
from uspcap.bpf.syscalls import LoadedProgram, possible_cpus
from uspcap.comparison.live.hook import PathHook, seeds_of_cpus
from uspcap.comparison.live.settings import LiveSettings, paths_of
from uspcap.comparison.live.timestamp_ring import TimestampRing

SEED = 11
MASK = (1 << 64) - 1
PATHS = paths_of(("kernel", "packet_mmap", "af_xdp"))
Load = Callable[..., LoadedProgram]


@pytest.fixture
def hook(kernel_bpf: None) -> Iterator[PathHook]:
    with PathHook(LiveSettings("none", seed=SEED), PATHS, queues=1) as made:
        yield made


@pytest.fixture
def load(hook: PathHook) -> Iterator[Load]:
    loaded: list[LoadedProgram] = []

    def make(expression: str | None = None) -> LoadedProgram:
        rows = None if expression is None else compile_filter(expression, 1)
        program: Program = build_path_program(rows, port=PORT, paths=len(PATHS), redirected=[2])
        loaded.append(LoadedProgram.load(program.link(hook.fds), name="paths", flags=BPF_F_XDP_HAS_FRAGS))
        return loaded[-1]

    yield make
    for one in loaded:
        one.close()


def test_probe_gets_time_mark_and_path_and_loses_its_checksum(hook: PathHook, load: Load) -> None:
    hook.send_to(PATHS[1:2])
    frame = udp_frame(probe_payload(5, 99, size=100))
    before = time.clock_gettime_ns(time.CLOCK_TAI)
    result = load().test_run(frame)
    after = time.clock_gettime_ns(time.CLOCK_TAI)
    hook_ns, mark, path = struct.unpack_from(">q4sI", result.data, PAYLOAD_AT + 40)
    assert before <= hook_ns <= after
    assert (mark, path, result.verdict) == (MARK, 1, XdpAction.XDP_PASS)
    written = range(PAYLOAD_AT + 40, PAYLOAD_AT + 56)
    changed = {at for at, (was, now) in enumerate(zip(frame, result.data, strict=True)) if was != now}
    assert changed <= {40, 41, *written}
    assert result.data[40:42] == b"\0\0"
    assert hook.counts().sent[:3] == (0, 1, 0)


OTHERS = {
    "another port": udp_frame(probe_payload(), port=PORT + 1),
    "no probe": udp_frame(b"x" * 64),
    "an answer": udp_frame(b"USPC\x01\x02\x00\x40" + bytes(56)),
    "another version": udp_frame(b"USPC\x02\x01\x00\x40" + bytes(56)),
    "one byte short": udp_frame(probe_payload())[:-1],
    "TCP": udp_frame(probe_payload(), protocol=6),
    "IP options": udp_frame(probe_payload(), version_length=0x46),
    "IPv6": udp_frame(probe_payload(), ether_type=0x86DD),
    "first fragment": udp_frame(probe_payload(), fragment=0x2000),
    "later fragment": udp_frame(probe_payload(), fragment=0x0001),
}


@pytest.mark.parametrize("frame", OTHERS.values(), ids=OTHERS)
def test_what_is_no_probe_to_the_port_passes_untouched(hook: PathHook, load: Load, frame: bytes) -> None:
    hook.send_to(PATHS[2:3])
    result = load().test_run(frame)
    assert (result.verdict, result.data) == (XdpAction.XDP_PASS, frame)
    counts = hook.counts()
    assert (counts.seen, counts.matched, counts.other, sum(counts.sent)) == (1, 1, 1, 0)


def test_frame_that_may_not_be_fragmented_is_no_fragment(hook: PathHook, load: Load) -> None:
    hook.send_to(PATHS[:1])
    load().test_run(udp_frame(probe_payload(), fragment=0x4000))
    assert hook.counts().sent[0] == 1


def test_filter_decides_before_anything_is_written(hook: PathHook, load: Load) -> None:
    hook.send_to(PATHS[:1])
    frame = udp_frame(probe_payload())
    result = load("src port 9").test_run(frame)
    assert (result.verdict, result.data) == (XdpAction.XDP_PASS, frame)
    load("src port 4000").test_run(frame)
    counts = hook.counts()
    assert (counts.seen, counts.matched, counts.sent[0]) == (2, 1, 1)


def test_probes_are_dropped_and_counted_while_no_path_is_on(hook: PathHook, load: Load) -> None:
    program = load()
    assert program.test_run(udp_frame(probe_payload())).verdict == XdpAction.XDP_DROP
    hook.send_to(PATHS[:1])
    program.test_run(udp_frame(probe_payload()))
    hook.send_to(())
    program.test_run(udp_frame(probe_payload()))
    counts = hook.counts()
    assert (counts.off, counts.sent[0]) == (2, 1)


def test_probe_for_a_queue_without_a_socket_is_dropped_and_counted(hook: PathHook, load: Load) -> None:
    hook.send_to(PATHS[2:3])
    assert load().test_run(udp_frame(probe_payload())).verdict == XdpAction.XDP_DROP
    counts = hook.counts()
    assert (counts.no_socket, counts.sent[2]) == (1, 0)


def paths_by_reference(state: int, count: int, paths: int) -> list[int]:
    """splitmix64 as its author wrote it, and a number below `paths` from its upper half."""
    chosen = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        z ^= z >> 31
        chosen.append((z >> 32) * paths >> 32)
    return chosen


def test_paths_are_chosen_as_splitmix64_says(hook: PathHook, load: Load) -> None:
    program = load()
    hook.send_to(PATHS)
    cpus = os.sched_getaffinity(0)
    cpu = min(cpus)
    os.sched_setaffinity(0, {cpu})
    try:
        frame = udp_frame(probe_payload())
        seen = [struct.unpack_from(">I", program.test_run(frame).data, PAYLOAD_AT + 52)[0] for _ in range(300)]
    finally:
        os.sched_setaffinity(0, cpus)
    state = seeds_of_cpus(SEED, possible_cpus())[cpu]
    assert seen == paths_by_reference(state, 300, 3)
    counts = hook.counts()
    assert (*counts.sent[:2], counts.no_socket) == tuple(Counter(seen)[path] for path in range(3))


def test_states_of_cpus_do_not_follow_each_other() -> None:
    states = seeds_of_cpus(1, 64)
    assert len(set(states)) == 64
    numbers = {tuple(paths_by_reference(state, 40, 2)) for state in states}
    assert len(numbers) == 64


@pytest.mark.parametrize("arguments", [(0, []), (MOST_PATHS + 1, []), (2, [2])])
def test_impossible_paths_are_refused(arguments: tuple[int, list[int]]) -> None:
    paths, redirected = arguments
    with pytest.raises(ValueError, match="no program"):
        build_path_program(None, port=PORT, paths=paths, redirected=redirected)


def test_program_with_the_most_paths_is_accepted(hook: PathHook) -> None:
    program = build_path_program(None, port=PORT, paths=MOST_PATHS, redirected=range(MOST_PATHS))
    LoadedProgram.load(program.link(hook.fds), name="paths", flags=BPF_F_XDP_HAS_FRAGS).close()


@pytest.fixture
def other_hook(kernel_bpf: None) -> Iterator[PathHook]:
    with PathHook(LiveSettings("none", other_traffic=True, take=True), PATHS, queues=1) as made:
        yield made


@pytest.fixture
def load_other(other_hook: PathHook) -> Iterator[Load]:
    loaded: list[LoadedProgram] = []

    def make(port: int | None = None) -> LoadedProgram:
        program = build_path_program(None, port=port, paths=len(PATHS), redirected=[2], probes=False)
        loaded.append(LoadedProgram.load(program.link(other_hook.fds), name="paths", flags=BPF_F_XDP_HAS_FRAGS))
        return loaded[-1]

    yield make
    for one in loaded:
        one.close()


@pytest.mark.parametrize("size", [0, 7, 8, 9, 18, 63, 64, 65, 1400])
def test_other_traffic_passes_untouched_and_is_timestamped_aside(
    other_hook: PathHook, load_other: Load, size: int
) -> None:
    other_hook.send_to(PATHS[1:2])
    payload = os.urandom(size)
    # Padding to Ethernet's least is no payload.
    frame = udp_frame(payload).ljust(60, b"\xee")
    before = time.clock_gettime_ns(time.CLOCK_TAI)
    result = load_other().test_run(frame)
    after = time.clock_gettime_ns(time.CLOCK_TAI)
    assert (result.verdict, result.data) == (XdpAction.XDP_PASS, frame)
    (timestamp,) = other_hook.take_timestamps().tolist()
    assert timestamp[0] == digest_of(payload)
    assert before <= timestamp[1] <= after
    assert timestamp[2:] == (1, 0)
    assert len(other_hook.take_timestamps()) == 0
    counts = other_hook.counts()
    assert (counts.matched, counts.sent[1], counts.without_timestamp) == (1, 1, 0)


def test_other_traffic_goes_on_as_if_nobody_looked_while_no_path_is_on(other_hook: PathHook, load_other: Load) -> None:
    program = load_other()
    assert program.test_run(udp_frame(b"x" * 20)).verdict == XdpAction.XDP_PASS
    # Without a socket, too.
    other_hook.send_to(PATHS[2:3])
    assert program.test_run(udp_frame(b"x" * 20)).verdict == XdpAction.XDP_PASS
    counts = other_hook.counts()
    assert (counts.off, counts.no_socket, sum(counts.sent)) == (1, 1, 0)


@pytest.mark.parametrize("name", ["TCP", "IP options", "IPv6", "first fragment", "later fragment", "another port"])
def test_what_cannot_be_compared_is_not_timestamped(other_hook: PathHook, load_other: Load, name: str) -> None:
    other_hook.send_to(PATHS[:1])
    result = load_other(PORT).test_run(OTHERS[name])
    assert (result.verdict, result.data) == (XdpAction.XDP_PASS, OTHERS[name])
    assert other_hook.counts().other == 1
    assert len(other_hook.take_timestamps()) == 0


def test_timestamps_go_round_the_ring_and_what_has_no_room_is_counted(other_hook: PathHook, load_other: Load) -> None:
    ring = TimestampRing("small", 4096)
    other_hook.send_to(PATHS[:1])
    program = build_path_program(None, port=None, paths=len(PATHS), redirected=[], probes=False)
    with (
        closing(ring),
        LoadedProgram.load(
            program.link(other_hook.fds | {TIMESTAMP_RING: ring.fd}), name="paths", flags=BPF_F_XDP_HAS_FRAGS
        ) as loaded,
    ):
        wanted = []
        for lap in range(5):
            for number in range(100):
                payload = struct.pack("=QQ", lap, number)
                loaded.test_run(udp_frame(payload))
                wanted.append(digest_of(payload))
            assert ring.take()["digest"].tolist() == wanted[-100:]
        for _ in range(200):
            loaded.test_run(udp_frame(bytes(8)))
        taken = len(ring.take())
    # 32 bytes a timestamp; one position stays free.
    assert 4096 // 32 - 1 <= taken <= 4096 // 32
    assert other_hook.counts().without_timestamp == 200 - taken
