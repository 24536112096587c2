"""Keep a slow disk from stopping whoever reads the ring: a thread writes, a bounded number of blocks waits for it.

The capture writer formats straight into the last block of the queue, behind what is there, and the thread writes
whatever that block holds by then: nothing is copied, and the slower the disk, the larger the pieces. Blocks that
were written are used again, the last one first, because it may still be in the CPU's cache.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uspcap.formats.record_formatter import RecordFormatter
from uspcap.formats.record_output import FileOutput, RecordOutput, Whole

BLOCK_BYTES = 1 << 20
LEAST_BLOCKS = 4

EAGER_BYTES = 1 << 18
GATHER_S = 0.02
"""The thread writes once there are `EAGER_BYTES`, or so long after the first of them: waking it costs more CPU than
writing a few frames."""

IDLE_S = 0.25
"""How often the output is called while nothing comes."""

ROOM_BYTES = 1 << 12
"""A block with less room than this is full."""


@dataclass(slots=True)
class _Block:
    """Room for records; `used` bytes are there, `taken` of them the thread has written. `full`: no more will come."""

    buffer: NDArray[np.uint8]
    used: int = 0
    taken: int = 0
    full: bool = False


@dataclass(slots=True)
class _Piece:
    """Records of one file in a block, not written yet: from `start` up to `end`; `frames` of them."""

    block: _Block
    start: int
    end: int
    frames: int


class QueuedOutput(RecordOutput):
    """Hands records to another output in a thread of its own.

    Frames for which there is no room are the caller's to count: `make_room` says so and never waits. What holds no
    frames always finds room. `finish_file` and `open_file` wait for nothing, too, and are done in their turn; only
    `close` waits until all is done.

    Parameters
    ----------
    inner : FileOutput
        Used by the thread alone.
    limit_bytes : int
        Size of all blocks together.
    """

    def __init__(self, inner: FileOutput, limit_bytes: int) -> None:
        self._inner = inner
        self._block_bytes = max(min(BLOCK_BYTES, limit_bytes // LEAST_BLOCKS), 2 * ROOM_BYTES)
        self._blocks_left = max(limit_bytes // self._block_bytes, LEAST_BLOCKS)
        self._free: list[NDArray[np.uint8]] = []
        self._queue: deque[_Piece | Callable[[], None]] = deque()
        # Where records are added: the last piece of the queue grows until something else must come behind it.
        self._block: _Block | None = None
        self._piece: _Piece | None = None
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._failure_raised = False
        self._closing = False
        self._thread: threading.Thread | None = None

    def know_records(self, whole: Whole) -> None:
        self._inner.know_records(whole)

    @property
    def place(self) -> str:
        return self._inner.place

    @property
    def frames_written(self) -> int:
        return self._inner.frames_written

    @property
    def broken(self) -> bool:
        # A failure of the thread that was not raised yet is for `tell_failure`.
        return self._failure_raised or (self._thread is None and self._inner.broken)

    @property
    def refusal(self) -> str:
        return self._inner.refusal

    def flush(self) -> None:
        self._in_turn(self._inner.flush)

    def look_at_file(self) -> None:
        self._in_turn(self._inner.look_at_file)

    @property
    def losses(self) -> Sequence[str]:
        return self._inner.losses

    def tell_failure(self) -> None:
        if self._failure is not None and not self._failure_raised:
            self._failure_raised = True
            raise self._failure

    def make_room(self, formatter: RecordFormatter) -> bool:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="disk writer", daemon=True)
            self._thread.start()
        block = self._block
        if block is not None and len(block.buffer) - block.used < ROOM_BYTES:
            self._end_block()
            block = None
        if block is None:
            if self._free:
                buffer = self._free.pop()
            elif self._blocks_left:
                self._blocks_left -= 1
                buffer = np.empty(self._block_bytes, np.uint8)
            else:
                return False
            block = self._block = _Block(buffer)
        formatter.place(block.buffer, block.used)
        return True

    def take(self, formatter: RecordFormatter) -> int:
        block = self._block
        assert block is not None
        added = formatter.used - block.used
        if not added:
            if not formatter.limit_reached:
                self._end_block()
            return 0
        with self._changed:
            # The formatter made itself another buffer where a record is longer than a block.
            block.buffer = formatter.buffer
            if self._piece is None:
                self._piece = _Piece(block, block.used, block.used, 0)
                self._queue.append(self._piece)
            block.used += added
            self._piece.end = block.used
            self._piece.frames += formatter.frames
            self._announce(added)
        return added

    def put(self, data: bytes) -> None:
        if self._thread is None:
            self._inner.put(data)
            return
        block = _Block(np.frombuffer(data, np.uint8), len(data), full=True)
        with self._changed:
            self._piece = None
            self._queue.append(_Piece(block, 0, len(data), 0))
            self._announce(len(data))

    def open_file(self, path: str) -> None:
        self._in_turn(lambda: self._inner.open_file(path))

    def finish_file(self) -> None:
        self._in_turn(self._inner.finish_file)

    def close(self) -> None:
        if self._thread is None:
            self._inner.close()
            return
        with self._changed:
            self._piece = None
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self.tell_failure()

    def _in_turn(self, action: Callable[[], None]) -> None:
        """Do something once everything before it is done."""
        if self._thread is None:
            action()
            return
        with self._changed:
            self._piece = None
            self._queue.append(action)
            self._announce(EAGER_BYTES)

    def _announce(self, added: int) -> None:
        """Wake the thread where it has something to do; the lock is held."""
        before = self._waiting_bytes
        self._waiting_bytes += added
        if not before or self._waiting_bytes >= EAGER_BYTES:
            self._changed.notify()

    def _end_block(self) -> None:
        """Add nothing more to the present block."""
        block, self._block = self._block, None
        if block is not None:
            with self._changed:
                self._piece = None
                block.full = True
                self._free_when_done(block)

    def _free_when_done(self, block: _Block) -> None:
        """Let a block be used again where everything in it is written and nothing more will come; the lock is held."""
        if block.full and block.taken == block.used and block.buffer.flags.writeable:
            fits = len(block.buffer) == self._block_bytes
            self._free.append(block.buffer if fits else np.empty(self._block_bytes, np.uint8))

    def _run(self) -> None:
        """Do what comes until `close`; after a failure, throw away what comes."""
        idle_at = time.monotonic() + IDLE_S
        while self._wait_for_work():
            try:
                self._do_next()
                if time.monotonic() >= idle_at:
                    self._inner.idle()
                    idle_at = time.monotonic() + IDLE_S
            except BaseException as error:
                self._fail(error)
        try:
            self._inner.close()
        except BaseException as error:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Keep the first error, which the other thread raises."""
        if self._failure is None:
            self._failure = error

    def _wait_for_work(self) -> bool:
        """Wait until there is enough, or something for long enough; False at the end."""
        with self._changed:
            if not self._waiting_bytes and not self._closing:
                self._changed.wait(IDLE_S)
            if 0 < self._waiting_bytes < EAGER_BYTES and not self._closing:
                self._changed.wait(GATHER_S)
            return bool(self._waiting_bytes or not self._closing)

    def _do_next(self) -> None:
        """Write what the first piece of the queue has by now, or do the action there."""
        with self._changed:
            if not self._queue:
                return
            item = self._queue[0]
            if not isinstance(item, _Piece):
                self._queue.popleft()
                self._waiting_bytes -= EAGER_BYTES
            else:
                data, frames = item.block.buffer.data[item.start : item.end], item.frames
                item.start, item.frames = item.end, 0
                self._waiting_bytes -= len(data)
                if item is not self._piece:
                    self._queue.popleft()
        if not isinstance(item, _Piece):
            if self._failure is None:
                item()
            return
        if not data:
            return  # it was written before it was known that nothing more would come
        try:
            if self._failure is None:
                self._inner.emit(data, frames)
        finally:
            with self._changed:
                item.block.taken += len(data)
                self._free_when_done(item.block)
