"""Write batches of frames as a pcapng or pcap capture file.

Every timestamp is written in nanoseconds. Each `write` hands its frames to the output before it returns, which as a
rule hands them to the system at once, so that a file that is being written can be read up to the last batch.
"""

from __future__ import annotations

import struct
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from uspcap.errors import CaptureFileError, UsageError
from uspcap.formats import pcapng_blocks
from uspcap.formats.pcapng_blocks import InterfaceStatistics
from uspcap.formats.record_formatter import RecordFormatter
from uspcap.formats.record_output import FileOutput, RecordOutput
from uspcap.frames import FrameBatch, Interface

BUFFER_BYTES = 1 << 20
"""Records formatted before each write(2); more is no faster and leaves the CPU's cache."""

PCAP_NANOSECOND_MAGIC = 0xA1B23C4D
PCAP_SNAPLEN_BYTES = 262144
"""What a pcap file says where its interface has no limit: the longest that libpcap takes."""

LINKTYPE_ETHERNET = 1


def open_writer(
    path: str,
    format: str = "pcapng",
    *,
    interfaces: Sequence[Interface] = (),
    comment: str = "",
    hardware: str = "",
    operating_system: str = "",
    application: str = "uspcap",
    buffer_bytes: int = BUFFER_BYTES,
    output: RecordOutput | None = None,
) -> CaptureWriter:
    """Create a capture file, or empty the one that is there.

    Parameters
    ----------
    path : str
        Path of the file; `-` for standard output.
    format : {'pcapng', 'pcap'}
        pcap holds one link type and no options, comments, interfaces or statistics.
    interfaces : sequence of Interface
        The first interfaces of the file; others are added as batches bring them.
    comment, hardware, operating_system, application : str
        What a pcapng file says about itself (opt_comment, shb_hardware, shb_os, shb_userappl); empty
        ones are left out. Not kept by pcap.
    buffer_bytes : int
        How much is formatted before it is written; at least 64.
    output : RecordOutput, optional
        What carries the records to the file; closed with the writer, and where this fails.

    Raises
    ------
    CaptureFileError
        Where the file cannot be written, or the format cannot hold an interface.
    UsageError
        Where there is no such format.
    """
    output = FileOutput() if output is None else output
    writer = make_writer(
        format,
        output,
        comment=comment,
        hardware=hardware,
        operating_system=operating_system,
        application=application,
        buffer_bytes=buffer_bytes,
    )
    try:
        writer.open_file(path)
        writer.add_interfaces(interfaces)
    except BaseException:
        output.close()
        raise
    return writer


def make_writer(
    format: str,
    output: RecordOutput,
    *,
    comment: str = "",
    hardware: str = "",
    operating_system: str = "",
    application: str = "uspcap",
    buffer_bytes: int = BUFFER_BYTES,
) -> CaptureWriter:
    """Return a writer that has no file yet; parameters are as in `open_writer`.

    Raises
    ------
    UsageError
        Where there is no such format.
    """
    if format == "pcap":
        return PcapWriter(output, buffer_bytes)
    if format != "pcapng":
        raise UsageError(f"there is no format {format!r}; choose pcapng or pcap")
    section = pcapng_blocks.section_header(
        comment=comment, hardware=hardware, operating_system=operating_system, application=application
    )
    return PcapngWriter(output, section, buffer_bytes)


