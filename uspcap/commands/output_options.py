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
        "-w",
        "--write",
        "path",
        metavar="FILE",
        help="Write frames to FILE: pcapng, or pcap if it ends in .pcap; '-' is stdout.",
    ),
    click.option(
        "-C",
        "--rotate-size",
        type=SizeType(),
        help="Start a new file before this one exceeds SIZE: a number is in MB; or e.g. 1G.",
    ),
    click.option(
        "-G",
        "--rotate-time",
        type=PeriodType(),
        help="Start a new file at this interval of timestamps: seconds, or e.g. 1h.",
    ),
    click.option("--align", is_flag=True, help="With -G: align files to UTC, so that 1h starts on the hour."),
    click.option("--rotate-frames", type=CountType(1), metavar="N", help="Start a new file after N frames."),
    click.option(
        "-W", "--keep-files", type=CountType(1), metavar="N", help="Keep the newest N files; delete older ones."
    ),
    click.option("-z", "--post-rotate", metavar="COMMAND", help="Run COMMAND FILE for each finished file."),
    click.option(
        "--compress", type=CompressType(), help="zstd[:LEVEL] or none. Default: zstd if the file name ends in .zst."
    ),
    click.option("--mode", type=FileModeType(), help="Permissions of new files, less the umask. Default: 600."),
    click.option("--direct", is_flag=True, help="Bypass the page cache (O_DIRECT)."),
    click.option(
        "--write-buffer",
        type=CountType(0, 1 << 20),
        metavar="MIB",
        help=f"Buffer for frames waiting for the disk; 0: the reader writes and waits. Default: {DEFAULT_BUFFER_MIB}.",
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
