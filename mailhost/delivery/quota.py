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
        domains: Sequence[str],
        default: Quota = _NO_LIMIT,
        of_domains: Mapping[str, Quota] | None = None,
        of_accounts: Sequence[IQuotas] = (),
        permanent: bool = False,
    ) -> None:
        """
        @param domains: ours; an account without a domain belongs to the first one.
        @param of_accounts: asked in order; the first that knows decides.
        @param permanent: a full maildrop is final (552), so that its senders learn of it at once; else they try again (452).
        @raise ValueError: a quota is for a domain that is not ours.
        """
        ours = [canonical_domain(domain) for domain in domains]
        self._first_domain = ours[0]
        self._default = default
        self._of_domains = {canonical_domain(domain): quota for domain, quota in (of_domains or {}).items()}
        self._of_accounts = of_accounts
        self._permanent = permanent
        for domain in self._of_domains:
            if domain not in ours:
                raise ValueError(f"{domain} is none of our domains ({', '.join(ours)})")

    @property
    def hold(self) -> bool:
        """Whether there are any now; where there are none, no message pays for them."""
        if self._of_domains or self._default != _NO_LIMIT:
            return True
        return any([accounts.has_quotas for accounts in self._of_accounts])  # noqa: C419 (a generator costs more)

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
        for accounts in self._of_accounts:
            quota = await accounts.quota(maildrop)
            if quota is None and domain == self._first_domain:
                quota = await accounts.quota(local_part)
            if quota is not None:
                return quota
        return self._of_domains.get(domain, self._default)


def _full(detail: str = "", *, permanent: bool) -> MaildropFull:
    refusal = MaildropFull(detail)
    refusal.temporary = not permanent
    return refusal
