"""
What was said to be done is durable at that moment: proved with a disk that knows what a power failure would leave.

After each promise the directory is written down as a power failure would leave it at that instant, and another spool starts on it.
Each of the syncs behind a promise is then taken out, and must be missed.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from mailhost.refusal import Refusal
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.disk import RecordedDisk
from tests.spool.log.using import BOB, LogSpoolTestCase, delete, deliver, subjects


class Checker:
    """Takes down every promise that a power failure at that moment would have broken."""

    def __init__(self, disk: RecordedDisk) -> None:
        self._disk = disk
        self._after: Callable[[str], None] = lambda path: None
        self.broken: list[str] = []

    async def expect(self, promise: str, names: set[str], found: dict[str, list[str]]) -> None:
        """
        @param names: of the maildrops there are.
        @param found: maildrop to the subjects in it.
        """
        parent = tempfile.mkdtemp(prefix="left-")
        try:
            self._disk.leave(parent + "/spool")
            await self._expect(parent + "/spool", promise, names, found)
        finally:
            shutil.rmtree(parent)

    async def _expect(self, directory: str, promise: str, names: set[str], found: dict[str, list[str]]) -> None:
        spool = LogSpool(directory, reactor=reactor)
        try:
            await spool.start()
        except Refusal as refusal:
            self.broken.append(f"{promise}: cannot start, {refusal.cause}")
            return
        try:
            if {name async for name in spool.maildrops()} != names:
                self.broken.append(f"{promise}: names")
            for name, expected in found.items():
                if await subjects(spool, name) != expected:
                    self.broken.append(f"{promise}: {name}")
        finally:
            await spool.stop()


class FailsOnce(RecordedDisk):
    """Fails one sync of a segment when told to, and cannot cut what was written."""

    fails = False

    def sync(self, fd: int) -> None:
        if self.fails:
            self.fails = False
            self._octets[os.fstat(fd).st_ino] = os.pread(
                fd, os.fstat(fd).st_size, 0
            )  # the worst: it was written after all
            raise OSError(errno.EIO, "sync failed")
        super().sync(fd)

    def truncate(self, fd: int, octets: int) -> None:
        if octets >= os.fstat(fd).st_size:
            return super().truncate(fd, octets)
        raise OSError(errno.EIO, "truncation failed")


async def history(directory: str, disk: FailsOnce, check: Checker) -> None:
    """Every kind of promise, one after the other."""
    spool = LogSpool(directory, reactor=reactor, files=disk, segment_octets=1500, large_octets=5000)
    await spool.start()
    try:
        await spool.create("ann@example.test")
        ann = "ann@example.test"
        await check.expect("create", {ann}, {})
        for subject in "one", "two", "three":
            await deliver(spool, subject)
            await check.expect(f"commit of {subject}", {ann}, {})
        await check.expect("three commits", {ann}, {ann: ["one", "two", "three"]})
        await gatherResults([Deferred.fromCoroutine(deliver(spool, str(number))) for number in range(10)])
        all_of_it = ["one", "two", "three", *map(str, range(10))]
        await check.expect("commits at once", {ann}, {ann: all_of_it})
        await delete(spool, range(1, 14))
        await check.expect("deletion", {ann}, {ann: []})
        await deliver(spool, "large", octets=20_000)
        await check.expect("commit of a large message", {ann}, {ann: ["large"]})
        await spool.rename(ann, BOB)
        await check.expect("rename", {BOB}, {BOB: ["large"]})
        await failing(spool, disk)
        await check.expect("refusal after a failed sync", {BOB}, {BOB: ["large"]})
        await deliver(spool, "after", [BOB])
        await check.expect("commit after a failed sync", {BOB}, {BOB: ["large", "after"]})
        await spool.remove(BOB)
        await check.expect("removal", set(), {})
    finally:
        await spool.stop()


async def failing(spool: LogSpool, disk: FailsOnce) -> None:
    await deliver(spool, "before", [BOB])
    await delete(spool, [2], BOB)
    disk.fails = True
    try:
        await deliver(spool, "refused", [BOB])
    except Refusal:
        return
    raise AssertionError("a failed sync was acknowledged")


class DurableTests(LogSpoolTestCase):
    timeout = 120

    async def broken_without(self, *site: str) -> list[str]:
        directory = self.new_directory()
        disk = FailsOnce(directory)
        disk.swallowed = set(site)
        check = Checker(disk)
        await history(directory, disk, check)
        assert disk.swallowed <= disk.sites
        self.sites = disk.sites
        return check.broken

    async def test_every_promise(self) -> None:
        """Whatever was acknowledged is durable at that moment, and what was refused after a failed sync never comes back."""
        assert await self.broken_without() == []

    async def test_every_site_is_known(self) -> None:
        """No sync is asked for that the tests below do not take out, but for those that no promise rests on."""
        await self.broken_without()
        tested = {value for name, value in vars(type(self)).items() if name.startswith("SITE_")}
        without_promise = {"sync by Segment.seal", "sync by Layout.write_version"}
        assert self.sites - without_promise == tested

    SITE_GROUP = "sync by Writer.write"
    SITE_SEGMENT = "sync_directory by Segment.create"
    SITE_FENCE = "sync by Segment._state"
    SITE_LARGE = "sync by LargeFile._finish_in_thread"
    SITE_LARGE_NAME = "sync_directory by LargeFile._finish_in_thread"
    SITE_SPOOL = "sync_directory by Layout.prepare"

    async def test_without_the_sync_of_a_group(self) -> None:
        """Commits, deletions and changes of names rest on the sync of their group."""
        broken = " ".join(await self.broken_without(self.SITE_GROUP))
        for promise in "create", "commits", "deletion", "rename", "removal":
            assert promise in broken

    async def test_without_the_sync_of_a_segments_name(self) -> None:
        """A segment nobody can find is as good as none."""
        assert "three commits" in " ".join(await self.broken_without(self.SITE_SEGMENT))

    async def test_without_the_sync_of_a_fence(self) -> None:
        """What was refused after a failed sync comes back without a durable fence."""
        assert "refusal after a failed sync" in " ".join(await self.broken_without(self.SITE_FENCE))

    async def test_without_the_sync_of_a_large_message(self) -> None:
        """A large message rests on its own sync."""
        assert "large" in " ".join(await self.broken_without(self.SITE_LARGE))

    async def test_without_the_sync_of_a_large_messages_name(self) -> None:
        """A large message rests on the sync of the directory that it was renamed to."""
        assert "large" in " ".join(await self.broken_without(self.SITE_LARGE_NAME))

    async def test_without_the_sync_of_the_spool(self) -> None:
        """Everything rests on the spool's own directory."""
        assert await self.broken_without(self.SITE_SPOOL)


