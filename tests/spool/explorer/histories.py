"""The workloads: short, and each with something that a crash could break."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from typing import Any

from tests.spool.explorer.workloads import ANN, BOB, CLEO, LARGE_OCTETS, Workload, World

_LARGE = LARGE_OCTETS + 500
"""In wire form and in plain form."""


def delivery(world: World) -> Iterator[Any]:
    """To one maildrop and to several, alone and in groups."""
    yield world.start()
    yield world.create(ANN)
    yield world.deliver(ANN)
    yield world.deliver(ANN, BOB, octets=700)
    yield world.deliver_at_once([ANN], [BOB], [ANN, BOB, CLEO])
    yield world.deliver(CLEO, octets=1500)
    yield world.stop()


def deletion(world: World) -> Iterator[Any]:
    """Some of a maildrop's messages, then all; of a message in two maildrops in one only."""
    yield world.start()
    yield world.deliver_at_once([ANN], [ANN, BOB], [ANN], [ANN])
    yield world.delete(ANN, 0, 1)
    yield world.deliver(ANN)
    yield world.delete(ANN)
    yield world.deliver(ANN, BOB)
    yield world.stop()


def large(world: World) -> Iterator[Any]:
    """Messages that go a way of their own, beside small ones."""
    yield world.start()
    yield world.create(ANN)
    yield world.deliver(ANN, octets=_LARGE)
    yield world.deliver_at_once([ANN, BOB], [ANN], octets=2 * _LARGE)
    yield world.deliver(ANN)
    yield world.delete(ANN, 0, 2)
    yield world.stop()


def roll_over(world: World) -> Iterator[Any]:
    """From one segment to the next."""
    yield world.start()
    for _ in range(5):
        yield world.deliver(ANN, octets=1300)
    yield world.delete(ANN, 1, 3)
    yield world.deliver(ANN, octets=1300)
    yield world.stop()


def names(world: World) -> Iterator[Any]:
    """Maildrops renamed, removed, and others of their names made."""
    yield world.start()
    yield world.create(ANN)
    yield world.deliver(ANN, BOB)
    yield world.rename(ANN, CLEO)
    yield world.deliver(ANN, CLEO)
    yield world.remove(BOB)
    yield world.deliver(BOB)
    yield world.remove(CLEO)
    yield world.rename(ANN, CLEO)
    yield world.deliver(CLEO)
    yield world.stop()


def restarts(world: World) -> Iterator[Any]:
    """Stopped and started, with its index and without."""
    yield world.start()
    yield world.deliver_at_once([ANN], [ANN, BOB])
    yield world.delete(ANN, 0)
    yield world.stop()
    yield world.start()
    yield world.deliver(BOB)
    yield world.stop()
    world.lose_index()
    yield world.start()
    yield world.deliver(ANN)
    yield world.delete(BOB, 0)
    yield world.stop()


def kills(world: World) -> Iterator[Any]:
    """Processes that end with something under way, and those that take over from them."""
    points = "content.written", "group.written", "segment.created", "group.synced", "large.synced", "large.renamed"
    yield from _killed_at(world, points)
    # One that takes over while nothing can be written is not helped by what it would write.
    yield world.die_at("sync", world.deliver(ANN))
    yield world.start(("write", errno.ENOSPC))
    yield world.settle()
    yield world.deliver(ANN)
    yield world.die_at("sync", world.stop())
    yield from _taken_over(world)
    yield from _killed_in_quit(world, "quit.synced")


def kills_of_maildirs(world: World) -> Iterator[Any]:
    """The same where the instants have other names."""
    points = "content.written", "group.written", "intent.synced", "group.renamed", "group.synced", "large.synced"
    yield from _killed_at(world, points)
    yield from _killed_in_quit(world, "quit.written")


def _killed_at(world: World, points: Sequence[str]) -> Iterator[Any]:
    yield world.start()
    yield world.deliver(ANN)
    for point in points:
        octets = _LARGE if "large" in point else 900
        yield world.die_at(point, world.deliver_at_once([ANN, BOB], [ANN], octets=octets))
        yield from _taken_over(world)


def _killed_in_quit(world: World, point: str) -> Iterator[Any]:
    for indexes in [0, 1], [0]:
        yield world.deliver_at_once([ANN], [ANN], [ANN])
        yield world.die_at(point, world.delete(ANN, *indexes))
        yield from _taken_over(world)
    yield world.stop()


def _taken_over(world: World) -> Iterator[Any]:
    yield world.start()
    yield world.settle()


