"""Ending reads that another thread, or the code that a signal interrupted, is in the middle of."""

from __future__ import annotations

import os
import select
import threading

from uspcap.errors import UspcapError


class ReadingEnded(UspcapError):
    """Somebody has asked for an end of reading; what comes later in the file is not known."""


class Wake:
    """Ends all reads that it was given to: those that wait, and those to come.

    `set` may be called by any thread and by a signal handler.

    Parameters
    ----------
    above : Wake, optional
        Ends them as well.
    """

    def __init__(self, above: Wake | None = None) -> None:
        self._above = above
        self._set = False
        self._descriptor = -1
        # For waiting only: whoever interrupts a thread that has it must be able to call `set`.
        self._making = threading.Lock()

    @property
    def is_set(self) -> bool:
        return self._set or (self._above is not None and self._above.is_set)

    def set(self) -> None:
        """End the reads; may be called again."""
        self._set = True
        if self._descriptor >= 0:
            os.eventfd_write(self._descriptor, 1)

    def check(self) -> None:
        """Raise ReadingEnded once it was set."""
        if self.is_set:
            raise ReadingEnded("reading was ended before the end of the file")

    def wait_readable(self, descriptor: int) -> None:
        """Wait until a read of `descriptor` would not block.

        Raises
        ------
        ReadingEnded
            It was set.
        """
        poll = select.poll()
        for waited_for in (descriptor, *self._descriptors()):
            poll.register(waited_for, select.POLLIN)
        # After the descriptors are there: `set` looks at flag and descriptor the other way round.
        self.check()
        poll.poll()
        self.check()

    def _descriptors(self) -> list[int]:
        with self._making:
            if self._descriptor < 0:
                self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        return [self._descriptor, *(self._above._descriptors() if self._above is not None else ())]

    def close(self) -> None:
        """Give the descriptor back; to be called when nobody reads any more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