class CaptureWriter(ABC):
    """A capture file being written; a context manager that closes it.

    Where the disk is full or the system fails otherwise, the file is cut back to its last whole frame,
    `write` raises, and nothing more can be written.

    Attributes
    ----------
    interfaces : list of Interface
        The interfaces of the file so far.
    frames_dropped : int
        Frames left out because the output had no room for them.
    file_frames, file_bytes : int
        What was handed to the output for the present file.
    """

    def __init__(self, output: RecordOutput, buffer_bytes: int) -> None:
        self.interfaces: list[Interface] = []
        self.frames_dropped = 0
        self.file_frames = self.file_bytes = 0
        self._output = output
        output.know_records(self._whole)
        self._formatter = RecordFormatter(buffer_bytes)
        self._closed = False
        self._mapped: Sequence[Interface] | None = None
        self._map: NDArray[np.uint32] = np.zeros(0, np.uint32)
        self._snaplens: NDArray[np.uint32] = np.zeros(0, np.uint32)

    def add_interface(self, interface: Interface) -> int:
        """Add one interface to the file and return its number there.

        Raises
        ------
        CaptureFileError
            Where the format cannot hold it, or the file cannot be written.
        """
        self.add_interfaces([interface])
        return len(self.interfaces) - 1

    def add_interfaces(self, interfaces: Sequence[Interface]) -> None:
        """Add interfaces to the file, numbered on from those that it has."""
        self._check_usable()
        self._check_interfaces(interfaces)
        self._declare(interfaces)
        self.interfaces.extend(interfaces)
        self._snaplens = np.array([interface.snaplen for interface in self.interfaces], np.uint32)

    def write(self, batch: FrameBatch, interface_map: Sequence[int] | None = None) -> None:
        """Write the frames of a batch, in its order.

        Parameters
        ----------
        batch : FrameBatch
            Its timestamps are nanoseconds since the epoch, UTC.
        interface_map : sequence of int, optional
            For each of the batch's interfaces, its number in the file. Where not given, each goes to the
            equal one in the file (the second of two equal ones to the second); one that the file lacks
            is added.

        Raises
        ------
        CaptureFileError
            Where the file cannot be written or the format cannot hold an interface. `frames_written`
            says how much is safe.
        """
        self._check_usable()
        if interface_map is None:
            numbers = self._map_interfaces(batch.interfaces)
        else:
            numbers = self._given_map(batch, interface_map)
        self._write_rows(batch, 0, batch.count, numbers, None)

    def write_rows(self, batch: FrameBatch, first_row: int, end_row: int, byte_limit: int | None = None) -> int:
        """Write some rows of a batch to the present file, up to a number of bytes.

        Parameters
        ----------
        batch : FrameBatch
        first_row, end_row : int
            The first row and the one to end before; each interface goes to the equal one in the file.
        byte_limit : int, optional
            End before the record that might take `file_bytes` beyond it. The first frame of a file is always
            taken.

        Returns
        -------
        int
            The row to go on with: `end_row`, or the one that `byte_limit` has no room for. Rows that the output
            had no room for are passed over, and counted in `frames_dropped`.

        Raises
        ------
        CaptureFileError
            As `write`.
        """
        self._check_usable()
        return self._write_rows(batch, first_row, end_row, self._map_interfaces(batch.interfaces), byte_limit)

    def has_room(self) -> bool:
        """Tell whether the output takes frames now; where not, `write` drops and counts them.

        Raises
        ------
        CaptureFileError
            Where an earlier write failed.
        """
        self._check_usable()
        return self._output.make_room(self._formatter)

    def drop(self, frames: int) -> None:
        """Count frames that are left out because there is no room."""
        self.frames_dropped += frames

    def open_file(self, path: str) -> None:
        """Begin a file with all interfaces so far; the one before was finished.

        Raises
        ------
        CaptureFileError
            Where it cannot be opened or written.
        """
        self._output.open_file(path)
        self.file_frames = self.file_bytes = 0
        self._begin()
        self._declare(self.interfaces)

    def flush(self) -> None:
        """Bring to the file all frames so far, as far as its output can (`RecordOutput.flush`); raises as `write`."""
        self._check_usable()
        self._output.flush()

    def finish_file(self, statistics: Mapping[int, InterfaceStatistics] | None = None) -> None:
        """Write the end of the present file, after which another may begin.

        Parameters
        ----------
        statistics : mapping of int to InterfaceStatistics, optional
            By the interface's number in the file. Not kept by pcap.

        Raises
        ------
        CaptureFileError
            Where the end of the file cannot be written.
        """
        self._check_usable()
        self._finish(statistics or {})
        self._output.finish_file()

    def close(self, statistics: Mapping[int, InterfaceStatistics] | None = None) -> None:
        """Finish the file, as `finish_file` does; may be called again. Nothing comes after."""
        if self._closed:
            return
        try:
            if not self._output.broken:
                self._finish(statistics or {})
        finally:
            self._closed = True
            self._output.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def frames_written(self) -> int:
        """Frames that are whole in the file, or in all of them."""
        return self._output.frames_written

    @property
    def refusal(self) -> str:
        """Why frames that were written are not in the file, where some are not."""
        return self._output.refusal

    def look_at_file(self) -> None:
        """Look whether the present file is still in its place; where not, that is in `losses` soon."""
        self._output.look_at_file()

    @property
    def losses(self) -> Sequence[str]:
        """What happened to files while they were written, a sentence each; complete once closed."""
        return self._output.losses

    @property
    def frames_refused(self) -> int:
        """Frames that were not written because the format cannot hold them."""
        return self._formatter.timestamps_refused + self._formatter.lengths_refused

    @property
    def frames_cut(self) -> int:
        """Frames that were longer than their interface's snaplen, and cut to it."""
        return self._formatter.frames_cut

    @property
    def problems(self) -> list[str]:
        """What could not be written as it came, one sentence each, without a full stop."""
        formatter = self._formatter
        said = (
            (
                formatter.timestamps_refused,
                f"frames were not written: their timestamps lie outside of {self._timestamp_range}",
            ),
            (
                formatter.timestamps_missing,
                "frames have no timestamp and were written with 0, which others read as 1970",
            ),
            (formatter.lengths_refused, "frames were not written: they are too long for one block"),
            (formatter.frames_cut, "frames were cut to the snaplen that the file states"),
            (formatter.options_refused, self._options_problem),
        )
        return [f"{count} {what}" for count, what in said if count]

    _timestamp_range: str
    _options_problem: str

    @abstractmethod
    def _begin(self) -> None:
        """Write what a file begins with before anything is known of its interfaces."""

    @abstractmethod
    def _declare(self, interfaces: Sequence[Interface]) -> None:
        """Write what the file says about new interfaces."""

    @abstractmethod
    def _format(
        self, batch: FrameBatch, row: int, end_row: int, numbers: NDArray[np.uint32], byte_limit: int | None
    ) -> int:
        """Format rows from `row` on, as many as fit, and return the next one."""

    @abstractmethod
    def _finish(self, statistics: Mapping[int, InterfaceStatistics]) -> None:
        """Write the end of the file."""

    @abstractmethod
    def _whole(self, data: memoryview) -> tuple[int, int]:
        """Return how many bytes of `data` are whole records, and how many frames these hold."""

    def _check_interfaces(self, interfaces: Sequence[Interface]) -> None:
        """Raise CaptureFileError where the file cannot hold interfaces beside those that it has."""
        for interface in interfaces:
            for what, value, bits in (
                ("link type", interface.link_type, 16),
                ("snaplen", interface.snaplen, 32),
            ):
                if not 0 <= value < 1 << bits:
                    raise CaptureFileError(
                        f"cannot write {self._output.place}: {what} {value} does not fit in {bits} bits"
                    )

    def _check_usable(self) -> None:
        self._output.tell_failure()
        if self._closed or self._output.broken:
            state = "an earlier write failed" if self._output.broken else "it is closed"
            raise CaptureFileError(f"cannot write {self._output.place}: {state}; it holds {self.frames_written} frames")

    def _map_interfaces(self, interfaces: Sequence[Interface]) -> NDArray[np.uint32]:
        """Return the number in the file of each of a batch's interfaces, adding those that it lacks."""
        if interfaces is self._mapped:
            return self._map
        numbers: dict[tuple[Interface, int], int] = {}
        met: Counter[Interface] = Counter()
        for number, interface in enumerate(self.interfaces):
            numbers[interface, met[interface]] = number
            met[interface] += 1
        met.clear()
        wanted = []
        for interface in interfaces:
            wanted.append((interface, met[interface]))
            met[interface] += 1
        missing = [interface for interface in wanted if interface not in numbers]
        for number, one in enumerate(missing, start=len(self.interfaces)):
            numbers[one] = number
        if missing:
            self.add_interfaces([interface for interface, _ in missing])
        self._map = np.array([numbers[interface] for interface in wanted], np.uint32)
        self._mapped = interfaces
        return self._map

    def _given_map(self, batch: FrameBatch, interface_map: Sequence[int]) -> NDArray[np.uint32]:
        """Check a map that the caller made."""
        if len(interface_map) != len(batch.interfaces):
            raise ValueError(f"interface_map has {len(interface_map)} items for {len(batch.interfaces)}")
        for number in interface_map:
            if not 0 <= number < len(self.interfaces):
                raise ValueError(f"interface_map names interface {number} of {len(self.interfaces)}")
        return np.array(interface_map, np.uint32)

    def _put(self, data: bytes) -> None:
        """Write bytes that hold no frames."""
        self._output.put(data)
        self.file_bytes += len(data)

    def _write_rows(
        self, batch: FrameBatch, row: int, end_row: int, numbers: NDArray[np.uint32], byte_limit: int | None
    ) -> int:
        formatter, output = self._formatter, self._output
        while row < end_row:
            if not output.make_room(formatter):
                self.drop(end_row - row)
                return end_row
            if byte_limit is None:
                stop, left = end_row, None
            elif self.file_frames:
                stop, left = end_row, max(byte_limit - self.file_bytes, 0)
            else:
                stop, left = row + 1, None
            row = self._format(batch, row, stop, numbers, left)
            self.file_frames += formatter.frames
            self.file_bytes += output.take(formatter)
            if formatter.limit_reached:
                break
        return row


