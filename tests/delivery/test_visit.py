"""Visits on terms, and what expires: over a spool in memory, with a clock of the test's own."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import maildrop_avatars
from mailhost.delivery.retention import Retention
from mailhost.delivery.terms import TermsBook
from mailhost.delivery.visit import Notes
from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.events import Bug, Event, Notice
from mailhost.interfaces import IMaildrop, IVisit
from mailhost.limits import OwnTerms, Terms
from mailhost.refusal import LoginTooSoon, MaildropInUse, SpoolFull
from mailhost.spool.failing import FailingSpool
from mailhost.spool.memory import MemorySpool

ANN = "ann@example.test"
CLIENT = Client("s1", "192.0.2.1", 40000, "pop3", "pop3")
ENVELOPE = Envelope(CLIENT, NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),))
DAY = 86_400


class Accounts:
    """Everybody lives here."""

    async def has_account(self, address: str) -> bool:
        return True


class VisitTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.events: list[Event] = []
        self.spool = FailingSpool(MemorySpool(reactor=self.clock))
        self.result(self.spool.start())
        # A message's time is the machine's own: the test's days begin now.
        self.deliver()
        maildrop = self.result(self.spool.open_maildrop(ANN, 0))
        (arrived,) = self.result(maildrop.times())
        self.result(maildrop.update([1]))
        maildrop.release()
        self.clock.rightNow = arrived / 1_000_000 + 1

    def result(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def deliver(self, name: str = ANN) -> str:
        staged = self.result(self.spool.stage(ENVELOPE, [Copy(name, b"")]))
        staged.write(b"Subject: one\r\n\r\nbody\r\n")
        unique_id: str = self.result(staged.commit()).unique_id
        return unique_id

    def serve(self, default: Terms, *, from_retrieval: bool = False, **domains: OwnTerms) -> None:
        self.terms = TermsBook(
            first_domain="example.test",
            default=default,
            domains={name.replace("_", "."): own for name, own in domains.items()},
        )
        self.from_retrieval = from_retrieval
        self.avatars = maildrop_avatars(
            self.spool,
            AddressBook(["example.test", "other.test"], Accounts(), hostname="mx.example.test"),
            wait_seconds=0,
            terms=self.terms,
            from_retrieval=from_retrieval,
            seconds=self.clock.seconds,
        )

    def log_in(self, account: bytes = ANN.encode()) -> IMaildrop:
        maildrop, log_out = self.result(self.avatars(account, CLIENT))
        self.log_out = log_out
        return maildrop

    def visit(self) -> None:
        self.log_in()
        self.log_out()

    def refused(self, kind: type[Exception]) -> None:
        self.failureResultOf(Deferred.fromCoroutine(self.avatars(ANN.encode(), CLIENT)), kind)


class LoginDelayTests(VisitTestCase):
    def test_too_soon(self) -> None:
        """A login within the delay of the last one is refused and lets the maildrop go; refused ones do not count."""
        self.serve(Terms(60))
        self.visit()
        for _ in range(2):
            self.clock.advance(29)
            self.refused(LoginTooSoon)
        self.clock.advance(2)
        self.visit()
        self.refused(LoginTooSoon)

    def test_in_use_does_not_count(self) -> None:
        """Who did not get the maildrop has not logged in."""
        self.serve(Terms(60))
        held = self.result(self.spool.open_maildrop(ANN, 0))
        self.refused(MaildropInUse)
        held.release()
        self.visit()

    def test_each_by_itself(self) -> None:
        """A delay is the account's own."""
        self.serve(Terms(60), other_test={"login_delay_seconds": 0})
        self.visit()
        self.log_in(b"bob@example.test")
        for _ in range(2):
            self.log_in(b"ann@other.test")
            self.log_out()

    def test_a_clock_set_back(self) -> None:
        """Nobody is locked out until the time that was."""
        self.serve(Terms(60))
        self.visit()
        self.clock.rightNow -= 100_000
        self.visit()
        self.refused(LoginTooSoon)

    def test_no_room_for_notes(self) -> None:
        """Where nothing can be written people get in, to make room."""
        self.serve(Terms(60))
        self.spool.fail("keep_notes", SpoolFull())
        self.visit()

    def test_without_terms(self) -> None:
        """An account without any costs nothing: its maildrop is the spool's own, and no notes are read."""
        self.serve(Terms())
        assert not IVisit.providedBy(self.log_in())
        assert not self.spool.calls["notes"]

    def test_broken_notes(self) -> None:
        """Notes that are none are forgotten."""
        self.serve(Terms(60))
        for notes in (b"", b"{", b"[]", b'{"login": "x", "retrieved": {}}', b"\xff"):
            maildrop = self.result(self.spool.open_maildrop(ANN, 0))
            self.result(maildrop.keep_notes(notes))
            maildrop.release()
            self.visit()
            self.clock.advance(61)


