"""Who stamps a frame: NIC set-up, the NIC's clock, and its conversion to UTC."""

from typing import Final, Literal, get_args

Timestamps = Literal["auto", "hardware", "xdp", "kernel", "user"]
"""What a user can ask for; `auto` is the best that can be trusted without a change to the NIC's settings."""

TIMESTAMPS: Final[tuple[Timestamps, ...]] = get_args(Timestamps)
