"""Terms: whose hold for an account, and what is said of them before a login."""

from __future__ import annotations

from collections.abc import Collection

import pytest
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailhost.cred import passwd_format
from mailhost.cred.passwd import PasswdChecker
from mailhost.delivery.terms import TermsBook
from mailhost.interfaces import IAccountTerms
from mailhost.limits import Offered, OwnTerms, Terms


@implementer(IAccountTerms)
class Accounts:
    def __init__(self, **own: OwnTerms) -> None:
        self.own = {name.replace("_at_", "@").replace("_", "."): terms for name, terms in own.items()}

    async def terms(self, address: str) -> OwnTerms:
        return self.own.get(address, {})

    def kinds_of_terms(self) -> Collection[OwnTerms]:
        return list(self.own.values())


class TermsBookTests(SynchronousTestCase):
    def of(self, book: TermsBook, name: str) -> Terms:
        terms: Terms = self.successResultOf(_deferred(book.of(name)))
        return terms

    def test_whose(self) -> None:
        """An account's own come before its domain's, those before the default; each field by itself."""
        book = TermsBook(
            first_domain="Example.test",
            default=Terms(60, 90),
            domains={"OTHER.test": {"expire_days": 7}},
            accounts=[
                Accounts(ann_at_other_test={"login_delay_seconds": 5}, bob={"expire_days": None}),
                Accounts(ann_at_other_test={"login_delay_seconds": 6}),
            ],
        )
        assert self.of(book, "eve@example.test") == Terms(60, 90)
        assert self.of(book, "eve@other.test") == Terms(60, 7)
        assert self.of(book, "ann@other.test") == Terms(5, 7)
        assert self.of(book, "bob@example.test") == Terms(60, None)
        assert self.of(book, "bob@other.test") == Terms(60, 7)

    def test_offered(self) -> None:
        """The longest delay and the shortest keeping of all there are, and whether a login may learn of others."""
        assert TermsBook(first_domain="example.test").offered() == Offered(Terms(0, None), False, False)
        book = TermsBook(first_domain="example.test", default=Terms(60, None))
        assert book.offered() == Offered(Terms(60, None), False, False)
        book = TermsBook(
            first_domain="example.test",
            default=Terms(60, None),
            domains={"other.test": {"expire_days": 30}},
            accounts=[Accounts(ann={"login_delay_seconds": 120}, bob={"expire_days": 60})],
        )
        assert book.offered() == Offered(Terms(120, 30), True, True)
        assert book.may_expire()


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({}, {}),
        ({"login_delay": "60"}, {"login_delay_seconds": 60}),
        ({"login_delay": "0", "expire": "never", "other": "x"}, {"login_delay_seconds": 0, "expire_days": None}),
        ({"expire": "30"}, {"expire_days": 30}),
    ],
)
def test_fields(fields: dict[str, str], own: OwnTerms) -> None:
    """What an account's fields say."""
    assert Terms.own(fields) == own


@pytest.mark.parametrize(
    "field", ["login_delay=never", "login_delay=-1", "login_delay=", "expire=0", "expire=1d", "expire=²"]
)
def test_wrong_fields(field: str) -> None:
    """The operator is told which line is wrong."""
    with pytest.raises(passwd_format.BrokenLine, match=r"line 1: (expire|login_delay) is "):
        passwd_format.parse("passwd", f"ann:{{PLAIN}}x:{field}\n".encode())


class PasswdTests(SynchronousTestCase):
    def test_of_a_file(self) -> None:
        """A file's accounts have terms, and its kinds are known without looking for them."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write(
                "ann:{PLAIN}x:login_delay=60\nbob:{PLAIN}x\ncid:{PLAIN}x:login_delay=60\neve:{PLAIN}x:expire=9\n"
            )
        checker = PasswdChecker(path)
        assert IAccountTerms.providedBy(checker)
        assert self.successResultOf(_deferred(checker.terms("ANN"))) == {"login_delay_seconds": 60}
        assert self.successResultOf(_deferred(checker.terms("bob"))) == {}
        assert self.successResultOf(_deferred(checker.terms("nobody"))) == {}
        kinds = sorted(checker.kinds_of_terms(), key=str)
        assert kinds == [{"expire_days": 9}, {"login_delay_seconds": 60}]


def _deferred(coroutine):  # type: ignore[no-untyped-def]
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(coroutine)
