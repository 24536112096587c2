"""Constants and structs of the kernel's for bpf(2), under the kernel's names.

All are of include/uapi/linux/bpf.h where no other header is named. Structs for commands mirror the
members of union bpf_attr, in its order and up to the last member used here; a kernel that is older than
a member takes the call as long as that member is 0.
"""

from __future__ import annotations

import ctypes
from enum import IntEnum
from typing import Final

NAME_LENGTH: Final = 16
"""BPF_OBJ_NAME_LEN of linux/bpf.h, the closing zero included."""

XDP_PACKET_HEADROOM: Final = 256
"""The most bytes that a program can put before a frame."""

BPF_LOG_LEVEL1: Final = 1  # include/linux/bpf_verifier.h
BPF_LOG_STATS: Final = 4

BPF_F_XDP_HAS_FRAGS: Final = 1 << 5
BPF_F_XDP_DEV_BOUND_ONLY: Final = 1 << 6
BPF_F_TEST_XDP_LIVE_FRAMES: Final = 1 << 1
XDP_FLAGS_UPDATE_IF_NOEXIST: Final = 1 << 0  # linux/if_link.h
XDP_FLAGS_SKB_MODE: Final = 1 << 1
XDP_FLAGS_DRV_MODE: Final = 1 << 2
XDP_FLAGS_REPLACE: Final = 1 << 4


class Command(IntEnum):
    """Members of enum bpf_cmd in linux/bpf.h that are used here."""

    BPF_MAP_CREATE = 0
    BPF_MAP_LOOKUP_ELEM = 1
    BPF_MAP_UPDATE_ELEM = 2
    BPF_MAP_DELETE_ELEM = 3
    BPF_PROG_LOAD = 5
    BPF_PROG_TEST_RUN = 10
    BPF_PROG_GET_FD_BY_ID = 13
    BPF_OBJ_GET_INFO_BY_FD = 15
    BPF_MAP_LOOKUP_BATCH = 24
    BPF_LINK_CREATE = 28
    BPF_LINK_UPDATE = 29
    BPF_LINK_DETACH = 34


class MapType(IntEnum):
    """Members of enum bpf_map_type in linux/bpf.h that are used here."""

    BPF_MAP_TYPE_ARRAY = 2
    BPF_MAP_TYPE_PERCPU_ARRAY = 6
    BPF_MAP_TYPE_XSKMAP = 17
    BPF_MAP_TYPE_RINGBUF = 27


BPF_PROG_TYPE_XDP: Final = 6
BPF_XDP: Final = 37  # enum bpf_attach_type


class XdpAction(IntEnum):
    """Enum xdp_action in linux/bpf.h: what becomes of a frame."""

    XDP_ABORTED = 0
    XDP_DROP = 1
    XDP_PASS = 2
    XDP_TX = 3
    XDP_REDIRECT = 4


class Attributes(ctypes.Structure):
    """A member of union bpf_attr, which one command of bpf(2) takes."""


class MapCreate(Attributes):
    """For BPF_MAP_CREATE."""

    _fields_ = (
        ("map_type", ctypes.c_uint32),
        ("key_size", ctypes.c_uint32),
        ("value_size", ctypes.c_uint32),
        ("max_entries", ctypes.c_uint32),
        ("map_flags", ctypes.c_uint32),
        ("inner_map_fd", ctypes.c_uint32),
        ("numa_node", ctypes.c_uint32),
        ("map_name", ctypes.c_char * NAME_LENGTH),
    )


