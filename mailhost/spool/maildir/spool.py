"""
The Maildir spool: one Maildir per maildrop, shared with Dovecot, mutt and whatever else reads and writes Maildirs.

It keeps the whole contract of a spool; what other programs do beside it is theirs.  `docs/maildir.md` says what is promised.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

from zope.interface import implementer

from mailhost.envelope import Copy, Envelope, Totals
from mailhost.events import Event, Observer, Trouble, unobserved
from mailhost.interfaces import IMaildrop, ISpool, IStagedMessage
from mailhost.refusal import NoSuchMaildrop, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log.locks import Locks
from mailhost.spool.log.requests import Requests
from mailhost.spool.log.threads import Threads
from mailhost.spool.log.writer import refusal_of
from mailhost.spool.maildir import staged
from mailhost.spool.maildir.catalogue import Catalogue, Maildrop
from mailhost.spool.maildir.committer import Committer
from mailhost.spool.maildir.group import Delivery, Drop, Group
from mailhost.spool.maildir.large import LargeFile
from mailhost.spool.maildir.layout import DEFAULT_PATTERN, Layout
from mailhost.spool.maildir.listings import Listings, MaildirListing
from mailhost.spool.maildir.maildrop import MaildirMaildrop, Parts
from mailhost.spool.maildir.names import UniqueNames
from mailhost.spool.maildir.removal import remove_tree
from mailhost.spool.maildir.staged import Staged
from mailhost.spool.maildir.staging import StagedMessage, Staging
from mailhost.spool.maildir.syncs import Syncs


@implementer(ISpool)
class MaildirSpool:
    """Not started; started; stopped, and then it can be started again."""

    def __init__(
        self,
        directory: str,
        *,
        reactor: Any,
        observer: Observer = unobserved,
        pattern: str = DEFAULT_PATTERN,
        large_octets: int = 1024 * 1024,
        files: Files | None = None,
    ) -> None:
        """
        @param directory: made if it is not there; its parent must be.
        @param reactor: one with threads and time.
        @param pattern: where below it a maildrop's Maildir is, see `layout`.
        @param large_octets: a message that grows beyond this is not held in memory.
        @raise BadPattern: it cannot tell maildrops apart.
        """
        self._reactor = reactor
        self._observer = observer
        self._files = files = files or Files()
        self._layout = layout = Layout(files, directory, pattern)
        self._names = UniqueNames()
        self._threads = threads = Threads(reactor)
        self._large_threads = Threads(reactor)
        self._catalogue = catalogue = Catalogue(files, layout)
        self._staged = Staged(files, layout, self._names.writer)
        self._syncs = Syncs(files, reactor.seconds)
        self._committer = Committer(reactor, self._commit_group, observer)
        self._staging = Staging(files, self._committer, large_octets, self._begin_large)
        self._requests = Requests(files, layout.root.requests)
        # Of the layout it asks for a lock's path, no more.
        self._locks = Locks(reactor, files, cast(Any, catalogue), threads, self._requests)
        self._listings = Listings(files)
        self._parts = Parts(files, threads, observer, self._tell)
        self._running = False

    def _tell(self, event: Event) -> None:
        """From any thread."""
        self._reactor.callFromThread(self._observer, event)

    def _begin_large(self, drops: Sequence[Drop]) -> LargeFile:
        return LargeFile(self._files, self._large_threads, self._staged, drops)

    def _commit_group(self, deliveries: Sequence[Delivery]) -> None:
        Group(self._files, self._catalogue, self._staged, self._syncs, deliveries).run()

    # -- life

    async def start(self) -> None:
        self._threads.start()
        self._large_threads.start()
        try:
            await self._threads.run(self._open)
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError):
                raise SpoolUnavailable(cause=f"{self._layout.root.path}: {error}") from error
            raise
        self._committer.start()
        self._running = True
        for name in await self._threads.run(self._files.names, self._layout.root.removed):
            self._take_apart(os.path.join(self._layout.root.removed, name))

    def _open(self) -> None:
        starting = self._layout.lock_start()
        try:
            self._layout.prepare()
            staged.recover(self._files, self._layout, self._tell)
            self._staged.open()
            self._catalogue.open()
            self._requests.open()
        finally:
            self._files.close(starting)

    async def stop(self) -> None:
        if not self._running:
            return
        self._running = False
        await self._committer.stop()
        self._locks.stop()
        self._let_go()

    def _let_go(self) -> None:
        self._threads.stop()
        self._large_threads.stop()
        self._syncs.stop()
        self._staged.close()
        self._listings.clear()
        self._catalogue.close()
        self._requests.close()

    def _check_running(self) -> None:
        if not self._running:
            raise SpoolUnavailable(cause="the spool is not running")

    # -- mail in

    async def stage(self, envelope: Envelope, copies: Sequence[Copy]) -> IStagedMessage:
        self._check_running()
        changes = self._catalogue.changes
        drops: dict[int, Drop] = {}
        for name, fields in copies:
            maildrop = self._catalogue.known(name)
            if maildrop is None:
                maildrop = await self._find_or_make(name)
            drops.setdefault(maildrop.id, Drop(name, maildrop, fields))
        return StagedMessage(self._staging, *self._names.next(), list(drops.values()), changes)

    # -- mail out

    async def open_maildrop(self, name: str, wait_seconds: float) -> IMaildrop:
        self._check_running()
        for _ in range(2):
            maildrop = self._catalogue.known(name)
            if maildrop is None:
                maildrop = await self._find_or_make(name)
            opened = await self._open_maildrop(name, maildrop, wait_seconds)
            if opened is not None:
                return opened
            self._catalogue.forget(name)
        raise SpoolUnavailable(cause=f"maildrop {name} is being changed")

    async def _open_maildrop(self, name: str, maildrop: Maildrop, wait_seconds: float) -> IMaildrop | None:
        """@return: None when the name means another maildrop by now."""

        def look(id: int) -> MaildirListing | None:
            if not self._catalogue.is_still(name, maildrop):
                return None
            return self._listings.read(maildrop)

        try:
            hold = await self._locks.hold(maildrop.id, wait_seconds, look)
        except SpoolUnavailable as error:
            if isinstance(error.cause, FileNotFoundError):
                return None
            raise
        except OSError as error:
            raise refusal_of(error) from error
        if hold.found is None:
            hold.release()
            return None
        self._listings.keep(hold.found)
        return MaildirMaildrop(self._parts, maildrop.path, hold, hold.found)

    # -- maildrops

    async def _find(self, name: str) -> Maildrop | None:
        changes = self._catalogue.changes
        maildrop = await self._threads.run(self._catalogue.find, name)
        if maildrop is not None:
            self._catalogue.remember(name, maildrop, changes)
        return maildrop

    async def _find_or_make(self, name: str) -> Maildrop:
        maildrop = await self._find(name)
        if maildrop is None:
            changes = self._catalogue.changes
            try:
                maildrop = await self._committer.alone(lambda: self._catalogue.find_or_make(name))
            except OSError as error:
                raise refusal_of(error) from error
            self._catalogue.remember(name, maildrop, changes)
        return maildrop

    async def create(self, name: str) -> None:
        self._check_running()
        await self._find_or_make(name)

    async def exists(self, name: str) -> bool:
        self._check_running()
        return await self._threads.run(self._catalogue.exists, name)

    async def totals(self, name: str) -> Totals:
        self._check_running()
        maildrop = self._catalogue.known(name) or await self._find(name)
        try:
            return await self._threads.run(self._listings.totals, self._layout.path(name), maildrop and maildrop.id)
        except FileNotFoundError:
            return Totals(0, 0)
        except OSError as error:
            raise refusal_of(error) from error

    async def rename(self, old: str, new: str) -> None:
        maildrop = await self._named(old)
        hold = await self._locks.hold(maildrop.id, 0, _nothing)
        try:
            await self._change(lambda: self._catalogue.rename(old, maildrop, new))
        finally:
            hold.release()

    async def remove(self, name: str) -> None:
        maildrop = await self._named(name)
        hold = await self._locks.hold(maildrop.id, 0, _nothing)
        try:
            removed = await self._change(lambda: self._catalogue.remove(name, maildrop))
        finally:
            hold.release()
        self._take_apart(removed)

    async def _change(self, work: Any) -> Any:
        try:
            return await self._committer.alone(lambda: self._after_recovery(work))
        except OSError as error:
            raise refusal_of(error) from error

    def _after_recovery(self, work: Any) -> Any:
        """In a thread.  What a dead process left unfinished names paths: it is finished before those change."""
        starting = self._layout.lock_start()
        try:
            staged.recover(self._files, self._layout, self._tell)
        finally:
            self._files.close(starting)
        return work()

    async def _named(self, name: str) -> Maildrop:
        self._check_running()
        if not await self._threads.run(self._catalogue.exists, name):
            raise NoSuchMaildrop
        return await self._find_or_make(name)

    def _take_apart(self, removed: str) -> None:
        """Goes on in the background; what is left of it at the end is taken apart after the next start."""
        done = self._threads.run(remove_tree, self._files, removed)
        done.addErrback(lambda failure: self._observer(Trouble(f"{removed} could not be removed", failure.value)))

    async def maildrops(self) -> AsyncIterator[str]:
        self._check_running()
        for name in await self._threads.run(lambda: list(self._layout.maildrops())):
            yield name


def _nothing(id: int) -> None:
    """Locking is all."""
