"""Traffic for benchmarks: a veth pair in a namespace of its own, and a sender whose rate can be set.

The sender runs a small XDP program on copies of one frame, in the kernel (BPF_PROG_TEST_RUN with
BPF_F_TEST_XDP_LIVE_FRAMES): it numbers each copy, gives it one of 256 flows, waits until it is due, and redirects it to
one end of the pair; the other end receives it. Without a rate it does not even look at the clock. That offers several
times what packet sockets can. The program counts how long it waited, which is idle time spent spinning: a call for each
burst, with sleep in between, would do without, but every call takes 24 ms.

    python benchmarks/traffic.py INTERFACE RATE FRAMES LENGTH CPU        inside of the namespace; rate 0: no pacing
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from uspcap.bpf.builder import Builder, Program
from uspcap.bpf.instructions import (
    BPF_ADD,
    BPF_B,
    BPF_DW,
    BPF_JEQ,
    BPF_JGE,
    BPF_JGT,
    BPF_SUB,
    BPF_W,
    R0,
    R1,
    R2,
    R6,
    R7,
    R8,
    R9,
    R10,
    alu64_imm,
    alu64_reg,
    call,
    exit_insn,
    ldx_mem,
    mov32_imm,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from uspcap.bpf.kernel_types import MapType, XdpAction
from uspcap.bpf.syscalls import LoadedProgram, Map

PREFIX = "uspcap-bench-"
SOURCE, SINK = "source0", "sink0"
BATCH_FRAMES = 64
"""Frames that the kernel hands on at once where there is no rate; veth takes 256."""

BATCH_NS = 100_000
"""With a rate, of so many nanoseconds at most: at 10,000 frames/s each is handed on alone."""

LOOK_TIMES = 4000
"""How often the program looks at the clock for one frame; as much as the verifier follows. About 100 us."""

DEBT_NS = 1_000_000
"""A sender that was held up catches up on so much, and lets go of what is older."""

NICE = -15
"""Of the sender and of what captures, so that other work on the machine is felt less."""

_BPF_FUNC_MAP_LOOKUP_ELEM, _BPF_FUNC_KTIME_GET_NS, _BPF_FUNC_REDIRECT = 1, 5, 23
_STATE = struct.Struct("=QQQ")
"""Of the program: when the next frame is due, ns waited, frames so far."""


@dataclass(frozen=True)
class Sent:
    """What the sender did.

    Attributes
    ----------
    frames : int
    duration_s : float
        From the first burst to the end of the last.
    waited_s : float
        Of it, time that the program waited for a frame to be due.
    working_s : float
        CPU time that the scheduler charged the sender with, without the waiting: making frames, and the softirqs that
        receive them, as far as they ran on the sender's back.
    """

    frames: int
    duration_s: float
    waited_s: float
    working_s: float

    @property
    def rate(self) -> float:
        """Frames a second."""
        return self.frames / self.duration_s


def udp_frame(length: int) -> bytes:
    """Return a UDP frame of `length` bytes for another station, so that no protocol of the receiver's looks at it."""
    return (
        bytes.fromhex("0200000000020200000000010800")
        + struct.pack("!BBHHHBBH", 0x45, 0, length - 14, 0, 0x4000, 64, 17, 0)
        + bytes([192, 0, 2, 1, 198, 51, 100, 1])
        + struct.pack("!HHHH", 3000, 30001, length - 34, 0)
    ).ljust(length, b"\0")


@contextlib.contextmanager
def veth_pair() -> Iterator[str]:
    """Make a namespace with the pair SOURCE and SINK; give its name, and remove it whatever happens."""
    _remove_left_over()
    name = f"{PREFIX}{os.getpid()}"
    _ip("netns", "add", name)
    try:
        for scope in ("all", "default"):
            inside(name, "sh", "-c", f"echo 1 >/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        _ip("-n", name, "link", "add", SOURCE, "type", "veth", "peer", "name", SINK)
        for end in (SOURCE, SINK):
            _ip("-n", name, "link", "set", end, "up")
        # Without NAPI at the receiving end (GRO or an XDP program switch it on) veth takes no redirected frames.
        inside(name, "ethtool", "-K", SINK, "gro", "on")
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)