def compaction(world: World) -> Iterator[Any]:
    """Segments that go because nothing in them is wanted, and others whose rest moves; with the index lost in between."""
    yield world.start()
    yield from _mostly_dead(world)
    yield world.compact()
    yield world.deliver(ANN, BOB)
    yield world.remove(BOB)
    yield from _mostly_dead(world)
    yield world.compact()
    yield world.delete(ANN)
    yield world.stop()
    world.lose_index()
    yield world.start()
    yield world.compact()
    yield world.deliver(ANN)
    yield world.stop()


def undelete(world: World) -> Iterator[Any]:
    """What was deleted comes back as a new message, also out of segments that were compacted, and the old one stays away."""
    yield world.start()
    yield from _mostly_dead(world)
    yield world.undelete(ANN, world.deleted(ANN)[0])
    yield world.compact()
    yield world.undelete(ANN, world.deleted(ANN)[-1])
    yield world.delete(ANN)
    yield world.undelete(ANN, world.deleted(ANN)[1])
    yield world.stop()


def compaction_cut_short(world: World) -> Iterator[Any]:
    """By the end of its process at each of its steps, and by a disk that fails."""
    yield world.start()
    for point in "compact.written", "compact.synced", "compact.renamed", "compact.entered", "compact.indexed":
        yield from _mostly_dead(world)
        yield world.die_at(point, world.compact())
        yield from _taken_over(world)
    for point in "segment.unlinked", "segment.gone", "segment.forgotten":
        yield from _mostly_dead(world)
        yield world.die_at(point, world.compact())
        yield from _taken_over(world)
        yield world.compact()
    for operation in "create", "write", "sync", "rename", "sync_directory":
        yield from _mostly_dead(world)
        yield world.failing(operation, errno.EIO, world.compact())
    yield world.compact()
    yield world.stop()


def _mostly_dead(world: World) -> Iterator[Any]:
    """Two segments, with little in them that is wanted."""
    yield world.deliver_at_once([ANN], [ANN, BOB], [ANN], octets=500)
    yield world.deliver_at_once([ANN], [ANN], octets=900)
    yield world.deliver(ANN, octets=1300)
    yield world.delete(ANN, 0, 2, 4, 5)


def failures(world: World) -> Iterator[Any]:
    """A disk that fails writes and syncs, runs full, and gets well again."""
    yield world.start()
    yield world.deliver(ANN)
    for operation, code in ("sync", errno.EIO), ("write", errno.EIO), ("sync", errno.ENOSPC), ("write", errno.ENOSPC):
        yield world.failing(operation, code, world.deliver_at_once([ANN], [ANN, BOB]))
        yield world.deliver(ANN, octets=500)
    yield world.failing("sync", errno.EIO, world.delete(ANN, 0))
    for operation in "write", "sync", "rename", "sync_directory":
        yield world.failing(operation, errno.EIO, world.deliver(BOB, octets=_LARGE))
    yield world.deliver(BOB)
    yield world.stop()


def failures_of_maildirs(world: World) -> Iterator[Any]:
    """The same; every operation may be the one that fails."""
    yield world.start()
    yield world.deliver_at_once([ANN], [ANN], [ANN, BOB])
    for operation in "create", "write", "sync", "rename", "sync_directory":
        yield world.failing(operation, errno.EIO, world.deliver(ANN))
        yield world.failing(operation, errno.EIO, world.deliver_at_once([ANN], [ANN, BOB]))
        yield world.failing(operation, errno.EIO, world.deliver(BOB, octets=_LARGE))
    for operation in "sync", "sync_directory":
        yield world.failing(operation, errno.EIO, world.delete(ANN, 0, 1))
    yield world.failing("sync_directory", errno.EIO, world.delete(ANN, 0))
    yield world.deliver(BOB)
    yield world.stop()


def maildirs_of_others(world: World) -> Iterator[Any]:
    """Maildirs that are there when a spool is made around them."""
    yield world.start()
    yield world.create(ANN)
    yield world.create(BOB)
    yield world.stop()
    world.lose_durably(".mailhost")
    yield world.start()
    yield world.deliver(ANN, BOB)
    yield world.stop()


_ALL = [delivery, deletion, large, roll_over, names, restarts]
LOG: list[Workload] = [*_ALL, compaction, compaction_cut_short, kills, failures]
MAILDIR: list[Workload] = [*_ALL, maildirs_of_others, kills_of_maildirs, failures_of_maildirs]
