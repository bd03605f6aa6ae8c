"""
Drives one session, whatever its protocol, on one of Twisted's transports.

The session knows the protocol and no transport: `next_step` takes a command, a block of content or a SASL response off what is
unread and gives the coroutine that answers it.  The conversation runs one such step at a time, writes replies in order, waits when
the client does not read, stops reading when too much is unread, and keeps the clocks.

A conversation is in one of these states:

    handshaking    TLS is being set up; nothing was said yet or all that was said is forgotten
    waiting        for the client; the clock of the session's present phase runs
    in a step      a command is in hand; our own limit for it runs, the client's clock stands still
    client slow    the transport has taken all it can hold; the clock for progress runs
    closing        the last reply is on its way; a client that does not take it is cut off after a while
    lost           the connection is gone; a step that must not be cut short may still be under way

Coroutines are driven by hand: one that never waits costs half a microsecond and no Deferred.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLServerConnectionCreator,
    IPushProducer,
    IReactorTime,
)
from twisted.internet.protocol import Protocol as TwistedProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from mailhost.envelope import TLS
from mailhost.limits import Limits
from mailhost.octets import Unread
from mailhost.refusal import TookTooLong
from mailhost.wire.at_once import send_at_once
from mailhost.wire.progress import unacknowledged

# Steps taken before other connections get their turn: at a few microseconds each this stays near a millisecond.
_STEPS_PER_TURN = 100
# Replies gathered before they go to the transport, so that a thousand pipelined LISTs are not held in memory.
_GATHERED_OCTETS = 64 * 1024
# How late a limit may be noticed.  A wake-up this rare costs nothing, even for ten thousand idle connections.
_LOOK_SECONDS = 5.0


class Then(enum.Enum):
    """What happens after a reply."""

    GO_ON = "go on"
    CLOSE = "close the connection"
    START_TLS = "start TLS"


class Reply(Protocol):
    """What a step returns; content blocks have none and return None."""

    @property
    def octets(self) -> bytes: ...

    @property
    def then(self) -> Then: ...


Step = Coroutine[Any, Any, "Reply | None"]


class Session(Protocol):
    """What a conversation asks of a session.  No method raises; steps raise only for bugs and when they are cancelled."""

    @property
    def patience_seconds(self) -> float:
        """How long the client may be silent in the present phase."""

    @property
    def step_seconds(self) -> float:
        """How long the present step may take; then it is cancelled with TookTooLong, or not answered if it must not be cut."""

    @property
    def may_be_cut(self) -> bool:
        """False from the end of content, or QUIT, to the outcome: what is under way then is never cancelled."""

    @property
    def between_commands(self) -> bool:
        """Whether the session could end now without anything half done: no content or SASL exchange is under way."""

    def greeting(self) -> Step:
        """The first step."""

    def next_step(self, unread: Unread) -> Step | None:
        """The next step, with what it needs taken off `unread`; None while there is not enough yet."""

    def bug(self, failure: BaseException) -> Reply:
        """The reply to a step that raised something unforeseen, which is reported."""

    def injected(self) -> Reply:
        """The reply when octets followed the command that starts TLS (RFC 3207 4.2, CVE-2011-0411)."""

    def timed_out(self) -> bytes:
        """What a client hears that was silent for too long; may be nothing."""

    def draining(self) -> bytes:
        """What a client hears when the service ends; may be nothing."""

    def tls_started(self) -> None:
        """Forget all that was learned; the handshake begins."""

    def tls_established(self, tls: TLS) -> None:
        """The handshake is done."""

    def ended(self, why: str) -> None:
        """The connection is gone and no step is under way: abort, log out.  Called once, the last call of all."""


class Output(Protocol):
    """Where a step writes what is too much for one reply."""

    def write(self, octets: bytes) -> Deferred[None] | None:
        """Octets ahead of the step's reply.  @return: None to go on at once, or a Deferred that fires when there is room."""

    def end(self, octets: bytes) -> None:
        """Say this and close, of the session's own accord; nothing while a step is under way."""

    @property
    def silent_seconds(self) -> float:
        """How long the client has neither said nor taken anything; 0 while a step is under way."""

    @property
    def octets_in(self) -> int: ...

    @property
    def octets_out(self) -> int: ...


