"""Our delivery behind Twisted's own ESMTP class, in its words."""

import gc
import weakref

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory
from twisted.mail.smtp import ESMTP, Address, User
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import SpoolDelivery
from mailhost.envelope import Client, Outcome, Path
from mailhost.foreign.delivery import delivery_from_twisted
from mailhost.foreign.message_delivery import delivery_to_twisted
from mailhost.interfaces import IAccounts, IDelivery, IStagedMessage, ITransaction
from mailhost.limits import Limits
from mailhost.refusal import NoSuchMaildrop, SenderNotAllowed, SpoolFull, SpoolUnavailable, Worded
from mailhost.spool.memory import MemorySpool

CLIENT = Client("", "", 0, "their port", "smtp")


@implementer(IDelivery, ITransaction, IStagedMessage)
class Delivery:
    """Every part of a delivery in one: answers as the test has set it, and remembers what happened."""

    unique_id = "1"

    def __init__(self):
        self.happened = []
        self.written = b""
        self.answers = {}
        self.room = None

    def answer(self, what, usual, *said):
        self.happened.append((what, *said) if said else what)
        answer = self.answers.get(what, usual)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait(self, answer):
        return await answer if isinstance(answer, Deferred) else answer

    async def transaction(self, client, reverse_path, parameters):
        self.client = client
        return await self.wait(self.answer("transaction", self, reverse_path))

    async def recipient(self, forward_path, parameters):
        await self.wait(self.answer("recipient", None, forward_path))

    async def content(self):
        return await self.wait(self.answer("content", self))

    def write(self, octets):
        self.written += octets
        return self.room

    async def commit(self):
        return await self.wait(self.answer("commit", Outcome("1")))

    def abort(self):
        self.happened.append("abort")


@implementer(IAccounts)
class Accounts:
    async def has_account(self, address):
        return address in ("ann@example.test", "bob@example.test")


class Server(ESMTP):
    noisy = False

    def setTimeout(self, seconds):
        """Twisted's would use the global reactor."""


class MessageDeliveryTestCase(SynchronousTestCase):
    def setUp(self):
        self.events = []
        self.delivery = Delivery()

    def connect(self, delivery=None, **limits):
        self.server = Server()
        self.server.host = b"mx.example.test"
        self.server.deliveryFactory = delivery_to_twisted(
            delivery or self.delivery, client=CLIENT, limits=Limits(**limits), observer=self.events.append
        )
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)
        self.transport.clear()

    def say(self, *lines):
        """The codes of the replies to these lines."""
        self.server.dataReceived(b"".join(line + b"\r\n" for line in lines))
        return self.heard()

    def heard(self):
        octets = self.transport.value()
        self.transport.clear()
        return [line[:3].decode() for line in octets.split(b"\r\n") if line[3:4] == b" "]

    def begin(self, *forward_paths):
        replies = self.say(b"EHLO mail.far.example", b"MAIL FROM:<zoe@far.example>")
        for forward_path in forward_paths or (b"<ann@example.test>",):
            replies += self.say(b"RCPT TO:" + forward_path)
        return replies


