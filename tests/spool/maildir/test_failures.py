"""Disks that fail under a Maildir spool."""

from __future__ import annotations

import errno
import os

import pytest
from twisted.internet.defer import Deferred, gatherResults

from mailhost.envelope import Copy
from mailhost.events import Trouble
from mailhost.refusal import SpoolFull, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.maildir.spool import MaildirSpool
from tests.spool.log.disk import FailingDisk
from tests.spool.maildir.using import ANN, BOB, ENVELOPE, MaildirSpoolTestCase, contents, delete, deliver, message

ONE, TWO = message("one"), message("two")


class LaterFailingDisk(FailingDisk):
    """Also fails an operation after some of its kind have passed."""

    def __init__(self) -> None:
        super().__init__()
        self._to_pass: dict[str, int] = {}

    def fail_later(self, operation: str, passed: int) -> None:
        self._to_pass[operation] = passed
        self.fail(operation)

    def _maybe_fail(self, operation: str) -> None:
        if self._to_pass.get(operation, 0):
            self._to_pass[operation] -= 1
        else:
            super()._maybe_fail(operation)


class FailureTests(MaildirSpoolTestCase):
    """What was refused is nowhere, what was not is there, and the spool goes on by itself."""

    async def on_failing_disk(self, **options: int) -> tuple[MaildirSpool, LaterFailingDisk]:
        self.disk = LaterFailingDisk()
        self.directory = self.new_directory()
        spool = await self.started(self.directory, files=self.disk, **options)
        for name in ANN, BOB:
            await spool.create(name)
        return spool, self.disk

    def assert_nothing_staged(self) -> None:
        left = os.listdir(f"{self.directory}/.mailhost/staging")
        assert [name for name in left if not name.endswith((".lock", ".intent"))] == []

    async def test_one_copy(self) -> None:
        """Whichever operation of a delivery fails, the message is refused and removed, and the next one is taken."""
        spool, disk = await self.on_failing_disk()
        for operation in "create", "write", "sync", "rename", "sync_directory":
            disk.fail(operation)
            with pytest.raises(SpoolUnavailable):
                await deliver(spool, ONE)
            assert disk.has_failed
            assert await contents(spool) == []
            self.assert_nothing_staged()
        await deliver(spool, TWO)
        assert await contents(spool) == [TWO]

    async def test_several_copies(self) -> None:
        """The same for each operation on the way of a message to two maildrops: it is in none of them."""
        spool, disk = await self.on_failing_disk()
        for operation, times in {"create": 2, "write": 3, "sync": 3, "rename": 2, "sync_directory": 4}.items():
            for passed in range(times):
                disk.fail_later(operation, passed)
                with pytest.raises(SpoolUnavailable):
                    await deliver(spool, ONE, [ANN, BOB])
                assert disk.has_failed
                assert await contents(spool, ANN) == await contents(spool, BOB) == []
                self.assert_nothing_staged()
        await deliver(spool, TWO, [ANN, BOB])
        assert await contents(spool, ANN) == await contents(spool, BOB) == [TWO]

    async def test_large(self) -> None:
        """The same for a large one, to one maildrop and to two."""
        spool, disk = await self.on_failing_disk(large_octets=1000)
        large = message("large", 1000)
        for names in [ANN], [ANN, BOB]:
            for operation in "create", "write", "sync", "rename", "sync_directory":
                disk.fail(operation)
                with pytest.raises(SpoolUnavailable):
                    await deliver(spool, large, names)
                assert disk.has_failed
                assert await contents(spool) == []
                self.assert_nothing_staged()
        await deliver(spool, large)
        assert await contents(spool) == [large]

    async def test_one_of_a_group(self) -> None:
        """One message that fails does not hinder those that are committed with it."""
        spool, disk = await self.on_failing_disk()
        staged = []
        for number in range(5):
            staged.append(await spool.stage(ENVELOPE, [Copy(ANN if number else BOB, b"")]))
            staged[-1].write(message(str(number)))
        disk.fail("sync")
        commits = [Deferred.fromCoroutine(_outcome(one.commit())) for one in staged]
        outcomes = await gatherResults(commits)
        assert [isinstance(outcome, SpoolUnavailable) for outcome in outcomes] == [True] + [False] * 4
        assert await contents(spool, ANN) == [message(str(number)) for number in range(1, 5)]
        assert await contents(spool, BOB) == []

    async def test_full_disk(self) -> None:
        """A full disk is said to be full, to the client and, once for a group, to the operator; then it goes on."""
        spool, disk = await self.on_failing_disk()
        disk.fail("write", errno.ENOSPC)
        with pytest.raises(SpoolFull):
            await deliver(spool, ONE)
        disk.fail("create", errno.EDQUOT)
        with pytest.raises(SpoolFull):
            await spool.create("new@example.test")
        assert len([event for event in self.events if isinstance(event, Trouble)]) == 1
        await deliver(spool, TWO)
        assert await contents(spool) == [TWO]

    async def test_collecting_on_a_full_disk(self) -> None:
        """Other programs' mail can be read when what is known of it cannot be written down."""
        spool, disk = await self.on_failing_disk()
        self.put(f"{self.maildir(self.directory)}/new/1.a", b"A: b\n\n")
        disk.fail("write", errno.ENOSPC)
        assert await contents(spool) == [b"A: b\r\n\r\n"]
        assert disk.has_failed

    async def test_deletion(self) -> None:
        """Whichever operation fails before a deletion is durable, nothing was removed."""
        spool, disk = await self.on_failing_disk()
        for content in ONE, TWO:
            await deliver(spool, content)
        for numbers, operations in {(1,): ("rename", "sync_directory"), (1, 2): _STATING}.items():
            for operation in operations:
                disk.fail(operation)
                with pytest.raises(SpoolUnavailable):
                    await delete(spool, numbers)
                assert disk.has_failed
                assert await contents(spool) == [ONE, TWO]
        await delete(spool, [1, 2])
        assert await contents(spool) == []

    async def test_deletion_that_is_durable(self) -> None:
        """Once it is, it is done, although the files could not be removed yet; the next session sees nothing of them."""
        spool, disk = await self.on_failing_disk()
        for content in ONE, TWO:
            await deliver(spool, content)
        disk.fail_later("sync_directory", 1)
        await delete(spool, [1, 2])
        assert disk.has_failed
        assert len([event for event in self.events if isinstance(event, Trouble)]) == 1
        assert await contents(spool) == []

    async def test_start(self) -> None:
        """A directory that cannot be used ends the start with its name, and holds nothing."""
        directory = self.new_directory()
        self.put(directory, b"a file")
        spool = self.spool(directory)
        with pytest.raises(SpoolUnavailable) as caught:
            await spool.start()
        assert directory in str(caught.value.cause)
        os.unlink(directory)
        await spool.start()
        await spool.stop()


