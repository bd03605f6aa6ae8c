"""Disks that fail: what the client is told, what is kept, and how the spool comes back by itself."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from mailhost.envelope import Copy
from mailhost.events import Trouble
from mailhost.refusal import Refusal, SpoolFull, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import watch
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.disk import FailingDisk
from tests.spool.log.using import ANN, ENVELOPE, LogSpoolTestCase, content_of, delete, deliver, subjects


class FailingTestCase(LogSpoolTestCase):
    async def failing(self, **options: Any) -> tuple[LogSpool, FailingDisk]:
        disk = FailingDisk()
        spool = await self.started(self.new_directory(), files=disk, **options)
        await spool.create(ANN)
        await deliver(spool, "before")
        return spool, disk

    async def refused(self, spool: LogSpool, *subjects: str) -> list[type[Refusal]]:
        """Deliver at once.  @return: what was refused, as kinds of refusal."""
        kinds: list[type[Refusal]] = []
        work = [Deferred.fromCoroutine(deliver(spool, subject)) for subject in subjects]
        for one in work:
            one.addErrback(lambda failure: kinds.append(type(failure.value)))
        await gatherResults(work)
        return kinds

    async def mended(self, spool: LogSpool) -> None:
        while spool._committer.refusal is not None:
            await deferLater(reactor, 0.05)

    async def everywhere(self, spool: LogSpool) -> list[str]:
        """What is in the maildrop now, and, the same, after a crash at this moment, and after one that took the index too."""
        found = await subjects(spool)
        left = self.killed(spool._layout.root)
        assert await self.subjects_in(left) == found
        left = self.killed(spool._layout.root)
        for name in os.listdir(left):
            if name.startswith("index"):
                os.unlink(f"{left}/{name}")
        assert await self.subjects_in(left) == found
        return found


class FailedGroupTests(FailingTestCase):
    async def test_sync(self) -> None:
        """A sync that fails refuses all that waited for it, and the next message is taken."""
        spool, disk = await self.failing()
        disk.fail("sync")
        assert await self.refused(spool, "one", "two", "three") == [SpoolUnavailable] * 3
        assert await self.refused(spool, "after") == []
        assert await self.everywhere(spool) == ["before", "after"]
        assert [event for event in self.events if isinstance(event, Trouble)]

    async def test_sync_that_cannot_be_cut(self) -> None:
        """The same where the segment cannot be cut back: what was refused stands in the file, and the fence keeps it out."""
        spool, disk = await self.failing()
        disk.truncations_fail = True
        disk.fail("sync")
        assert await self.refused(spool, "refused") == [SpoolUnavailable]
        disk.truncations_fail = False
        assert await self.refused(spool, "after") == []
        assert await self.everywhere(spool) == ["before", "after"]

    async def test_write(self) -> None:
        """A write that fails half way is a failed group."""
        spool, disk = await self.failing()
        disk.fail("write")
        assert await self.refused(spool, "one") == [SpoolUnavailable]
        assert await self.refused(spool, "after") == []
        assert await self.everywhere(spool) == ["before", "after"]

    async def test_in_the_turn(self) -> None:
        """The same when the committer writes in the reactor's own turn."""
        spool, disk = await self.failing()
        spool._committer._pace.in_turn = True
        for operation in "write", "sync":
            disk.fail(operation)
            spool._committer._pace.in_turn = True
            assert await self.refused(spool, "refused") == [SpoolUnavailable]
        assert await self.refused(spool, "after") == []
        assert await self.everywhere(spool) == ["before", "after"]

    async def test_deletion(self) -> None:
        """A QUIT whose sync failed has removed nothing."""
        spool, disk = await self.failing()
        disk.fail("sync")
        try:
            await delete(spool, [1])
        except SpoolUnavailable:
            assert await self.everywhere(spool) == ["before"]
        else:
            self.fail("acknowledged")

    async def test_full_for_a_moment(self) -> None:
        """A full disk on which the cut-off group made room again: the messages are tried once more and taken."""
        spool, disk = await self.failing()
        disk.fail("write", errno.ENOSPC)
        assert await self.refused(spool, "one", "two") == []
        assert await self.everywhere(spool) == ["before", "one", "two"]

    async def test_full(self) -> None:
        """A full disk refuses for a while, at the staging already, and the spool comes back by itself when there is room."""
        spool, disk = await self.failing()
        disk.fail("write", errno.ENOSPC, times=1000)
        assert await self.refused(spool, "one", "two") == [SpoolFull] * 2
        assert await self.refused(spool, "three") == [SpoolFull]
        disk.mend()
        await self.mended(spool)
        assert await self.refused(spool, "after") == []
        assert await self.everywhere(spool) == ["before", "after"]

    async def test_quota(self) -> None:
        """A quota of the file system's is a full disk."""
        spool, disk = await self.failing()
        disk.fail("write", errno.EDQUOT, times=1000)
        assert await self.refused(spool, "one") == [SpoolFull]
        disk.mend()
        await self.mended(spool)

    async def test_until_a_fence_is_written(self) -> None:
        """While no fence can be written nothing is taken; then the spool comes back, and what was refused does not."""
        for operation in "create", "sync_directory", "sync":
            spool, disk = await self.failing()
            disk.truncations_fail = True
            disk.fail("sync")
            disk.fail(operation, times=3)
            assert await self.refused(spool, "refused") == [SpoolUnavailable], operation
            assert await self.refused(spool, "refused") == [SpoolUnavailable], operation
            await self.mended(spool)
            assert disk.has_failed, operation
            disk.truncations_fail = False
            assert await self.refused(spool, "after") == []
            assert await self.everywhere(spool) == ["before", "after"], operation

    async def test_a_fence_that_failed_half_way(self) -> None:
        """Two failures in a row: the second segment states both ends."""
        spool, disk = await self.failing()
        disk.truncations_fail = True
        for _ in range(2):
            disk.fail("sync")
            assert await self.refused(spool, "refused") == [SpoolUnavailable]
        disk.truncations_fail = False
        assert await self.refused(spool, "after") == []
        assert await self.everywhere(spool) == ["before", "after"]

    async def test_stop_while_refusing(self) -> None:
        """A spool whose disk is gone can be stopped."""
        spool, disk = await self.failing()
        disk.fail("sync")
        disk.fail("create", times=1000)
        assert await self.refused(spool, "refused") == [SpoolUnavailable]
        await spool.stop()

    async def test_those_behind(self) -> None:
        """Messages that gathered while the failing group was under way are decided by themselves: taken or refused, never lost."""
        spool, disk = await self.failing()
        disk.fail("sync")
        first = Deferred.fromCoroutine(self.refused(spool, "one"))
        await deferLater(reactor, 0)
        second = await self.refused(spool, "two")
        assert await first == [SpoolUnavailable]
        expected = ["before"] if second else ["before", "two"]
        assert await self.everywhere(spool) == expected


