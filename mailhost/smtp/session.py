"""
One SMTP conversation, with no transport in sight (RFC 5321 4.1.4): from commands to replies.

What a command's argument means is `grammar`'s and `extensions`', what is said is in `replies`, and content goes to `content`.  This
is the order of things: which command may come when, what it changes, and what becomes of what it began when the client goes away.

Steps are coroutines.  While one waits the connection may be lost: then it is cancelled, unless it stands between the end of data
and the commit's outcome, and `ended` is called behind it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, NamedTuple

from twisted.cred.credentials import Anonymous

from mailhost import sasl
from mailhost.envelope import TLS, Client, Outcome, Path
from mailhost.events import Bug, MessageAccepted, MessageRefused, SessionEnded
from mailhost.interfaces import IDelivery, ILoggedIn
from mailhost.octets import BareLineFeed, LineTooLong, Unread
from mailhost.refusal import (
    LoginRequired,
    LoginUnavailable,
    Refusal,
    TemporaryRefusal,
    TookTooLong,
    TooManyForwardPaths,
)
from mailhost.smtp import extensions, grammar, replies
from mailhost.smtp.content import BareLineEnd, Content
from mailhost.smtp.listener import Listener
from mailhost.smtp.replies import Reply
from mailhost.smtp.transaction import Transaction
from mailhost.wire.conversation import Output, Step, Then

# Senders of bare line feeds will often never send CRLF.CRLF, since they take LF.LF for the end and wait for the reply.
_BARE_SECONDS = 10.0


class State(enum.Enum):
    """What may come next depends on this (RFC 5321 4.1.4)."""

    START = "no EHLO or HELO yet"
    READY = "client identified, no transaction open"
    REFUSED = "as READY, behind a MAIL that was refused: what was pipelined with it is no mistake"
    MAIL = "reverse-path accepted"
    RCPT = "at least one forward-path accepted"


# Tuples, since they are searched by identity: a set would call the enumeration's hash for each command.
_ANY = tuple(State)
_NO_TRANSACTION = (State.READY, State.REFUSED)
_TRANSACTION = (State.MAIL, State.RCPT)

_START, _READY, _REFUSED, _MAIL, _RCPT = State


class Command(NamedTuple):
    """What is true of one command, whoever sends it."""

    run: Callable[[Any, bytes], Coroutine[Any, Any, Reply]]
    """A method of the session."""
    allowed_in: tuple[State, ...]
    takes_argument: bool = False
    may_be_long: bool = False
    """Whether its line has AUTH's limit (RFC 4954 4)."""
    stage: str = ""
    """What `MessageRefused` calls it; empty where nothing of a message is refused."""


