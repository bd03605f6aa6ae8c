"""On what terms each account uses its maildrop: its own, else its domain's, else the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailhost.delivery.address_book import canonical_domain
from mailhost.interfaces import IAccountTerms
from mailhost.limits import Offered, OwnTerms, Terms


class TermsBook:
    """Looked up at every login, and at every CAPA before one."""

    def __init__(
        self,
        *,
        first_domain: str,
        default: Terms = Terms(),  # noqa: B008 - a value
        domains: Mapping[str, OwnTerms] | None = None,
        accounts: Sequence[IAccountTerms] = (),
    ) -> None:
        """
        @param first_domain: an account without a domain belongs to this one.
        @param domains: what differs there from the default.
        @param accounts: asked in order; the first that says anything of an account decides.
        @raise ValueError: a domain that is none.
        """
        self._first_domain = canonical_domain(first_domain)
        self._default = default
        self._domains = {canonical_domain(domain): default.but(own) for domain, own in (domains or {}).items()}
        self._accounts = accounts

    async def of(self, maildrop: str) -> Terms:
        """@param maildrop: its name."""
        local_part, _, domain = maildrop.rpartition("@")
        terms = self._domains.get(domain, self._default)
        for accounts in self._accounts:
            own = await accounts.terms(maildrop)
            if not own and domain == self._first_domain:
                own = await accounts.terms(local_part)
            if own:
                return terms.but(own)
        return terms

    def offered(self) -> Offered:
        """What can be said before anybody knows whose login it will be."""
        every = {self._default, *self._domains.values()}
        for accounts in self._accounts:
            every |= {terms.but(own) for terms in list(every) for own in accounts.kinds_of_terms()}
        return Offered.of(every)

    def may_expire(self) -> bool:
        """Whether any account's messages do."""
        return self.offered().terms.expire_days is not None
