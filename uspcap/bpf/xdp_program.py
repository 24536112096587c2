"""The XDP program that captures: made for the filter and the interface at hand.

What does not match goes to the kernel untouched. What matches gets a metadata area in front of it and is
handed to the AF_XDP socket of its receive queue; where there is none, it goes to the kernel too. Frames
in several fragments are handled like others; the program must be loaded with BPF_F_XDP_HAS_FRAGS.

Metadata, directly before the frame's first byte, in the byte order of the host::

    byte  0   u32  METADATA_MAGIC
          4   u16  METADATA_VERSION
          6   u16  flags: bit 0 HARDWARE_TIMESTAMPED, the hardware timestamp is one
          8   u64  bpf_ktime_get_tai_ns at the hook: CLOCK_TAI in ns
         16   u64  the NIC's receive timestamp, on the NIC's own clock, in ns; 0 where there is none
         24   u32  length of the whole frame in bytes, all fragments
         28   u32  receive queue

Where the driver has no room for metadata there, or there is other metadata already, the frame itself is begun 32 bytes
earlier, and they hold::

    byte  0   u32  HEAD_MAGIC
          4 to 23  as above
         24   u64  the capture's cookie, a random number, so that no frame from outside looks like that

The reader leaves them out. So do frames that go on into the kernel, where the queue has no socket. A frame that gets
neither is still redirected, and counted.

Needs Linux 6.1 (bpf_ktime_get_tai_ns); hardware timestamps need Linux 6.3 and a device-bound program.

References
----------
linux/bpf.h; Documentation/networking/xdp-rx-metadata.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

from uspcap.bpf.builder import Builder, JumpTooFar, Label, Program
from uspcap.bpf.instructions import (
    BPF_ADD,
    BPF_AND,
    BPF_DW,
    BPF_H,
    BPF_JEQ,
    BPF_JGT,
    BPF_JLT,
    BPF_JNE,
    BPF_W,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R9,
    R10,
    alu64_imm,
    call,
    exit_insn,
    ld_imm64,
    ldx_mem,
    mov32_imm,
    mov32_reg,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from uspcap.bpf.kernel_types import XdpAction
from uspcap.bpf.translate import (
    BPF_FUNC_XDP_GET_BUFF_LEN,
    CONTEXT,
    STACK_BYTES,
    XDP_MD_DATA,
    translate,
)
from uspcap.errors import FilterError

METADATA_MAGIC: Final = 0x75737063
HEAD_MAGIC: Final = 0x75737068
METADATA_VERSION: Final = 1
METADATA_LENGTH: Final = 32
HARDWARE_TIMESTAMPED: Final = 1 << 0

RX_TIMESTAMP_FUNCTION: Final = "bpf_xdp_metadata_rx_timestamp"
"""Kernel function that asks the driver for a frame's hardware timestamp."""

SOCKET_MAP: Final = "uspcap_sockets"
"""XSKMAP, AF_XDP socket of each receive queue."""

COUNTER_MAP: Final = "uspcap_counts"
"""Per-CPU array, the `Counter` values of each receive queue; one more entry for queues beyond."""

FILLING_MAP: Final = "uspcap_filling"
"""Ring buffer that wakes the reader each time that so many frames more have matched."""

_METADATA: Final = struct.Struct("=IHHQQII")
_XDP_MD_DATA_END: Final = 4
_XDP_MD_DATA_META: Final = 8
_XDP_MD_RX_QUEUE_INDEX: Final = 16

# enum bpf_func_id of linux/bpf.h.
_BPF_FUNC_MAP_LOOKUP_ELEM: Final = 1
_BPF_FUNC_XDP_ADJUST_HEAD: Final = 44
_BPF_FUNC_REDIRECT_MAP: Final = 51
_BPF_FUNC_XDP_ADJUST_META: Final = 54
_BPF_FUNC_RINGBUF_OUTPUT: Final = 130
_BPF_FUNC_KTIME_GET_TAI_NS: Final = 208  # Linux 6.1

_BPF_RB_FORCE_WAKEUP: Final = 2

# Stack below what the filter uses.
_QUEUE_KEY: Final = -STACK_BYTES - 8
_HARDWARE_TIMESTAMP: Final = -STACK_BYTES - 16
_NOTICE: Final = -STACK_BYTES - 16  # gone before the timestamp comes


