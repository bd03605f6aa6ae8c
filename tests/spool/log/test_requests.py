"""Asking a holder in another process to let a maildrop go."""

from __future__ import annotations

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mailhost.refusal import MaildropInUse
from mailhost.spool.files import Files
from mailhost.spool.log.requests import Requests
from tests.spool.log.using import ANN, BOB, LogSpoolTestCase


class RequestsTests(LogSpoolTestCase):
    def pair(self) -> tuple[Requests, Requests]:
        path = self.new_directory()
        pair = Requests(Files(), path), Requests(Files(), path)
        for requests in pair:
            requests.open()
            self.addCleanup(requests.close)
        return pair

    def test_seen_once(self) -> None:
        """What one has asked for the other sees, once; and nothing from before it looked."""
        one, two = self.pair()
        one.add(7)
        one.add(2**64 - 1)
        assert two.new() == {7, 2**64 - 1}
        assert two.new() == set()
        three = Requests(Files(), one._path)
        three.open()
        self.addCleanup(three.close)
        assert three.new() == set()

    def test_more_than_there_is_room_for(self) -> None:
        """The last ones are seen."""
        one, two = self.pair()
        for maildrop in range(1000):
            one.add(maildrop)
        assert two.new() == set(range(1000 - 64, 1000))

    def test_closed(self) -> None:
        """Nothing is asked for and nothing seen."""
        one, two = self.pair()
        one.close()
        one.add(1)
        assert one.new() == two.new() == set()


class TwoSpoolsTests(LogSpoolTestCase):
    async def test_a_holder_that_lets_go(self) -> None:
        """A holder in another process is asked within the waiting, and what it lets go of is had in time."""
        directory = self.new_directory()
        one, two = await self.started(directory), await self.started(directory)
        first = await one.open_maildrop(ANN, 0)
        other = await one.open_maildrop(BOB, 0)
        other.when_wanted(lambda: pytest.fail("nobody wants this one"))
        first.when_wanted(first.release)
        began = reactor.seconds()
        second = await two.open_maildrop(ANN, 4)
        assert 1.5 < reactor.seconds() - began < 4
        with pytest.raises(MaildropInUse):
            await one.open_maildrop(ANN, 0.2)
        for maildrop in (second, other):
            maildrop.release()

    async def test_a_holder_that_does_not(self) -> None:
        """A holder that keeps its maildrop is asked, and keeps it."""
        directory = self.new_directory()
        one, two = await self.started(directory), await self.started(directory)
        first = await one.open_maildrop(ANN, 0)
        asked: list[bool] = []
        first.when_wanted(lambda: asked.append(True))
        waiting = Deferred.fromCoroutine(two.open_maildrop(ANN, 2))
        await deferLater(reactor, 1.5)
        assert asked
        with pytest.raises(MaildropInUse):
            await waiting
        first.release()
        (await two.open_maildrop(ANN, 0)).release()
