"""
Exclusive maildrops: one holder among all sessions of all processes of a spool.

Within a process holders stand in a table and those who wait in a queue.  Between processes flock() on a file of the maildrop's decides;
there is no way to be told when it is let go, so it is tried again every tenth of a second.

Whoever has waited nearly in vain asks the holder, in whatever process it is, whether it would let go.  Only the holder does.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import deferLater

from mailhost.refusal import MaildropInUse, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.requests import Requests
from mailhost.spool.log.threads import Threads

_POLL_SECONDS = 0.1
# The last part of a waiting, in which the holder is asked: time enough for one that looks for requests once a second.
_ASKING_SECONDS = 2.0
_LOOK_SECONDS = 1.0

# A holder's notes in its lock file, behind what others keep at its start: length and CRC-32, then the notes.
_NOTES_OFFSET = 64
_NOTES_HEADER = struct.Struct("<II")

T = TypeVar("T")

Queues = dict[int, "deque[Deferred[None]]"]
"""Maildrops that are held here, or about to be, each with those that wait for it."""


class Hold(Generic[T]):
    """A maildrop that is ours alone until `release`."""

    def __init__(self, locks: Locks, maildrop: int, fd: int, found: T) -> None:
        self._locks = locks
        self._maildrop = maildrop
        self._fd = fd
        self.found = found
        """What was looked up in the same breath."""
        self.when_wanted: Callable[[], None] = _nothing
        """Called when somebody else has waited for the maildrop; may release it."""

    def is_lost(self) -> bool:
        """Whether the lock file is no longer the one others would lock.  May wait for the disk."""
        return self._fd < 0 or not self._locks.files.is_at(self._fd, self._locks.path(self._maildrop))

    def notes(self) -> bytes:
        """What the last holder left here.  May wait for the disk, in any thread."""
        files = self._locks.files
        # Not by the locked descriptor, which may be let go of meanwhile, and its number be another file's.
        fd = files.open(self._locks.path(self._maildrop))
        try:
            header = files.read(fd, _NOTES_HEADER.size, _NOTES_OFFSET)
            if len(header) < _NOTES_HEADER.size:
                return b""
            octets, checksum = _NOTES_HEADER.unpack(header)
            notes = files.read(fd, octets, _NOTES_OFFSET + len(header))
        finally:
            files.close(fd)
        return notes if len(notes) == octets and zlib.crc32(notes) == checksum else b""

    def keep_notes(self, notes: bytes) -> None:
        """Nothing is synced: what a crash tears fails its checksum.  May wait for the disk, in any thread."""
        files = self._locks.files
        fd = files.open(self._locks.path(self._maildrop), writable=True)
        try:
            files.write(fd, [_NOTES_HEADER.pack(len(notes), zlib.crc32(notes)), notes], _NOTES_OFFSET)
        finally:
            files.close(fd)

    def release(self) -> None:
        """A second call does nothing."""
        if self.drop():
            self._locks.released(self, self._maildrop)

    def drop(self) -> bool:
        """Let go of the file's lock only.  @return: whether it was held."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._locks.files.close(fd)
        return fd >= 0