class Counter(IntEnum):
    """What the program counts, per receive queue and CPU; the value is the counter's index.

    SEEN >= MATCHED = REDIRECTED + NO_SOCKET; the others are of those that match.
    """

    SEEN = 0
    """Frames that came to the hook."""
    MATCHED = 1
    """Frames that match the filter."""
    REDIRECTED = 2
    """Frames handed to a socket, which may still drop them and counts that itself."""
    NO_SOCKET = 3
    """Matching frames of a queue without a socket, passed to the kernel."""
    METADATA_FAILED = 4
    """Frames with no room for metadata, neither before them nor at their head."""
    HARDWARE_TIMESTAMPED = 5
    """Frames with a hardware timestamp."""
    METADATA_AT_HEAD = 6
    """Frames that were begun earlier, to hold their metadata."""


COUNTER_BYTES: Final = 8 * len(Counter)
"""Size of one CPU's values of one queue."""


class Metadata(NamedTuple):
    """The metadata area of one frame; see the top of this module.

    Attributes
    ----------
    hook_tai_ns : int
        CLOCK_TAI at the XDP hook.
    hardware_ns : int
        The NIC's clock; 0 where there is no timestamp.
    frame_length : int
        Bytes, all fragments.
    queue : int
        Receive queue.
    """

    hook_tai_ns: int
    hardware_ns: int
    frame_length: int
    queue: int

    @classmethod
    def unpack(cls, area: bytes) -> Metadata | None:
        """Read the `METADATA_LENGTH` bytes before a frame; None where they are none of this version."""
        magic, version, flags, hook, hardware, length, queue = _METADATA.unpack(area)
        if magic != METADATA_MAGIC or version != METADATA_VERSION:
            return None
        return cls(hook, hardware if flags & HARDWARE_TIMESTAMPED else 0, length, queue)


def build_capture_program(
    filter_program: Iterable[tuple[int, int, int, int]] | None,
    *,
    queue_count: int,
    metadata: bool = True,
    hardware_timestamps: bool = False,
    cookie: int = 0,
    direct_indirect_loads: bool = True,
    notice_every: int = 0,
) -> Program:
    """Build the program that captures.

    Parameters
    ----------
    filter_program : iterable of (code, jt, jf, k), optional
        Classic BPF for the interface's link type; None takes every frame.
    queue_count : int
        Receive queues that are counted apart.
    metadata : bool
        Put the metadata area before each frame.
    hardware_timestamps : bool
        Ask the driver for its timestamp; the program can then only be loaded bound to its device.
    cookie : int
        Of 64 bits; 0 puts no metadata at the head of frames.
    direct_indirect_loads : bool
        As in `translate`; False where CAP_PERFMON is missing.
    notice_every : int
        Put a notice into `FILLING_MAP` each time that a CPU has matched so many frames of a queue, a power of two; 0
        does without.

    Returns
    -------
    Program
        Refers to the maps `SOCKET_MAP`, `COUNTER_MAP` and, with notices, `FILLING_MAP`; with hardware timestamps, to
        the kernel function `RX_TIMESTAMP_FUNCTION`.

    Raises
    ------
    FilterError
        The filter cannot run at the XDP hook.
    """
    if hardware_timestamps and not metadata:
        raise ValueError("hardware timestamps travel in the metadata area, so they need metadata")
    if notice_every & (notice_every - 1) or not 0 <= notice_every <= 1 << 30:
        raise ValueError(f"notices come every power of two of frames, not every {notice_every}")
    builder = Builder()
    matched, passed = builder.label(), builder.label()
    _enter(builder, queue_count, passed)
    if filter_program is not None:
        translate(
            builder,
            filter_program,
            accept=matched,
            reject=passed,
            direct_indirect_loads=direct_indirect_loads,
        )
    builder.place(matched)
    _count(builder, Counter.MATCHED)
    if notice_every:
        _give_notice(builder, notice_every)
    if metadata:
        _write_metadata(builder, hardware_timestamps, cookie)
    _redirect(builder, may_have_head=metadata and cookie != 0)
    builder.place(passed)
    builder.add(mov64_imm(R0, XdpAction.XDP_PASS), exit_insn())
    try:
        return builder.build()
    except JumpTooFar as error:
        raise FilterError(
            f"the filter is too large for the XDP hook ({error}): make it shorter, use the packet_mmap "
            "backend, or capture with a wider filter"
        ) from None


