"""The first frames of all inputs, in order of time: what decisions that rest on a beginning are made of.

However a capture is split over files, and whichever is named first, it begins with the same frames.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Final

import numpy as np

from uspcap.formats import open_capture
from uspcap.formats.reader import BATCH_FRAMES
from uspcap.formats.waking import Wake
from uspcap.frames import FrameBatch, Interface
from uspcap.stages.chain_merging import ENDED, FULL, Merger
from uspcap.stages.order import bounds
from uspcap.stages.ordering import Chain
from uspcap.stages.reading import EVERYTHING, in_order_of_time, is_read_once

MOST_FILES: Final = 64
"""Files that are looked at: those that begin first."""

DATA_BYTES: Final = 1 << 20


def beginning(paths: Sequence[str], frames: int, wake: Wake | None = None) -> Generator[FrameBatch, None, None]:
    """Yield the first frames of files, the same batch each time, refilled.

    Where one can be read only once, its frames are given as they lie.

    Parameters
    ----------
    paths : sequence of str
    frames : int
        So many at least, where there are as many.
    wake : Wake, optional

    Raises
    ------
    CaptureFileError, NotACaptureFile, MissingFeature
        A file cannot be read.
    """
    seen = 0
    once = next((path for path in paths if is_read_once(path)), None)
    with closing(_merged(paths, wake) if once is None else _as_it_lies(once, wake)) as batches:
        for batch in batches:
            seen += batch.frames_read
            yield batch
            if seen >= frames:
                break


def _as_it_lies(path: str, wake: Wake | None) -> Generator[FrameBatch, None, None]:
    with open_capture(path, wake) as reader:
        yield from reader.batches()


def _merged(paths: Sequence[str], wake: Wake | None) -> Generator[FrameBatch, None, None]:
    first = in_order_of_time(paths, EVERYTHING)[:MOST_FILES]
    chains = [bounds("auto").chain() for _ in first]
    merger = Merger(chains)
    interfaces: list[Interface] = []
    batch = FrameBatch(BATCH_FRAMES)
    batch.set_data(np.empty(DATA_BYTES, np.uint8))
    before = 0
    with ExitStack() as open_files:
        feeds = [_feed(one.path, chain, interfaces, open_files, wake) for one, chain in zip(first, chains, strict=True)]
        while True:
            merger.begin(batch)
            while (what := merger.fill(batch)) >= 0:
                if next(feeds[what], None) is None:
                    chains[what].finish()
            if what not in (ENDED, FULL):
                batch.set_data(np.empty(2 * merger.needed, np.uint8))
                continue
            if batch.count:
                batch.frames_before, batch.frames_read = before, batch.count
                before += batch.count
                batch.big_endian_options = merger.big_endian
                if len(batch.interfaces) != len(interfaces):
                    batch.set_interfaces(interfaces)
                batch.refilled()
                yield batch
            if what == ENDED:
                break


def _feed(
    path: str, chain: Chain, interfaces: list[Interface], open_files: ExitStack, wake: Wake | None
) -> Iterator[bool]:
    """Push one batch after the other of a file; yields after each."""
    numbers: list[int] = []
    reader = open_files.enter_context(open_capture(path, wake))
    for batch in reader.batches():
        for interface in batch.interfaces[len(numbers) :]:
            if interface not in interfaces:
                interfaces.append(interface)
            numbers.append(interfaces.index(interface))
        chain.push(batch, np.array(numbers, np.uint16), 0, batch.big_endian_options)
        reader.source.park()
        yield True
