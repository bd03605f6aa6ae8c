"""
Somebody's code behind our sessions, misbehaving in every way at every call: a right reply to each command, in order, and no hang.

The sessions are whole, on a transport without a socket; time is a Clock's, so that "never" has an end.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm
from twisted.internet.defer import AlreadyCalledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.mail.interfaces import IMailboxPOP3, IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.mail.smtp import SMTPServerError
from zope.interface import implementer

from mailhost.cred.chain import build_portal
from mailhost.cred.login import Login
from mailhost.foreign.realm import realm_from_twisted
from mailhost.interfaces import IDelivery, IMaildrop
from mailhost.limits import Limits
from mailhost.pop3.factory import POP3Factory
from mailhost.smtp.factory import SMTPFactory
from mailhost.testing.transport import FakeTransport

LIMITS = Limits(lookup_seconds=20, commit_seconds=40)
# Longer than any limit, shorter than the patience of a client (RFC 5321 4.5.3.2: five minutes; ten at the end of content).
LONGEST_SECONDS = 120


class Misbehaviour:
    """What one call does instead of answering; the others behave."""

    def __init__(self, call: str, way: str, clock: Clock) -> None:
        self.call = call
        self.way = way
        self.clock = clock
        self.calls = 0

    def __call__(self, call: str, answer: Callable[[], Any]) -> Any:
        if call != self.call:
            return answer()
        self.calls += 1
        return getattr(self, self.way)(answer)

    def raises_at_once(self, answer: Callable[[], Any]) -> Any:
        raise RuntimeError("at once")

    def raises_text_in_octets(self, answer: Callable[[], Any]) -> Any:
        raise SMTPServerError("550", b"\xff\r\n250 smuggled")  # type: ignore[arg-type]

    def fails_late(self, answer: Callable[[], Any]) -> Any:
        deferred: Deferred[Any] = Deferred()
        self.clock.callLater(1, deferred.errback, RuntimeError("late"))
        return deferred

    def never_fires(self, answer: Callable[[], Any]) -> Any:
        return Deferred()

    def never_fires_and_cannot_be_cancelled(self, answer: Callable[[], Any]) -> Any:
        def refuse(deferred: Deferred[Any]) -> None:
            raise RuntimeError("no canceller of mine")

        return Deferred(refuse)

    def fires_after_the_limit(self, answer: Callable[[], Any]) -> Any:
        deferred: Deferred[Any] = Deferred(lambda deferred: None)
        self.clock.callLater(100, lambda: None if deferred.called else deferred.callback(answer()))
        return deferred

    def fires_twice(self, answer: Callable[[], Any]) -> Any:
        deferred: Deferred[Any] = Deferred()
        deferred.callback(answer())
        with pytest.raises(AlreadyCalledError):
            deferred.callback(answer())
        return deferred

    def answers_none(self, answer: Callable[[], Any]) -> Any:
        return None

    def answers_text(self, answer: Callable[[], Any]) -> Any:
        return "\u2603 text"

    def answers_octets(self, answer: Callable[[], Any]) -> Any:
        return b"\xff octets"

    def answers_an_object(self, answer: Callable[[], Any]) -> Any:
        return object()

    def answers_a_coroutine_that_fails(self, answer: Callable[[], Any]) -> Any:
        async def fails() -> None:
            raise KeyError("in a coroutine")

        return fails()


WAYS = [name for name in vars(Misbehaviour) if name.split("_")[0] in ("raises", "fails", "never", "fires", "answers")]


@implementer(IMessageSMTP)
class Message:
    def __init__(self, misbehave: Misbehaviour) -> None:
        self.misbehave = misbehave

    def lineReceived(self, line: bytes) -> Any:
        return self.misbehave("lineReceived", lambda: None)

    def eomReceived(self) -> Any:
        return self.misbehave("eomReceived", lambda: succeed(None))

    def connectionLost(self) -> Any:
        return self.misbehave("connectionLost", lambda: None)


@implementer(IMessageDelivery, IMessageDeliveryFactory)
class Delivery:
    def __init__(self, misbehave: Misbehaviour) -> None:
        self.misbehave = misbehave

    def getMessageDelivery(self) -> Any:
        return self.misbehave("getMessageDelivery", lambda: self)

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return self.misbehave("validateFrom", lambda: origin)

    def validateTo(self, user: Any) -> Any:
        return self.misbehave("validateTo", lambda: self.message)

    def message(self) -> Any:
        return self.misbehave("message", lambda: Message(self.misbehave))

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> Any:
        return self.misbehave("receivedHeader", lambda: b"Received: from there")


@implementer(IMailboxPOP3)
class Mailbox:
    def __init__(self, misbehave: Misbehaviour) -> None:
        self.misbehave = misbehave

    def listMessages(self, index: int | None = None) -> Any:
        return self.misbehave("listMessages", lambda: [9, 9] if index is None else 9)

    def getMessage(self, index: int) -> Any:
        return self.misbehave("getMessage", lambda: File(self.misbehave))

    def getUidl(self, index: int) -> Any:
        return self.misbehave("getUidl", lambda: b"%d" % index)

    def deleteMessage(self, index: int) -> Any:
        return self.misbehave("deleteMessage", lambda: None)

    def undeleteMessages(self) -> Any:
        return self.misbehave("undeleteMessages", lambda: None)

    def sync(self) -> Any:
        return self.misbehave("sync", lambda: None)


class File(io.BytesIO):
    def __init__(self, misbehave: Misbehaviour) -> None:
        super().__init__(b"A: b\n\n.\n")
        self.misbehave = misbehave

    def read(self, size: int | None = -1) -> Any:
        if self.misbehave.calls == 10:  # a file without an end is another test's
            return b""
        return self.misbehave("read", lambda: super(File, self).read(size))

    def close(self) -> Any:
        return self.misbehave("close", lambda: None)


@implementer(IRealm)
class Realm:
    def __init__(self, misbehave: Misbehaviour) -> None:
        self.misbehave = misbehave

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        if IMailboxPOP3 in interfaces:
            avatar: Any = (IMailboxPOP3, Mailbox(self.misbehave), self.log_out)
        else:
            avatar = (IMessageDeliveryFactory, Delivery(self.misbehave), self.log_out)
        return self.misbehave("requestAvatar", lambda: avatar)

    def log_out(self) -> Any:
        return self.misbehave("logout", lambda: None)


class Conversation:
    """One of our sessions over the realm, and a client that waits for each answer."""

    def __init__(self, protocol: str, call: str, way: str) -> None:
        self.clock = clock = Clock()
        self.misbehaviour = Misbehaviour(call, way, clock)
        realm = realm_from_twisted(Realm(self.misbehaviour), hostname="mx.example.test", reactor=clock, limits=LIMITS)
        checkers = [InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret")]
        interface, factory = (IDelivery, SMTPFactory) if protocol == "smtp" else (IMaildrop, POP3Factory)
        login = Login(build_portal(realm, checkers), interface, reactor=clock, limits=LIMITS)
        arguments: Any = {"login": login, "hostname": "mx.example.test", "clock": clock, "limits": LIMITS}
        if protocol == "pop3":
            arguments["plaintext_login"] = True
        conversation: Any = factory(**arguments).buildProtocol(None)
        self.transport = FakeTransport(conversation)
        self.reply = _smtp_reply if protocol == "smtp" else _pop3_reply
        self.greeting = self.answer()

    def say(self, octets: bytes, *, long: bool = False) -> bytes:
        """
        @param long: a reply of more than one line, if it is a good one.
        @return: the one reply, or nothing when the connection was closed without one.
        """
        if self.transport.closing:
            return b""
        self.transport.receive(octets)
        return self.answer(long=long)

    def answer(self, *, long: bool = False) -> bytes:
        seconds = 0.0
        heard = self.transport.take()
        while not self.reply(heard, long) and not self.transport.closing:
            assert seconds <= LONGEST_SECONDS, f"no answer in {seconds} seconds, only {heard!r}"
            self.clock.advance(0.5)
            seconds += 0.5
            heard += self.transport.take()
        assert not heard or self.reply(heard, long), heard
        return heard


def _smtp_reply(octets: bytes, long: bool) -> bool:
    return re.fullmatch(rb"(?:(\d\d\d)-[^\r\n]*\r\n)*[2-5]\d\d [\x20-\x7e]*\r\n", octets) is not None


def _pop3_reply(octets: bytes, long: bool) -> bool:
    if long and octets.startswith(b"+OK"):
        return re.fullmatch(rb"\+OK[ -~]*\r\n(?:(?:\.\.|[^.\r\n])?[^\r\n]*\r\n)*?\.\r\n", octets) is not None
    return re.fullmatch(rb"(\+OK|-ERR)[ -~]*\r\n", octets) is not None


DELIVERY_CALLS = [
    "requestAvatar",
    "logout",
    "getMessageDelivery",
    "validateFrom",
    "validateTo",
    "message",
    "receivedHeader",
    "lineReceived",
    "eomReceived",
    "connectionLost",
]
MAILBOX_CALLS = [
    "requestAvatar",
    "logout",
    "listMessages",
    "getUidl",
    "getMessage",
    "read",
    "close",
    "deleteMessage",
    "undeleteMessages",
    "sync",
]


# These have no answer that anybody waits for, so a coroutine of theirs is never run, and Python complains of that.
NO_ANSWER = ("logout", "lineReceived", "connectionLost", "read", "close", "undeleteMessages")


def cases(calls: list[str]) -> list[tuple[str, str]]:
    return [
        (call, way)
        for call in calls
        for way in WAYS
        if not (call in NO_ANSWER and way == "answers_a_coroutine_that_fails")
    ]


@pytest.mark.parametrize(("call", "way"), cases(DELIVERY_CALLS))
def test_a_delivery(call: str, way: str) -> None:
    """Each command has its reply in time; where it fails that is temporary, or the partner's own words, and never a false 250."""
    session = Conversation("smtp", call, way)
    assert session.greeting.startswith(b"220")
    assert session.say(b"EHLO client.example\r\n").startswith(b"250")
    taken = [session.say(b"MAIL FROM:<bob@far.example>\r\n"), session.say(b"RCPT TO:<ann@example.test>\r\n")]
    data = session.say(b"DATA\r\n")
    if data.startswith(b"354"):
        taken.append(session.say(b"Subject: x\r\n\r\nx\r\n.\r\n"))
    assert all(reply[:1] in b"245" for reply in taken)
    assert b"smuggled" not in data[:3]
    if call == "eomReceived" and way not in ("fires_twice", "raises_text_in_octets"):
        assert taken[-1].startswith(b"451"), taken
    assert session.say(b"QUIT\r\n")[:3] in (b"221", b"")
    assert session.transport.closing


@pytest.mark.parametrize(("call", "way"), cases(MAILBOX_CALLS))
def test_a_mailbox(call: str, way: str) -> None:
    """Each command has its reply in time; +OK to QUIT only where the mailbox has done what was asked."""
    session = Conversation("pop3", call, way)
    assert session.greeting.startswith(b"+OK")
    session.say(b"USER ann\r\n")
    if session.say(b"PASS secret\r\n").startswith(b"+OK"):
        session.say(b"STAT\r\n")
        session.say(b"UIDL\r\n", long=True)
        session.say(b"RETR 1\r\n", long=True)
        session.say(b"DELE 1\r\n")
    quit_reply = session.say(b"QUIT\r\n")
    # An answer of any kind counts as done, since IMailboxPOP3 does not say what sync answers.
    done = way == "fires_twice" or way in ("answers_none", "answers_text", "answers_octets", "answers_an_object")
    if call == "sync":
        assert session.misbehaviour.calls == 1
        assert quit_reply.startswith(b"+OK" if done else b"-ERR"), quit_reply
    session.clock.advance(200)
    assert session.transport.closing
