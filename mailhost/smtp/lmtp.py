"""
LMTP (RFC 2033): SMTP's dialogue between a mail system's own parts, where each forward-path has its own outcome.

A host that hands mail on by LMTP keeps no copy of what it got no refusal for, so that no queue is needed here: one maildrop can be
refused while the others have the message.  All else is SMTP's, by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mailhost.envelope import Outcome
from mailhost.octets import Unread
from mailhost.refusal import Refusal
from mailhost.smtp import replies
from mailhost.smtp.content import Content
from mailhost.smtp.replies import Reply
from mailhost.smtp.session import Command, Session, as_refusal
from mailhost.smtp.transaction import Transaction
from mailhost.wire.conversation import Then


class LMTPSession(Session):
    """As `Session`, with LHLO for EHLO and HELO (RFC 2033 4.1), and as many replies to content as forward-paths (4.2)."""

    __slots__ = ()

    _HELLO_FIRST: ClassVar[Reply] = replies.LHLO_FIRST
    _HELP: ClassVar[Reply] = replies.LMTP_HELP

    async def _data(self, argument: bytes) -> Reply:
        transaction = self._transaction
        if transaction is not None and transaction.asked and not transaction.forward_paths:
            return replies.NO_FORWARD_PATHS_IN_LMTP
        return await super()._data(argument)

    async def _take_content(self, transaction: Transaction, content: Content, unread: Unread) -> Reply | None:
        try:
            return await super()._take_content(transaction, content, unread)
        except Exception as failure:
            if self._transaction is not None:
                raise  # content has not ended: nobody waits for several replies yet
            return _for_each(self.bug(failure), transaction)

    def _not_taken(self, refusal: Refusal, transaction: Transaction) -> Reply:
        return _for_each(super()._not_taken(refusal, transaction), transaction)

    def _committed(self, transaction: Transaction, outcome: Outcome, octets: int) -> Reply:
        accepted = replies.accepted(outcome.unique_id)
        paths = transaction.forward_paths
        refused = {place: self._refused(why, transaction, place) for place, why in outcome.refused.items()}
        if len(refused) < len(paths):
            taken = tuple(path for place, path in enumerate(paths) if place not in refused)
            self._accept(transaction, outcome, octets, taken)
        return _joined([refused.get(place, accepted) for place in range(len(paths))])

    def _refused(self, why: Exception, transaction: Transaction, place: int) -> Reply:
        """The reply for one forward-path that got nothing."""
        path = transaction.forward_paths[place]
        return self._negative(self._refuse("content", as_refusal(why), transaction, forward_path=path))

    _COMMANDS: ClassVar[Mapping[bytes, Command]] = {
        b"LHLO": Session._COMMANDS[b"EHLO"],
        **{verb: command for verb, command in Session._COMMANDS.items() if verb not in (b"EHLO", b"HELO")},
        b"DATA": Session._COMMANDS[b"DATA"]._replace(run=_data),
    }


def _for_each(reply: Reply, transaction: Transaction) -> Reply:
    """One and the same for every forward-path."""
    return reply._replace(octets=reply.octets * len(transaction.forward_paths))


def _joined(several: list[Reply]) -> Reply:
    """Several replies as they follow each other; the connection is closed if one of them says so."""
    last = next((reply for reply in several if reply.then is not Then.GO_ON), several[-1])
    return last._replace(octets=b"".join(reply.octets for reply in several))
