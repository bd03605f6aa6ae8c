"""
Who lives here: from a forward-path to the maildrops it means, by configuration and a checker that knows its accounts.

An address is looked up in this order: an alias of that name, an account of that name, both again without its `+tag`, what postmaster
falls back to, the domain's catch-all.  Nothing is taken apart beyond that: `user%other@ours`, `other!user@ours` and `"user@other"@ours`
are names that nobody here has, so none of them makes a relay of this host.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from ipaddress import IPv6Address

import idna
from zope.interface import implementer

from mailhost.envelope import NULL_REVERSE_PATH, Path
from mailhost.interfaces import Destination, IAccounts, IAddressBook, LocalMaildrop
from mailhost.refusal import LoginForbidden, NoSuchMaildrop, RelayDenied


def canonical_domain(domain: str) -> str:
    """
    A domain in the one form in which it is compared: lower-case A-labels, or an address literal.

    @raise ValueError: it is no internationalised domain name (RFC 5891), or a broken IPv6 literal.
    """
    if domain.startswith("["):
        return _canonical_literal(domain.lower())
    if domain.isascii():
        return domain.lower()
    return idna.encode(domain, uts46=True).decode("ascii").lower()


def _canonical_literal(literal: str) -> str:
    """One IPv6 address can be written in many ways (RFC 5321 4.1.3)."""
    if literal.startswith("[ipv6:"):
        return f"[ipv6:{IPv6Address(literal[6:-1]).compressed}]"
    return literal


def canonical_local_part(local_part: str) -> str:
    """Lower case and composed, as RFC 8265 3.3 does it with user names: unlike case folding it keeps `ß` and `ss` apart."""
    if local_part.isascii():
        return local_part.lower()
    return unicodedata.normalize("NFC", local_part.lower())


def _spellings(address: str) -> Iterator[str]:
    """The address, and the one without its subaddress if it has one (RFC 5233): `user@` for `user+tag@`."""
    yield address
    local_part, _, domain = address.rpartition("@")
    user, plus, _ = local_part.partition("+")
    if user and plus:
        yield f"{user}@{domain}"


@implementer(IAddressBook)
class AddressBook:
    """The address book of domains whose maildrops are all on this host."""

    def __init__(
        self,
        domains: Sequence[str],
        accounts: IAccounts,
        *,
        hostname: str,
        aliases: Mapping[str, Sequence[str]] | None = None,
        catch_all: Mapping[str, str] | None = None,
        postmaster: str | None = None,
    ) -> None:
        """
        Every domain and address here must be ours; an address without a domain belongs to the first one.

        @param domains: at least one; an address literal such as `[192.0.2.1]` can be one.
        @param hostname: this host's own name: it always has a postmaster, and those aliases and accounts that are given with it.
        @param aliases: an address to what it means: accounts or further aliases.  One that names itself among others keeps a copy.
        @param catch_all: a domain to the address that gets what nobody else there gets.
        @param postmaster: gets postmaster's mail in domains without an account or alias of that name.  Where it is not given, or is
            nobody, the maildrop `postmaster@` the first domain does.
        @raise ValueError: an address that is not ours, or aliases that lead back to themselves; the message names them.
        """
        if not domains:
            raise ValueError("an address book needs at least one domain")
        self._accounts = accounts
        self._first_domain = canonical_domain(domains[0])
        self._domains = frozenset(canonical_domain(domain) for domain in (*domains, hostname))
        self._aliases = {
            self._own(name): tuple(self._own(target) for target in targets) for name, targets in (aliases or {}).items()
        }
        self._catch_all = {self._own_domain(domain): self._own(target) for domain, target in (catch_all or {}).items()}
        self._postmaster_maildrop = f"postmaster@{self._first_domain}"
        self._postmaster = self._own(postmaster) if postmaster else self._postmaster_maildrop
        self._refuse_loops()

    async def resolve(self, forward_path: Path) -> Sequence[Destination]:
        address = self._address(forward_path)
        names = await self._residents(address)
        if not names and (catch_all := self._catch_all.get(address.rpartition("@")[2])):
            names = await self._residents(catch_all)
        if not names:
            raise NoSuchMaildrop()
        return [LocalMaildrop(name) for name in names]

    def maildrop_of(self, account: bytes) -> str:
        """@raise LoginForbidden: the avatar id is no UTF-8, or its domain is none."""
        try:
            return self._canonical(account.decode("utf-8"))
        except ValueError as error:
            raise LoginForbidden(cause=error) from error

    async def may_send_as(self, account: bytes, reverse_path: Path) -> bool:
        if reverse_path == NULL_REVERSE_PATH:
            return True
        own = self.maildrop_of(account)
        try:
            # An account may have a domain that is not ours, when a checker has wider knowledge than the address book.
            if self._canonical(f"{reverse_path.local_part}@{reverse_path.domain}") == own:
                return True
            address = self._address(reverse_path)
        except (ValueError, NoSuchMaildrop, RelayDenied):
            return False
        return own in await self._residents(address)

    # -- who

    async def _residents(self, address: str) -> Collection[str]:
        """The maildrops that an address of ours means, each once, without the catch-all; none if nobody has it."""
        for name in _spellings(address):
            if name in self._aliases:
                return await self._alias_residents(name)
            if await self._has_account(name):
                return (name,)
            if name.startswith("postmaster@"):
                return await self._postmaster_residents(name)
        return ()

    async def _has_account(self, name: str) -> bool:
        if await self._accounts.has_account(name):
            return True
        # Its own name may have no domain, as in `maildrop_of`.
        local_part, _, domain = name.rpartition("@")
        return domain == self._first_domain and await self._accounts.has_account(local_part)

    async def _alias_residents(self, alias: str) -> Collection[str]:
        found: dict[str, None] = {}
        for target in self._aliases[alias]:
            if target != alias:
                found.update(dict.fromkeys(await self._residents(target)))
            elif await self._has_account(alias):
                found[alias] = None
        return tuple(found)

    async def _postmaster_residents(self, name: str) -> Collection[str]:
        """RFC 5321 4.5.1: postmaster exists wherever mail is taken, whatever the configuration has forgotten."""
        found: Collection[str] = ()
        if name != self._postmaster:
            found = await self._residents(self._postmaster)
        return found or (self._postmaster_maildrop,)

    # -- addresses

    def _address(self, path: Path) -> str:
        """
        A path's address in canonical form, with one of our domains.

        @raise NoSuchMaildrop: nobody can have such a name.
        @raise RelayDenied: not our domain.
        """
        local_part = canonical_local_part(path.local_part)
        if not path.domain and local_part == "postmaster":
            return self._postmaster_maildrop
        try:
            domain = canonical_domain(path.domain)
        except ValueError:
            raise RelayDenied() from None
        if domain not in self._domains:
            raise RelayDenied()
        # A quoted `"user@other"` must not be read as an address of its own by whoever keeps the accounts.
        if not local_part or "@" in local_part:
            raise NoSuchMaildrop()
        return f"{local_part}@{domain}"

    def _canonical(self, address: str) -> str:
        local_part, at, domain = address.rpartition("@")
        if not at:
            return f"{canonical_local_part(address)}@{self._first_domain}"
        return f"{canonical_local_part(local_part)}@{canonical_domain(domain)}"

    def _own(self, address: str) -> str:
        """A configured address in canonical form.  @raise ValueError: it is not ours."""
        canonical = self._canonical(address)
        self._own_domain(canonical.rpartition("@")[2])
        return canonical

    def _own_domain(self, domain: str) -> str:
        canonical = canonical_domain(domain)
        if canonical not in self._domains:
            ours = ", ".join(sorted(self._domains))
            raise ValueError(f"{domain} is none of our domains ({ours}), and this host sends no mail elsewhere yet")
        return canonical

    # -- loops

    def _refuse_loops(self) -> None:
        names = self._aliases.keys() | {f"postmaster@{domain}" for domain in self._domains}
        ways = {name: [self._known(target, names) for target in self._leads_to(name)] for name in names}
        try:
            TopologicalSorter(ways).prepare()
        except CycleError as error:
            raise ValueError(f"aliases lead back to themselves: {' -> '.join(reversed(error.args[1]))}") from None

    def _leads_to(self, name: str) -> Sequence[str]:
        """Where a look-up goes on from an alias or a postmaster's address."""
        targets = self._aliases.get(name)
        if targets is None:
            return (self._postmaster,) if name != self._postmaster else ()
        return [target for target in targets if target != name] if len(targets) > 1 else targets

    def _known(self, target: str, names: Collection[str]) -> str:
        """The name a target is looked up by, taking it that no subaddress has an account of its own."""
        return next((name for name in _spellings(target) if name in names), target)