def _enter(builder: Builder, queue_count: int, passed: Label) -> None:
    """Keep the context in R6 and this queue's counters in R9, and count the frame."""
    known_queue = builder.label()
    builder.add(mov64_reg(CONTEXT, R1), ldx_mem(BPF_W, R1, R6, _XDP_MD_RX_QUEUE_INDEX))
    builder.jump_if(BPF_JLT, R1, known_queue, immediate=queue_count)
    builder.add(mov32_imm(R1, queue_count))
    builder.place(known_queue)
    builder.add(stx_mem(BPF_W, R10, R1, _QUEUE_KEY))
    builder.load_map(R1, COUNTER_MAP)
    builder.add(mov64_reg(R2, R10), alu64_imm(BPF_ADD, R2, _QUEUE_KEY), call(_BPF_FUNC_MAP_LOOKUP_ELEM))
    # Never taken, as the key is in range; the verifier wants to see it.
    builder.jump_if(BPF_JEQ, R0, passed, immediate=0, wide=True)
    builder.add(mov64_reg(R9, R0))
    _count(builder, Counter.SEEN)


def _count(builder: Builder, counter: Counter) -> None:
    """Add one to a counter of this CPU; nothing interrupts an XDP program to run another on its CPU."""
    builder.add(
        ldx_mem(BPF_DW, R1, R9, 8 * counter),
        alu64_imm(BPF_ADD, R1, 1),
        stx_mem(BPF_DW, R9, R1, 8 * counter),
    )


def _give_notice(builder: Builder, every: int) -> None:
    """Wake the reader where the count of matched frames, which is in R1, is a multiple of `every`."""
    done = builder.label()
    builder.add(mov64_reg(R2, R1), alu64_imm(BPF_AND, R2, every - 1))
    builder.jump_if(BPF_JNE, R2, done, immediate=0)
    builder.add(stx_mem(BPF_DW, R10, R1, _NOTICE))
    builder.load_map(R1, FILLING_MAP)
    builder.add(
        mov64_reg(R2, R10),
        alu64_imm(BPF_ADD, R2, _NOTICE),
        mov64_imm(R3, 8),
        mov64_imm(R4, _BPF_RB_FORCE_WAKEUP),
        # Where there is no room for it, the reader has not looked at those before, and will be awake.
        call(_BPF_FUNC_RINGBUF_OUTPUT),
    )
    builder.place(done)


def _write_metadata(builder: Builder, hardware_timestamps: bool, cookie: int) -> None:
    """Write metadata before the frame or, with a cookie, at its head; R8 is then 1 where it is there, 0 otherwise."""
    failed, written = builder.label(), builder.label()
    builder.add(mov64_imm(R8, 0))
    if hardware_timestamps:
        _ask_for_hardware_timestamp(builder)
    builder.add(call(_BPF_FUNC_KTIME_GET_TAI_NS), mov64_reg(R7, R0))
    builder.add(mov64_reg(R1, CONTEXT), mov64_imm(R2, -METADATA_LENGTH), call(_BPF_FUNC_XDP_ADJUST_META))
    builder.jump_if(BPF_JNE, R0, failed, immediate=0, wide=True)
    builder.add(
        mov64_reg(R1, CONTEXT),
        call(BPF_FUNC_XDP_GET_BUFF_LEN),
        ldx_mem(BPF_W, R1, CONTEXT, _XDP_MD_DATA_META),
        ldx_mem(BPF_W, R2, CONTEXT, XDP_MD_DATA),
        mov64_reg(R3, R1),
        alu64_imm(BPF_ADD, R3, METADATA_LENGTH),
    )
    # The reader finds the area by the frame's address, so it must end there: no other metadata between.
    # Two comparisons, as the verifier knows these and not the one for equality.
    builder.jump_if(BPF_JGT, R3, failed, source=R2, wide=True)
    builder.jump_if(BPF_JLT, R3, failed, source=R2, wide=True)
    _write_area(builder, METADATA_MAGIC, hardware_timestamps)
    builder.add(
        stx_mem(BPF_W, R1, R0, 24),
        ldx_mem(BPF_W, R2, CONTEXT, _XDP_MD_RX_QUEUE_INDEX),
        stx_mem(BPF_W, R1, R2, 28),
        mov64_imm(R8, 0),
    )
    builder.jump(written)
    builder.place(failed)
    if cookie:
        without = builder.label()
        builder.add(mov64_reg(R1, CONTEXT), mov64_imm(R2, -METADATA_LENGTH), call(_BPF_FUNC_XDP_ADJUST_HEAD))
        builder.jump_if(BPF_JNE, R0, without, immediate=0, wide=True)
        builder.add(
            ldx_mem(BPF_W, R1, CONTEXT, XDP_MD_DATA),
            ldx_mem(BPF_W, R2, CONTEXT, _XDP_MD_DATA_END),
            mov64_reg(R3, R1),
            alu64_imm(BPF_ADD, R3, METADATA_LENGTH),
        )
        # Never taken, as the frame was made so much longer; the verifier wants to see it.
        undone = builder.label()
        builder.jump_if(BPF_JGT, R3, undone, source=R2, wide=True)
        _write_area(builder, HEAD_MAGIC, hardware_timestamps)
        builder.add(ld_imm64(R2, cookie), stx_mem(BPF_DW, R1, R2, 24), mov64_imm(R8, 1))
        _count(builder, Counter.METADATA_AT_HEAD)
        builder.jump(written)
        builder.place(undone)
        builder.add(mov64_reg(R1, CONTEXT), mov64_imm(R2, METADATA_LENGTH), call(_BPF_FUNC_XDP_ADJUST_HEAD))
        builder.place(without)
    _count(builder, Counter.METADATA_FAILED)
    builder.add(mov64_imm(R8, 0))
    builder.place(written)