class PcapngWriter(CaptureWriter):
    """A pcapng file: one section, little-endian, timestamps in nanoseconds."""

    _timestamp_range = "1970 to 2262, which is what pcapng and this program can hold"
    _options_problem = "options of frames were not written: they are damaged or of unknown byte order"

    def __init__(self, output: RecordOutput, section: bytes, buffer_bytes: int) -> None:
        super().__init__(output, buffer_bytes)
        self._section = section

    def _begin(self) -> None:
        self._put(self._section)

    def _declare(self, interfaces: Sequence[Interface]) -> None:
        self._put(b"".join(pcapng_blocks.interface_description(interface) for interface in interfaces))

    def _format(
        self, batch: FrameBatch, row: int, end_row: int, numbers: NDArray[np.uint32], byte_limit: int | None
    ) -> int:
        snaplens, big_endian = self._snaplens[numbers], batch.big_endian_options
        return self._formatter.pcapng(batch, row, numbers, snaplens, big_endian, end_row, byte_limit)

    def _finish(self, statistics: Mapping[int, InterfaceStatistics]) -> None:
        blocks = b""
        for number, counted in sorted(statistics.items()):
            if not 0 <= number < len(self.interfaces):
                raise ValueError(f"statistics name interface {number} of {len(self.interfaces)}")
            read_at = counted.end_timestamp_ns if counted.end_timestamp_ns is not None else time.time_ns()
            blocks += pcapng_blocks.interface_statistics(number, counted, read_at)
        self._put(blocks)

    def _whole(self, data: memoryview) -> tuple[int, int]:
        at = frames = 0
        while at + 12 <= len(data):
            kind, length = struct.unpack_from("<II", data, at)
            if at + length > len(data):
                break
            at += length
            frames += kind == pcapng_blocks.ENHANCED_PACKET_BLOCK
        return at, frames


