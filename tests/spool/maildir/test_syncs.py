"""Many syncs."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator

import pytest

from mailhost.spool.files import Files
from mailhost.spool.maildir.syncs import Syncs


class Clock:
    """Each sync takes as long as it is told."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Directories(Files):
    """Notes what was synced and in which thread; fails some of it."""

    def __init__(self) -> None:
        self.threads: dict[str, threading.Thread] = {}
        self.together: threading.Barrier | None = None

    def sync_directory(self, path: str) -> None:
        first = not self.threads
        self.threads[path] = threading.current_thread()
        if self.together is not None and not first:
            self.together.wait(10)
        if path.startswith("bad"):
            raise OSError(errno.EIO, path)


@pytest.fixture
def disk() -> Directories:
    return Directories()


@pytest.fixture
def slow(disk: Directories) -> Iterator[Syncs]:
    syncs = Syncs(disk, Clock(0.005))
    yield syncs
    syncs.stop()


def test_quick_disk(disk: Directories) -> None:
    """All in the thread that asked."""
    assert Syncs(disk, Clock(0.0001)).directories("abcdef") == {}
    assert disk.threads == dict.fromkeys("abcdef", threading.current_thread())


def test_slow_disk(disk: Directories, slow: Syncs) -> None:
    """After one slow sync the others are done at once: here each waits for all of them."""
    disk.together = threading.Barrier(8)
    assert slow.directories("abcdefghi") == {}
    assert sorted(disk.threads) == list("abcdefghi")


@pytest.mark.parametrize("step", [0.0001, 0.005])
def test_failures(disk: Directories, step: float) -> None:
    """What failed is said of each, and everything else is synced nevertheless."""
    syncs = Syncs(disk, Clock(step))
    failed = syncs.directories(["bad 1", "a", "bad 2", "b", "bad 3"])
    syncs.stop()
    assert {path: str(error) for path, error in failed.items()} == {
        f"bad {number}": f"[Errno 5] bad {number}" for number in (1, 2, 3)
    }
    assert len(disk.threads) == 5
