"""Chunks hold whole frames, by the sizes that drivers make of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uspcap.backends.chunks import CHUNK_SIZES, chunk_bytes_for, longest_frame_bytes, longest_mtu, usable_bytes
from uspcap.bpf.xdp_program import METADATA_LENGTH

HEADROOM = 256
CHECK_SEQUENCE = 4
MTUS = st.integers(68, 9216)


def driver_fills(chunk_bytes: int, unit: int) -> int:
    """What a driver that counts in `unit` bytes has a NIC write into a chunk."""
    return (chunk_bytes - HEADROOM) // unit * unit


@given(MTUS, st.sampled_from([1, 64, 128, 256, 512, 1024]))
def test_with_zero_copy_no_frame_is_longer_than_what_a_driver_fills(mtu: int, unit: int) -> None:
    size = chunk_bytes_for(mtu, zero_copy=True)
    if size is not None:
        assert longest_frame_bytes(mtu) + CHECK_SEQUENCE <= driver_fills(size, unit)


@given(MTUS)
def test_copied_frames_and_their_metadata_fit_in_what_the_kernel_leaves(mtu: int) -> None:
    size = chunk_bytes_for(mtu, zero_copy=False)
    if size is not None:
        assert longest_frame_bytes(mtu) + METADATA_LENGTH <= size - HEADROOM


@given(MTUS, st.booleans())
def test_no_smaller_chunk_would_do(mtu: int, zero_copy: bool) -> None:
    size = chunk_bytes_for(mtu, zero_copy=zero_copy)
    smaller = [one for one in CHUNK_SIZES if size is None or one < size]
    assert all(longest_frame_bytes(mtu) > usable_bytes(one, zero_copy=zero_copy) for one in smaller)


@pytest.mark.parametrize("zero_copy", [False, True])
def test_longest_mtu_is_the_last_that_has_a_chunk(zero_copy: bool) -> None:
    longest = longest_mtu(zero_copy=zero_copy)
    assert chunk_bytes_for(longest, zero_copy=zero_copy) is not None
    assert chunk_bytes_for(longest + 1, zero_copy=zero_copy) is None


def test_frames_of_1500_bytes_need_two_kib_copied_and_four_with_zero_copy() -> None:
    assert chunk_bytes_for(1500, zero_copy=False) == 2048
    assert chunk_bytes_for(1500, zero_copy=True) == 4096
