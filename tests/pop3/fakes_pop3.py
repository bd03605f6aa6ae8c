"""A login and a maildrop that do what a test tells them, and a POP3 conversation over them on a fake transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from twisted.cred.credentials import IUsernameHashedPassword
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailhost.envelope import Client, Totals
from mailhost.interfaces import IContent, ILoggedIn, ILogin, IMaildrop, Listing
from mailhost.limits import Limits
from mailhost.octets import Measure
from mailhost.pop3.factory import POP3Factory
from mailhost.refusal import LoginFailed, NoSuchMessage
from mailhost.testing.transport import FakeTransport

NAME = b"ann@example.test"
PASSWORD = b"correct horse"
TLS_CREATOR: Any = object()

Hook = Callable[[], Awaitable[object]]


async def at_once() -> None:
    """The answer of whoever was not told otherwise."""


@implementer(IContent)
class FakeContent:
    """Wire form, and every read of it."""

    def __init__(self, wire: bytes, on_read: Hook = at_once) -> None:
        measure = Measure()
        measure.feed(wire)
        self.octets = measure.octets
        self.wire_octets = len(wire)
        self.header_octets = measure.header_octets
        self.reads: list[tuple[int, int]] = []
        self.wire = wire
        self.on_read = on_read

    async def read(self, offset: int, count: int) -> bytes:
        self.reads.append((offset, count))
        await self.on_read()
        return self.wire[offset : offset + count]


@implementer(IMaildrop)
class FakeMaildrop:
    """Messages in wire form.  Set `on_*` to make an answer late, never, or an error."""

    def __init__(self, messages: Sequence[bytes] = ()) -> None:
        self.contents = [FakeContent(wire) for wire in messages]
        self.totals = Totals(len(messages), sum(content.octets for content in self.contents))
        self.kept = Listing(
            [content.octets for content in self.contents], [f"uid{number}" for number in range(1, len(messages) + 1)]
        )
        self.delivered: list[int] = []
        self.on_times: Hook = at_once
        self.on_listing: Hook = at_once
        self.on_content: Hook = at_once
        self.on_update: Hook = at_once
        self.listings = 0
        self.happened: list[object] = []

    async def listing(self) -> Listing:
        self.listings += 1
        await self.on_listing()
        return self.kept

    async def content(self, number: int) -> IContent:
        if not 1 <= number <= len(self.contents):
            raise NoSuchMessage
        await self.on_content()
        return self.contents[number - 1]

    async def update(self, deleted: Collection[int]) -> None:
        self.happened.append(("update", tuple(deleted)))
        await self.on_update()
        self.happened.append("updated")

    async def times(self) -> Sequence[int]:
        await self.on_times()
        return self.delivered or [0] * len(self.contents)

    async def notes(self) -> bytes:
        return b""

    async def keep_notes(self, notes: bytes) -> None:
        pass

    def when_wanted(self, ask: Callable[[], None]) -> None:
        self.ask = ask

    def release(self) -> None:
        self.happened.append("release")


@implementer(ILoggedIn)
class FakeLoggedIn:
    def __init__(self, account: bytes, maildrop: FakeMaildrop) -> None:
        self.account = account
        self.avatar = maildrop

    def log_out(self) -> None:
        self.avatar.happened.append("log out")


@implementer(ILogin)
class FakeLogin:
    """One account.  Set `on_log_in` to make the answer late, never, or an error."""

    def __init__(self, maildrop: FakeMaildrop) -> None:
        self.maildrop = maildrop
        self.on_log_in: Hook = at_once
        self.clients: list[Client] = []
        self.offered: Sequence[bytes] = (b"PLAIN", b"LOGIN")
        self.digests = True

    def mechanisms(self, protected: bool) -> Sequence[bytes]:
        return self.offered if protected else ()

    def takes_digests(self) -> bool:
        return self.digests

    async def log_in(self, credentials: Any, client: Client) -> ILoggedIn:
        self.clients.append(client)
        await self.on_log_in()
        if IUsernameHashedPassword.providedBy(credentials):
            if credentials.username == NAME and credentials.checkPassword(PASSWORD):
                return FakeLoggedIn(NAME, self.maildrop)
            raise LoginFailed
        if (credentials.username, credentials.password) != (NAME, PASSWORD):
            raise LoginFailed
        return FakeLoggedIn(NAME, self.maildrop)


class Host:
    """A factory over fakes, with its clock and what it reported."""

    def __init__(self, messages: Sequence[bytes] = (), *, limits: Limits | None = None, **more: Any) -> None:
        """
        @param more: for the factory; passwords are taken in the clear unless it says otherwise.
        """
        self.clock = Clock()
        self.events: list[object] = []
        self.maildrop = FakeMaildrop(messages)
        self.login = FakeLogin(self.maildrop)
        more.setdefault("plaintext_login", True)
        self.factory = POP3Factory(
            login=self.login,
            hostname="pop.example.test",
            clock=self.clock,
            limits=limits,
            observer=self.events.append,
            listener="pop3-test",
            **more,
        )

    def connect(self) -> FakeTransport:
        """A client that has heard the greeting, if there was one."""
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        transport = FakeTransport(protocol)
        transport.take()
        return transport

    def logged_in(self) -> FakeTransport:
        """A client in TRANSACTION."""
        transport = self.connect()
        said = ask(transport, b"USER " + NAME + b"\r\nPASS " + PASSWORD + b"\r\n")
        assert said.count(b"+OK") == 2, said
        return transport

    def happened(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]


def ask(transport: FakeTransport, octets: bytes) -> bytes:
    """Say something and hear what is said at once."""
    transport.receive(octets)
    return transport.take()


def waits() -> tuple[Deferred[None], Hook]:
    """A Deferred, and a hook that waits for it."""
    deferred: Deferred[None] = Deferred()

    async def hook() -> None:
        await deferred

    return deferred, hook


def raises(error: BaseException) -> Hook:
    """A hook that raises."""

    async def hook() -> None:
        raise error

    return hook
