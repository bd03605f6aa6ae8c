"""Faults on demand: that `FailingSpool` fails when, how and as often as it was told."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.interfaces import IMaildrop, IStagedMessage
from mailhost.refusal import MaildropInUse, SpoolFull, SpoolUnavailable
from mailhost.spool.failing import FailingSpool
from mailhost.spool.memory import MemorySpool

ANN = "ann@example.test"
ENVELOPE = Envelope(
    Client("s1", "192.0.2.1", 40000, "mx", "smtp"), NULL_REVERSE_PATH, NO_PARAMETERS, (Path("ann", "example.test"),)
)


def begun(awaitable: Any) -> Deferred[Any]:
    return Deferred.fromCoroutine(awaitable)


class FailingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.spool = FailingSpool(MemorySpool())
        self.now(self.spool.start())

    def now(self, awaitable: Any) -> Any:
        """The result of what does not wait."""
        return self.successResultOf(begun(awaitable))

    def staged(self) -> IStagedMessage:
        staged = self.now(self.spool.stage(ENVELOPE, [Copy(ANN, b"")]))
        assert staged.write(b"A: b\r\n\r\n") is None
        return staged

    def opened(self) -> IMaildrop:
        return self.now(self.spool.open_maildrop(ANN, 0))

    def messages(self) -> int:
        maildrop = self.opened()
        maildrop.release()
        return maildrop.totals.messages

    def test_commit_refused(self) -> None:
        """A commit told to fail raises just that and stores nothing; the next one is as usual."""
        refusal = SpoolFull("no room")
        self.spool.fail("commit", refusal)
        assert self.failureResultOf(begun(self.staged().commit())).value is refusal
        assert self.messages() == 0
        self.now(self.staged().commit())
        assert self.messages() == 1

    def test_bug(self) -> None:
        """What is raised need not be a refusal."""
        self.spool.fail("stage", ZeroDivisionError())
        self.failureResultOf(begun(self.spool.stage(ENVELOPE, [])), ZeroDivisionError)

    def test_failed_write(self) -> None:
        """A write that fails says nothing; its commit raises, and stores nothing."""
        staged = self.now(self.spool.stage(ENVELOPE, [Copy(ANN, b"")]))
        self.spool.let_pass("write", 2)
        self.spool.fail("write", SpoolFull())
        for _ in range(5):
            assert staged.write(b"A: b\r\n") is None
        self.failureResultOf(begun(staged.commit()), SpoolFull)
        assert self.messages() == 0

    def test_times(self) -> None:
        """Faults are used up in their order, as often as was said."""
        self.spool.fail("open", MaildropInUse(), times=2)
        self.spool.let_pass("open")
        self.spool.fail("open", SpoolUnavailable())
        for refusal in MaildropInUse, MaildropInUse, None, SpoolUnavailable, None:
            opening = begun(self.spool.open_maildrop(ANN, 0))
            if refusal is None:
                self.successResultOf(opening).release()
            else:
                self.failureResultOf(opening, refusal)
        assert self.spool.calls["open"] == 5

    def test_every_step_of_a_session(self) -> None:
        """Listing, content, read and update can each fail, and change nothing when they do."""
        self.now(self.staged().commit())
        maildrop = self.opened()
        content = self.now(maildrop.content(1))
        steps = {
            "listing": maildrop.listing,
            "content": lambda: maildrop.content(1),
            "read": lambda: content.read(0, 10),
            "update": lambda: maildrop.update([1]),
        }
        for name, step in steps.items():
            self.spool.fail(name, SpoolUnavailable())
            self.failureResultOf(begun(step()), SpoolUnavailable)
            self.now(step())
        maildrop.release()
        assert self.messages() == 0

    def test_held_before(self) -> None:
        """A held commit has done nothing until it is let go."""
        answer = self.spool.hold("commit")
        commit = begun(self.staged().commit())
        self.assertNoResult(commit)
        assert self.messages() == 0
        answer.callback(None)
        self.successResultOf(commit)
        assert self.messages() == 1

    def test_held_after(self) -> None:
        """A commit can be done while its answer is still on its way; cancelling that undoes nothing."""
        self.spool.hold("commit", done=True)
        commit = begun(self.staged().commit())
        self.assertNoResult(commit)
        assert self.messages() == 1
        commit.cancel()
        self.failureResultOf(commit)
        assert self.messages() == 1

    def test_held_and_failed(self) -> None:
        """A held step can end in a refusal."""
        answer = self.spool.hold("update")
        update = begun(self.opened().update([]))
        self.assertNoResult(update)
        answer.errback(SpoolUnavailable())
        self.failureResultOf(update, SpoolUnavailable)

    def test_held_write(self) -> None:
        """A held write has taken its octets, and makes its writer wait."""
        staged = self.staged()
        answer = self.spool.hold("write")
        room = staged.write(b"more\r\n")
        self.assertNoResult(room)
        answer.callback(None)
        self.successResultOf(room)
        self.now(staged.commit())
        assert self.opened().totals.octets == len(b"A: b\r\n\r\nmore\r\n")

    def test_delay(self) -> None:
        """A delayed step comes that much later; cancelled meanwhile it leaves no timer."""
        clock = Clock()
        self.spool.delay("open", clock, 5.0, times=2)
        opening = begun(self.spool.open_maildrop(ANN, 0))
        clock.advance(4.9)
        self.assertNoResult(opening)
        clock.advance(0.1)
        self.successResultOf(opening).release()
        cancelled = begun(self.spool.open_maildrop(ANN, 0))
        cancelled.cancel()
        self.failureResultOf(cancelled)
        assert clock.getDelayedCalls() == []
        self.opened()

    def test_no_such_step(self) -> None:
        """A step that does not exist is a mistake in the test, said at once."""
        with pytest.raises(ValueError, match="comit"):
            self.spool.fail("comit", SpoolFull())