def inside(namespace: str, *command: str) -> str:
    """Run a command in the namespace and return what it prints."""
    done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def send(namespace: str, rate: float, frames: int, length: int, cpu: int) -> Sent:
    """Send from SOURCE to SINK in a process of its own; as fast as it goes where `rate` is 0."""
    command = [sys.executable, "-P", __file__, SOURCE, str(rate), str(frames), str(length), str(cpu)]
    done = subprocess.run(["ip", "netns", "exec", namespace, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the sender failed: {done.stderr.strip()}")
    return Sent(**json.loads(done.stdout))


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _remove_left_over() -> None:
    """Remove the namespaces of runs whose process is gone."""
    for path in Path("/run/netns").glob(f"{PREFIX}*"):
        if not Path(f"/proc/{path.name.removeprefix(PREFIX)}").exists():
            subprocess.run(["ip", "netns", "delete", path.name], check=False)


def _sending_program(ifindex: int, gap_ns: int) -> Program:
    """Build the program that sends; see the top of this module."""
    builder = Builder()
    leave = builder.label()
    builder.add(ldx_mem(BPF_W, R7, R1, 0), ldx_mem(BPF_W, R8, R1, 4), st_mem(BPF_W, R10, -4, 0))
    builder.load_map(R1, "state")
    builder.add(mov64_reg(R2, R10), alu64_imm(BPF_ADD, R2, -4), call(_BPF_FUNC_MAP_LOOKUP_ELEM))
    builder.jump_if(BPF_JEQ, R0, leave, immediate=0, wide=True)
    builder.add(mov64_reg(R6, R0), ldx_mem(BPF_DW, R9, R6, 16), alu64_imm(BPF_ADD, R9, 1), stx_mem(BPF_DW, R6, R9, 16))
    builder.add(mov64_reg(R1, R7), alu64_imm(BPF_ADD, R1, 48))
    builder.jump_if(BPF_JGT, R1, leave, source=R8, wide=True)
    # The low byte of the source port makes the flow; the number lies in the payload.
    builder.add(stx_mem(BPF_B, R7, R9, 35), stx_mem(BPF_W, R7, R9, 44))
    if gap_ns:
        _wait_until_due(builder, gap_ns)
    builder.add(mov32_imm(R1, ifindex), mov32_imm(R2, 0), call(_BPF_FUNC_REDIRECT))
    builder.add(exit_insn())
    builder.place(leave)
    builder.add(mov64_imm(R0, XdpAction.XDP_ABORTED), exit_insn())
    return builder.build()


def _wait_until_due(builder: Builder, gap_ns: int) -> None:
    """Look at the clock until the frame is due, and say when the next one is; the state is in R6."""
    look, due, in_time = (builder.label() for _ in range(3))
    builder.add(call(_BPF_FUNC_KTIME_GET_NS), mov64_reg(R7, R0), ldx_mem(BPF_DW, R8, R6, 0), mov64_imm(R9, 0))
    builder.place(look)
    builder.jump_if(BPF_JGE, R0, due, source=R8, wide=True)
    builder.add(alu64_imm(BPF_ADD, R9, 1))
    builder.jump_if(BPF_JGT, R9, due, immediate=LOOK_TIMES)
    builder.add(call(_BPF_FUNC_KTIME_GET_NS))
    builder.jump(look)
    builder.place(due)
    builder.add(mov64_reg(R1, R0), alu64_reg(BPF_SUB, R1, R7), ldx_mem(BPF_DW, R2, R6, 8), alu64_reg(BPF_ADD, R2, R1))
    builder.add(stx_mem(BPF_DW, R6, R2, 8), alu64_imm(BPF_ADD, R8, gap_ns), alu64_imm(BPF_SUB, R0, DEBT_NS))
    builder.jump_if(BPF_JGE, R8, in_time, source=R0, wide=True)
    builder.add(mov64_reg(R8, R0))
    builder.place(in_time)
    builder.add(stx_mem(BPF_DW, R6, R8, 0))


def _send_here(interface: str, rate: float, frames: int, length: int, cpu: int) -> Sent:
    os.sched_setaffinity(0, {cpu})
    os.setpriority(os.PRIO_PROCESS, 0, NICE)
    gap_ns = round(1e9 / rate) if rate else 0
    batch = max(1, min(BATCH_FRAMES, BATCH_NS // gap_ns)) if gap_ns else BATCH_FRAMES
    with Map(MapType.BPF_MAP_TYPE_ARRAY, name="state", max_entries=1, value_size=_STATE.size) as state:
        program = _sending_program(socket.if_nametoindex(interface), gap_ns).link({"state": state.fd})
        with LoadedProgram.load(program, name="uspcap_bench") as loaded:
            began, used = time.perf_counter(), time.process_time()
            loaded.send_live_frames(udp_frame(length), repeat=frames, batch_size=batch)
            duration_s, used = time.perf_counter() - began, time.process_time() - used
        _, waited_ns, sent = _STATE.unpack(state.lookup(bytes(4)))
    return Sent(sent, duration_s, waited_ns / 1e9, used - waited_ns / 1e9)


if __name__ == "__main__":
    name, rate_text, *numbers = sys.argv[1:]
    print(json.dumps(asdict(_send_here(name, float(rate_text), *map(int, numbers)))))
