"""Which counters of drivers say how many frames came in, and which that some did not."""

import pytest

from uspcap.backends.nic_counters import losses, received, summed

# Names as the drivers' sources have them, with what two queues counted of 1,001 frames.
VMXNET3 = {"ucast pkts rx": 700, "mcast pkts rx": 300, "bcast pkts rx": 1, "ucast bytes rx": 90_000, "LRO pkts rx": 0}
IGB = {"rx_packets": 1001, "rx_queue_0_packets": 600, "rx_queue_1_packets": 401, "rx_bytes": 64_064}
VIRTIO_NET = {"rx0_packets": 600, "rx1_packets": 401, "rx0_xdp_packets": 600, "rx1_xdp_packets": 401}
ENA = {"queue_0_rx_cnt": 600, "queue_1_rx_cnt": 401, "queue_0_tx_cnt": 5000}
MLX5 = {"rx_packets": 0, "rx_packets_phy": 1001, "rx0_packets": 0, "rx0_xdp_redirect": 1001}
VETH = {"rx_queue_0_xdp_packets": 600, "rx_queue_1_xdp_packets": 401, "peer_ifindex": 3}


@pytest.mark.parametrize("counters", [VMXNET3, IGB, VIRTIO_NET, ENA, MLX5, VETH])
def test_frames_are_counted_by_the_driver_where_the_kernels_counter_leaves_out_what_xdp_took(
    counters: dict[str, int],
) -> None:
    assert received(counters, by_kernel=0, at_hook=1001) == 1001


def test_kernels_counter_is_taken_where_it_has_all() -> None:
    assert received(IGB, by_kernel=1200, at_hook=1001) == 1200
    assert received({}, by_kernel=7, at_hook=None) == 7


def test_no_number_is_made_up_where_no_counter_has_all_frames() -> None:
    assert received({}, by_kernel=0, at_hook=1001) is None
    assert received({"rx_queue_0_packets": 1000, "rx_bytes": 64_000}, by_kernel=3, at_hook=1001) is None


def test_losses_are_counters_of_frames_lost_in_reception() -> None:
    # Names of igb, ixgbe, mlx5, ena, bnxt and veth.
    lost = {
        *("rx_no_buffer_count", "rx_missed_errors", "rx_fifo_errors", "rx_discards_phy", "rx_out_of_buffer"),
        *("rx_queue_0_drops", "rx_no_dma_resources", "alloc_rx_buff_failed", "rx_drops", "rx_overruns"),
    }
    others = {"rx_packets", "tx_dropped", "queue_0_tx_missed_tx", "rx_bytes", "peer_ifindex", "tx_queue_0_xdp_xmit"}
    assert set(losses(dict.fromkeys(lost | others, 1))) == lost


def test_counters_of_one_name_add_up() -> None:
    assert summed([("  pkts rx", 1), ("Rx Queue#", 0), ("  pkts rx", 2)]) == {"pkts rx": 3, "Rx Queue#": 0}
