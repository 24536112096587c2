"""Keep a slow disk from stopping whoever reads the ring: a thread writes, a bounded number of blocks waits for it.

The capture writer formats straight into the last block of the queue, behind what is there, and the thread writes
whatever that block holds by then: nothing is copied, and the slower the disk, the larger the pieces. Blocks that
were written are used again, the last one first, because it may still be in the CPU's cache.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uspcap._native.writer import RecordFormatter
from uspcap.formats.record_output import FileOutput, RecordOutput, Whole

BLOCK_BYTES = 1 << 20
LEAST_BLOCKS = 4

EAGER_BYTES = 1 << 18
GATHER_S = 0.02
"""The thread writes once there are `EAGER_BYTES`, or so long after the first of them: waking it costs more CPU than
writing a few frames."""

IDLE_S = 0.25
"""Where nothing comes, the output is told so this often."""

ROOM_BYTES = 1 << 12
"""A block with less room than this is full."""


@dataclass(slots=True)
class _Block:
    """Records on their way; `used` bytes are there, `taken` of them the thread has taken."""

    buffer: NDArray[np.uint8]
    used: int = 0
    taken: int = 0
    frames: int = 0
    """Not taken yet."""
    full: bool = False


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
        self._queue: deque[_Block | Callable[[], None]] = deque()
        self._last: _Block | None = None
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._failure: BaseException | None = None
        self._failure_told = False
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
        return self._failure is not None or self._inner.broken

    def tell_failure(self) -> None:
        if self._failure is not None and not self._failure_told:
            self._failure_told = True
            raise self._failure

    def make_room(self, formatter: RecordFormatter) -> bool:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="disk writer", daemon=True)
            self._thread.start()
        block = self._last
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
            block = self._last = _Block(buffer)
            with self._changed:
                self._queue.append(block)
        formatter.place(block.buffer, block.used)
        return True

    def take(self, formatter: RecordFormatter) -> int:
        block = self._last
        assert block is not None
        added = formatter.used - block.used
        if not added:
            if not formatter.limit_reached:
                self._end_block()
            return 0
        with self._changed:
            # It made itself a larger one where a record is longer than a block.
            block.buffer = formatter.buffer
            block.used += added
            block.frames += formatter.frames
            self._announce(added)
        return added

    def put(self, data: bytes) -> None:
        if self._thread is None:
            self._inner.put(data)
            return
        self._end_block()
        with self._changed:
            self._queue.append(_Block(np.frombuffer(data, np.uint8), len(data), full=True))
            self._announce(len(data))

    def open_file(self, path: str) -> None:
        self._in_turn(lambda: self._inner.open_file(path))

    def finish_file(self) -> None:
        self._in_turn(self._inner.finish_file)

    def close(self) -> None:
        if self._thread is None:
            self._inner.close()
            return
        self._end_block()
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self.tell_failure()

    def _in_turn(self, action: Callable[[], None]) -> None:
        """Do something once everything before it is done."""
        if self._thread is None:
            action()
            return
        self._end_block()
        with self._changed:
            self._queue.append(action)
            self._announce(EAGER_BYTES)

    def _announce(self, added: int) -> None:
        """Wake the thread where it has something to do; the lock is held."""
        before = self._waiting_bytes
        self._waiting_bytes += added
        if not before or self._waiting_bytes >= EAGER_BYTES:
            self._changed.notify()

    def _end_block(self) -> None:
        """Add nothing more to the last block."""
        block, self._last = self._last, None
        if block is not None:
            with self._changed:
                block.full = True

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
        """Write what the first block of the queue has by now, or do the action there."""
        with self._changed:
            if not self._queue:
                return
            item = self._queue[0]
            if not isinstance(item, _Block):
                self._queue.popleft()
                self._waiting_bytes -= EAGER_BYTES
                data, frames = memoryview(b""), 0
            else:
                data, frames = item.buffer.data[item.taken : item.used], item.frames
                item.taken, item.frames = item.used, 0
                self._waiting_bytes -= len(data)
        if self._failure is None:
            if not isinstance(item, _Block):
                item()
            elif data:
                self._inner.emit(data, frames)
        if isinstance(item, _Block):
            self._give_back(item)

    def _give_back(self, block: _Block) -> None:
        """Let the block be used again where everything in it is written and nothing more will come."""
        with self._changed:
            if not block.full or block.taken < block.used:
                return
            self._queue.popleft()
            if block.buffer.flags.writeable:
                fits = len(block.buffer) == self._block_bytes
                self._free.append(block.buffer if fits else np.empty(self._block_bytes, np.uint8))
