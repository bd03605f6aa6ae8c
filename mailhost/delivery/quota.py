"""
Quotas: how much each maildrop may hold, looked at when a forward-path is to be taken.

The edge is soft.  A message is weighed as its sender declares it (SIZE, RFC 1870) or else not at all, and messages that arrive at the
same time do not know of each other; what has been taken at RCPT is never refused after its content.  So a maildrop can pass its quota
by what was under way at that moment, for a sender that declares nothing by one message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mailhost.delivery.address_book import canonical_domain
from mailhost.interfaces import IQuotas, ISpool
from mailhost.limits import Quota
from mailhost.refusal import MaildropFull

_NO_LIMIT = Quota()


class Quotas:
    """Which quota holds for a maildrop: its account's own, else its domain's, else the default."""

    def __init__(
        self,
        *,
        first_domain: str,
        default: Quota = _NO_LIMIT,
        domains: Mapping[str, Quota] | None = None,
        accounts: Sequence[IQuotas] = (),
        permanent: bool = False,
    ) -> None:
        """
        @param first_domain: an account without a domain belongs to this one.
        @param accounts: asked in order; the first that knows decides.
        @param permanent: a full maildrop is final (552), so that its senders learn of it at once; else they try again (452).
        @raise ValueError: a domain that is none.
        """
        self._first_domain = canonical_domain(first_domain)
        self._default = default
        self._domains = {canonical_domain(domain): quota for domain, quota in (domains or {}).items()}
        self._accounts = accounts
        self._permanent = permanent

    async def check(self, spool: ISpool, maildrop: str, octets: int) -> None:
        """
        @param maildrop: its name.
        @param octets: of the message that is to come, as far as they are known; else 0.
        @raise MaildropFull: it would hold more messages than it may, or more octets, or it does already.
        """
        quota = await self._quota(maildrop)
        if quota == _NO_LIMIT:
            return
        if quota.octets is not None and octets > quota.octets:
            raise _full("the message is larger than all it may hold", permanent=True)
        held = await spool.totals(maildrop)
        if quota.messages is not None and held.messages >= quota.messages:
            raise _full(permanent=self._permanent)
        if quota.octets is not None and held.octets + max(octets, 1) > quota.octets:
            raise _full(permanent=self._permanent)

    async def _quota(self, maildrop: str) -> Quota:
        local_part, _, domain = maildrop.rpartition("@")
        for accounts in self._accounts:
            quota = await accounts.quota(maildrop)
            if quota is None and domain == self._first_domain:
                quota = await accounts.quota(local_part)
            if quota is not None:
                return quota
        return self._domains.get(domain, self._default)


def _full(detail: str = "", *, permanent: bool) -> MaildropFull:
    refusal = MaildropFull(detail)
    refusal.temporary = not permanent
    return refusal
