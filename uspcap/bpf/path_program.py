"""The XDP program that sends each frame to one of several paths, and says when it was at the hook.

Untagged IPv4 without options or fragments, UDP, matching port and filter; everything else goes to the kernel as it
came. Of probes of docs/probe.md, whatever their path, these bytes are written, so that no path's frames are handled
differently before they part::

    UDP checksum            0: none (RFC 768), as the payload changes
    payload 40  u64         bpf_ktime_get_tai_ns at the hook: CLOCK_TAI in ns, network byte order
            48  u32         MARK
            52  u32         number of the path, network byte order

Other traffic is not touched. Its time goes into a ring buffer (`TIMESTAMP_RING`), a `TIMESTAMP` a frame, with a digest
by which a reader of the path finds it again: of the length of the payload and the first `DIGEST_WORDS` lanes of eight
bytes of it that are whole, in the host's byte order::

    state = DIGEST_START ^ length; for each lane: state = (state ^ lane) * DIGEST_FACTOR; state ^= state >> 32

Which path is on is in a map: none (probes are dropped and counted, so that nothing piles up between runs; other traffic
goes on as if nobody looked), one, or one of the first n at random, by splitmix64 from a state of each CPU's own that
the caller seeds.

Needs Linux 6.1 (bpf_ktime_get_tai_ns).

References
----------
linux/bpf.h; S. Vigna's splitmix64.c (public domain).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Collection, Iterable
from enum import IntEnum
from typing import Final

from uspcap.bpf.builder import Builder, JumpTooFar, Label, Program
from uspcap.bpf.instructions import (
    BPF_ADD,
    BPF_B,
    BPF_DW,
    BPF_H,
    BPF_JEQ,
    BPF_JGT,
    BPF_JLT,
    BPF_JNE,
    BPF_JSET,
    BPF_MUL,
    BPF_RSH,
    BPF_TO_BE,
    BPF_W,
    BPF_XOR,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R7,
    R8,
    R9,
    R10,
    alu64_imm,
    alu64_reg,
    call,
    endian,
    exit_insn,
    ld_imm64,
    ldx_mem,
    mov32_reg,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from uspcap.bpf.kernel_types import XdpAction
from uspcap.bpf.translate import CONTEXT, STACK_BYTES, XDP_MD_DATA, translate
from uspcap.errors import FilterError

MARK: Final = 0x55535048
"""What the program writes beside its timestamp: USPH in ASCII."""

MOST_PATHS: Final = 6

ETHERNET_BYTES: Final = 14
UDP_AT: Final = ETHERNET_BYTES + 20
PAYLOAD_AT: Final = UDP_AT + 8
HOOK_AT: Final = 40
"""Of the timestamp in the payload; `MARK` and the path's number follow."""
PATH_AT: Final = HOOK_AT + 12

SOCKET_MAP: Final = "uspcap_sockets"
"""XSKMAP, AF_XDP socket of each receive queue."""

SWITCH_MAP: Final = "uspcap_switch"
"""Array of one entry, `SWITCH`: which path is on."""

RANDOM_MAP: Final = "uspcap_random"
"""Per-CPU array of one u64: state of the generator."""

COUNTER_MAP: Final = "uspcap_counts"
"""Per-CPU array of one entry: u64 of each `PathCounter`, then frames sent to each path."""

TIMESTAMP_RING: Final = "uspcap_timestamps"
"""BPF ring buffer of `TIMESTAMP`, for traffic that is not ours."""

TIMESTAMP: Final = struct.Struct("=QqII")
"""Digest, CLOCK_TAI in ns at the hook, number of the path, 0."""

DIGEST_WORDS: Final = 8
DIGEST_START: Final = 0x9E3779B97F4A7C15
DIGEST_FACTOR: Final = 0xD6E8FEB86659FD93

SWITCH: Final = struct.Struct("=II")
"""`Switch`; the path's number or how many paths there are."""

_XDP_MD_DATA_END: Final = 4
_XDP_MD_RX_QUEUE_INDEX: Final = 16
_BPF_FUNC_MAP_LOOKUP_ELEM: Final = 1
_BPF_FUNC_REDIRECT_MAP: Final = 51
_BPF_FUNC_RINGBUF_OUTPUT: Final = 130
_BPF_FUNC_KTIME_GET_TAI_NS: Final = 208  # Linux 6.1
_BPF_RB_NO_WAKEUP: Final = 1

_KEY: Final = -STACK_BYTES - 8
"""Of maps with one entry, on the stack below what the filter uses."""

