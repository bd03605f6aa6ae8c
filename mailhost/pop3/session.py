"""
One POP3 conversation with no transport in sight (RFC 1939, 2449, 2595, 3206, 5034, 6856).

A session is in one of RFC 1939's states:

    AUTHORIZATION  nobody has logged in; STLS forgets the name that USER gave
    TRANSACTION    one maildrop is ours; DELE only marks
    UPDATE         QUIT was read in TRANSACTION: the marked messages are being removed, whether the client waits for it or not

However else it ends, nothing is removed.  Every end after a login logs out, once.  A session that has been silent for a minute gives
its maildrop up to another one that waits for it: a client whose connection died can log in again soon.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, NamedTuple

from twisted.cred.credentials import UsernamePassword
from twisted.internet.interfaces import IReactorTime

from mailhost import sasl
from mailhost.envelope import TLS, Client
from mailhost.events import Bug, MessageRetrieved, MessagesDeleted, Observer, SessionEnded, Trouble
from mailhost.interfaces import IContent, ILoggedIn, ILogin, IMaildrop, IVisit, Listing
from mailhost.limits import Limits, Offered, Terms
from mailhost.octets import BareLineFeed, LineTooLong, Unread
from mailhost.pop3 import grammar, listings, replies
from mailhost.pop3.apop import Digest
from mailhost.pop3.recent import PREFIX, SECONDS, recent
from mailhost.pop3.replies import Reply
from mailhost.pop3.retrieval import BLOCK_OCTETS, Top, read
from mailhost.pop3.texts import ENGLISH, Language, Languages
from mailhost.refusal import LoginFailed, NoSuchMessage, Refusal
from mailhost.wire.conversation import Output

_SLICE_OCTETS = 128 * 1024  # of a long listing, written at once


class State(enum.Enum):
    """The states of RFC 1939 3."""

    AUTHORIZATION = "nobody has logged in"
    TRANSACTION = "a maildrop is ours"
    UPDATE = "QUIT is removing what was marked"


class Command(NamedTuple):
    """A row of the table at the end."""

    run: Callable[[Session, bytes], Coroutine[Any, Any, Reply]]
    allowed_in: Collection[State]


class Session:
    """See the module, and `mailhost.wire.conversation.Session` for what a conversation asks of it."""

    def __init__(
        self,
        out: Output,
        client: Client,
        *,
        login: ILogin,
        greeting: Reply,
        limits: Limits,
        observer: Observer,
        clock: IReactorTime,
        stls: bool,
        plaintext_login: bool,
        languages: Languages,
        preferred_language: Language = ENGLISH,
        offered: Callable[[], Offered] = Offered,
        timestamp: bytes = b"",
    ) -> None:
        """
        @param stls: TLS can be started.
        @param languages: that LANG offers; a session begins in English.
        @param preferred_language: what `LANG *` means.
        @param offered: the terms that hold before a login.
        @param timestamp: the greeting's, where APOP is offered.
        @param plaintext_login: passwords are taken without TLS too; for loopback and tests.
        """
        self._out = out
        self._client = client
        self._login = login
        self._greeting = greeting
        self._limits = limits
        self._observer = observer
        self._clock = clock
        self._stls = stls
        self._plaintext_login = plaintext_login
        self._languages = languages
        self._preferred_language = preferred_language
        self._offered = offered
        self._timestamp = timestamp

        self.state = State.AUTHORIZATION
        self._username: bytes | None = None  # between USER and PASS
        self._exchange: sasl.Exchange | None = None  # while a SASL response is waited for
        self._logged_in: ILoggedIn | None = None
        self._maildrop: IMaildrop
        self._visit: IVisit | None = None  # the maildrop, where it knows the login's terms
        self._listing: Listing | None = None
        self._deleted: set[int] = set()
        self._deleted_octets = 0
        self._amid_reply = False  # the first octets of a long reply have left and its end has not
        self._language: Language | None = None  # None for English
        self._utf8 = False
        self._errors = 0
        self._began = clock.seconds()
        self._retrieved = 0
        self._why = "closed"  # why we closed, if we did

    # -- what a conversation asks

    @property
    def patience_seconds(self) -> float:
        # RFC 1939 3 gives ten minutes to a client that has something to lose; one that never logs in holds a connection only.
        if self.state is State.AUTHORIZATION:
            return self._limits.login_seconds
        return self._limits.pop3_idle_seconds

    @property
    def step_seconds(self) -> float:
        if self.state is State.AUTHORIZATION:
            # A login keeps its own limits: the delay that is due, then the look-up.  This one is for a login that does not.
            return self._limits.login_seconds + self._limits.lookup_seconds
        return self._limits.commit_seconds if self.state is State.UPDATE else self._limits.lookup_seconds

    @property
    def may_be_cut(self) -> bool:
        return self.state is not State.UPDATE

    @property
    def between_commands(self) -> bool:
        return self._exchange is None

    async def greeting(self) -> Reply:
        return self._greeting

    def next_step(self, unread: Unread) -> Coroutine[Any, Any, Reply] | None:
        try:
            line = unread.take_line(self._longest_line)
        except LineTooLong:
            return self._no_line(replies.LINE_TOO_LONG)
        except BareLineFeed:
            # A line that ends where one client means it and another does not is nobody's command.
            return self._no_line(replies.BARE_LINE_FEED)
        if line is None:
            return None
        if self._exchange is not None:
            return self._respond(line)
        return self._answer(line)

    def bug(self, failure: BaseException) -> Reply:
        self._observer(Bug("pop3", failure, self._client))
        if self._amid_reply:
            return self._broken_off()
        return replies.NOT_REMOVED if self.state is State.UPDATE else replies.BUG

    def injected(self) -> Reply:
        self._why = "injected"
        return replies.INJECTED

    def timed_out(self) -> bytes:
        return b""  # RFC 1939 3: without a response

    def draining(self) -> bytes:
        # The client takes it for the answer to its next command, so that none of its QUITs seems to have succeeded.
        return replies.DRAINING.octets

    def tls_started(self) -> None:
        self._username = None

    def tls_established(self, tls: TLS) -> None:
        self._client = self._client._replace(tls=tls)

    def ended(self, why: str) -> None:
        self._log_out()
        self._observer(
            SessionEnded(
                self._client,
                self._clock.seconds() - self._began,
                self._why if why == "closed" else why,
                self._retrieved,
                self._out.octets_in,
                self._out.octets_out,
            )
        )

    # -- one line

    @property
    def _longest_line(self) -> int:
        # RFC 5034 4: no limit of RFC 2449 holds for AUTH and its responses.
        limits = self._limits
        return limits.auth_line_octets if self.state is State.AUTHORIZATION else limits.command_line_octets

    async def _answer(self, line: bytes) -> Reply:
        keyword, _, argument = line.partition(b" ")
        command = _COMMANDS.get(keyword) or _COMMANDS.get(keyword.upper())
        if command is None:
            return self._said(self._error(replies.UNKNOWN_COMMAND))
        if self.state not in command.allowed_in:
            return self._said(self._error(replies.OUT_OF_STATE))
        try:
            return self._said(await command.run(self, argument))
        except Refusal as refusal:
            return self._said(self._refused(refusal))

    async def _respond(self, line: bytes) -> Reply:
        """A response of a SASL exchange (RFC 5034 4)."""
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        if line == b"*":
            return self._said(replies.CANCELLED)
        try:
            return self._said(await self._go_on_with(exchange, sasl.decode(line)))
        except Refusal as refusal:
            return self._said(self._refused(refusal))

    async def _no_line(self, reply: Reply) -> Reply:
        self._exchange = None
        return self._said(self._error(reply))

    def _said(self, reply: Reply) -> Reply:
        """A whole reply in the session's language, or the end of one whose beginning has left."""
        if self._amid_reply:
            self._amid_reply = False
            return reply
        return reply if self._language is None else reply._replace(octets=self._language.said(reply.octets))

    def _refused(self, refusal: Refusal) -> Reply:
        if self._amid_reply:
            self._trouble("a reply was broken off", refusal)
            return self._broken_off()
        reply = replies.refused(refusal)
        return self._error(reply) if isinstance(refusal, _ERRORS) else reply

    def _broken_off(self) -> Reply:
        self._why = "broken off"
        return replies.BROKEN_OFF

    def _error(self, reply: Reply) -> Reply:
        """A client's mistake: after too many of them it is sent away."""
        self._errors += 1
        if self._errors < self._limits.errors:
            return reply
        self._why = "errors"
        return replies.TOO_MANY_ERRORS

    def _trouble(self, what: str, refusal: Refusal) -> None:
        cause = type(refusal).__name__ if refusal.cause is None else refusal.cause
        self._observer(Trouble(f"{self._client.session}: {what}", cause))

    # -- AUTHORIZATION and both

    async def _capa(self, argument: bytes) -> Reply:
        grammar.nothing(argument)
        stls = self._stls and self._client.tls is None and self.state is State.AUTHORIZATION
        offered = self._offered()
        if self.state is State.TRANSACTION:
            offered = Offered(self._visit.terms if self._visit is not None else Terms())
        return replies.capabilities(self._mechanisms(), stls=stls, offered=offered)

    async def _start_tls(self, argument: bytes) -> Reply:
        grammar.nothing(argument)
        if self._client.tls is not None:
            return self._error(replies.TLS_IS_UP)
        if self._utf8:
            return self._error(replies.TLS_TOO_LATE)
        return replies.START_TLS if self._stls else replies.NOT_OFFERED

    async def _lang(self, argument: bytes) -> Reply:
        wanted = grammar.language(argument)
        if wanted is None:
            return replies.language_list(self._languages.listing())
        language = self._preferred_language if wanted == b"*" else self._languages.find(wanted)
        if language is None:
            return replies.NO_SUCH_LANGUAGE
        self._language = None if language is ENGLISH else language
        return replies.language_changed(language)

    async def _utf8_mode(self, argument: bytes) -> Reply:
        """RFC 6856 2.1.  Every message that is here may be sent to anybody as it is: none was accepted with SMTPUTF8."""
        grammar.nothing(argument)
        self._utf8 = True
        return replies.UTF8_MODE

    async def _user(self, argument: bytes) -> Reply:
        self._username = None
        if b"PLAIN" not in self._mechanisms():
            return self._no_password()
        self._username = grammar.username(argument)
        return replies.SEND_PASS

    async def _pass(self, argument: bytes) -> Reply:
        username, self._username = self._username, None
        if b"PLAIN" not in self._mechanisms():
            return self._no_password()
        if username is None:
            return self._error(replies.USER_FIRST)
        return await self._log_in(UsernamePassword(username, grammar.password(argument)))

    async def _apop(self, argument: bytes) -> Reply:
        if not self._timestamp:
            return replies.NOT_OFFERED
        self._username = None
        username, digest = grammar.apop(argument)
        return await self._log_in(Digest(self._timestamp, username, digest))

    async def _auth(self, argument: bytes) -> Reply:
        if not argument.strip(b" "):
            return replies.mechanism_list(self._mechanisms())
        self._username = None
        name, initial = grammar.mechanism(argument)
        if name not in self._mechanisms():
            return self._no_password() if name == b"PLAIN" else replies.NO_SUCH_MECHANISM
        exchange = sasl.begin(name)
        if exchange is None:
            return replies.NO_SUCH_MECHANISM
        return await self._go_on_with(exchange, None if initial is None else sasl.decode(initial))

    async def _go_on_with(self, exchange: sasl.Exchange, response: bytes | None) -> Reply:
        answer = exchange.respond(response)
        if isinstance(answer, sasl.Challenge):
            self._exchange = exchange
            return replies.challenge(answer.octets)
        return await self._log_in(answer)

    async def _log_in(self, credentials: Any) -> Reply:
        recent_only = credentials.username.startswith(PREFIX)
        if recent_only:
            credentials.username = credentials.username.removeprefix(PREFIX)
        logged_in = await self._login.log_in(credentials, self._client)
        self._logged_in = logged_in
        self._maildrop = logged_in.avatar
        if recent_only:
            await self._show_recent()
        self._client = self._client._replace(account=logged_in.account)
        self.state = State.TRANSACTION
        self._visit = logged_in.avatar if IVisit.providedBy(logged_in.avatar) else None
        self._maildrop.when_wanted(self._wanted)
        return replies.LOGGED_IN

    async def _show_recent(self) -> None:
        since = int((self._clock.seconds() - SECONDS) * 1_000_000)
        try:
            self._maildrop = await recent(self._maildrop, since)
        except BaseException:
            self._log_out()  # nobody is logged in whose maildrop cannot be shown
            raise

    def _mechanisms(self) -> Sequence[bytes]:
        """LOGIN is obsolete, and where it could be used so can USER and PASS, which every client has."""
        protected = self._plaintext_login or self._client.tls is not None
        return [name for name in self._login.mechanisms(protected) if name != b"LOGIN"]

    def _no_password(self) -> Reply:
        """A password was offered where none is taken: say what would help."""
        if b"PLAIN" not in self._login.mechanisms(True):
            return replies.NO_PASSWORDS
        return self._error(replies.TLS_FIRST if self._stls else replies.TLS_ONLY)

    def _wanted(self) -> None:
        """Another session waits for the maildrop."""
        if self.state is State.TRANSACTION and self._out.silent_seconds >= self._limits.takeover_seconds:
            self._why = "taken over"
            self._log_out()
            # As at a drain the client takes it for the answer to its next command, be that QUIT.
            self._out.end(replies.TAKEN_OVER.octets)

    def _log_out(self) -> None:
        logged_in, self._logged_in = self._logged_in, None
        if logged_in is not None:
            self._maildrop.release()
            logged_in.log_out()

    # -- TRANSACTION

    async def _noop(self, argument: bytes) -> Reply:
        grammar.nothing(argument)
        return replies.DONE

    async def _stat(self, argument: bytes) -> Reply:
        grammar.nothing(argument)
        messages, octets = self._maildrop.totals
        return replies.status(messages - len(self._deleted), octets - self._deleted_octets)

    async def _list(self, argument: bytes) -> Reply:
        number = grammar.optional_message_number(argument)
        if number is None:
            return await self._long(listings.scan_listings(await self._listed(), self._deleted))
        self._check(number)
        listing = await self._listed()
        return replies.message_octets(number, listing.octets[number - 1])

    async def _uidl(self, argument: bytes) -> Reply:
        number = grammar.optional_message_number(argument)
        if number is None:
            return await self._long(listings.unique_id_listings(await self._listed(), self._deleted))
        self._check(number)
        listing = await self._listed()
        return replies.message_unique_id(number, listing.unique_ids[number - 1])

    async def _dele(self, argument: bytes) -> Reply:
        number = grammar.message_number(argument)
        self._check(number)
        listing = await self._listed()
        self._deleted.add(number)
        self._deleted_octets += listing.octets[number - 1]
        return replies.DELETED

    async def _rset(self, argument: bytes) -> Reply:
        grammar.nothing(argument)
        self._deleted.clear()
        self._deleted_octets = 0
        return replies.UNMARKED

    async def _retr(self, argument: bytes) -> Reply:
        number = grammar.message_number(argument)
        self._check(number)
        content = await self._maildrop.content(number)
        listing = await self._listed()
        reply = await self._send(content, replies.octets_follow(content.octets), None)
        self._retrieved += 1
        unique_id = listing.unique_ids[number - 1]
        if self._visit is not None:
            self._visit.retrieved(unique_id)
        self._observer(MessageRetrieved(self._client, unique_id, content.octets))
        return reply

    async def _top(self, argument: bytes) -> Reply:
        number, lines = grammar.message_number_and_lines(argument)
        self._check(number)
        content = await self._maildrop.content(number)
        return await self._send(content, replies.TOP_FOLLOWS, Top(content.header_octets, lines))

    def _check(self, number: int) -> None:
        """@raise NoSuchMessage: not the number of a message that is there and not marked."""
        if not 1 <= number <= self._maildrop.totals.messages or number in self._deleted:
            raise NoSuchMessage

    async def _listed(self) -> Listing:
        if self._listing is None:
            self._listing = await self._maildrop.listing()
        return self._listing

    async def _long(self, octets: bytes) -> Reply:
        """A reply that was made in one piece and leaves in several, as the client takes them."""
        start = 0
        while len(octets) - start > _SLICE_OCTETS:
            await self._write(octets[start : start + _SLICE_OCTETS])
            start += _SLICE_OCTETS
        return Reply(octets[start:] if start else octets)

    async def _send(self, content: IContent, first_line: bytes, top: Top | None) -> Reply:
        """Content, or its top, behind its first line."""
        left = content.wire_octets
        block = await read(content, 0, min(left, BLOCK_OCTETS))
        if left <= BLOCK_OCTETS:
            return Reply(b"".join((first_line, block if top is None else top.passing(block), replies.END)))
        await self._write(first_line)
        offset = 0
        while True:
            await self._write(block if top is None else top.passing(block))
            offset += len(block)
            if offset == left or (top is not None and top.ended):
                break
            block = await read(content, offset, min(left - offset, BLOCK_OCTETS))
        return replies.END_OF_MESSAGE

    async def _write(self, octets: bytes) -> None:
        if not self._amid_reply:
            self._amid_reply = True
            if self._language is not None:
                octets = self._language.said(octets)
        room = self._out.write(octets)
        if room is not None:
            await room

    # -- UPDATE

    async def _quit(self, argument: bytes) -> Reply:
        grammar.nothing(argument)
        self._why = "quit"
        if self.state is State.AUTHORIZATION:
            return replies.GOODBYE
        self.state = State.UPDATE
        try:
            if self._deleted:
                await self._remove(sorted(self._deleted))
        except Refusal as refusal:
            self._trouble("nothing was removed at QUIT", refusal)
            return replies.NOT_REMOVED
        finally:
            # Before the reply: a client that has it may log in again at once.
            self._log_out()
        return replies.GOODBYE

    async def _remove(self, deleted: list[int]) -> None:
        listing = await self._listed()
        await self._maildrop.update(deleted)
        self._observer(MessagesDeleted(self._client, tuple(listing.unique_ids[number - 1] for number in deleted)))


