"""`mailhost backup` and `mailhost restore`: one state of a spool that is at work, whole again from one manifest."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread

from mailhost.refusal import SpoolUnavailable
from mailhost.spool.files import Files
from mailhost.spool.log import backup
from mailhost.spool.log.backup import Taken, Unusable
from mailhost.spool.log.inspection import unwatched
from mailhost.spool.log.restore import check, restore
from mailhost.spool.log.spool import LogSpool
from mailhost.spool.log.verify import verify
from tests.spool.log.test_processes import ROOT, WORKER, Acknowledged
from tests.spool.log.using import ANN, BOB, LogSpoolTestCase, contents, delete, deliver, subjects
from tests.tools.conftest import PROGRAM, Running, messages
from tests.tools.conftest import deliver as send


def copies(directory: str) -> dict[str, bytes]:
    """What a backup's segments hold."""
    folder = Path(directory, "segments")
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def overwrite(path: str, offset: int, octets: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(octets)


class BackupTestCase(LogSpoolTestCase):
    def take(self, spool: str, target: str, keep: int | None = None) -> Taken:
        return backup.take(Files(), spool, target, unwatched, keep)

    def restored(self, target: str, manifest: str) -> str:
        """The directory of a new spool."""
        directory = self.new_directory()
        restore(Files(), target, backup.read_manifest(target, manifest), directory, unwatched)
        return directory

    async def everything(self, directory: str) -> dict[str, list[bytes]]:
        """All maildrops of a spool, by a start of it."""
        spool = await self.started(directory)
        found = {name: await contents(spool, name) async for name in spool.maildrops()}
        await spool.stop()
        return found


class BackupTests(BackupTestCase):
    async def test_of_a_spool_at_work(self) -> None:
        """Mail, names, deletions, large messages: as they are, with the host running."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory, segment_octets=10_000, large_octets=20_000)
        for number in range(30):
            await deliver(spool, f"m{number}", [ANN, BOB], 40_000 if number == 7 else 900)
        await delete(spool, [1, 5])
        await spool.rename(BOB, "rob@example.test")
        taken = self.take(directory, target)
        assert taken.short == []
        expected = {name: await contents(spool, name) for name in (ANN, "rob@example.test")}
        left = self.restored(target, taken.manifest)
        assert await self.everything(left) == expected
        assert verify(Files(), left).is_good
        unique_ids = (await (await spool.snapshot(ANN)).listing()).unique_ids
        again = await self.started(left)
        assert (await (await again.snapshot(ANN)).listing()).unique_ids == unique_ids

    async def test_incremental(self) -> None:
        """What was copied once is not copied again, and every manifest keeps its own state."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory, segment_octets=4000)
        taken, states = [], []
        for round in range(5):
            for number in range(round * 3):
                await deliver(spool, f"{round}-{number}", [ANN], 700)
            taken.append(self.take(directory, target))
            states.append(await subjects(spool))
            if round == 3:
                await delete(spool, [1, 2])
        for one, state in zip(taken, states):
            assert await self.subjects_in(self.restored(target, one.manifest)) == state
        copied = sum(one.copied for one in taken)
        assert copied == sum(map(len, copies(target).values()))
        assert taken[0].copied < taken[-1].octets

    async def test_nothing_new(self) -> None:
        """A second backup of the same state reads what it must and writes no octet of mail."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "m")
        self.take(directory, target)
        assert self.take(directory, target).copied == 0

    async def test_unindexed(self) -> None:
        """What was acknowledged and is in no index yet is in the backup."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "indexed")
        self.patch(spool._index, "commit_now", lambda change: False)
        self.patch(spool._index, "commit", _refuse)
        for number in range(3):
            await deliver(spool, f"waiting{number}")
        assert spool._indexer.behind
        taken = self.take(directory, target)
        expected = ["indexed", "waiting0", "waiting1", "waiting2"]
        assert await self.subjects_in(self.restored(target, taken.manifest)) == expected

    async def test_after_a_kill(self) -> None:
        """A host that ended without a stop has left a spool that can be backed up; a torn tail is left out."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "m")
        left = self.killed(directory)
        (name,) = os.listdir(left + "/segments")
        octets = len(_read(f"{left}/segments/{name}"))
        overwrite(f"{left}/segments/{name}", octets, b"half a record")
        taken = self.take(left, target)
        assert await self.subjects_in(self.restored(target, taken.manifest)) == ["m"]
        assert taken.octets == octets

    async def test_interrupted(self) -> None:
        """A backup that broke off leaves the earlier ones whole, and the next one goes on."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory, segment_octets=3000)
        await deliver(spool, "first", [ANN], 900)
        first = self.take(directory, target)
        for number in range(9):
            await deliver(spool, f"m{number}", [ANN], 900)
        for broken_after in (100, 2000, 5000):
            with pytest.raises(OSError, match="full"):
                backup.take(_FullDisk(target, broken_after), directory, target, unwatched)
            assert await self.subjects_in(self.restored(target, first.manifest)) == ["first"]
            assert len(backup.manifests(target)) == 1
        last = self.take(directory, target)
        assert await self.subjects_in(self.restored(target, last.manifest)) == await subjects(spool)

    async def test_forgotten_backups(self) -> None:
        """What only removed backups needed goes; the others stay whole."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory, segment_octets=3000)
        for number in range(8):
            await deliver(spool, f"m{number}", [ANN], 900)
        self.take(directory, target)
        await delete(spool, range(1, 8))
        await spool.compact()
        before = len(copies(target))
        last = self.take(directory, target, keep=1)
        assert backup.manifests(target) == [last.manifest]
        assert len(copies(target)) < before
        assert await self.subjects_in(self.restored(target, last.manifest)) == ["m7"]

    async def test_compaction_waits(self) -> None:
        """No segment goes away while it is being copied."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory, segment_octets=2000)
        for number in range(8):
            await deliver(spool, f"m{number}", [ANN], 900)
        await delete(spool, range(1, 8))
        before = set(os.listdir(directory + "/segments"))
        gains = []
        files = _Meanwhile(lambda: gains.append(blockingCallFromThread(reactor, _compact, spool)))
        taken = await deferToThread(backup.take, files, directory, target, unwatched)
        assert gains
        assert {f"{name}.seg" for name in backup.read_manifest(target, taken.manifest).segments} >= before
        assert await self.subjects_in(self.restored(target, taken.manifest)) == ["m7"]
        await spool.compact()
        assert not before <= set(os.listdir(directory + "/segments"))

    async def test_what_is_no_backup(self) -> None:
        """Somebody else's directory is left alone, and two backups at once are not made."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "m")
        os.mkdir(target)
        _write(target + "/letters", b"x")
        with pytest.raises(Unusable, match="something else"):
            self.take(directory, target)
        os.unlink(target + "/letters")
        self.take(directory, target)
        fd = os.open(target + "/lock", os.O_RDWR)
        assert Files().lock(fd)
        with pytest.raises(Unusable, match="under way"):
            self.take(directory, target)
        os.close(fd)


def _compact(spool: LogSpool) -> Any:
    return Deferred.fromCoroutine(spool.compact())


class _Meanwhile(Files):
    """Does something when the first file is opened to be copied."""

    def __init__(self, something: Callable[[], Any]) -> None:
        self._something = [something]

    def open(self, path: str, *, writable: bool = False) -> int:
        if path.endswith(".seg") and self._something:
            self._something.pop()()
        return super().open(path, writable=writable)


def _refuse(changes: object) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    raise error


class _FullDisk(Files):
    """Room for so many octets of a backup."""

    def __init__(self, target: str, room: int) -> None:
        self._target = os.path.realpath(target)
        self._room = room

    def write(self, fd: int, buffers: Any, offset: int) -> None:
        if os.path.realpath(f"/proc/self/fd/{fd}").startswith(self._target):
            octets = b"".join(buffers)
            super().write(fd, [octets[: self._room]], offset)
            self._room -= len(octets)
            if self._room < 0:
                raise OSError(28, "full")
            return
        super().write(fd, buffers, offset)


class RestoreTests(BackupTestCase):
    async def backed_up(self) -> tuple[str, str]:
        """@return: a directory of backups, and the manifest in it."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory, segment_octets=3000)
        for number in range(9):
            await deliver(spool, f"m{number}", [ANN], 900)
        return target, self.take(directory, target).manifest

    async def test_damage_is_seen(self) -> None:
        """A backup with one bit wrong, or an octet or a file missing, is never restored as if it were whole."""
        target, name = await self.backed_up()
        manifest = backup.read_manifest(target, name)
        path = f"{target}/segments/{next(iter(manifest.segments))}.seg"
        whole = _read(path)
        for damaged in (whole[:500] + b"\0" + whole[501:], whole[:-1], None):
            os.unlink(path) if damaged is None else _write(path, damaged)
            with pytest.raises(Unusable):
                check(target, manifest, unwatched)
            spool = self.new_directory()
            with pytest.raises(Unusable):
                restore(Files(), target, manifest, spool, unwatched)
            assert "VERSION" not in os.listdir(spool)
        _write(path, whole)
        check(target, manifest, unwatched)

    async def test_damaged_manifests(self) -> None:
        """A manifest that was cut or changed is refused, and the next backup does without it."""
        target, name = await self.backed_up()
        path = f"{target}/manifests/{name}"
        whole = json.loads(_read(path))
        changed = deepcopy(whole)
        changed["segments"].pop()
        later = {**whole, "format": "mailhost backup 2"}
        for document in (_read(path)[:-20], json.dumps(changed).encode(), json.dumps(later).encode(), b"[]"):
            _write(path, document)
            with pytest.raises(Unusable):
                backup.read_manifest(target, name)
        with pytest.raises(Unusable):
            backup.read_manifest(target, "none.json")

    async def test_into_what_is_not_empty(self) -> None:
        """Nothing is overwritten."""
        target, name = await self.backed_up()
        directory = self.restored(target, name)
        with pytest.raises(Unusable, match="not empty"):
            restore(Files(), target, backup.read_manifest(target, name), directory, unwatched)

    async def test_cut_short(self) -> None:
        """What is left of a restore that broke off is no spool to a host."""
        target, name = await self.backed_up()
        directory = self.new_directory()
        with pytest.raises(OSError, match="full"):
            restore(_FullDisk(directory, 4000), target, backup.read_manifest(target, name), directory, unwatched)
        with pytest.raises(SpoolUnavailable) as refused:
            await self.started(directory)
        assert "is no spool" in str(refused.value.cause)

    async def test_again_from_a_restored_spool(self) -> None:
        """A restored spool takes mail, and is backed up in its turn, to the same place."""
        target, name = await self.backed_up()
        directory = self.restored(target, name)
        spool = await self.started(directory)
        await deliver(spool, "later")
        again = self.take(directory, target)
        assert await self.subjects_in(self.restored(target, again.manifest)) == await subjects(spool)
        assert len(await self.subjects_in(self.restored(target, name))) == 9

    async def test_two_histories(self) -> None:
        """A spool restored from an older backup goes another way: it is not mixed with what the first one did since."""
        directory, target = self.new_directory(), self.new_directory()
        spool = await self.started(directory)
        await deliver(spool, "both")
        old = self.take(directory, target)
        await deliver(spool, "first only")
        last = self.take(directory, target)
        restored = await self.started(self.restored(target, old.manifest))
        await deliver(restored, "second only")
        with pytest.raises(Unusable, match="restored from an older backup"):
            self.take(restored._layout.root, target)
        assert len(backup.manifests(target)) == 2
        check(target, backup.read_manifest(target, last.manifest), unwatched)
        other = self.new_directory()
        again = self.take(restored._layout.root, other)
        assert await self.subjects_in(self.restored(other, again.manifest)) == ["both", "second only"]


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _write(path: str, octets: bytes) -> None:
    Path(path).write_bytes(octets)


class UnderLoadTests(BackupTestCase):
    """Workers deliver, delete, roll over and are killed; another process compacts; backups are taken meanwhile."""

    timeout = 900
    workers = ("worker0", "worker1")

    async def rounds(self, count: int) -> None:
        directory, target = self.new_directory(), self.new_directory()
        said = Acknowledged()
        rng = random.Random(3)
        compacting = await self.started(directory)
        for _ in range(count):
            running, readers = _start(directory, self.workers, said)
            await self.until_taken(said, len(said.taken) + 20)
            await deferLater(reactor, rng.uniform(0, 0.3))
            compaction = Deferred.fromCoroutine(compacting.compact())
            before = deepcopy(said)
            taken = await deferToThread(self.take, directory, target)
            await compaction
            _kill(running, readers)  # and all that they have said has been read then
            await self.check(self.restored(target, taken.manifest), before, said)
        assert len(said.taken) > count
        for name in backup.manifests(target):
            check(target, backup.read_manifest(target, name), unwatched)

    async def until_taken(self, said: Acknowledged, count: int) -> None:
        while len(said.taken) < count and not said.failures:
            await deferLater(reactor, 0.02)

    async def check(self, directory: str, before: Acknowledged, after: Acknowledged) -> None:
        """@param before: what had been said when the backup began.  @param after: all that was ever said."""
        spool = await self.started(directory)
        found = []
        for name in self.workers:
            for octets in await contents(spool, name):
                found.append(octets.partition(b"\r\n")[0].partition(b" ")[2].decode())
        await spool.stop()
        assert verify(Files(), directory).is_good
        assert not after.failures
        assert len(found) == len(set(found))
        missing = before.taken - after.deleting - set(found)
        assert not missing, f"acknowledged before the backup began, and not in it: {missing}"
        assert not before.deleted & set(found), "deleted before the backup began, and in it"
        assert set(found) <= after.asked

    async def test_under_load(self) -> None:
        """All that was acknowledged before a backup began is in it, once and whole; what was deleted before is not."""
        await self.rounds(3)

    async def test_verified_under_load(self) -> None:
        """A good spool is found good at every moment, whatever is delivered, deleted and compacted in it meanwhile."""
        directory = self.new_directory()
        said = Acknowledged()
        compacting = await self.started(directory)
        running, readers = _start(directory, self.workers, said)
        for round in range(1, 9):
            await self.until_taken(said, round * 20)
            report = await deferToThread(verify, Files(), directory)
            assert report.is_good, vars(report)
            await compacting.compact()
        _kill(running, readers)
        assert not said.failures
        assert verify(Files(), directory).is_good

    @pytest.mark.long
    async def test_under_load_for_long(self) -> None:
        """The same, many times."""
        await self.rounds(25)


Workers = list[subprocess.Popen[bytes]]


def _start(directory: str, names: Sequence[str], said: Acknowledged) -> tuple[Workers, list[threading.Thread]]:
    running = [
        subprocess.Popen([sys.executable, WORKER, directory, name], stdout=subprocess.PIPE, cwd=ROOT) for name in names
    ]
    readers = [threading.Thread(target=said.read, args=(worker,)) for worker in running]
    for reader in readers:
        reader.start()
    return running, readers


def _kill(running: Workers, readers: list[threading.Thread]) -> None:
    for worker, reader in zip(running, readers):
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        reader.join()
        assert worker.stdout is not None
        worker.stdout.close()


# ------------------------------------------------------------------------------------------------------- as it is typed


def test_by_the_command_line(
    mailhost: Callable[..., Any], config: Path, start: Callable[..., Running], tmp_path: Path
) -> None:
    """Backed up beside a running host, restored where there is no spool; refused where there is one."""
    file = ("--config", str(config))
    host = start(PROGRAM, "run", *file)
    send(host)
    first = json.loads(mailhost("backup", "backups", *file, "--json").out)
    send(host)
    second = mailhost("backup", "backups", *file)
    assert (second.status, second.out.count("000002-")) == (0, 1)
    assert host.end() == -signal.SIGTERM
    refused = mailhost("restore", "backups", *file)
    assert (refused.status, refused.err.count("\n")) == (1, 1)
    assert "is not empty; a restore overwrites nothing" in refused.err
    os.rename(tmp_path / "spool", tmp_path / "old")
    assert mailhost("restore", "backups", "--check", *file).status == 0
    restored = json.loads(mailhost("restore", "backups", "--manifest", first["manifest"], *file, "--json").out)
    assert (restored["maildrops"], restored["messages"]) == (1, 1)
    again = start(PROGRAM, "run", *file)
    assert messages(again) == 1
    assert again.end() == -signal.SIGTERM
    mixed = mailhost("backup", "backups", *file)
    assert (mixed.status, mixed.err.count("\n")) == (1, 1)
    for _ in range(2):
        assert mailhost("backup", "others", *file, "--keep", "1").status == 0
    assert len(json.loads(mailhost("backup", "others", "--list", *file, "--json").out)["backups"]) == 1


def test_nothing_there(mailhost: Callable[..., Any], config: Path) -> None:
    """One clear line."""
    for arguments, said in (
        (("backup", "backups"), "there is no spool yet"),
        (("restore", "backups"), "there is no backup here"),
    ):
        ended = mailhost(*arguments, "--config", str(config))
        assert (ended.status, ended.out, ended.err.count("\n")) == (1, "", 1)
        assert said in ended.err