class Transport(Protocol):
    """What we use of Twisted's TCP, UNIX and TLS transports; ITransport lacks half of it."""

    def write(self, data: bytes) -> None: ...
    def writeSequence(self, data: list[bytes]) -> None: ...
    def loseConnection(self) -> None: ...
    def abortConnection(self) -> None: ...
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def registerProducer(self, producer: object, streaming: bool) -> None: ...
    def unregisterProducer(self) -> None: ...
    def startTLS(self, contextFactory: IOpenSSLServerConnectionCreator) -> None: ...
    def setTcpNoDelay(self, enabled: bool) -> None: ...
    def setTcpKeepAlive(self, enabled: bool) -> None: ...
    def getPeer(self) -> IAddress: ...
    def getHandle(self) -> Any: ...


class Owner(Protocol):
    """The factory that made a conversation and that knows which ones are open."""

    draining: bool

    def opened(self, conversation: Conversation) -> None: ...

    def closed(self, conversation: Conversation) -> None: ...


@implementer(IPushProducer, IHalfCloseableProtocol, IHandshakeListener)
class Conversation(TwistedProtocol):
    """One session on one connection."""

    transport: Any

    def __init__(
        self,
        build_session: Callable[[Output, IAddress], Session],
        *,
        owner: Owner,
        clock: IReactorTime,
        limits: Limits,
        tls: IOpenSSLServerConnectionCreator | None = None,
        implicit_tls: bool = False,
    ) -> None:
        """
        @param build_session: called when the connection is made.
        @param tls: for STARTTLS and STLS; None where TLS is not offered or is implicit.
        @param implicit_tls: TLS lies under this conversation from its first octet: the greeting waits for the handshake.
        """
        self._build_session = build_session
        self._owner = owner
        self._clock = clock
        self._limits = limits
        self._tls = tls
        self._handshaking = implicit_tls

        self._unread = Unread()
        self._out: list[bytes] = []
        self._gathered = 0
        self.octets_in = 0
        self.octets_out = 0

        self._step: Step | None = None
        self._waiting_on: Deferred[Any] | None = None
        self._room: Deferred[None] | None = None  # what a step waits on that wrote more than the client takes
        self._overdue = False  # the step under way was cancelled because its time was up
        self._in_loop = False
        self._reading = True
        self._client_slow = False
        self._input_ended = False
        self._closing = False
        self._lost = False
        self._why = "lost"

        self._timer: IDelayedCall | None = None
        self._held = 0  # what a slow client had not taken at the last look
        self._since = 0.0  # when the present waiting, step or slowness began
        self._later: IDelayedCall | None = None  # the rest of many pipelined commands

    # -- what Twisted calls

    def connectionMade(self) -> None:
        # The session does not begin before the handshake is over (`handshakeCompleted`), so that it knows its TLS.
        transport = cast(Transport, self.transport)
        if hasattr(transport, "setTcpNoDelay"):  # UNIX sockets have neither
            transport.setTcpNoDelay(True)
            transport.setTcpKeepAlive(True)
        transport.registerProducer(self, True)
        self._owner.opened(self)
        self._session = self._build_session(self, transport.getPeer())
        self._since = self._clock.seconds()
        self._look_again(self._session.patience_seconds)
        if not self._handshaking:
            self._greet()

    def dataReceived(self, data: bytes) -> None:
        self.octets_in += len(data)
        if not self._closing:
            self._unread.append(data)
            self._go_on()

    def handshakeCompleted(self) -> None:
        handle = self.transport.getHandle()
        established = TLS(
            handle.get_protocol_version_name(), handle.get_cipher_name() or "", handle.get_cipher_bits() or 0
        )
        self._session.tls_established(established)
        if self._handshaking:
            self._handshaking = False
            self._greet()

    def readConnectionLost(self) -> None:
        self._input_ended = True
        self._go_on()

    def writeConnectionLost(self) -> None:
        pass  # connectionLost follows when there is anything more to send

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._lost = self._closing = True
        self._stop_clocks()
        self._owner.closed(self)
        if self._step is not None and self._session.may_be_cut:
            self._cancel_step()
        if self._step is None:
            self._end()

    def pauseProducing(self) -> None:
        self._client_slow = True
        self._since = self._clock.seconds()

    def resumeProducing(self) -> None:
        self._client_slow = False
        self._since = self._clock.seconds()
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)
        self._go_on()

    def stopProducing(self) -> None:
        pass  # connectionLost follows

    # -- what a session calls

    def write(self, octets: bytes) -> Deferred[None] | None:
        """Output.write"""
        if self._closing:
            return None
        self._out.append(octets)
        self._gathered += len(octets)
        if self._gathered < _GATHERED_OCTETS:
            return None
        self._flush()
        if not self._client_slow:
            return None
        self._room = Deferred(_forget)
        return self._room

    def end(self, octets: bytes) -> None:
        """Output.end"""
        if not self._closing and self._step is None:
            self._why = "closed"
            self._say_and_close(octets)

    @property
    def silent_seconds(self) -> float:
        """Output.silent_seconds"""
        if self._step is not None:
            return 0.0
        self._note_progress()
        return self._clock.seconds() - self._since

    # -- what the factory calls

    def drain(self) -> None:
        """End at the next command boundary."""
        if not self._closing and self._step is None and self._session.between_commands:
            self._why = "draining"
            self._say_and_close(self._session.draining())

    def abort(self) -> None:
        """Cut the connection; a step that must not be cut short goes on without it."""
        if not self._lost:
            self._closing = True
            self._why = "draining"
            self.transport.abortConnection()

    # -- the loop

    def _greet(self) -> None:
        self._begin(self._session.greeting())
        self._go_on()

    def _go_on(self) -> None:
        """Take steps until one waits, the client is slow, or there is nothing more to take."""
        if self._in_loop or self._handshaking:
            return
        self._in_loop = True
        steps = 0
        while self._step is None and not self._client_slow and not self._closing:
            step = self._session.next_step(self._unread)
            if step is None:
                break
            self._begin(step)
            steps += 1
            if steps == _STEPS_PER_TURN and self._unread.octets:
                self._take_up_later()
                break
        self._in_loop = False
        self._flush()
        if self._lost:
            if self._step is None:
                self._end()
        elif not self._closing:
            self._after_steps()

    def _after_steps(self) -> None:
        if self._step is None and self._owner.draining:
            self.drain()
        elif self._input_ended and self._step is None and not self._client_slow and self._later is None:
            self._close()
        else:
            self._read_or_not()

    def _read_or_not(self) -> None:
        """Reading pauses only while more is unread than we want to hold and nothing can be taken of it."""
        held = self._step is not None or self._client_slow or self._later is not None
        reading = not (held and self._unread.octets > self._limits.unread_octets)
        if reading != self._reading:
            self._reading = reading
            if reading:
                self.transport.resumeProducing()
            else:
                self.transport.pauseProducing()

    def _take_up_later(self) -> None:
        if self._later is None:
            self._later = self._clock.callLater(0, self._take_up)

    def _take_up(self) -> None:
        self._later = None
        self._go_on()

    # -- one step

    def _begin(self, step: Step) -> None:
        self._since = self._clock.seconds()
        self._drive(step, None)

    def _drive(self, step: Step, failure: BaseException | None) -> None:
        """Run a step until it ends or waits."""
        try:
            waiting_on = step.send(None) if failure is None else step.throw(failure)
        except StopIteration as done:
            self._step_ended(done.value)
        except CancelledError as cancelled:
            self._step_ended(None if self._lost else self._session.bug(cancelled))
        except Exception as bug:
            self._step_ended(self._session.bug(bug))
        else:
            self._step = step
            self._waiting_on = waiting_on
            waiting_on.addBoth(self._answered, step)

    def _answered(self, result: object, step: Step) -> None:
        """What a step waited on has come."""
        self._waiting_on = None
        failure = result.value if isinstance(result, Failure) else None
        if self._overdue and isinstance(failure, CancelledError):
            failure = TookTooLong()
        self._overdue = False
        self._drive(step, failure)
        if self._waiting_on is None:
            self._go_on()

    def _step_ended(self, reply: Reply | None) -> None:
        self._step = None
        self._since = self._clock.seconds()
        if reply is None or self._closing:
            return  # a block of content; or nobody is left to hear
        if reply.then is Then.START_TLS and self._unread.octets:
            reply = self._session.injected()
        octets = reply.octets
        self._out.append(octets)
        self._gathered += len(octets)
        if reply.then is not Then.GO_ON:
            if reply.then is Then.CLOSE:
                self._why = "closed"
                self._close()
            else:
                self._start_tls()
        elif self._gathered >= _GATHERED_OCTETS:
            self._flush()

    def _start_tls(self) -> None:
        assert self._tls is not None
        self._flush()
        self._session.tls_started()
        self.transport.startTLS(self._tls)

    # -- writing and closing

    def _flush(self) -> None:
        out = self._out
        if not out:
            return
        self._out = []
        self.octets_out += self._gathered
        self._gathered = 0
        if self._lost:
            return
        left = send_at_once(self.transport, out[0] if len(out) == 1 else b"".join(out))
        if left:
            self.transport.write(left)

    def _say_and_close(self, octets: bytes) -> None:
        self._out.append(octets)
        self._gathered += len(octets)
        self._close()

    def _close(self) -> None:
        """Send what is left, then close; a client that does not take it is cut off."""
        self._flush()
        self._closing = True
        self._unread.clear()
        self._stop_clocks()
        if not self._reading:
            self.transport.resumeProducing()  # or the end of the connection would not be seen
        # Under TLS a connection with a producer registered never closes.
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        self._cut_off_if_stuck(None)

    def _cut_off_if_stuck(self, held_before: int | None) -> None:
        """Look again until the connection is closed, or the client has taken nothing since the last look."""
        held = unacknowledged(self.transport)
        if held == held_before:
            self.transport.abortConnection()
        else:
            self._timer = self._clock.callLater(self._limits.close_seconds, self._cut_off_if_stuck, held)

    def _end(self) -> None:
        session_ended, self._session_ended = self._session_ended, True
        if not session_ended:
            self._session.ended(self._why)

    _session_ended = False

    # -- clocks

    def _time_is_up(self) -> None:
        """
        The one timer of a conversation: it looks how long the present state has lasted, and comes again if that is not too long.

        Nothing is set or cancelled per command; that would cost more than the command.
        """
        self._timer = None
        if self._client_slow or self._step is None:
            self._note_progress()
        limit = self._present_limit()
        left = self._since + limit - self._clock.seconds()
        if left > 0:
            self._look_again(min(left, limit))  # a wall clock set back must not stretch it
        elif self._client_slow:
            self._why = "timeout"
            self.transport.abortConnection()
        elif self._step is not None:
            self._step_is_overdue(limit)
        else:
            self._why = "timeout"
            self._say_and_close(self._session.timed_out())

    def _look_again(self, seconds: float) -> None:
        self._timer = self._clock.callLater(min(seconds, _LOOK_SECONDS), self._time_is_up)

    def _note_progress(self) -> None:
        """A client that takes octets, if only a few, is slow and not gone."""
        held = unacknowledged(self.transport)
        if held != self._held:
            self._held = held
            self._since = self._clock.seconds()

    def _present_limit(self) -> float:
        if self._client_slow:
            return self._limits.write_seconds
        if self._step is not None:
            return self._session.step_seconds
        return self._session.patience_seconds

    def _step_is_overdue(self, limit: float) -> None:
        if self._session.may_be_cut:
            self._since = self._clock.seconds()
            self._look_again(limit)
            self._overdue = True
            self._cancel_step()
        else:
            # Its outcome is unknown, so no reply would be true (design: never a reply on an unknown outcome).
            self._why = "timeout"
            self.transport.abortConnection()

    def _cancel_step(self) -> None:
        waiting_on = self._waiting_on
        if waiting_on is not None:
            waiting_on.cancel()

    def _stop_clocks(self) -> None:
        for call in (self._timer, self._later):
            if call is not None and call.active():
                call.cancel()
        self._timer = self._later = None


def _forget(room: Deferred[None]) -> None:
    """Cancelled while waiting for room: the default errback of CancelledError is what the step sees."""