class TransactionTests(MessageDeliveryTestCase):
    def test_provides_the_interfaces(self):
        """Both objects have every method that Twisted's interfaces name."""
        factory = delivery_to_twisted(self.delivery, client=CLIENT)
        assert verifyObject(IMessageDeliveryFactory, factory)
        assert verifyObject(IMessageDelivery, factory.getMessageDelivery())

    def test_a_message(self):
        """MAIL, RCPT and DATA reach our delivery; content arrives in wire form, dots doubled, ending in CRLF."""
        self.connect()
        assert self.begin() == ["250", "250", "250"]
        assert self.say(b"DATA", b"Subject: x", b"", b"..", b"...a", b"", b".") == ["354", "250"]
        assert self.delivery.written == b"Subject: x\r\n\r\n..\r\n...a\r\n\r\n"
        assert self.delivery.happened == [
            ("transaction", Path("zoe", "far.example")),
            ("recipient", Path("ann", "example.test")),
            "content",
            "commit",
        ]

    def test_who_it_came_from(self):
        """HELO name and address are those of the connection; the rest is what the application knows."""
        self.connect()
        self.begin()
        assert (self.delivery.client.helo, self.delivery.client.host) == ("mail.far.example", "192.168.1.1")
        assert self.delivery.client.listener == "their port"
        assert self.delivery.client.session

    def test_several_recipients_one_content(self):
        """The content is written once, and committed once, for all forward-paths."""
        self.connect()
        self.begin(b"<ann@example.test>", b"<bob@example.test>", b'<"a b"@example.test>')
        assert self.say(b"DATA", b"A: b", b".") == ["354", "250"]
        assert self.delivery.written == b"A: b\r\n"
        assert self.delivery.happened[1:] == [
            ("recipient", Path("ann", "example.test")),
            ("recipient", Path("bob", "example.test")),
            ("recipient", Path("a b", "example.test")),
            "content",
            "commit",
        ]

    def test_into_a_spool(self):
        """With delivery into a spool, what ESMTP takes is in the maildrop, behind our trace fields."""
        spool = MemorySpool()
        self.successResultOf(spool.start())
        book = AddressBook(["example.test"], Accounts(), hostname="mx.example.test")
        self.connect(SpoolDelivery(spool, book, hostname="mx.example.test", account=None, clock=Clock()))
        assert self.begin(b"<ann@example.test>", b"<nobody@example.test>") == ["250", "250", "250", "550"]
        assert self.say(b"DATA", b"no header", b"..dot", b".", b"MAIL FROM:<>", b"RCPT TO:<ann@far.example>") == [
            "354", "250", "250", "550",
        ]  # fmt: skip
        maildrop = self.successResultOf(spool.open_maildrop("ann@example.test", 0))
        content = self.successResultOf(maildrop.content(1))
        message = self.successResultOf(content.read(0, content.wire_octets))
        assert message.startswith(
            b"Return-Path: <zoe@far.example>\r\nDelivered-To: ann@example.test\r\nReceived: from mail.far."
        )
        assert message.endswith(b"\r\n\r\nno header\r\n..dot\r\n")

    def test_null_reverse_path(self):
        """A bounce's reverse-path stays null."""
        self.connect()
        self.say(b"HELO x", b"MAIL FROM:<>")
        assert self.delivery.happened == [("transaction", Path("", ""))]


class RefusalTests(MessageDeliveryTestCase):
    def test_replies(self):
        """Each refusal has its code; a bug is temporary."""
        for refusal, code in (
            (SenderNotAllowed(), "550"),
            (SpoolUnavailable(), "451"),
            (Worded(521, "5.3.2", "go away"), "521"),
        ):
            self.delivery.answers["transaction"] = refusal
            self.connect()
            assert self.say(b"EHLO x", b"MAIL FROM:<zoe@far.example>") == ["250", code]
        self.delivery.answers = {"recipient": NoSuchMaildrop()}
        self.connect()
        assert self.begin() == ["250", "250", "550"]
        self.delivery.answers = {"recipient": KeyError("x")}
        self.connect()
        assert self.begin() == ["250", "250", "451"]
        assert len(self.flushLoggedErrors(KeyError)) == 1

    def test_too_many_recipients(self):
        """The limit is kept, and what goes beyond it is for another transaction."""
        self.connect(recipients=2)
        assert self.begin(*[b"<ann@example.test>"] * 3) == ["250", "250", "250", "250", "452"]

    def test_full_spool(self):
        """A spool that is full before the content gets its own reply at the end of it, and nothing is left open."""
        self.delivery.answers["content"] = SpoolFull()
        self.connect()
        self.begin()
        assert self.say(b"DATA", b"A: b", b"", b"x", b".") == ["354", "452"]
        assert self.delivery.happened[2:] == ["content", "abort"]
        assert self.begin() == ["250", "250", "250"]

    def test_commit_fails(self):
        """A temporary failure stays temporary, where ESMTP alone would say 550; the session goes on."""
        for refusal, code in ((SpoolUnavailable(), "451"), (SpoolFull(), "452"), (Worded(554, "", "no"), "554")):
            self.delivery.answers["commit"] = refusal
            self.connect()
            self.begin(b"<ann@example.test>", b"<bob@example.test>")
            assert self.say(b"DATA", b"A: b", b".", b"NOOP")[:2] == ["354", code]
            self.delivery.answers.clear()
            assert self.begin() == ["250", "250", "250"]
        assert self.events == []

    def test_bug_in_commit(self):
        """A bug is reported and temporary."""
        self.delivery.answers["commit"] = KeyError("x")
        self.connect()
        self.begin()
        assert self.say(b"DATA", b"A: b", b".") == ["354", "451"]
        assert isinstance(self.events[0].failure, KeyError)

    def test_bare_line_ends(self):
        """A bare CR or LF within a line is refused for good; ESMTP alone would store it."""
        for line in (b"a\rb", b"a\nb"):
            self.delivery = Delivery()
            self.connect()
            self.begin()
            assert self.say(b"DATA", b"A: b", line, b"more", b".") == ["354", "554"]
            assert self.delivery.happened[-1] == "abort"
            assert "commit" not in self.delivery.happened

    def test_too_large(self):
        """Content above the limit is read to its end and refused for good."""
        self.connect(message_octets=10)
        self.begin()
        assert self.say(b"DATA", b"1234:678", b".") == ["354", "250"]
        self.begin()
        assert self.say(b"DATA", b"1234:6789", b".") == ["354", "552"]
        assert self.delivery.happened[-1] == "abort"


