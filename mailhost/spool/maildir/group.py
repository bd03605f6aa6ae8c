"""
Messages that are made durable together, by as few syncs as that takes.

Every copy is written and synced, then renamed into its maildrop's new/, then each new/ is synced once for all.  A message with several
copies is in all of its maildrops or in none, whatever happens between two renames: an intent that is durable before the first says
what will be done.  One message that fails does not hinder the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from mailhost.refusal import Refusal, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.maildir import names
from mailhost.spool.maildir.catalogue import Catalogue, Maildrop
from mailhost.spool.maildir.forms import PlainForm
from mailhost.spool.maildir.staged import Staged
from mailhost.spool.maildir.syncs import Syncs


class Drop:
    """One maildrop's copy of a message."""

    __slots__ = ("entered", "fields", "maildrop", "name", "path", "staged")

    def __init__(self, name: str, maildrop: Maildrop, fields: bytes) -> None:
        """@param fields: in wire form."""
        self.name = name
        self.maildrop = maildrop
        self.fields = PlainForm().feed(fields)
        self.staged = ""
        """The file in staging/, once it was made."""
        self.path = ""
        """Where it will be in new/."""
        self.entered = False


class Delivery:
    """A message that is whole, and what became of it."""

    __slots__ = ("all_crlf", "blocks", "changes", "drops", "error", "is_staged", "octets", "unique")

    def __init__(self, unique: str, drops: Sequence[Drop], changes: int) -> None:
        """@param changes: of names, before its maildrops were looked up."""
        self.unique = unique
        self.drops = drops
        self.changes = changes
        self.blocks: list[bytes] = []
        """Plain form; empty when it is staged already."""
        self.octets = 0
        """Of the blocks, or of what was staged."""
        self.all_crlf = True
        self.is_staged = False
        """Written to staging/ and synced."""
        self.error: BaseException | None = None

    def aim(self) -> None:
        """Decide on the names in new/, now that the size is known."""
        for drop in self.drops:
            base = names.with_sizes(self.unique, self.octets + len(drop.fields), all_crlf=self.all_crlf)
            drop.path = os.path.join(drop.maildrop.path, "new", base)


class Group:
    """Run once, in one thread."""

    def __init__(
        self, files: Files, catalogue: Catalogue, staged: Staged, syncs: Syncs, deliveries: Sequence[Delivery]
    ) -> None:
        self._files = files
        self._syncs = syncs
        self._catalogue = catalogue
        self._staged = staged
        self._deliveries = deliveries
        self._stated = False

    def run(self) -> None:
        """Afterwards each delivery is durable, or has an error and is nowhere."""
        try:
            with self._catalogue.shared():
                self._deliver()
        except Exception as error:
            for delivery in self._living():
                delivery.error = error
        self._clean_up()

    def _deliver(self) -> None:
        files = self._files
        self._each(self._check)
        self._each(self._write)
        files.fault_point("group.written")
        self._sync()
        self._state()
        self._each(self._enter)
        files.fault_point("group.renamed")
        self._sync_directories()
        if self._stated:
            self._staged.settle()
            self._stated = False
        files.fault_point("group.synced")

    def _living(self) -> list[Delivery]:
        return [delivery for delivery in self._deliveries if delivery.error is None]

    def _each(self, step: Callable[[Delivery], None]) -> None:
        for delivery in self._deliveries:
            if delivery.error is None:
                try:
                    step(delivery)
                except (OSError, Refusal) as error:
                    delivery.error = error

    # -- steps

    def _check(self, delivery: Delivery) -> None:
        delivery.aim()
        if delivery.changes == self._catalogue.changes:
            return
        for drop in delivery.drops:
            if not self._catalogue.is_still(drop.name, drop.maildrop):
                raise SpoolUnavailable(cause=f"maildrop {drop.name} was renamed or removed meanwhile")

    def _write(self, delivery: Delivery) -> None:
        if delivery.is_staged:
            return
        for drop in delivery.drops:
            drop.staged = path = self._staged.path()
            fd = self._files.create(path)
            try:
                self._files.write(fd, [drop.fields, *delivery.blocks], 0)
            finally:
                self._files.close(fd)

    def _sync(self) -> None:
        writing = [delivery for delivery in self._living() if not delivery.is_staged]
        failed = self._syncs.files(drop.staged for drop in _drops(writing))
        for delivery in writing:
            delivery.error = next((failed[drop.staged] for drop in delivery.drops if drop.staged in failed), None)

    def _state(self) -> None:
        """For all messages with several copies at once."""
        several = [delivery for delivery in self._living() if len(delivery.drops) > 1]
        if not several:
            return
        self._stated = True
        try:
            self._staged.state([(drop.staged, drop.path) for delivery in several for drop in delivery.drops])
        except OSError as error:
            for delivery in several:
                delivery.error = error

    def _enter(self, delivery: Delivery) -> None:
        for drop in delivery.drops:
            try:
                self._files.rename(drop.staged, drop.path)
            except FileNotFoundError:
                self._catalogue.forget(drop.name)  # somebody took the Maildir away: look for it next time
                raise
            drop.entered = True

    def _sync_directories(self) -> None:
        living = self._living()
        failed = self._syncs.directories({os.path.dirname(drop.path): None for drop in _drops(living)})
        for delivery in living:
            directories = (os.path.dirname(drop.path) for drop in delivery.drops)
            delivery.error = next((failed[directory] for directory in directories if directory in failed), None)

    # -- the end

    def _clean_up(self) -> None:
        """Take away what failed; first of all the intent, which would bring it back after a crash."""
        failed = [delivery for delivery in self._deliveries if delivery.error is not None]
        if self._stated:
            self._attempt(self._staged.withdraw)
        directories = set()
        for drop in _drops(failed):
            if drop.entered:
                self._attempt(self._files.unlink, drop.path)
                directories.add(os.path.dirname(drop.path))
            elif drop.staged:
                self._attempt(self._files.unlink, drop.staged)
        for directory in directories:
            self._attempt(self._files.sync_directory, directory)

    def _attempt(self, work: Callable[..., None], *arguments: str) -> None:
        """The message was refused already; a disk that fails again changes nothing about that."""
        try:
            work(*arguments)
        except OSError:
            pass


def _drops(deliveries: Iterable[Delivery]) -> Iterable[Drop]:
    for delivery in deliveries:
        yield from delivery.drops
