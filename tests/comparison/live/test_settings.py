"""What may be compared, and where readers go."""

from fractions import Fraction

import pytest

from uspcap.comparison.live.settings import LiveSettings, ProbeTraffic, paths_of, place
from uspcap.comparison.schedule import Trim
from uspcap.errors import UsageError
from uspcap.probe.endpoints import Endpoint


def test_a_path_named_two_times_gets_a_name_of_its_own() -> None:
    paths = paths_of(("kernel", "af_xdp", "kernel", "kernel"))
    assert [path.name for path in paths] == ["kernel", "af_xdp", "kernel_2", "kernel_3"]
    assert [path.number for path in paths] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (LiveSettings("x0", kinds=("kernel",)), "name 2 to 6"),
        (LiveSettings("x0", kinds=("kernel",) * 7), "name 2 to 6"),
        (LiveSettings("x0", kinds=("kernel", "dpdk")), "unknown path 'dpdk'"),  # type: ignore[arg-type]
        (LiveSettings("x0", kinds=("kernel", "kernel"), design="frame"), "needs --design block"),
        (LiveSettings("x0", runs=0), "at least one run"),
        (LiveSettings("x0", trim=Trim(warm_up_ns=600_000_000, cool_down_ns=400_000_000)), "leave nothing"),
        (LiveSettings("x0", port=0), "a port is"),
        (LiveSettings("x0", seed=-1), "a seed"),
        (LiveSettings("x0", delays_ns={"kernel_2": 5}), "delays are for"),
        (LiveSettings("x0", traffic=ProbeTraffic(Endpoint("::1", 7000))), "IPv4"),
        (LiveSettings("x0", traffic=ProbeTraffic(Endpoint("192.0.2.1", 7001))), "give one port"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: LiveSettings, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        settings.check()


def test_defaults_and_probes_to_their_port_are_accepted() -> None:
    LiveSettings("x0", traffic=ProbeTraffic(Endpoint("192.0.2.1", 7000), rate=Fraction(5))).check()


@pytest.mark.parametrize(
    ("allowed", "design", "cpus", "shared"),
    [
        ([0, 1], "block", {1}, False),
        ([0], "block", {0}, True),
        ([0, 1, 2, 3], "frame", {1, 2, 3}, False),
        ([0, 1, 2], "block", {2}, False),
    ],
)
def test_frames_are_parted_at_random_only_where_each_reader_has_a_cpu(
    allowed: list[int], design: str, cpus: set[int], shared: bool
) -> None:
    placement = place(LiveSettings("x0"), allowed)
    assert (placement.design, set(placement.cpus.values()), placement.shared) == (design, cpus, shared)
    assert placement.reason


def test_a_design_that_was_asked_for_is_taken_and_readers_that_share_a_cpu_are_reported() -> None:
    placement = place(LiveSettings("x0", design="frame"), [0, 1])
    assert (placement.design, placement.shared, placement.reason) == ("frame", True, "")
    assert set(placement.cpus.values()) == {1}


def test_readers_go_where_they_were_asked_to() -> None:
    assert set(place(LiveSettings("x0", design="block", cpus=(0,)), [0, 1]).cpus.values()) == {0}
    with pytest.raises(UsageError, match="CPU 5"):
        place(LiveSettings("x0", cpus=(5,)), [0, 1])


def test_a_path_against_itself_is_compared_block_by_block() -> None:
    placement = place(LiveSettings("x0", kinds=("kernel", "kernel")), range(8))
    assert (placement.design, placement.reason) == ("block", "a path is compared with itself")
