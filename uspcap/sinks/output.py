"""What a capture is written to: one file or many, compressed or not, at once or by a thread."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from uspcap.backends.base import LiveSource, SourceStatistics
from uspcap.errors import UsageError
from uspcap.formats.byte_sink import ByteSink, FileSink, Patience
from uspcap.formats.compression import DEFAULT_LEVEL, ZstdSink, zstd_frames
from uspcap.formats.direct_sink import DirectSink
from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.formats.record_output import FileOutput, RecordOutput
from uspcap.formats.writer import CaptureWriter, make_writer, open_writer
from uspcap.protocols.link_types import link_type_name
from uspcap.sinks.disk_writer import QueuedOutput
from uspcap.sinks.host_facts import SectionTexts
from uspcap.sinks.post_rotate import PostRotateCommand
from uspcap.sinks.rotation import COMPRESSED_SUFFIX, FileNames, FileRing, RotatingWriter, RotationRules
from uspcap.sinks.rotation_places import check_directory, make_directories

DEFAULT_BUFFER_MIB: Final = 64

MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs"})
"""Nothing that is written there has to wait for a disk."""


@dataclass(frozen=True, slots=True)
class OutputRequest:
    """What the user asked for; `check` says whether it goes together.

    Attributes
    ----------
    path : str
        The file, or the pattern of names; `-` for standard output.
    rules : RotationRules
    command : str or None
        Run on each finished file.
    level : int or None
        Of zstd; None to compress only where the name ends in .zst, 0 for not at all.
    direct : bool
        Write past the page cache.
    buffer_mib : int or None
        What may wait for the disk, MiB; 0 writes without a thread, None as `has_thread` says.
    mode : int or None
        Permissions of new files; None for `byte_sink.NEW_FILE_MODE` less the umask.
    owner : tuple of int or None
        User and group that new files are given to.
    """

    path: str
    rules: RotationRules = field(default_factory=RotationRules)
    command: str | None = None
    level: int | None = None
    direct: bool = False
    buffer_mib: int | None = None
    mode: int | None = None
    owner: tuple[int, int] | None = None

    @property
    def rotates(self) -> bool:
        rules = self.rules
        return any(rule is not None for rule in (rules.file_bytes, rules.period_ns, rules.frames))

    @property
    def awaited(self) -> bool:
        """Whether somebody may wait for each frame at the other end: anything but a regular file."""
        if self.path == "-":
            return True
        try:
            return not stat.S_ISREG(Path(self.path).stat().st_mode)
        except (OSError, ValueError):
            # Not there; or it cannot be written, which opening it says better.
            return False

    @property
    def compression_level(self) -> int:
        """Of zstd; 0 for none."""
        if self.level is not None:
            return self.level
        return DEFAULT_LEVEL if self.path.endswith(COMPRESSED_SUFFIX) else 0

    @property
    def format(self) -> str:
        return "pcap" if self.path.removesuffix(COMPRESSED_SUFFIX).endswith(".pcap") else "pcapng"

    def check(self) -> None:
        """Raise where options contradict each other or something that they need is missing.

        Raises
        ------
        UsageError
        MissingFeature
            Where the package that compresses is not installed.
        """
        rules = self.rules
        if rules.aligned and rules.period_ns is None:
            raise UsageError("--align aligns files to the clock, and needs -G, the length of each")
        if not self.rotates:
            for given, option in ((rules.keep, "-W"), (self.command, "-z")):
                if given is not None:
                    raise UsageError(f"{option} is for rotated files: add -C, -G or --rotate-frames")
        if self.path == "-":
            if self.rotates:
                raise UsageError("standard output is one file: name a file with -w to rotate")
            if self.direct:
                raise UsageError("standard output cannot be written past the page cache: name a file with -w")
        if self.command is not None:
            PostRotateCommand(self.command)
        if self.compression_level:
            zstd_frames(self.path, self.compression_level)


def open_output(
    request: OutputRequest, source: LiveSource, section: SectionTexts, patience: Patience | None = None
) -> CaptureWriter | RotatingWriter:
    """Return a writer for what a source gives.

    Of many files, the first is opened with the first frame: `check_directory` checks here that this can be done, and is
    to be called again where privileges are given up afterwards.

    Parameters
    ----------
    request : OutputRequest
    source : LiveSource
    section : SectionTexts
        What each file says about itself, where its format can.
    patience : Patience, optional
        With the reader of a pipe that takes nothing.

    Raises
    ------
    CaptureFileError
        Where the file cannot be written.
    UsageError
        Where the options do not go with the source.
    """
    if request.buffer_mib and not source.counts_an_interface:
        raise UsageError("a replay waits for the disk and needs no --write-buffer: leave it out")
    if request.rotates:
        check_directory(request.path)
    ring = None if request.rules.keep is None else FileRing(request.rules.keep)
    command = None if request.command is None else PostRotateCommand(request.command)

    def opening(path: str) -> None:
        make_directories(request.path, path)
        if ring is not None:
            ring.opening(path)

    files = FileOutput(
        _sink_opener(request, patience or Patience()),
        opening=opening if request.rotates else None,
        finished=None if command is None else command.run,
    )
    output: RecordOutput = files
    if source.counts_an_interface and has_thread(request):
        output = QueuedOutput(files, (request.buffer_mib or DEFAULT_BUFFER_MIB) << 20)
    if not request.rotates:
        return open_writer(request.path, request.format, interfaces=source.interfaces, output=output, **section)
    writer = make_writer(request.format, output, **section)
    started_ns = time.time_ns()
    return RotatingWriter(
        writer,
        request.rules,
        FileNames(request.path),
        interfaces=source.interfaces,
        statistics=lambda: interface_statistics(source, source.statistics(), started_ns, writer.frames_dropped),
        ring=ring,
        command=command,
    )


def has_thread(request: OutputRequest) -> bool:
    """Tell whether a thread of its own writes: where waiting is possible, unless the user says.

    Frames that go to standard output are for a program that reads them at once, and a memory file system does not
    wait: there the thread would cost CPU time and bring nothing.
    """
    if request.buffer_mib is not None:
        return request.buffer_mib > 0
    if request.compression_level or request.direct:
        return True
    return request.path != "-" and file_system(request.path) not in MEMORY_FILE_SYSTEMS


def file_system(path: str) -> str:
    """Return the type of file system that a file to be written lies on, empty where it is none or is not known.

    References
    ----------
    proc_pid_mountinfo(5).
    """
    try:
        try:
            status = Path(path).stat()
        except FileNotFoundError:
            status = Path(path).parent.stat()
        if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            return ""
        device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            before, _, after = line.partition(" - ")
            if before.split()[2] == device:
                return after.split()[0]
    except (OSError, ValueError, IndexError):
        pass
    return ""


def interface_statistics(
    source: LiveSource, statistics: SourceStatistics, started_ns: int, too_slow: int
) -> dict[int, InterfaceStatistics] | None:
    """Return what a file says of its interfaces at its end: the counts since the capture began.

    Parameters
    ----------
    source : LiveSource
    statistics : SourceStatistics
        The source's, at this moment.
    started_ns : int
        When the capture began, nanoseconds since the epoch.
    too_slow : int
        Frames dropped because the disk was too slow; they count among those that the system dropped.
    """
    if not source.counts_an_interface:
        return None
    # The counts are of an interface itself; the first of its descriptions stands for it.
    parts = source.parts()
    counts = tuple(statistics.by_interface.values()) or (statistics,)
    by_number: dict[int, InterfaceStatistics] = {}
    for number, (part, counted) in enumerate(zip(parts, counts, strict=True)):
        said = [str(clock) for clock in part.clocks()]
        if too_slow:
            which = ", of all interfaces" if len(parts) > 1 else ""
            said.append(f"dropped because the disk was too slow{which}: {too_slow}")
        by_number[number] = InterfaceStatistics(
            start_timestamp_ns=started_ns,
            end_timestamp_ns=time.time_ns(),
            received=counted.received,
            dropped=sum(counted.nic_dropped.values()),
            # Whose frames the disk had no room for is not known.
            os_dropped=counted.dropped_total + (too_slow if len(parts) == 1 else 0),
            comment="; ".join(said),
        )
    return by_number


def check_link_types(request: OutputRequest, source: LiveSource) -> str:
    """Refuse what a pcap file cannot hold; return what it does not tell, in a sentence, empty for nothing.

    Raises
    ------
    UsageError
        Interfaces are of different link types, of which the format has one a file.
    """
    if request.format != "pcap" or len(source.parts()) == 1:
        return ""
    types = {interface.name: link_type_name(interface.link_type) for interface in source.interfaces}
    if len(set(types.values())) > 1:
        listed = " and ".join(f"{name} {link_type}" for name, link_type in types.items())
        raise UsageError(
            f"a pcap file has one link type, and these interfaces have several ({listed}): write pcapng, as with -w "
            f"{request.path.removesuffix('.zst').removesuffix('.pcap')}.pcapng"
        )
    return "a pcap file does not record which interface a frame came from; pcapng does"


def _sink_opener(request: OutputRequest, patience: Patience) -> Callable[[str], ByteSink]:
    def open_sink(path: str) -> ByteSink:
        sink: ByteSink
        if request.direct:
            sink = DirectSink(path, mode=request.mode, owner=request.owner)
        else:
            sink = FileSink(path, mode=request.mode, owner=request.owner, patience=patience)
        return ZstdSink(sink, request.compression_level) if request.compression_level else sink

    return open_sink
