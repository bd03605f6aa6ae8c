"""Several processes on one spool, and processes that are killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from mailhost.envelope import Copy
from mailhost.events import Trouble
from mailhost.refusal import MaildropInUse, SpoolUnavailable
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.using import ANN, BOB, ENVELOPE, LogSpoolTestCase, contents, delete, deliver, subjects

T = TypeVar("T")

WORKER = Path(__file__).with_name("worker.py")
ROOT = Path(__file__).parents[3]


class TwoSpoolsTests(LogSpoolTestCase):
    """Two spools on one directory share what two processes share: files, locks and nothing else."""

    async def pair(self, **options: Any) -> tuple[LogSpool, LogSpool]:
        directory = self.new_directory()
        return await self.started(directory, **options), await self.started(directory, **options)

    async def test_one_sees_what_the_other_did(self) -> None:
        """Mail taken by one is there for the other as soon as it was acknowledged, and so is a deletion."""
        one, two = await self.pair()
        for number in range(4):
            await deliver((one, two)[number % 2], str(number))
        assert await subjects(one) == await subjects(two) == ["0", "1", "2", "3"]
        await delete(two, [2])
        assert await subjects(one) == ["0", "2", "3"]

    async def test_exclusive(self) -> None:
        """A maildrop that one has open is refused by the other, and given to it as soon as it is let go."""
        one, two = await self.pair()
        maildrop = await one.open_maildrop(ANN, 0)
        with pytest.raises(MaildropInUse):
            await two.open_maildrop(ANN, 0.15)
        waiting = Deferred.fromCoroutine(two.open_maildrop(ANN, 5))
        await deferLater(reactor, 0.05)
        assert not waiting.called
        maildrop.release()
        (await waiting).release()

    async def test_names(self) -> None:
        """What a name means changes for all at once; a maildrop made by both is one."""
        one, two = await self.pair()
        await deliver(one, "old", [ANN])
        assert await subjects(two) == ["old"]
        await one.rename(ANN, BOB)
        await deliver(two, "new", [ANN])
        assert await subjects(one) == ["new"]
        assert await subjects(two, BOB) == ["old"]
        makes = [Deferred.fromCoroutine(spool.create("both")) for spool in (one, two)]
        for make in makes:
            await make
        await deliver(one, "1", ["both"])
        await deliver(two, "2", ["both"])
        assert await subjects(one, "both") == ["1", "2"]

    async def test_renamed_by_the_other(self) -> None:
        """A message that one has begun for a name is not put where the name leads after the other changed it."""
        one, two = await self.pair()
        await one.create(ANN)
        staged = await one.stage(ENVELOPE, [Copy(ANN, b"")])
        await two.rename(ANN, BOB)
        await two.create(ANN)
        with pytest.raises(SpoolUnavailable):
            await staged.commit()
        assert await contents(one, ANN) == await contents(one, BOB) == []

    async def test_segments_of_the_living_are_left_alone(self) -> None:
        """A process that starts takes over nothing that another one holds."""
        one, _ = await self.pair()
        await deliver(one, "before")
        third = await self.started(one._layout.root)
        await deliver(one, "after")
        assert await subjects(third) == ["before", "after"]
        assert len(os.listdir(one._layout.segments)) == 1
        assert not [event for event in self.events if isinstance(event, Trouble)]

    async def test_many_small_segments(self) -> None:
        """Both write, roll over and stop; a third finds everything."""
        one, two = await self.pair(segment_octets=1500, large_octets=4000)
        for number in range(20):
            await deliver((one, two)[number % 2], str(number), octets=5000 if number % 5 == 4 else 0)
        await one.stop()
        await two.stop()
        assert await self.subjects_in(one._layout.root) == [str(number) for number in range(20)]


class Acknowledged:
    """What workers have said."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.taken: set[str] = set()
        self.deleting: set[str] = set()
        self.deleted: set[str] = set()
        self.failures: list[str] = []

    def read(self, worker: subprocess.Popen[bytes]) -> None:
        assert worker.stdout is not None
        kinds = {"?": self.asked, "+": self.taken, "~": self.deleting, "-": self.deleted}
        for line in worker.stdout:
            kind, _, rest = line.decode().rstrip("\n").partition(" ")
            if not line.endswith(b"\n"):
                continue
            if kind in kinds:
                kinds[kind].add(rest)
            else:
                self.failures.append(line.decode())

    def check(self, found: list[str]) -> None:
        assert not self.failures
        assert len(found) == len(set(found)), "a message is there twice"
        missing = self.taken - self.deleting - set(found)
        assert not missing, f"acknowledged and lost: {missing}"
        assert not self.deleted & set(found), "deleted and back again"
        assert set(found) <= self.asked, "nobody has sent this"


