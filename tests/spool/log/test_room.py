"""What happens before, while and after a disk is full."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from mailhost.events import Notice, Trouble
from mailhost.refusal import SpoolFull, TemporaryRefusal
from mailhost.spool.files import Files
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.disk import FailingDisk
from tests.spool.log.using import LogSpoolTestCase, delete, deliver, subjects

KIB = 1024


class SmallDisk(Files):
    """A disk of some octets: what is written counts until its file is unlinked.  `others` is what other programs have filled."""

    def __init__(self, octets: int) -> None:
        self.octets = octets
        self.others = 0

    def used(self, directory: str) -> int:
        found = self.others
        for path, _, names in os.walk(directory):
            found += sum(_size(os.path.join(path, name)) for name in names if "sqlite3" not in name)
        return found

    def free_octets(self, path: str) -> int:
        return max(0, self.octets - self.used(path))

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        path = os.readlink(f"/proc/self/fd/{fd}")
        root = path.partition("/spool/")[0] + "/spool"
        more = max(0, offset + sum(map(len, buffers)) - os.fstat(fd).st_size)
        if more > self.octets - self.used(root):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        super().write(fd, buffers, offset)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


class RoomTestCase(LogSpoolTestCase):
    timeout = 60

    async def spool(self, disk: Files, **options: int) -> LogSpool:
        return await self.started(
            self.new_directory(),
            files=disk,
            segment_octets=20 * KIB,
            large_octets=10 * KIB,
            compact_octets_per_second=0,
            **{"floor_octets": 40 * KIB, "reserve_octets": 40 * KIB, **options},
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await deferLater(reactor, 0.01)

    async def fill(self, spool: LogSpool, octets: int = 3000) -> list[str]:
        """Deliver until mail is refused.  @return: what was taken."""
        taken: list[str] = []
        while True:
            try:
                await deliver(spool, str(len(taken)), octets=octets)
            except SpoolFull:
                return taken
            taken.append(str(len(taken)))
            spool._room._looked = 0  # a second has passed
            spool._room.count(0)
            await self.until(lambda: spool._room._looking is None)

    def told(self, kind: type, words: str) -> bool:
        return any(isinstance(event, kind) and words in event.what for event in self.events)


class FloorTests(RoomTestCase):
    async def test_refused_before_anything_breaks(self) -> None:
        """Under the floor mail is refused, before a write fails; all that was taken is there."""
        disk = SmallDisk(200 * KIB)
        spool = await self.spool(disk)
        taken = await self.fill(spool)
        assert disk.free_octets(spool._layout.root) > 30 * KIB
        assert len(taken) > 10
        assert self.told(Trouble, "takes no mail")
        assert await subjects(spool) == taken

    async def test_large_messages(self) -> None:
        """A message that is on its way when the room ends is refused, and gives back what it had."""
        disk = SmallDisk(400 * KIB)
        spool = await self.spool(disk)
        with pytest.raises(SpoolFull):
            await deliver(spool, "too large", octets=6 * KIB * KIB)
        await self.until(lambda: os.listdir(spool._layout.staging) == [])
        assert await subjects(spool) == []

    async def test_mail_is_taken_again(self) -> None:
        """When users have deleted, space comes back at once and mail is taken again."""
        disk = SmallDisk(200 * KIB)
        spool = await self.spool(disk)
        taken = await self.fill(spool)
        await delete(spool, range(1, len(taken)))
        await self.until(lambda: self.told(Notice, "takes mail"))
        await deliver(spool, "new")
        assert await subjects(spool) == [taken[-1], "new"]

    async def test_a_full_disk_at_the_start(self) -> None:
        """A spool starts on a full disk, gives out what is there, and takes no mail."""
        disk = SmallDisk(200 * KIB)
        spool = await self.spool(disk)
        await deliver(spool, "before")
        await spool.stop()
        disk.others = 199 * KIB - disk.used(spool._layout.root)
        await spool.start()
        with pytest.raises(SpoolFull):
            await deliver(spool, "refused")
        assert await subjects(spool) == ["before"]


class ReserveTests(RoomTestCase):
    async def test_deleting_on_a_full_disk(self) -> None:
        """When others have filled the disk to the last octet, users can delete all the same, and mail is taken when there is room."""
        disk = SmallDisk(400 * KIB)
        spool = await self.spool(disk)
        for number in range(8):
            await deliver(spool, str(number), octets=3000)
        disk.others = disk.free_octets(spool._layout.root)
        assert disk.free_octets(spool._layout.root) == 0
        await delete(spool, range(1, 8))
        with pytest.raises(TemporaryRefusal):
            await deliver(spool, "refused")
        assert await subjects(spool) == ["7"]
        disk.others = 0
        await self.until(lambda: not spool._room.refusal and not spool._committer.refusal and spool._room._has_reserve)
        await deliver(spool, "new")
        assert await subjects(spool) == ["7", "new"]
        assert _size(spool._layout.reserve) == 40 * KIB

    async def test_no_segment_could_be_begun(self) -> None:
        """The same for a spool that has just started and has no segment yet."""
        disk = SmallDisk(400 * KIB)
        spool = await self.spool(disk)
        for number in range(3):
            await deliver(spool, str(number))
        await spool.stop()
        await spool.start()
        disk.others = disk.free_octets(spool._layout.root)
        await delete(spool, [1, 2])
        assert await subjects(spool) == ["2"]

    async def test_no_mail_from_the_reserve(self) -> None:
        """As long as the reserve is in use no mail is taken, though there seems to be room."""
        disk = SmallDisk(400 * KIB)
        spool = await self.spool(disk, floor_octets=1)
        spool._room.release()
        disk.others = 370 * KIB
        spool._room._looked = 0
        spool._room.count(0)
        await self.until(lambda: spool._room._looking is None)
        with pytest.raises(SpoolFull):
            await deliver(spool, "refused")


class FaultTests(RoomTestCase):
    async def test_any_fault(self) -> None:
        """Whatever the disk says, mail is refused for a while only, the log has a line about it, and nothing that was taken is lost."""
        for code in errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS:
            await self._try("write", code)
        for operation, code in ("sync", errno.EIO), ("create", errno.EMFILE), ("sync_directory", errno.EIO):
            await self._try(operation, code)

    async def _try(self, operation: str, code: int) -> None:
        self.events.clear()
        disk = FailingDisk()
        spool = await self.spool(disk, reserve_octets=0)
        await deliver(spool, "before")
        disk.fail(operation, code, times=2)
        if operation in ("create", "sync_directory"):
            await deliver(spool, "fill", octets=9000)
            await deliver(spool, "fill", octets=9000)
            await deliver(spool, "fill", octets=9000)
        refused = 0
        for number in range(3):
            try:
                await deliver(spool, f"during {number}")
            except TemporaryRefusal:
                refused += 1
        disk.mend()
        await self.until(lambda: spool._committer.refusal is None)
        await deliver(spool, "after")
        found = await subjects(spool)
        assert found[0] == "before"
        assert found[-1] == "after"
        assert len([subject for subject in found if "during" in subject]) == 3 - refused
        assert await self.subjects_in(self.killed(spool._layout.root)) == found
        if refused:
            assert [event for event in self.events if isinstance(event, Trouble)], (operation, code)
        await spool.stop()