def _write_area(builder: Builder, magic: int, hardware_timestamps: bool) -> None:
    """Write what both kinds of metadata have to where R1 points: the timestamps are in R7 and R8."""
    builder.add(
        st_mem(BPF_W, R1, 0, magic),
        st_mem(BPF_H, R1, 4, METADATA_VERSION),
        st_mem(BPF_H, R1, 6, 0),
        stx_mem(BPF_DW, R1, R7, 8),
        stx_mem(BPF_DW, R1, R8, 16),
    )
    if hardware_timestamps:
        without = builder.label()
        builder.jump_if(BPF_JEQ, R8, without, immediate=0, wide=True)
        builder.add(st_mem(BPF_H, R1, 6, HARDWARE_TIMESTAMPED))
        builder.add(
            ldx_mem(BPF_DW, R2, R9, 8 * Counter.HARDWARE_TIMESTAMPED),
            alu64_imm(BPF_ADD, R2, 1),
            stx_mem(BPF_DW, R9, R2, 8 * Counter.HARDWARE_TIMESTAMPED),
        )
        builder.place(without)


def _ask_for_hardware_timestamp(builder: Builder) -> None:
    """Leave the driver's timestamp in R8, or 0: a refusal and a timestamp of 0 both mean that there is none."""
    without = builder.label()
    builder.add(
        st_mem(BPF_DW, R10, _HARDWARE_TIMESTAMP, 0),
        mov64_reg(R1, CONTEXT),
        mov64_reg(R2, R10),
        alu64_imm(BPF_ADD, R2, _HARDWARE_TIMESTAMP),
    )
    builder.call_kernel_function(RX_TIMESTAMP_FUNCTION)
    builder.jump_if(BPF_JNE, R0, without, immediate=0)
    builder.add(ldx_mem(BPF_DW, R8, R10, _HARDWARE_TIMESTAMP))
    builder.place(without)


def _redirect(builder: Builder, *, may_have_head: bool) -> None:
    """Hand the frame to its queue's socket and return; XDP_PASS, as it came, where the queue has none."""
    redirected, counted = builder.label(), builder.label()
    builder.load_map(R1, SOCKET_MAP)
    builder.add(
        ldx_mem(BPF_W, R2, CONTEXT, _XDP_MD_RX_QUEUE_INDEX),
        mov64_imm(R3, XdpAction.XDP_PASS),
        call(_BPF_FUNC_REDIRECT_MAP),
        mov32_reg(R7, R0),
    )
    builder.jump_if(BPF_JEQ, R7, redirected, immediate=XdpAction.XDP_REDIRECT)
    _count(builder, Counter.NO_SOCKET)
    if may_have_head:
        builder.jump_if(BPF_JEQ, R8, counted, immediate=0)
        builder.add(mov64_reg(R1, CONTEXT), mov64_imm(R2, METADATA_LENGTH), call(_BPF_FUNC_XDP_ADJUST_HEAD))
    builder.jump(counted)
    builder.place(redirected)
    _count(builder, Counter.REDIRECTED)
    builder.place(counted)
    builder.add(mov32_reg(R0, R7), exit_insn())
