"""Our maildrop behind Twisted's own POP3 class, in its words, and as the other adapter sees it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail.interfaces import IMailboxPOP3
from twisted.mail.pop3 import POP3, POP3Error
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.envelope import NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.foreign.mailbox import maildrop_to_twisted
from mailhost.foreign.maildrop import maildrop_from_twisted
from mailhost.interfaces import IMaildrop
from mailhost.octets import Doubler
from mailhost.refusal import ContentDamaged, MaildropLost
from mailhost.spool.memory import MemorySpool

ENVELOPE = Envelope(Client("s", "", 0, "", "smtp"), NULL_REVERSE_PATH, {}, (Path("ann", "example.test"),))


@implementer(IMaildrop)
class Overridden:
    """A maildrop of which the test replaces methods."""

    def __init__(self, maildrop, **methods):
        self.maildrop = maildrop
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self.maildrop, name)


class Server(POP3):
    """Without a login, and with the work that POP3 leaves to the global reactor done at once."""

    def schedule(self, iterator):
        for _ in iterator:
            pass
        return succeed(None)

    def setTimeout(self, seconds):
        """Twisted's would use the global reactor."""


class MailboxTestCase(SynchronousTestCase):
    def setUp(self):
        self.spool = MemorySpool()
        self.successResultOf(self.spool.start())
        self.events = []

    def deliver(self, *messages):
        """Put messages, in plain form, into the maildrop."""
        for plain in messages:
            staged = self.successResultOf(self.spool.stage(ENVELOPE, [Copy("ann@example.test", b"")]))
            staged.write(Doubler().feed(plain))
            self.successResultOf(staged.commit())

    def mailbox(self, **methods):
        maildrop = Overridden(self.successResultOf(self.spool.open_maildrop("ann@example.test", 0)), **methods)
        return self.successResultOf(maildrop_to_twisted(maildrop, observer=self.events.append))

    def connect(self, mailbox):
        self.server = Server()
        self.server.factory = type("Factory", (), {"noisy": False})()
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)
        self.transport.clear()
        self.server.mbox = mailbox
        self.server._onLogout = mailbox.release

    def say(self, line):
        self.server.dataReceived(line + b"\r\n")
        while self.transport.producer is not None:
            self.transport.producer.resumeProducing()
        octets = self.transport.value()
        self.transport.clear()
        return octets

    def retrieved(self, command):
        """The message in the reply, as a client reads it: the status line and the last dot gone, dots undone."""
        status, _, rest = self.say(command).partition(b"\r\n")
        assert status.startswith(b"+OK"), status
        assert rest.endswith(b"\r\n.\r\n") or rest == b".\r\n"
        lines = rest[:-3].split(b"\r\n")
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


