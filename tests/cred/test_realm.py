"""From an avatar id to an avatar."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from mailhost.cred.realm import MailRealm
from mailhost.envelope import Client
from mailhost.interfaces import IContent, IDelivery, IMaildrop
from mailhost.refusal import MaildropInUse

CLIENT = Client("s1", "192.0.2.7", 4711, "pop", "pop3")


class RealmTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.made: list[tuple[str, bytes | None, Client]] = []
        self.ended: list[str] = []
        self.realm = MailRealm({IMaildrop: self.factory("maildrop"), IDelivery: self.factory("delivery")})

    def factory(self, kind: str) -> Any:
        async def make(account: bytes | None, client: Client) -> tuple[str, Any]:
            self.made.append((kind, account, client))
            return kind, lambda: self.ended.append(kind)

        return make

    def avatar(self, *arguments: Any) -> Any:
        return self.successResultOf(self.realm.requestAvatar(*arguments))

    def test_provides_its_interface(self) -> None:
        """Any portal takes it."""
        verifyObject(IRealm, self.realm)

    def test_kinds(self) -> None:
        """Each kind is made by its own factory, which gets the account and its client."""
        for interface, kind in [(IMaildrop, "maildrop"), (IDelivery, "delivery")]:
            given, avatar, logout = self.avatar(b"ann", CLIENT, interface)
            assert (given, avatar, logout.account) == (interface, kind, b"ann")
            assert self.made.pop() == (kind, b"ann", CLIENT._replace(account=b"ann"))

    def test_first_kind_that_can_be_made(self) -> None:
        """A client may offer several kinds, best first."""
        assert self.avatar(b"ann", CLIENT, IContent, IDelivery, IMaildrop)[:2] == (IDelivery, "delivery")

    def test_unknown_kind(self) -> None:
        """As twisted.cred has it."""
        with pytest.raises(NotImplementedError):
            self.realm.requestAvatar(b"ann", CLIENT, IContent)

    def test_anonymous(self) -> None:
        """A stranger has no account, which the factory sees as None."""
        assert self.avatar(ANONYMOUS, CLIENT, IDelivery)[2].account is None
        assert self.made == [("delivery", None, CLIENT)]

    def test_text(self) -> None:
        """An avatar id from a foreign portal may be text; past the realm it is octets."""
        assert self.avatar("zoë", CLIENT, IMaildrop)[2].account == "zoë".encode()

    def test_other_mind(self) -> None:
        """A protocol that is not ours has no Client for a mind, and gets an avatar all the same."""
        self.avatar(b"ann", None, IMaildrop)
        assert self.made[0][2].account == b"ann"
        assert self.made[0][2].host == ""

    def test_logout(self) -> None:
        """What the factory gave is what is called."""
        logout = self.avatar(b"ann", CLIENT, IMaildrop)[2]
        assert self.ended == []
        logout()
        assert self.ended == ["maildrop"]

    def test_factory_with_a_deferred(self) -> None:
        """A factory need not be a coroutine."""
        realm = MailRealm({IMaildrop: lambda account, client: succeed(("maildrop", lambda: None))})
        assert self.successResultOf(realm.requestAvatar(b"ann", CLIENT, IMaildrop))[1] == "maildrop"

    def test_waiting_factory(self) -> None:
        """An avatar may take its time, and may be refused."""
        lock: Deferred[Any] = Deferred()
        realm = MailRealm({IMaildrop: lambda account, client: lock})
        result = realm.requestAvatar(b"ann", CLIENT, IMaildrop)
        self.assertNoResult(result)
        lock.errback(MaildropInUse())
        self.failureResultOf(result, MaildropInUse)
