"""Delivery into a spool: from MAIL to what the maildrops' owners get."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import SpoolDelivery, delivery_avatars, maildrop_avatars
from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Path
from mailhost.interfaces import IAccounts, IDelivery, IMaildrop, IStagedMessage, ITransaction
from mailhost.refusal import (
    LoginForbidden,
    MaildropInUse,
    NoSuchMaildrop,
    RelayDenied,
    SenderNotAllowed,
    SpoolFull,
)
from mailhost.spool.memory import MemorySpool

CLIENT = Client("s1", "192.0.2.7", 4711, "mx", "smtp", helo="mail.far.example", extended=True)
FAR = Path("zoe", "far.example")
ANN = Path("Ann", "Example.test")
BOB = Path("bob", "example.test")


@implementer(IAccounts)
class Accounts:
    async def has_account(self, address):
        return address in ("ann@example.test", "bob@example.test")


@implementer(IStagedMessage)
class SlowStaged:
    """Asks for a pause at the first write."""

    unique_id = "slow"

    def __init__(self):
        self.room = Deferred()
        self.written = []
        self.aborted = 0

    def write(self, octets):
        self.written.append(octets)
        return self.room

    def abort(self):
        self.aborted += 1


class StagesOnly:
    """As much of a spool as `content()` sees: it remembers what it was asked to stage."""

    def __init__(self, answer):
        self.answer = answer
        self.staged = []

    async def stage(self, envelope, copies):
        self.staged.append((envelope, copies))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def address_book():
    return AddressBook(["example.test"], Accounts(), hostname="mx.example.test", aliases={"team": ["ann", "bob"]})


class AvatarTestCase(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.spool = MemorySpool()
        self.successResultOf(self.spool.start())

    def delivery(self, account=None, spool=None):
        return SpoolDelivery(
            spool or self.spool, address_book(), hostname="mx.example.test", account=account, clock=self.clock
        )

    def transaction(self, *forward_paths, delivery=None, reverse_path=FAR, parameters=NO_PARAMETERS):
        transaction = self.successResultOf((delivery or self.delivery()).transaction(CLIENT, reverse_path, parameters))
        for forward_path in forward_paths:
            self.successResultOf(transaction.recipient(forward_path, NO_PARAMETERS))
        return transaction

    def deliver(self, transaction, content):
        staged = self.successResultOf(transaction.content())
        staged.write(content)
        return self.successResultOf(staged.commit())

    def messages(self, name):
        maildrop = self.successResultOf(self.spool.open_maildrop(name, 0))
        found = []
        for number in range(1, maildrop.totals.messages + 1):
            content = self.successResultOf(maildrop.content(number))
            found.append(self.successResultOf(content.read(0, content.wire_octets)))
        maildrop.release()
        return found


class DeliveryTests(AvatarTestCase):
    def test_provides_the_interfaces(self):
        """Both objects have every method that the contracts name."""
        assert verifyObject(IDelivery, self.delivery())
        assert verifyObject(ITransaction, self.transaction())

    def test_what_the_owner_gets(self):
        """Return-Path, Delivered-To as the client wrote it, Received with the id of the commit, then the content untouched."""
        outcome = self.deliver(self.transaction(ANN), b"Subject: x\r\n\r\n..\r\n")
        (message,) = self.messages("ann@example.test")
        fields, _, content = message.partition(b"Subject:")
        assert fields.startswith(
            b"Return-Path: <zoe@far.example>\r\nDelivered-To: Ann@Example.test\r\nReceived: from mail.far"
        )
        assert fields.count(b"Received:") == 1
        assert f"id {outcome.unique_id}".encode() in fields
        assert b"for <Ann@Example.test>;" in fields
        assert content == b" x\r\n\r\n..\r\n"

    def test_one_copy_for_each_maildrop(self):
        """Two forward-paths to one maildrop make one copy, and the first is its Delivered-To; another maildrop has its own."""
        paths = [Path("ann+a", "example.test"), ANN, BOB, Path("team", "example.test")]
        self.deliver(self.transaction(*paths), b"\r\nx\r\n")
        (to_ann,) = self.messages("ann@example.test")
        (to_bob,) = self.messages("bob@example.test")
        assert b"Delivered-To: ann+a@example.test\r\n" in to_ann
        assert b"Delivered-To: bob@example.test\r\n" in to_bob
        for message in (to_ann, to_bob):
            assert message.count(b"Delivered-To:") == 1
            assert b"for <" not in message

    def test_alias(self):
        """An alias to two makes two copies, each with the alias as its Delivered-To."""
        self.deliver(self.transaction(Path("team", "example.test")), b"\r\nx\r\n")
        for name in ("ann@example.test", "bob@example.test"):
            (message,) = self.messages(name)
            assert b"Delivered-To: team@example.test\r\n" in message

    def test_refused_forward_path_leaves_the_others(self):
        """Unknown and foreign forward-paths are refused; the transaction goes on for the others, and they are not in its envelope."""
        spool = StagesOnly(SlowStaged())
        transaction = self.transaction(ANN, delivery=self.delivery(spool=spool))
        self.failureResultOf(transaction.recipient(Path("nobody", "example.test"), NO_PARAMETERS), NoSuchMaildrop)
        self.failureResultOf(transaction.recipient(FAR, NO_PARAMETERS), RelayDenied)
        Deferred.fromCoroutine(transaction.content())
        ((envelope, copies),) = spool.staged
        assert envelope.forward_paths == (ANN,)
        assert [copy.maildrop for copy in copies] == ["ann@example.test"]

    def test_envelope(self):
        """The spool learns everything that came with the message, doubles included."""
        spool = StagesOnly(SlowStaged())
        transaction = self.transaction(delivery=self.delivery(spool=spool), parameters={"SIZE": "5"})
        for parameters in (NO_PARAMETERS, {"NOTIFY": "NEVER"}, NO_PARAMETERS):
            self.successResultOf(transaction.recipient(ANN, parameters))
        Deferred.fromCoroutine(transaction.content())
        ((envelope, _),) = spool.staged
        assert envelope == (CLIENT, FAR, {"SIZE": "5"}, (ANN, ANN, ANN), ({}, {"NOTIFY": "NEVER"}, {}))

    def test_no_forward_parameters(self):
        """Where no forward-path had a parameter, there is none to keep."""
        spool = StagesOnly(SlowStaged())
        Deferred.fromCoroutine(self.transaction(ANN, BOB, delivery=self.delivery(spool=spool)).content())
        assert spool.staged[0][0].forward_parameters == ()

    def test_full_spool(self):
        """A spool that is full answers at content(), and the transaction can then be given up."""
        transaction = self.transaction(ANN, delivery=self.delivery(spool=StagesOnly(SpoolFull())))
        self.failureResultOf(transaction.content(), SpoolFull)
        transaction.abort()

    def test_waits_for_room(self):
        """A spool that wants a pause at once is given it before the client may send."""
        staged = SlowStaged()
        waiting = Deferred.fromCoroutine(
            self.transaction(ANN, delivery=self.delivery(spool=StagesOnly(staged))).content()
        )
        self.assertNoResult(waiting)
        staged.room.callback(None)
        assert self.successResultOf(waiting) is staged
        assert staged.aborted == 0

    def test_cancelled_while_it_waits_for_room(self):
        """A session that ends meanwhile leaves no staged message behind."""
        staged = SlowStaged()
        waiting = Deferred.fromCoroutine(
            self.transaction(ANN, delivery=self.delivery(spool=StagesOnly(staged))).content()
        )
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        assert staged.aborted == 1

    def test_transactions_side_by_side(self):
        """Two transactions of one avatar do not know each other."""
        delivery = self.delivery()
        first, second = (self.transaction(path, delivery=delivery) for path in (ANN, BOB))
        self.deliver(second, b"\r\nto bob\r\n")
        self.deliver(first, b"\r\nto ann\r\n")
        assert self.messages("ann@example.test")[0].endswith(b"\r\nto ann\r\n")
        assert self.messages("bob@example.test")[0].endswith(b"\r\nto bob\r\n")


class SubmissionTests(AvatarTestCase):
    def test_own_reverse_path(self):
        """An account may send as itself, and send notifications."""
        for reverse_path in (Path("ann", "example.test"), Path("team", "example.test"), NULL_REVERSE_PATH):
            self.transaction(BOB, delivery=self.delivery(b"ann"), reverse_path=reverse_path)

    def test_reverse_path_of_another(self):
        """An account may not send as somebody else; told at MAIL."""
        for reverse_path in (BOB, FAR):
            self.failureResultOf(
                self.delivery(b"ann").transaction(CLIENT, reverse_path, NO_PARAMETERS), SenderNotAllowed
            )

    def test_anonymous_may_use_any_reverse_path(self):
        """On an MX port nothing is known about reverse-paths."""
        self.transaction(ANN, reverse_path=BOB)

    def test_mail_elsewhere(self):
        """Until there is a queue, a user is told that this host sends no mail elsewhere; an anonymous client just cannot relay."""
        submission = self.transaction(delivery=self.delivery(b"ann"), reverse_path=Path("ann", "example.test"))
        refusal = self.failureResultOf(submission.recipient(FAR, NO_PARAMETERS), RelayDenied).value
        assert refusal.detail == "this host sends no mail elsewhere yet"
        refusal = self.failureResultOf(self.transaction().recipient(FAR, NO_PARAMETERS), RelayDenied).value
        assert refusal.detail == ""


class FactoryTests(AvatarTestCase):
    def test_delivery_for_anybody_and_for_an_account(self):
        """The realm gets a delivery for each login; that of an account is bound to the account."""
        avatar = delivery_avatars(self.spool, address_book(), hostname="mx.example.test", clock=self.clock)
        anonymous, log_out = self.successResultOf(avatar(None, CLIENT))
        log_out()
        ann, log_out = self.successResultOf(avatar(b"ann", CLIENT))
        log_out()
        self.deliver(self.transaction(ANN, delivery=anonymous, reverse_path=BOB), b"\r\nx\r\n")
        self.failureResultOf(ann.transaction(CLIENT, BOB, NO_PARAMETERS), SenderNotAllowed)
        assert len(self.messages("ann@example.test")) == 1

    def test_maildrop_of_an_account(self):
        """An account opens the maildrop its mail goes to; logging out lets the next session in."""
        self.deliver(self.transaction(ANN), b"\r\nx\r\n")
        avatar = maildrop_avatars(self.spool, address_book(), wait_seconds=0)
        maildrop, log_out = self.successResultOf(avatar(b"ANN", CLIENT))
        assert verifyObject(IMaildrop, maildrop)
        assert maildrop.totals.messages == 1
        self.failureResultOf(avatar(b"ann@example.test", CLIENT), MaildropInUse)
        log_out()
        self.successResultOf(avatar(b"ann@example.test", CLIENT))

    def test_waits_for_the_other_session(self):
        """A second login waits as long as it was told to."""
        self.spool = MemorySpool(reactor=self.clock)
        self.successResultOf(self.spool.start())
        avatar = maildrop_avatars(self.spool, address_book(), wait_seconds=5)
        self.successResultOf(avatar(b"ann", CLIENT))
        second = Deferred.fromCoroutine(avatar(b"ann", CLIENT))
        self.clock.advance(4.9)
        self.assertNoResult(second)
        self.clock.advance(0.2)
        self.failureResultOf(second, MaildropInUse)

    def test_no_maildrop_for_anybody(self):
        """An anonymous login has no mail."""
        self.failureResultOf(maildrop_avatars(self.spool, address_book(), wait_seconds=0)(None, CLIENT), LoginForbidden)


def drive(coroutine):
    """Run a coroutine that must not wait."""
    with pytest.raises(StopIteration) as done:
        coroutine.send(None)
    return done.value.value


def test_the_usual_way_never_waits():
    """From MAIL to the staged message no coroutine gives up control, so a session needs no Deferred for it."""
    spool = MemorySpool()
    drive(spool.start())
    delivery = SpoolDelivery(spool, address_book(), hostname="mx.example.test", account=None, clock=Clock())
    transaction = drive(delivery.transaction(CLIENT, FAR, NO_PARAMETERS))
    drive(transaction.recipient(ANN, NO_PARAMETERS))
    staged = drive(transaction.content())
    staged.write(b"\r\nx\r\n")
    drive(staged.commit())
