"""A message too large to be held in memory: streamed to a file in staging/ a bounded piece at a time, and synced by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log.threads import Threads
from mailhost.spool.log.writer import refusal_of
from mailhost.spool.maildir.group import Drop
from mailhost.spool.maildir.staged import Staged

# What may wait in memory for the disk before the sender has to pause; half of it lets the sender go on.
_WAITING_OCTETS = 1024 * 1024
_COPIED_AT_ONCE = 1024 * 1024


class LargeFile:
    """
    Lives in the reactor's thread, but for the methods that say so; one of those runs at a time.

    The first maildrop's copy is written as the message comes in, the others are copied from it at the end.
    """

    def __init__(self, files: Files, threads: Threads, staged: Staged, drops: Sequence[Drop]) -> None:
        self._files = files
        self._threads = threads
        self._staged = staged
        self._drops = drops
        self._fd = -1
        self._end = 0
        self._waiting: list[bytes] = []
        self._octets = 0  # that wait or are being written
        self._room: Deferred[None] | None = None
        self._working: Deferred[None] | None = None
        self._failed: BaseException | None = None

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._failed is not None:
            return None
        self._waiting.append(octets)
        self._octets += len(octets)
        if self._working is None:
            self._write_on()
        if self._octets <= _WAITING_OCTETS:
            return None
        if self._room is None:
            self._room = Deferred()
        return self._room

    def _write_on(self) -> None:
        blocks, self._waiting = self._waiting, []
        octets = sum(map(len, blocks))
        self._working = self._threads.run(self._write_in_thread, blocks, octets)
        self._working.addCallbacks(self._written, self._not_written, callbackArgs=(octets,))

    def _write_in_thread(self, blocks: list[bytes], octets: int) -> None:
        if self._fd < 0:
            self._fd = self._begin(self._drops[0])
            self._end = len(self._drops[0].fields)
        self._files.write(self._fd, blocks, self._end)
        self._end += octets

    def _begin(self, drop: Drop) -> int:
        drop.staged = self._staged.path()
        fd = self._files.create(drop.staged)
        if drop.fields:
            self._files.write(fd, [drop.fields], 0)
        return fd

    def _written(self, _: None, octets: int) -> None:
        self._working = None
        self._octets -= octets
        if self._waiting:
            self._write_on()
        if self._octets <= _WAITING_OCTETS // 2:
            self._go_on()

    def _not_written(self, failure: Any) -> None:
        self._working = None
        self._failed = failure.value
        self._waiting = []
        self._octets = 0
        self._go_on()

    def _go_on(self) -> None:
        room, self._room = self._room, None
        if room is not None and not room.called:
            room.callback(None)

    # -- the end

    async def finish(self) -> None:
        """
        Write what is left and the other copies, and sync all of them.

        @raise Refusal: all of it has been removed.
        """
        await self._all_written()
        try:
            if self._failed is not None:
                raise self._failed
            await self._threads.run(self._finish_in_thread)
        except Exception as error:  # not GeneratorExit, at which nothing can be awaited
            await self._abort()
            if isinstance(error, OSError):
                raise refusal_of(error) from error
            raise

    async def _all_written(self) -> None:
        while self._working is not None:
            ended: Deferred[None] = Deferred()
            self._working.addCallback(ended.callback)
            await ended

    def _finish_in_thread(self) -> None:
        for drop in self._drops[1:]:
            fd = self._begin(drop)
            try:
                self._copy(fd, len(drop.fields))
                self._files.sync(fd)
            finally:
                self._files.close(fd)
        self._files.sync(self._fd)
        self._files.fault_point("large.synced")
        self._close()

    def _copy(self, fd: int, end: int) -> None:
        offset = len(self._drops[0].fields)
        while offset < self._end:
            octets = self._files.read(self._fd, min(_COPIED_AT_ONCE, self._end - offset), offset)
            self._files.write(fd, [octets], end)
            offset += len(octets)
            end += len(octets)

    def abort(self) -> None:
        """Remove it, when what is under way has ended."""
        self._failed = self._failed or SpoolUnavailable(cause="aborted")
        self._waiting = []
        Deferred.fromCoroutine(self._abort())

    async def _abort(self) -> None:
        await self._all_written()
        try:
            await self._threads.run(self._remove)
        except SpoolUnavailable:  # the spool has stopped, and removed it with all that was staged
            self._close()

    def _remove(self) -> None:
        for drop in self._drops:
            if drop.staged:
                try:
                    self._files.unlink(drop.staged)
                except OSError:
                    pass
        self._close()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._files.close(fd)