def start_worker(directory: str, name: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, WORKER, directory, name], stdout=subprocess.PIPE, cwd=ROOT)


def wait_for(said: Acknowledged, more: int) -> None:
    """Until so many more messages have been acknowledged."""
    before = len(said.taken)
    pause = threading.Event()
    for _ in range(2000):
        if len(said.taken) >= before + more or said.failures:
            return
        pause.wait(0.01)


class KillTests(LogSpoolTestCase):
    timeout = 1000

    async def kill(self, times: int, workers: int = 1) -> None:
        """Let workers deliver and delete, kill them at some moment, start again on what they left; so many times."""
        directory = self.new_directory()
        said = Acknowledged()
        rng = random.Random(1)
        for _ in range(times):
            running = [start_worker(directory, f"worker{number}") for number in range(workers)]
            readers = [threading.Thread(target=said.read, args=(worker,)) for worker in running]
            for reader in readers:
                reader.start()
            await deferToThread(wait_for, said, 1)
            await deferLater(reactor, rng.uniform(0, 0.15))
            for worker in running:
                worker.send_signal(signal.SIGKILL)
            for worker, reader in zip(running, readers):
                worker.wait()
                reader.join()
                assert worker.stdout is not None
                worker.stdout.close()
            said.check(await self.found(directory, workers))
        assert len(said.taken) > times

    async def found(self, directory: str, workers: int) -> list[str]:
        spool = await self.started(directory)
        found = []
        for number in range(workers):
            for octets in await contents(spool, f"worker{number}"):
                found.append(octets.partition(b"\r\n")[0].partition(b" ")[2].decode())
        await spool.stop()
        return found

    async def test_killed(self) -> None:
        """A process killed under load loses nothing it has acknowledged, and leaves nothing twice."""
        await self.kill(8)

    async def test_two_processes_killed(self) -> None:
        """The same with two processes at a time."""
        await self.kill(4, workers=2)

    @pytest.mark.long
    async def test_killed_hundreds_of_times(self) -> None:
        """The same, some hundreds of times."""
        await self.kill(300)


def forget_index(directory: str) -> None:
    for path in Path(directory).glob("index.sqlite3*"):
        path.unlink()


def damage_index(directory: str) -> None:
    for path in Path(directory).glob("index.sqlite3-*"):
        path.unlink()
    with Path(directory, "index.sqlite3").open("r+b") as file:
        file.write(bytes(4096))


