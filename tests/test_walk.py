"""
A message's whole way, through real sockets and real parts in one process: smtplib brings it, poplib fetches it.

The clients block, in a thread; the server runs on the reactor of the test.
"""

from __future__ import annotations

import os
import poplib
import shutil
import smtplib
import socket
import ssl
import struct
import tempfile
from collections.abc import Callable
from typing import Any

from twisted.cred.portal import Portal
from twisted.internet import endpoints, reactor
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import Interface

from mailhost.cred.chain import build_portal
from mailhost.cred.login import Login
from mailhost.cred.passwd import PasswdChecker
from mailhost.cred.realm import MailRealm
from mailhost.cred.throttle import Throttle
from mailhost.delivery.address_book import AddressBook
from mailhost.delivery.avatar import delivery_avatars, maildrop_avatars
from mailhost.events import Bug, MessageAccepted, MessageRetrieved, MessagesDeleted, SessionEnded, Trouble
from mailhost.interfaces import IDelivery, IMaildrop, ISpool
from mailhost.limits import Limits
from mailhost.pop3.factory import POP3Factory
from mailhost.service.certificates import ServerCertificate, make_self_signed
from mailhost.smtp.factory import SMTPFactory
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.memory import MemorySpool
from mailhost.wire.factory import ConversationFactory

CLOCK: Any = reactor
HOST = "127.0.0.1"
ANN = "ann@example.test"
BOB = "bob@example.test"
PASSWORD = "correct horse"
LOGIN = f"USER {ANN}\r\nPASS {PASSWORD}\r\n".encode()

LOGGED_IN = b"+OK logged in\r\n"
GOODBYE = b"+OK goodbye\r\n"

# More than the system's own buffers of one connection hold: up to 32 MiB on the receiving side where memory is plenty.
SOCKETS_OCTETS = 64 << 20

MESSAGES = [
    b"Subject: one\r\n\r\nHello.\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n\r\n.\r\n",
    b"Subject: 8 bits\r\n\r\n" + bytes(range(128, 256)) + b"\0\r\n",
    b"Subject: no body\r\n\r\n",
    b"Subject: long\r\n\r\n" + b"".join(b".%062d\r\n" % number for number in range(20_000)),
]


