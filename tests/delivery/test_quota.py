"""Quotas: which one holds, what passes it, and how SMTP's transaction sees it."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import SpoolDelivery, delivery_avatars
from mailhost.delivery.quota import Quotas
from mailhost.envelope import NO_PARAMETERS, NULL_REVERSE_PATH, Client, Copy, Envelope, Path
from mailhost.interfaces import IAccounts, IQuotas
from mailhost.limits import Quota
from mailhost.refusal import MaildropFull, SpoolUnavailable
from mailhost.spool.failing import FailingSpool
from mailhost.spool.memory import MemorySpool

CLIENT = Client("s1", "192.0.2.7", 4711, "mx", "smtp", helo="mail.far.example", extended=True)
ENVELOPE = Envelope(CLIENT, NULL_REVERSE_PATH, NO_PARAMETERS, ())
FAR = Path("zoe", "far.example")
NAMES = ("ann@example.test", "bob@example.test", "bare@example.test", "cat@other.test")

ONE_KILO = b"\r\n" + b"x" * 1020 + b"\r\n"


@implementer(IAccounts, IQuotas)
class Accounts:
    """All of NAMES, and the quotas it is given."""

    def __init__(self, quotas: Mapping[str, Quota] | None = None) -> None:
        self.quotas = quotas or {}
        self.has_quotas = bool(quotas)

    async def has_account(self, address: str) -> bool:
        return address in NAMES

    async def quota(self, address: str) -> Quota | None:
        return self.quotas.get(address)


class QuotaTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.spool = FailingSpool(MemorySpool())
        self.successResultOf(self.spool.start())

    def fill(self, name: str, messages: int) -> None:
        """With messages of a kilobyte."""
        for _ in range(messages):
            staged = self.successResultOf(self.spool.stage(ENVELOPE, (Copy(name, b""),)))
            staged.write(ONE_KILO)
            self.successResultOf(staged.commit())

    def quotas(self, default: Quota = Quota(), **settings: object) -> Quotas:  # noqa: B008 (a frozen value)
        return Quotas(domains=["example.test", "other.test"], default=default, **settings)

    def taken(self, quotas: Quotas, name: str = "ann@example.test", octets: int = 0) -> None:
        self.successResultOf(quotas.check(self.spool, name, octets))

    def full(self, quotas: Quotas, name: str = "ann@example.test", octets: int = 0) -> MaildropFull:
        refusal = self.failureResultOf(quotas.check(self.spool, name, octets), MaildropFull).value
        assert isinstance(refusal, MaildropFull)
        return refusal


class CheckTests(QuotaTestCase):
    def test_messages(self) -> None:
        """As many as the quota says, and not one more."""
        quotas = self.quotas(Quota(messages=3))
        self.fill("ann@example.test", 2)
        self.taken(quotas)
        self.fill("ann@example.test", 1)
        assert self.full(quotas).temporary
        self.taken(quotas, "bob@example.test")

    def test_octets_as_declared(self) -> None:
        """A declared size must fit to the octet."""
        self.fill("ann@example.test", 2)
        quotas = self.quotas(Quota(octets=3 * 1024))
        self.taken(quotas, octets=1024)
        self.full(quotas, octets=1025)

    def test_octets_undeclared(self) -> None:
        """Without a declaration one message more is taken while there is any room."""
        self.fill("ann@example.test", 2)
        self.taken(self.quotas(Quota(octets=2 * 1024 + 1)))
        self.full(self.quotas(Quota(octets=2 * 1024)))
        self.full(self.quotas(Quota(octets=2 * 1024 - 1)))

    def test_larger_than_all_of_it(self) -> None:
        """What could not fit into an empty maildrop is refused for good, whatever the operator chose for full ones."""
        refusal = self.full(self.quotas(Quota(octets=1024)), octets=1025)
        assert not refusal.temporary
        assert "larger than all" in refusal.detail
        self.taken(self.quotas(Quota(octets=1024)), octets=1024)

    def test_permanent(self) -> None:
        """An operator may choose that senders learn at once."""
        self.fill("ann@example.test", 1)
        for quota in (Quota(messages=1), Quota(octets=1024)):
            assert not self.full(self.quotas(quota, permanent=True)).temporary

    def test_room_again(self) -> None:
        """What its owner removes makes room."""
        self.fill("ann@example.test", 1)
        quotas = self.quotas(Quota(messages=1))
        self.full(quotas)
        maildrop = self.successResultOf(self.spool.open_maildrop("ann@example.test", 0))
        self.successResultOf(maildrop.update([1]))
        self.taken(quotas)

    def test_spool_that_cannot_tell(self) -> None:
        """Nobody is let past a quota unseen, and nobody is told that a maildrop is full."""
        self.spool.fail("totals", SpoolUnavailable())
        check = self.quotas(Quota(messages=1)).check(self.spool, "ann@example.test", 0)
        self.failureResultOf(check, SpoolUnavailable)


class WhichTests(QuotaTestCase):
    def test_none(self) -> None:
        """Where no quota holds the spool is not even asked."""
        self.fill("ann@example.test", 5)
        self.taken(self.quotas(of_accounts=[Accounts()]), octets=1 << 60)
        assert self.spool.calls["totals"] == 0

    def test_the_nearest(self) -> None:
        """The account's own before its domain's before the default; a hyphen in it lifts what is wider."""
        accounts = Accounts({"ann@example.test": Quota(messages=3), "bob@example.test": Quota()})
        quotas = self.quotas(
            Quota(messages=1), of_domains={"Example.TEST": Quota(messages=2)}, of_accounts=[Accounts(), accounts]
        )
        for name, most in {"ann@example.test": 3, "bare@example.test": 2, "cat@other.test": 1}.items():
            self.fill(name, most - 1)
            self.taken(quotas, name)
            self.fill(name, 1)
            self.full(quotas, name)
        self.fill("bob@example.test", 5)
        self.taken(quotas, "bob@example.test")

    def test_account_without_a_domain(self) -> None:
        """Its quota is that of the first domain's address, and of no other domain's."""
        self.fill("bare@example.test", 1)
        self.fill("bare@other.test", 1)
        quotas = self.quotas(of_accounts=[Accounts({"bare": Quota(messages=1)})])
        self.full(quotas, "bare@example.test")
        self.taken(quotas, "bare@other.test")

    def test_not_our_domain(self) -> None:
        """A quota for a domain that is not ours, or is none, is a mistake that is told at the start."""
        for domain in ("far.example", "\u2028.test"):
            with pytest.raises(ValueError, match=r"none of our domains|odepoint"):
                self.quotas(of_domains={domain: Quota()})


class TransactionTests(QuotaTestCase):
    def delivery(self, quotas: Quotas | None) -> SpoolDelivery:
        book = AddressBook(["example.test"], Accounts(), hostname="mx.example.test", aliases={"team": ["ann", "bob"]})
        avatars = delivery_avatars(self.spool, book, hostname="mx.example.test", clock=Clock(), quotas=quotas)
        avatar, _ = self.successResultOf(avatars(None, CLIENT))
        assert isinstance(avatar, SpoolDelivery)
        return avatar

    def test_told_at_rcpt(self) -> None:
        """A full maildrop's forward-path is refused and gets nothing; the others' mail goes on, and SIZE counts."""
        self.fill("ann@example.test", 1)
        delivery = self.delivery(self.quotas(Quota(octets=2000)))
        transaction = self.successResultOf(delivery.transaction(CLIENT, FAR, {"SIZE": "1500"}))
        self.failureResultOf(transaction.recipient(Path("ann", "example.test"), NO_PARAMETERS), MaildropFull)
        self.successResultOf(transaction.recipient(Path("bob", "example.test"), NO_PARAMETERS))
        staged = self.successResultOf(transaction.content())
        self.successResultOf(staged.commit())
        assert self.successResultOf(self.spool.totals("ann@example.test")).messages == 1
        assert self.successResultOf(self.spool.totals("bob@example.test")).messages == 1

    def test_accounts_that_get_quotas(self) -> None:
        """Nobody is asked while no account has one; from the moment one has, it holds."""
        self.fill("ann@example.test", 1)
        accounts = Accounts()
        delivery = self.delivery(self.quotas(of_accounts=[accounts]))
        for quotas, taken in (({}, True), ({"ann": Quota(messages=1)}, False), ({"bob": Quota(messages=1)}, True)):
            accounts.quotas, accounts.has_quotas = quotas, bool(quotas)
            transaction = self.successResultOf(delivery.transaction(CLIENT, FAR, NO_PARAMETERS))
            recipient = Deferred.fromCoroutine(transaction.recipient(Path("ann", "example.test"), NO_PARAMETERS))
            if taken:
                self.successResultOf(recipient)
            else:
                self.failureResultOf(recipient, MaildropFull)
        assert self.spool.calls["totals"] == 1

    def test_alias(self) -> None:
        """One full maildrop behind an alias refuses the alias, and nobody behind it gets a copy."""
        self.fill("bob@example.test", 1)
        delivery = self.delivery(self.quotas(Quota(messages=1)))
        transaction = self.successResultOf(delivery.transaction(CLIENT, FAR, NO_PARAMETERS))
        self.failureResultOf(transaction.recipient(Path("team", "example.test"), NO_PARAMETERS), MaildropFull)
        self.successResultOf(transaction.recipient(Path("bare", "example.test"), NO_PARAMETERS))
        self.successResultOf(self.successResultOf(transaction.content()).commit())
        assert self.successResultOf(self.spool.totals("ann@example.test")).messages == 0

    def test_asked_once(self) -> None:
        """Several forward-paths to one maildrop ask once, since they make one copy."""
        delivery = self.delivery(self.quotas(Quota(messages=9)))
        transaction = self.successResultOf(delivery.transaction(CLIENT, FAR, NO_PARAMETERS))
        for local_part in ("ann", "Ann", "ann+tag"):
            self.successResultOf(transaction.recipient(Path(local_part, "example.test"), NO_PARAMETERS))
        assert self.spool.calls["totals"] == 1

    def test_soft_edge(self) -> None:
        """What was taken at RCPT is not refused after its content, though it turns out larger than the room."""
        delivery = self.delivery(self.quotas(Quota(octets=2000)))
        transaction = self.successResultOf(delivery.transaction(CLIENT, FAR, NO_PARAMETERS))
        self.successResultOf(transaction.recipient(Path("ann", "example.test"), NO_PARAMETERS))
        staged = self.successResultOf(transaction.content())
        staged.write(ONE_KILO * 5)
        self.successResultOf(staged.commit())
        assert self.successResultOf(self.spool.totals("ann@example.test")).octets > 5000
        transaction = self.successResultOf(delivery.transaction(CLIENT, FAR, NO_PARAMETERS))
        self.failureResultOf(transaction.recipient(Path("ann", "example.test"), NO_PARAMETERS), MaildropFull)
