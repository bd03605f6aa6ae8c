"""The simulated disk does what a real one does, and leaves after a crash what it may."""

from __future__ import annotations

import inspect
from pathlib import Path
from random import Random
from typing import Any

from mailhost.spool.files import Files
from tests.spool.explorer.crashes import LOST, WHOLE, Crash, Effort, Fate, crashes_at, unsynced, what_is_left
from tests.spool.explorer.disk import Disk, Image, SimulatedFiles


def simulated() -> tuple[Disk, SimulatedFiles]:
    disk = Disk()
    return disk, SimulatedFiles(disk, "/base")


def left(disk: Disk, *fates: Fate, at: int | None = None) -> dict[str, bytes | None]:
    """@param fates: of the first operations."""
    return what_is_left(disk, Crash(len(disk.operations) if at is None else at, dict(enumerate(fates)))).tree()


def written(files: Files, path: str, octets: bytes) -> int:
    fd = files.create(path)
    files.write(fd, [octets], 0)
    return fd


def test_every_operation_is_simulated() -> None:
    """Nothing that goes through the door gets past the recorder."""
    public = {name for name, _ in inspect.getmembers(Files, inspect.isfunction) if not name.startswith("_")}
    assert public <= vars(SimulatedFiles).keys()


class Twins:
    """The same done to a real directory and to a simulated one."""

    def __init__(self, directory: Path, random: Random) -> None:
        self.disk = Disk()
        self._directory = directory
        self._random = random
        self._both: list[Files] = [Files(), SimulatedFiles(self.disk, str(directory))]
        self._open: list[tuple[int, ...]] = []
        self._do("make_directory", self._path("d"))

    def real_tree(self) -> dict[str, bytes | None]:
        return {
            "/" + str(path.relative_to(self._directory)): None if path.is_dir() else path.read_bytes()
            for path in self._directory.rglob("*")
        }

    def do_something(self) -> None:
        with_path = ["create", "open", "open_lock", "unlink", "exists", "is_directory"]
        with_file = ["write", "write", "size", "read", "truncate", "sync", "lock", "is_at", "close"]
        method = self._random.choice([*with_path, "rename", "names", *(with_file if self._open else ())])
        if method in with_file:
            self._do_to_file(method, self._random.choice(self._open))
        elif method == "names":
            self._do(method, self._path("d"))
        else:
            results = self._do(method, *[self._any_path() for _ in range(1 + (method == "rename"))])
            if "open" in method or method == "create":
                self._open += [results] if None not in results else []

    def _do_to_file(self, method: str, fds: tuple[int, ...]) -> None:
        random = self._random
        arguments = {
            "write": [[random.randbytes(random.randrange(50)), b"xy"], random.randrange(100)],
            "read": [random.randrange(100), random.randrange(100)],
            "truncate": [random.randrange(100)],
            "is_at": [self._any_path()],
        }
        self._do(method, fds, *arguments.get(method, []))
        if method == "close":
            self._open.remove(fds)

    def close(self) -> None:
        for fds in self._open:
            self._do("close", fds)

    def _path(self, name: str) -> str:
        return str(self._directory / name)

    def _any_path(self) -> str:
        return self._path(self._random.choice(["a", "b", "d/a", "d/b", "nowhere/a"]))

    def _do(self, method: str, *arguments: Any) -> tuple[Any, ...]:
        """@return: what came of it in each, which is the same but for descriptors; None for an error."""
        results, errors = [], []
        for which, files in enumerate(self._both):
            given = [each[which] if isinstance(each, tuple) else each for each in arguments]
            try:
                results.append(getattr(files, method)(*given))
                errors.append(0)
            except OSError as error:
                results.append(None)
                errors.append(error.errno)
        assert errors[0] == errors[1], (method, arguments)
        if method == "names":
            assert sorted(results[0]) == sorted(results[1])
        elif method not in ("create", "open", "open_lock"):
            assert results[0] == results[1], (method, arguments)
        return tuple(results)


def test_like_a_real_one(tmp_path: Path) -> None:
    """Whatever is done to both, a simulated disk answers as a real one does, and holds the same."""
    for seed in range(20):
        (tmp_path / str(seed)).mkdir()
        twins = Twins(tmp_path / str(seed), Random(seed))
        for _ in range(200):
            twins.do_something()
        assert twins.disk.now.tree() == twins.real_tree()
        twins.close()


