"""Which interface a probe's socket depends on, and the watch over it."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from uspcap.network.links import Link, all_addresses, find_link, link_at
from uspcap.network.netlink import Rtnetlink
from uspcap.network.watch import InterfaceWatch


@contextmanager
def watch_for(
    interface: str | None, host: str, tell: Callable[[str], None], on_end: Callable[[], None]
) -> Iterator[InterfaceWatch | None]:
    """Watch the interface that datagrams come to, as long as it is known which one that is.

    Parameters
    ----------
    interface : str or None
        The one that the socket is bound to.
    host : str
        Address that the socket is bound to; without an interface, the one that has it is watched, and none for
        0.0.0.0 and ::.
    tell : callable
        Called with what happens to it, by another thread.
    on_end : callable
        Called, by another thread, when it can be of no use any more: gone, moved to another namespace, or set down.
    """
    with Rtnetlink() as netlink:
        link = find_link(netlink, interface) if interface is not None else _with_address(netlink, host)
    if link is None:
        yield None
        return
    with InterfaceWatch(link.index, link.name, tell=tell, on_end=on_end, down_is_the_end=True).start() as watch:
        yield watch


def _with_address(netlink: Rtnetlink, host: str) -> Link | None:
    """Return the interface that has an address; None where it is nobody's own, as a wildcard."""
    address, _, scope = host.partition("%")
    if scope:
        return find_link(netlink, scope)
    wanted = ipaddress.ip_address(address)
    for index, addresses in all_addresses(netlink).items():
        if any(ipaddress.ip_interface(address).ip == wanted for address in addresses):
            return link_at(netlink, index)
    return None
