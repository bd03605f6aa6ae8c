"""
A mail host for tests in the process that tests it: for trial, whose tests have the reactor::

    class ShopTests(TestCase):
        async def setUp(self):
            self.mail_host = await start_mail_host(self)

        async def test_order_is_confirmed(self):
            await confirm(order, smtp=self.mail_host.smtp_address)
            (message,) = await self.mail_host.wait_for("ann@example.test")
            assert message["Subject"] == "Your order"

It is stopped when the test is over, and leaves the reactor as it was.  Tests that block (smtplib in the reactor's thread) want
`mailhost.testing.process` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailhost.cred.chain import build_portal
from mailhost.cred.login import Login
from mailhost.cred.realm import AvatarFactory, MailRealm
from mailhost.delivery.avatar import delivery_avatars, maildrop_avatars
from mailhost.envelope import Client, Path
from mailhost.interfaces import Destination, IAddressBook, IDelivery, IMaildrop, LocalMaildrop
from mailhost.limits import Limits
from mailhost.pop3.factory import POP3Factory
from mailhost.service.host import MailHost, Wiring
from mailhost.service.listen import Door
from mailhost.smtp.factory import SMTPFactory
from mailhost.spool.memory import MemorySpool
from mailhost.testing.arrivals import Arrivals
from mailhost.testing.faults import CONTENT, END, RCPT, Fault, Faults, WatchedDelivery
from mailhost.testing.messages import ReceivedMessage, Wanted, first, nothing_arrived, received
from mailhost.wire.conversation import Conversation

HOSTNAME = "mail.test"
_ENDPOINT = "tcp:0:interface=127.0.0.1"


class Address(NamedTuple):
    """What `smtplib.SMTP(*address)` takes."""

    host: str
    port: int


@implementer(IAddressBook)
class _Everybody:
    """Every address has a maildrop."""

    async def resolve(self, forward_path: Path) -> Sequence[Destination]:
        return [LocalMaildrop(forward_path.mailbox.lower())]

    def maildrop_of(self, account: bytes) -> str:
        return account.decode().lower()

    async def may_send_as(self, account: bytes, reverse_path: Path) -> bool:
        return True


class _Factory(SMTPFactory):
    """Knows its conversations by their clients, so that one can be cut."""

    def __init__(self, conversations: dict[tuple[str, int], Conversation], **arguments: Any) -> None:
        super().__init__(**arguments)
        self._by_client = conversations

    def opened(self, conversation: Conversation) -> None:
        super().opened(conversation)
        self._by_client[_client_of(conversation)] = conversation

    def closed(self, conversation: Conversation) -> None:
        super().closed(conversation)
        self._by_client.pop(_client_of(conversation), None)


def _client_of(conversation: Conversation) -> tuple[str, int]:
    peer = conversation.transport.getPeer()
    return peer.host, peer.port


class InProcessHost:
    """
    A host on free ports of 127.0.0.1, with a spool in memory.  Every address takes mail; an account is needed to log in.
    """

    def __init__(self, reactor: Any, limits: Limits | None = None) -> None:
        """@param reactor: the installed one."""
        self.seconds: Callable[[], float] = reactor.seconds
        self.spool = MemorySpool(reactor=reactor)
        self.faults = Faults(reactor)
        self.arrivals = Arrivals(reactor)
        self._accounts = InMemoryUsernamePasswordDatabaseDontUse()
        self._conversations: dict[tuple[str, int], Conversation] = {}
        self._host = MailHost(reactor=reactor, spool=self.spool, wiring=self._wiring(reactor, limits or Limits()))

    def _wiring(self, reactor: Any, limits: Limits) -> Wiring:
        book = _Everybody()
        delivery = delivery_avatars(self.spool, book, hostname=HOSTNAME, clock=reactor)
        maildrop = maildrop_avatars(self.spool, book, wait_seconds=limits.maildrop_wait_seconds)
        realm = MailRealm({IDelivery: self._watched(delivery), IMaildrop: maildrop})
        portal = build_portal(realm, [self._accounts])
        common = {"hostname": HOSTNAME, "clock": reactor, "limits": limits}
        mail_in = {**common, "login": Login(portal, IDelivery, reactor=reactor)}
        mail_out: Any = {**common, "login": Login(portal, IMaildrop, reactor=reactor)}
        return Wiring(
            [
                Door("smtp", _ENDPOINT, _Factory(self._conversations, **mail_in)),
                Door(
                    "submission",
                    _ENDPOINT,
                    _Factory(self._conversations, **mail_in, protocol="submission", auth=True, plaintext_login=True),
                ),
                Door("pop3", _ENDPOINT, POP3Factory(**mail_out, plaintext_login=True)),
            ]
        )

    def _watched(self, factory: AvatarFactory) -> AvatarFactory:
        async def avatar(account: bytes | None, client: Client) -> tuple[IDelivery, Callable[[], None]]:
            delivery, logout = await factory(account, client)
            return WatchedDelivery(delivery, self.faults, self.arrivals, self._cut), logout

        return avatar

    def _cut(self, client: Client) -> None:
        conversation = self._conversations.get((client.host, client.port))
        if conversation is not None:
            conversation.abort()

    # -- its life

    async def start(self) -> None:
        """Until connections are accepted."""
        self._host.startService()
        await self._host.when_ready()

    async def stop(self) -> None:
        """Until every connection and port is closed."""
        await self._host.stopService()

    async def reset(self) -> None:
        """As new: no accounts, no mail, no faults.  Sessions that are open go on."""
        self._accounts.users.clear()
        self.faults.clear()
        self.arrivals.clear()
        async for name in self.spool.maildrops():
            await self.spool.remove(name)

    def _address(self, name: str) -> Address:
        (address,) = (one.address for one in self._host.listeners if one.door.name == name)
        return Address(address.host, address.port)  # type: ignore[attr-defined]  # IPv4Address

    @property
    def smtp_address(self) -> Address:
        """Takes mail from anybody."""
        return self._address("smtp")

    @property
    def submission_address(self) -> Address:
        """Takes mail from accounts, which log in without TLS."""
        return self._address("submission")

    @property
    def pop3_address(self) -> Address:
        return self._address("pop3")

    # -- what tests ask of it

    def add_account(self, address: str, password: str) -> None:
        """An account by which to submit mail and to fetch it."""
        self._accounts.users[address.encode()] = password.encode()

    def messages(self, address: str) -> list[ReceivedMessage]:
        """All that has arrived; see `wait_for`."""
        return [received(*arrival) for arrival in self.arrivals.at(address)]

    async def wait_for(self, address: str, count: int = 1, seconds: float = 5.0) -> list[ReceivedMessage]:
        """
        The messages for an address, in their order, once there are so many.

        @param address: `user@domain`, or `user` for whatever domain.
        @raise NothingArrived: there are fewer when the time is up.
        """
        messages = [received(*arrival) for arrival in await self.arrivals.wait(address, count, seconds)]
        if len(messages) < count:
            raise nothing_arrived(address, f"not {count} messages", seconds, messages)
        return messages

    def inbox(self, address: str) -> Inbox:
        """@param address: `user@domain`, or `user` for whatever domain."""
        return Inbox(self, address)

    # -- what is to go wrong

    def refuse(self, address: str | None = None, *, times: int | None = None, at_end: bool = False) -> None:
        """550 at RCPT, or at the end of content."""
        at, status, text = (END, "5.7.1", "Refused by the test") if at_end else (RCPT, "5.1.1", "No such mailbox here")
        self.faults.add(Fault(at, address, times, 550, status, text))

    def defer(self, address: str | None = None, *, times: int | None = 1, at_end: bool = False) -> None:
        """451 at RCPT, or at the end of content: once, unless said otherwise, so that a retry succeeds."""
        self.faults.add(Fault(END if at_end else RCPT, address, times, 451, "4.7.1", "Try again later"))

    def drop(self, address: str | None = None, *, times: int | None = 1, after_octets: int = 0) -> None:
        """Cut the connection in mid-content; nothing of the message is kept."""
        self.faults.add(Fault(CONTENT, address, times, after_octets=after_octets))

    def slow(self, seconds: float, address: str | None = None, *, times: int | None = None) -> None:
        """The answer to the end of content comes so much later."""
        self.faults.add(Fault(END, address, times, seconds=seconds))


class Inbox:
    """What arrives for one address."""

    def __init__(self, host: InProcessHost, address: str) -> None:
        self._host = host
        self.address = address

    @property
    def messages(self) -> list[ReceivedMessage]:
        """All that is there now."""
        return self._host.messages(self.address)

    async def wait_for(self, subject: Wanted = None, *, seconds: float = 5.0) -> ReceivedMessage:
        """
        The first message that is wanted, once it is there.

        @param subject: a whole subject, a compiled pattern to search for in it, or a function of the message.
        @raise NothingArrived: it is not there when the time is up.
        """
        end = self._host.seconds() + seconds
        while True:
            messages = self.messages
            message = first(messages, subject)
            if message is not None:
                return message
            left = end - self._host.seconds()
            if left <= 0:
                raise nothing_arrived(self.address, f"no message {subject or ''}", seconds, messages)
            await self._host.arrivals.wait(self.address, len(messages) + 1, left)


async def start_mail_host(test: Any, limits: Limits | None = None) -> InProcessHost:
    """@param test: a trial TestCase; the host is stopped when it is over."""
    from twisted.internet import reactor

    host = InProcessHost(reactor, limits)
    test.addCleanup(lambda: Deferred.fromCoroutine(host.stop()))
    await host.start()
    return host
