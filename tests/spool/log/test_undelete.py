"""Deleted mail that is held back, and comes back."""

from __future__ import annotations

import pytest

from mailhost.events import Event, Notice, Trouble
from mailhost.refusal import NoSuchMaildrop, NoSuchMessage
from mailhost.spool.files import Files
from mailhost.spool.log.holdings import NOTHING_HELD
from mailhost.spool.log.layout import Layout
from mailhost.spool.log.retention import Reading, Retention
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.using import ANN, BOB, LogSpoolTestCase, delete, deliver, subjects

DAY = 86_400
SMALL = {"segment_octets": 3000, "large_octets": 20_000, "compact_octets_per_second": 0}


class UndeleteTests(LogSpoolTestCase):
    timeout = 60

    async def spool(self, keep: float = DAY) -> LogSpool:
        """With four messages, of which one is large, in two maildrops each."""
        spool = await self.started(self.new_directory(), keep_deleted_seconds=keep, **SMALL)
        for number in range(4):
            await deliver(spool, str(number), [ANN, BOB], octets=50_000 if number == 2 else 600)
        return spool

    async def test_what_was_deleted(self) -> None:
        """The list says what was deleted, when it had come and how large it is."""
        spool = await self.spool()
        maildrop = await spool.open_maildrop(ANN, 1)
        listing = await maildrop.listing()
        await maildrop.update([1, 3])
        maildrop.release()
        found = await spool.deleted(ANN)
        assert [message.unique_id for message in found] == [listing.unique_ids[0], listing.unique_ids[2]]
        assert [message.octets for message in found] == [listing.octets[0], listing.octets[2]]
        assert all(message.time < message.deleted for message in found)
        assert await spool.deleted(BOB) == []
        with pytest.raises(NoSuchMaildrop):
            await spool.deleted("nobody@example.test")

    async def test_back_again(self) -> None:
        """What is undeleted is a new message with the old one's octets, durable, and the other maildrop has nothing to do with it."""
        spool = await self.spool()
        await delete(spool, [1, 3], ANN)
        await delete(spool, [1, 2, 3, 4], BOB)
        old = [message.unique_id for message in await spool.deleted(ANN)]
        new = await spool.undelete(ANN, old)
        assert len(new) == 2
        assert not set(new) & set(old)
        assert await subjects(spool, ANN) == ["1", "3", "0", "2"]
        assert await subjects(spool, BOB) == []
        assert await self.subjects_in(self.killed(spool._layout.root)) == ["1", "3", "0", "2"]

    async def test_held_through_compaction(self) -> None:
        """Held mail survives that its segment is replaced, and the loss of the index."""
        spool = await self.spool()
        await delete(spool, [1, 2], ANN)
        await delete(spool, [1, 2, 3, 4], BOB)
        await deliver(spool, "fill", [ANN], octets=3000)
        await spool.compact()
        (first, second) = [message.unique_id for message in await spool.deleted(ANN)]
        await spool.undelete(ANN, [first])
        copy = self.killed(spool._layout.root)
        for name in "index.sqlite3", "index.sqlite3-wal", "index.sqlite3-shm":
            Files().unlink(f"{copy}/{name}")
        again = await self.started(copy, keep_deleted_seconds=DAY, **SMALL)
        await again.undelete(ANN, [second])
        assert await subjects(again, ANN) == ["2", "3", "fill", "0", "1"]
        assert not [event for event in self.events if isinstance(event, Trouble)]

    async def test_not_held(self) -> None:
        """Where nothing is held back, what was deleted is gone after a compaction."""
        spool = await self.spool(keep=0)
        await delete(spool, [1, 2, 3, 4], ANN)
        await delete(spool, [1, 2, 3, 4], BOB)
        (unique_id, *_) = [message.unique_id for message in await spool.deleted(ANN)]
        await deliver(spool, "fill", [ANN], octets=3000)
        await spool.compact()
        await deliver(spool, "fill", [ANN], octets=3000)
        await spool.compact()
        assert await spool.deleted(ANN) == []
        with pytest.raises(NoSuchMessage):
            await spool.undelete(ANN, [unique_id])

    async def test_not_deleted(self) -> None:
        """A message that is there cannot be undeleted, nor one that never was."""
        spool = await self.spool()
        maildrop = await spool.open_maildrop(ANN, 1)
        (unique_id, *_) = (await maildrop.listing()).unique_ids
        maildrop.release()
        for wrong in unique_id, "never":
            with pytest.raises(NoSuchMessage):
                await spool.undelete(ANN, [wrong])


class RetentionTests(LogSpoolTestCase):
    """Clocks are numbers here: the wall, the machine's running time, and which start of the machine it is."""

    def retention(self, keep: float = 7 * DAY) -> Retention:
        directory = self.new_directory()
        Files().make_directory(directory)
        self.told: list[Event] = []
        return Retention(Files(), Layout(Files(), directory), keep, self.told.append)

    def test_nothing_is_kept(self) -> None:
        """Without a time to keep, nothing is held and no clock is looked at."""
        assert self.retention(0).since(Reading(1e9, 0, "a")) == NOTHING_HELD

    def test_steady(self) -> None:
        """With clocks that go together, what is older than the time to keep may go."""
        retention = self.retention()
        for hours in range(0, 240, 5):
            since = retention.since(Reading(1e9 + hours * 3600, hours * 3600, "a"))
            assert since == int((1e9 + hours * 3600 - 7 * DAY) * 1e6)
        assert self.told == []

    def test_jumps(self) -> None:
        """After a jump, forward or back, nothing goes until the clock was steady for a day; the operator reads why, once."""
        for jump in (30 * DAY, -30 * DAY):
            retention = self.retention()
            retention.since(Reading(1e9, 0, "a"))
            for hours in range(1, 25):
                assert retention.since(Reading(1e9 + jump + hours * 3600, hours * 3600, "a")) == 0
            assert [type(event) for event in self.told] == [Trouble]
            since = retention.since(Reading(1e9 + jump + 25 * 3600, 25 * 3600, "a"))
            assert since == int((1e9 + jump + 25 * 3600 - 7 * DAY) * 1e6)
            assert [type(event) for event in self.told] == [Trouble, Notice]

    def test_less_than_a_day(self) -> None:
        """An hour more or less, as when a clock is set right, changes nothing."""
        retention = self.retention()
        retention.since(Reading(1e9, 0, "a"))
        assert retention.since(Reading(1e9 + 3600 + 7200, 3600, "a")) > 0
        assert self.told == []

    def test_another_start_of_the_machine(self) -> None:
        """A clock that says something quite different after a start is not believed at once; a day of it is needed here too."""
        retention = self.retention()
        retention.since(Reading(1e9, 500_000, "a"))
        assert retention.since(Reading(1e9 + 300, 10, "b")) > 0
        assert retention.since(Reading(1e9 + 40 * DAY, 10, "c")) == 0
        assert retention.since(Reading(1e9 + 41 * DAY, 10 + DAY, "c")) > 0

    def test_remembered(self) -> None:
        """What the clocks said is remembered from one process to the next."""
        retention = self.retention()
        retention.since(Reading(1e9, 0, "a"))
        other = Retention(Files(), Layout(Files(), retention._path.rpartition("/")[0]), 7 * DAY, self.told.append)
        assert other.since(Reading(1e9 + 9 * DAY, 100, "a")) == 0

    def test_half_written(self) -> None:
        """A file that makes no sense counts as none."""
        retention = self.retention()
        fd = Files().create(retention._path)
        Files().write(fd, [b'{"last": [1, 2'], 0)
        Files().close(fd)
        assert retention.since(Reading(1e9, 0, "a")) > 0
