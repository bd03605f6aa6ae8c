"""Space comes back, and nothing else changes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event as Signal
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from mailhost.events import Notice, Trouble
from mailhost.refusal import Refusal
from mailhost.spool.files import Files
from mailhost.spool.log import records
from mailhost.spool.log.compaction import Gain
from mailhost.spool.log.entries import Entry
from mailhost.spool.log.index import Change, Outdated
from mailhost.spool.log.records import HEADER_OCTETS
from mailhost.spool.log.scan import Found, Scan
from mailhost.spool.log.segments import find_secret
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.disk import FailingDisk
from tests.spool.log.using import ANN, BOB, LogSpoolTestCase, delete, deliver, read_all, subject_of, subjects

SMALL = {"segment_octets": 3000, "large_octets": 20_000, "compact_octets_per_second": 0}


def segments(directory: str) -> set[str]:
    return set(os.listdir(directory + "/segments"))


def octets_in(directory: str) -> int:
    """Of all segments."""
    return sum(path.stat().st_size for path in Path(directory, "segments").iterdir())


def oldest(directory: str) -> Path:
    return min(Path(directory, "segments").iterdir(), key=lambda path: path.stat().st_mtime_ns)


def forget_index(directory: str) -> None:
    for path in Path(directory).glob("index.sqlite3*"):
        path.unlink()


def all_records(directory: str) -> list[Found]:
    """Of all segments."""
    found = []
    for name in segments(directory):
        fd = os.open(f"{directory}/segments/{name}", os.O_RDONLY)
        try:
            found += Scan(Files(), fd, find_secret(Files(), fd), HEADER_OCTETS, os.fstat(fd).st_size)
        finally:
            os.close(fd)
    return found


def of_kind(directory: str, kind: int) -> list[dict[str, Any]]:
    return [metadata for record, metadata in all_records(directory) if record.kind == kind]


class LaterEntry(Entry):
    """Of a kind that means nothing to the index."""

    def index(self, change: Change, segment: int, offset: int) -> None:
        pass


async def unique_ids(spool: LogSpool, name: str = ANN) -> list[str]:
    maildrop = await spool.open_maildrop(name, 1)
    try:
        return list((await maildrop.listing()).unique_ids)
    finally:
        maildrop.release()


class CompactionTestCase(LogSpoolTestCase):
    timeout = 120

    async def spool_with(self, count: int, names: Sequence[str] = (ANN,), **options: Any) -> LogSpool:
        """A spool with so many messages, named by their numbers, in segments of three or so."""
        spool = await self.started(self.new_directory(), **{**SMALL, **options})
        for number in range(count):
            await deliver(spool, str(number), names, octets=600)
        return spool

    async def found_in(self, directory: str, name: str = ANN) -> list[str]:
        """What a spool finds that starts here, and still finds after it has compacted."""
        spool = LogSpool(directory, reactor=reactor, observer=self.events.append, **SMALL)
        await spool.start()
        try:
            found = await subjects(spool, name)
            await spool.compact()
            assert await subjects(spool, name) == found
            return found
        finally:
            await spool.stop()

    async def found_without_index(self, directory: str, name: str = ANN) -> list[str]:
        copy = self.killed(directory)
        forget_index(copy)
        try:
            return await self.found_in(copy, name)
        finally:
            shutil.rmtree(copy)

    def troubles(self) -> list[Trouble]:
        return [event for event in self.events if isinstance(event, Trouble)]


class SpaceTests(CompactionTestCase):
    async def test_all_dead(self) -> None:
        """Segments in which nothing is wanted any more are unlinked, and the operator is told how much came back."""
        spool = await self.spool_with(12)
        root = spool._layout.root
        before = segments(root)
        await delete(spool, range(1, 13))
        await deliver(spool, "new", octets=600)
        gain = await spool.compact()
        assert gain.segments >= 3
        assert gain.octets >= 9 * 600
        assert any(isinstance(event, Notice) and "compaction" in event.what for event in self.events)
        assert len(before & segments(root)) <= 1
        assert await subjects(spool) == ["new"]
        assert await self.found_without_index(root) == ["new"]
        assert not self.troubles()

    async def test_mostly_dead(self) -> None:
        """What is left of segments that are mostly dead moves to another one, under the same unique ids."""
        spool = await self.spool_with(12)
        root = spool._layout.root
        await delete(spool, [2, 3, 4, 6, 7, 8, 10, 11, 12])
        before = await unique_ids(spool)
        size = octets_in(root)
        gain = await spool.compact()
        assert gain.segments >= 3
        assert octets_in(root) < size / 2
        assert await subjects(spool) == ["0", "4", "8"]
        assert await unique_ids(spool) == before
        assert await self.found_in(self.killed(root)) == ["0", "4", "8"]
        assert await self.found_without_index(root) == ["0", "4", "8"]
        assert not self.troubles()

    async def test_a_second_time(self) -> None:
        """Once everything is as small as it gets, compaction leaves it alone."""
        spool = await self.spool_with(12)
        await delete(spool, [2, 3, 4, 6, 7, 8, 10, 11, 12])
        await spool.compact()
        await spool.compact()
        before = segments(spool._layout.root)
        assert await spool.compact() == Gain(0, 0)
        assert segments(spool._layout.root) == before

    async def test_nothing_dead(self) -> None:
        """Segments whose messages are wanted stay as they are."""
        spool = await self.spool_with(12)
        before = segments(spool._layout.root)
        assert await spool.compact() == Gain(0, 0)
        assert segments(spool._layout.root) == before

    async def test_large_messages(self) -> None:
        """A large message's own segment goes when nobody has the message any more, and is never copied."""
        spool = await self.started(self.new_directory(), **SMALL)
        await deliver(spool, "both", [ANN, BOB], octets=40_000)
        await deliver(spool, "ann's", [ANN], octets=40_000)
        await delete(spool, [1, 2], ANN)
        gain = await spool.compact()
        assert gain.segments == 1
        assert 40_000 < gain.octets < 42_000
        assert await subjects(spool, BOB) == ["both"]
        await delete(spool, [1], BOB)
        assert (await spool.compact()).segments == 1
        assert await subjects(spool, BOB) == []

    async def test_one_of_several_maildrops(self) -> None:
        """A copy names the maildrops that still have the message, and no others: nobody's deletion has to be remembered for it."""
        spool = await self.spool_with(9, [ANN, BOB])
        root = spool._layout.root
        await delete(spool, range(1, 10), ANN)
        await delete(spool, range(2, 10), BOB)
        await spool.compact()
        await deliver(spool, "seal", [BOB], octets=3000)
        await deliver(spool, "seal", [BOB], octets=3000)
        await spool.compact()
        assert await subjects(spool, ANN) == []
        assert (await subjects(spool, BOB))[0] == "0"
        assert {len(message["drops"]) for message in of_kind(root, records.MESSAGE) if message["drops"]} == {1}
        assert await self.found_without_index(root, ANN) == []
        assert (await self.found_without_index(root, BOB))[0] == "0"

    async def test_deletions_go_with_what_they_delete(self) -> None:
        """A deletion is remembered as long as a segment holds the message, and not longer."""
        spool = await self.spool_with(9)
        root = spool._layout.root
        await delete(spool, [1])
        await deliver(spool, "fill", octets=3000)
        await deliver(spool, "fill", octets=3000)
        await spool.compact()
        assert [len(deletion["messages"]) for deletion in of_kind(root, records.DELETION)] == [1]
        first = set(await unique_ids(spool))
        for _ in range(3):
            await delete(spool, range(1, len(await unique_ids(spool)) + 1))
            await deliver(spool, "fill", octets=3000)
            await deliver(spool, "fill", octets=3000)
            await spool.compact()
        gone = {unique_id for deletion in of_kind(root, records.DELETION) for _, unique_id in deletion["messages"]}
        assert not gone & first
        assert await self.found_without_index(root) == ["fill", "fill"]

    async def test_many_small_segments(self) -> None:
        """What many short runs of a host have left becomes one segment."""
        directory = self.new_directory()
        for number in range(9):
            spool = LogSpool(directory, reactor=reactor, observer=self.events.append)
            await spool.start()
            await deliver(spool, str(number))
            await spool.stop()
        assert len(segments(directory)) == 9
        spool = await self.started(directory)
        assert (await spool.compact()).segments == 9
        assert len(segments(directory)) == 1
        assert await subjects(spool) == [str(number) for number in range(9)]
        assert await self.found_without_index(directory) == [str(number) for number in range(9)]

    async def test_names(self) -> None:
        """What is known of maildrops and their names survives, and what is not true any more comes not back."""
        spool = await self.started(self.new_directory(), **SMALL)
        root = spool._layout.root
        for name in "a", "b", "c":
            await deliver(spool, f"first {name}", [name], octets=600)
        await spool.rename("a", "z")
        await spool.remove("b")
        await deliver(spool, "second a", ["a"], octets=600)
        await deliver(spool, "second b", ["b"], octets=600)
        for name in "c", "z":
            await delete(spool, [1], name)
        for _ in range(3):
            await deliver(spool, "fill", ["fill"], octets=3000)
        await spool.compact()
        await spool.compact()
        copy = self.killed(root)
        forget_index(copy)
        again = await self.started(copy, **SMALL)
        for one in spool, again:
            assert sorted([name async for name in one.maildrops()]) == ["a", "b", "c", "fill", "z"]
            assert await subjects(one, "a") == ["second a"]
            assert await subjects(one, "b") == ["second b"]
            assert await subjects(one, "c") == []
            assert await subjects(one, "z") == []

    async def test_unknown_kinds(self) -> None:
        """Records of a kind that this program does not know are copied."""
        spool = await self.spool_with(3)
        await spool.restate([LaterEntry(77, b'{"from":"later"}')])
        await deliver(spool, "fill", octets=3000)
        await delete(spool, [1, 2, 3])
        await deliver(spool, "fill", octets=3000)
        before = segments(spool._layout.root)
        await spool.compact()
        assert before - segments(spool._layout.root)
        assert of_kind(spool._layout.root, 77) == [{"from": "later"}]

    async def test_fences(self) -> None:
        """What is stated about the end of a segment is stated again as long as the segment is there."""
        disk = FailingDisk()
        spool = await self.spool_with(2, files=disk)
        disk.fail("sync")
        with pytest.raises(Refusal):
            await deliver(spool, "refused", octets=600)
        await deliver(spool, "seal 1", octets=3000)
        await deliver(spool, "seal 2", octets=3000)
        await delete(spool, [3])
        (fence,) = of_kind(spool._layout.root, records.FENCE)
        await spool.compact()
        assert of_kind(spool._layout.root, records.FENCE) == [fence]
        await delete(spool, [1, 2])
        await spool.compact()
        await deliver(spool, "seal 3", octets=3000)
        await deliver(spool, "seal 4", octets=3000)
        await spool.compact()
        assert fence["segment"] + ".seg" not in segments(spool._layout.root)
        assert await self.found_without_index(spool._layout.root) == ["seal 2", "seal 3", "seal 4"]