class VisitTests(VisitTestCase):
    def test_interface(self) -> None:
        """It is what a session may ask, and knows its terms."""
        self.serve(Terms(1, 30))
        maildrop = self.log_in()
        verifyObject(IVisit, maildrop)
        assert maildrop.terms == Terms(1, 30)

    def test_the_maildrop_behind_it(self) -> None:
        """All that a session does arrives there."""
        self.serve(Terms(1))
        unique_ids = [self.deliver(), self.deliver()]
        maildrop = self.log_in()
        assert maildrop.totals.messages == 2
        assert self.result(maildrop.listing()).unique_ids == unique_ids
        assert self.result(maildrop.content(1)).octets == 22
        assert len(self.result(maildrop.times())) == 2
        maildrop.when_wanted(maildrop.release)
        self.result(maildrop.update([1]))
        maildrop.release()
        maildrop.release()
        self.clock.advance(2)
        assert self.log_in().totals.messages == 1

    def test_first_retrievals_are_dated(self) -> None:
        """The first of each message, kept when the visit ends; the maildrop is let go once they are."""
        self.serve(Terms(0, 30), from_retrieval=True)
        one, two = self.deliver(), self.deliver()
        self.log_in().retrieved(one)  # type: ignore[attr-defined]
        keeping = self.spool.hold("keep_notes")
        self.log_out()
        self.log_out()
        self.refused(MaildropInUse)
        first = int(self.clock.seconds() * 1_000_000)
        keeping.callback(None)
        self.clock.advance(DAY)
        visit = self.log_in()
        visit.retrieved(one)  # type: ignore[attr-defined]
        visit.retrieved(two)  # type: ignore[attr-defined]
        self.log_out()
        notes = Notes.parse(self.result(self.log_in().notes()))
        assert notes.retrieved == {one: first, two: first + DAY * 1_000_000}


class RetentionTests(VisitTestCase):
    def round(self) -> None:
        retention = Retention(
            self.spool,
            self.terms,
            reactor=self.clock,
            from_retrieval=self.from_retrieval,
            observer=self.events.append,
        )
        going = Deferred.fromCoroutine(retention.round())
        while not going.called:
            self.clock.advance(0)
        self.successResultOf(going)

    def left(self, name: str = ANN) -> int:
        messages: int = self.result(self.spool.totals(name)).messages
        return messages

    def test_from_arrival(self) -> None:
        """What is older than its account's days goes, what is not stays, and where nothing expires nothing does."""
        self.serve(Terms(0, 30), other_test={"expire_days": None})
        self.deliver()
        self.deliver("ann@other.test")
        self.clock.advance(30 * DAY - 60)
        self.round()
        assert (self.left(), self.left("ann@other.test")) == (1, 1)
        self.clock.advance(120)
        self.round()
        assert (self.left(), self.left("ann@other.test")) == (0, 1)
        assert self.events == [Notice(f"1 messages have expired in {ANN}")]

    def test_from_retrieval(self) -> None:
        """Days count from the first retrieval; what nobody has retrieved stays, and what is gone is forgotten."""
        self.serve(Terms(0, 30), from_retrieval=True)
        one, _ = self.deliver(), self.deliver()
        self.clock.advance(100 * DAY)
        self.round()
        assert self.left() == 2
        self.log_in().retrieved(one)  # type: ignore[attr-defined]
        self.log_out()
        self.clock.advance(31 * DAY)
        self.round()
        assert self.left() == 1
        self.round()
        assert json.loads(self.result(self.log_in().notes()))["retrieved"] == {}

    def test_never_while_somebody_has_it(self) -> None:
        """A session keeps what it sees; the next round comes."""
        self.serve(Terms(0, 30))
        self.deliver()
        self.log_in()
        self.clock.advance(31 * DAY)
        self.round()
        assert self.left() == 1
        self.log_out()
        self.round()
        assert self.left() == 0

    def test_a_maildrop_that_cannot_be_changed(self) -> None:
        """It is told, and the others get their turn."""
        self.serve(Terms(0, 30))
        self.deliver()
        self.deliver("bob@example.test")
        self.clock.advance(31 * DAY)
        self.spool.fail("update", SpoolFull(cause="no room"))
        self.round()
        assert self.left() + self.left("bob@example.test") == 1
        assert len(self.events) == 2

    def test_in_the_background(self) -> None:
        """A round an hour, until it is stopped; a round that fails is not the last."""
        self.serve(Terms(0, 30))
        self.deliver()
        retention = Retention(self.spool, self.terms, reactor=self.clock, observer=self.events.append)
        retention.start()
        self.clock.advance(3600)
        self.clock.advance(0)
        assert self.left() == 1
        self.spool.fail("totals", OSError())
        self.clock.advance(31 * DAY)
        for _ in range(3):
            self.clock.advance(3600)
            self.clock.advance(0)
        assert self.left() == 0
        assert [type(event) for event in self.events] == [Bug, Notice]
        retention.stop()
        retention.stop()
        assert not self.clock.getDelayedCalls()
