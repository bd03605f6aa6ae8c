"""Mail in and mail out of one login: what the realm hands out for a spool and an address book."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from mailhost.delivery import visit
from mailhost.delivery.quota import Quotas
from mailhost.delivery.submission import CompletedMessage
from mailhost.delivery.terms import TermsBook
from mailhost.delivery.trace import Trace, own_fields
from mailhost.envelope import Client, Copy, Envelope, Parameters, Path
from mailhost.interfaces import IAddressBook, IDelivery, IMaildrop, ISpool, IStagedMessage, ITransaction
from mailhost.limits import Limits
from mailhost.refusal import LoginForbidden, RelayDenied, SenderNotAllowed

_Logout = Callable[[], None]

# Until there is an outbound queue.
_NO_MAIL_ELSEWHERE = "this host sends no mail elsewhere yet"


@implementer(IDelivery)
class SpoolDelivery:
    """Delivery into the maildrops of one spool."""

    def __init__(
        self,
        spool: ISpool,
        book: IAddressBook,
        *,
        hostname: str,
        account: bytes | None,
        clock: IReactorTime,
        quotas: Quotas | None = None,
        limits: Limits | None = None,
    ) -> None:
        """
        @param account: whose login this is: it may use its own reverse-paths only.  None is anybody, and may use all.
        @param clock: its `seconds()` are since the epoch.
        @param quotas: None lets every maildrop grow.
        """
        self.spool = spool
        self.book = book
        self.hostname = hostname
        self.account = account
        self.quotas = quotas
        self.limits = limits or Limits()
        self.trace = Trace(hostname, clock.seconds)

    async def transaction(self, client: Client, reverse_path: Path, parameters: Parameters) -> ITransaction:
        if self.account is not None and not await self.book.may_send_as(self.account, reverse_path):
            raise SenderNotAllowed()
        return SpoolTransaction(self, client, reverse_path, parameters)


@implementer(ITransaction)
class SpoolTransaction:
    """One message on its way into the spool.  Nothing is held before `content()`, so there is nothing to give up."""

    def __init__(self, delivery: SpoolDelivery, client: Client, reverse_path: Path, parameters: Parameters) -> None:
        self._delivery = delivery
        self._client = client
        self._reverse_path = reverse_path
        self._parameters = parameters
        self._forward_paths: list[Path] = []
        self._forward_parameters: list[Parameters] = []
        self._copies: dict[str, Copy] = {}

    async def recipient(self, forward_path: Path, parameters: Parameters) -> None:
        try:
            destinations = await self._delivery.book.resolve(forward_path)
        except RelayDenied as refusal:
            if self._delivery.account is None:
                raise
            raise RelayDenied(_NO_MAIL_ELSEWHERE, cause=refusal.cause) from refusal
        names = [destination.name for destination in destinations if destination.name not in self._copies]
        quotas = self._delivery.quotas
        if quotas is not None and quotas.hold:
            await self._check(quotas, names)
        for name in names:
            self._copies[name] = Copy(name, own_fields(self._reverse_path, forward_path))
        self._forward_paths.append(forward_path)
        self._forward_parameters.append(parameters)

    async def _check(self, quotas: Quotas, names: Sequence[str]) -> None:
        """An alias is refused whole where one of its maildrops is full: a reply cannot say who of them got it."""
        octets = int(self._parameters.get("SIZE") or 0)
        for name in names:
            await quotas.check(self._delivery.spool, name, octets)

    async def content(self) -> IStagedMessage:
        staged = await self._delivery.spool.stage(self._envelope(), tuple(self._copies.values()))
        received = self._delivery.trace.received(self._client, self._parameters, self._forward_paths, staged.unique_id)
        room = staged.write(received)
        if room is not None:
            try:
                await room
            except BaseException:  # cancelled: nobody will hold the message that was begun
                staged.abort()
                raise
        return self._completed(staged) if self._client.protocol == "submission" else staged

    def _completed(self, staged: IStagedMessage) -> IStagedMessage:
        delivery = self._delivery
        return CompletedMessage(
            staged,
            date=delivery.trace.now(),
            hostname=delivery.hostname,
            header_octets=delivery.limits.header_octets,
        )

    def abort(self) -> None:
        self._copies.clear()

    def _envelope(self) -> Envelope:
        return Envelope(
            self._client,
            self._reverse_path,
            self._parameters,
            tuple(self._forward_paths),
            tuple(self._forward_parameters) if any(self._forward_parameters) else (),
        )


def delivery_avatars(
    spool: ISpool,
    book: IAddressBook,
    *,
    hostname: str,
    clock: IReactorTime,
    quotas: Quotas | None = None,
    limits: Limits | None = None,
) -> Callable[[bytes | None, Client], Awaitable[tuple[IDelivery, _Logout]]]:
    """
    A realm's factory of IDelivery avatars: one for all anonymous logins, and one for each login of an account.

    @param clock: a reactor.
    """
    delivery = partial(SpoolDelivery, spool, book, hostname=hostname, clock=clock, quotas=quotas, limits=limits)
    anonymous = delivery(account=None)

    async def avatar(account: bytes | None, client: Client) -> tuple[IDelivery, _Logout]:
        if account is None:
            return anonymous, _nothing_to_release
        return delivery(account=account), _nothing_to_release

    return avatar


def maildrop_avatars(
    spool: ISpool,
    book: IAddressBook,
    *,
    wait_seconds: float,
    terms: TermsBook | None = None,
    from_retrieval: bool = False,
    seconds: Callable[[], float] = time.time,
) -> Callable[[bytes | None, Client], Awaitable[tuple[IMaildrop, _Logout]]]:
    """
    A realm's factory of IMaildrop avatars.  There is none for an anonymous login.

    @param wait_seconds: how long another session of the same maildrop is waited for.
    @param terms: None is nobody's: no delays, and nothing expires.
    @param from_retrieval: messages expire so long after their first retrieval, not after their arrival.
    @param seconds: since the epoch.
    """

    async def avatar(account: bytes | None, client: Client) -> tuple[IMaildrop, _Logout]:
        if account is None:
            raise LoginForbidden("a maildrop needs an account")
        name = book.maildrop_of(account)
        maildrop = await spool.open_maildrop(name, wait_seconds)
        if terms is not None:
            try:
                now = int(seconds() * 1_000_000)
                maildrop = await visit.begin(maildrop, await terms.of(name), from_retrieval=from_retrieval, now=now)
            except BaseException:
                maildrop.release()
                raise
        return maildrop, maildrop.release

    return avatar


def _nothing_to_release() -> None:
    pass
