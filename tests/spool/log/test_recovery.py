"""What a start makes of what a crash, a disk or an operator left."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater

from mailhost.envelope import Copy
from mailhost.events import Notice, Trouble
from mailhost.refusal import ContentDamaged, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import index as index_module
from mailhost.spool.log import records, watch
from mailhost.spool.log.records import HEADER_OCTETS
from mailhost.spool.log.scan import Scan
from mailhost.spool.log.segments import find_secret
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.using import ANN, BOB, ENVELOPE, LogSpoolTestCase, content_of, contents, delete, deliver, subjects


def segments(directory: str) -> list[Path]:
    return sorted(Path(directory, "segments").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def index_files(directory: str) -> list[Path]:
    return list(Path(directory).glob("index.sqlite3*"))


def forget_index(directory: str) -> None:
    for path in index_files(directory):
        path.unlink()


def spans(segment: Path) -> list[tuple[int, int, int]]:
    """(kind, start, end) of each record."""
    fd = os.open(segment, os.O_RDONLY)
    try:
        scan = Scan(Files(), fd, find_secret(Files(), fd), HEADER_OCTETS, segment.stat().st_size)
        return [(found.record.kind, found.record.offset, found.record.end) for found in scan]
    finally:
        os.close(fd)


def overwrite(path: Path, offset: int, octets: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(octets)


def write(path: str, octets: bytes) -> None:
    Path(path).write_bytes(octets)


def quarantined(directory: str) -> list[int]:
    """Octets of what is in quarantine."""
    return [path.stat().st_size for path in Path(directory, "quarantine").iterdir()]


class TornTailTests(LogSpoolTestCase):
    timeout = 300

    async def spool_left(self) -> tuple[str, Path]:
        """A spool whose process was killed, with two messages in two groups and no index."""
        spool = await self.started(self.new_directory())
        await spool.create(ANN)
        await deliver(spool, "one")
        await deliver(spool, "two")
        left = self.killed(spool._layout.root)
        forget_index(left)
        (segment,) = segments(left)
        return left, segment

    async def test_cut_at_every_octet(self) -> None:
        """Wherever the last group was cut short, all before it is there, and what is cut off is in quarantine."""
        left, segment = await self.spool_left()
        (_, start, end), *_ = spans(segment)[-1:]
        whole = segment.read_bytes()
        assert len(whole) == end
        for cut in range(start, end, 3):
            copy = self.new_directory()
            shutil.copytree(left, copy)
            (torn,) = segments(copy)
            torn.write_bytes(whole[:cut])
            assert await self.subjects_in(copy) == ["one"], cut
            assert quarantined(copy) == [cut - start][: cut > start], cut
            assert spans(torn)[-1][0] == records.SEAL
            shutil.rmtree(copy)

    async def test_every_octet_wrong(self) -> None:
        """Whichever octet of the last group did not get to the disk, the group is a torn tail: no damage is reported."""
        left, segment = await self.spool_left()
        (_, start, end), *_ = spans(segment)[-1:]
        whole = bytearray(segment.read_bytes())
        for offset in range(start, end, 3):
            copy = self.new_directory()
            shutil.copytree(left, copy)
            (torn,) = segments(copy)
            whole[offset] ^= 0xFF
            torn.write_bytes(whole)
            whole[offset] ^= 0xFF
            assert await self.subjects_in(copy) == ["one"], offset
            shutil.rmtree(copy)
        assert not [event for event in self.events if isinstance(event, Trouble)]

    async def test_zeros_behind_the_end(self) -> None:
        """A file that a crash left longer than what was written is cut."""
        left, segment = await self.spool_left()
        overwrite(segment, segment.stat().st_size, bytes(5000))
        assert await self.subjects_in(left) == ["one", "two"]
        assert await self.subjects_in(left) == ["one", "two"]

    async def test_headless(self) -> None:
        """A segment that a crash cut short in its making hinders nobody."""
        left, _ = await self.spool_left()
        for size in 0, 10, 64:
            write(f"{left}/segments/{size:016x}.seg", bytes(size))
        assert await self.subjects_in(left) == ["one", "two"]
        assert len(segments(left)) == 1

    async def test_a_message_that_quotes_a_record(self) -> None:
        """A record inside a message, copied from another segment or from this one, is content and nothing else."""
        left, segment = await self.spool_left()
        spool = await self.started(left)
        staged = await spool.stage(ENVELOPE, [Copy(BOB, b"")])
        staged.write(b"Subject: quoted\r\n\r\n")
        staged.write(segment.read_bytes())
        await staged.commit()
        copy = self.killed(left)
        forget_index(copy)
        # Cut the quoting message itself short: what it quotes stands behind its broken header.
        newest = segments(copy)[-1]
        (_, start, _), *_ = spans(newest)[-1:]
        overwrite(newest, start, b"\0" * HEADER_OCTETS)
        assert await self.subjects_in(copy) == ["one", "two"]

    async def test_what_is_kept_of_a_killed_process_is_sealed_once(self) -> None:
        """A segment that was taken over is not touched by later starts."""
        left, segment = await self.spool_left()
        await self.subjects_in(left)
        before = segment.read_bytes()
        forget_index(left)
        assert await self.subjects_in(left) == ["one", "two"]
        assert segment.read_bytes() == before


class DamageTests(LogSpoolTestCase):
    async def damaged(self, record: int, offset: int = 70, *, index: bool = False) -> str:
        """A spool of five messages, one a group, left by a killed process, with some octets of one record overwritten."""
        spool = await self.started(self.new_directory())
        await spool.create(ANN)
        for number in range(5):
            await deliver(spool, str(number))
        left = self.killed(spool._layout.root)
        if not index:
            forget_index(left)
        (segment,) = segments(left)
        _, start, end = spans(segment)[record + 1]
        overwrite(segment, offset + (start if offset >= 0 else end), b"????")
        return left

    def troubles(self) -> list[str]:
        return [event.what for event in self.events if isinstance(event, Trouble)]

    async def test_a_bad_record_among_good_ones(self) -> None:
        """Damage below what was synced is reported and stepped over; no healthy record is lost with it, and it is kept."""
        for offset in 2, 30, 70, -20:
            left = await self.damaged(2, offset)
            assert await self.subjects_in(left) == ["0", "1", "3", "4"]
            assert len(self.troubles()) == 1
            assert "damaged" in self.troubles()[0]
            (kept,) = os.listdir(left + "/quarantine")
            assert kept.endswith(".damaged")
            self.events.clear()

    async def test_damage_before_a_torn_tail(self) -> None:
        """Both in one segment: the damage is stepped over, the tail is cut."""
        left = await self.damaged(1)
        (segment,) = segments(left)
        with segment.open("r+b") as file:
            file.truncate(segment.stat().st_size - 1)
        assert await self.subjects_in(left) == ["0", "2", "3"]
        assert len(self.troubles()) == 1
        assert len(os.listdir(left + "/quarantine")) == 2

    async def test_a_sealed_segment(self) -> None:
        """Below a seal everything was synced, the last record too."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "one")
        await deliver(spool, "two")
        await spool.stop()
        (segment,) = segments(spool._layout.root)
        overwrite(segment, spans(segment)[2][1] + 70, b"????")
        forget_index(spool._layout.root)
        assert await self.subjects_in(spool._layout.root) == ["one"]
        assert len(self.troubles()) == 1

    async def test_header_of_a_segment(self) -> None:
        """A segment whose header is gone is read by the secret of its first record, or of its seal."""
        for also_first_record in False, True:
            spool = await self.started(self.new_directory())
            await spool.create(ANN)
            await deliver(spool, "one")
            await spool.stop()
            (segment,) = segments(spool._layout.root)
            overwrite(segment, 0, bytes(HEADER_OCTETS))
            if also_first_record:
                overwrite(segment, HEADER_OCTETS, bytes(20))
                assert await self.subjects_in(spool._layout.root) == ["one"]
                continue
            forget_index(spool._layout.root)
            assert await self.subjects_in(spool._layout.root) == ["one"]

    async def test_head_of_a_segment(self) -> None:
        """Where the first sector is lost with all known places, what stands behind it is read by the secret of any record."""
        for sealed in False, True:
            spool = await self.started(self.new_directory())
            for number in range(5):
                await deliver(spool, str(number), octets=3000)
            if sealed:
                await spool.stop()
            left = self.killed(spool._layout.root)
            forget_index(left)
            (segment,) = segments(left)
            first = next(end for kind, _, end in spans(segment) if kind == records.MESSAGE)
            overwrite(segment, 0, bytes(512))
            # The name's own record was there too; the messages behind are found by their maildrop's id.
            again = await self.started(left)
            query = "SELECT count(*), min(offset) FROM messages"
            assert again._index.read(lambda connection: connection.execute(query).fetchone()) == (4, first)  # noqa: B023
            assert "damaged" in " ".join(self.troubles())
            self.events.clear()

    async def test_nothing_to_read(self) -> None:
        """A segment of which nothing can be read is told of, also when no index knew it: as damage, where no crash can have left it."""
        left = self.killed((await self.started(self.new_directory()))._layout.root)
        write(f"{left}/segments/{7:016x}.seg", b"x" * 300_000)
        write(f"{left}/segments/{8:016x}.seg", b"x" * 5000)
        spool = await self.started(left)
        (trouble,) = self.troubles()
        assert f"segment {7:016x}" in trouble
        assert f"segment {8:016x}" in " ".join(event.what for event in self.events if isinstance(event, Notice))
        assert len(os.listdir(spool._layout.quarantine)) == 2

    async def test_retrieval(self) -> None:
        """A message that was damaged after it was indexed is refused when it is asked for, and the others are not."""
        left = await self.damaged(2, -20, index=True)
        spool = await self.started(left)
        maildrop = await spool.open_maildrop(ANN, 0)
        with pytest.raises(ContentDamaged):
            await maildrop.content(3)
        await maildrop.content(4)
        maildrop.release()
        assert "cannot be read back" in " ".join(self.troubles())

    async def test_retrieval_of_a_large_message(self) -> None:
        """Damage in a large message is found at its end at the latest, and the last read fails."""
        spool = await self.started(self.new_directory(), large_octets=100_000)
        await deliver(spool, "large", octets=2_000_000)
        large = max(segments(spool._layout.root), key=lambda path: path.stat().st_size)
        overwrite(large, 1_500_000, b"????")
        with pytest.raises(ContentDamaged):
            await contents(spool)

    async def test_retrieval_where_another_message_is(self) -> None:
        """The index is never believed: what stands where it points must be the message."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "one")
        await deliver(spool, "two")
        maildrop = await spool.open_maildrop(ANN, 0)
        listing = await maildrop.listing()
        listing.unique_ids[0], listing.unique_ids[1] = listing.unique_ids[1], listing.unique_ids[0]
        with pytest.raises(ContentDamaged):
            await maildrop.content(1)
        maildrop.release()


class IndexTests(LogSpoolTestCase):
    async def seen(self, spool: LogSpool) -> dict[str, tuple[object, object, object]]:
        """All that sessions can see."""
        seen = {}
        async for name in spool.maildrops():
            maildrop = await spool.open_maildrop(name, 0)
            listing = await maildrop.listing()
            seen[name] = maildrop.totals, list(listing.octets), list(listing.unique_ids)
            maildrop.release()
        return seen

    async def history(self) -> LogSpool:
        """Messages, deletions, names that moved, over several segments."""
        spool = await self.started(self.new_directory(), segment_octets=2000, large_octets=3000)
        for number in range(12):
            await deliver(spool, str(number), [ANN, BOB] if number % 3 else [ANN], octets=5000 if number == 5 else 0)
        await delete(spool, [1, 4, 6])
        await delete(spool, [2], BOB)
        await spool.rename(BOB, "carol")
        await deliver(spool, "for a new bob", [BOB])
        await deliver(spool, "gone", ["dave"])
        await spool.remove("dave")
        await deliver(spool, "for a new dave", ["dave"])
        return spool

    async def test_rebuilt(self) -> None:
        """An index that was deleted comes back with the same totals, order, unique-ids and deletions, from segments alone."""
        spool = await self.history()
        before = await self.seen(spool)
        assert before["dave"][0] == (1, before["dave"][1][0])  # type: ignore[index]
        await spool.stop()
        for damage in forget_index, self.spoil_index:
            damage(spool._layout.root)
            again = await self.started(spool._layout.root)
            assert await self.seen(again) == before
            assert await subjects(again, "dave") == ["for a new dave"]
            assert (await subjects(again, "carol"))[:2] == ["1", "4"]
            await again.stop()

    async def test_damaged_behind_its_first_page(self) -> None:
        """An index that opens and cannot be read is built anew by the next start; until then sessions are told to try again."""
        spool = await self.history()
        before = await self.seen(spool)
        await spool.stop()
        index = f"{spool._layout.root}/index.sqlite3"
        size = os.stat(index).st_size
        overwrite(Path(index), 4096, b"\xff" * (size - 4096))
        again = await self.started(spool._layout.root)
        assert await self.seen(again) == before

    def spoil_index(self, directory: str) -> None:
        Path(directory, "index.sqlite3").write_bytes(b"This is no database.")

    async def test_rebuilt_from_a_killed_process(self) -> None:
        """The same, when nothing was sealed."""
        spool = await self.history()
        left = self.killed(spool._layout.root)
        before = await self.seen(spool)
        forget_index(left)
        assert await self.seen(await self.started(left)) == before

    async def test_behind(self) -> None:
        """An index from before the last hour, as a power failure may leave it, is brought up to what the segments hold."""
        spool = await self.started(self.new_directory(), segment_octets=1000, large_octets=2000)
        await deliver(spool, "before")
        old = self.killed(spool._layout.root)
        for number in range(5):
            await deliver(spool, str(number), octets=3000 if number == 2 else 0)
        await delete(spool, [1, 3])
        before = await self.seen(spool)
        await spool.stop()
        forget_index(spool._layout.root)
        for part in index_files(old):
            shutil.copy(part, spool._layout.root)
        again = await self.started(spool._layout.root)
        assert await self.seen(again) == before
        assert await subjects(again) == ["0", "2", "3", "4"]

    async def test_space_in_use(self) -> None:
        """The octets of a segment that are alive add up, however its records came to be indexed."""
        spool = await self.history()
        live = self.live(spool)
        await spool.stop()
        forget_index(spool._layout.root)
        again = await self.started(spool._layout.root)
        assert self.live(again) == live

    def live(self, spool: LogSpool) -> dict[int, int]:
        query = "SELECT id, live FROM segments WHERE live"
        return dict(spool._index._read(lambda connection: connection.execute(query).fetchall()))

    async def test_damage_that_a_start_does_not_see(self) -> None:
        """An index that turns out to be damaged while it is used is built anew, once, and then everybody is served again."""
        self.patch(watch, "_LOOK_SECONDS", 0.05)
        spool = await self.started(self.new_directory())
        for number in range(50):
            await deliver(spool, str(number))
        await spool.stop()
        self.spoil_table(spool._layout.index, "messages")
        again = await self.started(spool._layout.root)
        maildrop = await again.open_maildrop(ANN, 0)
        with pytest.raises(SpoolUnavailable):
            await maildrop.listing()
        maildrop.release()
        while again._index.damage or again._watch._awaiting:
            await deferLater(reactor, 0.05)
        assert await subjects(again) == [str(number) for number in range(50)]
        assert len([event for event in self.events if isinstance(event, Trouble)]) == 1

    async def test_damage_that_a_start_runs_into(self) -> None:
        """The same, where it is a start that has something to write there."""
        spool = await self.started(self.new_directory())
        for number in range(50):
            await deliver(spool, str(number))
        left = self.killed(spool._layout.root)
        forget_index(left)
        await (await self.started(left)).stop()
        connection = sqlite3.connect(f"{left}/index.sqlite3")
        connection.execute("UPDATE segments SET position = 0, sealed = 0")
        connection.commit()
        connection.close()
        self.spoil_table(f"{left}/index.sqlite3", "messages")
        assert await self.subjects_in(left) == [str(number) for number in range(50)]

    def spoil_table(self, index: str, table: str) -> None:
        connection = sqlite3.connect(index)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        connection.close()
        overwrite(Path(index), (page - 1) * 4096, b"\xa5" * 4096)

    async def test_busy(self) -> None:
        """An index that somebody else has locked is waited for, and then the start fails; it is not taken for a damaged one."""
        self.patch(index_module, "_PATIENCE_SECONDS", 0.1)
        spool = await self.started(self.new_directory())
        await deliver(spool, "one")
        await spool.stop()
        other = sqlite3.connect(spool._layout.index, isolation_level=None)
        self.addCleanup(other.close)
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        inode = os.stat(spool._layout.index).st_ino
        with pytest.raises(SpoolUnavailable) as refused:
            await spool.start()
        assert "locked" in str(refused.value.cause)
        assert os.stat(spool._layout.index).st_ino == inode
        other.execute("ROLLBACK")
        other.close()
        assert await self.subjects_in(spool._layout.root) == ["one"]


class StrangersTests(LogSpoolTestCase):
    async def test_among_segments_and_staged_files(self) -> None:
        """What an operator or a file system has put there is left alone, and said."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "one")
        await spool.stop()
        root = spool._layout.root
        strangers = [f"{root}/segments/{name}" for name in ("z" * 16 + ".seg", f"{7:016x}.seg.old", "notes")]
        for path in strangers:
            write(path, b"?")
        os.mkdir(root + "/staging/lost+found")
        assert await self.subjects_in(root) == ["one"]
        told = " ".join(event.what for event in self.events if isinstance(event, Notice))
        for path in strangers:
            assert os.path.basename(path) in os.listdir(root + "/segments")
            assert path in told

    async def test_in_a_new_directory(self) -> None:
        """A file system of its own, with what mkfs makes there, is a good place for a spool."""
        root = self.new_directory()
        os.makedirs(root + "/lost+found")
        write(root + "/.keep", b"")
        assert await self.subjects_in(root) == []


class StagedFilesTests(LogSpoolTestCase):
    async def test_what_nobody_holds_is_removed(self) -> None:
        """A large message that a killed process had begun goes away; one that a living process writes does not."""
        spool = await self.started(self.new_directory(), large_octets=1000)
        root = spool._layout.root
        write(root + "/staging/0123456789abcdef", b"left")
        staged = await spool.stage(ENVELOPE, [Copy(ANN, b"")])
        room = staged.write(content_of("large", 2_000_000))
        assert room is not None
        await room
        other = await self.started(root)
        assert len(os.listdir(root + "/staging")) == 1
        await staged.commit()
        assert len(await contents(other)) == 1
        assert os.listdir(root + "/staging") == []

    async def test_notice(self) -> None:
        """What was taken over is said to the operator."""
        spool = await self.started(self.new_directory())
        await spool.create(ANN)
        await deliver(spool, "one")
        left = self.killed(spool._layout.root)
        forget_index(left)
        await self.subjects_in(left)
        assert [event for event in self.events if isinstance(event, Notice) and "taken over" in event.what]
