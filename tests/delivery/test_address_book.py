"""Who lives here: what an address book makes of forward-paths, accounts and its configuration."""

import unicodedata

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from mailhost.delivery.address_book import AddressBook, canonical_domain
from mailhost.envelope import NULL_REVERSE_PATH, Path
from mailhost.interfaces import IAccounts, IAddressBook, LocalMaildrop
from mailhost.refusal import LoginForbidden, LoginUnavailable, NoSuchMaildrop, RelayDenied

DOMAINS = ["example.test", "second.test"]


@implementer(IAccounts)
class Accounts:
    """Accounts that are known from the start; remembers what it was asked."""

    def __init__(self, *addresses):
        self.addresses = set(addresses)
        self.asked = []

    async def has_account(self, address):
        self.asked.append(address)
        return address in self.addresses


@implementer(IAccounts)
class SlowAccounts:
    """Answers when the test says so."""

    def __init__(self):
        self.answer = Deferred()

    def has_account(self, address):
        return self.answer


def book(*addresses, **configuration):
    return AddressBook(DOMAINS, Accounts(*addresses), hostname="mx.example.test", **configuration)


class AddressBookTestCase(SynchronousTestCase):
    def resolved(self, a_book, local_part, domain="example.test"):
        return [destination.name for destination in self.successResultOf(a_book.resolve(Path(local_part, domain)))]

    def refused(self, a_book, local_part, domain="example.test"):
        return type(self.failureResultOf(a_book.resolve(Path(local_part, domain))).value)


class ResolveTests(AddressBookTestCase):
    def test_provides_its_interface(self):
        """It has every method that the contract names."""
        assert verifyObject(IAddressBook, book())

    def test_account(self):
        """An account's address means its maildrop."""
        found = self.successResultOf(book("ann@example.test").resolve(Path("ann", "example.test")))
        assert found == [LocalMaildrop("ann@example.test")]

    def test_without_case(self):
        """Local parts and domains compare without case."""
        assert self.resolved(book("ann@example.test"), "aNN", "EXAMPLE.Test") == ["ann@example.test"]

    def test_nobody(self):
        """In our domain, a name that nobody has is refused as such."""
        assert self.refused(book("ann@example.test"), "bob") is NoSuchMaildrop

    def test_account_without_a_domain(self):
        """An account whose name has no domain gets the mail of the first one, and of no other."""
        a_book = book("ann")
        assert self.resolved(a_book, "Ann+x") == ["ann@example.test"] == [a_book.maildrop_of(b"ann")]
        assert self.refused(a_book, "ann", "second.test") is NoSuchMaildrop

    def test_accounts_of_one_domain_are_not_those_of_another(self):
        """The same local part in another of our domains is somebody else."""
        assert self.refused(book("ann@example.test"), "ann", "second.test") is NoSuchMaildrop

    def test_elsewhere(self):
        """Another domain, or one below ours, is not ours."""
        for domain in (
            "far.example",
            "sub.example.test",
            "xexample.test",
            "example.test.",
            "test",
            "-",
            "é" * 400,
            "\udcff",
        ):
            assert self.refused(book("ann@example.test"), "ann", domain) is RelayDenied

    def test_waits_for_the_accounts(self):
        """A checker that takes its time is waited for; one that fails makes the look-up fail with its own refusal."""
        accounts = SlowAccounts()
        resolving = Deferred.fromCoroutine(
            AddressBook(DOMAINS, accounts, hostname="mx.example.test").resolve(Path("ann", "example.test"))
        )
        self.assertNoResult(resolving)
        accounts.answer.errback(LoginUnavailable())
        self.failureResultOf(resolving, LoginUnavailable)

    def test_known_account_is_asked_for_once(self):
        """The usual recipient costs one question."""
        accounts = Accounts("ann@example.test")
        a_book = AddressBook(DOMAINS, accounts, hostname="mx.example.test")
        self.resolved(a_book, "Ann")
        assert accounts.asked == ["ann@example.test"]


class InternationalTests(AddressBookTestCase):
    def test_domain_in_either_form(self):
        """U-labels and A-labels of one domain are one domain, in any case and composition."""
        a_book = AddressBook(["Bücher.example"], Accounts("ann@xn--bcher-kva.example"), hostname="mx.example.test")
        for domain in (
            "bücher.example",
            "BÜCHER.example",
            unicodedata.normalize("NFD", "bücher.example"),
            "XN--bcher-KVA.example",
        ):
            assert self.resolved(a_book, "ann", domain) == ["ann@xn--bcher-kva.example"]

    def test_local_part_composed(self):
        """Both ways to write an accented letter are one name, in either case."""
        a_book = book("jürgen@example.test")
        for local_part in ("jürgen", "JÜRGEN", unicodedata.normalize("NFD", "Jürgen")):
            assert self.resolved(a_book, local_part) == ["jürgen@example.test"]

    def test_sharp_s_is_not_ss(self):
        """Two people who differ in ß and ss do not get each other's mail."""
        assert self.refused(book("strasse@example.test"), "straße") is NoSuchMaildrop


