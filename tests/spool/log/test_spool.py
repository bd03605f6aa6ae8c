"""What is the log spool's own, beside the contract of all spools."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults

from mailhost.refusal import MaildropLost, SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import index, records
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.log.unique_ids import UniqueIds
from tests.spool.log.using import ANN, LogSpoolTestCase, deliver, read_all, subject_of, subjects


class CountingFiles(Files):
    """Counts writes and syncs, and remembers in which thread they were."""

    def __init__(self) -> None:
        self.writes = 0
        self.syncs = 0
        self.threads: set[int] = set()

    def write(self, fd: int, buffers: Sequence[bytes], offset: int) -> None:
        self.writes += 1
        super().write(fd, buffers, offset)

    def sync(self, fd: int) -> None:
        self.syncs += 1
        self.threads.add(threading.get_ident())
        super().sync(fd)


class NeverAtOnce(Files):
    """A file system that cannot read without waiting."""

    def read_at_once(self, fd: int, count: int, offset: int) -> bytes:
        return b""


class HalfAtOnce(Files):
    """Only the first half of what is asked for is in memory."""

    def read_at_once(self, fd: int, count: int, offset: int) -> bytes:
        return super().read_at_once(fd, count, offset)[: count // 2]


class TotalsTests(LogSpoolTestCase):
    async def test_in_the_turn(self) -> None:
        """Where deliveries are committed in the turn, totals are read there: no thread is asked, and no wait is needed."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "first")
        in_thread = await spool.totals(ANN)
        spool._pace.in_turn = True
        spool._threads.run = None
        with pytest.raises(StopIteration) as done:
            spool.totals(ANN).send(None)
        assert done.value.value == in_thread
        assert in_thread.messages == 1
        del spool._threads.run

    async def test_while_the_index_is_locked(self) -> None:
        """Another process that writes does not hold up whoever reads."""
        directory = self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "first")
        other = sqlite3.connect(f"{directory}/index.sqlite3", isolation_level=None)
        self.addCleanup(other.close)
        other.execute("BEGIN EXCLUSIVE")
        for in_turn in (True, False):
            spool._pace.in_turn = in_turn
            assert (await spool.totals(ANN)).messages == 1
        other.execute("ROLLBACK")

    async def test_index_that_cannot_be_read(self) -> None:
        """A refusal that may pass, not a bug."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "first")

        def broken(maildrop: int, *, so_far: bool = False) -> None:
            raise sqlite3.DatabaseError("malformed")

        spool._index.totals = spool._index.totals_now = broken
        for in_turn in (True, False):
            spool._pace.in_turn = in_turn
            with pytest.raises(SpoolUnavailable):
                await spool.totals(ANN)


class GroupCommitTests(LogSpoolTestCase):
    async def test_one_sync_for_all(self) -> None:
        """Fifty messages that become whole in one turn are one write and one sync, in the thread and in the turn."""
        files = CountingFiles()
        spool = await self.started(self.new_directory(), files=files)
        await deliver(spool, "first")
        for in_turn in False, True:
            spool._committer._pace.in_turn = in_turn
            before = files.writes, files.syncs
            files.threads.clear()
            await gatherResults([Deferred.fromCoroutine(deliver(spool, str(number))) for number in range(50)])
            assert (files.writes, files.syncs) == (before[0] + 1, before[1] + 1)
            assert (threading.get_ident() in files.threads) == in_turn
        assert len(await subjects(spool)) == 101

    async def test_a_new_segment_is_never_begun_in_the_turn(self) -> None:
        """Making a segment takes a sync of a directory, which is no work for the reactor's thread."""
        files = CountingFiles()
        spool = await self.started(self.new_directory(), files=files, segment_octets=100)
        await spool.create(ANN)
        files.threads.clear()
        for number in range(5):
            spool._committer._pace.in_turn = True
            await deliver(spool, str(number))
        assert threading.get_ident() not in files.threads
        assert len(os.listdir(spool._layout.segments)) == 6