class Locks:
    """Lives in the reactor's thread."""

    def __init__(
        self, reactor: Any, files: Files, layout: Layout, threads: Threads, requests: Requests | None = None
    ) -> None:
        """@param requests: for holders in other processes; None asks only those in this one."""
        self._reactor = reactor
        self._layout = layout
        self._threads = threads
        self._requests = requests
        self._queues: Queues = {}
        self._holds: dict[int, Hold[Any]] = {}
        self._looking: IDelayedCall | None = None
        self.files = files

    def path(self, maildrop: int) -> str:
        return self._layout.maildrop_lock(maildrop)

    async def hold(self, maildrop: int, wait_seconds: float, look: Callable[[int], T]) -> Hold[T]:
        """
        @param look: called with the maildrop's id once it is locked, in the thread that locked it.
        @raise MaildropInUse: it was not let go within that time.
        @raise SpoolUnavailable: the spool was stopped meanwhile.
        """
        until = self._reactor.seconds() + wait_seconds
        queues = self._queues
        await self._wait_here(maildrop, until)
        try:
            hold = await self._lock_by(maildrop, until, look)
            if queues is not self._queues:
                hold.drop()
                raise SpoolUnavailable(cause="stopped")
        except BaseException:
            _free(queues, maildrop)
            raise
        self._holds[maildrop] = hold
        if self._looking is None and self._requests is not None:
            self._looking = self._reactor.callLater(_LOOK_SECONDS, self._look_for_requests)
        return hold

    def stop(self) -> None:
        """All holds are lost, and whoever waits is refused."""
        queues, self._queues = self._queues, {}
        holds, self._holds = self._holds, {}
        for hold in holds.values():
            hold.drop()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        for queue in queues.values():
            while queue:
                queue.popleft().errback(SpoolUnavailable(cause="stopped"))

    # -- within this process

    async def _wait_here(self, maildrop: int, until: float) -> None:
        queue = self._queues.get(maildrop)
        if queue is None:
            self._queues[maildrop] = deque()
            return
        left = until - self._reactor.seconds()
        if left <= 0:
            raise MaildropInUse
        turn: Deferred[None] = Deferred()
        queue.append(turn)
        asking = self._reactor.callLater(max(0, left - _ASKING_SECONDS), self._ask, maildrop)
        patience = self._reactor.callLater(left, turn.errback, MaildropInUse())
        try:
            await turn
        finally:
            if turn in queue:
                queue.remove(turn)
            for call in (asking, patience):
                if call.active():
                    call.cancel()

    def _ask(self, maildrop: int) -> None:
        hold = self._holds.get(maildrop)
        if hold is not None:
            hold.when_wanted()

    def released(self, hold: Hold[Any], maildrop: int) -> None:
        """The next who waits here may go on."""
        del self._holds[maildrop]
        _free(self._queues, maildrop)

    # -- between processes

    async def _lock_by(self, maildrop: int, until: float, look: Callable[[int], T]) -> Hold[T]:
        while (hold := await self._try(maildrop, look)) is None:
            left = until - self._reactor.seconds()
            if left <= 0:
                raise MaildropInUse
            if left <= _ASKING_SECONDS and self._requests is not None:
                self._requests.add(maildrop)
            await deferLater(self._reactor, min(left, _POLL_SECONDS))
        return hold

    def _look_for_requests(self) -> None:
        """Once a second while anything is held."""
        self._looking = None
        assert self._requests is not None
        for maildrop in self._requests.new():
            self._ask(maildrop)
        if self._holds:
            self._looking = self._reactor.callLater(_LOOK_SECONDS, self._look_for_requests)

    def _try(self, maildrop: int, look: Callable[[int], T]) -> Deferred[Hold[T] | None]:
        """Whoever cancels this leaves nothing locked."""
        answer: Deferred[Hold[T] | None] = Deferred()

        def locked(hold: Hold[T] | None) -> None:
            if answer.called and hold is not None:
                hold.drop()
            answer.callback(hold)

        self._threads.run(self._lock, maildrop, look).addCallbacks(locked, answer.errback)
        return answer

    def _lock(self, maildrop: int, look: Callable[[int], T]) -> Hold[T] | None:
        try:
            fd = self.files.open_lock(self.path(maildrop))
        except OSError as error:
            raise SpoolUnavailable(cause=error) from error
        try:
            if self.files.lock(fd):
                return Hold(self, maildrop, fd, look(maildrop))
        except BaseException:
            self.files.close(fd)
            raise
        self.files.close(fd)
        return None


def _free(queues: Queues, maildrop: int) -> None:
    if queues[maildrop]:
        queues[maildrop].popleft().callback(None)
    else:
        del queues[maildrop]


def _nothing() -> None:
    """Nobody has said what to do when the maildrop is wanted."""
