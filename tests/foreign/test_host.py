"""A whole host over somebody's portal, on real sockets, with the standard library's clients; as docs/extending.md shows it."""

import io
import poplib
import re
import smtplib
from pathlib import Path as File

import pytest
from twisted.cred.checkers import AllowAnonymousAccess, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread
from twisted.mail.interfaces import IMailboxPOP3, IMessageDelivery, IMessageSMTP
from twisted.mail.smtp import SMTPBadRcpt
from twisted.trial.unittest import TestCase
from zope.interface import implementer

PAGE = (File(__file__).parent.parent.parent / "docs" / "extending.md").read_text()
(EXAMPLE,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "def host_for" in block)

MESSAGE = b"Subject: dots\r\n\r\n.\r\n..two\r\n" + b"x" * 900 + b"\r\n"


@implementer(IMessageSMTP)
class Message:
    """Saved with LF line ends when it is whole."""

    def __init__(self, saved):
        self.saved = saved
        self.lines = []

    def lineReceived(self, line):
        self.lines.append(line)

    def eomReceived(self):
        self.saved.append(b"".join(line + b"\n" for line in self.lines))
        return succeed(None)

    def connectionLost(self):
        self.lines.clear()


@implementer(IMessageDelivery)
class Delivery:
    def __init__(self, saved):
        self.saved = saved

    def validateFrom(self, helo, origin):
        return origin

    def validateTo(self, user):
        if user.dest.local != b"ann":
            raise SMTPBadRcpt(user)
        return lambda: Message(self.saved)

    def receivedHeader(self, helo, origin, recipients):
        return b"Received: from " + helo[0]


@implementer(IMailboxPOP3)
class Mailbox:
    def __init__(self, saved):
        self.saved = saved
        self.deleted = set()

    def listMessages(self, i=None):
        sizes = [0 if index in self.deleted else len(message) for index, message in enumerate(self.saved)]
        return sizes if i is None else sizes[i]

    def getMessage(self, index):
        return io.BytesIO(self.saved[index])

    def getUidl(self, index):
        return b"%d" % index

    def deleteMessage(self, index):
        self.deleted.add(index)

    def undeleteMessages(self):
        self.deleted.clear()

    def sync(self):
        for index in sorted(self.deleted, reverse=True):
            del self.saved[index]
        self.deleted.clear()


@implementer(IRealm)
class Realm:
    """As an application for twisted.mail has it."""

    def __init__(self):
        self.saved = []
        self.logouts = 0

    def requestAvatar(self, avatarId, mind, *interfaces):
        if IMessageDelivery in interfaces:
            return IMessageDelivery, Delivery(self.saved), lambda: None
        if IMailboxPOP3 in interfaces:
            return IMailboxPOP3, Mailbox(self.saved), self.log_out
        raise NotImplementedError()

    def log_out(self):
        self.logouts += 1


class Application:
    def __init__(self):
        self.realm = Realm()
        self.checkers = [AllowAnonymousAccess(), InMemoryUsernamePasswordDatabaseDontUse()]
        # It is made with text and asked with octets.
        self.checkers[1].users[b"ann"] = b"secret"


def send(port):
    with smtplib.SMTP("127.0.0.1", port, local_hostname="there", timeout=5) as client:
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("zoe@far.example", ["bob@example.test"], MESSAGE)
        client.sendmail("zoe@far.example", ["ann@example.test"], MESSAGE)


def fetch(port):
    """What LIST says of the first message, and the message itself; it is deleted."""
    client = poplib.POP3("127.0.0.1", port, timeout=5)
    client.user("ann")
    client.pass_("secret")
    listed = client.list()[1]
    message = b"".join(line + b"\r\n" for line in client.retr(1)[1])
    client.dele(1)
    client.quit()
    return listed, message


class HostTests(TestCase):
    def test_mail_in_and_out(self):
        """Mail goes in and comes out to the octet, through parts that know nothing of us."""
        names = {}
        exec(compile(EXAMPLE, "extending.md", "exec"), names)
        application = Application()
        host = names["host_for"](application, reactor)
        host.listen("smtp", "tcp:0:interface=127.0.0.1", name="in")
        host.listen("pop3", "tcp:0:interface=127.0.0.1", name="out", plaintext_login=True)

        async def scenario():
            host.startService()
            try:
                await host.when_ready()
                await deferToThread(send, host.addresses["in"].port)
                assert len(application.realm.saved) == 1
                listed, message = await deferToThread(fetch, host.addresses["out"].port)
            finally:
                await host.stopService()
            assert message == b"Received: from there\r\n" + MESSAGE
            assert listed == [b"1 %d" % len(message)]
            assert application.realm.saved == []
            assert application.realm.logouts == 1

        return Deferred.fromCoroutine(scenario())