class ReadingTests(LogSpoolTestCase):
    async def test_what_is_not_in_memory(self) -> None:
        """Content is the same when it has to come from the disk, whole or in part."""
        directory = self.new_directory()
        spool = await self.started(directory, large_octets=700_000)
        for subject, octets in ("small", 0), ("middling", 600_000), ("large", 1_500_000):
            await deliver(spool, subject, octets=octets)
        for files in NeverAtOnce(), HalfAtOnce():
            other = await self.started(directory, files=files)
            assert await subjects(other) == ["small", "middling", "large"]

    async def test_unlinked(self) -> None:
        """What a session has begun to read stays readable, whatever becomes of the file's name."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "one", octets=1_000_000)
        maildrop = await spool.open_maildrop(ANN, 0)
        content = await maildrop.content(1)
        for name in os.listdir(spool._layout.segments):
            os.unlink(os.path.join(spool._layout.segments, name))
        spool._readers.close()
        assert subject_of(await read_all(content)) == "one"
        maildrop.release()


class ListingTests(LogSpoolTestCase):
    async def test_kept_while_nothing_changes(self) -> None:
        """Two sessions of a maildrop that did not change share one listing; a change makes another."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "one")
        listings = []
        for _ in range(3):
            maildrop = await spool.open_maildrop(ANN, 0)
            listings.append(await maildrop.listing())
            maildrop.release()
            if len(listings) == 2:
                await deliver(spool, "two")
        assert listings[0] is listings[1]
        assert listings[1] is not listings[2]

    async def test_bounded(self) -> None:
        """Of many listings only the latest are kept."""
        spool = await self.started(self.new_directory())
        spool._listings._kept_messages = 3
        for name in "abcde":
            await deliver(spool, "one", [name])
            assert await subjects(spool, name) == ["one"]
        assert len(spool._listings._kept) == 3


class LockTests(LogSpoolTestCase):
    async def test_lost(self) -> None:
        """A session whose lock file was taken away by somebody removes nothing."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "one")
        maildrop = await spool.open_maildrop(ANN, 0)
        for path in Path(spool._layout.locks).iterdir():  # noqa: ASYNC240 (a test)
            if path.name != "catalogue":
                path.unlink()
        with pytest.raises(MaildropLost):
            await maildrop.update([1])
        maildrop.release()
        assert await subjects(spool) == ["one"]


class DirectoryTests(LogSpoolTestCase):
    async def refused(self, directory: str, files: Files | None = None) -> str:
        spool = LogSpool(directory, reactor=reactor, files=files)
        with pytest.raises(SpoolUnavailable) as raised:
            await spool.start()
        return str(raised.value.cause)

    def with_file(self, name: str, octets: bytes) -> str:
        directory = self.new_directory()
        os.mkdir(directory)
        Path(directory, name).write_bytes(octets)
        return directory

    async def test_refused(self) -> None:
        """A directory that is no spool of ours is refused in one line that says what is wrong, and left as it was."""
        cases = [("VERSION", b"something else 7\n", "something else 7"), ("thesis.txt", b"", "thesis.txt")]
        for name, octets, why in cases:
            directory = self.with_file(name, octets)
            cause = await self.refused(directory)
            assert why in cause
            assert directory in cause
            assert "\n" not in cause
            assert os.listdir(directory) == [name]
        assert "make the directory" in await self.refused(self.new_directory() + "/a/b")

    async def test_network(self) -> None:
        """A network file system is refused by its name."""

        class OnNFS(Files):
            def file_system(self, path: str) -> str:
                return "nfs4"

        assert "nfs4" in await self.refused(self.new_directory(), OnNFS())

    async def test_half_a_version(self) -> None:
        """A crash while the spool was made does not make it unusable."""
        directory = self.with_file("VERSION.new", b"mailh")
        await self.started(directory)

    async def test_later_format(self) -> None:
        """A segment of a later version is refused, not cut."""
        spool = await self.started(self.new_directory())
        await deliver(spool, "one")
        await spool.stop()
        header = records.SegmentHeader(5, 0, bytes(16))
        newer = bytearray(header.pack())
        newer[8] = 2
        newer[60:] = records._CHECKSUM.pack(records.crc32(bytes(newer[:60])))
        path = spool._layout.segment(5)
        Path(path).write_bytes(newer)  # noqa: ASYNC240 (a test)
        assert "version 2" in await self.refused(spool._layout.root)
        assert os.stat(path).st_size == 64


class CheckpointTests(LogSpoolTestCase):
    async def test_the_log_of_the_index_stays_small(self) -> None:
        """The index's own log does not grow with the number of messages, also when deliveries never leave a gap."""
        self.patch(index, "_MANY_FRAMES", 256)
        spool = await self.started(self.new_directory())
        await spool.create(ANN)
        spool._committer._pace.in_turn = True
        for number in range(1500):
            await deliver(spool, str(number))
        size = os.stat(spool._layout.index + "-wal").st_size
        assert size < 6_000_000, size


def test_unique_ids() -> None:
    """They sort by their making, fit RFC 1939 7, and differ between two makers that share an instant."""
    made = [UniqueIds().next()[1] for _ in range(100)]
    one = UniqueIds()
    many = [one.next() for _ in range(5000)]
    assert many == sorted(many)
    assert len({unique_id for _, unique_id in many} | set(made)) == 5100
    assert all(re.fullmatch(r"[!-~]{1,70}", unique_id) for unique_id in made)
