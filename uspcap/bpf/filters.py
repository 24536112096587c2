"""Filter expressions applied to batches of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from uspcap._core.columns import HeaderColumns
from uspcap.bpf.classic import Program, compile_filter
from uspcap.bpf.classic_bpf import ClassicProgram, run, run_inside, run_on_plain
from uspcap.bpf.expressions import INDEXED_TRANSPORTS, terms_of
from uspcap.bpf.readings import AS_TCPDUMP, FilterReading, hint_of, other_reading, reading_of
from uspcap.errors import FilterError
from uspcap.frames import FrameBatch, Interface


@dataclass(slots=True)
class MatchCounts:
    """How many frames a filter matched; those of parts add up.

    Attributes
    ----------
    expression : str
    reading : FilterReading
    matched : int
    otherwise : int
        Frames that would have matched under the other reading, counted until one matched.
    """

    expression: str = ""
    reading: FilterReading = AS_TCPDUMP
    matched: int = 0
    otherwise: int = 0

    def append(self, later: MatchCounts) -> None:
        """Take in those of the part that comes after."""
        self.expression, self.reading = later.expression, later.reading
        self.matched += later.matched
        self.otherwise += later.otherwise

    @property
    def hint(self) -> str:
        """What to try where nothing matched and something would have, a sentence without a full stop; else ''."""
        return self.hint_for("the filter", "--outer applies it to those")

    def hint_for(self, what: str, remedy: str) -> str:
        """Return the same of what is no filter of a command; `remedy` is for what applies to innermost packets."""
        if self.matched or not self.otherwise:
            return ""
        return hint_of(f"{what} {self.expression!r}", self.reading, self.otherwise, remedy)


class FrameFilter:
    """Keeps the frames of each batch that an expression matches.

    Under the outer reading an expression means what it means to `tcpdump -r`. Under the inner one it applies to the
    innermost packet that the batch's headers know (`FrameBatch.decode_tunnels`), tagged or not, over IPv4 and IPv6
    alike, but for its terms about frames and lengths. Where nothing carries a frame's packet and it is of IPv4, the
    two are one and the same program. A term that asks for bytes that were not captured rejects the frame, behind `not`
    too, under both.

    The expression is compiled once for each link type that the batches' interfaces have. Where it
    compiles for none of the link types met so far, `apply` raises, as tcpdump stops with an error.
    Where it compiles for some, a link type that it makes no sense for (`ether host` on raw IP) has
    no frame that could match: its frames are taken out, and `refused` says why. So the outcome does
    not depend on which interface's frame comes first.

    Frames are taken for those of a capture file, live ones too: what only a kernel knows of them, such as
    their direction, is refused, and BSD loopback headers are read in the byte order of the batch's file
    (`FrameBatch.big_endian_options`).

    An instance reuses its buffers: one thread at a time.

    Parameters
    ----------
    expression : str
        As in pcap-filter(7); an empty one, or only white space, keeps everything and needs no libpcap.
    reading : FilterReading
        What it applies to; as tcpdump reads it, unless asked otherwise (`filter_of_files`).
    otherwise : FilterReading, optional
        The other reading, which is tried on frames for as long as none has matched.

    Attributes
    ----------
    expression : str
    reading : FilterReading
        The outer one where libpcap does not take the expression for what it was taken for here.
    refused : dict of int to str
        Link type to why the expression does not compile for it; a report should show these.
    counts : MatchCounts
        How many frames matched, and how many would have under the other reading while none did.
    """

    def __init__(
        self, expression: str = "", reading: FilterReading = AS_TCPDUMP, *, otherwise: FilterReading | None = None
    ) -> None:
        self.expression = expression.strip()
        self.reading = reading
        self.refused: dict[int, str] = {}
        self._programs: dict[tuple[int, bool], ClassicProgram] = {}
        self._joined: dict[tuple[int, bool], tuple[ClassicProgram, ClassicProgram]] = {}
        self._verified = False
        self.counts = MatchCounts(self.expression, reading)
        self._otherwise = None if otherwise is None or not self.expression else FrameFilter(expression, otherwise)
        # Decode on one's own, and tunnels always: the batch's headers are those that the analyses share.
        self._decodes: bool = False
        if self._otherwise is not None:
            self._otherwise._decodes = True
        self._headers: HeaderColumns | None = None
        self._current: dict[int, ClassicProgram] = {}
        self._compiled_for: tuple[Sequence[Interface], bool] = ((), False)
        self._mask = np.zeros(0, np.uint8)
        self._left = np.zeros(0, np.uint8)
        # libpcap finds the bytes of `tcp[13]` behind IPv4 only.
        self._same_over_ipv6 = (
            reading.node is None
            or reading.tags_aside
            or not any(term.indexed() & INDEXED_TRANSPORTS for term in terms_of(reading.node) if term.comparison)
        )

    def apply(self, batch: FrameBatch) -> None:
        """Take the frames that do not match out of a batch; `frames_read` stays.

        Parameters
        ----------
        batch : FrameBatch
            Changed in place. Header columns decoded before are decoded again if a frame is taken out.

        Raises
        ------
        FilterError
            The expression compiles for no link type of the interfaces met so far.
        MissingFeature
            There is no libpcap to compile with.
        """
        if not self.expression:
            return
        mask, accepted = self.matches(batch)
        if accepted < batch.count:
            batch.keep(mask)

    def matches(self, batch: FrameBatch) -> tuple[NDArray[np.uint8], int]:
        """Tell which frames of a batch match, and leave it as it is.

        Parameters
        ----------
        batch : FrameBatch
            Read only.

        Returns
        -------
        mask : ndarray of uint8, shape (batch.count,)
            Not 0 where a frame matches; of use until the next call.
        int
            How many do.

        Raises
        ------
        FilterError, MissingFeature
            As `apply`.
        """
        count = batch.count
        if self._mask.shape[0] < count:
            self._mask = np.zeros(batch.capacity, np.uint8)
            self._left = np.zeros(batch.capacity, np.uint8)
        mask = self._mask[:count]
        if not self.expression:
            mask[:] = 1
            return mask, count
        interfaces, big_endian = self._compiled_for
        if batch.interfaces is not interfaces or batch.big_endian_options != big_endian:
            self._compile(batch.interfaces, batch.big_endian_options)
        mask[:] = 0
        matched = sum(self._run(program, batch, mask, link_type) for link_type, program in self._current.items())
        self.counts.matched += matched
        self.counts.reading = self.reading
        if self._otherwise is not None and not self.counts.matched:
            self._try_otherwise(batch)
        return mask, matched

    def _try_otherwise(self, batch: FrameBatch) -> None:
        """Count the frames of a batch that would match under the other reading, in tunnels too."""
        assert self._otherwise is not None
        try:
            self.counts.otherwise += self._otherwise.matches(batch)[1]
        except FilterError:
            # Nothing would: as `vlan` about a packet without a link layer.
            self._otherwise = None

    def _run(self, program: ClassicProgram, batch: FrameBatch, mask: NDArray[np.uint8], link_type: int) -> int:
        """Set `mask` where the frames of one link type match; return how many do."""
        if self.reading.node is None:
            return run(program, batch, mask, link_type)
        left = self._left[: batch.count]
        left[:] = 0
        accepted, marked = run_on_plain(program, batch, mask, left, link_type, self._same_over_ipv6)
        if not marked:
            return accepted
        joined = self._joined_for(link_type, batch.big_endian_options)
        headers = self._decoded(batch) if self._decodes else batch.headers
        return accepted + run_inside(program, *joined, batch, headers, mask, left, link_type, self.reading.tags_aside)

    def _decoded(self, batch: FrameBatch) -> HeaderColumns:
        """Return header columns of innermost packets that are no one else's."""
        from uspcap._core.headers import decode

        if self._headers is None or self._headers.capacity < batch.capacity:
            self._headers = HeaderColumns(batch.capacity)
        decode(batch, self._headers, True)
        return self._headers

    def _joined_for(self, link_type: int, big_endian: bool) -> tuple[ClassicProgram, ClassicProgram]:
        """Return the programs for innermost packets with IP and without, made on first use."""
        joined = self._joined.get((link_type, big_endian))
        if joined is None:
            from uspcap.bpf.terms import ETHERNET, RAW, joined_program

            assert self.reading.node is not None
            order: Literal["little", "big"] = "big" if big_endian else "little"
            joined = (
                joined_program(self.reading.node, link_type, RAW, order),
                joined_program(self.reading.node, link_type, ETHERNET, order),
            )
            self._joined[link_type, big_endian] = joined
        return joined

    def _verify(self, program: Program, big_endian: bool) -> None:
        """Fall back to the outer reading where libpcap reads the expression otherwise than it was taken apart."""
        if self._verified or self.reading.node is None:
            return
        from uspcap.bpf.terms import is_taken_apart_right

        self._verified = True
        if not is_taken_apart_right(self.reading.node, program, "big" if big_endian else "little"):
            self.reading = FilterReading("outer", "it is read as tcpdump does, as its terms could not be separated")
            self._otherwise = None

    def _compile(self, interfaces: Sequence[Interface], big_endian: bool) -> None:
        link_types = dict.fromkeys(interface.link_type for interface in interfaces)
        for link_type in link_types:
            if (link_type, big_endian) in self._programs or link_type in self.refused:
                continue
            try:
                program = compile_filter(
                    self.expression,
                    link_type,
                    netmask=0,  # as `tcpdump -r` has it: `ip broadcast` means 0.0.0.0 and 255.255.255.255
                    file_byte_order="big" if big_endian else "little",
                )
            except FilterError as error:
                self.refused[link_type] = str(error)
            else:
                self._verify(program, big_endian)
                self._programs[link_type, big_endian] = ClassicProgram(program.instructions)
        if self.refused and not self._programs:
            raise FilterError(next(iter(self.refused.values())))
        self._current = {
            link_type: self._programs[link_type, big_endian]
            for link_type in link_types
            if link_type not in self.refused
        }
        self._compiled_for = (interfaces, big_endian)


def filter_of_files(expression: str = "", *, outer: bool = False) -> FrameFilter:
    """Return the filter for frames of files, and of rules: of the innermost packet, where the expression lets it be.

    Parameters
    ----------
    expression : str
        As in pcap-filter(7).
    outer : bool
        Read it as tcpdump does.
    """
    return filter_as_read(expression, reading_of(expression, outer=outer))


def filter_as_read(expression: str, reading: FilterReading) -> FrameFilter:
    """Return the filter for a reading, which tries the other one for as long as nothing matches."""
    if not expression.strip():
        return FrameFilter()
    return FrameFilter(expression, reading, otherwise=other_reading(expression, reading))
