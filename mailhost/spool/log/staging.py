"""
Messages on their way in.

A small message is held in memory until it is committed with others.  One that grows beyond `large_octets` moves to a file of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from zlib import crc32

from twisted.internet.defer import Deferred, fail
from zope.interface import implementer

from mailhost.envelope import Envelope, Outcome
from mailhost.interfaces import IStagedMessage
from mailhost.octets import Measure
from mailhost.refusal import Refusal, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.catalogue import Catalogue
from mailhost.spool.log.committer import Committer
from mailhost.spool.log.entries import MessageEntry, octets_of_fields
from mailhost.spool.log.room import Room


class Drop:
    """One maildrop's copy of a message."""

    __slots__ = ("fields", "maildrop", "name")

    def __init__(self, maildrop: int, name: str, fields: bytes) -> None:
        self.maildrop = maildrop
        self.name = name
        self.fields = fields


class ILarge(Protocol):
    """A message in a file of its own, see `large.LargeFile`."""

    def write(self, octets: bytes) -> Deferred[None] | None: ...

    def finish(self, entry: Callable[[int], MessageEntry]) -> Deferred[None]: ...

    def abort(self) -> None: ...


class Staging:
    """What staged messages need of the spool."""

    def __init__(
        self,
        files: Files,
        catalogue: Catalogue,
        committer: Committer,
        room: Room,
        large_octets: int,
        begin_large: Callable[[int], ILarge],
    ) -> None:
        """@param begin_large: a new file for a message, given the octets its metadata will need."""
        self.room = room
        self.files = files
        self.catalogue = catalogue
        self.committer = committer
        self.large_octets = large_octets
        self.begin_large = begin_large


@implementer(IStagedMessage)
class StagedMessage:
    """
    States: gathering in memory; streaming to a file; ended.

    Everything about the content is counted as it passes, so that commit has nothing left to look at.
    """

    __slots__ = (
        "_blocks",
        "_catalogue_changes",
        "_checksum",
        "_drops",
        "_ended",
        "_envelope",
        "_flags",
        "_large",
        "_measure",
        "_octets",
        "_refusal",
        "_staging",
        "_time",
        "unique_id",
    )

    def __init__(
        self, staging: Staging, time: int, unique_id: str, envelope: Envelope, drops: list[Drop], flags: str = ""
    ) -> None:
        self._staging = staging
        self._time = time
        self.unique_id = unique_id
        self._envelope = envelope
        self._flags = flags
        self._drops = drops
        self._catalogue_changes = staging.catalogue.changes
        self._blocks: list[bytes] = []
        self._octets = 0
        self._checksum = 0
        self._measure = Measure()
        self._large: ILarge | None = None
        self._refusal: Refusal | None = None
        self._ended = False

    def write(self, octets: bytes) -> Deferred[None] | None:
        if self._ended or not octets:
            return None
        self._measure.feed(octets)
        self._checksum = crc32(octets, self._checksum)
        self._octets += len(octets)
        if self._large is not None:
            return self._write_large(octets)
        self._blocks.append(octets)
        if self._octets > self._staging.large_octets:
            return self._move_to_file()
        return None

    def _write_large(self, octets: bytes) -> Deferred[None] | None:
        assert self._large is not None
        room = self._staging.room
        room.count(len(octets))
        if room.refusal is not None and self._refusal is None:
            self._refusal = room.refusal
            self._large.abort()  # it takes nothing more, and gives back what it has
        return self._large.write(octets)

    def _move_to_file(self) -> Deferred[None] | None:
        self._large = self._staging.begin_large(len(records.pack_metadata(self._metadata())) + 64)
        blocks, self._blocks = self._blocks, []
        return self._large.write(b"".join(blocks))

    def commit(self) -> Deferred[Outcome]:
        if self._ended:
            raise AssertionError("a staged message ends once")
        self._ended = True
        self._staging.files.fault_point("content.written")
        if self._catalogue_changes != self._staging.catalogue.changes:
            return Deferred.fromCoroutine(self._commit_checked())
        return self._commit()

    async def _commit_checked(self) -> Outcome:
        """A name has changed since the message was staged: for none of ours, if all still mean the same."""
        try:
            for drop in self._drops:
                if await self._staging.catalogue.find(drop.name) != drop.maildrop:
                    raise SpoolUnavailable(cause=f"maildrop {drop.name} was renamed or removed meanwhile")
        except BaseException:
            self._forget()
            raise
        return await self._commit()

    def _commit(self) -> Deferred[Outcome]:
        refusal = self._refusal or self._staging.room.refusal
        if refusal is not None:
            self._forget()
            return fail(refusal)
        if self._large is not None:
            done = self._large.finish(self._entry)
        else:
            self._staging.room.count(self._octets)
            entry = self._entry()
            entry.content, self._blocks = self._blocks, []
            done = self._staging.committer.commit(entry)
        return done.addCallback(self._outcome)

    def _outcome(self, _: None) -> Outcome:
        return Outcome(self.unique_id)

    def _entry(self, width: int = 0) -> MessageEntry:
        """@param width: octets that the metadata takes up in a file of its own."""
        octets = self._measure.octets
        drops = [(drop.maildrop, octets + octets_of_fields(drop.fields)) for drop in self._drops]
        metadata = records.pack_metadata(self._metadata(), width)
        entry = MessageEntry(metadata, self._time, self.unique_id, drops)
        entry.content_octets = self._octets
        entry.content_checksum = self._checksum
        return entry

    def _metadata(self) -> Mapping[str, Any]:
        envelope, measure = self._envelope, self._measure
        metadata: dict[str, Any] = {
            "unique_id": self.unique_id,
            "time": self._time,
            "reverse_path": envelope.reverse_path,
            "forward_paths": envelope.forward_paths,
            "octets": measure.octets,
            "header_octets": measure.header_octets,
            "dots": measure.dots,
            "drops": {records.id_text(drop.maildrop): records.fields_text(drop.fields) for drop in self._drops},
        }
        if envelope.parameters:
            metadata["parameters"] = envelope.parameters
        if envelope.forward_parameters:
            metadata["forward_parameters"] = envelope.forward_parameters
        if self._flags:
            metadata["flags"] = self._flags
        return metadata

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            self._forget()

    def _forget(self) -> None:
        self._blocks = []
        if self._large is not None:
            self._large.abort()
