"""
What the parts promise each other.

SMTP meets the spool only here.  What may wait is declared `Awaitable`: an `async def` meets it, and so does a method that returns a
Deferred.  An awaitable is awaited at once and once.  Cancelling one lets go of the answer; it undoes nothing that was done.

Errors are `mailhost.refusal.Refusal`s, which leave everything as it was; anything else raised is a bug.

**Wire form.**  Content travels and is stored as SMTP's DATA and POP3's RETR have it: CRLF line ends, a doubled dot at the start of
each line that begins with one, ending in CRLF, without the final dot (RFC 5321 4.5.2, RFC 1939 3).  `octets` always counts the
plain form.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from mailhost.envelope import Client, Copy, Envelope, Outcome, Parameters, Path, Totals
from mailhost.limits import OwnTerms, Quota, Terms

# ---------------------------------------------------------------------------------------------------------------- mail in


class IDelivery(Interface):
    """The avatar of one login for mail in: anonymous on an MX port, a user's own on a submission port."""

    def transaction(client: Client, reverse_path: Path, parameters: Parameters) -> Awaitable[ITransaction]:
        """
        A MAIL command (RFC 5321 4.1.1.2).  Many transactions of one avatar may be open at once.

        @raise Refusal: this client, reverse-path or parameter is not taken.
        """


class ITransaction(Interface):
    """From MAIL to the end of data.  Every way ends in one `abort()`, or in the end of the staged message; never in both."""

    def recipient(forward_path: Path, parameters: Parameters) -> Awaitable[None]:
        """
        A RCPT command (RFC 5321 4.1.1.3).  What can be refused for one forward-path alone is refused here, quota too.

        @raise Refusal: the transaction goes on without this forward-path.
        """

    def content() -> Awaitable[IStagedMessage]:
        """
        Called once, before 354, with at least one forward-path taken.  A full spool refuses here.

        @raise Refusal: the transaction is still open; `abort()` ends it.
        """

    def abort() -> None:
        """Forget it.  Never raises.  Not called once `content()` has given a staged message: that one is ended instead."""


class IStagedMessage(Interface):
    """A message on its way in.  Ended by one `commit()` or one `abort()`."""

    unique_id: str = Attribute(
        "The message's unique-id: 1 to 70 characters 0x21 to 0x7E (RFC 1939 7), never used again."
    )

    def write(octets: bytes) -> Deferred[None] | None:
        """
        More content in wire form, blocks cut anywhere.

        @return: None to go on at once, or a Deferred that fires when there is room again.  It never fails and this never raises:
            what went wrong is `commit`'s outcome.
        """

    def commit() -> Awaitable[Outcome]:
        """
        Make it durable: when this returns, no crash can lose it, and it is in every maildrop it was staged for.

        @raise Refusal: nothing was stored, in no maildrop.
        """

    def abort() -> None:
        """Forget all of it.  Never raises."""


class IAddressBook(Interface):
    """Who lives here."""

    def resolve(forward_path: Path) -> Awaitable[Sequence[Destination]]:
        """
        What a forward-path means: at least one destination, each once.

        Local parts compare without case, domains too; `user+tag@` reaches `user@`; postmaster always exists (RFC 5321 4.5.1).

        @raise NoSuchMaildrop: the domain is ours, nobody of that name is.
        @raise RelayDenied: the domain is not ours.
        """

    def maildrop_of(account: bytes) -> str:
        """The name of the maildrop that an avatar id opens.  One without `@` belongs to the first domain."""

    def may_send_as(account: bytes, reverse_path: Path) -> Awaitable[bool]:
        """Whether a submission by this account may use this reverse-path; the null reverse-path is everybody's."""


class LocalMaildrop(NamedTuple):
    """A destination in this host's spool."""

    name: str


Destination = LocalMaildrop
"""What an address book resolves to; an outbound queue will add a second kind."""


class IAccounts(Interface):
    """A checker that knows its accounts offers this, and an address book of our domains is made of it."""

    def has_account(address: str) -> Awaitable[bool]:
        """
        @param address: lower-case `user@domain`; or `user` alone, since an account's name may leave out the first domain.
        @return: true at once for a known account; before saying false, a file that has changed is read again.
        """


class IQuotas(Interface):
    """A checker that keeps quotas beside its accounts offers this."""

    has_quotas: bool = Attribute("False while no account has one: then none is asked for.")

    def quota(address: str) -> Awaitable[Quota | None]:
        """
        @param address: as in IAccounts.
        @return: None where nothing is said of this account, or there is none.
        """


class IAccountTerms(Interface):
    """A checker that keeps terms of POP3 beside its accounts offers this."""

    def terms(address: str) -> Awaitable[OwnTerms]:
        """
        @param address: as in IAccounts.
        @return: empty where nothing is said of this account, or there is none.
        """

    def kinds_of_terms() -> Collection[OwnTerms]:
        """All there are among its accounts, each once, at no cost: they are asked for at every CAPA."""


# --------------------------------------------------------------------------------------------------------------- mail out


class Listing:
    """
    A snapshot of a maildrop's messages in the order of their numbers: message-number 1 is at index 0.

    One listing serves every session that sees the same state, so what a protocol builds from it may be kept in `derived`.
    """

    __slots__ = ("derived", "octets", "unique_ids")

    def __init__(self, octets: Sequence[int], unique_ids: Sequence[str]) -> None:
        """
        @param octets: of each message's plain form.
        @param unique_ids: 1 to 70 characters 0x21 to 0x7E each.
        """
        self.octets = octets
        self.unique_ids = unique_ids
        self.derived: dict[str, Any] = {}


