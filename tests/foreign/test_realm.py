"""Somebody's realm, with avatars for twisted.mail, behind our sessions."""

from twisted.cred.checkers import ANONYMOUS
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.mail.interfaces import IMailboxPOP3, IMessageDelivery, IMessageDeliveryFactory
from twisted.mail.pop3 import Mailbox
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from mailhost.envelope import Client, Path
from mailhost.foreign.realm import realm_from_twisted
from mailhost.interfaces import IDelivery, IMaildrop
from mailhost.limits import Limits
from mailhost.refusal import TookTooLong

CLIENT = Client("s1", "192.0.2.7", 4711, "mx", "smtp", helo="mail.far.example")


class Never(Mailbox):
    """A mailbox that never says what it has."""

    def listMessages(self, i=None):
        return Deferred()


@implementer(IMessageDelivery)
class Sender:
    """As much of a delivery as MAIL asks for."""

    def validateFrom(self, helo, origin):
        self.origin = origin
        return origin


@implementer(IMessageDeliveryFactory)
class Senders:
    def __init__(self):
        self.sender = Sender()

    def getMessageDelivery(self):
        return self.sender


@implementer(IRealm)
class Realm:
    """Gives the avatar it has, for the first interface that it provides."""

    def __init__(self, avatar, wrap=lambda answer: answer):
        self.avatar = avatar
        self.wrap = wrap
        self.asked = []
        self.logouts = 0

    def requestAvatar(self, avatarId, mind, *interfaces):
        self.asked.append((avatarId, mind, interfaces))
        for interface in interfaces:
            if interface.providedBy(self.avatar):
                return self.wrap((interface, self.avatar, self.log_out))
        raise NotImplementedError()

    def log_out(self):
        self.logouts += 1


class RealmTests(SynchronousTestCase):
    def request(self, realm, interface, avatar_id=b"ann"):
        self.clock = Clock()
        ours = realm_from_twisted(
            realm, hostname="mx.example.test", reactor=self.clock, limits=Limits(lookup_seconds=10)
        )
        return ours.requestAvatar(avatar_id, CLIENT, interface)

    def test_mailbox(self):
        """A mailbox avatar serves as a maildrop; the logout is the realm's own."""
        for wrap in (lambda answer: answer, succeed):
            realm = Realm(Mailbox(), wrap)
            interface, maildrop, log_out = self.successResultOf(self.request(realm, IMaildrop))
            assert interface is IMaildrop
            assert maildrop.totals == (0, 0)
            log_out()
            assert realm.logouts == 1
            assert realm.asked == [(b"ann", CLIENT, (IMaildrop, IMailboxPOP3))]

    def test_deliveries(self):
        """A delivery, or a factory of them, serves as a delivery, for strangers too."""
        for avatar in (Sender(), Senders()):
            interface, delivery, _ = self.successResultOf(self.request(Realm(avatar), IDelivery, ANONYMOUS))
            assert interface is IDelivery
            self.successResultOf(delivery.transaction(CLIENT, Path("zoe", "far.example"), {}))
            asked = avatar if isinstance(avatar, Sender) else avatar.sender
            assert bytes(asked.origin) == b"zoe@far.example"

    def test_our_own_interface(self):
        """An avatar that provides ours is given on untouched."""

        @implementer(IMaildrop)
        class Ours:
            pass

        ours = Ours()
        assert self.successResultOf(self.request(Realm(ours), IMaildrop))[1] is ours

    def test_no_such_avatar(self):
        """A realm that has none says so as before."""
        self.failureResultOf(self.request(Realm(Mailbox()), IDelivery), NotImplementedError)

    def test_mailbox_that_cannot_be_opened(self):
        """The login fails, and what the realm had opened is closed, once."""
        realm = Realm(Never())
        waiting = self.request(realm, IMaildrop)
        self.assertNoResult(waiting)
        self.clock.advance(10)
        self.failureResultOf(waiting, TookTooLong)
        assert realm.logouts == 1

    def test_cancelled(self):
        """A session that ends before the mailbox is open leaves nothing open."""
        realm = Realm(Never())
        waiting = self.request(realm, IMaildrop)
        waiting.cancel()
        self.failureResultOf(waiting)
        assert realm.logouts == 1
