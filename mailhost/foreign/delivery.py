"""
An IDelivery made of somebody's IMessageDelivery: mail in for applications that were written for twisted.mail.smtp.

They are called as `twisted.mail.smtp.ESMTP` calls them, with these differences: every call has a limit; a failure that is no
SMTPServerError is temporary (ESMTP answers 550 to whatever fails at the end of a message); and one outcome is told for all messages
of a transaction, permanent only if every failure is.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, DeferredList, fail
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.mail.interfaces import IMessageDelivery, IMessageDeliveryFactory
from twisted.mail.smtp import Address, SMTPServerError, User
from zope.interface import implementer

from mailhost.envelope import Client, Outcome, Parameters, Path
from mailhost.events import Observer, unobserved
from mailhost.foreign.calls import Calls
from mailhost.interfaces import IDelivery, IStagedMessage, ITransaction
from mailhost.limits import Limits
from mailhost.octets import CRLF, Undoubler
from mailhost.refusal import Refusal, Worded

_Helo = tuple[bytes, bytes]

# RFC 5322 2.2: a field's name is visible ASCII without a colon.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
_STATUS = re.compile(r"([45]\.\d{1,3}\.\d{1,3})[ \t]+")


def delivery_from_twisted(
    foreign: IMessageDelivery | IMessageDeliveryFactory,
    *,
    hostname: str,
    reactor: IReactorTime,
    limits: Limits | None = None,
    observer: Observer = unobserved,
) -> IDelivery:
    """
    @param foreign: asked for a delivery at each MAIL if it provides IMessageDeliveryFactory; otherwise it serves all messages.
    @param hostname: this host's name, for what code finds at `User.protocol`.
    @param limits: `lookup_seconds` bounds all calls but those at the end of a message, which have `commit_seconds`.
    """
    return _Delivery(foreign, hostname.encode("ascii"), Calls(reactor, observer), limits or Limits())


@implementer(IDelivery)
class _Delivery:
    def __init__(self, foreign: Any, hostname: bytes, calls: Calls, limits: Limits) -> None:
        self._foreign = foreign
        self.hostname = hostname
        self.calls = calls
        self.limits = limits

    async def transaction(self, client: Client, reverse_path: Path, parameters: Parameters) -> ITransaction:
        delivery = self._foreign
        if IMessageDeliveryFactory.providedBy(delivery):
            delivery = await self.ask(delivery.getMessageDelivery)
        helo = (client.helo.encode(errors="replace"), client.host.encode(errors="replace"))
        origin = _address(reverse_path, self.hostname)
        accepted = await self.ask(delivery.validateFrom, helo, origin)
        # The answer can be another address, which then counts; some forget to answer.
        return _Transaction(self, delivery, client, helo, accepted if isinstance(accepted, Address) else origin)

    async def ask(self, function: Callable[..., Any], *arguments: Any, late: Callable[[Any], Any] | None = None) -> Any:
        """The answer to any call but the last.  @raise Refusal: theirs, in its own words."""
        try:
            return await self.calls.answer(self.limits.lookup_seconds, function, *arguments, late=late)
        except SMTPServerError as error:
            raise _worded(error) from error


@implementer(ITransaction)
class _Transaction:
    def __init__(self, delivery: _Delivery, foreign: Any, client: Client, helo: _Helo, origin: Address) -> None:
        self._delivery = delivery
        self._foreign = foreign
        self._helo = helo
        self._origin = origin
        self._protocol = _Protocol(delivery.hostname, client)
        self._accepted: list[tuple[User, Callable[[], Any]]] = []

    async def recipient(self, forward_path: Path, parameters: Parameters) -> None:
        user = User(_address(forward_path, self._delivery.hostname), self._helo, self._protocol, self._origin)
        make_message = await self._delivery.ask(self._foreign.validateTo, user)
        if not callable(make_message):
            raise TypeError(f"validateTo answered with {make_message!r}, which cannot be called")
        self._accepted.append((user, make_message))

    async def content(self) -> IStagedMessage:
        messages = _Messages(self._delivery.calls, self._delivery.limits.commit_seconds)
        try:
            for user, make_message in self._accepted:
                await self._begin(messages, user, make_message)
        except BaseException:  # cancelled, too
            messages.abort()
            raise
        return messages

    async def _begin(self, messages: _Messages, user: User, make_message: Callable[[], Any]) -> None:
        ask = self._delivery.ask
        message = await ask(make_message, late=lambda message: message.connectionLost())
        messages.add(message)
        field = await ask(self._foreign.receivedHeader, self._helo, self._origin, [user])
        for line in _lines(field):
            await ask(message.lineReceived, line)

    def abort(self) -> None:
        self._accepted.clear()


@implementer(IStagedMessage)
class _Messages:
    """The messages of one transaction, one for each forward-path, of which each gets every line."""

    def __init__(self, calls: Calls, seconds: float) -> None:
        self.unique_id = secrets.token_hex(16)
        self._calls = calls
        self._seconds = seconds
        self._messages: list[Any] = []
        self._undoubler = Undoubler()
        self._unfinished: list[bytes] = []  # of a line whose end has not come yet
        self._begun = False
        self._failure: Exception | None = None

    def add(self, message: Any) -> None:
        self._messages.append(message)

    def write(self, octets: bytes) -> None:
        if self._failure is None:
            lines = self._whole_lines(self._undoubler.feed(octets))
            if lines:
                self._give(lines)

    def _whole_lines(self, block: bytes) -> list[bytes]:
        # Joined only when a line ends: a line of many blocks would otherwise be copied once for each of them.
        self._unfinished.append(block)
        if b"\n" not in block:
            return []
        *lines, rest = b"".join(self._unfinished).split(CRLF)
        self._unfinished = [rest]
        return lines

    def _give(self, lines: list[bytes]) -> None:
        if not self._begun:
            self._begun = True
            if lines[0] and not _FIELD.match(lines[0]):
                lines.insert(
                    0, b""
                )  # else the first line of the body would follow the Received field as if it were one
        try:
            for line in lines:
                for message in self._messages:
                    message.lineReceived(line)
        except Exception as error:
            # None of them has all of it, so none may keep it: the client hears of one outcome.
            self._failure = _worded(error)
            self.abort()

    async def commit(self) -> Outcome:
        if self._failure is not None:
            raise self._failure
        messages, self._messages = self._messages, []
        results = await self._calls.answer(self._seconds, _all_ends, messages)
        failures = [_worded(result.value) for done, result in results if not done]
        if failures:
            raise next(filter(_may_pass, failures), failures[0])
        return Outcome(self.unique_id)

    def abort(self) -> None:
        messages, self._messages = self._messages, []
        for message in messages:
            self._calls.safely("connectionLost", message.connectionLost)


def _all_ends(messages: Sequence[Any]) -> Deferred[Any]:
    return DeferredList([_end(message) for message in messages], consumeErrors=True)


def _end(message: Any) -> Deferred[Any]:
    """The end of one message: what is no promise of an outcome is a failure, for nothing says that the message is safe."""
    try:
        outcome = message.eomReceived()
    except Exception as error:
        return fail(error)
    if isinstance(outcome, Coroutine):
        return Deferred.fromCoroutine(outcome)
    if isinstance(outcome, Deferred):
        return outcome
    return fail(TypeError(f"eomReceived answered with {outcome!r}, which is no Deferred"))


def _may_pass(failure: Exception) -> bool:
    """Whether a later try may succeed."""
    return not isinstance(failure, Refusal) or failure.temporary


def _worded(error: Exception) -> Exception:
    """An SMTPServerError as a refusal in its own words; another exception as it is."""
    if not isinstance(error, SMTPServerError):
        return error
    code = error.code if isinstance(error.code, int) and 400 <= error.code < 600 else 451
    text = error.resp.decode("ascii", "replace") if isinstance(error.resp, bytes) else str(error.resp)
    lines = ["".join(c if " " <= c <= "~" else "?" for c in line) for line in text.splitlines()]
    text = "\n".join(lines)
    status = _STATUS.match(text)
    if status:
        return Worded(code, status[1], text[status.end() :], cause=error)
    return Worded(code, "", text, cause=error)


def _lines(field: bytes | str | None) -> list[bytes]:
    """A header field's lines; code for Twisted ends them with LF or CRLF, or gives text."""
    if not field:
        return []
    octets = field.encode() if isinstance(field, str) else field
    return [line for line in octets.replace(CRLF, b"\n").split(b"\n") if line]


def _address(path: Path, hostname: bytes) -> Address:
    """
    A path as twisted.mail has it, quotes included.

    Not by its own parser, which knows no address literal.  `<postmaster>` gets our host's name, as from ESMTP.

    @raise Worded: an internationalised address, since code that was written for ASCII would fail on it in ways of its own.
    """
    mailbox = path.mailbox
    if not mailbox.isascii():
        raise Worded(553, "5.6.7", "internationalised addresses are not taken here")
    address = Address(b"")
    if mailbox:
        address.addrstr = mailbox.encode()
        address.domain = path.domain.encode() or hostname
        address.local = mailbox[: len(mailbox) - len(path.domain)].removesuffix("@").encode()
    return address


class _Protocol:
    """What code finds at `User.protocol`: not the protocol, but what it is usually asked for."""

    def __init__(self, host: bytes, client: Client) -> None:
        self.host = host
        self.authenticated = client.account is not None
        self.transport = _Transport(client)


class _Transport:
    def __init__(self, client: Client) -> None:
        self._client = client

    def getPeer(self) -> IAddress:
        host, port = self._client.host, self._client.port
        if not host:
            return UNIXAddress(None)
        return IPv6Address("TCP", host, port) if ":" in host else IPv4Address("TCP", host, port)
