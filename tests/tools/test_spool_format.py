"""docs/spool-format.md: its reader reads a real spool."""

from __future__ import annotations

import errno
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from mailhost.refusal import Refusal
from mailhost.spool.files import Files
from mailhost.spool.log import backup
from mailhost.spool.log.inspection import unwatched
from mailhost.spool.log.spool import LogSpool
from tests.spool.log.disk import FailingDisk
from tests.spool.log.using import ANN, BOB, LogSpoolTestCase, contents, delete, deliver

READER = Path(__file__).parents[2] / "docs" / "examples" / "read_spool.py"


def _module() -> Any:
    specification = importlib.util.spec_from_file_location("read_spool", READER)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


READ = _module().read


class ReaderTests(LogSpoolTestCase):
    async def filled(self, **options: Any) -> LogSpool:
        """Everything a spool can hold: shared mail, deletions, names that moved, removed maildrops, a large message, a fence."""
        disk = FailingDisk()
        spool = await self.started(
            self.new_directory(), segment_octets=6000, large_octets=20_000, files=disk, **options
        )
        for number in range(20):
            await deliver(spool, f"m{number}", [ANN, BOB] if number % 2 else [ANN], 400 * (number % 4))
        await deliver(spool, "large", [BOB], 50_000)
        await delete(spool, [1, 3, 4])
        disk.fail("sync", errno.EIO)
        try:
            await deliver(spool, "refused")
        except Refusal:
            pass
        await deliver(spool, "after a fence")
        await spool.rename(BOB, "rob@example.test")
        await deliver(spool, "for the new bob", [BOB])
        await deliver(spool, "for nobody", ["eve@example.test"])
        await spool.remove("eve@example.test")
        return spool

    async def by_the_spool(self, spool: LogSpool) -> dict[str, list[bytes]]:
        return {name: await contents(spool, name) async for name in spool.maildrops()}

    def by_the_reader(self, directory: str) -> dict[str, list[bytes]]:
        return {name: list(messages.values()) for name, messages in READ(directory).items()}

    async def test_the_same(self) -> None:
        """Names, order and octets are those that the spool itself gives out, while it runs and afterwards."""
        spool = await self.filled()
        expected = await self.by_the_spool(spool)
        assert set(expected) == {ANN, BOB, "rob@example.test"}
        assert self.by_the_reader(spool._layout.root) == expected
        unique_ids = (await (await spool.snapshot(ANN)).listing()).unique_ids
        assert [unique_id for _, unique_id in READ(spool._layout.root)[ANN]] == unique_ids
        await spool.stop()
        assert self.by_the_reader(spool._layout.root) == expected

    async def test_after_compaction(self) -> None:
        """Messages that have moved are there once."""
        spool = await self.filled()
        await delete(spool, range(1, 12))
        expected = await self.by_the_spool(spool)
        await spool.compact()
        assert self.by_the_reader(spool._layout.root) == expected

    async def test_damage(self) -> None:
        """Of a damaged spool it reads what the spool itself finds when its index is gone."""
        for seed in range(3):
            directory = self.killed((await self.filled())._layout.root)
            source = random.Random(seed)
            for _ in range(5):
                name = source.choice(os.listdir(directory + "/segments"))
                _flip(Path(directory, "segments", name), source)
            found = self.by_the_reader(directory)
            for name in os.listdir(directory):
                if name.startswith("index"):
                    os.unlink(os.path.join(directory, name))
            spool = await self.started(directory)
            assert found == await self.by_the_spool(spool)
            await spool.stop()

    async def test_by_hand_from_a_backup(self) -> None:
        """As the page says: so many octets of each segment, and VERSION, are a spool."""
        spool = await self.filled()
        expected = await self.by_the_spool(spool)
        target, directory = self.new_directory(), self.new_directory()
        taken = backup.take(Files(), spool._layout.root, target, unwatched)
        os.makedirs(directory + "/segments")
        for kept in backup.read_manifest(target, taken.manifest).segments.values():
            _copy(f"{target}/segments/{kept.id}.seg", f"{directory}/segments/{kept.id}.seg", kept.octets)
        _write(directory + "/VERSION", b"mailhost log spool 1\n")
        assert await self.by_the_spool(await self.started(directory)) == expected

    async def test_as_a_program(self) -> None:
        """With nothing but Python it lists the maildrops, and gives one out."""
        spool = await self.filled()
        listed = _run(spool._layout.root)
        assert f"{ANN} 18 messages\n" in listed.decode()
        given = _run(spool._layout.root, BOB)
        assert given == (await contents(spool, BOB))[0] + b".\r\n"


def _flip(path: Path, source: random.Random) -> None:
    octets = bytearray(path.read_bytes())
    octets[source.randrange(64, len(octets))] ^= 1
    path.write_bytes(octets)


def _copy(source: str, target: str, count: int) -> None:
    Path(target).write_bytes(Path(source).read_bytes()[:count])


def _write(path: str, octets: bytes) -> None:
    Path(path).write_bytes(octets)


def _run(*arguments: str) -> bytes:
    command = [sys.executable, "-I", "-S", str(READER), *arguments]
    return subprocess.run(command, capture_output=True, check=True, timeout=30).stdout
