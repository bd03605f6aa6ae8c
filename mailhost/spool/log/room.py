"""
Sees to it that the disk is never quite full.

Under a floor of free octets no mail is taken.  Below that there is a reserve, a file that holds its place: when even what is under the
floor is used up, by whomever, the file is removed, so that deletions, the index and compaction can go on and users can empty their
maildrops.  It is made again when there is room for it beside the floor, and only then mail is taken again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from mailhost.events import Notice, Observer, Trouble
from mailhost.refusal import Refusal, SpoolFull
from mailhost.spool.files import Files
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.threads import Threads
from mailhost.spool.log.writer import is_full

_BETWEEN_SECONDS = 1.0
_BETWEEN_OCTETS = 4 * 1024 * 1024
_BLOCK = bytes(256 * 1024)
# The reserve goes when less than this part of it is free beside it.
_CRITICAL = 4


class Room:
    """
    Lives in the reactor's thread, but where it says otherwise.  It is looked after whenever mail comes, at most once a second or once
    in some megabytes, and as long as none is taken.
    """

    def __init__(
        self,
        reactor: Any,
        files: Files,
        layout: Layout,
        threads: Threads,
        observer: Observer,
        floor_octets: int,
        reserve_octets: int,
    ) -> None:
        self._reactor = reactor
        self._files = files
        self._layout = layout
        self._threads = threads
        self._observer = observer
        self._floor_octets = floor_octets
        self._reserve_octets = reserve_octets
        self._has_reserve = False
        self._looking: Deferred[Refusal | None] | None = None
        self._next: Any = None
        self._looked = 0.0
        self._octets = 0
        self._stopped = True
        self.when_short: Callable[[], None] = lambda: None
        """Called about once a second while no mail is taken."""
        self.refusal: Refusal | None = None
        """Why no mail is taken now, if so."""

    def open(self) -> None:
        """In a thread, before anything else is written."""
        self.refusal = self._look()

    def start(self) -> None:
        self._stopped = False
        if self.refusal is not None:
            self._tell(self.refusal)
            self._short()

    def count(self, octets: int) -> None:
        """So many are going to be written."""
        self._octets += octets
        if self._octets >= _BETWEEN_OCTETS or self._reactor.seconds() - self._looked >= _BETWEEN_SECONDS:
            self._begin()

    def _begin(self) -> None:
        if self._looking is not None or self._stopped:
            return
        self._octets, self._looked = 0, self._reactor.seconds()
        self._looking = self._threads.run(self._look)
        self._looking.addCallbacks(self._seen, self._not_seen)

    def _not_seen(self, failure: Any) -> None:
        """Nothing is known of the disk then: what it does with writes will show."""
        self._looking = None
        self._look_again()

    def _seen(self, refusal: Refusal | None) -> None:
        self._looking = None
        before, self.refusal = self.refusal, refusal
        if self._stopped:
            return
        if refusal is None and before is not None:
            self._observer(Notice("there is room on the disk again; the spool takes mail"))
        elif refusal is not None:
            if before is None:
                self._tell(refusal)
            self._short()

    def _tell(self, refusal: Refusal) -> None:
        self._observer(Trouble("the spool takes no mail, so that what is there can be read and deleted", refusal.cause))

    def _short(self) -> None:
        self.when_short()
        self._look_again()

    def _released(self) -> None:
        if self.refusal is None and not self._stopped:
            self.refusal = SpoolFull(cause=f"the disk is full, and the reserve of {self._reserve_octets} is in use")
            self._tell(self.refusal)
            self._short()

    def _look_again(self) -> None:
        if self.refusal is not None and self._next is None and not self._stopped:
            self._next = self._reactor.callLater(_BETWEEN_SECONDS, self._look_now)

    def _look_now(self) -> None:
        self._next = None
        self._begin()

    def stop(self) -> None:
        self._stopped = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self.refusal = None

    # -- in threads

    def _look(self) -> Refusal | None:
        """@return: why no mail is to be taken.  @raise OSError: it cannot be told."""
        free = self._files.free_octets(self._layout.root)
        if self._reserve_octets:
            free = self._see_to_reserve(free)
            if not self._has_reserve:
                return SpoolFull(cause=f"{free} octets are free, and the reserve of {self._reserve_octets} is in use")
        if free < self._floor_octets:
            return SpoolFull(cause=f"{free} octets are free, under the floor of {self._floor_octets}")
        return None

    def _see_to_reserve(self, free: int) -> int:
        """@return: what is free then."""
        self._has_reserve = self._is_whole()
        if not self._has_reserve:
            if free >= self._floor_octets + self._reserve_octets:
                self._make_reserve()
        elif free < self._reserve_octets // _CRITICAL and self.release():
            self._has_reserve = False
        return self._files.free_octets(self._layout.root)

    def _is_whole(self) -> bool:
        try:
            fd = self._files.open(self._layout.reserve)
        except FileNotFoundError:
            return False
        try:
            return self._files.size(fd) >= self._reserve_octets
        finally:
            self._files.close(fd)

    def _make_reserve(self) -> None:
        """Written, since a file system need not give room to a file by its length; not synced, since room is all it is for."""
        path = self._layout.reserve
        if self._files.exists(path):
            self._files.unlink(path)
        fd = self._files.create(path)
        try:
            for offset in range(0, self._reserve_octets, len(_BLOCK)):
                self._files.write(fd, [_BLOCK[: self._reserve_octets - offset]], offset)
            self._has_reserve = True
        except OSError as error:
            self._files.unlink(path)
            if not is_full(error):
                raise
        finally:
            self._files.close(fd)

    def release(self) -> bool:
        """
        Give the reserve to whoever needs it now.  In any thread.

        @return: whether there was one.
        """
        try:
            self._files.unlink(self._layout.reserve)
        except OSError:
            return False
        self._files.fault_point("reserve.released")
        self._reactor.callFromThread(self._released)
        return True