class Session:
    """See the module."""

    __slots__ = (
        "_began",
        "_errors",
        "_exchange",
        "_listener",
        "_logged_in",
        "_messages",
        "_out",
        "_state",
        "_transaction",
        "_why",
        "client",
        "may_be_cut",
    )

    # What LMTP says in other words.
    _HELLO_FIRST: ClassVar[Reply] = replies.EHLO_FIRST
    _HELP: ClassVar[Reply] = replies.HELP

    def __init__(self, out: Output, client: Client, listener: Listener) -> None:
        self.client = client
        self.may_be_cut = True
        self._out = out
        self._listener = listener
        self._state = _START
        self._logged_in: ILoggedIn | None = None
        self._exchange: sasl.Exchange | None = None
        self._transaction: Transaction | None = None
        self._errors = 0
        self._messages = 0
        self._began = listener.clock.seconds()
        self._why = ""

    # -- what a conversation asks

    @property
    def patience_seconds(self) -> float:
        content = self._content
        if content is None:
            return self._listener.limits.command_seconds
        if isinstance(content.refusal, BareLineEnd):
            return _BARE_SECONDS
        return self._listener.limits.content_seconds

    @property
    def step_seconds(self) -> float:
        limits = self._listener.limits
        return limits.lookup_seconds if self.may_be_cut and self._content is None else limits.commit_seconds

    @property
    def between_commands(self) -> bool:
        return self._content is None and self._exchange is None

    @property
    def _content(self) -> Content | None:
        return self._transaction.content if self._transaction is not None else None

    async def greeting(self) -> Reply:
        return self._listener.replies.greeting

    def next_step(self, unread: Unread) -> Step | None:
        transaction = self._transaction
        if transaction is not None and transaction.content is not None:
            return self._take_content(transaction, transaction.content, unread) if unread.octets else None
        try:
            line = unread.take_line(self._listener.longest_line)
        except LineTooLong:
            return self._line_too_long()
        except BareLineFeed:
            return self._bare_line_feed()
        if line is None:
            return None
        return self.answer(line) if self._exchange is None else self._respond(line)

    def bug(self, failure: BaseException) -> Reply:
        self._listener.observer(Bug("smtp", failure, self.client))
        if self._content is None:
            return self._negative(replies.BUG)
        self._drop_transaction()
        self._why = "bug"
        return self._negative(replies.BUG_IN_CONTENT)

    def injected(self) -> Reply:
        self._why = "injected"
        return self._negative(replies.INJECTED)

    def timed_out(self) -> bytes:
        transaction = self._transaction
        if transaction is not None and transaction.content is not None and transaction.content.refusal is not None:
            return self._not_taken(transaction.content.refusal, transaction).octets
        return self._negative(self._listener.replies.timed_out).octets

    def draining(self) -> bytes:
        return self._negative(self._listener.replies.draining).octets

    def tls_started(self) -> None:
        self._drop_transaction()
        self._log_out()
        self._state = _START
        self.client = self.client._replace(helo="", extended=False, account=None)

    def tls_established(self, tls: TLS) -> None:
        self.client = self.client._replace(tls=tls)

    def ended(self, why: str) -> None:
        self._drop_transaction()
        self._log_out()
        seconds = self._listener.clock.seconds() - self._began
        why = self._why if why == "closed" else why
        out = self._out
        self._listener.observer(SessionEnded(self.client, seconds, why, self._messages, out.octets_in, out.octets_out))

    # -- commands

    async def answer(self, line: bytes) -> Reply:
        """One command line, without its CRLF."""
        verb, _, argument = line.partition(b" ")
        command = self._COMMANDS.get(verb.upper())
        if command is None:
            return self._negative(replies.UNKNOWN_COMMAND if line else replies.EMPTY_COMMAND)
        if self._state not in command.allowed_in:
            reply = self._out_of_order(command)
        elif argument and not command.takes_argument and argument.strip(b" \t"):
            reply = replies.NO_ARGUMENT
        elif len(line) + 2 > self._listener.limits.command_line_octets and not command.may_be_long:
            reply = replies.LINE_TOO_LONG
        else:
            try:
                reply = await command.run(self, argument)
            except Refusal as refusal:
                reply = self._refuse(command.stage, refusal, self._transaction)
        return reply if reply.octets < b"4" else self._negative(reply)

    async def _ehlo(self, argument: bytes) -> Reply:
        self._hello(argument, extended=True)
        return self._listener.replies.ehlo(extensions.offered(self._listener, self.client))

    async def _helo(self, argument: bytes) -> Reply:
        self._hello(argument, extended=False)
        return self._listener.replies.helo

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        """RFC 5321 4.1.4: a second one is a RSET too, and one that is refused changes nothing."""
        helo = grammar.helo(argument)
        self._drop_transaction()
        self._state = _READY
        self.client = self.client._replace(helo=helo, extended=extended)

    async def _mail(self, argument: bytes) -> Reply:
        self._state = _REFUSED  # until it is taken
        reverse_path, parameters = grammar.mail(argument)
        if self._listener.auth and self._logged_in is None:
            return replies.LOGIN_FIRST if self._listener.protects(self.client) else replies.TLS_FIRST
        if parameters:
            extensions.check_mail_parameters(parameters, self._listener)
        if self._logged_in is None:
            self._logged_in = await self._anonymous()
        since = self._listener.clock.seconds()
        delivery: IDelivery = self._logged_in.avatar
        try:
            taken = await delivery.transaction(self.client, reverse_path, parameters)
        except Refusal as refusal:
            return self._refuse("MAIL", refusal, None, reverse_path)
        self._transaction = Transaction(taken, reverse_path, since)
        self._state = _MAIL
        return replies.MAIL_OK

    async def _anonymous(self) -> ILoggedIn:
        """The listener, not the client, decides that this is tried; once for a session."""
        try:
            return await self._listener.login.log_in(Anonymous(), self.client)
        except TemporaryRefusal:
            raise
        except Refusal as refusal:
            raise LoginRequired(cause=refusal) from refusal

    async def _rcpt(self, argument: bytes) -> Reply:
        transaction = self._transaction
        assert transaction is not None
        forward_path, parameters = grammar.rcpt(argument)
        if parameters:
            extensions.check_rcpt_parameters(parameters)
        try:
            if transaction.asked >= self._listener.limits.recipients:
                raise TooManyForwardPaths
            transaction.asked += 1
            await transaction.taken.recipient(forward_path, parameters)
        except Refusal as refusal:
            transaction.refused(refusal)
            return self._refuse("RCPT", refusal, transaction, forward_path=forward_path)
        transaction.forward_paths.append(forward_path)
        self._state = _RCPT
        return replies.RCPT_OK

    async def _data(self, argument: bytes) -> Reply:
        transaction = self._transaction
        assert transaction is not None
        if not transaction.forward_paths:
            return transaction.without_forward_paths
        try:
            staged = await transaction.taken.content()
        except Refusal as refusal:
            self._drop_transaction()
            return self._refuse("DATA", refusal, transaction)
        except BaseException:
            self._drop_transaction()
            raise
        transaction.content = Content(staged, self._listener.limits)
        return replies.START_MAIL_INPUT

    async def _rset(self, argument: bytes) -> Reply:
        self._drop_transaction()
        return replies.RESET

    async def _noop(self, argument: bytes) -> Reply:
        return replies.NOOP

    async def _vrfy(self, argument: bytes) -> Reply:
        """RFC 5321 3.5.3 and 7.3: who lives here is told to those who have mail for them."""
        if not argument.strip():
            raise grammar.BadSyntax("VRFY name")
        return replies.CANNOT_VERIFY

    async def _help(self, argument: bytes) -> Reply:
        return self._HELP

    async def _not_implemented(self, argument: bytes) -> Reply:
        return replies.NOT_IMPLEMENTED

    async def _quit(self, argument: bytes) -> Reply:
        self._why = "quit"
        return self._listener.replies.goodbye

    async def _starttls(self, argument: bytes) -> Reply:
        """RFC 3207 4.  What is forgotten is forgotten in `tls_started`, when nothing was injected."""
        if not self._listener.starttls:
            return replies.TLS_ALREADY if self.client.tls is not None else replies.NOT_IMPLEMENTED
        return replies.START_TLS if self.client.tls is None else replies.TLS_ALREADY

    # -- content

    async def _take_content(self, transaction: Transaction, content: Content, unread: Unread) -> Reply | None:
        """A block of content, or the last one and the reply to the message."""
        room = content.feed(unread.take())
        if content.rest is None:
            if room is not None:
                try:
                    await room
                except TookTooLong as refusal:
                    content.refuse(refusal)  # and said at the end of data, where the client listens
            return None
        unread.put_back(content.rest)
        self._transaction = None
        self._state = _READY
        if content.refusal is not None:
            return self._not_taken(content.refusal, transaction)
        self.may_be_cut = False
        try:
            if room is not None:
                await room
            outcome = await content.staged.commit()
        except Refusal as refusal:
            return self._not_taken(refusal, transaction)
        finally:
            self.may_be_cut = True
        return self._committed(transaction, outcome, content.octets)

    def _not_taken(self, refusal: Refusal, transaction: Transaction) -> Reply:
        """The reply to a message that nobody gets."""
        return self._negative(self._refuse("content", refusal, transaction))

    def _committed(self, transaction: Transaction, outcome: Outcome, octets: int) -> Reply:
        """The reply to a message that was committed, if not for all."""
        if outcome.refused:
            return self._not_taken(_worst(outcome), transaction)
        self._accept(transaction, outcome, octets, tuple(transaction.forward_paths))
        return replies.accepted(outcome.unique_id)

    def _accept(self, transaction: Transaction, outcome: Outcome, octets: int, forward_paths: tuple[Path, ...]) -> None:
        """Count and report a message that is durable for these."""
        self._messages += 1
        seconds = self._listener.clock.seconds() - transaction.since
        self._listener.observer(
            MessageAccepted(self.client, outcome.unique_id, transaction.reverse_path, forward_paths, octets, seconds)
        )

    # -- AUTH (RFC 4954)

    async def _auth(self, argument: bytes) -> Reply:
        if not self._listener.auth:
            return replies.NOT_IMPLEMENTED
        if self._logged_in is not None:
            return replies.LOGGED_IN_ALREADY
        mechanism, _, initial = argument.strip(b" \t").partition(b" ")
        if not mechanism:
            return replies.AUTH_SYNTAX
        exchange = sasl.begin(mechanism)
        refused = self._unusable(mechanism)
        if refused is not None or exchange is None:
            return refused or replies.UNKNOWN_MECHANISM
        return await self._exchanged(exchange, sasl.decode(initial) if initial else None)

    def _unusable(self, mechanism: bytes) -> Reply | None:
        """Why a mechanism cannot be used on this connection now."""
        mechanisms, name = self._listener.login.mechanisms, mechanism.upper()
        if name in mechanisms(self._listener.protects(self.client)):
            return None
        return replies.ENCRYPTION_REQUIRED if name in mechanisms(True) else replies.UNKNOWN_MECHANISM

    async def _respond(self, line: bytes) -> Reply:
        """A line of an exchange."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if line == b"*":
            return self._negative(replies.AUTH_CANCELLED)
        if len(line) + 2 > self._listener.limits.auth_line_octets:
            return self._negative(replies.AUTH_LINE_TOO_LONG)
        try:
            return await self._exchanged(exchange, sasl.decode(line))
        except Refusal as refusal:
            return self._negative(replies.to_refusal(refusal))

    async def _exchanged(self, exchange: sasl.Exchange, response: bytes | None) -> Reply:
        answer = exchange.respond(response)
        if isinstance(answer, sasl.Challenge):
            self._exchange = exchange
            return replies.challenge(answer.octets)
        try:
            logged_in = await self._listener.login.log_in(answer, self.client)
        except TookTooLong as refusal:
            raise LoginUnavailable(cause=refusal) from refusal
        self._logged_in = logged_in
        self.client = self.client._replace(account=logged_in.account)
        return replies.LOGGED_IN

    # -- what goes wrong

    def _out_of_order(self, command: Command) -> Reply:
        state = self._state
        if state is _START:
            return self._HELLO_FIRST
        if state is _READY:
            return replies.MAIL_FIRST
        return replies.MAIL_REFUSED if state is _REFUSED else replies.IN_TRANSACTION

    async def _line_too_long(self) -> Reply:
        exchange, self._exchange = self._exchange, None
        return self._negative(replies.LINE_TOO_LONG if exchange is None else replies.AUTH_LINE_TOO_LONG)

    async def _bare_line_feed(self) -> Reply:
        self._why = "bare line feed"
        return self._negative(replies.BARE_LINE_FEED)

    def _refuse(
        self,
        stage: str,
        refusal: Refusal,
        transaction: Transaction | None,
        reverse_path: Path | None = None,
        forward_path: Path | None = None,
    ) -> Reply:
        """
        @param stage: empty when it is no message that is refused.
        """
        reply = replies.to_refusal(refusal)
        if reply.then is Then.CLOSE:
            self._why = "refused"
        if stage:
            if transaction is not None:
                reverse_path = transaction.reverse_path
            event = MessageRefused(self.client, stage, reverse_path, forward_path, reply.said, refusal.cause)
            self._listener.observer(event)
        return reply

    def _negative(self, reply: Reply) -> Reply:
        """A negative reply as it is given: a mistake is counted, and may be one too many; the session is named."""
        if reply.counted:
            self._errors += 1
            if self._errors >= self._listener.limits.errors:
                self._why = "errors"
                reply = self._listener.replies.too_many_errors
        return replies.signed(reply, self.client.session)

    # -- what ends

    def _drop_transaction(self) -> None:
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()
        if self._state is not _START:
            self._state = _READY

    def _log_out(self) -> None:
        logged_in, self._logged_in = self._logged_in, None
        if logged_in is not None:
            logged_in.log_out()

    _COMMANDS: ClassVar[Mapping[bytes, Command]] = {
        b"EHLO": Command(_ehlo, _ANY, takes_argument=True),
        b"HELO": Command(_helo, _ANY, takes_argument=True),
        b"STARTTLS": Command(_starttls, _ANY),
        b"AUTH": Command(_auth, _NO_TRANSACTION, takes_argument=True, may_be_long=True),
        b"MAIL": Command(_mail, _NO_TRANSACTION, takes_argument=True, stage="MAIL"),
        b"RCPT": Command(_rcpt, _TRANSACTION, takes_argument=True, stage="RCPT"),
        b"DATA": Command(_data, _TRANSACTION, stage="DATA"),
        b"RSET": Command(_rset, _ANY),
        b"NOOP": Command(_noop, _ANY, takes_argument=True),
        b"VRFY": Command(_vrfy, _ANY, takes_argument=True),
        b"HELP": Command(_help, _ANY, takes_argument=True),
        b"QUIT": Command(_quit, _ANY),
        # Known, and not done here.  To ask for one is no mistake.
        **dict.fromkeys(
            (b"EXPN", b"ETRN", b"ATRN", b"TURN", b"SEND", b"SOML", b"SAML"),
            Command(_not_implemented, _ANY, takes_argument=True),
        ),
    }


def _worst(outcome: Outcome) -> Refusal:
    """
    One reply for a message that some got and some did not, which no delivery for SMTP should leave behind.

    Any failure that may pass makes all of it temporary: a second copy is possible then, a loss is not.
    """
    refusals = [as_refusal(why) for why in outcome.refused.values()]
    return next((why for why in refusals if why.temporary), refusals[0])


def as_refusal(why: Exception) -> Refusal:
    """Why one forward-path got nothing; what is no refusal may pass."""
    return why if isinstance(why, Refusal) else TemporaryRefusal(cause=why)
