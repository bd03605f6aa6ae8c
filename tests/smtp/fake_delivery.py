"""A login and a delivery that do as a test tells them, and a client on a transport that no socket is behind."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.cred.credentials import Anonymous
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from zope.interface import implementer

from mailhost.envelope import Client, Outcome, Parameters, Path
from mailhost.interfaces import IDelivery, ILoggedIn, ILogin, IStagedMessage, ITransaction
from mailhost.limits import Limits
from mailhost.refusal import LoginFailed, MaildropFull, NoSuchMaildrop, RelayDenied
from mailhost.smtp.factory import SMTPFactory
from mailhost.testing.transport import FakeTransport

_REFUSAL = re.compile(r"^[45]\d\d .*\r\n", re.MULTILINE)
_SIGNED = re.compile(r"^([45]\d\d .*) \(session [0-9a-f]+\)(?=\r\n)", re.MULTILINE)


class Script:
    """
    How the steps of a delivery go.

    `answers` maps a step's name (`log_in`, `transaction`, `recipient`, `content`, `write`, `commit`) to an exception to raise or a
    Deferred to wait for; a step that is not there succeeds at once.  `done` says what was called, in order.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.done: list[str] = []
        self.messages: list[FakeStaged] = []
        self.minds: list[Client] = []
        self.refused: dict[int, Exception] = {}

    async def step(self, name: str) -> None:
        self.done.append(name)
        answer = self.answers.get(name)
        if isinstance(answer, Deferred):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer

    def count(self, name: str) -> int:
        return self.done.count(name)


@implementer(IStagedMessage)
class FakeStaged:
    """Keeps all that is written."""

    def __init__(self, script: Script, transaction: FakeTransaction) -> None:
        self._script = script
        self.transaction = transaction
        self.unique_id = f"id{len(script.messages) + 1}"
        self.content = b""
        self.end = ""
        script.messages.append(self)

    def write(self, octets: bytes) -> Deferred[None] | None:
        assert not self.end, "written after its end"
        self.content += octets
        answer = self._script.answers.get("write")
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def commit(self) -> Outcome:
        assert not self.end, "ended twice"
        self.end = "commit"
        await self._script.step("commit")
        return Outcome(self.unique_id, self._script.refused)

    def abort(self) -> None:
        assert not self.end, "ended twice"
        self.end = "abort"
        self._script.done.append("staged.abort")


@implementer(ITransaction)
class FakeTransaction:
    """Takes everybody at example.test but `nobody`, and `full`, whose maildrop is."""

    def __init__(self, script: Script, client: Client, reverse_path: Path, parameters: Parameters) -> None:
        self._script = script
        self.client = client
        self.reverse_path = reverse_path
        self.parameters = parameters
        self.forward_paths: list[Path] = []
        self._ended = False

    async def recipient(self, forward_path: Path, parameters: Parameters) -> None:
        await self._script.step("recipient")
        if forward_path.domain not in ("example.test", ""):
            raise RelayDenied
        if forward_path.local_part == "nobody":
            raise NoSuchMaildrop
        if forward_path.local_part == "full":
            raise MaildropFull
        self.forward_paths.append(forward_path)

    async def content(self) -> IStagedMessage:
        await self._script.step("content")
        self._ended = True
        return FakeStaged(self._script, self)

    def abort(self) -> None:
        assert not self._ended, "ended twice"
        self._ended = True
        self._script.done.append("abort")


@implementer(IDelivery)
class FakeDelivery:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def transaction(self, client: Client, reverse_path: Path, parameters: Parameters) -> ITransaction:
        await self._script.step("transaction")
        return FakeTransaction(self._script, client, reverse_path, parameters)


@implementer(ILoggedIn)
class FakeLoggedIn:
    def __init__(self, script: Script, account: bytes | None) -> None:
        self.account = account
        self.avatar = FakeDelivery(script)
        self._script = script

    def log_out(self) -> None:
        self._script.done.append("log_out")


@implementer(ILogin)
class FakeLogin:
    """Knows `ann@example.test` with the password `tapioca`."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def mechanisms(self, protected: bool) -> Sequence[bytes]:
        return (b"PLAIN", b"LOGIN") if protected else ()

    async def log_in(self, credentials: Any, client: Client) -> ILoggedIn:
        self._script.minds.append(client)
        await self._script.step("log_in")
        if isinstance(credentials, Anonymous):
            return FakeLoggedIn(self._script, None)
        if (credentials.username, credentials.password) != (b"ann@example.test", b"tapioca"):
            raise LoginFailed
        return FakeLoggedIn(self._script, credentials.username)


class Dialogue:
    """A client of one listener, from connect to close."""

    def __init__(
        self,
        script: Script | None = None,
        limits: Limits | None = None,
        make: Callable[..., SMTPFactory] = SMTPFactory,
        **settings: Any,
    ) -> None:
        """
        @param make: SMTPFactory or LMTPFactory.
        @param settings: of the factory.
        """
        self.script = script or Script()
        self.clock = Clock()
        self.events: list[Any] = []
        self.factory = make(
            login=FakeLogin(self.script),
            hostname="mx.example.test",
            clock=self.clock,
            limits=limits,
            observer=self.events.append,
            listener="mx",
            **settings,
        )
        protocol = self.factory.buildProtocol(None)
        assert protocol is not None
        self.protocol = protocol
        self.transport = FakeTransport(protocol)

    def say(self, *lines: str) -> str:
        """Send lines, CRLF added, in one write, and return what is heard."""
        return self.send("".join(f"{line}\r\n" for line in lines).encode("utf-8"))

    def send(self, octets: bytes) -> str:
        self.transport.receive(octets)
        return self.hear()

    def hear(self) -> str:
        """What was said, without the session's name, which every refusal must have at its end."""
        self.clock.advance(0)
        heard = self.transport.take().decode("ascii")
        unsigned, count = _SIGNED.subn(r"\1", heard)
        assert count == len(_REFUSAL.findall(heard)), f"a refusal that does not name the session: {heard!r}"
        return unsigned

    def to_rcpt(self) -> None:
        """Open a transaction with one forward-path."""
        self.say("EHLO client.example", "MAIL FROM:<ann@far.example>", "RCPT TO:<bob@example.test>")

    def to_content(self) -> None:
        """As far as 354."""
        self.to_rcpt()
        assert "354" in self.say("DATA")

    def happened(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
