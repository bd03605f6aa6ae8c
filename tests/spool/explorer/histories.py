"""The workloads: short, and each with something that a crash could break."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from tests.spool.explorer.workloads import ANN, BOB, CLEO, LARGE_OCTETS, Workload, World


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
    yield world.deliver(ANN, octets=LARGE_OCTETS + 1)
    yield world.deliver_at_once([ANN, BOB], [ANN], octets=LARGE_OCTETS * 2)
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
    yield world.start()
    yield world.deliver(ANN)
    for point in "content.written", "group.written", "segment.created", "group.synced", "large.synced", "large.renamed":
        yield world.die_at(
            point, world.deliver_at_once([ANN, BOB], [ANN], octets=LARGE_OCTETS + 1 if "large" in point else 900)
        )
        yield world.start()
        yield world.settle()
    yield world.die_at("sync", world.deliver(ANN))
    yield world.start(("write", errno.ENOSPC))
    yield world.settle()
    yield world.deliver(ANN)
    yield world.die_at("sync", world.stop())
    yield world.start()
    yield world.settle()
    yield world.die_at("quit.synced", world.delete(ANN, 0, 1))
    yield world.start()
    yield world.settle()
    yield world.deliver(ANN)
    yield world.stop()


def failures(world: World) -> Iterator[Any]:
    """A disk that fails writes and syncs, runs full, and gets well again."""
    yield world.start()
    yield world.deliver(ANN)
    for operation, code in ("sync", errno.EIO), ("write", errno.EIO), ("sync", errno.ENOSPC), ("write", errno.ENOSPC):
        yield world.failing(operation, code, world.deliver_at_once([ANN], [ANN, BOB]))
        yield world.deliver(ANN, octets=500)
    yield world.failing("sync", errno.EIO, world.delete(ANN, 0))
    yield world.failing("sync_directory", errno.EIO, world.deliver(BOB, octets=LARGE_OCTETS + 1))
    yield world.deliver(BOB)
    yield world.stop()


LOG: list[Workload] = [delivery, deletion, large, roll_over, names, restarts, kills, failures]