class TestCrashes:
    def test_synced(self) -> None:
        """What was synced is there whatever becomes of the rest; its name only if the directory was synced too."""
        disk, files = simulated()
        files.sync(written(files, "/base/a", b"octets"))
        assert left(disk) == {}
        assert left(disk, WHOLE) == {"/a": b"octets"}
        files.sync_directory("/base")
        assert left(disk) == {"/a": b"octets"}
        assert unsynced(disk.operations) == []

    def test_not_synced(self) -> None:
        """A write may be there or not, whatever came after it."""
        disk, files = simulated()
        fd = written(files, "/base/a", b"first")
        files.write(fd, [b"second"], 5)
        files.sync_directory("/base")
        assert left(disk, WHOLE, LOST, LOST) == {"/a": b""}
        assert left(disk, WHOLE, WHOLE, LOST) == {"/a": b"first"}
        assert left(disk, WHOLE, LOST, WHOLE) == {"/a": bytes(5) + b"second"}

    def test_in_part(self) -> None:
        """Of a write any sectors may be there, or its length alone."""
        disk, files = simulated()
        written(files, "/base/a", b"x" * 1500)
        files.sync_directory("/base")
        assert left(disk, WHOLE, Fate("zeros")) == {"/a": bytes(1500)}
        stale = left(disk, WHOLE, Fate("stale", 1))["/a"]
        assert stale is not None
        assert len(stale) == 1500
        torn = {left(disk, WHOLE, Fate("torn", seed))["/a"] for seed in range(100)}
        whole, none = b"x" * 512, bytes(512)
        assert {whole, none + whole, whole + none + b"x" * 476, whole + bytes(988), b""} <= torn
        assert all(octets is not None and set(octets[:512]) in ({0}, {ord("x")}, set()) for octets in torn)

    def test_moved(self) -> None:
        """A name that moves to another directory may be in both and never in neither; within one it moves at once."""
        disk, files = simulated()
        files.make_directory("/base/d")
        files.sync(written(files, "/base/a", b"octets"))
        files.sync_directory("/base")
        start = len(disk.operations)
        files.rename("/base/a", "/base/d/b")
        trees = [
            left(disk, *[LOST] * start, *fates)
            for fates in ((LOST, LOST), (WHOLE, LOST), (LOST, WHOLE), (WHOLE, WHOLE))
        ]
        both = {"/d": None, "/a": b"octets", "/d/b": b"octets"}
        moved = {"/d": None, "/d/b": b"octets"}
        assert trees == [{"/d": None, "/a": b"octets"}, both, moved, moved]
        files.rename("/base/d/b", "/base/d/c")
        files.sync_directory("/base")
        assert left(disk) == {"/d": None, "/d/b": b"octets"}

    def test_failed_sync(self) -> None:
        """What a failed sync was to make durable stays in doubt, whatever later syncs say."""
        disk, files = simulated()
        fd = written(files, "/base/a", b"first")
        files.sync_directory("/base")
        files.fail("sync")
        try:
            files.sync(fd)
        except OSError:
            files.write(fd, [b"second"], 5)
            files.sync(fd)
        assert left(disk) == {"/a": bytes(5) + b"second"}
        assert left(disk, WHOLE, WHOLE) == {"/a": b"firstsecond"}

    def test_all_subsets(self) -> None:
        """Every subset of what is unsynced is tried, as long as there is not too much of it."""
        disk, files = simulated()
        for name in "abcd":
            files.create(f"/base/{name}")
        found = {frozenset(what_is_left(disk, crash).tree()) for crash in crashes_at(disk, 4, Effort(4, 0), Random(1))}
        assert len(found) == 16

    def test_starts_from_what_is_there(self) -> None:
        """A disk that begins with what a crash has left goes on from there."""
        disk, files = simulated()
        written(files, "/base/a", b"octets")
        again = Disk(what_is_left(disk, Crash(2, {0: WHOLE, 1: WHOLE})))
        files = SimulatedFiles(again, "/base")
        written(files, "/base/b", b"more")
        assert left(again) == {"/a": b"octets"}
        assert left(again, WHOLE) == {"/a": b"octets", "/b": b""}
        assert Image.empty().tree() == {}