class Walk(TestCase):
    """A host on free loopback ports; the classes below say with which spool."""

    timeout = 60

    async def setUp(self) -> None:
        self.directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.directory)
        self.events: list[Any] = []
        self.factories: list[ConversationFactory] = []
        self.limits = Limits(connections_per_host=100, maildrop_wait_seconds=0.5)
        self.spool = self.make_spool()
        await self.spool.start()
        self.addCleanup(self.stop_spool)
        self.portal = self.make_portal()
        self.certificate = self.make_certificate()

    def make_spool(self) -> ISpool:
        return MemorySpool(reactor=CLOCK, observer=self.events.append)

    async def stop_spool(self) -> None:
        await self.spool.stop()

    def make_portal(self) -> Portal:
        path = self.file("passwd", f"{ANN}:{{PLAIN}}{PASSWORD}\n{BOB}:{{PLAIN}}{PASSWORD}\n".encode())
        checker = PasswdChecker(path, observer=self.events.append)
        book = AddressBook(["example.test"], checker, hostname="mx.example.test")
        avatars = {
            IDelivery: delivery_avatars(self.spool, book, hostname="mx.example.test", clock=CLOCK),
            IMaildrop: maildrop_avatars(self.spool, book, wait_seconds=self.limits.maildrop_wait_seconds),
        }
        return build_portal(MailRealm(avatars), [checker], self.events.append)

    def make_certificate(self) -> ServerCertificate:
        certificate, key = make_self_signed(["localhost", HOST])
        paths = self.file("cert.pem", certificate), self.file("key.pem", key)
        self.trusting = ssl.create_default_context(cafile=paths[0])
        return ServerCertificate(*paths, self.events.append)

    def file(self, name: str, octets: bytes) -> str:
        path = os.path.join(self.directory, name)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
            file.write(octets)
        return path

    def login(self, interface: type[Interface]) -> Login:
        return Login(
            self.portal,
            interface,
            reactor=CLOCK,
            observer=self.events.append,
            throttle=Throttle(CLOCK, first_seconds=0.001, most_seconds=0.001),
            limits=self.limits,
        )

    async def listen(self, make: Callable[..., ConversationFactory], interface: type[Interface], **more: Any) -> int:
        """A listener that is drained when the test ends.  @return: its port."""
        implicit = more.get("implicit_tls", False)
        factory = make(
            login=self.login(interface),
            hostname="mx.example.test",
            limits=self.limits,
            observer=self.events.append,
            clock=CLOCK,
            listener="walk",
            tls=None if implicit else self.certificate,
            **more,
        )
        endpoint = endpoints.serverFromString(reactor, f"tcp:0:interface={HOST}")
        if implicit:
            endpoint = endpoints.wrapServerTLS(self.certificate, endpoint)
        port = await endpoint.listen(factory)
        self.addCleanup(factory.drain)
        self.addCleanup(port.stopListening)
        self.factories.append(factory)
        return int(port.getHost().port)

    async def smtp(self, **more: Any) -> int:
        return await self.listen(SMTPFactory, IDelivery, **more)

    async def pop3(self, **more: Any) -> int:
        return await self.listen(POP3Factory, IMaildrop, **{"plaintext_login": True, **more})

    async def all_gone(self) -> None:
        """Every connection has ended on the server's side too."""
        while any(factory.connections for factory in self.factories):
            await deferLater(CLOCK, 0.01)

    def happened(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    def assert_no_trouble(self) -> None:
        assert self.happened(Bug) + self.happened(Trouble) == []

    def assert_came_back(self, sent: bytes, fetched: bytes) -> None:
        """Octet for octet, behind the trace fields that every delivery adds."""
        assert fetched.startswith(b"Return-Path: <bob@example.test>\r\nDelivered-To: ann@example.test\r\n")
        fields = fetched[: len(fetched) - len(sent)]
        assert fetched[len(fields) :] == sent
        assert fields.count(b"\r\nReceived: ") == 1
        assert b"\r\n\r\n" not in fields


def send(client: smtplib.SMTP, messages: list[bytes]) -> None:
    """By MAIL, RCPT and DATA as smtplib has them; it doubles the dots."""
    with client:
        for message in messages:
            refused = client.sendmail(BOB, [ANN], message)
            assert not refused


def fetch(client: poplib.POP3) -> list[bytes]:
    """All messages, as poplib undoes their dots; it is then marked and removed."""
    client.user(ANN)
    client.pass_(PASSWORD)
    messages = []
    for number in range(1, client.stat()[0] + 1):
        _, lines, octets = client.retr(number)
        message = b"".join(line + b"\r\n" for line in lines)
        assert octets == len(message), (octets, len(message))
        assert client.list(number).split()[2] == b"%d" % octets
        messages.append(message)
        client.dele(number)
    client.quit()
    return messages


def plain_socket(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=20)


def cut(connection: socket.socket) -> None:
    """Gone with a RST, as by a crash."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def say_and_cut(port: int, commands: list[bytes], patient: bool) -> None:
    """Say so much and be gone: at once, or after something was heard."""
    connection = plain_socket(port)
    connection.recv(1000)
    for command in commands:
        connection.sendall(command)
        if patient and command.endswith(b"\n") and not command.startswith(b"Subject"):
            connection.recv(1000)
    cut(connection)


def read_exactly(connection: socket.socket, count: int) -> bytes:
    said = bytearray()
    while len(said) < count:
        octets = connection.recv(count - len(said))
        assert octets
        said += octets
    return bytes(said)


def read_until(connection: socket.socket, end: bytes) -> bytes:
    said = bytearray()
    while not said.endswith(end):
        octets = connection.recv(1 << 20)
        assert octets, bytes(said[-100:])
        said += octets
    return bytes(said)


class WalkTests(Walk):
    """Over the spool in memory."""

    async def deliver(self, messages: list[bytes]) -> None:
        port = await self.smtp()
        await deferToThread(lambda: send(smtplib.SMTP(HOST, port, timeout=20), messages))

    async def standstill(self) -> int:
        """Wait until the one open POP3 conversation sends no more.  @return: octets that it has sent in all."""
        (conversation,) = (each for factory in self.factories for each in factory._conversations)
        before = -1
        while before != conversation.octets_out:
            before = conversation.octets_out
            await deferLater(CLOCK, 0.3)
        return int(before)

    async def fetched(self, port: int) -> list[bytes]:
        """What is there, over a connection in the clear; it is removed."""
        return await deferToThread(lambda: fetch(poplib.POP3(HOST, port, timeout=20)))

    async def walk(self, smtp: Callable[[], smtplib.SMTP], pop3: Callable[[], poplib.POP3]) -> None:
        await deferToThread(lambda: send(smtp(), MESSAGES))
        fetched = await deferToThread(lambda: fetch(pop3()))
        assert len(fetched) == len(MESSAGES)
        for sent, came in zip(MESSAGES, fetched, strict=True):
            self.assert_came_back(sent, came)
        assert await deferToThread(lambda: fetch(pop3())) == []
        await self.all_gone()
        self.assert_no_trouble()

    async def test_in_the_clear(self) -> None:
        """From smtplib to poplib, and what was fetched and removed is gone; the log tells each message's way."""
        smtp, pop3 = await self.smtp(), await self.pop3()
        await self.walk(
            lambda: smtplib.SMTP(HOST, smtp, timeout=20),
            lambda: poplib.POP3(HOST, pop3, timeout=20),
        )
        accepted = [event.unique_id for event in self.happened(MessageAccepted)]
        assert accepted == [event.unique_id for event in self.happened(MessageRetrieved)]
        assert [event.unique_ids for event in self.happened(MessagesDeleted)] == [tuple(accepted)]
        assert [event.why for event in self.happened(SessionEnded)] == ["quit"] * 3

    async def test_tls_by_command(self) -> None:
        """STARTTLS and STLS, the certificate verified, where no password is taken in the clear."""
        smtp, pop3 = await self.smtp(), await self.pop3(plaintext_login=False)

        def start_smtp() -> smtplib.SMTP:
            client = smtplib.SMTP(HOST, smtp, timeout=20)
            client.starttls(context=self.trusting)
            return client

        def start_pop3() -> poplib.POP3:
            client = poplib.POP3(HOST, pop3, timeout=20)
            client.stls(context=self.trusting)
            return client

        await self.walk(start_smtp, start_pop3)
        assert all(event.client.tls.version == "TLSv1.3" for event in self.happened(SessionEnded))

    async def test_implicit_tls(self) -> None:
        """TLS from the first octet, on both sides, with a login to send."""
        smtp = await self.smtp(implicit_tls=True, protocol="submission", auth=True)
        pop3 = await self.pop3(implicit_tls=True, plaintext_login=False)

        def start_smtp() -> smtplib.SMTP:
            client = smtplib.SMTP_SSL(HOST, smtp, timeout=20, context=self.trusting)
            client.login(BOB, PASSWORD)
            return client

        await self.walk(start_smtp, lambda: poplib.POP3_SSL(HOST, pop3, timeout=20, context=self.trusting))

    async def test_thousands_of_pipelined_commands(self) -> None:
        """All in one go: every reply comes, in order."""
        pop3 = await self.pop3()
        await self.deliver(MESSAGES[:1])
        rounds = 2000

        def visit() -> bytes:
            with plain_socket(pop3) as connection:
                connection.sendall(LOGIN)
                read_until(connection, LOGGED_IN)
                connection.sendall(b"NOOP\r\nLIST 1\r\nUIDL\r\nRETR 1\r\nTOP 1 0\r\n" * rounds + b"QUIT\r\n")
                return read_until(connection, GOODBYE)

        said = await deferToThread(visit)
        one_round = said[: len(said) // rounds]
        assert one_round.count(b"\r\n.\r\n") == 3
        assert said == one_round * rounds + GOODBYE
        await self.all_gone()
        assert len(self.happened(MessageRetrieved)) == rounds

    async def test_a_client_that_stops_reading(self) -> None:
        """A gigabyte was asked for: no more leaves than sockets hold.  When the client goes on, nothing is missing."""
        pop3 = await self.pop3()
        await self.deliver(MESSAGES[-1:])
        connection = plain_socket(pop3)
        connection.sendall(LOGIN + b"RETR 1\r\n")
        said = await deferToThread(read_until, connection, b"\r\n.\r\n")
        reply_octets = len(said.partition(LOGGED_IN)[2])
        connection.sendall(b"RETR 1\r\n" * 800)
        first = await self.standstill()
        assert reply_octets < first < SOCKETS_OCTETS
        said = await deferToThread(read_exactly, connection, 12 * reply_octets)
        assert said == said[:reply_octets] * 12
        assert said.endswith(MESSAGES[-1].replace(b"\r\n.", b"\r\n..") + b".\r\n")
        assert await self.standstill() - len(said) < SOCKETS_OCTETS
        cut(connection)
        await self.all_gone()
        assert len(await self.fetched(pop3)) == 1

    async def test_a_client_that_only_talks(self) -> None:
        """Commands without end, no reply read: at some point no more is taken from it."""
        connection = plain_socket(await self.pop3())
        connection.sendall(LOGIN)
        await deferToThread(read_until, connection, LOGGED_IN)

        def talk() -> int:
            connection.settimeout(1)
            said = 0
            try:
                while said < SOCKETS_OCTETS:
                    said += connection.send(b"NOOP\r\n" * 10_000)
            except TimeoutError:
                return said
            return said

        assert await deferToThread(talk) < SOCKETS_OCTETS
        cut(connection)
        await self.all_gone()
        self.assert_no_trouble()

    async def test_pop3_cut_at_each_command(self) -> None:
        """Whatever the client had said, nothing is removed, and the maildrop is free at once."""
        pop3 = await self.pop3()
        await self.deliver(MESSAGES)
        commands = [
            *LOGIN.splitlines(keepends=True),
            *(b"STAT\r\n", b"LIST\r\n", b"UIDL\r\n", b"DELE 1\r\n", b"TOP 2 1\r\n", b"RETR 5\r\n", b"DELE 5\r\n"),
            b"QUIT\r",
        ]
        for count in range(len(commands) + 1):
            for patient in (False, True):
                await deferToThread(say_and_cut, pop3, commands[:count], patient)
                await self.all_gone()
        assert self.happened(MessagesDeleted) == []
        assert len(await self.fetched(pop3)) == len(MESSAGES)
        await self.all_gone()
        self.assert_no_trouble()

    async def test_pop3_gone_after_quit(self) -> None:
        """A QUIT that was read is carried out, whoever waits for its reply."""
        pop3 = await self.pop3()
        await self.deliver(MESSAGES)

        def visit() -> None:
            with plain_socket(pop3) as connection:
                connection.sendall(LOGIN + b"DELE 1\r\nDELE 3\r\nQUIT\r\n")
                connection.shutdown(socket.SHUT_WR)
                read_until(connection, GOODBYE)

        await deferToThread(visit)
        await self.all_gone()
        assert [len(event.unique_ids) for event in self.happened(MessagesDeleted)] == [2]
        assert len(await self.fetched(pop3)) == len(MESSAGES) - 2

    async def test_smtp_cut_at_each_command(self) -> None:
        """Nothing is in the maildrop before the final dot was read, and nothing of it."""
        smtp, pop3 = await self.smtp(), await self.pop3()
        commands = [
            *(b"EHLO client.example\r\n", b"MAIL FROM:<bob@example.test>\r\n", b"RCPT TO:<ann@example.test>\r\n"),
            *(b"DATA\r\n", b"Subject: half\r\n\r\n", b"x" * 200_000, b"\r\n.", b"\r"),
        ]
        for count in range(len(commands) + 1):
            for patient in (False, True):
                await deferToThread(say_and_cut, smtp, commands[:count], patient)
                await self.all_gone()
        assert self.happened(MessageAccepted) == []
        assert await self.fetched(pop3) == []
        self.assert_no_trouble()

    async def test_passwords_of_any_octets(self) -> None:
        """What nobody's password can be is a wrong one, and nobody's name an unknown one; nothing of it is a bug."""
        pop3 = await self.pop3()
        names = [ANN.encode(), b"nobody", b"@", b"a@b@c", b"ann@", "ännchen@example.test".encode(), b" ", b"x" * 255]
        passwords = [b"", b"\xff\xfe", b"\0", b" ", b"x" * 10_000, "\u0301".encode(), b"\x7f\t"]

        def visit(name: bytes, password: bytes) -> bytes:
            with plain_socket(pop3) as connection:
                connection.recv(1000)
                connection.sendall(b"USER " + name + b"\r\nPASS " + password + b"\r\n")
                return read_until(connection, b"password\r\n")

        pairs = [(name, b"guessed") for name in names] + [(names[0], password) for password in passwords]
        for name, password in pairs:
            assert (await deferToThread(visit, name, password)).endswith(
                b"\r\n-ERR [AUTH] unknown account or wrong password\r\n"
            )
        await self.all_gone()
        self.assert_no_trouble()

    async def test_one_session_at_a_time(self) -> None:
        """A second one hears that the maildrop is in use, waits no longer than it should, and is let in afterwards."""
        pop3 = await self.pop3()
        await self.deliver(MESSAGES[:1])
        first = plain_socket(pop3)
        first.sendall(LOGIN)
        await deferToThread(read_until, first, LOGGED_IN)

        def second() -> bytes:
            with plain_socket(pop3) as connection:
                connection.sendall(LOGIN)
                return read_until(connection, b"maildrop\r\n")

        assert b"-ERR [IN-USE] " in await deferToThread(second)
        cut(first)
        assert len(await self.fetched(pop3)) == 1


class LogWalkTests(WalkTests):
    """The same over the log spool."""

    def make_spool(self) -> ISpool:
        return LogSpool(os.path.join(self.directory, "spool"), reactor=CLOCK, observer=self.events.append)

    async def test_mail_outlives_its_host(self) -> None:
        """What was accepted before a stop is there after the next start."""
        await self.deliver(MESSAGES)
        await self.all_gone()
        await self.spool.stop()
        self.spool = self.make_spool()
        await self.spool.start()
        self.portal = self.make_portal()
        fetched = await self.fetched(await self.pop3())
        for sent, came in zip(MESSAGES, fetched, strict=True):
            self.assert_came_back(sent, came)
