"""Options about what lies inside of frames, alike on every command that reads files."""

from __future__ import annotations

import click

from uspcap.commands.declared_options import Decorator, give

TUNNELS_HELP = (
    "Decode tunnels (GRE, ERSPAN, VXLAN, GENEVE, GTP-U, IP in IP) and use the innermost headers, or never do. Default: "
    "where tunnels carry most frames."
)


def tunnels_option() -> Decorator:
    """Return `--tunnels` and `--no-tunnels`."""
    return click.option("--tunnels/--no-tunnels", "tunnels", default=None, help=TUNNELS_HELP)


def inside_options() -> Decorator:
    """Return both options."""
    return give([tunnels_option(), outer_option()])


def outer_option() -> Decorator:
    """Return `--outer`."""
    return click.option("--outer", is_flag=True, help="Apply filters and rules to the outer frame, as tcpdump does.")