_ERRORS = (grammar.BadSyntax, sasl.Malformed, LoginFailed)
"""Refusals that count as a client's mistakes."""

_AUTHORIZATION = (State.AUTHORIZATION,)
_TRANSACTION = (State.TRANSACTION,)
_BOTH = (State.AUTHORIZATION, State.TRANSACTION)

_COMMANDS = {
    b"CAPA": Command(Session._capa, _BOTH),
    b"STLS": Command(Session._start_tls, _AUTHORIZATION),
    b"USER": Command(Session._user, _AUTHORIZATION),
    b"PASS": Command(Session._pass, _AUTHORIZATION),
    b"AUTH": Command(Session._auth, _AUTHORIZATION),
    b"APOP": Command(Session._apop, _AUTHORIZATION),
    b"LANG": Command(Session._lang, _BOTH),
    b"UTF8": Command(Session._utf8_mode, _AUTHORIZATION),
    b"NOOP": Command(Session._noop, _TRANSACTION),
    b"STAT": Command(Session._stat, _TRANSACTION),
    b"LIST": Command(Session._list, _TRANSACTION),
    b"UIDL": Command(Session._uidl, _TRANSACTION),
    b"RETR": Command(Session._retr, _TRANSACTION),
    b"TOP": Command(Session._top, _TRANSACTION),
    b"DELE": Command(Session._dele, _TRANSACTION),
    b"RSET": Command(Session._rset, _TRANSACTION),
    b"QUIT": Command(Session._quit, _BOTH),
}
