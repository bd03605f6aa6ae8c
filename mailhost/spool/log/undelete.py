"""Brings back mail that was deleted, as long as a segment still holds it."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from mailhost.envelope import Client, Copy, Envelope, Path
from mailhost.interfaces import IStagedMessage
from mailhost.refusal import NoSuchMessage
from mailhost.spool.log import records
from mailhost.spool.log.contents import Contents, SegmentGone
from mailhost.spool.log.index import Index, Place
from mailhost.spool.log.threads import Threads

_BLOCK_OCTETS = 256 * 1024
# Nobody is connected: what a client was is not stored.
_NOBODY = Client("undelete", "", 0, "", "")

Stage = Callable[[Envelope, Sequence[Copy]], Awaitable[IStagedMessage]]


class Deleted(NamedTuple):
    """A message that was deleted and can still be had."""

    unique_id: str
    time: int
    """When it was delivered, microseconds since 1970."""
    octets: int
    deleted: int
    """When it was deleted, microseconds since 1970."""


class Undelete:
    """Lives in the reactor's thread."""

    def __init__(self, index: Index, threads: Threads, contents: Contents, stage: Stage) -> None:
        self._index = index
        self._threads = threads
        self._contents = contents
        self._stage = stage

    async def deleted(self, maildrop: int) -> list[Deleted]:
        """What of a maildrop can be had again, in the order of its deletion."""
        rows = await self._threads.run(
            self._index.read, lambda connection: connection.execute(_LISTED, (maildrop,)).fetchall()
        )
        return [Deleted(*row) for row in rows]

    async def undelete(self, maildrop: int, name: str, unique_id: str) -> str:
        """
        Deliver it again, as a new message; durable on return.

        @return: its new unique id.
        @raise NoSuchMessage: it was not deleted, or is not there any more.
        @raise Refusal: it cannot be delivered.
        """
        stored = await self._open(maildrop, unique_id)
        message = stored.metadata
        envelope = Envelope(
            _NOBODY,
            Path(*message["reverse_path"]),
            message.get("parameters", {}),
            tuple(Path(*path) for path in message["forward_paths"]),
            tuple(message.get("forward_parameters", ())),
        )
        fields = records.fields_octets(message["drops"][records.id_text(maildrop)])
        staged = await self._stage(envelope, [Copy(name, fields)])
        try:
            offset = len(fields)
            while octets := await stored.read(offset, _BLOCK_OCTETS):
                offset += len(octets)
                room = staged.write(octets)
                if room is not None:
                    await room
        except BaseException:
            staged.abort()
            raise
        await staged.commit()
        return staged.unique_id

    async def _open(self, maildrop: int, unique_id: str) -> Any:
        for _ in range(2):  # it may move in between
            place = await self._threads.run(
                self._index.read, lambda connection: _place(connection, maildrop, unique_id)
            )
            if place is None:
                break
            try:
                return await self._contents.open(maildrop, unique_id, place)
            except SegmentGone:
                continue
        raise NoSuchMessage(cause=f"{unique_id} is not held any more")


_LISTED = "SELECT unique_id, time, octets, deleted FROM deletions WHERE maildrop = ? AND segment IS NOT NULL ORDER BY deleted, time"


def _place(connection: sqlite3.Connection, maildrop: int, unique_id: str) -> Place | None:
    query = "SELECT segment, offset, length FROM deletions WHERE maildrop = ? AND unique_id = ? AND segment IS NOT NULL"
    row = connection.execute(query, (maildrop, unique_id)).fetchone()
    return Place(*row) if row else None