class SubaddressTests(AddressBookTestCase):
    def test_reaches_the_user(self):
        """`user+tag@` reaches `user@`, whatever stands behind the plus."""
        for local_part in ("ann+news", "ann+", "ann++", "ann+a+b", "Ann+a b"):
            assert self.resolved(book("ann@example.test"), local_part) == ["ann@example.test"]

    def test_own_account_comes_first(self):
        """An account that has a plus in its name gets its own mail."""
        assert self.resolved(book("ann@example.test", "ann+news@example.test"), "ann+news") == ["ann+news@example.test"]

    def test_alias_comes_before(self):
        """An alias for one subaddress leads that one elsewhere."""
        a_book = book("ann@example.test", "bob@example.test", aliases={"ann+news": ["bob"]})
        assert self.resolved(a_book, "ann+news") == ["bob@example.test"]
        assert self.resolved(a_book, "ann+other") == ["ann@example.test"]

    def test_of_an_alias(self):
        """A subaddress of an alias reaches those it means."""
        a_book = book("ann@example.test", aliases={"team": ["ann"]})
        assert self.resolved(a_book, "team+x") == ["ann@example.test"]

    def test_nothing_before_the_plus(self):
        """A tag alone is nobody's."""
        accounts = Accounts("@example.test", "")
        a_book = AddressBook(DOMAINS, accounts, hostname="mx.example.test")
        assert self.refused(a_book, "+ann") is NoSuchMaildrop


class NoRelayTests(AddressBookTestCase):
    def test_tricks_that_name_another_host(self):
        """Percent hack, bang path and quoted addresses in our domain are unknown names, also where accounts are read from the left."""
        a_book = book("ann@example.test", "user@far.example", "far.example!user@example.test")
        a_book_with_users = book("user@example.test", "user@far.example@example.test")
        for local_part in (
            "user%far.example",
            "far.example.!user",
            "user@far.example",
            "@far.example:user",
            "",
            '"user"@far.example',
        ):
            assert self.refused(a_book, local_part) is NoSuchMaildrop
            assert self.refused(a_book_with_users, local_part) is NoSuchMaildrop

    def test_literals_elsewhere(self):
        """An address literal that nobody configured is not ours."""
        for domain in ("[192.0.2.1]", "[IPv6:2001:db8::1]", "[IPv6:nonsense]", "[", "[]", "[example.test]"):
            assert self.refused(book("ann@example.test"), "ann", domain) is RelayDenied

    def test_literals_of_ours(self):
        """A literal that was configured is a domain like any other, however its address is written."""
        a_book = AddressBook(
            ["example.test", "[IPv6:2001:DB8::1]", "[192.0.2.1]"],
            Accounts("ann@[ipv6:2001:db8::1]", "ann@[192.0.2.1]"),
            hostname="mx.example.test",
        )
        assert self.resolved(a_book, "ann", "[ipv6:2001:0db8:0:0::1]") == ["ann@[ipv6:2001:db8::1]"]
        assert self.resolved(a_book, "ann", "[192.0.2.1]") == ["ann@[192.0.2.1]"]

    def test_only_postmaster_has_no_domain(self):
        """`<postmaster>` is the only forward-path without a domain (RFC 5321 4.1.1.3)."""
        assert self.refused(book("ann@example.test"), "ann", "") is RelayDenied