_TIMESTAMP_AT: Final = _KEY - TIMESTAMP.size
"""Of a timestamp before it goes to the ring, on the stack."""

_PROBE_BYTES: Final = PAYLOAD_AT + 64


class Switch(IntEnum):
    """Where probes go."""

    OFF = 0
    ONE = 1
    RANDOM = 2


class PathCounter(IntEnum):
    """What the program counts, per CPU; the value is the counter's index.

    MATCHED = OTHER + OFF + frames sent to each path + NO_SOCKET. WITHOUT_TIMESTAMP is of those sent.
    """

    SEEN = 0
    """Frames that came to the hook."""
    MATCHED = 1
    """Frames that match the filter."""
    OTHER = 2
    """Of these, no probes to the port, or nothing that can be compared: passed to the kernel."""
    OFF = 3
    """Came while no path was on: probes are dropped."""
    NO_SOCKET = 4
    """For AF_XDP on a queue without a socket: probes are dropped."""
    WITHOUT_TIMESTAMP = 5
    """Other traffic whose timestamp the ring buffer had no room for."""


COUNTER_BYTES: Final = 8 * (len(PathCounter) + MOST_PATHS)


def build_path_program(
    filter_program: Iterable[tuple[int, int, int, int]] | None,
    *,
    port: int | None,
    paths: int,
    redirected: Collection[int],
    probes: bool = True,
    direct_indirect_loads: bool = True,
) -> Program:
    """Build the program that sends each frame to a path.

    Parameters
    ----------
    filter_program : iterable of (code, jt, jf, k), optional
        Classic BPF for Ethernet; None takes every probe to the port.
    port : int or None
        UDP destination port; None, for other traffic, takes every port.
    paths : int
        Up to `MOST_PATHS`; numbered from 0.
    redirected : collection of int
        Paths that go to an AF_XDP socket; the others go on into the kernel.
    probes : bool
        Take probes only, and write into them; otherwise take all and write into the ring buffer.
    direct_indirect_loads : bool
        As in `translate`.

    Returns
    -------
    Program
        Refers to `SOCKET_MAP` where there is a path to it, to `TIMESTAMP_RING` without probes, and to the other three
        maps.

    Raises
    ------
    FilterError
        The filter cannot run at the XDP hook.
    """
    known_port = 0 < port < 1 << 16 if port is not None else not probes
    if not 1 <= paths <= MOST_PATHS or not set(redirected) <= set(range(paths)) or not known_port:
        raise ValueError(f"{paths} paths, {sorted(redirected)} of them redirected, and port {port} make no program")
    builder = Builder()
    matched, passed = builder.label(), builder.label()
    builder.add(mov64_reg(CONTEXT, R1))
    _look_up(builder, COUNTER_MAP, passed)
    builder.add(mov64_reg(R9, R0))
    _count(builder, PathCounter.SEEN)
    if filter_program is not None:
        translate(builder, filter_program, accept=matched, reject=passed, direct_indirect_loads=direct_indirect_loads)
    builder.place(matched)
    _count(builder, PathCounter.MATCHED)
    unwanted = XdpAction.XDP_DROP if probes else XdpAction.XDP_PASS
    _refuse_others(builder, port, passed, probes=probes)
    _choose_path(builder, passed, unwanted)
    if probes:
        _timestamp(builder, passed)
    else:
        _timestamp_aside(builder, passed)
    _part(builder, paths, redirected, unwanted)
    builder.place(passed)
    builder.add(mov64_imm(R0, XdpAction.XDP_PASS), exit_insn())
    try:
        return builder.build()
    except JumpTooFar as error:
        raise FilterError(f"the filter is too large for the XDP hook ({error}): make it shorter") from None


def _look_up(builder: Builder, name: str, missing: Label) -> None:
    """Leave the address of a map's only entry in R0; the jump is never taken, but the verifier wants to see it."""
    builder.add(st_mem(BPF_W, R10, _KEY, 0))
    builder.load_map(R1, name)
    builder.add(mov64_reg(R2, R10), alu64_imm(BPF_ADD, R2, _KEY), call(_BPF_FUNC_MAP_LOOKUP_ELEM))
    builder.jump_if(BPF_JEQ, R0, missing, immediate=0, wide=True)


def _count(builder: Builder, counter: int) -> None:
    """Add one to a counter of this CPU; nothing interrupts an XDP program to run another on its CPU."""
    builder.add(
        ldx_mem(BPF_DW, R1, R9, 8 * counter),
        alu64_imm(BPF_ADD, R1, 1),
        stx_mem(BPF_DW, R9, R1, 8 * counter),
    )