class FailedLargeMessageTests(FailingTestCase):
    async def test_each_step(self) -> None:
        """Wherever a large message fails it is refused, and nothing of it is left; small ones are not concerned."""
        steps = [("create", errno.EIO), ("write", errno.EIO), ("sync", errno.EIO), ("rename", errno.EIO)]
        steps += [("sync_directory", errno.EIO), ("write", errno.ENOSPC), ("sync", errno.EDQUOT)]
        for operation, code in steps:
            spool, disk = await self.failing(large_octets=1000)
            disk.fail(operation, code)
            kind = SpoolUnavailable if code == errno.EIO else SpoolFull
            with pytest.raises(kind):
                await deliver(spool, "large", octets=400_000)
            await deliver(spool, "small")
            assert os.listdir(spool._layout.staging) == []
            assert await self.everywhere(spool) == ["before", "small"], operation

    async def test_failure_while_writing(self) -> None:
        """A sender goes on after the failure, and hears of it at the end."""
        spool, disk = await self.failing(large_octets=1000)
        staged = await spool.stage(ENVELOPE, [Copy(ANN, b"")])
        disk.fail("write", errno.ENOSPC)
        for _ in range(30):
            room = staged.write(content_of("large", 100_000))
            if room is not None:
                await room
        with pytest.raises(SpoolFull):
            await staged.commit()


class SpoolRemovedTests(FailingTestCase):
    async def test_under_a_living_process(self) -> None:
        """Whoever deletes the spool of a host that runs gets refusals, not a host that writes into files without a name."""
        self.patch(watch, "_LOOK_SECONDS", 0.05)
        spool, _ = await self.failing()
        shutil.rmtree(spool._layout.root)
        while not [event for event in self.events if isinstance(event, Trouble) and "was removed" in event.what]:
            await deferLater(reactor, 0.05)
        assert await self.refused(spool, "one", "two") == [SpoolUnavailable] * 2

    async def test_a_segment(self) -> None:
        """Whoever deletes the segment that is being written loses what was in it, and nothing that comes after."""
        self.patch(watch, "_LOOK_SECONDS", 0.05)
        spool, _ = await self.failing()
        (name,) = os.listdir(spool._layout.segments)
        os.unlink(f"{spool._layout.segments}/{name}")
        while not [event for event in self.events if isinstance(event, Trouble)]:
            await deferLater(reactor, 0.05)
        await deliver(spool, "after")
        assert len(os.listdir(spool._layout.segments)) == 1