class TakenOverTests(LogSpoolTestCase):
    async def left_after_take_over(self, *swallowed: str) -> list[str]:
        """A message whose group was written and never synced is found by the next start; what of it a power failure leaves then."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "unsynced")
        copy = self.killed(directory)
        disk = RecordedDisk(copy)
        disk.swallowed = set(swallowed)
        second = await self.started(copy, files=disk)
        assert await subjects(second) == ["unsynced"]
        left = self.new_directory()
        disk.sync_directory(disk.root + "/segments")
        disk.leave(left)
        return await self.subjects_in(left)

    async def test_what_is_shown_is_durable(self) -> None:
        """What the dead process had not synced is synced before anybody sees it."""
        assert await self.left_after_take_over("sync by Segment.seal") == ["unsynced"]

    async def test_the_name_of_what_is_shown_is_durable(self) -> None:
        """Its maker may have ended before its name was synced: that is made up for."""
        assert await self.left_after_crash_in_making() == ["unsynced"]

    async def test_without_the_sync_of_the_name(self) -> None:
        """The proof above would fail without it."""
        assert await self.left_after_crash_in_making("sync_directory by Recovery.take_over") == []

    async def left_after_crash_in_making(self, *swallowed: str) -> list[str]:
        """As above, but nobody else has synced the directory of segments."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "unsynced")
        copy = self.killed(directory)
        disk = RecordedDisk(copy)
        disk.swallowed = set(swallowed)
        second = await self.started(copy, files=disk)
        assert await subjects(second) == ["unsynced"]
        left = self.new_directory()
        disk.leave(left)
        return await self.subjects_in(left)

    async def test_without_that_sync(self) -> None:
        """The proof above would fail without it."""
        assert await self.left_after_take_over("sync by Segment.seal", "sync by Recovery._replay") == []
