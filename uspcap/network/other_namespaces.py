"""Interfaces of other network namespaces that are made on interfaces of this one.

A container's macvlan or VLAN is in a namespace of its own, and nothing in this one shows it. So the namespaces that
processes are in, and those that have a name, are entered by a thread of its own, which needs CAP_SYS_ADMIN.
"""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from uspcap.network.links import Link, all_links
from uspcap.network.netlink import RTM_GETNSID, NetlinkRefusal, Rtnetlink, attribute, attributes

_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_NAMED: Final = Path("/run/netns")
_PROCESSES: Final = Path("/proc")
_OURS: Final = Path("/proc/thread-self/ns/net")

# linux/net_namespace.h, after struct rtgenmsg, which is padded.
_GENERAL_HEADER: Final = bytes(4)
_NETNSA_NSID: Final = 1
_NETNSA_FD: Final = 3

_MOST_NAMED: Final = 3

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class LinkElsewhere:
    """An interface of another namespace.

    Attributes
    ----------
    link : Link
        Its `lowers` are in the namespace that asked.
    namespace : str
        Name as `ip netns` has it, else a process that is in it.
    """

    link: Link
    namespace: str


def links_in_other_namespaces(netlink: Rtnetlink) -> tuple[tuple[LinkElsewhere, ...], str]:
    """Return the interfaces that other namespaces have on top of this one's, and where there may be more.

    Parameters
    ----------
    netlink : Rtnetlink
        Of this namespace.

    Returns
    -------
    links : tuple of LinkElsewhere
    unseen : str
        Some of the namespaces that this process may not look into; empty where it may into all.
    """
    found: list[LinkElsewhere] = []
    ours = os.open(_OURS, os.O_RDONLY | os.O_CLOEXEC)
    try:
        paths, closed = _other_namespaces(ours)
        looked_into = {_id_of(netlink, ours)}
        for path, called in paths:
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:  # the last process there has ended
                continue
            try:
                with _socket_in(descriptor) as there:
                    found += _made_on(all_links(there), _id_of(there, ours), called)
                looked_into.add(_id_of(netlink, descriptor))
            except PermissionError:
                closed.append(called)
            except OSError:  # the name of a namespace that is none
                continue
            finally:
                os.close(descriptor)
        if closed:
            found += _by_ids(netlink, ours, looked_into)
    finally:
        os.close(ours)
    return tuple(found), ", ".join(closed[:_MOST_NAMED]) + (", …" if len(closed) > _MOST_NAMED else "")


def _other_namespaces(ours: int) -> tuple[list[tuple[Path, str]], list[str]]:
    """Return a path of each other namespace and what it is called, and what those are called that cannot be read."""
    met = {_identity(os.fstat(ours))}
    found = []
    closed = []
    named = [(path, path.name) for path in _entries(_NAMED)]
    of_processes = [path for path in _entries(_PROCESSES) if path.name.isdigit()]
    for path, called in [*named, *((path / "ns/net", f"that of process {path.name}") for path in of_processes)]:
        try:
            identity = _identity(path.stat())
        except PermissionError:
            closed.append(called)
        except OSError:  # a process that has ended
            continue
        else:
            if identity not in met:
                met.add(identity)
                found.append((path, called))
    return found, closed


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _socket_in(descriptor: int) -> Rtnetlink:
    """Return a socket of another namespace; raises OSError where that may not be entered."""
    outcome: list[Rtnetlink | OSError] = []

    def enter() -> None:
        try:
            if _libc.setns(descriptor, _CLONE_NEWNET):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            outcome.append(Rtnetlink())
        except OSError as error:
            outcome.append(error)

    # A namespace is a thread's own; this one ends there.
    thread = threading.Thread(target=enter, name="uspcap-namespace")
    thread.start()
    thread.join()
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    return outcome[0]


def _id_of(netlink: Rtnetlink, descriptor: int) -> int:
    """Return the id that a socket's namespace has for another; below 0 for none."""
    (answer,) = netlink.request(RTM_GETNSID, _GENERAL_HEADER + attribute(_NETNSA_FD, struct.pack("=i", descriptor)))
    values = dict(attributes(answer.body[len(_GENERAL_HEADER) :]))
    return int(struct.unpack("=i", values[_NETNSA_NSID])[0])


def _by_ids(netlink: Rtnetlink, ours: int, looked_into: Set[int]) -> list[LinkElsewhere]:
    """Return what can be had without entering: of namespaces that this one has an id for, as it has where a link moved.

    Ids in these answers are this namespace's own.
    """
    found: list[LinkElsewhere] = []
    for answer in netlink.dump(RTM_GETNSID, _GENERAL_HEADER):
        (there,) = struct.unpack("=i", dict(attributes(answer.body[len(_GENERAL_HEADER) :]))[_NETNSA_NSID])
        if there in looked_into or there == _id_of(netlink, ours):
            continue
        try:
            links = all_links(netlink, namespace=there)
        except NetlinkRefusal:  # CAP_NET_ADMIN is missing there
            continue
        # To answer, the kernel may have had to give this namespace an id of its own.
        found += _made_on(links, _id_of(netlink, ours), f"number {there}")
    return found


def _made_on(links: tuple[Link, ...], our_id: int, called: str) -> list[LinkElsewhere]:
    return [LinkElsewhere(link, called) for link in links if our_id >= 0 and link.lower_namespace == our_id]