class DialogueTests(MailboxTestCase):
    def test_provides_its_interface(self):
        """It has every method that Twisted's interface names."""
        self.deliver(b"A: b\r\n")
        assert verifyObject(IMailboxPOP3, self.mailbox())

    def test_a_session(self):
        """STAT, LIST, UIDL, RETR, DELE and QUIT, as a client sees them; afterwards the message is gone."""
        self.deliver(b"A: b\r\n\r\nx\r\n", b"C: d\r\n\r\n.\r\n")
        mailbox = self.mailbox()
        self.connect(mailbox)
        assert self.say(b"STAT") == b"+OK 2 22\r\n"
        assert self.say(b"LIST") == b"+OK 2\r\n1 11\r\n2 11\r\n.\r\n"
        assert self.say(b"LIST 2") == b"+OK 2 11\r\n"
        first, second = (mailbox.getUidl(index) for index in (0, 1))
        assert self.say(b"UIDL") == b"+OK \r\n1 %b\r\n2 %b\r\n.\r\n" % (first, second)
        assert self.say(b"RETR 2") == b"+OK 11\r\nC: d\r\n\r\n..\r\n.\r\n"
        assert self.say(b"DELE 1").startswith(b"+OK")
        assert self.say(b"LIST 1") == b"+OK 1 0\r\n"
        assert self.say(b"RETR 1") == b"-ERR message deleted\r\n"
        assert self.say(b"QUIT").startswith(b"+OK")
        self.server.connectionLost(None)
        maildrop = self.successResultOf(self.spool.open_maildrop("ann@example.test", 0))
        assert maildrop.totals.messages == 1

    def test_lost_without_quit(self):
        """Nothing is deleted, and the maildrop can be opened again."""
        self.deliver(b"A: b\r\n")
        self.connect(self.mailbox())
        self.say(b"DELE 1")
        self.server.connectionLost(None)
        maildrop = self.successResultOf(self.spool.open_maildrop("ann@example.test", 0))
        assert maildrop.totals.messages == 1

    def test_reset(self):
        """RSET takes the marks back."""
        self.deliver(b"A: b\r\n")
        self.connect(self.mailbox())
        self.say(b"DELE 1")
        self.say(b"RSET")
        assert self.say(b"STAT") == b"+OK 1 6\r\n"

    def test_wrong_numbers(self):
        """Numbers that are none get an -ERR and the session goes on; so does deleting twice."""
        self.deliver(b"A: b\r\n")
        self.connect(self.mailbox())
        for command in (b"LIST 2", b"RETR 2", b"RETR 0", b"TOP 2 0", b"UIDL 2", b"DELE 2", b"DELE 0"):
            assert self.say(command).startswith(b"-ERR"), command
        assert self.say(b"DELE 1").startswith(b"+OK")
        assert self.say(b"DELE 1").startswith(b"-ERR")
        assert self.say(b"NOOP").startswith(b"+OK")
        self.flushLoggedErrors(ValueError)

    def test_damaged(self):
        """A message that cannot be sent gets an -ERR; POP3 would leave the client without any reply."""
        self.deliver(b"A: b\r\n")
        for error in (ContentDamaged(), OSError(5, "input/output error")):

            async def content(number, error=error):
                raise error

            self.connect(self.mailbox(content=content))
            assert self.say(b"RETR 1").startswith(b"-ERR")
            assert self.say(b"NOOP").startswith(b"+OK")
            self.server.connectionLost(None)
        (bug,) = self.events
        assert isinstance(bug.failure, OSError)


class RetrievalTests(MailboxTestCase):
    def check(self, message):
        self.setUp()
        self.deliver(message)
        self.connect(self.mailbox())
        assert self.retrieved(b"RETR 1") == message
        assert self.say(b"LIST 1") == b"+OK 1 %d\r\n" % len(message)

    def test_dots(self):
        """Dots that begin a line arrive, wherever a block ends."""
        self.check(b"A: b\r\n\r\n..a\r\n.b\r\n\r\n.\r\n")
        for filler in range(16 * 1024 - 6, 16 * 1024 + 4):
            self.check(b"x" * filler + b"\r\n.y\r\n..\r\n")
            self.check(b"x" * (filler % 9 + 1) + b"\r\n.\r\n\r\n.\r\n" * (filler // 2))

    def test_long_lines(self):
        """A line longer than any block arrives whole, with a dot before it or without."""
        self.check(b"x" * 100_000 + b"\r\n")
        self.check(b"a\r\n" + b"." * 100_000 + b"\r\n")
        self.check(b"a\r\n." + b"x" * 16383 + b"\r\n.\r\n" + b"y" * 50_000 + b"\r\n")

    def test_empty_lines(self):
        """A message of line ends only arrives with all of them."""
        for count in (1, 2, 16383, 16384, 16385, 40_000):
            self.check(b"\r\n" * count)

    def test_bare_line_ends_at_a_block(self):
        """A CR by itself, which a spool may hold, passes; also where blocks meet."""
        for filler in range(128 * 1024 - 2, 128 * 1024 + 2):
            self.check(b"x" * filler + b"\ra\r\n")

    def test_large(self):
        """A message that is not held in memory arrives whole."""
        self.check(b"A: b\r\n" + b"".join(b".%06d\r\n" % number for number in range(300_000)))

    def test_top(self):
        """TOP gives the header section and the lines asked for, also where the header's end meets a block's."""
        for filler in (10, *range(16 * 1024 - 8, 16 * 1024 + 4)):
            header = b"A: " + b"x" * filler + b"\r\n\r\n"
            self.setUp()
            self.deliver(header + b".1\r\n..2\r\n3\r\n")
            self.connect(self.mailbox())
            assert self.retrieved(b"TOP 1 0") == header
            assert self.retrieved(b"TOP 1 2") == header + b".1\r\n..2\r\n"

    def test_top_of_many_lines(self):
        """Lines with dots come out of TOP as they are, wherever blocks end."""
        body = b"".join(b"." * (number % 5) + b"x" * (number % 7) + b"\r\n" for number in range(20_000))
        self.deliver(b"A: b\r\n\r\n" + body)
        self.connect(self.mailbox())
        assert self.retrieved(b"TOP 1 30000") == b"A: b\r\n\r\n" + body


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([b".", b"", b"..x", b"x", b"x" * 5000, b"." * 5000, b"y" * 16380]), max_size=12))
def test_any_message(lines):
    """Whatever was stored is what RETR gives."""
    case = RetrievalTests()
    case.check(b"".join(line + b"\r\n" for line in [b"A: b", *lines]))