class PcapWriter(CaptureWriter):
    """A pcap file with nanoseconds: one link type, seconds since 1970 in 32 bits.

    The header is written with the first interface, or on closing.
    """

    _timestamp_range = "1970 to 2106, which is what pcap can hold; write pcapng"
    _options_problem = "frames lost their comments and other options, for which pcap has no place"

    def __init__(self, output: RecordOutput, buffer_bytes: int) -> None:
        super().__init__(output, buffer_bytes)
        self._snaplen = 0
        self._header_written = False

    def _begin(self) -> None:
        self._header_written = False

    def _check_interfaces(self, interfaces: Sequence[Interface]) -> None:
        super()._check_interfaces(interfaces)
        link_types = sorted({interface.link_type for interface in (*self.interfaces, *interfaces)})
        if len(link_types) > 1:
            raise CaptureFileError(
                f"cannot write {self._output.place}: pcap holds one link type, and the interfaces have "
                f"{' and '.join(map(str, link_types))}; write pcapng"
            )

    def _declare(self, interfaces: Sequence[Interface]) -> None:
        if interfaces and not self._header_written:
            snaplens = [interface.snaplen for interface in interfaces]
            self._snaplen = max(snaplens) if all(snaplens) else 0
            self._write_header(interfaces[0].link_type)

    def _write_header(self, link_type: int) -> None:
        snaplen = self._snaplen or PCAP_SNAPLEN_BYTES
        self._put(struct.pack("<IHHiIII", PCAP_NANOSECOND_MAGIC, 2, 4, 0, 0, snaplen, link_type))
        self._header_written = True

    def _format(
        self, batch: FrameBatch, row: int, end_row: int, numbers: NDArray[np.uint32], byte_limit: int | None
    ) -> int:
        return self._formatter.pcap(batch, row, self._snaplen, end_row, byte_limit)

    def _finish(self, statistics: Mapping[int, InterfaceStatistics]) -> None:
        if not self._header_written:
            self._write_header(LINKTYPE_ETHERNET)

    def _whole(self, data: memoryview) -> tuple[int, int]:
        at = frames = 0
        while at + 16 <= len(data):
            at_next = at + 16 + struct.unpack_from("<I", data, at + 8)[0]
            if at_next > len(data):
                break
            at = at_next
            frames += 1
        return at, frames