def _load_frame(builder: Builder, short: Label, least: int = _PROBE_BYTES) -> None:
    """Leave the frame's address in R2 and its end in R3, jump where it is shorter than a probe, or `least`."""
    builder.add(
        ldx_mem(BPF_W, R2, CONTEXT, XDP_MD_DATA),
        ldx_mem(BPF_W, R3, CONTEXT, _XDP_MD_DATA_END),
        mov64_reg(R1, R2),
        alu64_imm(BPF_ADD, R1, least),
    )
    builder.jump_if(BPF_JGT, R1, short, source=R3, wide=True)


def _refuse_others(builder: Builder, port: int | None, passed: Label, *, probes: bool) -> None:
    """Pass on what is no probe, or no plain UDP, to the port."""
    other, probe = builder.label(), builder.label()
    _load_frame(builder, other, _PROBE_BYTES if probes else PAYLOAD_AT)
    # Values as the host loads them: in its own byte order from the wire's.
    fields = [
        (BPF_H, 12, socket.htons(0x0800)),
        (BPF_B, ETHERNET_BYTES, 0x45),  # version 4, a header of 20 bytes
        (BPF_B, ETHERNET_BYTES + 9, socket.IPPROTO_UDP),
    ]
    if port is not None:
        fields.append((BPF_H, UDP_AT + 2, socket.htons(port)))
    if probes:
        fields.append((BPF_W, PAYLOAD_AT, struct.unpack("=I", b"USPC")[0]))
        fields.append((BPF_W, PAYLOAD_AT + 4, struct.unpack("=I", bytes([1, 1, 0, 64]))[0]))
    for size, at, wanted in fields:
        builder.add(ldx_mem(size, R1, R2, at))
        builder.jump_if(BPF_JNE, R1, other, immediate=wanted)
    builder.add(ldx_mem(BPF_H, R1, R2, ETHERNET_BYTES + 6), endian(BPF_TO_BE, R1, 16))
    builder.jump_if(BPF_JSET, R1, other, immediate=0x3FFF)  # more fragments, or an offset
    builder.jump(probe)
    builder.place(other)
    _count(builder, PathCounter.OTHER)
    builder.jump(passed)
    builder.place(probe)


def _choose_path(builder: Builder, passed: Label, unwanted: XdpAction) -> None:
    """Leave the path's number in R7."""
    on, random, chosen = builder.label(), builder.label(), builder.label()
    _look_up(builder, SWITCH_MAP, passed)
    builder.add(ldx_mem(BPF_W, R1, R0, 0), ldx_mem(BPF_W, R7, R0, 4))
    builder.jump_if(BPF_JNE, R1, on, immediate=Switch.OFF)
    _count(builder, PathCounter.OFF)
    builder.add(mov64_imm(R0, unwanted), exit_insn())
    builder.place(on)
    builder.jump_if(BPF_JEQ, R1, random, immediate=Switch.RANDOM)
    builder.jump(chosen)
    builder.place(random)
    _look_up(builder, RANDOM_MAP, passed)
    builder.add(
        ldx_mem(BPF_DW, R1, R0, 0),
        ld_imm64(R2, 0x9E3779B97F4A7C15),
        alu64_reg(BPF_ADD, R1, R2),
        stx_mem(BPF_DW, R0, R1, 0),
    )
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None)):
        builder.add(mov64_reg(R2, R1), alu64_imm(BPF_RSH, R2, shift), alu64_reg(BPF_XOR, R1, R2))
        if factor is not None:
            builder.add(ld_imm64(R2, factor), alu64_reg(BPF_MUL, R1, R2))
    # The upper half times the number of paths, its upper half again: 0 … paths - 1.
    builder.add(alu64_imm(BPF_RSH, R1, 32), alu64_reg(BPF_MUL, R7, R1), alu64_imm(BPF_RSH, R7, 32))
    builder.place(chosen)


def _timestamp(builder: Builder, passed: Label) -> None:
    """Write time, mark and path into the probe."""
    builder.add(call(_BPF_FUNC_KTIME_GET_TAI_NS), mov64_reg(R8, R0))
    _load_frame(builder, passed)
    builder.add(
        endian(BPF_TO_BE, R8, 64),
        stx_mem(BPF_DW, R2, R8, PAYLOAD_AT + HOOK_AT),
        st_mem(BPF_W, R2, PAYLOAD_AT + HOOK_AT + 8, socket.htonl(MARK)),
        mov32_reg(R1, R7),
        endian(BPF_TO_BE, R1, 32),
        stx_mem(BPF_W, R2, R1, PAYLOAD_AT + PATH_AT),
        st_mem(BPF_H, R2, UDP_AT + 6, 0),
    )


