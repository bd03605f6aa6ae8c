"""Staged messages: a small one is held in memory until it is committed with others, a large one goes to a file as it arrives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from mailhost.envelope import Outcome
from mailhost.interfaces import IStagedMessage
from mailhost.spool.files import Files
from mailhost.spool.log.threads import shielded
from mailhost.spool.maildir.committer import Committer
from mailhost.spool.maildir.forms import PlainForm
from mailhost.spool.maildir.group import Delivery, Drop
from mailhost.spool.maildir.large import LargeFile


class Staging:
    """What staged messages need of the spool."""

    def __init__(
        self,
        files: Files,
        committer: Committer,
        large_octets: int,
        begin_large: Callable[[Sequence[Drop]], LargeFile],
    ) -> None:
        self.files = files
        self.committer = committer
        self.large_octets = large_octets
        self.begin_large = begin_large


@implementer(IStagedMessage)
class StagedMessage:
    """States: gathering in memory; streaming to a file; ended."""

    __slots__ = ("_blocks", "_changes", "_drops", "_ended", "_form", "_large", "_staging", "_unique", "unique_id")

    def __init__(self, staging: Staging, unique_id: str, unique: str, drops: Sequence[Drop], changes: int) -> None:
        """
        @param unique: the unique name of its files.
        @param changes: of names, before the maildrops were looked up.
        """
        self.unique_id = unique_id
        self._unique = unique
        self._staging = staging
        self._drops = drops
        self._changes = changes
        self._form = PlainForm()
        self._blocks: list[bytes] = []
        self._large: LargeFile | None = None
        self._ended = False

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._ended or not octets:
            return None
        plain = self._form.feed(octets)
        if self._large is not None:
            return self._large.write(plain)
        self._blocks.append(plain)
        if self._form.octets <= self._staging.large_octets or not self._drops:
            return None
        self._large = self._staging.begin_large(self._drops)
        blocks, self._blocks = self._blocks, []
        return self._large.write(b"".join(blocks))

    def commit(self) -> Deferred[Outcome]:
        if self._ended:
            raise AssertionError("a staged message ends once")
        self._ended = True
        self._staging.files.fault_point("content.written")
        if self._large is not None:
            return shielded(Deferred.fromCoroutine(self._commit_large(self._large)))
        delivery = self._delivery()
        delivery.blocks, self._blocks = self._blocks, []
        return self._staging.committer.commit(delivery).addCallback(self._outcome)

    async def _commit_large(self, large: LargeFile) -> Outcome:
        await large.finish()
        delivery = self._delivery()
        delivery.is_staged = True
        await self._staging.committer.commit(delivery)
        return self._outcome(None)

    def _delivery(self) -> Delivery:
        delivery = Delivery(self._unique, self._drops, self._changes)
        delivery.octets = self._form.octets
        delivery.all_crlf = self._form.all_crlf
        return delivery

    def _outcome(self, _: None) -> Outcome:
        return Outcome(self.unique_id)

    def abort(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._blocks = []
        if self._large is not None:
            self._large.abort()