class WaitingTests(MessageDeliveryTestCase):
    def test_slow_look_ups(self):
        """Each command is answered when our delivery has answered."""
        for what in ("transaction", "recipient"):
            self.delivery.answers = {what: Deferred()}
            self.connect()
            self.say(b"EHLO x")
            assert self.say(b"MAIL FROM:<zoe@far.example>") == ([] if what == "transaction" else ["250"])
            if what == "transaction":
                self.delivery.answers[what].callback(self.delivery)
                assert self.heard() == ["250"]
            else:
                assert self.say(b"RCPT TO:<ann@example.test>") == []
                self.delivery.answers[what].callback(None)
                assert self.heard() == ["250"]

    def test_staging_takes_its_time(self):
        """Content that comes before the spool is ready waits, at most a block of it: then reading pauses."""
        ready = self.delivery.answers["content"] = Deferred()
        self.connect()
        self.begin()
        self.say(b"DATA", b"A: b", *[b"x" * 1000] * 70)
        assert self.transport.producerState == "paused"
        assert self.delivery.written == b""
        ready.callback(self.delivery)
        assert self.transport.producerState == "producing"
        assert self.say(b".") == ["250"]
        assert self.delivery.written == b"A: b\r\n" + (b"x" * 1000 + b"\r\n") * 70

    def test_whole_message_before_the_spool_is_ready(self):
        """Then it is written and committed when the spool is."""
        ready = self.delivery.answers["content"] = Deferred()
        self.connect()
        self.begin()
        assert self.say(b"DATA", b"A: b", b".") == ["354"]
        ready.callback(self.delivery)
        assert self.heard() == ["250"]
        assert self.delivery.written == b"A: b\r\n"

    def test_refused_after_the_whole_message(self):
        """A spool that refuses only then is heard all the same."""
        ready = self.delivery.answers["content"] = Deferred()
        self.connect()
        self.begin()
        assert self.say(b"DATA", b"A: b", b".") == ["354"]
        ready.errback(SpoolFull())
        assert self.heard() == ["452"]
        assert self.delivery.happened[-1] == "abort"

    def test_slow_disk_slows_the_sender(self):
        """Reading pauses while a write waits for room."""
        self.connect()
        self.begin()
        self.delivery.room = Deferred()
        self.say(b"DATA", *[b"x" * 1000] * 70)
        assert self.transport.producerState == "paused"
        room, self.delivery.room = self.delivery.room, None
        room.callback(None)
        assert self.transport.producerState == "producing"
        assert self.say(b".") == ["250"]

    def test_commit_takes_its_time(self):
        """250 is said when the message is durable, not before."""
        durable = self.delivery.answers["commit"] = Deferred()
        self.connect()
        self.begin(b"<ann@example.test>", b"<bob@example.test>")
        assert self.say(b"DATA", b"A: b", b".") == ["354"]
        durable.callback(Outcome("1"))
        assert self.heard() == ["250"]


