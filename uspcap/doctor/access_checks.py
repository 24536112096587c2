"""What this process may do for a capture: tried, step by step (`attempts`), and what mends a refusal.

References
----------
capabilities(7); bpf(2); packet(7); Documentation/networking/af_xdp.rst; net/core/filter.c; prlimit(1).
"""

from __future__ import annotations

import dataclasses
import errno
from typing import Final

from uspcap.capabilities import (
    AF_XDP_NEEDS,
    PACKET_SOCKET_NEEDS,
    UMEM_BYTES,
    XDP_PROGRAM_NEEDS,
    Explanation,
    af_xdp_needs,
    listed,
    missing_of,
)
from uspcap.doctor.attempts import Refused
from uspcap.doctor.findings import Finding, Status
from uspcap.doctor.host import Host

SMALLEST_UMEM_BYTES: Final = 512 << 10
"""What it locks for one queue at least."""

_CANNOT: Final = {
    "packet-ring": "packet_mmap and 'compare -i' cannot have a ring.",
    "bpf-map": "af_xdp and 'compare -i' have no program at the hook.",
    "xdp-program": "af_xdp and 'compare -i' have no program at the hook.",
    "xdp-socket": "af_xdp has no socket.",
}


def check_capabilities(host: Host) -> Finding:
    """Tell which capabilities are effective; what they are good for, the attempts after this tell."""
    source = "capget, /proc/self/ns/user"
    every = sorted({*PACKET_SOCKET_NEEDS, *AF_XDP_NEEDS})
    missing = missing_of(every, host.capabilities)
    evidence = ", ".join(sorted(host.capabilities)) or "none of those that captures need"
    if host.in_user_namespace:
        evidence += "; of a user namespace, not of the host"
    if missing:
        explained = host.explain(every, af_xdp_needs())
        then = "For one run, then for good, as root:" if explained.commands else _sentence(explained)
        return Finding(
            "capabilities",
            Status.PROBLEM,
            evidence,
            source,
            f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing: packet_mmap needs "
            f"{listed(PACKET_SOCKET_NEEDS)}, af_xdp {listed(AF_XDP_NEEDS)}. {then}",
            explained.commands,
        )
    if host.in_user_namespace:
        return Finding(
            "capabilities",
            Status.ADVICE,
            evidence,
            source,
            "They count for interfaces of this namespace. BPF and the limit on locked memory ask for the host's.",
        )
    return Finding("capabilities", Status.OK, evidence, source)


def check_packet_ring(host: Host) -> Finding:
    """Try a packet socket and its ring."""
    refused = host.attempts.packet_ring()
    return _judged(host, "packet-ring", refused, "a packet socket and its ring were granted", PACKET_SOCKET_NEEDS)


def check_bpf_map(host: Host) -> Finding:
    """Try the maps of the capture program."""
    refused = host.attempts.bpf_maps()
    return _judged(host, "bpf-map", refused, "an XSKMAP and a map of counters were granted", XDP_PROGRAM_NEEDS)


def check_xdp_program(host: Host) -> Finding:
    """Try to load the capture program."""
    refused = host.attempts.xdp_program()
    return _judged(host, "xdp-program", refused, "the capture program was loaded", XDP_PROGRAM_NEEDS)


def check_xdp_socket(host: Host) -> Finding:
    """Try an AF_XDP socket."""
    refused = host.attempts.xdp_socket()
    return _judged(host, "xdp-socket", refused, "an AF_XDP socket was granted", ("CAP_NET_RAW",))


