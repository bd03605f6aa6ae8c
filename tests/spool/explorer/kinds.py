"""The kinds of spool that are explored, each made so small that short workloads come everywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mailhost.events import Event
from mailhost.interfaces import ISpool
from mailhost.spool.files import Files
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.maildir.spool import MaildirSpool
from mailhost.spool.memory import MemorySpool
from tests.spool.explorer.workloads import LARGE_OCTETS, Kind


class Log:
    """A new segment every few messages; groups are committed by the thread, or in the reactor's turn."""

    index = "index.sqlite3"
    shows_durable_only = True

    def __init__(self, *, in_turn: bool = False, keep_deleted_seconds: float = 0) -> None:
        self._in_turn = in_turn
        self._keep_deleted_seconds = keep_deleted_seconds

    def make(self, directory: str, reactor: Any, observer: Callable[[Event], None], files: Files) -> ISpool:
        spool = LogSpool(
            directory,
            reactor=reactor,
            observer=observer,
            segment_octets=2500,
            large_octets=LARGE_OCTETS,
            keep_deleted_seconds=self._keep_deleted_seconds,
            files=files,
        )
        spool._committer._pace.in_turn = self._in_turn
        return spool

    def bury(self, spool: ISpool) -> None:
        assert isinstance(spool, LogSpool)
        spool._index.close()


class Maildirs:
    """One Maildir for each maildrop."""

    index = "none.sqlite3"
    shows_durable_only = False  # other programs do not either

    def make(self, directory: str, reactor: Any, observer: Callable[[Event], None], files: Files) -> ISpool:
        return MaildirSpool(directory, reactor=reactor, observer=observer, large_octets=LARGE_OCTETS, files=files)

    def bury(self, spool: ISpool) -> None:
        pass


class Memory:
    """What no crash leaves anything of: to see that this is found out."""

    index = "none.sqlite3"
    shows_durable_only = True

    def make(self, directory: str, reactor: Any, observer: Callable[[Event], None], files: Files) -> ISpool:
        return MemorySpool(reactor=reactor, observer=observer)

    def bury(self, spool: ISpool) -> None:
        pass


KINDS: dict[str, Kind] = {"log": Log(), "log-in-turn": Log(in_turn=True), "maildir": Maildirs(), "memory": Memory()}
