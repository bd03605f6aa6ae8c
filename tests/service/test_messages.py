"""An application's objects as maildrops: what comes with them, and what becomes of their mistakes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import IO, Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailhost.envelope import Client, Totals
from mailhost.events import unobserved
from mailhost.limits import Limits
from mailhost.refusal import LoginForbidden, MaildropInUse, SpoolFull
from mailhost.service.messages import Messages, maildrops_of

CLIENT = Client("s", "192.0.2.1", 1, "pop3", "pop3")


class Invoices(Messages):
    octets: int | None = None
    fails: Exception | None = None
    removed: Sequence[str] = ()
    asked = 0

    async def listing(self) -> Sequence[tuple[str, int | None]]:
        if self.fails is not None:
            raise self.fails
        return [("one", self.octets), ("two", self.octets)]

    async def content(self, unique_id: str) -> bytes | IO[bytes]:
        type(self).asked += 1
        content = f"Subject: {unique_id}\n\n.x\n".encode()
        return content if unique_id == "one" else io.BytesIO(content.replace(b"\n", b"\r\n"))

    async def remove(self, unique_ids: Sequence[str]) -> None:
        type(self).removed = [*self.removed, *unique_ids]


class MessagesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.kind = type("Kind", (Invoices,), {})
        limits = Limits(maildrop_wait_seconds=5)
        self.avatars = maildrops_of(self.kind, reactor=self.clock, limits=limits, observer=unobserved)

    def log_in(self, account: bytes | None = b"ann") -> Deferred[Any]:
        return Deferred.fromCoroutine(self.avatars(account, CLIENT))  # type: ignore[arg-type]

    def now(self, awaitable: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(awaitable))

    def test_what_a_session_sees(self) -> None:
        """Counts as they will be sent, unique-ids, and content with CRLF whatever it was given with."""
        maildrop, _ = self.successResultOf(self.log_in())
        assert maildrop.totals == Totals(2, 2 * len(b"Subject: one\r\n\r\n.x\r\n"))
        assert self.now(maildrop.listing()).unique_ids == ["one", "two"]
        for number, name in ((1, b"one"), (2, b"two")):
            content = self.now(maildrop.content(number))
            assert self.now(content.read(0, 1000)) == b"Subject: " + name + b"\r\n\r\n..x\r\n"

    def test_known_octets_cost_no_reading(self) -> None:
        """With octets given a login reads no message."""
        self.kind.octets = 20  # type: ignore[attr-defined]
        self.successResultOf(self.log_in())
        assert self.kind.asked == 0  # type: ignore[attr-defined]

    def test_removal_is_once_and_of_all(self) -> None:
        """A QUIT that deletes nothing asks for nothing."""
        maildrop, _ = self.successResultOf(self.log_in())
        self.now(maildrop.update([]))
        assert self.kind.removed == ()  # type: ignore[attr-defined]
        maildrop, _ = self.successResultOf(self.log_in(b"bob"))
        self.now(maildrop.update([2, 1]))
        assert sorted(self.kind.removed) == ["one", "two"]  # type: ignore[attr-defined]

    def test_one_session_of_an_account_at_a_time(self) -> None:
        """A second one waits, and gets it when the first ends; another account does not wait."""
        _, release = self.successResultOf(self.log_in())
        second = self.log_in()
        self.successResultOf(self.log_in(b"bob"))
        self.assertNoResult(second)
        release()
        _, release = self.successResultOf(second)
        third = self.log_in()
        self.clock.advance(5)
        self.failureResultOf(third, MaildropInUse)
        release()
        self.successResultOf(self.log_in())

    def test_a_login_that_fails_holds_nothing(self) -> None:
        """The next one finds the account free."""
        self.kind.fails = SpoolFull()  # type: ignore[attr-defined]
        self.failureResultOf(self.log_in(), SpoolFull)
        self.kind.fails = None  # type: ignore[attr-defined]
        self.successResultOf(self.log_in())

    def test_a_login_that_is_given_up_while_it_waits(self) -> None:
        """It takes nothing when its turn would have come."""
        _, release = self.successResultOf(self.log_in())
        second = self.log_in()
        second.cancel()
        self.failureResultOf(second)
        release()
        self.successResultOf(self.log_in())

    def test_strangers_have_no_maildrop(self) -> None:
        """An anonymous login is refused."""
        self.failureResultOf(self.log_in(None), LoginForbidden)