def check_locked_memory(host: Host) -> Finding:
    """Try how much memory an AF_XDP socket may lock, up to what a capture takes by default."""
    source = "XDP_UMEM_REG, RLIMIT_MEMLOCK"
    limit = "no limit" if host.locked_memory_bytes < 0 else f"a limit of {host.locked_memory_bytes >> 10:,} KiB"
    largest = UMEM_BYTES
    room = host.memory_room_bytes
    while room is not None and largest > room // 2 and largest > SMALLEST_UMEM_BYTES:
        # Memory that is locked where there is none to spare has the kernel end processes, and not only this one.
        largest >>= 1
    size = largest
    refusals: list[Refused] = []
    while size >= SMALLEST_UMEM_BYTES:
        patient = not 0 <= host.locked_memory_bytes < size
        refused = host.attempts.umem(size, patient=patient)
        if refused is None:
            break
        refusals.append(refused)
        if refused.number not in (errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN):
            break
        size >>= 1
    granted = not refusals or refused is None
    evidence = f"{size >> 10:,} KiB were locked" if granted else "nothing was locked"
    evidence += f"; {limit}" + (f"; {refusals[0]}" if refusals else "")
    if not granted and not refusals[0].step.startswith("setsockopt"):
        return Finding("locked-memory", Status.UNKNOWN, f"not tried: {refusals[0]}", source)
    if granted and largest == size == UMEM_BYTES:
        return Finding("locked-memory", Status.OK, evidence, source)
    if largest < UMEM_BYTES and granted and not refusals:
        assert room is not None
        return Finding(
            "locked-memory",
            Status.ADVICE,
            f"{evidence}; more was not tried, as {room >> 20:,} MiB are free here",
            source,
            f"An AF_XDP capture locks {UMEM_BYTES >> 10:,} KiB unless -B asks for less.",
        )
    less = f", as -B {size >> 10} does" if granted else ""
    alone = host.explain([*AF_XDP_NEEDS, "CAP_IPC_LOCK"], ()).commands[:1]
    return Finding(
        "locked-memory",
        Status.WARNING if granted else Status.PROBLEM,
        evidence,
        source,
        f"An AF_XDP capture locks {UMEM_BYTES >> 10:,} KiB unless -B asks for less{less}. As root, the limit is lifted "
        f"for a shell{', or for one run by CAP_IPC_LOCK' if alone else ''}:",
        ("prlimit --pid $$ --memlock=unlimited", *alone),
    )


def _judged(host: Host, name: str, refused: Refused | None, granted: str, needed: tuple[str, ...]) -> Finding:
    """Return the finding about an attempt."""
    source = "tried, and given back"
    if refused is None:
        return Finding(name, Status.OK, granted, source)
    if not refused.number:
        return Finding(name, Status.PROBLEM, str(refused), source, _CANNOT[name])
    explained = _explain(host, refused, needed)
    consequence = f"{_CANNOT[name]} {_sentence(explained)}"
    # Lasting ways are beside the capabilities.
    return Finding(name, Status.PROBLEM, str(refused), source, consequence, explained.commands[:1])


def _sentence(explained: Explanation) -> str:
    """Return an explanation as a sentence, which commands follow where there are some."""
    reason = explained.reason[:1].upper() + explained.reason[1:]
    return f"{reason}:" if explained.commands else f"{reason}: {explained.remedy}."


_REMEDIES: Final = {
    errno.EAFNOSUPPORT: ("this kernel was built without it", "use the other backend, or another kernel"),
    errno.ENOSYS: ("this kernel, or its seccomp filter, has no bpf system call", "use packet_mmap"),
    errno.EPROTONOSUPPORT: ("this kernel was built without it", "use the other backend, or another kernel"),
    errno.EINVAL: ("this kernel does not know it, being too old or built without it", "use packet_mmap"),
    errno.EMFILE: ("this process may open no more files", "raise 'ulimit -n'"),
    errno.ENFILE: ("the host may open no more files", "raise fs.file-max"),
    errno.ENOMEM: ("there is no memory for it, in the host or in this container", "free some"),
    errno.E2BIG: ("the kernel's verifier examines fewer instructions", "use packet_mmap"),
}


def _explain(host: Host, refused: Refused, needed: tuple[str, ...]) -> Explanation:
    if refused.number in (errno.EPERM, errno.EACCES) and not refused.said:
        # A command that grants this step alone would lead to the next one that is refused.
        backend = PACKET_SOCKET_NEEDS if refused.step.startswith("socket(AF_PACKET") else af_xdp_needs()
        return dataclasses.replace(host.explain(needed, ()), commands=host.explain(needed, backend).commands)
    if refused.number in _REMEDIES:
        return Explanation(*_REMEDIES[refused.number])
    return Explanation("the kernel refuses it for a reason of its own", "look into its log (dmesg)")