class FewDescriptorsTests(FailingTestCase):
    async def test_locks(self) -> None:
        """Without file descriptors a maildrop cannot be opened for the moment, and can be later."""
        spool, disk = await self.failing()
        disk.fail("open_lock", errno.EMFILE)
        with pytest.raises(SpoolUnavailable):
            await spool.open_maildrop(ANN, 0)
        (await spool.open_maildrop(ANN, 0)).release()

    async def test_reading(self) -> None:
        """The same for a segment that cannot be opened: nobody speaks of damage."""
        spool, disk = await self.failing()
        maildrop = await spool.open_maildrop(ANN, 0)
        disk.fail("open", errno.EMFILE)
        with pytest.raises(SpoolUnavailable):
            await maildrop.content(1)
        await maildrop.content(1)
        maildrop.release()
        assert not [event for event in self.events if isinstance(event, Trouble)]


class CleanedUpTests(LogSpoolTestCase):
    async def test_a_large_message_under_our_hands(self) -> None:
        """One that a starting process removed, between its making and its locking, is refused: it would have no name."""
        spool = await self.started(self.new_directory(), files=Cleaner(), large_octets=1000)
        with pytest.raises(SpoolUnavailable) as refused:
            await deliver(spool, "large", octets=400_000)
        assert "cleaned up" in str(refused.value.cause)
        await deliver(spool, "small")
        assert await subjects(spool) == ["small"]


class Cleaner(Files):
    """Removes what was made under `staging/` before its maker can lock it."""

    def create(self, path: str) -> int:
        fd = super().create(path)
        if "/staging/" in path:
            os.unlink(path)
        return fd


class BusyIndexTests(FailingTestCase):
    def writing(self, spool: LogSpool) -> Callable[[], None]:
        """Another process is in the middle of a transaction.  @return: ends it."""
        other = sqlite3.connect(spool._layout.index, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        self.addCleanup(other.close)
        return other.close

    async def test_commit_does_not_wait(self) -> None:
        """A message is acknowledged while the index is busy, and a maildrop opened after that has it."""
        spool, _ = await self.failing()
        for in_turn in True, False:
            spool._committer._pace.in_turn = in_turn
            spool._index._patient.execute("PRAGMA busy_timeout = 10")  # type: ignore[union-attr]
            end = self.writing(spool)
            await deliver(spool, f"one {in_turn}")
            await deliver(spool, f"two {in_turn}")
            assert spool._indexer.behind
            opening = Deferred.fromCoroutine(spool.open_maildrop(ANN, 0))
            await deferLater(reactor, 0.2)
            assert not opening.called
            end()
            maildrop = await opening
            assert maildrop.totals.messages == (3 if in_turn else 5)
            maildrop.release()
        assert await self.everywhere(spool) == ["before", "one True", "two True", "one False", "two False"]

    async def test_what_was_acknowledged_while_the_maildrop_was_waited_for(self) -> None:
        """A message acknowledged while a session waits for the maildrop is in it, also when the index is late."""
        spool, _ = await self.failing()
        spool._index._patient.execute("PRAGMA busy_timeout = 10")  # type: ignore[union-attr]
        first = await spool.open_maildrop(ANN, 0)
        opening = Deferred.fromCoroutine(spool.open_maildrop(ANN, 10))
        await deferLater(reactor, 0.05)
        end = self.writing(spool)
        await deliver(spool, "meanwhile")
        assert spool._indexer.behind
        # Its own release waits for the index; the holder's lock is taken away beneath it, as when its process ends.
        first._hold.release()  # type: ignore[attr-defined]
        await deferLater(reactor, 0.2)
        assert not opening.called
        end()
        second = await opening
        assert second.totals.messages == 2
        second.release()

    async def test_deletion_is_not_seen_again(self) -> None:
        """What a QUIT removed while the index was busy is seen by no later session, of no process."""
        spool, _ = await self.failing()
        other = await self.started(spool._layout.root)
        spool._index._patient.execute("PRAGMA busy_timeout = 10")  # type: ignore[union-attr]
        maildrop = await spool.open_maildrop(ANN, 0)
        await maildrop.listing()
        end = self.writing(spool)
        await maildrop.update([1])
        maildrop.release()
        opening = Deferred.fromCoroutine(other.open_maildrop(ANN, 10))
        await deferLater(reactor, 0.3)
        assert not opening.called
        end()
        second = await opening
        assert second.totals.messages == 0
        second.release()

    async def test_crash_before_the_index(self) -> None:
        """What was acknowledged and not indexed is found by the next start."""
        spool, _ = await self.failing()
        spool._index._patient.execute("PRAGMA busy_timeout = 10")  # type: ignore[union-attr]
        end = self.writing(spool)
        await deliver(spool, "acknowledged")
        left = self.killed(spool._layout.root)
        end()
        assert await self.subjects_in(left) == ["before", "acknowledged"]