def _timestamp_aside(builder: Builder, passed: Label) -> None:
    """Put time, digest and path into the ring buffer."""
    hashed, timestamped = builder.label(), builder.label()
    builder.add(call(_BPF_FUNC_KTIME_GET_TAI_NS), stx_mem(BPF_DW, R10, R0, _TIMESTAMP_AT + 8))
    _load_frame(builder, passed, PAYLOAD_AT)
    # R4: length of the payload by the UDP header; R0: the digest.
    builder.add(ldx_mem(BPF_H, R4, R2, UDP_AT + 4), endian(BPF_TO_BE, R4, 16))
    builder.jump_if(BPF_JLT, R4, passed, immediate=8)
    builder.add(
        alu64_imm(BPF_ADD, R4, -8),
        ld_imm64(R0, DIGEST_START),
        alu64_reg(BPF_XOR, R0, R4),
        ld_imm64(R8, DIGEST_FACTOR),
    )
    for word in range(DIGEST_WORDS):
        builder.jump_if(BPF_JLT, R4, hashed, immediate=8 * (word + 1))
        builder.add(mov64_reg(R1, R2), alu64_imm(BPF_ADD, R1, PAYLOAD_AT + 8 * (word + 1)))
        builder.jump_if(BPF_JGT, R1, hashed, source=R3, wide=True)
        builder.add(
            ldx_mem(BPF_DW, R5, R2, PAYLOAD_AT + 8 * word),
            alu64_reg(BPF_XOR, R0, R5),
            alu64_reg(BPF_MUL, R0, R8),
            mov64_reg(R1, R0),
            alu64_imm(BPF_RSH, R1, 32),
            alu64_reg(BPF_XOR, R0, R1),
        )
    builder.place(hashed)
    builder.add(
        stx_mem(BPF_DW, R10, R0, _TIMESTAMP_AT),
        stx_mem(BPF_W, R10, R7, _TIMESTAMP_AT + 16),
        st_mem(BPF_W, R10, _TIMESTAMP_AT + 20, 0),
    )
    builder.load_map(R1, TIMESTAMP_RING)
    builder.add(
        mov64_reg(R2, R10),
        alu64_imm(BPF_ADD, R2, _TIMESTAMP_AT),
        mov64_imm(R3, TIMESTAMP.size),
        mov64_imm(R4, _BPF_RB_NO_WAKEUP),
        call(_BPF_FUNC_RINGBUF_OUTPUT),
    )
    builder.jump_if(BPF_JEQ, R0, timestamped, immediate=0, wide=True)
    _count(builder, PathCounter.WITHOUT_TIMESTAMP)
    builder.place(timestamped)


def _part(builder: Builder, paths: int, redirected: Collection[int], unwanted: XdpAction) -> None:
    """Send the frame on its path and return; what has no path after all comes to `unwanted`."""
    labels = [builder.label() for _ in range(paths)]
    redirect = builder.label()
    for number, label in enumerate(labels):
        builder.jump_if(BPF_JEQ, R7, label, immediate=number)
    builder.add(mov64_imm(R0, XdpAction.XDP_ABORTED), exit_insn())
    for number, label in enumerate(labels):
        builder.place(label)
        if number in redirected:
            builder.add(mov64_imm(R8, 8 * (len(PathCounter) + number)))
            builder.jump(redirect)
        else:
            _count(builder, len(PathCounter) + number)
            builder.add(mov64_imm(R0, XdpAction.XDP_PASS), exit_insn())
    if not redirected:
        return
    builder.place(redirect)
    no_socket = builder.label()
    builder.load_map(R1, SOCKET_MAP)
    builder.add(
        ldx_mem(BPF_W, R2, CONTEXT, _XDP_MD_RX_QUEUE_INDEX),
        mov64_imm(R3, unwanted),
        call(_BPF_FUNC_REDIRECT_MAP),
    )
    builder.jump_if(BPF_JNE, R0, no_socket, immediate=XdpAction.XDP_REDIRECT)
    builder.add(
        alu64_reg(BPF_ADD, R9, R8),
        ldx_mem(BPF_DW, R1, R9, 0),
        alu64_imm(BPF_ADD, R1, 1),
        stx_mem(BPF_DW, R9, R1, 0),
        mov64_imm(R0, XdpAction.XDP_REDIRECT),
        exit_insn(),
    )
    builder.place(no_socket)
    _count(builder, PathCounter.NO_SOCKET)
    builder.add(mov64_imm(R0, unwanted), exit_insn())
