"""Filter expressions applied to batches of frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from uspcap._native.classic_bpf import ClassicProgram, run
from uspcap.bpf.classic import compile_filter
from uspcap.errors import FilterError
from uspcap.frames import FrameBatch, Interface


class FrameFilter:
    """Keeps the frames of each batch that an expression matches, as `tcpdump -r` would.

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

    Attributes
    ----------
    expression : str
    refused : dict of int to str
        Link type to why the expression does not compile for it; a report should show these.
    """

    def __init__(self, expression: str = "") -> None:
        self.expression = expression.strip()
        self.refused: dict[int, str] = {}
        self._programs: dict[tuple[int, bool], ClassicProgram] = {}
        self._current: dict[int, ClassicProgram] = {}
        self._compiled_for: tuple[Sequence[Interface], bool] = ((), False)
        self._mask = np.zeros(0, np.uint8)

    def apply(self, batch: FrameBatch) -> None:
        """Take the frames that do not match out of a batch; `frames_read` stays.

        Parameters
        ----------
        batch : FrameBatch
            Changed in place. Header columns decoded before are decoded anew if a frame is taken out.

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
        mask = self._mask[:count]
        if not self.expression:
            mask[:] = 1
            return mask, count
        interfaces, big_endian = self._compiled_for
        if batch.interfaces is not interfaces or batch.big_endian_options != big_endian:
            self._compile(batch.interfaces, batch.big_endian_options)
        mask[:] = 0
        return mask, sum(run(program, batch, mask, link_type) for link_type, program in self._current.items())

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
                self._programs[link_type, big_endian] = ClassicProgram(program.instructions)
        if self.refused and not self._programs:
            raise FilterError(next(iter(self.refused.values())))
        self._current = {
            link_type: self._programs[link_type, big_endian]
            for link_type in link_types
            if link_type not in self.refused
        }
        self._compiled_for = (interfaces, big_endian)
