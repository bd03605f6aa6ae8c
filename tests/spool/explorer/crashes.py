"""
What a power failure may leave of a disk.

What was synced is there.  Every other operation may be there or not, whatever came before or after it (POSIX promises no order between
syncs; ext4 promises some, and what it can leave is among these).  A write may have got there in part: any of its sectors, or its length
alone, with zeros or with what those blocks of the disk held before.  A name that moved to another directory may be in both, never in
neither.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

from tests.spool.explorer.disk import Disk, Image, Move, Names, Operation, Sync, Write, put

SECTOR_OCTETS = 512


class Fate(NamedTuple):
    """What became of an operation that was not synced."""

    name: str
    """`lost`, `whole`; of a write also `zeros`, `stale` or `torn`."""
    seed: int = 0
    """Of what was drawn for it."""


LOST = Fate("lost")
WHOLE = Fate("whole")
PARTIAL = ("zeros", "stale", "torn")


class Crash(NamedTuple):
    """The power failed when so many operations had been asked for."""

    at: int
    fates: Mapping[int, Fate]
    """Of the operations that were not synced by then; any that is not named was lost."""

    def __str__(self) -> str:
        fates = ", ".join(f"{index}: {fate.name}" for index, fate in sorted(self.fates.items()) if fate != LOST)
        return f"power lost after operation {self.at} ({fates or 'nothing unsynced was left'})"


def unsynced(operations: Sequence[Operation]) -> list[int]:
    """Which of them no sync has made durable."""
    pending: dict[int, list[int]] = {}
    doubtful: set[int] = set()
    for index, operation in enumerate(operations):
        if not isinstance(operation, Sync):
            for inode in _changed(operation):
                pending.setdefault(inode, []).append(index)
        elif operation.failed:
            doubtful.update(pending.pop(operation.inode, ()))
        else:
            pending.pop(operation.inode, None)
    free = doubtful.union(*pending.values())
    for index, operation in enumerate(operations):
        if isinstance(operation, Names) and index not in free:
            free.discard(operation.requires)
        elif isinstance(operation, Move) and not all(index in pending.get(inode, ()) for inode in _changed(operation)):
            free.discard(index)  # either of its directories was synced
    return sorted(free)


def _changed(operation: Operation) -> Sequence[int]:
    """Inodes of which each has to be synced, or either of a move's."""
    return (operation.inode, operation.source) if isinstance(operation, Move) else (operation.inode,)


def what_is_left(disk: Disk, crash: Crash) -> Image:
    operations = disk.operations[: crash.at]
    fates = _possible(operations, crash.fates)
    free = set(unsynced(operations))
    image = disk.start.copy()
    for index, operation in enumerate(operations):
        if isinstance(operation, Sync):
            continue
        fate = fates.get(index, LOST) if index in free else WHOLE
        if fate == WHOLE:
            image.apply(operation, disk.times[index])
        elif fate != LOST:
            assert isinstance(operation, Write)
            _write_in_part(image, operation, fate, operations)
    return image


def _possible(operations: Sequence[Operation], fates: Mapping[int, Fate]) -> dict[int, Fate]:
    """With what the others require."""
    fates = dict(fates)
    for index in list(fates):
        operation = operations[index]
        if isinstance(operation, Names) and operation.requires >= 0 and fates[index] == WHOLE:
            fates[operation.requires] = WHOLE
    return fates


def _write_in_part(image: Image, write: Write, fate: Fate, operations: Sequence[Operation]) -> None:
    octets, random = image.files[write.inode], Random(fate.seed)
    before = len(octets)
    end = write.offset + len(write.octets)
    if fate.name == "torn":
        for start, stop in _sectors(write.offset, end):
            if random.random() < 0.5:
                put(octets, start, write.octets[start - write.offset : stop - write.offset])
        if random.random() < 0.5:
            return  # the file ends behind the last sector that got there
    if end > len(octets):
        octets.extend(bytes(end - len(octets)))
    if fate.name == "stale":
        start = max(before, write.offset)
        put(octets, start, _stale(end - start, operations, random))


def _sectors(start: int, end: int) -> Iterator[tuple[int, int]]:
    """A stretch of a file, cut where its sectors end."""
    while start < end:
        stop = min(end, (start // SECTOR_OCTETS + 1) * SECTOR_OCTETS)
        yield start, stop
        start = stop


def _stale(count: int, operations: Sequence[Operation], random: Random) -> bytes:
    """What some earlier write had put on the disk, as if its blocks had been given to another file."""
    written = [operation.octets for operation in operations if isinstance(operation, Write) and operation.octets]
    octets = random.choice(written)
    shift = random.choice([0, random.randrange(len(octets))])
    return (octets[shift:] + octets * (count // len(octets) + 1))[:count]


class Effort(NamedTuple):
    """How many crashes of each instant are tried."""

    all_subsets_up_to: int
    """Unsynced operations of which every subset is tried."""
    samples: int
    """Where there are more."""
    partial: int = 0
    """Samples of what writes leave in part, where there are not."""
    instants: int = 1_000_000
    """Of a workload, that are tried; those at which something was promised come first."""


def crashes_at(disk: Disk, at: int, effort: Effort, random: Random) -> Iterator[Crash]:
    """Crashes when so many operations had been asked for; that nothing unsynced was left, and that all of it was, come first."""
    operations = disk.operations[:at]
    indexes = unsynced(operations)
    free = [index for index in indexes if operations[index].inode not in disk.lock_files]
    locks = [index for index in indexes if index not in free]
    yield Crash(at, {})
    yield Crash(at, dict.fromkeys(indexes, WHOLE))
    if len(free) <= effort.all_subsets_up_to:
        for kept in itertools.product([LOST, WHOLE], repeat=len(free)):
            yield Crash(at, dict(zip(free, kept, strict=True)) | _drawn(operations, locks, random, ()))
    for _ in range(effort.partial if len(free) <= effort.all_subsets_up_to else effort.samples):
        yield Crash(at, _drawn(operations, indexes, random, PARTIAL))


def _drawn(
    operations: Sequence[Operation], indexes: list[int], random: Random, partial: Sequence[str]
) -> dict[int, Fate]:
    """A fate for each."""
    fates = {}
    likely = random.choice([0.15, 0.5, 0.85])
    for index in indexes:
        if random.random() >= likely:
            continue
        kinds = partial if isinstance(operations[index], Write) and random.random() < 0.6 else ()
        fates[index] = Fate(random.choice(kinds), random.getrandbits(32)) if kinds else WHOLE
    return fates
