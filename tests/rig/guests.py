"""The NICs by name, and their QEMU options; those of one machine are in one guest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

SENDER_MAC: Final = "52:54:00:00:00:01"
RECEIVER_MAC: Final = "52:54:00:00:00:02"
"""What tests' frames go from and to; QEMU's are others, so that each NIC can be found."""


@dataclass(frozen=True, slots=True)
class Guest:
    """What a guest has for one kind of test: two NICs of a kind on one wire.

    Attributes
    ----------
    name : str
    driver : str
        The kernel's, of both.
    device : str
        QEMU's; empty where the driver makes its interfaces itself.
    options : str
        Of QEMU's device.
    queues : int
    taps : bool
        The NICs are on a bridge of the host, which needs root there, and may merge frames; else on a hub of QEMU's.
    behind_ports : bool
        Each NIC has a PCI Express port of its own.
    xdp : {'zero copy', 'copy', 'skb'}
        The best that the driver grants there.
    """

    name: str
    driver: str
    device: str = ""
    options: str = ""
    queues: int = 1
    taps: bool = False
    behind_ports: bool = False
    xdp: Literal["zero copy", "copy", "skb"] = "copy"

    @property
    def number(self) -> int:
        """Among all."""
        return list(GUESTS).index(self.name) + 1

    @property
    def addresses(self) -> tuple[str, str]:
        """Sender's and receiver's, as QEMU gives them."""
        return f"52:54:00:00:{self.number:02x}:01", f"52:54:00:00:{self.number:02x}:02"

    @property
    def tap_names(self) -> tuple[str, str]:
        return f"rig{self.number}a", f"rig{self.number}b"

    def machine_options(self) -> list[str]:
        """Return QEMU's options for the NICs."""
        words: list[str] = []
        if not self.device:
            return words
        for address, tap, side in zip(self.addresses, self.tap_names, "ab", strict=True):
            name = f"{self.number}{side}"
            options = f",{self.options}" if self.options else ""
            if self.behind_ports:
                slot = 2 * self.number + (side == "b")
                words += ["-device", f"pcie-root-port,id=port{name},chassis={slot},slot={slot}"]
                options += f",bus=port{name}"
            back = f"hubport,id=net{name},hubid={self.number}"
            if self.taps:
                back = f"tap,id=net{name},ifname={tap},script=no,downscript=no"
            if self.queues > 1:
                back += f",queues={self.queues}"
                options += f",mq=on,vectors={2 * self.queues + 2}"
            words += ["-netdev", back, "-device", f"{self.device},netdev=net{name},mac={address},romfile={options}"]
        return words


_VIRTIO: Final = "virtio-net-pci,rx_queue_size=1024"
_ZERO_COPY: Final = "iommu_platform=on,disable-legacy=on"
"""virtio_net hands a UMEM to the device only where the device takes DMA addresses."""

GUESTS: Final = {
    guest.name: guest
    for guest in (
        Guest("igb", "igb", "igb", behind_ports=True, xdp="zero copy"),
        Guest("virtio", "virtio_net", _VIRTIO, _ZERO_COPY, xdp="zero copy"),
        Guest("vmxnet3", "vmxnet3", "vmxnet3"),
        Guest("e1000e", "e1000e", "e1000e", xdp="skb"),
        Guest("phc", "uspcap_phc"),
        Guest("virtio-queues", "virtio_net", _VIRTIO, queues=2, taps=True),
        Guest("virtio-no-merge", "virtio_net", _VIRTIO, f"{_ZERO_COPY},mrg_rxbuf=off", taps=True),
        Guest("virtio-fixed-offloads", "virtio_net", _VIRTIO, "ctrl_guest_offloads=off", taps=True),
    )
}


def machine_of(name: str) -> str:
    """Return the machine that a guest is in: to boot one, and import what tests need, takes longer than most tests."""
    return "taps" if GUESTS[name].taps else "hubs"
