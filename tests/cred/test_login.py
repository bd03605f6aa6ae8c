"""Logins: each outcome, once, reported, and never a password or a held maildrop left behind."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import Anonymous, CramMD5Credentials, IUsernamePassword, UsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost import events
from mailhost.cred.chain import build_portal
from mailhost.cred.login import Login
from mailhost.cred.realm import MailRealm
from mailhost.cred.throttle import Throttle
from mailhost.envelope import Client
from mailhost.interfaces import IDelivery, ILoggedIn, ILogin, IMaildrop
from mailhost.limits import Limits
from mailhost.refusal import (
    LoginFailed,
    LoginForbidden,
    LoginUnavailable,
    LoginUnsupported,
    MaildropInUse,
)

CLIENT = Client("s1", "192.0.2.7", 4711, "pop", "pop3")
RIGHT = UsernamePassword(b"Ann", b"hunter2")
WRONG = UsernamePassword(b"Ann", b"guess")


@implementer(ICredentialsChecker)
class Checker:
    """Knows Ann; can be told to answer otherwise."""

    credentialInterfaces = (IUsernamePassword,)

    def __init__(self) -> None:
        self.answer: Any = None
        self.asked = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked += 1
        if self.answer is not None:
            return self.answer
        if credentials.checkPassword(b"hunter2"):
            return succeed(b"ann@example.test")
        return fail(UnauthorizedLogin())


class LoginTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.heard: list[events.Event] = []
        self.checker = Checker()
        self.logouts: list[bytes | None] = []
        self.avatar: Any = None
        self.login = self.make_login([self.checker])

    def make_login(self, checkers: list[Any], **options: Any) -> Login:
        portal = build_portal(MailRealm({IMaildrop: self.make, IDelivery: self.make}), checkers, self.heard.append)
        return Login(portal, IMaildrop, reactor=self.clock, observer=self.heard.append, **options)

    async def make(self, account: bytes | None, client: Client) -> Any:
        if isinstance(self.avatar, Deferred):
            await self.avatar
        elif self.avatar is not None:
            raise self.avatar
        return "maildrop", lambda: self.logouts.append(account)

    def log_in(self, credentials: Any = RIGHT, client: Client = CLIENT) -> Deferred[Any]:
        return Deferred.fromCoroutine(self.login.log_in(credentials, client))


class OutcomeTests(LoginTestCase):
    def test_success(self) -> None:
        """The avatar, the account's name as the checker has it, and one event."""
        verifyObject(ILogin, self.login)
        logged_in = self.successResultOf(self.log_in())
        verifyObject(ILoggedIn, logged_in)
        assert (logged_in.account, logged_in.avatar) == (b"ann@example.test", "maildrop")
        assert self.heard == [events.LoggedIn(CLIENT._replace(account=b"ann@example.test"))]
        assert self.logouts == []

    def test_success_never_waits(self) -> None:
        """A conversation drives its steps by hand: when nothing waits, neither does a login."""
        step = self.login.log_in(RIGHT, CLIENT)
        with pytest.raises(StopIteration) as done:
            step.send(None)  # type: ignore[attr-defined]
        assert done.value.value.avatar == "maildrop"
        assert self.clock.getDelayedCalls() == []

    def test_wrong_password(self) -> None:
        """LoginFailed, and an event with the name as the client gave it."""
        self.failureResultOf(self.log_in(WRONG), LoginFailed)
        assert self.heard == [events.LoginRefused(CLIENT, b"Ann", "LoginFailed")]

    def test_empty_password(self) -> None:
        """Directories may take it for an anonymous login and say yes: no checker is asked (RFC 4513 5.1.2)."""
        self.checker.answer = succeed(b"ann@example.test")
        self.failureResultOf(self.log_in(UsernamePassword(b"ann", b"")), LoginFailed)
        assert self.checker.asked == 0

    def test_unsupported(self) -> None:
        """Credentials that no checker takes are another outcome than wrong ones, and slow nobody."""
        self.failureResultOf(self.log_in(CramMD5Credentials(b"mx")), LoginUnsupported)
        self.successResultOf(self.log_in())

    def test_checker_away(self) -> None:
        """Temporary, with the cause for the operator, and not counted as a guess."""
        for _ in range(3):
            self.checker.answer = fail(OSError("directory is away"))
            refusal = self.failureResultOf(self.log_in(), LoginUnavailable).value
            assert refusal.temporary
            assert "directory is away" in str(refusal.cause)
        self.checker.answer = None
        self.successResultOf(self.log_in())

    def test_realm_denies(self) -> None:
        """An exception of the realm that is no refusal of ours is temporary too."""
        for error in (LoginDenied("too often"), ZeroDivisionError(), NotImplementedError()):
            self.avatar = error
            assert self.failureResultOf(self.log_in(), LoginUnavailable).value.cause is error

    def test_refusals_of_the_realm(self) -> None:
        """They pass unchanged, and are no guesses."""
        for refusal in (MaildropInUse(), LoginForbidden("suspended")):
            self.avatar = refusal
            assert self.failureResultOf(self.log_in()).value is refusal
            assert isinstance(self.heard[-1], events.LoginRefused)
            assert self.heard[-1].why == type(refusal).__name__
        self.avatar = None
        self.successResultOf(self.log_in())

    def test_anonymous(self) -> None:
        """A stranger logs in without a checker, a delay or an event."""
        login = self.make_login([])
        logged_in = self.successResultOf(Deferred.fromCoroutine(login.log_in(Anonymous(), CLIENT)))
        assert (logged_in.account, logged_in.avatar) == (None, "maildrop")
        logged_in.log_out()
        assert self.logouts == [None]
        assert self.heard == []

    def test_foreign_portal(self) -> None:
        """An application's own portal and realm do as well; the account is then the user name."""

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return interfaces[0], "theirs", lambda: None

        portal = Portal(Realm(), [self.checker])  # type: ignore[arg-type]
        login = Login(portal, IMaildrop, reactor=self.clock)
        logged_in = self.successResultOf(Deferred.fromCoroutine(login.log_in(RIGHT, CLIENT)))
        assert (logged_in.account, logged_in.avatar) == (b"Ann", "theirs")

    def test_long_name(self) -> None:
        """An event holds at most 255 octets of what a client calls itself."""
        self.failureResultOf(self.log_in(UsernamePassword(b"x" * 10_000, b"y")), LoginFailed)
        assert isinstance(self.heard[0], events.LoginRefused)
        assert self.heard[0].account == b"x" * 255

    def test_no_password_anywhere(self) -> None:
        """Not in an event, an error's words or its causes, even when a checker puts it into its own."""
        for answer in (
            fail(ValueError("no match for 'hunter2'")),
            fail(KeyError(b"hunter2")),
            fail(UnauthorizedLogin("hunter2 is wrong")),
            succeed(None),
        ):
            self.checker.answer = answer
            error = self.failureResultOf(self.log_in()).value
            self.clock.advance(60)
            for seen in (error, error.cause, error.__cause__, self.heard):
                assert "hunter2" not in f"{seen} {seen!r}"
        assert len(self.heard) >= 4