class EndTests(MessageDeliveryTestCase):
    def test_lost_in_content(self):
        """A connection lost within the content aborts it, once."""
        self.connect()
        self.begin(b"<ann@example.test>", b"<bob@example.test>")
        self.say(b"DATA", b"A: b")
        self.server.connectionLost(None)
        assert self.delivery.happened[3:] == ["content", "abort"]

    def test_lost_before_the_spool_is_ready(self):
        """The staged message that then comes is aborted."""
        ready = self.delivery.answers["content"] = Deferred()
        self.connect()
        self.begin()
        self.say(b"DATA", b"A: b")
        self.server.connectionLost(None)
        assert "abort" not in self.delivery.happened
        ready.callback(self.delivery)
        assert self.delivery.happened[-1] == "abort"

    def test_lost_during_commit(self):
        """Nothing undoes what is under way."""
        durable = self.delivery.answers["commit"] = Deferred()
        self.connect()
        self.begin()
        self.say(b"DATA", b"A: b", b".")
        self.server.connectionLost(None)
        durable.callback(Outcome("1"))
        assert "abort" not in self.delivery.happened

    def test_transaction_without_content(self):
        """A transaction that RSET, another MAIL or a lost connection ended is aborted when ESMTP has forgotten it."""
        self.connect()
        self.begin()
        self.say(b"RSET", b"MAIL FROM:<eve@far.example>")
        gc.collect()
        assert self.delivery.happened.count("abort") == 1
        self.server.connectionLost(None)
        del self.server
        gc.collect()
        assert self.delivery.happened.count("abort") == 2

    def test_forgotten_after_content(self):
        """A transaction that came to its content is not aborted when it is forgotten, and nothing keeps its connection in memory."""
        self.connect()
        self.begin()
        self.say(b"DATA", b"A: b", b".")
        server = weakref.ref(self.server)
        del self.server
        gc.collect()
        assert server() is None
        assert "abort" not in self.delivery.happened

    def test_told_of_a_loss_after_the_end(self):
        """A protocol that still tells a message of the lost connection undoes nothing."""
        factory = delivery_to_twisted(self.delivery, client=CLIENT)
        delivery = factory.getMessageDelivery()
        origin = Address(b"<zoe@far.example>")
        helo = (b"x", b"192.0.2.7")
        self.successResultOf(delivery.validateFrom(helo, origin))
        make_message = self.successResultOf(delivery.validateTo(User(b"<ann@example.test>", helo, None, origin)))
        message = make_message()
        message.lineReceived(b"A: b")
        self.successResultOf(message.eomReceived())
        message.connectionLost()
        assert self.delivery.happened[-1] == "commit"


class ThereAndBackTests(MessageDeliveryTestCase):
    def committing(self):
        """A message through both adapters, to two forward-paths, up to its commit."""
        there = delivery_to_twisted(self.delivery, client=CLIENT, observer=self.events.append)
        back = delivery_from_twisted(there, hostname="mx.example.test", reactor=Clock())
        client = CLIENT._replace(host="192.0.2.7", helo="mail.far.example")
        transaction = self.successResultOf(back.transaction(client, Path("zoe", "far.example"), {}))
        for local_part in ("ann", 'b "o" b'):
            self.successResultOf(transaction.recipient(Path(local_part, "example.test"), {}))
        staged = self.successResultOf(transaction.content())
        staged.write(b"A: b\r\n\r\n..\r\n" + b"x" * 100_000 + b"\r\n")
        return Deferred.fromCoroutine(staged.commit())

    def test_delivery_of_a_delivery(self):
        """What goes in at one end comes out at the other, to the octet."""
        self.successResultOf(self.committing())
        assert self.delivery.written == b"A: b\r\n\r\n..\r\n" + b"x" * 100_000 + b"\r\n"
        assert self.delivery.happened == [
            ("transaction", Path("zoe", "far.example")),
            ("recipient", Path("ann", "example.test")),
            ("recipient", Path('b "o" b', "example.test")),
            "content",
            "commit",
        ]

    def test_refusal(self):
        """Where no protocol gives the reply, the messages' Deferreds carry it."""
        self.delivery.answers["commit"] = SpoolFull()
        refusal = self.failureResultOf(self.committing(), Worded).value
        assert (refusal.code, refusal.status, refusal.temporary) == (452, "4.3.1", True)

    def test_slow(self):
        """The same when the outcome takes its time."""
        durable = self.delivery.answers["commit"] = Deferred()
        waiting = self.committing()
        self.assertNoResult(waiting)
        durable.errback(Worded(554, "5.6.0", "no"))
        assert self.failureResultOf(waiting, Worded).value.code == 554
