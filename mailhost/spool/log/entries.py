"""
What is handed to the committer, and what a record means for the index.

The same rows come of an entry when it is committed and of its record when it is replayed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mailhost.octets import Measure
from mailhost.spool.log import records
from mailhost.spool.log.index import Binding, Change, Deletion, MessageRow
from mailhost.spool.log.records import HEADER_OCTETS, Record


class Entry:
    """A record to be: metadata, content and what it means."""

    __slots__ = ("content", "content_checksum", "content_octets", "kind", "metadata")

    heavy = False
    """Too much work for the reactor's thread."""

    def __init__(self, kind: int, metadata: bytes) -> None:
        self.kind = kind
        self.metadata = metadata
        self.content: Sequence[bytes] = ()
        self.content_octets = 0
        self.content_checksum = 0

    @property
    def length(self) -> int:
        return HEADER_OCTETS + len(self.metadata) + self.content_octets

    def index(self, change: Change, segment: int, offset: int) -> None:
        """Put the record's rows into a change."""
        raise NotImplementedError


class MessageEntry(Entry):
    __slots__ = ("_drops", "_time", "_unique_id")

    def __init__(self, metadata: bytes, time: int, unique_id: str, drops: Sequence[tuple[int, int]]) -> None:
        """@param drops: maildrop and octets of each copy."""
        super().__init__(records.MESSAGE, metadata)
        self._time = time
        self._unique_id = unique_id
        self._drops = drops

    def index(self, change: Change, segment: int, offset: int) -> None:
        length = HEADER_OCTETS + len(self.metadata) + self.content_octets
        for maildrop, octets in self._drops:
            # A tuple of the same shape costs a third of a named one.
            row: Any = (maildrop, self._time, self._unique_id, octets, segment, offset, length)
            change.messages.append(row)


class DeletionEntry(Entry):
    __slots__ = ("_deletion",)

    def __init__(self, deletion: Deletion) -> None:
        metadata = {
            "maildrop": records.id_text(deletion.maildrop),
            "time": deletion.deleted,
            "messages": deletion.messages,
        }
        super().__init__(records.DELETION, records.pack_metadata(metadata))
        self._deletion = deletion

    @property
    def heavy(self) -> bool:  # type: ignore[override]
        return len(self._deletion.messages) > 200

    def index(self, change: Change, segment: int, offset: int) -> None:
        change.deletions.append(self._deletion)


class CatalogueEntry(Entry):
    __slots__ = ("_binding",)

    heavy = True  # seldom, and its waiter is in no hurry

    def __init__(self, binding: Binding) -> None:
        metadata: dict[str, Any] = {
            "maildrop": records.id_text(binding.maildrop),
            "time": binding.named,
            "name": binding.name,
        }
        if binding.removed:
            metadata["removed"] = True
        super().__init__(records.CATALOGUE, records.pack_metadata(metadata))
        self._binding = binding

    def index(self, change: Change, segment: int, offset: int) -> None:
        change.bindings.append(self._binding)


def octets_of_fields(fields: bytes) -> int:
    """Of the plain form."""
    if b"\r\n." not in fields and fields[:1] != b".":
        return len(fields)
    measure = Measure()
    measure.feed(fields)
    return measure.octets


def replayed(change: Change, segment: int, record: Record, metadata: Mapping[str, Any]) -> None:
    """Put the rows of a record that was read into a change."""
    if record.kind == records.MESSAGE:
        for maildrop, fields in metadata["drops"].items():
            octets = metadata["octets"] + octets_of_fields(records.fields_octets(fields))
            change.messages.append(
                MessageRow(
                    int(maildrop, 16),
                    metadata["time"],
                    metadata["unique_id"],
                    octets,
                    segment,
                    record.offset,
                    record.length,
                )
            )
    elif record.kind == records.DELETION:
        messages = [(time, unique_id) for time, unique_id in metadata["messages"]]
        change.deletions.append(Deletion(int(metadata["maildrop"], 16), metadata["time"], messages))
    elif record.kind == records.CATALOGUE:
        removed = metadata.get("removed", False)
        change.bindings.append(Binding(int(metadata["maildrop"], 16), metadata["name"], metadata["time"], removed))