class MechanismTests(LoginTestCase):
    def test_protected(self) -> None:
        """Passwords may pass only where they are safe."""
        assert list(self.login.mechanisms(True)) == [b"PLAIN", b"LOGIN"]
        assert list(self.login.mechanisms(False)) == []

    def test_without_passwords(self) -> None:
        """What no checker takes is not offered."""
        assert list(self.make_login([]).mechanisms(True)) == []


class LogoutTests(LoginTestCase):
    def test_once(self) -> None:
        """However often it is asked for."""
        logged_in = self.successResultOf(self.log_in())
        logged_in.log_out()
        logged_in.log_out()
        assert self.logouts == [b"ann@example.test"]

    def test_never_raises(self) -> None:
        """A realm's logout that breaks, at once or later, is a bug for the log and nothing to the session."""
        for logout in (lambda: 1 / 0, lambda: fail(ZeroDivisionError())):

            async def make(account: Any, client: Any, logout: Any = logout) -> Any:
                return "maildrop", logout

            login = Login(
                build_portal(MailRealm({IMaildrop: make}), [self.checker]),
                IMaildrop,
                reactor=self.clock,
                observer=self.heard.append,
            )
            self.successResultOf(Deferred.fromCoroutine(login.log_in(RIGHT, CLIENT))).log_out()
            bug = self.heard.pop()
            assert isinstance(bug, events.Bug)
            assert isinstance(bug.failure, ZeroDivisionError)

    def test_client_gone_before_the_lock(self) -> None:
        """A session that was cancelled while its maildrop was locked holds nothing: else `[IN-USE]` would last."""
        self.avatar = Deferred()
        waiting = self.log_in()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        assert self.logouts == []
        self.avatar.callback(None)
        assert self.logouts == [b"ann@example.test"]
        assert self.clock.getDelayedCalls() == []

    def test_lock_that_is_cancelled_by_nobody(self) -> None:
        """The realm's own waiting is never cut short: what it had taken by then would be lost."""
        cancelled: list[Any] = []
        self.avatar = Deferred(cancelled.append)
        waiting = self.log_in()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        assert cancelled == []

    def test_checker_too_slow(self) -> None:
        """After lookup_seconds the answer is temporary, and a login that comes later is ended at once."""
        self.checker.answer = answer = Deferred()  # type: ignore[var-annotated]
        waiting = self.log_in()
        self.clock.advance(Limits().lookup_seconds - 1)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.failureResultOf(waiting, LoginUnavailable)
        assert isinstance(self.heard[-1], events.LoginRefused)
        answer.callback(b"ann@example.test")
        assert self.logouts == [b"ann@example.test"]

    def test_answer_that_never_comes_is_counted_when_it_does(self) -> None:
        """To hang up early does not save a guesser the count."""
        self.checker.answer = answer = Deferred()  # type: ignore[var-annotated]
        waiting = self.log_in()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        answer.errback(UnauthorizedLogin())
        self.checker.answer = None
        self.assertNoResult(self.log_in())

    def test_timer_ends_with_the_login(self) -> None:
        """Nothing is left in the reactor when an answer came in time."""
        self.checker.answer = answer = Deferred()  # type: ignore[var-annotated]
        waiting = self.log_in()
        answer.callback(b"ann@example.test")
        logged_in = self.successResultOf(waiting)
        assert self.clock.getDelayedCalls() == []
        logged_in.log_out()
        assert self.logouts == [b"ann@example.test"]


