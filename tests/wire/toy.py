"""The smallest protocol that has all a conversation can meet."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from mailhost.envelope import TLS, Client
from mailhost.limits import Limits
from mailhost.octets import Unread
from mailhost.refusal import TookTooLong
from mailhost.testing.transport import FakeTransport
from mailhost.wire.conversation import Conversation, Output, Session, Step, Then
from mailhost.wire.factory import ConversationFactory


class Said(NamedTuple):
    octets: bytes
    then: Then = Then.GO_ON


class Toy:
    """ECHO, WAIT (until the test answers), SAFE (the same, not to be cut), MANY n, TLS, BUG, QUIT; CONTENT n takes n octets."""

    def __init__(self, out: Output, client: Client) -> None:
        self.out = out
        self.client = client
        self.patience_seconds = 300.0
        self.step_seconds = 60.0
        self.may_be_cut = True
        self.waits: list[Deferred[bytes]] = []
        self.happened: list[str] = []
        self.wanted = 0
        self.blocks: list[bytes] = []

    @property
    def between_commands(self) -> bool:
        return not self.wanted

    def greeting(self) -> Step:
        return self._answer(b"hello")

    def next_step(self, unread: Unread) -> Step | None:
        if self.wanted:
            return self._content(unread.take_at_most(self.wanted)) if unread.octets else None
        line = unread.take_line(100)
        return None if line is None else self._command(line)

    async def _answer(self, text: bytes) -> Said:
        return Said(text + b"\r\n")

    async def _content(self, block: bytes) -> Said | None:
        self.blocks.append(block)
        self.wanted -= len(block)
        return None if self.wanted else Said(b"taken\r\n")

    async def _command(self, line: bytes) -> Said:
        verb, _, rest = line.partition(b" ")
        if verb == b"ECHO":
            return Said(rest + b"\r\n")
        if verb in (b"WAIT", b"SAFE"):
            return await self._wait(verb == b"WAIT")
        if verb == b"MANY":
            return await self._many(int(rest))
        if verb == b"CONTENT":
            self.wanted = int(rest)
            return Said(b"go on\r\n")
        if verb == b"TLS":
            return Said(b"ready\r\n", Then.START_TLS)
        if verb == b"QUIT":
            return Said(b"bye\r\n", Then.CLOSE)
        raise ZeroDivisionError("a bug")

    async def _wait(self, may_be_cut: bool) -> Said:
        self.may_be_cut = may_be_cut
        waiting: Deferred[bytes] = Deferred()
        self.waits.append(waiting)
        try:
            return Said(await waiting + b"\r\n")
        except TookTooLong:
            return Said(b"too long\r\n")
        finally:
            self.happened.append("step ended")
            self.may_be_cut = True

    async def _many(self, count: int) -> Said:
        for _ in range(count):
            room = self.out.write(b"x" * 16384)
            if room is not None:
                self.happened.append("waits for room")
                await room
        return Said(b".\r\n")

    def bug(self, failure: BaseException) -> Said:
        self.happened.append(f"bug {type(failure).__name__}")
        return Said(b"sorry\r\n")

    def injected(self) -> Said:
        return Said(b"injected\r\n", Then.CLOSE)

    def timed_out(self) -> bytes:
        return b"too slow\r\n"

    def draining(self) -> bytes:
        return b"going down\r\n"

    def tls_started(self) -> None:
        self.happened.append("tls started")

    def tls_established(self, tls: TLS) -> None:
        self.happened.append(f"tls {tls.version}")

    def ended(self, why: str) -> None:
        self.happened.append(f"ended {why}")


class ToyFactory(ConversationFactory):
    sessions: list[Toy]

    def session(self, out: Output, client: Client) -> Session:
        toy = Toy(out, client)
        self.sessions.append(toy)
        return toy

    def too_many(self) -> bytes:
        return b"too many\r\n"


def toy_factory(clock: Clock, limits: Limits | None = None, **more: object) -> ToyFactory:
    factory = ToyFactory(clock=clock, limits=limits, protocol="toy", listener="toy", **more)  # type: ignore[arg-type]
    factory.sessions = []
    return factory


def converse(clock: Clock, limits: Limits | None = None, **more: object) -> tuple[FakeTransport, Toy, ToyFactory]:
    factory = toy_factory(clock, limits, **more)
    conversation = factory.buildProtocol(None)
    assert isinstance(conversation, Conversation)
    transport = FakeTransport(conversation)
    return transport, factory.sessions[0], factory