class DamageTests(CompactionTestCase):
    async def test_damaged(self) -> None:
        """A segment in which something cannot be read stays, with all that can be; the operator is told once."""
        spool = await self.spool_with(9)
        root = spool._layout.root
        place = oldest(root)
        octets = bytearray(place.read_bytes())
        octets[octets.index(b"Subject: 1") + 2] ^= 1
        place.write_bytes(octets)
        await delete(spool, [1, 3, 4, 5, 6, 7, 8, 9])
        await spool.compact()
        await spool.compact()
        assert place.exists()
        assert len(self.troubles()) == 1
        assert "damaged" in self.troubles()[0].what

    async def test_a_disk_that_fails(self) -> None:
        """Whatever fails while it copies, nothing is lost, and a later compaction does the work."""
        for operation in "create", "write", "sync", "rename", "sync_directory":
            disk = FailingDisk()
            spool = await self.spool_with(12, files=disk)
            root = spool._layout.root
            await delete(spool, [2, 3, 4, 6, 7, 8, 10, 11, 12])
            disk.fail(operation)
            with pytest.raises(OSError, match="rror"):
                await spool.compact()
            assert disk.has_failed
            assert await self.found_in(self.killed(root)) == ["0", "4", "8"]
            assert await self.found_without_index(root) == ["0", "4", "8"]
            assert (await spool.compact()).segments >= 3, operation
            assert await subjects(spool) == ["0", "4", "8"]
            assert os.listdir(root + "/staging") == []
            await spool.stop()