class PostmasterTests(AddressBookTestCase):
    everywhere = ("", "example.test", "second.test", "mx.example.test", "MX.Example.Test")

    def test_always_exists(self):
        """With no configuration at all there is a maildrop for postmaster, in any case of letters and wherever we take mail."""
        for domain in self.everywhere:
            for local_part in ("postmaster", "Postmaster", "POSTMASTER"):
                assert self.resolved(book(), local_part, domain) == ["postmaster@example.test"]

    def test_configured(self):
        """The configured postmaster gets it in all domains, with or without a domain in the configuration."""
        for postmaster in ("ann", "Ann@example.test"):
            for domain in self.everywhere:
                a_book = book("ann@example.test", postmaster=postmaster)
                assert self.resolved(a_book, "postmaster", domain) == ["ann@example.test"]

    def test_account_comes_first(self):
        """A domain whose postmaster has an account of his own uses that."""
        a_book = book("ann@example.test", "postmaster@second.test", postmaster="ann")
        assert self.resolved(a_book, "postmaster", "second.test") == ["postmaster@second.test"]
        assert self.resolved(a_book, "postmaster", "example.test") == ["ann@example.test"]

    def test_alias_comes_first(self):
        """An alias for one domain's postmaster leads there."""
        a_book = book(
            "ann@example.test", "bob@example.test", postmaster="ann", aliases={"postmaster@second.test": ["bob"]}
        )
        assert self.resolved(a_book, "postmaster", "second.test") == ["bob@example.test"]

    def test_other_domains_use_the_first_ones(self):
        """An alias or account for the first domain's postmaster serves all that have none."""
        a_book = book("ann@example.test", aliases={"postmaster": ["ann"]})
        for domain in self.everywhere:
            assert self.resolved(a_book, "postmaster", domain) == ["ann@example.test"]

    def test_configured_one_is_gone(self):
        """Postmaster exists even when the configured account was removed."""
        assert self.resolved(book(postmaster="ann"), "postmaster", "second.test") == ["postmaster@example.test"]

    def test_alias_to_postmaster(self):
        """`abuse` may lead to postmaster without an account of that name."""
        a_book = book("ann@example.test", aliases={"abuse": ["postmaster"]})
        assert self.resolved(a_book, "abuse") == ["postmaster@example.test"]

    def test_host_name_has_nobody_else(self):
        """The host's own name is ours, with postmaster only."""
        assert self.refused(book("ann@example.test"), "ann", "mx.example.test") is NoSuchMaildrop

    def test_comes_before_the_catch_all(self):
        """Postmaster's mail is not caught."""
        a_book = book("ann@example.test", catch_all={"example.test": "ann"})
        assert self.resolved(a_book, "postmaster") == ["postmaster@example.test"]


