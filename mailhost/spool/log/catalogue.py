"""
The names of maildrops.

A name leads to an id, which never changes and is never used again: who gets an old name gets a new id with it, and nothing of what was
there.  Names change under flock() on `locks/catalogue`, and a count of changes tells all processes when what they remember is old.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable

from twisted.internet.defer import Deferred, DeferredLock

from mailhost.refusal import MaildropInUse, NoSuchMaildrop
from mailhost.spool.files import Files
from mailhost.spool.log.committer import Committer
from mailhost.spool.log.counts import Counts
from mailhost.spool.log.entries import CatalogueEntry
from mailhost.spool.log.index import Binding, Index
from mailhost.spool.log.indexer import Indexer
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.segments import new_id
from mailhost.spool.log.threads import Threads, shielded

_NAMES_AT_ONCE = 1000


class Catalogue:
    """Lives in the reactor's thread, but where it says otherwise."""

    def __init__(
        self,
        files: Files,
        layout: Layout,
        counts: Counts,
        index: Index,
        threads: Threads,
        committer: Committer,
        indexer: Indexer,
    ) -> None:
        self._files = files
        self._layout = layout
        self._counts = counts
        self._index = index
        self._threads = threads
        self._committer = committer
        self._indexer = indexer
        self._changing = DeferredLock()
        self._known: dict[str, int] = {}
        self._seen = -1

    def close(self) -> None:
        self._known.clear()
        self._seen = -1

    # -- looking up

    @property
    def changes(self) -> int:
        """A count that moves whenever a name changes, in whatever process; -1 while the spool is stopped."""
        return self._counts.names

    def known(self, name: str) -> int | None:
        """The maildrop of this name, if that can be told at once."""
        changes = self.changes
        if changes != self._seen:
            self._known.clear()
            self._seen = changes
        return self._known.get(name)

    async def find(self, name: str) -> int | None:
        """The maildrop of this name, or None when there is none."""
        id = self.known(name)
        if id is None:
            seen = self._seen
            id = await self._threads.run(self._index.maildrop, name)
            if id is not None and self._seen == seen == self.changes:
                self._known[name] = id
        return id

    async def names(self) -> AsyncIterator[str]:
        after = ""
        while names := await self._threads.run(self._index.names, after, _NAMES_AT_ONCE):
            for name in names:
                yield name
            after = names[-1]

    # -- changing

    async def find_or_make(self, name: str) -> int:
        """The maildrop of this name, made now if there is none."""
        id = await self.find(name)
        if id is None:
            id = await self._change(lambda: self._made(name))
            if id is None:
                id = await self.find(name)
            assert id is not None
        return id

    async def rename(self, maildrop: int, new: str) -> None:
        """By whoever holds the maildrop.  @raise MaildropInUse: the new name is taken.  @raise NoSuchMaildrop: it was removed."""
        await self._change(lambda: self._renamed(maildrop, new))

    async def remove(self, maildrop: int) -> None:
        """By whoever holds the maildrop."""
        await self._change(lambda: Binding(maildrop, None, self._time(), removed=True))

    def _made(self, name: str) -> Binding | None:
        if self._index.maildrop(name) is not None:
            return None
        return Binding(new_id(), name, self._time())

    def _renamed(self, maildrop: int, new: str) -> Binding:
        if self._index.maildrop(new) is not None:
            raise MaildropInUse(cause=f"there is a maildrop {new}")
        if not self._index.has_name(maildrop):
            raise NoSuchMaildrop
        return Binding(maildrop, new, self._time())

    def _time(self) -> int:
        """Later than all changes before it, also after the clock was set back: the latest counts."""
        return max(time.time_ns() // 1000, self._index.named() + 1)

    async def _change(self, decide: Callable[[], Binding | None]) -> int | None:
        """
        @param decide: called in a thread while nobody else can change a name.
        @return: the id of the maildrop that was changed, durably; None if nothing had to be.
        """
        return await shielded(Deferred.fromCoroutine(self._change_alone(decide)))

    async def _change_alone(self, decide: Callable[[], Binding | None]) -> int | None:
        async with self._changing:
            fd = await self._threads.run(self._lock)
            try:
                await self._indexer.caught_up()
                binding = await self._threads.run(decide)
                if binding is None:
                    return None
                await self._committer.commit(CatalogueEntry(binding))
                self._files.fault_point("catalogue.synced")
                self._indexer.check()  # an index that is built from now on awaits the segment that says so; an earlier one may not
                await self._indexer.caught_up()  # others decide by what the index says
                self._count(binding)
                return binding.maildrop
            finally:
                self._files.close(fd)

    def _lock(self) -> int:
        fd = self._files.open_lock(self._layout.catalogue_lock)
        try:
            self._files.lock(fd, wait=True)
        except BaseException:
            self._files.close(fd)
            raise
        return fd

    def _count(self, binding: Binding) -> None:
        """Let all processes know.  What is remembered here stays, but for what this change made wrong."""
        changes = self.changes
        self._counts.name_changed()
        if self._seen != changes:
            return
        self._seen = changes + 1
        self._known = {name: id for name, id in self._known.items() if id != binding.maildrop}
        if binding.name is not None:
            self._known[binding.name] = binding.maildrop