class Watched(Files):
    """Does something at fault points."""

    def __init__(self) -> None:
        self.at: Callable[[str], None] = lambda name: None

    def fault_point(self, name: str) -> None:
        self.at(name)


POINTS = [
    "compact.written",
    "compact.synced",
    "compact.renamed",
    "compact.entered",
    "compact.indexed",
    "segment.unlinked",
    "segment.gone",
    "segment.forgotten",
]


class CrashTests(CompactionTestCase):
    timeout = 300

    async def left_at_each_point(self) -> dict[str, list[str]]:
        """@return: fault point to the directories that processes leave that are killed there."""
        files = Watched()
        spool = await self.spool_with(9, [ANN, BOB], files=files)
        root = spool._layout.root
        await delete(spool, [2, 3, 5, 6, 8, 9], ANN)
        await delete(spool, [1, 2, 3, 5, 6, 7, 8, 9], BOB)
        await deliver(spool, "fill", octets=3000)
        await deliver(spool, "fill", octets=3000)
        left: dict[str, list[str]] = {}
        files.at = lambda name: left.setdefault(name, []).append(self.killed(root))
        await spool.compact()
        files.at = lambda name: None
        return left

    async def test_killed(self) -> None:
        """Whoever starts after a kill, at whatever step, with or without an index, finds the same."""
        left = await self.left_at_each_point()
        assert sorted(set(left) & set(POINTS)) == sorted(POINTS)
        for point, directories in left.items():
            for directory in (directories[0], directories[-1]):
                for name, expected in ((ANN, ["0", "3", "6", "fill", "fill"]), (BOB, ["3"])):
                    assert await self.found_without_index(directory, name) == expected, point
                    assert await self.found_in(self.killed(directory), name) == expected, point
        assert not self.troubles()

    async def test_deleted_after_a_kill(self) -> None:
        """What is deleted after a compaction was cut short stays deleted, also when later ones have cleaned up and the index is lost."""
        left = await self.left_at_each_point()
        for point in POINTS:
            directory = left[point][0]
            spool = await self.started(directory, **SMALL)
            await delete(spool, [1, 2], ANN)
            await delete(spool, [1], BOB)
            await deliver(spool, "more", octets=3000)
            await deliver(spool, "more", octets=3000)
            for _ in range(3):
                await spool.compact()
                for name, expected in ((ANN, ["6", "fill", "fill", "more", "more"]), (BOB, [])):
                    assert await subjects(spool, name) == expected, point
                    assert await self.found_without_index(directory, name) == expected, point
            await spool.stop()

    async def test_another_process_goes_on(self) -> None:
        """A process that runs while another is killed in a compaction does the rest of it, without a restart."""
        left = await self.left_at_each_point()
        for point in "compact.renamed", "compact.entered", "compact.indexed", "segment.unlinked":
            directory = left[point][0]
            # The other process: it was running all the time, and has taken nothing over.
            spool = await self.started(directory, **SMALL)
            await spool.compact()
            assert await subjects(spool, ANN) == ["0", "3", "6", "fill", "fill"], point
            replaced = {name for statement in of_kind(directory, records.REPLACES) for name in statement["segments"]}
            assert not replaced & {name[:16] for name in segments(directory)}, point
            await spool.stop()