class AliasTests(AddressBookTestCase):
    accounts = ("ann@example.test", "bob@example.test", "eve@second.test")

    def test_to_many_and_to_aliases(self):
        """An alias means all that it leads to, each maildrop once."""
        a_book = book(
            *self.accounts, aliases={"All@Example.Test": ["ann", "rest"], "rest": ["bob", "eve@second.test", "ann+x"]}
        )
        assert self.resolved(a_book, "all") == ["ann@example.test", "bob@example.test", "eve@second.test"]

    def test_one_that_names_itself_keeps_a_copy(self):
        """An account whose alias names itself and another gets its mail and the other a copy."""
        a_book = book(*self.accounts, aliases={"ann": ["ann", "bob"]})
        assert self.resolved(a_book, "ann") == ["ann@example.test", "bob@example.test"]

    def test_comes_before_the_account(self):
        """An alias takes the place of an account of the same name."""
        assert self.resolved(book(*self.accounts, aliases={"ann": ["bob"]}), "ann") == ["bob@example.test"]

    def test_members_that_are_gone(self):
        """The others get the message; with nobody left the alias is nobody."""
        a_book = book(*self.accounts, aliases={"team": ["gone", "bob"], "old": ["gone"]})
        assert self.resolved(a_book, "team") == ["bob@example.test"]
        assert self.refused(a_book, "old") is NoSuchMaildrop

    def test_every_way_of_the_graph_is_followed(self):
        """Two aliases that meet again are no loop."""
        a_book = book(*self.accounts, aliases={"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ["ann"]})
        assert self.resolved(a_book, "a") == ["ann@example.test"]


@pytest.mark.parametrize(
    ("configuration", "named"),
    [
        ({"aliases": {"a": ["a"]}}, ["a@example.test -> a@example.test"]),
        (
            {"aliases": {"a": ["b"], "b": ["c", "ann"], "c": ["a"]}},
            ["a@example.test", "b@example.test", "c@example.test"],
        ),
        ({"aliases": {"a": ["a", "b"], "b": ["a"]}}, ["a@example.test", "b@example.test"]),
        ({"aliases": {"a": ["a+x"]}}, ["a@example.test"]),
        ({"aliases": {"ops": ["postmaster"]}, "postmaster": "ops"}, ["ops@example.test", "postmaster@example.test"]),
        ({"aliases": {"ops": ["postmaster+x"]}, "postmaster": "ops"}, ["ops@example.test"]),
        ({"aliases": {"a": ["bob@far.example"]}}, ["far.example", "example.test"]),
        ({"aliases": {"a@far.example": ["ann"]}}, ["far.example"]),
        ({"catch_all": {"far.example": "ann"}}, ["far.example"]),
        ({"catch_all": {"example.test": "ann@far.example"}}, ["far.example"]),
        ({"postmaster": "ann@far.example"}, ["far.example"]),
    ],
)
def test_configuration_that_cannot_work(configuration, named):
    """Loops and addresses that are not ours are refused when loaded, by name."""
    with pytest.raises(ValueError, match=r"back to themselves|none of our domains") as caught:
        book("ann@example.test", **configuration)
    for name in named:
        assert name in str(caught.value)


def test_no_domain():
    """An address book of no domain is a mistake."""
    with pytest.raises(ValueError, match="at least one domain"):
        AddressBook([], Accounts(), hostname="mx.example.test")


def test_loop_is_named_in_its_order():
    """The message shows the way from alias to alias."""
    with pytest.raises(ValueError, match="themselves: ") as caught:
        book(aliases={"a": ["b"], "b": ["c"], "c": ["a"]})
    way = [name.partition("@")[0] for name in str(caught.value).rpartition(": ")[2].split(" -> ")]
    assert "".join(way) in ("abca", "bcab", "cabc")


@pytest.mark.parametrize("domain", ["a..b.é", "é" * 64 + ".example", "\ud800.example", "[ipv6:zz]"])
def test_no_domain_name(domain):
    """What can be no domain is a ValueError, in configuration and before a look-up."""
    with pytest.raises(ValueError):  # noqa: PT011 - the text is the idna package's
        canonical_domain(domain)


class CatchAllTests(AddressBookTestCase):
    def test_gets_the_rest(self):
        """What nobody else in the domain gets, the catch-all gets; other domains have none."""
        a_book = book("ann@example.test", "bob@example.test", catch_all={"Example.Test": "bob"})
        assert self.resolved(a_book, "anybody") == ["bob@example.test"]
        assert self.resolved(a_book, "ann") == ["ann@example.test"]
        assert self.refused(a_book, "anybody", "second.test") is NoSuchMaildrop

    def test_never_for_a_quoted_address(self):
        """A local part that looks like an address of its own is not caught either."""
        a_book = book("bob@example.test", catch_all={"example.test": "bob"})
        assert self.refused(a_book, "user@far.example") is NoSuchMaildrop

    def test_itself_gone(self):
        """A catch-all without an account catches nothing."""
        assert self.refused(book(catch_all={"example.test": "bob"}), "anybody") is NoSuchMaildrop


class MaildropOfTests(AddressBookTestCase):
    def test_canonical(self):
        """An avatar id in any case opens the maildrop that mail goes to; without a domain it is the first one's."""
        for account in (b"ann", b"Ann", b"ANN@EXAMPLE.TEST", b"ann@example.test"):
            assert book().maildrop_of(account) == "ann@example.test"
        assert book().maildrop_of("JÜRGEN".encode()) == "jürgen@example.test"

    def test_is_what_delivery_uses(self):
        """What arrives for an account is what it opens."""
        a_book = AddressBook(["bücher.example"], Accounts("jürgen@xn--bcher-kva.example"), hostname="mx.example.test")
        account = "Jürgen@BÜCHER.example".encode()
        assert self.resolved(a_book, "jürgen", "bücher.example") == [a_book.maildrop_of(account)]

    def test_not_text(self):
        """An avatar id that is no UTF-8, or has no domain behind its @, has no maildrop."""
        for account in (b"\xff", "ann@..é".encode()):
            with pytest.raises(LoginForbidden):
                book().maildrop_of(account)


class MaySendAsTests(AddressBookTestCase):
    a_book = book(
        "ann@example.test",
        "ann+work@example.test",
        "bob@example.test",
        aliases={"team": ["bob", "ann"], "support": ["bob"]},
        catch_all={"second.test": "ann"},
    )

    def may(self, account, local_part, domain="example.test"):
        return self.successResultOf(self.a_book.may_send_as(account, Path(local_part, domain)))

    def test_own_addresses(self):
        """The account's own address, its subaddresses and the aliases that lead to it, in any case."""
        for local_part in ("ann", "ANN", "ann+tag", "team", "Team+x"):
            assert self.may(b"ann", local_part)
            assert self.may(b"Ann@example.test", local_part)

    def test_of_others(self):
        """Not another's address, another's alias, an account that looks like a subaddress, or a name nobody has."""
        for local_part in ("bob", "support", "ann+work", "nobody", "", "ann@example.test"):
            assert not self.may(b"ann", local_part)

    def test_elsewhere(self):
        """Not another domain; and a catch-all's owner has not all of its names."""
        assert not self.may(b"ann", "ann", "far.example")
        assert not self.may(b"ann", "anything", "second.test")

    def test_null(self):
        """Anybody may send notifications (RFC 5321 4.5.5)."""
        assert self.successResultOf(self.a_book.may_send_as(b"ann", NULL_REVERSE_PATH))

    def test_account_that_the_book_does_not_know(self):
        """With several checkers one may know accounts that the book cannot ask about; they have their own address."""
        assert self.may(b"zoe", "zoe")
        assert self.may(b"zoe@far.example", "Zoe", "FAR.example")
        assert not self.may(b"zoe@far.example", "ann", "far.example")
