"""
An IMessageDeliveryFactory made of an IDelivery: our mail in, behind twisted.mail.smtp's own ESMTP class.

ESMTP makes one IMessageSMTP for each forward-path and gives every line to all of them; our transaction has one content.  So the first
one carries the content, and all share its outcome.
"""

from __future__ import annotations

import re
import secrets
import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory, IMessageSMTP
from twisted.mail.smtp import Address, SMTPServerError, User
from twisted.python.failure import Failure
from zope.interface import implementer

from mailhost.envelope import NO_PARAMETERS, Client, Outcome, Path
from mailhost.events import Bug, Observer, unobserved
from mailhost.interfaces import IDelivery, IStagedMessage, ITransaction
from mailhost.limits import Limits
from mailhost.octets import CRLF, Doubler
from mailhost.refusal import (
    MaildropFull,
    MessageTooLarge,
    NoSuchMaildrop,
    Refusal,
    RelayDenied,
    SenderNotAllowed,
    SpoolFull,
    TooManyForwardPaths,
    Worded,
)

# Lines are gathered so far before they are handed on as one block.
_BLOCK = 64 * 1024

_QUOTED_PAIR = re.compile(r"\\(.)")

_REPLIES: dict[type[Refusal], tuple[int, str]] = {
    NoSuchMaildrop: (550, "5.1.1 No such user here"),
    RelayDenied: (550, "5.7.1 Relaying denied"),
    SenderNotAllowed: (550, "5.7.1 Not your address"),
    TooManyForwardPaths: (452, "4.5.3 Too many recipients"),
    MaildropFull: (452, "4.2.2 Mailbox full"),
    SpoolFull: (452, "4.3.1 Insufficient system storage"),
    MessageTooLarge: (552, "5.3.4 Message too big"),
}


def delivery_to_twisted(
    delivery: IDelivery,
    *,
    client: Client,
    limits: Limits | None = None,
    observer: Observer = unobserved,
) -> IMessageDeliveryFactory:
    """
    @param client: what is known of the login; its `host` and `helo` are filled in at each MAIL.  ESMTP does not tell whether TLS is
        up or EHLO was said.
    @param limits: of which `message_octets` and `recipients` are kept here, since ESMTP has none.
    """
    return _Factory(delivery, client, limits or Limits(), observer)


@implementer(IMessageDeliveryFactory)
class _Factory:
    def __init__(self, delivery: IDelivery, client: Client, limits: Limits, observer: Observer) -> None:
        self._arguments = delivery, client, limits, observer

    def getMessageDelivery(self) -> IMessageDelivery:
        return _MessageDelivery(*self._arguments)


@implementer(IMessageDelivery)
class _MessageDelivery:
    """One transaction of ESMTP's.  RSET and a lost connection are not told to it: it learns of them by being forgotten."""

    def __init__(self, delivery: IDelivery, client: Client, limits: Limits, observer: Observer) -> None:
        self._delivery = delivery
        self._client = client
        self._limits = limits
        self._observer = observer
        self._recipients = 0
        self._incoming: _Incoming | None = None

    def validateFrom(self, helo: tuple[bytes | None, bytes], origin: Address) -> Deferred[Address]:
        return Deferred.fromCoroutine(self._begin(helo, origin))

    async def _begin(self, helo: tuple[bytes | None, bytes], origin: Address) -> Address:
        client = self._client._replace(
            session=self._client.session or secrets.token_hex(8),
            host=helo[1].decode("ascii", "replace"),
            helo=(helo[0] or b"").decode("utf-8", "replace"),
        )
        try:
            transaction = await self._delivery.transaction(client, _path(origin), NO_PARAMETERS)
        except Refusal as refusal:
            raise SMTPServerError(*_reply(refusal)) from refusal
        forgotten = weakref.finalize(self, transaction.abort)
        forgotten.atexit = False
        self._incoming = _Incoming(transaction, forgotten.detach, self._limits.message_octets, self._observer, client)
        return origin

    def validateTo(self, user: User) -> Deferred[Callable[[], IMessageSMTP]]:
        return Deferred.fromCoroutine(self._recipient(user))

    async def _recipient(self, user: User) -> Callable[[], IMessageSMTP]:
        incoming = self._incoming
        assert incoming is not None  # ESMTP asks for a sender first
        try:
            if self._recipients >= self._limits.recipients:
                raise TooManyForwardPaths()
            await incoming.transaction.recipient(_path(user.dest), NO_PARAMETERS)
        except Refusal as refusal:
            raise SMTPServerError(*_reply(refusal)) from refusal
        self._recipients += 1
        return lambda: incoming.message(user)

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b""  # the delivery writes its own


