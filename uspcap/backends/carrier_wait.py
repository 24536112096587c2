"""How long a link is away while its driver is made to work in another mode, before and after frames are read.

What happens to it in between is for `uspcap.network.watch` to tell.
"""

from __future__ import annotations

import time
from typing import Final

from uspcap.backends.network_interface import NetworkInterface

PATIENCE_S: Final = 10.0
"""A link that is trained again takes a few seconds; one that has lost its other end never comes back."""

_LOOK_EVERY_S: Final = 0.01


class CarrierWait:
    """The carrier of an interface, as it was when the wait began.

    Parameters
    ----------
    interface : NetworkInterface
    """

    def __init__(self, interface: NetworkInterface) -> None:
        self._interface = interface
        self._was_there = interface.has_carrier()
        self._began_s = time.monotonic()

    def wait(self) -> float:
        """Wait until the carrier is back, `PATIENCE_S` at most, and return for how many seconds it was away.

        0 where it is there, or was not there before. The time counts from the making of this object.
        """
        if not self._was_there or not self._interface.exists or self._interface.has_carrier():
            return 0.0
        until_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < until_s:
            time.sleep(_LOOK_EVERY_S)
            if not self._interface.exists or self._interface.has_carrier():
                break
        return time.monotonic() - self._began_s