class NewIndexTests(LogSpoolTestCase):
    async def when_ready(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Try again, as clients do, until the index is whole."""
        for _ in range(200):
            try:
                return await work()
            except SpoolUnavailable:
                await deferLater(reactor, 0.05)
        raise AssertionError("it never came back")

    async def test_a_process_that_starts_acts_first(self) -> None:
        """
        An index built anew awaits what the living hold: until they have changed over, which they do without being asked, no maildrop is
        shown as empty, and no name is made that there is.
        """
        for spoil in forget_index, damage_index:
            directory = self.new_directory()
            one = await self.started(directory)
            await deliver(one, "before")
            spoil(directory)
            two = await self.started(directory)
            for refused in (
                lambda two=two: two.open_maildrop(ANN, 0),
                lambda two=two: deliver(two, "refused"),
                lambda two=two: two.create(BOB),
                lambda two=two: two.exists(ANN),
                lambda two=two: two.had(ANN, ["x"]),
            ):
                with pytest.raises(SpoolUnavailable):
                    await refused()
            assert await self.when_ready(lambda two=two: subjects(two)) == ["before"]  # type: ignore[misc]
            await deliver(two, "after")
            assert await subjects(one) == await subjects(two) == ["before", "after"]
            await one.stop()
            await two.stop()
            forget_index(directory)
            assert await self.subjects_in(directory) == ["before", "after"]

    async def test_known_names_are_delivered_to(self) -> None:
        """Who knows a name from before goes on taking mail for it while others wait for the index, and none of it is lost."""
        directory = self.new_directory()
        one, other = await self.started(directory), await self.started(directory)
        await deliver(one, "before")
        await deliver(other, "also before")
        forget_index(directory)
        two = await self.started(directory)
        await deliver(one, "meanwhile")
        assert await self.when_ready(lambda: subjects(two)) == ["before", "also before", "meanwhile"]

    async def test_a_new_segment_before_the_change(self) -> None:
        """A process that fills segment after segment before it changes over brings all of them."""
        directory = self.new_directory()
        one = await self.started(directory, segment_octets=600)
        await deliver(one, "0")
        forget_index(directory)
        two = await self.started(directory)
        for number in range(1, 5):
            await deliver(one, str(number))
        assert await self.when_ready(lambda: subjects(two)) == ["0", "1", "2", "3", "4"]

    async def test_the_holder_ends_before_it_has_changed_over(self) -> None:
        """What it held is taken over by the one that waits for it."""
        directory = self.new_directory()
        worker = start_worker(directory, ANN)
        said = Acknowledged()
        reader = threading.Thread(target=said.read, args=(worker,))
        reader.start()
        try:
            await deferToThread(wait_for, said, 20)
            worker.send_signal(signal.SIGSTOP)
            forget_index(directory)
            spool = await self.started(directory)
            with pytest.raises(SpoolUnavailable):
                await spool.open_maildrop(ANN, 0)
        finally:
            worker.kill()
            worker.wait()
            reader.join()
            assert worker.stdout is not None
            worker.stdout.close()
        found = await self.when_ready(lambda: contents(spool, ANN))
        said.check([octets.partition(b"\r\n")[0].partition(b" ")[2].decode() for octets in found])

    async def test_others_change_over(self) -> None:
        """When one process has to build the index anew, those that live put what is theirs into it, and everybody sees all."""
        directory = self.new_directory()
        one = await self.started(directory)
        await deliver(one, "before")
        forget_index(directory)
        two = await self.started(directory)
        await deliver(one, "after", [ANN])
        assert await subjects(one) == ["before", "after"]
        assert await subjects(two) == ["before", "after"]
        await delete(two, [1])
        assert await subjects(one) == ["after"]

    async def test_a_reader_changes_over(self) -> None:
        """The same for a process that only reads."""
        directory = self.new_directory()
        one = await self.started(directory)
        await deliver(one, "before")
        await one.stop()
        reader = await self.started(directory)
        assert await subjects(reader) == ["before"]
        forget_index(directory)
        two = await self.started(directory)
        await deliver(two, "after")
        assert await subjects(reader) == ["before", "after"]

    async def test_a_session_from_before(self) -> None:
        """A session whose snapshot was read from the old index, and not yet listed, is refused rather than shown another one."""
        directory = self.new_directory()
        one = await self.started(directory)
        await deliver(one, "before")
        maildrop = await one.open_maildrop(ANN, 0)
        forget_index(directory)
        await self.started(directory)
        await deliver(one, "after")
        with pytest.raises(SpoolUnavailable):
            await maildrop.listing()
        maildrop.release()
        assert await subjects(one) == ["before", "after"]