class _Incoming:
    """The one content of a transaction, given line by line and handed on in blocks of wire form."""

    def __init__(
        self,
        transaction: ITransaction,
        beginning: Callable[[], object],
        limit: int,
        observer: Observer,
        client: Client,
    ) -> None:
        """@param beginning: called when the content begins: from then on the transaction is not aborted when it is forgotten."""
        self.transaction = transaction
        self._beginning = beginning
        self._room = limit
        self._observer = observer
        self._client = client
        self._protocol: Any = None
        self._staging: Deferred[None] | None = None
        self._staged: IStagedMessage | None = None
        self._doubler = Doubler()
        self._lines: list[bytes] = []
        self._octets = 0  # in `_lines`
        self._paused = False
        self._aborted = False
        self._failure: Exception | None = None
        self._outcome: Outcome | Failure | None = None
        self._waiting: list[Deferred[Outcome]] = []

    def message(self, user: User) -> IMessageSMTP:
        """Called by ESMTP at DATA, once for each forward-path."""
        if self._staging is not None:
            return _Message(self, carries=False)
        self._beginning()
        self._protocol = user.protocol
        self._staging = Deferred.fromCoroutine(self._stage())
        return _Message(self, carries=True)

    async def _stage(self) -> None:
        try:
            staged = await self.transaction.content()
        except Exception as error:
            self.transaction.abort()
            self._failure = error
            self._report(error)
        else:
            if self._aborted:
                staged.abort()
                return
            self._staged = staged
            self._hand_on()
        self._resume()

    def line(self, line: bytes) -> None:
        """@raise SMTPServerError: ESMTP drops the messages, reads on to the end of content and gives this as its reply."""
        self._room -= len(line) + len(CRLF)
        if self._room < 0:
            self._failure = MessageTooLarge()
        elif b"\n" in line or b"\r" in line:
            self._failure = Worded(554, "5.6.0", "Bare CR or LF in content")
        if self._failure is not None:
            raise SMTPServerError(*_octets_reply(self._failure))
        self._lines.append(line)
        self._octets += len(line)
        if self._octets >= _BLOCK:
            self._hand_on()

    def _hand_on(self) -> None:
        if self._staged is None:
            self._pause()
        elif self._lines:
            block = self._doubler.feed(CRLF.join([*self._lines, b""]))
            self._lines.clear()
            self._octets = 0
            room = self._staged.write(block)
            if room is not None:
                self._pause()
                room.addCallback(lambda _: self._resume())

    def end(self) -> Deferred[Outcome]:
        """All lines have been given.  The first message that asks ends the content, and each gets the one outcome."""
        answer: Deferred[Outcome] = Deferred()
        self._waiting.append(answer)
        if self._outcome is not None:
            answer.callback(self._outcome)
        elif len(self._waiting) == 1:
            Deferred.fromCoroutine(self._commit()).addBoth(self._told)
        return answer

    async def _commit(self) -> Outcome:
        assert self._staging is not None
        await self._staging
        if self._staged is None:
            assert self._failure is not None
            raise self._failure
        self._hand_on()
        return await self._staged.commit()

    def _told(self, outcome: Outcome | Failure) -> None:
        if isinstance(outcome, Failure):
            if outcome.value is not self._failure:
                self._report(outcome.value)
            code, text = _octets_reply(outcome.value)
            if hasattr(self._protocol, "sendCode"):
                # ESMTP says 550 to whatever fails here, and a permanent answer to a full disk loses mail.  It says nothing while
                # its messages have no outcome; so they never get one, and the reply is given here.
                self._protocol.sendCode(code, text)
                return
            outcome = Failure(SMTPServerError(code, text))
        self._outcome = outcome
        for answer in self._waiting:
            answer.callback(outcome)

    def _report(self, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, Refusal):
            self._observer(Bug("message delivery", error, self._client))

    def abort(self) -> None:
        """The connection was lost, or the content was refused."""
        if self._aborted or self._waiting:
            return
        self._aborted = True
        self._resume()
        if self._staged is not None:
            self._staged.abort()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._transport("pauseProducing")

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._transport("resumeProducing")

    def _transport(self, method: str) -> None:
        # Whoever stands in for a protocol at `User.protocol` may have no transport that can wait.
        getattr(getattr(self._protocol, "transport", None), method, _nothing)()


@implementer(IMessageSMTP)
class _Message:
    """What ESMTP holds for one forward-path."""

    def __init__(self, incoming: _Incoming, *, carries: bool) -> None:
        self._incoming = incoming
        self._carries = carries

    def lineReceived(self, line: bytes) -> None:
        if self._carries:
            self._incoming.line(line)

    def eomReceived(self) -> Deferred[Outcome]:
        return self._incoming.end()

    def connectionLost(self) -> None:
        self._incoming.abort()


def _path(address: Address) -> Path:
    """ESMTP leaves a local part in its quotes."""
    local_part = address.local.decode("utf-8", "replace")
    if local_part.startswith('"') and local_part.endswith('"'):
        local_part = _QUOTED_PAIR.sub(r"\1", local_part[1:-1])
    return Path(local_part, address.domain.decode("utf-8", "replace"))


def _reply(error: BaseException | None) -> tuple[int, str]:
    """A code and a text in ASCII for a refusal; temporary ones for anything else."""
    if not isinstance(error, Refusal):
        return 451, "4.3.0 Try again later"
    detail = error.detail.encode("ascii", "replace").decode("ascii")
    if isinstance(error, Worded):
        return error.code, f"{error.status} {detail}".strip()
    usual = (451, "4.3.0 Try again later") if error.temporary else (550, "5.0.0 Refused")
    code, text = _REPLIES.get(type(error), usual)
    return code, f"{text}: {detail}" if detail else text


def _octets_reply(error: BaseException | None) -> tuple[int, bytes]:
    """ESMTP wants text for a refused MAIL or RCPT, and octets for what is refused later."""
    code, text = _reply(error)
    return code, text.encode("ascii")


def _nothing() -> None:
    pass
