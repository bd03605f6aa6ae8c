"""A process that starts beside others that are at work."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread

from mailhost.events import Notice, Trouble
from mailhost.spool.files import Files
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.using import ANN, LogSpoolTestCase, deliver, subjects


class _BusyNeighbour(Files):
    """Whenever the segments are listed, another process begins a new one right behind."""

    def __init__(self, other: LogSpool) -> None:
        self._other = other
        self.delivered = 0

    def names(self, directory: str) -> list[str]:
        found = super().names(directory)
        if directory.endswith("segments"):
            blockingCallFromThread(reactor, self._deliver)
            self.delivered += 1
        return found

    def _deliver(self) -> Any:
        return Deferred.fromCoroutine(deliver(self._other, f"m{self.delivered}", [ANN], 100))


class StartBesideTests(LogSpoolTestCase):
    async def test_segments_made_meanwhile(self) -> None:
        """Segments that others make while a process starts are not missed, so the index is not built anew beneath everybody."""
        directory = self.new_directory()
        other = await self.started(directory, segment_octets=1)
        files = _BusyNeighbour(other)
        spool = await self.started(directory, files=files)
        assert files.delivered >= 2
        told = [event.what for event in self.events if isinstance(event, Trouble | Notice)]
        assert not [what for what in told if "built anew" in what]
        assert await subjects(spool) == [f"m{number}" for number in range(files.delivered)]
