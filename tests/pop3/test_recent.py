"""`recent:` before a login name shows the last 30 days, and those alone."""

from __future__ import annotations

import base64

import pytest
from fakes_pop3 import NAME, PASSWORD, Host, ask, raises, waits
from zope.interface.verify import verifyObject

from mailhost.interfaces import IMaildrop
from mailhost.pop3.recent import recent
from mailhost.refusal import NoSuchMessage, SpoolUnavailable
from mailhost.testing.transport import FakeTransport

DAY = 86_400
MESSAGES = [b"Subject: %d\r\n\r\n%b\r\n" % (number, b"x" * number) for number in range(5)]
LOGINS = [
    b"USER recent:" + NAME + b"\r\nPASS " + PASSWORD + b"\r\n",
    b"AUTH PLAIN " + base64.b64encode(b"\0recent:" + NAME + b"\0" + PASSWORD) + b"\r\n",
]


def host_with_days(*days: float) -> Host:
    """Messages that were delivered so many days ago."""
    host = Host(MESSAGES)
    host.clock.rightNow = 100.0 * DAY
    host.maildrop.delivered = [int((100 - day) * DAY * 1_000_000) if day else 0 for day in days]
    return host


def logged_in(host: Host, login: bytes = LOGINS[0]) -> FakeTransport:
    transport = host.connect()
    assert ask(transport, login).endswith(b"+OK logged in\r\n")
    return transport


@pytest.mark.parametrize("login", LOGINS)
def test_what_is_shown(login: bytes) -> None:
    """What is older is in no reply; one whose time nobody knows is shown; unique-ids are everybody's."""
    transport = logged_in(host_with_days(40, 30.01, 0, 29.99, 1), login)
    sizes = [len(message) for message in MESSAGES[2:]]
    assert ask(transport, b"STAT\r\n") == b"+OK 3 %d\r\n" % sum(sizes)
    assert ask(transport, b"LIST\r\n") == b"+OK 3 messages\r\n1 %d\r\n2 %d\r\n3 %d\r\n.\r\n" % tuple(sizes)
    assert ask(transport, b"UIDL\r\n") == b"+OK unique-ids follow\r\n1 uid3\r\n2 uid4\r\n3 uid5\r\n.\r\n"
    assert ask(transport, b"RETR 1\r\n").endswith(b"\r\n" + MESSAGES[2] + b".\r\n")
    assert ask(transport, b"TOP 3 0\r\n").endswith(b"Subject: 4\r\n\r\n.\r\n")
    assert ask(transport, b"RETR 4\r\n") == b"-ERR no such message\r\n"


def test_deletions() -> None:
    """The messages that this session called so are removed, and let go of the maildrop."""
    host = host_with_days(40, 1, 1, 40, 1)
    transport = logged_in(host)
    assert ask(transport, b"DELE 1\r\nDELE 3\r\nQUIT\r\n").endswith(b"+OK goodbye\r\n")
    assert host.maildrop.happened == [("update", (2, 5)), "updated", "release", "log out"]


def test_nothing_recent() -> None:
    """An empty maildrop."""
    transport = logged_in(host_with_days(40, 40, 40, 40, 40))
    assert ask(transport, b"STAT\r\nLIST\r\n") == b"+OK 0 0\r\n+OK 0 messages\r\n.\r\n"


def test_an_error() -> None:
    """Who cannot be shown the maildrop is not logged in, and holds nothing."""
    host = host_with_days(1, 1, 1, 1, 1)
    host.maildrop.on_times = raises(SpoolUnavailable())
    transport = host.connect()
    assert ask(transport, LOGINS[0]).endswith(b"-ERR [SYS/TEMP] the maildrop cannot be read now; try again later\r\n")
    assert host.maildrop.happened == ["release", "log out"]
    assert ask(transport, b"STAT\r\n") == b"-ERR not in this state\r\n"
    host.maildrop.on_times = raises(OSError())
    assert b"-ERR [SYS/TEMP]" in ask(transport, LOGINS[0])
    assert host.maildrop.happened == ["release", "log out"] * 2


def test_gone_before_it_was_shown() -> None:
    """A client that goes away meanwhile holds nothing."""
    host = host_with_days(1, 1, 1, 1, 1)
    _, host.maildrop.on_times = waits()
    transport = host.connect()
    ask(transport, LOGINS[0])
    transport.lose()
    assert host.maildrop.happened == ["release", "log out"]


def test_interface() -> None:
    """It is a maildrop like any other."""
    coroutine = recent(Host(MESSAGES).maildrop, 0)
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    maildrop = done.value.value
    verifyObject(IMaildrop, maildrop)
    with pytest.raises(NoSuchMessage):
        maildrop.content(6).send(None)