class NetworkTests(MaildirSpoolTestCase):
    """File systems that keep no promise."""

    async def test_refused(self) -> None:
        """A spool does not start on one, and says which it is."""

        class Network(Files):
            def file_system(self, path: str) -> str:
                return "nfs4"

        directory = self.new_directory()
        spool = self.spool(directory, files=Network())
        with pytest.raises(SpoolUnavailable) as caught:
            await spool.start()
        assert "nfs4" in str(caught.value.cause)
        assert os.listdir(directory) == []


class UnremovableTests(MaildirSpoolTestCase):
    """A deletion that is durable and cannot be finished."""

    async def test_hidden_until_it_can(self) -> None:
        """The maildrop is not shown with messages that were deleted; when they can be removed it is shown again."""

        class Stubborn(Files):
            refusing = True

            def unlink(self, path: str) -> None:
                if self.refusing and "/new/" in path:
                    raise OSError(errno.EIO, "no")
                super().unlink(path)

        directory = self.new_directory()
        disk = Stubborn()
        spool = await self.started(directory, files=disk)
        for content in ONE, TWO:
            await deliver(spool, content)
        await delete(spool, [1, 2])
        with pytest.raises(SpoolUnavailable):
            await contents(spool)
        disk.refusing = False
        assert await contents(spool) == []


_STATING = ("create", "write", "sync", "sync_directory")


async def _outcome(commit: Deferred[object]) -> object:
    try:
        return await commit
    except SpoolUnavailable as refusal:
        return refusal
