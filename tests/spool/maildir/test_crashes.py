"""What a power failure leaves of a Maildir spool, at every instant between two operations."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable

from mailhost.refusal import ContentDamaged
from mailhost.spool.maildir.spool import MaildirSpool
from tests.spool.log.disk import RecordedDisk
from tests.spool.maildir.using import ANN, BOB, MaildirSpoolTestCase, contents, delete, deliver, message, unique_ids

CAT = "cat@example.test"


class SweptDisk(RecordedDisk):
    """Notes, before each sync, what a power failure would leave, as a directory."""

    def __init__(self, root: str, new_directory: Callable[[], str]) -> None:
        super().__init__(root)
        self._new_directory = new_directory
        self.sweeping = False
        self.left: list[str] = []

    def note(self) -> None:
        if self.sweeping:
            self.left.append(self._new_directory())
            self.leave(self.left[-1])

    def _is_swallowed(self, operation: str) -> bool:
        """Every sync comes by here, just before it is done: only syncs change what is left."""
        self.note()
        site = f"{operation} by {sys._getframe(2).f_code.co_qualname}"
        self.sites.add(site)
        return site in self.swallowed


Found = dict[str, list[bytes]]


class CrashTests(MaildirSpoolTestCase):
    """The disk has what was synced and nothing else."""

    timeout = 60

    async def swept(self, swallowed: frozenset[str] = frozenset(), **options: int) -> tuple[MaildirSpool, SweptDisk]:
        directory = self.new_directory()
        disk = SweptDisk(directory, self.new_directory)
        disk.swallowed = set(swallowed)
        spool = await self.started(directory, files=disk, **options)
        for name in ANN, BOB, CAT:
            await spool.create(name)
        return spool, disk

    async def found_in(self, directory: str) -> Found:
        """What a spool finds that starts on what was left; and again on what that leaves."""
        found: list[Found] = []
        for _ in range(2):
            spool = self.spool(directory)
            await spool.start()
            try:
                found.append({name: await contents(spool, name) for name in (ANN, BOB, CAT)})
            finally:
                await spool.stop()
        assert found[0] == found[1]
        staging = os.path.join(directory, ".mailhost", "staging")
        assert os.listdir(staging) == []
        return found[0]

    async def sweep(self, disk: SweptDisk, step: Callable[[], Awaitable[object]], before: Found, after: Found) -> None:
        """At every instant of a step all is as before or as after it; when it is acknowledged, as after it."""
        disk.sweeping = True
        await step()
        disk.note()
        disk.sweeping = False
        for left in disk.left[:-1]:
            assert await self.found_in(left) in (before, after)
        assert await self.found_in(disk.left[-1]) == after
        disk.left.clear()

    async def run_all(self, swallowed: frozenset[str] = frozenset()) -> set[str]:
        """@return: where syncs came from."""
        spool, disk = await self.swept(swallowed, large_octets=10_000)
        one, two, large = message("one"), message("two"), message("large", 1000)
        state: Found = {ANN: [], BOB: [], CAT: []}

        async def step(work: Callable[[], Awaitable[object]], **changed: list[bytes]) -> None:
            nonlocal state
            after = {**state, **{f"{name}@example.test": found for name, found in changed.items()}}
            await self.sweep(disk, work, state, after)
            state = after

        await step(lambda: deliver(spool, one), ann=[one])
        await step(lambda: deliver(spool, two, [ANN, BOB, CAT]), ann=[one, two], bob=[two], cat=[two])
        await step(lambda: delete(spool, [1], BOB), bob=[])
        self.move_one(disk)
        await step(lambda: delete(spool, [1, 2]), ann=[])
        await step(lambda: deliver(spool, large, [ANN, CAT]), ann=[large], cat=[two, large])
        await step(lambda: deliver(spool, one, [BOB, ANN]), ann=[large, one], bob=[one])
        await step(lambda: delete(spool, [1]), ann=[one])
        return disk.sites

    def move_one(self, disk: SweptDisk) -> None:
        """As another program does that has seen a message; so one of two is in cur/."""
        maildir = f"{disk.root}/example.test/ann"
        name = min(os.listdir(f"{maildir}/new"))
        os.rename(f"{maildir}/new/{name}", f"{maildir}/cur/{name}:2,S")
        for part in "cur", "new":
            disk.sync_directory(f"{maildir}/{part}")

    async def test_every_instant(self) -> None:
        """Whatever is acknowledged stays, whatever is not is there in all of its maildrops or in none, whole."""
        sites = await self.run_all()
        assert sites >= NEEDED

    async def test_swallowed_syncs(self) -> None:
        """Each sync on the way to an acknowledgement is needed: this test would see it missing."""
        for site in sorted(NEEDED):
            try:
                await self.run_all(frozenset({site}))
            except (AssertionError, ContentDamaged):
                continue
            self.fail(f"nobody missed {site}")

    async def test_first_delivery(self) -> None:
        """A maildrop that appears by its first message is as durable as that."""
        directory = self.new_directory()
        disk = SweptDisk(directory, self.new_directory)
        spool = await self.started(directory, files=disk)
        await deliver(spool, message("one"))
        left = self.new_directory()
        disk.leave(left)
        assert (await self.found_in(left))[ANN] == [message("one")]

    async def test_unique_ids_stay(self) -> None:
        """Of other programs' mail too, and although Dovecot numbered it after it was shown."""
        directory = self.new_directory()
        maildir = self.maildir(directory)
        disk = SweptDisk(directory, self.new_directory)
        self.put(f"{maildir}/new/1.a", b"A: b\n\n")
        disk.sync_directory(f"{maildir}/new")
        spool = await self.started(directory, files=disk)
        assert await unique_ids(spool) == ["1.a"]
        left = self.new_directory()
        disk.leave(left)
        self.put(f"{left}/example.test/ann/dovecot-uidlist", b"3 V1 N3\n2 :1.a\n")
        spool = await self.started(left)
        assert await unique_ids(spool) == ["1.a"]


NEEDED = frozenset(
    {
        "sync by Syncs._file",
        "sync_directory by Syncs._directory",
        "sync by Staged.state",
        "sync_directory by Staged.state",
        "sync_directory by Staged.settle",
        "sync by LargeFile._finish_in_thread",
        "sync_directory by _remove_one",
        "sync by _state",
        "sync_directory by _state",
    }
)
