"""A file that is read again when it has changed: never too late, never too often, never half."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock

from mailhost.cred.watched import WatchedFile


def parse(content: bytes) -> list[str]:
    if b"broken" in content:
        raise ValueError(f"broken: {len(content)}")
    return content.decode().split()


class Seen:
    """A watched file and what it told of itself."""

    def __init__(self, path: Path, threads: Any) -> None:
        path.write_text("one")
        self.clock = Clock()
        self.reads = 0
        self.file: WatchedFile[list[str]] = WatchedFile(str(path), self._parse, threads, self.clock.seconds)
        self.changes = 0
        self.troubles: list[str] = []
        self.file.changed = self._changed
        self.file.troubled = lambda error: self.troubles.append(str(error))

    def _parse(self, content: bytes) -> list[str]:
        self.reads += 1
        return parse(content)

    def _changed(self) -> None:
        self.changes += 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def seen(path: Path, threads: Any) -> Seen:
    return Seen(path, threads)


def test_read_at_once(seen: Seen) -> None:
    """The value is there from the beginning."""
    assert seen.file.value == ["one"]


@pytest.mark.parametrize("content", [None, "broken"])
def test_wrong_from_the_beginning(path: Path, threads: Any, content: str | None) -> None:
    """Who starts with a file that is missing or wrong should not start."""
    if content is not None:
        path.write_text(content)
    with pytest.raises((FileNotFoundError, ValueError)):
        WatchedFile(str(path), parse, threads, Clock().seconds)


@pytest.mark.parametrize("replace", [lambda new, old: old.write_text(new), lambda new, old: swap(new, old)])
def test_changed(seen: Seen, path: Path, replace: Callable[[str, Path], None]) -> None:
    """Written over or replaced, it is read again at the next look."""
    replace("two", path)
    assert seen.file.look().called
    assert (seen.file.value, seen.changes) == (["two"], 1)


def swap(new: str, old: Path) -> None:
    other = old.with_suffix(".new")
    other.write_text(new)
    other.rename(old)


@pytest.mark.usefixtures("long_after")
def test_unchanged(path: Path, threads: Any) -> None:
    """A look at an unchanged file is a stat and no more."""
    seen = Seen(path, threads)
    for _ in range(5):
        seen.file.look()
    assert (seen.reads, seen.changes) == (1, 0)


def test_changed_within_a_tick(seen: Seen, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that leaves size and times as they were, since the clock had not ticked, is seen while the file is young."""
    monkeypatch.setattr("mailhost.cred.watched._signature", lambda status: (status.st_size,))
    for content in ("two", "six"):
        path.write_text(content)
        seen.file.look()
        assert seen.file.value == [content]


def test_wrong_later(seen: Seen, path: Path) -> None:
    """What was right stays, the trouble is told once, and is over when the file is right again."""
    path.write_text("broken")
    for _ in range(3):
        assert seen.file.look().called
    assert (seen.file.value, seen.troubles) == (["one"], ["broken: 6"])
    path.write_text("broken otherwise")
    seen.file.look()
    assert len(seen.troubles) == 2
    path.write_text("one")
    seen.file.look()
    assert seen.file.trouble is None
    path.write_text("broken")
    seen.file.look()
    assert len(seen.troubles) == 3


def test_gone_and_back(seen: Seen, path: Path) -> None:
    """A file that is away for a moment takes nothing with it."""
    path.unlink()
    seen.file.look()
    assert seen.file.value == ["one"]
    assert "No such file" in seen.troubles[0]
    path.write_text("two")
    seen.file.look()
    assert (seen.file.value, seen.file.trouble) == (["two"], None)


@pytest.mark.usefixtures("long_after")
def test_folder_gone_and_back(tmp_path: Path, threads: Any) -> None:
    """The trouble ends when the very same file is there again."""
    folder = tmp_path / "folder"
    folder.mkdir()
    seen = Seen(folder / "file", threads)
    folder.rename(tmp_path / "elsewhere")
    seen.file.look()
    assert seen.file.trouble is not None
    (tmp_path / "elsewhere").rename(folder)
    seen.file.look()
    assert seen.file.trouble is None


def test_looks_are_shared(seen: Seen, threads: Any) -> None:
    """Who asks while a look is under way waits for the next, which began later; all of them for the same."""
    threads.held = True
    first = seen.file.look()
    later = [seen.file.look() for _ in range(100)]
    assert len(threads.calls) == 1
    threads.run()
    assert first.called
    assert not any(look.called for look in later)
    assert len(threads.calls) == 2
    threads.run()
    assert all(look.called for look in later)
    assert len(threads.calls) == 2


def test_waiter_that_has_gone(seen: Seen, threads: Any) -> None:
    """One that was cancelled does not keep the others from their answer."""
    threads.held = True
    gone, stays = seen.file.look(), seen.file.look()
    gone.addErrback(lambda failure: None)
    gone.cancel()
    threads.run()
    threads.run()
    assert stays.called


def test_no_thread_to_be_had(seen: Seen) -> None:
    """Where a thread cannot be started this look fails, and the next one is made all the same."""

    def no_thread(*arguments: Any) -> Any:
        raise RuntimeError("can't start new thread")

    threads, seen.file.in_thread = seen.file.in_thread, no_thread
    assert seen.file.look().called
    assert seen.troubles == ["can't start new thread"]
    seen.file.in_thread = threads
    assert seen.file.look().called
    assert seen.file.trouble is None


def test_due_at_once_but_in_a_flood(seen: Seen) -> None:
    """Twenty looks a second are due at once; beyond that one that is 50 milliseconds old will do."""
    assert [seen.file.look_is_due() for _ in range(25)] == [True] * 20 + [False] * 5
    seen.clock.advance(0.051)
    assert seen.file.look_is_due()
    seen.file.look()
    assert not seen.file.look_is_due()
    seen.clock.advance(1)
    assert seen.file.look_is_due()


def test_soon(seen: Seen, threads: Any) -> None:
    """In the background once a second is enough."""
    for _ in range(10):
        seen.file.look_soon()
    assert threads.calls == []
    seen.clock.advance(1)
    for _ in range(10):
        seen.file.look_soon()
    assert len(threads.calls) == 1