class SyncTests(MailboxTestCase):
    def test_fails_at_once(self):
        """A removal that is refused at once makes QUIT an -ERR."""
        self.deliver(b"A: b\r\n")

        async def update(deleted):
            raise MaildropLost()

        mailbox = self.mailbox(update=update)
        self.connect(mailbox)
        self.say(b"DELE 1")
        assert self.say(b"QUIT").startswith(b"-ERR")
        with pytest.raises(POP3Error):
            mailbox.sync()
        self.flushLoggedErrors(POP3Error)

    def test_released_after_the_update(self):
        """A logout during the update waits for it, so that nobody else opens the maildrop before it is done."""
        self.deliver(b"A: b\r\n")
        done = Deferred()
        happened = []

        async def update(deleted):
            happened.append(deleted)
            await done
            happened.append("done")

        mailbox = self.mailbox(update=update, release=lambda: happened.append("released"))
        mailbox.deleteMessage(0)
        synced = mailbox.sync()
        mailbox.release()
        assert happened == [{1}]
        self.assertNoResult(synced)
        done.callback(None)
        self.successResultOf(synced)
        assert happened == [{1}, "done", "released"]

    def test_fails_late(self):
        """Whoever waits for sync hears of it; the maildrop is released all the same."""
        self.deliver(b"A: b\r\n")
        done = Deferred()
        released = []

        async def update(deleted):
            await done

        mailbox = self.mailbox(update=update, release=lambda: released.append(True))
        synced = mailbox.sync()
        mailbox.release()
        done.errback(MaildropLost())
        self.failureResultOf(synced, MaildropLost)
        assert released == [True]


class ThereAndBackTests(MailboxTestCase):
    def test_maildrop_of_a_mailbox_of_a_maildrop(self):
        """Through both adapters a maildrop is the same, to the octet, and what is deleted at the end is deleted at the start."""
        messages = [b"A: b\r\n\r\n.\r\n", b"A: b\r\n" + b".x\r\n" * 30_000, b"\r\n"]
        self.deliver(*messages)
        clock = Clock()
        opening = Deferred.fromCoroutine(maildrop_from_twisted(self.mailbox(), reactor=clock))
        while clock.getDelayedCalls():
            clock.advance(0)
        maildrop = self.successResultOf(opening)
        assert self.successResultOf(maildrop.listing()).octets == [len(message) for message in messages]
        self.successResultOf(maildrop.update([2]))
        maildrop.release()
