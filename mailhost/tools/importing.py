"""
Takes other programs' mail into a maildrop.

Each message keeps its date, its flags and its unique id.  What the maildrop has, or has had, under that unique id is left out, so an
import that was interrupted is begun again, and one that is done twice adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred, gatherResults

from mailhost.envelope import NO_PARAMETERS, Client, Copy, Envelope, Path
from mailhost.interfaces import IStagedMessage
from mailhost.spool.log.inspection import Progress
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.maildir.forms import WireForm
from mailhost.tools.sources import Incoming

# Commits that wait for one sync together, and their octets in memory.
_TOGETHER = 64
_OCTETS_TOGETHER = 8 * 1024 * 1024

_CLIENT = Client("import", "", 0, "import", "import")


class Imported(NamedTuple):
    added: int
    known: int
    """Those that the maildrop has, or has had."""


async def bring(spool: LogSpool, name: str, messages: Sequence[Incoming], progress: Progress) -> Imported:
    """
    By one process at a time.

    @param name: of a maildrop, made if there is none.
    @raise Refusal: those before are in the maildrop.
    """
    await spool.create(name)
    known = await spool.had(name, [message.unique_id for message in messages])
    adding = _Adding(spool, name)
    total = sum(message.octets for message in messages)
    done = 0
    for message in messages:
        if message.unique_id not in known:
            known.add(message.unique_id)
            await adding.add(message)
        done += message.octets
        progress(done, total)
    await adding.finish()
    progress(total, total)
    return Imported(adding.added, len(messages) - adding.added)


class _Adding:
    """Messages on their way in, many in one group."""

    def __init__(self, spool: LogSpool, name: str) -> None:
        self._spool = spool
        self._name = name
        self._waiting: list[Deferred[object]] = []
        self._octets = 0
        self.added = 0

    async def add(self, message: Incoming) -> None:
        staged = await self._spool.stage(
            self._envelope(message),
            [Copy(self._name, b"")],
            unique_id=message.unique_id,
            time=message.time,
            flags=message.flags,
        )
        try:
            await _write(staged, message)
        except BaseException:
            staged.abort()
            raise
        self._waiting.append(Deferred.fromCoroutine(_committed(staged)))
        self._octets += message.octets
        if len(self._waiting) >= _TOGETHER or self._octets >= _OCTETS_TOGETHER:
            await self.finish()

    async def finish(self) -> None:
        """@raise Refusal: one could not be committed; all have ended."""
        waiting, self._waiting, self._octets = self._waiting, [], 0
        await gatherResults(waiting, consumeErrors=True)
        self.added += len(waiting)

    def _envelope(self, message: Incoming) -> Envelope:
        local_part, _, domain = self._name.rpartition("@")
        return Envelope(_CLIENT, message.reverse_path, NO_PARAMETERS, (Path(local_part, domain),))


async def _write(staged: IStagedMessage, message: Incoming) -> None:
    form = WireForm(ours=False)
    for block in message.blocks():
        room = staged.write(form.feed(block))
        if room is not None:
            await room
    staged.write(form.end())


async def _committed(staged: IStagedMessage) -> object:
    return await staged.commit()
