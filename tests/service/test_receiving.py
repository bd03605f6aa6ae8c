"""Mail into an application's functions, however they behave."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Envelope, Outcome, Path
from mailhost.interfaces import IStagedMessage
from mailhost.limits import Limits
from mailhost.refusal import NoSuchMaildrop, SpoolFull, TookTooLong
from mailhost.service.receiving import Content, delivery_of

CLIENT = Client("s", "192.0.2.1", 1, "smtp", "smtp")
ANN, BOB = Path("ann", "example.test"), Path("bob", "example.test")


class DeliveryTests(SynchronousTestCase):
    def now(self, awaitable: Awaitable[Any]) -> Any:
        return self.successResultOf(self.deferred(awaitable))

    def deferred(self, awaitable: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(awaitable)

    def staged(self, receive: Any) -> IStagedMessage:
        avatar, _logout = self.now(delivery_of(receive)(None, CLIENT))
        transaction = self.now(avatar.transaction(CLIENT, NULL_REVERSE_PATH, NO_PARAMETERS))
        for forward_path in (ANN, BOB):
            self.now(transaction.recipient(forward_path, NO_PARAMETERS))
        staged: IStagedMessage = self.now(transaction.content())
        return staged

    def test_the_function_gets_all_of_it(self) -> None:
        """The envelope with every forward-path that was taken, the content in both forms, and 250 when it has returned."""
        for form, expected in (("wire", b"a\r\n..b\r\n"), ("plain", b"a\r\n.b\r\n")):
            seen: list[Any] = []

            async def receive(envelope: Envelope, content: Content) -> None:
                blocks = [block async for block in getattr(content, form)()]  # noqa: B023
                seen.append((envelope.forward_paths, b"".join(blocks)))  # noqa: B023

            staged = self.staged(receive)
            for octet in b"a\r\n..b\r\n":
                assert staged.write(bytes([octet])) is None
            assert not seen
            outcome: Outcome = self.now(staged.commit())
            assert outcome.unique_id == staged.unique_id
            assert seen == [((ANN, BOB), expected)]

    def test_whoever_is_not_known(self) -> None:
        """What `recipient` raises is RCPT's answer, and the forward-path is not in the envelope."""

        async def known(forward_path: Path) -> None:
            if forward_path != ANN:
                raise NoSuchMaildrop()

        async def receive(envelope: Envelope, content: Content) -> None:
            assert envelope.forward_paths == (ANN,)

        avatar, _ = self.now(delivery_of(receive, known)(None, CLIENT))
        transaction = self.now(avatar.transaction(CLIENT, NULL_REVERSE_PATH, NO_PARAMETERS))
        self.now(transaction.recipient(ANN, NO_PARAMETERS))
        self.failureResultOf(self.deferred(transaction.recipient(BOB, NO_PARAMETERS)), NoSuchMaildrop)
        self.now(self.now(transaction.content()).commit())

    def test_no_answer_before_the_function_has_returned(self) -> None:
        """However long that takes after the last octet."""
        stored: Deferred[None] = Deferred()

        async def receive(envelope: Envelope, content: Content) -> None:
            async for _ in content.plain():
                pass
            await stored

        committing = self.deferred(self.staged(receive).commit())
        self.assertNoResult(committing)
        stored.callback(None)
        self.successResultOf(committing)

    def test_a_slow_function_makes_the_sender_wait(self) -> None:
        """What is held is bounded; when it is taken there is room again."""
        slow: Deferred[None] = Deferred()

        async def receive(envelope: Envelope, content: Content) -> None:
            async for _ in content.plain():
                await slow

        staged = self.staged(receive)
        written = 1
        while (room := staged.write(bytes(64 * 1024))) is None:
            written += 1
        assert written <= 5
        self.assertNoResult(room)
        slow.callback(None)
        self.successResultOf(room)
        self.now(staged.commit())

    def test_what_the_function_raises(self) -> None:
        """At once, in the middle or at the end: `write` goes on without a word, and the commit tells."""

        async def at_once(envelope: Envelope, content: Content) -> None:
            raise SpoolFull("no room")

        async def in_the_middle(envelope: Envelope, content: Content) -> None:
            async for _ in content.plain():
                raise SpoolFull("no room")

        async def at_the_end(envelope: Envelope, content: Content) -> None:
            async for _ in content.plain():
                pass
            raise SpoolFull("no room")

        for receive in (at_once, in_the_middle, at_the_end):
            staged = self.staged(receive)
            for _ in range(100):
                wait = staged.write(bytes(64 * 1024))
                assert wait is None or wait.called
            self.failureResultOf(self.deferred(staged.commit()), SpoolFull)

    def test_a_function_that_does_not_want_the_content(self) -> None:
        """It has the envelope, and that is enough: the message is taken, and nothing of it is held."""

        async def receive(envelope: Envelope, content: Content) -> None:
            pass

        staged = self.staged(receive)
        assert [staged.write(bytes(64 * 1024)) for _ in range(100)] == [None] * 100
        self.now(staged.commit())

    def test_the_client_goes_away(self) -> None:
        """The function sees CancelledError where it waits, can clean up, and nothing is said of it in the log."""
        for wait_elsewhere in (False, True):
            cleaned: list[str] = []

            async def receive(envelope: Envelope, content: Content) -> None:
                try:
                    async for _ in content.plain():
                        if wait_elsewhere:  # noqa: B023
                            await Deferred()
                except CancelledError:
                    cleaned.append("cleaned")  # noqa: B023
                    raise

            staged = self.staged(receive)
            staged.write(b"half a mess")
            staged.abort()
            assert cleaned == ["cleaned"]
            assert staged.write(b"late") is None
        assert not self.flushLoggedErrors()

    def test_a_wait_for_room_that_is_cancelled(self) -> None:
        """When room comes after all, nothing breaks."""
        slow: Deferred[None] = Deferred()

        async def receive(envelope: Envelope, content: Content) -> None:
            async for _ in content.plain():
                await slow

        staged = self.staged(receive)
        while (room := staged.write(bytes(64 * 1024))) is None:
            pass
        room.cancel()
        self.failureResultOf(room, CancelledError)
        slow.callback(None)
        self.now(staged.commit())


class LimitTests(SynchronousTestCase):
    def test_a_function_that_never_returns(self) -> None:
        """At its limit it is cancelled and the client told to try again: a duplicate is possible, a loss is not."""
        clock = Clock()
        cancelled: list[str] = []

        async def receive(envelope: Envelope, content: Content) -> None:
            try:
                await Deferred()
            except CancelledError:
                cancelled.append("cancelled")
                raise

        avatars = delivery_of(receive, reactor=clock, limits=Limits(commit_seconds=7))
        avatar, _logout = self.successResultOf(Deferred.fromCoroutine(_of(avatars(None, CLIENT))))
        transaction = self.successResultOf(
            Deferred.fromCoroutine(_of(avatar.transaction(CLIENT, NULL_REVERSE_PATH, NO_PARAMETERS)))
        )
        staged = self.successResultOf(Deferred.fromCoroutine(_of(transaction.content())))
        clock.advance(100)  # however long the content takes
        committing = Deferred.fromCoroutine(_of(staged.commit()))
        clock.advance(6.9)
        self.assertNoResult(committing)
        clock.advance(0.2)
        self.failureResultOf(committing, TookTooLong)
        assert cancelled == ["cancelled"]
        assert not clock.getDelayedCalls()


async def _of(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