class IMaildrop(Interface):
    """
    The avatar of one login for mail out: one maildrop, held exclusively from its opening until `release`.

    Its snapshot stays readable to the end, whatever is delivered meanwhile.
    """

    totals: Totals = Attribute("Of the snapshot; costs nothing.")

    def listing() -> Awaitable[Listing]:
        """The snapshot's messages; read when first asked for."""

    def content(number: int) -> Awaitable[IContent]:
        """
        @param number: message-number, 1-based, in the snapshot.
        @raise NoSuchMessage: there is none.
        @raise ContentDamaged: it is not what was stored; up to 256 KiB this is known before the first octet.
        """

    def update(deleted: Collection[int]) -> Awaitable[None]:
        """
        POP3's UPDATE (RFC 1939 6): remove these messages, all or none.  Durable on return; called once at most.

        @param deleted: message-numbers, 1-based.
        @raise Refusal: nothing was removed.
        """

    def times() -> Awaitable[Sequence[int]]:
        """When each message of the snapshot was delivered, in microseconds since 1970; 0 where nobody knows."""

    def notes() -> Awaitable[bytes]:
        """What the last holder left for the next one, in whatever process; nothing where nothing can be left."""

    def keep_notes(notes: bytes) -> Awaitable[None]:
        """
        Leave this for the next holder, in place of what was there.

        Not durable: after a crash the notes may be gone, but never half of them there.
        """

    def when_wanted(ask: Callable[[], None]) -> None:
        """
        Have this called, in the reactor's thread, whenever another opening, in whatever process, has waited nearly in vain.

        Who is asked may release the maildrop, and need not: nobody else ever does.  One call replaces the other.
        """

    def release() -> None:
        """Let go of it.  Never raises; a second call does nothing."""


class IVisit(IMaildrop):
    """A maildrop that knows the terms of its login; one that is no more than IMaildrop has none."""

    terms: Terms = Attribute("Of this account.")

    def retrieved(unique_id: str) -> None:
        """A message has left, whole.  Never raises."""


class IContent(Interface):
    """One message's content, its maildrop's own header fields first."""

    octets: int = Attribute("Of the plain form: what LIST says.")
    wire_octets: int = Attribute("Of the wire form: what `read` gives in all.")
    header_octets: int = Attribute("Of the header section in wire form, with the empty line behind it if there is one.")

    def read(offset: int, count: int) -> Awaitable[bytes]:
        """
        Wire form from `offset`: exactly `count` octets, fewer only at the end.

        @raise ContentDamaged: also late, when the end of a large message shows that its checksum is wrong.
        """


# ------------------------------------------------------------------------------------------------------------------ spool


class ISpool(Interface):
    """
    Where messages are kept.  A maildrop has a name, which can change, and behind it an id that never does.

    Maildrops appear at their first delivery or opening.
    """

    def start() -> Awaitable[None]:
        """Open it, taking over what a crash left.  @raise Refusal: it cannot be opened; nothing is held."""

    def stop() -> Awaitable[None]:
        """Commit all that waits, refuse what comes later, let go of everything.  No maildrop is open any more."""

    def stage(envelope: Envelope, copies: Sequence[Copy]) -> Awaitable[IStagedMessage]:
        """
        Begin a message: one content for all copies.  Two copies for one maildrop make one, the first.

        @raise SpoolFull: or another Refusal; nothing was begun.
        """

    def open_maildrop(name: str, wait_seconds: float) -> Awaitable[IMaildrop]:
        """
        Open a maildrop exclusively, among all processes of this spool.

        @param wait_seconds: how long another holder is waited for.
        @raise MaildropInUse: it still has one.
        """

    def create(name: str) -> Awaitable[None]:
        """Make a maildrop, durably; one that exists already is left as it is."""

    def exists(name: str) -> Awaitable[bool]:
        """Whether a maildrop of this name has been made."""

    def totals(name: str) -> Awaitable[Totals]:
        """
        What a maildrop holds now, whoever has it open; nothing for a name that no maildrop has.

        Asked at RCPT where there are quotas, so it takes no lock and reads no message; what was committed in the last moment may not
        be counted yet.

        @raise Refusal: it cannot be told now.
        """

    def rename(old: str, new: str) -> Awaitable[None]:
        """Durably.  @raise NoSuchMaildrop: `old` is none.  @raise MaildropInUse: it is open, or `new` exists."""

    def remove(name: str) -> Awaitable[None]:
        """Remove a maildrop and all that is in it, durably; a later one of the same name inherits nothing."""

    def maildrops() -> AsyncIterator[str]:
        """The names, in no order."""


# ------------------------------------------------------------------------------------------------------------------ login


class ILogin(Interface):
    """One portal, for one kind of avatar: what a session needs to know of twisted.cred."""

    def mechanisms(protected: bool) -> Sequence[bytes]:
        """
        The SASL mechanisms that can be used now, best first; PLAIN and LOGIN only where passwords are safe.

        @param protected: TLS is up, or the listener allows plaintext logins.
        """

    def takes_digests() -> bool:
        """Whether there is a checker of IUsernameHashedPassword, as APOP needs one."""

    def log_in(credentials: Any, client: Client) -> Awaitable[ILoggedIn]:
        """
        @param credentials: of a `twisted.cred.credentials` interface, usernames in octets.
        @raise LoginFailed: after the delay that is due.
        @raise LoginUnsupported: no checker takes such credentials.
        @raise LoginUnavailable: a checker or the realm could not answer.
        @raise Refusal: the realm's own, such as MaildropInUse.

        Cancelled while it waits, it logs out whatever still comes.
        """


class ILoggedIn(Interface):
    """A login that succeeded."""

    account: bytes | None = Attribute("The avatar id, None for an anonymous login.")
    avatar: Any = Attribute("Provides the interface that this login is for.")

    def log_out() -> None:
        """Once is enough; more does nothing.  Never raises."""
