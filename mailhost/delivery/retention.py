"""
Retention: what EXPIRE (RFC 2449 6.7) promises to keep for so many days is removed when they have passed.

A maildrop that somebody has open is left for the next round; a round goes on in the background, one maildrop after another.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from mailhost.delivery.terms import TermsBook
from mailhost.delivery.visit import Notes
from mailhost.events import Bug, Notice, Observer, Trouble, unobserved
from mailhost.interfaces import IMaildrop, ISpool
from mailhost.refusal import MaildropInUse, Refusal

_DAY = 86_400 * 1_000_000
_ROUND_SECONDS = 3600.0


class Retention:
    """Between `start` and `stop`, a round every hour, the first one after an hour."""

    def __init__(
        self,
        spool: ISpool,
        terms: TermsBook,
        *,
        reactor: IReactorTime,
        from_retrieval: bool = False,
        observer: Observer = unobserved,
    ) -> None:
        """
        @param reactor: its `seconds()` are since the epoch.
        @param from_retrieval: days are counted from a message's first retrieval, and one that was never retrieved stays.
        """
        self._spool = spool
        self._terms = terms
        self._reactor = reactor
        self._from_retrieval = from_retrieval
        self._observer = observer
        self._rounds: Deferred[None] | None = None

    def start(self) -> None:
        self._rounds = Deferred.fromCoroutine(self._go_on())
        self._rounds.addErrback(lambda failure: failure.trap(CancelledError))

    def stop(self) -> None:
        """What is being removed at this moment is removed."""
        rounds, self._rounds = self._rounds, None
        if rounds is not None:
            rounds.cancel()

    async def _go_on(self) -> None:
        while True:
            await deferLater(self._reactor, _ROUND_SECONDS)
            try:
                await self.round()
            except Refusal as refusal:
                self._observer(Trouble("retention was broken off", refusal.cause or refusal))
            except Exception as bug:
                self._observer(Bug("retention", bug))

    async def round(self) -> None:
        """Look at every maildrop once.  @raise Refusal: the spool cannot say which there are."""
        if not self._terms.may_expire():
            return
        async for name in self._spool.maildrops():
            days = (await self._terms.of(name)).expire_days
            if days is not None:
                await self._expire(name, days)
            await deferLater(self._reactor, 0)  # others get their turn

    async def _expire(self, name: str, days: int) -> None:
        try:
            if not (await self._spool.totals(name)).messages:
                return
            maildrop = await self._spool.open_maildrop(name, 0)
        except MaildropInUse:
            return
        try:
            await self._remove(name, maildrop, int(self._reactor.seconds() * 1_000_000) - days * _DAY)
        except Refusal as refusal:
            self._observer(Trouble(f"nothing has expired in {name}", refusal.cause or refusal))
        finally:
            maildrop.release()

    async def _remove(self, name: str, maildrop: IMaildrop, before: int) -> None:
        dates = await (self._retrievals(maildrop) if self._from_retrieval else maildrop.times())
        # 0 is a date that nobody knows.
        expired = [number for number, date in enumerate(dates, 1) if 0 < date < before]
        if expired:
            await maildrop.update(expired)
            self._observer(Notice(f"{len(expired)} messages have expired in {name}"))

    async def _retrievals(self, maildrop: IMaildrop) -> Sequence[int]:
        """When each was first retrieved; 0 for never.  What the notes know of messages that are gone is forgotten."""
        notes, unique_ids = Notes.parse(await maildrop.notes()), (await maildrop.listing()).unique_ids
        dates = [notes.retrieved.get(unique_id, 0) for unique_id in unique_ids]
        there = {unique_id: date for unique_id, date in zip(unique_ids, dates) if date}
        if there != notes.retrieved:
            await maildrop.keep_notes(bytes(Notes(notes.last_login, there)))
        return dates