class OthersTests(CompactionTestCase):
    async def test_a_session_in_another_process(self) -> None:
        """A session reads on where segments were replaced beneath it, also those messages that it had not read before."""
        one = await self.spool_with(12)
        two = await self.started(one._layout.root, **SMALL)
        await delete(one, [2, 3, 4, 6, 7, 8, 10, 11, 12])
        maildrop = await two.open_maildrop(ANN, 1)
        first = await maildrop.content(1)
        assert (await one.compact()).segments >= 3
        assert subject_of(await read_all(first)) == "0"
        assert subject_of(await read_all(await maildrop.content(2))) == "4"
        assert subject_of(await read_all(await maildrop.content(3))) == "8"
        await maildrop.update([2])
        maildrop.release()
        assert await subjects(one) == ["0", "8"]

    async def test_nothing_is_kept_open(self) -> None:
        """Space comes back although segments were open for reading: in the process that compacts at once, in others at their next pass."""
        one = await self.spool_with(12)
        two = await self.started(one._layout.root, **SMALL)
        for spool in one, two:
            await subjects(spool)
        await delete(one, range(1, 13))
        await deliver(one, "new", octets=3000)
        await one.compact()
        await two.compact()
        open_files = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd") if _is_open(fd)]
        assert not [path for path in open_files if path.startswith(one._layout.segments) and "(deleted)" in path]

    async def test_one_at_a_time(self) -> None:
        """While another process compacts, or needs all segments to stay, nothing is done."""
        spool = await self.spool_with(12)
        await delete(spool, range(1, 13))
        fd = os.open(spool._layout.compaction_lock, os.O_RDWR | os.O_CREAT)
        assert Files().lock(fd)
        try:
            assert await spool.compact() == Gain(0, 0)
        finally:
            os.close(fd)
        assert (await spool.compact()).segments >= 3

    async def test_the_segment_of_another_process(self) -> None:
        """What another process appends to is left alone, however dead it is."""
        one = await self.started(self.new_directory(), **SMALL)
        two = await self.started(one._layout.root, **SMALL)
        await deliver(two, "two's", octets=600)
        (active,) = segments(one._layout.root)
        await delete(one, [1])
        await one.compact()
        assert active in segments(one._layout.root)
        await deliver(two, "more")
        assert await self.found_without_index(one._layout.root) == ["more"]

    async def test_deleted_meanwhile(self) -> None:
        """A message that is deleted while it is copied stays deleted, at whatever step that happens."""
        for point in "compact.written", "compact.synced", "compact.entered", "compact.indexed", "segment.gone":
            files = Watched()
            spool = await self.spool_with(12, files=files)
            root = spool._layout.root
            await delete(spool, [2, 3, 4, 6, 7, 8, 10, 11, 12])
            files.at = self._deleting(spool, point)
            await spool.compact()
            files.at = lambda name: None
            assert await subjects(spool) == ["4", "8"], point
            assert await self.found_without_index(root) == ["4", "8"], point
            await spool.compact()
            await deliver(spool, "fill", octets=3000)
            await deliver(spool, "fill", octets=3000)
            await spool.compact()
            assert await self.found_without_index(root) == ["4", "8", "fill", "fill"], point
            await spool.stop()

    def _deleting(self, spool: LogSpool, point: str) -> Callable[[str], None]:
        """@return: deletes the first message when compaction comes to this point the first time, and holds it up until that is done."""
        done = Signal()
        begun: list[str] = []

        def at(name: str) -> None:
            if name == point and not begun:
                begun.append(name)
                reactor.callFromThread(begin)
                assert done.wait(10)

        def begin() -> None:
            Deferred.fromCoroutine(delete(spool, [1])).addBoth(lambda _: done.set())

        return at

    async def test_stopped_meanwhile(self) -> None:
        """A spool that is stopped does not wait for a compaction that rests between its steps."""
        spool = await self.spool_with(12, compact_octets_per_second=1)
        await delete(spool, [2, 3, 4, 6, 7, 8, 10, 11, 12])
        compacting = Deferred.fromCoroutine(spool.compact())
        while spool._compactor._pause is None:
            await deferLater(reactor, 0.001)
        await spool.stop()
        await compacting
        assert await self.found_in(spool._layout.root) == ["0", "4", "8"]