class DelayTests(LoginTestCase):
    def test_right_password_waits_too(self) -> None:
        """After a failure the next attempt is held before it is checked, so that speed does not tell right from wrong."""
        self.failureResultOf(self.log_in(WRONG), LoginFailed)
        right = self.log_in()
        assert self.checker.asked == 1
        self.clock.advance(0.9)
        self.assertNoResult(right)
        self.clock.advance(0.2)
        self.successResultOf(right)

    def test_hanging_up_while_held(self) -> None:
        """The checker is not asked for a client that has gone, and no timer is left."""
        self.failureResultOf(self.log_in(WRONG), LoginFailed)
        held = self.log_in()
        held.cancel()
        self.failureResultOf(held, CancelledError)
        assert self.checker.asked == 1
        assert self.clock.getDelayedCalls() == []

    def test_unknown_and_wrong_look_and_take_the_same(self) -> None:
        """The same refusal, event and delays, whether the account exists or not."""
        seen = []
        for name in (b"ann", b"nobody"):
            login = self.login = self.make_login([self.checker])
            self.heard.clear()
            delays = []
            for _ in range(5):
                delays.append(login._throttle.seconds(name, CLIENT.host))
                attempt = self.log_in(UsernamePassword(name, b"guess"))
                self.clock.advance(delays[-1])
                refusal = self.failureResultOf(attempt, LoginFailed).value
            happened = [(type(event), getattr(event, "why", "")) for event in self.heard]
            seen.append((delays, str(refusal), refusal.cause, happened))
        assert seen[0] == seen[1]
        assert seen[0][0][-1] > 1

    def test_too_many_waiting(self) -> None:
        """Of a crowd of guesses at one account those beyond the bound are sent away, temporarily and unchecked."""
        self.failureResultOf(self.log_in(WRONG), LoginFailed)
        crowd = [self.log_in(WRONG) for _ in range(25)]
        refused = [attempt for attempt in crowd if attempt.called]
        assert len(refused) == 5
        for attempt in refused:
            self.failureResultOf(attempt, LoginUnavailable)
        assert self.checker.asked == 1
        self.clock.advance(1)
        assert self.checker.asked == 21
        for attempt in crowd[:20]:
            self.failureResultOf(attempt, LoginFailed)

    def test_shared_by_protocols(self) -> None:
        """With one throttle, failures at SMTP slow POP3."""
        throttle = Throttle(self.clock)
        smtp, self.login = (self.make_login([self.checker], throttle=throttle) for _ in range(2))
        self.failureResultOf(Deferred.fromCoroutine(smtp.log_in(WRONG, CLIENT)), LoginFailed)
        self.assertNoResult(self.log_in())
