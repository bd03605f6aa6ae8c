"""What the spool in memory does beside the contract: its waiting, on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailhost.refusal import MaildropInUse
from mailhost.spool.memory import MemorySpool

ANN = "ann@example.test"


def begun(awaitable: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(awaitable)


class WaitingTests(SynchronousTestCase):
    def test_wait_ends(self) -> None:
        """Who waits is refused when the time is over, not earlier, and no timer is left."""
        clock = Clock()
        spool = MemorySpool(reactor=clock)
        self.successResultOf(begun(spool.start()))
        first = self.successResultOf(begun(spool.open_maildrop(ANN, 5)))
        waiting = begun(spool.open_maildrop(ANN, 5))
        clock.advance(4.9)
        self.assertNoResult(waiting)
        clock.advance(0.1)
        self.failureResultOf(waiting, MaildropInUse)
        waiting = begun(spool.open_maildrop(ANN, 5))
        first.release()
        self.successResultOf(waiting)
        assert clock.getDelayedCalls() == []

    def test_without_a_reactor(self) -> None:
        """A spool without a reactor refuses at once rather than wait."""
        spool = MemorySpool()
        self.successResultOf(begun(spool.start()))
        self.successResultOf(begun(spool.open_maildrop(ANN, 5)))
        self.failureResultOf(begun(spool.open_maildrop(ANN, 5)), MaildropInUse)