def _is_open(fd: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{fd}")


class ModelTests(CompactionTestCase):
    timeout = 300

    async def test_any_order(self) -> None:
        """Deliveries, deletions, compactions, kills and lost indexes in any order: each maildrop has what it must have."""
        for seed in range(12):
            await self._run_model(random.Random(seed))
        assert not self.troubles()

    async def _run_model(self, draw: random.Random) -> None:
        directory = self.new_directory()
        expected: dict[str, list[str]] = {ANN: [], BOB: []}
        spool = await self.started(directory, **SMALL)
        for number in range(60):
            step = draw.random()
            name = draw.choice([ANN, BOB])
            if step < 0.5:
                names = draw.choice([[ANN], [BOB], [ANN, BOB]])
                await deliver(spool, str(number), names, octets=draw.choice([50, 600, 2000, 25_000]))
                for each in names:
                    expected[each].append(str(number))
            elif step < 0.75 and expected[name]:
                gone = draw.sample(range(len(expected[name])), draw.randint(1, len(expected[name])))
                await delete(spool, [index + 1 for index in gone], name)
                expected[name] = [subject for index, subject in enumerate(expected[name]) if index not in gone]
            elif step < 0.9:
                await spool.compact()
            else:
                directory = self.killed(directory)
                if draw.random() < 0.5:
                    forget_index(directory)
                await spool.stop()
                spool = await self.started(directory, **SMALL)
            assert await subjects(spool, name) == expected[name], number
        await spool.stop()


class NewIndexTests(CompactionTestCase):
    async def test_beneath_a_compaction(self) -> None:
        """What was decided by an index that has been changed for another is given up: the new one may not have known all."""
        spool = await self.spool_with(9)
        await delete(spool, [1, 2, 4, 5])
        before = segments(spool._layout.root)
        compaction = spool._compactor._compaction
        copy = compaction._copy

        def copy_and_change(*arguments: Any) -> Iterator[int]:
            yield from copy(*arguments)
            compaction._built -= 1

        self.patch(compaction, "_copy", copy_and_change)
        with pytest.raises(Outdated):
            await spool.compact()
        assert segments(spool._layout.root) == before

    async def test_that_awaits_segments(self) -> None:
        """Nothing is compacted by an index that does not know yet what living processes hold."""
        spool = await self.spool_with(9)
        await delete(spool, [1, 2, 4, 5])
        before = segments(spool._layout.root)
        spool._index.write(lambda connection: connection.execute("INSERT INTO segments (id, awaited) VALUES (1, 1)"))
        assert await spool.compact() == Gain(0, 0)
        assert segments(spool._layout.root) == before
