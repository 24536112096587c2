"""Making changes, and restoring what they changed, in another process and after a crash, too.

Every change is in the record before it is made, so that a process that is killed at any moment leaves nothing that
the record does not know. Putting back goes from the newest to the oldest, leaves alone what another has changed
meanwhile, and keeps in the record what it could not do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace

from uspcap.doctor.changes import Change, Settings
from uspcap.doctor.driver import Driver
from uspcap.doctor.host_files import HostFiles
from uspcap.doctor.record import Entry, Record
from uspcap.errors import CaptureError
from uspcap.network.links import Link

BOOT_ID = "/proc/sys/kernel/random/boot_id"

Say = Callable[[str], None]
"""Takes a line for the user, at once."""


class Changer:
    """Makes changes and puts them back.

    Parameters
    ----------
    files : HostFiles
    driver : Driver
    record : Record
    say : callable
        Takes one line for each change, as soon as it is known how that went.

    Attributes
    ----------
    record : Record
    """

    def __init__(self, files: HostFiles, driver: Driver, record: Record, say: Say) -> None:
        self._driver = driver
        self.record = record
        self._say = say
        self._settings = Settings(files, driver)
        self._namespace = driver.namespace()
        self._boot = files.text(BOOT_ID) or ""

    def apply(self, changes: Sequence[Change]) -> bool:
        """Make changes, those that are refused left out.

        Returns
        -------
        bool
            False where one was refused, or came to another value than was asked for.

        Raises
        ------
        CaptureError
            Another doctor is at work, or a change cannot be remembered; what was changed until then stays, and is
            remembered.
        """
        with self.record.locked():
            recorded = self.record.read()
            entries = [self._planned(change) for change in changes]
            planned = [entry for entry in entries if entry is not None]
            complete = len(planned) == len(entries)
            if planned:
                self.record.write([*recorded, *planned])
            while planned:
                asked_for = planned.pop(0)
                entry = self._as_it_is(asked_for)
                if entry not in (None, asked_for):
                    self.record.write([*recorded, entry, *planned])
                if entry is not None:
                    made = self._make(entry)
                    complete &= made is not None and made.made and made.change.after == entry.change.after
                    recorded += [] if made is None else [made]
                self.record.write([*recorded, *planned])
        return complete

    def undo(self, *, forget: bool = False) -> bool:
        """Restore what was changed, newest first.

        Parameters
        ----------
        forget : bool
            Drop from the record what cannot be restored.

        Returns
        -------
        bool
            False where a setting could not be restored; it stays in the record, unless it is to be forgotten.

        Raises
        ------
        CaptureError
            Another doctor is at work, or the record is none.
        """
        complete = True
        if not self.record.exists:
            # Without a lock, which a user who changed nothing may not be able to have.
            self._say("nothing was changed")
            return True
        with self.record.locked():
            entries = self.record.read()
            kept: list[Entry] = []
            while entries:
                entry = entries.pop()
                try:
                    self._restore(entry)
                except _NotRestored as failure:
                    complete = False
                    self._say(f"{'forgotten' if forget else 'not restored'}: {_back(entry.change)}: {failure}")
                    kept = kept if forget else [failure.entry, *kept]
                self.record.write([*entries, *kept])
        if kept:
            self._say(
                f"what was not restored ({len(kept)}) stays in {self.record.path}: run --undo again once it can be "
                "done, or --undo --forget to drop it"
            )
        return complete

    def _planned(self, change: Change) -> Entry | None:
        """Return what is to be remembered of a change before it is made; None where it cannot be."""
        if change.kind == "file":
            link = None
        else:
            link = self._link(change.where)
            if link is None:
                self._say(f"not changed: {change}: {change.where} is gone")
                return None
        return Entry(
            change, self._namespace, link.index if link else 0, link.identity if link else "", self._boot, made=False
        )

    def _as_it_is(self, entry: Entry) -> Entry | None:
        """Return the entry with the setting's value of this moment; None where that is what is asked for already."""
        now = self._settings.value(entry.change)
        if now == entry.change.after:
            # An earlier change has brought this about, or another did since the look at the host.
            self._say(f"nothing to change: {entry.change.setting} is {now} already")
            return None
        known = now is not None and not replace(entry.change, before=now).flaw()
        return replace(entry, change=replace(entry.change, before=now)) if known and now is not None else entry

    def _make(self, entry: Entry) -> Entry | None:
        """Make a change; return what is to be remembered of it, None where it changed nothing."""
        change = entry.change
        try:
            now: str | None = self._settings.set(change)
        except CaptureError as error:
            self._say(f"not changed: {error}")
            now = self._settings.value(change)
            if now is None:
                return entry  # Who knows what it is now: restoring has to look.
        else:
            assert now is not None
            if now == change.after:
                self._say(f"changed {change}")
            elif now == change.before:
                self._say(f"not changed: {change.setting} was set to {change.after} but is still {now}")
            else:
                self._say(f"changed {replace(change, after=now)}, though {change.after} was asked for")
        if now == change.before:
            return None
        obtained = replace(change, after=now)
        return entry if obtained.flaw() else replace(entry, change=obtained, made=True)

    def _restore(self, entry: Entry) -> None:
        """Restore one setting, or report why there is nothing to restore.

        Raises
        ------
        _NotRestored
            It could not be done.
        """
        back = _back(entry.change)
        if entry.boot and self._boot and entry.boot != self._boot:
            self._say(f"left: {back}: the host was booted since, which undid the change")
            return
        if entry.change.in_namespace and not entry.namespace.is_same_as(self._namespace):
            raise _NotRestored(
                f"it was changed in another network namespace ({entry.namespace}; this is {self._namespace}): undo it "
                "there",
                entry,
            )
        if entry.change.kind != "file":
            back = replace(back, where=self._find_interface(entry))
        now = self._settings.value(back)
        if now is None:
            raise _NotRestored("it cannot be read", entry)
        if now == back.after:
            self._say(f"left: {back} is so already")
        elif now != back.before and entry.made:
            self._say(f"left: {back}, as another has set it to {now}")
        else:
            try:
                obtained = self._settings.set(back)
            except CaptureError as error:
                raise _NotRestored(str(error), entry) from error
            if obtained != back.after:
                partly = replace(entry, change=replace(entry.change, after=obtained))
                raise _NotRestored(f"it is still {obtained}", entry if partly.change.flaw() else partly)
            self._say(f"restored {replace(back, before=now)}")

    def _find_interface(self, entry: Entry) -> str:
        """Return what the interface is called now that was changed.

        Raises
        ------
        _NotRestored
            It is not there; another may have its name.
        """
        name = entry.change.where
        for called in (name, self._name_of(entry.ifindex)):
            link = None if called is None else self._link(called)
            if called and link and (link.index, link.identity) == (entry.ifindex, entry.device):
                return called
        link = self._link(name)
        if link is not None:
            raise _NotRestored(
                f"{name} is not the interface that was changed (that was ifindex {entry.ifindex}, "
                f"{entry.device or 'virtual'}; this is {link.index}, {link.identity or 'virtual'}), which is gone with "
                "its settings or was moved to another network namespace",
                entry,
            )
        raise _NotRestored(
            f"{name} (ifindex {entry.ifindex}) is not here: it is gone with its settings, or was moved to another "
            "network namespace",
            entry,
        )

    def _link(self, name: str) -> Link | None:
        """Return the interface; None where the kernel does not tell about it, whatever the reason."""
        with contextlib.suppress(Exception):
            return self._driver.link(name)
        return None

    def _name_of(self, index: int) -> str | None:
        with contextlib.suppress(Exception):
            return self._driver.name_of(index)
        return None


class _NotRestored(Exception):
    """A setting could not be restored; `entry` is what is to stay in the record."""

    def __init__(self, reason: str, entry: Entry) -> None:
        super().__init__(reason)
        self.entry = entry


def _back(change: Change) -> Change:
    return replace(change, before=change.after, after=change.before)