class MapElement(Attributes):
    """For BPF_MAP_*_ELEM."""

    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class MapBatch(Attributes):
    """For BPF_MAP_*_BATCH."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class ProgLoad(Attributes):
    """For BPF_PROG_LOAD."""

    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
        ("prog_name", ctypes.c_char * NAME_LENGTH),
        ("prog_ifindex", ctypes.c_uint32),
        ("expected_attach_type", ctypes.c_uint32),
    )


class TestRun(Attributes):
    """For BPF_PROG_TEST_RUN."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("retval", ctypes.c_uint32),
        ("data_size_in", ctypes.c_uint32),
        ("data_size_out", ctypes.c_uint32),
        ("data_in", ctypes.c_uint64),
        ("data_out", ctypes.c_uint64),
        ("repeat", ctypes.c_uint32),
        ("duration", ctypes.c_uint32),
        ("ctx_size_in", ctypes.c_uint32),
        ("ctx_size_out", ctypes.c_uint32),
        ("ctx_in", ctypes.c_uint64),
        ("ctx_out", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("cpu", ctypes.c_uint32),
        ("batch_size", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
    )


class GetId(Attributes):
    """For BPF_*_GET_FD_BY_ID."""

    _fields_ = (("id", ctypes.c_uint32), ("next_id", ctypes.c_uint32), ("open_flags", ctypes.c_uint32))


class GetInfo(Attributes):
    """For BPF_OBJ_GET_INFO_BY_FD."""

    _fields_ = (("bpf_fd", ctypes.c_uint32), ("info_len", ctypes.c_uint32), ("info", ctypes.c_uint64))


class LinkCreate(Attributes):
    """For BPF_LINK_CREATE."""

    _fields_ = (
        ("prog_fd", ctypes.c_uint32),
        ("target_ifindex", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


class LinkUpdate(Attributes):
    """For BPF_LINK_UPDATE."""

    _fields_ = (
        ("link_fd", ctypes.c_uint32),
        ("new_prog_fd", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("old_prog_fd", ctypes.c_uint32),
    )


class LinkDetach(Attributes):
    """For BPF_LINK_DETACH."""

    _fields_ = (("link_fd", ctypes.c_uint32),)


class XdpContext(ctypes.Structure):
    """Struct xdp_md of linux/bpf.h: what an XDP program is given.

    In test runs `data_meta`, `data` and `data_end` are byte offsets from the start of the buffer.
    """

    _fields_ = (
        ("data", ctypes.c_uint32),
        ("data_end", ctypes.c_uint32),
        ("data_meta", ctypes.c_uint32),
        ("ingress_ifindex", ctypes.c_uint32),
        ("rx_queue_index", ctypes.c_uint32),
        ("egress_ifindex", ctypes.c_uint32),
    )


class ProgramInfo(ctypes.Structure):
    """Struct bpf_prog_info of linux/bpf.h up to `verified_insns` (Linux 5.16)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("tag", ctypes.c_uint8 * 8),
        ("jited_prog_len", ctypes.c_uint32),
        ("xlated_prog_len", ctypes.c_uint32),
        ("jited_prog_insns", ctypes.c_uint64),
        ("xlated_prog_insns", ctypes.c_uint64),
        ("load_time", ctypes.c_uint64),
        ("created_by_uid", ctypes.c_uint32),
        ("nr_map_ids", ctypes.c_uint32),
        ("map_ids", ctypes.c_uint64),
        ("name", ctypes.c_char * NAME_LENGTH),
        ("ifindex", ctypes.c_uint32),
        ("gpl_compatible", ctypes.c_uint32),
        ("netns_dev", ctypes.c_uint64),
        ("netns_ino", ctypes.c_uint64),
        ("nr_jited_ksyms", ctypes.c_uint32),
        ("nr_jited_func_lens", ctypes.c_uint32),
        ("jited_ksyms", ctypes.c_uint64),
        ("jited_func_lens", ctypes.c_uint64),
        ("btf_id", ctypes.c_uint32),
        ("func_info_rec_size", ctypes.c_uint32),
        ("func_info", ctypes.c_uint64),
        ("nr_func_info", ctypes.c_uint32),
        ("nr_line_info", ctypes.c_uint32),
        ("line_info", ctypes.c_uint64),
        ("jited_line_info", ctypes.c_uint64),
        ("nr_jited_line_info", ctypes.c_uint32),
        ("line_info_rec_size", ctypes.c_uint32),
        ("jited_line_info_rec_size", ctypes.c_uint32),
        ("nr_prog_tags", ctypes.c_uint32),
        ("prog_tags", ctypes.c_uint64),
        ("run_time_ns", ctypes.c_uint64),
        ("run_cnt", ctypes.c_uint64),
        ("recursion_misses", ctypes.c_uint64),
        ("verified_insns", ctypes.c_uint32),
    )


class LinkInfo(ctypes.Structure):
    """Struct bpf_link_info of linux/bpf.h with its `xdp` member; `ifindex` is 0 once detached."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("id", ctypes.c_uint32),
        ("prog_id", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("ifindex", ctypes.c_uint32),
    )
