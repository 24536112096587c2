"""Who timestamps a frame: NIC set-up, the NIC's clock, and its conversion to UTC."""

from typing import Final, Literal, get_args

Timestamps = Literal["auto", "hardware", "hardware:ptp", "xdp", "kernel", "user"]
"""What a user can ask for; `auto` is the best that can be trusted without a change to the NIC's settings, and with
`hardware:ptp` the NIC need timestamp only PTP's events, the rest being timestamped as where it timestamps nothing."""

TIMESTAMPS: Final[tuple[Timestamps, ...]] = get_args(Timestamps)
