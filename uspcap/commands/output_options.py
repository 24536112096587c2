"""Options about the files that a capture writes, and what was asked for with them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final

import click

from uspcap.commands.options import CompressType, CountType, FileModeType, PeriodType, SizeType
from uspcap.errors import UsageError
from uspcap.sinks.output import DEFAULT_BUFFER_MIB, OutputRequest
from uspcap.sinks.rotation import RotationRules

_Command = Callable[..., Any]

_OPTIONS: Final = (
    click.option(
        "-w", "--write", "path", metavar="FILE", help="Write frames there; '-' is stdout, '.pcap' means pcap."
    ),
    click.option(
        "-C", "--rotate-size", type=SizeType(), help="Begin a new file before SIZE: millions of bytes, or 1G."
    ),
    click.option(
        "-G", "--rotate-time", type=PeriodType(), help="Begin a new file so often, by timestamps: seconds, or 1h."
    ),
    click.option("--align", is_flag=True, help="With -G: count from the epoch in UTC, so that 1h begins on the hour."),
    click.option("--rotate-frames", type=CountType(1), metavar="N", help="Begin a new file after so many frames."),
    click.option("-W", "--keep-files", type=CountType(1), metavar="N", help="Keep N files; delete the oldest."),
    click.option("-z", "--post-rotate", metavar="COMMAND", help="Run this on each finished file, whose name is added."),
    click.option(
        "--compress", type=CompressType(), help="zstd[:LEVEL] or none; by default, as -w ends in .zst or not."
    ),
    click.option(
        "--mode", type=FileModeType(), help="Permissions of new files, as 640; 600 by default, less the umask."
    ),
    click.option("--direct", is_flag=True, help="Write past the page cache (O_DIRECT)."),
    click.option(
        "--write-buffer",
        type=CountType(0, 1 << 20),
        metavar="MIB",
        help=f"What may wait for the disk ({DEFAULT_BUFFER_MIB}); 0: the reader itself writes, and waits.",
    ),
)
_PARAMETERS: Final = (
    "path",
    "rotate_size",
    "rotate_time",
    "align",
    "rotate_frames",
    "keep_files",
    "post_rotate",
    "compress",
    "mode",
    "direct",
    "write_buffer",
)


def output_options(command: _Command) -> _Command:
    """Give a command the options, and what was asked for as its parameter `output`: an OutputRequest or None."""

    @wraps(command)
    def with_output(*arguments: Any, **given: Any) -> Any:
        own = {name: given.pop(name) for name in _PARAMETERS}
        return command(*arguments, output=_output(**own), **given)

    for option in reversed(_OPTIONS):
        with_output = option(with_output)
    return with_output


def _output(
    path: str | None,
    rotate_size: int | None,
    rotate_time: int | None,
    align: bool,
    rotate_frames: int | None,
    keep_files: int | None,
    post_rotate: str | None,
    compress: int | None,
    mode: int | None,
    direct: bool,
    write_buffer: int | None,
) -> OutputRequest | None:
    rules = RotationRules(rotate_size, rotate_time, align, rotate_frames, keep_files)
    if path is not None:
        output = OutputRequest(path, rules, post_rotate, compress, direct, write_buffer, mode)
        output.check()
        return output
    others = (post_rotate, compress, write_buffer, mode)
    if rules != RotationRules() or direct or any(other is not None for other in others):
        raise UsageError("options about files need one to write: name it with -w")
    return None
